//! The account that docker-compose.yml makes for callscope may do what callscope needs, on a real Elasticsearch.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Server;

const ADMIN: &str = "admin:admin-of-the-tests";
const PASSWORD: &str = "account-of-the-tests";
/// The passwords of both as Elasticsearch keeps them in a file (PBKDF2 with SHA-512, 10 000 rounds).
const USERS: &str = "\
admin:{PBKDF2}10000$jGl25bVBBBW96Qi9Te4V37Fnqchz/Eu4qB9vKrRIqRg=$MZfgCwKNQg1d8GxaSHLDfrcNpFJQeGhbOoaXtm4zXnc=
callscope:{PBKDF2}10000$8DSmyyojspeMnWYX2g8/GnAcKFZzVmWqKpqfENA6wcs=$rf1Tn0TFJ8wYHcJxPrRjYyxWlleyumg7MzNml056XBY=
";
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/2.17-session.jsonl");

/// The role as the service `accounts` puts it.
fn role() -> Value {
    let compose = concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml");
    let compose = std::fs::read_to_string(compose).unwrap();
    let (_, role) = compose.split_once("put role/callscope '").unwrap();
    serde_json::from_str(role.split_once('\'').unwrap().0).unwrap()
}

/// callscope with the account, and what it tells; it ends well.
fn callscope(server: &Server, folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_callscope"))
        .args(arguments)
        .env("CALLSCOPE__DATA_DIR", folder)
        .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
        .env("CALLSCOPE__SINK__KIND", "elasticsearch")
        .env("CALLSCOPE__ELASTICSEARCH__URLS", &server.url)
        .env("CALLSCOPE__ELASTICSEARCH__USERNAME", "callscope")
        .env("CALLSCOPE__ELASTICSEARCH__PASSWORD", PASSWORD)
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].map(|told| String::from_utf8(told).unwrap()).concat();
    assert!(output.status.success(), "{arguments:?}: {told}");
    told
}

fn ask(server: &Server, account: &str, method: &str, path: &str) -> Value {
    let url = format!("{}{path}", server.url);
    let output =
        Command::new("curl").args(["-sS", "-u", account, "-X", method, &url]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_of_compose_may_do_what_callscope_needs() {
    let folder = tempfile::Builder::new().prefix("callscope-accounts-").tempdir().unwrap().keep();
    let accounts = folder.join("accounts");
    std::fs::create_dir(&accounts).unwrap();
    // JSON is YAML.
    std::fs::write(accounts.join("roles.yml"), format!("callscope: {}", role())).unwrap();
    std::fs::write(accounts.join("users"), USERS).unwrap();
    std::fs::write(accounts.join("users_roles"), "superuser:admin\ncallscope:callscope\n").unwrap();
    let server = Server::start_in("elasticsearch", folder).await;
    let refused = ask(&server, "callscope:wrong", "GET", "/_cluster/health");
    assert_eq!(refused["status"], 401, "it asks for passwords: {refused}");

    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    assert!(callscope(&server, data, &["setup"]).contains("create index template"));
    callscope(&server, data, &["import", "--to", "elasticsearch", FIXTURE]);
    assert!(callscope(&server, data, &["check"]).contains("index template openvidu-events: there"));
    let own = format!("callscope:{PASSWORD}");
    ask(&server, &own, "POST", "/openvidu/_refresh");
    let found = ask(&server, &own, "GET", "/openvidu/_search?q=elastic_type:sessionSummary");
    assert_eq!(found["hits"]["total"]["value"], 1, "{found}");
    // What somebody has taken away is put back.
    let indices = ask(&server, ADMIN, "GET", "/_alias/openvidu");
    let index = indices.as_object().unwrap().keys().next().unwrap();
    ask(&server, ADMIN, "DELETE", &format!("/{index}/_alias/openvidu"));
    let told = callscope(&server, data, &["setup"]);
    assert!(told.contains(&format!("create alias openvidu for {index}")), "{told}");
    let refused = ask(&server, &own, "DELETE", &format!("/{index}"));
    assert_eq!(refused["status"], 403, "and no more: {refused}");
}
