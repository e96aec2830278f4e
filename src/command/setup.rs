//! `setup`: what Elasticsearch or OpenSearch needs before the first document.

use tokio_util::sync::CancellationToken;

use super::{print, sink_failure};
use crate::cli::{ExitCode, Failure};
use crate::config::Config;
use crate::sink::elasticsearch::ElasticsearchSink;
use crate::sink::{Sink, StatusSender};

pub(super) async fn run(config: &Config, is_dry: bool) -> Result<ExitCode, Failure> {
    let sink = ElasticsearchSink::new(
        &config.elasticsearch,
        CancellationToken::new(),
        StatusSender::default(),
    )
    .map_err(Failure::with(ExitCode::Misconfigured))?;
    let steps = sink.plan().await.map_err(Failure::with(ExitCode::Unreachable))?;
    for step in &steps {
        let verb = if step.before.is_some() { "replace" } else { "create" };
        print(&format!("{verb} {}", step.what))?;
        if is_dry {
            print(&format!("  PUT {}", step.path))?;
            print(&indented(&step.body)?)?;
            if let Some(before) = &step.before {
                print("  instead of")?;
                print(&indented(before)?)?;
            }
        }
    }
    if is_dry {
        return Ok(ExitCode::Ok);
    }
    sink.setup().await.map_err(sink_failure)?;
    print("done")?;
    Ok(ExitCode::Ok)
}

fn indented(json: &serde_json::Value) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(json).map_err(Failure::with(ExitCode::Internal))?;
    Ok(text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"))
}
