//! Topics whose records are keyed by something else, or by nothing: their records go to the first topic, keyed by session.
//!
//! Read by a group of its own, produced, and only then committed: at least once, which is enough, since the fold takes a record
//! that comes twice for what it is. What cannot be taken over is a dead letter of the group.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message;
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::topic_partition_list::Offset;
use tokio_util::sync::CancellationToken;

use super::delays::Delays;
use super::firsts::{Firsts, Place};
use super::forward::Sender;
use super::letters;
use super::message::Items;
use super::passed::tell;
use super::standing::{Board, Listener, Part};
use super::topics::ANSWER_WITHIN;
use super::{FETCH_AGAIN_MS, KafkaError, client, topics, unusable};
use crate::config::{Config, KafkaConfig};
use crate::dead_letters::DeadLetter;
use crate::lane::cycle::{BYTES_MAX, RECORDS_MAX};
use crate::lane::{Item, LaneError};
use crate::record::Record;
use crate::sink::SinkError;

/// How long records are gathered at most before they are sent on.
const GATHER: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(100);
/// How often it is looked for what was deleted, while nothing comes.
const LOOK: Duration = Duration::from_secs(10);

/// Takes records of other topics to the first one.
pub struct Rekeyer {
    config: KafkaConfig,
    sender: Sender,
    firsts: Firsts,
    items: Items,
    stop: CancellationToken,
    listener: Arc<Listener>,
}

/// Callbacks of the client.
struct Context(Arc<Listener>, Mutex<Places>);

/// By topic and partition, offsets to go on from.
#[derive(Default)]
struct Places {
    /// Behind the last record that was read since the partition was assigned.
    read: HashMap<Place, u64>,
    /// What was committed here. Brokers forget it together with the topic.
    committed: HashMap<Place, u64>,
    /// What is taken over and not committed yet.
    open: BTreeMap<Place, u64>,
}

impl Context {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        self.0.look_at_brokers(&statistics);
        for (name, topic) in &statistics.topics {
            let is_here =
                |known: &&Partition| known.fetch_state == "active" && known.ls_offset >= 0;
            for partition in topic.partitions.values().filter(is_here) {
                // Behind the last record there may be marks of its producer's transactions.
                let is_read = partition.next_offset >= partition.ls_offset
                    && partition.fetchq_cnt == 0
                    && partition.app_offset <= partition.committed_offset;
                let next = partition.committed_offset.max(partition.lo_offset);
                let left = u64::try_from(partition.ls_offset.saturating_sub(next)).unwrap_or(0);
                let lag = if is_read { 0 } else { left };
                self.0.board.metrics.kafka.rekey_lag(name, partition.partition, lag);
            }
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(error = %error, reason, "client of Kafka");
        self.0.look_at(&error);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(_) = rebalance {
            // Others go on with it.
            let mut places = self.places();
            places.read.clear();
            places.open.clear();
            self.0.board.metrics.kafka.forget_rekeyed();
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(_) => self.0.tell(None),
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => self.0.tell(Some(format!("rebalance failed: {error}"))),
        }
    }
}

type Member = BaseConsumer<Context>;

impl Rekeyer {
    /// As the settings say. `board` is told why nothing can be taken over.
    ///
    /// # Errors
    ///
    /// If the settings do not make a client.
    pub fn new(config: &Config, board: Board, stop: CancellationToken) -> Result<Self, KafkaError> {
        let sender = Sender::new(&config.kafka, (board.clone(), Part::Rekeying), stop.clone())?;
        let group = format!("{}-rekey", config.kafka.group);
        let listener = Listener::new(board, Part::Rekeying, ("kafka.rekey_from", &group));
        let listener = Arc::new(listener);
        let items = Items::new(config);
        let firsts = Firsts::new(&config.kafka)?;
        Ok(Self { config: config.kafka.clone(), sender, firsts, items, stop, listener })
    }

    /// Takes records over until it is stopped. Whatever of Kafka is away is waited for.
    ///
    /// # Errors
    ///
    /// If the settings do not make a client.
    pub async fn run(mut self) -> Result<(), LaneError> {
        let mut delays = Delays::new();
        loop {
            match self.once().await {
                Ok(()) | Err(LaneError::Sink(SinkError::Stopped)) => return Ok(()),
                // It was told already.
                Err(LaneError::Kafka(KafkaError::Away(_))) => {}
                Err(error) => return Err(error),
            }
            if !delays.wait(&self.stop).await {
                return Ok(());
            }
        }
    }

    /// Joins the group and takes records over until it is stopped or has to join anew.
    async fn once(&mut self) -> Result<(), LaneError> {
        let consumer = self.join()?;
        let mut looked = Instant::now();
        while !self.stop.is_cancelled() {
            let (records, letters, offsets) = self.gather(&consumer)?;
            if offsets.is_empty() && looked.elapsed() > LOOK {
                self.look_for_deleted(&consumer);
                looked = Instant::now();
            }
            // What cannot be kept is not to have its neighbours sent again and again.
            self.put(&letters).await?;
            let refused = self.sender.send(&records)?;
            let sent = records.len().saturating_sub(refused.len());
            self.listener.board.metrics.kafka.rekeyed.inc_by(u64::try_from(sent).unwrap_or(0));
            let refused = refused.into_iter();
            let letters =
                refused.filter_map(|(place, told)| Some(letter(records.get(place)?, told)));
            self.put(&letters.collect::<Vec<_>>()).await?;
            consumer.context().places().open.extend(offsets);
            self.commit(&consumer);
        }
        Ok(())
    }

    /// Keeps letters, for as long as that takes, and makes the topic if it has vanished.
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), LaneError> {
        let mut delays = Delays::new();
        while !letters.is_empty()
            && let Err(error) = letters::put(&self.config, letters)
        {
            self.listener.tell(Some(error.to_string()));
            if let Err(error) = topics::make_dead_letters(&self.config).await {
                tracing::debug!(%error, "making the topic of dead letters");
            }
            if !delays.wait(&self.stop).await {
                return Err(SinkError::Stopped.into());
            }
        }
        for letter in letters {
            tracing::warn!(key = %letter.key(), reason = %letter.reason, is_kept = true, "dead letter");
        }
        Ok(())
    }

    fn join(&self) -> Result<Member, KafkaError> {
        let kafka = &self.config;
        let mut consumer = client(kafka);
        consumer
            // Without a name of its own: the brokers would give it what its name had before, whatever it subscribes to now.
            .set("group.id", format!("{}-rekey", kafka.group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("session.timeout.ms", kafka.session_timeout.as_millis().to_string())
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", FETCH_AGAIN_MS)
            .set("statistics.interval.ms", "1000");
        let context = Context(Arc::clone(&self.listener), Mutex::default());
        let consumer: Member =
            consumer.create_with_context(context).map_err(|error| unusable(&error))?;
        let topics: Vec<&str> = kafka.rekey_from.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|error| {
            KafkaError::refused(format!("cannot subscribe: {error}; see kafka.rekey_from"))
        })?;
        Ok(consumer)
    }

    /// What there is, and the offsets to go on from.
    fn gather(&mut self, consumer: &Member) -> Result<Gathered, KafkaError> {
        let (begun, mut bytes) = (Instant::now(), 0);
        let (mut records, mut letters, mut offsets) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut holes = Vec::new();
        while records.len() < RECORDS_MAX
            && bytes < BYTES_MAX
            && begun.elapsed() < GATHER
            && !self.stop.is_cancelled()
        {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let place = (message.topic().to_owned(), message.partition());
                    holes.extend(self.follows(consumer, &place, message.offset()));
                    let next = message.offset().saturating_add(1);
                    offsets.insert(place, u64::try_from(next).unwrap_or(0));
                    bytes += message.payload_len();
                    match self.items.item(&message) {
                        Item::Record(record) => records.push(record),
                        Item::Damaged(record, reason) => {
                            letters.push(letter(&record, reason.to_owned()));
                        }
                        Item::Noise(_) => {}
                    }
                }
                Some(Err(ClientError::MessageConsumptionFatal(code))) => {
                    return Err(self.listener.ended(code));
                }
                Some(Err(error)) => self.listener.look_at(&error),
            }
        }
        self.look_into(&holes);
        Ok((records, letters, offsets))
    }

    /// Tells apart offsets that never held a record and those of records that were deleted.
    fn look_into(&self, holes: &[(Place, Range<u64>)]) {
        if holes.is_empty() {
            return;
        }
        let firsts =
            self.firsts.ask(&holes.iter().map(|(place, _)| place.clone()).collect(), ANSWER_WITHIN);
        for (place, Range { start, end }) in holes {
            match firsts.get(place) {
                Some(first) => self.misses(place, *start..(*first).clamp(*start, *end)),
                None => tracing::warn!(
                    topic = place.0,
                    partition = place.1,
                    from = start,
                    to = end,
                    "not known whether records were deleted"
                ),
            }
        }
    }

    /// Counts records that were deleted before they were taken over.
    fn misses(&self, (topic, partition): &Place, missed: Range<u64>) {
        self.listener.board.metrics.kafka.missed.inc_by(missed.end - missed.start);
        tell((topic, *partition), missed);
    }

    /// Tells of what was deleted where nothing comes.
    fn look_for_deleted(&self, consumer: &Member) {
        let Ok(assigned) = consumer.assignment() else { return };
        for element in assigned.elements() {
            let place = (element.topic().to_owned(), element.partition());
            let known = consumer.context().places().read.get(&place).copied();
            let Some(next) = known.or_else(|| committed(consumer, &place)) else { continue };
            let asked = self.firsts.ask(&[place.clone()].into(), ANSWER_WITHIN);
            let Some(first) = asked.get(&place).copied() else { return };
            // A step of one offset is the mark of a transaction.
            if first > next + 1 {
                self.misses(&place, next..first);
            }
            consumer.context().places().read.insert(place, next.max(first));
        }
    }

    /// Looks whether a record is the one that has to come, and gives the offsets before it that held none, if there are any.
    fn follows(
        &self,
        consumer: &Member,
        place: &Place,
        offset: i64,
    ) -> Option<(Place, Range<u64>)> {
        let (topic, partition) = (place.0.as_str(), place.1);
        let offset = u64::try_from(offset).unwrap_or(0);
        let read = consumer.context().places().read.insert(place.clone(), offset + 1);
        let own = || consumer.context().places().committed.get(place).copied();
        let next = read.or_else(|| committed(consumer, place)).or_else(own).unwrap_or(offset);
        if offset < next {
            tracing::error!(
                topic,
                partition,
                offset,
                taken_over_to = next,
                "THE TOPIC WAS MADE ANEW, or brokers have lost records of it: what had come before and was not taken over yet is \
                 missing; `callscope import --to kafka` of the CDR files of that time brings the events back"
            );
        }
        // A step of one offset is the mark of a transaction.
        (offset > next + 1).then(|| (place.clone(), next..offset))
    }

    /// Commits what is taken over; what cannot be committed is tried again with the next, and taken over again by whoever gets the
    /// partition before.
    fn commit(&self, consumer: &Member) {
        let offsets = consumer.context().places().open.clone();
        if offsets.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in &offsets {
            let next = Offset::Offset(i64::try_from(*next).unwrap_or(i64::MAX));
            // Fails for offsets that cannot be, and there are none.
            let _added = list.add_partition_offset(topic, *partition, next);
        }
        match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => {
                let mut places = consumer.context().places();
                places.open.retain(|place, next| offsets.get(place) != Some(next));
                places.committed.extend(offsets);
                self.listener.tell(None);
            }
            Err(error) => {
                tracing::warn!(error = %error, "what was taken over is not committed, trying again");
                self.listener.look_at(&error);
            }
        }
    }
}

/// The offset to go on from that was committed last, by whoever it was.
fn committed(consumer: &Member, (topic, partition): &Place) -> Option<u64> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, *partition);
    match consumer.committed_offsets(asked, ANSWER_WITHIN) {
        Ok(told) => match told.find_partition(topic, *partition)?.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        },
        Err(error) => {
            tracing::warn!(error = %error, topic, partition, "not known whether records were deleted");
            None
        }
    }
}

/// What is not taken over.
fn letter(record: &Record, reason: String) -> DeadLetter {
    DeadLetter::record(record, reason, chrono::Utc::now().timestamp_millis())
}

/// Records, what is no event, and by topic and partition the offsets to go on from.
type Gathered = (Vec<Record>, Vec<DeadLetter>, BTreeMap<Place, u64>);

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
    use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error};

    use super::*;
    use crate::metrics::Metrics;

    const LONG: Duration = Duration::from_secs(30);

    /// Waits until the troubles, but for the first, which nobody takes back here, are as `wanted`.
    async fn wait(board: &Board, wanted: impl Fn(&[String]) -> bool) {
        let mut watched = board.subscribe();
        let reached = watched.wait_for(|standing| wanted(&standing.reasons()[1..]));
        assert!(tokio::time::timeout(LONG, reached).await.is_ok(), "{:?}", board.subscribe());
    }

    fn wait_for_offset(config: &KafkaConfig, offset: i64) {
        let group = format!("{}-rekey", config.group);
        let asking: BaseConsumer = client(config).set("group.id", group).create().unwrap();
        let begun = Instant::now();
        loop {
            let mut asked = TopicPartitionList::new();
            asked.add_partition("unkeyed", 0);
            let told = asking.committed_offsets(asked, LONG).unwrap();
            if told.elements()[0].offset() == Offset::Offset(offset) {
                return;
            }
            assert!(begun.elapsed() < LONG, "{told:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_not_committed_is_tried_again_and_no_trouble_stays() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 1, 1).unwrap();
        cluster.create_topic("unkeyed", 1, 1).unwrap();
        let mut config = Config::load(None, std::iter::empty()).unwrap().config;
        config.kafka.brokers = vec![cluster.bootstrap_servers()];
        config.kafka.topics = vec!["events".to_owned()];
        config.kafka.rekey_from = vec!["unkeyed".to_owned()];
        config.kafka.session_timeout = Duration::from_secs(6);
        let producer: BaseProducer = client(&config.kafka).create().unwrap();
        let put = || {
            producer.send(BaseRecord::<(), str>::to("unkeyed").payload("{}")).unwrap();
            producer.flush(LONG).unwrap();
        };
        put();
        let board = Board::new(Arc::new(Metrics::new()));
        let stop = CancellationToken::new();
        let rekeyer = Rekeyer::new(&config, board.clone(), stop.clone()).unwrap();
        let refused = Error::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
        cluster.request_errors(Api::OffsetCommit, &[refused]);
        let _stops = stop.clone().drop_guard();
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(rekeyer.run())
        });
        wait(&board, |reasons| {
            reasons.iter().any(|told| told.contains("on the group callscope-rekey"))
        })
        .await;
        wait_for_offset(&config.kafka, 1);
        wait(&board, <[String]>::is_empty).await;

        cluster.broker_down(1).unwrap();
        wait(&board, |reasons| reasons.iter().any(|told| told == "no broker answers")).await;
        cluster.broker_up(1).unwrap();
        // Though nothing comes.
        wait(&board, <[String]>::is_empty).await;
        put();
        wait_for_offset(&config.kafka, 2);
        stop.cancel();
        running.join().unwrap().unwrap();
    }
}
