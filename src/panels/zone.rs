//! Whose clock time is divided by: days and hours begin where they begin for whoever looks, also across a change of the clocks.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How far before a time its step may begin, milliseconds: twice the longest step, so that a change of the clocks is seen.
const BEFORE: i64 = 60 * 86_400_000;

/// A time zone of the IANA database, which is compiled in; by default UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Zone {
    /// The zone of a name such as `Europe/Madrid`; `None`: there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let zone = TimeZone::get(name).ok()?;
        zone.iana_name().is_some().then_some(Self(zone))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// Steps of so many milliseconds, for times between two, which are milliseconds since 1970.
    #[must_use]
    pub fn steps(&self, step: i64, (from, to): (i64, i64)) -> Steps {
        let at = |time: i64| {
            let bounds = (Timestamp::MIN.as_millisecond(), Timestamp::MAX.as_millisecond());
            Timestamp::from_millisecond(time.clamp(bounds.0, bounds.1)).unwrap_or_default()
        };
        let begin = at(from.saturating_sub(BEFORE.max(step)));
        let ahead = |offset: jiff::tz::Offset| i64::from(offset.seconds()) * 1_000;
        let mut clocks = vec![(i64::MIN, ahead(self.0.to_offset(begin)))];
        for change in self.0.following(begin).take_while(|change| change.timestamp() <= at(to)) {
            clocks.push((change.timestamp().as_millisecond(), ahead(change.offset())));
        }
        Steps { step, clocks }
    }
}

/// A division of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    step: i64,
    /// From when on clocks are how many milliseconds ahead of UTC, in order; the first from ever on.
    clocks: Vec<(i64, i64)>,
}

impl Steps {
    /// Where the step begins that `time` is in. As servers have it: where the clocks show a multiple of the step; where they never
    /// showed that, because they were put forward, at that moment.
    #[must_use]
    pub fn begin(&self, mut time: i64) -> i64 {
        for place in (0..self.clocks.len()).rev() {
            let Some(&(since, ahead)) = self.clocks.get(place) else { continue };
            if time < since {
                continue;
            }
            let shown = time.saturating_add(ahead).div_euclid(self.step) * self.step;
            let begin = shown.saturating_sub(ahead);
            if begin >= since {
                return begin;
            }
            let before = place.checked_sub(1).and_then(|place| self.clocks.get(place));
            if before.is_some_and(|(_, before)| shown.saturating_sub(*before) >= since) {
                return since;
            }
            time = since.saturating_sub(1);
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    /// Midnight in UTC on 28 October 2023: on the next day clocks go back in Europe at 01:00 UTC.
    const OCTOBER: i64 = 1_698_451_200_000;
    /// Midnight in UTC on 30 March 2024: on the next day they go forward at 01:00 UTC.
    const MARCH: i64 = 1_711_756_800_000;

    fn begin(zone: &str, step: i64, time: i64) -> i64 {
        Zone::named(zone).unwrap().steps(step, (time, time)).begin(time)
    }

    #[test]
    fn days_begin_at_midnight_before_and_after_the_clocks_change() {
        for (time, day) in [
            (OCTOBER + 12 * HOUR, OCTOBER - 2 * HOUR),
            // A day of 25 hours.
            (OCTOBER + DAY - 2 * HOUR, OCTOBER + DAY - 2 * HOUR),
            (OCTOBER + DAY + 22 * HOUR, OCTOBER + DAY - 2 * HOUR),
            (OCTOBER + DAY + 23 * HOUR, OCTOBER + DAY + 23 * HOUR),
            // A day of 23 hours.
            (MARCH + DAY + 21 * HOUR, MARCH + DAY - HOUR),
            (MARCH + DAY + 22 * HOUR, MARCH + DAY + 22 * HOUR),
        ] {
            assert_eq!(begin("Europe/Madrid", DAY, time), day, "{time}");
        }
        // The hour that there is twice is two hours, and the one that there is not begins nothing.
        let twice = OCTOBER + DAY;
        assert_eq!(begin("Europe/Madrid", HOUR, twice + 30 * MINUTE), twice);
        assert_eq!(begin("Europe/Madrid", HOUR, twice + 90 * MINUTE), twice + HOUR);
        assert_eq!(begin("Europe/Madrid", 3 * HOUR, twice + 90 * MINUTE), twice - 2 * HOUR);
        assert_eq!(begin("Asia/Kolkata", HOUR, OCTOBER + 45 * MINUTE), OCTOBER + 30 * MINUTE);
        // In Beirut midnight was left out on 31 March 2024.
        let gap = MARCH + DAY - 2 * HOUR;
        assert_eq!(begin("Asia/Beirut", DAY, gap + 5 * HOUR), gap);
    }

    #[test]
    fn names_are_those_of_the_database() {
        for name in ["Europe/Madrid", "UTC", "America/Argentina/Buenos_Aires", "Asia/Calcutta"] {
            assert_eq!(Zone::named(name).unwrap().name(), name);
        }
        for name in ["", "60", "+01:00", "Etc/Unknown", "Europe/Nowhere", "../../etc/passwd"] {
            assert_eq!(Zone::named(name), None, "{name}");
        }
        assert_eq!(Zone::default().name(), "UTC");
    }

    proptest! {
        /// Steps lie in order, none is longer than one and what clocks are put back, and each begins in itself.
        #[test]
        fn every_time_is_in_the_step_that_begins_last(
            zone in prop::sample::select(vec!["Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "UTC"]),
            step in prop::sample::select(vec![MINUTE, HOUR, 3 * HOUR, 12 * HOUR, DAY, 7 * DAY, 30 * DAY]),
            time in 1_500_000_000_000_i64..1_900_000_000_000,
            later in 0..3 * DAY,
        ) {
            let steps = Zone::named(zone).unwrap().steps(step, (time, time + later));
            let begin = steps.begin(time);
            prop_assert!(begin <= time && time - begin < step + HOUR);
            prop_assert_eq!(steps.begin(begin), begin);
            prop_assert!(steps.begin(time + later) >= begin);
            // However far one looks, it is the same step.
            let all = Zone::named(zone).unwrap().steps(step, (0, 2_000_000_000_000));
            prop_assert_eq!(all.begin(time), begin);
        }
    }
}
