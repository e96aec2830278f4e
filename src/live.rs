//! What is going on at this moment: a picture of the open sessions, made by the lane after every cycle for the page, the API
//! and the gauges. Nobody else looks into the fold.

use serde::Serialize;

/// Sessions listed in one picture, those with the newest events; the totals count all.
pub const SESSIONS_MAX: usize = 500;

/// The open sessions after a cycle.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Clock of the lane, milliseconds since 1970.
    pub at: i64,
    /// Of all open sessions.
    pub totals: Totals,
    /// Newest event first.
    pub sessions: Vec<LiveSession>,
}

/// How many are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Sessions with an event and without an end.
    pub sessions: u64,
    /// Connections in them.
    pub connections: u64,
    /// Streams that somebody sends.
    pub publishers: u64,
    /// Streams that somebody receives.
    pub subscribers: u64,
    /// Recordings under way.
    pub recordings: u64,
}

/// One open session.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveSession {
    /// The application's name for it.
    pub session_id: String,
    /// The name that is never used twice.
    pub unique_session_id: String,
    /// Empty if none is known.
    pub cluster_id: String,
    /// Milliseconds since 1970; absent if the start was missed.
    pub created_at: Option<i64>,
    /// Time of the newest event.
    pub last_event_at: i64,
    /// Users with an open connection.
    pub users: u64,
    /// Open of each kind.
    #[serde(flatten)]
    pub open: Totals,
    /// Codes as in `sessionSummary.problems`.
    pub problems: Vec<&'static str>,
}
