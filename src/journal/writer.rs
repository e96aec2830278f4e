//! The writer: one thread, one write and one sync for everything that waits.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Append, AppendError, JournalError, SEGMENT_HEAD, Shared, Writer, io_error, record_head,
    segment_head,
};
use crate::checkpoint::persist::kill_point;

/// Most bytes of one group; it bounds the buffer.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Extension of a segment that is being made.
pub(super) const UNFINISHED: &str = "new";
/// How often the disk is tried again after it failed, so that trouble ends although nobody appends.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Makes an empty segment, durable with its name: all of it or none.
pub(super) fn create_segment(folder: &Path, id: Uuid, first: u64) -> Result<PathBuf, JournalError> {
    let path = folder.join(format!("{first:020}.journal"));
    let unfinished = path.with_extension(UNFINISHED);
    let create = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(&segment_head(id, first))?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        File::open(folder)?.sync_all()
    };
    create().map_err(|source| io_error(&path, source))?;
    Ok(path)
}

pub(super) fn spawn(
    shared: Arc<Shared>,
    path: &Path,
    length: u64,
    appends: mpsc::Receiver<Append>,
) -> Result<Writer, JournalError> {
    let file =
        OpenOptions::new().write(true).open(path).map_err(|source| io_error(path, source))?;
    let next = *shared.end.borrow();
    let segment = Segment { file, length, is_trusted: true };
    let mut writer =
        State { shared, segment, next, buffer: Vec::new(), waiting: Vec::new(), is_filling: false };
    let spawned =
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(appends));
    spawned.map(Writer).map_err(|source| io_error(path, source))
}

struct Segment {
    file: File,
    /// Up to here everything is synced.
    length: u64,
    /// After a failed write or sync nobody knows what the file holds beyond `length`.
    is_trusted: bool,
}

struct State {
    shared: Arc<Shared>,
    segment: Segment,
    /// Sequence number of the next record.
    next: u64,
    buffer: Vec<u8>,
    waiting: Vec<Append>,
    /// Whether it has been said that the journal is filling up.
    is_filling: bool,
}

impl State {
    fn run(&mut self, mut appends: mpsc::Receiver<Append>) {
        let closing = self.shared.closing.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let Ok(runtime) = runtime else { return };
        loop {
            let is_failing = self.shared.trouble.borrow().is_some();
            let next = runtime.block_on(async {
                tokio::select! {
                    biased;
                    append = appends.recv() => Some(append),
                    () = closing.cancelled() => {
                        appends.close();
                        Some(appends.recv().await)
                    }
                    () = tokio::time::sleep(PROBE_EVERY), if is_failing => None,
                }
            });
            match next {
                Some(Some(first)) => self.group(first, &mut appends),
                Some(None) => return,
                None => self.probe(),
            }
        }
    }

    fn group(&mut self, first: Append, appends: &mut mpsc::Receiver<Append>) {
        let spare = self.shared.spare(GROUP_BYTES_MAX as u64);
        let mut next = Some(first);
        while let Some(append) = next {
            let size = (super::RECORD_HEAD + append.payload.len()) as u64;
            match self.room(size, spare.is_ok()) {
                Ok(()) => self.add(append),
                // A client that has gone does not hear the answer.
                Err(error) => _ = append.answer.send(Err(error)),
            }
            next = if self.buffer.len() < GROUP_BYTES_MAX { appends.try_recv().ok() } else { None };
        }
        if !self.waiting.is_empty() {
            self.commit();
        }
    }

    /// Whether `size` more bytes stay within the journal's bounds. Where all was dealt with, the last segment is given up for
    /// them too. `is_spare`: a group fits in what the disk had, but for its last record.
    fn room(&mut self, size: u64, is_spare: bool) -> Result<(), AppendError> {
        let within = self.within_bounds(size, is_spare);
        let all_dealt = self.shared.dealt.load(Ordering::Relaxed) >= self.next;
        let gives_up = all_dealt && self.waiting.is_empty() && self.segment.length > SEGMENT_HEAD;
        if within.is_ok() || !gives_up {
            return within;
        }
        self.roll().map_err(|error| AppendError::Io(Arc::new(error)))?;
        if let Err(error) = self.shared.release() {
            tracing::warn!(error = %error, "journal segment cannot be deleted");
        }
        self.within_bounds(size, false)
    }

    fn within_bounds(&self, size: u64, is_spare: bool) -> Result<(), AppendError> {
        let more = self.buffer.len() as u64 + size;
        if self.shared.bytes.load(Ordering::Relaxed) + more > self.shared.bounds.bytes_max {
            return Err(AppendError::Full);
        }
        if is_spare { Ok(()) } else { self.shared.spare(more) }
    }

    fn add(&mut self, append: Append) {
        let sequence = self.next + self.waiting.len() as u64;
        self.buffer.extend_from_slice(&record_head(self.shared.id, sequence, &append.payload));
        self.buffer.extend_from_slice(&append.payload);
        self.waiting.push(append);
    }

    /// Whether the disk can be written again, while nobody appends.
    fn probe(&mut self) {
        let cured = if self.segment.is_trusted { Ok(()) } else { self.roll() };
        self.tell(cured.as_ref().err());
    }

    /// Shows trouble to whoever asks, and says it once.
    fn tell(&self, error: Option<&std::io::Error>) {
        let trouble = error.map(|error| {
            format!("the journal cannot be written, events are not taken: {error}; see that the disk has room and the folder can be written")
        });
        let was = self.shared.trouble.send_replace(trouble.clone());
        match (was, trouble) {
            (None, Some(trouble)) => tracing::error!("{trouble}"),
            (Some(_), None) => tracing::info!("the journal can be written again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Says once that the journal is filling up; again only after it was well below.
    fn watch_size(&mut self) {
        let (bytes, bytes_max) =
            (self.shared.bytes.load(Ordering::Relaxed), self.shared.bounds.bytes_max);
        if bytes >= bytes_max / 5 * 4 && !self.is_filling {
            self.is_filling = true;
            tracing::warn!(
                bytes,
                bytes_max,
                "journal is filling up; see why documents are not written"
            );
        } else if bytes < bytes_max / 5 * 3 {
            self.is_filling = false;
        }
    }

    fn commit(&mut self) {
        let result = self.write();
        self.tell(result.as_ref().err().map(|error| &**error));
        kill_point("journal-synced");
        self.buffer.clear();
        self.buffer.shrink_to(GROUP_BYTES_MAX);
        let first = self.next;
        if result.is_ok() {
            self.next += self.waiting.len() as u64;
            self.shared.end.send_replace(self.next);
            self.watch_size();
        }
        for (sequence, append) in (first..).zip(self.waiting.drain(..)) {
            let answer = match &result {
                Ok(()) => Ok(sequence),
                Err(error) => Err(AppendError::Io(Arc::clone(error))),
            };
            // A client that has gone does not hear the answer; its record stays, like any it repeats.
            let _gone = append.answer.send(answer);
        }
    }

    fn write(&mut self) -> Result<(), Arc<std::io::Error>> {
        let is_full = self.segment.length > SEGMENT_HEAD
            && self.segment.length >= self.shared.bounds.segment_bytes;
        if is_full || !self.segment.is_trusted {
            self.roll().map_err(Arc::new)?;
        }
        let written =
            self.segment.file.write_all_at(&self.buffer, self.segment.length).and_then(|()| {
                kill_point("journal-written");
                self.segment.file.sync_data()
            });
        if let Err(error) = written {
            self.segment.is_trusted = false;
            return Err(Arc::new(error));
        }
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.segment.length += self.buffer.len() as u64;
        self.shared.bytes.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Begins a segment at the next sequence number. What a failed write left behind is cut first: records there were not
    /// acknowledged, and the sequence numbers will be given again.
    fn roll(&mut self) -> std::io::Result<()> {
        if !self.segment.is_trusted {
            self.segment.file.set_len(self.segment.length)?;
            self.segment.file.sync_all()?;
        }
        if self.segment.length == SEGMENT_HEAD {
            // Nothing in it: its name is the next sequence number already.
            self.segment.is_trusted = true;
            return Ok(());
        }
        let into_io = |error| match error {
            JournalError::Io { source, .. } => source,
            JournalError::Format { path } => std::io::Error::other(path.display().to_string()),
        };
        let path =
            create_segment(&self.shared.folder, self.shared.id, self.next).map_err(into_io)?;
        let file = OpenOptions::new().write(true).open(path)?;
        self.segment = Segment { file, length: SEGMENT_HEAD, is_trusted: true };
        self.shared.bytes.fetch_add(SEGMENT_HEAD, Ordering::Relaxed);
        Ok(())
    }
}
