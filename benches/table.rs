//! Measures what the design sets goals for, and prints one table. CPU time is that of this process, user and system.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a program for people who measure"
)]

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use callscope::checkpoint::{Checkpoint, Progress};
use callscope::config::{Config, EmbeddedConfig};
use callscope::document::Document;
use callscope::enrich::place::GeoIp;
use callscope::journal::{Bounds, Journal};
use callscope::lane::fold::Folder;
use callscope::lane::{Item, Lane};
use callscope::live::Live;
use callscope::metrics::Metrics;
use callscope::record::{Input, Position, Positions, Record};
use callscope::sessions::Limits;
use callscope::simulate::rng::Rng;
use callscope::simulate::session;
use callscope::sink::embedded::EmbeddedIndex;
use callscope::sink::{Sink, SinkError, StatusSender, Written};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Acknowledges everything, after gzip as for Elasticsearch.
struct BlackHole;

impl Sink for BlackHole {
    async fn setup(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, documents: &[Document]) -> Result<Vec<Written>, SinkError> {
        use std::io::Write;
        let mut encoder =
            flate2::write::GzEncoder::new(std::io::sink(), flate2::Compression::fast());
        for document in documents {
            encoder.write_all(&document.json).unwrap();
        }
        encoder.finish().unwrap();
        Ok(vec![Written::Stored; documents.len()])
    }
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit_once(") ").unwrap().1;
    let ticks: u64 =
        after.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn row(what: &str, figure: &str, goal: &str) {
    println!("| {what} | {figure} | {goal} |");
}

fn config() -> Config {
    Config::load(None, std::iter::empty()).unwrap().config
}

fn records(count: usize) -> Vec<Record> {
    let input = Input("bench".into());
    let source: Arc<str> = Arc::from("default");
    let mut rng = Rng::new(1);
    let mut records = Vec::with_capacity(count);
    let mut start = 1_700_000_000_000;
    while records.len() < count {
        start += 60_000;
        for event in session(rng.number(), start, 1).0 {
            let offset = records.len() as u64;
            records.push(Record {
                position: Position { input: input.clone(), offset },
                next_offset: offset + 1,
                source: Arc::clone(&source),
                payload: Bytes::from(event.json),
            });
        }
    }
    records
}

fn lane<S: Sink>(sink: S, config: &Config) -> Lane<S> {
    Lane {
        folder: Folder::new(config, Arc::new(GeoIp::default()), false),
        sink,
        checkpoint: None,
        dead_letters: None,
        progress: Progress::default(),
        metrics: Arc::new(Metrics::new()),
        live: watch::Sender::new(Arc::new(Live::default())),
        behind: BTreeSet::new(),
        stats_every: 0,
        takes_any_time: true,
    }
}

async fn pipeline(records: &[Record]) {
    let config = config();
    let before = resident();
    let mut lane = lane(BlackHole, &config);
    let (cpu_before, started) = (cpu(), Instant::now());
    for batch in records.chunks(5000) {
        let items = batch.iter().cloned().map(Item::Record).collect();
        lane.cycle(items, 1_800_000_000_000).await.unwrap();
    }
    let (spent, elapsed) = (cpu() - cpu_before, started.elapsed());
    let tally = lane.progress.tally;
    let count = records.len() as f64;
    let micros = spent.as_secs_f64() * 1e6 / count;
    row(
        "decode, enrich, fold, encode, gzip to a sink that acknowledges: CPU an event",
        &format!("{micros:.2} µs"),
        "≤ 6.6 µs",
    );
    row("the same, wall", &format!("{:.0} events/s", count / elapsed.as_secs_f64()), "150 000/s");
    let summaries = (tally.documents - tally.records) as f64;
    row("summary writes an event on replay", &format!("{:.2}", summaries / count), "≤ 0.3");
    let entities = lane.folder.sessions.entities();
    let bytes = (resident() - before) as f64 / entities as f64;
    row(&format!("memory an entity kept ({entities} of them)"), &format!("{bytes:.0} B"), "≤ 2 kB");
    restart(lane);
}

fn restart(mut lane: Lane<BlackHole>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.redb");
    let entities = lane.folder.sessions.entities();
    let config = config();
    {
        // The changes of the last cycle alone are unsaved; everything is, seen from an empty file.
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        lane.folder.sessions.touch_all();
        checkpoint.save(&lane.progress, &lane.folder.sessions.changes().unwrap()).unwrap();
    }
    let started = Instant::now();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (_, sessions) = checkpoint.load(Limits::new(&config.sessions), true).unwrap();
    assert_eq!(sessions.entities(), entities);
    row(
        &format!("restart with {entities} entities"),
        &format!("{:.2} s", started.elapsed().as_secs_f64()),
        "5 s with 100 000",
    );
}

async fn journal() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, writer, _) = Journal::open(
        folder.path(),
        Bounds { bytes_max: 1 << 34, segment_bytes: 1 << 26, reserve_bytes: 0 },
        &Positions::default(),
    )
    .unwrap();
    for (connections, each, goal) in [(64, 600, "20 000/s"), (1, 1000, "p99 < 50 ms")] {
        let started = Instant::now();
        let tasks = (0..connections).map(|_| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let mut slowest = Vec::with_capacity(each);
                for _ in 0..each {
                    let asked = Instant::now();
                    journal.append("default", 0, &[b'x'; 400]).await.unwrap();
                    slowest.push(asked.elapsed());
                }
                slowest
            })
        });
        let mut latencies = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            latencies.extend(task.await.unwrap());
        }
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
        let rate = f64::from(connections) * each as f64 / started.elapsed().as_secs_f64();
        let figure = format!("{rate:.0}/s, p99 {:.1} ms", p99.as_secs_f64() * 1e3);
        row(&format!("durable appends to the journal, {connections} at once"), &figure, goal);
    }
    row("disk syncs for them", &journal.syncs().to_string(), "");
    journal.close();
    writer.join();
}

async fn embedded(records: &[Record]) {
    let folder = tempfile::tempdir().unwrap();
    let embedded = EmbeddedConfig { heap_bytes: NonZeroUsize::new(64 << 20).unwrap() };
    let index = EmbeddedIndex::open(
        folder.path(),
        &embedded,
        CancellationToken::new(),
        StatusSender::default(),
    )
    .unwrap();
    let config = config();
    let mut lane = lane(index, &config);
    let started = Instant::now();
    for batch in records.chunks(5000) {
        let items = batch.iter().cloned().map(Item::Record).collect();
        lane.cycle(items, 1_800_000_000_000).await.unwrap();
    }
    let documents = lane.progress.tally.documents as f64;
    let figure = format!("{:.0} documents/s", documents / started.elapsed().as_secs_f64());
    row(&format!("import into the embedded index, {documents} documents"), &figure, "20 000/s");
}

fn main() {
    // `cargo test` builds and runs benches with this flag; there is nothing to test here.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("| what | measured | goal |\n|---|---|---|");
    let records = records(200_000);
    runtime.block_on(pipeline(&records));
    runtime.block_on(journal());
    runtime.block_on(embedded(records.get(..100_000).unwrap_or(&records)));
}
