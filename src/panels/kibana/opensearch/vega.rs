//! Charts in Vega-Lite, for what classic charts cannot say: values asked of some documents alone, rates, formulas, running sums.
//!
//! The request is the one that the page and the tests make, below a filter, so that dashboards can narrow the whole. What is
//! reckoned is reckoned from its answer, by rules of [`answer`](crate::panels::answer). Time is divided in UTC.

use serde_json::{Value as Json, json};

use super::super::encoded;
use super::expression::{key, term, text, value, written};
use crate::panels::model::{ByTime, Every, Form, Metric, Panel, Per, Split, Value};
use crate::panels::request::{self, SPLIT};

/// About as many parts of time as a chart has room for.
const STEPS: u32 = 100;
/// Rows of a table: more would lie on each other.
const ROWS: u32 = 20;
/// The older of the two versions that OpenSearch Dashboards 2 and 3 have.
const SCHEMA: &str = "https://vega.github.io/schema/vega-lite/v4.json";

/// The state of a chart that shows these values.
pub(super) fn state(panel: &Panel, shown: &[&Metric], title: &str, index: &str) -> Json {
    let panel = with_operands(panel, shown);
    let drawing = Drawing { panel: &panel, shown };
    json!({
        "title": title, "type": "vega", "aggs": [], "params": { "spec": encoded(&drawing.specification(index)) },
    })
}

/// The panel with nothing but what is needed.
fn with_operands(panel: &Panel, shown: &[&Metric]) -> Panel {
    let mut own = Panel { show: Vec::new(), ..panel.clone() };
    let mut add = |metric: Metric| {
        if own.show.iter().all(|known| known.id.value != metric.id.value) {
            own.show.push(metric);
        }
    };
    for metric in shown {
        for id in operands(metric) {
            let Some(operand) = panel.metric(id) else { continue };
            let mut operand = operand.clone();
            operand.hidden = true;
            add(operand);
        }
        add((*metric).clone());
    }
    for split in &panel.by {
        if let Split::Values(by) = split
            && let Some(order) = by.order.as_ref().and_then(|order| panel.metric(&order.value))
        {
            add(order.clone());
        }
    }
    own
}

/// Ids of the values that one is reckoned of.
fn operands(metric: &Metric) -> Vec<&str> {
    match &metric.value {
        Value::Formula(formula) => formula.value.values(),
        Value::Running(of) => vec![&of.value],
        _ => Vec::new(),
    }
}

struct Drawing<'p> {
    panel: &'p Panel,
    shown: &'p [&'p Metric],
}

impl Drawing<'_> {
    fn specification(&self, index: &str) -> Json {
        let histogram = |by: &ByTime| match by.every {
            Some(Every::Day) => {
                json!({ "field": by.field.value, "calendar_interval": "1d", "min_doc_count": 0 })
            }
            None => {
                json!({ "field": by.field.value, "interval": { "%autointerval%": STEPS }, "min_doc_count": 0 })
            }
        };
        let whole = json!({
            "filter": { "bool": { "filter": request::looks_at(self.panel) } },
            "aggs": request::aggregations(self.panel, &histogram),
        });
        let mut specification = json!({
            "$schema": SCHEMA,
            "data": {
                "url": {
                    "%context%": true, "%timefield%": "timestamp", "index": index,
                    "body": { "size": 0, "aggs": { "panel": whole } },
                },
                "format": { "property": "aggregations.panel" },
            },
        });
        let mut transform = self.parts();
        transform.extend(self.values());
        let look = match self.panel.form {
            Form::Line | Form::Stairs => self.chart("line", None, &mut transform),
            Form::Area => self.chart("area", Some("zero"), &mut transform),
            Form::Bar => self.chart("bar", Some("zero"), &mut transform),
            Form::FullBar => self.chart("bar", Some("normalize"), &mut transform),
            Form::Numbers if self.panel.by.is_empty() => self.number(&mut transform),
            _ => self.table(&mut transform),
        };
        if let (Some(specification), Json::Object(look)) = (specification.as_object_mut(), look) {
            specification.insert("transform".to_owned(), json!(transform));
            specification.extend(look);
        }
        specification
    }

    /// A row for each part, with its keys `k0`, `k1` …
    fn parts(&self) -> Vec<Json> {
        let mut transform = Vec::new();
        let mut of = "datum".to_owned();
        for (place, split) in self.panel.by.iter().enumerate() {
            let (list, bucket) = (format!("list{place}"), format!("b{place}"));
            let buckets = format!("{of}['{SPLIT}'].buckets");
            let all = match split {
                // They are named and not listed.
                Split::Cases(by) => {
                    let cases = by.cases.iter().map(|case| {
                        let label = text(&case.label);
                        format!("merge({buckets}[{label}],{{key:{label}}})")
                    });
                    format!("[{}]", cases.collect::<Vec<_>>().join(","))
                }
                _ => buckets,
            };
            of = format!("datum.{bucket}");
            transform.push(json!({ "calculate": all, "as": list }));
            transform.push(json!({ "flatten": [list], "as": [bucket] }));
            transform.push(json!({ "calculate": key(split, &of), "as": format!("k{place}") }));
        }
        transform
    }

    /// Where the innermost part is.
    fn part(&self) -> String {
        match self.panel.by.len() {
            0 => "datum".to_owned(),
            splits => format!("datum.b{}", splits - 1),
        }
    }

    /// Each value of a part as `m_` and its id.
    fn values(&self) -> Vec<Json> {
        let part = self.part();
        let mut transform = Vec::new();
        let over_time = self.panel.by.len().saturating_sub(1);
        let series: Vec<String> = (0..over_time).map(|place| format!("k{place}")).collect();
        let sort = json!([{ "field": format!("k{over_time}"), "order": "ascending" }]);
        if self.panel.show.iter().any(|metric| metric.per.is_some()) {
            let time = format!("k{over_time}");
            transform.push(json!({
                "window": [{ "op": "lead", "field": time, "as": "next" }, { "op": "lag", "field": time, "as": "before" }],
                "groupby": series, "sort": sort,
            }));
            let step = format!(
                "isValid(datum.next) ? datum.next - datum.{time} : datum.{time} - datum.before"
            );
            transform.push(json!({ "calculate": step, "as": "step" }));
        }
        for metric in &self.panel.show {
            let name = format!("m_{}", metric.id.value);
            let computed = match &metric.value {
                Value::Formula(formula) => {
                    let result = term(&formula.value.term);
                    let all =
                        operands(metric).into_iter().map(|id| format!("isValid(datum.m_{id})"));
                    let all =
                        all.chain([format!("isFinite({result})")]).collect::<Vec<_>>().join(" && ");
                    format!("{all} ? {result} : null")
                }
                Value::Running(of) => {
                    transform.push(json!({
                        "window": [{ "op": "sum", "field": format!("raw_{}", of.value), "as": name }],
                        "frame": [null, 0], "groupby": series, "sort": sort,
                    }));
                    continue;
                }
                _ => {
                    transform.push(json!({ "calculate": value(metric, &part), "as": format!("raw_{}", metric.id.value) }));
                    format!("datum.raw_{}", metric.id.value)
                }
            };
            let rated = match metric.per {
                None => computed,
                Some(per) => {
                    let of = if per == Per::Second { 1_000 } else { 60_000 };
                    format!(
                        "datum.step > 0 && isValid({computed}) ? {computed} * {of} / datum.step : null"
                    )
                }
            };
            transform.push(json!({ "calculate": rated, "as": name }));
        }
        transform
    }

    /// A chart over time if there is a split by it, otherwise over the first one.
    fn chart(&self, mark: &str, stack: Option<&str>, transform: &mut Vec<Json>) -> Json {
        let by = &self.panel.by;
        let over = by.iter().position(|split| matches!(split, Split::Time(_))).unwrap_or(0);
        let names: Vec<String> =
            self.shown.iter().map(|metric| format!("m_{}", metric.id.value)).collect();
        transform.push(json!({ "fold": names, "as": ["metric", "value"] }));
        transform.push(json!({ "filter": "isValid(datum.value)" }));
        let choose = |what: &dyn Fn(&Metric) -> String| {
            self.shown.iter().zip(&names).fold("''".to_owned(), |otherwise, (metric, name)| {
                format!("datum.metric == '{name}' ? {} : {otherwise}", what(metric))
            })
        };
        let label = choose(&|metric| text(&metric.label));
        let series = (0..by.len()).find(|place| *place != over);
        let series = match (series, self.shown.len()) {
            (None, _) => label,
            (Some(place), 1) => format!("'' + datum.k{place}"),
            (Some(place), _) => format!("datum.k{place} + ', ' + ({label})"),
        };
        transform.push(json!({ "calculate": series, "as": "series" }));
        transform.push(json!({ "calculate": choose(&|metric| written(self.panel, metric, "datum.value")), "as": "text" }));
        let x = format!("k{over}");
        let (kind, title) = match by.get(over) {
            Some(Split::Time(_)) => ("temporal", Json::Null),
            Some(Split::Steps(by)) => ("quantitative", json!(by.label)),
            Some(Split::Values(by)) => ("nominal", json!(by.label)),
            _ => ("nominal", Json::Null),
        };
        let layer = |is_right: bool| {
            let own: Vec<&&Metric> =
                self.shown.iter().filter(|metric| metric.right == is_right).collect();
            let all: Vec<String> =
                own.iter().map(|metric| text(&format!("m_{}", metric.id.value))).collect();
            let labels: Vec<&str> = own.iter().map(|metric| metric.label.as_str()).collect();
            let mark = match self.panel.form {
                Form::Line => json!({ "type": mark, "point": true }),
                Form::Stairs => json!({ "type": mark, "point": true, "interpolate": "step-after" }),
                _ => json!({ "type": mark }),
            };
            json!({
                "transform": [{ "filter": format!("indexof([{}], datum.metric) >= 0", all.join(",")) }],
                "mark": mark,
                "encoding": {
                    "x": { "field": x, "type": kind, "title": title, "sort": null },
                    "y": {
                        "field": "value", "type": "quantitative", "title": labels.join(", "), "stack": stack,
                        "axis": { "orient": if is_right { "right" } else { "left" }, "format": "~s" },
                    },
                    "color": { "field": "series", "type": "nominal", "title": null },
                    "tooltip": [
                        { "field": x, "type": kind, "title": "at" }, { "field": "series", "type": "nominal" },
                        { "field": "text", "type": "nominal", "title": "value" },
                    ],
                },
            })
        };
        let mut layers = vec![layer(false)];
        if self.shown.iter().any(|metric| metric.right) {
            layers.push(layer(true));
        }
        json!({ "layer": layers, "resolve": { "scale": { "y": "independent" } } })
    }

    /// One large number.
    fn number(&self, transform: &mut Vec<Json>) -> Json {
        let cells = self
            .shown
            .iter()
            .map(|metric| written(self.panel, metric, &format!("datum.m_{}", metric.id.value)));
        transform.push(
            json!({ "calculate": cells.collect::<Vec<_>>().join(" + ' ' + "), "as": "text" }),
        );
        json!({ "mark": { "type": "text", "fontSize": 28 }, "encoding": { "text": { "field": "text", "type": "nominal" } } })
    }

    /// Rows and columns of text.
    fn table(&self, transform: &mut Vec<Json>) -> Json {
        let keys: Vec<String> = self
            .panel
            .by
            .iter()
            .enumerate()
            .map(|(place, split)| match split {
                Split::Time(_) => format!("timeFormat(datum.k{place}, '%Y-%m-%d')"),
                _ => format!("datum.k{place}"),
            })
            .collect();
        transform.push(
            json!({ "calculate": format!("'' + {}", keys.join(" + ' · ' + ")), "as": "row" }),
        );
        transform.push(json!({ "window": [{ "op": "row_number", "as": "place" }] }));
        transform.push(json!({ "filter": format!("datum.place <= {ROWS}") }));
        let cells: Vec<String> = self
            .shown
            .iter()
            .map(|metric| {
                let value = format!("datum.m_{}", metric.id.value);
                format!(
                    "{{column:{},text:{}}}",
                    text(&metric.label),
                    written(self.panel, metric, &value)
                )
            })
            .collect();
        transform.push(json!({ "calculate": format!("[{}]", cells.join(",")), "as": "cells" }));
        transform.push(json!({ "flatten": ["cells"], "as": ["cell"] }));
        transform.push(json!({ "calculate": "datum.cell.column", "as": "column" }));
        transform.push(json!({ "calculate": "datum.cell.text", "as": "text" }));
        let titles: Vec<&str> = self.panel.by.iter().filter_map(named).collect();
        json!({
            "mark": { "type": "text" },
            "encoding": {
                "y": {
                    "field": "row", "type": "nominal", "sort": null, "title": titles.join(" · "),
                    "axis": { "labelLimit": 240, "domain": false, "ticks": false },
                },
                "x": {
                    "field": "column", "type": "nominal", "sort": null, "title": null,
                    "axis": { "orient": "top", "labelAngle": 0, "domain": false, "ticks": false },
                },
                "text": { "field": "text", "type": "nominal" },
                "tooltip": [
                    { "field": "row", "type": "nominal" }, { "field": "column", "type": "nominal" },
                    { "field": "text", "type": "nominal", "title": "value" },
                ],
            },
        })
    }
}

/// What a split is called.
fn named(split: &Split) -> Option<&str> {
    match split {
        Split::Values(by) => Some(&by.label),
        Split::Classes(by) => Some(&by.label),
        Split::Steps(by) => Some(&by.label),
        Split::Cases(by) => Some(&by.label),
        Split::Time(_) | Split::Tiles(_) => None,
    }
}
