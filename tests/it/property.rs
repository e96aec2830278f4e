//! Same events, any order, repetition, cut into cycles, crash: the same documents. Over simulated sessions, as every family of
//! OpenVidu's versions sends them.

use callscope::sessions::Outcome;
use callscope::simulate::rng::Rng;
use callscope::simulate::{self, Truth};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::story::as_cdr;
use crate::support::{Bench, Store, shuffle};

const START: i64 = 1_700_000_000_000;

/// Versions of OpenVidu that send events alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// 2.0 to 2.8: streams have no id; no place, nothing of the application's; ends say their time twice.
    Nameless,
    /// 2.9 to 2.11: ids without `uniqueSessionId`; nothing of the application's.
    Bare,
    /// 2.12 to 2.16: without `uniqueSessionId`, recordings told under two names.
    Twins,
    /// 2.17 to 2.20: with `uniqueSessionId`, recordings told under two names.
    UniqueTwins,
    /// 2.21 and later.
    Unique,
}

const FAMILIES: [Family; 5] =
    [Family::Nameless, Family::Bare, Family::Twins, Family::UniqueTwins, Family::Unique];

impl Family {
    fn is_unique(self) -> bool {
        matches!(self, Self::Unique | Self::UniqueTwins)
    }

    /// The event as these versions told it, under all its names.
    fn tell(self, json: &str) -> Vec<String> {
        let mut event: Value = serde_json::from_str(json).unwrap();
        let members = event.as_object_mut().unwrap();
        let mut remove = |names: &[&str]| names.iter().for_each(|name| _ = members.remove(*name));
        if !self.is_unique() {
            remove(&["uniqueSessionId", "connectionId"]);
        }
        if matches!(self, Self::Nameless | Self::Bare) {
            remove(&["clientData", "serverData", "ip"]);
        }
        if self == Self::Nameless {
            remove(&["streamId", "location", "platform", "videoDimensions"]);
            if members.contains_key("duration") && members.contains_key("startTime") {
                members.insert("endTime".into(), members["timestamp"].clone());
            }
        }
        let mut told = Vec::new();
        let old_name = match event["status"].as_str() {
            Some("started") => "recordingStarted",
            Some("stopped") => "recordingStopped",
            _ => "",
        };
        if matches!(self, Self::Twins | Self::UniqueTwins) && !old_name.is_empty() {
            let mut twin = event.clone();
            let members = twin.as_object_mut().unwrap();
            members.remove("status");
            if old_name == "recordingStarted" {
                // Its own time is the start.
                let start = members.remove("startTime").unwrap();
                members.insert("timestamp".into(), start);
            }
            twin["event"] = json!(old_name);
            told.push(as_cdr(&twin));
        }
        told.push(event.to_string());
        told
    }
}

/// The webhook bodies of some sessions that overlap, and what must come of each.
fn sessions(seed: u64, family: Family) -> (Vec<String>, Vec<Truth>) {
    let mut rng = Rng::new(seed);
    let mut lines = Vec::new();
    let mut truths = Vec::new();
    for index in 0..3 {
        let (own, start) = (rng.number(), START + index * 600_000);
        let (events, truth) = simulate::session(own, start, 1);
        // Large ones make the same point slower.
        if events.len() > 120 {
            continue;
        }
        lines.extend(events.into_iter().flat_map(|event| family.tell(&event.json)));
        if family.is_unique() {
            let telemetry = simulate::telemetry(own, start, 1, 120_000);
            lines.extend(telemetry.into_iter().map(|event| event.json));
            if !truth.unique_session_id.is_empty() {
                lines.extend(shown(&lines, &truth.unique_session_id, start));
            }
        }
        truths.push(truth);
    }
    (lines, truths)
}

/// What the REST API shows of a session that events tell of: the same, by another clock, and that it is gone at some time.
fn shown(lines: &[String], unique_id: &str, start: i64) -> Vec<String> {
    let ids =
        json!({ "sessionId": unique_id.rsplit_once('_').unwrap().0, "uniqueSessionId": unique_id });
    let seen = |kind: &str, mut event: Value| {
        let members = event.as_object_mut().unwrap();
        members.retain(|name, _| !["event", "participantId"].contains(&name.as_str()));
        members.extend(ids.as_object().unwrap().clone());
        members.insert("elastic_type".into(), json!("seen"));
        members.insert("type".into(), json!(kind));
        event.to_string()
    };
    let events = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let joined = events.filter(|event| {
        event["event"] == "participantJoined" && event["uniqueSessionId"] == unique_id
    });
    let connections = joined.map(|mut event| {
        event["timestamp"] = json!(event["timestamp"].as_i64().unwrap() - 7);
        event["location"] = json!("Oslo, Norway");
        seen("connection", event)
    });
    let mut shown: Vec<String> = connections.collect();
    shown.push(seen("session", json!({ "timestamp": start, "mediaMode": "RELAYED" })));
    for (kind, at) in [("gone", 30_000), ("shown", 60_000), ("gone", 90_000)] {
        shown.push(seen(kind, json!({ "timestamp": start + at, "startTime": start })));
    }
    shown
}

/// A copy by another way: as a CDR line, or indexed.
fn copied(line: &str, rng: &mut Rng) -> String {
    let mut event: Value = serde_json::from_str(line).unwrap();
    if event.get("event").is_none() {
        // A line of a CDR file already, or telemetry, which comes in one shape.
        return line.to_owned();
    }
    match rng.below(3) {
        0 => as_cdr(&event),
        1 => {
            event["elastic_type"] = json!("cdr");
            event.to_string()
        }
        _ => line.to_owned(),
    }
}

/// Reads in cycles of chance, and sometimes crashes in the middle of one, which repeats it.
fn read_with_crashes(lines: &[String], rng: &mut Rng) -> Store {
    let mut bench = Bench::new();
    let mut at = 0;
    while at < lines.len() {
        let end = (at + 1 + usize::try_from(rng.below(15)).unwrap()).min(lines.len());
        for line in &lines[at..end] {
            bench.read(line);
        }
        if rng.below(4) == 0 {
            // Whether documents of the cycle got out or not before the crash must make no difference.
            if rng.below(2) == 0 {
                bench.write();
            }
            bench.restart();
            continue;
        }
        bench.cycle();
        if rng.below(3) == 0 {
            bench.restart();
        }
        at = end;
    }
    bench.finish().clone()
}

fn holds(store: &Store, truth: &Truth) {
    if truth.unique_session_id.is_empty() {
        return;
    }
    let of = |kind: &str| -> Vec<&Value> {
        store
            .of(kind)
            .into_iter()
            .filter(|json| json["uniqueSessionId"] == truth.unique_session_id)
            .collect()
    };
    let session = of("sessionSummary")[0];
    assert_eq!(session["reason"], truth.reason);
    assert_eq!(session["destroyedAt"], truth.end);
    assert_eq!(of("connectionSummary").len(), truth.connections);
    assert_eq!(of("publisherSummary").len(), truth.publishers);
    assert_eq!(of("subscriberSummary").len(), truth.subscribers);
    let mut recordings: Vec<_> =
        of("recordingSummary").iter().map(|json| json["finalStatus"].as_str().unwrap()).collect();
    recordings.sort_unstable();
    let mut expected = truth.recordings.clone();
    expected.sort_unstable();
    assert_eq!(recordings, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn documents_depend_on_the_events_alone(seed: u64, family in prop::sample::select(FAMILIES.to_vec())) {
        let (lines, truths) = sessions(seed, family);
        let plain = crate::support::fold_once(lines.iter().map(String::as_str));
        if family.is_unique() || truths.iter().map(|truth| truth.unique_session_id.rsplit_once('_').map(|(id, _)| id.to_owned())).collect::<std::collections::BTreeSet<_>>().len() == truths.len() {
            truths.iter().for_each(|truth| holds(&plain, truth));
        }
        let rng = &mut Rng::new(seed ^ 1);
        let mut disturbed: Vec<String> = lines.clone();
        for line in &lines {
            for _ in 0..rng.below(3) {
                disturbed.push(copied(line, rng));
            }
        }
        shuffle(&mut disturbed, rng);
        let disturbed = read_with_crashes(&disturbed, rng);
        prop_assert_eq!(plain.summaries(), disturbed.summaries());
        // Raw documents too, but for what the lane knew at that moment.
        prop_assert_eq!(plain.0.keys().collect::<Vec<_>>(), disturbed.0.keys().collect::<Vec<_>>());
    }

    #[test]
    fn lost_events_make_fewer_facts_and_never_a_wrong_shape(seed: u64, family in prop::sample::select(FAMILIES.to_vec())) {
        let (mut lines, _) = sessions(seed, family);
        let rng = &mut Rng::new(seed ^ 2);
        lines.retain(|_| rng.below(4) > 0);
        let plain = crate::support::fold_once(lines.iter().map(String::as_str));
        shuffle(&mut lines, rng);
        let disturbed = read_with_crashes(&lines, rng);
        prop_assert_eq!(plain.summaries(), disturbed.summaries());
        for stored in plain.summaries().values() {
            let json = &stored.json;
            if let Some(duration) = json.get("duration") {
                prop_assert!(duration.as_f64().unwrap() >= 0.0);
            }
            if let Some(users) = json.get("users") {
                prop_assert_eq!(users["numberOfElements"].as_u64().unwrap(), users["content"].as_array().unwrap().len() as u64);
            }
        }
    }

    #[test]
    fn any_bytes_are_an_event_or_a_letter(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bench = Bench::new();
        bench.read_from("default", &bytes);
        bench.finish();
        prop_assert_eq!(bench.dead.len() + bench.outcomes.len(), 1);
    }

    #[test]
    fn any_json_in_place_of_any_value_is_taken(seed: u64, at: prop::sample::Index, value in prop_oneof![
        Just("null".to_owned()), Just("1e400".to_owned()), Just("-9999999999999999999999".to_owned()), Just("{\"a\":{\"a\":1}}".to_owned()),
        Just("[[[]]]".to_owned()), Just("\"\\ud800\"".to_owned()), Just("\"\\u0000\"".to_owned()), Just("true".to_owned()), Just("\"\"".to_owned()), Just(format!("\"{}\"", "x".repeat(10_000))),
    ]) {
        let (lines, _) = sessions(seed, Family::Unique);
        let mut open = crate::support::config();
        open.privacy.redact_rtsp_uri = false;
        let mut bench = Bench::with(open);
        for line in &lines {
            let event: Value = serde_json::from_str(line).unwrap();
            let members = event.as_object().unwrap();
            let changed = at.index(members.len());
            let text: Vec<String> = members.iter().enumerate().map(|(index, (name, own))| {
                format!("{}:{}", Value::from(name.as_str()), if index == changed { value.clone() } else { own.to_string() })
            }).collect();
            // `Store::put` parses every document that comes out.
            let letters = bench.dead.len();
            bench.read(&format!("{{{}}}", text.join(",")));
            // Nothing vanishes: what its place does not take is kept aside. Of `event` and `timestamp` a letter tells.
            let (name, _) = members.iter().nth(changed).unwrap();
            if bench.dead.len() == letters && !matches!(value.as_str(), "null" | "\"\"") {
                let raw: Value = serde_json::from_str(bench.raw.last().unwrap()).unwrap();
                let kept = [&raw, &raw["malformed"], &raw["unindexed"]];
                prop_assert!(kept.iter().any(|place| place.get(name).is_some()), "{name}: {value} in {raw}");
            }
        }
        bench.finish();
        prop_assert_eq!(bench.dead.len() + bench.outcomes.len(), lines.len());
        // Documents that are read again are the same events, but for what the lane knew at that moment.
        let plain =
            |raw: &String| callscope::document::without_context(serde_json::from_str(raw).unwrap());
        let first: Vec<Value> = bench.raw.iter().map(plain).collect();
        let (letters, outcomes) = (bench.dead.len(), bench.outcomes.len());
        for raw in bench.raw.clone() {
            bench.read(&raw);
        }
        let again: Vec<Value> = bench.raw[outcomes..].iter().map(plain).collect();
        for (again, first) in again.iter().zip(&first) {
            prop_assert_eq!(again, first);
        }
        for (outcome, raw) in bench.outcomes[outcomes..].iter().zip(&bench.raw) {
            prop_assert!(*outcome != Outcome::Folded, "{raw}");
        }
        prop_assert_eq!(bench.dead.len(), letters);
    }
}
