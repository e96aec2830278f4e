//! Counters made of what reports tell of each second.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::GROWING;
use crate::recent::Recent;

/// The longest time that one report can be about, in milliseconds: after a longer silence it is about its own last second.
const SPAN_MAX: i64 = 60_000;

/// What streams came to so far. Kept in memory: after a restart it begins anew, like the counters of a browser that reconnects.
#[derive(Debug, Default)]
pub struct Running(Mutex<Recent<Sums, 20_000>>);

#[derive(Debug, Clone, Default)]
struct Sums {
    /// When it was told last, milliseconds since 1970.
    at: i64,
    by_name: BTreeMap<&'static str, f64>,
}

impl Running {
    /// Makes counters of the figures that tell what there was in each second since the last report on `stream`.
    pub(super) fn add(&self, stream: u64, at: i64, figures: &mut BTreeMap<&'static str, f64>) {
        let mut streams = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
