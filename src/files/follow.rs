//! Following CDR files as OpenVidu writes them.
//!
//! A file is known by device, inode and the hash of its first line, not by its name: OpenVidu renames at midnight, and inodes
//! are used again. Its handle stays open until everything in it is read, so a file that is rotated away in mid-read loses
//! nothing. A line without its end is kept back until it is completed, or until it will not be: its file is listed no more, or
//! a newer one of its series has appeared and it has been silent for a while. A file that shrank was begun anew in place: its
//! new content is another input.
//!
//! A series is what one process writes: files of one folder whose names have the same time of start. OpenVidu's names end in
//! it; of other names it is what remains without digits, so that a date or the number of a rotated file makes no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::{HEAD_BYTES, Kind, Line, read_line};
use crate::lane::Item;
use crate::record::{Input, Positions};

/// Polls that find a superseded file as it was before its last line is taken for torn, and how long that takes at least: while
/// there is much to do, polls follow each other closely.
const SILENT_POLLS: u32 = 3;
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// Device and inode.
type Place = (u64, u64);

/// Follows the files that match some patterns.
#[derive(Debug)]
pub struct Follower {
    patterns: Vec<String>,
    source: Arc<str>,
    files: BTreeMap<Place, Followed>,
    /// Paths that could not be read, so that each is reported once.
    unreadable: BTreeSet<PathBuf>,
    at_end: bool,
    /// [`SILENT_AFTER`], but for tests.
    silent_after: Duration,
}

#[derive(Debug)]
struct Followed {
    input: Input,
    kind: Kind,
    path: PathBuf,
    file: File,
    order: Order,
    /// Bytes that are dealt with or handed over.
    offset: u64,
    /// Whether the last line had no end when it was looked at.
    is_partial: bool,
    is_listed: bool,
    /// Its size when it last grew, when that was seen, and how many polls have seen it so since.
    size: u64,
    grown: Instant,
    silent_polls: u32,
}

/// Folder and time of start of the process that writes a file.
type Series = (PathBuf, String);

/// What one poll has read, and its bounds.
#[derive(Debug)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
}

/// Time of the last change, which is the order in which files were begun and left; within one second, OpenVidu's by the start
/// of the process and then by day.
type Order = (i64, String, String, PathBuf);

impl Follower {
    /// Follows files that match one of `patterns`: paths whose last part may hold `*` and `?`.
    #[must_use]
    pub fn new(patterns: &[String], source: &str) -> Self {
        Self {
            patterns: patterns.to_vec(),
            source: Arc::from(source),
            files: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            at_end: false,
            silent_after: SILENT_AFTER,
        }
    }

    /// Whether the last poll read everything there was.
    #[must_use]
    pub fn at_end(&self) -> bool {
        self.at_end
    }

    /// Inputs that have more to read.
    pub fn behind(&self) -> impl Iterator<Item = &Input> {
        let size =
            |followed: &Followed| followed.file.metadata().map_or(0, |metadata| metadata.len());
        self.files
            .values()
            .filter(move |followed| !followed.is_partial && followed.offset < size(followed))
            .map(|followed| &followed.input)
    }

    /// Reads what is new: at most `records_max` records, and no more once they hold `bytes_max`. Oldest file first.
    pub fn poll(
        &mut self,
        positions: &Positions,
        records_max: usize,
        bytes_max: usize,
    ) -> Vec<Item> {
        self.discover(positions);
        // Of two of one name within a second, the one that was there before is listed no more.
        let order = |(place, followed): (&Place, &Followed)| {
            (followed.order.clone(), followed.is_listed, *place)
        };
        let mut order: Vec<(Order, bool, Place)> = self.files.iter().map(order).collect();
        order.sort();
        let mut batch = Batch { items: Vec::new(), bytes: 0, records_max, bytes_max };
        self.at_end = true;
        let mut newest: BTreeMap<Series, Place> = BTreeMap::new();
        for (.., place) in &order {
            if let Some(followed) = self.files.get(place) {
                newest.insert(series(&followed.path), *place);
            }
        }
        for (.., place) in order {
            let Some(followed) = self.files.get_mut(&place) else { continue };
            let is_newest = newest.get(&series(&followed.path)) == Some(&place);
            let is_silent = followed.is_silent(self.silent_after);
            let is_superseded = !followed.is_listed || (is_silent && !is_newest);
            let read = followed.read(&self.source, is_superseded, &mut batch);
            match read {
                Ok(is_whole) if is_whole && !followed.is_listed => {
                    self.files.remove(&place);
                }
                Ok(is_whole) => self.at_end &= is_whole,
                Err(error) => {
                    tracing::warn!(path = %followed.path.display(), error = %error, "cannot read CDR file");
                    self.files.remove(&place);
                }
            }
        }
        batch.items
    }

    /// Finds new files and notices what became of known ones.
    fn discover(&mut self, positions: &Positions) {
        for followed in self.files.values_mut() {
            followed.is_listed = false;
        }
        let paths: Vec<PathBuf> =
            self.patterns.iter().flat_map(|pattern| matching(pattern)).collect();
        for path in paths {
            match self.look_at(&path, positions) {
                Ok(()) => {
                    self.unreadable.remove(&path);
                }
                Err(error) => {
                    if self.unreadable.insert(path.clone()) {
                        tracing::warn!(path = %path.display(), error = %error, "cannot read CDR file");
                    }
                }
            }
        }
    }

    fn look_at(&mut self, path: &Path, positions: &Positions) -> io::Result<()> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Ok(());
        }
        let place = (metadata.dev(), metadata.ino());
        if let Some(followed) = self.files.get_mut(&place)
            && metadata.len() >= followed.offset
        {
            path.clone_into(&mut followed.path);
            followed.order = order(path, metadata.mtime());
            followed.is_listed = true;
            return Ok(());
        }
        let file = File::open(path)?;
        let mut reader = BufReader::new(&file);
        let kind = Kind::of(reader.fill_buf()?);
        let Some((first, is_whole)) = read_line(&mut reader, 0)? else {
            return Ok(());
        };
        if !is_whole {
            // Its name would change with its first line.
            return Ok(());
        }
        let input =
            Input(format!("file/{}-{}-{:016x}", place.0, place.1, xxh3_64(&first.bytes)).into());
        if self.files.contains_key(&place) {
            tracing::warn!(path = %path.display(), "CDR file was begun anew in place");
        }
        let offset = positions.next(&input);
        let offset = if offset > metadata.len() { 0 } else { offset };
        let followed = Followed {
            input,
            kind,
            path: path.to_owned(),
            file,
            order: order(path, metadata.mtime()),
            offset,
            is_partial: false,
            is_listed: true,
            size: metadata.len(),
            grown: Instant::now(),
            silent_polls: 0,
        };
        self.files.insert(place, followed);
        Ok(())
    }
}

impl Followed {
    /// Looks whether it has grown since the last poll; whether it has not for `after` and some polls.
    fn is_silent(&mut self, after: Duration) -> bool {
        let size = self.file.metadata().map_or(self.size, |metadata| metadata.len());
        if size == self.size {
            self.silent_polls = self.silent_polls.saturating_add(1);
        } else {
            (self.size, self.grown, self.silent_polls) = (size, Instant::now(), 0);
        }
        self.silent_polls >= SILENT_POLLS && self.grown.elapsed() >= after
    }

    /// Reads on from its offset. Whether it was read to its end.
    fn read(
        &mut self,
        source: &Arc<str>,
        is_superseded: bool,
        batch: &mut Batch,
    ) -> io::Result<bool> {
        self.is_partial = false;
        let mut reader = BufReader::with_capacity(1 << 16, &self.file);
        if self.offset < HEAD_BYTES as u64 {
            // It may have had less to be judged by when it was found.
            reader.seek(SeekFrom::Start(0))?;
            self.kind = Kind::of(reader.fill_buf()?);
        }
        reader.seek(SeekFrom::Start(self.offset))?;
        while batch.items.len() < batch.records_max && batch.bytes < batch.bytes_max {
            let Some((line, is_whole)) = read_line(&mut reader, self.offset)? else {
                return Ok(true);
            };
            if !is_whole && !is_superseded {
                self.is_partial = true;
                return Ok(true);
            }
            self.offset = line.next_offset;
            if line.bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line = Line { is_noise: self.kind.is_noise(&line.bytes), ..line };
            batch.bytes += line.bytes.len();
            batch.items.push(line.item(&self.input, source));
        }
        Ok(false)
    }
}

fn order(path: &Path, modified: i64) -> Order {
    let (day, start) = day_and_start(path).unwrap_or_default();
    (modified, start.to_owned(), day.to_owned(), path.to_owned())
}

fn series(path: &Path) -> Series {
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let start = day_and_start(path).map(|(_, start)| start.to_owned());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    (folder, start.unwrap_or_else(|| name.chars().filter(|c| c.is_alphabetic()).collect()))
}

/// `CDR.<yyyy-MM-dd>_<HH-mm-ss>.log`: the day changes at midnight, the time is that of the process and stays.
fn day_and_start(path: &Path) -> Option<(&str, &str)> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("CDR.")?.strip_suffix(".log")?.split_once('_')
}

/// Files whose folder is that of `pattern` and whose name matches its last part.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(pattern);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return vec![path.to_owned()];
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|found| matches(name, found))
        })
        .collect()
}

/// Whether `name` matches `pattern`, in which `*` is any text and `?` any character.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut reached: BTreeSet<usize> = BTreeSet::from([0]);
    let skip_stars = |reached: &mut BTreeSet<usize>| {
        let mut more: Vec<usize> = reached.iter().copied().collect();
        while let Some(at) = more.pop() {
            if pattern.get(at) == Some(&'*') && reached.insert(at + 1) {
                more.push(at + 1);
            }
        }
    };
    skip_stars(&mut reached);
    for character in name.chars() {
        let mut next = BTreeSet::new();
        for at in reached {
            match pattern.get(at) {
                Some('*') => _ = next.insert(at),
                Some('?') => _ = next.insert(at + 1),
                Some(known) if *known == character => _ = next.insert(at + 1),
                _ => {}
            }
        }
        reached = next;
        skip_stars(&mut reached);
    }
    reached.contains(&pattern.len())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Folder {
        folder: tempfile::TempDir,
        positions: Positions,
    }

    impl Folder {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), positions: Positions::default() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn follower(&self) -> Follower {
            let patterns = [self.path("CDR.*.log").to_str().unwrap().to_owned()];
            Follower { silent_after: Duration::ZERO, ..Follower::new(&patterns, "default") }
        }

        fn add(&self, name: &str, text: &str) {
            use std::io::Write;
            let mut file =
                fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn poll(&mut self, follower: &mut Follower) -> String {
            let items = follower.poll(&self.positions, 100, 1 << 20);
            let mut text = Vec::new();
            for item in items {
                let Item::Record(record) = item else { panic!() };
                self.positions.advance(&record.position.input, record.next_offset);
                text.push(String::from_utf8(record.payload.to_vec()).unwrap());
            }
            text.join(" ")
        }
    }

    impl Folder {
        /// Polls until something comes.
        fn poll_until(&mut self, follower: &mut Follower) -> String {
            let mut polls = (0..=SILENT_POLLS).map(|_| self.poll(follower));
            polls.find(|read| !read.is_empty()).unwrap_or_default()
        }
    }

    const ONE: &str = "CDR.2021-03-01_10-00-00.log";
    const TWO: &str = "CDR.2021-03-02_10-00-00.log";

    #[test]
    fn a_servers_log_is_known_again_after_a_restart() {
        let mut folder = Folder::new();
        let noise = |folder: &mut Folder| {
            let items = folder.follower().poll(&folder.positions, 100, 1 << 20);
            for item in &items {
                let record = item.record();
                folder.positions.advance(&record.position.input, record.next_offset);
            }
            items.iter().map(|item| matches!(item, Item::Noise(_))).collect::<Vec<_>>()
        };
        let line = "[INFO] 2021-03-01 10:00:00,001 [x] y - several\nlines\n";
        folder.add(ONE, &format!("{line}{line}{{}}\n"));
        assert_eq!(noise(&mut folder), [true, true, true, true, false]);
        folder.add(ONE, "and one more\n");
        assert_eq!(noise(&mut folder), [true]);
    }

    /// B67, B68
    #[test]
    fn lines_are_read_once_through_midnight_and_restart() {
        let mut folder = Folder::new();
        let mut follower = folder.follower();
        assert_eq!(folder.poll(&mut follower), "");
        folder.add(ONE, "a\nb\nhalf");
        assert_eq!(folder.poll(&mut follower), "a b");
        assert!(follower.at_end());
        folder.add(ONE, " of it\n");
        assert_eq!(folder.poll(&mut follower), "half of it");
        folder.add(ONE, "torn");
        assert_eq!(folder.poll(&mut follower), "");
        folder.add(TWO, "c\n");
        assert_eq!(folder.poll(&mut follower), "c");
        assert_eq!(folder.poll_until(&mut follower), "torn");
        let mut follower = folder.follower();
        folder.add(TWO, "d\n");
        assert_eq!(folder.poll(&mut follower), "d");
    }

    /// Two nodes, or one before and after midnight: a line is whole however long another file grows meanwhile.
    #[test]
    fn files_that_grow_in_turns_give_whole_lines() {
        for other in ["CDR.2021-03-01_11-30-00.log", TWO] {
            let mut folder = Folder::new();
            let mut follower = folder.follower();
            folder.add(ONE, "a\n");
            folder.add(other, "b\n");
            assert_eq!(folder.poll(&mut follower).len(), 3);
            for _ in 0..10 {
                folder.add(ONE, "ha");
                folder.add(other, "whole\n");
                assert_eq!(folder.poll(&mut follower), "whole");
                folder.add(ONE, "lf\n");
                folder.add(other, "who");
                assert_eq!(folder.poll(&mut follower), "half");
                folder.add(other, "le\n");
                assert_eq!(folder.poll(&mut follower), "whole");
            }
        }
    }

    #[test]
    fn another_process_in_the_same_folder_does_not_end_a_line() {
        let mut folder = Folder::new();
        let mut follower = folder.follower();
        folder.add(ONE, "a\nhalf");
        folder.add("CDR.2021-03-01_11-30-00.log", "b\n");
        assert_eq!(folder.poll_until(&mut follower).len(), 3);
        assert_eq!(folder.poll_until(&mut follower), "");
        folder.add(ONE, " of it\n");
        assert_eq!(folder.poll(&mut follower), "half of it");
        folder.add(ONE, "torn");
        assert_eq!(folder.poll_until(&mut follower), "");
        fs::remove_file(folder.path(ONE)).unwrap();
        assert_eq!(folder.poll(&mut follower), "torn");
    }

    #[test]
    fn a_renamed_file_is_the_same_and_a_new_one_of_its_name_is_another() {
        let mut folder = Folder::new();
        let mut follower = folder.follower();
        folder.add(ONE, "a\n");
        assert_eq!(folder.poll(&mut follower), "a");
        folder.add(ONE, "b\n");
        fs::rename(folder.path(ONE), folder.path("elsewhere")).unwrap();
        folder.add(ONE, "c\n");
        assert_eq!(folder.poll(&mut follower), "b c");
        fs::remove_file(folder.path(ONE)).unwrap();
        folder.add(ONE, "d\n");
        assert_eq!(folder.poll(&mut follower), "d");
    }

    #[test]
    fn a_file_begun_anew_in_place_is_another_input() {
        let mut folder = Folder::new();
        let mut follower = folder.follower();
        folder.add(ONE, "a long line\nand another\n");
        assert_eq!(folder.poll(&mut follower), "a long line and another");
        fs::write(folder.path(ONE), "new\n").unwrap();
        assert_eq!(folder.poll(&mut follower), "new");
    }

    #[test]
    fn what_is_too_much_for_one_poll_comes_with_the_next() {
        let mut folder = Folder::new();
        let mut follower = folder.follower();
        folder.add(ONE, "a\nb\nc\n");
        assert_eq!(follower.poll(&folder.positions, 2, 1 << 20).len(), 2);
        assert!(!follower.at_end());
        assert_eq!(follower.behind().count(), 1);
        assert_eq!(folder.poll(&mut follower), "c");
        assert_eq!(follower.behind().count(), 0);
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("CDR.*.log", ONE, true),
            ("CDR.*.log", "CDR.x.log.1", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "aXbYbZc", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
