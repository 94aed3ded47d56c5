//! Every reason for which the pipeline drops a packet, reached on purpose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::conntrack::{Ends, Key, State};
use dataplane::desired::{Direction, Encapsulation};
use dataplane::packet::{Checksum, Offload, Packet};
use dataplane::pipeline::DropReason;
use dataplane::types::MacAddr;
use dataplane::wire::Protocol;
use etherparse::ArpOperation;
use serde_json::json;

use super::frames::{
    Head, arp, mend_v4, patch_v4, ping_head, set_tos, solicit, v4, v6, who_has, with_options,
};
use super::moves::send_of_an_earlier_port;
use super::rules::{fragments, set_rules};
use super::world::*;

/// What other rooms drop for: the metadata service's queue, devices, the underlay's sockets, the change of snapshots.
const ELSEWHERE: [DropReason; 5] = [
    DropReason::MetadataFull,
    DropReason::StaleReply,
    DropReason::UnderlaySend,
    DropReason::PortSend,
    DropReason::PortDown,
];

/// Guards against what a validated document cannot hold: a route into a network that is not there.
const GUARDS: [DropReason; 1] = [DropReason::PeerNetworkAbsent];

type Case = (DropReason, &'static str, fn(&mut World) -> Outcome);

fn from_a1(world: &World, frame: &[u8]) -> Outcome {
    world.a.send(&A1, frame)
}

fn to(target: &str) -> Head {
    Head::of(&A1, MacAddr::ROUTER, target)
}

fn good() -> Vec<u8> {
    ping_head(&A1, &B1, v4).udp((1, 2), b"payload")
}

fn good_v6() -> Vec<u8> {
    ping_head(&A1, &B1, v6).udp((1, 2), b"payload")
}

fn from_b(world: &World, frame: &[u8]) -> Outcome {
    world.a.receive(HOST_B, &[&[8, 0, 0, 0, 0, 0, 100, 0], frame].concat())
}

fn dhcp(kind: &[u8], patch: (usize, u8)) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&A1.mac.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message[patch.0] = patch.1;
    message.extend(kind);
    message.push(255);
    Head {
        from: Ipv4Addr::UNSPECIFIED.into(),
        to: Ipv4Addr::BROADCAST.into(),
        to_mac: MacAddr::BROADCAST,
        ..to("10.0.0.1")
    }
    .udp((68, 67), &message)
}

/// What becomes of the first question that is not answered any more.
fn spent(ask: impl Fn() -> Outcome) -> Outcome {
    let is_answer = |outcome: &Outcome| matches!(outcome.verdict, dataplane::pipeline::Verdict::Reply(_));
    std::iter::repeat_with(ask).find(|outcome| !is_answer(outcome)).unwrap()
}

/// A frame with an extension header chain.
fn chain(next: u8, headers: &[u8]) -> Vec<u8> {
    let mut frame = good_v6();
    frame[20] = next;
    frame.splice(54..54, headers.iter().copied());
    let length = u16::try_from(frame.len() - 54).unwrap();
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

const FRAMES: &[Case] = &[
    (DropReason::EthernetTruncated, "a1", |world| from_a1(world, &good()[..13])),
    (DropReason::VlanTagged, "a1", |world| {
        let mut frame = good();
        frame.splice(12..12, [0x81, 0, 0, 5]);
        from_a1(world, &frame)
    }),
    (DropReason::EthertypeUnsupported, "a1", |world| {
        let mut frame = good();
        frame[12..14].copy_from_slice(&[0x88, 0xcc]);
        from_a1(world, &frame)
    }),
    (DropReason::Ipv4Malformed, "a1", |world| {
        let mut frame = good();
        frame[16] = 0xff;
        from_a1(world, &frame)
    }),
    (DropReason::Ipv4Checksum, "a1", |world| {
        let mut frame = good();
        frame[24] ^= 1;
        from_a1(world, &frame)
    }),
    (DropReason::Ipv4SourceRoute, "a1", |world| {
        from_a1(world, &with_options(&good(), &[131, 7, 4, 10, 0, 0, 9, 0]))
    }),
    (DropReason::Ipv6Malformed, "a1", |world| {
        let mut frame = good_v6();
        frame[18] = 0xff;
        from_a1(world, &frame)
    }),
    (DropReason::Ipv6ExtensionHeaders, "a1", |world| {
        // A type 0 routing header with a segment left.
        let routing = [[17, 2, 0, 1, 0, 0, 0, 0], [0; 8], [0; 8]].concat();
        from_a1(world, &chain(43, &routing))
    }),
    (DropReason::TransportMalformed, "a1", |world| {
        let mut frame = good();
        frame[38] = 0xff;
        from_a1(world, &frame)
    }),
    (DropReason::FragmentTiny, "a1", |world| {
        let mut frame = ping_head(&A1, &B1, v4).tcp((1, 2), b"");
        frame.truncate(34 + 8);
        frame[16..18].copy_from_slice(&28_u16.to_be_bytes());
        patch_v4(&mut frame, 6, 0x20);
        from_a1(world, &frame)
    }),
    (DropReason::OffloadInvalid, "a1", |world| {
        let checksum = Checksum::Partial { start: 2, offset: 6 };
        world.a.send_with(&A1, &good(), Offload { checksum, segmentation: None })
    }),
    (DropReason::SourceMacSpoofed, "a1", |world| {
        from_a1(world, &Head { from_mac: A6.mac, ..ping_head(&A1, &B1, v4) }.udp((1, 2), b""))
    }),
    (DropReason::SourceIpSpoofed, "a1", |world| {
        from_a1(world, &Head { from: v4(&A6), ..ping_head(&A1, &B1, v4) }.udp((1, 2), b""))
    }),
];

const TRAPS: &[Case] = &[
    (DropReason::ArpMalformed, "a1", |world| {
        let mut frame = who_has(&A1, A1.v4(), "10.0.0.1");
        frame[15] = 6;
        from_a1(world, &frame)
    }),
    (DropReason::ArpSpoofed, "a1", |world| from_a1(world, &who_has(&A1, A6.v4(), "10.0.0.1"))),
    (DropReason::ArpUnasked, "a1", |world| {
        let macs = (A1.mac, MacAddr::BROADCAST);
        from_a1(world, &arp(macs, ArpOperation::REPLY, (A1.mac, A1.v4()), B1.v4()))
    }),
    (DropReason::ArpUnknownTarget, "a1", |world| from_a1(world, &who_has(&A1, A1.v4(), "10.0.0.200"))),
    (DropReason::NdMalformed, "a1", |world| {
        let mut frame = solicit(&A1, A1.v6(), "fd00:0:0:a::1");
        frame[21] = 64;
        from_a1(world, &frame)
    }),
    (DropReason::NdSpoofed, "a1", |world| from_a1(world, &solicit(&A1, A6.v6(), "fd00:0:0:a::1"))),
    (DropReason::NdUnknownTarget, "a1", |world| from_a1(world, &solicit(&A1, A1.v6(), "fd00:0:0:a::77"))),
    (DropReason::NdUnasked, "a1", |world| {
        let head = Head {
            to_mac: MacAddr([0x33, 0x33, 0, 0, 0, 1]),
            ttl: 255,
            to: "ff02::1".parse().unwrap(),
            ..ping_head(&A1, &B1, v6)
        };
        from_a1(world, &head.icmpv6(136, [0x20, 0, 0, 0], &A1.v6().octets()))
    }),
    (DropReason::RouterAdvertisementForged, "a1", |world| {
        let head = Head {
            ttl: 255,
            from: A1.mac.link_local().into(),
            to: "ff02::1".parse().unwrap(),
            ..ping_head(&A1, &B1, v6)
        };
        from_a1(world, &head.icmpv6(134, [0; 4], &[0; 8]))
    }),
    (DropReason::RouterAbsent, "a3", |world| {
        let from = A3.mac.link_local().into();
        let head = Head {
            from_mac: A3.mac,
            to_mac: MacAddr([0x33, 0x33, 0, 0, 0, 2]),
            from,
            to: "ff02::2".parse().unwrap(),
            ttl: 255,
        };
        world.a.send(&A3, &head.icmpv6(133, [0; 4], &[]))
    }),
    (DropReason::DhcpMalformed, "a1", |world| from_a1(world, &dhcp(&[53, 1, 1], (236, 0)))),
    (DropReason::DhcpServerForged, "a1", |world| from_a1(world, &to(B1.ips[0]).udp((1067, 68), &[2; 300]))),
    (DropReason::DhcpNotForUs, "a1", |world| {
        from_a1(world, &dhcp(&[53, 1, 3, 54, 4, 10, 77, 0, 1, 50, 4, 10, 0, 0, 5], (1, 1)))
    }),
    (DropReason::DhcpIgnored, "a1", |world| from_a1(world, &dhcp(&[], (1, 1)))),
    (DropReason::DhcpForeignClient, "a1", |world| from_a1(world, &dhcp(&[53, 1, 1], (33, 0x77)))),
    (DropReason::DhcpRelayed, "a1", |world| from_a1(world, &dhcp(&[53, 1, 1], (24, 10)))),
    (DropReason::DhcpNoLease, "a4", |world| {
        let mut frame = dhcp(&[53, 1, 1], (33, 0xa4));
        frame[11] = 0xa4;
        world.a.send(&A4, &frame)
    }),
    (DropReason::AnswerNoRoom, "a1", |world| {
        let mut frame = dhcp(&[53, 1, 1], (1, 1));
        let end = frame.len();
        world.a.send_packet(&A1, Packet::within(&mut frame, 0, end, Offload::NONE))
    }),
    (DropReason::TrapRateLimited, "a1", |world| spent(|| from_a1(world, &who_has(&A1, A1.v4(), "10.0.0.1")))),
    (DropReason::DhcpRateLimited, "a1", |world| spent(|| from_a1(world, &dhcp(&[53, 1, 1], (1, 1))))),
    (DropReason::PeerRateLimited, "a1", |world| spent(|| from_b(world, &who_has(&B1, B1.v4(), A1.ips[0])))),
    (DropReason::GatewayUnserved, "a1", |world| from_a1(world, &to("10.0.0.1").tcp((1, 22), b""))),
    (DropReason::TtlExceeded, "a1", |world| {
        let mut frame = Head { ttl: 1, ..to(B2.ips[0]) }.echo(b"");
        frame[34] = 3;
        from_a1(world, &frame)
    }),
    (DropReason::TooBig, "a1", |world| {
        let mut frame = to(B1.ips[0]).echo(&[0; 1500]);
        frame[34] = 3;
        from_a1(world, &frame)
    }),
];

const DESTINATIONS: &[Case] = &[
    (DropReason::Multicast, "a1", |world| {
        let head = Head { to_mac: MacAddr([1, 0, 0x5e, 0, 0, 0xfb]), ..to("224.0.0.251") };
        from_a1(world, &head.udp((5353, 5353), b""))
    }),
    (DropReason::Broadcast, "a1", |world| {
        from_a1(world, &Head { to_mac: MacAddr::BROADCAST, ..to("10.0.0.255") }.udp((1, 2), b""))
    }),
    (DropReason::DestinationMacUnknown, "a1", |world| {
        from_a1(world, &Head { to_mac: MacAddr([3, 0, 0, 0, 0, 1]), ..to(B1.ips[0]) }.udp((1, 2), b""))
    }),
    (DropReason::DestinationInvalid, "a1", |world| from_a1(world, &to("127.0.0.1").udp((1, 2), b""))),
    (DropReason::NoRoute, "a1", |world| from_a1(world, &to("8.8.8.8").udp((1, 2), b""))),
    (DropReason::RouteDrop, "a1", |world| from_a1(world, &to("172.16.5.5").udp((1, 2), b""))),
    (DropReason::NoUplink, "a1", |world| from_a1(world, &to("192.168.5.5").udp((1, 2), b""))),
    (DropReason::PeerTransit, "a1", |world| from_a1(world, &to("10.4.0.4").udp((1, 2), b""))),
    (DropReason::DirectoryMiss, "a1", |world| from_a1(world, &to("10.0.0.200").udp((1, 2), b""))),
    (DropReason::DirectoryStale, "a1", |world| {
        world.a.know_ip(100, "10.0.0.61", MacAddr([2, 0, 0, 0, 0, 0x61]), HOST_A);
        from_a1(world, &to("10.0.0.61").udp((1, 2), b""))
    }),
    (DropReason::HairpinToSender, "a1", |world| from_a1(world, &to("10.0.0.5").udp((1, 2), b""))),
    (DropReason::Moved, "a1", send_of_an_earlier_port),
    (DropReason::UnderlayFamily, "a1", |world| {
        world.a.know_ip(100, "10.0.0.62", MacAddr([2, 0, 0, 0, 0, 0x62]), "2001:db8::1");
        from_a1(world, &to("10.0.0.62").udp((1, 2), b""))
    }),
    (DropReason::UnderlayEncapsulation, "a1", |world| {
        let mut frame = good();
        let end = frame.len();
        world.a.send_packet(&A1, Packet::within(&mut frame, 0, end, Offload::NONE))
    }),
];

const UNDERLAY: &[Case] = &[
    (DropReason::UnderlaySourceUnknown, "underlay", |world| world.a.receive("192.0.2.99", &[])),
    (DropReason::TunnelMalformed, "underlay", |world| world.a.receive(HOST_B, &[8, 0, 0, 0, 0, 0, 100])),
    (DropReason::TunnelNoVni, "underlay", |world| world.a.receive(HOST_B, &[0, 0, 0, 0, 0, 0, 100, 0])),
    (DropReason::TunnelCriticalOption, "underlay", |_| {
        let world = World::new(Encapsulation::Geneve);
        world.a.receive(HOST_B, &[1, 0x40, 0x65, 0x58, 0, 0, 100, 0, 1, 2, 0x85, 0])
    }),
    (DropReason::VniAbsent, "underlay", |world| world.a.receive(HOST_B, &[8, 0, 0, 0, 0, 0, 99, 0])),
    (DropReason::NotLocal, "underlay", |world| {
        from_b(world, &Head { to: "10.0.0.99".parse().unwrap(), ..ping_head(&B1, &A1, v4) }.udp((1, 2), b""))
    }),
    (DropReason::InnerSourceInvalid, "underlay", |world| {
        let nobody = Head { from: "127.0.0.1".parse().unwrap(), ..ping_head(&B1, &A1, v4) };
        from_b(world, &nobody.udp((1, 2), b""))
    }),
    (DropReason::InnerSourceForged, "underlay", |world| {
        from_b(world, &Head { from: v4(&A6), ..ping_head(&B1, &A1, v4) }.udp((1, 2), b""))
    }),
    (DropReason::TunnelEcn, "a1", |world| {
        let packet = [&[8, 0, 0, 0, 0, 0, 100, 0], &ping_head(&B1, &A1, v4).udp((1, 2), b"")[..]].concat();
        world.a.receive_with(HOST_B, &packet, 0b11, Offload::NONE)
    }),
];

const RULES: &[Case] = &[
    (DropReason::RuleDeniedOut, "a1", |world| {
        set_rules(world, 2, A1, &json!([{"direction": "out", "action": "deny"}]));
        from_a1(world, &good())
    }),
    (DropReason::RuleDeniedIn, "a1", |world| {
        set_rules(world, 2, A1, &json!([{"direction": "in", "action": "deny"}]));
        from_b(world, &ping_head(&B1, &A1, v4).udp((1, 2), b""))
    }),
    (DropReason::FragmentUnmatched, "a1", |world| {
        set_rules(world, 2, A1, &json!([{"direction": "in", "action": "allow"}]));
        let [_, later] = fragments(&ping_head(&B1, &A1, v4).udp((1, 2), &[0; 60]), 7);
        from_b(world, &later)
    }),
    (DropReason::ConnectionsFull, "a1", |world| {
        set_rules(world, 2, A1, &json!([{"direction": "in", "action": "allow"}]));
        let port = world.a.port("a1");
        let guard = port.guard.as_ref().unwrap();
        let ends = Ends { local: v4(&A1), remote: v4(&B1) };
        for number in 0..=u16::MAX {
            for protocol in [Protocol::TCP, Protocol::UDP] {
                let key = Key::flow(protocol, ends, (7, number));
                let (state, epoch) = (State::Established, guard.rules.epoch);
                let _ = guard.connections.admit(&key, Direction::In, state, epoch, world.a.now);
            }
        }
        from_b(world, &ping_head(&B1, &A1, v4).udp((1, 2), b""))
    }),
];

#[test]
fn each_reason_is_reached_and_none_is_forgotten() {
    let mut reached = Vec::new();
    for &(reason, owner, case) in [FRAMES, TRAPS, DESTINATIONS, UNDERLAY, RULES].concat().iter() {
        let outcome = case(&mut World::vxlan());
        assert_eq!(outcome.verdict, dataplane::pipeline::Verdict::Drop(reason), "{}", reason.name());
        assert_eq!(outcome.counted.as_deref(), Some(owner), "{}", reason.name());
        reached.push(reason);
    }
    let missing: Vec<_> = DropReason::ALL
        .iter()
        .filter(|reason| !reached.contains(reason) && !ELSEWHERE.contains(reason) && !GUARDS.contains(reason))
        .map(|reason| reason.name())
        .collect();
    assert!(missing.is_empty(), "no test reaches {missing:?}");
}

#[test]
fn arriving_frames_are_judged_by_the_same_names() {
    let world = World::vxlan();
    let inner = |change: fn(&mut Vec<u8>)| {
        let mut frame = ping_head(&B1, &A1, v4).udp((1, 2), b"payload");
        change(&mut frame);
        from_b(&world, &frame)
    };
    inner(|frame| frame.truncate(9)).is_drop(DropReason::EthernetTruncated, "underlay");
    inner(|frame| drop(frame.splice(12..12, [0x88, 0xa8, 0, 5]))).is_drop(DropReason::VlanTagged, "underlay");
    inner(|frame| frame[24] ^= 1).is_drop(DropReason::Ipv4Checksum, "underlay");
    inner(|frame| *frame = with_options(frame, &[137, 3, 4, 0]))
        .is_drop(DropReason::Ipv4SourceRoute, "underlay");
    inner(|frame| frame[0] = 3).is_drop(DropReason::DestinationMacUnknown, "underlay");
    inner(|frame| frame[..6].fill(0xff)).is_drop(DropReason::Broadcast, "underlay");
    inner(|frame| frame[12] = 0x99).is_drop(DropReason::EthertypeUnsupported, "underlay");
    let group = Head { to: "224.0.0.1".parse().unwrap(), ..ping_head(&B1, &A1, v4) };
    from_b(&world, &group.udp((1, 2), b"")).is_drop(DropReason::Multicast, "underlay");
    let unasked = arp((B1.mac, MacAddr::BROADCAST), ArpOperation::REPLY, (B1.mac, B1.v4()), A1.v4());
    from_b(&world, &unasked).is_drop(DropReason::ArpUnasked, "underlay");
    let foreign = arp(
        (B1.mac, MacAddr::BROADCAST),
        ArpOperation::REQUEST,
        (B1.mac, B1.v4()),
        Ipv4Addr::new(10, 0, 0, 1),
    );
    from_b(&world, &foreign).is_drop(DropReason::ArpUnknownTarget, "underlay");
    from_b(&world, &solicit(&B1, B1.v6(), "fd00:0:0:a::1")).is_drop(DropReason::NdUnknownTarget, "underlay");
}

#[test]
fn a_forged_mac_is_named_before_what_else_is_wrong() {
    let world = World::vxlan();
    let mut frame = good();
    frame[11] ^= 1;
    frame[24] ^= 1;
    from_a1(&world, &frame).is_drop(DropReason::SourceMacSpoofed, "a1");
    frame[12..14].copy_from_slice(&[0x81, 0]);
    from_a1(&world, &frame).is_drop(DropReason::VlanTagged, "a1");
}

#[test]
fn every_guest_may_speak_to_its_groups_and_nobody_hears() {
    // What a booting Linux guest says by itself is no forgery: it must not hide real ones.
    let world = World::vxlan();
    for from in [Ipv6Addr::UNSPECIFIED, A1.mac.link_local()] {
        let head = Head {
            from: from.into(),
            to: "ff02::16".parse().unwrap(),
            to_mac: MacAddr([0x33, 0x33, 0, 0, 0, 0x16]),
            ttl: 1,
            ..ping_head(&A1, &B1, v6)
        };
        from_a1(&world, &head.icmpv6(143, [0; 4], &[0; 20])).is_drop(DropReason::Multicast, "a1");
    }
    let igmp = Head { from: IpAddr::from([0; 4]), ..to("224.0.0.22") };
    from_a1(&world, &igmp.udp((1, 2), b"")).is_drop(DropReason::Multicast, "a1");
    let forged = Head { from: v4(&A6), ..to("224.0.0.22") };
    from_a1(&world, &forged.udp((1, 2), b"")).is_drop(DropReason::SourceIpSpoofed, "a1");
    let link_local = Head { from: A1.mac.link_local().into(), ..ping_head(&A1, &B1, v6) };
    from_a1(&world, &link_local.udp((1, 2), b"")).is_drop(DropReason::SourceIpSpoofed, "a1");
}

#[test]
fn a_guests_own_tunnel_packets_reach_no_host() {
    let world = World::vxlan();
    let forged = [&[8, 0, 0, 0, 0, 1, 144, 0], &ping_head(&A5, &B5, v4).udp((1, 2), b"")[..]].concat();
    from_a1(&world, &to(HOST_B).udp((4789, 4789), &forged)).is_drop(DropReason::NoRoute, "a1");
    // To a neighbour it is payload like any other.
    let (_, arrived) = world.pass(&A1, &ping_head(&A1, &B1, v4).udp((4789, 4789), &forged));
    world.is_delivered(&arrived, &B1);
    assert_eq!(arrived.frame[42..], forged);
}

#[test]
fn other_options_and_later_fragments_pass() {
    let world = World::vxlan();
    let record_route = with_options(&good(), &[7, 7, 4, 0, 0, 0, 0, 0]);
    world.a.send(&A1, &record_route).tunnel();
    let mut later = good();
    later[14 + 7] = 100;
    patch_v4(&mut later, 6, 0x20);
    mend_v4(&mut later);
    world.a.send(&A1, &later).tunnel();
    let mut marked = good();
    set_tos(&mut marked, 0xb8);
    assert_eq!(world.a.send(&A1, &marked).tunnel().traffic_class, 0xb8);
}
