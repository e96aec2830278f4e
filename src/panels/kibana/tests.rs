//! The file as a whole: what is committed, what each form becomes, and that every damage is found.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::*;
use crate::panels::{all, read};

/// Dashboards that say everything that can be said.
pub(super) fn every() -> Vec<Dashboard> {
    read([
        ("every.yaml", include_str!("every.yaml")),
        ("every-session.yaml", include_str!("every-session.yaml")),
    ])
    .unwrap()
}

/// Does something to what stands in an object, or in the JSON that one of its texts holds.
pub(super) fn damage(
    object: &mut Json,
    held_by: Option<&str>,
    pointer: &str,
    damage: impl Fn(&mut Json),
) {
    match held_by {
        None => damage(object.pointer_mut(pointer).unwrap()),
        Some(held_by) => {
            let text = object.pointer_mut(held_by).unwrap();
            let mut held: Json = serde_json::from_str(text.as_str().unwrap()).unwrap();
            damage(held.pointer_mut(pointer).unwrap());
            *text = json!(held.to_string());
        }
    }
}

#[test]
fn what_is_committed_is_what_the_panels_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kibana");
    for (name, expected) in files(all(), crate::panels::hosts()) {
        let found = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(found == expected, "kibana/{name} is out of date: run `make dashboards`");
    }
}

#[test]
fn the_shipped_dashboards_would_work() {
    for flavour in [Flavour::Kibana, Flavour::OpenSearch] {
        assert_eq!(check::check(&ndjson(all(), "openvidu", flavour)), []);
    }
    let (own, beside) =
        (ndjson(all(), "openvidu", Flavour::Kibana), hosts(all(), crate::panels::hosts()));
    assert_eq!(check::check_beside(&beside, &[&own]), []);
    let alone = check::check(&beside);
    assert!(alone.iter().all(|problem| problem.told.contains("not there")), "{alone:#?}");
    assert!(!alone.is_empty(), "it leads to the other file");
}

#[test]
fn the_name_of_a_session_leads_to_its_dashboard_from_every_other() {
    let objects = objects(all(), "openvidu");
    let mut leading = 0;
    for object in &objects {
        let Some(panels) = object["attributes"]["panelsJSON"].as_str() else { continue };
        let panels: Vec<Json> = serde_json::from_str(panels).unwrap();
        for panel in &panels {
            let layer = &panel["embeddableConfig"]["attributes"]["state"]["datasourceStates"]["formBased"]
                ["layers"]["main"]["columns"];
            let columns = layer.as_object().into_iter().flat_map(serde_json::Map::values);
            let names = columns
                .filter(|column| column["operationType"] == "terms")
                .any(|column| column["sourceField"].as_str().unwrap().contains("essionId."));
            let leads = panel.pointer("/embeddableConfig/enhancements/dynamicActions").is_some();
            assert_eq!(
                leads,
                names && object["id"] != "callscope-session",
                "{}",
                panel["panelIndex"]
            );
            leading += usize::from(leads);
        }
    }
    assert!(leading >= 7, "{leading}");
}

#[test]
fn whatever_can_be_said_would_work() {
    let file = ndjson(&every(), "openvidu", Flavour::Kibana);
    assert_eq!(check::check(&file), []);
    assert_eq!(check::check(&ndjson(&every(), "openvidu", Flavour::OpenSearch)), []);
    assert_eq!(file, ndjson(&every(), "openvidu", Flavour::Kibana));
    assert!(file.starts_with(r#"{"attributes":{"fieldAttrs""#) && file.ends_with("}\n"));
    let kinds: Vec<Json> =
        objects(&every(), "other").iter().map(|one| json!([one["type"], one["id"]])).collect();
    assert_eq!(
        json!(kinds),
        json!([
            ["index-pattern", "callscope"],
            ["tag", "callscope"],
            ["dashboard", "callscope-board"],
            ["dashboard", "callscope-session"],
            ["search", "callscope-events"]
        ])
    );
    assert_eq!(objects(&every(), "other")[0]["attributes"]["title"], "other");
}

/// Objects of [`every`], with what is held by texts read.
struct Read(Vec<Json>);

impl Read {
    fn new() -> Self {
        Self(objects(&every(), "openvidu"))
    }

    fn decoded(&self, object: usize, pointer: &str) -> Json {
        serde_json::from_str(self.0[object].pointer(pointer).unwrap().as_str().unwrap()).unwrap()
    }

    fn panel(&self, id: &str) -> Json {
        let panels = [2, 3].map(|object| self.decoded(object, "/attributes/panelsJSON"));
        let mut panels = panels.iter().flat_map(|panels| panels.as_array().unwrap());
        panels.find(|panel| panel["panelIndex"] == id).unwrap().clone()
    }

    fn attributes(&self, id: &str) -> Json {
        self.panel(id)["embeddableConfig"]["attributes"].clone()
    }

    fn look(&self, id: &str) -> Json {
        self.attributes(id)["state"]["visualization"].clone()
    }

    fn layer(&self, id: &str) -> Json {
        self.attributes(id)["state"]["datasourceStates"]["formBased"]["layers"]["main"].clone()
    }

    fn column(&self, panel: &str, column: &str) -> Json {
        self.layer(panel)["columns"][column].clone()
    }
}

#[test]
fn panels_stand_below_the_links_and_numbers_share_a_width() {
    let read = Read::new();
    let grid = |id: &str| {
        let grid = &read.panel(id)["gridData"];
        ["x", "y", "w", "h"].map(|name| grid[name].as_u64().unwrap())
    };
    assert_eq!(grid("navigation"), [0, 0, 48, 3]);
    assert_eq!(grid("totals-sessions"), [0, 3, 5, 5]);
    assert_eq!(grid("totals-longest-one"), [5, 3, 5, 5]);
    assert_eq!(grid("totals-lost"), [20, 3, 4, 5]);
    assert_eq!(grid("now-open"), [24, 3, 24, 5]);
    assert_eq!(grid("days"), [24, 8, 24, 10]);
    let links = &read.panel("navigation")["embeddableConfig"]["savedVis"]["params"]["markdown"];
    assert_eq!(links, "**Board** · [Session](#/view/callscope-session)");
}

#[test]
fn each_form_has_its_chart() {
    let read = Read::new();
    for (panel, kind) in [
        ("totals-sessions", "lnsMetric"),
        ("sessions-table", "lnsDatatable"),
        ("shares", "lnsXY"),
        ("reasons", "lnsPie"),
        ("hours", "lnsHeatmap"),
    ] {
        assert_eq!(read.attributes(panel)["visualizationType"], kind, "{panel}");
    }
    assert_eq!(read.look("totals-sessions")["subtitle"], "Totals");
    assert_eq!(read.look("now-open")["breakdownByAccessor"], "split-0");
    assert_eq!(read.look("reasons")["shape"], "donut");
    assert_eq!(read.look("clients")["shape"], "treemap");
    assert_eq!(read.look("clients")["layers"][0]["primaryGroups"], json!(["split-0", "split-1"]));
    let hours = read.look("hours");
    assert_eq!((&hours["yAccessor"], &hours["xAccessor"]), (&json!("split-0"), &json!("split-1")));
    for (panel, series) in [
        ("shares", "line"),
        ("levels", "line"),
        ("traffic", "area_stacked"),
        ("sizes", "bar_stacked"),
        ("steps", "bar_percentage_stacked"),
    ] {
        assert_eq!(read.look(panel)["layers"][0]["seriesType"], series);
    }
    let fits = |panel| {
        let look = read.look(panel);
        (look["curveType"].clone(), look["fittingFunction"].clone())
    };
    assert_eq!(fits("shares"), (json!("LINEAR"), json!("None")));
    assert_eq!(fits("levels"), (json!("CURVE_STEP_AFTER"), json!("Carry")));
    let shares = read.look("shares");
    let data = &shares["layers"][0];
    assert_eq!(
        (&data["xAccessor"], &data["splitAccessor"]),
        (&json!("split-1"), &json!("split-0"))
    );
    assert_eq!(data["accessors"], json!(["share", "total", "rate"]));
    let (total, rate) = (
        json!({ "forAccessor": "total", "axisMode": "right" }),
        json!({ "forAccessor": "rate", "axisMode": "left", "color": "#BD271E" }),
    );
    assert_eq!(data["yConfig"], json!([total, rate]));
    assert_eq!(
        shares["layers"][1]["annotations"][0]["filter"]["query"],
        "event.keyword : \"nodeCrashed\""
    );
    let sizes = read.look("sizes");
    assert_eq!(sizes["layers"].as_array().unwrap().len(), 1, "marks are for time alone");
    assert_eq!(
        (&sizes["layers"][0]["xAccessor"], &sizes["layers"][0]["splitAccessor"]),
        (&json!("split-0"), &json!("split-1"))
    );
    let days = read.look("days");
    assert_eq!(days["sorting"], json!({ "columnId": "split-0", "direction": "desc" }));
    let table = read.look("sessions-table");
    assert_eq!(
        table["columns"][0],
        json!({ "columnId": "split-0", "isTransposed": false, "oneClickFilter": true })
    );
    assert_eq!(table["columns"].as_array().unwrap().len(), 5, "what is hidden is not shown");
}

#[test]
fn splits_are_buckets() {
    let read = Read::new();
    let missing = read.column("now-open", "split-0");
    assert_eq!(
        (&missing["sourceField"], &missing["params"]["size"]),
        (&json!("cluster_id.keyword"), &json!(5))
    );
    assert_eq!(missing["params"]["missingBucket"], true);
    assert_eq!(missing["params"]["orderBy"], json!({ "type": "custom" }));
    assert_eq!(missing["params"]["orderAgg"]["operationType"], "count");
    let present = read.column("reasons", "split-0");
    assert_eq!(present["params"]["missingBucket"], false);
    assert_eq!(present["params"]["orderBy"], json!({ "type": "column", "columnId": "people" }));
    let by_hidden = read.column("sessions-table", "split-0");
    assert_eq!(by_hidden["params"]["orderAgg"]["sourceField"], "streamedSeconds");
    for (panel, column, interval, with_empty) in [
        ("days", "split-0", "1d", false),
        ("shares", "split-1", "1d", true),
        ("traffic", "split-0", "auto", true),
    ] {
        let params = &read.column(panel, column)["params"];
        assert_eq!(
            (&params["interval"], &params["includeEmptyRows"]),
            (&json!(interval), &json!(with_empty))
        );
    }
    let classes = read.column("sizes", "split-0");
    assert_eq!(
        classes["params"]["ranges"],
        json!([
            { "from": null, "to": 2, "label": "under 2" },
            { "from": 2, "to": 3, "label": "2" },
            { "from": 3, "to": 6, "label": "3 – 5" },
            { "from": 6, "to": null, "label": "6 and more" }
        ])
    );
    let cases = read.column("sizes", "split-1");
    assert_eq!(cases["params"]["filters"][2]["label"], "long");
    assert_eq!(
        cases["params"]["filters"][2]["input"]["query"],
        "duration > 60 and abnormal : false"
    );
    assert_eq!(read.column("steps", "split-0")["params"]["type"], "histogram");
}

#[test]
fn values_are_written_in_their_unit() {
    let read = Read::new();
    let format = |panel: &str, column: &str| read.column(panel, column)["params"]["format"].clone();
    let number = |decimals: u32, suffix: &str| json!({ "id": "number", "params": { "decimals": decimals, "suffix": suffix } });
    assert_eq!(format("totals-sessions", "sessions"), number(0, ""));
    assert_eq!(format("totals-rtt", "rtt"), number(1, " ms"));
    assert_eq!(format("totals-cpu", "cpu"), number(1, " %"));
    assert_eq!(format("totals-lost", "lost")["id"], "percent");
    let duration = json!({ "decimals": 1, "fromUnit": "seconds", "toUnit": "humanizePrecise" });
    assert_eq!(format("totals-longest-one", "longest-one")["params"], duration);
    assert_eq!(format("shares", "share"), number(1, " %"));
    assert_eq!(format("shares", "total"), number(0, ""));
    assert_eq!(
        format("shares", "rate"),
        json!({ "id": "bytes", "params": { "decimals": 1, "suffix": "/s" } })
    );
    assert_eq!(format("traffic", "rate")["id"], "bits");
    assert_eq!(format("sessions-table", "begun"), Json::Null);
}

#[test]
fn values_are_metrics() {
    let read = Read::new();
    let last = read.column("sessions-table", "reason");
    assert_eq!(last["params"], json!({ "sortField": "timestamp", "showArrayValues": true }));
    assert_eq!(
        (&last["dataType"], &last["filter"]["query"]),
        (&json!("string"), &json!("reason.keyword : *"))
    );
    assert_eq!(read.column("now-open", "open")["params"]["showArrayValues"], false);
    assert_eq!(read.column("sessions-table", "seconds")["params"]["showArrayValues"], false);
    assert_eq!(read.column("sessions-table", "begun")["dataType"], "date");
    assert_eq!(read.column("sessions-table", "p95")["params"]["percentile"], 95);
    assert_eq!(read.column("shares", "rate")["timeScale"], "s");
    assert_eq!(read.column("days", "users")["sourceField"], "sessionId.keyword");
    let filtered = read.column("totals-sessions", "sessions");
    assert_eq!(filtered["filter"]["query"], "elastic_type.keyword : \"sessionSummary\"");
    assert_eq!(filtered["params"]["emptyAsNull"], false);
    let query = &read.attributes("shares")["state"]["query"]["query"];
    assert_eq!(query, r#"elastic_type.keyword : "cdr" and not reason.keyword : "it's \"odd\" \\""#);
}

#[test]
fn formulas_are_expanded() {
    let read = Read::new();
    let share = read.column("shares", "share");
    assert_eq!(
        share["params"]["formula"],
        r#"100 * normalize_by_unit(count(kql='user.keyword : *'), unit='m') / (count(kql='reason.keyword : "it\'s" and user.keyword : *') - (normalize_by_unit(count(kql='user.keyword : *'), unit='m') - 0.5))"#
    );
    assert_eq!(share["references"], json!(["shareX5"]));
    let math = read.column("shares", "shareX5");
    assert_eq!(math["references"], json!(["shareX1", "shareX2", "shareX4"]));
    let tree = &math["params"]["tinymathAst"];
    assert_eq!(
        tree["location"],
        json!({ "min": 0, "max": share["params"]["formula"].as_str().unwrap().len() })
    );
    let function = |name: &str, left: Json, right: Json| json!({ "type": "function", "name": name, "args": [left, right] });
    assert_eq!(tree["args"][0], function("multiply", json!(100), json!("shareX1")));
    assert_eq!(
        tree["args"][1],
        function("subtract", json!("shareX2"), function("subtract", json!("shareX4"), json!(0.5)))
    );
    assert_eq!(
        read.column("shares", "shareX2")["filter"]["query"],
        r#"reason.keyword : "it's" and user.keyword : *"#
    );
    let total = read.column("shares", "total");
    assert_eq!(
        total["params"]["formula"],
        r#"cumulative_sum(count(kql='reason.keyword : "it\'s" and user.keyword : *'))"#
    );
    assert_eq!(total["references"], json!(["totalX1"]));
    assert_eq!(read.column("shares", "totalX1")["references"], json!(["totalX0"]));
    let people = read.column("traffic", "people");
    assert_eq!(
        people["params"]["formula"],
        "normalize_by_unit(unique_count(user.keyword, kql='tenant.keyword : *'), unit='m')"
    );
    let order = read.layer("shares")["columnOrder"].clone();
    assert_eq!(
        order.as_array().unwrap()[..5],
        *json!(["split-0", "split-1", "share", "total", "rate"]).as_array().unwrap()
    );
}

#[test]
fn controls_lists_maps_and_drilldowns() {
    let read = Read::new();
    let controls = read.decoded(3, "/attributes/controlGroupInput/panelsJSON");
    let first = &controls["uniquesessionid"];
    assert_eq!(
        (&first["order"], &first["explicitInput"]["singleSelect"]),
        (&json!(0), &json!(true))
    );
    assert_eq!(first["explicitInput"]["title"], "Which");
    assert_eq!(first["explicitInput"]["fieldName"], "uniqueSessionId.keyword");
    assert_eq!(
        (&controls["user"]["order"], &controls["user"]["explicitInput"]["singleSelect"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(controls.as_object().unwrap().len(), 2);

    assert_eq!(read.panel("events")["panelRefName"], "panel_events");
    assert_eq!(read.0[4]["attributes"]["sort"], json!([["timestamp", "desc"]]));
    assert_eq!(read.0[4]["attributes"]["columns"], json!(["event", "reason", "duration"]));

    let event = &read.panel("sessions-table")["embeddableConfig"]["enhancements"]["dynamicActions"]
        ["events"][0];
    assert_eq!(event["action"]["factoryId"], "DASHBOARD_TO_DASHBOARD_DRILLDOWN");
    let way = json!({
        "type": "dashboard", "id": "callscope-session",
        "name": "sessions-table:drilldown:DASHBOARD_TO_DASHBOARD_DRILLDOWN:open-session:dashboardId",
    });
    assert!(read.0[2]["references"].as_array().unwrap().contains(&way));

    let layers: Json =
        serde_json::from_str(read.attributes("places")["layerListJSON"].as_str().unwrap()).unwrap();
    assert_eq!(layers[1]["query"]["query"], "elastic_type.keyword : \"connectionSummary\"");
    assert_eq!(layers[1]["sourceDescriptor"]["metrics"][0]["type"], "cardinality");
    let size =
        |layer: &Json| layer["style"]["properties"]["iconSize"]["options"]["field"]["name"].clone();
    assert_eq!(size(&layers[1]), "cardinality_of_user.keyword");
    assert_eq!(size(&layers[2]), "percentile_95_of_duration");
    assert_eq!(
        layers[2]["query"]["query"],
        "elastic_type.keyword : \"connectionSummary\" and abnormal : true"
    );
    assert_eq!(
        layers[2]["sourceDescriptor"]["indexPatternRefName"],
        "layer_2_source_index_pattern"
    );
    let text = read.panel("places")["embeddableConfig"]["description"].clone();
    assert_eq!(text, "Where? — If there is nothing to see: None.");
}

#[test]
fn hosts_are_read_from_the_documents_of_others() {
    let file = hosts(all(), crate::panels::hosts());
    let objects: Vec<Json> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (place, index) in [(0, "metricbeat-*"), (1, "server-metrics-*")] {
        let attributes = &objects[place]["attributes"];
        assert_eq!(
            (&attributes["title"], &attributes["timeFieldName"]),
            (&json!(index), &json!("@timestamp"))
        );
    }
    // What only grows is shown by how fast it does.
    assert!(
        file.contains("normalize_by_unit(counter_rate(max(system.network.in.bytes)), unit='s')")
    );
    let reference =
        |name: &str, view: &str| json!({ "type": "index-pattern", "id": view, "name": name });
    for expected in [
        reference("host-cpu-by-role:indexpattern-datasource-layer-main", "callscope-metricbeat"),
        reference("host-cpu-by-role:xy-visualization-layer-marks", "callscope"),
        reference("host-load:indexpattern-datasource-layer-main", "callscope"),
        reference("controlGroup_fields-node-id:optionsListDataView", "callscope-metricbeat"),
    ] {
        assert!(objects[2]["references"].as_array().unwrap().contains(&expected), "{expected}");
    }
}

#[test]
fn a_field_of_one_source_is_none_of_another() {
    let own = ndjson(all(), "openvidu", Flavour::Kibana);
    let beside = hosts(all(), crate::panels::hosts());
    for (file, from, to) in [
        (&own, "num_sessions", "nginx.stubstatus.active"),
        (&beside, "nginx.stubstatus.active", "num_sessions"),
        (&beside, "fields.node_role", "fields.node_role.keyword"),
    ] {
        let field = |name: &str| format!(r#"\"sourceField\":\"{name}\""#);
        assert!(file.contains(&field(from)), "{from}");
        let told = check::check_beside(&file.replace(&field(from), &field(to)), &[&own, &beside]);
        assert!(
            told.iter().any(|problem| problem.told.contains("there is no field")),
            "{to}: {told:#?}"
        );
    }
}

#[test]
fn a_filter_of_the_whole_stands_beside_no_documents_of_others() {
    let (own, beside) =
        (ndjson(all(), "openvidu", Flavour::Kibana), hosts(all(), crate::panels::hosts()));
    let filtered = beside.replace(r#"\"filter\":[],\"query\""#, r#"\"filter\":[{}],\"query\""#);
    assert_ne!(filtered, beside);
    let told = check::check_beside(&filtered, &[&own]);
    assert!(
        told.iter().any(|problem| problem.told.contains("nothing of the documents")),
        "{told:#?}"
    );
}

#[test]
fn the_readme_names_each_panel_with_what_it_reads() {
    let text = readme::readme(&every(), &[]);
    for line in [
        "## Board\n\nWhat?\n",
        "| Sizes | How large? | bars | the same | `abnormal`, `duration`, `elastic_type`, `users.numberOfElements` |\n",
        "| Events | What happened, one after the other? | list | the same | `duration`, `elastic_type`, `event`, `reason` |\n",
        "| Shares | Which share? | lines | Vega | `bytesSent`, `elastic_type`, `event`, `reason`, `timestamp`, `user` |\n",
        "| Places | Where? | map | the same | `abnormal`, `duration`, `elastic_type`, `geoPoints`, `user` |\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
