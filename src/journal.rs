//! The journal: the local log that makes the webhook replayable.
//!
//! A folder of segment files. [`Journal::append`] returns once the record is durable; all records that wait at that moment
//! share one write and one `fdatasync` (group commit), done by one writer thread. [`Reader`] reads synced records only, from
//! any sequence number. Segments that the checkpoint has passed are deleted by [`Journal::release`]. Beyond `bytes_max`
//! appending fails as [`AppendError::Full`], which loses nothing: nothing was acknowledged.
//!
//! # Format
//!
//! A segment is called by the sequence number of its first record, 20 digits, `.journal`. All integers are little-endian.
//!
//! | bytes | segment header |
//! |---|---|
//! | 8 | `CSJRNL01`, magic and format version |
//! | 16 | UUID of the journal |
//! | 8 | sequence number of the first record |
//!
//! | bytes | record |
//! |---|---|
//! | 4 | `REC\x1e` |
//! | 4 | length of the payload |
//! | 8 | sequence number |
//! | 8 | xxh3 of the 16 bytes before, seeded with the journal's UUID |
//! | 8 | xxh3 of the payload |
//! | n | payload: length of the source's name (1), name, time of arrival in milliseconds (8), body |
//!
//! The head has a checksum of its own, so a damaged body costs one record and not its neighbours; after a damaged head the
//! reader goes on at the next intact one. What follows the last intact record of the last segment is a torn tail: it was
//! never acknowledged, and is cut when the journal is opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::record::Input;

pub mod lock;
mod reader;
mod writer;

pub use reader::{Item, Reader};

const MAGIC: &[u8; 8] = b"CSJRNL01";
const SEGMENT_HEAD: u64 = 32;
const RECORD_MAGIC: [u8; 4] = [b'R', b'E', b'C', 0x1e];
const RECORD_HEAD: usize = 32;
/// Longest payload; the webhook's own bound is far below.
const PAYLOAD_MAX: usize = 1 << 30;
/// Appends that wait for the writer at once; more wait for room in the queue.
const QUEUE_MAX: usize = 4096;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file or the folder cannot be read or written.
    #[error("cannot use the journal {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file is not a segment that this version can read.
    #[error("{} is no journal segment that this version of callscope reads; use the version that wrote it, or move the file away", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
    },
}

/// Why a record was not appended. It is not acknowledged then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The journal has reached its size limit.
    #[error("the journal is full")]
    Full,
    /// The journal is being closed.
    #[error("the journal is closed")]
    Closed,
    /// The disk refused.
    #[error("the journal cannot be written: {0}")]
    Io(Arc<io::Error>),
}

/// What opening found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes cut from the end: begun when the process or machine died, never acknowledged.
    pub torn_bytes: u64,
}

/// The open journal. Clones share it; the writer ends when [`Journal::close`] is called.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Append>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    id: Uuid,
    bytes_max: u64,
    /// Size of all segments.
    bytes: AtomicU64,
    /// Sequence number after the last synced record.
    end: watch::Sender<u64>,
    /// Told when a segment was deleted.
    room: Notify,
    /// Told to the writer: it ends after what is queued.
    closing: tokio_util::sync::CancellationToken,
    syncs: AtomicU64,
}

/// The writer's thread, to be joined.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

struct Append {
    payload: Vec<u8>,
    answer: oneshot::Sender<Result<u64, AppendError>>,
}

impl Journal {
    /// Opens the journal in `folder`, or makes one.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or is none of ours.
    pub fn open(
        folder: &Path,
        bytes_max: u64,
        segment_bytes: u64,
    ) -> Result<(Self, Writer, Recovered), JournalError> {
        fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
        let mut segments = segments(folder)?;
        let id = match segments.first() {
            Some((_, path)) => read_head(path)?.0,
            None => Uuid::now_v7(),
        };
        if segments.is_empty() {
            segments.push((0, writer::create_segment(folder, id, 0)?));
        }
        let mut bytes = 0;
        for (_, path) in &segments {
            bytes += fs::metadata(path).map_err(|source| io_error(path, source))?.len();
        }
        let Some((first, path)) = segments.last() else {
            return Err(JournalError::Format { path: folder.into() });
        };
        let (end, good_bytes, torn_bytes) = reader::scan_tail(path, id, *first)?;
        if torn_bytes > 0 {
            let file = OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(|source| io_error(path, source))?;
            file.set_len(good_bytes)
                .and_then(|()| file.sync_all())
                .map_err(|source| io_error(path, source))?;
        }
        let shared = Arc::new(Shared {
            folder: folder.into(),
            id,
            bytes_max,
            bytes: AtomicU64::new(bytes - torn_bytes),
            end: watch::Sender::new(end),
            room: Notify::new(),
            closing: tokio_util::sync::CancellationToken::new(),
            syncs: AtomicU64::new(0),
        });
        let (queue, appends) = mpsc::channel(QUEUE_MAX);
        let writer = writer::spawn(Arc::clone(&shared), path, good_bytes, segment_bytes, appends)?;
        Ok((Self { shared, queue }, writer, Recovered { torn_bytes }))
    }

    /// Appends a record that arrived at `received_at` (milliseconds since 1970). Gives its sequence number once it is
    /// durable.
    ///
    /// # Errors
    ///
    /// If it is not, and will not be.
    pub async fn append(
        &self,
        source: &str,
        received_at: i64,
        body: &[u8],
    ) -> Result<u64, AppendError> {
        let size = (RECORD_HEAD + source.len() + 9 + body.len()) as u64;
        if self.shared.bytes.load(Ordering::Relaxed) + size > self.shared.bytes_max {
            return Err(AppendError::Full);
        }
        let mut payload = Vec::with_capacity(9 + source.len() + body.len());
        let name = crate::json::prefix(source, 255);
        payload.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        payload.extend_from_slice(name.as_bytes());
        payload.extend_from_slice(&received_at.to_le_bytes());
        payload.extend_from_slice(body);
        let (answer, answered) = oneshot::channel();
        self.queue.send(Append { payload, answer }).await.map_err(|_| AppendError::Closed)?;
        answered.await.map_err(|_| AppendError::Closed)?
    }

    /// Waits until something was released.
    pub async fn wait_for_room(&self) {
        self.shared.room.notified().await;
    }

    /// A reader of its own, at the beginning.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.folder.clone(), self.shared.id, self.shared.end.subscribe())
    }

    /// What its positions are called.
    #[must_use]
    pub fn input(&self) -> Input {
        Input(format!("journal/{}", self.shared.id).into())
    }

    /// Sequence number after the last synced record; changes wake whoever waits.
    #[must_use]
    pub fn end(&self) -> watch::Receiver<u64> {
        self.shared.end.subscribe()
    }

    /// Sequence number of the oldest record that is still there.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn first(&self) -> Result<u64, JournalError> {
        Ok(segments(&self.shared.folder)?.first().map_or(0, |(first, _)| *first))
    }

    /// Size of all segment files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Its size limit.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.shared.bytes_max
    }

    /// How often the disk was made to sync.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// Deletes segments of which every record stands before `sequence`.
    ///
    /// # Errors
    ///
    /// If a file cannot be deleted.
    pub fn release(&self, sequence: u64) -> Result<(), JournalError> {
        let segments = segments(&self.shared.folder)?;
        let mut released = 0;
        for pair in segments.windows(2) {
            let [(_, path), (next, _)] = pair else { continue };
            if *next > sequence {
                break;
            }
            released += fs::metadata(path).map_or(0, |metadata| metadata.len());
            fs::remove_file(path).map_err(|source| io_error(path, source))?;
        }
        if released > 0 {
            self.shared.bytes.fetch_sub(released, Ordering::Relaxed);
            self.shared.room.notify_waiters();
        }
        Ok(())
    }

    /// Writes what is queued and ends the writer; later appends fail as [`AppendError::Closed`].
    pub fn close(&self) {
        self.shared.closing.cancel();
    }
}

impl Writer {
    /// Waits until the writer has ended. Call [`Journal::close`] first.
    pub fn join(self) {
        // A panic of the writer has been reported by its own hook; appends have failed since.
        let _panicked = self.0.join();
    }
}

fn io_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { path: path.into(), source }
}

/// First sequence number and path of every segment, in their order.
fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| io_error(folder, source))? {
        let path = entry.map_err(|source| io_error(folder, source))?.path();
        if path.extension().is_some_and(|extension| extension == "journal") {
            let first =
                path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            segments
                .push((first.ok_or_else(|| JournalError::Format { path: path.clone() })?, path));
        }
    }
    segments.sort();
    Ok(segments)
}

/// UUID and first sequence number of a segment.
fn read_head(path: &Path) -> Result<(Uuid, u64), JournalError> {
    let mut head = [0; 32];
    let mut file = File::open(path).map_err(|source| io_error(path, source))?;
    let format = || JournalError::Format { path: path.into() };
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut head)).map_err(|_| format())?;
    let (magic, rest) = head.split_at(8);
    let (id, first) = rest.split_at(16);
    match (Uuid::from_slice(id), first.try_into().map(u64::from_le_bytes)) {
        (Ok(id), Ok(first)) if magic == MAGIC => Ok((id, first)),
        _ => Err(format()),
    }
}

/// The head of a record.
fn record_head(id: Uuid, sequence: u64, payload: &[u8]) -> [u8; RECORD_HEAD] {
    let mut head = [0; RECORD_HEAD];
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let (told, sums) = head.split_at_mut(16);
    told.copy_from_slice(
        &[RECORD_MAGIC.as_slice(), &length.to_le_bytes(), &sequence.to_le_bytes()].concat(),
    );
    let sum = xxh3_64_with_seed(told, id.as_u64_pair().1);
    sums.copy_from_slice(&[sum.to_le_bytes(), xxh3_64(payload).to_le_bytes()].concat());
    head
}

/// Length, sequence number and checksum of the payload, if these bytes are an intact head.
fn parse_head(id: Uuid, head: &[u8]) -> Option<(usize, u64, u64)> {
    let told = head.get(..16)?;
    let number =
        |range: std::ops::Range<usize>| head.get(range)?.try_into().ok().map(u64::from_le_bytes);
    if told.get(..4)? != RECORD_MAGIC
        || xxh3_64_with_seed(told, id.as_u64_pair().1) != number(16..24)?
    {
        return None;
    }
    let length = u32::from_le_bytes(told.get(4..8)?.try_into().ok()?) as usize;
    (length <= PAYLOAD_MAX).then_some((length, number(8..16)?, number(24..32)?))
}

/// Source, time of arrival and body of a payload.
fn parse_payload(payload: &Bytes) -> Option<(&str, i64, Bytes)> {
    let length = usize::from(*payload.first()?);
    let source = std::str::from_utf8(payload.get(1..1 + length)?).ok()?;
    let received_at = i64::from_le_bytes(payload.get(1 + length..9 + length)?.try_into().ok()?);
    Some((source, received_at, payload.slice(9 + length..)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Opened {
        journal: Journal,
        writer: Option<Writer>,
        recovered: Recovered,
    }

    impl Opened {
        fn at(folder: &Path, bytes_max: u64, segment_bytes: u64) -> Self {
            let (journal, writer, recovered) =
                Journal::open(folder, bytes_max, segment_bytes).unwrap();
            Self { journal, writer: Some(writer), recovered }
        }

        fn append(&self, bodies: &[Vec<u8>]) -> Vec<u64> {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let appends = bodies.iter().map(|body| self.journal.append("default", 7, body));
            let appended = runtime.block_on(futures_util::future::join_all(appends));
            appended.into_iter().map(Result::unwrap).collect()
        }

        /// Every item from the beginning: the body, or `None` for damage.
        fn read(&self) -> Vec<Option<Vec<u8>>> {
            let mut items: Vec<Option<Vec<u8>>> = Vec::new();
            let mut reader = self.journal.reader();
            let mut from = 0;
            loop {
                let read = reader.read(from, 3, 100).unwrap();
                let Some(last) = read.last() else { return items };
                from = last.record().next_offset;
                items.extend(read.iter().map(|item| match item {
                    Item::Record(record, _) => Some(record.payload.to_vec()),
                    Item::Damaged(_) => None,
                }));
            }
        }
    }

    impl Drop for Opened {
        fn drop(&mut self) {
            self.journal.close();
            if let Some(writer) = self.writer.take() {
                writer.join();
            }
        }
    }

    fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..20)
    }

    fn last_segment(folder: &Path) -> PathBuf {
        segments(folder).unwrap().pop().unwrap().1
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_appended_is_read_after_any_reopening(groups in prop::collection::vec(bodies(), 1..4), segment_bytes in 1u64..2000) {
            let folder = tempfile::tempdir().unwrap();
            let mut expected = Vec::new();
            for group in groups {
                let opened = Opened::at(folder.path(), 1 << 30, segment_bytes);
                prop_assert_eq!(opened.recovered.torn_bytes, 0);
                let mut sequences = opened.append(&group);
                sequences.sort_unstable();
                prop_assert_eq!(sequences, (expected.len() as u64..).take(group.len()).collect::<Vec<_>>());
                expected.extend(group.into_iter().map(Some));
                prop_assert_eq!(opened.read().len(), expected.len());
            }
            let mut read = Opened::at(folder.path(), 1 << 30, segment_bytes).read();
            read.sort();
            expected.sort();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn a_torn_tail_is_cut_and_everything_before_it_is_whole(group in bodies(), cut in 1u64..400) {
            let folder = tempfile::tempdir().unwrap();
            let whole = {
                let opened = Opened::at(folder.path(), 1 << 30, 1 << 30);
                opened.append(&group);
                opened.read()
            };
            let path = last_segment(folder.path());
            let length = fs::metadata(&path).unwrap().len();
            let kept = length.saturating_sub(cut).max(SEGMENT_HEAD);
            OpenOptions::new().write(true).open(&path).unwrap().set_len(kept).unwrap();
            let opened = Opened::at(folder.path(), 1 << 30, 1 << 30);
            let read = opened.read();
            prop_assert!(whole.starts_with(&read), "{:?} {:?}", whole, read);
            let bytes: usize = read.iter().flatten().map(|body| RECORD_HEAD + 16 + body.len()).sum();
            prop_assert_eq!(kept, SEGMENT_HEAD + bytes as u64 + opened.recovered.torn_bytes);
            prop_assert_eq!(opened.append(&[vec![1]]), [read.len() as u64]);
        }

        #[test]
        fn a_flipped_bit_costs_one_record_and_never_shows_a_wrong_one(group in bodies(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let folder = tempfile::tempdir().unwrap();
            let whole = {
                let opened = Opened::at(folder.path(), 1 << 30, 1 << 30);
                opened.append(&group);
                opened.append(&[b"the end".to_vec()]);
                opened.read()
            };
            let path = last_segment(folder.path());
            let mut bytes = fs::read(&path).unwrap();
            let last = RECORD_HEAD + 16 + 7;
            let head = usize::try_from(SEGMENT_HEAD).unwrap();
            let at = head + at.index(bytes.len() - last - head);
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            let read = Opened::at(folder.path(), 1 << 30, 1 << 30).read();
            prop_assert_eq!(read.len(), whole.len());
            let differ: Vec<_> = read.iter().zip(&whole).filter(|(read, whole)| read != whole).collect();
            prop_assert!(matches!(differ.as_slice(), [(None, Some(_))]), "{:?}", differ);
        }
    }

    #[test]
    fn waiting_records_share_a_sync() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Opened::at(folder.path(), 1 << 30, 1 << 30);
        opened.append(&vec![vec![0; 10]; 2000]);
        assert!(opened.journal.syncs() < 500, "{} syncs for 2000 records", opened.journal.syncs());
    }

    #[test]
    fn a_full_journal_refuses_until_segments_are_released() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Opened::at(folder.path(), 2000, 500);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut appended = 0;
        let refused = loop {
            match runtime.block_on(opened.journal.append("default", 7, &[0; 50])) {
                Ok(_) => appended += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, AppendError::Full));
        assert!(opened.journal.bytes() <= 2000);
        opened.journal.release(appended).unwrap();
        assert!(opened.journal.bytes() <= 600, "{}", opened.journal.bytes());
        runtime.block_on(opened.journal.append("default", 7, &[0; 50])).unwrap();
        let mut reader = opened.journal.reader();
        assert_eq!(reader.read(appended, 10, 1 << 20).unwrap().len(), 1);
        // Without a checkpoint, what was released is not missed.
        let first = opened.journal.first().unwrap();
        assert!(first > 0 && first <= appended, "{first}");
        assert!(
            reader
                .read(first, 10, 1 << 20)
                .unwrap()
                .iter()
                .all(|item| matches!(item, Item::Record(..)))
        );
    }

    #[test]
    fn a_failed_write_is_answered_and_the_next_one_begins_a_new_segment() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Opened::at(folder.path(), 1 << 30, 100);
        opened.append(&[vec![1; 100]]);
        // The next segment cannot be made: its name is taken by a folder.
        let taken = folder.path().join(format!("{:020}.journal", 1));
        fs::create_dir(&taken).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let failed = runtime.block_on(opened.journal.append("default", 7, &[2; 100]));
        assert!(matches!(failed, Err(AppendError::Io(_))), "{failed:?}");
        fs::remove_dir(&taken).unwrap();
        assert_eq!(opened.append(&[vec![3; 100]]), [1]);
        assert_eq!(opened.read(), [Some(vec![1; 100]), Some(vec![3; 100])]);
    }

    #[test]
    fn a_file_that_is_no_segment_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(format!("{:020}.journal", 0)), [9; 100]).unwrap();
        assert!(matches!(
            Journal::open(folder.path(), 1 << 30, 1 << 20),
            Err(JournalError::Format { .. })
        ));
    }
}
