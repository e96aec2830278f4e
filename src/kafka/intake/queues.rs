//! The queues between reading and folding, one for every lane, and what is known of the partitions that are read.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::lane::Item;
use crate::record::{Input, Position, Record};

/// What was read and is not folded yet.
#[derive(Debug, Default)]
pub(super) struct Queues {
    epoch: u64,
    pub(super) lanes: BTreeMap<i32, Queue>,
    /// The end of each partition as last told, by topic and partition.
    pub(super) ends: HashMap<Input, i64>,
    /// What was read of each.
    pub(super) read: HashMap<Input, Read>,
    /// How far the client has come in each, where it has handed over all that it found before.
    pub(super) come: HashMap<Input, u64>,
    /// How far each is dealt with, and that is saved.
    pub(super) dealt: HashMap<Input, u64>,
}

/// The last record of a partition that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    /// Behind it.
    pub(super) next: u64,
    /// Its time, milliseconds since 1970, if it has one.
    pub(super) time: Option<i64>,
}

/// What was read for a lane.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Waiting>,
    bytes: usize,
    pub(super) is_paused: bool,
}

/// A record that waits for its lane.
#[derive(Debug)]
struct Waiting {
    item: Item,
    before: Before,
}

/// What is known of the offsets between a record and the one that was read before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// There is one at most: the mark of a transaction.
    Nothing,
    /// They are more, or what was read before is not known, and the brokers were not asked yet what is there.
    NotAsked,
    /// Offset of the oldest record when they were asked. What lies before was deleted, unless it held none.
    First(u64),
}

impl Waiting {
    fn position(&self) -> &Position {
        &self.item.record().position
    }
}

/// What came of queueing a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Its lane is full: it is not read any further until there is room again.
    pub(super) is_full: bool,
    /// It has to be asked what is there before it.
    pub(super) asks: bool,
}

/// What is taken out of a queue.
#[derive(Debug, Default)]
pub(in crate::kafka) struct Taken {
    pub(in crate::kafka) items: Vec<Item>,
    /// Of those with offsets before them that held no record, the oldest offset that was there when they were read.
    pub(in crate::kafka) firsts: BTreeMap<Position, u64>,
}

impl Queues {
    /// Begins anew with these lanes.
    pub(super) fn assign(&mut self, epoch: u64, lanes: &BTreeSet<i32>) {
        self.epoch = epoch;
        // One that was held and paused before is so still: librdkafka keeps that.
        let queue = || Queue { is_paused: true, ..Queue::default() };
        self.lanes = lanes.iter().map(|lane| (*lane, queue())).collect();
    }

    /// Holds nothing any more.
    pub(super) fn forget(&mut self) {
        *self = Self { epoch: self.epoch, ..Self::default() };
    }

    /// Queues a record that was read, with its time. Of `bytes_max` each lane has its part. A lane that is not here takes nothing. Where the
    /// record cannot stand, the offset is given from which on it could.
    pub(super) fn push(
        &mut self,
        lane: i32,
        (item, time): (Item, Option<i64>),
        bytes_max: usize,
    ) -> Result<Pushed, u64> {
        let bound = bytes_max / self.lanes.len().max(1);
        if !self.lanes.contains_key(&lane) {
            return Ok(Pushed::default());
        }
        let before = self.reads(item.record(), time)?;
        let Some(queue) = self.lanes.get_mut(&lane) else { return Ok(Pushed::default()) };
        queue.bytes += size(&item);
        queue.items.push_back(Waiting { item, before });
        let is_full = queue.bytes > bound && !queue.is_paused;
        queue.is_paused |= is_full;
        Ok(Pushed { is_full, asks: before == Before::NotAsked })
    }

    /// The lanes that have room again.
    pub(super) fn resumed(&mut self, bytes_max: usize) -> Vec<i32> {
        let bound = bytes_max / self.lanes.len().max(1) / 2;
        let emptied = self.lanes.iter_mut().filter_map(|(lane, queue)| {
            let resumes = queue.is_paused && queue.bytes <= bound;
            queue.is_paused &= !resumes;
            resumes.then_some(*lane)
        });
        emptied.collect()
    }

    /// What was read for the lanes of `epoch`: at most `records_max` records together, and no more once they hold `bytes_max`. Nothing
    /// behind a hole of which it is not known yet what it is.
    pub(super) fn take(
        &mut self,
        epoch: u64,
        records_max: usize,
        bytes_max: usize,
    ) -> BTreeMap<i32, Taken> {
        let mut taken = BTreeMap::new();
        if self.epoch != epoch {
            return taken;
        }
        let filled = self.lanes.values().filter(|queue| !queue.items.is_empty()).count().max(1);
        let (records_max, bytes_max) = (records_max.div_ceil(filled), bytes_max.div_ceil(filled));
        for (lane, queue) in &mut self.lanes {
            let mut bytes = 0;
            let items = Vec::with_capacity(queue.items.len().min(records_max));
            let mut own = Taken { items, firsts: BTreeMap::new() };
            while own.items.len() < records_max
                && bytes < bytes_max
                && queue.items.front().is_some_and(|waiting| waiting.before != Before::NotAsked)
                && let Some(Waiting { item, before }) = queue.items.pop_front()
            {
                bytes += size(&item);
                if let Before::First(first) = before {
                    own.firsts.insert(item.record().position.clone(), first);
                }
                own.items.push(item);
            }
            queue.bytes -= bytes.min(queue.bytes);
            if !own.items.is_empty() {
                taken.insert(*lane, own);
            }
        }
        taken
    }

    /// How far reading has come in `input` if nothing is there any more to be read before that.
    pub(super) fn has_come(&self, input: &Input) -> Option<u64> {
        let come = *self.come.get(input)?;
        let is_waiting = |waiting: &Waiting| waiting.position().input == *input;
        let mut waiting = self.lanes.values().flat_map(|queue| &queue.items);
        (!waiting.any(is_waiting)).then_some(come)
    }

    /// Notes that a record was read, and gives what is known of the offsets before it. One that stands before what was read already is
    /// none of the same partition: that place is given instead.
    fn reads(&mut self, record: &Record, time: Option<i64>) -> Result<Before, u64> {
        let input = &record.position.input;
        let read = self.read.get_mut(input);
        let next = read.as_ref().map(|read| read.next);
        let known = next.max(self.dealt.get(input).copied()).unwrap_or(0);
        if record.position.offset < known {
            return Err(known);
        }
        let own = Read { next: record.next_offset, time };
        match read {
            Some(read) => *read = own,
            None => _ = self.read.insert(input.clone(), own),
        }
        let has_hole = next.is_none_or(|next| record.position.offset > next + 1);
        Ok(if has_hole { Before::NotAsked } else { Before::Nothing })
    }

    /// The partitions of which it has to be asked what is there.
    pub(super) fn not_asked(&self) -> BTreeSet<(i32, Input)> {
        let waiting = self
            .lanes
            .iter()
            .flat_map(|(lane, queue)| queue.items.iter().map(move |waiting| (*lane, waiting)));
        let asks = waiting.filter(|(_, waiting)| waiting.before == Before::NotAsked);
        asks.map(|(lane, waiting)| (lane, waiting.position().input.clone())).collect()
    }

    /// Notes the oldest offset that is there of an input.
    pub(super) fn begins(&mut self, lane: i32, input: &Input, first: u64) {
        let waiting = self.lanes.get_mut(&lane).into_iter().flat_map(|queue| &mut queue.items);
        let own = waiting.filter(|waiting| {
            waiting.before == Before::NotAsked && waiting.position().input == *input
        });
        own.for_each(|waiting| waiting.before = Before::First(first));
    }
}

/// Bytes that an item takes while it waits, what is around it included.
fn size(item: &Item) -> usize {
    item.record().payload.len() + 128
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::input;
    use super::*;

    fn item(topic: &str, offset: u64) -> Item {
        Item::Record(Record {
            position: Position { input: input(topic, 3), offset },
            next_offset: offset + 1,
            source: "default".into(),
            payload: Bytes::from_static(b"1234"),
        })
    }

    fn queues() -> Queues {
        Queues { epoch: 1, lanes: [(3, Queue::default())].into(), ..Queues::default() }
    }

    fn offsets(taken: &BTreeMap<i32, Taken>) -> Vec<u64> {
        let items = taken.values().flat_map(|taken| &taken.items);
        items.map(|item| item.record().position.offset).collect()
    }

    #[test]
    fn nothing_behind_a_hole_is_taken_until_it_is_known_what_it_is() {
        let mut queues = queues();
        let push = |queues: &mut Queues, topic, offset| {
            queues.push(3, (item(topic, offset), None), 10_000).unwrap().asks
        };
        // What stood before the first is not known, and one offset is the mark of a transaction.
        let asks = [5, 6, 8, 11].map(|offset| push(&mut queues, "t", offset));
        assert_eq!(asks, [true, false, false, true]);
        assert_eq!(queues.not_asked(), [(3, input("t", 3))].into());
        assert!(queues.take(1, 9, 9_999).is_empty());
        queues.begins(3, &input("t", 3), 4);
        assert!(push(&mut queues, "u", 0) && push(&mut queues, "t", 20));
        let taken = queues.take(1, 9, 9_999);
        assert_eq!(offsets(&taken), [5, 6, 8, 11]);
        let firsts: Vec<_> =
            taken[&3].firsts.iter().map(|(at, first)| (at.offset, *first)).collect();
        assert_eq!(firsts, [(5, 4), (11, 4)]);
        queues.begins(3, &input("u", 3), 0);
        assert_eq!(offsets(&queues.take(1, 9, 9_999)), [0], "the other topic still waits");
        queues.begins(3, &input("t", 3), 20);
        assert!(queues.take(2, 9, 9_999).is_empty(), "of another assignment");
        assert_eq!(queues.take(1, 9, 9_999)[&3].firsts.values().copied().collect::<Vec<_>>(), [20]);
        assert_eq!(queues.push(3, (item("t", 20), None), 10_000), Err(21));
        assert_eq!(queues.push(4, (item("t", 20), None), 10_000), Ok(Pushed::default()));
    }

    #[test]
    fn a_lane_that_is_full_is_paused_until_half_of_it_is_taken() {
        let mut queues = queues();
        let push = |queues: &mut Queues, offset| {
            queues.push(3, (item("t", offset), None), 4 * 132 - 1).unwrap().is_full
        };
        assert_eq!(
            [0, 1, 2, 3, 4].map(|offset| push(&mut queues, offset)),
            [false, false, false, true, false]
        );
        queues.begins(3, &input("t", 3), 0);
        queues.come.insert(input("t", 3), 9);
        assert_eq!(queues.has_come(&input("t", 3)), None);
        assert_eq!(offsets(&queues.take(1, 3, 9_999)), [0, 1, 2]);
        assert!(queues.resumed(4 * 132 - 1).is_empty());
        assert_eq!(offsets(&queues.take(1, 9, 1)), [3]);
        assert_eq!(queues.resumed(4 * 132 - 1), [3]);
        assert!(queues.resumed(4 * 132 - 1).is_empty());
        assert_eq!(offsets(&queues.take(1, 9, 9_999)), [4]);
        assert_eq!(queues.has_come(&input("t", 3)), Some(9));
    }
}
