//! What is known of the values of a part, and what a document adds to it.

use foldhash::{HashMap, HashSet};
use tantivy::columnar::Column;
use tantivy::{DocAddress, DocId, SegmentReader};
use xxhash_rust::xxh3::xxh3_64;

use super::columns::Columns;
use crate::panels::answer::Datum;
use crate::panels::model::{Metric, Value};

/// What is known of one value.
#[derive(Debug, Clone)]
pub(super) enum Held {
    /// It is reckoned of others.
    Nothing,
    Count(u64),
    /// Hashes; within a segment numbers of texts, or bits of numbers.
    Distinct(HashSet<u64>),
    Sum(f64),
    Mean(f64, u64),
    Min(Option<f64>),
    Max(Option<f64>),
    /// All numbers, and the percentile that is wanted of them.
    Percentile(Vec<f64>, f64),
    /// When the newest document was, and where it stands.
    Last(Option<(i64, DocAddress)>),
}

impl Held {
    /// Of no document.
    pub(super) fn new(value: &Value) -> Self {
        match value {
            Value::Count => Self::Count(0),
            Value::Distinct(_) => Self::Distinct(HashSet::default()),
            Value::Sum(_) => Self::Sum(0.0),
            Value::Mean(_) => Self::Mean(0.0, 0),
            Value::Min(_) => Self::Min(None),
            Value::Max(_) => Self::Max(None),
            Value::Percentile(of) => Self::Percentile(Vec::new(), of.at),
            Value::Last(_) => Self::Last(None),
            Value::Formula(_) | Value::Running(_) => Self::Nothing,
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Count(own), Self::Count(more)) => *own += more,
            (Self::Distinct(own), Self::Distinct(more)) => own.extend(more),
            (Self::Sum(own), Self::Sum(more)) => *own += more,
            (Self::Mean(own, count), Self::Mean(more, others)) => {
                *own += more;
                *count += others;
            }
            (Self::Min(own), Self::Min(more)) => *own = least(*own, more),
            (Self::Max(own), Self::Max(more)) => *own = greatest(*own, more),
            (Self::Percentile(own, _), Self::Percentile(more, _)) => own.extend(more),
            (Self::Last(own), Self::Last(more)) => *own = (*own).max(more),
            _ => {}
        }
    }

    fn add(&mut self, numbers: impl Iterator<Item = f64>) {
        match self {
            Self::Sum(sum) => *sum += numbers.sum::<f64>(),
            Self::Mean(sum, count) => {
                for number in numbers {
                    *sum += number;
                    *count += 1;
                }
            }
            Self::Min(own) => *own = numbers.fold(*own, |own, number| least(own, Some(number))),
            Self::Max(own) => *own = numbers.fold(*own, |own, number| greatest(own, Some(number))),
            Self::Percentile(own, _) => own.extend(numbers),
            _ => {}
        }
    }

    /// By which parts are put in order; of nothing the least is above and the most below everything, as servers have it.
    pub(super) fn weight(&self) -> f64 {
        match self {
            Self::Min(None) => f64::INFINITY,
            held => held.clone().datum().number().unwrap_or(f64::NEG_INFINITY),
        }
    }

    pub(super) fn datum(self) -> Datum {
        let number = |number: Option<f64>| number.map_or(Datum::Nothing, Datum::Number);
        #[expect(clippy::cast_precision_loss, reason = "an index holds fewer documents than 2^52")]
        match self {
            Self::Nothing | Self::Last(_) => Datum::Nothing,
            Self::Count(count) => Datum::Number(count as f64),
            Self::Distinct(values) => Datum::Number(values.len() as f64),
            Self::Sum(sum) => Datum::Number(sum),
            Self::Mean(_, 0) => Datum::Nothing,
            Self::Mean(sum, count) => Datum::Number(sum / count as f64),
            Self::Min(own) | Self::Max(own) => number(own),
            Self::Percentile(numbers, at) => number(percentile(numbers, at)),
        }
    }
}

fn least(left: Option<f64>, right: Option<f64>) -> Option<f64> {
    left.into_iter().chain(right).reduce(f64::min)
}

fn greatest(left: Option<f64>, right: Option<f64>) -> Option<f64> {
    left.into_iter().chain(right).reduce(f64::max)
}

/// Between the two nearest numbers where it falls between them.
fn percentile(mut numbers: Vec<f64>, at: f64) -> Option<f64> {
    numbers.sort_unstable_by(f64::total_cmp);
    let last = numbers.len().checked_sub(1)?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list, which is short of 2^52"
    )]
    let (place, rest) = {
        let place = at / 100.0 * last as f64;
        (place.floor() as usize, place.fract())
    };
    let low = *numbers.get(place)?;
    let high = *numbers.get(place + 1).unwrap_or(&low);
    Some(low + (high - low) * rest)
}

/// A value in one segment.
pub(super) struct Measure {
    columns: Columns,
    /// Places of the conditions that have to be met.
    when: Vec<usize>,
    times: Column<i64>,
}

impl Measure {
    pub(super) fn new(
        metric: &Metric,
        when: &[usize],
        reader: &SegmentReader,
    ) -> tantivy::Result<Self> {
        let columns = match metric.value.field() {
            Some(field) => Columns::new(reader, &field.value)?,
            None => Columns::default(),
        };
        let times = reader.fast_fields().i64("timestamp")?;
        Ok(Self { columns, when: when.to_vec(), times })
    }

    /// Whether a document is measured that meets these conditions.
    pub(super) fn applies(&self, met: &[bool]) -> bool {
        self.when.iter().all(|place| met.get(*place) == Some(&true))
    }

    pub(super) fn add(&self, held: &mut Held, document: DocId, segment: u32) {
        match held {
            Held::Nothing => {}
            Held::Count(count) => *count += 1,
            Held::Distinct(values) => {
                values.extend(self.columns.ordinals(document));
                values.extend(self.columns.numbers(document).map(f64::to_bits));
            }
            Held::Last(last) => {
                let time = self.times.first(document).unwrap_or(i64::MIN);
                let newest = Some((time, DocAddress::new(segment, document)));
                if *last < newest && self.columns.has_any(document) {
                    *last = newest;
                }
            }
            held => held.add(self.columns.numbers(document)),
        }
    }

    /// What stands for texts in all segments, by their numbers.
    pub(super) fn hashes(&self, ordinals: Vec<u64>) -> HashMap<u64, u64> {
        self.columns.texts(ordinals, xxh3_64)
    }
}
