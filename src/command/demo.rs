//! `demo`: serve, beside a simulated cluster that sends real events to the webhook, first a month of history and then time
//! lapse for as long as it runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{serve, tell, wall};
use crate::cli::{ExitCode, Failure};
use crate::config::Config;
use crate::simulate::rng::Rng;
use crate::simulate::send::Sender;
use crate::simulate::{Emitted, arrivals, session};

/// How many times faster than in life sessions pass once the history is told.
const PACE: i64 = 20;
/// Span between two live sessions, milliseconds.
const LIVE_EVERY: u64 = 2_500;
/// How often the history's progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// A folder of its own, and what the simulation needs.
pub(super) fn prepare(config: &mut Config) -> Result<(), Failure> {
    if config.data_dir == Path::new("callscope-data") {
        config.data_dir = PathBuf::from("callscope-demo");
    }
    if let Some(source) = config.sources.get_mut("default")
        && source.cluster_id.as_deref() == Some("")
    {
        source.cluster_id = Some("demo".to_owned());
    }
    Ok(())
}

pub(super) async fn run(config: Config, history: Duration, seed: u64) -> Result<ExitCode, Failure> {
    // Without this, a second start would tell the same month again, some minutes later.
    let is_new = !config.data_dir.join("checkpoint.redb").exists();
    let history = if is_new { history } else { Duration::ZERO };
    serve::run(
        config,
        Some(Box::new(move |address, stop| {
            tokio::spawn(async move {
                tell(&format!("\n  open http://{address}/ in a browser; Ctrl-C ends the demo\n"));
                if let Err(error) = drive(address, history, seed, &stop).await
                    && !stop.is_cancelled()
                {
                    tracing::error!(error = %error, "the simulated cluster has stopped");
                }
            })
        })),
    )
    .await
}

async fn drive(
    address: SocketAddr,
    history: Duration,
    seed: u64,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut sender = Sender::new(address, "/webhook");
    let now = wall();
    let mut rng = Rng::new(seed ^ u64::try_from(now).unwrap_or(0));
    let from = now - i64::try_from(history.as_millis()).unwrap_or(0);
    // What of the past lies in the future still comes, at its own time.
    let mut waiting = tell_history(address, seed, from, now, stop).await?;
    // Some sessions are under way already when one looks.
    for _ in 0..12 {
        waiting.push(session(rng.number(), wall(), PACE).0);
    }
    let mut next = wall();
    while !stop.is_cancelled() {
        let now = wall();
        if now >= next {
            waiting.push(session(rng.number(), now, PACE).0);
            next = now + i64::try_from(rng.below(2 * LIVE_EVERY)).unwrap_or(0);
        }
        while let Some(event) = waiting.pop_before(now + 1) {
            sender.send(&event.json).await?;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    Ok(())
}

/// Events in the order of their time; those of one moment in the order in which they came.
#[derive(Default)]
struct Waiting {
    heap: BinaryHeap<Reverse<(i64, u64, String)>>,
    order: u64,
}

impl Waiting {
    fn push(&mut self, events: Vec<Emitted>) {
        for event in events {
            self.order += 1;
            self.heap.push(Reverse((event.at, self.order, event.json)));
        }
    }

    fn earliest(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    fn pop_before(&mut self, time: i64) -> Option<Emitted> {
        self.earliest().filter(|at| *at < time)?;
        self.heap.pop().map(|Reverse((at, _, json))| Emitted { at, json })
    }
}

/// Connections over which the past is told.
const SENDERS: usize = 16;
/// How much of the past is told at once. Within it, sessions do not wait for each other.
const WINDOW: i64 = 3_600_000;

/// Sends the past, hour by hour: sessions side by side, each in its own order. Gives what of them lies after `to`.
async fn tell_history(
    address: SocketAddr,
    seed: u64,
    from: i64,
    to: i64,
    stop: &CancellationToken,
) -> anyhow::Result<Waiting> {
    let mut rng = Rng::new(seed);
    let mut lanes: Vec<(Sender, Waiting)> =
        (0..SENDERS).map(|_| (Sender::new(address, "/webhook"), Waiting::default())).collect();
    for (index, start) in arrivals(seed, from, to).into_iter().enumerate() {
        if let Some((_, waiting)) = lanes.get_mut(index % SENDERS) {
            waiting.push(session(rng.number(), start, 1).0);
        }
    }
    let (mut window, mut count) = (from, 0);
    let mut told = Instant::now();
    while window < to && !stop.is_cancelled() {
        window = (window + WINDOW).min(to);
        let sent = lanes.iter_mut().map(async |(sender, waiting)| {
            let mut count = 0_u64;
            while let Some(event) = waiting.pop_before(window) {
                sender.send(&event.json).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
        count += futures_util::future::try_join_all(sent).await?.into_iter().sum::<u64>();
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            let day = chrono::DateTime::from_timestamp_millis(window).unwrap_or_default();
            tell(&format!("  history: {} at {count} events", day.format("%Y-%m-%d")));
        }
    }
    if count > 0 {
        tell(&format!("  history: {count} events sent; live sessions follow"));
    }
    let mut rest = Waiting::default();
    for (_, mut waiting) in lanes {
        while let Some(event) = waiting.pop_before(i64::MAX) {
            rest.push(vec![event]);
        }
    }
    Ok(rest)
}
