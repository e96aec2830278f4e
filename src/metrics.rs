//! Metrics: every one is declared here, once. Nothing is global but the count of log lines, so a test reads exact counts.
//!
//! Labels have a closed set of values or come from the settings; no session, user or stream is ever one. Only clusters and
//! media nodes are named by events: the first [`CLUSTERS_MAX`](crate::live::CLUSTERS_MAX) clusters are told apart, all others
//! are `other`, and nodes have a bound of their own. Directions are those of the participant: `outbound` is what it sends.
//! Counters begin at 0 with the process; what needs an earlier event (packets, first media, stuck recordings) begins anew
//! with it.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::checkpoint::Tally;
use crate::document::{Document, KINDS};
use crate::event::Event;
use crate::live::{Live, SIZES, Share};
use crate::sink::Written;

mod families;
mod kafka;
mod rest;
mod source;
mod words;

use families::{Families, Histograms};
pub use kafka::KafkaMetrics;
use rest::RestFamilies;
pub use rest::RestMetrics;
pub use source::SourceMetrics;
use words::{
    Build, ByCluster, ByClusterDirection, ByOutcome, BySize, ByType, Failed, Logged, Requested,
    Word, place, word,
};

/// The revision that was built, where the build says so.
const REVISION: &str = match option_env!("CALLSCOPE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Sizes of sessions as the label `le`; they are those of [`SIZES`].
const SIZE_WORDS: [&str; SIZES.len() + 1] = [
    "1.0", "2.0", "3.0", "4.0", "6.0", "8.0", "12.0", "16.0", "32.0", "64.0", "128.0", "256.0",
    "+Inf",
];

/// All metrics. Names begin with `callscope_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    sources: RwLock<Vec<Arc<SourceMetrics>>>,
    /// Sources and clusters whose gauges are shown.
    shown: Mutex<Vec<(String, String)>>,
    records: Family<ByOutcome, Counter>,
    documents: Family<ByOutcome, Counter>,
    indexed: Vec<Counter>,
    index_failures: Family<Failed, Counter>,
    /// `spool_bytes`: size of the journal.
    pub journal_bytes: Gauge,
    /// `queue_depth`: records received and not yet dealt with.
    pub journal_waiting: Gauge,
    /// `journal_records_lost_total`: records that damage left nothing of.
    pub journal_lost: Counter,
    queue_oldest: Gauge,
    /// Arrival of the oldest record that is not dealt with, milliseconds since 1970; 0: there is none.
    waits_since: AtomicI64,
    /// `dead_letters`: letters kept on this machine; those of a group are in `kafka_dead_letters`.
    pub dead_letters: Gauge,
    /// `cycle_seconds`: time from a batch to its checkpoint.
    pub cycle_seconds: Histogram,
    bulk_seconds: Histograms<ByOutcome>,
    http_requests: Family<Requested, Counter>,
    http_seconds: Histograms<Requested>,
    log_lines: Vec<Counter>,
    /// Of an instance in a group.
    pub kafka: KafkaMetrics,
    rest: RestFamilies,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers a metric and gives it back.
macro_rules! declare {
    ($registry:ident, $name:literal, $help:literal, $metric:expr) => {{
        let metric = $metric;
        $registry.register($name, $help, metric.clone());
        metric
    }};
}

#[expect(clippy::disallowed_methods, reason = "this is where metrics are declared")]
impl Metrics {
    /// Those of polling the REST API of one source.
    #[must_use]
    pub fn rest(&self, source: &str) -> RestMetrics {
        self.rest.of(source)
    }

    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("callscope");
        let r = &mut registry;
        let build = Build { version: Word(env!("CARGO_PKG_VERSION")), revision: Word(REVISION) };
        r.register("build", "What is running", Info::new(build));
        let families = Families::new();
        declare_sessions(r, &families);
        declare_media(r, &families);
        declare_events(r, &families);
        let documents_indexed: Family<ByType, Counter> =
            declare!(r, "documents_indexed", "Documents that the sink took", Family::default());
        let indexed = (0..=KINDS.len()).map(|place| ByType { elastic_type: word(KINDS, place) });
        let log_lines: Family<Logged, Counter> =
            declare!(r, "log_lines", "Log lines by level", Family::default());
        let levels = crate::logging::LEVELS.iter().map(|level| Logged { level: Word(level) });
        let metrics = Self {
            indexed: indexed.map(|kind| documents_indexed.get_or_create_owned(&kind)).collect(),
            log_lines: levels.map(|level| log_lines.get_or_create_owned(&level)).collect(),
            families,
            sources: RwLock::default(),
            shown: Mutex::default(),
            records: declare!(r, "records", "Records by outcome", Family::default()),
            documents: declare!(r, "documents", "Documents by outcome", Family::default()),
            index_failures: declare!(
                r,
                "index_failures",
                "Documents that the sink did not take",
                Family::default()
            ),
            journal_bytes: declare!(r, "spool_bytes", "Size of the journal", Gauge::default()),
            journal_waiting: declare!(
                r,
                "queue_depth",
                "Records received and not yet dealt with",
                Gauge::default()
            ),
            queue_oldest: declare!(
                r,
                "queue_oldest_seconds",
                "How long the oldest of them has waited",
                Gauge::default()
            ),
            journal_lost: declare!(
                r,
                "journal_records_lost",
                "Records that damage left nothing of",
                Counter::default()
            ),
            waits_since: AtomicI64::new(0),
            dead_letters: declare!(r, "dead_letters", "Dead letters kept here", Gauge::default()),
            cycle_seconds: declare!(
                r,
                "cycle_seconds",
                "Time from a batch to its checkpoint",
                seconds_of_work()
            ),
            bulk_seconds: declare!(
                r,
                "es_bulk_seconds",
                "Time of a bulk request by outcome",
                Family::new_with_constructor(seconds_of_work as fn() -> Histogram)
            ),
            http_requests: declare!(
                r,
                "http_requests",
                "Requests by path and code",
                Family::default()
            ),
            http_seconds: declare!(
                r,
                "http_request_seconds",
                "Time from request to answer",
                Family::new_with_constructor(seconds_of_work as fn() -> Histogram)
            ),
            kafka: KafkaMetrics::new(r),
            rest: RestFamilies::new(r),
            registry,
        };
        metrics.source("default");
        metrics.live(&Live::default());
        metrics
    }

    /// The page, in OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        for (counter, lines) in self.log_lines.iter().zip(crate::logging::lines()) {
            counter.inc_by(lines.saturating_sub(counter.get()));
        }
        let since = self.waits_since.load(Ordering::Relaxed);
        let now = chrono::Utc::now().timestamp_millis();
        self.queue_oldest.set(if since == 0 { 0 } else { (now - since).max(0) / 1000 });
        let mut page = String::new();
        if prometheus_client::encoding::text::encode(&mut page, &self.registry).is_err() {
            page.clear();
            let _infallible = page.write_str("# EOF\n");
        }
        page
    }

    /// The metrics of a `[sources.NAME]`. Keep them where events come by the thousand.
    pub fn source(&self, name: &str) -> Arc<SourceMetrics> {
        let known = |sources: &[Arc<SourceMetrics>]| {
            sources.iter().find(|source| source.name() == name).map(Arc::clone)
        };
        if let Some(source) = known(&self.sources.read().unwrap_or_else(PoisonError::into_inner)) {
            return source;
        }
        let mut sources = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        known(&sources).unwrap_or_else(|| {
            let source = Arc::new(SourceMetrics::new(name, &self.families));
            sources.push(Arc::clone(&source));
            source
        })
    }

    /// Notes when the oldest record arrived that is not dealt with, milliseconds since 1970. Its age is told on the page.
    pub fn waits_since(&self, received_at: Option<i64>) {
        self.waits_since.store(received_at.unwrap_or(0), Ordering::Relaxed);
    }

    /// Counts an event of `source`, dealt with at `wall` (milliseconds since 1970).
    pub fn event(&self, source: &str, event: &Event<'_>, wall: i64) {
        {
            let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = sources.iter().find(|known| known.name() == source) {
                return known.event(event, wall);
            }
        }
        self.source(source).event(event, wall);
    }

    /// Counts a record of `source` that is no event; `reason` as the decoder gives it. What damage left of a record does not
    /// name its source any more, and counts for `default`.
    pub fn rejected(&self, source: &str, reason: &str) {
        let source = if source.is_empty() { "default" } else { source };
        self.source(source).rejected(reason);
    }

    /// Counts an event of `source` that added nothing to what was known.
    pub fn deduplicated(&self, source: &str) {
        self.source(source).deduplicated();
    }

    /// Counts what became of the records and documents of a cycle.
    pub fn cycle(&self, tally: &Tally) {
        let records = [
            ("folded", tally.folded),
            ("duplicate", tally.duplicate),
            ("passed", tally.passed),
            ("late", tally.late),
            ("dead", tally.dead),
            ("skipped", tally.skipped),
        ];
        for (outcome, count) in records {
            self.records.get_or_create(&ByOutcome { outcome: Word(outcome) }).inc_by(count);
        }
        let documents = [
            ("stored", tally.stored),
            ("existed", tally.existed),
            ("older", tally.older),
            ("refused", tally.refused),
        ];
        for (outcome, count) in documents {
            self.documents.get_or_create(&ByOutcome { outcome: Word(outcome) }).inc_by(count);
        }
    }

    /// Counts documents that the sink took, all of them.
    pub fn documents(&self, documents: &[Document]) {
        for document in documents {
            self.indexed(&document.elastic_type);
        }
    }

    /// Counts documents by what became of them, one answer for each.
    pub fn written(&self, documents: &[Document], written: &[Written]) {
        for (document, written) in documents.iter().zip(written) {
            match written {
                Written::Dead(_) => self.index_failure(&document.elastic_type, "refused"),
                Written::Stored | Written::Existed | Written::Older => {
                    self.indexed(&document.elastic_type);
                }
            }
        }
    }

    fn indexed(&self, elastic_type: &str) {
        if let Some(counter) = self.indexed.get(place(KINDS, elastic_type)) {
            counter.inc();
        }
    }

    /// Counts a document that was not taken: `refused` for good, or `retried`.
    pub fn index_failure(&self, elastic_type: &str, kind: &'static str) {
        let elastic_type = word(KINDS, place(KINDS, elastic_type));
        self.index_failures.get_or_create(&Failed { elastic_type, kind: Word(kind) }).inc();
    }

    /// Counts a bulk request that took `seconds`: `ok`, `retried` or `failed`.
    pub fn bulk(&self, outcome: &'static str, seconds: f64) {
        self.bulk_seconds.get_or_create(&ByOutcome { outcome: Word(outcome) }).observe(seconds);
    }

    /// Takes over the totals of the open sessions.
    pub fn live(&self, live: &Live) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shares: Vec<Share> = Vec::new();
        for share in &live.shares {
            let (source, cluster_id) =
                (&share.source, self.families.clusters.label(&share.cluster_id));
            let is = |known: &&mut Share| known.source == *source && known.cluster_id == cluster_id;
            match shares.iter_mut().find(is) {
                Some(known) => known.totals.add(share.totals),
                None => shares.push(Share { cluster_id, ..share.clone() }),
            }
        }
        if shares.is_empty() && shown.is_empty() {
            shown.push(("default".to_owned(), String::new()));
        }
        for share in &shares {
            let key = (share.source.clone(), share.cluster_id.clone());
            if !shown.contains(&key) {
                shown.push(key);
            }
        }
        for (source, cluster_id) in shown.iter() {
            let none = Share {
                source: source.clone(),
                cluster_id: cluster_id.clone(),
                ..Share::default()
            };
            let own = shares
                .iter()
                .find(|share| &share.source == source && &share.cluster_id == cluster_id);
            self.show_totals(own.unwrap_or(&none));
        }
        let mut sources: Vec<&str> = shown.iter().map(|(source, _)| source.as_str()).collect();
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            self.show_sizes(source, live);
        }
        for source in self.sources.read().unwrap_or_else(PoisonError::into_inner).iter() {
            source.show_stuck(live.at);
        }
    }

    fn show_totals(&self, share: &Share) {
        let families = &self.families;
        let labels = ByCluster { source: share.source.clone(), cluster: share.cluster_id.clone() };
        for (family, count) in [
            (&families.sessions_active, share.totals.sessions),
            (&families.connections_active, share.totals.connections),
            (&families.recordings_active, share.totals.recordings),
        ] {
            family.get_or_create(&labels).set(integer(count));
        }
        for (place, count) in
            [share.totals.publishers, share.totals.subscribers].into_iter().enumerate()
        {
            let labels = ByClusterDirection {
                source: labels.source.clone(),
                cluster: labels.cluster.clone(),
                direction: source::direction(place),
            };
            families.streams_active.get_or_create(&labels).set(integer(count));
        }
    }

    /// Open sessions of a source by how many are in them, cumulative.
    fn show_sizes(&self, source: &str, live: &Live) {
        let families = &self.families;
        let own = || live.shares.iter().filter(|share| share.source == source);
        let mut total = 0;
        for (place, le) in SIZE_WORDS.into_iter().enumerate() {
            total += own().filter_map(|share| share.sizes.get(place)).sum::<u64>();
            let labels = BySize { source: source.to_owned(), le: Word(le) };
            families.participants_bucket.get_or_create(&labels).set(integer(total));
        }
        let labels = source::by(source);
        families.participants_count.get_or_create(&labels).set(integer(total));
        let people = own().map(|share| share.totals.connections).sum();
        families.participants_sum.get_or_create(&labels).set(integer(people));
    }

    /// Counts a request to the route `path`, answered with `code` after `seconds`.
    pub fn http_request(&self, path: &'static str, code: u16, seconds: f64) {
        let labels = Requested { path: Word(path), code };
        self.http_requests.get_or_create(&labels).inc();
        self.http_seconds.get_or_create(&labels).observe(seconds);
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where metrics are declared")]
fn declare_sessions(r: &mut Registry, f: &Families) {
    r.register("sessions_active", "Open sessions", f.sessions_active.clone());
    r.register("connections_active", "Open connections", f.connections_active.clone());
    r.register("streams_active", "Open streams", f.streams_active.clone());
    r.register("recordings_active", "Recordings under way", f.recordings_active.clone());
    let help = "Open sessions with at most so many participants";
    r.register("room_participants_bucket", help, f.participants_bucket.clone());
    r.register("room_participants_gcount", "Open sessions", f.participants_count.clone());
    r.register("room_participants_gsum", "Participants in them", f.participants_sum.clone());
    r.register("joins", "Participants that joined", f.joins.clone());
    r.register("leaves", "Participants that left", f.leaves.clone());
    r.register("sessions_closed", "Sessions that ended", f.sessions_closed.clone());
    let help = "How long sessions were";
    r.register("session_duration_seconds", help, f.session_duration.clone());
    r.register("streamed_seconds", "How long streams were", f.streamed.clone());
    r.register("recordings", "Recordings by status told", f.recordings.clone());
    let help = "Bytes of recordings that became ready";
    r.register("recording_bytes", help, f.recording_bytes.clone());
    r.register("recording_seconds", "Length of them", f.recording_seconds.clone());
    let help = "Recordings that stopped more than 10 min ago and have no final status";
    r.register("recordings_stuck", help, f.recordings_stuck.clone());
}

#[expect(clippy::disallowed_methods, reason = "this is where metrics are declared")]
fn declare_media(r: &mut Registry, f: &Families) {
    r.register("ice_components", "ICE components by state reached", f.ice.clone());
    r.register("selected_pairs", "Candidate pairs selected", f.pairs.clone());
    let help = "Time until all candidates were gathered";
    r.register("ice_gathering_seconds", help, f.gathering.clone());
    let help = "Time until a candidate pair was selected";
    r.register("pair_selected_seconds", help, f.pair_selected.clone());
    r.register("first_media_seconds", "Time until media flowed", f.first_media.clone());
    let help = "Changes of network quality by new level";
    r.register("network_quality_changes", help, f.quality.clone());
    r.register("packets", "Packets that came through", f.packets.clone());
    r.register("packets_lost", "Packets lost", f.packets_lost.clone());
    r.register("jitter_seconds", "Jitter told", f.jitter.clone());
    r.register("rtt_seconds", "Round trips told", f.rtt.clone());
    r.register("node_status", "1 for the status of a media node", f.node_status.clone());
    r.register("node_crashes", "Nodes that crashed", f.node_crashes.clone());
}

#[expect(clippy::disallowed_methods, reason = "this is where metrics are declared")]
fn declare_events(r: &mut Registry, f: &Families) {
    r.register("events_received", "Events by source and type", f.received.clone());
    r.register("events_rejected", "Records that are no events", f.rejected.clone());
    let help = "Events that added nothing to what was known";
    r.register("events_deduplicated", help, f.deduplicated.clone());
    r.register("event_lag_seconds", "Age of an event when it is dealt with", f.lag.clone());
    let help = "Time of the newest event";
    r.register("source_last_event_timestamp_seconds", help, f.last_event.clone());
}

fn seconds_of_work() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 4.0, 10))
}

fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
