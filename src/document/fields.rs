//! The fields of documents: what each holds, and in which unit. The index template maps them so, and panels are checked against
//! them. Members of objects are named with dots.

use std::borrow::Cow;

use self::Holds::{Date, Flag, Number, Point, Span, Text, Unsearched, Whole};

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A word or a name, searched as a whole.
    Text,
    /// Milliseconds since 1970.
    Date,
    /// A number.
    Number(Unit),
    /// A number without a fraction.
    Whole(Unit),
    /// True or false.
    Flag,
    /// Latitude and longitude.
    Point,
    /// From one time to another.
    Span,
    /// Anything, stored and not searched.
    Unsearched,
}

impl Holds {
    /// The unit, if it is a number.
    #[must_use]
    pub fn unit(self) -> Option<Unit> {
        match self {
            Self::Number(unit) | Self::Whole(unit) => Some(unit),
            Self::Text | Self::Date | Self::Flag | Self::Point | Self::Span | Self::Unsearched => {
                None
            }
        }
    }

    /// Whether it is a number.
    #[must_use]
    pub fn is_number(self) -> bool {
        self.unit().is_some()
    }
}

/// The unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// Of nothing in particular: a count.
    Number,
    /// Of 1.
    Share,
    /// Of 100.
    Percent,
    /// s
    Seconds,
    /// ms
    Milliseconds,
    /// B
    Bytes,
    /// bit/s
    BitsPerSecond,
}

/// All that are known, by name.
pub const FIELDS: &[(&str, Holds)] = &[
    ("elastic_type", Text),
    ("event", Text),
    ("sessionId", Text),
    ("uniqueSessionId", Text),
    ("customSessionId", Text),
    ("session", Text),
    ("connectionId", Text),
    ("participantId", Text),
    ("connection", Text),
    ("user", Text),
    ("userIdSource", Text),
    ("streamId", Text),
    ("receivingFrom", Text),
    ("endpoint", Text),
    ("endpointUid", Text),
    ("reason", Text),
    ("location", Text),
    ("platform", Text),
    ("clientData", Text),
    ("serverData", Text),
    ("ip", Text),
    ("videoSource", Text),
    ("videoDimensions", Text),
    ("rtspUri", Text),
    ("id", Text),
    ("name", Text),
    ("outputMode", Text),
    ("resolution", Text),
    ("recordingLayout", Text),
    ("customLayout", Text),
    ("status", Text),
    ("finalStatus", Text),
    ("cluster_id", Text),
    ("clusterId", Text),
    ("master_node_id", Text),
    ("media_node_id", Text),
    ("environmentId", Text),
    ("uri", Text),
    ("newStatus", Text),
    ("oldStatus", Text),
    ("nodeRole", Text),
    ("nodeId", Text),
    ("sessionIds", Text),
    ("recordingIds", Text),
    ("broadcasts", Text),
    ("type", Text),
    ("state", Text),
    ("oldState", Text),
    ("newState", Text),
    ("padName", Text),
    ("binName", Text),
    ("mediaType", Text),
    ("description", Text),
    ("issuer", Text),
    ("operation", Text),
    ("content", Text),
    ("data", Text),
    ("from", Text),
    ("to", Text),
    ("filterType", Text),
    ("eventType", Text),
    ("mediaMode", Text),
    ("recordingMode", Text),
    ("closedBy", Text),
    ("health", Text),
    ("problems", Text),
    ("tenant", Text),
    ("mediaRole", Text),
    ("side", Text),
    ("scope", Text),
    ("superseded", Text),
    ("layout", Text),
    ("timestamp", Date),
    ("startTime", Date),
    ("createdAt", Date),
    ("destroyedAt", Date),
    ("goneSince", Date),
    ("timeOfDisconnection", Date),
    ("endTime", Date),
    ("duration", Number(Unit::Seconds)),
    ("cpu", Number(Unit::Percent)),
    ("jitter", Number(Unit::Seconds)),
    ("jitterMs", Number(Unit::Milliseconds)),
    ("rtt", Number(Unit::Seconds)),
    ("rttMs", Number(Unit::Milliseconds)),
    ("fractionLost", Number(Unit::Share)),
    ("targetBitrate", Number(Unit::BitsPerSecond)),
    ("jitterBufferDelay", Number(Unit::Seconds)),
    ("totalFreezesDuration", Number(Unit::Seconds)),
    ("memPercentage", Number(Unit::Percent)),
    ("size", Whole(Unit::Bytes)),
    ("videoFramerate", Whole(Unit::Number)),
    ("videoWidth", Whole(Unit::Number)),
    ("videoHeight", Whole(Unit::Number)),
    ("frameRate", Whole(Unit::Number)),
    ("frameWidth", Whole(Unit::Number)),
    ("frameHeight", Whole(Unit::Number)),
    ("framesDecoded", Whole(Unit::Number)),
    ("framesDropped", Whole(Unit::Number)),
    ("framesEncoded", Whole(Unit::Number)),
    ("framesReceived", Whole(Unit::Number)),
    ("framesSent", Whole(Unit::Number)),
    ("freezeCount", Whole(Unit::Number)),
    ("qpSum", Whole(Unit::Number)),
    ("networkCache", Whole(Unit::Number)),
    ("componentId", Whole(Unit::Number)),
    ("channelId", Whole(Unit::Number)),
    ("errorCode", Whole(Unit::Number)),
    ("msSinceEndpointCreation", Whole(Unit::Milliseconds)),
    ("bytesReceived", Whole(Unit::Bytes)),
    ("bytesSent", Whole(Unit::Bytes)),
    ("packetsReceived", Whole(Unit::Number)),
    ("packetsSent", Whole(Unit::Number)),
    ("packetsLost", Whole(Unit::Number)),
    ("remb", Whole(Unit::BitsPerSecond)),
    ("firCount", Whole(Unit::Number)),
    ("pliCount", Whole(Unit::Number)),
    ("nackCount", Whole(Unit::Number)),
    ("sliCount", Whole(Unit::Number)),
    ("newValue", Whole(Unit::Number)),
    ("oldValue", Whole(Unit::Number)),
    ("networkQuality", Whole(Unit::Number)),
    ("packetsLostDelta", Whole(Unit::Number)),
    ("packetsReceivedDelta", Whole(Unit::Number)),
    ("packetsSentDelta", Whole(Unit::Number)),
    ("bytesReceivedDelta", Whole(Unit::Bytes)),
    ("bytesSentDelta", Whole(Unit::Bytes)),
    ("nackDelta", Whole(Unit::Number)),
    ("pliDelta", Whole(Unit::Number)),
    ("firDelta", Whole(Unit::Number)),
    ("sampleMs", Whole(Unit::Milliseconds)),
    ("serverTells", Flag),
    ("notFlowingMs", Whole(Unit::Milliseconds)),
    ("processingMs", Whole(Unit::Milliseconds)),
    ("joinDelta", Whole(Unit::Number)),
    ("streamedSeconds", Whole(Unit::Seconds)),
    ("num_sessions", Whole(Unit::Number)),
    ("num_connections", Whole(Unit::Number)),
    ("num_publishers", Whole(Unit::Number)),
    ("num_subscribers", Whole(Unit::Number)),
    ("num_streams", Whole(Unit::Number)),
    ("num_recordings", Whole(Unit::Number)),
    ("num_broadcasts", Whole(Unit::Number)),
    ("num_joined", Whole(Unit::Number)),
    ("num_left", Whole(Unit::Number)),
    ("dayOfWeek", Whole(Unit::Number)),
    ("hourOfDay", Whole(Unit::Number)),
    ("audioEnabled", Flag),
    ("videoEnabled", Flag),
    ("hasAudio", Flag),
    ("hasVideo", Flag),
    ("adaptativeBitrate", Flag),
    ("onlyPlayWithSubscribers", Flag),
    ("abnormal", Flag),
    ("firstMedia", Flag),
    ("truncated", Flag),
    ("contentOmitted", Flag),
    ("startGuessed", Flag),
    ("uniqueSessionIdDerived", Flag),
    ("locationDerived", Flag),
    ("geoPointsDerived", Flag),
    ("net", Unsearched),
    ("malformed", Unsearched),
    ("unindexed", Unsearched),
    ("webrtc_stats", Unsearched),
    ("candidatePair", Unsearched),
    ("perSecond", Unsearched),
    ("users.numberOfElements", Whole(Unit::Number)),
    ("users.content", Unsearched),
    ("recordings.numberOfElements", Whole(Unit::Number)),
    ("recordings.content", Unsearched),
    ("connections.numberOfElements", Whole(Unit::Number)),
    ("connections.content", Unsearched),
    ("publishers.numberOfElements", Whole(Unit::Number)),
    ("publishers.content", Unsearched),
    ("subscribers.numberOfElements", Whole(Unit::Number)),
    ("subscribers.content", Unsearched),
    ("geo.continent", Text),
    ("geo.country", Text),
    ("geo.countryCode", Text),
    ("geo.region", Text),
    ("geo.city", Text),
    ("geo.asOrganization", Text),
    ("geo.asn", Whole(Unit::Number)),
    ("geoPoints", Point),
    ("client.browser", Text),
    ("client.version", Text),
    ("client.os", Text),
    ("client.device", Text),
    ("candidate.localType", Text),
    ("candidate.remoteType", Text),
    ("candidate.transport", Text),
    ("quality.lossPercent", Number(Unit::Percent)),
    ("quality.jitterMs", Number(Unit::Milliseconds)),
    ("quality.jitterMsP95", Number(Unit::Milliseconds)),
    ("quality.rttMs", Number(Unit::Milliseconds)),
    ("quality.rttMsP95", Number(Unit::Milliseconds)),
    ("quality.firstMediaMs", Number(Unit::Milliseconds)),
    ("quality.firstMediaMsP95", Number(Unit::Milliseconds)),
    ("quality.ice", Text),
    ("quality.localType", Text),
    ("quality.remoteType", Text),
    ("quality.transport", Text),
    ("quality.noMediaPercent", Number(Unit::Percent)),
    ("quality.relayedPercent", Number(Unit::Percent)),
    ("quality.endpoints", Whole(Unit::Number)),
    ("quality.iceFailed", Whole(Unit::Number)),
    ("problemDetails.code", Text),
    ("problemDetails.text", Text),
    ("problemDetails.at", Date),
    ("problemDetails.connectionId", Text),
    ("problemDetails.streamId", Text),
    ("problemDetails.value", Number(Unit::Number)),
    ("lifetime", Span),
    ("mem.used", Number(Unit::Number)),
    ("mem.percentage", Number(Unit::Percent)),
    ("net_total.rxBytes", Whole(Unit::Bytes)),
    ("net_total.txBytes", Whole(Unit::Bytes)),
    ("mediaNodes.launch.total", Number(Unit::Number)),
    ("mediaNodes.launch.newNodes", Unsearched),
    ("mediaNodes.launch.waitingIdleToTerminateNodes", Unsearched),
    ("mediaNodes.launch.canceledNodes", Unsearched),
    ("mediaNodes.terminate.total", Number(Unit::Number)),
    ("mediaNodes.terminate.runningNodes", Unsearched),
    ("mediaNodes.terminate.launchingNodes", Unsearched),
    ("system.config.maxNodes", Number(Unit::Number)),
    ("system.config.minNodes", Number(Unit::Number)),
    ("system.config.maxAvgLoad", Number(Unit::Number)),
    ("system.config.minAvgLoad", Number(Unit::Number)),
    ("system.status.numNodes", Number(Unit::Number)),
    ("system.status.totalLoad", Number(Unit::Number)),
    ("system.status.avgLoad", Number(Unit::Number)),
    ("system.status.runningNodes", Unsearched),
    ("system.status.launchingNodes", Unsearched),
    ("system.status.waitingIdleToTerminateNodes", Unsearched),
    ("system.status.canceledNodes", Unsearched),
];

/// What the field called `name` holds; `None`: nobody writes one of that name.
#[must_use]
pub fn find(name: &str) -> Option<Holds> {
    FIELDS.iter().find(|(known, _)| *known == name).map(|(_, holds)| *holds)
}

/// Fields of which some tell the same in small letters and others in capitals: statistics are of `video`, and what the media
/// server tells of media is of `VIDEO`. Indices know them in small letters; documents keep them as they were told.
pub const FOLDED: &[&str] = &["mediaType"];

/// How indices know what a document tells in the field called `name`.
#[must_use]
pub fn folded<'v>(name: &str, value: &'v str) -> Cow<'v, str> {
    if FOLDED.contains(&name) { value.to_lowercase().into() } else { value.into() }
}

/// By what name servers compare and divide a field: texts are taken whole, from `NAME.keyword`, which is there in indices of
/// callscope's template and in those that a server has mapped by itself.
#[must_use]
pub fn exact(name: &str) -> String {
    match find(name) {
        Some(Text) => format!("{name}.keyword"),
        _ => name.to_owned(),
    }
}
