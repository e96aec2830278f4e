//! A panel as one search request to Elasticsearch or OpenSearch, and what the answer says.

use serde_json::{Map, Value as Json, json};

use super::answer::{Answer, Choice, Datum, Found, Key, View, finish, listed, values_alone};
use super::model::{ByTime, Case, Condition, Form, Metric, Panel, Scalar, Split, Value};
use crate::document::fields::{self, Holds, exact};

/// Most tiles of one map.
pub const TILES_MAX: u32 = 10_000;
/// Most documents of one list.
pub const LIST_MAX: u32 = 500;
/// Up to how many different values are counted exactly.
const EXACT_UP_TO: u32 = 3_000;
/// What the parts of a split are called in request and answer, and what a value is that is asked of some documents alone.
pub(super) const SPLIT: &str = "split";
pub(super) const VALUE: &str = "value";

/// Why an answer cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the answer to panel {panel} lacks {what}")]
pub struct Unreadable {
    panel: String,
    what: String,
}

/// The request: the body of a `_search`.
#[must_use]
pub fn body(panel: &Panel, view: &View) -> Json {
    let mut filter = vec![
        json!({ "range": { "timestamp": { "gte": view.from, "lt": view.to, "format": "epoch_millis" } } }),
    ];
    filter.extend(view.filters.iter().map(|(field, choices)| chosen(field, choices)));
    filter.extend(looks_at(panel));
    let mut body = Map::new();
    body.insert("query".to_owned(), json!({ "bool": { "filter": filter } }));
    body.insert("track_total_hits".to_owned(), json!(true));
    if panel.form == Form::List {
        let columns: Vec<&str> = panel.columns.iter().map(|column| column.value.as_str()).collect();
        body.insert("size".to_owned(), json!(LIST_MAX));
        body.insert("_source".to_owned(), json!(columns));
        body.insert("sort".to_owned(), by_time(if panel.oldest_first { "asc" } else { "desc" }));
    } else {
        body.insert("size".to_owned(), json!(0));
        let histogram = |by: &ByTime| {
            json!({
                "field": by.field.value, "fixed_interval": format!("{}ms", view.step(by)), "time_zone": view.zone.name(), "min_doc_count": 1,
            })
        };
        body.insert("aggs".to_owned(), aggregations(panel, &histogram));
    }
    Json::Object(body)
}

/// What a document has to meet for the panel to look at it.
pub(super) fn looks_at(panel: &Panel) -> Vec<Json> {
    let kinds = json!({ "terms": { "elastic_type.keyword": panel.of } });
    std::iter::once(kinds).chain(panel.when.iter().map(condition)).collect()
}

/// Everything that is asked about the documents it looks at. `histogram`: how time is divided.
pub(super) fn aggregations(panel: &Panel, histogram: &impl Fn(&ByTime) -> Json) -> Json {
    level(panel, &panel.by, histogram)
}

/// What a field has to meet: one of these.
fn chosen(field: &str, choices: &[Choice]) -> Json {
    if let Some(values) = values_alone(choices) {
        return json!({ "terms": { exact(field): values } });
    }
    let one = |choice: &Choice| match choice {
        Choice::Value(value) => json!({ "term": { exact(field): value } }),
        Choice::Between(from, to) => {
            let mut range = Map::new();
            range.extend(from.map(|from| ("gte".to_owned(), json!(from))));
            range.extend(to.map(|to| ("lt".to_owned(), json!(to))));
            json!({ "range": { field: range } })
        }
        Choice::Tile(zoom, x, y) => {
            let ((top, left), (bottom, right)) =
                (corner(*zoom, *x, *y), corner(*zoom, x + 1, y + 1));
            json!({ "geo_bounding_box": { field: { "top": top, "left": left, "bottom": bottom, "right": right } } })
        }
    };
    json!({ "bool": { "should": choices.iter().map(one).collect::<Vec<_>>(), "minimum_should_match": 1 } })
}

/// Latitude and longitude of the north-western corner of a tile of the map (Web Mercator).
fn corner(zoom: u32, x: u32, y: u32) -> (f64, f64) {
    let count = f64::from(1_u32 << zoom);
    let latitude = (std::f64::consts::PI * (1.0 - 2.0 * f64::from(y) / count)).sinh().atan();
    (latitude.to_degrees(), f64::from(x) / count * 360.0 - 180.0)
}

fn by_time(order: &str) -> Json {
    json!([{ "timestamp": { "order": order, "unmapped_type": "date" } }])
}

fn condition(condition: &Condition) -> Json {
    let range = |field: &str, how: &str, bound: f64| json!({ "range": { field: { how: bound } } });
    match condition {
        Condition::Is(one) => {
            let values: Vec<Json> = one.value.iter().map(scalar).collect();
            json!({ "terms": { exact(&one.field.value): values } })
        }
        Condition::Not(one) => {
            let values: Vec<Json> = one.value.iter().map(scalar).collect();
            json!({ "bool": { "must_not": [{ "terms": { exact(&one.field.value): values } }] } })
        }
        Condition::Above(one) => range(&one.field.value, "gt", one.value),
        Condition::AtLeast(one) => range(&one.field.value, "gte", one.value),
        Condition::AtMost(one) => range(&one.field.value, "lte", one.value),
        Condition::Has(field) => json!({ "exists": { "field": field.value } }),
    }
}

fn scalar(value: &Scalar) -> Json {
    match value {
        Scalar::Flag(flag) => json!(flag),
        Scalar::Number(number) => json!(number),
        Scalar::Text(text) => json!(text),
    }
}

fn all(conditions: &[Condition]) -> Json {
    let filter: Vec<Json> = conditions.iter().map(condition).collect();
    json!({ "bool": { "filter": filter } })
}

/// Aggregations of what `splits` are left: all values at the innermost, before only those that put parts in order.
fn level(panel: &Panel, splits: &[Split], histogram: &impl Fn(&ByTime) -> Json) -> Json {
    let mut aggs = Map::new();
    let Some((split, rest)) = splits.split_first() else {
        for metric in &panel.show {
            aggs.extend(metric_aggregation(metric));
        }
        return Json::Object(aggs);
    };
    let mut inner = level(panel, rest, histogram);
    let mut own = split_aggregation(panel, split, histogram);
    if let (Split::Values(by), Some(inner)) = (split, inner.as_object_mut())
        && let Some(order) = &by.order
        && let Some(metric) = panel.metric(&order.value)
    {
        inner.extend(metric_aggregation(metric));
    }
    if let Some(own) = own.as_object_mut() {
        own.insert("aggs".to_owned(), inner);
    }
    aggs.insert(SPLIT.to_owned(), own);
    Json::Object(aggs)
}

fn split_aggregation(panel: &Panel, split: &Split, histogram: &impl Fn(&ByTime) -> Json) -> Json {
    match split {
        Split::Time(by) => json!({ "date_histogram": histogram(by) }),
        Split::Values(by) => {
            let by_key = json!({ "_key": "asc" });
            let first = by.order.as_ref().and_then(|order| panel.metric(&order.value));
            let first = first.map_or_else(|| "_count".to_owned(), order_path);
            let mut terms = Map::new();
            terms.insert("field".to_owned(), json!(exact(&by.field.value)));
            terms.insert("size".to_owned(), json!(by.size));
            terms.insert("order".to_owned(), json!([{ first: "desc" }, by_key]));
            terms.extend(by.missing.as_ref().map(|name| ("missing".to_owned(), json!(name))));
            json!({ "terms": terms })
        }
        Split::Classes(by) => {
            let ranges: Vec<Json> = by
                .bounds()
                .map(|(from, to)| {
                    let mut range = Map::new();
                    range.extend(from.map(|from| ("from".to_owned(), json!(from))));
                    range.extend(to.map(|to| ("to".to_owned(), json!(to))));
                    Json::Object(range)
                })
                .collect();
            json!({ "range": { "field": by.field.value, "ranges": ranges } })
        }
        Split::Steps(by) => json!({ "histogram": {
            "field": by.field.value, "interval": by.every, "min_doc_count": 1,
        } }),
        Split::Cases(by) => {
            let named = |case: &Case| (case.label.clone(), all(&case.when));
            let filters: Map<String, Json> = by.cases.iter().map(named).collect();
            json!({ "filters": { "filters": filters } })
        }
        Split::Tiles(by) => json!({ "geotile_grid": {
            "field": by.field.value, "precision": by.zoom, "size": TILES_MAX,
        } }),
    }
}

/// How an order names a value.
fn order_path(metric: &Metric) -> String {
    let id = &metric.id.value;
    match (&metric.value, metric.when.is_empty()) {
        (Value::Count, true) => "_count".to_owned(),
        // Of a filter it is the number of documents.
        (Value::Count, false) | (_, true) => id.clone(),
        (_, false) => format!("{id}>{VALUE}"),
    }
}

/// The aggregation of a value, if it needs one.
fn metric_aggregation(metric: &Metric) -> Option<(String, Json)> {
    let own = match &metric.value {
        Value::Count | Value::Formula(_) | Value::Running(_) => None,
        Value::Distinct(of) => Some(json!({ "cardinality": {
            "field": exact(&of.value), "precision_threshold": EXACT_UP_TO,
        } })),
        Value::Sum(of) => Some(json!({ "sum": { "field": of.value } })),
        Value::Mean(of) => Some(json!({ "avg": { "field": of.value } })),
        Value::Min(of) => Some(json!({ "min": { "field": of.value } })),
        Value::Max(of) => Some(json!({ "max": { "field": of.value } })),
        Value::Percentile(of) => Some(json!({ "percentiles": {
            "field": of.field.value, "percents": [of.at], "keyed": false,
        } })),
        Value::Last(of) => Some(json!({ "filter": { "exists": { "field": of.value } }, "aggs": {
            VALUE: { "top_hits": { "size": 1, "sort": by_time("desc"), "_source": [of.value] } },
        } })),
    };
    let filtered = match (own, metric.when.is_empty()) {
        (None, true) => return None,
        (Some(own), true) => own,
        (None, false) if matches!(metric.value, Value::Count) => {
            json!({ "filter": all(&metric.when) })
        }
        (None, false) => return None,
        (Some(own), false) => json!({ "filter": all(&metric.when), "aggs": { VALUE: own } }),
    };
    Some((metric.id.value.clone(), filtered))
}

/// What the servers' answer says.
///
/// # Errors
///
/// [`Unreadable`], if it is no answer to that request.
pub fn read(panel: &Panel, view: &View, answer: &Json) -> Result<Answer, Unreadable> {
    let lacks = |what: &str| Unreadable { panel: panel.id.value.clone(), what: what.to_owned() };
    let total = answer.pointer("/hits/total/value").and_then(Json::as_u64);
    let documents = total.ok_or_else(|| lacks("hits.total"))?;
    if panel.form == Form::List {
        let hits = answer.pointer("/hits/hits").and_then(Json::as_array);
        let hits = hits.ok_or_else(|| lacks("hits.hits"))?.iter();
        let said = |hit| panel.columns.iter().map(|column| said(hit, &column.value)).collect();
        return listed(documents, hits.map(|hit| Ok(said(hit))));
    }
    let aggregations = answer.get("aggregations");
    if documents == 0 && aggregations.is_none() {
        // There is no index yet.
        return Ok(finish(panel, view, 0, Vec::new()));
    }
    let mut whole = aggregations.cloned().unwrap_or_else(|| json!({}));
    if let Some(whole) = whole.as_object_mut() {
        whole.insert("doc_count".to_owned(), json!(documents));
    }
    let mut reading = Reading { panel, found: Vec::new() };
    reading.parts(&whole, &panel.by, &mut Vec::new()).map_err(|what| lacks(&what))?;
    Ok(finish(panel, view, documents, reading.found))
}

struct Reading<'p> {
    panel: &'p Panel,
    found: Vec<Found>,
}

impl Reading<'_> {
    fn parts(&mut self, of: &Json, splits: &[Split], keys: &mut Vec<Key>) -> Result<(), String> {
        let Some((split, rest)) = splits.split_first() else {
            let values = self.panel.show.iter().map(|metric| value(of, metric)).collect();
            self.found.push(Found { keys: keys.clone(), values });
            return Ok(());
        };
        let buckets = of.get(SPLIT).and_then(|split| split.get("buckets"));
        let buckets = buckets.ok_or("aggregations")?;
        if let Split::Cases(by) = split {
            for case in &by.cases {
                let bucket = buckets.get(&case.label).ok_or_else(|| case.label.clone())?;
                keys.push(Key::Text(case.label.clone()));
                self.parts(bucket, rest, keys)?;
                keys.pop();
            }
            return Ok(());
        }
        for bucket in buckets.as_array().ok_or("buckets")? {
            keys.push(key(split, bucket).ok_or("the key of a bucket")?);
            self.parts(bucket, rest, keys)?;
            keys.pop();
        }
        Ok(())
    }
}

fn key(split: &Split, bucket: &Json) -> Option<Key> {
    let key = bucket.get("key")?;
    match split {
        Split::Time(_) => Some(Key::Time(key.as_i64()?)),
        Split::Classes(_) => Some(Key::Number(bucket.get("from").and_then(Json::as_f64))),
        Split::Steps(_) => Some(Key::Number(Some(key.as_f64()?))),
        Split::Tiles(_) => {
            let mut parts = key.as_str()?.split('/').map(str::parse);
            let mut next = || parts.next()?.ok();
            Some(Key::Tile(next()?, next()?, next()?))
        }
        Split::Values(by) => match (fields::find(&by.field.value), key) {
            (Some(Holds::Flag), _) => {
                Some(Key::Text(bucket.get("key_as_string")?.as_str()?.to_owned()))
            }
            (_, Json::Number(number)) => Some(Key::Number(number.as_f64())),
            (_, text) => Some(Key::Text(text.as_str()?.to_owned())),
        },
        Split::Cases(_) => None,
    }
}

fn value(of: &Json, metric: &Metric) -> Datum {
    let own = of.get(&metric.id.value);
    let own = match (&metric.value, metric.when.is_empty()) {
        (Value::Count, true) => return count(Some(of)),
        (Value::Count, false) => return count(own),
        (_, true) => own,
        (_, false) => own.and_then(|own| own.get(VALUE)),
    };
    let Some(own) = own else { return Datum::Nothing };
    match &metric.value {
        Value::Percentile(_) => number(own.pointer("/values/0/value")),
        Value::Last(of) => {
            let hit = own.pointer(&format!("/{VALUE}/hits/hits/0"));
            hit.map_or(Datum::Nothing, |hit| said(hit, &of.value))
        }
        _ => number(own.get("value")),
    }
}

fn count(of: Option<&Json>) -> Datum {
    number(of.and_then(|of| of.get("doc_count")))
}

fn number(json: Option<&Json>) -> Datum {
    json.and_then(Json::as_f64).map_or(Datum::Nothing, Datum::Number)
}

/// What the document of a hit says in a field.
fn said(hit: &Json, field: &str) -> Datum {
    hit.get("_source").map_or(Datum::Nothing, |document| Datum::said(document, field))
}
