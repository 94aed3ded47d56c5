//! Frames that are nearly right: the fuzzer's bytes choose a protocol, addresses and sizes, and then what is wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::packet::{Checksum, Offload, SegmentKind, Segmentation};
use dataplane::tables::Port;
use dataplane::types::MacAddr;
use dataplane::wire::Protocol;
use dataplane::wire::ethernet::{EtherType, Ethernet};
use dataplane::wire::flow::{Headers, Network, Transport};
use dataplane::wire::icmpv6;
use dataplane::wire::ipv4::Ipv4;
use dataplane::wire::ipv6::Ipv6;
use dataplane::wire::nd::solicited_node;

use crate::dice::Dice;
use crate::sum;

const V4: [[u8; 4]; 30] = [
    [10, 0, 0, 15],
    [10, 0, 1, 16],
    [10, 2, 0, 17],
    [10, 0, 0, 9],
    [10, 0, 1, 6],
    [10, 2, 0, 7],
    [10, 0, 0, 5],
    [10, 0, 0, 1],
    [10, 0, 1, 1],
    [10, 2, 0, 1],
    [10, 0, 0, 2],
    [10, 9, 1, 2],
    [10, 10, 1, 2],
    [10, 4, 0, 1],
    [10, 3, 0, 1],
    [10, 0, 0, 77],
    [10, 0, 0, 78],
    [10, 0, 0, 79],
    [10, 0, 0, 80],
    [10, 0, 0, 200],
    [172, 16, 0, 1],
    [192, 168, 1, 1],
    [8, 8, 8, 8],
    [169, 254, 169, 254],
    [168, 63, 129, 16],
    [255, 255, 255, 255],
    [224, 0, 0, 1],
    [0, 0, 0, 0],
    [127, 0, 0, 1],
    [169, 254, 1, 1],
];

const fn v6(subnet: u16, station: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, subnet, 0, 0, 0, station)
}

const V6: [Ipv6Addr; 15] = [
    v6(0xa, 0x15),
    v6(0xb, 0x16),
    v6(0xa, 9),
    v6(0xb, 6),
    v6(0xa, 8),
    v6(0xa, 5),
    v6(0xa, 1),
    v6(0xb, 1),
    v6(0xa, 2),
    v6(0xc, 1),
    MacAddr::ROUTER.link_local(),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 5),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::LOCALHOST,
    Ipv6Addr::UNSPECIFIED,
];

const SIZES: [usize; 8] = [8, 0, 1, 64, 1360, 1500, 4000, 60_000];

/// A frame of the sender's, or nearly, and what it says was left undone.
pub(crate) fn frame(dice: &mut Dice<'_>, sender: &Port) -> (Vec<u8>, Offload) {
    let mut frame = plain(dice, sender);
    let offload = offload(dice, &mut frame);
    spoil(dice, &mut frame);
    (frame, offload)
}

fn plain(dice: &mut Dice<'_>, sender: &Port) -> Vec<u8> {
    let kind = dice.byte() % 12;
    let macs =
        [MacAddr::ROUTER, MacAddr([2, 0, 0, 0, 0, 0xb1]), MacAddr::BROADCAST, sender.mac, MacAddr([0; 6])];
    let destination = dice.pick(&macs);
    let source = if dice.rarely(16) { dice.pick(&macs) } else { sender.mac };
    let ethernet = |ethertype, rest: Vec<u8>| {
        [&Ethernet { destination, source, ethertype }.to_bytes()[..], &rest].concat()
    };
    match kind {
        0..=3 => ethernet(EtherType::IPV4, packet_v4(dice, sender)),
        4..=6 => ethernet(EtherType::IPV6, packet_v6(dice, sender)),
        7 => ethernet(EtherType::ARP, arp(dice, sender)),
        8 => ethernet(EtherType::IPV4, dhcp(dice, sender)),
        9 => ethernet(EtherType::IPV6, solicitation(dice, sender)),
        10 => ethernet(EtherType(dice.word()), dice.bytes(64).to_vec()),
        _ => dice.bytes(200).to_vec(),
    }
}

/// Mostly one of the sender's own.
fn own_v4(dice: &mut Dice<'_>, sender: &Port) -> Ipv4Addr {
    let own = sender.config.ips.iter().find_map(|ip| if let IpAddr::V4(ip) = ip.0 { Some(ip) } else { None });
    match own {
        Some(own) if !dice.rarely(12) => own,
        _ => dice.pick(&V4).into(),
    }
}

fn own_v6(dice: &mut Dice<'_>, sender: &Port) -> Ipv6Addr {
    let own = sender.config.ips.iter().find_map(|ip| if let IpAddr::V6(ip) = ip.0 { Some(ip) } else { None });
    match own {
        Some(own) if !dice.rarely(12) => own,
        _ => dice.pick(&V6),
    }
}

/// A transport header and payload; the checksum is right.
fn transport(dice: &mut Dice<'_>, protocol: u8, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let ports = match dice.byte() % 12 {
        0 => [0, 67, 0, 68],
        1 => [0, 68, 0, 67],
        2 => [0x02, 0x23, 0x02, 0x22],
        _ => [0x12, 0x34, 0x12, 0xb5],
    };
    let size = dice.pick(&SIZES);
    let fill = dice.byte();
    let mut message = match protocol {
        6 => [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 2, 0x50, dice.byte(), 1, 0, 0, 0, 0, 0]].concat(),
        17 => [&ports[..], &u16::try_from(8 + size).unwrap().to_be_bytes(), &[0, 0]].concat(),
        1 => vec![dice.pick(&[8, 0, 3, 13]), 0, 0, 0, 0, 0, 0, dice.byte()],
        58 => vec![dice.pick(&[128, 129, 1, 2, 133, 134, 135, 136, 137]), 0, 0, 0, 0, 0, 0, 1],
        _ => vec![],
    };
    message.resize(message.len() + size, fill);
    let at = match protocol {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return message,
    };
    let checksum = match protocol {
        1 => !sum::of(&message),
        _ => !sum::with_pseudo(from, to, protocol, &message),
    };
    message[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    message
}

fn packet_v4(dice: &mut Dice<'_>, sender: &Port) -> Vec<u8> {
    let (source, destination) = (own_v4(dice, sender), Ipv4Addr::from(dice.pick(&V4)));
    let protocol = dice.pick(&[17, 6, 1, 47]);
    let payload = transport(dice, protocol, source.into(), destination.into());
    let options: &[u8] =
        dice.pick(&[&[][..], &[], &[1, 1, 1, 0], &[131, 7, 4, 10, 0, 0, 1, 0], &[7, 9, 4, 0]]);
    let fragment = dice.pick(&[(0, false), (0, false), (0, true), (1, false), (185, false), (8191, false)]);
    let header = Ipv4 {
        header_bytes: 20,
        tos: dice.byte(),
        total_bytes: u16::try_from(20 + options.len() + payload.len()).unwrap(),
        identification: 7,
        dont_fragment: dice.byte() & 1 == 0,
        more_fragments: fragment.1,
        fragment_offset: fragment.0,
        ttl: dice.pick(&[64, 1, 0, 2, 255]),
        protocol: Protocol(protocol),
        source,
        destination,
        source_routed: false,
    };
    let mut packet = [&header.to_bytes()[..], options, &payload].concat();
    let header_bytes = 20 + options.len();
    packet[0] = 0x40 | u8::try_from(header_bytes / 4).unwrap();
    packet[10..12].fill(0);
    let checksum = !sum::of(&packet[..header_bytes]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn packet_v6(dice: &mut Dice<'_>, sender: &Port) -> Vec<u8> {
    let (source, destination) = (own_v6(dice, sender), dice.pick(&V6));
    let protocol = dice.pick(&[17, 6, 58, 59]);
    let payload = transport(dice, protocol, source.into(), destination.into());
    let (next_header, chain): (u8, Vec<u8>) = match dice.byte() % 10 {
        0 => (44, vec![protocol, 0, 0, 1, 0, 0, 0, 9]),
        1 => (44, vec![protocol, 0, 0, 16, 0, 0, 0, 9]),
        2 => (60, vec![protocol, 0, 1, 4, 0, 0, 0, 0]),
        3 => (0, [[43, 0, 1, 4, 0, 0, 0, 0], [protocol, 0, 0, 1, 0, 0, 0, 0]].concat()),
        4 => (60, [[60, 0, 1, 4, 0, 0, 0, 0]; 9].concat()),
        _ => (protocol, vec![]),
    };
    let header = Ipv6 {
        traffic_class: dice.byte(),
        flow_label: 5,
        payload_bytes: u16::try_from(chain.len() + payload.len()).unwrap(),
        next_header: Protocol(next_header),
        hop_limit: dice.pick(&[64, 1, 0, 2, 255]),
        source,
        destination,
    };
    [&header.to_bytes()[..], &chain, &payload].concat()
}

fn arp(dice: &mut Dice<'_>, sender: &Port) -> Vec<u8> {
    let operation = dice.pick(&[1, 1, 1, 2, 3]);
    let mac = if dice.rarely(8) { MacAddr::ROUTER } else { sender.mac };
    let source = if dice.rarely(4) { Ipv4Addr::UNSPECIFIED } else { own_v4(dice, sender) };
    let target = dice.pick(&V4);
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac.0, &source.octets(), &[0; 6], &target].concat()
}

fn dhcp(dice: &mut Dice<'_>, sender: &Port) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(&dice.array::<4>());
    let wishes = dice.byte();
    message[10] = wishes << 7;
    let client = if wishes >> 5 == 7 { MacAddr::ROUTER } else { sender.mac };
    message[28..34].copy_from_slice(&client.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    if dice.rarely(3) {
        message[12..16].copy_from_slice(&own_v4(dice, sender).octets());
    }
    message.extend([53, 1, dice.pick(&[1, 3, 3, 8, 4, 7, 2, 5, 9])]);
    for _ in 0..dice.byte() % 5 {
        match dice.byte() % 7 {
            0 => message.extend([&[50, 4][..], &own_v4(dice, sender).octets()].concat()),
            1 => message.extend([&[54, 4][..], &dice.pick(&V4)].concat()),
            2 => message.extend([&[57, 2][..], &dice.array::<2>()].concat()),
            3 => message.extend([80, 0]),
            4 => message.extend([52, 1, dice.byte() % 4]),
            5 => {
                let value = dice.bytes(255);
                message.extend([61, u8::try_from(value.len()).unwrap()]);
                message.extend(value);
            }
            _ => {
                let code = dice.pick(&[82, 55, 60, 12]);
                let value = dice.bytes(255);
                message.extend([code, u8::try_from(value.len()).unwrap()]);
                message.extend(value);
            }
        }
    }
    message.push(255);
    let source = if dice.rarely(2) { own_v4(dice, sender) } else { Ipv4Addr::UNSPECIFIED };
    let destination = if dice.rarely(2) { dice.pick(&V4).into() } else { Ipv4Addr::BROADCAST };
    let length = u16::try_from(8 + message.len()).unwrap();
    let ip = Ipv4 {
        header_bytes: 20,
        tos: 0,
        total_bytes: 20 + length,
        identification: 0,
        dont_fragment: false,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: Protocol::UDP,
        source,
        destination,
        source_routed: false,
    };
    [&ip.to_bytes()[..], &[0, 68, 0, 67], &length.to_be_bytes(), &[0, 0], &message].concat()
}

/// Of neighbours and of routers, and advertisements of both.
fn solicitation(dice: &mut Dice<'_>, sender: &Port) -> Vec<u8> {
    let kind = dice.pick(&[135, 135, 133, 136, 134, 137]);
    let source = match dice.byte() % 4 {
        0 => Ipv6Addr::UNSPECIFIED,
        1 => sender.mac.link_local(),
        _ => own_v6(dice, sender),
    };
    let target = dice.pick(&V6);
    let destination = if dice.rarely(4) { dice.pick(&V6) } else { solicited_node(target) };
    let option = [&[1, 1][..], &sender.mac.0].concat();
    let option = if dice.rarely(2) { &option[..] } else { &[] };
    let body = if kind == 133 { vec![] } else { target.octets().to_vec() };
    let mut message = [&[kind, 0, 0, 0, 0, 0, 0, 0], &body[..], option].concat();
    icmpv6::finish(&mut message, source, destination).unwrap();
    let header = Ipv6 {
        traffic_class: 0,
        flow_label: 0,
        payload_bytes: u16::try_from(message.len()).unwrap(),
        next_header: Protocol::ICMPV6,
        hop_limit: if dice.rarely(12) { 64 } else { 255 },
        source,
        destination,
    };
    [&header.to_bytes()[..], &message].concat()
}

/// What a guest's kernel leaves undone, or a lie.
fn offload(dice: &mut Dice<'_>, frame: &mut [u8]) -> Offload {
    let wish = dice.byte() % 8;
    if wish < 4 {
        return Offload::NONE;
    }
    let word = dice.word();
    let lie = Checksum::Partial { start: word % 128, offset: dice.word() % 32 };
    let kind = dice.pick(&[SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp]);
    let any = Segmentation { kind, segment_bytes: word, header_bytes: dice.word() };
    let Ok(headers) = Headers::parse(frame) else {
        return Offload { checksum: lie, segmentation: Some(any) };
    };
    let (offset, kind) = match (headers.transport, headers.network) {
        (Transport::Tcp { .. }, Network::V4 { .. }) => (16, SegmentKind::TcpV4),
        (Transport::Tcp { .. }, _) => (16, SegmentKind::TcpV6),
        (Transport::Udp { .. }, _) => (6, SegmentKind::Udp),
        _ => return Offload { checksum: lie, segmentation: Some(any).filter(|_| wish == 7) },
    };
    let Some((from, to)) = headers.addresses() else { return Offload::NONE };
    let start = headers.transport_offset();
    // As Linux does: the field holds the sum of the pseudo-header.
    let length = headers.end as usize - start;
    let mut pseudo = vec![0; length];
    let sum = sum::with_pseudo(from, to, headers.protocol.0, &pseudo);
    pseudo.clear();
    frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
    let checksum =
        Checksum::Partial { start: u16::try_from(start).unwrap(), offset: u16::try_from(offset).unwrap() };
    match wish {
        4 => Offload { checksum, segmentation: None },
        5 => {
            let segment_bytes = dice.pick(&[1440, 500, 1000, 1, 9000]);
            let header_bytes = u16::try_from(headers.payload_offset()).unwrap();
            Offload { checksum, segmentation: Some(Segmentation { kind, segment_bytes, header_bytes }) }
        }
        6 => Offload { checksum: lie, segmentation: None },
        _ => Offload { checksum, segmentation: Some(any) },
    }
}

/// A few bytes changed, or the end cut off, or padding appended.
fn spoil(dice: &mut Dice<'_>, frame: &mut Vec<u8>) {
    match dice.byte() % 8 {
        0..=4 => {}
        5 => {
            let at = usize::from(dice.byte());
            if let Some(byte) = frame.get_mut(at) {
                *byte = dice.byte();
            }
        }
        6 => frame.truncate(usize::from(dice.word())),
        _ => frame.extend(dice.bytes(32)),
    }
}
