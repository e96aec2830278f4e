//! CDR files: read to their end for `import`, followed by `serve`.
//!
//! [`Lines`] reads one file once, plain, gzip or zstd. [`Follower`](follow::Follower) reads growing plain files, through
//! rotation and renaming; compressed ones are not followed. A line is a record; its offset is the byte it begins at. Empty
//! lines are none. The server's log, in which CDR lines are few, may be read too.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::decode;
use crate::lane::Item;
use crate::record::{Input, Position, Record};

pub mod follow;

/// Longest line that is a record. OpenVidu's longest are some 100 kB.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {} at byte {offset}: {source}", path.display())]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
    /// Where in its (decompressed) content.
    pub offset: u64,
    /// What went wrong.
    pub source: io::Error,
}

/// A line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Byte it begins at.
    pub offset: u64,
    /// Byte after its end.
    pub next_offset: u64,
    /// Its bytes; the first ones of a line that is too long.
    pub bytes: Vec<u8>,
    /// Whether it has more than [`LINE_BYTES_MAX`].
    pub is_too_long: bool,
    /// Whether it tells of no event, and nobody expects that it does: most lines of a server's log.
    pub is_noise: bool,
}

impl Line {
    /// The line as a record of `input`, which came from `source`.
    #[must_use]
    pub fn item(self, input: &Input, source: &Arc<str>) -> Item {
        let record = Record {
            position: Position { input: input.clone(), offset: self.offset },
            next_offset: self.next_offset,
            source: Arc::clone(source),
            payload: Bytes::from(self.bytes),
        };
        if self.is_noise {
            Item::Noise(record)
        } else if self.is_too_long {
            Item::Damaged(record, "a line longer than 64 MiB")
        } else {
            Item::Record(record)
        }
    }
}

/// What a file is, told by how it begins. In a CDR file every line is an event, and whatever is none is a loss to be told of. A
/// server's log has lines of its own, with a level and a time before their text, and texts that go on over several lines:
/// there only what looks like a CDR line is expected to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Most lines that are known as something are events, or none is known.
    Cdr,
    /// Most of them are lines of a log.
    Log,
}

/// Bytes by which a file is judged, whoever reads it.
const HEAD_BYTES: usize = 8192;

impl Kind {
    /// What a file that begins like this is.
    fn of(start: &[u8]) -> Self {
        let start = start.get(..HEAD_BYTES.min(start.len())).unwrap_or_default();
        let (mut events, mut of_log) = (0, 0);
        for line in start.split(|byte| *byte == b'\n').map(text_of) {
            events += usize::from(line.starts_with(b"{"));
            of_log += usize::from(!line.starts_with(b"{") && (is_marked(line) || is_of_log(line)));
        }
        if of_log > events { Self::Log } else { Self::Cdr }
    }

    /// Whether `line` tells of no event, and nobody expects that it does.
    fn is_noise(self, line: &[u8]) -> bool {
        let text = text_of(line);
        let looks_like_one = text.starts_with(b"{") || is_marked(text);
        !looks_like_one && (self == Self::Log || is_of_log(text))
    }
}

fn text_of(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_start()
}

/// Whether it is a CDR line as the server's log has it.
fn is_marked(text: &[u8]) -> bool {
    memchr::memmem::find(text, decode::LOG_MARK.as_bytes()).is_some()
}

/// Whether a level and a time of day stand before the text of a line.
fn is_of_log(line: &[u8]) -> bool {
    const BYTES: usize = 200;
    let head = line.get(..BYTES.min(line.len())).unwrap_or_default();
    let end = head.iter().position(|byte| matches!(byte, b'{' | b'"')).unwrap_or(head.len());
    let head = head.get(..end).unwrap_or_default();
    let mut words = head.split(|byte| !byte.is_ascii_alphabetic());
    let is_time = |part: &[u8]| {
        let shape: Vec<u8> =
            part.iter().map(|byte| if byte.is_ascii_digit() { b'0' } else { *byte }).collect();
        shape == b"00:00:00"
    };
    words.any(|word| matches!(word, b"TRACE" | b"DEBUG" | b"INFO" | b"WARN" | b"ERROR"))
        && head.windows(8).any(is_time)
}

/// The lines of one file.
pub struct Lines {
    path: PathBuf,
    /// `None`: nothing of it is read.
    kind: Option<Kind>,
    reader: Box<dyn BufRead + Send>,
    offset: u64,
    read: Arc<AtomicU64>,
    /// Size on disk, 0 for standard input.
    pub size: u64,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines")
            .field("path", &self.path)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// Counts what is read from below, before decompression.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Lines {
    /// Opens a file, or standard input for `-`. How it is compressed is told by its first bytes.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let error = |source| FileError { path: path.into(), offset: 0, source };
        let read = Arc::new(AtomicU64::new(0));
        let (input, size): (Box<dyn Read + Send>, u64) = if path == Path::new("-") {
            (Box::new(io::stdin()), 0)
        } else {
            let file = File::open(path).map_err(error)?;
            let metadata = file.metadata().map_err(error)?;
            if metadata.is_dir() {
                return Err(error(io::Error::other("it is a folder; name the files in it")));
            }
            (Box::new(file), metadata.len())
        };
        let mut input =
            BufReader::with_capacity(1 << 18, Counted { inner: input, read: Arc::clone(&read) });
        let start = input.fill_buf().map_err(error)?;
        let reader: Box<dyn BufRead + Send> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(1 << 18, flate2::bufread::MultiGzDecoder::new(input)))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(error)?;
            Box::new(BufReader::with_capacity(1 << 18, decoder))
        } else {
            Box::new(input)
        };
        Ok(Self { path: path.into(), kind: None, reader, offset: 0, read, size })
    }

    /// Bytes read from disk so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The next line that is not empty; `None` at the end.
    ///
    /// # Errors
    ///
    /// If reading or decompressing fails; the lines before have been given.
    pub fn next_line(&mut self) -> Result<Option<Line>, FileError> {
        loop {
            let line = self.read_line().map_err(|source| FileError {
                path: self.path.clone(),
                offset: self.offset,
                source,
            })?;
            let Some(line) = line else { return Ok(None) };
            self.offset = line.next_offset;
            if !line.bytes.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line));
            }
        }
    }

    fn read_line(&mut self) -> io::Result<Option<Line>> {
        let kind = match self.kind {
            Some(kind) => kind,
            None => *self.kind.insert(Kind::of(self.reader.fill_buf()?)),
        };
        let line = read_line(&mut *self.reader, self.offset)?;
        Ok(line.map(|(line, _)| Line { is_noise: kind.is_noise(&line.bytes), ..line }))
    }
}

/// Reads one line, and says whether its end was there; `None` at the end of the input.
fn read_line(reader: &mut dyn BufRead, offset: u64) -> io::Result<Option<(Line, bool)>> {
    let mut line = Line {
        offset,
        next_offset: offset,
        bytes: Vec::new(),
        is_too_long: false,
        is_noise: false,
    };
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok((line.next_offset > offset).then_some((line, false)));
        }
        let end = memchr::memchr(b'\n', buffer);
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = LINE_BYTES_MAX.saturating_sub(line.bytes.len());
        line.is_too_long |= part.len() > room;
        line.bytes.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
        let used = part.len() + usize::from(end.is_some());
        line.next_offset += used as u64;
        reader.consume(used);
        if end.is_some() {
            if line.bytes.last() == Some(&b'\r') {
                line.bytes.pop();
            }
            return Ok(Some((line, true)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    type Read = Vec<(u64, String)>;

    fn lines(content: &[u8]) -> Result<Read, (Read, FileError)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let mut lines = Lines::open(file.path()).unwrap();
        let mut read = Vec::new();
        loop {
            match lines.next_line() {
                Ok(Some(line)) => read.push((line.offset, String::from_utf8(line.bytes).unwrap())),
                Ok(None) => return Ok(read),
                Err(error) => return Err((read, error)),
            }
        }
    }

    const TEXT: &[u8] = b"one\r\n\n  \ntwo\nthree";

    fn expected() -> Vec<(u64, String)> {
        vec![(0, "one".into()), (9, "two".into()), (13, "three".into())]
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_gzip_and_zstd_give_the_same_lines() {
        assert_eq!(lines(TEXT).unwrap(), expected());
        let (start, rest) = TEXT.split_at(7);
        assert_eq!(lines(&[gzip(start), gzip(rest)].concat()).unwrap(), expected());
        assert_eq!(lines(&zstd::encode_all(TEXT, 1).unwrap()).unwrap(), expected());
        assert_eq!(lines(b"").unwrap(), []);
    }

    #[test]
    fn in_a_servers_log_only_cdr_lines_are_expected_to_be_events() {
        let noise = |content: &str| -> Vec<bool> {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content.as_bytes()).unwrap();
            let mut lines = Lines::open(file.path()).unwrap();
            let next = || lines.next_line().unwrap().map(|line| line.is_noise);
            std::iter::from_fn(next).collect()
        };
        let log = "Starting\n[INFO] 2021-03-03 12:49:37,070 [main] io.openvidu.server.OpenViduServer - \n  ===\n\
                   [INFO] 2021-03-03 12:49:38,070 [x] io.openvidu.server.cdr.CDRLoggerFile - {\"a\":{}}\n{\"a\":{}}\n\
                   java.lang.IllegalStateException: x\n\tat io.openvidu.server.Kms.x(Kms.java:1)\n";
        assert_eq!(noise(log), [true, true, true, false, false, true, true]);
        for line in [
            "openvidu-server_1  | 2021-03-03 12:49:37.070  INFO 1 --- [main] o.s.b.w.e.t.TomcatWebServer : started",
            "[WARN ] 2021-03-03 12:49:37,070 [x] y - {}",
        ] {
            assert_eq!(noise(line), [true], "{line}");
        }
        // In a CDR file whatever is no event is a loss.
        let cdr =
            "ERROR\",\"event\":\"x\",\"at\":\"12:00:00\"}\n{\"a\":{}}\nINFO\n12:00:00 x\n{ half\n";
        assert_eq!(noise(cdr), [false; 5]);
        // A line of a log that got into one takes no other with it.
        let cdr = "{ half\n of it}\n12:00:00 INFO stray\ngarbage\n";
        assert_eq!(noise(cdr), [false, false, true, false]);
        let cdr = "12:00:00 INFO stray\ngarbage\n{}\n{}\n";
        assert_eq!(noise(cdr), [true, false, false, false]);
    }

    #[test]
    fn a_broken_file_gives_the_lines_before_and_says_where() {
        let text = "0123456789\n".repeat(100_000);
        let mut broken = gzip(text.as_bytes());
        broken.truncate(broken.len() / 2);
        let (read, error) = lines(&broken).unwrap_err();
        assert!(!read.is_empty() && read.iter().all(|(_, line)| line == "0123456789"));
        assert!(error.offset > 0 && error.to_string().contains("at byte"), "{error}");
    }
}
