//! Saving and restoring: one record for every entity, so that a save costs what has changed.
//!
//! Key and value are `postcard` encodings of (`SessionKey`, `EntityKey`) and of the entity. The format's version stands in
//! the checkpoint.

use super::Sessions;
use super::state::{
    Closed, Connection, EntityKey, Head, Recording, Session, SessionKey, SessionName, Stream,
};

/// An entity to be saved, or to be deleted where there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: Vec<u8>,
    /// Its state.
    pub value: Option<Vec<u8>>,
}

/// Why the state of a session cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[error("the state of a session cannot be encoded or decoded: {0}")]
pub struct StateError(#[from] postcard::Error);

impl Sessions {
    /// What has changed since the last call; what is gone is dropped.
    ///
    /// # Errors
    ///
    /// None that is known: encoding into memory does not fail.
    pub fn changes(&mut self) -> Result<Vec<Change>, StateError> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.unsaved) {
            let mut change = |entity: &EntityKey, value: Option<Vec<u8>>| {
                changes.push(Change { key: postcard::to_stdvec(&(&key, entity))?, value });
                Ok::<_, StateError>(())
            };
            let Some(session) = self.open.get_mut(&key) else {
                let closed = self.closed.get(&key).map(postcard::to_stdvec).transpose()?;
                change(&EntityKey::Closed, closed)?;
                continue;
            };
            session.is_unsaved = false;
            for entity in std::mem::take(&mut session.removed) {
                change(&entity, None)?;
            }
            session.each_unsaved(&mut change)?;
            if session.is_gone() {
                let Some(session) = self.open.remove(&key) else { continue };
                self.keep_closed(key, session.closed);
            }
        }
        Ok(changes)
    }

    /// Takes in one saved entity. Call [`restored`](Self::restored) after the last.
    ///
    /// # Errors
    ///
    /// If it cannot be decoded.
    pub fn restore_one(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let (key, entity): (SessionKey, EntityKey) = postcard::from_bytes(key)?;
        let session = self.open.entry(key).or_default();
        let before = session.entities;
        session.restore(entity, value)?;
        self.entities = self.entities + session.entities - before;
        Ok(())
    }

    /// Has everything that was taken in looked at by the clock.
    pub fn restored(&mut self) {
        let keys: Vec<SessionKey> = self.open.keys().cloned().collect();
        for key in keys {
            if self.open.get(&key).is_some_and(Session::is_gone) {
                let session = self.open.remove(&key).unwrap_or_default();
                self.keep_closed(key, session.closed);
            } else {
                self.wake(&key, i64::MIN);
            }
        }
    }

    /// Marks everything as unsaved, for a store that has nothing yet.
    pub fn touch_all(&mut self) {
        for (key, session) in &mut self.open {
            session.touch();
            self.unsaved.push(key.clone());
        }
    }

    /// Takes out the sessions that were quiet longest, all that are due excepted, until `entities_max` entities are left.
    pub(crate) fn take_quiet(&mut self, entities_max: usize) -> Vec<(SessionKey, Session)> {
        let mut quiet: Vec<(i64, &SessionKey)> = self
            .open
            .iter()
            .filter(|(_, session)| !session.is_due)
            .map(|(key, session)| (session.head.newest, key))
            .collect();
        quiet.sort_unstable();
        let mut left = self.entities;
        let keys: Vec<SessionKey> = quiet
            .into_iter()
            .take_while(|(_, key)| {
                let goes = left > entities_max;
                left -= self.open.get(*key).map_or(0, |session| session.entities);
                goes
            })
            .map(|(_, key)| key.clone())
            .collect();
        let taken: Vec<_> = keys
            .into_iter()
            .filter_map(|key| self.open.remove(&key).map(|session| (key, session)))
            .collect();
        self.entities -= taken.iter().map(|(_, session)| session.entities).sum::<usize>();
        taken
    }

    /// Takes back a session that was taken out.
    pub(crate) fn put_back(&mut self, name: SessionName<'_>, session: Session) {
        self.entities += session.entities;
        self.open.insert(SessionKey::from(&name), session);
    }
}

impl Session {
    /// Gives every entity with changes to `each`, encoded; they count as saved then. Nothing is given of what is gone, so
    /// that it is deleted.
    fn each_unsaved(
        &mut self,
        each: &mut impl FnMut(&EntityKey, Option<Vec<u8>>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let is_gone = self.is_gone();
        if std::mem::take(&mut self.head.unsaved) {
            let head = (!is_gone).then(|| postcard::to_stdvec(&self.head)).transpose()?;
            each(&EntityKey::Head, head)?;
        }
        if std::mem::take(&mut self.closed.unsaved) {
            let is_empty = self.closed.spans.is_empty() && is_gone;
            let closed = (!is_empty).then(|| postcard::to_stdvec(&self.closed)).transpose()?;
            each(&EntityKey::Closed, closed)?;
        }
        for (id, connection) in &mut self.connections {
            if std::mem::take(&mut connection.unsaved) {
                let value = postcard::to_stdvec(&**connection)?;
                each(&EntityKey::Connection(id.clone()), Some(value))?;
            }
            for stream in &mut connection.streams {
                if std::mem::take(&mut stream.unsaved) {
                    let key = EntityKey::Stream(
                        id.clone(),
                        stream.outbound,
                        stream.id.clone(),
                        stream.start,
                    );
                    each(&key, Some(postcard::to_stdvec(stream)?))?;
                }
            }
            for endpoint in &mut connection.endpoints {
                if std::mem::take(&mut endpoint.unsaved) {
                    let key = EntityKey::Endpoint(id.clone(), endpoint.name.clone());
                    each(&key, Some(postcard::to_stdvec(endpoint)?))?;
                }
            }
        }
        for (key, recording) in &mut self.recordings {
            if std::mem::take(&mut recording.unsaved) {
                let value = postcard::to_stdvec(recording)?;
                each(&EntityKey::Recording(key.clone()), Some(value))?;
            }
        }
        Ok(())
    }

    fn touch(&mut self) {
        self.is_unsaved = true;
        self.head.unsaved = true;
        self.closed.unsaved = true;
        for connection in self.connections.values_mut() {
            connection.unsaved = true;
            connection.streams.iter_mut().for_each(|stream| stream.unsaved = true);
            connection.endpoints.iter_mut().for_each(|endpoint| endpoint.unsaved = true);
        }
        self.recordings.values_mut().for_each(|recording| recording.unsaved = true);
    }

    fn restore(&mut self, entity: EntityKey, value: &[u8]) -> Result<(), StateError> {
        match entity {
            EntityKey::Head => self.head = postcard::from_bytes::<Head>(value)?,
            EntityKey::Closed => self.closed = postcard::from_bytes::<Closed>(value)?,
            EntityKey::Connection(id) => {
                let saved: Connection = postcard::from_bytes(value)?;
                let known = self.connection(&id);
                let streams = std::mem::take(&mut known.streams);
                let endpoints = std::mem::take(&mut known.endpoints);
                *known = Connection { streams, endpoints, ..saved };
            }
            EntityKey::Stream(connection, outbound, id, start) => {
                let saved: Stream = postcard::from_bytes(value)?;
                *self.stream(&connection, (outbound, &id, start)) = saved;
            }
            EntityKey::Endpoint(connection, name) => {
                *self.connection(&connection).endpoint_mut(&name) = postcard::from_bytes(value)?;
            }
            EntityKey::Recording(key) => {
                let saved: Recording = postcard::from_bytes(value)?;
                *self.recording(&key) = saved;
            }
        }
        Ok(())
    }

    /// The whole session as bytes.
    pub(crate) fn packed(mut self) -> Result<Vec<u8>, StateError> {
        let mut entities: Vec<(EntityKey, Vec<u8>)> = Vec::with_capacity(self.entities + 1);
        self.touch();
        self.each_unsaved(&mut |key, value| {
            entities.extend(value.map(|value| (key.clone(), value)));
            Ok(())
        })?;
        Ok(postcard::to_stdvec(&entities)?)
    }

    /// The session that [`packed`](Self::packed) made bytes of.
    pub(crate) fn unpacked(bytes: &[u8]) -> Result<Self, StateError> {
        let mut session = Self::default();
        for (key, value) in postcard::from_bytes::<Vec<(EntityKey, Vec<u8>)>>(bytes)? {
            session.restore(key, &value)?;
        }
        Ok(session)
    }
}
