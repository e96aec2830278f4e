//! `callscope setup --kibana` as a process, before doubles of Kibana and of OpenSearch Dashboards.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::process::Command;

use axum::http::Method;
use serde_json::{Value, json};

use double::{Double, Nature};

#[path = "support/kibana_double.rs"]
mod double;

/// Runs `callscope setup`.
async fn setup(arguments: &[&str], settings: &[(&str, &str)]) -> (i32, String) {
    run("setup", arguments, settings).await
}

/// Runs callscope with these arguments and settings: how it ended, and all that it said.
async fn run(verb: &str, arguments: &[&str], settings: &[(&str, &str)]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_callscope"));
    command
        .arg(verb)
        .args(arguments)
        .current_dir(folder.path())
        .env("CALLSCOPE__DATA_DIR", folder.path().join("data"))
        .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
        .env("CALLSCOPE__LOG__LEVEL", "error")
        .envs(settings.iter().map(|(name, value)| (format!("CALLSCOPE__KIBANA__{name}"), *value)));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
}

/// The lines of a shipped file.
fn shipped(file: &str) -> Vec<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kibana").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kept(double: &Double, place: &str) -> Vec<Value> {
    let objects = double.objects().into_iter().filter(|((of, ..), _)| of == place);
    objects.map(|(_, object)| object).collect()
}

fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by_key(|object| [object["type"].to_string(), object["id"].to_string()]);
    objects
}

#[tokio::test]
async fn a_kibana_gets_the_shipped_dashboards_in_the_space_that_is_named() {
    let double = Double::start(Nature::kibana()).await;
    let (code, told) = setup(&["--kibana", &double.url(), "--space", "calls"], &[]).await;
    assert!(code == 0 && told.contains("dashboards for Kibana 8.17.0"), "{told}");
    assert!(told.contains("created dashboard callscope-sessions ("), "{told}");
    assert!(
        told.contains("warning: nothing is written that these dashboards could show"),
        "{told}"
    );
    let expected = sorted(shipped("callscope.ndjson"));
    assert_eq!(sorted(kept(&double, "calls")), expected);
    assert_eq!(double.objects().len(), expected.len());
    // Once more, by settings alone, and now everything is there.
    let (code, told) = setup(&[], &[("URL", &double.url()), ("SPACE", "calls")]).await;
    assert!(code == 0 && told.contains("replaced dashboard callscope-sessions ("), "{told}");
    assert!(!told.contains("created "), "{told}");
    assert_eq!(double.objects().len(), expected.len());
}

#[tokio::test]
async fn the_version_tells_which_file_an_opensearch_dashboards_gets() {
    for (is_behind_proxy, version) in [(false, "2.19.1"), (true, "2.0.0"), (false, "3.8.0")] {
        let nature = Nature { is_behind_proxy, version, ..Nature::opensearch() };
        let double = Double::start(nature).await;
        let (code, told) = setup(&["--kibana", &double.url()], &[]).await;
        assert!(code == 0 && told.contains(&format!("OpenSearch Dashboards {version}")), "{told}");
        let expected = sorted(shipped("opensearch-dashboards.ndjson"));
        // Not into a tenant that nobody else sees.
        assert_eq!(sorted(kept(&double, "global")), expected);
        let (code, told) = setup(&["--kibana", &double.url(), "--space", "calls"], &[]).await;
        assert!(code == 0, "{told}");
        assert_eq!(kept(&double, "calls").len(), expected.len());
    }
}

#[tokio::test]
async fn check_says_whether_the_dashboards_are_there() {
    let double = Double::start(Nature::kibana()).await;
    let settings = [("URL", &*double.url())];
    let all = shipped("callscope.ndjson").len();
    let (code, told) = run("check", &[], &settings).await;
    let expected =
        format!("0 of {all} objects of the dashboards are there; `callscope setup` brings");
    assert!(code == 0 && told.contains(&expected), "{told}");
    assert_eq!(double.objects().len(), 0, "it only looks");
    setup(&[], &settings).await;
    let (code, told) = run("check", &[], &settings).await;
    assert!(code == 0 && told.contains("kibana: Kibana 8.17.0 answers at http://"), "{told}");
    assert!(told.contains("the dashboards are there"), "{told}");
    let (code, told) = run("check", &[], &[("URL", "http://127.0.0.1:1")]).await;
    assert!(code == 4 && told.contains("kibana: no answer from http://127.0.0.1:1/"), "{told}");
}

#[tokio::test]
async fn a_dry_run_asks_and_sends_nothing() {
    let double = Double::start(Nature { base: "/behind", ..Nature::kibana() }).await;
    let ours = shipped("callscope.ndjson").into_iter().find(|object| object["type"] == "tag");
    double.put("default", &ours.unwrap());
    let (code, told) = setup(&["--dry-run", "--kibana", &double.url()], &[]).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("replace tag callscope (callscope)"), "{told}");
    assert!(told.contains("create index-pattern callscope (openvidu)"), "{told}");
    assert!(
        told.contains("  POST /api/saved_objects/_import?overwrite=true with a file of"),
        "{told}"
    );
    assert_eq!(double.objects().len(), 1);
    assert!(double.calls().iter().all(|(_, path)| !path.contains("_import")));
}

#[tokio::test]
async fn what_somebody_else_made_is_never_touched() {
    let own = json!({ "type": "dashboard", "id": "callscope-sessions", "references": [], "attributes": { "title": "My own" } });
    let view = json!({ "type": "index-pattern", "id": "callscope", "references": [], "attributes": { "title": "calls-*" } });
    let other = json!({ "type": "dashboard", "id": "other", "references": [], "attributes": { "title": "Other" } });
    for (nature, place) in [(Nature::kibana(), "default"), (Nature::opensearch(), "global")] {
        let double = Double::start(nature).await;
        for object in [&own, &view, &other] {
            double.put(place, object);
        }
        let before = double.objects();
        for arguments in [&["--dry-run"][..], &[]] {
            let url = double.url();
            let arguments = [arguments, &["--kibana", &url]].concat();
            let (code, told) = setup(&arguments, &[]).await;
            assert_eq!(code, 3, "{told}");
            assert!(told.contains("dashboard callscope-sessions (\"My own\")"), "{told}");
            assert!(told.contains("index-pattern callscope (\"calls-*\")"), "{told}");
            assert!(told.contains("not made by callscope"), "{told}");
        }
        assert_eq!(double.objects(), before);
        assert!(double.calls().iter().all(|(_, path)| !path.contains("_import")));
    }
    // What is nobody's by our names stays beside ours.
    let double = Double::start(Nature::kibana()).await;
    double.put("default", &other);
    let (code, told) = setup(&["--kibana", &double.url()], &[]).await;
    assert_eq!(code, 0, "{told}");
    let name = ("default".to_owned(), "dashboard".to_owned(), "other".to_owned());
    assert_eq!(double.objects()[&name], other);
}

#[tokio::test]
async fn an_older_dashboard_of_ours_is_replaced_although_nothing_says_managed() {
    let double = Double::start(Nature::kibana()).await;
    let older = shipped("callscope.ndjson").into_iter().map(|mut object| {
        object.as_object_mut().unwrap().remove("managed");
        object
    });
    older
        .filter(|object| object["type"] == "dashboard")
        .for_each(|object| double.put("default", &object));
    let (code, told) = setup(&["--kibana", &double.url()], &[]).await;
    assert!(code == 0 && told.contains("replaced dashboard callscope-sessions"), "{told}");
}

#[tokio::test]
async fn what_an_older_callscope_made_without_a_mark_is_replaced() {
    let double = Double::start(Nature::kibana()).await;
    for mut object in shipped("callscope.ndjson") {
        object["attributes"]["description"] = json!("As it was described then");
        if ["dashboard", "search"].contains(&object["type"].as_str().unwrap()) {
            double.put("default", &object);
        }
    }
    let (code, told) = setup(&["--kibana", &double.url()], &[]).await;
    assert!(code == 0 && told.contains("replaced search callscope-node-events"), "{told}");
}

/// Whatever ships an object calls it managed, and whoever copies one keeps its references.
#[tokio::test]
async fn what_somebody_else_made_under_our_names_is_not_replaced() {
    for change in [json!({ "managed": true, "references": [] }), json!({ "managed": false })] {
        let mut other = shipped("callscope.ndjson")
            .into_iter()
            .find(|object| object["id"] == "callscope-sessions")
            .unwrap();
        other.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        other["attributes"]["description"] = json!("A copy of somebody's own");
        let double = Double::start(Nature::kibana()).await;
        double.put("default", &other);
        let (code, told) = setup(&["--kibana", &double.url()], &[]).await;
        assert!(code == 3 && told.contains("not made by callscope"), "{code} {told}");
        let name = ("default".to_owned(), "dashboard".to_owned(), "callscope-sessions".to_owned());
        assert_eq!(double.objects()[&name], other);
    }
}

/// It may keep back what it has.
#[tokio::test]
async fn an_answer_without_what_was_asked_for_is_not_taken_for_nothing() {
    let answer = Some(("/api/saved_objects/_export", 200, ""));
    let double = Double::start(Nature { answer, ..Nature::kibana() }).await;
    let (code, told) = setup(&["--kibana", &double.url()], &[]).await;
    assert!(
        code == 3 && told.contains("is neither Kibana nor OpenSearch Dashboards"),
        "{code} {told}"
    );
    assert!(double.objects().is_empty());
}

#[tokio::test]
async fn an_answer_of_200_without_success_names_each_object_and_why() {
    let missing = json!({ "type": "missing_references", "references": [{ "type": "index-pattern", "id": "gone" }] });
    let unknown =
        json!({ "type": "unknown", "message": "mapping set to strict", "statusCode": 400 });
    let refused = vec![("callscope-sessions", missing), ("callscope-recordings", unknown)];
    let double = Double::start(Nature { refused, ..Nature::kibana() }).await;
    let (code, told) = setup(&["--kibana", &double.url()], &[]).await;
    assert!(code == 3 && told.contains("status 200"), "{told}");
    assert!(!told.contains("done"), "{told}");
    for line in [
        "  dashboard callscope-sessions (\"Sessions\"): missing_references, index-pattern gone",
        "  dashboard callscope-recordings (\"Recordings\"): unknown: mapping set to strict",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert_eq!(double.objects().len(), 0);
}

#[tokio::test]
async fn whoever_cannot_take_the_dashboards_is_told_with_what_to_do() {
    let kibana = Nature::kibana;
    let answer = |path, status, told| Nature { answer: Some((path, status, told)), ..kibana() };
    let login = "<!doctype html><title>Log in</title>";
    for (nature, code, expected) in [
        (
            Nature { version: "8.16.9", ..kibana() },
            3,
            "Kibana 8.16.9, and the dashboards are for Kibana 8.17 and newer",
        ),
        (Nature { version: "7.17.28", is_behind_proxy: true, ..kibana() }, 3, "Kibana 7.17.28"),
        (
            Nature { version: "1.3.20", ..Nature::opensearch() },
            3,
            "are for OpenSearch Dashboards 2 and newer",
        ),
        (
            Nature { authorization: Some("ApiKey k"), ..kibana() },
            4,
            "see kibana.username, .password and .api_key",
        ),
        (
            Nature { is_behind_proxy: true, ..answer("/api/status", 200, login) },
            3,
            "neither Kibana nor OpenSearch Dashboards",
        ),
        (Nature { is_behind_proxy: true, ..answer("/api/status", 404, "no") }, 3, "base path"),
        (answer("/api/status", 503, "Kibana server is not ready yet"), 4, "try again in a while"),
        (answer("/api/status", 500, "{}"), 4, "status 500"),
        (answer("/api/status", 302, "/api/status"), 3, "as a page for logging in does"),
        (answer("/_import", 403, "{}"), 4, "may manage saved objects in the space"),
        (answer("/_import", 413, "{}"), 3, "status 413"),
        (answer("/_import", 429, "{}"), 4, "status 429"),
        (answer("/_import", 200, login), 3, "neither Kibana nor"),
        (answer("/_export", 403, "Unable to bulk_get"), 4, "Unable to bulk_get"),
        (answer("/_export", 200, login), 3, "neither Kibana nor"),
    ] {
        let shown = format!("{nature:?}");
        let double = Double::start(nature).await;
        let (ended, told) = setup(&["--kibana", &double.url()], &[]).await;
        assert!(ended == code && told.contains(expected), "{shown}\n{ended}: {told}");
        assert_eq!(double.objects().len(), 0);
    }
}

#[tokio::test]
async fn who_asks_is_shown_by_password_or_api_key() {
    for (authorization, settings) in [
        ("Basic dTpwdw==", &[("USERNAME", "u"), ("PASSWORD", "pw")][..]),
        ("ApiKey c2VjcmV0", &[("API_KEY", "c2VjcmV0")]),
    ] {
        let double =
            Double::start(Nature { authorization: Some(authorization), ..Nature::kibana() }).await;
        let (code, told) = setup(&["--kibana", &double.url()], settings).await;
        assert_eq!(code, 0, "{told}");
        let (code, told) = setup(&["--kibana", &double.url()], &[("API_KEY", "d3Jvbmc=")]).await;
        assert!(code == 4 && !told.contains("d3Jvbmc="), "{told}");
    }
}

#[tokio::test]
async fn a_place_that_is_not_there_is_refused() {
    let without_tenants = Nature { places: None, ..Nature::opensearch() };
    for (nature, expected) in [
        (Nature::kibana(), "there is no space \"sales\""),
        (Nature::opensearch(), "there is no tenant \"sales\""),
        (without_tenants, "has no tenants"),
    ] {
        let double = Double::start(nature).await;
        let (code, told) = setup(&["--kibana", &double.url(), "--space", "sales"], &[]).await;
        assert!(code == 3 && told.contains(expected), "{told}");
        assert!(
            double.calls().iter().all(|(method, _)| method == Method::GET),
            "{:?}",
            double.calls()
        );
    }
}

#[tokio::test]
async fn nobody_or_nobody_in_time_is_a_neighbour_that_is_away() {
    let (code, told) = setup(&["--kibana", "http://127.0.0.1:1"], &[]).await;
    assert!(code == 4 && told.contains("no answer from http://127.0.0.1:1/api/status"), "{told}");
    let double = Double::start(Nature { hangs: true, ..Nature::kibana() }).await;
    let settings = [("REQUEST_TIMEOUT", "300ms")];
    let (code, told) = setup(&["--kibana", &double.url()], &settings).await;
    assert!(code == 4 && told.contains("kibana.request_timeout, which is 300ms"), "{told}");
}

#[tokio::test]
async fn what_cannot_be_found_out_is_a_warning() {
    let double =
        Double::start(Nature { is_redacted: true, renames: true, ..Nature::kibana() }).await;
    let (code, told) = setup(&["--kibana", &double.url()], &[]).await;
    assert!(code == 0 && told.contains("does not tell its version to this account"), "{told}");
    assert!(told.contains("have other identifiers here"), "{told}");
}

#[tokio::test]
async fn a_wrong_address_is_refused_and_its_password_not_repeated() {
    for (arguments, expected) in [
        (&["--kibana", "kibana:5601"][..], "must begin with http:// or https://"),
        (&["--kibana", "http://u:hush@kibana"], "use kibana.username and .password"),
        (&["--space", "calls"], "see --kibana"),
    ] {
        let (code, told) = setup(arguments, &[]).await;
        assert!(code == 2 && told.contains(expected) && !told.contains("hush"), "{told}");
    }
    let (code, told) = setup(&[], &[("URL", "http://u:hush@kibana")]).await;
    assert!(code == 3 && told.contains("kibana.url") && !told.contains("hush"), "{told}");
}
