//! Maps with a circle for each tile of the grid.

use serde_json::{Value as Json, json};

use super::{FROM, encoded, query};
use crate::document::fields::exact;
use crate::panels::model::{Metric, Panel, Split, Value};

/// The part of a map panel that is all its own, and the layers that read documents, by their place in the list.
pub(super) fn attributes(panel: &Panel) -> (Json, Vec<usize>) {
    let mut layers = vec![json!({
        "id": "base", "type": "EMS_VECTOR_TILE", "label": null, "visible": true, "alpha": 1,
        "minZoom": 0, "maxZoom": 24, "includeInFitToBounds": true,
        "sourceDescriptor": { "type": "EMS_TMS", "isAutoSelect": true, "lightModeDefault": "road_map_desaturated" },
        "style": { "type": "EMS_VECTOR_TILE", "color": "" },
    })];
    // The values of a layer share its query, so each that asks for more has a layer of its own.
    let (own, shared): (Vec<&Metric>, Vec<&Metric>) =
        panel.shown().partition(|metric| !metric.when.is_empty());
    let groups = std::iter::once(shared).chain(own.into_iter().map(|metric| vec![metric]));
    for group in groups.filter(|group| !group.is_empty()) {
        let layer = clusters(panel, &group, layers.len());
        layers.push(layer);
    }
    let state = json!({
        "zoom": 1.5, "center": { "lat": 30, "lon": 0 }, "timeFilters": { "from": FROM, "to": "now" },
        "refreshConfig": { "isPaused": true, "interval": 60_000 },
        "query": { "query": "", "language": "kuery" }, "filters": [], "settings": { "autoFitToDataBounds": true },
    });
    let attributes = json!({
        "title": "", "description": "",
        "layerListJSON": encoded(&json!(layers)),
        "mapStateJSON": encoded(&state),
        "uiStateJSON": encoded(&json!({ "isLayerTOCOpen": false, "openTOCDetails": [] })),
    });
    (attributes, (1..layers.len()).collect())
}

fn clusters(panel: &Panel, shown: &[&Metric], place: usize) -> Json {
    let point = panel.by.iter().find_map(|split| match split {
        Split::Tiles(by) => Some(&by.field.value),
        _ => None,
    });
    let label = shown.iter().map(|metric| metric.label.as_str()).collect::<Vec<_>>().join(", ");
    let narrower = shown.iter().flat_map(|metric| &metric.when);
    let query = [query::of_kinds(panel.over, &panel.of, &panel.when), query::all(narrower)];
    let query: Vec<String> = query.into_iter().filter(|part| !part.is_empty()).collect();
    let field = shown.first().map(|metric| drawn_by(metric));
    let field = json!({ "name": field, "origin": "source" });
    let meta = json!({ "isEnabled": false, "sigma": 3 });
    json!({
        "id": format!("clusters-{place}"), "type": "GEOJSON_VECTOR", "label": label, "visible": true, "alpha": 0.75,
        "minZoom": 0, "maxZoom": 24, "includeInFitToBounds": true, "joins": [],
        "query": { "query": query.join(" and "), "language": "kuery" },
        "sourceDescriptor": {
            "id": format!("clusters-{place}-source"), "type": "ES_GEO_GRID", "geoField": point,
            "requestType": "point", "resolution": "COARSE",
            "metrics": shown.iter().map(|metric| aggregation(metric)).collect::<Vec<_>>(),
            "applyGlobalQuery": true, "applyGlobalTime": true, "applyForceRefresh": true,
            "indexPatternRefName": format!("layer_{place}_source_index_pattern"),
        },
        "style": { "type": "VECTOR", "isTimeAware": true, "properties": {
            "icon": { "type": "STATIC", "options": { "value": "marker" } },
            "symbolizeAs": { "options": { "value": "circle" } },
            "lineColor": { "type": "STATIC", "options": { "color": "#FFFFFF" } },
            "lineWidth": { "type": "STATIC", "options": { "size": 0 } },
            "fillColor": { "type": "DYNAMIC", "options": {
                "type": "ORDINAL", "color": "Blues", "colorCategory": "palette_0",
                "field": field, "fieldMetaOptions": meta,
            } },
            "iconSize": { "type": "DYNAMIC", "options": {
                "minSize": 7, "maxSize": 32, "field": field, "fieldMetaOptions": meta,
            } },
            "labelText": { "type": "DYNAMIC", "options": { "field": field } },
        } },
    })
}

/// The value that gives circles their size, as Maps calls it.
fn drawn_by(metric: &Metric) -> String {
    match metric.value.field() {
        None => "doc_count".to_owned(),
        Some(field) => match &metric.value {
            Value::Percentile(percentile) => {
                format!("percentile_{}_of_{}", percentile.at, exact(&field.value))
            }
            value => format!("{}_of_{}", kind(value), exact(&field.value)),
        },
    }
}

fn aggregation(metric: &Metric) -> Json {
    match (&metric.value, metric.value.field()) {
        (Value::Percentile(percentile), _) => json!({
            "type": "percentile", "field": percentile.field.value, "percentile": super::number(percentile.at), "label": metric.label,
        }),
        (value, Some(field)) => {
            json!({ "type": kind(value), "field": exact(&field.value), "label": metric.label })
        }
        (value, None) => json!({ "type": kind(value), "label": metric.label }),
    }
}

/// Panels whose maps show anything else are refused when they are read.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Distinct(_) => "cardinality",
        Value::Sum(_) => "sum",
        Value::Mean(_) => "avg",
        Value::Min(_) => "min",
        Value::Max(_) => "max",
        Value::Percentile(_) => "percentile",
        Value::Count | Value::Last(_) | Value::Formula(_) | Value::Running(_) => "count",
    }
}
