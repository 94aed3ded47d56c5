//! How quick the product is as a whole: processes, namespaces, guests, nothing simulated.
//!
//! `make bench-e2e`; `PART` names one part (`control`, `moves`; else all of them), and each part says below what else may be
//! set. Root: it makes network namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a bench says what broke by panicking"
)]

mod api;
mod control_side;
mod fast_client;
mod moves;
mod numbers;
#[path = "../../tests/scene/mod.rs"]
mod scene;

use std::fs;

/// A part's name and what runs it. The packet path's part has its place here too.
const PARTS: [(&str, fn()); 2] = [("control", control_side::run), ("moves", moves::run)];

/// A number of the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let wanted = std::env::var("PART").unwrap_or_else(|_| "all".to_owned());
    let parts: Vec<_> = PARTS.iter().filter(|(name, _)| wanted == "all" || wanted == *name).collect();
    let names = PARTS.map(|(name, _)| name).join(", ");
    assert!(!parts.is_empty(), "PART={wanted}: there is no such part; there are {names}, and all");
    println!("command: make bench-e2e PART={wanted}{}", settings());
    println!("machine: {}", machine());
    for (name, part) in parts {
        println!("\n== {name}");
        part();
    }
}

/// What was set, as one would type it.
fn settings() -> String {
    let names = ["ROUNDS", "BURST", "BURSTS", "CHANGES", "SCRATCH", "MOVES"];
    let set = names.iter().filter_map(|name| Some(format!(" {name}={}", std::env::var(name).ok()?)));
    set.collect()
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name.trim());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{count} x {model}, Linux {}, load {}",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
    )
}
