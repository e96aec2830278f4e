//! What has become of the offsets that a lane has passed: each is that of a record with an outcome, of a record that brokers have
//! deleted before it was read, or of none.

use serde::{Deserialize, Serialize};

use super::KafkaError;
use super::intake::input;
use crate::lane::Item;
use crate::record::{Input, Positions};

/// Offsets that a lane has passed, those of records with an outcome left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Where it began to read each input.
    pub began: Positions,
    /// Records that brokers have deleted before they were read.
    pub missed: u64,
    /// Offsets without a record: of marks and of undone records of its producers' transactions.
    pub empty: u64,
}

impl Passed {
    /// Counts what lies between the offset to go on from and the end of `items`, all of them of one partition and read in their
    /// order, and gives how much of it was deleted. `first`: gives the first offset of a topic that is still there.
    ///
    /// # Errors
    ///
    /// If that is not told: then nobody knows any more what was there.
    pub(super) fn pass(
        &mut self,
        (topics, partition): (&[String], i32),
        positions: &Positions,
        items: &[Item],
        first: impl Fn(&str) -> Result<u64, KafkaError>,
    ) -> Result<u64, KafkaError> {
        let before = self.missed;
        for topic in topics {
            let known = input(topic, partition);
            let next = self.next(positions, &known);
            let own = items.iter().map(Item::record).filter(|read| read.position.input == known);
            let (mut found, mut end, mut count) = (None, next, 0);
            for record in own {
                found.get_or_insert(record.position.offset);
                end = record.next_offset;
                count += 1;
            }
            let without = (end - next).saturating_sub(count);
            let Some(found) = found.filter(|_| without > 0) else { continue };
            // A step of one offset is the mark of a transaction, and asked is only where it is more.
            let first = if found > next + 1 { first(topic)?.clamp(next, found) } else { next };
            let missed = first - next;
            tell((topic, partition), next..first);
            self.missed += missed;
            self.empty += without - missed;
        }
        Ok(self.missed - before)
    }

    /// Counts what was deleted between the offset to go on from and `first`, the first one that is still there, and goes on from
    /// there: it may be long before another record comes. Gives how much was deleted; `None`: nothing lies between.
    pub(super) fn go_on(
        &mut self,
        (topic, partition): (&str, i32),
        positions: &mut Positions,
        first: u64,
    ) -> Option<u64> {
        let known = input(topic, partition);
        let next = self.next(positions, &known);
        if first <= next {
            return None;
        }
        positions.advance(&known, first);
        // Producers that have left marks before have left that one.
        if first == next + 1 && self.empty > 0 {
            self.empty += 1;
            return Some(0);
        }
        tell((topic, partition), next..first);
        self.missed += first - next;
        Some(first - next)
    }

    /// The offset to go on from.
    pub(super) fn next(&self, positions: &Positions, known: &Input) -> u64 {
        positions.next(known).max(self.began.next(known))
    }
}

/// Tells which records were deleted before they were read.
pub(super) fn tell((topic, partition): (&str, i32), missed: std::ops::Range<u64>) {
    if !missed.is_empty() {
        tracing::error!(
            topic,
            partition,
            from = missed.start,
            to = missed.end,
            "RECORDS WERE DELETED by the brokers before they were read: let the topic keep them for longer (retention.ms, \
             retention.bytes); `callscope import --to kafka` of the CDR files of that time brings the events back"
        );
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{Position, Record};

    fn items(offsets: &[u64]) -> Vec<Item> {
        let record = |offset: &u64| Record {
            position: Position { input: input("t", 3), offset: *offset },
            next_offset: offset + 1,
            source: "default".into(),
            payload: Bytes::new(),
        };
        offsets.iter().map(record).map(Item::Record).collect()
    }

    /// Began at 10; read up to there before; offsets read now; the first one that is there: missed and empty.
    #[test]
    fn every_offset_is_counted_once() {
        for (before, read, first, expected) in [
            (0, &[10, 11, 12][..], 0, (0, 0)),
            (0, &[14, 15], 14, (4, 0)),
            (0, &[14, 15], 12, (2, 2)),
            (0, &[14, 15], 3, (0, 4)),
            (20, &[20, 22, 25], 10, (0, 3)),
            (20, &[21, 22], 21, (0, 1)),
            (20, &[30], 40, (10, 0)),
            (20, &[], 40, (0, 0)),
        ] {
            let mut passed = Passed::default();
            passed.began.advance(&input("t", 3), 10);
            let mut positions = Positions::default();
            positions.advance(&input("t", 3), before);
            let topics = ["other".to_owned(), "t".to_owned()];
            passed.pass((&topics, 3), &positions, &items(read), |_| Ok(first)).unwrap();
            assert_eq!((passed.missed, passed.empty), expected, "{before} {read:?} {first}");
        }
        let away = |_: &str| Err(KafkaError::away("nobody answers"));
        let (mut passed, topics) = (Passed::default(), ["t".to_owned()]);
        assert!(passed.pass((&topics, 3), &Positions::default(), &items(&[5]), away).is_err());
        assert_eq!(passed, Passed::default());
    }

    /// Began at 10; read up to there before; offsets without a record before; the first one that is there: what is gone on from,
    /// missed and empty.
    #[test]
    fn what_was_deleted_is_counted_though_nothing_comes_later() {
        for (before, empty, first, expected) in [
            (0, 0, 10, (0, 0, 0)),
            (0, 0, 11, (11, 1, 0)),
            (20, 0, 15, (20, 0, 0)),
            (20, 0, 20, (20, 0, 0)),
            (20, 0, 50, (50, 30, 0)),
            (20, 0, 21, (21, 1, 0)),
            (20, 3, 21, (21, 0, 4)),
            (20, 3, 22, (22, 2, 3)),
        ] {
            let mut passed = Passed { empty, ..Passed::default() };
            passed.began.advance(&input("t", 3), 10);
            let mut positions = Positions::default();
            positions.advance(&input("t", 3), before);
            let goes_on = passed.go_on(("t", 3), &mut positions, first);
            let next = positions.next(&input("t", 3));
            assert_eq!((next, passed.missed, passed.empty), expected, "{before} {empty} {first}");
            assert_eq!(goes_on.is_some(), next != before);
            assert_eq!(passed.go_on(("t", 3), &mut positions, first), None);
        }
    }
}
