//! What the dashboards show, for those who have no Kibana at hand.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::panels::model::{Condition, Dashboard, Form, Panel, Split};

/// Every dashboard and panel with its question and the fields that it reads, as Markdown.
pub(super) fn readme(dashboards: &[Dashboard]) -> String {
    let mut text = "# Dashboards for Kibana 8.17 to 9

Made from `src/panels/*.yaml` by `make dashboards`. Import them with

    curl -H 'kbn-xsrf: true' -F file=@kibana/callscope.ndjson 'http://localhost:5601/api/saved_objects/_import?overwrite=true'

and look at the answer: it is 200 even if `success` is `false`. The data view reads the alias `openvidu`.
Dashboards are managed, so Kibana lets nobody change them; duplicate one to change it. Importing again replaces these only.
"
    .to_owned();
    for dashboard in dashboards {
        let _written = write!(
            text,
            "\n## {}\n\n{}\n\n| Panel | Question | Form | Fields |\n|---|---|---|---|\n",
            cell(&dashboard.title),
            dashboard.question
        );
        for panel in dashboard.panels() {
            let fields: Vec<String> =
                fields(panel).iter().map(|field| format!("`{field}`")).collect();
            let _written = writeln!(
                text,
                "| {} | {} | {} | {} |",
                cell(&panel.title),
                cell(&panel.question),
                form(panel.form),
                fields.join(", ")
            );
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn form(form: Form) -> &'static str {
    match form {
        Form::Numbers => "numbers",
        Form::Table => "table",
        Form::Line => "lines",
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
    let mut fields = BTreeSet::from(["elastic_type"]);
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
