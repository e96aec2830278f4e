//! A message of Kafka as an item of a lane.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::SOURCE_HEADER;
use super::intake::input;
use crate::config::Config;
use crate::files::LINE_BYTES_MAX;
use crate::lane::Item;
use crate::record::{Input, Position, Record};

/// Makes items of messages; names are made once.
pub(super) struct Items {
    sources: Vec<Arc<str>>,
    default_source: Arc<str>,
    inputs: HashMap<i32, Vec<(String, Input)>>,
}

impl Items {
    /// With the sources of the settings.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            sources: config.sources.keys().map(|name| Arc::from(name.as_str())).collect(),
            default_source: Arc::from(config.kafka.source.as_str()),
            inputs: HashMap::new(),
        }
    }

    /// The item of a message.
    pub(super) fn item(&mut self, message: &BorrowedMessage<'_>) -> Item {
        let input = self.input(message.topic(), message.partition());
        let offset = u64::try_from(message.offset()).unwrap_or(0);
        let record = |payload: Bytes, source: Arc<str>| Record {
            position: Position { input, offset },
            next_offset: offset + 1,
            source,
            payload,
        };
        let source = self.source(message);
        match message.payload() {
            None => Item::Damaged(record(Bytes::new(), source), "a record without a value"),
            Some(payload) if payload.len() > LINE_BYTES_MAX => {
                let start = payload.get(..LINE_BYTES_MAX).unwrap_or_default();
                let start = Bytes::copy_from_slice(start);
                Item::Damaged(record(start, source), "a record larger than 64 MiB")
            }
            Some(payload) => Item::Record(record(Bytes::copy_from_slice(payload), source)),
        }
    }

    fn source(&self, message: &BorrowedMessage<'_>) -> Arc<str> {
        let named = message.headers().and_then(|headers| {
            let header = headers.iter().find(|header| header.key == SOURCE_HEADER)?;
            let name = std::str::from_utf8(header.value?).ok()?;
            self.sources.iter().find(|source| ***source == *name)
        });
        Arc::clone(named.unwrap_or(&self.default_source))
    }

    fn input(&mut self, topic: &str, partition: i32) -> Input {
        let known = self.inputs.entry(partition).or_default();
        if let Some((_, input)) = known.iter().find(|(name, _)| name == topic) {
            return input.clone();
        }
        let input = input(topic, partition);
        known.push((topic.to_owned(), input.clone()));
        input
    }
}
