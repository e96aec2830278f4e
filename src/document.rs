//! Documents: what is stored, under which id, in which index; and how an event becomes a raw document.
//!
//! A raw document depends on its event and the settings alone, except for its *context fields* ([`Context`]): what the lane
//! knew of the connection at that moment, which is never corrected. Its id begins with the event's time, so that ids
//! arrive in order, followed by a hash of what makes the occurrence: another copy of it gets the same id, and the first
//! one stays.
//!
//! Nothing that a client sends can keep a document out of an index: a known field whose value has the wrong shape is moved
//! below `malformed`, a field whose name no index takes, or in whose place stands what callscope found out, below `unindexed`;
//! neither is searched, both are kept.

use std::borrow::Cow;

use bytes::Bytes;

use crate::enrich::Enriched;
use crate::event::{Body, Event, Field, FieldName, Kind, RecordingStatus, Seen, SessionRef};
use crate::json::Object;
use crate::sessions::Source;
use crate::sessions::facts::Hasher;

pub mod fields;
pub mod names;

use names::Place;

/// `elastic_type` of what is written instead of a document whose place is no longer needed. Nothing shows it.
pub const SUPERSEDED: &str = "superseded";

/// Values of `elastic_type` that callscope writes itself; an event it does not know has its own.
pub const KINDS: &[&str] = &[
    "cdr",
    "kms",
    "webrtcStats",
    "sessionSummary",
    "userSummary",
    "connectionSummary",
    "publisherSummary",
    "subscriberSummary",
    "recordingSummary",
    SUPERSEDED,
    "platformStats",
    "networkQualityStats",
    "webrtcDebug",
    "monitoringStats",
    "browserStats",
    "seen",
];

/// One document, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// At most 36 characters of `[0-9a-z]`; the same content always gets the same id.
    pub id: Box<str>,
    /// Milliseconds since 1970 that decide which index it belongs to: a raw event's own time, a summary's session start.
    pub index_time: i64,
    /// Its `elastic_type`, also part of `json`.
    pub elastic_type: Cow<'static, str>,
    /// `None`: a raw event, written once (`create`). `Some`: a summary, replaces any with a smaller or equal version.
    pub version: Option<u64>,
    /// The whole document as one line of JSON, an object without line breaks.
    pub json: Bytes,
}

/// What the lane knew of an event's connection, recording or endpoint when it came.
#[derive(Debug, Default)]
pub struct Context {
    /// JSON members `location`, `geoPoints`, `client` of the connection, for telemetry.
    pub place: String,
    /// When the session began, milliseconds since 1970.
    pub start: Option<i64>,
    /// Media node of the session.
    pub media_node_id: Option<Box<str>>,
    /// Tenant of the connection.
    pub tenant: Option<Box<str>>,
    /// Whose it is, where a browser told it without saying so.
    pub owner: Option<ReportedBy>,
    /// Who that is, or who has the connection of a `cdr` event, where that has been told.
    pub user: Option<Box<str>>,
    /// Other JSON members: deltas, `serverTells`, `networkQuality`, `firstMedia`, `notFlowingMs`, `processingMs`.
    pub members: String,
}

/// Whose the report of a browser is.
#[derive(Debug)]
pub struct ReportedBy {
    /// Id of its connection.
    pub connection_id: Box<str>,
    /// What the media server calls the endpoint at the other end of the stream, once that is known.
    pub endpoint: Option<Box<str>>,
}

/// A document without what is not promised of it: of raw ones the context fields, and of copies of one occurrence the event name
/// of a twin, cluster fields, and what processing corrects of a recording.
#[must_use]
pub fn without_context(mut json: serde_json::Value) -> serde_json::Value {
    const OF_ALL: &[&str] = &[
        "media_node_id",
        "tenant",
        "cluster_id",
        "master_node_id",
        "processingMs",
        "notFlowingMs",
        "firstMedia",
        "sampleMs",
        "serverTells",
        "networkQuality",
        "packetsLostDelta",
        "packetsReceivedDelta",
        "packetsSentDelta",
        "bytesReceivedDelta",
        "bytesSentDelta",
        "nackDelta",
        "pliDelta",
        "firDelta",
    ];
    const OF_RECORDINGS: &[&str] =
        &["event", "size", "duration", "hasAudio", "hasVideo", "resolution", "frameRate"];
    const OF_PEOPLE: &[&str] = &["location", "geoPoints", "client"];
    const OF_REPORTS: &[&str] = &["connectionId", "connection", "endpoint", "user"];
    const OF_OLD: &[&str] = &["uniqueSessionId", "uniqueSessionIdDerived"];
    let text = |json: &serde_json::Value, name: &str| {
        json.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let (kind, event) = (text(&json, "elastic_type"), text(&json, "event"));
    if kind.ends_with("Summary") {
        return json;
    }
    let own = match kind.as_str() {
        "cdr" if event.starts_with("recording") => OF_RECORDINGS,
        "cdr" if event.starts_with("webrtcConnection") => OF_PEOPLE,
        "cdr" | "seen" => &[],
        _ => OF_PEOPLE,
    };
    let whose = match kind.as_str() {
        "cdr" => &["user"],
        _ if text(&json, "side") == "browser" => OF_REPORTS,
        _ => &[],
    };
    let is_derived = json.get("uniqueSessionIdDerived").is_some();
    let derived: &[&str] = match event.as_str() {
        "sessionCreated" | "sessionDestroyed" => &[],
        _ if is_derived => OF_OLD,
        _ => &[],
    };
    if let Some(members) = json.as_object_mut() {
        let known = [OF_ALL, own, whose, derived];
        members.retain(|name, _| !known.iter().any(|known| known.contains(&name.as_str())));
    }
    json
}

/// The raw document of an event.
#[must_use]
pub fn raw(
    event: &Event<'_>,
    enriched: &Enriched,
    source: Source<'_>,
    context: &Context,
) -> Document {
    let fields: usize =
        event.fields.iter().map(|field| field.name.len() + field.json.len() + 4).sum();
    let added = enriched.place.len() + enriched.address.len() + enriched.derived.len();
    let joined = context.place.len() + context.members.len();
    let mut json = Object::with_capacity(448 + fields + added + joined);
    json.text("elastic_type", event.kind.elastic_type());
    write_ids(&mut json, event, enriched, context);
    write_fields(&mut json, event, enriched, context);
    json.members(&enriched.place);
    json.members(&enriched.address);
    json.members(&enriched.derived);
    json.text_if("tenant", enriched.tenant.as_deref().or(context.tenant.as_deref()));
    let own_place = [FieldName::Location, FieldName::GeoPoints];
    if own_place.into_iter().all(|name| event.field(name).is_none()) {
        json.members(&context.place);
    }
    // That of a recording is a fact, so it is written only where the event itself tells it.
    let is_recording = matches!(event.body, Body::Recording(_) | Body::Seen(_));
    let has_node = is_recording || event.field(FieldName::MediaNodeId).is_some();
    if !has_node && !enriched.drops(FieldName::MediaNodeId) {
        json.text_if("media_node_id", context.media_node_id.as_deref());
    }
    json.members(&context.members);
    json.integer("timestamp", event.time);
    let cluster_id = event.origin.cluster_id.as_deref().unwrap_or(source.cluster_id);
    let master_node_id = event.origin.master_node_id.as_deref().unwrap_or(source.master_node_id);
    json.text_if("cluster_id", Some(cluster_id).filter(|id| !id.is_empty()));
    json.text_if("master_node_id", Some(master_node_id).filter(|id| !id.is_empty()));
    Document {
        id: raw_id(event),
        index_time: time_of(event),
        elastic_type: event.kind.owned_type(),
        version: None,
        json: Bytes::from(json.finish()),
    }
}

/// Ids under their name of 2.17, and beside it under the older one that OpenVidu still writes.
fn write_ids(json: &mut Object, event: &Event<'_>, enriched: &Enriched, context: &Context) {
    json.text_if("event", event.name());
    if let Some(session) = &event.session {
        json.text("sessionId", &session.id);
        // Other events of versions before 2.17 do not tell the start, so it is what is known when they come.
        let started = match &event.body {
            Body::SessionCreated => Some(event.time),
            Body::Seen(Seen::Session(_)) => Some(event.time),
            Body::SessionDestroyed(end) => end.start,
            Body::Seen(Seen::Presence { start, .. }) => Some(*start),
            _ => context.start,
        };
        match (&session.unique_id, started) {
            (Some(unique_id), _) => json.text("uniqueSessionId", unique_id),
            // What 2.17 would have sent.
            (None, Some(start)) => {
                json.text("uniqueSessionId", &format!("{}_{start}", session.id));
                json.flag("uniqueSessionIdDerived", true);
            }
            (None, None) => {}
        }
    }
    let owner = context.owner.as_ref();
    let connection_id = event.connection_id.as_deref();
    if let Some(connection_id) = connection_id.or(owner.map(|owner| &*owner.connection_id)) {
        json.text("connectionId", connection_id);
        match &event.kind {
            Kind::Cdr(_) => json.text("participantId", connection_id),
            Kind::Kms | Kind::WebrtcStats => json.text("connection", connection_id),
            _ => {}
        }
    }
    // A join is of nobody who is known yet, but for what its data say.
    let user = context.user.as_deref().or(enriched.user.as_deref().filter(|_| is_cdr(event)));
    let user = user.filter(|_| !enriched.drops(FieldName::User));
    json.text_if("user", enriched.telemetry_user.as_deref().or(user));
}

fn is_cdr(event: &Event<'_>) -> bool {
    matches!(event.kind, Kind::Cdr(_))
}

fn write_fields(json: &mut Object, event: &Event<'_>, enriched: &Enriched, context: &Context) {
    let mut malformed = Vec::new();
    let mut unindexed = Vec::new();
    let endpoint = context.owner.as_ref().and_then(|owner| owner.endpoint.as_deref());
    json.text_if("endpoint", endpoint.filter(|_| !enriched.drops(FieldName::Endpoint)));
    let is_replaced =
        |field: &Field<'_>| endpoint.is_some() && field.known == Some(FieldName::Endpoint);
    for field in &event.fields {
        match enriched.place_of(field) {
            Some(Place::Indexed) if is_replaced(field) => unindexed.push(field),
            // Whose the connection is stands there.
            Some(Place::Indexed) if is_cdr(event) && field.known == Some(FieldName::User) => {
                unindexed.push(field);
            }
            Some(Place::Indexed) if field.known.is_some() => json.json(&field.name, &field.json),
            Some(Place::Indexed) => json.foreign(&field.name, &field.json),
            Some(Place::Malformed) => malformed.push(field),
            Some(Place::Unindexed) => unindexed.push(field),
            None => {}
        }
    }
    for (name, fields) in [("malformed", malformed), ("unindexed", unindexed)] {
        if !fields.is_empty() {
            let mut object = Object::with_capacity(256);
            for field in fields {
                if names::is_odd_number(&field.json) {
                    // Not every reader of JSON takes it as a number.
                    object.foreign(&field.name, &format!("\"{}\"", field.json));
                } else {
                    object.foreign(&field.name, &field.json);
                }
            }
            json.json(name, &object.finish());
        }
    }
}

/// 12 hexadecimal digits of time and 24 of a hash.
fn raw_id(event: &Event<'_>) -> Box<str> {
    let mut hasher = Hasher::new(event.kind.elastic_type());
    natural_key(&mut hasher, event);
    timed_id(time_of(event), &hasher)
}

/// The time that all copies of an occurrence tell. When a recording became what it is the REST API does not tell.
fn time_of(event: &Event<'_>) -> i64 {
    use RecordingStatus::{Failed, Ready};
    match &event.body {
        Body::Recording(recording) | Body::Seen(Seen::Recording(recording))
            if matches!(recording.status, Ready | Failed) =>
        {
            recording.start
        }
        _ => event.time,
    }
}

/// The id of a document that is written once: time first, so that ids arrive in order.
pub(crate) fn timed_id(time: i64, hasher: &Hasher) -> Box<str> {
    let mut id = String::with_capacity(36);
    push_hex(&mut id, time.max(0).cast_unsigned().into(), 12);
    push_hex(&mut id, hasher.digest128() >> 32, 24);
    id.into()
}

/// Appends the last `digits` hexadecimal digits of `number`.
pub(crate) fn push_hex(text: &mut String, number: u128, digits: u32) {
    for digit in (0..digits).rev() {
        let nibble = u32::try_from(number >> (4 * digit) & 0xf).unwrap_or_default();
        text.push(char::from_digit(nibble, 16).unwrap_or('0'));
    }
}

/// What makes this occurrence: equal for all copies of it.
fn natural_key(hasher: &mut Hasher, event: &Event<'_>) {
    let session = event.session.as_ref().map(SessionRef::name);
    let name = event.name().unwrap_or_default();
    match &event.body {
        Body::SessionCreated => hasher.text(name),
        Body::SessionDestroyed(end) => {
            hasher.text(name);
            hasher.integer(end.start.unwrap_or(event.time));
        }
        Body::Participant(_) => hasher.text(name),
        Body::Stream(stream) => {
            hasher.text(name);
            hasher.text(if stream.outbound { "OUTBOUND" } else { "INBOUND" });
            hasher.text(&stream.stream_id);
            hasher
                .optional(stream.receiving_from.as_deref().filter(|_| stream.stream_id.is_empty()));
            hasher
                .integer(stream.destroyed.as_ref().and_then(|end| end.start).unwrap_or(event.time));
        }
        Body::Recording(recording) | Body::Seen(Seen::Recording(recording)) => {
            // `recordingStarted` and `recordingStopped` are the same occurrence as their `recordingStatusChanged`.
            hasher.text("recording");
            hasher.text(recording.status.name());
            hasher.text(&recording.id);
            let own = recording.status == RecordingStatus::Started && recording.old_name;
            hasher.integer(if own { event.time } else { recording.start });
        }
        Body::Endpoint(_)
        | Body::Seen(_)
        | Body::NetworkQuality(_)
        | Body::Broadcast(_)
        | Body::Other => {
            hasher.text(name);
            use FieldName as Name;
            let fields: &[Name] = match name {
                "filterEventDispatched" => &[Name::StreamId, Name::EventType, Name::Data],
                "mediaNodeStatusChanged" => &[Name::Id, Name::NewStatus],
                "autoscaling" => &[Name::ClusterTwin],
                "nodeCrashed" | "nodeRecovered" | "HANodeRegistered" | "HANodeDeregistered" => {
                    &[Name::Id, Name::NodeId]
                }
                _ => return content(hasher, event),
            };
            for name in fields {
                match event.field(*name) {
                    Some(field) => hasher.field(field),
                    None => hasher.optional(None),
                }
            }
        }
    }
    hasher.optional(session);
    hasher.optional(event.connection_id.as_deref());
}

/// All of the event: two equal ones cannot be told apart.
fn content(hasher: &mut Hasher, event: &Event<'_>) {
    let session = event.session.as_ref();
    hasher.optional(session.map(|session| session.id.as_ref()));
    hasher.optional(session.and_then(|session| session.unique_id.as_deref()));
    hasher.optional(event.connection_id.as_deref());
    hasher.optional(event.user.as_deref());
    // Pro writes `clusterId` beside its own field, onto documents of every kind.
    let own = event.fields.iter().filter(|field| field.known != Some(FieldName::ClusterTwin));
    let mut fields: Vec<&Field<'_>> = own.collect();
    fields.sort_by(|left, right| left.name.cmp(&right.name));
    for field in fields {
        hasher.text(&field.name);
        hasher.field(field);
    }
}
