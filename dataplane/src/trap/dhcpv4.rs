//! The DHCP server of every network (RFC 2131): a port has at most one lease, and hands it out whoever asks on it.
//!
//! There is no pool and no state: the lease is the port's configuration, whatever client identifier a guest's
//! successive clients use. So each message is judged by what it says:
//!
//! | client's state | says | is answered |
//! |---|---|---|
//! | INIT | DISCOVER | OFFER of the port's address, whatever was wished for; with option 80 at once ACK (RFC 4039) |
//! | SELECTING | REQUEST, option 50 and 54 | ACK, or NAK for another address; nothing when another server offered the right one |
//! | INIT-REBOOT | REQUEST, option 50 | ACK or NAK |
//! | RENEWING | REQUEST, from ciaddr to one server | ACK or NAK |
//! | REBINDING | REQUEST, ciaddr, to all | ACK or NAK |
//! | has an address | INFORM | ACK without address and times |
//! | any | DECLINE, RELEASE | nothing; the same address is offered again |
//!
//! **NAK at once, every time.** A wrong address is that of a network that the port was in before. No other server can be
//! meant, because no guest's DHCP messages ever reach another port: so also a request that names a foreign server, or is sent to
//! one, is refused. A client may ignore a NAK of a server that it did not ask, so the NAK comes from the one that it did.
//!
//! **Where an answer goes** is where a client in that state listens:
//!
//! | client's state | OFFER, ACK | NAK | because |
//! |---|---|---|---|
//! | INIT, SELECTING, INIT-REBOOT | the new address; broadcast if the flag asks for it | broadcast | it reads raw frames, and has no address yet (RFC 2131 section 4.1) |
//! | RENEWING | ciaddr | ciaddr | it has that address and listens on a socket bound to it (dhcpcd, systemd-networkd): a broadcast NAK is not heard there, and the next chance is T2 |
//! | RENEWING, `udhcp` in option 60 | broadcast | broadcast | see below |
//! | REBINDING | ciaddr | broadcast | it reads raw frames; whether it still holds the address is not known |
//!
//! RFC 2131 section 4.1 has every NAK broadcast, for the sake of clients whose address is wrong on their link. Here a wrong
//! address is as reachable as a right one: the port is the link.
//!
//! A moved guest that no longer knows the router's MAC address cannot speak to one server, for ARP answers nobody who asks from an
//! address of another network ([`arp`](super::arp)). It is refused when it speaks to all, at T2.
//!
//! **udhcpc** (busybox) sends its renewal from a socket of its own, connected to the server, and closes that at once; it listens
//! on another one, bound to no address. An answer in unicast that arrives before the close belongs to the connected socket and
//! dies with it. Servers on a wire are never that quick, a switch on the same machine is. No broadcast belongs to a connected
//! socket, so it is heard whenever it comes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Asker;
use crate::drops::DropReason;
use crate::packet::{Offload, Packet};
use crate::refusal;
use crate::tables::{Lease, WIRESERVER};
use crate::types::{CustomerIp, MacAddr};
use crate::verdict::{Trap, Verdict};
use crate::wire::dhcpv4::{BROADCAST_FLAG, CLIENT_PORT, Message, MessageType, Reply, SERVER_PORT};
use crate::wire::ethernet::{self, EtherType, Ethernet};
use crate::wire::flow::{Fragment, Headers, Network};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::udp;
use crate::wire::{NoRoom, Protocol};

/// The longest reply, whatever the client would take: all options of the longest lease fit.
const REPLY_BYTES: usize = 1024;
/// In front of the reply.
const UDP_OFFSET: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES;
const PAYLOAD_OFFSET: usize = UDP_OFFSET + udp::HEADER_BYTES;
/// How the vendor class of busybox's client begins.
const UDHCPC: &[u8] = b"udhcp";
const NAK_TEXT: &str = "this address is not of this network";

/// Answers a message to a DHCP server, whatever its source and destination addresses.
#[cold]
pub(crate) fn answer(asker: &Asker<'_>, packet: &mut Packet<'_>, headers: &Headers) -> Verdict {
    let mut message = [0; REPLY_BYTES];
    let outcome = match judge(asker, packet.frame(), headers, &mut message) {
        Ok(outcome) => outcome,
        Err(reason) => return reason.into(),
    };
    let Some(envelope) = outcome.envelope else { return Verdict::Absorbed(outcome.trap) };
    if let Err(reason) = asker.may_answer_dhcp() {
        return reason.into();
    }
    let message = message.get(..envelope.message_bytes).unwrap_or_default();
    packet.offload = Offload::NONE;
    if !packet.set_len(PAYLOAD_OFFSET + message.len()) || envelope.wrap(packet.frame_mut(), message).is_err()
    {
        return DropReason::AnswerNoRoom.into();
    }
    if outcome.trap == Trap::DhcpAck {
        asker.port.progress.leased(asker.context.now);
    }
    Verdict::Reply(outcome.trap)
}

/// What becomes of a message.
struct Outcome {
    trap: Trap,
    /// Absent: there is nothing to answer.
    envelope: Option<Envelope>,
}

/// Who gets a reply from whom.
struct Envelope {
    message_bytes: usize,
    from: Ipv4Addr,
    to: Ipv4Addr,
    mac: MacAddr,
}

impl Envelope {
    fn wrap(&self, frame: &mut [u8], message: &[u8]) -> Result<(), NoRoom> {
        let need = PAYLOAD_OFFSET + message.len();
        let have = frame.len();
        let short = NoRoom { need, have };
        frame.get_mut(PAYLOAD_OFFSET..need).ok_or(short)?.copy_from_slice(message);
        let datagram = frame.get_mut(UDP_OFFSET..).ok_or(short)?;
        udp::emit_v4(datagram, (self.from, SERVER_PORT), (self.to, CLIENT_PORT))?;
        let ip = Ipv4 {
            header_bytes: 20,
            tos: 0,
            total_bytes: u16::try_from(need - ethernet::HEADER_BYTES).map_err(|_| short)?,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: Protocol::UDP,
            source: self.from,
            destination: self.to,
            source_routed: false,
        };
        ip.emit(frame.get_mut(ethernet::HEADER_BYTES..).ok_or(short)?)?;
        Ethernet { destination: self.mac, source: MacAddr::ROUTER, ethertype: EtherType::IPV4 }.emit(frame)
    }
}

fn judge(
    asker: &Asker<'_>,
    frame: &[u8],
    headers: &Headers,
    out: &mut [u8; REPLY_BYTES],
) -> Result<Outcome, DropReason> {
    if headers.fragment != Fragment::Whole {
        return Err(DropReason::DhcpMalformed);
    }
    let payload = frame.get(headers.payload_offset()..headers.end as usize).unwrap_or_default();
    let request = Message::parse(payload).map_err(|error| refusal::of(&error))?;
    if request.is_reply {
        return Err(DropReason::DhcpServerForged);
    }
    if !request.giaddr.is_unspecified() {
        return Err(DropReason::DhcpRelayed);
    }
    if request.chaddr != asker.port.mac {
        return Err(DropReason::DhcpForeignClient);
    }
    let absorbed = |trap| Ok(Outcome { trap, envelope: None });
    let kind = match request.message_type.ok_or(DropReason::DhcpIgnored)? {
        MessageType::Offer | MessageType::Ack | MessageType::Nak => return Err(DropReason::DhcpServerForged),
        MessageType::Release => return absorbed(Trap::DhcpRelease),
        MessageType::Decline => return absorbed(Trap::DhcpDecline),
        kind => kind,
    };
    let lease = asker.port.lease.as_ref().ok_or(DropReason::DhcpNoLease)?;
    let (trap, reply) = match kind {
        MessageType::Discover if request.rapid_commit => {
            (Trap::DhcpAck, Reply { rapid_commit: true, ..with_times(&request, MessageType::Ack, lease) })
        }
        MessageType::Discover => (Trap::DhcpOffer, with_times(&request, MessageType::Offer, lease)),
        MessageType::Inform if asker.port.owns(CustomerIp::from(request.ciaddr)) => (
            Trap::DhcpInform,
            Reply { ciaddr: request.ciaddr, ..configuration(&request, MessageType::Ack, lease) },
        ),
        MessageType::Request => match judge_request(&request, lease)? {
            MessageType::Nak => return refuse(asker, &request, headers, lease, out),
            _ => (
                Trap::DhcpAck,
                Reply { ciaddr: request.ciaddr, ..with_times(&request, MessageType::Ack, lease) },
            ),
        },
        _ => return Err(DropReason::DhcpIgnored),
    };
    let (to, mac) = destination(asker, &request, headers, (reply.message_type, lease.address));
    finish(reply, trap, (lease.gateway, to, mac), out)
}

/// Where an answer of a kind with an address goes, as IP and MAC address: the table of this module.
fn destination(
    asker: &Asker<'_>,
    request: &Message<'_>,
    headers: &Headers,
    (kind, new): (MessageType, Ipv4Addr),
) -> (Ipv4Addr, MacAddr) {
    const EVERYBODY: (Ipv4Addr, MacAddr) = (Ipv4Addr::BROADCAST, MacAddr::BROADCAST);
    let renewing = is_renewing(request, headers);
    let to = match kind {
        _ if renewing && closes_at_once(request) => return EVERYBODY,
        MessageType::Nak if renewing => request.ciaddr,
        MessageType::Nak => return EVERYBODY,
        MessageType::Ack if !request.ciaddr.is_unspecified() => request.ciaddr,
        _ if request.flags & BROADCAST_FLAG != 0 => return EVERYBODY,
        _ => new,
    };
    (to, asker.port.mac)
}

/// A client that speaks to one server and from the address that it would keep holds that address.
fn is_renewing(request: &Message<'_>, headers: &Headers) -> bool {
    let unicast = |ip: Ipv4Addr| CustomerIp::from(ip).require_unicast().is_ok();
    matches!(headers.network, Network::V4 { source, destination }
        if source == request.ciaddr && unicast(source) && unicast(destination))
        && request.message_type == Some(MessageType::Request)
}

/// busybox names itself so unless it is told otherwise (`-V`).
fn closes_at_once(request: &Message<'_>) -> bool {
    request.vendor_class.is_some_and(|class| class.bytes().take(UDHCPC.len()).eq(UDHCPC.iter().copied()))
}

/// ACK or NAK.
fn judge_request(request: &Message<'_>, lease: &Lease) -> Result<MessageType, DropReason> {
    let current = Some(request.ciaddr).filter(|ip| !ip.is_unspecified());
    let wanted = match request.server_id {
        // SELECTING
        Some(_) => request.requested_ip.or(current),
        // RENEWING and REBINDING, else INIT-REBOOT
        None => current.or(request.requested_ip),
    };
    if wanted.ok_or(DropReason::DhcpIgnored)? != lease.address {
        return Ok(MessageType::Nak);
    }
    // RFC 2131 section 4.3.2: a client that takes another server's offer says so by naming it.
    match request.server_id {
        Some(server) if server != lease.gateway && current.is_none() => Err(DropReason::DhcpNotForUs),
        _ => Ok(MessageType::Ack),
    }
}

/// A NAK, in the name of the server that was asked.
fn refuse(
    asker: &Asker<'_>,
    request: &Message<'_>,
    headers: &Headers,
    lease: &Lease,
    out: &mut [u8; REPLY_BYTES],
) -> Result<Outcome, DropReason> {
    let addressed = match headers.network {
        Network::V4 { destination, .. } => request.server_id.or(Some(destination)),
        _ => request.server_id,
    };
    let from =
        addressed.filter(|&ip| CustomerIp::from(ip).require_unicast().is_ok()).unwrap_or(lease.gateway);
    let reply = Reply { message: NAK_TEXT, ..Reply::to(request, MessageType::Nak, from) };
    let (to, mac) = destination(asker, request, headers, (MessageType::Nak, lease.address));
    finish(reply, Trap::DhcpNak, (from, to, mac), out)
}

fn finish(
    mut reply: Reply<'_>,
    trap: Trap,
    (from, to, mac): (Ipv4Addr, Ipv4Addr, MacAddr),
    out: &mut [u8; REPLY_BYTES],
) -> Result<Outcome, DropReason> {
    if let Some(mtu) = reply.mtu {
        // A guest's link takes no more, whatever its client would.
        reply.limit_bytes = reply.limit_bytes.min(usize::from(mtu) + ethernet::HEADER_BYTES - PAYLOAD_OFFSET);
    }
    let message_bytes = reply.emit(out).map_err(|_| DropReason::AnswerNoRoom)?;
    Ok(Outcome { trap, envelope: Some(Envelope { message_bytes, from, to, mac }) })
}

/// A reply with the whole lease.
fn with_times<'a>(request: &Message<'a>, kind: MessageType, lease: &'a Lease) -> Reply<'a> {
    Reply {
        yiaddr: lease.address,
        lease_seconds: Some(lease.seconds),
        renewal_seconds: Some(lease.renew_seconds),
        rebinding_seconds: Some(lease.rebind_seconds),
        ..configuration(request, kind, lease)
    }
}

/// A reply with everything but address and times. All of it is always sent: cloud-init needs option 245 and never asks
/// for it.
fn configuration<'a>(request: &Message<'a>, kind: MessageType, lease: &'a Lease) -> Reply<'a> {
    Reply {
        subnet_mask: Some(net(lease).netmask()),
        routers: std::slice::from_ref(&lease.gateway),
        dns: &lease.dns,
        domain: lease.domain.as_ref().map_or("", |domain| domain.as_str()),
        mtu: Some(lease.mtu.bytes()),
        broadcast: Some(net(lease).broadcast()),
        classless_routes: &lease.classless_routes,
        wireserver: Some(WIRESERVER),
        host_name: lease.hostname.as_ref().map_or("", |name| name.as_str()),
        ..Reply::to(request, kind, lease.gateway)
    }
}

fn net(lease: &Lease) -> Ipv4Net {
    Ipv4Net::new(lease.address, lease.prefix_len).unwrap_or_default()
}
