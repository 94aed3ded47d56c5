//! Tunnel packets on their way in: from a host that the directory knows, for a network and an address that this host
//! has, to the port.
//!
//! Delivery is by (network, customer IP) alone; the inner destination MAC address is only asked to be no group's. Every
//! host of the directory is trusted to have checked that the source is its guest's; here it must only not be what lives
//! nowhere but on this host ([`source`]). What no host should ever have let through is still refused: DHCP servers' messages and router advertisements would let one guest configure another,
//! and a peer that is no switch of ours (a kernel bridge) passes on whatever its guests say. For the same peers, ARP and
//! neighbour solicitations for a port's address are answered, back through the tunnel. Nothing else that arrives is: no
//! ICMP error goes into the underlay.

use super::egress::{is_dhcp_server, is_router_v4, refuse_source_route};
use super::{
    BATCH, Context, Verdicts, claims, count, destination, ecn, encap, rewrite, route, rules, source,
};
use crate::conntrack::Guess;
use crate::desired::Direction;
use crate::drops::DropReason;
use crate::packet::{Checksum, Packet};
use crate::refusal;
use crate::tables::{Port, Vnet};
use crate::trap;
use crate::types::{CustomerIp, PhysicalIp, Vni};
use crate::verdict::Verdict;
use crate::wire::Protocol;
use crate::wire::ethernet::{self, EtherType};
use crate::wire::flow::{Headers, Network, Transport};

/// What the outer headers of a batch of tunnel packets said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// The sending host.
    pub source: PhysicalIp,
    /// DSCP and ECN.
    pub traffic_class: u8,
}

/// Handles tunnel packets, each beginning with its tunnel header, of one sender: at most [`BATCH`] of them, and
/// `verdicts` is filled with one for each.
pub fn ingress(context: &Context<'_>, outer: &Outer, packets: &mut [Packet<'_>], verdicts: &mut Verdicts) {
    debug_assert!(packets.len() <= BATCH, "a batch has at most {BATCH} packets");
    verdicts.clear();
    let is_known =
        context.directory.is_known_host(outer.source) || context.tables.is_own_physical_ip(outer.source);
    let mut arrivals = Arrivals { context, outer, vnet: None };
    for packet in packets.iter_mut().take(BATCH) {
        let mut owner = None;
        let verdict = if is_known {
            arrivals.judge(packet, &mut owner).unwrap_or_else(Verdict::Drop)
        } else {
            DropReason::UnderlaySourceUnknown.into()
        };
        if !matches!(verdict, Verdict::Deliver(_)) {
            let counters = owner.map_or(&context.tables.underlay_counters, |port| &port.counters);
            count(counters.of_worker(context.worker), &verdict);
        }
        let _ = verdicts.try_push(verdict);
    }
}

/// The packets of one sender.
struct Arrivals<'a> {
    context: &'a Context<'a>,
    outer: &'a Outer,
    /// The last packet's network: mostly the next one's too.
    vnet: Option<&'a Vnet>,
}

/// The port that a packet turned out to be for: the one to count for.
type Owner<'a> = Option<&'a Port>;

impl<'a> Arrivals<'a> {
    #[inline(always)]
    fn judge(&mut self, packet: &mut Packet<'_>, owner: &mut Owner<'a>) -> Result<Verdict, DropReason> {
        let vni = encap::decapsulate(packet, self.context.tables.underlay.encapsulation)?;
        let vnet = self.vnet_of(vni)?;
        // The same walk either way: in its copy for plain frames the compiler knows most answers.
        match Headers::parse_plain(packet.frame()) {
            Some(headers) => self.judge_inner(packet, owner, vnet, &headers),
            None => self.judge_any(packet, owner, vnet),
        }
    }

    /// The network, if it has ports here.
    #[inline]
    fn vnet_of(&mut self, vni: Vni) -> Result<&'a Vnet, DropReason> {
        if let Some(vnet) = self.vnet.filter(|vnet| vnet.vni == vni) {
            return Ok(vnet);
        }
        let vnet = self.context.tables.vnet_of(vni).filter(|vnet| vnet.has_ports());
        self.vnet = vnet.map(AsRef::as_ref);
        self.vnet.ok_or(DropReason::VniAbsent)
    }

    #[inline(never)]
    fn judge_any(
        &self,
        packet: &mut Packet<'_>,
        owner: &mut Owner<'a>,
        vnet: &'a Vnet,
    ) -> Result<Verdict, DropReason> {
        match &Headers::parse_any(packet.frame()) {
            Ok(headers) => self.judge_inner(packet, owner, vnet, headers),
            Err(error) => Err(refusal::of(error)),
        }
    }

    #[inline(always)]
    fn judge_inner(
        &self,
        packet: &mut Packet<'_>,
        owner: &mut Owner<'a>,
        vnet: &'a Vnet,
        headers: &Headers,
    ) -> Result<Verdict, DropReason> {
        let tables = self.context.tables;
        if let Network::Other = headers.network {
            return match headers.ethertype {
                EtherType::ARP => self.answer(packet, owner, vnet, trap::arp::answer_peer),
                _ => Err(DropReason::EthertypeUnsupported),
            };
        }
        refuse_source_route(headers)?;
        if is_dhcp_server(headers) {
            return Err(DropReason::DhcpServerForged);
        }
        if is_router_v4(headers) {
            return Err(DropReason::RouterAdvertisementForged);
        }
        if headers.protocol == Protocol::ICMPV6
            && let Transport::Icmp { kind, .. } = headers.transport
        {
            match kind {
                135 => {
                    return self.answer(packet, owner, vnet, |tables, vnet, packet| {
                        trap::nd::answer_peer(tables, vnet, packet, headers)
                    });
                }
                136 => return Err(DropReason::NdUnasked),
                134 | 137 => return Err(DropReason::RouterAdvertisementForged),
                _ => {}
            }
        }
        destination::check(headers)?;
        let Some((source, target)) = headers.addresses() else {
            return Err(DropReason::EthertypeUnsupported);
        };
        source::check(vnet, source)?;
        let port = route::arrive(tables, vnet, CustomerIp(target))?;
        *owner = Some(port);
        self.deliver(packet, headers, port)
    }

    #[inline(always)]
    fn deliver(
        &self,
        packet: &mut Packet<'_>,
        headers: &Headers,
        port: &Port,
    ) -> Result<Verdict, DropReason> {
        let traffic_class =
            ecn::combine(headers.tos, self.outer.traffic_class).ok_or(DropReason::TunnelEcn)?;
        let _ = packet.set_len(headers.end as usize);
        if !claims::check(packet, headers) {
            return Err(DropReason::OffloadInvalid);
        }
        rules::judge(self.context, port, Direction::In, packet.frame(), headers, Guess::NONE)?;
        if packet.offload.checksum == Checksum::Complete {
            packet.offload.checksum = claims::recognise(packet.frame(), headers);
        }
        let frame = packet.frame_mut();
        if traffic_class != headers.tos {
            rewrite::set_traffic_class(frame, headers, traffic_class)?;
        }
        ethernet::set_addresses(frame, port.mac, headers.source)
            .map_err(|_| DropReason::EthernetTruncated)?;
        Ok(Verdict::Deliver(port.id))
    }

    /// Lets a trap answer for one of the network's ports, and puts the tunnel header back in front.
    #[cold]
    fn answer(
        &self,
        packet: &mut Packet<'_>,
        owner: &mut Owner<'a>,
        vnet: &Vnet,
        trap: impl FnOnce(
            &'a crate::tables::Tables,
            &Vnet,
            &mut Packet<'_>,
        ) -> Result<(super::Trap, &'a Port), DropReason>,
    ) -> Result<Verdict, DropReason> {
        let (trap, port) = trap(self.context.tables, vnet, packet)?;
        *owner = Some(port);
        trap::may_answer_peer(self.context, port)?;
        encap::encapsulate(packet, self.context.tables.underlay.encapsulation, vnet.vni)?;
        Ok(Verdict::Reply(trap))
    }
}
