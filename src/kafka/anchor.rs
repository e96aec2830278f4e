//! Anchors: whether a topic is still the one that was read from.
//!
//! Brokers tell a topic from one that was deleted and made anew under its name by an id that the client does not show. If the new
//! one has grown beyond the offset to go on from, reading goes on as if nothing had been. But the first record of a time stands
//! at one offset for as long as the topic is the same, or is gone together with all before it; and where none of a time was
//! there, none comes before the end of then. The time is that of the last record that was read, by whoever it was, by which
//! a topic is noticed whose records are older, and the one after it, by which one is whose records are newer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::topic_partition_list::Offset;

use super::KafkaError;

/// How often anchors are looked at, and how long that may keep from reading.
const LOOK: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));
/// How often in a row something else has to be found: brokers whose leader has changed may know less for a moment.
const FINDINGS: u32 = 2;

/// Where the first record of some time stood in each partition.
#[derive(Debug)]
pub(super) struct Anchors {
    /// How much later than the last record that was read, milliseconds.
    later: i64,
    known: HashMap<(String, i32), Anchor>,
    /// When it was last looked; not yet while nothing was read.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Anchor {
    /// Milliseconds since 1970.
    time: i64,
    stood: Stood,
    /// How often in a row something else was found there.
    findings: u32,
}

/// Where the first record of a time stood.
#[derive(Debug, Clone, Copy)]
enum Stood {
    At(i64),
    /// Not before this offset, at which the partition ended.
    NotBefore(i64),
}

/// The last record of a partition that was read.
#[derive(Debug, Clone)]
pub(super) struct Newest {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Offset behind it.
    pub(super) next: i64,
    /// Milliseconds since 1970.
    pub(super) time: i64,
}

impl Anchors {
    /// At the time of the last record that was read, and at the one after it.
    pub(super) fn both() -> [Self; 2] {
        [0, 1].map(|later| Self { later, known: HashMap::new(), looked: None })
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= LOOK.0)
    }

    /// Looks at partitions, and drops the first anchor where there is none yet.
    ///
    /// # Errors
    ///
    /// If a topic is another one by now.
    pub(super) fn look<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        newest: Vec<Newest>,
    ) -> Result<(), KafkaError> {
        let mut asked = TopicPartitionList::new();
        let mut drops = HashMap::new();
        for Newest { topic, partition, next, time } in newest {
            let place = (topic, partition);
            let time = self.known.get(&place).map_or(time + self.later, |anchor| anchor.time);
            // Fails for offsets that cannot be, and there are none. As an offset it asks for a time.
            let _added = asked.add_partition_offset(&place.0, partition, Offset::Offset(time));
            drops.insert(place, (time, next));
        }
        if drops.is_empty() {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let told = match consumer.offsets_for_times(asked, LOOK.1) {
            Ok(told) => told,
            Err(error) => {
                tracing::debug!(error = %error, "looking whether topics are the same");
                return Ok(());
            }
        };
        for element in told.elements().iter().filter(|element| element.error().is_ok()) {
            let place = (element.topic().to_owned(), element.partition());
            let found = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let first = || {
                let bounds = consumer.fetch_watermarks(&place.0, place.1, LOOK.1);
                bounds.map(|(first, _)| first).ok()
            };
            if self.finds(&place, drops.get(&place).copied(), found, first) {
                let (topic, partition) = place;
                return Err(KafkaError::made_anew(&format!(
                    "partition {partition} of {topic} holds other records than were read from it"
                )));
            }
        }
        Ok(())
    }

    /// Takes in where the first record of a time stands. `drop`: that time, and the offset behind what was read, for the anchor where
    /// there is none; `first`: offset of the oldest record, if it is told. Whether the partition is another one.
    fn finds(
        &mut self,
        place: &(String, i32),
        drop: Option<(i64, i64)>,
        found: Option<i64>,
        first: impl FnOnce() -> Option<i64>,
    ) -> bool {
        let Some(anchor) = self.known.get_mut(place) else {
            let Some((time, next)) = drop else { return false };
            let stood = found.map_or(Stood::NotBefore(next), Stood::At);
            // Of a topic whose records are newer, whatever stands first of all would be found where it was.
            if self.later == 0 || !matches!(stood, Stood::At(0)) {
                tracing::debug!(topic = place.0, partition = place.1, ?stood, "anchored");
                self.known.insert(place.clone(), Anchor { time, stood, findings: 0 });
            }
            return false;
        };
        let offset = match (anchor.stood, found) {
            (Stood::At(offset), Some(found)) if found == offset => {
                anchor.findings = 0;
                return false;
            }
            (Stood::NotBefore(end), found) if found.is_none_or(|found| found >= end) => {
                anchor.findings = 0;
                anchor.stood = found.map_or(anchor.stood, Stood::At);
                return false;
            }
            (Stood::At(offset) | Stood::NotBefore(offset), _) => offset,
        };
        let is_before = found.is_some_and(|found| found < offset);
        match first() {
            // It has expired; the next look drops another.
            Some(first) if first > offset && !is_before => {
                self.known.remove(place);
                false
            }
            None if !is_before => false,
            _ => {
                anchor.findings += 1;
                anchor.findings >= FINDINGS
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_whose_first_record_of_a_time_stands_elsewhere_is_another_one() {
        let place = ("t".to_owned(), 0);
        let looks = |looks: &[(Option<i64>, Option<i64>)]| {
            let [_, mut anchors] = Anchors::both();
            let look = |(found, first): &(Option<i64>, Option<i64>)| {
                anchors.finds(&place, Some((7, 4)), *found, || *first)
            };
            looks.iter().map(look).collect::<Vec<_>>()
        };
        let (same, first) = ((Some(5), Some(0)), (Some(5), None));
        // Where it stood, what is there now and what is the oldest.
        for (then, expected) in [
            (&[same, same, same][..], &[false, false, false][..]),
            (&[(Some(2), Some(0)), (Some(2), Some(0))], &[false, true]),
            (&[(Some(9), Some(0)), (Some(9), Some(0))], &[false, true]),
            (&[(None, Some(0)), (None, Some(0))], &[false, true]),
            // For a moment.
            (&[(None, Some(0)), same, (None, Some(0))], &[false, false, false]),
            (&[(None, None), (None, None)], &[false, false]),
            // Expired: there is another anchor then.
            (&[(Some(9), Some(8)), (Some(9), Some(8)), (Some(9), Some(8))], &[false, false, false]),
        ] {
            let all: Vec<_> = [first].iter().chain(then).copied().collect();
            assert_eq!(looks(&all)[1..], *expected, "{then:?}");
        }
        // None is there of that time: none comes before the end of then, wherever the first one stands.
        let none = (None, Some(0));
        for (then, expected) in [
            (&[none, none][..], &[false, false][..]),
            (&[(None, Some(4)), (Some(4), Some(4)), (Some(4), Some(0))], &[false, false, false]),
            (&[(Some(0), Some(0)), (Some(0), Some(0))], &[false, true]),
            (&[(Some(0), Some(0)), none, (Some(0), Some(0))], &[false, false, false]),
            (&[(Some(6), Some(0)), (Some(5), Some(0)), none], &[false, false, true]),
        ] {
            let all: Vec<_> = [none].iter().chain(then).copied().collect();
            assert_eq!(looks(&all)[1..], *expected, "{then:?}");
        }
        // The first record of all is no anchor for what is newer, and one for what is older.
        let start = (Some(0), Some(0));
        assert_eq!(looks(&[start, same, (Some(0), Some(0)), start]), [false, false, false, true]);
        let [mut anchors, _] = Anchors::both();
        let mut look = |found| anchors.finds(&place, Some((7, 4)), found, || Some(0));
        assert_eq!([Some(0), Some(0), None, None].map(&mut look), [false, false, false, true]);
    }
}
