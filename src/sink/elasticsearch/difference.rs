//! What differs between what stands on a server and what is sent there.
//!
//! Servers give back what they were sent in another form: settings nested and as texts, with members of their own. So both
//! sides are compared as paths with values as texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// Members that servers add by themselves, by the end of their path.
const OF_THE_SERVER: &[&str] = &[
    ".created_date",
    ".created_date_millis",
    ".modified_date",
    ".modified_date_millis",
    ".policy.policy_id",
    ".policy.last_updated_time",
    ".policy.schema_version",
    ".policy.error_notification",
    ".delete.delete_searchable_snapshot",
    ".ism_template.last_updated_time",
    ".actions.retry",
];

/// One member that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Where, with dots.
    pub path: String,
    /// What stands there, if anything.
    pub before: Option<String>,
    /// What will, if anything.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                write!(f, "changed {}: {before} becomes {after}", self.path)
            }
            (Some(before), None) => write!(f, "removed {}: {before}", self.path),
            (None, Some(after)) => write!(f, "added {}: {after}", self.path),
            (None, None) => write!(f, "{}", self.path),
        }
    }
}

/// What differs, by path.
#[must_use]
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let (before, after) = (paths(before), paths(after));
    let both: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    both.into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| Change {
            path: path.clone(),
            before: before.get(path).cloned(),
            after: after.get(path).cloned(),
        })
        .collect()
}

/// Without regard to places in lists.
fn is_of_the_server(path: &str) -> bool {
    let parts = path.split('.').filter(|part| part.parse::<usize>().is_err());
    let path = parts.fold(String::new(), |path, part| format!("{path}.{part}"));
    OF_THE_SERVER.iter().any(|end| path.ends_with(end))
}

fn paths(value: &Value) -> BTreeMap<String, String> {
    let mut paths = BTreeMap::new();
    collect("", value, &mut paths);
    paths
}

fn collect(path: &str, value: &Value, paths: &mut BTreeMap<String, String>) {
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            members.iter().map(|(name, member)| (below(name), member)).collect()
        }
        Value::Array(members) => members
            .iter()
            .enumerate()
            .map(|(place, member)| (below(&place.to_string()), member))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    let members: Vec<_> = members.iter().filter(|(path, _)| !is_of_the_server(path)).collect();
    for (path, member) in &members {
        collect(path, member, paths);
    }
    let text = match value {
        _ if !members.is_empty() => return,
        Value::Null => return,
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    paths.insert(path.to_owned(), text);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_form_is_no_difference() {
        let sent = json!({
            "priority": 400, "composed_of": [],
            "template": { "settings": { "index.number_of_shards": 1, "index.codec": "best" }, "mappings": { "dynamic": false }, "aliases": { "openvidu": {} } },
        });
        let stands = json!({
            "priority": 400, "composed_of": [], "created_date_millis": 7,
            "template": { "settings": { "index": { "number_of_shards": "1", "codec": "best" } }, "mappings": { "dynamic": "false" }, "aliases": { "openvidu": {} } },
        });
        assert_eq!(changes(&stands, &sent), []);
    }

    #[test]
    fn each_difference_is_told_by_its_path() {
        let stands = json!({ "a": { "b": 1, "gone": [] }, "list": [1, 2] });
        let sent = json!({ "a": { "b": 2 }, "list": [1, 2], "more": { "c": true } });
        let told: Vec<String> = changes(&stands, &sent).iter().map(Change::to_string).collect();
        assert_eq!(told, ["changed a.b: 1 becomes 2", "removed a.gone: []", "added more.c: true"]);
    }

    #[test]
    fn what_servers_add_is_no_difference() {
        let sent = json!({ "policy": { "states": [{ "name": "expired", "actions": [{ "delete": {} }] }] } });
        let stands = json!({ "policy": { "policy_id": "x", "schema_version": 21, "error_notification": null, "last_updated_time": 7,
            "states": [{ "name": "expired", "actions": [{ "retry": { "count": 3, "backoff": "exponential", "delay": "1m" }, "delete": {} }] }] } });
        assert_eq!(changes(&stands, &sent), []);
        let sent = json!({ "policy": { "phases": { "delete": { "actions": { "delete": {} } } } } });
        let stands = json!({ "policy": { "phases": { "delete": { "actions": { "delete": { "delete_searchable_snapshot": true } } } } } });
        assert_eq!(changes(&stands, &sent), []);
    }
}
