//! What JSON has to look like: members that are not named are refused, at every depth and within texts that hold JSON.

use serde_json::Value as Json;

/// What a value has to look like.
pub(super) enum Shape {
    Text,
    Flag,
    Number,
    Null,
    /// Anything here: it is compared as a whole elsewhere.
    Elsewhere,
    /// One of these texts.
    Word(&'static [&'static str]),
    /// This, or null.
    Maybe(&'static Shape),
    /// One of these, whichever fits.
    Either(&'static [Shape]),
    /// As many as one likes.
    List(&'static Shape),
    /// An object whose members have any name.
    Each(&'static Shape),
    /// An object of these members alone.
    Object(&'static [Member]),
    /// A text that holds JSON.
    Coded(&'static Shape),
    /// An object whose shape is told by one of its members.
    By(&'static str, &'static [(&'static str, Shape)]),
}

/// A member of an object.
pub(super) enum Member {
    Must(&'static str, Shape),
    May(&'static str, Shape),
}

impl Member {
    fn parts(&self) -> (&'static str, &Shape, bool) {
        match self {
            Self::Must(name, shape) => (name, shape, true),
            Self::May(name, shape) => (name, shape, false),
        }
    }
}

impl Shape {
    /// Tells where a value is not so.
    pub(super) fn check(&self, value: &Json, at: &str, told: &mut Vec<String>) {
        match (self, value) {
            (Self::Text, Json::String(_))
            | (Self::Flag, Json::Bool(_))
            | (Self::Number, Json::Number(_))
            | (Self::Null | Self::Maybe(_), Json::Null)
            | (Self::Elsewhere, _) => {}
            (Self::Maybe(shape), value) => shape.check(value, at, told),
            (Self::Word(words), Json::String(word)) => {
                if !words.contains(&word.as_str()) {
                    told.push(format!("{at} is {word:?}, none of {words:?}"));
                }
            }
            (Self::Either(shapes), value) => {
                let fits = |shape: &Shape| {
                    let mut told = Vec::new();
                    shape.check(value, at, &mut told);
                    told.is_empty()
                };
                if !shapes.iter().any(fits) {
                    told.push(format!("{at} is nothing that may be there"));
                }
            }
            (Self::List(shape), Json::Array(items)) => {
                for (place, item) in items.iter().enumerate() {
                    shape.check(item, &format!("{at}[{place}]"), told);
                }
            }
            (Self::Each(shape), Json::Object(members)) => {
                for (name, member) in members {
                    shape.check(member, &format!("{at}.{name}"), told);
                }
            }
            (Self::Object(members), Json::Object(_)) => object(members, value, at, told),
            (Self::Coded(shape), Json::String(text)) => match serde_json::from_str(text) {
                Ok(value) => shape.check(&value, at, told),
                Err(error) => told.push(format!("{at} holds no JSON: {error}")),
            },
            (Self::By(member, shapes), Json::Object(members)) => {
                let word = members.get(*member).and_then(Json::as_str).unwrap_or_default();
                match shapes.iter().find(|(known, _)| *known == word) {
                    Some((_, shape)) => shape.check(value, at, told),
                    None => told.push(format!("{at}.{member} is {word:?}, which nobody knows")),
                }
            }
            _ => told.push(format!("{at} is of another kind")),
        }
    }
}

fn object(members: &[Member], value: &Json, at: &str, told: &mut Vec<String>) {
    for member in members {
        let (name, shape, is_needed) = member.parts();
        match value.get(name) {
            Some(member) => shape.check(member, &format!("{at}.{name}"), told),
            None if is_needed => told.push(format!("{at} lacks {name}")),
            None => {}
        }
    }
    for name in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if !members.iter().any(|member| member.parts().0 == name) {
            told.push(format!("{at} has {name}, which nobody knows"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Member::{May, Must};
    use super::Shape::{Coded, Each, Either, Flag, List, Maybe, Number, Object, Text, Word};
    use super::*;
    use serde_json::json;

    const SHAPE: Shape = Object(&[
        Must("text", Text),
        Must("inner", Coded(&Object(&[Must("number", Number)]))),
        May("list", List(&Flag)),
        May("word", Word(&["one", "two"])),
        May("maybe", Maybe(&Number)),
        May("either", Either(&[Text, Number])),
        May("each", Each(&Number)),
        May("by", Shape::By("kind", &[("a", Object(&[Must("kind", Text)]))])),
    ]);

    #[test]
    fn every_departure_is_told_with_its_place() {
        let good = json!({
            "text": "", "inner": "{\"number\":1}", "list": [true], "word": "one", "maybe": null, "either": 1,
            "each": { "x": 1 }, "by": { "kind": "a" },
        });
        for (name, value, expected) in [
            ("text", json!("x"), None),
            ("text", json!(1), Some("it.text is of another kind")),
            ("inner", json!({ "number": 1 }), Some("it.inner is of another kind")),
            ("inner", json!("{"), Some("it.inner holds no JSON")),
            ("inner", json!("{\"number\":\"1\"}"), Some("it.inner.number is of another kind")),
            ("inner", json!("{}"), Some("it.inner lacks number")),
            ("list", json!([true, 1]), Some("it.list[1] is of another kind")),
            ("word", json!("three"), Some("it.word is \"three\"")),
            ("maybe", json!("x"), Some("it.maybe is of another kind")),
            ("either", json!(true), Some("it.either is nothing")),
            ("each", json!({ "x": "y" }), Some("it.each.x is of another kind")),
            ("by", json!({ "kind": "b" }), Some("it.by.kind is \"b\"")),
            ("by", json!({ "kind": "a", "more": 1 }), Some("it.by has more")),
            ("other", json!(1), Some("it has other")),
        ] {
            let mut value_with = good.clone();
            value_with[name] = value;
            let mut told = Vec::new();
            SHAPE.check(&value_with, "it", &mut told);
            match expected {
                None => assert_eq!(told, Vec::<String>::new()),
                Some(expected) => {
                    assert!(told.len() == 1 && told[0].starts_with(expected), "{name}: {told:?}");
                }
            }
        }
    }
}
