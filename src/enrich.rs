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

pub mod client;
pub mod fields;
pub mod place;
pub mod privacy;

use place::{GeoIp, Place};

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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Enriched {
    /// Of a participant: `location`, `geoPoints`, `client`.
    pub place: Box<str>,
    /// Of a participant: `ip`, `platform`, `geo`.
    pub address: Box<str>,
    /// Of a participant, for summaries: `clientData`, `serverData`.
    pub data: Box<str>,
    /// User that the application's data of a participant names.
    pub user: Option<Box<str>>,
    /// Tenant, likewise.
    pub tenant: Option<Box<str>>,
    /// User that telemetry names, as it may be stored.
    pub telemetry_user: Option<Box<str>>,
    /// Of a stream or recording, for summaries: what does not change.
    pub attributes: Box<str>,
    /// Of a recording, for summaries: what processing may correct.
    pub values: Box<str>,
    /// Why it ended, for summaries.
    pub reason: Option<Box<str>>,
    /// Of any event, for its raw document: derived fields.
    pub derived: String,
    /// Whether a text was cut for the summaries.
    pub truncated: bool,
    /// Fields of the event that its raw document does not repeat.
    hidden: Hidden,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Hidden {
    /// They stand in `place` and `address`.
    replaced: &'static [&'static str],
    /// The settings say so.
    private: Option<Arc<[String]>>,
    /// They hold addresses.
    addresses: bool,
}

impl Enriched {
    /// Whether the event's own field of this name is not written.
    #[must_use]
    pub fn hides(&self, name: &str) -> bool {
        self.hidden.replaced.contains(&name)
            || (self.hidden.addresses && matches!(name, "candidatePair" | "content"))
            || self
                .hidden
                .private
                .as_ref()
                .is_some_and(|names| names.iter().any(|hidden| hidden == name))
    }
}

/// Settings of enrichment, ready for use.
#[derive(Debug, Clone)]
pub struct Enricher {
    geoip: Arc<GeoIp>,
    addresses: Addresses,
    user_hash: Option<privacy::UserHash>,
    drop_fields: Option<Arc<[String]>>,
    redact_rtsp_uri: bool,
    user_path: Option<fields::Path>,
    tenant_path: Option<fields::Path>,
    text_bytes_max: usize,
}

impl Enricher {
    /// As the settings say, with places from `geoip`.
    #[must_use]
    pub fn new(config: &Config, geoip: Arc<GeoIp>) -> Self {
        let key = &config.privacy.user_hash_key;
        let drop_fields = &config.privacy.drop_fields;
        Self {
            geoip,
            addresses: config.privacy.addresses,
            user_hash: (!key.is_empty()).then(|| privacy::UserHash::new(key)),
            drop_fields: (!drop_fields.is_empty()).then(|| drop_fields.as_slice().into()),
            redact_rtsp_uri: config.privacy.redact_rtsp_uri,
            user_path: fields::Path::new(&config.users.id_path),
            tenant_path: fields::Path::new(&config.users.tenant_path),
            text_bytes_max: config.sessions.text_bytes_max.get(),
        }
    }

    /// Takes other databases.
    pub fn set_geoip(&mut self, geoip: Arc<GeoIp>) {
        self.geoip = geoip;
    }

    /// What `event` tells beyond its words.
    #[must_use]
    pub fn enrich(&self, event: &Event<'_>) -> Enriched {
        let mut enriched = Enriched::default();
        enriched.hidden.private.clone_from(&self.drop_fields);
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
                if self.redact_rtsp_uri && event.field("rtspUri").is_some() {
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

    fn participant(&self, participant: &Participant<'_>, enriched: &mut Enriched) {
        enriched.hidden.replaced = &["location", "ip", "platform"];
        let address = participant.ip.as_deref().and_then(place::address);
        let found = address.and_then(|address| self.geoip.lookup(address));
        let mut members = Object::with_capacity(128);
        // A place that the platform knew itself is kept; `unknown` is what it says without a database of its own.
        let told = participant.location.as_deref();
        let location = match told {
            Some(told) if !told.is_empty() && told != "unknown" => Some(Cow::Borrowed(told)),
            told => {
                found.as_ref().and_then(Place::location).map(Cow::Owned).or(told.map(Cow::Borrowed))
            }
        };
        members.text_if(
            "location",
            location.as_deref().map(|text| self.cut(text, &mut enriched.truncated)),
        );
        members.text_if("geoPoints", found.as_ref().and_then(Place::geo_points).as_deref());
        if let Some(platform) = participant.platform.as_deref() {
            members
                .json("client", &client::parse(self.cut(platform, &mut enriched.truncated)).json());
        }
        enriched.place = members.finish_members().into();

        let mut members = Object::with_capacity(128);
        match address {
            Some(address) => {
                let shown = privacy::address(address, self.addresses);
                members.text_if("ip", shown.map(|address| address.to_string()).as_deref());
            }
            // No address, whatever it is; kept as it came where addresses are.
            None if self.addresses == Addresses::Keep => {
                members.text_if(
                    "ip",
                    participant.ip.as_deref().map(|text| self.cut(text, &mut enriched.truncated)),
                );
            }
            None => {}
        }
        let platform = participant.platform.as_deref();
        members.text_if("platform", platform.map(|text| self.cut(text, &mut enriched.truncated)));
        if let Some(found) = &found {
            members.json("geo", &found.json());
        }
        enriched.address = members.finish_members().into();

        let mut members = Object::with_capacity(64);
        let data =
            [("clientData", &participant.client_data), ("serverData", &participant.server_data)];
        for (name, text) in data {
            if !self.is_dropped(name) {
                members
                    .text(name, self.cut(text.as_deref().unwrap_or(""), &mut enriched.truncated));
            }
        }
        enriched.data = members.finish_members().into();
        let pick = |path: &Option<fields::Path>| {
            path.as_ref()?
                .pick(participant.server_data.as_deref(), participant.client_data.as_deref())
        };
        enriched.user = pick(&self.user_path).map(|user| self.stored_user(&user));
        enriched.tenant = pick(&self.tenant_path).map(Into::into);
    }

    fn telemetry(&self, event: &Event<'_>, enriched: &mut Enriched, derived: &mut Object) {
        enriched.hidden.addresses = self.addresses != Addresses::Keep
            && matches!(event.kind, Kind::Kms | Kind::WebrtcDebug);
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
            && let Some(candidate) = fields::candidate_json(&pair.json)
        {
            derived.json("candidate", &candidate);
        }
        if event.kind == Kind::MonitoringStats
            && let Some(net) = event.field("net")
            && let Some(total) = fields::net_total_json(&net.json)
        {
            derived.json("net_total", &total);
        }
    }

    /// JSON members of a stream event as summaries have them.
    fn stream_members(&self, event: &Event<'_>, truncated: &mut bool) -> Box<str> {
        let mut members = Object::with_capacity(192);
        if let Body::Stream(stream) = &event.body {
            members.text_if("receivingFrom", stream.receiving_from.as_deref());
        }
        for name in STREAM_MEMBERS {
            match event.field(name) {
                Some(_) if *name == "rtspUri" && self.redact_rtsp_uri => {
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
        members.finish_members().into()
    }

    fn members(&self, event: &Event<'_>, names: &[&str], truncated: &mut bool) -> Box<str> {
        let mut members = Object::with_capacity(128);
        for field in names.iter().filter_map(|name| event.field(name)) {
            self.member(&mut members, field, truncated);
        }
        members.finish_members().into()
    }

    /// A member of a summary: texts within their bound, nothing that promises another shape.
    fn member(&self, members: &mut Object, field: &Field<'_>, truncated: &mut bool) {
        if self.is_dropped(&field.name)
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
        let uri =
            event.field("rtspUri").and_then(Field::text).filter(|_| !self.is_dropped("rtspUri"))?;
        Some(privacy::redact_uri(json::prefix(&uri, self.text_bytes_max)))
    }

    fn stored_user(&self, user: &str) -> Box<str> {
        match &self.user_hash {
            Some(hash) => hash.hash(user).into(),
            None => user.into(),
        }
    }

    fn is_dropped(&self, name: &str) -> bool {
        self.drop_fields.as_ref().is_some_and(|names| names.iter().any(|dropped| dropped == name))
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
    fields::video_size(&event.field("videoDimensions")?.text()?)
}
