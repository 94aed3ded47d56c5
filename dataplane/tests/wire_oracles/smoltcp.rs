//! smoltcp reads our neighbour discovery and ARP, and builds what we read.

use dataplane::wire::arp::Arp;
use dataplane::wire::nd::{
    self, Envelope, NeighbourAdvertisement, NeighbourSolicitation, RouterAdvertisement,
};
use ipnet::Ipv6Net;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr,
    NdiscRouterFlags,
};

use crate::*;

fn read<'a>(message: &'a [u8], from: &Ipv6Addr, to: &Ipv6Addr) -> Icmpv6Repr<'a> {
    let packet = Icmpv6Packet::new_checked(message).unwrap();
    Icmpv6Repr::parse(from, to, &packet, &ChecksumCapabilities::default()).unwrap()
}

proptest! {
    #[test]
    fn arp_both_ways(bytes: [u8; 20], reply: bool) {
        let message = [&[0, 1, 8, 0, 6, 4, 0, 1 + u8::from(reply)], &bytes[..]].concat();
        let theirs = ArpRepr::parse(&ArpPacket::new_checked(&message[..]).unwrap()).unwrap();
        let ours = Arp::parse(&message).unwrap();
        let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, target_hardware_addr, target_protocol_addr, .. } =
            theirs else { panic!("not Ethernet and IPv4") };
        prop_assert_eq!(source_hardware_addr, EthernetAddress(ours.sender_mac.0));
        prop_assert_eq!(target_hardware_addr, EthernetAddress(ours.target_mac.0));
        prop_assert_eq!((source_protocol_addr, target_protocol_addr), (ours.sender_ip, ours.target_ip));
    }

    #[test]
    fn our_neighbour_advertisements(from: [u8; 16], to: [u8; 16], target: [u8; 16], mac in mac(), flags in 0_u8..8) {
        let (from, to) = (Ipv6Addr::from(from), Ipv6Addr::from(to));
        let ours = NeighbourAdvertisement {
            from_router: flags & 4 != 0,
            solicited: flags & 2 != 0,
            overrides: flags & 1 != 0,
            target: Ipv6Addr::from(target),
            mac,
        };
        let message = ours.to_bytes(from, to);
        let theirs = NdiscRepr::NeighborAdvert {
            flags: NdiscNeighborFlags::from_bits_truncate(flags << 5),
            target_addr: ours.target,
            lladdr: Some(EthernetAddress(mac.0).into()),
        };
        prop_assert_eq!(read(&message, &from, &to), Icmpv6Repr::Ndisc(theirs));
    }

    #[test]
    fn their_neighbour_solicitations(from: [u8; 16], target: [u8; 16], mac in proptest::option::of(mac())) {
        let (from, target) = (Ipv6Addr::from(from), Ipv6Addr::from(target));
        prop_assume!(!from.is_unspecified() && !target.is_multicast());
        let envelope = Envelope { source: from, destination: nd::solicited_node(target), hop_limit: nd::HOP_LIMIT };
        let theirs = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
            target_addr: target,
            lladdr: mac.map(|mac| EthernetAddress(mac.0).into()),
        });
        let mut message = vec![0; theirs.buffer_len()];
        let mut packet = Icmpv6Packet::new_unchecked(&mut message[..]);
        theirs.emit(&from, &envelope.destination, &mut packet, &ChecksumCapabilities::default());
        let ours = NeighbourSolicitation { target, source_mac: mac };
        prop_assert_eq!(NeighbourSolicitation::parse(&message, &envelope), Ok(ours));
    }

    #[test]
    fn our_router_advertisements(from: [u8; 16], mac in mac(), mtu: u32, lifetime: u16, flags in 0_u8..16,
                                 prefix: [u8; 16], length in 0_u8..=128, seconds: (u32, u32)) {
        let (from, to) = (Ipv6Addr::from(from), nd::ALL_NODES);
        let prefix = Ipv6Net::new(prefix.into(), length).unwrap().trunc();
        let ours = RouterAdvertisement {
            hop_limit: 64,
            managed: flags & 1 != 0,
            other_config: flags & 2 != 0,
            router_lifetime_seconds: lifetime,
            mac,
            mtu,
            prefixes: &[prefix],
            on_link: flags & 4 != 0,
            autonomous: flags & 8 != 0,
            valid_seconds: seconds.0,
            preferred_seconds: seconds.1,
            dns: &[],
            dns_lifetime_seconds: 0,
        };
        let mut message = vec![0; ours.message_bytes()];
        ours.emit(&mut message, from, to).unwrap();
        let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { hop_limit, flags: router, router_lifetime, lladdr, mtu: told, prefix_info, .. }) =
            read(&message, &from, &to) else { panic!("not a router advertisement") };
        prop_assert_eq!((hop_limit, told), (64, Some(mtu)));
        prop_assert_eq!(router.contains(NdiscRouterFlags::MANAGED), ours.managed);
        prop_assert_eq!(router.contains(NdiscRouterFlags::OTHER), ours.other_config);
        prop_assert_eq!(router_lifetime.secs(), u64::from(lifetime));
        prop_assert_eq!(lladdr, Some(EthernetAddress(mac.0).into()));
        let told = prefix_info.unwrap();
        prop_assert_eq!((told.prefix, told.prefix_len), (prefix.addr(), length));
        prop_assert_eq!(told.flags.bits() >> 6, u8::from(ours.on_link) << 1 | u8::from(ours.autonomous));
        prop_assert_eq!((told.valid_lifetime.secs(), told.preferred_lifetime.secs()), (u64::from(seconds.0), u64::from(seconds.1)));
    }
}
