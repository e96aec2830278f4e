//! One rich set of events, the same for everybody who asks.

use std::path::{Path, PathBuf};
use std::process::Command;

use callscope::config::Config;
use callscope::simulate::{self, Emitted};
use callscope::sink::StatusSender;
use callscope::sink::embedded::EmbeddedIndex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// When the month begins, milliseconds since 1970: 27 October 2023. On its third day clocks are put back in Europe. The samples lie
/// years before it.
pub const START: i64 = 1_698_400_000_000;
/// Milliseconds of a day.
pub const DAY: i64 = 86_400_000;
/// Where the sessions of the month are.
pub const CLUSTERS: [&str; 2] = ["east", "west"];
/// How long after a session of the one a session of the other begins, milliseconds.
const APART: i64 = 600_000;
/// How often what is open is counted, milliseconds: as seldom as it can be seen, for the odd cases lie years apart.
pub const COUNTED_EVERY: i64 = 300_000;

/// A month of sessions in two clusters, of each one at a time, with what the media server tells of them, its statistics every so
/// many milliseconds, and one of everything else that there is. An event a line.
pub fn a_month_and_the_odd_cases(stats_every: i64) -> String {
    let mut events: Vec<Emitted> = Vec::new();
    for number in 0..150_u64 {
        let (pair, cluster) =
            (i64::try_from(number / 2).unwrap(), CLUSTERS[usize::from(number % 2 == 1)]);
        let start = START + DAY * 30 / 75 * pair + if number % 2 == 1 { APART } else { 0 };
        let told = simulate::session(number, start, 1).0.into_iter();
        let told = told.chain(simulate::telemetry(number, start, 1, stats_every));
        let named = |event: Emitted| {
            let json = event.json.replacen('{', &format!("{{\"cluster_id\":\"{cluster}\","), 1);
            // Each cluster has nodes of its own.
            let json = json.replace("\"media_i-", &format!("\"media_{cluster}-"));
            Emitted { json, ..event }
        };
        events.extend(told.map(named));
    }
    events.sort_by_key(|event| event.at);
    let mut lines: Vec<String> = events.into_iter().map(|event| event.json).collect();
    let folder = format!("{}/fixtures/samples", env!("CARGO_MANIFEST_DIR"));
    let mut samples: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|found| found.unwrap().path()).collect();
    samples.sort();
    for sample in samples {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(sample).unwrap()).unwrap();
        lines.push(json.to_string());
    }
    // What no sample has.
    let session =
        json!({"sessionId": "odd", "uniqueSessionId": format!("odd_{START}"), "timestamp": START});
    for more in [
        json!({"event": "participantJoined", "connectionId": "con_odd", "location": "Madrid", "geoPoints": "40.4,-3.7", "platform": "x"}),
        json!({"event": "broadcastStarted"}),
        json!({"elastic_type": "kms", "connectionId": "con_odd", "endpoint": "e", "type": "MediaTranscodingStateChanged", "mediaType": "VIDEO",
               "state": "TRANSCODING"}),
        json!({"elastic_type": "kms", "connectionId": "con_odd", "endpoint": "e", "type": "UNEXPECTED_ERROR", "description": "odd"}),
        json!({"event": "sessionDestroyed", "startTime": START, "duration": 10, "reason": "lastParticipantLeft"}),
    ] {
        let mut line = session.clone();
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        lines.push(line.to_string());
    }
    lines.join("\n")
}

/// Has `callscope import` take events, a line each, to the sink of a name, with `folder` as its data directory.
pub fn import(lines: &str, to: &str, folder: &Path, settings: &[(&str, &str)]) {
    let file = folder.join("month.jsonl");
    std::fs::write(&file, lines).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_callscope"))
        .args(["import", "--to", to])
        .arg(&file)
        .env("CALLSCOPE__DATA_DIR", folder)
        .env("CALLSCOPE__STATS__EVERY", format!("{COUNTED_EVERY}ms"))
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    // Some samples are no events.
    assert!(matches!(output.status.code(), Some(0 | 5)), "{told}");
}

/// The embedded index that it has filled there.
pub fn index(folder: &Path) -> EmbeddedIndex {
    let config = Config::load(None, std::iter::empty()).unwrap().config;
    let (stop, status) = (CancellationToken::new(), StatusSender::default());
    EmbeddedIndex::open(&folder.join("index"), &config.embedded, stop, status).unwrap()
}
