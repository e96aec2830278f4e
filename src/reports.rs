//! Reports that openvidu-browser posts about its streams, as records of `webrtcStats`.
//!
//! Everybody can post, so nothing is taken over as it comes: each figure is read by name, a number within what a network can do, and
//! what is no such number is left out. Texts are hashed, but for the browser's description of itself.
//!
//! Source of the two shapes: openvidu-browser's `WebRtcStats.ts` at v2.16.0 and v2.29.0. What is `inbound` there is received by the
//! browser, which is the other way round in `webrtcStats` of the media server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::DateTime;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::json::{Object, prefix};
use crate::sessions::browser::{Client, Reporter, Sender, Visitor, hash, hash_address};

mod running;

pub use running::Running;

/// Spans in seconds: more takes no network.
const SECONDS_MAX: f64 = 60.0;
/// A count that no call reaches.
const COUNT_MAX: f64 = 1e15;
/// Bits a second that no browser reaches.
const RATE_MAX: f64 = 1e11;
/// Wider and higher is no picture.
const PIXELS_MAX: f64 = 32_768.0;
/// As long as a browser's description of itself may be, in bytes.
const PLATFORM_BYTES_MAX: usize = 200;
/// Longest `et_type`, whose names have three parts and a number.
const METRIC_BYTES_MAX: usize = 64;

/// What is known of a report besides what it says.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// When it came, milliseconds since 1970.
    pub at: i64,
    /// From which address, unless addresses must not be kept.
    pub address: Option<&'a str>,
    /// The id of the reporter's connection, where the address of the request tells it.
    pub connection: Option<&'a str>,
    /// The session, where the address of the request tells it.
    pub session: Option<&'a str>,
}

/// Why a report is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It is none.
    #[error("the body is no report of openvidu-browser: {0}")]
    Odd(String),
    /// It tells nothing.
    #[error("the report has no figure that can be read")]
    Empty,
    /// It does not tell its session.
    #[error("the report names no session")]
    NoSession,
}

/// A report that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// `sessionId`.
    pub session_id: String,
    /// When it was made as the browser says, milliseconds since 1970.
    told_at: Option<i64>,
    /// Whether the stream is the reporter's own.
    sends: bool,
    sender: Sender,
    platform: String,
    /// By kind of media: figures by the names that documents have for them.
    media: BTreeMap<&'static str, BTreeMap<&'static str, f64>>,
    /// Whether it is of a platform up to 2.16: figures are what there was in each second, not counters, and sessions have no
    /// `uniqueSessionId`.
    is_old: bool,
}

/// As it has been since 2.17.
#[derive(Deserialize)]
struct Modern<'a> {
    #[serde(rename = "@timestamp", borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    participant_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    platform: Option<Cow<'a, str>>,
    #[serde(borrow)]
    platform_description: Option<Cow<'a, str>>,
    webrtc_stats: Stats,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stats {
    inbound: Option<Kinds>,
    outbound: Option<Kinds>,
    candidatepair: BTreeMap<String, Json>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kinds {
    audio: BTreeMap<String, Json>,
    video: BTreeMap<String, Json>,
}

impl Kinds {
    fn is_empty(&self) -> bool {
        self.audio.is_empty() && self.video.is_empty()
    }
}

/// As it was up to 2.16: one of each stream of packets, whose figures stand under the name that `et_type` has.
type Old<'a> = BTreeMap<String, &'a RawValue>;

/// The most that a figure can be.
#[derive(Debug, Clone, Copy)]
enum Most {
    /// Whenever it is told.
    Of(f64),
    /// It counts, and has grown by so much in a second.
    InASecond(f64),
}

/// Of what may be told of a kind of media: names there and here, and the most there can be.
const FIGURES: &[(&str, &str, Most)] = &[
    ("bytesReceived", "bytesReceived", Most::InASecond(1.25e8)),
    ("bytesSent", "bytesSent", Most::InASecond(1.25e8)),
    ("packetsReceived", "packetsReceived", Most::InASecond(2e4)),
    ("packetsSent", "packetsSent", Most::InASecond(2e4)),
    ("packetsLost", "packetsLost", Most::InASecond(2e4)),
    ("jitter", "jitter", Most::Of(SECONDS_MAX)),
    ("nackCount", "nackCount", Most::InASecond(2e4)),
    ("pliCount", "pliCount", Most::InASecond(1e3)),
    ("firCount", "firCount", Most::InASecond(1e3)),
    ("framesDecoded", "framesDecoded", Most::InASecond(1e3)),
    ("framesReceived", "framesReceived", Most::InASecond(1e3)),
    ("framesDropped", "framesDropped", Most::InASecond(1e3)),
    ("framesEncoded", "framesEncoded", Most::InASecond(1e3)),
    ("framesSent", "framesSent", Most::InASecond(1e3)),
    ("frameWidth", "frameWidth", Most::Of(PIXELS_MAX)),
    ("frameHeight", "frameHeight", Most::Of(PIXELS_MAX)),
    ("qpSum", "qpSum", Most::InASecond(1e6)),
    ("jitterBufferDelay", "jitterBufferDelay", Most::Of(COUNT_MAX)),
    ("freezeCount", "freezeCount", Most::InASecond(1e3)),
    ("totalFreezesDuration", "totalFreezesDuration", Most::InASecond(1.0)),
];
/// The same of the pair of candidates in use.
const PAIR: &[(&str, &str, Most)] = &[
    ("currentRoundTripTime", "rtt", Most::Of(SECONDS_MAX)),
    ("availableOutgoingBitrate", "targetBitrate", Most::Of(RATE_MAX)),
];
/// So much longer than a session somebody may have counted, in seconds: clocks are apart.
const LONGER_MAX: f64 = 120.0;
/// Of an old report these are what there was in each second.
const GROWING: &[&str] = &[
    "bytesReceived",
    "bytesSent",
    "packetsReceived",
    "packetsSent",
    "packetsLost",
    "nackCount",
    "framesDecoded",
    "framesEncoded",
];
/// Figures that are no whole numbers.
const FRACTIONS: &[&str] =
    &["jitter", "rtt", "targetBitrate", "jitterBufferDelay", "totalFreezesDuration"];

/// What is told of media that comes alone, and of media that goes.
const COMING: &[&str] = &[
    "bytesReceived",
    "packetsReceived",
    "packetsLost",
    "jitter",
    "framesDecoded",
    "framesReceived",
    "jitterBufferDelay",
    "freezeCount",
    "totalFreezesDuration",
];
const GOING: &[&str] = &["bytesSent", "packetsSent", "framesEncoded", "framesSent", "qpSum"];

/// Figures of media that goes or comes.
fn media(of: &BTreeMap<String, Json>, sends: bool) -> BTreeMap<&'static str, f64> {
    let mut media = figures(of, FIGURES);
    media.retain(|name, _| !(if sends { COMING } else { GOING }).contains(name));
    media
}

fn figures(
    of: &BTreeMap<String, Json>,
    known: &[(&str, &'static str, Most)],
) -> BTreeMap<&'static str, f64> {
    let read = |(theirs, ours, most): &(&str, &'static str, Most)| {
        let number = of.get(*theirs)?.as_f64()?;
        // Packets that came twice can make what was lost negative (RFC 3550).
        let number = if *ours == "packetsLost" { number.max(0.0) } else { number };
        let most = if let Most::Of(most) = most { *most } else { COUNT_MAX };
        (0.0..=most).contains(&number).then_some((*ours, number))
    };
    known.iter().filter_map(read).collect()
}

/// Reads a report.
///
/// # Errors
///
/// If it is none, names no session or tells nothing.
pub fn read(body: &[u8], arrival: Arrival<'_>) -> Result<Report, ReportError> {
    let odd = |error: serde_json::Error| ReportError::Odd(error.to_string());
    let members: Old<'_> = serde_json::from_slice(body).map_err(odd)?;
    let report = if members.contains_key("et_type") {
        old(&members, arrival)?
    } else {
        modern(&serde_json::from_slice(body).map_err(odd)?, arrival)?
    };
    if report.media.values().all(BTreeMap::is_empty) {
        return Err(ReportError::Empty);
    }
    Ok(report)
}

fn modern(report: &Modern<'_>, arrival: Arrival<'_>) -> Result<Report, ReportError> {
    let session = report.session_id.as_deref().or(arrival.session).filter(|id| !id.is_empty());
    let session_id = session.ok_or(ReportError::NoSession)?.to_owned();
    // Of its own stream a browser tells what it sends, of any other what it receives. 2.17 tells both ways, of which one is empty.
    let Stats { inbound, outbound, .. } = &report.webrtc_stats;
    let sent = outbound.as_ref().filter(|kinds| !kinds.is_empty() || inbound.is_none());
    let sends = sent.is_some();
    let kinds = sent.or(inbound.as_ref()).ok_or(ReportError::Empty)?;
    let mut media = BTreeMap::from([
        ("audio", self::media(&kinds.audio, sends)),
        ("video", self::media(&kinds.video, sends)),
    ]);
    media.retain(|_, figures| !figures.is_empty());
    // The way is that of all media together, so it is told once.
    let pair = figures(&report.webrtc_stats.candidatepair, PAIR);
    if let Some(last) = media.values_mut().next_back() {
        last.extend(pair);
    }
    let platform = report.platform_description.as_deref().or(report.platform.as_deref());
    Ok(Report {
        session_id,
        told_at: time(report.timestamp.as_deref()),
        sends,
        sender: Sender::Told(hash(report.participant_id.as_deref().unwrap_or_default())),
        platform: platform.unwrap_or_default().to_owned(),
        media,
        is_old: false,
    })
}

fn old(members: &Old<'_>, arrival: Arrival<'_>) -> Result<Report, ReportError> {
    let text = |name: &str| serde_json::from_str::<String>(members.get(name)?.get()).ok();
    let session = arrival.session.map(str::to_owned).or_else(|| text("exec"));
    let session_id = session.filter(|id| !id.is_empty()).ok_or(ReportError::NoSession)?;
    let metric = text("et_type").unwrap_or_default();
    let odd = || ReportError::Odd(format!("et_type is {:?}", prefix(&metric, METRIC_BYTES_MAX)));
    if metric.len() > METRIC_BYTES_MAX {
        return Err(odd());
    }
    let mut parts = metric.split('_');
    let (Some("webrtc"), Some(way), Some(kind), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(odd());
    };
    let sends = match way {
        "inbound" => false,
        "outbound" => true,
        _ => return Err(odd()),
    };
    let kind = match kind {
        "audio" => "audio",
        "video" => "video",
        _ => return Err(odd()),
    };
    let told = members.get(&metric);
    let told =
        told.and_then(|json| serde_json::from_str::<BTreeMap<String, Json>>(json.get()).ok());
    let mut told = told.ok_or(ReportError::Empty)?;
    // Milliseconds there. Chrome and Opera tell in its place, as a text, how long the buffer is that evens it out: that is none.
    if let Some(jitter) = told.get("jitter").and_then(Json::as_f64) {
        told.insert("jitter".to_owned(), (jitter / 1_000.0).into());
    }
    Ok(Report {
        session_id,
        told_at: time(text("@timestamp").as_deref()),
        sends,
        sender: Sender::Unknown(hash(&metric)),
        platform: String::new(),
        media: BTreeMap::from([(kind, media(&told, sends))]),
        is_old: true,
    })
}

fn time(told: Option<&str>) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(told?).ok()?.timestamp_millis())
}

impl Report {
    /// Who has made it, of a session that began at `start`, among those who are there.
    #[must_use]
    pub fn reporter<'a>(
        &self,
        start: i64,
        present: &[Visitor],
        arrival: Arrival<'a>,
    ) -> Reporter<'a> {
        let client = Client {
            connection: arrival.connection,
            address: arrival.address.map(hash_address),
            platform: Some(&*self.platform).filter(|text| !text.is_empty()).map(hash),
            visit: None,
        };
        let (sends, sender) = (self.sends, self.sender);
        Reporter { start, sends, client, sender, sender_visit: None }.among(present)
    }

    /// The records that it becomes, one of each kind of media. `running` corrects a clock that is far off.
    #[must_use]
    pub fn records(
        mut self,
        reporter: &Reporter<'_>,
        arrival: Arrival<'_>,
        running: &Running,
    ) -> Vec<String> {
        let (start, endpoint) = (reporter.start, reporter.name());
        let stream = hash(&format!("{}/{endpoint}", self.session_id));
        let at = running.time(stream, self.told_at, arrival.at);
        #[expect(clippy::cast_precision_loss, reason = "spans in milliseconds")]
        let age = at.saturating_sub(start).max(0) as f64 / 1_000.0 + LONGER_MAX;
        let is_rate = |name: &str| self.is_old && GROWING.contains(&name);
        for figures in self.media.values_mut() {
            figures.retain(|name, number| {
                let most = FIGURES.iter().find_map(|(_, ours, most)| match most {
                    Most::InASecond(most) if ours == name => Some(*most),
                    _ => None,
                });
                let span = if is_rate(name) { 1.0 } else { age };
                most.is_none_or(|most| *number <= most * span)
            });
        }
        let record = |(media, figures): (&&str, &BTreeMap<&str, f64>)| {
            let mut json = Object::with_capacity(640);
            json.text("elastic_type", "webrtcStats");
            json.text("side", "browser");
            json.text("sessionId", &self.session_id);
            if !self.is_old {
                json.text("uniqueSessionId", &format!("{}_{start}", self.session_id));
            }
            json.text("endpoint", &endpoint);
            json.text("mediaType", media);
            let platform = prefix(&self.platform, PLATFORM_BYTES_MAX);
            json.text_if("platform", Some(platform).filter(|text| !text.is_empty()));
            let mut rates = Object::with_capacity(200);
            for (name, number) in figures {
                if is_rate(name) {
                    rates.number(name, *number);
                } else if FRACTIONS.contains(name) {
                    json.number(name, *number);
                } else {
                    #[expect(
                        clippy::cast_possible_truncation,
                        reason = "no figure is above 10^15"
                    )]
                    json.integer(name, number.round() as i64);
                }
            }
            if self.is_old {
                json.json("perSecond", &rates.finish());
            }
            json.integer("timestamp", at);
            json.finish()
        };
        self.media.iter().filter(|(_, figures)| !figures.is_empty()).map(record).collect()
    }
}

#[cfg(test)]
mod tests;
