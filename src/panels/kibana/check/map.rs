//! Maps: each layer reads a point, and is drawn by a value that it asks for.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{decoded, holds, list, number, query, text};
use crate::document::fields::Holds;

/// Tells what is wrong with the map of a panel.
pub(super) fn check(panel: &Json, at: &str, told: &mut Vec<String>) {
    for layer in list(&decoded(panel, "/embeddableConfig/attributes/layerListJSON"), "") {
        let Some(point) = layer.pointer("/sourceDescriptor/geoField").and_then(Json::as_str) else {
            continue;
        };
        if !matches!(holds(point), Ok(Holds::Point)) {
            told.push(format!("{at}: {point} is no point"));
        }
        query(text(layer, "/query/query"), at, told);
        let mut values = BTreeSet::new();
        for metric in list(layer, "/sourceDescriptor/metrics") {
            let (kind, field) = (text(metric, "/type"), text(metric, "/field"));
            let is_right = match (kind, field) {
                ("count", "") => true,
                ("count", _) => false,
                ("cardinality", field) => holds(field).is_ok(),
                (_, field) => holds(field).is_ok_and(Holds::is_number),
            };
            if !is_right {
                told.push(format!("{at} shows {kind} of {field:?}"));
            }
            values.insert(match (kind, number(metric, "/percentile")) {
                ("count", _) => "doc_count".to_owned(),
                (kind, Some(percent)) => format!("{kind}_{percent}_of_{field}"),
                (kind, None) => format!("{kind}_of_{field}"),
            });
        }
        for property in ["fillColor", "iconSize", "labelText"] {
            let field = format!("/style/properties/{property}/options/field/name");
            if !values.contains(text(layer, &field)) {
                told.push(format!("{at}: {property} is drawn by no value"));
            }
        }
    }
}
