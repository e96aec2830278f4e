//! What browsers report: whose it is, and what summaries make of it.

use callscope::reports::{self, Arrival, Running};
use serde_json::{Value, json};

use crate::story::{START, Story};
use crate::support::{Bench, Store, disturbed, fold};

/// Ana, who sends a camera, and Bo and Cy, who receive it from one address with one browser each of another kind.
fn call() -> Story {
    let person = |at: i64, connection: &str, name: &str, (ip, platform): (&str, &str)| {
        (
            at,
            json!({ "connectionId": connection, "clientData": name, "serverData": "srv", "ip": ip, "platform": platform }),
        )
    };
    let people = [
        person(1, "con_A", "ana", ("198.51.100.1", "Chrome 129 on Linux 64-bit")),
        person(2, "con_B", "bo", ("203.0.113.9", "Chrome 129 on Linux 64-bit")),
        person(3, "con_C", "cy", ("203.0.113.9", "Firefox 131 on Linux 64-bit")),
    ];
    let mut story = Story::new("s").created();
    for (at, fields) in &people {
        story = story.tell("participantJoined", *at, fields.clone());
    }
    story = story
        .stream(4, "con_A", "str_A", None)
        .stream(5, "con_B", "str_A", Some("con_A"))
        .stream(6, "con_C", "str_A", Some("con_A"))
        .stream_end((4, 100), "con_A", "str_A", None, "disconnect")
        .stream_end((5, 100), "con_B", "str_A", Some("con_A"), "disconnect")
        .stream_end((6, 100), "con_C", "str_A", Some("con_A"), "disconnect");
    for (at, fields) in people {
        let mut fields = fields;
        fields["startTime"] = json!(START + at * 1000);
        fields["duration"] = json!(100 - at);
        fields["reason"] = json!("disconnect");
        story = story.tell("participantLeft", 100, fields);
    }
    story.destroyed(101, "lastParticipantLeft")
}

/// The records that a report at second `at` becomes.
fn reported(
    at: i64,
    address: &str,
    platform: &str,
    connection: Option<&str>,
    stats: Value,
) -> Vec<String> {
    let at = START + at * 1000;
    let body = json!({
        "@timestamp": chrono::DateTime::from_timestamp_millis(at).unwrap().to_rfc3339(), "participant_id": "ana%/%srv", "session_id": "s",
        "platform": "x", "platform_description": platform, "stream": "webRTC", "webrtc_stats": stats,
    });
    let arrival = Arrival { at, address: Some(address), connection, session: None };
    let report = reports::read(body.to_string().as_bytes(), arrival).unwrap();
    let reporter = report.reporter(START, &[], arrival);
    report.records(&reporter, arrival, &Running::default())
}

fn received(packets: i64, lost: i64, jitter: f64) -> Value {
    json!({ "inbound": { "audio": {}, "video": { "bytesReceived": packets * 1000, "packetsReceived": packets, "packetsLost": lost, "jitter": jitter, "frameWidth": 640 } } })
}

/// Ana's browser tells the way to the server, Bo's loses a tenth, Cy's nothing.
fn told() -> Vec<String> {
    let mut lines = call().lines();
    for at in [20, 30, 40, 50] {
        let count = (at - 10) * 90;
        let sent = json!({ "outbound": { "audio": {}, "video": { "bytesSent": count, "packetsSent": count } }, "candidatepair": { "currentRoundTripTime": 0.04 } });
        lines.extend(reported(at, "198.51.100.1", "Chrome 129 on Linux 64-bit", None, sent));
        lines.extend(reported(
            at + 1,
            "203.0.113.9",
            "Chrome 129 on Linux 64-bit",
            None,
            received(count, count / 9, 0.020),
        ));
        lines.extend(reported(
            at + 2,
            "203.0.113.9",
            "Firefox 131 on Linux 64-bit",
            None,
            received(count, 0, 0.010),
        ));
    }
    lines
}

fn quality<'s>(store: &'s Store, kind: &str, connection: &str) -> &'s Value {
    let found = store.of(kind).into_iter().find(|json| json["connectionId"] == connection);
    &found.unwrap()["quality"]
}

#[test]
fn streams_tell_what_browsers_measured() {
    let store = fold(told().iter().map(String::as_str));
    assert_eq!(
        *quality(&store, "publisherSummary", "con_A"),
        json!({ "rttMs": 40, "rttMsP95": 39.9 })
    );
    let lossy = quality(&store, "subscriberSummary", "con_B");
    assert_eq!((&lossy["lossPercent"], &lossy["jitterMs"]), (&json!(10), &json!(20)), "{lossy}");
    assert_eq!(quality(&store, "subscriberSummary", "con_C")["lossPercent"], 0);
    let session = store.one("sessionSummary");
    assert_eq!(
        (&session["quality"]["lossPercent"], &session["quality"]["rttMs"]),
        (&json!(5.26), &json!(40))
    );
    assert_eq!(session["problems"], json!(["highLoss"]));
    let text = session["problemDetails"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("10 % of what bo saw of ana was lost"), "{text}");
    assert_eq!(session["problemDetails"][0]["connectionId"], "con_B");
    // Nobody is made of a report.
    assert_eq!(store.of("connectionSummary").len(), 3);
    assert_eq!(session["users"]["numberOfElements"], 3);
}

/// Somebody who makes up browsers takes no room from others.
#[test]
fn a_flood_from_one_address_hides_nobody() {
    let mut lines = call().lines();
    for made_up in 0..1_020 {
        let platform = format!("Browser {made_up}");
        let stats = received(made_up, 0, 0.01);
        lines.extend(reported(15, "198.51.100.66", &platform, Some("con_X"), stats));
    }
    lines.extend(told().into_iter().skip(call().lines().len()));
    let store = fold(lines.iter().map(String::as_str));
    assert_eq!(quality(&store, "subscriberSummary", "con_B")["lossPercent"], 10);
    assert_eq!(store.one("sessionSummary")["truncated"], true);
}

#[test]
fn the_documents_of_reports_are_like_those_of_the_media_server() {
    let mut lines = told();
    lines.retain(|line| !line.contains("Destroyed") && !line.contains("participantLeft"));
    // Of Cy the media server tells how it is as well.
    let by_server = json!({
        "elastic_type": "webrtcStats", "sessionId": "s", "uniqueSessionId": format!("s_{START}"), "connectionId": "con_C",
        "endpoint": "con_C_str_A", "mediaType": "video", "packetsSent": 500, "jitter": 0.01, "timestamp": START + 10_000,
    });
    let first = lines.iter().position(|line| line.contains("\"browser\"")).unwrap();
    lines.insert(first, by_server.to_string());
    let store = fold(lines.iter().map(String::as_str));
    let of = |connection: &str| {
        let own = store
            .of("webrtcStats")
            .into_iter()
            .filter(|json| json["connectionId"] == connection && json["side"] == "browser");
        let mut own: Vec<&Value> = own.collect();
        own.sort_by_key(|json| json["timestamp"].as_i64());
        own
    };
    let bo = of("con_B");
    assert_eq!(bo.len(), 4);
    for json in &bo {
        assert_eq!((&json["side"], &json["mediaRole"]), (&json!("browser"), &json!("subscriber")));
        assert_eq!((&json["endpoint"], &json["user"]), (&json!("con_B_str_A"), &json!("con_B")));
        assert_eq!(
            (&json["client"]["browser"], &json["frameWidth"]),
            (&json!("Chrome"), &json!(640))
        );
    }
    assert!(bo[0].get("packetsLostDelta").is_none());
    assert_eq!(
        (&bo[1]["packetsReceivedDelta"], &bo[1]["packetsLostDelta"]),
        (&json!(900), &json!(100))
    );
    assert_eq!((of("con_A").len(), of("con_C").len()), (4, 4));
    let is_told_twice =
        |connection: &str| of(connection).iter().filter(|json| json["serverTells"] == true).count();
    assert_eq!(["con_A", "con_B", "con_C"].map(is_told_twice), [0, 0, 4]);
    // A tenth of what Bo should get is lost; of a first report it is not known since when.
    let levels =
        ["con_A", "con_B", "con_C"].map(|connection| of(connection)[1]["networkQuality"].clone());
    assert_eq!((bo[0].get("networkQuality"), levels), (None, [json!(5), json!(3), json!(5)]));
    assert_eq!(of("con_A")[0]["mediaRole"], "publisher");
}

/// What callscope put into them, by what it knew then, is no part of the events.
#[test]
fn documents_that_are_read_again_are_of_the_same_events() {
    let mut lines = told();
    let of_session = |mut event: Value| {
        event["sessionId"] = json!("s");
        event["uniqueSessionId"] = json!(format!("s_{START}"));
        event.to_string()
    };
    let recorded = json!({
        "event": "recordingStatusChanged", "timestamp": START + 7_000, "id": "s", "startTime": START + 7_000, "status": "started",
        "outputMode": "COMPOSED", "media_node_id": "media_1", "size": 0, "duration": 0,
    });
    let signal = json!({ "event": "signalSent", "timestamp": START + 8_000, "type": "chat", "data": "hello", "from": "con_A", "to": ["con_B"] });
    let named = json!({
        "elastic_type": "kms", "timestamp": START + 60_000, "connectionId": "con_B", "user": "zeta", "endpoint": "con_B_str_A",
        "type": "MediaFlowInStateChange", "state": "FLOWING", "mediaType": "VIDEO",
    });
    let left = lines.iter().position(|line| line.contains("Destroyed")).unwrap();
    lines.splice(left..left, [recorded, signal].map(of_session));
    lines.push(of_session(named));
    let mut bench = Bench::new();
    lines.iter().for_each(|line| _ = bench.read(line));
    let raw = bench.raw.clone();
    let store = bench.finish().clone();
    assert!(raw.iter().any(|document| document.contains("\"user\":\"con_B\"")));
    assert_eq!(fold(raw.iter().map(String::as_str)), store);
    let person = store.of("connectionSummary").into_iter().find(|json| json["user"] == "zeta");
    assert_eq!(person.unwrap()["connectionId"], "con_B");
}

/// What came late was told to be lost, and is not lost again when the next packet is.
#[test]
fn packets_that_come_late_are_lost_once() {
    let mut lines = call().lines();
    for (at, packets, lost) in
        [(20, 100, 0), (30, 200, 20), (40, 300, 0), (50, 400, 25), (60, 50, 1)]
    {
        let stats = received(packets, lost, 0.01);
        lines.extend(reported(at, "203.0.113.9", "Chrome 129 on Linux 64-bit", None, stats));
    }
    let all = fold(lines.iter().map(String::as_str));
    let loss = &quality(&all, "subscriberSummary", "con_B")["lossPercent"];
    assert_eq!(*loss, 5.46, "26 of 476, as the last readings before and after it counted anew say");
    lines.retain(|line| !line.contains("Destroyed") && !line.contains("participantLeft"));
    let store = fold(lines.iter().map(String::as_str));
    let mut told = store.of("webrtcStats");
    told.sort_by_key(|json| json["timestamp"].as_i64());
    let deltas: Vec<_> = told.iter().map(|json| json.get("packetsLostDelta").cloned()).collect();
    assert_eq!(deltas[1..], [20, 0, 5, 1].map(|lost| Some(json!(lost))));
}

#[test]
fn the_order_and_repetition_of_reports_play_no_part() {
    let lines = told();
    let plain = fold(lines.iter().map(String::as_str));
    for seed in 0..20 {
        let disturbed = disturbed(&lines, seed);
        let disturbed = fold(disturbed.iter().map(String::as_str));
        assert_eq!(disturbed.summaries(), plain.summaries(), "seed {seed}");
    }
}

/// Two of one kind at one address: nobody can say whose report it was, so what was lost is nobody's.
#[test]
fn nobody_is_guessed() {
    let mut lines = told();
    for line in &mut lines {
        *line = line.replace("Firefox 131", "Chrome 129");
    }
    let store = fold(lines.iter().map(String::as_str));
    assert!(store.of("subscriberSummary").iter().all(|json| json.get("quality").is_none()));
    let session = store.one("sessionSummary");
    assert_eq!(session["problems"], json!([]));
    assert!(session["quality"].get("lossPercent").is_none(), "{}", session["quality"]);
    assert_eq!(session["quality"]["rttMs"], 40);
    // Where the page tells the connection, everybody is known all the same.
    let mut lines = call().lines();
    for (connection, lost) in [("con_B", 100), ("con_C", 0)] {
        let told = |at, packets, lost| {
            let stats = received(packets, lost, 0.01);
            reported(at, "203.0.113.9", "Chrome 129 on Linux 64-bit", Some(connection), stats)
        };
        lines.extend(told(20, 900, lost));
        lines.extend(told(30, 1800, lost));
    }
    let store = fold(lines.iter().map(String::as_str));
    let loss = |connection| quality(&store, "subscriberSummary", connection)["lossPercent"].clone();
    assert_eq!((loss("con_B"), loss("con_C")), (json!(5.26), json!(0)));
}

/// Up to 2.16 a report does not tell of which stream it is.
#[test]
fn an_old_report_is_of_the_one_stream_that_is_received() {
    let body = json!({ "et_type": "webrtc_inbound_video_7", "webrtc_inbound_video_7": { "jitter": 150, "packetsReceived": 900, "packetsLost": 100 } });
    let running = Running::default();
    let reports = |connection: &'static str| -> Vec<String> {
        let told = (20..24).flat_map(|second| {
            let at = START + second * 1_000;
            let arrival =
                Arrival { at, address: None, connection: Some(connection), session: Some("s") };
            let report = reports::read(body.to_string().as_bytes(), arrival).unwrap();
            let reporter = report.reporter(START, &[], arrival);
            report.records(&reporter, arrival, &running)
        });
        told.collect()
    };
    // Nor do events of that time tell more than the session's name.
    let old = |story: Story| -> Vec<String> {
        let line = |mut event: Value| {
            event.as_object_mut().unwrap().remove("uniqueSessionId");
            event.to_string()
        };
        story.events.into_iter().map(line).collect()
    };
    let lines = [old(call()), reports("con_B")].concat();
    let store = fold(lines.iter().map(String::as_str));
    assert_eq!(quality(&store, "subscriberSummary", "con_B")["lossPercent"], 10);
    let text = |store: &Store| store.one("sessionSummary")["problemDetails"].to_string();
    assert!(text(&store).contains("10 % of what bo saw of ana was lost"), "{}", text(&store));
    let mut raw = store.of("webrtcStats");
    raw.sort_by_key(|json| json["timestamp"].as_i64());
    let grown: Vec<_> = raw.iter().map(|json| json.get("packetsLostDelta").cloned()).collect();
    // Of the first it is not known of how many seconds it is.
    assert_eq!(grown, [None, Some(json!(100)), Some(json!(100)), Some(json!(100))]);
    for seed in 0..20 {
        let disturbed = disturbed(&lines, seed);
        let disturbed = fold(disturbed.iter().map(String::as_str));
        assert_eq!(disturbed.summaries(), store.summaries(), "seed {seed}");
    }
    // Of several it can be any: whose media it was is not said.
    let other = call().stream(4, "con_C", "str_C", None).stream(5, "con_B", "str_C", Some("con_C"));
    let store = fold([old(other), reports("con_B")].concat().iter().map(String::as_str));
    assert!(text(&store).contains("10 % of what bo received was lost"), "{}", text(&store));
}

/// What people tell of themselves need not be kept: then it is not known of whom somebody reports, but who has reported is.
#[test]
fn a_report_is_somebodys_though_data_are_not_kept() {
    let lines: Vec<String> = told()
        .iter()
        .map(|line| {
            let mut event: Value = serde_json::from_str(line).unwrap();
            for name in ["clientData", "serverData"] {
                event.as_object_mut().unwrap().remove(name);
            }
            event.to_string()
        })
        .collect();
    let store = fold(lines.iter().map(String::as_str));
    let whole = fold(told().iter().map(String::as_str));
    for id in ["con_B", "con_C"] {
        let loss = |store| quality(store, "subscriberSummary", id)["lossPercent"].clone();
        assert_eq!(loss(&store), loss(&whole), "{id}");
    }
}

/// Before 2.17 a session's name is used again: what was reported on one of them is not of another.
#[test]
fn reports_are_of_the_session_that_was_open() {
    let of = |start: i64, connection: &str| {
        let story = Story::old("s").at(start).created().joined(1, connection);
        let story = story.stream(2, connection, "str_A", None);
        let story = story.stream_end((2, 50), connection, "str_A", None, "disconnect");
        story.left(1, 50, connection, "disconnect").destroyed(51, "lastParticipantLeft").lines()
    };
    let later = START + 3_600_000;
    let body = json!({ "et_type": "webrtc_inbound_video_7", "webrtc_inbound_video_7": { "jitter": 30, "packetsReceived": 50, "packetsLost": 1 } });
    let at = later + 20_000;
    let arrival = Arrival { at, address: None, connection: Some("con_B"), session: Some("s") };
    let report = reports::read(body.to_string().as_bytes(), arrival).unwrap();
    let mut lines = [of(START, "con_A"), of(later, "con_B")].concat();
    let reporter = report.reporter(later, &[], arrival);
    lines.extend(report.records(&reporter, arrival, &Running::default()));
    let store = fold(lines.iter().map(String::as_str));
    let with: Vec<bool> =
        store.of("sessionSummary").iter().map(|json| json.get("quality").is_some()).collect();
    let starts: Vec<i64> =
        store.of("sessionSummary").iter().map(|json| json["createdAt"].as_i64().unwrap()).collect();
    for (has, start) in with.iter().zip(starts) {
        assert_eq!(*has, start == later, "{start}");
    }
}
