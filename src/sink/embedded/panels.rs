//! Panels over the index: one pass over the documents that a panel looks at, reading columns.
//!
//! Every part is counted whole, so nothing depends on how the index is cut into segments. What a server only estimates is exact
//! here: different values and percentiles.

use std::cmp::Ordering;
use std::hash::Hash;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet};
use serde_json::Value as Json;
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{Column, DynamicColumn, StrColumn};
use tantivy::query::{BooleanQuery, Occur};
use tantivy::{DocAddress, DocId, Score, SegmentReader};
use xxhash_rust::xxh3::xxh3_64;

use super::{EmbeddedIndex, unavailable};
use crate::panels::answer::{Answer, Datum, Found, Key, Part, View, finish};
use crate::panels::model::{Condition, Form, Metric, Panel, Scalar, Split, Value};
use crate::panels::request::{LIST_MAX, TILES_MAX};
use crate::search::SearchError;

/// Most parts of one panel, those that are not shown included: of each some hundred bytes are held.
const PARTS_MAX: usize = 200_000;
/// North and south of this there are no tiles.
const LATITUDE_MAX: f64 = 85.051_128_779_806_59;

impl EmbeddedIndex {
    /// What a panel shows.
    ///
    /// # Errors
    ///
    /// If it has too many parts, or the index cannot be read.
    pub fn panel(&self, panel: &Panel, view: &View) -> Result<Answer, SearchError> {
        let query = self.looked_at(panel, view);
        let searcher = self.reader.searcher();
        if panel.form == Form::List {
            return self.list(panel, &query);
        }
        let plan = Arc::new(Plan { panel: panel.clone(), view: view.clone() });
        let whole = searcher.search(&query, &Counting { plan }).map_err(unavailable)?;
        let Some(whole) = whole else {
            return Err(SearchError::Refused(format!(
                "panel {} has more than {PARTS_MAX} parts; look at less time",
                panel.id.value
            )));
        };
        let mut found = Vec::new();
        let documents = whole.count;
        self.parts(panel, &panel.by, whole, &mut Vec::new(), &mut found)?;
        Ok(finish(panel, view, documents, found))
    }

    fn looked_at(&self, panel: &Panel, view: &View) -> BooleanQuery {
        let mut clauses = self.narrowed(&view.filters, Some(view.from), Some(view.to));
        clauses.push((Occur::Must, Box::new(self.any_of("elastic_type", &panel.of))));
        for condition in &panel.when {
            if let Condition::Is(one) = condition {
                let values: Vec<String> = one.value.iter().map(word).collect();
                clauses.push((Occur::Must, Box::new(self.any_of(&one.field.value, &values))));
            }
        }
        BooleanQuery::new(clauses)
    }

    fn list(&self, panel: &Panel, query: &BooleanQuery) -> Result<Answer, SearchError> {
        let searcher = self.reader.searcher();
        let met = Met { conditions: unasked(panel).cloned().collect() };
        let mut newest = searcher.search(query, &met).map_err(unavailable)?;
        let documents = newest.len() as u64;
        newest.sort_unstable_by(|left, right| right.cmp(left));
        newest.truncate(LIST_MAX as usize);
        let mut parts = Vec::with_capacity(newest.len());
        for (_, address) in newest {
            let said = self.said(address)?;
            let values =
                panel.columns.iter().map(|column| Datum::said(&said, &column.value)).collect();
            parts.push(Part { keys: Vec::new(), values });
        }
        Ok(Answer { documents, step: None, parts })
    }

    /// A document as it was written.
    fn said(&self, address: DocAddress) -> Result<Json, SearchError> {
        let found = self.found(&self.reader.searcher(), address)?;
        serde_json::from_str(found.source.get())
            .map_err(|error| SearchError::Unavailable(error.into()))
    }

    /// Puts parts in order, cuts off those that are too many, and gives the innermost with their values.
    fn parts(
        &self,
        panel: &Panel,
        splits: &[Split],
        node: Node<Key>,
        keys: &mut Vec<Key>,
        found: &mut Vec<Found>,
    ) -> Result<(), SearchError> {
        let Some((split, rest)) = splits.split_first() else {
            let mut values = Vec::with_capacity(panel.show.len());
            for (metric, held) in panel.show.iter().zip(node.held) {
                values.push(match (held, &metric.value) {
                    (Held::Last(Some((_, address))), Value::Last(field)) => {
                        Datum::said(&self.said(address)?, &field.value)
                    }
                    (held, _) => held.datum(),
                });
            }
            found.push(Found { keys: keys.clone(), values });
            return Ok(());
        };
        for (key, child) in ordered(panel, split, node) {
            keys.push(key);
            self.parts(panel, rest, child, keys, found)?;
            keys.pop();
        }
        Ok(())
    }
}

/// The parts of a split, in the order in which they are shown.
fn ordered(panel: &Panel, split: &Split, node: Node<Key>) -> Vec<(Key, Node<Key>)> {
    let mut parts: Vec<(Key, Node<Key>)> = node.children.into_iter().collect();
    let by_key = |left: &Key, right: &Key| left.partial_cmp(right).unwrap_or(Ordering::Equal);
    match split {
        Split::Values(by) => {
            let order = by.order.as_ref();
            let place = order.and_then(|order| {
                panel.show.iter().position(|metric| metric.id.value == order.value)
            });
            #[expect(
                clippy::cast_precision_loss,
                reason = "an index holds fewer documents than 2^52"
            )]
            let weight = |node: &Node<Key>| match place.and_then(|place| node.held.get(place)) {
                Some(held) => held.weight(),
                None => node.count as f64,
            };
            parts.sort_by(|(left, one), (right, other)| {
                weight(other).total_cmp(&weight(one)).then_with(|| by_key(left, right))
            });
            parts.truncate(by.size as usize);
        }
        Split::Classes(by) => {
            let keys = by.bounds().map(|(from, _)| Key::Number(from));
            parts = keys.map(|key| each(&mut parts, key, &panel.show)).collect();
        }
        Split::Cases(by) => {
            let keys = by.cases.iter().map(|case| Key::Text(case.label.clone()));
            parts = keys.map(|key| each(&mut parts, key, &panel.show)).collect();
        }
        Split::Tiles(_) => {
            parts.sort_by(|(left, one), (right, other)| {
                other.count.cmp(&one.count).then_with(|| by_key(left, right))
            });
            parts.truncate(TILES_MAX as usize);
        }
        Split::Time(_) | Split::Steps(_) => {
            parts.sort_by(|(left, _), (right, _)| by_key(left, right));
        }
    }
    parts
}

/// The part with this key out of `parts`; where no document is in it, it is shown all the same.
fn each(parts: &mut Vec<(Key, Node<Key>)>, key: Key, show: &[Metric]) -> (Key, Node<Key>) {
    match parts.iter().position(|(known, _)| *known == key) {
        Some(place) => parts.swap_remove(place),
        None => (key, Node::new(show)),
    }
}

/// Conditions that the query leaves to be met column by column.
fn unasked(panel: &Panel) -> impl Iterator<Item = &Condition> {
    panel.when.iter().filter(|condition| !matches!(condition, Condition::Is(_)))
}

fn word(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Flag(flag) => flag.to_string(),
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => text.clone(),
    }
}

struct Plan {
    panel: Panel,
    view: View,
}

/// Documents that are counted together.
#[derive(Debug)]
struct Node<K> {
    count: u64,
    held: Vec<Held>,
    children: HashMap<K, Node<K>>,
}

/// A key within one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Short {
    /// A text, by its number in the column.
    Ordinal(u64),
    /// No value, where those are shown.
    Missing,
    Flag(bool),
    Time(i64),
    /// A number, by its bits.
    Number(u64),
    /// Before the first class.
    Least,
    Case(usize),
    Tile(u32, u32, u32),
}

/// What is known of one value.
#[derive(Debug, Clone)]
enum Held {
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

impl<K: Eq + Hash> Node<K> {
    fn new(metrics: &[Metric]) -> Self {
        let held = metrics.iter().map(|metric| match &metric.value {
            Value::Count => Held::Count(0),
            Value::Distinct(_) => Held::Distinct(HashSet::default()),
            Value::Sum(_) => Held::Sum(0.0),
            Value::Mean(_) => Held::Mean(0.0, 0),
            Value::Min(_) => Held::Min(None),
            Value::Max(_) => Held::Max(None),
            Value::Percentile(of) => Held::Percentile(Vec::new(), of.at),
            Value::Last(_) => Held::Last(None),
            Value::Formula(_) | Value::Running(_) => Held::Nothing,
        });
        Self { count: 0, held: held.collect(), children: HashMap::new() }
    }

    fn merge(&mut self, other: Self, metrics: &[Metric]) {
        self.count += other.count;
        for (own, more) in self.held.iter_mut().zip(other.held) {
            own.merge(more);
        }
        for (key, child) in other.children {
            self.children.entry(key).or_insert_with(|| Self::new(metrics)).merge(child, metrics);
        }
    }

    fn nodes(&self) -> usize {
        1 + self.children.values().map(Self::nodes).sum::<usize>()
    }
}

impl Held {
    fn merge(&mut self, other: Self) {
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
    fn weight(&self) -> f64 {
        match self {
            Self::Min(None) => f64::INFINITY,
            held => held.clone().datum().number().unwrap_or(f64::NEG_INFINITY),
        }
    }

    fn datum(self) -> Datum {
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

/// Collects what a panel counts; `None`: there are too many parts.
struct Counting {
    plan: Arc<Plan>,
}

impl Collector for Counting {
    type Fruit = Option<Node<Key>>;
    type Child = Segment;

    fn for_segment(&self, ordinal: u32, reader: &SegmentReader) -> tantivy::Result<Segment> {
        let Plan { panel, .. } = &*self.plan;
        let splits = panel.by.iter().map(|split| Divider::new(split, &self.plan.view, reader));
        let metrics = panel.show.iter().map(|metric| Measure::new(metric, reader));
        Ok(Segment {
            ordinal,
            conditions: tests(unasked(panel), reader)?,
            splits: splits.collect::<tantivy::Result<_>>()?,
            metrics: metrics.collect::<tantivy::Result<_>>()?,
            times: reader.fast_fields().i64("timestamp")?,
            whole: Node::new(&panel.show),
            parts: 1,
            keys: vec![Vec::new(); panel.by.len()],
            plan: Arc::clone(&self.plan),
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, segments: Vec<Self::Fruit>) -> tantivy::Result<Self::Fruit> {
        let metrics = &self.plan.panel.show;
        let mut whole = Node::new(metrics);
        for segment in segments {
            let Some(segment) = segment else { return Ok(None) };
            whole.merge(segment, metrics);
            if whole.nodes() > PARTS_MAX {
                return Ok(None);
            }
        }
        Ok(Some(whole))
    }
}

/// One segment being read.
struct Segment {
    ordinal: u32,
    conditions: Vec<Test>,
    splits: Vec<Divider>,
    metrics: Vec<Measure>,
    times: Column<i64>,
    whole: Node<Short>,
    parts: usize,
    /// The parts that the document at hand belongs to, of each split.
    keys: Vec<Vec<Short>>,
    plan: Arc<Plan>,
}

impl SegmentCollector for Segment {
    type Fruit = Option<Node<Key>>;

    fn collect(&mut self, document: DocId, _: Score) {
        if self.parts > PARTS_MAX || !self.conditions.iter().all(|test| test.is_met(document)) {
            return;
        }
        for (split, keys) in self.splits.iter().zip(&mut self.keys) {
            keys.clear();
            split.keys(document, keys);
        }
        let newest = (
            self.times.first(document).unwrap_or(i64::MIN),
            DocAddress::new(self.ordinal, document),
        );
        let measuring =
            Measuring { metrics: &self.metrics, show: &self.plan.panel.show, document, newest };
        measuring.count(&mut self.whole, &self.keys, &mut self.parts);
    }

    fn harvest(self) -> Self::Fruit {
        if self.parts > PARTS_MAX {
            return None;
        }
        let Self { splits, metrics, whole, plan, .. } = self;
        Some(named(whole, &splits, &metrics, &plan.panel.show))
    }
}

/// One document on its way into all the parts that it belongs to.
struct Measuring<'s> {
    metrics: &'s [Measure],
    show: &'s [Metric],
    document: DocId,
    newest: (i64, DocAddress),
}

impl Measuring<'_> {
    fn count(&self, node: &mut Node<Short>, keys: &[Vec<Short>], parts: &mut usize) {
        node.count += 1;
        for (held, measure) in node.held.iter_mut().zip(self.metrics) {
            measure.add(held, self.document, self.newest);
        }
        let Some((own, rest)) = keys.split_first() else { return };
        for key in own {
            let child = node.children.entry(*key).or_insert_with(|| {
                *parts += 1;
                Node::new(self.show)
            });
            self.count(child, rest, parts);
        }
    }
}

/// The same with names that all segments share.
fn named(node: Node<Short>, splits: &[Divider], metrics: &[Measure], show: &[Metric]) -> Node<Key> {
    let held = node.held.into_iter().zip(metrics).map(|(held, measure)| match held {
        Held::Distinct(values) => Held::Distinct(measure.hashes(values)),
        held => held,
    });
    let mut whole = Node { count: node.count, held: held.collect(), children: HashMap::new() };
    if let Some((split, rest)) = splits.split_first() {
        for (key, child) in node.children {
            let child = named(child, rest, metrics, show);
            let key = split.name(key);
            whole.children.entry(key).or_insert_with(|| Node::new(show)).merge(child, show);
        }
    }
    whole
}

/// A field's columns in one segment: documents may disagree about what it holds.
#[derive(Clone, Default)]
struct Columns {
    texts: Option<StrColumn>,
    numbers: Vec<Numbers>,
    flags: Option<Column<bool>>,
}

#[derive(Clone)]
enum Numbers {
    Signed(Column<i64>),
    Unsigned(Column<u64>),
    Float(Column<f64>),
}

impl Numbers {
    #[expect(clippy::cast_precision_loss, reason = "what is summed up is a float everywhere")]
    fn of(&self, document: DocId) -> impl Iterator<Item = f64> + '_ {
        let (signed, unsigned, float) = match self {
            Self::Signed(column) => (Some(column), None, None),
            Self::Unsigned(column) => (None, Some(column), None),
            Self::Float(column) => (None, None, Some(column)),
        };
        let signed = signed.into_iter().flat_map(move |column| column.values_for_doc(document));
        let unsigned = unsigned.into_iter().flat_map(move |column| column.values_for_doc(document));
        let float = float.into_iter().flat_map(move |column| column.values_for_doc(document));
        signed.map(|number| number as f64).chain(unsigned.map(|number| number as f64)).chain(float)
    }
}

impl Columns {
    fn new(reader: &SegmentReader, field: &str) -> tantivy::Result<Self> {
        let mut columns = Self::default();
        for handle in reader.fast_fields().dynamic_column_handles(&format!("json.{field}"))? {
            match handle.open()? {
                DynamicColumn::Str(column) => columns.texts = Some(column),
                DynamicColumn::Bool(column) => columns.flags = Some(column),
                DynamicColumn::I64(column) => columns.numbers.push(Numbers::Signed(column)),
                DynamicColumn::U64(column) => columns.numbers.push(Numbers::Unsigned(column)),
                DynamicColumn::F64(column) => columns.numbers.push(Numbers::Float(column)),
                DynamicColumn::IpAddr(_) | DynamicColumn::DateTime(_) | DynamicColumn::Bytes(_) => {
                }
            }
        }
        Ok(columns)
    }

    fn numbers(&self, document: DocId) -> impl Iterator<Item = f64> + '_ {
        self.numbers.iter().flat_map(move |numbers| numbers.of(document))
    }

    fn ordinals(&self, document: DocId) -> impl Iterator<Item = u64> + '_ {
        self.texts.iter().flat_map(move |column| column.term_ords(document))
    }

    fn flags(&self, document: DocId) -> impl Iterator<Item = bool> + '_ {
        self.flags.iter().flat_map(move |column| column.values_for_doc(document))
    }

    fn has_any(&self, document: DocId) -> bool {
        self.ordinals(document).next().is_some()
            || self.numbers(document).next().is_some()
            || self.flags(document).next().is_some()
    }

    fn text(&self, ordinal: u64) -> String {
        let mut text = String::new();
        if let Some(column) = &self.texts {
            // Of a file that was damaged since it was opened there is nothing to tell.
            let _found = column.ord_to_str(ordinal, &mut text);
        }
        text
    }
}

/// A condition in one segment.
struct Test {
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
    Above(f64),
    AtLeast(f64),
    AtMost(f64),
    Has,
}

impl Test {
    fn new(condition: &Condition, reader: &SegmentReader) -> tantivy::Result<Self> {
        let columns = Columns::new(reader, &condition.field().value)?;
        let what = match condition {
            Condition::Is(one) | Condition::Not(one) => {
                let (mut ordinals, mut numbers, mut flags) = (Vec::new(), Vec::new(), Vec::new());
                for value in &one.value {
                    match value {
                        Scalar::Text(text) => {
                            let column = columns.texts.as_ref();
                            let known = column.map(|column| column.dictionary().term_ord(text));
                            ordinals.extend(known.transpose()?.flatten());
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

    fn is_met(&self, document: DocId) -> bool {
        let columns = &self.columns;
        let any = |meets: &dyn Fn(f64) -> bool| columns.numbers(document).any(meets);
        match &self.what {
            What::Among { ordinals, numbers, flags, is_wanted } => {
                let is_among = columns.ordinals(document).any(|known| ordinals.contains(&known))
                    || any(&|number| numbers.contains(&number))
                    || columns.flags(document).any(|flag| flags.contains(&flag));
                is_among == *is_wanted
            }
            What::Above(bound) => any(&|number| number > *bound),
            What::AtLeast(bound) => any(&|number| number >= *bound),
            What::AtMost(bound) => any(&|number| number <= *bound),
            What::Has => columns.has_any(document),
        }
    }
}

fn tests<'c>(
    conditions: impl IntoIterator<Item = &'c Condition>,
    reader: &SegmentReader,
) -> tantivy::Result<Vec<Test>> {
    conditions.into_iter().map(|condition| Test::new(condition, reader)).collect()
}

/// A split in one segment.
struct Divider {
    columns: Columns,
    how: How,
}

enum How {
    Time { view: View, step: i64 },
    Values { missing: Option<String> },
    Classes(Vec<f64>),
    Steps(f64),
    Cases(Vec<(String, Vec<Test>)>),
    Tiles(u32),
}

impl Divider {
    fn new(split: &Split, view: &View, reader: &SegmentReader) -> tantivy::Result<Self> {
        let how = match split {
            Split::Time(by) => How::Time { view: view.clone(), step: view.step(by) },
            Split::Values(by) => How::Values { missing: by.missing.clone() },
            Split::Classes(by) => How::Classes(by.at.clone()),
            Split::Steps(by) => How::Steps(by.every),
            Split::Tiles(by) => How::Tiles(by.zoom),
            Split::Cases(by) => {
                let cases = by.cases.iter();
                let cases = cases.map(|case| Ok((case.label.clone(), tests(&case.when, reader)?)));
                How::Cases(cases.collect::<tantivy::Result<_>>()?)
            }
        };
        let columns = split.field().map(|field| Columns::new(reader, &field.value)).transpose()?;
        Ok(Self { columns: columns.unwrap_or_default(), how })
    }

    /// The parts that a document belongs to, each once.
    fn keys(&self, document: DocId, keys: &mut Vec<Short>) {
        let columns = &self.columns;
        match &self.how {
            How::Time { view, step } => keys.extend(columns.numbers(document).map(|time| {
                #[expect(clippy::cast_possible_truncation, reason = "a time in milliseconds")]
                Short::Time(view.begin(time as i64, *step))
            })),
            How::Values { missing } => {
                keys.extend(columns.ordinals(document).map(Short::Ordinal));
                keys.extend(columns.flags(document).map(Short::Flag));
                let numbers = columns.numbers(document);
                keys.extend(numbers.map(|number| Short::Number(number.to_bits())));
                if keys.is_empty() && missing.is_some() {
                    keys.push(Short::Missing);
                }
            }
            How::Classes(at) => keys.extend(columns.numbers(document).map(|number| {
                let begun = at.iter().rev().find(|begin| **begin <= number);
                begun.map_or(Short::Least, |begin| Short::Number(begin.to_bits()))
            })),
            How::Steps(every) => keys.extend(
                columns
                    .numbers(document)
                    .map(|number| Short::Number(((number / every).floor() * every).to_bits())),
            ),
            How::Cases(cases) => {
                let met = cases
                    .iter()
                    .enumerate()
                    .filter(|(_, (_, tests))| tests.iter().all(|test| test.is_met(document)));
                keys.extend(met.map(|(place, _)| Short::Case(place)));
            }
            How::Tiles(zoom) => {
                let places = columns.ordinals(document).map(|ordinal| columns.text(ordinal));
                keys.extend(places.filter_map(|place| tile(&place, *zoom)));
            }
        }
        // A document counts once in each part, however often it says so.
        if keys.len() > 1 {
            let mut seen = HashSet::default();
            keys.retain(|key| seen.insert(*key));
        }
    }

    fn name(&self, key: Short) -> Key {
        match (key, &self.how) {
            (Short::Ordinal(ordinal), _) => Key::Text(self.columns.text(ordinal)),
            (Short::Missing, How::Values { missing }) => {
                Key::Text(missing.clone().unwrap_or_default())
            }
            (Short::Case(place), How::Cases(cases)) => {
                Key::Text(cases.get(place).map(|(label, _)| label.clone()).unwrap_or_default())
            }
            (Short::Flag(flag), _) => Key::Text(flag.to_string()),
            (Short::Time(time), _) => Key::Time(time),
            (Short::Number(bits), _) => Key::Number(Some(f64::from_bits(bits))),
            (Short::Tile(zoom, x, y), _) => Key::Tile(zoom, x, y),
            (Short::Least | Short::Missing | Short::Case(_), _) => Key::Number(None),
        }
    }
}

/// The tile that `latitude,longitude` is in, as the map's projection (Web Mercator) has it.
fn tile(place: &str, zoom: u32) -> Option<Short> {
    let (latitude, longitude) = place.split_once(',')?;
    let latitude: f64 = latitude.trim().parse().ok()?;
    let longitude: f64 = longitude.trim().parse().ok()?;
    let latitude = latitude.clamp(-LATITUDE_MAX, LATITUDE_MAX).to_radians();
    let count = f64::from(1_u32 << zoom);
    let x = (longitude + 180.0) / 360.0 * count;
    let y = (1.0 - latitude.tan().asinh() / std::f64::consts::PI) / 2.0 * count;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 2^zoom, which is checked"
    )]
    let number = |value: f64| value.clamp(0.0, count - 1.0) as u32;
    Some(Short::Tile(zoom, number(x), number(y)))
}

/// A value in one segment.
struct Measure {
    columns: Columns,
    tests: Vec<Test>,
}

impl Measure {
    fn new(metric: &Metric, reader: &SegmentReader) -> tantivy::Result<Self> {
        let columns = match metric.value.field() {
            Some(field) => Columns::new(reader, &field.value)?,
            None => Columns::default(),
        };
        Ok(Self { columns, tests: tests(&metric.when, reader)? })
    }

    fn add(&self, held: &mut Held, document: DocId, newest: (i64, DocAddress)) {
        if matches!(held, Held::Nothing) || !self.tests.iter().all(|test| test.is_met(document)) {
            return;
        }
        match held {
            Held::Count(count) => *count += 1,
            Held::Distinct(values) => {
                values.extend(self.columns.ordinals(document));
                values.extend(self.columns.numbers(document).map(f64::to_bits));
            }
            Held::Last(last) => {
                if self.columns.has_any(document) {
                    *last = (*last).max(Some(newest));
                }
            }
            held => held.add(self.columns.numbers(document)),
        }
    }

    /// What stands for the same in all segments.
    fn hashes(&self, values: HashSet<u64>) -> HashSet<u64> {
        if self.columns.texts.is_none() {
            return values;
        }
        values.into_iter().map(|ordinal| xxh3_64(self.columns.text(ordinal).as_bytes())).collect()
    }
}

/// Collects the documents that meet conditions, with their times.
struct Met {
    conditions: Vec<Condition>,
}

struct MetInSegment {
    ordinal: u32,
    tests: Vec<Test>,
    times: Column<i64>,
    met: Vec<(i64, DocAddress)>,
}

impl Collector for Met {
    type Fruit = Vec<(i64, DocAddress)>;
    type Child = MetInSegment;

    fn for_segment(&self, ordinal: u32, reader: &SegmentReader) -> tantivy::Result<MetInSegment> {
        let tests = tests(&self.conditions, reader)?;
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

#[cfg(test)]
mod tests;
