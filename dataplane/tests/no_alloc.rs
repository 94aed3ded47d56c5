//! Handling packets allocates nothing: an allocator that counts stands under egress, ingress and every trap.

#![allow(unsafe_code)] // JUSTIFICATION: an allocator has no safe form.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::desired::{Encapsulation, UnderlayConfig};
use dataplane::directory::{DirectoryReader, DirectoryWriter, Location};
use dataplane::packet::Buffer;
use dataplane::pipeline::{Context, Outer, Trap, Verdict, Verdicts, egress, ingress};
use dataplane::tables::Tables;
use dataplane::types::{MacAddr, Mtu, Nanos, Vni};
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use serde_json::json;

thread_local! {
    /// Allocations of this thread. Other tests' threads don't disturb.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every method hands its arguments unchanged to `System`, which fulfils the contract of `GlobalAlloc`; counting
// touches only a thread-local cell that needs neither construction nor destruction, so it never allocates itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is `System`'s too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: `pointer` came from `System` with this layout, because all methods go there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(act: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    act();
    ALLOCATIONS.get() - before
}

const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 0xa1];
const ROUTER: [u8; 6] = MacAddr::ROUTER.0;
const OWN: [u8; 4] = [10, 0, 0, 5];
const PEER: [u8; 4] = [10, 0, 0, 15];

fn host(encapsulation: Encapsulation) -> (Tables, DirectoryWriter, DirectoryReader) {
    let underlay = UnderlayConfig {
        physical_ips: vec!["192.0.2.1".parse().unwrap()],
        encapsulation,
        mtu: Mtu::new(1600).unwrap(),
    };
    let document = json!({
        "generation": 1,
        "networks": [{"vni": 100, "dns": ["10.0.0.53"], "domain": "red.example", "subnets": [
            {"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}, {"prefix": "fd00::/64", "gateway": "fd00::1"}]}],
        "ports": [
            {"name": "a", "network": 100, "mac": "02:00:00:00:00:a1", "ips": ["10.0.0.5", "fd00::5"], "hostname": "a", "rules": [
                {"id": 1, "direction": "out", "action": "deny", "protocol": "udp", "ports": "25"},
                {"id": 2, "direction": "in", "action": "allow", "protocol": "udp"}]},
            {"name": "b", "network": 100, "mac": "02:00:00:00:00:a2", "ips": ["10.0.0.6"]}]
    });
    let config = serde_json::from_value(document).unwrap();
    let tables = Tables::empty(Arc::new(underlay), 1, 7).succeed(&config, 1).unwrap();
    let (writer, mut readers) = DirectoryWriter::new(1, 1);
    let mac = MacAddr([2, 0, 0, 0, 0, 0xb1]);
    let location = Location { physical_ip: "192.0.2.2".parse().unwrap(), mac, version: 1 };
    for ip in ["10.0.0.15", "fd00::15"] {
        writer.set(Vni::new(100).unwrap(), ip.parse().unwrap(), location).unwrap();
    }
    let mut reader = readers.pop().unwrap();
    reader.refresh();
    (tables, writer, reader)
}

fn v4(to_mac: [u8; 6], to: [u8; 4], ttl: u8) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(GUEST, to_mac).ipv4(OWN, to, ttl)
}

fn udp(to_mac: [u8; 6], to: [u8; 4], ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    v4(to_mac, to, ttl).udp(1, 2).write(&mut frame, payload).unwrap();
    frame
}

fn dhcp(options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&GUEST);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend(options);
    message.push(255);
    let mut frame = Vec::new();
    let head = PacketBuilder::ethernet2(GUEST, [0xff; 6]).ipv4([0; 4], [255; 4], 64);
    head.udp(68, 67).write(&mut frame, &message).unwrap();
    frame
}

fn arp(target: [u8; 4]) -> Vec<u8> {
    let (hardware, protocol) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
    let message =
        ArpPacket::new(hardware, protocol, ArpOperation::REQUEST, &GUEST, &OWN, &[0; 6], &target).unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(GUEST, [0xff; 6]).arp(message).write(&mut frame).unwrap();
    frame
}

fn echo() -> Vec<u8> {
    let mut frame = Vec::new();
    v4(ROUTER, [10, 0, 0, 1], 64).icmpv4_echo_request(1, 1).write(&mut frame, &[7; 56]).unwrap();
    frame
}

fn solicitation(kind: u8, to: &str, payload: &[u8]) -> Vec<u8> {
    let octets = |ip: &str| ip.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let kind = etherparse::Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [0; 4] };
    let mut frame = Vec::new();
    let head =
        PacketBuilder::ethernet2(GUEST, [0x33, 0x33, 0, 0, 0, 1]).ipv6(octets("fd00::5"), octets(to), 255);
    head.icmpv6(kind).write(&mut frame, payload).unwrap();
    frame
}

type Expected = fn(Verdict) -> bool;

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1_u8; 100]))), 2);
}

#[test]
fn a_packet_costs_no_allocation_whatever_becomes_of_it() {
    let peer_mac = [2, 0, 0, 0, 0, 0xb1];
    let target = "fd00::15".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let mut denied = Vec::new();
    v4(peer_mac, PEER, 64).udp(1, 25).write(&mut denied, &[]).unwrap();
    let frames: Vec<(&str, Vec<u8>, Expected)> = vec![
        ("remote", udp(peer_mac, PEER, 64, &[1; 100]), |v| matches!(v, Verdict::Underlay(_))),
        ("routed", udp(ROUTER, PEER, 64, &[1; 100]), |v| matches!(v, Verdict::Underlay(_))),
        ("local", udp(ROUTER, [10, 0, 0, 6], 64, &[1; 100]), |v| matches!(v, Verdict::Deliver(_))),
        ("unknown", udp(ROUTER, [10, 0, 0, 99], 64, &[1; 100]), |v| matches!(v, Verdict::Drop(_))),
        ("denied", denied, |v| matches!(v, Verdict::Drop(_))),
        ("malformed", vec![0; 3], |v| matches!(v, Verdict::Drop(_))),
        ("too big", udp(ROUTER, PEER, 64, &[1; 1600]), |v| v == Verdict::Reply(Trap::TooBig)),
        ("last hop", udp(ROUTER, PEER, 1, &[1; 100]), |v| v == Verdict::Reply(Trap::TimeExceeded)),
        ("echo", echo(), |v| v == Verdict::Reply(Trap::Echo)),
        ("arp", arp(PEER), |v| v == Verdict::Reply(Trap::Arp)),
        ("ns", solicitation(135, "ff02::1:ff00:15", &target), |v| {
            v == Verdict::Reply(Trap::NeighborSolicitation)
        }),
        ("rs", solicitation(133, "ff02::2", &[]), |v| v == Verdict::Reply(Trap::RouterSolicitation)),
        ("discover", dhcp(&[53, 1, 1, 61, 3, 0, 1, 2]), |v| v == Verdict::Reply(Trap::DhcpOffer)),
        ("request", dhcp(&[53, 1, 3, 50, 4, 10, 0, 0, 5]), |v| v == Verdict::Reply(Trap::DhcpAck)),
        ("wrong request", dhcp(&[53, 1, 3, 50, 4, 10, 7, 0, 5]), |v| v == Verdict::Reply(Trap::DhcpNak)),
    ];
    for encapsulation in [Encapsulation::Vxlan, Encapsulation::Geneve] {
        let (tables, _writer, reader) = host(encapsulation);
        let port = tables.port_named(&"a".parse().unwrap()).unwrap();
        let context = Context { tables: &tables, directory: &reader, now: Nanos(1), worker: 0 };
        let mut buffer = Buffer::new();
        let mut verdicts = Verdicts::new();
        for (what, frame, expected) in &frames {
            let mut packets = [buffer.load(frame)];
            let count = allocations(|| egress(&context, port, &mut packets, &mut verdicts));
            assert!(expected(verdicts[0]), "{what}: {:?}", verdicts[0]);
            assert_eq!(count, 0, "{what}");
        }
    }
}

#[test]
fn an_arriving_packet_costs_no_allocation() {
    let header = [8, 0, 0, 0, 0, 0, 100, 0];
    let (tables, _writer, reader) = host(Encapsulation::Vxlan);
    let context = Context { tables: &tables, directory: &reader, now: Nanos(1), worker: 0 };
    let mut delivered = Vec::new();
    let head = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xb1], GUEST).ipv4(PEER, OWN, 64);
    head.udp(1, 2).write(&mut delivered, &[1; 100]).unwrap();
    let source = Ipv4Addr::new(192, 0, 2, 2).into();
    let mut buffer = Buffer::new();
    let mut verdicts = Verdicts::new();
    let cases: [(Vec<u8>, Expected); 3] = [
        (delivered, |v| matches!(v, Verdict::Deliver(_))),
        (arp([10, 0, 0, 6]), |v| v == Verdict::Reply(Trap::Arp)),
        (vec![1; 9], |v| matches!(v, Verdict::Drop(_))),
    ];
    for (frame, expected) in cases {
        for traffic_class in [0, 2] {
            let mut packets = [buffer.load(&[&header, &frame[..]].concat())];
            let outer = Outer { source, traffic_class };
            let count = allocations(|| ingress(&context, &outer, &mut packets, &mut verdicts));
            assert!(expected(verdicts[0]), "{:?}", verdicts[0]);
            assert_eq!(count, 0);
        }
    }
}
