//! Reports as openvidu-browser makes them, and as nobody should.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const AT: i64 = 1_700_000_000_000;
const ARRIVAL: Arrival<'static> =
    Arrival { at: AT, address: Some("203.0.113.7"), connection: None, session: None };

fn records(body: &Json, arrival: Arrival<'_>) -> Vec<Json> {
    let report = read(body.to_string().as_bytes(), arrival).unwrap();
    let reporter = report.reporter(AT - 1_000, &[], arrival);
    let records = report.records(&reporter, arrival, &Running::default());
    records.iter().map(|record| serde_json::from_str(record).unwrap()).collect()
}

/// What Chrome sends of its own stream with OpenVidu 2.29.
fn outbound() -> Json {
    json!({
        "@timestamp": "2023-11-14T22:13:19.500Z", "participant_id": "{\"clientData\":\"Ana\"}%/%teacher", "session_id": "daily",
        "platform": "Chrome", "platform_description": "Chrome 129.0 on Linux 64-bit", "stream": "webRTC",
        "webrtc_stats": {
            "outbound": {
                "audio": {"bytesSent": 9000, "packetsSent": 100},
                "video": {"bytesSent": 90000, "packetsSent": 120, "framesEncoded": 60, "frameWidth": 640, "frameHeight": 480, "qpSum": 900},
            },
            "candidatepair": {"currentRoundTripTime": 0.05, "availableOutgoingBitrate": 900000},
        },
    })
}

#[test]
fn a_report_on_its_own_stream_is_what_it_sends() {
    let [audio, video] = <[Json; 2]>::try_from(records(&outbound(), ARRIVAL)).unwrap();
    let machine = Client {
        connection: None,
        address: Some(hash("203.0.113.7")),
        platform: Some(hash("Chrome 129.0 on Linux 64-bit")),
        visit: None,
    };
    let sender = Sender::Told(hash("{\"clientData\":\"Ana\"}%/%teacher"));
    let start = AT - 1_000;
    let endpoint =
        Reporter { start, sends: true, client: machine, sender, sender_visit: None }.name();
    assert_eq!(
        audio,
        json!({
            "elastic_type": "webrtcStats", "side": "browser", "sessionId": "daily", "uniqueSessionId": "daily_1699999999000",
            "endpoint": endpoint, "mediaType": "audio", "platform": "Chrome 129.0 on Linux 64-bit",
            "bytesSent": 9000, "packetsSent": 100, "timestamp": 1_699_999_999_500_i64,
        })
    );
    assert_eq!((&video["rtt"], &video["targetBitrate"]), (&json!(0.05), &json!(900_000)));
    assert_eq!((&video["frameWidth"], &video["qpSum"]), (&json!(640), &json!(900)));
}

#[test]
fn who_tells_its_connection_is_called_by_it() {
    let arrival = Arrival { connection: Some("con_A"), ..ARRIVAL };
    for record in records(&outbound(), arrival) {
        let reporter = Reporter::read(record["endpoint"].as_str().unwrap()).unwrap();
        assert_eq!(reporter.client.connection, Some("con_A"));
    }
    let nowhere = Arrival { address: None, ..ARRIVAL };
    let [record, _] = <[Json; 2]>::try_from(records(&outbound(), nowhere)).unwrap();
    let reporter = Reporter::read(record["endpoint"].as_str().unwrap()).unwrap();
    assert_eq!(reporter.client.address, None);
}

#[test]
fn absurd_figures_and_times_are_left_out() {
    let mut report = outbound();
    let video = json!({
        "bytesSent": -1, "packetsSent": 1e300, "packetsLost": 3, "framesEncoded": "many", "frameWidth": 70_000, "frameHeight": null, "qpSum": 5,
        "<script>": 1, "__proto__": 7,
    });
    report["webrtc_stats"]["outbound"]["video"] = video;
    report["webrtc_stats"]["candidatepair"] = json!({"currentRoundTripTime": 9e9});
    report["@timestamp"] = json!("1999-01-01T00:00:00Z");
    let [_, video] = <[Json; 2]>::try_from(records(&report, ARRIVAL)).unwrap();
    let names: Vec<&str> = video.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "elastic_type",
            "endpoint",
            "mediaType",
            "platform",
            "qpSum",
            "sessionId",
            "side",
            "timestamp",
            "uniqueSessionId"
        ]
    );
    assert_eq!(video["timestamp"], AT, "its clock is off, so ours counts");
}

#[test]
fn what_is_no_report_is_refused_with_the_reason() {
    for (body, expected) in [
        ("", "no report"),
        ("[]", "no report"),
        ("{}", "no report"),
        ("\u{0}", "no report"),
        (r#"{"webrtc_stats":{}}"#, "names no session"),
        (r#"{"session_id":"s","webrtc_stats":{}}"#, "no figure"),
        (r#"{"session_id":"s","webrtc_stats":{"inbound":{"video":{"jitter":"1"}}}}"#, "no figure"),
        (r#"{"session_id":"","webrtc_stats":{"inbound":{}}}"#, "names no session"),
        (r#"{"et_type":"webrtc_inbound_video_1"}"#, "names no session"),
        (r#"{"exec":"s","et_type":"webrtc_inbound_video_1"}"#, "no figure"),
        (r#"{"exec":"s","et_type":"webrtc_sideways_video_1"}"#, "webrtc_sideways_video_1"),
        (r#"{"exec":"s","et_type":"webrtc_inbound_smell_1"}"#, "webrtc_inbound_smell_1"),
        (r#"{"exec":"s","et_type":7}"#, "et_type"),
    ] {
        let error = read(body.as_bytes(), ARRIVAL).unwrap_err().to_string();
        assert!(error.contains(expected), "{body}: {error}");
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let error = read(format!("{{\"webrtc_stats\":{nested}}}").as_bytes(), ARRIVAL).unwrap_err();
    assert!(matches!(error, ReportError::Odd(_)));
}

/// 2.17 tells both ways, one of them without a figure.
#[test]
fn the_way_that_tells_nothing_is_not_the_one_that_is_told() {
    let figures = json!({"audio": {}, "video": {"packetsReceived": 5, "packetsSent": 5}});
    let nothing = json!({"audio": {}, "video": {}});
    for (way, other, figure) in
        [("inbound", "outbound", "packetsReceived"), ("outbound", "inbound", "packetsSent")]
    {
        let mut body = outbound();
        body["webrtc_stats"] = json!({ way: figures, other: nothing });
        let [record] = <[Json; 1]>::try_from(records(&body, ARRIVAL)).unwrap();
        assert_eq!(record[figure], 5, "{record}");
        let reporter = Reporter::read(record["endpoint"].as_str().unwrap()).unwrap();
        assert_eq!(reporter.sends, way == "outbound");
    }
}

#[test]
fn a_platform_whose_clock_is_ahead_stays_so() {
    let running = Running::default();
    let hour = 3_600_000;
    assert_eq!(running.ahead(7, AT - 5_000, AT), 0);
    assert_eq!(running.ahead(7, AT + 30_000, AT), 0, "as clocks are");
    assert_eq!(running.ahead(7, AT + hour, AT), hour);
    assert_eq!(running.ahead(7, AT + hour, AT + 20_000), hour, "nothing has happened since");
    assert_eq!(running.ahead(7, AT + hour + 25_000, AT + 21_000), hour + 4_000);
    assert_eq!(running.ahead(8, AT, AT), 0, "of another session");
}

#[test]
fn a_clock_that_is_far_off_is_as_far_off_each_time() {
    let running = Running::default();
    let hour = 3_600_000;
    let time = |told: i64, came: i64| {
        let mut body = outbound();
        body["@timestamp"] = json!(DateTime::from_timestamp_millis(told).unwrap().to_rfc3339());
        let arrival = Arrival { at: came, ..ARRIVAL };
        let report = read(body.to_string().as_bytes(), arrival).unwrap();
        let reporter = report.reporter(AT, &[], arrival);
        let records = report.records(&reporter, arrival, &running);
        serde_json::from_str::<Json>(&records[0]).unwrap()["timestamp"].as_i64().unwrap()
    };
    assert_eq!(time(AT + 900, AT + 1_000), AT + 900, "as it says");
    assert_eq!(time(AT - hour, AT), AT, "an hour slow");
    assert_eq!(time(AT - hour + 30_000, AT + 31_000), AT + 30_000);
    assert_eq!(time(AT - hour + 30_000, AT + 55_000), AT + 30_000, "told twice");
    assert_eq!(time(AT - hour + 15_000, AT + 56_000), AT + 15_000, "late");
    // Set right meanwhile, or set otherwise.
    assert_eq!(time(AT + 60_000, AT + 60_100), AT + 60_000);
    assert_eq!(time(AT + 2 * hour, AT + 70_000), AT + 70_000);
    assert_eq!(time(AT + 2 * hour, AT + 71_000), AT + 70_000);
}

/// No more than a network carries in the time that the session has lasted.
#[test]
fn counters_have_grown_no_faster_than_they_can() {
    let told = |packets: f64, bytes: f64| {
        let mut body = outbound();
        body["webrtc_stats"]["outbound"]["video"]["packetsSent"] = json!(packets);
        body["webrtc_stats"]["outbound"]["video"]["bytesSent"] = json!(bytes);
        let arrival = Arrival { at: AT + 60_000, ..ARRIVAL };
        let report = read(body.to_string().as_bytes(), arrival).unwrap();
        let reporter = report.reporter(AT, &[], arrival);
        let records = report.records(&reporter, arrival, &Running::default());
        let records: Vec<Json> =
            records.iter().map(|record| serde_json::from_str(record).unwrap()).collect();
        let video = records.iter().find(|record| record["mediaType"] == "video").unwrap();
        ["packetsSent", "bytesSent"].map(|name| video.get(name).is_some())
    };
    assert_eq!(told(6e4, 7e7), [true, true]);
    assert_eq!(told(1e12, 7e7), [false, true]);
    assert_eq!(told(6e4, 1e14), [true, false]);
}

/// Up to 2.16 they tell what there was in each second.
#[test]
fn old_reports_tell_of_each_second() {
    let body = json!({
        "@timestamp": "2023-11-14T22:13:30Z", "exec": "daily", "component": "web",
        "stream": "webRtc", "et_type": "webrtc_inbound_video_7", "stream_type": "composed_metrics", "units": {},
        "webrtc_inbound_video_7": {"bytesReceived": 1000, "jitter": 12, "packetsReceived": 50, "packetsLost": 0.25, "framesDecoded": 1e18},
    });
    let arrival = Arrival { at: AT + 10_000, ..ARRIVAL };
    let report = read(body.to_string().as_bytes(), arrival).unwrap();
    let reporter = report.reporter(AT, &[], arrival);
    let records = report.records(&reporter, arrival, &Running::default());
    let [record] = <[String; 1]>::try_from(records).unwrap();
    let record: Json = serde_json::from_str(&record).unwrap();
    assert!(record.get("uniqueSessionId").is_none(), "that came with 2.17");
    assert!(record.get("packetsReceived").is_none(), "it is no counter");
    assert_eq!(record["jitter"], 0.012);
    let rates = json!({ "bytesReceived": 1000, "packetsLost": 0.25, "packetsReceived": 50 });
    assert_eq!(record["perSecond"], rates);
}

proptest! {
    #[test]
    fn nothing_makes_it_fail_and_all_it_takes_is_small(body in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
        read(&body, ARRIVAL).ok();
        let mut report = outbound();
        for name in ["participant_id", "platform_description", "session_id", "@timestamp"] {
            report[name] = json!(text.repeat(50));
        }
        if let Ok(report) = read(report.to_string().as_bytes(), ARRIVAL) {
            let reporter = report.reporter(AT, &[], ARRIVAL);
            for record in report.records(&reporter, ARRIVAL, &Running::default()) {
                let record: Json = serde_json::from_str(&record).unwrap();
                prop_assert!(record["endpoint"].as_str().unwrap().len() < 200);
                prop_assert!(record.get("platform").is_none_or(|text| text.as_str().unwrap().len() <= PLATFORM_BYTES_MAX));
            }
        }
    }
}
