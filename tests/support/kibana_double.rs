//! A small Kibana, or OpenSearch Dashboards, that keeps saved objects by space or tenant, and refuses as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What is particular about one.
#[derive(Debug, Clone)]
pub struct Nature {
    pub is_opensearch: bool,
    pub version: &'static str,
    /// Whether the version is kept from this account.
    pub is_redacted: bool,
    /// Whether somebody stands in front who takes its own headers away.
    pub is_behind_proxy: bool,
    /// Path below which it answers.
    pub base: &'static str,
    /// Spaces or tenants besides the default one. A Kibana has others, OpenSearch Dashboards without the plugin none.
    pub places: Option<Vec<&'static str>>,
    /// What every request has to show.
    pub authorization: Option<&'static str>,
    /// The path that begins so is answered with this.
    pub answer: Option<(&'static str, u16, &'static str)>,
    /// Objects that are refused, with the error.
    pub refused: Vec<(&'static str, Value)>,
    /// Whether objects get other identifiers.
    pub renames: bool,
    pub hangs: bool,
}

impl Nature {
    pub fn kibana() -> Self {
        Self {
            is_opensearch: false,
            version: "8.17.0",
            is_redacted: false,
            is_behind_proxy: false,
            base: "",
            places: Some(vec!["calls"]),
            authorization: None,
            answer: None,
            refused: Vec::new(),
            renames: false,
            hangs: false,
        }
    }

    pub fn opensearch() -> Self {
        Self { is_opensearch: true, version: "2.19.1", ..Self::kibana() }
    }
}

/// Place, type and id.
pub type Name = (String, String, String);

#[derive(Debug)]
struct Inner {
    nature: Nature,
    objects: BTreeMap<Name, Value>,
    /// Method and path with query.
    calls: Vec<(Method, String)>,
}

/// A running double.
#[derive(Debug, Clone)]
pub struct Double {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Double {
    pub async fn start(nature: Nature) -> Self {
        let inner = Inner { nature, objects: BTreeMap::new(), calls: Vec::new() };
        let inner = Arc::new(Mutex::new(inner));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, inner }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.inner().nature.base)
    }

    pub fn objects(&self) -> BTreeMap<Name, Value> {
        self.inner().objects.clone()
    }

    pub fn put(&self, place: &str, object: &Value) {
        let name = name(place, object);
        self.inner().objects.insert(name, object.clone());
    }

    pub fn calls(&self) -> Vec<(Method, String)> {
        self.inner().calls.clone()
    }
}

fn name(place: &str, object: &Value) -> Name {
    let text = |name: &str| object[name].as_str().unwrap().to_owned();
    (place.to_owned(), text("type"), text("id"))
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if inner.lock().unwrap().nature.hangs {
        std::future::pending::<()>().await;
    }
    let mut inner = inner.lock().unwrap();
    inner.calls.push((method.clone(), uri.to_string()));
    let (status, told) = inner.answer(&method, &uri, &headers, &body);
    let status = StatusCode::from_u16(status).unwrap();
    let mut response = match told {
        Value::String(to) if status.is_redirection() => {
            (status, [(axum::http::header::LOCATION, to)]).into_response()
        }
        Value::String(text) => (status, text).into_response(),
        told => (status, axum::Json(told)).into_response(),
    };
    if !inner.nature.is_behind_proxy {
        let own = if inner.nature.is_opensearch { "osd-name" } else { "kbn-name" };
        response.headers_mut().insert(own, "double".parse().unwrap());
    }
    response
}

impl Inner {
    fn answer(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> (u16, Value) {
        let not_found =
            || (404, json!({ "statusCode": 404, "error": "Not Found", "message": "Not Found" }));
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(path) = uri.path().strip_prefix(self.nature.base) else { return not_found() };
        if let Some((begins, status, told)) = self.nature.answer
            && path.contains(begins)
        {
            return (status, json!(told));
        }
        if self.nature.authorization.is_some()
            && self.nature.authorization != header("authorization")
        {
            let told = json!({ "statusCode": 401, "error": "Unauthorized", "message": "security_exception" });
            return (401, told);
        }
        let (place, path) = match path.strip_prefix("/s/").and_then(|rest| rest.split_once('/')) {
            Some((space, rest)) if !self.nature.is_opensearch => (space, format!("/{rest}")),
            _ if self.nature.is_opensearch => {
                (header("securitytenant").unwrap_or("private"), path.to_owned())
            }
            _ => ("default", path.to_owned()),
        };
        if method == Method::POST {
            let wanted = if self.nature.is_opensearch { "osd-xsrf" } else { "kbn-xsrf" };
            if header(wanted).is_none() {
                let told = format!("Request must contain a {wanted} header.");
                return (
                    400,
                    json!({ "statusCode": 400, "error": "Bad Request", "message": told }),
                );
            }
        }
        match (path.as_str(), uri.query()) {
            ("/api/status", None) => (200, self.status()),
            ("/api/saved_objects/_export", None) => self.export(place, body),
            ("/api/saved_objects/_import", Some("overwrite=true")) => {
                let kind = header("content-type").unwrap();
                let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
                self.import(place, boundary, std::str::from_utf8(body).unwrap())
            }
            ("/api/v1/configuration/account", None) if self.nature.is_opensearch => {
                match &self.nature.places {
                    Some(places) => {
                        let tenants: Value =
                            places.iter().map(|place| ((*place).to_owned(), json!(true))).collect();
                        (200, json!({ "data": { "user_name": "u", "tenants": tenants } }))
                    }
                    None => not_found(),
                }
            }
            (path, None) => match path.strip_prefix("/api/spaces/space/") {
                Some(space) if self.nature.places.iter().flatten().any(|known| *known == space) => {
                    (200, json!({ "id": space, "name": space, "disabledFeatures": [] }))
                }
                _ => not_found(),
            },
            _ => not_found(),
        }
    }

    fn status(&self) -> Value {
        let Nature { version, is_opensearch, is_redacted, .. } = self.nature;
        let version = json!({ "number": version, "build_hash": "x", "build_number": 1, "build_snapshot": false });
        let overall = if is_opensearch || self.nature.version.starts_with('7') {
            json!({ "state": "green", "title": "Green", "nickname": "Looking good" })
        } else {
            json!({ "level": "available", "summary": "All services are available" })
        };
        let mut status = json!({ "status": { "overall": overall } });
        if !is_redacted {
            status["version"] = version;
            status["name"] = json!("double");
        }
        status
    }

    fn export(&self, place: &str, body: &Bytes) -> (u16, Value) {
        let asked: Value = serde_json::from_slice(body).unwrap();
        let (mut found, mut missing) = (String::new(), Vec::new());
        for asked in asked["objects"].as_array().unwrap() {
            match self.objects.get(&name(place, asked)) {
                Some(object) => found.push_str(&(object.to_string() + "\n")),
                None => {
                    let mut one = asked.clone();
                    let told =
                        format!("Saved object [{}/{}] not found", asked["type"], asked["id"]);
                    one["error"] =
                        json!({ "statusCode": 404, "error": "Not Found", "message": told });
                    missing.push(one);
                }
            }
        }
        if missing.is_empty() {
            return (200, json!(found.trim_end()));
        }
        let told = json!({
            "statusCode": 400, "error": "Bad Request", "message": "Error fetching objects to export",
            "attributes": { "objects": missing },
        });
        (400, told)
    }

    fn import(&mut self, place: &str, boundary: &str, body: &str) -> (u16, Value) {
        let parts: Vec<&str> = body.split(&format!("--{boundary}")).collect();
        assert!(parts.len() == 3 && parts[0].is_empty() && parts[2] == "--\r\n", "{parts:?}");
        let (head, file) = parts[1].split_once("\r\n\r\n").unwrap();
        assert!(head.contains("name=\"file\"") && head.contains(".ndjson\""), "{head}");
        let objects: Vec<Value> =
            file.trim_end().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let known: &[&str] = if self.nature.is_opensearch {
            &["index-pattern", "dashboard", "visualization", "search"]
        } else {
            &[
                "index-pattern",
                "dashboard",
                "visualization",
                "search",
                "tag",
                "map",
                "lens",
                "links",
            ]
        };
        let mut errors = Vec::new();
        for object in &objects {
            let refused = self.nature.refused.iter().find(|(id, _)| object["id"] == *id);
            let error = match refused {
                Some((_, error)) => error.clone(),
                None if known.contains(&object["type"].as_str().unwrap()) => continue,
                None => json!({ "type": "unsupported_type" }),
            };
            errors.push(
                json!({ "type": object["type"], "id": object["id"], "title": "", "error": error }),
            );
        }
        if !errors.is_empty() {
            return (
                200,
                json!({ "success": false, "successCount": 0, "errors": errors, "warnings": [] }),
            );
        }
        let result = |object: &Value| {
            let mut result = json!({ "type": object["type"], "id": object["id"] });
            if self.nature.renames {
                result["destinationId"] = json!("other");
            }
            result
        };
        let results: Vec<Value> = objects.iter().map(result).collect();
        let count = objects.len();
        self.objects.extend(objects.into_iter().map(|object| (name(place, &object), object)));
        (
            200,
            json!({ "success": true, "successCount": count, "successResults": results, "warnings": [] }),
        )
    }
}
