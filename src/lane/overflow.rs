//! Sessions that do not fit into memory, in a temporary database file. `import` needs it: it forgets nothing before its end.
//!
//! The file has no name, so it is gone with the process, however that ends. Sessions go out when there are too many entities,
//! those that were quiet longest first, a quarter at once; one comes back with its next event.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::sessions::Sessions;
use crate::sessions::facts::Hasher;
use crate::sessions::state::{Session, SessionKey, SessionName};

const SESSIONS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("sessions");

/// Why sessions cannot be put away or brought back.
#[derive(Debug, thiserror::Error)]
#[error("cannot use a temporary file in {}: {source:#}; see that the disk has room, or raise import.entities_max", folder.display())]
pub struct OverflowError {
    folder: PathBuf,
    source: anyhow::Error,
}

/// The file, made when it is needed.
#[derive(Debug)]
pub struct Overflow {
    folder: PathBuf,
    entities_max: usize,
    /// Which sessions are in the file and not in memory. What came back stays in the file and counts no more.
    held: HashSet<u128>,
    database: Option<Database>,
}

impl Overflow {
    /// For at most `entities_max` entities in memory; the file would be in `folder`.
    #[must_use]
    pub fn new(folder: &Path, entities_max: usize) -> Self {
        Self { folder: folder.into(), entities_max, held: HashSet::new(), database: None }
    }

    /// Whether all sessions are in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Brings the session called `name` back, if it is here.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn bring_back(
        &mut self,
        sessions: &mut Sessions,
        name: SessionName<'_>,
    ) -> Result<(), OverflowError> {
        if self.held.is_empty() || !self.held.remove(&id(name)) {
            return Ok(());
        }
        let found = self.guard(|database| {
            let table = database.begin_read()?.open_table(SESSIONS)?;
            let found = table.get(id(name))?;
            found.map(|value| unpack(value.value())).transpose()
        })?;
        if let Some((key, session)) = found {
            sessions.put_back(key.name(), session);
        }
        Ok(())
    }

    /// Puts sessions away, if there are too many entities in memory.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn relieve(&mut self, sessions: &mut Sessions) -> Result<(), OverflowError> {
        if sessions.entities() <= self.entities_max {
            return Ok(());
        }
        let taken = sessions.take_quiet(self.entities_max / 4 * 3);
        let ids: Vec<u128> = taken.iter().map(|(key, _)| id(key.name())).collect();
        self.guard(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(SESSIONS)?;
                for (key, session) in taken {
                    let bytes = postcard::to_stdvec(&(&key, session.packed()?))?;
                    table.insert(id(key.name()), bytes.as_slice())?;
                }
            }
            Ok(transaction.commit()?)
        })?;
        self.held.extend(ids);
        Ok(())
    }

    /// Brings back as many sessions as fit. Those in memory are to be dropped before.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn drain(&mut self, sessions: &mut Sessions) -> Result<(), OverflowError> {
        let (held, entities_max) = (std::mem::take(&mut self.held), self.entities_max);
        let held = self.guard(|database| {
            let mut held = held;
            let table = database.begin_read()?.open_table(SESSIONS)?;
            for entry in table.iter()? {
                if sessions.entities() >= entities_max {
                    break;
                }
                let (id, value) = entry?;
                if held.remove(&id.value()) {
                    let (key, session) = unpack(value.value())?;
                    sessions.put_back(key.name(), session);
                }
            }
            Ok(held)
        })?;
        self.held = held;
        Ok(())
    }

    fn guard<T>(
        &mut self,
        work: impl FnOnce(&Database) -> anyhow::Result<T>,
    ) -> Result<T, OverflowError> {
        let result = match self.database.take().map_or_else(|| create(&self.folder), Ok) {
            Ok(database) => work(self.database.insert(database)),
            Err(error) => Err(error),
        };
        result.map_err(|source| OverflowError { folder: self.folder.clone(), source })
    }
}

fn create(folder: &Path) -> anyhow::Result<Database> {
    std::fs::create_dir_all(folder)?;
    let database = Database::builder()
        .create_with_backend(FileBackend::new(tempfile::tempfile_in(folder)?)?)?;
    let transaction = database.begin_write()?;
    transaction.open_table(SESSIONS)?;
    transaction.commit()?;
    Ok(database)
}

fn id(name: SessionName<'_>) -> u128 {
    let mut id = Hasher::new("session");
    id.text(name.cluster_id);
    id.text(name.id);
    id.integer(i64::from(name.unique));
    id.digest128()
}

fn unpack(bytes: &[u8]) -> anyhow::Result<(SessionKey, Session)> {
    let (key, packed): (SessionKey, Vec<u8>) = postcard::from_bytes(bytes)?;
    Ok((key, Session::unpacked(&packed)?))
}
