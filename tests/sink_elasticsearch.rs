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

use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use callscope::config::Config;
use callscope::document::Document;
use callscope::search::Search;
use callscope::sink::elasticsearch::{ElasticsearchSink, SetupError};
use callscope::sink::{Sink, SinkError, SinkStatus, StatusSender, Written};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::elastic_double::{Double, Fault};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod support {
    #[expect(dead_code, reason = "other tests need more of it")]
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
            // One that was stored when its reply was lost, and refused when it was sent again, is both.
            let stored = double.documents();
            prop_assert!((count - dead..=count).contains(&stored.len()), "{answers:?}");
            for (document, answer) in documents.iter().zip(&answers) {
                let is_dead = matches!(answer, Written::Dead(_));
                prop_assert!(is_dead || stored.contains_key(&*document.id), "{}", document.id);
            }
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
    double.failing("id000");
    let (sink, _) = to(&double);
    let answers = sink.write(&documents(1)).await.unwrap();
    assert!(
        matches!(answers.as_slice(), [Written::Dead(reason)] if reason.contains("5 times")),
        "{answers:?}"
    );
    assert_eq!(double.requests(), 6, "the first failure could have been the store's");
}

#[tokio::test]
async fn documents_that_always_fail_leave_the_others_and_readiness_alone() {
    let double = Double::start().await;
    double.failing("id000");
    let (sink, status) = to(&double);
    let answers = sink.write(&documents(8)).await.unwrap();
    let dead: Vec<usize> = (0..8).filter(|at| matches!(answers[*at], Written::Dead(_))).collect();
    assert_eq!((dead, double.documents().len()), (vec![0], 7));
    assert!(!status.has_changed().unwrap(), "the store takes documents all the time");
    assert_eq!(double.requests(), 6, "two, and four for the one that fails");
}

#[tokio::test]
async fn a_store_that_fails_every_document_has_no_bad_document() {
    tokio::join!(
        outage(503, "unavailable_shards_exception"),
        outage(502, "odd_exception"),
        outage(504, "odd_exception"),
        outage(500, "odd_exception"),
    );
}

/// One index answers only this for more rounds than a bad document gets, while another takes documents.
async fn outage(status: u16, kind: &'static str) {
    let double = Double::start().await;
    double.ill(&["openvidu-events-2021.03"], status, kind, "because");
    let (sink, mut told) = to(&double);
    let mut documents = documents(3);
    documents[1].index_time = chrono::Utc::now().timestamp_millis();
    let write = sink.write(&documents);
    tokio::pin!(write);
    tokio::select! {
        answers = &mut write => panic!("{status}: {answers:?}"),
        () = double.wait_for(8) => {}
    }
    told.wait_for(|told| matches!(told, SinkStatus::Waiting(_))).await.unwrap();
    double.ill(&[], 0, "", "");
    assert_eq!(write.await.unwrap(), vec![Written::Stored; 3], "{status}");
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
async fn a_blocked_index_of_the_past_is_told_from_a_blocked_cluster_before_the_present_has_an_index()
 {
    let double = Double::start().await;
    double.block(&["openvidu-events-2021.03"]);
    let (sink, mut status) = to(&double);
    let documents = documents(1);
    let answers = tokio::select! {
        answers = sink.write(&documents) => answers.unwrap(),
        _ = status.changed() => panic!("{:?}", *status.borrow()),
    };
    assert!(matches!(answers.as_slice(), [Written::Dead(_)]), "{answers:?}");
    assert!(double.documents().is_empty(), "asking stores nothing");
}

/// What is told while nothing is taken, and what becomes of the documents when it is cured.
async fn pauses_until_cured(double: &Double, cure: impl FnOnce(&Double)) -> String {
    let (sink, mut status) = to(double);
    let documents = documents(2);
    let write = sink.write(&documents);
    tokio::pin!(write);
    let told = tokio::select! {
        answers = &mut write => panic!("{answers:?}"),
        paused = status.wait_for(|status| matches!(status, SinkStatus::Paused(_))) => paused.unwrap().clone(),
    };
    cure(double);
    assert_eq!(write.await.unwrap(), vec![Written::Stored; 2]);
    assert_eq!(*status.borrow(), SinkStatus::Accepting);
    let SinkStatus::Paused(reason) = told else { panic!("{told:?}") };
    reason
}

#[tokio::test]
async fn a_full_disk_is_a_pause_whichever_index_tells_of_it() {
    let flood = "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];";
    let double = Double::start().await;
    double.ill(&["openvidu-events-2021.03"], 429, "cluster_block_exception", flood);
    let reason = pauses_until_cured(&double, |double| double.ill(&[], 0, "", "")).await;
    assert!(reason.contains("flood-stage"), "{reason}");
}

#[tokio::test]
async fn an_index_with_the_name_of_the_alias_is_a_pause_that_says_what_to_do() {
    let double = Double::start().await;
    let index = ["openvidu-events-2021.03"];
    double.ill(&index, 400, "invalid_alias_name_exception", "an index exists with the same name");
    let reason = pauses_until_cured(&double, |double| double.ill(&[], 0, "", "")).await;
    assert!(reason.contains("elasticsearch.period"), "{reason}");
}

#[tokio::test]
async fn no_index_is_made_without_the_template() {
    let double = Double::start().await;
    let (sink, mut status) = to(&double);
    sink.write(&documents(1)).await.unwrap();
    double.template(false);
    let same_month = documents(2);
    tokio::select! {
        written = sink.write(&same_month) => assert!(written.is_ok()),
        _ = status.changed() => panic!("{:?}", *status.borrow()),
    }
    let mut other_month = documents(1);
    other_month[0].id = "other".into();
    other_month[0].index_time = chrono::Utc::now().timestamp_millis();
    let write = sink.write(&other_month);
    tokio::pin!(write);
    let told = tokio::select! {
        answers = &mut write => panic!("{answers:?}"),
        paused = status.wait_for(|status| matches!(status, SinkStatus::Paused(_))) => paused.unwrap().clone(),
    };
    assert!(
        matches!(&told, SinkStatus::Paused(reason) if reason.contains("callscope setup")),
        "{told:?}"
    );
    assert!(!double.documents().contains_key("other"));
    double.template(true);
    assert_eq!(write.await.unwrap(), [Written::Stored]);
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

#[tokio::test]
async fn stopping_ends_the_waiting_for_a_server_that_never_answers() {
    let double = Double::start().await;
    let urls = [format!("http://{}", double.address)];
    let documents = documents(1);
    let search = Search::default();
    for hangs_first in [true, false] {
        let stop = CancellationToken::new();
        let (sink, status) = sink(&urls, &stop);
        if !hangs_first {
            sink.write(&documents).await.unwrap();
        }
        double.hang(true);
        let arrived = double.arrived();
        let ended = tokio::time::timeout(Duration::from_secs(30), async {
            tokio::join!(
                async { (sink.setup().await, sink.write(&documents).await) },
                sink.search(&search),
                async {
                    double.wait_for(arrived + 2).await;
                    stop.cancel();
                }
            )
        });
        let ((set_up, written), found, ()) = ended.await.expect("stops long before the time-out");
        assert!(matches!(set_up, Err(SinkError::Stopped)), "{set_up:?}");
        assert!(matches!(written, Err(SinkError::Stopped)), "{written:?}");
        assert!(found.is_err());
        assert_eq!(*status.borrow(), SinkStatus::Accepting, "stopping is no trouble of the store");
        double.hang(false);
    }
}

#[tokio::test]
async fn setup_waits_for_permission_and_the_plan_says_that_there_is_none() {
    for status in [401, 403] {
        let double = Double::start().await;
        let refusal = json!({ "error": { "reason": "no such user" } });
        double.answers(&[(Method::GET, "/", status, refusal)]);
        let (sink, mut told) = to(&double);
        assert!(matches!(sink.plan().await, Err(SetupError::Denied(_))));
        let setup = sink.setup();
        tokio::pin!(setup);
        let paused = tokio::select! {
            ended = &mut setup => panic!("{ended:?}"),
            paused = told.wait_for(|told| matches!(told, SinkStatus::Paused(_))) => paused.unwrap().clone(),
        };
        let SinkStatus::Paused(reason) = paused else { panic!("{paused:?}") };
        assert!(reason.contains("no such user") && reason.contains("api_key"), "{reason}");
        double.answers(&[]);
        setup.await.unwrap();
        assert_eq!(*told.borrow(), SinkStatus::Accepting);
    }
}

#[tokio::test]
async fn whoever_is_no_search_server_is_told_from_one() {
    let double = Double::start().await;
    let (sink, _) = to(&double);
    let page = json!("<html>Please log in</html>");
    double.answers(&[(Method::GET, "/", 200, page.clone())]);
    let Err(SetupError::Away(error)) = sink.plan().await else { panic!("taken for a server") };
    let told = format!("{error:#}");
    let address = double.address.to_string();
    assert!(told.contains(&address) && told.contains("no Elasticsearch"), "{told}");
    double.answers(&[(Method::GET, "/", 200, json!({ "service": "something else" }))]);
    let Err(SetupError::Refused(error)) = sink.plan().await else { panic!("taken for a server") };
    let told = format!("{error:#}");
    assert!(told.contains(&address) && told.contains("no Elasticsearch"), "{told}");
    double.answers(&[(Method::GET, "/", 400, page)]);
    let Err(SetupError::Refused(error)) = sink.plan().await else { panic!("taken for a server") };
    assert!(format!("{error:#}").contains("Please log in"), "{error:#}");

    // Of an answer that makes no sense it is told who gave it.
    double.answers(&[]);
    double.fail([Fault::CutBody]);
    let (sink, mut told) = to(&double);
    let documents = documents(1);
    let (written, waiting) = tokio::join!(sink.write(&documents), async {
        let waiting = told.wait_for(|told| matches!(told, SinkStatus::Waiting(_))).await;
        waiting.unwrap().clone()
    });
    assert_eq!(written.unwrap(), [Written::Existed]);
    let SinkStatus::Waiting(reason) = waiting else { panic!("{waiting:?}") };
    assert!(reason.contains(&address) && reason.contains("elasticsearch.urls"), "{reason}");
}

fn with_retention(double: &Double) -> ElasticsearchSink {
    let mut config = Config::load(None, std::iter::empty()).unwrap().config;
    config.elasticsearch.urls = vec![format!("http://{}", double.address)];
    config.elasticsearch.retention = Duration::from_secs(90 * 86_400);
    let stop = CancellationToken::new();
    ElasticsearchSink::new(&config.elasticsearch, stop, StatusSender::default()).unwrap()
}

fn opensearch() -> (Method, &'static str, u16, Value) {
    let told = json!({ "version": { "distribution": "opensearch", "number": "3.6.0" } });
    (Method::GET, "/", 200, told)
}

fn policy(seq_no: u64, age: &str) -> Value {
    json!({ "_seq_no": seq_no, "_primary_term": 2, "policy": {
        "policy_id": "openvidu-events", "description": "callscope: delete old events", "default_state": "live",
        "states": [
            { "name": "live", "actions": [], "transitions": [{ "state_name": "expired", "conditions": { "min_index_age": age } }] },
            { "name": "expired", "actions": [{ "retry": { "count": 3, "backoff": "exponential", "delay": "1m" }, "delete": {} }], "transitions": [] },
        ],
        "ism_template": [{ "index_patterns": ["openvidu-events-*"], "priority": 100, "last_updated_time": 1 }],
    } })
}

#[tokio::test]
async fn a_policy_that_is_there_is_changed_in_its_place() {
    let double = Double::start().await;
    let path = "/_plugins/_ism/policies/openvidu-events";
    double.answers(&[opensearch(), (Method::GET, path, 200, policy(7, "1d"))]);
    let sink = with_retention(&double);
    let plan = sink.plan().await.unwrap();
    let changes: Vec<String> = plan.steps[0].changes().iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        ["changed policy.states.0.transitions.0.conditions.min_index_age: 1d becomes 121d"]
    );
    sink.apply(&plan).await.unwrap();
    let put = format!("{path}?if_seq_no=7&if_primary_term=2");
    assert!(double.calls().iter().any(|(method, path, _)| *method == Method::PUT && *path == put));

    for (status, is_denied) in [(409, false), (403, true)] {
        let answer = (Method::PUT, path, status, json!({}));
        double.answers(&[opensearch(), (Method::GET, path, 200, policy(7, "1d")), answer]);
        match sink.apply(&plan).await {
            Err(SetupError::Denied(_)) => assert!(is_denied, "{status}"),
            Err(SetupError::Away(_)) => assert!(!is_denied, "{status}"),
            other => panic!("{status}: {other:?}"),
        }
    }
    double.answers(&[opensearch(), (Method::GET, path, 200, policy(7, "121d"))]);
    assert!(sink.plan().await.unwrap().steps[0].is_done());
}

#[tokio::test]
async fn where_there_is_no_lifecycle_management_the_template_names_none() {
    for (server, lifecycle) in [
        (opensearch(), "/_plugins/_ism/policies/"),
        ((Method::GET, "/", 200, json!({ "version": { "number": "9.5.3" } })), "/_ilm/policy/"),
    ] {
        let double = Double::start().await;
        double.template(false);
        let none = json!({ "error": "no handler found for uri" });
        double.answers(&[server, (Method::GET, lifecycle, 400, none)]);
        let sink = with_retention(&double);
        let plan = sink.plan().await.unwrap();
        assert_eq!((plan.steps.len(), plan.warnings.len()), (1, 1), "{:?}", plan.warnings);
        assert!(!plan.steps[0].body.to_string().contains("lifecycle"), "{}", plan.steps[0].body);
        sink.apply(&plan).await.unwrap();
    }
    let double = Double::start().await;
    let sink = with_retention(&double);
    let plan = sink.plan().await.unwrap();
    let settings = &plan.steps[1].body["template"]["settings"];
    assert_eq!(settings["index.lifecycle.name"], "openvidu-events");
    assert_eq!(plan.warnings, Vec::<String>::new());
}

#[tokio::test]
async fn setup_sends_only_what_differs() {
    let double = Double::start().await;
    let sink = with_retention(&double);
    sink.setup().await.unwrap();
    let puts = || double.calls().iter().filter(|(method, ..)| *method == Method::PUT).count();
    assert_eq!(puts(), 2);
    sink.setup().await.unwrap();
    assert_eq!(puts(), 2);
}

#[tokio::test]
async fn indices_made_without_the_template_get_the_alias_and_are_told_of() {
    let double = Double::start().await;
    let mapped =
        |name: &str, kind: &str| json!({ name: { "mapping": { name: { "type": kind } } } });
    let alias = json!({ "openvidu-events-2021.03": { "aliases": {} }, "openvidu-events-2021.04": { "aliases": { "openvidu": {} } } });
    let types = json!({ "openvidu-events-2021.03": { "mappings": mapped("timestamp", "long") } });
    double.answers(&[
        (Method::GET, "/openvidu-events-*/_alias", 200, alias),
        (Method::GET, "/openvidu-events-*/_mapping", 200, types),
    ]);
    let (sink, _) = to(&double);
    let plan = sink.plan().await.unwrap();
    let paths: Vec<&str> = plan.steps.iter().map(|step| step.path.as_str()).collect();
    assert_eq!(paths, ["/_index_template/openvidu-events", "/openvidu-events-*/_alias/openvidu"]);
    assert!(plan.steps[1].what.contains("2021.03") && !plan.steps[1].what.contains("2021.04"));
    assert!(plan.faults[0].contains("timestamp is mapped as long, not date"), "{:?}", plan.faults);
    assert!(plan.faults.iter().any(|fault| fault.contains("sessionId is mapped as nothing")));
    let denied = |path| (Method::GET, path, 403, json!({ "error": { "reason": "not yours" } }));
    double.answers(&[denied("/openvidu-events-*/_alias"), denied("/openvidu-events-*/_mapping")]);
    let plan = sink.plan().await.unwrap();
    assert_eq!((plan.steps.len(), plan.warnings.len()), (1, 2), "{:?}", plan.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_differences_the_first_are_shown_and_all_are_counted() {
    let double = Double::start().await;
    let id = |number: u32| format!("id{number:03}");
    let document = |number: u32, user: &str| {
        (id(number), json!({ "elastic_type": "userSummary", "user": user }))
    };
    // The order in which a server goes through an index is nobody's.
    let left: Vec<_> = (0..100).rev().map(|number| document(number, "a")).collect();
    let right: Vec<_> = (30..160)
        .rev()
        .map(|number| document(number, if number < 60 { "b" } else { "a" }))
        .collect();
    double.searched("left", &left);
    double.searched("right", &right);
    double.searched("same", &left.iter().rev().cloned().collect::<Vec<_>>());
    let url = format!("http://{}", double.address);
    let diff = async |right: &'static str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_callscope"));
        command
            .args(["diff", "left", right])
            .env("CALLSCOPE__SINK__KIND", "elasticsearch")
            .env("CALLSCOPE__ELASTICSEARCH__URLS", &url);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = diff("right").await;
    let shown = |beginning: &str| {
        let lines = told.lines().filter_map(|line| line.strip_prefix(beginning));
        lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (beginning, first) in [("only in left: ", 0), ("differs: ", 30), ("only in right: ", 100)] {
        assert_eq!(shown(beginning), (first..first + 20).map(id).collect::<Vec<_>>(), "{told}");
    }
    assert_eq!(told.matches("user: ").count(), 20, "{told}");
    let counts =
        "100 documents in left, 130 in right: 30 only in left, 60 only in right, 30 differ";
    assert!(code == 6 && told.contains(counts), "{told}");

    let scans = || double.calls().iter().filter(|(_, path, _)| path.contains("scroll=")).count();
    let before = scans();
    let (code, told) = diff("same").await;
    assert!(code == 0 && told.contains("0 only in left, 0 only in same, 0 differ"), "{told}");
    assert_eq!(scans() - before, 2);
}
