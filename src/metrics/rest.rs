//! Metrics of polling a platform's REST API.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::words::{BySource, Word};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Polled {
    source: String,
    outcome: Word,
}

/// Those of all sources.
#[derive(Debug)]
pub(super) struct RestFamilies {
    polls: Family<Polled, Counter>,
    records: Family<BySource, Counter>,
    bytes: Family<BySource, Counter>,
    succeeded: Family<BySource, Gauge>,
    seconds: Family<BySource, Histogram, fn() -> Histogram>,
}

/// Those of one source.
#[derive(Debug)]
pub struct RestMetrics {
    source: String,
    polls: Family<Polled, Counter>,
    /// `rest_records_total`: records that answers told and that were not told before.
    pub records: Counter,
    /// `rest_bytes_total`: bytes of answers.
    pub bytes: Counter,
    /// `rest_last_success_timestamp_seconds`: when an answer was whole.
    pub succeeded: Gauge,
    /// `rest_poll_seconds`: time from the question to the last record in the journal.
    pub seconds: Histogram,
}

#[expect(clippy::disallowed_methods, reason = "this is where metrics are declared")]
impl RestFamilies {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.01, 2.0, 14));
        let families = Self {
            polls: Family::default(),
            records: Family::default(),
            bytes: Family::default(),
            succeeded: Family::default(),
            seconds: Family::new_with_constructor(seconds),
        };
        let Self { polls, records, bytes, succeeded, seconds } = &families;
        registry.register(
            "rest_polls",
            "Polls of the platform's REST API by outcome",
            polls.clone(),
        );
        registry.register(
            "rest_records",
            "Records that answers told for the first time",
            records.clone(),
        );
        registry.register("rest_bytes", "Bytes of answers", bytes.clone());
        registry.register(
            "rest_last_success_timestamp_seconds",
            "When an answer was whole, seconds since 1970",
            succeeded.clone(),
        );
        registry.register("rest_poll_seconds", "Time of a poll", seconds.clone());
        families
    }

    pub(super) fn of(&self, source: &str) -> RestMetrics {
        let by = BySource { source: source.to_owned() };
        RestMetrics {
            source: source.to_owned(),
            polls: self.polls.clone(),
            records: self.records.get_or_create_owned(&by),
            bytes: self.bytes.get_or_create_owned(&by),
            succeeded: self.succeeded.get_or_create_owned(&by),
            seconds: self.seconds.get_or_create_owned(&by),
        }
    }
}

impl RestMetrics {
    /// Counts a poll: `ok`, `partial` or `failed`.
    pub fn polled(&self, outcome: &'static str) {
        let labels = Polled { source: self.source.clone(), outcome: Word(outcome) };
        self.polls.get_or_create(&labels).inc();
    }
}
