//! Settings: one layer read, its names and kinds checked against the defaults.
//!
//! A variable of the environment is text and is read as the kind that its setting has in the defaults: a whole number, a
//! truth value (`true`, `yes`, `on`, `1` and their opposites), a list (separated by commas, blanks around them removed), or
//! a text taken as it is, so the password `007` stays `007`. An empty variable sets a text to nothing; for every other kind
//! of setting it counts as not set, because that is what templates of containers leave behind.
//!
//! Only variables that begin with `CALLSCOPE__` are ours. Kubernetes makes others that begin with `CALLSCOPE_`; of these, one
//! that has two underscores further on was meant for us and is an error.

use std::collections::BTreeMap;
use std::path::Path;

use ::config::{FileFormat, Format, Value, ValueKind};

use super::DEFAULTS;
use super::load::{ConfigError, Origin, Problem, Setting, Table, build, is_printable, is_secret};

/// What the names of our variables begin with.
const PREFIX: &str = "CALLSCOPE__";

/// What names begin with that are ours, or look as if they were meant to be.
const NEAR_PREFIX: &str = "CALLSCOPE_";

const NO_SOURCE_NAME: &str =
    "is no name for a source; use a-z, 0-9, _ and -, at most 64 characters";

/// The layers as far as they are read.
pub(super) struct Layers {
    pub(super) defaults: Table,
    pub(super) file: Table,
    pub(super) environment: Table,
    /// Every value in force so far.
    pub(super) settings: BTreeMap<String, Setting>,
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    /// The defaults alone.
    pub(super) fn new() -> Self {
        let defaults = FileFormat::Toml
            .parse(None, DEFAULTS)
            .expect("the compiled-in defaults are valid TOML, as a test shows");
        let settings = leaves(&defaults, "")
            .into_iter()
            .map(|(key, value)| (key, Setting { value, origin: Origin::Default }))
            .collect();
        let (file, environment) = (Table::new(), Table::new());
        Self { defaults, file, environment, settings, problems: Vec::new() }
    }

    /// Adds the settings of a file.
    ///
    /// # Errors
    ///
    /// If it is no TOML. What else is wrong becomes a problem.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table = FileFormat::Toml.parse(None, text).map_err(|error| {
            let source = anyhow::anyhow!(without_excerpt(&error.to_string()));
            ConfigError::Malformed { path: path.to_owned(), source }
        })?;
        let origin = Origin::File(path.to_owned());
        for (key, value) in self.known_leaves(&table, "", &origin) {
            if self.accept(&key, &value, &origin) {
                insert(&mut self.file, &key, value);
            }
        }
        Ok(())
    }

    /// Adds the variables that are ours.
    pub(super) fn add_environment(&mut self, environment: impl Iterator<Item = (String, String)>) {
        let mut variables: Vec<_> =
            environment.filter(|(name, _)| starts_with(name, NEAR_PREFIX)).collect();
        variables.sort();
        for (name, text) in variables {
            if starts_with(&name, PREFIX) {
                self.add_variable(name, &text);
            } else if name.get(NEAR_PREFIX.len()..).is_some_and(|rest| rest.contains("__")) {
                let key = key_of(&name, NEAR_PREFIX);
                self.unknown(key, &Origin::Environment(name));
            }
        }
    }

    fn add_variable(&mut self, name: String, text: &str) {
        let key = key_of(&name, PREFIX);
        let origin = Origin::Environment(name);
        let Some(known) = self.known(&key).cloned() else { return self.unknown(key, &origin) };
        if let ValueKind::Table(_) = known {
            let message = "is a section; add two underscores and a setting to the variable's name";
            return self.problem(key, None, &origin, message);
        }
        let name = source_of(&key).filter(|name| !is_source_name(name)).map(str::to_owned);
        if let Some(name) = name {
            let message = format!("{name:?} {NO_SOURCE_NAME}");
            return self.problem(key, None, &origin, &message);
        }
        let value = of_text(&known, text);
        // Whether a text may be empty, only its type knows.
        if text.is_empty() && value.as_ref().is_none_or(|value| self.refusal(&key, value).is_some())
        {
            return;
        }
        match value {
            None => {
                let shown = Some(to_toml(&ValueKind::String(text.to_owned())));
                self.problem(key, shown, &origin, &format!("must be {}", name_of(&known)));
            }
            Some(value) if self.accept(&key, &value, &origin) => {
                insert(&mut self.environment, &key, value);
            }
            Some(_) => {}
        }
    }

    /// The settings in a table of a file that exist and have the right kind; the others become problems.
    fn known_leaves(
        &mut self,
        table: &Table,
        section: &str,
        origin: &Origin,
    ) -> Vec<(String, ValueKind)> {
        let mut found = Vec::new();
        for (name, value) in table {
            let key = join(section, name);
            // A quoted name with a dot in it would look like one in a section.
            let known = self.known(&key).filter(|_| !name.contains('.')).cloned();
            match (known, &value.kind) {
                (None, _) => self.unknown(key, origin),
                (Some(ValueKind::Table(_)), ValueKind::Table(table)) => {
                    if section == "sources" {
                        if !is_source_name(name) {
                            self.problem(key, None, origin, &format!("{name:?} {NO_SOURCE_NAME}"));
                            continue;
                        }
                        // A source may do without any setting.
                        insert(&mut self.file, &key, ValueKind::Table(Table::new()));
                    }
                    found.extend(self.known_leaves(table, &key, origin));
                }
                (Some(ValueKind::Table(_)), _) => {
                    let message = format!("is a section; write [{key}] and its settings below it");
                    self.problem(key, None, origin, &message);
                }
                (Some(known), kind) if fits(&known, kind) => found.push((key, kind.clone())),
                (Some(known), _) => {
                    let message = format!("must be {}", name_of(&known));
                    self.problem(key, None, origin, &message);
                }
            }
        }
        found
    }

    /// Notes a value as the one in force, unless its setting does not take it.
    fn accept(&mut self, key: &str, value: &ValueKind, origin: &Origin) -> bool {
        if let Some(message) = self.refusal(key, value) {
            // Errors of serde quote what they found.
            let message = if is_secret(key) { "is not taken" } else { message.as_str() };
            self.problem(key.to_owned(), Some(to_toml(value)), origin, message);
            return false;
        }
        let setting = Setting { value: value.clone(), origin: origin.clone() };
        self.settings.insert(key.to_owned(), setting);
        true
    }

    /// Why a setting does not take a value, all others being as they are by default.
    fn refusal(&self, key: &str, value: &ValueKind) -> Option<String> {
        let mut alone = Table::new();
        insert(&mut alone, key, value.clone());
        build([self.defaults.clone(), alone]).err()
    }

    /// The default of a setting, or the section of this name. Every source has the settings of the default one.
    fn known(&self, key: &str) -> Option<&ValueKind> {
        let mut table = &self.defaults;
        let mut section = "";
        let mut names = key.split('.').peekable();
        while let Some(name) = names.next() {
            let value = &table.get(if section == "sources" { "default" } else { name })?.kind;
            if names.peek().is_none() {
                return Some(value);
            }
            let ValueKind::Table(inner) = value else { return None };
            (table, section) = (inner, name);
        }
        None
    }

    fn unknown(&mut self, key: String, origin: &Origin) {
        let spelled = |key: &str| match origin {
            Origin::Environment(_) => {
                format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
            }
            Origin::Default | Origin::File(_) => key.to_owned(),
        };
        let message = match self.nearest(&key) {
            Some(nearest) => format!("no such setting; did you mean {}?", spelled(&nearest)),
            None => "no such setting; `callscope config` lists all".to_owned(),
        };
        self.problem(key, None, origin, &message);
    }

    /// The known name that differs least, if it does not differ much.
    fn nearest(&self, key: &str) -> Option<String> {
        let source = source_of(key);
        let mut known: Vec<String> = self.settings.keys().cloned().collect();
        known.extend(self.defaults.keys().cloned());
        known
            .into_iter()
            .map(|name| match (name.strip_prefix("sources.default."), source) {
                (Some(setting), Some(source)) => format!("sources.{source}.{setting}"),
                _ => name,
            })
            .filter_map(|name| {
                let last = name.rsplit('.').next().unwrap_or_default();
                let distance = if last == key { 1 } else { distance(&name, key) };
                (distance <= 1 + key.len() / 5).then_some((distance, name))
            })
            .min()
            .map(|(_, name)| name)
    }

    fn problem(&mut self, key: String, value: Option<String>, origin: &Origin, message: &str) {
        let value = value.filter(|_| is_printable(&key));
        self.problems.push(Problem {
            key,
            value,
            origin: origin.clone(),
            message: message.to_owned(),
        });
    }
}

/// A message of the TOML reader without the line it quotes, which may hold a secret.
fn without_excerpt(message: &str) -> String {
    let is_excerpt = |line: &&str| {
        line.trim_start()
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start()
            .starts_with('|')
    };
    message.lines().filter(|line| !is_excerpt(line)).collect::<Vec<_>>().join(": ")
}

/// `CALLSCOPE__HTTP__LISTEN` → `http.listen`
fn key_of(name: &str, prefix: &str) -> String {
    name.get(prefix.len()..).unwrap_or_default().to_lowercase().replace("__", ".")
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// The name of the source that a setting belongs to.
fn source_of(key: &str) -> Option<&str> {
    key.strip_prefix("sources.")?.split('.').next()
}

fn is_source_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
}

/// Every setting in a table with its full name.
fn leaves(table: &Table, section: &str) -> Vec<(String, ValueKind)> {
    let mut found = Vec::new();
    for (name, value) in table {
        let key = join(section, name);
        if let ValueKind::Table(table) = &value.kind {
            found.extend(leaves(table, &key));
        } else {
            found.push((key, value.kind.clone()));
        }
    }
    found
}

/// Puts a value where its full name says, making sections on the way.
fn insert(table: &mut Table, key: &str, value: ValueKind) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), Value::new(None, value));
        }
        Some((section, rest)) => {
            let empty = || Value::new(None, ValueKind::Table(Table::new()));
            let inner = table.entry(section.to_owned()).or_insert_with(empty);
            if let ValueKind::Table(inner) = &mut inner.kind {
                insert(inner, rest, value);
            }
        }
    }
}

/// Whether a value of a file has the kind of its default. A list may be written as one text with commas.
fn fits(known: &ValueKind, value: &ValueKind) -> bool {
    match (known, value) {
        (ValueKind::Boolean(_), ValueKind::Boolean(_))
        | (ValueKind::I64(_), ValueKind::I64(_))
        | (ValueKind::String(_) | ValueKind::Array(_), ValueKind::String(_)) => true,
        (ValueKind::Array(_), ValueKind::Array(elements)) => {
            elements.iter().all(|element| matches!(element.kind, ValueKind::String(_)))
        }
        _ => false,
    }
}

/// A variable's text as the kind of its setting's default.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the defaults have no other kinds, as a test shows"
)]
fn of_text(known: &ValueKind, text: &str) -> Option<ValueKind> {
    Some(match known {
        ValueKind::Boolean(_) => ValueKind::Boolean(match text.trim().to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => true,
            "false" | "no" | "off" | "0" => false,
            _ => return None,
        }),
        ValueKind::I64(_) => ValueKind::I64(text.trim().replace('_', "").parse().ok()?),
        ValueKind::Array(_) if text.is_empty() => return None,
        ValueKind::Array(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            ValueKind::Array(parts.map(|part| Value::new(None, part)).collect())
        }
        _ => ValueKind::String(text.to_owned()),
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the defaults have no other kinds, as a test shows"
)]
fn name_of(known: &ValueKind) -> &'static str {
    match known {
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) => "a whole number",
        ValueKind::Array(_) => "a list of texts",
        _ => "a text in quotation marks",
    }
}

/// A value as TOML.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the defaults have no other kinds, as a test shows"
)]
pub(super) fn to_toml(value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => quoted(text),
        ValueKind::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(|element| to_toml(&element.kind)).collect();
            format!("[{}]", elements.join(", "))
        }
        other => other.to_string(),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// How many characters have to be put in, left out or replaced to make one text of the other (Levenshtein).
pub(crate) fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (made, left) in left.chars().enumerate() {
        let mut diagonal = made;
        let mut before = made + 1;
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (cell, right) in row.iter_mut().skip(1).zip(&right) {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = *cell;
            before = replaced.min(*cell + 1).min(before + 1);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_of_the_kinds_that_layers_know() {
        for (key, setting) in Layers::new().settings {
            let known = matches!(
                setting.value,
                ValueKind::Boolean(_)
                    | ValueKind::I64(_)
                    | ValueKind::String(_)
                    | ValueKind::Array(_)
            );
            assert!(known, "{key}");
            assert!(!key.contains("__") && key == key.to_lowercase(), "{key} has no variable");
        }
    }

    #[test]
    fn distances_count_single_changes() {
        for (left, right, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("listen", "listen", 0),
            ("listne", "listen", 2),
            ("lsten", "listen", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn quoted_texts_are_toml() {
        for text in ["", "plain", "a \"quoted\" one", "C:\\dir", "tab\tline\nend\u{1}", "é 漢"] {
            let table = FileFormat::Toml.parse(None, &format!("x = {}", quoted(text))).unwrap();
            assert_eq!(table["x"].clone().into_string().unwrap(), text);
        }
    }
}
