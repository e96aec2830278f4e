//! Metrics: every one is declared here, once. Nothing is global, so a test reads exact counts.
//!
//! Labels have a closed set of values or come from the settings; no session, user or stream is ever one.

use std::fmt::Write;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::checkpoint::Tally;
use crate::document::Document;
use crate::event::{Body, Event, Field, Kind, RecordingStatus};
use crate::live::Live;

/// Event names and kinds that are told apart; all others are `other`.
const TYPES: &[&str] = &[
    "sessionCreated",
    "sessionDestroyed",
    "participantJoined",
    "participantLeft",
    "webrtcConnectionCreated",
    "webrtcConnectionDestroyed",
    "recordingStarted",
    "recordingStopped",
    "recordingStatusChanged",
    "filterEventDispatched",
    "mediaNodeStatusChanged",
    "autoscaling",
    "signalSent",
    "nodeCrashed",
    "nodeRecovered",
    "broadcastStarted",
    "broadcastStopped",
    "HANodeRegistered",
    "HANodeDeregistered",
    "kms",
    "webrtcStats",
    "webrtcDebug",
    "networkQualityStats",
    "monitoringStats",
    "browserStats",
];

/// End reasons that are told apart; all others are `other`, none is `none`.
const REASONS: &[&str] = &[
    "unsubscribe",
    "unpublish",
    "disconnect",
    "forceUnpublishByUser",
    "forceUnpublishByServer",
    "forceDisconnectByUser",
    "forceDisconnectByServer",
    "lastParticipantLeft",
    "recordingStoppedByServer",
    "broadcastStoppedByServer",
    "sessionClosedByServer",
    "networkDisconnect",
    "mediaServerDisconnect",
    "mediaServerReconnect",
    "nodeCrashed",
    "openviduServerStopped",
    "automaticStop",
];

/// Value of a label, out of a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

fn word(known: &'static [&'static str], text: Option<&str>) -> Word {
    match text {
        None => Word("none"),
        Some(text) => Word(known.iter().find(|known| **known == text).copied().unwrap_or("other")),
    }
}

/// Labels `source` and `type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Received {
    source: String,
    r#type: Word,
}

/// Label `source`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BySource {
    source: String,
}

/// Labels `source` and `reason`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    source: String,
    reason: Word,
}

/// Labels `source` and `status`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Recorded {
    source: String,
    status: Word,
}

/// Label `outcome`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOutcome {
    outcome: Word,
}

/// Label `elastic_type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByType {
    elastic_type: Word,
}

/// Label `direction`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByDirection {
    direction: Word,
}

/// Labels `path` and `code`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Requested {
    path: Word,
    code: u16,
}

/// All metrics. The doc comment of a field is its help text on the page; names begin with `callscope_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `sessions_active`: open sessions.
    sessions_active: Gauge,
    /// `connections_active`: open connections.
    connections_active: Gauge,
    /// `streams_active`: open streams, by direction as the participant sees it.
    streams_active: Family<ByDirection, Gauge>,
    /// `recordings_active`: recordings under way.
    recordings_active: Gauge,
    /// `joins_total`: participants that joined.
    joins: Family<BySource, Counter>,
    /// `leaves_total`: participants that left, by reason.
    leaves: Family<Ended, Counter>,
    /// `sessions_closed_total`: sessions that ended, by reason.
    sessions_closed: Family<Ended, Counter>,
    /// `session_duration_seconds`: how long sessions were.
    session_duration: Histogram,
    /// `recordings_total`: recordings by final or other status told.
    recordings: Family<Recorded, Counter>,
    /// `recording_bytes_total`: bytes of recordings that are ready.
    recording_bytes: Family<BySource, Counter>,
    /// `node_crashes_total`: media or master nodes that crashed.
    node_crashes: Family<BySource, Counter>,
    /// `events_received_total`: events by source and type.
    events_received: Family<Received, Counter>,
    /// `event_lag_seconds`: age of an event when it is dealt with.
    event_lag: Histogram,
    /// `source_last_event_timestamp_seconds`: time of the newest event.
    last_event: Family<BySource, Gauge>,
    /// `records_total`: records by outcome.
    records: Family<ByOutcome, Counter>,
    /// `documents_total`: documents by outcome.
    documents: Family<ByOutcome, Counter>,
    /// `documents_made_total`: documents by type.
    documents_made: Family<ByType, Counter>,
    /// `journal_bytes`: size of the journal.
    pub journal_bytes: Gauge,
    /// `journal_records_waiting`: records not yet dealt with.
    pub journal_waiting: Gauge,
    /// `journal_records_lost_total`: records that damage left nothing of.
    pub journal_lost: Counter,
    /// `dead_letters`: letters kept.
    pub dead_letters: Gauge,
    /// `cycle_seconds`: time from a batch to its checkpoint.
    pub cycle_seconds: Histogram,
    /// `sink_requests_total`: bulk requests by outcome.
    sink_requests: Family<ByOutcome, Counter>,
    /// `http_requests_total`: requests by path and code.
    http_requests: Family<Requested, Counter>,
    /// `http_request_seconds`: time from request to answer.
    http_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where metrics are declared")]
    #[expect(clippy::too_many_lines, reason = "a list of names")]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("callscope");
        macro_rules! declare {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        let sessions_active = declare!("sessions_active", "Open sessions", Gauge::default());
        let connections_active =
            declare!("connections_active", "Open connections", Gauge::default());
        let streams_active = declare!(
            "streams_active",
            "Open streams, as the participant sees them",
            Family::default()
        );
        let recordings_active =
            declare!("recordings_active", "Recordings under way", Gauge::default());
        let joins = declare!("joins", "Participants that joined", Family::default());
        let leaves = declare!("leaves", "Participants that left", Family::default());
        let sessions_closed = declare!("sessions_closed", "Sessions that ended", Family::default());
        let session_duration = declare!(
            "session_duration_seconds",
            "How long sessions were",
            Histogram::new(exponential_buckets(15.0, 2.0, 12))
        );
        let recordings = declare!("recordings", "Recordings by status told", Family::default());
        let recording_bytes =
            declare!("recording_bytes", "Bytes of recordings that are ready", Family::default());
        let node_crashes = declare!("node_crashes", "Nodes that crashed", Family::default());
        let events_received =
            declare!("events_received", "Events by source and type", Family::default());
        let event_lag = declare!(
            "event_lag_seconds",
            "Age of an event when it is dealt with",
            Histogram::new(exponential_buckets(0.1, 4.0, 12))
        );
        let last_event = declare!(
            "source_last_event_timestamp_seconds",
            "Time of the newest event",
            Family::default()
        );
        let records = declare!("records", "Records by outcome", Family::default());
        let documents = declare!("documents", "Documents by outcome", Family::default());
        let documents_made = declare!("documents_made", "Documents by type", Family::default());
        let journal_bytes = declare!("journal_bytes", "Size of the journal", Gauge::default());
        let journal_waiting =
            declare!("journal_records_waiting", "Records not yet dealt with", Gauge::default());
        let journal_lost = declare!(
            "journal_records_lost",
            "Records that damage left nothing of",
            Counter::default()
        );
        let dead_letters = declare!("dead_letters", "Letters kept", Gauge::default());
        let cycle_seconds = declare!(
            "cycle_seconds",
            "Time from a batch to its checkpoint",
            Histogram::new(exponential_buckets(0.001, 4.0, 10))
        );
        let sink_requests =
            declare!("sink_requests", "Bulk requests by outcome", Family::default());
        let http_requests =
            declare!("http_requests", "Requests by path and code", Family::default());
        let http_seconds = declare!(
            "http_request_seconds",
            "Time from request to answer",
            Histogram::new(exponential_buckets(0.0005, 4.0, 10))
        );
        Self {
            registry,
            sessions_active,
            connections_active,
            streams_active,
            recordings_active,
            joins,
            leaves,
            sessions_closed,
            session_duration,
            recordings,
            recording_bytes,
            node_crashes,
            events_received,
            event_lag,
            last_event,
            records,
            documents,
            documents_made,
            journal_bytes,
            journal_waiting,
            journal_lost,
            dead_letters,
            cycle_seconds,
            sink_requests,
            http_requests,
            http_seconds,
        }
    }

    /// The page, in OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut page = String::new();
        if prometheus_client::encoding::text::encode(&mut page, &self.registry).is_err() {
            page.clear();
            let _infallible = page.write_str("# EOF\n");
        }
        page
    }

    /// Counts an event of `source`, dealt with at `wall` (milliseconds since 1970).
    pub fn event(&self, source: &str, event: &Event<'_>, wall: i64) {
        let by_source = BySource { source: source.to_owned() };
        let name = event.name().unwrap_or(event.kind.elastic_type());
        self.events_received
            .get_or_create(&Received { source: source.to_owned(), r#type: word(TYPES, Some(name)) })
            .inc();
        let seconds = event.time / 1000;
        let last = self.last_event.get_or_create(&by_source);
        if last.get() < seconds {
            last.set(seconds);
        }
        #[expect(clippy::cast_precision_loss, reason = "a span in milliseconds")]
        self.event_lag.observe((wall - event.time).max(0) as f64 / 1000.0);
        let reason = |reason: Option<&str>| Ended {
            source: source.to_owned(),
            reason: word(REASONS, reason),
        };
        match &event.body {
            Body::Participant(participant) => match &participant.left {
                None => _ = self.joins.get_or_create(&by_source).inc(),
                Some(end) => _ = self.leaves.get_or_create(&reason(end.reason.as_deref())).inc(),
            },
            Body::SessionDestroyed(end) => {
                self.sessions_closed.get_or_create(&reason(end.reason.as_deref())).inc();
                if let Some(start) = end.start {
                    #[expect(clippy::cast_precision_loss, reason = "a span in milliseconds")]
                    self.session_duration.observe((event.time - start).max(0) as f64 / 1000.0);
                }
            }
            Body::Recording(recording) if !recording.old_name => {
                let status = Word(recording.status.name());
                self.recordings
                    .get_or_create(&Recorded { source: source.to_owned(), status })
                    .inc();
                if recording.status == RecordingStatus::Ready {
                    let bytes = u64::try_from(recording.size).unwrap_or(0);
                    self.recording_bytes.get_or_create(&by_source).inc_by(bytes);
                }
            }
            _ if matches!(&event.kind, Kind::Cdr(name) if name == "nodeCrashed") => {
                let _id = event.field(crate::event::FieldName::Id).map(Field::text);
                self.node_crashes.get_or_create(&by_source).inc();
            }
            _ => {}
        }
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
            ("dead", tally.refused),
        ];
        for (outcome, count) in documents {
            self.documents.get_or_create(&ByOutcome { outcome: Word(outcome) }).inc_by(count);
        }
    }

    /// Counts documents that were written, by type.
    pub fn documents(&self, documents: &[Document]) {
        const KINDS: &[&str] = &[
            "cdr",
            "kms",
            "webrtcStats",
            "webrtcDebug",
            "networkQualityStats",
            "monitoringStats",
            "browserStats",
            "platformStats",
            "sessionSummary",
            "userSummary",
            "connectionSummary",
            "publisherSummary",
            "subscriberSummary",
            "recordingSummary",
            "superseded",
        ];
        for document in documents {
            let elastic_type = word(KINDS, Some(&document.elastic_type));
            self.documents_made.get_or_create(&ByType { elastic_type }).inc();
        }
    }

    /// Takes over the totals of the open sessions.
    pub fn live(&self, live: &Live) {
        let set =
            |gauge: &Gauge, count: u64| _ = gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        set(&self.sessions_active, live.totals.sessions);
        set(&self.connections_active, live.totals.connections);
        set(&self.recordings_active, live.totals.recordings);
        let streams = [("outbound", live.totals.publishers), ("inbound", live.totals.subscribers)];
        for (direction, count) in streams {
            let gauge =
                self.streams_active.get_or_create(&ByDirection { direction: Word(direction) });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts a bulk request: `ok`, `retried` or `failed`.
    pub fn sink_request(&self, outcome: &'static str) {
        self.sink_requests.get_or_create(&ByOutcome { outcome: Word(outcome) }).inc();
    }

    /// Counts a request to the route `path`, answered with `code` after `seconds`.
    pub fn http_request(&self, path: &'static str, code: u16, seconds: f64) {
        self.http_requests.get_or_create(&Requested { path: Word(path), code }).inc();
        self.http_seconds.observe(seconds);
    }
}
