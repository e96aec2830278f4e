//! The Elasticsearch sink against a real Elasticsearch and a real OpenSearch, started from their published archives.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use callscope::config::{Config, Period};
use callscope::document::Document;
use callscope::panels::answer::{Answer, Choice, Datum, View};
use callscope::panels::model::{Condition, Expect, Form, Metric, Percentile, Value as Measured};
use callscope::panels::zone::Zone;
use callscope::panels::{self, Panel, made};
use callscope::search::Search;
use callscope::sink::elasticsearch::{ElasticsearchSink, Step};
use callscope::sink::embedded::EmbeddedIndex;
use callscope::sink::{Sink, SinkError, SinkStatus, StatusSender, Written};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

#[path = "real_servers/accounts.rs"]
mod accounts;
#[path = "real_servers/doors.rs"]
mod doors;
#[path = "support/instance.rs"]
#[expect(dead_code, reason = "groups need more of it")]
mod instance;
#[path = "support/month.rs"]
mod month;
#[path = "support/openvidu.rs"]
#[expect(dead_code, reason = "who asks a platform that misbehaves needs more of it")]
mod openvidu;

use month::{DAY, START, a_month_and_the_odd_cases};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/server.sh");

/// A server that ends with the test.
struct Server {
    kind: &'static str,
    process: Child,
    folder: PathBuf,
    url: String,
}

impl Server {
    async fn start(kind: &'static str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("callscope-{kind}-"))
            .tempdir()
            .unwrap()
            .keep();
        Self::start_in(kind, folder).await
    }

    /// Starts it in a folder that it removes with itself.
    async fn start_in(kind: &'static str, folder: PathBuf) -> Self {
        let (process, url) = Self::run(kind, &folder, "0").await;
        Self { kind, process, folder, url }
    }

    async fn run(kind: &str, folder: &Path, port: &str) -> (Child, String) {
        let mut process = Command::new(SCRIPT)
            .args(["run", kind])
            .arg(folder)
            .arg(port)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let mut told = BufReader::new(
            tokio::process::ChildStdout::from_std(process.stdout.take().unwrap()).unwrap(),
        );
        if told.read_line(&mut url).await.unwrap() == 0 {
            let log = std::fs::read_to_string(folder.join("logs/console.log")).unwrap_or_default();
            panic!("{kind} ended before it answered:\n{log}");
        }
        (process, url.trim().to_owned())
    }

    /// As a power cut would, except that what the system holds is still written.
    fn kill(&mut self) {
        let id = std::fs::read_to_string(self.folder.join("pid")).unwrap();
        assert!(Command::new("kill").args(["-9", id.trim()]).status().unwrap().success());
        self.process.wait().unwrap();
    }

    /// On the same data, at the same address.
    async fn start_again(&mut self) {
        let port = self.url.rsplit(':').next().unwrap().to_owned();
        let (process, url) = Self::run(self.kind, &self.folder, &port).await;
        assert_eq!(url, self.url);
        self.process = process;
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

async fn scenario(kind: &'static str) {
    let mut server = Server::start(kind).await;
    template_and_replay(&server).await;
    what_clients_send_breaks_nothing(&server).await;
    more_fields_than_an_index_may_have(&server).await;
    blocks(&server).await;
    a_full_disk(&server).await;
    plain_index_is_refused(&server).await;
    plain_index_that_comes_later(&server).await;
    template_that_goes(&server).await;
    index_made_without_the_template(&server).await;
    lifecycle_that_is_not_there(&server).await;
    shard_limit(&server).await;
    missing_shard(&server).await;
    full_queue(&server).await;
    two_indices_compared(&server).await;
    panels_are_answered_as_by_the_embedded_index(&server).await;
    killed_under_load(&mut server).await;
}

static MONTH: LazyLock<String> = LazyLock::new(|| a_month_and_the_odd_cases(300_000));
/// It in an embedded index, and the folder of that.
static EMBEDDED: LazyLock<(EmbeddedIndex, tempfile::TempDir)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    month::import(&MONTH, "embedded", folder.path(), &[]);
    (month::index(folder.path()), folder)
});

/// A panel in a view, as the embedded index answers it.
struct Asked {
    panel: Panel,
    view: View,
    own: Answer,
    /// What [`around_percentiles`] shows.
    around: Answer,
}

/// Everything of the month.
static ALL: LazyLock<View> = LazyLock::new(|| {
    let zone = Zone::named("Europe/Madrid").unwrap();
    View { from: 1_500_000_000_000, to: 1_800_000_000_000, zone, filters: Vec::new() }
});

/// Every panel in views of every kind.
static ASKED: LazyLock<Vec<Asked>> = LazyLock::new(|| {
    let index = &EMBEDDED.0;
    let described = panels::all().iter().flat_map(panels::Dashboard::panels).cloned();
    let marks = panels::all().iter().flat_map(|dashboard| &dashboard.marks).map(made::times);
    let panels: Vec<Panel> =
        described.chain(marks).chain(["sessionId", "mediaType"].map(made::values)).collect();
    let asked = |view: &View, panel: &Panel| Asked {
        own: index.panel(panel, view).unwrap(),
        around: index.panel(&around_percentiles(panel), view).unwrap(),
        panel: panel.clone(),
        view: view.clone(),
    };
    let views = views(index);
    views.iter().flat_map(|view| panels.iter().map(|panel| asked(view, panel))).collect()
});

fn views(index: &EmbeddedIndex) -> [View; 11] {
    let chosen = |filters: &[(&str, &[Choice])]| {
        let filters =
            filters.iter().map(|(field, choices)| ((*field).to_owned(), choices.to_vec()));
        View { filters: filters.collect(), ..ALL.clone() }
    };
    let narrowed = |filters: &[(&str, &[&str])]| {
        let said = |values: &[&str]| {
            values.iter().map(|value| Choice::Value((*value).to_owned())).collect()
        };
        let filters: Vec<(&str, Vec<Choice>)> =
            filters.iter().map(|(field, values)| (*field, said(values))).collect();
        chosen(&filters.iter().map(|(field, choices)| (*field, &**choices)).collect::<Vec<_>>())
    };
    [
        ALL.clone(),
        narrowed(&[
            ("client.browser", &["Safari", "Chrome"]),
            ("location", &["Madrid, Spain", "Lyon, France"]),
        ]),
        narrowed(&[("abnormal", &["true"])]),
        narrowed(&[("newValue", &["1", "2"])]),
        narrowed(&[("cluster_id", &["west"])]),
        // Some tell it in small letters.
        narrowed(&[("mediaType", &["VIDEO"])]),
        narrowed(&[("uniqueSessionId", &[&largest_session(index)])]),
        // A class of a number beside a value of it, in a tile of the map, which Madrid is in.
        chosen(&[
            (
                "duration",
                &[Choice::Between(Some(300.0), Some(900.0)), Choice::Value("1200".to_owned())],
            ),
            ("geoPoints", &[Choice::Tile(6, 31, 24)]),
        ]),
        chosen(&[("users.numberOfElements", &[Choice::Between(None, Some(3.0))])]),
        // Of the last, clocks are put back on the third day: by hours, and by days of another length.
        View { from: START + 2 * DAY, to: START + 3 * DAY, ..ALL.clone() },
        View { from: START, to: START + 31 * DAY, ..ALL.clone() },
    ]
}

/// Every panel is a request that the server answers, and it says what the embedded index says of the same documents.
async fn panels_are_answered_as_by_the_embedded_index(server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("CALLSCOPE__ELASTICSEARCH__URLS", &*server.url),
        ("CALLSCOPE__ELASTICSEARCH__INDEX", "panels"),
    ];
    month::import(&MONTH, "elasticsearch", folder.path(), &settings);
    server.call("POST", "/panels/_refresh", None).await;
    let (sink, _) = server.sink(|config| "panels".clone_into(&mut config.elasticsearch.index));
    let mut wrong = Vec::new();
    for Asked { panel, view, own, around } in ASKED.iter() {
        let id = format!("{} {:?}", panel.id.value, view.filters);
        let theirs = match sink.panel(panel, view).await {
            Ok(theirs) => theirs,
            Err(error) => {
                wrong.push(format!("{id}: {error}"));
                continue;
            }
        };
        if let Some(difference) = difference(panel, own, around, &theirs) {
            wrong.push(format!("{id}: {difference}"));
        }
        let is_described = panel.width > 0;
        let filled = [is_filled(own), is_filled(&theirs)];
        if is_described && *view == *ALL && filled != [panel.expect == Expect::Filled; 2] {
            wrong.push(format!("{id}: filled {filled:?}, expected {:?}", panel.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.call("DELETE", "/panels-events-*", None).await;
}

/// How many numbers there are at least, and how many percent the next of them in order are away then at most. Of many, that is
/// further than a server's digest is wrong: two of its centroids, each of at most a hundredth of all.
const NEIGHBOURS: [(f64, f64); 5] =
    [(20.0, 5.3), (10.0, 11.2), (5.0, 25.1), (3.0, 50.1), (0.0, 100.0)];

/// For each percentile of a panel: of how many numbers it is, and for each of [`NEIGHBOURS`] the percentiles below and above it.
fn around_percentiles(panel: &Panel) -> Panel {
    let mut around = panel.clone();
    around.show.iter_mut().for_each(|metric| metric.hidden = true);
    for metric in panel.shown() {
        let Measured::Percentile(percentile) = &metric.value else { continue };
        let mut add = |value: Measured| {
            let when = [metric.when.clone(), vec![Condition::Has(percentile.field.clone())]];
            around.show.push(Metric { value, when: when.concat(), per: None, ..metric.clone() });
        };
        add(Measured::Count);
        for at in NEIGHBOURS.map(|(_, away)| [percentile.at - away, percentile.at + away]).concat()
        {
            let at = at.clamp(0.0, 100.0);
            add(Measured::Percentile(Percentile { at, ..percentile.clone() }));
        }
    }
    around
}

/// The session that most people were in.
fn largest_session(index: &EmbeddedIndex) -> String {
    let sort = "users.numberOfElements:down".parse().unwrap();
    let filters = vec![("elastic_type".to_owned(), vec!["sessionSummary".to_owned()])];
    let page = index.search(&Search { filters, sort, limit: 1, ..Search::default() }).unwrap();
    let summary: Value = serde_json::from_str(page.documents[0].source.get()).unwrap();
    summary["uniqueSessionId"].as_str().unwrap().to_owned()
}

/// Where two answers differ by more than a server's estimates may. `around`: what [`around_percentiles`] shows.
fn difference(panel: &Panel, own: &Answer, around: &Answer, theirs: &Answer) -> Option<String> {
    if own.documents != theirs.documents {
        return Some(format!("{} and {} documents", own.documents, theirs.documents));
    }
    if panel.form == Form::List {
        return unlike(panel, own, theirs).then(|| "lists of other documents".to_owned());
    }
    let keys = |answer: &Answer| {
        answer.parts.iter().map(|part| format!("{:?}", part.keys)).collect::<Vec<_>>()
    };
    let (own_keys, their_keys) = (keys(own), keys(theirs));
    if own_keys != their_keys {
        return Some(format!("keys {own_keys:?} and {their_keys:?}"));
    }
    assert_eq!(own_keys, keys(around));
    for ((left, right), around) in own.parts.iter().zip(&theirs.parts).zip(&around.parts) {
        let mut around = around.values.chunks(1 + 2 * NEIGHBOURS.len());
        for ((metric, left_value), right_value) in
            panel.shown().zip(&left.values).zip(&right.values)
        {
            let numbers = left_value.number().zip(right_value.number());
            let is_same = match (&metric.value, numbers) {
                // A server takes the nearest of all or what lies between, and of many it estimates.
                (Measured::Percentile(_), numbers) => {
                    let around = around.next().unwrap();
                    let bounds = around.iter().skip(1).map(|bound| bound.number());
                    let count = around[0].number().unwrap();
                    let place = NEIGHBOURS.iter().position(|(least, _)| count >= *least).unwrap();
                    let bounds: Vec<_> = bounds.skip(2 * place).take(2).collect();
                    numbers.map_or(left_value == right_value, |(_, right)| {
                        let (low, high) = (bounds[0].unwrap(), bounds[1].unwrap());
                        (low - 0.02 * low.abs()..=high + 0.02 * high.abs()).contains(&right)
                    })
                }
                // Different values are counted exactly by it up to 3000, if they stand in one index.
                (Measured::Distinct(_) | Measured::Formula(_), Some(numbers)) => {
                    is_near(numbers, 0.02)
                }
                (_, Some(numbers)) => is_near(numbers, 1e-9),
                // Of several documents of one time any may be the newest, but all of them say something or none.
                (Measured::Last(_), _) => {
                    (*left_value == Datum::Nothing) == (*right_value == Datum::Nothing)
                }
                (_, None) => left_value == right_value,
            };
            if !is_same {
                return Some(format!(
                    "{} of {:?}: {left_value:?} and {right_value:?}",
                    metric.id.value, left.keys
                ));
            }
        }
    }
    None
}

/// Whether two lists are of other documents. Those of one time have no order, and where the list ends any of them may be in it.
fn unlike(panel: &Panel, own: &Answer, theirs: &Answer) -> bool {
    let place = panel.columns.iter().position(|column| column.value == "timestamp").unwrap();
    let rows = |answer: &Answer| {
        let ends = answer.parts.last().map(|part| part.values[place].clone());
        let is_whole = answer.documents == answer.parts.len() as u64;
        let inside = answer
            .parts
            .iter()
            .filter(|part| is_whole || Some(&part.values[place]) != ends.as_ref());
        let mut rows: Vec<String> = inside.map(|part| format!("{:?}", part.values)).collect();
        rows.sort_unstable();
        (rows, answer.parts.len(), ends)
    };
    rows(own) != rows(theirs)
}

/// Whether a panel shows something.
fn is_filled(answer: &Answer) -> bool {
    answer
        .parts
        .iter()
        .flat_map(|part| &part.values)
        .any(|value| value.number().map_or(*value != Datum::Nothing, |number| number != 0.0))
}

fn is_near((left, right): (f64, f64), tolerance: f64) -> bool {
    (left - right).abs() <= tolerance * left.abs().max(right.abs()).max(1.0)
}

/// `diff` as a process: equal indices, one with documents missing, one with a field missing.
async fn two_indices_compared(server: &Server) {
    let fixture = |name: &str| format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let (old, new) = (fixture("2.9-session.jsonl"), fixture("2.17-session.jsonl"));
    let callscope = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callscope"));
        let output = command
            .args(arguments)
            .env("CALLSCOPE__SINK__KIND", "elasticsearch")
            .env("CALLSCOPE__ELASTICSEARCH__URLS", &server.url)
            .env("CALLSCOPE__DATA_DIR", &server.folder)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let told = told(&output.stdout) + &told(&output.stderr);
        (output.status.code().unwrap(), told)
    };
    let index = "CALLSCOPE__ELASTICSEARCH__INDEX";
    let dropped = [(index, "dropped"), ("CALLSCOPE__PRIVACY__DROP_FIELDS", "clientData")];
    for (files, environment) in [
        (&[&*old, &*new][..], &[(index, "left")][..]),
        (&[&*new, &*old], &[(index, "right")]),
        (&[&*new], &[(index, "less")]),
        (&[&*old, &*new], &dropped),
    ] {
        let (code, told) = callscope(&[&["import"], files].concat(), environment);
        assert_eq!(code, 0, "{told}");
    }
    let (code, told) = callscope(&["diff", "left", "right"], &[]);
    assert!(code == 0 && told.contains("0 only in left, 0 only in right, 0 differ"), "{told}");
    let (code, told) = callscope(&["diff", "left", "less"], &[]);
    assert!(
        code == 6 && told.contains("only in left: ") && told.contains("weih6kaewklr4i05"),
        "{told}"
    );
    let (code, told) = callscope(&["diff", "left", "dropped"], &[]);
    assert!(code == 6 && told.contains("removed clientData: publisherClient"), "{told}");
    let (code, told) = callscope(&["diff", "left", "nowhere"], &[]);
    assert!(code == 4 && told.contains("no such index"), "{told}");
    for name in ["left", "right", "less", "dropped"] {
        server.call("DELETE", &format!("/{name}-events-*"), None).await;
    }
}

async fn template_and_replay(server: &Server) {
    let (sink, _) = server.sink(|_| {});
    sink.setup().await.unwrap();
    sink.setup().await.unwrap();
    let plan = sink.plan().await.unwrap();
    let changes: Vec<_> = plan.steps.iter().flat_map(Step::changes).collect();
    assert!(plan.steps.iter().all(Step::is_done), "everything is there: {changes:?}");
    assert!(plan.warnings.is_empty() && plan.faults.is_empty(), "{plan:?}");
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
    // What has no value comes last, whichever way.
    for (sort, first) in [
        ("sessionId:up", "summary"),
        ("sessionId:down", "raw"),
        ("duration:up", "summary"),
        ("duration:down", "summary"),
        ("users.numberOfElements:down", "summary"),
    ] {
        let search = Search { sort: sort.parse().unwrap(), limit: 10, ..Search::default() };
        let found = sink.search(&search).await.unwrap().documents;
        assert_eq!(found.iter().map(|found| found.id.as_str()).next(), Some(first), "{sort}");
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
        json!({"elastic_type":"cdr","mixed":[1,"a",true],"flag":[true,"a",1]}),
        json!({"elastic_type":"cdr","mixed":[true,[1,"a"]],"flag":"text","audioEnabled":"perhaps","timeOfDisconnection":[true]}),
        json!({"elastic_type":"cdr","mem":{"used":"much","other":{"a":1}},"candidatePair":{"localCandidate":{"a":1}}}),
        json!({"elastic_type":"cdr","mem":{"other":3},"candidatePair":{"localCandidate":"x"},"mediaNodes":{"launch":{"newNodes":0}}}),
        json!({"elastic_type":"cdr","system":{"other":{"a":1},"status":{"avgLoad":"high","runningNodes":[{"id":1}]}}}),
        json!({"elastic_type":"cdr","system":{"other":"x","status":{"runningNodes":"x"}}}),
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

async fn more_fields_than_an_index_may_have(server: &Server) {
    let (sink, _) = server.sink(|_| {});
    let time = 1_620_000_000_000;
    let document = |at: usize| {
        let mut json = json!({"elastic_type":"cdr"});
        for field in 0..50 {
            json[format!("unknown{at}x{field}")] = json!(field);
        }
        document(&format!("wide{at}"), None, time, &json)
    };
    let documents: Vec<Document> = (0..60).map(document).collect();
    assert_eq!(sink.write(&documents).await.unwrap(), vec![Written::Stored; 60]);
    let stored = server.call("GET", "/openvidu-events-2021.05/_doc/wide59", None).await;
    assert_eq!(stored["_source"]["unknown59x49"], 49);
}

/// Writes one document, which is held up until `cure`; gives what is told meanwhile.
async fn held_up(
    server: &Server,
    index: &str,
    document: Document,
    cure: impl AsyncFnOnce(),
) -> String {
    let (sink, mut status) = server.sink(|config| {
        config.elasticsearch.index = index.to_owned();
        config.elasticsearch.request_timeout = Duration::from_secs(4);
    });
    let written = tokio::spawn(async move { sink.write(&[document]).await });
    let told = status.wait_for(|status| *status != SinkStatus::Accepting).await.unwrap().clone();
    cure().await;
    assert_eq!(written.await.unwrap().unwrap(), [Written::Stored]);
    assert_eq!(*status.borrow(), SinkStatus::Accepting);
    match told {
        SinkStatus::Paused(reason) => format!("paused: {reason}"),
        SinkStatus::Waiting(reason) => format!("waiting: {reason}"),
        SinkStatus::Accepting | SinkStatus::Untried => unreachable!(),
    }
}

fn simple(id: &str, time: i64) -> Document {
    document(id, None, time, &json!({"elastic_type":"cdr"}))
}

async fn a_full_disk(server: &Server) {
    let path = "/openvidu-events-2021.03/_settings";
    let block = |on: Value| json!({"index.blocks.read_only_allow_delete": on});
    server.call("PUT", path, Some(block(json!(true)))).await;
    let told = held_up(server, "openvidu", simple("flood", 1_614_772_177_070), async || {
        server.call("PUT", path, Some(block(Value::Null))).await;
    });
    let told = told.await;
    assert!(told.starts_with("paused") && told.contains("read-only-allow-delete"), "{told}");
}

async fn plain_index_that_comes_later(server: &Server) {
    let (sink, _) = server.sink(|config| config.elasticsearch.index = "late".to_owned());
    sink.setup().await.unwrap();
    server.call("PUT", "/late", None).await;
    let told = held_up(server, "late", simple("a", now()), async || {
        server.call("DELETE", "/late", None).await;
    });
    let told = told.await;
    assert!(told.starts_with("paused") && told.contains("elasticsearch.period"), "{told}");
}

async fn template_that_goes(server: &Server) {
    let (sink, _) = server.sink(|config| config.elasticsearch.index = "lost".to_owned());
    sink.setup().await.unwrap();
    assert_eq!(sink.write(&[simple("a", now())]).await.unwrap(), [Written::Stored]);
    server.call("DELETE", "/_index_template/lost-events", None).await;
    let told = held_up(server, "lost", simple("b", 1_614_772_177_070), async || {
        sink.setup().await.unwrap();
    });
    let told = told.await;
    assert!(told.starts_with("paused") && told.contains("lost-events is missing"), "{told}");
    let alias = server.call("GET", "/lost-events-*/_alias/lost", None).await;
    assert_eq!(alias.as_object().unwrap().len(), 2, "{alias}");
}

async fn index_made_without_the_template(server: &Server) {
    let guessed = json!({"timestamp":1_614_772_177_070_i64,"sessionId":"a"});
    server.call("POST", "/bare-events-2021.03/_doc?refresh=true", Some(guessed.clone())).await;
    let (sink, _) = server.sink(|config| config.elasticsearch.index = "bare".to_owned());
    let plan = sink.plan().await.unwrap();
    assert!(plan.steps[1].what.contains("alias bare for bare-events-2021.03"), "{plan:?}");
    for fault in ["timestamp is mapped as long, not date", "sessionId is mapped as text"] {
        assert!(plan.faults.iter().any(|told| told.contains(fault)), "{:?}", plan.faults);
    }
    sink.apply(&plan).await.unwrap();
    assert_eq!(server.call("GET", "/bare/_count", None).await["count"], 1);
    assert!(sink.plan().await.unwrap().steps.iter().all(Step::is_done));

    server.call("POST", "/plain/_doc?refresh=true", Some(guessed)).await;
    let (sink, _) = server.sink(|config| {
        config.elasticsearch.index = "plain".to_owned();
        config.elasticsearch.period = Period::None;
    });
    let faults = sink.plan().await.unwrap().faults;
    assert!(faults[0].contains("timestamp is mapped as long, not date, in plain"), "{faults:?}");
}

/// Neither of these builds has lifecycle management.
async fn lifecycle_that_is_not_there(server: &Server) {
    let (sink, _) = server.sink(|config| {
        config.elasticsearch.index = "short".to_owned();
        config.elasticsearch.retention = Duration::from_secs(90 * 86_400);
    });
    let plan = sink.plan().await.unwrap();
    assert!(plan.warnings.len() == 1 && plan.warnings[0].contains("retention"), "{plan:?}");
    sink.setup().await.unwrap();
    let template = server.call("GET", "/_index_template/short-events", None).await;
    assert!(template.pointer("/index_templates/0").is_some(), "{template}");
    assert!(!template.to_string().contains("lifecycle"), "{template}");
    assert_eq!(sink.write(&[simple("a", now())]).await.unwrap(), [Written::Stored]);
}

async fn shard_limit(server: &Server) {
    let limit = |most: Value| json!({"persistent":{"cluster.max_shards_per_node": most}});
    server.call("PUT", "/_cluster/settings", Some(limit(json!(1)))).await;
    let told = held_up(server, "openvidu", simple("limit", 1_600_000_000_000), async || {
        server.call("PUT", "/_cluster/settings", Some(limit(Value::Null))).await;
    });
    let told = told.await;
    assert!(told.starts_with("paused") && told.contains("shards"), "{told}");
}

async fn missing_shard(server: &Server) {
    let (sink, _) = server.sink(|config| config.elasticsearch.index = "red".to_owned());
    sink.setup().await.unwrap();
    let nowhere = json!({"settings":{"index.routing.allocation.require._name":"nobody"}});
    server.call("PUT", "/red-events-2021.03?wait_for_active_shards=0", Some(nowhere)).await;
    let told = held_up(server, "red", simple("a", 1_614_772_177_070), async || {
        let somewhere = json!({"index.routing.allocation.require._name": null});
        server.call("PUT", "/red-events-2021.03/_settings", Some(somewhere)).await;
    });
    let told = told.await;
    assert!(told.starts_with("waiting") && told.contains("unavailable_shards"), "{told}");
}

async fn full_queue(server: &Server) {
    let (sink, _) = server.sink(|config| {
        config.elasticsearch.bulk_documents = 1.try_into().unwrap();
        config.elasticsearch.requests_max = 16.try_into().unwrap();
        config.elasticsearch.gzip = false;
    });
    for round in 0.. {
        let documents: Vec<Document> =
            (0..200).map(|at| simple(&format!("queue{round}x{at}"), 1_614_772_177_070)).collect();
        assert_eq!(sink.write(&documents).await.unwrap(), vec![Written::Stored; 200]);
        let told = server.call("GET", "/_nodes/stats/thread_pool", None).await;
        let node = told["nodes"].as_object().unwrap().values().next().unwrap();
        if node["thread_pool"]["write"]["rejected"].as_u64().unwrap() > 0 {
            break;
        }
    }
}

async fn killed_under_load(server: &mut Server) {
    let change = |config: &mut Config| {
        config.elasticsearch.index = "killed".to_owned();
        config.elasticsearch.bulk_documents = 20.try_into().unwrap();
    };
    let (sink, _) = server.sink(change);
    sink.setup().await.unwrap();
    let months = [1_614_772_177_070, 1_617_300_000_000];
    let documents: Vec<Document> = (0..9000)
        .map(|at| {
            let version = (at % 2 == 0).then_some(7);
            document(
                &format!("id{at}"),
                version,
                months[at % 3 % 2],
                &json!({"elastic_type":"cdr"}),
            )
        })
        .collect();
    let (writing, load) = (Arc::clone(&sink), documents.clone());
    let written = tokio::spawn(async move { writing.write(&load).await });
    loop {
        let told = server.call("GET", "/killed-events-*/_stats/indexing", None).await;
        let total = told.pointer("/_all/primaries/indexing/index_total").and_then(Value::as_u64);
        if total.is_some_and(|total| total > 500) {
            break;
        }
    }
    server.kill();
    assert!(!written.is_finished(), "killed too late to show anything");
    server.start_again().await;
    let answers = written.await.unwrap().unwrap();
    assert!(
        answers.iter().all(|answer| matches!(answer, Written::Stored | Written::Existed)),
        "{answers:?}"
    );
    each_is_there_once(server, &documents).await;
    for answer in sink.write(&documents).await.unwrap().chunks(2) {
        assert_eq!(answer, [Written::Stored, Written::Existed]);
    }
    each_is_there_once(server, &documents).await;
}

/// By id and version.
async fn each_is_there_once(server: &Server, documents: &[Document]) {
    server.call("POST", "/killed/_refresh", None).await;
    let all = json!({"size":10_000,"version":true,"_source":false});
    let found = server.call("POST", "/killed/_search", Some(all)).await;
    let found = found["hits"]["hits"].as_array().unwrap();
    assert_eq!(found.len(), documents.len());
    let found: BTreeMap<&str, u64> = found
        .iter()
        .map(|hit| (hit["_id"].as_str().unwrap(), hit["_version"].as_u64().unwrap()))
        .collect();
    for document in documents {
        assert_eq!(found[&*document.id], document.version.unwrap_or(1), "{}", document.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_community_installation_tells() {
    let server = Server::start("elasticsearch").await;
    doors::a_community_installation_fills_the_panels(&server).await;
}

#[tokio::test]
async fn elasticsearch() {
    scenario("elasticsearch").await;
}

#[tokio::test]
async fn opensearch() {
    scenario("opensearch").await;
}
