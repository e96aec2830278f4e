//! Whether descriptions make sense: every field is one that somebody writes, and holds what is asked of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_saphyr::Spanned;

use super::PanelError;
use super::model::{
    Case, Condition, Dashboard, Form, Metric, Panel, Row, Scalar, Split, Value, WIDTH,
};
use super::source::Source;
use crate::config::distance;
use crate::document::fields::{Holds, Unit};

/// All that is wrong, in the order of the files.
pub(super) fn problems(dashboards: &[(&str, Dashboard)]) -> Vec<PanelError> {
    let mut check = Check::default();
    for (file, dashboard) in dashboards {
        check.file = (*file).to_owned();
        check.dashboard(dashboard);
    }
    check.problems
}

#[derive(Default)]
struct Check {
    file: String,
    problems: Vec<PanelError>,
    /// Whose documents are meant at this place.
    over: Source,
    /// Where each id of a dashboard or panel stands.
    ids: BTreeMap<String, String>,
}

impl Check {
    fn tell<T>(&mut self, at: &Spanned<T>, problem: impl Into<String>) {
        let (file, line) = (self.file.clone(), at.referenced.line());
        self.problems.push(PanelError { file, line, problem: problem.into() });
    }

    fn dashboard(&mut self, dashboard: &Dashboard) {
        self.id(&dashboard.id);
        self.over = Source::Events;
        if let Some(field) = &dashboard.of_one {
            self.holds(field, "one value of it is to be chosen", |holds| holds == Holds::Text);
        }
        for control in &dashboard.controls {
            self.over = control.over;
            let field = &control.field;
            self.holds(field, "it narrows by values", |holds| holds == Holds::Text);
        }
        self.over = Source::Events;
        let mut marks = BTreeSet::new();
        for mark in &dashboard.marks {
            if !marks.insert(&mark.id.value) {
                self.tell(&mark.id, format!("two marks are called {:?}", mark.id.value));
            }
            mark.when.iter().for_each(|condition| self.condition(condition));
        }
        for logs in &dashboard.logs {
            let is_plain = |character: char| {
                character.is_ascii_lowercase()
                    || character.is_ascii_digit()
                    || "-_.*,".contains(character)
            };
            if logs.index.value.is_empty() || !logs.index.value.chars().all(is_plain) {
                self.tell(&logs.index, format!("{:?} names no indices", logs.index.value));
            }
            if let Some(word) = &logs.word
                && !word.value.chars().all(char::is_alphanumeric)
            {
                self.tell(word, format!("{:?} is no word", word.value));
            }
        }
        for row in &dashboard.rows {
            self.row(&dashboard.id, row);
        }
    }

    fn row(&mut self, dashboard: &Spanned<String>, row: &Row) {
        let Some(first) = row.panels.first() else {
            self.tell(dashboard, "a row has no panel");
            return;
        };
        let width: u32 = row.panels.iter().map(|panel| panel.width).sum();
        if width != WIDTH || row.panels.iter().any(|panel| panel.width == 0) || row.height < 3 {
            self.tell(
                &first.id,
                format!(
                    "the row that begins with panel {} is {width} wide and {} high: panels beside each other fill {WIDTH} columns, none is \
                     empty, and a row is 3 high at least",
                    first.id.value, row.height
                ),
            );
        }
        row.panels.iter().for_each(|panel| self.panel(panel));
    }

    fn id(&mut self, id: &Spanned<String>) {
        let is_plain = |character: char| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
        };
        if id.value.is_empty() || !id.value.chars().all(is_plain) {
            self.tell(id, format!("id {:?} is not of small letters, digits and `-`", id.value));
        }
        let place = format!("{}:{}", self.file, id.referenced.line());
        if let Some(other) = self.ids.insert(id.value.clone(), place) {
            self.tell(id, format!("id {:?} stands at {other} already", id.value));
        }
    }

    fn panel(&mut self, panel: &Panel) {
        self.id(&panel.id);
        let texts = [&panel.title, &panel.question, &panel.empty];
        if texts.iter().any(|text| text.trim().is_empty()) {
            self.tell(&panel.id, "title, question and empty say something to people");
        }
        if panel.of.is_empty() {
            self.tell(&panel.id, format!("of names no {}", panel.over.kind()));
        }
        self.over = panel.over;
        let known = panel.over.kinds();
        for kind in panel.of.iter().filter(|kind| !known.contains(&kind.as_str())) {
            self.tell(
                &panel.id,
                format!(
                    "nobody writes {} {kind:?}; known are {}",
                    panel.over.kind(),
                    known.join(", ")
                ),
            );
        }
        panel.when.iter().for_each(|condition| self.condition(condition));
        panel.by.iter().for_each(|split| self.split(panel, split));
        for column in &panel.columns {
            self.holds(column, "it is a column", |_| true);
        }
        self.metrics(panel);
        self.form(panel);
    }

    /// Finds a field, and whether it is of use.
    fn holds(
        &mut self,
        field: &Spanned<String>,
        purpose: &str,
        suits: impl Fn(Holds) -> bool,
    ) -> Option<Holds> {
        match self.over.find(&field.value) {
            None => {
                let near = self.over.fields().iter().map(|(name, _)| *name);
                let near = near.min_by_key(|name| distance(name, &field.value));
                let near = near.unwrap_or_default();
                let problem =
                    format!("there is no field {:?}; the nearest is {near:?}", field.value);
                self.tell(field, problem);
                None
            }
            Some(holds) if !suits(holds) => {
                self.tell(field, format!("{} holds {holds:?}, and {purpose}", field.value));
                None
            }
            found => found,
        }
    }

    fn condition(&mut self, condition: &Condition) {
        let field = condition.field();
        match condition {
            Condition::Has(_) => {
                self.holds(field, "nobody can look for it", |holds| holds != Holds::Unsearched);
            }
            Condition::Above(_) | Condition::AtLeast(_) | Condition::AtMost(_) => {
                self.holds(field, "it is compared with a number", Holds::is_number);
            }
            Condition::Is(one) | Condition::Not(one) => {
                let suits = |holds: Holds| {
                    one.value.iter().all(|value| match value {
                        Scalar::Text(_) => holds == Holds::Text,
                        Scalar::Number(_) => holds.is_number(),
                        Scalar::Flag(_) => holds == Holds::Flag,
                    })
                };
                self.holds(field, "it is compared with something else", suits);
                if one.value.is_empty() {
                    self.tell(field, "a condition lists no value");
                }
            }
        }
    }

    fn split(&mut self, panel: &Panel, split: &Split) {
        match split {
            Split::Time(by) => {
                self.holds(&by.field, "it divides by time", |holds| holds == Holds::Date);
            }
            Split::Values(by) => {
                let suits = |holds| matches!(holds, Holds::Text | Holds::Flag | Holds::Whole(_));
                self.holds(&by.field, "it divides by values", suits);
                if !(1..=1000).contains(&by.size) {
                    self.tell(&by.field, "size is between 1 and 1000");
                }
                if let Some(order) = &by.order {
                    let metric = panel.metric(&order.value);
                    let can = |metric: &Metric| {
                        !matches!(
                            metric.value,
                            Value::Formula(_)
                                | Value::Running(_)
                                | Value::Last(_)
                                | Value::Percentile(_)
                        )
                    };
                    if !metric.is_some_and(can) {
                        let id = &order.value;
                        self.tell(order, format!("{id:?} is no value by which parts are ordered"));
                    }
                }
            }
            Split::Classes(by) => {
                self.holds(&by.field, "it divides by classes", Holds::is_number);
                if by.at.is_empty() || !by.at.is_sorted_by(|left, right| left < right) {
                    self.tell(&by.field, "classes begin at rising numbers");
                }
            }
            Split::Steps(by) => {
                self.holds(&by.field, "it divides by steps", Holds::is_number);
                if by.every <= 0.0 {
                    self.tell(&by.field, "a step is more than 0");
                }
            }
            Split::Cases(by) => {
                if by.cases.is_empty() {
                    self.tell(&panel.id, "there is no case to divide by");
                }
                let labels: BTreeSet<&String> = by.cases.iter().map(|case| &case.label).collect();
                if labels.len() < by.cases.len() {
                    self.tell(&panel.id, "two cases have one label");
                }
                for Case { when, .. } in &by.cases {
                    when.iter().for_each(|condition| self.condition(condition));
                }
            }
            Split::Tiles(by) => {
                self.holds(&by.field, "it divides the map", |holds| holds == Holds::Point);
                if !(1..=12).contains(&by.zoom) {
                    self.tell(&by.field, "zoom is between 1 and 12");
                }
            }
        }
    }

    fn metrics(&mut self, panel: &Panel) {
        let mut labels = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for metric in &panel.show {
            let id = &metric.id.value;
            if !id.chars().all(char::is_alphanumeric) || !id.starts_with(char::is_alphabetic) {
                self.tell(&metric.id, format!("{id:?} is not of letters and digits"));
            }
            if !ids.insert(id) {
                self.tell(&metric.id, format!("two values are called {id:?}"));
            }
            if !metric.hidden && !labels.insert(&metric.label) {
                self.tell(&metric.id, format!("two values have the label {:?}", metric.label));
            }
            metric.when.iter().for_each(|condition| self.condition(condition));
            self.value(panel, metric);
        }
    }

    fn value(&mut self, panel: &Panel, metric: &Metric) {
        let innermost_is_time = matches!(panel.by.last(), Some(Split::Time(_)));
        if metric.per.is_some() && !innermost_is_time {
            self.tell(&metric.id, "a rate needs a split by time as the innermost");
        }
        let own = match &metric.value {
            Value::Count => Some(Unit::Number),
            Value::Distinct(field) => {
                let suits = |holds| matches!(holds, Holds::Text | Holds::Whole(_));
                self.holds(field, "it is counted by value", suits);
                Some(Unit::Number)
            }
            Value::Sum(field) | Value::Mean(field) => {
                self.holds(field, "it is added up", Holds::is_number).and_then(Holds::unit)
            }
            Value::Percentile(percentile) => {
                if !(0.0..=100.0).contains(&percentile.at) {
                    self.tell(&percentile.field, "a percentile is between 0 and 100");
                }
                self.holds(&percentile.field, "it is put in order", Holds::is_number)
                    .and_then(Holds::unit)
            }
            Value::Min(field) | Value::Max(field) => {
                let suits = |holds: Holds| holds.is_number() || holds == Holds::Date;
                self.holds(field, "it is put in order", suits).and_then(Holds::unit)
            }
            Value::Last(field) => self
                .holds(field, "it is shown", |holds| holds != Holds::Unsearched)
                .and_then(Holds::unit),
            Value::Formula(formula) => {
                for id in formula.value.values() {
                    self.operand(panel, formula, id);
                }
                None
            }
            Value::Running(of) => {
                if !innermost_is_time {
                    self.tell(of, "a running sum needs a split by time as the innermost");
                }
                self.operand(panel, of, &of.value.clone());
                panel.metric(&of.value).and_then(Metric::unit)
            }
        };
        let is_computed = matches!(metric.value, Value::Formula(_) | Value::Running(_));
        if is_computed && !metric.when.is_empty() {
            self.tell(&metric.id, "it is computed of others, and they ask for what has to be met");
        }
        let is_rate = metric.per.is_some();
        if let (Some(own), Some(given)) = (own, metric.unit)
            && own != given
            && !(is_rate && given == Unit::Number)
        {
            self.tell(&metric.id, format!("its unit is {own:?}, not {given:?}"));
        }
        if matches!(metric.value, Value::Formula(_)) && metric.unit.is_none() {
            self.tell(&metric.id, "a formula says its unit");
        }
    }

    fn operand<T>(&mut self, panel: &Panel, at: &Spanned<T>, id: &str) {
        let known = panel.metric(id);
        let can = |metric: &Metric| {
            !matches!(metric.value, Value::Formula(_) | Value::Running(_) | Value::Last(_))
        };
        if !known.is_some_and(can) {
            self.tell(at, format!("{id:?} is no value that can be reckoned with"));
        }
    }

    fn form(&mut self, panel: &Panel) {
        let visible = panel.shown().count();
        let splits = panel.by.len();
        let tiles = panel.by.iter().filter(|split| matches!(split, Split::Tiles(_))).count();
        let wanted = match panel.form {
            Form::Numbers => (0..=1).contains(&splits) && visible > 0,
            Form::Table => (1..=3).contains(&splits) && visible > 0,
            Form::Line | Form::Stairs | Form::Area | Form::Bar | Form::FullBar => {
                (1..=2).contains(&splits) && visible > 0
            }
            Form::Donut => splits == 1 && visible == 1,
            Form::Treemap => splits == 2 && visible == 1,
            Form::Heatmap => splits == 2 && visible == 1,
            Form::Map => splits == 1 && tiles == 1 && visible > 0,
            Form::List => splits == 0 && panel.show.is_empty() && !panel.columns.is_empty(),
        };
        if !wanted {
            self.tell(
                &panel.id,
                format!("{:?} does not take {splits} splits and {visible} values", panel.form),
            );
        }
        if tiles > 0 && panel.form != Form::Map {
            self.tell(&panel.id, "tiles are for a map");
        }
        let is_computed = |metric: &Metric| {
            matches!(metric.value, Value::Formula(_) | Value::Running(_) | Value::Last(_))
        };
        if panel.form == Form::Map && panel.shown().any(is_computed) {
            self.tell(&panel.id, "a map shows nothing that is computed of other values");
        }
        if panel.form != Form::List && (!panel.columns.is_empty() || panel.oldest_first) {
            self.tell(&panel.id, "columns and oldestFirst are for a list");
        }
    }
}
