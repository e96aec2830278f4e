//! `setup`: what Elasticsearch or OpenSearch needs before the first document, and the dashboards in Kibana or OpenSearch Dashboards.

use super::{plan_setup, print, setup_failure};
use crate::cli::{ExitCode, Failure};
use crate::config::{self, Config, SinkKind};
use crate::kibana::Kibana;
use crate::sink::elasticsearch::Step;

/// Puts what the command line says in the place of the settings.
pub(super) fn name_kibana(
    config: &mut Config,
    url: Option<String>,
    space: Option<String>,
) -> Result<(), Failure> {
    if let Some(url) = url {
        config::address("kibana", &url).map_err(|problem| {
            Failure::new(ExitCode::Usage, anyhow::anyhow!("--kibana {problem}"))
        })?;
        config.kibana.url = url;
    }
    if let Some(space) = space {
        if config.kibana.url.is_empty() {
            let error = anyhow::anyhow!("--space is of a Kibana, and none is named; see --kibana");
            return Err(Failure::new(ExitCode::Usage, error));
        }
        config.kibana.space = space;
    }
    Ok(())
}

pub(super) async fn run(config: &Config, is_dry: bool) -> Result<ExitCode, Failure> {
    let has_dashboards = !config.kibana.url.is_empty();
    if config.sink.kind == SinkKind::Elasticsearch {
        set_up_sink(config, is_dry).await?;
    } else {
        print("sink.kind is not \"elasticsearch\": what it is needs no setup")?;
        if has_dashboards {
            print(
                "warning: nothing is written that these dashboards could show; set sink.kind = \"elasticsearch\", and serve with it",
            )?;
        }
    }
    if has_dashboards {
        bring_dashboards(config, is_dry).await?;
    }
    Ok(ExitCode::Ok)
}

async fn set_up_sink(config: &Config, is_dry: bool) -> Result<(), Failure> {
    let (sink, plan) = plan_setup(config).await?;
    for line in plan.steps.iter().flat_map(|step| lines(step, is_dry)) {
        print(&line)?;
    }
    for told in plan.warnings.iter().chain(&plan.faults) {
        print(&format!("warning: {told}"))?;
    }
    if is_dry {
        return Ok(());
    }
    // Once: whoever set this going stands by, and can do it again.
    sink.apply(&plan).await.map_err(setup_failure)?;
    print("done")
}

async fn bring_dashboards(config: &Config, is_dry: bool) -> Result<(), Failure> {
    let kibana = Kibana::new(&config.kibana).map_err(Failure::with(ExitCode::Misconfigured))?;
    let plan = kibana.plan(&config.elasticsearch.index).await.map_err(setup_failure)?;
    print(&format!("dashboards for {}", plan.who))?;
    for told in &plan.warnings {
        print(&format!("warning: {told}"))?;
    }
    let warnings =
        if is_dry { Vec::new() } else { kibana.bring(&plan).await.map_err(setup_failure)? };
    // The file is taken as a whole or not at all: nothing is said of an object before that is known.
    let [new, old] = if is_dry { ["create", "replace"] } else { ["created", "replaced"] };
    for object in &plan.objects {
        let verb = if object.is_there { old } else { new };
        print(&format!("{verb} {} {} ({})", object.kind, object.id, object.title))?;
    }
    for told in warnings {
        print(&format!("warning: {told}"))?;
    }
    if is_dry {
        return print(&format!("  POST {} with a file of {} bytes", plan.path, plan.file.len()));
    }
    print("done")
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
