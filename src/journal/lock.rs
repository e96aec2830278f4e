//! One process to a data directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the data directory {} is in use by another callscope; stop that one, or set another data_dir", .0.display())]
    InUse(PathBuf),
    /// It cannot be made or written.
    #[error("cannot use the data directory {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Holds the data directory until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Makes the directory if there is none, and takes it.
    ///
    /// # Errors
    ///
    /// If another process has it, or it cannot be used.
    pub fn acquire(data_dir: &Path) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io { path: data_dir.into(), source };
        fs::create_dir_all(data_dir).map_err(io_error)?;
        let file =
            File::options().create(true).truncate(false).write(true).open(data_dir.join("lock"));
        let file = file.map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse(data_dir.into())),
            Err(TryLockError::Error(source)) => Err(io_error(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let lock = DataDirLock::acquire(&data_dir).unwrap();
        assert!(matches!(DataDirLock::acquire(&data_dir), Err(LockError::InUse(_))));
        drop(lock);
        DataDirLock::acquire(&data_dir).unwrap();
    }
}
