//! ICMP and ICMPv6 as the virtual router speaks it: echoes to it are answered, and a sender learns why its packet
//! ended here.
//!
//! Errors quote the packet that caused them, which stays where it is: their headers are written in front of it. Each
//! packet causes at most one, which goes back to the port that sent it, and a port gets only so many (RFC 1812 section
//! 4.3.2.8, RFC 4443 section 2.4 (f)).

use std::net::IpAddr;

use super::Asker;
use crate::drops::DropReason;
use crate::packet::{Offload, Packet};
use crate::tables::Vnet;
use crate::types::{CustomerIp, MacAddr};
use crate::verdict::{Trap, Verdict};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::flow::{Fragment, Headers, Network, Transport};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{NoRoom, Protocol, checksum, icmpv4, icmpv6};

/// As Linux and most routers send.
const HOP_LIMIT: u8 = 64;

/// Answers an echo request to the virtual router; it has no other service.
#[cold]
pub(crate) fn echo(asker: &Asker<'_>, packet: &mut Packet<'_>, headers: &Headers) -> Verdict {
    let is_request = matches!(
        (headers.protocol, headers.transport),
        (Protocol::ICMPV4, Transport::Icmp { kind: icmpv4::ECHO_REQUEST, .. })
            | (Protocol::ICMPV6, Transport::Icmp { kind: icmpv6::ECHO_REQUEST, .. })
    );
    if headers.fragment != Fragment::Whole || !is_request {
        return DropReason::GatewayUnserved.into();
    }
    if let Err(reason) = asker.may_answer() {
        return reason.into();
    }
    packet.offload = Offload::NONE;
    let frame = packet.frame_mut();
    let Some((network, message)) = frame.split_at_mut_checked(headers.transport_offset()) else {
        return DropReason::TransportMalformed.into();
    };
    let is_answered = match headers.network {
        Network::V4 { .. } => icmpv4::answer_echo(message),
        // The addresses change places, so the pseudo-header's sum stays.
        Network::V6 { .. } => icmpv6::answer_echo(message),
        Network::Other => false,
    };
    if !is_answered {
        return DropReason::GatewayUnserved.into();
    }
    let Some((ethernet, network)) = network.split_at_mut_checked(ethernet::HEADER_BYTES) else {
        return DropReason::EthernetTruncated.into();
    };
    let turned = match headers.network {
        Network::V4 { .. } => turn_round_v4(network),
        _ => turn_round_v6(network),
    };
    match turned.and_then(|()| ethernet::set_addresses(ethernet, headers.source, MacAddr::ROUTER).ok()) {
        Some(()) => Verdict::Reply(Trap::Echo),
        None => DropReason::AnswerNoRoom.into(),
    }
}

/// Swaps the addresses, whose sum stays the same, and sets the time to live.
fn turn_round_v4(header: &mut [u8]) -> Option<()> {
    let [_, _, _, _, _, _, _, _, ttl, protocol, c0, c1, addresses @ ..] =
        header.first_chunk_mut::<{ ipv4::HEADER_BYTES }>()?;
    let old = u16::from_be_bytes([*ttl, *protocol]);
    *ttl = HOP_LIMIT;
    let new = u16::from_be_bytes([*ttl, *protocol]);
    [*c0, *c1] = checksum::update(u16::from_be_bytes([*c0, *c1]), old, new).to_be_bytes();
    addresses.rotate_left(4);
    Some(())
}

fn turn_round_v6(header: &mut [u8]) -> Option<()> {
    let [_, _, _, _, _, _, _, hop_limit, addresses @ ..] =
        header.first_chunk_mut::<{ ipv6::HEADER_BYTES }>()?;
    *hop_limit = HOP_LIMIT;
    addresses.rotate_left(16);
    Some(())
}

/// Tells the sender what fits: "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443 section 3.2).
///
/// IPv4 senders are told also when they allow routers to fragment: this router doesn't. Fragments cost every later hop
/// more than they cost the sender to avoid, and Linux takes the answer as the path's MTU and fragments by itself.
#[cold]
pub(crate) fn too_big(asker: &Asker<'_>, packet: &mut Packet<'_>, headers: &Headers, mtu: u16) -> Verdict {
    let problem = Problem {
        v4: icmpv4::Problem::FragmentationNeeded { next_hop_mtu: mtu },
        v6: icmpv6::Problem::PacketTooBig { mtu: u32::from(mtu) },
    };
    match complain(asker, packet, headers, problem, DropReason::TooBig) {
        Ok(()) => Verdict::Reply(Trap::TooBig),
        Err(reason) => reason.into(),
    }
}

/// Tells the sender that its packet took too many hops (RFC 1812 section 5.3.1, RFC 4443 section 3.3).
#[cold]
pub(crate) fn time_exceeded(asker: &Asker<'_>, packet: &mut Packet<'_>, headers: &Headers) -> Verdict {
    let problem = Problem { v4: icmpv4::Problem::TtlExceeded, v6: icmpv6::Problem::HopLimitExceeded };
    match complain(asker, packet, headers, problem, DropReason::TtlExceeded) {
        Ok(()) => Verdict::Reply(Trap::TimeExceeded),
        Err(reason) => reason.into(),
    }
}

struct Problem {
    v4: icmpv4::Problem,
    v6: icmpv6::Problem,
}

/// Makes the packet the quotation in an error to its sender. `silent` when there must be none, or there is no room for it.
fn complain(
    asker: &Asker<'_>,
    packet: &mut Packet<'_>,
    headers: &Headers,
    problem: Problem,
    silent: DropReason,
) -> Result<(), DropReason> {
    if !headers.may_provoke_error() {
        return Err(silent);
    }
    asker.may_answer()?;
    quote(asker.vnet, packet, headers, &problem).ok_or(silent)
}

fn quote(vnet: &Vnet, packet: &mut Packet<'_>, headers: &Headers, problem: &Problem) -> Option<()> {
    let (header_bytes, most) = match headers.network {
        Network::V4 { .. } => (ipv4::HEADER_BYTES + icmpv4::HEADER_BYTES, icmpv4::QUOTE_BYTES),
        Network::V6 { .. } => (ipv6::HEADER_BYTES + icmpv6::HEADER_BYTES, icmpv6::QUOTE_BYTES),
        Network::Other => return None,
    };
    let quoted = headers.ip_bytes().min(most);
    packet.push_front(header_bytes)?;
    packet.offload = Offload::NONE;
    if !packet.set_len(ethernet::HEADER_BYTES + header_bytes + quoted) {
        return None;
    }
    emit(vnet, packet.frame_mut(), headers, problem).ok().flatten()
}

/// Writes all headers in front of the quotation, which stands at the end of `frame`.
fn emit(vnet: &Vnet, frame: &mut [u8], headers: &Headers, problem: &Problem) -> Result<Option<()>, NoRoom> {
    let ethernet =
        Ethernet { destination: headers.source, source: MacAddr::ROUTER, ethertype: headers.ethertype };
    ethernet.emit(frame)?;
    let packet = frame.get_mut(ethernet::HEADER_BYTES..).unwrap_or_default();
    let Ok(bytes) = u16::try_from(packet.len()) else { return Ok(None) };
    match headers.network {
        Network::V4 { source: to, .. } => {
            let gateway = vnet.subnet_of(CustomerIp::from(to)).map(|subnet| subnet.gateway.0);
            let Some(IpAddr::V4(from)) = gateway else { return Ok(None) };
            let message = packet.get_mut(ipv4::HEADER_BYTES..).unwrap_or_default();
            icmpv4::emit_error(message, problem.v4)?;
            Ipv4 {
                header_bytes: 20,
                // RFC 1812 section 4.3.2.5: errors travel as internetwork control.
                tos: 0xc0,
                total_bytes: bytes,
                identification: 0,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                ttl: HOP_LIMIT,
                protocol: Protocol::ICMPV4,
                source: from,
                destination: to,
                source_routed: false,
            }
            .emit(packet)?;
        }
        Network::V6 { source: to, .. } => {
            let from = match vnet.subnet_of(CustomerIp::from(to)).map(|subnet| subnet.gateway.0) {
                Some(IpAddr::V6(gateway)) => gateway,
                _ => MacAddr::ROUTER.link_local(),
            };
            let Some(payload_bytes) = bytes.checked_sub(40) else { return Ok(None) };
            let message = packet.get_mut(ipv6::HEADER_BYTES..).unwrap_or_default();
            icmpv6::emit_error(message, from, to, problem.v6)?;
            Ipv6 {
                traffic_class: 0,
                flow_label: 0,
                payload_bytes,
                next_header: Protocol::ICMPV6,
                hop_limit: HOP_LIMIT,
                source: from,
                destination: to,
            }
            .emit(packet)?;
        }
        Network::Other => return Ok(None),
    }
    Ok(Some(()))
}
