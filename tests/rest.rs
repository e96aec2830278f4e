//! The platform's REST API as a source, by the real binary and a server that answers as OpenVidu does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use callscope::simulate::send::{Sender, Webhook};
use serde_json::{Value, json};

#[path = "support/elastic_double.rs"]
#[expect(dead_code, reason = "the sink's tests need more of it")]
mod elastic_double;
#[path = "support/instance.rs"]
#[expect(dead_code, reason = "groups need more of it")]
mod instance;
#[path = "support/openvidu.rs"]
mod openvidu;

use elastic_double::Double;
use instance::{Instance, until};
use openvidu::{Mood, OpenVidu, SECRET, TOKEN, Version, session};

const START: i64 = 1_700_000_000_000;

/// callscope beside one platform, in front of a store.
struct Bench {
    platform: OpenVidu,
    double: Double,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn of(version: Version) -> Self {
        Self::beside(OpenVidu::start(version).await).await
    }

    async fn beside(platform: OpenVidu) -> Self {
        Self { platform, double: Double::start().await, folder: tempfile::tempdir().unwrap() }
    }

    fn serve(&self) -> Instance {
        self.serve_with(&[])
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callscope"));
        command
            .env("CALLSCOPE__DATA_DIR", self.folder.path())
            .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
            .env("CALLSCOPE__STATS__EVERY", "0s")
            .env("CALLSCOPE__JOURNAL__RESERVE_BYTES", "0")
            .env("CALLSCOPE__LOG__LEVEL", "debug")
            .env("CALLSCOPE__SINK__KIND", "elasticsearch")
            .env("CALLSCOPE__ELASTICSEARCH__URLS", format!("http://{}", self.double.address))
            .env(
                "CALLSCOPE__SOURCES__DEFAULT__REST__URL",
                format!("http://{}/", self.platform.address),
            )
            .env("CALLSCOPE__SOURCES__DEFAULT__REST__SECRET", SECRET)
            .env("CALLSCOPE__SOURCES__DEFAULT__REST__EVERY", "1s")
            .env("CALLSCOPE__SOURCES__DEFAULT__REST__REQUEST_TIMEOUT", "2s");
        command
    }

    fn serve_with(&self, environment: &[(&str, &str)]) -> Instance {
        Instance::start(self.command().envs(environment.iter().copied()))
    }

    /// The documents in the store, by their kind.
    fn kinds(&self) -> BTreeMap<String, Vec<Value>> {
        let mut kinds: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (_, _, json) in self.double.documents().into_values() {
            let kind = json["elastic_type"].as_str().unwrap().to_owned();
            kinds.entry(kind).or_default().push(json);
        }
        kinds
    }

    fn count(&self, kind: &str) -> usize {
        self.kinds().get(kind).map_or(0, Vec::len)
    }

    /// Waits for another two polls.
    async fn is_asked_again(&self, alive: &Instance) {
        let paths =
            || self.platform.asked("/openvidu/api/sessions") + self.platform.asked("/api/sessions");
        let before = paths();
        until(async || {
            alive.get("/healthz").await;
            paths() >= before + 2
        })
        .await;
    }
}

fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap();
        memchr::memmem::find(&bytes, text.as_bytes()).is_some()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_version_tells_how_its_endpoints_are_once() {
    for version in [Version::V2_12, Version::V2_16, Version::V2_29] {
        let bench = Bench::of(version).await;
        bench.platform.shows(&[session(version, "s", START)]);
        let instance = bench.serve();
        until(async || {
            instance.get("/healthz").await;
            bench.count("kms") == 6 && bench.count("webrtcDebug") == 4 && bench.count("seen") == 4
        })
        .await;
        bench.is_asked_again(&instance).await;
        let kinds = bench.kinds();
        let total: usize = kinds.values().map(Vec::len).sum();
        assert_eq!(total, 14, "{version:?}: {:?}", kinds.keys());
        let unique = version == Version::V2_29;
        for json in kinds.values().flatten() {
            assert_eq!(json["sessionId"], "s");
            // By it the session is found, also where the platform does not tell it.
            assert_eq!(json["uniqueSessionId"], format!("s_{START}"), "{version:?}: {json}");
            assert_eq!(json.get("uniqueSessionIdDerived").is_none(), unique, "{json}");
        }
        let endpoints: BTreeSet<(&str, &str)> = kinds["kms"]
            .iter()
            .map(|json| {
                (json["connectionId"].as_str().unwrap(), json["endpoint"].as_str().unwrap())
            })
            .collect();
        let expected = [("con_A", "str_CAM_X_con_A"), ("con_B", "con_B_str_CAM_X_con_A")];
        assert_eq!(endpoints.into_iter().collect::<Vec<_>>(), expected);
        let offers = kinds["webrtcDebug"].iter().filter(|json| json["type"] == "sdpOffer");
        assert!(offers.clone().all(|json| json["issuer"] == "client"));
        assert_eq!(offers.count(), 2);
        // Who is shown is open however long nothing was heard of it, and is nobody's secret.
        let told = instance.get("/api/sessions").await;
        assert!(told.contains("\"sessions\":1") && told.contains("\"connections\":2"), "{told}");
        assert!(
            !holds(bench.folder.path(), "KeepThisToYourself") && !instance.told().contains(TOKEN)
        );
        instance.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_in_trouble_is_told_of_and_asked_again() {
    let bench = Bench::of(Version::V2_29).await;
    bench
        .platform
        .shows(&[session(Version::V2_29, "s", START), session(Version::V2_29, "t", START)]);
    let length = json!({ "numberOfElements": 2, "content": [session(Version::V2_29, "s", START)] })
        .to_string()
        .len();
    bench.platform.is(Mood::Cut(length + 20));
    let instance = bench.serve();
    // What had come before it broke off counts.
    until(async || {
        instance.get("/healthz").await;
        bench.count("kms") == 6
    })
    .await;
    for (mood, told) in [
        (Mood::Cut(length + 20), "the answer broke off after"),
        (Mood::Status(500), "was answered 500"),
        (Mood::Page, "the answer is no JSON object"),
        (Mood::Says("[\"tok_KeepThisToYourself\"]"), "it begins with '['"),
        (Mood::Says("{\"status\":500,\"error\":\"x\"}"), "the answer has no list of sessions"),
        (
            Mood::Says("{\"numberOfElements\":3,\"content\":[]}"),
            "the answer says that it shows 3 sessions, and shows 0",
        ),
        (Mood::Silent, "no answer from http://"),
        (Mood::Stuck(length + 20), "rest.request_timeout is the limit"),
        (Mood::Status(401), "refuses the secret; set sources.default.rest.secret"),
        (Mood::Cut(length + 20), "the answer broke off after"),
        (Mood::Status(403), "refuses the secret; set sources.default.rest.secret"),
    ] {
        bench.platform.is(mood);
        instance.wait_for("/readyz", told).await;
        // Events get through all the same.
        assert!(instance.get("/readyz").await.contains("\"ready\":true"));
    }
    bench.platform.is(Mood::Well);
    until(async || {
        instance.get("/healthz").await;
        bench.count("kms") == 12
    })
    .await;
    until(async || !instance.get("/readyz").await.contains("warnings")).await;
    assert!(!instance.told().contains("KeepThisToYourself"));
    let metrics = instance.get("/metrics").await;
    for line in [
        "callscope_rest_polls_total{source=\"default\",outcome=\"failed\"}",
        "callscope_rest_polls_total{source=\"default\",outcome=\"partial\"}",
        "callscope_rest_polls_total{source=\"default\",outcome=\"ok\"}",
        "callscope_rest_records_total{source=\"default\"} 28",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }
    instance.stop();
    // A larger answer than it may be.
    let bench = Bench::of(Version::V2_29).await;
    bench
        .platform
        .shows(&[session(Version::V2_29, "s", START), session(Version::V2_29, "t", START)]);
    let limit = (length + 20).to_string();
    let instance = bench.serve_with(&[("CALLSCOPE__SOURCES__DEFAULT__REST__BYTES_MAX", &limit)]);
    instance.wait_for("/readyz", "sources.default.rest.bytes_max is the limit").await;
    instance.stop();
}

/// It is taken apart while it comes, and what nobody wants is kept nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_fifty_megabytes_takes_no_such_memory() {
    let bench = Bench::of(Version::V2_29).await;
    let instance = bench.serve_with(&[
        ("CALLSCOPE__SOURCES__DEFAULT__REST__NEGOTIATION", "false"),
        ("CALLSCOPE__SOURCES__DEFAULT__REST__REQUEST_TIMEOUT", "5m"),
    ]);
    bench.is_asked_again(&instance).await;
    let peak = || {
        let status = format!("/proc/{}/status", instance.process.id());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1_024
    };
    let before = peak();
    let sessions: Vec<Value> = (0..50)
        .map(|index| {
            let mut shown = session(Version::V2_29, &format!("s{index}"), START);
            let sends = &mut shown["connections"]["content"][0]["publishers"][0];
            sends["localSdp"] = json!("a=candidate\r\n".repeat(67_000));
            shown
        })
        .collect();
    bench.platform.shows(&sessions);
    until(async || {
        instance.get("/healthz").await;
        bench.count("kms") == 300
    })
    .await;
    bench.is_asked_again(&instance).await;
    assert_eq!(bench.count("webrtcDebug"), 0);
    let more = peak() - before;
    assert!(more < 30, "{more} MiB more");
    assert!(!instance.get("/readyz").await.contains("warnings"));
    instance.stop();
}

/// Its times count where they are told of, ours where it tells none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_whose_clock_is_wrong_is_taken_at_its_word() {
    const OFF: i64 = 2 * 3_600_000;
    let bench = Bench::of(Version::V2_29).await;
    let now = chrono::Utc::now().timestamp_millis();
    let (ahead, behind) = (now + OFF, now - OFF);
    let shown =
        [("ahead", ahead), ("behind", behind)].map(|(id, at)| session(Version::V2_29, id, at));
    bench.platform.shows(&shown);
    let instance = bench.serve();
    until(async || {
        instance.get("/healthz").await;
        bench.count("kms") == 12
    })
    .await;
    for id in [format!("ahead_{ahead}"), format!("behind_{behind}")] {
        instance.wait_for("/api/sessions", &id).await;
    }
    let first = |id: &str| {
        let kinds = bench.kinds();
        let own = kinds["kms"].iter().filter(|json| json["sessionId"] == id);
        own.map(|json| json["timestamp"].as_i64().unwrap()).min().unwrap()
    };
    assert_eq!((first("ahead"), first("behind")), (ahead + 3_020, behind + 3_020));
    bench.platform.shows(&[]);
    until(async || {
        instance.get("/healthz").await;
        bench.kinds()["seen"].iter().filter(|json| json["type"] == "gone").count() == 2
    })
    .await;
    let metrics = instance.get("/metrics").await;
    assert!(!metrics.contains("outcome=\"dead\"} 1"), "{metrics}");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_that_made_its_certificate_itself_is_believed_with_it_alone() {
    for is_odd in [false, true] {
        believed_with_its_certificate(is_odd).await;
    }
}

async fn believed_with_its_certificate(is_odd: bool) {
    let (platform, certificate) = OpenVidu::start_secure(Version::V2_29, is_odd).await;
    let bench = Bench::beside(platform).await;
    bench.platform.shows(&[session(Version::V2_29, "s", START)]);
    let file = bench.folder.path().join("platform.pem");
    std::fs::write(&file, certificate).unwrap();
    let url = format!("https://{}/", bench.platform.address);
    let check = |ca: &str| {
        let mut command = bench.command();
        command
            .args(["check"])
            .env("CALLSCOPE__SINK__KIND", "stdout")
            .env("CALLSCOPE__SOURCES__DEFAULT__REST__URL", &url)
            .env("CALLSCOPE__SOURCES__DEFAULT__REST__CA", ca);
        let looked = command.output().unwrap();
        (looked.status.code(), String::from_utf8(looked.stdout).unwrap())
    };
    let (code, told) = check("");
    assert!(code != Some(0) && told.contains("certificate"), "{told}");
    let (code, told) = check(file.to_str().unwrap());
    assert!(code == Some(0) && told.contains("OpenVidu 2.29.0 answers"), "{told}");
    let instance = bench.serve_with(&[
        ("CALLSCOPE__SOURCES__DEFAULT__REST__URL", &url),
        ("CALLSCOPE__SOURCES__DEFAULT__REST__CA", file.to_str().unwrap()),
    ]);
    until(async || {
        instance.get("/healthz").await;
        bench.count("kms") == 6
    })
    .await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_asks_it_tells_nothing_twice() {
    let bench = Bench::of(Version::V2_29).await;
    let ids: Vec<String> = (0..40).map(|index| format!("s{index}")).collect();
    let sessions: Vec<Value> = ids.iter().map(|id| session(Version::V2_29, id, START)).collect();
    bench.platform.shows(&sessions);
    for kill in 1..4 {
        let instance = bench.serve();
        until(async || {
            instance.get("/healthz").await;
            bench.count("kms") >= 60 * kill
        })
        .await;
        instance.kill();
    }
    let instance = bench.serve();
    until(async || {
        instance.get("/healthz").await;
        bench.count("kms") == 240
    })
    .await;
    bench.is_asked_again(&instance).await;
    instance.stop();
    let kinds = bench.kinds();
    assert_eq!(kinds["kms"].len(), 240);
    assert!((120..=160).contains(&kinds["seen"].len()), "{}", kinds["seen"].len());
    assert_eq!(kinds["webrtcDebug"].len(), 160);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_browsers_report_it_loses_nothing_and_has_nothing_twice() {
    let bench = Bench::of(Version::V2_29).await;
    let start = chrono::Utc::now().timestamp_millis() - 60_000;
    bench.platform.shows(&[session(Version::V2_29, "s", start)]);
    let mut taken = BTreeSet::new();
    for kill in 0..4 {
        let instance =
            bench.serve_with(&[("CALLSCOPE__SOURCES__DEFAULT__BROWSERS__KEYS", "a-key-of-pages")]);
        let mut sender = Sender::new(Webhook::at(instance.address));
        for count in (1..=10).map(|count| 100 * (10 * kill + count)) {
            let at = chrono::Utc::now().to_rfc3339();
            let report = json!({
                "@timestamp": at, "participant_id": "I am con_A", "session_id": "s",
                "webrtc_stats": { "inbound": { "audio": {}, "video": { "packetsReceived": count } } },
            });
            let path = "/stats/default?key=a-key-of-pages&connection=con_B";
            // The session has to be known to be open.
            while sender.post(path, None, &report.to_string()).await.unwrap() != 204 {
                instance.get("/healthz").await;
            }
            taken.insert(count);
        }
        if kill < 3 {
            instance.kill();
            continue;
        }
        until(async || {
            instance.get("/healthz").await;
            bench.count("webrtcStats") >= taken.len()
        })
        .await;
        instance.stop();
    }
    let told = bench.kinds().remove("webrtcStats").unwrap();
    let counts: Vec<i64> =
        told.iter().map(|json| json["packetsReceived"].as_i64().unwrap()).collect();
    assert_eq!(counts.len(), taken.len(), "{counts:?}");
    assert_eq!(counts.into_iter().collect::<BTreeSet<_>>(), taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_vanish_are_told_to_be_gone_and_are_not_closed() {
    let bench = Bench::of(Version::V2_29).await;
    // Of a moment ago: what is older than sessions.silent_after would be closed for its silence.
    let start = chrono::Utc::now().timestamp_millis() - 60_000;
    let (stays, goes) =
        (session(Version::V2_29, "stays", start), session(Version::V2_29, "goes", start));
    bench.platform.shows(&[stays.clone(), goes.clone()]);
    let instance = bench.serve();
    instance.wait_for("/api/sessions", "\"sessionId\":\"goes\"").await;
    // One that events alone have told of.
    let mut sender = Sender::new(format!("http://{}/webhook", instance.address).parse().unwrap());
    for event in ["sessionCreated", "participantJoined"] {
        let mut event = json!({ "event": event, "sessionId": "told", "uniqueSessionId": format!("told_{start}"), "timestamp": start });
        event["connectionId"] = json!("con_T");
        sender.send(&event.to_string()).await.unwrap();
    }
    instance.wait_for("/api/sessions", "\"sessionId\":\"told\"").await;
    bench.is_asked_again(&instance).await;
    // It is seen though nobody asked meanwhile.
    instance.stop();
    bench.platform.shows(&[stays]);
    let instance = bench.serve();
    let gone = |kind: &str| {
        let kinds = bench.kinds();
        let seen = kinds["seen"].iter().filter(|json| json["type"] == kind);
        let seen = seen.map(|json| json["uniqueSessionId"].as_str().unwrap().to_owned());
        let mut seen: Vec<String> = seen.collect();
        seen.sort();
        seen
    };
    until(async || {
        instance.get("/healthz").await;
        let gone = gone("gone");
        assert!(gone.len() <= 2, "told twice: {gone:?}");
        gone == [format!("goes_{start}"), format!("told_{start}")]
    })
    .await;
    // They still count as open, and it is seen that they are not shown.
    until(async || {
        let told = instance.get("/api/sessions").await;
        let told: Value = serde_json::from_str(told.split_once("\r\n\r\n").unwrap().1).unwrap();
        let open = told["live"]["sessions"].as_array().unwrap();
        assert_eq!(open.len(), 3, "{told}");
        open.iter().all(|one| one.get("goneSince").is_some() == (one["sessionId"] != "stays"))
    })
    .await;
    bench.platform.shows(&[goes]);
    until(async || {
        instance.get("/healthz").await;
        gone("shown") == [format!("goes_{start}")]
    })
    .await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_recording_that_was_missed_is_asked_for() {
    let bench = Bench::of(Version::V2_29).await;
    bench.platform.records(&[json!({
        "id": "s~1", "object": "recording", "sessionId": "s", "uniqueSessionId": format!("s_{START}"), "createdAt": START + 5_000,
        "status": "ready", "size": 4_000, "duration": 15.5, "url": "https://openvidu.example.com/recordings/s/R.mp4",
    }), json!({ "id": "s~2", "createdAt": START + 6_000, "status": "ready", "size": 777, "duration": 14 })]);
    let instance = bench.serve();
    let webhook = format!("http://{}/webhook", instance.address).parse().unwrap();
    let mut sender = Sender::new(webhook);
    let ids = json!({ "sessionId": "s", "uniqueSessionId": format!("s_{START}") });
    let recording = |id: &str, status: &str, at: i64| {
        let start = START + if id == "s~2" { 6_000 } else { 5_000 };
        json!({ "event": "recordingStatusChanged", "timestamp": START + at, "id": id, "startTime": start, "status": status,
            "name": "R", "outputMode": "COMPOSED", "size": 0, "duration": 0 })
    };
    for mut event in [
        json!({ "event": "sessionCreated", "timestamp": START }),
        recording("s~1", "started", 5_000),
        recording("s~1", "stopped", 20_000),
        recording("deleted", "stopped", 20_000),
        // That it stopped was missed as well.
        recording("s~2", "started", 6_000),
        json!({ "event": "sessionDestroyed", "timestamp": START + 21_000, "startTime": START, "reason": "sessionClosedByServer" }),
        // Time goes on.
        json!({ "event": "sessionCreated", "timestamp": START + 300_000, "sessionId": "later", "uniqueSessionId": format!("later_{}", START + 300_000) }),
    ] {
        for (name, id) in ids.as_object().unwrap() {
            if event.get(name).is_none() {
                event[name] = id.clone();
            }
        }
        sender.send(&event.to_string()).await.unwrap();
    }
    until(async || {
        instance.get("/healthz").await;
        let kinds = bench.kinds();
        let summaries = kinds.get("recordingSummary").into_iter().flatten();
        let ready = summaries.filter(|json| json["finalStatus"] == "ready");
        let sizes: BTreeSet<i64> = ready.filter_map(|json| json["size"].as_i64()).collect();
        sizes == BTreeSet::from([777, 4_000])
    })
    .await;
    bench.is_asked_again(&instance).await;
    assert_eq!(bench.platform.asked("/openvidu/api/recordings/deleted"), 1, "it is not there");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_who_answers() {
    // The application may answer to every address that is not the platform's.
    for (version, mood, told) in [
        (Version::V2_12, Mood::Well, "OpenVidu 2.12.0 answers"),
        (Version::V2_12, Mood::Page, "OpenVidu 2.12.0 answers"),
        (Version::V2_29, Mood::Page, "OpenVidu 2.29.0 answers"),
    ] {
        let bench = Bench::of(version).await;
        bench.platform.is(mood);
        let looked = bench
            .command()
            .args(["check"])
            .env("CALLSCOPE__SINK__KIND", "stdout")
            .output()
            .unwrap();
        let text = String::from_utf8(looked.stdout).unwrap();
        assert!(looked.status.success() && text.contains(told), "{text}");
    }
    let bench = Bench::of(Version::V2_29).await;
    let mut command = bench.command();
    command.args(["check"]).env("CALLSCOPE__SINK__KIND", "stdout");
    let looked =
        command.env("CALLSCOPE__SOURCES__DEFAULT__REST__SECRET", "another").output().unwrap();
    let text = String::from_utf8(looked.stdout).unwrap();
    assert_eq!(looked.status.code(), Some(4), "{text}");
    assert!(text.contains("set sources.default.rest.secret"), "{text}");
}
