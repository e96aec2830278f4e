//! `diff`: what differs between the documents of two indices, field by field.
//!
//! `platformStats` and context fields of raw documents are left out: they say what was known at a moment, and nobody promises
//! that it is known again.

use std::collections::HashMap;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use super::print;
use crate::cli::{ExitCode, Failure};
use crate::config::Config;
use crate::document::without_context;
use crate::sink::StatusSender;
use crate::sink::elasticsearch::{ElasticsearchSink, difference};

/// Documents that are shown of each kind of difference.
const SHOWN_MAX: usize = 20;

pub(super) async fn run(config: &Config, left: &str, right: &str) -> Result<ExitCode, Failure> {
    let (stop, status) = (CancellationToken::new(), StatusSender::default());
    let sink = ElasticsearchSink::new(&config.elasticsearch, stop, status)
        .map_err(Failure::with(ExitCode::Misconfigured))?;
    let unreachable = |error: anyhow::Error| Failure::new(ExitCode::Unreachable, error);
    let mut only_left: HashMap<Box<str>, u64> = HashMap::new();
    let in_left = |id: String, json: Value| _ = only_left.insert(id.into(), hash(json));
    sink.scan(left, in_left).await.map_err(unreachable)?;
    let count_left = only_left.len();
    let (mut count_right, mut only_right, mut differing) = (0_usize, Vec::new(), Vec::new());
    let in_right = |id: String, json: Value| {
        count_right += 1;
        match only_left.remove(id.as_str()) {
            None => only_right.push(id),
            Some(known) if known != hash(json) => differing.push(id),
            Some(_) => {}
        }
    };
    sink.scan(right, in_right).await.map_err(unreachable)?;
    let only_left: Vec<String> = only_left.into_keys().map(String::from).collect();

    for (index, ids) in [(left, &only_left), (right, &only_right)] {
        for (id, json) in some(&sink, index, ids).await? {
            print(&format!("only in {index}: {id} {}", named(&json)))?;
        }
    }
    let (before, after) =
        (some(&sink, left, &differing).await?, some(&sink, right, &differing).await?);
    for (id, json) in before {
        let Some((_, other)) = after.iter().find(|(other, _)| *other == id) else { continue };
        print(&format!("differs: {id} {}", named(&json)))?;
        for change in difference::changes(&without_context(json), &without_context(other.clone())) {
            print(&format!("  {change}"))?;
        }
    }
    let (lefts, rights) = (only_left.len(), only_right.len());
    print(&format!(
        "{count_left} documents in {left}, {count_right} in {right}: {lefts} only in {left}, {rights} only in {right}, {} differ",
        differing.len()
    ))?;
    let is_same = lefts + rights + differing.len() == 0;
    Ok(if is_same { ExitCode::Ok } else { ExitCode::Different })
}

/// The first of these documents, in the order of their ids.
async fn some(
    sink: &ElasticsearchSink,
    index: &str,
    ids: &[String],
) -> Result<Vec<(String, Value)>, Failure> {
    let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    ids.sort_unstable();
    ids.truncate(SHOWN_MAX);
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = sink
        .with_ids(index, &ids)
        .await
        .map_err(|error| Failure::new(ExitCode::Unreachable, error))?;
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(found)
}

/// What a document is about, for people.
fn named(json: &Value) -> String {
    let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default();
    format!("{} {} {}", text("elastic_type"), text("event"), text("sessionId"))
}

/// Members are in the order of their names, so equal documents have equal texts.
fn hash(json: Value) -> u64 {
    xxh3_64(without_context(json).to_string().as_bytes())
}
