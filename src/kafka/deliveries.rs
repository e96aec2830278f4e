//! Deliveries: giving records to a producer, and what it hears of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{
    BaseProducer, BaseRecord, NoCustomPartitioner, Producer, ProducerContext, PurgeConfig,
};
use rdkafka::types::RDKafkaErrorCode as Code;

/// How long one look for acknowledgements takes at most.
const POLL: Duration = Duration::from_millis(10);

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

/// A record with its place among those that are sent together.
pub(super) type Placed<'r> = BaseRecord<'r, [u8], [u8], usize>;

/// Gives a record to the client. While that has no room for it, `wait` makes some, and says whether to go on.
///
/// # Errors
///
/// The client takes it not.
pub(super) fn hand_over(
    producer: &BaseProducer<Deliveries>,
    mut record: Placed<'_>,
    mut wait: impl FnMut() -> bool,
) -> Result<(), ClientError> {
    loop {
        match producer.send(record) {
            Err((error, again))
                if error.rdkafka_error_code() == Some(Code::QueueFull) && wait() =>
            {
                record = again;
            }
            sent => return sent.map_err(|(error, _)| error),
        }
    }
}

/// Sends records and waits until it is known of each whether it arrived; those of which nothing is heard `within` that time are
/// given up. Gives those that did not arrive, by their places.
pub(super) fn deliver<'r>(
    producer: &BaseProducer<Deliveries>,
    records: impl IntoIterator<Item = Placed<'r>>,
    within: Duration,
) -> Vec<Failed> {
    let mut failed = Vec::new();
    for record in records {
        let (topic, place) = (record.topic.to_owned(), record.delivery_opaque);
        let poll = || {
            producer.poll(POLL);
            true
        };
        if let Err(error) = hand_over(producer, record, poll) {
            failed.push(Failed { topic, place, error });
        }
    }
    if producer.flush(within).is_err() {
        producer.purge(PurgeConfig::default().queue().inflight());
        while producer.in_flight_count() > 0 {
            producer.poll(POLL);
        }
    }
    failed.extend(producer.context().take());
    failed.sort_unstable_by_key(|failed| failed.place);
    failed
}

/// Why a topic takes no record, whoever sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is too large, or the batch it came with.
    Size,
    /// The same, for the files that brokers keep the topic in.
    Segment,
    /// The account may not write.
    Right,
    /// There is no such topic any more.
    Gone,
}

impl Refusal {
    /// Of what a record failed with. `None`: it may go well the next time.
    pub(super) fn of(error: &ClientError) -> Option<Self> {
        match error.rdkafka_error_code()? {
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => Some(Self::Size),
            Code::MessageBatchTooLarge => Some(Self::Segment),
            Code::TopicAuthorizationFailed => Some(Self::Right),
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                Some(Self::Gone)
            }
            _ => None,
        }
    }
}
