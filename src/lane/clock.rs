//! The clock of an input: how late it is in the world that the events tell of.
//!
//! It follows the newest server-side event time, never goes back and never runs more than a minute ahead of the wall. While
//! the input has been read to its end and the sink accepts, time spent waiting is added; a restart, a backlog and a pause add
//! nothing, so nothing falls silent because callscope was away.

use serde::{Deserialize, Serialize};

use crate::event::{Body, Event, Kind, Seen};

/// How far a sender's clock may be ahead of ours and still be believed, in milliseconds.
const AHEAD_MAX: i64 = 60_000;

/// Clock of one input, saved with its position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Milliseconds since 1970; 0 before the first event.
    now: i64,
    /// Whether an event timed by the server itself has been read.
    served: bool,
}

impl Clock {
    /// What it shows, milliseconds since 1970.
    #[must_use]
    pub fn now(self) -> i64 {
        self.now
    }

    /// Takes in an event read from the input.
    pub fn observe(&mut self, event: &Event<'_>, wall: i64) {
        let by_server = matches!(&event.kind, Kind::Cdr(name) if name != "filterEventDispatched");
        // That a session is still shown is told of one after the other: by the first, the others are not older.
        let is_presence = matches!(event.body, Body::Seen(Seen::Presence { .. }));
        if self.served && !by_server || is_presence && self.now > 0 {
            return;
        }
        self.served |= by_server;
        self.now = self.now.max(event.time.min(wall.saturating_add(AHEAD_MAX)));
    }

    /// Adds time spent waiting at the end of the input.
    pub fn wait(&mut self, elapsed: i64, wall: i64) {
        if self.now > 0 {
            self.now =
                self.now.max((self.now + elapsed.max(0)).min(wall.saturating_add(AHEAD_MAX)));
        }
    }
}
