//! Dead letters: what could not become, or could not be stored as, a document. Nothing is lost; an operator decides.
//!
//! A *record* letter holds the bytes as they were received, why they are no event, and where they stood; it is keyed by its
//! position, so a repeated cycle adds nothing. A *document* letter holds a document that the store refuses for good; it is
//! keyed by the document's id, and a newer version replaces it. One `redb` file, durable when [`DeadLetters::put`] returns.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::checkpoint::persist::{self, Reopened};
use crate::document::Document;
use crate::record::Record;

const LETTERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("letters");

/// Why dead letters cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the dead letters in {}: {source:#}; see that the disk has room; a file that is damaged can be moved away, letters are kept in a new one then", path.display())]
pub struct DeadLetterError {
    path: PathBuf,
    source: anyhow::Error,
}

/// One letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// When it was written, milliseconds since 1970.
    pub at: i64,
    /// Why.
    pub reason: String,
    /// What.
    pub content: Content,
}

/// What a letter holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A record that is no event.
    Record {
        /// `input@offset`.
        position: String,
        /// Name of its source.
        source: String,
        /// Its bytes.
        body: Vec<u8>,
    },
    /// A document that the store refuses.
    Document {
        /// Its id.
        id: String,
        /// Of a summary.
        version: Option<u64>,
        /// Decides its index, milliseconds since 1970.
        index_time: i64,
        /// Its `elastic_type`.
        elastic_type: String,
        /// The document.
        json: String,
    },
}

impl DeadLetter {
    /// A letter for a record.
    #[must_use]
    pub fn record(record: &Record, reason: String, at: i64) -> Self {
        let content = Content::Record {
            position: record.position.to_string(),
            source: record.source.to_string(),
            body: record.payload.to_vec(),
        };
        Self { at, reason, content }
    }

    /// A letter for a document.
    #[must_use]
    pub fn document(document: &Document, reason: &str, at: i64) -> Self {
        let content = Content::Document {
            id: document.id.to_string(),
            version: document.version,
            index_time: document.index_time,
            elastic_type: document.elastic_type.to_string(),
            json: String::from_utf8_lossy(&document.json).into_owned(),
        };
        Self { at, reason: reason.to_owned(), content }
    }

    /// What it is kept under: `record/POSITION` or `document/ID`.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.content {
            Content::Record { position, .. } => format!("record/{position}"),
            Content::Document { id, .. } => format!("document/{id}"),
        }
    }

    /// Whether this letter may take the place of `known`.
    fn replaces(&self, known: &Self) -> bool {
        match (&self.content, &known.content) {
            (Content::Document { version: own, .. }, Content::Document { version, .. }) => {
                own > version
            }
            _ => false,
        }
    }
}

/// The open file.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    file: Mutex<Reopened>,
    /// How many there are, for whoever must not wait for a write.
    count: AtomicU64,
}

impl DeadLetters {
    /// Opens the file, or makes an empty one.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, DeadLetterError> {
        let open = || {
            let (file, _) = Reopened::open(path, prepare)?;
            let count =
                file.read(|database| Ok(database.begin_read()?.open_table(LETTERS)?.len()?))?;
            Ok((file, count))
        };
        let (file, count) =
            open().map_err(|source| DeadLetterError { path: path.into(), source })?;
        Ok(Self { path: path.into(), file: Mutex::new(file), count: AtomicU64::new(count) })
    }

    /// How many there are; none without a file. Nothing is changed.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn check(path: &Path) -> Result<u64, DeadLetterError> {
        if !path.exists() {
            return Ok(0);
        }
        let wrong = |source| DeadLetterError { path: path.into(), source };
        let copy = persist::copied(path).map_err(wrong)?;
        Self::open(copy.path()).map(|letters| letters.count()).map_err(|error| wrong(error.source))
    }

    /// Keeps letters; one that is known already stays as it is, unless it holds an older version of a document.
    ///
    /// # Errors
    ///
    /// If they could not be made durable; then none of them is kept, and it can be called again.
    pub fn put(&self, letters: &[DeadLetter]) -> Result<(), DeadLetterError> {
        if letters.is_empty() {
            return Ok(());
        }
        self.guard(|database| {
            let transaction = database.begin_write()?;
            let count;
            {
                let mut table = transaction.open_table(LETTERS)?;
                for letter in letters {
                    let key = letter.key();
                    let known =
                        table.get(key.as_str())?.map(|value| decode(value.value())).transpose()?;
                    if known.is_none_or(|known| letter.replaces(&known)) {
                        table.insert(key.as_str(), postcard::to_stdvec(letter)?.as_slice())?;
                    }
                }
                count = table.len()?;
            }
            transaction.commit()?;
            self.count.store(count, Ordering::Relaxed);
            Ok(())
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Up to `limit` letters with keys after `after`, in the order of their keys.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn list(&self, after: &str, limit: usize) -> Result<Vec<DeadLetter>, DeadLetterError> {
        self.guard(|database| {
            let table = database.begin_read()?.open_table(LETTERS)?;
            let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            let mut letters = Vec::new();
            for entry in table.range::<&str>(range)?.take(limit) {
                letters.push(decode(entry?.1.value())?);
            }
            Ok(letters)
        })
    }

    /// Whether there is a letter kept under `key`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn has(&self, key: &str) -> Result<bool, DeadLetterError> {
        self.guard(|database| Ok(database.begin_read()?.open_table(LETTERS)?.get(key)?.is_some()))
    }

    /// The letter kept under `key`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn get(&self, key: &str) -> Result<Option<DeadLetter>, DeadLetterError> {
        self.guard(|database| {
            let table = database.begin_read()?.open_table(LETTERS)?;
            table.get(key)?.map(|value| decode(value.value())).transpose()
        })
    }

    /// Removes letters that an operator has dealt with. Gives how many there were.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; then none of them is removed.
    pub fn remove(&self, keys: &[String]) -> Result<usize, DeadLetterError> {
        self.guard(|database| {
            let transaction = database.begin_write()?;
            let mut removed = 0;
            let count;
            {
                let mut table = transaction.open_table(LETTERS)?;
                for key in keys {
                    removed += usize::from(table.remove(key.as_str())?.is_some());
                }
                count = table.len()?;
            }
            transaction.commit()?;
            self.count.store(count, Ordering::Relaxed);
            Ok(removed)
        })
    }

    fn guard<T>(
        &self,
        work: impl FnOnce(&Database) -> anyhow::Result<T>,
    ) -> Result<T, DeadLetterError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.with(work).map_err(|source| DeadLetterError { path: self.path.clone(), source })
    }
}

/// What every file has.
fn prepare(database: &Database) -> anyhow::Result<()> {
    let transaction = database.begin_write()?;
    transaction.open_table(LETTERS)?;
    transaction.commit()?;
    Ok(())
}

fn decode(bytes: &[u8]) -> anyhow::Result<DeadLetter> {
    Ok(postcard::from_bytes(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: &str, version: Option<u64>, json: &str) -> DeadLetter {
        let content = Content::Document {
            id: id.into(),
            version,
            index_time: 0,
            elastic_type: "cdr".into(),
            json: json.into(),
        };
        DeadLetter { at: 1, reason: "refused".into(), content }
    }

    #[test]
    fn letters_are_kept_once_and_newer_documents_replace_older() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.redb");
        let record = DeadLetter {
            at: 1,
            reason: "not JSON".into(),
            content: Content::Record {
                position: "journal/x@7".into(),
                source: "default".into(),
                body: vec![0, 255],
            },
        };
        let letters = DeadLetters::open(&path).unwrap();
        letters.put(&[record.clone(), document("a", Some(2), "new")]).unwrap();
        letters
            .put(&[DeadLetter { at: 9, ..record.clone() }, document("a", Some(1), "old")])
            .unwrap();
        drop(letters);

        let letters = DeadLetters::open(&path).unwrap();
        assert_eq!(letters.count(), 2);
        assert_eq!(letters.get("record/journal/x@7").unwrap(), Some(record));
        assert_eq!(letters.get("document/a").unwrap(), Some(document("a", Some(2), "new")));
        letters.put(&[document("a", Some(3), "newer")]).unwrap();
        let first = letters.list("", 1).unwrap();
        assert_eq!(first, [document("a", Some(3), "newer")]);
        assert_eq!(letters.list(&first[0].key(), 10).unwrap().len(), 1);
        assert!(letters.has("document/a").unwrap() && !letters.has("no such").unwrap());
        assert_eq!(letters.remove(&["document/a".into(), "no such".into()]).unwrap(), 1);
        assert!(!letters.has("document/a").unwrap());
        assert_eq!(letters.count(), 1);
    }

    #[test]
    fn a_file_that_lost_its_letters_is_not_taken_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.redb");
        let letters = DeadLetters::open(&path).unwrap();
        letters.put(&[document("a", None, "{}")]).unwrap();
        drop(letters);
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&[][..], &[7; 5000], &whole[..whole.len() / 2]] {
            std::fs::write(&path, damaged).unwrap();
            let error = DeadLetters::open(&path).unwrap_err().to_string();
            assert!(error.contains("letters.redb") && error.contains("moved away"), "{error}");
        }
        // Nor does one whose making was interrupted stand in the way.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(folder.path().join("letters.new"), "half").unwrap();
        assert_eq!(DeadLetters::open(&path).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
