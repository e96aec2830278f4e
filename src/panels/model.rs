//! What a description can say.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::Spanned;

use super::formula::Formula;
use super::source::{self, Source};
use crate::document::fields::{Holds, Unit};

/// One screen of panels.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Dashboard {
    /// A slug, the same for ever: links name it.
    pub id: Spanned<String>,
    /// For people.
    pub title: String,
    /// What it answers as a whole.
    pub question: String,
    /// A field of which one value has to be chosen before anything is shown.
    pub of_one: Option<Spanned<String>>,
    /// Fields by whose values the whole can be narrowed.
    #[serde(default)]
    pub controls: Vec<Control>,
    /// Events that are marked in all panels over time.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// Logs that others bring into the same servers, to look further in.
    #[serde(default)]
    pub logs: Vec<Logs>,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// Logs of one kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// For people.
    pub label: String,
    /// Indices that hold them: names and patterns, with commas between.
    pub index: Spanned<String>,
    /// What lines have in them; absent: all lines.
    pub word: Option<Spanned<String>>,
}

/// Events that are marked in panels over time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// A slug, unique in its dashboard.
    pub id: Spanned<String>,
    /// For people.
    pub label: String,
    /// Whether something went wrong.
    #[serde(default)]
    pub bad: bool,
    /// All have to be met.
    pub when: Vec<Condition>,
}

impl Dashboard {
    /// All its panels, in reading order.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }
}

/// A field by whose values a dashboard is narrowed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Of texts.
    pub field: Spanned<String>,
    /// For people.
    pub label: String,
    /// Whose documents have it.
    #[serde(default)]
    pub over: Source,
}

/// Panels beside each other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// In units of Kibana's grid, 20 px each.
    pub height: u32,
    /// From left to right.
    pub panels: Vec<Panel>,
}

/// One chart, table or number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Panel {
    /// A slug, unique among all.
    pub id: Spanned<String>,
    /// Of [`WIDTH`] columns.
    pub width: u32,
    /// For people.
    pub title: String,
    /// What it answers.
    pub question: String,
    /// How it looks.
    pub form: Form,
    /// Whose documents it looks at.
    #[serde(default)]
    pub over: Source,
    /// Values of `elastic_type`, or of what other sources have in its place, it looks at.
    pub of: Vec<String>,
    /// All have to be met.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// From the outermost split to the innermost; none: one whole.
    #[serde(default)]
    pub by: Vec<Split>,
    /// What is shown of each part; of a [`Form::List`] nothing.
    #[serde(default)]
    pub show: Vec<Metric>,
    /// Fields of a [`Form::List`].
    #[serde(default)]
    pub columns: Vec<Spanned<String>>,
    /// Whether the first documents of a [`Form::List`] are listed, in their order, and not the last ones.
    #[serde(default)]
    pub oldest_first: bool,
    /// What is said where there is nothing to show: why, and which setting would fill it.
    pub empty: String,
    /// Whether the data set of the tests fills it.
    #[serde(default)]
    pub expect: Expect,
}

impl Panel {
    /// The value called `id`.
    #[must_use]
    pub fn metric(&self, id: &str) -> Option<&Metric> {
        self.show.iter().find(|metric| metric.id.value == id)
    }

    /// The values that are shown.
    pub fn shown(&self) -> impl Iterator<Item = &Metric> {
        self.show.iter().filter(|metric| !metric.hidden)
    }
}

/// How fields of `platformStats` begin that hold how many were open.
const COUNTED: &str = "num_";

/// Columns of a dashboard.
pub const WIDTH: u32 = 48;

/// How a panel looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// Large numbers, one for each value.
    Numbers,
    /// A row for each part.
    Table,
    /// Lines over the last split; where there are two, one for each part of the first. So are areas and bars.
    Line,
    /// Lines that stay as high as they were, of what is told only when it changes.
    Stairs,
    /// Areas on top of each other.
    Area,
    /// Bars on top of each other.
    Bar,
    /// Bars on top of each other that fill the height.
    FullBar,
    /// Shares of a whole.
    Donut,
    /// Shares of a whole, and of each of them.
    Treemap,
    /// Two splits against each other.
    Heatmap,
    /// Circles on a map.
    Map,
    /// The documents themselves, newest first unless said otherwise.
    List,
}

/// What a document has to meet.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// A field has one of these values.
    Is(One<Vec<Scalar>>),
    /// A field has none of these values; it may have none at all.
    Not(One<Vec<Scalar>>),
    /// A field is more than this.
    Above(One<f64>),
    /// A field is this or more.
    AtLeast(One<f64>),
    /// A field is this or less.
    AtMost(One<f64>),
    /// A field has a value.
    Has(Spanned<String>),
}

/// One field and what goes with it: a map of one entry.
#[derive(Debug, Clone)]
pub struct One<T> {
    /// The field.
    pub field: Spanned<String>,
    /// What goes with it.
    pub value: T,
}

/// Wherever it is written.
impl<T: PartialEq> PartialEq for One<T> {
    fn eq(&self, other: &Self) -> bool {
        self.field.value == other.field.value && self.value == other.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for One<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entry<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entry<T> {
            type Value = One<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one field and what it is compared with")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<One<T>, A::Error> {
                let entry = map.next_entry()?;
                let Some((field, value)) = entry else {
                    return Err(A::Error::custom("a condition names no field"));
                };
                match map.next_key::<String>()? {
                    Some(_) => Err(A::Error::custom("a condition is about one field")),
                    None => Ok(One { field, value }),
                }
            }
        }
        from.deserialize_map(Entry(PhantomData))
    }
}

impl Condition {
    /// The field it looks at.
    #[must_use]
    pub fn field(&self) -> &Spanned<String> {
        match self {
            Self::Is(one) | Self::Not(one) => &one.field,
            Self::Above(one) | Self::AtLeast(one) | Self::AtMost(one) => &one.field,
            Self::Has(field) => field,
        }
    }
}

/// A value that a field is compared with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Of a [`Flag`](crate::document::fields::Holds::Flag).
    Flag(bool),
    /// Of a number.
    Number(f64),
    /// Of a text.
    Text(String),
}

/// As documents hold it.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// How documents are divided.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Split {
    /// By time.
    Time(ByTime),
    /// By the values of a field, the largest parts first.
    Values(ByValues),
    /// By classes of a number.
    Classes(ByClasses),
    /// By equal steps of a number.
    Steps(BySteps),
    /// By conditions; a document may meet several.
    Cases(ByCases),
    /// By place on the map.
    Tiles(ByTiles),
}

impl Split {
    /// The field it reads; none: it looks at conditions.
    #[must_use]
    pub fn field(&self) -> Option<&Spanned<String>> {
        match self {
            Self::Time(by) => Some(&by.field),
            Self::Values(by) => Some(&by.field),
            Self::Classes(by) => Some(&by.field),
            Self::Steps(by) => Some(&by.field),
            Self::Tiles(by) => Some(&by.field),
            Self::Cases(_) => None,
        }
    }
}

/// See [`Split::Time`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ByTime {
    /// A date.
    pub field: Spanned<String>,
    /// Absent: as fits the range.
    pub every: Option<Every>,
    /// No step is shorter where one fits the range: in a step shorter than the span between two samples, a rate shows how samples
    /// fall, and not what there was. Kibana has no such bound.
    #[serde(default, deserialize_with = "span")]
    pub at_least: Duration,
}

/// A span such as `5m`.
fn span<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    humantime::parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// A step of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Every {
    /// A day of whoever looks.
    Day,
}

/// See [`Split::Values`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByValues {
    /// Not a point, not unsearched.
    pub field: Spanned<String>,
    /// For people.
    pub label: String,
    /// Parts at most.
    pub size: u32,
    /// What those without a value are called; absent: they are left out.
    pub missing: Option<String>,
    /// The id of the value that says which parts are the largest; absent: by number of documents.
    pub order: Option<Spanned<String>>,
}

impl ByValues {
    /// Whether a part is one session.
    #[must_use]
    pub fn is_by_session(&self) -> bool {
        self.field.value == "uniqueSessionId"
    }

    /// Whether a part is one session, or all of one name.
    #[must_use]
    pub fn names_sessions(&self) -> bool {
        self.is_by_session() || self.field.value == "sessionId"
    }
}

/// See [`Split::Classes`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByClasses {
    /// A number.
    pub field: Spanned<String>,
    /// For people.
    pub label: String,
    /// Where one class ends and the next begins, in rising order; each includes its beginning.
    pub at: Vec<f64>,
}

impl ByClasses {
    /// Where each class begins and ends, in rising order; the first has no beginning and the last no end.
    pub fn bounds(&self) -> impl Iterator<Item = (Option<f64>, Option<f64>)> {
        let at = || self.at.iter().copied().map(Some);
        std::iter::once(None).chain(at()).zip(at().chain([None]))
    }
}

/// See [`Split::Steps`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BySteps {
    /// A number.
    pub field: Spanned<String>,
    /// For people.
    pub label: String,
    /// Size of a step.
    pub every: f64,
}

/// See [`Split::Cases`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByCases {
    /// For people.
    pub label: String,
    /// By what they are called, in their order.
    pub cases: Vec<Case>,
}

/// One of [`ByCases`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// For people.
    pub label: String,
    /// All have to be met.
    pub when: Vec<Condition>,
}

/// See [`Split::Tiles`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByTiles {
    /// A point.
    pub field: Spanned<String>,
    /// Zoom level of the tiles: 2 to its power of them lie side by side around the world.
    pub zoom: u32,
}

/// A value of each part.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metric {
    /// By which formulas and orders name it; unique in its panel. Letters and digits.
    pub id: Spanned<String>,
    /// For people.
    pub label: String,
    /// What it is.
    pub value: Value,
    /// All have to be met, besides what the panel asks for.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// What it is counted in; absent: as its field.
    pub unit: Option<Unit>,
    /// Given as a rate, for a step of time.
    pub per: Option<Per>,
    /// Whether only formulas use it.
    #[serde(default)]
    pub hidden: bool,
    /// Whether it is drawn against the axis on the right.
    #[serde(default)]
    pub right: bool,
    /// Whether it is what went wrong, which charts of Kibana and of the page draw in red.
    #[serde(default)]
    pub bad: bool,
}

impl Metric {
    /// What it is counted in, as far as it says so or its field does; of what is reckoned of others only the former.
    #[must_use]
    pub fn unit(&self) -> Option<Unit> {
        self.unit.or_else(|| match &self.value {
            Value::Count | Value::Distinct(_) => Some(Unit::Number),
            value => source::find(&value.field()?.value).and_then(Holds::unit),
        })
    }
}

/// What a rate is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Per {
    /// 1 s
    Second,
    /// 60 s
    Minute,
}

/// What a value is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Value {
    /// How many documents.
    Count,
    /// How many different values, which may be a little more or less.
    Distinct(Spanned<String>),
    /// The sum of a number.
    Sum(Spanned<String>),
    /// The mean of a number.
    Mean(Spanned<String>),
    /// The smallest number, or the first time.
    Min(Spanned<String>),
    /// The greatest number, or the last time.
    Max(Spanned<String>),
    /// The number below which this many percent of all are, about.
    Percentile(Percentile),
    /// What the newest document says.
    Last(Spanned<String>),
    /// Of other values; nothing where one of them is missing or the divisor is 0.
    Formula(Spanned<Formula>),
    /// The sum of another value up to here, over a split by time.
    Running(Spanned<String>),
}

impl Value {
    /// The field it reads.
    #[must_use]
    pub fn field(&self) -> Option<&Spanned<String>> {
        match self {
            Self::Distinct(field)
            | Self::Sum(field)
            | Self::Mean(field)
            | Self::Min(field)
            | Self::Max(field)
            | Self::Last(field) => Some(field),
            Self::Percentile(percentile) => Some(&percentile.field),
            Self::Count | Self::Formula(_) | Self::Running(_) => None,
        }
    }

    /// Whether there are none of these where there is no document. Of a mean there is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        matches!(self, Self::Count | Self::Distinct(_) | Self::Sum(_))
    }

    /// Whether it is how many were open, which is counted only while anything is.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Max(field) if field.value.starts_with(COUNTED))
    }

    /// Whether it is the worse the smaller it is: the least of something, or what few are below.
    #[must_use]
    pub fn is_least(&self) -> bool {
        match self {
            Self::Min(_) => true,
            Self::Percentile(percentile) => percentile.at < 50.0,
            _ => false,
        }
    }
}

/// See [`Value::Percentile`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percentile {
    /// A number.
    pub field: Spanned<String>,
    /// Percent.
    pub at: f64,
}

/// What the data set of the tests makes of a panel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Expect {
    /// It has something to show.
    #[default]
    Filled,
    /// It has nothing to show.
    Empty,
}
