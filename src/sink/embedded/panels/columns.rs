//! What documents hold, column by column, and whether they meet conditions.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use tantivy::columnar::{Column, ColumnValues, DynamicColumn, StrColumn};
use tantivy::{DocId, SegmentReader};

use super::divide::{Short, tile};
use crate::document::fields::folded;
use crate::panels::answer::Choice;
use crate::panels::model::{Condition, Scalar};

/// A field's columns in one segment: documents may disagree about what it holds.
#[derive(Clone, Default)]
pub(super) struct Columns {
    texts: Option<StrColumn>,
    numbers: Vec<Column<f64>>,
    flags: Option<Column<bool>>,
}

/// Whole numbers as what all numbers are summed up as.
struct Floats<T: PartialOrd> {
    values: Arc<dyn ColumnValues<T>>,
    float: fn(T) -> f64,
}

impl<T: PartialOrd + 'static> ColumnValues<f64> for Floats<T> {
    fn get_val(&self, row: u32) -> f64 {
        (self.float)(self.values.get_val(row))
    }

    fn min_value(&self) -> f64 {
        (self.float)(self.values.min_value())
    }

    fn max_value(&self) -> f64 {
        (self.float)(self.values.max_value())
    }

    fn num_vals(&self) -> u32 {
        self.values.num_vals()
    }
}

fn floats<T: PartialOrd + 'static>(column: Column<T>, float: fn(T) -> f64) -> Column<f64> {
    Column { index: column.index, values: Arc::new(Floats { values: column.values, float }) }
}

impl Columns {
    #[expect(clippy::cast_precision_loss, reason = "what is summed up is a float everywhere")]
    pub(super) fn new(reader: &SegmentReader, field: &str) -> tantivy::Result<Self> {
        let mut columns = Self::default();
        for handle in reader.fast_fields().dynamic_column_handles(&format!("json.{field}"))? {
            match handle.open()? {
                DynamicColumn::Str(column) => columns.texts = Some(column),
                DynamicColumn::Bool(column) => columns.flags = Some(column),
                DynamicColumn::I64(column) => {
                    columns.numbers.push(floats(column, |number| number as f64))
                }
                DynamicColumn::U64(column) => {
                    columns.numbers.push(floats(column, |number| number as f64))
                }
                DynamicColumn::F64(column) => columns.numbers.push(column),
                DynamicColumn::IpAddr(_) | DynamicColumn::DateTime(_) | DynamicColumn::Bytes(_) => {
                }
            }
        }
        Ok(columns)
    }

    pub(super) fn numbers(&self, document: DocId) -> impl Iterator<Item = f64> + '_ {
        self.numbers.iter().flat_map(move |column| column.values_for_doc(document))
    }

    pub(super) fn ordinals(&self, document: DocId) -> impl Iterator<Item = u64> + '_ {
        self.texts.iter().flat_map(move |column| column.term_ords(document))
    }

    /// The number of a text, if any document has it.
    fn ordinal(&self, text: &str) -> tantivy::Result<Option<u64>> {
        let known = self.texts.as_ref().map(|column| column.dictionary().term_ord(text));
        Ok(known.transpose()?.flatten())
    }

    pub(super) fn flags(&self, document: DocId) -> impl Iterator<Item = bool> + '_ {
        self.flags.iter().flat_map(move |column| column.values_for_doc(document))
    }

    pub(super) fn has_any(&self, document: DocId) -> bool {
        self.ordinals(document).next().is_some()
            || self.numbers(document).next().is_some()
            || self.flags(document).next().is_some()
    }

    /// What `made` makes of texts, by their numbers: of many in one walk, as each alone would take reading half a block.
    pub(super) fn texts<T>(
        &self,
        mut ordinals: Vec<u64>,
        made: impl Fn(&[u8]) -> T,
    ) -> HashMap<u64, T> {
        let Some(column) = &self.texts else { return HashMap::new() };
        ordinals.sort_unstable();
        ordinals.dedup();
        let mut texts = HashMap::with_capacity(ordinals.len());
        let mut told = ordinals.iter();
        // Of a file that was damaged since it was opened there is nothing to tell.
        let _found = column.dictionary().sorted_ords_to_term_cb(&ordinals, |text| {
            texts.extend(told.next().map(|ordinal| (*ordinal, made(text))));
        });
        texts
    }

    /// The same of all texts.
    pub(super) fn all_texts<T>(&self, made: impl Fn(&[u8]) -> T) -> HashMap<u64, T> {
        let count = self.texts.as_ref().map_or(0, |column| column.num_terms() as u64);
        self.texts((0..count).collect(), made)
    }
}

/// A condition in one segment.
pub(super) struct Test {
    columns: Columns,
    what: What,
}

enum What {
    /// Numbers of texts, numbers and flags of which one has to be there, or none.
    Among {
        ordinals: Vec<u64>,
        numbers: Vec<f64>,
        flags: Vec<bool>,
        is_wanted: bool,
    },
    /// Numbers of texts, and from where to below where numbers are, of which one has to be there.
    Chosen {
        ordinals: Vec<u64>,
        ranges: Vec<(f64, f64)>,
    },
    Above(f64),
    AtLeast(f64),
    AtMost(f64),
    Has,
}

impl Test {
    pub(super) fn new(condition: &Condition, reader: &SegmentReader) -> tantivy::Result<Self> {
        let field = &condition.field().value;
        let columns = Columns::new(reader, field)?;
        let what = match condition {
            Condition::Is(one) | Condition::Not(one) => {
                let (mut ordinals, mut numbers, mut flags) = (Vec::new(), Vec::new(), Vec::new());
                for value in &one.value {
                    match value {
                        Scalar::Text(text) => {
                            ordinals.extend(columns.ordinal(&folded(field, text))?)
                        }
                        Scalar::Number(number) => numbers.push(*number),
                        Scalar::Flag(flag) => flags.push(*flag),
                    }
                }
                let is_wanted = matches!(condition, Condition::Is(_));
                What::Among { ordinals, numbers, flags, is_wanted }
            }
            Condition::Above(one) => What::Above(one.value),
            Condition::AtLeast(one) => What::AtLeast(one.value),
            Condition::AtMost(one) => What::AtMost(one.value),
            Condition::Has(_) => What::Has,
        };
        Ok(Self { columns, what })
    }

    /// That one of these choices is met.
    pub(super) fn chosen(
        field: &str,
        choices: &[Choice],
        reader: &SegmentReader,
    ) -> tantivy::Result<Self> {
        let columns = Columns::new(reader, field)?;
        let (mut ordinals, mut ranges) = (Vec::new(), Vec::new());
        for choice in choices {
            match choice {
                Choice::Value(value) => {
                    ordinals.extend(columns.ordinal(&folded(field, value))?);
                    // A number is all there is between it and the next one.
                    ranges
                        .extend(value.parse::<f64>().ok().map(|number| (number, number.next_up())));
                }
                Choice::Between(from, to) => {
                    ranges.push((from.unwrap_or(f64::NEG_INFINITY), to.unwrap_or(f64::INFINITY)));
                }
                Choice::Tile(zoom, x, y) => {
                    let wanted = Some(Short::Tile(*zoom, *x, *y));
                    let within =
                        columns.all_texts(|text| tile(&String::from_utf8_lossy(text), *zoom));
                    let within = within.into_iter().filter(|(_, tile)| *tile == wanted);
                    ordinals.extend(within.map(|(ordinal, _)| ordinal));
                }
            }
        }
        Ok(Self { columns, what: What::Chosen { ordinals, ranges } })
    }

    pub(super) fn is_met(&self, document: DocId) -> bool {
        let columns = &self.columns;
        let any = |meets: &dyn Fn(f64) -> bool| columns.numbers(document).any(meets);
        match &self.what {
            What::Among { ordinals, numbers, flags, is_wanted } => {
                // Most conditions are of one kind of value, and some of none that the segment has.
                let is_among = !ordinals.is_empty()
                    && columns.ordinals(document).any(|known| ordinals.contains(&known))
                    || !numbers.is_empty() && any(&|number| numbers.contains(&number))
                    || !flags.is_empty()
                        && columns.flags(document).any(|flag| flags.contains(&flag));
                is_among == *is_wanted
            }
            What::Chosen { ordinals, ranges } => {
                columns.ordinals(document).any(|known| ordinals.contains(&known))
                    || any(&|number| ranges.iter().any(|(from, to)| (*from..*to).contains(&number)))
            }
            What::Above(bound) => any(&|number| number > *bound),
            What::AtLeast(bound) => any(&|number| number >= *bound),
            What::AtMost(bound) => any(&|number| number <= *bound),
            What::Has => columns.has_any(document),
        }
    }
}

pub(super) fn tests<'c>(
    conditions: impl IntoIterator<Item = &'c Condition>,
    reader: &SegmentReader,
) -> tantivy::Result<Vec<Test>> {
    conditions.into_iter().map(|condition| Test::new(condition, reader)).collect()
}
