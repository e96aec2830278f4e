//! `audit`: whether everything that was read is accounted for: offsets, outcomes of records, letters and documents of a group.
//!
//! The group may be at work meanwhile. What a state says lies between what was committed before and after it was read; letters and
//! documents are looked at last, and there are at least as many of them as the state has counted.

use tokio_util::sync::CancellationToken;

use super::{kafka_failure, print, tell};
use crate::checkpoint::{Progress, Tally};
use crate::cli::{ExitCode, Failure};
use crate::config::{Config, SinkKind};
use crate::kafka::letters::Letters;
use crate::kafka::{intake, range, state};
use crate::sessions::Limits;
use crate::sink::StatusSender;
use crate::sink::elasticsearch::ElasticsearchSink;

pub(super) async fn run(config: &Config) -> Result<ExitCode, Failure> {
    if !config.kafka.is_set() {
        let error = anyhow::anyhow!("there is no Kafka in the settings; set kafka.brokers");
        return Err(Failure::new(ExitCode::Misconfigured, error));
    }
    let (committed, lanes, letters) = tokio::task::block_in_place(|| {
        let before = range::places(config)?;
        let mut partitions: Vec<i32> = before.iter().map(|place| place.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let limits = Limits::new(&config.sessions);
        let lanes = state::progress(&config.kafka, &limits, &partitions)?;
        let committed = Committed { before, after: range::places(config)? };
        Ok((committed, lanes, Letters::read(&config.kafka)?))
    })
    .map_err(kafka_failure)?;
    let mut gaps = Vec::new();
    let mut sum = Tally::default();
    for (partition, progress) in &lanes {
        offsets(*partition, progress, &committed, &mut gaps)?;
        if !progress.tally.balances() {
            gaps.push(format!(
                "partition {partition}: outcomes do not add up: {:?}",
                progress.tally
            ));
        }
        sum.add(&progress.tally);
    }
    print(&format!(
        "records: {} = {} folded, {} duplicate, {} passed, {} late, {} dead, {} skipped",
        sum.records, sum.folded, sum.duplicate, sum.passed, sum.late, sum.dead, sum.skipped
    ))?;
    print(&format!(
        "documents: {} = {} stored, {} existed, {} older, {} refused",
        sum.documents, sum.stored, sum.existed, sum.older, sum.refused
    ))?;
    print(&format!(
        "dead letters: {} counted, {} in topic {}; the others were tried again or discarded",
        sum.dead + sum.refused,
        letters.iter().count(),
        config.kafka.dead_letters_topic()
    ))?;
    match config.sink.kind {
        SinkKind::Elasticsearch => documents(config, &sum, &mut gaps).await?,
        SinkKind::Embedded | SinkKind::Stdout => {
            print("raw documents: not counted, they are not in Elasticsearch; see sink.kind")?;
        }
    }
    for gap in &gaps {
        print(&format!("gap: {gap}"))?;
    }
    Ok(if gaps.is_empty() { ExitCode::Ok } else { ExitCode::Different })
}

/// What the group had committed before and after its state was read: it may be at work.
struct Committed {
    before: Vec<range::Place>,
    after: Vec<range::Place>,
}

/// Every offset below the committed one is a record with an outcome.
fn offsets(
    partition: i32,
    progress: &Progress,
    committed: &Committed,
    gaps: &mut Vec<String>,
) -> Result<(), Failure> {
    let mut passed = 0;
    for place in committed.after.iter().filter(|place| place.partition == partition) {
        let next = progress.positions.next(&intake::input(&place.topic, partition));
        passed += next;
        let is_same = |known: &&range::Place| {
            known.topic == place.topic && known.partition == place.partition
        };
        let before = committed.before.iter().find(is_same).and_then(|known| known.committed);
        let (before, after) = (before.unwrap_or(0), place.committed.unwrap_or(0));
        print(&format!(
            "{} {partition}: offsets {} to {}, dealt with up to {after}, {} behind",
            place.topic,
            place.first,
            place.end,
            place.end.saturating_sub(after)
        ))?;
        if next < before || next > after {
            let told = if before == after {
                format!("has committed {after}")
            } else {
                format!("went from {before} to {after} meanwhile")
            };
            gaps.push(format!(
                "{} {partition}: the group {told}, its state says {next}",
                place.topic
            ));
        }
    }
    let records = progress.tally.records;
    if records != passed {
        gaps.push(format!(
            "partition {partition}: {passed} offsets were passed and {records} records have an outcome; the others were deleted before \
             they were read (retention, compaction; see callscope_kafka_missed_total), or are markers of other producers' transactions"
        ));
    }
    Ok(())
}

/// Every record that is an event has its document. A copy has that of the first one, so there may be fewer; and a cycle that was
/// repeated after a crash found its own.
async fn documents(config: &Config, sum: &Tally, gaps: &mut Vec<String>) -> Result<(), Failure> {
    let (stop, status) = (CancellationToken::new(), StatusSender::default());
    let sink = ElasticsearchSink::new(&config.elasticsearch, stop, status)
        .map_err(Failure::with(ExitCode::Misconfigured))?;
    let index = &config.elasticsearch.index;
    if let Err(error) = sink.refresh(index).await {
        // An account that may not do it can still count.
        tell(&format!("warning: what was written a moment ago may not be counted: {error:#}"));
    }
    let count =
        sink.count_raw(index).await.map_err(|error| Failure::new(ExitCode::Unreachable, error))?;
    let events = sum.folded + sum.duplicate + sum.passed + sum.late;
    let least = events.saturating_sub(sum.existed + sum.refused);
    print(&format!("raw documents: {count} in {index}, of {events} events"))?;
    if count < least {
        gaps.push(format!(
            "{index} holds {count} raw documents, at least {least} were stored there: {} are gone, by retention or by somebody's hand; \
             `callscope replay --into {index}` writes them again",
            least - count
        ));
    }
    Ok(())
}
