//! `import --to kafka`: the lines of files as records of the first topic, keyed by session, for the group to fold.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::super::{kafka_failure, sink_failure, stop_on_signal, tell};
use super::{Bar, in_order};
use crate::checkpoint::Tally;
use crate::cli::{ExitCode, Failure};
use crate::config::Config;
use crate::files::FileError;
use crate::kafka::forward::Sender;
use crate::kafka::standing::{Board, Part};
use crate::kafka::topics;
use crate::lane::Item;
use crate::metrics::Metrics;
use crate::sink::SinkError;

/// What became of the lines.
#[derive(Default)]
struct Sent {
    sent: u64,
    skipped: u64,
    refused: u64,
}

pub(super) async fn run(
    config: &Config,
    files: &[PathBuf],
    source: &str,
) -> Result<ExitCode, Failure> {
    if !config.kafka.is_set() {
        let error =
            anyhow::anyhow!("--to kafka: there is no Kafka in the settings; set kafka.brokers");
        return Err(Failure::new(ExitCode::Misconfigured, error));
    }
    topics::look(&config.kafka).await.map_err(kafka_failure)?;
    let inputs = in_order(files)?;
    let stop = stop_on_signal()?;
    let board = Board::new(Arc::new(Metrics::new()));
    let mut sender =
        Sender::new(&config.kafka, (board, Part::Forwarding), stop).map_err(kafka_failure)?;
    let mut bar = Bar::new("bytes", inputs.iter().map(|input| input.size).sum());
    let begun = Instant::now();
    let mut counts = Sent::default();
    let mut broken = None;
    let mut ended = Ok(());
    for input in inputs {
        let source: Arc<str> = Arc::from(source);
        let (batches, mut read) = mpsc::channel(1);
        let reader = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || input.read(&source, &batches))
            .map_err(Failure::with(ExitCode::Internal))?;
        let mut seen = 0;
        while let Some((items, bytes)) = read.recv().await {
            let sent = tokio::task::block_in_place(|| send(&mut sender, items, &mut counts));
            if let Err(error) = sent {
                ended = Err(error);
                break;
            }
            let tally = Tally {
                records: counts.sent + counts.skipped + counts.refused,
                ..Tally::default()
            };
            bar.advance(bytes - seen, &tally);
            seen = bytes;
        }
        if ended.is_err() {
            // A read of standard input cannot be broken off; its thread ends with the process then.
            break;
        }
        let read: Result<(), FileError> = reader.join().map_err(|_| {
            Failure::new(ExitCode::Internal, anyhow::anyhow!("the reader panicked"))
        })?;
        if let Err(error) = read {
            tracing::error!(error = %error, "the rest of this file is not read");
            broken = Some(error);
        }
    }
    bar.clear();
    let Sent { sent, skipped, refused } = counts;
    tell(&format!(
        "{} records in {:.1} s: {sent} sent, {skipped} skipped, {refused} refused",
        sent + skipped + refused,
        begun.elapsed().as_secs_f64()
    ));
    match (ended, broken) {
        (Err(error), _) => Err(failure(error)),
        (Ok(()), Some(error)) => Err(Failure::new(ExitCode::DataRejected, error)),
        (Ok(()), None) if refused > 0 => Ok(ExitCode::DataRejected),
        (Ok(()), None) => Ok(ExitCode::Ok),
    }
}

/// How the process ends when not everything was sent.
fn failure(error: SinkError) -> Failure {
    match error {
        SinkError::Stopped => Failure::new(
            ExitCode::Internal,
            anyhow::anyhow!("stopped before everything was sent; importing again is safe"),
        ),
        error => sink_failure(error),
    }
}

fn send(sender: &mut Sender, items: Vec<Item>, counts: &mut Sent) -> Result<(), SinkError> {
    let mut records = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Item::Record(record) => records.push(record),
            Item::Damaged(record, reason) => {
                counts.refused += 1;
                tracing::warn!(position = %record.position, reason, "not sent");
            }
            Item::Noise(_) => counts.skipped += 1,
        }
    }
    let refused = sender.send(&records)?;
    counts.sent += (records.len() - refused.len()) as u64;
    counts.refused += refused.len() as u64;
    for (place, reason) in refused {
        if let Some(record) = records.get(place) {
            tracing::warn!(position = %record.position, reason, "not sent");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_settings_is_told() {
        let wrong = failure(SinkError::Misconfigured(anyhow::anyhow!("see the section [kafka]")));
        assert_eq!(wrong.code, ExitCode::Misconfigured);
        assert_eq!(wrong.error.to_string(), "see the section [kafka]");
        let stopped = failure(SinkError::Stopped);
        assert_eq!(stopped.code, ExitCode::Internal);
        assert!(stopped.error.to_string().contains("importing again is safe"));
    }
}
