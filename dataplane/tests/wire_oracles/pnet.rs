//! pnet reads what we write.

use dataplane::wire::arp::{Arp, Operation};
use dataplane::wire::checksum::Sum;
use dataplane::wire::ethernet::{EtherType, Ethernet};
use dataplane::wire::tcp::{Flags, Tcp};
use dataplane::wire::{icmpv4, icmpv6, ipv4, udp, vxlan};
use pnet_packet::Packet as _;
use pnet_packet::ip::IpNextHeaderProtocols;

use crate::*;

proptest! {
    #[test]
    fn ethernet_and_arp(sender in mac(), sender_ip: [u8; 4], target in mac(), target_ip: [u8; 4], reply: bool) {
        use pnet_packet::arp::{ArpOperations, ArpPacket};
        use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
        let ours = Arp {
            operation: if reply { Operation::Reply } else { Operation::Request },
            sender_mac: sender,
            sender_ip: sender_ip.into(),
            target_mac: target,
            target_ip: target_ip.into(),
        };
        let ethernet = Ethernet { destination: target, source: sender, ethertype: EtherType::ARP };
        let frame = [&ethernet.to_bytes(), &ours.to_bytes()[..]].concat();
        let outer = EthernetPacket::new(&frame).unwrap();
        prop_assert_eq!(outer.get_destination().octets(), target.0);
        prop_assert_eq!(outer.get_source().octets(), sender.0);
        prop_assert_eq!(outer.get_ethertype(), EtherTypes::Arp);
        let theirs = ArpPacket::new(outer.payload()).unwrap();
        let operation = if reply { ArpOperations::Reply } else { ArpOperations::Request };
        prop_assert_eq!(theirs.get_operation(), operation);
        prop_assert_eq!((theirs.get_hw_addr_len(), theirs.get_proto_addr_len()), (6, 4));
        prop_assert_eq!(theirs.get_sender_hw_addr().octets(), sender.0);
        prop_assert_eq!(theirs.get_sender_proto_addr(), ours.sender_ip);
        prop_assert_eq!(theirs.get_target_hw_addr().octets(), target.0);
        prop_assert_eq!(theirs.get_target_proto_addr(), ours.target_ip);
    }

    #[test]
    fn ipv4_headers_and_edits(header in ipv4_header(), tos: u8) {
        use pnet_packet::ipv4::{Ipv4Packet, checksum};
        let mut bytes = header.to_bytes();
        let theirs = Ipv4Packet::new(&bytes).unwrap();
        prop_assert_eq!(theirs.get_checksum(), checksum(&theirs));
        prop_assert_eq!(theirs.get_dscp() << 2 | theirs.get_ecn(), header.tos);
        prop_assert_eq!((theirs.get_total_length(), theirs.get_identification()), (20, header.identification));
        prop_assert_eq!(theirs.get_flags(), u8::from(header.dont_fragment) << 1 | u8::from(header.more_fragments));
        prop_assert_eq!((theirs.get_fragment_offset(), theirs.get_ttl()), (header.fragment_offset, header.ttl));
        prop_assert_eq!(theirs.get_next_level_protocol().0, header.protocol.0);
        prop_assert_eq!((theirs.get_source(), theirs.get_destination()), (header.source, header.destination));
        ipv4::set_tos(&mut bytes, tos).unwrap();
        while ipv4::decrement_ttl(&mut bytes).unwrap().is_some() {
            let theirs = Ipv4Packet::new(&bytes).unwrap();
            prop_assert_eq!(theirs.get_checksum(), checksum(&theirs));
        }
    }

    #[test]
    fn ipv6_headers(header in ipv6_header()) {
        let bytes = header.to_bytes();
        let theirs = pnet_packet::ipv6::Ipv6Packet::new(&bytes).unwrap();
        prop_assert_eq!((theirs.get_version(), theirs.get_traffic_class()), (6, header.traffic_class));
        prop_assert_eq!((theirs.get_flow_label(), theirs.get_payload_length()), (header.flow_label, 0));
        prop_assert_eq!((theirs.get_next_header().0, theirs.get_hop_limit()), (header.next_header.0, header.hop_limit));
        prop_assert_eq!((theirs.get_source(), theirs.get_destination()), (header.source, header.destination));
    }

    #[test]
    fn udp_checksums(v4 in ipv4_header(), v6 in ipv6_header(), ports: (u16, u16), data in payload()) {
        use pnet_packet::udp::{UdpPacket, ipv4_checksum, ipv6_checksum};
        let mut datagram = [&[0; 8], &data[..]].concat();
        // pnet knows nothing of RFC 768's "zero is sent as 0xffff".
        let as_sent = |sum: u16| if sum == 0 { 0xffff } else { sum };
        udp::emit_v4(&mut datagram, (v4.source, ports.0), (v4.destination, ports.1)).unwrap();
        let theirs = UdpPacket::new(&datagram).unwrap();
        prop_assert_eq!((theirs.get_source(), theirs.get_destination()), ports);
        prop_assert_eq!(usize::from(theirs.get_length()), datagram.len());
        prop_assert_eq!(theirs.get_checksum(), as_sent(ipv4_checksum(&theirs, &v4.source, &v4.destination)));
        udp::emit_v6(&mut datagram, (v6.source, ports.0), (v6.destination, ports.1)).unwrap();
        let theirs = UdpPacket::new(&datagram).unwrap();
        prop_assert_eq!(theirs.get_checksum(), as_sent(ipv6_checksum(&theirs, &v6.source, &v6.destination)));
    }

    #[test]
    fn tcp_headers(v4 in ipv4_header(), ports: (u16, u16), numbers: (u32, u32), flags: u8, rest: (u16, u16, u16), data in payload()) {
        use pnet_packet::tcp::{TcpPacket, ipv4_checksum};
        let mut ours = Tcp {
            source: ports.0, destination: ports.1, sequence: numbers.0, acknowledgement: numbers.1, header_bytes: 20,
            flags: Flags(flags), window: rest.0, checksum: 0, urgent: rest.2,
        };
        let length = u16::try_from(20 + data.len()).unwrap();
        let sum = Sum::pseudo_v4(v4.source, v4.destination, Protocol::TCP, length);
        ours.checksum = sum.add_bytes(&ours.to_bytes()).add_bytes(&data).checksum();
        let segment = [&ours.to_bytes(), &data[..]].concat();
        let theirs = TcpPacket::new(&segment).unwrap();
        prop_assert_eq!((theirs.get_source(), theirs.get_destination()), ports);
        prop_assert_eq!((theirs.get_sequence(), theirs.get_acknowledgement()), numbers);
        prop_assert_eq!((theirs.get_data_offset(), theirs.get_flags()), (5, flags));
        prop_assert_eq!((theirs.get_window(), theirs.get_urgent_ptr()), (rest.0, rest.2));
        prop_assert_eq!(theirs.get_checksum(), ipv4_checksum(&theirs, &v4.source, &v4.destination));
    }

    #[test]
    fn icmp_errors(v6 in ipv6_header(), next_hop_mtu: u16, mtu: u32, data in payload()) {
        use pnet_packet::icmp::destination_unreachable::DestinationUnreachablePacket;
        let mut message = [&[0; 8], &data[..]].concat();
        icmpv4::emit_error(&mut message, icmpv4::Problem::FragmentationNeeded { next_hop_mtu }).unwrap();
        let theirs = DestinationUnreachablePacket::new(&message).unwrap();
        prop_assert_eq!((theirs.get_icmp_type().0, theirs.get_icmp_code().0), (3, 4));
        prop_assert_eq!((theirs.get_next_hop_mtu(), theirs.payload()), (next_hop_mtu, &data[..]));
        let whole = pnet_packet::icmp::IcmpPacket::new(&message).unwrap();
        prop_assert_eq!(theirs.get_checksum(), pnet_packet::icmp::checksum(&whole));

        icmpv6::emit_error(&mut message, v6.source, v6.destination, icmpv6::Problem::PacketTooBig { mtu }).unwrap();
        let theirs = pnet_packet::icmpv6::Icmpv6Packet::new(&message).unwrap();
        prop_assert_eq!((theirs.get_icmpv6_type().0, theirs.get_icmpv6_code().0), (2, 0));
        prop_assert_eq!(theirs.get_checksum(), pnet_packet::icmpv6::checksum(&theirs, &v6.source, &v6.destination));
    }

    #[test]
    fn checksums_over_ipv6(v6 in ipv6_header(), data in proptest::collection::vec(any::<u8>(), 2..200)) {
        let ours = Sum::pseudo_v6(v6.source, v6.destination, Protocol::TCP, u32::try_from(data.len()).unwrap());
        let theirs =
            pnet_packet::util::ipv6_checksum(&data, data.len(), &[], &v6.source, &v6.destination, IpNextHeaderProtocols::Tcp);
        prop_assert_eq!(ours.add_bytes(&data).checksum(), theirs);
    }

    #[test]
    fn vxlan_headers(vni in vni(), data in payload()) {
        let packet = [&vxlan::to_bytes(vni), &data[..]].concat();
        let theirs = pnet_packet::vxlan::VxlanPacket::new(&packet).unwrap();
        prop_assert_eq!((theirs.get_flags(), theirs.get_vni()), (0x08, vni.value()));
        prop_assert_eq!((theirs.get_reserved1(), theirs.get_reserved2()), (0, 0));
        prop_assert_eq!(theirs.payload(), &data[..]);
    }
}
