//! Measures what the design sets goals for, and prints one table. CPU time is user and system of the process that works.
//!
//! `cargo bench --bench table [-- NAME…]` measures the rows whose group is named: `fold`, `import`, `webhook`, `embedded`,
//! `dashboards`, `memory`, `restart`, `rest`, `search`, `kafka`, `replay`; all of them without a name. The last three need a JDK and Maven,
//! and the last one some minutes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a program for people who measure"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use callscope::checkpoint::{Checkpoint, Disk, Progress};
use callscope::command::AnyIndex;
use callscope::config::{Config, EmbeddedConfig};
use callscope::document::Document;
use callscope::enrich::place::GeoIp;
use callscope::lane::fold::Folder;
use callscope::lane::outlet::Outlet;
use callscope::lane::{Item, Lane};
use callscope::live::Live;
use callscope::metrics::Metrics;
use callscope::panels::{self, answer::View};
use callscope::record::{Input, Position, Record};
use callscope::sessions::{Keeping, Limits};
use callscope::simulate::rng::Rng;
use callscope::simulate::send::{Sender, Webhook};
use callscope::simulate::{session, telemetry};
use callscope::sink::embedded::EmbeddedIndex;
use callscope::sink::{Sink, SinkError, StatusSender, Written};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

#[path = "../tests/support/kafka_server.rs"]
#[expect(dead_code, unreachable_pub, reason = "tests need more of it")]
mod kafka_server;

const CALLSCOPE: &str = env!("CARGO_BIN_EXE_callscope");
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/server.sh");
const NOW: i64 = 1_800_000_000_000;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Takes everything.
struct BlackHole;

impl Sink for BlackHole {
    async fn setup(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, documents: &[Document]) -> Result<Vec<Written>, SinkError> {
        Ok(vec![Written::Stored; documents.len()])
    }
}

/// CPU time of this process, and of its children that have ended.
fn cpu() -> (Duration, Duration) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit_once(") ").unwrap().1;
    let ticks: Vec<u64> =
        after.split(' ').skip(11).take(4).map(|ticks| ticks.parse().unwrap()).collect();
    let time = |ticks: &[u64]| Duration::from_millis(ticks.iter().sum::<u64>() * 10);
    (time(&ticks[..2]), time(&ticks[2..]))
}

fn resident(process: &str) -> f64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

fn row(what: &str, figure: &str, goal: &str) {
    println!("| {what} | {figure} | {goal} |");
}

fn config() -> Config {
    Config::load(None, std::iter::empty()).unwrap().config
}

/// Webhook bodies of sessions, one after another.
struct Load {
    rng: Rng,
    start: i64,
}

impl Load {
    fn new() -> Self {
        Self { rng: Rng::new(1), start: 1_700_000_000_000 }
    }

    fn next(&mut self, count: usize) -> Vec<String> {
        let mut bodies = Vec::with_capacity(count);
        while bodies.len() < count {
            self.start += 60_000;
            let events = session(self.rng.number(), self.start, 1).0;
            bodies.extend(events.into_iter().map(|event| event.json));
        }
        bodies
    }
}

fn bodies(count: usize) -> Vec<String> {
    Load::new().next(count)
}

/// The same with the telemetry that OpenVidu Pro indexes beside them.
fn bodies_with_telemetry(count: usize) -> Vec<String> {
    let mut rng = Rng::new(1);
    let mut bodies = Vec::with_capacity(count);
    let mut start = 1_700_000_000_000;
    while bodies.len() < count {
        start += 60_000;
        let seed = rng.number();
        let mut events = session(seed, start, 1).0;
        events.extend(telemetry(seed, start, 1, 30_000));
        events.sort_by_key(|event| event.at);
        bodies.extend(events.into_iter().map(|event| event.json));
    }
    bodies
}

fn records(bodies: &[String]) -> Vec<Record> {
    let input = Input("bench".into());
    let source: Arc<str> = Arc::from("default");
    let record = |(offset, body): (u64, &String)| Record {
        position: Position { input: input.clone(), offset },
        next_offset: offset + 1,
        source: Arc::clone(&source),
        payload: Bytes::from(body.clone()),
    };
    (0..).zip(bodies).map(record).collect()
}

fn lane<S: Sink>(sink: S, config: &Config) -> Lane<S> {
    Lane {
        folder: Folder::new(config, Arc::new(GeoIp::default()), Keeping::Replay),
        outlet: Arc::new(Outlet {
            sink,
            dead_letters: None,
            metrics: Arc::new(Metrics::new()),
            disk: Disk::default(),
        }),
        checkpoint: None,
        progress: Progress::default(),
        live: watch::Sender::new(Arc::new(Live::default())),
        behind: BTreeSet::new(),
        stats_every: 0,
        takes_any_time: true,
    }
}

async fn replay<S: Sink>(lane: &mut Lane<S>, records: &[Record]) {
    for batch in records.chunks(5000) {
        let items = batch.iter().cloned().map(Item::Record).collect();
        lane.cycle(items, NOW).await.unwrap();
    }
}

/// Decoding, enrichment, fold and documents, on the thread of the lane.
async fn fold(bodies: &[String]) {
    let records = records(bodies);
    let config = config();
    let before = resident("self");
    let mut lane = lane(BlackHole, &config);
    let spent = cpu().0;
    replay(&mut lane, &records).await;
    let spent = cpu().0 - spent;
    let count = records.len() as f64;
    let rate = count / spent.as_secs_f64();
    row(
        "decode + enrich + fold + encode, one core",
        &format!("{rate:.0} events/s, {:.2} µs each", 1e6 / rate),
        "250 000 events/s",
    );
    let entities = lane.folder.sessions.entities();
    let bytes = (resident("self") - before) / entities as f64;
    row(&format!("memory an open entity ({entities} of them)"), &format!("{bytes:.0} B"), "≤ 2 kB");
}

/// Summaries for each event; a call's own events make at least half a summary each, since nearly every pair of them is one.
async fn summaries() {
    let config = config();
    for (what, bodies) in [
        ("`cdr` events alone", bodies(100_000)),
        ("with the telemetry of the paid edition", bodies_with_telemetry(100_000)),
    ] {
        let mut lane = lane(BlackHole, &config);
        replay(&mut lane, &records(&bodies)).await;
        let tally = lane.progress.tally;
        let ratio = (tally.documents - tally.records) as f64 / tally.records as f64;
        row(&format!("summary writes an event on replay, {what}"), &format!("{ratio:.2}"), "≤ 0.3");
    }
}

/// Answers bulk requests as Elasticsearch would, and keeps nothing.
async fn acknowledger() -> SocketAddr {
    use axum::http::HeaderMap;
    async fn answer(uri: axum::http::Uri, headers: HeaderMap, body: Bytes) -> String {
        if uri.path() != "/_bulk" {
            return "{}".to_owned();
        }
        let mut text = Vec::new();
        if headers.contains_key("content-encoding") {
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text).unwrap();
        } else {
            text.extend_from_slice(&body);
        }
        let lines = memchr::memchr_iter(b'\n', &text).count();
        let items = vec![r#"{"index":{"status":201}}"#; lines / 2];
        format!(r#"{{"errors":false,"items":[{}]}}"#, items.join(","))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router =
        axum::Router::new().fallback(answer).layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// The real command, from a file.
async fn import(bodies: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.log");
    std::fs::write(&file, bodies.join("\n")).unwrap();
    let count = bodies.len() as f64;
    let address = acknowledger().await;
    let run = async |cores: &str, to: &str| {
        let (before, started) = (cpu().1, Instant::now());
        let status = tokio::process::Command::new("taskset")
            .args(["-c", cores, CALLSCOPE, "import", "--to", to])
            .arg(&file)
            .current_dir(folder.path())
            .env("CALLSCOPE__ELASTICSEARCH__URLS", format!("http://{address}"))
            .env("CALLSCOPE__SINK__SETUP", "false")
            .env("CALLSCOPE__STATS__EVERY", "0s")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .unwrap();
        assert!(status.success());
        (cpu().1 - before, started.elapsed())
    };
    let (spent, elapsed) = run("0,1", "elasticsearch").await;
    row(
        "`import` to a sink that only acknowledges, gzip: CPU an event",
        &format!("{:.2} µs", spent.as_secs_f64() * 1e6 / count),
        "≤ 6.6 µs",
    );
    row(
        "the same, wall, the acknowledging server on the same two cores",
        &format!("{:.0} events/s", count / elapsed.as_secs_f64()),
        "150 000/s",
    );
    let (_, one) = run("0", "stdout").await;
    let (_, two) = run("0,1", "stdout").await;
    let ratio = one.as_secs_f64() / two.as_secs_f64();
    row("`import` to /dev/null, two cores for one", &format!("{ratio:.2} ×"), "1.7 ×");
}

/// A running `serve`.
struct Serve {
    process: Child,
    address: SocketAddr,
}

impl Serve {
    fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut process = Command::new(CALLSCOPE)
            .arg("serve")
            .env("CALLSCOPE__DATA_DIR", data_dir)
            .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("serve ended").unwrap();
            if let Some(url) = line.strip_prefix("callscope listens on http://") {
                break url.parse().unwrap();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    fn resident(&self) -> f64 {
        resident(&self.process.id().to_string())
    }

    /// CPU time so far.
    fn spent(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let after = stat.rsplit_once(") ").unwrap().1;
        let ticks = after.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    fn metric(&self, name: &str) -> f64 {
        let mut stream = std::net::TcpStream::connect(self.address).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Until the sum of a metric over its labels has come to `value`.
    fn until(&self, name: &str, value: f64) {
        while self.metric(name) < value {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _told = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ended = self.process.wait();
    }
}

fn percentile(latencies: &mut [Duration], percent: usize) -> f64 {
    latencies.sort_unstable();
    latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

/// Durable acknowledgements over loopback, beside what the disk needs to sync.
async fn webhook(bodies: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(folder.path().join("sync")).unwrap();
    let mut syncs: Vec<Duration> = (0..300)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[b'x'; 4096]).unwrap();
            file.sync_data().unwrap();
            started.elapsed()
        })
        .collect();
    let disk = format!("{:.1} / {:.1} ms", percentile(&mut syncs, 50), percentile(&mut syncs, 99));
    row("the disk's own sync of 4 kB, p50 / p99", &disk, "");
    let serve = Serve::start(&folder.path().join("data"), &[("CALLSCOPE__SINK__KIND", "stdout")]);
    for (connections, each, goal) in [(64, 600, "20 000/s"), (1, 1000, "p99 < 50 ms")] {
        let started = Instant::now();
        let tasks = (0..connections).map(|index| {
            let bodies: Vec<String> =
                bodies.iter().skip(index * each).take(each).cloned().collect();
            let mut sender = Sender::new(Webhook::at(serve.address));
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(each);
                for body in &bodies {
                    let asked = Instant::now();
                    sender.send(body).await.unwrap();
                    latencies.push(asked.elapsed());
                }
                latencies
            })
        });
        let mut latencies = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            latencies.extend(task.await.unwrap());
        }
        let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
        let p99 = percentile(&mut latencies, 99);
        row(
            &format!(
                "webhook, durable acknowledgements, {connections} at once, sender on the same cores"
            ),
            &format!("{rate:.0}/s, p99 {p99:.1} ms"),
            goal,
        );
    }
}

async fn embedded(bodies: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let embedded = EmbeddedConfig { heap_bytes: NonZeroUsize::new(64 << 20).unwrap() };
    let (stop, status) = (CancellationToken::new(), StatusSender::default());
    let index = EmbeddedIndex::open(folder.path(), &embedded, stop, status).unwrap();
    let config = config();
    let mut lane = lane(index, &config);
    let started = Instant::now();
    replay(&mut lane, &records(bodies)).await;
    let documents = lane.progress.tally.documents as f64;
    let figure = format!("{:.0} documents/s", documents / started.elapsed().as_secs_f64());
    row("into the embedded index, look-up of id and version included", &figure, "20 000/s");
}

/// The first twenty panels of each large dashboard, asked for together over a million documents.
async fn dashboards() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = EmbeddedConfig { heap_bytes: NonZeroUsize::new(64 << 20).unwrap() };
    let open = || {
        let (stop, status) = (CancellationToken::new(), StatusSender::default());
        EmbeddedIndex::open(folder.path(), &embedded, stop, status).unwrap()
    };
    let config = config();
    let mut lane = lane(open(), &config);
    replay(&mut lane, &records(&bodies_with_telemetry(1_000_000))).await;
    let documents = lane.progress.tally.documents;
    drop(lane);
    let index = AnyIndex::Embedded(Arc::new(open()));
    let view = View { from: 1_600_000_000_000, to: 1_900_000_000_000, ..View::default() };
    // As many at once as `serve` computes.
    let turns = Arc::new(Semaphore::new(4));
    for id in ["sessions", "quality"] {
        let asked: Vec<_> = panels::dashboard(id).unwrap().panels().take(20).collect();
        let mut walls = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            let all = asked.iter().map(async |panel| {
                let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
                index.panel(panel, &view, turn).await
            });
            for answer in futures_util::future::join_all(all).await {
                answer.unwrap();
            }
            walls.push(started.elapsed());
        }
        walls.sort_unstable();
        let what = format!("20 panels of `{id}` over {documents} documents in the embedded index");
        row(&what, &format!("{:.2} s", walls[2].as_secs_f64()), "1 s");
    }
}

/// A `serve` at rest, and with ten thousand people in calls.
fn memory() {
    let folder = tempfile::tempdir().unwrap();
    let start = chrono::Utc::now().timestamp_millis() - 60_000;
    let mut file = std::fs::File::create(folder.path().join("CDR.log")).unwrap();
    for room in 0..2_000 {
        let ids = format!(r#""sessionId":"room-{room}","uniqueSessionId":"room-{room}_{start}""#);
        writeln!(file, r#"{{"sessionCreated":{{{ids},"timestamp":{start}}}}}"#).unwrap();
        for person in 0..5 {
            let connection = format!("con_{room:05}x{person}");
            let at = start + 1000 + person;
            writeln!(file, r#"{{"participantJoined":{{{ids},"timestamp":{at},"connectionId":"{connection}","participantId":"{connection}","location":"Madrid, Spain","ip":"80.58.61.250","platform":"Chrome 129.0.0.0 on Windows 10 64-bit","clientData":"{{\"clientData\":\"Ana\"}}","serverData":""}}}}"#).unwrap();
            for sender in 0..=person {
                let (direction, from) = if sender == person {
                    ("OUTBOUND", String::new())
                } else {
                    ("INBOUND", format!(r#","receivingFrom":"con_{room:05}x{sender}""#))
                };
                writeln!(file, r#"{{"webrtcConnectionCreated":{{{ids},"timestamp":{at},"streamId":"str_CAM_con_{room:05}x{sender}","connectionId":"{connection}","participantId":"{connection}","connection":"{direction}"{from},"videoSource":"CAMERA","videoFramerate":30,"videoDimensions":"{{\"width\":640,\"height\":480}}","audioEnabled":true,"videoEnabled":true}}}}"#).unwrap();
            }
        }
    }
    let follow = folder.path().join("CDR*.log");
    let idle = Serve::start(&folder.path().join("idle"), &[]);
    row("memory at rest, without GeoIP", &format!("{:.0} MB", idle.resident() / 1e6), "30 MB");
    drop(idle);
    let settings = [("CALLSCOPE__FILES__FOLLOW", follow.to_str().unwrap())];
    let serve = Serve::start(&folder.path().join("data"), &settings);
    serve.until("callscope_connections_active", 10_000.0);
    row(
        "memory with 10 000 open participants and 30 000 streams, embedded index",
        &format!("{:.0} MB", serve.resident() / 1e6),
        "< 200 MB",
    );
}

async fn restart(bodies: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.redb");
    let config = config();
    let mut lane = lane(BlackHole, &config);
    replay(&mut lane, &records(bodies)).await;
    let entities = lane.folder.sessions.entities();
    {
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        lane.folder.sessions.touch_all();
        checkpoint.save(&lane.progress, &lane.folder.sessions.changes().unwrap()).unwrap();
    }
    let started = Instant::now();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (_, sessions) = checkpoint.load(Limits::new(&config.sessions)).unwrap();
    assert_eq!(sessions.entities(), entities);
    let elapsed = started.elapsed().as_secs_f64();
    row(
        &format!("restart with {entities} entities"),
        &format!("{elapsed:.2} s"),
        "5 s with 100 000",
    );
}

/// What a platform shows of so many sessions with ten endpoints each: some 10 kB for each, most of it SDP.
fn shown(sessions: i64) -> String {
    let sdp = "a=candidate:1 1 UDP 2013266431 192.0.2.7 40000 typ host\\r\\n".repeat(70);
    let session = |number: i64| {
        let start = NOW - 3_600_000 + number;
        let endpoint = |connection: &str, name: &str| {
            let event = |kind: &str, after: i64, rest: &str| {
                format!(
                    r#"{{"type":"{kind}","timestamp":{},"msSinceEndpointCreation":{after},"uniqueSessionId":"s{number}_{start}",{rest}}}"#,
                    start + 3_000 + after
                )
            };
            let events = [
                event(
                    "IceComponentStateChanged",
                    20,
                    r#""streamId":1,"componentId":1,"state":"CONNECTED""#,
                ),
                event("IceGatheringDone", 60, r#""x":1"#),
                event(
                    "NewCandidatePairSelected",
                    90,
                    r#""candidatePair":{"localCandidate":"candidate:1 1 UDP 2013266431 172.17.0.3 40000 typ host","remoteCandidate":"candidate:2 1 UDP 1677729535 198.51.100.7 50000 typ srflx"}"#,
                ),
                event(
                    "MediaFlowOutStateChanged",
                    400,
                    r#""state":"FLOWING","padName":"default","mediaType":"VIDEO""#,
                ),
                event(
                    "MediaFlowOutStateChanged",
                    420,
                    r#""state":"FLOWING","padName":"default","mediaType":"AUDIO""#,
                ),
            ];
            format!(
                r#"{{"createdAt":{},"webrtcEndpointName":"{name}","streamId":"str_{connection}","localSdp":"v=0\r\na=setup:active\r\n{sdp}","remoteSdp":"v=0\r\na=setup:actpass\r\n{sdp}","events":[{}]}}"#,
                start + 3_000,
                events.join(",")
            )
        };
        let connections: Vec<String> = (0..5)
            .map(|person| {
                let id = format!("con_{number}_{person}");
                let publisher = endpoint(&id, &format!("str_{id}"));
                let subscriber = endpoint(&id, &format!("{id}_str_con_{number}_{}", (person + 1) % 5));
                format!(r#"{{"connectionId":"{id}","createdAt":{start},"activeAt":{start},"status":"active","platform":"Chrome 129.0 on Linux 64-bit","ip":"198.51.100.7","token":"t","clientData":"x","serverData":"","publishers":[{publisher}],"subscribers":[{subscriber}]}}"#)
            })
            .collect();
        format!(
            r#"{{"sessionId":"s{number}","createdAt":{start},"mediaMode":"ROUTED","recordingMode":"MANUAL","customSessionId":"s{number}","connections":{{"numberOfElements":5,"content":[{}]}}}}"#,
            connections.join(",")
        )
    };
    let sessions: Vec<String> = (0..sessions).map(session).collect();
    format!(r#"{{"numberOfElements":{},"content":[{}]}}"#, sessions.len(), sessions.join(","))
}

async fn rest() {
    const SESSIONS: i64 = 1_000;
    const POLLS: f64 = 10.0;
    let body = Bytes::from(shown(SESSIONS));
    let size = body.len() as f64 / 1e6;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let sessions = axum::routing::get(move || std::future::ready(body.clone()));
    let version = axum::routing::get(|| std::future::ready("2.29.0"));
    let router = axum::Router::new()
        .route("/openvidu/api/sessions", sessions)
        .route("/openvidu/api/config/openvidu-version", version);
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        let settings = [
            ("CALLSCOPE__SINK__KIND", "stdout"),
            ("CALLSCOPE__SOURCES__DEFAULT__REST__URL", &*url),
            ("CALLSCOPE__SOURCES__DEFAULT__REST__SECRET", "secret"),
            ("CALLSCOPE__SOURCES__DEFAULT__REST__EVERY", "1s"),
        ];
        let serve = Serve::start(folder.path(), &settings);
        let polls = "callscope_rest_polls_total";
        serve.until(polls, 1.0);
        while serve.metric("callscope_queue_depth") > 0.0 {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let first = serve.spent();
        let figure = format!("{:.1} s of CPU, answer {size:.0} MB", first.as_secs_f64());
        row(
            "REST: 1 000 sessions with 10 000 endpoints for the first time, documents included",
            &figure,
            "",
        );
        let before = serve.metric(polls);
        serve.until(polls, before + POLLS);
        let polled = serve.metric(polls) - before;
        let each = (serve.spent() - first).as_secs_f64() / polled;
        let figure = format!(
            "{:.2} s of CPU a poll, {:.1} % of a core at 30 s, {:.0} MB",
            each,
            each / 0.3,
            serve.resident() / 1e6
        );
        row("the same again, nothing new", &figure, "< 5 % of a core");
    })
    .await
    .unwrap();
}

/// From sending an event until a real Elasticsearch finds it, at 1000 events a second; `kafka`: through it.
async fn search(what: &str, kafka: &[(&str, &str)]) {
    const RATE: i64 = 1000;
    // The server has just started: what it compiles and creates at the first request is not the rate's.
    const WARM_UP: i64 = 5;
    const SECONDS: i64 = WARM_UP + 15;
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    // The server runs as nobody, who has to reach its folder.
    Command::new("chmod").arg("755").arg(folder.path()).status().unwrap();
    let home = folder.path().join("elasticsearch");
    let mut server = Command::new(SERVERS)
        .args(["run", "elasticsearch"])
        .arg(&home)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = loop {
        if let Ok(url) = std::fs::read_to_string(home.join("url")) {
            break url.trim().to_owned();
        }
        assert!(server.try_wait().unwrap().is_none(), "the server ended");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let mut settings =
        vec![("CALLSCOPE__SINK__KIND", "elasticsearch"), ("CALLSCOPE__ELASTICSEARCH__URLS", &*url)];
    settings.extend_from_slice(kafka);
    let serve = Serve::start(&folder.path().join("data"), &settings);
    // The place of an event in the load is its time.
    let base = chrono::Utc::now().timestamp_millis() - 86_400_000;
    let started = Instant::now();
    let next = Arc::new(AtomicI64::new(0));
    let senders: Vec<_> = (0..16)
        .map(|_| {
            let (next, mut sender) = (Arc::clone(&next), Sender::new(Webhook::at(serve.address)));
            tokio::spawn(async move {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= RATE * SECONDS {
                        return;
                    }
                    let due = Duration::from_micros(u64::try_from(place * 1_000_000 / RATE).unwrap());
                    tokio::time::sleep_until((started + due).into()).await;
                    let time = base + place;
                    sender.send(&format!(r#"{{"event":"signalSent","sessionId":"load","uniqueSessionId":"load_{base}","timestamp":{time},"from":null,"to":["a"],"type":"chat","data":"hello"}}"#)).await.unwrap();
                }
            })
        })
        .collect();
    let mut found = 0;
    let mut latencies: Vec<Duration> = Vec::new();
    while found < RATE * SECONDS {
        let asked = tokio::process::Command::new("curl")
            .args(["-sS", "-H", "content-type: application/json", "-d"])
            .arg(r#"{"size":0,"aggs":{"newest":{"max":{"field":"timestamp"}}}}"#)
            .arg(format!("{url}/openvidu/_search"))
            .output();
        let answer: serde_json::Value =
            serde_json::from_slice(&asked.await.unwrap().stdout).unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds of this year")]
        let newest = answer["aggregations"]["newest"]["value"].as_f64().map(|time| time as i64);
        let until = newest.map_or(found, |newest| (newest - base + 1).max(found));
        for place in found.max(RATE * WARM_UP)..until {
            let sent = Duration::from_micros(u64::try_from(place * 1_000_000 / RATE).unwrap());
            latencies.push(started.elapsed().saturating_sub(sent));
        }
        found = until;
    }
    for sender in senders {
        sender.await.unwrap();
    }
    drop(serve);
    let _told = Command::new("pkill").args(["-TERM", "-P", &server.id().to_string()]).status();
    let _told = Command::new("kill").arg(server.id().to_string()).status();
    let _ended = server.wait();
    let p50 = percentile(&mut latencies, 50) / 1e3;
    let figure = format!("p50 {p50:.1} s, p99 {:.1} s", percentile(&mut latencies, 99) / 1e3);
    row(what, &figure, "p99 ≤ 2 s");
}

/// One instance of a group on a real broker, in front of a sink that only acknowledges.
async fn kafka() {
    const EVENTS: usize = 1_000_000;
    let broker = kafka_server::Kafka::start("bench", 1);
    let count = produce(&broker, "events", EVENTS).await as f64;
    let address = acknowledger().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{address}");
    let serve = |group: &str| {
        let settings = [
            ("CALLSCOPE__SINK__KIND", "elasticsearch"),
            ("CALLSCOPE__SINK__SETUP", "false"),
            ("CALLSCOPE__ELASTICSEARCH__URLS", &*url),
            ("CALLSCOPE__KAFKA__BROKERS", &*broker.brokers),
            ("CALLSCOPE__KAFKA__TOPICS", "events"),
            ("CALLSCOPE__KAFKA__GROUP", group),
            ("CALLSCOPE__KAFKA__INSTANCE_ID", "bench"),
            ("CALLSCOPE__SESSIONS__KEEP", "30d"),
            ("CALLSCOPE__STATS__EVERY", "0s"),
        ];
        Serve::start(&folder.path().join(group), &settings)
    };
    let read = |serve: &Serve| serve.metric("callscope_records_total");
    let run = |group: &str, cores: &str| {
        let serve = serve(group);
        let id = serve.process.id().to_string();
        let bound =
            Command::new("taskset").args(["-acp", cores, &id]).stdout(Stdio::null()).status();
        assert!(bound.unwrap().success());
        serve.until("callscope_records_total", 1.0);
        let (first, spent, started) = (read(&serve), serve.spent(), Instant::now());
        serve.until("callscope_records_total", count);
        let rest = count - first;
        let rate = rest / started.elapsed().as_secs_f64();
        (rate, (serve.spent() - spent).as_secs_f64() * 1e6 / rest)
    };
    let (one, _) = run("one", "0");
    let (two, each) = run("two", "0,1");
    row(
        "Kafka → a sink that only acknowledges, gzip: CPU an event",
        &format!("{each:.2} µs"),
        "≤ 6.6 µs",
    );
    row(
        "the same, wall, broker and acknowledging server on the same two cores",
        &format!("{two:.0} events/s"),
        "150 000/s",
    );
    row("the same, two cores for one", &format!("{:.2} ×", two / one), "1.7 ×");
    let bytes = broker.bytes("two-state");
    let serve = serve("two");
    serve.until("callscope_kafka_partitions_held", 12.0);
    let seconds = serve.metric("callscope_kafka_restore_seconds_sum");
    let records = serve.metric("callscope_kafka_state_records_total");
    row(
        "Kafka: taking over the state of a group",
        &format!(
            "{:.0} MB/s, {:.0} records/s ({records:.0} records, {seconds:.1} s)",
            bytes / 1e6 / seconds,
            records / seconds
        ),
        "100 MB/s",
    );
    drop(serve);
    broker.topic("live", 12).await;
    let through =
        [("CALLSCOPE__KAFKA__BROKERS", &*broker.brokers), ("CALLSCOPE__KAFKA__TOPICS", "live")];
    let what = "event → journal → Kafka → searchable, 1000 events/s, broker and Elasticsearch on the same cores";
    search(what, &through).await;
}

/// Events in a topic of twelve partitions; how many there are in the end.
async fn produce(broker: &kafka_server::Kafka, topic: &str, count: usize) -> usize {
    broker.topic(topic, 12).await;
    let (mut load, mut sent) = (Load::new(), 0);
    while sent < count {
        let bodies = load.next((count - sent).min(200_000));
        tokio::task::block_in_place(|| broker.produce(topic, &bodies));
        sent += bodies.len();
    }
    sent
}

/// The real command over a long history.
async fn replay_topic() {
    const EVENTS: usize = 10_000_000;
    let broker = kafka_server::Kafka::start("replay", 1);
    let count = produce(&broker, "events", EVENTS).await as f64;
    let address = acknowledger().await;
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let (before, started) = (cpu().1, Instant::now());
    let done = tokio::process::Command::new(CALLSCOPE)
        .args(["replay", "--into", "again"])
        .env("CALLSCOPE__SINK__KIND", "elasticsearch")
        .env("CALLSCOPE__DATA_DIR", folder.path())
        .env("CALLSCOPE__SINK__SETUP", "false")
        .env("CALLSCOPE__STATS__EVERY", "0s")
        .env("CALLSCOPE__ELASTICSEARCH__URLS", format!("http://{address}"))
        .env("CALLSCOPE__KAFKA__BROKERS", &broker.brokers)
        .env("CALLSCOPE__KAFKA__TOPICS", "events")
        .output()
        .await
        .unwrap();
    let (spent, elapsed) = ((cpu().1 - before).as_secs_f64(), started.elapsed().as_secs_f64());
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}");
    let documents = told.lines().find_map(|line| line.split_once(" documents: ")?.0.parse().ok());
    let documents: f64 = documents.expect("documents are counted");
    row(
        &format!("Kafka: `replay` of {:.0} million events: CPU an event", count / 1e6),
        &format!("{:.2} µs", spent * 1e6 / count),
        "≤ 6.6 µs",
    );
    row(
        "the same, wall, broker and acknowledging server on the same two cores",
        &format!("{:.0} events/s", count / elapsed),
        "150 000/s",
    );
    row(
        "the same, summary writes an event, `cdr` events alone",
        &format!("{:.2}", (documents - count) / count),
        "≤ 0.3",
    );
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn main() {
    let names: Vec<String> =
        std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    // `cargo test` builds and runs benches with this flag; there is nothing to test here.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let wants = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let revision = said(Command::new("git").args(["describe", "--always", "--dirty"]));
    let cores = std::thread::available_parallelism().map_or(0, NonZeroUsize::get);
    let machine = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = machine.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    println!("{} × {}, revision {revision}\n", cores, model.map_or("?", |(_, model)| model));
    println!("| what | measured | goal |\n|---|---|---|");
    let bodies = bodies(200_000);
    if wants("fold") {
        runtime.block_on(fold(&bodies));
        runtime.block_on(summaries());
    }
    if wants("import") {
        runtime.block_on(import(&bodies));
    }
    if wants("webhook") {
        runtime.block_on(webhook(&bodies));
    }
    if wants("embedded") {
        runtime.block_on(embedded(&bodies[..100_000]));
    }
    if wants("dashboards") {
        runtime.block_on(dashboards());
    }
    if wants("memory") {
        memory();
    }
    if wants("restart") {
        runtime.block_on(restart(&bodies));
    }
    if wants("rest") {
        runtime.block_on(rest());
    }
    let ready = Command::new(SERVERS).arg("ready").stderr(Stdio::null()).status();
    let has_servers = ready.is_ok_and(|status| status.success());
    if !has_servers {
        println!("\nsearch, kafka and replay need a JDK and Maven, and were left out");
    }
    if wants("search") && has_servers {
        let what = "event → searchable, 1000 events/s, Elasticsearch on the same cores";
        runtime.block_on(search(what, &[]));
    }
    if wants("kafka") && has_servers {
        runtime.block_on(kafka());
    }
    if wants("replay") && has_servers {
        runtime.block_on(replay_topic());
    }
}
