//! Documents: what is stored, under which id, in which index.

use bytes::Bytes;

/// Written instead of a document whose place is no longer needed. Nothing shows it.
pub const SUPERSEDED: &str = "superseded";

/// One document, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// At most 36 characters of `[0-9a-z]`; the same content always gets the same id.
    pub id: Box<str>,
    /// Milliseconds since 1970 that decide which index it belongs to: a raw event's own time, a summary's session start.
    pub index_time: i64,
    /// Its `elastic_type`, also part of `json`.
    pub elastic_type: Box<str>,
    /// `None`: a raw event, written once (`create`). `Some`: a summary, replaces any with a smaller or equal version.
    pub version: Option<u64>,
    /// The whole document as one line of JSON, an object without line breaks.
    pub json: Bytes,
}
