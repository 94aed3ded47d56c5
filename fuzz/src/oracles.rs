//! What other libraries say of the same bytes: etherparse and pnet of frames, dhcproto of DHCP messages.
//!
//! The first byte chooses. Where they are known to disagree, the reason stands at the place; everywhere else they must say
//! the same. (`dataplane/tests/wire_oracles` asks them about packets that one of them has built; here the bytes are
//! anybody's.)

use dataplane::wire::dhcpv4::{Message, code};
use dataplane::wire::flow::{Fragment, Headers, Network, Transport};
use dataplane::wire::{Layer, ParseError};
use dhcproto::v4::{self, DhcpOption, OptionCode};
use dhcproto::{Decodable as _, Decoder};
use etherparse::err::packet::SliceError;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pnet_packet::Packet as _;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::tcp::TcpPacket;
use pnet_packet::udp::UdpPacket;

use crate::{flow, sum};

/// They read what we read, as we read it, and what only one of us accepts has a reason that is known.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    match input.split_first() {
        Some((kind, message)) if kind & 1 == 1 => check_dhcp(message),
        Some((kind, frame)) => {
            let mut frame = frame.to_vec();
            if kind & 2 == 2 && frame.len() >= 34 && frame[12..14] == [8, 0] {
                // Otherwise nearly every changed byte would end at the header checksum.
                let header_bytes = usize::from(frame[14] & 15) * 4;
                if let Some(header) = frame.get_mut(14..14 + header_bytes).filter(|header| header.len() >= 20)
                {
                    header[10..12].fill(0);
                    let checksum = !sum::of(header);
                    header[10..12].copy_from_slice(&checksum.to_be_bytes());
                }
            }
            check_frame(&frame);
        }
        None => {}
    }
}

fn check_frame(frame: &[u8]) {
    let ours = Headers::parse(frame);
    let theirs = SlicedPacket::from_ethernet(frame);
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => {
            flow::check(frame);
            same_packet(frame, ours, theirs);
        }
        (Ok(ours), Err(error)) => {
            assert!(may_refuse(frame, ours, error), "only etherparse refuses: {error:?}: {ours:?}")
        }
        (Err(error), Ok(theirs)) => {
            assert!(may_accept(error, theirs), "only etherparse accepts: {error}: {theirs:?}")
        }
        (Err(_), Err(_)) => {}
    }
    if let Ok(ours) = &ours {
        same_fields(frame, ours);
    }
}

/// etherparse looks at what the packet path only hands on: ARP, MACsec, the extension headers behind a fragment header
/// that is not the first piece's, IPv6 authentication headers, and hop-by-hop headers in the wrong place.
fn may_refuse(frame: &[u8], ours: &Headers, _error: &SliceError) -> bool {
    let behind_extensions = ours.network_offset() + 40;
    match ours.network {
        Network::Other => true,
        // RFC 4302: they want an authentication header whole; RFC 792: and timestamps of just twenty bytes. And they look
        // into IGMP and the other version's ICMP.
        Network::V4 { .. } => {
            matches!(ours.protocol.0, 2 | 51 | 58)
                || matches!(ours.transport, Transport::Icmp { kind: 13 | 14, .. })
        }
        // What follows a destination option, routing or later fragment header may be one of theirs.
        Network::V6 { .. } => {
            matches!(ours.protocol.0, 0..=2 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
                || ours.fragment == Fragment::Later
                || frame.get(20).is_some_and(|next| *next != ours.protocol.0)
                    && ours.transport_offset() > behind_extensions
        }
    }
}

/// What etherparse lets pass and the packet path does not.
fn may_accept(error: &ParseError, theirs: &SlicedPacket<'_>) -> bool {
    match error {
        // They leave checksums, and what stands in IPv4's options, to the caller.
        ParseError::BadChecksum { layer: Layer::Ipv4 } | ParseError::Violation { layer: Layer::Ipv4, .. } => {
            true
        }
        // Tags are theirs to read and ours to refuse.
        ParseError::VlanTagged { .. } => !theirs.link_exts.is_empty(),
        // RFC 1858, 3128 and 7112 are for those who forward.
        ParseError::TinyFragment { .. } | ParseError::OverlappingFragment => true,
        // The ping of death, too; and the length of a fragment's UDP header is not read by them.
        ParseError::BadLength { layer: Layer::Ipv4 | Layer::Ipv6Extension, .. } => true,
        // Chains that are too long, in the wrong order, or carry a type 0 routing header (RFC 5095).
        ParseError::ExtensionChain { .. }
        | ParseError::Violation { layer: Layer::Ipv6 | Layer::Ipv6Extension, .. } => true,
        ParseError::Unsupported { layer: Layer::Ipv6Extension, .. } => true,
        // UDP length 0 is theirs for "up to the end" (RFC 2675), and payload length 0 of IPv6, too.
        ParseError::BadLength { layer: Layer::Udp, claimed: 0, .. } => true,
        ParseError::Truncated { layer, .. } => *layer != Layer::Ethernet,
        // Of fragments they read no transport header.
        ParseError::BadLength { layer: Layer::Tcp | Layer::Udp, .. } => theirs.transport.is_none(),
        _ => false,
    }
}

fn same_packet(frame: &[u8], ours: &Headers, theirs: &SlicedPacket<'_>) {
    let (addresses, ttl, traffic_class) = match &theirs.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let addresses = (header.source_addr().into(), header.destination_addr().into());
            let [_, traffic_class, ..] = header.slice() else { panic!("a header has twenty bytes") };
            assert_eq!(ip.is_payload_fragmented(), ours.fragment != Fragment::Whole);
            (Some(addresses), header.ttl(), *traffic_class)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let addresses = (header.source_addr().into(), header.destination_addr().into());
            (Some(addresses), header.hop_limit(), header.traffic_class())
        }
        _ => (None, 0, 0),
    };
    // They look into frames that say that they are MACsec's (IEEE 802.1AE) and not encrypted; for us that is another EtherType.
    if ours.network == Network::Other && !theirs.link_exts.is_empty() {
        return;
    }
    assert_eq!(ours.addresses(), addresses);
    if addresses.is_none() {
        return;
    }
    assert_eq!((ours.hop_limit, ours.tos), (ttl, traffic_class));
    // "Up to the end" is theirs for an IPv6 payload length of 0 (RFC 2675): it is 0 for us.
    if matches!(ours.network, Network::V6 { .. }) && frame[18..20] == [0, 0] {
        return;
    }
    let payload = &frame[ours.payload_offset()..ours.end as usize];
    match (&theirs.transport, ours.transport) {
        (Some(TransportSlice::Tcp(theirs)), Transport::Tcp { source, destination, .. }) => {
            assert_eq!((theirs.source_port(), theirs.destination_port()), (source, destination));
            assert_eq!(theirs.payload(), payload);
        }
        (Some(TransportSlice::Udp(theirs)), Transport::Udp { source, destination }) => {
            assert_eq!((theirs.source_port(), theirs.destination_port()), (source, destination));
            assert!(payload.starts_with(theirs.payload()));
        }
        (Some(TransportSlice::Icmpv4(theirs)), Transport::Icmp { kind, code }) => {
            assert_eq!((theirs.type_u8(), theirs.code_u8()), (kind, code));
        }
        (Some(TransportSlice::Icmpv6(theirs)), Transport::Icmp { kind, code }) => {
            assert_eq!((theirs.type_u8(), theirs.code_u8()), (kind, code));
        }
        // Of fragments they read no transport; of the first one we read the ports.
        (None, _) if ours.fragment != Fragment::Whole => {}
        (None, Transport::Other) => {}
        // Behind an authentication header, which we hand on unread (and refuse nobody's rules for).
        (Some(_), Transport::Other) if matches!(ours.protocol.0, 51 | 135 | 139 | 140) => {}
        // Each IP has its own ICMP; the other's, and IGMP, are payloads like any other for us.
        (
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)),
            Transport::Other,
        ) => {}
        (theirs, ours) => panic!("{ours:?} is {theirs:?}"),
    }
}

/// pnet reads fields and judges nothing: it is asked about what we have accepted.
fn same_fields(frame: &[u8], ours: &Headers) {
    let (packet, transport) = (&frame[14..], &frame[ours.transport_offset()..ours.end as usize]);
    match ours.network {
        Network::V4 { source, destination } => {
            let theirs = Ipv4Packet::new(packet).unwrap();
            assert_eq!((theirs.get_source(), theirs.get_destination()), (source, destination));
            assert_eq!(
                (theirs.get_ttl(), theirs.get_next_level_protocol().0),
                (ours.hop_limit, ours.protocol.0)
            );
            // They are equal, or both are zero in one's complement.
            let (found, right) = (theirs.get_checksum(), pnet_packet::ipv4::checksum(&theirs));
            assert!(
                found == right || [found, right].iter().all(|sum| matches!(sum, 0 | 0xffff)),
                "{found:x} {right:x}"
            );
        }
        Network::V6 { source, destination } => {
            let theirs = Ipv6Packet::new(packet).unwrap();
            assert_eq!((theirs.get_source(), theirs.get_destination()), (source, destination));
            assert_eq!((theirs.get_hop_limit(), theirs.get_traffic_class()), (ours.hop_limit, ours.tos));
        }
        Network::Other => return,
    }
    match ours.transport {
        Transport::Tcp { source, destination, flags } => {
            let theirs = TcpPacket::new(transport).unwrap();
            assert_eq!((theirs.get_source(), theirs.get_destination()), (source, destination));
            assert_eq!((theirs.get_flags(), theirs.get_data_offset()), (flags.0, ours.transport_bytes / 4));
        }
        Transport::Udp { source, destination } => {
            let theirs = UdpPacket::new(transport).unwrap();
            assert_eq!((theirs.get_source(), theirs.get_destination()), (source, destination));
            assert_eq!(theirs.packet().len(), transport.len());
        }
        _ => {}
    }
}

/// Options that dhcproto reads as they are. Others of a fixed length it reads without a look at their length, so that the next
/// option begins elsewhere for it, or it panics (80, 94, 151 to 155); texts that are no UTF-8 end its reading.
fn is_plain((code, value): (u8, &[u8])) -> bool {
    match code {
        code::REQUESTED_IP | code::SERVER_ID | code::LEASE_SECONDS => value.len() == 4,
        code::MESSAGE_TYPE => value.len() == 1,
        code::MAX_MESSAGE => value.len() == 2,
        code::RAPID_COMMIT => value.is_empty(),
        code::PARAMETER_REQUESTS | code::VENDOR_CLASS | code::CLIENT_ID => true,
        _ => false,
    }
}

/// dhcproto stops at the first option that it dislikes, without an error, and ignores option 52: what it has is a part of
/// what we have.
fn check_dhcp(bytes: &[u8]) {
    let Ok(ours) = Message::parse(bytes) else { return };
    if !ours.options().all(is_plain) {
        return;
    }
    let theirs = match v4::Message::decode(&mut Decoder::new(bytes)) {
        Ok(theirs) => theirs,
        // It wants names to be UTF-8 (RFC 2131 section 2: null terminated strings; the switch never reads them).
        Err(_) if bytes[44..236].iter().any(|byte| !byte.is_ascii() || *byte == 0) => return,
        Err(error) => panic!("only dhcproto refuses: {error}"),
    };
    assert_eq!((ours.xid, ours.secs, ours.flags), (theirs.xid(), theirs.secs(), u16::from(theirs.flags())));
    assert_eq!((ours.ciaddr, ours.yiaddr), (theirs.ciaddr(), theirs.yiaddr()));
    assert_eq!((ours.siaddr, ours.giaddr), (theirs.siaddr(), theirs.giaddr()));
    assert_eq!(&ours.chaddr.0[..], theirs.chaddr());
    assert_eq!(ours.is_reply, theirs.opcode() == v4::Opcode::BootReply);
    let options = theirs.opts();
    if let Some(kind) = options.msg_type() {
        assert_eq!(ours.message_type.map(|kind| kind as u8), Some(u8::from(kind)));
    }
    if let Some(DhcpOption::RequestedIpAddress(ip)) = options.get(OptionCode::RequestedIpAddress) {
        assert_eq!(ours.requested_ip, Some(*ip));
    }
    if let Some(DhcpOption::ServerIdentifier(ip)) = options.get(OptionCode::ServerIdentifier) {
        assert_eq!(ours.server_id, Some(*ip));
    }
    if let Some(DhcpOption::MaxMessageSize(bytes)) = options.get(OptionCode::MaxMessageSize) {
        assert_eq!(ours.max_message_bytes, Some(*bytes));
    }
    if options.get(OptionCode::RapidCommit).is_some() {
        assert!(ours.rapid_commit);
    }
    // Theirs is one option of this code, ours is all of them joined (RFC 3396).
    if let (Some(DhcpOption::ClientIdentifier(id)), Some(joined)) =
        (options.get(OptionCode::ClientIdentifier), ours.client_id)
    {
        let joined: Vec<u8> = joined.bytes().collect();
        assert!(joined.windows(id.len().max(1)).any(|part| part == id) || id.is_empty());
    }
}
