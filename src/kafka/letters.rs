//! Dead letters of a group: a compacted topic, a letter's key being the record's, its content the value and everything else
//! in headers, so that any client of Kafka can read them. A tombstone stands for a letter that was dealt with.
//!
//! | header | what it holds |
//! |---|---|
//! | `kind` | `record`: bytes that are no event, as they were received; `document`: JSON that the store refuses |
//! | `reason`, `at` | why, and when (milliseconds since 1970) |
//! | `topic`, `partition`, `offset`, `source` | where a record stood, and by which source it came |
//! | `id`, `version`, `index_time`, `elastic_type` | of a document |

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::Offset;

use super::topics::ANSWER_WITHIN;
use super::{KafkaError, Quiet, client, reader, unusable};
use crate::config::KafkaConfig;
use crate::dead_letters::{Content, DeadLetter};

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
            body.clone()
        }
        Content::Document { id, version, index_time, elastic_type, json } => {
            add("kind", "document");
            add("id", id);
            add("elastic_type", elastic_type);
            add("index_time", &index_time.to_string());
            if let Some(version) = version {
                add("version", &version.to_string());
            }
            json.clone().into_bytes()
        }
    };
    (letter.key().into_bytes(), value, headers)
}

/// The letter of a record. `None`: it is none.
fn decode(message: &BorrowedMessage<'_>) -> Option<DeadLetter> {
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
    Some(DeadLetter { at, reason: header("reason").unwrap_or_default().to_owned(), content })
}

/// All letters of a group, as they were when they were read.
pub struct Letters {
    topic: String,
    config: KafkaConfig,
    letters: BTreeMap<String, DeadLetter>,
}

impl Letters {
    /// Reads the whole topic; one that is not there holds nothing.
    ///
    /// # Errors
    ///
    /// If the brokers do not answer.
    pub fn read(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let topic = config.dead_letters_topic();
        let away = |error: ClientError| {
            KafkaError::away(format!("cannot read the dead letters in topic {topic}: {error}"))
        };
        let reader = reader(config, "read_committed")?;
        let metadata = reader.fetch_metadata(Some(&topic), ANSWER_WITHIN).map_err(away)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let mut open: std::collections::BTreeSet<i32> =
            partitions.map(rdkafka::metadata::MetadataPartition::id).collect();
        let mut assignment = TopicPartitionList::new();
        for partition in &open {
            assignment.add_partition_offset(&topic, *partition, Offset::Beginning).map_err(away)?;
        }
        reader.assign(&assignment).map_err(away)?;
        let mut letters = BTreeMap::new();
        while !open.is_empty() {
            match reader.poll(ANSWER_WITHIN) {
                None => return Err(away(ClientError::NoMessageReceived)),
                Some(Ok(message)) => {
                    let Some(key) = message.key() else { continue };
                    let key = String::from_utf8_lossy(key).into_owned();
                    match decode(&message) {
                        Some(letter) => letters.insert(key, letter),
                        None => letters.remove(&key),
                    };
                }
                Some(Err(ClientError::PartitionEOF(partition))) => _ = open.remove(&partition),
                Some(Err(error)) => return Err(away(error)),
            }
        }
        Ok(Self { topic, config: config.clone(), letters })
    }

    /// All letters, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.values()
    }

    /// The letter kept under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&DeadLetter> {
        self.letters.get(key)
    }

    /// Removes letters that an operator has dealt with. Gives how many there were.
    ///
    /// # Errors
    ///
    /// If the brokers do not acknowledge; some may be removed then.
    pub fn remove(&mut self, keys: &[String]) -> Result<usize, KafkaError> {
        let known: Vec<&String> =
            keys.iter().filter(|key| self.letters.contains_key(*key)).collect();
        if known.is_empty() {
            return Ok(0);
        }
        let away = |error: &ClientError| {
            KafkaError::away(format!("cannot write to topic {}: {error}", self.topic))
        };
        let producer: BaseProducer<Quiet> = client(&self.config)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "30000")
            .create_with_context(Quiet::default())
            .map_err(|error| unusable(&error))?;
        for key in &known {
            let mut tombstone = BaseRecord::<[u8], [u8]>::to(&self.topic).key(key.as_bytes());
            while let Err((error, again)) = producer.send(tombstone) {
                if error.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull) {
                    return Err(away(&error));
                }
                tombstone = again;
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush(ANSWER_WITHIN).map_err(|error| away(&error))?;
        let count = known.len();
        for key in keys {
            self.letters.remove(key);
        }
        Ok(count)
    }
}
