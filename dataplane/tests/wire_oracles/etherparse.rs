//! etherparse builds packets that we read, and walks the same IPv6 extension chains.

use dataplane::wire::flow::{Fragment, Headers, Transport};
use dataplane::wire::icmpv4::Icmpv4;
use dataplane::wire::icmpv6::Icmpv6;
use dataplane::wire::ipv6::{HEADER_BYTES, MAX_EXTENSION_BYTES, MAX_EXTENSIONS, walk};
use dataplane::wire::tcp::{Flags, Tcp};
use dataplane::wire::udp::Udp;
use etherparse::{IpNumber, Ipv6ExtensionsSlice, PacketBuilder};

use crate::*;

const FROM: [u8; 6] = [2, 0, 0, 0, 0, 1];
const TO: [u8; 6] = [2, 0, 0, 0, 0, 2];

proptest! {
    #[test]
    fn udp_packets(v4 in ipv4_header(), v6 in ipv6_header(), ports: (u16, u16), data in payload(), padding in 0_usize..30) {
        let from_v4 = PacketBuilder::ethernet2(FROM, TO).ipv4(v4.source.octets(), v4.destination.octets(), v4.ttl);
        let from_v6 = PacketBuilder::ethernet2(FROM, TO).ipv6(v6.source.octets(), v6.destination.octets(), v6.hop_limit);
        for (builder, ttl, network_bytes) in [
            (from_v4.udp(ports.0, ports.1), v4.ttl, 20),
            (from_v6.udp(ports.0, ports.1), v6.hop_limit, 40),
        ] {
            let mut frame = Vec::new();
            builder.write(&mut frame, &data).unwrap();
            let end = frame.len();
            frame.resize(end + padding, 0xee);
            let headers = Headers::parse(&frame).unwrap();
            prop_assert_eq!((headers.source, headers.destination), (MacAddr(FROM), MacAddr(TO)));
            prop_assert_eq!((headers.ports(), headers.hop_limit), (Some(ports), ttl));
            prop_assert_eq!((headers.network_bytes, headers.transport_bytes), (network_bytes, 8));
            prop_assert_eq!((headers.end as usize, headers.fragment), (end, Fragment::Whole));
            prop_assert_eq!(&frame[headers.payload_offset()..end], &data[..]);
            let datagram = &frame[headers.transport_offset()..end];
            let (from, to) = headers.addresses().unwrap();
            prop_assert!(Udp::parse(datagram).unwrap().checksum_is_valid(from, to, datagram));
        }
    }

    #[test]
    fn tcp_packets(v4 in ipv4_header(), ports: (u16, u16), numbers: (u32, u32, u16), data in payload()) {
        let builder = PacketBuilder::ethernet2(FROM, TO)
            .ipv4(v4.source.octets(), v4.destination.octets(), v4.ttl)
            .tcp(ports.0, ports.1, numbers.0, numbers.2)
            .syn()
            .ack(numbers.1)
            .options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1410)])
            .unwrap();
        let mut frame = Vec::new();
        builder.write(&mut frame, &data).unwrap();
        let headers = Headers::parse(&frame).unwrap();
        let flags = Flags::SYN.union(Flags::ACK);
        prop_assert_eq!(headers.transport, Transport::Tcp { source: ports.0, destination: ports.1, flags });
        prop_assert_eq!((headers.transport_bytes, headers.payload_offset()), (24, 58));
        let tcp = Tcp::parse(&frame[headers.transport_offset()..]).unwrap();
        prop_assert_eq!((tcp.sequence, tcp.acknowledgement, tcp.window), numbers);
    }

    #[test]
    fn echoes(v4 in ipv4_header(), v6 in ipv6_header(), id: u16, sequence: u16, data in payload()) {
        let rest = [id.to_be_bytes(), sequence.to_be_bytes()].concat();
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(FROM, TO).ipv4(v4.source.octets(), v4.destination.octets(), 64);
        builder.icmpv4_echo_request(id, sequence).write(&mut frame, &data).unwrap();
        let headers = Headers::parse(&frame).unwrap();
        prop_assert_eq!(headers.transport, Transport::Icmp { kind: 8, code: 0 });
        prop_assert_eq!(&Icmpv4::parse(&frame[34..]).unwrap().rest[..], &rest[..]);

        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(FROM, TO).ipv6(v6.source.octets(), v6.destination.octets(), 64);
        builder.icmpv6_echo_request(id, sequence).write(&mut frame, &data).unwrap();
        let headers = Headers::parse(&frame).unwrap();
        prop_assert_eq!(headers.transport, Transport::Icmp { kind: 128, code: 0 });
        prop_assert_eq!(&Icmpv6::parse(&frame[54..], v6.source, v6.destination).unwrap().rest[..], &rest[..]);
    }

    #[test]
    fn extension_chains(kinds in proptest::collection::vec(0_usize..4, 0..MAX_EXTENSIONS),
                        units in proptest::collection::vec(0_u8..3, MAX_EXTENSIONS), more: bool, offset in 0_u16..4) {
        // Hop-by-hop only first, one fragment header only: what RFC 8200 §4.1 allows.
        let mut kinds: Vec<u8> = kinds.into_iter().map(|kind| [60, 43, 44, 60][kind]).collect();
        let mut fragments = 0;
        kinds.retain(|kind| *kind != 44 || { fragments += 1; fragments == 1 });
        let mut chain = Vec::new();
        for (position, kind) in kinds.iter().enumerate() {
            let next = kinds.get(position + 1).copied().unwrap_or(17);
            if *kind == 44 {
                let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                chain.extend([next, 0, high, low, 0, 0, 0, 7]);
            } else {
                // Type 253 of the routing header is for experiments: nobody interprets it.
                chain.extend([next, units[position], 253, 0, 0, 0, 0, 0]);
                chain.extend(vec![0; usize::from(units[position]) * 8]);
            }
        }
        let first = kinds.first().copied().unwrap_or(17);
        let packet = [&[0; HEADER_BYTES], &chain[..], &[0; 8]].concat();
        let ours = walk(&packet, Protocol(first)).unwrap();
        prop_assert!(ours.offset - HEADER_BYTES <= MAX_EXTENSION_BYTES);

        let (theirs, next, rest) = Ipv6ExtensionsSlice::from_slice(IpNumber(first), &packet[HEADER_BYTES..]).unwrap();
        let later = ours.fragment.is_some_and(|fragment| fragment.offset != 0);
        prop_assert_eq!(theirs.is_fragmenting_payload(), ours.fragment.is_some_and(|fragment| !fragment.is_atomic()));
        // etherparse goes on behind a fragment header that is not the first piece's, and reads payload as headers.
        if !later {
            prop_assert_eq!((ours.protocol.0, packet.len() - ours.offset), (next.0, rest.len()));
        }
    }
}
