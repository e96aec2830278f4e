//! What must be written in the end: opened again after an error, and tried again until the disk takes it.

use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::Database;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::sink::SinkError;

/// First and longest delay after the disk refused.
const DELAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Tells why something cannot be written at this moment; `None` while everything can.
pub type TroubleSender = watch::Sender<Option<String>>;

/// Patience with a disk that refuses.
#[derive(Debug, Default)]
pub struct Disk {
    /// Ends the waiting.
    pub stop: CancellationToken,
    /// Told why something cannot be written.
    pub trouble: TroubleSender,
}

impl Disk {
    /// Does `work` until it succeeds, with growing delays. Meanwhile `trouble` holds the reason.
    ///
    /// # Errors
    ///
    /// [`SinkError::Stopped`] if `stop` came first: nothing was saved, and a restart repeats the cycle.
    pub async fn persist<T, E: Display>(
        &self,
        mut work: impl FnMut() -> Result<T, E>,
    ) -> Result<T, SinkError> {
        let mut delay = DELAY.0;
        loop {
            match work() {
                Ok(done) => {
                    let was_in_trouble =
                        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
                    if was_in_trouble {
                        tracing::info!("the disk takes what is written again");
                    }
                    return Ok(done);
                }
                Err(error) => {
                    tracing::error!(error = %error, "trying again");
                    self.trouble.send_replace(Some(error.to_string()));
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(SinkError::Stopped),
                () = tokio::time::sleep(delay) => delay = (delay * 2).min(DELAY.1),
            }
        }
    }
}

/// A `redb` file. After an error it is opened anew before it is used again: `redb` takes nothing more from a handle through
/// which a write has failed. A panic inside `redb`, which it may answer to damage with, is an error like any other.
#[derive(Debug)]
pub(crate) struct Reopened {
    path: PathBuf,
    database: Option<Database>,
}

impl Reopened {
    /// Opens the file; every page is looked at. Where there is none, makes one, in which `prepare` puts what all have. The
    /// second value tells whether it was made.
    pub(crate) fn open(
        path: &Path,
        prepare: impl FnOnce(&Database) -> anyhow::Result<()>,
    ) -> anyhow::Result<(Self, bool)> {
        let is_new = !path.try_exists()?;
        if is_new {
            guarded(|| make(path, prepare))?;
        }
        let mut opened = Self { path: path.into(), database: None };
        opened.with(|_| Ok(()))?;
        Ok((opened, is_new))
    }

    /// Reads through the handle of the last opening or write.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Database) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        guarded(|| match &self.database {
            Some(database) => work(database),
            None => Err(anyhow::anyhow!("the last write failed")),
        })
    }

    /// Reads and writes.
    pub(crate) fn with<T>(
        &mut self,
        work: impl FnOnce(&Database) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Self { path, database } = self;
        guarded(|| {
            let opened = match database.take() {
                Some(opened) => opened,
                None => Database::builder().set_check_integrity_on_open(true).open(path)?,
            };
            let done = work(&opened)?;
            *database = Some(opened);
            Ok(done)
        })
    }
}

impl Drop for Reopened {
    fn drop(&mut self) {
        let database = self.database.take();
        // Closing writes. What it fails at is done by the next opening.
        let _closed = guarded(|| {
            drop(database);
            Ok(())
        });
    }
}

const FULL: &str = "the disk is full; free space";

/// A copy to look at: opening a file would mend what its last process left undone.
pub(crate) fn copied(path: &Path) -> anyhow::Result<tempfile::NamedTempFile> {
    let copy = tempfile::NamedTempFile::new()?;
    std::fs::copy(path, copy.path())?;
    Ok(copy)
}

/// Makes the file under another name first: under its own it is there whole or not at all, so that one which was cut to
/// nothing never passes for new.
fn make(path: &Path, prepare: impl FnOnce(&Database) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // Whoever wants the file elsewhere has put a link there.
    let link = std::fs::read_link(path).ok();
    let folder = path.parent().unwrap_or(Path::new("."));
    let path = link.map_or_else(|| path.to_owned(), |link| folder.join(link));
    let begun = path.with_extension("new");
    match std::fs::remove_file(&begun) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = Database::create(&begun)?;
    prepare(&database)?;
    database.close()?;
    std::fs::rename(&begun, &path)?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(anyhow::anyhow!(
            "the file is damaged: {}",
            reason.unwrap_or("its content makes no sense")
        ))
    });
    done.map_err(|error| if is_full(&error) { error.context(FULL) } else { error })
}

/// Whether a file system without room is the reason. `redb` does not tell the sources of its errors.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};
    let storage = match error.downcast_ref::<DatabaseError>() {
        Some(DatabaseError::Storage(error)) => Some(error),
        _ => match error.downcast_ref::<CommitError>() {
            Some(CommitError::Storage(error)) => Some(error),
            _ => match error.downcast_ref::<TableError>() {
                Some(TableError::Storage(error)) => Some(error),
                _ => match error.downcast_ref::<TransactionError>() {
                    Some(TransactionError::Storage(error)) => Some(error),
                    _ => error.downcast_ref::<StorageError>(),
                },
            },
        },
    };
    let system = match storage {
        Some(StorageError::Io(error)) => Some(error),
        _ => error.downcast_ref::<io::Error>(),
    };
    system.is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    })
}

/// Where the environment names this point, ends the process at once, as `kill -9` would (`CALLSCOPE_KILL_POINT=name:count`), or
/// stops it until it is told to go on (`CALLSCOPE_STOP_POINT=name:count`), when the point is reached for the `count`-th time.
/// Only tests have it.
#[cfg(debug_assertions)]
pub(crate) fn kill_point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    struct Point(OnceLock<Option<(String, u64)>>, AtomicU64);
    static KILL: Point = Point(OnceLock::new(), AtomicU64::new(0));
    static STOP: Point = Point(OnceLock::new(), AtomicU64::new(0));
    let is_reached = |point: &Point, variable: &str| {
        #[expect(clippy::disallowed_methods, reason = "no setting: tests only")]
        let chosen = point.0.get_or_init(|| {
            let chosen = std::env::var(variable).ok()?;
            let (name, count) = chosen.split_once(':')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        chosen.as_ref().is_some_and(|(chosen, count)| {
            chosen == name && point.1.fetch_add(1, Ordering::Relaxed) + 1 == *count
        })
    };
    if is_reached(&KILL, "CALLSCOPE_KILL_POINT") {
        std::process::abort();
    }
    if is_reached(&STOP, "CALLSCOPE_STOP_POINT") {
        let _stopped =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        // Any thread may be the one that takes the signal, and until it has, this one goes on.
        while is_stop_pending() {
            std::thread::yield_now();
        }
    }
}

/// Whether no thread has taken the signal to stop yet; once one has, all stop at their next call of the system.
#[cfg(debug_assertions)]
fn is_stop_pending() -> bool {
    const STOP: u64 = 1 << 18;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    pending
        .and_then(|signals| u64::from_str_radix(signals.trim(), 16).ok())
        .is_some_and(|signals| signals & STOP != 0)
}

/// Nothing: only tests have it.
#[cfg(not(debug_assertions))]
pub(crate) const fn kill_point(_name: &str) {}

#[cfg(test)]
#[path = "../../tests/support/small_disk.rs"]
pub(crate) mod small_disk;
