//! In which order documents are found.

use tantivy::collector::sort_key::{NaturalComparator, SortByErasedType};
use tantivy::collector::{SegmentSortKeyComputer, SortKeyComputer};
use tantivy::schema::{OwnedValue, Schema};
use tantivy::{DocId, Order, Score, SegmentReader};

use crate::search::Sort;

/// What [`of`] compares: the value, then the time.
pub(super) type Key = (OwnedValue, OwnedValue);

/// By `sort`, and of equals the newest first.
pub(super) fn of(sort: &Sort) -> impl SortKeyComputer<SortKey = Key> + Send + use<> {
    let way = if sort.is_rising { Order::Asc } else { Order::Desc };
    ((ByField::new(&sort.field), way), (ByField::new("timestamp"), Order::Desc))
}

/// By what a field holds. A segment in which no document has it knows no such column, which `tantivy` takes for a mistake.
struct ByField {
    column: String,
    inner: SortByErasedType,
}

impl ByField {
    fn new(field: &str) -> Self {
        let column = if field == "timestamp" { field.to_owned() } else { format!("json.{field}") };
        Self { inner: SortByErasedType::for_field(&column), column }
    }
}

impl SortKeyComputer for ByField {
    type SortKey = OwnedValue;
    type Child = InSegment;
    type Comparator = NaturalComparator;

    fn check_schema(&self, schema: &Schema) -> tantivy::Result<()> {
        self.inner.check_schema(schema)
    }

    fn segment_sort_key_computer(&self, segment: &SegmentReader) -> tantivy::Result<InSegment> {
        let is_known = segment.fast_fields().u64_lenient(&self.column)?.is_some();
        let inner = is_known.then(|| self.inner.segment_sort_key_computer(segment));
        Ok(InSegment(inner.transpose()?))
    }
}

/// In one segment; absent: no document of it has the field.
struct InSegment(Option<<SortByErasedType as SortKeyComputer>::Child>);

impl SegmentSortKeyComputer for InSegment {
    type SortKey = OwnedValue;
    type SegmentSortKey = Option<u64>;
    type SegmentComparator = NaturalComparator;

    fn segment_sort_key(&mut self, document: DocId, score: Score) -> Option<u64> {
        self.0.as_mut()?.segment_sort_key(document, score)
    }

    fn convert_segment_sort_key(&self, key: Option<u64>) -> OwnedValue {
        self.0.as_ref().map_or(OwnedValue::Null, |inner| inner.convert_segment_sort_key(key))
    }
}
