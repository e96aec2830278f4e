//! Panels: every chart is described once, in YAML beside this code, and read by all who show or prove it: Kibana, OpenSearch
//! Dashboards, the page and the tests.
//!
//! ```text
//!  src/panels/*.yaml ─▶ model ─▶ check ─┬▶ request ─▶ Elasticsearch, OpenSearch ─┐
//!                                       ├▶ the embedded index ───────────────────┴▶ answer ─▶ page, tests
//!                                       └▶ saved objects of Kibana
//! ```
//!
//! A panel says which documents it looks at, how it splits them and what it shows of each part. Nothing in it is a query of its
//! own language: conditions, splits and values are few, and each has one meaning wherever it is computed.

use std::fmt::Write;
use std::sync::LazyLock;

pub use model::{Dashboard, Panel};

pub mod answer;
pub mod catalog;
mod check;
pub mod formula;
pub mod kibana;
pub mod made;
pub mod model;
pub mod request;
pub mod source;
pub mod zone;

/// The files, in the order in which dashboards are listed.
const FILES: &[(&str, &str)] = &[
    ("sessions.yaml", include_str!("panels/sessions.yaml")),
    ("recordings.yaml", include_str!("panels/recordings.yaml")),
    ("capacity.yaml", include_str!("panels/capacity.yaml")),
    ("quality.yaml", include_str!("panels/quality.yaml")),
    ("nodes.yaml", include_str!("panels/nodes.yaml")),
    ("session.yaml", include_str!("panels/session.yaml")),
];

/// Dashboards of the hosts, over documents that others write. Only Kibana shows them.
const HOST_FILES: &[(&str, &str)] = &[
    ("hosts.yaml", include_str!("panels/hosts.yaml")),
    ("runtime.yaml", include_str!("panels/runtime.yaml")),
];

/// What is wrong with a description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct PanelError {
    file: String,
    line: u64,
    problem: String,
}

/// All dashboards. That they are right is tested, so that nobody has to ask.
///
/// # Panics
///
/// Never in a build whose tests have passed.
pub fn all() -> &'static [Dashboard] {
    static ALL: LazyLock<Vec<Dashboard>> = LazyLock::new(|| shipped(FILES));
    &ALL
}

/// The dashboards of the hosts, which are no part of [`all`]: whether there is such data, callscope does not know.
///
/// # Panics
///
/// Never in a build whose tests have passed.
pub fn hosts() -> &'static [Dashboard] {
    static HOSTS: LazyLock<Vec<Dashboard>> = LazyLock::new(|| shipped(HOST_FILES));
    &HOSTS
}

#[expect(clippy::panic, reason = "the files are part of the program, and a test reads them")]
fn shipped(files: &[(&str, &str)]) -> Vec<Dashboard> {
    match read(files.iter().copied()) {
        Ok(dashboards) => dashboards,
        Err(problems) => panic!("{}", told(&problems)),
    }
}

/// The dashboard called `id`.
#[must_use]
pub fn dashboard(id: &str) -> Option<&'static Dashboard> {
    all().iter().find(|dashboard| dashboard.id.value == id)
}

/// Problems, a line each.
#[must_use]
pub fn told(problems: &[PanelError]) -> String {
    problems.iter().fold(String::new(), |mut told, problem| {
        let _written = writeln!(told, "{problem}");
        told
    })
}

/// The dashboards of files, given by name and content.
///
/// # Errors
///
/// All that is wrong with them, in their order.
pub fn read<'f>(
    files: impl IntoIterator<Item = (&'f str, &'f str)>,
) -> Result<Vec<Dashboard>, Vec<PanelError>> {
    let (mut dashboards, mut problems) = (Vec::new(), Vec::new());
    for (file, text) in files {
        match serde_saphyr::from_str::<Dashboard>(text) {
            Ok(dashboard) => dashboards.push((file, dashboard)),
            Err(error) => problems.push(PanelError {
                file: file.to_owned(),
                line: error.location().map_or(0, |location| location.line()),
                problem: first_line(&error.without_snippet().to_string()),
            }),
        }
    }
    problems.extend(check::problems(&dashboards));
    if problems.is_empty() {
        Ok(dashboards.into_iter().map(|(_, dashboard)| dashboard).collect())
    } else {
        Err(problems)
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboards_are_right() {
        let files = FILES.iter().chain(HOST_FILES).copied();
        let problems = read(files).err().unwrap_or_default();
        assert!(problems.is_empty(), "\n{}", told(&problems));
        assert_eq!((all().len(), hosts().len()), (FILES.len(), HOST_FILES.len()));
    }

    /// A dashboard of one panel, with lines changed.
    fn with(changes: &[(&str, &str)]) -> String {
        let mut text = "id: board
title: Board
question: What?
rows:
  - height: 10
    panels:
      - id: one
        width: 48
        title: One
        question: How many?
        form: bar
        of: [sessionSummary]
        when: [{is: {reason: [disconnect]}}]
        by:
          - {values: {field: reason, label: Reason, size: 5, order: mean}}
          - {time: {field: timestamp}}
        show:
          - {id: all, label: All, value: count}
          - {id: mean, label: Mean, value: {mean: duration}}
          - {id: share, label: Share, value: {formula: 100 * all / mean}, unit: percent}
        empty: None.
"
        .to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        text
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        assert!(read([("a.yaml", with(&[]).as_str())]).is_ok());
        for (line, from, to, expected) in [
            (
                13,
                "reason: [disc",
                "raeson: [disc",
                "no field \"raeson\"; the nearest is \"reason\"",
            ),
            (
                13,
                "[disconnect]",
                "[1]",
                "reason holds Text, and it is compared with something else",
            ),
            (13, "reason: [disconnect]", "reason: []", "lists no value"),
            (15, "field: reason", "field: geoPoints", "it divides by values"),
            (15, "size: 5", "size: 0", "between 1 and 1000"),
            (15, "order: mean", "order: share", "by which parts are ordered"),
            (16, "field: timestamp", "field: reason", "it divides by time"),
            (19, "mean: duration", "mean: reason", "reason holds Text, and it is added up"),
            (19, "{mean: duration}", "{mean: duration}, unit: bytes", "its unit is Seconds"),
            (19, "label: All", "label: Mean", "two values have the label"),
            (19, "id: mean, label", "id: all, label", "two values are called \"all\""),
            (20, "all / mean", "all / none", "\"none\" is no value"),
            (20, ", unit: percent", "", "says its unit"),
            (20, "all / mean", "all /", "lacks a value"),
            (20, "unit: percent", "unit: percent, when: [{has: reason}]", "computed of others"),
            (7, "of: [sessionSummary]", "of: [session]", "nobody writes"),
            (
                14,
                "of: [sessionSummary]",
                "over: metricbeat\n        of: [system.cpu]",
                "no field \"reason\"",
            ),
            (
                7,
                "of: [sessionSummary]",
                "over: metricbeat\n        of: [sessionSummary]",
                "nobody writes event.dataset",
            ),
            (7, "form: bar", "form: donut", "does not take 2 splits"),
            (20, "unit: percent", "unit: percnt", "percnt"),
            (7, "width: 48", "width: 47", "is 47 wide"),
            // Two that would lie on each other.
            (7, "width: 48", "width: 49", "is 49 wide"),
            (7, "id: one", "id: One", "small letters"),
            (7, "id: one", "id: board", "stands at a.yaml:1 already"),
            (7, "title: One", "title: ' '", "say something"),
            (9, "title: One", "titel: One", "titel"),
            (11, "form: bar", "form: pie", "pie"),
        ] {
            let text = with(&[(from, to)]);
            let problems = read([("a.yaml", text.as_str())]).unwrap_err();
            let found = problems.iter().find(|problem| problem.problem.contains(expected));
            let found = found.unwrap_or_else(|| panic!("{to}: {}", told(&problems)));
            assert_eq!((found.file.as_str(), found.line), ("a.yaml", line), "{found}");
        }
    }

    #[test]
    fn an_identifier_stands_once_in_all_files() {
        let (one, two) = (
            with(&[]),
            with(&[
                ("id: board", "id: other"),
                ("id: all, label", "id: every, label"),
                ("100 * all", "100 * every"),
            ]),
        );
        let problems = read([("a.yaml", one.as_str()), ("b.yaml", two.as_str())]).unwrap_err();
        assert_eq!(told(&problems), "b.yaml:7: id \"one\" stands at a.yaml:7 already\n");
    }

    #[test]
    fn a_map_adds_up_and_computes_nothing() {
        let split = "          - {values: {field: reason, label: Reason, size: 5, order: mean}}\n";
        let tiles = ("time: {field: timestamp}", "tiles: {field: geoPoints, zoom: 6}");
        let text = with(&[("form: bar", "form: map"), (split, ""), tiles]);
        let problems = told(&read([("a.yaml", text.as_str())]).unwrap_err());
        assert!(problems.contains("a map shows nothing that is computed"), "{problems}");
        let hidden = text.replace("unit: percent", "unit: percent, hidden: true");
        assert!(read([("a.yaml", hidden.as_str())]).is_ok());
    }
}
