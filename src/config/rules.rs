//! Rules across settings, checked without any I/O and reported all together.

use super::{Config, ElasticsearchConfig};

/// Shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 8;

/// Every rule that `config` breaks, one line each.
pub(super) fn violations(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rule = |holds: bool, line: String| {
        if !holds {
            wrong.push(line);
        }
    };
    rule(!config.data_dir.as_os_str().is_empty(), "data_dir is empty; name a folder".to_owned());
    for (name, source) in &config.sources {
        let is_name = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte)
            });
        rule(is_name, format!("sources.{name}: a source's name has 1 to 64 of a-z, 0-9, _ and -"));
        let secrets = &source.secrets;
        rule(
            secrets.len() <= 2,
            format!(
                "sources.{name}.secrets has {} entries; at most 2 are valid at a time",
                secrets.len()
            ),
        );
        let long = secrets.iter().all(|secret| secret.expose().len() >= SECRET_BYTES_MIN);
        rule(
            long,
            format!("sources.{name}.secrets: a secret has at least {SECRET_BYTES_MIN} characters"),
        );
    }
    let files = &config.files.source;
    rule(
        config.sources.contains_key(files),
        format!("files.source is {files:?}, but there is no [sources.{files}]"),
    );
    for (key, path) in
        [("users.id_path", &config.users.id_path), ("users.tenant_path", &config.users.tenant_path)]
    {
        let is_path =
            path.is_empty() || path.starts_with("serverData.") || path.starts_with("clientData.");
        rule(is_path, format!("{key} is {path:?}; a path begins with serverData. or clientData."));
    }
    let spans = [
        ("sessions.silent_after", config.sessions.silent_after),
        ("files.poll_every", config.files.poll_every),
        ("http.idle_after", config.http.idle_after),
        ("elasticsearch.request_timeout", config.elasticsearch.request_timeout),
    ];
    for (key, span) in spans {
        rule(!span.is_zero(), format!("{key} must be more than 0"));
    }
    let sessions = &config.sessions;
    rule(
        sessions.forget_after >= sessions.silent_after,
        "sessions.forget_after must not be shorter than sessions.silent_after".to_owned(),
    );
    rule(
        config.journal.segment_bytes <= config.journal.bytes_max,
        "journal.segment_bytes must not be larger than journal.bytes_max".to_owned(),
    );
    elasticsearch_violations(&config.elasticsearch, &mut rule);
    wrong
}

fn elasticsearch_violations(
    elasticsearch: &ElasticsearchConfig,
    rule: &mut impl FnMut(bool, String),
) {
    rule(!elasticsearch.urls.is_empty(), "elasticsearch.urls is empty".to_owned());
    for url in &elasticsearch.urls {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        rule(
            rest.is_some_and(|rest| !rest.is_empty()),
            format!("elasticsearch.urls: {url:?} does not begin with http:// or https://"),
        );
    }
    rule(
        elasticsearch.api_key.is_empty() || elasticsearch.username.is_empty(),
        "elasticsearch.api_key and elasticsearch.username exclude each other; set one".to_owned(),
    );
    let index = &elasticsearch.index;
    let is_index = !index.is_empty()
        && index.len() <= 200
        && index.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && index.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte)
        });
    rule(
        is_index,
        format!("elasticsearch.index is {index:?}; an index is named with a-z, 0-9, _, - and ."),
    );
}
