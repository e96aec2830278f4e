//! What the fold must do, each numbered behaviour named by a test.

use callscope::sessions::Outcome;
use serde_json::{Value, json};

use crate::story::{START, Story, as_cdr};
use crate::support::{Bench, Store, config, fixture};

fn fold(story: &Story) -> Store {
    crate::support::fold(story.lines().iter().map(String::as_str))
}

fn document<'a>(store: &'a Store, kind: &str, field: &str, value: &str) -> &'a Value {
    let found: Vec<_> = store.of(kind).into_iter().filter(|json| json[field] == value).collect();
    assert_eq!(found.len(), 1, "{kind} {field}={value}: {found:#?}");
    found[0]
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

#[test]
fn b01_b02_b03_all_wire_formats_give_one_event() {
    let story = Story::new("s").of_two();
    for event in &story.events {
        let mut indexed = event.clone();
        indexed["elastic_type"] = json!("cdr");
        indexed["cluster_id"] = json!("c");
        indexed["clusterId"] = json!("c");
        let line = as_cdr(event);
        let logged = format!(
            "[INFO] 2021-03-01 10:00:00,000 [main] io.openvidu.server.cdr.CDRLoggerFile - {line}"
        );
        let pretty = serde_json::to_string_pretty(event).unwrap();
        let mut bench = Bench::new();
        bench.read(&event.to_string()).read(&line).read(&logged).read(&pretty);
        assert_eq!(bench.dead, Vec::<String>::new());
        assert_eq!(bench.store.0.len(), 1, "one document: {:#?}", bench.store);
        assert_eq!(bench.outcomes[1..], [Outcome::Duplicate; 3]);
        bench.read(&indexed.to_string());
        assert_eq!(bench.store.0.len(), 1);
    }
    let real = fixture("samples/2.14-observed.cdrfile.participantJoined.json");
    let mut bench = Bench::new();
    bench.read(&real);
    assert_eq!((bench.dead.len(), bench.store.0.len()), (0, 1));
}

#[test]
fn b04_b05_twins_are_one_connection_id_and_direction_is_none() {
    let mut bench = Bench::new();
    let base = json!({"event":"participantJoined","sessionId":"s","timestamp":START});
    for ids in [
        json!({"participantId":"c"}),
        json!({"connectionId":"c"}),
        json!({"participantId":"c","connectionId":"c"}),
    ] {
        bench.read(&crate::story::merged(base.clone(), ids).to_string());
    }
    assert_eq!(bench.store.one("cdr")["connectionId"], "c");
    let story = Story::old("s").stream(1, "con_A", "str", None).user(2, "con_A", json!("u"));
    let store = fold(&story);
    assert_eq!(
        (&store.one("cdr")["connection"], &store.one("cdr")["connectionId"]),
        (&json!("OUTBOUND"), &json!("con_A"))
    );
    assert_eq!(
        (&store.one("kms")["connection"], &store.one("kms")["connectionId"]),
        (&json!("con_A"), &json!("con_A"))
    );
}

#[test]
fn b06_b07_old_sessions_get_the_unique_id_that_2_17_would_send() {
    let old = fold(&Story::old("s").of_two());
    let new = fold(&Story::new("s").of_two());
    assert_eq!(
        old.one("sessionSummary")["uniqueSessionId"],
        new.one("sessionSummary")["uniqueSessionId"]
    );
    assert_eq!(old.one("sessionSummary")["uniqueSessionId"], format!("s_{START}"));
    for store in [&old, &new] {
        assert_eq!(
            document(store, "cdr", "event", "sessionCreated")["uniqueSessionId"],
            format!("s_{START}")
        );
    }
}

#[test]
fn b08_b09_b33_times_and_durations() {
    let store = fold(&Story::new("s").of_two());
    let session = store.one("sessionSummary");
    assert_eq!(
        (session["createdAt"].as_i64(), session["destroyedAt"].as_i64()),
        (Some(START), Some(START + 80_000))
    );
    assert_eq!(
        (&session["duration"], &session["timestamp"]),
        (&json!(80), &session["destroyedAt"])
    );
    let connection = document(&store, "connectionSummary", "connectionId", "con_A");
    assert_eq!(
        (&connection["createdAt"], &connection["duration"]),
        (&json!(START + 1000), &json!(59))
    );
    assert_eq!(connection["timestamp"], session["destroyedAt"]);
    assert_eq!(store.of("userSummary")[0]["timestamp"], session["destroyedAt"]);
    let publisher = document(&store, "publisherSummary", "connectionId", "con_A");
    assert_eq!(
        (&publisher["startTime"], &publisher["timestamp"]),
        (&json!(START + 2000), &json!(START + 60_000))
    );
    let mut short = Story::new("t").created().destroyed(0, "lastParticipantLeft");
    short.events[1]["timestamp"] = json!(START + 999);
    assert_eq!(fold(&short).one("sessionSummary")["duration"], 0);
    short.events[1]["timestamp"] = json!(START + 82_363);
    assert_eq!(fold(&short).one("sessionSummary")["duration"], 82);
}

#[test]
fn b10_b36_a_recording_keeps_its_fraction_and_takes_its_final_values() {
    let story = Story::new("s")
        .created()
        .recording(1, 1, "started", 0, 0.0)
        .recording(15, 1, "stopped", 0, 0.0);
    let store = fold(
        &story.recording(16, 1, "ready", 1_968_384, 9.734).destroyed(20, "lastParticipantLeft"),
    );
    let recording = store.one("recordingSummary");
    assert_eq!((&recording["duration"], &recording["size"]), (&json!(9.734), &json!(1_968_384)));
    assert_eq!(
        (&recording["timestamp"], &recording["finalStatus"]),
        (&json!(START + 15_000), &json!("ready"))
    );
    assert_eq!(store.one("sessionSummary")["recordings"]["content"][0], *recording);
}

#[test]
fn b11_b12_missing_reasons_and_unknown_ones() {
    let story = Story::new("s").created().joined(1, "con_A").stream(2, "con_A", "str", None);
    let story =
        story.stream_end((2, 3), "con_A", "str", None, "").left(1, 4, "con_A", "").destroyed(5, "");
    let store = fold(&story);
    assert_eq!(store.one("sessionSummary")["reason"], "");
    let connection = store.one("connectionSummary");
    assert_eq!((&connection["reason"], &connection["duration"]), (&json!("NULL"), &json!(3)));
    assert!(store.one("publisherSummary").get("reason").is_none());
    assert!(document(&store, "cdr", "event", "sessionDestroyed").get("reason").is_none());
    let store = fold(&Story::new("s").created().destroyed(5, "invented in 2030"));
    assert_eq!(store.one("sessionSummary")["reason"], "invented in 2030");
    let sentence = "The cluster has too much load";
    let mut bench = Bench::new();
    bench.read(
        &json!({"autoscaling":{"timestamp":START,"clusterId":"c","reason":sentence}}).to_string(),
    );
    assert_eq!(bench.store.one("cdr")["reason"], sentence);
    assert!(!bench.folder.sessions.iter().any(|_| true));
}

#[test]
fn b13_b14_b15_summaries_come_with_the_end_and_copies_are_equal() {
    let story = Story::new("s").of_two();
    let lines = story.lines();
    let mut bench = Bench::new();
    for line in &lines[..lines.len() - 1] {
        bench.read(line).cycle();
        assert!(bench.store.summaries().is_empty());
    }
    bench.read(&lines[lines.len() - 1]);
    assert_eq!(
        document(&bench.store, "cdr", "event", "sessionDestroyed")["reason"],
        "lastParticipantLeft"
    );
    assert!(bench.store.summaries().is_empty(), "the end is there before the summaries");
    bench.cycle();
    assert_eq!(bench.store.summaries().len(), 1 + 2 + 2 + 2 + 2);
    let session = bench.store.one("sessionSummary");
    for user in session["users"]["content"].as_array().unwrap() {
        assert!(bench.store.of("userSummary").contains(&user));
        for connection in user["connections"]["content"].as_array().unwrap() {
            assert!(bench.store.of("connectionSummary").contains(&connection));
            for kind in ["publisher", "subscriber"] {
                for stream in connection[format!("{kind}s")]["content"].as_array().unwrap() {
                    assert!(bench.store.of(&format!("{kind}Summary")).contains(&stream));
                }
            }
        }
    }
}

#[test]
fn b18_b19_streams_lose_the_direction_and_gain_their_owner() {
    let store = fold(&Story::new("s").of_two().user(3, "con_B", json!("BB")));
    let subscriber = document(&store, "subscriberSummary", "connectionId", "con_B");
    for absent in ["participantId", "connection", "event", "createdAt"] {
        assert!(subscriber.get(absent).is_none(), "{absent}");
    }
    assert_eq!(
        (&subscriber["user"], &subscriber["receivingFrom"], &subscriber["streamId"]),
        (&json!("BB"), &json!("con_A"), &json!("str_A"))
    );
    assert!(
        store
            .of("publisherSummary")
            .iter()
            .all(|publisher| publisher.get("receivingFrom").is_none())
    );
}

#[test]
fn b20_b21_b22_published_again_and_subscribed_twice() {
    let story = Story::new("s").created().joined(1, "con_A");
    let story = story.stream_end((2, 3), "con_A", "str_1", None, "unpublish").stream_end(
        (4, 5),
        "con_A",
        "str_2",
        None,
        "unpublish",
    );
    let story = story.stream_end((20, 30), "con_A", "str_X", Some("con_X"), "unsubscribe");
    let story = story
        .stream_end((10, 19), "con_A", "str_X", Some("con_X"), "unsubscribe")
        .destroyed(50, "x");
    let store = fold(&story);
    let connection = store.one("connectionSummary");
    assert_eq!(connection["publishers"]["numberOfElements"], 2);
    assert_eq!(connection["subscribers"]["numberOfElements"], 1);
    assert_eq!(connection["subscribers"]["content"][0]["startTime"], START + 20_000);
    assert_eq!(store.of("subscriberSummary").len(), 2);
}

#[test]
fn b23_the_first_end_of_a_stream_counts_in_any_order() {
    let story = Story::new("s").created().joined(1, "con_A").destroyed(90, "x");
    let first = (2, 10);
    for ends in [[first, (2, 60)], [(2, 60), first]] {
        let mut story = Story { events: story.events.clone(), ..Story::new("s") };
        for end in ends {
            story = story.stream_end(end, "con_A", "str", Some("con_B"), "disconnect");
        }
        assert_eq!(fold(&story).one("subscriberSummary")["duration"], 8);
    }
}

#[test]
fn b24_b25_what_never_ended() {
    let store = fold(
        &Story::new("s")
            .created()
            .joined(5, "con_A")
            .stream(6, "con_A", "str", None)
            .destroyed(9, "nodeCrashed"),
    );
    assert!(store.of("publisherSummary").is_empty());
    let connection = store.one("connectionSummary");
    assert_eq!(connection["createdAt"], START + 4_999);
    assert_eq!(connection["destroyedAt"], START + 5_000);
    assert_eq!((&connection["duration"], &connection["reason"]), (&json!(0), &json!("NULL")));
}

#[test]
fn b26_b53_sessions_without_people() {
    let store = fold(&Story::new("s").created().destroyed(5, "sessionClosedByServer"));
    let session = store.one("sessionSummary");
    for list in ["users", "recordings"] {
        assert_eq!(session[list], json!({"numberOfElements":0,"content":[]}));
    }
    for story in [Story::new("s").created(), Story::old("s").created()] {
        assert!(fold(&story).summaries().is_empty());
    }
}

#[test]
fn b27_a_stream_end_after_the_leave_counts() {
    let story = Story::new("s").created().joined(1, "con_A").left(1, 9, "con_A", "disconnect");
    let story = story
        .stream_end((2, 10), "con_A", "str", None, "disconnect")
        .destroyed(11, "lastParticipantLeft");
    assert_eq!(fold(&story).one("connectionSummary")["publishers"]["numberOfElements"], 1);
    let late = story.stream_end((3, 12), "con_A", "str_2", None, "disconnect");
    assert_eq!(fold(&late).one("connectionSummary")["publishers"]["numberOfElements"], 2);
}

#[test]
fn b28_b29_b30_users() {
    let mut story =
        Story::new("s").created().joined(1, "con_A").joined(2, "con_B").joined(3, "con_C");
    story.events[2]["location"] = json!("Lyon, France");
    let story = story.user(4, "con_A", json!("U")).user(5, "con_B", json!("U")).destroyed(9, "x");
    let store = fold(&story);
    assert_eq!(store.one("sessionSummary")["users"]["numberOfElements"], 2);
    let user = document(&store, "userSummary", "id", "U");
    assert_eq!(user["connections"]["numberOfElements"], 2);
    assert_eq!(
        (&user["location"], &user["userIdSource"]),
        (&json!("Rome, Italy"), &json!("event"))
    );
    let own = document(&store, "userSummary", "id", "con_C");
    assert_eq!(own["userIdSource"], "connection");
    assert_eq!(store.of("superseded").len(), 1, "in the slot of the user's second connection");
    let both: Vec<String> = story
        .lines()
        .into_iter()
        .chain(Story::new("t").of_two().user(1, "con_A", json!("U")).lines())
        .collect();
    let store = crate::support::fold(both.iter().map(String::as_str));
    assert_eq!(store.of("userSummary").into_iter().filter(|user| user["id"] == "U").count(), 2);
}

#[test]
fn two_users_of_one_connection_are_the_smaller_one() {
    let story = Story::new("s").created().joined(1, "con_A").user(2, "con_A", json!("Z")).user(
        1,
        "con_A",
        json!("B"),
    );
    assert_eq!(fold(&story.destroyed(9, "x")).one("userSummary")["id"], "B");
}

#[test]
fn b31_ip_cameras() {
    let con = "ipc_IPCAM_rtsp_A8MJ_93_184_216_34_554_live";
    let mut story = Story::new("s").created().joined(1, con).stream_end(
        (2, 9),
        con,
        "str_IPC",
        None,
        "forceDisconnectByServer",
    );
    story.events[1]["platform"] = json!("IPCAM");
    story.events[1]["clientData"] = json!("");
    for (name, value) in [
        ("rtspUri", json!("rtsp://admin:secret@93.184.216.34:554/live")),
        ("videoFramerate", Value::Null),
        ("videoDimensions", Value::Null),
        ("adaptativeBitrate", json!(true)),
    ] {
        story.events[2][name] = value;
    }
    let left = json!({ "connectionId": con, "reason": "networkDisconnect" });
    let story = story.user(3, con, json!(con)).tell("participantLeft", 8, left);
    let store = fold(&story.destroyed(9, "x"));
    assert_eq!(store.one("userSummary")["id"], con);
    assert_eq!(store.one("userSummary")["client"]["device"], "ipcam");
    let told = store.one("sessionSummary")["problemDetails"][0]["text"].as_str().unwrap();
    assert!(told.starts_with("An IP camera was cut off"), "its address helps nobody: {told}");
    let publisher = store.one("publisherSummary");
    assert_eq!(
        (&publisher["rtspUri"], &publisher["adaptativeBitrate"]),
        (&json!("rtsp://93.184.216.34:554/live"), &json!(true))
    );
    assert!(publisher.get("videoFramerate").is_none());
    assert!(!format!("{store:?}").contains("secret"));
}

#[test]
fn b32_internal_participants_are_nobody() {
    let story = Story::new("s").created().joined(1, "con_A").user(2, "RECORDER", Value::Null).user(
        2,
        "SPEECH_TO_TEXT",
        json!("x"),
    );
    let store = fold(&story.destroyed(9, "x"));
    assert_eq!(store.of("kms").len(), 2);
    assert_eq!((store.of("userSummary").len(), store.of("connectionSummary").len()), (1, 1));
}

#[test]
fn b34_b35_a_call_of_two() {
    let store = fold(&Story::new("s").of_two());
    let count =
        |name: &str| store.of("cdr").into_iter().filter(|json| json["event"] == name).count();
    let counts = [
        "participantJoined",
        "participantLeft",
        "webrtcConnectionCreated",
        "webrtcConnectionDestroyed",
        "sessionCreated",
        "sessionDestroyed",
    ]
    .map(count);
    assert_eq!(counts, [2, 2, 4, 4, 1, 1]);
    assert_eq!(store.one("sessionSummary")["reason"], "lastParticipantLeft");
    assert_eq!(
        document(&store, "connectionSummary", "connectionId", "con_A")["reason"],
        "disconnect"
    );
    assert_eq!(document(&store, "connectionSummary", "connectionId", "con_B")["abnormal"], true);
    assert_eq!(store.one("sessionSummary")["problems"], json!(["abnormalEnd"]));
    assert_eq!(store.one("sessionSummary")["streamedSeconds"], 49 + 47 + 58 + 68);
}

#[test]
fn b37_a_recording_that_is_ready_after_the_end_rewrites_both_copies() {
    let story = Story::new("s")
        .created()
        .recording(1, 1, "started", 0, 0.0)
        .recording(15, 1, "stopped", 0, 0.0)
        .destroyed(15, "automaticStop");
    let lines = story.lines();
    let mut bench = Bench::new();
    lines.iter().for_each(|line| _ = bench.read(line).cycle());
    assert_eq!(bench.store.one("recordingSummary")["finalStatus"], "none");
    let late = Story::new("s").recording(600, 1, "ready", 99, 12.5).lines();
    bench.read(&late[0]).cycle();
    let recording = bench.store.one("recordingSummary");
    assert_eq!(
        (&recording["size"], &recording["duration"], &recording["finalStatus"]),
        (&json!(99), &json!(12.5), &json!("ready"))
    );
    assert_eq!(bench.store.one("sessionSummary")["recordings"]["content"][0], *recording);
    assert_eq!(
        bench.store.of("cdr").into_iter().find(|json| json["status"] == "ready").unwrap()["processingMs"],
        585_000
    );
}

#[test]
fn b38_b39_b41_recordings_that_fail() {
    let odd = Story::new("s")
        .created()
        .recording(5, 1, "stopped", 0, 0.0)
        .recording(1, 1, "started", 0, 0.0)
        .recording(6, 1, "failed", 0, 0.0)
        .destroyed(9, "x");
    let store = fold(&odd);
    assert_eq!(store.one("recordingSummary")["finalStatus"], "failed");
    assert_eq!(store.one("sessionSummary")["problems"], json!(["recordingFailed"]));
    let alone = Story::new("s")
        .created()
        .recording(1, 1, "failed", 0, 0.0)
        .recording(2, 1, "ready", 1, 1.0)
        .destroyed(9, "x");
    assert!(fold(&alone).of("recordingSummary").is_empty());
    let lost = Story::new("s")
        .created()
        .recording(1, 1, "started", 0, 0.0)
        .recording(5, 1, "stopped", 0, 0.0)
        .destroyed(9, "nodeCrashed");
    let store = fold(&lost);
    assert_eq!(
        (&store.one("recordingSummary")["size"], &store.one("recordingSummary")["finalStatus"]),
        (&json!(0), &json!("none"))
    );
}

#[test]
fn b40_both_names_of_a_recording_event_are_one() {
    let mut story = Story::old("s")
        .created()
        .recording(1, 1, "started", 0, 0.0)
        .recording(5, 1, "stopped", 0, 0.0);
    for (index, name) in [(1, "recordingStarted"), (2, "recordingStopped")] {
        let mut twin = story.events[index].clone();
        twin["event"] = json!(name);
        twin.as_object_mut().unwrap().remove("status");
        if index == 1 {
            twin.as_object_mut().unwrap().remove("startTime");
        }
        story.events.push(twin);
    }
    let store = fold(&story.destroyed(9, "x"));
    assert_eq!(store.of("recordingSummary").len(), 1);
    let raw = store
        .of("cdr")
        .into_iter()
        .filter(|json| json["event"].as_str().unwrap().starts_with("recording"))
        .count();
    assert_eq!(raw, 2);
}

#[test]
fn b42_a_replaced_media_server_ends_streams_only() {
    let story = Story::new("s").created().joined(1, "con_A").stream_end(
        (2, 5),
        "con_A",
        "str_1",
        None,
        "mediaServerReconnect",
    );
    let story = story
        .stream_end((6, 9), "con_A", "str_2", None, "disconnect")
        .left(1, 9, "con_A", "disconnect")
        .destroyed(9, "lastParticipantLeft");
    let store = fold(&story);
    assert_eq!(store.one("connectionSummary")["publishers"]["numberOfElements"], 2);
    assert_eq!(store.one("connectionSummary")["duration"], 8);
}

#[test]
fn b43_b44_the_same_id_again_is_another_session() {
    for story in [Story::new, Story::old] {
        let first = story("s")
            .created()
            .joined(1, "con_A")
            .recording(2, 2, "stopped", 1, 1.0)
            .destroyed(9, "x");
        let second = story("s")
            .at(START + 10_000)
            .created()
            .joined(1, "con_B")
            .recording(2, 2, "stopped", 2, 2.0)
            .destroyed(9, "y");
        let mut lines = second.lines();
        lines.extend(first.lines());
        let store = crate::support::fold(lines.iter().map(String::as_str));
        assert_eq!(store.of("sessionSummary").len(), 2);
        assert_eq!(store.of("recordingSummary").len(), 2);
        for (reason, connection) in [("x", "con_A"), ("y", "con_B")] {
            let session = document(&store, "sessionSummary", "reason", reason);
            assert_eq!(session["users"]["numberOfElements"], 1);
            assert_eq!(
                session["users"]["content"][0]["connections"]["content"][0]["connectionId"],
                connection
            );
            assert_eq!(session["recordings"]["numberOfElements"], 1);
        }
    }
}

#[test]
fn b45_b47_repetition_changes_nothing() {
    let lines = Story::new("s").of_two().lines();
    let once = crate::support::fold(lines.iter().map(String::as_str));
    let five =
        crate::support::fold(lines.iter().flat_map(|line| std::iter::repeat_n(line.as_str(), 5)));
    assert_eq!(once, five);
}

#[test]
fn b46_order_does_not_matter() {
    let mut lines = Story::new("s").of_two().user(3, "con_A", json!("U")).lines();
    let once = crate::support::fold(lines.iter().map(String::as_str));
    lines.reverse();
    assert_eq!(
        once.summaries(),
        crate::support::fold(lines.iter().map(String::as_str)).summaries()
    );
}

#[test]
fn b48_signals() {
    let signal = |data: &str| {
        Story::new("s")
            .tell(
                "signalSent",
                5,
                json!({"from":null,"to":["con_A","con_B"],"type":"chat","data":data}),
            )
            .lines()
    };
    let mut bench = Bench::new();
    bench.read(&signal("a")[0]).read(&signal("b")[0]).read(&signal("a")[0]);
    assert_eq!(bench.store.of("cdr").len(), 2);
    let document = bench.store.of("cdr")[0];
    assert!(document.get("from").is_none());
    assert_eq!(document["to"], json!(["con_A", "con_B"]));
}

#[test]
fn b49_b50_b66_cluster_events_and_unknown_ones_pass() {
    let mut config = config();
    config.sources.get_mut("default").unwrap().cluster_id = Some("mine".into());
    config.sources.get_mut("default").unwrap().master_node_id = Some("master_1".into());
    let mut bench = Bench::with(config);
    bench.read(&json!({"event":"mediaNodeStatusChanged","timestamp":START,"id":"media_1","newStatus":"running","oldStatus":null,"ip":"172.17.0.3","clusterId":"theirs"}).to_string());
    bench.read(&json!({"event":"invented","timestamp":START,"sessionId":"s","deep":{"a":[1,{"b":null}]},"new":7}).to_string());
    assert_eq!(bench.outcomes, [Outcome::Passed; 2]);
    let node = document(&bench.store, "cdr", "event", "mediaNodeStatusChanged");
    assert_eq!(
        (&node["clusterId"], &node["cluster_id"], &node["master_node_id"]),
        (&json!("theirs"), &json!("mine"), &json!("master_1"))
    );
    let unknown = document(&bench.store, "cdr", "event", "invented");
    assert_eq!(
        (&unknown["new"], &unknown["unindexed"]),
        (&json!(7), &json!({"deep":{"a":[1,{}]}}))
    );
}

#[test]
fn b51_b52_b54_missing_starts_and_ends() {
    let story = Story::new("s").of_two();
    let only_ends: Vec<String> = story
        .events
        .iter()
        .filter(|event| event.get("startTime").is_some())
        .map(Value::to_string)
        .collect();
    let whole = fold(&story);
    let ends = crate::support::fold(only_ends.iter().map(String::as_str));
    assert_eq!(ends.one("sessionSummary"), whole.one("sessionSummary"));
    let store = fold(&Story::new("s").joined(1, "con_A").left(1, 5, "con_A", "disconnect"));
    let session = store.one("sessionSummary");
    assert_eq!(
        (&session["closedBy"], &session["reason"], &session["createdAt"]),
        (&json!("silence"), &json!(""), &json!(START))
    );
    assert_eq!(session["destroyedAt"], START + 5_000);
    // Without a start in its id, a session is known only by its people until a start comes.
    let guessed = Story::old("s").joined(1, "con_A").left(1, 5, "con_A", "disconnect");
    let store = fold(&guessed);
    assert!(store.of("sessionSummary").is_empty());
    assert_eq!(store.one("connectionSummary")["startGuessed"], true);
    let store = fold(&guessed.created());
    assert_eq!(store.one("sessionSummary")["users"]["numberOfElements"], 1);
    assert!(store.one("connectionSummary").get("startGuessed").is_none());
}

#[test]
fn b55_b56_places() {
    let mut story = Story::new("s").created().joined(1, "con_A").destroyed(9, "x");
    story.events[1]["location"] = json!("unknown");
    story.events[1]["ip"] = json!("10.0.0.1");
    let store = fold(&story);
    let user = store.one("userSummary");
    assert_eq!(user["location"], "unknown");
    assert!(user.get("geo").is_none() && user.get("geoPoints").is_none());

    let mut bench = Bench::new();
    bench.folder.set_geoip(std::sync::Arc::new(geoip()));
    story.events[1]["ip"] = json!("93.184.216.34");
    story.lines().iter().for_each(|line| _ = bench.read(line));
    bench.cycle();
    for document in [
        bench.store.one("userSummary"),
        bench.store.one("connectionSummary"),
        document(&bench.store, "cdr", "event", "participantJoined"),
    ] {
        assert_eq!(
            (&document["location"], &document["geoPoints"]),
            (&json!("Mumbai, India"), &json!("19.09,72.87"))
        );
        assert_eq!(
            (&document["geo"]["countryCode"], &document["ip"]),
            (&json!("IN"), &json!("93.184.216.34"))
        );
    }
    // What the platform knew itself is kept.
    let mut bench = Bench::new();
    bench.folder.set_geoip(std::sync::Arc::new(geoip()));
    story.events[1]["location"] = json!("Rome, Italy");
    story.events[1]["geoPoints"] = json!("41.9,12.5");
    story.lines().iter().for_each(|line| _ = bench.read(line));
    let joined = document(&bench.store, "cdr", "event", "participantJoined").clone();
    assert_eq!(
        (&joined["location"], &joined["geoPoints"]),
        (&json!("Rome, Italy"), &json!("41.9,12.5"))
    );
    // So it stays when the document is read again, by one who has no database.
    let again = crate::support::fold_once([&*joined.to_string()]);
    assert_eq!(again.one("cdr")["location"], "Rome, Italy");
    assert_eq!(again.one("cdr")["geoPoints"], "41.9,12.5");
}

/// A database that knows one city.
fn geoip() -> callscope::enrich::place::GeoIp {
    use mmdb_writer::{IpVersion, Value as Data, Writer};
    let names = |name: &str| Data::map([("names", Data::map([("en", Data::from(name))]))]);
    let country = Data::map([
        ("iso_code", Data::from("IN")),
        ("names", Data::map([("en", Data::from("India"))])),
    ]);
    let point =
        Data::map([("latitude", Data::from(19.09_f64)), ("longitude", Data::from(72.87_f64))]);
    let place = Data::map([("city", names("Mumbai")), ("country", country), ("location", point)]);
    let mut writer = Writer::builder("GeoLite2-City").ip_version(IpVersion::V4).build();
    writer
        .insert_range("93.184.216.0".parse().unwrap(), "93.184.216.255".parse().unwrap(), &place)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("city.mmdb");
    std::fs::write(&path, writer.to_bytes().unwrap()).unwrap();
    callscope::enrich::place::GeoIp::open(&[path]).unwrap()
}

#[test]
fn b57_b58_b59_fields_of_two_shapes() {
    let mut bench = Bench::new();
    bench.read(&fixture("samples/2.9-kms.json"));
    assert_eq!(bench.store.one("kms")["streamId"], 1);
    let mut story = Story::new("s")
        .created()
        .joined(1, "con_A")
        .stream_end((2, 5), "con_A", "str", None, "unpublish")
        .destroyed(9, "x");
    assert_eq!(fold(&story).one("publisherSummary")["videoWidth"], 640);
    story.events[2]["videoDimensions"] = json!("{broken");
    let store = fold(&story);
    assert_eq!(store.one("publisherSummary")["videoDimensions"], "{broken");
    assert!(store.one("publisherSummary").get("videoWidth").is_none());
    story.events[2]["videoDimensions"] = json!({"width": 1});
    let store = fold(&story);
    assert_eq!(
        document(&store, "cdr", "event", "webrtcConnectionDestroyed")["malformed"],
        json!({"videoDimensions":{"width":1}})
    );
}

#[test]
fn b60_b62_latin_1_and_numeric_ids() {
    let mut body = Story::new("897")
        .joined(1, "con_A")
        .lines()
        .remove(0)
        .replace("I am con_A", "Jos\u{e9}")
        .into_bytes();
    let at = body.windows(2).position(|pair| pair == "\u{e9}".as_bytes()).unwrap();
    body.splice(at..at + 2, [0xe9]);
    let mut bench = Bench::new();
    bench.read_from("default", &body);
    let joined = bench.store.one("cdr");
    assert_eq!((&joined["clientData"], &joined["sessionId"]), (&json!("José"), &json!("897")));
    bench.read(&json!({"event":"sessionCreated","sessionId":897,"timestamp":START}).to_string());
    assert_eq!(document(&bench.store, "cdr", "event", "sessionCreated")["sessionId"], "897");
}

#[test]
fn b61_is_what_the_webhook_answers() {
    // The status codes are tested over HTTP; here, that nothing after the answer depends on the body being an event.
    let mut bench = Bench::new();
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "{\"event\":7}",
        "\u{0}",
        "{\"a\":",
        "{\"event\":\"x\",\"timestamp\":\"soon\"}",
    ] {
        bench.read(body);
    }
    assert_eq!((bench.dead.len(), bench.store.0.len()), (8, 0));
}

#[test]
fn b63_b64_telemetry_of_both_generations() {
    let mut bench = Bench::new();
    for name in ["2.17-observed.webrtcStats-inbound", "2.17-observed.webrtcStats-outbound"] {
        bench.read(&fixture(&format!("samples/{name}.json")));
    }
    let stats = bench.store.of("webrtcStats");
    let roles: std::collections::BTreeSet<_> =
        stats.iter().map(|json| json["mediaRole"].as_str().unwrap()).collect();
    assert_eq!(roles.into_iter().collect::<Vec<_>>(), ["publisher", "subscriber"]);
    assert!(
        stats.iter().any(|json| json.get("jitterMs").is_some())
            && stats.iter().any(|json| json.get("rttMs").is_some())
    );
    for name in ["IceComponentStateChange", "IceComponentStateChanged"] {
        let mut story = Story::new("s").created().joined(1, "con_A").user(2, "con_A", json!("U"));
        story.events[2]["type"] = json!(name);
        story.events[2]["state"] = json!("FAILED");
        let store = fold(&story.destroyed(9, "x"));
        assert_eq!(
            (&store.one("sessionSummary")["health"], &store.one("sessionSummary")["problems"]),
            (&json!("problems"), &json!(["iceFailed"]))
        );
    }
}

#[test]
fn b65_broken_autoscaling_is_kept_as_a_letter_and_its_neighbours_live() {
    let mut bench = Bench::new();
    bench
        .read(r#"{"autoscaling":{"timestamp":1600000000000,"system":{"status":{"avgLoad":NaN}}}}"#)
        .read(&Story::new("s").created().lines()[0]);
    assert_eq!((bench.dead.len(), bench.store.0.len()), (1, 1));
    assert!(bench.dead[0].contains("not JSON"), "{:?}", bench.dead);
}

#[test]
fn every_documented_sample_is_an_event_or_a_summary() {
    let folder =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/samples")).unwrap();
    for entry in folder {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut bench = Bench::new();
        bench.read(&std::fs::read_to_string(&path).unwrap());
        // Templates are no events, a sample of 2.9 lost its `elastic_type`.
        let is_none = name.contains("template")
            || name == "2.9-sessionSummary.json"
            || name.contains("2.9-subscriberSummary.v2");
        assert!(bench.dead.is_empty() || is_none, "{name}: {:?}", bench.dead);
    }
}

#[test]
fn a_closed_session_takes_late_facts_and_then_nothing() {
    for story in [Story::new, Story::old] {
        let mut bench = Bench::new();
        for line in story("s").of_two().lines() {
            bench.read(&line);
        }
        bench.cycle();
        let end = START + 80_000;
        bench.expire(end + HOUR - 1000);
        let late = story("s").stream_end((20, 50), "con_A", "str_late", None, "unpublish").lines();
        bench.read(&late[0]).cycle();
        assert_eq!(bench.outcomes.last(), Some(&Outcome::Folded));
        assert_eq!(bench.store.of("publisherSummary").len(), 3);
        bench.expire(end + 3 * HOUR).restart();
        assert_eq!(bench.saved(), 1, "a marker of a few bytes remains");
        let before = bench.store.clone();
        let later =
            story("s").stream_end((21, 51), "con_A", "str_later", None, "unpublish").lines();
        bench.read(&later[0]).cycle();
        assert_eq!(bench.outcomes.last(), Some(&Outcome::Late));
        assert_eq!(bench.store.summaries(), before.summaries());
        bench.expire(end + 9 * DAY);
        assert_eq!(bench.saved(), 0, "even the marker is forgotten");
    }
}

#[test]
fn a_silent_session_is_written_and_a_real_end_outranks_that() {
    let mut bench = Bench::new();
    for line in Story::new("s").created().joined(1, "con_A").lines() {
        bench.read(&line);
    }
    bench.cycle().expire(START + DAY - 1000);
    assert!(bench.store.summaries().is_empty());
    bench.expire(START + DAY + 2000);
    assert_eq!(bench.store.one("sessionSummary")["closedBy"], "silence");
    bench.restart();
    for line in Story::new("s")
        .left(1, 90_000, "con_A", "disconnect")
        .destroyed(90_000, "lastParticipantLeft")
        .lines()
    {
        bench.read(&line);
    }
    bench.cycle();
    let session = bench.store.one("sessionSummary");
    assert!(session.get("closedBy").is_none());
    assert_eq!(
        (&session["duration"], &session["reason"]),
        (&json!(90_000), &json!("lastParticipantLeft"))
    );
}

#[test]
fn too_many_entities_are_cut_and_counted() {
    let mut config = config();
    config.sessions.entities_max = std::num::NonZeroUsize::new(5).unwrap();
    config.sessions.nested_max = 3;
    let mut bench = Bench::with(config);
    let mut story = Story::new("s").created();
    for second in (1..=9).rev() {
        story = story.joined(second, &format!("con_{second}"));
    }
    for line in story.destroyed(20, "x").lines() {
        bench.read(&line);
    }
    bench.cycle();
    let session = bench.store.one("sessionSummary");
    assert_eq!((&session["truncated"], &session["contentOmitted"]), (&json!(true), &json!(true)));
    assert_eq!(session["users"], json!({"numberOfElements":5,"content":[]}));
    let kept: std::collections::BTreeSet<_> = bench
        .store
        .of("connectionSummary")
        .into_iter()
        .map(|json| json["connectionId"].as_str().unwrap())
        .collect();
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), ["con_1", "con_2", "con_3", "con_4", "con_5"]);
}

#[test]
fn long_texts_are_cut_in_summaries_and_whole_in_events() {
    let long = "é".repeat(5000);
    let mut story = Story::new("s").created().joined(1, "con_A").destroyed(9, "x");
    story.events[1]["clientData"] = json!(long);
    let store = fold(&story);
    assert_eq!(document(&store, "cdr", "event", "participantJoined")["clientData"], long);
    assert_eq!(store.one("connectionSummary")["clientData"].as_str().unwrap().len(), 4096);
    assert_eq!(store.one("sessionSummary")["truncated"], true);
}

#[test]
fn media_gaps_and_losses_are_problems() {
    let flow = |at: i64, state: &str| {
        let mut story = Story::new("s").user(at, "con_A", json!("U"));
        let event = &mut story.events[0];
        event["endpoint"] = json!("str_A");
        event["type"] = json!("MediaFlowInStateChange");
        event["mediaType"] = json!("VIDEO");
        event["state"] = json!(state);
        event.to_string()
    };
    let base = Story::new("s")
        .created()
        .joined(1, "con_A")
        .stream_end((2, 60), "con_A", "str_A", None, "disconnect")
        .left(1, 60, "con_A", "disconnect")
        .destroyed(60, "x");
    let with = |flows: &[(i64, &str)]| {
        let mut lines = base.lines();
        lines.extend(flows.iter().map(|(at, state)| flow(*at, state)));
        let store = crate::support::fold(lines.iter().map(String::as_str));
        let session = store.one("sessionSummary");
        (session["health"].as_str().unwrap().to_owned(), session["problems"].clone(), store)
    };
    assert_eq!(with(&[(3, "FLOWING")]).0, "healthy");
    assert_eq!(
        with(&[(3, "FLOWING"), (20, "NOT_FLOWING"), (25, "FLOWING")]).1,
        json!(["mediaGap"])
    );
    assert_eq!(with(&[(3, "FLOWING"), (20, "NOT_FLOWING")]).1, json!(["mediaLost"]));
    assert_eq!(with(&[(3, "FLOWING"), (59, "NOT_FLOWING")]).0, "healthy");
    let (_, _, store) = with(&[(3, "FLOWING"), (20, "NOT_FLOWING"), (25, "FLOWING")]);
    let raw = store.of("kms");
    assert!(
        raw.iter().any(|json| json["firstMedia"] == true)
            && raw.iter().any(|json| json["notFlowingMs"] == 5000)
    );
    assert!(raw.iter().all(|json| json["client"]["browser"] == "Chrome"), "joined by connection");
}

#[test]
fn documents_that_were_read_back_are_the_same_events() {
    for story in [Story::new, Story::old] {
        let mut story = story("s").of_two().recording(6, 6, "started", 0, 0.0);
        let last = story.events.last_mut().unwrap();
        last["media_node_id"] = json!("media_1");
        let first =
            fold(&story.recording(8, 6, "stopped", 0, 0.0).recording(9, 6, "ready", 5, 2.0));
        let raw = first.of("cdr").into_iter().map(Value::to_string);
        let again = crate::support::fold_once(raw.collect::<Vec<_>>().iter().map(String::as_str));
        assert_eq!(first.summaries(), again.summaries());
        assert_eq!(first.0.keys().collect::<Vec<_>>(), again.0.keys().collect::<Vec<_>>());
    }
}

#[test]
fn what_was_looked_up_and_what_was_cut_out_make_no_other_event() {
    let mut story = Story::new("s").of_two();
    for event in &mut story.events {
        if event.get("ip").is_some() {
            event["ip"] = json!("93.184.216.34");
            event["location"] = json!("unknown");
        }
        if event.get("streamId").is_some() {
            event["rtspUri"] = json!("rtsp://user:secret@camera/stream?password=x");
        }
    }
    let with_places = || {
        let mut bench = Bench::new();
        bench.folder.set_geoip(std::sync::Arc::new(geoip()));
        bench
    };
    let mut bench = with_places();
    story.lines().iter().for_each(|line| _ = bench.read(line));
    let raw: Vec<String> = bench.store.of("cdr").into_iter().map(Value::to_string).collect();
    assert!(raw.iter().any(|json| json.contains("locationDerived")), "{raw:?}");
    let first = bench.finish().clone();

    let read = |mut bench: Bench, lines: Vec<String>| {
        lines.iter().for_each(|line| _ = bench.read(line));
        bench.finish().clone()
    };
    let lines = story.lines();
    assert_eq!(read(with_places(), raw.clone()).summaries(), first.summaries());
    assert_eq!(
        read(with_places(), [raw.clone(), lines.clone()].concat()).summaries(),
        first.summaries()
    );
    // Without the databases nothing is known, whoever came first.
    let nowhere = read(Bench::new(), lines.clone());
    for order in [[raw.clone(), lines.clone()], [lines, raw]] {
        assert_eq!(read(Bench::new(), order.concat()).summaries(), nowhere.summaries());
    }

    // What was set aside although something was looked up in its place is still there.
    let mut odd = Story::new("s").joined(1, "con_A").events.remove(0);
    odd["ip"] = json!("93.184.216.34");
    odd["location"] = json!(["x"]);
    odd["geoPoints"] = json!("nowhere");
    odd["a.b"] = json!("1e400");
    let mut bench = with_places();
    bench.read(&odd.to_string());
    let once = bench.raw[0].clone();
    bench.read(&once);
    let [once, again] =
        [&once, &bench.raw[1]].map(|raw| serde_json::from_str::<Value>(raw).unwrap());
    assert_eq!(again, once);
    assert_eq!(once["malformed"], json!({"location": ["x"], "geoPoints": "nowhere"}));
    assert_eq!(once["location"], "Mumbai, India");
}

#[test]
fn a_cluster_id_beside_the_own_one_makes_no_other_document() {
    for event in [
        json!({"event":"nodeCrashed","id":"media_1","timestamp":START,"nodeRole":"medianode"}),
        json!({"elastic_type":"monitoringStats","cpu":1.5,"timestamp":START}),
    ] {
        let mut indexed = event.clone();
        if indexed.get("elastic_type").is_none() {
            indexed["elastic_type"] = json!("cdr");
        }
        indexed["clusterId"] = json!("c");
        indexed["cluster_id"] = json!("c");
        let mut bench = Bench::new();
        bench.read(&event.to_string()).read(&indexed.to_string());
        assert_eq!(bench.store.0.len(), 1, "{event}");
    }
}

#[test]
fn starts_that_cannot_be_make_no_index_and_no_panic() {
    let told = |unique: &str, start: Value| {
        json!({"event":"sessionDestroyed","sessionId":"x","uniqueSessionId":unique,"timestamp":START,"startTime":start})
            .to_string()
    };
    for start in ["4102444800000", "8000000000000000", "5", "-62135596800000"] {
        let mut bench = Bench::new();
        bench.read(&told(&format!("x_{start}"), json!(START)));
        assert!(bench.dead[0].contains("uniqueSessionId"), "{:?}", bench.dead);
    }
    for start in [json!(i64::MIN), json!(i64::MAX), json!(5), json!("soon"), json!(1e300)] {
        for old in [told(&format!("x_{START}"), start.clone()), told("", start.clone())] {
            let mut bench = Bench::new();
            bench.read(&old).finish();
            assert_eq!(bench.dead, Vec::<String>::new());
            assert!(bench.store.0.values().all(|stored| stored.index_time == START));
        }
    }
    let mut bench = Bench::new();
    bench.read(r#"{"event":"x","timestamp":9000000000000}"#);
    assert!(bench.dead[0].contains("after 2100"));
}

#[test]
fn equal_numbers_are_written_alike_in_any_order() {
    let stream = |rate: &str| {
        Story::new("s").stream(1, "con_A", "str_A", None).lines()[0]
            .replace("\"videoFramerate\":30", &format!("\"videoFramerate\":{rate}"))
    };
    let end = Story::new("s").stream_end((1, 9), "con_A", "str_A", None, "unpublish");
    let whole = |first: &str, second: &str| {
        let end = end.lines().remove(0);
        let closing = Story::new("s").destroyed(10, "lastParticipantLeft").lines().remove(0);
        crate::support::fold_once([first, second, &end, &closing])
    };
    let (whole_number, fraction) = (stream("30"), stream("30.0"));
    let store = whole(&whole_number, &fraction);
    assert_eq!(store.summaries(), whole(&fraction, &whole_number).summaries());
    assert_eq!(store.one("publisherSummary")["videoFramerate"].to_string(), "30");
}

#[test]
fn the_user_of_telemetry_has_no_time() {
    let told = |at: i64| Story::new("s").user(at, "con_A", json!("U")).lines().remove(0);
    let joined = Story::new("s").joined(50, "con_A").lines().remove(0);
    let one = crate::support::fold_once([&*joined, &told(100), &told(200)]);
    let other = crate::support::fold_once([&*joined, &told(200), &told(100)]);
    assert_eq!(one.summaries(), other.summaries());
    assert_eq!(one.one("sessionSummary")["destroyedAt"], START + 50_000);
}

#[test]
fn what_the_settings_drop_is_nowhere() {
    let mut config = config();
    let dropped = [
        "ip",
        "location",
        "platform",
        "client",
        "geo",
        "geoPoints",
        "reason",
        "user",
        "receivingFrom",
    ];
    config.privacy.drop_fields = dropped.map(str::to_owned).to_vec();
    let mut bench = Bench::with(config);
    let story = Story::new("s").user(5, "con_A", json!("U")).of_two();
    for line in story.lines() {
        bench.read(&line);
    }
    let store = bench.finish();
    for stored in store.0.values() {
        let text = stored.json.to_string();
        for name in dropped.iter().filter(|name| !["user", "reason"].contains(name)) {
            assert!(!text.contains(&format!("\"{name}\":")), "{name}: {text}");
        }
        for value in ["\"U\"", "Rome", "Chrome", "93.184", "disconnect"] {
            assert!(!text.contains(value), "{value}: {text}");
        }
    }
}

#[test]
fn an_event_cannot_bring_what_is_made_for_it() {
    let mut joined = Story::new("s").joined(1, "con_A").events.remove(0);
    joined["joinDelta"] = json!(5);
    joined["tenant"] = json!("evil");
    let mut kms = Story::new("s").user(2, "con_A", json!("u")).events.remove(0);
    kms.as_object_mut().unwrap().remove("elastic_type");
    kms["geoPoints"] = json!("1,2");
    kms["mediaRole"] = json!("emperor");
    let mut bench = Bench::new();
    for event in [joined, kms] {
        bench.read(&event.to_string());
    }
    // `Store::put` sees that no member comes twice.
    assert_eq!(bench.store.one("cdr")["malformed"], json!({"joinDelta": 5, "tenant": "evil"}));
    assert_eq!(bench.store.one("cdr")["joinDelta"], 1);
    assert_eq!(bench.store.one("kms")["geoPoints"], "1,2");
    assert_eq!(bench.store.one("kms")["malformed"], json!({"mediaRole": "emperor"}));
}

#[test]
fn what_has_another_shape_than_it_promises_is_kept_aside() {
    let mut story = Story::new("s").of_two();
    let joined = story.events.iter_mut().find(|event| event["event"] == "participantJoined");
    let joined = joined.unwrap();
    joined["ip"] = json!(["93.184.216.34"]);
    joined["location"] = json!(["x"]);
    joined["geoPoints"] = json!("nowhere");
    joined["platform"] = json!(5);
    let odd = joined.clone();
    let created = story.events.iter_mut().find(|event| event["event"] == "webrtcConnectionCreated");
    created.unwrap()["rtspUri"] = json!(["rtsp://u:secret@host"]);

    let mut open = config();
    open.privacy.redact_rtsp_uri = false;
    let mut bench = Bench::with(open);
    story.lines().iter().for_each(|line| _ = bench.read(line));
    let cdr = bench.store.of("cdr");
    let malformed: Vec<_> = cdr.into_iter().filter_map(|json| json.get("malformed")).collect();
    let kept = json!({
        "ip": odd["ip"], "location": odd["location"], "geoPoints": "nowhere", "platform": 5
    });
    assert!(malformed.contains(&&kept), "{malformed:?}");
    assert!(malformed.contains(&&json!({"rtspUri": ["rtsp://u:secret@host"]})), "{malformed:?}");
    assert_eq!(malformed.len(), 2);

    // What the settings hide is hidden in any shape.
    let mut closed = config();
    closed.privacy.addresses = callscope::config::Addresses::Drop;
    closed.privacy.drop_fields = vec!["platform".to_owned()];
    let mut bench = Bench::with(closed);
    story.lines().iter().for_each(|line| _ = bench.read(line));
    let cdr = bench.store.of("cdr");
    let malformed: Vec<_> = cdr.into_iter().filter_map(|json| json.get("malformed")).collect();
    assert_eq!(malformed, [&json!({"location": odd["location"], "geoPoints": "nowhere"})]);
}

#[test]
fn nested_values_stay_as_they_are_written() {
    let mut bench = Bench::new();
    bench.read(&format!(
        r#"{{"event":"x","timestamp":{START},"odd":{{"b":123456789012345678901234,"a":[1.10,null,{{"z":null,"n":1e400}}],"b":9007199254740993}}}}"#
    ));
    let text = bench.raw.last().unwrap();
    assert!(
        text.contains(
            r#""unindexed":{"odd":{"a":[1.10,null,{"n":"1e400"}],"b":9007199254740993}}"#
        ),
        "{text}"
    );
    let deep = format!(
        r#"{{"event":"x","timestamp":{START},"odd":{}1{}}}"#,
        "[".repeat(101),
        "]".repeat(101)
    );
    bench.read(&deep);
    assert!(bench.dead[0].contains("100 deep"), "{:?}", bench.dead);
}

#[test]
fn what_the_start_told_counts_in_any_order() {
    let mut story = Story::new("s").of_two();
    for event in &mut story.events {
        let name = event["event"].as_str().unwrap().to_owned();
        if event.get("startTime").is_some() && name != "sessionDestroyed" {
            event["clientData"] = json!("told by the end");
            event["audioEnabled"] = json!(false);
        }
    }
    let store = fold(&story);
    for kind in ["publisherSummary", "subscriberSummary"] {
        assert!(store.of(kind).into_iter().all(|json| json["audioEnabled"] == true), "{kind}");
    }
    let told = store.of("connectionSummary").into_iter().map(|json| json["clientData"].as_str());
    assert_eq!(told.collect::<Vec<_>>().into_iter().min(), Some(Some("I am con_A")));
    assert!(!format!("{:?}", store.summaries()).contains("told by the end"));
}

#[test]
fn a_session_tells_with_which_clients_and_from_where_somebody_was_in_it() {
    let mut story =
        Story::new("s").created().joined(1, "con_A").joined(2, "con_B").joined(3, "con_C");
    story.events[2]["platform"] = json!("Firefox 131.0 on Windows 10 64-bit");
    for (event, place) in [(1, "Lyon, France"), (2, "Berlin, Germany"), (3, "unknown")] {
        story.events[event]["location"] = json!(place);
    }
    let store = fold(&story.destroyed(9, "x"));
    let client = &store.one("sessionSummary")["client"];
    assert_eq!(client["browser"], json!(["Chrome", "Firefox"]));
    assert_eq!(client["os"], json!(["Linux", "Windows"]));
    let session = store.one("sessionSummary");
    assert_eq!(session["location"], json!(["Berlin, Germany", "Lyon, France", "unknown"]));
    assert_eq!(session["connectionId"], json!(["con_A", "con_B", "con_C"]));
    assert_eq!(session["user"], session["connectionId"], "nobody has told who they are");
    let users = store.of("userSummary");
    assert!(users.iter().all(|user| user["connectionId"] == json!([user["user"]])), "{users:?}");
    let joined = store.of("cdr").into_iter().find(|event| event["event"] == "participantJoined");
    assert_eq!(joined.unwrap().get("user"), None, "nobody has told yet");
    let nobody = fold(&Story::new("t").created().destroyed(9, "x"));
    assert_eq!(nobody.one("sessionSummary").get("client"), None);
    assert_eq!(nobody.one("sessionSummary").get("location"), None);
}
