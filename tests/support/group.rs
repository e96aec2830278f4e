//! A group of real processes on a Kafka, in front of a store that keeps what it is sent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
#[cfg(debug_assertions)]
use std::time::Duration;

use callscope::simulate::rng::Rng;
use callscope::simulate::send::{Sender, Webhook};
use callscope::simulate::session;
use serde_json::Value;
use tempfile::TempDir;

use crate::elastic_double::Double;
use crate::instance::{Instance, until};
use crate::kafka_server::Kafka;

/// What the processes of one group have in common. Each has a folder of its name in `folder`; what somebody without a name runs
/// has `folder` itself.
pub struct Group {
    pub kafka: Kafka,
    pub double: Double,
    pub folder: Arc<TempDir>,
    pub name: &'static str,
    pub topic: &'static str,
}

impl Group {
    /// The group "g" of a topic "events" of so many partitions, on a broker of its own.
    pub async fn start(broker: &str, partitions: i32) -> Self {
        Self::of_events(Kafka::start(broker, 1), partitions).await
    }

    /// The same on these brokers.
    pub async fn of_events(kafka: Kafka, partitions: i32) -> Self {
        let group = Self::on(kafka, "g", "events").await;
        group.kafka.topic("events", partitions).await;
        group
    }

    /// A group on these brokers, with a store and a folder of its own.
    pub async fn on(kafka: Kafka, name: &'static str, topic: &'static str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self { kafka, double: Double::start().await, folder, name, topic }
    }

    /// Another group on the same brokers, with the same store and the same folder.
    pub fn beside(&self, name: &'static str, topic: &'static str) -> Self {
        let (double, folder) = (self.double.clone(), Arc::clone(&self.folder));
        Self { kafka: self.kafka.address(), double, folder, name, topic }
    }

    /// The same group, but for a store of its own.
    pub async fn with_other_store(&self) -> Self {
        Self { double: Double::start().await, ..self.beside(self.name, self.topic) }
    }

    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callscope"));
        command
            .env("CALLSCOPE__DATA_DIR", self.folder.path().join(name))
            .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
            .env("CALLSCOPE__STATS__EVERY", "0s")
            .env("CALLSCOPE__SESSIONS__KEEP", "7d")
            .env("CALLSCOPE__JOURNAL__RESERVE_BYTES", "0")
            .env("CALLSCOPE__SINK__KIND", "elasticsearch")
            .env("CALLSCOPE__ELASTICSEARCH__URLS", format!("http://{}", self.double.address))
            .env("CALLSCOPE__KAFKA__BROKERS", &self.kafka.brokers)
            .env("CALLSCOPE__KAFKA__TOPICS", self.topic)
            .env("CALLSCOPE__KAFKA__GROUP", self.name)
            .env("CALLSCOPE__KAFKA__INSTANCE_ID", name)
            .env("CALLSCOPE__KAFKA__SESSION_TIMEOUT", "6s")
            .env("CALLSCOPE__KAFKA__DRAIN_AFTER", "3s")
            .env("CALLSCOPE__KAFKA__TRANSACTION_TIMEOUT", "10s");
        command
    }

    pub fn serve(&self, name: &str) -> Instance {
        self.serve_with(name, &[])
    }

    pub fn serve_with(&self, name: &str, environment: &[(&str, &str)]) -> Instance {
        Instance::start(self.command(name).envs(environment.iter().copied()))
    }

    /// What `serve` or `check` tells the instance "a" that has a setting or a topic to put right first.
    pub fn refused(&self, verb: &str, environment: &[(&str, &str)]) -> String {
        run(self.command("a").arg(verb).envs(environment.iter().copied()), 3).1
    }

    /// Has somebody send events from a file to the topic; what it tells.
    pub fn import(&self, name: &str, events: &[String]) -> String {
        let file = self.folder.path().join("cdr.log");
        std::fs::write(&file, events.join("\n")).unwrap();
        run(self.command(name).args(["import", "--to", "kafka"]).arg(&file), 0).1
    }

    /// What `dead-letters` tells that ends with this code: on stdout, and on stderr.
    pub fn dead_letters(&self, arguments: &[&str], code: i32) -> (String, String) {
        run(self.command("").arg("dead-letters").args(arguments), code)
    }

    /// What `audit` tells that ends with this code.
    pub fn audit(&self, environment: &[(&str, &str)], code: i32) -> String {
        let mut command = self.command("");
        let (stdout, stderr) = run(command.arg("audit").envs(environment.iter().copied()), code);
        stdout + &stderr
    }

    /// Every record has one outcome, every document one answer, and the group has committed what its state says.
    pub fn is_accounted_for(&self) -> String {
        let told = self.audit(&[], 0);
        assert!(!told.contains("gap:"), "{told}");
        assert!(!told.contains("warning:"), "{told}");
        for sum in ["records: ", "documents: "] {
            let line = told.lines().find_map(|line| line.strip_prefix(sum)).unwrap();
            let (whole, parts) = line.split_once(" = ").unwrap();
            let number = |text: &str| text.split(' ').next().unwrap().parse::<u64>().unwrap();
            assert_eq!(number(whole), parts.split(", ").map(number).sum::<u64>(), "{line}");
        }
        told
    }

    /// Another producer sends events to the topic.
    pub fn produce(&self, events: &[String]) {
        self.kafka.produce(self.topic, events);
    }

    /// Whether the group has dealt with everything.
    pub fn is_done(&self) -> bool {
        self.kafka.lag(self.name, self.topic) == 0
    }

    /// Waits until the group has dealt with everything. `alive`: somebody who has to be there for that.
    pub async fn is_settled(&self, alive: &Instance) {
        let asking = self.kafka.committer(self.name);
        until(async || {
            alive.get("/healthz").await;
            Kafka::lag_told(&asking, self.topic) == 0
        })
        .await;
    }

    /// Waits in the same way; the documents then are those of one undisturbed import of these events.
    pub async fn has_folded(&self, events: &[String], alive: &Instance) {
        self.is_settled(alive).await;
        assert_same(&self.documents(), &imported(events));
    }

    /// The instance "a" deals with everything in the topic, and ends.
    pub async fn deals_with_all(&self) {
        let instance = self.serve("a");
        self.is_settled(&instance).await;
        instance.stop();
    }

    /// Waits until the store has a document.
    pub async fn has_begun(&self) {
        until(async || !self.double.documents().is_empty()).await;
    }

    /// The store takes none of the events of [`load`].
    pub fn store_is_away(&self) {
        let indices: Vec<String> = (1..=12)
            .flat_map(|month| [2023, 2024].map(|year| format!("openvidu-events-{year}.{month:02}")))
            .collect();
        let indices: Vec<&str> = indices.iter().map(String::as_str).collect();
        self.takes_nothing_of(&indices);
    }

    pub fn takes_nothing_of(&self, indices: &[&str]) {
        self.double.ill(indices, 503, "unavailable_shards_exception", "away");
    }

    pub fn store_is_back(&self) {
        self.takes_nothing_of(&[]);
    }

    /// What stands in the store, without what was known at that moment.
    pub fn documents(&self) -> Documents {
        let documents = self.double.documents().into_iter();
        documents.map(|(id, (_, version, json))| (id, (version, plain(json)))).collect()
    }
}

/// What a command tells that ends with this code: on stdout, and on stderr. A test has a thread of its own, so those of its
/// runtime answer the command meanwhile.
pub fn run(command: &mut Command, code: i32) -> (String, String) {
    let output = command.output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|told| String::from_utf8(told).unwrap());
    let arguments: Vec<_> = command.get_args().collect();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
    (stdout, stderr)
}

impl Instance {
    /// Waits until it has told that it holds partitions.
    pub async fn holds(&self) {
        self.tells("state of the partitions is here").await;
    }

    /// Waits until it is stopped at the point that it has to stop at.
    #[cfg(debug_assertions)]
    pub fn is_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.process.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Sends it events as webhooks.
    pub async fn post(&self, events: &[String]) {
        let mut sender = Sender::new(Webhook::at(self.address));
        for event in events {
            sender.send(event).await.unwrap();
        }
    }

    /// It shows this now, without waiting.
    pub async fn shows(&self, path: &str, text: &str) {
        let page = self.get(path).await;
        assert!(page.contains(text), "{page}");
    }
}

/// Id to version and document.
pub type Documents = BTreeMap<String, (Option<u64>, Value)>;

/// A document without what the lane knew at that moment.
fn plain(mut json: Value) -> Value {
    if json["elastic_type"] == "cdr" {
        let event = json["event"].as_str().unwrap_or_default();
        let is_of_stream = event.starts_with("webrtcConnection");
        let is_known = |name: &str| match name {
            "processingMs" | "media_node_id" | "user" => true,
            "client" | "location" | "geoPoints" => is_of_stream,
            _ => false,
        };
        json.as_object_mut().unwrap().retain(|name, _| !is_known(name));
    }
    json
}

/// Events of many sessions, mixed as their times are.
pub fn load(seed: u64, events: usize) -> Vec<String> {
    let mut rng = Rng::new(seed);
    let mut mixed = Vec::new();
    let mut session_count = 0;
    while mixed.len() < events {
        let start = 1_700_000_000_000 + session_count * 5_000;
        mixed.extend(session(rng.number(), start, 1).0);
        session_count += 1;
    }
    mixed.sort_by_key(|event| event.at);
    mixed.into_iter().map(|event| event.json).collect()
}

/// The documents of one undisturbed import, but for those that serving writes a day later.
pub fn imported(events: &[String]) -> Documents {
    but_for_silent(imported_to_the_end(events, "0s"))
}

/// What is open at the end of an import or a replay is written as silent.
pub fn but_for_silent(mut documents: Documents) -> Documents {
    documents.retain(|_, (version, _)| version.is_none_or(|version| version >> 40 > 0));
    documents
}

/// All documents of one undisturbed import that counts the platform so often.
pub fn imported_to_the_end(events: &[String], stats_every: &str) -> Documents {
    let mut child = Command::new(env!("CARGO_BIN_EXE_callscope"))
        .args(["import", "--to", "stdout", "-"])
        .env("CALLSCOPE__STATS__EVERY", stats_every)
        .env("CALLSCOPE__DATA_DIR", std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = events.join("\n");
    let writing = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let mut documents = Documents::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let version = line["_version"].as_u64();
        let id = line["_id"].as_str().unwrap().to_owned();
        if version.is_none() && documents.contains_key(&id) {
            continue;
        }
        documents.insert(id, (version, plain(line["_source"].clone())));
    }
    writing.join().unwrap();
    assert!(child.wait().unwrap().success());
    documents
}

pub fn assert_same(found: &Documents, expected: &Documents) {
    for (these, those, wrong) in [(found, expected, "too much"), (expected, found, "missing")] {
        for (id, document) in these {
            assert!(those.contains_key(id), "{wrong}: {id} {document:?}");
        }
    }
    for (id, document) in expected {
        assert_eq!(&found[id], document, "{id}");
    }
}
