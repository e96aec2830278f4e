//! What a community installation tells by webhook, REST API and browsers alone, in the panels over a real Elasticsearch.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use callscope::panels::answer::{Choice, Key, View};
use callscope::panels::zone::Zone;
use callscope::panels::{self, Panel};
use callscope::simulate::community::{Played, Report};
use callscope::simulate::send::{FORWARDED, Sender, Webhook};
use callscope::simulate::{self, Emitted, PLACES_DATABASE};
use callscope::sink::elasticsearch::ElasticsearchSink;
use serde_json::Value;

use super::instance::{Instance, until};
use super::openvidu::{OpenVidu, SECRET, Version};
use super::{Server, is_filled, now};

const KEY: &str = "a-key-of-pages";
const INDEX: &str = "doors";
const HOUR: i64 = 3_600_000;
/// Between two reports on a stream, milliseconds.
const REPORTED_EVERY: i64 = 3_000;
/// Sessions last so many times less than in life, so that all of one lies around this moment.
const PACE: i64 = 20;
/// What nobody tells there: OpenVidu's paid edition alone broadcasts.
const UNTOLD: [&str; 1] = ["session-broadcasts"];

/// A session that is going on.
struct Session {
    events: Vec<Emitted>,
    played: Played,
    reports: Vec<Report>,
}

/// Sessions of different names that began a minute before `at` and end after it.
fn sessions(at: i64) -> Vec<Session> {
    let mut names = BTreeSet::new();
    let mut is_new = |events: &[Emitted]| {
        let created: Value = serde_json::from_str(&events[0].json).unwrap();
        names.insert(created["sessionId"].as_str().unwrap().to_owned())
    };
    let under_way = |seed| {
        let start = at - 55_000;
        let (events, _) = simulate::session(seed, start, PACE);
        if !is_new(&events) {
            return None;
        }
        let telemetry = simulate::telemetry(seed, start, PACE, REPORTED_EVERY);
        let played = Played::of(&events, &telemetry).filter(|played| played.end() > at)?;
        let reports = played.reports().into_iter().filter(|report| report.at <= at).collect();
        Some(Session { events, played, reports })
    };
    (0..200).filter_map(under_way).collect()
}

/// callscope beside that platform, with both doors open.
fn serve(folder: &Path, platform: &OpenVidu, server: &Server) -> Instance {
    let places = folder.join("places.mmdb");
    std::fs::write(&places, PLACES_DATABASE).unwrap();
    let source = |name: &str| format!("CALLSCOPE__SOURCES__DEFAULT__{name}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_callscope"));
    command
        .env("CALLSCOPE__DATA_DIR", folder)
        .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
        .env("CALLSCOPE__STATS__EVERY", "1s")
        .env("CALLSCOPE__GEOIP__DATABASES", &places)
        .env("CALLSCOPE__USERS__ID_PATH", "clientData.clientData")
        .env("CALLSCOPE__BROWSERS__ADDRESS_HEADER", FORWARDED)
        // What they reported one after another comes at once.
        .env("CALLSCOPE__BROWSERS__PER_ADDRESS", "100000")
        .env("CALLSCOPE__BROWSERS__PER_SESSION", "100000")
        .env("CALLSCOPE__SINK__KIND", "elasticsearch")
        .env("CALLSCOPE__ELASTICSEARCH__URLS", &server.url)
        .env("CALLSCOPE__ELASTICSEARCH__INDEX", INDEX)
        .env(source("BROWSERS__KEYS"), KEY)
        .env(source("REST__URL"), format!("http://{}/", platform.address))
        .env(source("REST__SECRET"), SECRET)
        .env(source("REST__EVERY"), "1s");
    Instance::start(&mut command)
}

/// Tells what happened until `at` by webhook and both doors, and then how it ended.
async fn tell(instance: &Instance, platform: &OpenVidu, sessions: &[Session], at: i64) {
    let mut sender = Sender::new(Webhook::at(instance.address));
    let mut all: Vec<&Emitted> = sessions.iter().flat_map(|session| &session.events).collect();
    all.sort_by_key(|event| event.at);
    let (before, after): (Vec<_>, Vec<_>) = all.into_iter().partition(|event| event.at <= at);
    for event in before {
        assert_eq!(sender.post("/webhook", None, &event.json).await.unwrap(), 200);
    }
    // Reports are taken of sessions that are known to be open.
    let open = format!("\"totals\":{{\"sessions\":{},", sessions.len());
    instance.wait_for("/api/sessions?limit=1", &open).await;
    let reports = sessions.iter().flat_map(|session| &session.reports);
    for Report { connection_id, address, json, .. } in reports {
        let path = format!("/stats/default?key={KEY}&connection={connection_id}");
        assert_eq!(sender.post(&path, Some(address), json).await.unwrap(), 204);
    }
    let shown: Vec<_> = sessions.iter().filter_map(|session| session.played.shown(at)).collect();
    platform.shows(&shown);
    instance.wait_for("/api/search?type=webrtcDebug&limit=1", "\"_source\"").await;
    for event in after {
        assert_eq!(sender.post("/webhook", None, &event.json).await.unwrap(), 200);
    }
}

fn board(name: &str) -> Vec<&'static Panel> {
    panels::dashboard(name).unwrap().panels().collect()
}

/// The sessions that have ended, as a panel lists them.
async fn ended(sink: &ElasticsearchSink, view: &View) -> BTreeSet<String> {
    let quality = board("quality");
    let table = quality.iter().find(|panel| panel.id.value == "sessions-with-problems").unwrap();
    let all = Panel { when: Vec::new(), ..(*table).clone() };
    let answer = sink.panel(&all, view).await.unwrap();
    let ids = answer.parts.into_iter().filter_map(|part| match part.keys.into_iter().next() {
        Some(Key::Text(id)) => Some(id),
        _ => None,
    });
    ids.collect()
}

/// The panels that show nothing: of those of one session what no session fills.
async fn empty(sink: &ElasticsearchSink, view: &View, sessions: &BTreeSet<String>) -> Vec<String> {
    let mut empty = Vec::new();
    for panel in ["sessions", "recordings", "quality"].into_iter().flat_map(board) {
        if !is_filled(&sink.panel(panel, view).await.unwrap()) {
            empty.push(panel.id.value.clone());
        }
    }
    for panel in board("session") {
        let mut filled = false;
        for id in sessions {
            let filters = vec![("uniqueSessionId".to_owned(), vec![Choice::Value(id.clone())])];
            let one = View { filters, ..view.clone() };
            filled = filled || is_filled(&sink.panel(panel, &one).await.unwrap());
        }
        if !filled {
            empty.push(panel.id.value.clone());
        }
    }
    empty
}

pub(super) async fn a_community_installation_fills_the_panels(server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let platform = OpenVidu::start(Version::V2_29).await;
    let instance = serve(folder.path(), &platform, server);
    let at = now();
    let sessions = sessions(at);
    tell(&instance, &platform, &sessions, at).await;
    let (sink, _) = server.sink(|config| INDEX.clone_into(&mut config.elasticsearch.index));
    let view = View { from: at - HOUR, to: at + HOUR, zone: Zone::default(), filters: Vec::new() };
    until(async || {
        server.call("POST", &format!("/{INDEX}/_refresh"), None).await;
        ended(&sink, &view).await.len() == sessions.len()
    })
    .await;
    assert_eq!(empty(&sink, &view, &ended(&sink, &view).await).await, UNTOLD);
    instance.stop();
}
