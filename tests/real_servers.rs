//! The Elasticsearch sink against a real Elasticsearch and a real OpenSearch, started from their published archives.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shows where"
)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callscope::config::{Config, Period};
use callscope::document::Document;
use callscope::search::Search;
use callscope::sink::elasticsearch::ElasticsearchSink;
use callscope::sink::{Sink, SinkError, SinkStatus, StatusSender, Written};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/server.sh");

/// A server that ends with the test.
struct Server {
    process: Child,
    folder: PathBuf,
    url: String,
}

impl Server {
    async fn start(kind: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("callscope-{kind}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut process = Command::new(SCRIPT)
            .args(["run", kind])
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let told = folder.join("url");
        loop {
            if let Ok(url) = std::fs::read_to_string(&told) {
                return Self { process, folder, url: url.trim().to_owned() };
            }
            if let Some(status) = process.try_wait().unwrap() {
                let log =
                    std::fs::read_to_string(folder.join("logs/console.log")).unwrap_or_default();
                panic!("{kind} ended with {status}:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn sink(
        &self,
        change: impl FnOnce(&mut Config),
    ) -> (Arc<ElasticsearchSink>, tokio::sync::watch::Receiver<SinkStatus>) {
        let mut config = Config::load(None, std::iter::empty()).unwrap().config;
        config.elasticsearch.urls = vec![self.url.clone()];
        change(&mut config);
        let status = StatusSender::default();
        let watched = status.subscribe();
        let sink = ElasticsearchSink::new(&config.elasticsearch, CancellationToken::new(), status)
            .unwrap();
        (Arc::new(sink), watched)
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let mut command = tokio::process::Command::new("curl");
        command
            .args(["-sS", "-X", method, "-H", "content-type: application/json"])
            .arg(format!("{}{path}", self.url));
        if let Some(body) = body {
            command.args(["-d", &body.to_string()]);
        }
        serde_json::from_slice(&command.output().await.unwrap().stdout).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The script has become the server, or waits for it; its group is told to end.
        let id = self.process.id().to_string();
        let _told = Command::new("pkill").args(["-TERM", "-P", &id]).status();
        let _told = Command::new("kill").arg(&id).status();
        let _ended = self.process.wait();
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

fn document(id: &str, version: Option<u64>, time: i64, json: &Value) -> Document {
    let mut json = json.clone();
    json["timestamp"] = json!(time);
    Document {
        id: id.into(),
        index_time: time,
        elastic_type: "cdr".into(),
        version,
        json: Bytes::from(json.to_string()),
    }
}

fn now() -> i64 {
    i64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
    )
    .unwrap()
}

async fn scenario(kind: &str) {
    let server = Server::start(kind).await;
    template_and_replay(&server).await;
    what_clients_send_breaks_nothing(&server).await;
    blocks(&server).await;
    plain_index_is_refused(&server).await;
}

async fn template_and_replay(server: &Server) {
    let (sink, _) = server.sink(|_| {});
    sink.setup().await.unwrap();
    sink.setup().await.unwrap();
    assert!(
        sink.plan().await.unwrap().iter().all(|step| step.before.is_some()),
        "everything is there"
    );
    let past = 1_614_772_177_070;
    let documents = [
        document(
            "raw",
            None,
            past,
            &json!({"elastic_type":"cdr","sessionId":"Daily","clientData":"x","streamId":1,"geoPoints":"19.09,72.87"}),
        ),
        document(
            "summary",
            Some(7),
            past,
            &json!({"elastic_type":"sessionSummary","sessionId":"897","duration":3,"users":{"numberOfElements":1,"content":[{"id":"u"}]}}),
        ),
        document("gone", Some(7), past, &json!({"elastic_type":"superseded","sessionId":"897"})),
    ];
    assert_eq!(sink.write(&documents).await.unwrap(), vec![Written::Stored; 3]);
    assert_eq!(
        sink.write(&documents).await.unwrap(),
        [Written::Existed, Written::Stored, Written::Stored]
    );
    let older = document(
        "summary",
        Some(6),
        past,
        &json!({"elastic_type":"sessionSummary","sessionId":"old"}),
    );
    assert_eq!(sink.write(&[older]).await.unwrap(), [Written::Older]);
    server.call("POST", "/openvidu/_refresh", None).await;
    assert_eq!(server.call("GET", "/openvidu/_count", None).await["count"], 3, "read by the alias");
    let stored = server.call("GET", "/openvidu-events-2021.03/_doc/summary", None).await;
    assert_eq!((&stored["_version"], &stored["_source"]["sessionId"]), (&json!(7), &json!("897")));
    let page = sink.search(&Search { limit: 10, ..Search::default() }).await.unwrap();
    assert_eq!(page.documents.len(), 2, "superseded documents are hidden");
    for (field, value) in [("sessionId", "897"), ("sessionId.keyword", "897"), ("duration", "3")] {
        let filters = vec![(field.to_owned(), vec![value.to_owned()])];
        let page = sink.search(&Search { filters, limit: 10, ..Search::default() }).await.unwrap();
        assert_eq!(
            page.documents.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(),
            ["summary"],
            "{field}"
        );
    }
    let text = Search { text: "dail".to_owned(), limit: 10, ..Search::default() };
    assert_eq!(sink.search(&text).await.unwrap().documents.len(), 1);
}

async fn what_clients_send_breaks_nothing(server: &Server) {
    let (sink, _) = server.sink(|_| {});
    let time = 1_617_300_000_000;
    let odd = [
        json!({"elastic_type":"cdr","new":"text","clientData":"x".repeat(40_000),"duration":1}),
        json!({"elastic_type":"cdr","new":7,"duration":1.5,"reason":[["a"]],"videoFramerate":"thirty"}),
        json!({"elastic_type":"cdr","new":true,"size":9.5e18,"streamId":"str"}),
        json!({"elastic_type":"cdr","unindexed":{"":{"a..b":[{"x":1}]}},"malformed":{"x":"1e400"},"net":{"eth0":{"rx":1}}}),
        json!({"elastic_type":"cdr","net":{"veth1":{"rx":"text"}},"mediaNodes":{"launch":{"total":1,"newNodes":[{"id":"a"}]}},"ip":"no address","geoPoints":"nowhere"}),
    ];
    let documents: Vec<Document> = odd
        .iter()
        .enumerate()
        .map(|(at, json)| document(&format!("odd{at}"), None, time, json))
        .collect();
    assert_eq!(sink.write(&documents).await.unwrap(), vec![Written::Stored; odd.len()]);
    let refused = Document {
        json: Bytes::from_static(br#"{"elastic_type":"cdr","cut":"#),
        ..document("refused", None, time, &json!({}))
    };
    let fine = document("fine", None, time, &json!({"elastic_type":"cdr"}));
    let answers = sink.write(&[refused, fine]).await.unwrap();
    assert!(matches!(answers.as_slice(), [Written::Dead(_), Written::Stored]), "{answers:?}");
}

async fn blocks(server: &Server) {
    let (sink, mut status) = server.sink(|_| {});
    let past = 1_614_772_177_070;
    let block = |on: bool| json!({"index.blocks.write": on});
    server.call("PUT", "/openvidu-events-2021.03/_settings", Some(block(true))).await;
    let documents = [
        document("blocked", None, past, &json!({"elastic_type":"cdr"})),
        document("present", None, now(), &json!({"elastic_type":"cdr"})),
    ];
    let answers = sink.write(&documents).await.unwrap();
    assert!(matches!(answers.as_slice(), [Written::Dead(_), Written::Stored]), "{answers:?}");
    server.call("PUT", "/openvidu-events-2021.03/_settings", Some(block(false))).await;

    server.call("PUT", "/openvidu/_settings", Some(block(true))).await;
    let writing = Arc::clone(&sink);
    let written = tokio::spawn(async move {
        writing.write(&[document("waits", None, now(), &json!({"elastic_type":"cdr"}))]).await
    });
    status.wait_for(|status| matches!(status, SinkStatus::Paused(_))).await.unwrap();
    server.call("PUT", "/openvidu/_settings", Some(block(false))).await;
    assert_eq!(written.await.unwrap().unwrap(), [Written::Stored]);
    status.wait_for(|status| *status == SinkStatus::Accepting).await.unwrap();
}

async fn plain_index_is_refused(server: &Server) {
    server.call("PUT", "/taken", None).await;
    let (sink, _) = server.sink(|config| config.elasticsearch.index = "taken".to_owned());
    let Err(SinkError::Misconfigured(error)) = sink.setup().await else {
        panic!("set up beside an index of its name")
    };
    assert!(error.to_string().contains("elasticsearch.period"), "{error}");
    let (sink, _) = server.sink(|config| {
        config.elasticsearch.index = "taken".to_owned();
        config.elasticsearch.period = Period::None;
    });
    sink.setup().await.unwrap();
    let written =
        sink.write(&[document("a", None, now(), &json!({"elastic_type":"cdr"}))]).await.unwrap();
    assert_eq!(written, [Written::Stored]);
}

#[tokio::test]
async fn elasticsearch() {
    scenario("elasticsearch").await;
}

#[tokio::test]
async fn opensearch() {
    scenario("opensearch").await;
}
