//! What a guest's packet must be that goes on, to another port or into a tunnel.

use std::net::IpAddr;

use dataplane::desired::{NetworkConfig, NextHop};
use dataplane::offload::checksum::complete;
use dataplane::offload::segment::{Cut, MAX_HEADERS, SegmentError};
use dataplane::packet::Checksum;
use dataplane::pipeline::Verdict;
use dataplane::tables::{METADATA, Port, Tables, WIRESERVER};
use dataplane::types::{CustomerIp, MacAddr, Vni};
use dataplane::wire::flow::{Headers, Network, Transport};
use dataplane::wire::{ethernet, geneve, vxlan};

use super::Outcome;
use super::world::Host;
use crate::{flow, sum};

pub(super) const TUNNEL_BYTES: usize = 8;

/// It is the sender's own; it goes to the station that the routes name, at the host and with the address that the
/// directory names; nothing but addresses and time to live has changed; it fits; and what was left undone can be done.
pub(super) fn check(host: &Host, sender: &Port, outcome: &Outcome) {
    let headers = flow::check(&outcome.before).expect("only what can be parsed goes on");
    let (source, target) = headers.addresses().expect("only IP goes on");
    let target = CustomerIp(target);
    assert_eq!(headers.source, sender.mac, "forged source MAC address");
    assert!(sender.config.ips.contains(&CustomerIp(source)), "forged source address {source}");
    check_target(&headers, target);
    assert!(!is_trapped(&headers), "what a trap answers goes no further");
    assert!(!headers.source_routed);

    let (network, station) = station(&host.tables, sender.vni, target).expect("a route leads there");
    let vnet = host.tables.vnet_of(network).unwrap();
    assert!(!host.tables.vnet_of(sender.vni).unwrap().is_gateway(target) && !vnet.is_gateway(target));
    let (mac, inner, tunnel_bytes) = match outcome.verdict {
        Verdict::Deliver(id) => {
            let receiver = host.tables.port(id).expect("a port of this host");
            assert_ne!(id, sender.id, "nobody gets his own packets");
            assert_eq!(receiver.vni, network, "delivered into another network");
            assert!(receiver.config.ips.contains(&station), "delivered to somebody else");
            (receiver.mac, &outcome.after[..], 0)
        }
        Verdict::Underlay(tunnel) => {
            let (vni, inner) = unwrapped(&host.tables, &outcome.after).expect("our own tunnel header");
            assert_eq!(vni, network, "sent into another network");
            assert_eq!(usize::from(tunnel.header_bytes), TUNNEL_BYTES);
            let location = host.writer.get(network, station).expect("the directory knows the station");
            assert_eq!(tunnel.to, location.physical_ip);
            assert_ne!(tunnel.to, host.ip, "no host sends to itself");
            assert!(tunnel.to.0.is_ipv4(), "the host has no IPv6 address");
            assert_eq!(tunnel.traffic_class, headers.tos);
            (location.mac, inner, TUNNEL_BYTES)
        }
        other => panic!("{other:?} does not go on"),
    };
    check_rewritten(&headers, &outcome.before, inner, mac);
    let most = match outcome.verdict {
        Verdict::Underlay(_) => usize::from(vnet.mtu.bytes()).min(host.largest_inner()),
        _ => usize::from(vnet.mtu.bytes()),
    };
    check_undone(outcome, &headers, tunnel_bytes, most);
}

/// The network and inner frame of a packet with a tunnel header of the host's own format.
pub(super) fn unwrapped<'p>(tables: &Tables, packet: &'p [u8]) -> Option<(Vni, &'p [u8])> {
    match tables.underlay.encapsulation {
        dataplane::desired::Encapsulation::Vxlan => vxlan::parse(packet).ok(),
        dataplane::desired::Encapsulation::Geneve => geneve::parse(packet).ok(),
    }
}

fn check_target(headers: &Headers, target: CustomerIp) {
    assert!(headers.destination.is_unicast(), "to {}", headers.destination);
    assert!(target.require_unicast().is_ok(), "to {target}");
    match target.0 {
        IpAddr::V4(ip) => assert!(ip != METADATA && ip != WIRESERVER && !ip.is_link_local()),
        IpAddr::V6(ip) => assert!(!ip.is_unicast_link_local()),
    }
}

/// DHCP of either side, and neighbour discovery with its relatives.
pub(super) fn is_trapped(headers: &Headers) -> bool {
    let is_v4 = matches!(headers.network, Network::V4 { .. });
    match headers.transport {
        Transport::Udp { source, destination } if is_v4 => {
            destination == 67 || (source, destination) == (67, 68)
        }
        Transport::Udp { source, destination } => (source, destination) == (547, 546),
        Transport::Icmp { kind, .. } => !is_v4 && (133..=137).contains(&kind),
        _ => false,
    }
}

/// Who gets what is sent to `target` from inside a network: the longest prefix, a network's own before routes, by one
/// look at each; at most one step into a peer.
pub(super) fn station(tables: &Tables, vni: Vni, target: CustomerIp) -> Option<(Vni, CustomerIp)> {
    let network = &tables.vnet_of(vni)?.config;
    match longest(network, target)? {
        None => Some((vni, target)),
        Some(NextHop::Ip(station)) => Some((vni, station)),
        Some(NextHop::Network(peer)) => match longest(&tables.vnet_of(peer)?.config, target)? {
            None => Some((peer, target)),
            Some(NextHop::Ip(station)) => Some((peer, station)),
            Some(_) => None,
        },
        Some(NextHop::Gateway | NextHop::Drop) => None,
    }
}

/// The hop of the longest covering prefix; the inner `None` is "on this very link".
#[expect(clippy::option_option, reason = "no route and on-link are different answers")]
fn longest(network: &NetworkConfig, target: CustomerIp) -> Option<Option<NextHop>> {
    let own = network.subnets.iter().map(|subnet| (subnet.prefix, None));
    let routes = network.routes.iter().map(|route| (route.prefix, Some(route.via)));
    // Of equals, the last is the maximum: the network's own.
    let covering = routes.chain(own).filter(|(prefix, _)| prefix.contains(&target.0));
    covering.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, hop)| hop)
}

fn check_rewritten(headers: &Headers, before: &[u8], inner: &[u8], mac: MacAddr) {
    let end = headers.end as usize;
    let is_routed = headers.destination == MacAddr::ROUTER;
    assert_eq!(inner.len(), end, "Ethernet's padding stays behind");
    let now = flow::check(inner).expect("what goes on can be parsed");
    assert_eq!(now.destination, mac);
    assert_eq!(now.source, if is_routed { MacAddr::ROUTER } else { headers.source });
    assert_eq!(now.hop_limit, headers.hop_limit - u8::from(is_routed));
    assert!(!is_routed || now.hop_limit > 0, "an ended time to live goes nowhere");
    assert_eq!(
        now,
        Headers { destination: now.destination, source: now.source, hop_limit: now.hop_limit, ..*headers }
    );
    assert_eq!(but_ttl(inner), but_ttl(&before[..end]), "nothing else has changed");
}

/// From the EtherType, without time to live and IPv4's header checksum.
pub(super) fn but_ttl(frame: &[u8]) -> Vec<u8> {
    let mut rest = frame[12..].to_vec();
    let (ttl, checksum) = if rest[..2] == [8, 0] { (10, 12..14) } else { (9, 0..0) };
    rest[ttl] = 0;
    rest[checksum].fill(0);
    rest
}

/// The largest packet fits, and whoever cuts or completes the frame makes right packets of it.
fn check_undone(outcome: &Outcome, headers: &Headers, tunnel_bytes: usize, most: usize) {
    let (asked, left) = (outcome.asked, outcome.left);
    assert_eq!(asked.checksum, left.checksum);
    let mut packet = outcome.after.clone();
    if let Some(cut) = left.segmentation {
        assert_eq!(
            asked.segmentation.map(|asked| (asked.kind, asked.segment_bytes)),
            Some((cut.kind, cut.segment_bytes))
        );
        assert_eq!(usize::from(cut.header_bytes), headers.payload_offset());
        match Cut::plan(&packet, tunnel_bytes, cut) {
            Ok(plan) => check_segments(&plan, &packet, tunnel_bytes, headers, most),
            Err(SegmentError::TcpFlags(_) | SegmentError::Count { .. } | SegmentError::HeadersTooLong(_)) => {
            }
            Err(error) => assert!(matches!(headers.network, Network::V6 { .. }), "{error}"),
        }
        return;
    }
    assert!(headers.ip_bytes() <= most, "{} bytes do not fit {most}", headers.ip_bytes());
    let Checksum::Partial { start, offset } = left.checksum else { return };
    let frame = &mut packet[tunnel_bytes..];
    let at = usize::from(start) + usize::from(offset);
    let (from, to) = headers.addresses().unwrap();
    let message = usize::from(start)..headers.end as usize;
    let pseudo = |message: &[u8]| sum::with_pseudo(from, to, headers.protocol.0, message);
    let holds_pseudo = usize::from(start) == headers.transport_offset()
        && frame.get(at..at + 2) == Some(&pseudo(&vec![0; message.len()]).to_be_bytes()[..]);
    complete(frame, left.checksum).expect("the field lies within the frame");
    if holds_pseudo {
        assert_eq!(pseudo(&frame[message]), sum::VALID);
    }
}

fn check_segments(plan: &Cut, packet: &[u8], tunnel_bytes: usize, headers: &Headers, most: usize) {
    let (from, to) = headers.addresses().unwrap();
    let mut payload: Vec<u8> = vec![];
    for index in 0..plan.count() {
        let mut piece = vec![0; MAX_HEADERS];
        let range = plan.write(packet, index, &mut piece).expect("a planned segment");
        piece.truncate(plan.header_bytes());
        piece.extend(&packet[range.clone()]);
        assert_eq!(piece.len(), plan.segment_len(index));
        payload.extend(&packet[range]);
        let frame = &piece[tunnel_bytes..];
        let parsed = flow::check(frame).expect("a segment can be parsed");
        assert_eq!(parsed.end as usize, frame.len());
        assert!(parsed.ip_bytes() <= most, "a segment of {} bytes does not fit {most}", parsed.ip_bytes());
        assert_eq!(parsed.addresses(), Some((from, to)));
        let message = &frame[parsed.transport_offset()..];
        assert_eq!(sum::with_pseudo(from, to, parsed.protocol.0, message), sum::VALID);
    }
    assert_eq!(
        payload,
        packet[tunnel_bytes + headers.payload_offset()..],
        "all of the payload, once, in order"
    );
    assert!(plan.write(packet, plan.count(), &mut [0; MAX_HEADERS]).is_none());
    assert!(packet.len() > tunnel_bytes + ethernet::HEADER_BYTES);
}
