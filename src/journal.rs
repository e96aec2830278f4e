//! The journal: the local log that makes the webhook replayable.
//!
//! A folder of segment files. [`Journal::append`] returns once the record is durable; all records that wait at that moment
//! share one write and one `fdatasync` (group commit), done by one writer thread. [`Reader`] reads synced records only, from
//! any sequence number. Segments that the checkpoint has passed are deleted by [`Journal::release`]. Beyond `bytes_max`
//! appending fails as [`AppendError::Full`], and before the disk is full as [`AppendError::DiskFull`]: the last
//! `reserve_bytes` belong to those who empty the journal. Neither loses anything: nothing was acknowledged.
//!
//! A sequence number is given once. Where the checkpoint stands beyond the end of what the files hold, the journal goes on
//! at the checkpoint's position, in a new segment.
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
//! reader goes on at the next intact one. The segment's header is a help, not a need: a file's name tells its first sequence
//! number, and the heads of records tell by their checksums which UUID they belong to. So another format of records needs
//! another magic of records, too.
//!
//! Behind the last intact head of the last segment may stand a *torn tail*: less than a head, or an intact head with less
//! than its payload, or zeros. It was begun when the process or the machine died and never acknowledged, and is cut when the
//! journal is opened. Anything else there is *damage* to what was once whole: it stays, and its reader reports it.
//!
//! A segment is made under a temporary name and renamed, so one without its header was made by an older version and holds
//! nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::config::JournalConfig;
use crate::record::{Input, Positions};

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
/// Room that nearly every event finds enough.
const EVENT_BYTES: u64 = 64 << 10;
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
    /// What is left of the disk is kept for those who empty the journal.
    #[error(
        "the disk is full: {free} bytes are left, of which journal.reserve_bytes keeps {reserve}; free space"
    )]
    DiskFull {
        /// Bytes left on the file system.
        free: u64,
        /// Bytes that the journal leaves to others.
        reserve: u64,
    },
    /// The journal is being closed.
    #[error("the journal is closed")]
    Closed,
    /// The disk refused.
    #[error("the journal cannot be written: {0}")]
    Io(Arc<io::Error>),
}

/// How large the journal may become.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Size of all segments.
    pub bytes_max: u64,
    /// Size at which a new segment is begun.
    pub segment_bytes: u64,
    /// Free bytes of the file system that are left to others.
    pub reserve_bytes: u64,
}

impl Bounds {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &JournalConfig) -> Self {
        Self {
            bytes_max: config.bytes_max.get(),
            segment_bytes: config.segment_bytes.get(),
            reserve_bytes: config.reserve_bytes,
        }
    }
}

/// What opening found, or would find.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes cut from the end: begun when the process or machine died, never acknowledged.
    pub torn_bytes: u64,
    /// Bytes at the end that are damaged, not torn. They stay.
    pub damaged_bytes: u64,
    /// Records that the checkpoint has passed and that are damaged or gone. Their numbers are not given again.
    pub passed: Range<u64>,
    /// Segments without an intact header. Their records are read all the same.
    pub damaged_heads: Vec<PathBuf>,
    /// Files without a header, begun on a full disk; there was nothing in them.
    pub removed: Vec<PathBuf>,
    /// Whether the positions know this journal.
    pub is_known: bool,
    /// Whether a record was ever in it.
    pub has_records: bool,
}

impl Recovered {
    /// What an operator should know of, most of it harmless.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        if self.torn_bytes > 0 {
            told.push(format!(
                "journal ended in {} bytes of a torn record, which was never acknowledged; they are cut",
                self.torn_bytes
            ));
        }
        if !self.passed.is_empty() {
            told.push(format!(
                "the newest records of the journal, {} to {}, are damaged; already dealt with, nothing is lost",
                self.passed.start,
                self.passed.end - 1
            ));
        } else if self.damaged_bytes > 0 {
            told.push(format!(
                "journal is damaged at its end; what is left of {} bytes becomes a dead letter",
                self.damaged_bytes
            ));
        }
        told.extend(self.damaged_heads.iter().map(|path| {
            format!(
                "journal segment {} has a damaged header; its records are read all the same",
                path.display()
            )
        }));
        told.extend(self.removed.iter().map(|path| {
            format!(
                "journal segment {} has no header and is removed: it was begun on a full disk and held nothing",
                path.display()
            )
        }));
        told
    }
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
    bounds: Bounds,
    /// Size of all segments.
    bytes: AtomicU64,
    /// Sequence number after the last synced record.
    end: watch::Sender<u64>,
    /// Sequence number that the checkpoint has reached.
    dealt: AtomicU64,
    /// Why records cannot be written at this moment.
    trouble: watch::Sender<Option<String>>,
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
    /// Opens the journal in `folder`, or makes one. `positions`: those of the checkpoint, below which no sequence number is
    /// given.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or none is ours.
    pub fn open(
        folder: &Path,
        bounds: Bounds,
        positions: &Positions,
    ) -> Result<(Self, Writer, Recovered), JournalError> {
        fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
        remove_unfinished(folder)?;
        let (mut segments, recovered) = look(folder, positions)?;
        for path in &recovered.removed {
            fs::remove_file(path).map_err(|source| io_error(path, source))?;
        }
        let id = match reader::identify(&segments, positions)? {
            Some(id) => id,
            None => {
                let id = Uuid::now_v7();
                segments.push((0, writer::create_segment(folder, id, 0)?));
                id
            }
        };
        let Some((first, path)) = segments.last().cloned() else {
            return Err(JournalError::Format { path: folder.into() });
        };
        let dealt = positions.next(&input(id));
        let tail = reader::scan_tail(&path, id, first)?;
        let begin = tail.end.max(dealt);
        if recovered.torn_bytes > 0 {
            let cut = OpenOptions::new().write(true).open(&path).and_then(|file| {
                file.set_len(tail.good_bytes)?;
                file.sync_all()
            });
            cut.map_err(|source| io_error(&path, source))?;
        }
        let is_clean = dealt <= tail.end && tail.damaged_bytes == 0;
        let (path, length) = if is_clean {
            (path, tail.good_bytes)
        } else {
            // What stands at the end of that file is not for us to write over.
            let path = writer::create_segment(folder, id, begin)?;
            segments.push((begin, path.clone()));
            (path, SEGMENT_HEAD)
        };
        let mut bytes = 0;
        for (_, path) in &segments {
            bytes += fs::metadata(path).map_err(|source| io_error(path, source))?.len();
        }
        let shared = Arc::new(Shared {
            folder: folder.into(),
            id,
            bounds,
            bytes: AtomicU64::new(bytes),
            end: watch::Sender::new(begin),
            dealt: AtomicU64::new(dealt),
            trouble: watch::Sender::new(None),
            room: Notify::new(),
            closing: tokio_util::sync::CancellationToken::new(),
            syncs: AtomicU64::new(0),
        });
        let (queue, appends) = mpsc::channel(QUEUE_MAX);
        let writer = writer::spawn(Arc::clone(&shared), &path, length, appends)?;
        Ok((Self { shared, queue }, writer, recovered))
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
        // The writer decides; but what surely finds no room is not copied and queued for that.
        if self.shared.is_full(size) {
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
        input(self.shared.id)
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
        self.shared.bounds.bytes_max
    }

    /// Records that are synced and not yet dealt with.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.shared.end.borrow().saturating_sub(self.shared.dealt.load(Ordering::Relaxed))
    }

    /// Why records are not taken at this moment, or soon will not be.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<String> = self.shared.trouble.borrow().iter().cloned().collect();
        if let Err(error) = self.shared.spare(EVENT_BYTES) {
            troubles.push(error.to_string());
        }
        let (bytes, bytes_max) = (self.bytes(), self.bytes_max());
        if bytes >= bytes_max / 5 * 4 {
            troubles.push(format!("the journal holds {bytes} of {bytes_max} bytes; see why documents are not written, or raise journal.bytes_max"));
        }
        troubles
    }

    /// How often the disk was made to sync.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// Notes that everything before `sequence` is dealt with, and deletes segments that hold nothing else.
    ///
    /// # Errors
    ///
    /// If a file cannot be deleted.
    pub fn release(&self, sequence: u64) -> Result<(), JournalError> {
        self.shared.dealt.fetch_max(sequence, Ordering::Relaxed);
        self.shared.release()
    }

    /// Writes what is queued and ends the writer; later appends fail as [`AppendError::Closed`].
    pub fn close(&self) {
        self.shared.closing.cancel();
    }
}

impl Shared {
    /// Whether `size` more bytes find no room, and making room is not up to the writer.
    fn is_full(&self, size: u64) -> bool {
        self.bytes.load(Ordering::Relaxed) + size > self.bounds.bytes_max
            && self.dealt.load(Ordering::Relaxed) < *self.end.borrow()
    }

    /// Whether `size` more bytes leave the reserve alone.
    fn spare(&self, size: u64) -> Result<(), AppendError> {
        let reserve = self.bounds.reserve_bytes;
        // Who cannot be asked has no reserve; a write that fails is still noticed.
        let Ok(free) = free_bytes(&self.folder) else { return Ok(()) };
        if free < reserve.saturating_add(size) {
            return Err(AppendError::DiskFull { free, reserve });
        }
        Ok(())
    }

    fn release(&self) -> Result<(), JournalError> {
        let dealt = self.dealt.load(Ordering::Relaxed);
        let mut released = 0;
        for pair in segments(&self.folder)?.windows(2) {
            let [(_, path), (next, _)] = pair else { continue };
            if *next > dealt {
                break;
            }
            let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
            match fs::remove_file(path) {
                Ok(()) => released += length,
                // The lane and the writer both release.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(io_error(path, source)),
            }
        }
        if released > 0 {
            self.bytes.fetch_sub(released, Ordering::Relaxed);
            self.room.notify_waiters();
        }
        Ok(())
    }
}

/// Whether the file system of `folder` has more than `reserve` bytes left.
///
/// # Errors
///
/// If it has not; the message says what to do. Who cannot be asked has.
pub fn check_reserve(folder: &Path, reserve: u64) -> Result<(), AppendError> {
    match free_bytes(folder) {
        Ok(free) if free < reserve => Err(AppendError::DiskFull { free, reserve }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Bytes that the file system of `folder` has left.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn input(id: Uuid) -> Input {
    Input(format!("journal/{id}").into())
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

/// Segments in their order, and how they were left, as opening finds it. Nothing is changed.
fn look(
    folder: &Path,
    positions: &Positions,
) -> Result<(Vec<(u64, PathBuf)>, Recovered), JournalError> {
    let mut segments = segments(folder)?;
    let mut recovered = Recovered { removed: headless(&segments)?, ..Recovered::default() };
    segments.truncate(segments.len() - recovered.removed.len());
    let Some(id) = reader::identify(&segments, positions)? else {
        return Ok((segments, recovered));
    };
    recovered.damaged_heads = reader::damaged_heads(&segments, id)?;
    if let Some((first, path)) = segments.last() {
        let dealt = positions.next(&input(id));
        let tail = reader::scan_tail(path, id, *first)?;
        recovered.is_known = positions.iter().any(|(known, _)| *known == input(id));
        recovered.has_records = tail.end > 0;
        recovered.damaged_bytes = tail.damaged_bytes;
        if dealt > tail.end {
            recovered.passed = tail.end..dealt;
        } else {
            recovered.torn_bytes = tail.torn_bytes;
        }
    }
    Ok((segments, recovered))
}

/// How the journal in `folder` was left; `None`: there is none. Nothing is changed.
///
/// # Errors
///
/// As [`Journal::open`].
pub fn check(folder: &Path, positions: &Positions) -> Result<Option<Recovered>, JournalError> {
    if !folder.exists() {
        return Ok(None);
    }
    Ok(Some(look(folder, positions)?.1))
}

/// The last segments without a header, begun on a full disk. Nothing in them was acknowledged.
fn headless(segments: &[(u64, PathBuf)]) -> Result<Vec<PathBuf>, JournalError> {
    let mut headless = Vec::new();
    for (_, path) in segments.iter().rev() {
        let metadata = fs::metadata(path).map_err(|source| io_error(path, source))?;
        if metadata.len() >= SEGMENT_HEAD || !metadata.is_file() {
            break;
        }
        headless.push(path.clone());
    }
    Ok(headless)
}

/// Removes segments whose making was broken off.
fn remove_unfinished(folder: &Path) -> Result<(), JournalError> {
    for entry in fs::read_dir(folder).map_err(|source| io_error(folder, source))? {
        let path = entry.map_err(|source| io_error(folder, source))?.path();
        if path.extension().is_some_and(|extension| extension == writer::UNFINISHED) {
            fs::remove_file(&path).map_err(|source| io_error(&path, source))?;
        }
    }
    Ok(())
}

/// The header of a segment.
fn segment_head(id: Uuid, first: u64) -> Vec<u8> {
    [MAGIC.as_slice(), id.as_bytes(), &first.to_le_bytes()].concat()
}

/// The first bytes of a file, as many as there are.
fn read_start(path: &Path, bytes: u64) -> Result<Vec<u8>, JournalError> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes).read_to_end(&mut start));
    read.map_err(|source| io_error(path, source))?;
    Ok(start)
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
    use crate::checkpoint::persist::small_disk::SmallDisk;

    struct Opened {
        journal: Journal,
        writer: Option<Writer>,
        recovered: Recovered,
    }

    fn bounds(bytes_max: u64, segment_bytes: u64) -> Bounds {
        Bounds { bytes_max, segment_bytes, reserve_bytes: 0 }
    }

    impl Opened {
        fn at(folder: &Path, bytes_max: u64, segment_bytes: u64) -> Self {
            Self::with(folder, bounds(bytes_max, segment_bytes), &Positions::default())
        }

        fn with(folder: &Path, bounds: Bounds, positions: &Positions) -> Self {
            let (journal, writer, recovered) = Journal::open(folder, bounds, positions).unwrap();
            Self { journal, writer: Some(writer), recovered }
        }

        /// What the checkpoint holds once everything is dealt with.
        fn positions(&self) -> Positions {
            let mut positions = Positions::default();
            positions.advance(&self.journal.input(), *self.journal.end().borrow());
            positions
        }

        fn try_append(&self, body: &[u8]) -> Result<u64, AppendError> {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(self.journal.append("default", 7, body))
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
                from = last.next();
                items.extend(read.iter().map(|item| match item {
                    Item::Record(record, _) => Some(record.payload.to_vec()),
                    Item::Damaged(_) | Item::Missing(_) => None,
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
                opened.read()
            };
            let path = last_segment(folder.path());
            let head = usize::try_from(SEGMENT_HEAD).unwrap();
            let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
            flip(&path, head + at.index(length - head), bit);
            let opened = Opened::at(folder.path(), 1 << 30, 1 << 30);
            prop_assert_eq!(opened.recovered.torn_bytes, 0);
            let read = opened.read();
            prop_assert_eq!(read.len(), whole.len());
            let differ: Vec<_> = read.iter().zip(&whole).filter(|(read, whole)| read != whole).collect();
            prop_assert!(matches!(differ.as_slice(), [(None, Some(_))]), "{:?}", differ);
            prop_assert_eq!(opened.append(&[vec![1]]), [whole.len() as u64]);
            prop_assert_eq!(opened.read().pop(), Some(Some(vec![1])));
        }

        #[test]
        fn no_number_below_the_checkpoint_is_given_again(group in bodies(), cut in 1u64..400, segment_bytes in 1u64..2000) {
            let folder = tempfile::tempdir().unwrap();
            let positions = {
                let opened = Opened::at(folder.path(), 1 << 30, segment_bytes);
                opened.append(&group);
                opened.positions()
            };
            let next = group.len() as u64;
            let path = last_segment(folder.path());
            let length = fs::metadata(&path).unwrap().len();
            let kept = length.saturating_sub(cut);
            // Of a journal without a whole header there is nothing left: the next one is another.
            prop_assume!(kept >= SEGMENT_HEAD || segments(folder.path()).unwrap().len() > 1);
            OpenOptions::new().write(true).open(&path).unwrap().set_len(kept).unwrap();
            for more in 0..2 {
                let opened = Opened::with(folder.path(), bounds(1 << 30, segment_bytes), &positions);
                prop_assert_eq!(opened.recovered.torn_bytes, 0);
                if more == 0 {
                    prop_assert_eq!(opened.recovered.passed.end, next);
                }
                prop_assert_eq!(opened.append(&[vec![7]]), [next + more]);
                let read = opened.journal.reader().read(next, 10, 1000).unwrap();
                prop_assert_eq!(read.len() as u64, 1 + more);
                prop_assert!(read.iter().all(|item| matches!(item, Item::Record(record, _) if *record.payload == [7])));
            }
        }

        #[test]
        fn a_flipped_bit_in_a_header_costs_nothing(group in bodies(), segment_bytes in 1u64..2000, which in any::<prop::sample::Index>(), at in 0usize..32, bit in 0u8..8, knows in any::<bool>()) {
            let folder = tempfile::tempdir().unwrap();
            let (whole, positions) = {
                let opened = Opened::at(folder.path(), 1 << 30, segment_bytes);
                opened.append(&group);
                let mut positions = Positions::default();
                positions.advance(&opened.journal.input(), 0);
                (opened.read(), if knows { positions } else { Positions::default() })
            };
            let all = segments(folder.path()).unwrap();
            flip(&all[which.index(all.len())].1, at, bit);
            let opened = Opened::with(folder.path(), bounds(1 << 30, segment_bytes), &positions);
            prop_assert_eq!(opened.read(), whole);
            if knows {
                prop_assert_eq!(opened.recovered.damaged_heads.len(), 1);
                prop_assert_eq!(positions.iter().next().unwrap().0, &opened.journal.input());
            }
        }
    }

    fn flip(path: &Path, at: usize, bit: u8) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_missing_segment_is_told_by_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        {
            let opened = Opened::at(folder.path(), 1 << 30, 300);
            for body in 0..20 {
                opened.append(&[vec![body; 50]]);
            }
        }
        let all = segments(folder.path()).unwrap();
        let [_, (first, path), (next, _), ..] = all.as_slice() else { panic!() };
        assert!(next - first > 1);
        fs::remove_file(path).unwrap();
        let opened = Opened::at(folder.path(), 1 << 30, 300);
        let items = opened.journal.reader().read(0, 100, 1 << 20).unwrap();
        let missing: Vec<(u64, u64)> = items
            .iter()
            .filter_map(|item| match item {
                Item::Missing(numbers) => Some((numbers.start, numbers.end)),
                Item::Record(..) | Item::Damaged(_) => None,
            })
            .collect();
        assert_eq!(missing, [(*first, *next)]);
        assert_eq!(items.len() as u64, 20 - (next - first) + 1);
    }

    #[test]
    fn what_a_full_disk_left_behind_does_not_stop_the_start() {
        for length in [0, 1, SEGMENT_HEAD - 1] {
            let folder = tempfile::tempdir().unwrap();
            let next = {
                let opened = Opened::at(folder.path(), 1 << 30, 100);
                opened.append(&[vec![1; 100]]);
                *opened.journal.end().borrow()
            };
            let left = folder.path().join(format!("{next:020}.journal"));
            File::create(&left).unwrap().set_len(length).unwrap();
            fs::write(left.with_extension("new"), "").unwrap();
            let opened = Opened::at(folder.path(), 1 << 30, 100);
            assert_eq!(opened.recovered.removed, std::slice::from_ref(&left));
            assert!(!left.with_extension("new").exists());
            assert_eq!(opened.append(&[vec![2; 100]]), [next]);
            assert_eq!(opened.read(), [Some(vec![1; 100]), Some(vec![2; 100])]);
        }
        // The very first one.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(format!("{:020}.journal", 0)), "").unwrap();
        assert_eq!(Opened::at(folder.path(), 1 << 30, 100).append(&[vec![1]]), [0]);
    }

    #[test]
    fn a_full_journal_in_which_all_is_dealt_with_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Opened::at(folder.path(), 1000, 1000);
        let mut next = 0;
        for _ in 0..100 {
            while let Ok(sequence) = opened.try_append(&[0; 50]) {
                assert_eq!(sequence, next);
                next += 1;
                assert!(opened.journal.bytes() <= 1000);
            }
            // One is left to deal with: the segment stays.
            opened.journal.release(next - 1).unwrap();
            assert!(matches!(opened.try_append(&[0; 50]), Err(AppendError::Full)));
            opened.journal.release(next).unwrap();
        }
        assert!(next > 500, "{next}");
        let on_disk: u64 = segments(folder.path())
            .unwrap()
            .iter()
            .map(|(_, path)| fs::metadata(path).unwrap().len())
            .sum();
        assert_eq!(opened.journal.bytes(), on_disk);
    }

    #[test]
    fn a_full_disk_is_left_alone_and_taken_again_once_there_is_room() {
        let Some(disk) = SmallDisk::mount(3) else { return };
        let folder = disk.path().join("journal");
        let reserve_bytes = 1 << 20;
        let bounds = Bounds { bytes_max: 1 << 30, segment_bytes: 200_000, reserve_bytes };
        let opened = Opened::with(&folder, bounds, &Positions::default());
        let mut next = 0;
        let refused = loop {
            match opened.try_append(&[7; 10_000]) {
                Ok(_) => next += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused}");
        assert!(free_bytes(&folder).unwrap() >= reserve_bytes);
        assert!(opened.journal.troubles().concat().contains("the disk is full"));
        opened.journal.release(next).unwrap();
        assert!(opened.journal.troubles().is_empty());
        assert_eq!(opened.try_append(&[7; 10_000]).unwrap(), next);
    }

    #[test]
    fn a_segment_that_is_dealt_with_keeps_no_room_from_new_records() {
        let Some(disk) = SmallDisk::mount(3) else { return };
        let folder = disk.path().join("journal");
        let bounds = Bounds { bytes_max: 1 << 30, segment_bytes: 1 << 30, reserve_bytes: 1 << 20 };
        let opened = Opened::with(&folder, bounds, &Positions::default());
        let mut next = 0;
        while opened.try_append(&[7; 100_000]).is_ok() {
            next += 1;
        }
        opened.journal.release(next).unwrap();
        assert_eq!(opened.try_append(&[7; 100_000]).unwrap(), next);
    }

    #[test]
    fn a_disk_filled_by_others_costs_no_record_and_no_start() {
        let Some(disk) = SmallDisk::mount(3) else { return };
        let folder = disk.path().join("journal");
        let opened = Opened::at(&folder, 1 << 30, 10_000);
        let mut expected = vec![Some(vec![1; 5000]); 3];
        opened.append(&vec![vec![1; 5000]; 3]);
        let ballast = disk.fill(0);
        let failed = loop {
            match opened.try_append(&[2; 5000]) {
                Ok(_) => expected.push(Some(vec![2; 5000])),
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, AppendError::Io(_) | AppendError::DiskFull { .. }), "{failed}");
        drop(opened);
        let whole = |(_, path): &(u64, PathBuf)| fs::metadata(path).unwrap().len() >= SEGMENT_HEAD;
        assert!(segments(&folder).unwrap().iter().all(whole));
        // A start on the full disk, and another failure there.
        let opened = Opened::at(&folder, 1 << 30, 10_000);
        assert_eq!(opened.read(), expected);
        opened.try_append(&[3; 5000]).unwrap_err();
        fs::remove_file(ballast).unwrap();
        expected.push(Some(vec![4; 5000]));
        opened.try_append(&[4; 5000]).unwrap();
        assert_eq!(opened.read(), expected);
        drop(opened);
        assert_eq!(Opened::at(&folder, 1 << 30, 10_000).read(), expected);
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
        assert!(opened.journal.troubles().concat().contains("cannot be written"));
        fs::remove_dir(&taken).unwrap();
        // Nobody needs to append for the trouble to end: whoever is not ready is not asked.
        let mut trouble = opened.journal.shared.trouble.subscribe();
        runtime.block_on(trouble.wait_for(Option::is_none)).unwrap();
        assert_eq!(opened.append(&[vec![3; 100]]), [1]);
        assert_eq!(opened.read(), [Some(vec![1; 100]), Some(vec![3; 100])]);
    }

    #[test]
    fn a_file_that_is_no_segment_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(format!("{:020}.journal", 0)), [9; 100]).unwrap();
        assert!(matches!(
            Journal::open(folder.path(), bounds(1 << 30, 1 << 20), &Positions::default()),
            Err(JournalError::Format { .. })
        ));
    }
}
