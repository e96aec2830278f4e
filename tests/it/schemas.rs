//! What comes out fits `schemas/`, and what the schemas call an event is taken.

use callscope::decode::{self, Decoded};
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
        let telemetry = simulate::telemetry(seed, 1_700_000_000_000, 1, 300_000);
        fits(&fold_once(events.iter().chain(&telemetry).map(|event| event.json.as_str())));
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
    assert_eq!(at(80), Some([0, 0, 0, 0]), "who has left since is counted");
    assert_eq!(at(90), Some([0, 0, 0, 0]), "nothing is there any more, and that is told once");
    assert_eq!(at(100), None);
    let sum = |name: &str| -> i64 {
        let told = store.of("platformStats").into_iter().filter(|json| json["scope"] == "platform");
        told.map(|json| json[name].as_i64().unwrap()).sum()
    };
    assert_eq!((sum("num_joined"), sum("num_left")), (2, 2));
}

/// What the decoder makes of a record: an event, a summary that is made anew, or nothing.
fn decoded(text: &str) -> Option<bool> {
    decode::decode(&decode::text(text.as_bytes()))
        .ok()
        .map(|decoded| matches!(decoded, Decoded::Event(_)))
}

#[test]
fn nothing_is_no_event_and_no_document() {
    for name in ["event", "document"] {
        let schema = schema(name);
        let validator = jsonschema::validator_for(&schema).unwrap();
        let time = 1_700_000_000_000_i64;
        for value in [
            json!({}),
            json!([]),
            json!({ "timestamp": time }),
            json!({ "event": "participantJoined" }),
            json!({ "event": "participantJoined", "timestamp": time }),
            json!({ "elastic_type": "sessionSummary", "timestamp": time }),
        ] {
            assert!(!validator.is_valid(&value), "{name}: {value}");
        }
    }
}

/// An event with nothing but what its schema requires.
fn least(name: &str, definition: &Value) -> Value {
    let mut event = json!({ "event": name, "timestamp": 1_700_000_000_000_i64 });
    let alternatives = definition["allOf"].as_array().into_iter().flatten();
    let needed = alternatives.map(|rule| &rule["anyOf"][0]["required"][0]);
    for field in definition["required"].as_array().unwrap().iter().chain(needed) {
        match field.as_str().unwrap() {
            "timestamp" => {}
            "connection" => event["connection"] = json!("OUTBOUND"),
            "status" => event["status"] = json!("ready"),
            other => event[other] = json!("x"),
        }
    }
    event
}

#[test]
fn the_least_that_the_schema_asks_for_is_the_least_that_is_taken() {
    let schema = schema("event");
    let validator = jsonschema::validator_for(&schema).unwrap();
    let names: Vec<&String> =
        schema["$defs"]["line"]["properties"].as_object().unwrap().keys().collect();
    assert!(names.len() >= 19, "{names:?}");
    for name in names {
        let event = least(name, &schema["$defs"][name]);
        assert!(validator.is_valid(&event), "{event}");
        assert_eq!(decoded(&event.to_string()), Some(true), "{event}");
        assert_eq!(decoded(&as_cdr(&event)), Some(true), "{event}");
        assert!(validator.is_valid(&serde_json::from_str(&as_cdr(&event)).unwrap()), "{event}");
        for field in event.as_object().unwrap().keys().filter(|field| *field != "event") {
            let mut less = event.clone();
            less.as_object_mut().unwrap().remove(field);
            assert!(!validator.is_valid(&less), "without {field}: {less}");
            assert_eq!(decoded(&less.to_string()), None, "without {field}: {less}");
        }
    }
}

#[test]
fn events_of_all_versions_and_the_simulated_ones_fit_the_schema_exactly_if_they_are_taken() {
    let schema = schema("event");
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut records: Vec<(String, String)> = Vec::new();
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/samples")).unwrap()
    {
        let path = entry.unwrap().path();
        records.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
    }
    for name in ["2.9-session.jsonl", "2.17-session.jsonl"] {
        records.extend(fixture(name).lines().map(|line| (name.to_owned(), line.to_owned())));
    }
    for seed in 0..12 {
        let events = simulate::session(seed, 1_700_000_000_000, 1).0;
        let telemetry = simulate::telemetry(seed, 1_700_000_000_000, 1, 300_000);
        let all = events.into_iter().chain(telemetry);
        records.extend(all.map(|event| (format!("seed {seed}"), event.json)));
    }
    let story = Story::new("s").of_two().recording(5, 5, "stopped", 0, 0.0);
    records.extend(story.events.iter().map(|event| ("story".to_owned(), event.to_string())));
    let mut kinds = std::collections::BTreeSet::new();
    for (place, text) in records {
        let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
        let is_taken = decoded(&text) == Some(true);
        let own = value["elastic_type"].as_str().or(value["event"].as_str());
        kinds.extend(own.map(str::to_owned));
        let matching = || {
            let defs = schema["oneOf"].as_array().unwrap().iter().map(|one| &one["$ref"]);
            defs.filter(|one| {
                let own = json!({ "$ref": one, "$defs": schema["$defs"] });
                jsonschema::validator_for(&own).unwrap().is_valid(&value)
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(validator.is_valid(&value), is_taken, "{place}: {:?} {text}", matching());
    }
    for kind in ["kms", "webrtcStats", "webrtcDebug", "networkQualityStats", "monitoringStats"] {
        assert!(kinds.contains(kind), "{kind} among {kinds:?}");
    }
}
