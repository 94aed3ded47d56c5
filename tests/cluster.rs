//! A whole cluster of processes: a controller, two hosts with switch and agent, guests of namespaces. A machine goes from the
//! pool to its customer and on to another network, driven by the command line alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::dev::Stage;
use scene::{PATIENCE, shunt};
use serde_json::Value;
use std::time::Instant;

/// Says what went wrong with everybody's log.
fn ok(stage: &Stage, arguments: &[&str]) -> Value {
    stage.cli(arguments).unwrap_or_else(|error| panic!("{error}\n{}", stage.logs()))
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value:#}"))
}

/// Waits until `count` machines of the pool are ready.
fn stocked(stage: &Stage, count: u64) {
    let end = Instant::now() + PATIENCE;
    loop {
        let pool = ok(stage, &["pool", "show", "small"]);
        if pool["ready"].as_u64() == Some(count) {
            return;
        }
        assert!(Instant::now() < end, "the pool does not fill: {pool:#}\n{}", stage.logs());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// What runs in a guest, by its port: the process that is its first, and what its kernel's namespaces say.
struct Inside<'a> {
    stage: &'a Stage,
    port: String,
}

impl Inside<'_> {
    fn addresses(&self) -> String {
        self.stage.inside(&self.port, "ip", &["-4", "-o", "address", "show", "dev", &self.port]).unwrap()
    }

    fn ping(&self, to: &str) -> bool {
        self.stage.inside(&self.port, "ping", &["-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", to]).is_ok()
    }

    /// The process ids of its namespace, which is how one life is told from another.
    fn processes(&self) -> Vec<String> {
        let all = self.stage.world().run(None, "ip", &["netns", "pids", &self.port]).unwrap();
        all.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_machine_goes_from_the_pool_to_its_customer_and_on_without_a_reboot() {
    let stage = Stage::start(shunt(), 2).unwrap_or_else(|error| panic!("{error}"));
    ok(&stage, &["tenant", "create", "acme"]);
    for network in ["red", "blue"] {
        ok(&stage, &["network", "create", network, "--prefix", "10.0.0.0/24", "--tenant", "acme"]);
    }
    ok(&stage, &["pool", "create", "small", "--image", "tiny", "--min", "4", "--max", "4"]);
    stocked(&stage, 4);

    let create = |name: &str, network: &str, ip: &str| {
        let done = ok(
            &stage,
            &[
                "vm",
                "create",
                name,
                "--image",
                "tiny",
                "--network",
                network,
                "--ip",
                ip,
                "--wait",
                "--tenant",
                "acme",
            ],
        );
        assert_eq!(text(&done, "state"), "done", "{done:#}\n{}", stage.logs());
        assert_eq!(text(&done, "kind"), "hand_over", "{done:#}");
    };
    create("web-1", "red", "10.0.0.5");
    create("red-peer", "red", "10.0.0.6");
    create("blue-peer", "blue", "10.0.0.6");
    let vm = ok(&stage, &["vm", "show", "web-1", "--tenant", "acme"]);
    let web = Inside { stage: &stage, port: text(&vm, "port").to_owned() };
    assert!(web.addresses().contains("10.0.0.5/24"), "{}", web.addresses());
    assert!(web.ping("10.0.0.6"), "a peer of red\n{}", stage.logs());
    let life = web.processes();

    let moved = ok(
        &stage,
        &["vm", "move", "web-1", "--network", "blue", "--ip", "10.0.0.7", "--wait", "--tenant", "acme"],
    );
    assert_eq!(text(&moved, "state"), "done", "{moved:#}\n{}", stage.logs());
    assert!(
        web.addresses().contains("10.0.0.7/24") && !web.addresses().contains("10.0.0.5"),
        "{}",
        web.addresses()
    );
    assert!(web.ping("10.0.0.6"), "a peer of blue\n{}", stage.logs());
    let after = ok(&stage, &["vm", "show", "web-1", "--tenant", "acme"]);
    assert_eq!(after["mac"], vm["mac"], "for life");
    assert_eq!(after["host"], vm["host"]);
    assert!(web.processes().iter().any(|pid| life.contains(pid)), "the same running machine");
    stage.end();
}
