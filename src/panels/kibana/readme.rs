//! What the dashboards show, for those who have no Kibana at hand.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::opensearch;
use crate::panels::model::{Condition, Dashboard, Form, Panel, Split};

const HEAD: &str = "# Dashboards for Kibana 8.17 to 9 and OpenSearch Dashboards 2 and 3

Made from `src/panels/*.yaml` by `make dashboards`. Bring them with

    callscope setup --kibana http://localhost:5601

which finds out which of the two answers, and which file it gets: `callscope.ndjson`, or `opensearch-dashboards.ndjson`. The data view
reads the alias that `elasticsearch.index` names. What callscope brought before is replaced, so duplicate a dashboard to change it; Kibana
lets nobody change the original. Whatever an older version brought and this one does not stays until somebody deletes it. By hand:

    curl -H 'kbn-xsrf: true' -F file=@kibana/callscope.ndjson 'http://localhost:5601/api/saved_objects/_import?overwrite=true'
    curl -H 'osd-xsrf: true' -H 'securitytenant: global' -F file=@kibana/opensearch-dashboards.ndjson 'http://localhost:5601/api/saved_objects/_import?overwrite=true'

Look at the answer: it is 200 even if `success` is `false`. Both files then read the alias `openvidu`. In Kibana, other spaces get other
identifiers for the same objects if one has them already, and the links between dashboards lead nowhere there: bring them to one space.

OpenSearch Dashboards shows the same panels, as far as it can. Values that are asked of some documents alone, rates, formulas and running
sums it cannot draw with its own charts; those are drawn by Vega, as the tables say: tables of them have 20 rows and cannot be
sorted, a click on them narrows nothing, and their days begin at midnight UTC. Not there at all: marks of deployments and node events in charts, and a way to one session
by a click on a part of a chart; in tables and lists the name of a session leads to it. A map shows one value, so there is one for each.
Of several documents its tables show what the newest says, whether it has the field or not.

Logs are nothing that callscope has. Where OpenVidu's paid edition brings its own into the same Elasticsearch, the dashboard of one
session leads to those of its time in Discover of Kibana; in OpenSearch Dashboards open Discover yourself, the time goes along. callscope's own page leads
wherever `http.links` says.
";

const HOSTS: &str = "
# Dashboards of the hosts, for Kibana alone

`hosts.ndjson` shows what Metricbeat (`metricbeat-*`) and Micrometer (`server-metrics-*`) of OpenVidu Pro 2 tell of the hosts and the
server, beside what callscope counts. callscope writes nothing of the hosts, so `setup` does not bring it, and it is checked but was never
run against such data. Panels that divide CPU or memory by streams stay empty until somebody joins these to `platformStats`. Import it
after `callscope.ndjson`, whose data view and tag it uses:

    curl -H 'kbn-xsrf: true' -F file=@kibana/hosts.ndjson 'http://localhost:5601/api/saved_objects/_import?overwrite=true'
";

/// Every dashboard and panel with its question and the fields that it reads, as Markdown.
pub(super) fn readme(dashboards: &[Dashboard], hosts: &[Dashboard]) -> String {
    let mut text = HEAD.to_owned();
    let elsewhere = |panel: &Panel| if opensearch::is_drawn(panel) { "Vega" } else { "the same" };
    tables(dashboards, elsewhere, &mut text);
    if !hosts.is_empty() {
        text.push_str(HOSTS);
        tables(hosts, |_| "–", &mut text);
    }
    text
}

/// `elsewhere`: how OpenSearch Dashboards shows a panel.
fn tables(dashboards: &[Dashboard], elsewhere: impl Fn(&Panel) -> &'static str, text: &mut String) {
    for dashboard in dashboards {
        let _written = write!(
            text,
            "\n## {}\n\n{}\n\n| Panel | Question | Form | In OpenSearch Dashboards | Fields |\n|---|---|---|---|---|\n",
            cell(&dashboard.title),
            dashboard.question
        );
        for panel in dashboard.panels() {
            let fields: Vec<String> =
                fields(panel).iter().map(|field| format!("`{field}`")).collect();
            let _written = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                cell(&panel.title),
                cell(&panel.question),
                form(panel.form),
                elsewhere(panel),
                fields.join(", ")
            );
        }
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn form(form: Form) -> &'static str {
    match form {
        Form::Numbers => "numbers",
        Form::Table => "table",
        Form::Line => "lines",
        Form::Stairs => "lines in steps",
        Form::Area => "areas",
        Form::Bar => "bars",
        Form::FullBar => "bars of 100 %",
        Form::Donut => "donut",
        Form::Treemap => "treemap",
        Form::Heatmap => "heatmap",
        Form::Map => "map",
        Form::List => "list",
    }
}

fn fields(panel: &Panel) -> BTreeSet<&str> {
    let mut fields = BTreeSet::from([panel.over.kind()]);
    let mut conditions: Vec<&Condition> = panel.when.iter().collect();
    for metric in &panel.show {
        conditions.extend(&metric.when);
        fields.extend(metric.value.field().map(|field| field.value.as_str()));
    }
    for split in &panel.by {
        fields.extend(split.field().map(|field| field.value.as_str()));
        if let Split::Cases(by) = split {
            conditions.extend(by.cases.iter().flat_map(|case| &case.when));
        }
    }
    fields.extend(conditions.iter().map(|condition| condition.field().value.as_str()));
    fields.extend(panel.columns.iter().map(|column| column.value.as_str()));
    fields
}
