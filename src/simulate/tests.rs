use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::config::Config;
use crate::enrich::place::GeoIp;
use crate::lane::clock::Clock;
use crate::lane::fold::{Folded, Folder, Times};
use crate::sessions::Keeping;

const START: i64 = 1_700_000_000_000;

fn json(event: &Emitted) -> Value {
    serde_json::from_str(&event.json).unwrap()
}

/// The summaries of a session with its telemetry.
fn summaries(seed: u64, pace: i64) -> Vec<Value> {
    let config = Config::load(None, std::iter::empty()).unwrap().config;
    let mut folder = Folder::new(&config, Arc::new(GeoIp::default()), Keeping::Replay);
    let mut clock = Clock::default();
    let mut events = session(seed, START, pace).0;
    events.extend(telemetry(seed, START, pace, 60_000));
    events.sort_by_key(|event| event.at);
    for event in &events {
        let times = Times { lane: clock.now(), wall: i64::MAX / 2 };
        match folder.fold(event.json.as_bytes(), "default", times, &mut clock, |_| {}).unwrap() {
            Folded::Event(..) => {}
            other => panic!("{other:?}: {}", event.json),
        }
    }
    folder.sessions.finish();
    let mut documents = Vec::new();
    while folder.sessions.documents_of_one(&mut documents) {}
    documents.iter().map(|document| serde_json::from_slice(&document.json).unwrap()).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..20 {
        assert_eq!(session(seed, START, 1), session(seed, START, 1));
        assert_eq!(telemetry(seed, START, 1, 30_000), telemetry(seed, START, 1, 30_000));
    }
}

#[test]
fn a_session_has_one_to_eight_people_and_nobody_twice_at_once() {
    let mut most = 0;
    for seed in 0..80 {
        let users = summaries(seed, 1);
        let users: Vec<&str> = users
            .iter()
            .filter(|json| json["elastic_type"] == "userSummary")
            .map(|json| json["id"].as_str().unwrap())
            .filter(|id| !id.starts_with("ipc_") && !id.starts_with("con_"))
            .collect();
        assert!(users.len() <= 8, "{users:?}");
        assert_eq!(users.iter().collect::<BTreeSet<_>>().len(), users.len(), "{users:?}");
        most = most.max(users.len());
    }
    assert_eq!(most, 8);
}

#[test]
fn a_recording_is_never_longer_than_its_session() {
    for pace in [1, 20] {
        for seed in 0..200 {
            let (events, truth) = session(seed, START, pace);
            let length = (truth.end - START).max(0) as f64 / 1000.0;
            for event in events.iter().map(json).filter(|event| event["status"] == "ready") {
                let seconds = event["duration"].as_f64().unwrap();
                assert!(seconds <= length, "seed {seed}, pace {pace}: {seconds} of {length}");
            }
        }
    }
}

#[test]
fn telemetry_makes_people_of_connections_and_tells_what_went_wrong() {
    let mut problems: BTreeMap<String, usize> = BTreeMap::new();
    let (mut sessions, mut healthy) = (0, 0);
    for seed in 0..150 {
        for summary in summaries(seed, 1) {
            if summary["elastic_type"] == "userSummary" && summary["platform"] != "IPCAM" {
                assert!(
                    ["event", "connection"].contains(&summary["userIdSource"].as_str().unwrap()),
                    "{summary}"
                );
            }
            if summary["elastic_type"] == "sessionSummary" {
                sessions += 1;
                healthy += usize::from(summary["health"] == "healthy");
                for problem in summary["problems"].as_array().unwrap() {
                    *problems.entry(problem.as_str().unwrap().to_owned()).or_default() += 1;
                }
            }
        }
    }
    let expected = [
        "abnormalEnd",
        "highJitter",
        "highLoss",
        "highRoundTrip",
        "iceFailed",
        "lowNetworkQuality",
        "mediaGap",
        "mediaLost",
        "recordingFailed",
    ];
    assert_eq!(problems.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{problems:?}");
    assert!(healthy * 2 > sessions, "most go well: {healthy} of {sessions}, {problems:?}");
}

#[test]
fn telemetry_lies_within_its_endpoints() {
    let mut without = 0;
    for seed in 0..100 {
        let (_, truth) = session(seed, START, 20);
        let told = telemetry(seed, START, 20, 30_000);
        assert_eq!(told.is_empty(), truth.connections == 0, "seed {seed}");
        without += usize::from(told.is_empty());
        for event in told {
            assert!((START..truth.end).contains(&event.at), "{}", event.json);
            assert_eq!(json(&event)["uniqueSessionId"], truth.unique_session_id);
        }
    }
    assert!((1..20).contains(&without), "nobody comes now and then: {without}");
}
