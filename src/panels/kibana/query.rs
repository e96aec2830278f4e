//! Conditions as KQL, the language of Kibana's search bar.

use crate::panels::model::{Condition, One, Scalar};
use crate::panels::source::{Source, exact};

/// Documents of these kinds of a source that meet all conditions.
pub(super) fn of_kinds(over: Source, kinds: &[String], when: &[Condition]) -> String {
    let kinds: Vec<String> = kinds.iter().map(|kind| quoted(kind)).collect();
    let kinds = format!("{} : {}", over.exact(over.kind()), any(&kinds));
    std::iter::once(kinds).chain(when.iter().map(condition)).collect::<Vec<_>>().join(" and ")
}

/// Documents that meet all conditions.
pub(super) fn all<'c>(when: impl IntoIterator<Item = &'c Condition>) -> String {
    when.into_iter().map(condition).collect::<Vec<_>>().join(" and ")
}

/// The same, where Kibana wants a query and there may be nothing to meet: then all documents.
pub(super) fn whatever(over: Source, when: &[Condition]) -> String {
    if when.is_empty() { format!("{} : *", over.exact(over.kind())) } else { all(when) }
}

fn condition(condition: &Condition) -> String {
    let field = exact(&condition.field().value);
    match condition {
        Condition::Is(One { value, .. }) => format!("{field} : {}", any(&scalars(value))),
        Condition::Not(One { value, .. }) => format!("not {field} : {}", any(&scalars(value))),
        Condition::Above(One { value, .. }) => format!("{field} > {value}"),
        Condition::AtLeast(One { value, .. }) => format!("{field} >= {value}"),
        Condition::AtMost(One { value, .. }) => format!("{field} <= {value}"),
        Condition::Has(_) => format!("{field} : *"),
    }
}

fn scalars(values: &[Scalar]) -> Vec<String> {
    let text = |value: &Scalar| match value {
        Scalar::Flag(flag) => flag.to_string(),
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => quoted(text),
    };
    values.iter().map(text).collect()
}

fn any(values: &[String]) -> String {
    match values {
        [one] => one.clone(),
        several => format!("({})", several.join(" or ")),
    }
}

/// Within quotes only a backslash and a quote mean something else than themselves.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::kibana::check::kql;
    use proptest::prelude::*;

    fn read(yaml: &str) -> Vec<Condition> {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn every_condition_has_its_words() {
        for (yaml, expected) in [
            ("[{is: {reason: [disconnect]}}]", r#"reason.keyword : "disconnect""#),
            ("[{is: {reason: [a, b]}}]", r#"reason.keyword : ("a" or "b")"#),
            ("[{not: {reason: [a, b]}}]", r#"not reason.keyword : ("a" or "b")"#),
            ("[{is: {abnormal: [true]}}]", "abnormal : true"),
            ("[{is: {dayOfWeek: [1, 7]}}]", "dayOfWeek : (1 or 7)"),
            ("[{above: {duration: 0.5}}]", "duration > 0.5"),
            ("[{atLeast: {joinDelta: -1}}]", "joinDelta >= -1"),
            ("[{atMost: {size: 10}}]", "size <= 10"),
            ("[{has: geoPoints}, {has: tenant}]", "geoPoints : * and tenant.keyword : *"),
        ] {
            assert_eq!(all(&read(yaml)), expected);
            kql::read(expected).unwrap();
        }
        assert_eq!(whatever(Source::Events, &[]), "elastic_type.keyword : *");
        assert_eq!(whatever(Source::Events, &read("[{has: tenant}]")), "tenant.keyword : *");
        assert_eq!(
            of_kinds(
                Source::Events,
                &["cdr".to_owned(), "kms".to_owned()],
                &read("[{has: tenant}]")
            ),
            r#"elastic_type.keyword : ("cdr" or "kms") and tenant.keyword : *"#
        );
    }

    proptest! {
        #[test]
        fn every_text_is_read_back_as_it_was(texts in prop::collection::vec(r#"(\PC|["\\'()*\n\t]|\\[tnru"])*"#, 1..4)) {
            let field = serde_saphyr::from_str("reason").unwrap();
            let value = texts.iter().cloned().map(Scalar::Text).collect();
            let query = all(&[Condition::Is(One { field, value })]);
            let term = kql::read(&query).unwrap();
            prop_assert_eq!(term, kql::Term::Is { field: "reason.keyword".to_owned(), values: texts.into_iter().map(kql::Word::Text).collect() });
        }
    }
}
