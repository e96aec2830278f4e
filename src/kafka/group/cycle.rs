//! The cycle: fold what was read, send it, wait for all answers, save.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::watch;

use super::{Group, Held, IDLE, wall};
use crate::checkpoint::Tally;
use crate::checkpoint::persist::kill_point;
use crate::document::Document;
use crate::kafka::deliveries::Refusal;
use crate::kafka::intake::{Assignment, Intake, Taken, input};
use crate::kafka::state::{self, Saved};
use crate::kafka::topics::SEGMENT_BYTES;
use crate::kafka::transaction::{NotSaved, RECORD_BYTES_MAX, Sent, Transactions};
use crate::kafka::{KafkaError, letters};
use crate::lane::outlet::Batch;
use crate::lane::{Item, Lane, LaneError};
use crate::record::Input;
use crate::sink::{Sink, SinkError};

/// How a cycle ended.
pub(super) enum Cycle {
    Saved,
    /// Nothing was saved, and the lanes are of no use any more.
    BrokenOff,
    /// Nor is the producer.
    ProducerGone,
}

impl<S: Sink + Send + Sync> Group<S> {
    /// Time that was spent waiting counts where there was nothing to read.
    pub(super) fn pass(&mut self, intake: &Intake, elapsed: i64) {
        let wall = wall();
        for (partition, Held { lane, .. }) in &mut self.lanes {
            let is_behind = behind(intake, &self.config.kafka.topics, *partition, lane, &[]);
            if is_behind.is_empty() {
                lane.behind.clear();
                lane.wait(elapsed, wall);
            }
        }
    }

    /// Takes lanes forward: those that have something to read, and all of them now and then.
    pub(super) async fn cycle(
        &mut self,
        intake: &Intake,
        transactions: &Transactions,
        (mut taken, due): (BTreeMap<i32, Taken>, Vec<Document>),
    ) -> Result<Cycle, LaneError> {
        let begun = Instant::now();
        let wall = wall();
        let looks_through = self.looked_through.elapsed() >= IDLE;
        if looks_through {
            self.looked_through = begun;
        }
        let has_items = !taken.is_empty();
        let mut work = Vec::new();
        for (partition, held) in &mut self.lanes {
            let lane = &mut held.lane;
            let Taken { items, firsts } = taken.remove(partition).unwrap_or_default();
            let has_more = *partition == 0 && !due.is_empty();
            if items.is_empty() && !looks_through && !has_more {
                continue;
            }
            let items = unread(lane, items);
            let place = (self.config.kafka.topics.as_slice(), *partition);
            held.passed.pass(place, &lane.progress.positions, &items, &firsts);
            lane.behind = behind(intake, &self.config.kafka.topics, *partition, lane, &items);
            work.push((*partition, lane, items));
        }
        let mut batches = fold(work, wall, self.threads)?;
        // What belongs to all lanes goes with the one whose owner counts it.
        if let Some((_, batch)) = batches.iter_mut().find(|(partition, _)| *partition == 0) {
            batch.documents.extend(due);
        }
        let mut done: BTreeMap<i32, Batch> = BTreeMap::new();
        let watched = intake.watch();
        while !batches.is_empty() {
            kill_point("bulk");
            let (partitions, mut parts): (Vec<i32>, Vec<Batch>) = batches.into_iter().unzip();
            tokio::select! {
                biased;
                () = interrupted(watched.clone(), self.epoch) => return Ok(Cycle::BrokenOff),
                stored = self.outlet.store(&mut parts, wall) => match stored {
                    Err(LaneError::Sink(SinkError::Stopped)) => return Ok(Cycle::BrokenOff),
                    stored => stored?,
                },
            }
            for (partition, mut part) in partitions.into_iter().zip(parts) {
                let batch = done.entry(partition).or_default();
                batch.tally.add(&part.tally);
                batch.letters.append(&mut part.letters);
            }
            batches = Vec::new();
            for partition in done.keys() {
                if let Some(Held { lane, .. }) = self.lanes.get_mut(partition) {
                    let rest = lane.rest();
                    if !rest.is_empty() {
                        batches.push((*partition, rest));
                    }
                }
            }
        }
        kill_point("bulk-answered");
        let saved = self.save(intake, transactions, &done, &watched)?;
        if let Cycle::Saved = saved {
            for batch in done.values() {
                self.outlet.tell(batch, true);
            }
            self.dealt(intake);
            if has_items {
                self.outlet.metrics.cycle_seconds.observe(begun.elapsed().as_secs_f64());
            }
        }
        Ok(saved)
    }

    /// Says how far the lanes are.
    pub(super) fn dealt(&self, intake: &Intake) {
        for (partition, Held { lane, .. }) in &self.lanes {
            for topic in &self.config.kafka.topics {
                let input = input(topic, *partition);
                let next = lane.progress.positions.next(&input);
                intake.dealt_with(input, next);
            }
        }
    }

    /// Saves what has become of `done`, which the sink has answered for.
    fn save(
        &mut self,
        intake: &Intake,
        transactions: &Transactions,
        done: &BTreeMap<i32, Batch>,
        watched: &watch::Receiver<Assignment>,
    ) -> Result<Cycle, LaneError> {
        let kafka = &self.config.kafka;
        let (state_topic, letters_topic) = (kafka.state_topic(), kafka.dead_letters_topic());
        let mut offsets = TopicPartitionList::new();
        let mut saved: Vec<(i32, Saved)> = Vec::new();
        let mut refused = Vec::new();
        for (partition, batch) in done {
            let Some(Held { lane, passed, is_new, has_gone_on, .. }) =
                self.lanes.get_mut(partition)
            else {
                continue;
            };
            lane.progress.tally.add(&batch.tally);
            let changes = lane.folder.sessions.changes()?;
            if changes.is_empty() && batch.tally == Tally::default() && !*has_gone_on {
                continue;
            }
            let records = state::records(*is_new, (&lane.progress, passed), changes)
                .map_err(|error| LaneError::State(error.into()))?;
            saved.extend(records.map(|record| (*partition, record)));
            refused.extend(batch.letters.iter().map(letters::encode));
            for topic in &kafka.topics {
                let next = lane.progress.positions.next(&input(topic, *partition));
                let next = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
                // Also where nothing was read yet: a transaction without offsets is nobody's to refuse. Fails for offsets that
                // cannot be, and there are none.
                let _added = offsets.add_partition_offset(topic, *partition, next);
            }
        }
        if saved.is_empty() {
            return Ok(Cycle::Saved);
        }
        let Some(metadata) = intake.metadata() else { return Ok(Cycle::BrokenOff) };
        // The metadata is of this moment: of a later assignment than the lanes, it would let them save what others have.
        if is_over(watched, self.epoch) {
            return Ok(Cycle::BrokenOff);
        }
        let records = || {
            let states = saved.iter().map(|(partition, (key, value))| Sent {
                topic: &state_topic,
                partition: Some(*partition),
                key,
                value: value.as_deref(),
                headers: None,
            });
            states.chain(refused.iter().map(|(key, value, headers)| Sent {
                topic: &letters_topic,
                partition: None,
                key,
                value: Some(value),
                headers: Some(headers.clone()),
            }))
        };
        let epoch = self.epoch;
        let is_over = || is_over(watched, epoch);
        let stops = || self.stop.is_cancelled();
        let committed = transactions.commit(records, &offsets, metadata, &is_over, &stops);
        let outcome = if committed.is_ok() { "saved" } else { "not_saved" };
        self.outlet.metrics.kafka.transaction(outcome);
        match committed {
            Ok(()) => {
                for (partition, _) in &saved {
                    if let Some(held) = self.lanes.get_mut(partition) {
                        held.is_new = false;
                        held.has_gone_on = false;
                        let missed = held.passed.missed.saturating_sub(held.missed_told);
                        held.missed_told = held.passed.missed;
                        self.outlet.metrics.kafka.missed.inc_by(missed);
                    }
                }
                Ok(Cycle::Saved)
            }
            Err(NotSaved::NotOurs(told)) => {
                tracing::warn!(reason = told, "a cycle was not saved; it will be repeated");
                Ok(Cycle::BrokenOff)
            }
            // So the brokers do with a transaction that took too long; another process of this name is noticed by the group.
            Err(NotSaved::Fenced(told) | NotSaved::Broken(told)) => {
                tracing::warn!(reason = told, "a cycle was not saved; it will be repeated");
                Ok(Cycle::ProducerGone)
            }
            Err(NotSaved::Refused(topic, refusal)) => Err(not_taken(&topic, refusal).into()),
            Err(NotSaved::Over) => Ok(Cycle::BrokenOff),
        }
    }
}

/// A topic of callscope's own takes no record.
fn not_taken(topic: &str, refusal: Refusal) -> KafkaError {
    let larger = |than: &str, setting: &str, value: usize| {
        KafkaError::refused(format!(
            "topic {topic} refuses a record that is larger than {than}; let it take more: `kafka-configs.sh --alter --entity-type \
             topics --entity-name {topic} --add-config {setting}={value}`"
        ))
    };
    match refusal {
        Refusal::Size => larger("its records may be", "max.message.bytes", RECORD_BYTES_MAX),
        Refusal::Segment => larger("its segments are", "segment.bytes", SEGMENT_BYTES),
        Refusal::Right => KafkaError::refused(format!(
            "topic {topic} may not be written: the account needs Write on it"
        )),
        // Whoever joins anew makes it, or finds out what is lost with it.
        Refusal::Gone => KafkaError::away(format!("topic {topic} was deleted")),
    }
}

/// Items that were not dealt with before; what was read anew after a rebalance may be older than the state.
fn unread<S>(lane: &Lane<S>, mut items: Vec<Item>) -> Vec<Item> {
    items.retain(|item| {
        let record = item.record();
        record.position.offset >= lane.progress.positions.next(&record.position.input)
    });
    items
}

/// Inputs that have more to read than `items`.
fn behind<S>(
    intake: &Intake,
    topics: &[String],
    partition: i32,
    lane: &Lane<S>,
    items: &[Item],
) -> BTreeSet<Input> {
    let inputs = topics.iter().map(|topic| input(topic, partition));
    let is_behind = |known: &Input| {
        let last = items.iter().rev().find_map(|item| {
            let record = item.record();
            (record.position.input == *known).then_some(record.next_offset)
        });
        let next = last.unwrap_or_else(|| lane.progress.positions.next(known));
        intake.lag(known, next) != Some(0)
    };
    inputs.filter(is_behind).collect()
}

/// Folds the items of all lanes, `threads` of them at once.
fn fold<S: Sink + Send + Sync>(
    mut work: Vec<(i32, &mut Lane<S>, Vec<Item>)>,
    wall: i64,
    threads: usize,
) -> Result<Vec<(i32, Batch)>, LaneError> {
    let one = |(partition, lane, items): (i32, &mut Lane<S>, Vec<Item>)| {
        lane.fold(items, wall).map(|batch| (partition, batch))
    };
    let filled = work.iter().filter(|(_, _, items)| !items.is_empty()).count();
    if filled < 2 || threads < 2 {
        return work.into_iter().map(one).collect();
    }
    // The longest first, each to the next pile: piles of about one size.
    work.sort_by_key(|(_, _, items)| std::cmp::Reverse(items.len()));
    let mut piles: Vec<Vec<_>> = (0..threads.min(filled)).map(|_| Vec::new()).collect();
    let count = piles.len();
    for (index, lane) in work.into_iter().enumerate() {
        if let Some(pile) = piles.get_mut(index % count) {
            pile.push(lane);
        }
    }
    std::thread::scope(|scope| {
        let folding: Vec<_> = piles
            .into_iter()
            .map(|pile| {
                scope.spawn(move || pile.into_iter().map(one).collect::<Result<Vec<_>, _>>())
            })
            .collect();
        let mut batches = Vec::new();
        for thread in folding {
            match thread.join() {
                Ok(folded) => batches.extend(folded?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(batches)
    })
}

/// Whether what is done for `epoch` is of no use any more.
fn is_over(assignment: &watch::Receiver<Assignment>, epoch: u64) -> bool {
    let assignment = assignment.borrow();
    assignment.epoch != epoch || assignment.until.is_some_and(|until| until <= Instant::now())
}

/// Ends when [`is_over`] becomes true.
async fn interrupted(mut assignment: watch::Receiver<Assignment>, epoch: u64) {
    loop {
        let until = {
            let assignment = assignment.borrow_and_update();
            if assignment.epoch != epoch {
                return;
            }
            assignment.until
        };
        match until {
            Some(until) => {
                tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => return,
                    changed = assignment.changed() => if changed.is_err() { return },
                }
            }
            None => {
                if assignment.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}
