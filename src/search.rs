//! Reading what was stored: one small query, answered by the embedded index and by Elasticsearch. Only words and documents
//! of one time are where the two differ.

use std::borrow::Cow;
use std::str::FromStr;

use serde_json::value::RawValue;

use crate::document::fields::{self, Holds};

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
    /// Words looked for in [`WORDS`], without regard to case; each has to be in one of them. The embedded index cuts them as
    /// [`words`] does and finds them by their beginnings; Elasticsearch keeps those fields whole, so there words end at blanks
    /// and are found anywhere in a field. Empty: everything.
    pub text: String,
    /// What comes first; of equals the newest, and documents of one time stand in no promised order.
    pub sort: Sort,
    /// Documents wanted, at most [`LIMIT_MAX`].
    pub limit: usize,
    /// Documents to leave out first, at most 10 000 together with `limit`.
    pub offset: usize,
}

/// Most documents of one answer.
pub const LIMIT_MAX: usize = 1000;
/// Documents beyond this place are not reached by paging.
pub const REACH_MAX: usize = 10_000;
/// Fields in which a person's words are looked for.
pub const WORDS: [&str; 8] = [
    "sessionId",
    "uniqueSessionId",
    "user",
    "id",
    "connectionId",
    "clientData",
    "location",
    "reason",
];

impl Search {
    /// Whether an index may be asked this.
    ///
    /// # Errors
    ///
    /// [`SearchError::Refused`] if it wants more than can be given.
    pub fn check(&self) -> Result<(), SearchError> {
        if self.limit <= LIMIT_MAX && self.limit.saturating_add(self.offset) <= REACH_MAX {
            return Ok(());
        }
        Err(SearchError::Refused(format!(
            "at most {LIMIT_MAX} documents at a time, and none beyond the first {REACH_MAX}"
        )))
    }
}

/// The words that are looked for in a text: letters and digits, in lower case.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let words = text.split(|character: char| !character.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// What documents are ordered by; those without a value come last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// A text, a date, a number or a flag.
    pub field: Cow<'static, str>,
    /// Whether the smallest, earliest or first in the alphabet comes first.
    pub is_rising: bool,
}

impl Sort {
    /// By time, the earliest first.
    #[must_use]
    pub fn oldest() -> Self {
        Self { is_rising: true, ..Self::default() }
    }
}

/// By time, the latest first.
impl Default for Sort {
    fn default() -> Self {
        Self { field: Cow::Borrowed("timestamp"), is_rising: false }
    }
}

/// As addresses write it: `duration:down`, `timestamp:up`.
impl FromStr for Sort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (field, way) = text.rsplit_once(':').ok_or(())?;
        let is_rising = match way {
            "up" => true,
            "down" => false,
            _ => return Err(()),
        };
        match fields::find(field).ok_or(())? {
            Holds::Text | Holds::Date | Holds::Number(_) | Holds::Whole(_) | Holds::Flag => {
                Ok(Self { field: field.to_owned().into(), is_rising })
            }
            Holds::Point | Holds::Span | Holds::Unsearched => Err(()),
        }
    }
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
    /// Documents go where they cannot be asked for.
    #[error("sink.kind is stdout: nothing is stored that could be searched")]
    Nowhere,
    /// The servers do not let callscope read.
    #[error("the index refuses to answer: {0}")]
    Denied(String),
    /// The index cannot be asked at the moment.
    #[error("the index does not answer: {}", crate::logging::chain(.0))]
    Unavailable(anyhow::Error),
}
