//! The table of attacks (tests/attacks) with real TAPs, namespaces and a real underlay: each row is sent by a packet
//! socket, exactly its own counter moves, captures at every other place show nothing of it, and honest guests talk on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what broke by panicking"
)]

mod attacks;
mod scene;
mod street;

use attacks::bytes::{Mac, V4, ethernet, icmp, udp};
use attacks::{End, Format, Means};
use control::lab::{Capture, FABRIC, Frame, Host};
use dataplane::pipeline::DropReason;
use scene::until;
use std::collections::{BTreeMap, BTreeSet};
use street::{Counts, Honest, Street, Witnesses, mac};

fn count(frames: usize, owner: &str, kind: &'static str, name: &str) -> Counts {
    BTreeMap::from([((owner.to_owned(), kind, name.to_owned()), u64::try_from(frames).unwrap())])
}

/// What `frames` of a row must move.
fn expected(end: End, frames: usize, owner: &str) -> Counts {
    match end {
        End::Dropped(reason) => count(frames, owner, "drop", reason.name()),
        End::Answered(trap) | End::Absorbed(trap) => count(frames, owner, "trap", trap.name()),
        End::Reaches(_) => Counts::new(),
    }
}

#[test]
fn what_a_hostile_guest_sends_ends_under_its_own_name_and_is_seen_by_nobody_else() {
    let street = Street::new("vxlan");
    // She rules her interface, and what her kernel would keep from her is not the switch's defence.
    street.eve.run("ip", &["link", "set", "eve", "mtu", "9000"]).unwrap();
    let places = [
        ("bob", "bob"),
        ("ben", "ben"),
        ("carol", "carol"),
        ("dave", "dave"),
        (FABRIC, "to-host-a"),
        (FABRIC, "to-host-b"),
    ];
    let witnesses = Witnesses::at(&street, &places);
    let honest = Honest::start(&street);
    let mut allowed = BTreeMap::new();
    let mut sent = 0;
    for (row, attack) in attacks::of_a_guest().enumerate().filter(|(_, attack)| attack.means == Means::Frame)
    {
        let frames = (attack.frames)(&attacks::mark(row));
        let before = street.counts();
        street.eve.send_frames(&frames).unwrap();
        let what = format!("{}: {}", attack.section, attack.name);
        street.counted(&what, &before, &expected(attack.end, frames.len(), "eve"));
        sent += frames.len();
        if let End::Reaches(port) = attack.end {
            allowed.insert((port.to_owned(), row), frames.len());
            if port == "dave" {
                allowed.insert(("to-host-a".to_owned(), row), frames.len());
                allowed.insert(("to-host-b".to_owned(), row), frames.len());
            }
        }
    }
    assert!(sent > 200, "{sent} frames");
    street.stands();
    honest.were_served(100);
    assert_eq!(witnesses.tell(), allowed, "who saw which row how often");
}

/// The MAC addresses of host A and of who attacks it.
fn macs(street: &Street, from: &Host) -> (Mac, Mac) {
    (mac(&street.host_a.mac(street.world()).unwrap()), mac(&from.mac(street.world()).unwrap()))
}

/// A third host on the physical network, and what it sends to host A's tunnel port.
fn hostile_underlay(encapsulation: &'static str, format: Format, port: u16) {
    let street = Street::new(encapsulation);
    let mallory = street.scene.host("mallory", 66);
    let (to, from) = macs(&street, &mallory);
    let places = [("eve", "eve"), ("bob", "bob"), ("ben", "ben"), ("carol", "carol"), ("dave", "dave")];
    let witnesses = Witnesses::at(&street, &places);
    street.eve.wait_for_ping([10, 0, 0, 2].into(), scene::PATIENCE).unwrap();
    let honest = Honest::start(&street);
    let mut allowed = BTreeMap::new();
    let mut rows = 0;
    for (row, arrival) in
        attacks::of_the_underlay().enumerate().filter(|(_, arrival)| arrival.format == format)
    {
        let outer = V4 { tos: arrival.tos, ..V4::new(arrival.from.address(), attacks::HOSTS[0], 17) };
        let datagram =
            |payload: &Vec<u8>| ethernet(to, from, 0x0800, &outer.packet(&udp((50_000, port), payload)));
        let frames: Vec<_> = (arrival.payloads)(&attacks::mark(row)).iter().map(datagram).collect();
        let before = street.counts();
        mallory.send_frames(street.world(), &frames).unwrap();
        let what = format!("{}: {}", arrival.section, arrival.name);
        // A trap's answer counts for the port that it speaks for: an everyday sight, so only drops are compared there.
        let expected = match arrival.end {
            End::Answered(_) => Counts::new(),
            end => expected(end, frames.len(), arrival.counted.unwrap_or("(underlay)")),
        };
        street.counted(&what, &before, &expected);
        rows += 1;
        if let End::Reaches(port) = arrival.end {
            allowed.insert((port.to_owned(), row), frames.len());
        }
    }
    assert!(rows > 5);
    street.stands();
    honest.were_served(100);
    assert_eq!(witnesses.tell(), allowed, "who saw which row how often");
}

#[test]
fn what_a_hostile_neighbour_of_the_hosts_sends_ends_under_its_own_name() {
    hostile_underlay("vxlan", Format::Vxlan, 4789);
}

#[test]
fn what_a_hostile_neighbour_sends_in_geneve_ends_under_its_own_name() {
    hostile_underlay("geneve", Format::Geneve, 6081);
}

/// What the kernel of a guest behind a TAP lets through of the virtio headers in the table (it makes the switch's
/// header itself): whatever that is, nothing of it goes where it may not, and the switch stands.
#[test]
fn forged_virtio_headers_of_a_guests_packet_socket_reach_nobody_else() {
    let street = Street::new("vxlan");
    let places = [("bob", "bob"), ("ben", "ben"), ("carol", "carol"), ("dave", "dave")];
    let witnesses = Witnesses::at(&street, &places);
    let honest = Honest::start(&street);
    let mut spoofed = Vec::new();
    let mut taken = 0;
    for (row, attack) in attacks::of_a_guest().enumerate() {
        let Means::Header(header) = attack.means else { continue };
        if attack.end != End::Reaches("bob") && attack.end != End::Dropped(DropReason::OffloadInvalid) {
            spoofed.push(row);
        }
        let frames: Vec<_> = (attack.frames)(&attacks::mark(row))
            .iter()
            .map(|frame| [&header[..10], frame].concat())
            .collect();
        taken += street.eve.send_with_headers(&frames).unwrap().iter().filter(|taken| **taken).count();
    }
    assert!(taken > 0, "the guest's kernel takes none of them: this test shows nothing");
    // A round of honest frames behind them: what was sent has arrived by then.
    street.eve.wait_for_ping([10, 0, 0, 2].into(), scene::PATIENCE).unwrap();
    street.eve.wait_for_ping([10, 0, 0, 4].into(), scene::PATIENCE).unwrap();
    street.stands();
    honest.were_served(100);
    for ((place, row), times) in witnesses.tell() {
        assert!(place == "bob" && !spoofed.contains(&row), "{place} saw row {row} {times} times");
    }
}

/// Who can send to host A pretends that the path to host B has become narrow. The hosts' kernel believes it, and the
/// switch's tunnels must not: they would be cut into fragments, or stop.
#[test]
fn a_forged_path_mtu_does_not_narrow_the_tunnels() {
    let street = Street::new("vxlan");
    let mallory = street.scene.host("mallory", 66);
    let (to, from) = macs(&street, &mallory);
    let mut capture =
        Capture::start(street.world(), FABRIC, "to-host-b", "udp port 4789 and src host 192.0.2.1").unwrap();
    let ping = || street.bob.run("ping", &["-n", "-c", "5", "-i", "0.2", "-s", "1400", "10.0.0.4"]).unwrap();
    ping();
    let ports: BTreeSet<u16> = capture
        .so_far()
        .unwrap()
        .iter()
        .filter_map(|record| Frame::parse(&record.bytes)?.udp_ports)
        .map(|(source, _)| source)
        .collect();
    assert!(!ports.is_empty());
    for port in ports {
        let quoted = V4 { fragment: 0x4000, ..V4::new(attacks::HOSTS[0], attacks::HOSTS[1], 17) }
            .packet(&udp((port, 4789), &[0; 1400]));
        let complaint = icmp(3, 4, [0, 0, 0x02, 0x40], &quoted[..64]);
        let frame =
            ethernet(to, from, 0x0800, &V4::new([192, 0, 2, 66], attacks::HOSTS[0], 1).packet(&complaint));
        mallory.send_frames(street.world(), &[frame]).unwrap();
    }
    until("the kernel to believe the forgery", || {
        let route = street.world().run(Some("host-a"), "ip", &["route", "get", "192.0.2.2"]).unwrap();
        route.contains("mtu 576")
    });
    let before = capture.so_far().unwrap().len();
    let counted = street.counts();
    ping();
    street.counted("five pings", &counted, &Counts::new());
    let records = capture.stop().unwrap();
    let after = &records[before..];
    assert!(after.iter().filter(|record| record.bytes.len() > 1400).count() >= 5, "whole packets");
    let is_fragment = |bytes: &[u8]| bytes[20] & 0x3f != 0 || bytes[21] != 0;
    assert!(after.iter().all(|record| !is_fragment(&record.bytes)), "none was cut");
}
