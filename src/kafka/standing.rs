//! How an instance stands in its group, for readiness: whoever has a trouble tells it here at once, and takes it back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::error::KafkaError as ClientError;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::watch;

use super::KafkaError;
use crate::metrics::Metrics;

/// Who can have a trouble, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The way into the group.
    Joining,
    /// The thread that reads the topics.
    Reading,
    /// The transactions.
    Saving,
    /// The producers of the records: their keys.
    Keys,
    /// What takes events of this machine to the topic.
    Forwarding,
    /// What takes records of other topics to the first one.
    Rekeying,
    /// What tells the other instances what is open here.
    Telling,
}

/// How an instance stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the group has given it what it is to do, be that nothing.
    pub(super) is_member: bool,
    troubles: BTreeMap<Part, String>,
    /// Partitions held, their state being here.
    pub(super) held: BTreeSet<i32>,
    /// Partitions whose state is being read.
    pub(super) restoring: BTreeSet<i32>,
    /// Records of the state read so far.
    pub(super) restored: u64,
}

impl Standing {
    /// Whether the first partition is here, whose owner does what is done once for the whole group.
    #[must_use]
    pub fn holds_first(&self) -> bool {
        self.held.contains(&0)
    }

    /// Why this instance deals with nothing at this moment, or with what is wrong.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let joining = (!self.is_member).then(|| "joining the group".to_owned());
        let mut reasons: Vec<String> = joining.into_iter().collect();
        reasons.extend(self.troubles.values().cloned());
        if !self.restoring.is_empty() {
            reasons.push(format!(
                "reading the state of {} partitions, {} records so far",
                self.restoring.len(),
                self.restored
            ));
        }
        reasons
    }

    /// As `/readyz` shows it.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "held": self.held,
            "restoring": self.restoring,
            "restoredRecords": self.restored,
        })
    }
}

/// Where an instance tells how it stands.
#[derive(Debug, Clone)]
pub struct Board {
    standing: watch::Sender<Standing>,
    pub(super) metrics: Arc<Metrics>,
}

impl Board {
    /// Of an instance that is in no group yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { standing: watch::Sender::default(), metrics }
    }

    /// For who shows it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Changes what partitions it stands with.
    pub(super) fn change(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_if_modified(|standing| {
            let before = standing.clone();
            change(standing);
            *standing != before
        });
        let standing = self.standing.borrow();
        let count = |partitions: &BTreeSet<i32>| i64::try_from(partitions.len()).unwrap_or(0);
        self.metrics.kafka.held.set(count(&standing.held));
        self.metrics.kafka.restoring.set(count(&standing.restoring));
    }

    /// Tells the trouble of one part, or that it has none any more.
    pub(super) fn trouble(&self, part: Part, trouble: Option<String>) {
        self.standing.send_if_modified(|standing| {
            if standing.troubles.get(&part) == trouble.as_ref() {
                return false;
            }
            match trouble {
                Some(reason) => {
                    tracing::warn!(?part, reason, "trouble with Kafka, trying again");
                    standing.troubles.insert(part, reason);
                }
                None => {
                    tracing::info!(?part, "no trouble with Kafka any more");
                    standing.troubles.remove(&part);
                }
            }
            true
        });
    }
}

/// Tells the board what a client that reads hears from the brokers.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) board: Board,
    part: Part,
    /// The setting that names its topics.
    topics: &'static str,
    /// What its group is called.
    group: String,
    /// Whether the trouble is that no broker answers.
    is_away: AtomicBool,
}

impl Listener {
    /// `topics`: the setting that names what it reads; `group`: as what it reads that.
    pub(super) fn new(board: Board, part: Part, (topics, group): (&'static str, &str)) -> Self {
        Self { board, part, topics, group: group.to_owned(), is_away: AtomicBool::new(false) }
    }

    pub(super) fn tell(&self, trouble: Option<String>) {
        self.board.trouble(self.part, trouble);
    }

    /// Whether no broker has answered last.
    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    pub(super) fn look_at_brokers(&self, statistics: &Statistics) {
        let is_up = statistics.brokers.values().any(|broker| broker.state == "UP");
        if is_up && self.is_away.swap(false, Ordering::Relaxed) {
            self.tell(None);
        }
    }

    pub(super) fn look_at(&self, error: &ClientError) {
        match error.rdkafka_error_code() {
            // Single brokers come and go.
            Some(Code::AllBrokersDown) => {
                self.is_away.store(true, Ordering::Relaxed);
                self.tell(Some("no broker answers".to_owned()));
            }
            Some(
                code @ (Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::Authentication),
            ) => self.tell(Some(format!(
                "{code}: see kafka.username and .password; the account needs Read on the topics of {} and on the group {}",
                self.topics, self.group
            ))),
            Some(Code::InvalidSessionTimeout) => self.tell(Some(
                "the brokers refuse kafka.session_timeout; see their group.min.session.timeout.ms and group.max.session.timeout.ms"
                    .to_owned(),
            )),
            Some(code @ (Code::InconsistentGroupProtocol | Code::GroupMaxSizeReached)) => {
                self.tell(Some(format!(
                    "{code}: somebody else is in the group; let kafka.group be a name that only callscope uses"
                )));
            }
            Some(code @ (Code::UnknownTopicOrPartition | Code::UnknownTopic)) => {
                self.tell(Some(format!("{code}: see {}", self.topics)));
            }
            _ => tracing::debug!(error = %error, "client of Kafka"),
        }
    }

    /// The client is of no use any more.
    pub(super) fn ended(&self, code: Code) -> KafkaError {
        let is_fenced = matches!(code, Code::FencedInstanceId | Code::UnreleasedInstanceId);
        let text = if is_fenced {
            format!(
                "another process has joined the group with the same kafka.instance_id ({code}); give each instance a name of its own"
            )
        } else {
            format!("cannot go on reading the topics of {}: {code}", self.topics)
        };
        self.tell(Some(text.clone()));
        if is_fenced { KafkaError::Fenced(text.into()) } else { KafkaError::away(text) }
    }
}
