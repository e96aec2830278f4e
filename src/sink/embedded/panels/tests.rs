//! What every split and every value is, reckoned by hand.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::*;
use crate::config::Config;
use crate::document::Document;
use crate::panels::zone::Zone;
use crate::panels::{self, Dashboard};
use crate::sink::{Sink, StatusSender, Written};

const DAY: i64 = 86_400_000;
const HOUR: i64 = 3_600_000;
/// Midnight in UTC.
const START: i64 = 1_700_006_400_000;

fn documents() -> Vec<Json> {
    let session = |hour: i64, id: &str, duration: i64, more: Json| {
        let mut json = json!({
            "elastic_type": "sessionSummary", "timestamp": START + hour * HOUR, "sessionId": id, "uniqueSessionId": format!("{id}_{hour}"),
            "duration": duration, "abnormal": false, "users": {"numberOfElements": 2, "content": []}, "problems": [],
        });
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json
    };
    vec![
        session(1, "a", 10, json!({"tenant": "x", "client": {"browser": "Firefox"}})),
        session(
            2,
            "a",
            30,
            json!({"tenant": "x", "abnormal": true, "problems": ["iceFailed", "mediaGap"]}),
        ),
        session(
            23,
            "b",
            70,
            json!({"tenant": "z", "geoPoints": "40.4,-3.7", "problems": ["iceFailed"]}),
        ),
        session(
            26,
            "c",
            100,
            json!({"geoPoints": "40.5,-3.6", "users": {"numberOfElements": 9, "content": []}}),
        ),
        json!({"elastic_type": "userSummary", "timestamp": START + HOUR, "sessionId": "a", "duration": 1000}),
        session(99, "late", 1000, json!({})),
    ]
}

fn index(folder: &std::path::Path, batches: &[Vec<Json>]) -> EmbeddedIndex {
    let config = Config::load(None, std::iter::empty()).unwrap().config;
    let (index, status) = (EmbeddedIndex::open, StatusSender::default());
    let index = index(folder, &config.embedded, Default::default(), status).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut number = 0;
    for batch in batches {
        let documents: Vec<Document> = batch
            .iter()
            .map(|json| {
                number += 1;
                Document {
                    id: number.to_string().into(),
                    index_time: json["timestamp"].as_i64().unwrap(),
                    elastic_type: json["elastic_type"].as_str().unwrap().to_owned().into(),
                    version: Some(1),
                    json: Bytes::from(json.to_string()),
                }
            })
            .collect();
        let written = runtime.block_on(index.write(&documents)).unwrap();
        assert!(written.iter().all(|written| *written == Written::Stored));
    }
    index
}

/// A panel over all sessions, in the words of a description.
fn board(panel: &str) -> Dashboard {
    let text = format!(
        "{{id: board, title: Board, question: What?, rows: [{{height: 10, panels: [{{id: one, width: 48, title: One, question: What?, \
         of: [sessionSummary], empty: None., {panel}}}]}}]}}"
    );
    let read = panels::read([("test.yaml", text.as_str())]);
    read.unwrap_or_else(|problems| panic!("{text}\n{}", panels::told(&problems))).remove(0)
}

fn view() -> View {
    View { from: START, to: START + 2 * DAY, zone: Zone::default(), filters: Vec::new() }
}

/// Keys and values of all parts, as the page gets them.
fn shown(index: &EmbeddedIndex, panel: &str, view: &View) -> Json {
    let board = board(panel);
    let answer = index.panel(board.panels().next().unwrap(), view).unwrap();
    let parts = answer.parts.into_iter().map(|part| json!([part.keys, part.values]));
    Json::Array(parts.collect())
}

#[test]
fn every_split_and_every_value_is_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let documents = documents();
    // One batch is one segment.
    let index = index(folder.path(), &[documents[..2].to_vec(), documents[2..].to_vec()]);
    let all = "show: [{id: n, label: N, value: count}]";
    for (panel, expected) in [
        (
            "form: numbers, show: [{id: n, label: N, value: count}, {id: s, label: S, value: {sum: duration}}, \
             {id: m, label: M, value: {mean: duration}}, {id: least, label: L, value: {min: duration}}, \
             {id: most, label: G, value: {max: duration}}, {id: d, label: D, value: {distinct: sessionId}}, \
             {id: p, label: P, value: {percentile: {field: duration, at: 50}}}, {id: l, label: Last, value: {last: sessionId}}]",
            json!([[[], [4.0, 210.0, 52.5, 10.0, 100.0, 3.0, 50.0, "c"]]]),
        ),
        (
            "form: numbers, show: [{id: bad, label: Bad, value: count, when: [{is: {abnormal: [true]}}]}, \
             {id: n, label: N, value: count, hidden: true}, {id: share, label: S, value: {formula: 100 * bad / n}, unit: percent}, \
             {id: none, label: None, value: {mean: duration}, when: [{is: {reason: [unheard]}}]}]",
            json!([[[], [1.0, 25.0, null]]]),
        ),
        (
            &format!(
                "form: donut, by: [{{values: {{field: problems, label: P, size: 5}}}}], {all}"
            ),
            json!([[["iceFailed"], [2.0]], [["mediaGap"], [1.0]]]),
        ),
        (
            &format!(
                "form: donut, by: [{{values: {{field: tenant, label: T, size: 2, missing: none}}}}], {all}"
            ),
            json!([[["x"], [2.0]], [["none"], [1.0]]]),
        ),
        (
            "form: table, by: [{values: {field: tenant, label: T, size: 2, order: s}}, {values: {field: abnormal, label: A, size: 5}}], \
             show: [{id: s, label: S, value: {sum: duration}}]",
            json!([[["z", "false"], [70.0]], [["x", "false"], [10.0]], [["x", "true"], [30.0]]]),
        ),
        (
            &format!(
                "form: bar, by: [{{classes: {{field: duration, label: D, at: [10, 50, 500]}}}}], {all}"
            ),
            json!([[[null], [0.0]], [[10.0], [2.0]], [[50.0], [2.0]], [[500.0], [0.0]]]),
        ),
        (
            &format!(
                "form: bar, by: [{{steps: {{field: users.numberOfElements, label: U, every: 4}}}}], {all}"
            ),
            json!([[[0.0], [3.0]], [[8.0], [1.0]]]),
        ),
        (
            &format!(
                "form: donut, by: [{{cases: {{label: C, cases: [{{label: long, when: [{{above: {{duration: 30}}}}]}}, \
                 {{label: none, when: [{{atMost: {{duration: 1}}}}]}}]}}}}], {all}"
            ),
            json!([[["long"], [2.0]], [["none"], [0.0]]]),
        ),
        (
            &format!(
                "form: table, when: [{{has: geoPoints}}], by: [{{time: {{field: timestamp, every: day}}}}], {all}"
            ),
            json!([[[START], [1.0]], [[START + DAY], [1.0]]]),
        ),
        (
            &format!("form: map, by: [{{tiles: {{field: geoPoints, zoom: 6}}}}], {all}"),
            json!([[[[6, 31, 24]], [2.0]]]),
        ),
        (
            "form: line, by: [{time: {field: timestamp, every: day}}], \
             show: [{id: n, label: N, value: count}, {id: r, label: R, value: {running: n}}, \
             {id: h, label: H, value: count, per: minute}]",
            json!([[[START], [3.0, 3.0, 3.0 / 1440.0]], [[START + DAY], [1.0, 4.0, 1.0 / 1440.0]]]),
        ),
        (
            "form: list, columns: [sessionId, client.browser], when: [{not: {tenant: [z]}}, {atLeast: {duration: 30}}]",
            json!([[[], ["c", null]], [[], ["a", null]]]),
        ),
    ] {
        assert_eq!(shown(&index, panel, &view()), expected, "{panel}");
    }
}

#[test]
fn days_are_those_of_whoever_looks_and_filters_narrow() {
    let folder = tempfile::tempdir().unwrap();
    let index = index(folder.path(), &[documents()]);
    let panel = "form: table, by: [{time: {field: timestamp, every: day}}], show: [{id: n, label: N, value: count}]";
    let east = View { zone: Zone::named("Africa/Maputo").unwrap(), ..view() };
    let midnight = START - 2 * HOUR;
    let expected = json!([[[midnight], [2.0]], [[midnight + DAY], [2.0]]]);
    assert_eq!(shown(&index, panel, &east), expected);
    let value = |text: &str| Choice::Value(text.to_owned());
    let whole = "form: numbers, show: [{id: n, label: N, value: count}]";
    let listed = "form: list, columns: [sessionId]";
    for (filters, sessions) in [
        (vec![("sessionId", vec![value("a"), value("b")]), ("abnormal", vec![value("false")])], 2),
        // Durations are 10, 30, 70 and 100; each class includes its beginning and not its end.
        (vec![("duration", vec![Choice::Between(Some(30.0), Some(100.0))])], 2),
        (vec![("duration", vec![Choice::Between(None, Some(30.0)), value("100")])], 2),
        (vec![("duration", vec![Choice::Between(Some(30.5), None)])], 2),
        (vec![("geoPoints", vec![Choice::Tile(6, 31, 24)])], 2),
        (vec![("geoPoints", vec![Choice::Tile(6, 31, 25)])], 0),
    ] {
        let filters: Vec<_> =
            filters.into_iter().map(|(field, choices)| (field.to_owned(), choices)).collect();
        let narrow = View { filters, ..view() };
        let expected = f64::from(sessions);
        assert_eq!(shown(&index, whole, &narrow), json!([[[], [expected]]]), "{narrow:?}");
        let listed = shown(&index, listed, &narrow).as_array().unwrap().len();
        assert_eq!(listed, usize::try_from(sessions).unwrap(), "{narrow:?}");
    }
}

#[test]
fn all_dashboards_are_answered_by_an_empty_index() {
    let folder = tempfile::tempdir().unwrap();
    let index = index(folder.path(), &[]);
    for panel in panels::all().iter().flat_map(Dashboard::panels) {
        let answer = index.panel(panel, &view()).unwrap();
        assert_eq!(answer.documents, 0, "{}", panel.id.value);
    }
    let _shared = Arc::new(index);
}

/// Segments are merged and go while documents are looked up that were found in them.
#[test]
fn an_index_that_moves_on_meanwhile_is_answered_from_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let index = Arc::new(index(folder.path(), &[documents()]));
    let writing = Arc::clone(&index);
    let writer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for version in 2..150 {
            let again = documents().into_iter().enumerate().map(|(number, json)| Document {
                id: (number + 1).to_string().into(),
                index_time: json["timestamp"].as_i64().unwrap(),
                elastic_type: json["elastic_type"].as_str().unwrap().to_owned().into(),
                version: Some(version),
                json: Bytes::from(json.to_string()),
            });
            runtime.block_on(writing.write(&again.collect::<Vec<_>>())).unwrap();
        }
    });
    let newest = "form: table, by: [{values: {field: sessionId, label: S, size: 9}}], show: [{id: last, label: Last, value: {last: tenant}}]";
    let before = shown(&index, newest, &view());
    while !writer.is_finished() {
        assert_eq!(shown(&index, newest, &view()), before);
    }
    writer.join().unwrap();
}

#[test]
fn a_list_is_bounded_in_rows_and_bytes_and_begins_where_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let many = i64::from(crate::panels::request::LIST_MAX) * 2 + 100;
    let document = |number: i64| json!({ "elastic_type": "sessionSummary", "timestamp": START + number, "sessionId": number.to_string() });
    // In several segments, each with more than is listed.
    let all: Vec<Json> = (0..many * 2).map(document).collect();
    let (even, odd): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|json| json["timestamp"].as_i64().unwrap() % 2 == 0);
    let index = index(folder.path(), &[even, odd]);
    let list = |panel: &str, view: &View| {
        let answer = index.panel(board(panel).panels().next().unwrap(), view).unwrap();
        assert_eq!(answer.documents, u64::try_from(many * 2).unwrap());
        let names = answer.parts.iter().map(|part| match &part.values[0] {
            Datum::Json(Json::String(name)) => name.parse::<i64>().unwrap(),
            other => panic!("{other:?}"),
        });
        names.collect::<Vec<_>>()
    };
    let most = i64::from(crate::panels::request::LIST_MAX);
    let newest: Vec<i64> = (many * 2 - most..many * 2).rev().collect();
    assert_eq!(list("form: list, columns: [sessionId]", &view()), newest);
    let oldest: Vec<i64> = (0..most).collect();
    assert_eq!(list("form: list, columns: [sessionId], oldestFirst: true", &view()), oldest);
    // Half a megabyte each.
    let row = || Ok::<_, ()>(vec![Datum::Json("x".repeat(1 << 19).into())]);
    let answer = listed(100, std::iter::repeat_with(row).take(100)).unwrap();
    assert_eq!((answer.documents, answer.parts.len()), (100, 8));
}

#[test]
fn a_panel_ends_when_its_time_is_up() {
    let mut late = Clock::new(Instant::now());
    let mut early = Clock::new(Instant::now() + Duration::from_secs(3600));
    assert!((0..BETWEEN_LOOKS).map(|_| late.is_late()).last().unwrap() && late.was_late());
    assert!((0..BETWEEN_LOOKS * 3).all(|_| !early.is_late()) && !early.was_late());
}
