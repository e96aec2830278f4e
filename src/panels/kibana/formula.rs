//! Formulas as Lens keeps them: the text, and the columns it was expanded to. Kibana up to 9.2 computes from those columns and not
//! from the text.

use serde_json::{Value as Json, json};

use super::columns::{Operation, letter};
use super::number;
use crate::panels::formula::{Operator, Term};
use crate::panels::model::{Metric, Panel, Per, Value};

/// A formula and its parts.
pub(super) struct Expanded {
    /// The column that is shown.
    pub(super) column: Json,
    /// The columns it is computed from, by id.
    pub(super) parts: Vec<(String, Json)>,
}

/// Expands a value that is computed of others.
pub(super) fn expand(panel: &Panel, metric: &Metric, id: &str) -> Expanded {
    let mut chain = Chain { panel, id, label: &metric.label, parts: Vec::new() };
    let mut written = match &metric.value {
        Value::Running(of) => {
            let summed = chain.operand(&of.value, false);
            chain.reference("cumulative_sum", &summed, None)
        }
        Value::Formula(formula) => chain.term(&formula.value.term),
        _ => chain.operand(&metric.id.value, false),
    };
    if metric.per.is_some() {
        written = chain.growth(metric, written);
    }
    if let Some(per) = metric.per {
        written = chain.reference("normalize_by_unit", &written, Some(per));
    }
    chain.column_of(&written, true);
    let last = chain.parts.last().map(|(id, _)| id.clone());
    let column = json!({
        "label": metric.label, "customLabel": true, "dataType": "number", "operationType": "formula",
        "isBucketed": false, "scale": "ratio", "references": last.into_iter().collect::<Vec<_>>(),
        "params": { "formula": written.text, "isFormulaBroken": false },
    });
    Expanded { column, parts: chain.parts }
}

/// A part as text and as tree, whose leaves are ids of columns and numbers.
struct Written {
    text: String,
    tree: Json,
    /// How strongly it holds together.
    binding: Binding,
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Binding {
    Sum,
    Product,
    Atom,
}

struct Chain<'a> {
    panel: &'a Panel,
    id: &'a str,
    label: &'a str,
    parts: Vec<(String, Json)>,
}

impl Chain<'_> {
    fn term(&mut self, term: &Term) -> Written {
        match term {
            Term::Number(value) => {
                Written { text: value.to_string(), tree: number(*value), binding: Binding::Atom }
            }
            Term::Value(id) => self.operand(id, true),
            Term::Both(operator, left, right) => {
                let (left, right) = (self.term(left), self.term(right));
                // Equals are read from the left, so on the right they need brackets.
                let between = |sign: char, binding: Binding| {
                    let left = bracketed(&left, left.binding < binding);
                    let right = bracketed(&right, right.binding <= binding);
                    (format!("{left} {sign} {right}"), binding)
                };
                let (name, (text, binding)) = match operator {
                    Operator::Add => ("add", between('+', Binding::Sum)),
                    Operator::Subtract => ("subtract", between('-', Binding::Sum)),
                    Operator::Multiply => ("multiply", between('*', Binding::Product)),
                    Operator::Divide => ("divide", between('/', Binding::Product)),
                    Operator::Max => {
                        let text = format!("pick_max({}, {})", left.text, right.text);
                        ("pick_max", (text, Binding::Atom))
                    }
                };
                let tree =
                    json!({ "type": "function", "name": name, "args": [left.tree, right.tree] });
                Written { text, tree, binding }
            }
        }
    }

    /// Another value of the panel; `as_rate`: for a step of time, if it is shown so.
    fn operand(&mut self, id: &str, as_rate: bool) -> Written {
        let metric = self.panel.metric(id);
        let found =
            metric.and_then(|metric| Some((metric, Operation::of(self.panel.over, metric)?)));
        let Some((metric, operation)) = found else {
            // Descriptions whose formulas name anything else are refused when they are read.
            return Written { text: "0".to_owned(), tree: json!(0), binding: Binding::Atom };
        };
        let tree = json!(self.part(operation.column(&self.part_label())));
        let written = Written { text: operation.text(), tree, binding: Binding::Atom };
        match metric.per {
            Some(per) if as_rate => {
                let written = self.growth(metric, written);
                self.reference("normalize_by_unit", &written, Some(per))
            }
            _ => written,
        }
    }

    /// Of a number that only grows, by how much it has grown.
    fn growth(&mut self, metric: &Metric, written: Written) -> Written {
        match &metric.value {
            Value::Max(of) if self.panel.over.grows(&of.value) => {
                self.reference("counter_rate", &written, None)
            }
            _ => written,
        }
    }

    /// A function of one column.
    fn reference(&mut self, name: &str, of: &Written, per: Option<Per>) -> Written {
        let column = self.column_of(of, false);
        let (text, params) = match per {
            Some(per) => {
                let unit = letter(per);
                (format!("{name}({}, unit='{unit}')", of.text), json!({ "unit": unit }))
            }
            None => (format!("{name}({})", of.text), json!({})),
        };
        let label = self.part_label();
        let tree = json!(self.part(json!({
            "label": label, "customLabel": true, "dataType": "number", "operationType": name,
            "isBucketed": false, "scale": "ratio", "references": [column], "params": params,
        })));
        Written { text, tree, binding: Binding::Atom }
    }

    /// The column that holds a part: its own, or one that reckons it out.
    fn column_of(&mut self, written: &Written, is_whole: bool) -> String {
        if let Some(id) = written.tree.as_str() {
            return id.to_owned();
        }
        let mut references = Vec::new();
        leaves(&written.tree, &mut references);
        let mut tree = written.tree.clone();
        if let (true, Some(tree)) = (is_whole, tree.as_object_mut()) {
            let end = written.text.encode_utf16().count();
            tree.insert("location".to_owned(), json!({ "min": 0, "max": end }));
            tree.insert("text".to_owned(), json!(written.text));
        }
        let label = self.part_label();
        self.part(json!({
            "label": label, "customLabel": true, "dataType": "number", "operationType": "math",
            "isBucketed": false, "scale": "ratio", "references": references, "params": { "tinymathAst": tree },
        }))
    }

    fn part_label(&self) -> String {
        format!("Part of {}", self.label)
    }

    fn part(&mut self, column: Json) -> String {
        let id = format!("{}X{}", self.id, self.parts.len());
        self.parts.push((id.clone(), column));
        id
    }
}

fn bracketed(written: &Written, needs: bool) -> String {
    if needs { format!("({})", written.text) } else { written.text.clone() }
}

fn leaves(tree: &Json, into: &mut Vec<String>) {
    if let Some(id) = tree.as_str() {
        into.push(id.to_owned());
    }
    for argument in tree.get("args").and_then(Json::as_array).into_iter().flatten() {
        leaves(argument, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::kibana::check::{formula, kql};
    use crate::panels::model::{Condition, One, Scalar};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn conditions_within_a_formula_are_read_back_as_they_were(text in r#"(\PC|["\\'()\n]|\\')*"#) {
            let mut metric: Metric = serde_saphyr::from_str("{id: a, label: A, value: count}").unwrap();
            let field = serde_saphyr::from_str("reason").unwrap();
            metric.when = vec![Condition::Is(One { field, value: vec![Scalar::Text(text.clone())] })];
            let written = Operation::of(crate::panels::source::Source::Events, &metric).unwrap().text();
            let parts = formula::expand("f", &written).unwrap();
            let filter = kql::read(parts[0].filter.as_ref().unwrap()).unwrap();
            let values = vec![kql::Word::Text(text)];
            prop_assert_eq!(filter, kql::Term::Is { field: "reason.keyword".to_owned(), values });
        }
    }
}
