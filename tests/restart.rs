//! The switch is killed and started again: it comes back alone, with its ports, its directory and its guests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::{ClientKind, Guest, Switch, SwitchOptions, Tool};
use rustix::process::Signal;
use scene::{PATIENCE, Scene, say, until};
use serde_json::Value;
use std::{net::Ipv4Addr, time::Instant};

const DAVE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);

/// What must be the same afterwards. Counters and ages are not of it.
fn shape(switch: &Switch) -> [Value; 3] {
    let ports = say(switch, "port show eve");
    let port = ["name", "network", "mac", "ips", "kind", "netns"].map(|key| ports[key].clone());
    [say(switch, "export"), say(switch, "directory list --network 100"), Value::from(port.to_vec())]
}

/// Number and address of the guest's interface: both change when it is made anew.
fn interface(guest: &Guest) -> (String, Option<Ipv4Addr>) {
    (
        guest.run("cat", &[&format!("/sys/class/net/{}/ifindex", guest.name())]).unwrap(),
        guest.address().unwrap(),
    )
}

fn killed_and_started(signal: Signal) {
    let scene = Scene::new(&[Tool::PING, ClientKind::Udhcpc.tool()]);
    let (_, mut a) = scene.switch("host-a", 1, &SwitchOptions::default());
    let (_, b) = scene.switch("host-b", 2, &SwitchOptions::default());
    for switch in [&a, &b] {
        say(switch, "network add 100 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
    }
    let eve = scene.guest(&a, "eve", 100, "02:00:00:00:00:01", "10.0.0.1");
    let _dave = scene.static_guest(&b, "dave", 100, "02:00:00:00:00:04", "10.0.0.4");
    say(&a, "directory set --network 100 --ip 10.0.0.4 --mac 02:00:00:00:00:04 --physical-ip 192.0.2.2");
    say(&b, "directory set --network 100 --ip 10.0.0.1 --mac 02:00:00:00:00:01 --physical-ip 192.0.2.1");
    eve.start_dhcp(ClientKind::Udhcpc).unwrap();
    eve.wait_for_address([10, 0, 0, 1].into(), PATIENCE).unwrap();
    eve.wait_for_ping(DAVE, PATIENCE).unwrap();
    let (shape_before, interface_before) = (shape(&a), interface(&eve));

    // Pings go on all the time; -O says at once which one got no answer.
    let pings = eve.spawn("ping", &["-n", "-D", "-O", "-i", "0.01", &DAVE.to_string()]).unwrap();
    let answers = || pings.output().lines().filter(|line| line.contains("bytes from")).count();
    until("pings to flow", || answers() > 20);
    let start = Instant::now();
    if signal == Signal::KILL {
        a.kill();
    } else {
        a.terminate().unwrap();
    }
    a.start().unwrap_or_else(|error| panic!("{error}"));
    let started = start.elapsed();
    let before = answers();
    until("pings to flow again", || answers() > before + 20);

    assert_eq!(shape(&a), shape_before);
    assert_eq!(interface(&eve), interface_before, "the guest keeps its interface and its address");
    let times: Vec<f64> = pings
        .output()
        .lines()
        .filter(|line| line.contains("bytes from"))
        .filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse().ok())
        .collect();
    let blackout = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    println!(
        "{signal:?}: ready again after {} ms; longest time without an answer {:.0} ms",
        started.as_millis(),
        blackout * 1000.0
    );
    // It not only forwards: a change is still a change.
    say(&a, "network add 200 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
    say(&a, "port move eve --network 200 --ip 10.0.0.9 --no-bounce");
    until("the old neighbour to be out of reach", || !eve.ping(DAVE, 1).unwrap());
}

#[test]
fn after_kill_nine() {
    killed_and_started(Signal::KILL);
}

#[test]
fn after_a_polite_end() {
    killed_and_started(Signal::TERM);
}
