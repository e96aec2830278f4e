//! What is remembered of those who report: how far their clocks are from ours, and counters made of what they tell of each second.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::GROWING;
use crate::recent::Recent;

/// How far a browser's clock may be from ours; beyond, ours counts. Milliseconds.
const SKEW_MAX: i64 = 60_000;
/// The longest time that one report can be about, in milliseconds: after a longer silence it is about its own last second.
const SPAN_MAX: i64 = 60_000;

/// What streams came to so far, and by how much clocks are wrong. Kept in memory: after a restart it begins anew, like the counters of a
/// browser that reconnects.
#[derive(Debug, Default)]
pub struct Running {
    sums: Mutex<Recent<Sums, 20_000>>,
    /// Milliseconds that are added to what a browser tells.
    clocks: Mutex<Recent<i64, 20_000>>,
    /// The same of sessions whose platform has a clock that is ahead.
    platforms: Mutex<Recent<i64, 20_000>>,
}

#[derive(Debug, Clone, Default)]
struct Sums {
    /// When it was told last, milliseconds since 1970.
    at: i64,
    by_name: BTreeMap<&'static str, f64>,
}

impl Running {
    /// When a report on `stream` was made that came at `came`: as it says, unless its clock is far off. Then it is as far off as it was
    /// the first time, so that a report which comes twice, or late, is of the same time.
    pub(super) fn time(&self, stream: u64, told: Option<i64>, came: i64) -> i64 {
        let is_near = |time: &i64| time.abs_diff(came) <= SKEW_MAX.unsigned_abs();
        let Some(told) = told else { return came };
        if is_near(&told) {
            return told;
        }
        let mut clocks = self.clocks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = clocks.get_mut(stream).map(|off| told.saturating_add(*off));
        known.filter(is_near).unwrap_or_else(|| {
            clocks.insert(stream, came.saturating_sub(told));
            came
        })
    }

    /// By how much the platform's clock is ahead, milliseconds, where a session's newest event seems to come after `came`: what is
    /// reported after it was no earlier.
    pub fn ahead(&self, session: u64, newest: i64, came: i64) -> i64 {
        let off = newest.saturating_sub(came);
        let mut platforms =
            self.platforms.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = platforms.get_mut(session).map_or(0, |off| *off);
        if off > SKEW_MAX.max(known) {
            platforms.insert(session, off);
            return off;
        }
        known
    }

    /// Makes counters of the figures that tell what there was in each second since the last report on `stream`.
    pub(super) fn add(&self, stream: u64, at: i64, figures: &mut BTreeMap<&'static str, f64>) {
        let mut streams = self.sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sums = streams.get_or_default(stream);
        let since = at.saturating_sub(sums.at);
        // One that was told before the last is about a time that is counted.
        let is_next = (1..=SPAN_MAX).contains(&since);
        let span = if is_next { since } else { 1_000 };
        #[expect(clippy::cast_precision_loss, reason = "at most a minute")]
        let seconds = span as f64 / 1_000.0;
        for (name, figure) in figures.iter_mut().filter(|(name, _)| GROWING.contains(name)) {
            let sum = sums.by_name.entry(name).or_default();
            if since > 0 {
                *sum += *figure * seconds;
            }
            *figure = *sum;
        }
        sums.at = sums.at.max(at);
    }
}
