//! `kill -9` of the real binary under webhook load: every event that was acknowledged is in the index, once, and the
//! summaries are those of an undisturbed run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shows where"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use callscope::config::EmbeddedConfig;
use callscope::search::{Order, Search};
use callscope::simulate::rng::Rng;
use callscope::simulate::send::Sender;
use callscope::simulate::session;
use callscope::sink::StatusSender;
use callscope::sink::embedded::EmbeddedIndex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

const KILLS: usize = 20;

/// A running `serve`, and its address.
struct Serve {
    process: Child,
    address: SocketAddr,
}

impl Serve {
    fn start(data_dir: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_callscope"))
            .arg("serve")
            .env("CALLSCOPE__DATA_DIR", data_dir)
            .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
            .env("CALLSCOPE__STATS__EVERY", "0s")
            // Small segments, so that some are deleted between the kills.
            .env("CALLSCOPE__JOURNAL__SEGMENT_BYTES", "50000")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut told = String::new();
        let address = loop {
            let Some(line) = lines.next() else { panic!("serve ended:\n{told}") };
            let line = line.unwrap();
            if let Some(url) = line.strip_prefix("callscope listens on http://") {
                break url.parse().unwrap();
            }
            told.push_str(&line);
        };
        // Whatever else it says is read, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn stop(mut self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.process.wait().unwrap().success());
    }
}

/// Everything in an index, by id.
fn documents(data_dir: &Path) -> BTreeMap<String, Value> {
    let config = EmbeddedConfig { heap_bytes: std::num::NonZeroUsize::new(20_000_000).unwrap() };
    let index = EmbeddedIndex::open(
        &data_dir.join("index"),
        &config,
        CancellationToken::new(),
        StatusSender::default(),
    )
    .unwrap();
    let mut documents = BTreeMap::new();
    let mut offset = 0;
    loop {
        let search = Search { limit: 1000, offset, order: Order::Oldest, ..Search::default() };
        let page = index.search(&search).unwrap();
        offset += page.documents.len();
        if page.documents.is_empty() {
            assert_eq!(documents.len(), offset, "an id twice");
            return documents;
        }
        for found in page.documents {
            documents.insert(found.id, serde_json::from_str(found.source.get()).unwrap());
        }
    }
}

/// Until the journal is dealt with.
async fn settled(address: SocketAddr, expected: usize) {
    let client = |path: &str| {
        let url = format!("http://{address}{path}");
        async move {
            tokio::process::Command::new("curl").args(["-sS", &url]).output().await.unwrap().stdout
        }
    };
    let mut found = Value::Null;
    // Far more looks than a slow machine needs; without an end, a lost event would show as a test that hangs.
    for _ in 0..20_000 {
        found = serde_json::from_slice(&client("/api/search?type=cdr&limit=0").await)
            .unwrap_or_default();
        if found["total"].as_u64() == Some(expected as u64) {
            return;
        }
    }
    panic!("{found} instead of {expected} events");
}

fn load() -> Vec<String> {
    let mut rng = Rng::new(7);
    let mut bodies = Vec::new();
    while bodies.len() < 1500 {
        let start = 1_700_000_000_000 + i64::try_from(bodies.len()).unwrap() * 1000;
        bodies.extend(session(rng.number(), start, 1).0.into_iter().map(|event| event.json));
    }
    bodies
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_once() {
    let folder = tempfile::tempdir().unwrap();
    let bodies = load();
    let (killed, calm) = (folder.path().join("killed"), folder.path().join("calm"));
    let mut rng = Rng::new(std::process::id().into());
    let mut kills = 0;
    let mut next = 0;
    while next < bodies.len() {
        let serve = Serve::start(&killed);
        let mut sender = Sender::new(serve.address, "/webhook");
        let until = if kills < KILLS {
            next + 1 + usize::try_from(rng.below(bodies.len() as u64 / KILLS as u64)).unwrap()
        } else {
            bodies.len()
        };
        while next < until.min(bodies.len()) {
            sender.send(&bodies[next]).await.unwrap();
            next += 1;
        }
        if next == bodies.len() {
            serve.kill();
        } else {
            // One more is under way, acknowledged or not, when it dies; it is sent again, as OpenVidu would.
            let mut dying = Sender::new(serve.address, "/webhook");
            let body = bodies[next].clone();
            let sent = tokio::spawn(async move { dying.send(&body).await.is_ok() });
            tokio::task::yield_now().await;
            serve.kill();
            kills += 1;
            let _acknowledged = sent.await.unwrap();
        }
    }
    assert_eq!(kills, KILLS);
    let unique = unique_events(&bodies);
    let serve = Serve::start(&killed);
    settled(serve.address, unique).await;
    serve.stop();

    let serve = Serve::start(&calm);
    let mut sender = Sender::new(serve.address, "/webhook");
    for body in &bodies {
        sender.send(body).await.unwrap();
    }
    settled(serve.address, unique).await;
    serve.stop();
    let (killed, calm) = (documents(&killed), documents(&calm));
    assert_eq!(killed.keys().collect::<Vec<_>>(), calm.keys().collect::<Vec<_>>());
    for (id, document) in &calm {
        // What the lane knew at that moment is not promised.
        let plain = |json: &Value| {
            let mut json = json.clone();
            json.as_object_mut().unwrap().remove("processingMs");
            json
        };
        assert_eq!(plain(&killed[id]), plain(document), "{id}");
    }
}

/// Bodies that are not copies of one another.
fn unique_events(bodies: &[String]) -> usize {
    bodies.iter().collect::<std::collections::BTreeSet<_>>().len()
}
