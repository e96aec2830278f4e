//! Events: the one shape into which every wire format is decoded.
//!
//! An [`Event`] borrows from the text it was decoded from. What the fold reads is typed ([`Body`]); everything else stays the
//! JSON text it was ([`Field`]) and passes through untouched. Names are those of OpenVidu 2.17 and later; where older
//! versions used another name for the same thing (`participantId`, `session`, a connection id called `connection`), the
//! decoder has resolved it.

use std::borrow::Cow;

pub mod candidate;
pub mod names;
mod rates;

pub use candidate::Pair;
pub use names::FieldName;
pub use rates::Rates;

/// One decoded event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// What kind of thing it tells.
    pub kind: Kind<'a>,
    /// Its `timestamp`, milliseconds since 1970, by the clock of whoever reported it.
    pub time: i64,
    /// The session it belongs to; cluster events have none.
    pub session: Option<SessionRef<'a>>,
    /// The connection it belongs to.
    pub connection_id: Option<Cow<'a, str>>,
    /// Final user id, carried by telemetry only.
    pub user: Option<Cow<'a, str>>,
    /// Cluster fields that the event brought itself; already indexed documents do.
    pub origin: Origin<'a>,
    /// Everything that is not in one of the fields above, in the order it came, nulls left out.
    pub fields: Vec<Field<'a>>,
    /// What the fold reads.
    pub body: Body<'a>,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A Call Detail Record with its event name, known or not.
    Cdr(Cow<'a, str>),
    /// An event of the media server about one endpoint.
    Kms,
    /// Periodic statistics of one endpoint and media type.
    WebrtcStats,
    /// A negotiation document: SDP or ICE candidate.
    WebrtcDebug,
    /// A change of a publisher's network quality, 0 (worst) to 5.
    NetworkQualityStats,
    /// Host statistics of OpenVidu up to 2.16.
    MonitoringStats,
    /// Statistics posted by openvidu-browser.
    BrowserStats,
    /// What the platform's REST API shows.
    Seen,
    /// An already indexed document of an `elastic_type` not known here.
    Other(Cow<'a, str>),
}

impl Kind<'_> {
    /// The `elastic_type` under which it is stored.
    #[must_use]
    pub fn elastic_type(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => known.known_type().unwrap_or_default(),
        }
    }

    /// The same, to be kept.
    #[must_use]
    pub fn owned_type(&self) -> Cow<'static, str> {
        self.known_type().map_or_else(|| Cow::Owned(self.elastic_type().to_owned()), Cow::Borrowed)
    }

    fn known_type(&self) -> Option<&'static str> {
        Some(match self {
            Self::Cdr(_) => "cdr",
            Self::Kms => "kms",
            Self::WebrtcStats => "webrtcStats",
            Self::WebrtcDebug => "webrtcDebug",
            Self::NetworkQualityStats => "networkQualityStats",
            Self::MonitoringStats => "monitoringStats",
            Self::BrowserStats => "browserStats",
            Self::Seen => "seen",
            Self::Other(_) => return None,
        })
    }
}

/// Which session an event names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRef<'a> {
    /// The application's name for it; may be used again after the session's end.
    pub id: Cow<'a, str>,
    /// `id_startMillis`, sent by OpenVidu 2.17 and later.
    pub unique_id: Option<Cow<'a, str>>,
}

impl SessionRef<'_> {
    /// The name under which its facts are kept: the one that is never used again, where there is one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.unique_id.as_deref().unwrap_or(&self.id)
    }
}

/// Cluster fields of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Which cluster.
    pub cluster_id: Option<Cow<'a, str>>,
    /// Which master node wrote it.
    pub master_node_id: Option<Cow<'a, str>>,
}

/// A member of the event that passes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name, unescaped.
    pub name: Cow<'a, str>,
    /// The same, if it means something here.
    pub known: Option<FieldName>,
    /// Its value: one valid JSON text without line breaks, never `null`.
    pub json: Cow<'a, str>,
}

/// What the fold reads of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// `sessionCreated`; its start is the event's time.
    SessionCreated,
    /// `sessionDestroyed`
    SessionDestroyed(End<'a>),
    /// `participantJoined`, `participantLeft`
    Participant(Participant<'a>),
    /// `webrtcConnectionCreated`, `webrtcConnectionDestroyed`
    Stream(Stream<'a>),
    /// `recordingStatusChanged`, `recordingStarted`, `recordingStopped`
    Recording(Recording<'a>),
    /// What is seen of an endpoint.
    Endpoint(Endpoint<'a>),
    /// New level of network quality, 0 to 5.
    NetworkQuality(i64),
    /// What the platform's REST API shows.
    Seen(Seen<'a>),
    /// `broadcastStarted`, `broadcastStopped`: no summary tells of it, but it is counted while it goes on.
    Broadcast(Option<End<'a>>),
    /// Nothing, or at most the user of the connection.
    Other,
}

/// What the platform's REST API shows. Its time is that at which the thing began, but for [`Presence`](Seen::Presence), so that
/// the same thing, shown at every poll, is told by the same event.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<'a> {
    /// A session.
    Session(SeenSession<'a>),
    /// A connection that has not left.
    Connection(Participant<'a>),
    /// A recording that has come to its end.
    Recording(Recording<'a>),
    /// Whether it shows at that time the session that began at `start`, milliseconds since 1970.
    Presence {
        /// Begin of the session.
        start: i64,
        /// Whether it is shown.
        is_shown: bool,
    },
}

/// What the REST API says of a session beyond its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSession<'a> {
    /// The id that the application chose.
    pub custom_session_id: Option<Cow<'a, str>>,
    /// `ROUTED` or `RELAYED`.
    pub media_mode: Option<Cow<'a, str>>,
    /// `MANUAL` or `ALWAYS`.
    pub recording_mode: Option<Cow<'a, str>>,
    /// Where its media is.
    pub media_node_id: Option<Cow<'a, str>>,
}

/// The end of something; its time is the event's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End<'a> {
    /// When it had begun, milliseconds since 1970.
    pub start: Option<i64>,
    /// Why it ended; absent if the platform gave no reason.
    pub reason: Option<Cow<'a, str>>,
}

/// A participant: one connection of somebody to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant<'a> {
    /// `None`: joined. `Some`: left.
    pub left: Option<End<'a>>,
    /// `City, Country`, `Country` or `unknown`.
    pub location: Option<Cow<'a, str>>,
    /// `latitude,longitude`, as OpenVidu Pro 2.9 wrote it and callscope does.
    pub geo_points: Option<Cow<'a, str>>,
    /// Address as text.
    pub ip: Option<Cow<'a, str>>,
    /// Browser and system as free text, or `IPCAM`.
    pub platform: Option<Cow<'a, str>>,
    /// What the client said about itself.
    pub client_data: Option<Cow<'a, str>>,
    /// What the application's server said about it.
    pub server_data: Option<Cow<'a, str>>,
}

/// A stream that a connection sends or receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream<'a> {
    /// `None`: created. `Some`: destroyed.
    pub destroyed: Option<End<'a>>,
    /// Whether the connection sends it (`OUTBOUND`).
    pub outbound: bool,
    /// The publisher's stream id, also for receivers. Empty up to 2.8.
    pub stream_id: Cow<'a, str>,
    /// Connection id of the sender, on `INBOUND` only.
    pub receiving_from: Option<Cow<'a, str>>,
}

/// A change of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording<'a> {
    /// Its id; may be used again once the recording is deleted.
    pub id: Cow<'a, str>,
    /// When it had begun, milliseconds since 1970.
    pub start: i64,
    /// What it became.
    pub status: RecordingStatus,
    /// Told as `recordingStarted` or `recordingStopped` (up to 2.20).
    pub old_name: bool,
    /// Why it stopped.
    pub reason: Option<Cow<'a, str>>,
    /// Bytes; 0 until processed.
    pub size: i64,
    /// Seconds; 0 until processed.
    pub duration: f64,
}

/// Status of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordingStatus {
    /// Under way.
    Started,
    /// At an end, being processed.
    Stopped,
    /// Final: cannot be used.
    Failed,
    /// Final: can be downloaded.
    Ready,
}

impl RecordingStatus {
    /// As in the event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Ready => "ready",
        }
    }
}

/// What is seen of one endpoint: one end of media in the media server, whose other end is a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// The media server's name for it.
    pub name: Cow<'a, str>,
    /// What is told.
    pub told: Told<'a>,
}

/// What is told of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<'a> {
    /// State of ICE or of a media flow, by the media server.
    State(MediaState<'a>),
    /// Which pair of candidates ICE has selected.
    Pair(Pair),
    /// What was measured.
    Stats(Stats),
}

/// One state of one part of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaState<'a> {
    /// What has this state.
    pub aspect: Aspect,
    /// `AUDIO`, `VIDEO`, `DATA`, the ICE component, or empty.
    pub part: Cow<'a, str>,
    /// The state's name.
    pub state: Cow<'a, str>,
    /// Milliseconds since the endpoint was made, by two clocks: may be negative.
    pub after: Option<i64>,
}

/// What was measured of one kind of media at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// By whom.
    pub side: Side,
    /// Of what.
    pub media: Media,
    /// Microseconds.
    pub jitter: Option<u64>,
    /// Microseconds to the other end and back.
    pub round_trip: Option<u64>,
    /// Packets since the endpoint was made.
    pub packets: Packets,
    /// Thousandths of packets in each second since the report before.
    pub rates: Packets,
}

/// Packets of media.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Packets {
    /// Those that did not arrive.
    pub lost: Option<u64>,
    /// Those that did.
    pub received: Option<u64>,
    /// Those that were sent.
    pub sent: Option<u64>,
}

/// Who has measured.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Side {
    /// The media server.
    Server,
    /// The browser.
    Browser,
}

/// A kind of media.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Media {
    Audio,
    Video,
}

/// What a [`MediaState`] is the state of.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Aspect {
    /// An ICE component: `GATHERING`, `CONNECTING`, `CONNECTED`, `READY`, `FAILED`, `DISCONNECTED`.
    Ice,
    /// Media that comes into the media server: `FLOWING`, `NOT_FLOWING`.
    FlowIn,
    /// Media that leaves it.
    FlowOut,
}

/// Connections that the platform makes for itself. They are nobody's.
#[must_use]
pub fn is_internal(connection_id: &str) -> bool {
    matches!(connection_id, "RECORDER" | "SPEECH_TO_TEXT")
}

/// Whether `text` is a point on earth: `latitude,longitude` in degrees, decimal.
#[must_use]
pub fn is_geo_point(text: &str) -> bool {
    let degrees = |text: &str, limit: f64| {
        let is_decimal = text.bytes().all(|byte| matches!(byte, b'-' | b'.' | b'0'..=b'9'));
        is_decimal && text.parse::<f64>().is_ok_and(|degrees| degrees.abs() <= limit)
    };
    text.split_once(',')
        .is_some_and(|(latitude, longitude)| degrees(latitude, 90.0) && degrees(longitude, 180.0))
}

impl<'a> Event<'a> {
    /// The value of a passing field.
    #[must_use]
    pub fn field(&self, name: FieldName) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.known == Some(name))
    }

    /// Event name of a Call Detail Record.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Cdr(name) => Some(name),
            _ => None,
        }
    }
}

impl<'a> Field<'a> {
    /// Its text, if it is a text.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match &self.json {
            Cow::Borrowed(json) => text_of(json),
            Cow::Owned(json) => text_of(json).map(|text| Cow::Owned(text.into_owned())),
        }
    }

    /// Its value, if it is an integer (or a number without fraction) that fits.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        integer_of(&self.json)
    }

    /// Its value, if it is a number that a double holds.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        number_of(&self.json)
    }
}

/// The text that a JSON string holds; `None` for any other JSON value.
#[must_use]
pub fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    if unescape(inner, |part| text.push_str(part)) {
        return Some(Cow::Owned(text));
    }
    serde_json::from_str::<String>(json).ok().map(Cow::Owned)
}

/// Gives the parts of the text that stands between the quotes of a JSON string. `false` if it holds an escape by number, which
/// takes a parser; what was given until then counts for nothing.
pub(crate) fn unescape<'a>(inner: &'a str, mut each: impl FnMut(&'a str)) -> bool {
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        let (plain, escape) = rest.split_at(at);
        let meant = match escape.as_bytes().get(1) {
            Some(b'"') => "\"",
            Some(b'\\') => "\\",
            Some(b'/') => "/",
            Some(b'n') => "\n",
            Some(b'r') => "\r",
            Some(b't') => "\t",
            Some(b'b') => "\u{8}",
            Some(b'f') => "\u{c}",
            _ => return false,
        };
        each(plain);
        each(meant);
        rest = escape.split_at(2).1;
    }
    each(rest);
    true
}

/// The integer that a JSON number without fraction holds, if it fits.
#[must_use]
pub fn integer_of(json: &str) -> Option<i64> {
    if let Ok(integer) = json.parse::<i64>() {
        return Some(integer);
    }
    let number = number_of(json)?;
    // Beyond 2^53 a double no longer tells neighbours apart.
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return Some(number as i64);
    }
    None
}

/// The finite number that a JSON number holds.
#[must_use]
pub fn number_of(json: &str) -> Option<f64> {
    let first = *json.as_bytes().first()?;
    if first != b'-' && !first.is_ascii_digit() {
        return None;
    }
    json.parse::<f64>().ok().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_read_as_a_parser_reads_them(text in any::<String>(), odd in "[a\\\\\"/nrtbfu0d8é]{0,12}") {
            let json = serde_json::to_string(&text).unwrap();
            let read = text_of(&json);
            prop_assert_eq!(read.as_deref(), Some(text.as_str()));
            let json = format!("\"{odd}\"");
            if let Ok(parsed) = serde_json::from_str::<String>(&json) {
                let read = text_of(&json);
                prop_assert_eq!(read.as_deref(), Some(parsed.as_str()));
            }
        }
    }
}
