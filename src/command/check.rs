//! `check`: whether everything is as `serve` needs it, and what the lines of a file are.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::{open_geoip, print};
use crate::cli::{ExitCode, Failure};
use crate::config::{Config, SinkKind};
use crate::decode::{self, Decoded};
use crate::files::Lines;
use crate::sink::StatusSender;
use crate::sink::elasticsearch::ElasticsearchSink;

pub(super) async fn run(config: &Config, events: Option<&Path>) -> Result<ExitCode, Failure> {
    if let Some(path) = events {
        return check_events(path);
    }
    print("settings: ok")?;
    let geoip = open_geoip(config)?;
    if geoip.is_empty() {
        print("GeoIP: no database, places stay unknown; list one in geoip.databases")?;
    }
    for database in geoip.about() {
        print(&format!("GeoIP: {} ({})", database.path.display(), database.kind))?;
    }
    for (name, source) in config.sources.iter().filter(|(_, source)| source.secrets.is_empty()) {
        let _ = source;
        print(&format!(
            "source {name}: no secret; whoever reaches {} can write events",
            config.http.listen
        ))?;
    }
    match config.sink.kind {
        SinkKind::Elasticsearch => {
            let sink = ElasticsearchSink::new(
                &config.elasticsearch,
                CancellationToken::new(),
                StatusSender::default(),
            )
            .map_err(Failure::with(ExitCode::Misconfigured))?;
            let steps = sink.plan().await.map_err(Failure::with(ExitCode::Unreachable))?;
            for step in steps {
                let state = if step.before.is_some() {
                    "there"
                } else {
                    "missing, `callscope setup` creates it"
                };
                print(&format!("{}: {state}", step.what))?;
            }
        }
        SinkKind::Embedded => {
            print(&format!("sink: embedded index in {}", config.data_dir.display()))?
        }
        SinkKind::Stdout => print("sink: standard output; the page cannot show what has ended")?,
    }
    Ok(ExitCode::Ok)
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
