//! What a restart costs: a switch is killed, and ended in order, again and again, while its guest sends numbered datagrams
//! and a TCP stream to another host. Prints what was lost of them, and the guests' `carrier_changes`.
//!
//! `make bench-restart`; ROUNDS and RATE (datagrams a second) may be set. Root: it makes network namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench says what broke by panicking"
)]

#[path = "../tests/blackout/mod.rs"]
mod blackout;
#[path = "../tests/scene/mod.rs"]
mod scene;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use blackout::{Load, carrier_changes};
use control::lab::{SwitchOptions, Tool};
use scene::{PATIENCE, Scene, say};

const DAVE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let (rounds, rate) = (setting("ROUNDS", 100), setting("RATE", 50_000));
    let scene = Scene::new(&[Tool::PING]);
    let (_, mut a) = scene.switch("host-a", 1, &SwitchOptions::default());
    let (_, b) = scene.switch("host-b", 2, &SwitchOptions::default());
    for switch in [&a, &b] {
        say(switch, "network add 100 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
    }
    let eve = scene.static_guest(&a, "eve", 100, "02:00:00:00:00:01", "10.0.0.1");
    let dave = scene.static_guest(&b, "dave", 100, "02:00:00:00:00:04", "10.0.0.4");
    say(&a, "directory set --network 100 --ip 10.0.0.4 --mac 02:00:00:00:00:04 --physical-ip 192.0.2.2");
    say(&b, "directory set --network 100 --ip 10.0.0.1 --mac 02:00:00:00:00:01 --physical-ip 192.0.2.1");
    eve.wait_for_ping(DAVE, PATIENCE).unwrap();
    let before = [&eve, &dave].map(carrier_changes);
    for kill in [true, false] {
        let load = Load::start(&scene.world, (&eve, &dave), DAVE, rate);
        let mut ready = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            if kill {
                a.kill();
            } else {
                a.terminate().unwrap();
            }
            a.start().unwrap_or_else(|error| panic!("{error}"));
            ready.push(begun.elapsed());
            load.wait_for_progress();
            // Long enough for each restart's loss to be a gap of its own.
            std::thread::sleep(Duration::from_millis(100));
        }
        let report = load.end();
        ready.sort_unstable();
        println!("{rounds} x {}", if kill { "kill -9" } else { "SIGTERM" });
        println!("  {report}");
        println!(
            "  ended, started and ready again: p50 {} ms, p99 {} ms",
            ready[ready.len() / 2].as_millis(),
            ready[(ready.len() * 99 / 100).min(ready.len() - 1)].as_millis()
        );
        let after = [&eve, &dave].map(carrier_changes);
        println!("  carrier_changes of the guests: {before:?} before, {after:?} after");
        assert!(report.tcp_alive, "the TCP connection has died");
        assert_eq!(after, before, "a guest has seen its link go");
        for line in histogram(&report.gaps) {
            println!("  {line}");
        }
    }
}

/// Gaps by their length in milliseconds, each class twice as wide as the one before.
fn histogram(gaps: &[(u64, f64)]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut low = 0.0;
    let mut high = 1.0;
    while low < gaps.iter().map(|gap| gap.1).fold(0.0, f64::max) {
        let within: Vec<_> = gaps.iter().filter(|gap| (low..high).contains(&gap.1)).collect();
        let lost: u64 = within.iter().map(|gap| gap.0).sum();
        if !within.is_empty() {
            lines.push(format!("{low:>6} to {high:>6} ms: {:>4} gaps, {lost} datagrams", within.len()));
        }
        (low, high) = (high, high * 2.0);
    }
    lines
}
