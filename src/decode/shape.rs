//! Which wire format a record is in.

use std::borrow::Cow;

use super::Members;
use crate::event::Kind;

/// What stands before the JSON of a CDR line in the server's log.
pub(crate) const LOG_MARK: &str = "CDRLoggerFile - ";

pub(super) enum Shape {
    /// `elastic_type` says what it is.
    Indexed,
    /// `event` says what it is.
    Webhook,
    /// The only key says what it is.
    Root,
    /// The fields say what it is.
    Telemetry(Kind<'static>),
}

/// The JSON in a line of the server's log; any other text as it is.
pub(super) fn strip_log_prefix(text: &str) -> &str {
    if text.starts_with('{') {
        return text;
    }
    text.split_once(LOG_MARK).map_or(text, |(_, json)| json.trim_start())
}

/// Name and payload of `{"name":{…}}`, found without reading the payload, so that a CDR line is parsed once. A guess: if the
/// payload turns out not to be one object, the line is something else.
pub(super) fn single_root(json: &str) -> Option<(&str, &str)> {
    let inner = json.strip_prefix('{')?.strip_suffix('}')?.trim();
    let (name, rest) = inner.strip_prefix('"')?.split_once('"')?;
    if name.contains('\\') {
        return None;
    }
    let payload = rest.trim_start().strip_prefix(':')?.trim_start();
    (payload.starts_with('{') && payload.ends_with('}')).then_some((name, payload))
}

/// The member of an object that has one.
pub(super) fn only_member(members: Members<'_>) -> (Cow<'_, str>, &str) {
    members.into_iter().next().unwrap_or((Cow::Borrowed(""), "{}"))
}

pub(super) fn recognise(members: &Members<'_>) -> Option<Shape> {
    let member =
        |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, json)| *json);
    let has = |name: &str| member(name).is_some();
    let text = |name: &str| member(name).is_some_and(|json| json.starts_with('"'));
    if text("elastic_type") {
        return Some(Shape::Indexed);
    }
    if text("event") {
        return Some(Shape::Webhook);
    }
    if let [(_, json)] = members.as_slice() {
        return json.starts_with('{').then_some(Shape::Root);
    }
    let kind = if has("webrtc_stats") || has("et_type") || member("stream") == Some("\"webRTC\"") {
        Kind::BrowserStats
    } else if has("endpoint") && has("type") && has("msSinceEndpointCreation") {
        Kind::Kms
    } else if has("issuer") && has("operation") && has("content") {
        Kind::WebrtcDebug
    } else if has("newValue") && has("oldValue") && has("connectionId") {
        Kind::NetworkQualityStats
    } else if has("mediaType") && (has("bytesReceived") || has("bytesSent")) {
        Kind::WebrtcStats
    } else {
        return None;
    };
    Some(Shape::Telemetry(kind))
}
