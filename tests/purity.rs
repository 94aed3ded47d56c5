//! The core of the data plane stays pure: without its feature `io` it depends on nothing that does I/O.

#![allow(clippy::expect_used, reason = "a test says what broke by panicking")]

use std::process::Command;

/// Crates that open devices, sockets or files, start threads or read clocks; the core may have none of them.
const IMPURE: &[&str] = &[
    "tokio", "mio", "libc", "rustix", "nix", "socket2", "axum", "hyper", "redb", "arc-swap", "tracing",
    "pnet",
];

/// The packages that `arguments` of `cargo tree` lists.
fn dependencies(arguments: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", "dataplane", "-e", "normal", "--prefix", "none", "--format", "{p}", "--locked"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn impure(all: &[String]) -> Vec<&String> {
    all.iter().filter(|name| IMPURE.contains(&name.as_str())).collect()
}

#[test]
fn the_core_depends_on_no_crate_that_does_io() {
    let core = dependencies(&["--no-default-features"]);
    assert!(core.iter().any(|name| name == "dataplane"), "{core:?}");
    assert_eq!(impure(&core), Vec::<&String>::new());
}

#[test]
fn with_io_it_does_so_the_test_above_can_fail() {
    assert!(!impure(&dependencies(&["--features", "io"])).is_empty());
}
