//! Settings: rules that types cannot say, all checked without touching the world.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::HeaderName;
use tracing_subscriber::EnvFilter;

use super::{
    Config, ElasticsearchConfig, KibanaConfig, Link, Period, Secret, SinkKind, SourceConfig,
};
use crate::enrich::fields::DataPath;

/// Most secrets of one source: the one in use, and the one that replaces it.
const SECRETS_MAX: usize = 2;

/// Fewest characters of a secret.
const SECRET_CHARACTERS_MIN: usize = 8;

/// Least memory that the embedded index works with.
const HEAP_BYTES_MIN: usize = 15_000_000;

/// Most memory that the embedded index takes.
const HEAP_BYTES_MAX: usize = 4_000_000_000;

/// Smallest buffer in which a request head can be read.
const HEAD_BYTES_MIN: usize = 8_192;

/// What the journal adds to a body, and to a segment, at most.
const RECORD_BYTES_MAX: u64 = 512;

/// Properties of librdkafka on which the promises rest: that no event is lost or counted twice, and that readiness is true.
const OUR_PROPERTIES: &[&str] = &[
    "group.id",
    "group.protocol",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "partition.assignment.strategy",
    "enable.partition.eof",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "transactional.id",
    "partitioner",
    "message.max.bytes",
    "statistics.interval.ms",
    "allow.auto.create.topics",
];

/// Properties of librdkafka, other names of theirs included, that have a setting of their own.
const SET_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "kafka.brokers"),
    ("metadata.broker.list", "kafka.brokers"),
    ("group.instance.id", "kafka.instance_id"),
    ("session.timeout.ms", "kafka.session_timeout"),
    ("transaction.timeout.ms", "kafka.transaction_timeout"),
    ("ssl.ca.location", "kafka.ca"),
    ("sasl.username", "kafka.username"),
    ("sasl.password", "kafka.password"),
];

/// What can stand in braces in an address of `http.links`.
const LINK_NAMES: &[&str] = &["session", "name", "from", "to", "from_ms", "to_ms"];

/// Fields without which no document is found again.
const FIELDS_NEEDED: &[&str] = &["elastic_type", "timestamp"];

/// The rules that are broken: the setting, and what is wrong with it.
pub(super) fn violations(config: &Config) -> Vec<(String, String)> {
    let mut found = Violations(Vec::new());
    found.check("data_dir", !config.data_dir.as_os_str().is_empty(), "must not be empty");
    let level = &config.log.level;
    // A filter may be a single word too, the name of a module; but then a misspelt level would switch all logs off.
    let valid = if level.contains(['=', ',', '[', ':']) {
        EnvFilter::try_new(level).is_ok()
    } else {
        !level.is_empty() && level.parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
    };
    let message = "is neither a level (error, warn, info, debug, trace) nor a filter";
    found.check("log.level", valid, message);
    for (name, source) in &config.sources {
        found.source(name, source);
    }
    found.secrets("http.read_secrets", &config.http.read_secrets);
    found.links(&config.http.links);
    let header = &config.browsers.address_header;
    let is_name = HeaderName::from_bytes(header.as_bytes()).is_ok();
    found.check("browsers.address_header", header.is_empty() || is_name, "is no name of a header");
    found.sizes(config);
    found.spans(config);
    found.data(config);
    found.kafka(config);
    found.elasticsearch(&config.elasticsearch, config.sink.kind);
    found.kibana(&config.kibana);
    found.0
}

struct Violations(Vec<(String, String)>);

impl Violations {
    fn check(&mut self, key: &str, holds: bool, message: &str) {
        if !holds {
            self.0.push((key.to_owned(), message.to_owned()));
        }
    }

    fn links(&mut self, links: &[Link]) {
        for link in links {
            let is_address =
                ["https://", "http://"].iter().any(|scheme| link.url.starts_with(scheme));
            let message = format!(
                "\"{} {}\" is no \"LABEL URL\" such as \"Logs https://grafana.example.com/explore?from={{from_ms}}\"",
                link.label, link.url
            );
            self.check("http.links", is_address && !link.label.is_empty(), &message);
            let names =
                link.url.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
            for name in names {
                let message =
                    format!("{{{name}}} stands for nothing: known are {}", LINK_NAMES.join(", "));
                self.check("http.links", LINK_NAMES.contains(&name), &message);
            }
        }
    }

    fn source(&mut self, name: &str, source: &SourceConfig) {
        self.secrets(&format!("sources.{name}.secrets"), &source.secrets);
        self.secrets(&format!("sources.{name}.browsers.keys"), &source.browsers.keys);
        for origin in &source.browsers.origins {
            let address =
                ["https://", "http://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
            let is_origin =
                address.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#']));
            self.check(
                &format!("sources.{name}.browsers.origins"),
                is_origin || origin == "*",
                &format!(
                    "{origin:?} is no origin such as \"https://meet.example.com\", without a path"
                ),
            );
        }
        let rest = &source.rest;
        let key = |setting: &str| format!("sources.{name}.rest.{setting}");
        let message = "must be an address such as \"https://openvidu.example.com/\", without name, password and query";
        let is_address = || address(&format!("sources.{name}.rest"), &rest.url).is_ok();
        self.check(&key("url"), rest.url.is_empty() || is_address(), message);
        let has_secret = rest.url.is_empty() || !rest.secret.is_empty();
        self.check(
            &key("secret"),
            has_secret,
            "is needed with an address: the platform's OPENVIDU_SECRET",
        );
        self.check(&key("every"), rest.every >= Duration::from_secs(1), "must be at least \"1s\"");
        let has_time = !rest.request_timeout.is_zero();
        self.check(
            &key("request_timeout"),
            has_time,
            "must be longer than nothing, such as \"1s\"",
        );
    }

    fn secrets(&mut self, key: &str, secrets: &[Secret]) {
        let count = secrets.len();
        let message = format!(
            "has {count} secrets; at most {SECRETS_MAX} are valid at a time, the old one and the new one"
        );
        self.check(key, count <= SECRETS_MAX, &message);
        let long = |secret: &str| secret.chars().count() >= SECRET_CHARACTERS_MIN;
        let message = format!("has a secret of fewer than {SECRET_CHARACTERS_MIN} characters");
        self.check(key, secrets.iter().all(|secret| long(secret.expose())), &message);
        let distinct = secrets
            .iter()
            .enumerate()
            .all(|(index, secret)| secrets.iter().take(index).all(|earlier| earlier != secret));
        self.check(key, distinct, "has the same secret twice");
    }

    fn sizes(&mut self, config: &Config) {
        let message = format!("must be at least {HEAD_BYTES_MIN}");
        self.check(
            "http.head_bytes_max",
            config.http.head_bytes_max.get() >= HEAD_BYTES_MIN,
            &message,
        );
        let journal = &config.journal;
        self.check(
            "journal.segment_bytes",
            journal.segment_bytes.get() <= journal.bytes_max.get() / 2,
            "must be at most half of journal.bytes_max: only whole segments are given back",
        );
        let body = u64::try_from(config.http.body_bytes_max.get()).unwrap_or(u64::MAX);
        self.check(
            "http.body_bytes_max",
            body.saturating_add(RECORD_BYTES_MAX) <= journal.bytes_max.get(),
            "must be at least 512 less than journal.bytes_max, or such a body never finds room",
        );
        let heap = config.embedded.heap_bytes.get();
        let message = format!("must be from {HEAP_BYTES_MIN} to {HEAP_BYTES_MAX}");
        self.check(
            "embedded.heap_bytes",
            (HEAP_BYTES_MIN..=HEAP_BYTES_MAX).contains(&heap),
            &message,
        );
    }

    fn spans(&mut self, config: &Config) {
        let sessions = &config.sessions;
        for (key, span) in [
            ("http.idle_after", config.http.idle_after),
            ("files.poll_every", config.files.poll_every),
            ("sessions.remember", sessions.remember),
            ("sessions.silent_after", sessions.silent_after),
            ("sessions.forget_after", sessions.forget_after),
            ("elasticsearch.request_timeout", config.elasticsearch.request_timeout),
            ("kibana.request_timeout", config.kibana.request_timeout),
        ] {
            self.check(key, !span.is_zero(), "must be longer than nothing, such as \"1s\"");
        }
        self.check(
            "sessions.forget_after",
            sessions.forget_after >= sessions.silent_after,
            "must not be shorter than sessions.silent_after",
        );
        let every = config.stats.every;
        self.check(
            "stats.every",
            every.is_zero() || every >= Duration::from_secs(1),
            "must be \"0s\" (none) or at least \"1s\"",
        );
    }

    fn kafka(&mut self, config: &Config) {
        let kafka = &config.kafka;
        let source = &kafka.source;
        let message = format!("there is no source of this name; add [sources.{source}]");
        self.check("kafka.source", config.sources.contains_key(source), &message);
        self.check("kafka.topics", !kafka.topics.is_empty(), "must name at least one topic");
        let is_topic = |name: &str| {
            let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            (1..=200).contains(&name.len())
                && name.chars().all(is_legal)
                && name != "."
                && name != ".."
        };
        let message = "must hold names of topics: a-z, A-Z, 0-9, . _ -, at most 200 characters";
        self.check("kafka.topics", kafka.topics.iter().all(|topic| is_topic(topic)), message);
        let rekeyed = &kafka.rekey_from;
        let message = "must hold names of topics: a-z, A-Z, 0-9, . _ -, at most 200 characters";
        self.check("kafka.rekey_from", rekeyed.iter().all(|topic| is_topic(topic)), message);
        for (key, topics) in [("kafka.topics", &kafka.topics), ("kafka.rekey_from", rekeyed)] {
            let mut known = BTreeSet::new();
            let are_distinct = topics.iter().all(|topic| known.insert(topic));
            self.check(key, are_distinct, "must not hold the same topic twice");
        }
        let own = [kafka.state_topic(), kafka.digests_topic(), kafka.dead_letters_topic()];
        for (key, topics) in [("kafka.topics", &kafka.topics), ("kafka.rekey_from", rekeyed)] {
            let are_others = topics.iter().all(|topic| !own.contains(topic));
            let message = "must not hold a topic that callscope itself writes: kafka.group and -state, -digests or -dead-letters";
            self.check(key, are_others, message);
        }
        let message =
            "must not hold one of kafka.topics: its records would be taken over again and again";
        let are_others = rekeyed.iter().all(|topic| !kafka.topics.contains(topic));
        self.check("kafka.rekey_from", are_others, message);
        let message = "must be a name that topics can begin with: a-z, A-Z, 0-9, . _ -";
        self.check("kafka.group", is_topic(&kafka.group), message);
        for (key, span) in [
            ("kafka.session_timeout", kafka.session_timeout),
            ("kafka.transaction_timeout", kafka.transaction_timeout),
        ] {
            let range = Duration::from_secs(1)..=Duration::from_secs(900);
            self.check(key, range.contains(&span), "must be from \"1s\" to \"15m\"");
        }
        let message = "must be at least \"500ms\" and at most half of kafka.session_timeout";
        let drains = Duration::from_millis(500)..=kafka.session_timeout / 2;
        self.check("kafka.drain_after", drains.contains(&kafka.drain_after), message);
        let message = "is set without kafka.username";
        let is_named = !kafka.username.is_empty();
        self.check("kafka.password", is_named || kafka.password.is_empty(), message);
        for property in &kafka.properties {
            let name = property.expose().split_once('=').map(|(name, _)| name.trim());
            let message = "must hold texts such as \"name=value\"";
            self.check("kafka.properties", name.is_some_and(|name| !name.is_empty()), message);
            let name = name.unwrap_or_default();
            let message =
                format!("must not hold {name:?}, on which callscope's promises rest; leave it out");
            self.check("kafka.properties", !OUR_PROPERTIES.contains(&name), &message);
            if let Some((_, setting)) = SET_PROPERTIES.iter().find(|(known, _)| *known == name) {
                let message = format!("must not hold {name:?}; set {setting}");
                self.check("kafka.properties", false, &message);
            }
        }
        self.check(
            "kafka.brokers",
            !(kafka.is_set() && config.sink.kind == SinkKind::Embedded),
            "need sink.kind \"elasticsearch\": with \"embedded\" each instance would keep its part of the documents to itself",
        );
    }

    /// What becomes of the data of people.
    fn data(&mut self, config: &Config) {
        let source = &config.files.source;
        let message = format!("there is no source of this name; add [sources.{source}]");
        self.check("files.source", config.sources.contains_key(source), &message);
        for (key, path) in [
            ("users.id_path", &config.users.id_path),
            ("users.tenant_path", &config.users.tenant_path),
        ] {
            if let Err(error) = DataPath::parse(path) {
                self.check(key, false, &error.to_string());
            }
        }
        let key = config.privacy.user_hash_key.expose();
        let message =
            format!("has fewer than {SECRET_CHARACTERS_MIN} characters and can be guessed");
        let long = key.chars().count() >= SECRET_CHARACTERS_MIN;
        self.check("privacy.user_hash_key", key.is_empty() || long, &message);
        for field in FIELDS_NEEDED {
            let dropped = config.privacy.drop_fields.iter().any(|dropped| dropped == field);
            let message = format!("must not contain {field:?}: no document is found without it");
            self.check("privacy.drop_fields", !dropped, &message);
        }
    }

    fn elasticsearch(&mut self, config: &ElasticsearchConfig, sink: SinkKind) {
        let key = "elasticsearch.urls";
        let needed = sink == SinkKind::Elasticsearch;
        self.check(key, !(needed && config.urls.is_empty()), "must name at least one node");
        for url in &config.urls {
            self.address("elasticsearch", "urls", url);
        }
        self.credentials("elasticsearch", &config.username, &config.password, &config.api_key);
        let message = "is no name for an index: lower-case, at most 200 bytes, no blanks, none of \
                       \\/*?\"<>|,#: and not beginning with - _ + or .";
        self.check("elasticsearch.index", is_index_name(&config.index), message);
        self.check(
            "elasticsearch.retention",
            config.retention.is_zero() || config.period != Period::None,
            "needs elasticsearch.period \"month\" or \"day\": a single index is never old enough to be deleted",
        );
    }

    fn kibana(&mut self, config: &KibanaConfig) {
        if !config.url.is_empty() {
            self.address("kibana", "url", &config.url);
        }
        self.credentials("kibana", &config.username, &config.password, &config.api_key);
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let message = "must be the identifier of a space, as in its address, or the name of a tenant: letters, digits, _ - .";
        self.check("kibana.space", config.space.chars().all(is_legal), message);
    }

    fn address(&mut self, section: &str, setting: &str, url: &str) {
        if let Err(message) = address(section, url) {
            self.check(&format!("{section}.{setting}"), false, &message);
        }
    }

    /// One way to say who asks, and all of it.
    fn credentials(&mut self, section: &str, username: &str, password: &Secret, api_key: &Secret) {
        let [name, password, api_key] =
            [!username.is_empty(), !password.is_empty(), !api_key.is_empty()];
        let message = format!("is set together with {section}.username; keep one of the two");
        self.check(&format!("{section}.api_key"), !(api_key && name), &message);
        let message = format!("is set without {section}.username");
        self.check(&format!("{section}.password"), !password || name, &message);
    }
}

/// Whether a text is the address of a server; if not, why. The message never quotes it, for it may hold a password.
/// `section`: where user and password belong.
///
/// # Errors
///
/// What it must be.
pub(crate) fn address(section: &str, url: &str) -> Result<(), String> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .ok_or("must begin with http:// or https://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if rest.contains('@') {
        return Err(format!(
            "must not hold user and password; use {section}.username and .password"
        ));
    }
    if rest.contains(['?', '#']) {
        return Err("must not hold a query or a fragment".to_owned());
    }
    let valid = url
        .parse::<axum::http::Uri>()
        .is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
        && authority.rsplit_once(':').is_none_or(|(_, port)| {
            port.ends_with(']') || port.parse::<u16>().is_ok_and(|port| port > 0)
        });
    if valid { Ok(()) } else { Err(format!("must hold addresses such as {:?}", example(section))) }
}

fn example(section: &str) -> &'static str {
    if section == "kibana" { "https://kibana:5601" } else { "https://node-1:9200" }
}

fn is_index_name(name: &str) -> bool {
    (1..=200).contains(&name.len())
        && !name.starts_with(['-', '_', '+', '.'])
        && !name.contains(|c: char| {
            c.is_uppercase() || c.is_whitespace() || c.is_control() || "\\/*?\"<>|,#:".contains(c)
        })
}
