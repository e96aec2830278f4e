//! One instance of the group: its lanes, and the cycle that takes all of them forward together.
//!
//! The lanes fold side by side, as many at once as there are cores; their documents go to the sink as one; one transaction
//! saves all of them. A cycle that was begun is broken off when its partitions are taken away and `kafka.drain_after` is
//! over, or at once if others have them already: the lanes are dropped, and their next owner repeats it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::cycle::Cycle;
use self::look::Looks;
use super::delays::Delays;
use super::digest::{Digests, TICKS_MAX, Ticks};
use super::intake::Intake;
use super::passed::Passed;
use super::standing::{Board, Part};
use super::transaction::Transactions;
use super::{KafkaError, topics};
use crate::checkpoint::Progress;
use crate::config::Config;
use crate::enrich::place::{GeoIp, GeoIpFiles};
use crate::lane::databases::Databases;
use crate::lane::outlet::Outlet;
use crate::lane::{self, Lane, LaneError, stats};
use crate::live::Live;
use crate::sessions::Sessions;
use crate::sink::Sink;

mod cycle;
mod look;
mod takeover;

/// Most records of one cycle, and most bytes of them: more than one machine takes at once, since a transaction costs the same
/// for few and for many, and an entity that changes more than once in a cycle is saved once.
const RECORDS_MAX: usize = 4 * lane::cycle::RECORDS_MAX;
const BYTES_MAX: usize = 4 * lane::cycle::BYTES_MAX;
/// How often sessions are looked through for what time brings, while nothing arrives.
const IDLE: Duration = Duration::from_secs(1);
/// How often the open sessions are shown anew at most.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// How often an instance may be fenced within a time before it counts as running twice.
const FENCED_MAX: usize = 3;
const FENCED_WITHIN: Duration = Duration::from_secs(300);
/// Brokers need as long at most to notice that a session is over.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

/// An instance.
pub struct Group<S> {
    config: Config,
    outlet: Arc<Outlet<S>>,
    databases: Databases,
    geoip: Arc<GeoIp>,
    live: watch::Sender<Arc<Live>>,
    board: Board,
    stop: CancellationToken,
    threads: usize,
    /// Name of its transactions.
    name: String,
    lanes: BTreeMap<i32, Held<S>>,
    epoch: u64,
    shown: Instant,
    looked_through: Instant,
    /// Since when the group gives it hardly anything but what does not fit.
    unfit_since: Option<Instant>,
    /// Since when it has what fits.
    fit_since: Option<Instant>,
    looks: Looks,
}

/// A lane whose partition is here.
struct Held<S> {
    lane: Lane<S>,
    passed: Passed,
    /// Whether it has never saved.
    is_new: bool,
    /// Whether it has gone on beyond offsets without a record, and has not saved that.
    has_gone_on: bool,
    /// How many of the records that were deleted before are in the metrics already, here or with whoever has saved them.
    missed_told: u64,
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
        board: Board,
        stop: CancellationToken,
    ) -> Self {
        let kafka = &config.kafka;
        let own = match kafka.instance_id.as_str() {
            "" => uuid::Uuid::now_v7().to_string(),
            id => id.to_owned(),
        };
        Self {
            name: format!("{}/{own}", kafka.group),
            config,
            outlet,
            databases: Databases::new(files),
            geoip,
            live,
            board,
            stop,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            lanes: BTreeMap::new(),
            epoch: 0,
            shown: Instant::now(),
            looked_through: Instant::now(),
            unfit_since: None,
            fit_since: None,
            looks: Looks::new(),
        }
    }

    /// Reads, folds and writes until it is stopped. Whatever of Kafka is away is waited for.
    ///
    /// # Errors
    ///
    /// If it cannot go on; nothing that was committed is lost.
    pub async fn run(mut self) -> Result<(), LaneError> {
        let mut delays = Delays::new();
        let mut fenced: Vec<Instant> = Vec::new();
        loop {
            let ended = match self.once().await {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::Again(error)) | Err(LaneError::Kafka(error @ KafkaError::Away(_))) => {
                    error
                }
                // Who has gone without a word is a member until its session is over.
                Err(LaneError::Kafka(error @ KafkaError::Unfit(_))) => {
                    if self.is_unfit_for_good() {
                        return Err(error.into());
                    }
                    error
                }
                // When the group's coordinator fails, an instance can be fenced by itself. Two processes of one name fence each
                // other again and again.
                Err(LaneError::Kafka(error @ KafkaError::Fenced(_))) => {
                    fenced.retain(|at| at.elapsed() < FENCED_WITHIN);
                    fenced.push(Instant::now());
                    if fenced.len() >= FENCED_MAX {
                        return Err(error.into());
                    }
                    error
                }
                Err(error) => return Err(error),
            };
            self.board.trouble(Part::Joining, Some(ended.to_string()));
            if matches!(ended, KafkaError::Unfit(_)) && !self.is_forgotten().await {
                return Ok(());
            }
            if !delays.wait(&self.stop).await {
                return Ok(());
            }
        }
    }

    /// Waits until the brokers have forgotten what this instance is called: until then they give it what its name had before, whatever it
    /// subscribes to now, and every try to join keeps that alive. `false`: it is stopped.
    async fn is_forgotten(&self) -> bool {
        if self.config.kafka.instance_id.is_empty() {
            return true;
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(self.config.kafka.session_timeout + FORGOTTEN_AFTER) => true,
        }
    }

    /// Joins the group and works in it until it is stopped or has to join anew.
    async fn once(&mut self) -> Result<Ended, LaneError> {
        let known = topics::prepare(&self.config.kafka).await?;
        let stops = || self.stop.is_cancelled();
        let made = Transactions::new(&self.config.kafka, &self.name, self.board.clone(), &stops);
        let transactions = match made {
            Err(KafkaError::Away(_)) if stops() => return Ok(Ended::Stopped),
            made => made?,
        };
        let board = self.board.clone();
        let digests = Digests::new(&self.config.kafka, &self.name, known.partitions, board)?;
        let mut intake = Intake::start(&self.config, self.board.clone())?;
        let kafka = self.config.kafka.clone();
        // A cycle that is under way then is broken off: nothing of it was saved.
        let ended = tokio::select! {
            ended = self.work(&mut intake, (&transactions, digests)) => ended,
            wrong = topics::kept::watch(&kafka) => Err(wrong.into()),
        };
        self.drop_lanes();
        // Whatever it was that was held or about to be.
        let last = intake.assignment().epoch;
        intake.release(last);
        let read = intake.stop();
        let ended = ended?;
        read?;
        Ok(ended)
    }

    /// Whether what does not fit was given to it for so long that nobody's session can be the reason. That it was alone in between
    /// is none: of two who are refused because of each other, each is while the other waits.
    fn is_unfit_for_good(&mut self) -> bool {
        let span = 2 * self.config.kafka.session_timeout;
        if self.fit_since.take().is_some_and(|since| since.elapsed() > span) {
            self.unfit_since = None;
        }
        self.unfit_since.get_or_insert_with(Instant::now).elapsed() > span
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
            if digests.is_gone() {
                return Ok(Ended::Again(KafkaError::away("the topic of digests was deleted")));
            }
            self.board.trouble(Part::Keys, digests.split());
            if assignment.until.is_some() {
                self.drop_lanes();
                digests.forget();
                intake.release(assignment.epoch);
            } else if assignment.epoch != self.epoch {
                // Lanes of an assignment that is over are others' by now, even if their last cycle was still saved.
                self.drop_lanes();
                digests.forget();
                if let Some(unfit) = assignment.unfit {
                    return Err(look::misfit(intake, unfit)?.into());
                }
                if assignment.partitions.is_empty() {
                    self.epoch = assignment.epoch;
                } else {
                    self.take_over(intake, &assignment)?;
                }
                self.fit_since.get_or_insert_with(Instant::now);
            }
            self.look(intake)?;
            if self.lanes.is_empty() || assignment.until.is_some() {
                self.show(&mut digests);
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
                    self.show(&mut digests);
                    intake.wait(IDLE).await;
                    continue;
                }
            }
            let due = if self.lanes.contains_key(&0) { digests.due() } else { Vec::new() };
            let cycle = self.cycle(intake, transactions, (taken, due)).await?;
            if !matches!(cycle, Cycle::Saved) {
                self.drop_lanes();
                let now = intake.assignment();
                let is_taken_away = now.until.is_some() || now.epoch != self.epoch;
                let goes_on = is_taken_away && matches!(cycle, Cycle::BrokenOff);
                if !goes_on && !self.stop.is_cancelled() {
                    let told = "a cycle was not saved, reading anew from where the last one ended";
                    return Ok(Ended::Again(KafkaError::away(told)));
                }
            }
            self.show(&mut digests);
            self.renew_places();
            // However long the sink made it wait, no session has fallen silent by that.
            waited = Instant::now();
        }
        Ok(Ended::Stopped)
    }

    fn drop_lanes(&mut self) {
        self.lanes.clear();
        self.board.change(|standing| {
            standing.held.clear();
            standing.restoring.clear();
        });
    }

    /// Shows the open sessions of the whole group to whoever looks, and tells the others of those here.
    fn show(&mut self, digests: &mut Digests) {
        if self.shown.elapsed() < SHOW_EVERY {
            return;
        }
        self.shown = Instant::now();
        let metrics = Arc::clone(&self.outlet.metrics);
        let every = i64::try_from(self.config.stats.every.as_millis()).unwrap_or(0);
        let mut own = Vec::new();
        for (partition, Held { lane, .. }) in &mut self.lanes {
            let progress = &mut lane.progress;
            let sessions = &mut lane.folder.sessions;
            let clock = progress.lane_clock;
            let live = sessions.live(clock);
            let ticks = ticks(sessions, progress, every);
            digests.tell(*partition, &live, || sessions.names(clock), &ticks);
            own.push(live);
        }
        digests.read(|lane| self.lanes.contains_key(&lane));
        // The gauges of all instances together count every session once.
        metrics.live(&Live::merged(own));
        let made_at = Utc::now().timestamp_millis();
        self.live.send_replace(Arc::new(Live { made_at, is_current: true, ..digests.merged() }));
    }

    fn renew_places(&mut self) {
        let Some(geoip) = self.databases.renewed() else { return };
        for Held { lane, .. } in self.lanes.values_mut() {
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

fn wall() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
