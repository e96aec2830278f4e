//! Records: what an input hands over, before anybody has looked inside.
//!
//! Every input is a log that can be read again from an offset: the journal (offset = sequence number of the record) or a
//! CDR file (offset = byte). [`Position`] names one record for ever; [`Positions`] says, for every input, where to go on.
//! Positions are saved together with what was folded up to them, never apart from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The name of a log that stays the same for as long as its content does.
///
/// `journal/<uuid>` for the journal, `file/<device>-<inode>-<hash of the first line>` for a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Input(pub Arc<str>);

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where one record stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The log it is in.
    pub input: Input,
    /// Sequence number (journal) or byte of the first character (file).
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.input, self.offset)
    }
}

/// One message as received.
#[derive(Debug, Clone)]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// The offset to go on from once this record is dealt with.
    pub next_offset: u64,
    /// The `[sources.NAME]` it came by.
    pub source: Arc<str>,
    /// Its bytes, nothing removed.
    pub payload: Bytes,
}

/// For every input, the offset of the first record not yet dealt with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions(BTreeMap<Input, u64>);

impl Positions {
    /// Where to go on reading `input`; 0 for one never seen.
    #[must_use]
    pub fn next(&self, input: &Input) -> u64 {
        self.0.get(input).copied().unwrap_or(0)
    }

    /// Whether `input` was ever seen.
    #[must_use]
    pub fn knows(&self, input: &Input) -> bool {
        self.0.contains_key(input)
    }

    /// Notes that everything of `input` before `next_offset` is dealt with. Never moves back.
    pub fn advance(&mut self, input: &Input, next_offset: u64) {
        if let Some(offset) = self.0.get_mut(input) {
            *offset = (*offset).max(next_offset);
        } else {
            self.0.insert(input.clone(), next_offset);
        }
    }

    /// Every input with its next offset, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Input, u64)> {
        self.0.iter().map(|(input, offset)| (input, *offset))
    }
}
