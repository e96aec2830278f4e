//! Charts, tables and numbers as Lens draws them.

use serde_json::{Value as Json, json};

use super::columns::{LAYER, Layer, id};
use super::query;
use crate::panels::model::{Form, Mark, Metric, Panel, Split};
use crate::panels::source::Source;

/// The layer of a chart that marks events.
const MARKS: &str = "marks";
/// The colour of what went wrong.
const BAD: &str = "#BD271E";
/// Rows of a table that are seen without turning the page.
const ROWS: u32 = 20;

/// The state of a panel that shows these of its values.
pub(super) fn attributes(panel: &Panel, shown: &[&Metric], marks: &[Mark]) -> Json {
    let layer = Layer::of(panel, shown);
    let marks = if is_over_time(panel) { marks } else { &[] };
    let (kind, visualization) = match panel.form {
        Form::Numbers => ("lnsMetric", number(panel, &layer)),
        Form::Donut => ("lnsPie", shares("donut", &layer)),
        Form::Treemap => ("lnsPie", shares("treemap", &layer)),
        Form::Heatmap => ("lnsHeatmap", heatmap(&layer)),
        Form::Line | Form::Stairs => ("lnsXY", chart("line", panel, shown, &layer, marks)),
        Form::Area => ("lnsXY", chart("area_stacked", panel, shown, &layer, marks)),
        Form::Bar => ("lnsXY", chart("bar_stacked", panel, shown, &layer, marks)),
        Form::FullBar => ("lnsXY", chart("bar_percentage_stacked", panel, shown, &layer, marks)),
        // Maps and lists are no charts of Lens and come never here.
        Form::Table | Form::Map | Form::List => ("lnsDatatable", table(panel, &layer)),
    };
    let mut references =
        vec![super::view_of(panel.over, &format!("indexpattern-datasource-layer-{LAYER}"))];
    if kind == "lnsXY" && !marks.is_empty() {
        references.push(super::view(&format!("xy-visualization-layer-{MARKS}")));
    }
    json!({
        "title": "", "type": "lens", "visualizationType": kind, "references": references,
        "state": {
            "query": { "query": query::of_kinds(panel.over, &panel.of, &panel.when), "language": "kuery" },
            "filters": [], "internalReferences": [], "adHocDataViews": {},
            "datasourceStates": { "formBased": { "layers": { LAYER: layer.state() } } },
            "visualization": visualization,
        },
    })
}

fn is_over_time(panel: &Panel) -> bool {
    panel.by.iter().any(|split| matches!(split, Split::Time(_)))
}

/// A large number, or one for each part.
fn number(panel: &Panel, layer: &Layer) -> Json {
    let mut state =
        json!({ "layerId": LAYER, "layerType": "data", "metricAccessor": layer.values.first() });
    if let Some(state) = state.as_object_mut() {
        match layer.splits.first() {
            Some(split) => state.insert("breakdownByAccessor".to_owned(), json!(split)),
            None => state.insert("subtitle".to_owned(), json!(panel.title)),
        };
    }
    state
}

fn shares(shape: &str, layer: &Layer) -> Json {
    json!({ "shape": shape, "layers": [{
        "layerId": LAYER, "layerType": "data", "primaryGroups": layer.splits, "metrics": layer.values,
        "numberDisplay": "percent", "categoryDisplay": "default", "legendDisplay": "default",
        "legendPosition": "right", "nestedLegend": false, "allowMultipleMetrics": false,
    }] })
}

fn heatmap(layer: &Layer) -> Json {
    json!({
        "shape": "heatmap", "layerId": LAYER, "layerType": "data",
        "yAccessor": layer.splits.first(), "xAccessor": layer.splits.last(), "valueAccessor": layer.values.first(),
        "legend": { "type": "heatmap_legend", "isVisible": true, "position": "right" },
        "gridConfig": {
            "type": "heatmap_grid", "isCellLabelVisible": false,
            "isXAxisLabelVisible": true, "isXAxisTitleVisible": false,
            "isYAxisLabelVisible": true, "isYAxisTitleVisible": false,
        },
    })
}

/// A table; what names a session opens it by a click, and days are listed from the last on.
fn table(panel: &Panel, layer: &Layer) -> Json {
    let splits = layer.splits.iter().zip(&panel.by).map(|(column, split)| match split {
        Split::Values(by) if by.names_sessions() => {
            json!({ "columnId": column, "isTransposed": false, "oneClickFilter": true })
        }
        _ => json!({ "columnId": column, "isTransposed": false }),
    });
    let values =
        layer.values.iter().map(|column| json!({ "columnId": column, "isTransposed": false }));
    let columns: Vec<Json> = splits.chain(values).collect();
    let mut state = json!({
        "layerId": LAYER, "layerType": "data", "columns": columns,
        "paging": { "size": ROWS, "enabled": true },
    });
    if let (Some(Split::Time(_)), Some(time), Some(state)) =
        (panel.by.first(), layer.splits.first(), state.as_object_mut())
    {
        state.insert("sorting".to_owned(), json!({ "columnId": time, "direction": "desc" }));
    }
    state
}

/// A chart over time if there is a split by it, otherwise over the first one. The other split gives the series.
fn chart(series: &str, panel: &Panel, shown: &[&Metric], layer: &Layer, marks: &[Mark]) -> Json {
    let over = panel.by.iter().position(|split| matches!(split, Split::Time(_))).unwrap_or(0);
    let x = layer.splits.get(over);
    let split = layer.splits.iter().enumerate().find(|(place, _)| *place != over);
    let own: Vec<Json> = shown.iter().filter_map(|metric| drawn(metric)).collect();
    let mut data = json!({
        "layerId": LAYER, "layerType": "data", "seriesType": series, "xAccessor": x,
        "accessors": layer.values, "position": "top", "showGridlines": false, "yConfig": own,
    });
    if let (Some((_, split)), Some(data)) = (split, data.as_object_mut()) {
        data.insert("splitAccessor".to_owned(), json!(split));
    }
    let mut layers = vec![data];
    if !marks.is_empty() {
        layers.push(json!({
            "layerId": MARKS, "layerType": "annotations", "ignoreGlobalFilters": true,
            "annotations": marks.iter().map(mark).collect::<Vec<_>>(),
        }));
    }
    let has_parts = shown.len() > 1 || panel.by.len() > 1;
    let mut legend =
        json!({ "isVisible": has_parts, "showSingleSeries": has_parts, "position": "right" });
    // How high it was at most, or how low where that is worse.
    if let (true, Some(legend)) = (is_over_time(panel), legend.as_object_mut()) {
        let worst = if shown.iter().all(|metric| metric.value.is_least()) { "min" } else { "max" };
        legend.insert("legendStats".to_owned(), json!([worst]));
    }
    let (curve, fitting) = match panel.form {
        Form::Stairs => ("CURVE_STEP_AFTER", "Carry"),
        _ if shown.iter().all(|metric| metric.value.is_open()) => ("LINEAR", "Zero"),
        _ => ("LINEAR", "None"),
    };
    json!({
        "preferredSeriesType": series, "layers": layers, "legend": legend,
        "valueLabels": "hide", "curveType": curve, "fittingFunction": fitting,
        "axisTitlesVisibilitySettings": { "x": false, "yLeft": true, "yRight": true },
        "tickLabelsVisibilitySettings": { "x": true, "yLeft": true, "yRight": true },
        "gridlinesVisibilitySettings": { "x": true, "yLeft": true, "yRight": true },
        "labelsOrientation": { "x": 0, "yLeft": 0, "yRight": 0 },
    })
}

/// How a value is drawn, where that is not as all are.
fn drawn(metric: &Metric) -> Option<Json> {
    let axis = if metric.right { "right" } else { "left" };
    let mut config = json!({ "forAccessor": id(metric), "axisMode": axis });
    if let (true, Some(config)) = (metric.bad, config.as_object_mut()) {
        config.insert("color".to_owned(), json!(BAD));
    }
    (metric.right || metric.bad).then_some(config)
}

/// Events that are marked whatever a dashboard is narrowed to: a node's crash explains what it did to others.
fn mark(mark: &Mark) -> Json {
    let (icon, color) = if mark.bad { ("alert", BAD) } else { ("flag", "#69707D") };
    json!({
        "id": mark.id.value, "type": "query", "label": mark.label, "timeField": "timestamp",
        "key": { "type": "point_in_time" }, "icon": icon, "color": color, "isHidden": false,
        "extraFields": [],
        "filter": { "type": "kibana_query", "query": query::whatever(Source::Events, &mark.when), "language": "kuery" },
    })
}
