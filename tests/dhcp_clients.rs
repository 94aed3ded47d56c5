//! Real DHCP clients, unmodified: each gets a lease, renews it, and has the new address after a change of network,
//! once because the link bounced and once, left alone, because it asked at T1 of its short lease.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::{Capture, ClientKind, Frame, Guest, Record, Switch, SwitchOptions};
use scene::{PATIENCE, Scene, say, until};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

const OLD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
/// In network 200, which has the same addresses as network 100.
const NEW: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);
/// In network 300, which has others.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 6);

/// A switch with three networks and a guest in the first that has its lease.
fn leased(kind: ClientKind, lease_seconds: u32) -> (Guest, Switch, Scene) {
    let scene = Scene::new(&[kind.tool()]);
    let (_, switch) = scene.switch("host-a", 1, &SwitchOptions::default());
    for (vni, net) in [(100, "10.0.0"), (200, "10.0.0"), (300, "10.77.0")] {
        let lease = format!("--lease-seconds {lease_seconds} --dns {net}.253 --domain lab.example");
        say(&switch, &format!("network add {vni} --prefix {net}.0/24 --gateway {net}.254 {lease}"));
    }
    let guest = scene.guest(&switch, "g1", 100, "02:00:00:00:00:01", "10.0.0.5");
    let start = Instant::now();
    guest.start_dhcp(kind).unwrap();
    guest.wait_for_address(OLD, PATIENCE).unwrap();
    println!("{kind:?}: first lease {} ms after its start", start.elapsed().as_millis());
    until("the gateway's echo", || guest.ping(GATEWAY, 1).unwrap());
    (guest, switch, scene)
}

/// The new address comes because of the link: the lease is too long for anything else.
fn after_the_bounce(kind: ClientKind) {
    let (mut guest, switch, _scene) = leased(kind, 3600);
    if !kind.watches_the_link() {
        guest.watch_carrier().unwrap();
    }
    let start = Instant::now();
    say(&switch, "port move g1 --network 200 --ip 10.0.0.6");
    guest.wait_for_address(NEW, PATIENCE).unwrap();
    let seen = start.elapsed().as_millis();
    until("the gateway's echo from the new address", || guest.ping(GATEWAY, 1).unwrap());
    let change = &say(&switch, "port show g1")["last_change"];
    println!("{kind:?}: new address {seen} ms after `port move`; the switch says {change}");
    assert!(change["lease_ms"].as_f64().is_some(), "{change}");
    assert!(!guest.run("ip", &["-4", "-o", "address", "show", "dev", "g1"]).unwrap().contains("10.0.0.5"));
    if kind == ClientKind::Dhcpcd {
        // It asked for the old address (INIT-REBOOT) and was refused.
        let said = guest.client_output();
        assert!(said.contains("NAK"), "{said}");
    }
}

/// What the messages of a capture are, one word each.
fn story(records: &[Record]) -> Vec<&'static str> {
    records.iter().filter_map(|record| message(&Frame::parse(&record.bytes)?)).collect()
}

/// A REQUEST is told by RFC 2131 table 4: from an address that the client has to one server, it renews; to all, it
/// rebinds.
fn message(frame: &Frame) -> Option<&'static str> {
    let message = frame.payload.as_slice();
    let has_address = message.get(12..16)? != [0; 4];
    let mut options = message.get(240..)?;
    let mut kind = None;
    while let [code, length, rest @ ..] = options {
        if *code == 0 || *code == 255 {
            break;
        }
        let (value, rest) = rest.split_at_checked((*length).into())?;
        if *code == 53 {
            kind = value.first().copied();
        }
        options = rest;
    }
    Some(match kind? {
        1 => "discover",
        2 => "offer",
        3 if has_address && frame.destination == Some(IpAddr::V4(Ipv4Addr::BROADCAST)) => "rebind",
        3 if has_address => "renew",
        3 => "request",
        5 => "ack",
        6 => "nak",
        _ => "other",
    })
}

/// Nothing tells the client. At T1 of its ten seconds (udhcpc makes them thirty) it asks the one server that it has its
/// lease from, and takes that server's answer: an ACK while it is where it was, a NAK once its port was moved. A client
/// that does not hear the answer asks again, all servers, at T2 (udhcpc a second later): no client comes to that.
fn left_alone_until_t1(kind: ClientKind) {
    let (guest, switch, scene) = leased(kind, 10);
    let mut capture = Capture::start(&scene.world, "g1", "g1", "udp port 67 or udp port 68").unwrap();
    let has_renewed = |capture: &Capture| {
        let seen = story(&capture.so_far().unwrap_or_default());
        let after_the_last_select = seen.rsplit(|word| *word == "request").next().unwrap_or_default();
        after_the_last_select.windows(2).any(|pair| pair == ["renew", "ack"])
    };
    until("a renewal", || has_renewed(&capture));
    let start = Instant::now();
    say(&switch, "port move g1 --network 300 --ip 10.77.0.6 --no-bounce");
    guest.wait_for_address(ELSEWHERE, PATIENCE).unwrap();
    println!(
        "{kind:?}: left alone, new address {} ms after `port move --no-bounce`",
        start.elapsed().as_millis()
    );
    until("a renewal of the new lease", || {
        let seen = story(&capture.so_far().unwrap());
        seen.contains(&"request") && has_renewed(&capture)
    });
    let seen = story(&capture.stop().unwrap());
    println!("{kind:?}: {}", seen.join(" "));
    assert!(seen.windows(3).any(|three| three == ["renew", "nak", "discover"]), "{seen:?}");
    assert!(!seen.contains(&"rebind"), "an answer was not heard: {seen:?}");
    assert_eq!(seen.iter().filter(|word| **word == "nak").count(), 1, "{seen:?}");
}

#[test]
fn udhcpc_after_the_bounce() {
    after_the_bounce(ClientKind::Udhcpc);
}

#[test]
fn dhclient_after_the_bounce() {
    after_the_bounce(ClientKind::Dhclient);
}

#[test]
fn dhcpcd_after_the_bounce_by_itself() {
    after_the_bounce(ClientKind::Dhcpcd);
}

#[test]
fn networkd_after_the_bounce_by_itself() {
    after_the_bounce(ClientKind::Networkd);
}

#[test]
fn udhcpc_left_alone_until_t1() {
    left_alone_until_t1(ClientKind::Udhcpc);
}

#[test]
fn dhclient_left_alone_until_t1() {
    left_alone_until_t1(ClientKind::Dhclient);
}

#[test]
fn dhcpcd_left_alone_until_t1() {
    left_alone_until_t1(ClientKind::Dhcpcd);
}

#[test]
fn networkd_left_alone_until_t1() {
    left_alone_until_t1(ClientKind::Networkd);
}
