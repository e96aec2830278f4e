//! Kafka: any number of instances, one answer.
//!
//! ```text
//!  webhook ─▶ journal ─┐
//!  CDR file ───────────┴▶ forwarder ─▶ topic ─▶ intake ─▶ lanes ─▶ sink ─▶ transaction {state, offsets, dead letters}
//! ```
//!
//! Instances of one group share the partitions. A lane is a partition *number* over all topics, so that everything of a
//! session is in one lane as long as records are keyed by session id; it folds as the lane of one machine does, and its
//! state is a compacted topic with as many partitions ([`state`]).
//!
//! # Decisions
//!
//! * The order is always: the sink has answered for every document; then one transaction holds changed entities,
//!   tombstones, dead letters and the offsets to go on from. A crash anywhere repeats a cycle, and repeating changes
//!   nothing.
//! * Who has lost its partitions can save nothing: offsets are committed with the group's metadata, and the state goes into
//!   the same transaction. What it still sends to the sink carries versions that its successor's outrank.
//! * [`intake`] reads on its own thread and never waits for the sink: a partition whose records are not dealt with is
//!   paused, and membership is kept for as long as the sink is away.
//! * Partitions are taken over by reading their state to the end of what was ever committed, in the order that Kafka
//!   Streams learnt in KAFKA-10167: committed offsets, then the end of the state, then wait for transactions that are still
//!   open, then read.
//! * Assignments are `range`: partition *n* of every topic goes to the same instance. Everything is given up at each
//!   rebalance; a named instance (`kafka.instance_id`) that restarts in time causes none.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::config::{KafkaConfig, Mechanism};

mod anchor;
mod delays;
mod deliveries;
mod digest;
mod ends;
mod firsts;
pub mod forward;
pub mod group;
pub mod intake;
pub mod key;
pub mod letters;
mod members;
mod message;
pub mod passed;
pub mod range;
pub mod rekey;
mod seen;
pub mod standing;
pub mod state;
pub mod topics;
pub mod transaction;

/// The header that says by which `[sources.NAME]` a record came.
pub const SOURCE_HEADER: &str = "callscope-source";

/// Why Kafka cannot be used. Each message says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KafkaError {
    /// Settings, topics or the names in use have to be changed first.
    #[error("{0}")]
    Refused(Arc<str>),
    /// No answer, or one that says to try again.
    #[error("{0}")]
    Away(Arc<str>),
    /// The group takes this instance for another one of its name: one that runs twice, or its own self of before a failure.
    #[error("{0}")]
    Fenced(Arc<str>),
    /// The group gives this instance what does not fit together: members with other settings, or what it is about to give anew.
    #[error("{0}")]
    Unfit(Arc<str>),
}

impl KafkaError {
    fn refused(text: impl Into<String>) -> Self {
        Self::Refused(text.into().into())
    }

    fn away(text: impl Into<String>) -> Self {
        Self::Away(text.into().into())
    }

    /// A topic does not hold what was read of it any more; `told`: by what that shows.
    fn made_anew(told: &str) -> Self {
        Self::refused(format!(
            "{told}: the topic was made anew, or brokers have lost records of it; stop all instances, and start them with another \
             kafka.group, which reads what is there and leaves what was written as it is"
        ))
    }
}

/// Names that librdkafka takes for properties which are set here under their other one.
const ALIASES: &[(&str, &str)] = &[
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("sasl.mechanisms", "sasl.mechanism"),
];

/// The properties of a client that is to be made. What the settings hold in `kafka.properties` stands, whatever is set here.
struct Client {
    properties: ClientConfig,
    given: BTreeSet<String>,
}

impl Client {
    /// Sets a property that the settings do not hold.
    fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        if !self.given.contains(name) {
            self.properties.set(name, value);
        }
        self
    }

    /// Sets one for which what the settings hold is not meant.
    fn set_always(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.properties.set(name, value);
        self
    }
}

impl Deref for Client {
    type Target = ClientConfig;

    fn deref(&self) -> &ClientConfig {
        &self.properties
    }
}

/// How long a broker may take to answer. The default is 60 s, for which one that hangs looks well.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// What all clients are made with. Names of properties: librdkafka's `CONFIGURATION.md`.
fn client(config: &KafkaConfig) -> Client {
    let mut client = Client { properties: ClientConfig::new(), given: BTreeSet::new() };
    for property in &config.properties {
        if let Some((name, value)) = property.expose().split_once('=') {
            let name = name.trim();
            let name =
                ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
            client.properties.set(name, value.trim());
            client.given.insert(name.to_owned());
        }
    }
    client
        .set("bootstrap.servers", config.brokers.join(","))
        .set(
            "client.id",
            if config.instance_id.is_empty() { "callscope" } else { &config.instance_id },
        )
        // The default goes up to 10 s, in which nobody notices that the brokers are back.
        .set("reconnect.backoff.max.ms", "2000")
        // Brokers would make it with their own settings.
        .set("allow.auto.create.topics", "false")
        .set("socket.timeout.ms", ANSWERS_WITHIN.as_millis().to_string())
        .set("topic.metadata.refresh.interval.ms", "5000");
    let is_named = !config.username.is_empty();
    let protocol = match (config.tls, is_named) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if config.tls && !config.ca.is_empty() {
        client.set("ssl.ca.location", &config.ca);
    }
    if is_named {
        let mechanism = match config.mechanism {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        client
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", &config.username)
            .set("sasl.password", config.password.expose());
    }
    client
}

/// Where to look when no broker answers.
const SEE_BROKERS: &str =
    "see kafka.brokers, and that the brokers are reachable under the names they give themselves";

/// What a client tells of itself is kept for who asks why it gets no answer.
#[derive(Default)]
struct Quiet(Mutex<Option<(Code, String)>>);

impl ClientContext for Quiet {
    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(error = %error, reason, "client of Kafka");
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That no broker is there says less than what was wrong with one.
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) | None => {}
            Some(code) => *told = Some((code, reason.to_owned())),
        }
    }
}

impl Quiet {
    /// Why there was no answer, and where to look.
    fn reason(&self) -> Option<String> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (code, reason) = told.as_ref()?;
        Some(match code {
            Code::Authentication | Code::SaslAuthenticationFailed => {
                format!("{reason}; see kafka.username, .password and .mechanism")
            }
            // Of one failed handshake the library of TLS may be heard first, as if the transport had failed.
            code if *code == Code::SSL || reason.contains("SSL routines") => {
                format!("{reason}; see kafka.tls and kafka.ca")
            }
            _ => format!("{reason}; {SEE_BROKERS}"),
        })
    }
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Reads without being a member of a group.
type Reader = BaseConsumer<Quiet>;

/// How long a client that has read ahead enough waits before it looks whether it still has. The default is 1 s, in which it is
/// used up many times.
const FETCH_AGAIN_MS: &str = "10";

/// A reader; `isolation`: `read_committed` or `read_uncommitted`. The end of a partition is told.
fn reader(config: &KafkaConfig, isolation: &str) -> Result<Reader, KafkaError> {
    let reading = reading(config, isolation);
    reading.create_with_context(Quiet::default()).map_err(|error| unusable(&error))
}

/// What a reader is made with.
fn reading(config: &KafkaConfig, isolation: &str) -> Client {
    let mut client = client(config);
    client
        .set("group.id", &config.group)
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        // Somebody waits for what is read so, and it may be one record.
        .set_always("fetch.min.bytes", "1")
        .set_always("fetch.wait.max.ms", "20")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", FETCH_AGAIN_MS);
    client
}

/// A client could not be made: a property that librdkafka does not take, or a library without TLS.
fn unusable(error: &ClientError) -> KafkaError {
    let text = match error {
        ClientError::ClientConfig(_, told, name, _) => format!("{name}: {told}"),
        ClientError::ClientCreation(told) => told.clone(),
        error => error.to_string(),
    };
    KafkaError::refused(format!("cannot make a client of Kafka: {text}; see the section [kafka]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn why_nobody_answers_comes_with_where_to_look() {
        for (code, advice) in [
            (Code::BrokerTransportFailure, "see kafka.brokers, and"),
            (Code::SaslAuthenticationFailed, "see kafka.username"),
            (Code::SSL, "see kafka.tls"),
        ] {
            let quiet = Quiet::default();
            quiet.error(ClientError::Global(code), "refused");
            quiet.error(ClientError::Global(Code::AllBrokersDown), "all are down");
            let told = quiet.reason().unwrap();
            assert!(told.starts_with(&format!("refused; {advice}")), "{told}");
        }
        let quiet = Quiet::default();
        let failed = "error:0A000086:SSL routines::certificate verify failed";
        quiet.error(ClientError::Global(Code::BrokerTransportFailure), failed);
        let told = quiet.reason().unwrap();
        assert!(told.ends_with("see kafka.tls and kafka.ca"), "{told}");
    }

    #[test]
    fn what_the_settings_hold_stands() {
        let environment = [(
            "CALLSCOPE__KAFKA__PROPERTIES".to_owned(),
            "client.id = x,queue.buffering.max.ms=70".to_owned(),
        )];
        let config = Config::load(None, environment.into_iter()).unwrap().config;
        let mut client = client(&config.kafka);
        client.set("linger.ms", "5").set("fetch.wait.max.ms", "20");
        let value = |name: &str| client.get(name);
        assert_eq!(value("client.id"), Some("x"));
        assert_eq!(value("linger.ms"), Some("70"));
        assert_eq!(value("queue.buffering.max.ms"), None);
        assert_eq!(value("fetch.wait.max.ms"), Some("20"));
    }
}
