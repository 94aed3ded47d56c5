//! What a frame's sender says it left undone (its offload request), held against the headers that were really parsed.
//! Whoever cuts or completes the frame later may then trust the request.
//!
//! Never here: cutting, completing.

use crate::packet::{Checksum, Offload, Packet, SegmentKind, Segmentation};
use crate::wire::checksum::Sum;
use crate::wire::ethernet;
use crate::wire::flow::{Fragment, Headers, Network, Transport};

const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;
/// Linux sends no segment with less payload (`TCP_MIN_SND_MSS` less 40 bytes of options). Without a floor, one frame
/// could be made to cost 64 Ki packets.
const LEAST_TCP_SEGMENT: u16 = 8;
/// Linux's `UDP_MAX_SEGMENTS`.
const MOST_UDP_SEGMENTS: usize = 128;

/// Checks the request and brings it into one form; false when it contradicts the frame.
///
/// `header_bytes` of a super-packet is replaced by what was parsed: Linux guests send the length of their linear
/// buffer there, which virtio 1.2 section 5.1.6.2.1 calls a hint. A super-packet whose payload fits one segment is
/// none.
#[inline]
pub(super) fn check(packet: &mut Packet<'_>, headers: &Headers) -> bool {
    match packet.offload {
        Offload { checksum: Checksum::Complete | Checksum::Verified, segmentation: None } => true,
        asked => check_asked(asked, packet, headers),
    }
}

#[inline(never)]
fn check_asked(
    Offload { checksum, segmentation }: Offload,
    packet: &mut Packet<'_>,
    headers: &Headers,
) -> bool {
    let lawful = is_partial_lawful(checksum, headers);
    match segmentation {
        None => lawful,
        Some(segmentation) => match lawful.then(|| normal(segmentation, checksum, headers)).flatten() {
            Some(normal) => {
                packet.offload.segmentation = normal;
                true
            }
            None => false,
        },
    }
}

fn is_partial_lawful(checksum: Checksum, headers: &Headers) -> bool {
    let Checksum::Partial { start, offset } = checksum else { return true };
    if headers.fragment != Fragment::Whole {
        return false;
    }
    let transport = headers.transport_offset();
    let (start, field_end) = (usize::from(start), usize::from(start) + usize::from(offset) + 2);
    // A guest that tunnels itself leaves the checksum of its own innermost header undone, further behind.
    let fits = start > transport && start >= headers.payload_offset();
    let is_own = start == transport && own_field(headers).is_some_and(|own| own == offset);
    (fits || is_own) && field_end <= headers.end as usize
}

/// Where the checksum of the frame's own transport header is.
const fn own_field(headers: &Headers) -> Option<u16> {
    match headers.transport {
        Transport::Tcp { .. } => Some(TCP_CHECKSUM),
        Transport::Udp { .. } => Some(UDP_CHECKSUM),
        Transport::Icmp { .. } | Transport::Other => None,
    }
}

/// The request in its one form; `Some(None)` when nothing needs to be cut, `None` when it is a lie.
#[expect(clippy::option_option, reason = "lawful and void are different answers")]
fn normal(segmentation: Segmentation, checksum: Checksum, headers: &Headers) -> Option<Option<Segmentation>> {
    let fits = matches!(
        (segmentation.kind, headers.network, headers.transport),
        (SegmentKind::TcpV4, Network::V4 { .. }, Transport::Tcp { .. })
            | (SegmentKind::TcpV6, Network::V6 { .. }, Transport::Tcp { .. })
            | (SegmentKind::Udp, _, Transport::Udp { .. })
    );
    // virtio 1.2 section 5.1.6.2.1: segmentation implies that the checksum is left undone.
    let is_own = matches!(checksum, Checksum::Partial { start, .. } if usize::from(start) == headers.transport_offset());
    let payload_bytes = (headers.end as usize).checked_sub(headers.payload_offset())?;
    let segment_bytes = segmentation.segment_bytes;
    let is_sane = match segmentation.kind {
        SegmentKind::TcpV4 | SegmentKind::TcpV6 => segment_bytes >= LEAST_TCP_SEGMENT,
        SegmentKind::Udp => {
            segment_bytes > 0 && payload_bytes.div_ceil(usize::from(segment_bytes)) <= MOST_UDP_SEGMENTS
        }
    };
    let header_bytes = u16::try_from(headers.payload_offset()).ok()?;
    (fits && is_own && is_sane).then(|| {
        (payload_bytes > usize::from(segment_bytes)).then_some(Segmentation { header_bytes, ..segmentation })
    })
}

/// Bytes of the largest IP packet that the frame will become on a wire.
#[inline]
pub(super) fn largest_ip_bytes(offload: Offload, headers: &Headers) -> usize {
    match offload.segmentation {
        None => headers.ip_bytes(),
        Some(Segmentation { segment_bytes, .. }) => {
            headers.payload_offset() - ethernet::HEADER_BYTES + usize::from(segment_bytes)
        }
    }
}

/// The checksum state of a frame that came through a tunnel. A kernel that is a tunnel's end on this very machine passes
/// on frames whose inner checksum was never completed: the field holds the pseudo-header's sum. (A complete checksum
/// that happens to look like that is one in 65,536, and completing it once more gives the same checksum.)
#[inline]
pub(super) fn recognise(frame: &[u8], headers: &Headers) -> Checksum {
    let Some(offset) = own_field(headers) else { return Checksum::Complete };
    if headers.fragment != Fragment::Whole {
        return Checksum::Complete;
    }
    let start = headers.transport_offset();
    let field = frame.get(start + usize::from(offset)..).and_then(<[u8]>::first_chunk);
    let (Some(field), Ok(length), Ok(start)) =
        (field, u16::try_from(headers.end as usize - start), u16::try_from(start))
    else {
        return Checksum::Complete;
    };
    let field = u16::from_be_bytes(*field);
    let pseudo = match headers.network {
        Network::V4 { source, destination } => Sum::pseudo_v4(source, destination, headers.protocol, length),
        Network::V6 { source, destination } => {
            Sum::pseudo_v6(source, destination, headers.protocol, u32::from(length))
        }
        Network::Other => return Checksum::Complete,
    };
    // UDP's "none", zero, is nobody's: no addresses and protocol sum up to it.
    if field == pseudo.fold() { Checksum::Partial { start, offset } } else { Checksum::Complete }
}
