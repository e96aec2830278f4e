//! Reading what was stored: one small query, answered alike by the embedded index and by Elasticsearch.

use serde_json::value::RawValue;

/// What to look for. Conditions are all to be met.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Field and the values of which it must have one, exactly. A field is named as in the document, with dots for nested ones
    /// (`client.browser`).
    pub filters: Vec<(String, Vec<String>)>,
    /// Smallest `timestamp`, in milliseconds since 1970.
    pub from: Option<i64>,
    /// First `timestamp` not wanted any more.
    pub to: Option<i64>,
    /// Words looked for, as prefixes and without regard to case, in the names a person knows: `sessionId`,
    /// `uniqueSessionId`, `user`, `id`, `connectionId`, `clientData`, `location`, `reason`. Empty: everything.
    pub text: String,
    /// Order by `timestamp`, then `_id`.
    pub order: Order,
    /// Documents wanted, at most [`LIMIT_MAX`].
    pub limit: usize,
    /// Documents to leave out first, at most 10 000 together with `limit`.
    pub offset: usize,
}

/// Most documents of one answer.
pub const LIMIT_MAX: usize = 1000;

/// By `timestamp`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    #[default]
    Newest,
    /// Oldest first.
    Oldest,
}

/// The answer.
#[derive(Debug, Default)]
pub struct Page {
    /// How many documents meet the conditions (at least; counted exactly up to 10 000).
    pub total: u64,
    /// The documents as they were written, each with its `_id` beside it.
    pub documents: Vec<Found>,
}

/// One document found.
#[derive(Debug)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Its content, unchanged.
    pub source: Box<RawValue>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The question is at fault; the text says how.
    #[error("{0}")]
    Refused(String),
    /// The index cannot be asked at the moment.
    #[error("the index does not answer: {0:#}")]
    Unavailable(anyhow::Error),
}
