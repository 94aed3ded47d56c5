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

use super::rewrite::{self, Manner};
use super::route::{self, Way};
use super::{BATCH, Context, Verdicts, claims, count, destination, encap, rules};
use crate::conntrack::Guess;
use crate::desired::Direction;
use crate::directory::Begun;
use crate::drops::DropReason;
use crate::packet::Packet;
use crate::refusal;
use crate::tables::{METADATA, Port, Vnet, WIRESERVER};
use crate::trap::{self, Asker};
use crate::types::{CustomerIp, MacAddr};
use crate::verdict::{Tunnel, Verdict};
use crate::wire::ethernet::{EtherType, Ethernet};
use crate::wire::flow::{self, Fragment, Headers, Network, Transport};
use crate::wire::{ParseError, Protocol};

/// Handles frames from one port's device: at most [`BATCH`] of them, and `verdicts` is filled with one for each.
///
/// `port` must be of `context.tables`: frames of a port that is not are dropped as moved.
pub fn egress(context: &Context<'_>, port: &Port, packets: &mut [Packet<'_>], verdicts: &mut Verdicts) {
    debug_assert!(packets.len() <= BATCH, "a batch has at most {BATCH} packets");
    verdicts.clear();
    let Some(sender) = Sender::new(context, port) else {
        let moved = packets.iter().take(BATCH).map(|_| Verdict::from(DropReason::Moved));
        verdicts.extend(moved);
        port.counters.of_worker(context.worker).dropped(DropReason::Moved, verdicts.len() as u64);
        return;
    };
    verdicts.extend(packets.iter().take(BATCH).map(|_| UNANSWERED));
    let mut questions = Questions::new();
    sender.judge_all(packets, verdicts, &mut questions);
    // All in one go: each may have to wait for its page's address, and the waits overlap only side by side.
    let begun = questions.iter().map(|question| context.directory.begin(question.vnet.vni, question.station));
    let begun: ArrayVec<Begun<'_>, BATCH> = begun.collect();
    sender.resolve_all(packets, verdicts, &questions, &begun);
    let cells = port.counters.of_worker(context.worker);
    for verdict in verdicts.iter() {
        count(cells, verdict);
    }
}

/// What becomes of a frame for which the directory was not asked, or did not know.
const UNANSWERED: Verdict = Verdict::Drop(DropReason::DirectoryMiss);

/// A port and what its batch needs to know once.
struct Sender<'a> {
    context: &'a Context<'a>,
    port: &'a Port,
    vnet: &'a Vnet,
    /// The largest inner IP packet that fits the tunnels, in bytes.
    largest_inner: usize,
}

/// A frame that waits for the directory's word.
struct Question<'a> {
    /// The frame's place in the batch.
    number: usize,
    vnet: &'a Vnet,
    station: CustomerIp,
    /// Bytes of the largest IP packet that the frame stands for.
    ip_bytes: usize,
    manner: Manner,
    entropy: u16,
    traffic_class: u8,
}

/// A batch's frames that wait for the directory's word, in its order.
type Questions<'a> = ArrayVec<Question<'a>, BATCH>;

impl<'a> Sender<'a> {
    fn new(context: &'a Context<'a>, port: &'a Port) -> Option<Self> {
        // A slot of other tables may hold another network by now: never mix the two.
        let vnet = context.tables.vnet(port.vnet).filter(|vnet| vnet.vni == port.vni)?;
        let largest_inner = usize::from(context.tables.underlay.largest_inner_mtu());
        Some(Self { context, port, vnet, largest_inner })
    }

    const fn asker(&self) -> Asker<'a> {
        Asker { context: self.context, port: self.port, vnet: self.vnet }
    }

    // This pass and the last one are functions of their own: together they would need more registers than there are.
    #[inline(never)]
    fn judge_all(&self, packets: &mut [Packet<'_>], verdicts: &mut [Verdict], questions: &mut Questions<'a>) {
        let mut rest = verdicts.iter_mut().enumerate();
        for packets in packets.chunks_mut(rules::AHEAD) {
            let guesses = rules::look_ahead(self.port, packets);
            for ((packet, guess), (number, verdict)) in packets.iter_mut().zip(guesses).zip(&mut rest) {
                // The same walk either way: in its copy for plain frames the compiler knows most answers.
                match Headers::parse_plain(packet.frame()) {
                    Some(headers) => note(self.judge(number, packet, &headers, guess), verdict, questions),
                    None => note(self.judge_any(number, packet), verdict, questions),
                }
            }
        }
    }

    #[inline(never)]
    fn resolve_all(
        &self,
        packets: &mut [Packet<'_>],
        verdicts: &mut [Verdict],
        questions: &Questions<'a>,
        begun: &[Begun<'_>],
    ) {
        for (question, &begun) in questions.iter().zip(begun) {
            let of_question = (packets.get_mut(question.number), verdicts.get_mut(question.number));
            let (Some(packet), Some(verdict)) = of_question else { continue };
            match self.resolve(packet, question, begun, verdict) {
                Ok(()) => {}
                Err(DropReason::TooBig) => *verdict = self.too_big(packet, question.vnet),
                Err(reason) => *verdict = Verdict::Drop(reason),
            }
        }
    }

    #[inline(never)]
    fn judge_any(&self, number: usize, packet: &mut Packet<'_>) -> Result<Question<'a>, Verdict> {
        // By reference: this is too large a value to be moved for every packet.
        match &Headers::parse_any(packet.frame()) {
            Ok(headers) => self.judge(number, packet, headers, Guess::NONE),
            Err(error) => Err(self.refuse(packet.frame(), error).into()),
        }
    }

    /// As far as it goes without the directory. The error is the end.
    #[inline(always)]
    fn judge(
        &self,
        number: usize,
        packet: &mut Packet<'_>,
        headers: &Headers,
        guess: Guess,
    ) -> Result<Question<'a>, Verdict> {
        if headers.source.to_number() != self.port.mac.to_number() {
            return Err(DropReason::SourceMacSpoofed.into());
        }
        let Some((source, target)) = headers.addresses() else {
            return Err(match headers.ethertype {
                EtherType::ARP => trap::arp::answer(&self.asker(), packet),
                _ => DropReason::EthertypeUnsupported.into(),
            });
        };
        refuse_source_route(headers)?;
        // Ethernet's padding ends here: it would travel for nothing, and could hold what its sender's memory held.
        let _ = packet.set_len(headers.end as usize);
        if !claims::check(packet, headers) {
            return Err(DropReason::OffloadInvalid.into());
        }
        if let Some(verdict) = self.trap_of_any_source(packet, headers) {
            return Err(verdict);
        }
        self.check_source(source, target)?;
        if let Some(verdict) = self.trap_of_own_source(packet, headers, target) {
            return Err(verdict);
        }
        // First: what goes nowhere begins no connection.
        destination::check(headers)?;
        rules::judge(self.context, self.port, Direction::Out, packet.frame(), headers, guess)?;
        let manner = Manner::of(headers);
        if manner.is_routed() && headers.hop_limit <= 1 {
            return Err(trap::icmp::time_exceeded(&self.asker(), packet, headers));
        }
        match route::route(self.context.tables, self.vnet, CustomerIp(target))? {
            Way::Remote(vnet) => Ok(self.ask(number, packet, headers, vnet, CustomerIp(target))),
            Way::Local(receiver, vnet) => Err(self.deliver(packet, headers, manner, receiver, vnet)),
            Way::Via(station, vnet) => Ok(self.ask_via(number, packet, headers, vnet, station)),
        }
    }

    /// Which station the directory is to be asked for, and all that will be needed of the headers then.
    #[inline(always)]
    fn ask(
        &self,
        number: usize,
        packet: &Packet<'_>,
        headers: &Headers,
        vnet: &'a Vnet,
        station: CustomerIp,
    ) -> Question<'a> {
        let [entropy, _] = halves(flow::flow_hash(headers, vnet.vni.value()));
        Question {
            number,
            vnet,
            station,
            ip_bytes: claims::largest_ip_bytes(packet.offload, headers),
            manner: Manner::of(headers),
            entropy,
            // RFC 6040 section 4.1, normal mode: as it is.
            traffic_class: headers.tos,
        }
    }

    /// The same for a station of either family: rarer, and not worth a copy of its own everywhere.
    #[inline(never)]
    fn ask_via(
        &self,
        number: usize,
        packet: &Packet<'_>,
        headers: &Headers,
        vnet: &'a Vnet,
        station: CustomerIp,
    ) -> Question<'a> {
        self.ask(number, packet, headers, vnet, station)
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
        if target == METADATA || target == WIRESERVER {
            // Before the rules: no rule of a port cuts its guest off from what configures it.
            let is_served = self.context.tables.has_endpoint() && is_to_metadata(headers);
            return Some(if is_served { Verdict::Detour } else { DropReason::GatewayUnserved.into() });
        }
        self.vnet.is_gateway(CustomerIp(target)).then(|| trap::icmp::echo(&self.asker(), packet, headers))
    }

    /// To another port of this host.
    #[inline(never)]
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
        let passed =
            rules::judge(self.context, receiver, Direction::In, packet.frame(), headers, Guess::NONE)
                .and_then(|()| rewrite::forward(packet.frame_mut(), manner, self.port.mac, receiver.mac));
        match passed {
            Ok(()) => Verdict::Deliver(receiver.id),
            Err(reason) => reason.into(),
        }
    }

    /// The largest IP packet that goes from the network into a tunnel.
    #[inline]
    fn most_bytes(&self, vnet: &Vnet) -> usize {
        usize::from(vnet.mtu.bytes()).min(self.largest_inner)
    }

    /// Into a tunnel, if the directory knows whereto; the verdict is then written in place. The sender of what is too big
    /// is still to be told.
    #[inline(always)]
    fn resolve(
        &self,
        packet: &mut Packet<'_>,
        question: &Question<'_>,
        begun: Begun<'_>,
        verdict: &mut Verdict,
    ) -> Result<(), DropReason> {
        let Question { vnet, station, .. } = *question;
        let location =
            self.context.directory.end(begun, vnet.vni, station).ok_or(DropReason::DirectoryMiss)?;
        let to = location.physical_ip;
        if self.context.tables.is_own_physical_ip(to) {
            return Err(DropReason::DirectoryStale);
        }
        if !self.context.tables.has_family_of(to) {
            return Err(DropReason::UnderlayFamily);
        }
        if question.ip_bytes > self.most_bytes(vnet) {
            return Err(DropReason::TooBig);
        }
        rewrite::forward(packet.frame_mut(), question.manner, self.port.mac, location.mac)?;
        encap::encapsulate(packet, self.context.tables.underlay.encapsulation, vnet.vni)?;
        *verdict = Verdict::Underlay(Tunnel {
            to,
            entropy: question.entropy,
            traffic_class: question.traffic_class,
            header_bytes: encap::HEADER_BYTES,
        });
        Ok(())
    }

    #[cold]
    fn too_big(&self, packet: &mut Packet<'_>, vnet: &Vnet) -> Verdict {
        match (Headers::parse(packet.frame()), u16::try_from(self.most_bytes(vnet))) {
            (Ok(headers), Ok(mtu)) => trap::icmp::too_big(&self.asker(), packet, &headers, mtu),
            _ => DropReason::TooBig.into(),
        }
    }
}

#[inline(always)]
fn note<'a>(step: Result<Question<'a>, Verdict>, verdict: &mut Verdict, questions: &mut Questions<'a>) {
    match step {
        Ok(question) => drop(questions.try_push(question)),
        Err(known) => *verdict = known,
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

/// True for whole segments to the port of the link-local services.
#[cold]
fn is_to_metadata(headers: &Headers) -> bool {
    headers.fragment == Fragment::Whole && matches!(headers.transport, Transport::Tcp { destination: 80, .. })
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
