//! Panels that nobody described, of all documents: for what the page asks besides.

use serde_saphyr::{Location, Spanned};

use super::model::{ByValues, Expect, Form, Mark, Metric, Panel, Split, Value};
use super::source::Source;
use crate::document::KINDS;

/// Values of a field that are given at most.
const VALUES_MAX: u32 = 200;

/// The values of a field, the most frequent first, with how many documents have each.
#[must_use]
pub fn values(field: &str) -> Panel {
    let count = Metric {
        id: nowhere("count"),
        label: "Documents".to_owned(),
        value: Value::Count,
        when: Vec::new(),
        unit: None,
        per: None,
        hidden: false,
        right: false,
        bad: false,
    };
    let split = Split::Values(ByValues {
        field: nowhere(field),
        label: field.to_owned(),
        size: VALUES_MAX,
        missing: None,
        order: None,
    });
    Panel { by: vec![split], show: vec![count], ..of_all(field, Form::Table) }
}

/// When something happened that is marked in panels over time, the newest first.
#[must_use]
pub fn times(mark: &Mark) -> Panel {
    Panel {
        when: mark.when.clone(),
        columns: vec![nowhere("timestamp")],
        ..of_all(&mark.id.value, Form::List)
    }
}

fn of_all(id: &str, form: Form) -> Panel {
    Panel {
        id: nowhere(id),
        width: 0,
        title: String::new(),
        question: String::new(),
        form,
        over: Source::Events,
        of: KINDS.iter().map(|kind| (*kind).to_owned()).collect(),
        when: Vec::new(),
        by: Vec::new(),
        show: Vec::new(),
        columns: Vec::new(),
        oldest_first: false,
        empty: String::new(),
        expect: Expect::default(),
    }
}

/// A word that stands in no file.
fn nowhere(text: &str) -> Spanned<String> {
    Spanned::new(text.to_owned(), Location::UNKNOWN, Location::UNKNOWN)
}
