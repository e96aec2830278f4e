//! Commands: what each wires together.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, Command, ExitCode, Failure};
use crate::config::{Config, Loaded, SinkKind};
use crate::document::Document;
use crate::enrich::place::GeoIp;
use crate::kafka::KafkaError;
use crate::kafka::range::Range;
use crate::metrics::Metrics;
use crate::panels::Panel;
use crate::panels::answer::{Answer, View};
use crate::search::{Page, Search, SearchError};
use crate::sink::elasticsearch::{ElasticsearchSink, Plan, SetupError};
use crate::sink::embedded::EmbeddedIndex;
use crate::sink::stdout::StdoutSink;
use crate::sink::{Sink, SinkError, SinkStatus, StatusSender, Written};

mod audit;
mod check;
mod dashboards;
mod dead_letters;
mod demo;
mod describe;
mod diff;
mod health;
mod import;
mod kept;
mod replay;
mod serve;
mod setup;

/// Runs one command. `environment`: that of the process.
///
/// # Errors
///
/// What went wrong, and how the process ends because of it.
pub fn run(
    cli: Cli,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<ExitCode, Failure> {
    let default = Path::new("callscope.toml");
    let file = cli.config.or_else(|| default.exists().then(|| default.to_owned()));
    let loaded = Config::load(file.as_deref(), environment)
        .map_err(Failure::with(ExitCode::Misconfigured))?;
    if let Command::Config = cli.command {
        return describe::run(&loaded);
    }
    crate::logging::start(&loaded.config.log).map_err(Failure::with(ExitCode::Misconfigured))?;
    let Loaded { mut config, .. } = loaded;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::with(ExitCode::Internal))?;
    match cli.command {
        Command::Serve => runtime.block_on(serve::run(config, None)),
        Command::Import { files, to, source } => {
            runtime.block_on(import::run(config, files, to, source))
        }
        Command::Replay { from, to, session, into } => {
            let range = Range { from: from.map(millis), to: to.map(millis), session };
            runtime.block_on(replay::run(config, range, into))
        }
        Command::Diff { left, right } => runtime.block_on(diff::run(&config, &left, &right)),
        Command::Audit => runtime.block_on(audit::run(&config)),
        Command::Setup { dry_run, kibana, space } => {
            setup::name_kibana(&mut config, kibana, space)?;
            runtime.block_on(setup::run(&config, dry_run))
        }
        Command::Check { dashboards, .. } if !dashboards.is_empty() => dashboards::run(&dashboards),
        Command::Check { events, .. } => runtime.block_on(check::run(&config, events.as_deref())),
        Command::Health { ready } => {
            let path = if ready { "/readyz" } else { "/healthz" };
            runtime.block_on(health::run(&config, path))
        }
        Command::Config => Ok(ExitCode::Ok),
        Command::Demo { history, seed, to } => {
            demo::prepare(&mut config)?;
            match to {
                None => runtime.block_on(demo::run(config, *history, seed)),
                Some(webhook) => runtime.block_on(demo::send(&config, &webhook, *history, seed)),
            }
        }
        Command::DeadLetters(command) => runtime.block_on(dead_letters::run(config, command)),
    }
}

fn millis(time: chrono::DateTime<chrono::FixedOffset>) -> i64 {
    time.timestamp_millis()
}

/// The sink that the settings name.
#[derive(Debug)]
enum AnySink {
    Embedded(Arc<EmbeddedIndex>),
    Elasticsearch(Arc<ElasticsearchSink>),
    Stdout(Box<StdoutSink<std::io::Stdout>>),
}

impl Sink for AnySink {
    async fn setup(&self) -> Result<(), SinkError> {
        match self {
            Self::Embedded(sink) => sink.setup().await,
            Self::Elasticsearch(sink) => sink.setup().await,
            Self::Stdout(sink) => sink.setup().await,
        }
    }

    async fn write(&self, documents: &[Document]) -> Result<Vec<Written>, SinkError> {
        match self {
            Self::Embedded(sink) => sink.write(documents).await,
            Self::Elasticsearch(sink) => sink.write(documents).await,
            Self::Stdout(sink) => sink.write(documents).await,
        }
    }
}

/// The index that the API and the page ask.
#[derive(Debug, Clone)]
pub enum AnyIndex {
    /// The one callscope brings.
    Embedded(Arc<EmbeddedIndex>),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(Arc<ElasticsearchSink>),
    /// Documents go where they cannot be asked for.
    None,
}

impl AnyIndex {
    /// Answers `search`.
    ///
    /// # Errors
    ///
    /// As the index says.
    pub async fn search(&self, search: Search) -> Result<Page, SearchError> {
        match self {
            Self::Embedded(index) => {
                let index = Arc::clone(index);
                let found = tokio::task::spawn_blocking(move || index.search(&search)).await;
                found.map_err(|error| SearchError::Unavailable(error.into()))?
            }
            Self::Elasticsearch(index) => index.search(&search).await,
            Self::None => Err(SearchError::Nowhere),
        }
    }

    /// What `panel` shows. `turn` is held until it is computed, also where nobody waits for that any more.
    ///
    /// # Errors
    ///
    /// As the index says.
    pub async fn panel(
        &self,
        panel: &Panel,
        view: &View,
        turn: OwnedSemaphorePermit,
    ) -> Result<Answer, SearchError> {
        match self {
            Self::Embedded(index) => {
                let (index, panel, view) = (Arc::clone(index), panel.clone(), view.clone());
                let shown = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    index.panel(&panel, &view)
                });
                shown.await.map_err(|error| SearchError::Unavailable(error.into()))?
            }
            Self::Elasticsearch(index) => index.panel(panel, view).await,
            Self::None => Err(SearchError::Nowhere),
        }
    }
}

fn open_sink(
    config: &Config,
    kind: SinkKind,
    stop: &CancellationToken,
    metrics: &Arc<Metrics>,
) -> Result<(AnySink, AnyIndex, watch::Receiver<SinkStatus>), Failure> {
    let status = StatusSender::default();
    let watched = status.subscribe();
    let (sink, index) = match kind {
        SinkKind::Embedded => {
            let folder = config.index_folder();
            let index = EmbeddedIndex::open(&folder, &config.embedded, stop.clone(), status)
                .map_err(Failure::with(ExitCode::Misconfigured))?;
            let index = Arc::new(index);
            (AnySink::Embedded(Arc::clone(&index)), AnyIndex::Embedded(index))
        }
        SinkKind::Elasticsearch => {
            let sink = ElasticsearchSink::new(&config.elasticsearch, stop.clone(), status)
                .map_err(Failure::with(ExitCode::Misconfigured))?;
            let sink = Arc::new(sink.with_metrics(Arc::clone(metrics)));
            (AnySink::Elasticsearch(Arc::clone(&sink)), AnyIndex::Elasticsearch(sink))
        }
        SinkKind::Stdout => (
            AnySink::Stdout(Box::new(StdoutSink::new(&config.elasticsearch, std::io::stdout()))),
            AnyIndex::None,
        ),
    };
    Ok((sink, index, watched))
}

fn open_geoip(config: &Config) -> Result<Arc<GeoIp>, Failure> {
    let paths: Vec<PathBuf> = config.geoip.databases.iter().map(PathBuf::from).collect();
    GeoIp::open(&paths).map(Arc::new).map_err(Failure::with(ExitCode::Misconfigured))
}

/// Milliseconds since 1970 by the wall clock.
fn wall() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// Has what was written to `index` a moment ago found as well. An account that may not do it can still look.
async fn refresh(sink: &ElasticsearchSink, index: &str) {
    if let Err(error) = sink.refresh(index).await {
        tell(&format!("warning: what was written a moment ago may not be found: {error:#}"));
    }
}

/// Writes a line for people. A terminal that has gone is no reason to fail.
fn tell(line: &str) {
    let _gone = writeln!(std::io::stderr(), "{line}");
}

/// Writes a line of a command's output. A reader that wants no more (`| head`) ends the command quietly.
fn print(line: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout();
    let written = writeln!(output, "{line}").and_then(|()| output.flush());
    written.map_err(|error| {
        let is_gone = error.kind() == std::io::ErrorKind::BrokenPipe;
        Failure::new(if is_gone { ExitCode::Ok } else { ExitCode::Internal }, error)
    })
}

/// How the process ends when the sink gave up.
fn sink_failure(error: SinkError) -> Failure {
    match error {
        SinkError::Unread => Failure::new(ExitCode::Ok, error),
        SinkError::Stopped => Failure::new(
            ExitCode::Internal,
            anyhow::anyhow!("stopped before everything was written"),
        ),
        SinkError::Output(_) => Failure::new(ExitCode::Internal, error),
        SinkError::Misconfigured(error) => Failure::new(ExitCode::Misconfigured, error),
    }
}

/// How the process ends when Kafka cannot be used.
fn kafka_failure(error: KafkaError) -> Failure {
    let code = match error {
        KafkaError::Refused(_) | KafkaError::Fenced(_) | KafkaError::Unfit(_) => {
            ExitCode::Misconfigured
        }
        KafkaError::Away(_) => ExitCode::Unreachable,
    };
    Failure::new(code, error)
}

/// What there is to set up in the search server of `config`, and the sink that can do it.
async fn plan_setup(config: &Config) -> Result<(ElasticsearchSink, Plan), Failure> {
    let sink = ElasticsearchSink::new(
        &config.elasticsearch,
        CancellationToken::new(),
        StatusSender::default(),
    )
    .map_err(Failure::with(ExitCode::Misconfigured))?;
    let plan = sink.plan().await.map_err(setup_failure)?;
    Ok((sink, plan))
}

/// How the process ends when setting up did not work.
fn setup_failure(error: SetupError) -> Failure {
    let code = match error {
        SetupError::Refused(_) => ExitCode::Misconfigured,
        SetupError::Denied(_) | SetupError::Away(_) => ExitCode::Unreachable,
    };
    Failure::new(code, error)
}

/// Cancelled when the process is asked to stop.
fn stop_on_signal() -> Result<CancellationToken, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Failure::with(ExitCode::Internal))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(Failure::with(ExitCode::Internal))?;
    let told = stop.clone();
    // Ends with the process; a second signal is left to the system's default by nobody, so stopping stays orderly.
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        told.cancel();
    });
    Ok(stop)
}
