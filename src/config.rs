//! Settings: the types. Names, meanings and defaults are in `config.default.toml`, which is compiled in.
//!
//! Layers, later ones win: the compiled-in defaults, one file, the environment (`CALLSCOPE__SECTION__KEY`). There is no
//! `Default` and no serde default here, so a setting that the defaults file does not name fails the first test, and a
//! meaning or a default cannot be written twice. The environment is handed in by `main`, so tests bring their own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

pub mod load;
mod layers;
mod rules;
pub mod describe;

pub(crate) use layers::distance;
pub use load::{ConfigError, Loaded};
pub(crate) use rules::address;

/// The compiled-in defaults, with the meaning of every setting.
pub const DEFAULTS: &str = include_str!("config.default.toml");

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct Config {
    pub data_dir: PathBuf,
    pub log: LogConfig,
    pub http: HttpConfig,
    pub sources: BTreeMap<String, SourceConfig>,
    pub browsers: BrowsersConfig,
    pub journal: JournalConfig,
    pub files: FilesConfig,
    pub kafka: KafkaConfig,
    pub import: ImportConfig,
    pub geoip: GeoipConfig,
    pub privacy: PrivacyConfig,
    pub users: UsersConfig,
    pub sessions: SessionsConfig,
    pub stats: StatsConfig,
    pub sink: SinkConfig,
    pub embedded: EmbeddedConfig,
    pub elasticsearch: ElasticsearchConfig,
    pub kibana: KibanaConfig,
}

impl Config {
    /// State of the open sessions, and how far the inputs are dealt with; with Kafka, how far they are forwarded.
    #[must_use]
    pub fn checkpoint_file(&self) -> PathBuf {
        if self.kafka.is_set() {
            return self.data_dir.join("forwarder.redb");
        }
        self.checkpoint_file_alone()
    }

    /// State of the open sessions of one machine without Kafka.
    #[must_use]
    pub fn checkpoint_file_alone(&self) -> PathBuf {
        self.data_dir.join("checkpoint.redb")
    }

    /// What could not become, or could not be stored as, a document.
    #[must_use]
    pub fn dead_letters_file(&self) -> PathBuf {
        self.data_dir.join("dead-letters.redb")
    }

    /// Events that were acknowledged.
    #[must_use]
    pub fn journal_folder(&self) -> PathBuf {
        self.data_dir.join("journal")
    }

    /// The embedded index.
    #[must_use]
    pub fn index_folder(&self) -> PathBuf {
        self.data_dir.join("index")
    }
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct LogConfig {
    pub level: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct HttpConfig {
    pub listen: SocketAddr,
    #[serde(deserialize_with = "secrets")]
    pub read_secrets: Vec<Secret>,
    pub allow_without_secret: bool,
    #[serde(deserialize_with = "links")]
    pub links: Vec<Link>,
    pub body_bytes_max: NonZeroUsize,
    pub head_bytes_max: NonZeroUsize,
    pub connections_max: NonZeroUsize,
    #[serde(deserialize_with = "span")]
    pub idle_after: Duration,
    #[serde(deserialize_with = "span")]
    pub drain_after: Duration,
}

/// Where else one can look into a session.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// For people.
    pub label: String,
    /// With `{session}` and the like where something about the session stands.
    pub url: String,
}

/// As it is written.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{} {}\"", self.label, self.url)
    }
}

/// `[sources.NAME]`. A source other than `default` may leave out what it does not need.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct SourceConfig {
    pub cluster_id: Option<String>,
    pub master_node_id: Option<String>,
    #[serde(deserialize_with = "secrets", default = "no_secrets")]
    pub secrets: Vec<Secret>,
    pub rest: RestConfig,
    pub browsers: ReportersConfig,
}

/// `[sources.NAME.browsers]`. What a source other than `default` leaves out is as there, but for the keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct ReportersConfig {
    #[serde(deserialize_with = "secrets")]
    pub keys: Vec<Secret>,
    #[serde(deserialize_with = "list")]
    pub origins: Vec<String>,
}

/// `[browsers]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct BrowsersConfig {
    pub address_header: String,
    pub per_address: NonZeroU32,
    pub per_session: NonZeroU32,
    pub body_bytes_max: NonZeroUsize,
}

/// `[sources.NAME.rest]`. What a source other than `default` leaves out is as there, but for the address and the secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct RestConfig {
    pub url: String,
    pub secret: Secret,
    pub ca: String,
    #[serde(deserialize_with = "span")]
    pub every: Duration,
    #[serde(deserialize_with = "span")]
    pub request_timeout: Duration,
    pub bytes_max: NonZeroU64,
    pub negotiation: bool,
}

/// `[journal]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct JournalConfig {
    pub bytes_max: NonZeroU64,
    pub segment_bytes: NonZeroU64,
    pub reserve_bytes: u64,
}

/// `[files]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct FilesConfig {
    #[serde(deserialize_with = "list")]
    pub follow: Vec<String>,
    pub source: String,
    #[serde(deserialize_with = "span")]
    pub poll_every: Duration,
}

/// `[kafka]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct KafkaConfig {
    #[serde(deserialize_with = "list")]
    pub brokers: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub topics: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub rekey_from: Vec<String>,
    pub group: String,
    pub instance_id: String,
    pub source: String,
    pub replicas: u16,
    pub queue_bytes: NonZeroUsize,
    #[serde(deserialize_with = "span")]
    pub session_timeout: Duration,
    #[serde(deserialize_with = "span")]
    pub drain_after: Duration,
    #[serde(deserialize_with = "span")]
    pub transaction_timeout: Duration,
    pub tls: bool,
    pub ca: String,
    pub mechanism: Mechanism,
    pub username: String,
    pub password: Secret,
    #[serde(deserialize_with = "secrets")]
    pub properties: Vec<Secret>,
}

impl KafkaConfig {
    /// Whether there is a Kafka.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.brokers.is_empty()
    }

    /// The compacted topic that holds the open sessions.
    #[must_use]
    pub fn state_topic(&self) -> String {
        format!("{}-state", self.group)
    }

    /// The compacted topic in which instances tell each other what is open.
    #[must_use]
    pub fn digests_topic(&self) -> String {
        format!("{}-digests", self.group)
    }

    /// The topic for what could not become, or could not be stored as, a document.
    #[must_use]
    pub fn dead_letters_topic(&self) -> String {
        format!("{}-dead-letters", self.group)
    }
}

/// How an account shows that it is who it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "names of SASL")]
pub enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// `[import]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct ImportConfig {
    pub entities_max: NonZeroUsize,
}

/// `[geoip]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct GeoipConfig {
    #[serde(deserialize_with = "list")]
    pub databases: Vec<String>,
}

/// `[privacy]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct PrivacyConfig {
    pub addresses: Addresses,
    pub user_hash_key: Secret,
    #[serde(deserialize_with = "list")]
    pub drop_fields: Vec<String>,
    pub redact_rtsp_uri: bool,
}

/// What is stored of an address once its place is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addresses {
    /// All of it.
    Keep,
    /// The network: /24 of IPv4, /48 of IPv6.
    Truncate,
    /// Nothing.
    Drop,
}

/// `[users]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct UsersConfig {
    pub id_path: String,
    pub tenant_path: String,
}

/// `[sessions]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct SessionsConfig {
    #[serde(deserialize_with = "span")]
    pub keep: Duration,
    #[serde(deserialize_with = "span")]
    pub keep_recording: Duration,
    #[serde(deserialize_with = "span")]
    pub remember: Duration,
    #[serde(deserialize_with = "span")]
    pub silent_after: Duration,
    #[serde(deserialize_with = "span")]
    pub forget_after: Duration,
    pub entities_max: NonZeroUsize,
    pub nested_max: usize,
    pub text_bytes_max: NonZeroUsize,
}

/// `[stats]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct StatsConfig {
    #[serde(deserialize_with = "span")]
    pub every: Duration,
}

/// `[sink]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct SinkConfig {
    pub kind: SinkKind,
    pub setup: bool,
}

/// Which sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// The index that callscope brings.
    Embedded,
    /// Elasticsearch or OpenSearch.
    Elasticsearch,
    /// One JSON object per line.
    Stdout,
}

/// `[embedded]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct EmbeddedConfig {
    pub heap_bytes: NonZeroUsize,
}

/// `[elasticsearch]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct ElasticsearchConfig {
    #[serde(deserialize_with = "list")]
    pub urls: Vec<String>,
    pub username: String,
    pub password: Secret,
    pub api_key: Secret,
    pub ca: String,
    pub index: String,
    pub period: Period,
    pub shards: NonZeroU32,
    pub replicas: u32,
    #[serde(deserialize_with = "span")]
    pub retention: Duration,
    pub bulk_bytes: NonZeroUsize,
    pub bulk_documents: NonZeroUsize,
    pub requests_max: NonZeroUsize,
    pub gzip: bool,
    #[serde(deserialize_with = "span")]
    pub request_timeout: Duration,
}

/// `[kibana]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml says what each setting means")]
pub struct KibanaConfig {
    pub url: String,
    pub space: String,
    pub username: String,
    pub password: Secret,
    pub api_key: Secret,
    pub ca: String,
    #[serde(deserialize_with = "span")]
    pub request_timeout: Duration,
}

/// How long one index lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// `INDEX-events-2026.11`
    Month,
    /// `INDEX-events-2026.11.24`
    Day,
    /// `INDEX`
    None,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn no_secrets() -> Vec<Secret> {
    Vec::new()
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!(
            "\"{text}\" is no time span such as \"30s\" or \"1h\": {error}"
        ))
    })
}

/// A list, or one text with commas: the environment has no lists.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;
    impl<'de> serde::de::Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts, or one text with commas")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect())
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut seq: A,
        ) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = seq.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }
    deserializer.deserialize_any(Texts)
}

/// Each a label and an address behind a blank; what has no address is all label, and refused by the rules.
fn links<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Link>, D::Error> {
    let link = |text: String| {
        let (label, url) = text.rsplit_once(' ').unwrap_or((&text, ""));
        Link { label: label.trim().to_owned(), url: url.to_owned() }
    };
    Ok(list(deserializer)?.into_iter().map(link).collect())
}

fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Secret>, D::Error> {
    Ok(list(deserializer)?.into_iter().map(Secret).collect())
}
