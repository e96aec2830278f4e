//! What is known of the documents of one write, and what comes next. Plain functions; the time is an argument.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{Reply, Trouble, Verdict};
use super::{DELAY, jittered};
use crate::sink::{SinkStatus, Written};

/// A document that the store fails on this often, while it takes others, is the document's fault.
const FAILURES_MAX: u8 = 5;

/// Documents that go out in one request.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Their places.
    pub(super) documents: Vec<usize>,
    /// Whether the request also asks if their indices take anything at all.
    has_probe: bool,
    /// How often the work had slowed down when it was sent.
    round: u32,
}

impl Batch {
    pub(super) fn new(documents: Vec<usize>) -> Self {
        Self { documents, ..Self::default() }
    }

    pub(super) fn has_probe(&self) -> bool {
        self.has_probe
    }
}

/// The documents of one call of `write`.
#[derive(Debug)]
pub(super) struct Work {
    answers: Vec<Option<Written>>,
    failures: Vec<u8>,
    queue: VecDeque<Batch>,
    /// Documents that fail alone wait here, so that nothing else waits for them.
    apart: Vec<(Instant, Batch)>,
    /// Documents that the store did not take so far through no fault of theirs.
    held: BTreeSet<usize>,
    width: usize,
    width_max: usize,
    delay: Option<Duration>,
    resume_at: Option<Instant>,
    round: u32,
    status: SinkStatus,
}

impl Work {
    pub(super) fn new(count: usize, batches: Vec<Vec<usize>>, width_max: usize) -> Self {
        let mut work = Self {
            answers: vec![None; count],
            failures: vec![0; count],
            queue: VecDeque::new(),
            apart: Vec::new(),
            held: BTreeSet::new(),
            width: width_max,
            width_max,
            delay: None,
            resume_at: None,
            round: 0,
            status: SinkStatus::Accepting,
        };
        work.add(batches);
        work
    }

    /// What is sent once all before has its answer.
    pub(super) fn add(&mut self, batches: Vec<Vec<usize>>) {
        self.queue.extend(batches.into_iter().map(Batch::new));
    }

    /// The next request to send, if one may go out while `under_way` others are.
    pub(super) fn next(&mut self, under_way: usize, now: Instant) -> Option<Batch> {
        let (due, apart) = self.apart.drain(..).partition(|(due, _)| *due <= now);
        self.apart = apart;
        let due: Vec<(Instant, Batch)> = due;
        self.queue.extend(due.into_iter().map(|(_, batch)| batch));
        self.resume_at = self.resume_at.filter(|resume_at| *resume_at > now);
        if self.resume_at.is_some() || under_way >= self.width {
            return None;
        }
        let mut batch = self.queue.pop_front()?;
        batch.round = self.round;
        Some(batch)
    }

    /// When there is something to send again. `None`: not before an answer, or never.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let apart = self.apart.iter().map(|(due, _)| *due);
        apart.chain(self.resume_at.filter(|_| !self.queue.is_empty())).min()
    }

    /// Whether the store takes documents, by the last answer.
    pub(super) fn status(&self) -> &SinkStatus {
        &self.status
    }

    /// What became of the documents, in their order.
    pub(super) fn into_answers(self) -> Vec<Written> {
        debug_assert!(self.answers.iter().all(Option::is_some), "a document without an answer");
        let never = || Written::Dead("never answered".into());
        self.answers.into_iter().map(|answer| answer.unwrap_or_else(never)).collect()
    }

    /// Takes the answer to a request.
    pub(super) fn judge(&mut self, batch: Batch, reply: Reply, now: Instant) {
        let trouble = match reply {
            Reply::Items(verdicts) => self.items(batch, verdicts, now),
            Reply::Halve(reason) => {
                self.halve(&batch, &reason);
                None
            }
            Reply::All(verdict) => {
                let verdicts = vec![verdict; batch.documents.len()];
                self.items(batch, verdicts, now)
            }
        };
        if let Some(status) = trouble {
            self.status = status;
        } else if self.held.is_empty() {
            self.status = SinkStatus::Accepting;
        }
    }

    /// Says what is the matter with the store, if something is.
    fn items(&mut self, batch: Batch, verdicts: Vec<Verdict>, now: Instant) -> Option<SinkStatus> {
        let (mut again, mut unclear, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        let mut trouble = None;
        let (mut is_busy, mut has_success) = (false, false);
        for (index, verdict) in batch.documents.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Done(written) => {
                    has_success |= !matches!(written, Written::Dead(_));
                    self.answer(index, written);
                }
                Verdict::Again { reason, trouble: Trouble::FailedAlone } => {
                    if self.fails(index, &reason) {
                        alone.push(index);
                    }
                }
                Verdict::Again { reason, trouble: Trouble::Failed } => {
                    if batch.has_probe {
                        trouble.get_or_insert(SinkStatus::Waiting(reason));
                    }
                    unclear.push(index);
                }
                Verdict::Again { reason, trouble: kind } => {
                    is_busy |= kind == Trouble::Busy;
                    trouble.get_or_insert(SinkStatus::Waiting(reason));
                    again.push(index);
                }
                Verdict::Pause { reason, .. } => {
                    trouble = Some(SinkStatus::Paused(reason));
                    again.push(index);
                }
            }
        }
        if has_success {
            self.delay = None;
        }
        if trouble.is_some() {
            self.slow(batch.round, is_busy, now);
        } else if has_success {
            self.width = (self.width + 1).min(self.width_max);
        }
        self.held.extend(again.iter().chain(unclear.iter().filter(|_| batch.has_probe)));
        self.apart(alone, now);
        self.send_again(again, false);
        // Asked again at once, with the question whether it is the store or the documents.
        self.send_again(unclear, true);
        trouble
    }

    fn halve(&mut self, batch: &Batch, reason: &str) {
        if let [index] = batch.documents.as_slice() {
            self.answer(*index, Written::Dead(reason.into()));
            return;
        }
        let (left, right) = batch.documents.split_at(batch.documents.len() / 2);
        for half in [right, left] {
            self.queue.push_front(Batch::new(half.to_vec()));
        }
    }

    fn answer(&mut self, index: usize, written: Written) {
        self.held.remove(&index);
        if let Some(slot) = self.answers.get_mut(index) {
            *slot = Some(written);
        }
    }

    /// Counts a failure of a document. Whether it is tried again.
    fn fails(&mut self, index: usize, reason: &str) -> bool {
        self.held.remove(&index);
        let Some(count) = self.failures.get_mut(index) else { return false };
        *count += 1;
        let count = *count;
        if count >= FAILURES_MAX {
            self.answer(index, Written::Dead(format!("failed {count} times: {reason}").into()));
        }
        count < FAILURES_MAX
    }

    fn apart(&mut self, documents: Vec<usize>, now: Instant) {
        let failures = documents.iter().filter_map(|index| self.failures.get(*index)).max();
        if let Some(failures) = failures {
            let delay = DELAY.0 * 2_u32.pow(u32::from(*failures).saturating_sub(1));
            self.apart.push((
                now + jittered(delay),
                Batch { documents, has_probe: true, ..Batch::default() },
            ));
        }
    }

    fn send_again(&mut self, documents: Vec<usize>, has_probe: bool) {
        if !documents.is_empty() {
            self.queue.push_front(Batch { documents, has_probe, ..Batch::default() });
        }
    }

    /// Once for all requests that were under way at the same time: they tell of the same trouble.
    fn slow(&mut self, round: u32, is_busy: bool, now: Instant) {
        if round != self.round {
            return;
        }
        self.round += 1;
        if is_busy {
            self.width = (self.width / 2).max(1);
        }
        let delay = self.delay.map_or(DELAY.0, |delay| (delay * 2).min(DELAY.1));
        self.delay = Some(delay);
        self.resume_at = Some(now + jittered(delay));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::elasticsearch::answer::Cure;

    fn again(trouble: Trouble) -> Verdict {
        Verdict::Again { reason: "because".to_owned(), trouble }
    }

    fn work(batches: &[&[usize]]) -> Work {
        let count = batches.iter().map(|batch| batch.len()).sum();
        Work::new(count, batches.iter().map(|batch| batch.to_vec()).collect(), 4)
    }

    #[test]
    fn one_round_slows_down_once() {
        let now = Instant::now();
        let mut work = work(&[&[0, 1, 2], &[3], &[4], &[5]]);
        let under_way: Vec<Batch> = (0..4).filter_map(|sent| work.next(sent, now)).collect();
        assert_eq!(under_way.len(), 4);
        for batch in under_way {
            let verdicts = vec![again(Trouble::Busy); batch.documents.len()];
            work.judge(batch, Reply::Items(verdicts), now);
        }
        assert_eq!((work.delay, work.width), (Some(DELAY.0), 2));
        assert!(
            work.next(0, now).is_none() && work.wakes_at().is_some_and(|at| at <= now + DELAY.0)
        );
        let later = now + DELAY.0;
        let batch = work.next(0, later).unwrap();
        work.judge(batch, Reply::All(again(Trouble::Away)), later);
        assert_eq!((work.delay, work.width), (Some(DELAY.0 * 2), 2));
    }

    #[test]
    fn what_fails_alone_holds_up_nothing() {
        let now = Instant::now();
        let mut work = work(&[&[0, 1], &[2]]);
        let batch = work.next(0, now).unwrap();
        let verdicts = vec![Verdict::Done(Written::Stored), again(Trouble::FailedAlone)];
        work.judge(batch, Reply::Items(verdicts), now);
        assert_eq!((work.status(), work.delay), (&SinkStatus::Accepting, None));
        assert_eq!(work.next(0, now).unwrap().documents, [2]);
        let batch = work.next(0, work.wakes_at().unwrap()).unwrap();
        assert!(batch.has_probe() && batch.documents == [1]);
    }

    #[test]
    fn a_document_dies_of_failing_alone_and_of_nothing_else() {
        for trouble in [Trouble::Busy, Trouble::Away, Trouble::Failed, Trouble::FailedAlone] {
            let mut now = Instant::now();
            let mut work = work(&[&[0]]);
            for _ in 0..FAILURES_MAX {
                now = work.wakes_at().unwrap_or(now);
                let batch = work.next(0, now).unwrap();
                work.judge(batch, Reply::Items(vec![again(trouble)]), now);
            }
            assert_eq!(work.answers[0].is_some(), trouble == Trouble::FailedAlone, "{trouble:?}");
        }
    }

    #[test]
    fn readiness_returns_when_nothing_is_held_any_more() {
        let now = Instant::now();
        let mut work = work(&[&[0], &[1]]);
        let (first, second) = (work.next(0, now).unwrap(), work.next(1, now).unwrap());
        let pause = Verdict::Pause { reason: "full".to_owned(), cure: Cure::Cluster };
        work.judge(first, Reply::Items(vec![pause]), now);
        work.judge(second, Reply::Items(vec![Verdict::Done(Written::Stored)]), now);
        assert_eq!(*work.status(), SinkStatus::Paused("full".to_owned()));
        let batch = work.next(0, work.wakes_at().unwrap()).unwrap();
        work.judge(batch, Reply::Items(vec![Verdict::Done(Written::Stored)]), now);
        assert_eq!(*work.status(), SinkStatus::Accepting);
        assert_eq!(work.into_answers(), vec![Written::Stored; 2]);
    }
}
