//! ARP (RFC 826): every request is answered here, from the ports and the directory; none is passed on.
//!
//! The answer is the station's own MAC address within a prefix that the asker shares, and the virtual router's for the
//! router, the link-local services and stations of the network's other prefixes (proxy ARP, for guests whose mask is
//! too short or that were given host routes). A guest must ask from one of its addresses, or from none (a probe,
//! RFC 5227): after a move, the old address gets no answer, so a guest that checks whether it is still where it was
//! (RFC 4436) finds that it is not.

use super::Asker;
use crate::drops::DropReason;
use crate::packet::{Offload, Packet};
use crate::refusal;
use crate::tables::{Port, Tables, Vnet};
use crate::types::{CustomerIp, MacAddr};
use crate::verdict::{Trap, Verdict};
use crate::wire::arp::{Arp, MESSAGE_BYTES, Operation};
use crate::wire::ethernet::{self, EtherType, Ethernet};

/// Answers a guest.
#[cold]
pub(crate) fn answer(asker: &Asker<'_>, packet: &mut Packet<'_>) -> Verdict {
    judge(asker, packet).unwrap_or_else(Verdict::Drop)
}

fn judge(asker: &Asker<'_>, packet: &mut Packet<'_>) -> Result<Verdict, DropReason> {
    let question = parse(packet)?;
    let is_own = |ip| asker.port.owns(CustomerIp::from(ip));
    let may_ask = question.is_probe() || is_own(question.sender_ip);
    if question.sender_mac != asker.port.mac || !may_ask {
        return Err(DropReason::ArpSpoofed);
    }
    if question.operation == Operation::Reply || question.is_announcement() {
        return Err(DropReason::ArpUnasked);
    }
    if is_own(question.target_ip) {
        // Whoever answered would make the guest give its own address up.
        return Ok(Verdict::Absorbed(Trap::AddressProbe));
    }
    let mac = asker.resolve(CustomerIp::from(question.target_ip)).ok_or(DropReason::ArpUnknownTarget)?;
    asker.may_answer()?;
    write(packet, &question, mac)?;
    Ok(Verdict::Reply(Trap::Arp))
}

/// Answers a request that came through a tunnel, from a peer that is no switch of ours: for the addresses of this host's
/// ports. (Not for the virtual router: every host has it, and all would answer.)
pub(crate) fn answer_peer<'t>(
    tables: &'t Tables,
    vnet: &Vnet,
    packet: &mut Packet<'_>,
) -> Result<(Trap, &'t Port), DropReason> {
    let question = parse(packet)?;
    if question.operation == Operation::Reply || question.is_announcement() {
        return Err(DropReason::ArpUnasked);
    }
    let port = vnet.local_port(CustomerIp::from(question.target_ip)).and_then(|id| tables.port(id));
    let port = port.ok_or(DropReason::ArpUnknownTarget)?;
    write(packet, &question, port.mac)?;
    Ok((Trap::Arp, port))
}

fn parse(packet: &Packet<'_>) -> Result<Arp, DropReason> {
    let message = packet.frame().get(ethernet::HEADER_BYTES..).unwrap_or_default();
    Arp::parse(message).map_err(|error| refusal::of(&error))
}

fn write(packet: &mut Packet<'_>, question: &Arp, mac: MacAddr) -> Result<(), DropReason> {
    const BYTES: usize = ethernet::HEADER_BYTES + MESSAGE_BYTES;
    packet.offload = Offload::NONE;
    if !packet.set_len(BYTES) {
        return Err(DropReason::AnswerNoRoom);
    }
    let header = Ethernet { destination: question.sender_mac, source: mac, ethertype: EtherType::ARP };
    let (front, message) = packet.frame_mut().split_at_mut(ethernet::HEADER_BYTES);
    header.emit(front).and_then(|()| question.reply(mac).emit(message)).map_err(|_| DropReason::AnswerNoRoom)
}
