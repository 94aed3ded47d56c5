//! ARP, neighbour and router discovery, and echoes: what the switch answers itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::packet::{Checksum, Offload};
use dataplane::pipeline::{DropReason, Trap, Verdict};
use dataplane::types::MacAddr;
use etherparse::{ArpOperation, TransportHeader};

use super::frames::{Head, Seen, TTL, arp, ping_head, solicit, v4, v6, who_has};
use super::world::*;

#[test]
fn arp_tells_a_neighbours_own_mac_and_the_routers_for_the_rest() {
    let world = World::vxlan();
    for (target, mac) in [
        ("10.0.0.1", MacAddr::ROUTER),
        ("10.0.1.1", MacAddr::ROUTER),
        ("169.254.169.254", MacAddr::ROUTER),
        ("168.63.129.16", MacAddr::ROUTER),
        ("10.0.0.9", A6.mac),
        ("10.0.0.15", B1.mac),
        // Another prefix's stations are behind the router, here and elsewhere.
        ("10.0.1.6", MacAddr::ROUTER),
        ("10.0.1.16", MacAddr::ROUTER),
    ] {
        for sender in [A1.v4(), Ipv4Addr::UNSPECIFIED] {
            let outcome = world.a.send(&A1, &who_has(&A1, sender, target));
            outcome.is_reply(Trap::Arp);
            let seen = Seen::of(&outcome.frame);
            assert_eq!(seen.macs(), (mac, A1.mac), "{target}");
            let reply = seen.arp();
            assert_eq!(reply.operation, ArpOperation::REPLY);
            assert_eq!(reply.sender_hw_addr(), mac.0, "{target}");
            assert_eq!(reply.sender_protocol_addr(), target.parse::<Ipv4Addr>().unwrap().octets());
            assert_eq!(reply.target_hw_addr(), A1.mac.0);
            assert_eq!(reply.target_protocol_addr(), sender.octets());
        }
    }
}

#[test]
fn nobody_answers_for_the_guests_own_address() {
    let world = World::vxlan();
    let probe = world.a.send(&A1, &who_has(&A1, Ipv4Addr::UNSPECIFIED, "10.0.0.5"));
    assert_eq!(probe.verdict, Verdict::Absorbed(Trap::AddressProbe));
    let announcement = world.a.send(&A1, &who_has(&A1, A1.v4(), "10.0.0.5"));
    announcement.is_drop(DropReason::ArpUnasked, "a1");
    for target in [A1.ips[1], "fe80::ff:fe00:a1"] {
        let probe = world.a.send(&A1, &solicit(&A1, Ipv6Addr::UNSPECIFIED, target));
        assert_eq!(probe.verdict, Verdict::Absorbed(Trap::AddressProbe), "{target}");
    }
}

#[test]
fn a_taken_address_is_defended() {
    let world = World::vxlan();
    let arp = world.a.send(&A1, &who_has(&A1, Ipv4Addr::UNSPECIFIED, B1.ips[0]));
    arp.is_reply(Trap::Arp);
    let nd = world.a.send(&A1, &solicit(&A1, Ipv6Addr::UNSPECIFIED, B1.ips[1]));
    nd.is_reply(Trap::NeighborSolicitation);
    let seen = Seen::of(&nd.frame);
    assert_eq!(seen.ips().1, "ff02::1".parse::<IpAddr>().unwrap(), "RFC 4861 section 7.2.4");
    let Some(TransportHeader::Icmpv6(header)) = &seen.transport else { panic!() };
    assert_eq!(header.to_bytes()[4], 0x20, "not solicited");
}

#[test]
fn after_a_move_the_old_gateway_stays_silent() {
    // A guest that checks by ARP whether it is still where it was (RFC 4436) must find that it is not.
    let world = World::vxlan();
    let mut check = who_has(&A1, "10.77.0.5".parse().unwrap(), "10.77.0.1");
    check[..6].copy_from_slice(&MacAddr::ROUTER.0);
    world.a.send(&A1, &check).is_drop(DropReason::ArpSpoofed, "a1");
    let same_gateway = who_has(&A1, "10.0.0.77".parse().unwrap(), "10.0.0.1");
    world.a.send(&A1, &same_gateway).is_drop(DropReason::ArpSpoofed, "a1");
}

#[test]
fn neighbour_solicitations_are_answered_like_arp() {
    let world = World::vxlan();
    let router = "fe80::c53:48ff:fe55:4e54";
    for (target, mac, is_router) in [
        ("fd00:0:0:a::1", MacAddr::ROUTER, true),
        (router, MacAddr::ROUTER, true),
        ("fd00:0:0:a::9", A6.mac, false),
        ("fd00:0:0:a::15", B1.mac, false),
        ("fd00:0:0:b::16", MacAddr::ROUTER, true),
    ] {
        for source in [A1.v6(), A1.mac.link_local()] {
            let outcome = world.a.send(&A1, &solicit(&A1, source, target));
            outcome.is_reply(Trap::NeighborSolicitation);
            let seen = Seen::of(&outcome.frame);
            assert_eq!(seen.macs(), (mac, A1.mac), "{target}");
            assert_eq!(seen.ips(), (target.parse().unwrap(), source.into()));
            assert_eq!(seen.ttl(), 255);
            let Some(TransportHeader::Icmpv6(header)) = &seen.transport else {
                panic!("{:?}", seen.transport)
            };
            let bytes = header.to_bytes();
            assert_eq!(bytes[0], 136);
            let tail = [&bytes[4..], seen.payload].concat();
            assert_eq!(tail[0], if is_router { 0xe0 } else { 0x60 }, "router, solicited, override");
            assert_eq!(tail[4..20], target.parse::<Ipv6Addr>().unwrap().octets());
            assert_eq!(tail[20..], [&[2, 1], &mac.0[..]].concat());
        }
    }
}

#[test]
fn a_router_solicitation_gets_the_networks_advertisement() {
    let world = World::vxlan();
    for source in [Ipv6Addr::UNSPECIFIED, A1.mac.link_local()] {
        let head = Head {
            from_mac: A1.mac,
            to_mac: MacAddr([0x33, 0x33, 0, 0, 0, 2]),
            from: source.into(),
            to: "ff02::2".parse().unwrap(),
            ttl: 255,
        };
        let outcome = world.a.send(&A1, &head.icmpv6(133, [0; 4], &[]));
        outcome.is_reply(Trap::RouterSolicitation);
        let seen = Seen::of(&outcome.frame);
        assert_eq!(seen.macs(), (MacAddr::ROUTER, A1.mac));
        let to = if source.is_unspecified() { "ff02::1".parse().unwrap() } else { source };
        assert_eq!(seen.ips(), (MacAddr::ROUTER.link_local().into(), to.into()));
        assert_eq!(seen.ttl(), 255, "RFC 4861 section 6.1.2");
        let message = &outcome.frame[54..];
        assert_eq!(message[0], 134);
        assert_eq!(message[4..8], [64, 0xc0, 0x0e, 0x10], "hop limit, M and O, 3600 s");
        let prefixes: Vec<_> = options(&message[16..]).filter(|option| option[0] == 3).collect();
        assert_eq!(prefixes.len(), 2);
        assert_eq!(prefixes[0][2..4], [64, 0x80], "on link, not autonomous");
        assert_eq!(prefixes[1][16..24], [0xfd, 0, 0, 0, 0, 0, 0, 0x0b]);
        let find = |kind| options(&message[16..]).find(|option| option[0] == kind).unwrap();
        assert_eq!(find(5)[4..8], [0, 0, 0x05, 0xdc], "MTU 1500");
        assert_eq!(find(1)[2..8], MacAddr::ROUTER.0);
        assert_eq!(find(25)[8..], "fd00:0:0:a::53".parse::<Ipv6Addr>().unwrap().octets());
    }
}

fn options(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(*rest.get(1)?) * 8;
        let (option, after) = rest.split_at(length);
        rest = after;
        Some(option)
    })
}

#[test]
fn the_gateway_answers_echoes() {
    let world = World::vxlan();
    let payload: Vec<u8> = (0..255).collect();
    for (gateway, reply) in [("10.0.0.1", 0), ("10.0.1.1", 0), ("fd00:0:0:a::1", 129), ("fd00:0:0:b::1", 129)]
    {
        let head = Head { ttl: 3, ..Head::of(&A1, MacAddr::ROUTER, gateway) };
        let outcome = world.a.send(&A1, &head.echo(&payload));
        outcome.is_reply(Trap::Echo);
        let seen = Seen::of(&outcome.frame);
        assert_eq!(seen.macs(), (MacAddr::ROUTER, A1.mac));
        assert_eq!(seen.ips(), (head.to, head.from));
        assert_eq!(seen.ttl(), TTL);
        assert_eq!(outcome.frame[seen_transport(&seen)], reply);
        assert_eq!(seen.payload, payload);
    }
    // An undone checksum somewhere in the data is the asker's affair.
    let odd = Offload { checksum: Checksum::Partial { start: 60, offset: 0 }, segmentation: None };
    let ping = Head::of(&A1, MacAddr::ROUTER, "10.0.0.1").echo(&payload);
    world.a.send_with(&A1, &ping, odd).is_reply(Trap::Echo);
    let link_local = Head {
        from: A1.mac.link_local().into(),
        ..Head::of(&A1, MacAddr::ROUTER, "fe80::c53:48ff:fe55:4e54")
    };
    world.a.send(&A1, &link_local.echo(b"")).is_reply(Trap::Echo);
}

fn seen_transport(seen: &Seen<'_>) -> usize {
    if seen.ips().0.is_ipv4() { 34 } else { 54 }
}

#[test]
fn the_gateway_does_nothing_else() {
    let world = World::vxlan();
    let to = |target| Head::of(&A1, MacAddr::ROUTER, target);
    for frame in [
        to("10.0.0.1").tcp((1, 22), b""),
        to("10.0.0.1").udp((1, 53), b""),
        to("169.254.169.254").tcp((1, 80), b""),
        to("168.63.129.16").tcp((1, 80), b""),
        to("fd00:0:0:a::1").icmpv6(129, [0; 4], b""),
    ] {
        world.a.send(&A1, &frame).is_drop(DropReason::GatewayUnserved, "a1");
    }
}

#[test]
fn the_last_hop_is_reported_to_the_sender() {
    let world = World::vxlan();
    for (to, gateway, offset) in [(B2.ips[0], "10.0.0.1", 42), (B2.ips[1], "fd00:0:0:a::1", 62)] {
        let frame = Head { ttl: 1, ..Head::of(&A1, MacAddr::ROUTER, to) }.udp((33434, 33434), &[7; 900]);
        let outcome = world.a.send(&A1, &frame);
        outcome.is_reply(Trap::TimeExceeded);
        let seen = Seen::of(&outcome.frame);
        assert_eq!(seen.macs(), (MacAddr::ROUTER, A1.mac));
        assert_eq!(seen.ips().0, gateway.parse::<IpAddr>().unwrap());
        let quoted = &outcome.frame[offset..];
        assert_eq!(quoted, &frame[14..14 + quoted.len()]);
        assert_eq!(outcome.frame.len() - 14, if offset == 42 { 576 } else { 948 + 48 });
    }
    // Within a prefix nothing is routed, so nothing ends.
    let frame = Head { ttl: 1, ..ping_head(&A1, &B1, v4) }.udp((1, 2), b"");
    world.a.send(&A1, &frame).tunnel();
    let frame = Head { ttl: 1, ..ping_head(&A1, &B1, v6) }.udp((1, 2), b"");
    world.a.send(&A1, &frame).tunnel();
}

#[test]
fn an_error_never_provokes_an_error() {
    let world = World::vxlan();
    let mut frame = Head { ttl: 1, ..Head::of(&A1, MacAddr::ROUTER, B2.ips[0]) }.echo(b"");
    // Destination unreachable.
    frame[34] = 3;
    world.a.send(&A1, &frame).is_drop(DropReason::TtlExceeded, "a1");
}

#[test]
fn arp_and_neighbour_solicitations_of_a_bridge_are_answered_through_the_tunnel() {
    let world = World::vxlan();
    let header = [8, 0, 0, 0, 0, 0, 100, 0];
    let request = arp((B1.mac, MacAddr::BROADCAST), ArpOperation::REQUEST, (B1.mac, B1.v4()), A1.v4());
    let outcome = world.a.receive(HOST_B, &[&header[..], &request].concat());
    outcome.is_reply(Trap::Arp);
    assert_eq!(outcome.counted.as_deref(), Some("a1"));
    assert_eq!(outcome.frame[..8], header);
    let seen = Seen::of(&outcome.frame[8..]);
    assert_eq!(seen.macs(), (A1.mac, B1.mac));
    assert_eq!(seen.arp().sender_hw_addr(), A1.mac.0);
    assert_eq!(seen.arp().target_protocol_addr(), B1.v4().octets());

    let outcome = world.a.receive(HOST_B, &[&header[..], &solicit(&B1, B1.v6(), A1.ips[1])].concat());
    outcome.is_reply(Trap::NeighborSolicitation);
    assert_eq!(outcome.frame[..8], header);
    let seen = Seen::of(&outcome.frame[8..]);
    assert_eq!(seen.macs(), (A1.mac, B1.mac));
    assert_eq!(seen.ips(), (A1.v6().into(), B1.v6().into()));
    assert_eq!(outcome.frame[8 + 54 + 4], 0x60, "no router, solicited, override");
}
