//! Panels over the index: one pass over the documents that a panel looks at, reading columns.
//!
//! Every part is counted whole, so nothing depends on how the index is cut into segments. What a server only estimates is exact
//! here: different values and percentiles.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt};
use serde_json::Value as Json;
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::query::{BooleanQuery, Occur};
use tantivy::{DocAddress, DocId, Score, Searcher, SegmentReader};

use columns::{Test, tests};
use divide::{Divider, Short};
use listing::{Listing, Met};
use measure::{Held, Measure};

use super::{EmbeddedIndex, unavailable};
use crate::panels::answer::{
    Answer, Choice, Datum, Found, Key, View, finish, listed, values_alone,
};
use crate::panels::model::{Condition, Form, Panel, Scalar, Split, Value};
use crate::panels::request::TILES_MAX;
use crate::search::SearchError;

mod columns;
mod divide;
mod listing;
mod measure;

/// Most parts of one panel, those that are not shown included: of each some hundred bytes are held.
const PARTS_MAX: usize = 200_000;
/// How long one panel may take, as Elasticsearch is told.
const PANEL_TIME: Duration = Duration::from_secs(20);
/// Documents between two looks at the clock.
const BETWEEN_LOOKS: u32 = 4096;

/// Until when a panel that begins now may be computed.
fn until() -> Instant {
    Instant::now() + PANEL_TIME
}

fn too_late() -> SearchError {
    SearchError::Unavailable(anyhow::anyhow!("the panel took longer than {PANEL_TIME:?}"))
}

/// Tells a collector, which cannot be stopped, when to look at nothing any more.
struct Clock {
    until: Instant,
    count: u32,
    is_late: bool,
}

impl Clock {
    fn new(until: Instant) -> Self {
        Self { until, count: 0, is_late: false }
    }

    /// Counts one document.
    fn is_late(&mut self) -> bool {
        self.count += 1;
        if self.count.is_multiple_of(BETWEEN_LOOKS) {
            self.is_late |= Instant::now() >= self.until;
        }
        self.is_late
    }

    fn was_late(&self) -> bool {
        self.is_late
    }
}

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
            return self.list(&searcher, panel, view, &query);
        }
        let plan = Arc::new(Plan::new(panel, view));
        let counting = Counting { plan: Arc::clone(&plan), until: until() };
        let whole = searcher.search(&query, &counting).map_err(unavailable)?;
        let whole = whole.map_err(|stopped| match stopped {
            Stopped::TooMany => SearchError::Refused(format!(
                "panel {} has more than {PARTS_MAX} parts; look at less time",
                panel.id.value
            )),
            Stopped::TooLate => too_late(),
        })?;
        let mut found = Vec::new();
        let documents = whole.count;
        self.parts(&searcher, (&plan, &panel.by), whole, &mut Vec::new(), &mut found)?;
        Ok(finish(panel, view, documents, found))
    }

    fn looked_at(&self, panel: &Panel, view: &View) -> BooleanQuery {
        let values = |(field, choices): &(String, Vec<Choice>)| {
            Some((field.clone(), values_alone(choices)?))
        };
        let filters: Vec<_> = view.filters.iter().filter_map(values).collect();
        let mut clauses = self.narrowed(&filters, Some(view.from), Some(view.to));
        clauses.push((Occur::Must, Box::new(self.any_of("elastic_type", &panel.of))));
        for condition in &panel.when {
            if let Condition::Is(one) = condition {
                let values: Vec<String> = one.value.iter().map(Scalar::to_string).collect();
                clauses.push((Occur::Must, Box::new(self.any_of(&one.field.value, &values))));
            }
        }
        BooleanQuery::new(clauses)
    }

    fn list(
        &self,
        searcher: &Searcher,
        panel: &Panel,
        view: &View,
        query: &BooleanQuery,
    ) -> Result<Answer, SearchError> {
        let met = searcher.search(query, &Listing { panel, view, until: until() });
        let Met { count, first } = met.map_err(unavailable)?.ok_or_else(too_late)?;
        let rows = first.into_iter().map(|(_, address)| {
            let said = self.said(searcher, address)?;
            let columns = panel.columns.iter();
            Ok(columns.map(|column| Datum::said(&said, &column.value)).collect())
        });
        listed(count, rows)
    }

    /// A document as it was written. Its address is one of this `searcher`: the index may have moved on since.
    fn said(&self, searcher: &Searcher, address: DocAddress) -> Result<Json, SearchError> {
        let found = self.found(searcher, address)?;
        serde_json::from_str(found.source.get())
            .map_err(|error| SearchError::Unavailable(error.into()))
    }

    /// Puts parts in order, cuts off those that are too many, and gives the innermost with their values.
    fn parts(
        &self,
        searcher: &Searcher,
        (plan, splits): (&Plan, &[Split]),
        node: Node<Key>,
        keys: &mut Vec<Key>,
        found: &mut Vec<Found>,
    ) -> Result<(), SearchError> {
        let Some((split, rest)) = splits.split_first() else {
            let mut values = Vec::with_capacity(node.held.len());
            for (metric, held) in plan.panel.show.iter().zip(node.held) {
                values.push(match (held, &metric.value) {
                    (Held::Last(Some((_, address))), Value::Last(field)) => {
                        Datum::said(&self.said(searcher, address)?, &field.value)
                    }
                    (held, _) => held.datum(),
                });
            }
            found.push(Found { keys: keys.clone(), values });
            return Ok(());
        };
        let Some(level) = plan.levels.get(plan.panel.by.len() - rest.len()) else { return Ok(()) };
        for (key, child) in ordered(split, level, node) {
            keys.push(key);
            self.parts(searcher, (plan, rest), child, keys, found)?;
            keys.pop();
        }
        Ok(())
    }
}

/// The parts of a split, in the order in which they are shown; `level` is theirs.
fn ordered(split: &Split, level: &Level, node: Node<Key>) -> Vec<(Key, Node<Key>)> {
    let mut parts: Vec<(Key, Node<Key>)> = node.children.into_iter().collect();
    let by_key = |left: &Key, right: &Key| left.partial_cmp(right).unwrap_or(Ordering::Equal);
    match split {
        Split::Values(by) => {
            #[expect(
                clippy::cast_precision_loss,
                reason = "an index holds fewer documents than 2^52"
            )]
            let weight = |node: &Node<Key>| match level.order.and_then(|place| node.held.get(place))
            {
                Some(held) => held.weight(),
                None => node.count as f64,
            };
            let mut weighed: Vec<_> =
                parts.into_iter().map(|part| (weight(&part.1), part)).collect();
            weighed.sort_by(|(one, (left, _)), (other, (right, _))| {
                other.total_cmp(one).then_with(|| by_key(left, right))
            });
            weighed.truncate(by.size as usize);
            parts = weighed.into_iter().map(|(_, part)| part).collect();
        }
        Split::Classes(by) => {
            let keys = by.bounds().map(|(from, _)| Key::Number(from));
            parts = keys.map(|key| each(&mut parts, key, level)).collect();
        }
        Split::Cases(by) => {
            let keys = by.cases.iter().map(|case| Key::Text(case.label.clone()));
            parts = keys.map(|key| each(&mut parts, key, level)).collect();
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
fn each(parts: &mut Vec<(Key, Node<Key>)>, key: Key, level: &Level) -> (Key, Node<Key>) {
    match parts.iter().position(|(known, _)| *known == key) {
        Some(place) => parts.swap_remove(place),
        None => (key, Node::new(level)),
    }
}

/// What the query leaves to be met column by column.
fn unasked(panel: &Panel, view: &View, reader: &SegmentReader) -> tantivy::Result<Vec<Test>> {
    let conditions = panel.when.iter().filter(|condition| !matches!(condition, Condition::Is(_)));
    let mut unasked = tests(conditions, reader)?;
    for (field, choices) in view.filters.iter().filter(|(_, all)| values_alone(all).is_none()) {
        unasked.push(Test::chosen(field, choices, reader)?);
    }
    Ok(unasked)
}

struct Plan {
    panel: Panel,
    view: View,
    /// Of the whole, then of the parts of each split.
    levels: Vec<Level>,
    /// All that values ask for, each once.
    asked: Vec<Condition>,
    /// What each value asks for, as places in `asked`.
    whens: Vec<Vec<usize>>,
}

/// What is held of parts at one depth: of the innermost all that is shown, of others only by what they are put in order.
struct Level {
    /// Places of metrics.
    metrics: Vec<usize>,
    /// What is held of them where there is no document.
    blank: Vec<Held>,
    /// Which of them is what parts are put in order by.
    order: Option<usize>,
}

impl Plan {
    fn new(panel: &Panel, view: &View) -> Self {
        let levels = (0..=panel.by.len()).map(|depth| Level::new(panel, depth)).collect();
        let mut asked: Vec<Condition> = Vec::new();
        let mut place = |condition: &Condition| {
            asked.iter().position(|known| known == condition).unwrap_or_else(|| {
                asked.push(condition.clone());
                asked.len() - 1
            })
        };
        let whens = panel.show.iter().map(|metric| metric.when.iter().map(&mut place).collect());
        let whens = whens.collect();
        Self { panel: panel.clone(), view: view.clone(), levels, asked, whens }
    }

    /// Of no document.
    fn whole<K: Eq + Hash>(&self) -> Node<K> {
        Node {
            count: 0,
            held: self.levels.first().map(|level| level.blank.clone()).unwrap_or_default(),
            children: HashMap::new(),
        }
    }
}

impl Level {
    fn new(panel: &Panel, depth: usize) -> Self {
        let order = match depth.checked_sub(1).and_then(|split| panel.by.get(split)) {
            Some(Split::Values(by)) => by.order.as_ref(),
            _ => None,
        };
        let ordering = order
            .and_then(|order| panel.show.iter().position(|metric| metric.id.value == order.value));
        let metrics: Vec<usize> = if depth == panel.by.len() {
            (0..panel.show.len()).collect()
        } else {
            ordering.into_iter().collect()
        };
        let order = metrics.iter().position(|place| Some(*place) == ordering);
        let shown = metrics.iter().filter_map(|place| panel.show.get(*place));
        let blank = shown.map(|metric| Held::new(&metric.value)).collect();
        Self { metrics, blank, order }
    }
}

/// Documents that are counted together.
#[derive(Debug)]
struct Node<K> {
    count: u64,
    /// As their level has it.
    held: Vec<Held>,
    children: HashMap<K, Node<K>>,
}

impl<K: Eq + Hash> Node<K> {
    fn new(level: &Level) -> Self {
        Self { count: 0, held: level.blank.clone(), children: HashMap::new() }
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        for (own, more) in self.held.iter_mut().zip(other.held) {
            own.merge(more);
        }
        for (key, child) in other.children {
            self.add(key, child);
        }
    }

    fn add(&mut self, key: K, child: Self) {
        match self.children.entry(key) {
            Entry::Occupied(mut known) => known.get_mut().merge(child),
            Entry::Vacant(place) => {
                place.insert(child);
            }
        }
    }

    fn nodes(&self) -> usize {
        1 + self.children.values().map(Self::nodes).sum::<usize>()
    }
}

/// Why a panel was not computed to its end.
#[derive(Clone, Copy)]
enum Stopped {
    /// It has too many parts.
    TooMany,
    /// It takes too long.
    TooLate,
}

/// Collects what a panel counts.
struct Counting {
    plan: Arc<Plan>,
    until: Instant,
}

impl Collector for Counting {
    type Fruit = Result<Node<Key>, Stopped>;
    type Child = Segment;

    fn for_segment(&self, ordinal: u32, reader: &SegmentReader) -> tantivy::Result<Segment> {
        let Plan { panel, view, asked, whens, .. } = &*self.plan;
        let splits = panel.by.iter().map(|split| Divider::new(split, view, reader));
        let metrics = panel.show.iter().zip(whens);
        let metrics = metrics.map(|(metric, when)| Measure::new(metric, when, reader));
        Ok(Segment {
            ordinal,
            conditions: unasked(panel, view, reader)?,
            splits: splits.collect::<tantivy::Result<_>>()?,
            metrics: metrics.collect::<tantivy::Result<_>>()?,
            asked: tests(asked, reader)?,
            met: vec![false; asked.len()],
            whole: self.plan.whole(),
            parts: 1,
            keys: vec![Vec::new(); panel.by.len()],
            plan: Arc::clone(&self.plan),
            clock: Clock::new(self.until),
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, segments: Vec<Self::Fruit>) -> tantivy::Result<Self::Fruit> {
        let mut whole = self.plan.whole();
        for segment in segments {
            match segment {
                Ok(segment) => whole.merge(segment),
                Err(stopped) => return Ok(Err(stopped)),
            }
            if whole.nodes() > PARTS_MAX {
                return Ok(Err(Stopped::TooMany));
            }
        }
        Ok(Ok(whole))
    }
}

/// One segment being read.
struct Segment {
    ordinal: u32,
    conditions: Vec<Test>,
    splits: Vec<Divider>,
    metrics: Vec<Measure>,
    asked: Vec<Test>,
    /// Which of `asked` the document at hand meets.
    met: Vec<bool>,
    whole: Node<Short>,
    parts: usize,
    /// The parts that the document at hand belongs to, of each split.
    keys: Vec<Vec<Short>>,
    plan: Arc<Plan>,
    clock: Clock,
}

impl SegmentCollector for Segment {
    type Fruit = Result<Node<Key>, Stopped>;

    fn collect(&mut self, document: DocId, _: Score) {
        if self.clock.is_late()
            || self.parts > PARTS_MAX
            || !self.conditions.iter().all(|test| test.is_met(document))
        {
            return;
        }
        for (split, keys) in self.splits.iter().zip(&mut self.keys) {
            keys.clear();
            split.keys(document, keys);
        }
        for (test, met) in self.asked.iter().zip(&mut self.met) {
            *met = test.is_met(document);
        }
        let Self { metrics, met, ordinal: segment, .. } = self;
        let measuring = Measuring { metrics, met, document, segment: *segment };
        measuring.count(&mut self.whole, &self.keys, &self.plan.levels, &mut self.parts);
    }

    fn harvest(self) -> Self::Fruit {
        if self.parts > PARTS_MAX {
            return Err(Stopped::TooMany);
        }
        if self.clock.was_late() {
            return Err(Stopped::TooLate);
        }
        let Self { splits, metrics, whole, plan, .. } = self;
        let names = Names::new(&whole, &splits, &metrics, &plan.levels);
        Ok(names.named(whole, &splits, &plan.levels))
    }
}

/// One document on its way into all the parts that it belongs to.
struct Measuring<'s> {
    metrics: &'s [Measure],
    met: &'s [bool],
    document: DocId,
    segment: u32,
}

impl Measuring<'_> {
    fn count(
        &self,
        node: &mut Node<Short>,
        keys: &[Vec<Short>],
        levels: &[Level],
        parts: &mut usize,
    ) {
        node.count += 1;
        let Some((level, inner)) = levels.split_first() else { return };
        for (held, place) in node.held.iter_mut().zip(&level.metrics) {
            if let Some(measure) = self.metrics.get(*place)
                && measure.applies(self.met)
            {
                measure.add(held, self.document, self.segment);
            }
        }
        let (Some((own, rest)), Some(level)) = (keys.split_first(), inner.first()) else { return };
        for key in own {
            let child = node.children.entry(*key).or_insert_with(|| {
                *parts += 1;
                Node::new(level)
            });
            self.count(child, rest, inner, parts);
        }
    }
}

/// What stands in all segments for the numbers that texts have in one.
struct Names {
    /// Of each split, the texts.
    texts: Vec<HashMap<u64, String>>,
    /// Of each metric, the hashes of texts.
    hashes: Vec<HashMap<u64, u64>>,
}

impl Names {
    fn new(whole: &Node<Short>, splits: &[Divider], metrics: &[Measure], levels: &[Level]) -> Self {
        let (mut keys, mut values) =
            (vec![Vec::new(); splits.len()], vec![Vec::new(); metrics.len()]);
        numbers(whole, levels, &mut keys, &mut values);
        let texts = splits.iter().zip(keys).map(|(split, keys)| split.texts(keys));
        let hashes = metrics.iter().zip(values).map(|(metric, values)| metric.hashes(values));
        Self { texts: texts.collect(), hashes: hashes.collect() }
    }

    /// The same node, with names that all segments share.
    fn named(&self, node: Node<Short>, splits: &[Divider], levels: &[Level]) -> Node<Key> {
        let Node { count, mut held, children } = node;
        let mut named = Node { count, held: Vec::new(), children: HashMap::new() };
        let Some((level, inner)) = levels.split_first() else { return named };
        for (held, place) in held.iter_mut().zip(&level.metrics) {
            if let (Held::Distinct(values), Some(hashes)) = (held, self.hashes.get(*place)) {
                // Numbers are what they are.
                let hash = |value| hashes.get(&value).copied().unwrap_or(value);
                *values = std::mem::take(values).into_iter().map(hash).collect();
            }
        }
        named.held = held;
        let place = self.texts.len() - splits.len();
        if let (Some((split, rest)), Some(texts)) = (splits.split_first(), self.texts.get(place)) {
            named.children.reserve(children.len());
            for (key, child) in children {
                named.add(split.name(key, texts), self.named(child, rest, inner));
            }
        }
        named
    }
}

/// The numbers of texts in `node` and all its parts, of the keys of each split and the different values of each metric.
fn numbers(node: &Node<Short>, levels: &[Level], keys: &mut [Vec<u64>], values: &mut [Vec<u64>]) {
    let Some((level, inner)) = levels.split_first() else { return };
    for (held, place) in node.held.iter().zip(&level.metrics) {
        if let (Held::Distinct(known), Some(values)) = (held, values.get_mut(*place)) {
            values.extend(known);
        }
    }
    let Some((own, rest)) = keys.split_first_mut() else { return };
    for (key, child) in &node.children {
        if let Short::Ordinal(ordinal) = key {
            own.push(*ordinal);
        }
        numbers(child, inner, rest, values);
    }
}

#[cfg(test)]
mod tests;
