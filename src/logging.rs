//! Logging: one event a line on standard error.
//!
//! A message is a constant lower-case phrase; values are fields. The names of fields are a closed list: `bytes`,
//! `bytes_max`, `count`, `end`, `error`, `first`, `is_kept`, `key`, `last`, `path`, `reason`, `source`.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Levels whose lines are counted.
pub const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Lines since the process began, by level. There is one log in a process, so there is one count.
static LINES: [AtomicU64; LEVELS.len()] = [const { AtomicU64::new(0) }; LEVELS.len()];

/// Log lines since the process began, in the order of [`LEVELS`].
pub fn lines() -> impl Iterator<Item = u64> {
    LINES.iter().map(|lines| lines.load(Ordering::Relaxed))
}

/// Counts the lines that pass the filter.
struct Count;

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        let at = levels.iter().position(|level| level == event.metadata().level());
        if let Some(lines) = at.and_then(|at| LINES.get(at)) {
            lines.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An error with its causes, none of them twice: many errors tell their cause in their own text already.
#[must_use]
pub fn chain(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if told.is_empty() {
            told = text;
        } else if !told.contains(&text) {
            told.push_str(": ");
            told.push_str(&text);
        }
    }
    told
}

/// Sends log events to standard error from now on.
///
/// # Errors
///
/// If `level` is no filter.
pub fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.level)
        .map_err(|error| anyhow::anyhow!("log.level {:?} is no filter: {error}", config.level))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let log = tracing_subscriber::registry().with(filter).with(Count);
    let started = match config.format {
        LogFormat::Text => log.with(lines.with_target(false)).try_init(),
        LogFormat::Json => log.with(lines.json()).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[test]
    fn a_cause_is_told_once() {
        let cause = anyhow::anyhow!("refused").context("cannot connect: refused");
        assert_eq!(chain(&cause.context("no answer")), "no answer: cannot connect: refused");
    }
}
