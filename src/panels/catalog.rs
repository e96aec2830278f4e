//! The dashboards as the page gets them: all that it needs to lay panels out and to write what they show, and nothing of how
//! that is computed.

use serde_json::{Map, Value as Json, json};

use super::model::{
    ByValues, Case, Condition, Control, Dashboard, Every, Metric, Panel, Row, Split, Value,
};
use crate::document::fields::{self, Holds};

/// All dashboards, in the order in which they are listed.
#[must_use]
pub fn catalog(dashboards: &[Dashboard]) -> Json {
    json!({ "dashboards": dashboards.iter().map(dashboard).collect::<Vec<_>>() })
}

fn dashboard(dashboard: &Dashboard) -> Json {
    json!({
        "id": dashboard.id.value,
        "title": dashboard.title,
        "question": dashboard.question,
        "ofOne": dashboard.of_one.as_ref().map(|field| &field.value),
        "controls": dashboard.controls.iter().map(control).collect::<Vec<_>>(),
        "isMarked": !dashboard.marks.is_empty(),
        "rows": dashboard.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn control(control: &Control) -> Json {
    json!({ "field": control.field.value, "label": control.label })
}

fn row(row: &Row) -> Json {
    json!({ "height": row.height, "panels": row.panels.iter().map(panel).collect::<Vec<_>>() })
}

fn panel(panel: &Panel) -> Json {
    json!({
        "id": panel.id.value,
        "width": panel.width,
        "title": panel.title,
        "question": panel.question,
        "form": panel.form,
        "empty": panel.empty,
        "hasKinds": panel.of.len() > 1,
        "oldestFirst": panel.oldest_first,
        "by": panel.by.iter().map(split).collect::<Vec<_>>(),
        "show": panel.shown().map(|metric| value(panel, metric)).collect::<Vec<_>>(),
        "columns": panel.columns.iter().map(|column| field(&column.value)).collect::<Vec<_>>(),
    })
}

/// What a field holds, as the page writes it.
fn field(name: &str) -> Json {
    let holds = fields::find(name);
    json!({ "field": name, "kind": kind(holds), "unit": holds.and_then(Holds::unit) })
}

fn kind(holds: Option<Holds>) -> &'static str {
    match holds {
        Some(Holds::Date) => "time",
        Some(Holds::Number(_) | Holds::Whole(_)) => "number",
        Some(Holds::Flag) => "flag",
        _ => "text",
    }
}

fn split(split: &Split) -> Json {
    match split {
        Split::Time(by) => json!({
            "kind": "time", "isDay": by.every == Some(Every::Day), "isDense": !by.at_least.is_zero(),
        }),
        Split::Values(by) => json!({
            "kind": "values", "label": by.label, "field": field(&by.field.value),
            "missing": by.missing, "size": by.size, "opens": opens(by),
        }),
        Split::Classes(by) => json!({
            "kind": "classes", "label": by.label, "field": field(&by.field.value), "at": by.at,
        }),
        Split::Steps(by) => json!({
            "kind": "steps", "label": by.label, "field": field(&by.field.value), "every": by.every,
        }),
        Split::Cases(by) => {
            let chosen = |case: &Case| (case.label.clone(), chosen(case));
            let filters: Map<String, Json> = by.cases.iter().map(chosen).collect();
            json!({ "kind": "cases", "label": by.label, "filters": filters })
        }
        Split::Tiles(by) => {
            json!({ "kind": "tiles", "field": field(&by.field.value), "zoom": by.zoom })
        }
    }
}

/// The filters that leave what a case is about; null: they cannot say it.
fn chosen(case: &Case) -> Json {
    let filters = case.when.iter().map(|condition| match condition {
        Condition::Is(one) => Some(
            one.value
                .iter()
                .map(move |value| json!({ "field": one.field.value, "value": value.to_string() })),
        ),
        _ => None,
    });
    match filters.collect::<Option<Vec<_>>>() {
        Some(filters) => Json::Array(filters.into_iter().flatten().collect()),
        None => Json::Null,
    }
}

/// What a click on a part leads to, where it does not choose it: the session, or a search for those of a name.
fn opens(by: &ByValues) -> Option<&'static str> {
    match (by.is_by_session(), by.names_sessions()) {
        (true, _) => Some("session"),
        (false, true) => Some("search"),
        (false, false) => None,
    }
}

fn value(panel: &Panel, metric: &Metric) -> Json {
    let said = match &metric.value {
        Value::Min(field) | Value::Max(field) | Value::Last(field) => Some(&field.value),
        _ => None,
    };
    let holds = said.and_then(|field| fields::find(field));
    // All that is not said by a document is a number.
    let kind = holds.map_or("number", |holds| kind(Some(holds)));
    let unit = match &metric.value {
        Value::Running(of) => panel.metric(&of.value).and_then(Metric::unit),
        _ => metric.unit(),
    };
    json!({
        "label": metric.label, "kind": kind, "unit": unit, "per": metric.per,
        "right": metric.right, "isBad": metric.bad, "isZero": metric.value.is_zero(), "isOpen": metric.value.is_open(), "isLeast": metric.value.is_least(), "isRunning": matches!(metric.value, Value::Running(_)), "field": said,
    })
}
