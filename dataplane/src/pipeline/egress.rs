//! A guest's frames on their way out: to a trap, to another port of this host, or into a tunnel.
//!
//! Three passes over the batch: every frame is judged as far as it can be without the directory, and the directory is
//! asked to fetch what the rest will need; then the rest is resolved, rewritten and encapsulated. So the wait for one
//! entry's memory is spent on the other frames.
//!
//! The order of the checks is the guard: nothing but the source MAC address is asked of DHCP, ARP and neighbour
//! discovery, because a guest that was just moved speaks with its old address and must be answered; everything else must
//! come from one of the port's addresses.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::drops::DropReason;
use super::rewrite::{self, Manner};
use super::route::{self, Way};
use super::rules::{self, Direction};
use super::verdict::{Tunnel, Verdict};
use super::{BATCH, Context, Verdicts, claims, count, destination, encap, refusal};
use crate::directory::Hash;
use crate::packet::Packet;
use crate::tables::{METADATA, Port, Vnet, WIRESERVER};
use crate::trap::{self, Asker};
use crate::types::{CustomerIp, MacAddr};
use crate::wire::ethernet::{EtherType, Ethernet};
use crate::wire::flow::{self, Headers, Network, Transport};
use crate::wire::{ParseError, Protocol};

/// Handles frames from one port's device: at most [`BATCH`] of them, and `verdicts` is filled with one for each.
///
/// `port` must be of `context.tables`: frames of a port that is not are dropped as moved.
pub fn egress(context: &Context<'_>, port: &Port, packets: &mut [Packet<'_>], verdicts: &mut Verdicts) {
    debug_assert!(packets.len() <= BATCH, "a batch has at most {BATCH} packets");
    verdicts.clear();
    let cells = port.counters.of_worker(context.worker);
    let sender = Sender::new(context, port);
    let mut judged = ArrayVec::<Result<Question<'_>, Verdict>, BATCH>::new();
    for packet in packets.iter_mut().take(BATCH) {
        let step = match &sender {
            Some(sender) => sender.judge(packet),
            None => Err(DropReason::Moved.into()),
        };
        let _ = judged.try_push(step);
    }
    // All in one go: each may have to wait for its page's address, and the waits overlap only side by side.
    for question in judged.iter().flatten() {
        context.directory.prefetch(question.hash);
    }
    for (packet, step) in packets.iter_mut().zip(judged) {
        let verdict = match (step, &sender) {
            (Ok(question), Some(sender)) => {
                sender.resolve(packet, &question).unwrap_or_else(|verdict| verdict)
            }
            (Err(verdict), _) => verdict,
            (Ok(_), None) => DropReason::Moved.into(),
        };
        count(cells, &verdict);
        let _ = verdicts.try_push(verdict);
    }
}

/// A port and what its batch needs to know once.
struct Sender<'a> {
    context: &'a Context<'a>,
    port: &'a Port,
    vnet: &'a Vnet,
    /// The largest inner IP packet that fits the tunnels, in bytes.
    largest_inner: usize,
    has_v4: bool,
    has_v6: bool,
}

/// A frame that waits for the directory's word.
struct Question<'a> {
    vnet: &'a Vnet,
    station: CustomerIp,
    hash: Hash,
    /// Bytes of the largest IP packet that the frame stands for.
    ip_bytes: usize,
    manner: Manner,
    entropy: u16,
    traffic_class: u8,
}

impl<'a> Sender<'a> {
    fn new(context: &'a Context<'a>, port: &'a Port) -> Option<Self> {
        // A slot of other tables may hold another network by now: never mix the two.
        let vnet = context.tables.vnet(port.vnet).filter(|vnet| vnet.vni == port.vni)?;
        let underlay = &context.tables.underlay;
        Some(Self {
            context,
            port,
            vnet,
            largest_inner: usize::from(underlay.largest_inner_mtu()),
            has_v4: underlay.physical_ips.iter().any(|ip| ip.0.is_ipv4()),
            has_v6: underlay.physical_ips.iter().any(|ip| ip.0.is_ipv6()),
        })
    }

    const fn asker(&self) -> Asker<'a> {
        Asker { context: self.context, port: self.port, vnet: self.vnet }
    }

    /// As far as it goes without the directory. The error is the end.
    #[inline]
    fn judge(&self, packet: &mut Packet<'_>) -> Result<Question<'a>, Verdict> {
        // By reference: this is too large a value to be moved for every packet.
        let parsed = Headers::parse(packet.frame());
        let headers = match &parsed {
            Ok(headers) => headers,
            Err(error) => return Err(self.refuse(packet.frame(), error).into()),
        };
        if headers.source != self.port.mac {
            return Err(DropReason::SourceMacSpoofed.into());
        }
        if let Network::Other = headers.network {
            return Err(match headers.ethertype {
                EtherType::ARP => trap::arp::answer(&self.asker(), packet),
                _ => DropReason::EthertypeUnsupported.into(),
            });
        }
        refuse_source_route(headers)?;
        // Ethernet's padding ends here: it would travel for nothing, and could hold what its sender's memory held.
        let _ = packet.set_len(headers.end as usize);
        if !claims::check(packet, headers) {
            return Err(DropReason::OffloadInvalid.into());
        }
        if let Some(verdict) = self.trap_of_any_source(packet, headers) {
            return Err(verdict);
        }
        let Some((source, target)) = headers.addresses() else {
            return Err(DropReason::EthertypeUnsupported.into());
        };
        self.check_source(source, target)?;
        if let Some(verdict) = self.trap_of_own_source(packet, headers, target) {
            return Err(verdict);
        }
        rules::judge(self.context, self.port, Direction::Out, headers)?;
        destination::check(headers)?;
        let manner = Manner::of(headers);
        if manner.is_routed() && headers.hop_limit <= 1 {
            return Err(trap::icmp::time_exceeded(&self.asker(), packet, headers));
        }
        match route::route(self.context.tables, self.vnet, CustomerIp(target))? {
            Way::Local(receiver, vnet) => Err(self.deliver(packet, headers, manner, receiver, vnet)),
            Way::Remote(station, vnet) => {
                let [entropy, _] = halves(flow::flow_hash(headers, vnet.vni.value()));
                Ok(Question {
                    vnet,
                    station,
                    hash: self.context.directory.hash(vnet.vni, station),
                    ip_bytes: claims::largest_ip_bytes(packet.offload, headers),
                    manner,
                    entropy,
                    // RFC 6040 section 4.1, normal mode: as it is.
                    traffic_class: headers.tos,
                })
            }
        }
    }

    /// A frame that can't be parsed may still tell that it was forged.
    #[cold]
    fn refuse(&self, frame: &[u8], error: &ParseError) -> DropReason {
        match (error, Ethernet::parse(frame)) {
            (ParseError::VlanTagged { .. }, _) | (_, Err(_)) => refusal::of(error),
            (_, Ok(ethernet)) if ethernet.source != self.port.mac => DropReason::SourceMacSpoofed,
            (_, Ok(_)) => refusal::of(error),
        }
    }

    /// DHCP and neighbour discovery: answered whatever address the guest believes it has.
    #[inline]
    fn trap_of_any_source(&self, packet: &mut Packet<'_>, headers: &Headers) -> Option<Verdict> {
        match headers.transport {
            Transport::Udp { destination: 67, .. } if matches!(headers.network, Network::V4 { .. }) => {
                Some(trap::dhcpv4::answer(&self.asker(), packet, headers))
            }
            Transport::Udp { .. } if is_dhcp_server(headers) => Some(DropReason::DhcpServerForged.into()),
            Transport::Icmp { .. } if is_router_v4(headers) => {
                Some(DropReason::RouterAdvertisementForged.into())
            }
            Transport::Icmp { kind: 133..=137, .. } if headers.protocol == Protocol::ICMPV6 => {
                Some(trap::nd::answer(&self.asker(), packet, headers))
            }
            _ => None,
        }
    }

    #[inline]
    fn check_source(&self, source: IpAddr, target: IpAddr) -> Result<(), DropReason> {
        if self.port.owns(CustomerIp(source)) {
            self.port.progress.sent_packet(self.context.now);
            return Ok(());
        }
        match (source, target) {
            // Before it has an address, and for groups of the link, every guest speaks so (IGMP, MLD): no forgery.
            (IpAddr::V4(source), IpAddr::V4(target)) if source.is_unspecified() && target.is_multicast() => {
                Err(DropReason::Multicast)
            }
            (IpAddr::V6(source), IpAddr::V6(target))
                if target.is_multicast() && (source.is_unspecified() || source.is_unicast_link_local()) =>
            {
                Err(DropReason::Multicast)
            }
            // Its link-local address is the guest's own choice, and reaches nobody but the virtual router.
            (IpAddr::V6(source), IpAddr::V6(target))
                if source.is_unicast_link_local() && target == MacAddr::ROUTER.link_local() =>
            {
                Ok(())
            }
            _ => Err(DropReason::SourceIpSpoofed),
        }
    }

    /// What the virtual router itself is asked.
    #[inline]
    fn trap_of_own_source(
        &self,
        packet: &mut Packet<'_>,
        headers: &Headers,
        target: IpAddr,
    ) -> Option<Verdict> {
        // The door of the metadata service: TCP to either address will be a trap of its own.
        if target == METADATA || target == WIRESERVER {
            return Some(DropReason::GatewayUnserved.into());
        }
        self.vnet.is_gateway(CustomerIp(target)).then(|| trap::icmp::echo(&self.asker(), packet, headers))
    }

    /// To another port of this host.
    #[inline]
    fn deliver(
        &self,
        packet: &mut Packet<'_>,
        headers: &Headers,
        manner: Manner,
        receiver: &Port,
        vnet: &Vnet,
    ) -> Verdict {
        if receiver.id == self.port.id {
            return DropReason::HairpinToSender.into();
        }
        if claims::largest_ip_bytes(packet.offload, headers) > usize::from(vnet.mtu.bytes()) {
            return trap::icmp::too_big(&self.asker(), packet, headers, vnet.mtu.bytes());
        }
        let passed = rules::judge(self.context, receiver, Direction::In, headers)
            .and_then(|()| rewrite::forward(packet.frame_mut(), manner, self.port.mac, receiver.mac));
        match passed {
            Ok(()) => Verdict::Deliver(receiver.id),
            Err(reason) => reason.into(),
        }
    }

    /// Into a tunnel, if the directory knows whereto.
    #[inline]
    fn resolve(&self, packet: &mut Packet<'_>, question: &Question<'_>) -> Result<Verdict, Verdict> {
        let Question { vnet, station, hash, .. } = *question;
        let location =
            self.context.directory.lookup(hash, vnet.vni, station).ok_or(DropReason::DirectoryMiss)?;
        let to = location.physical_ip;
        if self.context.tables.is_own_physical_ip(to) {
            return Err(DropReason::DirectoryStale.into());
        }
        if !(if to.0.is_ipv4() { self.has_v4 } else { self.has_v6 }) {
            return Err(DropReason::UnderlayFamily.into());
        }
        let most = usize::from(vnet.mtu.bytes()).min(self.largest_inner);
        if question.ip_bytes > most {
            return Err(self.too_big(packet, most));
        }
        rewrite::forward(packet.frame_mut(), question.manner, self.port.mac, location.mac)?;
        encap::encapsulate(packet, self.context.tables.underlay.encapsulation, vnet.vni)?;
        Ok(Verdict::Underlay(Tunnel {
            to,
            entropy: question.entropy,
            traffic_class: question.traffic_class,
            header_bytes: encap::HEADER_BYTES,
        }))
    }

    #[cold]
    fn too_big(&self, packet: &mut Packet<'_>, most: usize) -> Verdict {
        match (Headers::parse(packet.frame()), u16::try_from(most)) {
            (Ok(headers), Ok(mtu)) => trap::icmp::too_big(&self.asker(), packet, &headers, mtu),
            _ => DropReason::TooBig.into(),
        }
    }
}

/// Refuses packets that prescribe their own way (RFC 7126 section 4.3, RFC 5095).
#[inline]
pub(super) const fn refuse_source_route(headers: &Headers) -> Result<(), DropReason> {
    match headers.network {
        _ if !headers.source_routed => Ok(()),
        Network::V6 { .. } => Err(DropReason::Ipv6ExtensionHeaders),
        Network::V4 { .. } | Network::Other => Err(DropReason::Ipv4SourceRoute),
    }
}

/// True for what only a DHCP server says: the switch is the only one. The source port tells nothing: clients do not look
/// at it.
#[inline]
pub(super) const fn is_dhcp_server(headers: &Headers) -> bool {
    matches!(
        (headers.network, headers.transport),
        (Network::V4 { .. }, Transport::Udp { destination: 68, .. })
            | (Network::V6 { .. }, Transport::Udp { destination: 546, .. })
    )
}

/// True for ICMP redirects (RFC 792) and router advertisements (RFC 1256): only routers send them, and a guest's way is
/// not another guest's to choose.
#[inline]
pub(super) const fn is_router_v4(headers: &Headers) -> bool {
    matches!((headers.network, headers.transport), (Network::V4 { .. }, Transport::Icmp { kind: 5 | 9, .. }))
}

#[inline]
const fn halves(hash: u32) -> [u16; 2] {
    let [a, b, c, d] = hash.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}
