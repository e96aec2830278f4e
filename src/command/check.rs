//! `check`: whether everything is as `serve` needs it, and what the lines of a file are.

use std::path::Path;

use anyhow::Context;

use super::{kafka_failure, kept, open_geoip, plan_setup, print};
use crate::cli::{ExitCode, Failure};
use crate::config::{Config, SinkKind};
use crate::decode::{self, Decoded};
use crate::event::Event;
use crate::files::Lines;
use crate::http::{Bound, HttpError};
use crate::journal::{self, lock::DataDirLock};
use crate::kafka::{key, topics};
use crate::kibana::Kibana;
use crate::logging::chain;
use crate::rest;

pub(super) async fn run(config: &Config, events: Option<&Path>) -> Result<ExitCode, Failure> {
    if let Some(path) = events {
        return check_events(config, path).await;
    }
    let mut lines = vec!["settings: ok".to_owned()];
    let looked = look(config, &mut lines).await;
    for line in lines {
        print(&line)?;
    }
    looked
}

/// Looks at everything that `serve` needs, and adds what it finds to `lines`.
async fn look(config: &Config, lines: &mut Vec<String>) -> Result<ExitCode, Failure> {
    let geoip = open_geoip(config)?;
    if geoip.is_empty() {
        lines.push(
            "GeoIP: no database, places stay unknown; list one in geoip.databases".to_owned(),
        );
    }
    for database in geoip.about() {
        lines.push(format!("GeoIP: {} ({})", database.path.display(), database.kind));
    }
    let can_be_used = try_data_dir(config);
    match &can_be_used {
        Ok(told) => {
            lines.push(format!("data_dir: {} can be used", config.data_dir.display()));
            lines.extend(told.iter().map(|told| format!("data_dir: {told}")));
        }
        Err(error) => lines.push(format!("data_dir: {}", chain(error))),
    }
    let can_listen = check_http(config, lines).await;
    let platforms = check_platforms(config, lines).await;
    let kafka =
        if config.kafka.is_set() { check_kafka(config, lines).await } else { Ok(ExitCode::Ok) };
    let sink = match config.sink.kind {
        SinkKind::Elasticsearch => check_elasticsearch(config, lines).await,
        SinkKind::Embedded => {
            lines.push(format!("sink: embedded index in {}", config.data_dir.display()));
            Ok(ExitCode::Ok)
        }
        SinkKind::Stdout => {
            lines.push("sink: standard output; the page cannot show what has ended".to_owned());
            Ok(ExitCode::Ok)
        }
    };
    let has_neighbours = check_kibana(config, lines).await && platforms;
    let sink = if has_neighbours { sink } else { sink.map(worse_by_a_neighbour) };
    let sink = match kafka {
        Ok(ExitCode::Ok) => sink,
        Ok(code) => sink.map(|_| code),
        Err(failure) => Err(failure),
    };
    if can_be_used.is_ok() && can_listen {
        return sink;
    }
    // A neighbour that is away may come back; the settings do not mend themselves.
    sink.map(|_| ExitCode::Misconfigured)
        .map_err(|failure| Failure { code: ExitCode::Misconfigured, ..failure })
}

/// Takes the data directory as `serve` would, and leaves everything as it was. Gives what an operator should know.
fn try_data_dir(config: &Config) -> anyhow::Result<Vec<String>> {
    let data_dir = &config.data_dir;
    let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let new: Vec<&Path> = data_dir.ancestors().take_while(is_new).collect();
    let tried = DataDirLock::acquire(data_dir).map_err(anyhow::Error::from).and_then(|_lock| {
        write_in(data_dir).with_context(|| format!("cannot write into {}", data_dir.display()))?;
        journal::check_reserve(data_dir, config.journal.reserve_bytes)?;
        kept::check(config)
    });
    if !new.is_empty() {
        // Made by this attempt, so empty but for the lock.
        let _left = std::fs::remove_file(data_dir.join("lock"));
        for folder in new {
            let _left = std::fs::remove_dir(folder);
        }
    }
    tried
}

/// A lock may be there from better days, so a file is written too.
fn write_in(folder: &Path) -> std::io::Result<()> {
    let path = folder.join("check");
    std::fs::write(&path, "callscope check\n")?;
    std::fs::remove_file(path)
}

/// Whether `serve` could listen.
async fn check_http(config: &Config, lines: &mut Vec<String>) -> bool {
    for (name, _) in config.sources.iter().filter(|(_, source)| source.secrets.is_empty()) {
        lines.push(format!(
            "source {name}: no secret; whoever reaches {} can write events",
            config.http.listen
        ));
    }
    match Bound::bind(config).await {
        Ok(_) => {
            lines.push(format!("http: {} is free", config.http.listen));
            true
        }
        // Most likely the callscope that runs, which is no mistake in the settings.
        Err(HttpError::Listen { address, source })
            if source.kind() == std::io::ErrorKind::AddrInUse =>
        {
            lines.push(format!("http: somebody listens on {address} at this moment"));
            true
        }
        Err(error) => {
            lines.push(format!("http: {error}"));
            false
        }
    }
}

/// Whether the platforms whose REST API is to be asked answer.
async fn check_platforms(config: &Config, lines: &mut Vec<String>) -> bool {
    let mut all = true;
    for (name, source) in config.sources.iter().filter(|(_, own)| !own.rest.url.is_empty()) {
        let looked = rest::check(name, &source.rest).await;
        all &= looked.is_ok();
        lines.push(match looked {
            Ok(version) => {
                format!("source {name}: OpenVidu {version} answers at {}", source.rest.url)
            }
            Err(error) => format!("source {name}: {}", chain(&error)),
        });
    }
    all
}

/// Whether a Kibana that is named answers, and says whether the dashboards are there.
async fn check_kibana(config: &Config, lines: &mut Vec<String>) -> bool {
    if config.kibana.url.is_empty() {
        return true;
    }
    let looked =
        async { anyhow::Ok(Kibana::new(&config.kibana)?.plan(&config.elasticsearch.index).await?) };
    let looked = looked.await;
    let is_there = looked.is_ok();
    lines.push(match looked {
        Ok(plan) => {
            let there = plan.objects.iter().filter(|object| object.is_there).count();
            let state = if there == plan.objects.len() {
                "the dashboards are there".to_owned()
            } else {
                let all = plan.objects.len();
                format!("{there} of {all} objects of the dashboards are there; `callscope setup` brings them")
            };
            format!("kibana: {} answers at {}; {state}", plan.who, config.kibana.url)
        }
        Err(error) => format!("kibana: {error:#}"),
    });
    is_there
}

fn worse_by_a_neighbour(code: ExitCode) -> ExitCode {
    if code == ExitCode::Ok { ExitCode::Unreachable } else { code }
}

/// Ends with [`ExitCode::Misconfigured`] or [`ExitCode::Unreachable`] if `serve` could not make a topic of its own.
async fn check_kafka(config: &Config, lines: &mut Vec<String>) -> Result<ExitCode, Failure> {
    let kafka = &config.kafka;
    let topics = topics::look(kafka).await.map_err(kafka_failure)?;
    let own = topics::try_own(kafka, topics.partitions).await.map_err(kafka_failure)?;
    lines.push(format!(
        "kafka: {} with {} partitions, read as group {}",
        kafka.topics.join(", "),
        topics.partitions,
        kafka.group
    ));
    let mut code = ExitCode::Ok;
    for (topic, made) in own {
        let state = match made {
            None => "there".to_owned(),
            Some(Ok(())) => "missing; `serve` makes it".to_owned(),
            Some(Err(error)) => {
                let told = format!("missing; {error}");
                code = kafka_failure(error).code;
                told
            }
        };
        lines.push(format!("kafka: topic {topic}: {state}"));
    }
    Ok(code)
}

async fn check_elasticsearch(
    config: &Config,
    lines: &mut Vec<String>,
) -> Result<ExitCode, Failure> {
    let (_sink, plan) = plan_setup(config).await?;
    let mut code = ExitCode::Ok;
    for step in &plan.steps {
        let state = match (&step.before, config.sink.setup) {
            (Some(_), _) if step.is_done() => "there",
            (Some(_), true) => "another version; `serve` changes it",
            (Some(_), false) => "another version; `callscope setup` changes it",
            (None, true) => "missing; `serve` creates it",
            (None, false) => {
                code = ExitCode::Misconfigured;
                "missing, and sink.setup is off; `callscope setup` creates it"
            }
        };
        lines.push(format!("{}: {state}", step.what));
    }
    lines.extend(plan.warnings.iter().map(|told| format!("warning: {told}")));
    for told in &plan.faults {
        code = ExitCode::Misconfigured;
        lines.push(format!("fault: {told}"));
    }
    Ok(code)
}

/// Says of each line what it is, and with Kafka which key and partition it gets. Ends with [`ExitCode::DataRejected`] if one is
/// nothing.
async fn check_events(config: &Config, path: &Path) -> Result<ExitCode, Failure> {
    let partitions = if config.kafka.is_set() {
        Some(topics::look(&config.kafka).await.map_err(kafka_failure)?.partitions)
    } else {
        None
    };
    let mut lines = Lines::open(path).map_err(Failure::with(ExitCode::Misconfigured))?;
    let mut code = ExitCode::Ok;
    while let Some(line) = lines.next_line().map_err(Failure::with(ExitCode::DataRejected))? {
        let text = decode::text(&line.bytes);
        let told = match decode::decode(&text) {
            _ if line.is_noise => "a line of the server's log, skipped".to_owned(),
            Ok(Decoded::Event(event)) => {
                let name = event.name().unwrap_or(event.kind.elastic_type());
                let session = event.session.as_ref();
                let session = session.map_or("no session", |session| {
                    session.unique_id.as_deref().unwrap_or(&session.id)
                });
                let place = partitions.map_or_else(String::new, |count| place(&event, count));
                format!("{name} {session}{place}")
            }
            Ok(Decoded::Summary) => "an already indexed summary, skipped".to_owned(),
            Err(error) => {
                code = ExitCode::DataRejected;
                format!("no event: {error}")
            }
        };
        print(&format!("{}: {told}", line.offset))?;
    }
    Ok(code)
}

/// The key of an event, and the partition of `count` that it belongs in.
fn place(event: &Event<'_>, count: i32) -> String {
    match key::of(event) {
        Some(key) => {
            let partition = key::partition(key.as_bytes(), count).unwrap_or_default();
            format!(", key {key}, partition {partition} of {count}")
        }
        None => ", no key, any partition".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::{Content, DeadLetter, DeadLetters};

    fn config(data_dir: &Path, change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::load(None, std::iter::empty()).unwrap().config;
        config.data_dir = data_dir.to_owned();
        config.http.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        config
    }

    async fn checked(config: &Config) -> (ExitCode, String) {
        let mut lines = Vec::new();
        match look(config, &mut lines).await {
            Ok(code) => (code, lines.join("\n")),
            Err(failure) => (failure.code, format!("{}\n{:#}", lines.join("\n"), failure.error)),
        }
    }

    #[tokio::test]
    async fn the_data_directory_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("a/b");
        let config = config(&data_dir, |_| {});
        let (code, told) = checked(&config).await;
        assert!(code == ExitCode::Ok && told.contains("can be used"), "{told}");
        assert!(!folder.path().join("a").exists());
        let lock = DataDirLock::acquire(&data_dir).unwrap();
        let (code, told) = checked(&config).await;
        assert!(code == ExitCode::Misconfigured && told.contains("in use by another"), "{told}");
        drop(lock);
        assert_eq!(checked(&config).await.0, ExitCode::Ok);
        assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 1, "nothing but the lock");
        std::fs::remove_dir_all(&data_dir).unwrap();
        std::fs::write(&data_dir, "a file").unwrap();
        let (code, told) = checked(&config).await;
        assert!(code == ExitCode::Misconfigured && told.contains("cannot use"), "{told}");
    }

    #[tokio::test]
    async fn what_serve_would_refuse_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), |_| {});
        drop(kept::Kept::open(&config).unwrap());
        let (code, told) = checked(&config).await;
        assert!(code == ExitCode::Ok && !told.contains("dead letters"), "{told}");
        let letter = DeadLetter {
            at: 1,
            reason: "refused".to_owned(),
            content: Content::Record {
                position: "journal/x@1".to_owned(),
                source: "default".to_owned(),
                body: vec![1],
            },
        };
        DeadLetters::open(&config.dead_letters_file()).unwrap().put(&[letter]).unwrap();
        let (code, told) = checked(&config).await;
        assert!(code == ExitCode::Ok && told.contains("dead letters: 1;"), "{told}");

        let segment = config.journal_folder().join(format!("{:020}.journal", 0));
        let index = config.index_folder().join("meta.json");
        for (file, damaged) in [
            (config.checkpoint_file(), &[7; 5000][..]),
            (config.checkpoint_file(), b""),
            (config.dead_letters_file(), &[7; 5000]),
            (config.dead_letters_file(), b""),
            (segment, &[7; 5000]),
            (index, b"{}"),
        ] {
            let before = std::fs::read(&file).ok();
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, damaged).unwrap();
            let (code, told) = checked(&config).await;
            assert_eq!(code, ExitCode::Misconfigured, "{}: {told}", file.display());
            assert!(told.matches("I/O error").count() <= 1, "{told}");
            match before {
                Some(bytes) => std::fs::write(&file, bytes).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
        }
        assert_eq!(checked(&config).await.0, ExitCode::Ok);
    }

    #[tokio::test]
    async fn how_the_journal_was_left_is_told_and_nothing_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), |_| {});
        let bounds = journal::Bounds::new(&config.journal);
        let nowhere = crate::record::Positions::default();
        let open = || journal::Journal::open(&config.journal_folder(), bounds, &nowhere).unwrap();
        let (journal, writer, _) = open();
        journal.append("default", 1, b"{}").await.unwrap();
        journal.close();
        writer.join();
        let segment = config.journal_folder().join(format!("{:020}.journal", 0));
        let torn = [std::fs::read(&segment).unwrap(), vec![0; 20]].concat();
        std::fs::write(&segment, &torn).unwrap();
        for _ in 0..2 {
            let (code, told) = checked(&config).await;
            assert!(code == ExitCode::Ok && told.contains("20 bytes of a torn record"), "{told}");
            assert!(told.contains("no checkpoint of this journal"), "{told}");
        }
        assert_eq!(std::fs::read(&segment).unwrap(), torn);
        let (journal, writer, recovered) = open();
        assert_eq!(recovered.torn_bytes, 20);
        journal.close();
        writer.join();
    }

    #[tokio::test]
    async fn listening_beyond_loopback_without_a_secret_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let open = |config: &mut Config| config.http.listen = "0.0.0.0:0".parse().unwrap();
        let (code, told) = checked(&config(folder.path(), open)).await;
        assert!(code == ExitCode::Misconfigured && told.contains("has no secret"), "{told}");
        let allowed = |config: &mut Config| {
            open(config);
            config.http.allow_without_secret = true;
        };
        assert_eq!(checked(&config(folder.path(), allowed)).await.0, ExitCode::Ok);
    }

    #[tokio::test]
    async fn an_unreachable_sink_is_told_apart_from_wrong_settings() {
        let folder = tempfile::tempdir().unwrap();
        let away = |config: &mut Config| {
            config.sink.kind = SinkKind::Elasticsearch;
            config.elasticsearch.urls = vec!["http://127.0.0.1:1".to_owned()];
        };
        let (code, told) = checked(&config(folder.path(), away)).await;
        assert!(code == ExitCode::Unreachable && told.contains("127.0.0.1:1"), "{told}");
        let both = |config: &mut Config| {
            away(config);
            config.http.listen = "0.0.0.0:0".parse().unwrap();
        };
        assert_eq!(checked(&config(folder.path(), both)).await.0, ExitCode::Misconfigured);
    }
}
