//! Everything in the topics as they are now, or a part of it, read in no group: nobody's offsets are touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;

use super::message::Items;
use super::topics::{self, ANSWER_WITHIN};
use super::{KafkaError, Reader, key, reader};
use crate::config::Config;
use crate::decode::{self, Decoded};
use crate::lane::Item;
use crate::lane::clock::Clock;
use crate::lane::cycle::{BYTES_MAX, RECORDS_MAX};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(200);
/// Polls without anything after which the brokers count as away.
const SILENT_MAX: u32 = 150;

/// Which records.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// Not before this, by the time of the record, milliseconds since 1970.
    pub from: Option<i64>,
    /// Before this.
    pub to: Option<i64>,
    /// Only those of this `sessionId`.
    pub session: Option<String>,
}

impl Range {
    /// Whether it is everything.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.session.is_none()
    }

    /// Whether a record is in it. `clock` moves on with what other sessions tell at that time.
    fn holds(&self, message: &BorrowedMessage<'_>, clock: &mut Clock) -> bool {
        let time = message.timestamp().to_millis();
        let is_late = self.to.zip(time).is_some_and(|(to, time)| time >= to);
        let is_early = self.from.zip(time).is_some_and(|(from, time)| time < from);
        if is_late || is_early {
            return false;
        }
        let Some(session) = &self.session else { return true };
        if message.key() == Some(session.as_bytes()) {
            return true;
        }
        let text = decode::text(message.payload().unwrap_or_default());
        let Ok(Decoded::Event(event)) = decode::decode(&text) else { return false };
        clock.observe(&event, i64::MAX / 2);
        key::of(&event) == Some(session)
    }
}

/// Records that are in the topics at this moment.
///
/// # Errors
///
/// If a topic is missing, or no broker answers.
pub fn count(config: &Config) -> Result<u64, KafkaError> {
    let reader = reader(&config.kafka, "read_committed")?;
    let mut count = 0;
    for topic in &config.kafka.topics {
        let found = ends(&reader, topic)?;
        count += found.iter().map(|(_, first, end)| end.abs_diff(*first)).sum::<u64>();
    }
    Ok(count)
}

/// A partition of a topic that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Offset of the oldest record that is still there.
    pub first: u64,
    /// Offset after the newest.
    pub end: u64,
    /// What the group has committed.
    pub committed: Option<u64>,
}

/// All partitions of all topics.
///
/// # Errors
///
/// If a topic is missing, or no broker answers.
pub fn places(config: &Config) -> Result<Vec<Place>, KafkaError> {
    let reader = reader(&config.kafka, "read_committed")?;
    let mut places = Vec::new();
    let number = |offset: i64| u64::try_from(offset).unwrap_or(0);
    for topic in &config.kafka.topics {
        let found = ends(&reader, topic)?;
        let mut asked = TopicPartitionList::new();
        for (partition, ..) in &found {
            asked.add_partition(topic, *partition);
        }
        let committed = committed(&reader, &asked)?;
        for (partition, first, end) in found {
            let known = committed.find_partition(topic, partition);
            let committed = known.and_then(|known| match known.offset() {
                Offset::Offset(offset) => Some(number(offset)),
                _ => None,
            });
            let (first, end) = (number(first), number(end));
            places.push(Place { topic: topic.clone(), partition, first, end, committed });
        }
    }
    Ok(places)
}

/// By topic and partition, how far the group is behind: 0 where no record is left to read, since the offsets behind the last
/// one are those of marks of its producers' transactions.
///
/// # Errors
///
/// If no broker answers.
pub fn behind(
    config: &Config,
    places: &[Place],
) -> Result<BTreeMap<(String, i32), u64>, KafkaError> {
    let mut behind = BTreeMap::new();
    for topic in &config.kafka.topics {
        let away =
            |error: ClientError| KafkaError::away(format!("cannot read topic {topic}: {error}"));
        let reader = reader(&config.kafka, "read_committed")?;
        let mut assignment = TopicPartitionList::new();
        let mut open = BTreeMap::new();
        for place in places.iter().filter(|place| place.topic == *topic) {
            let next = place.committed.unwrap_or(0).max(place.first);
            behind.insert((topic.clone(), place.partition), 0);
            if next < place.end {
                let offset = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
                assignment.add_partition_offset(topic, place.partition, offset).map_err(away)?;
                open.insert(place.partition, place.end - next);
            }
        }
        reader.assign(&assignment).map_err(away)?;
        let mut silent = 0;
        while !open.is_empty() {
            match reader.poll(POLL) {
                None if silent >= SILENT_MAX => return Err(away(ClientError::NoMessageReceived)),
                None => silent += 1,
                Some(Ok(message)) => {
                    silent = 0;
                    if let Some(left) = open.remove(&message.partition()) {
                        behind.insert((topic.clone(), message.partition()), left);
                        // One record is enough to know.
                        let mut known = TopicPartitionList::new();
                        known.add_partition(topic, message.partition());
                        reader.pause(&known).map_err(away)?;
                    }
                }
                Some(Err(ClientError::PartitionEOF(partition))) => _ = open.remove(&partition),
                Some(Err(error)) => tracing::debug!(error = %error, "reading a topic"),
            }
        }
    }
    Ok(behind)
}

/// What the group has committed. Its coordinator may be about to change, or not be there yet.
fn committed(
    reader: &Reader,
    asked: &TopicPartitionList,
) -> Result<TopicPartitionList, KafkaError> {
    let begun = Instant::now();
    loop {
        match reader.committed_offsets(asked.clone(), ANSWER_WITHIN) {
            Ok(committed) => return Ok(committed),
            Err(error) if begun.elapsed() < ANSWER_WITHIN => {
                tracing::debug!(error = %error, "asking for the group's offsets again");
                // Nothing is assigned: it only waits.
                let _nothing = reader.poll(POLL);
            }
            Err(error) => {
                let told = format!("cannot read the group's offsets: {error}");
                return Err(KafkaError::away(told));
            }
        }
    }
}

/// Hands over the records of `range` in batches, each with the number of all records read so far, `range` or not. Gives the
/// newest time that events of other sessions have told meanwhile, milliseconds since 1970.
///
/// # Errors
///
/// If a topic is missing, or no broker answers. What was handed over before counts.
pub fn read(
    config: &Config,
    range: &Range,
    mut hand_over: impl FnMut(Vec<Item>, u64) -> bool,
) -> Result<i64, KafkaError> {
    let mut items = Items::new(config);
    let mut seen = 0;
    let mut clock = Clock::default();
    for topic in &config.kafka.topics {
        let reader = reader(&config.kafka, "read_committed")?;
        let away =
            |error: ClientError| KafkaError::away(format!("cannot read topic {topic}: {error}"));
        let mut assignment = TopicPartitionList::new();
        let mut open = BTreeSet::new();
        for (partition, first, end) in ends(&reader, topic)? {
            if first < end {
                open.insert(partition);
                let offset = range.from.map_or(Offset::Beginning, Offset::Offset);
                assignment.add_partition_offset(topic, partition, offset).map_err(away)?;
            }
        }
        if range.from.is_some() {
            // A time instead of an offset is asked for, and comes back as one; beyond the last record as the end.
            assignment = reader.offsets_for_times(assignment, ANSWER_WITHIN).map_err(away)?;
        }
        reader.assign(&assignment).map_err(away)?;
        let (mut batch, mut bytes, mut silent) = (Vec::new(), 0, 0);
        while !open.is_empty() {
            match reader.poll(POLL) {
                None => {
                    silent += 1;
                    if silent > SILENT_MAX {
                        return Err(away(ClientError::NoMessageReceived));
                    }
                }
                Some(Ok(message)) => {
                    (silent, seen) = (0, seen + 1);
                    if range.holds(&message, &mut clock) {
                        bytes += message.payload_len();
                        batch.push(items.item(&message));
                    }
                }
                Some(Err(ClientError::PartitionEOF(partition))) => _ = open.remove(&partition),
                Some(Err(error)) => tracing::debug!(error = %error, "reading a topic"),
            }
            let is_full = batch.len() >= RECORDS_MAX || bytes >= BYTES_MAX;
            if (is_full || open.is_empty()) && !hand_over(std::mem::take(&mut batch), seen) {
                return Ok(clock.now());
            }
            if is_full {
                bytes = 0;
            }
        }
    }
    Ok(clock.now())
}

/// Partitions of a topic with their first offset and their end.
fn ends(reader: &Reader, topic: &str) -> Result<Vec<(i32, i64, i64)>, KafkaError> {
    let away = |error: ClientError| KafkaError::away(format!("cannot read topic {topic}: {error}"));
    let metadata = reader.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(away)?;
    let found = metadata.topics().iter().find(|found| found.error().is_none());
    let partitions = found.map(|found| found.partitions()).unwrap_or_default();
    if partitions.is_empty() {
        return Err(topics::missing(topic));
    }
    partitions
        .iter()
        .map(|partition| {
            let (first, end) =
                reader.fetch_watermarks(topic, partition.id(), ANSWER_WITHIN).map_err(away)?;
            Ok((partition.id(), first, end))
        })
        .collect()
}
