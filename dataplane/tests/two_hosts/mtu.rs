//! Path MTU and super-packets: what fits, what is told to the sender, what offload requests are believed.

use std::net::IpAddr;

use dataplane::packet::{Checksum, Offload, SegmentKind, Segmentation};
use dataplane::pipeline::{DropReason, Trap, Verdict};
use dataplane::types::MacAddr;

use super::frames::{Head, Seen, partial, patch_v4, ping_head, super_packet, v4, v6};
use super::world::*;

/// Networks without an MTU of their own have 1500 here: the underlay's 1600 less 50.
const MTU: usize = 1500;

#[test]
fn the_largest_packet_passes_and_one_byte_more_is_answered() {
    let world = World::vxlan();
    for (family, headers, gateway) in
        [(v4 as fn(&Guest) -> IpAddr, 28, "10.0.0.1"), (v6, 48, "fd00:0:0:a::1")]
    {
        let udp = |bytes: usize| ping_head(&A1, &B1, family).udp((1, 2), &vec![1; bytes - headers]);
        world.a.send(&A1, &udp(MTU)).tunnel();
        let frame = udp(MTU + 1);
        let outcome = world.a.send(&A1, &frame);
        outcome.is_reply(Trap::TooBig);
        let seen = Seen::of(&outcome.frame);
        assert_eq!(seen.macs(), (MacAddr::ROUTER, A1.mac));
        assert_eq!(seen.ips(), (gateway.parse().unwrap(), family(&A1)));
        let (at, message): (usize, [u8; 8]) = if headers == 28 {
            // Type 3, code 4, and the MTU in the last two bytes (RFC 1191 section 4).
            (34, [3, 4, 0, 0, 0, 0, 0x05, 0xdc])
        } else {
            (54, [2, 0, 0, 0, 0, 0, 0x05, 0xdc])
        };
        assert_eq!(outcome.frame[at..at + 2], message[..2]);
        assert_eq!(outcome.frame[at + 4..at + 8], message[4..]);
        let quoted = &outcome.frame[at + 8..];
        assert_eq!(quoted, &frame[14..14 + quoted.len()], "the packet as it was sent");
        assert_eq!(outcome.frame.len() - 14, if headers == 28 { 576 } else { 1280 });
    }
}

#[test]
fn ipv4_senders_are_told_even_if_they_allow_fragments() {
    let world = World::vxlan();
    let mut frame = ping_head(&A1, &B1, v4).udp((1, 2), &[0; MTU]);
    patch_v4(&mut frame, 6, 0);
    world.a.send(&A1, &frame).is_reply(Trap::TooBig);
}

#[test]
fn a_smaller_network_counts_for_whoever_sends_into_it() {
    let world = World::vxlan();
    let to = |target, bytes: usize| Head::of(&A1, MacAddr::ROUTER, target).udp((1, 2), &vec![1; bytes - 28]);
    for target in [B3.ips[0], A3.ips[0]] {
        let outcome = world.a.send(&A1, &to(target, 1401));
        outcome.is_reply(Trap::TooBig);
        assert_eq!(outcome.frame[40..42], 1400_u16.to_be_bytes(), "{target}");
    }
    world.a.send(&A1, &to(B3.ips[0], 1400)).tunnel();
    assert_eq!(world.a.send(&A1, &to(A3.ips[0], 1400)).verdict, Verdict::Deliver(world.a.port("a3").id));
}

#[test]
fn a_super_packet_passes_whole_if_its_segments_fit() {
    let world = World::vxlan();
    for (family, kind, headers) in [
        (v4 as fn(&Guest) -> IpAddr, SegmentKind::TcpV4, 40),
        (v6, SegmentKind::TcpV6, 60),
        (v4, SegmentKind::Udp, 28),
        (v6, SegmentKind::Udp, 48),
    ] {
        let frame = match kind {
            SegmentKind::Udp => ping_head(&A1, &B1, family).udp((1, 2), &[5; 40_000]),
            _ => ping_head(&A1, &B1, family).tcp((1, 2), &[5; 40_000]),
        };
        let segment = u16::try_from(MTU - headers).unwrap();
        let (frame, offload) = super_packet(frame, kind, segment);
        let sent = world.a.send_with(&A1, &frame, offload);
        sent.tunnel();
        let normal =
            Segmentation { kind, segment_bytes: segment, header_bytes: u16::try_from(14 + headers).unwrap() };
        assert_eq!(sent.offload, Offload { segmentation: Some(normal), ..offload }, "the true header length");
        assert_eq!(sent.frame[8..], frame);

        let (frame, offload) = super_packet(frame, kind, segment + 1);
        world.a.send_with(&A1, &frame, offload).is_reply(Trap::TooBig);
    }
}

#[test]
fn a_super_packet_between_local_ports_keeps_its_request() {
    let world = World::vxlan();
    let (frame, offload) =
        super_packet(ping_head(&A1, &A6, v4).tcp((1, 2), &[5; 10_000]), SegmentKind::TcpV4, 1448);
    let outcome = world.a.send_with(&A1, &frame, offload);
    assert_eq!(outcome.verdict, Verdict::Deliver(world.a.port("a6").id));
    assert_eq!(outcome.offload.checksum, offload.checksum);
    assert_eq!(outcome.offload.segmentation.map(|it| (it.segment_bytes, it.header_bytes)), Some((1448, 54)));
}

#[test]
fn a_super_packet_of_one_segment_is_none() {
    let world = World::vxlan();
    let (frame, offload) =
        super_packet(ping_head(&A1, &B1, v4).tcp((1, 2), &[5; 1000]), SegmentKind::TcpV4, 1000);
    let sent = world.a.send_with(&A1, &frame, offload);
    sent.tunnel();
    assert_eq!(sent.offload, Offload { segmentation: None, ..offload });
}

#[test]
fn requests_that_contradict_the_headers_are_refused() {
    let world = World::vxlan();
    let tcp = ping_head(&A1, &B1, v4).tcp((1, 2), &[5; 4000]);
    let udp = ping_head(&A1, &B1, v4).udp((1, 2), &[5; 4000]);
    let (_, good) = super_packet(tcp.clone(), SegmentKind::TcpV4, 1000);
    let part = |start, offset| Offload { checksum: Checksum::Partial { start, offset }, segmentation: None };
    let with = |change: fn(&mut Segmentation)| {
        let mut offload = good;
        change(offload.segmentation.as_mut().unwrap());
        offload
    };
    let cases: Vec<(&str, &[u8], Offload)> = vec![
        ("another field of TCP", &tcp, part(34, 6)),
        ("another field of UDP", &udp, part(34, 16)),
        ("inside the IP header", &tcp, part(20, 16)),
        ("inside the TCP header", &tcp, part(40, 16)),
        ("behind the end", &tcp, part(u16::try_from(tcp.len()).unwrap(), 0)),
        ("half behind the end", &tcp, part(u16::try_from(tcp.len()).unwrap() - 1, 0)),
        ("far out", &tcp, part(u16::MAX, u16::MAX)),
        ("the other family", &tcp, with(|it| it.kind = SegmentKind::TcpV6)),
        ("another protocol", &tcp, with(|it| it.kind = SegmentKind::Udp)),
        ("segments of nothing", &tcp, with(|it| it.segment_bytes = 0)),
        ("segments that cost more than they carry", &tcp, with(|it| it.segment_bytes = 7)),
        ("with a complete checksum", &tcp, Offload { checksum: Checksum::Complete, ..good }),
        (
            "too many datagrams",
            &udp,
            Offload {
                checksum: Checksum::Partial { start: 34, offset: 6 },
                segmentation: Some(Segmentation {
                    kind: SegmentKind::Udp,
                    segment_bytes: 31,
                    header_bytes: 0,
                }),
            },
        ),
    ];
    for (what, frame, offload) in cases {
        let outcome = world.a.send_with(&A1, frame, offload);
        assert_eq!(outcome.verdict, Verdict::Drop(DropReason::OffloadInvalid), "{what}");
    }
    let mut fragment = tcp.clone();
    patch_v4(&mut fragment, 6, 0x20);
    world.a.send_with(&A1, &fragment, part(34, 16)).is_drop(DropReason::OffloadInvalid, "a1");
    // A guest's own tunnel: the checksum of what is inside is undone.
    world.a.send_with(&A1, &ping_head(&A1, &B1, v4).udp((1, 4789), &[0; 100]), part(92, 16)).tunnel();
}

#[test]
fn a_kernel_peers_undone_checksum_is_recognised() {
    let world = World::vxlan();
    for family in [v4, v6] {
        let udp = ping_head(&B1, &A1, family).udp((1, 2), b"odd");
        let tcp = ping_head(&B1, &A1, family).tcp((1, 2), b"payload");
        for (frame, offset) in [(udp, 6), (tcp, 16)] {
            let complete = world.a.receive(HOST_B, &tunnelled(&frame));
            assert_eq!(complete.offload, Offload::NONE);
            let mut undone = frame.clone();
            let start = partial(&mut undone, offset);
            // Padding must not be summed into the checksum later.
            let padded = [&undone[..], &[0xaa; 7]].concat();
            let arrived = world.a.receive(HOST_B, &tunnelled(&padded));
            assert_eq!(arrived.offload.checksum, Checksum::Partial { start, offset });
            assert_eq!(arrived.frame, undone);
        }
    }
    let mut none = ping_head(&B1, &A1, v4).udp((1, 2), b"x");
    none[40..42].copy_from_slice(&[0, 0]);
    assert_eq!(world.a.receive(HOST_B, &tunnelled(&none)).offload, Offload::NONE, "no checksum is complete");
}

fn tunnelled(frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0, 0, 0, 100, 0], frame].concat()
}
