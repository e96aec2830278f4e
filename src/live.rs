//! What is going on at this moment: a picture of the open sessions, made by the lane for the page, the API and the gauges:
//! after a cycle, but at most twice a second, and every 10 s while nothing is read. Nobody else looks into the fold.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::search::words;
use crate::sessions::browser::Visitor;
use crate::sessions::facts::Hasher;

/// Sessions in one picture, those with problems first, then those with the newest events; the totals count all.
pub const SESSIONS_MAX: usize = 10_000;
/// The first of them, which are listed where none is looked for.
pub const LISTED_MAX: usize = 500;
/// People of one session who are found by name.
pub const PEOPLE_MAX: usize = 200;
/// Participants of a session up to which the sizes of sessions are told apart.
pub const SIZES: [u64; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256];

/// Recordings in [`Live::awaited`].
pub const AWAITED_MAX: usize = 100;

/// Clusters of one source that are told apart in the totals; all others are [`OTHER_CLUSTER`] together. Events name them, so
/// there may be any number.
pub const CLUSTERS_MAX: usize = 64;
/// What clusters beyond [`CLUSTERS_MAX`] are called.
pub const OTHER_CLUSTER: &str = "other";

/// The open sessions at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Clock of the lane, milliseconds since 1970.
    pub at: i64,
    /// When the picture was made, milliseconds since 1970; 0: there is none yet.
    pub made_at: i64,
    /// Whether all that had come by then is in it.
    #[serde(skip)]
    pub is_current: bool,
    /// Of all open sessions.
    pub totals: Totals,
    /// How many of all have problems.
    pub troubled: u64,
    /// Those with problems first, then by the newest event. At most [`SESSIONS_MAX`].
    pub sessions: Vec<Arc<LiveSession>>,
    /// Every open session, also those that are not in the picture.
    #[serde(skip)]
    pub open: Vec<OpenSession>,
    /// Recordings that have stopped some time ago and of which no end is known yet: the newest [`AWAITED_MAX`].
    #[serde(skip)]
    pub awaited: Vec<AwaitedRecording>,
    /// The same totals by source and cluster, for the gauges. Of each source at most [`CLUSTERS_MAX`] clusters and the rest.
    #[serde(skip)]
    pub shares: Vec<Share>,
}

/// An open session by which nothing can be told but that it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpenSession {
    /// [`hash`](Self::hash) of its cluster and `sessionId`.
    pub id: u64,
    /// When it began, milliseconds since 1970; 0 if the start was missed.
    pub start: i64,
}

impl OpenSession {
    /// What a session is called here: clusters may have sessions of one name at once.
    #[must_use]
    pub fn hash(cluster_id: &str, session_id: &str) -> u64 {
        let mut hasher = Hasher::new("open");
        hasher.text(cluster_id);
        hasher.text(session_id);
        hasher.digest()
    }
}

/// A recording whose end is missed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AwaitedRecording {
    /// The application's name for its session.
    pub session_id: Box<str>,
    /// `uniqueSessionId`, where events carry it.
    pub unique_session_id: Option<Box<str>>,
    /// Its id.
    pub id: Box<str>,
    /// When it began, milliseconds since 1970.
    pub start: i64,
}

/// How many are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What one source tells of one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// A `[sources.NAME]`.
    pub source: String,
    /// Empty if none is known.
    pub cluster_id: String,
    /// Open sessions and what is in them.
    pub totals: Totals,
    /// Sessions with at most so many connections as [`SIZES`] says; the last: with more.
    pub sizes: [u64; SIZES.len() + 1],
}

/// One open session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveSession {
    /// The application's name for it.
    pub session_id: String,
    /// The name that is never used twice.
    pub unique_session_id: String,
    /// Empty if none is known.
    pub cluster_id: String,
    /// A `[sources.NAME]` that has told of it: of several the first by name. Empty where an instance of an older version has it.
    #[serde(default)]
    pub source: String,
    /// Milliseconds since 1970; absent if the start was missed.
    pub created_at: Option<i64>,
    /// Time of the newest event.
    pub last_event_at: i64,
    /// Since when the platform's REST API has not shown it any more, milliseconds since 1970; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<i64>,
    /// Users with an open connection.
    pub users: u64,
    /// Open of each kind.
    #[serde(flatten)]
    pub open: Totals,
    /// Codes as in `sessionSummary.problems`.
    pub problems: Vec<Cow<'static, str>>,
    /// The same in sentences, as `sessionSummary.problemDetails`; empty: there are none.
    #[serde(skip)]
    pub problem_details: String,
    /// By what each connection is found: its user and what the client said about itself. At most [`PEOPLE_MAX`].
    #[serde(skip)]
    pub people: Vec<String>,
    /// The open connections, by which the session is found where it is open, each with its user. At most [`PEOPLE_MAX`].
    #[serde(skip)]
    pub present: BTreeMap<String, String>,
    /// All open connections as reports of browsers name them.
    #[serde(skip)]
    pub visitors: Vec<Visitor>,
}

impl Live {
    /// Counts one open session in the totals and in those of its source and cluster.
    pub fn count(&mut self, source: &str, cluster_id: &str, own: Totals) {
        self.totals.add(own);
        let of_source = self.shares.iter().filter(|share| share.source == source);
        let is_known = of_source.clone().any(|share| share.cluster_id == cluster_id);
        let cluster_id =
            if is_known || of_source.count() < CLUSTERS_MAX { cluster_id } else { OTHER_CLUSTER };
        let is = |share: &Share| share.source == source && share.cluster_id == cluster_id;
        let at = self.shares.iter().position(is).unwrap_or_else(|| {
            let (source, cluster_id) = (source.to_owned(), cluster_id.to_owned());
            self.shares.push(Share { source, cluster_id, ..Share::default() });
            self.shares.len() - 1
        });
        if let Some(share) = self.shares.get_mut(at) {
            share.totals.add(own);
            let size = SIZES.iter().position(|most| own.connections <= *most);
            if let Some(count) = share.sizes.get_mut(size.unwrap_or(SIZES.len())) {
                *count += 1;
            }
        }
    }
}

impl Live {
    /// One picture of several lanes.
    #[must_use]
    pub fn merged(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::default();
        for part in parts {
            whole.at = whole.at.max(part.at);
            whole.totals.add(part.totals);
            whole.troubled += part.troubled;
            whole.sessions.extend(part.sessions);
            whole.open.extend(part.open);
            whole.awaited.extend(part.awaited);
            for share in part.shares {
                whole.add_share(share);
            }
        }
        whole.sessions.sort_by_key(|session| session.place());
        whole.sessions.truncate(SESSIONS_MAX);
        whole.awaited.sort_by_key(|recording| Reverse(recording.start));
        whole.awaited.truncate(AWAITED_MAX);
        whole
    }

    /// The sessions that are listed where none is looked for.
    #[must_use]
    pub fn listed(&self) -> &[Arc<LiveSession>] {
        self.sessions.get(..LISTED_MAX).unwrap_or(&self.sessions)
    }

    fn add_share(&mut self, share: Share) {
        let is_same = |known: &&mut Share| {
            known.source == share.source && known.cluster_id == share.cluster_id
        };
        match self.shares.iter_mut().find(is_same) {
            Some(known) => {
                known.totals.add(share.totals);
                for (count, more) in known.sizes.iter_mut().zip(share.sizes) {
                    *count += more;
                }
            }
            None => self.shares.push(share),
        }
    }
}

impl Totals {
    /// Adds `other`.
    pub fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.connections += other.connections;
        self.publishers += other.publishers;
        self.subscribers += other.subscribers;
        self.recordings += other.recordings;
    }
}

impl LiveSession {
    /// By which it has its place among others.
    pub(crate) fn place(&self) -> (bool, Reverse<i64>) {
        (!self.is_troubled(), Reverse(self.last_event_at))
    }

    /// Whether anything has gone wrong.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Whether every word of `text` is the beginning of one by which the session or somebody in it is found. A text without words
    /// finds nothing, unless it is empty.
    #[must_use]
    pub fn is_found_by(&self, text: &str) -> bool {
        let names = [&self.session_id, &self.unique_session_id];
        let names = names.into_iter().chain(&self.people).chain(self.present.keys());
        let known: Vec<String> = names.flat_map(|name| words(name)).collect();
        let wanted = words(text);
        let is_known = |word: &String| known.iter().any(|known| known.starts_with(word));
        text.is_empty() || (!wanted.is_empty() && wanted.iter().all(is_known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_session_is_found_by_its_name_and_by_its_people() {
        let session = LiveSession {
            session_id: "daily-standup".into(),
            unique_session_id: "daily-standup_17".into(),
            people: vec!["u7 {\"clientData\":\"Zoë Quinn\"}".into()],
            present: [("con_AbC".into(), "u7".into())].into(),
            ..LiveSession::default()
        };
        for text in ["", "daily", "STAND", "quinn", "zoë daily", "u7", "con_abc"] {
            assert!(session.is_found_by(text), "{text}");
        }
        for text in ["ily", "zoe", "quinn nobody", "!!!"] {
            assert!(!session.is_found_by(text), "{text}");
        }
    }

    #[test]
    fn of_many_the_ones_with_problems_and_the_newest_come_first() {
        let lane = |sessions: &[(&str, i64, bool)]| {
            let shown = |(id, last_event_at, is_bad): &(&str, i64, bool)| LiveSession {
                session_id: (*id).to_owned(),
                last_event_at: *last_event_at,
                problems: is_bad.then_some("iceFailed".into()).into_iter().collect(),
                ..LiveSession::default()
            };
            let sessions = sessions.iter().map(|told| Arc::new(shown(told))).collect();
            Live { sessions, ..Live::default() }
        };
        let many: Vec<_> = (0..10_000).map(|at| ("many", at, false)).collect();
        let live = Live::merged([
            lane(&many),
            lane(&[("old", 1, true), ("quiet", -1, false), ("new", 20_000, false)]),
        ]);
        let ids: Vec<_> = live.sessions.iter().map(|shown| &*shown.session_id).collect();
        assert_eq!((ids.len(), ids[..3].to_vec()), (SESSIONS_MAX, vec!["old", "new", "many"]));
        assert!(!ids.contains(&"quiet"));
        assert_eq!(live.listed().len(), LISTED_MAX);
    }

    #[test]
    fn shares_add_up_to_the_totals() {
        let mut live = Live::default();
        let own = |connections| Totals { sessions: 1, connections, ..Totals::default() };
        live.count("a", "", own(2));
        live.count("a", "", own(1000));
        live.count("b", "x", own(0));
        assert_eq!(live.totals, Totals { sessions: 3, connections: 1002, ..Totals::default() });
        assert_eq!((live.shares.len(), live.shares[0].totals.connections), (2, 1002));
        let sizes = &live.shares[0].sizes;
        assert_eq!((sizes[1], sizes[SIZES.len()], sizes.iter().sum::<u64>()), (1, 1, 2));
    }

    #[test]
    fn clusters_beyond_the_bound_are_counted_together() {
        let mut live = Live::default();
        let own = Totals { sessions: 1, ..Totals::default() };
        for turn in [1, 2] {
            for cluster in 0..CLUSTERS_MAX + 5 {
                live.count("a", &format!("c{cluster}"), own);
            }
            assert_eq!(live.shares.len(), CLUSTERS_MAX + 1);
            let last = live.shares.last().unwrap();
            assert_eq!((&*last.cluster_id, last.totals.sessions), (OTHER_CLUSTER, 5 * turn));
        }
        live.count("b", "c70", own);
        assert_eq!(live.shares.last().unwrap().cluster_id, "c70");
    }
}
