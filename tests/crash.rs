//! The real binary, killed under webhook load and with its files damaged: every event that was acknowledged is in the index,
//! once, and the summaries are those of an undisturbed run; or what is lost is said.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use callscope::config::EmbeddedConfig;
use callscope::search::{Search, Sort};
use callscope::simulate::rng::Rng;
use callscope::simulate::send::{Sender, Webhook};
use callscope::simulate::session;
use callscope::sink::StatusSender;
use callscope::sink::embedded::EmbeddedIndex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[path = "support/instance.rs"]
#[expect(dead_code, reason = "groups need more of it")]
mod instance;
#[path = "support/small_disk.rs"]
mod small_disk;

use instance::Instance;

const KILLS: u64 = 20;
/// Senders, each with one request under way.
const SENDERS: usize = 16;

fn serve(data_dir: &Path) -> Instance {
    serve_with(data_dir, &[])
}

fn serve_with(data_dir: &Path, environment: &[(&str, &str)]) -> Instance {
    Instance::start(
        Command::new(env!("CARGO_BIN_EXE_callscope"))
            .env("CALLSCOPE__DATA_DIR", data_dir)
            .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
            .env("CALLSCOPE__STATS__EVERY", "0s")
            // Senders are not in step, and sessions last hours: without this, some events would be late.
            .env("CALLSCOPE__SESSIONS__KEEP", "7d")
            // Small segments, so that some are deleted between the kills.
            .env("CALLSCOPE__JOURNAL__SEGMENT_BYTES", "50000")
            .env("CALLSCOPE__JOURNAL__RESERVE_BYTES", "0")
            .envs(environment.iter().copied()),
    )
}

impl Instance {
    /// Until the journal is dealt with.
    async fn settled(&self, events: usize) {
        self.wait_for("/metrics", "callscope_queue_depth 0\n").await;
        self.wait_for("/api/search?type=cdr&limit=0", &format!("\"total\":{events},")).await;
    }
}

/// Everything in an index, by id, without what the lane knew at that moment, which is not promised.
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
        let search = Search { limit: 1000, offset, sort: Sort::oldest(), ..Search::default() };
        let page = index.search(&search).unwrap();
        offset += page.documents.len();
        if page.documents.is_empty() {
            assert_eq!(documents.len(), offset, "an id twice");
            return documents;
        }
        for found in page.documents {
            let mut json: Value = serde_json::from_str(found.source.get()).unwrap();
            json.as_object_mut().unwrap().remove("processingMs");
            documents.insert(found.id, json);
        }
    }
}

/// Events of many sessions, each session's in its order.
fn load(events: usize) -> Vec<Vec<String>> {
    let mut rng = Rng::new(7);
    let (mut sessions, mut count) = (Vec::new(), 0);
    while count < events {
        let start = 1_700_000_000_000 + i64::try_from(count).unwrap() * 1000;
        let bodies: Vec<String> =
            session(rng.number(), start, 1).0.into_iter().map(|event| event.json).collect();
        count += bodies.len();
        sessions.push(bodies);
    }
    sessions
}

/// Bodies that are not copies of one another.
fn unique(sessions: &[Vec<String>]) -> usize {
    sessions.iter().flatten().collect::<std::collections::BTreeSet<_>>().len()
}

/// Sends everything: sessions side by side, each in its order, each event until it is acknowledged by whoever serves then.
struct Load {
    address: watch::Sender<SocketAddr>,
    acknowledged: watch::Receiver<u64>,
    senders: JoinSet<()>,
    events: u64,
}

impl Load {
    fn start(sessions: &[Vec<String>], address: SocketAddr) -> Self {
        let (address, serving) = watch::channel(address);
        let (count, acknowledged) = watch::channel(0);
        let mut senders = JoinSet::new();
        for first in 0..SENDERS {
            let own: Vec<String> =
                sessions.iter().skip(first).step_by(SENDERS).flatten().cloned().collect();
            let (mut serving, count) = (serving.clone(), count.clone());
            senders.spawn(async move {
                let mut sender = Sender::new(Webhook::at(*serving.borrow_and_update()));
                for body in own {
                    while sender.send(&body).await.is_err() {
                        let _again =
                            tokio::time::timeout(Duration::from_millis(20), serving.changed())
                                .await;
                        sender = Sender::new(Webhook::at(*serving.borrow_and_update()));
                    }
                    count.send_modify(|count| *count += 1);
                }
            });
        }
        let events = sessions.iter().map(|bodies| bodies.len() as u64).sum();
        Self { address, acknowledged, senders, events }
    }

    async fn acknowledged(&mut self, count: u64) {
        self.acknowledged.wait_for(|acknowledged| *acknowledged >= count).await.unwrap();
    }

    async fn end(self) {
        self.senders.join_all().await;
    }
}

/// What comes out when nothing happens.
async fn calm(data_dir: &Path, sessions: &[Vec<String>]) -> BTreeMap<String, Value> {
    let serve = self::serve(data_dir);
    Load::start(sessions, serve.address).end().await;
    serve.settled(unique(sessions)).await;
    serve.stop();
    documents(data_dir)
}

fn assert_same(found: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) {
    for (these, those, wrong) in [(found, expected, "too much"), (expected, found, "missing")] {
        for (id, document) in these {
            assert!(those.contains_key(id), "{wrong}: {id} {document}");
        }
    }
    for (id, document) in expected {
        assert_eq!(&found[id], document, "{id}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_once() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = load(2000);
    let data_dir = folder.path().join("killed");
    let mut rng = Rng::new(std::process::id().into());
    let mut serve = self::serve(&data_dir);
    let mut load = Load::start(&sessions, serve.address);
    for kill in 0..KILLS {
        // Sixteen are under way when it dies, at any moment of theirs.
        let from = load.events * kill / KILLS;
        load.acknowledged(from + 1 + rng.below(load.events / KILLS - SENDERS as u64)).await;
        serve.kill();
        serve = self::serve(&data_dir);
        load.address.send_replace(serve.address);
    }
    load.end().await;
    serve.settled(unique(&sessions)).await;
    serve.stop();
    let calm = calm(&folder.path().join("calm"), &sessions).await;
    assert_same(&documents(&data_dir), &calm);
}

/// Nothing is read and nothing is written before the store is there: what was open is known all the same.
#[tokio::test]
async fn what_was_open_is_known_while_the_store_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let first = serve(folder.path());
    let webhook = format!("http://{}/webhook", first.address).parse().unwrap();
    let mut sender = Sender::new(webhook);
    let time = chrono::Utc::now().timestamp_millis();
    for event in ["sessionCreated", "participantJoined"] {
        let event = format!(
            r#"{{"event":"{event}","sessionId":"goes-on","uniqueSessionId":"goes-on_{time}","connectionId":"con_A","timestamp":{time}}}"#
        );
        sender.send(&event).await.unwrap();
    }
    first.wait_for("/api/sessions", "\"connections\":1").await;
    first.kill();
    let store = [
        ("CALLSCOPE__SINK__KIND", "elasticsearch"),
        ("CALLSCOPE__ELASTICSEARCH__URLS", "http://127.0.0.1:9"),
    ];
    let second = serve_with(folder.path(), &store);
    second.wait_for("/api/sessions", "\"sessionId\":\"goes-on\"").await;
    let told = second.get("/api/sessions").await;
    assert!(!told.contains("\"madeAt\":0") && told.contains("the index does not answer"), "{told}");
    second.kill();
}

/// The points stand only in debug builds.
#[cfg(debug_assertions)]
#[tokio::test]
async fn dying_at_each_point_of_a_record_s_way_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = load(300);
    let calm = calm(&folder.path().join("calm"), &sessions).await;
    for (point, count) in [
        ("journal-written", 5),
        ("journal-synced", 5),
        ("sink-written", 2),
        ("checkpoint-saved", 2),
    ] {
        let data_dir = folder.path().join(point);
        let environment = [("CALLSCOPE_KILL_POINT", &*format!("{point}:{count}"))];
        let mut dying = serve_with(&data_dir, &environment);
        let load = Load::start(&sessions, dying.address);
        let ended =
            tokio::task::spawn_blocking(move || dying.process.wait().unwrap()).await.unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&ended);
        assert_eq!(signal, Some(6), "{point}: {ended}");
        let serve = self::serve(&data_dir);
        load.address.send_replace(serve.address);
        load.end().await;
        serve.settled(unique(&sessions)).await;
        serve.stop();
        assert_same(&documents(&data_dir), &calm);
    }
}

/// Segments of the journal, oldest first.
fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir.join("journal")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn an_event_after_a_damaged_record_is_dealt_with() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = load(40);
    let (before, after) = sessions.split_at(1);
    // Counted from the end of the file: the body of the last record, its head, and its half.
    for damage in ["body", "head", "cut"] {
        let data_dir = folder.path().join(damage);
        let serve = self::serve(&data_dir);
        Load::start(before, serve.address).end().await;
        serve.settled(unique(before)).await;
        serve.stop();
        let path = segments(&data_dir).pop().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let head = bytes.windows(4).rposition(|bytes| bytes == b"REC\x1e").unwrap();
        match damage {
            "body" => *bytes.last_mut().unwrap() ^= 1,
            "head" => bytes[head + 9] ^= 1,
            _ => bytes.truncate(head + 50),
        }
        fs::write(&path, bytes).unwrap();
        let serve = self::serve(&data_dir);
        let told = "already dealt with";
        assert_eq!(serve.has_told(told), damage == "cut", "{}", serve.told());
        Load::start(after, serve.address).end().await;
        serve.settled(unique(&sessions)).await;
        serve.wait_for("/metrics", "callscope_dead_letters 0\n").await;
        serve.stop();
    }
}

/// A journal that nobody has read yet, in many segments.
async fn unread(data_dir: &Path, sessions: &[Vec<String>]) {
    let away = [
        ("CALLSCOPE__SINK__KIND", "elasticsearch"),
        ("CALLSCOPE__ELASTICSEARCH__URLS", "http://127.0.0.1:1"),
    ];
    let serve = serve_with(data_dir, &away);
    Load::start(sessions, serve.address).end().await;
    let events: usize = sessions.iter().map(Vec::len).sum();
    // What waits behind a dead sink is counted although no cycle ends.
    serve.wait_for("/metrics", &format!("callscope_queue_depth {events}\n")).await;
    serve.kill();
    assert!(segments(data_dir).len() > 3);
}

#[tokio::test]
async fn a_missing_segment_is_told_of_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = load(500);
    unread(folder.path(), &sessions).await;
    let segments = segments(folder.path());
    let number =
        |path: &Path| -> usize { path.file_stem().unwrap().to_str().unwrap().parse().unwrap() };
    let (first, next) = (number(&segments[1]), number(&segments[2]));
    fs::remove_file(&segments[1]).unwrap();
    let serve = self::serve(folder.path());
    serve.wait_for("/metrics", "callscope_queue_depth 0\n").await;
    let page = serve.get("/metrics").await;
    let events: usize = sessions.iter().map(Vec::len).sum();
    let records: usize = page
        .lines()
        .filter(|line| line.starts_with("callscope_records_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(records, events - (next - first));
    for line in [
        format!("callscope_journal_records_lost_total {}\n", next - first),
        "callscope_dead_letters 0\n".to_owned(),
    ] {
        assert!(page.contains(&line), "{line}:\n{page}");
    }
    let told = format!("first={first} last={} count={}", next - 1, next - first);
    assert!(serve.has_told(&told), "{told}:\n{}", serve.told());
    serve.stop();
}

#[tokio::test]
async fn a_damaged_header_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = load(500);
    unread(folder.path(), &sessions).await;
    for path in segments(folder.path()).into_iter().step_by(2) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 4;
        fs::write(&path, bytes).unwrap();
    }
    let serve = self::serve(folder.path());
    assert!(serve.has_told("damaged header"));
    serve.settled(unique(&sessions)).await;
    serve.wait_for("/metrics", "callscope_dead_letters 0\n").await;
    serve.stop();
}

#[tokio::test]
async fn a_checkpoint_that_is_gone_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = load(40);
    let serve = self::serve(folder.path());
    assert!(!serve.has_told("NO CHECKPOINT"));
    Load::start(&sessions, serve.address).end().await;
    serve.settled(unique(&sessions)).await;
    serve.stop();
    let serve = self::serve(folder.path());
    assert!(!serve.has_told("NO CHECKPOINT"));
    serve.stop();
    fs::remove_file(folder.path().join("checkpoint.redb")).unwrap();
    let serve = self::serve(folder.path());
    assert!(serve.has_told("NO CHECKPOINT"), "{}", serve.told());
    serve.stop();
}

#[tokio::test]
async fn a_journal_that_fills_up_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("CALLSCOPE__SINK__KIND", "elasticsearch"),
        ("CALLSCOPE__ELASTICSEARCH__URLS", "http://127.0.0.1:1"),
        ("CALLSCOPE__JOURNAL__BYTES_MAX", "200000"),
        ("CALLSCOPE__HTTP__BODY_BYTES_MAX", "100000"),
    ];
    let serve = serve_with(folder.path(), &environment);
    let bodies: Vec<String> = (0..100).map(|number| format!("{number:1000}")).collect();
    let mut sent = Load::start(std::slice::from_ref(&bodies), serve.address);
    sent.acknowledged(100).await;
    assert!(!serve.has_told("filling up"));
    let mut sent = Load::start(&[bodies], serve.address);
    sent.acknowledged(80).await;
    serve.wait_for("/readyz", "raise journal.bytes_max").await;
    let told = serve.told().matches("filling up").count();
    assert_eq!(told, 1);
    serve.kill();
}

/// With a reserve, the journal stops first; without one, whatever writes next.
#[tokio::test]
async fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    for reserve in ["2000000", "0"] {
        let Some(disk) = small_disk::SmallDisk::mount(32) else { return };
        let sessions = load(600);
        let data_dir = disk.path().join("data");
        let serve = serve_with(&data_dir, &[("CALLSCOPE__JOURNAL__RESERVE_BYTES", reserve)]);
        let mut load = Load::start(&sessions, serve.address);
        load.acknowledged(200).await;
        let ballast = disk.fill(100_000);
        serve.wait_for("/readyz", "HTTP/1.1 503").await;
        fs::remove_file(ballast).unwrap();
        load.end().await;
        serve.settled(unique(&sessions)).await;
        serve.wait_for("/readyz", "HTTP/1.1 200").await;
        serve.stop();
        let folder = tempfile::tempdir().unwrap();
        assert_same(&documents(&data_dir), &calm(folder.path(), &sessions).await);
    }
}

/// Each of the two files on a disk of its own, which is full.
#[tokio::test]
async fn checkpoint_and_dead_letters_wait_for_room() {
    for file in ["checkpoint.redb", "dead-letters.redb"] {
        let Some(disk) = small_disk::SmallDisk::mount(4) else { return };
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(disk.path().join(file), folder.path().join(file)).unwrap();
        let sessions = load(400);
        let garbage: Vec<String> =
            (0..200).map(|number| format!("{number} is no event{}", " ".repeat(5000))).collect();
        let serve = self::serve(folder.path());
        let ballast = disk.fill(0);
        let both: Vec<Vec<String>> = sessions.iter().cloned().chain([garbage]).collect();
        let sent = Load::start(&both, serve.address);
        serve.wait_for("/readyz", "the disk is full; free space").await;
        fs::remove_file(ballast).unwrap();
        sent.end().await;
        serve.settled(unique(&sessions)).await;
        serve.wait_for("/metrics", "callscope_dead_letters 200\n").await;
        serve.wait_for("/readyz", "HTTP/1.1 200").await;
        serve.stop();
    }
}
