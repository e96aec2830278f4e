//! One rich set of events, the same for everybody who asks.

use std::path::PathBuf;

use callscope::simulate::{self, Emitted};
use serde_json::{Value, json};

/// When the month begins, milliseconds since 1970. The samples lie years before it.
pub const START: i64 = 1_700_000_000_000;
/// Milliseconds of a day.
pub const DAY: i64 = 86_400_000;

/// A month of sessions with what the media server tells of them, its statistics every so many milliseconds, and one of everything
/// else that there is. An event a line.
pub fn a_month_and_the_odd_cases(stats_every: i64) -> String {
    let mut events: Vec<Emitted> = Vec::new();
    for number in 0..150_u64 {
        let start = START + DAY * 30 / 150 * i64::try_from(number).unwrap();
        events.extend(simulate::session(number, start, 1).0);
        events.extend(simulate::telemetry(number, start, 1, stats_every));
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
        json!({"sessionId": "odd", "uniqueSessionId": "odd_1700000000000", "timestamp": START});
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
