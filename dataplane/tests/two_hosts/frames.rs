//! What guests send, and an independent look at what they get.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use dataplane::packet::{Checksum, Offload, SegmentKind, Segmentation};
use dataplane::types::MacAddr;
use dataplane::wire::checksum::Sum;
use dataplane::wire::{Protocol, ipv4};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv6Type, LinkHeader, NetHeaders,
    PacketBuilder, PacketBuilderStep, PacketHeaders, TransportHeader,
};

use super::world::Guest;

pub(crate) const TTL: u8 = 64;

/// A frame's Ethernet and IP header fields.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) from_mac: MacAddr,
    pub(crate) to_mac: MacAddr,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) ttl: u8,
}

impl Head {
    /// From a guest's first address of the destination's family, to whoever has `to_mac`.
    pub(crate) fn of(from: &Guest, to_mac: MacAddr, to: &str) -> Self {
        let to: IpAddr = to.parse().unwrap();
        let own = from.ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap());
        let from_ip = own.into_iter().find(|ip| ip.is_ipv4() == to.is_ipv4()).unwrap();
        Self { from_mac: from.mac, to_mac, from: from_ip, to, ttl: TTL }
    }

    fn ip(&self) -> PacketBuilderStep<etherparse::IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.from_mac.0, self.to_mac.0);
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), self.ttl),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), self.ttl),
            _ => panic!("two families"),
        }
    }

    pub(crate) fn udp(&self, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.ip().udp(ports.0, ports.1).write(&mut frame, payload).unwrap();
        frame
    }

    pub(crate) fn tcp(&self, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.ip().tcp(ports.0, ports.1, 1000, 5000).ack(1).write(&mut frame, payload).unwrap();
        frame
    }

    /// A TCP segment with these control bits: of S, A, F and R.
    pub(crate) fn segment(&self, ports: (u16, u16), bits: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        let mut tcp = self.ip().tcp(ports.0, ports.1, 1000, 5000);
        for bit in bits.chars() {
            tcp = match bit {
                'S' => tcp.syn(),
                'A' => tcp.ack(1),
                'F' => tcp.fin(),
                'R' => tcp.rst(),
                other => panic!("no control bit {other}"),
            };
        }
        tcp.write(&mut frame, b"").unwrap();
        frame
    }

    /// An ICMP or ICMPv6 message that queries: an echo request, or its reply.
    pub(crate) fn ping(&self, is_reply: bool, identifier: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        let ip = self.ip();
        match (self.to, is_reply) {
            (IpAddr::V4(_), false) => ip.icmpv4_echo_request(identifier, 1).write(&mut frame, b"").unwrap(),
            (IpAddr::V4(_), true) => ip.icmpv4_echo_reply(identifier, 1).write(&mut frame, b"").unwrap(),
            (IpAddr::V6(_), false) => ip.icmpv6_echo_request(identifier, 1).write(&mut frame, b"").unwrap(),
            (IpAddr::V6(_), true) => ip.icmpv6_echo_reply(identifier, 1).write(&mut frame, b"").unwrap(),
        }
        frame
    }

    /// "Port unreachable" about a packet, of which it quotes the first bytes.
    pub(crate) fn unreachable(&self, about: &[u8]) -> Vec<u8> {
        let quote = &about[14..about.len().min(14 + 40 + 8)];
        let mut frame = Vec::new();
        match self.to {
            IpAddr::V4(_) => self.ip().icmpv4_raw(3, 3, [0; 4]).write(&mut frame, quote).unwrap(),
            IpAddr::V6(_) => self.ip().icmpv6_raw(1, 4, [0; 4]).write(&mut frame, quote).unwrap(),
        }
        frame
    }

    pub(crate) fn echo(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        match self.to {
            IpAddr::V4(_) => self.ip().icmpv4_echo_request(7, 1).write(&mut frame, payload).unwrap(),
            IpAddr::V6(_) => self.ip().icmpv6_echo_request(7, 1).write(&mut frame, payload).unwrap(),
        }
        frame
    }

    pub(crate) fn icmpv6(&self, kind: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: rest };
        self.ip().icmpv6(kind).write(&mut frame, payload).unwrap();
        frame
    }
}

pub(crate) fn ping_head(from: &Guest, to: &Guest, family: fn(&Guest) -> IpAddr) -> Head {
    Head { from_mac: from.mac, to_mac: to.mac, from: family(from), to: family(to), ttl: TTL }
}

pub(crate) fn v4(guest: &Guest) -> IpAddr {
    guest.v4().into()
}

pub(crate) fn v6(guest: &Guest) -> IpAddr {
    guest.v6().into()
}

pub(crate) fn arp(
    (from_mac, to_mac): (MacAddr, MacAddr),
    operation: ArpOperation,
    (sender_mac, sender): (MacAddr, Ipv4Addr),
    target: Ipv4Addr,
) -> Vec<u8> {
    let message = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &sender_mac.0,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    )
    .unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from_mac.0, to_mac.0).arp(message).write(&mut frame).unwrap();
    frame
}

/// Who has `target`? asked by everybody's leave.
pub(crate) fn who_has(guest: &Guest, sender: Ipv4Addr, target: &str) -> Vec<u8> {
    arp((guest.mac, MacAddr::BROADCAST), ArpOperation::REQUEST, (guest.mac, sender), target.parse().unwrap())
}

/// A neighbour solicitation for `target`, with the asker's MAC unless it is a probe.
pub(crate) fn solicit(guest: &Guest, source: Ipv6Addr, target: &str) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut payload = target.octets().to_vec();
    if !source.is_unspecified() {
        payload.extend([1, 1]);
        payload.extend(guest.mac.0);
    }
    let head = Head {
        from_mac: guest.mac,
        to_mac: MacAddr([0x33, 0x33, 0xff, a, b, c]),
        from: source.into(),
        to: group.into(),
        ttl: 255,
    };
    head.icmpv6(135, [0; 4], &payload)
}

/// Overwrites a byte of the IPv4 header and mends its checksum.
pub(crate) fn patch_v4(frame: &mut [u8], at: usize, value: u8) {
    frame[14 + at] = value;
    mend_v4(frame);
}

pub(crate) fn mend_v4(frame: &mut [u8]) {
    let length = usize::from(frame[14] & 15) * 4;
    frame[24..26].copy_from_slice(&[0, 0]);
    let sum = Sum::ZERO.add_bytes(&frame[14..14 + length]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// The same packet with IPv4 options (a multiple of four bytes).
pub(crate) fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut frame = [&frame[..34], options, &frame[34..]].concat();
    frame[14] += u8::try_from(options.len() / 4).unwrap();
    let total = u16::try_from(frame.len() - 14).unwrap();
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    mend_v4(&mut frame);
    frame
}

pub(crate) fn set_tos(frame: &mut [u8], tos: u8) {
    match frame[14] >> 4 {
        4 => ipv4::set_tos(&mut frame[14..], tos).unwrap(),
        _ => dataplane::wire::ipv6::set_traffic_class(&mut frame[14..], tos).unwrap(),
    }
}

/// A super-packet's request as a Linux guest makes it: the checksum field holds the pseudo-header's sum, and
/// `header_bytes` is a hint that means nothing.
pub(crate) fn super_packet(mut frame: Vec<u8>, kind: SegmentKind, segment_bytes: u16) -> (Vec<u8>, Offload) {
    let offset = match kind {
        SegmentKind::Udp => 6,
        SegmentKind::TcpV4 | SegmentKind::TcpV6 => 16,
    };
    let start = partial(&mut frame, offset);
    let segmentation = Some(Segmentation { kind, segment_bytes, header_bytes: 1000 });
    (frame, Offload { checksum: Checksum::Partial { start, offset }, segmentation })
}

/// Leaves the transport checksum undone; gives where the transport header begins.
pub(crate) fn partial(frame: &mut [u8], offset: u16) -> u16 {
    let (start, pseudo) = pseudo(frame);
    let at = start + usize::from(offset);
    frame[at..at + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
    u16::try_from(start).unwrap()
}

fn pseudo(frame: &[u8]) -> (usize, Sum) {
    let octets = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap();
    let long = |at: usize| <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap();
    if frame[14] >> 4 == 4 {
        let start = 14 + usize::from(frame[14] & 15) * 4;
        let length = u16::from_be_bytes([frame[16], frame[17]]) - u16::try_from(start - 14).unwrap();
        let protocol = Protocol(frame[23]);
        (start, Sum::pseudo_v4(octets(26).into(), octets(30).into(), protocol, length))
    } else {
        let length = u32::from(u16::from_be_bytes([frame[18], frame[19]]));
        (54, Sum::pseudo_v6(long(22).into(), long(38).into(), Protocol(frame[20]), length))
    }
}

/// What a frame says, parsed by `etherparse`, all checksums verified.
pub(crate) struct Seen<'f> {
    pub(crate) ethernet: Ethernet2Header,
    pub(crate) net: NetHeaders,
    pub(crate) transport: Option<TransportHeader>,
    pub(crate) payload: &'f [u8],
}

impl<'f> Seen<'f> {
    pub(crate) fn of(frame: &'f [u8]) -> Self {
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let Some(LinkHeader::Ethernet2(ethernet)) = headers.link else { panic!("no Ethernet") };
        let net = headers.net.unwrap();
        if let NetHeaders::Ipv4(header, _) = &net {
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 header checksum");
        }
        let payload = headers.payload.slice();
        if let Some(transport) = &headers.transport {
            judge_checksum(&net, transport, payload);
        }
        Self { ethernet, net, transport: headers.transport, payload }
    }

    pub(crate) fn macs(&self) -> (MacAddr, MacAddr) {
        (MacAddr(self.ethernet.source), MacAddr(self.ethernet.destination))
    }

    pub(crate) fn ips(&self) -> (IpAddr, IpAddr) {
        match &self.net {
            NetHeaders::Ipv4(ip, _) => {
                (Ipv4Addr::from(ip.source).into(), Ipv4Addr::from(ip.destination).into())
            }
            NetHeaders::Ipv6(ip, _) => {
                (Ipv6Addr::from(ip.source).into(), Ipv6Addr::from(ip.destination).into())
            }
            NetHeaders::Arp(_) => panic!("ARP"),
        }
    }

    pub(crate) fn ttl(&self) -> u8 {
        match &self.net {
            NetHeaders::Ipv4(ip, _) => ip.time_to_live,
            NetHeaders::Ipv6(ip, _) => ip.hop_limit,
            NetHeaders::Arp(_) => panic!("ARP"),
        }
    }

    pub(crate) fn tos(&self) -> u8 {
        match &self.net {
            NetHeaders::Ipv4(ip, _) => ip.dscp.value() << 2 | ip.ecn.value(),
            NetHeaders::Ipv6(ip, _) => ip.traffic_class,
            NetHeaders::Arp(_) => panic!("ARP"),
        }
    }

    pub(crate) fn arp(&self) -> &ArpPacket {
        match &self.net {
            NetHeaders::Arp(arp) => arp,
            _ => panic!("no ARP"),
        }
    }
}

fn judge_checksum(net: &NetHeaders, transport: &TransportHeader, payload: &[u8]) {
    let mut again = transport.clone();
    match net {
        NetHeaders::Ipv4(ip, _) => again.update_checksum_ipv4(ip, payload).unwrap(),
        NetHeaders::Ipv6(ip, _) => again.update_checksum_ipv6(ip, payload).unwrap(),
        NetHeaders::Arp(_) => return,
    }
    assert_eq!(&again, transport, "transport checksum");
}

/// A frame of `tests/golden`, where each file notes its origin.
pub(crate) fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("hex");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let octets = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    octets.map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect()
}

#[track_caller]
pub(crate) fn assert_is_golden(name: &str, frame: &[u8]) {
    let row = |row: &[u8]| row.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let rows: Vec<String> = frame.chunks(16).map(row).collect();
    assert_eq!(frame, golden(name), "{name} is now\n{}", rows.join("\n"));
}
