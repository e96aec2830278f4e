//! `dead-letters`: look at what could not be stored, try it again, throw it away.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::kept::report;
use super::{AnySink, kafka_failure, open_sink, print, sink_failure, stop_on_signal, tell, wall};
use crate::checkpoint::Checkpoint;
use crate::cli::{DeadLettersCommand, ExitCode, Failure};
use crate::config::Config;
use crate::dead_letters::{Content, DeadLetter, DeadLetters};
use crate::document::Document;
use crate::journal::lock::DataDirLock;
use crate::journal::{self, Bounds, Journal};
use crate::kafka::forward::Sender;
use crate::kafka::letters::{self, Letter};
use crate::kafka::standing::{Board, Part};
use crate::metrics::Metrics;
use crate::record::{Input, Position, Record};
use crate::sink::{Sink, Written};

/// Letters read at once.
const PAGE: usize = 500;

pub(super) async fn run(config: Config, command: DeadLettersCommand) -> Result<ExitCode, Failure> {
    let mut letters = Letters::open(&config)?;
    match command {
        DeadLettersCommand::List => list(&letters),
        DeadLettersCommand::Show { key } => show(&letters, &key),
        DeadLettersCommand::Retry { keys, all } => {
            letters.hold(&keys)?;
            retry(&config, &mut letters, (!all).then_some(keys)).await
        }
        DeadLettersCommand::Discard { keys, all } => {
            let keys = chosen(&letters, keys, all)?;
            letters.hold(&keys)?;
            let removed = letters.remove(&keys)?;
            print(&format!("{removed} discarded"))?;
            Ok(ExitCode::Ok)
        }
    }
}

/// The letters of this machine and, with Kafka, those of its group.
struct Letters {
    /// Absent where another process has the data directory, or there are none.
    own: Option<DeadLetters>,
    group: Option<letters::Letters>,
    _lock: Option<DataDirLock>,
}

impl Letters {
    fn open(config: &Config) -> Result<Self, Failure> {
        let file = config.dead_letters_file();
        let open = || DeadLetters::open(&file).map_err(Failure::with(ExitCode::Misconfigured));
        let lock = DataDirLock::acquire(&config.data_dir);
        if config.kafka.is_set() {
            let group = letters::Letters::read(&config.kafka).map_err(kafka_failure)?;
            if !file.exists() {
                return Ok(Self { own: None, group: Some(group), _lock: lock.ok() });
            }
            // A `serve` that runs here is in nobody's way: it keeps only what Kafka does not take.
            let (own, lock) = match lock {
                Ok(lock) => (Some(open()?), Some(lock)),
                Err(error) => {
                    tell(&format!(
                        "warning: letters of this machine alone, which Kafka did not take, are left out: {error}"
                    ));
                    (None, None)
                }
            };
            return Ok(Self { own, group: Some(group), _lock: lock });
        }
        let lock = lock.map_err(|error| {
            let error = anyhow::Error::from(error).context(
                "dead-letters needs the data directory for itself; stop `serve` meanwhile",
            );
            Failure::new(ExitCode::Misconfigured, error)
        })?;
        Ok(Self { own: Some(open()?), group: None, _lock: Some(lock) })
    }

    /// Up to [`PAGE`] letters after `after`, in the order of their keys: those of this machine first.
    fn page(&self, after: &After) -> Result<Vec<Line>, Failure> {
        if let (Some(own), After::Own(key)) = (&self.own, after) {
            let page = own.list(key, PAGE).map_err(Failure::with(ExitCode::Internal))?;
            if !page.is_empty() {
                let line = |letter: DeadLetter| Line {
                    after: After::Own(letter.key()),
                    key: letter.key(),
                    told: line(letter.at, &letter.reason, None),
                };
                return Ok(page.into_iter().map(line).collect());
            }
        }
        let after = match after {
            After::Own(_) => None,
            After::Group(key) => Some(key),
        };
        let group = self.group.iter().flat_map(letters::Letters::iter);
        let rest = group.filter(|(key, _)| after.is_none_or(|after| *key > after));
        let line = |(key, known): (&String, &letters::Known)| Line {
            after: After::Group(key.clone()),
            key: key.clone(),
            told: line(known.at, &known.reason, known.cut_of.map(|size| (key.as_str(), size))),
        };
        Ok(rest.take(PAGE).map(line).collect())
    }

    /// Whether there is a letter under each key that somebody has named. None of them is read.
    fn hold(&self, keys: &[String]) -> Result<(), Failure> {
        for key in keys {
            let is_own = self.own.as_ref().map_or(Ok(false), |own| own.has(key));
            let is_own = is_own.map_err(Failure::with(ExitCode::Internal))?;
            if !is_own && !self.group.as_ref().is_some_and(|group| group.has(key)) {
                return Err(unknown(key));
            }
        }
        Ok(())
    }

    /// The letter kept under `key`, which somebody has named.
    fn known(&self, key: &str) -> Result<Letter, Failure> {
        let own = match &self.own {
            Some(own) => own.get(key).map_err(Failure::with(ExitCode::Internal))?,
            None => None,
        };
        let known = match (own, &self.group) {
            (Some(letter), _) => Some(Letter { letter, cut_of: None }),
            (None, Some(group)) => group.get(key).map_err(kafka_failure)?,
            (None, None) => None,
        };
        known.ok_or_else(|| unknown(key))
    }

    fn remove(&mut self, keys: &[String]) -> Result<usize, Failure> {
        let own = match &self.own {
            Some(own) => own.remove(keys).map_err(Failure::with(ExitCode::Internal))?,
            None => 0,
        };
        let group = match &mut self.group {
            Some(group) => group.remove(keys).map_err(kafka_failure)?,
            None => 0,
        };
        Ok(own + group)
    }
}

fn unknown(key: &str) -> Failure {
    let error =
        anyhow::anyhow!("there is no dead letter {key}; `callscope dead-letters list` shows them");
    Failure::new(ExitCode::Usage, error)
}

/// A place among the letters.
#[derive(Clone)]
enum After {
    Own(String),
    Group(String),
}

/// What `list` tells of a letter.
struct Line {
    key: String,
    told: String,
    /// Where to go on after it.
    after: After,
}

/// `cut`: the letter's key and how many bytes there were, if not all are here.
fn line(at: i64, reason: &str, cut: Option<(&str, usize)>) -> String {
    let cut = cut.map_or_else(String::new, |(key, size)| {
        let kind = key.split('/').next().unwrap_or_default();
        format!("; cut: its {kind} has {size} bytes")
    });
    format!("{}\t{reason}{cut}", time(at))
}

fn each(
    letters: &Letters,
    mut work: impl FnMut(Line) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = After::Own(String::new());
    loop {
        let page = letters.page(&after)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.after.clone();
        page.into_iter().try_for_each(&mut work)?;
    }
}

fn chosen(letters: &Letters, keys: Vec<String>, all: bool) -> Result<Vec<String>, Failure> {
    if !all {
        return Ok(keys);
    }
    let mut keys = Vec::new();
    each(letters, |line| {
        keys.push(line.key);
        Ok(())
    })?;
    Ok(keys)
}

fn time(at: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn list(letters: &Letters) -> Result<ExitCode, Failure> {
    each(letters, |line| print(&format!("{}\t{}", line.key, line.told)))?;
    Ok(ExitCode::Ok)
}

fn show(letters: &Letters, key: &str) -> Result<ExitCode, Failure> {
    let Letter { letter, cut_of } = letters.known(key)?;
    print(&format!("key: {key}\nat: {}\nreason: {}", time(letter.at), letter.reason))?;
    match &letter.content {
        Content::Record { position, source, .. } => {
            print(&format!("position: {position}\nsource: {source}"))?;
        }
        Content::Document { elastic_type, version, .. } => {
            let version = version.map_or("none".to_owned(), |version| version.to_string());
            print(&format!("elastic_type: {elastic_type}\nversion: {version}"))?;
        }
    }
    if let Some(size) = cut_of {
        print(&format!("cut: {}", cut(&letter.content, size)))?;
    }
    match &letter.content {
        Content::Record { body, .. } => print(&format!("\n{}", String::from_utf8_lossy(body)))?,
        Content::Document { json, .. } => print(&format!("\n{json}"))?,
    }
    Ok(ExitCode::Ok)
}

/// Where the whole is of which a letter holds the beginning.
fn cut(content: &Content, size: usize) -> String {
    let (here, whole) = match content {
        Content::Record { position, body, .. } => {
            (body.len(), format!("the whole record stands at {position}"))
        }
        Content::Document { json, .. } => {
            let whole =
                "`callscope replay --into INDEX` makes the whole document of its records again";
            (json.len(), whole.to_owned())
        }
    };
    format!("only the first {here} of {size} bytes are here; {whole}")
}

/// Records go to the end of the journal, for the next `serve`, or with Kafka to the topic; documents go to the sink at once.
/// What was taken is removed.
async fn retry(
    config: &Config,
    letters: &mut Letters,
    keys: Option<Vec<String>>,
) -> Result<ExitCode, Failure> {
    let stop = stop_on_signal()?;
    let mut retry = Retry { config, letters, stop, way: None, sink: None, taken: 0, refused: 0 };
    let tried = match keys {
        Some(keys) => retry.chosen(&keys).await,
        None => retry.all().await,
    };
    if let Some(Way::Journal(journal, writer)) = retry.way.take() {
        journal.close();
        writer.join();
    }
    tried?;
    print(&format!("{} tried again, {} refused", retry.taken, retry.refused))?;
    Ok(if retry.refused == 0 { ExitCode::Ok } else { ExitCode::DataRejected })
}

/// Where records go that are tried again.
enum Way {
    Journal(Journal, journal::Writer),
    Kafka(Box<Sender>),
}

/// Letters that are tried again, a page at a time.
struct Retry<'a> {
    config: &'a Config,
    letters: &'a mut Letters,
    stop: CancellationToken,
    /// Opened for the first record.
    way: Option<Way>,
    /// Opened for the first document.
    sink: Option<AnySink>,
    taken: usize,
    refused: usize,
}

impl Retry<'_> {
    async fn all(&mut self) -> Result<(), Failure> {
        let mut after = After::Own(String::new());
        loop {
            let page = self.letters.page(&after)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.after.clone();
            let keys: Vec<String> = page.into_iter().map(|line| line.key).collect();
            self.chosen(&keys).await?;
        }
    }

    async fn chosen(&mut self, keys: &[String]) -> Result<(), Failure> {
        for keys in keys.chunks(PAGE) {
            self.page(keys).await?;
        }
        Ok(())
    }

    async fn page(&mut self, page: &[String]) -> Result<(), Failure> {
        let mut done = Vec::new();
        let (mut keys, mut documents) = (Vec::new(), Vec::new());
        for key in page {
            let Letter { letter, cut_of } = self.letters.known(key)?;
            let key = key.clone();
            match (letter.content, cut_of) {
                (content, Some(size)) => {
                    self.refused += 1;
                    print(&format!("{key}: refused: {}", cut(&content, size)))?;
                }
                (Content::Record { source, body, .. }, None) => {
                    match self.send(&source, body).await? {
                        None => done.push(key),
                        Some(reason) => {
                            self.refused += 1;
                            print(&format!("{key}: refused again: {reason}"))?;
                        }
                    }
                }
                (Content::Document { id, version, index_time, elastic_type, json }, None) => {
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
        self.letters.remove(&done)?;
        Ok(())
    }

    /// Sends a record again, as if it had just come; gives why it was refused.
    async fn send(&mut self, source: &str, body: Vec<u8>) -> Result<Option<String>, Failure> {
        let way = match self.way.take() {
            Some(way) => way,
            None => self.open()?,
        };
        match self.way.insert(way) {
            Way::Journal(journal, _) => journal
                .append(source, wall(), &body)
                .await
                .map(|_| None)
                .map_err(Failure::with(ExitCode::Internal)),
            Way::Kafka(sender) => {
                let record = Record {
                    position: Position { input: Input("retry".into()), offset: 0 },
                    next_offset: 0,
                    source: source.into(),
                    payload: body.into(),
                };
                let sent = tokio::task::block_in_place(|| sender.send(&[record]));
                Ok(sent.map_err(sink_failure)?.pop().map(|(_, reason)| reason))
            }
        }
    }

    fn open(&self) -> Result<Way, Failure> {
        let misconfigured = ExitCode::Misconfigured;
        if self.config.kafka.is_set() {
            let board = (Board::new(Arc::new(Metrics::new())), Part::Forwarding);
            let sender = Sender::new(&self.config.kafka, board, self.stop.clone());
            return sender.map(|sender| Way::Kafka(Box::new(sender))).map_err(kafka_failure);
        }
        let positions = Checkpoint::positions(&self.config.checkpoint_file())
            .map_err(Failure::with(misconfigured))?;
        let bounds = Bounds::new(&self.config.journal);
        let (journal, writer, recovered) =
            Journal::open(&self.config.journal_folder(), bounds, &positions)
                .map_err(Failure::with(misconfigured))?;
        report(&recovered);
        Ok(Way::Journal(journal, writer))
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

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;

    #[test]
    fn whether_there_are_letters_is_known_without_reading_them_again() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::load(None, std::iter::empty()).unwrap().config;
        config.data_dir = folder.path().to_owned();
        config.kafka.brokers = vec![cluster.bootstrap_servers()];
        cluster.create_topic(&config.kafka.dead_letters_topic(), 1, 1).unwrap();
        let letter = |position: &str| {
            let (source, body) = ("default".to_owned(), b"garbage".to_vec());
            let content = Content::Record { position: position.to_owned(), source, body };
            DeadLetter { at: 1, reason: "no event".to_owned(), content }
        };
        let (own, group) = (letter("journal/x@1"), letter("kafka/events/0@1"));
        let file = DeadLetters::open(&config.dead_letters_file()).unwrap();
        file.put(std::slice::from_ref(&own)).unwrap();
        drop(file);
        letters::put(&config.kafka, std::slice::from_ref(&group)).unwrap();
        let letters = Letters::open(&config).unwrap();
        // Nothing can be read from here on.
        drop(cluster);
        letters.hold(&[own.key(), group.key()]).unwrap();
        let unknown = letters.hold(&[group.key(), "record/x".to_owned()]).unwrap_err();
        assert_eq!(unknown.code, ExitCode::Usage);
        assert!(unknown.error.to_string().contains("no dead letter record/x"), "{unknown:?}");
    }
}
