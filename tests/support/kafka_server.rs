//! A real Kafka for a test: started in a folder of its own, ended and removed with the test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::Offset;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/kafka/kafka.sh");
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Kafka {
    folder: PathBuf,
    pub brokers: String,
    nodes: Vec<Option<Child>>,
}

impl Kafka {
    /// One node, or three that have a copy each of everything.
    pub fn start(name: &str, nodes: usize) -> Self {
        Self::start_with(name, nodes, nodes)
    }

    /// Nodes of which so many have a copy of a partition.
    pub fn start_with(name: &str, nodes: usize, copies: usize) -> Self {
        let mut kafka = Self::prepare(name, nodes, copies);
        kafka.run_all();
        kafka
    }

    /// One node, its door with TLS and SASL, and the certificate that it shows there.
    pub fn start_secure(name: &str) -> (Self, String, PathBuf) {
        let mut kafka = Self::prepare(name, 1, 1);
        let port: u16 = kafka.brokers.rsplit(':').next().unwrap().parse().unwrap();
        let port = (port + 23).to_string();
        let secured =
            Command::new(SCRIPT).arg("secure").arg(&kafka.folder).arg(&port).status().unwrap();
        assert!(secured.success());
        kafka.run_all();
        let certificate = kafka.folder.join("cert.pem");
        (kafka, format!("127.0.0.1:{port}"), certificate)
    }

    /// One node that makes every topic that somebody asks for, as brokers do by default.
    pub fn start_obliging(name: &str) -> Self {
        let mut kafka = Self::prepare(name, 1, 1);
        let properties = kafka.folder.join("1/server.properties");
        let text = std::fs::read_to_string(&properties).unwrap();
        std::fs::write(&properties, text + "auto.create.topics.enable=true\n").unwrap();
        kafka.run_all();
        kafka
    }

    fn prepare(name: &str, nodes: usize, copies: usize) -> Self {
        let folder =
            std::env::temp_dir().join(format!("callscope-kafka-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let port = usize::from(free_ports(u16::try_from(nodes).unwrap()));
        let formatted = Command::new(SCRIPT)
            .arg("format")
            .arg(&folder)
            .args([port, nodes, copies].map(|number| number.to_string()))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(formatted.status.success());
        let brokers = String::from_utf8(formatted.stdout).unwrap().trim().to_owned();
        Self { folder, brokers, nodes: (0..nodes).map(|_| None).collect() }
    }

    /// Lets the user "guest" of a secure door do what these arguments of `kafka-acls.sh` say.
    pub fn allow(&self, arguments: &str) {
        let mut allow = Command::new(SCRIPT);
        allow.arg("allow").arg(&self.brokers).args(arguments.split(' '));
        let told = allow.output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    }

    fn run_all(&mut self) {
        let nodes = self.nodes.len();
        (0..nodes).for_each(|node| self.run(node));
        self.is_ready(nodes);
    }

    /// Runs a node that does not run.
    pub fn run(&mut self, node: usize) {
        let number = (node + 1).to_string();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join(&number).join("log"))
            .unwrap();
        let process = Command::new(SCRIPT)
            .arg("run")
            .arg(&self.folder)
            .arg(number)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.nodes[node] = Some(process);
    }

    /// `kill -9`: the script has become the broker.
    pub fn kill(&mut self, node: usize) {
        let mut process = self.nodes[node].take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Tells the process of a node something.
    pub fn signal(&self, node: usize, name: &str) {
        let id = self.nodes[node].as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// The same brokers, for another thread; whoever drops this ends none.
    pub fn address(&self) -> Self {
        let folder = self.folder.join("nowhere");
        Self { folder, brokers: self.brokers.clone(), nodes: Vec::new() }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "200")
            .set("log_level", "0");
        client
    }

    /// Waits until so many nodes take part: only those that serve are in the metadata.
    pub fn is_ready(&mut self, nodes: usize) {
        let asking: BaseConsumer = self.client().create().unwrap();
        loop {
            let metadata = asking.fetch_metadata(None, Duration::from_secs(1));
            if metadata.is_ok_and(|told| told.brokers().len() >= nodes) {
                return;
            }
            for (index, node) in self.nodes.iter_mut().enumerate() {
                if let Some(ended) = node.as_mut().and_then(|node| node.try_wait().unwrap()) {
                    let log = self.folder.join((index + 1).to_string()).join("log");
                    panic!("{ended}: {}", std::fs::read_to_string(log).unwrap());
                }
            }
            // Nothing is assigned: it only waits.
            let _nothing = asking.poll(Duration::from_millis(30));
        }
    }

    pub async fn topic(&self, name: &str, partitions: i32) {
        self.topic_with(name, partitions, &[]).await;
    }

    /// The topic that a command of `kafka-topics.sh` makes.
    pub async fn make(&self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        let value = |name: &str| words[words.iter().position(|word| *word == name).unwrap() + 1];
        let configs = words.windows(2).filter(|pair| pair[0] == "--config");
        let configs: Vec<_> = configs.map(|pair| pair[1].split_once('=').unwrap()).collect();
        let partitions = value("--partitions").parse().unwrap();
        self.topic_with(value("--topic"), partitions, &configs).await;
    }

    async fn topic_with(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        for (name, value) in configs {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        let made = admin.create_topics([&topic], &options).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// A topic that one node alone keeps.
    pub async fn topic_on(&self, name: &str, node: usize, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let place = [i32::try_from(node).unwrap() + 1];
        let places: Vec<&[i32]> = (0..partitions).map(|_| place.as_slice()).collect();
        let topic = NewTopic::new(name, partitions, TopicReplication::Variable(&places))
            .set("cleanup.policy", if name == "events" { "delete" } else { "compact" });
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        let made = admin.create_topics([&topic], &options).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Has the topics made in which the brokers keep offsets and transactions.
    pub fn coordinate(&self) {
        let asking = self.producer(&[("transactional.id", "none")]);
        asking.init_transactions(Duration::from_secs(60)).unwrap();
        let asking: BaseConsumer = self.client().set("group.id", "none").create().unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition("none", 0);
        // One that was just chosen may say that it is none.
        while asking.committed_offsets(asked.clone(), Duration::from_secs(60)).is_err() {}
    }

    pub fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        let mut client = self.client();
        for (name, value) in settings {
            client.set(*name, *value);
        }
        client.create().unwrap()
    }

    /// Sends events of one session in a transaction, whose mark then stands behind them.
    pub fn produce_in_transaction(&self, topic: &str, events: &[String]) {
        let producer = self.producer(&[("transactional.id", "other")]);
        producer.init_transactions(Duration::from_secs(60)).unwrap();
        producer.begin_transaction().unwrap();
        for event in events {
            let record = BaseRecord::to(topic).key("s").payload(event);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.commit_transaction(Duration::from_secs(60)).unwrap();
    }

    /// Sends events, keyed by session as another producer would.
    pub fn produce(&self, topic: &str, events: &[String]) {
        let producer = self.producer(&[
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2_random"),
            ("compression.type", "lz4"),
            ("linger.ms", "5"),
        ]);
        for event in events {
            let json: serde_json::Value = serde_json::from_str(event).unwrap();
            let mut record = BaseRecord::to(topic).payload(event);
            let key = json["sessionId"].as_str().map(str::to_owned);
            record.key = key.as_ref();
            while let Err((_, again)) = producer.send(record) {
                record = again;
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// Keys and values of a topic, without what compaction takes away.
    pub fn bytes(&self, topic: &str) -> f64 {
        let asking: BaseConsumer = self.client().create().unwrap();
        let metadata = asking.fetch_metadata(Some(topic), ANSWER_WITHIN).unwrap();
        let count = i32::try_from(metadata.topics()[0].partitions().len()).unwrap();
        let records = (0..count).flat_map(|partition| self.records_of(topic, partition));
        let size = |record: Stored| record.key.len() + record.value.map_or(0, |value| value.len());
        records.map(size).sum::<usize>() as f64
    }

    /// A setting of a topic.
    pub async fn setting(&self, topic: &str, name: &str) -> String {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let asked = [ResourceSpecifier::Topic(topic)];
        let told = admin.describe_configs(&asked, &AdminOptions::new()).await.unwrap();
        told[0].as_ref().unwrap().get(name).unwrap().value.clone().unwrap()
    }

    /// Gives a topic this setting, and no other.
    pub async fn set(&self, topic: &str, name: &str, value: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let changed = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let told = admin.alter_configs([&changed], &AdminOptions::new()).await.unwrap();
        assert!(told.iter().all(Result::is_ok), "{told:?}");
    }

    /// Gives a topic more partitions.
    pub async fn grow(&self, name: &str, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        let grown = NewPartitions::new(name, partitions);
        let made = admin.create_partitions([&grown], &options).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Deletes the records of a partition that stand before `offset`.
    pub async fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        let deleted = admin.delete_records(&before, &options).await.unwrap();
        assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    }

    /// Deletes a topic, and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        let made = admin.delete_topics(&[name], &options).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let asking: BaseConsumer = self.client().create().unwrap();
        while asking
            .fetch_metadata(None, ANSWER_WITHIN)
            .unwrap()
            .topics()
            .iter()
            .any(|topic| topic.name() == name)
        {
            // Nothing is assigned: it only waits.
            let _nothing = asking.poll(Duration::from_millis(30));
        }
    }

    /// Records of a topic that a group has not dealt with yet.
    pub fn lag(&self, group: &str, topic: &str) -> u64 {
        Self::lag_told(&self.committer(group), topic)
    }

    /// A client that asks in the name of a group, again and again where somebody waits: each new one costs a broker more than what
    /// it answers.
    pub fn committer(&self, group: &str) -> BaseConsumer {
        let mut client = self.client();
        client.set("group.id", group).set("isolation.level", "read_committed").create().unwrap()
    }

    pub fn lag_told(asking: &BaseConsumer, topic: &str) -> u64 {
        let metadata = asking.fetch_metadata(Some(topic), ANSWER_WITHIN).unwrap();
        let mut asked = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            asked.add_partition(topic, partition.id());
        }
        let Ok(committed) = asking.committed_offsets(asked, ANSWER_WITHIN) else { return u64::MAX };
        let mut lag = 0;
        for element in committed.elements() {
            let Ok((_, end)) = asking.fetch_watermarks(topic, element.partition(), ANSWER_WITHIN)
            else {
                return u64::MAX;
            };
            let dealt = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            lag += u64::try_from(end - dealt).unwrap();
        }
        lag
    }
}

impl Kafka {
    /// The members of a group by their `client.id`, as its coordinator knows them.
    pub fn members(&self, group: &str) -> Vec<String> {
        let asking: BaseConsumer = self.client().create().unwrap();
        let groups = asking.fetch_group_list(Some(group), ANSWER_WITHIN).unwrap();
        let members = groups.groups().iter().flat_map(|group| group.members());
        members.map(|member| member.client_id().to_owned()).collect()
    }

    /// Waits until the brokers have given up a member of some group that has said nothing for six seconds, the session of those who
    /// are tested.
    pub fn a_session_passes(&self) {
        const GROUP: &str = "silent";
        let silent: BaseConsumer = self
            .client()
            .set("group.id", GROUP)
            // With a name of its own it does not leave.
            .set("group.instance.id", "silent")
            .set("session.timeout.ms", "6000")
            .create()
            .unwrap();
        silent.subscribe(&["events"]).unwrap();
        while silent.assignment().unwrap().count() == 0 {
            let _record = silent.poll(Duration::from_millis(30));
        }
        drop(silent);
        assert_eq!(self.members(GROUP).len(), 1);
        let asking: BaseConsumer = self.client().create().unwrap();
        while !self.members(GROUP).is_empty() {
            // Nothing is assigned: it only waits.
            let _nothing = asking.poll(Duration::from_millis(30));
        }
    }

    /// The node that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> usize {
        let asking: BaseConsumer = self.client().create().unwrap();
        let metadata = asking.fetch_metadata(Some(topic), ANSWER_WITHIN).unwrap();
        let partitions = metadata.topics()[0].partitions();
        let found = partitions.iter().find(|known| known.id() == partition).unwrap();
        usize::try_from(found.leader()).unwrap() - 1
    }

    /// The node that coordinates what `name` says: a group (`__consumer_offsets`) or transactions (`__transaction_state`), each of
    /// four partitions. Kafka's own rule: Java's hash of the name.
    pub fn coordinator(&self, topic: &str, name: &str) -> usize {
        let hash = name
            .bytes()
            .fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
        self.leader(topic, i32::try_from(hash.unsigned_abs() % 4).unwrap())
    }

    /// Partitions of a topic in which a transaction is open.
    pub fn open(&self, topic: &str) -> Vec<i32> {
        let reader = |isolation: &str| -> BaseConsumer {
            self.client().set("isolation.level", isolation).create().unwrap()
        };
        let readers = [reader("read_committed"), reader("read_uncommitted")];
        let metadata = readers[0].fetch_metadata(Some(topic), ANSWER_WITHIN).unwrap();
        let partitions = metadata.topics()[0].partitions().iter();
        let is_open = |partition: &i32| {
            let ends = readers
                .each_ref()
                .map(|reader| reader.fetch_watermarks(topic, *partition, ANSWER_WITHIN).unwrap().1);
            ends[0] < ends[1]
        };
        partitions.map(|known| known.id()).filter(is_open).collect()
    }

    /// What a group has committed for a partition, as the node `coordinator` tells it; nothing while a transaction is open that
    /// would change it.
    pub fn committed(&self, coordinator: usize, group: &str, place: (&str, i32)) -> Option<i64> {
        let address = self.brokers.split(',').nth(coordinator).unwrap();
        let asking: BaseConsumer = self
            .client()
            .set("bootstrap.servers", address)
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition(place.0, place.1);
        let told = asking.committed_offsets(asked, Duration::from_secs(1)).ok()?;
        match told.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}

/// Stands between a client and its own door of a broker.
#[derive(Debug)]
pub struct Wire {
    pub brokers: String,
    is_cut: watch::Sender<bool>,
}

impl Wire {
    /// While it is cut, connections break and none is made.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }
}

impl Kafka {
    /// The wire of one of three clients of a single node.
    pub async fn wire(&self, client: u16) -> Wire {
        let port: u16 = self.brokers.rsplit(':').next().unwrap().parse().unwrap();
        let (door, proxy) = (port + 20 + client, port + 30 + client);
        let listener = TcpListener::bind(("127.0.0.1", proxy)).await.unwrap();
        let is_cut = watch::Sender::new(false);
        let watched = is_cut.subscribe();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut watched = watched.clone();
                tokio::spawn(async move {
                    if *watched.borrow_and_update() {
                        return;
                    }
                    let Ok(mut broker) = TcpStream::connect(("127.0.0.1", door)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut broker) => {}
                        _ = watched.wait_for(|is_cut| *is_cut) => {}
                    }
                });
            }
        });
        Wire { brokers: format!("127.0.0.1:{proxy}"), is_cut }
    }
}

/// A record as it stands in a topic.
#[derive(Debug)]
pub struct Stored {
    pub key: Vec<u8>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
}

impl Stored {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

impl Kafka {
    /// The last value of every key of a compacted topic, by partition; tombstones are left out.
    pub fn last(&self, topic: &str) -> Vec<(i32, Vec<u8>, Vec<u8>)> {
        let asking: BaseConsumer = self.client().create().unwrap();
        let metadata = asking.fetch_metadata(Some(topic), ANSWER_WITHIN).unwrap();
        let count = i32::try_from(metadata.topics()[0].partitions().len()).unwrap();
        let mut last = Vec::new();
        for partition in 0..count {
            let mut values = std::collections::BTreeMap::new();
            for record in self.records_of(topic, partition) {
                match record.value {
                    Some(value) => values.insert(record.key, value),
                    None => values.remove(&record.key),
                };
            }
            last.extend(values.into_iter().map(|(key, value)| (partition, key, value)));
        }
        last
    }

    /// Writes one record.
    pub fn put(&self, topic: &str, partition: i32, key: &[u8], value: &[u8]) {
        let producer = self.producer(&[]);
        let record = BaseRecord::to(topic).partition(partition).key(key).payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(ANSWER_WITHIN).unwrap();
    }

    /// Everything in a topic of one partition.
    pub fn records(&self, topic: &str) -> Vec<Stored> {
        self.records_of(topic, 0)
    }

    /// Everything in a partition.
    pub fn records_of(&self, topic: &str, partition: i32) -> Vec<Stored> {
        let reader: BaseConsumer = self
            .client()
            .set("group.id", "reader")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        reader.assign(&all).unwrap();
        let mut records = Vec::new();
        loop {
            match reader.poll(ANSWER_WITHIN).unwrap() {
                Ok(message) => {
                    let text = |bytes: Option<&[u8]>| {
                        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
                    };
                    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                    records.push(Stored {
                        key: message.key().unwrap_or_default().to_vec(),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers: headers
                            .map(|header| (header.key.to_owned(), text(header.value)))
                            .collect(),
                    });
                }
                Err(KafkaError::PartitionEOF(_)) => return records,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            let _ended = node.kill();
            let _reaped = node.wait();
        }
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

/// A port after which so many are free, as are so many from ten further on, four from twenty and three from thirty. Below those
/// that the kernel gives to clients: one of them must not get a port between the kill of its server and the restart.
fn free_ports(count: u16) -> u16 {
    /// How many places were looked at: a test beside this one has the port that it was given, but listens there only later.
    static LOOKED_AT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id();
    std::iter::repeat_with(|| first.wrapping_add(LOOKED_AT.fetch_add(1, Ordering::Relaxed)))
        .take(300)
        .map(|place| 20_000 + u16::try_from(place % 300).unwrap() * 40)
        .find(|base| {
            let doors = (20..24).chain(30..33).map(|door| base + door);
            let nodes = (0..count).flat_map(|node| [base + node, base + 10 + node]);
            nodes.chain(doors).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
        })
        .unwrap()
}
