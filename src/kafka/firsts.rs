//! Where partitions begin at this moment: the oldest offset that brokers still hold.
//!
//! It is asked by a client of its own. A broker answers what comes by one connection in its turn, and before it may stand a fetch that
//! waits for records.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::Offset;

use super::{KafkaError, Reader, reader};
use crate::config::KafkaConfig;

/// Topic and partition.
pub(super) type Place = (String, i32);

/// Who asks.
pub(super) struct Firsts(Reader);

impl Firsts {
    /// As the settings say.
    ///
    /// # Errors
    ///
    /// If they do not make a client.
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        reader(config, "read_committed").map(Self)
    }

    /// The oldest offset of each of `places`; those of which nobody tells within `within` are left out.
    pub(super) fn ask(&self, places: &BTreeSet<Place>, within: Duration) -> BTreeMap<Place, u64> {
        let mut asked = TopicPartitionList::new();
        for (topic, partition) in places {
            asked.add_partition(topic, *partition);
        }
        // As a time it asks for the beginning.
        let told = asked
            .set_all_offsets(Offset::Beginning)
            .and_then(|()| self.0.offsets_for_times(asked, within));
        match told {
            Ok(told) => {
                let elements = told.elements().into_iter().map(|element| {
                    let place = (element.topic().to_owned(), element.partition());
                    (place, element.error().ok().map(|()| element.offset()))
                });
                let offsets = elements.filter_map(|(place, offset)| match offset? {
                    Offset::Offset(offset) => Some((place, u64::try_from(offset).ok()?)),
                    _ => None,
                });
                offsets.collect()
            }
            // One broker that does not answer keeps back what the others have told.
            Err(error) => {
                tracing::debug!(error = %error, "asking what is there");
                let each = places
                    .iter()
                    .filter_map(|place| Some((place.clone(), self.one(place, within)?)));
                each.collect()
            }
        }
    }

    fn one(&self, (topic, partition): &Place, within: Duration) -> Option<u64> {
        match self.0.fetch_watermarks(topic, *partition, within) {
            Ok((first, _)) => u64::try_from(first).ok(),
            Err(error) => {
                tracing::debug!(error = %error, topic, partition, "asking what is there");
                None
            }
        }
    }
}
