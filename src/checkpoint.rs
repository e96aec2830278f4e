//! The checkpoint: how far the inputs are dealt with, and everything that is known of the sessions up to there.
//!
//! One `redb` file. [`Checkpoint::save`] puts positions, clocks, counters and all changed entities into one transaction:
//! after a crash the file holds the state before or after a cycle, never between. It is saved only after the sink has
//! answered for every document of the cycle, so a crash repeats at most one cycle, and repeating changes nothing.
//!
//! Tables: `meta` (text → bytes: `format`, `progress`), `entities` (key and value as in
//! [`sessions`](crate::sessions)). Every value but the format's ends in the xxh3 of key and value, 8 bytes, little-endian. An
//! unreadable file or one of another format stops the start; it is never taken for an empty one.
//!
//! A disk that refuses is no reason to end: [`Disk::persist`] tries again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

pub use persist::Disk;

use self::persist::{Reopened, kill_point};
use crate::lane::clock::Clock;
use crate::record::{Input, Positions};
use crate::sessions::{Change, Keeping, Limits, Sessions};

pub mod persist;

/// Version of everything stored in the file. Raise it when an older binary could not read what this one writes, or this one
/// not what an older one wrote.
const FORMAT: u32 = 4;

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
    is_new: bool,
    file: Reopened,
}

impl Checkpoint {
    /// Opens the file, or makes an empty one.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unreadable`] or [`CheckpointError::Format`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let unreadable = |source: anyhow::Error| {
            let path = path.into();
            if persist::is_full(&source) {
                return CheckpointError::Unsaved { path, source };
            }
            CheckpointError::Unreadable { path, source }
        };
        let (file, is_new) = Reopened::open(path, prepare).map_err(unreadable)?;
        let format = file.read(|database| meta(database, "format")).map_err(unreadable)?;
        let format =
            format.ok_or_else(|| unreadable(anyhow::anyhow!("it does not say its format")))?;
        let found = format.try_into().map_or(0, u32::from_le_bytes);
        if found != FORMAT {
            return Err(CheckpointError::Format { path: path.into(), found });
        }
        Ok(Self { path: path.into(), is_new, file })
    }

    /// Whether there was none before it was opened.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the inputs are to go on. Without a file: nowhere yet, and none is made.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unreadable`] or [`CheckpointError::Format`].
    pub fn positions(path: &Path) -> Result<Positions, CheckpointError> {
        if !path.exists() {
            return Ok(Positions::default());
        }
        let progress = Self::open(path)?
            .file
            .read(progress)
            .map_err(|source| CheckpointError::Unreadable { path: path.into(), source })?;
        Ok(progress.positions)
    }

    /// Where the inputs are to go on, as [`load`](Self::load) would find it; `None`: there is no file. Nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`load`](Self::load).
    pub fn check(path: &Path, limits: Limits) -> Result<Option<Positions>, CheckpointError> {
        if !path.exists() {
            return Ok(None);
        }
        let unreadable = |source| CheckpointError::Unreadable { path: path.into(), source };
        let copy = persist::copied(path).map_err(unreadable)?;
        let checked = Self::open(copy.path()).and_then(|opened| opened.load(limits));
        checked.map(|(progress, _)| Some(progress.positions)).map_err(|error| match error {
            CheckpointError::Unreadable { source, .. } => unreadable(source),
            CheckpointError::Format { found, .. } => {
                CheckpointError::Format { path: path.into(), found }
            }
            CheckpointError::Unsaved { source, .. } => unreadable(source),
        })
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unreadable`].
    pub fn load(&self, limits: Limits) -> Result<(Progress, Sessions), CheckpointError> {
        let loaded = self.file.read(|database| {
            let progress = progress(database)?;
            let mut sessions = Sessions::new(limits, Keeping::Lifetimes);
            for entry in database.begin_read()?.open_table(ENTITIES)?.iter()? {
                let (key, value) = entry?;
                sessions.restore_one(key.value(), unseal(key.value(), value.value())?)?;
            }
            sessions.restored();
            Ok((progress, sessions))
        });
        loaded.map_err(|source| CheckpointError::Unreadable { path: self.path.clone(), source })
    }

    /// Saves progress and changes, together or not at all. Durable when it returns. After an error it can be called again.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unsaved`].
    pub fn save(&mut self, progress: &Progress, changes: &[Change]) -> Result<(), CheckpointError> {
        kill_point("sink-written");
        self.file
            .with(|database| write(database, progress, changes))
            .map_err(|source| CheckpointError::Unsaved { path: self.path.clone(), source })?;
        kill_point("checkpoint-saved");
        Ok(())
    }
}

/// What every file has.
fn prepare(database: &Database) -> anyhow::Result<()> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
    transaction.open_table(ENTITIES)?;
    transaction.commit()?;
    Ok(())
}

fn meta(database: &Database, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(table.get(name)?.map(|value| value.value().to_vec()))
}

fn progress(database: &Database) -> anyhow::Result<Progress> {
    let Some(sealed) = meta(database, "progress")? else { return Ok(Progress::default()) };
    Ok(postcard::from_bytes(unseal(b"progress", &sealed)?)?)
}

fn write(database: &Database, progress: &Progress, changes: &[Change]) -> anyhow::Result<()> {
    let transaction = database.begin_write()?;
    {
        let progress = seal(b"progress", &postcard::to_stdvec(progress)?);
        transaction.open_table(META)?.insert("progress", progress.as_slice())?;
        let mut entities = transaction.open_table(ENTITIES)?;
        for change in changes {
            match &change.value {
                Some(value) => {
                    entities.insert(change.key.as_slice(), seal(&change.key, value).as_slice())?
                }
                None => entities.remove(change.key.as_slice())?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

/// The value with the hash of key and value behind it.
fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    [value, &hash(key, value).to_le_bytes()].concat()
}

/// The value, if it is the one that was sealed under this key.
fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> anyhow::Result<&'a [u8]> {
    sealed
        .split_last_chunk::<8>()
        .filter(|(value, sum)| hash(key, value) == u64::from_le_bytes(**sum))
        .map(|(value, _)| value)
        .ok_or_else(|| anyhow::anyhow!("a value is not the one that was saved"))
}

fn hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(key);
    hash.update(value);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::persist::small_disk::SmallDisk;
    use super::persist::{Disk, TroubleSender};
    use super::*;
    use crate::config::Config;
    use crate::sink::SinkError;

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
            let mut checkpoint = Checkpoint::open(&path).unwrap();
            let write = |database: &Database| {
                let transaction = database.begin_write()?;
                transaction.open_table(META)?.insert("format", 99_u32.to_le_bytes().as_slice())?;
                Ok(transaction.commit()?)
            };
            checkpoint.file.with(write).unwrap();
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

    type Entities = Vec<(Vec<u8>, Vec<u8>)>;

    /// A file with some hundred entities of which it knows the state, and its bytes.
    fn filled(path: &Path) -> (Progress, Entities, Vec<u8>) {
        let mut progress = Progress::default();
        let mut checkpoint = Checkpoint::open(path).unwrap();
        for round in 1..4_u8 {
            progress.positions.advance(&Input("journal/x".into()), round.into());
            let changes: Vec<Change> = (0..300_u16)
                .map(|number| Change {
                    key: number.to_be_bytes().to_vec(),
                    value: Some(vec![round; usize::from(number % 60)]),
                })
                .collect();
            checkpoint.save(&progress, &changes).unwrap();
        }
        let saved = entities(&checkpoint).unwrap();
        drop(checkpoint);
        (progress, saved, std::fs::read(path).unwrap())
    }

    /// What [`Checkpoint::load`] hands to the sessions, which these entities are not.
    fn entities(checkpoint: &Checkpoint) -> anyhow::Result<Entities> {
        checkpoint.file.read(|database| {
            let mut found = Vec::new();
            for entry in database.begin_read()?.open_table(ENTITIES)?.iter()? {
                let (key, value) = entry?;
                found.push((key.value().to_vec(), unseal(key.value(), value.value())?.to_vec()));
            }
            Ok(found)
        })
    }

    /// Bits flipped, and pages zeroed, all over the file.
    #[test]
    fn a_damaged_file_is_refused_or_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.redb");
        let (progress, saved, bytes) = filled(&path);
        let mut damages: Vec<(usize, usize)> = (0..512).map(|at| (at, 1)).collect();
        damages.extend((512..bytes.len()).step_by(997).map(|at| (at, 1)));
        damages.extend((0..bytes.len()).step_by(4096).map(|at| (at, 4096)));
        let mut refused = 0;
        for (at, length) in damages {
            let mut damaged = bytes.clone();
            match damaged.get_mut(at..(at + length).min(bytes.len())).unwrap() {
                [byte] => *byte ^= 1 << (at % 8),
                page => page.fill(0),
            }
            if damaged == bytes {
                continue;
            }
            std::fs::write(&path, &damaged).unwrap();
            let read = Checkpoint::open(&path)
                .map_err(anyhow::Error::from)
                .and_then(|opened| Ok((opened.file.read(super::progress)?, entities(&opened)?)));
            match read {
                Ok(read) => {
                    assert!(read.0 == progress && read.1 == saved, "{length} bytes at {at}");
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 10, "{refused}");
    }

    /// Values of an older cycle under their own hashes, which only the checksums of pages tell from newer ones.
    #[test]
    fn a_page_that_was_never_written_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.redb");
        let mut files: Vec<Vec<u8>> = Vec::new();
        for round in 1..8_u8 {
            let changes: Vec<Change> = (0..300_u16)
                .map(|key| Change { key: key.to_be_bytes().to_vec(), value: Some(vec![round; 50]) })
                .collect();
            Checkpoint::open(&path).unwrap().save(&Progress::default(), &changes).unwrap();
            files.push(std::fs::read(&path).unwrap());
        }
        let newest = files.pop().unwrap();
        let mut mixed = 0;
        for older in files {
            for (page, old) in (0..).step_by(4096).zip(older.chunks(4096)) {
                let mut file = newest.clone();
                let Some(new) = file.get_mut(page..page + old.len()) else { continue };
                if new == old {
                    continue;
                }
                new.copy_from_slice(old);
                std::fs::write(&path, &file).unwrap();
                mixed += 1;
                if let Ok(opened) = Checkpoint::open(&path)
                    && let Ok(found) = entities(&opened)
                {
                    let is_newest =
                        found.len() == 300 && found.iter().all(|(_, value)| value[0] == 7);
                    assert!(is_newest, "page at {page}");
                }
            }
        }
        assert!(mixed > 10, "{mixed}");
    }

    #[test]
    fn a_value_that_is_not_the_one_saved_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.redb");
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        let change = |key: u8| Change { key: vec![key], value: Some(vec![1, 2, 3]) };
        checkpoint.save(&Progress::default(), &[change(1), change(2)]).unwrap();
        assert_eq!(entities(&checkpoint).unwrap().len(), 2);
        // The value of one key under the other.
        let swap = |database: &Database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(ENTITIES)?;
                let other = table.get([1].as_slice())?.unwrap().value().to_vec();
                table.insert([2].as_slice(), other.as_slice())?;
            }
            Ok(transaction.commit()?)
        };
        checkpoint.file.with(swap).unwrap();
        let error = entities(&checkpoint).unwrap_err();
        assert!(error.to_string().contains("not the one that was saved"), "{error}");
    }

    #[tokio::test]
    async fn a_full_disk_is_waited_for_and_said() {
        let Some(disk) = SmallDisk::mount(6) else { return };
        let path = disk.path().join("checkpoint.redb");
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        let mut progress = Progress::default();
        progress.positions.advance(&Input("journal/x".into()), 1);
        checkpoint.save(&progress, &[]).unwrap();
        let ballast = disk.fill(0);
        progress.positions.advance(&Input("journal/x".into()), 2);
        let changes: Vec<Change> = (0..2000_u16)
            .map(|number| Change { key: number.to_be_bytes().to_vec(), value: Some(vec![7; 500]) })
            .collect();
        let (stop, trouble) = (CancellationToken::new(), TroubleSender::default());
        let mut told = trouble.subscribe();
        let cure = async {
            let reason = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            assert!(reason.contains("the disk is full; free space"), "{reason}");
            std::fs::remove_file(ballast).unwrap();
        };
        // Nobody is told to move a file away that only has no room.
        let other = disk.path().join("other.redb");
        let error = Checkpoint::open(&other).unwrap_err().to_string();
        assert!(error.contains("the disk is full") && !error.contains("move it away"), "{error}");
        let waiting = Disk { stop, trouble: trouble.clone() };
        let saved = waiting.persist(|| checkpoint.save(&progress, &changes));
        let (saved, ()) = tokio::join!(saved, cure);
        saved.unwrap();
        assert_eq!(*trouble.borrow(), None);
        drop(checkpoint);
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.file.read(super::progress).unwrap(), progress);
        assert_eq!(entities(&checkpoint).unwrap().len(), 2000);
    }

    #[tokio::test]
    async fn waiting_for_the_disk_ends_with_the_service() {
        let (stop, trouble) = (CancellationToken::new(), TroubleSender::default());
        let work = || Err::<(), _>("no room");
        let stopping = async {
            trouble.subscribe().wait_for(Option::is_some).await.unwrap();
            stop.cancel();
        };
        let disk = Disk { stop: stop.clone(), trouble: trouble.clone() };
        let (ended, ()) = tokio::join!(disk.persist(work), stopping);
        assert!(matches!(ended, Err(SinkError::Stopped)));
    }
}
