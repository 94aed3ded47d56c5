//! A room of a crate uses only rooms that come before it, so that each can be read, and tested, by itself.

#![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

/// Each crate's rooms, in an order in which they can be read.
const HOUSES: [(&str, &[&str]); 2] = [
    (
        "dataplane/src",
        &[
            "types",
            "packet",
            "sync",
            "clock",
            "publish",
            "wire",
            "desired",
            "directory",
            "conntrack",
            "offload",
            "drops",
            "verdict",
            "refusal",
            "stats",
            "bucket",
            "tables",
            "context",
            "trap",
            "pipeline",
            "port",
            "underlay",
            "keeper",
            "worker",
            "endpoint",
            "switch",
            "ctl",
        ],
    ),
    (
        "control/src",
        &[
            "format",
            "lab",
            "model",
            "store",
            "network",
            "storage",
            "pool",
            "compute",
            "tenant",
            "workflow",
            "fleet",
            "reconcile",
            "imds",
            "hypervisor",
            "api",
            "controller",
            "host",
            "dev",
            "demo",
            "cli",
        ],
    ),
];

/// Rooms that use a later one. Nothing may be added; whoever mends one strikes it out.
const KNOWN: [(&str, &str); 0] = [];

/// The rooms that a text names as `crate::room`, comments and unit tests aside.
fn used(text: &str) -> BTreeSet<String> {
    // A file's own tests are its last part; a declaration of tests elsewhere is one line.
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let ends = |c: char| !c.is_alphanumeric() && c != '_';
    let named = lines.flat_map(|line| line.split("crate::").skip(1));
    named.filter_map(|rest| rest.split(ends).next()).map(String::from).collect()
}

/// All uses of other rooms by the files below `path`, tests and models aside.
fn used_below(path: &Path) -> BTreeSet<String> {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().flat_map(|entry| used_below(&entry.unwrap().path())).collect();
    }
    let whole = path.with_extension("");
    let test =
        whole.components().any(|part| ["tests", "loom_models"].iter().any(|name| part.as_os_str() == *name));
    if test { BTreeSet::new() } else { fs::read_to_string(path).map(|text| used(&text)).unwrap_or_default() }
}

#[test]
fn no_room_uses_a_later_one() {
    let mut found = BTreeSet::new();
    for (house, rooms) in HOUSES {
        let house = Path::new(env!("CARGO_MANIFEST_DIR")).join(house);
        for entry in fs::read_dir(&house).unwrap() {
            let room =
                entry.unwrap().path().with_extension("").file_name().unwrap().to_str().unwrap().to_owned();
            assert!(
                room == "lib" || rooms.contains(&&*room),
                "{room} of {house:?} has no place in the order"
            );
        }
        for (place, room) in rooms.iter().enumerate() {
            let files = [house.join(room), house.join(format!("{room}.rs"))];
            let used: BTreeSet<String> = files.iter().flat_map(|path| used_below(path)).collect();
            let later = rooms.iter().skip(place + 1).filter(|later| used.contains(**later));
            found.extend(later.map(|later| (*room, *later)));
        }
    }
    assert_eq!(found, BTreeSet::from(KNOWN), "left: what is there; right: what is known");
}

#[test]
fn what_a_file_uses_is_seen() {
    let text = "use crate::wire::arp;\n// crate::worker\nfn f(a: &crate::tables::Tables) {}\n#[cfg(test)]\nmod tests {\n    use crate::ctl;\n";
    assert_eq!(used(text), BTreeSet::from(["tables", "wire"].map(String::from)));
}

/// Rooms that know a virtual network by its moniker alone.
const MONIKERS_ALONE: [&str; 6] = ["storage", "pool", "compute", "tenant", "workflow", "api"];

/// The files below `path` that name a VNI, their comments and tests too: there is no reason to.
fn naming_a_vni(path: &Path) -> Vec<String> {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().flat_map(|entry| naming_a_vni(&entry.unwrap().path())).collect();
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    let names = text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "Vni");
    if names { vec![path.display().to_string()] } else { Vec::new() }
}

#[test]
fn only_the_networking_manager_knows_vnis() {
    let house = Path::new(env!("CARGO_MANIFEST_DIR")).join("control/src");
    let managers = MONIKERS_ALONE.iter().map(|room| house.join(room)).filter(|room| room.exists());
    let found: Vec<_> = managers.flat_map(|room| naming_a_vni(&room)).collect();
    assert!(found.is_empty(), "{found:?} name a VNI: ask `network` for what is needed, by moniker");
    assert!(!naming_a_vni(&house.join("network")).is_empty(), "the test would see one");
}
