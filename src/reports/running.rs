//! Counters made of what reports tell of each second.

use std::collections::BTreeMap;
use std::sync::Mutex;

use foldhash::{HashMap, HashMapExt};

use super::GROWING;

/// Streams that are counted in each of two generations: the older one is dropped when the newer is full.
const STREAMS_MAX: usize = 20_000;
/// The longest time that one report can be about, in milliseconds: after a longer silence it is about its own last second.
const SPAN_MAX: i64 = 60_000;

/// What streams came to so far. Kept in memory: after a restart it begins anew, like the counters of a browser that reconnects.
#[derive(Debug, Default)]
pub struct Running(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    recent: HashMap<u64, Sums>,
    older: HashMap<u64, Sums>,
}

#[derive(Debug, Clone, Default)]
struct Sums {
    /// When it was told last, milliseconds since 1970.
    at: i64,
    by_name: BTreeMap<&'static str, f64>,
}

impl Running {
    /// Makes counters of the figures that tell what there was in each second since the last report on `stream`.
    pub(super) fn add(&self, stream: u64, at: i64, figures: &mut BTreeMap<&'static str, f64>) {
        let mut generations = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let generations = &mut *generations;
        let known =
            generations.recent.remove(&stream).or_else(|| generations.older.remove(&stream));
        let mut sums = known.unwrap_or_default();
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
        if generations.recent.len() >= STREAMS_MAX {
            generations.older = std::mem::replace(&mut generations.recent, HashMap::new());
        }
        generations.recent.insert(stream, sums);
    }
}
