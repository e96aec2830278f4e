//! Transactions: state, dead letters and offsets of a cycle become visible together or not at all.
//!
//! One producer belongs to the thread that commits. What it is told falls into five cases, and no other:
//! *retriable*, the call is made again; *abortable*, the transaction is undone and made anew with the same content;
//! *not ours*, the group has given the partitions to others, and nothing is to be saved; *refused*, a topic takes no record,
//! whoever sends it; *fatal*, the producer is of no use any more, because somebody else has its name or because
//! of what it cannot tell.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::deliveries::{Deliveries, Failed, Placed, Refusal, hand_over};
use super::standing::{Board, Part};
use super::{ANSWERS_WITHIN, KafkaError, client, unusable};
use crate::checkpoint::persist::kill_point;
use crate::config::KafkaConfig;

/// How long one call may take before it is made again.
const CALL: Duration = Duration::from_secs(5);
/// Largest record, uncompressed: an entity with many facts. Topics of callscope's own take as much.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;
/// How often a transaction is made anew. The brokers do not always tell why it was undone: whoever joins anew finds out which
/// right is missing.
const UNDONE_MAX: u32 = 10;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// How often deliveries are looked at. librdkafka's own flush looks every 100 ms, which is most of a transaction's time. A poll
/// of less than 2 ms spins: it counts whole milliseconds.
const DELIVERIES: Duration = Duration::from_millis(1);

/// Why nothing was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotSaved {
    /// The partitions belong to others now.
    NotOurs(String),
    /// Another producer has the name.
    Fenced(String),
    /// Another producer has to be made.
    Broken(String),
    /// A topic takes no record, whoever sends it.
    Refused(String, Refusal),
    /// Whoever wanted it does so no more.
    Over,
}

/// How long it is tried.
struct Until<'a> {
    /// Whether what is to be saved is of no use any more.
    is_over: &'a dyn Fn() -> bool,
    /// Whether the process stops.
    stops: &'a dyn Fn() -> bool,
}

/// One record of a cycle.
pub(super) struct Sent<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: Option<i32>,
    pub(super) key: &'a [u8],
    /// `None`: a tombstone.
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Option<OwnedHeaders>,
}

/// A producer with transactions.
pub(super) struct Transactions {
    producer: Arc<BaseProducer<Deliveries>>,
    board: Board,
}

/// What to do about an error.
enum Case {
    Again(String),
    Abort(String),
    NotSaved(NotSaved),
}

fn judge(error: &ClientError) -> Case {
    let told = error.to_string();
    let ClientError::Transaction(inner) = error else {
        return match error.rdkafka_error_code() {
            Some(Code::Fatal) => Case::NotSaved(NotSaved::Broken(told)),
            _ => Case::Abort(told),
        };
    };
    match inner.code() {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch if inner.is_fatal() => {
            Case::NotSaved(NotSaved::Fenced(told))
        }
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::RebalanceInProgress
        | Code::AssignmentLost => Case::NotSaved(NotSaved::NotOurs(told)),
        _ if inner.is_fatal() => Case::NotSaved(NotSaved::Broken(told)),
        _ if inner.txn_requires_abort() => Case::Abort(told),
        _ if inner.is_retriable() => Case::Again(told),
        _ => Case::NotSaved(NotSaved::Broken(told)),
    }
}

/// What to do about a record that did not arrive.
fn judge_record(topic: &str, error: &ClientError) -> Case {
    match Refusal::of(error) {
        Some(refusal) => Case::NotSaved(NotSaved::Refused(topic.to_owned(), refusal)),
        None => judge(error),
    }
}

fn judged(answer: Result<(), ClientError>) -> Result<(), Case> {
    answer.map_err(|error| judge(&error))
}

impl Transactions {
    /// Makes the producer called `name` and undoes whatever an earlier one of this name has left open. `is_over`: whether
    /// nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// If the settings do not make a client, or no broker answers for as long as somebody waits.
    pub(super) fn new(
        config: &KafkaConfig,
        name: &str,
        board: Board,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Self, KafkaError> {
        let timeout = config.transaction_timeout;
        // librdkafka wants to hear of a broker that hangs before the transaction is over.
        let answers_within = ANSWERS_WITHIN.min(timeout);
        let producer: BaseProducer<Deliveries> = client(config)
            .set("transactional.id", name)
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .set("socket.timeout.ms", answers_within.as_millis().to_string())
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            .set("linger.ms", "2")
            .set("compression.type", "lz4")
            .set("delivery.report.only.error", "true")
            .create_with_context(Deliveries::default())
            .map_err(|error| unusable(&error))?;
        let producer = Arc::new(producer);
        loop {
            let Err(error) = producer.init_transactions(CALL) else {
                board.trouble(Part::Saving, None);
                return Ok(Self { producer, board });
            };
            let told = format!("cannot begin transactions as {name}: {error}");
            let code = error.rdkafka_error_code();
            if code == Some(Code::TransactionalIdAuthorizationFailed) {
                return Err(KafkaError::refused(format!(
                    "{told}; the account needs Write on transactional ids that begin with {:?}",
                    config.group
                )));
            }
            if is_over() || matches!(judge(&error), Case::NotSaved(_)) {
                return Err(KafkaError::away(told));
            }
            board.trouble(Part::Saving, Some(told));
            producer.poll(PAUSE);
        }
    }

    /// Saves `records` and `offsets`, those of the group that `metadata` tells of, together. `is_over`: whether nobody wants it
    /// any more; `stops`: whether nobody waits for the answer either.
    ///
    /// # Errors
    ///
    /// Nothing was saved, and why.
    pub(super) fn commit<'r, R: IntoIterator<Item = Sent<'r>>>(
        &self,
        records: impl Fn() -> R,
        offsets: &TopicPartitionList,
        metadata: ConsumerGroupMetadata,
        is_over: &dyn Fn() -> bool,
        stops: &dyn Fn() -> bool,
    ) -> Result<(), NotSaved> {
        let metadata = Arc::new(metadata);
        let until = Until { is_over: &|| is_over() || stops(), stops };
        let mut undone = 0;
        let saved = loop {
            let told = match self.attempt(records(), offsets, &metadata, &until) {
                Ok(()) => break Ok(()),
                Err(Case::NotSaved(
                    reason @ (NotSaved::Fenced(_) | NotSaved::Broken(_) | NotSaved::Refused(..)),
                )) => break Err(reason),
                Err(Case::NotSaved(reason)) => break self.abort(&until).and(Err(reason)),
                Err(Case::Abort(told) | Case::Again(told)) => told,
            };
            self.board.trouble(Part::Saving, Some(format!("a transaction was undone: {told}")));
            if let Err(reason) = self.abort(&until) {
                break Err(reason);
            }
            // A call can fail for a record that did not arrive, before that is told.
            if let Some(Failed { topic, error, .. }) = self.failed_delivery()
                && let Case::NotSaved(reason @ NotSaved::Refused(..)) = judge_record(&topic, &error)
            {
                break Err(reason);
            }
            if (until.is_over)() {
                break Err(NotSaved::Over);
            }
            undone += 1;
            if undone >= UNDONE_MAX {
                break Err(NotSaved::Broken(told));
            }
            self.producer.poll(PAUSE);
        };
        self.board.trouble(Part::Saving, None);
        saved
    }

    fn attempt<'r>(
        &self,
        records: impl IntoIterator<Item = Sent<'r>>,
        offsets: &TopicPartitionList,
        metadata: &Arc<ConsumerGroupMetadata>,
        until: &Until<'_>,
    ) -> Result<(), Case> {
        self.first_failed();
        self.call(until.is_over, || judged(self.producer.begin_transaction()))?;
        for sent in records {
            self.send(sent)?;
        }
        kill_point("in-transaction");
        self.call(until.is_over, || self.send_offsets(offsets, metadata))?;
        let begun = Instant::now();
        while self.producer.in_flight_count() > 0 {
            self.look_at_deliveries();
            // Deliveries fail by themselves when the transaction's time is over.
            if (until.is_over)() && begun.elapsed() > CALL {
                return Err(Case::NotSaved(NotSaved::Over));
            }
        }
        if let Some(Failed { topic, error, .. }) = self.first_failed() {
            return Err(judge_record(&topic, &error));
        }
        kill_point("before-commit");
        // Once this was asked for, only the brokers know whether it was done: it is asked again until they tell. Who stops reads
        // it from them when it starts again.
        self.call(until.stops, || judged(self.producer.commit_transaction(CALL)))?;
        kill_point("committed");
        Ok(())
    }

    fn send(&self, sent: Sent<'_>) -> Result<(), Case> {
        let mut record = Placed::with_opaque_to(sent.topic, 0).key(sent.key);
        record.partition = sent.partition;
        record.payload = sent.value;
        record.headers = sent.headers;
        let wait = || {
            self.look_at_deliveries();
            true
        };
        hand_over(&self.producer, record, wait).map_err(|error| judge_record(sent.topic, &error))
    }

    /// The first record that did not arrive, once nothing is under way any more.
    fn failed_delivery(&self) -> Option<Failed> {
        let begun = Instant::now();
        while self.producer.in_flight_count() > 0 && begun.elapsed() < CALL {
            self.look_at_deliveries();
        }
        self.first_failed()
    }

    /// The first record that was heard not to have arrived, if there is any since this was asked last.
    fn first_failed(&self) -> Option<Failed> {
        self.producer.context().take().into_iter().next()
    }

    /// Waits for deliveries a little while.
    fn look_at_deliveries(&self) {
        std::thread::park_timeout(DELIVERIES);
        self.producer.poll(Duration::ZERO);
    }

    /// Calls until there is an answer.
    fn call(
        &self,
        is_over: &dyn Fn() -> bool,
        call: impl Fn() -> Result<(), Case>,
    ) -> Result<(), Case> {
        loop {
            match call() {
                Err(Case::Again(_)) if is_over() => return Err(Case::NotSaved(NotSaved::Over)),
                Err(Case::Again(told)) => {
                    self.board.trouble(Part::Saving, Some(told));
                    self.producer.poll(PAUSE);
                }
                answered => return answered,
            }
        }
    }

    /// Puts the offsets into the transaction. librdkafka does not keep to the time it is given for that: it waits for the
    /// group's coordinator until some connection changes, which may be never once that broker has left the cluster
    /// (<https://github.com/confluentinc/librdkafka/issues/5456>, 5511). So the call has a thread of its own. One that does not
    /// come back is left alone together with its producer; the next producer of the name shuts it out.
    fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        metadata: &Arc<ConsumerGroupMetadata>,
    ) -> Result<(), Case> {
        let (answer, answered) = sync_channel(1);
        let (producer, offsets) = (Arc::clone(&self.producer), offsets.clone());
        let metadata = Arc::clone(metadata);
        let call = move || {
            // Nobody listens who has given it up.
            let _given_up =
                answer.send(producer.send_offsets_to_transaction(&offsets, &metadata, CALL));
        };
        let called = std::thread::Builder::new().name("kafka-offsets".to_owned()).spawn(call);
        let told = match called {
            Ok(_) => match answered.recv_timeout(CALL * 2) {
                Ok(told) => return judged(told),
                Err(_) => "the group's coordinator has not answered".to_owned(),
            },
            Err(error) => format!("no thread for the offsets: {error}"),
        };
        Err(Case::NotSaved(NotSaved::Broken(told)))
    }

    /// Undoes the transaction under way.
    fn abort(&self, until: &Until<'_>) -> Result<(), NotSaved> {
        let undone = self.call(until.stops, || {
            let answer = judged(self.producer.abort_transaction(CALL));
            self.look_at_deliveries();
            answer
        });
        match undone {
            Ok(()) => Ok(()),
            Err(
                Case::NotSaved(NotSaved::NotOurs(told)) | Case::Abort(told) | Case::Again(told),
            ) => Err(NotSaved::Broken(told)),
            Err(Case::NotSaved(reason)) => Err(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::{MockCluster, MockCoordinator};
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::topic_partition_list::Offset;
    use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error};

    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;

    /// A cluster in this process that answers with the errors it is told to; it is no broker otherwise.
    struct Bench {
        cluster: MockCluster<'static, DefaultProducerContext>,
        config: KafkaConfig,
    }

    impl Bench {
        fn new() -> Self {
            let cluster = MockCluster::new(3).unwrap();
            cluster.create_topic("state", 1, 1).unwrap();
            cluster.create_topic("input", 1, 1).unwrap();
            let mut config = Config::load(None, std::iter::empty()).unwrap().config.kafka;
            config.brokers = vec![cluster.bootstrap_servers()];
            Self { cluster, config }
        }

        fn commit(&self, errors: &[(Api, &[Error])]) -> Result<(), NotSaved> {
            let board = Board::new(Arc::new(Metrics::new()));
            let transactions = Transactions::new(&self.config, "name", board, &|| false).unwrap();
            for (api, errors) in errors {
                self.cluster.request_errors(*api, errors);
            }
            let member: BaseConsumer =
                client(&self.config).set("group.id", "group").create().unwrap();
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset("input", 0, Offset::Offset(7)).unwrap();
            let sent = || {
                [Sent {
                    topic: "state",
                    partition: Some(0),
                    key: b"key",
                    value: Some(b"value"),
                    headers: None,
                }]
            };
            let metadata = member.group_metadata().unwrap();
            transactions.commit(sent, &offsets, metadata, &|| false, &|| false)
        }
    }

    #[test]
    fn what_passes_by_itself_is_tried_again() {
        let bench = Bench::new();
        bench.commit(&[]).unwrap();
        for errors in [
            (Api::AddPartitionsToTxn, Error::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS),
            (Api::AddOffsetsToTxn, Error::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE),
            (Api::TxnOffsetCommit, Error::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS),
            (Api::EndTxn, Error::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE),
            (Api::Produce, Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION),
        ] {
            bench.commit(&[(errors.0, &[errors.1, errors.1])]).unwrap();
        }
    }

    #[test]
    fn what_has_to_be_undone_is_made_anew() {
        let bench = Bench::new();
        for errors in [
            (Api::Produce, Error::RD_KAFKA_RESP_ERR_INVALID_RECORD),
            (Api::AddPartitionsToTxn, Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED),
        ] {
            bench.commit(&[(errors.0, &[errors.1])]).unwrap();
        }
    }

    #[test]
    fn partitions_that_belong_to_others_are_left_alone() {
        let bench = Bench::new();
        for error in [
            Error::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
            Error::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
            Error::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
        ] {
            let told = bench.commit(&[(Api::TxnOffsetCommit, &[error])]);
            assert!(matches!(told, Err(NotSaved::NotOurs(_))), "{error:?}: {told:?}");
        }
    }

    #[test]
    fn a_producer_whose_name_another_has_is_fenced() {
        let bench = Bench::new();
        for errors in [
            (Api::AddPartitionsToTxn, Error::RD_KAFKA_RESP_ERR_PRODUCER_FENCED),
            (Api::EndTxn, Error::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH),
        ] {
            let told = bench.commit(&[(errors.0, &[errors.1])]);
            assert!(matches!(told, Err(NotSaved::Fenced(_))), "{errors:?}: {told:?}");
        }
    }

    #[test]
    fn a_producer_of_no_use_is_given_up() {
        let bench = Bench::new();
        let error = Error::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        let told = bench.commit(&[(Api::AddPartitionsToTxn, &[error])]);
        assert!(matches!(told, Err(NotSaved::Broken(_))), "{told:?}");
    }
    /// Only the broker that leads the group answers no more; librdkafka alone would wait for it for ever.
    #[test]
    fn a_coordinator_that_is_gone_is_not_waited_for() {
        let bench = Bench::new();
        let (transaction, group) = ("name".to_owned(), "group".to_owned());
        bench.cluster.coordinator(MockCoordinator::Transaction(transaction), 1).unwrap();
        bench.cluster.coordinator(MockCoordinator::Group(group), 2).unwrap();
        bench.cluster.partition_leader("state", 0, Some(1)).unwrap();
        bench.cluster.broker_down(2).unwrap();
        let told = bench.commit(&[]);
        assert!(matches!(told, Err(NotSaved::Broken(_))), "{told:?}");
    }

    #[test]
    fn a_topic_that_takes_no_record_is_named() {
        let bench = Bench::new();
        for (error, refusal) in [
            (Error::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, Refusal::Size),
            (Error::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, Refusal::Segment),
            (Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Refusal::Right),
        ] {
            let told = bench.commit(&[(Api::Produce, &[error])]);
            assert_eq!(told, Err(NotSaved::Refused("state".to_owned(), refusal)));
        }
    }
}
