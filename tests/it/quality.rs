//! How good media was: what summaries say of it, and in which words.

use serde_json::{Value, json};

use crate::story::{START, Story};
use crate::support::{disturbed, fold};

/// One person who sends a camera from second 2 to 100, and another who receives it from 3 to 100.
fn call() -> Story {
    let data = json!({ "clientData": "{\"clientData\":\"Ana\"}" });
    let mut story = Story::new("s")
        .created()
        .joined(1, "con_A")
        .joined(2, "con_B")
        .stream_end((2, 100), "con_A", "str_A", None, "disconnect")
        .stream_end((3, 100), "con_B", "str_A", Some("con_A"), "disconnect")
        .left(1, 100, "con_A", "disconnect")
        .left(2, 100, "con_B", "disconnect")
        .destroyed(101, "lastParticipantLeft");
    for event in &mut story.events {
        if event["connectionId"] == "con_A" && event.get("clientData").is_some() {
            event["clientData"] = data["clientData"].clone();
        }
    }
    story
}

fn told(connection: &str, endpoint: &str, at: i64, fields: Value) -> String {
    let mut event = json!({
        "sessionId": "s", "uniqueSessionId": format!("s_{START}"), "connectionId": connection, "endpoint": endpoint,
        "timestamp": START + at * 1000,
    });
    for (name, value) in fields.as_object().unwrap() {
        event[name] = value.clone();
    }
    event.to_string()
}

fn kms(connection: &str, endpoint: &str, at: i64, kind: &str, fields: Value) -> String {
    let mut fields = fields;
    fields["type"] = json!(kind);
    fields["msSinceEndpointCreation"] = json!((at - 2) * 1000);
    told(connection, endpoint, at, fields)
}

fn flow(at: i64, media: &str, state: &str) -> String {
    let fields = json!({ "mediaType": media, "state": state, "padName": "default" });
    kms("con_A", "str_A", at, "MediaFlowInStateChanged", fields)
}

fn ice(endpoint: &str, at: i64, component: i64, state: &str) -> String {
    let connection = if endpoint == "str_A" { "con_A" } else { "con_B" };
    let fields = json!({ "streamId": 1, "componentId": component, "state": state });
    kms(connection, endpoint, at, "IceComponentStateChanged", fields)
}

/// The numbers of one publisher at one moment: audio loses nothing, video a lot.
fn counted(at: i64, jitter: f64, (lost, received): (i64, i64)) -> [String; 2] {
    let audio = json!({ "mediaType": "audio", "jitter": 0.001, "bytesReceived": 1, "packetsLost": 0, "packetsReceived": at * 50 });
    let video = json!({ "mediaType": "video", "jitter": jitter, "bytesReceived": 1, "packetsLost": lost, "packetsReceived": received });
    [audio, video].map(|fields| told("con_A", "str_A", at, fields))
}

/// A call with all kinds of trouble.
fn troubled() -> Vec<String> {
    let candidate = |kind: &str| format!("candidate:1 1 UDP 2013266431 192.0.2.7 40000 typ {kind}");
    let pair = json!({ "candidatePair": { "localCandidate": candidate("host"), "remoteCandidate": candidate("relay") } });
    let mut lines = call().lines();
    lines.extend([
        ice("str_A", 3, 1, "CONNECTED"),
        // RTCP comes with the media: its own component is never connected.
        ice("str_A", 4, 2, "GATHERING"),
        kms("con_A", "str_A", 3, "NewCandidatePairSelected", pair),
        flow(14, "VIDEO", "FLOWING"),
        flow(15, "AUDIO", "FLOWING"),
        flow(40, "VIDEO", "NOT_FLOWING"),
        flow(57, "VIDEO", "FLOWING"),
        flow(85, "AUDIO", "NOT_FLOWING"),
        ice("con_B_str_A", 4, 1, "CONNECTING"),
        ice("con_B_str_A", 12, 1, "FAILED"),
    ]);
    // It reconnects after a minute, and counts anew.
    for (at, jitter, video) in
        [(30, 0.020, (300, 3000)), (60, 0.040, (700, 6000)), (90, 0.150, (100, 2900))]
    {
        lines.extend(counted(at, jitter, video));
    }
    for (at, rtt) in [(30, 0.6), (60, 0.7), (90, 0.9)] {
        let fields =
            json!({ "mediaType": "video", "rtt": rtt, "bytesSent": 1, "packetsSent": at * 10 });
        lines.push(told("con_B", "con_B_str_A", at, fields));
    }
    lines
}

#[test]
fn streams_and_sessions_tell_how_good_their_media_was() {
    let lines = troubled();
    let store = fold(lines.iter().map(String::as_str));
    let publisher = &store.one("publisherSummary")["quality"];
    // Lost are 700 and 100 of 6700 and 3000 of the camera's packets, and none of 4500 with sound.
    assert_eq!(publisher["lossPercent"], 5.63);
    assert_eq!(publisher["jitterMs"], 35.5, "six values, half of them sound's: {publisher}");
    let most = publisher["jitterMsP95"].as_f64().unwrap();
    assert!((most - 150.0).abs() < 150.0 / 32.0, "{most}");
    assert_eq!(publisher["ice"], "connected");
    assert_eq!(publisher["firstMediaMs"], 12_000);
    assert_eq!(
        [&publisher["localType"], &publisher["remoteType"], &publisher["transport"]],
        ["host", "relay", "udp"]
    );
    // Picture was away for 17 of the 86 seconds since it began, sound for 15 of 85.
    assert_eq!(publisher["noMediaPercent"], 19.77);
    let subscriber = &store.one("subscriberSummary")["quality"];
    assert_eq!(subscriber["ice"], "failed");
    assert_eq!(subscriber["rttMs"], 733.3);
    assert!(subscriber.get("lossPercent").is_none(), "the server does not tell: {subscriber}");
    assert_eq!(subscriber["noMediaPercent"], 100, "nothing came where ICE has failed");

    let session = store.one("sessionSummary");
    assert_eq!(session["quality"]["endpoints"], 2);
    assert_eq!(session["quality"]["iceFailed"], 1);
    assert_eq!(session["quality"]["relayedPercent"], 100);
    assert_eq!(session["quality"]["lossPercent"], 5.63);
    assert_eq!(session["quality"]["rttMs"], 733.3);
    assert_eq!(session["health"], "problems");
}

/// A way was found, and nothing came over it: as where encryption cannot be agreed on.
#[test]
fn media_that_never_came_is_no_healthy_call() {
    let mut lines = call().lines();
    lines.extend([ice("str_A", 3, 1, "CONNECTED"), ice("con_B_str_A", 4, 1, "CONNECTED")]);
    let store = fold(lines.iter().map(String::as_str));
    for kind in ["publisherSummary", "subscriberSummary", "sessionSummary"] {
        assert_eq!(store.one(kind)["quality"]["noMediaPercent"], 100, "{kind}");
    }
    let session = store.one("sessionSummary");
    assert_eq!(session["health"], "problems");
    // What others could not get of her is no trouble of its own.
    assert_eq!(session["problemDetails"].as_array().unwrap().len(), 1, "{session}");
    let told = &session["problemDetails"][0];
    assert_eq!((&told["code"], &told["at"]), (&json!("noMedia"), &json!(START + 2_000)));
    assert!(told["text"].as_str().unwrap().starts_with("Ana’s camera never came"), "{told}");
    // Where she is seen to send, whoever gets nothing is told of.
    lines.push(flow(5, "VIDEO", "FLOWING"));
    let store = fold(lines.iter().map(String::as_str));
    let session = store.one("sessionSummary");
    let told = session["problemDetails"][0]["text"].as_str().unwrap();
    assert!(told.starts_with("What I am con_B received from Ana never came"), "{told}");
}

#[test]
fn each_problem_is_told_in_a_sentence() {
    let lines = troubled();
    let store = fold(lines.iter().map(String::as_str));
    let session = store.one("sessionSummary");
    let details = session["problemDetails"].as_array().unwrap();
    let told: Vec<String> = details
        .iter()
        .map(|detail| {
            format!("{}: {}", detail["code"].as_str().unwrap(), detail["text"].as_str().unwrap())
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
    let of = |code: &str| details.iter().find(|detail| detail["code"] == code).unwrap();
    assert_eq!(
        (&of("mediaGap")["at"], &of("mediaGap")["value"]),
        (&json!(START + 40_000), &json!(17_000))
    );
    assert_eq!(
        (&of("highLoss")["connectionId"], &of("highLoss")["streamId"]),
        (&json!("con_A"), &json!("str_A"))
    );
    let codes: std::collections::BTreeSet<&str> =
        details.iter().map(|detail| detail["code"].as_str().unwrap()).collect();
    assert_eq!(session["problems"], json!(codes));
}

#[test]
fn who_is_cut_off_is_told_with_the_return_and_many_together() {
    let people: Vec<String> = (0..6).map(|at| format!("con_{at}")).collect();
    let mut story = Story::new("s").created();
    for (end, who) in [50, 51, 52, 53, 54, 90].into_iter().zip(&people) {
        story = story.joined(1, who);
        story = story.left(1, end, who, "networkDisconnect");
    }
    // The last of them comes back, and so does one of the others.
    for (who, from) in [("con_back", 60), ("con_again", 94)] {
        story = story.joined(from, who).left(from, 100, who, "disconnect");
    }
    for (first, again, user) in [("con_2", "con_back", "u2"), ("con_5", "con_again", "u5")] {
        story = story.user(2, first, json!(user)).user(95, again, json!(user));
    }
    // What others got of them ended with them, and needs no sentence of its own.
    story = story.stream_end((2, 90), "con_5", "str_5", None, "networkDisconnect").stream_end(
        (61, 90),
        "con_back",
        "str_5",
        Some("con_5"),
        "networkDisconnect",
    );
    let lines = story.destroyed(101, "lastParticipantLeft").lines();
    let plain = fold(lines.iter().map(String::as_str));
    let session = plain.one("sessionSummary");
    assert_eq!(
        session["problemDetails"],
        json!([
            {
                "code": "abnormalEnd", "at": START + 50_000, "value": 5,
                "text": "5 people were cut off at once: the network was lost. They are I am con_0, I am con_1, I am con_2 and 2 more; 1 came back.",
            },
            {
                "code": "abnormalEnd", "at": START + 90_000, "connectionId": "con_5",
                "text": "I am con_5 was cut off: the network was lost. Back after 4 s.",
            },
        ])
    );
    for seed in 0..20 {
        let disturbed = disturbed(&lines, seed);
        let disturbed = fold(disturbed.iter().map(String::as_str));
        assert_eq!(disturbed.summaries(), plain.summaries(), "seed {seed}");
    }
}

#[test]
fn the_order_and_repetition_of_measurements_play_no_part() {
    let mut lines = troubled();
    let plain = fold(lines.iter().map(String::as_str));
    for seed in 0..20 {
        let disturbed = disturbed(&lines, seed);
        let disturbed = fold(disturbed.iter().map(String::as_str));
        assert_eq!(disturbed.summaries(), plain.summaries(), "seed {seed}");
    }
    lines.retain(|line| !line.contains("endpoint"));
    let store = fold(lines.iter().map(String::as_str));
    for kind in ["sessionSummary", "publisherSummary", "subscriberSummary"] {
        assert!(store.one(kind).get("quality").is_none(), "nobody has measured: {kind}");
    }
}

/// A stream that was taken up again has its endpoint's name anew: only the latest of them is described by it.
#[test]
fn of_streams_with_one_id_the_latest_has_the_figures() {
    let mut lines = troubled();
    let again = Story::new("s").stream_end((60, 70), "con_A", "str_A", None, "disconnect");
    lines.extend(again.lines());
    let store = fold(lines.iter().map(String::as_str));
    let mut with: Vec<(i64, bool)> = store
        .of("publisherSummary")
        .into_iter()
        .map(|json| (json["startTime"].as_i64().unwrap(), json.get("quality").is_some()))
        .collect();
    with.sort_unstable();
    assert_eq!(with, [(START + 2_000, false), (START + 60_000, true)]);
}

/// Nothing that a browser or a broken clock sends makes a figure of it.
#[test]
fn absurd_numbers_are_not_believed() {
    let mut lines = call().lines();
    for (at, jitter, rtt, lost, received) in [
        (10, json!(-1), json!(1e300), json!(-5), json!(100)),
        (20, json!(61), json!("0.1"), json!(0), json!(200)),
        (30, json!(1e-9), json!(null), json!(9_223_372_036_854_775_807_i64), json!(-7)),
    ] {
        let fields = json!({ "mediaType": "video", "jitter": jitter, "rtt": rtt, "packetsLost": lost, "packetsReceived": received, "bytesReceived": 1 });
        lines.push(told("con_A", "str_A", at, fields));
    }
    let store = fold(lines.iter().map(String::as_str));
    let quality = &store.one("publisherSummary")["quality"];
    assert_eq!((&quality["jitterMs"], quality.get("rttMs")), (&json!(0), None), "{quality}");
    let loss = quality["lossPercent"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&loss), "{quality}");
}
