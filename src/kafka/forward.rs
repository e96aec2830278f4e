//! The forwarder: what came by webhook and CDR file goes to the first topic, keyed by session.
//!
//! Its positions are saved once the brokers have acknowledged, so a crash sends some records again, which the fold ignores.
//! What the brokers refuse for good, a record larger than they take, is a dead letter in the data directory. They measure whole
//! batches, so a record counts as too large only if it is refused alone.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, Producer};
use tokio_util::sync::CancellationToken;

use super::delays::Delays;
use super::deliveries::{Deliveries, Placed, Refusal, hand_over};
use super::standing::{Board, Part};
use super::transaction::RECORD_BYTES_MAX;
use super::{KafkaError, SOURCE_HEADER, client, key, unusable};
use crate::checkpoint::{Checkpoint, Disk, Progress};
use crate::config::{Config, KafkaConfig};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::decode::{self, Decoded};
use crate::inputs::Inputs;
use crate::lane::{Item, LaneError};
use crate::metrics::Metrics;
use crate::record::Record;
use crate::sink::SinkError;

/// How long one poll waits for acknowledgements.
const POLL: Duration = Duration::from_millis(10);
/// How often is looked for something to forward.
const IDLE: Duration = Duration::from_secs(1);

/// Sends records to the first topic, and knows of each whether it arrived.
pub struct Sender {
    config: KafkaConfig,
    producer: BaseProducer<Deliveries>,
    topic: String,
    /// Told why nothing can be sent at this moment, and whose trouble that is.
    board: (Board, Part),
    stop: CancellationToken,
}

impl Sender {
    /// A sender as the settings say. `board`: told why nothing can be sent, and as whose trouble.
    ///
    /// # Errors
    ///
    /// If the settings do not make a client.
    pub fn new(
        config: &KafkaConfig,
        board: (Board, Part),
        stop: CancellationToken,
    ) -> Result<Self, KafkaError> {
        Ok(Self {
            config: config.clone(),
            producer: producer(config)?,
            topic: config.topics.first().cloned().unwrap_or_default(),
            board,
            stop,
        })
    }

    /// Sends `records` until each is acknowledged or refused for good; gives the places of the refused ones, and why.
    ///
    /// # Errors
    ///
    /// [`SinkError::Stopped`]: some may have arrived, nothing is known of the others. [`SinkError::Misconfigured`]: the settings
    /// do not make a client any more.
    pub fn send(&mut self, records: &[Record]) -> Result<Vec<(usize, String)>, SinkError> {
        let mut refused = Vec::new();
        // What is sent together; the last comes next.
        let mut groups: Vec<Vec<usize>> = vec![(0..records.len()).collect()];
        let mut delays = Delays::new();
        let mut is_in_trouble = false;
        while let Some(group) = groups.pop() {
            let is_alone = group.len() == 1;
            let (mut open, mut too_large) = (Vec::new(), Vec::new());
            let mut reason = None;
            for (place, error) in self.deliver(records, group)? {
                match Refusal::of(&error) {
                    Some(Refusal::Size | Refusal::Segment) if is_alone => {
                        refused
                            .push((place, format!("Kafka takes no record of this size: {error}")));
                    }
                    Some(Refusal::Size | Refusal::Segment) => too_large.push(place),
                    Some(Refusal::Right) => {
                        let topic = &self.topic;
                        reason = Some(format!("{error}; the account needs Write on topic {topic}"));
                        open.push(place);
                    }
                    Some(Refusal::Gone) | None => {
                        reason = Some(error.to_string());
                        open.push(place);
                    }
                }
            }
            // It is the batch that was, and perhaps no record of it.
            too_large.sort_unstable();
            let rest = too_large.split_off(too_large.len() / 2);
            groups.extend([rest, too_large].into_iter().filter(|half| !half.is_empty()));
            // Such a producer sends nothing any more, whatever the brokers say.
            if let Some((code, told)) = self.producer.client().fatal_error() {
                reason = Some(format!("{told} ({code})"));
                self.producer = producer(&self.config)
                    .map_err(|error| SinkError::Misconfigured(error.into()))?;
            }
            let (board, part) = &self.board;
            let Some(reason) = reason else {
                if std::mem::take(&mut is_in_trouble) {
                    board.trouble(*part, None);
                }
                continue;
            };
            // Though it be empty: the trouble is over when one went well.
            groups.push(open);
            is_in_trouble = true;
            let brokers = self.config.brokers.join(", ");
            board.trouble(
                *part,
                Some(format!(
                    "topic {} takes nothing from Kafka at {brokers}: {reason}; events wait where they are",
                    self.topic
                )),
            );
            self.rest(delays.grown())?;
        }
        Ok(refused)
    }

    /// Sends the records of these places, and gives those that did not arrive.
    fn deliver(
        &self,
        records: &[Record],
        places: Vec<usize>,
    ) -> Result<Vec<(usize, ClientError)>, SinkError> {
        let mut failed = Vec::new();
        for place in places {
            let Some(record) = records.get(place) else { continue };
            if let Err(error) = self.hand_over(record, place) {
                failed.push((place, error));
            }
        }
        while self.producer.in_flight_count() > 0 {
            if self.stop.is_cancelled() {
                return Err(SinkError::Stopped);
            }
            self.producer.poll(POLL);
        }
        let heard = self.producer.context().take().into_iter();
        failed.extend(heard.map(|failed| (failed.place, failed.error)));
        Ok(failed)
    }

    fn hand_over(&self, record: &Record, place: usize) -> Result<(), ClientError> {
        let text = decode::text(&record.payload);
        let event = decode::decode(&text).ok();
        let key = event.as_ref().and_then(|decoded| match decoded {
            Decoded::Event(event) => key::of(event),
            Decoded::Summary => None,
        });
        let source = Header { key: SOURCE_HEADER, value: Some(&*record.source) };
        let mut sent = Placed::with_opaque_to(&self.topic, place)
            .payload(&*record.payload)
            .headers(OwnedHeaders::new().insert(source));
        sent.key = key.map(str::as_bytes);
        hand_over(&self.producer, sent, || {
            self.producer.poll(POLL);
            !self.stop.is_cancelled()
        })
    }

    fn rest(&self, delay: Duration) -> Result<(), SinkError> {
        let until = std::time::Instant::now() + delay;
        while std::time::Instant::now() < until {
            if self.stop.is_cancelled() {
                return Err(SinkError::Stopped);
            }
            self.producer.poll(POLL * 5);
        }
        Ok(())
    }
}

fn producer(config: &KafkaConfig) -> Result<BaseProducer<Deliveries>, KafkaError> {
    client(config)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        // Whether a record is too large is for the topic to say.
        .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
        // A record that is not acknowledged by then comes back, and is sent again.
        .set("message.timeout.ms", "60000")
        .create_with_context(Deliveries::default())
        .map_err(|error| unusable(&error))
}

/// Takes what the inputs of this machine bring to Kafka.
pub struct Forwarder {
    /// Journal and files.
    pub inputs: Inputs,
    /// To the topic.
    pub sender: Sender,
    /// Where positions are saved.
    pub checkpoint: Checkpoint,
    /// How far the inputs are forwarded.
    pub progress: Progress,
    /// What Kafka refuses, and what damage left.
    pub dead_letters: Arc<DeadLetters>,
    /// What waits while the disk refuses.
    pub disk: Disk,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Forwarder {
    /// The forwarder of this machine, with its saved positions.
    ///
    /// # Errors
    ///
    /// If Kafka's settings or the checkpoint cannot be used.
    pub fn new(
        config: &Config,
        inputs: Inputs,
        (checkpoint, progress): (Checkpoint, Progress),
        dead_letters: Arc<DeadLetters>,
        disk: Disk,
        board: Board,
    ) -> Result<Self, KafkaError> {
        let metrics = Arc::clone(&board.metrics);
        let sender = Sender::new(&config.kafka, (board, Part::Forwarding), disk.stop.clone())?;
        Ok(Self { inputs, sender, checkpoint, progress, dead_letters, disk, metrics })
    }

    /// Forwards until it is stopped.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub async fn run(mut self) -> Result<(), LaneError> {
        while !self.disk.stop.is_cancelled() {
            let read = self.inputs.read(&mut self.progress.positions).map_err(|error| {
                LaneError::Sink(SinkError::Misconfigured(anyhow::Error::from(error)))
            })?;
            if read.items.is_empty() {
                self.inputs.wait(IDLE).await;
                continue;
            }
            match self.forward(read.items).await {
                Err(LaneError::Sink(SinkError::Stopped)) => return Ok(()),
                forwarded => forwarded?,
            }
        }
        Ok(())
    }

    async fn forward(&mut self, items: Vec<Item>) -> Result<(), LaneError> {
        let at = chrono::Utc::now().timestamp_millis();
        let mut letters = Vec::new();
        let mut records = Vec::with_capacity(items.len());
        let mut dealt = Vec::with_capacity(items.len());
        for item in items {
            let known = item.record();
            dealt.push((known.position.input.clone(), known.next_offset));
            match item {
                Item::Record(record) => records.push(record),
                Item::Damaged(record, reason) => {
                    letters.push(DeadLetter::record(&record, reason.to_owned(), at));
                }
                Item::Noise(_) => {}
            }
        }
        for (place, reason) in self.sender.send(&records)? {
            if let Some(record) = records.get(place) {
                letters.push(DeadLetter::record(record, reason, at));
            }
        }
        for letter in &letters {
            tracing::warn!(key = %letter.key(), reason = %letter.reason, is_kept = true, "dead letter");
        }
        self.disk.persist(|| self.dead_letters.put(&letters)).await?;
        for (input, next) in dealt {
            self.progress.positions.advance(&input, next);
        }
        let (checkpoint, progress) = (&mut self.checkpoint, &self.progress);
        self.disk.persist(|| checkpoint.save(progress, &[])).await?;
        self.inputs.release(&self.progress.positions);
        self.metrics.kafka.forwarded.inc_by(records.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error};

    use super::*;
    use crate::record::{Input, Position};

    const WITHIN: Duration = Duration::from_secs(20);

    /// Sends records of this number to brokers that answer with these errors first, and waits until the board shows a reason that
    /// says `told`. Gives what is refused, and how many records the topic has then.
    async fn sent(count: u64, errors: &[Error], told: Option<&str>) -> (Vec<(usize, String)>, i64) {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 1, 1).unwrap();
        let mut config = Config::load(None, std::iter::empty()).unwrap().config.kafka;
        config.brokers = vec![cluster.bootstrap_servers()];
        config.topics = vec!["events".to_owned()];
        let board = Board::new(Arc::new(Metrics::new()));
        let mut watched = board.subscribe();
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard();
        let mut sender = Sender::new(&config, (board, Part::Forwarding), stop).unwrap();
        let record = |offset| Record {
            position: Position { input: Input("x".into()), offset },
            next_offset: offset + 1,
            source: "default".into(),
            payload: "{}".into(),
        };
        let records: Vec<Record> = (0..count).map(record).collect();
        cluster.request_errors(Api::Produce, errors);
        let sending = tokio::task::spawn_blocking(move || sender.send(&records));
        if let Some(told) = told {
            let is_told = |reasons: &[String]| reasons.join("\n").contains(told);
            let waited = watched.wait_for(|standing| is_told(&standing.reasons()));
            assert!(tokio::time::timeout(WITHIN, waited).await.is_ok(), "nobody told {told:?}");
        }
        let refused = tokio::time::timeout(WITHIN, sending).await.unwrap().unwrap().unwrap();
        assert_eq!(watched.borrow().reasons(), ["joining the group"]);
        let reader: BaseConsumer = client(&config).set("group.id", "g").create().unwrap();
        (refused, reader.fetch_watermarks("events", 0, WITHIN).unwrap().1)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_producer_that_can_send_nothing_any_more_is_made_anew() {
        let fatal = Error::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        assert_eq!(sent(3, &[fatal], Some("ProduceRequest for events")).await, (vec![], 3));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_account_that_may_not_write_is_told_which_right_it_needs() {
        let denied = Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        let told = Some("the account needs Write on topic events");
        assert_eq!(sent(3, &[denied], told).await, (vec![], 3));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_a_record_that_is_refused_alone_is_too_large() {
        let too_large = Error::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
        assert_eq!(sent(3, &[too_large], None).await, (vec![], 3));
        let (refused, stored) = sent(3, &[too_large, too_large], None).await;
        assert_eq!((refused.len(), stored), (1, 2), "{refused:?}");
        assert!(
            refused[0].0 == 0 && refused[0].1.contains("no record of this size"),
            "{refused:?}"
        );
    }
}
