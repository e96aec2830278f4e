//! Enrichment: what an event alone tells beyond its words, given the settings and the GeoIP databases.
//!
//! Place from the address, browser and system from the platform text, width and height from `videoDimensions`, and the
//! derived fields of raw documents. Privacy is applied here, after the place is known: nothing that the settings hide gets
//! any further, neither into documents nor into saved state.
//!
//! Pure, apart from the databases, which are read into memory when opened.

use std::borrow::Cow;
use std::sync::Arc;

use crate::config::{Addresses, Config};
use crate::document::names;
use crate::event::candidate::{CandidateKind, Pair, Transport};
use crate::event::{
    Body, Endpoint, Event, Field, FieldName, Kind, Participant, Seen, SessionRef, Told, text_of,
};
use crate::json::{self, Object};
use crate::sessions::browser::Reporter;
use crate::sessions::facts::{Hasher, RECORDING_MEMBERS, RECORDING_VALUES, STREAM_MEMBERS};
use crate::summary::is_abnormal;

pub mod address;
mod countries;
mod entry;
pub mod place;
pub mod client;
pub mod privacy;
pub mod fields;

use fields::DataPath;
use place::{GeoIp, Place, Places};
use privacy::Privacy;

/// What enrichment found out about one event. Texts of JSON members are ready to be written.
#[derive(Debug, Clone, Default)]
pub struct Enriched {
    /// Of a participant: `location`, `geoPoints`, `client`.
    pub place: String,
    /// Of a participant: `ip`, `platform`, `geo`.
    pub address: String,
    /// Of a participant, for summaries: `clientData`, `serverData`.
    pub data: String,
    /// User that the application's data of a participant names.
    pub user: Option<Box<str>>,
    /// Tenant, likewise.
    pub tenant: Option<Box<str>>,
    /// User that telemetry names, as it may be stored.
    pub telemetry_user: Option<Box<str>>,
    /// Of a stream or recording, for summaries: what does not change.
    pub attributes: String,
    /// Of a recording, for summaries: what processing may correct.
    pub values: String,
    /// Why it ended, for summaries.
    pub reason: Option<Box<str>>,
    /// Of any event, for its raw document: derived fields.
    pub derived: String,
    /// Whether a text was cut for the summaries.
    pub truncated: bool,
    /// Fields of the event that were not understood: they promise a text or a point, and bring something else.
    odd: Vec<FieldName>,
    /// Fields of the event that its raw document does not repeat: they stand in `place`, `address` and `derived`, or the
    /// settings keep them out.
    hidden: Vec<FieldName>,
    /// What else the settings keep out; absent where they name nothing.
    private: Option<Arc<Privacy>>,
}

impl Enriched {
    /// Where the event's own field goes in its raw document, if it is repeated at all.
    #[must_use]
    pub fn place_of(&self, field: &Field<'_>) -> Option<names::Place> {
        let is = |names: &[FieldName]| field.known.is_some_and(|name| names.contains(&name));
        let is_private = self.private.as_ref().is_some_and(|privacy| privacy.drops(&field.name));
        if is_private || is(&self.hidden) {
            None
        } else if is(&self.odd) {
            Some(names::Place::Malformed)
        } else {
            Some(names::place_of(field))
        }
    }

    /// Whether the settings drop the field of this name.
    #[must_use]
    pub fn drops(&self, name: FieldName) -> bool {
        self.private.as_ref().is_some_and(|privacy| privacy.drops(name.text()))
    }

    /// Says whether a field that the event may have was understood, and so is written anew.
    fn repeats(&mut self, name: FieldName, is_understood: bool) {
        if is_understood { &mut self.hidden } else { &mut self.odd }.push(name);
    }

    /// Forgets the event before, but for the room that its texts took.
    fn clear(&mut self) {
        for text in [
            &mut self.place,
            &mut self.address,
            &mut self.data,
            &mut self.attributes,
            &mut self.values,
            &mut self.derived,
        ] {
            text.clear();
        }
        (self.user, self.tenant, self.telemetry_user, self.reason) = (None, None, None, None);
        self.truncated = false;
        self.odd.clear();
        self.hidden.clear();
    }
}

/// Settings of enrichment, ready for use.
#[derive(Debug)]
pub struct Enricher {
    places: Places,
    privacy: Arc<Privacy>,
    /// Whether addresses are to be changed wherever they stand.
    hides_addresses: bool,
    /// Last `videoDimensions` that was read, and what it tells: most streams of a session are alike.
    video: (String, Option<(i64, i64)>),
    user_path: Option<DataPath>,
    tenant_path: Option<DataPath>,
    text_bytes_max: usize,
}

impl Enricher {
    /// As the settings say, with places from `geoip`.
    #[must_use]
    pub fn new(config: &Config, geoip: Arc<GeoIp>) -> Self {
        // Paths were checked with the settings.
        let path = |text: &str| DataPath::parse(text).ok().flatten();
        Self {
            places: Places::new(geoip),
            privacy: Arc::new(Privacy::new(&config.privacy)),
            hides_addresses: config.privacy.addresses != Addresses::Keep,
            video: (String::new(), None),
            user_path: path(&config.users.id_path),
            tenant_path: path(&config.users.tenant_path),
            text_bytes_max: config.sessions.text_bytes_max.get(),
        }
    }

    /// Takes other databases.
    pub fn set_geoip(&mut self, geoip: Arc<GeoIp>) {
        self.places.replace(geoip);
    }

    /// Puts into `enriched` what `event` tells beyond its words.
    pub fn enrich(&mut self, event: &Event<'_>, enriched: &mut Enriched) {
        enriched.clear();
        enriched.private = self.privacy.drops_any().then(|| Arc::clone(&self.privacy));
        let mut derived = Object::members_in(std::mem::take(&mut enriched.derived));
        match &event.body {
            Body::Participant(participant) => {
                self.participant(participant, enriched, &mut derived);
                derived.integer("joinDelta", if participant.left.is_some() { -1 } else { 1 });
            }
            Body::Stream(stream) => {
                let size = self.video_size(event);
                self.stream_members(event, size, enriched);
                if let Some((width, height)) = size {
                    derived.integer("videoWidth", width);
                    derived.integer("videoHeight", height);
                }
                derived.text("mediaRole", if stream.outbound { "publisher" } else { "subscriber" });
                if event.field(FieldName::RtspUri).is_some() {
                    let uri = self.rtsp_uri(event);
                    // Of what is no text nobody can say where its password is.
                    let is_safe = uri.is_some() || self.privacy.redacts_rtsp_uris();
                    enriched.repeats(FieldName::RtspUri, is_safe);
                    derived.text_if("rtspUri", uri.as_deref());
                }
            }
            Body::Seen(Seen::Connection(shown)) => self.participant(shown, enriched, &mut derived),
            Body::Recording(_) | Body::Seen(Seen::Recording(_)) => {
                let truncated = &mut enriched.truncated;
                let room = std::mem::take(&mut enriched.attributes);
                enriched.attributes = self.members(event, RECORDING_MEMBERS, room, truncated);
                let room = std::mem::take(&mut enriched.values);
                enriched.values = self.members(event, RECORDING_VALUES, room, truncated);
            }
            Body::Endpoint(_) | Body::NetworkQuality(_) | Body::Broadcast(_) | Body::Other => {
                self.telemetry(event, enriched, &mut derived)
            }
            Body::SessionCreated
            | Body::SessionDestroyed(_)
            | Body::Seen(Seen::Session(_) | Seen::Presence { .. }) => {}
        }
        self.ending(event, enriched, &mut derived);
        if self.privacy.hashes_users() {
            // One that is no id cannot be told from one that is.
            enriched.hidden.push(FieldName::User);
        }
        if let Some(user) = event.user.as_deref().filter(|_| !self.drops(FieldName::User)) {
            enriched.telemetry_user = Some(self.stored_user(user));
        }
        enriched.derived = derived.into_members();
    }

    fn ending(&self, event: &Event<'_>, enriched: &mut Enriched, derived: &mut Object) {
        let (reason, is_end) = match &event.body {
            Body::SessionDestroyed(end)
            | Body::Participant(Participant { left: Some(end), .. })
            | Body::Broadcast(Some(end))
            | Body::Stream(crate::event::Stream { destroyed: Some(end), .. }) => {
                (end.reason.as_deref(), true)
            }
            Body::Recording(recording) => (recording.reason.as_deref(), false),
            _ => return,
        };
        if is_end {
            derived.flag("abnormal", is_abnormal(reason));
        }
        let reason = reason.filter(|_| !self.drops(FieldName::Reason));
        enriched.reason = reason.map(|reason| self.cut(reason, &mut enriched.truncated).into());
    }

    fn participant(
        &mut self,
        participant: &Participant<'_>,
        enriched: &mut Enriched,
        derived: &mut Object,
    ) {
        use FieldName as Name;
        let told = participant.location.as_deref();
        let told_point = participant.geo_points.as_deref();
        // What is cut below would be lost, so it is kept aside too.
        let is_whole =
            |text: Option<&str>| text.is_some_and(|text| text.len() <= self.text_bytes_max);
        enriched.repeats(Name::Location, is_whole(told));
        enriched.repeats(Name::GeoPoints, is_whole(told_point));
        enriched.repeats(Name::Ip, is_whole(participant.ip.as_deref()) || self.hides_addresses);
        enriched.repeats(Name::Platform, is_whole(participant.platform.as_deref()));
        let address = participant.ip.as_deref().and_then(address::parse);
        // A damaged record of a database is the database's trouble; the event goes on without a place.
        let found = address.and_then(|address| self.places.lookup(address).ok().flatten());
        let found = found.as_deref();
        let truncated = &mut enriched.truncated;
        let platform = participant.platform.as_deref();

        let mut members = Object::members_in(std::mem::take(&mut enriched.place));
        // A place that the platform knew itself is kept; `unknown` is what it says without a database of its own.
        let location = match told {
            Some(told) if !told.is_empty() && told != "unknown" => Some(Cow::Borrowed(told)),
            told => match found.and_then(Place::location) {
                Some(found) => {
                    if !self.drops(Name::Location) {
                        derived.flag("locationDerived", true);
                    }
                    Some(Cow::Owned(found))
                }
                None => told.map(Cow::Borrowed),
            },
        };
        self.member_if(&mut members, Name::Location, location.as_deref(), truncated);
        let found_point = found.filter(|_| told_point.is_none()).and_then(Place::geo_points);
        if found_point.is_some() && !self.drops(Name::GeoPoints) {
            derived.flag("geoPointsDerived", true);
        }
        let point = told_point.map(Cow::Borrowed).or(found_point.map(Cow::Owned));
        self.member_if(&mut members, Name::GeoPoints, point.as_deref(), truncated);
        if let Some(platform) = platform.filter(|_| !self.drops(Name::Client)) {
            members.json("client", &client_json(self.cut(platform, truncated)));
        }
        enriched.place = members.into_members();

        let mut members = Object::members_in(std::mem::take(&mut enriched.address));
        let shown = participant.ip.as_deref().and_then(|text| self.privacy.address(text));
        self.member_if(&mut members, Name::Ip, shown.as_deref(), truncated);
        self.member_if(&mut members, Name::Platform, platform, truncated);
        if let Some(found) = found.filter(|_| !self.drops(Name::Geo)) {
            members.json("geo", &geo_json(found));
        }
        enriched.address = members.into_members();

        let mut members = Object::members_in(std::mem::take(&mut enriched.data));
        for (name, text) in [
            (Name::ClientData, &participant.client_data),
            (Name::ServerData, &participant.server_data),
        ] {
            let text = text.as_deref().unwrap_or("");
            self.member_if(&mut members, name, Some(text), truncated);
        }
        enriched.data = members.into_members();
        let pick = |path: &Option<DataPath>| {
            let data = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or("").to_owned();
            path.as_ref()?.pick(&data(&participant.client_data), &data(&participant.server_data))
        };
        let user = pick(&self.user_path).filter(|_| !self.drops(Name::User));
        enriched.user = user.map(|user| self.stored_user(&user));
        enriched.tenant =
            pick(&self.tenant_path).filter(|_| !self.drops(Name::Tenant)).map(Into::into);
    }

    fn telemetry(&self, event: &Event<'_>, enriched: &mut Enriched, derived: &mut Object) {
        use FieldName as Name;
        for name in
            [Name::CandidatePair, Name::Content].into_iter().filter(|_| self.hides_addresses)
        {
            // Whatever has another shape than it promises is not searched for addresses, and so not let through.
            enriched.hidden.push(name);
            let field = event.field(name).filter(|_| !self.drops(name));
            if let Some(field) =
                field.filter(|field| names::place_of(field) == names::Place::Indexed)
            {
                derived.json(name.text(), &self.privacy.addresses_within(&field.json));
            }
        }
        let endpoint = event.field(Name::Endpoint).and_then(Field::text);
        if let (Some(endpoint), Some(connection)) = (&endpoint, &event.connection_id) {
            let publishes = fields::is_publisher(endpoint, connection);
            derived.text("mediaRole", if publishes { "publisher" } else { "subscriber" });
            derived.text("endpointUid", &endpoint_uid(event, connection, endpoint));
        }
        let reported = endpoint.as_deref().filter(|_| event.connection_id.is_none());
        if let Some((name, reporter)) =
            reported.and_then(|name| Some((name, Reporter::read(name)?)))
        {
            derived.text("mediaRole", if reporter.sends { "publisher" } else { "subscriber" });
            derived.text("endpointUid", &endpoint_uid(event, "", name));
        }
        for (from, to) in [(Name::Jitter, "jitterMs"), (Name::Rtt, "rttMs")] {
            if let Some(seconds) = event.field(from).and_then(Field::number) {
                derived.number(to, seconds * 1000.0);
            }
        }
        if let Body::Endpoint(Endpoint { told: Told::Pair(pair), .. }) = &event.body
            && !pair.is_empty()
        {
            derived.json("candidate", &candidate_json(*pair));
        }
        if event.kind == Kind::NetworkQualityStats
            && let Some(level) = event.field(Name::NewValue).and_then(Field::integer)
        {
            derived.integer("networkQuality", level);
        }
        if event.kind == Kind::MonitoringStats
            && let Some(net) = event.field(Name::Net)
            && let Some(total) = net_total_json(&net.json)
        {
            derived.json("net_total", &total);
        }
    }

    /// JSON members of a stream event as summaries have them.
    fn stream_members(&self, event: &Event<'_>, size: Option<(i64, i64)>, enriched: &mut Enriched) {
        let mut members = Object::members_in(std::mem::take(&mut enriched.attributes));
        let truncated = &mut enriched.truncated;
        if let Body::Stream(stream) = &event.body {
            let sender = stream.receiving_from.as_deref();
            self.member_if(&mut members, FieldName::ReceivingFrom, sender, truncated);
        }
        for name in STREAM_MEMBERS {
            match event.field(*name) {
                Some(_) if *name == FieldName::RtspUri => {
                    let uri = self.rtsp_uri(event);
                    self.member_if(&mut members, *name, uri.as_deref(), truncated);
                }
                Some(field) => self.member(&mut members, *name, field, truncated),
                None => {}
            }
        }
        if let Some((width, height)) = size {
            members.integer("videoWidth", width);
            members.integer("videoHeight", height);
        }
        enriched.attributes = members.into_members();
    }

    fn members(
        &self,
        event: &Event<'_>,
        names: &[FieldName],
        room: String,
        truncated: &mut bool,
    ) -> String {
        let mut members = Object::members_in(room);
        for name in names {
            if let Some(field) = event.field(*name) {
                self.member(&mut members, *name, field, truncated);
            }
        }
        members.into_members()
    }

    /// A member of a summary: texts within their bound, numbers in one form, nothing that promises another shape.
    fn member(
        &self,
        members: &mut Object,
        name: FieldName,
        field: &Field<'_>,
        truncated: &mut bool,
    ) {
        if self.drops(name) || names::place_of(field) != names::Place::Indexed {
            return;
        }
        if let Some(integer) = field.integer() {
            members.integer(name.text(), integer);
        } else if let Some(number) = field.number() {
            members.number(name.text(), number);
        } else if field.json.len() <= self.text_bytes_max {
            members.json(name.text(), &field.json);
        } else if let Some(text) = field.text() {
            members.text(name.text(), self.cut(&text, truncated));
        } else {
            *truncated = true;
        }
    }

    /// A text within its bound, where there is one and the settings do not drop it.
    fn member_if(
        &self,
        members: &mut Object,
        name: FieldName,
        text: Option<&str>,
        truncated: &mut bool,
    ) {
        if let Some(text) = text.filter(|_| !self.drops(name)) {
            members.text(name.text(), self.cut(text, truncated));
        }
    }

    fn drops(&self, name: FieldName) -> bool {
        self.privacy.drops(name.text())
    }

    fn rtsp_uri(&self, event: &Event<'_>) -> Option<String> {
        let field = event.field(FieldName::RtspUri).filter(|_| !self.drops(FieldName::RtspUri));
        let uri = field.and_then(Field::text)?;
        Some(self.privacy.rtsp_uri(&uri).into_owned())
    }

    fn stored_user(&self, user: &str) -> Box<str> {
        self.privacy.user(user).into()
    }

    fn video_size(&mut self, event: &Event<'_>) -> Option<(i64, i64)> {
        let json = &event.field(FieldName::VideoDimensions)?.json;
        if self.video.0 != **json {
            let size = text_of(json).and_then(|text| fields::video_dimensions(&text));
            let size = size.map(|(width, height)| (width.into(), height.into()));
            self.video.0.clear();
            self.video.0.push_str(json);
            self.video.1 = size;
        }
        self.video.1
    }

    fn cut<'t>(&self, text: &'t str, truncated: &mut bool) -> &'t str {
        *truncated |= text.len() > self.text_bytes_max;
        json::prefix(text, self.text_bytes_max)
    }
}

/// The object `client` of documents.
fn client_json(platform: &str) -> String {
    let client = client::parse(platform);
    let mut json = Object::with_capacity(80);
    json.text_if("browser", client.browser);
    json.text_if("version", client.version);
    json.text_if("os", client.os);
    json.text("device", client.device.as_str());
    json.finish()
}

/// The object `geo` of documents.
fn geo_json(place: &Place) -> String {
    let mut json = Object::with_capacity(160);
    json.text_if("continent", place.continent.as_deref());
    json.text_if("country", place.country.as_deref());
    json.text_if("countryCode", place.country_code.as_deref());
    json.text_if("region", place.region.as_deref());
    json.text_if("city", place.city.as_deref());
    if let Some(asn) = place.asn {
        json.integer("asn", i64::from(asn));
    }
    json.text_if("asOrganization", place.as_organization.as_deref());
    json.finish()
}

/// What tells an endpoint from all others: their names repeat from session to session.
fn endpoint_uid(event: &Event<'_>, connection: &str, endpoint: &str) -> String {
    let mut uid = Hasher::new("endpoint");
    uid.optional(event.session.as_ref().map(SessionRef::name));
    uid.text(connection);
    uid.text(endpoint);
    format!("{:016x}", uid.digest())
}

/// The object `candidate` of documents: `localType`, `remoteType`, `transport` of a selected pair.
fn candidate_json(pair: Pair) -> String {
    let mut json = Object::with_capacity(80);
    json.text_if("localType", pair.local.map(CandidateKind::name));
    json.text_if("remoteType", pair.remote.map(CandidateKind::name));
    json.text_if("transport", pair.transport.map(Transport::name));
    json.finish()
}

/// The object `net_total` of documents: the sum over all interfaces of `monitoringStats.net`.
fn net_total_json(net: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Interface {
        #[serde(default)]
        rx_bytes: i64,
        #[serde(default)]
        tx_bytes: i64,
    }
    let net: std::collections::BTreeMap<String, Interface> = serde_json::from_str(net).ok()?;
    let sum = |count: fn(&Interface) -> i64| net.values().map(count).fold(0, i64::saturating_add);
    let mut json = Object::with_capacity(64);
    json.integer("rxBytes", sum(|interface| interface.rx_bytes));
    json.integer("txBytes", sum(|interface| interface.tx_bytes));
    Some(json.finish())
}
