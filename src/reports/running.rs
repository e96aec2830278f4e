//! What is remembered of those who report: how far their clocks are from ours.

use std::sync::Mutex;

use crate::recent::Recent;

/// How far a browser's clock may be from ours; beyond, ours counts. Milliseconds.
const SKEW_MAX: i64 = 60_000;

/// By how much clocks are wrong. Kept in memory: after a restart it is found out anew.
#[derive(Debug, Default)]
pub struct Running {
    /// Milliseconds that are added to what a browser tells.
    clocks: Mutex<Recent<i64, 20_000>>,
    /// The same of sessions whose platform has a clock that is ahead.
    platforms: Mutex<Recent<i64, 20_000>>,
}

impl Running {
    /// When a report on `stream` was made that came at `came`: as it says, unless its clock is far off. Then it is as far off as it was
    /// the first time, so that a report which comes twice, or late, is of the same time.
    pub(super) fn time(&self, stream: u64, told: Option<i64>, came: i64) -> i64 {
        let is_near = |time: &i64| time.abs_diff(came) <= SKEW_MAX.unsigned_abs();
        let Some(told) = told else { return came };
        if is_near(&told) {
            return told;
        }
        let mut clocks = self.clocks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = clocks.get_mut(stream).map(|off| told.saturating_add(*off));
        known.filter(is_near).unwrap_or_else(|| {
            clocks.insert(stream, came.saturating_sub(told));
            came
        })
    }

    /// By how much the platform's clock is ahead, milliseconds, where a session's newest event seems to come after `came`: what is
    /// reported after it was no earlier.
    pub fn ahead(&self, session: u64, newest: i64, came: i64) -> i64 {
        let off = newest.saturating_sub(came);
        let mut platforms =
            self.platforms.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = platforms.get_mut(session).map_or(0, |off| *off);
        if off > SKEW_MAX.max(known) {
            platforms.insert(session, off);
            return off;
        }
        known
    }
}
