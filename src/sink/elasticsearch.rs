//! Elasticsearch 8 and 9, OpenSearch 2 and 3 as a sink.
//!
//! Documents go out in bulk requests bounded by bytes and number, several at once. Raw documents are created, summaries are
//! indexed with an external version, so the order in which requests arrive does not matter: an older version never takes
//! the place of a newer one, also where both are in flight. What an answer means is decided in [`answer`]. [`write`](Sink::write)
//! goes on for as long as it takes: growing, jittered delays while the store is away, half as many requests while it is
//! busy, a pause with a reason while somebody has to cure something.
//!
//! An index of a past period may be blocked for good (read-only, closed by its lifecycle). If the index of the present takes
//! documents, those for a blocked one of the past become dead letters and do not hold up the rest.
//!
//! Of the `elasticsearch` crate only the transport is used: its clients neither repeat nor time out by themselves.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::Method;
use elasticsearch::http::headers::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Sink, SinkError, SinkStatus, StatusSender, Written, index_name};
use crate::config::ElasticsearchConfig;
use crate::document::Document;
use crate::json::Object;

pub mod answer;
mod query;
mod setup;

pub use setup::Step;

use answer::{Reply, Verdict};

/// First and longest delay before something is tried again.
const DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A document that the store fails on this often, while it takes others, is the document's fault.
const FAILURES_MAX: u8 = 5;

/// A cluster, reached by one or more addresses.
#[derive(Debug)]
pub struct ElasticsearchSink {
    config: ElasticsearchConfig,
    /// All nodes but one, which is there in any case.
    others: Vec<Node>,
    first: Node,
    next: AtomicUsize,
    stop: CancellationToken,
    status: StatusSender,
    is_ready: AtomicBool,
}

#[derive(Debug)]
struct Node {
    url: String,
    transport: Transport,
    /// Until when it is left alone after a failure, and for how long the next time.
    rest: Mutex<(Option<Instant>, Duration)>,
}

/// An answer, whatever it says.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Bytes,
}

impl ElasticsearchSink {
    /// Reaches the cluster that `config` names. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// If an address or a certificate cannot be used.
    pub fn new(
        config: &ElasticsearchConfig,
        stop: CancellationToken,
        status: StatusSender,
    ) -> anyhow::Result<Self> {
        let mut nodes = config
            .urls
            .iter()
            .map(|url| Node::new(url, config))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let first = nodes.pop().ok_or_else(|| anyhow::anyhow!("elasticsearch.urls is empty"))?;
        Ok(Self {
            config: config.clone(),
            others: nodes,
            first,
            next: AtomicUsize::new(0),
            stop,
            status,
            is_ready: AtomicBool::new(false),
        })
    }

    /// Sends one request to a node that is not resting.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> anyhow::Result<Answer> {
        let node = self.pick();
        let timeout = Some(self.config.request_timeout);
        let query: Option<&()> = None;
        let sent = async {
            let response = node.transport.send(method, path, headers, query, body, timeout).await?;
            let status = response.status_code().as_u16();
            anyhow::Ok(Answer { status, body: response.bytes().await? })
        };
        match sent.await {
            Ok(answer) => {
                node.rest(answer.status == 502 || answer.status == 503 || answer.status == 504);
                Ok(answer)
            }
            Err(error) => {
                node.rest(true);
                Err(error.context(format!("no answer from {}", node.url)))
            }
        }
    }

    /// The next node in turn that is not resting, else the one that rests least.
    fn pick(&self) -> &Node {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        let nodes = || self.others.iter().chain([&self.first]);
        let turn = nodes().skip(turn).chain(nodes().take(turn));
        let resting = |node: &&Node| {
            let rest = node.rest.lock().unwrap_or_else(PoisonError::into_inner).0;
            rest.filter(|until| *until > Instant::now())
        };
        // `min_by_key` takes the first of equals, so nodes that do not rest take turns.
        turn.min_by_key(resting).unwrap_or(&self.first)
    }

    /// Asks, and reads the answer as JSON.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<(u16, serde_json::Value)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.send(method, path, headers, body.map(Bytes::from)).await?;
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }

    /// Sends some of `documents` as one bulk request.
    async fn bulk(&self, batch: Vec<usize>, documents: &[Document]) -> (Vec<usize>, Reply) {
        let body = self.encode(&batch, documents);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let body = if self.config.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            // Compression would hold up every other request on this thread.
            let compressed = tokio::task::spawn_blocking(move || {
                let mut encoder = flate2::write::GzEncoder::new(
                    Vec::with_capacity(body.len() / 4),
                    flate2::Compression::fast(),
                );
                encoder.write_all(&body).and_then(|()| encoder.finish())
            });
            match compressed.await.map_err(anyhow::Error::from).and_then(|result| Ok(result?)) {
                Ok(body) => body,
                Err(error) => return (batch, failed(&error)),
            }
        } else {
            body
        };
        let path = "/_bulk?filter_path=errors,items.*.status,items.*.error";
        match self.send(Method::Post, path, headers, Some(Bytes::from(body))).await {
            Ok(answer) => {
                let count = batch.len();
                (batch, answer::reply(answer.status, &answer.body, count))
            }
            Err(error) => (batch, failed(&error)),
        }
    }

    fn encode(&self, batch: &[usize], documents: &[Document]) -> Vec<u8> {
        let chosen = batch.iter().filter_map(|index| documents.get(*index));
        let mut body =
            Vec::with_capacity(chosen.clone().map(|document| document.json.len() + 128).sum());
        for document in chosen {
            let mut action = Object::with_capacity(112);
            action.text("_index", &index_name(&self.config, document.index_time));
            action.text("_id", &document.id);
            if let Some(version) = document.version {
                action.json("version", &version.to_string());
                action.text("version_type", "external_gte");
            }
            let name = if document.version.is_some() { "index" } else { "create" };
            body.extend_from_slice(format!("{{\"{name}\":{}}}\n", action.finish()).as_bytes());
            body.extend_from_slice(&document.json);
            body.push(b'\n');
        }
        body
    }

    /// Batches of indices into `documents`, bounded by bytes and number.
    fn batches(&self, documents: &[Document]) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut bytes = usize::MAX;
        for (index, document) in documents.iter().enumerate() {
            let size = document.json.len() + 128;
            let has_room =
                batches.last().is_some_and(|batch| batch.len() < self.config.bulk_documents.get());
            if has_room && bytes + size <= self.config.bulk_bytes.get() {
                bytes += size;
            } else {
                batches.push(Vec::new());
                bytes = size;
            }
            if let Some(batch) = batches.last_mut() {
                batch.push(index);
            }
        }
        batches
    }

    /// Whether the index of the present is blocked too, so that somebody has to cure the cluster rather than one index.
    async fn is_present_blocked(&self) -> bool {
        let index = index_name(&self.config, chrono::Utc::now().timestamp_millis());
        match self
            .ask(
                Method::Get,
                &format!("/{index}/_settings/index.blocks.*?flat_settings=true"),
                None,
            )
            .await
        {
            Ok((200, settings)) => settings.to_string().contains("\"true\""),
            // There is none yet: nothing blocks it.
            Ok((404, _)) => false,
            _ => true,
        }
    }

    fn tell(&self, status: SinkStatus) {
        self.status.send_if_modified(|known| {
            if *known == status {
                return false;
            }
            match &status {
                SinkStatus::Accepting => tracing::info!("sink accepts again"),
                SinkStatus::Waiting(reason) => tracing::warn!(reason, "sink is away, trying again"),
                SinkStatus::Paused(reason) => {
                    tracing::error!(reason, "sink refuses, paused until it is cured")
                }
            }
            *known = status;
            true
        });
    }

    async fn sleep(&self, delay: Duration) -> Result<(), SinkError> {
        tokio::select! {
            () = self.stop.cancelled() => Err(SinkError::Stopped),
            () = tokio::time::sleep(jittered(delay)) => Ok(()),
        }
    }
}

/// What is known of the documents of one call of `write`.
struct Work {
    answers: Vec<Option<Written>>,
    failures: Vec<u8>,
    queue: Vec<Vec<usize>>,
    /// Requests at once.
    width: usize,
    delay: Option<Duration>,
    status: SinkStatus,
    /// Documents whose index is blocked, with what the store said.
    blocked: Vec<(usize, String)>,
}

impl Work {
    fn judge(&mut self, batch: Vec<usize>, reply: Reply, width_max: usize) {
        match reply {
            Reply::Items(verdicts) => {
                let mut again = Vec::new();
                let mut is_busy = false;
                let mut has_success = false;
                for (index, verdict) in batch.into_iter().zip(verdicts) {
                    match verdict {
                        Verdict::Done(written) => {
                            has_success = true;
                            self.answer(index, written);
                        }
                        Verdict::Again { reason, is_busy: busy } => {
                            is_busy |= busy;
                            self.again(index, reason, busy, &mut again);
                        }
                        Verdict::Pause { reason, is_block: true } => {
                            self.blocked.push((index, reason))
                        }
                        Verdict::Pause { reason, .. } => {
                            self.slow(SinkStatus::Paused(reason));
                            again.push(index);
                        }
                    }
                }
                if is_busy {
                    self.width = (self.width / 2).max(1);
                } else if has_success {
                    self.width = (self.width + 1).min(width_max);
                }
                if has_success && again.is_empty() && self.blocked.is_empty() {
                    self.delay = None;
                    self.status = SinkStatus::Accepting;
                }
                if !again.is_empty() {
                    self.queue.push(again);
                }
            }
            Reply::Halve(reason) => match batch.as_slice() {
                [index] => self.answer(*index, Written::Dead(reason.into())),
                _ => {
                    let (left, right) = batch.split_at(batch.len() / 2);
                    self.queue.extend([right.to_vec(), left.to_vec()]);
                }
            },
            Reply::All(Verdict::Pause { reason, .. }) => {
                self.slow(SinkStatus::Paused(reason));
                self.queue.push(batch);
            }
            Reply::All(Verdict::Again { reason, is_busy }) => {
                if is_busy {
                    self.width = (self.width / 2).max(1);
                }
                self.slow(SinkStatus::Waiting(reason));
                self.queue.push(batch);
            }
            Reply::All(Verdict::Done(written)) => {
                for index in batch {
                    self.answer(index, written.clone());
                }
            }
        }
    }

    fn answer(&mut self, index: usize, written: Written) {
        if let Some(slot) = self.answers.get_mut(index) {
            *slot = Some(written);
        }
    }

    fn again(&mut self, index: usize, reason: String, is_busy: bool, again: &mut Vec<usize>) {
        let failures = self.failures.get_mut(index);
        let count = failures.map_or(0, |count| {
            *count += u8::from(!is_busy);
            *count
        });
        if count >= FAILURES_MAX {
            self.answer(index, Written::Dead(format!("failed {count} times: {reason}").into()));
        } else {
            again.push(index);
            self.slow(SinkStatus::Waiting(reason));
        }
    }

    fn slow(&mut self, status: SinkStatus) {
        self.delay = Some(self.delay.map_or(DELAY.0, |delay| (delay * 2).min(DELAY.1)));
        self.status = status;
    }
}

impl Sink for ElasticsearchSink {
    async fn setup(&self) -> Result<(), SinkError> {
        let mut delay = DELAY.0;
        loop {
            match self.set_up().await {
                Ok(()) => {
                    self.tell(SinkStatus::Accepting);
                    return Ok(());
                }
                Err(setup::SetupError::Refused(error)) => {
                    return Err(SinkError::Misconfigured(error));
                }
                Err(setup::SetupError::Away(error)) => {
                    self.tell(SinkStatus::Waiting(format!("{error:#}")))
                }
            }
            self.sleep(delay).await?;
            delay = (delay * 2).min(DELAY.1);
        }
    }

    async fn write(&self, documents: &[Document]) -> Result<Vec<Written>, SinkError> {
        if !self.is_ready.load(Ordering::Relaxed) {
            self.wait_for_template().await?;
        }
        let width_max = self.config.requests_max.get();
        let mut work = Work {
            answers: vec![None; documents.len()],
            failures: vec![0; documents.len()],
            queue: self.batches(documents),
            width: width_max,
            delay: None,
            status: SinkStatus::Accepting,
            blocked: Vec::new(),
        };
        work.queue.reverse();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < work.width
                && let Some(batch) = work.queue.pop()
            {
                under_way.push(self.bulk(batch, documents));
            }
            let Some((batch, reply)) = (tokio::select! {
                () = self.stop.cancelled() => return Err(SinkError::Stopped),
                done = under_way.next() => done,
            }) else {
                break;
            };
            work.judge(batch, reply, width_max);
            if !work.blocked.is_empty() {
                self.settle_blocked(&mut work, documents).await;
            }
            self.tell(work.status.clone());
            if let Some(delay) = work.delay {
                self.sleep(delay).await?;
            }
        }
        let answers = work
            .answers
            .into_iter()
            .map(|answer| answer.unwrap_or(Written::Dead("never answered".into())));
        Ok(answers.collect())
    }
}

impl ElasticsearchSink {
    /// Documents of a blocked index wait, unless it is one of the past and the present goes on without it.
    async fn settle_blocked(&self, work: &mut Work, documents: &[Document]) {
        let present = index_name(&self.config, chrono::Utc::now().timestamp_millis());
        let is_past = |index: &usize| {
            documents
                .get(*index)
                .is_some_and(|document| index_name(&self.config, document.index_time) < present)
        };
        let is_cluster_wide = self.is_present_blocked().await;
        let mut again = Vec::new();
        for (index, reason) in std::mem::take(&mut work.blocked) {
            if is_past(&index) && !is_cluster_wide {
                work.answer(index, Written::Dead(reason.into()));
            } else {
                work.slow(SinkStatus::Paused(reason));
                again.push(index);
            }
        }
        if !again.is_empty() {
            work.queue.push(again);
        }
    }

    /// Without the template the first document would make an index with guessed types, which nothing mends later.
    async fn wait_for_template(&self) -> Result<(), SinkError> {
        let mut delay = DELAY.0;
        loop {
            match self
                .ask(Method::Get, &format!("/_index_template/{}", self.template_name()), None)
                .await
            {
                Ok((200, _)) => {
                    self.is_ready.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Ok((404, _)) => self.tell(SinkStatus::Paused(
                    "the index template is missing; run `callscope setup`, or set sink.setup"
                        .to_owned(),
                )),
                Ok((status, body)) => {
                    self.tell(SinkStatus::Paused(format!("status {status}: {body}")))
                }
                Err(error) => self.tell(SinkStatus::Waiting(format!("{error:#}"))),
            }
            self.sleep(delay).await?;
            delay = (delay * 2).min(DELAY.1);
        }
    }
}

fn failed(error: &anyhow::Error) -> Reply {
    Reply::All(Verdict::Again { reason: format!("{error:#}"), is_busy: false })
}

/// Between half of `delay` and all of it, so that many do not come back at once.
fn jittered(delay: Duration) -> Duration {
    let random = xxhash_rust::xxh3::xxh3_64(uuid::Uuid::now_v7().as_bytes());
    let parts = u32::try_from(random % 512).unwrap_or(0);
    delay / 2 + delay / 1024 * parts
}

impl Node {
    fn new(url: &str, config: &ElasticsearchConfig) -> anyhow::Result<Self> {
        use anyhow::Context;
        let parsed =
            url.parse().with_context(|| format!("elasticsearch.urls: {url:?} is no address"))?;
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(parsed))
            .enable_meta_header(false)
            .disable_proxy()
            .timeout(config.request_timeout);
        if !config.api_key.is_empty() {
            builder = builder.auth(Credentials::EncodedApiKey(config.api_key.expose().to_owned()));
        } else if !config.username.is_empty() {
            let credentials =
                Credentials::Basic(config.username.clone(), config.password.expose().to_owned());
            builder = builder.auth(credentials);
        }
        if !config.ca.is_empty() {
            let pem = std::fs::read(&config.ca)
                .with_context(|| format!("cannot read elasticsearch.ca {}", config.ca))?;
            let certificate = Certificate::from_pem(&pem).with_context(|| {
                format!("elasticsearch.ca {} holds no certificate in PEM form", config.ca)
            })?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        let transport =
            builder.build().with_context(|| format!("cannot use elasticsearch.urls {url:?}"))?;
        Ok(Self { url: url.to_owned(), transport, rest: Mutex::new((None, DELAY.0)) })
    }

    /// Leaves the node alone for a while after a failure, longer each time.
    fn rest(&self, has_failed: bool) {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        *rest = if has_failed {
            (Some(Instant::now() + jittered(rest.1)), (rest.1 * 2).min(DELAY.1))
        } else {
            (None, DELAY.0)
        };
    }
}
