//! Whether a file of saved objects would work, found without a Kibana.
//!
//! Kibana takes in almost anything, and shows an empty panel afterwards. So the file is read anew, strictly, by rules of its own:
//! nothing here is shared with what wrote it, or both could be wrong in the same way.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::document::fields::{self, Holds};
use crate::panels::source::Source;

mod lens;
mod links;
mod map;
mod opensearch;
mod references;
mod shape;
mod shapes;
pub(super) mod formula;
pub(super) mod kql;

/// The newest version of each type that Kibana 8.17 knows; it refuses a file that has a newer one. None: it is left out.
const VERSIONS: &[(&str, Option<[u32; 3]>)] = &[
    ("index-pattern", Some([8, 0, 0])),
    ("dashboard", Some([10, 2, 0])),
    ("search", Some([8, 0, 0])),
    ("tag", None),
];
/// The same for what all have in common.
const CORE: [u32; 3] = [8, 8, 0];
/// Columns of a dashboard, and panels that it takes.
const COLUMNS: u64 = 48;
const PANELS: usize = 100;
/// A panel lower than this shows nothing.
const LOWEST: u64 = 3;

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands; each object has a line of its own.
    pub line: usize,
    /// What it is: of which object and panel, and why.
    pub told: String,
}

/// All that is wrong with a file of saved objects, for Kibana or, if its objects say so, for OpenSearch Dashboards.
#[must_use]
pub fn check(ndjson: &str) -> Vec<Problem> {
    check_beside(ndjson, &[])
}

/// The same of a file whose objects may lead to those of others.
#[must_use]
pub fn check_beside(ndjson: &str, others: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut tell = |line: usize, told: String| problems.push(Problem { line, told });
    let mut objects = Vec::new();
    for (line, text) in (1..).zip(ndjson.lines()) {
        match serde_json::from_str::<Json>(text) {
            Ok(object) => {
                if serde_json::to_string(&object).is_ok_and(|sorted| sorted != text) {
                    tell(line, "it is not written with its keys in order".to_owned());
                }
                objects.push((line, object));
            }
            Err(error) => tell(line, format!("it is no JSON: {error}")),
        }
    }
    if !ndjson.ends_with('\n') {
        tell(ndjson.lines().count().max(1), "the file does not end with a line".to_owned());
    }
    let mut all = BTreeSet::new();
    for (line, object) in &objects {
        let (kind, id) = (text(object, "/type").to_owned(), text(object, "/id").to_owned());
        if !all.insert((kind, id)) {
            tell(*line, "two objects have one type and id".to_owned());
        }
    }
    if objects.is_empty() {
        tell(1, "the file holds no object".to_owned());
    }
    let is_opensearch = objects.iter().any(|(_, object)| object.get("migrationVersion").is_some());
    let beside = others.iter().flat_map(|other| other.lines());
    let beside = beside.filter_map(|line| serde_json::from_str::<Json>(line).ok());
    all.extend(
        beside
            .filter(|object| object.get("migrationVersion").is_some() == is_opensearch)
            .map(|object| (text(&object, "/type").to_owned(), text(&object, "/id").to_owned())),
    );
    for (line, object) in &objects {
        let mut told = Vec::new();
        if is_opensearch {
            opensearch::check(object, &all, &mut told);
        } else {
            kibana(object, &all, &mut told);
        }
        told.into_iter().for_each(|told| tell(*line, told));
    }
    for (line, told) in links::unreached(&objects) {
        tell(line, told);
    }
    problems.sort_by_key(|problem| problem.line);
    problems
}

/// An object of Kibana.
fn kibana(object: &Json, all: &BTreeSet<(String, String)>, told: &mut Vec<String>) {
    shapes::SAVED.check(object, text(object, "/id"), told);
    envelope(object, told);
    references::check(object, all, told);
    match text(object, "/type") {
        "dashboard" => dashboard(object, all, told),
        "search" => search(object, told),
        "index-pattern" => data_view(object, told),
        _ => {}
    }
}

/// A text within a value; nothing is an empty one, since shapes have told of it.
fn text<'v>(value: &'v Json, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Json::as_str).unwrap_or_default()
}

fn number(value: &Json, pointer: &str) -> Option<f64> {
    value.pointer(pointer).and_then(Json::as_f64)
}

fn list<'v>(value: &'v Json, pointer: &str) -> &'v [Json] {
    value.pointer(pointer).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

/// The JSON within a text.
fn decoded(value: &Json, pointer: &str) -> Json {
    serde_json::from_str(text(value, pointer)).unwrap_or_default()
}

/// What a field of callscope's documents holds, by the name that Kibana knows it by.
fn holds(name: &str) -> Result<Holds, String> {
    holds_in(Source::Events, name)
}

/// The same for any source.
fn holds_in(over: Source, name: &str) -> Result<Holds, String> {
    let plain = name.strip_suffix(".keyword");
    match (over.find(plain.unwrap_or(name)), plain) {
        // Its texts are searched as a whole by their own name, and have no other.
        (Some(Holds::Text), None) if over == Source::Metricbeat => Ok(Holds::Text),
        (_, Some(_)) if over == Source::Metricbeat => Err(format!("there is no field {name:?}")),
        (Some(Holds::Text), None) => Err(format!("{name} is a text and not named by its .keyword")),
        (Some(Holds::Text), Some(_)) => Ok(Holds::Text),
        (Some(Holds::Unsearched), _) => Err(format!("{name} is not searched")),
        (Some(holds), None) => Ok(holds),
        _ => Err(format!("there is no field {name:?}")),
    }
}

/// A query can be read, and its fields hold what they are compared with.
fn query(query: &str, at: &str, told: &mut Vec<String>) {
    query_in(Source::Events, query, at, told);
}

/// The same for any source.
fn query_in(over: Source, query: &str, at: &str, told: &mut Vec<String>) {
    let term = match kql::read(query) {
        Ok(term) => term,
        Err(problem) => return told.push(format!("{at}: {problem}")),
    };
    term.each(&mut |field, words, is_compared| match holds_in(over, field) {
        Err(problem) => told.push(format!("{at}: {problem}")),
        Ok(holds) => {
            let is_number = holds.is_number();
            let suits = |word: &kql::Word| match word {
                kql::Word::Text(_) => holds == Holds::Text,
                kql::Word::Number(_) => is_number,
                kql::Word::Flag(_) => holds == Holds::Flag,
            };
            if !words.unwrap_or_default().iter().all(suits) || (is_compared && !is_number) {
                told.push(format!("{at}: {field} holds {holds:?}, and {query:?} asks otherwise"));
            }
        }
    });
}

fn version(text: &str) -> Option<[u32; 3]> {
    let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    parts?.try_into().ok()
}

fn identifier(object: &Json, told: &mut Vec<String>) {
    let at = text(object, "/id");
    let is_plain = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
    };
    if at.is_empty() || !at.chars().all(is_plain) {
        told.push(format!("id {at:?} is not of small letters, digits and `-`"));
    }
}

fn envelope(object: &Json, told: &mut Vec<String>) {
    let at = text(object, "/id");
    identifier(object, told);
    if object.get("managed") != Some(&Json::Bool(true)) {
        told.push(format!("{at} is not managed"));
    }
    if version(text(object, "/coreMigrationVersion")).is_none_or(|version| version > CORE) {
        told.push(format!("{at} has a core version that Kibana 8.17 does not know"));
    }
    let kind = text(object, "/type");
    let newest =
        VERSIONS.iter().find(|(known, _)| *known == kind).and_then(|(_, version)| *version);
    let own = object.get("typeMigrationVersion").and_then(Json::as_str);
    let is_known = match (own, newest) {
        (None, None) => true,
        (Some(own), Some(newest)) => version(own).is_some_and(|own| own <= newest),
        _ => false,
    };
    if !is_known {
        told.push(format!("{at} has a version of {kind} that Kibana 8.17 does not know"));
    }
}

/// The source whose data view a reference leads to.
fn source_of<'r>(mut references: impl Iterator<Item = &'r Json>, name: &str) -> Source {
    let found = references.find(|reference| text(reference, "/name") == name);
    let id = found.map_or("", |reference| text(reference, "/id"));
    Source::ALL.into_iter().find(|source| source.view() == id).unwrap_or_default()
}

fn data_view(object: &Json, told: &mut Vec<String>) {
    let over = Source::ALL.into_iter().find(|source| source.view() == text(object, "/id"));
    let over = over.unwrap_or_default();
    if text(object, "/attributes/timeFieldName") != over.time() {
        told.push(format!("data view {} has another time", text(object, "/id")));
    }
    let formats = decoded(object, "/attributes/fieldFormatMap");
    for field in formats.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if !holds_in(over, field).is_ok_and(Holds::is_number) {
            told.push(format!("data view: {field} is no number"));
        }
    }
}

fn search(object: &Json, told: &mut Vec<String>) {
    let at = text(object, "/id");
    let source = decoded(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON");
    query(text(&source, "/query/query"), at, told);
    for column in list(object, "/attributes/columns").iter().filter_map(Json::as_str) {
        if fields::find(column).is_none() {
            told.push(format!("{at}: there is no field {column:?}"));
        }
    }
    for pair in list(object, "/attributes/sort") {
        let is_pair = pair.as_array().is_some_and(|pair| pair.len() == 2);
        if !is_pair || !matches!(holds(text(pair, "/0")), Ok(Holds::Date)) {
            told.push(format!("{at} is sorted by no time"));
        }
    }
}

/// Nothing is shown that is not of callscope.
fn narrowed(object: &Json, told: &mut Vec<String>) {
    // A filter of the whole would hold for documents of others too.
    let is_of_others = |reference: &Json| {
        let (kind, id) = (text(reference, "/type"), text(reference, "/id"));
        kind == "index-pattern" && id != Source::Events.view()
    };
    let is_mixed = list(object, "/references").iter().any(is_of_others);
    let source = decoded(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON");
    if is_mixed {
        if !list(&source, "/filter").is_empty() {
            let at = text(object, "/id");
            told.push(format!(
                "{at} has a filter, which leaves nothing of the documents of others"
            ));
        }
        return;
    }
    let exists = |filter: &Json| text(filter, "/query/exists/field") == "elastic_type";
    if !list(&source, "/filter").iter().any(exists) {
        told.push(format!("{} shows whatever else is in the index", text(object, "/id")));
    }
}

fn dashboard(object: &Json, all: &BTreeSet<(String, String)>, told: &mut Vec<String>) {
    let at = text(object, "/id");
    narrowed(object, told);
    let controls = decoded(object, "/attributes/controlGroupInput/panelsJSON");
    for (id, control) in controls.as_object().into_iter().flatten() {
        if text(control, "/explicitInput/id") != id {
            told.push(format!("{at}: control {id} has another id within"));
        }
        let name = format!("controlGroup_{id}:optionsListDataView");
        let over = source_of(list(object, "/references").iter(), &name);
        if !matches!(holds_in(over, text(control, "/explicitInput/fieldName")), Ok(Holds::Text)) {
            told.push(format!("{at}: control {id} is of no text"));
        }
    }
    let panels = decoded(object, "/attributes/panelsJSON");
    let panels = list(&panels, "");
    grid(at, panels, told);
    for panel in panels {
        let at = format!("{at}: panel {}", text(panel, "/panelIndex"));
        let (outer, inner) = (text(panel, "/title"), text(panel, "/embeddableConfig/title"));
        if outer != inner {
            told.push(format!("{at} is called {outer:?} and {inner:?}"));
        }
        match text(panel, "/type") {
            "lens" => lens::check(panel, &at, told),
            "map" => map::check(panel, &at, told),
            "visualization" => {
                for target in links::of(panel) {
                    if !all.contains(&("dashboard".to_owned(), target.clone())) {
                        told.push(format!("{at} links to {target}, which is not there"));
                    }
                }
            }
            _ => {}
        }
    }
}

fn grid(at: &str, panels: &[Json], told: &mut Vec<String>) {
    if panels.len() > PANELS {
        told.push(format!("{at} has more panels than Kibana takes"));
    }
    let mut ids = BTreeSet::new();
    let mut areas: Vec<(&str, [u64; 4])> = Vec::new();
    for panel in panels {
        let id = text(panel, "/panelIndex");
        if id.is_empty() || !ids.insert(id) || text(panel, "/gridData/i") != id {
            told.push(format!("{at}: panel {id:?} has no id of its own, the same in its grid"));
        }
        let number =
            |name: &str| panel.pointer(&format!("/gridData/{name}")).and_then(Json::as_u64);
        let (Some(x), Some(y), Some(w), Some(h)) =
            (number("x"), number("y"), number("w"), number("h"))
        else {
            told.push(format!("{at}: panel {id} stands nowhere"));
            continue;
        };
        if w == 0 || h < LOWEST || x + w > COLUMNS {
            told.push(format!("{at}: panel {id} does not fit"));
        }
        let is_over = |[other_x, other_y, right, bottom]: &[u64; 4]| {
            x < *right && *other_x < x + w && y < *bottom && *other_y < y + h
        };
        if let Some((other, _)) = areas.iter().find(|(_, area)| is_over(area)) {
            told.push(format!("{at}: panel {id} lies on panel {other}"));
        }
        areas.push((id, [x, y, x + w, y + h]));
    }
    let bottom = areas.iter().map(|(_, [_, _, _, bottom])| *bottom).max().unwrap_or_default();
    let is_filled = |line: &u64| {
        areas.iter().any(|(_, [x, top, _, bottom])| *x == 0 && (*top..*bottom).contains(line))
    };
    if let Some(line) = (0..bottom).find(|line| !is_filled(line)) {
        told.push(format!("{at}: there is a hole at the left of line {line}"));
    }
}

#[cfg(test)]
mod tests;
