//! What a guest must not be able to do, and what the physical network must not be able to do to a guest: each attempt
//! reaches nobody (witnessed by captures at every other place) and is counted under its own name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::{Capture, FABRIC, Guest, Host, Record, Switch, SwitchOptions, Tool, World, enter_netns};
use scene::{PATIENCE, Scene, say, until};
use std::{net::UdpSocket, sync::Arc, thread};

/// Every frame of an attempt carries this, so that a capture knows it in any wrapping.
const MARK: &[u8] = b"-attempt-that-must-reach-nobody-";

const EVE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BOB: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Two hosts; on the first `eve`, who misbehaves, and her neighbours `bob` of the same network and `carol` of another
/// one; on the second `dave` of her own network.
struct Street {
    eve: Guest,
    witnesses: Vec<Capture>,
    _others: Vec<Guest>,
    a: Switch,
    b: Switch,
    host_a: Host,
    scene: Scene,
}

impl Street {
    fn new() -> Self {
        let scene = Scene::new(&[Tool::TCPDUMP, Tool::PING]);
        let (host_a, a) = scene.switch("host-a", 1, &SwitchOptions::default());
        let (_, b) = scene.switch("host-b", 2, &SwitchOptions::default());
        for switch in [&a, &b] {
            say(switch, "network add 100 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
            say(switch, "network add 200 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
        }
        let eve = scene.static_guest(&a, "eve", 100, "02:00:00:00:00:01", "10.0.0.1");
        let bob = scene.static_guest(&a, "bob", 100, "02:00:00:00:00:02", "10.0.0.2");
        let carol = scene.static_guest(&a, "carol", 200, "02:00:00:00:00:03", "10.0.0.3");
        let dave = scene.static_guest(&b, "dave", 100, "02:00:00:00:00:04", "10.0.0.4");
        say(&a, "directory set --network 100 --ip 10.0.0.4 --mac 02:00:00:00:00:04 --physical-ip 192.0.2.2");
        say(&b, "directory set --network 100 --ip 10.0.0.1 --mac 02:00:00:00:00:01 --physical-ip 192.0.2.1");
        // The street is in order before anybody misbehaves.
        eve.wait_for_ping([10, 0, 0, 2].into(), PATIENCE).unwrap();
        eve.wait_for_ping([10, 0, 0, 4].into(), PATIENCE).unwrap();
        let places = [
            ("bob", "bob"),
            ("carol", "carol"),
            ("dave", "dave"),
            (FABRIC, "to-host-a"),
            (FABRIC, "to-host-b"),
        ];
        let witnesses = places
            .iter()
            .map(|(netns, device)| Capture::start(&scene.world, netns, device, "").unwrap())
            .collect();
        Self { eve, witnesses, _others: vec![bob, carol, dave], a, b, host_a, scene }
    }

    /// Eve sends each frame; it must be counted at her port under `reason`.
    fn eve_sends(&self, what: &str, reason: &str, frames: &[Vec<u8>]) {
        let before = self.a.drops(reason, Some("eve")).unwrap();
        self.eve.send_frames(frames).unwrap();
        let wanted = before + u64::try_from(frames.len()).unwrap();
        until(&format!("{what} to be counted as {reason}; drops now: {}", say(&self.a, "drops")), || {
            self.a.drops(reason, Some("eve")).unwrap() >= wanted
        });
        assert_eq!(self.a.drops(reason, Some("eve")).unwrap(), wanted, "{what}: counted once each");
    }

    /// A host of the physical network sends tunnel packets to host-a; they must be counted under `reason`.
    fn host_sends(&self, what: &str, reason: &str, from: &str, payloads: Vec<Vec<u8>>) {
        let before = self.a.drops(reason, None).unwrap();
        let wanted = before + u64::try_from(payloads.len()).unwrap();
        send_udp(&self.scene.world, from, (self.host_a.physical_ip, 4789), payloads);
        until(&format!("{what} to be counted as {reason}; drops now: {}", say(&self.a, "drops")), || {
            self.a.drops(reason, None).unwrap() >= wanted
        });
    }

    /// Ends the captures: nobody but `allowed` may have seen the mark.
    fn nobody_saw_it_but(mut self, allowed: &[&str]) {
        // What was sent last may still be on its way to a wrong place: something honest goes everywhere after it.
        self.eve.wait_for_ping([10, 0, 0, 2].into(), PATIENCE).unwrap();
        self.eve.wait_for_ping([10, 0, 0, 4].into(), PATIENCE).unwrap();
        for witness in &mut self.witnesses {
            let place = witness.inside().to_owned();
            let records = witness.stop().unwrap();
            assert!(place.contains("carol") || !records.is_empty(), "{place} has seen not even the pings");
            if !allowed.iter().any(|name| place.contains(name)) {
                assert_eq!(records.iter().filter(|record| is_marked(record)).count(), 0, "seen at {place}");
            }
        }
        for switch in [&self.a, &self.b] {
            assert!(
                switch.process().is_some_and(|process| scene::is_alive(process.pid())),
                "{}",
                switch.log()
            );
        }
    }
}

fn is_marked(record: &Record) -> bool {
    record.bytes.windows(MARK.len()).any(|window| window == MARK)
}

fn send_udp(world: &Arc<World>, netns: &str, to: (std::net::IpAddr, u16), payloads: Vec<Vec<u8>>) {
    let (world, netns) = (Arc::clone(world), netns.to_owned());
    let sender = thread::spawn(move || {
        enter_netns(&world, &netns).unwrap();
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        for payload in payloads {
            socket.send_to(&payload, to).unwrap();
        }
    });
    sender.join().unwrap();
}

fn ones_complement(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn ethernet(to: [u8; 6], from: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], &ether_type.to_be_bytes(), payload].concat()
}

fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend(source);
    header.extend(destination);
    let checksum = ones_complement(&header).to_be_bytes();
    header.splice(10..12, checksum);
    [header, payload.to_vec()].concat()
}

/// UDP without a checksum, which IPv4 allows.
fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

fn honest_packet() -> Vec<u8> {
    ipv4([10, 0, 0, 1], [10, 0, 0, 2], 17, &udp((7, 7), MARK))
}

fn vxlan(flags: u8, vni: u32, inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    [&[flags, 0, 0, 0, a, b, c, 0], inner].concat()
}

#[test]
fn a_frame_of_hers_does_arrive_so_the_tests_below_can_fail() {
    let mut street = Street::new();
    street.eve.send_frames(&[ethernet(BOB, EVE, 0x0800, &honest_packet())]).unwrap();
    let bob = &mut street.witnesses[0];
    until("the honest frame at bob", || bob.so_far().unwrap().iter().any(is_marked));
    street.nobody_saw_it_but(&["bob"]);
}

#[test]
fn a_foreign_mac_or_address_reaches_nobody() {
    let street = Street::new();
    let foreign_mac = ethernet(BOB, BOB, 0x0800, &honest_packet());
    street.eve_sends("a foreign MAC", "source_mac_spoofed", &[foreign_mac.clone(), foreign_mac]);
    let of_bob = ipv4([10, 0, 0, 2], [10, 0, 0, 4], 17, &udp((7, 7), MARK));
    let of_nobody = ipv4([192, 0, 2, 1], [10, 0, 0, 2], 17, &udp((7, 7), MARK));
    let both = [of_bob, of_nobody].map(|packet| ethernet(BOB, EVE, 0x0800, &packet));
    street.eve_sends("a foreign address", "source_ip_spoofed", &both);
    // An ARP announcement that claims bob's address, with the mark as trailing bytes.
    let mut claim = vec![0, 1, 8, 0, 6, 4, 0, 2];
    claim.extend([&EVE[..], &[10, 0, 0, 2], &BOB, &[10, 0, 0, 1], MARK].concat());
    street.eve_sends("a claim of bob's address", "arp_spoofed", &[ethernet([0xff; 6], EVE, 0x0806, &claim)]);
    street.nobody_saw_it_but(&[]);
}

#[test]
fn another_network_the_underlay_and_tunnels_of_her_own_are_out_of_reach() {
    let street = Street::new();
    // carol is on the same host with the same prefix, in another network: for eve the address is nobody's.
    let to_carol = ipv4([10, 0, 0, 1], [10, 0, 0, 3], 17, &udp((7, 7), MARK));
    street.eve_sends(
        "a packet to carol",
        "directory_miss",
        &[ethernet([2, 0, 0, 0, 0, 3], EVE, 0x0800, &to_carol)],
    );
    // Her own tunnel packets, for carol's network and her own, to both hosts' physical addresses.
    let inner = ethernet([2, 0, 0, 0, 0, 3], EVE, 0x0800, &to_carol);
    let tunnels = [(1, 200), (1, 100), (2, 200), (2, 100)].map(|(host, vni)| {
        let packet = ipv4([10, 0, 0, 1], [192, 0, 2, host], 17, &udp((50000, 4789), &vxlan(8, vni, &inner)));
        ethernet(BOB, EVE, 0x0800, &packet)
    });
    street.eve_sends("her own tunnel", "no_route", &tunnels);
    street.nobody_saw_it_but(&[]);
}

#[test]
fn malformed_and_tagged_frames_reach_nobody() {
    let street = Street::new();
    let ip = |change: fn(&mut Vec<u8>)| {
        let mut packet = honest_packet();
        change(&mut packet);
        ethernet(BOB, EVE, 0x0800, &packet)
    };
    street.eve_sends("a version that is not 4", "ipv4_malformed", &[ip(|packet| packet[0] = 0x65)]);
    street.eve_sends("a header of 4 bytes", "ipv4_malformed", &[ip(|packet| packet[0] = 0x41)]);
    street.eve_sends("a length beyond the frame", "ipv4_malformed", &[ip(|packet| packet[2] = 0x40)]);
    street.eve_sends("a wrong checksum", "ipv4_checksum", &[ip(|packet| packet[10] ^= 0xff)]);
    let short_udp = ipv4([10, 0, 0, 1], [10, 0, 0, 2], 17, &[&[0, 7, 0, 7, 0, 4, 0, 0][..], MARK].concat());
    street.eve_sends(
        "a UDP length below 8",
        "transport_malformed",
        &[ethernet(BOB, EVE, 0x0800, &short_udp)],
    );
    let tagged = [&[0, 5, 8, 0][..], &honest_packet()].concat();
    let double = [&[0, 5, 0x81, 0, 0, 6, 8, 0][..], &honest_packet()].concat();
    street.eve_sends("802.1Q", "vlan_tagged", &[ethernet(BOB, EVE, 0x8100, &tagged)]);
    street.eve_sends("802.1ad", "vlan_tagged", &[ethernet(BOB, EVE, 0x88a8, &double)]);
    street.eve_sends("another protocol", "ethertype_unsupported", &[ethernet(BOB, EVE, 0x88b5, MARK)]);
    street.nobody_saw_it_but(&[]);
}

#[test]
fn tunnel_packets_that_no_host_of_the_directory_may_send_reach_nobody() {
    let street = Street::new();
    street.scene.host("intruder", 66);
    let for_eve = ipv4([10, 0, 0, 4], [10, 0, 0, 1], 17, &udp((7, 7), MARK));
    let inner = ethernet(EVE, [2, 0, 0, 0, 0, 4], 0x0800, &for_eve);
    street.host_sends(
        "an unknown host",
        "underlay_source_unknown",
        "intruder",
        vec![vxlan(8, 100, &inner); 3],
    );
    // host-b is known, so only what it says can be wrong.
    street.host_sends("an absent network", "vni_absent", "host-b", vec![vxlan(8, 999, &inner)]);
    street.host_sends("no VNI", "tunnel_no_vni", "host-b", vec![vxlan(0, 100, &inner)]);
    street.host_sends("half a header", "tunnel_malformed", "host-b", vec![vec![8, 0, 0]]);
    let for_nobody = ipv4([10, 0, 0, 4], [10, 0, 0, 77], 17, &udp((7, 7), MARK));
    let for_nobody = ethernet(EVE, [2, 0, 0, 0, 0, 4], 0x0800, &for_nobody);
    street.host_sends("an address that is not here", "not_local", "host-b", vec![vxlan(8, 100, &for_nobody)]);
    // The physical network itself has carried them, of course.
    street.nobody_saw_it_but(&["to-host-a", "to-host-b"]);
}
