//! Real DHCP clients, unmodified: each gets a lease, renews it, and has the new address after a change of network,
//! once because the link bounced and once because the short lease made it ask.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::{ClientKind, Guest, Switch, SwitchOptions};
use scene::{PATIENCE, Scene, say, until};
use std::{net::Ipv4Addr, time::Instant};

const OLD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const NEW: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);

/// A switch with two networks and a guest in the first that has its lease.
fn leased(kind: ClientKind, lease_seconds: u32) -> (Guest, Switch, Scene) {
    let scene = Scene::new(&[kind.tool()]);
    let (_, switch) = scene.switch("host-a", 1, &SwitchOptions::default());
    for vni in [100, 200] {
        let lease = format!("--lease-seconds {lease_seconds} --dns 10.0.0.253 --domain lab.example");
        say(&switch, &format!("network add {vni} --prefix 10.0.0.0/24 --gateway 10.0.0.254 {lease}"));
    }
    let guest = scene.guest(&switch, "g1", 100, "02:00:00:00:00:01", "10.0.0.5");
    let start = Instant::now();
    guest.start_dhcp(kind).unwrap();
    guest.wait_for_address(OLD, PATIENCE).unwrap();
    println!("{kind:?}: first lease {} ms after its start", start.elapsed().as_millis());
    until("the gateway's echo", || guest.ping([10, 0, 0, 254].into(), 1).unwrap());
    (guest, switch, scene)
}

fn leases(guest: &Guest, address: Ipv4Addr) -> usize {
    guest.events().iter().filter(|event| event.address == Some(address)).count()
}

/// The new address comes because of the link: the lease is too long for anything else.
fn after_the_bounce(kind: ClientKind) {
    let (mut guest, switch, _scene) = leased(kind, 3600);
    if kind != ClientKind::Dhcpcd {
        guest.watch_carrier().unwrap();
    }
    let start = Instant::now();
    say(&switch, "port move g1 --network 200 --ip 10.0.0.6");
    guest.wait_for_address(NEW, PATIENCE).unwrap();
    let seen = start.elapsed().as_millis();
    until("the gateway's echo from the new address", || guest.ping([10, 0, 0, 254].into(), 1).unwrap());
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

/// Nothing tells the client; when its ten seconds are half over (T1) it asks, and is refused. The refusal is broadcast
/// (RFC 2131 section 4.3.2), and dhcpcd, whose socket is bound to its address, hears it only when it asks all servers
/// (T2). udhcpc asks when it likes.
fn left_alone_with_a_short_lease(kind: ClientKind) {
    let (guest, switch, _scene) = leased(kind, 10);
    let before = leases(&guest, OLD);
    let start = Instant::now();
    until("a renewal", || leases(&guest, OLD) > before);
    println!("{kind:?}: renewed after {} ms", start.elapsed().as_millis());
    let start = Instant::now();
    say(&switch, "port move g1 --network 200 --ip 10.0.0.6 --no-bounce");
    guest.wait_for_address(NEW, PATIENCE).unwrap();
    println!(
        "{kind:?}: left alone, new address {} ms after `port move --no-bounce`",
        start.elapsed().as_millis()
    );
    let said = guest.client_output();
    assert!(said.to_lowercase().contains("nak"), "{said}");
    let before = leases(&guest, NEW);
    until("a renewal of the new lease", || leases(&guest, NEW) > before);
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
fn udhcpc_left_alone_with_a_short_lease() {
    left_alone_with_a_short_lease(ClientKind::Udhcpc);
}

#[test]
fn dhclient_left_alone_with_a_short_lease() {
    left_alone_with_a_short_lease(ClientKind::Dhclient);
}

#[test]
fn dhcpcd_left_alone_with_a_short_lease() {
    left_alone_with_a_short_lease(ClientKind::Dhcpcd);
}
