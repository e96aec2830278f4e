//! The command line: what can be asked for, and how it ends.

use std::path::PathBuf;

use chrono::{DateTime, FixedOffset};
use clap::{Parser, Subcommand, ValueEnum};

use crate::simulate::send::Webhook;

/// See what happens in video calls: turns the events of OpenVidu into searchable sessions, users and streams.
#[derive(Debug, Parser)]
#[command(name = "callscope", version, about, max_term_width = 100)]
pub struct Cli {
    /// Settings file; without it ./callscope.toml where that exists
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run: receive webhooks, follow CDR files, write documents, show the page
    Serve,
    /// Read CDR files to their end and write what they tell
    ///
    /// Importing the same files again changes nothing. Give all files of one server at once: a session that spans two of them
    /// is then complete. Plain, gzip and zstd files are recognised.
    #[command(after_help = "Example: callscope import --to elasticsearch /opt/openvidu/cdr/*.log")]
    Import {
        /// CDR files; - reads standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where to write, instead of sink.kind
        #[arg(long, value_name = "SINK")]
        to: Option<To>,
        /// Whose cluster fields the events get: a [sources.NAME]
        #[arg(long, value_name = "NAME", default_value = "default")]
        source: String,
    },
    /// Fold what is in the topics of Kafka into an index, touching nobody's offsets
    ///
    /// Into another index it shows what the settings of today make of the events; `callscope diff` compares the two. Into the
    /// live one it writes whatever is missing there. What is open is then left to the group; so it is where only a part is
    /// replayed. `platformStats` are written only of everything, into another index. A part that holds no record ends with 2.
    #[command(
        after_help = "Example: callscope replay --from 2026-11-01T00:00:00Z --into openvidu-again"
    )]
    Replay {
        /// Only records from this time on
        #[arg(long, value_name = "TIME")]
        from: Option<DateTime<FixedOffset>>,
        /// Only records before this time
        #[arg(long, value_name = "TIME")]
        to: Option<DateTime<FixedOffset>>,
        /// Only records of this sessionId
        #[arg(long, value_name = "ID")]
        session: Option<String>,
        /// The index, in place of elasticsearch.index
        #[arg(long, value_name = "INDEX")]
        into: String,
    },
    /// Say what differs between the documents of two indices, field by field
    Diff {
        /// An index or alias
        left: String,
        /// Another
        right: String,
    },
    /// Say whether every record of the group has an outcome and every event its document
    Audit,
    /// Create template, alias and lifecycle in Elasticsearch or OpenSearch, and the dashboards in Kibana or OpenSearch Dashboards
    ///
    /// Dashboards that callscope made are replaced, others never touched. User name and password, or API key, are settings:
    /// `kibana.username` and so on, in the environment `CALLSCOPE__KIBANA__PASSWORD`.
    #[command(after_help = "Example: callscope setup --kibana https://kibana:5601 --space calls")]
    Setup {
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
        /// Where the dashboards go, instead of kibana.url
        #[arg(long, value_name = "URL")]
        kibana: Option<String>,
        /// The space or tenant there, instead of kibana.space
        #[arg(long, value_name = "SPACE")]
        space: Option<String>,
    },
    /// Say whether settings, GeoIP databases, data directory, Kafka and the sink are as `serve` needs them
    Check {
        /// Say of each line of this file what it is; - reads standard input
        #[arg(long, value_name = "FILE")]
        events: Option<PathBuf>,
        /// Say what is wrong with files of dashboards for Kibana or OpenSearch Dashboards
        ///
        /// By the rules that callscope's own keep: every reference leads somewhere, every field is one that callscope writes, and
        /// each panel would show something. Of each problem it tells file, line, object and panel.
        #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "events")]
        dashboards: Vec<PathBuf>,
    },
    /// Ask the `serve` of the same settings whether it lives; made for containers
    Health {
        /// Ask whether events get through, and say why not
        #[arg(long)]
        ready: bool,
    },
    /// Print every setting with its meaning, its value and where that came from
    Config,
    /// Run with a simulated OpenVidu cluster that sends real events
    Demo {
        /// How much of the past is simulated first
        #[arg(long, value_name = "SPAN", default_value = "8d")]
        history: humantime::Duration,
        /// Another number makes other calls
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// Do not serve, send to a callscope that does, such as `http://127.0.0.1:7300/webhook`, with the first of
        /// sources.default.secrets
        #[arg(long, value_name = "URL")]
        to: Option<Webhook>,
    },
    /// Look at what could not be stored, try it again or throw it away
    ///
    /// With Kafka these are the letters of the whole group, in its topic, and instances may go on running. Without it they are
    /// in the data directory, which no running `serve` may have in use.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
}

/// Where `import` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum To {
    /// The index in the data directory
    Embedded,
    /// Elasticsearch or OpenSearch
    Elasticsearch,
    /// The first topic of Kafka, for a group to fold
    Kafka,
    /// One JSON object per line
    Stdout,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// One line for each
    List,
    /// Everything that is known of one
    Show {
        /// As `list` prints it
        key: String,
    },
    /// Send records to the journal again, with Kafka to the first topic, and documents to the sink
    Retry {
        /// As `list` prints them
        #[arg(required_unless_present = "all")]
        keys: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "keys")]
        all: bool,
    },
    /// Throw away
    Discard {
        /// As `list` prints them
        #[arg(required_unless_present = "all")]
        keys: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "keys")]
        all: bool,
    },
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// 0: everything was done.
    Ok,
    /// 1: callscope itself failed.
    Internal,
    /// 2: the command line is wrong, or what it names is not there.
    Usage,
    /// 3: settings, or the files they name, are wrong.
    Misconfigured,
    /// 4: a neighbour could not be reached, or refused.
    Unreachable,
    /// 5: some of the data were no events, or were refused by the sink; the rest is done.
    DataRejected,
    /// 6: what was compared differs, or something is not accounted for.
    Different,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(match code {
            ExitCode::Ok => 0,
            ExitCode::Internal => 1,
            ExitCode::Usage => 2,
            ExitCode::Misconfigured => 3,
            ExitCode::Unreachable => 4,
            ExitCode::DataRejected => 5,
            ExitCode::Different => 6,
        })
    }
}

/// Why a command failed, and how the process ends because of it. With [`ExitCode::Ok`] nothing is said: the reader of its
/// output has gone.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub code: ExitCode,
    /// What went wrong, with its causes.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure that ends the process with `code`.
    pub fn new(code: ExitCode, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    /// Turns any error into a failure with `code`.
    pub fn with<E: Into<anyhow::Error>>(code: ExitCode) -> impl FnOnce(E) -> Self {
        move |error| Self::new(code, error)
    }
}
