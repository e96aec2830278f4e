//! The state of a lane as records of a compacted topic, and reading it back.
//!
//! To the partition that has the lane's number go one record for every entity, one for the lane's progress, and one, once, for
//! its beginning: a state whose beginning is missing is not whole. Keys: `e` and the entity's key as in
//! [`sessions`](crate::sessions), `p`, `b`. Values: the format's version (4 bytes, little-endian) and, as `postcard`, the entity
//! or [`Progress`] and [`Passed`]; nothing more for the beginning; a tombstone for what is forgotten. Kafka's own checksums
//! guard them.
//!
//! Rolling upgrades: versions of one format read each other's states. A version of another format refuses the partition and
//! ends, saying so, and an instance that can read it takes the partition. `fixtures/state` holds a state of the format.
//! So whoever reads a group's digests and dead letters reads its state as well, and the one version stands for all three.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::passed::Passed;
use super::topics::ANSWER_WITHIN;
use super::{KafkaError, Reader, reader};
use crate::checkpoint::Progress;
use crate::checkpoint::persist::kill_point;
use crate::config::KafkaConfig;
use crate::sessions::{Change, Keeping, Limits, Sessions};

/// Version of everything stored in the group's topics: state, digests and dead letters. Raise it when an older binary could not
/// read what this one writes, or this one not what an older one wrote; so whenever the checkpoint's is raised. A field that may
/// be missing and that others may pass over needs no other version.
const FORMAT: u32 = 4;

const ENTITY: u8 = b'e';
const PROGRESS: &[u8] = b"p";
const BEGINNING: &[u8] = b"b";

/// How often open transactions are asked about.
const POLL: Duration = Duration::from_millis(50);

/// How long a command waits while nothing of a state can be read.
const PATIENCE: Duration = Duration::from_secs(60);

/// A record to be written: key, and value or tombstone.
pub(super) type Saved = (Vec<u8>, Option<Vec<u8>>);

/// The records of a cycle; `begins`: of the first one of a state.
///
/// # Errors
///
/// None that is known: encoding into memory does not fail.
pub(super) fn records(
    begins: bool,
    reached: (&Progress, &Passed),
    changes: Vec<Change>,
) -> Result<impl Iterator<Item = Saved>, postcard::Error> {
    let reached = value(&postcard::to_stdvec(&reached)?);
    let beginning = begins.then(|| (BEGINNING.to_vec(), Some(value(&[]))));
    let entities = changes.into_iter().map(|change| {
        let mut key = Vec::with_capacity(1 + change.key.len());
        key.push(ENTITY);
        key.extend_from_slice(&change.key);
        (key, change.value.map(|entity| value(&entity)))
    });
    Ok(beginning.into_iter().chain(entities).chain([(PROGRESS.to_vec(), Some(reached))]))
}

fn value(content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(4 + content.len());
    value.extend_from_slice(&FORMAT.to_le_bytes());
    value.extend_from_slice(content);
    value
}

/// What was known of a lane when it last saved.
#[derive(Debug)]
pub(super) struct Restored {
    /// Whether it has never saved.
    pub(super) is_new: bool,
    pub(super) progress: Progress,
    pub(super) passed: Passed,
    pub(super) sessions: Sessions,
}

/// Told while a state is read, and asked whether to go on.
pub(super) trait Watching: Sync {
    /// One more record was read.
    fn has_read(&self);
    /// Whether nobody wants the state any more.
    fn is_over(&self) -> bool;
    /// How long it is waited while nothing is read; `None`: for as long as the brokers are away.
    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// Somebody who wants the state once, and has no group to be kept in meanwhile.
struct Patient(Duration);

impl Watching for Patient {
    fn has_read(&self) {}

    fn is_over(&self) -> bool {
        false
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.0)
    }
}

/// Reads the state of `partitions`, each to the end of what is committed. `None`: nobody wants it any more.
///
/// # Errors
///
/// If the brokers do not answer, or a state cannot be read.
pub(super) fn restore(
    config: &KafkaConfig,
    limits: &Limits,
    partitions: &[i32],
    watching: &impl Watching,
) -> Result<Option<BTreeMap<i32, Restored>>, KafkaError> {
    let topic = config.state_topic();
    let mut restored = BTreeMap::new();
    for (partition, saved) in match read(config, &topic, partitions, watching)? {
        Some(states) => states,
        None => return Ok(None),
    } {
        kill_point("restore");
        let lane = decode(saved, limits).map_err(|error| {
            KafkaError::refused(format!(
                "the state in partition {partition} of topic {topic} {error}; stop all instances, and start them with another \
                 kafka.group, which reads the events anew and writes the same documents"
            ))
        })?;
        restored.insert(partition, lane);
    }
    Ok(Some(restored))
}

/// How far each lane is, as it has saved last, and what has become of the offsets up to there.
///
/// # Errors
///
/// If the brokers do not answer, or a state cannot be read.
pub fn progress(
    config: &KafkaConfig,
    limits: &Limits,
    partitions: &[i32],
) -> Result<BTreeMap<i32, (Progress, Passed)>, KafkaError> {
    let restored = restore(config, limits, partitions, &Patient(PATIENCE))?.unwrap_or_default();
    let reached = |(lane, restored): (i32, Restored)| (lane, (restored.progress, restored.passed));
    Ok(restored.into_iter().map(reached).collect())
}

/// Key to value of one partition; what was forgotten is in it no more.
type State = HashMap<Vec<u8>, Vec<u8>>;

/// Why a state cannot be taken over; each says what it does or has.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(
        "has format {0}, and this version of callscope reads {FORMAT}: use the version that wrote it"
    )]
    Format(u32),
    #[error(
        "has no beginning any more: the topic was deleted and made anew while an instance was at work, or brokers have deleted what \
         is old in it (cleanup.policy has to be compact)"
    )]
    NotWhole,
    #[error("cannot be read: {0:#}")]
    Unreadable(anyhow::Error),
}

fn decode(saved: State, limits: &Limits) -> Result<Restored, Unusable> {
    let mut sessions = Sessions::new(limits.clone(), Keeping::Lifetimes);
    let (mut has_beginning, mut reached) = (false, None);
    let unreadable = |told: &'static str| Unusable::Unreadable(anyhow::anyhow!(told));
    for (key, value) in saved {
        let (format, content) =
            value.split_first_chunk::<4>().ok_or_else(|| unreadable("a record is too short"))?;
        let format = u32::from_le_bytes(*format);
        if format != FORMAT {
            return Err(Unusable::Format(format));
        }
        match key.split_first() {
            Some((&ENTITY, key)) => sessions
                .restore_one(key, content)
                .map_err(|error| Unusable::Unreadable(error.into()))?,
            _ if key == PROGRESS => {
                let read = postcard::from_bytes::<(Progress, Passed)>(content);
                reached = Some(read.map_err(|error| Unusable::Unreadable(error.into()))?);
            }
            _ if key == BEGINNING => has_beginning = true,
            _ => return Err(unreadable("a record has a key of an unknown kind")),
        }
    }
    sessions.restored();
    let is_new = reached.is_none();
    // Both came with the first cycle.
    if has_beginning == is_new {
        return Err(Unusable::NotWhole);
    }
    let (progress, passed) = reached.unwrap_or_default();
    Ok(Restored { is_new, progress, passed, sessions })
}

fn read(
    config: &KafkaConfig,
    topic: &str,
    partitions: &[i32],
    watching: &impl Watching,
) -> Result<Option<BTreeMap<i32, State>>, KafkaError> {
    let away = |error: &ClientError| {
        KafkaError::away(format!("cannot read the state in topic {topic}: {error}"))
    };
    // The end of everything that was ever written, committed or not; whoever wrote it can write no more, since its offsets
    // would be those of an older generation.
    let all = reader(config, "read_uncommitted")?;
    let mut ends = BTreeMap::new();
    for partition in partitions {
        let (_, end) =
            all.fetch_watermarks(topic, *partition, ANSWER_WITHIN).map_err(|error| away(&error))?;
        ends.insert(*partition, end);
    }
    // With this isolation the brokers tell as the end where the first open transaction begins.
    let committed = reader(config, "read_committed")?;
    let begun = Instant::now();
    for (partition, end) in &ends {
        loop {
            if watching.is_over() {
                return Ok(None);
            }
            // The brokers end what takes longer than that.
            let patience =
                watching.patience().map(|patience| patience + config.transaction_timeout);
            if patience.is_some_and(|patience| begun.elapsed() > patience) {
                return Err(KafkaError::away(format!(
                    "a transaction is open in partition {partition} of topic {topic} for longer than kafka.transaction_timeout; see \
                     whether all brokers are there"
                )));
            }
            let (_, stable) = committed
                .fetch_watermarks(topic, *partition, ANSWER_WITHIN)
                .map_err(|error| away(&error))?;
            if stable >= *end {
                break;
            }
            // Nothing is assigned yet: it only waits.
            let _nothing = committed.poll(POLL);
        }
    }
    let mut assignment = TopicPartitionList::new();
    for partition in partitions {
        assignment
            .add_partition_offset(topic, *partition, Offset::Beginning)
            .map_err(|error| away(&error))?;
    }
    committed.assign(&assignment).map_err(|error| away(&error))?;
    gather(&committed, topic, partitions, watching)
}

/// What `reader` gives of each partition up to its end.
fn gather(
    reader: &Reader,
    topic: &str,
    partitions: &[i32],
    watching: &impl Watching,
) -> Result<Option<BTreeMap<i32, State>>, KafkaError> {
    let mut states: BTreeMap<i32, State> =
        partitions.iter().map(|partition| (*partition, State::new())).collect();
    let mut open: std::collections::BTreeSet<i32> = partitions.iter().copied().collect();
    let (mut polled, mut read) = (0_u32, Instant::now());
    while !open.is_empty() {
        polled = polled.wrapping_add(1);
        if polled % 1024 == 1 && watching.is_over() {
            return Ok(None);
        }
        if polled % 1024 == 1
            && let Some(patience) = watching.patience()
            && read.elapsed() > patience
        {
            return Err(KafkaError::away(format!(
                "nothing was read of the state in topic {topic} for {} s: brokers have gone away meanwhile; try again when they are \
                 back",
                patience.as_secs()
            )));
        }
        match reader.poll(POLL) {
            // Nothing comes: time to look up.
            None => polled = 0,
            Some(Ok(message)) => {
                read = Instant::now();
                let (Some(key), Some(state)) =
                    (message.key(), states.get_mut(&message.partition()))
                else {
                    continue;
                };
                watching.has_read();
                match message.payload() {
                    Some(value) => _ = state.insert(key.to_vec(), value.to_vec()),
                    None => _ = state.remove(key),
                }
            }
            // Everything up to the ends above is stable, so the first end that is met lies behind them.
            Some(Err(ClientError::PartitionEOF(partition))) => {
                open.remove(&partition);
                read = Instant::now();
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(Code::TopicAuthorizationFailed) => {
                    return Err(KafkaError::away(format!(
                        "topic {topic} may not be read: {error}; the account needs Read on it"
                    )));
                }
                Some(
                    Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition,
                ) => {
                    return Err(KafkaError::away(format!("topic {topic} has vanished: {error}")));
                }
                // Brokers come and go.
                _ => {
                    tracing::debug!(error = %error, "reading the state");
                    polled = 0;
                }
            },
        }
    }
    Ok(Some(states))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::config::Config;
    use crate::document::Document;
    use crate::enrich::place::GeoIp;
    use crate::lane::clock::Clock;
    use crate::lane::fold::{Folder, Times};
    use crate::record::Input;

    fn limits() -> Limits {
        Limits::new(&Config::load(None, std::iter::empty()).unwrap().config.sessions)
    }

    #[test]
    fn progress_comes_back_and_what_is_strange_is_refused() {
        let mut progress = Progress { lane_clock: 7, ..Progress::default() };
        progress.positions.advance(&Input("kafka/t/3".into()), 12);
        let passed = Passed { missed: 3, ..Passed::default() };
        let saved = |begins| -> State {
            let records = records(begins, (&progress, &passed), Vec::new()).unwrap();
            records.filter_map(|(key, value)| Some((key, value?))).collect()
        };
        let restored = decode(saved(true), &limits()).unwrap();
        assert_eq!((restored.is_new, &restored.progress), (false, &progress));
        assert_eq!(restored.passed, passed);
        let restored = decode(State::new(), &limits()).unwrap();
        assert_eq!((restored.is_new, restored.progress), (true, Progress::default()));
        // Made anew after the first cycle.
        let told = decode(saved(false), &limits()).unwrap_err().to_string();
        assert!(told.contains("no beginning"), "{told}");
        for (key, value, told) in [
            (b"p".to_vec(), vec![9, 0, 0, 0, 1], "format 9"),
            (b"p".to_vec(), vec![1], "too short"),
            (b"x".to_vec(), super::value(b"x"), "unknown kind"),
            (b"e1".to_vec(), super::value(b"x"), "cannot be encoded or decoded"),
        ] {
            let error = decode(State::from([(key, value)]), &limits()).unwrap_err();
            assert!(error.to_string().contains(told), "{error:#}");
        }
    }

    #[test]
    fn a_command_does_not_wait_for_brokers_for_ever() {
        let mut config = Config::load(None, std::iter::empty()).unwrap().config.kafka;
        config.brokers = vec!["127.0.0.1:1".to_owned()];
        let reader = reader(&config, "read_committed").unwrap();
        let patient = Patient(Duration::from_millis(100));
        let told = gather(&reader, "g-state", &[0], &patient).unwrap_err();
        assert!(matches!(told, KafkaError::Away(_)), "{told}");
        let told = told.to_string();
        assert!(told.contains("nothing was read of the state in topic g-state"), "{told}");
    }

    fn fixture(name: &str) -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
        std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
    }

    /// The sessions of the samples, not ended yet.
    fn open_sessions() -> Folder {
        let config = Config::load(None, std::iter::empty()).unwrap().config;
        let mut folder = Folder::new(&config, Arc::new(GeoIp::default()), Keeping::Lifetimes);
        for version in ["2.9", "2.17"] {
            let events = fixture(&format!("{version}-session.jsonl"));
            let events: Vec<&str> = events.lines().collect();
            for event in &events[..events.len() - 3] {
                let times = Times { lane: 0, wall: i64::MAX };
                let mut clock = Clock::default();
                folder.fold(event.as_bytes(), "default", times, &mut clock, |_| {}).unwrap();
            }
        }
        folder
    }

    /// If this fails, versions of before could not read what this one writes: raise [`FORMAT`], or take the change back.
    #[test]
    fn a_state_is_written_as_it_was_by_earlier_versions_of_the_format() {
        let mut folder = open_sessions();
        let progress = Progress { lane_clock: 7, ..Progress::default() };
        let changes = folder.sessions.changes().unwrap();
        let passed = Passed { empty: 5, ..Passed::default() };
        let written: BTreeMap<String, String> = records(true, (&progress, &passed), changes)
            .unwrap()
            .map(|(key, value)| (STANDARD.encode(key), STANDARD.encode(value.unwrap())))
            .collect();
        let known: BTreeMap<String, String> =
            serde_json::from_str(&fixture(&format!("state/{FORMAT}.json"))).unwrap();
        assert_eq!(written, known, "{}", serde_json::to_string_pretty(&written).unwrap());

        let bytes = |text: &String| STANDARD.decode(text).unwrap();
        let saved = known.iter().map(|(key, value)| (bytes(key), bytes(value))).collect();
        let mut restored = decode(saved, &limits()).unwrap();
        assert_eq!((restored.progress, restored.passed), (progress, passed));
        let documents = |sessions: &mut Sessions| {
            let mut documents = Vec::new();
            sessions.finish();
            while sessions.documents_of_one(&mut documents) {}
            documents.sort_by(|left: &Document, right| left.id.cmp(&right.id));
            documents
        };
        let restored = documents(&mut restored.sessions);
        assert!(!restored.is_empty());
        assert_eq!(restored, documents(&mut folder.sessions));
    }
}
