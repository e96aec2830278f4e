//! The HTTP server, and what it is asked over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use callscope::command::AnyIndex;
use callscope::config::Config;
use callscope::dead_letters::DeadLetters;
use callscope::enrich::place::GeoIp;
use callscope::http::{App, Bound, Door};
use callscope::journal::{Bounds, Item, Journal, Writer};
use callscope::lane::clock::Clock;
use callscope::lane::fold::{Folded, Folder, Times};
use callscope::live::{Live, LiveSession, Totals};
use callscope::metrics::Metrics;
use callscope::record::Positions;
use callscope::sessions::Keeping;
use callscope::sink::embedded::EmbeddedIndex;
use callscope::sink::{Sink, SinkStatus, StatusSender};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Bytes of bodies at once.
pub const BODIES_BYTES: usize = 100_000;

pub struct Server {
    pub address: SocketAddr,
    pub journal: Journal,
    pub writer: Option<Writer>,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
    pub sink: watch::Sender<SinkStatus>,
    pub disk: watch::Sender<Option<String>>,
    pub dead_letters: Arc<DeadLetters>,
    pub folder: tempfile::TempDir,
    pub live: watch::Sender<Arc<Live>>,
}

impl Server {
    pub async fn start(journal_bytes: u64, change: impl FnOnce(&mut Config)) -> Self {
        Self::over(AnyIndex::None, journal_bytes, change).await
    }

    pub async fn over(
        index: AnyIndex,
        journal_bytes: u64,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::load(None, std::iter::empty()).unwrap().config;
        config.http.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        let bounds = Bounds { bytes_max: journal_bytes, segment_bytes: 1000, reserve_bytes: 0 };
        let (journal, writer, _) =
            Journal::open(folder.path(), bounds, &Positions::default()).unwrap();
        let dead_letters = folder.path().join("dead-letters.redb");
        let dead_letters = Arc::new(DeadLetters::open(&dead_letters).unwrap());
        let (disk, disk_watched) = watch::channel(None);
        let bound = Bound::bind(&config).await.unwrap();
        let (sink, watched) = watch::channel(SinkStatus::Accepting);
        let open = LiveSession {
            session_id: "<img onerror=alert(1)>".into(),
            unique_session_id: "x_1".into(),
            cluster_id: String::new(),
            source: "pro".into(),
            created_at: Some(1),
            last_event_at: 2,
            gone_since: None,
            users: 1,
            open: Totals { sessions: 1, connections: 3, ..Totals::default() },
            problems: vec!["iceFailed".into()],
            problem_details: "[]".into(),
            people: vec!["u7 {\"clientData\":\"Zelda\"}".into()],
            present: [("con_Z".to_owned(), "Zelda of Hyrule".to_owned())].into(),
            visitors: Vec::new(),
        };
        let totals = open.open;
        let sessions = vec![Arc::new(open)];
        let live = Live { at: 7, totals, troubled: 1, sessions, ..Live::default() };
        let (live, live_watched) = watch::channel(Arc::new(live));
        let app = App {
            secrets: config
                .sources
                .iter()
                .map(|(name, source)| (name.clone(), source.secrets.clone()))
                .collect(),
            journal: journal.clone(),
            live: live_watched,
            index,
            sink: watched,
            disk: disk_watched,
            rest: Vec::new(),
            standing: None,
            dead_letters: Arc::clone(&dead_letters),
            metrics: Arc::new(Metrics::new()),
            browsers: Door::new(&config),
            links: config.http.links.clone(),
            body_bytes_max: config.http.body_bytes_max.get(),
            bodies: Semaphore::new(BODIES_BYTES),
            idle_after: config.http.idle_after,
            hold: Duration::from_millis(100),
        };
        let address = bound.address();
        let stop = CancellationToken::new();
        let task = tokio::spawn(bound.serve(Arc::new(app), stop.clone()));
        Self {
            address,
            journal,
            writer: Some(writer),
            stop,
            task,
            sink,
            disk,
            dead_letters,
            folder,
            live,
        }
    }

    /// Sends bytes on a new connection, and gives everything that comes back until it is closed.
    pub async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that refuses early may close before it has read everything.
        let _sent = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _closed = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> String {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    /// The body of an answer, as JSON.
    pub async fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.request("GET", path, "", b"").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    pub async fn status(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> u16 {
        let answer = self.request(method, path, headers, body).await;
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn journalled(&self) -> Vec<Vec<u8>> {
        let items = self.journal.reader().read(0, 1000, 1 << 30).unwrap();
        items
            .iter()
            .map(|item| match item {
                Item::Record(record, _) => record.payload.to_vec(),
                Item::Damaged(_) | Item::Missing(_) => panic!("damaged"),
            })
            .collect()
    }

    pub async fn end(mut self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.journal.close();
        let writer = self.writer.take().unwrap();
        tokio::task::spawn_blocking(move || writer.join()).await.unwrap();
    }
}

/// What the fold makes of a fixture, in an index.
pub async fn indexed(folder: &std::path::Path, fixture: &str) -> AnyIndex {
    let config = Config::load(None, std::iter::empty()).unwrap().config;
    let index = EmbeddedIndex::open(
        folder,
        &config.embedded,
        CancellationToken::new(),
        StatusSender::default(),
    )
    .unwrap();
    let mut folder = Folder::new(&config, Arc::new(GeoIp::default()), Keeping::Replay);
    let mut documents = Vec::new();
    let path = format!("{}/fixtures/{fixture}", env!("CARGO_MANIFEST_DIR"));
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let times = Times { lane: 0, wall: i64::MAX / 2 };
        match folder.fold(line.as_bytes(), "default", times, &mut Clock::default(), |_| {}).unwrap()
        {
            Folded::Event(_, document) => documents.push(document),
            other => panic!("{other:?}"),
        }
    }
    folder.sessions.finish();
    while folder.sessions.documents_of_one(&mut documents) {}
    index.write(&documents).await.unwrap();
    AnyIndex::Embedded(Arc::new(index))
}
