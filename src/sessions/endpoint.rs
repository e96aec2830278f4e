//! What is known of one endpoint: one end of media in the media server, whose other end is a browser.
//!
//! Each part of it is a function of the set of what was told: the smallest, the greatest, a sum of facts. What is told is
//! bounded: of the flow of one kind of media the earliest changes count.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sketch::{Counters, Loss, Reading, Spread};
use super::state::{Facts, keep_greater, keep_smaller};
use crate::event::{self, Aspect, Media, Pair, Side};

/// Parts of one endpoint whose states are told apart: ICE components and kinds of media in both directions.
const PARTS_MAX: usize = 32;
/// Changes of the flow of one kind of media that are kept.
const CHANGES_MAX: usize = 256;

/// What the media server calls the endpoint of a stream: by the stream's id where it is sent, by receiver and stream otherwise.
#[must_use]
pub fn endpoint_name<'s>(connection_id: &str, outbound: bool, stream_id: &'s str) -> Cow<'s, str> {
    if outbound {
        Cow::Borrowed(stream_id)
    } else {
        Cow::Owned(format!("{connection_id}_{stream_id}"))
    }
}

/// What is known of one endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The media server's name for it.
    pub name: Box<str>,
    /// Facts about it.
    pub facts: Facts,
    /// Where ICE and media stand, by ICE component or kind of media.
    pub states: BTreeMap<(Aspect, Box<str>), State>,
    /// The pair of candidates that was selected last, and when.
    pub pair: Option<(i64, Pair)>,
    /// Milliseconds from its creation to its first media.
    pub first_media: Option<i64>,
    /// What was measured, by whom, of which kind of media.
    pub measured: BTreeMap<(Side, Media), Measured>,
    /// Newest time among its facts.
    pub newest: i64,
    /// Whether there was more to keep than there is room for.
    pub truncated: bool,
    /// Changed since it was saved last.
    #[serde(skip)]
    pub unsaved: bool,
}

/// What one component or kind of media of an endpoint went through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Greatest (time, state): where it stands.
    pub last: Option<(i64, Box<str>)>,
    /// The earliest changes of media, in the order of (time, whether it flows since).
    changes: Vec<(i64, bool)>,
}

/// What was measured of one kind of media.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Microseconds.
    pub jitter: Spread,
    /// Microseconds to the other end and back.
    pub round_trip: Spread,
    /// Packets, where they are counted since the endpoint was made.
    packets: Counters,
    /// Packets, where it is told how many there were in each second: one second of each report, as all browsers of a platform
    /// report in steps of one length.
    rates: Option<Loss>,
}

impl Measured {
    /// How many packets were lost of how many. `None`: nobody has told.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        let told = [self.packets.loss(), self.rates];
        told.into_iter().flatten().reduce(Loss::and)
    }
}

impl Endpoint {
    /// Merges what is told of it at `time`, which was not told before.
    pub fn merge(&mut self, time: i64, told: &event::Told<'_>) {
        self.newest = self.newest.max(time);
        match told {
            event::Told::State(state) => {
                let key = (state.aspect, state.part.as_ref().into());
                if self.states.len() >= PARTS_MAX && !self.states.contains_key(&key) {
                    self.truncated = true;
                    return;
                }
                let is_first = state.aspect != Aspect::Ice && state.state == "FLOWING";
                if let Some(after) = state.after.filter(|after| is_first && *after >= 0) {
                    keep_smaller(&mut self.first_media, after);
                }
                self.truncated |= !self.states.entry(key).or_default().merge(time, &state.state);
            }
            event::Told::Pair(pair) => keep_greater(&mut self.pair, (time, *pair)),
            event::Told::Stats(stats) => {
                let measured = self.measured.entry((stats.side, stats.media)).or_default();
                stats.jitter.into_iter().for_each(|jitter| measured.jitter.add(jitter));
                stats.round_trip.into_iter().for_each(|trip| measured.round_trip.add(trip));
                if stats.packets.passed().is_some() {
                    measured.packets.add(Reading { time, packets: stats.packets });
                }
                if let Some((_, loss)) = stats.rates.loss() {
                    measured.rates = measured.rates.into_iter().chain([loss]).reduce(Loss::and);
                }
            }
        }
    }

    /// Whether packets have passed by what was measured.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.measured.values().any(|measured| measured.loss().is_some_and(|loss| loss.of > 0))
    }

    /// Whether more packets have passed after `time`, milliseconds since 1970.
    #[must_use]
    pub fn has_passed_since(&self, time: i64) -> bool {
        self.measured.values().any(|measured| measured.packets.has_grown_since(time))
    }

    /// Whether there is a way for media, and nothing was ever seen to come over it.
    #[must_use]
    pub fn is_mute(&self) -> bool {
        let has_flown = self.flows().any(|(_, state)| state.has_flown());
        self.ice() == Some(Ice::Connected) && !has_flown && self.measured.is_empty()
    }

    /// States of media, whatever its kind and direction.
    pub fn flows(&self) -> impl Iterator<Item = (&str, &State)> {
        let flows = self.states.iter().filter(|((aspect, _), _)| *aspect != Aspect::Ice);
        flows.map(|((_, part), state)| (part.as_ref(), state))
    }

    /// What became of ICE.
    #[must_use]
    pub fn ice(&self) -> Option<Ice> {
        self.ice_since().map(|(_, ice)| ice)
    }

    /// What became of ICE, and when, milliseconds since 1970.
    #[must_use]
    pub fn ice_since(&self) -> Option<(i64, Ice)> {
        let mut components = self.states.iter().filter(|((aspect, _), _)| *aspect == Aspect::Ice);
        // The first component carries the media. Kurento has a second one for RTCP, which browsers send with the media, so that it
        // is never connected.
        let (_, first) = components.next()?;
        let (at, state) = first.last.as_ref()?;
        let ice = match state.as_ref() {
            "FAILED" => Ice::Failed,
            "DISCONNECTED" => Ice::Disconnected,
            "CONNECTED" | "READY" => Ice::Connected,
            _ => Ice::Connecting,
        };
        Some((*at, ice))
    }

    /// All that was measured of it.
    #[must_use]
    pub fn total(&self) -> Total {
        let mut total = Total::default();
        for measured in self.measured.values() {
            total.add(measured);
        }
        total
    }
}

/// What became of ICE at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ice {
    /// There is a way for media.
    Connected,
    /// None was found yet.
    Connecting,
    /// It was lost.
    Disconnected,
    /// There is none.
    Failed,
}

impl Ice {
    /// As documents name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Disconnected => "disconnected",
            Self::Failed => "failed",
        }
    }
}

/// What was measured of several kinds of media or endpoints together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Total {
    /// Microseconds.
    pub jitter: Spread,
    /// Microseconds to the other end and back.
    pub round_trip: Spread,
    /// Packets. `None`: nobody has told.
    pub loss: Option<Loss>,
}

impl Total {
    fn add(&mut self, measured: &Measured) {
        self.jitter.merge(&measured.jitter);
        self.round_trip.merge(&measured.round_trip);
        self.lose(measured.loss());
    }

    /// All of `other` as well.
    pub fn merge(&mut self, other: &Self) {
        self.jitter.merge(&other.jitter);
        self.round_trip.merge(&other.round_trip);
        self.lose(other.loss);
    }

    fn lose(&mut self, more: Option<Loss>) {
        self.loss = self.loss.into_iter().chain(more).reduce(Loss::and);
    }
}

impl State {
    /// Merges one state. `false` if not all of it can be kept.
    fn merge(&mut self, time: i64, state: &str) -> bool {
        if self.last.as_ref().is_none_or(|(at, known)| (time, state) > (*at, known.as_ref())) {
            self.last = Some((time, state.into()));
        }
        let change = match state {
            "FLOWING" => (time, true),
            "NOT_FLOWING" => (time, false),
            _ => return true,
        };
        if let Err(at) = self.changes.binary_search(&change) {
            self.changes.insert(at, change);
        }
        let fits = self.changes.len() <= CHANGES_MAX;
        self.changes.truncate(CHANGES_MAX);
        fits
    }

    /// Whether media has ever flown.
    #[must_use]
    pub fn has_flown(&self) -> bool {
        self.changes.iter().any(|(_, flows)| *flows)
    }

    /// Since when media has not been flowing, if it is not.
    #[must_use]
    pub fn stopped(&self) -> Option<i64> {
        let (at, state) = self.last.as_ref()?;
        (state.as_ref() == "NOT_FLOWING").then_some(*at)
    }

    /// Spans in which media had stopped and came back: from when to when, milliseconds since 1970.
    pub fn gaps(&self) -> impl Iterator<Item = (i64, i64)> {
        let begun = self.changes.iter().skip_while(|(_, flows)| !flows);
        let mut stopped = None;
        begun.filter_map(move |(time, flows)| match (flows, stopped) {
            (false, None) => {
                stopped = Some(*time);
                None
            }
            (true, Some(from)) => {
                stopped = None;
                (*time > from).then_some((from, *time))
            }
            _ => None,
        })
    }

    /// Milliseconds without media between its first and `end`, and how long that is. `None`: there has been none. `has_gone_on`:
    /// whether it is known to flow again after that time, though nobody has said so.
    #[must_use]
    pub fn silence(&self, end: i64, has_gone_on: impl Fn(i64) -> bool) -> Option<(i64, i64)> {
        let (first, _) = self.changes.iter().find(|(_, flows)| *flows)?;
        let whole = end.saturating_sub(*first).max(0);
        let gaps: i64 = self.gaps().map(|(from, to)| to.min(end).saturating_sub(from).max(0)).sum();
        let lost = self.stopped().filter(|from| !has_gone_on(*from));
        let lost = lost.map_or(0, |from| end.saturating_sub(from).max(0));
        Some(((gaps + lost).min(whole), whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(changes: &[(i64, &str)]) -> State {
        let mut state = State::default();
        for (time, told) in changes.iter().rev().chain(changes) {
            assert!(state.merge(*time, told));
        }
        state
    }

    #[test]
    fn gaps_lie_between_flow_and_flow() {
        let told = state(&[
            (5, "NOT_FLOWING"),
            (10, "FLOWING"),
            (20, "NOT_FLOWING"),
            (25, "NOT_FLOWING"),
            (30, "FLOWING"),
            (35, "FLOWING"),
            (60, "NOT_FLOWING"),
        ]);
        assert_eq!(told.gaps().collect::<Vec<_>>(), [(20, 30)]);
        assert_eq!(told.stopped(), Some(60));
        assert_eq!(told.silence(110, |_| false), Some((60, 100)));
        assert_eq!(told.silence(25, |_| false), Some((5, 15)));
        assert_eq!(told.silence(110, |from| from == 60), Some((10, 100)), "it went on");
        assert_eq!(state(&[(5, "NOT_FLOWING")]).silence(110, |_| false), None);
        assert_eq!(state(&[(5, "FLOWING")]).silence(110, |_| false), Some((0, 105)));
    }

    #[test]
    fn the_earliest_changes_are_kept() {
        let mut told = State::default();
        let all = (0..400).rev().map(|time| (time, time % 2 == 0));
        for (time, flows) in all {
            told.merge(time, if flows { "FLOWING" } else { "NOT_FLOWING" });
        }
        assert_eq!(told.changes.len(), CHANGES_MAX);
        assert_eq!(told.changes[0], (0, true));
        assert_eq!(told.last, Some((399, "NOT_FLOWING".into())));
    }
}
