//! What a community installation tells of its media besides its webhook: what its REST API shows, and what the browsers of its
//! people report. Both are made of a session that was played and of what its media server saw.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::Emitted;

/// What the REST API never shows of an event of the media server, because it shows it below what it is of.
const ABOVE: [&str; 4] = ["sessionId", "connectionId", "endpoint", "user"];
/// What a browser finds it can send, in bits a second.
const SENDABLE: i64 = 1_200_000;

/// One session, from its beginning to its end.
#[derive(Debug)]
pub struct Played {
    id: String,
    start: i64,
    end: i64,
    /// Who joins, in the order of time, each with when it leaves.
    people: Vec<(Json, i64)>,
    /// What the media server tells, by connection and endpoint.
    endpoints: BTreeMap<(String, String), Vec<Json>>,
    /// Statistics.
    measured: Vec<Json>,
}

/// A report, as a browser posts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// When, milliseconds since 1970.
    pub at: i64,
    /// Of whose browser.
    pub connection_id: String,
    /// From where.
    pub address: String,
    /// The body.
    pub json: String,
}

fn text<'j>(json: &'j Json, name: &str) -> &'j str {
    json.get(name).and_then(Json::as_str).unwrap_or_default()
}

fn integer(json: &Json, name: &str) -> i64 {
    json.get(name).and_then(Json::as_i64).unwrap_or_default()
}

impl Played {
    /// Of the events and the telemetry of one session; `None`: nobody came.
    #[must_use]
    pub fn of(session: &[Emitted], telemetry: &[Emitted]) -> Option<Self> {
        let read = |events: &[Emitted]| -> Vec<Json> {
            events.iter().filter_map(|event| serde_json::from_str(&event.json).ok()).collect()
        };
        let (events, telemetry) = (read(session), read(telemetry));
        let named =
            |name: &'static str| events.iter().filter(move |json| text(json, "event") == name);
        let created = named("sessionCreated").next()?;
        let destroyed = named("sessionDestroyed").next()?;
        let left: BTreeMap<&str, i64> = named("participantLeft")
            .map(|json| (text(json, "connectionId"), integer(json, "timestamp")))
            .collect();
        let end = integer(destroyed, "timestamp");
        let people = named("participantJoined").map(|json| {
            (json.clone(), left.get(text(json, "connectionId")).copied().unwrap_or(end))
        });
        let mut played = Self {
            id: text(created, "sessionId").to_owned(),
            start: integer(created, "timestamp"),
            end,
            people: people.collect(),
            endpoints: BTreeMap::new(),
            measured: Vec::new(),
        };
        for json in telemetry {
            if json.get("type").is_some() {
                let key =
                    (text(&json, "connectionId").to_owned(), text(&json, "endpoint").to_owned());
                played.endpoints.entry(key).or_default().push(json);
            } else if json.get("mediaType").is_some() {
                played.measured.push(json);
            }
        }
        Some(played)
    }

    /// When it has ended, milliseconds since 1970.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.end
    }

    /// What `GET /openvidu/api/sessions?webRtcStats=true` shows of it at `at`; `None`: it is not there.
    #[must_use]
    pub fn shown(&self, at: i64) -> Option<Json> {
        if !(self.start..self.end).contains(&at) {
            return None;
        }
        let there = self
            .people
            .iter()
            .filter(|(joined, leaves)| integer(joined, "timestamp") <= at && at < *leaves);
        let connections: Vec<Json> = there.map(|(joined, _)| self.connection(joined, at)).collect();
        Some(json!({
            "id": self.id, "object": "session", "sessionId": self.id, "createdAt": self.start, "mediaMode": "ROUTED",
            "recordingMode": "MANUAL", "customSessionId": self.id, "mediaNode": { "id": "media_i-0a1b2c3d4e5f" },
            "connections": { "numberOfElements": connections.len(), "content": connections },
        }))
    }

    fn connection(&self, joined: &Json, at: i64) -> Json {
        let id = text(joined, "connectionId");
        let own = self.endpoints.iter().filter(|((connection, _), _)| connection == id);
        let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
        for ((_, name), events) in own {
            let told: Vec<&Json> =
                events.iter().filter(|event| integer(event, "timestamp") <= at).collect();
            let Some(first) = told.first() else { continue };
            let events: Vec<Json> = told.iter().map(|event| self.stripped(event)).collect();
            let is_sent = !name.starts_with(id);
            let shown = json!({
                "createdAt": integer(first, "timestamp") - integer(first, "msSinceEndpointCreation"), "webrtcEndpointName": name,
                "streamId": name.trim_start_matches(&format!("{id}_")), "events": events,
                "remoteSdp": format!("v=0\r\na=setup:{}\r\n", if is_sent { "actpass" } else { "active" }),
                "localSdp": format!("v=0\r\na=setup:{}\r\n", if is_sent { "active" } else { "actpass" }),
            });
            if is_sent { publishers.push(shown) } else { subscribers.push(shown) }
        }
        let at = integer(joined, "timestamp");
        json!({
            "id": id, "object": "connection", "connectionId": id, "status": "active", "sessionId": self.id, "createdAt": at, "activeAt": at,
            "type": "WEBRTC", "location": text(joined, "location"), "ip": text(joined, "ip"), "platform": text(joined, "platform"),
            "token": "wss://demo?token=tok_NotToBeKept", "clientData": text(joined, "clientData"), "serverData": text(joined, "serverData"),
            "publishers": publishers, "subscribers": subscribers,
        })
    }

    fn stripped(&self, event: &Json) -> Json {
        let members = event.as_object().into_iter().flatten();
        let kept = members.filter(|(name, _)| !ABOVE.contains(&name.as_str()));
        Json::Object(kept.map(|(name, json)| (name.clone(), json.clone())).collect::<Map<_, _>>())
    }

    /// What the browsers of its people report, in the order of time.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        let people: BTreeMap<&str, &Json> =
            self.people.iter().map(|(joined, _)| (text(joined, "connectionId"), joined)).collect();
        let sent: BTreeSet<(&str, &str)> = self
            .endpoints
            .keys()
            .filter(|(connection, name)| !name.starts_with(connection.as_str()))
            .map(|(connection, name)| (name.as_str(), connection.as_str()))
            .collect();
        let mut reports = Vec::new();
        for measured in &self.measured {
            let (id, endpoint) = (text(measured, "connectionId"), text(measured, "endpoint"));
            let Some(own) = people.get(id) else { continue };
            let stream = endpoint.strip_prefix(id).map(|rest| rest.trim_start_matches('_'));
            let sender = match stream {
                None => Some(*own),
                Some(stream) => {
                    let found = sent.iter().find(|(name, _)| *name == stream);
                    found.and_then(|(_, connection)| people.get(connection).copied())
                }
            };
            let Some(sender) = sender else { continue };
            let stats = if stream.is_none() { outbound(measured) } else { inbound(measured) };
            let at = integer(measured, "timestamp");
            let time = chrono::DateTime::from_timestamp_millis(at).unwrap_or_default();
            let data = [text(sender, "clientData"), text(sender, "serverData")];
            let data: Vec<&str> = data.into_iter().filter(|data| !data.is_empty()).collect();
            let body = json!({
                "@timestamp": time.to_rfc3339(), "participant_id": data.join("%/%"), "session_id": self.id,
                "platform": "browser", "platform_description": text(own, "platform"), "stream": "webRTC", "webrtc_stats": stats,
            });
            let (connection_id, address) = (id.to_owned(), text(own, "ip").to_owned());
            reports.push(Report { at, connection_id, address, json: body.to_string() });
        }
        reports.sort_by_key(|report| report.at);
        reports
    }
}

/// What the server got was sent before.
fn outbound(received: &Json) -> Json {
    let packets = integer(received, "packetsReceived") + integer(received, "packetsLost");
    let told = json!({
        "bytesSent": integer(received, "bytesReceived"), "packetsSent": packets, "nackCount": integer(received, "nackCount"),
        "pliCount": integer(received, "pliCount"), "firCount": 0, "frameWidth": 640, "frameHeight": 480,
    });
    let nothing = json!({});
    let (audio, video) =
        if text(received, "mediaType") == "audio" { (told, nothing) } else { (nothing, told) };
    let jitter = received.get("jitter").and_then(Json::as_f64).unwrap_or_default();
    json!({
        "outbound": { "audio": audio, "video": video },
        "candidatepair": { "currentRoundTripTime": 0.03 + jitter, "availableOutgoingBitrate": SENDABLE },
    })
}

/// What the server sent comes, but for what is lost on a long way.
fn inbound(sent: &Json) -> Json {
    let packets = integer(sent, "packetsSent");
    let trip = sent.get("rtt").and_then(Json::as_f64).unwrap_or_default();
    let percent = if trip > 0.3 { 8 } else { i64::from(trip > 0.12) * 2 };
    let lost = packets * percent / 100;
    json!({ "inbound": { "audio": {}, "video": {
        "bytesReceived": integer(sent, "bytesSent") * (100 - percent) / 100, "packetsReceived": packets - lost, "packetsLost": lost,
        "jitter": trip / 10.0, "framesDecoded": packets / 4, "nackCount": lost, "pliCount": lost / 50, "firCount": 0,
        "frameWidth": 640, "frameHeight": 480,
    } } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::{self, Arrival, Running};
    use crate::simulate::{session, telemetry};

    const START: i64 = 1_700_000_000_000;

    fn played() -> Played {
        let mut all = (0..20).filter_map(|seed| {
            Played::of(&session(seed, START, 1).0, &telemetry(seed, START, 1, 30_000))
        });
        all.find(|played| played.people.len() > 3 && played.measured.len() > 10).unwrap()
    }

    #[test]
    fn it_is_shown_while_it_is_there_and_nobody_but_who_is_there() {
        let played = played();
        assert_eq!(played.shown(START - 1), None);
        assert_eq!(played.shown(played.end()), None);
        let middle = START + (played.end() - START) / 2;
        let shown = played.shown(middle).unwrap();
        let connections = shown["connections"]["content"].as_array().unwrap();
        assert!(!connections.is_empty());
        let endpoints = connections.iter().flat_map(|connection| {
            let of = |name: &str| connection[name].as_array().unwrap().clone();
            [of("publishers"), of("subscribers")].concat()
        });
        let events: Vec<Json> =
            endpoints.flat_map(|endpoint| endpoint["events"].as_array().unwrap().clone()).collect();
        assert!(!events.is_empty());
        assert!(
            events.iter().all(|event| integer(event, "timestamp") <= middle
                && event.get("connectionId").is_none())
        );
    }

    #[test]
    fn reports_are_those_of_openvidu_browser() {
        let reports = played().reports();
        assert!(reports.len() > 10);
        for told in reports {
            let arrival = Arrival {
                at: told.at,
                address: None,
                connection: Some(&told.connection_id),
                session: None,
            };
            let report = reports::read(told.json.as_bytes(), arrival).unwrap();
            let reporter = report.reporter(START, &[], arrival);
            let records = report.records(&reporter, arrival, &Running::default());
            let timestamp = format!("\"timestamp\":{}}}", told.at);
            assert!(records.iter().all(|record| record.ends_with(&timestamp)), "{records:?}");
            assert!(!records.is_empty());
        }
    }
}
