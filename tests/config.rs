//! Settings: every layer, every rule with its message, and the listing of all of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails shows where")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use callscope::config::{Addresses, Config, ConfigError, Loaded, LogFormat, SinkKind};
use proptest::prelude::*;
use tempfile::TempDir;

/// A file with this text, in a folder of its own.
struct File(TempDir);

impl File {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("callscope.toml"), text).unwrap();
        Self(directory)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("callscope.toml")
    }

    /// Loads; paths in messages become `callscope.toml`.
    fn load(&self, environment: &[(&str, &str)]) -> Result<Loaded, String> {
        let variables =
            environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Config::load(Some(&self.path()), variables).map_err(|error| {
            let folder = format!("{}/", self.0.path().display());
            format!("{:#}", anyhow::Error::from(error)).replace(&folder, "")
        })
    }
}

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, String> {
    File::new(text).load(environment)
}

/// The messages about single settings.
fn problems(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let message = load(text, environment).err().unwrap_or_default();
    message.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

fn variable(name: &str, text: &str) -> Config {
    load("", &[(name, text)]).unwrap().config
}

#[test]
fn the_defaults_alone_are_settings() {
    let loaded = load("", &[]).unwrap();
    let config = loaded.config;
    assert_eq!(config.data_dir, Path::new("callscope-data"));
    assert_eq!(config.http.listen, "127.0.0.1:7300".parse::<SocketAddr>().unwrap());
    assert_eq!(config.http.idle_after, Duration::from_secs(60));
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["default"]);
    assert_eq!(config.sources["default"].cluster_id, None);
    assert_eq!(config.sessions.remember, Duration::from_secs(7 * 86_400));
    assert_eq!(config.elasticsearch.urls, ["http://127.0.0.1:9200"]);
    assert_eq!(config.sink.kind, SinkKind::Embedded);
}

#[test]
fn the_environment_goes_before_the_file_and_the_file_before_the_defaults() {
    let file = "data_dir = \"/of/file\"\n[http]\nlisten = \"127.0.0.1:1\"\nconnections_max = 7\n";
    let config = load(file, &[("CALLSCOPE__HTTP__LISTEN", "[::1]:2")]).unwrap().config;
    assert_eq!(config.http.listen, "[::1]:2".parse::<SocketAddr>().unwrap());
    assert_eq!(config.http.connections_max.get(), 7);
    assert_eq!(config.data_dir, Path::new("/of/file"));
    assert_eq!(config.http.head_bytes_max.get(), 32_768);
}

#[test]
fn variables_are_read_as_the_kind_of_their_setting() {
    assert_eq!(
        variable("CALLSCOPE__ELASTICSEARCH__BULK_BYTES", "2000").elasticsearch.bulk_bytes.get(),
        2000
    );
    assert_eq!(
        variable("CALLSCOPE__ELASTICSEARCH__BULK_BYTES", " 2_000 ").elasticsearch.bulk_bytes.get(),
        2000
    );
    for text in ["false", "False", "no", "off", "0"] {
        assert!(!variable("CALLSCOPE__ELASTICSEARCH__GZIP", text).elasticsearch.gzip, "{text}");
        let set = variable("CALLSCOPE__HTTP__ALLOW_WITHOUT_SECRET", text);
        assert!(!set.http.allow_without_secret, "{text}");
    }
    for text in ["true", "TRUE", "yes", "on", "1"] {
        let set = variable("CALLSCOPE__HTTP__ALLOW_WITHOUT_SECRET", text);
        assert!(set.http.allow_without_secret, "{text}");
    }
    assert_eq!(
        variable("CALLSCOPE__SESSIONS__KEEP", "90m").sessions.keep,
        Duration::from_secs(5400)
    );
    assert_eq!(
        variable("CALLSCOPE__PRIVACY__ADDRESSES", "drop").privacy.addresses,
        Addresses::Drop
    );
    assert_eq!(variable("CALLSCOPE__LOG__FORMAT", "json").log.format, LogFormat::Json);
    assert_eq!(variable("callscope__log__format", "json").log.format, LogFormat::Json);
}

#[test]
fn of_two_spellings_of_a_variable_the_same_one_counts_in_any_order() {
    let mut variables = [("CALLSCOPE__LOG__FORMAT", "text"), ("CALLSCOPE__LOG__Format", "json")];
    for _ in 0..2 {
        variables.reverse();
        assert_eq!(load("", &variables).unwrap().config.log.format, LogFormat::Json);
    }
}

#[test]
fn texts_stay_as_they_are_even_if_they_look_like_numbers() {
    let config = load(
        "",
        &[
            ("CALLSCOPE__ELASTICSEARCH__USERNAME", "true"),
            ("CALLSCOPE__ELASTICSEARCH__PASSWORD", "007"),
            ("CALLSCOPE__SOURCES__DEFAULT__CLUSTER_ID", "1e3"),
        ],
    )
    .unwrap()
    .config;
    assert_eq!(config.elasticsearch.username, "true");
    assert_eq!(config.elasticsearch.password.expose(), "007");
    assert_eq!(config.sources["default"].cluster_id.as_deref(), Some("1e3"));
}

#[test]
fn lists_are_separated_by_commas() {
    let config = variable("CALLSCOPE__ELASTICSEARCH__URLS", "http://a:9200, https://b:9200 ,");
    assert_eq!(config.elasticsearch.urls, ["http://a:9200", "https://b:9200"]);
    let config = variable("CALLSCOPE__SOURCES__DEFAULT__SECRETS", "first-secret,second-secret");
    let secrets: Vec<_> =
        config.sources["default"].secrets.iter().map(|secret| secret.expose()).collect();
    assert_eq!(secrets, ["first-secret", "second-secret"]);
    assert!(variable("CALLSCOPE__ELASTICSEARCH__URLS", ",").elasticsearch.urls.is_empty());
    let config = load("[files]\nfollow = \"/a/*.log, /b.log\"", &[]).unwrap().config;
    assert_eq!(config.files.follow, ["/a/*.log", "/b.log"]);
}

#[test]
fn an_empty_variable_empties_a_text_and_is_not_set_for_anything_else() {
    let file = "[elasticsearch]\nusername = \"of file\"\nurls = [\"http://file:1\"]\nshards = 3\nrequest_timeout = \"5s\"\n";
    let config = load(
        file,
        &[
            ("CALLSCOPE__ELASTICSEARCH__USERNAME", ""),
            ("CALLSCOPE__ELASTICSEARCH__URLS", ""),
            ("CALLSCOPE__ELASTICSEARCH__SHARDS", ""),
            ("CALLSCOPE__ELASTICSEARCH__REQUEST_TIMEOUT", ""),
            ("CALLSCOPE__ELASTICSEARCH__GZIP", ""),
            ("CALLSCOPE__ELASTICSEARCH__PERIOD", ""),
            ("CALLSCOPE__HTTP__LISTEN", ""),
            ("CALLSCOPE__SOURCES__DEFAULT__SECRETS", ""),
        ],
    )
    .unwrap()
    .config;
    assert_eq!(config.elasticsearch.username, "");
    assert_eq!(config.elasticsearch.urls, ["http://file:1"]);
    assert_eq!(config.elasticsearch.shards.get(), 3);
    assert_eq!(config.elasticsearch.request_timeout, Duration::from_secs(5));
    assert!(config.elasticsearch.gzip);
    assert_eq!(config.http.listen, "127.0.0.1:7300".parse::<SocketAddr>().unwrap());
}

#[test]
fn further_sources_may_leave_out_what_they_do_not_need() {
    let config = load(
        "[sources.other]\n[sources.north-1]\ncluster_id = \"north\"",
        &[("CALLSCOPE__SOURCES__SOUTH__SECRETS", "secret-of-south")],
    )
    .unwrap()
    .config;
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["default", "north-1", "other", "south"]);
    assert!(config.sources["other"].secrets.is_empty());
    assert_eq!(config.sources["north-1"].cluster_id.as_deref(), Some("north"));
    assert_eq!(config.sources["north-1"].master_node_id, None);
    assert_eq!(config.sources["south"].secrets[0].expose(), "secret-of-south");
}

#[test]
fn unknown_names_are_errors_with_the_place_and_the_nearest_name() {
    for (file, variables, expected) in [
        (
            "[http]\nlistne = \"127.0.0.1:1\"",
            &[][..],
            "http.listne (callscope.toml): no such setting; did you mean http.listen?",
        ),
        ("[htp]\nlisten = \"\"", &[], "htp (callscope.toml): no such setting; did you mean http?"),
        (
            "listen = \"127.0.0.1:1\"",
            &[],
            "listen (callscope.toml): no such setting; did you mean http.listen?",
        ),
        (
            "[sources.other]\nsecret = \"x\"",
            &[],
            "sources.other.secret (callscope.toml): no such setting; did you mean sources.other.secrets?",
        ),
        (
            "[pulsar]\nbrokers = []",
            &[],
            "pulsar (callscope.toml): no such setting; `callscope config` lists all",
        ),
        (
            "\"http.listen\" = \"127.0.0.1:1\"",
            &[],
            "http.listen (callscope.toml): no such setting; did you mean http.listen?",
        ),
        (
            "",
            &[("CALLSCOPE__ELASTICSEARCH__URL", "http://a")],
            "elasticsearch.url (environment variable CALLSCOPE__ELASTICSEARCH__URL): no such setting; \
             did you mean CALLSCOPE__ELASTICSEARCH__URLS?",
        ),
        (
            "",
            &[("CALLSCOPE__HTTP_LISTEN", "127.0.0.1:1")],
            "http_listen (environment variable CALLSCOPE__HTTP_LISTEN): no such setting; \
             did you mean CALLSCOPE__HTTP__LISTEN?",
        ),
        (
            "",
            &[("CALLSCOPE_HTTP__LISTEN", "127.0.0.1:1")],
            "http.listen (environment variable CALLSCOPE_HTTP__LISTEN): no such setting; \
             did you mean CALLSCOPE__HTTP__LISTEN?",
        ),
    ] {
        assert_eq!(problems(file, variables), [expected]);
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    let variables = [
        ("CALLSCOPE_PORT_7300_TCP_ADDR", "10.0.0.1"),
        ("CALLSCOPE_SERVICE_HOST", "10.0.0.1"),
        ("CALLSCOPE", "x"),
        ("PATH", "/bin"),
        ("É", "x"),
        ("ÉÉÉÉÉÉÉÉÉÉ__X", "x"),
    ];
    assert!(load("", &variables).is_ok());
}

#[test]
fn wrong_kinds_and_values_are_errors_with_their_place() {
    let listen = "(environment variable CALLSCOPE__HTTP__LISTEN): invalid socket address syntax";
    for (file, variables, expected) in [
        (
            "[elasticsearch]\nshards = \"3\"",
            &[][..],
            "elasticsearch.shards (callscope.toml): must be a whole number",
        ),
        (
            "[elasticsearch]\nbulk_bytes = 1.9",
            &[],
            "elasticsearch.bulk_bytes (callscope.toml): must be a whole number",
        ),
        (
            "[elasticsearch]\ngzip = 1",
            &[],
            "elasticsearch.gzip (callscope.toml): must be true or false",
        ),
        (
            "[elasticsearch]\npassword = 7",
            &[],
            "elasticsearch.password (callscope.toml): must be a text in quotation marks",
        ),
        (
            "[elasticsearch]\nurls = [1]",
            &[],
            "elasticsearch.urls (callscope.toml): must be a list of texts",
        ),
        (
            "http = 1",
            &[],
            "http (callscope.toml): is a section; write [http] and its settings below it",
        ),
        ("[data_dir]\nx = 1", &[], "data_dir (callscope.toml): must be a text in quotation marks"),
        (
            "[elasticsearch]\nshards = 0",
            &[],
            "elasticsearch.shards = 0 (callscope.toml): invalid value: integer `0`, expected a nonzero u32",
        ),
        (
            "[elasticsearch]\nreplicas = -1",
            &[],
            "elasticsearch.replicas = -1 (callscope.toml): invalid value: integer `-1`, expected u32",
        ),
        (
            "[log]\nformat = \"xml\"",
            &[],
            "log.format = \"xml\" (callscope.toml): unknown variant `xml`, expected `text` or `json`",
        ),
        (
            "[sessions]\nkeep = \"1 hourr\"",
            &[],
            "sessions.keep = \"1 hourr\" (callscope.toml): \"1 hourr\" is no time span such as \"30s\" or \"1h\": unknown time \
             unit \"hourr\", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)",
        ),
        (
            "",
            &[("CALLSCOPE__HTTP__LISTEN", "nowhere")],
            &format!("http.listen = \"nowhere\" {listen}"),
        ),
        (
            "",
            &[("CALLSCOPE__ELASTICSEARCH__SHARDS", "many")],
            "elasticsearch.shards = \"many\" (environment variable CALLSCOPE__ELASTICSEARCH__SHARDS): must be a whole number",
        ),
        (
            "",
            &[("CALLSCOPE__ELASTICSEARCH__GZIP", "maybe")],
            "elasticsearch.gzip = \"maybe\" (environment variable CALLSCOPE__ELASTICSEARCH__GZIP): must be true or false",
        ),
        (
            "",
            &[("CALLSCOPE__HTTP", "x")],
            "http (environment variable CALLSCOPE__HTTP): is a section; add two underscores and a setting to the variable's name",
        ),
    ] {
        assert_eq!(problems(file, variables), [expected]);
    }
}

#[test]
fn every_rule_says_what_is_wrong() {
    let name = "is no name for a source; use a-z, 0-9, _ and -, at most 64 characters";
    let index = "is no name for an index: lower-case, at most 200 bytes, no blanks, none of \\/*?\"<>|,#: and not beginning \
                 with - _ + or .";
    let path = "must be serverData or clientData, or begin with one of them and a dot, such as \"serverData.userId\"";
    let long = "x".repeat(65);
    let url = "must be an address such as \"https://openvidu.example.com/\", without name, password and query";
    for wrong in [
        "openvidu",
        "http://",
        "http://a:port",
        "https://OPENVIDUAPP:hunter2@a",
        "https://a/?b=c",
        "https://a b",
    ] {
        let file = format!("[sources.a.rest]\nurl = {wrong:?}\nsecret = \"s\"");
        assert_eq!(
            problems(&file, &[]),
            [format!("sources.a.rest.url (callscope.toml): {url}")],
            "{file}"
        );
    }
    for (file, expected) in [
        ("data_dir = \"\"", "data_dir = \"\" (callscope.toml): must not be empty"),
        (
            "[log]\nlevel = \"verbose\"",
            "log.level = \"verbose\" (callscope.toml): is neither a level (error, warn, info, debug, trace) nor a filter",
        ),
        (
            "[log]\nlevel = \"info,callscope=loud\"",
            "log.level = \"info,callscope=loud\" (callscope.toml): is neither a level (error, warn, info, debug, trace) nor a filter",
        ),
        (
            "[http]\nhead_bytes_max = 8191",
            "http.head_bytes_max = 8191 (callscope.toml): must be at least 8192",
        ),
        (
            "[http]\nidle_after = \"0s\"",
            "http.idle_after = \"0s\" (callscope.toml): must be longer than nothing, such as \"1s\"",
        ),
        (
            "[http]\nbody_bytes_max = 10_000_000_000",
            "http.body_bytes_max = 10000000000 (callscope.toml): must be at least 512 less than journal.bytes_max, or such a body never finds room",
        ),
        (
            "[sources.default]\nsecrets = [\"12345678\", \"23456789\", \"34567890\"]",
            "sources.default.secrets (callscope.toml): has 3 secrets; at most 2 are valid at a time, the old one and the new one",
        ),
        (
            "[sources.other]\nsecrets = [\"1234567\"]",
            "sources.other.secrets (callscope.toml): has a secret of fewer than 8 characters",
        ),
        (
            "[sources.other]\nsecrets = [\"12345678\", \"12345678\"]",
            "sources.other.secrets (callscope.toml): has the same secret twice",
        ),
        ("[sources.Other]\n", &format!("sources.Other (callscope.toml): \"Other\" {name}")),
        (
            &format!("[sources.{long}]\n"),
            &format!("sources.{long} (callscope.toml): \"{long}\" {name}"),
        ),
        (
            "[journal]\nsegment_bytes = 20_000_000_000",
            "journal.segment_bytes = 20000000000 (callscope.toml): must be at most half of journal.bytes_max: only whole segments are given back",
        ),
        (
            "[files]\nsource = \"other\"",
            "files.source = \"other\" (callscope.toml): there is no source of this name; add [sources.other]",
        ),
        (
            "[files]\npoll_every = \"0s\"",
            "files.poll_every = \"0s\" (callscope.toml): must be longer than nothing, such as \"1s\"",
        ),
        (
            "[privacy]\nuser_hash_key = \"short\"",
            "privacy.user_hash_key (callscope.toml): has fewer than 8 characters and can be guessed",
        ),
        (
            "[privacy]\ndrop_fields = [\"timestamp\"]",
            "privacy.drop_fields = [\"timestamp\"] (callscope.toml): must not contain \"timestamp\": no document is found without it",
        ),
        (
            "[users]\nid_path = \"userId\"",
            &format!("users.id_path = \"userId\" (callscope.toml): {path}"),
        ),
        (
            "[users]\ntenant_path = \"serverData.\"",
            &format!("users.tenant_path = \"serverData.\" (callscope.toml): {path}"),
        ),
        (
            "[sessions]\nsilent_after = \"0s\"",
            "sessions.silent_after = \"0s\" (callscope.toml): must be longer than nothing, such as \"1s\"",
        ),
        (
            "[sessions]\nremember = \"0s\"",
            "sessions.remember = \"0s\" (callscope.toml): must be longer than nothing, such as \"1s\"",
        ),
        (
            "[sessions]\nforget_after = \"1h\"",
            "sessions.forget_after = \"1h\" (callscope.toml): must not be shorter than sessions.silent_after",
        ),
        (
            "[stats]\nevery = \"10ms\"",
            "stats.every = \"10ms\" (callscope.toml): must be \"0s\" (none) or at least \"1s\"",
        ),
        (
            "[embedded]\nheap_bytes = 1000",
            "embedded.heap_bytes = 1000 (callscope.toml): must be from 15000000 to 4000000000",
        ),
        (
            "[sink]\nkind = \"elasticsearch\"\n[elasticsearch]\nurls = []",
            "elasticsearch.urls (callscope.toml): must name at least one node",
        ),
        (
            "[elasticsearch]\nurls = [\"node-1:9200\"]",
            "elasticsearch.urls (callscope.toml): must begin with http:// or https://",
        ),
        (
            "[elasticsearch]\nurls = [\"http://:9200\"]",
            "elasticsearch.urls (callscope.toml): must hold addresses such as \"https://node-1:9200\"",
        ),
        (
            "[elasticsearch]\nurls = [\"http://node:port\"]",
            "elasticsearch.urls (callscope.toml): must hold addresses such as \"https://node-1:9200\"",
        ),
        (
            "[elasticsearch]\nurls = [\"http://a b\"]",
            "elasticsearch.urls (callscope.toml): must hold addresses such as \"https://node-1:9200\"",
        ),
        (
            "[elasticsearch]\nurls = [\"http://node/?pretty\"]",
            "elasticsearch.urls (callscope.toml): must not hold a query or a fragment",
        ),
        (
            "[elasticsearch]\nurls = [\"http://elastic:hunter2@node\"]",
            "elasticsearch.urls (callscope.toml): must not hold user and password; use elasticsearch.username and .password",
        ),
        (
            "[elasticsearch]\nusername = \"u\"\npassword = \"p\"\napi_key = \"k\"",
            "elasticsearch.api_key (callscope.toml): is set together with elasticsearch.username; keep one of the two",
        ),
        (
            "[elasticsearch]\npassword = \"p\"",
            "elasticsearch.password (callscope.toml): is set without elasticsearch.username",
        ),
        (
            "[elasticsearch]\nindex = \"OpenVidu\"",
            &format!("elasticsearch.index = \"OpenVidu\" (callscope.toml): {index}"),
        ),
        (
            "[elasticsearch]\nindex = \"\"",
            &format!("elasticsearch.index = \"\" (callscope.toml): {index}"),
        ),
        (
            "[elasticsearch]\nindex = \"_all\"",
            &format!("elasticsearch.index = \"_all\" (callscope.toml): {index}"),
        ),
        (
            "[elasticsearch]\nrequest_timeout = \"0s\"",
            "elasticsearch.request_timeout = \"0s\" (callscope.toml): must be longer than nothing, such as \"1s\"",
        ),
        (
            "[elasticsearch]\nretention = \"30d\"\nperiod = \"none\"",
            "elasticsearch.retention = \"30d\" (callscope.toml): needs elasticsearch.period \"month\" or \"day\": a single index \
             is never old enough to be deleted",
        ),
        (
            "[sources.default.rest]\nurl = \"https://openvidu\"",
            "sources.default.rest.secret (default): is needed with an address: the platform's OPENVIDU_SECRET",
        ),
        (
            "[http]\nlinks = [\"https://logs.example.com\"]",
            "http.links = [\"https://logs.example.com\"] (callscope.toml): \"https://logs.example.com \" is no \"LABEL URL\" such as \"Logs https://grafana.example.com/explore?from={from_ms}\"",
        ),
        (
            "[http]\nlinks = [\"Logs logs.example.com\"]",
            "http.links = [\"Logs logs.example.com\"] (callscope.toml): \"Logs logs.example.com\" is no \"LABEL URL\" such as \"Logs https://grafana.example.com/explore?from={from_ms}\"",
        ),
        (
            "[http]\nlinks = [\"Logs https://logs.example.com/{room}\"]",
            "http.links = [\"Logs https://logs.example.com/{room}\"] (callscope.toml): {room} stands for nothing: known are session, name, from, to, from_ms, to_ms",
        ),
        (
            "[sources.default.rest]\nevery = \"999ms\"",
            "sources.default.rest.every = \"999ms\" (callscope.toml): must be at least \"1s\"",
        ),
        (
            "[sources.default.rest]\nrequest_timeout = \"0s\"",
            "sources.default.rest.request_timeout = \"0s\" (callscope.toml): must be longer than nothing, such as \"1s\"",
        ),
        (
            "[kibana]\nurl = \"kibana:5601\"",
            "kibana.url (callscope.toml): must begin with http:// or https://",
        ),
        (
            "[kibana]\nurl = \"http://kibana:port\"",
            "kibana.url (callscope.toml): must hold addresses such as \"https://kibana:5601\"",
        ),
        (
            "[kibana]\nurl = \"http://elastic:hunter2@kibana\"",
            "kibana.url (callscope.toml): must not hold user and password; use kibana.username and .password",
        ),
        (
            "[kibana]\nusername = \"u\"\napi_key = \"k\"",
            "kibana.api_key (callscope.toml): is set together with kibana.username; keep one of the two",
        ),
        (
            "[kibana]\npassword = \"p\"",
            "kibana.password (callscope.toml): is set without kibana.username",
        ),
        (
            "[kibana]\nspace = \"a/b\"",
            "kibana.space = \"a/b\" (callscope.toml): must be the identifier of a space, as in its address, or the name of a tenant: \
             letters, digits, _ - .",
        ),
        (
            "[kibana]\nrequest_timeout = \"0s\"",
            "kibana.request_timeout = \"0s\" (callscope.toml): must be longer than nothing, such as \"1s\"",
        ),
        (
            "[kafka]\ntopics = [\"x\", \"y\", \"x\"]",
            "kafka.topics = [\"x\", \"y\", \"x\"] (callscope.toml): must not hold the same topic twice",
        ),
        (
            "[kafka]\nrekey_from = [\"x\", \"x\"]",
            "kafka.rekey_from = [\"x\", \"x\"] (callscope.toml): must not hold the same topic twice",
        ),
        (
            "[kafka]\ntopics = [\"x\"]\nrekey_from = [\"x\"]",
            "kafka.rekey_from = [\"x\"] (callscope.toml): must not hold one of kafka.topics: its records would be taken over again and again",
        ),
        (
            "[kafka]\nrekey_from = [\"callscope-state\"]",
            "kafka.rekey_from = [\"callscope-state\"] (callscope.toml): must not hold a topic that callscope itself writes: kafka.group and \
             -state, -digests or -dead-letters",
        ),
        (
            "[kafka]\ngroup = \"a/b\"",
            "kafka.group = \"a/b\" (callscope.toml): must be a name that topics can begin with: a-z, A-Z, 0-9, . _ -",
        ),
        (
            "[kafka]\ndrain_after = \"499ms\"",
            "kafka.drain_after = \"499ms\" (callscope.toml): must be at least \"500ms\" and at most half of kafka.session_timeout",
        ),
        (
            "[kafka]\nproperties = [\"linger.ms\"]",
            "kafka.properties (callscope.toml): must hold texts such as \"name=value\"",
        ),
        (
            "[kafka]\nproperties = [\" isolation.level =read_uncommitted\"]",
            "kafka.properties (callscope.toml): must not hold \"isolation.level\", on which callscope's promises rest; leave it \
             out",
        ),
        (
            "[kafka]\nproperties = [\"transaction.timeout.ms=1\"]",
            "kafka.properties (callscope.toml): must not hold \"transaction.timeout.ms\"; set kafka.transaction_timeout",
        ),
        (
            "[kafka]\nproperties = [\"metadata.broker.list=x\"]",
            "kafka.properties (callscope.toml): must not hold \"metadata.broker.list\"; set kafka.brokers",
        ),
    ] {
        assert_eq!(problems(file, &[]), [expected]);
    }
}

#[test]
fn what_the_rules_allow_is_taken() {
    for file in [
        "[elasticsearch]\nurls = [\"https://[::1]:9200/prefix\", \"http://node\", \"http://10.0.0.1:80/\"]",
        "[elasticsearch]\nusername = \"u\"\npassword = \"p\"",
        "[elasticsearch]\nretention = \"0s\"\nperiod = \"none\"",
        "[log]\nlevel = \"info,callscope::journal=debug\"",
        "[log]\nlevel = \"off\"",
        "[users]\nid_path = \"clientData\"\ntenant_path = \"serverData.customer.id\"",
        "[stats]\nevery = \"0s\"",
        "[files]\nsource = \"other\"\n[sources.other]",
        "[sources.default]\nsecrets = [\"12345678\", \"23456789\"]",
        "[sources.default.rest]\nurl = \"https://[::1]:4443/prefix/\"\nsecret = \"s\"",
        "[sessions]\nkeep = \"0s\"",
        "[kafka]\ndrain_after = \"500ms\"\nsession_timeout = \"1s\"",
        "[kafka]\nproperties = [\"linger.ms=50\", \"ssl.key.location=/k=1\"]",
    ] {
        assert_eq!(problems(file, &[]), Vec::<String>::new(), "{file}");
        assert!(load(file, &[]).is_ok(), "{file}");
    }
}

#[test]
fn all_that_is_wrong_is_reported_together() {
    let file = "[http]\nlistne = 1\n[elasticsearch]\nshards = 0\nurls = [\"node\"]\n[log]\nformat = \"xml\"";
    let message = load(file, &[("CALLSCOPE__SESSIONS__KEEP", "soon")]).unwrap_err();
    assert_eq!(
        message,
        "4 settings are wrong:\n  \
         elasticsearch.shards = 0 (callscope.toml): invalid value: integer `0`, expected a nonzero u32\n  \
         http.listne (callscope.toml): no such setting; did you mean http.listen?\n  \
         log.format = \"xml\" (callscope.toml): unknown variant `xml`, expected `text` or `json`\n  \
         sessions.keep = \"soon\" (environment variable CALLSCOPE__SESSIONS__KEEP): \"soon\" is no time span such as \
         \"30s\" or \"1h\": expected number at 0"
    );
    let rules = problems("data_dir = \"\"\n[elasticsearch]\npassword = \"p\"\nindex = \"-\"", &[]);
    assert_eq!(rules.len(), 3);
}

#[test]
fn a_file_that_was_named_has_to_exist_and_to_be_toml() {
    let missing = Path::new("/nowhere/callscope.toml");
    let error = Config::load(Some(missing), std::iter::empty()).unwrap_err();
    assert!(matches!(&error, ConfigError::Unreadable { path, .. } if path == missing));
    assert_eq!(error.to_string(), "cannot read the settings file /nowhere/callscope.toml");

    let message =
        load("[elasticsearch]\nusername = \"u\"\npassword = \"hunter2\n", &[]).unwrap_err();
    assert!(message.contains("callscope.toml is not valid TOML"), "{message}");
    assert!(message.contains("line 3"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
    let message = load("[http]\n[http]\n", &[]).unwrap_err();
    assert!(message.contains("duplicate key"), "{message}");
}

const SOME_FILE: &str = "
data_dir = \"/var/lib/callscope\"
[http]
listen = \"0.0.0.0:7300\"
[sources.default]
secrets = [\"not to be seen\"]
[sources.north-1]
cluster_id = \"north\"
secrets = \"not to be seen either\"
[sources.south]
[elasticsearch]
urls = [\"https://node-1:9200\", \"https://node-2:9200\"]
username = \"callscope\"
";

const SOME_VARIABLES: &[(&str, &str)] = &[
    ("CALLSCOPE__ELASTICSEARCH__PASSWORD", "not to be seen at all"),
    ("CALLSCOPE__SINK__KIND", "elasticsearch"),
    ("CALLSCOPE__SESSIONS__KEEP", "2h"),
    ("CALLSCOPE__ELASTICSEARCH__GZIP", "no"),
    ("CALLSCOPE__FILES__FOLLOW", "/opt/openvidu/cdr/*.log"),
];

#[test]
fn the_listing_names_every_setting_with_meaning_value_and_origin() {
    let file = File::new(SOME_FILE);
    let listing = file.load(SOME_VARIABLES).unwrap().describe();
    let folder = format!("{}/", file.0.path().display());
    insta::assert_snapshot!("describe", listing.replace(&folder, ""));
}

#[test]
fn the_listing_is_a_settings_file_that_says_the_same() {
    let loaded = load(SOME_FILE, SOME_VARIABLES).unwrap();
    let listing = loaded.describe();
    assert!(
        !listing.contains("not to be seen") && !format!("{loaded:?}").contains("not to be seen")
    );
    let again = load(&listing, &[]).unwrap();
    let mut expected = loaded.config;
    for source in expected.sources.values_mut() {
        source.secrets.clear();
    }
    expected.elasticsearch.password = callscope::config::Secret::new("");
    assert_eq!(format!("{:?}", again.config), format!("{expected:?}"));
    assert!(again.config.sources["north-1"].secrets.is_empty());
}

#[test]
fn the_listing_of_the_defaults_has_every_line_of_the_defaults_file() {
    let listing = load("", &[]).unwrap().describe();
    let lines: Vec<_> = listing.lines().map(|line| line.trim_end_matches("  # default")).collect();
    assert_eq!(lines, callscope::config::DEFAULTS.lines().collect::<Vec<_>>());
    let settings = listing.lines().filter(|line| line.ends_with("  # default")).count();
    assert!(settings > 50, "{settings}");
}

fn setting_names() -> Vec<String> {
    let mut section = String::new();
    let mut names = Vec::new();
    for line in callscope::config::DEFAULTS.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((name, _)) = line.split_once(" = ") {
            names.push(format!("{section}{name}"));
        }
    }
    names
}

fn variable_of(name: &str) -> String {
    format!("CALLSCOPE__{}", name.to_uppercase().replace('.', "__"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_value_of_any_setting_is_taken_or_refused_with_the_name_of_its_variable(
        name in prop::sample::select(setting_names()), value in "\\PC{0,24}",
    ) {
        let variable = variable_of(&name);
        match load("", &[(&variable, &value)]) {
            Ok(loaded) => prop_assert!(loaded.describe().contains("data_dir")),
            Err(message) => prop_assert!(message.contains(&variable), "{}", message),
        }
    }

    #[test]
    fn a_name_with_one_letter_too_many_leads_to_the_right_one(
        name in prop::sample::select(setting_names()), at in 0_usize..64,
    ) {
        let mut wrong = variable_of(&name);
        wrong.insert("CALLSCOPE__".len() + at % name.len(), 'X');
        prop_assume!(!wrong.starts_with("CALLSCOPE__SOURCES__") && !wrong.contains("_X_"));
        let message = load("", &[(&wrong, "x")]).unwrap_err();
        prop_assert!(message.contains(&format!("{wrong}): no such setting; did you mean {}?", variable_of(&name))), "{}", message);
    }

    #[test]
    fn secrets_are_in_no_message_and_no_listing(
        secret in "[A-Z]{4}[ -~]{0,12}", extra in prop::sample::select(vec!["", "CALLSCOPE__HTTP__LISTEN"]),
    ) {
        let variables = [
            ("CALLSCOPE__SOURCES__DEFAULT__SECRETS", secret.as_str()),
            ("CALLSCOPE__SOURCES__OTHER__SECRETS", &secret),
            ("CALLSCOPE__ELASTICSEARCH__PASSWORD", &secret),
            ("CALLSCOPE__ELASTICSEARCH__USERNAME", "u"),
            ("CALLSCOPE__PRIVACY__USER_HASH_KEY", &secret),
            (extra, "nowhere"),
        ];
        let start = secret.get(..4).unwrap();
        let shown = match load("", &variables) {
            Ok(loaded) => format!("{}{loaded:?}", loaded.describe()),
            Err(message) => message,
        };
        let name = ["HTTP", "HASH", "KEYS"].contains(&start);
        prop_assert!(name || !shown.replace("CALLSCOPE__", "").contains(start), "{}", shown);
    }
}
