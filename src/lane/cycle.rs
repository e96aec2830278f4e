//! The cycle: read a batch, fold it, write the documents, and only when the sink has answered for every one of them, save
//! how far things are.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::fold::{Folded, Folder, Times};
use super::outlet::{Batch, Outlet};
use super::overflow::OverflowError;
use super::stats;
use crate::checkpoint::{Checkpoint, Progress, Tally};
use crate::dead_letters::DeadLetter;
use crate::event::Event;
use crate::live::Live;
use crate::record::{Input, Record};
use crate::sessions::Outcome;
use crate::sink::{Sink, SinkError};

/// Most records of one cycle.
pub const RECORDS_MAX: usize = 5_000;
/// Most bytes of records of one cycle.
pub const BYTES_MAX: usize = 8 << 20;
/// Bytes of summaries above which no further session is added to a batch.
const SUMMARY_BYTES_MAX: usize = 16 << 20;

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The sink gave up.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The state of a session could not be encoded.
    #[error(transparent)]
    State(#[from] crate::sessions::StateError),
    /// Kafka cannot be used.
    #[error(transparent)]
    Kafka(#[from] crate::kafka::KafkaError),
    /// Sessions that do not fit into memory cannot be reached.
    #[error(transparent)]
    Overflow(#[from] OverflowError),
}

/// One record, or bytes that an input could not read as one.
#[derive(Debug)]
pub enum Item {
    /// A record.
    Record(Record),
    /// What is left of one, and what is wrong with it.
    Damaged(Record, &'static str),
    /// What stands among records and is none, as everybody knows.
    Noise(Record),
}

impl Item {
    /// What was read, whatever it is.
    #[must_use]
    pub fn record(&self) -> &Record {
        let (Self::Record(record) | Self::Damaged(record, _) | Self::Noise(record)) = self;
        record
    }
}

/// Everything that a lane owns.
#[derive(Debug)]
pub struct Lane<S> {
    /// The pure middle.
    pub folder: Folder,
    /// Where documents go; `import` lends it to the task that writes one batch while the next is folded.
    pub outlet: Arc<Outlet<S>>,
    /// Where progress goes; `import` has none.
    pub checkpoint: Option<Checkpoint>,
    /// How far things are.
    pub progress: Progress,
    /// The open sessions, for whoever looks.
    pub live: watch::Sender<Arc<Live>>,
    /// Inputs that have more to read than what was handed over: their clocks hold the lane's back.
    pub behind: BTreeSet<Input>,
    /// Span between two `platformStats`, in milliseconds; 0: none.
    pub stats_every: i64,
    /// Whether event times far ahead of the wall clock are taken: what is replayed was written by whatever clock.
    pub takes_any_time: bool,
}

impl<S: Sink> Lane<S> {
    /// Deals with a batch. `wall`: milliseconds since 1970. When it returns, everything is durable.
    ///
    /// # Errors
    ///
    /// If something could not be made durable: the lane must not go on then. A restart repeats the cycle.
    pub async fn cycle(&mut self, items: Vec<Item>, wall: i64) -> Result<(), LaneError> {
        let mut batch = self.fold(items, wall)?;
        let mut tally = Tally::default();
        loop {
            tally.add(&self.outlet.write(batch, wall).await?);
            batch = self.rest();
            if batch.is_empty() {
                break;
            }
        }
        self.progress.tally.add(&tally);
        debug_assert!(self.progress.tally.balances(), "{:?}", self.progress.tally);
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
        let changes = self.folder.sessions.changes()?;
        // A clock that has moved while nothing happened is not worth a sync every second.
        if tally != Tally::default() || !changes.is_empty() {
            self.outlet.disk.persist(|| checkpoint.save(&self.progress, &changes)).await?;
        }
        Ok(())
    }

    /// Folds a batch: everything of a cycle but making it durable. What does not fit, [`rest`](Self::rest) gives.
    ///
    /// # Errors
    ///
    /// If sessions that are not in memory cannot be reached.
    pub fn fold(&mut self, items: Vec<Item>, wall: i64) -> Result<Batch, LaneError> {
        let mut batch = Batch { documents: Vec::with_capacity(items.len()), ..Batch::default() };
        for item in items {
            self.fold_one(item, wall, &mut batch)?;
        }
        let clock = self.progress.lane_clock;
        if self.stats_every > 0 && self.checkpoint.is_some() {
            let tick = &mut self.progress.stats_tick;
            batch.documents.extend(stats::due(
                &self.folder.sessions,
                tick,
                clock,
                self.stats_every,
            ));
        }
        self.add_summaries(&mut batch);
        if batch.tally.records > 0 {
            self.folder.relieve()?;
        }
        Ok(batch)
    }

    /// Summaries that are still due after [`fold`](Self::fold); empty once there are none.
    pub fn rest(&mut self) -> Batch {
        let mut batch = Batch::default();
        self.add_summaries(&mut batch);
        batch
    }

    /// What has become due goes out before time takes anything away: a batch may span more of it than sessions are kept.
    fn add_summaries(&mut self, batch: &mut Batch) {
        let sessions = &mut self.folder.sessions;
        let (mut seen, mut bytes) = (batch.documents.len(), 0);
        loop {
            while bytes < SUMMARY_BYTES_MAX && sessions.documents_of_one(&mut batch.documents) {
                let new = batch.documents.get(seen..).unwrap_or_default();
                bytes += new.iter().map(|document| document.json.len()).sum::<usize>();
                seen = batch.documents.len();
            }
            if bytes >= SUMMARY_BYTES_MAX || !sessions.expire(self.progress.lane_clock) {
                break;
            }
        }
    }

    fn fold_one(&mut self, item: Item, wall: i64, batch: &mut Batch) -> Result<(), LaneError> {
        batch.tally.records += 1;
        let (record, known) = match item {
            Item::Record(record) => (record, None),
            Item::Damaged(record, reason) => (record, Some(Folded::Dead(reason.to_owned()))),
            Item::Noise(record) => (record, Some(Folded::Skipped)),
        };
        let input = &record.position.input;
        let folded = match known {
            Some(folded) => folded,
            None => {
                let clock = self.progress.clocks.entry(input.clone()).or_default();
                let latest = if self.takes_any_time { i64::MAX / 2 } else { wall };
                let times = Times { lane: self.progress.lane_clock, wall: latest };
                let metrics = &self.outlet.metrics;
                let observe = |event: &Event<'_>| metrics.event(&record.source, event, wall);
                self.folder.fold(&record.payload, &record.source, times, clock, observe)?
            }
        };
        match folded {
            Folded::Event(outcome, document) => {
                batch.tally.outcome(outcome);
                if outcome == Outcome::Duplicate {
                    self.outlet.metrics.deduplicated(&record.source);
                }
                batch.documents.push(document);
            }
            Folded::Skipped => batch.tally.skipped += 1,
            Folded::Dead(reason) => {
                batch.tally.dead += 1;
                self.outlet.metrics.rejected(&record.source, &reason);
                batch.letters.push(DeadLetter::record(&record, reason, wall));
            }
        }
        self.progress.positions.advance(input, record.next_offset);
        self.advance_clock();
        Ok(())
    }

    /// Adds time that was spent waiting at the end of every input.
    pub fn wait(&mut self, elapsed: i64, wall: i64) {
        for clock in self.progress.clocks.values_mut() {
            clock.wait(elapsed, wall);
        }
        self.advance_clock();
    }

    /// The lane's clock is the slowest of those inputs that have more to read; the others do not hold it back.
    fn advance_clock(&mut self) {
        let clocks = &self.progress.clocks;
        let behind =
            self.behind.iter().map(|input| clocks.get(input).map_or(0, |clock| clock.now())).min();
        let newest = clocks.values().map(|clock| clock.now()).max().unwrap_or(0);
        self.progress.lane_clock = self.progress.lane_clock.max(behind.unwrap_or(newest));
    }

    /// Shows the open sessions, as of `at`, to whoever looks. `is_current`: whether everything was read that has come.
    pub fn show(&self, at: i64, is_current: bool) {
        let live = self.folder.sessions.live(self.progress.lane_clock);
        let live = Arc::new(Live { made_at: at, is_current, ..live });
        self.outlet.metrics.live(&live);
        self.live.send_replace(live);
    }
}

impl Tally {
    /// Counts one event.
    pub fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Folded => self.folded += 1,
            Outcome::Duplicate => self.duplicate += 1,
            Outcome::Passed => self.passed += 1,
            Outcome::Late => self.late += 1,
        }
    }

    /// Adds what one cycle counted.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.folded += other.folded;
        self.duplicate += other.duplicate;
        self.passed += other.passed;
        self.late += other.late;
        self.dead += other.dead;
        self.skipped += other.skipped;
        self.documents += other.documents;
        self.stored += other.stored;
        self.existed += other.existed;
        self.older += other.older;
        self.refused += other.refused;
    }
}
