//! Settings: the layers put together, checked, and each value with where it came from.
//!
//! 1. the compiled-in defaults, which name every setting;
//! 2. one file (TOML): the one given, else `callscope.toml` in the working directory where it exists;
//! 3. the environment: `CALLSCOPE__HTTP__LISTEN` sets `http.listen`.
//!
//! Whatever is wrong is reported together: unknown names, wrong kinds, values that a setting does not take, broken rules.
//! Each with the place where it stood, none with a secret in it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ::config::{ConfigBuilder, Map, Source, Value, ValueKind, builder::DefaultState};

use super::layers::{self, Layers};
use super::{Config, rules};

/// The file that is read where none is named.
pub const FILE_NAME: &str = "callscope.toml";

/// Settings whose values are never printed. The types say the same (`Secret`); a test compares the two.
const SECRETS: &[&str] = &[
    "http.read_secrets",
    "sources.default.secrets",
    "sources.default.rest.secret",
    "sources.default.browsers.keys",
    "kafka.password",
    "kafka.properties",
    "privacy.user_hash_key",
    "elasticsearch.password",
    "elasticsearch.api_key",
    "kibana.password",
    "kibana.api_key",
];

pub(super) type Table = Map<String, Value>;

/// The settings in force, and where each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// By name, as in `http.listen`.
    pub(super) settings: BTreeMap<String, Setting>,
}

/// One value and where it came from.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) value: ValueKind,
    pub(super) origin: Origin,
}

impl fmt::Debug for Setting {
    // The value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setting({})", self.origin)
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Compiled in.
    Default,
    /// A settings file.
    File(PathBuf),
    /// A variable of this name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read. One that was named has to exist.
    #[error("cannot read the settings file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("the settings file {} is not valid TOML", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: anyhow::Error,
    },
    /// Settings that do not exist, have values they do not take, or do not fit together. All of them.
    #[error("{}", list(problems))]
    Wrong {
        /// In the order of their names; never empty.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The setting, as in `http.listen`.
    pub key: String,
    /// Its value in TOML, unless it is secret or does not matter.
    pub value: Option<String>,
    /// Where it stood.
    pub origin: Origin,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, " ({}): {}", self.origin, self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    let noun = if problems.len() == 1 { "setting is" } else { "settings are" };
    format!("{} {noun} wrong:{lines}", problems.len())
}

impl Config {
    /// Puts the layers together. Of `environment` only our own variables count.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]: a file that cannot be read or is no TOML, or all that is wrong with the settings.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let path = file.map(Path::to_owned).or_else(|| file_in(Path::new("")));
        let mut layers = Layers::new();
        if let Some(path) = &path {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            layers.add_file(path, &text)?;
        }
        layers.add_environment(environment);
        finish(layers, path)
    }
}

/// The settings file of a directory, where there is one.
fn file_in(directory: &Path) -> Option<PathBuf> {
    let path = directory.join(FILE_NAME);
    path.exists().then_some(path)
}

/// Builds the settings and checks their rules.
fn finish(layers: Layers, file: Option<PathBuf>) -> Result<Loaded, ConfigError> {
    let Layers { defaults, file: of_file, environment, settings, mut problems } = layers;
    let sources = [defaults, of_file, environment];
    let built = if problems.is_empty() { build(sources) } else { Err(String::new()) };
    let config = match built {
        Ok(config) => config,
        Err(message) => {
            if problems.is_empty() {
                let (key, origin) = ("settings".to_owned(), Origin::Default);
                problems.push(Problem { key, value: None, origin, message });
            }
            problems.sort();
            return Err(ConfigError::Wrong { problems });
        }
    };
    for (key, message) in rules::violations(&config) {
        let setting = settings.get(&key);
        problems.push(Problem {
            value: setting
                .filter(|_| is_printable(&key))
                .map(|setting| layers::to_toml(&setting.value)),
            origin: setting.map_or(Origin::Default, |setting| setting.origin.clone()),
            key,
            message,
        });
    }
    if problems.is_empty() {
        Ok(Loaded { config, file, settings })
    } else {
        problems.sort();
        Err(ConfigError::Wrong { problems })
    }
}

/// The settings that these layers make, later ones over earlier ones; or why a value cannot be taken.
///
/// Through JSON, because its errors say what would be right (`expected "text" or "json"`), and it never takes one kind of
/// value for another.
pub(super) fn build(layers: impl IntoIterator<Item = Table>) -> Result<Config, String> {
    let builder =
        layers.into_iter().fold(ConfigBuilder::<DefaultState>::default(), |builder, table| {
            builder.add_source(Layer(table))
        });
    let json: serde_json::Value = builder
        .build()
        .and_then(::config::Config::try_deserialize)
        .map_err(|error| error.to_string())?;
    let mut json = json;
    fill_sources(&mut json);
    let mut config: Config = serde_json::from_value(json).map_err(|error| error.to_string())?;
    for source in config.sources.values_mut() {
        source.cluster_id.take_if(|id| id.is_empty());
        source.master_node_id.take_if(|id| id.is_empty());
    }
    Ok(config)
}

/// Sections of a source that it may leave out, and settings in them that are nobody else's, as they are where nothing is set.
const PARTS: [(&str, &[(&str, &str)]); 2] =
    [("rest", &[("url", "\"\""), ("secret", "\"\"")]), ("browsers", &[("keys", "[]")])];

/// Gives each source what it leaves out of these sections.
fn fill_sources(json: &mut serde_json::Value) {
    let Some(sources) = json.get_mut("sources").and_then(serde_json::Value::as_object_mut) else {
        return;
    };
    for (part, alone) in PARTS {
        let common = sources.get("default").and_then(|source| source.get(part));
        let Some(common) = common.and_then(serde_json::Value::as_object).cloned() else { continue };
        for (_, source) in sources.iter_mut().filter(|(name, _)| *name != "default") {
            let Some(source) = source.as_object_mut() else { continue };
            let own = source.entry(part).or_insert_with(|| serde_json::json!({}));
            let Some(own) = own.as_object_mut() else { continue };
            for (setting, value) in &common {
                let nothing = alone.iter().find(|(name, _)| name == setting);
                let nothing = nothing.and_then(|(_, json)| serde_json::from_str(json).ok());
                own.entry(setting).or_insert(nothing.unwrap_or_else(|| value.clone()));
            }
        }
    }
}

/// A layer whose values are known already.
#[derive(Debug, Clone)]
struct Layer(Table);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Table, ::config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// Whether an error may quote a setting's value. A wrong address may hold a password.
pub(super) fn is_printable(key: &str) -> bool {
    !is_secret(key)
        && !["elasticsearch.urls", "kibana.url"].contains(&key)
        && !key.ends_with(".rest.url")
}

/// Whether a setting's value must not be printed. Every source's settings are like those of the default one.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key
        .strip_prefix("sources.")
        .and_then(|rest| rest.split_once('.'))
        .map_or_else(|| key.to_owned(), |(_, setting)| format!("sources.default.{setting}"));
    SECRETS.contains(&key.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_usual_name_is_found_where_it_exists() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(file_in(directory.path()), None);
        let path = directory.path().join("callscope.toml");
        std::fs::write(&path, "").unwrap();
        assert_eq!(file_in(directory.path()), Some(path));
    }

    #[test]
    fn what_is_never_printed_is_what_the_types_call_secret() {
        let layers = Layers::new();
        for (key, setting) in &layers.settings {
            let marker = "seen 0123456789";
            let mut layers = Layers::new();
            let name = format!("CALLSCOPE__{}", key.to_uppercase().replace('.', "__"));
            layers.add_environment([(name, marker.to_owned())].into_iter());
            let taken = layers.problems.is_empty();
            let printed = build([layers.defaults, layers.environment])
                .map(|config| format!("{config:?}").contains(marker));
            assert_eq!(taken && printed == Ok(false), is_secret(key), "{key} {setting:?}");
        }
    }

    #[test]
    fn every_secret_is_a_setting() {
        let layers = Layers::new();
        for key in SECRETS {
            assert!(layers.settings.contains_key(*key), "{key}");
        }
        assert!(is_secret("sources.other.secrets"));
        assert!(!is_secret("sources.other.cluster_id"));
    }
}
