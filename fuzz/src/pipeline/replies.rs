//! What the switch's own answers to a guest must be.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::packet::Offload;
use dataplane::pipeline::Trap;
use dataplane::tables::{METADATA, Port, WIRESERVER};
use dataplane::types::{CustomerIp, MacAddr};
use dataplane::wire::arp::{Arp, Operation};
use dataplane::wire::dhcpv4::{Message, MessageType};
use dataplane::wire::flow::{Headers, Network, Transport};
use dataplane::wire::{Protocol, icmpv4, icmpv6};

use super::Outcome;
use super::world::Host;
use crate::{flow, sum};

/// It goes to the asker's own address, its checksums are right, and it says nothing that the tables and the directory
/// do not say.
pub(super) fn check(host: &Host, asker: &Port, trap: Trap, outcome: &Outcome) {
    let answer = flow::check(&outcome.after).expect("an answer can be parsed");
    let is_dhcp = matches!(trap, Trap::DhcpOffer | Trap::DhcpAck | Trap::DhcpNak | Trap::DhcpInform);
    let is_to_all = is_dhcp && answer.destination == MacAddr::BROADCAST;
    assert!(answer.destination == asker.mac || is_to_all, "answers go to the asker");
    assert_eq!(outcome.left, Offload::NONE, "answers are complete");
    if trap == Trap::Echo {
        return check_echo(host, asker, outcome, &answer);
    }
    if answer.network != Network::Other {
        assert_eq!(answer.end as usize, outcome.after.len(), "nothing stands behind the answer");
        assert!(answer.ip_bytes() <= 1500 && has_right_checksum(&answer, &outcome.after));
    }
    match trap {
        Trap::Arp => check_arp(host, asker, outcome),
        Trap::TooBig | Trap::TimeExceeded => check_error(host, asker, trap, outcome, &answer),
        Trap::NeighborSolicitation => check_neighbour(host, asker, outcome, &answer),
        Trap::RouterSolicitation => {
            assert_eq!(message(&answer, &outcome.after)[..2], [134, 0]);
            assert_eq!((answer.hop_limit, answer.source), (255, MacAddr::ROUTER));
        }
        Trap::DhcpOffer | Trap::DhcpAck | Trap::DhcpNak | Trap::DhcpInform => {
            check_dhcp(asker, trap, outcome, &answer);
        }
        Trap::Echo | Trap::AddressProbe | Trap::DhcpRelease | Trap::DhcpDecline | Trap::Metadata => {
            panic!("{} is not answered", trap.name());
        }
    }
}

fn message<'f>(headers: &Headers, frame: &'f [u8]) -> &'f [u8] {
    &frame[headers.transport_offset()..headers.end as usize]
}

fn has_right_checksum(headers: &Headers, frame: &[u8]) -> bool {
    let (from, to) = headers.addresses().unwrap();
    let sum = match headers.protocol {
        Protocol::ICMPV4 => sum::of(message(headers, frame)),
        protocol => sum::with_pseudo(from, to, protocol.0, message(headers, frame)),
    };
    sum == sum::VALID
}

/// Whether a guest may learn that `ip` is at `mac`.
fn is_told(host: &Host, asker: &Port, ip: IpAddr, mac: MacAddr) -> bool {
    let ip = CustomerIp(ip);
    assert!(!asker.config.ips.contains(&ip), "nobody is told who has his own address");
    let vnet = host.tables.vnet_of(asker.vni).unwrap();
    let is_service = vnet.is_gateway(ip) || ip.0 == METADATA || ip.0 == WIRESERVER;
    // A port of this host is where it is, whatever the directory has been told.
    let here = vnet.local_port(ip).and_then(|id| host.tables.port(id)).map(|port| port.mac);
    let known = here.or_else(|| host.writer.get(asker.vni, ip).map(|location| location.mac));
    let is_neighbour = vnet
        .config
        .subnets
        .iter()
        .any(|subnet| subnet.contains(ip) && asker.config.ips.iter().any(|own| subnet.contains(*own)));
    match known {
        _ if is_service => mac == MacAddr::ROUTER,
        Some(known) if is_neighbour => mac == known,
        Some(_) => mac == MacAddr::ROUTER,
        None => false,
    }
}

fn check_arp(host: &Host, asker: &Port, outcome: &Outcome) {
    let question = Arp::parse(&outcome.before[14..]).expect("an ARP answer answers ARP");
    let answer = Arp::parse(&outcome.after[14..]).expect("an ARP answer is ARP");
    assert_eq!(outcome.after.len(), 42);
    assert_eq!((question.operation, answer.operation), (Operation::Request, Operation::Reply));
    let asks_as = CustomerIp::from(question.sender_ip);
    assert!(question.sender_ip.is_unspecified() || asker.config.ips.contains(&asks_as), "asks as {asks_as}");
    assert_eq!((answer.target_mac, answer.target_ip), (asker.mac, question.sender_ip));
    assert_eq!(answer.sender_ip, question.target_ip);
    assert!(is_told(host, asker, answer.sender_ip.into(), answer.sender_mac));
}

fn check_neighbour(host: &Host, asker: &Port, outcome: &Outcome, answer: &Headers) {
    let question = Headers::parse(&outcome.before).unwrap();
    let asked = &message(&question, &outcome.before)[8..24];
    let told = message(answer, &outcome.after);
    assert_eq!((&told[..2], &told[8..24]), (&[136, 0][..], asked));
    let Network::V6 { source, .. } = answer.network else { panic!("an advertisement over IPv4") };
    assert_eq!((&source.octets()[..], answer.hop_limit), (asked, 255));
    let mac = MacAddr(told[26..32].try_into().unwrap());
    assert_eq!(answer.source, mac);
    assert!(is_told(host, asker, source.into(), mac));
}

fn check_echo(host: &Host, asker: &Port, outcome: &Outcome, answer: &Headers) {
    let question = Headers::parse(&outcome.before).unwrap();
    let (from, to) = question.addresses().unwrap();
    assert_eq!(answer.addresses(), Some((to, from)));
    assert!(
        host.tables.vnet_of(asker.vni).unwrap().is_gateway(CustomerIp(to)),
        "the gateway speaks for itself"
    );
    let (asked, told) = (message(&question, &outcome.before), message(answer, &outcome.after));
    assert_eq!(told[4..], asked[4..]);
    assert!(matches!(
        (asked[0], told[0]),
        (icmpv4::ECHO_REQUEST, icmpv4::ECHO_REPLY) | (icmpv6::ECHO_REQUEST, icmpv6::ECHO_REPLY)
    ));
    assert_eq!((answer.source, answer.hop_limit), (MacAddr::ROUTER, 64));
    assert_eq!(has_right_checksum(answer, &outcome.after), has_right_checksum(&question, &outcome.before));
}

fn check_error(host: &Host, asker: &Port, trap: Trap, outcome: &Outcome, answer: &Headers) {
    let question = Headers::parse(&outcome.before).unwrap();
    assert!(question.may_provoke_error(), "no error about an error");
    let (from, _) = question.addresses().unwrap();
    let (speaker, to) = answer.addresses().unwrap();
    assert_eq!(to, from, "the sender is told");
    assert!(host.tables.vnet_of(asker.vni).unwrap().is_gateway(CustomerIp(speaker)), "by its gateway");
    let told = message(answer, &outcome.after);
    let quoted = &told[8..];
    assert_eq!(quoted, &outcome.before[14..14 + quoted.len()], "quotes what was sent");
    let most = if from.is_ipv4() { 576 } else { 1280 };
    let header_bytes = answer.ip_bytes() - quoted.len();
    assert_eq!(answer.ip_bytes(), most.min(header_bytes + question.ip_bytes()), "quotes all that fits");
    let kind = match (trap, from.is_ipv4()) {
        (Trap::TooBig, true) => [3, 4],
        (Trap::TooBig, false) => [2, 0],
        (_, true) => [11, 0],
        (_, false) => [3, 0],
    };
    assert_eq!(told[..2], kind);
    if trap == Trap::TimeExceeded {
        assert!(question.hop_limit <= 1 && question.destination == MacAddr::ROUTER);
        return;
    }
    let mtu = usize::from(u16::from_be_bytes([told[6], told[7]]));
    let sent = match outcome.asked.segmentation {
        Some(cut) => question.payload_offset() - 14 + usize::from(cut.segment_bytes),
        None => question.ip_bytes(),
    };
    assert!((576..=1500).contains(&mtu) && mtu < sent, "{sent} bytes are too big for {mtu}");
}

fn check_dhcp(asker: &Port, trap: Trap, outcome: &Outcome, answer: &Headers) {
    assert!(matches!(answer.transport, Transport::Udp { source: 67, destination: 68 }));
    let question = Headers::parse(&outcome.before).unwrap();
    let asked = Message::parse(&outcome.before[question.payload_offset()..question.end as usize]).unwrap();
    let told = Message::parse(&outcome.after[answer.payload_offset()..]).expect("a lawful message");
    let lease = asker.lease.as_ref().expect("no lease, no answer");
    assert!(told.is_reply && !asked.is_reply);
    assert_eq!((told.xid, told.chaddr), (asked.xid, asker.mac));
    assert_eq!(asked.chaddr, asker.mac, "nobody is answered for another");
    assert!(answer.ip_bytes() <= usize::from(lease.mtu.bytes()));
    let (kind, address) = match trap {
        Trap::DhcpOffer => (MessageType::Offer, lease.address),
        Trap::DhcpAck => (MessageType::Ack, lease.address),
        Trap::DhcpInform => (MessageType::Ack, [0; 4].into()),
        _ => (MessageType::Nak, [0; 4].into()),
    };
    assert_eq!((told.message_type, told.yiaddr), (Some(kind), address));
    let was = |kinds: &[MessageType]| asked.message_type.is_some_and(|kind| kinds.contains(&kind));
    assert!(match trap {
        Trap::DhcpOffer => was(&[MessageType::Discover]) && !asked.rapid_commit,
        Trap::DhcpAck => was(&[MessageType::Request]) || was(&[MessageType::Discover]) && asked.rapid_commit,
        Trap::DhcpInform => was(&[MessageType::Inform]),
        _ => was(&[MessageType::Request]),
    });
    // An acknowledged address is the lease's, a refused one is not.
    let named = [asked.requested_ip, Some(asked.ciaddr).filter(|ip| !ip.is_unspecified())];
    match trap {
        Trap::DhcpAck if was(&[MessageType::Request]) => assert!(named.contains(&Some(lease.address))),
        Trap::DhcpNak => {
            assert!(named.iter().flatten().any(|ip| *ip != lease.address));
            if answer.destination != MacAddr::BROADCAST {
                // To an address only if the asker has just spoken from it to one server.
                let (from, to) = question.addresses().unwrap();
                assert_eq!((answer.addresses().unwrap().1, IpAddr::V4(asked.ciaddr)), (from, from));
                assert!(to != IpAddr::V4(Ipv4Addr::BROADCAST) && !to.is_multicast());
            }
        }
        _ => {}
    }
    if trap != Trap::DhcpNak {
        assert_eq!(told.server_id, Some(lease.gateway));
    }
}
