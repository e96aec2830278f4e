//! Dead letters of a group: a compacted topic, a letter's key being the record's, its content the value and everything else
//! in headers, so that any client of Kafka can read them. A tombstone stands for a letter that was dealt with.
//!
//! | header | what it holds |
//! |---|---|
//! | `kind` | `record`: bytes that are no event, as they were received; `document`: JSON that the store refuses |
//! | `reason`, `at` | why, and when (milliseconds since 1970) |
//! | `size` | bytes of a record, of which the value holds the first 900000, or of a document, of which it holds the first 8000000 |
//! | `topic`, `partition`, `offset`, `source` | where a record stood, and by which source it came |
//! | `id`, `version`, `index_time`, `elastic_type` | of a document |

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseProducer;
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaRespErr;

use super::deliveries::{Deliveries, Placed, deliver};
use super::topics::ANSWER_WITHIN;
use super::transaction::RECORD_BYTES_MAX;
use super::{KafkaError, Reader, client, reader};
use crate::config::KafkaConfig;
use crate::dead_letters::{Content, DeadLetter};

pub mod count;

/// How much of a record a letter holds. A topic takes no more than 1 MB by default: a record of that size and the headers are
/// more than that.
const BODY_BYTES_MAX: usize = 900_000;

/// The same of a document, which is made anew of its records where a part of it is not enough. With its headers it is well
/// below what the topic takes.
const JSON_BYTES_MAX: usize = 8_000_000;

/// A letter's key, value and headers.
pub(super) fn encode(letter: &DeadLetter) -> (Vec<u8>, Vec<u8>, OwnedHeaders) {
    let mut headers = OwnedHeaders::new();
    let mut add = |key: &str, value: &str| {
        let known = std::mem::replace(&mut headers, OwnedHeaders::new_with_capacity(0));
        headers = known.insert(Header { key, value: Some(value) });
    };
    add("reason", &letter.reason);
    add("at", &letter.at.to_string());
    let value = match &letter.content {
        Content::Record { position, source, body } => {
            add("kind", "record");
            add("source", source);
            let (input, offset) = position.rsplit_once('@').unwrap_or((position, ""));
            let place = input.strip_prefix("kafka/").and_then(|place| place.rsplit_once('/'));
            if let Some((topic, partition)) = place {
                add("topic", topic);
                add("partition", partition);
                add("offset", offset);
            }
            add("size", &body.len().to_string());
            body.get(..BODY_BYTES_MAX).unwrap_or(body).to_vec()
        }
        Content::Document { id, version, index_time, elastic_type, json } => {
            add("kind", "document");
            add("id", id);
            add("elastic_type", elastic_type);
            add("index_time", &index_time.to_string());
            if let Some(version) = version {
                add("version", &version.to_string());
            }
            add("size", &json.len().to_string());
            let end = (0..=JSON_BYTES_MAX).rev().find(|end| json.is_char_boundary(*end));
            json.get(..end.unwrap_or(0)).unwrap_or(json).into()
        }
    };
    (letter.key().into_bytes(), value, headers)
}

/// A letter as it stands in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// It, with what there is of its content.
    pub letter: DeadLetter,
    /// How many bytes its record or document has, if only the first ones are here.
    pub cut_of: Option<usize>,
}

/// The letter of a record. `None`: it is none.
fn decode(message: &BorrowedMessage<'_>) -> Option<Letter> {
    let headers = message.headers()?;
    let header = |name: &str| {
        let found = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(found.value?).ok()
    };
    let key = std::str::from_utf8(message.key()?).ok()?;
    let value = message.payload()?;
    let content = match header("kind")? {
        "record" => Content::Record {
            position: key.strip_prefix("record/")?.to_owned(),
            source: header("source").unwrap_or_default().to_owned(),
            body: value.to_vec(),
        },
        "document" => Content::Document {
            id: header("id")?.to_owned(),
            version: header("version").and_then(|version| version.parse().ok()),
            index_time: header("index_time")?.parse().ok()?,
            elastic_type: header("elastic_type")?.to_owned(),
            json: String::from_utf8_lossy(value).into_owned(),
        },
        _ => return None,
    };
    let at = header("at").and_then(|at| at.parse().ok()).unwrap_or(0);
    let reason = header("reason").unwrap_or_default().to_owned();
    let size = header("size").and_then(|size| size.parse().ok());
    let cut_of = size.filter(|size| *size > value.len());
    Some(Letter { letter: DeadLetter { at, reason, content }, cut_of })
}

/// What is known of a letter without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// When it was written, milliseconds since 1970.
    pub at: i64,
    /// Why.
    pub reason: String,
    /// How many bytes its record or document has, if the letter holds only the first ones.
    pub cut_of: Option<usize>,
    /// Where it stands in the topic.
    place: (i32, i64),
}

fn unread(topic: &str, error: &ClientError) -> KafkaError {
    KafkaError::away(format!(
        "cannot read the dead letters in topic {topic}: {error}; see that the brokers answer, that the account has Read on the topic, \
         and try again"
    ))
}

/// Lets `reader` begin with the first letter. Gives the partitions; none: the topic is not there.
fn assign(reader: &Reader, topic: &str) -> Result<BTreeSet<i32>, ClientError> {
    let metadata = reader.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    let missing = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    let refused = metadata.topics().iter().find_map(|found| found.error());
    if let Some(error) = refused.filter(|error| *error != missing) {
        return Err(ClientError::MetadataFetch(error.into()));
    }
    let partitions = metadata.topics().iter().flat_map(|found| found.partitions());
    let partitions: BTreeSet<i32> =
        partitions.map(rdkafka::metadata::MetadataPartition::id).collect();
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    reader.assign(&assignment)?;
    Ok(partitions)
}

/// All letters of a group, as they were when they were read.
pub struct Letters {
    topic: String,
    config: KafkaConfig,
    reader: Reader,
    letters: BTreeMap<String, Known>,
}

impl Letters {
    /// Reads the whole topic; one that is not there holds nothing.
    ///
    /// # Errors
    ///
    /// If the brokers do not answer.
    pub fn read(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let mut letters = Self {
            topic: config.dead_letters_topic(),
            config: config.clone(),
            reader: reader(config, "read_committed")?,
            letters: BTreeMap::new(),
        };
        letters.read_all().map_err(|error| unread(&letters.topic, &error))?;
        Ok(letters)
    }

    fn read_all(&mut self) -> Result<(), ClientError> {
        let mut open = assign(&self.reader, &self.topic)?;
        while !open.is_empty() {
            match self.reader.poll(ANSWER_WITHIN) {
                None => return Err(ClientError::NoMessageReceived),
                Some(Ok(message)) => {
                    let Some(key) = message.key() else { continue };
                    let key = String::from_utf8_lossy(key).into_owned();
                    match decode(&message) {
                        Some(Letter { letter: DeadLetter { at, reason, .. }, cut_of }) => {
                            let place = (message.partition(), message.offset());
                            self.letters.insert(key, Known { at, reason, cut_of, place });
                        }
                        None => _ = self.letters.remove(&key),
                    }
                }
                Some(Err(ClientError::PartitionEOF(partition))) => _ = open.remove(&partition),
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// All letters, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Known)> {
        self.letters.iter()
    }

    /// Whether there was a letter kept under `key`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.letters.contains_key(key)
    }

    /// The letter kept under `key`, read anew. `None`: there is none, or it was replaced meanwhile.
    ///
    /// # Errors
    ///
    /// If the brokers do not answer.
    pub fn get(&self, key: &str) -> Result<Option<Letter>, KafkaError> {
        match self.letters.get(key) {
            Some(known) => {
                self.read_one(key, known.place).map_err(|error| unread(&self.topic, &error))
            }
            None => Ok(None),
        }
    }

    fn read_one(
        &self,
        key: &str,
        (partition, offset): (i32, i64),
    ) -> Result<Option<Letter>, ClientError> {
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        self.reader.assign(&assignment)?;
        match self.reader.poll(ANSWER_WITHIN) {
            None => Err(ClientError::NoMessageReceived),
            Some(Ok(message)) => {
                Ok(decode(&message).filter(|_| message.key() == Some(key.as_bytes())))
            }
            Some(Err(ClientError::PartitionEOF(_))) => Ok(None),
            Some(Err(error)) => Err(error),
        }
    }

    /// Removes letters that an operator has dealt with. Gives how many there were.
    ///
    /// # Errors
    ///
    /// If the brokers do not acknowledge; some may be removed then.
    pub fn remove(&mut self, keys: &[String]) -> Result<usize, KafkaError> {
        let known: BTreeSet<&String> =
            keys.iter().filter(|key| self.letters.contains_key(*key)).collect();
        if known.is_empty() {
            return Ok(0);
        }
        let tombstones = known.iter().map(|key| (key.as_bytes(), None, None));
        send(&self.config, tombstones).map_err(|(failed, error)| {
            KafkaError::away(format!(
                "{failed} of {} dead letters could not be removed from topic {}: {error}; see that the brokers answer, that the \
                 account has Write on the topic, and try again",
                known.len(),
                self.topic
            ))
        })?;
        let count = known.len();
        for key in keys {
            self.letters.remove(key);
        }
        Ok(count)
    }
}

/// Writes letters outside of a transaction.
///
/// # Errors
///
/// If the brokers do not acknowledge; some may be written then, and writing them again changes nothing.
pub(crate) fn put(config: &KafkaConfig, letters: &[DeadLetter]) -> Result<(), KafkaError> {
    let encoded: Vec<_> = letters.iter().map(encode).collect();
    let records = encoded.iter().map(|(key, value, headers)| {
        (key.as_slice(), Some(value.as_slice()), Some(headers.clone()))
    });
    send(config, records).map_err(|(failed, error)| {
        KafkaError::away(format!(
            "{failed} of {} dead letters could not be written to topic {}: {error}; see that the brokers answer, and that the \
             account has Write on the topic",
            letters.len(),
            config.dead_letters_topic()
        ))
    })
}

/// Key, value or tombstone, and headers.
type Sent<'a> = (&'a [u8], Option<&'a [u8]>, Option<OwnedHeaders>);

/// Sends records to the topic until each is acknowledged, or says how many are not, and why the first is not.
fn send<'a>(
    config: &KafkaConfig,
    records: impl ExactSizeIterator<Item = Sent<'a>>,
) -> Result<(), (usize, ClientError)> {
    let (topic, count) = (config.dead_letters_topic(), records.len());
    let producer: BaseProducer<Deliveries> = client(config)
        .set("enable.idempotence", "true")
        .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
        .set("message.timeout.ms", ANSWER_WITHIN.as_millis().to_string())
        .create_with_context(Deliveries::default())
        .map_err(|error| (count, error))?;
    let records = records.enumerate().map(|(place, (key, value, headers))| {
        let mut record = Placed::with_opaque_to(&topic, place).key(key);
        (record.payload, record.headers) = (value, headers);
        record
    });
    let failed = deliver(&producer, records, ANSWER_WITHIN * 2);
    let count = failed.len();
    failed.into_iter().next().map_or(Ok(()), |first| Err((count, first.error)))
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error};

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_letter_that_could_not_be_removed_is_not_counted_as_removed() {
        let cluster = MockCluster::new(1).unwrap();
        let mut config = Config::load(None, std::iter::empty()).unwrap().config.kafka;
        config.brokers = vec![cluster.bootstrap_servers()];
        cluster.create_topic(&config.dead_letters_topic(), 1, 1).unwrap();
        let known = Known { at: 1, reason: "x".to_owned(), cut_of: None, place: (0, 0) };
        let mut letters = Letters {
            topic: config.dead_letters_topic(),
            reader: reader(&config, "read_committed").unwrap(),
            config,
            letters: ["a", "b"].map(|key| (key.to_owned(), known.clone())).into(),
        };
        let refused = Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        cluster.request_errors(Api::Produce, &[refused]);
        let keys = ["a".to_owned(), "b".to_owned(), "b".to_owned()];
        let told = letters.remove(&keys).unwrap_err().to_string();
        assert!(told.contains("2 of 2 dead letters could not be removed"), "{told}");
        assert_eq!(letters.iter().count(), 2);
        assert_eq!(letters.remove(&keys).unwrap(), 2);
        assert_eq!(letters.iter().count(), 0);
    }

    #[test]
    fn an_account_that_may_not_read_the_letters_is_not_told_that_there_are_none() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        let mut config = Config::load(None, std::iter::empty()).unwrap().config.kafka;
        config.brokers = vec![cluster.bootstrap_servers()];
        let topic = config.dead_letters_topic();
        let missing = Error::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        cluster.topic_error(&topic, missing).unwrap();
        assert_eq!(Letters::read(&config).unwrap().iter().count(), 0);
        let refused = Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        cluster.topic_error(&topic, refused).unwrap();
        let told = Letters::read(&config).map(drop).unwrap_err().to_string();
        assert!(told.contains(&topic) && told.contains("Read on the topic"), "{told}");
        // Brokers name no partition of such a topic, other than this cluster: there is nothing whose reading could fail.
        assert!(told.contains("Meta data fetch error"), "{told}");
    }
}
