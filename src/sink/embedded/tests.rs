use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::search::Sort;

fn open(folder: &Path) -> EmbeddedIndex {
    let config = EmbeddedConfig { heap_bytes: NonZeroUsize::new(20_000_000).unwrap() };
    EmbeddedIndex::open(folder, &config, CancellationToken::new(), watch::Sender::default())
        .unwrap()
}

fn document(id: &str, version: Option<u64>, json: &str) -> Document {
    Document {
        id: id.into(),
        index_time: 7,
        elastic_type: "cdr".into(),
        version,
        json: Bytes::copy_from_slice(json.as_bytes()),
    }
}

fn write(index: &EmbeddedIndex, documents: &[Document]) -> Vec<Written> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(index.write(documents)).unwrap()
}

fn ids(index: &EmbeddedIndex, search: &Search) -> Vec<String> {
    let page = index.search(&Search { limit: 100, ..search.clone() }).unwrap();
    assert_eq!(page.total, page.documents.len() as u64);
    page.documents.into_iter().map(|found| found.id).collect()
}

fn filter(field: &str, values: &[&str]) -> Search {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Search { filters: vec![(field.to_owned(), values)], ..Search::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_greatest_version_stays_in_any_order(
        batches in prop::collection::vec(prop::collection::vec((0u8..6, prop::option::of(1u64..5)), 1..12), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut model: BTreeMap<String, (Option<u64>, String)> = BTreeMap::new();
        for (batch, entries) in batches.into_iter().enumerate() {
            let index = open(folder.path());
            let mut documents = Vec::new();
            let mut expected = Vec::new();
            for (at, (id, version)) in entries.into_iter().enumerate() {
                // Raw documents and summaries never share ids.
                let id = format!("{}{id}", if version.is_some() { "s" } else { "r" });
                let json = format!(r#"{{"timestamp":{},"elastic_type":"x"}}"#, batch * 100 + at);
                expected.push(match (version, model.get(&id)) {
                    (None, Some(_)) => Written::Existed,
                    (Some(own), Some((Some(known), _))) if own < *known => Written::Older,
                    _ => {
                        model.insert(id.clone(), (version, json.clone()));
                        Written::Stored
                    }
                });
                documents.push(document(&id, version, &json));
            }
            prop_assert_eq!(write(&index, &documents), expected);
            // Written again, nothing changes.
            for (answer, document) in write(&index, &documents).iter().zip(&documents) {
                prop_assert!(*answer != Written::Existed || document.version.is_none());
            }
            for (id, (_, json)) in &model {
                let known = index.get(id).unwrap().unwrap();
                if !documents.iter().any(|document| *document.id == **id) {
                    prop_assert_eq!(known.source.get(), json.as_str());
                }
            }
            prop_assert_eq!(index.count(), model.len() as u64);
        }
    }
}

#[test]
fn what_is_searched_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path());
    let long = "x".repeat(40_000);
    let documents = [
        document(
            "a",
            None,
            r#"{"elastic_type":"cdr","event":"participantJoined","sessionId":"daily-standup","timestamp":1,"client":{"browser":"Chrome"},"duration":3}"#,
        ),
        document(
            "b",
            Some(1),
            r#"{"elastic_type":"sessionSummary","sessionId":"897","timestamp":2,"abnormal":true,"users":{"numberOfElements":2,"content":[{"id":"u"}]}}"#,
        ),
        document("c", Some(1), r#"{"elastic_type":"superseded","sessionId":"897","timestamp":3}"#),
        document(
            "d",
            None,
            &format!(
                r#"{{"elastic_type":"cdr","sessionId":"Daily Review","clientData":"{long}","timestamp":2}}"#
            ),
        ),
    ];
    assert_eq!(write(&index, &documents), vec![Written::Stored; 4]);
    assert_eq!(ids(&index, &Search::default()), ["b", "d", "a"]);
    assert_eq!(ids(&index, &Search { sort: Sort::oldest(), ..Search::default() }), ["a", "b", "d"]);
    assert_eq!(ids(&index, &filter("elastic_type", &["cdr"])), ["d", "a"]);
    assert_eq!(
        ids(&index, &filter("elastic_type.keyword", &["cdr", "sessionSummary"])),
        ["b", "d", "a"]
    );
    assert_eq!(ids(&index, &filter("client.browser", &["Chrome"])), ["a"]);
    assert_eq!(ids(&index, &filter("client.browser", &["chrome"])), Vec::<String>::new());
    assert_eq!(ids(&index, &filter("sessionId", &["897"])), ["b"]);
    assert_eq!(ids(&index, &filter("duration", &["3"])), ["a"]);
    assert_eq!(ids(&index, &filter("abnormal", &["true"])), ["b"]);
    assert_eq!(ids(&index, &filter("users.numberOfElements", &["2"])), ["b"]);
    assert_eq!(ids(&index, &Search { text: "dai".into(), ..Search::default() }), ["d", "a"]);
    assert_eq!(ids(&index, &Search { text: "daily STAND".into(), ..Search::default() }), ["a"]);
    assert_eq!(
        ids(&index, &Search { from: Some(2), to: Some(3), ..Search::default() }),
        ["b", "d"]
    );
    // What has no value comes last, whichever way; of equals the newest first.
    for (sort, order) in [
        ("sessionId:up", ["b", "d", "a"]),
        ("sessionId:down", ["a", "d", "b"]),
        ("duration:up", ["a", "b", "d"]),
        ("duration:down", ["a", "b", "d"]),
        ("users.numberOfElements:down", ["b", "d", "a"]),
        ("recordings.numberOfElements:up", ["b", "d", "a"]),
    ] {
        let sort = sort.parse().unwrap();
        assert_eq!(ids(&index, &Search { sort, ..Search::default() }), order);
    }
    let second = index.search(&Search { limit: 1, offset: 2, ..Search::default() }).unwrap();
    assert_eq!((second.total, second.documents[0].id.as_str()), (3, "a"));
    assert!(matches!(
        index.search(&Search { limit: 5000, ..Search::default() }),
        Err(SearchError::Refused(_))
    ));
    assert!(index.get("d").unwrap().unwrap().source.get().contains(&long));
}

#[test]
fn odd_documents_do_not_keep_others_out() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path());
    let documents = [
        document("no object", None, "[1]"),
        document("no json", None, "{"),
        document(
            "odd",
            None,
            r#"{"":"x","a.b":1,"big":1e308,"neg":-9223372036854775808,"deep":{"a":{"b":[[1],{"c":null}]}}}"#,
        ),
        document("plain", None, r#"{"timestamp":1}"#),
    ];
    let answers = write(&index, &documents);
    assert!(
        matches!(
            answers.as_slice(),
            [Written::Dead(_), Written::Dead(_), Written::Stored, Written::Stored]
        ),
        "{answers:?}"
    );
    assert_eq!(index.count(), 2);
}

#[test]
fn what_was_not_committed_is_gone_and_the_folder_is_usable() {
    let folder = tempfile::tempdir().unwrap();
    {
        let index = open(folder.path());
        write(&index, &[document("a", None, r#"{"timestamp":1}"#)]);
        let guard = index.writer.lock().unwrap();
        let prepared = index.prepare(&document("b", None, r#"{"timestamp":1}"#)).unwrap();
        guard.as_ref().unwrap().add_document(prepared).unwrap();
    }
    // What a process leaves that was killed while it replaced a file.
    std::fs::write(folder.path().join(".tmpAbC123"), "half").unwrap();
    assert_eq!(open(folder.path()).count(), 1);
    assert!(!folder.path().join(".tmpAbC123").exists());
}

#[test]
fn an_index_that_lost_its_names_is_not_taken_for_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    write(&open(folder.path()), &[document("a", None, r#"{"timestamp":1}"#)]);
    EmbeddedIndex::check(folder.path()).unwrap();
    std::fs::remove_file(folder.path().join("meta.json")).unwrap();
    let error = EmbeddedIndex::check(folder.path()).unwrap_err().to_string();
    assert!(error.contains("meta.json is missing") && error.contains("move the folder"), "{error}");
    let config = EmbeddedConfig { heap_bytes: NonZeroUsize::new(20_000_000).unwrap() };
    let (stop, status) = (CancellationToken::new(), watch::Sender::default());
    EmbeddedIndex::open(folder.path(), &config, stop, status).unwrap_err();
    // Nothing yet is nothing lost, and looking begins nothing.
    let new = tempfile::tempdir().unwrap();
    EmbeddedIndex::check(new.path()).unwrap();
    assert_eq!(std::fs::read_dir(new.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_of_another_format_or_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { heap_bytes: NonZeroUsize::new(20_000_000).unwrap() };
    let again = || {
        EmbeddedIndex::open(
            folder.path(),
            &config,
            CancellationToken::new(),
            watch::Sender::default(),
        )
    };
    let first = open(folder.path());
    assert!(matches!(again(), Err(EmbeddedError::Unusable { .. })));
    drop(first);
    std::fs::write(folder.path().join(FORMAT_FILE), "99").unwrap();
    assert!(matches!(again(), Err(EmbeddedError::Format { .. })));
    std::fs::write(folder.path().join(FORMAT_FILE), FORMAT).unwrap();
    std::fs::write(folder.path().join("meta.json"), "garbage").unwrap();
    let error = again().unwrap_err().to_string();
    assert!(error.contains("callscope import"), "{error}");
}
