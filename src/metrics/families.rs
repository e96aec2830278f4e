//! The metrics that have labels, and how those of one source are bound.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::source::{Sum, direction};
use super::words::{
    ByCluster, ByClusterDirection, ByDirection, ByLevel, ByMedia, ByMode, ByReason, BySize,
    BySource, Clusters, DIRECTIONS, ICE_STATES, Ice, InCluster, LEVELS, MEDIA, MODES, Node, Pair,
    REASONS, REJECTIONS, Received, Recorded, STATUSES, TYPES, Word, word,
};

/// A histogram for each value of its labels.
pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn seconds_short() -> Histogram {
    Histogram::new(exponential_buckets(0.002, 2.0, 12))
}

fn seconds_setup() -> Histogram {
    Histogram::new(exponential_buckets(0.05, 2.0, 10))
}

fn seconds_lag() -> Histogram {
    Histogram::new(exponential_buckets(0.1, 4.0, 12))
}

fn seconds_session() -> Histogram {
    Histogram::new(exponential_buckets(15.0, 2.0, 12))
}

/// Every metric that is told by source.
#[derive(Debug)]
pub(super) struct Families {
    /// What the label `cluster` may be, in all of them.
    pub(super) clusters: Clusters,
    pub(super) sessions_active: Family<ByCluster, Gauge>,
    pub(super) connections_active: Family<ByCluster, Gauge>,
    pub(super) streams_active: Family<ByClusterDirection, Gauge>,
    pub(super) recordings_active: Family<ByCluster, Gauge>,
    pub(super) participants_bucket: Family<BySize, Gauge>,
    pub(super) participants_count: Family<BySource, Gauge>,
    pub(super) participants_sum: Family<BySource, Gauge>,
    pub(super) joins: Family<BySource, Counter>,
    pub(super) leaves: Family<ByReason, Counter>,
    pub(super) sessions_closed: Family<ByReason, Counter>,
    pub(super) session_duration: Histograms<BySource>,
    pub(super) streamed: Family<ByDirection, Sum>,
    pub(super) recordings: Family<Recorded, Counter>,
    pub(super) recording_bytes: Family<ByMode, Counter>,
    pub(super) recording_seconds: Family<ByMode, Sum>,
    pub(super) recordings_stuck: Family<BySource, Gauge>,
    pub(super) ice: Family<Ice, Counter>,
    pub(super) pairs: Family<Pair, Counter>,
    pub(super) gathering: Histograms<ByDirection>,
    pub(super) pair_selected: Histograms<ByDirection>,
    pub(super) first_media: Histograms<ByDirection>,
    pub(super) quality: Family<ByLevel, Counter>,
    pub(super) packets: Family<ByMedia, Counter>,
    pub(super) packets_lost: Family<ByMedia, Counter>,
    pub(super) jitter: Histograms<ByDirection>,
    pub(super) rtt: Histograms<ByDirection>,
    pub(super) node_status: Family<Node, Gauge>,
    pub(super) node_crashes: Family<InCluster, Counter>,
    pub(super) received: Family<Received, Counter>,
    pub(super) rejected: Family<ByReason, Counter>,
    pub(super) deduplicated: Family<BySource, Counter>,
    pub(super) lag: Histograms<BySource>,
    pub(super) last_event: Family<BySource, Gauge>,
}

impl Families {
    pub(super) fn new() -> Self {
        Self {
            clusters: Clusters::default(),
            sessions_active: Family::default(),
            connections_active: Family::default(),
            streams_active: Family::default(),
            recordings_active: Family::default(),
            participants_bucket: Family::default(),
            participants_count: Family::default(),
            participants_sum: Family::default(),
            joins: Family::default(),
            leaves: Family::default(),
            sessions_closed: Family::default(),
            session_duration: Family::new_with_constructor(seconds_session),
            streamed: Family::default(),
            recordings: Family::default(),
            recording_bytes: Family::default(),
            recording_seconds: Family::default(),
            recordings_stuck: Family::default(),
            ice: Family::default(),
            pairs: Family::default(),
            gathering: Family::new_with_constructor(seconds_setup),
            pair_selected: Family::new_with_constructor(seconds_setup),
            first_media: Family::new_with_constructor(seconds_setup),
            quality: Family::default(),
            packets: Family::default(),
            packets_lost: Family::default(),
            jitter: Family::new_with_constructor(seconds_short),
            rtt: Family::new_with_constructor(seconds_short),
            node_status: Family::default(),
            node_crashes: Family::default(),
            received: Family::default(),
            rejected: Family::default(),
            deduplicated: Family::default(),
            lag: Family::new_with_constructor(seconds_lag),
            last_event: Family::default(),
        }
    }

    pub(super) fn by_type(&self, source: &str) -> Vec<Counter> {
        each(TYPES, |r#type| {
            self.received.get_or_create_owned(&Received { source: source.to_owned(), r#type })
        })
    }

    pub(super) fn by_rejection(&self, source: &str) -> Vec<Counter> {
        let words: Vec<&'static str> = REJECTIONS.iter().map(|(word, ..)| *word).collect();
        each(&words, |reason| {
            self.rejected.get_or_create_owned(&ByReason { source: source.to_owned(), reason })
        })
    }

    pub(super) fn by_reason(
        &self,
        family: &Family<ByReason, Counter>,
        source: &str,
    ) -> Vec<Counter> {
        each(REASONS, |reason| {
            family.get_or_create_owned(&ByReason { source: source.to_owned(), reason })
        })
    }

    pub(super) fn by_direction(&self, family: &Family<ByDirection, Sum>, source: &str) -> Vec<Sum> {
        directions(|direction| {
            family.get_or_create_owned(&ByDirection { source: source.to_owned(), direction })
        })
    }

    pub(super) fn histograms(
        &self,
        family: &Histograms<ByDirection>,
        source: &str,
    ) -> Vec<Histogram> {
        directions(|direction| {
            family.get_or_create_owned(&ByDirection { source: source.to_owned(), direction })
        })
    }

    pub(super) fn by_status_and_mode(&self, source: &str) -> Vec<Vec<Counter>> {
        STATUSES
            .iter()
            .map(|status| {
                each(MODES, |output_mode| {
                    let (source, status) = (source.to_owned(), Word(status));
                    self.recordings.get_or_create_owned(&Recorded { source, status, output_mode })
                })
            })
            .collect()
    }

    pub(super) fn by_mode<M: Clone + Default>(
        &self,
        family: &Family<ByMode, M>,
        source: &str,
    ) -> Vec<M> {
        each(MODES, |output_mode| {
            family.get_or_create_owned(&ByMode { source: source.to_owned(), output_mode })
        })
    }

    pub(super) fn by_ice_state(&self, source: &str) -> Vec<Vec<Counter>> {
        each(ICE_STATES, |state| {
            directions(|direction| {
                let source = source.to_owned();
                self.ice.get_or_create_owned(&Ice { source, state, direction })
            })
        })
    }

    pub(super) fn by_level(&self, source: &str) -> Vec<Counter> {
        each(LEVELS, |level| {
            self.quality.get_or_create_owned(&ByLevel { source: source.to_owned(), level })
        })
    }

    pub(super) fn by_media(
        &self,
        family: &Family<ByMedia, Counter>,
        source: &str,
    ) -> Vec<Vec<Counter>> {
        directions(|direction| {
            each(MEDIA, |kind| {
                let source = source.to_owned();
                family.get_or_create_owned(&ByMedia { source, direction, kind })
            })
        })
    }
}

/// One for each known word, then one for `other`.
fn each<T>(known: &[&'static str], bind: impl Fn(Word) -> T) -> Vec<T> {
    (0..=known.len()).map(|place| bind(word(known, place))).collect()
}

fn directions<T>(bind: impl Fn(Word) -> T) -> Vec<T> {
    (0..DIRECTIONS.len()).map(|place| bind(direction(place))).collect()
}
