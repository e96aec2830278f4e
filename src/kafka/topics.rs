//! Topics: whether they are there and fit together, and making those of callscope's own.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaErrorCode;

use super::deliveries::{Deliveries, Failed, Placed, Refusal, deliver};
use super::transaction::RECORD_BYTES_MAX;
use super::{KafkaError, Quiet, SEE_BROKERS, client, reader, unusable};
use crate::config::KafkaConfig;

pub mod kept;

/// How long one question to the brokers may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long it is listened why there was none, ten times.
const LISTEN: Duration = Duration::from_millis(50);

/// Of topics with large records. Brokers take none that is larger than the files they keep it in.
pub(super) const SEGMENT_BYTES: usize = 64 << 20;

/// What was found out about the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Partitions of every topic that is read, and of the state: lanes.
    pub partitions: i32,
}

/// Looks at the topics that are read, those that are taken over included, and at those of callscope's own that are there.
///
/// # Errors
///
/// If one is missing, counts differ, one that is read is compacted or one of callscope's own is not, or no broker answers.
pub async fn look(config: &KafkaConfig) -> Result<Topics, KafkaError> {
    let counts = counts(config).await?;
    let partitions = fits(config, &counts).await?;
    Ok(Topics { partitions })
}

/// Looks at the same, and makes the topics of callscope's own where they are missing.
///
/// # Errors
///
/// If a topic is missing that somebody else has to make, counts differ, one that is read is compacted or one of callscope's own is
/// not, topics may not be made or written, or no broker answers.
pub async fn prepare(config: &KafkaConfig) -> Result<Topics, KafkaError> {
    let counts = counts(config).await?;
    let partitions = fits(config, &counts).await?;
    let own = own(config, partitions);
    make_missing(config, &counts, &own).await?;
    let config = config.clone();
    let written = tokio::task::spawn_blocking(move || may_write(&config, &own));
    written
        .await
        .map_err(|error| KafkaError::away(format!("writing to Kafka failed: {error}")))??;
    Ok(Topics { partitions })
}

/// Makes the topic of dead letters if it is not there.
///
/// # Errors
///
/// If it may not be made, or no broker answers.
pub(super) async fn make_dead_letters(config: &KafkaConfig) -> Result<(), KafkaError> {
    let counts = counts(config).await?;
    let name = config.dead_letters_topic();
    let own: Vec<Own> = own(config, 1).into_iter().filter(|topic| topic.name == name).collect();
    make_missing(config, &counts, &own).await
}

async fn make_missing(
    config: &KafkaConfig,
    counts: &BTreeMap<String, i32>,
    topics: &[Own],
) -> Result<(), KafkaError> {
    for topic in topics.iter().filter(|topic| !counts.contains_key(&topic.name)) {
        make(config, topic, false).await?;
    }
    Ok(())
}

/// Writes a tombstone of a key that nobody uses to each of `topics`: within a transaction the brokers do not tell which right is
/// missing.
fn may_write(config: &KafkaConfig, topics: &[Own]) -> Result<(), KafkaError> {
    const NOBODY: &[u8] = b"?";
    let producer: BaseProducer<Deliveries> = client(config)
        .set("message.timeout.ms", ANSWER_WITHIN.as_millis().to_string())
        .create_with_context(Deliveries::default())
        .map_err(|error| unusable(&error))?;
    let records = topics
        .iter()
        .enumerate()
        .map(|(place, topic)| Placed::with_opaque_to(&topic.name, place).key(NOBODY).partition(0));
    let Some(Failed { topic, error, .. }) =
        deliver(&producer, records, ANSWER_WITHIN * 2).into_iter().next()
    else {
        return Ok(());
    };
    Err(match Refusal::of(&error) {
        Some(Refusal::Right) => KafkaError::refused(format!(
            "topic {topic} may not be written: {error}; the account needs Read and Write on it"
        )),
        _ => KafkaError::away(format!("topic {topic} cannot be written: {error}")),
    })
}

/// The topics of callscope's own by name, and of each that is missing whether [`prepare`] could make it: the brokers are asked,
/// and make nothing. `partitions`: of every topic that is read.
///
/// # Errors
///
/// If no broker answers. Of a topic: as [`prepare`] would fail.
pub async fn try_own(
    config: &KafkaConfig,
    partitions: i32,
) -> Result<Vec<(String, Option<Result<(), KafkaError>>)>, KafkaError> {
    let counts = counts(config).await?;
    let tried = own(config, partitions).into_iter().map(async |topic| {
        let made = match counts.contains_key(&topic.name) {
            true => None,
            false => Some(make(config, &topic, true).await),
        };
        (topic.name, made)
    });
    Ok(join_all(tried).await)
}

/// A topic of callscope's own.
struct Own {
    name: String,
    partitions: i32,
    properties: Vec<(&'static str, String)>,
    /// What is in it.
    holds: &'static str,
    /// Whether nothing else is lost with it.
    can_go: bool,
}

fn own(config: &KafkaConfig, partitions: i32) -> [Own; 3] {
    let large = || RECORD_BYTES_MAX.to_string();
    let state = vec![
        ("max.message.bytes", large()),
        ("cleanup.policy", "compact".to_owned()),
        ("min.cleanable.dirty.ratio", "0.1".to_owned()),
        ("segment.ms", "3600000".to_owned()),
        ("segment.bytes", SEGMENT_BYTES.to_string()),
        ("delete.retention.ms", "86400000".to_owned()),
    ];
    let dead = vec![
        ("max.message.bytes", large()),
        ("cleanup.policy", "compact".to_owned()),
        ("segment.bytes", SEGMENT_BYTES.to_string()),
    ];
    let digests =
        vec![("cleanup.policy", "compact".to_owned()), ("segment.ms", "600000".to_owned())];
    let one =
        |name, properties, holds| Own { name, partitions: 1, properties, holds, can_go: true };
    [
        Own {
            name: config.state_topic(),
            partitions,
            properties: state,
            holds: "sessions that are open",
            can_go: false,
        },
        one(config.dead_letters_topic(), dead, "letters that nobody has looked at"),
        one(config.digests_topic(), digests, "what instances tell each other"),
    ]
}

/// Partitions of every topic that is read, if these, the state and the others of callscope's own are as they have to be.
async fn fits(config: &KafkaConfig, counts: &BTreeMap<String, i32>) -> Result<i32, KafkaError> {
    let partitions = read(config, counts)?;
    let state = config.state_topic();
    if let Some(known) = counts.get(&state).filter(|known| **known != partitions) {
        let read = config.topics.join(", ");
        return Err(KafkaError::refused(format!(
            "topic {state} has {known} partitions and {read} has {partitions}. If partitions were added, records of one session \
             stand in two of them now: stop all instances; make a new topic with as many partitions as are wanted; name it in \
             kafka.topics, {read} in kafka.rekey_from, and give kafka.group another name, so that everything is read anew and put \
             together by session. If {read} is another topic than before, another kafka.group is enough"
        )));
    }
    let own = own(config, partitions);
    let there: Vec<&Own> = own.iter().filter(|own| counts.contains_key(&own.name)).collect();
    kept::look_also(config, &there).await?;
    Ok(partitions)
}

/// Partitions of the topics that are read.
fn read(config: &KafkaConfig, counts: &BTreeMap<String, i32>) -> Result<i32, KafkaError> {
    let not_there = |topics: &[String]| {
        let missing = topics.iter().filter(|topic| !counts.contains_key(*topic)).cloned();
        missing.collect::<Vec<_>>()
    };
    let missing = not_there(&config.topics);
    if !missing.is_empty() {
        return Err(self::missing(&missing.join(", ")));
    }
    let missing = not_there(&config.rekey_from);
    if !missing.is_empty() {
        return Err(KafkaError::refused(format!(
            "there is no topic {} to take records over from, or the account may not see it (it needs Describe and Read); see \
             kafka.rekey_from, and leave out what is taken over and gone",
            missing.join(", ")
        )));
    }
    let known: Vec<(&String, i32)> =
        config.topics.iter().filter_map(|topic| Some((topic, *counts.get(topic)?))).collect();
    let first = known.first().map_or(0, |(_, count)| *count);
    if known.iter().any(|(_, count)| *count != first) {
        grown(config, counts, &known)?;
        let told: Vec<String> =
            known.iter().map(|(topic, count)| format!("{topic} has {count} partitions")).collect();
        return Err(KafkaError::refused(format!(
            "{}: a session must be in the same partition of each, so their numbers have to be equal; \
             make topics with equal numbers, or read them with groups of their own",
            told.join(", ")
        )));
    }
    Ok(first)
}

/// Whether it is known of one of several topics that it was given more partitions: the state has as many as all had.
fn grown(
    config: &KafkaConfig,
    counts: &BTreeMap<String, i32>,
    known: &[(&String, i32)],
) -> Result<(), KafkaError> {
    let state = config.state_topic();
    let Some(before) = counts.get(&state) else { return Ok(()) };
    let Some((topic, count)) = known.iter().find(|(_, count)| count != before) else {
        return Ok(());
    };
    Err(KafkaError::refused(format!(
        "topic {state} has {before} partitions and {topic} has {count}. If partitions were added, records of one session stand in two \
         of them now, and adding as many to the others makes it worse: stop all instances; make a new topic with as many partitions \
         as the others that are read; name it in kafka.topics instead of {topic}, {topic} in kafka.rekey_from, and give kafka.group \
         another name, so that everything is read anew and put together by session"
    )))
}

/// A topic that somebody else has to make is not there.
pub(super) fn missing(topic: &str) -> KafkaError {
    let first = topic.split(", ").next().unwrap_or(topic);
    KafkaError::refused(format!(
        "there is no topic {topic}, or the account may not see it (it needs Describe and Read); make it with as many partitions as \
         there may ever be instances, such as `kafka-topics.sh --create --topic {first} --partitions 12`, or see kafka.topics"
    ))
}

/// Whether the group has a state, which its first instance makes.
///
/// # Errors
///
/// If it has none, or no broker answers.
pub async fn has_state(config: &KafkaConfig) -> Result<(), KafkaError> {
    let state = config.state_topic();
    if counts(config).await?.contains_key(&state) {
        return Ok(());
    }
    Err(KafkaError::refused(format!(
        "group {} has no state yet: no instance of it has ever run, or the account may not see topic {state} (it needs Describe and \
         Read); see kafka.group",
        config.group
    )))
}

/// Partitions of every topic.
///
/// # Errors
///
/// If no broker answers.
pub async fn counts(config: &KafkaConfig) -> Result<BTreeMap<String, i32>, KafkaError> {
    let brokers = config.brokers.join(", ");
    let config = config.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let asking = reader(&config, "read_committed")?;
        asking.fetch_metadata(None, ANSWER_WITHIN).map_err(|error| {
            // Nothing is assigned: it only hears what the client has to tell.
            let heard = (0..10).find_map(|_| {
                let _nothing = asking.poll(LISTEN);
                asking.context().reason()
            });
            let reason = heard.unwrap_or_else(|| format!("{error}; {SEE_BROKERS}"));
            KafkaError::away(format!("no answer from Kafka at {brokers}: {reason}"))
        })
    });
    let metadata = asked.await.map_err(|error| {
        KafkaError::away(format!("asking Kafka for its topics failed: {error}"))
    })??;
    Ok(metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none())
        .map(|topic| {
            let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
            (topic.name().to_owned(), count)
        })
        .collect())
}

fn admin(config: &KafkaConfig) -> Result<AdminClient<Quiet>, KafkaError> {
    client(config).create_with_context(Quiet::default()).map_err(|error| unusable(&error))
}

/// Makes a topic. `is_trial`: the brokers only say whether they would.
async fn make(config: &KafkaConfig, topic: &Own, is_trial: bool) -> Result<(), KafkaError> {
    let Own { name, partitions, properties, .. } = topic;
    let admin = admin(config)?;
    // -1: the brokers' default.
    let replicas = if config.replicas == 0 { -1 } else { i32::from(config.replicas) };
    let mut topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(replicas));
    for (name, value) in properties {
        topic = topic.set(name, value);
    }
    let options = AdminOptions::new()
        .operation_timeout(Some(ANSWER_WITHIN))
        .request_timeout(is_trial.then_some(ANSWER_WITHIN))
        .validate_only(is_trial);
    let made = admin
        .create_topics([&topic], &options)
        .await
        .map_err(|error| KafkaError::away(format!("cannot make topic {name}: {error}")))?;
    match made.into_iter().next() {
        // Another instance was quicker.
        Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => {
            if !is_trial {
                tracing::info!(topic = name, partitions, "topic is there");
            }
            Ok(())
        }
        Some(Err((_, code))) => {
            let properties: String = properties
                .iter()
                .map(|(name, value)| format!(" --config {name}={value}"))
                .collect();
            let advice = format!(
                "the account needs Create, Read and Write on topics that begin with \"{}-\", or Read and Write where you make it \
                 yourself: `kafka-topics.sh --create --topic {name} --partitions {partitions}{properties}`; see also kafka.replicas",
                config.group
            );
            Err(not_made(name, code, &advice))
        }
    }
}

fn not_made(name: &str, code: RDKafkaErrorCode, advice: &str) -> KafkaError {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::PolicyViolation
        | RDKafkaErrorCode::InvalidConfig
        | RDKafkaErrorCode::InvalidReplicationFactor
        | RDKafkaErrorCode::InvalidPartitions
        | RDKafkaErrorCode::InvalidTopic => {
            KafkaError::refused(format!("cannot make topic {name}: {code}; {advice}"))
        }
        // A broker that starts, or a controller that is being elected.
        _ => KafkaError::away(format!("cannot make topic {name} yet: {code}")),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;
    use crate::config::Config;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_missing_is_told_by_name_and_setting() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        for topic in ["events", "old"] {
            cluster.create_topic(topic, 2, 1).unwrap();
        }
        let mut config = Config::load(None, std::iter::empty()).unwrap().config.kafka;
        config.brokers = vec![cluster.bootstrap_servers()];
        config.topics = vec!["events".to_owned()];
        config.group = "g".to_owned();
        config.rekey_from = vec!["old".to_owned(), "odl".to_owned()];
        for told in [look(&config).await.unwrap_err(), prepare(&config).await.unwrap_err()] {
            let is_refused = matches!(told, KafkaError::Refused(_));
            let told = told.to_string();
            assert!(is_refused && told.contains("no topic odl "), "{told}");
            assert!(told.contains("kafka.rekey_from"), "{told}");
        }
        let told = has_state(&config).await.unwrap_err();
        assert!(matches!(told, KafkaError::Refused(_)), "{told}");
        let told = told.to_string();
        assert!(
            told.contains("group g has no state yet") && told.contains("kafka.group"),
            "{told}"
        );
        cluster.create_topic("g-state", 2, 1).unwrap();
        has_state(&config).await.unwrap();
    }

    #[test]
    fn what_passes_by_itself_is_no_reason_to_end() {
        for code in [
            RDKafkaErrorCode::NotController,
            RDKafkaErrorCode::RequestTimedOut,
            RDKafkaErrorCode::NetworkException,
        ] {
            let told = not_made("t", code, "advice");
            assert!(matches!(told, KafkaError::Away(_)), "{told}");
        }
        for code in [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::InvalidTopic] {
            let told = not_made("t", code, "advice");
            assert!(matches!(told, KafkaError::Refused(_)), "{told}");
        }
    }
}
