//! Every damage to a good file is found.

use serde_json::{Value as Json, json};

use super::check;
use crate::panels::kibana::tests::{self, every};
use crate::panels::kibana::{Flavour, ndjson, objects};

/// A way to damage a file: the object by its line, the text that holds JSON, if it is in one, and what is done there.
struct Damage(usize, Option<&'static str>, &'static str, fn(&mut Json));

fn damaged(mut objects: Vec<Json>, Damage(line, held_by, pointer, damage): &Damage) -> String {
    tests::damage(&mut objects[*line], *held_by, pointer, damage);
    objects.iter().map(|object| object.to_string() + "\n").collect()
}

fn remove(value: &mut Json, name: &str) {
    value.as_object_mut().unwrap().remove(name).unwrap();
}

/// Panels of the first dashboard by their place.
const PANELS: Option<&str> = Some("/attributes/panelsJSON");
const SHARES: &str = "/9/embeddableConfig/attributes/state/datasourceStates/formBased/layers/main";

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_damage_is_found() {
    let damages: &[(Damage, &str)] = &[
        (
            Damage(2, None, "/references", |it| {
                it.as_array_mut().unwrap().remove(0);
            }),
            "is missing",
        ),
        (
            Damage(2, None, "/references/0/name", |it| *it = json!("other")),
            "nothing needs reference other",
        ),
        (
            Damage(2, None, "/references/0/id", |it| *it = json!("none")),
            "index-pattern none, which is not there",
        ),
        (
            Damage(2, None, "/references/0/type", |it| *it = json!("search")),
            "leads to a search, not to a index-pattern",
        ),
        (
            Damage(2, None, "/references", |it| {
                let first = it[0].clone();
                it.as_array_mut().unwrap().push(first);
            }),
            "two references",
        ),
        (
            Damage(2, None, "/references", |it| {
                it.as_array_mut().unwrap().retain(|one| one["type"] != "tag")
            }),
            "has no tag",
        ),
        (
            Damage(4, None, "/references", |it| *it = json!([])),
            "callscope-events: reference kibanaSavedObjectMeta",
        ),
        (Damage(2, None, "", |it| it["typeMigrationVersion"] = json!("10.3.0")), "does not know"),
        (Damage(2, None, "", |it| remove(it, "typeMigrationVersion")), "does not know"),
        (Damage(1, None, "", |it| it["typeMigrationVersion"] = json!("1.0.0")), "does not know"),
        (Damage(0, None, "", |it| it["coreMigrationVersion"] = json!("8.9.0")), "core version"),
        (Damage(0, None, "", |it| it["managed"] = json!(false)), "is not managed"),
        (Damage(0, None, "", |it| it["id"] = json!("Call scope")), "small letters"),
        (Damage(3, None, "", |it| it["id"] = json!("callscope-board")), "two objects"),
        (
            Damage(0, None, "/attributes", |it| it["more"] = json!(1)),
            "has more, which nobody knows",
        ),
        (Damage(0, None, "/attributes", |it| remove(it, "timeFieldName")), "lacks timeFieldName"),
        (
            Damage(0, Some("/attributes/fieldFormatMap"), "", |it| {
                it["reason"] = json!({ "id": "bytes" })
            }),
            "reason is",
        ),
        (
            Damage(2, None, "/attributes/panelsJSON", |it| *it = json!([])),
            "panelsJSON is of another kind",
        ),
        (
            Damage(2, None, "/attributes/panelsJSON", |it| *it = json!("[")),
            "panelsJSON holds no JSON",
        ),
        (Damage(2, PANELS, "/3/gridData/x", |it| *it = json!(0)), "lies on panel"),
        (Damage(2, PANELS, "/2/gridData/w", |it| *it = json!(50)), "does not fit"),
        (Damage(2, PANELS, "/2/gridData/h", |it| *it = json!(2)), "does not fit"),
        (Damage(2, PANELS, "/2/gridData/i", |it| *it = json!("other")), "the same in its grid"),
        (
            Damage(2, PANELS, "", |it| {
                it.as_array_mut().unwrap().remove(0);
            }),
            "hole at the left of line 0",
        ),
        (Damage(2, PANELS, "/2/title", |it| *it = json!("Other")), "is called"),
        (Damage(2, PANELS, "/2/type", |it| *it = json!("timelion")), "which nobody knows"),
        (
            Damage(2, PANELS, "/0/embeddableConfig/savedVis/params/markdown", |it| {
                *it = json!("[x](#/view/callscope-none)")
            }),
            "links to callscope-none",
        ),
        (
            Damage(
                2,
                PANELS,
                "/7/embeddableConfig/enhancements/dynamicActions/events/0/eventId",
                |it| *it = json!("other"),
            ),
            "drilldown",
        ),
        (
            Damage(2, PANELS, "/9/embeddableConfig/attributes/references/1/name", |it| {
                *it = json!("other")
            }),
            "refers to",
        ),
        (
            Damage(2, PANELS, "/9/embeddableConfig/attributes/state/query/query", |it| {
                *it = json!("elastic_type.keyword : \"cdr\" and")
            }),
            "lacks a field",
        ),
        (
            Damage(2, PANELS, "/9/embeddableConfig/attributes/state/query/query", |it| {
                *it = json!("reason.keyword : \"x\"")
            }),
            "does not say which elastic_type",
        ),
        (
            Damage(2, PANELS, "/9/embeddableConfig/attributes/state/query/query", |it| {
                *it = json!("elastic_type.keyword : 7")
            }),
            "asks otherwise",
        ),
        (
            Damage(
                2,
                PANELS,
                "/9/embeddableConfig/attributes/state/visualization/layers/0/accessors/0",
                |it| *it = json!("none"),
            ),
            "no such column",
        ),
        (
            Damage(
                2,
                PANELS,
                "/9/embeddableConfig/attributes/state/visualization/layers/0/accessors/0",
                |it| *it = json!("shareX0"),
            ),
            "no such column",
        ),
        (
            Damage(
                2,
                PANELS,
                "/9/embeddableConfig/attributes/state/visualization/layers/0/xAccessor",
                |it| *it = json!("share"),
            ),
            "no such column",
        ),
        (
            Damage(
                2,
                PANELS,
                "/9/embeddableConfig/attributes/state/visualization/layers/0/accessors",
                |it| *it = json!(["share", "total"]),
            ),
            "rate is not drawn",
        ),
        (
            Damage(
                2,
                PANELS,
                "/9/embeddableConfig/attributes/state/visualization/layers/0/layerId",
                |it| *it = json!("other"),
            ),
            "a layer that is not there",
        ),
        (
            Damage(
                2,
                PANELS,
                "/9/embeddableConfig/attributes/state/visualization/layers/1/annotations/0/filter/query",
                |it| *it = json!("event : \"x\""),
            ),
            "not named by its .keyword",
        ),
        (
            Damage(
                2,
                PANELS,
                "/8/embeddableConfig/attributes/state/visualization/sorting/columnId",
                |it| *it = json!("none"),
            ),
            "sorted by no column",
        ),
    ];
    let in_columns: &[(Damage, &str)] = &[
        (
            Damage(2, PANELS, SHARES, |it| {
                let order = &mut it["columns"]["split-0"]["params"]["orderAgg"];
                order["operationType"] = json!("percentile");
                order["sourceField"] = json!("duration");
                order["params"] = json!({ "percentile": 99.9 });
            }),
            "percentile with a fraction",
        ),
        (
            Damage(2, PANELS, SHARES, |it| it["columnOrder"][0] = json!("none")),
            "is not of the columns",
        ),
        (
            Damage(2, PANELS, SHARES, |it| it["columnOrder"].as_array_mut().unwrap().swap(1, 2)),
            "before a split",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                let column = it["columns"]["rate"].clone();
                remove(&mut it["columns"], "rate");
                it["columns"]["other"] = column;
            }),
            "is not of the columns",
        ),
        (
            Damage(2, PANELS, SHARES, |it| it["columns"]["rate"]["label"] = json!("Share")),
            "no label of its own",
        ),
        (
            Damage(2, PANELS, SHARES, |it| it["columns"]["rate"]["operationType"] = json!("mode")),
            "which nobody knows",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["rate"]["sourceField"] = json!("bytesSend")
            }),
            "no field \"bytesSend\"",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["rate"]["sourceField"] = json!("reason.keyword")
            }),
            "which holds Text",
        ),
        (
            Damage(2, PANELS, SHARES, |it| it["columns"]["rate"]["isBucketed"] = json!(true)),
            "is a split, or it is none",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["split-0"]["sourceField"] = json!("event")
            }),
            "not named by its .keyword",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["split-0"]["params"]["otherBucket"] = json!(false)
            }),
            "beside others only",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["split-0"]["params"]["orderBy"] =
                    json!({ "type": "column", "columnId": "share" })
            }),
            "which is no value",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                remove(&mut it["columns"]["split-0"]["params"], "orderAgg")
            }),
            "by what it is ordered",
        ),
        (
            Damage(2, PANELS, SHARES, |it| it["columns"]["split-0"]["params"]["size"] = json!(0)),
            "a size",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["share"]["params"]["formula"] = json!("count(")
            }),
            "lacks ')'",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["share"]["params"]["isFormulaBroken"] = json!(true)
            }),
            "called broken",
        ),
        (
            Damage(2, PANELS, SHARES, |it| it["columns"]["share"]["references"] = json!([])),
            "refers to []",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["shareX0"]["filter"]["query"] = json!("reason.keyword : *")
            }),
            "part shareX0 is",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["shareX5"]["params"]["tinymathAst"]["name"] = json!("multiply")
            }),
            "part shareX5 is",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["totalX1"]["references"] = json!(["shareX0"])
            }),
            "part totalX1 is",
        ),
        (
            Damage(2, PANELS, SHARES, |it| {
                it["columns"]["shareX6"] = it["columns"]["shareX5"].clone()
            }),
            "has not 6 parts",
        ),
        (
            Damage(
                2,
                PANELS,
                "/3/embeddableConfig/attributes/state/datasourceStates/formBased/layers/main/columns/rtt/params/format",
                |it| *it = json!({ "id": "bytes", "params": { "decimals": 1 } }),
            ),
            "column rtt holds Milliseconds",
        ),
        (
            Damage(
                2,
                PANELS,
                "/10/embeddableConfig/attributes/state/datasourceStates/formBased/layers/main/columns/split-0/params/ranges",
                |it| {
                    it.as_array_mut().unwrap().remove(1);
                },
            ),
            "classes with gaps",
        ),
        (
            Damage(
                2,
                PANELS,
                "/10/embeddableConfig/attributes/state/datasourceStates/formBased/layers/main/columns/split-1/params/filters/0/input/query",
                |it| *it = json!("reason.keyword > 3"),
            ),
            "asks otherwise",
        ),
        (
            Damage(
                2,
                Some("/attributes/kibanaSavedObjectMeta/searchSourceJSON"),
                "/filter/0/query/exists/field",
                |it| *it = json!("reason"),
            ),
            "whatever else is in the index",
        ),
        (
            Damage(
                2,
                Some("/attributes/kibanaSavedObjectMeta/searchSourceJSON"),
                "/filter/0/meta/indexRefName",
                |it| *it = json!("other"),
            ),
            "is asked for as \"other\"",
        ),
        (
            Damage(
                2,
                Some("/attributes/controlGroupInput/panelsJSON"),
                "/client-browser/explicitInput/fieldName",
                |it| *it = json!("client.browser"),
            ),
            "is of no text",
        ),
        (
            Damage(
                2,
                Some("/attributes/controlGroupInput/panelsJSON"),
                "/client-browser/explicitInput/id",
                |it| *it = json!("other"),
            ),
            "another id within",
        ),
        (
            Damage(3, PANELS, "/1/panelRefName", |it| *it = json!("other")),
            "is asked for as \"other\"",
        ),
        (Damage(4, None, "/attributes/columns/0", |it| *it = json!("evnt")), "no field \"evnt\""),
        (Damage(4, None, "/attributes/sort/0/0", |it| *it = json!("reason")), "sorted by no time"),
        (
            Damage(
                4,
                Some("/attributes/kibanaSavedObjectMeta/searchSourceJSON"),
                "/query/query",
                |it| *it = json!("x"),
            ),
            "lacks a colon",
        ),
    ];
    let good = objects(&every(), "openvidu");
    let mut missed = Vec::new();
    for (damage, expected) in damages.iter().chain(in_columns) {
        let told = check(&damaged(good.clone(), damage));
        if !told.iter().any(|problem| problem.told.contains(expected)) {
            missed.push((expected, told));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn damage_to_a_map_is_found() {
    let with = |pointer: &str, value: Json| {
        let mut objects = objects(&every(), "openvidu");
        let panels = objects[2].pointer_mut("/attributes/panelsJSON").unwrap();
        let mut held: Json = serde_json::from_str(panels.as_str().unwrap()).unwrap();
        let map =
            held.as_array_mut().unwrap().iter_mut().find(|panel| panel["type"] == "map").unwrap();
        let list = &mut map["embeddableConfig"]["attributes"]["layerListJSON"];
        let mut layers: Json = serde_json::from_str(list.as_str().unwrap()).unwrap();
        *layers.pointer_mut(pointer).unwrap() = value;
        *list = json!(layers.to_string());
        *panels = json!(held.to_string());
        check(&objects.iter().map(|object| object.to_string() + "\n").collect::<String>())
    };
    for (pointer, value, expected) in [
        ("/1/sourceDescriptor/geoField", json!("location.keyword"), "is no point"),
        ("/1/sourceDescriptor/indexPatternRefName", json!("other"), "is asked for as \"other\""),
        ("/1/sourceDescriptor/metrics/0/field", json!("usr.keyword"), "shows cardinality of"),
        ("/1/query/query", json!("x"), "lacks a colon"),
        (
            "/2/style/properties/iconSize/options/field/name",
            json!("doc_count"),
            "is drawn by no value",
        ),
        ("/2/joins", json!({}), "layerListJSON[2].joins"),
    ] {
        let told = with(pointer, value);
        assert!(
            told.iter().any(|problem| problem.told.contains(expected)),
            "{expected}: {told:#?}"
        );
    }
}

#[test]
fn damage_to_the_file_as_such_is_found() {
    let file = ndjson(&every(), "openvidu", Flavour::Kibana);
    let without_end = file.trim_end().to_owned();
    let unordered = file.replacen("{\"attributes\":", "{\"type\":\"x\",\"attributes\":", 1);
    let cut = file.replacen("{\"attributes\"", "\"attributes\"", 1);
    let unlinked: String = file
        .replace("[Session](#/view/callscope-session)", "")
        .lines()
        .map(|line| {
            // Nor does any panel lead there.
            let mut object: Json = serde_json::from_str(line).unwrap();
            if let Some(references) = object["references"].as_array_mut() {
                references.retain(|reference| reference["type"] != "dashboard");
            }
            object.to_string() + "\n"
        })
        .collect();
    for (file, expected) in [
        (without_end, "does not end with a line"),
        (unordered, "keys in order"),
        (cut, "is no JSON"),
        (unlinked, "no link leads to callscope-session"),
    ] {
        let told = check(&file);
        assert!(
            told.iter().any(|problem| problem.told.contains(expected)),
            "{expected}: {told:#?}"
        );
    }
}
