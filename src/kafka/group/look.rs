//! What the brokers are asked beside the cycles: at once when partitions were taken over, and now and then where there was no
//! answer.

use std::time::{Duration, Instant};

use super::{Group, Held};
use crate::kafka::KafkaError;
use crate::kafka::anchor::Newest;
use crate::kafka::ends::{self, Place};
use crate::kafka::intake::{Intake, Unfit, input};
use crate::kafka::members::Members;
use crate::sink::Sink;

/// How often it is asked again.
const LOOK: Duration = Duration::from_secs(10);
/// How long an answer may keep from folding: the first time, and later.
const FIRST_WITHIN: Duration = Duration::from_secs(3);
const WITHIN: Duration = Duration::from_secs(1);

/// What is not known yet of the lanes that are held.
#[derive(Debug)]
pub(super) struct Looks {
    looked: Instant,
    /// Whether nobody else in the group has the same lanes.
    is_alone: bool,
    /// What was dealt with last before the partitions came here, of which the time is wanted.
    last: Vec<Place>,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self { looked: Instant::now(), is_alone: true, last: Vec::new() }
    }
}

/// What to do about an assignment that cannot be taken over. Of members that read different topics, whoever reads what the group has
/// dealt with waits until the others have ended, however often they are started again.
pub(super) fn misfit(intake: &Intake, unfit: Unfit) -> Result<KafkaError, KafkaError> {
    Ok(match unfit {
        Unfit::Strange(told) => KafkaError::Unfit(told.into()),
        Unfit::Torn(told) => match intake.is_right(FIRST_WITHIN)? {
            Some(false) => KafkaError::Unfit(told.into()),
            Some(true) => KafkaError::away(format!(
                "{told}. This instance reads what the group has dealt with, and waits until the others end"
            )),
            None => KafkaError::away(told),
        },
    })
}

impl<S: Sink + Send + Sync> Group<S> {
    /// Looks at what was taken over, before anything is done with it.
    ///
    /// `last`: what was dealt with last.
    pub(super) fn look_first(
        &mut self,
        intake: &Intake,
        last: Vec<Place>,
    ) -> Result<(), KafkaError> {
        self.looks = Looks { is_alone: false, last, ..Looks::new() };
        self.look_at_members(intake, FIRST_WITHIN)?;
        self.look_at_last(intake, FIRST_WITHIN)
    }

    /// Asks again for what is not known yet.
    pub(super) fn look(&mut self, intake: &Intake) -> Result<(), KafkaError> {
        if self.lanes.is_empty() || self.looks.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looks.looked = Instant::now();
        self.look_at_members(intake, WITHIN)?;
        self.look_at_last(intake, WITHIN)?;
        self.look_at_ends(intake)
    }

    /// Asks what is there where reading has come further than to the last record: marks of transactions, or nothing any more, because
    /// the brokers delete what is not read for long. It may be long before another record comes.
    fn look_at_ends(&mut self, intake: &Intake) -> Result<(), KafkaError> {
        let mut asked = Vec::new();
        for (partition, Held { lane, passed, has_gone_on, .. }) in &mut self.lanes {
            for topic in &self.config.kafka.topics {
                let known = input(topic, *partition);
                let positions = &mut lane.progress.positions;
                let next = passed.next(positions, &known);
                let is_new = !passed.began.knows(&known);
                let come = intake.has_come(&known).filter(|come| is_new || *come > next);
                let Some(come) = come else { continue };
                let Ok(bounds) = intake.bounds(topic, *partition) else { return Ok(()) };
                let first = bounds.start.min(come);
                *has_gone_on |= passed.go_on((topic, *partition), positions, first);
                if come > first.max(next) {
                    let offsets = first.max(next)..come;
                    asked.push(Place { topic: topic.clone(), partition: *partition, offsets });
                }
            }
        }
        // That reading has come so far is not enough to go by: no record may ever be passed over.
        for (place, found) in ends::last_records(&self.config.kafka, asked, WITHIN)? {
            let Place { topic, partition, offsets } = place;
            let held = self.lanes.get_mut(&partition).filter(|_| found.is_none());
            let Some(held) = held else { continue };
            let Ok(bounds) = intake.bounds(&topic, partition) else { return Ok(()) };
            // What is deleted by now may have been there.
            if bounds.start <= offsets.start {
                let positions = &mut held.lane.progress.positions;
                held.passed.go_on_empty((&topic, partition), positions, offsets.end);
                held.has_gone_on = true;
            }
        }
        Ok(())
    }

    /// Reads the last records that were read before the partitions came here: a topic that is made anew before another one is read
    /// is noticed by their times.
    fn look_at_last(&mut self, intake: &Intake, within: Duration) -> Result<(), KafkaError> {
        let last = self.looks.last.clone();
        for (place, found) in ends::last_records(&self.config.kafka, last, within)? {
            self.looks.last.retain(|asked| *asked != place);
            let Some(time) = found.and_then(|found| found.time) else { continue };
            let Place { topic, partition, offsets } = place;
            let next = i64::try_from(offsets.end).unwrap_or(i64::MAX);
            intake.was_read(&Newest { topic, partition, next, time });
        }
        Ok(())
    }

    /// Members that read none of the topics of this instance are given the same lanes. Who has taken a state over that fits its own
    /// topics goes on: by that state the other one is refused.
    fn look_at_members(&mut self, intake: &Intake, within: Duration) -> Result<(), KafkaError> {
        if self.looks.is_alone {
            return Ok(());
        }
        match intake.members(within) {
            Members::NotKnown => {}
            Members::Fit => self.looks.is_alone = true,
            Members::Stranger(topics) => {
                let theirs = topics.into_iter().collect::<Vec<_>>().join(", ");
                let own = self.config.kafka.topics.join(", ");
                let told = format!(
                    "the group gave the same partitions to this instance, which reads {own}, and to one that reads {theirs}: its members \
                     read different topics; stop all of them, and start them with the same kafka.topics"
                );
                // Of a young group most lanes have dealt with nothing yet.
                match intake.is_right(within)? {
                    None => return Ok(()),
                    Some(false) => return Err(KafkaError::Unfit(told.into())),
                    Some(true) => {}
                }
                tracing::warn!(reason = told, "going on with what the state is of");
                self.looks.is_alone = true;
            }
        }
        Ok(())
    }
}
