//! What one run leaves in the data directory for the next.

use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Progress};
use crate::config::{Config, SinkKind};
use crate::dead_letters::DeadLetters;
use crate::journal::{self, Recovered};
use crate::sessions::{Limits, Sessions};
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

/// Reads what is there as `serve` would, begins nothing and mends nothing. Gives what an operator should know.
pub(super) fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut told = Vec::new();
    let limits = Limits::new(&config.sessions);
    let positions = Checkpoint::check(&config.checkpoint_file(), limits)?.unwrap_or_default();
    if let Some(recovered) = journal::check(&config.journal_folder(), &positions)? {
        told.extend(recovered.told());
        if recovered.has_records && !recovered.is_known {
            told.push(
                "there is no checkpoint of this journal: `serve` would start over from the records it still holds; \
                 if checkpoint.redb was moved away by mistake, put it back"
                    .to_owned(),
            );
        }
    }
    if config.sink.kind == SinkKind::Embedded {
        EmbeddedIndex::check(&config.index_folder())?;
    }
    let count = DeadLetters::check(&config.dead_letters_file())?;
    if count > 0 {
        told.push(format!("dead letters: {count}; see `callscope dead-letters list`"));
    }
    Ok(told)
}

/// Says in the log how the journal was left.
pub(super) fn report(recovered: &Recovered) {
    let is_loss = recovered.damaged_bytes > 0 && recovered.passed.is_empty();
    for told in recovered.told() {
        if is_loss {
            tracing::error!("{told}");
        } else {
            tracing::warn!("{told}");
        }
    }
}
