//! Context fields: what the lane knew about an event's connection, endpoint or recording when the event came.

use std::borrow::Cow;

use super::level::level;
use crate::document::{Context, ReportedBy};
use crate::event::{
    self, Aspect, Body, Event, Field, FieldName, Kind, MediaState, Rates, RecordingStatus,
    SessionRef, Side, Told, is_internal,
};
use crate::json::Object;
use crate::recent::Recent;
use crate::sessions::browser::{Directory, Reporter};
use crate::sessions::endpoint::{Endpoint, endpoint_name};
use crate::sessions::facts::Hasher;
use crate::sessions::state::{RecordingKey, Session, Stream};

/// Counters of `webrtcStats` and the field that tells their growth. The first is what was lost.
const COUNTERS: [(FieldName, FieldName); 8] = [
    (FieldName::PacketsLost, FieldName::PacketsLostDelta),
    (FieldName::PacketsReceived, FieldName::PacketsReceivedDelta),
    (FieldName::PacketsSent, FieldName::PacketsSentDelta),
    (FieldName::BytesReceived, FieldName::BytesReceivedDelta),
    (FieldName::BytesSent, FieldName::BytesSentDelta),
    (FieldName::NackCount, FieldName::NackDelta),
    (FieldName::PliCount, FieldName::PliDelta),
    (FieldName::FirCount, FieldName::FirDelta),
];

/// Last counters of every endpoint and media type.
#[derive(Debug, Default)]
pub struct Samples(Recent<Sample, 100_000>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    time: i64,
    counters: [Option<i64>; COUNTERS.len()],
}

impl Samples {
    /// The sample before this one, if any, and whether the endpoint has begun to count anew since; keeps the newer of both.
    fn exchange(&mut self, id: u64, mut sample: Sample) -> Option<(Sample, bool)> {
        let Some(known) = self.0.get_mut(id) else {
            self.0.insert(id, sample);
            return None;
        };
        if known.time >= sample.time {
            return None;
        }
        // What comes late was told to be lost: it is not lost again when the next one is.
        let is_anew = is_anew(known.counters, sample.counters);
        if let ([Some(then), ..], [Some(now), ..]) = (known.counters, &mut sample.counters)
            && !is_anew
        {
            *now = then.max(*now);
        }
        Some((std::mem::replace(known, sample), is_anew))
    }
}

/// Whether an endpoint counts from nothing again: everything but what was lost can only grow.
fn is_anew(before: [Option<i64>; COUNTERS.len()], now: [Option<i64>; COUNTERS.len()]) -> bool {
    let fell = |(then, now): (Option<i64>, Option<i64>)| {
        then.zip(now).is_some_and(|(then, now)| now < then)
    };
    before.into_iter().zip(now).skip(1).any(fell)
}

/// What is known about `event`; `session` is its state before the event was folded.
#[must_use]
pub fn context(event: &Event<'_>, session: Option<&Session>, samples: &mut Samples) -> Context {
    let mut context = Context::default();
    let mut members = Object::members_in(String::new());
    let reporter = reporter(event);
    let owner = session
        .zip(reporter.as_deref().and_then(Reporter::read))
        .and_then(|(session, reporter)| Directory::of(session).owner(&reporter, Some(event.time)));
    context.owner = owner.map(|owner| {
        let endpoint = |stream: &Stream| {
            endpoint_name(owner.connection_id, stream.outbound, &stream.id).into_owned()
        };
        ReportedBy {
            connection_id: owner.connection_id.into(),
            endpoint: owner.stream.map(endpoint).map(Into::into),
        }
    });
    let known = session.zip(event.connection_id.as_deref());
    let known = known.and_then(|(session, id)| session.connections.get(id));
    let connection = known.map(|connection| &**connection).or(owner.map(|owner| owner.connection));
    let joined = connection.and_then(|connection| connection.joined.as_ref());
    context.user = match &event.kind {
        Kind::Cdr(_) => known.and_then(|known| known.named()).map(|(user, _)| user.into()),
        _ => owner.map(|owner| owner.connection.user_or(owner.connection_id).0.into()),
    };
    context.tenant = joined.and_then(|joined| joined.tenant.clone());
    if let Some(session) = session {
        context.media_node_id = session.media_node_at(event.time).map(Into::into);
        context.start = session.start_at(event.time);
    }
    let is_telemetry = !matches!(event.kind, Kind::Cdr(_) | Kind::Seen);
    if is_telemetry || matches!(event.body, Body::Stream(_)) {
        context.place = joined.map_or_else(String::new, |joined| joined.place.as_ref().into());
    }
    // Of several who may have reported under one name, each has counters of its own.
    if event.kind == Kind::WebrtcStats && (reporter.is_none() || owner.is_some()) {
        deltas(event, samples, &mut members);
        // What the media server tells of the same media is not to be added to it.
        let measured = owner.iter().flat_map(|owner| &owner.connection.endpoints);
        if measured.flat_map(|known| known.measured.keys()).any(|(side, _)| *side == Side::Server) {
            members.flag("serverTells", true);
        }
    }
    match &event.body {
        Body::Endpoint(event::Endpoint { name, told: Told::State(state) })
            if state.aspect != Aspect::Ice && state.state == "FLOWING" =>
        {
            let endpoint = connection.and_then(|connection| connection.endpoint(name));
            flowing(event, state, endpoint, &mut members);
        }
        Body::Stream(stream) if stream.destroyed.is_some() => {
            let endpoint =
                connection.zip(event.connection_id.as_deref()).and_then(|(known, id)| {
                    known.endpoint(&endpoint_name(id, stream.outbound, &stream.stream_id))
                });
            let flows = endpoint.into_iter().flat_map(Endpoint::flows);
            if let Some(stopped) = flows.filter_map(|(_, state)| state.stopped()).min() {
                members.integer("notFlowingMs", (event.time - stopped).max(0));
            }
        }
        Body::Recording(recording) if recording.status == RecordingStatus::Ready => {
            let key = RecordingKey { id: recording.id.as_ref().into(), start: recording.start };
            let stop = session.and_then(|session| session.recordings.get(&key)?.stop.as_ref());
            if let Some(stop) = stop {
                members.integer("processingMs", (event.time - stop.time).max(0));
            }
        }
        _ => {}
    }
    context.members = members.into_members();
    context
}

/// The name of the endpoint that a browser tells of; `None`: no browser tells this.
fn reporter<'e>(event: &'e Event<'_>) -> Option<Cow<'e, str>> {
    if event.connection_id.is_some() || event.kind != Kind::WebrtcStats {
        return None;
    }
    event.field(FieldName::Endpoint)?.text().filter(|name| Reporter::has_named(name))
}

/// Media flow: whether for the first time at this endpoint in this direction, and for how long it had stopped.
fn flowing(
    event: &Event<'_>,
    state: &MediaState<'_>,
    endpoint: Option<&Endpoint>,
    members: &mut Object,
) {
    if event.connection_id.as_deref().is_none_or(is_internal) {
        // Nothing is kept of what belongs to nobody.
        return;
    }
    let states = endpoint.into_iter().flat_map(|endpoint| &endpoint.states);
    let mut same = states.filter(|((aspect, _), _)| *aspect == state.aspect);
    if !same.clone().any(|(_, known)| known.has_flown()) {
        members.flag("firstMedia", true);
    }
    let known = same.find(|((_, part), _)| part.as_ref() == state.part);
    if let Some(stopped) = known.and_then(|(_, known)| known.stopped())
        && stopped < event.time
    {
        members.integer("notFlowingMs", event.time - stopped);
    }
}

/// Counters are cumulative since the endpoint was made; one that fell was made anew.
fn deltas(event: &Event<'_>, samples: &mut Samples, members: &mut Object) {
    let Some(endpoint) = event.field(FieldName::Endpoint).and_then(Field::text) else { return };
    let mut id = Hasher::new("sample");
    id.optional(event.session.as_ref().map(SessionRef::name));
    id.optional(event.connection_id.as_deref());
    id.text(&endpoint);
    id.optional(event.field(FieldName::MediaType).and_then(Field::text).as_deref());
    let sample = Sample {
        time: event.time,
        counters: COUNTERS.map(|(counter, _)| event.field(counter).and_then(Field::integer)),
    };
    let Some((before, is_anew)) = samples.exchange(id.digest(), sample) else { return };
    let span = sample.time - before.time;
    members.integer("sampleMs", span);
    let rates = Rates::of(event);
    let mut grown = [None; COUNTERS.len()];
    for ((grown, (counter, delta)), (then, now)) in
        grown.iter_mut().zip(COUNTERS).zip(before.counters.iter().zip(sample.counters))
    {
        let counted = then
            .zip(now)
            .map(|(then, now)| if is_anew { now.max(0) } else { now.saturating_sub(then).max(0) });
        let told = || rates.as_ref().and_then(|rates| rates.growth(counter, span));
        *grown = counted.or_else(told);
        if let Some(growth) = *grown {
            members.integer(delta.text(), growth);
        }
    }
    if event.field(FieldName::Side).and_then(Field::text).as_deref() == Some("browser") {
        measured(event, &grown, members);
    }
}

/// How good the network was since the sample before, of what a browser has measured of it.
fn measured(event: &Event<'_>, grown: &[Option<i64>; COUNTERS.len()], members: &mut Object) {
    let growth = |name: FieldName| {
        let place = COUNTERS.iter().position(|(counter, _)| *counter == name)?;
        u32::try_from((*grown.get(place)?)?).ok().map(f64::from)
    };
    let number = |name| event.field(name).and_then(Field::number);
    let loss = growth(FieldName::PacketsLost).zip(growth(FieldName::PacketsReceived));
    if loss == Some((0.0, 0.0)) {
        // Nothing came, be it that nothing was sent or that the way is dead.
        return;
    }
    let loss = loss.map(|(lost, received)| 100.0 * lost / (lost + received));
    let (jitter, round_trip) = (number(FieldName::Jitter), number(FieldName::Rtt));
    if loss.or(jitter).or(round_trip).is_some() {
        let [loss, jitter, round_trip] = [loss, jitter, round_trip].map(Option::unwrap_or_default);
        members.integer("networkQuality", level(loss, jitter, round_trip));
    }
}
