//! A small Elasticsearch that stores documents by id and version, and fails as it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What goes wrong with one bulk request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing is stored, no answer.
    RequestLost,
    /// Everything is stored, no answer.
    ReplyLost,
    /// Everything is stored, half an answer.
    CutBody,
    /// An answer for one document less.
    WrongCount,
    /// The whole request is refused with this status and `error.type`.
    Status(u16, &'static str),
    /// The items at these places are refused with status and `error.type`, the others are stored.
    Items(Vec<usize>, u16, &'static str),
}

#[derive(Debug, Default)]
struct Inner {
    documents: BTreeMap<String, (String, Option<u64>, Value)>,
    /// Ids of those that are found: they were there at the last refresh.
    found: BTreeSet<String>,
    faults: VecDeque<Fault>,
    /// Documents whose id begins so are refused for good with 400.
    poison: Option<&'static str>,
    /// Requests with more documents than this are answered 413.
    documents_max: Option<usize>,
    /// Index to what it answers to every write: status, `error.type`, reason.
    ill: BTreeMap<String, (u16, &'static str, &'static str)>,
    /// Documents whose id begins so are answered 500 as long as this stands.
    failing: Option<&'static str>,
    /// Answers to requests that are no bulk, by method and beginning of the path.
    answers: Vec<(Method, String, u16, Value)>,
    /// Index to the ids and documents that a search of it goes through, two of them an answer.
    searched: BTreeMap<String, Vec<(String, Value)>>,
    /// What was put where.
    kept: BTreeMap<String, Value>,
    /// Method, path with query, and body of requests that are no bulk.
    calls: Vec<(Method, String, Value)>,
    has_no_template: bool,
    requests: usize,
}

/// A running double.
#[derive(Debug, Clone)]
pub struct Double {
    pub address: SocketAddr,
    shared: Shared,
}

#[derive(Debug, Clone)]
struct Shared {
    inner: Arc<Mutex<Inner>>,
    /// Bulk and other requests that have arrived.
    arrived: watch::Sender<usize>,
    /// What requests wait for their answers: those whose path ends so.
    hangs: watch::Sender<Option<&'static str>>,
}

impl Double {
    pub async fn start() -> Self {
        let inner = Arc::new(Mutex::new(Inner::default()));
        let shared =
            Shared { inner, arrived: watch::Sender::new(0), hangs: watch::Sender::new(None) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap()
    }

    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner().faults.extend(faults);
    }

    pub fn poison(&self, prefix: &'static str) {
        self.inner().poison = Some(prefix);
    }

    pub fn documents_max(&self, documents_max: usize) {
        self.inner().documents_max = Some(documents_max);
    }

    pub fn block(&self, indices: &[&str]) {
        let reason = "blocked by: [FORBIDDEN/8/index write (api)];";
        self.ill(indices, 403, "cluster_block_exception", reason);
    }

    /// These indices answer so to every write, the others take documents.
    pub fn ill(&self, indices: &[&str], status: u16, kind: &'static str, reason: &'static str) {
        self.inner().ill =
            indices.iter().map(|index| ((*index).to_owned(), (status, kind, reason))).collect();
    }

    pub fn failing(&self, prefix: &'static str) {
        self.inner().failing = Some(prefix);
    }

    pub fn template(&self, is_there: bool) {
        self.inner().has_no_template = !is_there;
    }

    pub fn answers(&self, answers: &[(Method, &str, u16, Value)]) {
        let owned = |(method, path, status, body): &(Method, &str, u16, Value)| {
            (method.clone(), (*path).to_owned(), *status, body.clone())
        };
        self.inner().answers = answers.iter().map(owned).collect();
    }

    /// Whether requests wait for their answers, until this is taken back.
    pub fn hang(&self, hangs: bool) {
        self.shared.hangs.send_replace(hangs.then_some(""));
    }

    /// The same of searches alone.
    pub fn hang_searches(&self) {
        self.shared.hangs.send_replace(Some("/_search"));
    }

    pub fn calls(&self) -> Vec<(Method, String, Value)> {
        self.inner().calls.clone()
    }

    /// Waits until this many requests have arrived.
    pub async fn wait_for(&self, requests: usize) {
        self.shared.arrived.subscribe().wait_for(|arrived| *arrived >= requests).await.unwrap();
    }

    pub fn arrived(&self) -> usize {
        *self.shared.arrived.borrow()
    }

    /// Id to index, version and document.
    pub fn documents(&self) -> BTreeMap<String, (String, Option<u64>, Value)> {
        self.inner().documents.clone()
    }

    /// What a search of this index goes through; it knows no other queries than those for all and for some ids.
    pub fn searched(&self, index: &str, documents: &[(String, Value)]) {
        self.inner().searched.insert(index.to_owned(), documents.to_vec());
    }

    /// Index, version and document as they stood under `id`.
    pub fn put(&self, id: &str, document: (String, Option<u64>, Value)) {
        self.inner().documents.insert(id.to_owned(), document);
    }

    /// Somebody deletes a document.
    pub fn delete(&self, id: &str) {
        self.inner().documents.remove(id).unwrap();
    }

    pub fn requests(&self) -> usize {
        self.inner().requests
    }
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    shared.arrived.send_modify(|arrived| *arrived += 1);
    let is_answered = |hangs: &Option<&str>| hangs.is_none_or(|hangs| !uri.path().ends_with(hangs));
    shared.hangs.subscribe().wait_for(is_answered).await.unwrap();
    let mut text = String::new();
    if headers.get("content-encoding").is_some() {
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(body.to_vec()).unwrap();
    }
    let mut inner = shared.inner.lock().unwrap();
    if uri.path() == "/_bulk" {
        return bulk(&mut inner, &text);
    }
    let (status, body) = other(&mut inner, &method, &uri, &text);
    let status = StatusCode::from_u16(status).unwrap();
    match body {
        Value::String(text) => (status, text).into_response(),
        body => (status, axum::Json(body)).into_response(),
    }
}

fn other(inner: &mut Inner, method: &Method, uri: &Uri, body: &str) -> (u16, Value) {
    let path = uri.path();
    let body = serde_json::from_str(body).unwrap_or_default();
    inner.calls.push((method.clone(), uri.to_string(), body));
    let body = inner.calls.last().unwrap().2.clone();
    let told = inner.answers.iter().find(|(of, begin, ..)| {
        of == method && if begin == "/" { path == "/" } else { path.starts_with(begin) }
    });
    if let Some((_, _, status, body)) = told {
        return (*status, body.clone());
    }
    if method == Method::PUT {
        inner.kept.insert(path.to_owned(), body);
        return (200, json!({ "acknowledged": true }));
    }
    if path.ends_with("/_refresh") {
        if !body.is_null() {
            return (400, json!({ "error": { "reason": "does not support having a body" } }));
        }
        inner.found = inner.documents.keys().cloned().collect();
        return (200, json!({ "_shards": { "total": 1, "successful": 1, "failed": 0 } }));
    }
    if let Some(alias) = path.strip_prefix('/').and_then(|path| path.strip_suffix("/_count")) {
        let counted = inner.documents.iter().filter(|(id, (index, _, json))| {
            inner.found.contains(*id)
                && index.starts_with(&format!("{alias}-events-"))
                && !body["query"]["bool"]["must_not"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|query| matches(query, json))
        });
        return (200, json!({ "count": counted.count(), "_shards": { "failed": 0 } }));
    }
    if let Some(answer) = search(inner, path, &body) {
        return (200, answer);
    }
    let kept = inner.kept.get(path);
    match path {
        "/" => (200, json!({ "version": { "number": "9.5.3" } })),
        _ if path.starts_with("/_index_template/") => match kept {
            _ if inner.has_no_template => (404, json!({})),
            Some(body) => (200, json!({ "index_templates": [{ "index_template": body }] })),
            None => (200, json!({})),
        },
        _ if path.starts_with("/_ilm/") => match (kept, path.rsplit('/').next()) {
            (Some(body), Some(name)) => (200, json!({ name: { "policy": body["policy"] } })),
            _ => (404, json!({})),
        },
        _ => (404, json!({})),
    }
}

/// Pages of an index by the place that its name holds, or the documents with some ids.
fn search(inner: &Inner, path: &str, body: &Value) -> Option<Value> {
    let begun = path.strip_prefix('/').and_then(|path| path.strip_suffix("/_search"));
    let scrolled = body["scroll_id"].as_str().and_then(|place| place.split_once('@'));
    let (index, from) = begun.map(|index| (index, "0")).or(scrolled)?;
    let from: usize = from.parse().unwrap();
    let all = inner.searched.get(index)?;
    let hit = |(id, json): &(String, Value)| json!({ "_id": id, "_source": json });
    if let Some(ids) = body["query"]["ids"]["values"].as_array() {
        let hits = all.iter().filter(|(id, _)| ids.iter().any(|asked| asked == id)).map(hit);
        return Some(json!({ "hits": { "hits": hits.collect::<Vec<_>>() } }));
    }
    let hits: Vec<Value> = all.iter().skip(from).take(2).map(hit).collect();
    let scroll_id = format!("{index}@{}", from + 2);
    Some(json!({ "_scroll_id": scroll_id, "hits": { "hits": hits } }))
}

/// Whether a document is what one of these queries asks for.
fn matches(query: &Value, json: &Value) -> bool {
    let (kind, asked) = query.as_object().unwrap().iter().next().unwrap();
    let (field, asked) = asked.as_object().unwrap().iter().next().unwrap();
    match (kind.as_str(), asked) {
        ("terms", Value::Array(values)) => values.contains(&json[field]),
        ("wildcard", Value::String(pattern)) => {
            let end = pattern.strip_prefix('*').unwrap();
            json[field].as_str().is_some_and(|text| text.ends_with(end))
        }
        _ => panic!("the double knows no such query: {query}"),
    }
}

fn bulk(inner: &mut Inner, text: &str) -> Response {
    inner.requests += 1;
    let lines: Vec<&str> = text.lines().collect();
    let fault = inner.faults.pop_front();
    let error = |status: u16, kind: &str| {
        let body = json!({ "error": { "type": kind, "reason": "because" }, "status": status });
        (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
    };
    match &fault {
        Some(Fault::RequestLost) => return broken(),
        Some(Fault::Status(status, kind)) => return error(*status, kind),
        _ => {}
    }
    if inner.documents_max.is_some_and(|most| lines.len() / 2 > most) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let mut items: Vec<Value> = Vec::new();
    for (at, pair) in lines.chunks(2).enumerate() {
        let refusal = match &fault {
            Some(Fault::Items(places, status, kind)) if places.contains(&at) => {
                Some((*status, *kind))
            }
            _ => None,
        };
        items.push(item(inner, pair[0], pair[1], refusal));
    }
    let mut body = json!({ "errors": true, "items": items });
    match fault {
        Some(Fault::ReplyLost) => broken(),
        Some(Fault::CutBody) => body.to_string()[..10].to_owned().into_response(),
        Some(Fault::WrongCount) => {
            body["items"].as_array_mut().unwrap().pop();
            axum::Json(body).into_response()
        }
        _ => axum::Json(body).into_response(),
    }
}

fn item(inner: &mut Inner, action: &str, document: &str, refusal: Option<(u16, &str)>) -> Value {
    let action: Value = serde_json::from_str(action).unwrap();
    let (name, meta) = action.as_object().unwrap().iter().next().unwrap();
    let (id, index) = (meta["_id"].as_str().unwrap(), meta["_index"].as_str().unwrap());
    let version = meta["version"].as_u64();
    let because = |status: u16, kind: &str, reason: &str| json!({ name: { "status": status, "error": { "type": kind, "reason": reason } } });
    let refused = |status: u16, kind: &str| because(status, kind, "because");
    if let Some((status, kind)) = refusal {
        return refused(status, kind);
    }
    if inner.poison.is_some_and(|prefix| id.starts_with(prefix)) {
        return refused(400, "document_parsing_exception");
    }
    if inner.failing.is_some_and(|prefix| id.starts_with(prefix)) {
        return refused(500, "odd_exception");
    }
    if let Some((status, kind, reason)) = inner.ill.get(index) {
        return because(*status, kind, reason);
    }
    if !meta["if_seq_no"].is_null() {
        return refused(409, "version_conflict_engine_exception");
    }
    let known = inner.documents.get(id);
    let conflicts = match (name.as_str(), known) {
        ("create", known) => known.is_some(),
        (_, Some((_, known, _))) => version < *known,
        _ => false,
    };
    if conflicts {
        return refused(409, "version_conflict_engine_exception");
    }
    inner.documents.insert(
        id.to_owned(),
        (index.to_owned(), version, serde_json::from_str(document).unwrap()),
    );
    json!({ name: { "status": 201 } })
}

/// An answer whose body never ends well: the connection is closed in it.
fn broken() -> Response {
    let cut = futures_util::stream::iter([
        Ok(Bytes::from_static(b"{")),
        Err(std::io::Error::other("cut")),
    ]);
    Body::from_stream(cut).into_response()
}
