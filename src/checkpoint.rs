//! The checkpoint: how far the inputs are dealt with, and everything that is known of the sessions up to there.
//!
//! One `redb` file. [`Checkpoint::save`] puts positions, clocks, counters and all changed entities into one transaction:
//! after a crash the file holds the state before or after a cycle, never between. It is saved only after the sink has
//! answered for every document of the cycle, so a crash repeats at most one cycle, and repeating changes nothing.
//!
//! Tables: `meta` (text → bytes: `format`, `progress`), `entities` (key and value as in
//! [`sessions`](crate::sessions)). An unreadable file or one of another format stops the start; it is never taken for an
//! empty one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::lane::clock::Clock;
use crate::record::{Input, Positions};
use crate::sessions::{Change, Keeping, Limits, RestoreError, Sessions};

/// Version of everything stored in the file. Raise it when an older binary could not read what this one writes, or this one
/// not what an older one wrote.
const FORMAT: u32 = 2;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const ENTITIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entities");

/// Why the checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be opened or read.
    #[error(
        "cannot read the checkpoint {}: {source:#}; restore the file from a backup, or move it away to start over from what the journal and the files still hold",
        path.display()
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: anyhow::Error,
    },
    /// It was written by another version.
    #[error(
        "the checkpoint {} has format {found}, this version of callscope reads {FORMAT}; use the version that wrote it, or move the file away to start over",
        path.display()
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It cannot be written; nothing of the cycle was saved.
    #[error("cannot save the checkpoint {}: {source:#}; see that the disk has room and the folder can be written", path.display())]
    Unsaved {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: anyhow::Error,
    },
}

/// What is saved beside the sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where to go on.
    pub positions: Positions,
    /// Clock of each input.
    pub clocks: BTreeMap<Input, Clock>,
    /// The lane's clock, milliseconds since 1970. It never goes back.
    pub lane_clock: i64,
    /// Last `platformStats` tick written.
    pub stats_tick: i64,
    /// What became of all records and documents so far.
    pub tally: Tally,
}

/// What became of records and documents. Every record and every document counts once in each sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Records read.
    pub records: u64,
    /// They added a fact.
    pub folded: u64,
    /// They feed a summary, all of it known.
    pub duplicate: u64,
    /// They feed no summary.
    pub passed: u64,
    /// Their session is kept no more.
    pub late: u64,
    /// No events.
    pub dead: u64,
    /// Already indexed summaries.
    pub skipped: u64,
    /// Documents made.
    pub documents: u64,
    /// In the store now.
    pub stored: u64,
    /// Raw documents that were there already.
    pub existed: u64,
    /// Summaries of which a newer version was there.
    pub older: u64,
    /// Refused for good.
    pub refused: u64,
}

impl Tally {
    /// Whether every record and every document has exactly one outcome.
    #[must_use]
    pub fn balances(&self) -> bool {
        let outcomes =
            [self.folded, self.duplicate, self.passed, self.late, self.dead, self.skipped];
        let answers = [self.stored, self.existed, self.older, self.refused];
        self.records == outcomes.iter().sum::<u64>()
            && self.documents == answers.iter().sum::<u64>()
    }
}

/// The open file.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    database: Database,
}

impl Checkpoint {
    /// Opens the file, or makes an empty one.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unreadable`] or [`CheckpointError::Format`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let unreadable =
            |source: anyhow::Error| CheckpointError::Unreadable { path: path.into(), source };
        // redb makes a new database of an empty file; one that was cut to nothing must not pass for new.
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
            return Err(unreadable(anyhow::anyhow!("the file is empty")));
        }
        let database = Database::create(path).map_err(|error| unreadable(error.into()))?;
        let checkpoint = Self { path: path.into(), database };
        let format = checkpoint.meta("format").map_err(unreadable)?;
        match format {
            Some(bytes) => {
                let found = bytes.try_into().map_or(0, u32::from_le_bytes);
                if found != FORMAT {
                    return Err(CheckpointError::Format { path: path.into(), found });
                }
            }
            None => checkpoint.create().map_err(unreadable)?,
        }
        Ok(checkpoint)
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unreadable`].
    pub fn load(&self, limits: Limits) -> Result<(Progress, Sessions), CheckpointError> {
        self.read(limits)
            .map_err(|source| CheckpointError::Unreadable { path: self.path.clone(), source })
    }

    /// Saves progress and changes, together or not at all. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unsaved`].
    pub fn save(&mut self, progress: &Progress, changes: &[Change]) -> Result<(), CheckpointError> {
        self.write(progress, changes)
            .map_err(|source| CheckpointError::Unsaved { path: self.path.clone(), source })
    }

    fn create(&self) -> anyhow::Result<()> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
        transaction.open_table(ENTITIES)?;
        transaction.commit()?;
        Ok(())
    }

    fn meta(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(META) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(table.get(name)?.map(|value| value.value().to_vec()))
    }

    fn read(&self, limits: Limits) -> anyhow::Result<(Progress, Sessions)> {
        let progress = match self.meta("progress")? {
            Some(bytes) => postcard::from_bytes(&bytes)?,
            None => Progress::default(),
        };
        let mut sessions = Sessions::new(limits, Keeping::Lifetimes);
        let transaction = self.database.begin_read()?;
        for entry in transaction.open_table(ENTITIES)?.iter()? {
            let (key, value) = entry?;
            sessions
                .restore_one(key.value(), value.value())
                .map_err(|error: RestoreError| anyhow::anyhow!(error))?;
        }
        sessions.restored();
        Ok((progress, sessions))
    }

    fn write(&mut self, progress: &Progress, changes: &[Change]) -> anyhow::Result<()> {
        let transaction = self.database.begin_write()?;
        {
            transaction
                .open_table(META)?
                .insert("progress", postcard::to_stdvec(progress)?.as_slice())?;
            let mut entities = transaction.open_table(ENTITIES)?;
            for change in changes {
                match &change.value {
                    Some(value) => entities.insert(change.key.as_slice(), value.as_slice())?,
                    None => entities.remove(change.key.as_slice())?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn limits() -> Limits {
        Limits::new(&Config::load(None, std::iter::empty()).unwrap().config.sessions)
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.redb");
        let mut progress = Progress { lane_clock: 7, ..Progress::default() };
        progress.positions.advance(&Input("journal/x".into()), 12);
        {
            let mut checkpoint = Checkpoint::open(&path).unwrap();
            assert_eq!(checkpoint.load(limits()).unwrap().0, Progress::default());
            checkpoint.save(&progress, &[]).unwrap();
        }
        assert_eq!(Checkpoint::open(&path).unwrap().load(limits()).unwrap().0, progress);
    }

    #[test]
    fn what_cannot_be_read_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [("garbage", vec![7_u8; 5000]), ("empty", Vec::new())] {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let error = Checkpoint::open(&path).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("move it away"), "{error}");
        }
    }

    #[test]
    fn another_format_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.redb");
        {
            let checkpoint = Checkpoint::open(&path).unwrap();
            let transaction = checkpoint.database.begin_write().unwrap();
            transaction
                .open_table(META)
                .unwrap()
                .insert("format", 99_u32.to_le_bytes().as_slice())
                .unwrap();
            transaction.commit().unwrap();
        }
        assert!(matches!(Checkpoint::open(&path), Err(CheckpointError::Format { found: 99, .. })));
    }

    #[test]
    fn entities_that_cannot_be_decoded_stop_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.redb");
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        let change = Change { key: vec![1, 2, 3], value: Some(vec![255; 9]) };
        checkpoint.save(&Progress::default(), &[change]).unwrap();
        assert!(matches!(checkpoint.load(limits()), Err(CheckpointError::Unreadable { .. })));
    }
}
