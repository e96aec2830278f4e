//! How good media was: figures of one stream, and of a session.
//!
//! A stream has those of its endpoint, and what browsers have measured of it; of several streams of one id the latest, as
//! endpoints are called by the id. What nobody has measured is left out.

use crate::event::candidate::{CandidateKind, Transport};
use crate::json::Object;
use crate::sessions::endpoint::{Endpoint, Ice, Total};
use crate::sessions::incarnation::{Incarnation, Person};
use crate::sessions::sketch::{Loss, Spread};
use crate::sessions::state::Stream;

/// Milliseconds that somebody waits for media before it counts.
pub(super) const START_SLOW: i64 = 10_000;
/// Milliseconds in which the REST API is asked at least once more after a stream has begun, if `sources.NAME.rest.every` is not set
/// to more: media that it does not tell of by then has not come.
const LOOKED_FOR: i64 = 60_000;
/// What nine in ten and more values do not exceed.
pub(super) const MOST: u64 = 95;

impl<'a> Person<'a> {
    /// The endpoint of a stream.
    #[must_use]
    pub fn endpoint_of(&self, stream: &Stream) -> Option<&'a Endpoint> {
        let mut later = self.streams.iter().filter(|other| {
            (other.outbound, &other.id) == (stream.outbound, &stream.id)
                && other.start > stream.start
        });
        let is_latest = stream.named().is_some() && later.next().is_none();
        let name = crate::sessions::endpoint::endpoint_name(self.id, stream.outbound, &stream.id);
        self.connection.endpoint(&name).filter(|_| is_latest)
    }

    /// What its own browser has measured of a stream.
    pub fn reported_of(&self, stream: Option<&Stream>) -> impl Iterator<Item = &'a Endpoint> {
        let place = stream.map(Stream::place);
        let is_of = move |known: &Option<&'a Stream>| known.map(Stream::place) == place;
        self.reported.iter().filter(move |(known, _)| is_of(known)).map(|(_, endpoint)| *endpoint)
    }

    /// When a stream began and ended, or the connection where no stream is known; what goes on has no end.
    pub(super) fn span(&self, stream: Option<&Stream>) -> (i64, Option<i64>) {
        let end = stream.and_then(|stream| stream.end.as_ref()).or(self.connection.end.as_ref());
        (stream.map_or(self.start, |stream| stream.start), end.map(|end| end.time))
    }

    /// Whether its own browser has received packets of a stream that the media server has an endpoint of; `since`: after that time,
    /// milliseconds since 1970.
    pub(super) fn has_received(&self, endpoint: &Endpoint, since: Option<i64>) -> bool {
        let stream = self.stream_of(endpoint).filter(|stream| !stream.outbound);
        let mut reported = stream.into_iter().flat_map(|stream| self.reported_of(Some(stream)));
        reported
            .any(|own| since.map_or_else(|| own.has_passed(), |since| own.has_passed_since(since)))
    }

    /// Whether nothing came at an endpoint of a stream that lasted so many milliseconds, though it could have, and was looked for.
    pub(super) fn is_mute(&self, endpoint: &Endpoint, lasted: i64) -> bool {
        lasted >= LOOKED_FOR && endpoint.is_mute() && !self.has_received(endpoint, None)
    }

    /// Milliseconds without media and milliseconds in all, of the kind of media that was away longest, at an endpoint of a stream
    /// from `start` to `end`.
    fn silence(&self, endpoint: &Endpoint, start: i64, end: i64) -> Option<(i64, i64)> {
        let has_gone_on = |from| self.has_received(endpoint, Some(from));
        let flows = endpoint.flows().filter_map(|(_, state)| state.silence(end, has_gone_on));
        // Where nothing ever flowed, all of the time was without.
        let whole = end.saturating_sub(start).max(0);
        let nothing = endpoint.ice() == Some(Ice::Failed) || self.is_mute(endpoint, whole);
        flows.max().or(nothing.then_some((whole, whole)))
    }

    /// The stream of an endpoint, whether it sends, and the latest if there are several.
    #[must_use]
    pub fn stream_of(&self, endpoint: &Endpoint) -> Option<&'a Stream> {
        let received = endpoint.name.strip_prefix(self.id).and_then(|rest| rest.strip_prefix('_'));
        let is_of = |stream: &&&'a Stream| match stream.outbound {
            true => stream.id == endpoint.name,
            false => received == Some(&*stream.id),
        };
        self.streams.iter().rev().find(is_of).copied()
    }
}

/// The object `quality` of a stream that ended at `end`; `None`: nobody has told anything.
pub(super) fn of_stream(person: &Person<'_>, stream: &Stream, end: i64) -> Option<String> {
    let endpoint = person.endpoint_of(stream);
    let mut total = endpoint.map(Endpoint::total).unwrap_or_default();
    person.reported_of(Some(stream)).for_each(|reported| total.merge(&reported.total()));
    let mut json = Object::with_capacity(320);
    figures(&mut json, &total);
    let Some(endpoint) = endpoint else { return some(json) };
    if let Some(after) = endpoint.first_media {
        json.integer("firstMediaMs", after);
    }
    json.text_if("ice", endpoint.ice().map(Ice::name));
    if let Some((_, pair)) = endpoint.pair {
        json.text_if("localType", pair.local.map(CandidateKind::name));
        json.text_if("remoteType", pair.remote.map(CandidateKind::name));
        json.text_if("transport", pair.transport.map(Transport::name));
    }
    if let Some((without, whole)) = person.silence(endpoint, stream.start, end) {
        json.number("noMediaPercent", percent(without, whole));
    }
    some(json)
}

/// The object `quality` of a session whose last fact is of `end`.
pub(super) fn of_session(incarnation: &Incarnation<'_>, end: i64) -> Option<String> {
    let (mut total, mut first_media) = (Total::default(), Spread::default());
    let (mut endpoints, mut failed, mut paired, mut relayed) = (0, 0, 0, 0);
    let (mut without, mut whole) = (0, 0);
    for person in &incarnation.connections {
        person.reported.iter().for_each(|(_, reported)| total.merge(&reported.total()));
        for endpoint in &person.connection.endpoints {
            endpoints += 1;
            total.merge(&endpoint.total());
            endpoint
                .first_media
                .and_then(|after| u64::try_from(after).ok())
                .into_iter()
                .for_each(|after| first_media.add(after * 1000));
            failed += i64::from(endpoint.ice() == Some(Ice::Failed));
            if let Some((_, pair)) = endpoint.pair {
                paired += 1;
                relayed += i64::from(pair.is_relayed());
            }
            let (own_start, own_end) = person.span(person.stream_of(endpoint));
            if let Some((silent, all)) = person.silence(endpoint, own_start, own_end.unwrap_or(end))
            {
                without += silent;
                whole += all;
            }
        }
    }
    let mut json = Object::with_capacity(320);
    figures(&mut json, &total);
    spread(&mut json, ("firstMediaMs", "firstMediaMsP95"), &first_media);
    if whole > 0 {
        json.number("noMediaPercent", percent(without, whole));
    }
    if endpoints > 0 {
        json.integer("endpoints", endpoints);
        json.integer("iceFailed", failed);
    }
    if paired > 0 {
        json.number("relayedPercent", percent(relayed, paired));
    }
    some(json)
}

fn figures(json: &mut Object, total: &Total) {
    if let Some(loss) = total.loss {
        json.number("lossPercent", rounded(Loss::percent(loss)));
    }
    spread(json, ("jitterMs", "jitterMsP95"), &total.jitter);
    spread(json, ("rttMs", "rttMsP95"), &total.round_trip);
}

fn spread(json: &mut Object, (mean, most): (&str, &str), spread: &Spread) {
    if let (Some(middle), Some(top)) = (spread.mean(), spread.percentile(MOST)) {
        json.number(mean, millis(middle));
        json.number(most, millis(top));
    }
}

/// Microseconds as milliseconds, to a tenth.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "at most some minutes")]
pub(super) fn millis(micros: u64) -> f64 {
    (micros as f64 / 100.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn percent(part: i64, whole: i64) -> f64 {
    if whole == 0 { 0.0 } else { rounded(100.0 * part as f64 / whole as f64) }
}

fn rounded(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

fn some(json: Object) -> Option<String> {
    Some(json.finish()).filter(|json| json != "{}")
}
