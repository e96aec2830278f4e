//! Whether brokers keep what is in the topics: of those that are read every record for a time, of callscope's own the last of each
//! key for ever. Anybody can change that at any time, and nothing that is read shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier};

use super::{ANSWER_WITHIN, Own, admin, own};
use crate::config::KafkaConfig;
use crate::kafka::{KafkaError, Quiet};

/// How often it is asked again beside an instance.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// What the brokers keep a topic with: setting to value.
type Settings = BTreeMap<String, String>;

/// Looks at the topics that are read, those that are taken over included, and warns of what it may not see.
///
/// # Errors
///
/// If one is compacted, or no broker answers.
pub async fn look(config: &KafkaConfig) -> Result<(), KafkaError> {
    look_also(config, &[]).await
}

/// Looks at them and at `own`, topics of callscope's own that are there.
///
/// # Errors
///
/// If one that is read is compacted or one of callscope's own is not, or no broker answers.
pub(super) async fn look_also(config: &KafkaConfig, own: &[&Own]) -> Result<(), KafkaError> {
    let found = settings(config, &admin(config)?, own).await?;
    judge(config, own, &found)?;
    warn(config, own, &found);
    Ok(())
}

/// Looks now and then, and ends with what is wrong. What the brokers do not answer they are asked again.
pub async fn watch(config: &KafkaConfig) -> KafkaError {
    // How many partitions they have is not looked at.
    let own = own(config, 1);
    let own: Vec<&Own> = own.iter().collect();
    let admin = match admin(config) {
        Ok(admin) => admin,
        Err(error) => return error,
    };
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        match settings(config, &admin, &own).await {
            Ok(found) => {
                if let Err(error) = judge(config, &own, &found) {
                    return error;
                }
            }
            Err(error) => tracing::debug!(%error, "looking at the settings of topics"),
        }
    }
}

fn read(config: &KafkaConfig) -> impl Iterator<Item = &str> {
    config.topics.iter().chain(&config.rekey_from).map(String::as_str)
}

/// Those of the topics that are there and whose settings the account may read.
async fn settings(
    config: &KafkaConfig,
    admin: &AdminClient<Quiet>,
    own: &[&Own],
) -> Result<BTreeMap<String, Settings>, KafkaError> {
    let topics: Vec<&str> = read(config).chain(own.iter().map(|own| own.name.as_str())).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
    let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let described = admin.describe_configs(&asked, &options).await.map_err(|error| {
        let topics = topics.join(", ");
        KafkaError::away(format!("cannot read the settings of topic {topics}: {error}"))
    })?;
    let found = described.into_iter().filter_map(Result::ok).filter_map(|known| {
        let OwnedResourceSpecifier::Topic(topic) = known.specifier else { return None };
        let entries = known.entries.into_iter();
        let settings = entries.filter_map(|entry| Some((entry.name, entry.value?)));
        Some((topic, settings.collect::<Settings>()))
    });
    // rdkafka gives no settings where the brokers give an error.
    Ok(found.filter(|(_, settings)| settings.contains_key(POLICY)).collect())
}

const POLICY: &str = "cleanup.policy";

fn judge(
    config: &KafkaConfig,
    own: &[&Own],
    found: &BTreeMap<String, Settings>,
) -> Result<(), KafkaError> {
    let policy = |topic: &str| found.get(topic)?.get(POLICY);
    for topic in read(config) {
        let Some(policy) = policy(topic).filter(|policy| policy.contains("compact")) else {
            continue;
        };
        return Err(KafkaError::refused(format!(
            "topic {topic} has cleanup.policy {policy:?}, so the brokers delete all records of a key but the last; let them keep each \
             for a time: `kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=delete`; what is gone by \
             now `callscope import --to kafka` of the CDR files of that time brings back"
        )));
    }
    for Own { name, properties, holds, can_go, .. } in own {
        let Some(policy) = policy(name).filter(|policy| *policy != "compact") else { continue };
        let or = if *can_go { ", or delete it: it is made anew as it has to be" } else { "" };
        return Err(KafkaError::refused(format!(
            "topic {name} has cleanup.policy {policy:?}, so the brokers delete {holds}; let them keep the last of each: {}{or}",
            change(name, properties)
        )));
    }
    Ok(())
}

/// Says what cannot be seen, and which topics take less than they may be given.
fn warn(config: &KafkaConfig, own: &[&Own], found: &BTreeMap<String, Settings>) {
    let unseen = |topics: Vec<&str>| -> String {
        let unseen = topics.into_iter().filter(|topic| !found.contains_key(*topic));
        unseen.collect::<Vec<_>>().join(", ")
    };
    let own_names = own.iter().map(|own| own.name.as_str()).collect();
    for (topics, policy) in
        [(unseen(read(config).collect()), "delete"), (unseen(own_names), "compact")]
    {
        if !topics.is_empty() {
            tracing::warn!(
                topics,
                "the account may not read the settings of these topics (it needs DescribeConfigs on them); see yourself that their \
                 cleanup.policy is {policy}"
            );
        }
    }
    for Own { name, properties, .. } in own {
        let Some(settings) = found.get(name) else { continue };
        let is_less = |(setting, wanted): &&(&str, String)| {
            let number = |value: &String| value.parse::<u64>().ok();
            let known = settings.get(*setting).and_then(number);
            setting.ends_with(".bytes") && known.zip(number(wanted)).is_some_and(|(a, b)| a < b)
        };
        let less: Vec<_> = properties.iter().filter(is_less).cloned().collect();
        if !less.is_empty() {
            tracing::warn!(
                topic = name,
                "this topic takes only smaller records than it may be given, and instances end when it refuses one; let it take more: {}",
                change(name, &less)
            );
        }
    }
}

/// The command that gives a topic settings.
fn change(topic: &str, settings: &[(&'static str, String)]) -> String {
    let settings: Vec<String> =
        settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!(
        "`kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {}`",
        settings.join(",")
    )
}
