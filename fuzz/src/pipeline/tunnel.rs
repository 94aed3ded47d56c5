//! What may happen to a packet from between the hosts.

use std::sync::Arc;

use dataplane::desired::{Encapsulation, NextHop};
use dataplane::pipeline::{DropReason, Outer, Trap, Verdict};
use dataplane::tables::Port;
use dataplane::types::{CustomerIp, PortId, Vni};
use dataplane::wire::arp::Arp;
use dataplane::wire::flow::{Headers, Transport};

use super::Outcome;
use super::onward::{but_ttl, is_trapped, unwrapped};
use super::world::Host;
use crate::dice::Dice;
use crate::flow;

/// A frame behind a tunnel header: mostly of the given network, sometimes of another or with any eight bytes.
pub(super) fn wrapped(dice: &mut Dice<'_>, format: Encapsulation, vni: Vni, inner: &[u8]) -> Vec<u8> {
    let vni = match dice.byte() % 8 {
        0 => Vni::new(300).unwrap(),
        1 => Vni::new(777).unwrap(),
        2 => Vni::new(200).unwrap(),
        _ => vni,
    };
    let mut header = match format {
        Encapsulation::Vxlan => dataplane::wire::vxlan::to_bytes(vni).to_vec(),
        Encapsulation::Geneve => dataplane::wire::geneve::to_bytes(vni).to_vec(),
    };
    match dice.byte() % 8 {
        0 => header = dice.array::<8>().to_vec(),
        1 if format == Encapsulation::Geneve => {
            header[0] = 1 + dice.byte() % 2;
            header.extend([1, 2, dice.byte(), dice.byte() & 1]);
            header.resize(8 + usize::from(header[0]) * 4, 0);
        }
        _ => {}
    }
    [&header[..], inner].concat()
}

/// The port of this host that a tunnel packet is for: the one that has the inner destination, or that the network's
/// routes send it through.
pub(super) fn receiver<'h>(host: &'h Host, packet: &[u8]) -> Option<&'h Arc<Port>> {
    let (vni, inner) = unwrapped(&host.tables, packet)?;
    let (_, target) = Headers::parse(inner).ok()?.addresses()?;
    let of =
        |ip| host.tables.ports().find(|port| port.vni == vni && port.config.ips.contains(&CustomerIp(ip)));
    let routes = &host.tables.vnet_of(vni)?.config.routes;
    let covering = routes.iter().filter(|route| route.prefix.contains(&target));
    of(target).or_else(|| match covering.max_by_key(|route| route.prefix.prefix_len())?.via {
        NextHop::Ip(via) => of(via.0),
        _ => None,
    })
}

/// Strangers reach nobody; a delivery goes to the station that the inner packet names, in the network that the tunnel
/// header names, and is what was sent; an answer goes back into that network, and speaks for one of its ports.
pub(super) fn check(host: &Host, outer: &Outer, outcome: &Outcome, owner: Option<Option<PortId>>) {
    let hosts = host.writer.entries().into_iter().map(|entry| entry.location.physical_ip);
    if !hosts.chain([host.ip]).any(|known| known == outer.source) {
        assert_eq!(outcome.verdict, Verdict::Drop(DropReason::UnderlaySourceUnknown));
        assert_eq!(owner, Some(None), "counted for the underlay");
        return;
    }
    assert_ne!(outcome.verdict, Verdict::Drop(DropReason::UnderlaySourceUnknown));
    match outcome.verdict {
        Verdict::Deliver(id) => check_delivery(host, id, outer, outcome),
        Verdict::Reply(trap) => check_answer(host, trap, outcome, owner),
        Verdict::Drop(_) => {
            if let Some(Some(id)) = owner {
                let port = receiver(host, &outcome.before).expect("a port's drop is of a packet for a port");
                assert_eq!(port.id, id);
            }
        }
        other => panic!("{other:?} of a tunnel packet"),
    }
}

fn check_delivery(host: &Host, id: PortId, outer: &Outer, outcome: &Outcome) {
    let port = receiver(host, &outcome.before).expect("a port of the packet's network has its destination");
    assert_eq!(port.id, id, "delivered to somebody else");
    let (_, inner) = unwrapped(&host.tables, &outcome.before).unwrap();
    let before = flow::check(inner).unwrap();
    assert!(before.destination.is_unicast());
    assert!(!before.source_routed);
    let is_from_client = matches!(before.transport, Transport::Udp { destination: 67, .. });
    let is_solicitation = matches!(before.transport, Transport::Icmp { kind: 133, .. });
    assert!(!is_trapped(&before) || is_from_client || is_solicitation, "configures its receiver");
    let after = flow::check(&outcome.after).expect("what is delivered can be parsed");
    assert_eq!(outcome.after.len(), before.end as usize, "Ethernet's padding stays behind");
    assert_eq!((after.destination, after.source), (port.mac, before.source));
    let ecn = match (before.tos & 3, outer.traffic_class & 3) {
        (0, mark) => {
            assert_ne!(mark, 3, "congestion was marked for a flow that does not understand it");
            0
        }
        (_, 3) => 3,
        (2, 1) => 1,
        (inner, _) => inner,
    };
    assert_eq!(after.tos, before.tos & !3 | ecn);
    assert_eq!((after.hop_limit, after.addresses()), (before.hop_limit, before.addresses()));
    let rest = |frame: &[u8]| {
        let mut rest = but_ttl(frame);
        if rest[..2] == [8, 0] {
            rest[3] = 0
        } else {
            rest[2..4].fill(0)
        }
        rest
    };
    assert_eq!(rest(&outcome.after), rest(&inner[..outcome.after.len()]), "nothing else has changed");
}

fn check_answer(host: &Host, trap: Trap, outcome: &Outcome, owner: Option<Option<PortId>>) {
    let (asked_in, question) = unwrapped(&host.tables, &outcome.before).unwrap();
    let (told_in, answer) = unwrapped(&host.tables, &outcome.after).expect("our own tunnel header");
    assert_eq!(told_in, asked_in, "answered into another network");
    let owner = owner.flatten().and_then(|id| host.tables.port(id)).expect("answered for a port");
    assert_eq!(owner.vni, told_in);
    let headers = flow::check(answer).expect("an answer can be parsed");
    let (ip, mac) = match trap {
        Trap::Arp => {
            let told = Arp::parse(&answer[14..]).unwrap();
            assert_eq!(Arp::parse(&question[14..]).unwrap().target_ip, told.sender_ip);
            (told.sender_ip.into(), told.sender_mac)
        }
        Trap::NeighborSolicitation => (headers.addresses().unwrap().0, headers.source),
        other => panic!("{} is no answer to another host", other.name()),
    };
    assert!(owner.config.ips.contains(&CustomerIp(ip)) && mac == owner.mac, "speaks for its own port");
}
