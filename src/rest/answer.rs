//! What the REST API shows of one session, as records: the shapes of OpenVidu 2.12 to 2.32.
//!
//! What is not named here is not read, above all `token` of a connection, which is a secret. Of SDP the secrets are left out.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::event::is_internal;
use crate::json::Object;
use crate::live::AwaitedRecording;

/// How a version names sessions in its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// By `uniqueSessionId` (2.17 and later).
    Unique,
    /// By `sessionId` alone.
    Plain,
}

/// A session as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session<'a> {
    /// Under its names of all versions.
    #[serde(borrow)]
    session_id: Cow<'a, str>,
    created_at: i64,
    #[serde(borrow, default)]
    custom_session_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    media_mode: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    recording_mode: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    media_node: Option<MediaNode<'a>>,
    #[serde(borrow, default)]
    media_node_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    connections: Option<List<'a>>,
}

#[derive(Debug, Deserialize)]
struct MediaNode<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct List<'a> {
    /// One that is odd does not spoil the others.
    #[serde(borrow, default, deserialize_with = "or_nothing")]
    content: Vec<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connection<'a> {
    #[serde(borrow)]
    connection_id: Cow<'a, str>,
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    created_at: i64,
    /// 2.16 and later: when it joined. Before, that is `createdAt`.
    #[serde(default)]
    active_at: Option<i64>,
    #[serde(borrow, default)]
    location: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ip: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    platform: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    client_data: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    server_data: Option<Cow<'a, str>>,
    /// null of one that was prepared and has not joined (2.16 and later).
    #[serde(borrow, default, deserialize_with = "or_nothing")]
    publishers: Vec<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "or_nothing")]
    subscribers: Vec<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    created_at: i64,
    #[serde(borrow, default)]
    webrtc_endpoint_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    local_sdp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    remote_sdp: Option<Cow<'a, str>>,
    /// Of the browser; `receivedCandidates` up to 2.17.
    #[serde(borrow, default, alias = "receivedCandidates", deserialize_with = "or_nothing")]
    client_ice_candidates: Vec<&'a RawValue>,
    /// Of the media server; `gatheredCandidates` up to 2.17.
    #[serde(borrow, default, alias = "gatheredCandidates", deserialize_with = "or_nothing")]
    server_ice_candidates: Vec<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "or_nothing")]
    events: Vec<&'a RawValue>,
}

/// No recording is longer, in seconds.
const LENGTH_MAX: f64 = 2_678_400.0;

/// A recording as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recording<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    created_at: i64,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(default, deserialize_with = "or_nothing")]
    size: f64,
    #[serde(default, deserialize_with = "or_nothing")]
    duration: f64,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    output_mode: Option<Cow<'a, str>>,
    has_audio: Option<bool>,
    has_video: Option<bool>,
    #[serde(borrow, default)]
    resolution: Option<Cow<'a, str>>,
    frame_rate: Option<f64>,
    #[serde(borrow, default)]
    recording_layout: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    custom_layout: Option<Cow<'a, str>>,
}

/// What is null is as good as missing: OpenVidu writes so what there is not yet.
fn or_nothing<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Why something cannot be read, without what stands there: it may be a secret in a wrong place.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.split_once('"'), text.rsplit_once('"')) {
        (Some((before, _)), Some((_, after))) => format!("{before}\"…\"{after}"),
        _ => text,
    }
}

/// One session of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) session_id: String,
    pub(super) created_at: i64,
    /// What it tells, each a record.
    pub(super) records: Vec<String>,
    /// Parts that could not be read.
    pub(super) odd: usize,
}

/// Reads one session.
///
/// # Errors
///
/// If it is no session; the message says why.
pub(super) fn session(json: &[u8], naming: Naming, negotiation: bool) -> Result<Shown, String> {
    let session: Session<'_> = serde_json::from_slice(json).map_err(|error| reason(&error))?;
    let ids = Ids { session_id: &session.session_id, created_at: session.created_at, naming };
    let mut teller = Teller { ids, negotiation, records: Vec::new(), odd: 0 };
    let mut seen = ids.seen("session", session.created_at);
    seen.text_if("customSessionId", session.custom_session_id.as_deref());
    seen.text_if("mediaMode", session.media_mode.as_deref());
    seen.text_if("recordingMode", session.recording_mode.as_deref());
    let node = session.media_node.as_ref().map(|node| &node.id).or(session.media_node_id.as_ref());
    seen.text_if("media_node_id", node.map(|node| &**node));
    teller.records.push(seen.finish());
    for json in session.connections.iter().flat_map(|list| &list.content) {
        match serde_json::from_str::<Connection<'_>>(json.get()) {
            Ok(connection) => teller.connection(&connection),
            Err(_) => teller.odd += 1,
        }
    }
    let Teller { records, odd, .. } = teller;
    let (session_id, created_at) = (session.session_id.clone().into_owned(), session.created_at);
    Ok(Shown { session_id, created_at, records, odd })
}

/// The event of a recording that has ended, as if it had been sent; `None`: it has not.
///
/// # Errors
///
/// If it is no recording; the message says why.
pub(super) fn recording(json: &[u8], asked: &AwaitedRecording) -> Result<Option<String>, String> {
    let shown: Recording<'_> = serde_json::from_slice(json).map_err(|error| reason(&error))?;
    // An id is used again once its recording is deleted.
    let is_asked = *shown.id == *asked.id && shown.created_at == asked.start;
    if !is_asked || !matches!(&*shown.status, "ready" | "failed") {
        return Ok(None);
    }
    let mut told = begin("cdr");
    told.text("event", "recordingStatusChanged");
    told.text("side", "api");
    told.text("sessionId", &asked.session_id);
    told.text_if("uniqueSessionId", asked.unique_session_id.as_deref());
    told.text("id", &asked.id);
    told.integer("startTime", asked.start);
    told.text("status", &shown.status);
    let duration = shown.duration.max(0.0);
    #[expect(clippy::cast_possible_truncation, reason = "a number of bytes is below 2^53")]
    told.integer("size", shown.size.max(0.0) as i64);
    told.number("duration", duration);
    for (name, flag) in [("hasAudio", shown.has_audio), ("hasVideo", shown.has_video)] {
        if let Some(flag) = flag {
            told.flag(name, flag);
        }
    }
    for (name, text) in [
        ("name", &shown.name),
        ("outputMode", &shown.output_mode),
        ("resolution", &shown.resolution),
        ("recordingLayout", &shown.recording_layout),
        ("customLayout", &shown.custom_layout),
    ] {
        told.text_if(name, text.as_deref());
    }
    if let Some(rate) = shown.frame_rate {
        told.number("frameRate", rate);
    }
    // When it was ready is not shown; it was no earlier.
    #[expect(clippy::cast_possible_truncation, reason = "at most a month")]
    let stopped = asked.start.saturating_add((duration.min(LENGTH_MAX) * 1_000.0) as i64);
    told.integer("timestamp", stopped);
    Ok(Some(told.finish()))
}

/// The record that a session is shown no more, or again, since `at`.
pub(super) fn presence(
    (session_id, created_at): (&str, i64),
    naming: Naming,
    is_shown: bool,
    at: i64,
) -> String {
    let ids = Ids { session_id, created_at, naming };
    let mut seen = ids.seen(if is_shown { "shown" } else { "gone" }, at);
    seen.integer("startTime", created_at);
    seen.finish()
}

fn begin(elastic_type: &str) -> Object {
    let mut json = Object::with_capacity(400);
    json.text("elastic_type", elastic_type);
    json
}

/// Which session.
#[derive(Debug, Clone, Copy)]
struct Ids<'a> {
    session_id: &'a str,
    created_at: i64,
    naming: Naming,
}

impl Ids<'_> {
    fn write(self, json: &mut Object) {
        json.text("sessionId", self.session_id);
        if self.naming == Naming::Unique {
            json.text("uniqueSessionId", &format!("{}_{}", self.session_id, self.created_at));
        }
    }

    /// Begins what is shown, of the time `at`.
    fn seen(self, kind: &str, at: i64) -> Object {
        let mut json = begin("seen");
        json.text("type", kind);
        self.write(&mut json);
        json.integer("timestamp", at);
        json
    }
}

struct Teller<'a> {
    ids: Ids<'a>,
    negotiation: bool,
    records: Vec<String>,
    odd: usize,
}

impl Teller<'_> {
    fn connection(&mut self, connection: &Connection<'_>) {
        let id = &*connection.connection_id;
        // One that was prepared and has not joined is nobody yet.
        let is_pending = connection.status.as_deref() == Some("pending");
        if is_internal(id) || is_pending {
            return;
        }
        let joined = connection.active_at.filter(|at| *at > 0).unwrap_or(connection.created_at);
        let mut seen = self.ids.seen("connection", joined);
        seen.text("connectionId", id);
        seen.text_if("location", connection.location.as_deref());
        seen.text_if("ip", connection.ip.as_deref());
        seen.text_if("platform", connection.platform.as_deref());
        seen.text_if("clientData", connection.client_data.as_deref());
        seen.text_if("serverData", connection.server_data.as_deref());
        self.records.push(seen.finish());
        for (publishes, endpoints) in
            [(true, &connection.publishers), (false, &connection.subscribers)]
        {
            for json in endpoints {
                match serde_json::from_str::<Endpoint<'_>>(json.get()) {
                    Ok(endpoint) => self.endpoint(id, publishes, &endpoint),
                    Err(_) => self.odd += 1,
                }
            }
        }
    }

    fn endpoint(&mut self, connection_id: &str, publishes: bool, endpoint: &Endpoint<'_>) {
        // Without statistics it has none.
        let Some(name) = endpoint.webrtc_endpoint_name.as_deref() else { return };
        let mut ids = Object::members_in(String::new());
        self.ids.write(&mut ids);
        ids.text("connectionId", connection_id);
        ids.text("endpoint", name);
        let ids = ids.into_members();
        for event in endpoint.events.iter().filter(|event| event.get() != "null") {
            let json = event.get().trim();
            let inner = json.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match inner.map(str::trim).filter(|inner| !inner.is_empty() && !names_secret(inner)) {
                // Of two members of one name the last counts, so what the event says itself stands.
                Some(inner) => self.records.push(format!("{{{ids},{inner}}}")),
                None => self.odd += 1,
            }
        }
        if self.negotiation {
            self.negotiation(&ids, publishes, endpoint);
        }
    }

    /// SDP and candidates, as the paid edition tells them while they are exchanged.
    fn negotiation(&mut self, ids: &str, publishes: bool, endpoint: &Endpoint<'_>) {
        let operation = if publishes { "publish" } else { "subscribe" };
        let mut tell = |issuer: &str, kind: &str, content: &str| {
            let mut json = Object::members_in(String::new());
            json.text("issuer", issuer);
            json.text("operation", operation);
            json.text("type", kind);
            json.text("content", content);
            json.integer("timestamp", endpoint.created_at);
            self.records.push(format!("{{{ids},{}}}", json.into_members()));
        };
        for (issuer, sdp) in [("client", &endpoint.remote_sdp), ("server", &endpoint.local_sdp)] {
            let Some(sdp) = sdp.as_deref().filter(|sdp| !sdp.is_empty()) else { continue };
            // Who offers leaves open who begins (RFC 4145, RFC 5763).
            let is_offer = sdp.contains("a=setup:actpass");
            tell(issuer, if is_offer { "sdpOffer" } else { "sdpAnswer" }, &without_secrets(sdp));
        }
        for (issuer, candidates) in [
            ("client", &endpoint.client_ice_candidates),
            ("server", &endpoint.server_ice_candidates),
        ] {
            for candidate in candidates {
                tell(issuer, "iceCandidate", candidate.get());
            }
        }
    }
}

/// Whether an event has a member that is called like a secret: none of the media server has, so it is in a wrong place.
fn names_secret(members: &str) -> bool {
    let has = |name: &&str| memchr::memmem::find(members.as_bytes(), name.as_bytes()).is_some();
    ["\"token", "\"secret", "\"password", "\"credential"].iter().any(has)
}

/// Session descriptions hold what lets somebody speak in the place of a peer: the password of ICE (RFC 8839) and keys of SRTP
/// (RFC 4568).
fn without_secrets(sdp: &str) -> String {
    let line = |line: &str| {
        let secret = ["a=ice-pwd:", "a=crypto:"].into_iter().find(|name| line.starts_with(name));
        let end = line.strip_prefix(line.trim_end()).unwrap_or_default();
        secret.map_or_else(|| line.to_owned(), |name| format!("{name}…{end}"))
    };
    sdp.split_inclusive('\n').map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_keep_all_but_passwords_and_keys() {
        let sdp = "v=0\r\na=ice-ufrag:aB3\r\na=ice-pwd:Secret/+\r\na=setup:actpass\r\na=crypto:1 AES inline:Secret|2^31\na=mid:0";
        let told =
            "v=0\r\na=ice-ufrag:aB3\r\na=ice-pwd:…\r\na=setup:actpass\r\na=crypto:…\na=mid:0";
        assert_eq!(without_secrets(sdp), told);
    }

    #[test]
    fn what_is_not_there_yet_is_null_and_no_oddity() {
        let json = br#"{"sessionId":"s","createdAt":7,"connections":{"content":[
            {"connectionId":"con_P","status":"pending","createdAt":7,"activeAt":null,"publishers":null,"subscribers":null},
            {"connectionId":"con_A","createdAt":8,"publishers":[{"createdAt":9,"webrtcEndpointName":"e","receivedCandidates":null,
             "events":[null,{"type":"x","timestamp":9}]}],"subscribers":null}]}}"#;
        let shown = session(json, Naming::Plain, true).unwrap();
        assert_eq!((shown.odd, shown.records.len()), (0, 3), "{shown:?}");
        assert!(!shown.records.iter().any(|record| record.contains("con_P")), "{shown:?}");
        let empty = br#"{"sessionId":"s","createdAt":7,"connections":{"content":null}}"#;
        assert_eq!(session(empty, Naming::Plain, true).unwrap().odd, 0);
    }

    #[test]
    fn candidates_have_the_names_of_their_version() {
        for (client, server) in [
            ("receivedCandidates", "gatheredCandidates"),
            ("clientIceCandidates", "serverIceCandidates"),
        ] {
            let json = format!(
                r#"{{"sessionId":"s","createdAt":7,"connections":{{"content":[{{"connectionId":"con_A","createdAt":8,"publishers":[
                {{"createdAt":9,"webrtcEndpointName":"e","{client}":["c"],"{server}":["s"]}}]}}]}}}}"#
            );
            let shown = session(json.as_bytes(), Naming::Plain, true).unwrap();
            for (issuer, candidate) in [("client", "c"), ("server", "s")] {
                let told = format!(
                    r#""issuer":"{issuer}","operation":"publish","type":"iceCandidate","content":"\"{candidate}\"""#
                );
                assert!(shown.records.iter().any(|record| record.contains(&told)), "{shown:?}");
            }
        }
    }

    #[test]
    fn an_event_with_a_secret_in_it_is_not_taken() {
        for name in ["token", "secret", "password", "credentials"] {
            let json = format!(
                r#"{{"sessionId":"s","createdAt":7,"connections":{{"content":[{{"connectionId":"con_A","createdAt":8,"publishers":[
                {{"createdAt":9,"webrtcEndpointName":"e","events":[{{"type":"x","timestamp":9,"{name}":"tok_1"}},{{"type":"y","timestamp":9}}]}}]}}]}}}}"#
            );
            let shown = session(json.as_bytes(), Naming::Plain, false).unwrap();
            assert_eq!((shown.odd, shown.records.len()), (1, 3), "{shown:?}");
            assert!(!shown.records.iter().any(|record| record.contains("tok_1")), "{shown:?}");
        }
    }

    #[test]
    fn a_reason_holds_nothing_of_what_stands_in_a_wrong_place() {
        let json = br#"{"sessionId":"s","createdAt":"tok_Secret \"quoted\""}"#;
        let reason = session(json, Naming::Plain, true).unwrap_err();
        assert!(reason.contains("expected i64") && !reason.contains("Secret"), "{reason}");
        assert!(!reason.contains("quoted"), "{reason}");
    }

    #[test]
    fn the_end_of_a_recording_has_its_form() {
        let asked = AwaitedRecording {
            session_id: "s".into(),
            unique_session_id: None,
            id: "r".into(),
            start: 7,
        };
        let json = br#"{"id":"r","createdAt":7,"status":"ready","size":5,"duration":2.5,"hasAudio":true,"hasVideo":false,
            "resolution":"640x480","frameRate":25,"name":"Monday","outputMode":"COMPOSED","url":null}"#;
        let told = recording(json, &asked).unwrap().unwrap();
        for member in [
            r#""event":"recordingStatusChanged","side":"api""#,
            r#""timestamp":2507"#,
            r#""name":"Monday""#,
            r#""outputMode":"COMPOSED""#,
            r#""size":5"#,
            r#""hasAudio":true"#,
            r#""hasVideo":false"#,
            r#""resolution":"640x480""#,
            r#""frameRate":25"#,
        ] {
            assert!(told.contains(member), "{member}: {told}");
        }
        let stopped = br#"{"id":"r","createdAt":7,"status":"stopped","size":null,"duration":null}"#;
        assert_eq!(recording(stopped, &asked).unwrap(), None);
    }
}
