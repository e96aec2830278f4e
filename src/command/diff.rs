//! `diff`: what differs between the documents of two indices, field by field.
//!
//! `platformStats` and context fields of raw documents are left out: they say what was known at a moment, and nobody promises
//! that it is known again.
//!
//! Both indices are read once as hashes of id and content, 16 bytes for every document of both, up to 32 while they are read; two
//! ids of one hash would count as one document. Only where something differs they are read a second time, for the first ids of
//! each kind.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use super::{print, refresh};
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
    for index in [left, right] {
        refresh(&sink, index).await;
    }
    let in_left = hashes(&sink, left).await?;
    let in_right = hashes(&sink, right).await?;
    let (count_left, count_right) = (in_left.len(), in_right.len());
    let compared = compare(in_left, in_right);
    let first = first_ids(&sink, left, [&compared.only_left, &compared.differing]).await?;
    let [only_left, differing] = first;
    let [only_right] = first_ids(&sink, right, [&compared.only_right]).await?;

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
    let counts = [&compared.only_left, &compared.only_right, &compared.differing].map(Vec::len);
    let [lefts, rights, differ] = counts;
    print(&format!(
        "{count_left} documents in {left}, {count_right} in {right}: {lefts} only in {left}, {rights} only in {right}, {differ} differ"
    ))?;
    let is_same = counts == [0; 3];
    Ok(if is_same { ExitCode::Ok } else { ExitCode::Different })
}

/// A document: hashes of its id and of its content.
type Hashed = (u64, u64);

/// Hashes of ids, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Compared {
    only_left: Vec<u64>,
    only_right: Vec<u64>,
    differing: Vec<u64>,
}

/// All documents of an index, in the order of their hashes.
async fn hashes(sink: &ElasticsearchSink, index: &str) -> Result<Vec<Hashed>, Failure> {
    let mut all = Vec::new();
    sink.scan(index, |id, json| all.push((xxh3_64(id.as_bytes()), hash(json))))
        .await
        .map_err(Failure::with(ExitCode::Unreachable))?;
    all.sort_unstable();
    all.dedup_by_key(|(id, _)| *id);
    Ok(all)
}

/// Both in the order of their hashes.
fn compare(left: Vec<Hashed>, right: Vec<Hashed>) -> Compared {
    let mut compared = Compared::default();
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (None, None) => return compared,
            (Some(one), other) if other.is_none_or(|other| one.0 < other.0) => {
                compared.only_left.extend(left.next().map(|(id, _)| id));
            }
            (one, Some(other)) if one.is_none_or(|one| other.0 < one.0) => {
                compared.only_right.extend(right.next().map(|(id, _)| id));
            }
            _ => {
                let (one, other) = (left.next(), right.next());
                compared.differing.extend(one.filter(|_| one != other).map(|(id, _)| id));
            }
        }
    }
}

/// The first ids of each kind in their order, found by their hashes.
async fn first_ids<const KINDS: usize>(
    sink: &ElasticsearchSink,
    index: &str,
    kinds: [&Vec<u64>; KINDS],
) -> Result<[Vec<String>; KINDS], Failure> {
    let mut first = kinds.map(|hashes| (hashes, BTreeSet::new()));
    if first.iter().any(|(hashes, _)| !hashes.is_empty()) {
        let each = |id: String, _: Value| {
            let hash = xxh3_64(id.as_bytes());
            let own = first.iter_mut().find(|(hashes, _)| hashes.binary_search(&hash).is_ok());
            if let Some((_, ids)) = own {
                keep_first(ids, id);
            }
        };
        sink.scan(index, each).await.map_err(Failure::with(ExitCode::Unreachable))?;
    }
    Ok(first.map(|(_, ids)| ids.into_iter().collect()))
}

/// Adds one, and forgets the last if there are too many.
fn keep_first(ids: &mut BTreeSet<String>, id: String) {
    ids.insert(id);
    if ids.len() > SHOWN_MAX {
        ids.pop_last();
    }
}

/// These documents, in the order of their ids.
async fn some(
    sink: &ElasticsearchSink,
    index: &str,
    ids: &[String],
) -> Result<Vec<(String, Value)>, Failure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let found = sink.with_ids(index, &ids).await;
    let mut found = found.map_err(Failure::with(ExitCode::Unreachable))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_one_side_alone_and_what_differs_is_found() {
        let (left, right) =
            (vec![(1, 1), (2, 2), (4, 4), (7, 7)], vec![(2, 2), (3, 3), (4, 9), (8, 8), (9, 9)]);
        let expected =
            Compared { only_left: vec![1, 7], only_right: vec![3, 8, 9], differing: vec![4] };
        assert_eq!(size_of::<Hashed>(), 16, "what every document costs");
        assert_eq!(compare(left.clone(), right), expected);
        assert_eq!(compare(left.clone(), left.clone()), Compared::default());
        let expected = Compared { only_left: vec![1, 2, 4, 7], ..Compared::default() };
        assert_eq!(compare(left, Vec::new()), expected);
    }

    #[test]
    fn only_the_first_ids_are_kept() {
        let mut ids = BTreeSet::new();
        (0..100).rev().for_each(|number| keep_first(&mut ids, format!("{number:03}")));
        let expected: Vec<String> = (0..SHOWN_MAX).map(|number| format!("{number:03}")).collect();
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), expected);
    }
}
