//! Deliveries: what a producer hears of the records that it was given.

use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};

/// A record that did not arrive.
pub(super) struct Failed {
    pub(super) topic: String,
    /// What it was sent with: its place among the records that were sent together.
    pub(super) place: usize,
    pub(super) error: ClientError,
}

/// Notes the records that did not arrive, in the order in which that was heard.
#[derive(Default)]
pub(super) struct Deliveries(Mutex<Vec<Failed>>);

impl Deliveries {
    /// Those that were noted since this was asked last.
    pub(super) fn take(&self) -> Vec<Failed> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: ClientError, reason: &str) {
        // What matters of it comes back from the call, or with the record.
        tracing::debug!(error = %error, reason, "client of Kafka");
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        if let Err((error, message)) = result {
            let failed = Failed { topic: message.topic().to_owned(), place, error: error.clone() };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(failed);
        }
    }
}
