//! Metrics of an instance in a group on Kafka; all at zero without one.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::words::{ByOutcome, Word};

/// Labels of a partition: topics come from the settings, partitions are as many as those have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPartition {
    topic: String,
    partition: i32,
}

/// What an instance tells of its partitions.
#[derive(Debug)]
pub struct KafkaMetrics {
    lag: Family<ByPartition, Gauge>,
    /// `kafka_partitions_held`: partitions whose state is here.
    pub held: Gauge,
    /// `kafka_partitions_restoring`: partitions whose state is being read.
    pub restoring: Gauge,
    /// `kafka_state_records_total`: records of the state that were read to take partitions over.
    pub restored: Counter,
    /// `kafka_restore_seconds`: time from an assignment until its state is here.
    pub restore_seconds: Histogram,
    transactions: Family<ByOutcome, Counter>,
    /// `kafka_forwarded_total`: records that went from this machine's inputs to the topic.
    pub forwarded: Counter,
    /// `kafka_rekeyed_total`: records that went from `kafka.rekey_from` to the topic.
    pub rekeyed: Counter,
    rekey_lag: Family<ByPartition, Gauge>,
    /// `kafka_dead_letters`: letters of the group, the same at every instance.
    pub dead_letters: Gauge,
    /// `kafka_missed_total`: records that the brokers deleted before they were read.
    pub missed: Counter,
    /// `kafka_split_sessions_total`: sessions that were seen in two partitions.
    pub split: Counter,
}

#[expect(clippy::disallowed_methods, reason = "this is where metrics are declared")]
impl KafkaMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            lag: Family::default(),
            held: Gauge::default(),
            restoring: Gauge::default(),
            restored: Counter::default(),
            restore_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 16)),
            transactions: Family::default(),
            forwarded: Counter::default(),
            rekeyed: Counter::default(),
            rekey_lag: Family::default(),
            dead_letters: Gauge::default(),
            missed: Counter::default(),
            split: Counter::default(),
        };
        let Self {
            lag,
            held,
            restoring,
            restored,
            restore_seconds,
            transactions,
            forwarded,
            rekeyed,
            rekey_lag,
            dead_letters,
            missed,
            split,
        } = &metrics;
        registry.register("kafka_lag", "Records of a partition not yet dealt with", lag.clone());
        registry.register("kafka_partitions_held", "Partitions held", held.clone());
        registry.register(
            "kafka_partitions_restoring",
            "Partitions whose state is being read",
            restoring.clone(),
        );
        registry.register("kafka_state_records", "Records of the state read", restored.clone());
        registry.register(
            "kafka_restore_seconds",
            "Time from an assignment until its state is here",
            restore_seconds.clone(),
        );
        registry.register("kafka_transactions", "Transactions by outcome", transactions.clone());
        registry.register("kafka_forwarded", "Records forwarded to the topic", forwarded.clone());
        registry.register("kafka_rekeyed", "Records taken over by session", rekeyed.clone());
        registry.register(
            "kafka_rekey_lag",
            "Records of a partition not yet taken over by session",
            rekey_lag.clone(),
        );
        registry.register(
            "kafka_dead_letters",
            "Dead letters of the group, the same at every instance",
            dead_letters.clone(),
        );
        registry.register(
            "kafka_missed",
            "Records that the brokers deleted before they were read",
            missed.clone(),
        );
        registry.register(
            "kafka_split_sessions",
            "Sessions that were seen in two partitions",
            split.clone(),
        );
        metrics
    }

    /// Notes how many records of a partition are not dealt with.
    pub fn lag(&self, topic: &str, partition: i32, lag: u64) {
        let place = ByPartition { topic: topic.to_owned(), partition };
        self.lag.get_or_create(&place).set(i64::try_from(lag).unwrap_or(i64::MAX));
    }

    /// Notes how many records of a partition of `kafka.rekey_from` are not taken over.
    pub fn rekey_lag(&self, topic: &str, partition: i32, lag: u64) {
        let place = ByPartition { topic: topic.to_owned(), partition };
        self.rekey_lag.get_or_create(&place).set(i64::try_from(lag).unwrap_or(i64::MAX));
    }

    /// Tells nothing of those that are others' now.
    pub fn forget_rekeyed(&self) {
        self.rekey_lag.clear();
    }

    /// Tells nothing of partitions that are others' now.
    pub fn forget_partitions(&self) {
        self.lag.clear();
    }

    /// Counts a transaction: `saved`, or `not_saved`.
    pub fn transaction(&self, outcome: &'static str) {
        self.transactions.get_or_create(&ByOutcome { outcome: Word(outcome) }).inc();
    }
}
