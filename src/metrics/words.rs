//! Labels, and the closed sets out of which their values come; clusters, of which events tell, are told apart up to a bound.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::live::{CLUSTERS_MAX, OTHER_CLUSTER};

/// Event names and kinds that are told apart, frequent ones first; all others are `other`.
pub(super) const TYPES: &[&str] = &[
    "webrtcConnectionCreated",
    "webrtcConnectionDestroyed",
    "kms",
    "webrtcStats",
    "participantJoined",
    "participantLeft",
    "sessionCreated",
    "sessionDestroyed",
    "recordingStatusChanged",
    "networkQualityStats",
    "signalSent",
    "filterEventDispatched",
    "webrtcDebug",
    "recordingStarted",
    "recordingStopped",
    "mediaNodeStatusChanged",
    "autoscaling",
    "nodeCrashed",
    "nodeRecovered",
    "broadcastStarted",
    "broadcastStopped",
    "HANodeRegistered",
    "HANodeDeregistered",
    "monitoringStats",
    "browserStats",
    "seen",
];

/// End reasons that are told apart; all others are `other`, none is `none`.
pub(super) const REASONS: &[&str] = &[
    "disconnect",
    "lastParticipantLeft",
    "unsubscribe",
    "unpublish",
    "forceUnpublishByUser",
    "forceUnpublishByServer",
    "forceDisconnectByUser",
    "forceDisconnectByServer",
    "recordingStoppedByServer",
    "broadcastStoppedByServer",
    "sessionClosedByServer",
    "networkDisconnect",
    "mediaServerDisconnect",
    "mediaServerReconnect",
    "nodeCrashed",
    "openviduServerStopped",
    "automaticStop",
    "none",
];

pub(super) const DIRECTIONS: &[&str] = &["outbound", "inbound"];
pub(super) const STATUSES: &[&str] = &["started", "stopped", "failed", "ready"];
pub(super) const MODES: &[&str] = &["COMPOSED", "INDIVIDUAL", "COMPOSED_QUICK_START"];
pub(super) const ICE_STATES: &[&str] =
    &["GATHERING", "CONNECTING", "CONNECTED", "READY", "FAILED", "DISCONNECTED"];
pub(super) const MEDIA: &[&str] = &["audio", "video"];
pub(super) const LEVELS: &[&str] = &["0", "1", "2", "3", "4", "5"];
pub(super) const CANDIDATES: &[&str] = &["host", "srflx", "prflx", "relay"];
pub(super) const TRANSPORTS: &[&str] = &["udp", "tcp"];
pub(super) const NODE_STATUSES: &[&str] = &[
    "launching",
    "canceled",
    "failed",
    "running",
    "waiting-idle-to-terminate",
    "terminating",
    "terminated",
];
/// Why records are no events: the word, and how the text begins and goes on that the decoder, or whoever handed the record
/// over, gives. The first that fits counts; what a record can put into a text comes after what it cannot.
pub(super) const REJECTIONS: &[(&str, &str, &str)] = &[
    ("not_json", "not JSON", ""),
    ("not_an_object", "not a JSON object", ""),
    ("not_an_event", "no event", ""),
    ("no_time", "no usable `timestamp`", ""),
    ("too_many_fields", "more than", "fields"),
    ("too_deep", "objects and lists are nested", ""),
    ("missing_field", "`", "` without usable `"),
    ("bad_time", "`timestamp` ", " lies "),
    ("bad_start", "`uniqueSessionId` ends in", ""),
    ("long_id", "`", "` is longer than"),
    ("long_line", "a line longer than", ""),
    ("damaged", "the journal is damaged", ""),
];

/// Place of `text` in `known`; one past the end if it is not there.
pub(super) fn place(known: &[&str], text: &str) -> usize {
    known.iter().position(|known| *known == text).unwrap_or(known.len())
}

/// Value of a label, out of a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Word(pub(super) &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

/// The clusters that have been told of so far, as many as are told apart. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Clusters(Arc<Mutex<BTreeSet<String>>>);

impl Clusters {
    /// `cluster` as a label: itself if it is among the first [`CLUSTERS_MAX`], otherwise [`OTHER_CLUSTER`].
    pub(super) fn label(&self, cluster: &str) -> String {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told_apart = cluster.is_empty() || known.contains(cluster);
        if !is_told_apart {
            if known.len() >= CLUSTERS_MAX {
                return OTHER_CLUSTER.to_owned();
            }
            known.insert(cluster.to_owned());
        }
        cluster.to_owned()
    }
}

/// The word at `place`, or `other`.
pub(super) fn word(known: &[&'static str], place: usize) -> Word {
    Word(known.get(place).copied().unwrap_or("other"))
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $field: $kind),* })*
    };
}

labels! {
    /// Label `source`.
    BySource { source: String }
    /// Labels `source` and `cluster`.
    ByCluster { source: String, cluster: String }
    /// Labels `source`, `cluster` and `direction`.
    ByClusterDirection { source: String, cluster: String, direction: Word }
    /// Labels `source` and `le`.
    BySize { source: String, le: Word }
    /// Labels `source` and `type`.
    Received { source: String, r#type: Word }
    /// Labels `source` and `reason`.
    ByReason { source: String, reason: Word }
    /// Labels `source` and `direction`.
    ByDirection { source: String, direction: Word }
    /// Labels `source`, `direction` and `kind`.
    ByMedia { source: String, direction: Word, kind: Word }
    /// Labels `source`, `status` and `output_mode`.
    Recorded { source: String, status: Word, output_mode: Word }
    /// Labels `source` and `output_mode`.
    ByMode { source: String, output_mode: Word }
    /// Labels `source`, `state` and `direction`.
    Ice { source: String, state: Word, direction: Word }
    /// Labels `source`, `local_type`, `remote_type` and `transport`.
    Pair { source: String, local_type: Word, remote_type: Word, transport: Word }
    /// Labels `source` and `level`.
    ByLevel { source: String, level: Word }
    /// Labels `cluster`, `node` and `status`.
    Node { cluster: String, node: String, status: Word }
    /// Label `cluster`.
    InCluster { cluster: String }
    /// Label `outcome`.
    ByOutcome { outcome: Word }
    /// Label `elastic_type`.
    ByType { elastic_type: Word }
    /// Labels `elastic_type` and `kind`.
    Failed { elastic_type: Word, kind: Word }
    /// Labels `path` and `code`.
    Requested { path: Word, code: u16 }
    /// Label `level`.
    Logged { level: Word }
    /// Labels `version` and `revision`.
    Build { version: Word, revision: Word }
}
