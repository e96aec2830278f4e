//! `setup`: what Elasticsearch or OpenSearch needs before the first document.

use super::{plan_setup, print, setup_failure};
use crate::cli::{ExitCode, Failure};
use crate::config::{Config, SinkKind};
use crate::sink::elasticsearch::Step;

pub(super) async fn run(config: &Config, is_dry: bool) -> Result<ExitCode, Failure> {
    if config.sink.kind != SinkKind::Elasticsearch {
        print("sink.kind is not \"elasticsearch\": what it is needs no setup")?;
        return Ok(ExitCode::Ok);
    }
    let (sink, plan) = plan_setup(config).await?;
    for line in plan.steps.iter().flat_map(|step| lines(step, is_dry)) {
        print(&line)?;
    }
    for told in plan.warnings.iter().chain(&plan.faults) {
        print(&format!("warning: {told}"))?;
    }
    if is_dry {
        return Ok(ExitCode::Ok);
    }
    // Once: whoever set this going stands by, and can do it again.
    sink.apply(&plan).await.map_err(setup_failure)?;
    print("done")?;
    Ok(ExitCode::Ok)
}

/// What becomes of `step`; `is_dry`: with everything that differs.
fn lines(step: &Step, is_dry: bool) -> Vec<String> {
    let verb = match &step.before {
        None => "create",
        Some(_) if step.is_done() => "unchanged",
        Some(_) => "change",
    };
    let mut lines = vec![format!("{verb} {}", step.what)];
    if !is_dry || step.is_done() {
        return lines;
    }
    lines.push(format!("  PUT {}", step.path));
    if step.before.is_none() {
        lines.extend(format!("{:#}", step.body).lines().map(|line| format!("    {line}")));
    } else {
        lines.extend(step.changes().iter().map(|change| format!("    {change}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_dry_run_shows_what_differs_and_nothing_else() {
        let step = |before: Option<Value>| Step {
            what: "index template t".to_owned(),
            path: "/_index_template/t".to_owned(),
            body: json!({ "settings": { "index.codec": "best", "index.shards": 1 } }),
            before,
        };
        let same =
            step(Some(json!({ "settings": { "index": { "codec": "best", "shards": "1" } } })));
        assert_eq!(lines(&same, true), ["unchanged index template t"]);
        let other =
            step(Some(json!({ "settings": { "index": { "codec": "fast", "old": true } } })));
        let expected = [
            "change index template t",
            "  PUT /_index_template/t",
            "    changed settings.index.codec: fast becomes best",
            "    removed settings.index.old: true",
            "    added settings.index.shards: 1",
        ];
        assert_eq!(lines(&other, true), expected);
        assert_eq!(lines(&other, false), ["change index template t"]);
        let created = lines(&step(None), true);
        assert_eq!(created[0], "create index template t");
        assert!(
            created.iter().any(|line| line.contains("\"index.codec\": \"best\"")),
            "{created:?}"
        );
    }
}
