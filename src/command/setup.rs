//! `setup`: what Elasticsearch or OpenSearch needs before the first document.

use tokio_util::sync::CancellationToken;

use super::print;
use crate::cli::{ExitCode, Failure};
use crate::config::Config;
use crate::sink::StatusSender;
use crate::sink::elasticsearch::{ElasticsearchSink, Step};

pub(super) async fn run(config: &Config, is_dry: bool) -> Result<ExitCode, Failure> {
    let sink = ElasticsearchSink::new(
        &config.elasticsearch,
        CancellationToken::new(),
        StatusSender::default(),
    )
    .map_err(Failure::with(ExitCode::Misconfigured))?;
    let plan = sink.plan().await.map_err(Failure::with(ExitCode::Unreachable))?;
    for step in &plan.steps {
        tell(step, is_dry)?;
    }
    for told in plan.warnings.iter().chain(&plan.faults) {
        print(&format!("warning: {told}"))?;
    }
    if is_dry {
        return Ok(ExitCode::Ok);
    }
    // Once: whoever set this going stands by, and can do it again.
    sink.apply(&plan).await.map_err(Failure::with(ExitCode::Unreachable))?;
    print("done")?;
    Ok(ExitCode::Ok)
}

fn tell(step: &Step, is_dry: bool) -> Result<(), Failure> {
    let verb = match &step.before {
        None => "create",
        Some(_) if step.is_done() => "unchanged",
        Some(_) => "change",
    };
    print(&format!("{verb} {}", step.what))?;
    if !is_dry || step.is_done() {
        return Ok(());
    }
    print(&format!("  PUT {}", step.path))?;
    if step.before.is_none() {
        return print(&indented(&step.body)?);
    }
    for change in step.changes() {
        print(&format!("    {change}"))?;
    }
    Ok(())
}

fn indented(json: &serde_json::Value) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(json).map_err(Failure::with(ExitCode::Internal))?;
    Ok(text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"))
}
