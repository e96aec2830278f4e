//! `dead-letters`: look at what could not be stored, try it again, throw it away.

use std::sync::Arc;

use bytes::Bytes;

use super::{open_sink, print, sink_failure, stop_on_signal, wall};
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
    let _lock =
        DataDirLock::acquire(&config.data_dir).map_err(Failure::with(ExitCode::Misconfigured))?;
    let letters = DeadLetters::open(&config.data_dir.join("dead-letters.redb"))
        .map_err(Failure::with(ExitCode::Misconfigured))?;
    match command {
        DeadLettersCommand::List => list(&letters),
        DeadLettersCommand::Show { key } => show(&letters, &key),
        DeadLettersCommand::Retry { keys, all } => {
            retry(&config, &letters, &chosen(&letters, keys, all)?).await
        }
        DeadLettersCommand::Discard { keys, all } => {
            let keys = chosen(&letters, keys, all)?;
            for key in &keys {
                let known = letters.get(key).map_err(Failure::with(ExitCode::Internal))?;
                known.ok_or_else(|| missing(key))?;
            }
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

fn missing(key: &str) -> Failure {
    Failure::new(
        ExitCode::Usage,
        anyhow::anyhow!("there is no dead letter {key}; `callscope dead-letters list` shows them"),
    )
}

fn show(letters: &DeadLetters, key: &str) -> Result<ExitCode, Failure> {
    let letter =
        letters.get(key).map_err(Failure::with(ExitCode::Internal))?.ok_or_else(|| missing(key))?;
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
    keys: &[String],
) -> Result<ExitCode, Failure> {
    let stop = stop_on_signal()?;
    let mut documents = Vec::new();
    let mut done = Vec::new();
    let positions = Checkpoint::positions(&config.data_dir.join("checkpoint.redb"))
        .map_err(Failure::with(ExitCode::Misconfigured))?;
    let (journal, writer, _) =
        Journal::open(&config.data_dir.join("journal"), Bounds::new(&config.journal), &positions)
            .map_err(Failure::with(ExitCode::Misconfigured))?;
    for key in keys {
        let letter = letters
            .get(key)
            .map_err(Failure::with(ExitCode::Internal))?
            .ok_or_else(|| missing(key))?;
        match letter.content {
            Content::Record { source, body, .. } => {
                journal
                    .append(&source, wall(), &body)
                    .await
                    .map_err(Failure::with(ExitCode::Internal))?;
                done.push(key.clone());
            }
            Content::Document { id, version, index_time, elastic_type, json } => {
                let document = Document {
                    id: id.into(),
                    index_time,
                    elastic_type: elastic_type.into(),
                    version,
                    json: Bytes::from(json),
                };
                documents.push((key.clone(), document));
            }
        }
    }
    journal.close();
    writer.join();
    let mut refused = 0;
    if !documents.is_empty() {
        let (sink, _, _) = open_sink(config, config.sink.kind, &stop, &Arc::new(Metrics::new()))?;
        let (keys, documents): (Vec<String>, Vec<Document>) = documents.into_iter().unzip();
        let written = sink.write(&documents).await.map_err(sink_failure)?;
        for (key, written) in keys.into_iter().zip(written) {
            match written {
                Written::Dead(reason) => {
                    refused += 1;
                    print(&format!("{key}: refused again: {reason}"))?;
                }
                Written::Stored | Written::Existed | Written::Older => done.push(key),
            }
        }
    }
    letters.remove(&done).map_err(Failure::with(ExitCode::Internal))?;
    print(&format!("{} tried again, {refused} refused", done.len()))?;
    Ok(if refused == 0 { ExitCode::Ok } else { ExitCode::DataRejected })
}
