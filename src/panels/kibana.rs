//! Dashboards as saved objects of Kibana 8.17 to 9, a file to import.
//!
//! ```text
//!  Dashboard ─┬▶ dashboard ─┬▶ lens ─▶ columns ─▶ formula
//!             │             └▶ map                          query: conditions as KQL, for all of them
//!             ├▶ search
//!             └▶ opensearch: the same for OpenSearch Dashboards
//! ```
//!
//! Charts are part of their dashboard, lists alone are objects of their own. What is written is the form of the oldest version;
//! newer ones bring it up to date when they read it, and none takes a version that is newer than itself. [`check`] reads the
//! result anew and knows nothing of how it was made.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::model::{Dashboard, Form};
use super::source::Source;
use crate::document::fields::{Holds, Unit};

mod columns;
mod dashboard;
mod formula;
mod lens;
mod map;
mod opensearch;
mod query;
mod readme;
mod search;
pub mod check;

/// The id of what all dashboards share: data view and tag.
const OWN: &str = "callscope";
/// By which what callscope made is known.
const MARK: &str = "Shipped with callscope";
/// What people call the data view of callscope's documents.
const VIEW: &str = "OpenVidu events";
/// From when on dashboards show what was, unless somebody chooses otherwise.
const FROM: &str = "now-24h";

/// Data view, tag, dashboards and searches, over the index or alias of this name.
#[must_use]
pub fn objects(dashboards: &[Dashboard], index: &str) -> Vec<Json> {
    let lists = dashboards.iter().flat_map(Dashboard::panels);
    let searches = lists.filter(|panel| panel.form == Form::List).map(search::search);
    let boards = dashboards.iter().map(|one| dashboard::dashboard(dashboards, one));
    let events = data_view(Source::Events, index, VIEW);
    [events, tag()].into_iter().chain(boards).chain(searches).collect()
}

/// What takes the file. One knows nothing of the other's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Kibana 8.17 to 9.
    Kibana,
    /// OpenSearch Dashboards 2 and 3.
    OpenSearch,
}

/// The same as a file to import: a line for each object, keys in order, so that equal dashboards give equal files.
#[must_use]
pub fn ndjson(dashboards: &[Dashboard], index: &str, flavour: Flavour) -> String {
    let objects = match flavour {
        Flavour::Kibana => objects(dashboards, index),
        Flavour::OpenSearch => opensearch::objects(dashboards, index),
    };
    objects.iter().map(|object| encoded(object) + "\n").collect()
}

/// Dashboards of hosts as a file to import beside that of `dashboards`: they lead to each other.
#[must_use]
pub fn hosts(dashboards: &[Dashboard], hosts: &[Dashboard]) -> String {
    let all = [dashboards, hosts].concat();
    let views = [
        data_view(Source::Metricbeat, "metricbeat-*", "Hosts"),
        data_view(Source::ServerMetrics, "server-metrics-*", "Server runtime"),
    ];
    let boards = hosts.iter().map(|one| dashboard::dashboard(&all, one));
    views.into_iter().chain(boards).map(|object| encoded(&object) + "\n").collect()
}

/// Whether an object that has an identifier of ours was made by callscope: its description bears our mark. A data view of Kibana has
/// none; that one has our name for it. What an older callscope made without the mark is managed and refers to what is ours;
/// either alone is so of others' objects, too.
#[must_use]
pub fn is_ours(object: &Json) -> bool {
    let text = |pointer: &str| object.pointer(pointer).and_then(Json::as_str).unwrap_or_default();
    let is_view = text("/type") == "index-pattern";
    let references = object.get("references").and_then(Json::as_array).into_iter().flatten();
    let mut ids = references.filter_map(|reference| reference.get("id")?.as_str());
    let is_managed = object.get("managed") == Some(&Json::Bool(true));
    text("/attributes/description").contains(MARK)
        || is_view && text("/attributes/name") == VIEW
        || is_managed && ids.any(|id| id == OWN)
}

/// The files of the folder `kibana/` by name, over the alias `openvidu`.
#[must_use]
pub fn files(dashboards: &[Dashboard], hosts: &[Dashboard]) -> [(&'static str, String); 4] {
    [
        ("hosts.ndjson", self::hosts(dashboards, hosts)),
        ("opensearch-dashboards.ndjson", ndjson(dashboards, "openvidu", Flavour::OpenSearch)),
        ("callscope.ndjson", ndjson(dashboards, "openvidu", Flavour::Kibana)),
        ("README.md", readme::readme(dashboards, hosts)),
    ]
}

/// What people read of an object, and by which it is known as ours.
fn described(text: &str) -> String {
    format!("{text} — {MARK}.")
}

/// The same of a dashboard. A session lists what everybody in it used, so two filters may each be met by another one.
fn about(one: &Dashboard) -> String {
    let is_narrowed = one.controls.iter().any(|control| control.field.value.starts_with("client."));
    let hint = if is_narrowed {
        " Narrowed by what people use and where they are, sessions are those in which somebody fits each filter, be it not one and the same."
    } else {
        ""
    };
    described(&format!("{}{hint}", one.question))
}

/// The id of a dashboard, or of the search behind a list.
fn id(of: &str) -> String {
    format!("{OWN}-{of}")
}

fn object(
    kind: &str,
    id: &str,
    version: Option<&str>,
    attributes: &Json,
    references: &[Json],
) -> Json {
    let mut object = json!({
        "type": kind, "id": id, "managed": true, "coreMigrationVersion": "8.8.0",
        "attributes": attributes, "references": references,
    });
    if let (Some(version), Some(object)) = (version, object.as_object_mut()) {
        object.insert("typeMigrationVersion".to_owned(), json!(version));
    }
    object
}

/// A reference to the data view of callscope's documents.
fn view(name: &str) -> Json {
    view_of(Source::Events, name)
}

/// A reference to the data view of a source.
fn view_of(over: Source, name: &str) -> Json {
    json!({ "type": "index-pattern", "id": over.view(), "name": name })
}

fn tag() -> Json {
    let attributes = json!({ "name": "callscope", "description": MARK, "color": "#0077CC" });
    object("tag", OWN, None, &attributes, &[])
}

/// How single documents show each field that holds a number.
fn formats(over: Source) -> Map<String, Json> {
    let format =
        |(field, holds): &(&str, Holds)| Some(((*field).to_owned(), format(holds.unit()?)?));
    over.fields().iter().filter_map(format).collect()
}

fn data_view(over: Source, index: &str, name: &str) -> Json {
    let formats = formats(over);
    let attributes = json!({
        "title": index, "name": name, "timeFieldName": over.time(),
        "fields": "[]", "sourceFilters": "[]", "fieldAttrs": "{}", "runtimeFieldMap": "{}",
        "fieldFormatMap": encoded(&Json::Object(formats)),
    });
    object("index-pattern", over.view(), Some("8.0.0"), &attributes, &[])
}

/// How single documents show a number; charts say it themselves.
fn format(unit: Unit) -> Option<Json> {
    let duration = |from: &str, to: &str| {
        json!({ "id": "duration", "params": {
            "inputFormat": from, "outputFormat": to, "outputPrecision": 1, "showSuffix": true, "useShortSuffix": true,
        } })
    };
    match unit {
        Unit::Seconds => Some(duration("seconds", "humanizePrecise")),
        Unit::Milliseconds => Some(duration("milliseconds", "asMilliseconds")),
        Unit::Bytes => Some(json!({ "id": "bytes" })),
        Unit::Share => Some(json!({ "id": "percent" })),
        Unit::Number | Unit::Percent | Unit::BitsPerSecond => None,
    }
}

/// A number as people write it: without a fraction where there is none.
fn number(value: f64) -> Json {
    serde_json::from_str(&value.to_string()).unwrap_or_else(|_| json!(value))
}

/// JSON whose keys are in order, whatever order the library keeps them in.
fn encoded(value: &Json) -> String {
    sorted(value).to_string()
}

fn sorted(value: &Json) -> Json {
    match value {
        Json::Object(members) => {
            let members: BTreeMap<&String, &Json> = members.iter().collect();
            members.into_iter().map(|(name, member)| (name.clone(), sorted(member))).collect()
        }
        Json::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
