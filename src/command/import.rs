//! `import`: one self-contained replay of CDR files, in the order of their first event.
//!
//! There is no checkpoint, and nothing is forgotten before the end. What is open at the end is written as fallen silent, which
//! any real end outranks. Lines that are no events stay in their files, and are reported with their place.
//!
//! Three things go on at once: a thread reads lines, the lane folds them, a task writes the batch before. Queues hold one
//! batch each.

use std::collections::{BTreeSet, VecDeque};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    AnySink, open_geoip, open_sink, setup_failure, sink_failure, stop_on_signal, tell, wall,
};
use crate::checkpoint::{Disk, Progress, Tally};
use crate::cli::{ExitCode, Failure, To};
use crate::config::{Config, SinkKind};
use crate::dead_letters::DeadLetters;
use crate::decode::{self, Decoded};
use crate::files::{FileError, Line, Lines};
use crate::journal::lock::DataDirLock;
use crate::lane::cycle::{BYTES_MAX, RECORDS_MAX};
use crate::lane::fold::Folder;
use crate::lane::outlet::{Batch, Outlet};
use crate::lane::overflow::Overflow;
use crate::lane::stats::Sweep;
use crate::lane::{Item, Lane, LaneError};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::record::Input;
use crate::sessions::Keeping;
use crate::sink::{Sink, SinkError};

mod to_kafka;

pub(super) async fn run(
    config: Config,
    files: Vec<PathBuf>,
    to: Option<To>,
    source: String,
) -> Result<ExitCode, Failure> {
    if !config.sources.contains_key(&source) {
        let error =
            anyhow::anyhow!("--source {source}: there is no [sources.{source}] in the settings");
        return Err(Failure::new(ExitCode::Misconfigured, error));
    }
    let kind = match to {
        Some(To::Kafka) => return to_kafka::run(&config, &files, &source).await,
        Some(To::Embedded) => SinkKind::Embedded,
        Some(To::Elasticsearch) => SinkKind::Elasticsearch,
        Some(To::Stdout) => SinkKind::Stdout,
        None => config.sink.kind,
    };
    // A document of its own that the embedded index refuses has no other place to stay.
    let lock = (kind == SinkKind::Embedded).then(|| DataDirLock::acquire(&config.data_dir));
    let _lock = lock.transpose().map_err(|error| {
        let error = anyhow::Error::from(error).context(
            "import into the embedded index needs the data directory for itself; beside a running `serve`, list the files in files.follow",
        );
        Failure::new(ExitCode::Misconfigured, error)
    })?;
    let inputs = in_order(&files)?;
    let stop = stop_on_signal()?;
    let bar = Bar::new("bytes", inputs.iter().map(|input| input.size).sum());
    let mut import = Import::open(&config, kind, stop, bar).await?;
    let done = import.files(inputs, &source).await;
    import.end(done)
}

/// Once: whoever imports stands by, and can do it again.
async fn set_up(sink: &AnySink) -> Result<(), Failure> {
    let AnySink::Elasticsearch(sink) = sink else {
        return sink.setup().await.map_err(sink_failure);
    };
    let plan = sink.plan().await.map_err(setup_failure)?;
    for told in plan.warnings.iter().chain(&plan.faults) {
        tell(&format!("warning: {told}"));
    }
    sink.apply(&plan).await.map_err(setup_failure)
}

/// A file to be read.
struct Reading {
    path: PathBuf,
    /// On disk; 0 for standard input.
    size: u64,
    /// Time of its first event, milliseconds since 1970; 0 without one.
    begins: i64,
    /// Standard input, which cannot be opened again, and the lines that were read to find out when it begins.
    opened: Option<(Lines, VecDeque<Line>)>,
}

/// Bytes looked at for a first event: a server's log begins with other things.
const FIRST_BYTES_MAX: u64 = 4 << 20;

impl Reading {
    fn open(path: &Path) -> Result<Self, FileError> {
        let mut lines = Lines::open(path)?;
        let mut first = VecDeque::new();
        let mut begins = 0;
        // What cannot be read is reported when its turn has come.
        let mut bytes = 0;
        while begins == 0
            && bytes < FIRST_BYTES_MAX
            && let Ok(Some(line)) = lines.next_line()
        {
            bytes = line.next_offset;
            if let Ok(Decoded::Event(event)) = decode::decode(&decode::text(&line.bytes)) {
                begins = event.time;
            }
            first.push_back(line);
        }
        let size = lines.size;
        // Thousands of files are not to be open at once.
        let opened = (path == Path::new("-")).then_some((lines, first));
        Ok(Self { path: path.into(), size, begins, opened })
    }

    /// Hands over the lines in batches, each with the bytes read from disk so far.
    fn read(
        self,
        source: &Arc<str>,
        batches: &mpsc::Sender<(Vec<Item>, u64)>,
    ) -> Result<(), FileError> {
        // What stands at one place of standard input is something else every time.
        let input = if self.opened.is_some() {
            format!("import/stdin-{}", uuid::Uuid::now_v7())
        } else {
            format!("import/{}", self.path.display())
        };
        let input = Input(input.into());
        let (mut lines, mut first) = match self.opened {
            Some(opened) => opened,
            None => (Lines::open(&self.path)?, VecDeque::new()),
        };
        loop {
            let (mut items, mut bytes) = (Vec::new(), 0);
            let mut broken = Ok(());
            while items.len() < RECORDS_MAX && bytes < BYTES_MAX {
                let next =
                    first.pop_front().map_or_else(|| lines.next_line(), |line| Ok(Some(line)));
                match next {
                    Ok(Some(line)) => {
                        bytes += line.bytes.len();
                        items.push(line.item(&input, source));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        broken = Err(error);
                        break;
                    }
                }
            }
            let is_last = items.is_empty();
            // Nobody listens any more once the import has failed or was stopped.
            let is_over = !is_last && batches.blocking_send((items, lines.bytes_read())).is_err();
            if is_last || is_over || broken.is_err() {
                return broken;
            }
        }
    }
}

/// All files in the order of their first event; those without one come first.
fn in_order(files: &[PathBuf]) -> Result<Vec<Reading>, Failure> {
    let inputs: Result<Vec<_>, _> = files.iter().map(|path| Reading::open(path)).collect();
    let mut inputs = inputs.map_err(Failure::with(ExitCode::Misconfigured))?;
    inputs.sort_by(|left, right| (left.begins, &left.path).cmp(&(right.begins, &right.path)));
    Ok(inputs)
}

/// What the end of what was read is the end of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// Of everything: what is open has fallen silent, and the platform is counted over the whole time.
    Whole,
    /// Of a part, or of what somebody else goes on with. Silent is what was so by this clock, milliseconds since 1970; counts
    /// would be too low.
    Part(i64),
}

/// A replay: while one batch is written, the next is read and folded.
pub(super) struct Import {
    lane: Lane<AnySink>,
    under_way: Option<JoinHandle<Result<Tally, LaneError>>>,
    stop: CancellationToken,
    bar: Bar,
}

impl Import {
    /// A replay into the sink of this kind, which is set up first.
    pub(super) async fn open(
        config: &Config,
        kind: SinkKind,
        stop: CancellationToken,
        bar: Bar,
    ) -> Result<Self, Failure> {
        let metrics = Arc::new(Metrics::new());
        let (sink, _index, _status) = open_sink(config, kind, &stop, &metrics)?;
        if config.sink.setup {
            set_up(&sink).await?;
        }
        let letters = match kind {
            SinkKind::Embedded => {
                let opened = DeadLetters::open(&config.dead_letters_file());
                Some(Arc::new(opened.map_err(Failure::with(ExitCode::Misconfigured))?))
            }
            // A running `serve` may have the data directory. What is refused can be imported again once it is mended.
            SinkKind::Elasticsearch | SinkKind::Stdout => None,
        };
        let mut folder = Folder::new(config, open_geoip(config)?, Keeping::Replay);
        folder.overflow = Some(Overflow::new(&config.data_dir, config.import.entities_max.get()));
        let lane = Lane {
            folder,
            outlet: Arc::new(Outlet {
                sink,
                dead_letters: letters,
                metrics,
                disk: Disk { stop: stop.clone(), ..Disk::default() },
            }),
            checkpoint: None,
            progress: Progress::default(),
            live: watch::channel(Arc::new(Live::default())).0,
            behind: BTreeSet::new(),
            stats_every: i64::try_from(config.stats.every.as_millis()).unwrap_or(0),
            takes_any_time: true,
        };
        Ok(Self { lane, under_way: None, stop, bar })
    }

    /// Tells what became of everything, and how the process ends. `done`: an error that ended reading before its end, if
    /// anything but that went well.
    pub(super) fn end<E: Into<anyhow::Error>>(
        &self,
        done: Result<Option<E>, Failure>,
    ) -> Result<ExitCode, Failure> {
        let tally = &self.lane.progress.tally;
        self.bar.finish(tally);
        match done {
            Err(failure) => {
                tell("not everything was read; importing again is safe: what is there stays");
                Err(failure)
            }
            Ok(Some(error)) => Err(Failure::new(ExitCode::DataRejected, error)),
            Ok(None) if tally.dead + tally.refused > 0 => Ok(ExitCode::DataRejected),
            Ok(None) => Ok(ExitCode::Ok),
        }
    }

    /// Reads all files and writes what is open at the end. The last error of a file that could not be read to its end.
    async fn files(
        &mut self,
        inputs: Vec<Reading>,
        source: &str,
    ) -> Result<Option<FileError>, Failure> {
        let source: Arc<str> = Arc::from(source);
        let mut broken = None;
        for input in inputs {
            let source = Arc::clone(&source);
            if let Err(error) = self.read(move |batches| input.read(&source, batches)).await? {
                // The other files are none the worse for it.
                tracing::error!(error = %error, "the rest of this file is not read");
                broken = Some(error);
            }
        }
        self.finish(Ending::Whole).await?;
        Ok(broken)
    }

    /// Writes what `reading` hands over, on a thread of its own: batches, each with how much was read so far. How its
    /// reading ended is given back; what was read before counts.
    pub(super) async fn read<T: Send + 'static>(
        &mut self,
        reading: impl FnOnce(&mpsc::Sender<(Vec<Item>, u64)>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, mut batches) = mpsc::channel(1);
        let reader = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || reading(&sender))
            .map_err(Failure::with(ExitCode::Internal))?;
        let mut seen = 0;
        loop {
            // A read of standard input cannot be broken off; its thread ends with the process then.
            let batch = tokio::select! {
                () = self.stop.cancelled() => return Err(sink_failure(SinkError::Stopped)),
                batch = batches.recv() => batch,
            };
            let Some((items, read)) = batch else { break };
            let batch = self.lane.fold(items, wall()).map_err(failure)?;
            self.write_all(batch).await?;
            self.bar.advance(read - seen, &self.lane.progress.tally);
            seen = read;
        }
        reader
            .join()
            .map_err(|_| Failure::new(ExitCode::Internal, anyhow::anyhow!("the reader panicked")))
    }

    /// Hands over a batch and whatever else has become due.
    async fn write_all(&mut self, mut batch: Batch) -> Result<(), Failure> {
        while !batch.is_empty() {
            self.settle().await?;
            let outlet = Arc::clone(&self.lane.outlet);
            self.under_way = Some(tokio::spawn(async move { outlet.write(batch, wall()).await }));
            batch = self.lane.rest();
        }
        Ok(())
    }

    /// Waits until what was handed over is written.
    async fn settle(&mut self) -> Result<(), Failure> {
        if let Some(under_way) = self.under_way.take() {
            let written = under_way.await.map_err(Failure::with(ExitCode::Internal))?;
            self.lane.progress.tally.add(&written.map_err(failure)?);
        }
        if self.stop.is_cancelled() {
            return Err(sink_failure(SinkError::Stopped));
        }
        Ok(())
    }

    /// The newest time that events have told, milliseconds since 1970.
    pub(super) fn clock(&self) -> i64 {
        self.lane.progress.lane_clock
    }

    /// Writes what is still open, as far as it is over, and the platform's counts over the whole time.
    pub(super) async fn finish(&mut self, ending: Ending) -> Result<(), Failure> {
        let every = match ending {
            Ending::Whole => self.lane.stats_every,
            Ending::Part(_) => 0,
        };
        let mut sweep = Sweep::new(1, self.lane.progress.lane_clock, every);
        loop {
            match ending {
                Ending::Whole => self.lane.folder.sessions.finish(),
                Ending::Part(clock) => self.lane.folder.sessions.finish_at(clock),
            }
            let batch = self.lane.rest();
            self.write_all(batch).await?;
            for (key, session) in self.lane.folder.sessions.iter() {
                sweep.add(key, session);
            }
            if !self.lane.folder.next_part().map_err(LaneError::from).map_err(failure)? {
                break;
            }
        }
        let mut documents = sweep.documents();
        loop {
            let documents: Vec<_> = documents.by_ref().take(RECORDS_MAX).collect();
            if documents.is_empty() {
                break;
            }
            self.write_all(Batch { documents, ..Batch::default() }).await?;
        }
        self.settle().await
    }
}

fn failure(error: LaneError) -> Failure {
    match error {
        LaneError::Sink(error) => sink_failure(error),
        error => Failure::new(ExitCode::Internal, error),
    }
}

/// Progress on a terminal; lines now and then anywhere else.
pub(super) struct Bar {
    bar: Option<indicatif::ProgressBar>,
    unit: &'static str,
    started: Instant,
    told: Instant,
    done: u64,
    total: u64,
}

impl Bar {
    /// Of `total` bytes or records, as `unit` says.
    pub(super) fn new(unit: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = indicatif::ProgressBar::new(total);
            let style = indicatif::ProgressStyle::with_template(match unit {
                "bytes" => {
                    "{bar:30} {percent:>3} % {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left  {msg}"
                }
                _ => "{bar:30} {percent:>3} % {human_pos}/{human_len} {eta} left  {msg}",
            });
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, unit, started: Instant::now(), told: Instant::now(), done: 0, total }
    }

    fn advance(&mut self, bytes: u64, tally: &Tally) {
        self.done += bytes;
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = tally.records as f64 / seconds;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.set_message(format!("{rate:.0} events/s"));
        } else if self.told.elapsed() > Duration::from_secs(5) {
            self.told = Instant::now();
            tell(&format!(
                "{} of {} {}, {} records, {rate:.0}/s",
                self.done, self.total, self.unit, tally.records
            ));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn finish(&self, tally: &Tally) {
        self.clear();
        let seconds = self.started.elapsed().as_secs_f64();
        tell(&format!(
            "{} records in {seconds:.1} s: {} folded, {} duplicate, {} passed, {} late, {} skipped, {} dead",
            tally.records,
            tally.folded,
            tally.duplicate,
            tally.passed,
            tally.late,
            tally.skipped,
            tally.dead
        ));
        tell(&format!(
            "{} documents: {} stored, {} existed, {} older, {} refused",
            tally.documents, tally.stored, tally.existed, tally.older, tally.refused
        ));
    }
}
