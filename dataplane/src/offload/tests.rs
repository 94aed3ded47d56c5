//! Properties of cutting and joining together: etherparse is the judge of what was cut, and cutting undoes joining.

use std::io::IoSlice;
use std::ops::Range;

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use proptest::prelude::*;

use super::coalesce::{Arrived, Coalescer, MAX_JOINED};
use super::segment::{Cut, MAX_HEADERS, SegmentError};
use crate::packet::{Checksum, Offload, SegmentKind, Segmentation};
use crate::types::PortId;

/// A super-packet as a guest's kernel would hand it over.
#[derive(Debug, Clone)]
struct Super {
    tunnel_bytes: usize,
    v6: bool,
    tcp: bool,
    options: Vec<u8>,
    flags: u8,
    id: u16,
    sequence: u32,
    source_port: u16,
    payload: Vec<u8>,
    segment_bytes: u16,
}

impl Super {
    fn kind(&self) -> SegmentKind {
        match (self.tcp, self.v6) {
            (false, _) => SegmentKind::Udp,
            (true, false) => SegmentKind::TcpV4,
            (true, true) => SegmentKind::TcpV6,
        }
    }

    fn transport(&self) -> usize {
        if self.v6 { 54 } else { 34 }
    }

    fn header_bytes(&self) -> usize {
        self.transport() + if self.tcp { 20 + self.options.len() } else { 8 }
    }

    fn asked(&self) -> Segmentation {
        Segmentation {
            kind: self.kind(),
            segment_bytes: self.segment_bytes,
            header_bytes: u16::try_from(self.header_bytes()).unwrap(),
        }
    }

    /// Tunnel header and frame.
    fn packet(&self) -> Vec<u8> {
        let mut packet = vec![0xee; self.tunnel_bytes];
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut v6 = [0xfd; 16];
        v6[15] = 2;
        let ip = if self.v6 {
            ethernet.ipv6([0xfd; 16], v6, 64)
        } else {
            let mut header =
                etherparse::Ipv4Header::new(0, 64, Default::default(), [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
            header.identification = self.id;
            header.dont_fragment = false;
            ethernet.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        };
        if self.tcp {
            let step = ip.tcp(self.source_port, 443, self.sequence, 1234).options_raw(&self.options).unwrap();
            step.ack(77).write(&mut packet, &self.payload).unwrap();
            packet[self.tunnel_bytes + self.transport() + 13] = self.flags;
        } else {
            ip.udp(self.source_port, 443).write(&mut packet, &self.payload).unwrap();
        }
        packet
    }
}

fn supers(tunnel: Range<usize>, most: usize) -> impl Strategy<Value = Super> {
    let shape = (tunnel, any::<bool>(), any::<bool>(), 0_usize..=10);
    let numbers = (any::<u8>(), any::<u16>(), any::<u32>(), 1_u16..);
    (shape, numbers, proptest::collection::vec(any::<u8>(), 1..most), 100_u16..1500).prop_map(
        |((tunnel_bytes, v6, tcp, options), (flags, id, sequence, source_port), payload, segment_bytes)| {
            Super {
                tunnel_bytes,
                v6,
                tcp,
                // No-operation options; a multiple of four bytes.
                options: vec![1; options * 4],
                flags: 0x10 | (flags & 0xc9),
                id,
                sequence,
                source_port,
                payload,
                segment_bytes,
            }
        },
    )
}

/// All segments, each in one piece.
fn cut(packet: &[u8], tunnel_bytes: usize, asked: Segmentation) -> Vec<Vec<u8>> {
    let plan = Cut::plan(packet, tunnel_bytes, asked).unwrap();
    let mut headers = [0; MAX_HEADERS];
    (0..plan.count())
        .map(|index| {
            let payload = plan.write(packet, index, &mut headers).unwrap();
            let segment = [&headers[..plan.header_bytes()], &packet[payload]].concat();
            assert_eq!(segment.len(), plan.segment_len(index));
            segment
        })
        .collect()
}

/// Joins, then cuts again what was joined.
fn join_and_cut(frames: &[(PortId, Vec<u8>)]) -> (usize, Vec<(PortId, Vec<u8>)>) {
    let mut coalescer = Coalescer::new();
    let batch: Vec<_> = frames
        .iter()
        .map(|(port, frame)| Arrived { port: *port, udp_trains: true, frame, offload: Offload::NONE })
        .collect();
    let (mut deliveries, mut out, mut stood_for) = (0, Vec::new(), 0);
    for joined in coalescer.join(&batch) {
        deliveries += 1;
        stood_for += joined.frames;
        let frame: Vec<u8> = joined.pieces.iter().flat_map(|piece: &IoSlice<'_>| piece.to_vec()).collect();
        match joined.offload.segmentation {
            Some(asked) => out.extend(cut(&frame, 0, asked).into_iter().map(|frame| (joined.port, frame))),
            None => out.push((joined.port, frame)),
        }
    }
    assert_eq!(stood_for, frames.len());
    (deliveries, out)
}

proptest! {
    #[test]
    fn etherparse_accepts_every_segment(wanted in supers(0..70, 20_000)) {
        let packet = wanted.packet();
        let segments = cut(&packet, wanted.tunnel_bytes, wanted.asked());
        let last = segments.len() - 1;
        let mut payload = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let (tunnel, frame) = segment.split_at(wanted.tunnel_bytes);
            prop_assert_eq!(tunnel, &packet[..wanted.tunnel_bytes]);
            let parsed = PacketHeaders::from_ethernet_slice(frame).unwrap();
            let behind = parsed.payload.slice();
            match parsed.net.as_ref().unwrap() {
                NetHeaders::Ipv4(ip, _) => {
                    prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    prop_assert_eq!(usize::from(ip.total_len) + 14, frame.len());
                    prop_assert_eq!(ip.identification, wanted.id.wrapping_add(index as u16));
                }
                NetHeaders::Ipv6(ip, _) => prop_assert_eq!(usize::from(ip.payload_length) + 54, frame.len()),
                NetHeaders::Arp(_) => prop_assert!(false, "not ARP"),
            }
            match (parsed.transport.as_ref().unwrap(), parsed.net.as_ref().unwrap()) {
                (TransportHeader::Tcp(tcp), net) => {
                    let expected = match net {
                        NetHeaders::Ipv4(ip, _) => tcp.calc_checksum_ipv4(ip, behind).unwrap(),
                        NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(ip, behind).unwrap(),
                        NetHeaders::Arp(_) => unreachable!(),
                    };
                    prop_assert_eq!(tcp.checksum, expected);
                    prop_assert_eq!(tcp.sequence_number, wanted.sequence.wrapping_add(payload.len() as u32));
                    let keep = if index == last { 0x7f } else { 0x76 } | if index == 0 { 0x80 } else { 0 };
                    prop_assert_eq!(frame[wanted.transport() + 13], wanted.flags & keep);
                }
                (TransportHeader::Udp(udp), net) => {
                    let expected = match net {
                        NetHeaders::Ipv4(ip, _) => udp.calc_checksum_ipv4(ip, behind).unwrap(),
                        NetHeaders::Ipv6(ip, _) => udp.calc_checksum_ipv6(ip, behind).unwrap(),
                        NetHeaders::Arp(_) => unreachable!(),
                    };
                    prop_assert_eq!(udp.checksum, expected);
                    prop_assert_eq!(usize::from(udp.length), 8 + behind.len());
                }
                _ => prop_assert!(false, "TCP or UDP"),
            }
            prop_assert!(index == last || behind.len() == usize::from(wanted.segment_bytes));
            payload.extend_from_slice(behind);
        }
        prop_assert_eq!(payload, wanted.payload);
    }

    #[test]
    fn cutting_undoes_joining(first in supers(0..1, 6000), second in supers(0..1, 6000), order in any::<u64>()) {
        let second = Super { source_port: first.source_port ^ 1, ..second };
        let (a, b) = (first.packet(), second.packet());
        let mut flows = [cut(&a, 0, first.asked()), cut(&b, 0, second.asked())].map(Vec::into_iter);
        let mut frames = Vec::new();
        for turn in 0.. {
            let flow = (order >> (turn % 64)) as usize & 1;
            let mut take = |flow: usize| Some((flow, flows[flow].next()?));
            let Some((flow, frame)) = take(flow).or_else(|| take(1 - flow)) else { break };
            // Both flows to one port or each to its own: neither may change the outcome.
            frames.push((PortId(1 + (order >> 63) as u32 * flow as u32), frame));
        }
        let (_, out) = join_and_cut(&frames);
        let port_of = |frame: &[u8], wanted: &Super| {
            let at = wanted.transport();
            frame.len() > at + 2 && frame[12..14] == if wanted.v6 { [0x86, 0xdd] } else { [8, 0] }
                && frame[at..at + 2] == wanted.source_port.to_be_bytes()
        };
        for wanted in [&first, &second] {
            let before = frames.iter().filter(|(_, frame)| port_of(frame, wanted));
            let after = out.iter().filter(|(_, frame)| port_of(frame, wanted));
            let (before, after): (Vec<_>, Vec<_>) = (before.collect(), after.collect());
            prop_assert_eq!(before, after);
        }
        prop_assert_eq!(out.len(), frames.len());
    }

    #[test]
    fn one_super_packet_comes_back_whole(wanted in supers(0..1, 30_000)) {
        let wanted = Super { flags: 0x10 | (wanted.flags & 0x49), ..wanted };
        let frames: Vec<_> = cut(&wanted.packet(), 0, wanted.asked()).into_iter().map(|f| (PortId(0), f)).collect();
        let (deliveries, out) = join_and_cut(&frames);
        prop_assert_eq!(deliveries, frames.len().div_ceil(MAX_JOINED));
        prop_assert_eq!(out, frames);
    }

    #[test]
    fn no_bytes_make_it_panic(
        wanted in supers(0..9, 3000), changes in proptest::collection::vec((0_usize..120, any::<u8>()), 0..6),
        cut_to in any::<proptest::sample::Index>(), claimed in any::<u16>(), segment_bytes in any::<u16>(),
        kind in 0..4
    ) {
        let mut packet = wanted.packet();
        for (at, value) in changes {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        packet.truncate(packet.len().min(40 + cut_to.index(packet.len())));
        let kind = [SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp, wanted.kind()][kind as usize];
        let claims = [Segmentation { kind, segment_bytes, header_bytes: claimed }, Segmentation { kind, ..wanted.asked() }];
        for asked in claims.map(|asked| Segmentation { segment_bytes: asked.segment_bytes.max(1), ..asked }) {
            if let Ok(plan) = Cut::plan(&packet, wanted.tunnel_bytes, asked) {
                let mut headers = [0; MAX_HEADERS];
                for index in 0..=plan.count() {
                    let payload = plan.write(&packet, index, &mut headers);
                    prop_assert_eq!(payload.is_some(), index < plan.count());
                }
            }
        }
        let zero = Segmentation { segment_bytes: 0, ..wanted.asked() };
        prop_assert!(Cut::plan(&packet, wanted.tunnel_bytes, zero).is_err());
        let frame = packet.split_off(wanted.tunnel_bytes.min(packet.len()));
        let frames = vec![(PortId(0), frame.clone()), (PortId(0), frame)];
        prop_assert_eq!(join_and_cut(&frames).1.len(), 2);
    }
}

fn tcp() -> Super {
    Super {
        tunnel_bytes: 8,
        v6: false,
        tcp: true,
        options: vec![1; 12],
        flags: 0x10,
        id: 5,
        sequence: 1000,
        source_port: 1,
        payload: vec![3; 3000],
        segment_bytes: 1000,
    }
}

#[test]
fn each_lie_about_a_super_packet_has_its_error() {
    let wanted = tcp();
    let packet = wanted.packet();
    let asked = wanted.asked();
    let plan = |asked| Cut::plan(&packet, 8, asked).unwrap_err();
    assert_eq!(
        plan(Segmentation { header_bytes: 54, ..asked }),
        SegmentError::HeaderBytes { claimed: 54, found: 66 }
    );
    assert_eq!(plan(Segmentation { kind: SegmentKind::TcpV6, ..asked }), SegmentError::Protocol);
    assert_eq!(plan(Segmentation { kind: SegmentKind::Udp, ..asked }), SegmentError::Protocol);
    let count = |segment_bytes| SegmentError::Count { payload_bytes: 3000, segment_bytes };
    assert_eq!(plan(Segmentation { segment_bytes: 2, ..asked }), count(2));
    assert_eq!(plan(Segmentation { segment_bytes: 0, ..asked }), count(0));
    assert_eq!(Cut::plan(&packet, 9, asked), Err(SegmentError::Malformed));
    assert_eq!(Cut::plan(&packet, 9000, asked), Err(SegmentError::Malformed));
    assert_eq!(Cut::plan(&packet[..packet.len() - 1], 8, asked), Err(SegmentError::Malformed));
    let mut long = vec![0; 400];
    long.extend_from_slice(&packet[8..]);
    assert_eq!(Cut::plan(&long, 400, asked), Err(SegmentError::HeadersTooLong(466)));
    let mut syn = packet.clone();
    syn[8 + 34 + 13] |= 2;
    assert_eq!(Cut::plan(&syn, 8, asked), Err(SegmentError::TcpFlags(0x12)));
    let mut fragment = packet.clone();
    fragment[8 + 20] |= 0x20;
    assert_eq!(Cut::plan(&fragment, 8, asked), Err(SegmentError::Malformed));
}

#[test]
fn a_single_segment_is_the_packet_itself() {
    let wanted = Super { payload: vec![9; 700], flags: 0x99, ..tcp() };
    let mut expected = wanted.packet();
    // etherparse computed the checksum before the test set its flags.
    let sum = crate::wire::checksum::update(u16::from_be_bytes([expected[58], expected[59]]), 0x8010, 0x8099);
    expected[58..60].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(cut(&wanted.packet(), 8, wanted.asked()), [expected]);
}

/// Segments of [`tcp`], changed by `change`, and how many deliveries they then take.
fn deliveries(change: impl Fn(usize, &mut Vec<u8>)) -> usize {
    let mut frames: Vec<_> =
        cut(&tcp().packet(), 8, tcp().asked()).into_iter().map(|mut f| f.split_off(8)).collect();
    for (index, frame) in frames.iter_mut().enumerate() {
        change(index, frame);
    }
    let frames: Vec<_> = frames.into_iter().map(|frame| (PortId(0), frame)).collect();
    let (deliveries, out) = join_and_cut(&frames);
    assert_eq!(out, frames, "in order and unchanged");
    deliveries
}

/// Changes a byte of segment 1 and repairs the checksums.
fn altered(at: usize, value: u8) -> usize {
    deliveries(|index, frame| {
        if index == 1 {
            let aligned = at & !1;
            let old = u16::from_be_bytes([frame[aligned], frame[aligned + 1]]);
            frame[at] = value;
            let new = u16::from_be_bytes([frame[aligned], frame[aligned + 1]]);
            for field in [24, 50] {
                // Bytes 14 to 26 are summed by IP alone, the addresses by both, the rest by TCP alone.
                let counts = if field == 24 { (14..34).contains(&at) } else { at >= 26 };
                if counts {
                    let sum = u16::from_be_bytes([frame[field], frame[field + 1]]);
                    let sum = crate::wire::checksum::update(sum, old, new);
                    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
                }
            }
        }
    })
}

#[test]
fn only_what_cutting_gives_back_is_joined() {
    assert_eq!(deliveries(|_, _| {}), 1);
    assert_eq!(
        deliveries(|index, frame| frame[100] ^= u8::from(index == 1)),
        3,
        "a wrong checksum travels alone"
    );
    assert_eq!(altered(0, 4), 3, "Ethernet destination");
    assert_eq!(altered(15, 0xb8), 3, "class");
    assert_eq!(altered(19, 99), 3, "identification");
    assert_eq!(altered(22, 63), 3, "time to live");
    assert_eq!(altered(29, 9), 3, "source address");
    assert_eq!(altered(37, 9), 3, "destination port");
    assert_eq!(altered(41, 1), 3, "sequence");
    assert_eq!(altered(45, 99), 3, "acknowledgement");
    assert_eq!(altered(47, 0x30), 3, "URG");
    assert_eq!(altered(47, 0x90), 3, "CWR");
    assert_eq!(altered(47, 0x50), 3, "ECE");
    assert_eq!(altered(47, 0x18), 2, "PSH ends a train");
    assert_eq!(altered(49, 7), 3, "window");
    assert_eq!(altered(60, 0), 3, "options");
}

#[test]
fn partial_checksums_are_understood_and_stay_partial() {
    let mut frames: Vec<_> =
        cut(&tcp().packet(), 8, tcp().asked()).into_iter().map(|mut f| f.split_off(8)).collect();
    // What a kernel's VXLAN over veth leaves: the pseudo-header's sum, 10.0.0.1 to .2, TCP, 1032 bytes.
    let pseudo = (0x0a00_u16 + 1 + 0x0a00 + 2 + 6 + 1032).to_be_bytes();
    for frame in &mut frames {
        frame[50..52].copy_from_slice(&pseudo);
    }
    let arrived = |frame| Arrived { port: PortId(0), udp_trains: true, frame, offload: Offload::NONE };
    let partial = Checksum::Partial { start: 34, offset: 16 };
    let mut coalescer = Coalescer::new();
    let lone = [arrived(&frames[0])];
    let only = coalescer.join(&lone).next().unwrap().offload;
    assert_eq!(only, Offload { checksum: partial, segmentation: None });
    let batch: Vec<_> = frames.iter().map(|frame| arrived(frame)).collect();
    let all: Vec<_> = coalescer.join(&batch).collect();
    assert_eq!((all.len(), all[0].frames, all[0].offload.checksum), (1, 3, partial));
    assert_eq!(all[0].offload.segmentation, Some(tcp().asked()));
}

#[test]
fn udp_is_joined_only_for_devices_that_take_it() {
    let wanted = Super { tcp: false, ..tcp() };
    let frames: Vec<_> =
        cut(&wanted.packet(), 8, wanted.asked()).into_iter().map(|mut f| f.split_off(8)).collect();
    let joined = |udp_trains| {
        let arrived = |frame| Arrived { port: PortId(0), udp_trains, frame, offload: Offload::NONE };
        let batch: Vec<_> = frames.iter().map(|frame| arrived(frame)).collect();
        Coalescer::new().join(&batch).map(|joined| joined.offload.checksum).collect::<Vec<_>>()
    };
    assert_eq!(joined(true), [Checksum::Partial { start: 34, offset: 6 }]);
    assert_eq!(joined(false), [Checksum::Verified; 3]);
}

#[test]
fn a_shorter_datagram_ends_its_train() {
    // Three datagrams of 1000 bytes, then three of 500 that could follow by all but their size.
    let of_size = |bytes: u16, id| Super {
        tcp: false,
        payload: vec![7; 3 * usize::from(bytes)],
        segment_bytes: bytes,
        id,
        ..tcp()
    };
    let frames: Vec<_> = [of_size(1000, 5), of_size(500, 8)]
        .iter()
        .flat_map(|wanted| cut(&wanted.packet(), 8, wanted.asked()))
        .map(|mut frame| (PortId(0), frame.split_off(8)))
        .collect();
    let (deliveries, out) = join_and_cut(&frames);
    assert_eq!(deliveries, 2);
    assert_eq!(out, frames);
}

#[test]
fn frames_of_different_ports_are_never_joined() {
    // More ports than slots, so some of them share one.
    let wanted = Super { tunnel_bytes: 0, ..tcp() };
    let segments = cut(&wanted.packet(), 0, wanted.asked());
    let frames: Vec<_> = (0..200)
        .flat_map(|pair| [(PortId(pair), segments[0].clone()), (PortId(pair + 1000), segments[1].clone())])
        .collect();
    let (deliveries, out) = join_and_cut(&frames);
    assert_eq!(deliveries, frames.len());
    assert_eq!(out, frames);
}
