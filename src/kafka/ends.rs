//! What stands at the ends of partitions, read without being a member: the last record, or none where there are marks of
//! transactions and what was undone.

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

/// A record that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Milliseconds since 1970, if it has a time.
    pub(super) time: Option<i64>,
}

/// The last record at each of `places`, if there is one to be read; those of which that is not found out before `within` is over
/// are left out.
///
/// # Errors
///
/// If the settings do not make a client.
pub(super) fn last_records(
    config: &KafkaConfig,
    places: Vec<Place>,
    within: Duration,
) -> Result<Vec<(Place, Option<Found>)>, KafkaError> {
    let begun = Instant::now();
    let mut topics: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    for place in places {
        topics.entry(place.topic.clone()).or_default().push(place);
    }
    let mut answered = Vec::new();
    for (topic, places) in topics {
        let away = |error| KafkaError::away(format!("cannot read the end of {topic}: {error}"));
        // One for each topic: of an end it tells the partition alone.
        let reader = reader(config, "read_committed")?;
        let mut assignment = TopicPartitionList::new();
        for Place { partition, offsets, .. } in &places {
            let offset = Offset::Offset(i64::try_from(offsets.start).unwrap_or(i64::MAX));
            assignment.add_partition_offset(&topic, *partition, offset).map_err(away)?;
        }
        reader.assign(&assignment).map_err(away)?;
        let mut open: BTreeMap<i32, (Place, Option<Found>)> =
            places.into_iter().map(|place| (place.partition, (place, None))).collect();
        while !open.is_empty() && begun.elapsed() < within {
            let over = match reader.poll(POLL) {
                Some(Ok(message)) => {
                    let next = u64::try_from(message.offset()).unwrap_or(0).saturating_add(1);
                    let Some((place, found)) = open.get_mut(&message.partition()) else { continue };
                    if next <= place.offsets.end {
                        *found = Some(Found { time: message.timestamp().to_millis() });
                    }
                    (next >= place.offsets.end).then(|| message.partition())
                }
                Some(Err(ClientError::PartitionEOF(partition))) => Some(partition),
                Some(Err(error)) => {
                    tracing::debug!(error = %error, topic, "looking at ends");
                    None
                }
                None => None,
            };
            answered.extend(over.and_then(|partition| open.remove(&partition)));
        }
    }
    Ok(answered)
}
