//! Sinks: where documents go.
//!
//! A sink stores every [`Document`] under its id and answers for each of them. Documents with a version replace older
//! ones, whatever the order in which they arrive; documents without one are written once and never change. So writing
//! the same documents again changes nothing, which is what a restart relies on.
//!
//! [`Sink::write`] returns when *every* document has its answer, however long the store is away: waiting, splitting,
//! slowing down and trying again belong to the sink, because only it knows what an answer of its store means.

use std::future::Future;

use chrono::{Datelike, TimeZone, Utc};
use tokio::sync::watch;

use crate::config::{ElasticsearchConfig, Period};
use crate::document::Document;

pub mod elasticsearch;
pub mod embedded;
pub mod stdout;

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is in the store.
    Stored,
    /// A raw document with this id was there already.
    Existed,
    /// A summary with a newer version was there already.
    Older,
    /// The store will never take it; the reason is for the dead letter.
    Dead(Box<str>),
}

/// Why a sink gave up.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The service is stopping. Nothing is known of the documents; they will be written again after the restart.
    #[error("stopped while writing")]
    Stopped,
    /// Whoever read the documents wants no more of them (`| head`).
    #[error("nobody reads what is written")]
    Unread,
    /// Standard output takes nothing more: a full disk, as a rule.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// No waiting helps: an operator has to change something first. The message says what.
    #[error("{0:#}")]
    Misconfigured(anyhow::Error),
}

/// Whether the store takes documents at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SinkStatus {
    /// It does, as far as is known.
    #[default]
    Accepting,
    /// It is asked for the first time, and has not answered yet.
    Untried,
    /// It is away or busy; tried again by itself.
    Waiting(String),
    /// Somebody has to cure something; goes on by itself then.
    Paused(String),
}

/// Tells and reads a [`SinkStatus`].
pub type StatusSender = watch::Sender<SinkStatus>;

/// A store for documents.
pub trait Sink: Send + Sync {
    /// Creates what the store needs before the first write. Doing it again changes nothing. Waits for a store that is away, or
    /// does not know or allow the account yet, and tells so by its [`SinkStatus`].
    ///
    /// # Errors
    ///
    /// [`SinkError::Misconfigured`] if no waiting helps, [`SinkError::Stopped`] if the service stops meanwhile.
    fn setup(&self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Stores `documents` and answers for each of them, in their order. Durable when it returns.
    ///
    /// # Errors
    ///
    /// Only if it gave up as a whole; then nothing may be concluded about any document.
    fn write(
        &self,
        documents: &[Document],
    ) -> impl Future<Output = Result<Vec<Written>, SinkError>> + Send;
}

/// The index of a document: a function of its `index_time` alone.
#[must_use]
pub fn index_name(config: &ElasticsearchConfig, index_time: i64) -> String {
    let time = Utc.timestamp_millis_opt(index_time).single().unwrap_or_default();
    let (year, month, day) = (time.year(), time.month(), time.day());
    match config.period {
        Period::Month => format!("{}-events-{year:04}.{month:02}", config.index),
        Period::Day => format!("{}-events-{year:04}.{month:02}.{day:02}", config.index),
        Period::None => config.index.clone(),
    }
}
