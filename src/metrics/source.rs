//! The metrics of one source, bound before its events come: counting an event looks no label up and allocates nothing.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use foldhash::{HashMap, HashMapExt};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::families::Families;
use super::words::{
    BySource, CANDIDATES, Clusters, DIRECTIONS, ICE_STATES, InCluster, LEVELS, MEDIA, MODES,
    NODE_STATUSES, Node, Pair, REASONS, REJECTIONS, STATUSES, TRANSPORTS, TYPES, Word, place, word,
};
use crate::enrich::fields;
use crate::event::candidate::{CandidateKind, Transport};
use crate::event::{
    self, Aspect, Body, Endpoint, Event, Field, FieldName, Kind, RecordingStatus, Told, is_internal,
};

/// Seconds and other fractions that are added up.
pub(super) type Sum = Counter<f64, AtomicU64>;

/// Endpoints remembered in each of two generations.
const ENDPOINTS_MAX: usize = 50_000;
/// Recordings watched for their final status.
const PROCESSING_MAX: usize = 10_000;
/// A recording that has stopped for so long without a final status is stuck, milliseconds.
const STUCK_AFTER: i64 = 600_000;
/// Nodes told apart; the status of one that is too many is not shown.
const NODES_MAX: usize = 256;

/// Counters of one source.
#[derive(Debug)]
pub struct SourceMetrics {
    name: String,
    received: Vec<Counter>,
    rejected: Vec<Counter>,
    deduplicated: Counter,
    last_event: Gauge,
    lag: Histogram,
    joins: Counter,
    leaves: Vec<Counter>,
    closed: Vec<Counter>,
    session_duration: Histogram,
    streamed: Vec<Sum>,
    recordings: Vec<Vec<Counter>>,
    recording_bytes: Vec<Counter>,
    recording_seconds: Vec<Sum>,
    recordings_stuck: Gauge,
    ice: Vec<Vec<Counter>>,
    pairs: Family<Pair, Counter>,
    gathering: Vec<Histogram>,
    pair_selected: Vec<Histogram>,
    first_media: Vec<Histogram>,
    quality: Vec<Counter>,
    packets: Vec<Vec<Counter>>,
    packets_lost: Vec<Vec<Counter>>,
    jitter: Vec<Histogram>,
    rtt: Vec<Histogram>,
    clusters: Clusters,
    node_status: Family<Node, Gauge>,
    node_crashes: Family<InCluster, Counter>,
    seen: Mutex<Seen>,
}

/// What a counter needs to know of earlier events. Forgotten at a restart: what is counted then begins anew.
#[derive(Debug, Default)]
struct Seen {
    /// Packets and lost ones of each endpoint and media type.
    packets: Generations<(i64, i64)>,
    /// Endpoints that have been counted for something that happens to each once.
    once: Generations<()>,
    /// Recordings that have stopped, and when.
    processing: HashMap<u64, i64>,
    /// Status of each node.
    nodes: HashMap<(String, String), usize>,
}

#[derive(Debug)]
struct Generations<T> {
    recent: HashMap<u64, T>,
    older: HashMap<u64, T>,
}

impl<T> Default for Generations<T> {
    fn default() -> Self {
        Self { recent: HashMap::new(), older: HashMap::new() }
    }
}

impl<T: Copy> Generations<T> {
    /// What was known of `id`; from now on that is `value`.
    fn exchange(&mut self, id: u64, value: T) -> Option<T> {
        if self.recent.len() >= ENDPOINTS_MAX && !self.recent.contains_key(&id) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(id, value).or_else(|| self.older.get(&id).copied())
    }
}

impl SourceMetrics {
    pub(super) fn new(name: &str, families: &Families) -> Self {
        Self {
            name: name.to_owned(),
            received: families.by_type(name),
            rejected: families.by_rejection(name),
            deduplicated: families.deduplicated.get_or_create_owned(&by(name)),
            last_event: families.last_event.get_or_create_owned(&by(name)),
            lag: families.lag.get_or_create_owned(&by(name)),
            joins: families.joins.get_or_create_owned(&by(name)),
            leaves: families.by_reason(&families.leaves, name),
            closed: families.by_reason(&families.sessions_closed, name),
            session_duration: families.session_duration.get_or_create_owned(&by(name)),
            streamed: families.by_direction(&families.streamed, name),
            recordings: families.by_status_and_mode(name),
            recording_bytes: families.by_mode(&families.recording_bytes, name),
            recording_seconds: families.by_mode(&families.recording_seconds, name),
            recordings_stuck: families.recordings_stuck.get_or_create_owned(&by(name)),
            ice: families.by_ice_state(name),
            pairs: families.pairs.clone(),
            gathering: families.histograms(&families.gathering, name),
            pair_selected: families.histograms(&families.pair_selected, name),
            first_media: families.histograms(&families.first_media, name),
            quality: families.by_level(name),
            packets: families.by_media(&families.packets, name),
            packets_lost: families.by_media(&families.packets_lost, name),
            jitter: families.histograms(&families.jitter, name),
            rtt: families.histograms(&families.rtt, name),
            clusters: families.clusters.clone(),
            node_status: families.node_status.clone(),
            node_crashes: families.node_crashes.clone(),
            seen: Mutex::default(),
        }
    }

    /// The source.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts an event, dealt with at `wall` (milliseconds since 1970).
    pub fn event(&self, event: &Event<'_>, wall: i64) {
        let name = event.name().unwrap_or(event.kind.elastic_type());
        count(&self.received, place(TYPES, name));
        let seconds = event.time / 1000;
        if self.last_event.get() < seconds {
            self.last_event.set(seconds);
        }
        self.lag.observe(in_seconds(wall - event.time));
        match &event.body {
            Body::Participant(participant) => match &participant.left {
                None => _ = self.joins.inc(),
                Some(end) => count(&self.leaves, reason(end.reason.as_deref())),
            },
            Body::Stream(stream) => {
                if let Some(start) = stream.destroyed.as_ref().and_then(|end| end.start) {
                    let direction = usize::from(!stream.outbound);
                    if let Some(sum) = self.streamed.get(direction) {
                        sum.inc_by(in_seconds(event.time - start));
                    }
                }
            }
            Body::SessionDestroyed(end) => {
                count(&self.closed, reason(end.reason.as_deref()));
                if let Some(start) = end.start {
                    self.session_duration.observe(in_seconds(event.time - start));
                }
            }
            Body::Recording(recording) if !recording.old_name => self.recording(event, recording),
            Body::NetworkQuality(level) => {
                count(&self.quality, usize::try_from(*level).unwrap_or(LEVELS.len()));
            }
            Body::Endpoint(_) | Body::Other => self.other(event),
            Body::SessionCreated | Body::Seen(_) | Body::Recording(_) | Body::Broadcast(_) => {}
        }
    }

    /// Counts a record that is no event; `reason` as the decoder gives it.
    pub fn rejected(&self, reason: &str) {
        let place = REJECTIONS
            .iter()
            .position(|(_, begin, then)| reason.starts_with(begin) && reason.contains(then));
        count(&self.rejected, place.unwrap_or(REJECTIONS.len()));
    }

    /// Counts an event that added nothing to what was known.
    pub fn deduplicated(&self) {
        self.deduplicated.inc();
    }

    /// Shows how many recordings are stuck at `clock` (milliseconds since 1970).
    pub(super) fn show_stuck(&self, clock: i64) {
        let seen = self.seen();
        let stuck = seen.processing.values().filter(|stopped| clock - **stopped > STUCK_AFTER);
        self.recordings_stuck.set(i64::try_from(stuck.count()).unwrap_or(i64::MAX));
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recording(&self, event: &Event<'_>, recording: &crate::event::Recording<'_>) {
        let mode = event.field(FieldName::OutputMode).and_then(Field::text);
        let mode = place(MODES, mode.as_deref().unwrap_or_default());
        let status = place(STATUSES, recording.status.name());
        if let Some(by_mode) = self.recordings.get(status) {
            count(by_mode, mode);
        }
        let id = hash(recording.start.cast_unsigned(), &recording.id);
        match recording.status {
            RecordingStatus::Started => {}
            RecordingStatus::Stopped => {
                let mut seen = self.seen();
                if seen.processing.len() < PROCESSING_MAX {
                    seen.processing.insert(id, event.time);
                }
            }
            RecordingStatus::Failed => _ = self.seen().processing.remove(&id),
            RecordingStatus::Ready => {
                self.seen().processing.remove(&id);
                if let Some(bytes) = self.recording_bytes.get(mode) {
                    bytes.inc_by(u64::try_from(recording.size).unwrap_or(0));
                }
                if let Some(seconds) = self.recording_seconds.get(mode) {
                    seconds.inc_by(recording.duration.max(0.0));
                }
            }
        }
    }

    fn other(&self, event: &Event<'_>) {
        match &event.kind {
            Kind::Kms => self.kms(event),
            Kind::WebrtcStats => self.stats(event),
            Kind::Cdr(name) if name == "nodeCrashed" => {
                let cluster = self.cluster(event);
                self.node_crashes.get_or_create(&InCluster { cluster }).inc();
            }
            Kind::Cdr(name) if name == "mediaNodeStatusChanged" => self.node(event),
            _ => {}
        }
    }

    fn kms(&self, event: &Event<'_>) {
        let Some((direction, endpoint)) = endpoint(event) else { return };
        let since = event.field(FieldName::MsSinceEndpointCreation).and_then(Field::integer);
        let since = since.map(in_seconds);
        // What happens to each endpoint and part of it once.
        let first = |what: &str, part: &str| {
            self.seen().once.exchange(hash(hash(endpoint, what), part), ()).is_none()
        };
        let observe = |histograms: &[Histogram]| {
            if let (Some(histogram), Some(since)) = (histograms.get(direction), since) {
                histogram.observe(since);
            }
        };
        match &event.body {
            Body::Endpoint(Endpoint { told: Told::State(state), .. })
                if state.aspect == Aspect::Ice =>
            {
                if let Some(by_direction) = self.ice.get(place(ICE_STATES, &state.state)) {
                    count(by_direction, direction);
                }
            }
            Body::Endpoint(Endpoint { told: Told::State(state), .. }) => {
                let aspect = if state.aspect == Aspect::FlowIn { "in" } else { "out" };
                if state.state == "FLOWING" && first(aspect, &state.part) {
                    observe(&self.first_media);
                }
            }
            Body::Endpoint(Endpoint { told: Told::Pair(pair), .. }) => {
                self.pair(*pair);
                if first("pair", "") {
                    observe(&self.pair_selected);
                }
            }
            _ => {
                let kind = event.field(FieldName::Type).and_then(Field::text);
                if kind.as_deref() == Some("IceGatheringDone") && first("gathering", "") {
                    observe(&self.gathering);
                }
            }
        }
    }

    /// Rare enough to look labels up.
    fn pair(&self, pair: event::Pair) {
        let kind = |kind: Option<CandidateKind>| {
            word(CANDIDATES, place(CANDIDATES, kind.map_or("", CandidateKind::name)))
        };
        let transport = pair.transport.map_or("", Transport::name);
        let labels = Pair {
            source: self.name.clone(),
            local_type: kind(pair.local),
            remote_type: kind(pair.remote),
            transport: word(TRANSPORTS, place(TRANSPORTS, transport)),
        };
        self.pairs.get_or_create(&labels).inc();
    }

    fn stats(&self, event: &Event<'_>) {
        let Some((direction, endpoint)) = endpoint(event) else { return };
        let mut kind = None;
        let (mut packets, mut lost) = (0, 0);
        // One way through the fields instead of one for each name.
        for field in &event.fields {
            let histograms = match field.known {
                Some(FieldName::MediaType) => {
                    kind = field.text();
                    continue;
                }
                Some(FieldName::PacketsReceived | FieldName::PacketsSent) => {
                    packets = field.integer().unwrap_or(0);
                    continue;
                }
                Some(FieldName::PacketsLost) => {
                    lost = field.integer().unwrap_or(0);
                    continue;
                }
                Some(FieldName::Jitter) => &self.jitter,
                Some(FieldName::Rtt) => &self.rtt,
                _ => continue,
            };
            if let (Some(value), Some(histogram)) = (field.number(), histograms.get(direction)) {
                histogram.observe(value);
            }
        }
        let kind = kind.unwrap_or_default();
        let media = MEDIA.iter().position(|media| kind.eq_ignore_ascii_case(media));
        let media = media.unwrap_or(MEDIA.len());
        // Without an earlier sample nobody knows what was counted before a restart. A counter that fell was made anew.
        let before = self.seen().packets.exchange(hash(endpoint, &kind), (packets, lost));
        let before = before.unwrap_or((packets, lost));
        let grown = |then: i64, now: i64| u64::try_from(if now >= then { now - then } else { now });
        for (counters, then, now) in
            [(&self.packets, before.0, packets), (&self.packets_lost, before.1, lost)]
        {
            if let Some(counter) = counters.get(direction).and_then(|by_media| by_media.get(media))
            {
                counter.inc_by(grown(then, now).unwrap_or(0));
            }
        }
    }

    /// The event's cluster as a label.
    fn cluster(&self, event: &Event<'_>) -> String {
        let own = event.field(FieldName::ClusterTwin).and_then(Field::text);
        let own = own.or_else(|| event.origin.cluster_id.clone());
        self.clusters.label(own.as_deref().unwrap_or_default())
    }

    fn node(&self, event: &Event<'_>) {
        let text = |name: FieldName| event.field(name).and_then(Field::text);
        let (Some(node), Some(status)) = (text(FieldName::Id), text(FieldName::NewStatus)) else {
            return;
        };
        let key = (self.cluster(event), node.into_owned());
        let status = place(NODE_STATUSES, &status);
        let mut seen = self.seen();
        if seen.nodes.len() >= NODES_MAX && !seen.nodes.contains_key(&key) {
            return;
        }
        let labels = |status: usize| {
            let (cluster, node) = key.clone();
            Node { cluster, node, status: word(NODE_STATUSES, status) }
        };
        if let Some(before) = seen.nodes.insert(key.clone(), status) {
            self.node_status.remove(&labels(before));
        }
        let is_gone =
            |status: usize| matches!(NODE_STATUSES.get(status), Some(&("terminated" | "canceled")));
        if is_gone(status) {
            seen.nodes.remove(&key);
        } else {
            self.node_status.get_or_create(&labels(status)).set(1);
        }
    }
}

/// `text` after what `seed` stands for. Short texts at once are much faster than a hash that is fed.
fn hash(seed: u64, text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(text.as_bytes(), seed)
}

pub(super) fn by(source: &str) -> BySource {
    BySource { source: source.to_owned() }
}

/// Direction of the event's endpoint as its participant sees it, and a hash that tells the endpoint from all others. `None`
/// for endpoints that the platform makes for itself.
fn endpoint(event: &Event<'_>) -> Option<(usize, u64)> {
    let endpoint = event.field(FieldName::Endpoint).and_then(Field::text)?;
    let connection = event.connection_id.as_deref()?;
    if is_internal(connection) || endpoint.starts_with("RECORDER_") {
        return None;
    }
    let session = event.session.as_ref();
    let session = session.map(|session| session.unique_id.as_deref().unwrap_or(&session.id));
    let id = hash(hash(hash(0, session.unwrap_or_default()), connection), &endpoint);
    Some((usize::from(!fields::is_publisher(&endpoint, connection)), id))
}

fn reason(reason: Option<&str>) -> usize {
    place(REASONS, reason.unwrap_or("none"))
}

fn count(counters: &[Counter], place: usize) {
    if let Some(counter) = counters.get(place).or_else(|| counters.last()) {
        counter.inc();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a span in milliseconds")]
fn in_seconds(millis: i64) -> f64 {
    millis.max(0) as f64 / 1000.0
}

/// `direction` as a label.
pub(super) fn direction(place: usize) -> Word {
    word(DIRECTIONS, place)
}
