//! Figures of a call in little room, whatever the order and however many: how values are spread, and what counters came to.
//!
//! Both are functions of the set of what was put in. [`Spread`] adds, so each value must be put in once; [`Counters`] takes
//! the same reading any number of times.

use serde::{Deserialize, Serialize};

use crate::event::Packets;

/// Bits of a value below its highest one that tell buckets apart: a value lies within 1/16 of any other of its bucket.
const DETAIL: u32 = 4;

/// How values are spread: how many lie in each of buckets that grow with the values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Bucket and count, in the order of the buckets.
    counts: Vec<(u16, u32)>,
    sum: u64,
}

impl Spread {
    /// Adds a value.
    pub fn add(&mut self, value: u64) {
        let bucket = bucket(value);
        match self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => {
                if let Some((_, count)) = self.counts.get_mut(at) {
                    *count = count.saturating_add(1);
                }
            }
            Err(at) => self.counts.insert(at, (bucket, 1)),
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// All values of `other` as well.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in &other.counts {
            match self.counts.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
                Ok(at) => {
                    if let Some((_, count)) = self.counts.get_mut(at) {
                        *count = count.saturating_add(*more);
                    }
                }
                Err(at) => self.counts.insert(at, (*bucket, *more)),
            }
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Their mean, exact.
    #[must_use]
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count())
    }

    /// The value that so many of a hundred do not exceed, within 1/32.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.counts.iter().find(|(_, count)| {
            seen += u64::from(*count);
            seen >= rank
        });
        found.map(|(bucket, _)| middle(*bucket))
    }
}

fn bucket(value: u64) -> u16 {
    let highest = u64::BITS - value.leading_zeros();
    let shift = highest.saturating_sub(DETAIL + 1);
    // Below 2^(DETAIL+1) each value has a bucket; above, each power of two has 2^DETAIL.
    let detail = u16::try_from(value >> shift).unwrap_or(u16::MAX);
    u16::try_from(shift << DETAIL).unwrap_or(0) + detail
}

fn middle(bucket: u16) -> u64 {
    let shift = (u32::from(bucket) >> DETAIL).saturating_sub(1);
    let detail = u64::from(bucket) - (u64::from(shift) << DETAIL);
    (detail << shift) + ((1 << shift) >> 1)
}

/// Counters of media at one moment, as they stood since the endpoint was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reading {
    /// Milliseconds since 1970.
    pub time: i64,
    /// Since the endpoint began to count.
    pub packets: Packets,
}

impl Packets {
    /// How many have passed, where that is told.
    #[must_use]
    pub fn passed(&self) -> Option<u64> {
        self.received.or(self.sent)
    }

    /// How many have passed, and what was lost, in the unit that they are told in.
    pub(super) fn loss(&self) -> Option<(u64, Loss)> {
        let (lost, passed) = (self.lost?, self.passed()?);
        let of = if self.received.is_some() { passed.saturating_add(lost) } else { passed };
        Some((passed, Loss { lost, of }))
    }
}

/// Readings that are kept of one endpoint and media type.
const READINGS_MAX: usize = 32;

/// What counters came to, through resets: an endpoint that reconnects begins to count anew.
///
/// Kept is the last reading of each span. Spans have one length, the shortest power of two at which there are not too many, so
/// what is kept depends on the set of readings alone. A reset is seen if a span ends between its two sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Binary logarithm of a span's length in milliseconds.
    span: u8,
    /// In the order of time.
    kept: Vec<Reading>,
}

impl Counters {
    /// Adds a reading.
    pub fn add(&mut self, reading: Reading) {
        let at = self.kept.partition_point(|known| *known < reading);
        self.kept.insert(at, reading);
        self.thin();
        while self.kept.len() > READINGS_MAX {
            self.span += 1;
            self.thin();
        }
    }

    fn thin(&mut self) {
        let span = self.span;
        // The later of two takes the place of the earlier one.
        self.kept.dedup_by(|later, kept| {
            let is_same = later.time >> span == kept.time >> span;
            if is_same {
                *kept = *later;
            }
            is_same
        });
    }

    /// How many packets were lost of how many. `None`: nobody has told.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        let mut all = Loss::default();
        let mut last: Option<(u64, Loss)> = None;
        for (passed, own) in self.kept.iter().filter_map(|reading| reading.packets.loss()) {
            // What has passed can only grow: where it has fallen, it was counted anew from nothing. What was lost can fall, as
            // packets that come late were counted as lost (RFC 3550, 6.4.1).
            if let Some((_, whole)) = last.filter(|(known, _)| passed < *known) {
                all = all.and(whole);
            }
            last = Some((passed, own));
        }
        let all = all.and(last?.1);
        Some(Loss { lost: all.lost.saturating_mul(1_000), of: all.of.saturating_mul(1_000) })
    }

    /// Whether packets have passed after `time`, milliseconds since 1970, for all that was read before and after it.
    #[must_use]
    pub fn has_grown_since(&self, time: i64) -> bool {
        let passed = |reading: &Reading| reading.packets.passed();
        let before = self.kept.iter().rev().find(|reading| reading.time <= time).and_then(passed);
        let last = self.kept.last().and_then(passed);
        before.zip(last).is_some_and(|(before, last)| last > before)
    }
}

/// Packets that were lost, of all that were sent, in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Those that did not arrive.
    pub lost: u64,
    /// All.
    pub of: u64,
}

impl Loss {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { lost: self.lost.saturating_add(other.lost), of: self.of.saturating_add(other.of) }
    }

    /// Hundredths; of nothing, 0.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 packets")]
    pub fn percent(self) -> f64 {
        if self.of == 0 { 0.0 } else { 100.0 * self.lost.min(self.of) as f64 / self.of as f64 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(values: &[u64]) -> Spread {
        let mut spread = Spread::default();
        values.iter().for_each(|value| spread.add(*value));
        spread
    }

    fn counters(readings: &[Reading]) -> Counters {
        let mut counters = Counters::default();
        readings.iter().for_each(|reading| counters.add(*reading));
        counters
    }

    fn reading(time: i64, lost: u64, received: u64) -> Reading {
        Reading { time, packets: packets(lost, received) }
    }

    fn loss(lost: u64, of: u64) -> Loss {
        Loss { lost: lost * 1_000, of: of * 1_000 }
    }

    fn packets(lost: u64, received: u64) -> Packets {
        Packets { lost: Some(lost), received: Some(received), sent: None }
    }

    proptest! {
        #[test]
        fn a_spread_is_that_of_its_values(mut values in prop::collection::vec(0_u64..1 << 40, 1..200), cut in any::<prop::sample::Index>(), percent in 1_u64..=100) {
            let whole = spread(&values);
            let (one, other) = values.split_at(cut.index(values.len()));
            let mut merged = spread(other);
            merged.merge(&spread(one));
            prop_assert_eq!(&merged, &whole);
            prop_assert_eq!(whole.mean(), Some(values.iter().sum::<u64>() / values.len() as u64));
            values.sort_unstable();
            let rank = (values.len() as u64 * percent).div_ceil(100).max(1);
            let exact = values[usize::try_from(rank).unwrap() - 1];
            let told = whole.percentile(percent).unwrap();
            prop_assert!(told.abs_diff(exact) <= exact / 16, "{told} for {exact}");
        }

        #[test]
        fn counters_are_those_of_their_readings(
            times in prop::collection::vec((0_i64..10_000_000, 0_u64..50, 0_u64..5000), 1..120),
            seed in any::<u64>(),
        ) {
            let mut readings: Vec<Reading> =
                times.iter().map(|(time, lost, received)| reading(*time, *lost, *received)).collect();
            let whole = counters(&readings);
            prop_assert!(whole.kept.len() <= READINGS_MAX);
            let mut rng = crate::simulate::rng::Rng::new(seed);
            for index in (1..readings.len()).rev() {
                let other = usize::try_from(rng.below(index as u64 + 1)).unwrap();
                readings.swap(index, other);
            }
            let again: Vec<Reading> = readings.iter().chain(&readings).copied().collect();
            prop_assert_eq!(counters(&again), whole);
        }

        #[test]
        fn what_only_grows_comes_to_its_last_reading(steps in prop::collection::vec((1_i64..60_000, 0_u64..20, 1_u64..1000), 1..200)) {
            let (mut time, mut lost, mut received) = (1_700_000_000_000, 0, 0);
            let mut all = Counters::default();
            for (span, more_lost, more) in steps {
                (time, lost, received) = (time + span, lost + more_lost, received + more);
                all.add(reading(time, lost, received));
            }
            prop_assert_eq!(all.loss(), Some(loss(lost, lost + received)));
        }
    }

    #[test]
    fn a_reset_begins_anew() {
        let told = counters(&[
            reading(0, 1, 100),
            reading(30_000, 10, 1000),
            reading(60_000, 2, 300),
            reading(90_000, 3, 500),
        ]);
        assert_eq!(told.loss(), Some(loss(13, 1513)));
        assert_eq!(Counters::default().loss(), None);
        let told = |packets| counters(&[Reading { time: 1, packets }]);
        let sent = Packets { lost: Some(5), received: None, sent: Some(100) };
        assert_eq!(told(sent).loss().map(Loss::percent), Some(5.0));
        let nothing = Packets { sent: Some(9), ..Packets::default() };
        assert_eq!(told(nothing).loss(), None);
    }

    #[test]
    fn who_goes_on_is_known_by_two_readings() {
        let told = counters(&[reading(10_000, 0, 100), reading(40_000, 0, 900)]);
        assert!(told.has_grown_since(20_000));
        assert!(!told.has_grown_since(40_000));
        assert!(!told.has_grown_since(5_000), "of what was before nothing is known");
    }

    #[test]
    fn packets_that_come_late_were_not_lost() {
        let at = |at: u32| {
            reading(i64::from(at) * 30_000, u64::from(20 * (at % 2)), u64::from(150 * at))
        };
        let told: Vec<Reading> = (1..=20).map(at).collect();
        assert_eq!(counters(&told[..19]).loss(), Some(loss(20, 2870)));
        assert_eq!(counters(&told).loss(), Some(loss(0, 3000)));
    }

    #[test]
    fn small_values_are_exact() {
        for value in 0..32 {
            assert_eq!(middle(bucket(value)), value);
        }
        for value in [0, 31, 32, 33, 1000, u64::from(u32::MAX), u64::MAX] {
            assert!(middle(bucket(value)).abs_diff(value) <= value / 32 + 1, "{value}");
        }
    }
}
