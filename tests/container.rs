//! The container image and the compose files, of which no engine runs here: what the Dockerfile copies is what cargo needs, and
//! whatever the files name is there, in this folder, in each other or in the program.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shows where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use callscope::cli::Cli;
use callscope::config::Config;
use clap::Parser;
use serde_json::{Map, Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// What the build stage copies out of this folder.
fn copied() -> Vec<String> {
    let mut paths = Vec::new();
    for line in read("Dockerfile").lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words[0].starts_with("--") {
            paths.extend(words[..words.len() - 1].iter().map(|path| (*path).to_owned()));
        }
    }
    paths
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn cargo_finds_every_target_in_what_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    for path in copied() {
        copy(&Path::new(ROOT).join(&path), &folder.path().join(&path));
    }
    // Asked here, because a target whose file is missing is left out of this answer, while a build refuses it.
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let targets = metadata["packages"][0]["targets"].as_array().unwrap();
    assert!(targets.iter().any(|target| target["kind"][0] == "bench"), "{targets:?}");
    for target in targets {
        let path = Path::new(target["src_path"].as_str().unwrap()).strip_prefix(ROOT).unwrap();
        assert!(folder.path().join(path).exists(), "{} is not copied", path.display());
    }
}

#[test]
fn every_compiled_in_file_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    for path in copied() {
        copy(&Path::new(ROOT).join(&path), &folder.path().join(&path));
    }
    let mut files = Vec::new();
    sources(&folder.path().join("src"), &mut files);
    let mut count = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for part in text.split("include_str!(\"").chain(text.split("include_bytes!(\"")).skip(1) {
            let Some((name, _)) = part.split_once("\")") else { continue };
            if name.len() < 200 && !name.contains('\n') {
                count += 1;
                let included = file.parent().unwrap().join(name);
                assert!(included.exists(), "{} includes {name}", file.display());
            }
        }
    }
    assert!(count >= 4, "the page and the default settings are compiled in");
}

/// What stands in the last stage of the Dockerfile after `word`, where that begins a line.
fn instructions(word: &str) -> Vec<String> {
    let text = read("Dockerfile");
    let (_, last) = text.rsplit_once("\nFROM ").unwrap();
    last.lines()
        .filter_map(|line| line.strip_prefix(word))
        .map(|rest| rest.trim().to_owned())
        .collect()
}

/// The variables that the image brings.
fn image_environment() -> BTreeMap<String, String> {
    let all = instructions("ENV ").join(" ");
    let pairs = all.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The program with the words of a command, as the image calls it.
fn parse(words: &[String]) -> Cli {
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

#[test]
fn the_image_runs_as_nobody_in_particular_and_asks_itself_how_it_is() {
    assert_eq!(instructions("USER "), ["callscope"]);
    let config = config(&json!({}));
    assert!(!config.http.listen.ip().is_loopback(), "a container is reached from outside");
    assert_eq!(instructions("EXPOSE "), [config.http.listen.port().to_string()]);
    assert!(
        config.data_dir.starts_with(&instructions("VOLUME ")[0]),
        "what is kept is in the volume"
    );
    let check = instructions("HEALTHCHECK ").concat();
    let (_, words) = check.split_once("CMD ").unwrap();
    parse(&serde_json::from_str::<Vec<String>>(words).unwrap());
    let [entry, command] = ["ENTRYPOINT ", "CMD "]
        .map(|word| serde_json::from_str::<Vec<String>>(&instructions(word)[0]).unwrap());
    parse(&[entry, command].concat());
}

#[test]
fn what_is_copied_is_sent_and_what_is_large_is_not() {
    let ignored = read(".dockerignore");
    let ignored: BTreeSet<&str> =
        ignored.lines().filter_map(|line| line.strip_prefix('/')).collect();
    for large in ["target", ".git"] {
        assert!(ignored.contains(large), "{large} is sent");
    }
    for path in copied() {
        assert!(Path::new(ROOT).join(&path).exists(), "{path} is not there");
        assert!(!ignored.contains(path.as_str()), "{path} is not sent");
    }
}

const FILES: [&str; 2] = ["docker-compose.yml", "compose.opensearch.yml"];

/// `.env`, as compose reads it.
fn defaults() -> BTreeMap<String, String> {
    let text = read(".env");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.map(|line| line.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `text` with the values of its variables, whose names go to `used`. `$$` is a dollar sign.
fn filled(text: &str, used: &mut BTreeSet<String>) -> String {
    let known = defaults();
    let mut parts = text.split('$');
    let mut filled = parts.next().unwrap().to_owned();
    while let Some(part) = parts.next() {
        if part.is_empty() {
            filled.push('$');
            filled.push_str(parts.next().unwrap());
            continue;
        }
        let (name, rest) = part.strip_prefix('{').and_then(|part| part.split_once('}')).unwrap();
        filled.push_str(known.get(name).unwrap_or_else(|| panic!("{name} is not in .env")));
        filled.push_str(rest);
        used.insert(name.to_owned());
    }
    filled
}

fn fill(value: &mut Value, used: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => *text = filled(text, used),
        Value::Array(values) => values.iter_mut().for_each(|value| fill(value, used)),
        Value::Object(values) => values.values_mut().for_each(|value| fill(value, used)),
        _ => {}
    }
}

fn raw(name: &str) -> Value {
    serde_saphyr::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What `file` says with the defaults, where whatever is extended has been put together.
fn compose(file: &str) -> Value {
    let mut compose = raw(file);
    let services = compose["services"].as_object_mut().unwrap();
    for (name, service) in services.iter_mut() {
        let Some(base) = service.as_object_mut().unwrap().remove("extends") else { continue };
        let mut whole = raw(base["file"].as_str().unwrap())["services"][name].take();
        assert!(whole.is_object() && base["service"] == *name, "{file}: {name} extends {base}");
        merge(whole.as_object_mut().unwrap(), service.as_object().unwrap());
        *service = whole;
    }
    fill(&mut compose, &mut BTreeSet::new());
    compose
}

fn merge(below: &mut Map<String, Value>, above: &Map<String, Value>) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (Some(Value::Array(below)), Value::Array(above)) => below.extend(above.iter().cloned()),
            _ => drop(below.insert(key.clone(), value.clone())),
        }
    }
}

/// Calls `look` with each file, and each of its services by name.
fn each_service(look: impl Fn(&Value, &str, &Value)) {
    for file in FILES {
        let compose = compose(file);
        let services = compose["services"].as_object().unwrap();
        assert!(services.len() >= 7, "{file}");
        services.iter().for_each(|(name, service)| look(&compose, name, service));
    }
}

fn is_ours(service: &Value) -> bool {
    service["image"].as_str().unwrap().starts_with("callscope:")
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The settings of one of our services: the image's and its own.
fn config(service: &Value) -> Config {
    let mut all = image_environment();
    for (name, value) in service["environment"].as_object().into_iter().flatten() {
        assert!(name.starts_with("CALLSCOPE__"), "{name}");
        all.insert(name.clone(), value.as_str().unwrap().to_owned());
    }
    let loaded = Config::load(None, all.clone().into_iter());
    loaded.unwrap_or_else(|error| panic!("{all:?}: {error}")).config
}

/// Where a service listens. Of what is not ours the image decides, but for Kafka, which is told.
fn ports(service: &Value) -> Vec<u16> {
    let image = service["image"].as_str().unwrap();
    let (image, _) = image.rsplit_once(':').unwrap();
    match image.rsplit('/').next().unwrap() {
        "callscope" => vec![config(service).http.listen.port()],
        "elasticsearch" | "opensearch" => vec![9200],
        "kibana" | "opensearch-dashboards" => vec![5601],
        "kafka" => {
            let listeners = service["environment"]["KAFKA_LISTENERS"].as_str().unwrap();
            let ports = listeners.split(',').map(|listener| listener.rsplit(':').next().unwrap());
            ports.map(|port| port.parse().unwrap()).collect()
        }
        other => panic!("where does {other} listen?"),
    }
}

/// The ports that follow `host:` in what a service says.
fn ports_of(host: &str, text: &str) -> Vec<u16> {
    let mark = format!("{host}:");
    let after = text.split(&mark).skip(1);
    let digits = after.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap());
    digits.filter(|digits| !digits.is_empty()).map(|digits| digits.parse().unwrap()).collect()
}

#[test]
fn the_compose_files_fit_the_schema_of_compose() {
    let schema: Value = serde_json::from_str(include_str!("support/compose-spec.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for file in FILES {
        for compose in [raw(file), compose(file)] {
            let errors: Vec<String> = validator
                .iter_errors(&compose)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{file}: {errors:#?}");
        }
    }
}

#[test]
fn every_variable_has_a_default_and_every_default_is_used() {
    let mut used = BTreeSet::new();
    FILES.iter().for_each(|file| fill(&mut raw(file), &mut used));
    let known: BTreeSet<String> = defaults().into_keys().collect();
    assert_eq!(used, known);
    assert_eq!(defaults()["CALLSCOPE_VERSION"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_defaults_are_secrets_that_are_taken_and_addresses_that_nobody_else_reaches() {
    for (name, value) in defaults() {
        if name.ends_with("_ADDRESS") {
            assert!(value.starts_with("127.0.0.1:"), "{name}={value}");
        }
        if name.ends_with("_SECRET") || name.ends_with("_PASSWORD") || name.ends_with("_KEY") {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
            assert!(value.chars().all(is_plain), "{name} goes into JSON and a shell");
        }
    }
    assert!(defaults()["KIBANA_ENCRYPTION_KEY"].len() >= 32, "Kibana does not start");
    each_service(|_, name, service| {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    });
    let password = &defaults()["ADMIN_PASSWORD"];
    let has = |is: fn(&char) -> bool| password.chars().any(|c| is(&c));
    assert!(
        has(char::is_ascii_lowercase)
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_digit)
            && has(char::is_ascii_punctuation)
            && !password.to_lowercase().contains("admin"),
        "OpenSearch refuses it"
    );
}

#[test]
fn what_callscope_is_told_in_them_is_in_the_program() {
    let commands = [("callscope", "serve"), ("setup", "setup"), ("demo", "demo")];
    each_service(|compose, name, service| {
        if !is_ours(service) {
            assert!(!service["environment"].to_string().contains("CALLSCOPE__"), "{name}");
            return;
        }
        let config = config(service);
        let mut words = texts(&service["command"]);
        if words.is_empty() {
            words = serde_json::from_str(&instructions("CMD ")[0]).unwrap();
        }
        assert!(commands.contains(&(name, &words[0])), "{name}: {words:?}");
        parse(&[vec!["callscope".to_owned()], words].concat());
        match name {
            "callscope" => {
                assert!(
                    !config.sources["default"].secrets.is_empty()
                        && !config.http.read_secrets.is_empty()
                );
                let made = texts(&compose["services"]["topics"]["command"]);
                assert!(made.contains(&config.kafka.topics[0]), "{made:?}");
                let check = texts(&service["healthcheck"]["test"]);
                assert_eq!(check[0], "CMD");
                parse(&check[1..]);
                let volume = texts(&service["volumes"])[0].clone();
                assert!(volume.ends_with(&instructions("VOLUME ")[0]), "{volume}");
                // The image has what the demo needs to be somewhere.
                let places = &config.geoip.databases[0];
                let copied = instructions("COPY --from=build /src/");
                let copied = copied.iter().find_map(|line| line.strip_suffix(places.as_str()));
                assert_eq!(copied.unwrap().trim(), "src/simulate/places.mmdb");
            }
            "demo" => {
                assert_eq!(service["profiles"], json!(["demo"]));
                let serving = self::config(&compose["services"]["callscope"]);
                assert_eq!(config.sources["default"].secrets, serving.sources["default"].secrets);
            }
            _ => {}
        }
        if name != "demo" {
            assert_eq!(config.sink.kind, callscope::config::SinkKind::Elasticsearch, "{name}");
        }
    });
}

#[test]
fn every_port_and_address_is_one_at_which_somebody_listens() {
    each_service(|compose, name, service| {
        for mapped in texts(&service["ports"]) {
            let inside = mapped.rsplit(':').next().unwrap().parse().unwrap();
            assert!(ports(service).contains(&inside), "{name}: {mapped}");
        }
        let mut told = service.clone();
        // A tag is no port.
        told["image"] = Value::Null;
        let told = told.to_string();
        for (other, listening) in compose["services"].as_object().unwrap() {
            for port in ports_of(other, &told) {
                assert!(ports(listening).contains(&port), "{name} asks {other} at {port}");
            }
        }
        for port in ports_of("localhost", &told) {
            assert!(ports(service).contains(&port), "{name} asks itself at {port}");
        }
        for url in told.split("http://").skip(1) {
            let host = url.split([':', '/', '"', '\\']).next().unwrap();
            let is_known = !compose["services"][host].is_null();
            assert!(is_known || ["localhost", "127.0.0.1"].contains(&host), "{name} asks {host}");
        }
    });
}

#[test]
fn services_wait_for_others_that_are_there_and_can_be_waited_for() {
    each_service(|compose, name, service| {
        let services = &compose["services"];
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let other_service = &services[other];
            assert!(other_service.is_object(), "{name} waits for {other}, which is not there");
            assert!(other_service["profiles"].is_null(), "{other} may not be there");
            match how["condition"].as_str().unwrap() {
                "service_healthy" => {
                    assert!(other_service["healthcheck"]["test"].is_array(), "{name}: {other}")
                }
                "service_completed_successfully" => {
                    assert_eq!(other_service["restart"], "on-failure", "{name}: {other}")
                }
                // It is only to be made.
                "service_started" if name == "setup" => assert_eq!(other_service["build"], "."),
                condition => panic!("{name} waits for {other} to be {condition}"),
            }
        }
        let limited = service["mem_limit"].is_string();
        assert!(
            limited && service["restart"].is_string(),
            "{name} has no limit, or nobody starts it again"
        );
        let ends = service["restart"] == "on-failure" || name == "demo";
        assert!(ends || service["healthcheck"]["test"].is_array(), "{name} has no health check");
        assert!(!ends || service["ports"].is_null(), "{name} listens, and ends");
    });
}

/// A program that was linked with a newer C library does not start with an older one, and librdkafka is not built without a
/// compiler of C++.
#[test]
fn both_stages_of_the_image_are_of_one_debian_and_the_first_has_compilers() {
    let text = read("Dockerfile");
    let stages: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert!(
        stages.len() == 2 && stages.iter().all(|stage| stage.contains("bookworm")),
        "{stages:?}"
    );
    let (build, _) = text.rsplit_once("\nFROM ").unwrap();
    let installed: BTreeSet<&str> = build.split_whitespace().collect();
    for package in ["gcc", "g++", "make", "perl", "libc6-dev"] {
        assert!(installed.contains(package), "{package}");
    }
}

#[test]
fn images_are_pinned_and_volumes_declared() {
    for line in read("Dockerfile").lines().filter_map(|line| line.strip_prefix("FROM ")) {
        let tag = line.split_whitespace().next().unwrap().split_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| tag != "latest"), "{line}");
    }
    for file in FILES {
        let compose = compose(file);
        let mut used = BTreeSet::new();
        for (name, service) in compose["services"].as_object().unwrap() {
            let (_, tag) = service["image"].as_str().unwrap().rsplit_once(':').unwrap();
            let is_pinned = tag.split('.').count() == 3
                && tag.split('.').all(|part| part.parse::<u16>().is_ok());
            assert!(is_pinned, "{name}: {tag}");
            // Made by one service for all: made by several at once, one of them fails, and nobody else has it.
            let is_made = service["build"] == ".";
            assert_eq!(is_made, name == "callscope", "{name}");
            let is_taken = is_ours(service) && !is_made;
            assert_eq!(is_taken, service["pull_policy"] == "never", "{name}");
            // Also for whoever starts this one alone.
            assert_eq!(is_taken, service["depends_on"]["callscope"].is_object(), "{name}");
            for volume in texts(&service["volumes"]) {
                let (source, inside) = volume.split_once(':').unwrap();
                assert!(inside.starts_with('/'), "{name}: {volume}");
                match source.strip_prefix("./") {
                    Some(path) => assert!(Path::new(ROOT).join(path).exists(), "{name}: {path}"),
                    None => drop(used.insert(source.to_owned())),
                }
            }
        }
        let declared: BTreeSet<String> =
            compose["volumes"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(used, declared, "{file}");
    }
}

/// Each call of curl in a script, as its arguments. `environment`: what the script sees besides.
fn calls(script: &str, environment: &Value) -> Vec<Vec<String>> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let curl = folder.path().join("curl");
    std::fs::write(
        &curl,
        "#!/bin/sh\nprintf '%s\\0' \"$@\" >> \"$TOLD\"; printf '\\1' >> \"$TOLD\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&curl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let environment = environment.as_object().unwrap().iter();
    let output = Command::new("bash")
        .args(["-euc", script])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .env("TOLD", folder.path().join("told"))
        .envs(environment.map(|(name, value)| (name, value.as_str().unwrap())))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = std::fs::read_to_string(folder.path().join("told")).unwrap();
    let calls = told.split_terminator('\u{1}');
    calls.map(|call| call.split_terminator('\0').map(str::to_owned).collect()).collect()
}

#[test]
fn the_accounts_that_others_show_are_made() {
    let password = |name: &str| Value::from(defaults()[name].clone());
    for (file, kibana) in FILES.into_iter().zip([true, false]) {
        let compose = compose(file);
        let accounts = &compose["services"]["accounts"];
        assert_eq!(texts(&accounts["entrypoint"]), ["bash", "-euc"]);
        let calls = calls(&texts(&accounts["command"])[0], &accounts["environment"]);
        let mut made: BTreeMap<&str, Value> = BTreeMap::new();
        for call in &calls {
            assert!(
                call.iter().any(|word| word.ends_with(defaults()["ADMIN_PASSWORD"].as_str())),
                "{call:?}"
            );
            let url = call.iter().find_map(|word| word.strip_prefix("http://")).unwrap();
            let Some(body) = call.iter().position(|word| word == "-d") else { continue };
            // What is refused ends the script.
            assert!(
                call.contains(&"--fail-with-body".to_owned()) && call.contains(&"PUT".to_owned()),
                "{call:?}"
            );
            let body = serde_json::from_str(&call[body + 1])
                .unwrap_or_else(|error| panic!("{call:?}: {error}"));
            made.insert(url.rsplit_once("_security/").unwrap().1, body);
        }
        let (user, role) = if kibana {
            assert_eq!(
                made["user/kibana_system/_password"]["password"],
                password("KIBANA_PASSWORD")
            );
            let shown = &compose["services"]["kibana"]["environment"];
            assert_eq!(shown["ELASTICSEARCH_USERNAME"], "kibana_system");
            assert_eq!(shown["ELASTICSEARCH_PASSWORD"], password("KIBANA_PASSWORD"));
            (&made["user/callscope"]["roles"], &made["role/callscope"]["indices"][0]["names"])
        } else {
            let role = &made["api/roles/callscope"]["index_permissions"][0]["index_patterns"];
            (&made["api/internalusers/callscope"]["opendistro_security_roles"], role)
        };
        assert_eq!(*user, json!(["callscope"]), "{file}");
        let config = config(&compose["services"]["callscope"]);
        let account = made.iter().find(|(path, _)| {
            path.ends_with(&format!("/{}", config.elasticsearch.username)) && path.contains("user")
        });
        assert_eq!(
            account.unwrap().1["password"],
            config.elasticsearch.password.expose(),
            "{file}"
        );
        let index = &config.elasticsearch.index;
        assert_eq!(*role, json!([index, format!("{index}-events-*")]), "{file}");
    }
}
