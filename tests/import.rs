//! Importing a directory: all of a file or nothing of it, whoever is killed.
//!
//! `SHUNT_IMPORT_LINES` sets the size of the large file (250,000 lines unless told otherwise).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code outside of #[test] functions"
)]

mod lone;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lone::Host;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Entry `number` of a file; `round` is its MAC address's first octet but one.
fn entry(number: usize, round: u8) -> Value {
    let [.., a, b, c] = number.to_be_bytes();
    json!({"network": 7, "ip": format!("10.{a}.{b}.{c}"), "mac": format!("02:{round:02x}:00:{a:02x}:{b:02x}:{c:02x}"), "physical_ip": "192.0.2.2"})
}

fn lines(numbers: std::ops::Range<usize>, round: u8) -> String {
    numbers.map(|number| format!("{}\n", entry(number, round))).collect()
}

/// The round whose entry stands at `number`; `None` when none does.
fn round_at(host: &Host, number: usize) -> Option<u8> {
    let ip = entry(number, 0)["ip"].as_str().unwrap().to_owned();
    let said = host.say(&format!("directory lookup --network 7 --ip {ip} --output json"));
    if said.code != 0 {
        assert!(said.refusal()[0].contains("has no entry"), "{}", said.err);
        return None;
    }
    let found = said.json();
    let round = u8::from_str_radix(&found["mac"].as_str().unwrap()[3..5], 16).unwrap();
    assert_eq!(found, entry(number, round));
    Some(round)
}

/// The one round of which all entries are. A switch whose client was killed may just be at it: it gets the time to end.
fn round_of_all(host: &Host, count: usize) -> Option<u8> {
    let began = Instant::now();
    loop {
        let rounds: Vec<_> = (0..9).map(|part| round_at(host, part * (count - 1) / 8)).collect();
        if rounds.iter().all(|round| *round == rounds[0]) {
            return rounds[0];
        }
        assert!(began.elapsed() < Duration::from_secs(20), "half an import: {rounds:?}");
    }
}

/// Kills the switch and starts it again.
fn restart(host: &mut Host) {
    host.signal(Signal::KILL);
    // It is what tells that the new one is ready.
    fs::remove_file(host.path("sock")).unwrap();
    host.start();
}

fn import(host: &Host, file: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_shunt"))
        .args(["vswitch", "directory", "import", file])
        .env("SHUNT_VSWITCH_SOCKET", host.path("sock"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_large_file_is_imported_and_there_after_a_restart() {
    let count = std::env::var("SHUNT_IMPORT_LINES").map_or(250_000, |lines| lines.parse().unwrap());
    let mut host = Host::started();
    let file = host.file("import", &lines(0..count, 1));
    let said = host.say(&format!("directory import {file} --output json"));
    assert_eq!(said.json(), json!({"entries": count}));
    let progress: Vec<_> = said.err.lines().collect();
    assert!(
        progress
            .iter()
            .all(|line| line.starts_with("sent ") && line.ends_with(&format!(" of {count} entries")))
    );
    assert_eq!(progress.len(), count / 200_000, "{progress:?}");
    assert_eq!(round_of_all(&host, count), Some(1));
    restart(&mut host);
    assert_eq!(round_of_all(&host, count), Some(1));
    assert_eq!(round_at(&host, count), None);
}

#[test]
fn an_empty_file_is_no_entries() {
    let host = Host::started();
    for text in ["", "\n", "  \n\r\n\n"] {
        let file = host.file("import", text);
        assert_eq!(host.ask(&format!("directory import {file}")), json!({"entries": 0}));
    }
}

#[test]
fn a_wrong_line_in_the_middle_is_named_and_nothing_is_imported() {
    let host = Host::started();
    let before = host.file("before", &lines(0..10, 1));
    host.ask(&format!("directory import {before}"));
    for (wrong, what) in [
        (entry(5, 2).to_string().replace("192.0.2.2", "192.0.2"), "physical_ip: "),
        (entry(5, 2).to_string().replace("02:02", "03:02"), "mac: "),
        (entry(5, 2).to_string().replace(":7", ":16777216"), "network: "),
        (entry(5, 2).to_string().replace("\"ip\"", "\"pi\""), "unknown field `pi`"),
        ("half a li".into(), "expected value"),
    ] {
        let text = format!("{}{wrong}\n{}", lines(0..20_000, 2), lines(20_001..30_000, 2));
        let file = host.file("import", &text);
        let said = host.say(&format!("directory import {file} --output json"));
        assert_eq!(said.code, 2, "{wrong}");
        let [found, place, remedy] = said.refusal();
        assert!(found.contains(what), "{found}");
        assert_eq!(place, format!("{file}, line 20001"));
        assert!(remedy.contains("nothing was imported"));
        assert_eq!((round_of_all(&host, 10), round_at(&host, 10)), (Some(1), None));
    }
}

/// Kills somebody at moments of an import, eight or as many more as it takes to cut one short, from its first to about its last. Between them the directory is as after one
/// of the imports; when the client was told "done", as after the last.
fn killed_midway(kill: fn(&mut Host, &mut Child)) {
    const COUNT: usize = 60_000;
    let mut host = Host::started();
    let file = host.file("import", &lines(0..COUNT, 1));
    let began = Instant::now();
    assert!(import(&host, &file).wait().unwrap().success());
    let whole = began.elapsed();
    let (mut last, mut cut_short) = (1, 0);
    for round in 2..42 {
        if round >= 10 && cut_short > 0 {
            break;
        }
        let file = host.file("import", &lines(0..COUNT, round));
        let mut client = import(&host, &file);
        // Eighths first, then what lies between them: the switch's own part of an import is short.
        let nth = u32::from(round - 2);
        let moment = if nth < 8 { nth * 5 } else { (nth * 7 + 3) % 40 };
        thread::sleep(whole * moment / 40);
        kill(&mut host, &mut client);
        let done = client.wait().unwrap().success();
        let found = round_of_all(&host, COUNT).expect("the entries of before are there");
        assert!(
            found == round || (found == last && !done),
            "round {round}: {found} stands there, done: {done}"
        );
        cut_short += usize::from(!done);
        last = found;
    }
    assert!(cut_short > 0, "no import was cut short: the test shows nothing");
}

#[test]
fn a_client_that_is_killed_midway_leaves_all_or_nothing() {
    killed_midway(|_, client| client.kill().unwrap());
}

#[test]
fn a_switch_that_is_killed_midway_comes_back_with_all_or_nothing() {
    killed_midway(|host, client| {
        restart(host);
        client.wait().unwrap();
    });
}
