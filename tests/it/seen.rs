//! What the REST API shows: it fills what events have not told, and outranks none of them.

use serde_json::{Value, json};

use crate::story::{START, Story};
use crate::support::{Bench, fold};

fn seen(kind: &str, time: i64, fields: Value) -> String {
    let mut event = json!({
        "elastic_type": "seen", "type": kind, "sessionId": "s", "uniqueSessionId": format!("s_{START}"),
        "timestamp": START + time,
    });
    for (name, value) in fields.as_object().unwrap() {
        event[name] = value.clone();
    }
    event.to_string()
}

fn session() -> String {
    let fields = json!({
        "customSessionId": "mine", "mediaMode": "RELAYED", "recordingMode": "ALWAYS", "media_node_id": "media_1",
    });
    seen("session", 0, fields)
}

fn connection(id: &str, at: i64) -> String {
    let fields = json!({
        "connectionId": id, "location": "Oslo, Norway", "ip": "192.0.2.9", "platform": "Firefox 131.0 on Windows 10 64-bit",
        "clientData": "as shown", "serverData": "",
    });
    seen("connection", at, fields)
}

/// The end of a recording that began at 5 s, as the API shows it.
fn recorded(fields: Value) -> String {
    let mut event = json!({
        "elastic_type": "cdr", "event": "recordingStatusChanged", "side": "api", "sessionId": "s", "uniqueSessionId": format!("s_{START}"),
        "id": "s", "startTime": START + 5_000, "timestamp": START + 20_000,
    });
    for (name, value) in fields.as_object().unwrap() {
        event[name] = value.clone();
    }
    event.to_string()
}

fn presence(kind: &str, at: i64) -> String {
    seen(kind, at, json!({ "startTime": START }))
}

#[test]
fn a_session_that_no_event_announced_is_opened_as_it_is_shown() {
    let lines = [session(), connection("con_A", 2_000), presence("gone", 90_000)];
    let mut bench = Bench::new();
    lines.iter().for_each(|line| _ = bench.read(line));
    let live = bench.folder.sessions.live(START + 60_000);
    assert_eq!((live.totals.sessions, live.totals.connections), (1, 1));
    let store = fold(lines.iter().map(String::as_str));
    let summary = store.one("sessionSummary");
    for (name, value) in [
        ("customSessionId", json!("mine")),
        ("mediaMode", json!("RELAYED")),
        ("recordingMode", json!("ALWAYS")),
        ("media_node_id", json!("media_1")),
        ("closedBy", json!("silence")),
        ("goneSince", json!(START + 90_000)),
        ("destroyedAt", json!(START + 2_000)),
    ] {
        assert_eq!(summary[name], value, "{name}");
    }
    let person = store.one("connectionSummary");
    assert_eq!(
        (&person["location"], &person["clientData"]),
        (&json!("Oslo, Norway"), &json!("as shown"))
    );
}

#[test]
fn what_is_still_shown_is_not_silent() {
    const HOUR: i64 = 3_600_000;
    // The first that is told is that an old session is shown, and what it is comes after that.
    let mut bench = Bench::new();
    bench.read(&presence("shown", 30 * HOUR));
    let is_silent = |bench: &mut Bench| bench.folder.sessions.expire(START + 31 * HOUR);
    assert!(!is_silent(&mut bench));
    bench.read(&session()).read(&connection("con_A", 2_000));
    assert!(!is_silent(&mut bench));
    assert_eq!(bench.folder.sessions.live(START + 31 * HOUR).totals.sessions, 1);
    // After a day without callscope that one session is shown ends no other of which that is not told yet.
    let mut bench = Bench::new();
    bench.read(&session()).read(&connection("con_A", 2_000));
    let other = |line: &str| line.replace("\"s\"", "\"t\"").replace("\"s_", "\"t_");
    bench.read(&other(&session())).read(&other(&connection("con_A", 2_000)));
    bench.read(&presence("shown", 50 * HOUR));
    let clock = bench.clock.now();
    assert!(!bench.folder.sessions.expire(clock));
    bench.read(&other(&presence("shown", 50 * HOUR)));
    assert!(!bench.folder.sessions.expire(START + 51 * HOUR));
    // What is shown no more falls silent in its time.
    bench.read(&presence("gone", 52 * HOUR));
    assert!(bench.folder.sessions.expire(START + 73 * HOUR));
}

#[test]
fn what_events_say_outranks_what_is_shown() {
    let story = Story::new("s")
        .created()
        .joined(2, "con_A")
        .recording(10, 5, "started", 0, 0.0)
        .recording(20, 5, "stopped", 0, 0.0)
        .recording(30, 5, "ready", 700, 14.0)
        .left(2, 60, "con_A", "disconnect")
        .destroyed(61, "lastParticipantLeft");
    let recording = json!({ "status": "failed", "size": 1, "duration": 1.0 });
    // Shown earlier than it joined, by another clock.
    let shown =
        [session(), connection("con_A", 1_000), recorded(recording), presence("gone", 70_000)];
    let mut lines = story.lines();
    lines.extend(shown);
    for _ in 0..2 {
        let store = fold(lines.iter().map(String::as_str));
        let person = store.one("connectionSummary");
        assert_eq!(
            (&person["location"], &person["createdAt"]),
            (&json!("Rome, Italy"), &json!(START + 2_000))
        );
        let recording = store.one("recordingSummary");
        assert_eq!((&recording["finalStatus"], &recording["size"]), (&json!("ready"), &json!(700)));
        let summary = store.one("sessionSummary");
        assert_eq!((&summary["mediaMode"], summary.get("goneSince")), (&json!("RELAYED"), None));
        assert_eq!(summary["problems"], json!([]));
        lines.reverse();
    }
}

#[test]
fn a_recording_whose_end_was_missed_has_the_values_that_are_shown() {
    let story = Story::new("s")
        .created()
        .recording(10, 5, "started", 0, 0.0)
        .recording(20, 5, "stopped", 0, 0.0)
        .destroyed(21, "sessionClosedByServer");
    let recording = json!({ "status": "ready", "size": 4_000, "duration": 15.5, "hasVideo": true });
    let mut lines = story.lines();
    lines.push(recorded(recording));
    let store = fold(lines.iter().map(String::as_str));
    let recording = store.one("recordingSummary");
    assert_eq!((&recording["finalStatus"], &recording["size"]), (&json!("ready"), &json!(4_000)));
    assert_eq!(recording["duration"], 15.5);
    // What is counted of events counts it once, though it is sent late after all.
    let late = Story::new("s").recording(40, 5, "ready", 4_000, 15.5);
    lines.extend(late.lines());
    let store = fold(lines.iter().map(String::as_str));
    let ready = store.of("cdr").into_iter().filter(|event| event["status"] == "ready").count();
    assert_eq!(ready, 1);
}

#[test]
fn who_is_shown_again_is_not_gone() {
    let lines = [connection("con_A", 0), presence("gone", 50_000), presence("shown", 80_000)];
    let store = fold(lines.iter().map(String::as_str));
    assert_eq!(store.one("sessionSummary").get("goneSince"), None);
    // The same at every poll is one fact and one document.
    let mut bench = Bench::new();
    (0..3).for_each(|_| _ = bench.read(&session()).read(&connection("con_A", 2_000)));
    assert_eq!(bench.finish().of("seen").len(), 2);
    let letters = Bench::new().read(&seen("gone", 1, json!({}))).dead.clone();
    assert!(letters[0].contains("without usable `startTime`"), "{letters:?}");
}
