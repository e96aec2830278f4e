//! `dead-letters`: look at what could not be stored, try it again, throw it away.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::kept::report;
use super::{AnySink, open_sink, print, sink_failure, stop_on_signal, wall};
use crate::checkpoint::Checkpoint;
use crate::cli::{DeadLettersCommand, ExitCode, Failure};
use crate::config::Config;
use crate::dead_letters::{Content, DeadLetter, DeadLetters};
use crate::document::Document;
use crate::journal::lock::DataDirLock;
use crate::journal::{Bounds, Journal};
use crate::metrics::Metrics;
use crate::sink::{Sink, Written};

/// Letters read at once.
const PAGE: usize = 500;

pub(super) async fn run(config: Config, command: DeadLettersCommand) -> Result<ExitCode, Failure> {
    let _lock = DataDirLock::acquire(&config.data_dir).map_err(|error| {
        let error = anyhow::Error::from(error);
        let error = error
            .context("dead-letters needs the data directory for itself; stop `serve` meanwhile");
        Failure::new(ExitCode::Misconfigured, error)
    })?;
    let letters = DeadLetters::open(&config.dead_letters_file())
        .map_err(Failure::with(ExitCode::Misconfigured))?;
    match command {
        DeadLettersCommand::List => list(&letters),
        DeadLettersCommand::Show { key } => show(&letters, &key),
        DeadLettersCommand::Retry { keys, all } => {
            keys.iter().try_for_each(|key| known(&letters, key).map(drop))?;
            retry(&config, &letters, (!all).then_some(keys)).await
        }
        DeadLettersCommand::Discard { keys, all } => {
            let keys = chosen(&letters, keys, all)?;
            keys.iter().try_for_each(|key| known(&letters, key).map(drop))?;
            let removed = letters.remove(&keys).map_err(Failure::with(ExitCode::Internal))?;
            print(&format!("{removed} discarded"))?;
            Ok(ExitCode::Ok)
        }
    }
}

fn each(
    letters: &DeadLetters,
    mut work: impl FnMut(&DeadLetter) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let page = letters.list(&after, PAGE).map_err(Failure::with(ExitCode::Internal))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.key();
        page.iter().try_for_each(&mut work)?;
    }
}

fn chosen(letters: &DeadLetters, keys: Vec<String>, all: bool) -> Result<Vec<String>, Failure> {
    if !all {
        return Ok(keys);
    }
    let mut keys = Vec::new();
    each(letters, |letter| {
        keys.push(letter.key());
        Ok(())
    })?;
    Ok(keys)
}

fn at(letter: &DeadLetter) -> String {
    let time = chrono::DateTime::from_timestamp_millis(letter.at).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn list(letters: &DeadLetters) -> Result<ExitCode, Failure> {
    each(letters, |letter| print(&format!("{}\t{}\t{}", letter.key(), at(letter), letter.reason)))?;
    Ok(ExitCode::Ok)
}

/// The letter kept under `key`, which somebody has named.
fn known(letters: &DeadLetters, key: &str) -> Result<DeadLetter, Failure> {
    let letter = letters.get(key).map_err(Failure::with(ExitCode::Internal))?;
    letter.ok_or_else(|| {
        let error = anyhow::anyhow!(
            "there is no dead letter {key}; `callscope dead-letters list` shows them"
        );
        Failure::new(ExitCode::Usage, error)
    })
}

fn show(letters: &DeadLetters, key: &str) -> Result<ExitCode, Failure> {
    let letter = known(letters, key)?;
    print(&format!("key: {key}\nat: {}\nreason: {}", at(&letter), letter.reason))?;
    match &letter.content {
        Content::Record { position, source, body } => {
            print(&format!(
                "position: {position}\nsource: {source}\n\n{}",
                String::from_utf8_lossy(body)
            ))?;
        }
        Content::Document { elastic_type, version, json, .. } => {
            let version = version.map_or("none".to_owned(), |version| version.to_string());
            print(&format!("elastic_type: {elastic_type}\nversion: {version}\n\n{json}"))?;
        }
    }
    Ok(ExitCode::Ok)
}

/// Records go to the end of the journal, for the next `serve`; documents go to the sink at once. What was taken is removed.
async fn retry(
    config: &Config,
    letters: &DeadLetters,
    keys: Option<Vec<String>>,
) -> Result<ExitCode, Failure> {
    let stop = stop_on_signal()?;
    let positions = Checkpoint::positions(&config.checkpoint_file())
        .map_err(Failure::with(ExitCode::Misconfigured))?;
    let (journal, writer, recovered) =
        Journal::open(&config.journal_folder(), Bounds::new(&config.journal), &positions)
            .map_err(Failure::with(ExitCode::Misconfigured))?;
    report(&recovered);
    let mut retry = Retry { config, letters, stop, journal, sink: None, taken: 0, refused: 0 };
    let tried = match keys {
        Some(keys) => retry.chosen(&keys).await,
        None => retry.all().await,
    };
    retry.journal.close();
    writer.join();
    tried?;
    print(&format!("{} tried again, {} refused", retry.taken, retry.refused))?;
    Ok(if retry.refused == 0 { ExitCode::Ok } else { ExitCode::DataRejected })
}

/// Letters that are tried again, a page at a time.
struct Retry<'a> {
    config: &'a Config,
    letters: &'a DeadLetters,
    stop: CancellationToken,
    journal: Journal,
    /// Opened for the first document.
    sink: Option<AnySink>,
    taken: usize,
    refused: usize,
}

impl Retry<'_> {
    async fn all(&mut self) -> Result<(), Failure> {
        let mut after = String::new();
        loop {
            let page =
                self.letters.list(&after, PAGE).map_err(Failure::with(ExitCode::Internal))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.key();
            self.page(page).await?;
        }
    }

    async fn chosen(&mut self, keys: &[String]) -> Result<(), Failure> {
        for keys in keys.chunks(PAGE) {
            let page = keys.iter().map(|key| known(self.letters, key)).collect::<Result<_, _>>()?;
            self.page(page).await?;
        }
        Ok(())
    }

    async fn page(&mut self, page: Vec<DeadLetter>) -> Result<(), Failure> {
        let mut done = Vec::new();
        let (mut keys, mut documents) = (Vec::new(), Vec::new());
        for letter in page {
            let key = letter.key();
            match letter.content {
                Content::Record { source, body, .. } => {
                    self.journal
                        .append(&source, wall(), &body)
                        .await
                        .map_err(Failure::with(ExitCode::Internal))?;
                    done.push(key);
                }
                Content::Document { id, version, index_time, elastic_type, json } => {
                    keys.push(key);
                    documents.push(Document {
                        id: id.into(),
                        index_time,
                        elastic_type: elastic_type.into(),
                        version,
                        json: Bytes::from(json),
                    });
                }
            }
        }
        if !documents.is_empty() {
            let written = self.sink()?.write(&documents).await.map_err(sink_failure)?;
            for (key, written) in keys.into_iter().zip(written) {
                match written {
                    Written::Dead(reason) => {
                        self.refused += 1;
                        print(&format!("{key}: refused again: {reason}"))?;
                    }
                    Written::Stored | Written::Existed | Written::Older => done.push(key),
                }
            }
        }
        self.taken += done.len();
        self.letters.remove(&done).map_err(Failure::with(ExitCode::Internal))?;
        Ok(())
    }

    fn sink(&mut self) -> Result<&AnySink, Failure> {
        let sink = match self.sink.take() {
            Some(sink) => sink,
            None => {
                let metrics = Arc::new(Metrics::new());
                open_sink(self.config, self.config.sink.kind, &self.stop, &metrics)?.0
            }
        };
        Ok(self.sink.insert(sink))
    }
}
