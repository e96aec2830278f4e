//! Members to event: which member means what, for every kind of event.

use std::borrow::Cow;

use super::{DecodeError, Decoded, FIELDS_MAX, ID_BYTES_MAX, Members, TIME_MIN, field};
use crate::document::SUPERSEDED;
use crate::enrich::{ADDED, JOINED};
use crate::event::{
    Aspect, Body, End, Event, Field, Kind, MediaState, Origin, Participant, Recording,
    RecordingStatus, SessionRef, Stream, integer_of, is_internal, number_of, text_of,
};

/// A CDR line: the name came as root key.
pub(super) fn cdr<'a>(
    name: Cow<'a, str>,
    members: Members<'a>,
) -> Result<Decoded<'a>, DecodeError> {
    build(Kind::Cdr(name), members, false)
}

/// A webhook body: the name is the member `event`.
pub(super) fn webhook(members: Members<'_>) -> Result<Decoded<'_>, DecodeError> {
    build(Kind::Cdr(event_name(&members)?), members, false)
}

/// A document that OpenVidu Pro or callscope has indexed.
pub(super) fn indexed(members: Members<'_>) -> Result<Decoded<'_>, DecodeError> {
    let elastic_type = member_text(&members, "elastic_type").unwrap_or_default();
    let kind = match elastic_type.as_ref() {
        "cdr" => Kind::Cdr(event_name(&members)?),
        "kms" => Kind::Kms,
        "webrtcStats" => Kind::WebrtcStats,
        "webrtcDebug" => Kind::WebrtcDebug,
        "networkQualityStats" => Kind::NetworkQualityStats,
        "monitoringStats" => Kind::MonitoringStats,
        "browserStats" => Kind::BrowserStats,
        "platformStats" | SUPERSEDED => return Ok(Decoded::Summary),
        summary if summary.ends_with("Summary") => return Ok(Decoded::Summary),
        _ => Kind::Other(elastic_type),
    };
    build(kind, members, true)
}

/// An object that only its fields tell.
pub(super) fn telemetry<'a>(
    kind: Kind<'a>,
    members: Members<'a>,
) -> Result<Decoded<'a>, DecodeError> {
    build(kind, members, false)
}

fn event_name<'a>(members: &Members<'a>) -> Result<Cow<'a, str>, DecodeError> {
    member_text(members, "event")
        .ok_or_else(|| DecodeError::Missing { event: "cdr".to_owned(), field: "event" })
}

fn member_text<'a>(members: &Members<'a>, name: &str) -> Option<Cow<'a, str>> {
    members.iter().find(|(known, _)| known == name).and_then(|(_, json)| text_of(json))
}

/// Ids as they are found; twins are settled when all members are known.
#[derive(Default)]
struct Ids<'a> {
    session_id: Option<Cow<'a, str>>,
    session: Option<Cow<'a, str>>,
    unique_session_id: Option<Cow<'a, str>>,
    connection_id: Option<Cow<'a, str>>,
    participant_id: Option<Cow<'a, str>>,
    connection: Option<Cow<'a, str>>,
}

fn build<'a>(
    kind: Kind<'a>,
    members: Members<'a>,
    indexed: bool,
) -> Result<Decoded<'a>, DecodeError> {
    let is_cdr = matches!(kind, Kind::Cdr(_));
    let mut ids = Ids::default();
    let mut origin = Origin::default();
    let (mut user, mut time, mut cluster_twin) = (None, None, None);
    let mut fields = Vec::with_capacity(members.len().min(FIELDS_MAX));
    for (name, json) in members {
        match name.as_ref() {
            "timestamp" => time = integer_of(json),
            "@timestamp" if kind == Kind::BrowserStats => time = iso_millis(json),
            "elastic_type" if indexed => {}
            "event" if is_cdr => {}
            "sessionId" => ids.session_id = id(json, "sessionId")?,
            "session" if !is_cdr => ids.session = id(json, "session")?,
            "session_id" if kind == Kind::BrowserStats => ids.session = id(json, "session_id")?,
            "uniqueSessionId" => ids.unique_session_id = id(json, "uniqueSessionId")?,
            "connectionId" => ids.connection_id = id(json, "connectionId")?,
            "participantId" => ids.participant_id = id(json, "participantId")?,
            "connection" if !is_cdr => ids.connection = id(json, "connection")?,
            "user" if !is_cdr => user = id(json, "user")?,
            "cluster_id" => origin.cluster_id = id(json, "cluster_id")?,
            "master_node_id" => origin.master_node_id = id(json, "master_node_id")?,
            added if indexed && is_added(added, is_cdr) => {}
            _ if json == "null" => {}
            "clusterId" => cluster_twin = field(name, json)?,
            _ => fields.extend(field(name, json)?),
        }
    }
    let time = time.ok_or(DecodeError::NoTime)?;
    if time < TIME_MIN {
        return Err(DecodeError::TooEarly(time));
    }
    let session = session(&mut ids);
    // With a session, `clusterId` is a twin that Pro 2.17 wrote beside `cluster_id`; without one it is the event's own.
    match cluster_twin {
        Some(twin) if session.is_some() && indexed => {
            origin.cluster_id = origin.cluster_id.or_else(|| twin.text());
        }
        Some(twin) => fields.push(twin),
        None => {}
    }
    let connection_id = ids.connection_id.or(ids.participant_id).or(ids.connection);
    let mut event =
        Event { kind, time, session, connection_id, user, origin, fields, body: Body::Other };
    event.body = read_body(&event)?;
    Ok(Decoded::Event(Box::new(event)))
}

/// Whether callscope or Pro put this member into the document, rather than the event having it.
fn is_added(name: &str, is_cdr: bool) -> bool {
    ADDED.contains(&name) || (!is_cdr && JOINED.contains(&name))
}

fn session<'a>(ids: &mut Ids<'a>) -> Option<SessionRef<'a>> {
    let unique_id = ids.unique_session_id.take();
    let id = ids.session_id.take().or_else(|| ids.session.take()).or_else(|| {
        let unique_id = unique_id.as_deref()?;
        let (id, start) = unique_id.rsplit_once('_')?;
        start.parse::<i64>().ok()?;
        Some(Cow::Owned(id.to_owned()))
    })?;
    Some(SessionRef { id, unique_id })
}

/// An id: text, or a number that somebody's tool made of one. Empty and any other value: none.
fn id<'a>(json: &'a str, name: &'static str) -> Result<Option<Cow<'a, str>>, DecodeError> {
    let id = match json.as_bytes().first() {
        Some(b'"') => text_of(json),
        Some(b'-' | b'0'..=b'9') => Some(Cow::Borrowed(json)),
        _ => None,
    };
    match id {
        Some(id) if id.len() > ID_BYTES_MAX => Err(DecodeError::LongId(name)),
        Some(id) if id.is_empty() => Ok(None),
        id => Ok(id),
    }
}

fn iso_millis(json: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(&text_of(json)?).ok().map(|time| time.timestamp_millis())
}

/// Looks members up by name, with the event's name at hand for messages.
struct Reader<'e, 'a> {
    event: &'e Event<'a>,
    name: &'e str,
}

impl<'a> Reader<'_, 'a> {
    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.event.field(name).and_then(Field::text)
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.event.field(name).and_then(Field::integer)
    }

    fn missing(&self, field: &'static str) -> DecodeError {
        DecodeError::Missing { event: self.name.to_owned(), field }
    }

    fn end(&self) -> End<'a> {
        End { start: self.integer("startTime"), reason: self.text("reason") }
    }

    fn needs_connection(&self) -> Result<(), DecodeError> {
        match self.event.connection_id {
            Some(_) => Ok(()),
            None => Err(self.missing("connectionId")),
        }
    }
}

fn read_body<'a>(event: &Event<'a>) -> Result<Body<'a>, DecodeError> {
    let name = match &event.kind {
        Kind::Cdr(name) => name.as_ref(),
        Kind::Kms => return Ok(media_state(event)),
        Kind::NetworkQualityStats => {
            let level = event.field("newValue").and_then(Field::integer);
            return Ok(level.map_or(Body::Other, Body::NetworkQuality));
        }
        _ => return Ok(Body::Other),
    };
    let reader = Reader { event, name };
    let body = match name {
        "sessionCreated" => Body::SessionCreated,
        "sessionDestroyed" => Body::SessionDestroyed(reader.end()),
        "participantJoined" => participant(&reader, None)?,
        "participantLeft" => participant(&reader, Some(reader.end()))?,
        "webrtcConnectionCreated" => stream(&reader, None)?,
        "webrtcConnectionDestroyed" => stream(&reader, Some(reader.end()))?,
        "recordingStarted" => recording(&reader, Some(RecordingStatus::Started))?,
        "recordingStopped" => recording(&reader, Some(RecordingStatus::Stopped))?,
        "recordingStatusChanged" => recording(&reader, None)?,
        _ => return Ok(Body::Other),
    };
    if event.session.is_none() {
        return Err(reader.missing("sessionId"));
    }
    Ok(body)
}

fn participant<'a>(
    reader: &Reader<'_, 'a>,
    left: Option<End<'a>>,
) -> Result<Body<'a>, DecodeError> {
    reader.needs_connection()?;
    if reader.event.connection_id.as_deref().is_some_and(is_internal) {
        return Ok(Body::Other);
    }
    Ok(Body::Participant(Participant {
        left,
        location: reader.text("location"),
        ip: reader.text("ip"),
        platform: reader.text("platform"),
        client_data: reader.text("clientData"),
        server_data: reader.text("serverData"),
    }))
}

fn stream<'a>(
    reader: &Reader<'_, 'a>,
    destroyed: Option<End<'a>>,
) -> Result<Body<'a>, DecodeError> {
    reader.needs_connection()?;
    let outbound = match reader.text("connection").as_deref() {
        Some("OUTBOUND") => true,
        Some("INBOUND") => false,
        _ => return Err(reader.missing("connection")),
    };
    if reader.event.connection_id.as_deref().is_some_and(is_internal) {
        return Ok(Body::Other);
    }
    let stream_id = reader.text("streamId").unwrap_or_default();
    if stream_id.len() > ID_BYTES_MAX {
        return Err(DecodeError::LongId("streamId"));
    }
    let receiving_from = reader.text("receivingFrom");
    if receiving_from.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
        return Err(DecodeError::LongId("receivingFrom"));
    }
    Ok(Body::Stream(Stream { destroyed, outbound, stream_id, receiving_from }))
}

fn recording<'a>(
    reader: &Reader<'_, 'a>,
    old: Option<RecordingStatus>,
) -> Result<Body<'a>, DecodeError> {
    let id = reader.text("id").filter(|id| !id.is_empty()).ok_or_else(|| reader.missing("id"))?;
    if id.len() > ID_BYTES_MAX {
        return Err(DecodeError::LongId("id"));
    }
    let status = match (old, reader.text("status").as_deref()) {
        (Some(status), _) => status,
        (None, Some("started")) => RecordingStatus::Started,
        (None, Some("stopped")) => RecordingStatus::Stopped,
        (None, Some("ready")) => RecordingStatus::Ready,
        (None, Some("failed")) => RecordingStatus::Failed,
        (None, Some(_)) => return Ok(Body::Other),
        (None, None) => return Err(reader.missing("status")),
    };
    let duration = reader.event.field("duration").and_then(|field| number_of(&field.json));
    Ok(Body::Recording(Recording {
        id,
        // Old `recordingStarted` has no `startTime`, its own time is the start; so it is where 2.0 left it out.
        start: reader.integer("startTime").unwrap_or(reader.event.time),
        status,
        old_name: old.is_some(),
        reason: reader.text("reason"),
        size: reader.integer("size").unwrap_or(0),
        duration: duration.unwrap_or(0.0),
    }))
}

/// Kurento's type names lost their last letter before 6.18: both generations mean the same.
fn media_state<'a>(event: &Event<'a>) -> Body<'a> {
    let reader = Reader { event, name: "kms" };
    let aspect = match reader.text("type").as_deref() {
        Some("IceComponentStateChange" | "IceComponentStateChanged") => Aspect::Ice,
        Some("MediaFlowInStateChange" | "MediaFlowInStateChanged") => Aspect::FlowIn,
        Some("MediaFlowOutStateChange" | "MediaFlowOutStateChanged") => Aspect::FlowOut,
        _ => return Body::Other,
    };
    let (Some(endpoint), Some(state)) = (reader.text("endpoint"), reader.text("state")) else {
        return Body::Other;
    };
    let part = if aspect == Aspect::Ice {
        event.field("componentId").map(|field| field.json.clone())
    } else {
        reader.text("mediaType")
    };
    if endpoint.len() > ID_BYTES_MAX
        || state.len() > 64
        || part.as_ref().is_some_and(|part| part.len() > 64)
    {
        return Body::Other;
    }
    Body::MediaState(MediaState { endpoint, aspect, part: part.unwrap_or_default(), state })
}
