//! What a panel shows: the same parts and values, whoever has looked through the documents.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use serde::Serialize;

use super::model::{ByTime, Every, Metric, Panel, Per, Split, Value};
use super::zone::{Steps, Zone};

/// Parts of one split by time at most.
const STEPS_MAX: i64 = 120;
/// Steps that people know, in milliseconds.
const STEPS: &[i64] = &[
    1_000,
    5_000,
    10_000,
    30_000,
    60_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    3 * 3_600_000,
    12 * 3_600_000,
    DAY,
    7 * DAY,
    30 * DAY,
];
const DAY: i64 = 86_400_000;

/// What is looked at, besides what the panel itself asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Smallest `timestamp`, milliseconds since 1970.
    pub from: i64,
    /// First `timestamp` not looked at any more.
    pub to: i64,
    /// Whose clock days and hours begin by.
    pub zone: Zone,
    /// Fields and the choices of which each has to meet one.
    pub filters: Vec<(String, Vec<Choice>)>,
}

/// What a field can be chosen by: a part of a split.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// It has this value.
    Value(String),
    /// It is a number: the first one or more, if there is one, and less than the second.
    Between(Option<f64>, Option<f64>),
    /// It is a place in this [`Key::Tile`].
    Tile(u32, u32, u32),
}

/// The values among choices, if they are nothing else.
#[must_use]
pub fn values_alone(choices: &[Choice]) -> Option<Vec<String>> {
    let value = |choice: &Choice| match choice {
        Choice::Value(value) => Some(value.clone()),
        Choice::Between(..) | Choice::Tile(..) => None,
    };
    choices.iter().map(value).collect()
}

impl View {
    /// The step of a split by time, in milliseconds.
    #[must_use]
    pub fn step(&self, by: &ByTime) -> i64 {
        match by.every {
            Some(Every::Day) => DAY,
            None => {
                let span = self.to.saturating_sub(self.from).max(1);
                let least = i64::try_from(by.at_least.as_millis()).unwrap_or(DAY);
                let fits = |step: &&i64| **step >= least && span <= **step * STEPS_MAX;
                STEPS.iter().find(fits).copied().unwrap_or(span / STEPS_MAX + 1)
            }
        }
    }

    /// A split of it by time.
    #[must_use]
    pub fn steps(&self, by: &ByTime) -> Steps {
        self.zone.steps(self.step(by), (self.from, self.to))
    }
}

/// What one panel shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Documents it looked at.
    pub documents: u64,
    /// Milliseconds of a step, of a split by time.
    pub step: Option<i64>,
    /// In the order in which they are shown; one without keys where nothing is split.
    pub parts: Vec<Part>,
}

/// A part of what a panel looks at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// One for each split, the outermost first.
    pub keys: Vec<Key>,
    /// One for each value that is shown.
    pub values: Vec<Datum>,
}

/// Which part of a split.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize)]
#[serde(untagged)]
pub enum Key {
    /// The beginning of a step of time, milliseconds since 1970.
    Time(i64),
    /// A number, or where a class or step begins; without a beginning, `None`.
    Number(Option<f64>),
    /// Anything that is named.
    Text(String),
    /// A tile of the map: zoom level, column from the west, row from the north.
    Tile(u32, u32, u32),
}

/// Numbers are what their bits are: none of them is odd.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Time(time) => time.hash(state),
            Self::Number(number) => number.map(f64::to_bits).hash(state),
            Self::Text(text) => text.hash(state),
            Self::Tile(zoom, x, y) => (zoom, x, y).hash(state),
        }
    }
}

impl Eq for Key {}

/// A value.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Datum {
    /// There is none.
    #[default]
    Nothing,
    /// A number.
    Number(f64),
    /// What a document says.
    Json(serde_json::Value),
}

impl Datum {
    /// What a document says in a field.
    #[must_use]
    pub fn said(document: &serde_json::Value, field: &str) -> Self {
        let said = field.split('.').try_fold(document, |object, member| object.get(member));
        said.filter(|said| !said.is_null()).cloned().map_or(Self::Nothing, Self::Json)
    }

    /// Bytes of it, about.
    fn size(&self) -> usize {
        match self {
            Self::Nothing | Self::Number(_) => 8,
            Self::Json(serde_json::Value::String(text)) => text.len(),
            Self::Json(json) => json.to_string().len(),
        }
    }

    /// It, if it is a time.
    #[must_use]
    pub fn time(&self) -> Option<i64> {
        match self {
            Self::Json(json) => json.as_i64(),
            Self::Number(_) | Self::Nothing => None,
        }
    }

    /// It, if it is a number.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Json(json) => json.as_f64(),
            Self::Nothing => None,
        }
    }
}

/// Bytes that the rows of a list come to at most.
const LIST_BYTES_MAX: usize = 4 << 20;

/// A list of `documents`, of which `rows` come one after the other, as far as there is room.
///
/// # Errors
///
/// The first error of a row.
pub fn listed<E>(
    documents: u64,
    rows: impl Iterator<Item = Result<Vec<Datum>, E>>,
) -> Result<Answer, E> {
    let mut answer = Answer { documents, step: None, parts: Vec::new() };
    let mut bytes = 0;
    for row in rows {
        let values = row?;
        bytes += values.iter().map(Datum::size).sum::<usize>();
        if bytes > LIST_BYTES_MAX && !answer.parts.is_empty() {
            break;
        }
        answer.parts.push(Part { keys: Vec::new(), values });
    }
    Ok(answer)
}

/// A part as it was found: with a value for each metric, also for hidden ones, and none for what is reckoned of others.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// As in [`Part`].
    pub keys: Vec<Key>,
    /// One for each of [`Panel::show`].
    pub values: Vec<Datum>,
}

/// Reckons what is reckoned of other values, and leaves out what is not shown.
#[must_use]
pub fn finish(panel: &Panel, view: &View, documents: u64, found: Vec<Found>) -> Answer {
    let step = panel.by.iter().find_map(|split| match split {
        Split::Time(by) => Some(view.step(by)),
        _ => None,
    });
    let mut sums: BTreeMap<(String, usize), f64> = BTreeMap::new();
    let parts = found.into_iter().map(|part| {
        let known = |id: &str| {
            let place = panel.show.iter().position(|metric| metric.id.value == id)?;
            let (metric, value) = (panel.show.get(place)?, part.values.get(place)?);
            // Of nothing there are none, and their sum is nothing.
            let value = match metric.value {
                Value::Count | Value::Distinct(_) | Value::Sum(_) => value.number().or(Some(0.0)),
                _ => value.number(),
            };
            Some((metric, value?))
        };
        // At either end of what is looked at there may be a part of a step.
        let begun = part.keys.iter().find_map(|key| match key {
            Key::Time(time) => Some(*time),
            _ => None,
        });
        let span = step.map(|step| match begun {
            Some(begun) => (begun + step).min(view.to) - begun.max(view.from),
            None => step,
        });
        let span = span.filter(|span| *span > 0);
        // Formulas reckon with rates, where values are given so; a running sum adds up what there was.
        let rated = |id: &str| known(id).map(|(metric, value)| rate(metric, value, span));
        let raw = |id: &str| known(id).map(|(_, value)| value);
        let mut values = Vec::new();
        for (place, metric) in panel.show.iter().enumerate() {
            let value = match &metric.value {
                Value::Formula(formula) => {
                    formula.value.result(rated).map_or(Datum::Nothing, Datum::Number)
                }
                Value::Running(of) => {
                    // Whatever the other splits divide has a sum of its own.
                    let (_, series) = part.keys.split_last().unwrap_or((&Key::Number(None), &[]));
                    let sum = sums.entry((format!("{series:?}"), place)).or_default();
                    *sum += raw(&of.value).unwrap_or(0.0);
                    Datum::Number(*sum)
                }
                _ => part.values.get(place).cloned().unwrap_or_default(),
            };
            if !metric.hidden {
                let rate = |number| Datum::Number(rate(metric, number, span));
                values.push(value.number().map_or(value, rate));
            }
        }
        Part { keys: part.keys, values }
    });
    let parts: Vec<Part> = parts.collect();
    Answer { documents, step, parts }
}

/// A value as it is given: where it is a rate, of `span` milliseconds.
fn rate(metric: &Metric, value: f64, span: Option<i64>) -> f64 {
    let Some((per, span)) = metric.per.zip(span) else { return value };
    let of = match per {
        Per::Second => 1_000.0,
        Per::Minute => 60_000.0,
    };
    #[expect(clippy::cast_precision_loss, reason = "a step is far below 2^52 ms")]
    let span = span as f64;
    value * of / span
}
