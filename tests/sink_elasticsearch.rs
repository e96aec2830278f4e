//! The Elasticsearch sink against a server that fails in every way that is known: nothing is lost, nothing is doubled, nothing
//! waits for what will never be taken.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use bytes::Bytes;
use callscope::config::Config;
use callscope::document::Document;
use callscope::sink::elasticsearch::ElasticsearchSink;
use callscope::sink::{Sink, SinkError, SinkStatus, StatusSender, Written};
use proptest::prelude::*;
use serde_json::json;
use support::elastic_double::{Double, Fault};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod support {
    pub mod elastic_double;
}

const PAST: i64 = 1_614_772_177_070;

fn sink(
    urls: &[String],
    stop: &CancellationToken,
) -> (ElasticsearchSink, watch::Receiver<SinkStatus>) {
    let mut config = Config::load(None, std::iter::empty()).unwrap().config;
    config.elasticsearch.urls = urls.to_vec();
    config.elasticsearch.bulk_documents = 4.try_into().unwrap();
    let status = StatusSender::default();
    let watched = status.subscribe();
    (ElasticsearchSink::new(&config.elasticsearch, stop.clone(), status).unwrap(), watched)
}

fn to(double: &Double) -> (ElasticsearchSink, watch::Receiver<SinkStatus>) {
    sink(&[format!("http://{}", double.address)], &CancellationToken::new())
}

fn documents(count: usize) -> Vec<Document> {
    let document = |at: usize| Document {
        id: format!("id{at:03}").into(),
        index_time: PAST,
        elastic_type: "cdr".into(),
        version: (at % 2 == 1).then_some(7),
        json: Bytes::from(json!({ "elastic_type": "cdr", "at": at }).to_string()),
    };
    (0..count).map(document).collect()
}

fn is_whole(double: &Double, documents: &[Document]) {
    let stored = double.documents();
    assert_eq!(stored.len(), documents.len());
    for document in documents {
        let (index, version, json) = &stored[&*document.id];
        assert_eq!((index.as_str(), *version), ("openvidu-events-2021.03", document.version));
        assert_eq!(json.to_string(), String::from_utf8_lossy(&document.json));
    }
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        Just(Fault::RequestLost),
        Just(Fault::ReplyLost),
        Just(Fault::CutBody),
        Just(Fault::WrongCount),
        Just(Fault::Status(429, "es_rejected_execution_exception")),
        Just(Fault::Status(503, "unavailable_shards_exception")),
        Just(Fault::Status(401, "security_exception")),
        Just(Fault::Status(403, "cluster_block_exception")),
        Just(Fault::Status(413, "")),
        Just(Fault::Items(vec![0, 2], 429, "es_rejected_execution_exception")),
        Just(Fault::Items(vec![1], 503, "unavailable_shards_exception")),
    ];
    prop::collection::vec(fault, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_fails_everything_is_stored_once(faults in faults(), count in 1usize..14) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let double = Double::start().await;
            double.fail(faults.clone());
            let documents = documents(count);
            // A single document whose request is refused as too large has nothing left to halve.
            let can_die = faults.iter().any(|fault| matches!(fault, Fault::Status(413, _)));
            let (sink, _) = to(&double);
            let answers = sink.write(&documents).await.unwrap();
            let dead = answers.iter().filter(|answer| matches!(answer, Written::Dead(_))).count();
            prop_assert!(dead == 0 || can_die, "{answers:?}");
            prop_assert_eq!(double.documents().len(), count - dead);
            if dead == 0 {
                is_whole(&double, &documents);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn one_bad_document_does_not_hold_up_the_others() {
    let double = Double::start().await;
    double.poison("id003");
    let (sink, _) = to(&double);
    let answers = sink.write(&documents(8)).await.unwrap();
    let dead: Vec<usize> = (0..8).filter(|at| matches!(answers[*at], Written::Dead(_))).collect();
    assert_eq!((dead, double.documents().len()), (vec![3], 7));
    assert_eq!(double.requests(), 2, "not one request more than without it");
}

#[tokio::test]
async fn a_document_that_fails_five_times_is_dead() {
    let double = Double::start().await;
    double.fail(vec![Fault::Items(vec![0], 500, "odd_exception"); 5]);
    let (sink, _) = to(&double);
    let answers = sink.write(&documents(1)).await.unwrap();
    assert!(
        matches!(answers.as_slice(), [Written::Dead(reason)] if reason.contains("5 times")),
        "{answers:?}"
    );
    assert_eq!(double.requests(), 5);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved() {
    let double = Double::start().await;
    double.documents_max(1);
    let (sink, _) = to(&double);
    assert_eq!(sink.write(&documents(8)).await.unwrap(), vec![Written::Stored; 8]);
    is_whole(&double, &documents(8));
}

#[tokio::test]
async fn older_summaries_and_known_events_are_no_failure() {
    let double = Double::start().await;
    let (sink, _) = to(&double);
    sink.write(&documents(2)).await.unwrap();
    let mut again = documents(2);
    again[1].version = Some(6);
    assert_eq!(sink.write(&again).await.unwrap(), [Written::Existed, Written::Older]);
    is_whole(&double, &documents(2));
}

#[tokio::test]
async fn a_blocked_index_of_the_past_costs_its_own_documents_only() {
    let double = Double::start().await;
    double.block(&["openvidu-events-2021.03"]);
    let (sink, _) = to(&double);
    let mut documents = documents(2);
    documents[1].index_time = chrono::Utc::now().timestamp_millis();
    let answers = sink.write(&documents).await.unwrap();
    assert!(matches!(answers.as_slice(), [Written::Dead(_), Written::Stored]), "{answers:?}");
}

#[tokio::test]
async fn a_blocked_cluster_pauses_and_goes_on_by_itself() {
    let double = Double::start().await;
    let present = chrono::Utc::now().format("openvidu-events-%Y.%m").to_string();
    double.block(&["openvidu-events-2021.03", &present]);
    let (sink, mut status) = to(&double);
    let documents = documents(1);
    let write = sink.write(&documents);
    tokio::pin!(write);
    tokio::select! {
        answers = &mut write => panic!("{answers:?}"),
        paused = status.wait_for(|status| matches!(status, SinkStatus::Paused(_))) => assert!(paused.is_ok()),
    }
    double.block(&[]);
    assert_eq!(write.await.unwrap(), [Written::Stored]);
    assert_eq!(*status.borrow(), SinkStatus::Accepting);
}

#[tokio::test]
async fn a_node_that_is_away_is_left_alone_and_another_takes_over() {
    let double = Double::start().await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let urls = [format!("http://{gone}"), format!("http://{}", double.address)];
    let (sink, _) = sink(&urls, &CancellationToken::new());
    assert_eq!(sink.write(&documents(12)).await.unwrap(), vec![Written::Stored; 12]);
}

#[tokio::test]
async fn stopping_ends_the_waiting() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stop = CancellationToken::new();
    let (sink, mut status) = sink(&[format!("http://{gone}")], &stop);
    let documents = documents(1);
    let write = sink.write(&documents);
    tokio::pin!(write);
    tokio::select! {
        answers = &mut write => panic!("{answers:?}"),
        waiting = status.wait_for(|status| matches!(status, SinkStatus::Waiting(_))) => assert!(waiting.is_ok()),
    }
    stop.cancel();
    assert!(matches!(write.await, Err(SinkError::Stopped)));
}
