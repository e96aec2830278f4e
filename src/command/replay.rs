//! `replay`: folds what is in the topics into an index, in no group.
//!
//! Everything, into an index of its own, is what an import of the same events is. A part knows too little of the platform to
//! count it, and the live index has a group that counts, and that ends what is open when its time has come: then no
//! `platformStats` are written, and silent is only what has been so by the events' clock and by that of this machine.

use super::import::{Bar, Ending, Import};
use super::{kafka_failure, stop_on_signal, wall};
use crate::cli::{ExitCode, Failure};
use crate::config::{Config, SinkKind};
use crate::kafka::range::{self, Range};

pub(super) async fn run(
    mut config: Config,
    range: Range,
    into: String,
) -> Result<ExitCode, Failure> {
    if let (Some(from), Some(to)) = (range.from, range.to)
        && from >= to
    {
        let error = anyhow::anyhow!(
            "--from {} is not before --to {}: no record can be in between",
            time(from),
            time(to)
        );
        return Err(Failure::new(ExitCode::Usage, error));
    }
    if !config.kafka.is_set() {
        let error = anyhow::anyhow!("there is no Kafka in the settings; set kafka.brokers");
        return Err(Failure::new(ExitCode::Misconfigured, error));
    }
    let is_live = config.elasticsearch.index == into;
    let is_whole = range.is_whole() && !is_live;
    config.elasticsearch.index = into;
    let stop = stop_on_signal()?;
    let total = tokio::task::block_in_place(|| range::count(&config)).map_err(kafka_failure)?;
    let bar = Bar::new("records", total);
    let mut replay = Import::open(&config, SinkKind::Elasticsearch, stop, bar).await?;
    let done = async {
        let (reading, part) = (config.clone(), range.clone());
        let read = replay.read(move |batches| {
            let (mut found, mut looked_at) = (0, 0);
            let others = range::read(&reading, &part, |items, seen| {
                (found, looked_at) = (found + items.len(), seen);
                batches.blocking_send((items, seen)).is_ok()
            });
            others.map(|others| (others, found, looked_at))
        });
        let (others, found, looked_at) = read.await?.map_err(kafka_failure)?;
        if found == 0 && !range.is_whole() {
            return Ok(Some(nothing(&config, &range, looked_at)));
        }
        let ending = if is_whole {
            Ending::Whole
        } else {
            Ending::Part(replay.clock().max(others).min(wall()))
        };
        replay.finish(ending).await?;
        Ok(None)
    };
    let (nothing, done) = match done.await {
        Ok(nothing) => (nothing, Ok(None::<anyhow::Error>)),
        Err(failure) => (None, Err(failure)),
    };
    let code = replay.end(done)?;
    nothing.map_or(Ok(code), |error| Err(Failure::new(ExitCode::Usage, error)))
}

/// No record is in `range`, of as many as were `looked_at`.
fn nothing(config: &Config, range: &Range, looked_at: u64) -> anyhow::Error {
    let mut asked = String::new();
    for (word, value) in [
        (" of session", range.session.clone()),
        (" from", range.from.map(time)),
        (" before", range.to.map(time)),
    ] {
        if let Some(value) = value {
            asked = format!("{asked}{word} {value}");
        }
    }
    anyhow::anyhow!(
        "no record{asked} in {}, looked at {looked_at} records; see --session, --from and --to, and how long the brokers keep records",
        config.kafka.topics.join(", ")
    )
}

fn time(at: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_part_without_records_is_told() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        producer.send(BaseRecord::to("events").key("known").payload("garbage")).unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::load(None, std::iter::empty()).unwrap().config;
        config.data_dir = folder.path().to_owned();
        config.kafka.brokers = vec![brokers];
        config.kafka.topics = vec!["events".to_owned()];
        // Nothing is written there.
        config.sink.setup = false;
        let replayed = async |session: &str| {
            let range = Range { session: Some(session.to_owned()), ..Range::default() };
            run(config.clone(), range, "again".to_owned()).await
        };
        let failure = replayed("unknown").await.unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        let told = failure.error.to_string();
        let expected = "no record of session unknown in events, looked at 1 records";
        assert!(told.starts_with(expected), "{told}");
        // What is there and no event was looked at as well.
        assert_eq!(replayed("known").await.unwrap(), ExitCode::DataRejected);
    }
}
