//! Lists of documents, which are saved searches.

use serde_json::{Value as Json, json};

use super::{encoded, id, object, query, view};
use crate::panels::model::Panel;

/// The search, newest documents first.
pub(super) fn search(panel: &Panel) -> Json {
    let index = "kibanaSavedObjectMeta.searchSourceJSON.index";
    let source = json!({
        "query": { "query": query::of_kinds(&panel.of, &panel.when), "language": "kuery" },
        "filter": [], "highlightAll": true, "version": true, "indexRefName": index,
    });
    let columns: Vec<&String> = panel.columns.iter().map(|column| &column.value).collect();
    let attributes = json!({
        "title": panel.title, "description": panel.question, "columns": columns, "sort": [["timestamp", "desc"]],
        "hideChart": true, "isTextBasedQuery": false, "grid": {},
        "kibanaSavedObjectMeta": { "searchSourceJSON": encoded(&source) },
    });
    object("search", &id(&panel.id.value), Some("8.0.0"), &attributes, &[view(index)])
}
