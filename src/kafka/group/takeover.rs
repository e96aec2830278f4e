//! Taking partitions over: their state is read to the end of what is committed, and has to fit what the group has committed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Group, Held};
use crate::kafka::KafkaError;
use crate::kafka::ends::Place;
use crate::kafka::intake::{Assignment, Intake, input};
use crate::kafka::standing::Board;
use crate::kafka::state::{self, Restored, Watching};
use crate::lane::fold::Folder;
use crate::lane::{Lane, LaneError};
use crate::record::Input;
use crate::sessions::Limits;
use crate::sink::Sink;

/// How often it is told how far reading a state is.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// The last record that was read is looked for among so many offsets: behind it there may be marks of transactions.
const LAST_WITHIN: u64 = 10;

impl<S: Sink + Send + Sync> Group<S> {
    /// Reads the state of what was assigned.
    pub(super) fn take_over(
        &mut self,
        intake: &Intake,
        assignment: &Assignment,
    ) -> Result<(), LaneError> {
        let begun = Instant::now();
        self.board.change(|standing| {
            standing.restoring = assignment.partitions.clone();
            standing.restored = 0;
        });
        let kafka = &self.config.kafka;
        let committed = intake.committed(&kafka.topics, &assignment.partitions)?;
        let partitions: Vec<i32> = assignment.partitions.iter().copied().collect();
        let watching = Restoring {
            epoch: assignment.epoch,
            read: AtomicU64::new(0),
            assignment: intake.watch(),
            stop: &self.stop,
            board: &self.board,
            told: Mutex::new(begun),
        };
        let limits = Limits::new(&self.config.sessions);
        let (limits, watching) = (&limits, &watching);
        let piles = partitions.chunks(partitions.len().div_ceil(self.threads).max(1));
        let read = std::thread::scope(|scope| {
            let reading: Vec<_> = piles
                .map(|pile| scope.spawn(move || state::restore(kafka, limits, pile, watching)))
                .collect();
            reading
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| {
                        Err(KafkaError::away("a thread that reads the state panicked"))
                    })
                })
                .collect::<Result<Vec<_>, _>>()
        })?;
        let Some(read) = read.into_iter().collect::<Option<Vec<_>>>() else { return Ok(()) };
        let restored = watching.read.load(Ordering::Relaxed);
        let mut last = Vec::new();
        for (partition, restored) in read.into_iter().flatten() {
            let bounds = self.check(intake, partition, &restored, &committed)?;
            for (topic, bounds) in bounds {
                let next = restored.progress.positions.next(&input(&topic, partition));
                if next > bounds.start {
                    let offsets = next.saturating_sub(LAST_WITHIN).max(bounds.start)..next;
                    last.push(Place { topic, partition, offsets });
                }
            }
            let held = self.held(restored);
            self.lanes.insert(partition, held);
        }
        self.look_first(intake, last)?;
        self.epoch = assignment.epoch;
        let held = assignment.partitions.clone();
        let seconds = begun.elapsed().as_secs_f64();
        self.outlet.metrics.kafka.restore_seconds.observe(seconds);
        self.dealt(intake);
        tracing::info!(partitions = ?held, restored, seconds, "state of the partitions is here");
        self.board.change(|standing| {
            standing.restoring.clear();
            standing.restored = restored;
            standing.held = held;
        });
        Ok(())
    }

    /// Offsets without the state they belong to: somebody has deleted the topic, or let it expire. Starting over silently
    /// would cut sessions in two. A state beyond the records it came of: they stand no more at the offsets by which what was
    /// read before is told from what is new. Gives the bounds of each topic.
    fn check(
        &self,
        intake: &Intake,
        partition: i32,
        restored: &Restored,
        committed: &BTreeMap<(String, i32), Option<i64>>,
    ) -> Result<BTreeMap<String, Range<u64>>, KafkaError> {
        let topics = &self.config.kafka.topics;
        let is_read = |known: &Input| topics.iter().any(|topic| input(topic, partition) == *known);
        if let Some((known, _)) =
            restored.progress.positions.iter().find(|(known, next)| *next > 0 && !is_read(known))
        {
            return Err(KafkaError::refused(format!(
                "the state of partition {partition} in topic {} has dealt with {known} (kafka/TOPIC/PARTITION), which is not among \
                 kafka.topics: all members of a group read the same topics, and none can be left out later; start this one with the \
                 topics of the others, or give those that read other topics another kafka.group",
                self.config.kafka.state_topic()
            )));
        }
        let mut all = BTreeMap::new();
        for topic in topics {
            let committed = committed.get(&(topic.clone(), partition)).copied().flatten();
            let known = restored.progress.positions.next(&input(topic, partition));
            if known > 0 && committed.is_none() {
                return Err(KafkaError::refused(format!(
                    "the brokers know no offset of group {} in partition {partition} of {topic}, and its state in topic {} has dealt \
                     with it up to {known}: the topic was deleted and made anew, or no instance ran for longer than brokers keep \
                     offsets (offsets.retention.minutes); stop all instances, and start them with another kafka.group, which \
                     reads what is there and writes the same documents",
                    self.config.kafka.group,
                    self.config.kafka.state_topic()
                )));
            }
            let committed = committed.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0);
            if committed > known {
                return Err(KafkaError::refused(format!(
                    "group {} has dealt with partition {partition} of {topic} up to offset {committed}, but its state in topic {} \
                     ends at {known}: the state was deleted or has expired; stop all instances, and start them with another \
                     kafka.group, which reads the events anew and writes the same documents",
                    self.config.kafka.group,
                    self.config.kafka.state_topic()
                )));
            }
            let bounds = intake.bounds(topic, partition)?;
            let end = bounds.end;
            if known > end {
                return Err(KafkaError::made_anew(&format!(
                    "partition {partition} of {topic} ends at offset {end}, and group {} has dealt with it up to {known}",
                    self.config.kafka.group
                )));
            }
            all.insert(topic.clone(), bounds);
        }
        Ok(all)
    }

    fn held(&self, restored: Restored) -> Held<S> {
        let Restored { is_new, progress, passed, mut sessions } = restored;
        sessions.note_names();
        let lane = Lane {
            folder: Folder::resume(&self.config, Arc::clone(&self.geoip), sessions),
            outlet: Arc::clone(&self.outlet),
            checkpoint: None,
            progress,
            live: watch::Sender::default(),
            behind: BTreeSet::new(),
            stats_every: 0,
            takes_any_time: false,
        };
        let missed_told = passed.missed;
        Held { lane, passed, is_new, has_gone_on: false, missed_told }
    }
}

/// Who reads a state looks here whether it is still wanted.
struct Restoring<'a> {
    epoch: u64,
    read: AtomicU64,
    assignment: watch::Receiver<Assignment>,
    stop: &'a CancellationToken,
    board: &'a Board,
    /// When it was last told how far it is.
    told: Mutex<Instant>,
}

impl Watching for Restoring<'_> {
    fn has_read(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.board.metrics.kafka.restored.inc();
    }

    fn is_over(&self) -> bool {
        let read = self.read.load(Ordering::Relaxed);
        self.board.change(|standing| standing.restored = read);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() > TELL_EVERY {
            *told = Instant::now();
            tracing::info!(records = read, "reading the state of the partitions");
        }
        let assignment = self.assignment.borrow();
        self.stop.is_cancelled() || assignment.epoch != self.epoch || assignment.until.is_some()
    }
}
