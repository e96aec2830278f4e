//! Kibana and OpenSearch Dashboards: bringing the dashboards there.
//!
//! First everything is looked at: who answers, whether the space is there, and which objects of these names are. An object that
//! callscope has not made stops it; nothing is sent then. What is sent is one file, which the server takes as a whole or not at
//! all; its answer is believed only object by object.

use std::fmt::Write;

use bytes::Bytes;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use elasticsearch::http::transport::Transport;
use serde_json::{Value as Json, json};

use crate::config::KibanaConfig;
use crate::json;
use crate::panels::kibana::Flavour;
use crate::panels::{self, kibana};
use crate::sink::elasticsearch::SetupError;
use crate::transport::Server;
use crate::transport::escaped;

mod answer;
mod who;

pub use who::Who;

/// Between the parts of a form. No line of the file begins so: each is an object.
const BOUNDARY: &str = "callscope-dashboards";

/// One server that shows dashboards.
#[derive(Debug)]
pub struct Kibana {
    config: KibanaConfig,
    transport: Transport,
}

/// An object as it would be brought.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its type, such as `dashboard`.
    pub kind: String,
    /// The same in every space.
    pub id: String,
    /// For people.
    pub title: String,
    /// Whether an older one is replaced.
    pub is_there: bool,
}

/// What would be brought where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who answers.
    pub who: Who,
    /// Where it goes.
    pub path: String,
    /// What goes there.
    pub file: String,
    /// What is in it.
    pub objects: Vec<Object>,
    /// What could not be found out.
    pub warnings: Vec<String>,
}

/// What a server answered.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Kibana {
    /// Makes ready to reach the one that `config` names. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// If the address or the certificate cannot be used.
    pub fn new(config: &KibanaConfig) -> anyhow::Result<Self> {
        // What is asked for lies below a base path only if that ends so.
        let url = format!("{}/", config.url.trim_end_matches('/'));
        let server = Server {
            section: "kibana",
            setting: "url",
            url: &url,
            username: &config.username,
            password: &config.password,
            api_key: &config.api_key,
            ca: &config.ca,
            timeout: config.request_timeout,
        };
        Ok(Self { transport: server.connect()?, config: config.clone() })
    }

    /// What would be brought, over the index or alias of this name. Nothing is changed.
    ///
    /// # Errors
    ///
    /// If nobody answers, or somebody else, or the server refuses, or an object of ours is somebody else's; the message says what
    /// to do.
    pub async fn plan(&self, index: &str) -> Result<Plan, SetupError> {
        let (who, warnings) = self.who().await?;
        self.find_place(&who).await?;
        let file = kibana::ndjson(panels::all(), index, who.flavour);
        let objects: Vec<Json> =
            file.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let there = self.look(&who, &objects).await?;
        let foreign: Vec<&Json> = there.iter().filter(|object| !kibana::is_ours(object)).collect();
        if !foreign.is_empty() {
            return Err(SetupError::Refused(anyhow::anyhow!(
                "{} {} there and not made by callscope, so nothing is changed; delete {}, or set another kibana.space",
                named(foreign.iter().copied()),
                if foreign.len() == 1 { "is" } else { "are" },
                if foreign.len() == 1 { "it" } else { "them" },
            )));
        }
        let is_there = |object: &Json| there.iter().any(|one| is_same(one, object));
        let objects = objects
            .iter()
            .map(|object| Object {
                kind: text(object, "/type"),
                id: text(object, "/id"),
                title: title(object),
                is_there: is_there(object),
            })
            .collect();
        let path = self.path(&who, "saved_objects/_import?overwrite=true");
        Ok(Plan { who, path, file, objects, warnings })
    }

    /// Brings what `plan` says, and gives what an operator should know.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses; each object that it did not take is named with the reason.
    pub async fn bring(&self, plan: &Plan) -> Result<Vec<String>, SetupError> {
        let body = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"callscope.ndjson\"\r\n\
             content-type: application/ndjson\r\n\r\n{}\r\n--{BOUNDARY}--\r\n",
            plan.file
        );
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let answer = self.send(&plan.who, Method::Post, &plan.path, &kind, Some(body)).await?;
        let told = self.read(&answer, "dashboards")?;
        answer::judge(&told, &plan.objects)
    }

    /// Objects of ours, and others of their names, that are there.
    async fn look(&self, who: &Who, objects: &[Json]) -> Result<Vec<Json>, SetupError> {
        let mut wanted: Vec<Json> = objects
            .iter()
            .map(|object| json!({ "type": object.get("type"), "id": object.get("id") }))
            .collect();
        let path = self.path(who, "saved_objects/_export");
        // The server names all that is missing at once, and gives nothing then; so it is asked again for the others.
        for _ in 0..2 {
            if wanted.is_empty() {
                return Ok(Vec::new());
            }
            let body = json!({ "objects": wanted, "excludeExportDetails": true, "includeReferencesDeep": false });
            let answer = self
                .send(who, Method::Post, &path, "application/json", Some(body.to_string()))
                .await?;
            if answer.status == 400 {
                let missing = answer::missing(&answer.body);
                if let Some(missing) = missing {
                    wanted.retain(|object| !missing.iter().any(|one| is_same(one, object)));
                    continue;
                }
            }
            self.accept(&answer, "objects that are there already")?;
            let lines = String::from_utf8_lossy(&answer.body);
            let read: Result<Vec<Json>, _> = lines
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(serde_json::from_str)
                .collect();
            let there = read.map_err(|_| self.not_a_kibana(&answer))?;
            // What is kept back may be somebody else's.
            let is_told = |object: &Json| there.iter().any(|one| is_same(one, object));
            return if wanted.iter().all(is_told) {
                Ok(there)
            } else {
                Err(self.not_a_kibana(&answer))
            };
        }
        Err(SetupError::Away(anyhow::anyhow!("objects change while they are looked at; try again")))
    }

    /// The path of an API in the space.
    fn path(&self, who: &Who, api: &str) -> String {
        match (who.flavour, self.config.space.as_str()) {
            (Flavour::Kibana, space) if !space.is_empty() && space != "default" => {
                format!("/s/{}/api/{api}", escaped(space))
            }
            _ => format!("/api/{api}"),
        }
    }

    async fn send(
        &self,
        who: &Who,
        method: Method,
        path: &str,
        kind: &str,
        body: Option<String>,
    ) -> Result<Answer, SetupError> {
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_str(kind).unwrap_or(HeaderValue::from_static("*/*"));
        headers.insert(CONTENT_TYPE, kind);
        match who.flavour {
            Flavour::Kibana => {
                headers.insert("kbn-xsrf", HeaderValue::from_static("callscope"));
            }
            Flavour::OpenSearch => {
                headers.insert("osd-xsrf", HeaderValue::from_static("callscope"));
                let tenant =
                    if self.config.space.is_empty() { "global" } else { &self.config.space };
                if let Ok(tenant) = HeaderValue::from_str(tenant) {
                    // Without it, dashboards go where only the account that brings them sees them.
                    headers.insert(HeaderName::from_static("securitytenant"), tenant);
                }
            }
        }
        self.ask(method, path, headers, body).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Option<String>,
    ) -> Result<Answer, SetupError> {
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let query: Option<&()> = None;
        let timeout = Some(self.config.request_timeout);
        let sent = async {
            let body = body.map(Bytes::from);
            let response = self.transport.send(method, path, headers, query, body, timeout).await?;
            let (status, headers) = (response.status_code().as_u16(), response.headers().clone());
            anyhow::Ok(Answer { status, headers, body: response.bytes().await? })
        };
        sent.await.map_err(|error| {
            let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<reqwest::Error>());
            if causes.any(reqwest::Error::is_redirect) {
                let what = "sends on and on to another address, as a page for logging in does";
                return SetupError::Refused(anyhow::anyhow!(
                    "{}{path} {what}; see kibana.url, kibana.username, .password and .api_key, and what stands in front of it",
                    self.url()
                ));
            }
            let span = humantime::format_duration(self.config.request_timeout);
            SetupError::Away(error.context(format!(
                "no answer from {}{path}; see kibana.url, and kibana.request_timeout, which is {span}",
                self.url()
            )))
        })
    }

    /// An answer of success as JSON.
    fn read(&self, answer: &Answer, what: &str) -> Result<Json, SetupError> {
        self.accept(answer, what)?;
        serde_json::from_slice(&answer.body).map_err(|_| self.not_a_kibana(answer))
    }

    /// Whether an answer tells of success; if not, what to do.
    fn accept(&self, answer: &Answer, what: &str) -> Result<(), SetupError> {
        let status = answer.status;
        let reason = answer::reason(&answer.body);
        match status {
            200..=299 => Ok(()),
            401 | 403 => Err(SetupError::Denied(anyhow::anyhow!(
                "{what}: {} refuses (status {status}: {reason}); see kibana.username, .password and .api_key, and that they may manage saved objects in the space",
                self.url()
            ))),
            429 | 500..=599 => {
                Err(SetupError::Away(anyhow::anyhow!("{what}: status {status}: {reason}")))
            }
            _ => Err(SetupError::Refused(anyhow::anyhow!(
                "{what}: {} refuses (status {status}: {reason})",
                self.url()
            ))),
        }
    }

    fn not_a_kibana(&self, answer: &Answer) -> SetupError {
        let begins = String::from_utf8_lossy(&answer.body);
        SetupError::Refused(anyhow::anyhow!(
            "{} is neither Kibana nor OpenSearch Dashboards: it answers with status {} and {:?}; see kibana.url, whether it lacks a base path, and what stands in front of it",
            self.url(),
            answer.status,
            json::prefix(begins.trim(), 60)
        ))
    }

    fn url(&self) -> &str {
        self.config.url.trim_end_matches('/')
    }
}

fn is_same(left: &Json, right: &Json) -> bool {
    left.get("type") == right.get("type") && left.get("id") == right.get("id")
}

fn text(object: &Json, pointer: &str) -> String {
    object.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// What people call an object.
fn title(object: &Json) -> String {
    let title = ["/attributes/title", "/attributes/name"].map(|pointer| text(object, pointer));
    title.into_iter().find(|title| !title.is_empty()).unwrap_or_default()
}

/// Objects by type, id and title.
fn named<'o>(objects: impl Iterator<Item = &'o Json>) -> String {
    let mut names = String::new();
    for object in objects {
        let between = if names.is_empty() { "" } else { ", " };
        let (kind, id) = (text(object, "/type"), text(object, "/id"));
        let _written = write!(names, "{between}{kind} {id} ({:?})", title(object));
    }
    names
}
