//! The API: sessions, open and ended, one session in full, and a search over everything.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{App, troubles};
use crate::search::{Found, LIMIT_MAX, Order, Page, Search, SearchError};

/// Query parameters, as they come.
type Parameters = Query<Vec<(String, String)>>;

/// Most events of one session that are shown.
const EVENTS_MAX: usize = 1000;

/// An error as JSON: what is wrong, and what to do.
pub(super) fn failure(status: StatusCode, error: &str, hint: &str) -> Response {
    (status, axum::Json(json!({ "error": error, "hint": hint }))).into_response()
}

fn search_failure(error: &SearchError) -> Response {
    match error {
        SearchError::Refused(reason) => failure(StatusCode::BAD_REQUEST, reason, "ask for less"),
        SearchError::Unavailable(_) => {
            failure(StatusCode::SERVICE_UNAVAILABLE, &error.to_string(), "see /readyz")
        }
    }
}

/// `GET /api/sessions?q=&from=&to=&limit=&offset=`: the open sessions, and those that ended, newest first.
pub(super) async fn sessions(
    State(app): State<Arc<App>>,
    Query(parameters): Parameters,
) -> Response {
    let mut search = match read_search(&parameters) {
        Ok(search) => search,
        Err(reason) => {
            return failure(StatusCode::BAD_REQUEST, &reason, "times are milliseconds since 1970");
        }
    };
    search.filters.push(("elastic_type".to_owned(), vec!["sessionSummary".to_owned()]));
    let live = Arc::clone(&app.live.borrow());
    let (page, error) = match app.index.search(search).await {
        Ok(page) => (page, None),
        Err(error @ SearchError::Refused(_)) => return search_failure(&error),
        // What is open is known without the index.
        Err(error) => (Page::default(), Some(error.to_string())),
    };
    let ended: Vec<Value> = page.documents.iter().map(without_content).collect();
    let body = json!({
        "now": chrono::Utc::now().timestamp_millis(),
        "live": *live,
        "total": page.total,
        "ended": ended,
        "error": error,
        "troubles": troubles(&app),
    });
    axum::Json(body).into_response()
}

/// A session summary without what is nested in it.
fn without_content(found: &Found) -> Value {
    let mut json: Value = serde_json::from_str(found.source.get()).unwrap_or_default();
    for name in ["users", "recordings"] {
        if let Some(container) = json.get_mut(name).and_then(Value::as_object_mut) {
            container.remove("content");
        }
    }
    json
}

/// `GET /api/sessions/{uniqueSessionId}`: everything that is known of one session.
pub(super) async fn session(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let of = |types: &[&str], limit: usize| Search {
        filters: vec![
            ("uniqueSessionId".to_owned(), vec![id.clone()]),
            ("elastic_type".to_owned(), types.iter().map(|name| (*name).to_owned()).collect()),
        ],
        order: Order::Oldest,
        limit,
        ..Search::default()
    };
    let summaries = [
        "connectionSummary",
        "publisherSummary",
        "subscriberSummary",
        "userSummary",
        "recordingSummary",
    ];
    let mut pages = Vec::new();
    for search in [of(&["sessionSummary"], 1), of(&summaries, LIMIT_MAX)] {
        match app.index.search(search).await {
            Ok(page) => pages.push(page),
            Err(error) => return search_failure(&error),
        }
    }
    let summary = pages.first().and_then(|page| page.documents.first());
    let events = old_events(summary).unwrap_or_else(|| of(&EVENTS, EVENTS_MAX));
    match app.index.search(events).await {
        Ok(page) => pages.push(page),
        Err(error) => return search_failure(&error),
    }
    let parse = |page: &Page| -> Vec<Value> {
        page.documents
            .iter()
            .filter_map(|found| serde_json::from_str(found.source.get()).ok())
            .collect()
    };
    let parsed: Vec<Vec<Value>> = pages.iter().map(parse).collect();
    let [summary, entities, events] = parsed.as_slice() else {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "incomplete answer", "try again");
    };
    let live = Arc::clone(&app.live.borrow());
    let open = live.sessions.iter().find(|open| open.unique_session_id == id);
    if summary.is_empty() && open.is_none() && events.is_empty() {
        return failure(
            StatusCode::NOT_FOUND,
            "no such session",
            "use the uniqueSessionId that /api/sessions gives",
        );
    }
    let of_type = |name: &str| -> Vec<&Value> {
        entities.iter().filter(|json| json["elastic_type"] == name).collect()
    };
    let body = json!({
        "now": chrono::Utc::now().timestamp_millis(),
        "open": open,
        "summary": summary.first().map(strip),
        "users": of_type("userSummary").into_iter().map(strip).collect::<Vec<_>>(),
        "connections": of_type("connectionSummary").into_iter().map(strip).collect::<Vec<_>>(),
        "publishers": of_type("publisherSummary"),
        "subscribers": of_type("subscriberSummary"),
        "recordings": of_type("recordingSummary"),
        "events": events,
        "totalEvents": pages.get(2).map_or(0, |page| page.total),
    });
    axum::Json(body).into_response()
}

/// Kinds of documents that are a session's events.
const EVENTS: [&str; 4] = ["cdr", "kms", "networkQualityStats", "webrtcDebug"];

/// How to find the events of a session before OpenVidu 2.17, which name no `uniqueSessionId`: by its name and its time.
fn old_events(summary: Option<&Found>) -> Option<Search> {
    let json: Value = serde_json::from_str(summary?.source.get()).ok()?;
    json.pointer("/users/content/0/session")?;
    Some(Search {
        filters: vec![
            ("sessionId".to_owned(), vec![json.get("sessionId")?.as_str()?.to_owned()]),
            ("elastic_type".to_owned(), EVENTS.map(str::to_owned).to_vec()),
        ],
        from: json.get("createdAt")?.as_i64(),
        to: json.get("destroyedAt")?.as_i64().map(|end| end + 1),
        order: Order::Oldest,
        limit: EVENTS_MAX,
        ..Search::default()
    })
}

/// A summary whose nested lists stand beside it in the same answer.
fn strip(json: &Value) -> Value {
    let mut json = json.clone();
    if let Some(members) = json.as_object_mut() {
        for name in ["users", "recordings", "connections", "publishers", "subscribers"] {
            if let Some(container) = members.get_mut(name).and_then(Value::as_object_mut) {
                container.remove("content");
            }
        }
    }
    json
}

/// `GET /api/search?type=&FIELD=VALUE&q=&from=&to=&order=&limit=&offset=`: documents of any kind.
pub(super) async fn search(State(app): State<Arc<App>>, Query(parameters): Parameters) -> Response {
    let search = match read_search(&parameters) {
        Ok(search) => search,
        Err(reason) => {
            return failure(StatusCode::BAD_REQUEST, &reason, "times are milliseconds since 1970");
        }
    };
    match app.index.search(search).await {
        Ok(page) => {
            let documents: Vec<Value> = page
                .documents
                .iter()
                .map(|found| json!({ "_id": found.id, "_source": found.source }))
                .collect();
            axum::Json(json!({ "total": page.total, "documents": documents })).into_response()
        }
        Err(error) => search_failure(&error),
    }
}

fn read_search(parameters: &[(String, String)]) -> Result<Search, String> {
    let mut search = Search { limit: 50, ..Search::default() };
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        let wrong = || format!("{name}={value} is no number within its bounds");
        match name.as_str() {
            "q" => search.text.clone_from(value),
            "from" => search.from = Some(value.parse().map_err(|_| wrong())?),
            "to" => search.to = Some(value.parse().map_err(|_| wrong())?),
            "limit" => {
                search.limit =
                    value.parse().ok().filter(|limit| *limit <= LIMIT_MAX).ok_or_else(wrong)?
            }
            "offset" => {
                search.offset =
                    value.parse().ok().filter(|offset| *offset <= 10_000).ok_or_else(wrong)?
            }
            "order" => {
                search.order = match value.as_str() {
                    "newest" => Order::Newest,
                    "oldest" => Order::Oldest,
                    _ => return Err(format!("order={value} is neither newest nor oldest")),
                }
            }
            field => {
                let field = if field == "type" { "elastic_type" } else { field };
                match search.filters.iter_mut().find(|(known, _)| known == field) {
                    Some((_, values)) => values.push(value.clone()),
                    None => search.filters.push((field.to_owned(), vec![value.clone()])),
                }
            }
        }
    }
    Ok(search)
}
