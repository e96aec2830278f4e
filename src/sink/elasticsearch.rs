//! Elasticsearch 8 and 9, OpenSearch 2 and 3 as a sink.
//!
//! Documents go out in bulk requests bounded by bytes and number, several at once. Raw documents are created, summaries are
//! indexed with an external version, so the order in which requests arrive does not matter: an older version never takes
//! the place of a newer one, also where both are in flight. What an answer means is decided in [`answer`]. [`write`](Sink::write)
//! goes on for as long as it takes: growing, jittered delays while the store is away, half as many requests while it is
//! busy, a pause with a reason while somebody has to cure something. What comes next is decided in `work`, and a single request is made in `bulk`.
//!
//! Of the `elasticsearch` crate only the transport is used: its clients neither repeat nor time out by themselves.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::Transport;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Sink, SinkError, SinkStatus, StatusSender, Written};
use crate::config::ElasticsearchConfig;
use crate::document::Document;
use crate::json;
use crate::metrics::Metrics;
use crate::transport::Server;

pub mod answer;
mod bulk;
pub mod difference;
mod query;
mod scan;
mod setup;
mod template;
mod work;

pub use setup::{Plan, SetupError, Step};

use work::Work;

/// First and longest delay before something is tried again.
const DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// What to do about answers that no search server gives.
const NOT_A_SEARCH_SERVER: &str = "it may be no Elasticsearch or OpenSearch; see elasticsearch.urls, and what stands in front of it";

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
    /// Indices for whose making the template was there.
    seen: Mutex<BTreeSet<String>>,
    metrics: Option<Arc<Metrics>>,
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
struct Answer<'n> {
    /// Address of the node it is from.
    url: &'n str,
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
            seen: Mutex::default(),
            metrics: None,
        })
    }

    /// Counts requests, and documents that are sent again, in `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Sends one request to a node that is not resting. Ends at once when the service stops.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> anyhow::Result<Answer<'_>> {
        let node = self.pick();
        let timeout = Some(self.config.request_timeout);
        let query: Option<&()> = None;
        let sent = async {
            let response = node.transport.send(method, path, headers, query, body, timeout).await?;
            let status = response.status_code().as_u16();
            anyhow::Ok(Answer { url: &node.url, status, body: response.bytes().await? })
        };
        let sent = tokio::select! {
            () = self.stop.cancelled() => anyhow::bail!("stopping, no answer from {} so far", node.url),
            sent = sent => sent,
        };
        match sent {
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

    /// Asks, and reads the answer as JSON. A failure may tell its reason in plain text, a success may not.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<(u16, serde_json::Value)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.send(method, path, headers, body.map(Bytes::from)).await?;
        match serde_json::from_slice(&answer.body) {
            Ok(told) => Ok((answer.status, told)),
            Err(_) if answer.status >= 400 => {
                let told = String::from_utf8_lossy(&answer.body);
                Ok((answer.status, json::prefix(told.trim(), 500).into()))
            }
            Err(error) => Err(anyhow::Error::new(error).context(format!(
                "{} answers {path} with status {} and something that is no JSON: {NOT_A_SEARCH_SERVER}",
                answer.url, answer.status
            ))),
        }
    }

    /// Batches of indices into `documents`, bounded by bytes and number.
    /// Requests for the documents at these places.
    fn batches(&self, documents: &[Document], places: Vec<usize>) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut bytes = usize::MAX;
        let known = places.into_iter().filter_map(|place| Some((place, documents.get(place)?)));
        for (index, document) in known {
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

    fn tell(&self, status: SinkStatus) {
        self.status.send_if_modified(|known| {
            if *known == status {
                return false;
            }
            match &status {
                SinkStatus::Accepting if *known == SinkStatus::Untried => {}
                SinkStatus::Accepting => tracing::info!("sink accepts again"),
                SinkStatus::Untried => {}
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

impl Sink for ElasticsearchSink {
    async fn setup(&self) -> Result<(), SinkError> {
        let mut delay = DELAY.0;
        self.tell(SinkStatus::Untried);
        loop {
            match self.set_up().await {
                Ok(()) => {
                    self.tell(SinkStatus::Accepting);
                    return Ok(());
                }
                Err(SetupError::Refused(error)) => return Err(SinkError::Misconfigured(error)),
                Err(_) if self.stop.is_cancelled() => {
                    // Nobody waits for its first answer any more.
                    self.status.send_if_modified(|known| {
                        let was_untried = *known == SinkStatus::Untried;
                        if was_untried {
                            *known = SinkStatus::Accepting;
                        }
                        was_untried
                    });
                    return Err(SinkError::Stopped);
                }
                Err(SetupError::Denied(error)) => {
                    self.tell(SinkStatus::Paused(format!("{error:#}")));
                }
                Err(SetupError::Away(error)) => {
                    self.tell(SinkStatus::Waiting(format!("{error:#}")));
                }
            }
            self.sleep(delay).await?;
            delay = (delay * 2).min(DELAY.1);
        }
    }

    async fn write(&self, documents: &[Document]) -> Result<Vec<Written>, SinkError> {
        let requests_max = self.config.requests_max.get();
        let mut turns = turns(documents).into_iter().map(|places| self.batches(documents, places));
        let first = turns.next().unwrap_or_default();
        let mut work = Work::new(documents.len(), first, requests_max);
        let mut under_way = FuturesUnordered::new();
        loop {
            while let Some(batch) = work.next(under_way.len(), Instant::now()) {
                under_way.push(self.attempt(batch, documents));
            }
            let wakes_at = work.wakes_at();
            if under_way.is_empty() && wakes_at.is_none() {
                let Some(batches) = turns.next() else { return Ok(work.into_answers()) };
                work.add(batches);
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(SinkError::Stopped),
                Some((batch, reply)) = under_way.next() => {
                    work.judge(batch, reply, Instant::now());
                    self.tell(work.status().clone());
                }
                () = tokio::time::sleep_until(wakes_at.unwrap_or_else(Instant::now)), if wakes_at.is_some() => {}
            }
        }
    }
}

/// The places of documents, those first of which no copy stands before: of raw documents with one id the first is created, and of two
/// that are under way at once nobody knows which arrives first. Versions settle it for summaries.
fn turns(documents: &[Document]) -> Vec<Vec<usize>> {
    let mut copies: HashMap<&str, usize> = HashMap::with_capacity(documents.len());
    let mut turns: Vec<Vec<usize>> = Vec::new();
    for (place, document) in documents.iter().enumerate() {
        let mut turn = 0;
        if document.version.is_none() {
            let count = copies.entry(&document.id).or_default();
            turn = *count;
            *count += 1;
        }
        if turns.len() <= turn {
            turns.push(Vec::new());
        }
        if let Some(places) = turns.get_mut(turn) {
            places.push(place);
        }
    }
    turns
}

/// Between half of `delay` and all of it, so that many do not come back at once.
fn jittered(delay: Duration) -> Duration {
    let random = xxhash_rust::xxh3::xxh3_64(uuid::Uuid::now_v7().as_bytes());
    let parts = u32::try_from(random % 512).unwrap_or(0);
    delay / 2 + delay / 1024 * parts
}

impl Node {
    fn new(url: &str, config: &ElasticsearchConfig) -> anyhow::Result<Self> {
        let server = Server {
            section: "elasticsearch",
            setting: "urls",
            url,
            username: &config.username,
            password: &config.password,
            api_key: &config.api_key,
            ca: &config.ca,
            timeout: config.request_timeout,
        };
        let transport = server.connect()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_a_raw_document_waits_for_the_first() {
        let document = |id: &str, version: Option<u64>| Document {
            id: id.into(),
            index_time: 0,
            elastic_type: "cdr".into(),
            version,
            json: Bytes::from_static(b"{}"),
        };
        let documents = [
            document("a", None),
            document("s", Some(1)),
            document("a", None),
            document("b", None),
            document("s", Some(2)),
            document("a", None),
        ];
        assert_eq!(turns(&documents), [vec![0, 1, 3, 4], vec![2], vec![5]]);
        assert!(turns(&[]).is_empty());
    }
}
