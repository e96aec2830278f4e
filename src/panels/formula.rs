//! Formulas: sums, differences, products and quotients of other values, and the greater of two.

use serde::Deserialize;

/// A formula as it was understood.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Formula {
    /// As it was written.
    pub text: String,
    /// What it means.
    pub term: Term,
}

/// A part of a formula.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// A number.
    Number(f64),
    /// Another value, by its id.
    Value(String),
    /// Two parts.
    Both(Operator, Box<Term>, Box<Term>),
}

/// What is done with two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// +
    Add,
    /// −
    Subtract,
    /// ×
    Multiply,
    /// ÷
    Divide,
    /// The greater one, written `max(a, b)`.
    Max,
}

impl Formula {
    /// Ids of the values it needs, in the order in which they stand.
    #[must_use]
    pub fn values(&self) -> Vec<&str> {
        let mut values = Vec::new();
        self.term.each(&mut |id| values.push(id));
        values
    }

    /// The result, given the values; `None` where one is missing or it divides by 0.
    pub fn result(&self, value: impl Fn(&str) -> Option<f64>) -> Option<f64> {
        self.term.result(&value)
    }
}

impl Term {
    fn each<'t>(&'t self, work: &mut impl FnMut(&'t str)) {
        match self {
            Self::Number(_) => {}
            Self::Value(id) => work(id),
            Self::Both(_, left, right) => {
                left.each(work);
                right.each(work);
            }
        }
    }

    fn result(&self, value: &impl Fn(&str) -> Option<f64>) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Value(id) => value(id),
            Self::Both(operator, left, right) => {
                let (left, right) = (left.result(value)?, right.result(value)?);
                match operator {
                    Operator::Add => Some(left + right),
                    Operator::Subtract => Some(left - right),
                    Operator::Multiply => Some(left * right),
                    Operator::Divide if right == 0.0 => None,
                    Operator::Divide => Some(left / right),
                    Operator::Max => Some(left.max(right)),
                }
            }
        }
    }
}

impl TryFrom<String> for Formula {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parser = Parser { rest: &text };
        let term = parser.sum()?;
        match parser.rest.trim_start().chars().next() {
            None => Ok(Self { term, text }),
            Some(odd) => Err(format!("formula {text:?}: {odd:?} is not expected there")),
        }
    }
}

/// Products bind before sums; equals from the left.
struct Parser<'t> {
    rest: &'t str,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<Term, String> {
        let mut left = self.product()?;
        while let Some(operator) = self.operator(&[('+', Operator::Add), ('-', Operator::Subtract)])
        {
            left = Term::Both(operator, Box::new(left), Box::new(self.product()?));
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Term, String> {
        let mut left = self.atom()?;
        while let Some(operator) =
            self.operator(&[('*', Operator::Multiply), ('/', Operator::Divide)])
        {
            left = Term::Both(operator, Box::new(left), Box::new(self.atom()?));
        }
        Ok(left)
    }

    fn atom(&mut self) -> Result<Term, String> {
        if self.operator(&[('(', ())]).is_some() {
            let inner = self.sum()?;
            return match self.operator(&[(')', ())]) {
                Some(()) => Ok(inner),
                None => Err("a formula lacks a closing bracket".to_owned()),
            };
        }
        self.rest = self.rest.trim_start();
        let end =
            self.rest.find(|character: char| !character.is_alphanumeric() && character != '.');
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        match word.chars().next() {
            None => Err("a formula lacks a value".to_owned()),
            Some(first) if first.is_ascii_digit() => word
                .parse()
                .map(Term::Number)
                .map_err(|_| format!("{word:?} in a formula is no number")),
            Some(_) if word == "max" => self.pair(Operator::Max),
            Some(_) => Ok(Term::Value(word.to_owned())),
        }
    }

    /// Two parts between brackets.
    fn pair(&mut self, operator: Operator) -> Result<Term, String> {
        self.operator(&[('(', ())]).ok_or("a formula lacks an opening bracket")?;
        let left = self.sum()?;
        self.operator(&[(',', ())]).ok_or("a formula lacks the second of two values")?;
        let right = self.sum()?;
        self.operator(&[(')', ())]).ok_or("a formula lacks a closing bracket")?;
        Ok(Term::Both(operator, Box::new(left), Box::new(right)))
    }

    /// What the next character stands for, if it is one of these.
    fn operator<T: Copy>(&mut self, known: &[(char, T)]) -> Option<T> {
        let rest = self.rest.trim_start();
        let (found, meaning) = known.iter().find(|(sign, _)| rest.starts_with(*sign))?;
        self.rest = rest.get(found.len_utf8()..)?;
        Some(*meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formula(text: &str) -> Result<Formula, String> {
        Formula::try_from(text.to_owned())
    }

    #[test]
    fn formulas_are_what_they_are_elsewhere() {
        let value = |id: &str| match id {
            "a" => Some(6.0),
            "b" => Some(3.0),
            "zero" => Some(0.0),
            _ => None,
        };
        for (text, expected) in [
            ("a", Some(6.0)),
            ("100 * a / (a + b)", Some(600.0 / 9.0)),
            ("a - b - 1", Some(2.0)),
            ("a / b / 2", Some(1.0)),
            ("a + b * 2", Some(12.0)),
            ("a / zero", None),
            ("zero / a", Some(0.0)),
            ("2 * max(a + b, 3 * b) - 1", Some(17.0)),
            ("max(b, max(zero, a))", Some(6.0)),
            ("a + unknown", None),
        ] {
            assert_eq!(formula(text).unwrap().result(value), expected, "{text}");
        }
        assert_eq!(formula("100 * a / (a + b)").unwrap().values(), ["a", "a", "b"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, told) in [
            ("", "lacks a value"),
            ("a +", "lacks a value"),
            ("(a + b", "closing bracket"),
            ("max a", "opening bracket"),
            ("max(a)", "second of two"),
            ("max(a, b", "closing bracket"),
            ("a b", "'b' is not expected"),
            ("1.2.3", "no number"),
            ("a % b", "'%' is not expected"),
        ] {
            let error = formula(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
