//! Dashboards as saved objects of OpenSearch Dashboards 2 and 3, which has neither Lens nor maps of Kibana's kind.
//!
//! Each panel is an object of its own. [`classic`] charts take what they can say; values that are asked of some documents alone,
//! or reckoned of others, they cannot, and [`vega`] draws those from the request that the page and the tests make too.

use serde_json::{Value as Json, json};

use super::{MARK, OWN, described, encoded, id, query, search, view};
use crate::document::fields::exact;
use crate::panels::model::{Dashboard, Form, Metric, Panel};
use crate::panels::source::Source;

mod board;
mod classic;
mod expression;
mod vega;

/// What versions of objects are called, of the one from which both have come.
const VERSIONS: &[(&str, &str)] = &[
    ("index-pattern", "7.6.0"),
    ("visualization", "7.10.0"),
    ("search", "7.9.3"),
    ("dashboard", "7.9.3"),
];

/// Data view, dashboards, and the panels they are made of, over the index or alias of this name.
pub(super) fn objects(dashboards: &[Dashboard], index: &str) -> Vec<Json> {
    let mut objects = vec![data_view(index)];
    for dashboard in dashboards {
        let (board, panels) = board::board(dashboards, dashboard, index);
        objects.push(board);
        objects.extend(panels);
    }
    objects
}

fn object(kind: &str, id: &str, attributes: &Json, references: &[Json]) -> Json {
    let version = VERSIONS.iter().find(|(known, _)| *known == kind).map(|(_, version)| version);
    json!({
        "type": kind, "id": id, "migrationVersion": { kind: version }, "attributes": attributes, "references": references,
    })
}

/// Names of sessions lead to their dashboard, as nothing else does here.
fn data_view(index: &str) -> Json {
    let mut formats = super::formats(Source::Events);
    let to = format!(
        "../app/dashboards#/view/{}?_g=(time:(from:now-1y,to:now))&_a=(query:(language:kuery,query:'{}:%22{{{{value}}}}%22'))",
        id("session"),
        exact("uniqueSessionId")
    );
    let link = json!({ "id": "url", "params": {
        "type": "a", "urlTemplate": to, "labelTemplate": "{{value}}", "openLinkInCurrentTab": true,
    } });
    formats.insert(exact("uniqueSessionId"), link);
    let attributes = json!({
        "title": index, "description": MARK, "timeFieldName": "timestamp", "fields": "[]",
        "fieldFormatMap": encoded(&Json::Object(formats)),
    });
    object("index-pattern", OWN, &attributes, &[])
}

/// A list as a saved search.
fn list(panel: &Panel) -> Json {
    let mut attributes = search::attributes(panel);
    if let Some(attributes) = attributes.as_object_mut() {
        for name in ["hideChart", "isTextBasedQuery", "grid"] {
            attributes.remove(name);
        }
        attributes.insert("version".to_owned(), json!(1));
    }
    object("search", &id(&panel.id.value), &attributes, &[view(search::INDEX)])
}

/// A chart, table or number; `query`: which documents it looks at, where it does not say so itself.
fn visualization(
    id: &str,
    title: &str,
    description: &str,
    state: &Json,
    query: Option<&str>,
) -> Json {
    let mut source = json!({ "query": { "query": query.unwrap_or_default(), "language": "kuery" }, "filter": [] });
    let mut references = Vec::new();
    if let (Some(_), Some(source)) = (query, source.as_object_mut()) {
        source.insert("indexRefName".to_owned(), json!(search::INDEX));
        references.push(view(search::INDEX));
    }
    // Controls name the data view of each field, and read no documents themselves.
    for (place, _) in
        state.pointer("/params/controls").and_then(Json::as_array).into_iter().flatten().enumerate()
    {
        references.push(view(&format!("control_{place}_index_pattern")));
    }
    let attributes = json!({
        "title": title, "description": described(description), "version": 1, "uiStateJSON": "{}",
        "visState": encoded(state),
        "kibanaSavedObjectMeta": { "searchSourceJSON": encoded(&source) },
    });
    object("visualization", &super::id(id), &attributes, &references)
}

/// A panel that shows these of its values.
fn chart(id: &str, panel: &Panel, shown: &[&Metric], title: &str, index: &str) -> Json {
    let description = format!("{} If there is nothing to see: {}", panel.question, panel.empty);
    match classic::state(panel, shown, title) {
        Some(state) => {
            // What the one value asks for, the whole can ask for.
            let when: Vec<_> = match shown {
                [one] => panel.when.iter().chain(&one.when).cloned().collect(),
                _ => panel.when.clone(),
            };
            let query = query::of_kinds(panel.over, &panel.of, &when);
            visualization(id, title, &description, &state, Some(&query))
        }
        None => {
            let state = vega::state(panel, shown, title, index);
            visualization(id, title, &description, &state, None)
        }
    }
}

/// Whether each value of a panel has a chart of its own.
fn is_spread(panel: &Panel) -> bool {
    matches!(panel.form, Form::Numbers | Form::Map)
}

/// Whether some of a panel is drawn by Vega.
pub(super) fn is_drawn(panel: &Panel) -> bool {
    let shown: Vec<&Metric> = panel.shown().collect();
    let is_drawn =
        |shown: &[&Metric]| panel.form != Form::List && classic::state(panel, shown, "").is_none();
    if is_spread(panel) { shown.iter().any(|metric| is_drawn(&[metric])) } else { is_drawn(&shown) }
}

#[cfg(test)]
mod tests;
