//! Formulas of Lens, as far as they are used: the text gives the columns that it has to be expanded to.

use serde_json::{Value as Json, json};

/// A part of a formula, and where it has to stand.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::panels::kibana) struct Part {
    /// The type of the column.
    pub(in crate::panels::kibana) operation: String,
    /// What it reads; of documents as such `___records___`.
    pub(in crate::panels::kibana) field: Option<String>,
    /// Its own KQL.
    pub(in crate::panels::kibana) filter: Option<String>,
    /// Its other arguments by name.
    pub(in crate::panels::kibana) arguments: Vec<(String, String)>,
    /// Ids of the columns it is computed from.
    pub(in crate::panels::kibana) references: Vec<String>,
    /// What is done with them.
    pub(in crate::panels::kibana) tree: Option<Json>,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { operation, field, filter, arguments, references, tree } = self;
        write!(f, "{operation}({}", field.as_deref().unwrap_or(&references.join(", ")))?;
        for (name, value) in arguments {
            write!(f, ", {name}={value}")?;
        }
        if let Some(filter) = filter {
            write!(f, ", kql={filter:?}")?;
        }
        if let Some(tree) = tree {
            write!(f, ", {tree}")?;
        }
        f.write_str(")")
    }
}

/// The parts of the formula in column `id`, in their order.
pub(in crate::panels::kibana) fn expand(id: &str, text: &str) -> Result<Vec<Part>, String> {
    let mut reader = Reader { rest: text, id, parts: Vec::new() };
    let tree = reader.sum()?;
    if !reader.rest.trim_start().is_empty() {
        return Err(format!("formula {text:?}: {:?} is not expected there", reader.rest));
    }
    if !tree.is_string() {
        reader.math(tree);
    }
    Ok(reader.parts)
}

struct Reader<'t> {
    rest: &'t str,
    id: &'t str,
    parts: Vec<Part>,
}

impl Reader<'_> {
    fn sum(&mut self) -> Result<Json, String> {
        self.chain(&[('+', "add"), ('-', "subtract")], Self::product)
    }

    fn product(&mut self) -> Result<Json, String> {
        self.chain(&[('*', "multiply"), ('/', "divide")], Self::factor)
    }

    /// Equals are read from the left.
    fn chain(
        &mut self,
        signs: &[(char, &str)],
        next: fn(&mut Self) -> Result<Json, String>,
    ) -> Result<Json, String> {
        let mut left = next(self)?;
        while let Some((_, name)) = signs.iter().find(|(sign, _)| self.sign() == Some(*sign)) {
            self.skip();
            let right = next(self)?;
            left = json!({ "type": "function", "name": name, "args": [left, right] });
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Json, String> {
        if self.sign() == Some('(') {
            self.skip();
            let inner = self.sum()?;
            self.expect(')')?;
            return Ok(inner);
        }
        let word = self.word();
        if word.starts_with(|first: char| first.is_ascii_digit()) {
            return serde_json::from_str(&word).map_err(|error| format!("{word}: {error}"));
        }
        self.expect('(')?;
        match word.as_str() {
            "pick_max" => {
                let left = self.sum()?;
                self.expect(',')?;
                let right = self.sum()?;
                self.expect(')')?;
                Ok(json!({ "type": "function", "name": word, "args": [left, right] }))
            }
            "cumulative_sum" | "counter_rate" | "normalize_by_unit" => self.reference(word),
            "count" | "unique_count" | "sum" | "average" | "min" | "max" | "percentile" => {
                self.operation(word)
            }
            other => Err(format!("a formula names {other:?}, which nobody knows")),
        }
    }

    /// A function of another part.
    fn reference(&mut self, operation: String) -> Result<Json, String> {
        let mut of = self.sum()?;
        if !of.is_string() {
            of = self.math(of);
        }
        let mut part = Part {
            operation,
            field: None,
            filter: None,
            arguments: Vec::new(),
            references: of.as_str().map(str::to_owned).into_iter().collect(),
            tree: None,
        };
        while self.sign() == Some(',') {
            self.skip();
            let name = self.word();
            let value = self.argument()?;
            part.arguments.push((name, value));
        }
        self.expect(')')?;
        Ok(self.push(part))
    }

    /// A value that is read from documents.
    fn operation(&mut self, operation: String) -> Result<Json, String> {
        let mut part = Part {
            field: (operation == "count").then(|| "___records___".to_owned()),
            operation,
            filter: None,
            arguments: Vec::new(),
            references: Vec::new(),
            tree: None,
        };
        while self.sign() != Some(')') {
            let name = self.word();
            if name.is_empty() {
                return self.expect(')').map(|()| Json::Null);
            }
            if self.sign() != Some('=') {
                part.field = Some(name);
            } else {
                let value = self.argument()?;
                if name == "kql" {
                    part.filter = Some(value);
                } else {
                    part.arguments.push((name, value));
                }
            }
            if self.sign() == Some(',') {
                self.skip();
            }
        }
        self.expect(')')?;
        Ok(self.push(part))
    }

    /// What follows the name of an argument.
    fn argument(&mut self) -> Result<String, String> {
        self.expect('=')?;
        if self.sign() != Some('\'') {
            return Ok(self.word());
        }
        self.skip();
        let mut value = String::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix("\\'") {
                value.push('\'');
                self.rest = rest;
                continue;
            }
            let mut characters = self.rest.chars();
            let next = characters.next();
            self.rest = characters.as_str();
            match next {
                Some('\'') => return Ok(value),
                Some(character) => value.push(character),
                None => return Err("a formula lacks a closing quote".to_owned()),
            }
        }
    }

    fn math(&mut self, tree: Json) -> Json {
        let mut references = Vec::new();
        leaves(&tree, &mut references);
        self.push(Part {
            operation: "math".to_owned(),
            field: None,
            filter: None,
            arguments: Vec::new(),
            references,
            tree: Some(tree),
        })
    }

    fn push(&mut self, part: Part) -> Json {
        let id = format!("{}X{}", self.id, self.parts.len());
        self.parts.push(part);
        json!(id)
    }

    fn word(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let is_word =
            |character: char| character.is_ascii_alphanumeric() || "._".contains(character);
        let end = self.rest.find(|character| !is_word(character)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn sign(&self) -> Option<char> {
        self.rest.trim_start().chars().next()
    }

    fn skip(&mut self) {
        let mut characters = self.rest.trim_start().chars();
        characters.next();
        self.rest = characters.as_str();
    }

    fn expect(&mut self, sign: char) -> Result<(), String> {
        if self.sign() != Some(sign) {
            return Err(format!("a formula lacks {sign:?} before {:?}", self.rest));
        }
        self.skip();
        Ok(())
    }
}

fn leaves(tree: &Json, into: &mut Vec<String>) {
    into.extend(tree.as_str().map(str::to_owned));
    let arguments = tree.get("args").and_then(Json::as_array);
    arguments.into_iter().flatten().for_each(|argument| leaves(argument, into));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let parts = expand("f", text).unwrap();
        let tell = |part: &Part| {
            let tree = part.tree.as_ref().map_or_else(String::new, ToString::to_string);
            format!(
                "{} {:?} {:?} {:?} {:?} {tree}",
                part.operation, part.field, part.filter, part.arguments, part.references
            )
        };
        parts.iter().map(tell).collect()
    }

    #[test]
    fn a_formula_gives_its_columns() {
        assert_eq!(
            told(r"count(kql='a : \'x\' b') - sum(y.z) / 2"),
            [
                r#"count Some("___records___") Some("a : 'x' b") [] [] "#,
                r#"sum Some("y.z") None [] [] "#,
                r#"math None None [] ["fX0", "fX1"] {"args":["fX0",{"args":["fX1",2],"name":"divide","type":"function"}],"name":"subtract","type":"function"}"#,
            ]
        );
        assert_eq!(
            told("normalize_by_unit(cumulative_sum(percentile(d, percentile=95)), unit='m')"),
            [
                r#"percentile Some("d") None [("percentile", "95")] [] "#,
                r#"cumulative_sum None None [] ["fX0"] "#,
                r#"normalize_by_unit None None [("unit", "m")] ["fX1"] "#,
            ]
        );
        assert_eq!(told("cumulative_sum(count() + 1)").len(), 3);
    }

    #[test]
    fn what_is_no_formula_is_refused() {
        for (text, expected) in [
            ("count(", "lacks ')'"),
            ("count(kql='x)", "closing quote"),
            ("shares()", "nobody knows"),
            ("count() count()", "not expected"),
            ("(count()", "lacks ')'"),
        ] {
            let error = expand("f", text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
