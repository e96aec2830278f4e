//! Documents themselves, with their times.

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::{DocAddress, DocId, Score, SegmentReader};

use super::columns::Test;
use super::unasked;
use crate::panels::Panel;
use crate::panels::answer::View;

/// Collects the documents that meet what the query leaves to be met, with their times.
pub(super) struct Met<'p> {
    pub(super) panel: &'p Panel,
    pub(super) view: &'p View,
}

pub(super) struct MetInSegment {
    ordinal: u32,
    tests: Vec<Test>,
    times: Column<i64>,
    met: Vec<(i64, DocAddress)>,
}

impl Collector for Met<'_> {
    type Fruit = Vec<(i64, DocAddress)>;
    type Child = MetInSegment;

    fn for_segment(&self, ordinal: u32, reader: &SegmentReader) -> tantivy::Result<MetInSegment> {
        let tests = unasked(self.panel, self.view, reader)?;
        let times = reader.fast_fields().i64("timestamp")?;
        Ok(MetInSegment { ordinal, tests, times, met: Vec::new() })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, segments: Vec<Self::Fruit>) -> tantivy::Result<Self::Fruit> {
        Ok(segments.into_iter().flatten().collect())
    }
}

impl SegmentCollector for MetInSegment {
    type Fruit = Vec<(i64, DocAddress)>;

    fn collect(&mut self, document: DocId, _: Score) {
        if self.tests.iter().all(|test| test.is_met(document)) {
            let time = self.times.first(document).unwrap_or(i64::MIN);
            self.met.push((time, DocAddress::new(self.ordinal, document)));
        }
    }

    fn harvest(self) -> Self::Fruit {
        self.met
    }
}
