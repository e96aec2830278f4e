//! Documents themselves, with their times.

use std::time::Instant;

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::{DocAddress, DocId, Score, SegmentReader};

use super::columns::Test;
use super::{Clock, unasked};
use crate::panels::Panel;
use crate::panels::answer::View;
use crate::panels::request::LIST_MAX;

/// Collects the documents that meet what the query leaves to be met; `None`: it takes too long.
pub(super) struct Listing<'p> {
    pub(super) panel: &'p Panel,
    pub(super) view: &'p View,
    pub(super) until: Instant,
}

/// How many there are, and the first of them in the order of the list, each with its time.
#[derive(Default)]
pub(super) struct Met {
    pub(super) count: u64,
    pub(super) first: Vec<(i64, DocAddress)>,
}

impl Met {
    fn add(&mut self, time: i64, address: DocAddress, oldest_first: bool) {
        self.count += 1;
        self.first.push((time, address));
        if self.first.len() >= 2 * LIST_MAX as usize {
            self.cut(oldest_first);
        }
    }

    /// Leaves out what is not listed.
    fn cut(&mut self, oldest_first: bool) {
        self.first.sort_unstable_by(|left, right| match oldest_first {
            true => left.cmp(right),
            false => right.cmp(left),
        });
        self.first.truncate(LIST_MAX as usize);
    }
}

pub(super) struct MetInSegment {
    ordinal: u32,
    tests: Vec<Test>,
    times: Column<i64>,
    oldest_first: bool,
    met: Met,
    clock: Clock,
}

impl Collector for Listing<'_> {
    type Fruit = Option<Met>;
    type Child = MetInSegment;

    fn for_segment(&self, ordinal: u32, reader: &SegmentReader) -> tantivy::Result<MetInSegment> {
        let tests = unasked(self.panel, self.view, reader)?;
        let times = reader.fast_fields().i64("timestamp")?;
        let oldest_first = self.panel.oldest_first;
        let clock = Clock::new(self.until);
        Ok(MetInSegment { ordinal, tests, times, oldest_first, met: Met::default(), clock })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, segments: Vec<Self::Fruit>) -> tantivy::Result<Self::Fruit> {
        let mut whole = Met::default();
        for segment in segments {
            let Some(segment) = segment else { return Ok(None) };
            whole.count += segment.count;
            whole.first.extend(segment.first);
        }
        whole.cut(self.panel.oldest_first);
        Ok(Some(whole))
    }
}

impl SegmentCollector for MetInSegment {
    type Fruit = Option<Met>;

    fn collect(&mut self, document: DocId, _: Score) {
        if self.clock.is_late() || !self.tests.iter().all(|test| test.is_met(document)) {
            return;
        }
        let time = self.times.first(document).unwrap_or(i64::MIN);
        self.met.add(time, DocAddress::new(self.ordinal, document), self.oldest_first);
    }

    fn harvest(self) -> Self::Fruit {
        (!self.clock.was_late()).then_some(self.met)
    }
}
