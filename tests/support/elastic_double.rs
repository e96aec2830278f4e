//! A small Elasticsearch that stores documents by id and version, and fails as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

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
    faults: VecDeque<Fault>,
    /// Documents whose id begins so are refused for good with 400.
    poison: Option<&'static str>,
    /// Requests with more documents than this are answered 413.
    documents_max: Option<usize>,
    /// Indices that refuse writing.
    blocked: Vec<String>,
    requests: usize,
}

/// A running double.
#[derive(Debug, Clone)]
pub struct Double {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Double {
    pub async fn start() -> Self {
        let inner = Arc::new(Mutex::new(Inner::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, inner }
    }

    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner.lock().unwrap().faults.extend(faults);
    }

    pub fn poison(&self, prefix: &'static str) {
        self.inner.lock().unwrap().poison = Some(prefix);
    }

    pub fn documents_max(&self, documents_max: usize) {
        self.inner.lock().unwrap().documents_max = Some(documents_max);
    }

    pub fn block(&self, indices: &[&str]) {
        self.inner.lock().unwrap().blocked =
            indices.iter().map(|index| (*index).to_owned()).collect();
    }

    /// Id to index, version and document.
    pub fn documents(&self) -> BTreeMap<String, (String, Option<u64>, Value)> {
        self.inner.lock().unwrap().documents.clone()
    }

    pub fn requests(&self) -> usize {
        self.inner.lock().unwrap().requests
    }
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path();
    if path.starts_with("/_index_template/") {
        return axum::Json(json!({})).into_response();
    }
    if let Some(index) =
        path.strip_suffix("/_settings/index.blocks.*").and_then(|path| path.strip_prefix('/'))
    {
        let is_blocked = inner.lock().unwrap().blocked.iter().any(|blocked| blocked == index);
        return axum::Json(
            json!({ index: { "settings": { "index.blocks.write": is_blocked.to_string() } } }),
        )
        .into_response();
    }
    assert_eq!(path, "/_bulk");
    let mut text = String::new();
    if headers.get("content-encoding").is_some() {
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(body.to_vec()).unwrap();
    }
    bulk(&mut inner.lock().unwrap(), &text)
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
    let refused = |status: u16, kind: &str| json!({ name: { "status": status, "error": { "type": kind, "reason": "because" } } });
    if let Some((status, kind)) = refusal {
        return refused(status, kind);
    }
    if inner.poison.is_some_and(|prefix| id.starts_with(prefix)) {
        return refused(400, "document_parsing_exception");
    }
    if inner.blocked.iter().any(|blocked| blocked == index) {
        return refused(403, "cluster_block_exception");
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
