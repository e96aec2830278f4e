//! `check`: whether everything is as `serve` needs it, and what the lines of a file are.

use std::path::Path;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{open_geoip, print};
use crate::cli::{ExitCode, Failure};
use crate::config::{Config, SinkKind};
use crate::decode::{self, Decoded};
use crate::files::Lines;
use crate::http::{Bound, HttpError};
use crate::journal::lock::DataDirLock;
use crate::sink::StatusSender;
use crate::sink::elasticsearch::{ElasticsearchSink, SetupError};

pub(super) async fn run(config: &Config, events: Option<&Path>) -> Result<ExitCode, Failure> {
    if let Some(path) = events {
        return check_events(path);
    }
    print("settings: ok")?;
    let mut misconfigured = false;
    let geoip = open_geoip(config)?;
    if geoip.is_empty() {
        print("GeoIP: no database, places stay unknown; list one in geoip.databases")?;
    }
    for database in geoip.about() {
        print(&format!("GeoIP: {} ({})", database.path.display(), database.kind))?;
    }
    match try_data_dir(&config.data_dir) {
        Ok(()) => print(&format!("data_dir: {} can be used", config.data_dir.display()))?,
        Err(error) => {
            misconfigured = true;
            print(&format!("data_dir: {error:#}"))?;
        }
    }
    misconfigured |= !check_http(config).await?;
    let code = match config.sink.kind {
        SinkKind::Elasticsearch => check_elasticsearch(config).await?,
        SinkKind::Embedded => {
            print(&format!("sink: embedded index in {}", config.data_dir.display()))?;
            ExitCode::Ok
        }
        SinkKind::Stdout => {
            print("sink: standard output; the page cannot show what has ended")?;
            ExitCode::Ok
        }
    };
    Ok(if misconfigured { ExitCode::Misconfigured } else { code })
}

/// Takes the data directory as `serve` would, and leaves nothing behind that was not there.
fn try_data_dir(data_dir: &Path) -> anyhow::Result<()> {
    let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let new: Vec<&Path> = data_dir.ancestors().take_while(is_new).collect();
    let tried = DataDirLock::acquire(data_dir).map_err(anyhow::Error::from).and_then(|_lock| {
        write_in(data_dir).with_context(|| format!("cannot write into {}", data_dir.display()))
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
async fn check_http(config: &Config) -> Result<bool, Failure> {
    for (name, _) in config.sources.iter().filter(|(_, source)| source.secrets.is_empty()) {
        print(&format!(
            "source {name}: no secret; whoever reaches {} can write events",
            config.http.listen
        ))?;
    }
    match Bound::bind(config).await {
        Ok(_) => {
            print(&format!("http: {} is free", config.http.listen))?;
            Ok(true)
        }
        // Most likely the callscope that runs, which is no mistake in the settings.
        Err(HttpError::Listen { address, source })
            if source.kind() == std::io::ErrorKind::AddrInUse =>
        {
            print(&format!("http: somebody listens on {address} at this moment"))?;
            Ok(true)
        }
        Err(error) => {
            print(&format!("http: {error}"))?;
            Ok(false)
        }
    }
}

async fn check_elasticsearch(config: &Config) -> Result<ExitCode, Failure> {
    let sink = ElasticsearchSink::new(
        &config.elasticsearch,
        CancellationToken::new(),
        StatusSender::default(),
    )
    .map_err(Failure::with(ExitCode::Misconfigured))?;
    let plan = sink.plan().await.map_err(|error| match error {
        SetupError::Refused(_) => Failure::new(ExitCode::Misconfigured, error),
        SetupError::Denied(_) | SetupError::Away(_) => Failure::new(ExitCode::Unreachable, error),
    })?;
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
        print(&format!("{}: {state}", step.what))?;
    }
    for told in &plan.warnings {
        print(&format!("warning: {told}"))?;
    }
    for told in &plan.faults {
        code = ExitCode::Misconfigured;
        print(&format!("fault: {told}"))?;
    }
    Ok(code)
}

/// Says of each line what it is. Ends with [`ExitCode::DataRejected`] if one is nothing.
fn check_events(path: &Path) -> Result<ExitCode, Failure> {
    let mut lines = Lines::open(path).map_err(Failure::with(ExitCode::Misconfigured))?;
    let mut code = ExitCode::Ok;
    while let Some(line) = lines.next_line().map_err(Failure::with(ExitCode::DataRejected))? {
        let text = decode::text(&line.bytes);
        let told = match decode::decode(&text) {
            Ok(Decoded::Event(event)) => {
                let name = event.name().unwrap_or(event.kind.elastic_type());
                let session = event.session.as_ref();
                let session = session.map_or("no session", |session| {
                    session.unique_id.as_deref().unwrap_or(&session.id)
                });
                format!("{name} {session}")
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
