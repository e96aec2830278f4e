//! What an answer of Elasticsearch or OpenSearch means, decided by `error.type`, not by status alone.
//!
//! | answer | means |
//! |---|---|
//! | 2xx; 409 on create; 409 on an older version | done |
//! | item 429 of a full queue; 408, 502–504; cut or odd body; another number of items | again, for as long as it takes |
//! | item with another 5xx | again; the document's fault if it stays so while its index takes others |
//! | item 4xx of the document | never: a dead letter |
//! | request 400 or 413 | halve and try again; a single document that fails is a dead letter |
//! | 401, 403, a block, a missing index that may not be made or cannot be, the shard limit | pause until somebody cures it |

use serde::Deserialize;

use super::NOT_A_SEARCH_SERVER;
use crate::sink::Written;

/// What to do about one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing more.
    Done(Written),
    /// Send it again.
    Again {
        /// What the store said.
        reason: String,
        /// What is the matter.
        trouble: Trouble,
    },
    /// Wait until somebody has cured it.
    Pause {
        /// What the store said.
        reason: String,
        /// What is to be cured.
        cure: Cure,
    },
}

/// Why something is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The store has too much to do.
    Busy,
    /// The store, or the shard, is not there.
    Away,
    /// Something failed: the store, or this document alone.
    Failed,
    /// It failed while its index took others.
    FailedAlone,
}

/// What somebody has to cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// The cluster or the account: no document goes in.
    Cluster,
    /// This index, perhaps it alone.
    Index,
    /// An index that has the name of the alias.
    Alias,
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

impl Reply {
    /// Names who has told what is the matter with the whole request.
    #[must_use]
    pub fn told_by(mut self, url: &str) -> Self {
        if let Self::All(Verdict::Again { reason, .. } | Verdict::Pause { reason, .. }) = &mut self
        {
            *reason = format!("{url}: {reason}");
        }
        self
    }
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
            Err(error) => {
                again(format!("an answer that cannot be read ({error}): {NOT_A_SEARCH_SERVER}"))
            }
        };
    }
    let cause = serde_json::from_slice::<Refusal>(body).ok().map(|refusal| refusal.error);
    let kind = cause.as_ref().map_or("", |cause| cause.kind.as_str());
    let told = cause.as_ref().map_or_else(
        || format!("status {status}"),
        |cause| format!("status {status}: {}", text(cause)),
    );
    match (status, kind) {
        (502..=504, _) => again(told),
        (_, "cluster_block_exception") | (401 | 403 | 404, _) => {
            Reply::All(pause(status, kind, &told, Cure::Cluster))
        }
        (400, "validation_exception") if is_shard_limit(&told) => {
            Reply::All(pause(status, kind, &told, Cure::Cluster))
        }
        (400 | 413, _) => Reply::Halve(told),
        (429, _) => Reply::All(Verdict::Again { reason: told, trouble: Trouble::Busy }),
        _ => again(told),
    }
}

/// Waits for a cure, and says what it is.
fn pause(status: u16, kind: &str, told: &str, cure: Cure) -> Verdict {
    let advice = match (status, kind) {
        (_, "cluster_block_exception") if told.contains("/12/") => {
            "the server's disk is nearly full; free space, it lifts the block by itself"
        }
        (_, "cluster_block_exception") => {
            "lift the block: PUT /INDEX/_settings {\"index.blocks.write\": null, \"index.blocks.read_only\": null}, or see the state of the cluster"
        }
        (_, "index_closed_exception") => "open the index: POST /INDEX/_open",
        _ if is_shard_limit(told) => {
            "raise cluster.max_shards_per_node, or delete indices that are not needed"
        }
        (401 | 403, _) => {
            "see elasticsearch.username, .password and .api_key, and that they may write and create indices"
        }
        (404, _) | (_, "index_template_missing_exception") => {
            "run `callscope setup`, and see action.auto_create_index of the server"
        }
        _ => "see elasticsearch.index and what stands under that name",
    };
    Verdict::Pause { reason: format!("{told}; {advice}"), cure }
}

fn again(reason: String) -> Reply {
    Reply::All(Verdict::Again { reason, trouble: Trouble::Away })
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
        (502..=504, _) => Verdict::Again { reason: told, trouble: Trouble::Away },
        (_, "cluster_block_exception") => {
            let cure = if is_of_cluster(&told) { Cure::Cluster } else { Cure::Index };
            pause(answer.status, kind, &told, cure)
        }
        (_, "index_closed_exception") => pause(answer.status, kind, &told, Cure::Index),
        (_, "invalid_alias_name_exception") => Verdict::Pause { reason: told, cure: Cure::Alias },
        (401 | 403, _)
        | (404, "index_not_found_exception")
        | (400, "invalid_index_name_exception" | "index_template_missing_exception") => {
            pause(answer.status, kind, &told, Cure::Cluster)
        }
        (400, "validation_exception" | "illegal_argument_exception")
            if is_shard_limit(&told) || told.contains("no write index is defined") =>
        {
            pause(answer.status, kind, &told, Cure::Cluster)
        }
        (429, _) => Verdict::Again { reason: told, trouble: Trouble::Busy },
        (400..=499, _) if answer.status != 408 => Verdict::Done(Written::Dead(told.into())),
        (500..=599, _) => Verdict::Again { reason: told, trouble: Trouble::Failed },
        _ => Verdict::Again { reason: told, trouble: Trouble::Away },
    }
}

/// Blocks that no index has for itself: of the cluster (6, 10, 13), and what a full disk does to every index on it (12).
fn is_of_cluster(told: &str) -> bool {
    ["/6/", "/10/", "/12/", "/13/"].iter().any(|number| told.contains(number))
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
        let done = |action, status, kind| one(action, status, kind, "x");
        let conflict = "version_conflict_engine_exception";
        assert_eq!(done("create", 409, conflict), Verdict::Done(Written::Existed));
        assert_eq!(done("index", 409, conflict), Verdict::Done(Written::Older));
        for kind in ["document_parsing_exception", "mapper_parsing_exception"] {
            assert!(matches!(done("index", 400, kind), Verdict::Done(Written::Dead(_))), "{kind}");
        }
        let again = [
            (429, "es_rejected_execution_exception", Trouble::Busy),
            (502, "anything", Trouble::Away),
            (503, "unavailable_shards_exception", Trouble::Away),
            (503, "cluster_block_exception", Trouble::Away),
            (504, "anything", Trouble::Away),
            (408, "anything", Trouble::Away),
            (500, "anything", Trouble::Failed),
        ];
        for (status, kind, expected) in again {
            let verdict = one("create", status, kind, "x");
            assert!(
                matches!(verdict, Verdict::Again { trouble, .. } if trouble == expected),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn what_somebody_has_to_cure_is_never_the_documents_fault() {
        let limit = "this action would add [1] shards, but this cluster currently has [1000]/[1000] maximum normal shards open";
        // The same status as a full queue, but no waiting helps.
        let flood = "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]";
        let old_flood = "index [a] blocked by: [FORBIDDEN/12/index read-only / allow delete (api)]";
        let cluster = "blocked by: [FORBIDDEN/13/cluster read-only / allow delete (api)]";
        let write = "index [a] blocked by: [FORBIDDEN/8/index write (api)]";
        let no_index = "no write index is defined for alias [a]";
        let pauses = [
            (429, "cluster_block_exception", flood, Cure::Cluster),
            (403, "cluster_block_exception", old_flood, Cure::Cluster),
            (403, "cluster_block_exception", cluster, Cure::Cluster),
            (403, "cluster_block_exception", write, Cure::Index),
            (400, "index_closed_exception", "closed", Cure::Index),
            (400, "invalid_alias_name_exception", "x", Cure::Alias),
            (403, "security_exception", "x", Cure::Cluster),
            (404, "index_not_found_exception", "x", Cure::Cluster),
            (400, "validation_exception", limit, Cure::Cluster),
            (400, "illegal_argument_exception", no_index, Cure::Cluster),
        ];
        for (status, kind, reason, expected) in pauses {
            let verdict = one("create", status, kind, reason);
            assert!(
                matches!(verdict, Verdict::Pause { cure, .. } if cure == expected),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn requests_are_judged_as_a_whole() {
        assert!(matches!(reply(413, b"", 2), Reply::Halve(_)));
        assert!(matches!(reply(400, b"{}", 2), Reply::Halve(_)));
        for status in [401, 403, 404] {
            assert!(matches!(reply(status, b"", 2), Reply::All(Verdict::Pause { .. })), "{status}");
        }
        assert!(matches!(
            reply(429, b"", 2),
            Reply::All(Verdict::Again { trouble: Trouble::Busy, .. })
        ));
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
