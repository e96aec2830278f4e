//! `GET /api/live`: the open sessions, and each change as it happens, as server-sent events.
//!
//! The first message tells all open sessions, each later one what has changed since the one before. A connection holds one
//! picture, so whoever reads slowly misses nothing but pictures in between.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::App;
use super::api::{Reading, failure, now};
use crate::live::{Live, LiveSession, Totals};

/// How often something is sent while nothing happens: by it the page knows how old what it shows is, and proxies end connections that
/// are silent for a minute.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// People who came or went that one message names.
const PEOPLE_TOLD_MAX: usize = 50;

/// What has changed from one picture to the next.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change<'l> {
    /// Clock of the lane, milliseconds since 1970.
    at: i64,
    /// When the picture was made, milliseconds since 1970.
    made_at: i64,
    /// Of all open sessions.
    totals: Totals,
    /// How many of all have problems.
    troubled: u64,
    /// Sessions that are new or not as they were.
    changed: Vec<&'l LiveSession>,
    /// `uniqueSessionId` of those that are not listed any more.
    gone: Vec<&'l str>,
    /// Who came, and who went of sessions that go on.
    people: Vec<Moved<'l>>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Moved<'l> {
    session_id: &'l str,
    unique_session_id: &'l str,
    /// The user, and behind a blank what the client said about itself.
    who: &'l str,
    has_joined: bool,
}

fn change<'l>(before: &'l Live, now: &'l Live) -> Change<'l> {
    // What was not made anew is found the same without a look at it.
    let listed = |live: &'l Live| -> BTreeMap<&'l str, &'l Arc<LiveSession>> {
        live.listed().iter().map(|session| (&*session.unique_session_id, session)).collect()
    };
    let (old, new) = (listed(before), listed(now));
    let mut people = Vec::new();
    for (id, session) in &new {
        let known: BTreeSet<&String> = old.get(id).iter().flat_map(|old| &old.people).collect();
        let present: BTreeSet<&String> = session.people.iter().collect();
        let came = present.difference(&known).map(|who| (who, true));
        let went = known.difference(&present).map(|who| (who, false));
        for (who, has_joined) in came.chain(went).take(PEOPLE_TOLD_MAX.saturating_sub(people.len()))
        {
            people.push(Moved {
                session_id: &session.session_id,
                unique_session_id: id,
                who,
                has_joined,
            });
        }
    }
    Change {
        at: now.at,
        made_at: now.made_at,
        totals: now.totals,
        troubled: now.troubled,
        changed: new
            .iter()
            .filter(|(id, new)| old.get(*id) != Some(new))
            .map(|(_, new)| &***new)
            .collect(),
        gone: old.keys().filter(|id| !new.contains_key(*id)).copied().collect(),
        people,
    }
}

impl Change<'_> {
    fn is_nothing(&self) -> bool {
        self.changed.is_empty() && self.gone.is_empty() && self.people.is_empty()
    }
}

/// Nothing has changed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alive {
    /// Milliseconds since 1970.
    now: i64,
    /// When the last picture was made.
    made_at: i64,
}

/// One connection that is told.
struct Listener {
    pictures: watch::Receiver<Arc<Live>>,
    shown: Arc<Live>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// What is sent next; `None`: the server ends.
    async fn next(&mut self) -> Option<String> {
        let silent = tokio::time::Instant::now() + ALIVE_EVERY;
        loop {
            let changed = tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = tokio::time::timeout_at(silent, self.pictures.changed()) => changed,
            };
            match changed {
                Err(_) => {
                    let alive = Alive { now: now(), made_at: self.shown.made_at };
                    return Some(message("alive", &alive));
                }
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {}
            }
            let now = Arc::clone(&self.pictures.borrow_and_update());
            let before = std::mem::replace(&mut self.shown, now);
            let change = change(&before, &self.shown);
            if !change.is_nothing() || before.totals != self.shown.totals {
                return Some(message("change", &change));
            }
        }
    }
}

fn message(event: &str, told: &impl Serialize) -> String {
    let json = serde_json::to_string(told).unwrap_or_default();
    format!("event: {event}\ndata: {json}\n\n")
}

pub(super) async fn live(
    State(app): State<Arc<App>>,
    Extension(reading): Extension<Arc<Reading>>,
) -> Response {
    let Ok(place) = Arc::clone(&reading.listeners).try_acquire_owned() else {
        return failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many connections are told as things happen",
            "ask /api/sessions from time to time",
        );
    };
    let mut pictures = app.live.clone();
    let shown = Arc::clone(&pictures.borrow_and_update());
    let nothing = Live::default();
    let first = Change { people: Vec::new(), ..change(&nothing, &shown) };
    let first = message("all", &first);
    let listener = Listener { pictures, shown, stop: reading.stop.clone(), _place: place };
    let messages =
        futures_util::stream::unfold((Some(first), listener), async |(first, mut listener)| {
            let message = match first {
                Some(first) => first,
                None => listener.next().await?,
            };
            Some((Ok::<_, Infallible>(message), (None, listener)))
        });
    let head = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (head, Body::from_stream(messages)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(sessions: &[(&str, &[&str])]) -> Live {
        let session = |(id, people): &(&str, &[&str])| LiveSession {
            session_id: (*id).to_owned(),
            unique_session_id: format!("{id}_1"),
            people: people.iter().map(|who| (*who).to_owned()).collect(),
            ..LiveSession::default()
        };
        let sessions = sessions.iter().map(|told| Arc::new(session(told))).collect();
        Live { sessions, ..Live::default() }
    }

    #[test]
    fn a_change_tells_what_is_new_gone_and_who_moved() {
        let before = live(&[("a", &["ana", "bo"]), ("b", &["cy"]), ("c", &["di"])]);
        let now = live(&[("c", &["di"]), ("a", &["bo", "eve"]), ("d", &["flo"])]);
        let change = change(&before, &now);
        let changed: Vec<_> = change.changed.iter().map(|session| &*session.session_id).collect();
        assert_eq!((changed, &change.gone), (vec!["a", "d"], &vec!["b_1"]));
        let moved: Vec<_> = change
            .people
            .iter()
            .map(|moved| (moved.session_id, moved.who, moved.has_joined))
            .collect();
        assert_eq!(moved, [("a", "eve", true), ("a", "ana", false), ("d", "flo", true)]);
        assert!(super::change(&now, &now).is_nothing());
    }

    #[test]
    fn no_message_names_everybody() {
        let everybody: Vec<String> = (0..200).map(|who| format!("u{who}")).collect();
        let everybody: Vec<&str> = everybody.iter().map(String::as_str).collect();
        let now = live(&[("a", &everybody), ("b", &["cy"])]);
        assert_eq!(change(&live(&[]), &now).people.len(), PEOPLE_TOLD_MAX);
    }
}
