//! `check --dashboards`: whether files of saved objects would work in Kibana or OpenSearch Dashboards.

use std::path::PathBuf;

use anyhow::Context;

use super::print;
use crate::cli::{ExitCode, Failure};
use crate::panels::kibana::check::check_beside;

/// Prints what is wrong with each file; one may lead to objects of another. Ends with [`ExitCode::Misconfigured`] if anything is.
pub(super) fn run(files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))
            .map_err(Failure::with(ExitCode::Misconfigured))
    };
    let texts = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut code = ExitCode::Ok;
    for (path, text) in files.iter().zip(&texts) {
        let problems = check_beside(text, &all);
        if problems.is_empty() {
            print(&format!("{}: {} objects, ok", path.display(), text.lines().count()))?;
        } else {
            code = ExitCode::Misconfigured;
        }
        for problem in problems {
            print(&format!("{}:{}: {}", path.display(), problem.line, problem.told))?;
        }
    }
    Ok(code)
}
