//! Charts that are one request of buckets and values, each a row of settings.

use serde_json::{Value as Json, json};

use super::super::{columns, number, query};
use crate::document::fields::exact;
use crate::panels::model::{ByValues, Condition, Every, Form, Metric, One, Panel, Split, Value};

/// The state of a chart that shows these values; `None`: it cannot be said so.
pub(super) fn state(panel: &Panel, shown: &[&Metric], title: &str) -> Option<Json> {
    let can =
        |metric: &&Metric| is_plain(panel, metric) && (metric.when.is_empty() || shown.len() == 1);
    if !shown.iter().all(can) {
        return None;
    }
    let mut aggs: Vec<Json> = shown
        .iter()
        .zip(1..)
        .map(|(metric, place)| aggregation(metric, place, "metric", Some(&metric.label)))
        .collect();
    let over = panel.by.iter().position(|split| matches!(split, Split::Time(_))).unwrap_or(0);
    for (place, split) in panel.by.iter().enumerate() {
        let schema = match panel.form {
            Form::Table => "bucket",
            Form::Numbers => "group",
            Form::Donut | Form::Treemap | Form::Map => "segment",
            Form::Heatmap if place == 0 => "group",
            Form::Heatmap => "segment",
            Form::Line | Form::Stairs | Form::Area | Form::Bar | Form::FullBar if place == over => {
                "segment"
            }
            Form::Line | Form::Stairs | Form::Area | Form::Bar | Form::FullBar | Form::List => {
                "group"
            }
        };
        let id = (shown.len() + 1 + place).to_string();
        aggs.push(bucket(panel, shown, split, &id, schema)?);
    }
    let (kind, params) = match panel.form {
        Form::Numbers => ("metric", large_number()),
        Form::Table => ("table", table()),
        Form::Donut | Form::Treemap => ("pie", shares()),
        Form::Heatmap => ("heatmap", heatmap()),
        Form::Map => ("tile_map", map()),
        Form::Line => ("line", axes("line", "normal", shown)),
        Form::Stairs => ("line", in_steps(axes("line", "normal", shown))),
        Form::Area => ("area", axes("area", "stacked", shown)),
        Form::Bar => ("histogram", axes("histogram", "stacked", shown)),
        Form::FullBar => ("histogram", full(axes("histogram", "stacked", shown))),
        Form::List => return None,
    };
    Some(json!({ "title": title, "type": kind, "aggs": aggs, "params": params }))
}

/// Whether a value is one that the server computes of all documents of a part.
fn is_plain(panel: &Panel, metric: &Metric) -> bool {
    let is_known = match metric.value {
        Value::Formula(_) | Value::Running(_) => false,
        // The newest document is asked, whether it has the field or not; of one kind all have it.
        Value::Last(_) => panel.of.len() == 1 && matches!(panel.form, Form::Table | Form::Numbers),
        _ => true,
    };
    is_known && metric.per.is_none()
}

fn aggregation(metric: &Metric, place: usize, schema: &str, label: Option<&str>) -> Json {
    let (kind, mut params) = match &metric.value {
        Value::Distinct(of) => ("cardinality", json!({ "field": exact(&of.value) })),
        Value::Sum(of) => ("sum", json!({ "field": of.value })),
        Value::Mean(of) => ("avg", json!({ "field": of.value })),
        Value::Min(of) => ("min", json!({ "field": of.value })),
        Value::Max(of) => ("max", json!({ "field": of.value })),
        Value::Percentile(of) => {
            ("percentiles", json!({ "field": of.field.value, "percents": [number(of.at)] }))
        }
        Value::Last(of) => (
            "top_hits",
            json!({
                "field": exact(&of.value), "aggregate": "concat", "size": 1,
                "sortField": "timestamp", "sortOrder": "desc",
            }),
        ),
        Value::Count | Value::Formula(_) | Value::Running(_) => ("count", json!({})),
    };
    if let (Some(label), Some(params)) = (label, params.as_object_mut()) {
        params.insert("customLabel".to_owned(), json!(label));
    }
    json!({ "id": place.to_string(), "enabled": true, "type": kind, "schema": schema, "params": params })
}

fn bucket(panel: &Panel, shown: &[&Metric], split: &Split, id: &str, schema: &str) -> Option<Json> {
    let (kind, params) = match split {
        Split::Time(by) => {
            let interval = match by.every {
                None => "auto",
                Some(Every::Day) => "d",
            };
            let params = json!({
                "field": by.field.value, "interval": interval, "min_doc_count": 1, "drop_partials": false,
                "extended_bounds": {}, "useNormalizedOpenSearchInterval": true, "customLabel": "Time",
            });
            ("date_histogram", params)
        }
        Split::Values(by) => ("terms", terms(panel, shown, by, id)?),
        Split::Classes(by) => {
            let filters: Vec<Json> = by
                .bounds()
                .map(|(from, to)| {
                    let field = || by.field.clone();
                    let from_on = from.map(|value| {
                        query::all(&[Condition::AtLeast(One { field: field(), value })])
                    });
                    let below = to.map(|to| format!("{} < {to}", exact(&by.field.value)));
                    let query: Vec<String> = [from_on, below].into_iter().flatten().collect();
                    filter(&query.join(" and "), &columns::class(by, from, to))
                })
                .collect();
            ("filters", json!({ "filters": filters }))
        }
        Split::Steps(by) => {
            let params = json!({
                "field": by.field.value, "interval": number(by.every), "min_doc_count": false,
                "has_extended_bounds": false, "extended_bounds": { "min": "", "max": "" }, "customLabel": by.label,
            });
            ("histogram", params)
        }
        Split::Cases(by) => {
            let filters: Vec<Json> = by
                .cases
                .iter()
                .map(|case| filter(&query::whatever(panel.over, &case.when), &case.label))
                .collect();
            ("filters", json!({ "filters": filters }))
        }
        Split::Tiles(by) => {
            let params = json!({
                "field": by.field.value, "autoPrecision": true, "precision": 2, "useGeocentroid": true,
                "isFilteredByCollar": true,
            });
            ("geohash_grid", params)
        }
    };
    Some(json!({ "id": id, "enabled": true, "type": kind, "schema": schema, "params": params }))
}

fn filter(query: &str, label: &str) -> Json {
    json!({ "input": { "query": query, "language": "kuery" }, "label": label })
}

/// Parts by value. Without an order of their own the largest in number of documents come first.
fn terms(panel: &Panel, shown: &[&Metric], by: &ByValues, id: &str) -> Option<Json> {
    let mut params = json!({
        "field": exact(&by.field.value), "size": by.size, "order": "desc", "customLabel": by.label,
        "otherBucket": false, "otherBucketLabel": "Other",
        "missingBucket": by.missing.is_some(), "missingBucketLabel": by.missing.as_deref().unwrap_or("none"),
    });
    let order = by.order.as_ref().and_then(|order| panel.metric(&order.value));
    let is_first = |metric: &&Metric| match order {
        Some(order) => metric.id.value == order.id.value,
        None => matches!(metric.value, Value::Count) && metric.when.is_empty(),
    };
    let found = shown.iter().zip(1..).find(|(metric, _)| is_first(metric));
    // A value that is not shown, or several at once, are asked for besides.
    let is_asked = found.is_none_or(|(metric, _)| matches!(metric.value, Value::Percentile(_)));
    if let Some(params) = params.as_object_mut() {
        match found {
            Some((_, place)) if !is_asked => {
                params.insert("orderBy".to_owned(), json!(place.to_string()))
            }
            _ => {
                let count: Metric;
                let order = match order {
                    Some(order) if order.when.is_empty() => order,
                    Some(_) => return None,
                    None => {
                        count = Metric {
                            value: Value::Count,
                            when: Vec::new(),
                            ..(*shown.first()?).clone()
                        };
                        &count
                    }
                };
                let mut agg = aggregation(order, 1, "orderAgg", None);
                if let Some(agg) = agg.as_object_mut() {
                    agg.insert("id".to_owned(), json!(format!("{id}-orderAgg")));
                }
                params.insert("orderAgg".to_owned(), agg);
                params.insert("orderBy".to_owned(), json!("custom"))
            }
        };
    }
    Some(params)
}

fn large_number() -> Json {
    json!({
        "addTooltip": true, "addLegend": false, "type": "metric",
        "metric": {
            "percentageMode": false, "useRanges": false, "colorSchema": "Green to Red", "metricColorMode": "None",
            "colorsRange": [{ "from": 0, "to": 10_000 }], "labels": { "show": true }, "invertColors": false,
            "style": { "bgFill": "#000", "bgColor": false, "labelColor": false, "subText": "", "fontSize": 28 },
        },
    })
}

fn table() -> Json {
    json!({
        "perPage": 20, "showPartialRows": false, "showMetricsAtAllLevels": false, "showTotal": false,
        "sort": { "columnIndex": null, "direction": null }, "totalFunc": "sum", "percentageCol": "",
    })
}

fn shares() -> Json {
    json!({
        "type": "pie", "addTooltip": true, "addLegend": true, "legendPosition": "right", "isDonut": true,
        "labels": { "show": false, "values": true, "last_level": true, "truncate": 100 },
    })
}

fn heatmap() -> Json {
    json!({
        "type": "heatmap", "addTooltip": true, "addLegend": true, "enableHover": false, "legendPosition": "right",
        "times": [], "colorsNumber": 6, "colorSchema": "Blues", "setColorRange": false, "colorsRange": [],
        "invertColors": false, "percentageMode": false,
        "valueAxes": [{
            "show": false, "id": "ValueAxis-1", "type": "value", "scale": { "type": "linear", "defaultYExtents": false },
            "labels": { "show": false, "rotate": 0, "overwriteColor": false, "color": "black" },
        }],
    })
}

fn map() -> Json {
    json!({
        "mapType": "Scaled Circle Markers", "colorSchema": "Yellow to Red", "isDesaturated": true, "addTooltip": true,
        "heatClusterSize": 1.5, "legendPosition": "bottomright", "mapZoom": 2, "mapCenter": [30, 0],
        "wms": { "enabled": false, "url": "", "options": {
            "version": "", "layers": "", "format": "image/png", "transparent": true, "attribution": "", "styles": "",
        } },
    })
}

/// Two axes and a series for each value.
fn axes(kind: &str, mode: &str, shown: &[&Metric]) -> Json {
    let axis = |place: u32, side: &str, label: &str| {
        json!({
            "id": format!("ValueAxis-{place}"), "name": format!("{side}Axis-1"), "type": "value",
            "position": side.to_lowercase(), "show": true, "style": {}, "title": { "text": label },
            "scale": { "type": "linear", "mode": "normal" },
            "labels": { "show": true, "rotate": 0, "filter": false, "truncate": 100 },
        })
    };
    let title = |is_right: bool| {
        let labels: Vec<&str> = shown
            .iter()
            .filter(|metric| metric.right == is_right)
            .map(|metric| metric.label.as_str())
            .collect();
        labels.join(", ")
    };
    let mut value_axes = vec![axis(1, "Left", &title(false))];
    if shown.iter().any(|metric| metric.right) {
        value_axes.push(axis(2, "Right", &title(true)));
    }
    let series: Vec<Json> = shown
        .iter()
        .zip(1..)
        .map(|(metric, place)| {
            json!({
                "show": true, "type": kind, "mode": mode, "data": { "label": metric.label, "id": place.to_string() },
                "valueAxis": if metric.right { "ValueAxis-2" } else { "ValueAxis-1" },
                "drawLinesBetweenPoints": true, "lineWidth": 2, "showCircles": true, "interpolate": "linear",
            })
        })
        .collect();
    json!({
        "type": kind, "addTooltip": true, "addLegend": true, "legendPosition": "right", "times": [],
        "addTimeMarker": false, "labels": {}, "grid": { "categoryLines": false },
        "thresholdLine": { "show": false, "value": 10, "width": 1, "style": "full", "color": "#E7664C" },
        "categoryAxes": [{
            "id": "CategoryAxis-1", "type": "category", "position": "bottom", "show": true, "style": {}, "title": {},
            "scale": { "type": "linear" }, "labels": { "show": true, "filter": true, "truncate": 100 },
        }],
        "valueAxes": value_axes, "seriesParams": series,
    })
}

/// Bars that fill the height.
fn full(mut params: Json) -> Json {
    if let Some(mode) = params.pointer_mut("/valueAxes/0/scale/mode") {
        *mode = json!("percentage");
    }
    params
}

/// Lines that stay as high as they were.
fn in_steps(mut params: Json) -> Json {
    let series = params.get_mut("seriesParams").and_then(Json::as_array_mut);
    for one in series.into_iter().flatten() {
        if let Some(one) = one.as_object_mut() {
            one.insert("interpolate".to_owned(), json!("step-after"));
        }
    }
    params
}
