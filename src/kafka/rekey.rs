//! Topics whose records are keyed by something else, or by nothing: their records go to the first topic, keyed by session.
//!
//! Read by a group of its own, produced, and only then committed: at least once, which is enough, since the fold takes a record
//! that comes twice for what it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::forward::Sender;
use super::message::Items;
use super::{KafkaError, client, unusable};
use crate::config::Config;
use crate::lane::cycle::{BYTES_MAX, RECORDS_MAX};
use crate::lane::{Item, LaneError};
use crate::record::Record;
use crate::sink::SinkError;

/// How long records are gathered at most before they are sent on.
const GATHER: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(100);

/// Takes records of other topics to the first one.
pub struct Rekeyer {
    consumer: BaseConsumer,
    sender: Sender,
    items: Items,
    stop: CancellationToken,
    trouble: watch::Sender<Option<String>>,
}

impl Rekeyer {
    /// As the settings say. `trouble` is told why nothing can be taken over.
    ///
    /// # Errors
    ///
    /// If the settings do not make a client.
    pub fn new(
        config: &Config,
        trouble: watch::Sender<Option<String>>,
        stop: CancellationToken,
    ) -> Result<Self, KafkaError> {
        let kafka = &config.kafka;
        let mut consumer = client(kafka);
        consumer
            .set("group.id", format!("{}-rekey", kafka.group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("session.timeout.ms", kafka.session_timeout.as_millis().to_string())
            .set("queued.max.messages.kbytes", "16384");
        if !kafka.instance_id.is_empty() {
            consumer.set("group.instance.id", &kafka.instance_id);
        }
        let consumer: BaseConsumer = consumer.create().map_err(|error| unusable(&error))?;
        let topics: Vec<&str> = kafka.rekey_from.iter().map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| KafkaError::refused(format!("kafka.rekey_from: {error}")))?;
        let sender = Sender::new(kafka, trouble.clone(), stop.clone())?;
        Ok(Self { consumer, sender, items: Items::new(config), stop, trouble })
    }

    /// Takes records over until it is stopped.
    ///
    /// # Errors
    ///
    /// None that is known: whatever of Kafka is away is waited for.
    pub async fn run(mut self) -> Result<(), LaneError> {
        while !self.stop.is_cancelled() {
            let (records, offsets) = self.gather();
            if offsets.is_empty() {
                continue;
            }
            match self.sender.send(&records) {
                Ok(refused) => {
                    for (place, reason) in refused {
                        if let Some(record) = records.get(place) {
                            // It stays where it is.
                            tracing::warn!(position = %record.position, reason, "not taken over");
                        }
                    }
                }
                Err(SinkError::Stopped) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            self.commit(&offsets);
        }
        Ok(())
    }

    /// What there is, and the offsets to go on from.
    fn gather(&mut self) -> (Vec<Record>, BTreeMap<(String, i32), i64>) {
        let (begun, mut bytes) = (Instant::now(), 0);
        let (mut records, mut offsets) = (Vec::new(), BTreeMap::new());
        while records.len() < RECORDS_MAX
            && bytes < BYTES_MAX
            && begun.elapsed() < GATHER
            && !self.stop.is_cancelled()
        {
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let place = (message.topic().to_owned(), message.partition());
                    offsets.insert(place, message.offset() + 1);
                    bytes += message.payload_len();
                    match self.items.item(&message) {
                        Item::Record(record) => records.push(record),
                        Item::Damaged(record, reason) => {
                            tracing::warn!(position = %record.position, reason, "not taken over");
                        }
                        Item::Noise(_) => {}
                    }
                }
                Some(Err(error)) => self.tell(&error),
            }
        }
        (records, offsets)
    }

    /// What cannot be committed is taken over again.
    fn commit(&self, offsets: &BTreeMap<(String, i32), i64>) {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in offsets {
            // Fails for offsets that cannot be, and there are none.
            let _added = list.add_partition_offset(topic, *partition, Offset::Offset(*next));
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Sync) {
            self.tell(&error);
        }
    }

    fn tell(&self, error: &ClientError) {
        let reason = format!("kafka.rekey_from: {error}");
        self.trouble.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(&reason);
            if is_new {
                tracing::warn!(reason, "records cannot be taken over, trying again");
                *known = Some(reason);
            }
            is_new
        });
    }
}
