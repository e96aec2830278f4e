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
        let reading = config.clone();
        let read = replay.read(move |batches| {
            range::read(&reading, &range, |items, seen| {
                batches.blocking_send((items, seen)).is_ok()
            })
        });
        let others = read.await?.map_err(kafka_failure)?;
        let ending = if is_whole {
            Ending::Whole
        } else {
            Ending::Part(replay.clock().max(others).min(wall()))
        };
        replay.finish(ending).await?;
        Ok(None::<anyhow::Error>)
    };
    let done = done.await;
    replay.end(done)
}
