//! Splits and values as columns of a Lens layer.

use serde_json::{Map, Value as Json, json};

use super::{formula, number, query};
use crate::document::fields::{Holds, Unit};
use crate::panels::model::{
    ByCases, ByClasses, BySteps, ByTime, ByValues, Every, Form, Metric, Panel, Per, Split, Value,
};
use crate::panels::source::{self, Source, exact};

/// The one layer that reads documents.
pub(super) const LAYER: &str = "main";
/// What Lens counts when it counts documents.
const RECORDS: &str = "___records___";

/// Columns in the order that Lens asks for: splits from the outermost on, values, parts of formulas.
#[derive(Default)]
pub(super) struct Layer {
    pub(super) splits: Vec<String>,
    pub(super) values: Vec<String>,
    parts: Vec<String>,
    columns: Map<String, Json>,
}

impl Layer {
    /// The splits of a panel, and those of its values that are `shown`.
    pub(super) fn of(panel: &Panel, shown: &[&Metric]) -> Self {
        let mut layer = Self::default();
        for (place, split) in panel.by.iter().enumerate() {
            let id = format!("split-{place}");
            layer.columns.insert(id.clone(), self::split(panel, shown, split));
            layer.splits.push(id);
        }
        for metric in shown {
            layer.value(panel, metric);
        }
        layer
    }

    fn value(&mut self, panel: &Panel, metric: &Metric) {
        let id = id(metric);
        let mut column = match Operation::of(panel.over, metric) {
            Some(operation) if is_plain(metric) => {
                let mut column = operation.column(&metric.label);
                if let (Some(per), Some(column)) = (metric.per, column.as_object_mut()) {
                    column.insert("timeScale".to_owned(), json!(letter(per)));
                }
                // Tables alone can show several texts at once; numbers and times are sorted better one by one.
                let is_text = column.get("dataType") == Some(&json!("string"));
                if panel.form == Form::Table && operation.kind == "last_value" && is_text {
                    put(&mut column, "showArrayValues", json!(true));
                }
                column
            }
            _ => {
                let expanded = formula::expand(panel, metric, &id);
                for (id, part) in expanded.parts {
                    self.parts.push(id.clone());
                    self.columns.insert(id, part);
                }
                expanded.column
            }
        };
        if let Some(format) = format(panel, metric) {
            put(&mut column, "format", format);
        }
        self.columns.insert(id.clone(), column);
        self.values.push(id);
    }

    pub(super) fn state(self) -> Json {
        let order: Vec<String> = [self.splits, self.values, self.parts].concat();
        json!({ "columnOrder": order, "columns": self.columns, "incompleteColumns": {} })
    }
}

fn put(column: &mut Json, name: &str, value: Json) {
    if let Some(params) = column.get_mut("params").and_then(Json::as_object_mut) {
        params.insert(name.to_owned(), value);
    }
}

/// The column of a value. Capital letters make room for the `X0`, `X1` … that Lens gives to parts of formulas.
pub(super) fn id(metric: &Metric) -> String {
    let mut id = String::new();
    for character in metric.id.value.chars() {
        if character.is_uppercase() {
            id.push('-');
        }
        id.extend(character.to_lowercase());
    }
    id
}

/// Whether Lens takes a value as a column of its own. It makes rates of counts and sums by itself, and of others by a formula.
fn is_plain(metric: &Metric) -> bool {
    match metric.value {
        Value::Formula(_) | Value::Running(_) => false,
        Value::Count | Value::Sum(_) => true,
        Value::Distinct(_)
        | Value::Mean(_)
        | Value::Min(_)
        | Value::Max(_)
        | Value::Percentile(_)
        | Value::Last(_) => metric.per.is_none(),
    }
}

/// What a step of time is called.
pub(super) fn letter(per: Per) -> &'static str {
    match per {
        Per::Second => "s",
        Per::Minute => "m",
    }
}

/// A value that Elasticsearch computes by itself.
pub(super) struct Operation<'m> {
    kind: &'static str,
    field: Option<&'m str>,
    percentile: Option<f64>,
    filter: String,
    /// When its documents were.
    time: &'static str,
}

impl<'m> Operation<'m> {
    /// `None`: it is computed of others.
    pub(super) fn of(over: Source, metric: &'m Metric) -> Option<Self> {
        let kind = match &metric.value {
            Value::Count => "count",
            Value::Distinct(_) => "unique_count",
            Value::Sum(_) => "sum",
            Value::Mean(_) => "average",
            Value::Min(_) => "min",
            Value::Max(_) => "max",
            Value::Percentile(_) => "percentile",
            Value::Last(_) => "last_value",
            Value::Formula(_) | Value::Running(_) => return None,
        };
        let percentile = match &metric.value {
            Value::Percentile(percentile) => Some(percentile.at),
            _ => None,
        };
        let filter = query::all(&metric.when);
        Some(Self {
            kind,
            field: metric.value.field().map(|field| field.value.as_str()),
            percentile,
            filter,
            time: over.time(),
        })
    }

    /// As it is written in a formula.
    pub(super) fn text(&self) -> String {
        let mut arguments: Vec<String> = self.field.map(exact).into_iter().collect();
        if let Some(percentile) = self.percentile {
            arguments.push(format!("percentile={percentile}"));
        }
        if !self.filter.is_empty() {
            arguments.push(format!("kql='{}'", self.filter.replace('\'', "\\'")));
        }
        format!("{}({})", self.kind, arguments.join(", "))
    }

    /// As a column of its own.
    pub(super) fn column(&self, label: &str) -> Json {
        let holds = self.field.and_then(source::find);
        let source = self.field.map_or_else(|| RECORDS.to_owned(), exact);
        let takes_over = matches!(self.kind, "min" | "max" | "last_value");
        let (data_type, scale) = match holds {
            Some(Holds::Date) if takes_over => ("date", "interval"),
            Some(Holds::Flag) if takes_over => ("boolean", "ordinal"),
            Some(Holds::Text) if takes_over => ("string", "ordinal"),
            _ => ("number", "ratio"),
        };
        let mut params = Map::new();
        let mut filter = self.filter.clone();
        match self.kind {
            // None is shown as 0 and not left open: nothing that was looked for is there.
            "count" | "unique_count" | "sum" => {
                params.insert("emptyAsNull".to_owned(), json!(false));
            }
            // Documents without the field are passed over, as Lens does it.
            "last_value" => {
                params.insert("sortField".to_owned(), json!(self.time));
                params.insert("showArrayValues".to_owned(), json!(false));
                let and = if filter.is_empty() { "" } else { " and " };
                filter = format!("{filter}{and}{source} : *");
            }
            _ => {}
        }
        if let Some(percentile) = self.percentile {
            params.insert("percentile".to_owned(), number(percentile));
        }
        let mut column = json!({
            "label": label, "customLabel": true, "dataType": data_type, "operationType": self.kind,
            "isBucketed": false, "scale": scale, "sourceField": source, "params": params,
        });
        if let (Some(column), false) = (column.as_object_mut(), filter.is_empty()) {
            column.insert("filter".to_owned(), json!({ "query": filter, "language": "kuery" }));
        }
        column
    }
}

/// How numbers are written; `None`: it is no number.
fn format(panel: &Panel, metric: &Metric) -> Option<Json> {
    let (unit, is_whole) = counted_in(panel, metric)?;
    let plain = |decimals: u32, suffix: &str| json!({ "id": "number", "params": { "decimals": decimals, "suffix": suffix } });
    let rate = match metric.per {
        None => "",
        Some(Per::Second) => "/s",
        Some(Per::Minute) => "/min",
    };
    Some(match unit {
        Unit::Number if metric.per.is_some() => plain(1, &format!(" {rate}")),
        Unit::Number => plain(if is_whole { 0 } else { 2 }, ""),
        Unit::Share => json!({ "id": "percent", "params": { "decimals": 1 } }),
        // Kibana's own percent multiplies by 100; these are of 100 already.
        Unit::Percent => plain(1, " %"),
        Unit::Seconds if metric.per.is_some() => plain(1, &format!(" s{rate}")),
        Unit::Seconds => json!({ "id": "duration", "params": {
            "decimals": 1, "fromUnit": "seconds", "toUnit": "humanizePrecise",
        } }),
        Unit::Milliseconds => plain(1, &format!(" ms{rate}")),
        Unit::Bytes => json!({ "id": "bytes", "params": { "decimals": 1, "suffix": rate } }),
        Unit::BitsPerSecond => json!({ "id": "bits", "params": { "decimals": 1, "suffix": "/s" } }),
    })
}

/// The unit, and whether there are no fractions of it; `None`: it is no number.
pub(super) fn counted_in(panel: &Panel, metric: &Metric) -> Option<(Unit, bool)> {
    let of = match &metric.value {
        Value::Running(of) => panel.metric(&of.value)?,
        _ => metric,
    };
    let is_whole = match &of.value {
        Value::Count | Value::Distinct(_) => true,
        Value::Formula(_) | Value::Running(_) | Value::Mean(_) | Value::Percentile(_) => false,
        Value::Sum(field) | Value::Min(field) | Value::Max(field) | Value::Last(field) => {
            matches!(source::find(&field.value), Some(Holds::Whole(_)))
        }
    };
    Some((metric.unit.or_else(|| of.unit())?, is_whole))
}

fn split(panel: &Panel, shown: &[&Metric], split: &Split) -> Json {
    match split {
        Split::Time(by) => time(panel, by),
        Split::Values(by) => values(panel, shown, by),
        Split::Classes(by) => classes(by),
        Split::Steps(by) => steps(by),
        Split::Cases(by) => cases(panel, by),
        Split::Tiles(_) => Json::Null,
    }
}

fn time(panel: &Panel, by: &ByTime) -> Json {
    let interval = match by.every {
        None => "auto",
        Some(Every::Day) => "1d",
    };
    json!({
        "label": "Time", "customLabel": true, "dataType": "date", "operationType": "date_histogram",
        "isBucketed": true, "scale": "interval", "sourceField": by.field.value,
        "params": {
            "interval": interval, "includeEmptyRows": panel.form != Form::Table,
            // A rate of a part of a step would be taken for one of the whole.
            "dropPartials": panel.show.iter().any(|metric| metric.per.is_some()),
        },
    })
}

fn values(panel: &Panel, shown: &[&Metric], by: &ByValues) -> Json {
    let (data_type, scale) = match source::find(&by.field.value) {
        Some(Holds::Flag) => ("boolean", "ordinal"),
        Some(holds) if holds.is_number() => ("number", "ordinal"),
        _ => ("string", "ordinal"),
    };
    let has_missing = by.missing.is_some();
    let mut params = json!({
        "size": by.size, "orderDirection": "desc", "parentFormat": { "id": "terms" },
        // Lens gives those without a value a part only if the others have one.
        "otherBucket": has_missing, "missingBucket": has_missing,
        "include": [], "exclude": [], "includeIsRegex": false, "excludeIsRegex": false,
    });
    let by_what = by.order.as_ref().and_then(|order| panel.metric(&order.value));
    let by_column = match by_what {
        Some(by_what) => shown.iter().find(|metric| metric.id.value == by_what.id.value),
        None => shown.iter().find(|metric| {
            matches!(metric.value, Value::Count) && metric.when.is_empty() && metric.per.is_none()
        }),
    };
    let (order, aggregation) = match by_column.filter(|metric| is_plain(metric)) {
        Some(metric) => (json!({ "type": "column", "columnId": id(metric) }), None),
        None => {
            let count = Operation {
                kind: "count",
                field: None,
                percentile: None,
                filter: String::new(),
                time: panel.over.time(),
            };
            let operation =
                by_what.and_then(|metric| Operation::of(panel.over, metric)).unwrap_or(count);
            (json!({ "type": "custom" }), Some(operation.column("Order")))
        }
    };
    if let Some(params) = params.as_object_mut() {
        params.insert("orderBy".to_owned(), order);
        params.extend(aggregation.map(|aggregation| ("orderAgg".to_owned(), aggregation)));
    }
    json!({
        "label": by.label, "customLabel": true, "dataType": data_type, "operationType": "terms",
        "isBucketed": true, "scale": scale, "sourceField": exact(&by.field.value), "params": params,
    })
}

fn classes(by: &ByClasses) -> Json {
    let range = |(from, to): (Option<f64>, Option<f64>)| json!({ "from": from.map(number), "to": to.map(number), "label": class(by, from, to) });
    let ranges: Vec<Json> = by.bounds().map(range).collect();
    json!({
        "label": by.label, "customLabel": true, "dataType": "string", "operationType": "range",
        "isBucketed": true, "scale": "ordinal", "sourceField": by.field.value,
        "params": {
            "type": "range", "maxBars": "auto", "ranges": ranges,
            "parentFormat": { "id": "range", "params": { "template": "arrow_right", "replaceInfinity": true } },
        },
    })
}

/// A class in words: it includes where it begins, and not where it ends.
pub(super) fn class(by: &ByClasses, from: Option<f64>, to: Option<f64>) -> String {
    let holds = source::find(&by.field.value);
    let unit = holds.and_then(Holds::unit).unwrap_or(Unit::Number);
    let is_count = matches!(holds, Some(Holds::Whole(Unit::Number)));
    match (from, to) {
        (None, None) => "all".to_owned(),
        (None, Some(to)) => format!("under {}", in_words(to, unit)),
        (Some(from), None) => format!("{} and more", in_words(from, unit)),
        (Some(from), Some(to)) if is_count && to - from <= 1.0 => format!("{from}"),
        (Some(from), Some(to)) if is_count => format!("{from} – {}", to - 1.0),
        (Some(from), Some(to)) => format!("{} to {}", in_words(from, unit), in_words(to, unit)),
    }
}

/// A bound as people say it: in the largest unit of which it is a whole number.
fn in_words(value: f64, unit: Unit) -> String {
    let units: &[(f64, &str)] = match unit {
        Unit::Bytes => &[(1_073_741_824.0, "GB"), (1_048_576.0, "MB"), (1_024.0, "kB"), (1.0, "B")],
        Unit::Seconds => &[(3_600.0, "h"), (60.0, "min"), (1.0, "s")],
        Unit::Milliseconds => &[(1_000.0, "s"), (1.0, "ms")],
        Unit::Percent => &[(1.0, "%")],
        _ => &[],
    };
    let fits = |(size, _): &&(f64, &str)| value >= *size && value % size == 0.0;
    match units.iter().find(fits).or(units.last()) {
        Some((size, name)) => format!("{} {name}", value / size),
        None => format!("{value}"),
    }
}

/// Lens chooses the step, and keeps to at most `maxBars`; it takes none that is given.
fn steps(by: &BySteps) -> Json {
    json!({
        "label": by.label, "customLabel": true, "dataType": "number", "operationType": "range",
        "isBucketed": true, "scale": "interval", "sourceField": by.field.value,
        "params": {
            "type": "histogram", "maxBars": "auto", "includeEmptyRows": true,
            "ranges": [{ "from": 0, "to": number(by.every), "label": "" }],
        },
    })
}

fn cases(panel: &Panel, by: &ByCases) -> Json {
    let filters: Vec<Json> = by
        .cases
        .iter()
        .map(|case| json!({ "label": case.label, "input": { "query": query::whatever(panel.over, &case.when), "language": "kuery" } }))
        .collect();
    json!({
        "label": by.label, "customLabel": true, "dataType": "string", "operationType": "filters",
        "isBucketed": true, "scale": "ordinal", "params": { "filters": filters },
    })
}
