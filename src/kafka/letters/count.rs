//! How many letters the group has. Only who reads the topic can know, so every instance follows it from its beginning.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message;
use tokio_util::sync::CancellationToken;

use super::super::delays::Delays;
use super::super::deliveries::Refusal;
use super::super::topics::ANSWER_WITHIN;
use super::super::{KafkaError, Quiet, Reader, reading, unusable};
use super::{assign, decode, unread};
use crate::config::KafkaConfig;
use crate::lane::LaneError;
use crate::metrics::Metrics;

const POLL: Duration = Duration::from_millis(500);
/// Letters that are told apart, of each 8 bytes; of more only so many are counted.
const COUNTED_MAX: usize = 1 << 20;

/// Keeps `kafka_dead_letters`.
pub struct Counter {
    config: KafkaConfig,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Counter {
    /// Of the group that the settings name.
    #[must_use]
    pub fn new(config: &KafkaConfig, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self { config: config.clone(), metrics, stop }
    }

    /// Counts until it is stopped. While the topic cannot be read, what was counted last stands.
    ///
    /// # Errors
    ///
    /// If the settings do not make a client.
    pub async fn run(self) -> Result<(), LaneError> {
        let (mut delays, mut is_told) = (Delays::new(), false);
        loop {
            match self.once() {
                Ok(()) => return Ok(()),
                Err(KafkaError::Away(reason)) if is_told => {
                    tracing::debug!(%reason, "dead letters are not counted");
                }
                Err(KafkaError::Away(reason)) => {
                    is_told = true;
                    tracing::warn!(%reason, "dead letters are not counted, trying again");
                }
                Err(error) => return Err(error.into()),
            }
            if !delays.wait(&self.stop).await {
                return Ok(());
            }
        }
    }

    /// Counts all anew, and then whatever comes.
    fn once(&self) -> Result<(), KafkaError> {
        let topic = self.config.dead_letters_topic();
        let reader: Reader = reading(&self.config, "read_committed")
            // Nobody waits for it, so the brokers may wait for something to come.
            .set("fetch.wait.max.ms", "500")
            .create_with_context(Quiet::default())
            .map_err(|error| unusable(&error))?;
        let mut open = loop {
            let open = assign(&reader, &topic).map_err(|error| unread(&topic, &error))?;
            if !open.is_empty() || self.stop.is_cancelled() {
                break open;
            }
            // The group is about to make it. Nothing is assigned: it only waits.
            let _nothing = reader.poll(POLL);
        };
        let mut known = HashSet::new();
        // Offset behind the last record of each partition.
        let mut read: HashMap<i32, i64> = HashMap::new();
        let made_anew = || KafkaError::away(format!("topic {topic} was made anew"));
        while !self.stop.is_cancelled() {
            match reader.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let next = message.offset() + 1;
                    if read.insert(message.partition(), next).is_some_and(|known| next <= known) {
                        return Err(made_anew());
                    }
                    let Some(key) = message.key() else { continue };
                    let hash = BuildHasherDefault::<DefaultHasher>::new().hash_one(key);
                    if decode(&message).is_none() {
                        known.remove(&hash);
                    } else if known.len() < COUNTED_MAX {
                        known.insert(hash);
                    }
                }
                Some(Err(ClientError::PartitionEOF(partition))) => {
                    // Of one that is empty now no record shows it.
                    let end = reader.fetch_watermarks(&topic, partition, ANSWER_WITHIN);
                    let read = read.get(&partition).copied().unwrap_or(0);
                    if end.is_ok_and(|(_, end)| end < read) {
                        return Err(made_anew());
                    }
                    open.remove(&partition);
                }
                Some(Err(error)) => match Refusal::of(&error) {
                    // It was deleted, and may be made anew.
                    Some(Refusal::Gone | Refusal::Right) => return Err(unread(&topic, &error)),
                    _ => tracing::debug!(error = %error, "counting dead letters"),
                },
            }
            if open.is_empty() {
                let count = i64::try_from(known.len()).unwrap_or(i64::MAX);
                self.metrics.kafka.dead_letters.set(count);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::super::{Letters, put};
    use super::*;
    use crate::config::Config;
    use crate::dead_letters::{Content, DeadLetter};

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn letters_of_the_group_are_counted_as_they_come_and_go() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        let mut config = Config::load(None, std::iter::empty()).unwrap().config.kafka;
        config.brokers = vec![cluster.bootstrap_servers()];
        let metrics = Arc::new(Metrics::new());
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard();
        let counter = Counter::new(&config, Arc::clone(&metrics), stop.clone());
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(counter.run())
        });
        // It is there later than whoever counts.
        cluster.create_topic(&config.dead_letters_topic(), 2, 1).unwrap();
        let letters: Vec<DeadLetter> = (0..3)
            .map(|offset| {
                let (position, source) = (format!("kafka/events/0@{offset}"), "x".to_owned());
                let content = Content::Record { position, source, body: vec![b'x'] };
                DeadLetter { at: 1, reason: "no event".to_owned(), content }
            })
            .collect();
        let counts = |count: i64| {
            let begun = Instant::now();
            while metrics.kafka.dead_letters.get() != count {
                assert!(begun.elapsed() < LONG, "{}", metrics.kafka.dead_letters.get());
                std::thread::yield_now();
            }
        };
        put(&config, &letters).unwrap();
        counts(3);
        // One that is written again is the same.
        put(&config, &letters[..1]).unwrap();
        let mut read = Letters::read(&config).unwrap();
        read.remove(&[letters[0].key(), letters[1].key()]).unwrap();
        counts(1);
        put(&config, &letters[..2]).unwrap();
        counts(3);
        stop.cancel();
        running.join().unwrap().unwrap();
    }
}
