//! Members to event: which member means what, for every kind of event.

use std::borrow::Cow;

use super::{DecodeError, Decoded, FIELDS_MAX, ID_BYTES_MAX, Members, TIME_MIN, field, is_time};
use crate::document::SUPERSEDED;
use crate::document::names::{Place, is_odd_number, place_of};
use crate::event::names::Class;
use crate::event::{
    Aspect, Body, End, Endpoint, Event, Field, FieldName, Kind, Media, MediaState, Origin, Packets,
    Pair, Participant, Rates, Recording, RecordingStatus, Seen, SeenSession, SessionRef, Side,
    Stats, Stream, Told, integer_of, is_geo_point, is_internal, number_of, text_of,
};
use crate::sessions::browser::Reporter;

/// How long after an event something may have begun by another clock, in milliseconds.
const SKEW_MAX: i64 = 86_400_000;

/// Longest jitter and round trip believed, in seconds.
const SPAN_MAX: f64 = 60.0;
/// `side` of an event that nobody sent and the REST API showed later.
const API: &str = "api";

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
        "seen" => Kind::Seen,
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
    /// Whether the unique id was made by callscope, from the start that the event told.
    is_derived: bool,
}

/// Members that a raw document has set aside, back in their places.
fn restored<'a>(members: &mut Members<'a>) -> Members<'a> {
    let mut restored = Vec::new();
    members.retain(|(name, json)| {
        let is_aside = name == "malformed" || name == "unindexed";
        let aside = is_aside.then(|| super::members(json).ok()).flatten();
        let told = aside.iter().flatten();
        restored.extend(told.map(|(name, json)| (name.clone(), as_told(name, json))));
        aside.is_none()
    });
    // What stands in their places otherwise was made of them.
    members.retain(|(name, _)| restored.iter().all(|(aside, _)| aside != name));
    restored
}

/// Numbers that no index holds are set aside as texts. A text that an index holds is not set aside, so this one was a number.
fn as_told<'a>(name: &str, json: &'a str) -> &'a str {
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let number = inner.filter(|inner| is_odd_number(inner));
    let text = Field { name: name.into(), known: FieldName::of(name), json: json.into() };
    number.filter(|_| place_of(&text) == Place::Indexed).unwrap_or(json)
}

fn build<'a>(
    kind: Kind<'a>,
    mut members: Members<'a>,
    indexed: bool,
) -> Result<Decoded<'a>, DecodeError> {
    use FieldName as Name;
    if !indexed && members.len() > FIELDS_MAX {
        return Err(DecodeError::TooManyFields);
    }
    let restored = if indexed { restored(&mut members) } else { Vec::new() };
    let aside: Vec<Cow<'a, str>> = restored.iter().map(|(name, _)| name.clone()).collect();
    let is_cdr = matches!(kind, Kind::Cdr(_));
    let is_report = indexed && kind == Kind::WebrtcStats && is_report(&members, &restored);
    // What was set aside is the event's own, whatever it is called.
    let own = restored.into_iter().map(|(name, json)| (name, json, false));
    let is_browser = kind == Kind::BrowserStats;
    let joined = joined(&kind);
    let mut ids = Ids::default();
    let mut origin = Origin::default();
    let mut place = Derived::default();
    let (mut user, mut time, mut cluster_twin) = (None, None, None);
    let mut fields = Vec::with_capacity(members.len().min(FIELDS_MAX));
    let members = members.into_iter().map(|(name, json)| (name, json, indexed));
    for (name, json, indexed) in members.chain(own) {
        let known = FieldName::of(&name);
        // Whose a browser's report is it does not say itself.
        if is_report
            && indexed
            && matches!(known, Some(Name::ConnectionId | Name::Connection | Name::User))
        {
            continue;
        }
        let slot = match known {
            Some(Name::SessionId) => Some(&mut ids.session_id),
            Some(Name::Session) if !is_cdr => Some(&mut ids.session),
            Some(Name::SessionIdSnake) if is_browser => Some(&mut ids.session),
            Some(Name::UniqueSessionId) => Some(&mut ids.unique_session_id),
            Some(Name::ConnectionId) => Some(&mut ids.connection_id),
            Some(Name::ParticipantId) => Some(&mut ids.participant_id),
            Some(Name::Connection) if !is_cdr => Some(&mut ids.connection),
            Some(Name::User) if !is_cdr => Some(&mut user),
            Some(Name::ClusterId) => Some(&mut origin.cluster_id),
            Some(Name::MasterNodeId) => Some(&mut origin.master_node_id),
            _ => None,
        };
        if let (Some(slot), Some(known)) = (slot, known) {
            *slot = id(json, known.text())?;
            if slot.is_some() || json == "\"\"" {
                continue;
            }
        }
        match known {
            Some(Name::Timestamp) => time = integer_of(json),
            Some(Name::AtTimestamp) if is_browser => time = iso_millis(json),
            Some(Name::ElasticType) if indexed => {}
            Some(Name::Event) if is_cdr => {}
            // Who is told of is found out anew.
            Some(Name::User) if indexed && is_cdr => {}
            Some(Name::UniqueSessionIdDerived) if indexed => ids.is_derived = json == "true",
            Some(Name::LocationDerived) if indexed => place.has_location = json == "true",
            Some(Name::GeoPointsDerived) if indexed => place.has_points = json == "true",
            Some(added) if indexed && is_added(added, joined) => {}
            _ if json == "null" => {}
            Some(Name::ClusterTwin) => cluster_twin = field(name, known, json)?,
            _ => fields.extend(field(name, known, json)?),
        }
    }
    let time = time.ok_or(DecodeError::NoTime)?;
    if !is_time(time) {
        return Err(DecodeError::OddTime(time));
    }
    let session = session(&mut ids, time)?;
    // With a session, `clusterId` is a twin that Pro 2.17 wrote beside `cluster_id`; without one it is the event's own.
    match cluster_twin {
        Some(twin) if session.is_some() && indexed => {
            origin.cluster_id = origin.cluster_id.or_else(|| twin.text());
        }
        Some(twin) => fields.push(twin),
        None => {}
    }
    place.take_out(&mut fields, &aside);
    let connection_id = ids.connection_id.or(ids.participant_id).or(ids.connection);
    let mut event =
        Event { kind, time, session, connection_id, user, origin, fields, body: Body::Other };
    event.body = read_body(&event)?;
    Ok(Decoded::Event(Box::new(event)))
}

/// Which parts of a place callscope had looked up, where the event itself told none. They are looked up anew.
#[derive(Default)]
struct Derived {
    has_location: bool,
    has_points: bool,
}

impl Derived {
    /// Leaves of the fields what the event itself told. `aside`: names of those that had been set aside, and are the event's.
    fn take_out(&self, fields: &mut Vec<Field<'_>>, aside: &[Cow<'_, str>]) {
        let is_ours = |field: &Field<'_>, name: FieldName| {
            field.known == Some(name) && aside.iter().all(|aside| *aside != name.text())
        };
        if self.has_location {
            // Where an address is known, OpenVidu tells this of places that it does not know.
            let mut fields = fields.iter_mut();
            if let Some(field) = fields.find(|field| is_ours(field, FieldName::Location)) {
                field.json = "\"unknown\"".into();
            }
        }
        if self.has_points {
            fields.retain(|field| !is_ours(field, FieldName::GeoPoints));
        }
    }
}

/// Whether callscope or Pro put this member into the document, rather than the event having it.
fn is_added(name: FieldName, joined: &[FieldName]) -> bool {
    name.class() == Class::Added || joined.contains(&name)
}

/// What is joined by connection and session onto an event of this kind, which never has it itself.
fn joined(kind: &Kind<'_>) -> &'static [FieldName] {
    use FieldName::{GeoPoints, Location, MediaNodeId};
    let Kind::Cdr(name) = kind else {
        return if *kind == Kind::Seen { &[] } else { &[Location, GeoPoints, MediaNodeId] };
    };
    match name.as_ref() {
        "webrtcConnectionCreated" | "webrtcConnectionDestroyed" => {
            &[Location, GeoPoints, MediaNodeId]
        }
        "sessionCreated"
        | "sessionDestroyed"
        | "participantJoined"
        | "participantLeft"
        | "signalSent"
        | "filterEventDispatched"
        | "broadcastStarted"
        | "broadcastStopped" => &[MediaNodeId],
        _ => &[],
    }
}

/// Whether this was told by a browser. What its endpoint was called by then is set aside where the media server's name is known.
fn is_report(members: &Members<'_>, restored: &Members<'_>) -> bool {
    let mut told = restored.iter().chain(members);
    let endpoint = told.find(|(name, _)| name == FieldName::Endpoint.text());
    endpoint.and_then(|(_, json)| text_of(json)).is_some_and(|name| Reporter::has_named(&name))
}

fn session<'a>(ids: &mut Ids<'a>, time: i64) -> Result<Option<SessionRef<'a>>, DecodeError> {
    let unique_id = ids.unique_session_id.take().filter(|_| !ids.is_derived);
    let parts = unique_id.as_deref().and_then(|unique_id| unique_id.rsplit_once('_'));
    let parts = parts.and_then(|(id, start)| Some((id, start.parse::<i64>().ok()?)));
    // The start decides the month of the summaries: nobody can make up a thousand indices.
    if let Some((_, start)) = parts
        && !is_start(start, time)
    {
        return Err(DecodeError::OddStart(start));
    }
    let id = ids.session_id.take().or_else(|| ids.session.take());
    let id = id.or_else(|| parts.map(|(id, _)| Cow::Owned(id.to_owned())));
    Ok(id.map(|id| SessionRef { id, unique_id }))
}

/// Whether something told of at `time` can have begun at `start`.
fn is_start(start: i64, time: i64) -> bool {
    (TIME_MIN..=time.saturating_add(SKEW_MAX)).contains(&start)
}

/// An id: text, or a number that somebody's tool made of one. Empty and any other value: none.
fn id<'a>(json: &'a str, name: &'static str) -> Result<Option<Cow<'a, str>>, DecodeError> {
    let id = match json.as_bytes().first() {
        Some(b'"') => text_of(json).or_else(|| {
            let whole = super::whole_text(json);
            text_of(&whole).map(|text| Cow::Owned(text.into_owned()))
        }),
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
    fn text(&self, name: FieldName) -> Option<Cow<'a, str>> {
        self.event.field(name).and_then(Field::text)
    }

    fn integer(&self, name: FieldName) -> Option<i64> {
        self.event.field(name).and_then(Field::integer)
    }

    /// `startTime`, where something can have begun then.
    fn start(&self) -> Option<i64> {
        self.integer(FieldName::StartTime).filter(|start| is_start(*start, self.event.time))
    }

    /// See [`id`].
    fn id(&self, name: FieldName) -> Result<Option<Cow<'a, str>>, DecodeError> {
        match self.event.field(name).map(|field| &field.json) {
            Some(Cow::Borrowed(json)) => id(json, name.text()),
            Some(Cow::Owned(json)) => {
                Ok(id(json, name.text())?.map(|id| Cow::Owned(id.into_owned())))
            }
            None => Ok(None),
        }
    }

    fn missing(&self, field: &'static str) -> DecodeError {
        DecodeError::Missing { event: self.name.to_owned(), field }
    }

    fn end(&self) -> End<'a> {
        End { start: self.start(), reason: self.text(FieldName::Reason) }
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
        Kind::Kms => return Ok(endpoint(event, kms)),
        Kind::WebrtcStats => return Ok(endpoint(event, stats)),
        Kind::NetworkQualityStats => {
            let level = event.field(FieldName::NewValue).and_then(Field::integer);
            return Ok(level.map_or(Body::Other, Body::NetworkQuality));
        }
        Kind::Seen => return seen(event),
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
        "recordingStatusChanged" => match recording(&reader, None)? {
            Body::Recording(told) if reader.text(FieldName::Side).as_deref() == Some(API) => {
                Body::Seen(Seen::Recording(told))
            }
            told => told,
        },
        // Their payload is not documented; that of a session they belong to is all that can be counted.
        "broadcastStarted" if event.session.is_some() => Body::Broadcast(None),
        "broadcastStopped" if event.session.is_some() => Body::Broadcast(Some(reader.end())),
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
    Ok(Body::Participant(attributes(reader, left)))
}

fn attributes<'a>(reader: &Reader<'_, 'a>, left: Option<End<'a>>) -> Participant<'a> {
    Participant {
        left,
        location: reader.text(FieldName::Location),
        geo_points: reader.text(FieldName::GeoPoints).filter(|text| is_geo_point(text)),
        ip: reader.text(FieldName::Ip),
        platform: reader.text(FieldName::Platform),
        client_data: reader.text(FieldName::ClientData),
        server_data: reader.text(FieldName::ServerData),
    }
}

/// What callscope has read from the REST API.
fn seen<'a>(event: &Event<'a>) -> Result<Body<'a>, DecodeError> {
    let reader = Reader { event, name: "seen" };
    if event.session.is_none() {
        return Err(reader.missing("sessionId"));
    }
    let seen = match reader.text(FieldName::Type).as_deref() {
        Some("session") => Seen::Session(SeenSession {
            custom_session_id: reader.text(FieldName::CustomSessionId),
            media_mode: reader.text(FieldName::MediaMode),
            recording_mode: reader.text(FieldName::RecordingMode),
            media_node_id: reader.text(FieldName::MediaNodeId),
        }),
        Some("connection") => {
            reader.needs_connection()?;
            if event.connection_id.as_deref().is_some_and(is_internal) {
                return Ok(Body::Other);
            }
            Seen::Connection(attributes(&reader, None))
        }
        Some(kind @ ("shown" | "gone")) => {
            let start = reader.start().ok_or_else(|| reader.missing("startTime"))?;
            Seen::Presence { start, is_shown: kind == "shown" }
        }
        _ => return Ok(Body::Other),
    };
    Ok(Body::Seen(seen))
}

fn stream<'a>(
    reader: &Reader<'_, 'a>,
    destroyed: Option<End<'a>>,
) -> Result<Body<'a>, DecodeError> {
    reader.needs_connection()?;
    let outbound = match reader.text(FieldName::Connection).as_deref() {
        Some("OUTBOUND") => true,
        Some("INBOUND") => false,
        _ => return Err(reader.missing("connection")),
    };
    if reader.event.connection_id.as_deref().is_some_and(is_internal) {
        return Ok(Body::Other);
    }
    let stream_id = reader.id(FieldName::StreamId)?.unwrap_or_default();
    let receiving_from = reader.id(FieldName::ReceivingFrom)?;
    Ok(Body::Stream(Stream { destroyed, outbound, stream_id, receiving_from }))
}

fn recording<'a>(
    reader: &Reader<'_, 'a>,
    old: Option<RecordingStatus>,
) -> Result<Body<'a>, DecodeError> {
    let id = reader.id(FieldName::Id)?.ok_or_else(|| reader.missing("id"))?;
    let status = match (old, reader.text(FieldName::Status).as_deref()) {
        (Some(status), _) => status,
        (None, Some("started")) => RecordingStatus::Started,
        (None, Some("stopped")) => RecordingStatus::Stopped,
        (None, Some("ready")) => RecordingStatus::Ready,
        (None, Some("failed")) => RecordingStatus::Failed,
        (None, Some(_)) => return Ok(Body::Other),
        (None, None) => return Err(reader.missing("status")),
    };
    let duration = reader.event.field(FieldName::Duration).and_then(|field| number_of(&field.json));
    Ok(Body::Recording(Recording {
        id,
        // Old `recordingStarted` has no `startTime`, its own time is the start; so it is where 2.0 left it out.
        start: reader.start().unwrap_or(reader.event.time),
        status,
        old_name: old.is_some(),
        reason: reader.text(FieldName::Reason),
        size: reader.integer(FieldName::Size).unwrap_or(0),
        duration: duration.unwrap_or(0.0),
    }))
}

/// What is told of an endpoint, as far as `read` finds something that the fold reads.
fn endpoint<'a>(
    event: &Event<'a>,
    read: impl FnOnce(&Reader<'_, 'a>) -> Option<Told<'a>>,
) -> Body<'a> {
    let reader = Reader { event, name: event.kind.elastic_type() };
    let name = reader.text(FieldName::Endpoint).filter(|name| name.len() <= ID_BYTES_MAX);
    let told = name.and_then(|name| Some(Endpoint { name, told: read(&reader)? }));
    told.map_or(Body::Other, Body::Endpoint)
}

/// Kurento's type names lost their last letter before 6.18: both generations mean the same.
fn kms<'a>(reader: &Reader<'_, 'a>) -> Option<Told<'a>> {
    let aspect = match reader.text(FieldName::Type).as_deref() {
        Some("IceComponentStateChange" | "IceComponentStateChanged") => Aspect::Ice,
        Some("MediaFlowInStateChange" | "MediaFlowInStateChanged") => Aspect::FlowIn,
        Some("MediaFlowOutStateChange" | "MediaFlowOutStateChanged") => Aspect::FlowOut,
        Some("NewCandidatePairSelected") => {
            let pair = reader.event.field(FieldName::CandidatePair)?;
            return Pair::read(&pair.json).map(Told::Pair);
        }
        _ => return None,
    };
    let state = reader.text(FieldName::State).filter(|state| state.len() <= 64)?;
    let part = if aspect == Aspect::Ice {
        reader.event.field(FieldName::ComponentId).map(|field| field.json.clone())
    } else {
        reader.text(FieldName::MediaType)
    };
    let part = part.unwrap_or_default();
    let after = reader.integer(FieldName::MsSinceEndpointCreation);
    (part.len() <= 64).then_some(Told::State(MediaState { aspect, part, state, after }))
}

fn stats<'a>(reader: &Reader<'_, 'a>) -> Option<Told<'a>> {
    let media = match reader.text(FieldName::MediaType)? {
        media if media.eq_ignore_ascii_case("audio") => Media::Audio,
        media if media.eq_ignore_ascii_case("video") => Media::Video,
        _ => return None,
    };
    let side = match reader.text(FieldName::Side).as_deref() {
        Some("browser") => Side::Browser,
        _ => Side::Server,
    };
    let number = |name| reader.event.field(name).and_then(Field::number);
    // Packets that came twice can make what was lost negative (RFC 3550).
    let count = |name| reader.integer(name).map(|count| u64::try_from(count).unwrap_or(0));
    let rates = Rates::of(reader.event);
    let rate = |name| rates.as_ref().and_then(|rates| rates.thousandths(name));
    Some(Told::Stats(Stats {
        side,
        media,
        jitter: number(FieldName::Jitter).and_then(micros),
        round_trip: number(FieldName::Rtt).and_then(micros),
        packets: packets(count),
        rates: packets(rate),
    }))
}

fn packets(of: impl Fn(FieldName) -> Option<u64>) -> Packets {
    Packets {
        lost: of(FieldName::PacketsLost),
        received: of(FieldName::PacketsReceived),
        sent: of(FieldName::PacketsSent),
    }
}

/// A span in seconds as microseconds; what no network takes is none.
fn micros(seconds: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within a minute")]
    (0.0..=SPAN_MAX).contains(&seconds).then_some((seconds * 1e6).round() as u64)
}
