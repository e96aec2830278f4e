//! The same for OpenSearch Dashboards, whose panels are objects of their own.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::references::{Needed, VIEW, compare};
use super::{
    decoded, grid, holds, identifier, links, list, narrowed, query, search, text, version,
};
use crate::document::fields::Holds;

mod chart;
mod shapes;
mod vega;

/// The newest version of each type that OpenSearch Dashboards 2 knows; it refuses a file that has a newer one.
const VERSIONS: &[(&str, [u32; 3])] = &[
    ("index-pattern", [7, 6, 0]),
    ("visualization", [7, 10, 0]),
    ("search", [7, 9, 3]),
    ("dashboard", [7, 9, 3]),
];
/// What a chart's reference to its data view is called.
const INDEX: &str = "kibanaSavedObjectMeta.searchSourceJSON.index";

/// Tells what is wrong with an object.
pub(super) fn check(object: &Json, all: &BTreeSet<(String, String)>, told: &mut Vec<String>) {
    let (at, kind) = (text(object, "/id"), text(object, "/type"));
    shapes::SAVED.check(object, at, told);
    identifier(object, told);
    let own = object.get("migrationVersion").and_then(|versions| versions.get(kind));
    let own = own.and_then(Json::as_str).and_then(version);
    let newest = VERSIONS.iter().find(|(known, _)| *known == kind).map(|(_, newest)| *newest);
    if own.is_none() || own > newest {
        told.push(format!(
            "{at} has a version of {kind} that OpenSearch Dashboards 2 does not know"
        ));
    }
    references(object, all, told);
    match kind {
        "dashboard" => {
            narrowed(object, told);
            let panels = decoded(object, "/attributes/panelsJSON");
            grid(at, list(&panels, ""), told);
        }
        "search" => search(object, told),
        "index-pattern" => {
            let formats = decoded(object, "/attributes/fieldFormatMap");
            for (field, format) in formats.as_object().into_iter().flatten() {
                let suits = |holds: Holds| holds.is_number() || text(format, "/id") == "url";
                if !holds(field).is_ok_and(suits) {
                    told.push(format!("data view: {field} is no number"));
                }
            }
        }
        "visualization" => visualization(object, all, told),
        _ => {}
    }
}

fn visualization(object: &Json, all: &BTreeSet<(String, String)>, told: &mut Vec<String>) {
    let at = text(object, "/id");
    let state = decoded(object, "/attributes/visState");
    let source = decoded(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON");
    let own = text(&source, "/query/query");
    match text(&state, "/type") {
        "markdown" => {
            for target in links::linked(text(&state, "/params/markdown")) {
                if !all.contains(&("dashboard".to_owned(), target.clone())) {
                    told.push(format!("{at} links to {target}, which is not there"));
                }
            }
        }
        "input_control_vis" => {
            for control in list(&state, "/params/controls") {
                if !matches!(holds(text(control, "/fieldName")), Ok(Holds::Text)) {
                    told.push(format!("{at}: control {} is of no text", text(control, "/id")));
                }
            }
        }
        "vega" => vega::check(text(&state, "/params/spec"), at, told),
        _ => {
            query(own, at, told);
            if !own.starts_with("elastic_type.keyword : ") {
                told.push(format!("{at} does not say which elastic_type it looks at"));
            }
            chart::check(&state, at, told);
        }
    }
    if text(&state, "/title") != text(object, "/attributes/title") {
        told.push(format!("{at} has two titles"));
    }
}

/// What the content needs is there by its right name, and nothing else.
fn references(object: &Json, all: &BTreeSet<(String, String)>, told: &mut Vec<String>) {
    let at = text(object, "/id");
    let source = decoded(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON");
    let state = decoded(object, "/attributes/visState");
    let mut needed = Needed::new();
    let mut need = |asked: &str, name: String, kinds: &'static [&str]| {
        if asked != name {
            told.push(format!("{at}: a reference is asked for as {asked:?} instead of {name:?}"));
        }
        needed.insert(name, kinds);
    };
    let is_chart = !["", "vega", "markdown", "input_control_vis"].contains(&text(&state, "/type"));
    if text(object, "/type") == "search" || is_chart {
        need(text(&source, "/indexRefName"), INDEX.to_owned(), VIEW);
    }
    for (place, filter) in list(&source, "/filter").iter().enumerate() {
        let name = format!("kibanaSavedObjectMeta.searchSourceJSON.filter[{place}].meta.index");
        need(text(filter, "/meta/indexRefName"), name, VIEW);
    }
    for (place, control) in list(&state, "/params/controls").iter().enumerate() {
        let name = format!("control_{place}_index_pattern");
        need(text(control, "/indexPatternRefName"), name, VIEW);
    }
    for (place, panel) in list(&decoded(object, "/attributes/panelsJSON"), "").iter().enumerate() {
        need(text(panel, "/panelRefName"), format!("panel_{place}"), &["visualization", "search"]);
    }
    compare(object, &needed, all, told);
}

#[cfg(test)]
mod tests;
