//! The platform's REST API as a second source: what no event tells of a community installation.
//!
//! One answer shows all sessions. It is taken apart while it comes, and what it tells becomes records in the journal, like what a
//! webhook brings: `kms` events of every endpoint, with the ids put back that the API leaves out; the negotiation of each; what
//! `seen` documents hold ([`crate::event::Seen`]). Each carries the time at which the thing began, so a record that is journalled
//! twice, after a restart, is the same fact and the same document.
//!
//! A session that complete answers do not show any more, and that has not ended as far as events tell, is told to be gone. Nothing
//! is closed by that. One that is still shown after a long time is told to be there, lest it count as silent. Recordings whose end was missed are asked for one by one.
//!
//! Secrets of the answer (`token`) are never read, so they are nowhere stored, logged or shown. With Kafka the instance that holds
//! partition 0 asks.
//!
//! Source of paths and shapes: OpenVidu's `SessionRestController`, `Session.toJson`, `Participant.toJson`,
//! `MediaEndpoint.withStatsToJson` at v2.12.0, v2.16.0, v2.17.0 and v2.29.0.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use reqwest::StatusCode;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, RestConfig};
use crate::journal::{AppendError, Journal};
use crate::kafka::standing::Standing;
use crate::lane::LaneError;
use crate::live::{AwaitedRecording, Live, OpenSession};
use crate::metrics::{Metrics, RestMetrics};
use crate::transport::escaped;

mod answer;
mod memory;
mod platform;
mod split;
mod trust;

use memory::{Id, Memory};
use platform::{Api, Platform, PollError};
use split::{SESSION_BYTES_MAX, Splitter};

/// Records that wait for the disk together.
const APPENDS: usize = 256;
/// How often a session that is still there is told to be, in the time that it takes one to fall silent.
const TOLD_TO_BE_THERE: u32 = 4;
/// Recordings asked for at one poll.
const RECORDINGS_MAX: usize = 20;
/// Recordings that the platform does not know, remembered.
const UNKNOWN_MAX: usize = 10_000;

/// Asks one platform, again and again.
pub struct Poller {
    source: String,
    cluster_id: String,
    config: RestConfig,
    platform: Platform,
    journal: Journal,
    live: watch::Receiver<Arc<Live>>,
    /// With Kafka.
    standing: Option<watch::Receiver<Standing>>,
    metrics: RestMetrics,
    trouble: watch::Sender<Option<String>>,
    memory: Memory,
    api: Option<Api>,
    /// Recordings that the platform does not know.
    unknown: HashSet<AwaitedRecording>,
    /// The one that was asked for last.
    asked: Option<AwaitedRecording>,
    stop: CancellationToken,
}

/// What pollers work with.
#[derive(Clone)]
pub struct Around {
    /// Where records go.
    pub journal: Journal,
    /// What is open as far as events tell.
    pub live: watch::Receiver<Arc<Live>>,
    /// How this instance stands in its group, with Kafka.
    pub standing: Option<watch::Receiver<Standing>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Ends them.
    pub stop: CancellationToken,
}

/// Which version answers at the address of a source, and what it says of itself.
///
/// # Errors
///
/// If nobody answers there, or somebody else, or the secret is refused; the message says what to do.
pub async fn check(source: &str, rest: &RestConfig) -> anyhow::Result<String> {
    let answered = Platform::new(rest)?.version().await;
    let (_, version) = answered.map_err(|error| anyhow::anyhow!("{}", told(source, &error)))?;
    Ok(version)
}

/// What is wrong, with the names of the source's settings.
fn told(source: &str, error: &PollError) -> String {
    error.to_string().replace("sources.NAME.", &format!("sources.{source}."))
}

/// Name of a source, and why it is not known at this moment what its platform shows.
pub type Trouble = (String, watch::Receiver<Option<String>>);

impl Poller {
    /// One for each source with an address, and what tells of its troubles.
    ///
    /// # Errors
    ///
    /// If a certificate cannot be used.
    pub fn all(config: &Config, around: &Around) -> anyhow::Result<(Vec<Self>, Vec<Trouble>)> {
        let (mut pollers, mut troubles) = (Vec::new(), Vec::new());
        for (source, own) in config.sources.iter().filter(|(_, own)| !own.rest.url.is_empty()) {
            let cluster_id = own.cluster_id.as_deref().unwrap_or_default();
            let renew_after = config.sessions.silent_after / TOLD_TO_BE_THERE;
            let file = config.data_dir.join(format!("rest-{source}.json"));
            let memory = Memory::load(&file, crate::sessions::millis(renew_after));
            let poller = Self::new((source, cluster_id), &own.rest, memory, around.clone())
                .with_context(|| format!("sources.{source}.rest"))?;
            troubles.push((source.clone(), poller.trouble.subscribe()));
            pollers.push(poller);
        }
        Ok((pollers, troubles))
    }

    fn new(
        (source, cluster_id): (&str, &str),
        rest: &RestConfig,
        memory: Memory,
        around: Around,
    ) -> anyhow::Result<Self> {
        let Around { journal, live, standing, metrics, stop } = around;
        Ok(Self {
            source: source.to_owned(),
            cluster_id: cluster_id.to_owned(),
            config: rest.clone(),
            platform: Platform::new(rest)?,
            journal,
            live,
            standing,
            metrics: metrics.rest(source),
            trouble: watch::Sender::new(None),
            memory,
            api: None,
            unknown: HashSet::new(),
            asked: None,
            stop,
        })
    }

    /// Asks until it is stopped. Whatever is wrong with the platform is told of, and asked again.
    ///
    /// # Errors
    ///
    /// None: what the platform does not tell is missing, and everything else goes on.
    pub async fn run(mut self) -> Result<(), LaneError> {
        let stop = self.stop.clone();
        loop {
            if self.is_asking() {
                let begun = Instant::now();
                let polled = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    polled = self.poll() => polled,
                };
                self.tell(polled, begun.elapsed());
            } else {
                self.trouble.send_replace(None);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.config.every) => {}
            }
        }
    }

    /// Whether it is this instance that asks.
    fn is_asking(&self) -> bool {
        self.standing.as_ref().is_none_or(|standing| standing.borrow().holds_first())
    }

    fn tell(&self, polled: Result<(), PollError>, took: Duration) {
        self.metrics.seconds.observe(took.as_secs_f64());
        let (source, was) = (&self.source, self.trouble.borrow().clone());
        match polled {
            Ok(()) => {
                self.metrics.polled("ok");
                self.metrics.succeeded.set(chrono::Utc::now().timestamp());
                if was.is_some() {
                    tracing::info!(source, "the REST API answers again");
                }
                self.trouble.send_replace(None);
            }
            Err(error) => {
                self.metrics.polled(if error.is_partial() { "partial" } else { "failed" });
                let told = told(source, &error);
                if was.as_ref() != Some(&told) {
                    tracing::warn!(
                        source,
                        reason = told,
                        "the REST API does not tell what it should"
                    );
                }
                self.trouble.send_replace(Some(told));
            }
        }
    }

    async fn poll(&mut self) -> Result<(), PollError> {
        let api = match self.api {
            Some(api) => api,
            None => *self.api.insert(self.platform.version().await?.0),
        };
        let polled = self.sessions(api).await;
        // It may be another version that answers next.
        if matches!(
            polled,
            Err(PollError::Away(_) | PollError::Status { .. } | PollError::Foreign(_))
        ) {
            self.api = None;
        }
        if polled.as_ref().is_err_and(|error| !error.is_partial()) {
            return polled;
        }
        // What is missing of sessions keeps nobody from asking for recordings.
        let recorded = self.recordings(api).await;
        polled.and(recorded)
    }

    async fn sessions(&mut self, api: Api) -> Result<(), PollError> {
        let at = chrono::Utc::now().timestamp_millis();
        let path = format!("{}sessions?webRtcStats=true", api.prefix);
        let mut answer = self.platform.ask(&path).await?;
        if answer.status() != StatusCode::OK {
            return Err(PollError::Status { path, status: answer.status() });
        }
        let (mut splitter, mut bytes) = (Splitter::default(), 0);
        let (mut shown, mut odd, mut is_whole) = (HashSet::new(), (0, String::new()), true);
        loop {
            let chunk = answer.chunk().await.map_err(|error| match error.is_timeout() {
                true => PollError::Slow(bytes),
                false => PollError::Cut(bytes),
            })?;
            let Some(chunk) = chunk else { break };
            bytes += chunk.len() as u64;
            self.metrics.bytes.inc_by(chunk.len() as u64);
            if bytes > self.config.bytes_max.get() {
                return Err(PollError::TooLarge(self.config.bytes_max.get()));
            }
            for json in splitter.push(&chunk)? {
                match answer::session(&json, api.naming, self.config.negotiation) {
                    Ok(session) => {
                        let id = (session.session_id, session.created_at);
                        if session.odd > 0 {
                            odd = (odd.0 + session.odd, format!("of session {}", id.0));
                        }
                        // Before all else, or what is old would count as silent at once.
                        let there = self
                            .memory
                            .due(&id, at)
                            .map(|tick| answer::presence((&id.0, id.1), api.naming, true, tick));
                        let records = self.memory.untold(&id, session.records);
                        let told = async {
                            self.append(there.into_iter().collect()).await?;
                            self.append(records).await
                        };
                        if let Err(error) = told.await {
                            self.memory.forget(&id);
                            return Err(error.into());
                        }
                        shown.insert(id);
                    }
                    Err(reason) => {
                        odd = (odd.0 + 1, reason);
                        is_whole = false;
                    }
                }
            }
        }
        if !splitter.is_complete()? {
            return Err(PollError::Cut(bytes));
        }
        if splitter.too_large() > 0 {
            odd = (odd.0 + splitter.too_large(), format!("more than {SESSION_BYTES_MAX} bytes"));
            is_whole = false;
        }
        // Of one that could not be read it is not known which it is.
        if is_whole {
            self.presence(api, &shown, at).await?;
        }
        if odd.0 > 0 { Err(PollError::Odd(odd.0, odd.1)) } else { Ok(()) }
    }

    /// Tells of sessions that are shown no more, or again.
    async fn presence(&mut self, api: Api, shown: &HashSet<Id>, at: i64) -> Result<(), PollError> {
        let live = Arc::clone(&self.live.borrow());
        if !live.is_current {
            // It is not known what is open. What is shown now may not be in the next answer.
            self.memory.see(shown);
            return Ok(());
        }
        let open: HashSet<OpenSession> = live.open.iter().copied().collect();
        let is_open = |(id, start): &Id| {
            let id = OpenSession::hash(&self.cluster_id, id);
            [*start, 0].iter().any(|start| open.contains(&OpenSession { id, start: *start }))
        };
        // What events alone have told of is looked for as well: callscope may not have asked while it was shown.
        let own = live.sessions.iter().filter(|open| open.source == self.source);
        let own = own.filter_map(|open| Some((&*open.session_id, open.created_at?)));
        self.memory.expect(own.filter(|(_, start)| *start < at), shown);
        let changes = self.memory.shown(shown, is_open, at);
        // Before they are told: what is told once more after a crash has to be the same.
        if let Err(error) = self.memory.save() {
            tracing::warn!(error = %error, source = self.source, "which sessions were shown cannot be kept");
        }
        let record = |((name, start), (at, is_shown)): &memory::Change| {
            answer::presence((name, *start), api.naming, *is_shown, *at)
        };
        let told = self.append(changes.iter().map(record).collect()).await;
        if told.is_err() {
            self.memory.doubt();
        }
        Ok(told?)
    }

    /// Asks for recordings whose end was missed, each in its turn: some may never come to an end.
    async fn recordings(&mut self, api: Api) -> Result<(), PollError> {
        let mut awaited = self.live.borrow().awaited.clone();
        awaited.retain(|recording| !self.unknown.contains(recording));
        awaited.sort_unstable();
        let next = awaited.partition_point(|recording| Some(recording) <= self.asked.as_ref());
        awaited.rotate_left(next);
        awaited.truncate(RECORDINGS_MAX);
        let mut told = Ok(());
        for recording in awaited {
            self.asked = Some(recording.clone());
            let one = self.recording(api, recording).await;
            match one {
                Ok(()) => {}
                // That is of this one alone.
                Err(error @ (PollError::Odd(..) | PollError::Status { .. })) => {
                    told = told.and(Err(error));
                }
                Err(error) => return Err(error),
            }
        }
        told
    }

    async fn recording(&mut self, api: Api, asked: AwaitedRecording) -> Result<(), PollError> {
        let path = format!("{}recordings/{}", api.prefix, escaped(&asked.id));
        match self.platform.small(&path).await? {
            Ok(json) => match answer::recording(&json, &asked) {
                Ok(told) => self.append(told.into_iter().collect()).await?,
                Err(reason) => return Err(PollError::Odd(1, reason)),
            },
            Err(StatusCode::NOT_FOUND) => {
                if self.unknown.len() >= UNKNOWN_MAX {
                    self.unknown.clear();
                }
                self.unknown.insert(asked);
            }
            Err(status) => return Err(PollError::Status { path, status }),
        }
        Ok(())
    }

    /// Puts records into the journal, waiting for room.
    async fn append(&self, records: Vec<String>) -> Result<(), AppendError> {
        let appended = futures_util::stream::iter(records).map(async |record| {
            let at = chrono::Utc::now().timestamp_millis();
            loop {
                match self.journal.append(&self.source, at, record.as_bytes()).await {
                    Ok(_) => return Ok(()),
                    Err(AppendError::Full) => self.journal.wait_for_room().await,
                    Err(error) => return Err(error),
                }
            }
        });
        let mut appended = appended.buffer_unordered(APPENDS);
        while let Some(one) = appended.next().await {
            one?;
            self.metrics.records.inc();
        }
        Ok(())
    }
}
