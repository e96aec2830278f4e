//! The API: sessions, open and ended, one session in full, and a search over everything.
//!
//! Documents pass through as they were stored. An answer holds at most [`ANSWER_BYTES_MAX`] of them and says where it was
//! cut; answers being made or sent hold at most [`ROOM_BYTES`] together, and more requests wait for room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{App, troubles};
use crate::command::AnyIndex;
use crate::config::Link;
use crate::document::fields::{self, Holds};
use crate::live::{LISTED_MAX, Live, LiveSession};
use crate::search::{Found, LIMIT_MAX, REACH_MAX, Search, SearchError, Sort, words};
use crate::sink::SinkStatus;

/// Query parameters, as they come.
pub(super) type Parameters = Query<Vec<(String, String)>>;
/// A document, or a part of one, as it was stored.
type Json = Box<RawValue>;

/// Most bytes of documents in one answer.
pub(super) const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Most bytes of answers that are being made or sent.
const ROOM_BYTES: usize = 96 << 20;
/// In what steps room is given back.
const STEP: usize = 64 << 10;
/// How long a request waits for room.
const WAIT: Duration = Duration::from_secs(10);
/// Panels that are computed at once: as many as keep two cores busy. The others wait.
const TURNS: usize = 4;
/// As long as a text that is looked for may be.
pub(super) const TEXT_BYTES_MAX: usize = 1024;
/// Words that are looked for at once. Each is a search of its own.
const WORDS_MAX: usize = 10;
/// Connections that may be held open to be told as things happen.
const LISTENERS_MAX: usize = 64;
/// Documents asked for at first, and at most at once: how large they are is seen when they have come.
const AT_ONCE: (usize, usize) = (32, 250);
/// Most events of one session that are shown.
const EVENTS_MAX: usize = 1000;
/// Most users and connections that are looked through for the sessions they were in.
const PEOPLE_LOOKED_THROUGH_MAX: usize = 500;

/// An error as JSON: what is wrong, and what to do.
pub(super) fn failure(status: StatusCode, error: &str, hint: &str) -> Response {
    (status, axum::Json(json!({ "error": error, "hint": hint }))).into_response()
}

pub(super) fn search_failure(error: &SearchError) -> Response {
    match error {
        SearchError::Refused(reason) => failure(StatusCode::BAD_REQUEST, reason, "ask for less"),
        SearchError::Nowhere => failure(
            StatusCode::SERVICE_UNAVAILABLE,
            &error.to_string(),
            "set sink.kind to \"embedded\" or \"elasticsearch\" to see what has ended",
        ),
        SearchError::Denied(_) => failure(
            StatusCode::SERVICE_UNAVAILABLE,
            &error.to_string(),
            "see that the account of the section elasticsearch may read the index",
        ),
        SearchError::Unavailable(_) => {
            failure(StatusCode::SERVICE_UNAVAILABLE, &error.to_string(), "see /readyz")
        }
    }
}

/// What all readers share.
#[derive(Debug)]
pub(super) struct Reading {
    room: Arc<Semaphore>,
    /// Since when the sink does not take documents, milliseconds since 1970; 0: it does.
    troubled_since: AtomicI64,
    /// Panels that are computed at once.
    pub(super) turns: Arc<Semaphore>,
    /// Readers who are told as things happen.
    pub(super) listeners: Arc<Semaphore>,
    /// The server ends: so do answers that have no end of their own.
    pub(super) stop: CancellationToken,
}

impl Reading {
    /// Until `stop`.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self {
            room: Arc::new(Semaphore::new(ROOM_BYTES / STEP)),
            troubled_since: AtomicI64::new(0),
            turns: Arc::new(Semaphore::new(TURNS)),
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
            stop,
        }
    }

    /// Since when the sink does not take documents, milliseconds since 1970, if it does not.
    pub(super) fn troubled_since(&self) -> Option<i64> {
        Some(self.troubled_since.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// Notes when the sink begins and ends to refuse, until the server ends.
    pub(super) fn watch(
        self: &Arc<Self>,
        mut sink: watch::Receiver<SinkStatus>,
    ) -> impl Future<Output = ()> + use<> {
        let reading = Arc::clone(self);
        async move {
            loop {
                let is_taken = *sink.borrow_and_update() == SinkStatus::Accepting;
                let since = &reading.troubled_since;
                if is_taken {
                    since.store(0, Ordering::Relaxed);
                } else if since.load(Ordering::Relaxed) == 0 {
                    since.store(now(), Ordering::Relaxed);
                }
                tokio::select! {
                    () = reading.stop.cancelled() => return,
                    changed = sink.changed() => if changed.is_err() { return },
                }
            }
        }
    }

    /// Room for one answer.
    pub(super) async fn take(&self) -> Result<Room, Response> {
        let steps = u32::try_from(ANSWER_BYTES_MAX / STEP).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.room).acquire_many_owned(steps);
        match tokio::time::timeout(WAIT, taken).await {
            Ok(Ok(room)) => Ok(Room(room)),
            Ok(Err(_)) | Err(_) => Err(failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests at once",
                "try again, with a smaller limit",
            )),
        }
    }
}

/// Room that an answer takes until it is sent.
pub(super) struct Room(OwnedSemaphorePermit);

impl Room {
    /// Sends `body`, and keeps so much room as it needs until it has gone.
    pub(super) fn answer(mut self, body: &impl Serialize) -> Response {
        let Ok(json) = serde_json::to_vec(body) else {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "no answer", "try again");
        };
        let length = json.len();
        // Whatever is not split off goes back at once.
        let kept = self.0.split(length.div_ceil(STEP).min(ANSWER_BYTES_MAX / STEP));
        drop(self.0);
        let pieces =
            futures_util::stream::unfold((Bytes::from(json), kept), async |(mut rest, kept)| {
                if rest.is_empty() {
                    return None;
                }
                let piece = rest.split_to(rest.len().min(STEP));
                Some((Ok::<_, std::convert::Infallible>(piece), (rest, kept)))
            });
        // Who packs it asks once more after its end.
        let pieces = futures_util::StreamExt::fuse(pieces);
        let head = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::CONTENT_LENGTH, length.to_string()),
            (header::CACHE_CONTROL, "no-store".to_owned()),
        ];
        (head, Body::from_stream(pieces)).into_response()
    }
}

/// What `parameters` ask for, and room for its answer.
async fn begin(
    reading: &Reading,
    parameters: &[(String, String)],
) -> Result<(Search, Room), Response> {
    let search = read_search(parameters).map_err(|wrong| wrong.answer())?;
    Ok((search, reading.take().await?))
}

/// What an index gave, as far as there was room.
struct Collected<T> {
    total: u64,
    things: Vec<T>,
    /// How many documents were dealt with.
    reached: usize,
    is_cut: bool,
    /// More was found on the way than is looked through.
    is_partial: bool,
}

impl<T> Collected<T> {
    fn nothing() -> Self {
        Self { total: 0, things: Vec::new(), reached: 0, is_cut: false, is_partial: false }
    }
}

/// Asks for documents in portions and keeps what `keep` makes of each, with its size, up to `bytes_max` together.
async fn collect<T>(
    index: &AnyIndex,
    mut search: Search,
    bytes_max: usize,
    mut keep: impl FnMut(Found) -> Option<(T, usize)>,
) -> Result<Collected<T>, SearchError> {
    search.check()?;
    let wanted = search.limit;
    let mut collected = Collected::nothing();
    // A text of which no word can be looked for finds nothing.
    if !search.text.is_empty() && words(&search.text).is_empty() {
        return Ok(collected);
    }
    // What is stored meanwhile moves places: a document may come twice then.
    let mut known = BTreeSet::new();
    let (mut at_once, mut bytes, mut bytes_read) = (AT_ONCE.0, 0, 0);
    loop {
        search.limit = at_once.min(wanted - collected.reached);
        let page = index.search(search.clone()).await?;
        let count = page.documents.len();
        collected.total = page.total;
        for found in page.documents {
            bytes_read += found.source.get().len();
            let is_known = wanted > AT_ONCE.0 && !known.insert(found.id.clone());
            if let Some((thing, size)) = keep(found).filter(|_| !is_known) {
                if bytes + size > bytes_max && !collected.things.is_empty() {
                    collected.is_cut = true;
                    return Ok(collected);
                }
                bytes += size;
                collected.things.push(thing);
            }
            collected.reached += 1;
        }
        if count < search.limit || collected.reached >= wanted {
            return Ok(collected);
        }
        search.offset += count;
        let size = (bytes_read / collected.reached.max(1)).max(1);
        at_once = (ANSWER_BYTES_MAX / 2 / size).clamp(1, AT_ONCE.1);
    }
}

/// Whole documents.
fn whole(found: Found) -> Option<(Json, usize)> {
    let size = found.source.get().len();
    Some((found.source, size))
}

pub(super) fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sessions {
    now: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
    total: u64,
    ended: Vec<Json>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    /// There may be more: not everybody who is called like that was looked at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<usize>,
    error: Option<String>,
    troubles: Vec<String>,
    troubled_since: Option<i64>,
    events: u64,
}

/// `GET /api/sessions?q=&from=&to=&sort=&limit=&offset=`: the open sessions, and those that ended, newest first or by a field
/// of their summaries. `q` finds sessions by their own names and by who was in them. `from` and `to` ask for ended ones only.
pub(super) async fn sessions(
    State(app): State<Arc<App>>,
    Extension(reading): Extension<Arc<Reading>>,
    Query(parameters): Parameters,
) -> Response {
    const KNOWN: [&str; 6] = ["q", "from", "to", "sort", "limit", "offset"];
    if let Some((name, _)) = parameters.iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
        let error = format!("there is no parameter {name}");
        let hint = "use q, from, to, sort, limit and offset; /api/search filters by any field";
        return failure(StatusCode::BAD_REQUEST, &error, hint);
    }
    let (search, room) = match begin(&reading, &parameters).await {
        Ok(begun) => begun,
        Err(refused) => return refused,
    };
    let live = live(&app, &search);
    let offset = search.offset;
    let (found, error) = match ended(&app.index, search).await {
        Ok(found) => (found, None),
        Err(error @ SearchError::Refused(_)) => return search_failure(&error),
        // What is open is known without the index.
        Err(error) => (Collected::nothing(), Some(error.to_string())),
    };
    room.answer(&Sessions {
        now: now(),
        live,
        total: found.total,
        next_offset: next_offset(&found, offset),
        truncated: found.is_cut,
        partial: found.is_partial,
        ended: found.things,
        error,
        troubles: troubles(&app),
        troubled_since: reading.troubled_since(),
        events: *app.journal.end().borrow(),
    })
}

/// The open sessions that `search` asks for; none if it asks for times, which only ended ones have.
fn live(app: &App, search: &Search) -> Option<Live> {
    if search.from.is_some() || search.to.is_some() {
        return None;
    }
    let mut live = Live::clone(&app.live.borrow());
    if !search.text.is_empty() {
        live.sessions.retain(|session| session.is_found_by(&search.text));
        live.totals = Default::default();
        live.sessions.iter().for_each(|session| live.totals.add(session.open));
        live.troubled = live.sessions.iter().filter(|session| session.is_troubled()).count() as u64;
    }
    live.sessions.truncate(LISTED_MAX);
    Some(live)
}

/// Where to go on, if there is more within reach.
fn next_offset<T>(found: &Collected<T>, offset: usize) -> Option<usize> {
    let next = offset + found.reached;
    let is_more = u64::try_from(next).is_ok_and(|next| next < found.total);
    (is_more && found.reached > 0 && next < REACH_MAX).then_some(next)
}

/// Summaries of sessions, without what is nested in them.
async fn ended(index: &AnyIndex, mut search: Search) -> Result<Collected<Json>, SearchError> {
    let of = |types: &[&str]| {
        let types = types.iter().map(|name| (*name).to_owned()).collect();
        ("elastic_type".to_owned(), types)
    };
    search.check()?;
    let mut is_partial = false;
    if !search.text.is_empty() {
        // By the session's own names, then by everybody who was in one.
        let reach = (search.offset + search.limit).clamp(1, LIMIT_MAX);
        let mut ids = BTreeSet::new();
        for (types, limit) in [
            (&["sessionSummary"][..], reach),
            (&["userSummary", "connectionSummary"][..], PEOPLE_LOOKED_THROUGH_MAX),
        ] {
            let mut asked = Search { limit, offset: 0, ..search.clone() };
            if types.len() > 1 {
                // People have times and figures of their own; those of the session are asked for below.
                (asked.from, asked.to) = (None, None);
                asked.sort = Sort::default();
            }
            asked.filters.push(of(types));
            let found = collect(index, asked, usize::MAX, |found| {
                let id =
                    serde_json::from_str::<Named>(found.source.get()).ok()?.unique_session_id?;
                Some((id, 0))
            });
            let found = found.await?;
            is_partial |= types.len() > 1 && found.total > limit as u64;
            ids.extend(found.things);
        }
        if ids.is_empty() {
            return Ok(Collected::nothing());
        }
        search.text.clear();
        search.filters.push(("uniqueSessionId".to_owned(), ids.into_iter().collect()));
    }
    search.filters.push(of(&["sessionSummary"]));
    let keep = |found: Found| whole(Found { source: strip(&found.source), ..found });
    let found = collect(index, search, ANSWER_BYTES_MAX, keep).await?;
    Ok(Collected { is_partial, ..found })
}

/// What a summary is of.
#[derive(Deserialize)]
struct Named {
    elastic_type: String,
    #[serde(rename = "uniqueSessionId")]
    unique_session_id: Option<String>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Session<'a> {
    now: i64,
    open: Option<&'a LiveSession>,
    /// Whose the open connections are.
    #[serde(skip_serializing_if = "Option::is_none")]
    present: Option<&'a BTreeMap<String, String>>,
    /// What has gone wrong while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem_details: Option<&'a RawValue>,
    /// Where else one can look, as the settings say.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    links: &'a [Link],
    summary: Option<Json>,
    users: Vec<Json>,
    connections: Vec<Json>,
    publishers: Vec<Json>,
    subscribers: Vec<Json>,
    recordings: Vec<Json>,
    events: Vec<Json>,
    total_events: u64,
    /// Of more events than are shown, those that tell how it went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    facts: Vec<Json>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    /// Why nothing but what is open is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `GET /api/sessions/{uniqueSessionId}?index=false`: everything that is known of one session; without the index, if it is open.
pub(super) async fn session(
    State(app): State<Arc<App>>,
    Extension(reading): Extension<Arc<Reading>>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    let mut asks_index = true;
    for (name, value) in &parameters {
        match (name.as_str(), value.as_str()) {
            ("index", "true") => asks_index = true,
            ("index", "false") => asks_index = false,
            _ => {
                let error = format!("no parameter {name}={value}");
                return failure(StatusCode::BAD_REQUEST, &error, "index=false or index=true");
            }
        }
    }
    let live = Arc::clone(&app.live.borrow());
    let open = live.sessions.iter().find(|open| open.unique_session_id == id);
    let open = open.map(|open| &**open);
    let shown = Session {
        now: now(),
        open,
        present: open.map(|open| &open.present),
        problem_details: open.and_then(|open| serde_json::from_str(&open.problem_details).ok()),
        links: &app.links,
        ..Session::default()
    };
    // That needs no room, which whoever waits for the index may have taken.
    if !asks_index {
        return match open {
            Some(_) => axum::Json(Session { error: Some("it was not asked".to_owned()), ..shown })
                .into_response(),
            None => failure(
                StatusCode::NOT_FOUND,
                "no such session is open",
                "without the index nothing else is known",
            ),
        };
    }
    let room = match reading.take().await {
        Ok(room) => room,
        Err(busy) => return busy,
    };
    match one(&app.index, &id).await {
        Ok(one) if one.summary.is_none() && open.is_none() && one.events.is_empty() => failure(
            StatusCode::NOT_FOUND,
            "no such session",
            "use the uniqueSessionId that /api/sessions gives",
        ),
        Ok(one) => {
            let Session { open, present, problem_details, links, .. } = shown;
            room.answer(&Session { open, present, problem_details, links, ..one })
        }
        Err(error) if open.is_none() => search_failure(&error),
        // What is open is known without the index.
        Err(error) => room.answer(&Session { now: now(), error: Some(error.to_string()), ..shown }),
    }
}

async fn one<'a>(index: &AnyIndex, id: &str) -> Result<Session<'a>, SearchError> {
    const ENTITIES: [&str; 5] = [
        "connectionSummary",
        "publisherSummary",
        "subscriberSummary",
        "userSummary",
        "recordingSummary",
    ];
    let of = |types: &[&str], limit: usize| Search {
        filters: vec![
            ("uniqueSessionId".to_owned(), vec![id.to_owned()]),
            ("elastic_type".to_owned(), types.iter().map(|name| (*name).to_owned()).collect()),
        ],
        sort: Sort::oldest(),
        limit,
        ..Search::default()
    };
    let summary = collect(index, of(&["sessionSummary"], 1), ANSWER_BYTES_MAX, whole).await?;
    let summary = summary.things.into_iter().next();
    let keep = |found: Found| {
        let kind = serde_json::from_str::<Named>(found.source.get()).ok()?.elastic_type;
        let json = strip(&found.source);
        let size = json.get().len();
        Some(((kind, json), size))
    };
    let entities = collect(index, of(&ENTITIES, LIMIT_MAX), ANSWER_BYTES_MAX / 2, keep).await?;
    let asked = old_events(summary.as_deref()).unwrap_or_else(|| of(&EVENTS, EVENTS_MAX));
    let events = collect(index, asked.clone(), ANSWER_BYTES_MAX / 4, whole).await?;
    let (mut facts, mut lacks_facts) = (Vec::new(), false);
    if events.total > events.things.len() as u64 {
        for search in telling(&asked) {
            let found = collect(index, search, ANSWER_BYTES_MAX / 16, whole).await?;
            lacks_facts |= found.is_cut || found.total > found.things.len() as u64;
            facts.extend(found.things);
        }
    }
    let mut by_kind: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for (kind, json) in entities.things {
        by_kind.entry(kind).or_default().push(json);
    }
    let mut of_kind = |kind: &str| by_kind.remove(kind).unwrap_or_default();
    Ok(Session {
        now: now(),
        open: None,
        present: None,
        problem_details: None,
        links: &[],
        summary: summary.map(|json| strip(&json)),
        users: of_kind("userSummary"),
        connections: of_kind("connectionSummary"),
        publishers: of_kind("publisherSummary"),
        subscribers: of_kind("subscriberSummary"),
        recordings: of_kind("recordingSummary"),
        total_events: events.total,
        events: events.things,
        facts,
        truncated: entities.is_cut || lacks_facts,
        error: None,
    })
}

/// Kinds of documents that are a session's events.
const EVENTS: [&str; 4] = ["cdr", "kms", "networkQualityStats", "webrtcDebug"];

/// Fields and the values of which each has to have one.
type Wanted = &'static [(&'static str, &'static [&'static str])];

/// Which events tell how a session went, by kind and by what else they have: who came and went, what was recorded; what was sent;
/// where media failed; how good networks were.
const TELLING: [(&str, Wanted); 4] = [
    (
        "cdr",
        &[(
            "event",
            &[
                "sessionCreated",
                "sessionDestroyed",
                "participantJoined",
                "participantLeft",
                "recordingStatusChanged",
            ],
        )],
    ),
    (
        "cdr",
        &[
            ("event", &["webrtcConnectionCreated", "webrtcConnectionDestroyed"]),
            ("connection", &["OUTBOUND"]),
        ],
    ),
    (
        "kms",
        &[(
            "type",
            &[
                "IceComponentStateChange",
                "IceComponentStateChanged",
                "MediaFlowInStateChange",
                "MediaFlowInStateChanged",
            ],
        )],
    ),
    ("networkQualityStats", &[]),
];

/// Those of the events that `asked` finds.
fn telling(asked: &Search) -> impl Iterator<Item = Search> {
    let said = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    TELLING.iter().map(move |(kind, more)| {
        let mut search = asked.clone();
        search.filters.retain(|(field, _)| field != "elastic_type");
        search.filters.push(("elastic_type".to_owned(), said(&[kind])));
        search
            .filters
            .extend(more.iter().map(|(field, values)| ((*field).to_owned(), said(values))));
        search
    })
}

/// How to find the events of a session before OpenVidu 2.17, which name no `uniqueSessionId`: by its name and its time.
fn old_events(summary: Option<&RawValue>) -> Option<Search> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Old {
        session_id: String,
        created_at: i64,
        destroyed_at: i64,
        users: Users,
    }
    #[derive(Deserialize)]
    struct Users {
        #[serde(default)]
        content: Vec<User>,
    }
    #[derive(Deserialize)]
    struct User {
        session: Option<String>,
    }
    let old: Old = serde_json::from_str(summary?.get()).ok()?;
    old.users.content.first()?.session.as_ref()?;
    Some(Search {
        filters: vec![
            ("sessionId".to_owned(), vec![old.session_id]),
            ("elastic_type".to_owned(), EVENTS.map(str::to_owned).to_vec()),
        ],
        from: Some(old.created_at),
        to: Some(old.destroyed_at + 1),
        sort: Sort::oldest(),
        limit: EVENTS_MAX,
        ..Search::default()
    })
}

/// A summary without what is nested in it, and without lists of everybody: that stands beside it, or was not asked for.
fn strip(json: &RawValue) -> Json {
    const CONTAINERS: [&str; 5] =
        ["users", "recordings", "connections", "publishers", "subscribers"];
    let stripped = || -> serde_json::Result<Json> {
        let mut members: BTreeMap<String, Json> = serde_json::from_str(json.get())?;
        for name in CONTAINERS {
            if let Some(container) = members.get_mut(name) {
                let mut inner: BTreeMap<String, &RawValue> = serde_json::from_str(container.get())?;
                inner.remove("content");
                *container = serde_json::value::to_raw_value(&inner)?;
            }
        }
        for name in ["user", "connectionId"] {
            if members.get(name).is_some_and(|told| told.get().starts_with('[')) {
                members.remove(name);
            }
        }
        serde_json::value::to_raw_value(&members)
    };
    stripped().unwrap_or_else(|_| json.to_owned())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    total: u64,
    documents: Vec<Hit>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<usize>,
}

#[derive(Serialize)]
struct Hit {
    _id: String,
    _source: Json,
}

/// `GET /api/search?type=&FIELD=VALUE&q=&from=&to=&sort=&limit=&offset=`: documents of any kind.
pub(super) async fn search(
    State(app): State<Arc<App>>,
    Extension(reading): Extension<Arc<Reading>>,
    Query(parameters): Parameters,
) -> Response {
    let (search, room) = match begin(&reading, &parameters).await {
        Ok(begun) => begun,
        Err(refused) => return refused,
    };
    let offset = search.offset;
    let keep = |found: Found| {
        let size = found.source.get().len() + found.id.len();
        Some((Hit { _id: found.id, _source: found.source }, size))
    };
    match collect(&app.index, search, ANSWER_BYTES_MAX, keep).await {
        Ok(found) => room.answer(&Answer {
            total: found.total,
            next_offset: next_offset(&found, offset),
            truncated: found.is_cut,
            documents: found.things,
        }),
        Err(error) => search_failure(&error),
    }
}

/// A parameter that cannot be taken.
pub(super) struct Wrong {
    error: String,
    hint: String,
}

impl Wrong {
    /// What is wrong, and what would be right.
    pub(super) fn new(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { error: error.into(), hint: hint.into() }
    }

    pub(super) fn answer(&self) -> Response {
        failure(StatusCode::BAD_REQUEST, &self.error, &self.hint)
    }
}

/// The time that a parameter gives.
pub(super) fn time_of(name: &str, value: &str) -> Result<i64, Wrong> {
    let wrong =
        |_| Wrong::new(format!("{name}={value} is no time"), "times are milliseconds since 1970");
    value.parse().map_err(wrong)
}

/// Whether a field may have this value.
pub(super) fn has_such(field: &str, holds: Holds, value: &str) -> Result<(), Wrong> {
    let (is_such, what) = match holds {
        Holds::Number(_) | Holds::Whole(_) => {
            (value.parse::<f64>().is_ok_and(f64::is_finite), "a number")
        }
        Holds::Flag => (value.parse::<bool>().is_ok(), "true or false"),
        Holds::Date => (value.parse::<i64>().is_ok(), "a time, in milliseconds since 1970"),
        Holds::Text | Holds::Point | Holds::Span | Holds::Unsearched => (true, "a text"),
    };
    if is_such {
        return Ok(());
    }
    Err(Wrong::new(format!("{field} is {what}, and {value} is none"), format!("write {what}")))
}

/// Refuses what is given twice of parameters that have one value.
pub(super) fn each_once(parameters: &[(String, String)], names: &[&str]) -> Result<(), Wrong> {
    let count = |wanted: &str| parameters.iter().filter(|(name, _)| name == wanted).count();
    match names.iter().find(|name| count(name) > 1) {
        Some(name) => Err(Wrong::new(format!("{name} is given twice"), "give it once")),
        None => Ok(()),
    }
}

fn read_search(parameters: &[(String, String)]) -> Result<Search, Wrong> {
    each_once(parameters, &["q", "from", "to", "sort", "limit", "offset"])?;
    let mut search = Search { limit: 50, ..Search::default() };
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        let number = |most: usize| {
            value.parse().ok().filter(|number| *number <= most).ok_or_else(|| {
                Wrong::new(
                    format!("{name}={value} is no number of documents"),
                    format!("{name} is a whole number from 0 to {most}"),
                )
            })
        };
        match name.as_str() {
            "q" if value.len() > TEXT_BYTES_MAX => {
                let error = format!("q has more than {TEXT_BYTES_MAX} bytes");
                return Err(Wrong::new(error, "look for the rarest of its words"));
            }
            "q" => {
                let distinct: BTreeSet<String> = words(value).into_iter().collect();
                if distinct.len() > WORDS_MAX {
                    let error = format!("q has more than {WORDS_MAX} words");
                    return Err(Wrong::new(error, "look for the rarest of them"));
                }
                search.text.clone_from(value);
            }
            "from" => search.from = Some(time_of(name, value)?),
            "to" => search.to = Some(time_of(name, value)?),
            "limit" => search.limit = number(LIMIT_MAX)?,
            "offset" => search.offset = number(REACH_MAX)?,
            "sort" => {
                search.sort = value.parse().map_err(|()| {
                    Wrong::new(
                        format!("sort={value} is no order"),
                        "sort is a field that holds texts, times, numbers or flags, and a way: duration:down, timestamp:up",
                    )
                })?;
            }
            field => {
                let field = if field == "type" { "elastic_type" } else { field };
                let Some(holds) = fields::find(field) else {
                    let hint = "q, from, to, sort, limit and offset are those of every search; any other is a field of the documents";
                    return Err(Wrong::new(
                        format!("there is no parameter or field {field}"),
                        hint,
                    ));
                };
                has_such(field, holds, value)?;
                match search.filters.iter_mut().find(|(known, _)| known == field) {
                    Some((_, values)) => values.push(value.clone()),
                    None => search.filters.push((field.to_owned(), vec![value.clone()])),
                }
            }
        }
    }
    if search.from.zip(search.to).is_some_and(|(from, to)| from >= to) {
        return Err(Wrong::new("from is not before to", "times are milliseconds since 1970"));
    }
    Ok(search)
}
