//! The documents speak of what is there: every path that they name exists, and the map stays a page.

#![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap()
}

/// What a text names as a path: words in backticks and targets of links that contain a slash or a known ending.
fn named_paths(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    quoted
        .chain(linked)
        .filter(|word| !word.contains(|c: char| c.is_whitespace() || "<>{}*:$".contains(c)))
        .filter(|word| {
            !word.starts_with('/') && (word.contains('/') || word.ends_with(".md") || word.ends_with(".rs"))
        })
        .map(String::from)
        .collect()
}

/// A path may be given from the root, from a crate's sources, or from the document's own folder.
fn exists(path: &str, document: &str) -> bool {
    let beside = Path::new(document).parent().unwrap_or(Path::new(""));
    ["", "dataplane/src", "dataplane", "control/src"]
        .iter()
        .map(|base| root().join(base).join(path))
        .chain([root().join(beside).join(path)])
        .any(|candidate| candidate.exists())
}

#[test]
fn every_path_that_is_named_exists() {
    for document in ["README.md", "docs/ARCHITECTURE.md", "docs/SECURITY.md"] {
        let paths = named_paths(&read(document));
        assert!(!paths.is_empty(), "{document} names no path at all: is the search broken?");
        let missing: Vec<_> = paths.iter().filter(|path| !exists(path, document)).collect();
        assert!(missing.is_empty(), "{document} names what is not there: {missing:?}");
    }
}

#[test]
fn the_rooms_on_the_map_are_the_rooms_of_the_house() {
    let map = read("docs/ARCHITECTURE.md");
    let rooms = map.split("```text").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
    let mut base = String::new();
    let mut named = Vec::new();
    for line in rooms.lines().filter(|line| !line.trim().is_empty()) {
        let word = line.split_whitespace().next().unwrap_or_default();
        if line.starts_with(' ') {
            named.push(format!("{base}{word}"));
        } else {
            base = word.to_string();
            named.push(word.to_string());
        }
    }
    let missing: Vec<_> = named.iter().filter(|room| !root().join(room).exists()).collect();
    assert!(missing.is_empty(), "the map shows rooms that are not there: {missing:?}");
    for entry in fs::read_dir(root().join("dataplane/src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.trim_end_matches(".rs");
        let known = ["lib", "clock"].contains(&stem)
            || named.iter().any(|room| {
                room.trim_end_matches('/').trim_end_matches(".rs").ends_with(&format!("src/{stem}"))
            });
        assert!(known, "dataplane/src/{name} is not on the map");
    }
}

#[test]
fn the_map_is_a_page() {
    let lines = read("docs/ARCHITECTURE.md").lines().count();
    assert!(lines <= 150, "docs/ARCHITECTURE.md has {lines} lines; 150 are enough");
}
