//! `config`: every setting with its meaning, its value and where that came from.

use super::print;
use crate::cli::{ExitCode, Failure};
use crate::config::Loaded;

pub(super) fn run(loaded: &Loaded) -> Result<ExitCode, Failure> {
    print(loaded.describe().trim_end())?;
    Ok(ExitCode::Ok)
}
