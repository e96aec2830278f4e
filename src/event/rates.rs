//! What browsers up to 2.16 tell instead of counters: what there was in each second since the report before.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Event, FieldName};

/// The longest time that one report can be about, in milliseconds: after a longer silence it is about its own last second.
const SPAN_MAX: i64 = 60_000;
/// More in a second takes no network.
const RATE_MAX: f64 = 1e12;

/// The member `perSecond` of an event: by the name of a counter, by how much it has grown in each second.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates(BTreeMap<String, Value>);

impl Rates {
    /// Those of an event. `None`: it has none.
    #[must_use]
    pub fn of(event: &Event<'_>) -> Option<Self> {
        serde_json::from_str(&event.field(FieldName::PerSecond)?.json).ok().map(Self)
    }

    fn rate(&self, counter: FieldName) -> Option<f64> {
        let rate = self.0.get(counter.text())?.as_f64()?;
        (0.0..=RATE_MAX).contains(&rate).then_some(rate)
    }

    /// Thousandths in each second.
    #[must_use]
    pub fn thousandths(&self, counter: FieldName) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 10^15"
        )]
        self.rate(counter).map(|rate| (rate * 1_000.0).round() as u64)
    }

    /// By how much a counter has grown since the report that was made so many milliseconds before.
    #[must_use]
    pub fn growth(&self, counter: FieldName, span: i64) -> Option<i64> {
        let span = if (1..=SPAN_MAX).contains(&span) { span } else { 1_000 };
        #[expect(clippy::cast_precision_loss, reason = "at most a minute")]
        let seconds = span as f64 / 1_000.0;
        #[expect(clippy::cast_possible_truncation, reason = "at most 10^14")]
        self.rate(counter).map(|rate| (rate * seconds).round() as i64)
    }
}
