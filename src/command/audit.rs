//! `audit`: whether everything that was read is accounted for: offsets, outcomes of records, letters and documents of a group.
//!
//! The group may be at work meanwhile. What a state says lies between what was committed before and after it was read; letters and
//! documents are looked at last, and there are at least as many of them as the state has counted.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::{kafka_failure, print, refresh};
use crate::checkpoint::{Progress, Tally};
use crate::cli::{ExitCode, Failure};
use crate::config::{Config, SinkKind};
use crate::kafka::letters::Letters;
use crate::kafka::passed::Passed;
use crate::kafka::{intake, range, state, topics};
use crate::record::Input;
use crate::sessions::Limits;
use crate::sink::StatusSender;
use crate::sink::elasticsearch::ElasticsearchSink;

/// So many offsets may be those of marks whose records were there before the group began.
const MARKS_ALONE: u64 = 1_000;

pub(super) async fn run(config: &Config) -> Result<ExitCode, Failure> {
    if !config.kafka.is_set() {
        let error = anyhow::anyhow!("there is no Kafka in the settings; set kafka.brokers");
        return Err(Failure::new(ExitCode::Misconfigured, error));
    }
    topics::has_state(&config.kafka).await.map_err(kafka_failure)?;
    // Of records that brokers have deleted in this way nothing is left by which they could be counted.
    topics::kept::look(&config.kafka).await.map_err(kafka_failure)?;
    let (committed, lanes, letters) = tokio::task::block_in_place(|| {
        let before = range::places(config)?;
        let mut partitions: Vec<i32> = before.iter().map(|place| place.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let limits = Limits::new(&config.sessions);
        let lanes = state::progress(&config.kafka, &limits, &partitions)?;
        let after = range::places(config)?;
        let committed = Committed { behind: range::behind(config, &after)?, before, after };
        Ok((committed, lanes, Letters::read(&config.kafka)?))
    })
    .map_err(kafka_failure)?;
    let mut gaps = Vec::new();
    let mut sum = Tally::default();
    for (partition, (progress, passed)) in &lanes {
        offsets(*partition, (progress, passed), &committed, &mut gaps)?;
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
        "dead letters: {} counted, {} in topic {}; the others are of the same documents, were tried again, or were removed",
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
    behind: BTreeMap<(String, i32), u64>,
}

/// Every offset below the committed one is a record with an outcome.
fn offsets(
    partition: i32,
    (progress, passed): (&Progress, &Passed),
    committed: &Committed,
    gaps: &mut Vec<String>,
) -> Result<(), Failure> {
    let mut offsets = 0;
    for place in committed.after.iter().filter(|place| place.partition == partition) {
        let input = intake::input(&place.topic, partition);
        let next = progress.positions.next(&input);
        offsets += next.saturating_sub(passed.began.next(&input));
        let is_same = |known: &&range::Place| {
            known.topic == place.topic && known.partition == place.partition
        };
        let before = committed.before.iter().find(is_same).and_then(|known| known.committed);
        if let Some(missed) = deleted(place, passed, &input) {
            gaps.push(format!(
                "{} {partition}: {missed} records behind {} were deleted by the brokers before the group has dealt with them; `callscope \
                 import --to kafka` of the CDR files of that time brings the events back",
                place.topic,
                place.committed.unwrap_or(0)
            ));
        }
        let (before, after) = (before.unwrap_or(0), place.committed.unwrap_or(0));
        print(&format!(
            "{} {partition}: offsets {} to {}, dealt with up to {after}, {} behind",
            place.topic,
            place.first,
            place.end,
            committed.behind.get(&(place.topic.clone(), partition)).copied().unwrap_or(0)
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
    let (records, Passed { missed, empty, .. }) = (progress.tally.records, passed);
    if *empty > 0 {
        print(&format!(
            "partition {partition}: {empty} offsets held no record, as after transactions of producers"
        ))?;
    }
    // To a mark belongs at least one record, if it was not undone.
    if *empty > records + missed + MARKS_ALONE {
        print(&format!(
            "partition {partition}: that is more than marks of transactions alone; producers have undone many, or a topic was compacted for \
             a time and has lost records, which `callscope import --to kafka` of the CDR files of that time brings back"
        ))?;
    }
    if *missed > 0 {
        gaps.push(format!(
            "partition {partition}: {missed} records were deleted by the brokers before they were read; `callscope import --to kafka` of \
             the CDR files of that time brings the events back"
        ));
    }
    if records + missed + empty != offsets {
        gaps.push(format!(
            "partition {partition}: {offsets} offsets were passed, {records} records have an outcome, {missed} were deleted before, and \
             {empty} offsets held none"
        ));
    }
    Ok(())
}

/// How many records are gone that the group was yet to read. It has not begun where nothing was found yet.
fn deleted(place: &range::Place, passed: &Passed, input: &Input) -> Option<u64> {
    let next = passed.began.knows(input).then(|| passed.began.next(input))?;
    let missed = place.first.checked_sub(next.max(place.committed?))?;
    // Producers that have left marks before have left that one.
    let is_mark = missed == 1 && passed.empty > 0;
    (missed > 0 && !is_mark).then_some(missed)
}

/// Every record that is an event has its document. Of those that were there before, nobody knows how many are the same: a copy has
/// that of the first one, another group has written the same, and a cycle that was repeated after a crash found its own.
async fn documents(config: &Config, sum: &Tally, gaps: &mut Vec<String>) -> Result<(), Failure> {
    let (stop, status) = (CancellationToken::new(), StatusSender::default());
    let sink = ElasticsearchSink::new(&config.elasticsearch, stop, status)
        .map_err(Failure::with(ExitCode::Misconfigured))?;
    let index = &config.elasticsearch.index;
    refresh(&sink, index).await;
    let count =
        sink.count_raw(index).await.map_err(|error| Failure::new(ExitCode::Unreachable, error))?;
    let events = sum.folded + sum.duplicate + sum.passed + sum.late;
    let least = events.saturating_sub(sum.existed + sum.refused);
    print(&format!("raw documents: {count} in {index}, of {events} events"))?;
    if sum.existed > 0 {
        print(&format!(
            "of those, {} were there before (copies, a cycle that was repeated, another group); whether they still are is told by \
             `callscope replay --into OTHER` and `callscope diff {index} OTHER`",
            sum.existed
        ))?;
    }
    if count < least {
        gaps.push(format!(
            "{index} holds {count} raw documents, at least {least} were stored there: {} are gone, by retention or by somebody's hand; \
             `callscope replay --into {index}` writes them again",
            least - count
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `offsets` finds where the group has passed `next` offsets of one partition, of which so many were records, missed
    /// and empty.
    fn gaps((next, committed): (u64, u64), (records, missed, empty): (u64, u64, u64)) -> String {
        let input = intake::input("t", 3);
        let mut progress = Progress::default();
        progress.positions.advance(&input, next);
        progress.tally.records = records;
        let mut passed = Passed { missed, empty, ..Passed::default() };
        passed.began.advance(&input, 0);
        let place = range::Place {
            topic: "t".to_owned(),
            partition: 3,
            first: 0,
            end: next.max(committed),
            committed: Some(committed),
        };
        let committed =
            Committed { before: vec![place.clone()], after: vec![place], behind: BTreeMap::new() };
        let mut gaps = Vec::new();
        offsets(3, (&progress, &passed), &committed, &mut gaps).unwrap();
        gaps.join("\n")
    }

    #[test]
    fn every_offset_has_been_a_record_or_is_a_gap() {
        assert_eq!(gaps((10, 10), (10, 0, 0)), "");
        // Marks and undone records, however many.
        assert_eq!(gaps((21_002, 21_002), (10_000, 0, 11_002)), "");
        let told = gaps((10, 10), (7, 3, 0));
        assert!(told.contains("3 records were deleted by the brokers before they were read"));
        let told = gaps((10, 10), (9, 0, 0));
        assert!(told.contains("10 offsets were passed, 9 records have an outcome"));
        let told = gaps((10, 12), (10, 0, 0));
        assert!(told.contains("the group has committed 12, its state says 10"), "{told}");
    }
}
