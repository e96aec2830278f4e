//! What one run leaves in the data directory for the next.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoint, Progress};
use crate::config::{Config, SinkKind};
use crate::dead_letters::DeadLetters;
use crate::journal::{Bounds, Journal};
use crate::record::Positions;
use crate::sessions::{Limits, Sessions};
use crate::sink::StatusSender;
use crate::sink::embedded::EmbeddedIndex;

/// State and dead letters of the last run.
pub(super) struct Kept {
    pub(super) checkpoint: Checkpoint,
    pub(super) progress: Progress,
    pub(super) sessions: Sessions,
    pub(super) dead_letters: Arc<DeadLetters>,
}

impl Kept {
    /// Reads it, or begins anew where there is none.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(&config.checkpoint_file())?;
        let (progress, sessions) = checkpoint.load(Limits::new(&config.sessions))?;
        let dead_letters = Arc::new(DeadLetters::open(&config.dead_letters_file())?);
        Ok(Self { checkpoint, progress, sessions, dead_letters })
    }
}

/// Opens as `serve` would what is there, and begins nothing. Gives the number of dead letters.
pub(super) fn check(config: &Config) -> anyhow::Result<u64> {
    let mut positions = Positions::default();
    if config.checkpoint_file().exists() {
        let checkpoint = Checkpoint::open(&config.checkpoint_file())?;
        positions = checkpoint.load(Limits::new(&config.sessions))?.0.positions;
    }
    if has_files(&config.journal_folder()) {
        let bounds = Bounds::new(&config.journal);
        let (journal, writer, _) = Journal::open(&config.journal_folder(), bounds, &positions)?;
        journal.close();
        writer.join();
    }
    if config.sink.kind == SinkKind::Embedded && has_files(&config.index_folder()) {
        let (stop, status) = (CancellationToken::new(), StatusSender::default());
        EmbeddedIndex::open(&config.index_folder(), &config.embedded, stop, status)?;
    }
    if !config.dead_letters_file().exists() {
        return Ok(0);
    }
    Ok(DeadLetters::open(&config.dead_letters_file())?.count())
}

fn has_files(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some())
}
