//! Saving and restoring: one record for every entity, so that a save costs what has changed.
//!
//! Key and value are `postcard` encodings of (`SessionKey`, `EntityKey`) and of the entity. The format's version stands in
//! the checkpoint.

use super::state::{Connection, EntityKey, Head, Recording, Session, SessionKey, Stream};
use super::{Closed, Limits, Sessions, deadline};

/// An entity to be saved, or to be deleted where there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: Vec<u8>,
    /// Its state.
    pub value: Option<Vec<u8>>,
}

/// Why saved entities cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("saved state of a session cannot be read: {0}")]
pub struct RestoreError(#[from] postcard::Error);

impl Sessions {
    /// What has changed since the last call; what is gone is dropped.
    ///
    /// # Errors
    ///
    /// None that is known: encoding into memory does not fail.
    pub fn changes(&mut self) -> Result<Vec<Change>, RestoreError> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.changed) {
            let Some(session) = self.open.get_mut(&key) else { continue };
            for entity in std::mem::take(&mut session.changed) {
                let value = encode(session, self.closed.get(&key), &entity)?;
                changes.push(Change { key: postcard::to_stdvec(&(&key, &entity))?, value });
            }
            if session.is_gone() {
                self.open.remove(&key);
            }
        }
        Ok(changes)
    }

    /// Takes in saved entities, in any order.
    ///
    /// # Errors
    ///
    /// If one cannot be decoded.
    pub fn restore<'a>(
        limits: Limits,
        forgets: bool,
        saved: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, RestoreError> {
        let mut sessions = Self::new(limits, forgets);
        for (key, value) in saved {
            sessions.restore_one(key, value)?;
        }
        sessions.restored();
        Ok(sessions)
    }

    /// Takes in one saved entity. Call [`restored`](Self::restored) after the last.
    ///
    /// # Errors
    ///
    /// If it cannot be decoded.
    pub fn restore_one(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let (key, entity): (SessionKey, EntityKey) = postcard::from_bytes(key)?;
        if entity == EntityKey::Closed {
            self.closed.insert(key, postcard::from_bytes::<Closed>(value)?);
            return Ok(());
        }
        let session = self.open.entry(key).or_default();
        match entity {
            EntityKey::Head => session.head = postcard::from_bytes::<Head>(value)?,
            EntityKey::Connection(id) => {
                session.connections.insert(id, postcard::from_bytes::<Connection>(value)?);
            }
            EntityKey::Stream(stream) => {
                session.streams.insert(stream, postcard::from_bytes::<Stream>(value)?);
            }
            EntityKey::Recording(recording) => {
                session.recordings.insert(recording, postcard::from_bytes::<Recording>(value)?);
            }
            EntityKey::Closed => {}
        }
        Ok(())
    }

    /// Sets the timers of everything taken in.
    pub fn restored(&mut self) {
        for (key, session) in &self.open {
            self.timers.set(key, deadline(session, key, &self.limits));
        }
        for (key, closed) in &self.closed {
            if let Some(until) = closed.spans.iter().map(|span| span.2).min() {
                let session =
                    self.open.get(key).map(|session| deadline(session, key, &self.limits));
                self.timers.set(key, until.min(session.unwrap_or(i64::MAX)));
            }
        }
    }
}

fn encode(
    session: &Session,
    closed: Option<&Closed>,
    entity: &EntityKey,
) -> Result<Option<Vec<u8>>, postcard::Error> {
    match entity {
        EntityKey::Head if session.is_gone() => None,
        EntityKey::Head => Some(postcard::to_stdvec(&session.head)),
        EntityKey::Connection(id) => session.connections.get(id).map(postcard::to_stdvec),
        EntityKey::Stream(key) => session.streams.get(key).map(postcard::to_stdvec),
        EntityKey::Recording(key) => session.recordings.get(key).map(postcard::to_stdvec),
        EntityKey::Closed => closed.map(postcard::to_stdvec),
    }
    .transpose()
}
