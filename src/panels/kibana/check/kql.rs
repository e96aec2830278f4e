//! As much of KQL as is used, read by its own rules.

/// What a query means.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::panels::kibana) enum Term {
    All(Vec<Term>),
    Any(Vec<Term>),
    Not(Box<Term>),
    /// A field has one of these values.
    Is {
        field: String,
        values: Vec<Word>,
    },
    /// A field is compared with a number.
    Compared {
        field: String,
    },
    /// A field has a value.
    Has {
        field: String,
    },
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::panels::kibana) enum Word {
    Text(String),
    Number(f64),
    Flag(bool),
}

impl Term {
    /// Calls `work` with each field and the values that it is compared with; `None`: with numbers or with nothing.
    pub(super) fn each<'t>(&'t self, work: &mut impl FnMut(&'t str, Option<&'t [Word]>, bool)) {
        match self {
            Self::All(terms) | Self::Any(terms) => terms.iter().for_each(|term| term.each(work)),
            Self::Not(term) => term.each(work),
            Self::Is { field, values } => work(field, Some(values), false),
            Self::Compared { field } => work(field, None, true),
            Self::Has { field } => work(field, None, false),
        }
    }
}

/// What a query means.
pub(in crate::panels::kibana) fn read(query: &str) -> Result<Term, String> {
    let mut reader = Reader { rest: query };
    let term = reader.any()?;
    match reader.rest.trim_start() {
        "" => Ok(term),
        rest => Err(format!("{query:?}: {rest:?} is not expected there")),
    }
}

struct Reader<'q> {
    rest: &'q str,
}

impl<'q> Reader<'q> {
    fn any(&mut self) -> Result<Term, String> {
        let mut terms = vec![self.all()?];
        while self.word("or") {
            terms.push(self.all()?);
        }
        Ok(one_or(terms, Term::Any))
    }

    fn all(&mut self) -> Result<Term, String> {
        let mut terms = vec![self.not()?];
        while self.word("and") {
            terms.push(self.not()?);
        }
        Ok(one_or(terms, Term::All))
    }

    fn not(&mut self) -> Result<Term, String> {
        if self.word("not") {
            return Ok(Term::Not(Box::new(self.atom()?)));
        }
        self.atom()
    }

    fn atom(&mut self) -> Result<Term, String> {
        if self.sign("(") {
            let inner = self.any()?;
            return if self.sign(")") { Ok(inner) } else { Err(self.lacks("a closing bracket")) };
        }
        let field = self.bare().to_owned();
        if field.is_empty() || ["and", "or", "not"].contains(&field.as_str()) {
            return Err(self.lacks("a field"));
        }
        for sign in [">=", "<=", ">", "<"] {
            if self.sign(sign) {
                return match self.value()? {
                    Word::Number(_) => Ok(Term::Compared { field }),
                    other => Err(format!("{field} is compared with {other:?}")),
                };
            }
        }
        if !self.sign(":") {
            return Err(self.lacks("a colon"));
        }
        if self.sign("*") {
            return Ok(Term::Has { field });
        }
        if !self.sign("(") {
            return Ok(Term::Is { field, values: vec![self.value()?] });
        }
        let mut values = vec![self.value()?];
        while self.word("or") {
            values.push(self.value()?);
        }
        if self.sign(")") {
            Ok(Term::Is { field, values })
        } else {
            Err(self.lacks("a closing bracket"))
        }
    }

    fn value(&mut self) -> Result<Word, String> {
        if self.sign("\"") {
            return self.quoted().map(Word::Text);
        }
        match self.bare() {
            "true" => Ok(Word::Flag(true)),
            "false" => Ok(Word::Flag(false)),
            bare => bare.parse().map(Word::Number).map_err(|_| self.lacks("a value")),
        }
    }

    /// Up to the closing quote. A backslash before anything but the signs it is used with means itself.
    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((place, character)) = characters.next() {
            let after = characters.as_str().chars().next();
            match (character, after) {
                ('"', _) => {
                    self.rest = self.rest.get(place + 1..).unwrap_or_default();
                    return Ok(text);
                }
                ('\\', Some(escaped @ ('"' | '\\'))) => text.push(escaped),
                ('\\', Some('n')) => text.push('\n'),
                ('\\', Some('r')) => text.push('\r'),
                ('\\', Some('t')) => text.push('\t'),
                (plain, _) => {
                    text.push(plain);
                    continue;
                }
            }
            characters.next();
        }
        Err(self.lacks("a closing quote"))
    }

    fn bare(&mut self) -> &'q str {
        self.rest = self.rest.trim_start();
        let is_bare = |character: char| character.is_alphanumeric() || "._-+".contains(character);
        let end = self.rest.find(|character| !is_bare(character)).unwrap_or(self.rest.len());
        let (bare, rest) = self.rest.split_at(end);
        self.rest = rest;
        bare
    }

    fn word(&mut self, word: &str) -> bool {
        let before = self.rest;
        if self.bare() == word {
            return true;
        }
        self.rest = before;
        false
    }

    fn sign(&mut self, sign: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn lacks(&self, what: &str) -> String {
        format!("a query lacks {what} before {:?}", self.rest)
    }
}

fn one_or(mut terms: Vec<Term>, several: impl Fn(Vec<Term>) -> Term) -> Term {
    if terms.len() == 1 { terms.swap_remove(0) } else { several(terms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_kibana_reads_them() {
        let is = |field: &str, text: &str| Term::Is {
            field: field.to_owned(),
            values: vec![Word::Text(text.to_owned())],
        };
        for (query, expected) in [
            (r#"a : "x""#, is("a", "x")),
            (r#"a:"\\t\"\n""#, is("a", "\\t\"\n")),
            (
                r#"a : "x" and b : "y" or c : "z""#,
                Term::Any(vec![Term::All(vec![is("a", "x"), is("b", "y")]), is("c", "z")]),
            ),
            (
                r#"not a : "x" and (b : "y")"#,
                Term::All(vec![Term::Not(Box::new(is("a", "x"))), is("b", "y")]),
            ),
            ("a.b >= -1.5", Term::Compared { field: "a.b".to_owned() }),
            ("a : *", Term::Has { field: "a".to_owned() }),
            (
                "a : (true or 2)",
                Term::Is {
                    field: "a".to_owned(),
                    values: vec![Word::Flag(true), Word::Number(2.0)],
                },
            ),
        ] {
            assert_eq!(read(query).unwrap(), expected, "{query}");
        }
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for (query, told) in [
            ("", "a field"),
            ("a", "a colon"),
            ("a : x", "a value"),
            (r#"a : "x"#, "closing quote"),
            (r#"a : ("x" or "y""#, "closing bracket"),
            (r#"(a : "x""#, "closing bracket"),
            (r#"a : "x" b : "y""#, "not expected"),
            (r#"a : "x" and"#, "a field"),
            (r#"a > "x""#, "compared with"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(told), "{query}: {error}");
        }
    }
}
