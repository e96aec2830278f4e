//! Real processes in a group on a real Kafka, in front of a store that keeps what it is sent: whatever happens to them, the
//! documents are those of one undisturbed import.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use callscope::simulate::rng::Rng;
use callscope::simulate::send::Sender;
use callscope::simulate::session;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "support/elastic_double.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod elastic_double;
#[path = "support/kafka_server.rs"]
#[expect(dead_code, reason = "the bench needs more of it")]
mod kafka_server;

use elastic_double::Double;
use kafka_server::{Kafka, Wire};

/// A process of a group.
struct Instance {
    process: Child,
    address: SocketAddr,
    told: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

/// What the processes of one group have in common.
#[derive(Clone, Copy)]
struct Setting<'k> {
    kafka: &'k Kafka,
    double: &'k Double,
    group: &'static str,
    topic: &'static str,
}

impl Setting<'_> {
    fn command(&self, data_dir: &Path, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callscope"));
        command
            .env("CALLSCOPE__DATA_DIR", data_dir)
            .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
            .env("CALLSCOPE__STATS__EVERY", "0s")
            .env("CALLSCOPE__SESSIONS__KEEP", "7d")
            .env("CALLSCOPE__JOURNAL__RESERVE_BYTES", "0")
            .env("CALLSCOPE__SINK__KIND", "elasticsearch")
            .env("CALLSCOPE__ELASTICSEARCH__URLS", format!("http://{}", self.double.address))
            .env("CALLSCOPE__KAFKA__BROKERS", &self.kafka.brokers)
            .env("CALLSCOPE__KAFKA__TOPICS", self.topic)
            .env("CALLSCOPE__KAFKA__GROUP", self.group)
            .env("CALLSCOPE__KAFKA__INSTANCE_ID", name)
            .env("CALLSCOPE__KAFKA__SESSION_TIMEOUT", "6s")
            .env("CALLSCOPE__KAFKA__DRAIN_AFTER", "3s")
            .env("CALLSCOPE__KAFKA__TRANSACTION_TIMEOUT", "10s");
        command
    }

    fn start(&self, data_dir: &Path, name: &str) -> Instance {
        self.start_with(data_dir, name, &[])
    }

    fn start_with(&self, data_dir: &Path, name: &str, environment: &[(&str, &str)]) -> Instance {
        let mut process = self
            .command(data_dir, name)
            .arg("serve")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let told = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let Some(line) = lines.next() else { panic!("serve ended:\n{}", told.lock().unwrap()) };
            let line = line.unwrap();
            if let Some(url) = line.strip_prefix("callscope listens on http://") {
                break url.parse().unwrap();
            }
            told.lock().unwrap().push_str(&(line + "\n"));
        };
        let heard = Arc::clone(&told);
        let listener = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Instance { process, address, told, listener: Some(listener) }
    }

    /// Waits until the group has dealt with everything. `alive`: somebody who has to be there for that.
    async fn is_settled(&self, alive: &Instance) {
        self.has_read(self.group, self.topic, alive).await;
    }

    /// The same of a topic that another group reads.
    async fn has_read(&self, group: &str, topic: &str, alive: &Instance) {
        until(async || {
            alive.get("/healthz").await;
            self.kafka.lag(group, topic) == 0
        })
        .await;
    }

    /// How `audit` ends, and what it tells.
    async fn audit(&self, environment: &[(&str, &str)]) -> (i32, String) {
        let mut command = self.command(&std::env::temp_dir(), "");
        command.envs(environment.iter().copied()).arg("audit");
        let audited = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let told = [audited.stdout, audited.stderr].concat();
        (audited.status.code().unwrap(), String::from_utf8(told).unwrap())
    }

    /// Every record has one outcome, every document one answer, and the group has committed what its state says.
    async fn is_accounted_for(&self) -> String {
        let (code, told) = self.audit(&[]).await;
        assert!(code == 0 && !told.contains("gap:"), "{told}");
        assert!(!told.contains("warning:"), "{told}");
        for sum in ["records: ", "documents: "] {
            let line = told.lines().find_map(|line| line.strip_prefix(sum)).unwrap();
            let (whole, parts) = line.split_once(" = ").unwrap();
            let number = |text: &str| text.split(' ').next().unwrap().parse::<u64>().unwrap();
            assert_eq!(number(whole), parts.split(", ").map(number).sum::<u64>(), "{line}");
        }
        told
    }

    /// What stands in the store, without what was known at that moment.
    fn documents(&self) -> Documents {
        let documents = self.double.documents().into_iter();
        documents.map(|(id, (_, version, json))| (id, (version, plain(json)))).collect()
    }
}

impl Instance {
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn stop(self) {
        signal(&self, "-TERM");
        self.ended();
    }

    /// What it has told when it has ended well.
    fn ended(self) -> String {
        self.ended_with(0)
    }

    /// What it has told when it has ended like that.
    fn ended_with(mut self, code: i32) -> String {
        let ended = self.process.wait().unwrap();
        self.listener.take().unwrap().join().unwrap();
        let told = self.told.lock().unwrap().clone();
        assert_eq!(ended.code(), Some(code), "{told}");
        told
    }

    async fn get(&self, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        let connected = tokio::net::TcpStream::connect(self.address).await;
        let mut stream = connected.unwrap_or_else(|error| {
            let told = self.told.lock().unwrap().clone();
            panic!("{error}:\n{told}")
        });
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn wait_for(&self, path: &str, text: &str) {
        until(async || self.get(path).await.contains(text)).await;
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let _gone = writeln!(std::io::stderr(), "{told}");
        }
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Id to version and document.
type Documents = BTreeMap<String, (Option<u64>, Value)>;

fn plain(mut json: Value) -> Value {
    if json["elastic_type"] == "cdr"
        && let Some(members) = json.as_object_mut()
    {
        members.retain(|name, _| !matches!(name.as_str(), "processingMs" | "media_node_id"));
    }
    json
}

/// Events of many sessions, mixed as their times are.
fn load(seed: u64, events: usize) -> Vec<String> {
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

/// The documents of one undisturbed import, but for those that serving writes a day later: what is open at the end of an import
/// is written as silent.
fn imported(events: &[String]) -> Documents {
    let mut documents = imported_to_the_end(events, "0s");
    documents.retain(|_, (version, _)| version.is_none_or(|version| version >> 40 > 0));
    documents
}

/// All documents of one undisturbed import that counts the platform so often.
fn imported_to_the_end(events: &[String], stats_every: &str) -> Documents {
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

fn assert_same(found: &Documents, expected: &Documents) {
    for (these, those, wrong) in [(found, expected, "too much"), (expected, found, "missing")] {
        for (id, document) in these {
            assert!(those.contains_key(id), "{wrong}: {id} {document:?}");
        }
    }
    for (id, document) in expected {
        assert_eq!(&found[id], document, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_and_topics_become_the_documents_of_one_import() {
    let kafka = Kafka::start("one", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 6).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(1, 2000);
    let (by_webhook, others) = events.split_at(events.len() / 3);
    let (by_file, by_topic) = others.split_at(events.len() / 3);
    let first = setting.start(&folder.path().join("a"), "a");
    let mut sender = Sender::new(first.address, "/webhook");
    for event in by_webhook {
        sender.send(event).await.unwrap();
    }
    first.wait_for("/metrics", "callscope_queue_depth 0\n").await;
    let second = setting.start(&folder.path().join("b"), "b");
    let file = folder.path().join("cdr.log");
    std::fs::write(&file, by_file.join("\n")).unwrap();
    let sent = setting
        .command(&folder.path().join("c"), "c")
        .args(["import", "--to", "kafka"])
        .arg(&file)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&sent.stderr).into_owned();
    assert!(sent.status.success(), "{told}");
    assert!(told.contains(&format!("{} sent, 0 skipped, 0 refused", by_file.len())), "{told}");
    kafka.produce("events", by_topic);
    setting.is_settled(&first).await;
    let expected = imported(&events);
    assert_same(&setting.documents(), &expected);
    first.stop();
    second.stop();

    // Everything is accounted for, and what somebody deletes is missed.
    let told = setting.is_accounted_for().await;
    assert!(told.contains(&format!("records: {} = ", events.len())), "{told}");
    let to_stdout = setting.audit(&[("CALLSCOPE__SINK__KIND", "stdout")]).await;
    assert!(
        to_stdout.0 == 0 && to_stdout.1.contains("raw documents: not counted"),
        "{to_stdout:?}"
    );
    let raw = setting.documents().into_iter().filter(|(_, (version, _))| version.is_none());
    let raw: Vec<String> = raw.map(|(id, _)| id).collect();
    let (index, version, json) = double.documents().remove(&raw[0]).unwrap();
    double.delete(&raw[0]);
    let (code, told) = setting.audit(&[]).await;
    let gap = format!(
        "gap: openvidu holds {} raw documents, at least {} were stored there: 1 are gone",
        raw.len() - 1,
        raw.len()
    );
    assert!(code == 6 && told.contains(&gap), "{told}");
    double.put(&raw[0], (index, version, json));
    setting.is_accounted_for().await;

    // The topic folded into another index gives the same, and one session of it alone its documents.
    let session = events[0].split("\"sessionId\":\"").nth(1).unwrap().split('"').next().unwrap();
    for chosen in [None, Some(session)] {
        let again = Double::start().await;
        let mut command = setting.command(&folder.path().join("d"), "");
        command
            .env("CALLSCOPE__ELASTICSEARCH__URLS", format!("http://{}", again.address))
            .args(["replay", "--into", "again"])
            .args(chosen.iter().flat_map(|session| ["--session", session]));
        let replayed =
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let told = String::from_utf8_lossy(&replayed.stderr).into_owned();
        assert!(replayed.status.success(), "{told}");
        let other = Setting { double: &again, ..setting };
        let mut found = other.documents();
        found.retain(|_, (version, _)| version.is_none_or(|version| version >> 40 > 0));
        let mut wanted = expected.clone();
        wanted.retain(|_, (_, json)| chosen.is_none_or(|session| json["sessionId"] == session));
        assert!(!wanted.is_empty());
        assert_same(&found, &wanted);
        let indices = again.documents().into_values().map(|(index, _, _)| index);
        assert!(indices.into_iter().all(|index| index.starts_with("again-events-")));
    }
    assert_eq!(kafka.lag("g", "events"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_open_on_one_machine_are_made_whole_in_the_group_as_it_says() {
    let kafka = Kafka::start("switch", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(15, 2000);
    let (before, after) = events.split_at(1000);
    let settings =
        [("CALLSCOPE__KAFKA__BROKERS", ""), ("CALLSCOPE__JOURNAL__SEGMENT_BYTES", "100000")];
    let alone = setting.start_with(folder.path(), "a", &settings);
    let mut sender = Sender::new(alone.address, "/webhook");
    for event in before {
        sender.send(event).await.unwrap();
    }
    until(async || {
        setting.documents().values().filter(|(version, _)| version.is_none()).count() >= 1000
    })
    .await;
    tokio::task::block_in_place(|| alone.stop());

    let instance = setting.start(folder.path(), "a");
    let told = instance.told.lock().unwrap().clone();
    assert!(told.contains("before Kafka was set") && told.contains("import --to kafka"), "{told}");
    let mut sender = Sender::new(instance.address, "/webhook");
    for event in after {
        sender.send(event).await.unwrap();
    }
    let file = folder.path().join("cdr.log");
    std::fs::write(&file, before.join("\n")).unwrap();
    let mut command = setting.command(&folder.path().join("b"), "b");
    let sent = command.args(["import", "--to", "kafka"]).arg(&file).status().unwrap();
    assert!(sent.success());
    instance.wait_for("/metrics", "callscope_queue_depth 0\n").await;
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_of_a_part_ends_nothing_that_is_open_and_counts_nothing() {
    let kafka = Kafka::start("parts", 1);
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let now = chrono::Utc::now().timestamp_millis();
    // Ten minutes before a full hour, at which is counted.
    let hours = |count: i64| now - now % 3_600_000 - 600_000 - (count - 1) * 3_600_000;
    // The first has fallen silent, the second goes on, the third is over.
    let sessions = [(1, hours(72), 2), (2, hours(1), 2), (3, hours(2), 4)];
    let events: Vec<String> = sessions
        .iter()
        .flat_map(|(number, start, count)| open_session(*number, *start).into_iter().take(*count))
        .map(|event| event.to_string())
        .collect();
    kafka.produce("events", &events);
    let replayed = async |into: &'static str, arguments: &'static [&'static str]| {
        let double = Double::start().await;
        let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
        let mut command = setting.command(folder.path(), "");
        command.env("CALLSCOPE__STATS__EVERY", "1h").args(["replay", "--into", into]);
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        setting.documents()
    };
    let everything = imported_to_the_end(&events, "1h");
    let is_counted = |json: &Value| json["elastic_type"] == "platformStats";
    assert!(everything.values().any(|(_, json)| is_counted(json)));
    assert_same(&replayed("again", &[]).await, &everything);

    for (into, arguments, whose) in [
        ("openvidu", &[][..], &["s1", "s3"][..]),
        ("again", &["--from", "2000-01-01T00:00:00Z"], &["s1", "s3"]),
        ("again", &["--to", "2100-01-01T00:00:00Z"], &["s1", "s3"]),
        ("again", &["--session", "s1"], &["s1"]),
        ("again", &["--session", "s2"], &[]),
        ("openvidu", &["--session", "s3"], &["s3"]),
    ] {
        let found = replayed(into, arguments).await;
        let mut expected = everything.clone();
        expected.retain(|_, (version, json)| {
            let session = json["sessionId"].as_str().unwrap_or_default();
            let is_chosen = !arguments.contains(&"--session") || arguments.contains(&session);
            !is_counted(json) && is_chosen && (version.is_none() || whose.contains(&session))
        });
        assert!(!expected.is_empty());
        assert_same(&found, &expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_beside_a_group_at_work_finds_the_gaps_that_are_there() {
    let kafka = Kafka::start("audit", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let instance = setting.start(&folder.path().join("a"), "a");
    holds(&instance);
    let (is_over, elsewhere) = (Arc::new(AtomicBool::new(false)), kafka.address());
    let stops = Arc::clone(&is_over);
    let feeding = std::thread::spawn(move || {
        let events = load(17, 20_000);
        for part in events.chunks(50) {
            if stops.load(Ordering::Relaxed) {
                break;
            }
            elsewhere.produce("events", part);
        }
    });
    until(async || !double.documents().is_empty()).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 5 {
        let told = setting.is_accounted_for().await;
        seen.insert(told.lines().find(|line| line.starts_with("records: ")).unwrap().to_owned());
        assert!(!feeding.is_finished(), "{seen:?}");
    }
    is_over.store(true, Ordering::Relaxed);
    feeding.join().unwrap();
    setting.is_settled(&instance).await;
    instance.stop();

    // States of earlier than what is committed.
    setting.is_accounted_for().await;
    let mut state = kafka.last("g-state");
    state.retain(|(_, key, _)| key == b"p");
    let records = load(18, 500);
    kafka.produce("events", &records);
    let instance = setting.start(&folder.path().join("a"), "a");
    setting.is_settled(&instance).await;
    instance.stop();
    for (partition, key, value) in &state {
        kafka.put("g-state", *partition, key, value);
    }
    let (code, told) = setting.audit(&[]).await;
    let gaps = told.lines().filter(|line| line.contains(": the group has committed ")).count();
    assert!(code == 6 && (1..=4).contains(&gaps), "{told}");

    // Markers of another producer's transactions stand where records are counted.
    let setting = Setting { group: "h", topic: "marked", ..setting };
    kafka.topic("marked", 1).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("transactional.id", "other")
        .create()
        .unwrap();
    producer.init_transactions(Duration::from_secs(60)).unwrap();
    producer.begin_transaction().unwrap();
    producer
        .send(BaseRecord::to("marked").key("s").payload(&records[0]))
        .map_err(|(error, _)| error)
        .unwrap();
    producer.commit_transaction(Duration::from_secs(60)).unwrap();
    kafka.produce("marked", &records);
    let instance = setting.start(&folder.path().join("a"), "a");
    setting.is_settled(&instance).await;
    instance.stop();
    let (code, told) = setting.audit(&[]).await;
    let count = records.len() + 1;
    let gap = format!("gap: partition 0: {} offsets were passed and {count} records", count + 1);
    assert!(code == 6 && told.contains(&gap), "{told}");
}

/// Something that happens to an instance.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Kill,
    Stop,
    Start,
    /// From the brokers, for a while.
    Cut,
}

/// Three instances and twelve partitions: again and again one is killed, stopped, started or cut off, while events come.
async fn chaos(kafka: &Kafka, wires: &[Wire; 3], seed: u64, events: usize) {
    let double = Double::start().await;
    let topic: &'static str = format!("chaos-{seed}").leak();
    let setting = Setting { kafka, double: &double, group: topic, topic };
    kafka.topic(topic, 12).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(seed, events);
    let expected = imported(&events);
    let names = ["a", "b", "c"];
    let data_dir = |place: usize| folder.path().join(names[place]);
    let mut rng = Rng::new(seed);
    let start = |place: usize| {
        let through = [("CALLSCOPE__KAFKA__BROKERS", &*wires[place].brokers)];
        setting.start_with(&data_dir(place), names[place], &through)
    };
    let mut instances: Vec<Option<Instance>> = (0..3).map(|place| Some(start(place))).collect();
    let parts: Vec<&[String]> = events.chunks(events.len().div_ceil(10)).collect();
    for part in parts {
        kafka.produce(topic, part);
        for _ in 0..2 {
            let place = usize::try_from(rng.below(3)).unwrap();
            let blow = match (&instances[place], rng.below(4)) {
                (None, _) => Blow::Start,
                (Some(_), 0) => Blow::Stop,
                (Some(_), 1) => Blow::Cut,
                (Some(_), _) => Blow::Kill,
            };
            match (blow, instances[place].take()) {
                (Blow::Kill, Some(instance)) => instance.kill(),
                (Blow::Stop, Some(instance)) => instance.stop(),
                (Blow::Cut, Some(instance)) => {
                    wires[place].cut(true);
                    instances[place] = Some(instance);
                    // Shorter than its session, or longer.
                    tokio::time::sleep(Duration::from_millis(rng.below(9000))).await;
                    wires[place].cut(false);
                }
                _ => instances[place] = Some(start(place)),
            }
            // At whatever moment of a cycle, a rebalance or a restore.
            tokio::time::sleep(Duration::from_millis(rng.below(2000))).await;
        }
    }
    for (place, instance) in instances.iter_mut().enumerate() {
        instance.get_or_insert_with(|| start(place));
    }
    setting.is_settled(instances[0].as_ref().unwrap()).await;
    assert_same(&setting.documents(), &expected);
    setting.is_accounted_for().await;
    instances.into_iter().flatten().for_each(Instance::stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_instances_the_documents_are_those_of_one_import() {
    #[expect(clippy::disallowed_methods, reason = "how much of it is no setting of callscope")]
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seeds, first) = (number("SEEDS", 2), number("SEED", 1));
    let events = usize::try_from(number("EVENTS", 20_000)).unwrap();
    let kafka = Kafka::start("chaos", 1);
    let wires = [kafka.wire(0).await, kafka.wire(1).await, kafka.wire(2).await];
    for seed in first..first + seeds {
        chaos(&kafka, &wires, seed, events).await;
    }
}

/// The points stand only in debug builds.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_at_each_point_of_a_cycle_changes_nothing() {
    let kafka = Kafka::start("points", 1);
    let events = load(3, 1500);
    let expected = imported(&events);
    for (point, count) in [
        ("bulk", 3),
        ("bulk-answered", 2),
        ("in-transaction", 2),
        ("before-commit", 2),
        ("committed", 2),
        ("restore", 2),
        ("revoke", 1),
    ] {
        let double = Double::start().await;
        let topic: &'static str = format!("at-{point}").leak();
        let setting = Setting { kafka: &kafka, double: &double, group: topic, topic };
        kafka.topic(topic, 4).await;
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("a");
        let (before, after) = events.split_at(events.len() / 2);
        kafka.produce(topic, before);
        if point == "restore" {
            let calm = setting.start(&data_dir, "a");
            setting.is_settled(&calm).await;
            calm.stop();
        }
        let dying = [("CALLSCOPE_KILL_POINT", &*format!("{point}:{count}"))];
        let mut dying = setting.start_with(&data_dir, "a", &dying);
        let other = (point == "revoke").then(|| {
            holds(&dying);
            setting.start(&folder.path().join("b"), "b")
        });
        let feeding = std::thread::scope(|scope| {
            // Cycles come as long as events do.
            scope.spawn(|| {
                for part in after.chunks(100) {
                    kafka.produce(topic, part);
                }
            });
            dying.process.wait().unwrap()
        });
        let signal = std::os::unix::process::ExitStatusExt::signal(&feeding);
        assert_eq!(signal, Some(6), "{point}: {feeding}\n{}", dying.told.lock().unwrap());
        let again = setting.start(&data_dir, "a");
        setting.is_settled(&again).await;
        assert_same(&setting.documents(), &expected);
        setting.is_accounted_for().await;
        again.stop();
        other.into_iter().for_each(Instance::stop);
    }
}

/// Waits until something is so, which nobody tells: it is looked again and again.
async fn until(is_so: impl AsyncFn() -> bool) {
    while !is_so().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a process that has a point to stop at is stopped there.
#[cfg(debug_assertions)]
fn is_stopped(instance: &Instance) {
    let stat = format!("/proc/{}/stat", instance.process.id());
    while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The brokers mark the end of a transaction partition by partition. Whoever takes over between two such marks finds offsets
/// that are committed, and a state that is not there yet.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_between_two_marks_of_a_commit_waits_for_the_second() {
    let mut kafka = Kafka::start_with("marks", 3, 1);
    kafka.coordinate();
    let group = kafka.coordinator("__consumer_offsets", "g");
    let names =
        [("a", "g-a"), ("b", "g-b"), ("c", "g-c"), ("d", "g-d"), ("e", "g-e"), ("f", "g-f")];
    let led = names.map(|(name, full)| (name, kafka.coordinator("__transaction_state", full)));
    // One broker keeps the offsets, one the state, and one the transactions of an instance that dies.
    let (dies, transactions) = *led.iter().find(|(_, node)| *node != group).unwrap();
    let (takes_over, _) = *led.iter().find(|(_, node)| *node != transactions).unwrap();
    let keeps = (0..3).find(|node| ![group, transactions].contains(node)).unwrap();
    for (topic, node, partitions) in [
        ("events", group, 4),
        ("g-state", keeps, 4),
        ("g-dead-letters", group, 1),
        ("g-digests", group, 1),
    ] {
        kafka.topic_on(topic, node, partitions).await;
    }
    let events = load(14, 1500);
    kafka.produce("events", &events);
    let double = Double::start().await;
    let folder = tempfile::tempdir().unwrap();
    let dying = {
        let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
        let point = [("CALLSCOPE_STOP_POINT", "before-commit:1")];
        setting.start_with(&folder.path().join(dies), dies, &point)
    };
    tokio::task::block_in_place(|| is_stopped(&dying));
    let partition = kafka.open("g-state")[0];
    assert_eq!(kafka.committed(group, "g", ("events", partition)), None);
    kafka.kill(keeps);
    signal(&dying, "-CONT");
    until(async || kafka.committed(group, "g", ("events", partition)).is_some()).await;
    dying.kill();
    kafka.signal(transactions, "-STOP");
    kafka.run(keeps);
    kafka.is_ready(2);
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    let next = setting.start(&folder.path().join(takes_over), takes_over);
    next.wait_for("/readyz", "\"restoring\":[0").await;
    // Whoever did not wait would not be there any more to say how far it is.
    let is_reading = || next.told.lock().unwrap().contains("reading the state of the partitions");
    until(async || is_reading()).await;
    assert!(next.get("/readyz").await.contains("\"restoring\":[0"));
    assert!(kafka.open("g-state").contains(&partition));
    // Nothing is held yet, so nothing has to be given back first.
    signal(&next, "-TERM");
    let told = tokio::task::block_in_place(|| next.ended());
    assert!(!told.contains("given back before"), "{told}");
    let next = setting.start(&folder.path().join(takes_over), takes_over);
    next.wait_for("/readyz", "\"restoring\":[0").await;
    kafka.signal(transactions, "-CONT");
    setting.is_settled(&next).await;
    assert_same(&setting.documents(), &imported(&events));
    next.stop();
}

/// The brokers undo what takes too long; it is made again.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_took_too_long_is_made_again() {
    let kafka = Kafka::start("long", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(15, 2000);
    kafka.produce("events", &events);
    let settings = [
        ("CALLSCOPE_STOP_POINT", "before-commit:1"),
        ("CALLSCOPE__KAFKA__SESSION_TIMEOUT", "10m"),
        ("CALLSCOPE__KAFKA__TRANSACTION_TIMEOUT", "2s"),
    ];
    let instance = setting.start_with(&folder.path().join("a"), "a", &settings);
    tokio::task::block_in_place(|| is_stopped(&instance));
    assert!(!kafka.open("g-state").is_empty());
    until(async || kafka.open("g-state").is_empty()).await;
    signal(&instance, "-CONT");
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    instance.wait_for("/metrics", "transactions_total{outcome=\"not_saved\"} 1").await;
    instance.stop();
}

/// Waits until an instance has told that it holds partitions.
fn holds(instance: &Instance) {
    while !instance.told.lock().unwrap().contains("state of the partitions is here") {
        std::thread::yield_now();
    }
}

/// Signals a process.
fn signal(instance: &Instance, name: &str) {
    let id = instance.process.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_and_comes_back_costs_nothing() {
    let mut kafka = Kafka::start("broker", 1);
    let double = Double::start().await;
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(5, 6000);
    let (sent, elsewhere) = (events.clone(), kafka.address());
    let producing = std::thread::spawn(move || {
        for part in sent.chunks(300) {
            elsewhere.produce("events", part);
        }
    });
    let instance = {
        let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
        let instance = setting.start(&folder.path().join("a"), "a");
        holds(&instance);
        instance
    };
    for _ in 0..2 {
        let seen = double.documents().len();
        until(async || double.documents().len() >= (seen + 200).min(events.len() / 2)).await;
        kafka.kill(0);
        kafka.run(0);
        kafka.is_ready(1);
    }
    producing.join().unwrap();
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    // Whoever is told to stop in the middle of a transaction does not wait for brokers that are away.
    instance.stop();
    let setting = Setting { kafka: &kafka, double: &double, group: "h", topic: "events" };
    let point = [("CALLSCOPE_STOP_POINT", "in-transaction:1")];
    let instance = setting.start_with(&folder.path().join("a"), "a", &point);
    tokio::task::block_in_place(|| is_stopped(&instance));
    kafka.kill(0);
    signal(&instance, "-CONT");
    instance.wait_for("/readyz", "no broker answers").await;
    tokio::task::block_in_place(|| instance.stop());
    kafka.run(0);
    kafka.is_ready(1);
    let setting = Setting { kafka: &kafka, double: &double, group: "h", topic: "events" };
    let instance = setting.start(&folder.path().join("a"), "a");
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    // Nobody says any more that they are away, though nothing comes.
    kafka.kill(0);
    instance.wait_for("/readyz", "no broker answers").await;
    kafka.run(0);
    instance.wait_for("/readyz", "\"ready\":true").await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_stalled_saves_nothing_when_it_wakes() {
    let kafka = Kafka::start("stalled", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(6, 4000);
    let (first, rest) = events.split_at(1000);
    let stalled = setting.start(&folder.path().join("a"), "a");
    holds(&stalled);
    kafka.produce("events", first);
    until(async || !double.documents().is_empty()).await;
    signal(&stalled, "-STOP");
    let other = setting.start(&folder.path().join("b"), "b");
    let (second, last) = rest.split_at(2000);
    kafka.produce("events", second);
    // The group waits for the one that says nothing until its session is over.
    setting.is_settled(&other).await;
    signal(&stalled, "-CONT");
    kafka.produce("events", last);
    setting.is_settled(&other).await;
    assert_same(&setting.documents(), &imported(&events));
    setting.is_accounted_for().await;
    stalled.stop();
    other.stop();
}

/// The store takes none of the events of [`load`].
fn is_away(double: &Double) {
    let indices: Vec<String> = (1..=12)
        .flat_map(|month| [2023, 2024].map(|year| format!("openvidu-events-{year}.{month:02}")))
        .collect();
    let indices: Vec<&str> = indices.iter().map(String::as_str).collect();
    double.ill(&indices, 503, "unavailable_shards_exception", "away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_paused_is_read_on_by_whoever_gets_it_again() {
    let kafka = Kafka::start("paused", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(18, 20_000);
    is_away(&double);
    let small = [("CALLSCOPE__KAFKA__QUEUE_BYTES", "1000000")];
    let instance = setting.start_with(&folder.path().join("a"), "a", &small);
    holds(&instance);
    kafka.produce("events", &events);
    instance.wait_for("/readyz", "the sink is away").await;
    // Of a paused partition the end is asked for.
    instance.wait_for("/metrics", "callscope_kafka_lag{").await;
    let other = setting.start_with(&folder.path().join("b"), "b", &small);
    holds(&other);
    tokio::task::block_in_place(|| other.stop());
    instance.wait_for("/readyz", "\"held\":[0,1,2,3]").await;
    double.ill(&[], 0, "", "");
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_costs_no_membership_and_no_memory() {
    let kafka = Kafka::start("away", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(7, 20_000);
    is_away(&double);
    let small = [("CALLSCOPE__KAFKA__QUEUE_BYTES", "1000000")];
    let instance = setting.start_with(&folder.path().join("a"), "a", &small);
    holds(&instance);
    kafka.produce("events", &events);
    // Three of its sessions pass.
    tokio::time::sleep(Duration::from_secs(18)).await;
    assert!(instance.get("/readyz").await.contains("\"held\":[0,1,2,3]"));
    assert!(instance.get("/readyz").await.contains("the sink is away"));
    // What waits is seen all the same.
    let lag = async || {
        let page = instance.get("/metrics").await;
        let lines = page.lines().filter(|line| line.starts_with("callscope_kafka_lag{"));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum::<usize>()
    };
    until(async || lag().await == events.len()).await;
    let memory =
        std::fs::read_to_string(format!("/proc/{}/status", instance.process.id())).unwrap();
    let resident = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim();
    let resident: u64 = resident.strip_suffix("kB").unwrap().trim().parse().unwrap();
    assert!(resident < 200_000, "{resident} kB");
    double.ill(&[], 0, "", "");
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    assert!(!instance.told.lock().unwrap().contains("partitions taken away"));
    instance.stop();
}

/// A call of two that goes on: it was joined, and is left half an hour later.
fn open_session(number: i64, start: i64) -> [Value; 4] {
    let (id, connection) = (format!("s{number}"), format!("con_{number}"));
    let unique = format!("{id}_{start}");
    let event = |name: &str, after: i64| {
        json!({"event":name,"sessionId":id,"uniqueSessionId":unique,"timestamp":start + after,"connectionId":connection,
               "location":"unknown","ip":"10.0.0.1","platform":"x","startTime":start + 1,"duration":1800,"reason":"disconnect"})
    };
    [
        json!({"event":"sessionCreated","sessionId":id,"uniqueSessionId":unique,"timestamp":start}),
        event("participantJoined", 1),
        event("participantLeft", 1_800_001),
        json!({"event":"sessionDestroyed","sessionId":id,"uniqueSessionId":unique,"timestamp":start + 1_800_002,
               "startTime":start,"duration":1800,"reason":"lastParticipantLeft"}),
    ]
}

/// Time in which a store was away is no time in which a session was silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_for_a_day_closes_no_session() {
    let kafka = Kafka::start("day", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let (clock, ahead) = (folder.path().join("clock.so"), folder.path().join("ahead"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&clock).arg(source).status();
    assert!(made.unwrap().success());
    std::fs::write(&ahead, "0").unwrap();
    let clocks =
        [("LD_PRELOAD", clock.to_str().unwrap()), ("CLOCK_AHEAD", ahead.to_str().unwrap())];
    let instance = setting.start_with(&folder.path().join("a"), "a", &clocks);
    holds(&instance);
    let now = chrono::Utc::now();
    let start = now.timestamp_millis() - 3_600_000;
    let sessions: Vec<_> = (0..40).map(|number| open_session(number, start + number)).collect();
    let part = |from: usize, to: usize| -> Vec<String> {
        let events = sessions.iter().flat_map(|events| events[from..to].iter());
        events.map(Value::to_string).collect()
    };
    kafka.produce("events", &part(0, 1));
    setting.is_settled(&instance).await;
    let index = format!("openvidu-events-{}", now.format("%Y.%m"));
    double.ill(&[&index], 503, "unavailable_shards_exception", "away");
    // One alone: what waits behind it would be a reason of its own to count no time.
    kafka.produce("events", &part(1, 2)[..1]);
    instance.wait_for("/readyz", "the sink is away").await;
    std::fs::write(&ahead, "90000").unwrap();
    assert!(instance.get("/readyz").await.contains("\"held\":[0,1,2,3]"));
    double.ill(&[], 0, "", "");
    setting.is_settled(&instance).await;
    let tomorrow = (now + Duration::from_secs(90_000)).format("%Y-%m-%dT").to_string();
    until(async || instance.told.lock().unwrap().contains(&tomorrow)).await;
    // Sessions are looked through once a second; those that had fallen silent would be written.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let expected = imported(&[part(0, 1), part(1, 2)[..1].to_vec()].concat());
    assert_eq!(expected.len(), 41);
    assert_same(&setting.documents(), &expected);
    kafka.produce("events", &part(1, 4));
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&part(0, 4)));
    assert!(!instance.told.lock().unwrap().contains("partitions taken away"));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_becomes_a_letter_and_its_neighbours_live() {
    let kafka = Kafka::start("poison", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 2).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(8, 500);
    let (before, after) = events.split_at(250);
    kafka.produce("events", before);
    // It takes no more than topics do by default.
    kafka.topic("g-dead-letters", 1).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("message.max.bytes", "2000000")
        .create()
        .unwrap();
    // As large as the topic takes; with what a letter says of it, it would be too large.
    let mut rng = Rng::new(8);
    let large: Vec<u8> =
        std::iter::repeat_with(|| rng.number().to_le_bytes()).flatten().take(1_048_400).collect();
    for payload in [Some(&b"garbage"[..]), None, Some(b"{\"event\":\"x\"}"), Some(&large)] {
        let mut record = BaseRecord::<str, [u8]>::to("events").key("key");
        record.payload = payload;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    kafka.produce("events", after);
    let instance = setting.start(&folder.path().join("a"), "a");
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    let letters = kafka.records("g-dead-letters");
    let mut reasons: Vec<&str> = letters.iter().map(|letter| letter.header("reason")).collect();
    reasons.sort_unstable();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert!(reasons.contains(&"a record without a value"), "{reasons:?}");
    for letter in &letters {
        assert_eq!(letter.header("topic"), "events");
        let (partition, offset) = (letter.header("partition"), letter.header("offset"));
        let key = format!("record/kafka/events/{partition}@{offset}");
        assert_eq!(letter.key, key.as_bytes());
    }
    let value = |letter: &kafka_server::Stored| letter.value.clone().unwrap_or_default();
    assert!(letters.iter().any(|letter| value(letter) == b"garbage"));
    let cut = letters.iter().find(|letter| value(letter) == large[..900_000]).unwrap();
    assert_eq!(cut.header("size"), "1048400");
    let key = |letter: &kafka_server::Stored| String::from_utf8(letter.key.clone()).unwrap();

    // The command works on the topic, beside a group that runs.
    let run = |arguments: &[&str], code: i32| {
        let mut command = setting.command(&folder.path().join("b"), "");
        let output = command.arg("dead-letters").args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    };
    let garbage = key(letters.iter().find(|letter| value(letter) == b"garbage").unwrap());
    let empty = key(letters.iter().find(|letter| value(letter).is_empty()).unwrap());
    let cut = key(cut);
    let listed = run(&["list"], 0);
    assert_eq!(listed.lines().count(), 4);
    let line = listed.lines().find(|line| line.starts_with(&cut)).unwrap();
    assert!(line.ends_with("cut: its record has 1048400 bytes"), "{line}");
    assert!(run(&["show", &garbage], 0).ends_with("garbage\n"));
    let position = cut.strip_prefix("record/").unwrap();
    let told = format!(
        "only the first 900000 of 1048400 bytes are here; the whole record stands at {position}"
    );
    assert!(run(&["show", &cut], 0).contains(&told));
    assert!(run(&["discard", &empty], 0).contains("1 discarded"));
    assert_eq!(run(&["list"], 0).lines().count(), 3);
    // What is tried again comes back as what it is, in another place; what is not whole stays.
    let tried = run(&["retry", "--all"], 5);
    assert!(tried.contains(&told) && tried.contains("2 tried again, 1 refused"), "{tried}");
    setting.is_settled(&instance).await;
    let again = run(&["list"], 0);
    assert_eq!(again.lines().count(), 3, "{again}");
    assert!(!again.contains(&format!("{garbage}\t")) && again.contains(&cut), "{again}");
    instance.stop();
}

/// It is a letter of that machine, and keeps no other from being tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_does_not_take_of_a_webhook_stays_on_the_machine() {
    let kafka = Kafka::start("stays", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 1).await;
    let folder = tempfile::tempdir().unwrap();
    let instance = setting.start(folder.path(), "a");
    // What cannot be compressed.
    let mut rng = Rng::new(8);
    let bytes = std::iter::repeat_with(|| rng.number().to_le_bytes()).flatten().take(1_000_000);
    let data = base64::engine::general_purpose::STANDARD.encode(bytes.collect::<Vec<u8>>());
    let event = json!({"event":"signalSent","sessionId":"s","timestamp":1,"from":"x","type":"x","data":data});
    let mut sender = Sender::new(instance.address, "/webhook");
    sender.send(&event.to_string()).await.unwrap();
    sender.send("garbage").await.unwrap();
    instance.wait_for("/metrics", "callscope_dead_letters 1\n").await;
    instance.wait_for("/metrics", "callscope_records_total{outcome=\"dead\"} 1\n").await;
    let run = |arguments: &[&str], code: i32| {
        let mut command = setting.command(folder.path(), "");
        let output = command.arg("dead-letters").args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        (String::from_utf8(output.stdout).unwrap(), told)
    };
    let (listed, warned) = run(&["list"], 0);
    assert!(listed.lines().count() == 1 && warned.contains("letters of this machine"), "{listed}");
    tokio::task::block_in_place(|| instance.stop());
    assert_eq!(run(&["list"], 0).0.lines().count(), 2);
    let (tried, _) = run(&["retry", "--all"], 5);
    assert!(tried.contains("1 tried again, 1 refused"), "{tried}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_shows_what_is_open_anywhere_and_one_counts_it() {
    let kafka = Kafka::start("view", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let counting = [("CALLSCOPE__STATS__EVERY", "60s")];
    let first = setting.start_with(&folder.path().join("a"), "a", &counting);
    let second = setting.start_with(&folder.path().join("b"), "b", &counting);
    let now = chrono::Utc::now().timestamp_millis();
    // Begun ten minutes ago and still open: ticks of which all lanes can tell.
    let events: Vec<String> = (0..40)
        .flat_map(|number| {
            let (id, start) = (format!("s{number}"), now - 600_000 + number);
            let unique = format!("{id}_{start}");
            [
                json!({"event":"sessionCreated","sessionId":id,"uniqueSessionId":unique,"timestamp":start}),
                json!({"event":"participantJoined","sessionId":id,"uniqueSessionId":unique,"timestamp":start + 1,
                       "connectionId":format!("con_{number}"),"location":"unknown","ip":"10.0.0.1","platform":"x"}),
                json!({"event":"signalSent","sessionId":id,"uniqueSessionId":unique,"timestamp":now - 1000,"type":"t","data":"d"}),
            ]
        })
        .map(|event| event.to_string())
        .collect();
    kafka.produce("events", &events);
    setting.is_settled(&first).await;
    for instance in [&first, &second] {
        instance.wait_for("/api/sessions?limit=1", "\"sessions\":40").await;
        let held = instance.get("/readyz").await;
        assert!(held.contains("\"ready\":true"), "{held}");
    }
    let counted = || {
        let documents = double.documents().into_values().map(|(_, _, json)| json);
        documents
            .filter(|json| json["elastic_type"] == "platformStats" && json["scope"] == "cluster")
            .map(|json| json["num_sessions"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    until(async || counted().len() >= 5).await;
    assert!(counted().iter().all(|count| *count == 40), "{:?}", counted());

    // Records that are keyed by something else are noticed, also where sessions have no name that is used once.
    let joined = json!({"event":"participantJoined","sessionId":"old","timestamp":now - 500,"connectionId":"con_old",
                        "location":"unknown","platform":"x"});
    let partition = |key: &str| callscope::kafka::key::partition(key.as_bytes(), 4);
    let other = (0..).map(|number: u32| number.to_string());
    let other = other.into_iter().find(|key| partition(key) != partition("old")).unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("partitioner", "murmur2")
        .create()
        .unwrap();
    for (key, name) in [("old", "con_1"), (&other, "con_2")] {
        assert!(first.get("/readyz").await.contains("\"ready\":true"));
        let event = joined.to_string().replace("con_old", name);
        producer
            .send(BaseRecord::to("events").key(key).payload(&event))
            .map_err(|(error, _)| error)
            .unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
        setting.is_settled(&first).await;
    }
    first.wait_for("/readyz", "session old is in partitions").await;
    first.stop();
    second.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_brokers_delete_too_early_are_counted_and_marks_are_none() {
    let kafka = Kafka::start("deleted", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 1).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(19, 300);
    let (read, rest) = events.split_at(100);
    let (deleted, last) = rest.split_at(150);
    kafka.produce("events", read);
    let instance = setting.start(&folder.path().join("a"), "a");
    setting.is_settled(&instance).await;
    instance.stop();
    kafka.produce("events", deleted);
    kafka.delete_before("events", 0, i64::try_from(read.len() + deleted.len()).unwrap()).await;
    // The mark of its transaction is the last thing in the partition.
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("transactional.id", "other")
        .create()
        .unwrap();
    producer.init_transactions(Duration::from_secs(60)).unwrap();
    producer.begin_transaction().unwrap();
    for event in last {
        let record = BaseRecord::<str, str>::to("events").key("s").payload(event);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.commit_transaction(Duration::from_secs(60)).unwrap();
    let instance = setting.start(&folder.path().join("a"), "a");
    let missed = format!("callscope_kafka_missed_total {}\n", deleted.len());
    instance.wait_for("/metrics", &missed).await;
    instance
        .wait_for("/metrics", "callscope_kafka_lag{topic=\"events\",partition=\"0\"} 0\n")
        .await;
    assert!(instance.told.lock().unwrap().contains("RECORDS WERE DELETED"));
    assert_same(&setting.documents(), &imported(&[read, last].concat()));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_with_wrong_keys_are_taken_over_by_session() {
    let kafka = Kafka::start("rekey", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    kafka.topic("unkeyed", 3).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(9, 3000);
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &kafka.brokers).create().unwrap();
    for event in &events {
        producer.send(BaseRecord::<(), str>::to("unkeyed").payload(event)).unwrap();
    }
    // Nothing at all is no event, and becomes a letter.
    producer.send(BaseRecord::<(), ()>::to("unkeyed").partition(0)).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    let from = [("CALLSCOPE__KAFKA__REKEY_FROM", "unkeyed")];
    let instance = setting.start_with(&folder.path().join("a"), "a", &from);
    setting.has_read("g-rekey", "unkeyed", &instance).await;
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    assert!(instance.get("/readyz").await.contains("\"ready\":true"));
    let mut command = setting.command(&folder.path().join("b"), "");
    let listed = command.args(["dead-letters", "list"]).output().unwrap();
    let told = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(told.starts_with("record/kafka/unkeyed/0@") && told.lines().count() == 1, "{told}");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_brokers_one_may_die_at_a_time() {
    let mut kafka = Kafka::start("three", 3);
    let double = Double::start().await;
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(10, 4000);
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    let instance = setting.start(&folder.path().join("a"), "a");
    holds(&instance);
    // Whichever coordinates the group or its transactions is among them.
    for (node, part) in events.chunks(events.len().div_ceil(3)).enumerate() {
        kafka.kill(node);
        kafka.produce("events", part);
        kafka.run(node);
        kafka.is_ready(3);
    }
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    instance.stop();
}

/// Partitions that are added under load move sessions to other lanes than their state is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_grew_is_taken_over_as_the_message_says() {
    let kafka = Kafka::start("grown", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "grown" };
    kafka.topic("grown", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(14, 6000);
    let (before, rest) = events.split_at(2000);
    let running = setting.start(&folder.path().join("a"), "a");
    holds(&running);
    kafka.produce("grown", before);
    until(async || !double.documents().is_empty()).await;
    kafka.grow("grown", 6).await;
    let (during, after) = rest.split_at(2000);
    kafka.produce("grown", during);
    let told = tokio::task::block_in_place(|| running.ended_with(3));
    assert!(told.contains("g-state has 4 partitions and grown has 6"), "{told}");
    for advice in ["make a new topic", "grown in kafka.rekey_from", "give kafka.group another name"]
    {
        assert!(told.contains(advice), "{told}");
    }

    kafka.produce("grown", after);
    kafka.topic("new", 6).await;
    let setting = Setting { kafka: &kafka, double: &double, group: "h", topic: "new" };
    let from = [("CALLSCOPE__KAFKA__REKEY_FROM", "grown")];
    let instance = setting.start_with(&folder.path().join("b"), "a", &from);
    setting.has_read("h-rekey", "grown", &instance).await;
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    assert!(instance.get("/readyz").await.contains("\"ready\":true"));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_do_not_fit_together_are_refused_by_name() {
    let kafka = Kafka::start("counts", 1);
    let double = Double::start().await;
    kafka.topic("four", 4).await;
    kafka.topic("six", 6).await;
    let folder = tempfile::tempdir().unwrap();
    let refused = |topics: &'static str, group: &'static str| {
        let setting = Setting { kafka: &kafka, double: &double, group, topic: topics };
        let output = setting.command(&folder.path().join("a"), "a").arg("serve").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{told}");
        told
    };
    let told = refused("four,six", "g");
    assert!(told.contains("four has 4 partitions, six has 6 partitions"), "{told}");
    let told = refused("nowhere", "g");
    assert!(told.contains("there is no topic nowhere"), "{told}");

    // Brokers that would delete what is old.
    kafka.topic("l-state", 4).await;
    let told = refused("four", "l");
    assert!(told.contains("topic l-state has cleanup.policy \"delete\""), "{told}");

    // Partitions that were added while nobody ran.
    let setting = Setting { kafka: &kafka, double: &double, group: "h", topic: "four" };
    kafka.produce("four", &load(11, 300));
    let instance = setting.start(&folder.path().join("a"), "a");
    setting.is_settled(&instance).await;
    instance.stop();
    for topic in ["h-state", "h-dead-letters"] {
        assert_eq!(kafka.setting(topic, "max.message.bytes").await, "16777216");
    }
    kafka.grow("four", 5).await;
    let told = refused("four", "h");
    assert!(told.contains("h-state has 4 partitions and four has 5"), "{told}");
    let output = setting.command(&folder.path().join("a"), "a").arg("check").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("h-state has 4 partitions and four has 5"), "{told}");

    // A topic that somebody has deleted and made anew.
    kafka.topic("five", 5).await;
    let setting = Setting { kafka: &kafka, double: &double, group: "k", topic: "five" };
    kafka.produce("five", &load(12, 300));
    let instance = setting.start(&folder.path().join("a"), "a");
    setting.is_settled(&instance).await;
    instance.stop();
    kafka.delete("five").await;
    kafka.topic("five", 5).await;
    let told = refused("five", "k");
    assert!(told.contains("made anew") && told.contains("kafka.group"), "{told}");
    // However long it is by now.
    kafka.produce("five", &load(12, 900));
    let told = refused("five", "k");
    assert!(told.contains("made anew") && told.contains("kafka.group"), "{told}");

    // Offsets whose state somebody has deleted.
    let setting = Setting { kafka: &kafka, double: &double, group: "i", topic: "six" };
    kafka.produce("six", &load(12, 300));
    let instance = setting.start(&folder.path().join("a"), "a");
    setting.is_settled(&instance).await;
    instance.stop();
    kafka.delete("i-state").await;
    let told = refused("six", "i");
    assert!(told.contains("its state in topic i-state") && told.contains("kafka.group"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_ask_for_tls_and_a_password_get_them() {
    let (kafka, door, certificate) = Kafka::start_secure("secure");
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let events = load(16, 600);
    let settings = |mechanism: &'static str, password: &'static str| {
        [
            ("CALLSCOPE__KAFKA__BROKERS", &*door),
            ("CALLSCOPE__KAFKA__TLS", "true"),
            ("CALLSCOPE__KAFKA__CA", certificate.to_str().unwrap()),
            ("CALLSCOPE__KAFKA__MECHANISM", mechanism),
            ("CALLSCOPE__KAFKA__USERNAME", "callscope"),
            ("CALLSCOPE__KAFKA__PASSWORD", password),
        ]
    };
    for (part, mechanism) in events.chunks(events.len().div_ceil(2)).zip(["SCRAM-SHA-512", "PLAIN"])
    {
        let instance =
            setting.start_with(&folder.path().join("a"), "a", &settings(mechanism, "secret"));
        kafka.produce("events", part);
        setting.is_settled(&instance).await;
        instance.stop();
    }
    assert_same(&setting.documents(), &imported(&events));

    let refused = |settings: &[(&str, &str)]| {
        let mut command = setting.command(&folder.path().join("b"), "b");
        let output = command.arg("check").envs(settings.iter().copied()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        told
    };
    let told = refused(&settings("PLAIN", "wrong"));
    assert!(
        told.contains("Invalid username or password") && told.contains("see kafka.username"),
        "{told}"
    );
    // The system knows no such authority.
    let mut strange = settings("PLAIN", "secret");
    strange[2].1 = "";
    let told = refused(&strange);
    assert!(told.contains("kafka.ca"), "{told}");
}

/// Whatever an account may not do is named, one thing after the other, until it may do enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_told_which_right_it_lacks() {
    let (kafka, door, certificate) = Kafka::start_secure("rights");
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("CALLSCOPE__KAFKA__BROKERS", &*door),
        ("CALLSCOPE__KAFKA__TLS", "true"),
        ("CALLSCOPE__KAFKA__CA", certificate.to_str().unwrap()),
        ("CALLSCOPE__KAFKA__USERNAME", "guest"),
        ("CALLSCOPE__KAFKA__PASSWORD", "secret"),
    ];
    let refused = || {
        let mut command = setting.command(&folder.path().join("a"), "a");
        let output = command.arg("serve").envs(settings).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{told}");
        told
    };
    let told = refused();
    assert!(told.contains("no topic events") && told.contains("Describe"), "{told}");

    kafka.allow("--operation Read --topic events");
    let told = refused();
    assert!(told.contains("cannot make topic g-state") && told.contains("yourself"), "{told}");

    // As it says, by somebody who may.
    for part in told.split('`').filter(|part| part.starts_with("kafka-topics.sh")) {
        kafka.make(part).await;
    }
    kafka.allow("--operation Read --operation Write --topic g- --resource-pattern-type prefixed");
    let told = refused();
    assert!(told.contains("cannot make topic g-dead-letters"), "{told}");
    kafka.allow("--operation Create --topic g- --resource-pattern-type prefixed");
    let told = refused();
    assert!(told.contains("transactional ids that begin with \"g\""), "{told}");
    kafka.allow("--operation Write --transactional-id g --resource-pattern-type prefixed");
    let instance = setting.start_with(&folder.path().join("a"), "a", &settings);
    instance.wait_for("/readyz", "Read on the topics and on the group").await;
    assert!(instance.told.lock().unwrap().contains("it needs DescribeConfigs"));
    kafka.allow("--operation Read --group g --resource-pattern-type prefixed");
    let events = load(17, 600);
    kafka.produce("events", &events);
    setting.is_settled(&instance).await;
    assert_same(&setting.documents(), &imported(&events));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_go_on_ends_and_says_why() {
    let kafka = Kafka::start("ends", 1);
    let double = Double::start().await;
    let setting = Setting { kafka: &kafka, double: &double, group: "g", topic: "events" };
    kafka.topic("events", 4).await;
    let folder = tempfile::tempdir().unwrap();
    // Two processes of one name.
    let first = setting.start(&folder.path().join("a"), "same");
    holds(&first);
    let second = setting.start(&folder.path().join("b"), "same");
    let told = tokio::task::block_in_place(|| first.ended_with(3));
    assert!(told.contains("kafka.instance_id"), "{told}");
    // Whoever is left is ready, though no record comes.
    second.wait_for("/readyz", "\"ready\":true").await;
    kafka.produce("events", &load(13, 300));
    setting.is_settled(&second).await;
    second.stop();

    // The state of a version to come: it is refused, and stays as it is.
    let state = kafka.last("g-state");
    for (partition, key, value) in &state {
        let newer = [&99_u32.to_le_bytes()[..], &value[4..]].concat();
        kafka.put("g-state", *partition, key, &newer);
    }
    let output = setting.command(&folder.path().join("a"), "a").arg("serve").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("has format 99") && told.contains("g-state"), "{told}");

    // The version that wrote it goes on where it stood.
    for (partition, key, value) in &state {
        kafka.put("g-state", *partition, key, value);
    }
    let again = setting.start(&folder.path().join("a"), "a");
    let events = load(13, 300);
    kafka.produce("events", &events);
    setting.is_settled(&again).await;
    assert_same(&setting.documents(), &imported(&events));
    again.stop();
}
