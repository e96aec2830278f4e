//! Ends of partitions, at which there may be offsets without a record: marks of transactions, and what was undone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use super::{KafkaError, reader};
use crate::config::KafkaConfig;

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(50);

/// Offsets of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offsets: Range<u64>,
}

/// Those of `places` that hold no record to be read, as far as that is found out before `within` is over.
///
/// # Errors
///
/// If the settings do not make a client.
pub(super) fn empty(
    config: &KafkaConfig,
    places: Vec<Place>,
    within: Duration,
) -> Result<Vec<Place>, KafkaError> {
    let begun = Instant::now();
    let mut topics: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    for place in places {
        topics.entry(place.topic.clone()).or_default().push(place);
    }
    let mut empty = Vec::new();
    for (topic, places) in topics {
        // One for each topic: of an end it tells the partition alone.
        let reader = reader(config, "read_committed")?;
        let mut assignment = TopicPartitionList::new();
        for Place { partition, offsets, .. } in &places {
            let offset = Offset::Offset(i64::try_from(offsets.start).unwrap_or(i64::MAX));
            let added = assignment.add_partition_offset(&topic, *partition, offset);
            added.map_err(|error| KafkaError::away(format!("ends of {topic}: {error}")))?;
        }
        let mut open: BTreeMap<i32, Place> =
            places.into_iter().map(|place| (place.partition, place)).collect();
        if let Err(error) = reader.assign(&assignment) {
            tracing::debug!(error = %error, topic, "looking at ends");
            continue;
        }
        while !open.is_empty() && begun.elapsed() < within {
            match reader.poll(POLL) {
                Some(Ok(message)) => {
                    let next = u64::try_from(message.offset()).unwrap_or(0);
                    let place = open.remove(&message.partition());
                    empty.extend(place.filter(|place| next >= place.offsets.end));
                }
                Some(Err(ClientError::PartitionEOF(partition))) => {
                    empty.extend(open.remove(&partition));
                }
                Some(Err(error)) => tracing::debug!(error = %error, topic, "looking at ends"),
                None => {}
            }
        }
    }
    Ok(empty)
}
