//! Loading settings from their layers, and saying what is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{File, FileFormat, Source, Value, ValueKind};

use super::{Config, DEFAULTS};

/// Environment variables that are settings begin with this.
const PREFIX: &str = "CALLSCOPE__";

/// Settings, and where each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings in force.
    pub config: Config,
    /// Key (`http.listen`) to its value as text and its origin.
    pub values: BTreeMap<String, (String, Origin)>,
}

/// Which layer a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Compiled in.
    Default,
    /// A settings file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
        }
    }
}

/// Why there are no settings. Each line names a key, where it stood, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not TOML.
    #[error("cannot read settings from {}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Keys or values are wrong; one line for each.
    #[error("settings are wrong:\n  {}", .0.join("\n  "))]
    Wrong(Vec<String>),
}

impl Config {
    /// Loads the layers: the compiled-in defaults, `file` if there is one, and those of `environment` that are settings.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or anything in any layer is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let defaults =
            read(&File::from_str(DEFAULTS, FileFormat::Toml), Path::new("config.default.toml"))?;
        let mut layers = vec![(Origin::Default, defaults)];
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
                path: path.into(),
                reason: error.to_string(),
            })?;
            layers.push((
                Origin::File(path.into()),
                read(&File::from_str(&text, FileFormat::Toml), path)?,
            ));
        }
        for (variable, value) in environment {
            let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
            let key = rest.to_lowercase().replace("__", ".");
            let value = Value::new(Some(&variable), ValueKind::String(value));
            layers.push((Origin::Environment(variable), BTreeMap::from([(key, value)])));
        }
        merge(layers)
    }
}

/// The keys of one layer, flat.
fn read<S: Source>(source: &S, path: &Path) -> Result<BTreeMap<String, Value>, ConfigError> {
    let table = source
        .collect()
        .map_err(|error| ConfigError::File { path: path.into(), reason: error.to_string() })?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        flatten(key, value, &mut values);
    }
    Ok(values)
}

fn flatten(key: String, value: Value, values: &mut BTreeMap<String, Value>) {
    match value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                flatten(format!("{key}.{name}"), value, values);
            }
        }
        _ => {
            values.insert(key, value);
        }
    }
}

fn merge(layers: Vec<(Origin, BTreeMap<String, Value>)>) -> Result<Loaded, ConfigError> {
    let mut known: Vec<String> = Vec::new();
    let mut wrong = Vec::new();
    let mut values: BTreeMap<String, (Value, Origin)> = BTreeMap::new();
    for (origin, layer) in layers {
        for (key, value) in layer {
            if origin == Origin::Default {
                known.push(key.clone());
            } else if !known.contains(&pattern(&key)) {
                wrong.push(unknown(&key, &origin, &known));
                continue;
            }
            // An empty variable means the same as none, except for texts and lists.
            let is_blank = matches!(&value.kind, ValueKind::String(text) if text.is_empty());
            let before = values.get(&key).map(|(value, _)| &value.kind);
            if is_blank
                && matches!(origin, Origin::Environment(_))
                && !matches!(before, None | Some(ValueKind::String(_) | ValueKind::Array(_)))
            {
                continue;
            }
            values.insert(key, (value, origin.clone()));
        }
    }
    if !wrong.is_empty() {
        return Err(ConfigError::Wrong(wrong));
    }
    let mut builder = config::Config::builder();
    for (key, (value, origin)) in &values {
        builder = builder
            .set_override(key, value.clone())
            .map_err(|error| ConfigError::Wrong(vec![format!("{key} (from {origin}): {error}")]))?;
    }
    let config: Config =
        builder.build().and_then(config::Config::try_deserialize).map_err(|error| {
            let key = culprit(&error.to_string(), &values);
            ConfigError::Wrong(vec![format!("{key}{error}")])
        })?;
    let wrong = super::rules::violations(&config);
    if !wrong.is_empty() {
        return Err(ConfigError::Wrong(wrong));
    }
    let values =
        values.into_iter().map(|(key, (value, origin))| (key, (shown(&value), origin))).collect();
    Ok(Loaded { config, values })
}

/// A key of any source stands for the same key of the default one.
fn pattern(key: &str) -> String {
    match key.strip_prefix("sources.").and_then(|rest| rest.split_once('.')) {
        Some((_, field)) => format!("sources.default.{field}"),
        None => key.to_owned(),
    }
}

fn unknown(key: &str, origin: &Origin, known: &[String]) -> String {
    let nearest = known.iter().min_by_key(|name| distance(name, key));
    let hint = nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"));
    format!("{key} (from {origin}) is no setting{hint}")
}

/// The error of a wrong value names its key at the end; its origin helps more.
fn culprit(error: &str, values: &BTreeMap<String, (Value, Origin)>) -> String {
    let found = values.iter().find(|(key, _)| error.contains(&format!("`{key}`")));
    found.map_or_else(String::new, |(key, (_, origin))| format!("{key} (from {origin}): "))
}

fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::Array(values) => {
            let values: Vec<String> = values.iter().map(shown).collect();
            format!("[{}]", values.join(", "))
        }
        ValueKind::String(text) => format!("{text:?}"),
        _ => value.to_string(),
    }
}

/// How many letters have to be changed to make one of the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut above = index;
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
        for (at, other) in right.iter().enumerate() {
            let (Some(&here), Some(&before)) = (row.get(at + 1), row.get(at)) else { continue };
            let best = (here + 1).min(before + 1).min(above + usize::from(letter != *other));
            above = here;
            if let Some(slot) = row.get_mut(at + 1) {
                *slot = best;
            }
        }
    }
    row.last().copied().unwrap_or(0)
}
