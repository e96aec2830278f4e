//! `import`: one self-contained replay of CDR files, in the order of their first event.
//!
//! There is no checkpoint, and nothing is forgotten before the end. What is open at the end is written as fallen silent, which
//! any real end outranks. Lines that are no events stay in their files, and are reported with their place.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::{AnySink, open_geoip, open_sink, sink_failure, stop_on_signal, tell, wall};
use crate::checkpoint::{Progress, Tally};
use crate::cli::{ExitCode, Failure, To};
use crate::config::{Config, SinkKind};
use crate::dead_letters::DeadLetters;
use crate::decode::{self, Decoded};
use crate::files::Lines;
use crate::journal::lock::DataDirLock;
use crate::lane::cycle::{BYTES_MAX, RECORDS_MAX};
use crate::lane::fold::Folder;
use crate::lane::{Item, Lane, LaneError, stats};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::record::{Input, Position, Record};
use crate::sink::Sink;

pub(super) async fn run(
    config: Config,
    files: Vec<PathBuf>,
    to: Option<To>,
    source: String,
) -> Result<ExitCode, Failure> {
    let kind = match to {
        Some(To::Embedded) => SinkKind::Embedded,
        Some(To::Elasticsearch) => SinkKind::Elasticsearch,
        Some(To::Stdout) => SinkKind::Stdout,
        None => config.sink.kind,
    };
    if !config.sources.contains_key(&source) {
        let error =
            anyhow::anyhow!("--source {source}: there is no [sources.{source}] in the settings");
        return Err(Failure::new(ExitCode::Misconfigured, error));
    }
    // A document of its own that the embedded index refuses has no other place to stay.
    let lock = (kind == SinkKind::Embedded).then(|| DataDirLock::acquire(&config.data_dir));
    let _lock = lock.transpose().map_err(|error| {
        let error = anyhow::Error::from(error).context(
            "import into the embedded index needs the data directory for itself; beside a running `serve`, list the files in files.follow",
        );
        Failure::new(ExitCode::Misconfigured, error)
    })?;
    let mut inputs = in_order(&files)?;
    let stop = stop_on_signal()?;
    let (sink, _index, _status) = open_sink(&config, kind, &stop)?;
    if config.sink.setup {
        sink.setup().await.map_err(sink_failure)?;
    }
    let letters = match kind {
        SinkKind::Embedded => {
            let opened = DeadLetters::open(&config.data_dir.join("dead-letters.redb"));
            Some(Arc::new(opened.map_err(Failure::with(ExitCode::Misconfigured))?))
        }
        SinkKind::Elasticsearch | SinkKind::Stdout => None,
    };
    let mut lane = Lane {
        folder: Folder::new(&config, open_geoip(&config)?, false),
        sink,
        checkpoint: None,
        dead_letters: letters,
        progress: Progress::default(),
        metrics: Arc::new(Metrics::new()),
        live: watch::Sender::new(Arc::new(Live::default())),
        behind: BTreeSet::new(),
        stats_every: i64::try_from(config.stats.every.as_millis()).unwrap_or(0),
        takes_any_time: true,
    };
    let mut bar = Bar::new(inputs.iter().map(|input| input.lines.size).sum());
    for input in &mut inputs {
        read(&mut lane, input, &source, &mut bar).await?;
    }
    finish(&mut lane).await?;
    bar.finish(&lane.progress.tally);
    let tally = &lane.progress.tally;
    Ok(if tally.dead + tally.refused > 0 { ExitCode::DataRejected } else { ExitCode::Ok })
}

/// A file being read, and the line that was read to find out when it begins.
struct Reading {
    path: PathBuf,
    lines: Lines,
    first: Option<crate::files::Line>,
    begins: i64,
}

/// All files in the order of their first event; those without one come first.
fn in_order(files: &[PathBuf]) -> Result<Vec<Reading>, Failure> {
    let mut inputs = Vec::new();
    for path in files {
        let mut lines = Lines::open(path).map_err(Failure::with(ExitCode::Misconfigured))?;
        let first = lines.next_line().map_err(Failure::with(ExitCode::DataRejected))?;
        let begins =
            first.as_ref().and_then(|line| match decode::decode(&decode::text(&line.bytes)) {
                Ok(Decoded::Event(event)) => Some(event.time),
                Ok(Decoded::Summary) | Err(_) => None,
            });
        inputs.push(Reading { path: path.clone(), lines, first, begins: begins.unwrap_or(0) });
    }
    inputs.sort_by(|left, right| (left.begins, &left.path).cmp(&(right.begins, &right.path)));
    Ok(inputs)
}

async fn read(
    lane: &mut Lane<AnySink>,
    input: &mut Reading,
    source: &str,
    bar: &mut Bar,
) -> Result<(), Failure> {
    let name = Input(format!("import/{}", input.path.display()).into());
    let source: Arc<str> = Arc::from(source);
    let mut seen = 0;
    loop {
        let (mut items, mut bytes) = (Vec::new(), 0);
        let mut broken = None;
        while items.len() < RECORDS_MAX && bytes < BYTES_MAX {
            let line = match input
                .first
                .take()
                .map_or_else(|| input.lines.next_line(), |line| Ok(Some(line)))
            {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            };
            bytes += line.bytes.len();
            let record = Record {
                position: Position { input: name.clone(), offset: line.offset },
                next_offset: line.next_offset,
                source: Arc::clone(&source),
                payload: Bytes::from(line.bytes),
            };
            report_if_dead(&input.path, &record, line.is_too_long);
            items.push(if line.is_too_long {
                Item::Damaged(record, "a line longer than 64 MiB")
            } else {
                Item::Record(record)
            });
        }
        let is_last = items.is_empty();
        cycle(lane, items).await?;
        bar.advance(input.lines.bytes_read() - seen, &lane.progress.tally);
        seen = input.lines.bytes_read();
        if let Some(error) = broken {
            finish(lane).await?;
            return Err(Failure::new(ExitCode::DataRejected, error));
        }
        if is_last {
            return Ok(());
        }
    }
}

/// A line that is no event is told of at once: with it, an operator finds it in the file.
fn report_if_dead(path: &Path, record: &Record, is_too_long: bool) {
    let offset = record.position.offset;
    if is_too_long {
        tracing::warn!(path = %path.display(), offset, "line is longer than 64 MiB");
    } else if let Err(reason) = decode::decode(&decode::text(&record.payload)) {
        tracing::warn!(path = %path.display(), offset, reason = %reason, "line is no event");
    }
}

async fn cycle(lane: &mut Lane<AnySink>, items: Vec<Item>) -> Result<(), Failure> {
    lane.cycle(items, wall()).await.map_err(|error| match error {
        LaneError::Sink(error) => sink_failure(error),
        error => Failure::new(ExitCode::Internal, error),
    })
}

/// Writes what is still open, and the platform's counts over the whole time.
async fn finish(lane: &mut Lane<AnySink>) -> Result<(), Failure> {
    lane.folder.sessions.finish();
    cycle(lane, Vec::new()).await?;
    if lane.stats_every > 0 {
        let documents =
            stats::sweep(&lane.folder.sessions, 1, lane.progress.lane_clock, lane.stats_every);
        for documents in documents.chunks(RECORDS_MAX) {
            lane.sink.write(documents).await.map_err(sink_failure)?;
        }
    }
    Ok(())
}

/// Progress on a terminal; lines now and then anywhere else.
struct Bar {
    bar: Option<indicatif::ProgressBar>,
    started: Instant,
    told: Instant,
    done: u64,
    total: u64,
}

impl Bar {
    fn new(total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = indicatif::ProgressBar::new(total);
            let style = indicatif::ProgressStyle::with_template(
                "{bar:30} {percent:>3} % {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left  {msg}",
            );
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, started: Instant::now(), told: Instant::now(), done: 0, total }
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
                "{} of {} bytes, {} records, {rate:.0}/s",
                self.done, self.total, tally.records
            ));
        }
    }

    fn finish(&self, tally: &Tally) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
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
