//! What each form becomes.

use serde_json::{Value as Json, json};

use super::*;
use crate::panels::kibana::tests::every;

/// Objects of [`every`] by id without its beginning.
struct Read(Vec<Json>);

impl Read {
    fn new() -> Self {
        Self(objects(&every(), "other"))
    }

    fn object(&self, id: &str) -> &Json {
        self.0.iter().find(|object| object["id"] == format!("callscope{id}")).unwrap()
    }

    fn decoded(&self, id: &str, pointer: &str) -> Json {
        let text = self.object(id).pointer(pointer).unwrap().as_str().unwrap();
        serde_json::from_str(text).unwrap()
    }

    fn state(&self, id: &str) -> Json {
        self.decoded(id, "/attributes/visState")
    }

    fn query(&self, id: &str) -> Json {
        let source = self.decoded(id, "/attributes/kibanaSavedObjectMeta/searchSourceJSON");
        source["query"]["query"].clone()
    }

    fn drawing(&self, id: &str) -> Json {
        serde_json::from_str(self.state(id)["params"]["spec"].as_str().unwrap()).unwrap()
    }
}

#[test]
fn each_form_has_its_chart() {
    let read = Read::new();
    for (id, kind) in [
        ("-totals-sessions", "metric"),
        ("-now-open", "metric"),
        ("-sessions-table", "table"),
        ("-days", "table"),
        ("-shares", "vega"),
        ("-sizes", "histogram"),
        ("-steps", "histogram"),
        ("-reasons", "pie"),
        ("-clients", "pie"),
        ("-hours", "heatmap"),
        ("-places-users", "tile_map"),
        ("-places-p95", "tile_map"),
        ("-traffic", "vega"),
        ("-board-links", "markdown"),
        ("-board-controls", "input_control_vis"),
    ] {
        assert_eq!(read.state(id)["type"], kind, "{id}");
    }
    assert_eq!(read.object("-events")["type"], "search");
    assert_eq!(read.object("")["attributes"]["title"], "other");
    assert!(read.0.iter().all(crate::panels::kibana::is_ours));
}

#[test]
fn panels_stand_below_links_and_controls_and_numbers_share_a_width() {
    let read = Read::new();
    let panels = read.decoded("-board", "/attributes/panelsJSON");
    let of = |id: &str| {
        let references = read.object("-board")["references"].as_array().unwrap();
        let id = format!("callscope{id}");
        let name = &references.iter().find(|reference| reference["id"] == id).unwrap()["name"];
        let panel = panels.as_array().unwrap().iter().find(|panel| &panel["panelRefName"] == name);
        let grid = &panel.unwrap()["gridData"];
        ["x", "y", "w", "h"].map(|name| grid[name].as_u64().unwrap())
    };
    assert_eq!(of("-board-links"), [0, 0, 48, 3]);
    assert_eq!(of("-board-controls"), [0, 3, 48, 5]);
    assert_eq!(of("-totals-sessions"), [0, 8, 5, 5]);
    assert_eq!(of("-totals-lost"), [20, 8, 4, 5]);
    assert_eq!(of("-days"), [24, 13, 24, 10]);
    let controls = read.state("-session-controls")["params"]["controls"].clone();
    assert_eq!(controls[0]["fieldName"], "uniqueSessionId.keyword");
    assert_eq!(controls[0]["options"]["multiselect"], false);
    assert_eq!(controls[1]["options"]["multiselect"], true);
}

#[test]
fn a_single_value_asks_by_the_query_of_its_chart() {
    let read = Read::new();
    assert_eq!(
        read.query("-totals-sessions"),
        "elastic_type.keyword : (\"sessionSummary\" or \"connectionSummary\") and elastic_type.keyword : \"sessionSummary\""
    );
    assert_eq!(
        read.query("-places-p95"),
        "elastic_type.keyword : \"connectionSummary\" and abnormal : true"
    );
    assert_eq!(read.query("-shares"), "", "a drawing asks by itself");
}

#[test]
fn splits_are_buckets() {
    let read = Read::new();
    let hidden = read.state("-sessions-table")["aggs"].clone();
    assert_eq!(hidden[4]["params"]["orderBy"], "custom");
    assert_eq!(hidden[4]["params"]["orderAgg"]["params"]["field"], "streamedSeconds");
    assert_eq!(hidden[0]["type"], "top_hits");
    assert_eq!(hidden[0]["params"]["field"], "reason.keyword");
    let shown = read.state("-reasons")["aggs"].clone();
    assert_eq!(shown[1]["params"]["orderBy"], "1");
    let sizes = read.state("-sizes")["aggs"].clone();
    let classes: Vec<&Json> = sizes[1]["params"]["filters"].as_array().unwrap().iter().collect();
    assert_eq!(classes[1]["label"], "2");
    assert_eq!(
        classes[1]["input"]["query"],
        "users.numberOfElements >= 2 and users.numberOfElements < 3"
    );
    assert_eq!(classes[3]["input"]["query"], "users.numberOfElements >= 6");
    assert_eq!((&sizes[1]["schema"], &sizes[2]["schema"]), (&json!("segment"), &json!("group")));
    let now = read.state("-now-open")["aggs"][1]["params"].clone();
    assert_eq!((&now["missingBucket"], &now["missingBucketLabel"]), (&json!(true), &json!("all")));
    let full = read.state("-steps")["params"]["valueAxes"][0]["scale"]["mode"].clone();
    assert_eq!(full, "percentage");
}

#[test]
fn what_is_reckoned_is_drawn_from_the_request_that_tests_make() {
    let read = Read::new();
    let shares = read.drawing("-shares");
    let url = &shares["data"]["url"];
    assert_eq!((&url["index"], &url["%context%"]), (&json!("other"), &json!(true)));
    let asked = &url["body"]["aggs"]["panel"];
    assert_eq!(
        asked["filter"]["bool"]["filter"][0],
        json!({ "terms": { "elastic_type.keyword": ["cdr"] } })
    );
    let over_time = &asked["aggs"]["split"]["aggs"]["split"];
    assert_eq!(over_time["date_histogram"]["calendar_interval"], "1d");
    let operand = over_time["aggs"]["bad"].to_string();
    assert!(operand.contains("exists") && operand.contains("user"), "{operand}");
    let steps = shares["transform"].to_string();
    for part in [
        "((100 * datum.m_bad) / (datum.m_all - (datum.m_bad - 0.5)))",
        "* 60000 / datum.step",
        "\"frame\":[null,0]",
        "\"groupby\":[\"k0\"]",
    ] {
        assert!(steps.contains(part), "{part}\n{steps}");
    }
    let layers = shares["layer"].as_array().unwrap();
    let axes: Vec<&Json> =
        layers.iter().map(|layer| &layer["encoding"]["y"]["axis"]["orient"]).collect();
    assert_eq!(axes, ["left", "right"]);
    let traffic = read.drawing("-traffic");
    let over_time = &traffic["data"]["url"]["body"]["aggs"]["panel"]["aggs"]["split"];
    assert_eq!(over_time["date_histogram"]["interval"], json!({ "%autointerval%": 100 }));
    assert_eq!(traffic["layer"][0]["encoding"]["y"]["stack"], "zero");
}

#[test]
fn the_name_of_a_session_leads_to_its_dashboard() {
    let formats = Read::new().decoded("", "/attributes/fieldFormatMap");
    let link = &formats["uniqueSessionId.keyword"];
    assert_eq!(link["id"], "url");
    let to = link["params"]["urlTemplate"].as_str().unwrap();
    assert!(to.starts_with("../app/dashboards#/view/callscope-session?"), "{to}");
    assert!(to.contains("uniqueSessionId.keyword:%22{{value}}%22"), "{to}");
}
