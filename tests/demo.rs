//! `shunt demo`: every check holds, and nothing remains, whatever ends it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::Tool;
use rustix::process::{Pid, Signal, kill_process};
use scene::{Scene, inhabitants, is_alive, shunt, until};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

/// Interfaces, named namespaces and mounts of the machine.
fn machine() -> [String; 3] {
    let ip = |arguments: &[&str]| {
        String::from_utf8(Command::new("ip").args(arguments).output().unwrap().stdout).unwrap()
    };
    [ip(&["-br", "link"]), ip(&["netns", "list"]), fs::read_to_string("/proc/self/mounts").unwrap()]
}

#[test]
fn every_check_holds_and_the_timeline_is_told() {
    let turn = Scene::new(&[Tool::TCPDUMP, Tool::PING]);
    let before = machine();
    let output =
        Command::new(shunt()).args(["demo", "--output", "json"]).stdin(Stdio::null()).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {text}\n{errors}", output.status);
    let report: Value = serde_json::from_str(&text).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() >= 17, "{text}");
    let names = |word: &str| checks.iter().any(|check| check["name"].as_str().unwrap().contains(word));
    assert!(
        [
            "DHCP",
            "TCP connection",
            "wrong network",
            "no reboot",
            "one of the pool's",
            "metadata service",
            "went to blue"
        ]
        .into_iter()
        .all(names),
        "{text}"
    );
    assert!(checks.iter().all(|check| check["ok"] == true), "{text}");
    let operations = report["operations"].as_array().unwrap();
    let kinds: Vec<_> = operations.iter().map(|operation| operation["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["network_change", "hand_over", "network_change"], "{text}");
    for operation in operations {
        // A guest of the second act need not have sent a packet before it reports: metadata is the switch's own.
        for time in ["lease_ms", "ready_ms"] {
            assert!(operation[time].as_f64().is_some_and(|ms| ms > 0.0), "{time} in {text}");
        }
        assert!(operation["steps"].as_array().is_some_and(|steps| steps.len() >= 3), "{text}");
        println!("{operation}");
    }
    assert!(operations[0]["first_packet_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{text}");
    assert_eq!(machine(), before);
    drop(turn);
}

/// Starts the demonstration, ends it in the middle of its play, and sees that all of it is gone.
fn nothing_remains_after(signal: Signal) {
    let turn = Scene::new(&[Tool::TCPDUMP, Tool::PING]);
    let before = machine();
    let mut demo =
        Command::new(shunt()).arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("web talks to"));
    assert!(line.is_some(), "the demonstration ended before its middle");
    // demo → unshare → PID 1 of the world
    let child = |pid: u32| -> u32 {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let is_unshare = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() != "nsenter")
        };
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_unshare).unwrap()
    };
    let pids = inhabitants(child(child(demo.id())));
    assert!(pids.len() > 10, "guests, clients, switches: {pids:?}");
    kill_process(Pid::from_child(&demo), signal).unwrap();
    demo.wait().unwrap();
    until("all processes of the demonstration to be gone", || !pids.iter().any(|pid| is_alive(*pid)));
    assert_eq!(machine(), before);
    drop(turn);
}

#[test]
fn nothing_remains_after_kill_nine() {
    nothing_remains_after(Signal::KILL);
}

#[test]
fn nothing_remains_after_control_c() {
    nothing_remains_after(Signal::INT);
}
