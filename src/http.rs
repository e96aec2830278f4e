//! HTTP: the webhook, the page and its API, metrics and health.
//!
//! The server takes a bounded number of connections, bounds head, body and time of each request, and on shutdown lets
//! requests under way finish. Every connection's task is joined.
//!
//! # Decisions
//!
//! * A full journal breaks the connection after holding the request for a while. OpenVidu's sender (2.18 and later) repeats
//!   an event after a broken connection, up to 5 times, but never after an answer, whatever its status; its time-out is 10 s.
//! * Bodies take turns: those that are read or held at once have a bound in bytes. While it is used up, others are not read,
//!   and their connections are broken after the same hold.
//! * Unknown sources are answered like wrong secrets, so that nobody can find out names; so is whatever else stands behind
//!   `/webhook/`, because OpenVidu never repeats what was answered, and 401 is what an operator looks for.
//! * Beyond loopback nothing is shown without `http.read_secrets`, unless asked for by name.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::compression::CompressionLayer;

use crate::command::AnyIndex;
use crate::config::{Config, HttpConfig, Link, Secret};
use crate::dead_letters::DeadLetters;
use crate::journal::Journal;
use crate::kafka::standing::Standing;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::rest::Trouble;
use crate::sink::SinkStatus;

mod access;
mod api;
mod guests;
mod listen;
mod page;
mod panels;
mod patience;
mod stats;
mod webhook;

use access::Access;
use guests::Guests;
use patience::Patience;
pub use stats::Door;
use stats::Peer;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be had.
    #[error(
        "cannot listen on {address}: {source}; set another http.listen, or stop whoever has it"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Everybody could write events.
    #[error(
        "http.listen is {address}, which others can reach, and [sources.{name}] has no secret: set sources.{name}.secrets, listen on 127.0.0.1, or set http.allow_without_secret"
    )]
    Open {
        /// The address.
        address: SocketAddr,
        /// A source without a secret.
        name: String,
    },
    /// Everybody could read everything.
    #[error(
        "http.listen is {address}, which others can reach, and there is no secret to read with: set http.read_secrets, listen on 127.0.0.1, or set http.allow_without_secret"
    )]
    Readable {
        /// The address.
        address: SocketAddr,
    },
}

/// What requests need.
#[derive(Debug)]
pub struct App {
    /// Source name to its secrets.
    pub secrets: BTreeMap<String, Vec<Secret>>,
    /// Where webhook bodies go.
    pub journal: Journal,
    /// The open sessions.
    pub live: watch::Receiver<Arc<Live>>,
    /// What was stored.
    pub index: AnyIndex,
    /// Whether documents are taken.
    pub sink: watch::Receiver<SinkStatus>,
    /// Why platforms do not tell by their REST API what they should.
    pub rest: Vec<Trouble>,
    /// Why the disk takes nothing at this moment.
    pub disk: watch::Receiver<Option<String>>,
    /// How this instance stands in its group, with Kafka.
    pub standing: Option<watch::Receiver<Standing>>,
    /// What could not be stored.
    pub dead_letters: Arc<DeadLetters>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where browsers report to.
    pub browsers: Door,
    /// Where else one can look into a session.
    pub links: Vec<Link>,
    /// Largest webhook body.
    pub body_bytes_max: usize,
    /// Bytes of bodies that may still be read; see [`bodies`].
    pub bodies: Semaphore,
    /// How long a body may take.
    pub idle_after: Duration,
    /// How long a request is held while the journal has no room; [`HOLD`], but for tests.
    pub hold: Duration,
}

/// OpenVidu gives a request up after 10 s; before that, its connection is broken so that it is repeated at once.
pub const HOLD: Duration = Duration::from_secs(9);

/// Bytes of webhook bodies that are read or held at once, unless a single one may be larger.
const BODIES_BYTES_MAX: usize = 64 << 20;

/// What [`App::bodies`] begins with, where the largest body has `body_bytes_max`.
#[must_use]
pub fn bodies(body_bytes_max: usize) -> Semaphore {
    Semaphore::new(BODIES_BYTES_MAX.max(body_bytes_max).min(u32::MAX as usize))
}

/// A server that has its address.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    config: HttpConfig,
}

/// Put on an answer that must not be sent: the connection is broken instead.
#[derive(Debug, Clone, Copy)]
struct Broken;

impl Bound {
    /// Takes the address.
    ///
    /// # Errors
    ///
    /// If it cannot be had, or would let everybody write or read.
    pub async fn bind(config: &Config) -> Result<Self, HttpError> {
        let address = config.http.listen;
        if !address.ip().is_loopback() && !config.http.allow_without_secret {
            let open = config.sources.iter().find(|(_, source)| source.secrets.is_empty());
            if let Some((name, _)) = open {
                return Err(HttpError::Open { address, name: name.clone() });
            }
            if config.http.read_secrets.is_empty() {
                return Err(HttpError::Readable { address });
            }
        }
        let listen = |source| HttpError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { listener, address, config: config.http.clone() })
    }

    /// The address it really got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then lets requests under way finish.
    pub async fn serve(self, app: Arc<App>, stop: CancellationToken) {
        let reading = Arc::new(api::Reading::new(stop.clone()));
        let router = router(Arc::clone(&app), Arc::clone(&reading), &self.config);
        let connections = Arc::new(Semaphore::new(self.config.connections_max.get()));
        let guests = Arc::new(Guests::new(self.config.connections_max.get() / 4));
        let tasks = TaskTracker::new();
        tasks.spawn(reading.watch(app.sink.clone()));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &connections) => accepted,
            };
            let (stream, peer, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: there will be some again.
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(guest) = Guests::enter(&guests, peer.0) else { continue };
            let (router, stop, config) = (router.clone(), stop.clone(), self.config.clone());
            tasks.spawn(async move {
                connection(stream, peer, router, &config, stop).await;
                drop((permit, guest));
            });
        }
        drop(self.listener);
        tasks.close();
        if tokio::time::timeout(self.config.drain_after, tasks.wait()).await.is_err() {
            tracing::warn!(count = tasks.len(), "requests were cut off after http.drain_after");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, Peer(peer.ip()), permit))
}

async fn connection(
    stream: tokio::net::TcpStream,
    peer: Peer,
    router: Router,
    config: &HttpConfig,
    stop: CancellationToken,
) {
    let service =
        hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer);
            let router = router.clone();
            async move {
                let response = answer(router, request.map(Body::new)).await;
                if response.extensions().get::<Broken>().is_some() {
                    return Err(std::io::Error::other("broken on purpose"));
                }
                Ok(response)
            }
        });
    let mut http = hyper::server::conn::http1::Builder::new();
    // The head's time-out is also how long a kept connection may be silent between requests.
    http.timer(TokioTimer::new())
        .header_read_timeout(config.idle_after)
        .max_buf_size(config.head_bytes_max.get().max(8192));
    let stream = Patience::new(stream, config.idle_after);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "connection ended");
    }
}

async fn answer(router: Router, request: Request) -> Response {
    use tower_service::Service;
    let mut router = router;
    let Ok(response) = <Router as Service<Request>>::call(&mut router, request).await
        as Result<Response, Infallible>;
    response
}

fn router(app: Arc<App>, reading: Arc<api::Reading>, config: &HttpConfig) -> Router {
    let counted = Arc::clone(&app);
    let access = Arc::new(Access::new(config));
    page::files()
        .route("/webhook", post(webhook::default_source))
        .route("/webhook/", post(webhook::default_source))
        .route("/webhook/{source}", post(webhook::named_source))
        .route("/webhook/{source}/", post(webhook::named_source))
        .route("/stats/{source}", post(stats::report).options(stats::permission))
        .route("/webhook/{source}/{*more}", post(|| async { webhook::refused() }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/sessions", get(api::sessions))
        .route("/api/sessions/{id}", get(api::session))
        .route("/api/search", get(api::search))
        .route("/api/dashboards", get(panels::dashboards))
        .route("/api/panels/{id}", get(panels::panel))
        .route("/api/values/{field}", get(panels::values))
        .route("/api/marks/{dashboard}", get(panels::marks))
        .route("/api/live", get(listen::live))
        .fallback(|| async {
            api::failure(
                StatusCode::NOT_FOUND,
                "no such path",
                "see / for the page, /api/sessions for data",
            )
        })
        .with_state(app)
        // Of the page, and of what is told as it happens, nothing is packed here: the one is already, the other comes in drops.
        .layer(CompressionLayer::new())
        .layer(axum::Extension(reading))
        .layer(axum::middleware::from_fn(move |request: Request, next: axum::middleware::Next| {
            let access = Arc::clone(&access);
            async move {
                match access.refusal(&request) {
                    Some(refused) => refused,
                    None => next.run(request).await,
                }
            }
        }))
        .layer(axum::middleware::from_fn(move |request: Request, next: axum::middleware::Next| {
            let app = Arc::clone(&counted);
            async move { count(&app.metrics, request, next).await }
        }))
}

/// Counts a request, and says what a browser may do with the answer.
async fn count(metrics: &Metrics, request: Request, next: axum::middleware::Next) -> Response {
    let path = match request.uri().path() {
        "/" | "/style.css" => "page",
        path if path.ends_with(".js") => "page",
        "/metrics" => "metrics",
        "/healthz" => "healthz",
        "/readyz" => "readyz",
        path if path.starts_with("/webhook") => "webhook",
        path if path.starts_with("/stats/") => "stats",
        path if path.starts_with("/api/") => "api",
        _ => "other",
    };
    let started = Instant::now();
    let mut response = next.run(request).await;
    metrics.http_request(path, response.status().as_u16(), started.elapsed().as_secs_f64());
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn metrics(axum::extract::State(app): axum::extract::State<Arc<App>>) -> Response {
    for (gauge, count) in [
        (&app.metrics.journal_bytes, app.journal.bytes()),
        (&app.metrics.journal_waiting, app.journal.waiting()),
        (&app.metrics.dead_letters, app.dead_letters.count()),
    ] {
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.encode()).into_response()
}

/// Reasons why events do not get through at this moment.
fn troubles(app: &App) -> Vec<String> {
    let mut troubles = Vec::new();
    match &*app.sink.borrow() {
        SinkStatus::Accepting => {}
        SinkStatus::Untried => troubles.push("the sink has not answered yet".to_owned()),
        SinkStatus::Waiting(reason) => troubles.push(format!("the sink is away: {reason}")),
        SinkStatus::Paused(reason) => troubles.push(format!("the sink refuses: {reason}")),
    }
    troubles.extend(app.disk.borrow().clone());
    troubles.extend(app.journal.troubles());
    if let Some(standing) = &app.standing {
        troubles.extend(standing.borrow().reasons());
    }
    troubles
}

fn warning((source, trouble): &Trouble) -> Option<String> {
    let told = trouble.borrow().clone()?;
    Some(format!("the REST API of source {source} does not tell what it should: {told}"))
}

async fn ready(axum::extract::State(app): axum::extract::State<Arc<App>>) -> Response {
    let reasons = troubles(&app);
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons });
    // Events get through all the same.
    let warnings: Vec<String> = app.rest.iter().filter_map(warning).collect();
    if let Some(body) = body.as_object_mut().filter(|_| !warnings.is_empty()) {
        body.insert("warnings".to_owned(), serde_json::json!(warnings));
    }
    if let Some(standing) = &app.standing
        && let Some(body) = body.as_object_mut()
    {
        body.insert("kafka".to_owned(), standing.borrow().json());
    }
    (status, axum::Json(body)).into_response()
}
