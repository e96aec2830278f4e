//! The inputs of one machine: its journal, and the CDR files that it follows. Both are read from where the caller's positions
//! say, so whoever saves the positions decides what is read again.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::files::follow::Follower;
use crate::journal::{self, Journal, JournalError};
use crate::lane::Item;
use crate::lane::cycle::{BYTES_MAX, RECORDS_MAX};
use crate::metrics::Metrics;
use crate::record::{Input, Positions};

/// Reads journal and files.
#[derive(Debug)]
pub struct Inputs {
    journal: Journal,
    reader: journal::Reader,
    end: watch::Receiver<u64>,
    follower: Follower,
    poll_every: Duration,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// The journal's first.
    pub items: Vec<Item>,
    /// Inputs that have more to read.
    pub behind: BTreeSet<Input>,
}

impl Inputs {
    /// The journal, and the files that the settings name.
    #[must_use]
    pub fn new(
        config: &Config,
        journal: Journal,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            reader: journal.reader(),
            end: journal.end(),
            follower: Follower::new(&config.files.follow, &config.files.source),
            poll_every: config.files.poll_every,
            journal,
            metrics,
            stop,
        }
    }

    /// Positions that do not know the journal begin with what is still there: the first record and the end.
    ///
    /// # Errors
    ///
    /// If the journal's folder cannot be used.
    pub fn begin(&self, positions: &mut Positions) -> Result<Option<Range<u64>>, JournalError> {
        let input = self.journal.input();
        if positions.iter().any(|(known, _)| *known == input) {
            return Ok(None);
        }
        let (first, end) = (self.journal.first()?, *self.journal.end().borrow());
        positions.advance(&input, first);
        self.journal.release(first)?;
        Ok(Some(first..end))
    }

    /// What there is: the journal first, then files while there is room.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn read(&mut self, positions: &mut Positions) -> Result<Read, JournalError> {
        let input = self.journal.input();
        let from = positions.next(&input);
        let read = self.reader.read(from, RECORDS_MAX, BYTES_MAX)?;
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
            positions.advance(&input, next);
        }
        self.metrics.waits_since(oldest);
        let mut behind = BTreeSet::new();
        if next < *self.end.borrow_and_update() {
            behind.insert(input);
        }
        if items.len() < RECORDS_MAX && bytes < BYTES_MAX {
            let room = (RECORDS_MAX - items.len(), BYTES_MAX - bytes);
            items.extend(self.follower.poll(positions, room.0, room.1));
        }
        behind.extend(self.follower.behind().cloned());
        Ok(Read { items, behind })
    }

    /// Records of which nothing is left, not even a letter.
    fn report_lost(&self, numbers: Range<u64>) {
        if numbers.is_empty() {
            return;
        }
        let count = numbers.end - numbers.start;
        self.metrics.journal_lost.inc_by(count);
        tracing::error!(
            first = numbers.start,
            last = numbers.end - 1,
            count,
            "records are missing from the journal and lost; restore its segments from a backup, or import the CDR files of that time"
        );
    }

    /// Waits until something may have come, at most for `at_most`.
    pub async fn wait(&mut self, at_most: Duration) {
        let poll =
            if self.follower.at_end() { self.poll_every.min(at_most) } else { Duration::ZERO };
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = self.end.changed() => {}
            () = tokio::time::sleep(poll) => {}
        }
    }

    /// Deletes what saved positions have passed.
    pub fn release(&self, positions: &Positions) {
        let next = positions.next(&self.journal.input());
        if let Err(error) = self.journal.release(next) {
            tracing::warn!(error = %error, "journal segment cannot be deleted");
        }
    }
}
