//! The names of fields that mean something to callscope. A field is found by number rather than by text: an event has some
//! fifteen of them, and each is asked for several times.

use std::fmt;
use std::sync::LazyLock;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// What a field of this name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// OpenVidu's: a text, a number, a truth value or a list of them.
    Scalar,
    /// OpenVidu's: an object.
    Object,
    /// It has a meaning of callscope's own, or is written from the event's ids; an event that brings one does not mean that.
    Own,
    /// Added by callscope or OpenVidu Pro to raw documents. One that is read again loses it: it is made anew.
    Added,
}

macro_rules! names {
    ($($name:ident $text:literal $class:ident;)*) => {
        /// A known field name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum FieldName {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        const TABLE: &[(FieldName, &str, Class)] =
            &[$((FieldName::$name, $text, Class::$class),)*];
    };
}

names! {
    AtTimestamp "@timestamp" Own;
    ReservedFieldNames "_field_names" Own;
    ReservedId "_id" Own;
    ReservedIgnored "_ignored" Own;
    ReservedIndex "_index" Own;
    ReservedRouting "_routing" Own;
    ReservedSource "_source" Own;
    ReservedType "_type" Own;
    ReservedVersion "_version" Own;
    Abnormal "abnormal" Added;
    AdaptativeBitrate "adaptativeBitrate" Scalar;
    AudioEnabled "audioEnabled" Scalar;
    BinName "binName" Scalar;
    Broadcasts "broadcasts" Scalar;
    BytesReceived "bytesReceived" Scalar;
    BytesReceivedDelta "bytesReceivedDelta" Added;
    BytesSent "bytesSent" Scalar;
    BytesSentDelta "bytesSentDelta" Added;
    Candidate "candidate" Added;
    CandidatePair "candidatePair" Object;
    ChannelId "channelId" Scalar;
    Client "client" Added;
    ClientData "clientData" Scalar;
    ClosedBy "closedBy" Own;
    ClusterId "cluster_id" Own;
    ClusterTwin "clusterId" Scalar;
    ComponentId "componentId" Scalar;
    Connection "connection" Scalar;
    ConnectionId "connectionId" Own;
    Connections "connections" Own;
    Content "content" Scalar;
    ContentOmitted "contentOmitted" Own;
    Cpu "cpu" Scalar;
    CustomLayout "customLayout" Scalar;
    CustomSessionId "customSessionId" Scalar;
    Data "data" Scalar;
    Description "description" Scalar;
    Duration "duration" Scalar;
    ElasticType "elastic_type" Own;
    Endpoint "endpoint" Scalar;
    EndpointUid "endpointUid" Added;
    EndTime "endTime" Scalar;
    EnvironmentId "environmentId" Scalar;
    ErrorCode "errorCode" Scalar;
    Event "event" Own;
    EventType "eventType" Scalar;
    FilterType "filterType" Scalar;
    FinalStatus "finalStatus" Own;
    FirCount "firCount" Scalar;
    FirDelta "firDelta" Added;
    FirstMedia "firstMedia" Added;
    FractionLost "fractionLost" Scalar;
    FrameHeight "frameHeight" Scalar;
    FrameRate "frameRate" Scalar;
    FrameWidth "frameWidth" Scalar;
    FramesDecoded "framesDecoded" Scalar;
    FramesDropped "framesDropped" Scalar;
    FramesEncoded "framesEncoded" Scalar;
    FramesReceived "framesReceived" Scalar;
    FramesSent "framesSent" Scalar;
    FreezeCount "freezeCount" Scalar;
    From "from" Scalar;
    Geo "geo" Added;
    GeoPoints "geoPoints" Scalar;
    GeoPointsDerived "geoPointsDerived" Added;
    GoneSince "goneSince" Own;
    HasAudio "hasAudio" Scalar;
    HasVideo "hasVideo" Scalar;
    Health "health" Own;
    Id "id" Scalar;
    Ip "ip" Scalar;
    Issuer "issuer" Scalar;
    Jitter "jitter" Scalar;
    JitterBufferDelay "jitterBufferDelay" Scalar;
    JitterMs "jitterMs" Added;
    JoinDelta "joinDelta" Added;
    Layout "layout" Scalar;
    Lifetime "lifetime" Own;
    Location "location" Scalar;
    LocationDerived "locationDerived" Added;
    Malformed "malformed" Added;
    MasterNodeId "master_node_id" Own;
    MediaMode "mediaMode" Scalar;
    MediaNodeId "media_node_id" Scalar;
    MediaNodes "mediaNodes" Object;
    MediaRole "mediaRole" Added;
    MediaType "mediaType" Scalar;
    Mem "mem" Object;
    MsSinceEndpointCreation "msSinceEndpointCreation" Scalar;
    NackCount "nackCount" Scalar;
    NackDelta "nackDelta" Added;
    Name "name" Scalar;
    Net "net" Object;
    NetTotal "net_total" Added;
    NetworkCache "networkCache" Scalar;
    NewState "newState" Scalar;
    NewStatus "newStatus" Scalar;
    NetworkQuality "networkQuality" Added;
    NewValue "newValue" Scalar;
    NodeId "nodeId" Scalar;
    NodeRole "nodeRole" Scalar;
    NotFlowingMs "notFlowingMs" Added;
    OldState "oldState" Scalar;
    OldStatus "oldStatus" Scalar;
    OldValue "oldValue" Scalar;
    OnlyPlayWithSubscribers "onlyPlayWithSubscribers" Scalar;
    Operation "operation" Scalar;
    OutputMode "outputMode" Scalar;
    PacketsLost "packetsLost" Scalar;
    PacketsLostDelta "packetsLostDelta" Added;
    PacketsReceived "packetsReceived" Scalar;
    PacketsReceivedDelta "packetsReceivedDelta" Added;
    PacketsSent "packetsSent" Scalar;
    PacketsSentDelta "packetsSentDelta" Added;
    PadName "padName" Scalar;
    ParticipantId "participantId" Own;
    Platform "platform" Scalar;
    PerSecond "perSecond" Object;
    PliCount "pliCount" Scalar;
    PliDelta "pliDelta" Added;
    Problems "problems" Own;
    ProcessingMs "processingMs" Added;
    Publishers "publishers" Own;
    QpSum "qpSum" Scalar;
    Reason "reason" Scalar;
    ReceivingFrom "receivingFrom" Scalar;
    RecordingIds "recordingIds" Scalar;
    RecordingLayout "recordingLayout" Scalar;
    RecordingMode "recordingMode" Scalar;
    Recordings "recordings" Own;
    Remb "remb" Scalar;
    Resolution "resolution" Scalar;
    RtspUri "rtspUri" Scalar;
    Rtt "rtt" Scalar;
    RttMs "rttMs" Added;
    SampleMs "sampleMs" Added;
    ServerData "serverData" Scalar;
    ServerTells "serverTells" Added;
    Session "session" Scalar;
    Side "side" Scalar;
    SessionIdSnake "session_id" Scalar;
    SessionId "sessionId" Own;
    SessionIds "sessionIds" Scalar;
    Size "size" Scalar;
    SliCount "sliCount" Scalar;
    StartGuessed "startGuessed" Own;
    StartTime "startTime" Scalar;
    State "state" Scalar;
    Status "status" Scalar;
    StreamedSeconds "streamedSeconds" Own;
    StreamId "streamId" Scalar;
    Subscribers "subscribers" Own;
    System "system" Object;
    TargetBitrate "targetBitrate" Scalar;
    Tenant "tenant" Added;
    TimeOfDisconnection "timeOfDisconnection" Scalar;
    Timestamp "timestamp" Own;
    To "to" Scalar;
    TotalFreezesDuration "totalFreezesDuration" Scalar;
    Truncated "truncated" Own;
    Type "type" Scalar;
    Unindexed "unindexed" Added;
    UniqueSessionId "uniqueSessionId" Own;
    UniqueSessionIdDerived "uniqueSessionIdDerived" Added;
    Uri "uri" Scalar;
    User "user" Scalar;
    UserIdSource "userIdSource" Own;
    Users "users" Own;
    VideoDimensions "videoDimensions" Scalar;
    VideoEnabled "videoEnabled" Scalar;
    VideoFramerate "videoFramerate" Scalar;
    VideoHeight "videoHeight" Added;
    VideoSource "videoSource" Scalar;
    VideoWidth "videoWidth" Added;
    WebrtcStats "webrtc_stats" Object;
}

static BY_TEXT: LazyLock<HashMap<&'static str, FieldName, FixedState>> =
    LazyLock::new(|| TABLE.iter().map(|(name, text, _)| (*text, *name)).collect());

impl FieldName {
    /// The known name that `text` is.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        BY_TEXT.get(text).copied()
    }

    /// As in events and documents.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.row().1
    }

    /// What a field of this name is.
    #[must_use]
    pub fn class(self) -> Class {
        self.row().2
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the table has a row for each name, in their order"
    )]
    fn row(self) -> &'static (Self, &'static str, Class) {
        &TABLE[self as usize]
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_by_its_text() {
        for (name, text, class) in TABLE {
            assert_eq!(
                (FieldName::of(text), name.text(), name.class()),
                (Some(*name), *text, *class)
            );
        }
        assert_eq!(FieldName::of("newIn2030"), None);
    }
}
