//! Lists of documents, which are saved searches.

use serde_json::{Value as Json, json};

use super::{encoded, id, object, query, view};
use crate::panels::model::Panel;

/// What the reference to the data view is called.
pub(super) const INDEX: &str = "kibanaSavedObjectMeta.searchSourceJSON.index";

/// The search.
pub(super) fn search(panel: &Panel) -> Json {
    object("search", &id(&panel.id.value), Some("8.0.0"), &attributes(panel), &[view(INDEX)])
}

/// What is looked for, and what is shown of it.
pub(super) fn attributes(panel: &Panel) -> Json {
    let source = json!({
        "query": { "query": query::of_kinds(panel.over, &panel.of, &panel.when), "language": "kuery" },
        "filter": [], "highlightAll": true, "version": true, "indexRefName": INDEX,
    });
    let order = if panel.oldest_first { "asc" } else { "desc" };
    let columns: Vec<&String> = panel.columns.iter().map(|column| &column.value).collect();
    json!({
        "title": panel.title, "description": super::described(&panel.question), "columns": columns, "sort": [["timestamp", order]],
        "hideChart": true, "isTextBasedQuery": false, "grid": {},
        "kibanaSavedObjectMeta": { "searchSourceJSON": encoded(&source) },
    })
}
