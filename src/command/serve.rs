//! `serve`: listen, follow, fold, write.

use std::collections::BTreeSet;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::kept::{Kept, report};
use super::{AnySink, kafka_failure, open_sink, sink_failure, stop_on_signal, tell, wall};
use crate::checkpoint::persist::TroubleSender;
use crate::checkpoint::{Checkpoint, Disk};
use crate::cli::{ExitCode, Failure};
use crate::config::Config;
use crate::enrich::place::GeoIpFiles;
use crate::http::{App, Bound, Door};
use crate::inputs::Inputs;
use crate::journal::lock::DataDirLock;
use crate::journal::{self, Bounds, Journal};
use crate::kafka::forward::Forwarder;
use crate::kafka::group::Group;
use crate::kafka::letters::count::Counter;
use crate::kafka::rekey::Rekeyer;
use crate::kafka::standing::Board;
use crate::lane::databases::Databases;
use crate::lane::fold::Folder;
use crate::lane::outlet::Outlet;
use crate::lane::{Lane, LaneError};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::rest;
use crate::sessions::Limits;
use crate::sink::{Sink, SinkError};

/// How often the open sessions are shown anew at most.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// The same while nothing is read: sessions fall silent.
const SHOW_AT_REST_EVERY: Duration = Duration::from_secs(10);
/// How often sessions are looked through for what time brings, while nothing arrives.
const IDLE: Duration = Duration::from_secs(1);
/// How long records come together once all are read, in lengths of the cycle before; and at most.
const GATHERED: u32 = 2;
const GATHERED_MAX: Duration = Duration::from_millis(200);

/// What `demo` does beside serving, once the address is known.
pub(super) type Beside =
    Box<dyn FnOnce(std::net::SocketAddr, CancellationToken) -> tokio::task::JoinHandle<()> + Send>;

/// Serves until a signal comes. `beside`: started when the address is known.
pub(super) async fn run(config: Config, beside: Option<Beside>) -> Result<ExitCode, Failure> {
    let _lock =
        DataDirLock::acquire(&config.data_dir).map_err(Failure::with(ExitCode::Misconfigured))?;
    let stop = stop_on_signal()?;
    let bound = Bound::bind(&config).await.map_err(Failure::with(ExitCode::Misconfigured))?;
    let kept = Kept::open(&config).map_err(Failure::with(ExitCode::Misconfigured))?;
    let (journal, writer, recovered) = Journal::open(
        &config.journal_folder(),
        Bounds::new(&config.journal),
        &kept.progress.positions,
    )
    .map_err(Failure::with(ExitCode::Misconfigured))?;
    report(&recovered);
    for trouble in journal.troubles() {
        tracing::error!(reason = trouble, "events cannot be taken until this is cured");
    }
    let metrics = Arc::new(Metrics::new());
    let (sink, index, sink_status) = open_sink(&config, config.sink.kind, &stop, &metrics)?;
    warn_if_empty(&sink, kept.progress.tally.stored);
    let (live, watched) = watch::channel(Arc::new(Live::default()));
    let dead_letters = Arc::clone(&kept.dead_letters);
    let disk = TroubleSender::default();
    let board = Board::new(Arc::clone(&metrics));
    let inputs = Inputs::new(&config, journal.clone(), Arc::clone(&metrics), stop.clone());
    let address = bound.address();
    let standing = config.kafka.is_set().then(|| board.subscribe());
    let around = rest::Around {
        journal: journal.clone(),
        live: watched.clone(),
        standing: standing.clone(),
        metrics: Arc::clone(&metrics),
        stop: stop.clone(),
    };
    let (pollers, troubles) =
        rest::Poller::all(&config, &around).map_err(Failure::with(ExitCode::Misconfigured))?;
    let app = Arc::new(App {
        secrets: config
            .sources
            .iter()
            .map(|(name, source)| (name.clone(), source.secrets.clone()))
            .collect(),
        journal: journal.clone(),
        live: watched,
        index,
        sink: sink_status,
        disk: disk.subscribe(),
        standing,
        rest: troubles,
        dead_letters,
        metrics: Arc::clone(&metrics),
        browsers: Door::new(&config),
        links: config.http.links.clone(),
        body_bytes_max: config.http.body_bytes_max.get(),
        bodies: crate::http::bodies(config.http.body_bytes_max.get()),
        idle_after: config.http.idle_after,
        hold: crate::http::HOLD,
    });
    let open = Open { config: &config, kept, inputs, sink, metrics, disk, stop: stop.clone() };
    let work =
        if config.kafka.is_set() { open.in_group(live, board)? } else { vec![open.alone(live)?] };
    let polls =
        pollers.into_iter().map(|poller| Work { name: "rest", future: Box::pin(poller.run()) });
    let work = work.into_iter().chain(polls).collect();
    let http = tokio::spawn(bound.serve(app, stop.clone()));
    tell(&format!("callscope listens on http://{address}"));
    let beside = beside.map(|beside| beside(address, stop.clone()));
    let ended = run_all(work, &stop).await;
    let served = http.await;
    if let Some(beside) = beside {
        beside.await.map_err(Failure::with(ExitCode::Internal))?;
    }
    journal.close();
    let joined = tokio::task::spawn_blocking(move || writer.join()).await;
    served.and(joined).map_err(Failure::with(ExitCode::Internal))?;
    ended.map(|()| ExitCode::Ok)
}

/// What is open when the work can begin.
struct Open<'c> {
    config: &'c Config,
    kept: Kept,
    inputs: Inputs,
    sink: AnySink,
    metrics: Arc<Metrics>,
    disk: TroubleSender,
    stop: CancellationToken,
}

/// Something that runs on a thread of its own until it is stopped.
struct Work {
    name: &'static str,
    future: Pin<Box<dyn Future<Output = Result<(), LaneError>> + Send>>,
}

impl Open<'_> {
    /// One machine: the lane reads the inputs.
    fn alone(self, live: watch::Sender<Arc<Live>>) -> Result<Work, Failure> {
        let misconfigured = ExitCode::Misconfigured;
        let Kept { checkpoint, mut progress, sessions, dead_letters } = self.kept;
        let begun =
            self.inputs.begin(&mut progress.positions).map_err(Failure::with(misconfigured))?;
        warn_if_lost(&checkpoint, begun.as_ref());
        let (files, geoip) =
            GeoIpFiles::open(&self.config.geoip.databases).map_err(Failure::with(misconfigured))?;
        let outlet = Outlet {
            sink: self.sink,
            dead_letters: Some(dead_letters),
            metrics: self.metrics,
            disk: Disk { stop: self.stop.clone(), trouble: self.disk },
        };
        let lane = Lane {
            folder: Folder::resume(self.config, geoip, sessions),
            outlet: Arc::new(outlet),
            checkpoint: Some(checkpoint),
            progress,
            live,
            behind: BTreeSet::new(),
            stats_every: i64::try_from(self.config.stats.every.as_millis()).unwrap_or(0),
            takes_any_time: false,
        };
        // What was open when it ended is known before anything is read or written.
        if lane.progress.lane_clock > 0 {
            lane.show(lane.progress.lane_clock, false);
        }
        let running = Running {
            lane,
            inputs: self.inputs,
            databases: Databases::new(files),
            stop: self.stop,
            shown: None,
            is_shown: false,
            is_current: false,
        };
        Ok(Work { name: "lane", future: Box::pin(running.run(self.config.sink.setup)) })
    }

    /// An instance of a group: one thread forwards the inputs, another takes the group's lanes forward, a third
    /// counts its letters.
    fn in_group(self, live: watch::Sender<Arc<Live>>, board: Board) -> Result<Vec<Work>, Failure> {
        let misconfigured = ExitCode::Misconfigured;
        let Kept { checkpoint, mut progress, dead_letters, .. } = self.kept;
        let begun =
            self.inputs.begin(&mut progress.positions).map_err(Failure::with(misconfigured))?;
        if checkpoint.is_new() && self.config.checkpoint_file_alone().exists() {
            tell_of_open_sessions(self.config)?;
        } else {
            warn_if_lost(&checkpoint, begun.as_ref());
        }
        let geoip =
            GeoIpFiles::open(&self.config.geoip.databases).map_err(Failure::with(misconfigured))?;
        let disk = Disk { stop: self.stop.clone(), trouble: self.disk };
        let outlet = Outlet {
            sink: self.sink,
            dead_letters: None,
            metrics: Arc::clone(&self.metrics),
            disk: Disk { stop: self.stop.clone(), ..Disk::default() },
        };
        let forwarder = Forwarder::new(
            self.config,
            self.inputs,
            (checkpoint, progress),
            dead_letters,
            disk,
            board.clone(),
        )
        .map_err(Failure::with(misconfigured))?;
        let outlet = Arc::new(outlet);
        let rekeyer = if self.config.kafka.rekey_from.is_empty() {
            None
        } else {
            let made = Rekeyer::new(self.config, board.clone(), self.stop.clone());
            Some(made.map_err(Failure::with(misconfigured))?)
        };
        let counter =
            Counter::new(&self.config.kafka, Arc::clone(&self.metrics), self.stop.clone());
        let group =
            Group::new(self.config.clone(), Arc::clone(&outlet), geoip, live, board, self.stop);
        let setup = self.config.sink.setup;
        let group = async move {
            if setup {
                outlet.sink.setup().await?;
            }
            group.run().await
        };
        let mut work = vec![
            Work { name: "group", future: Box::pin(group) },
            Work { name: "forwarder", future: Box::pin(forwarder.run()) },
            Work { name: "letters", future: Box::pin(counter.run()) },
        ];
        work.extend(
            rekeyer.map(|rekeyer| Work { name: "rekeyer", future: Box::pin(rekeyer.run()) }),
        );
        Ok(work)
    }
}

/// Says that the index has nothing of what was stored.
fn warn_if_empty(sink: &AnySink, stored: u64) {
    if let AnySink::Embedded(index) = sink
        && index.count() == 0
        && stored > 0
    {
        tracing::warn!(
            stored,
            "THE INDEX IS EMPTY although documents were stored: if its folder was moved away by mistake, stop and put it back; else fill it with `callscope import` from the CDR files"
        );
    }
}

/// Says that nobody knows any more how far the journal was dealt with. `begun`: its records, where that is so.
fn warn_if_lost(checkpoint: &Checkpoint, begun: Option<&Range<u64>>) {
    let Some(Range { start: first, end }) = begun else { return };
    if *end > 0 && (checkpoint.is_new() || *first > 0) {
        tracing::warn!(
            first,
            end,
            "THERE IS NO CHECKPOINT of this journal: starting over from the records it still holds. Sessions that began before are incomplete; if checkpoint.redb was moved away by mistake, stop and put it back"
        );
    }
}

/// Says which sessions the machine had open when it worked alone: the group knows of them what the journal still holds.
fn tell_of_open_sessions(config: &Config) -> Result<(), Failure> {
    let misconfigured = ExitCode::Misconfigured;
    let path = config.checkpoint_file_alone();
    let left = Checkpoint::open(&path).map_err(Failure::with(misconfigured))?;
    let (progress, sessions) =
        left.load(Limits::new(&config.sessions)).map_err(Failure::with(misconfigured))?;
    let sessions = sessions.live(progress.lane_clock).totals.sessions;
    if sessions > 0 {
        tracing::warn!(
            sessions,
            "sessions that were open before Kafka was set are in {} and not in the group, which knows of them what comes from now on \
             and what the journal still holds; `callscope import --to kafka` of the CDR files since they began makes them whole and \
             repeats nothing",
            path.display()
        );
    }
    Ok(())
}

/// Runs everything until it is stopped, or one thing cannot go on: without it, nothing would be dealt with.
async fn run_all(work: Vec<Work>, stop: &CancellationToken) -> Result<(), Failure> {
    let mut running = FuturesUnordered::new();
    for Work { name, future } in work {
        running.push(on_thread(name, future));
    }
    let mut ended = Ok(());
    while let Some(one) = running.next().await {
        stop.cancel();
        ended = ended.and(one);
    }
    ended
}

/// Runs `work` on a thread of its own until it ends.
async fn on_thread(
    name: &'static str,
    work: Pin<Box<dyn Future<Output = Result<(), LaneError>> + Send>>,
) -> Result<(), Failure> {
    let (told, ended) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let result = runtime.block_on(work);
        // The other side waits for this; if it has gone, the process is ending anyway.
        let _gone = told.send(result);
    });
    let thread = thread.map_err(Failure::with(ExitCode::Internal))?;
    let result = ended.await;
    if thread.join().is_err() {
        return Err(Failure::new(
            ExitCode::Internal,
            anyhow::anyhow!("the {name} panicked; what was acknowledged is not lost"),
        ));
    }
    match result {
        Ok(Err(LaneError::Sink(SinkError::Stopped)) | Ok(())) => Ok(()),
        Ok(Err(LaneError::Sink(error))) => Err(sink_failure(error)),
        Ok(Err(LaneError::Kafka(error))) => Err(kafka_failure(error)),
        Ok(Err(error)) => Err(Failure::new(ExitCode::Internal, error)),
        Err(error) => Err(Failure::new(ExitCode::Internal, error)),
    }
}

fn journal_failure(error: journal::JournalError) -> LaneError {
    LaneError::Sink(SinkError::Misconfigured(anyhow::Error::from(error)))
}

/// The lane with its inputs.
struct Running {
    lane: Lane<AnySink>,
    inputs: Inputs,
    databases: Databases,
    stop: CancellationToken,
    shown: Option<Instant>,
    /// Whether all that had come was in it, and nothing was read since.
    is_shown: bool,
    /// Whether everything was read that has come.
    is_current: bool,
}

impl Running {
    async fn run(mut self, setup: bool) -> Result<(), LaneError> {
        if setup {
            self.lane.outlet.sink.setup().await?;
        }
        self.show();
        let mut expired = Instant::now();
        while !self.stop.is_cancelled() {
            let positions = &mut self.lane.progress.positions;
            let read = self.inputs.read(positions).map_err(journal_failure)?;
            self.lane.behind = read.behind;
            self.is_current = self.lane.behind.is_empty();
            if read.items.is_empty() {
                self.wait().await;
                self.show();
                if expired.elapsed() < IDLE {
                    continue;
                }
            }
            expired = Instant::now();
            let started = Instant::now();
            let has_items = !read.items.is_empty();
            self.lane.cycle(read.items, wall()).await?;
            let took = started.elapsed();
            if has_items {
                self.is_shown = false;
                self.lane.outlet.metrics.cycle_seconds.observe(took.as_secs_f64());
                self.inputs.release(&self.lane.progress.positions);
            }
            self.show();
            if has_items && self.lane.behind.is_empty() {
                self.gather(took).await;
            }
            if let Some(geoip) = self.databases.renewed() {
                self.lane.folder.set_geoip(geoip);
            }
        }
        Ok(())
    }

    /// Lets records come together for the next cycle: of a commit for every few of them an index would have no end of small
    /// segments to merge. `took`: the cycle before.
    async fn gather(&self, took: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep((took * GATHERED).min(GATHERED_MAX)) => {}
        }
    }

    /// Waits until something may have come. Only this time counts for the clocks: everything was read, and the sink took it.
    async fn wait(&mut self) {
        let started = Instant::now();
        self.inputs.wait(IDLE).await;
        // What is longer than a wait was no waiting: the process was stopped.
        let elapsed = started.elapsed().min(IDLE * 2);
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(0);
        self.lane.wait(elapsed, wall());
    }

    /// A picture of thousands of sessions is not worth making anew while nothing happens but time.
    fn show(&mut self) {
        let every = if self.is_shown { SHOW_AT_REST_EVERY } else { SHOW_EVERY };
        if self.shown.is_none_or(|shown| shown.elapsed() >= every) {
            self.lane.show(wall(), self.is_current);
            self.shown = Some(Instant::now());
            self.is_shown = self.is_current;
        }
    }
}
