//! `demo`: serve, beside a simulated cluster that sends real events to the webhook, first a week of history and then time
//! lapse for as long as it runs. How far it got is kept beside the data, so that a later start goes on there. With `--to` the
//! cluster stands alone, and sends to a callscope that runs elsewhere.
//!
//! How good media is the history tells by webhook, as nobody can be asked for the past. Live sessions tell it as a community
//! installation does: the cluster has a REST API that callscope polls, and the browsers of its people report.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Json;
use axum::extract::State;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{serve, stop_on_signal, tell, wall};
use crate::cli::{ExitCode, Failure};
use crate::config::{Config, Secret};
use crate::journal::lock::DataDirLock;
use crate::simulate::community::{Played, Report};
use crate::simulate::rng::Rng;
use crate::simulate::send::{FORWARDED, SendError, Sender, Webhook};
use crate::simulate::{Emitted, PLACES_DATABASE, arrivals, session, telemetry};

/// How many times faster than in life sessions pass once the history is told.
const PACE: i64 = 20;
/// Mean span between two live sessions, milliseconds.
const LIVE_EVERY: u64 = 5_000;
/// Sessions under way when one looks for the first time.
const LIVE_AT_FIRST: usize = 8;
/// After so long a live session has nothing more to tell, not even of its recording; milliseconds.
const LIVE_FOR: i64 = 600_000;
/// Live events are sent together this often: every batch costs the index one commit.
const SENT_EVERY: Duration = Duration::from_secs(2);
/// How often progress is told and kept.
const TOLD_EVERY: Duration = Duration::from_secs(2);
/// Span between two samples of an endpoint, milliseconds: in the history, and live as OpenVidu does.
const STATS_EVERY: (i64, i64) = (300_000, 30_000);
/// Between two reports of a browser on a live stream, milliseconds.
const REPORTED_EVERY: i64 = 5_000;
/// How often the cluster's REST API is asked.
const POLLED_EVERY: Duration = Duration::from_secs(5);
/// What the cluster's pages and its REST API are opened with, where the settings say nothing else.
const KEY: &str = "key-of-the-demo";
/// Connections over which events are sent. A session keeps to one of them.
const SENDERS: usize = 64;
/// How much of the past is told at once. Within it, sessions do not wait for each other.
const WINDOW: i64 = 3_600_000;

/// A folder of its own, and what the simulation needs.
pub(super) fn prepare(config: &mut Config) -> Result<(), Failure> {
    if config.data_dir == Path::new("callscope-data") {
        config.data_dir = PathBuf::from("callscope-demo");
    }
    if let Some(source) = config.sources.get_mut("default") {
        source.cluster_id.get_or_insert_with(|| "demo".to_owned());
    }
    if config.users.id_path.is_empty() {
        // As its people call themselves.
        config.users.id_path = "clientData.clientData".to_owned();
    }
    Ok(())
}

/// Knows the places of the simulated people, unless other databases are wanted.
fn know_places(config: &mut Config) -> anyhow::Result<()> {
    if config.geoip.databases.is_empty() {
        let path = config.data_dir.join("places.mmdb");
        std::fs::create_dir_all(&config.data_dir)
            .and_then(|()| std::fs::write(&path, PLACES_DATABASE))
            .with_context(|| format!("cannot write {}", path.display()))?;
        config.geoip.databases.push(path.to_string_lossy().into_owned());
    }
    Ok(())
}

pub(super) async fn run(
    mut config: Config,
    history: Duration,
    seed: u64,
) -> Result<ExitCode, Failure> {
    know_places(&mut config).map_err(Failure::with(ExitCode::Misconfigured))?;
    let progress = Progress::load(&config.data_dir, history, seed);
    let secret = secret(&config).cloned();
    let platform = Platform::open(&mut config).await.map_err(Failure::with(ExitCode::Internal))?;
    serve::run(
        config,
        Some(Box::new(move |address, stop| {
            tokio::spawn(async move {
                tell(&format!("\n  open http://{address}/ in a browser; Ctrl-C ends the demo\n"));
                let mut cluster = Cluster::new(&Webhook::at(address), secret.as_ref());
                cluster.doors = Some(Doors::new(address, &platform));
                let (driven, served) =
                    tokio::join!(drive(cluster, progress, &stop), platform.serve(&stop));
                if let Err(error) = driven.and(served)
                    && !stop.is_cancelled()
                {
                    tracing::error!(error = %error, "the simulated cluster has stopped");
                }
            })
        })),
    )
    .await
}

/// The REST API of the simulated cluster.
struct Platform {
    listener: tokio::net::TcpListener,
    playing: Arc<Mutex<Vec<Played>>>,
}

impl Platform {
    /// Takes an address, and has callscope ask there and take reports, unless the settings name a platform or keys.
    async fn open(config: &mut Config) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        if let Some(source) = config.sources.get_mut("default") {
            if source.rest.url.is_empty() {
                source.rest.url = format!("http://{}/", listener.local_addr()?);
                source.rest.secret = Secret::new(KEY);
                source.rest.every = POLLED_EVERY;
            }
            if source.browsers.keys.is_empty() {
                source.browsers.keys = vec![Secret::new(KEY)];
                FORWARDED.clone_into(&mut config.browsers.address_header);
            }
        }
        Ok(Self { listener, playing: Arc::default() })
    }

    /// Answers until it is told to stop.
    async fn serve(self, stop: &CancellationToken) -> anyhow::Result<()> {
        let router = axum::Router::new()
            .route("/openvidu/api/config/openvidu-version", get(async || "2.29.0"))
            .route("/openvidu/api/sessions", get(shown))
            .with_state(self.playing);
        let ended = stop.clone().cancelled_owned();
        Ok(axum::serve(self.listener, router).with_graceful_shutdown(ended).await?)
    }
}

/// The sessions that are going on.
async fn shown(State(playing): State<Arc<Mutex<Vec<Played>>>>) -> Json<serde_json::Value> {
    let at = wall();
    let playing = playing.lock().unwrap_or_else(PoisonError::into_inner);
    let shown: Vec<_> = playing.iter().filter_map(|played| played.shown(at)).collect();
    Json(serde_json::json!({ "numberOfElements": shown.len(), "content": shown }))
}

/// What live sessions tell besides their events.
struct Doors {
    playing: Arc<Mutex<Vec<Played>>>,
    sender: Sender,
    /// Connection, address and body of each report.
    waiting: Waiting,
}

impl Doors {
    fn new(address: SocketAddr, platform: &Platform) -> Self {
        let sender = Sender::new(Webhook::at(address));
        Self { playing: Arc::clone(&platform.playing), sender, waiting: Waiting::default() }
    }

    fn plan(&mut self, session: &[Emitted], telemetry: &[Emitted]) {
        let Some(played) = Played::of(session, telemetry) else { return };
        let reports = played.reports().into_iter();
        let reports = reports.map(|Report { at, connection_id, address, json }| Emitted {
            at,
            json: format!("{connection_id} {address} {json}"),
        });
        self.waiting.push(reports.collect());
        let mut playing = self.playing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = wall();
        playing.retain(|played| played.end() > now);
        playing.push(played);
    }

    /// Reports what lies before `time`. One that is refused is gone, as in life.
    async fn report_before(&mut self, time: i64) -> Result<(), SendError> {
        while let Some(report) = self.waiting.pop_before(time) {
            let mut parts = report.splitn(3, ' ');
            let mut next = || parts.next().unwrap_or_default();
            let (connection, address, body) = (next(), next(), next());
            let path = format!("/stats/default?key={KEY}&connection={connection}");
            let status = self.sender.post(&path, Some(address), body).await?;
            tracing::debug!(status = status.as_u16(), "a browser has reported");
        }
        Ok(())
    }
}

/// Sends to `webhook` until it is told to stop. Whoever is there no more, or refuses, ends it: a later start goes on there.
pub(super) async fn send(
    config: &Config,
    webhook: &Webhook,
    history: Duration,
    seed: u64,
) -> Result<ExitCode, Failure> {
    let _lock =
        DataDirLock::acquire(&config.data_dir).map_err(Failure::with(ExitCode::Misconfigured))?;
    let stop = stop_on_signal()?;
    let progress = Progress::load(&config.data_dir, history, seed);
    tell(&format!("a simulated cluster sends to {webhook}"));
    let sent = drive(Cluster::new(webhook, secret(config)), progress, &stop).await;
    sent.with_context(|| webhook.to_string()).map_err(Failure::with(ExitCode::Unreachable))?;
    Ok(ExitCode::Ok)
}

/// What the cluster shows.
fn secret(config: &Config) -> Option<&Secret> {
    config.sources.get("default").and_then(|source| source.secrets.first())
}

/// How far the story is told. It is the same story after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    seed: u64,
    /// The history lies between these, milliseconds since 1970.
    from: i64,
    to: i64,
    /// Everything before this was sent.
    told: i64,
    /// Seed and start of the live sessions that may be under way.
    live: Vec<(u64, i64)>,
    #[serde(skip)]
    path: PathBuf,
}

impl Progress {
    /// What an earlier run left in `data_dir`, or the beginning of a story.
    fn load(data_dir: &Path, history: Duration, seed: u64) -> Self {
        let path = data_dir.join("demo.json");
        let known = std::fs::read(&path).ok();
        if let Some(known) = known.and_then(|json| serde_json::from_slice::<Self>(&json).ok()) {
            return Self { path, ..known };
        }
        let to = wall();
        // Data of which nobody knows how they came are not told a second time.
        let is_new = !data_dir.join("checkpoint.redb").exists();
        let history = if is_new { history } else { Duration::ZERO };
        let from = to - i64::try_from(history.as_millis()).unwrap_or(0);
        Self { seed, from, to, told: from, live: Vec::new(), path }
    }

    /// Keeps it. What cannot be kept is told again after a restart, which changes nothing.
    fn save(&mut self) {
        self.live.retain(|(_, start)| self.told - start < LIVE_FOR);
        let Ok(json) = serde_json::to_vec(self) else { return };
        let new = self.path.with_extension("new");
        let saved = std::fs::write(&new, json).and_then(|()| std::fs::rename(&new, &self.path));
        if let Err(error) = saved {
            tracing::warn!(error = %error, "the demo's progress cannot be kept");
        }
    }
}

async fn drive(
    mut cluster: Cluster,
    mut progress: Progress,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    cluster.plan_history(&progress);
    for (seed, start) in progress.live.clone() {
        cluster.plan_live(seed, start);
    }
    cluster.forget_before(progress.told);
    progress.save();
    let ended = tell_story(&mut cluster, &mut progress, stop).await;
    progress.save();
    ended
}

async fn tell_story(
    cluster: &mut Cluster,
    progress: &mut Progress,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (mut told, mut count) = (Instant::now(), 0);
    while progress.told < progress.to && !stop.is_cancelled() {
        let window = (progress.told + WINDOW).min(progress.to);
        count += cluster.send_before(window).await?;
        progress.told = window;
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            progress.save();
            let day = chrono::DateTime::from_timestamp_millis(window).unwrap_or_default();
            tell(&format!("  history: {} at {count} events", day.format("%Y-%m-%d")));
        }
    }
    if count > 0 && !stop.is_cancelled() {
        tell(&format!("  history: {count} events sent; live sessions follow"));
    }
    let mut rng = Rng::new(progress.seed ^ u64::try_from(wall()).unwrap_or(0));
    let mut next = wall();
    let begin = |cluster: &mut Cluster, progress: &mut Progress, rng: &mut Rng| {
        let (seed, start) = (rng.number(), wall());
        cluster.plan_live(seed, start);
        progress.live.push((seed, start));
    };
    if progress.live.is_empty() {
        (0..LIVE_AT_FIRST).for_each(|_| begin(cluster, progress, &mut rng));
    }
    while !stop.is_cancelled() {
        let now = wall();
        if now >= next {
            begin(cluster, progress, &mut rng);
            next = now + i64::try_from(rng.below(2 * LIVE_EVERY)).unwrap_or(0);
        }
        // What of the history lay in the future comes at its own time, too.
        cluster.send_before(now + 1).await?;
        if let Some(doors) = &mut cluster.doors {
            doors.report_before(now + 1).await?;
        }
        progress.told = now;
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            progress.save();
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(SENT_EVERY) => {}
        }
    }
    Ok(())
}

/// Events in the order of their time; those of one moment in the order in which they came.
#[derive(Default)]
struct Waiting {
    heap: BinaryHeap<Reverse<(i64, u64, String)>>,
    order: u64,
}

impl Waiting {
    fn push(&mut self, events: Vec<Emitted>) {
        for event in events {
            self.order += 1;
            self.heap.push(Reverse((event.at, self.order, event.json)));
        }
    }

    fn pop_before(&mut self, time: i64) -> Option<String> {
        self.heap.peek().filter(|Reverse((at, _, _))| *at < time)?;
        self.heap.pop().map(|Reverse((_, _, json))| json)
    }
}

/// The sending side: sessions side by side, each in its own order.
struct Cluster {
    lanes: Vec<(Sender, Waiting)>,
    planned: usize,
    /// Absent where the cluster stands alone.
    doors: Option<Doors>,
}

impl Cluster {
    fn new(webhook: &Webhook, secret: Option<&Secret>) -> Self {
        let sender = || {
            let sender = Sender::new(webhook.clone());
            match secret {
                Some(secret) => sender.with_secret(secret),
                None => sender,
            }
        };
        let lanes = (0..SENDERS).map(|_| (sender(), Waiting::default())).collect();
        Self { lanes, planned: 0, doors: None }
    }

    fn plan_history(&mut self, progress: &Progress) {
        let mut rng = Rng::new(progress.seed);
        for start in arrivals(progress.seed, progress.from, progress.to) {
            let seed = rng.number();
            self.plan(session(seed, start, 1).0, telemetry(seed, start, 1, STATS_EVERY.0));
        }
    }

    fn plan_live(&mut self, seed: u64, start: i64) {
        let events = session(seed, start, PACE).0;
        let Some(doors) = &mut self.doors else {
            return self.plan(events, telemetry(seed, start, PACE, STATS_EVERY.1));
        };
        doors.plan(&events, &telemetry(seed, start, PACE, REPORTED_EVERY));
        self.plan(events, Vec::new());
    }

    fn plan(&mut self, events: Vec<Emitted>, telemetry: Vec<Emitted>) {
        let lane = self.planned % SENDERS;
        self.planned += 1;
        if let Some((_, waiting)) = self.lanes.get_mut(lane) {
            waiting.push(events);
            waiting.push(telemetry);
        }
    }

    fn forget_before(&mut self, time: i64) {
        for (_, waiting) in &mut self.lanes {
            while waiting.pop_before(time).is_some() {}
        }
    }

    /// Sends what lies before `time`, and says how much that was.
    async fn send_before(&mut self, time: i64) -> anyhow::Result<u64> {
        let sent = self.lanes.iter_mut().map(async |(sender, waiting)| {
            let mut count = 0_u64;
            while let Some(json) = waiting.pop_before(time) {
                sender.send(&json).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
        Ok(futures_util::future::try_join_all(sent).await?.into_iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(progress: &Progress) -> Cluster {
        let mut cluster = Cluster::new(&Webhook::at("127.0.0.1:1".parse().unwrap()), None);
        cluster.plan_history(progress);
        cluster.forget_before(progress.told);
        cluster
    }

    fn events(mut cluster: Cluster) -> Vec<String> {
        let mut events = Vec::new();
        for (_, waiting) in &mut cluster.lanes {
            while let Some(json) = waiting.pop_before(i64::MAX) {
                events.push(json);
            }
        }
        events.sort_unstable();
        events
    }

    #[test]
    fn a_story_that_was_broken_off_goes_on_where_it_stood() {
        let folder = tempfile::tempdir().unwrap();
        let day = Duration::from_secs(86_400);
        let mut progress = Progress::load(folder.path(), day, 7);
        let whole = events(planned(&progress));
        assert!(whole.len() > 100);
        let mut cluster = planned(&progress);
        progress.told = progress.from + 10 * WINDOW;
        let mut told = Vec::new();
        for (_, waiting) in &mut cluster.lanes {
            while let Some(json) = waiting.pop_before(progress.told) {
                told.push(json);
            }
        }
        progress.live.push((1, progress.told));
        progress.save();
        let again = Progress::load(folder.path(), Duration::ZERO, 99);
        assert_eq!(again, progress);
        told.extend(events(planned(&again)));
        told.sort_unstable();
        assert_eq!(told, whole);
    }
}
