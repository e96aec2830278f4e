//! What an answer of Elasticsearch or OpenSearch means, decided by `error.type`, not by status alone.
//!
//! | answer | means |
//! |---|---|
//! | 2xx; 409 on create; 409 on an older version | done |
//! | item 429 of a full queue; 408, 500, 502–504; cut or odd body; another number of items | again |
//! | item 4xx of the document | never: a dead letter |
//! | request 400 or 413 | halve and try again; a single document that fails is a dead letter |
//! | 401, 403, a block, a missing index that may not be made, the shard limit | pause until somebody cures it |

use serde::Deserialize;

use crate::sink::Written;

/// What to do about one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing more.
    Done(Written),
    /// Send it again; whether the store said it is too busy.
    Again {
        /// What the store said.
        reason: String,
        /// Slow down.
        is_busy: bool,
    },
    /// Wait until somebody has cured it. `is_block`: of this index alone, perhaps.
    Pause {
        /// What the store said.
        reason: String,
        /// A block of the index.
        is_block: bool,
    },
}

/// What to do about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Each document has a verdict, in their order.
    Items(Vec<Verdict>),
    /// Send it in halves.
    Halve(String),
    /// All of it has this verdict.
    All(Verdict),
}

#[derive(Deserialize)]
struct Bulk {
    items: Vec<Item>,
}

#[derive(Deserialize)]
enum Item {
    #[serde(rename = "create")]
    Create(Answer),
    #[serde(rename = "index")]
    Index(Answer),
}

#[derive(Deserialize)]
struct Answer {
    status: u16,
    error: Option<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    caused_by: Option<Box<Cause>>,
}

#[derive(Deserialize)]
struct Refusal {
    error: Cause,
}

/// The verdict on a request of `count` documents.
#[must_use]
pub fn reply(status: u16, body: &[u8], count: usize) -> Reply {
    if status == 200 {
        return match serde_json::from_slice::<Bulk>(body) {
            Ok(bulk) if bulk.items.len() == count => {
                Reply::Items(bulk.items.into_iter().map(item).collect())
            }
            Ok(bulk) => again(format!("{} answers for {count} documents", bulk.items.len())),
            Err(error) => again(format!("an answer that cannot be read: {error}")),
        };
    }
    let cause = serde_json::from_slice::<Refusal>(body).ok().map(|refusal| refusal.error);
    let kind = cause.as_ref().map_or("", |cause| cause.kind.as_str());
    let told = cause.as_ref().map_or_else(
        || format!("status {status}"),
        |cause| format!("status {status}: {}", text(cause)),
    );
    match (status, kind) {
        (_, "cluster_block_exception") | (401 | 403, _) => {
            Reply::All(Verdict::Pause { reason: told, is_block: kind == "cluster_block_exception" })
        }
        (400, "validation_exception") if is_shard_limit(&told) => {
            Reply::All(Verdict::Pause { reason: told, is_block: false })
        }
        (400 | 413, _) => Reply::Halve(told),
        (404, _) => Reply::All(Verdict::Pause { reason: told, is_block: false }),
        (429, _) => Reply::All(Verdict::Again { reason: told, is_busy: true }),
        _ => again(told),
    }
}

fn again(reason: String) -> Reply {
    Reply::All(Verdict::Again { reason, is_busy: false })
}

fn item(item: Item) -> Verdict {
    let (answer, creates) = match item {
        Item::Create(answer) => (answer, true),
        Item::Index(answer) => (answer, false),
    };
    let kind = answer.error.as_ref().map_or("", |cause| cause.kind.as_str());
    let told = answer.error.as_ref().map_or_else(|| format!("status {}", answer.status), text);
    match (answer.status, kind) {
        (200..=299, _) => Verdict::Done(Written::Stored),
        (409, _) if creates => Verdict::Done(Written::Existed),
        (409, _) => Verdict::Done(Written::Older),
        (_, "cluster_block_exception") => Verdict::Pause { reason: told, is_block: true },
        (401 | 403, _) | (404, "index_not_found_exception") => {
            Verdict::Pause { reason: told, is_block: false }
        }
        (400, "validation_exception" | "illegal_argument_exception") if is_shard_limit(&told) => {
            Verdict::Pause { reason: told, is_block: false }
        }
        (429, _) => Verdict::Again { reason: told, is_busy: true },
        (400..=499, _) if answer.status != 408 => Verdict::Done(Written::Dead(told.into())),
        _ => Verdict::Again { reason: told, is_busy: false },
    }
}

fn is_shard_limit(told: &str) -> bool {
    told.contains("maximum") && told.contains("shards")
}

fn text(cause: &Cause) -> String {
    let mut told = cause.kind.clone();
    let inner = cause.caused_by.as_ref().and_then(|inner| inner.reason.as_deref());
    for part in [cause.reason.as_deref(), inner].into_iter().flatten() {
        told.push_str(": ");
        told.push_str(crate::json::prefix(part, 500));
    }
    told
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(action: &str, status: u16, kind: &str, reason: &str) -> Verdict {
        let body = format!(
            r#"{{"errors":true,"items":[{{"{action}":{{"status":{status},"error":{{"type":"{kind}","reason":"{reason}"}}}}}}]}}"#
        );
        match reply(200, body.as_bytes(), 1) {
            Reply::Items(mut items) => items.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn items_are_judged_by_their_error() {
        use Verdict::{Again, Done, Pause};
        assert_eq!(
            one("create", 409, "version_conflict_engine_exception", "x"),
            Done(Written::Existed)
        );
        assert_eq!(
            one("index", 409, "version_conflict_engine_exception", "x"),
            Done(Written::Older)
        );
        assert!(matches!(
            one("index", 400, "document_parsing_exception", "x"),
            Done(Written::Dead(_))
        ));
        assert!(matches!(
            one("index", 400, "mapper_parsing_exception", "x"),
            Done(Written::Dead(_))
        ));
        assert!(matches!(
            one("create", 429, "es_rejected_execution_exception", "x"),
            Again { is_busy: true, .. }
        ));
        assert!(matches!(
            one("create", 503, "unavailable_shards_exception", "x"),
            Again { is_busy: false, .. }
        ));
        assert!(matches!(one("create", 500, "anything", "x"), Again { .. }));
        // The same status as a full queue, but no waiting helps.
        assert!(matches!(
            one("create", 429, "cluster_block_exception", "x"),
            Pause { is_block: true, .. }
        ));
        assert!(matches!(
            one("create", 403, "cluster_block_exception", "x"),
            Pause { is_block: true, .. }
        ));
        assert!(matches!(
            one("create", 403, "security_exception", "x"),
            Pause { is_block: false, .. }
        ));
        assert!(matches!(one("create", 404, "index_not_found_exception", "x"), Pause { .. }));
        let limit = "this action would add [1] shards, but this cluster currently has [1000]/[1000] maximum normal shards open";
        assert!(matches!(one("create", 400, "validation_exception", limit), Pause { .. }));
    }

    #[test]
    fn requests_are_judged_as_a_whole() {
        assert!(matches!(reply(413, b"", 2), Reply::Halve(_)));
        assert!(matches!(reply(400, b"{}", 2), Reply::Halve(_)));
        for status in [401, 403, 404] {
            assert!(matches!(reply(status, b"", 2), Reply::All(Verdict::Pause { .. })), "{status}");
        }
        assert!(matches!(reply(429, b"", 2), Reply::All(Verdict::Again { is_busy: true, .. })));
        for status in [0, 200, 201, 301, 408, 500, 502, 503, 504, 999] {
            assert!(
                matches!(reply(status, b"half a bo", 2), Reply::All(Verdict::Again { .. })),
                "{status}"
            );
        }
        assert!(matches!(reply(200, br#"{"items":[]}"#, 2), Reply::All(Verdict::Again { .. })));
    }

    proptest! {
        #[test]
        fn any_answer_is_judged_and_only_a_whole_one_is_success(status in 0u16..1000, body in prop::collection::vec(any::<u8>(), 0..200), item in 0u16..1000) {
            let judged = reply(status, &body, 1);
            prop_assert!(!matches!(judged, Reply::Items(_)));
            let body = format!(r#"{{"items":[{{"index":{{"status":{item}}}}}]}}"#);
            if let Reply::Items(items) = reply(200, body.as_bytes(), 1) {
                prop_assert_eq!(items[0] == Verdict::Done(Written::Stored), (200..300).contains(&item));
            }
        }
    }
}
