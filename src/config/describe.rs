//! Settings: all of them as text, for `callscope config`.
//!
//! The text is the defaults file itself, with its comments and order, and in each line the value in force and where it came
//! from. It is valid TOML and may be used as a settings file; secrets that are set stand there commented out, as `***`.

use super::DEFAULTS;
use super::layers::to_toml;
use super::load::{Loaded, Origin, is_secret};

impl Loaded {
    /// Every setting with its meaning, the value in force, where that came from, and the default where it differs.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for line in DEFAULTS.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                // Ahead of the section that follows the default source.
                if section.starts_with("sources.default") && !name.starts_with("sources.default") {
                    text.push_str(&self.further_sources());
                }
                section = name;
            }
            match line.split_once(" = ").filter(|_| !line.starts_with('#')) {
                Some((name, default)) => {
                    let key = if section.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{section}.{name}")
                    };
                    text.push_str(&self.line(&key, name, Some(default)));
                }
                None => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }

    /// Sections of the sources that the defaults do not name, with the settings they have.
    fn further_sources(&self) -> String {
        let mut text = String::new();
        for source in self.config.sources.keys().filter(|name| *name != "default") {
            text.push_str(&format!("[sources.{source}]\n"));
            let prefix = format!("sources.{source}.");
            for key in self.settings.keys() {
                if let Some(name) = key.strip_prefix(&prefix) {
                    text.push_str(&self.line(key, name, None));
                    text.push('\n');
                }
            }
            text.push('\n');
        }
        text
    }

    /// `listen = "0.0.0.0:80"  # callscope.toml; default "127.0.0.1:7300"`
    fn line(&self, key: &str, name: &str, default: Option<&str>) -> String {
        let Some(setting) = self.settings.get(key) else { return format!("# {name}") };
        let value = to_toml(&setting.value);
        if setting.origin == Origin::Default {
            return format!("{name} = {}  # default", default.unwrap_or(&value));
        }
        let default = default.map_or(String::new(), |default| format!("; default {default}"));
        if is_secret(key) && !matches!(value.as_str(), "\"\"" | "[]") {
            return format!("# {name} = \"***\"  # {}{default}", setting.origin);
        }
        format!("{name} = {value}  # {}{default}", setting.origin)
    }
}
