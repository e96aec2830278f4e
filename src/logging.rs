//! Logging: one event a line on standard error.
//!
//! A message is a constant lower-case phrase; values are fields. The names of fields are a closed list: `address`, `attempt`,
//! `bytes`, `clock`, `count`, `documents`, `elapsed_ms`, `error`, `file`, `folder`, `input`, `node`, `offset`, `outcome`,
//! `path`, `position`, `reason`, `records`, `sequence`, `source`, `status`, `version`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Sends log events to standard error from now on.
///
/// # Errors
///
/// If `level` is no filter.
pub fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.level)
        .map_err(|error| anyhow::anyhow!("log.level {:?} is no filter: {error}", config.level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
