//! Every damage to a good file is found.

use serde_json::{Value as Json, json};

use crate::panels::kibana::check::check;
use crate::panels::kibana::tests::{self, every};
use crate::panels::kibana::{Flavour, ndjson};

/// The file with something done to an object, or to what one of its texts holds; whose id is given without its beginning.
fn damaged(id: &str, held_by: Option<&str>, pointer: &str, damage: impl Fn(&mut Json)) -> String {
    let file = ndjson(&every(), "openvidu", Flavour::OpenSearch);
    let mut lines = Vec::new();
    for line in file.lines() {
        let mut object: Json = serde_json::from_str(line).unwrap();
        if object["id"] == format!("callscope{id}") {
            tests::damage(&mut object, held_by, pointer, &damage);
        }
        lines.push(object.to_string() + "\n");
    }
    lines.concat()
}

const STATE: Option<&str> = Some("/attributes/visState");
const SOURCE: Option<&str> = Some("/attributes/kibanaSavedObjectMeta/searchSourceJSON");
const PANELS: Option<&str> = Some("/attributes/panelsJSON");

/// Damage to what one of an object's texts holds, and what is told of it.
type Damage = (&'static str, Option<&'static str>, &'static str, Json, &'static str);

#[test]
fn every_damage_is_found() {
    let damages: Vec<Damage> = vec![
        ("", None, "/id", json!("Call scope"), "small letters"),
        ("", None, "/migrationVersion", json!({ "index-pattern": "7.11.0" }), "does not know"),
        ("-board", None, "/migrationVersion", json!({}), "does not know"),
        ("-board", None, "/type", json!("lens"), "which nobody knows"),
        ("-board", None, "/references/0/type", json!("tag"), "leads to a tag"),
        ("-board", None, "/references/0/id", json!("none"), "which is not there"),
        ("-board", None, "/references/0/name", json!("other"), "nothing needs reference other"),
        ("-board", None, "/references", json!([]), "is missing"),
        ("-board", PANELS, "/1/panelRefName", json!("other"), "is asked for as \"other\""),
        ("-board", PANELS, "/1/gridData/x", json!(40), "does not fit"),
        ("-board", SOURCE, "/filter", json!([]), "whatever else"),
        (
            "-board-links",
            STATE,
            "/params/markdown",
            json!("[x](#/view/callscope-none)"),
            "links to callscope-none",
        ),
        (
            "-board-controls",
            STATE,
            "/params/controls/0/fieldName",
            json!("client.browser"),
            "is of no text",
        ),
        ("-days", STATE, "/title", json!("Other"), "two titles"),
        ("-days", STATE, "/type", json!("lens"), "which nobody knows"),
        ("-days", STATE, "/aggs/0/id", json!("2"), "stands twice"),
        ("-days", STATE, "/aggs/0/params/field", json!("sessionId"), "not named by its .keyword"),
        ("-days", STATE, "/aggs/0/type", json!("sum"), "is sum of"),
        ("-days", STATE, "/aggs/0/schema", json!("bucket"), "shows no value"),
        ("-days", STATE, "/aggs/1/schema", json!("group"), "which a table does not take"),
        ("-days", STATE, "/aggs/1/params/field", json!("duration"), "is date_histogram of"),
        ("-days", SOURCE, "/query/query", json!("x"), "lacks a colon"),
        ("-days", SOURCE, "/query/query", json!("reason.keyword : \"x\""), "which elastic_type"),
        ("-days", SOURCE, "/indexRefName", json!("other"), "is asked for as \"other\""),
        ("-reasons", STATE, "/aggs/1/params/orderBy", json!("7"), "which is no value"),
        ("-reasons", STATE, "/aggs/1/params/size", json!(0), "a size that is none"),
        ("-hours", STATE, "/aggs/1/schema", json!("segment"), "over 2 splits"),
        (
            "-sizes",
            STATE,
            "/aggs/1/params/filters/0/input/query",
            json!("reason : 7"),
            "not named by",
        ),
        ("-sizes", STATE, "/params/seriesParams/0/data/id", json!("9"), "draws"),
        (
            "-sizes",
            STATE,
            "/params/seriesParams/0/valueAxis",
            json!("none"),
            "an axis that is not there",
        ),
        ("-sizes", STATE, "/params/more", json!(1), "has more"),
        ("-places-users", STATE, "/aggs/1/params/field", json!("ip.keyword"), "is geohash_grid of"),
        ("-events", None, "/attributes/columns/0", json!("evnt"), "no field \"evnt\""),
    ];
    for (id, held_by, pointer, value, expected) in damages {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let told = check(&damaged(id, held_by, parent, |it| match it.as_array_mut() {
            Some(items) => items[name.parse::<usize>().unwrap()] = value.clone(),
            None => it[name] = value.clone(),
        }));
        let line = told.iter().find(|problem| problem.told.contains(expected));
        assert!(line.is_some(), "{id} {pointer}: {told:#?}");
    }
}

#[test]
fn damage_to_a_drawing_is_found() {
    for (from, to, expected) in [
        ("vega-lite/v4.json", "vega-lite/v6.json", "another version"),
        ("\"%context%\":true", "\"%context%\":false", "not narrowed"),
        ("\"body\":{", "\"body\":{\"query\":{},", "has a query"),
        ("elastic_type.keyword", "reason.keyword", "which elastic_type"),
        ("\"user\"", "\"usr\"", "no field \"usr\""),
        ("reason.keyword", "reason", "not named by its .keyword"),
        ("\"as\":\"m_share\"", "\"as\":\"m_other\"", "reads \"m_share\" before"),
        ("datum.k0", "datum.k9", "reads \"k9\""),
        ("\"field\":\"series\"", "\"field\":\"serie\"", "color is drawn by \"serie\""),
    ] {
        let told = check(&damaged("-shares", STATE, "/params/spec", |it| {
            let text = it.as_str().unwrap();
            assert!(text.contains(from), "{from}: {text}");
            *it = json!(text.replace(from, to));
        }));
        assert!(
            told.iter().any(|problem| problem.told.contains(expected)),
            "{expected}: {told:#?}"
        );
    }
}
