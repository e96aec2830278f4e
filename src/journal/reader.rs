//! The reader: synced records from any sequence number, damaged ones reported and not in the way of others.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    JournalError, MAGIC, RECORD_HEAD, SEGMENT_HEAD, io_error, parse_head, parse_payload,
    read_start, segment_head, segments,
};
use crate::record::{Input, Position, Positions, Record};

/// What was read.
#[derive(Debug)]
pub enum Item {
    /// A record as it was appended, and when that was (milliseconds since 1970).
    Record(Record, i64),
    /// Bytes that were one or more records. `record.payload` is what is left of them.
    Damaged(Record),
    /// Records of which nothing is left: their numbers.
    Missing(Range<u64>),
}

impl Item {
    /// The sequence number to go on from.
    #[must_use]
    pub fn next(&self) -> u64 {
        match self {
            Self::Record(record, _) | Self::Damaged(record) => record.next_offset,
            Self::Missing(numbers) => numbers.end,
        }
    }

    /// How many bytes it carries.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Record(record, _) | Self::Damaged(record) => record.payload.len(),
            Self::Missing(_) => 0,
        }
    }

    /// Whether it carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads one journal forward.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    id: Uuid,
    input: Input,
    end: watch::Receiver<u64>,
    cursor: Option<Cursor>,
}

/// An open segment.
#[derive(Debug)]
struct Cursor {
    path: PathBuf,
    file: BufReader<File>,
    /// Sequence number of the record that is read next.
    next: u64,
}

/// Bytes of damage that one item carries; more are left out.
const DAMAGED_BYTES_MAX: usize = 1 << 20;

impl Reader {
    pub(super) fn new(folder: PathBuf, id: Uuid, end: watch::Receiver<u64>) -> Self {
        Self { folder, id, input: Input(format!("journal/{id}").into()), end, cursor: None }
    }

    /// Synced records from sequence number `from` on: at most `records_max`, and no more once they hold `bytes_max`.
    ///
    /// # Errors
    ///
    /// If a segment cannot be read.
    pub fn read(
        &mut self,
        from: u64,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Item>, JournalError> {
        let end = *self.end.borrow();
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut from = from;
        while from < end && items.len() < records_max && bytes < bytes_max {
            let item = self.next(from, end)?;
            from = item.next();
            bytes += item.len();
            items.push(item);
        }
        if from >= end
            && let Some(cursor) = &mut self.cursor
        {
            // What is buffered beyond the last synced record may yet be written again.
            let position =
                cursor.file.stream_position().and_then(|at| cursor.file.seek(SeekFrom::Start(at)));
            position.map_err(|source| io_error(&cursor.path, source))?;
        }
        Ok(items)
    }

    /// The record with sequence number `from`, or the damage that stands in its place.
    fn next(&mut self, from: u64, end: u64) -> Result<Item, JournalError> {
        loop {
            if self.cursor.as_ref().is_none_or(|cursor| cursor.next != from) {
                self.cursor = self.seek(from)?;
            }
            let Some(cursor) = &mut self.cursor else {
                // Its segment is gone: only what was released before, or taken away by somebody.
                return Ok(self.damaged(from, self.first_after(from)?.unwrap_or(end), Vec::new()));
            };
            let path = cursor.path.clone();
            match read_record(&mut cursor.file, self.id)
                .map_err(|source| io_error(&path, source))?
            {
                Step::Record(sequence, _) | Step::Broken(sequence, _) if sequence < from => {
                    cursor.next = from;
                }
                Step::Record(sequence, payload) if sequence == from => {
                    cursor.next = from + 1;
                    let Some((source, received_at, body)) = parse_payload(&payload) else {
                        return Ok(self.damaged(from, from + 1, payload.to_vec()));
                    };
                    let record = Record {
                        position: Position { input: self.input.clone(), offset: from },
                        next_offset: from + 1,
                        source: Arc::from(source),
                        payload: body,
                    };
                    return Ok(Item::Record(record, received_at));
                }
                Step::Broken(sequence, bytes) if sequence == from => {
                    cursor.next = from + 1;
                    return Ok(self.damaged(from, from + 1, bytes));
                }
                Step::Record(sequence, _) | Step::Broken(sequence, _) => {
                    // The records before this one are gone with their heads.
                    self.cursor = None;
                    return Ok(self.damaged(from, sequence.min(end), Vec::new()));
                }
                Step::End(skipped) => {
                    // The record may be the first of the next segment.
                    self.cursor = self.seek(from)?.filter(|cursor| cursor.path != path);
                    if self.cursor.is_some() {
                        continue;
                    }
                    let next = self.first_after(from)?.unwrap_or(end);
                    return Ok(self.damaged(from, next, skipped));
                }
                Step::Noise(sequence, _) if sequence <= from => {}
                Step::Noise(sequence, bytes) => {
                    cursor.next = sequence;
                    return Ok(self.damaged(from, sequence.min(end), bytes));
                }
            }
        }
    }

    fn damaged(&self, from: u64, next: u64, mut bytes: Vec<u8>) -> Item {
        let next = next.max(from + 1);
        if bytes.is_empty() {
            return Item::Missing(from..next);
        }
        bytes.truncate(DAMAGED_BYTES_MAX);
        Item::Damaged(Record {
            position: Position { input: self.input.clone(), offset: from },
            next_offset: next,
            source: Arc::from(""),
            payload: Bytes::from(bytes),
        })
    }

    /// Opens the segment that holds `from` at its first record.
    fn seek(&self, from: u64) -> Result<Option<Cursor>, JournalError> {
        let segments = segments(&self.folder)?;
        let Some((_, path)) = segments.into_iter().rev().find(|(first, _)| *first <= from) else {
            return Ok(None);
        };
        let open = || {
            let mut file = BufReader::with_capacity(1 << 18, File::open(&path)?);
            file.seek(SeekFrom::Start(SEGMENT_HEAD))?;
            Ok(file)
        };
        let file = open().map_err(|source| io_error(&path, source))?;
        // Records before `from` are read over; `next` only says that the cursor is for `from`.
        Ok(Some(Cursor { path, file, next: from }))
    }

    fn first_after(&self, from: u64) -> Result<Option<u64>, JournalError> {
        Ok(segments(&self.folder)?.into_iter().map(|(first, _)| first).find(|first| *first > from))
    }
}

enum Step {
    /// An intact record.
    Record(u64, Bytes),
    /// An intact head with another payload than it tells.
    Broken(u64, Vec<u8>),
    /// No head where one should be: the bytes up to the next one, which is read next, and its sequence number.
    Noise(u64, Vec<u8>),
    /// The file ends here, or within the record; what is left of it.
    End(Vec<u8>),
}

fn read_record(file: &mut BufReader<File>, id: Uuid) -> io::Result<Step> {
    let mut head = [0; RECORD_HEAD];
    let got = read_up_to(file, &mut head)?;
    let Some(told) = head.get(..got).filter(|head| head.len() == RECORD_HEAD) else {
        return Ok(Step::End(head.get(..got).unwrap_or_default().to_vec()));
    };
    let Some((length, sequence, sum)) = parse_head(id, told) else {
        file.seek_relative(-i64::try_from(got).unwrap_or(0))?;
        return skip_noise(file, id);
    };
    let mut payload = vec![0; length];
    let got = read_up_to(file, &mut payload)?;
    payload.truncate(got);
    if got < length {
        return Ok(Step::End(payload));
    }
    if xxh3_64(&payload) != sum {
        return Ok(Step::Broken(sequence, payload));
    }
    Ok(Step::Record(sequence, Bytes::from(payload)))
}

/// Goes to the next intact head, byte by byte.
fn skip_noise(file: &mut BufReader<File>, id: Uuid) -> io::Result<Step> {
    let mut noise = Vec::new();
    let mut byte = [0];
    loop {
        if read_up_to(file, &mut byte)? == 0 {
            return Ok(Step::End(noise));
        }
        if noise.len() < DAMAGED_BYTES_MAX {
            noise.extend_from_slice(&byte);
        }
        if let Some(sequence) = peek_head(file, id)? {
            return Ok(Step::Noise(sequence, noise));
        }
    }
}

/// Sequence number of the intact head at this place, which is left where it is.
fn peek_head(file: &mut BufReader<File>, id: Uuid) -> io::Result<Option<u64>> {
    let mut head = [0; RECORD_HEAD];
    let got = read_up_to(file, &mut head)?;
    file.seek_relative(-i64::try_from(got).unwrap_or(0))?;
    Ok(head.get(..got).and_then(|head| parse_head(id, head)).map(|(_, sequence, _)| sequence))
}

fn read_up_to(file: &mut BufReader<File>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// How the last segment ends.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Sequence number after its last record, whole or damaged.
    pub(super) end: u64,
    /// Bytes up to the end of the last record with an intact head.
    pub(super) good_bytes: u64,
    /// Bytes after that which were never a whole record.
    pub(super) torn_bytes: u64,
    /// Bytes after that which were.
    pub(super) damaged_bytes: u64,
}

pub(super) fn scan_tail(path: &Path, id: Uuid, first: u64) -> Result<Tail, JournalError> {
    let scan = || {
        let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
        let length = file.get_ref().metadata()?.len();
        let good_bytes = file.seek(SeekFrom::Start(SEGMENT_HEAD.min(length)))?;
        let mut tail = Tail { end: first, good_bytes, ..Tail::default() };
        loop {
            match read_record(&mut file, id)? {
                Step::Record(sequence, _) | Step::Broken(sequence, _) => {
                    tail.end = sequence + 1;
                    tail.good_bytes = file.stream_position()?;
                }
                // Damage with intact heads after it is no torn tail: it stays, and its reader reports it.
                Step::Noise(_, _) => {}
                Step::End(_) => break,
            }
        }
        let rest = length.saturating_sub(tail.good_bytes);
        let mut head = [0; RECORD_HEAD];
        file.seek(SeekFrom::Start(tail.good_bytes))?;
        let got = read_up_to(&mut file, &mut head)?;
        // A process that dies has written the beginning of a record, which is intact as far as it goes; a machine that dies
        // may leave zeros.
        let was_whole =
            got == RECORD_HEAD && parse_head(id, &head).is_none() && head != [0; RECORD_HEAD];
        if was_whole {
            tail.end += 1;
            tail.damaged_bytes = rest;
        } else {
            tail.torn_bytes = rest;
        }
        Ok(tail)
    };
    scan().map_err(|source| io_error(path, source))
}

/// The journal's UUID: the one with which the heads of its records are sealed, whatever became of a header. `None`: there
/// are no segments.
pub(super) fn identify(
    segments: &[(u64, PathBuf)],
    positions: &Positions,
) -> Result<Option<Uuid>, JournalError> {
    let Some((_, path)) = segments.first() else { return Ok(None) };
    let mut starts = Vec::new();
    for (_, path) in segments {
        starts.push(read_start(path, SEGMENT_HEAD + RECORD_HEAD as u64)?);
    }
    let told = |start: &Vec<u8>| Uuid::from_slice(start.get(8..24)?).ok();
    let is_ours = |start: &&Vec<u8>| start.starts_with(MAGIC);
    let known = positions.iter().filter_map(|(input, _)| input.0.strip_prefix("journal/"));
    let known: Vec<Uuid> = known.filter_map(|id| id.parse().ok()).collect();
    let mut candidates: Vec<Uuid> = starts.iter().filter(is_ours).filter_map(told).collect();
    candidates.extend(starts.iter().filter_map(told));
    candidates.extend(&known);
    let flipped = candidates.first().map(|id| {
        (0..64).map(|bit| Uuid::from_u128(id.as_u128() ^ (1 << bit))).collect::<Vec<_>>()
    });
    candidates.extend(flipped.unwrap_or_default());
    // Checksums cover half of the UUID; of those that fit, the one that others know as well.
    let score = |id: Uuid| {
        let heads = starts.iter().filter_map(|start| start.get(RECORD_HEAD..));
        let sealed = heads.filter(|head| parse_head(id, head).is_some()).count();
        (sealed, known.contains(&id), starts.iter().filter(|start| told(start) == Some(id)).count())
    };
    let mut best = ((1, false, 0), None);
    for id in candidates {
        let score = score(id);
        if score > best.0 || (best.1.is_none() && score == best.0) {
            best = (score, Some(id));
        }
    }
    // Without a record there is nothing that an identity of their own could lose.
    let id = best.1.or_else(|| starts.iter().find(is_ours).and_then(told));
    id.map(Some).ok_or_else(|| JournalError::Format { path: path.clone() })
}

/// Segments whose header is not what it was.
pub(super) fn damaged_heads(
    segments: &[(u64, PathBuf)],
    id: Uuid,
) -> Result<Vec<PathBuf>, JournalError> {
    let mut damaged = Vec::new();
    for (first, path) in segments {
        if read_start(path, SEGMENT_HEAD)? != segment_head(id, *first) {
            damaged.push(path.clone());
        }
    }
    Ok(damaged)
}
