//! Where browsers report to: who gets in, and what becomes of those who should not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::sync::Arc;

use callscope::config::{Config, Secret};
use callscope::live::{Live, LiveSession, OpenSession};
use callscope::sessions::browser::Visitor;
use callscope::sessions::state::Connection;
use serde_json::{Value, json};

#[path = "support/http_server.rs"]
#[expect(dead_code, reason = "the page's API needs more of it")]
mod http_server;

use http_server::Server;

const KEY: &str = "a-key-of-pages";
const PATH: &str = "/stats/default?key=a-key-of-pages";
const ORIGIN: &str = "origin: https://meet.example.com\r\n";
const START: i64 = 1_700_000_000_000;

async fn door(change: impl FnOnce(&mut Config)) -> Server {
    let server = Server::start(1 << 20, |config| {
        let source = config.sources.get_mut("default").unwrap();
        source.browsers.keys = vec![Secret::new(KEY)];
        source.browsers.origins = vec!["https://meet.example.com".to_owned()];
        change(config);
    })
    .await;
    let open = vec![
        OpenSession { id: OpenSession::hash("", "daily"), start: START - 5 },
        OpenSession { id: OpenSession::hash("", "daily"), start: START },
        OpenSession { id: OpenSession::hash("", "missed"), start: 0 },
    ];
    server.live.send_replace(Arc::new(Live { open, ..Live::default() }));
    server
}

fn report(session: &str) -> Vec<u8> {
    let body = json!({
        "@timestamp": "2023-11-14T22:13:20Z", "participant_id": "<script>alert(1)</script>", "session_id": session,
        "platform_description": "Chrome 129", "webrtc_stats": { "inbound": { "audio": {}, "video": { "jitter": 0.01, "packetsReceived": 5 } } },
    });
    body.to_string().into_bytes()
}

#[tokio::test]
async fn a_report_on_an_open_session_is_journalled_and_the_page_may_read_the_answer() {
    let server = door(|_| {}).await;
    let headers =
        format!("{ORIGIN}content-type: application/json\r\nsec-fetch-site: cross-site\r\n");
    let answer = server
        .request("POST", &format!("{PATH}&connection=con_A"), &headers, &report("daily"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert!(
        answer.contains("access-control-allow-origin: https://meet.example.com\r\n"),
        "{answer}"
    );
    let [record] = <[Vec<u8>; 1]>::try_from(server.journalled()).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(
        (&record["side"], &record["uniqueSessionId"]),
        (&json!("browser"), &json!(format!("daily_{START}")))
    );
    assert!(
        record["endpoint"].as_str().unwrap().starts_with(&format!("browser/{START}/in/"))
            && record["endpoint"].as_str().unwrap().contains("~con_A~"),
        "{record}"
    );
    assert!(!record.to_string().contains("script"), "{record}");
    // Its clock was years off.
    assert!(record["timestamp"].as_i64().unwrap() > START + 1_000_000);
    server.end().await;
}

#[tokio::test]
async fn a_browser_is_told_which_pages_may_report() {
    let server = door(|_| {}).await;
    let asked = |origin: &str| {
        format!(
            "origin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n"
        )
    };
    let answer =
        server.request("OPTIONS", "/stats/default", &asked("https://meet.example.com"), b"").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    for line in [
        "access-control-allow-origin: https://meet.example.com",
        "access-control-allow-methods: POST",
        "access-control-allow-headers: content-type",
        "vary: origin",
    ] {
        assert!(answer.contains(&format!("{line}\r\n")), "{line}: {answer}");
    }
    let answer =
        server.request("OPTIONS", "/stats/default", &asked("https://evil.example.com"), b"").await;
    assert!(!answer.contains("allow-origin"), "{answer}");
    server.end().await;
    let server = door(|config| {
        config.sources.get_mut("default").unwrap().browsers.origins = vec!["*".to_owned()];
    })
    .await;
    let answer =
        server.request("OPTIONS", "/stats/default", &asked("https://any.example.com"), b"").await;
    assert!(answer.contains("access-control-allow-origin: https://any.example.com"), "{answer}");
    server.end().await;
}

#[tokio::test]
async fn whoever_should_not_report_is_told_why_and_nothing_is_kept() {
    let server = door(|_| {}).await;
    let large = vec![b' '; 70_000];
    let nested =
        [b"{\"session_id\":\"daily\",\"webrtc_stats\":".to_vec(), b"[".repeat(60_000)].concat();
    let daily = report("daily");
    for (path, headers, body, status, told) in [
        ("/stats/default", ORIGIN, &*daily, 401, "wrong or missing key"),
        ("/stats/default?key=another-key", ORIGIN, &daily, 401, "wrong or missing key"),
        (PATH, "origin: https://evil.example.com\r\n", &daily, 403, "pages of this origin"),
        (PATH, "origin: null\r\n", &daily, 403, "pages of this origin"),
        ("/stats/other?key=a-key-of-pages", ORIGIN, &daily, 404, "nobody reports here"),
        (PATH, ORIGIN, &report("forged"), 404, "no such session is open"),
        (PATH, ORIGIN, &report("missed"), 404, "no such session is open"),
        (PATH, ORIGIN, &report(&"s".repeat(60_000)), 404, "no such session is open"),
        (PATH, ORIGIN, &large, 413, "too large"),
        (PATH, ORIGIN, &nested, 400, "no report of openvidu-browser"),
        (PATH, ORIGIN, b"\xff\xfe", 400, "no report of openvidu-browser"),
        (PATH, ORIGIN, b"{}", 400, "no report of openvidu-browser"),
        (&format!("{PATH}&connection=a/b"), ORIGIN, &daily, 400, "no id"),
        (&format!("{PATH}&connection="), ORIGIN, &daily, 400, "no id"),
        (&format!("{PATH}&session=%00"), ORIGIN, &daily, 400, "no id"),
    ] {
        let answer = server.request("POST", path, headers, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path} {answer}");
        assert!(answer.contains(told), "{path} {answer}");
    }
    assert!(server.journalled().is_empty());
    server.end().await;
    // Without a key there is no door.
    let server = Server::start(1 << 20, |_| {}).await;
    assert_eq!(server.status("POST", PATH, "", &daily).await, 404);
    assert_eq!(server.status("OPTIONS", PATH, "", b"").await, 404);
    server.end().await;
}

#[tokio::test]
async fn a_flood_is_held_back_by_address_and_by_session() {
    let few = |config: &mut Config| {
        config.browsers.address_header = "x-forwarded-for".to_owned();
        config.browsers.per_address = 5.try_into().unwrap();
        config.browsers.per_session = 12.try_into().unwrap();
    };
    let server = door(few).await;
    let post = async |address: &str| {
        let headers = format!("x-forwarded-for: 10.0.0.1, {address}\r\n");
        server.request("POST", PATH, &headers, &report("daily")).await
    };
    let from = async |address: &str| {
        let mut taken = 0;
        for _ in 0..100 {
            let answer = post(address).await;
            if answer.starts_with("HTTP/1.1 204") {
                taken += 1;
            } else {
                assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
                return (taken, answer);
            }
        }
        panic!("nothing holds {address} back");
    };
    let (taken, told) = from("198.51.100.1").await;
    assert!(taken >= 5 && told.contains("from one address"), "{taken} {told}");
    // One household has one network of IPv6, whatever its address.
    let (_, told) = from("2001:db8:1:2::1").await;
    assert!(told.contains("from one address"), "{told}");
    // Everybody together is held back by the session.
    let mut told = String::new();
    for number in 0..200 {
        let answer = post(&format!("203.0.113.{number}")).await;
        if answer.starts_with("HTTP/1.1 429") {
            told = answer;
            break;
        }
    }
    assert!(told.contains("on one session"), "{told}");
    // Who is known to be there reports all the same.
    let there = LiveSession {
        session_id: "daily".to_owned(),
        visitors: vec![Visitor::of("con_A", &Connection::default())],
        ..LiveSession::default()
    };
    let open = server.live.borrow().open.clone();
    server.live.send_replace(Arc::new(Live {
        open,
        sessions: vec![Arc::new(there)],
        ..Live::default()
    }));
    let post = async |connection: &str| {
        let path = format!("{PATH}&connection={connection}");
        let headers = format!("x-forwarded-for: 192.0.2.{}\r\n", connection.len());
        server.request("POST", &path, &headers, &report("daily")).await
    };
    assert!(post("con_A").await.starts_with("HTTP/1.1 204"));
    assert!(post("con_of_nobody").await.starts_with("HTTP/1.1 429"));
    server.end().await;
}

#[tokio::test]
async fn half_of_the_journal_is_kept_for_what_must_not_be_lost() {
    let server = door(|_| {}).await;
    let body = vec![b'x'; 20_000];
    while server.journal.bytes() <= server.journal.bytes_max() / 2 {
        server.journal.append("default", 1, &body).await.unwrap();
    }
    let before = server.journalled().len();
    let answer = server.request("POST", PATH, "", &report("daily")).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(server.journalled().len(), before);
    server.end().await;
}
