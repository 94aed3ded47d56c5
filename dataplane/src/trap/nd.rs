//! IPv6 neighbour and router discovery (RFC 4861): every solicitation is answered here, none is passed on.
//!
//! A station's own MAC address or the virtual router's: as ARP does it. A guest asks from one of its addresses, from
//! none (duplicate address detection, RFC 4862), or from a link-local address, which is its own choice: the answer goes
//! to its own port whatever it says. Advertisements of guests are dropped; the switch learns nothing from them.

use std::net::Ipv6Addr;

use super::Asker;
use crate::drops::DropReason;
use crate::packet::{Offload, Packet};
use crate::refusal;
use crate::tables::{Port, Tables, Vnet};
use crate::types::{CustomerIp, MacAddr};
use crate::verdict::{Trap, Verdict};
use crate::wire::ethernet::{self, EtherType, Ethernet};
use crate::wire::flow::{Fragment, Headers, Transport};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::nd::{
    ALL_NODES, Envelope, HOP_LIMIT, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_ADVERTISEMENT_BYTES,
    NEIGHBOUR_SOLICITATION, NeighbourAdvertisement, NeighbourSolicitation, ROUTER_SOLICITATION,
    RouterAdvertisement, RouterSolicitation,
};
use crate::wire::{NoRoom, ParseError, Protocol};

const MESSAGE_OFFSET: usize = ethernet::HEADER_BYTES + ipv6::HEADER_BYTES;
/// What guests are told to put into their packets: as Linux does by itself.
const GUESTS_HOP_LIMIT: u8 = 64;

/// Answers a guest.
#[cold]
pub(crate) fn answer(asker: &Asker<'_>, packet: &mut Packet<'_>, headers: &Headers) -> Verdict {
    let verdict = match headers.transport {
        // RFC 6980 section 5: never in pieces.
        _ if headers.fragment != Fragment::Whole => Err(DropReason::NdMalformed),
        Transport::Icmp { kind: ROUTER_SOLICITATION, .. } => advertise_router(asker, packet, headers),
        Transport::Icmp { kind: NEIGHBOUR_SOLICITATION, .. } => advertise_neighbour(asker, packet, headers),
        Transport::Icmp { kind: NEIGHBOUR_ADVERTISEMENT, .. } => {
            Err(refuse_advertisement(asker, packet, headers))
        }
        _ => Err(DropReason::RouterAdvertisementForged),
    };
    verdict.unwrap_or_else(Verdict::Drop)
}

fn advertise_neighbour(
    asker: &Asker<'_>,
    packet: &mut Packet<'_>,
    headers: &Headers,
) -> Result<Verdict, DropReason> {
    let envelope = Envelope::of(headers).ok_or(DropReason::NdMalformed)?;
    let question = NeighbourSolicitation::parse(message(packet, headers), &envelope).map_err(refused)?;
    check_asker(asker, envelope.source, question.source_mac)?;
    let is_own = asker.port.owns(CustomerIp::from(question.target));
    let is_probe = envelope.source.is_unspecified();
    match asker.resolve(CustomerIp::from(question.target)) {
        _ if is_own => Ok(Verdict::Absorbed(Trap::AddressProbe)),
        Some(mac) => {
            asker.may_answer()?;
            let from_router = mac == MacAddr::ROUTER;
            write_neighbour(packet, headers.source, envelope.source, question.target, (mac, from_router))?;
            Ok(Verdict::Reply(Trap::NeighborSolicitation))
        }
        // Most often the guest's own new link-local address, which nobody else on this link can have.
        None if is_probe => Ok(Verdict::Absorbed(Trap::AddressProbe)),
        None => Err(DropReason::NdUnknownTarget),
    }
}

/// Answers a solicitation that came through a tunnel, from a peer that is no switch of ours: for the addresses of this
/// host's ports.
pub(crate) fn answer_peer<'t>(
    tables: &'t Tables,
    vnet: &Vnet,
    packet: &mut Packet<'_>,
    headers: &Headers,
) -> Result<(Trap, &'t Port), DropReason> {
    if headers.fragment != Fragment::Whole {
        return Err(DropReason::NdMalformed);
    }
    let envelope = Envelope::of(headers).ok_or(DropReason::NdMalformed)?;
    let question = NeighbourSolicitation::parse(message(packet, headers), &envelope).map_err(refused)?;
    let port = vnet.local_port(CustomerIp::from(question.target)).and_then(|id| tables.port(id));
    let port = port.ok_or(DropReason::NdUnknownTarget)?;
    write_neighbour(packet, headers.source, envelope.source, question.target, (port.mac, false))?;
    Ok((Trap::NeighborSolicitation, port))
}

/// Router solicitation: the network's advertisement. Addresses are the switch's to give (M and O are set, prefixes are
/// on-link and not autonomous).
fn advertise_router(
    asker: &Asker<'_>,
    packet: &mut Packet<'_>,
    headers: &Headers,
) -> Result<Verdict, DropReason> {
    let envelope = Envelope::of(headers).ok_or(DropReason::NdMalformed)?;
    let question = RouterSolicitation::parse(message(packet, headers), &envelope).map_err(refused)?;
    check_asker(asker, envelope.source, question.source_mac)?;
    let told = asker.vnet.router_advertisement.as_ref().ok_or(DropReason::RouterAbsent)?;
    asker.may_answer()?;
    let lifetime = u32::from(told.router_lifetime_seconds);
    let advertisement = RouterAdvertisement {
        hop_limit: GUESTS_HOP_LIMIT,
        managed: true,
        other_config: true,
        router_lifetime_seconds: told.router_lifetime_seconds,
        mac: MacAddr::ROUTER,
        mtu: u32::from(told.mtu.bytes()),
        prefixes: &told.prefixes,
        on_link: true,
        autonomous: false,
        // No longer than the router: after a move, what was on this link must not stay so.
        valid_seconds: lifetime,
        preferred_seconds: lifetime,
        dns: &told.dns,
        dns_lifetime_seconds: lifetime,
    };
    let (from, to) = (MacAddr::ROUTER.link_local(), answer_to(envelope.source));
    write(packet, (MacAddr::ROUTER, headers.source), (from, to), advertisement.message_bytes(), |message| {
        advertisement.emit(message, from, to).map(drop)
    })?;
    Ok(Verdict::Reply(Trap::RouterSolicitation))
}

/// Nobody may claim another's address, and nobody is listened to.
fn refuse_advertisement(asker: &Asker<'_>, packet: &Packet<'_>, headers: &Headers) -> DropReason {
    let target = message(packet, headers).get(8..).and_then(<[u8]>::first_chunk::<16>);
    match target.map(|octets| Ipv6Addr::from_octets(*octets)) {
        None => DropReason::NdMalformed,
        Some(target) if asker.port.owns(CustomerIp::from(target)) => DropReason::NdUnasked,
        Some(target) if target.is_unicast_link_local() && target != MacAddr::ROUTER.link_local() => {
            DropReason::NdUnasked
        }
        Some(_) => DropReason::NdSpoofed,
    }
}

fn check_asker(asker: &Asker<'_>, source: Ipv6Addr, mac: Option<MacAddr>) -> Result<(), DropReason> {
    let is_own_choice = source.is_unspecified() || source.is_unicast_link_local();
    let is_honest = is_own_choice || asker.port.owns(CustomerIp::from(source));
    if is_honest && mac.is_none_or(|mac| mac == asker.port.mac) { Ok(()) } else { Err(DropReason::NdSpoofed) }
}

/// RFC 4861 section 7.2.4 and 6.2.6: who has no address yet is answered to all.
const fn answer_to(source: Ipv6Addr) -> Ipv6Addr {
    if source.is_unspecified() { ALL_NODES } else { source }
}

fn message<'p>(packet: &'p Packet<'_>, headers: &Headers) -> &'p [u8] {
    packet.frame().get(headers.transport_offset()..headers.end as usize).unwrap_or_default()
}

fn refused(error: ParseError) -> DropReason {
    match refusal::of(&error) {
        DropReason::TransportMalformed => DropReason::NdMalformed,
        reason => reason,
    }
}

fn write_neighbour(
    packet: &mut Packet<'_>,
    asker_mac: MacAddr,
    source: Ipv6Addr,
    target: Ipv6Addr,
    (mac, from_router): (MacAddr, bool),
) -> Result<(), DropReason> {
    let to = answer_to(source);
    let advertisement = NeighbourAdvertisement {
        from_router,
        solicited: !source.is_unspecified(),
        overrides: true,
        target,
        mac,
    };
    write(packet, (mac, asker_mac), (target, to), NEIGHBOUR_ADVERTISEMENT_BYTES, |message| {
        let need = NEIGHBOUR_ADVERTISEMENT_BYTES;
        let have = message.len();
        *message.first_chunk_mut().ok_or(NoRoom { need, have })? = advertisement.to_bytes(target, to);
        Ok(())
    })
}

/// Makes the packet one that holds `message_bytes` of ICMPv6 between the given stations.
fn write(
    packet: &mut Packet<'_>,
    (from_mac, to_mac): (MacAddr, MacAddr),
    (from, to): (Ipv6Addr, Ipv6Addr),
    message_bytes: usize,
    emit: impl FnOnce(&mut [u8]) -> Result<(), NoRoom>,
) -> Result<(), DropReason> {
    packet.offload = Offload::NONE;
    let (true, Ok(payload_bytes)) =
        (packet.set_len(MESSAGE_OFFSET + message_bytes), u16::try_from(message_bytes))
    else {
        return Err(DropReason::AnswerNoRoom);
    };
    let frame = packet.frame_mut();
    let ip = Ipv6 {
        traffic_class: 0,
        flow_label: 0,
        payload_bytes,
        next_header: Protocol::ICMPV6,
        hop_limit: HOP_LIMIT,
        source: from,
        destination: to,
    };
    let ethernet = Ethernet { destination: to_mac, source: from_mac, ethertype: EtherType::IPV6 };
    ethernet
        .emit(frame)
        .and_then(|()| ip.emit(frame.get_mut(ethernet::HEADER_BYTES..).unwrap_or_default()))
        .and_then(|()| emit(frame.get_mut(MESSAGE_OFFSET..).unwrap_or_default()))
        .map_err(|_| DropReason::AnswerNoRoom)
}
