//! Expressions of Vega: what is read from an answer, reckoned and written.

use serde_json::json;

use super::super::columns::{class, counted_in};
use crate::document::fields::{self, Holds, Unit};
use crate::panels::formula::{Operator, Term};
use crate::panels::model::{Metric, Panel, Per, Split, Value};
use crate::panels::request::VALUE;

/// Seconds in the unit that people say them in.
fn span(seconds: &str) -> String {
    let minutes = format!("format({seconds} / 60, ',.1f') + ' min'");
    let hours = format!("format({seconds} / 3600, ',.1f') + ' h'");
    format!(
        "{seconds} < 120 ? format({seconds}, ',.1f') + ' s' : {seconds} < 7200 ? {minutes} : {hours}"
    )
}

/// A value for people.
pub(super) fn written(panel: &Panel, metric: &Metric, value: &str) -> String {
    let holds = metric.value.field().and_then(|field| fields::find(&field.value));
    let takes_over = matches!(metric.value, Value::Min(_) | Value::Max(_) | Value::Last(_));
    let written = match counted_in(panel, metric) {
        None if takes_over && holds == Some(Holds::Date) => {
            format!("timeFormat(toDate({value}), '%Y-%m-%d %H:%M:%S')")
        }
        None => format!("isArray({value}) ? join({value}, ', ') : '' + {value}"),
        Some((unit, is_whole)) => {
            let rate = match metric.per {
                None => "",
                Some(Per::Second) => "/s",
                Some(Per::Minute) => "/min",
            };
            let is_whole = is_whole && metric.per.is_none();
            let (format, suffix) = match unit {
                Unit::Number if is_whole => (",.0f", ""),
                Unit::Number => (",.2f", if rate.is_empty() { "" } else { " " }),
                Unit::Share => (".1%", ""),
                Unit::Percent => (".1f", " %"),
                Unit::Seconds => (",.1f", " s"),
                Unit::Milliseconds => (",.1f", " ms"),
                Unit::Bytes => (".3s", "B"),
                Unit::BitsPerSecond => (".3s", "bit/s"),
            };
            if unit == Unit::Seconds && metric.per.is_none() {
                span(value)
            } else {
                format!("format({value}, '{format}') + '{suffix}{rate}'")
            }
        }
    };
    format!("(isValid({value}) ? ({written}) : '–')")
}

/// The key of a part.
pub(super) fn key(split: &Split, bucket: &str) -> String {
    match split {
        Split::Values(by) if fields::find(&by.field.value) == Some(Holds::Flag) => {
            format!("{bucket}.key_as_string")
        }
        Split::Classes(by) => by.bounds().fold("''".to_owned(), |otherwise, (from, to)| {
            let is_it = match from {
                None => format!("!isValid({bucket}.from)"),
                Some(from) => format!("{bucket}.from == {from}"),
            };
            format!("{is_it} ? {} : {otherwise}", text(&class(by, from, to)))
        }),
        _ => format!("{bucket}.key"),
    }
}

/// A value as it stands in the answer.
pub(super) fn value(metric: &Metric, part: &str) -> String {
    let own = format!("{part}['{}']", metric.id.value);
    let inner = match (&metric.value, metric.when.is_empty()) {
        (Value::Count, true) => return format!("{part}.doc_count"),
        (Value::Count, false) => return format!("{own}.doc_count"),
        (_, true) => own,
        (_, false) => format!("{own}['{VALUE}']"),
    };
    match &metric.value {
        Value::Percentile(_) => format!("{inner}.values[0].value"),
        Value::Last(of) => {
            let hits = format!("{inner}['{VALUE}'].hits.hits");
            let mut said = format!("{hits}[0]._source");
            let mut is_said = format!("length({hits}) > 0");
            for member in of.value.split('.') {
                said = format!("{said}['{member}']");
                is_said = format!("{is_said} && isValid({said})");
            }
            format!("{is_said} ? {said} : null")
        }
        _ => format!("{inner}.value"),
    }
}

/// A formula.
pub(super) fn term(term: &Term) -> String {
    match term {
        Term::Number(number) => number.to_string(),
        Term::Value(id) => format!("datum.m_{id}"),
        Term::Both(operator, left, right) => {
            let (left, right) = (self::term(left), self::term(right));
            let sign = match operator {
                Operator::Add => '+',
                Operator::Subtract => '-',
                Operator::Multiply => '*',
                Operator::Divide => '/',
                Operator::Max => return format!("max({left}, {right})"),
            };
            format!("({left} {sign} {right})")
        }
    }
}

/// A text of Vega's language.
pub(super) fn text(text: &str) -> String {
    json!(text).to_string()
}
