//! The simulated cluster that sends to a callscope elsewhere, and the question whether one is well, as processes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

#[path = "support/instance.rs"]
mod instance;

use instance::{Instance, until};

const SECRET: &str = "secret-of-the-cluster";

fn callscope(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callscope"));
    command
        .current_dir(folder)
        .env("CALLSCOPE__DATA_DIR", folder.join("data"))
        .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
        .env("CALLSCOPE__SOURCES__DEFAULT__SECRETS", SECRET);
    command
}

fn cluster(folder: &Path, url: &str, secret: &str) -> Command {
    let mut command = callscope(folder);
    command
        .args(["demo", "--history", "6h", "--to", url])
        .env("CALLSCOPE__SOURCES__DEFAULT__SECRETS", secret)
        .stderr(Stdio::piped());
    command
}

/// Ends the process as a container's end does, and gives what it told.
fn stopped(process: Child) -> (Option<i32>, String) {
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    ended(&process.wait_with_output().unwrap())
}

fn ended(output: &Output) -> (Option<i32>, String) {
    let told = [&output.stdout, &output.stderr].map(|told| String::from_utf8_lossy(told));
    (output.status.code(), told.concat())
}

fn health(folder: &Path, listen: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = callscope(folder);
    command.arg("health").args(arguments).env("CALLSCOPE__HTTP__LISTEN", listen);
    ended(&command.output().unwrap())
}

#[tokio::test]
async fn a_cluster_sends_to_a_callscope_elsewhere_and_goes_on_where_it_stood() {
    let [service, sender] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let instance = Instance::start(&mut callscope(service.path()));
    let url = format!("http://localhost:{}/webhook", instance.address.port());
    let first = cluster(sender.path(), &url, SECRET).spawn().unwrap();
    until(async || {
        assert!(!instance.is_over(), "{}", instance.told());
        instance.get("/api/sessions").await.contains("\"uniqueSessionId\"")
    })
    .await;
    let (code, told) = stopped(first);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&url), "{told}");
    let told_until = || {
        let progress = std::fs::read(sender.path().join("data/demo.json")).unwrap();
        let progress: serde_json::Value = serde_json::from_slice(&progress).unwrap();
        (progress["from"].as_i64().unwrap(), progress["told"].as_i64().unwrap())
    };
    let before = told_until();
    let again = cluster(sender.path(), &url, SECRET).spawn().unwrap();
    until(async || told_until().1 > before.1).await;
    assert_eq!(told_until().0, before.0, "the same story");
    assert_eq!(stopped(again).0, Some(0));
    instance.stop();
}

/// Live sessions tell of their media as those of a community installation do: by REST API and browsers, and not by webhook.
#[tokio::test]
async fn the_demo_goes_through_both_doors() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::of(callscope(folder.path()).args(["demo", "--history", "0s"]));
    let total = async |of: &str| {
        let answer = instance.get(&format!("/api/search?{of}")).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap()["total"].as_u64().unwrap_or(0)
    };
    until(async || {
        assert!(!instance.is_over(), "{}", instance.told());
        total("type=kms").await > 0
            && total("type=webrtcDebug").await > 0
            && total("type=webrtcStats&mediaRole=publisher").await > 0
            && total("type=webrtcStats&mediaRole=subscriber").await > 0
    })
    .await;
    // Nearly all that is reported is known to be somebody's: but for two connections of one person.
    until(async || {
        let answer = instance.get("/api/search?type=webrtcStats&limit=1000").await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let found: serde_json::Value = serde_json::from_str(body).unwrap();
        let documents = found["documents"].as_array().unwrap();
        let known = documents.iter().filter(|one| one["_source"]["user"].is_string()).count();
        documents.len() > 100 && known * 10 > documents.len() * 6
    })
    .await;
    // More come between the two questions.
    let all = total("type=webrtcStats").await;
    assert!(all <= total("type=webrtcStats&side=browser").await);
    assert_eq!(total("type=networkQualityStats").await, 0);
    instance.stop();
}

#[tokio::test]
async fn a_cluster_that_is_refused_ends_and_says_so() {
    let [service, sender] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let instance = Instance::start(&mut callscope(service.path()));
    let url = format!("http://{}/webhook", instance.address);
    let refused = cluster(sender.path(), &url, "another-secret").output().unwrap();
    let (code, told) = ended(&refused);
    assert!(code == Some(4) && told.contains("401") && told.contains(&url), "{code:?} {told}");
    instance.stop();
    let (code, told) = ended(&cluster(sender.path(), &url, SECRET).output().unwrap());
    assert!(code == Some(4) && told.contains("refused"), "{code:?} {told}");
}

#[tokio::test]
async fn health_tells_who_lives_from_who_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let mut serve = callscope(folder.path());
    // Nobody is there.
    serve
        .env("CALLSCOPE__SINK__KIND", "elasticsearch")
        .env("CALLSCOPE__ELASTICSEARCH__URLS", "http://127.0.0.1:1");
    let instance = Instance::start(&mut serve);
    let listen = format!("0.0.0.0:{}", instance.address.port());
    assert_eq!(health(folder.path(), &listen, &[]), (Some(0), "ok\n".to_owned()));
    instance.wait_for("/readyz", "\"ready\":false").await;
    let (code, told) = health(folder.path(), &listen, &["--ready"]);
    assert!(code == Some(4) && told.contains("the sink is away"), "{code:?} {told}");
    instance.kill();
    let (code, told) = health(folder.path(), &listen, &[]);
    assert!(code == Some(4) && told.contains("/healthz"), "{code:?} {told}");

    let embedded = tempfile::tempdir().unwrap();
    let instance = Instance::start(&mut callscope(embedded.path()));
    let (code, told) = health(embedded.path(), &instance.address.to_string(), &["--ready"]);
    assert!(code == Some(0) && told.contains("\"ready\":true"), "{code:?} {told}");
    instance.stop();
}
