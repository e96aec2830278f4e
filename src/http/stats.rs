//! `POST /stats/{source}`: reports of browsers. Everybody can send them, so they are taken only with a key of the source, from pages
//! of its origins, on sessions that are open now, and no faster than one needs to report. What is taken is journalled like what a
//! webhook brings; the journal keeps half of its room for that, which must not be lost.
//!
//! A refused report is gone: openvidu-browser reads no answer, and sends the next one anyway.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::{App, api, webhook};
use crate::config::{BrowsersConfig, Config, Secret};
use crate::enrich::address::household;
use crate::enrich::privacy::Privacy;
use crate::live::{Live, OpenSession};
use crate::reports::{self, Arrival, ReportError, Running};

/// Addresses and sessions of which it is known how fast they report; with more, those that are slow are forgotten.
const LIMITED_MAX: usize = 100_000;
/// Longest id in the address of a request.
const ID_BYTES_MAX: usize = 200;
/// How long a browser may keep what it was told of a page's permission, in seconds.
const KNOWN_FOR: &str = "86400";

/// The address at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What the settings say about reports, and how many have come.
#[derive(Debug)]
pub struct Door {
    sources: BTreeMap<String, Own>,
    privacy: Privacy,
    config: BrowsersConfig,
    addresses: Limiter<IpAddr>,
    /// Of those who are known to be there, and of all others.
    sessions: Limiter<(u64, bool)>,
    running: Running,
}

#[derive(Debug)]
struct Own {
    cluster_id: String,
    keys: Vec<Secret>,
    origins: Vec<String>,
}

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

impl Door {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let own = config.sources.iter().map(|(name, source)| {
            let (keys, origins) = (source.browsers.keys.clone(), source.browsers.origins.clone());
            let cluster_id = source.cluster_id.clone().unwrap_or_default();
            (name.clone(), Own { cluster_id, keys, origins })
        });
        Self {
            sources: own.filter(|(_, own)| !own.keys.is_empty()).collect(),
            privacy: Privacy::new(&config.privacy),
            addresses: limiter(config.browsers.per_address),
            sessions: limiter(config.browsers.per_session),
            config: config.browsers.clone(),
            running: Running::default(),
        }
    }

    /// Where a request comes from: as the proxy before callscope says, if there is one.
    fn address(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let name = &self.config.address_header;
        let told = headers.get_all(name.as_str()).iter().next_back();
        // Each proxy adds whom it has seen; only the last one is ours.
        let told = told.and_then(|told| {
            let told = told.to_str().ok()?.rsplit(',').next()?.trim();
            let with_port = || Some(told.parse::<SocketAddr>().ok()?.ip());
            told.parse().ok().or_else(with_port)
        });
        told.filter(|_| !name.is_empty()).unwrap_or(peer).to_canonical()
    }
}

fn limiter<K: Hash + Eq + Clone>(a_second: NonZeroU32) -> Limiter<K> {
    RateLimiter::hashmap(Quota::per_second(a_second))
}

/// Whether one more is too many.
fn is_too_fast<K: Hash + Eq + Clone>(limiter: &Limiter<K>, of: &K) -> bool {
    if limiter.len() >= LIMITED_MAX {
        limiter.retain_recent();
    }
    limiter.len() >= LIMITED_MAX || limiter.check_key(of).is_err()
}

/// `OPTIONS /stats/{source}`: whether pages of an origin may post here.
pub(super) async fn permission(
    State(app): State<Arc<App>>,
    Path(source): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(own) = app.browsers.sources.get(&source) else { return closed() };
    let mut answer = StatusCode::NO_CONTENT.into_response();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type"),
        (header::ACCESS_CONTROL_MAX_AGE, KNOWN_FOR),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    allowed(answer, own, &headers)
}

/// Why a report is not taken: what is wrong, and what to do.
struct Refused(StatusCode, Cow<'static, str>, &'static str);

impl Refused {
    fn new(status: StatusCode, error: &'static str, hint: &'static str) -> Self {
        Self(status, error.into(), hint)
    }
}

/// `POST /stats/{source}?key=KEY&connection=CONNECTION&session=SESSION`: one report.
pub(super) async fn report(
    State(app): State<Arc<App>>,
    Path(source): Path<String>,
    Extension(Peer(peer)): Extension<Peer>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(own) = app.browsers.sources.get(&source) else { return closed() };
    let query = query.as_deref().unwrap_or_default();
    let address = app.browsers.address(&headers, peer);
    let taken = match admit(&app.browsers, own, address, query, &headers) {
        Ok(()) => take(&app, (&source, own), address, query, body).await,
        Err(refused) => Err(refused),
    };
    let answer = match taken {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(Refused(status, error, hint)) => api::failure(status, &error, hint),
    };
    allowed(answer, own, &headers)
}

/// Whether a report may come from there.
fn admit(
    door: &Door,
    own: &Own,
    address: IpAddr,
    query: &str,
    headers: &HeaderMap,
) -> Result<(), Refused> {
    if is_too_fast(&door.addresses, &household(address)) {
        return Err(Refused::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many reports from one address",
            "browsers.per_address is the limit",
        ));
    }
    if headers.contains_key(header::ORIGIN) && own.origin(headers).is_none() {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            "pages of this origin do not report here",
            "list it in sources.NAME.browsers.origins",
        ));
    }
    let key = webhook::parameter(query, "key").unwrap_or_default();
    if !webhook::matches(&own.keys, &[key]) {
        return Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            "wrong or missing key",
            "add ?key= with one of sources.NAME.browsers.keys",
        ));
    }
    Ok(())
}

/// Reads a report, and puts what it tells into the journal.
async fn take(
    app: &App,
    (source, own): (&str, &Own),
    address: IpAddr,
    query: &str,
    body: Body,
) -> Result<(), Refused> {
    let door = &app.browsers;
    let read = axum::body::to_bytes(body, door.config.body_bytes_max.get());
    let body = tokio::time::timeout(app.idle_after, read).await;
    let body = body.map_err(|_| {
        Refused::new(StatusCode::REQUEST_TIMEOUT, "the report did not come", "send it again")
    })?;
    let body = body.map_err(|_| {
        let hint = "browsers.body_bytes_max is the limit";
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "the report is too large", hint)
    })?;
    let id = |name| webhook::parameter(query, name).map(is_id).transpose();
    let ids = id("connection").and_then(|connection| Ok((connection, id("session")?)));
    let (connection, session) = ids.map_err(|()| {
        let hint = "leave it out, or write the id that OpenVidu gave";
        Refused::new(StatusCode::BAD_REQUEST, "connection or session is no id", hint)
    })?;
    let address = address.to_string();
    let address = door.privacy.address(&address);
    let arrival = Arrival {
        at: chrono::Utc::now().timestamp_millis(),
        address: address.as_deref(),
        connection: connection.as_deref(),
        session: session.as_deref(),
    };
    let report = reports::read(&body, arrival).map_err(|error| {
        let hint = match error {
            ReportError::NoSession => "add &session= with the session's id",
            ReportError::Odd(_) | ReportError::Empty => {
                "let webrtc-stats-config of openvidu-browser name this address"
            }
        };
        Refused(StatusCode::BAD_REQUEST, error.to_string().into(), hint)
    })?;
    let session = OpenSession::hash(&own.cluster_id, &report.session_id);
    let live = Arc::clone(&app.live.borrow());
    let start = start_of(&live, session).ok_or_else(|| {
        let hint = "a session is known from its first event on";
        Refused::new(StatusCode::NOT_FOUND, "no such session is open", hint)
    })?;
    let mut shown = live.sessions.iter();
    let shown = shown
        .find(|shown| shown.session_id == report.session_id && shown.cluster_id == own.cluster_id);
    let visitors = shown.map_or(&[][..], |shown| &shown.visitors);
    let came = arrival.at;
    let ahead = shown.map_or(0, |shown| door.running.ahead(session, shown.last_event_at, came));
    let arrival = Arrival { at: came + ahead, ..arrival };
    let reporter = report.reporter(start, visitors, arrival);
    // What is made up of nobody who is there takes nothing from what somebody reports.
    if is_too_fast(&door.sessions, &(session, reporter.client.visit.is_some())) {
        return Err(Refused::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many reports on one session",
            "browsers.per_session is the limit",
        ));
    }
    if app.journal.bytes() > app.journal.bytes_max() / 2 {
        return Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "there is no room for reports now",
            "journal.bytes_max is the limit",
        ));
    }
    for record in report.records(&reporter, arrival, &door.running) {
        let appended = app.journal.append(source, came, record.as_bytes()).await;
        appended.map_err(|error| {
            let hint = "the next report may find room";
            Refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string().into(), hint)
        })?;
    }
    Ok(())
}

/// An id as OpenVidu makes them: it becomes part of a name.
fn is_id(text: Vec<u8>) -> Result<String, ()> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let is_one = (1..=ID_BYTES_MAX).contains(&text.len()) && text.iter().all(is_plain);
    String::from_utf8(text).ok().filter(|_| is_one).ok_or(())
}

/// When the session of this name began that is open now, the latest if there are several.
fn start_of(live: &Live, id: u64) -> Option<i64> {
    live.open.iter().filter(|open| open.id == id && open.start > 0).map(|open| open.start).max()
}

impl Own {
    /// The origin of the page that asks, if it is one of ours.
    fn origin<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let is_ours = |known: &String| known == "*" || origin.as_bytes() == known.as_bytes();
        self.origins.iter().any(is_ours).then_some(origin)
    }
}

/// The answer for whom nothing is open here: the source is not known, or has no key.
fn closed() -> Response {
    api::failure(StatusCode::NOT_FOUND, "nobody reports here", "set sources.NAME.browsers.keys")
}

/// An answer that the page may read, if it is of one of the source's origins.
fn allowed(mut answer: Response, own: &Own, headers: &HeaderMap) -> Response {
    if let Some(origin) = own.origin(headers) {
        answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    answer
}
