//! The cycle: read a batch, fold it, write the documents, and only when the sink has answered for every one of them, save
//! how far things are.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::clock::Clock;
use super::fold::{Folded, Folder, Times};
use super::stats;
use crate::checkpoint::{Checkpoint, CheckpointError, Progress, Tally};
use crate::dead_letters::{DeadLetter, DeadLetterError, DeadLetters};
use crate::document::Document;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::record::{Input, Record};
use crate::sessions::Outcome;
use crate::sink::{Sink, SinkError, Written};

/// Most records of one cycle.
pub const RECORDS_MAX: usize = 5_000;
/// Most bytes of records of one cycle.
pub const BYTES_MAX: usize = 8 << 20;

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The sink gave up.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The checkpoint could not be saved.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Dead letters could not be kept.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
    /// The state of a session could not be encoded.
    #[error(transparent)]
    State(#[from] crate::sessions::RestoreError),
}

/// One record, or bytes that an input could not read as one.
#[derive(Debug)]
pub enum Item {
    /// A record.
    Record(Record),
    /// What is left of one, and what is wrong with it.
    Damaged(Record, &'static str),
}

/// Everything that a lane owns.
#[derive(Debug)]
pub struct Lane<S> {
    /// The pure middle.
    pub folder: Folder,
    /// Where documents go.
    pub sink: S,
    /// Where progress goes; `import` has none.
    pub checkpoint: Option<Checkpoint>,
    /// Where the rest goes; without it, it is only counted.
    pub dead_letters: Option<Arc<DeadLetters>>,
    /// How far things are.
    pub progress: Progress,
    /// Counters.
    pub metrics: Arc<Metrics>,
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
        let mut letters = Vec::new();
        let mut documents = Vec::with_capacity(items.len());
        let mut tally = Tally::default();
        for item in items {
            self.fold(item, wall, &mut documents, &mut letters, &mut tally);
        }
        self.advance_clock();
        let clock = self.progress.lane_clock;
        if self.stats_every > 0 && self.checkpoint.is_some() {
            documents.extend(stats::due(
                &self.folder.sessions,
                &mut self.progress.stats_tick,
                clock,
                self.stats_every,
            ));
        }
        self.folder.sessions.expire(clock);
        documents.extend(self.folder.sessions.documents());
        self.write(&documents, wall, &mut letters, &mut tally).await?;
        if let Some(dead_letters) = &self.dead_letters {
            dead_letters.put(&letters)?;
        }
        self.progress.tally.add(&tally);
        debug_assert!(self.progress.tally.balances(), "{:?}", self.progress.tally);
        let changes = self.folder.sessions.changes()?;
        // A clock that has moved while nothing happened is not worth a sync every second.
        let is_idle = tally == Tally::default() && changes.is_empty();
        if let Some(checkpoint) = self.checkpoint.as_mut().filter(|_| !is_idle) {
            checkpoint.save(&self.progress, &changes)?;
        }
        self.metrics.cycle(&tally);
        Ok(())
    }

    fn fold(
        &mut self,
        item: Item,
        wall: i64,
        documents: &mut Vec<Document>,
        letters: &mut Vec<DeadLetter>,
        tally: &mut Tally,
    ) {
        tally.records += 1;
        let record = match item {
            Item::Record(record) => record,
            Item::Damaged(record, reason) => {
                tally.dead += 1;
                letters.push(DeadLetter::record(&record, reason.to_owned(), wall));
                self.progress.positions.advance(&record.position.input, record.next_offset);
                return;
            }
        };
        let input = &record.position.input;
        if !self.progress.clocks.contains_key(input) {
            self.progress.clocks.insert(input.clone(), Clock::default());
        }
        let Some(clock) = self.progress.clocks.get_mut(input) else { return };
        let latest = if self.takes_any_time { i64::MAX / 2 } else { wall };
        let times = Times { lane: self.progress.lane_clock, wall: latest };
        let metrics = &self.metrics;
        let observe = |event: &crate::event::Event<'_>| metrics.event(&record.source, event, wall);
        match self.folder.fold(&record.payload, &record.source, times, clock, observe) {
            Folded::Event(outcome, document) => {
                tally.outcome(outcome);
                documents.push(document);
            }
            Folded::Skipped => tally.skipped += 1,
            Folded::Dead(reason) => {
                tally.dead += 1;
                letters.push(DeadLetter::record(&record, reason, wall));
            }
        }
        self.progress.positions.advance(&record.position.input, record.next_offset);
    }

    async fn write(
        &self,
        documents: &[Document],
        wall: i64,
        letters: &mut Vec<DeadLetter>,
        tally: &mut Tally,
    ) -> Result<(), LaneError> {
        if documents.is_empty() {
            return Ok(());
        }
        let written = self.sink.write(documents).await?;
        for (document, written) in documents.iter().zip(&written) {
            tally.documents += 1;
            match written {
                Written::Stored => tally.stored += 1,
                Written::Existed => tally.existed += 1,
                Written::Older => tally.older += 1,
                Written::Dead(reason) => {
                    tally.refused += 1;
                    letters.push(DeadLetter::document(document, reason, wall));
                }
            }
        }
        self.metrics.documents(documents);
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

    /// Shows the open sessions to whoever looks.
    pub fn show(&self) {
        let live = Arc::new(self.folder.sessions.live(self.progress.lane_clock));
        self.metrics.live(&live);
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
