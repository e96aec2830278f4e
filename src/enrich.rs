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
use crate::event::{Body, Event, Field, Kind, Participant, RecordingStatus};
use crate::json::{self, Object};
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

/// Fields that callscope or OpenVidu Pro add to raw documents of every kind. An already indexed document that is read again
/// loses them: they are made anew.
pub const ADDED: &[&str] = &[
    "geo",
    "geoPoints",
    "client",
    "videoWidth",
    "videoHeight",
    "abnormal",
    "joinDelta",
    "mediaRole",
    "endpointUid",
    "jitterMs",
    "rttMs",
    "candidate",
    "firstMedia",
    "notFlowingMs",
    "processingMs",
    "tenant",
    "unindexed",
    "malformed",
    "packetsLostDelta",
    "packetsReceivedDelta",
    "packetsSentDelta",
    "bytesReceivedDelta",
    "bytesSentDelta",
    "nackDelta",
    "pliDelta",
    "firDelta",
    "net_total",
];

/// Fields that are joined by connection onto telemetry, which never has them itself.
pub const JOINED: &[&str] = &["location", "media_node_id"];

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
    /// Fields of the event that its raw document does not repeat.
    hidden: Hidden,
}

#[derive(Debug, Clone, Default)]
struct Hidden {
    /// They stand in `place` and `address`.
    replaced: &'static [&'static str],
    /// The settings say so.
    private: Option<Arc<Privacy>>,
}

impl Enriched {
    /// Whether the event's own field of this name is not written.
    #[must_use]
    pub fn hides(&self, name: &str) -> bool {
        self.hidden.replaced.contains(&name)
            || self.hidden.private.as_ref().is_some_and(|privacy| privacy.drops(name))
    }
}

/// Settings of enrichment, ready for use.
#[derive(Debug)]
pub struct Enricher {
    places: Places,
    privacy: Arc<Privacy>,
    /// Whether addresses are to be changed wherever they stand.
    hides_addresses: bool,
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
            user_path: path(&config.users.id_path),
            tenant_path: path(&config.users.tenant_path),
            text_bytes_max: config.sessions.text_bytes_max.get(),
        }
    }

    /// Takes other databases.
    pub fn set_geoip(&mut self, geoip: Arc<GeoIp>) {
        self.places.replace(geoip);
    }

    /// What `event` tells beyond its words.
    #[must_use]
    pub fn enrich(&mut self, event: &Event<'_>) -> Enriched {
        let mut enriched = Enriched::default();
        enriched.hidden.private = Some(Arc::clone(&self.privacy));
        let mut derived = Object::with_capacity(0);
        match &event.body {
            Body::Participant(participant) => {
                self.participant(participant, &mut enriched);
                derived.integer("joinDelta", if participant.left.is_some() { -1 } else { 1 });
            }
            Body::Stream(stream) => {
                enriched.attributes = self.stream_members(event, &mut enriched.truncated);
                if let Some((width, height)) = video_size(event) {
                    derived.integer("videoWidth", width);
                    derived.integer("videoHeight", height);
                }
                derived.text("mediaRole", if stream.outbound { "publisher" } else { "subscriber" });
                if event.field("rtspUri").is_some() {
                    enriched.hidden.replaced = &["rtspUri"];
                    derived.text_if("rtspUri", self.rtsp_uri(event).as_deref());
                }
            }
            Body::Recording(recording) => {
                enriched.attributes =
                    self.members(event, RECORDING_MEMBERS, &mut enriched.truncated);
                enriched.values = self.members(event, RECORDING_VALUES, &mut enriched.truncated);
                debug_assert!(recording.status >= RecordingStatus::Started);
            }
            Body::MediaState(_) | Body::NetworkQuality(_) | Body::Other => {
                self.telemetry(event, &mut enriched, &mut derived)
            }
            Body::SessionCreated | Body::SessionDestroyed(_) => {}
        }
        self.ending(event, &mut enriched, &mut derived);
        if let Some(user) = event.user.as_deref() {
            enriched.telemetry_user = Some(self.stored_user(user));
        }
        enriched.derived = derived.finish_members();
        enriched
    }

    fn ending(&self, event: &Event<'_>, enriched: &mut Enriched, derived: &mut Object) {
        let reason = match &event.body {
            Body::SessionDestroyed(end) => &end.reason,
            Body::Participant(Participant { left: Some(end), .. }) => &end.reason,
            Body::Stream(crate::event::Stream { destroyed: Some(end), .. }) => &end.reason,
            Body::Recording(recording) => {
                enriched.reason = recording
                    .reason
                    .as_deref()
                    .map(|reason| self.cut(reason, &mut enriched.truncated).into());
                return;
            }
            _ => return,
        };
        derived.flag("abnormal", is_abnormal(reason.as_deref()));
        enriched.reason =
            reason.as_deref().map(|reason| self.cut(reason, &mut enriched.truncated).into());
    }

    fn participant(&mut self, participant: &Participant<'_>, enriched: &mut Enriched) {
        enriched.hidden.replaced = &["location", "ip", "platform"];
        let address = participant.ip.as_deref().and_then(address::parse);
        // A damaged record of a database is the database's trouble; the event goes on without a place.
        let found = address.and_then(|address| self.places.lookup(address).ok().flatten());
        let found = found.as_deref();
        let mut members = Object::with_capacity(128);
        // A place that the platform knew itself is kept; `unknown` is what it says without a database of its own.
        let told = participant.location.as_deref();
        let location = match told {
            Some(told) if !told.is_empty() && told != "unknown" => Some(Cow::Borrowed(told)),
            told => found.and_then(Place::location).map(Cow::Owned).or(told.map(Cow::Borrowed)),
        };
        members.text_if(
            "location",
            location.as_deref().map(|text| self.cut(text, &mut enriched.truncated)),
        );
        members.text_if("geoPoints", found.and_then(Place::geo_points).as_deref());
        if let Some(platform) = participant.platform.as_deref() {
            members.json("client", &client_json(self.cut(platform, &mut enriched.truncated)));
        }
        enriched.place = members.finish_members();

        let mut members = Object::with_capacity(128);
        let shown = participant.ip.as_deref().and_then(|text| self.privacy.address(text));
        members.text_if("ip", shown.as_deref().map(|text| self.cut(text, &mut enriched.truncated)));
        let platform = participant.platform.as_deref();
        members.text_if("platform", platform.map(|text| self.cut(text, &mut enriched.truncated)));
        if let Some(found) = found {
            members.json("geo", &geo_json(found));
        }
        enriched.address = members.finish_members();

        let mut members = Object::with_capacity(64);
        let data =
            [("clientData", &participant.client_data), ("serverData", &participant.server_data)];
        for (name, text) in data {
            if !self.privacy.drops(name) {
                members
                    .text(name, self.cut(text.as_deref().unwrap_or(""), &mut enriched.truncated));
            }
        }
        enriched.data = members.finish_members();
        let pick = |path: &Option<DataPath>| {
            let data = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or("").to_owned();
            path.as_ref()?.pick(&data(&participant.client_data), &data(&participant.server_data))
        };
        enriched.user = pick(&self.user_path).map(|user| self.stored_user(&user));
        enriched.tenant = pick(&self.tenant_path).map(Into::into);
    }

    fn telemetry(&self, event: &Event<'_>, enriched: &mut Enriched, derived: &mut Object) {
        for name in ["candidatePair", "content"].into_iter().filter(|_| self.hides_addresses) {
            if let Some(field) = event.field(name).filter(|_| !self.privacy.drops(name)) {
                enriched.hidden.replaced = &["candidatePair", "content"];
                derived.json(name, &self.privacy.addresses_within(&field.json));
            }
        }
        let endpoint = event.field("endpoint").and_then(Field::text);
        if let (Some(endpoint), Some(connection)) = (&endpoint, &event.connection_id) {
            let publishes = !endpoint.starts_with(connection.as_ref())
                || endpoint.len() <= connection.len() + 1
                || is_old_stream_id(endpoint, connection);
            derived.text("mediaRole", if publishes { "publisher" } else { "subscriber" });
            let mut uid = Hasher::new("endpoint");
            let session = event.session.as_ref();
            uid.optional(
                session.map(|session| session.unique_id.as_deref().unwrap_or(&session.id)),
            );
            uid.text(connection);
            uid.text(endpoint);
            derived.text("endpointUid", &format!("{:016x}", uid.digest()));
        }
        for (from, to) in [("jitter", "jitterMs"), ("rtt", "rttMs")] {
            if let Some(seconds) = event.field(from).and_then(Field::number) {
                derived.number(to, seconds * 1000.0);
            }
        }
        if let Some(pair) = event.field("candidatePair")
            && let Some(candidate) = candidate_json(&pair.json)
        {
            derived.json("candidate", &candidate);
        }
        if event.kind == Kind::MonitoringStats
            && let Some(net) = event.field("net")
            && let Some(total) = net_total_json(&net.json)
        {
            derived.json("net_total", &total);
        }
    }

    /// JSON members of a stream event as summaries have them.
    fn stream_members(&self, event: &Event<'_>, truncated: &mut bool) -> String {
        let mut members = Object::with_capacity(192);
        if let Body::Stream(stream) = &event.body {
            members.text_if("receivingFrom", stream.receiving_from.as_deref());
        }
        for name in STREAM_MEMBERS {
            match event.field(name) {
                Some(_) if *name == "rtspUri" => {
                    members.text_if(name, self.rtsp_uri(event).as_deref());
                }
                Some(field) => self.member(&mut members, field, truncated),
                None => {}
            }
        }
        if let Some((width, height)) = video_size(event) {
            members.integer("videoWidth", width);
            members.integer("videoHeight", height);
        }
        members.finish_members()
    }

    fn members(&self, event: &Event<'_>, names: &[&str], truncated: &mut bool) -> String {
        let mut members = Object::with_capacity(128);
        for field in names.iter().filter_map(|name| event.field(name)) {
            self.member(&mut members, field, truncated);
        }
        members.finish_members()
    }

    /// A member of a summary: texts within their bound, nothing that promises another shape.
    fn member(&self, members: &mut Object, field: &Field<'_>, truncated: &mut bool) {
        if self.privacy.drops(&field.name)
            || crate::document::names::place_of(&field.name, &field.json)
                != crate::document::names::Place::Indexed
        {
            return;
        }
        if field.json.len() <= self.text_bytes_max {
            members.json(&field.name, &field.json);
        } else if let Some(text) = field.text() {
            members.text(&field.name, self.cut(&text, truncated));
        } else {
            *truncated = true;
        }
    }

    fn rtsp_uri(&self, event: &Event<'_>) -> Option<String> {
        let uri = event
            .field("rtspUri")
            .and_then(Field::text)
            .filter(|_| !self.privacy.drops("rtspUri"))?;
        Some(json::prefix(&self.privacy.rtsp_uri(&uri), self.text_bytes_max).to_owned())
    }

    fn stored_user(&self, user: &str) -> Box<str> {
        self.privacy.user(user).into()
    }

    fn cut<'t>(&self, text: &'t str, truncated: &mut bool) -> &'t str {
        *truncated |= text.len() > self.text_bytes_max;
        json::prefix(text, self.text_bytes_max)
    }
}

/// Up to 2.11 a publisher's stream id begins with its connection id: `CONNECTION_CAMERA_XHIHV`. A subscriber's endpoint
/// begins with the receiver's, followed by a whole stream id.
fn is_old_stream_id(endpoint: &str, connection: &str) -> bool {
    let rest = endpoint.strip_prefix(connection).and_then(|rest| rest.strip_prefix('_'));
    rest.is_some_and(|rest| {
        let kind = rest.split('_').next().unwrap_or("");
        rest.split('_').count() == 2 && kind.bytes().all(|byte| byte.is_ascii_uppercase())
    })
}

fn video_size(event: &Event<'_>) -> Option<(i64, i64)> {
    let (width, height) = fields::video_dimensions(&event.field("videoDimensions")?.text()?)?;
    Some((i64::from(width), i64::from(height)))
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

/// The object `candidate` of documents: `localType`, `remoteType`, `transport` of a selected pair.
fn candidate_json(pair: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Pair {
        #[serde(default)]
        local_candidate: String,
        #[serde(default)]
        remote_candidate: String,
    }
    let pair: Pair = serde_json::from_str(pair).ok()?;
    let (local, remote) =
        (fields::candidate(&pair.local_candidate), fields::candidate(&pair.remote_candidate));
    let mut json = Object::with_capacity(80);
    json.text_if("localType", local.kind);
    json.text_if("remoteType", remote.kind);
    json.text_if("transport", local.transport.or(remote.transport));
    let json = json.finish();
    (json != "{}").then_some(json)
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
