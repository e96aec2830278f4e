//! One instance of the group: its lanes, and the cycle that takes all of them forward together.
//!
//! The lanes fold side by side, as many at once as there are cores; their documents go to the sink as one; one transaction
//! saves all of them. A cycle that was begun is broken off when its partitions are taken away and `kafka.drain_after` is
//! over, or at once if others have them already: the lanes are dropped, and their next owner repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::digest::{Digests, TICKS_MAX, Ticks};
use super::intake::{Assignment, Intake, input};
use super::state::{self, Restored, Saved, Watching};
use super::transaction::{NotSaved, Sent, Transactions};
use super::{KafkaError, letters, topics};
use crate::checkpoint::Progress;
use crate::checkpoint::persist::kill_point;
use crate::config::Config;
use crate::document::Document;
use crate::enrich::place::{GeoIp, GeoIpFiles};
use crate::lane::cycle::{BYTES_MAX, RECORDS_MAX};
use crate::lane::databases::Databases;
use crate::lane::fold::Folder;
use crate::lane::outlet::{Batch, Outlet};
use crate::lane::{Item, Lane, LaneError, stats};
use crate::live::Live;
use crate::sessions::{Limits, Sessions};
use crate::sink::{Sink, SinkError};

/// How often sessions are looked through for what time brings, while nothing arrives.
const IDLE: Duration = Duration::from_secs(1);
/// How often the open sessions are shown anew at most.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// First and longest delay before Kafka is tried again.
const DELAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How often an instance may be fenced within a time before it counts as running twice.
const FENCED_MAX: usize = 3;
const FENCED_WITHIN: Duration = Duration::from_secs(300);

/// How an instance stands, for readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why nothing is dealt with at this moment.
    pub trouble: Option<String>,
    /// Partitions held, their state being here.
    pub held: BTreeSet<i32>,
    /// Partitions whose state is being read.
    pub restoring: BTreeSet<i32>,
    /// Records of the state read so far.
    pub restored: u64,
}

impl Standing {
    /// Why this instance deals with nothing at this moment.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.trouble.iter().cloned().collect();
        if !self.restoring.is_empty() {
            reasons.push(format!(
                "reading the state of {} partitions, {} records so far",
                self.restoring.len(),
                self.restored
            ));
        }
        reasons
    }

    /// As `/readyz` shows it.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "held": self.held,
            "restoring": self.restoring,
            "restoredRecords": self.restored,
        })
    }
}

/// An instance.
pub struct Group<S> {
    config: Config,
    outlet: Arc<Outlet<S>>,
    databases: Databases,
    geoip: Arc<GeoIp>,
    live: watch::Sender<Arc<Live>>,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
    threads: usize,
    /// Name of its transactions.
    name: String,
    lanes: BTreeMap<i32, Lane<S>>,
    epoch: u64,
    shown: Instant,
    looked_through: Instant,
}

/// How a cycle ended.
enum Cycle {
    Saved,
    /// Nothing was saved, and the lanes are of no use any more.
    BrokenOff,
    /// Nor is the producer.
    ProducerGone,
}

/// Why the clients are given up.
enum Ended {
    Stopped,
    Again(KafkaError),
}

impl<S: Sink + Send + Sync> Group<S> {
    /// An instance as the settings say, which holds nothing yet.
    #[must_use]
    pub fn new(
        config: Config,
        outlet: Arc<Outlet<S>>,
        (files, geoip): (GeoIpFiles, Arc<GeoIp>),
        live: watch::Sender<Arc<Live>>,
        standing: watch::Sender<Standing>,
        stop: CancellationToken,
    ) -> Self {
        let kafka = &config.kafka;
        let own = match kafka.instance_id.as_str() {
            "" => uuid::Uuid::now_v7().to_string(),
            id => id.to_owned(),
        };
        Self {
            name: format!("{}-{own}", kafka.group),
            config,
            outlet,
            databases: Databases::new(files),
            geoip,
            live,
            standing,
            stop,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            lanes: BTreeMap::new(),
            epoch: 0,
            shown: Instant::now(),
            looked_through: Instant::now(),
        }
    }

    /// Reads, folds and writes until it is stopped. Whatever of Kafka is away is waited for.
    ///
    /// # Errors
    ///
    /// If it cannot go on; nothing that was committed is lost.
    pub async fn run(mut self) -> Result<(), LaneError> {
        let mut delay = DELAY.0;
        let mut fenced: Vec<Instant> = Vec::new();
        loop {
            let begun = Instant::now();
            let ended = match self.once().await {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::Again(error)) | Err(LaneError::Kafka(error @ KafkaError::Away(_))) => {
                    error
                }
                // When the group's coordinator fails, an instance can be fenced by itself. Two processes of one name fence each
                // other again and again.
                Err(LaneError::Kafka(error @ KafkaError::Fenced(_))) => {
                    fenced.retain(|at| at.elapsed() < FENCED_WITHIN);
                    fenced.push(begun);
                    if fenced.len() >= FENCED_MAX {
                        return Err(error.into());
                    }
                    error
                }
                Err(error) => return Err(error),
            };
            tracing::warn!(error = %ended, "Kafka is away, trying again");
            self.stand(|standing| standing.trouble = Some(ended.to_string()));
            if begun.elapsed() > DELAY.1 {
                delay = DELAY.0;
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(delay) => delay = (delay * 2).min(DELAY.1),
            }
        }
    }

    /// Joins the group and works in it until it is stopped or has to join anew.
    async fn once(&mut self) -> Result<Ended, LaneError> {
        let known = topics::prepare(&self.config.kafka).await?;
        let stop = self.stop.clone();
        let transactions =
            match Transactions::new(&self.config.kafka, &self.name, &|| stop.is_cancelled()) {
                Err(KafkaError::Away(_)) if stop.is_cancelled() => return Ok(Ended::Stopped),
                made => made?,
            };
        let digests = Digests::new(&self.config.kafka, &self.name, known.partitions)?;
        let mut intake = Intake::start(&self.config)?;
        let ended = self.work(&mut intake, (&transactions, digests)).await;
        self.drop_lanes();
        intake.release(self.epoch);
        let read = intake.stop();
        let ended = ended?;
        read?;
        Ok(ended)
    }

    async fn work(
        &mut self,
        intake: &mut Intake,
        (transactions, mut digests): (&Transactions, Digests),
    ) -> Result<Ended, LaneError> {
        self.epoch = 0;
        let mut waited = Instant::now();
        while !self.stop.is_cancelled() {
            if intake.has_ended() {
                return Ok(Ended::Again(KafkaError::away("reading from Kafka has ended")));
            }
            let assignment = intake.assignment();
            let trouble = intake.trouble().borrow().clone().or_else(|| digests.doubled());
            self.stand(|standing| standing.trouble = trouble);
            if assignment.until.is_some() {
                self.drop_lanes();
                digests.forget();
                intake.release(assignment.epoch);
            } else if assignment.epoch != self.epoch && !assignment.partitions.is_empty() {
                self.take_over(intake, &assignment)?;
            }
            if self.lanes.is_empty() || assignment.until.is_some() {
                self.show(intake, &mut digests);
                intake.wait(IDLE).await;
                waited = Instant::now();
                continue;
            }
            let taken = intake.take(self.epoch, RECORDS_MAX, BYTES_MAX);
            // What is longer than a wait was no waiting: the process was stopped.
            let elapsed = waited.elapsed().min(IDLE * 2);
            let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(0);
            waited = Instant::now();
            if taken.is_empty() {
                self.pass(intake, elapsed);
                if self.looked_through.elapsed() < IDLE {
                    self.show(intake, &mut digests);
                    intake.wait(IDLE).await;
                    continue;
                }
            }
            let due = if self.lanes.contains_key(&0) { digests.due() } else { Vec::new() };
            let cycle = self.cycle(intake, transactions, (taken, due)).await?;
            if !matches!(cycle, Cycle::Saved) {
                self.drop_lanes();
                let is_taken_away = intake.assignment().until.is_some();
                let goes_on = is_taken_away && matches!(cycle, Cycle::BrokenOff);
                if !goes_on && !self.stop.is_cancelled() {
                    let told = "a cycle was not saved, reading anew from where the last one ended";
                    return Ok(Ended::Again(KafkaError::away(told)));
                }
            }
            self.show(intake, &mut digests);
            self.renew_places();
            // However long the sink made it wait, no session has fallen silent by that.
            waited = Instant::now();
        }
        Ok(Ended::Stopped)
    }

    /// Reads the state of what was assigned.
    fn take_over(&mut self, intake: &Intake, assignment: &Assignment) -> Result<(), LaneError> {
        let begun = Instant::now();
        self.drop_lanes();
        self.stand(|standing| {
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
            standing: &self.standing,
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
        for (partition, restored) in read.into_iter().flatten() {
            self.check(partition, &restored, &committed)?;
            let lane = self.lane(restored);
            self.lanes.insert(partition, lane);
        }
        self.epoch = assignment.epoch;
        let held = assignment.partitions.clone();
        let seconds = begun.elapsed().as_secs_f64();
        let restored = watching.read.load(Ordering::Relaxed);
        self.outlet.metrics.kafka.restored.inc_by(restored);
        self.outlet.metrics.kafka.restore_seconds.observe(seconds);
        tracing::info!(partitions = ?held, restored, seconds, "state of the partitions is here");
        self.stand(|standing| {
            standing.restoring.clear();
            standing.held = held;
        });
        Ok(())
    }

    /// Offsets without the state they belong to: somebody has deleted the topic, or let it expire. Starting over silently
    /// would cut sessions in two.
    fn check(
        &self,
        partition: i32,
        restored: &Restored,
        committed: &BTreeMap<(String, i32), Option<i64>>,
    ) -> Result<(), KafkaError> {
        for topic in &self.config.kafka.topics {
            let committed = committed.get(&(topic.clone(), partition)).copied().flatten();
            let committed = committed.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0);
            let known = restored.progress.positions.next(&input(topic, partition));
            if committed > known {
                return Err(KafkaError::refused(format!(
                    "group {} has dealt with partition {partition} of {topic} up to offset {committed}, but its state in topic {} \
                     ends at {known}: the state was deleted or has expired; stop all instances, and start them with another \
                     kafka.group, which reads the events anew and writes the same documents",
                    self.config.kafka.group,
                    self.config.kafka.state_topic()
                )));
            }
        }
        Ok(())
    }

    fn lane(&self, restored: Restored) -> Lane<S> {
        Lane {
            folder: Folder::resume(&self.config, Arc::clone(&self.geoip), restored.sessions),
            outlet: Arc::clone(&self.outlet),
            checkpoint: None,
            progress: restored.progress,
            live: watch::Sender::default(),
            behind: BTreeSet::new(),
            stats_every: 0,
            takes_any_time: false,
        }
    }

    fn drop_lanes(&mut self) {
        self.lanes.clear();
        self.outlet.metrics.kafka.forget_partitions();
        self.stand(|standing| {
            standing.held.clear();
            standing.restoring.clear();
        });
    }

    fn stand(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_if_modified(|standing| {
            let before = standing.clone();
            change(standing);
            *standing != before
        });
        let standing = self.standing.borrow();
        let count = |partitions: &BTreeSet<i32>| i64::try_from(partitions.len()).unwrap_or(0);
        let metrics = &self.outlet.metrics.kafka;
        metrics.held.set(count(&standing.held));
        metrics.restoring.set(count(&standing.restoring));
    }

    /// Time that was spent waiting counts where there was nothing to read.
    fn pass(&mut self, intake: &Intake, elapsed: i64) {
        let wall = wall();
        for (partition, lane) in &mut self.lanes {
            let is_behind = behind(intake, &self.config.kafka.topics, *partition, lane, &[]);
            if is_behind.is_empty() {
                lane.behind.clear();
                lane.wait(elapsed, wall);
            }
        }
    }

    /// Takes lanes forward: those that have something to read, and all of them now and then.
    async fn cycle(
        &mut self,
        intake: &Intake,
        transactions: &Transactions,
        (mut taken, due): (BTreeMap<i32, Vec<Item>>, Vec<Document>),
    ) -> Result<Cycle, LaneError> {
        let begun = Instant::now();
        let wall = wall();
        let looks_through = self.looked_through.elapsed() >= IDLE;
        if looks_through {
            self.looked_through = begun;
        }
        let has_items = !taken.is_empty();
        let mut work = Vec::new();
        for (partition, lane) in &mut self.lanes {
            let items = taken.remove(partition).unwrap_or_default();
            let has_more = *partition == 0 && !due.is_empty();
            if items.is_empty() && !looks_through && !has_more {
                continue;
            }
            let items = unread(lane, items);
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
                if let Some(lane) = self.lanes.get_mut(partition) {
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
            if has_items {
                self.outlet.metrics.cycle_seconds.observe(begun.elapsed().as_secs_f64());
            }
        }
        Ok(saved)
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
            let Some(lane) = self.lanes.get_mut(partition) else { continue };
            lane.progress.tally.add(&batch.tally);
            let changes = lane.folder.sessions.changes()?;
            if changes.is_empty() && batch.tally == crate::checkpoint::Tally::default() {
                continue;
            }
            let records = state::records(&lane.progress, changes)
                .map_err(|error| LaneError::State(error.into()))?;
            saved.extend(records.map(|record| (*partition, record)));
            refused.extend(batch.letters.iter().map(letters::encode));
            for topic in &kafka.topics {
                let next = lane.progress.positions.next(&input(topic, *partition));
                if next > 0 {
                    let next = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
                    // Fails for offsets that cannot be, and there are none.
                    let _added = offsets.add_partition_offset(topic, *partition, next);
                }
            }
        }
        if saved.is_empty() {
            return Ok(Cycle::Saved);
        }
        let Some(metadata) = intake.metadata() else { return Ok(Cycle::BrokenOff) };
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
        let committed = transactions.commit(records, &offsets, metadata, &is_over);
        let outcome = if committed.is_ok() { "saved" } else { "not_saved" };
        self.outlet.metrics.kafka.transaction(outcome);
        match committed {
            Ok(()) => Ok(Cycle::Saved),
            Err(NotSaved::NotOurs(told)) => {
                tracing::warn!(reason = told, "a cycle was not saved; it will be repeated");
                Ok(Cycle::BrokenOff)
            }
            // So the brokers do with a transaction that took too long; another process of this name is noticed by the group.
            Err(NotSaved::Fenced(told) | NotSaved::Broken(told)) => {
                tracing::warn!(reason = told, "a cycle was not saved; it will be repeated");
                Ok(Cycle::ProducerGone)
            }
            Err(NotSaved::Over) => Ok(Cycle::BrokenOff),
        }
    }

    /// Shows the open sessions of the whole group to whoever looks, and tells the others of those here.
    fn show(&mut self, intake: &Intake, digests: &mut Digests) {
        if self.shown.elapsed() < SHOW_EVERY {
            return;
        }
        self.shown = Instant::now();
        let metrics = Arc::clone(&self.outlet.metrics);
        let every = i64::try_from(self.config.stats.every.as_millis()).unwrap_or(0);
        let mut own = Vec::new();
        for (partition, lane) in &mut self.lanes {
            let progress = &mut lane.progress;
            for topic in &self.config.kafka.topics {
                let input = input(topic, *partition);
                if let Some(lag) = intake.lag(&input, progress.positions.next(&input)) {
                    metrics.kafka.lag(topic, *partition, lag);
                }
            }
            let sessions = &lane.folder.sessions;
            let live = sessions.live(progress.lane_clock);
            digests.tell(*partition, &live, &ticks(sessions, progress, every));
            own.push(live);
        }
        digests.read(|lane| self.lanes.contains_key(&lane));
        // The gauges of all instances together count every session once.
        metrics.live(&Live::merged(own));
        self.live.send_replace(Arc::new(digests.merged()));
    }

    fn renew_places(&mut self) {
        let Some(geoip) = self.databases.renewed() else { return };
        for lane in self.lanes.values_mut() {
            lane.folder.set_geoip(Arc::clone(&geoip));
        }
        self.geoip = geoip;
    }
}

/// What a lane has counted since it was asked last.
fn ticks(sessions: &Sessions, progress: &mut Progress, every: i64) -> Ticks {
    let is_known = progress.lane_clock > 0 && every > 0;
    let before = progress.stats_tick;
    let counted = is_known
        .then(|| {
            stats::counted(
                sessions,
                &mut progress.stats_tick,
                (progress.lane_clock, every),
                TICKS_MAX,
            )
        })
        .flatten();
    match counted {
        Some((from, to, counted)) => Ticks { told: Some((from, to)), counted, every },
        // Nothing has settled since: what was told stands.
        None if is_known => Ticks { told: Some((before + 1, before)), every, ..Ticks::default() },
        None => Ticks::default(),
    }
}

/// Items that were not dealt with before; what was read anew after a rebalance may be older than the state.
fn unread<S>(lane: &Lane<S>, mut items: Vec<Item>) -> Vec<Item> {
    items.retain(|item| {
        let (Item::Record(record) | Item::Damaged(record, _) | Item::Noise(record)) = item;
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
) -> BTreeSet<crate::record::Input> {
    let inputs = topics.iter().map(|topic| input(topic, partition));
    let is_behind = |known: &crate::record::Input| {
        let last = items.iter().rev().find_map(|item| {
            let (Item::Record(record) | Item::Damaged(record, _) | Item::Noise(record)) = item;
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

/// Who reads a state looks here whether it is still wanted.
struct Restoring<'a> {
    epoch: u64,
    read: AtomicU64,
    assignment: watch::Receiver<Assignment>,
    stop: &'a CancellationToken,
    standing: &'a watch::Sender<Standing>,
}

impl Watching for Restoring<'_> {
    fn has_read(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let read = self.read.load(Ordering::Relaxed);
        self.standing
            .send_if_modified(|standing| std::mem::replace(&mut standing.restored, read) != read);
        let assignment = self.assignment.borrow();
        self.stop.is_cancelled() || assignment.epoch != self.epoch || assignment.until.is_some()
    }
}

fn wall() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
