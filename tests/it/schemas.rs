//! What comes out fits `schemas/`, and what the schemas call an event is taken.

use callscope::simulate;
use serde_json::{Value, json};

use crate::story::{Story, as_cdr};
use crate::support::{Bench, Store, fixture, fold, fold_once};

fn schema(name: &str) -> Value {
    let path = format!("{}/schemas/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn fits(store: &Store) {
    let schema = schema("document");
    let validator = jsonschema::validator_for(&schema).unwrap();
    for stored in store.0.values() {
        if validator.is_valid(&stored.json) {
            continue;
        }
        // The `oneOf` tells little; the definition of its own kind tells what is wrong.
        let kind = stored.json["elastic_type"].as_str().unwrap();
        let mut own = schema["$defs"][kind].clone();
        own["$defs"] = schema["$defs"].clone();
        let validator = jsonschema::validator_for(&own).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&stored.json)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        panic!("{kind}: {errors:#?}\n{:#}", stored.json);
    }
}

#[test]
fn documents_fit_their_schema() {
    for name in ["2.9-session.jsonl", "2.17-session.jsonl"] {
        fits(&fold(fixture(name).lines()));
    }
    for seed in 0..12 {
        let (events, _) = simulate::session(seed, 1_700_000_000_000, 1);
        fits(&fold_once(events.iter().map(|event| event.json.as_str())));
    }
    let story = Story::old("s")
        .joined(1, "con_A")
        .user(2, "con_A", json!("U"))
        .joined(3, "con_B")
        .user(4, "con_B", json!("U"));
    fits(&fold(story.lines().iter().map(String::as_str)));
    let mut bench = Bench::new();
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/samples")).unwrap()
    {
        bench.read(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    fits(bench.finish());
}

#[test]
fn platform_stats_fit_their_schema_and_count_what_was_open() {
    let mut bench = Bench::new();
    for line in Story::new("s").of_two().lines() {
        bench.read(&line);
    }
    let start = crate::story::START;
    let documents =
        callscope::lane::stats::sweep(&bench.folder.sessions, start, start + 200_000, 10_000);
    let mut store = Store::default();
    documents.for_each(|document| store.put(&document));
    fits(&store);
    let at = |seconds: i64| {
        let tick = (start + seconds * 1000 + 9_999) / 10_000 * 10_000;
        let found = store.of("platformStats").into_iter().find(|json| json["timestamp"] == tick);
        found.map(|json| {
            ["num_sessions", "num_connections", "num_publishers", "num_subscribers"]
                .map(|name| json[name].as_i64().unwrap())
        })
    };
    assert_eq!(at(20), Some([1, 2, 2, 2]));
    assert_eq!(at(65), Some([1, 1, 1, 0]));
    assert_eq!(at(100), None, "nothing is open any more");
}

#[test]
fn events_of_the_schema_are_taken() {
    let schema = schema("event");
    for event in Story::new("s").of_two().recording(5, 5, "stopped", 0, 0.0).events {
        let mut own = schema["$defs"][event["event"].as_str().unwrap()].clone();
        own["$defs"] = schema["$defs"].clone();
        assert!(jsonschema::validator_for(&own).unwrap().is_valid(&event), "{event}");
        let mut bench = Bench::new();
        bench.read(&as_cdr(&event));
        assert!(bench.dead.is_empty());
        for required in own["required"].as_array().unwrap() {
            let mut less = event.clone();
            less.as_object_mut().unwrap().remove(required.as_str().unwrap());
            if required == "sessionId" {
                less.as_object_mut().unwrap().remove("uniqueSessionId");
            }
            let mut bench = Bench::new();
            bench.read(&less.to_string());
            assert_eq!(bench.dead.len(), 1, "without {required}: {less}");
        }
    }
}
