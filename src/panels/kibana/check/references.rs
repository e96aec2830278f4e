//! References: what the content of an object needs is there by its right name, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{decoded, list, text};

/// References that an object needs: what the target may be, by name.
pub(super) type Needed = BTreeMap<String, &'static [&'static str]>;

/// A data view.
pub(super) const VIEW: &[&str] = &["index-pattern"];

/// Tells what of an object's references is missing, needless or leads nowhere.
pub(super) fn check(object: &Json, all: &BTreeSet<(String, String)>, told: &mut Vec<String>) {
    let at = text(object, "/id");
    let mut needed = Needed::new();
    match text(object, "/type") {
        "dashboard" => dashboard(object, &mut needed, told),
        "search" => {
            let source = decoded(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON");
            named(
                &source,
                "/indexRefName",
                "kibanaSavedObjectMeta.searchSourceJSON.index",
                at,
                told,
            );
            view(&mut needed, "kibanaSavedObjectMeta.searchSourceJSON.index".to_owned());
        }
        _ => {}
    }
    let has_tag = compare(object, &needed, all, told);
    if text(object, "/type") == "dashboard" && !has_tag {
        told.push(format!("{at} has no tag"));
    }
}

/// Tells where an object's references are not those that it needs; only a tag is needed by nothing. Gives whether it has one.
pub(super) fn compare(
    object: &Json,
    needed: &Needed,
    all: &BTreeSet<(String, String)>,
    told: &mut Vec<String>,
) -> bool {
    let at = text(object, "/id");
    let (mut present, mut has_tag) = (BTreeSet::new(), false);
    for reference in list(object, "/references") {
        let (kind, id, name) =
            (text(reference, "/type"), text(reference, "/id"), text(reference, "/name"));
        if !present.insert(name) {
            told.push(format!("{at}: two references are called {name}"));
        }
        if !all.contains(&(kind.to_owned(), id.to_owned())) {
            told.push(format!("{at}: reference {name} leads to {kind} {id}, which is not there"));
        }
        let is_tag = kind == "tag" && name == format!("tag-ref-{id}");
        has_tag |= is_tag;
        match needed.get(name) {
            Some(kinds) if !kinds.contains(&kind) => {
                let wanted = kinds.join(" or ");
                told.push(format!("{at}: reference {name} leads to a {kind}, not to a {wanted}"));
            }
            Some(_) => {}
            None if is_tag => {}
            None => told.push(format!("{at}: nothing needs reference {name}")),
        }
    }
    for (name, kinds) in needed {
        if !present.contains(name.as_str()) {
            told.push(format!("{at}: reference {name} to a {} is missing", kinds.join(" or ")));
        }
    }
    has_tag
}

fn view(needed: &mut Needed, name: String) {
    needed.insert(name, VIEW);
}

/// Where the content itself names its reference, it is the right name.
fn named(value: &Json, pointer: &str, expected: &str, at: &str, told: &mut Vec<String>) {
    let found = text(value, pointer);
    if found != expected {
        told.push(format!("{at}: a reference is asked for as {found:?} instead of {expected:?}"));
    }
}

fn dashboard(object: &Json, needed: &mut Needed, told: &mut Vec<String>) {
    let at = text(object, "/id");
    let source = decoded(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON");
    for (place, filter) in list(&source, "/filter").iter().enumerate() {
        let name = format!("kibanaSavedObjectMeta.searchSourceJSON.filter[{place}].meta.index");
        named(filter, "/meta/indexRefName", &name, at, told);
        view(needed, name);
    }
    let controls = decoded(object, "/attributes/controlGroupInput/panelsJSON");
    for id in controls.as_object().into_iter().flat_map(serde_json::Map::keys) {
        view(needed, format!("controlGroup_{id}:optionsListDataView"));
    }
    for panel in list(&decoded(object, "/attributes/panelsJSON"), "") {
        let id = text(panel, "/panelIndex");
        for event in list(panel, "/embeddableConfig/enhancements/dynamicActions/events") {
            let event = text(event, "/eventId");
            let name =
                format!("{id}:drilldown:DASHBOARD_TO_DASHBOARD_DRILLDOWN:{event}:dashboardId");
            needed.insert(name, &["dashboard"]);
        }
        match text(panel, "/type") {
            "lens" => lens(panel, at, needed, told),
            "search" => {
                named(panel, "/panelRefName", &format!("panel_{id}"), at, told);
                needed.insert(format!("{id}:panel_{id}"), &["search"]);
            }
            "map" => {
                let layers = decoded(panel, "/embeddableConfig/attributes/layerListJSON");
                for (place, layer) in list(&layers, "").iter().enumerate() {
                    if layer.pointer("/sourceDescriptor/geoField").is_some() {
                        let name = format!("layer_{place}_source_index_pattern");
                        named(layer, "/sourceDescriptor/indexPatternRefName", &name, at, told);
                        view(needed, format!("{id}:{name}"));
                    }
                }
            }
            _ => {}
        }
    }
}

/// A chart lists its references itself, and its dashboard repeats them with the panel's name before.
fn lens(panel: &Json, at: &str, needed: &mut Needed, told: &mut Vec<String>) {
    let id = text(panel, "/panelIndex");
    let attributes = panel.pointer("/embeddableConfig/attributes").unwrap_or(&Json::Null);
    let layers = attributes.pointer("/state/datasourceStates/formBased/layers");
    let mut inner: BTreeSet<String> = layers
        .and_then(Json::as_object)
        .into_iter()
        .flat_map(serde_json::Map::keys)
        .map(|layer| format!("indexpattern-datasource-layer-{layer}"))
        .collect();
    for layer in list(attributes, "/state/visualization/layers") {
        if text(layer, "/layerType") == "annotations" {
            inner.insert(format!("xy-visualization-layer-{}", text(layer, "/layerId")));
        }
    }
    let present: BTreeSet<String> = list(attributes, "/references")
        .iter()
        .filter(|reference| text(reference, "/type") == "index-pattern")
        .map(|reference| text(reference, "/name").to_owned())
        .collect();
    if inner != present {
        told.push(format!("{at}: panel {id} refers to {present:?} instead of {inner:?}"));
    }
    inner.into_iter().for_each(|name| view(needed, format!("{id}:{name}")));
}
