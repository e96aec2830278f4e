//! Charts in Vega-Lite: the request asks for fields that are there, and what is drawn was computed before.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::document::fields;
use crate::panels::kibana::check::{holds, list, text};

/// Newer than the libraries of OpenSearch Dashboards 2 is told as a warning in each panel.
const SCHEMA: &str = "https://vega.github.io/schema/vega-lite/v4.json";

/// Tells what is wrong with a specification.
pub(super) fn check(specification: &str, at: &str, told: &mut Vec<String>) {
    let Ok(specification) = serde_json::from_str::<Json>(specification) else {
        return told.push(format!("{at}: the specification is no JSON"));
    };
    if text(&specification, "/$schema") != SCHEMA {
        told.push(format!("{at} is of another version of Vega-Lite"));
    }
    let url = specification.pointer("/data/url").unwrap_or(&Json::Null);
    let narrowed = url.get("%context%") == Some(&Json::Bool(true));
    if !narrowed || text(url, "/%timefield%") != "timestamp" || text(url, "/index").is_empty() {
        told.push(format!("{at} is not narrowed as the dashboard is"));
    }
    if url.pointer("/body/query").is_some() {
        told.push(format!("{at} has a query, which does not go with that of the dashboard"));
    }
    let asked = url.pointer("/body/aggs/panel").unwrap_or(&Json::Null);
    let first = list(asked, "/filter/bool/filter").first();
    if first.and_then(|filter| filter.pointer("/terms/elastic_type.keyword")).is_none() {
        told.push(format!("{at} does not say which elastic_type it looks at"));
    }
    asked_for(asked, at, told);
    let mut known: BTreeSet<String> = BTreeSet::from(["doc_count".to_owned()]);
    computed(list(&specification, "/transform"), &mut known, at, told);
    let layers = list(&specification, "/layer");
    let parts = if layers.is_empty() { std::slice::from_ref(&specification) } else { layers };
    for part in parts {
        if !layers.is_empty() {
            computed(list(part, "/transform"), &mut known.clone(), at, told);
        }
        let encoding = part.get("encoding").and_then(Json::as_object).into_iter().flatten();
        for (name, channel) in encoding {
            let channels = channel.as_array().map_or(std::slice::from_ref(channel), Vec::as_slice);
            for channel in
                channels.iter().filter(|channel| !known.contains(text(channel, "/field")))
            {
                told.push(format!(
                    "{at}: {name} is drawn by {:?}, which is nothing",
                    text(channel, "/field")
                ));
            }
        }
    }
}

/// Fields of a request, by wherever they can be named.
fn asked_for(asked: &Json, at: &str, told: &mut Vec<String>) {
    for (name, member) in asked.as_object().into_iter().flatten() {
        let named: Vec<&str> = match (name.as_str(), member) {
            // Whether there is one can be asked of a text by either name.
            ("exists", member) => vec![text(member, "/field").trim_end_matches(".keyword")],
            ("sort" | "_source", _) => continue,
            ("field", Json::String(field)) => vec![field],
            ("terms" | "range", Json::Object(by)) if !by.contains_key("field") => {
                by.keys().map(String::as_str).collect()
            }
            (_, member) => {
                asked_for(member, at, told);
                continue;
            }
        };
        for field in named {
            let is_there = name == "exists" && fields::find(field).is_some();
            if let (false, Err(problem)) = (is_there, holds(field)) {
                told.push(format!("{at}: {problem}"));
            }
        }
    }
    for item in asked.as_array().into_iter().flatten() {
        asked_for(item, at, told);
    }
}

/// What steps compute is added to `known`; what they read has to be there already.
fn computed(steps: &[Json], known: &mut BTreeSet<String>, at: &str, told: &mut Vec<String>) {
    for step in steps {
        let expression = [text(step, "/calculate"), text(step, "/filter")].concat();
        let mut read: Vec<&str> = expression.split("datum.").skip(1).map(word).collect();
        for pointer in ["/flatten", "/fold", "/groupby"] {
            read.extend(list(step, pointer).iter().filter_map(Json::as_str));
        }
        for pointer in ["/window", "/sort"] {
            let fields = list(step, pointer).iter().map(|part| text(part, "/field"));
            // A number of rows reads none.
            read.extend(fields.filter(|field| !field.is_empty()));
        }
        for name in read.into_iter().filter(|name| !known.contains(*name)) {
            told.push(format!("{at} reads {name:?} before it is computed"));
        }
        known.extend(step.get("as").and_then(Json::as_str).map(str::to_owned));
        known.extend(list(step, "/as").iter().filter_map(Json::as_str).map(str::to_owned));
        known.extend(list(step, "/window").iter().map(|part| text(part, "/as").to_owned()));
    }
}

/// The name at the beginning of a text.
fn word(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}
