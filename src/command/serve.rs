//! `serve`: listen, follow, fold, write.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::kept::{Kept, report};
use super::{AnySink, open_sink, sink_failure, stop_on_signal, tell, wall};
use crate::checkpoint::Disk;
use crate::checkpoint::persist::TroubleSender;
use crate::cli::{ExitCode, Failure};
use crate::config::Config;
use crate::enrich::place::GeoIpFiles;
use crate::files::follow::Follower;
use crate::http::{App, Bound};
use crate::journal::lock::DataDirLock;
use crate::journal::{self, Bounds, Journal};
use crate::lane::cycle::{BYTES_MAX, RECORDS_MAX};
use crate::lane::fold::Folder;
use crate::lane::outlet::Outlet;
use crate::lane::{Item, Lane, LaneError};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::sink::{Sink, SinkError};

/// How often the open sessions are shown anew at most.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// The same while nothing is read: sessions fall silent.
const SHOW_AT_REST_EVERY: Duration = Duration::from_secs(10);
/// How often sessions are looked through for what time brings, while nothing arrives.
const IDLE: Duration = Duration::from_secs(1);
/// How often the GeoIP files are looked at.
const GEOIP_EVERY: Duration = Duration::from_secs(10);

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
    if let AnySink::Embedded(index) = &sink
        && index.count() == 0
        && kept.progress.tally.stored > 0
    {
        tracing::warn!(
            stored = kept.progress.tally.stored,
            "THE INDEX IS EMPTY although documents were stored: if its folder was moved away by mistake, stop and put it back; else fill it with `callscope import` from the CDR files"
        );
    }
    let (live, watched) = watch::channel(Arc::new(Live::default()));
    let dead_letters = Arc::clone(&kept.dead_letters);
    let disk = TroubleSender::default();
    let is_new = kept.checkpoint.is_new();
    let watched_disk = disk.subscribe();
    let outlet = Outlet {
        sink,
        dead_letters: Some(Arc::clone(&dead_letters)),
        metrics: Arc::clone(&metrics),
        disk: Disk { stop: stop.clone(), trouble: disk },
    };
    let (lane, geoip) = open_lane(&config, kept, outlet, live)?;
    let address = bound.address();
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
        disk: watched_disk,
        dead_letters,
        metrics,
        body_bytes_max: config.http.body_bytes_max.get(),
        bodies: crate::http::bodies(config.http.body_bytes_max.get()),
        idle_after: config.http.idle_after,
        hold: crate::http::HOLD,
    });
    let mut running = Running::new(&config, lane, geoip, journal.clone(), stop.clone());
    running.begin(is_new).map_err(Failure::with(ExitCode::Misconfigured))?;
    let http = tokio::spawn(bound.serve(app, stop.clone()));
    tell(&format!("callscope listens on http://{address}"));
    let beside = beside.map(|beside| beside(address, stop.clone()));
    let ended = run_lane(config.sink.setup, running).await;
    // Whatever ended the lane ends the service: without it, nothing would be dealt with.
    stop.cancel();
    let served = http.await;
    if let Some(beside) = beside {
        beside.await.map_err(Failure::with(ExitCode::Internal))?;
    }
    journal.close();
    let joined = tokio::task::spawn_blocking(move || writer.join()).await;
    served.and(joined).map_err(Failure::with(ExitCode::Internal))?;
    ended.map(|()| ExitCode::Ok)
}

fn open_lane(
    config: &Config,
    kept: Kept,
    outlet: Outlet<AnySink>,
    live: watch::Sender<Arc<Live>>,
) -> Result<(Lane<AnySink>, GeoIpFiles), Failure> {
    let (files, geoip) = GeoIpFiles::open(&config.geoip.databases)
        .map_err(Failure::with(ExitCode::Misconfigured))?;
    let lane = Lane {
        folder: Folder::resume(config, geoip, kept.sessions),
        outlet: Arc::new(outlet),
        checkpoint: Some(kept.checkpoint),
        progress: kept.progress,
        live,
        behind: BTreeSet::new(),
        stats_every: i64::try_from(config.stats.every.as_millis()).unwrap_or(0),
        takes_any_time: false,
    };
    Ok((lane, files))
}

/// Runs the lane on a thread of its own until it is stopped, or cannot go on.
async fn run_lane(setup: bool, running: Running) -> Result<(), Failure> {
    let (told, ended) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name("lane".to_owned()).spawn(move || {
        let result = runtime.block_on(running.run(setup));
        // The other side waits for this; if it has gone, the process is ending anyway.
        let _gone = told.send(result);
    });
    let thread = thread.map_err(Failure::with(ExitCode::Internal))?;
    let result = ended.await;
    if thread.join().is_err() {
        return Err(Failure::new(
            ExitCode::Internal,
            anyhow::anyhow!("the lane panicked; what was acknowledged is in the journal"),
        ));
    }
    match result {
        Ok(Err(LaneError::Sink(SinkError::Stopped))) | Ok(Ok(())) => Ok(()),
        Ok(Err(LaneError::Sink(error))) => Err(sink_failure(error)),
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
    journal: Journal,
    reader: journal::Reader,
    end: watch::Receiver<u64>,
    follower: Follower,
    poll_every: Duration,
    geoip: GeoIpFiles,
    stop: CancellationToken,
    shown: Option<Instant>,
    /// Whether nothing was read since.
    is_shown: bool,
    geoip_looked: Instant,
}

impl Running {
    fn new(
        config: &Config,
        lane: Lane<AnySink>,
        geoip: GeoIpFiles,
        journal: Journal,
        stop: CancellationToken,
    ) -> Self {
        Self {
            reader: journal.reader(),
            end: journal.end(),
            follower: Follower::new(&config.files.follow, &config.files.source),
            poll_every: config.files.poll_every,
            geoip,
            lane,
            journal,
            stop,
            shown: None,
            is_shown: false,
            geoip_looked: Instant::now(),
        }
    }

    /// A checkpoint that does not know the journal begins with what is still there, and that is said.
    fn begin(&mut self, is_new: bool) -> Result<(), journal::JournalError> {
        let input = self.journal.input();
        if self.lane.progress.positions.iter().any(|(known, _)| *known == input) {
            return Ok(());
        }
        let (first, end) = (self.journal.first()?, *self.journal.end().borrow());
        if end > 0 && (is_new || first > 0) {
            tracing::warn!(
                first,
                end,
                "THERE IS NO CHECKPOINT of this journal: starting over from the records it still holds. Sessions that began before are incomplete; if checkpoint.redb was moved away by mistake, stop and put it back"
            );
        }
        self.lane.progress.positions.advance(&input, first);
        self.journal.release(first)
    }

    async fn run(mut self, setup: bool) -> Result<(), LaneError> {
        if setup {
            self.lane.outlet.sink.setup().await?;
        }
        self.show();
        let mut expired = Instant::now();
        while !self.stop.is_cancelled() {
            let items = self.read()?;
            if items.is_empty() {
                self.wait().await;
                self.show();
                if expired.elapsed() < IDLE {
                    continue;
                }
            }
            expired = Instant::now();
            let started = Instant::now();
            let has_items = !items.is_empty();
            self.lane.cycle(items, wall()).await?;
            if has_items {
                self.is_shown = false;
                self.lane.outlet.metrics.cycle_seconds.observe(started.elapsed().as_secs_f64());
                self.release();
            }
            self.show();
            self.reload_geoip();
        }
        Ok(())
    }

    /// What the inputs have: the journal first, then files while there is room.
    fn read(&mut self) -> Result<Vec<Item>, LaneError> {
        let input = self.journal.input();
        let from = self.lane.progress.positions.next(&input);
        let read = self.reader.read(from, RECORDS_MAX, BYTES_MAX).map_err(journal_failure)?;
        let mut items: Vec<Item> = Vec::with_capacity(read.len());
        let mut bytes = 0;
        let mut next = from;
        let mut oldest = None;
        for item in read {
            let numbers = next..item.next();
            next = numbers.end;
            bytes += item.len();
            match item {
                journal::Item::Record(record, received_at) => {
                    oldest.get_or_insert(received_at);
                    items.push(Item::Record(record));
                }
                journal::Item::Damaged(record) => {
                    self.report_lost(numbers.start + 1..numbers.end);
                    items.push(Item::Damaged(record, "the journal is damaged here"));
                }
                // Behind records it is found again, once they are dealt with: it is told of once.
                journal::Item::Missing(_) if !items.is_empty() => {
                    next = numbers.start;
                    break;
                }
                journal::Item::Missing(numbers) => self.report_lost(numbers),
            }
        }
        // Where nothing was read there is no record to carry the position past it.
        if items.is_empty() {
            self.lane.progress.positions.advance(&input, next);
        }
        self.lane.outlet.metrics.waits_since(oldest);
        let end = *self.end.borrow_and_update();
        self.lane.behind.clear();
        if next < end {
            self.lane.behind.insert(input);
        }
        if items.len() < RECORDS_MAX && bytes < BYTES_MAX {
            let room = (RECORDS_MAX - items.len(), BYTES_MAX - bytes);
            items.extend(self.follower.poll(&self.lane.progress.positions, room.0, room.1));
        }
        self.lane.behind.extend(self.follower.behind().cloned());
        Ok(items)
    }

    /// Records of which nothing is left, not even a letter.
    fn report_lost(&self, numbers: Range<u64>) {
        if numbers.is_empty() {
            return;
        }
        let count = numbers.end - numbers.start;
        self.lane.outlet.metrics.journal_lost.inc_by(count);
        tracing::error!(
            first = numbers.start,
            last = numbers.end - 1,
            count,
            "records are missing from the journal and lost; restore its segments from a backup, or import the CDR files of that time"
        );
    }

    /// Waits until something may have come. Only this time counts for the clocks: everything was read, and the sink took it.
    async fn wait(&mut self) {
        let started = Instant::now();
        let poll = if self.follower.at_end() { self.poll_every.min(IDLE) } else { Duration::ZERO };
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = self.end.changed() => {}
            () = tokio::time::sleep(poll) => {}
        }
        let elapsed = i64::try_from(started.elapsed().as_millis()).unwrap_or(0);
        self.lane.wait(elapsed, wall());
    }

    /// Deletes what the checkpoint has passed.
    fn release(&self) {
        let next = self.lane.progress.positions.next(&self.journal.input());
        if let Err(error) = self.journal.release(next) {
            tracing::warn!(error = %error, "journal segment cannot be deleted");
        }
    }

    /// A picture of thousands of sessions is not worth making anew while nothing happens but time.
    fn show(&mut self) {
        let every = if self.is_shown { SHOW_AT_REST_EVERY } else { SHOW_EVERY };
        if self.shown.is_none_or(|shown| shown.elapsed() >= every) {
            self.lane.show();
            self.shown = Some(Instant::now());
            self.is_shown = true;
        }
    }

    fn reload_geoip(&mut self) {
        if self.geoip_looked.elapsed() < GEOIP_EVERY {
            return;
        }
        self.geoip_looked = Instant::now();
        match self.geoip.reload() {
            None => {}
            Some(Ok(geoip)) => {
                tracing::info!("GeoIP databases were replaced");
                self.lane.folder.set_geoip(geoip);
            }
            Some(Err(error)) => {
                tracing::warn!(error = %error, "GeoIP databases were replaced by broken ones; the old ones stay in use");
            }
        }
    }
}
