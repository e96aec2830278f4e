//! The binary as a process: output, exit codes, messages.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails shows where")]

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/2.17-session.jsonl");

fn callscope(folder: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callscope"));
    command
        .args(arguments)
        .current_dir(folder)
        .env("CALLSCOPE__DATA_DIR", folder.join("data"))
        .env("CALLSCOPE__LOG__LEVEL", "error");
    command
}

fn run(folder: &std::path::Path, arguments: &[&str]) -> (i32, String, String) {
    ended(&callscope(folder, arguments).output().unwrap())
}

fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn import_prints_writes_to_stdout_and_counts_to_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output, told) = run(folder.path(), &["import", "--to", "stdout", FIXTURE]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("16 records") && told.contains("0 dead"), "{told}");
    let lines: Vec<Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let is_summary = line["_source"]["elastic_type"].as_str().unwrap().ends_with("Summary");
        assert_eq!(line.get("_version").is_some(), is_summary, "{line}");
        assert_eq!(line["_index"], "openvidu-events-2021.03");
    }
    let sessions =
        lines.iter().filter(|line| line["_source"]["elastic_type"] == "sessionSummary").count();
    assert_eq!(sessions, 1);
}

#[test]
fn importing_again_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_, _, first) = run(folder.path(), &["import", "--to", "embedded", FIXTURE]);
    // The fixture tells two recording events under both of their names.
    assert!(first.contains("2 existed, 0 older, 0 refused"), "{first}");
    let (code, _, again) = run(folder.path(), &["import", "--to", "embedded", FIXTURE]);
    assert_eq!(code, 0);
    // Sixteen events, and the four moments at which something was open, of the cluster and of all clusters.
    assert!(again.contains("24 existed"), "{again}");
}

#[test]
fn lines_that_are_no_events_are_told_and_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = callscope(folder.path(), &["import", "--to", "embedded", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let event = r#"{"sessionCreated":{"sessionId":"s","timestamp":1700000000000}}"#;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("garbage\n{event}\n{{\"a\":1}}\n").as_bytes())
        .unwrap();
    let (code, _, told) = ended(&child.wait_with_output().unwrap());
    assert_eq!(code, 5, "{told}");
    assert!(told.contains("2 dead"), "{told}");
    let (_, list, _) = run(folder.path(), &["dead-letters", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    let key = lines[0].split('\t').next().unwrap();
    assert!(key.starts_with("record/import/stdin-") && key.ends_with("@0"), "{list}");
    assert!(lines[0].contains("not JSON"), "{list}");
    let (code, shown, _) = run(folder.path(), &["dead-letters", "show", key]);
    assert!(code == 0 && shown.contains("garbage"), "{shown}");
    let (code, told, _) = run(folder.path(), &["dead-letters", "discard", "--all"]);
    assert!(code == 0 && told.contains("2 discarded"), "{told}");
    assert_eq!(run(folder.path(), &["dead-letters", "list"]).1, "");
    assert_eq!(run(folder.path(), &["dead-letters", "show", "no such"]).0, 2);
}

#[test]
fn what_a_servers_log_tells_besides_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("openvidu.log");
    let event = r#"{"sessionCreated":{"sessionId":"s","timestamp":1700000000000}}"#;
    let text = format!(
        "[INFO] 2023-11-14 22:13:19,999 [main] io.openvidu.server.OpenViduServer - Started\n\
         [INFO] 2023-11-14 22:13:20,001 [x] io.openvidu.server.cdr.CDRLoggerFile - {event}\n\
         [ERROR] 2023-11-14 22:13:20,002 [x] io.openvidu.server.Kms - gone\n\tat io.openvidu.server.Kms.x(Kms.java:1)\n"
    );
    std::fs::write(&log, text).unwrap();
    let log = log.to_str().unwrap();
    let (code, _, told) = run(folder.path(), &["import", "--to", "embedded", log]);
    assert!(code == 0 && told.contains("1 folded") && told.contains("3 skipped, 0 dead"), "{told}");
    let (code, told, _) = run(folder.path(), &["check", "--events", log]);
    assert!(code == 0 && told.matches("skipped").count() == 3, "{told}");
}

#[test]
fn an_output_that_takes_nothing_is_no_wrong_setting() {
    let folder = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = callscope(folder.path(), &["import", "--to", "stdout", FIXTURE]);
    let (code, _, told) = ended(&command.stdout(full).output().unwrap());
    assert!(code == 1 && told.contains("cannot write to standard output"), "{told}");
}

#[test]
fn check_says_what_each_line_is() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output, _) = run(folder.path(), &["check", "--events", FIXTURE]);
    assert_eq!(code, 0);
    assert!(
        output.lines().next().unwrap().contains("sessionCreated TestSession_1614772177070"),
        "{output}"
    );
    assert_eq!(run(folder.path(), &["check"]).0, 0);
}

#[test]
fn check_says_what_is_wrong_with_files_of_dashboards() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = |name: &str| format!("{}/kibana/{name}", env!("CARGO_MANIFEST_DIR"));
    let files = ["callscope.ndjson", "opensearch-dashboards.ndjson", "hosts.ndjson"].map(shipped);
    let (code, output, told) =
        run(folder.path(), &["check", "--dashboards", &files[0], &files[1], &files[2]]);
    assert_eq!((code, output.matches("objects, ok").count()), (0, 3), "{output}{told}");
    let (code, output, _) = run(folder.path(), &["check", "--dashboards", &files[2]]);
    assert!(
        code == 3 && output.contains("index-pattern callscope, which is not there"),
        "{output}"
    );

    let text = std::fs::read_to_string(&files[0]).unwrap();
    let line = 1 + text.lines().position(|line| line.contains("callscope-quality\",")).unwrap();
    let field = r#"\\\"sourceField\\\":\\\"jitterMs\\\""#.replace("\\\\\\", "\\");
    assert!(text.contains(&field), "{field}");
    let damaged = folder.path().join("mine.ndjson");
    std::fs::write(&damaged, text.replace(&field, &field.replace("jitterMs", "jiterMs"))).unwrap();
    let (code, output, _) = run(folder.path(), &["check", "--dashboards", "mine.ndjson"]);
    let expected = format!("mine.ndjson:{line}: callscope-quality: panel jitter: column");
    assert!(code == 3 && output.contains(&expected), "{expected}\n{output}");
    assert!(output.contains("there is no field \"jiterMs\""), "{output}");

    std::fs::write(&damaged, "").unwrap();
    let (code, output, _) =
        run(folder.path(), &["check", "--dashboards", "mine.ndjson", &files[0]]);
    assert!(code == 3 && output.contains("mine.ndjson:1: the file holds no object"), "{output}");
    let ok = format!("callscope.ndjson: {} objects, ok", text.lines().count());
    assert!(output.contains(&ok), "{ok}\n{output}");
    let (code, _, told) = run(folder.path(), &["check", "--dashboards", "none.ndjson"]);
    assert!(code == 3 && told.contains("cannot read none.ndjson"), "{told}");
    assert_eq!(run(folder.path(), &["check", "--dashboards"]).0, 2);
}

#[test]
fn what_is_wrong_is_said_and_told_by_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("callscope.toml"), "[http]\nlisten_on = 7\n").unwrap();
    let (code, _, told) = run(folder.path(), &["config"]);
    assert!(
        code == 3 && told.contains("http.listen_on") && told.contains("callscope.toml"),
        "{told}"
    );
    std::fs::remove_file(folder.path().join("callscope.toml")).unwrap();
    assert_eq!(run(folder.path(), &["no-such-command"]).0, 2);
    let (code, _, told) = run(folder.path(), &["import", "/no/such/file"]);
    assert!(code == 3 && told.contains("/no/such/file"), "{told}");
    let (code, _, told) = ended(
        &callscope(folder.path(), &["setup"])
            .env("CALLSCOPE__SINK__KIND", "elasticsearch")
            .env("CALLSCOPE__ELASTICSEARCH__URLS", "http://127.0.0.1:1")
            .output()
            .unwrap(),
    );
    assert!(code == 4 && told.contains("127.0.0.1:1"), "{told}");
    std::fs::create_dir_all(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/checkpoint.redb"), [7; 3000]).unwrap();
    let (code, _, told) = ended(
        &callscope(folder.path(), &["serve"])
            .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
            .output()
            .unwrap(),
    );
    assert!(
        code == 3 && told.contains("checkpoint.redb") && told.contains("move it away"),
        "{told}"
    );
    let (code, _, told) = ended(
        &callscope(folder.path(), &["check"])
            .env("CALLSCOPE__GEOIP__DATABASES", "/no/such.mmdb")
            .output()
            .unwrap(),
    );
    assert!(code == 3 && told.contains("/no/such.mmdb"), "{told}");
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lock = callscope::journal::lock::DataDirLock::acquire(&folder.path().join("data")).unwrap();
    for arguments in
        [&["serve"][..], &["import", "--to", "embedded", FIXTURE], &["dead-letters", "list"]]
    {
        let (code, _, told) = run(folder.path(), arguments);
        assert!(code == 3 && told.contains("in use by another callscope"), "{told}");
    }
    drop(lock);
}

#[test]
fn config_prints_every_setting() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output, _) = run(folder.path(), &["config"]);
    assert_eq!(code, 0);
    assert!(output.contains("listen") && output.contains("CALLSCOPE__DATA_DIR"), "{output}");
}

#[test]
fn a_reader_that_wants_no_more_ends_a_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = callscope(folder.path(), &["config"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, told) = ended(&child.wait_with_output().unwrap());
    assert_eq!((code, told.as_str()), (0, ""));
}

#[test]
fn a_dead_letter_that_is_not_there_cannot_be_discarded() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output, told) = run(folder.path(), &["dead-letters", "discard", "nope"]);
    assert_eq!((code, output.as_str()), (2, ""), "{told}");
    assert!(told.contains("there is no dead letter nope"), "{told}");
}

#[test]
fn a_message_tells_its_cause_once() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output =
        callscope(folder.path(), &["serve"]).env("CALLSCOPE__HTTP__LISTEN", &address).output();
    let (code, _, told) = ended(&output.unwrap());
    assert_eq!((code, told.matches("in use").count()), (3, 1), "{told}");
}

/// Answers every request with what `answer` makes of its first line, and gives the address. Ends with the process.
fn elasticsearch(answer: impl Fn(&str) -> (u16, &'static str) + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head);
            let (status, body) = answer(head.lines().next().unwrap_or_default());
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
            });
            // A connection that is closed with something unread is reset, and the answer lost with it.
            let mut sent = vec![0; length.unwrap_or(0)];
            let _gone = stream.read_exact(&mut sent);
            let answer = format!(
                "HTTP/1.1 {status} x\r\nx-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn a_refusal_is_misconfigured_and_a_denial_unreachable_in_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for (status, expected) in [(400, 3), (401, 4), (503, 4)] {
        let url = elasticsearch(move |_| (status, "{}"));
        for arguments in [&["setup"][..], &["check"], &["import", FIXTURE]] {
            let mut command = callscope(folder.path(), arguments);
            command
                .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
                .env("CALLSCOPE__SINK__KIND", "elasticsearch")
                .env("CALLSCOPE__ELASTICSEARCH__URLS", &url);
            let (code, output, told) = ended(&command.output().unwrap());
            assert_eq!(code, expected, "{status} {arguments:?}: {output}{told}");
        }
    }
}

#[test]
fn import_tells_what_setup_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let url = elasticsearch(|line| match line {
        line if line.starts_with("GET / ") => (200, r#"{"version":{"number":"8.19.0"}}"#),
        line if line.starts_with("GET /_ilm/") => (400, "{}"),
        line if line.starts_with("GET ") => (404, "{}"),
        _ => (400, r#"{"error":{"reason":"no more templates"}}"#),
    });
    let mut command = callscope(folder.path(), &["import", FIXTURE]);
    command
        .env("CALLSCOPE__SINK__KIND", "elasticsearch")
        .env("CALLSCOPE__ELASTICSEARCH__RETENTION", "30d")
        .env("CALLSCOPE__ELASTICSEARCH__URLS", &url);
    let (code, _, told) = ended(&command.output().unwrap());
    assert!(code == 3 && told.contains("no more templates"), "{told}");
    assert!(told.contains("warning: elasticsearch.retention is left out"), "{told}");
}

#[test]
fn all_dead_letters_are_tried_again_however_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.log");
    std::fs::write(&file, "garbage\n".repeat(501)).unwrap();
    let (code, _, told) =
        run(folder.path(), &["import", "--to", "embedded", file.to_str().unwrap()]);
    assert!(code == 5 && told.contains("501 dead"), "{told}");
    let (_, help, _) = run(folder.path(), &["dead-letters", "--help"]);
    assert!(help.contains("With Kafka these are the letters of the whole group"), "{help}");
    let (code, _, told) = run(folder.path(), &["dead-letters", "retry", "no such"]);
    assert!(code == 2 && told.contains("there is no dead letter no such"), "{told}");
    let (code, output, told) = run(folder.path(), &["dead-letters", "retry", "--all"]);
    assert_eq!((code, output.as_str()), (0, "501 tried again, 0 refused\n"), "{told}");
    assert_eq!(run(folder.path(), &["dead-letters", "list"]).1, "");
}

#[test]
fn a_replay_that_ends_before_it_begins_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for from in ["2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z"] {
        let (to, into) = ("2026-11-01T00:00:00Z", "again");
        let (code, _, told) =
            run(folder.path(), &["replay", "--from", from, "--to", to, "--into", into]);
        assert!(
            code == 2 && told.contains(&format!("--from {from} is not before --to {to}")),
            "{told}"
        );
    }
}
