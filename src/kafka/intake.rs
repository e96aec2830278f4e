//! The intake: reads the topics on a thread of its own, into a bounded queue for every lane.
//!
//! The thread does nothing but poll, so membership in the group never depends on the sink. A lane whose queue is full has its
//! partitions paused until half of it is dealt with. Partitions come and go inside `poll`: what was assigned is told to the
//! group's worker at once; what is taken away is given back when the worker has let go of it, for which it has
//! `kafka.drain_after`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{
    BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance,
};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::queues::{Queue, Queues, Read};
use super::anchor::{Anchors, Newest};
use super::firsts::Firsts;
use super::members::{self, Members};
use super::message::Items;
use super::standing::{Board, Listener, Part};
use super::topics::ANSWER_WITHIN;
use super::{FETCH_AGAIN_MS, KafkaError, client, unusable};
use crate::checkpoint::persist::kill_point;
use crate::config::{Config, KafkaConfig};
use crate::record::Input;

mod queues;

pub(super) use queues::Taken;

/// How long one poll waits for a record.
const POLL: Duration = Duration::from_millis(100);
/// How long closing may take. A second is usual.
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// What the worker has beyond `kafka.drain_after` to say that it has let go.
const GRACE: Duration = Duration::from_secs(2);
/// How often the ends of partitions are told.
const STATISTICS: Duration = Duration::from_secs(1);
/// The same of paused partitions, and how long that may keep from reading.
const ASK_ENDS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));
/// How often it is asked at most what is there, and how long an answer may keep from reading.
const ASK_FIRSTS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Which partitions this instance has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Counts assignments: nothing of one is good for the next.
    pub(super) epoch: u64,
    /// Lanes.
    pub(super) partitions: BTreeSet<i32>,
    /// Since they are taken away: until when they have to be let go of.
    pub(super) until: Option<Instant>,
    /// Why nothing of it can be taken over.
    pub(super) unfit: Option<Unfit>,
}

/// Why an assignment cannot be taken over. What to do about it is in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Of some lanes it has but a part: other members read other topics.
    Torn(String),
    /// It is of topics that this instance does not read: the brokers take it for another one of its name.
    Strange(String),
}

/// What the thread, the callbacks and the worker share.
#[derive(Debug)]
struct Shared {
    assignment: watch::Sender<Assignment>,
    released: Mutex<Receiver<u64>>,
    queues: Mutex<Queues>,
    /// Told when a queue has something.
    filled: Notify,
    listener: Listener,
    drain_after: Duration,
    topics: Vec<String>,
}

/// The brokers know the offset no more to go on from, and the client begins anew.
fn went_back(message: &BorrowedMessage<'_>, known: u64) -> KafkaError {
    let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
    KafkaError::made_anew(&format!(
        "partition {partition} of {topic} goes on with offset {offset}, and this group has dealt with it up to {known}"
    ))
}

/// Callbacks of the client.
pub(super) struct Context(Arc<Shared>);

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        self.0.listener.look_at_brokers(&statistics);
        for (name, topic) in &statistics.topics {
            for partition in topic.partitions.values().filter(|known| known.ls_offset >= 0) {
                // Of a paused one it is the end of long ago.
                let is_paused = |queue: &Queue| queue.is_paused;
                if lock(&self.0.queues).lanes.get(&partition.partition).is_some_and(is_paused) {
                    continue;
                }
                let is_read = partition.next_offset >= partition.ls_offset;
                let end = if is_read && partition.fetchq_cnt == 0 {
                    // What stands behind the last record are marks of its producer's transactions, or was deleted.
                    self.0.has_come(name, partition.partition, partition.next_offset);
                    self.0.read_up_to(name, partition.partition)
                } else {
                    partition.ls_offset
                };
                self.0.ends_at(name, partition.partition, end);
            }
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        // Brokers that are away come back; the worker shows it.
        tracing::debug!(error = %error, reason, "client of Kafka");
        self.0.listener.look_at(&error);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(_) => self.0.revoke(consumer.assignment_lost()),
            Rebalance::Assign(_) => {}
            Rebalance::Error(error) => {
                self.0.listener.tell(Some(format!("rebalance failed: {error}")));
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            let mut assigned: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
            for element in partitions.elements() {
                assigned.entry(element.partition()).or_default().insert(element.topic().to_owned());
            }
            self.0.assign(assigned);
        }
    }
}

impl Shared {
    /// Takes what was assigned, by partition number the topics. A lane is a number over all topics, wherever a member of the
    /// group reads others, it is torn.
    fn assign(&self, assigned: BTreeMap<i32, BTreeSet<String>>) {
        let torn = assigned.iter().find_map(|(lane, topics)| {
            let missing = self.topics.iter().find(|topic| !topics.contains(*topic))?;
            Some((lane, missing))
        });
        // What its name had before, the brokers give it again.
        let strange = assigned.values().flatten().find(|topic| !self.topics.contains(topic));
        let strange = strange.map(|topic| {
            Unfit::Strange(format!("the group gave this instance a partition of {topic}, which is not among its kafka.topics"))
        });
        let unfit = torn.map(|(lane, missing)| {
            Unfit::Torn(format!(
                "the group gave partition {lane} of another topic to this instance, and that of {missing} to another one: its members read \
                 different topics; stop all of them, and start them with the same kafka.topics"
            ))
        });
        let unfit = strange.or(unfit);
        let partitions: BTreeSet<i32> = assigned.into_keys().collect();
        let epoch = self.assignment.borrow().epoch + 1;
        lock(&self.queues).assign(epoch, &partitions);
        // Whatever kept it from that is over.
        self.listener.tell(None);
        self.listener.board.trouble(Part::Joining, None);
        self.listener.board.change(|standing| standing.is_member = true);
        tracing::info!(epoch, partitions = ?partitions, "partitions assigned");
        self.assignment.send_replace(Assignment { epoch, partitions, until: None, unfit });
    }

    /// Gives everything back once the worker has let go of it. `is_lost`: it belongs to others already.
    fn revoke(&self, is_lost: bool) {
        let Assignment { epoch, partitions, unfit, .. } = self.assignment.borrow().clone();
        // Until something is assigned again, nothing is done here.
        self.listener.board.change(|standing| standing.is_member = false);
        if partitions.is_empty() {
            return;
        }
        kill_point("revoke");
        let budget = if is_lost { Duration::ZERO } else { self.drain_after };
        let until = Some(Instant::now() + budget);
        tracing::info!(epoch, is_lost, partitions = ?partitions, "partitions taken away");
        self.assignment.send_replace(Assignment { epoch, partitions, until, unfit });
        let released = lock(&self.released);
        let deadline = Instant::now() + budget + GRACE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match released.recv_timeout(left) {
                Ok(known) if known < epoch => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!(
                        epoch,
                        "partitions given back before their cycle has ended; it will not be saved"
                    );
                    break;
                }
            }
        }
        lock(&self.queues).forget();
        self.listener.board.metrics.kafka.forget_partitions();
        let none = Assignment { epoch: epoch + 1, ..Assignment::default() };
        self.assignment.send_replace(none);
    }

    /// Behind the last record of a partition that was read, now or by whoever has saved its state.
    fn read_up_to(&self, topic: &str, partition: i32) -> i64 {
        let queues = lock(&self.queues);
        let input = input(topic, partition);
        let read = queues.read.get(&input).map(|read| read.next);
        let dealt = queues.dealt.get(&input).copied().max(read);
        i64::try_from(dealt.unwrap_or(0)).unwrap_or(i64::MAX)
    }

    /// Notes how far the client has come in a partition.
    fn has_come(&self, topic: &str, partition: i32, next: i64) {
        let next = u64::try_from(next).unwrap_or(0);
        lock(&self.queues).come.insert(input(topic, partition), next);
    }

    /// Notes the end of a partition, and tells the lag: from here, because the worker may be waiting for the sink.
    fn ends_at(&self, topic: &str, partition: i32, end: i64) {
        let input = input(topic, partition);
        let mut queues = lock(&self.queues);
        if let Some(next) = queues.dealt.get(&input) {
            self.listener.board.metrics.kafka.lag(topic, partition, beyond(end, *next));
        }
        queues.ends.insert(input, end);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the positions of a partition's records are called.
#[must_use]
pub fn input(topic: &str, partition: i32) -> Input {
    Input(format!("kafka/{topic}/{partition}").into())
}

/// The reading end, for the worker.
pub(super) struct Intake {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Context>>,
    released: SyncSender<u64>,
    assignment: watch::Receiver<Assignment>,
    group: String,
    /// Ends the thread.
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<Result<(), KafkaError>>>,
}

/// Closes the consumer. `librdkafka` tells it meanwhile that its partitions are revoked, and the binding asks back in which way to
/// give them up: where the group's own thread has ended by then, that is never answered (librdkafka's issues 4041 and 4884). Nothing is
/// lost with a thread that waits: everything was released, and brokers end the membership by themselves.
fn leave(consumer: Arc<BaseConsumer<Context>>) {
    let (left, told) = std::sync::mpsc::channel::<()>();
    let closing = std::thread::Builder::new().name("leave".to_owned()).spawn(move || {
        // Dropped after it, it tells that this is done.
        let _left = left;
        drop(consumer);
    });
    let Ok(closing) = closing else { return };
    match told.recv_timeout(LEAVE_MAX) {
        Err(RecvTimeoutError::Timeout) => {
            tracing::warn!(
                "Kafka's client does not close; the brokers end the membership after kafka.session_timeout"
            );
        }
        _ => drop(closing.join()),
    }
}

impl Intake {
    /// Joins the group and begins to read.
    ///
    /// # Errors
    ///
    /// If the settings do not make a client.
    pub(super) fn start(config: &Config, board: Board) -> Result<Self, KafkaError> {
        let kafka = &config.kafka;
        let (released, receiver) = sync_channel(64);
        let shared = Arc::new(Shared {
            assignment: watch::Sender::default(),
            released: Mutex::new(receiver),
            queues: Mutex::default(),
            filled: Notify::new(),
            listener: Listener::new(board, Part::Reading, ("kafka.topics", &kafka.group)),
            drain_after: kafka.drain_after,
            topics: kafka.topics.clone(),
        });
        let consumer = consumer(kafka, Arc::clone(&shared))?;
        let topics: Vec<&str> = kafka.topics.iter().map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| KafkaError::refused(format!("cannot subscribe: {error}")))?;
        let consumer = Arc::new(consumer);
        let stop = CancellationToken::new();
        let reading = Reading {
            shared: Arc::clone(&shared),
            consumer: Arc::clone(&consumer),
            stop: stop.clone(),
            queue_bytes: kafka.queue_bytes.get(),
            items: Items::new(config),
            asked: Instant::now(),
            firsts: Firsts::new(kafka)?,
            asks: false,
            asks_again: Instant::now(),
            anchors: Anchors::both(),
        };
        let thread = std::thread::Builder::new()
            .name("kafka".to_owned())
            .spawn(move || reading.run())
            .map_err(|error| KafkaError::away(format!("no thread to read from Kafka: {error}")))?;
        let assignment = shared.assignment.subscribe();
        let group = kafka.group.clone();
        Ok(Self { shared, consumer, released, assignment, group, stop, thread: Some(thread) })
    }

    /// Which partitions this instance has.
    pub(super) fn assignment(&mut self) -> Assignment {
        self.assignment.borrow_and_update().clone()
    }

    /// The same, for who has no time to wait.
    pub(super) fn watch(&self) -> watch::Receiver<Assignment> {
        self.shared.assignment.subscribe()
    }

    /// Says that nothing of `epoch` is held any more.
    pub(super) fn release(&self, epoch: u64) {
        // Nobody waits for more than the latest.
        let _full = self.released.try_send(epoch);
    }

    /// Who the group says that this instance is.
    pub(super) fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.group_metadata()
    }

    /// Who else is in the group. Brokers that do not answer within `within` tell nothing.
    pub(super) fn members(&self, within: Duration) -> Members {
        let topics = &self.shared.topics;
        let told = self.ask_members(within, |members| members::look(topics, members));
        told.unwrap_or(Members::NotKnown)
    }

    /// Waits until there may be something to do.
    pub(super) async fn wait(&mut self, at_most: Duration) {
        tokio::select! {
            _ = self.assignment.changed() => {}
            () = self.shared.filled.notified() => {}
            () = tokio::time::sleep(at_most) => {}
        }
    }

    /// What was read for the lanes of `epoch`: at most `records_max` records together, and no more once they hold `bytes_max`.
    pub(super) fn take(
        &self,
        epoch: u64,
        records_max: usize,
        bytes_max: usize,
    ) -> BTreeMap<i32, Taken> {
        lock(&self.shared.queues).take(epoch, records_max, bytes_max)
    }

    /// How far reading is behind the end of `input`, given the offset to go on from; `None`: not known yet.
    pub(super) fn lag(&self, input: &Input, next: u64) -> Option<u64> {
        let end = *lock(&self.shared.queues).ends.get(input)?;
        Some(beyond(end, next))
    }

    /// Says how far `input` is dealt with, for the metrics.
    pub(super) fn dealt_with(&self, input: Input, next: u64) {
        lock(&self.shared.queues).dealt.insert(input, next);
    }

    /// Says which record of a partition was read last before it came here, if none was read since.
    pub(super) fn was_read(&self, last: &Newest) {
        let mut queues = lock(&self.shared.queues);
        let next = u64::try_from(last.next).unwrap_or(0);
        if queues.lanes.contains_key(&last.partition) {
            let read = Read { next, time: Some(last.time) };
            queues.read.entry(input(&last.topic, last.partition)).or_insert(read);
        }
    }

    /// How far reading has come in `input` if nothing is there any more to be read before that.
    pub(super) fn has_come(&self, input: &Input) -> Option<u64> {
        lock(&self.shared.queues).has_come(input)
    }

    /// The first offset of a partition and its end, open transactions left out.
    ///
    /// # Errors
    ///
    /// If the brokers do not answer.
    pub(super) fn bounds(&self, topic: &str, partition: i32) -> Result<Range<u64>, KafkaError> {
        let told = self.consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN);
        let (first, end) = told.map_err(|error| {
            KafkaError::away(format!(
                "cannot read the bounds of partition {partition} of {topic}: {error}"
            ))
        })?;
        Ok(u64::try_from(first).unwrap_or(0)..u64::try_from(end).unwrap_or(0))
    }

    /// Offsets that the group has committed for `partitions` of all topics.
    ///
    /// # Errors
    ///
    /// If the brokers do not answer.
    pub(super) fn committed(
        &self,
        topics: &[String],
        partitions: &BTreeSet<i32>,
    ) -> Result<BTreeMap<(String, i32), Option<i64>>, KafkaError> {
        let mut asked = TopicPartitionList::new();
        for topic in topics {
            for partition in partitions {
                asked.add_partition(topic, *partition);
            }
        }
        let away = |error: ClientError| {
            KafkaError::away(format!("cannot read the group's offsets: {error}"))
        };
        let told = self.consumer.committed_offsets(asked, ANSWER_WITHIN).map_err(away)?;
        let mut committed = BTreeMap::new();
        for element in told.elements() {
            element.error().map_err(away)?;
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            committed.insert((element.topic().to_owned(), element.partition()), offset);
        }
        Ok(committed)
    }

    /// Whether the group has begun to deal with all that this instance reads, and with nothing else that its members read at this
    /// moment: then it is others that do not fit. Brokers that do not answer within `within` tell nothing, which is `None`.
    ///
    /// # Errors
    ///
    /// If they do not tell what was committed.
    pub(super) fn is_right(&self, within: Duration) -> Result<Option<bool>, KafkaError> {
        let topics = &self.shared.topics;
        let others = self.ask_members(within, |members| members::others(topics, members));
        let Some(others) = others.flatten() else { return Ok(None) };
        // A cycle commits all topics of its lanes, also those of which nothing was read yet.
        for topic in topics {
            if !self.has_begun(topic)? {
                return Ok(Some(false));
            }
        }
        for topic in &others {
            if self.has_begun(topic)? {
                return Ok(Some(false));
            }
        }
        Ok(Some(true))
    }

    /// Whether the group has committed anything of a topic, whoever it was.
    fn has_begun(&self, topic: &str) -> Result<bool, KafkaError> {
        let away = |error: ClientError| {
            KafkaError::away(format!("cannot read the partitions of {topic}: {error}"))
        };
        let metadata = self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(away)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let partitions = partitions.map(rdkafka::metadata::MetadataPartition::id).collect();
        let committed = self.committed(&[topic.to_owned()], &partitions)?;
        Ok(committed.values().any(Option::is_some))
    }

    /// What `look` makes of the subscriptions of all members. `None`: the brokers do not tell them within `within`.
    fn ask_members<T>(
        &self,
        within: Duration,
        look: impl FnOnce(&mut dyn Iterator<Item = Option<&[u8]>>) -> T,
    ) -> Option<T> {
        match self.consumer.fetch_group_list(Some(&self.group), within) {
            Ok(groups) => {
                let groups = groups.groups().iter().filter(|group| group.name() == self.group);
                let members = groups.flat_map(|group| group.members());
                Some(look(&mut members.map(|member| member.metadata())))
            }
            Err(error) => {
                tracing::debug!(error = %error, "asking who is in the group");
                None
            }
        }
    }

    /// Leaves the group. Everything must have been released.
    ///
    /// # Errors
    ///
    /// What had ended the thread before.
    pub(super) fn stop(mut self) -> Result<(), KafkaError> {
        self.stop.cancel();
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        leave(self.consumer);
        match ended {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(KafkaError::away("the thread that reads from Kafka panicked")),
            None => Ok(()),
        }
    }

    /// Whether the thread has ended by itself, which it does when it cannot go on.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(std::thread::JoinHandle::is_finished)
    }
}

fn consumer(
    config: &KafkaConfig,
    shared: Arc<Shared>,
) -> Result<BaseConsumer<Context>, KafkaError> {
    let millis = |span: Duration| span.as_millis().to_string();
    // What the client reads ahead comes on top of the queues.
    let ahead_kb = (config.queue_bytes.get() / 4 / 1024).clamp(256, 65_536).to_string();
    let mut client = client(config);
    client
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", millis(config.session_timeout))
        .set("heartbeat.interval.ms", millis(config.session_timeout / 10))
        .set(
            "max.poll.interval.ms",
            millis((config.session_timeout * 2).max(Duration::from_secs(300))),
        )
        .set("queued.max.messages.kbytes", &ahead_kb)
        .set("queued.min.messages", "10000")
        .set("fetch.queue.backoff.ms", FETCH_AGAIN_MS)
        .set("fetch.wait.max.ms", "100")
        .set("statistics.interval.ms", millis(STATISTICS));
    if !config.instance_id.is_empty() {
        client.set("group.instance.id", &config.instance_id);
    }
    client.create_with_context(Context(shared)).map_err(|error| unusable(&error))
}

/// The thread.
struct Reading {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Context>>,
    stop: CancellationToken,
    queue_bytes: usize,
    items: Items,
    /// When the ends of paused partitions were last asked for.
    asked: Instant,
    firsts: Firsts,
    /// Whether it has to be asked what is there, and when that may be done again.
    asks: bool,
    asks_again: Instant,
    anchors: [Anchors; 2],
}

impl Reading {
    fn run(mut self) -> Result<(), KafkaError> {
        let consumer = Arc::clone(&self.consumer);
        while !self.stop.is_cancelled() {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    self.shared.listener.tell(None);
                    self.push(&message)?;
                }
                Some(Err(ClientError::MessageConsumptionFatal(code))) => {
                    return Err(self.shared.listener.ended(code));
                }
                Some(Err(error)) => self.shared.listener.look_at(&error),
            }
            self.resume();
            self.ask_firsts();
            self.ask_ends();
            if self.anchors.iter().any(Anchors::is_due) && !self.shared.listener.is_away() {
                let newest = self.newest();
                for anchors in &mut self.anchors {
                    anchors.look(&consumer, newest.clone())?;
                }
            }
        }
        // Whoever waits for a rebalance has let go already.
        consumer.unsubscribe();
        Ok(())
    }

    fn push(&mut self, message: &BorrowedMessage<'_>) -> Result<(), KafkaError> {
        let partition = message.partition();
        let item = self.items.item(message);
        let time = message.timestamp().to_millis();
        let pushed = lock(&self.shared.queues).push(partition, (item, time), self.queue_bytes);
        let pushed = pushed.map_err(|known| went_back(message, known))?;
        self.asks |= pushed.asks;
        self.shared.filled.notify_one();
        if pushed.is_full {
            self.set(&[partition], true);
        }
        Ok(())
    }

    /// Asks what is there of partitions in which offsets without a record were met. The sooner, the surer it is what they were: what
    /// is deleted between reading and asking is taken for what was never read. Until it is known, nothing behind is dealt with.
    fn ask_firsts(&mut self) {
        if !self.asks || Instant::now() < self.asks_again || self.shared.listener.is_away() {
            return;
        }
        let asked = lock(&self.shared.queues).not_asked();
        let topics = &self.shared.topics;
        let place = |(lane, known): (i32, Input)| {
            let topic = topics.iter().find(|topic| input(topic, lane) == known)?;
            Some((topic.clone(), lane))
        };
        let places = asked.into_iter().filter_map(place).collect();
        let begun = Instant::now();
        let told = self.firsts.ask(&places, ASK_FIRSTS.1);
        self.asks = told.len() < places.len();
        let mut queues = lock(&self.shared.queues);
        for ((topic, lane), first) in told {
            queues.begins(lane, &input(&topic, lane), first);
        }
        drop(queues);
        // However long brokers take to answer, most of the time is for reading: what is read meanwhile is asked about together.
        self.asks_again = Instant::now() + ASK_FIRSTS.0.max(2 * begun.elapsed());
        self.shared.filled.notify_one();
    }

    /// Goes on reading where there is room again.
    fn resume(&self) {
        let partitions = lock(&self.shared.queues).resumed(self.queue_bytes);
        if !partitions.is_empty() {
            self.set(&partitions, false);
        }
    }

    /// The partitions that something was read of.
    fn newest(&self) -> Vec<Newest> {
        let queues = lock(&self.shared.queues);
        let places = self
            .shared
            .topics
            .iter()
            .flat_map(|topic| queues.lanes.keys().map(move |partition| (topic, *partition)));
        let newest = places.filter_map(|(topic, partition)| {
            let read = queues.read.get(&input(topic, partition))?;
            let (next, time) = (i64::try_from(read.next).ok()?, read.time?);
            Some(Newest { topic: topic.clone(), partition, next, time })
        });
        newest.collect()
    }

    /// The client learns of ends by fetching, and of a paused partition it fetches nothing.
    fn ask_ends(&mut self) {
        if self.asked.elapsed() < ASK_ENDS.0 || self.shared.listener.is_away() {
            return;
        }
        self.asked = Instant::now();
        let paused: Vec<i32> = {
            let queues = lock(&self.shared.queues);
            let paused = queues.lanes.iter().filter(|(_, queue)| queue.is_paused);
            paused.map(|(partition, _)| *partition).collect()
        };
        if paused.is_empty() {
            return;
        }
        let mut asked = self.list(&paused);
        // As a time it asks for the end.
        let answer = asked
            .set_all_offsets(Offset::End)
            .and_then(|()| self.consumer.offsets_for_times(asked, ASK_ENDS.1));
        match answer {
            Ok(ends) => {
                for end in ends.elements() {
                    if let (Ok(()), Offset::Offset(offset)) = (end.error(), end.offset()) {
                        self.shared.ends_at(end.topic(), end.partition(), offset);
                    }
                }
            }
            Err(error) => tracing::debug!(error = %error, "ends of paused partitions"),
        }
    }

    /// These partitions of all topics.
    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for topic in &self.shared.topics {
            for partition in partitions {
                list.add_partition(topic, *partition);
            }
        }
        list
    }

    fn set(&self, partitions: &[i32], is_paused: bool) {
        tracing::debug!(?partitions, is_paused, "reading partitions or not");
        let list = self.list(partitions);
        let done = if is_paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = done {
            tracing::warn!(error = %error, is_paused, "cannot pause or resume partitions");
        }
    }
}

/// Records of a partition that ends at `end` from `next` on.
fn beyond(end: i64, next: u64) -> u64 {
    u64::try_from(end).unwrap_or(0).saturating_sub(next)
}
