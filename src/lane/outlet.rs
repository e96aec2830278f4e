//! The outlet of a lane: where a folded batch becomes durable.

use std::sync::Arc;

use super::LaneError;
use crate::checkpoint::{Disk, Tally};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::document::Document;
use crate::metrics::Metrics;
use crate::sink::{Sink, Written};

/// What came of the records of one cycle.
#[derive(Debug, Default)]
pub struct Batch {
    /// To be stored.
    pub documents: Vec<Document>,
    /// Records that are no events.
    pub letters: Vec<DeadLetter>,
    /// Outcomes of the records, and once written, of the documents.
    pub tally: Tally,
}

impl Batch {
    /// Whether there is nothing to write and nothing to count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.letters.is_empty() && self.tally == Tally::default()
    }
}

/// The sink, and a place for what it refuses.
#[derive(Debug)]
pub struct Outlet<S> {
    /// Where documents go.
    pub sink: S,
    /// Where the rest goes; without it, it is told of and stays where it was read from.
    pub dead_letters: Option<Arc<DeadLetters>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What waits while the disk refuses.
    pub disk: Disk,
}

impl<S: Sink> Outlet<S> {
    /// Makes everything of `batch` durable and counts what became of its documents. `wall`: milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// If something could not be made durable; nothing of the batch may count as done then.
    pub async fn write(&self, mut batch: Batch, wall: i64) -> Result<Tally, LaneError> {
        self.store(std::slice::from_mut(&mut batch), wall).await?;
        if let Some(dead_letters) = &self.dead_letters {
            self.disk.persist(|| dead_letters.put(&batch.letters)).await?;
        }
        self.tell(&batch, self.dead_letters.is_some());
        Ok(batch.tally)
    }

    /// Stores the documents of `batches`, all together, and counts what became of them. Those that are refused become letters,
    /// which the caller keeps.
    ///
    /// # Errors
    ///
    /// If the sink gave up; nothing of the batches may count as done then.
    pub async fn store(&self, batches: &mut [Batch], wall: i64) -> Result<(), LaneError> {
        let mut documents = Vec::new();
        let mut counts = Vec::with_capacity(batches.len());
        for batch in &mut *batches {
            counts.push(batch.documents.len());
            if documents.is_empty() {
                documents = std::mem::take(&mut batch.documents);
            } else {
                documents.append(&mut batch.documents);
            }
        }
        if documents.is_empty() {
            return Ok(());
        }
        let answers = self.sink.write(&documents).await?;
        self.metrics.written(&documents, &answers);
        let mut answered = documents.iter().zip(answers);
        for (batch, count) in batches.iter_mut().zip(counts) {
            for (document, written) in answered.by_ref().take(count) {
                batch.tally.documents += 1;
                match written {
                    Written::Stored => batch.tally.stored += 1,
                    Written::Existed => batch.tally.existed += 1,
                    Written::Older => batch.tally.older += 1,
                    Written::Dead(reason) => {
                        batch.tally.refused += 1;
                        batch.letters.push(DeadLetter::document(document, &reason, wall));
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells of the letters of a batch that is done with, and counts its outcomes.
    pub fn tell(&self, batch: &Batch, is_kept: bool) {
        for letter in &batch.letters {
            // With its place, an operator finds it again.
            tracing::warn!(key = %letter.key(), reason = %letter.reason, is_kept, "dead letter");
        }
        self.metrics.cycle(&batch.tally);
    }
}
