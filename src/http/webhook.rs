//! The webhook: a body is journalled, and answered 200 once it is durable. Nothing is looked at here; what is no event
//! becomes a dead letter later. The only refusals are 401 and 413, and 431
//! for a head that is too long, which the server gives before anything here is asked.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::{App, Broken, api};
use crate::config::Secret;
use crate::journal::AppendError;

pub(super) async fn default_source(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    receive(&app, "default", query.as_deref(), &headers, body).await
}

pub(super) async fn named_source(
    State(app): State<Arc<App>>,
    source: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // What cannot be read is no source's name.
    let Ok(Path(source)) = source else { return refused() };
    receive(&app, &source, query.as_deref(), &headers, body).await
}

/// The answer to whom no event is taken from.
pub(super) fn refused() -> Response {
    let mut refused = api::failure(
        StatusCode::UNAUTHORIZED,
        "wrong or missing secret, or no such source",
        "send one of sources.NAME.secrets, for example in OPENVIDU_WEBHOOK_HEADERS as \"Authorization: Bearer SECRET\"",
    );
    refused.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        header::HeaderValue::from_static("Basic realm=\"callscope\""),
    );
    refused
}

async fn receive(
    app: &App,
    source: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    if !is_allowed(app, source, query, headers) {
        return refused();
    }
    let deadline = Instant::now() + app.hold;
    let Some(_bytes) = take_turn(app, headers, deadline).await else {
        tracing::error!(
            source,
            "bodies wait for the journal already, connection broken so that the event is sent again"
        );
        return broken();
    };
    let read = axum::body::to_bytes(body, app.body_bytes_max);
    let body = match tokio::time::timeout(app.idle_after, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if is_too_long(&error) => {
            let hint = "http.body_bytes_max is the limit";
            return api::failure(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", hint);
        }
        // The sender has gone or stopped in the middle: it did not get an answer, and repeats.
        Ok(Err(_)) | Err(_) => return broken(),
    };
    let received_at = chrono::Utc::now().timestamp_millis();
    match append(app, source, received_at, &body, deadline).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => {
            tracing::error!(source, error = %error, "event was not taken, connection broken so that it is sent again");
            broken()
        }
    }
}

/// Waits until the body may be read: as many bytes as it announces, or as it may have at most. They are given back with what
/// is returned. `None`: there were none until `deadline`.
async fn take_turn<'a>(
    app: &'a App,
    headers: &HeaderMap,
    deadline: Instant,
) -> Option<SemaphorePermit<'a>> {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    let bytes = announced.unwrap_or(app.body_bytes_max).min(app.body_bytes_max);
    let turn = app.bodies.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX));
    tokio::time::timeout_at(deadline, turn).await.ok()?.ok()
}

/// Appends, waiting until `deadline` for room and for the disk.
async fn append(
    app: &App,
    source: &str,
    received_at: i64,
    body: &[u8],
    deadline: Instant,
) -> Result<(), AppendError> {
    loop {
        let refused = match app.journal.append(source, received_at, body).await {
            Ok(_) => return Ok(()),
            Err(AppendError::Closed) => return Err(AppendError::Closed),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(refused);
        }
        // Room may have come between the refusal and the wait; the hold is short enough to look again.
        let again = deadline.min(Instant::now() + Duration::from_millis(500));
        let _elapsed = tokio::time::timeout_at(again, app.journal.wait_for_room()).await;
    }
}

fn broken() -> Response {
    let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
    response.extensions_mut().insert(Broken);
    response
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}

/// Whether one of the source's secrets was shown. A source without secrets is open.
fn is_allowed(app: &App, source: &str, query: Option<&str>, headers: &HeaderMap) -> bool {
    let Some(secrets) = app.secrets.get(source) else { return false };
    secrets.is_empty() || matches(secrets, &shown(query, headers))
}

/// Whether one of `shown` is one of `secrets`; how long it takes tells nothing.
pub(super) fn matches(secrets: &[Secret], shown: &[Vec<u8>]) -> bool {
    let mut is_allowed = subtle::Choice::from(0);
    for secret in secrets {
        for shown in shown {
            // Hashes have one length, so the time does not tell that of the secret either.
            is_allowed |= Sha256::digest(shown).ct_eq(&Sha256::digest(secret.expose().as_bytes()));
        }
    }
    is_allowed.into()
}

/// Everything that may be a secret: password of basic authentication, bearer token, our header, query key.
pub(super) fn shown(query: Option<&str>, headers: &HeaderMap) -> Vec<Vec<u8>> {
    let mut shown = Vec::new();
    if let Some(header) = headers.get("x-callscope-secret") {
        shown.push(header.as_bytes().to_vec());
    }
    let authorization = headers.get(header::AUTHORIZATION).and_then(|header| header.to_str().ok());
    if let Some((scheme, rest)) = authorization.and_then(|header| header.split_once(' ')) {
        if scheme.eq_ignore_ascii_case("bearer") {
            shown.push(rest.trim().as_bytes().to_vec());
        } else if scheme.eq_ignore_ascii_case("basic")
            && let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(rest.trim())
            && let Some(at) = memchr::memchr(b':', &decoded)
        {
            shown.push(decoded.get(at + 1..).unwrap_or_default().to_vec());
        }
    }
    shown.extend(parameters(query.unwrap_or_default(), "secret"));
    shown
}

/// The first value of a parameter, decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    parameters(query, name).next()
}

fn parameters(query: &str, name: &str) -> impl Iterator<Item = Vec<u8>> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(move |(known, _)| *known == name).map(|(_, value)| percent_decoded(value))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digits = (byte == b'%').then(|| {
            let mut ahead = bytes.clone();
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            Some((digit(ahead.next())?, digit(ahead.next())?))
        });
        match digits.flatten() {
            Some((high, low)) => {
                bytes.nth(1);
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
            }
            None => decoded.push(if byte == b'+' { b' ' } else { byte }),
        }
    }
    decoded
}
