//! Links: from the first dashboard one comes to every other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{decoded, list, text};

/// Ids of the dashboards that a panel of text leads to.
pub(super) fn of(panel: &Json) -> Vec<String> {
    linked(text(panel, "/embeddableConfig/savedVis/params/markdown"))
}

/// Ids of the dashboards that a text leads to.
pub(super) fn linked(markdown: &str) -> Vec<String> {
    let ids = markdown.split("(#/view/").skip(1);
    ids.filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

/// Dashboards to which one does not come from the first, with their lines.
pub(super) fn unreached(objects: &[(usize, Json)]) -> Vec<(usize, String)> {
    let mut ways: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let of_kind = |kind: &'static str| {
        objects.iter().filter(move |(_, object)| text(object, "/type") == kind)
    };
    for (_, object) in of_kind("dashboard") {
        let panels = decoded(object, "/attributes/panelsJSON");
        let mut to: Vec<String> = list(&panels, "").iter().flat_map(of).collect();
        for reference in list(object, "/references") {
            match text(reference, "/type") {
                "dashboard" => to.push(text(reference, "/id").to_owned()),
                "visualization" => {
                    let shown = of_kind("visualization")
                        .filter(|(_, shown)| shown.get("id") == reference.get("id"));
                    to.extend(shown.flat_map(|(_, shown)| {
                        linked(text(&decoded(shown, "/attributes/visState"), "/params/markdown"))
                    }));
                }
                _ => {}
            }
        }
        ways.insert(text(object, "/id"), to);
    }
    let first = of_kind("dashboard").next().map(|(_, object)| text(object, "/id").to_owned());
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<String> = first.into_iter().collect();
    while let Some(id) = waiting.pop() {
        let to = ways.get(id.as_str()).into_iter().flatten();
        waiting.extend(to.filter(|to| !reached.contains(*to)).cloned());
        reached.insert(id);
    }
    of_kind("dashboard")
        .filter(|(_, object)| !reached.contains(text(object, "/id")))
        .map(|(line, object)| (*line, format!("no link leads to {}", text(object, "/id"))))
        .collect()
}
