//! `config`: every setting with its meaning, its value and where that came from.

use super::print;
use crate::cli::{ExitCode, Failure};
use crate::config::{DEFAULTS, Loaded, Origin};

pub(super) fn run(loaded: &Loaded) -> Result<ExitCode, Failure> {
    for line in describe(loaded) {
        print(&line)?;
    }
    Ok(ExitCode::Ok)
}

/// The defaults file with the values in force, and the origin of every value that is no default.
fn describe(loaded: &Loaded) -> Vec<String> {
    let mut lines = Vec::new();
    let mut section = String::new();
    let mut shown = std::collections::BTreeSet::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        }
        let setting = line.split_once(" = ").filter(|_| !line.starts_with('#'));
        let Some((name, default)) = setting else {
            lines.push(line.to_owned());
            continue;
        };
        let key = format!("{section}{name}");
        match loaded.values.get(&key) {
            Some((value, origin)) if *origin != Origin::Default => {
                lines.push(format!(
                    "{name} = {}  # from {origin}, default {default}",
                    masked(&key, value)
                ));
            }
            _ => lines.push(line.to_owned()),
        }
        shown.insert(key);
    }
    for (key, (value, origin)) in loaded.values.iter().filter(|(key, _)| !shown.contains(*key)) {
        lines.push(format!("{key} = {}  # from {origin}", masked(key, value)));
    }
    lines
}

fn masked(key: &str, value: &str) -> String {
    let is_secret =
        ["secrets", "password", "api_key", "user_hash_key"].iter().any(|name| key.ends_with(name));
    let is_set = !matches!(value, "" | "\"\"" | "[]");
    if is_secret && is_set { "\"***\"".to_owned() } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn values_come_with_their_origin_and_secrets_without_their_text() {
        let environment = [
            ("CALLSCOPE__HTTP__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("CALLSCOPE__SOURCES__DEFAULT__SECRETS".to_owned(), "hunter2hunter2".to_owned()),
            ("CALLSCOPE__SOURCES__EU__CLUSTER_ID".to_owned(), "eu".to_owned()),
        ];
        let text = describe(&Config::load(None, environment).unwrap()).join("\n");
        assert!(text.contains(
            "listen = \"127.0.0.1:0\"  # from CALLSCOPE__HTTP__LISTEN, default \"127.0.0.1:7300\""
        ));
        assert!(
            text.contains(
                "sources.eu.cluster_id = \"eu\"  # from CALLSCOPE__SOURCES__EU__CLUSTER_ID"
            )
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}
