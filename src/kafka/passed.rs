//! What has become of the offsets that a lane has passed: each is that of a record with an outcome, of a record that brokers have
//! deleted before it was read, or of none.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::intake::input;
use crate::lane::Item;
use crate::record::{Input, Position, Positions};

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
    /// order. `firsts`: of records with offsets before them that held none, the oldest offset that was there when they were read.
    pub(super) fn pass(
        &mut self,
        (topics, partition): (&[String], i32),
        positions: &Positions,
        items: &[Item],
        firsts: &BTreeMap<Position, u64>,
    ) {
        for topic in topics {
            let known = input(topic, partition);
            let own = items.iter().map(Item::record).filter(|read| read.position.input == known);
            let mut passed = None;
            for record in own {
                let offset = record.position.offset;
                if passed != Some(offset) {
                    let first = firsts.get(&record.position).map(|first| (*first).min(offset));
                    if !self.began.knows(&known) {
                        self.began.advance(&known, first.unwrap_or(offset));
                    }
                    let next = passed.unwrap_or_else(|| self.next(positions, &known));
                    self.without((topic, partition), next..offset, first.unwrap_or(next));
                }
                passed = Some(record.next_offset);
            }
        }
    }

    /// Counts what lies between the offset to go on from and `first`, the oldest one that is still there, and goes on from there: it
    /// may be long before another record comes. Whether anything has changed.
    pub(super) fn go_on(
        &mut self,
        (topic, partition): (&str, i32),
        positions: &mut Positions,
        first: u64,
    ) -> bool {
        let known = input(topic, partition);
        if !self.began.knows(&known) {
            self.began.advance(&known, first);
            positions.advance(&known, first);
            return true;
        }
        let next = self.next(positions, &known);
        self.without((topic, partition), next..first, first);
        positions.advance(&known, first);
        first > next
    }

    /// Counts the offsets up to `end`, of which it is known that they hold no record, and goes on from there.
    pub(super) fn go_on_empty(
        &mut self,
        (topic, partition): (&str, i32),
        positions: &mut Positions,
        end: u64,
    ) {
        let known = input(topic, partition);
        self.empty += end.saturating_sub(self.next(positions, &known));
        positions.advance(&known, end);
    }

    /// Counts offsets at which no record was found. `first`: the oldest offset that was there.
    fn without(&mut self, place: (&str, i32), offsets: Range<u64>, first: u64) {
        let Range { start, end } = offsets;
        if start >= end {
            return;
        }
        // Producers that have left marks before have left that one.
        let is_mark = end == start + 1 && self.empty > 0;
        let first = if is_mark { start } else { first.clamp(start, end) };
        tell(place, start..first);
        self.missed += first - start;
        self.empty += end - first;
    }

    /// The offset to go on from.
    pub(super) fn next(&self, positions: &Positions, known: &Input) -> u64 {
        positions.next(known).max(self.began.next(known))
    }
}

/// Tells which records were deleted before they were read.
pub(super) fn tell((topic, partition): (&str, i32), missed: Range<u64>) {
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
    use crate::record::Record;

    fn items(offsets: &[u64]) -> Vec<Item> {
        let record = |offset: &u64| Record {
            position: Position { input: input("t", 3), offset: *offset },
            next_offset: offset + 1,
            source: "default".into(),
            payload: Bytes::new(),
        };
        offsets.iter().map(record).map(Item::Record).collect()
    }

    /// Began at 10; read up to there before; offsets read now; of one the oldest offset when it was read: missed and empty.
    #[test]
    fn every_offset_is_counted_once() {
        for (before, read, (at, first), expected) in [
            (0, &[10, 11, 12][..], (10, 0), (0, 0)),
            (0, &[14, 15], (14, 14), (4, 0)),
            (0, &[14, 15], (14, 12), (2, 2)),
            (0, &[14, 15], (14, 3), (0, 4)),
            (20, &[20, 22, 25], (25, 10), (0, 3)),
            (20, &[20, 22, 25], (25, 25), (2, 1)),
            (20, &[20, 30, 31], (30, 29), (8, 1)),
            (20, &[21, 22], (0, 0), (0, 1)),
            (20, &[21, 22], (21, 21), (1, 0)),
            (20, &[22, 24], (24, 24), (0, 3)),
            (20, &[30], (30, 40), (10, 0)),
            (20, &[], (0, 0), (0, 0)),
        ] {
            let mut passed = Passed::default();
            passed.began.advance(&input("t", 3), 10);
            let mut positions = Positions::default();
            positions.advance(&input("t", 3), before);
            let topics = ["other".to_owned(), "t".to_owned()];
            let firsts = [(Position { input: input("t", 3), offset: at }, first)].into();
            passed.pass((&topics, 3), &positions, &items(read), &firsts);
            assert_eq!((passed.missed, passed.empty), expected, "{before} {read:?} {first}");
        }
    }

    #[test]
    fn who_begins_misses_nothing_of_before() {
        for (first, began) in [(0, 0), (7, 7), (9, 9), (12, 9)] {
            let mut passed = Passed::default();
            let firsts = [(Position { input: input("t", 3), offset: 9 }, first)].into();
            let topics = ["t".to_owned()];
            passed.pass((&topics, 3), &Positions::default(), &items(&[9, 10]), &firsts);
            assert_eq!(passed.next(&Positions::default(), &input("t", 3)), began, "{first}");
            assert_eq!((passed.missed, passed.empty), (0, 9 - began), "{first}");
        }
        let (mut passed, mut positions) = (Passed::default(), Positions::default());
        assert!(passed.go_on(("t", 3), &mut positions, 9));
        assert_eq!(passed.next(&positions, &input("t", 3)), 9);
        assert_eq!((passed.missed, passed.empty), (0, 0));
    }

    /// Began at 10; read up to there before; offsets without a record before; the oldest one that is there: what is gone on from,
    /// missed and empty.
    #[test]
    fn what_was_deleted_is_counted_though_nothing_comes_later() {
        for (before, empty, first, expected) in [
            (0, 0, 10, (10, 0, 0)),
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
            let next = passed.next(&positions, &input("t", 3));
            assert_eq!(
                (next.max(before), passed.missed, passed.empty),
                expected,
                "{before} {empty} {first}"
            );
            assert_eq!(goes_on, next > before.max(10));
            assert!(!passed.go_on(("t", 3), &mut positions, first));
            passed.go_on_empty(("t", 3), &mut positions, next + 2);
            assert_eq!((passed.missed, passed.empty), (expected.1, expected.2 + 2));
            assert_eq!(positions.next(&input("t", 3)), next + 2);
        }
    }
}
