//! `replay`: folds what is in the topics into an index, in no group.

use super::import::{Bar, Import};
use super::{kafka_failure, stop_on_signal};
use crate::cli::{ExitCode, Failure};
use crate::config::{Config, SinkKind};
use crate::kafka::range::{self, Range};

pub(super) async fn run(
    mut config: Config,
    range: Range,
    into: String,
) -> Result<ExitCode, Failure> {
    if !config.kafka.is_set() {
        let error = anyhow::anyhow!("there is no Kafka in the settings; set kafka.brokers");
        return Err(Failure::new(ExitCode::Misconfigured, error));
    }
    config.elasticsearch.index = into;
    let stop = stop_on_signal()?;
    let total = tokio::task::block_in_place(|| range::count(&config)).map_err(kafka_failure)?;
    let bar = Bar::new("records", total);
    let mut replay = Import::open(&config, SinkKind::Elasticsearch, stop, bar).await?;
    let done = async {
        let reading = config.clone();
        let read = replay.read(move |batches| {
            range::read(&reading, &range, |items, seen| {
                batches.blocking_send((items, seen)).is_ok()
            })
        });
        if let Err(error) = read.await? {
            return Err(kafka_failure(error));
        }
        replay.finish().await?;
        Ok(None::<anyhow::Error>)
    };
    let done = done.await;
    replay.end(done)
}
