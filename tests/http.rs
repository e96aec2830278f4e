//! The HTTP server over real sockets: what it answers, what it refuses, when it breaks the connection.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::sync::Arc;
use std::time::Duration;

use callscope::command::AnyIndex;
use callscope::config::{Config, Secret};
use callscope::dead_letters::{Content, DeadLetter};
use callscope::document::Document;
use callscope::http::{Bound, HttpError};
use callscope::live::{Live, LiveSession, Totals};
use callscope::sink::embedded::EmbeddedIndex;
use callscope::sink::{Sink, SinkStatus, StatusSender};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

#[path = "support/http_server.rs"]
mod http_server;

use http_server::{BODIES_BYTES, Server, indexed};

const SECRETS: fn(&mut Config) = |config| {
    let source = config.sources.get_mut("default").unwrap();
    source.secrets = vec![Secret::new("first-secret"), Secret::new("second-secret")];
};

/// B61
#[tokio::test]
async fn every_body_is_answered_200_and_journalled_as_it_came() {
    let server = Server::start(1 << 30, |_| {}).await;
    let bodies: [&[u8]; 5] = [
        b"{\"event\":\"x\",\"timestamp\":1}",
        b"garbage",
        b"",
        &[0, 255, 0xe9],
        b"{\"event\":\"x\",\"timestamp\":1}",
    ];
    for body in bodies {
        assert_eq!(
            server.status("POST", "/webhook", "content-type: text/odd\r\n", body).await,
            200
        );
    }
    assert_eq!(server.journalled(), bodies);
    server.end().await;
}

#[tokio::test]
async fn one_of_two_secrets_is_needed_and_names_are_not_told() {
    let server = Server::start(1 << 30, SECRETS).await;
    // base64 of "user:first-secret"
    let basic = "authorization: Basic dXNlcjpmaXJzdC1zZWNyZXQ=\r\n";
    for (path, headers, status) in [
        ("/webhook", "", 401),
        ("/webhook", "authorization: Bearer wrong-secret\r\n", 401),
        ("/webhook", "authorization: Bearer first-secret\r\n", 200),
        ("/webhook", "authorization: bearer second-secret\r\n", 200),
        ("/webhook", basic, 200),
        ("/webhook", "x-callscope-secret: second-secret\r\n", 200),
        ("/webhook?secret=first%2Dsecret", "", 200),
        ("/webhook?secret=first", "", 401),
        ("/webhook/default", "authorization: Bearer first-secret\r\n", 200),
        ("/webhook/unknown", "authorization: Bearer first-secret\r\n", 401),
    ] {
        assert_eq!(server.status("POST", path, headers, b"{}").await, status, "{path} {headers}");
    }
    assert_eq!(server.journalled().len(), 6);
    server.end().await;
}

#[tokio::test]
async fn a_large_body_is_refused_however_it_comes() {
    let server =
        Server::start(1 << 30, |config| config.http.body_bytes_max = 100.try_into().unwrap()).await;
    assert_eq!(server.status("POST", "/webhook", "", &[b'x'; 100]).await, 200);
    assert_eq!(server.status("POST", "/webhook", "", &[b'x'; 101]).await, 413);
    let chunked = [b"POST /webhook HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n65\r\n".as_slice(), &[b'x'; 101], b"\r\n0\r\n\r\n"].concat();
    assert!(server.raw(&chunked).await.starts_with("HTTP/1.1 413"));
    let long = format!("x-long: {}\r\n", "x".repeat(60_000));
    assert_eq!(server.status("POST", "/webhook", &long, b"{}").await, 431);
    assert_eq!(server.journalled().len(), 1);
    server.end().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_journalled() {
    let server =
        Server::start(1 << 30, |config| config.http.idle_after = Duration::from_millis(100)).await;
    let cut = b"POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{\"event\"";
    assert_eq!(server.raw(cut).await, "", "cut off without an answer");
    assert!(!server.raw(b"POST /webhook HTT").await.contains("200"));
    assert!(server.journalled().is_empty());
    server.end().await;
}

#[tokio::test]
async fn a_full_journal_breaks_the_connection_and_room_lets_it_through() {
    let server = Server::start(150, |_| {}).await;
    assert_eq!(server.status("POST", "/webhook", "", &[b'x'; 50]).await, 200);
    let answer = server.request("POST", "/webhook", "", &[b'x'; 50]).await;
    assert_eq!(answer, "", "no answer at all, so that OpenVidu sends again");
    assert_eq!(server.status("GET", "/readyz", "", b"").await, 503);
    let end = *server.journal.end().borrow();
    server.journal.release(end).unwrap();
    assert_eq!(server.status("POST", "/webhook", "", &[b'y'; 50]).await, 200);
    server.end().await;
}

/// Sends a head and half of a body, and waits until the server asks for the rest. Its bytes are taken then.
async fn begun(server: &Server, body: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {body}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    stream
}

#[tokio::test]
async fn bodies_beyond_the_bound_are_not_read() {
    let server = Server::start(1 << 30, |_| {}).await;
    let first = begun(&server, BODIES_BYTES).await;
    // The server asks for no more of a body, announced or not, and breaks the connection after the hold.
    for length in ["content-length: 1", "transfer-encoding: chunked"] {
        let head = format!(
            "POST /webhook HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n{length}\r\n\r\n"
        );
        assert_eq!(server.raw(head.as_bytes()).await, "");
    }
    assert_eq!(server.status("GET", "/healthz", "", b"").await, 200);
    drop(first);
    // What it had taken is free again, some time after its connection has gone.
    while server.status("POST", "/webhook", "", &[b'x'; BODIES_BYTES]).await != 200 {}
    let mut first = begun(&server, BODIES_BYTES / 2).await;
    assert_eq!(server.status("POST", "/webhook", "", &[b'x'; BODIES_BYTES / 2]).await, 200);
    first.write_all(&[b'x'; BODIES_BYTES / 2]).await.unwrap();
    let mut answer = [0; 25];
    first.read_exact(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    drop(first);
    server.end().await;
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_says_so() {
    let server = Server::start(1 << 30, |_| {}).await;
    assert_eq!(server.status("POST", "/webhook", "", &[b'x'; 1000]).await, 200);
    // The next segment cannot be made: its name is taken by a folder.
    let taken = server.folder.path().join(format!("{:020}.journal", 1));
    std::fs::create_dir(&taken).unwrap();
    assert_eq!(server.request("POST", "/webhook", "", b"{}").await, "");
    let answer = server.request("GET", "/readyz", "", b"").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("journal cannot be written"),
        "{answer}"
    );
    assert!(!answer.contains("full"), "{answer}");
    std::fs::remove_dir(&taken).unwrap();
    assert_eq!(server.status("POST", "/webhook", "", b"{}").await, 200);
    assert_eq!(server.status("GET", "/readyz", "", b"").await, 200);
    server.end().await;
}

#[tokio::test]
async fn what_waits_is_counted_when_it_is_asked_for() {
    let server = Server::start(1 << 30, |_| {}).await;
    for _ in 0..3 {
        assert_eq!(server.status("POST", "/webhook", "", b"{}").await, 200);
    }
    let content = Content::Record {
        position: "journal/x@7".into(),
        source: "default".into(),
        body: Vec::new(),
    };
    server.dead_letters.put(&[DeadLetter { at: 1, reason: "no".into(), content }]).unwrap();
    let page = server.request("GET", "/metrics", "", b"").await;
    for line in ["callscope_queue_depth 3", "callscope_dead_letters 1"] {
        assert!(page.lines().any(|found| found == line), "{line}:\n{page}");
    }
    server.journal.release(2).unwrap();
    let page = server.request("GET", "/metrics", "", b"").await;
    assert!(page.contains("callscope_queue_depth 1\n"), "{page}");
    server.end().await;
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let server = Server::start(1 << 30, |_| {}).await;
    assert_eq!(server.status("GET", "/healthz", "", b"").await, 200);
    assert_eq!(server.status("GET", "/readyz", "", b"").await, 200);
    server.sink.send_replace(SinkStatus::Paused("password expired".into()));
    let answer = server.request("GET", "/readyz", "", b"").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("password expired"), "{answer}");
    assert_eq!(server.status("GET", "/healthz", "", b"").await, 200);
    server.sink.send_replace(SinkStatus::Accepting);
    server.disk.send_replace(Some("the disk is full".into()));
    let answer = server.request("GET", "/readyz", "", b"").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("disk is full"), "{answer}");
    let page = server.request("GET", "/metrics", "", b"").await;
    for name in [
        "callscope_sessions_active",
        "callscope_dead_letters",
        "callscope_http_requests_total{path=\"readyz\",code=\"503\"} 2",
    ] {
        assert!(page.contains(name), "{name}:\n{page}");
    }
    server.end().await;
}

#[tokio::test]
async fn the_api_answers_in_json_and_the_page_from_itself() {
    let server = Server::start(1 << 30, |_| {}).await;
    let page = server.request("GET", "/", "", b"").await;
    assert!(
        page.contains("content-security-policy: default-src 'none'; script-src 'self';")
            && !page.contains("unsafe")
            && page.contains("/app.js"),
        "{page}"
    );
    for script in ["/app.js", "/session.js", "/text.js", "/style.css"] {
        assert_eq!(server.status("GET", script, "", b"").await, 200, "{script}");
    }
    let tag = page.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    assert_eq!(server.status("GET", "/", &format!("if-none-match: {tag}\r\n"), b"").await, 304);
    assert_eq!(server.status("GET", "/api/search?limit=5000", "", b"").await, 400);
    assert_eq!(server.status("GET", "/api/search?from=yesterday", "", b"").await, 400);
    let missing = server.request("GET", "/nowhere", "", b"").await;
    assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("\"hint\""), "{missing}");
    assert_eq!(server.status("GET", "/webhook", "", b"").await, 405);
    server.end().await;
}

#[tokio::test]
async fn one_session_is_shown_with_its_events_whatever_its_version() {
    for (fixture, id, events) in [
        ("2.17-session.jsonl", "TestSession_1614772177070", 14),
        ("2.9-session.jsonl", "weih6kaewklr4i05_1554191765889", 9),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let index = indexed(folder.path(), fixture).await;
        let server = Server::over(index, 1 << 30, |_| {}).await;
        let answer = server.request("GET", &format!("/api/sessions/{id}"), "", b"").await;
        let body: serde_json::Value =
            serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(
            (body["events"].as_array().unwrap().len(), &body["totalEvents"]),
            (events, &events.into()),
            "{fixture}"
        );
        assert_eq!(body["summary"]["uniqueSessionId"], id);
        assert!(
            !body["connections"].as_array().unwrap().is_empty()
                && !body["recordings"].as_array().unwrap().is_empty()
        );
        assert!(body["summary"]["users"].get("content").is_none());
        let list = server.request("GET", "/api/sessions?q=test", "", b"").await;
        assert!(list.starts_with("HTTP/1.1 200"), "{list}");
        assert_eq!(server.status("GET", "/api/sessions/none", "", b"").await, 404);
        server.end().await;
    }
}

#[tokio::test]
async fn stopping_lets_a_request_under_way_finish() {
    let server = Server::start(1 << 30, |_| {}).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{")
        .await
        .unwrap();
    // The head is read once the server waits for the body; another request shows that it serves.
    assert_eq!(server.status("GET", "/healthz", "", b"").await, 200);
    server.stop.cancel();
    stream.write_all(b"}").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.journalled(), [b"{}"]);
    server.end().await;
}

#[tokio::test]
async fn more_connections_than_allowed_wait() {
    let server =
        Server::start(1 << 30, |config| config.http.connections_max = 1.try_into().unwrap()).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let mut waiting = Box::pin(server.status("GET", "/healthz", "", b""));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(first);
    assert_eq!(waiting.await, 200);
    server.end().await;
}

#[tokio::test]
async fn listening_for_everybody_needs_a_secret() {
    let mut config = Config::load(None, std::iter::empty()).unwrap().config;
    config.http.listen = "0.0.0.0:0".parse().unwrap();
    let error = Bound::bind(&config).await.unwrap_err();
    assert!(
        matches!(error, HttpError::Open { .. })
            && error.to_string().contains("sources.default.secrets"),
        "{error}"
    );
    SECRETS(&mut config);
    let error = Bound::bind(&config).await.unwrap_err();
    assert!(
        matches!(error, HttpError::Readable { .. })
            && error.to_string().contains("http.read_secrets"),
        "{error}"
    );
    config.http.read_secrets = vec![Secret::new("reader-secret")];
    let bound = Bound::bind(&config).await.unwrap();
    config.http.listen = bound.address();
    assert!(matches!(Bound::bind(&config).await, Err(HttpError::Listen { .. })));
}

#[tokio::test]
async fn whoever_never_reads_gives_the_place_free() {
    let server = Server::start(1 << 30, |config| {
        config.http.connections_max = 1.try_into().unwrap();
        config.http.idle_after = Duration::from_millis(100);
    })
    .await;
    let mut greedy = TcpStream::connect(server.address).await.unwrap();
    // Far more answers than the buffers of both sides hold, and none of them is read.
    let asked = "GET /app.js HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2000);
    let _broken_off = greedy.write_all(asked.as_bytes()).await;
    assert_eq!(server.status("POST", "/webhook", "", b"{}").await, 200);
    assert_eq!(server.journalled(), [b"{}"]);
    drop(greedy);
    server.end().await;
}

/// The other side of the bargain: slow is not dead.
#[tokio::test]
async fn whoever_reads_slowly_gets_everything() {
    let server =
        Server::start(1 << 30, |config| config.http.idle_after = Duration::from_millis(200)).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let asked = "GET /app.js HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(300);
    let asked = format!("{asked}GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let (mut read, mut write) = slow.split();
    let reading = async {
        let (mut all, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            match read.read(&mut piece).await.unwrap() {
                0 => return all,
                count => all.extend_from_slice(&piece[..count]),
            }
            tokio::task::yield_now().await;
        }
    };
    let (sent, all) = tokio::join!(write.write_all(asked.as_bytes()), reading);
    sent.unwrap();
    assert!(all.ends_with(b"ok\n"), "{}", all.len());
    server.end().await;
}

#[tokio::test]
async fn every_path_of_the_webhook_takes_the_event_or_says_401() {
    let server = Server::start(1 << 30, |_| {}).await;
    for (path, status) in [
        ("/webhook", 200),
        ("/webhook/", 200),
        ("/webhook/default", 200),
        ("/webhook/%FF", 401),
        ("/webhook/nobody", 401),
        ("/webhook/default/", 200),
        ("/webhook/default/more/of/it", 401),
    ] {
        assert_eq!(server.status("POST", path, "", b"{}").await, status, "{path}");
    }
    for header in ["origin: http://evil.example\r\n", "sec-fetch-site: cross-site\r\n"] {
        assert_eq!(server.status("POST", "/webhook", header, b"{}").await, 401, "{header}");
    }
    assert_eq!(server.journalled().len(), 4);
    server.end().await;
}

#[tokio::test]
async fn reading_needs_a_secret_where_there_is_one() {
    let server = Server::start(1 << 30, |config| {
        config.http.read_secrets = vec![Secret::new("reader-secret"), Secret::new("the-next-one")];
    })
    .await;
    // "any:reader-secret"
    let basic = "authorization: Basic YW55OnJlYWRlci1zZWNyZXQ=\r\n";
    for path in ["/", "/app.js", "/api/sessions", "/api/sessions/x_1", "/metrics", "/nowhere"] {
        let answer = server.request("GET", path, "", b"").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
        assert!(answer.contains("www-authenticate: Basic"), "a browser must ask: {answer}");
        assert_ne!(server.status("GET", path, basic, b"").await, 401, "{path}");
    }
    for (headers, status) in [
        ("authorization: Bearer the-next-one\r\n", 200),
        ("x-callscope-secret: reader-secret\r\n", 200),
        ("authorization: Bearer other-secret\r\n", 401),
        ("host: evil.example\r\nauthorization: Bearer the-next-one\r\n", 200),
    ] {
        assert_eq!(server.status("GET", "/metrics", headers, b"").await, status, "{headers}");
    }
    assert_eq!(server.status("GET", "/metrics?secret=reader-secret", "", b"").await, 401);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.status("GET", path, "", b"").await, 200, "{path}");
    }
    assert_eq!(server.status("POST", "/webhook", "", b"{}").await, 200, "it has its own");
    server.end().await;
}

#[tokio::test]
async fn without_a_secret_only_this_machine_s_names_are_answered() {
    let server = Server::start(1 << 30, |_| {}).await;
    let status = async |host: &str| {
        let asked =
            format!("GET /api/sessions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        server.raw(asked.as_bytes()).await.get(9..12).unwrap().to_owned()
    };
    for host in ["localhost", "localhost:7300", "127.0.0.1:7300", "[::1]:7300", "a.localhost:1"] {
        assert_eq!(status(host).await, "200", "{host}");
    }
    for host in ["evil.example:7300", "evil.example", "localhost.evil.example", "127.0.0.1.nip.io"]
    {
        assert_eq!(status(host).await, "403", "{host}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_head_above_the_limit_is_refused_whatever_the_buffer_held() {
    let server = Server::start(1 << 30, |_| {}).await;
    for (bytes, status) in [(31_000, 200), (33_000, 431), (48_000, 431)] {
        let long = format!("x-long: {}\r\n", "x".repeat(bytes));
        assert_eq!(server.status("GET", "/healthz", &long, b"").await, status, "{bytes}");
    }
    server.end().await;
}

#[tokio::test]
async fn parameters_that_cannot_be_taken_are_named_with_what_would_be_right() {
    let server = Server::start(1 << 30, |_| {}).await;
    for (path, told) in [
        ("/api/sessions?limit=-1", "whole number"),
        ("/api/search?offset=99999", "0 to 10000"),
        ("/api/search?sort=odd", "timestamp:up"),
        ("/api/search?sort=geoPoints:up", "timestamp:up"),
        ("/api/sessions?sort=duration", "duration:down"),
        ("/api/sessions?from=monday", "milliseconds"),
        ("/api/sessions?user=Ana", "no parameter user"),
        ("/api/sessions?q=a&q=b", "q is given twice"),
    ] {
        let answer = server.request("GET", path, "", b"").await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(told), "{path}: {answer}");
    }
    server.end().await;
}

#[tokio::test]
async fn open_sessions_obey_what_was_asked_for() {
    let server = Server::start(1 << 30, |_| {}).await;
    for (query, count) in [("", 1), ("?q=img", 1), ("?q=zelda", 1), ("?q=u7", 1), ("?q=link", 0)] {
        let body = server.json(&format!("/api/sessions{query}")).await;
        assert_eq!(body["live"]["sessions"].as_array().unwrap().len(), count, "{query}");
        assert_eq!(body["live"]["totals"]["sessions"], count, "{query}");
    }
    let body = server.json("/api/sessions?from=1").await;
    assert!(body.get("live").is_none(), "times are those of ended sessions: {body}");
    server.end().await;
}

#[tokio::test]
async fn of_many_open_sessions_each_is_found_and_the_first_are_listed() {
    let server = Server::start(1 << 30, |_| {}).await;
    server.live.send_modify(|live| {
        let mut now = Live::clone(live);
        for index in 0..700 {
            let unique_session_id = format!("mass-{index}_1");
            now.sessions.push(Arc::new(LiveSession {
                session_id: format!("mass-{index}"),
                unique_session_id,
                open: Totals { sessions: 1, ..Totals::default() },
                ..LiveSession::default()
            }));
        }
        now.totals.sessions += 700;
        *live = Arc::new(now);
    });
    let list = server.json("/api/sessions").await;
    assert_eq!(list["live"]["sessions"].as_array().unwrap().len(), 500);
    assert_eq!(list["live"]["totals"]["sessions"], 701);
    let found = server.json("/api/sessions?q=mass-699").await;
    assert_eq!(found["live"]["sessions"][0]["uniqueSessionId"], "mass-699_1");
    assert_eq!(found["live"]["totals"]["sessions"], 1);
    let one = server.json("/api/sessions/mass-699_1").await;
    assert_eq!(one["open"]["sessionId"], "mass-699");
    server.end().await;
}

#[tokio::test]
async fn sessions_are_found_by_who_was_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let index = indexed(folder.path(), "2.17-session.jsonl").await;
    let server = Server::over(index, 1 << 30, |_| {}).await;
    for (text, count) in
        [("TestSession", 1), ("publisherclient", 1), ("subscriberCl", 1), ("nobody", 0)]
    {
        let body = server.json(&format!("/api/sessions?q={text}")).await;
        assert_eq!(body["total"], count, "{text}: {body}");
        assert_eq!(body["ended"].as_array().unwrap().len(), count, "{text}");
    }
    server.end().await;
}

/// An index of `count` documents of `bytes` each.
async fn large(folder: &std::path::Path, count: usize, bytes: usize) -> AnyIndex {
    let config = Config::load(None, std::iter::empty()).unwrap().config;
    let (stop, status) = (CancellationToken::new(), StatusSender::default());
    let index = EmbeddedIndex::open(folder, &config.embedded, stop, status).unwrap();
    let documents: Vec<Document> = (0..count)
        .map(|number| Document {
            id: format!("{number:05}").into(),
            index_time: 0,
            elastic_type: "cdr".into(),
            version: None,
            json: format!(
                "{{\"elastic_type\":\"cdr\",\"timestamp\":{number},\"content\":\"{}\"}}",
                "x".repeat(bytes)
            )
            .into(),
        })
        .collect();
    index.write(&documents).await.unwrap();
    AnyIndex::Embedded(Arc::new(index))
}

#[tokio::test]
async fn an_answer_is_cut_by_bytes_and_goes_on_where_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let index = large(folder.path(), 100, 200_000).await;
    let server = Server::over(index, 1 << 30, |_| {}).await;
    let (mut seen, mut offset, mut answers) = (Vec::new(), 0, 0);
    loop {
        let path = format!("/api/search?sort=timestamp:up&limit=1000&offset={offset}");
        let body = server.json(&path).await;
        assert!(body.to_string().len() <= 9 << 20, "{}", body.to_string().len());
        let documents = body["documents"].as_array().unwrap();
        seen.extend(documents.iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()));
        answers += 1;
        assert_eq!(body["total"], 100);
        match body["nextOffset"].as_u64() {
            Some(next) => {
                assert_eq!(body["truncated"], true);
                offset = next;
            }
            None => break,
        }
    }
    let expected: Vec<String> = (0..100).map(|number| format!("{number:05}")).collect();
    assert_eq!((seen, answers), (expected, 3));
    server.end().await;
}

#[tokio::test]
async fn many_large_answers_at_once_wait_for_room_and_all_come() {
    let folder = tempfile::tempdir().unwrap();
    let index = large(folder.path(), 30, 100_000).await;
    let server = Server::over(index, 1 << 30, |_| {}).await;
    let all = (0..40).map(|_| server.json("/api/search?limit=1000"));
    for body in futures_util::future::join_all(all).await {
        assert_eq!(body["documents"].as_array().unwrap().len(), 30);
    }
    server.end().await;
}

#[tokio::test]
async fn without_an_index_what_is_open_is_shown_and_the_rest_says_why_not() {
    let server = Server::start(1 << 20, |_| {}).await;
    let list = server.json("/api/sessions").await;
    assert_eq!(list["live"]["sessions"][0]["uniqueSessionId"], "x_1");
    assert!(list["error"].as_str().unwrap().contains("sink.kind is stdout"), "{list}");
    let one = server.json("/api/sessions/x_1").await;
    assert_eq!(one["present"], serde_json::json!({ "con_Z": "Zelda of Hyrule" }), "{one}");
    assert_eq!((&one["open"]["users"], &one["summary"]), (&1.into(), &serde_json::Value::Null));
    assert!(one["error"].as_str().unwrap().contains("sink.kind is stdout"), "{one}");
    for path in ["/api/search", "/api/sessions/no_such"] {
        let answer = server.request("GET", path, "", b"").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("set sink.kind"), "{answer}");
    }
    assert_eq!(server.status("GET", "/api/search?offset=10000", "", b"").await, 400);
    server.end().await;
}
