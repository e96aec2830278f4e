//! The container image: what the Dockerfile copies is what cargo needs, and its variables are settings.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shows where"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use callscope::config::Config;

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

/// Variables of ours in a file, with a value that any of them takes.
fn variables(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for part in text.split("CALLSCOPE__").skip(1) {
        let end = part.find(|c: char| !(c.is_ascii_uppercase() || c == '_')).unwrap();
        let (name, rest) = part.split_at(end);
        let value = match rest.strip_prefix('=') {
            Some(value) => value.split_whitespace().next().unwrap(),
            None => "a-long-secret",
        };
        found.insert(format!("CALLSCOPE__{name}"), value.to_owned());
    }
    found
}

#[test]
fn the_variables_of_image_and_compose_file_are_settings() {
    let mut all = variables(&read("Dockerfile"));
    assert!(all.len() >= 2, "{all:?}");
    all.extend(variables(&read("docker-compose.yml")));
    let loaded = Config::load(None, all.clone().into_iter());
    let config = loaded.unwrap_or_else(|error| panic!("{all:?}: {error}")).config;
    assert!(!config.http.listen.ip().is_loopback(), "a container is reached from outside");
    assert!(!config.sources["default"].secrets.is_empty(), "{all:?}");
}
