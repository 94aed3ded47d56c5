//! Independent opinions about `wire`: what another library builds we must read the same way, and what we write another
//! library must read the same way. pnet (headers, checksums, VXLAN), etherparse (whole packets, IPv6 extension chains),
//! smoltcp (ARP, neighbour discovery), dhcproto (DHCP, both ways).
//!
//! Where an oracle is known to be wrong, the test says so and keeps to what both agree on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code outside of #[test] functions")]

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::types::{MacAddr, Vni};
use dataplane::wire::Protocol;
use dataplane::wire::ipv4::Ipv4;
use dataplane::wire::ipv6::Ipv6;
use proptest::prelude::*;

mod wire_oracles {
    mod dhcproto;
    mod etherparse;
    mod pnet;
    mod smoltcp;
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..120)
}

prop_compose! {
    fn ipv4_header()(tos: u8, identification: u16, flags in 0_u8..4, fragment_offset in 0_u16..0x2000, ttl: u8,
                     protocol: u8, source: [u8; 4], destination: [u8; 4]) -> Ipv4 {
        Ipv4 {
            header_bytes: 20,
            tos,
            total_bytes: 20,
            identification,
            dont_fragment: flags & 2 != 0,
            more_fragments: flags & 1 != 0,
            fragment_offset,
            ttl,
            protocol: Protocol(protocol),
            source: Ipv4Addr::from(source),
            destination: Ipv4Addr::from(destination),
            source_routed: false,
        }
    }
}

prop_compose! {
    fn ipv6_header()(traffic_class: u8, flow_label in 0_u32..1 << 20, next_header: u8, hop_limit: u8,
                     source: [u8; 16], destination: [u8; 16]) -> Ipv6 {
        Ipv6 {
            traffic_class,
            flow_label,
            payload_bytes: 0,
            next_header: Protocol(next_header),
            hop_limit,
            source: Ipv6Addr::from(source),
            destination: Ipv6Addr::from(destination),
        }
    }
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr)
}

fn vni() -> impl Strategy<Value = Vni> {
    (1..=Vni::MAX).prop_map(|value| Vni::new(value).unwrap())
}
