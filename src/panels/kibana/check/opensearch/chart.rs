//! Classic charts: buckets and values by id, each of a field that holds what is asked of it.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::document::fields::Holds;
use crate::panels::kibana::check::{holds, list, number, query, text};

/// Which schemas of buckets a chart takes.
const BUCKETS: &[(&str, &[&str])] = &[
    ("metric", &["group"]),
    ("table", &["bucket"]),
    ("pie", &["segment"]),
    ("heatmap", &["segment", "group"]),
    ("tile_map", &["segment"]),
    ("line", &["segment", "group"]),
    ("area", &["segment", "group"]),
    ("histogram", &["segment", "group"]),
];

/// Tells what is wrong with the state of a chart.
pub(super) fn check(state: &Json, at: &str, told: &mut Vec<String>) {
    let kind = text(state, "/type");
    let schemas = BUCKETS.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, all)| all);
    let mut ids = BTreeSet::new();
    let mut values = BTreeSet::new();
    let mut overs = 0;
    for agg in list(state, "/aggs") {
        let id = text(agg, "/id");
        let at = format!("{at}: aggregation {id}");
        if !ids.insert(id) {
            told.push(format!("{at} stands twice"));
        }
        match text(agg, "/schema") {
            "metric" => {
                values.insert(id);
                value(agg, &at, told);
            }
            schema if schemas.contains(&schema) => {
                overs += usize::from(schema == "segment");
                bucket(agg, &at, told);
            }
            schema => told.push(format!("{at} is a {schema:?}, which a {kind} does not take")),
        }
    }
    if values.is_empty() {
        told.push(format!("{at} shows no value"));
    }
    if kind == "tile_map" && values.len() > 1 {
        told.push(format!("{at} is a map of several values"));
    }
    if ["line", "area", "histogram", "heatmap"].contains(&kind) && overs != 1 {
        told.push(format!("{at} is drawn over {overs} splits"));
    }
    for agg in list(state, "/aggs") {
        let order = text(agg, "/params/orderBy");
        let has_own = agg.pointer("/params/orderAgg").is_some();
        let is_known = values.contains(order) || (order == "custom" && has_own);
        if text(agg, "/type") == "terms" && !is_known {
            told.push(format!("{at} is ordered by {order:?}, which is no value"));
        }
    }
    series(state, &values, at, told);
}

/// Every value is drawn, against an axis that is there.
fn series(state: &Json, values: &BTreeSet<&str>, at: &str, told: &mut Vec<String>) {
    let all = list(state, "/params/seriesParams");
    if all.is_empty() {
        return;
    }
    let axes: BTreeSet<&str> =
        list(state, "/params/valueAxes").iter().map(|axis| text(axis, "/id")).collect();
    let drawn: BTreeSet<&str> = all.iter().map(|series| text(series, "/data/id")).collect();
    if &drawn != values {
        told.push(format!("{at} draws {drawn:?} of {values:?}"));
    }
    if !all.iter().all(|series| axes.contains(text(series, "/valueAxis"))) {
        told.push(format!("{at} draws against an axis that is not there"));
    }
}

fn value(agg: &Json, at: &str, told: &mut Vec<String>) {
    let field = text(agg, "/params/field");
    let is_right = match (text(agg, "/type"), holds(field)) {
        ("count", _) => field.is_empty(),
        (_, Err(problem)) => return told.push(format!("{at}: {problem}")),
        ("cardinality", Ok(holds)) => matches!(holds, Holds::Text | Holds::Whole(_)),
        ("min" | "max", Ok(holds)) => holds.is_number() || holds == Holds::Date,
        ("top_hits", Ok(holds)) => holds != Holds::Unsearched,
        (_, Ok(holds)) => holds.is_number(),
    };
    if !is_right {
        told.push(format!("{at} is {} of {field:?}", text(agg, "/type")));
    }
}

fn bucket(agg: &Json, at: &str, told: &mut Vec<String>) {
    let (kind, field) = (text(agg, "/type"), text(agg, "/params/field"));
    if kind == "filters" {
        for filter in list(agg, "/params/filters") {
            query(text(filter, "/input/query"), at, told);
        }
        return;
    }
    let is_right = match (kind, holds(field)) {
        (_, Err(problem)) => return told.push(format!("{at}: {problem}")),
        ("date_histogram", Ok(holds)) => holds == Holds::Date,
        ("histogram", Ok(holds)) => holds.is_number(),
        ("terms", Ok(holds)) => matches!(holds, Holds::Text | Holds::Flag | Holds::Whole(_)),
        ("geohash_grid", Ok(holds)) => holds == Holds::Point,
        (_, Ok(_)) => false,
    };
    if !is_right {
        told.push(format!("{at} is {kind} of {field:?}"));
    }
    if kind == "terms" {
        if !number(agg, "/params/size").is_some_and(|size| (1.0..=1000.0).contains(&size)) {
            told.push(format!("{at} has a size that is none"));
        }
        if let Some(order) = agg.pointer("/params/orderAgg") {
            value(order, at, told);
        }
    }
}
