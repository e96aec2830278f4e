use std::collections::BTreeSet;

use super::*;
use crate::decode::{self, DecodeError, Decoded};
use crate::live::Totals;
use crate::simulate;

const START: i64 = 1_700_000_000_000;

/// Counts events as a lane does.
fn observe(metrics: &Metrics, source: &str, json: &str) {
    match decode::decode(json) {
        Ok(Decoded::Event(event)) => metrics.event(source, &event, event.time + 250),
        other => panic!("{other:?}: {json}"),
    }
}

/// The value of a sample as it stands on the page, whole numbers without a point.
fn sample(page: &str, name: &str) -> String {
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
    let line = page.lines().find(of).unwrap_or_else(|| panic!("no {name} in\n{page}"));
    let value = line.rsplit(' ').next().unwrap();
    value.strip_suffix(".0").unwrap_or(value).to_owned()
}

/// The sum over all samples of a metric that counts.
fn total(page: &str, name: &str) -> usize {
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap();
    page.lines().filter(of).map(value).sum()
}

/// Names, types and labels that dashboards rely on.
const PROMISED: &[(&str, &str, &[&str])] = &[
    ("sessions_active", "gauge", &["source", "cluster"]),
    ("connections_active", "gauge", &["source", "cluster"]),
    ("recordings_active", "gauge", &["source", "cluster"]),
    ("streams_active", "gauge", &["source", "cluster", "direction"]),
    ("room_participants_bucket", "gauge", &["source", "le"]),
    ("room_participants_gcount", "gauge", &["source"]),
    ("room_participants_gsum", "gauge", &["source"]),
    ("joins", "counter", &["source"]),
    ("leaves", "counter", &["source", "reason"]),
    ("sessions_closed", "counter", &["source", "reason"]),
    ("session_duration_seconds", "histogram", &["source"]),
    ("streamed_seconds", "counter", &["source", "direction"]),
    ("recordings", "counter", &["source", "status", "output_mode"]),
    ("recording_bytes", "counter", &["source", "output_mode"]),
    ("recording_seconds", "counter", &["source", "output_mode"]),
    ("recordings_stuck", "gauge", &["source"]),
    ("ice_components", "counter", &["source", "state", "direction"]),
    ("selected_pairs", "counter", &["source", "local_type", "remote_type", "transport"]),
    ("ice_gathering_seconds", "histogram", &["source", "direction"]),
    ("pair_selected_seconds", "histogram", &["source", "direction"]),
    ("first_media_seconds", "histogram", &["source", "direction"]),
    ("network_quality_changes", "counter", &["source", "level"]),
    ("packets", "counter", &["source", "direction", "kind"]),
    ("packets_lost", "counter", &["source", "direction", "kind"]),
    ("jitter_seconds", "histogram", &["source", "direction"]),
    ("rtt_seconds", "histogram", &["source", "direction"]),
    ("node_status", "gauge", &["cluster", "node", "status"]),
    ("node_crashes", "counter", &["cluster"]),
    ("events_received", "counter", &["source", "type"]),
    ("events_rejected", "counter", &["source", "reason"]),
    ("events_deduplicated", "counter", &["source"]),
    ("documents_indexed", "counter", &["elastic_type"]),
    ("index_failures", "counter", &["elastic_type", "kind"]),
    ("event_lag_seconds", "histogram", &["source"]),
    ("queue_depth", "gauge", &[]),
    ("queue_oldest_seconds", "gauge", &[]),
    ("spool_bytes", "gauge", &[]),
    ("dead_letters", "gauge", &[]),
    ("kafka_dead_letters", "gauge", &[]),
    ("es_bulk_seconds", "histogram", &["outcome"]),
    ("http_requests", "counter", &["path", "code"]),
    ("http_request_seconds", "histogram", &["path", "code"]),
    ("source_last_event_timestamp_seconds", "gauge", &["source"]),
    ("log_lines", "counter", &["level"]),
    ("build", "info", &["version", "revision"]),
];

#[test]
fn every_promised_metric_is_there_with_its_type_and_labels() {
    let metrics = Metrics::new();
    let crash =
        r#"{"event":"nodeCrashed","timestamp":1700000000000,"id":"media_1","clusterId":"c"}"#;
    let node = r#"{"event":"mediaNodeStatusChanged","timestamp":1700000000000,"id":"media_2","newStatus":"running","clusterId":"c"}"#;
    observe(&metrics, "default", crash);
    observe(&metrics, "default", node);
    for event in simulate::telemetry(1, START, 1, 30_000) {
        observe(&metrics, "default", &event.json);
    }
    metrics.index_failure("cdr", "refused");
    metrics.bulk("ok", 0.1);
    metrics.http_request("api", 200, 0.1);
    let page = metrics.encode();
    assert!(page.ends_with("# EOF\n"));
    for (name, kind, labels) in PROMISED {
        assert!(
            page.contains(&format!("# TYPE callscope_{name} {kind}\n")),
            "{name} {kind}\n{page}"
        );
        let suffix = match *kind {
            "counter" => "_total",
            "histogram" => "_count",
            "info" => "_info",
            _ => "",
        };
        let begin = format!("callscope_{name}{suffix}");
        let line = page.lines().find(|line| {
            line.strip_prefix(&begin).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let line = line.unwrap_or_else(|| panic!("no sample of {name}\n{page}"));
        let shown: BTreeSet<&str> = match line.split_once('{') {
            Some((_, rest)) => rest
                .split("\",")
                .filter_map(|pair| pair.split_once('='))
                .map(|(label, _)| label)
                .collect(),
            None => BTreeSet::new(),
        };
        assert_eq!(shown, labels.iter().copied().collect(), "{line}");
    }
}

#[test]
fn counts_are_those_of_the_story() {
    let metrics = Metrics::new();
    let (events, truth) = simulate::session(5, START, 1);
    for event in &events {
        observe(&metrics, "one", &event.json);
    }
    let page = metrics.encode();
    assert_eq!(
        sample(&page, "callscope_joins_total{source=\"one\"}"),
        truth.connections.to_string()
    );
    assert_eq!(total(&page, "callscope_leaves_total"), truth.connections);
    assert_eq!(total(&page, "callscope_events_received_total"), events.len());
    let closed =
        format!("callscope_sessions_closed_total{{source=\"one\",reason=\"{}\"}}", truth.reason);
    assert_eq!(sample(&page, &closed), "1");
    assert_eq!(sample(&page, "callscope_joins_total{source=\"default\"}"), "0");
    let streamed: f64 = events
        .iter()
        .map(|event| serde_json::from_str::<serde_json::Value>(&event.json).unwrap())
        .filter(|event| {
            event["event"] == "webrtcConnectionDestroyed" && event["connection"] == "INBOUND"
        })
        .map(|event| {
            (event["timestamp"].as_f64().unwrap() - event["startTime"].as_f64().unwrap()) / 1000.0
        })
        .sum();
    let shown =
        sample(&page, "callscope_streamed_seconds_total{source=\"one\",direction=\"inbound\"}")
            .parse::<f64>()
            .unwrap();
    assert!((shown - streamed).abs() < 0.01, "{shown} {streamed}");
    assert_eq!(
        sample(&page, "callscope_source_last_event_timestamp_seconds{source=\"one\"}"),
        (truth.end / 1000).to_string()
    );
}

#[test]
fn packets_are_counted_by_growth_and_first_media_once() {
    let metrics = Metrics::new();
    let stats = |received: i64, lost: i64| {
        format!(
            "{{\"timestamp\":{START},\"sessionId\":\"s\",\"connectionId\":\"con_A\",\"endpoint\":\"str_CAM_x_con_A\",\"mediaType\":\"audio\",\"jitter\":0.004,\"bytesReceived\":1,\"packetsReceived\":{received},\"packetsLost\":{lost}}}"
        )
    };
    for (received, lost) in [(100, 1), (150, 3), (20, 0)] {
        observe(&metrics, "default", &stats(received, lost));
    }
    let flow = |state: &str, since: i64| {
        format!(
            "{{\"timestamp\":{START},\"sessionId\":\"s\",\"connectionId\":\"con_A\",\"endpoint\":\"con_A_str_CAM_y_con_B\",\"type\":\"MediaFlowOutStateChange\",\"state\":\"{state}\",\"mediaType\":\"VIDEO\",\"msSinceEndpointCreation\":{since}}}"
        )
    };
    for (state, since) in [("FLOWING", 700), ("NOT_FLOWING", 900), ("FLOWING", 5000)] {
        observe(&metrics, "default", &flow(state, since));
    }
    let page = metrics.encode();
    let labels = "{source=\"default\",direction=\"outbound\",kind=\"audio\"}";
    assert_eq!(sample(&page, &format!("callscope_packets_total{labels}")), "70");
    assert_eq!(sample(&page, &format!("callscope_packets_lost_total{labels}")), "2");
    let labels = "{source=\"default\",direction=\"inbound\"}";
    assert_eq!(sample(&page, &format!("callscope_first_media_seconds_count{labels}")), "1");
    assert_eq!(sample(&page, &format!("callscope_first_media_seconds_sum{labels}")), "0.7");
    assert_eq!(
        sample(&page, "callscope_jitter_seconds_count{source=\"default\",direction=\"outbound\"}"),
        "3"
    );
}

/// Up to 2.11 the stream id of a publisher begins with its connection id.
#[test]
fn the_endpoint_of_an_old_publisher_is_outbound() {
    let metrics = Metrics::new();
    for endpoint in ["con_CAMERA_XHIHV", "con_con2_CAMERA_XHIHV"] {
        observe(
            &metrics,
            "default",
            &format!(
                "{{\"timestamp\":{START},\"sessionId\":\"s\",\"connectionId\":\"con\",\"endpoint\":\"{endpoint}\",\"mediaType\":\"audio\",\"jitter\":0.004,\"bytesReceived\":1}}"
            ),
        );
    }
    let page = metrics.encode();
    for direction in ["outbound", "inbound"] {
        let labels = format!("{{source=\"default\",direction=\"{direction}\"}}");
        let name = format!("callscope_jitter_seconds_count{labels}");
        assert_eq!(sample(&page, &name), "1", "{direction}");
    }
}

#[test]
fn a_recording_without_a_final_status_is_stuck_until_it_has_one() {
    let metrics = Metrics::new();
    let told = |status: &str| {
        format!(
            "{{\"event\":\"recordingStatusChanged\",\"timestamp\":{START},\"startTime\":1,\"sessionId\":\"s\",\"id\":\"r\",\"status\":\"{status}\"}}"
        )
    };
    let stuck = |clock: i64| {
        metrics.live(&Live { at: clock, ..Live::default() });
        sample(&metrics.encode(), "callscope_recordings_stuck{source=\"default\"}")
    };
    observe(&metrics, "default", &told("stopped"));
    assert_eq!((stuck(START + 600_000), stuck(START + 600_001)), ("0".to_owned(), "1".to_owned()));
    observe(&metrics, "default", &told("ready"));
    assert_eq!(stuck(START + 700_000), "0");
}

#[test]
fn a_node_has_one_status_and_none_once_it_is_gone() {
    let metrics = Metrics::new();
    let told = |status: &str| {
        observe(
            &metrics,
            "default",
            &format!(
                "{{\"event\":\"mediaNodeStatusChanged\",\"timestamp\":{START},\"id\":\"n\",\"newStatus\":\"{status}\",\"clusterId\":\"c\"}}"
            ),
        );
        let page = metrics.encode();
        page.lines()
            .filter(|line| line.starts_with("callscope_node_status{"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told("launching"),
        ["callscope_node_status{cluster=\"c\",node=\"n\",status=\"launching\"} 1"]
    );
    assert_eq!(
        told("running"),
        ["callscope_node_status{cluster=\"c\",node=\"n\",status=\"running\"} 1"]
    );
    assert!(told("terminated").is_empty());
}

#[test]
fn gauges_of_what_is_open_fall_back_to_zero() {
    let metrics = Metrics::new();
    let mut live = Live::default();
    for connections in [2, 2, 300] {
        live.count(
            "a",
            "c",
            Totals { sessions: 1, connections, publishers: 1, ..Totals::default() },
        );
    }
    metrics.live(&live);
    let page = metrics.encode();
    for (name, value) in [
        ("sessions_active{source=\"a\",cluster=\"c\"}", "3"),
        ("streams_active{source=\"a\",cluster=\"c\",direction=\"outbound\"}", "3"),
        ("room_participants_bucket{source=\"a\",le=\"1.0\"}", "0"),
        ("room_participants_bucket{source=\"a\",le=\"2.0\"}", "2"),
        ("room_participants_bucket{source=\"a\",le=\"+Inf\"}", "3"),
        ("room_participants_gcount{source=\"a\"}", "3"),
        ("room_participants_gsum{source=\"a\"}", "304"),
    ] {
        assert_eq!(sample(&page, &format!("callscope_{name}")), value, "{name}");
    }
    metrics.live(&Live::default());
    let page = metrics.encode();
    assert_eq!(sample(&page, "callscope_sessions_active{source=\"a\",cluster=\"c\"}"), "0");
    assert_eq!(sample(&page, "callscope_room_participants_gcount{source=\"a\"}"), "0");
}

#[test]
fn the_sizes_of_sessions_are_those_of_the_picture() {
    for (word, size) in SIZE_WORDS.iter().zip(SIZES) {
        assert_eq!(*word, format!("{size}.0"));
    }
}

#[test]
fn every_reason_why_a_record_is_no_event_has_a_word() {
    let told = |error: DecodeError| {
        // Another variant does not compile here: it needs a word, and its text a place in the list below.
        let word = match &error {
            DecodeError::NotJson(_) => "not_json",
            DecodeError::NotAnObject => "not_an_object",
            DecodeError::NotAnEvent => "not_an_event",
            DecodeError::NoTime => "no_time",
            DecodeError::OddTime(_) => "bad_time",
            DecodeError::OddStart(_) => "bad_start",
            DecodeError::Missing { .. } => "missing_field",
            DecodeError::TooManyFields => "too_many_fields",
            DecodeError::TooDeep => "too_deep",
            DecodeError::LongId(_) => "long_id",
        };
        (error.to_string(), word)
    };
    let missing =
        |event: &str| DecodeError::Missing { event: event.to_owned(), field: "sessionId" };
    let errors = [
        DecodeError::NotJson("expected value".to_owned()),
        DecodeError::NotAnObject,
        DecodeError::NotAnEvent,
        DecodeError::NoTime,
        DecodeError::OddTime(1),
        DecodeError::OddStart(1),
        missing("participantJoined"),
        missing("timestamp"),
        missing("timestamp` 7 lies before"),
        missing("x` is longer than"),
        DecodeError::TooManyFields,
        DecodeError::TooDeep,
        DecodeError::LongId("uniqueSessionId"),
    ];
    let others = [
        ("the journal is damaged here".to_owned(), "damaged"),
        ("a line longer than 64 MiB".to_owned(), "long_line"),
        ("`timestamp` 7 lies more than a day ahead of the clock".to_owned(), "bad_time"),
        ("something else".to_owned(), "other"),
    ];
    for (text, word) in errors.into_iter().map(told).chain(others) {
        let metrics = Metrics::new();
        metrics.rejected("default", &text);
        let name =
            format!("callscope_events_rejected_total{{source=\"default\",reason=\"{word}\"}}");
        assert_eq!(sample(&metrics.encode(), &name), "1", "{text}");
    }
}

#[test]
fn a_damaged_record_makes_no_source_of_its_own() {
    let metrics = Metrics::new();
    metrics.rejected("", "the journal is damaged here");
    let page = metrics.encode();
    let name = "callscope_events_rejected_total{source=\"default\",reason=\"damaged\"}";
    assert_eq!(sample(&page, name), "1");
    assert!(!page.contains("source=\"\""), "{page}");
}

#[test]
fn clusters_beyond_the_bound_are_other_everywhere() {
    use crate::live::CLUSTERS_MAX;
    let metrics = Metrics::new();
    let clusters = |page: &str, name: &str| {
        let of = |line: &&str| line.starts_with(&format!("callscope_{name}{{"));
        page.lines().filter(of).count()
    };
    for cluster in 0..CLUSTERS_MAX + 5 {
        let crash = format!(
            "{{\"event\":\"nodeCrashed\",\"timestamp\":{START},\"id\":\"m\",\"clusterId\":\"c{cluster}\"}}"
        );
        observe(&metrics, "default", &crash);
    }
    for cluster in 0..CLUSTERS_MAX + 5 {
        let mut live = Live::default();
        live.count("default", &format!("c{cluster}"), Totals { sessions: 1, ..Totals::default() });
        live.count("default", "d", Totals { sessions: 1, ..Totals::default() });
        metrics.live(&live);
    }
    let page = metrics.encode();
    assert_eq!(sample(&page, "callscope_node_crashes_total{cluster=\"other\"}"), "5");
    assert_eq!(clusters(&page, "node_crashes_total"), CLUSTERS_MAX + 1);
    let other = "callscope_sessions_active{source=\"default\",cluster=\"other\"}";
    assert_eq!(sample(&page, other), "2");
    // One is without a cluster, from before anything was open.
    assert_eq!(clusters(&page, "sessions_active"), CLUSTERS_MAX + 2);
}
