//! The writer: one thread, one write and one sync for everything that waits.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Append, AppendError, JournalError, MAGIC, SEGMENT_HEAD, Shared, Writer, io_error, record_head,
};

/// Most bytes of one group; it bounds the buffer.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Makes an empty segment, durable with its name.
pub(super) fn create_segment(folder: &Path, id: Uuid, first: u64) -> Result<PathBuf, JournalError> {
    let path = folder.join(format!("{first:020}.journal"));
    let create = || {
        // A segment of this name can be left over from a failed attempt; nothing in it was acknowledged.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        file.write_all(&[MAGIC.as_slice(), id.as_bytes(), &first.to_le_bytes()].concat())?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    };
    create().map_err(|source| io_error(&path, source))?;
    Ok(path)
}

pub(super) fn spawn(
    shared: Arc<Shared>,
    path: &Path,
    length: u64,
    segment_bytes: u64,
    appends: mpsc::Receiver<Append>,
) -> Result<Writer, JournalError> {
    let file =
        OpenOptions::new().write(true).open(path).map_err(|source| io_error(path, source))?;
    let next = *shared.end.borrow();
    let segment = Segment { file, length, is_trusted: true };
    let mut writer =
        State { shared, segment, segment_bytes, next, buffer: Vec::new(), waiting: Vec::new() };
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
    segment_bytes: u64,
    /// Sequence number of the next record.
    next: u64,
    buffer: Vec<u8>,
    waiting: Vec<Append>,
}

impl State {
    fn run(&mut self, mut appends: mpsc::Receiver<Append>) {
        let closing = self.shared.closing.clone();
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
        loop {
            let first = runtime.block_on(async {
                tokio::select! {
                    biased;
                    append = appends.recv() => append,
                    () = closing.cancelled() => {
                        appends.close();
                        appends.recv().await
                    }
                }
            });
            let Some(first) = first else { return };
            self.add(first);
            while self.buffer.len() < GROUP_BYTES_MAX
                && let Ok(append) = appends.try_recv()
            {
                self.add(append);
            }
            self.commit();
        }
    }

    fn add(&mut self, append: Append) {
        let sequence = self.next + self.waiting.len() as u64;
        self.buffer.extend_from_slice(&record_head(self.shared.id, sequence, &append.payload));
        self.buffer.extend_from_slice(&append.payload);
        self.waiting.push(append);
    }

    fn commit(&mut self) {
        let result = self.write();
        self.buffer.clear();
        self.buffer.shrink_to(GROUP_BYTES_MAX);
        let first = self.next;
        if result.is_ok() {
            self.next += self.waiting.len() as u64;
            self.shared.end.send_replace(self.next);
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
        let is_full =
            self.segment.length > SEGMENT_HEAD && self.segment.length >= self.segment_bytes;
        if is_full || !self.segment.is_trusted {
            self.roll().map_err(Arc::new)?;
        }
        let written = self
            .segment
            .file
            .write_all_at(&self.buffer, self.segment.length)
            .and_then(|()| self.segment.file.sync_data());
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
