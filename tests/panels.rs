//! The page's API: what panels show, what is refused, and what is told as it happens.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::sync::Arc;

use callscope::live::{Live, LiveSession};
use callscope::panels;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

#[path = "support/http_server.rs"]
#[expect(dead_code, reason = "webhooks need more of it")]
mod http_server;

use http_server::{Server, indexed};

/// The session of `2.17-session.jsonl`, and when it was.
const SESSION: &str = "TestSession_1614772177070";
const DAY: i64 = 86_400_000;
const TIME: (i64, i64) = (1_614_772_177_070 - DAY, 1_614_772_177_070 + DAY);

async fn over_a_session(folder: &std::path::Path) -> Server {
    Server::over(indexed(folder, "2.17-session.jsonl").await, 1 << 30, |_| {}).await
}

fn at_that_time() -> String {
    format!("from={}&to={}", TIME.0, TIME.1)
}

#[tokio::test]
async fn every_panel_is_answered_with_as_many_keys_and_values_as_it_is_described_with() {
    let folder = tempfile::tempdir().unwrap();
    let server = over_a_session(folder.path()).await;
    let catalog = server.json("/api/dashboards").await;
    let mut answered = 0;
    let mut filled = 0;
    for dashboard in catalog["dashboards"].as_array().unwrap() {
        let one = dashboard["ofOne"].as_str().map(|field| format!("&filter={field}:{SESSION}"));
        let more = one.unwrap_or_default();
        let rows = dashboard["rows"].as_array().unwrap().iter();
        for panel in rows.flat_map(|row| row["panels"].as_array().unwrap()) {
            let id = panel["id"].as_str().unwrap();
            let path = format!("/api/panels/{id}?{}&zone=Europe/Madrid{more}", at_that_time());
            let answer = server.json(&path).await;
            let count = |list: &str| panel[list].as_array().unwrap().len();
            for part in answer["parts"].as_array().unwrap() {
                let (keys, values) = (&part["keys"], &part["values"]);
                assert_eq!(keys.as_array().unwrap().len(), count("by"), "{id}");
                let shown = count("show") + count("columns");
                assert_eq!(values.as_array().unwrap().len(), shown, "{id}");
            }
            assert_eq!((&answer["from"], &answer["to"]), (&json!(TIME.0), &json!(TIME.1)), "{id}");
            answered += 1;
            filled += usize::from(answer["documents"] != 0);
        }
    }
    let described: usize = panels::all().iter().map(|board| board.panels().count()).sum();
    assert_eq!(answered, described);
    assert!(filled > 20, "{filled} of {answered} panels show something");
    server.end().await;
}

#[tokio::test]
async fn a_filter_narrows_every_answer() {
    let folder = tempfile::tempdir().unwrap();
    let server = over_a_session(folder.path()).await;
    let time = at_that_time();
    for (filters, sessions) in [
        (String::new(), 1.0),
        (format!("&filter=uniqueSessionId:{SESSION}"), 1.0),
        (format!("&filter=uniqueSessionId:other&filter=uniqueSessionId:{SESSION}"), 1.0),
        ("&filter=uniqueSessionId:other".to_owned(), 0.0),
        (format!("&filter=uniqueSessionId:{SESSION}&filter=sessionId:other"), 0.0),
    ] {
        let answer = server.json(&format!("/api/panels/totals?{time}{filters}")).await;
        assert_eq!(answer["parts"][0]["values"][0], sessions, "{filters}: {answer}");
    }
    let before = server.json(&format!("/api/panels/totals?from=1&to={DAY}")).await;
    assert_eq!(before["documents"], 0);
    server.end().await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let server = over_a_session(folder.path()).await;
    let long = format!("/api/panels/totals?filter=reason:{}", "x".repeat(1025));
    let many: String = (0..51).map(|value| format!("filter=reason:{value}&")).collect();
    let wide: String = panels_fields().map(|field| format!("filter={field}:1&")).collect();
    for (path, status, told) in [
        ("/api/panels/none", 404, "no such panel"),
        ("/api/marks/none", 404, "no such dashboard"),
        ("/api/values/reason", 404, "the values of reason are not offered"),
        ("/api/panels/totals?query=*", 400, "no parameter query"),
        ("/api/panels/totals?from=monday", 400, "from=monday is no time"),
        ("/api/panels/totals?from=2&to=1", 400, "from is not before to"),
        ("/api/panels/totals?from=1&to=999999999999999", 400, "too far apart"),
        (
            "/api/panels/totals?from=-9223372036854775808&to=9223372036854775807",
            400,
            "too far apart",
        ),
        ("/api/panels/totals?zone=60", 400, "zone=60 is no time zone"),
        ("/api/panels/totals?from=1&from=2", 400, "from is given twice"),
        ("/api/panels/totals?filter=reason", 400, "names no field and value"),
        ("/api/panels/totals?filter=raeson:x", 400, "no field is called raeson"),
        ("/api/panels/totals?filter=geoPoints:1", 400, "geoPoints is a place, and 1 is no tile"),
        ("/api/panels/totals?filter=geoPoints:6/64/1", 400, "no tile"),
        ("/api/panels/totals?filter=geoPoints:6/1/1/1", 400, "no tile"),
        ("/api/panels/totals?filter=lifetime:1", 400, "no values to choose from"),
        ("/api/panels/totals?filter=duration:..", 400, "duration is a number, and .. is none"),
        ("/api/panels/totals?filter=duration:1..x", 400, "duration is a number, and 1..x is none"),
        ("/api/panels/totals?filter=duration:long", 400, "duration is a number, and long is none"),
        ("/api/panels/totals?filter=duration:NaN", 400, "duration is a number"),
        ("/api/panels/totals?filter=abnormal:perhaps", 400, "true or false"),
        (&long, 400, "too long"),
        (&format!("/api/panels/totals?{many}"), 400, "too many filters"),
        (&format!("/api/panels/totals?{wide}"), 400, "too many filters"),
        ("/api/sessions/x?raw=1", 400, "no parameter raw=1"),
        ("/api/sessions/x?index=false", 404, "no such session is open"),
        ("/api/panels/session-people", 400, "this panel is about one uniqueSessionId"),
        ("/api/search?raeson=x", 400, "no parameter or field raeson"),
        ("/api/search?q=a+b+c+d+e+f+g+h+i+j+k", 400, "q has more than 10 words"),
        ("/api/sessions?q=a+b+c+d+e+f+g+h+i+j+k", 400, "q has more than 10 words"),
    ] {
        let answer = server.request("GET", path, "", b"").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert!(body["error"].as_str().unwrap().contains(told), "{path}: {body}");
        assert!(!body["hint"].as_str().unwrap().is_empty(), "{path}: {body}");
    }
    server.end().await;
}

/// More fields than one answer may be narrowed by.
fn panels_fields() -> impl Iterator<Item = &'static str> {
    use callscope::document::fields::{FIELDS, Holds};
    let texts = FIELDS.iter().filter(|(_, holds)| *holds == Holds::Text);
    texts.map(|(name, _)| *name).take(21)
}

#[tokio::test]
async fn values_are_offered_by_which_a_dashboard_is_narrowed() {
    let folder = tempfile::tempdir().unwrap();
    let server = over_a_session(folder.path()).await;
    let answer = server.json(&format!("/api/values/sessionId?{}", at_that_time())).await;
    let parts = answer["parts"].as_array().unwrap();
    assert_eq!((parts.len(), &parts[0]["keys"]), (1, &json!(["TestSession"])), "{answer}");
    assert!(parts[0]["values"][0].as_f64().unwrap() > 10.0, "{answer}");
    server.end().await;
}

#[tokio::test]
async fn without_an_index_panels_say_why_they_are_empty() {
    let server = Server::start(1 << 30, |_| {}).await;
    for path in ["/api/panels/totals", "/api/marks/sessions", "/api/values/tenant"] {
        let answer = server.request("GET", path, "", b"").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("sink.kind"), "{answer}");
    }
    server.end().await;
}

/// A connection that is told as things happen.
struct Listener(BufReader<TcpStream>);

impl Listener {
    async fn new(server: &Server) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /api/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        Self(BufReader::new(stream))
    }

    /// The next line that begins with `begin`; `None`: the server has ended the answer.
    async fn line(&mut self, begin: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await.unwrap() == 0 {
                return None;
            }
            if let Some(rest) = line.strip_prefix(begin) {
                return Some(rest.trim().to_owned());
            }
        }
    }

    async fn message(&mut self) -> (String, Value) {
        let event = self.line("event: ").await.unwrap();
        let data = self.line("data: ").await.unwrap();
        (event, serde_json::from_str(&data).unwrap())
    }
}

#[tokio::test]
async fn changes_are_told_as_they_happen_until_the_server_ends() {
    let server = Server::start(1 << 30, |_| {}).await;
    let mut listener = Listener::new(&server).await;
    let (event, all) = listener.message().await;
    assert_eq!((&*event, &all["changed"][0]["uniqueSessionId"]), ("all", &json!("x_1")), "{all}");
    assert_eq!(all["people"], json!([]), "nobody has come just now");
    server.live.send_modify(|live| {
        let mut now = Live::clone(live);
        Arc::make_mut(&mut now.sessions[0]).people.push("u8 Link".to_owned());
        let new = LiveSession { unique_session_id: "y_1".into(), ..LiveSession::default() };
        now.sessions.push(Arc::new(new));
        *live = Arc::new(now);
    });
    let (event, change) = listener.message().await;
    let changed: Vec<&Value> =
        change["changed"].as_array().unwrap().iter().map(|one| &one["uniqueSessionId"]).collect();
    assert_eq!((&*event, changed), ("change", vec![&json!("x_1"), &json!("y_1")]));
    assert_eq!(change["people"][0]["who"], "u8 Link");
    assert_eq!(change["people"][0]["hasJoined"], true);
    server.stop.cancel();
    assert_eq!(listener.line("event: ").await, None);
    server.end().await;
}

#[tokio::test]
async fn listeners_beyond_the_bound_are_told_to_ask_instead() {
    let server = Server::start(1 << 30, |_| {}).await;
    let mut listeners = Vec::new();
    for _ in 0..64 {
        let mut listener = Listener::new(&server).await;
        listener.message().await;
        listeners.push(listener);
    }
    let refused = server.request("GET", "/api/live", "", b"").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("/api/sessions"), "{refused}");
    // A place is free again when its reader has gone, which the server finds out when it writes.
    listeners.clear();
    server.live.send_modify(|live| {
        let mut now = Live::clone(live);
        now.sessions.clear();
        *live = Arc::new(now);
    });
    while Listener::new(&server).await.line("HTTP/1.1 ").await.unwrap().starts_with("503") {
        tokio::task::yield_now().await;
    }
    server.end().await;
}

#[tokio::test]
async fn the_page_is_packed_for_whoever_takes_that() {
    let server = Server::start(1 << 30, |_| {}).await;
    for (accept, is_packed) in [("accept-encoding: gzip, br\r\n", true), ("", false)] {
        let answer = server.request("GET", "/app.js", accept, b"").await;
        assert_eq!(answer.contains("content-encoding: gzip"), is_packed, "{accept}");
        assert_eq!(answer.contains("document.getElementById"), !is_packed, "{accept}");
        assert!(answer.contains("vary: accept-encoding"));
    }
    server.end().await;
}
