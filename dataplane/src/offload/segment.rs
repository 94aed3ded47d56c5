//! Cutting a super-packet into the packets it stands for (TSO over IPv4 and IPv6, USO), behind a tunnel header.
//!
//! Headers go to a buffer of the caller's, the payload stays where it is and is told as a range: the caller gathers
//! both by iovec. No allocation. The sender's claims (header length, protocol) are checked against the frame; what is
//! found in the frame counts.

use std::ops::Range;

use super::headers::{self, ETHERNET, Headers, TCP, UDP, bytes, put};
use crate::packet::{SegmentKind, Segmentation};

/// The longest run of headers (tunnel, Ethernet, IP with options, L4) in front of a segment.
pub const MAX_HEADERS: usize = 384;

/// The most segments of one super-packet: 64 KiB at an MSS of 48 bytes, the least that Linux lets a peer ask for.
/// Bounds the work that one frame of a guest can cause.
pub const MAX_SEGMENTS: usize = 1366;

const CWR: u8 = 0x80;
const PSH: u8 = 0x08;
const FIN: u8 = 0x01;
const SYN_RST_URG: u8 = 0x26;

/// Why a super-packet cannot be cut: it is then to be dropped as `offload_invalid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Not one whole untagged TCP or UDP packet that fills its frame.
    #[error("the super-packet is not a TCP or UDP packet that fills its frame")]
    Malformed,
    /// TCP asked for and UDP found, or IPv4 and IPv6.
    #[error("segmentation is asked for another protocol than the packet's")]
    Protocol,
    /// The sender's header length is not the real one.
    #[error("the sender claims {claimed} bytes of headers, the packet has {found}")]
    HeaderBytes {
        /// As in [`Segmentation::header_bytes`].
        claimed: u16,
        /// As parsed.
        found: usize,
    },
    /// More header bytes than [`MAX_HEADERS`].
    #[error("{0} bytes of headers are more than {MAX_HEADERS}")]
    HeadersTooLong(usize),
    /// SYN, RST or URG cannot be repeated.
    #[error("TCP flags {0:#04x} cannot be segmented")]
    TcpFlags(u8),
    /// No payload, pieces of no bytes, or more pieces than [`MAX_SEGMENTS`].
    #[error("{payload_bytes} bytes of payload in pieces of {segment_bytes} are none, or too many")]
    Count {
        /// Of the super-packet.
        payload_bytes: usize,
        /// Of each piece.
        segment_bytes: u16,
    },
}

/// A checked super-packet, ready to be cut. Holds offsets only; [`Cut::write`] takes the packet again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    tunnel_bytes: usize,
    headers: Headers,
    segment_bytes: usize,
    count: usize,
}

impl Cut {
    /// Checks a packet whose first `tunnel_bytes` bytes stand in front of the Ethernet header.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn plan(packet: &[u8], tunnel_bytes: usize, asked: Segmentation) -> Result<Self, SegmentError> {
        let frame = packet.get(tunnel_bytes..).ok_or(SegmentError::Malformed)?;
        let headers =
            Headers::find(frame).filter(|found| found.end == frame.len()).ok_or(SegmentError::Malformed)?;
        let fits = match asked.kind {
            SegmentKind::TcpV4 => headers.protocol == TCP && !headers.v6,
            SegmentKind::TcpV6 => headers.protocol == TCP && headers.v6,
            SegmentKind::Udp => headers.protocol == UDP,
        };
        if !fits {
            return Err(SegmentError::Protocol);
        }
        if usize::from(asked.header_bytes) != headers.payload {
            return Err(SegmentError::HeaderBytes { claimed: asked.header_bytes, found: headers.payload });
        }
        if tunnel_bytes + headers.payload > MAX_HEADERS {
            return Err(SegmentError::HeadersTooLong(tunnel_bytes + headers.payload));
        }
        if headers.protocol == TCP {
            let flags = frame.get(headers.transport + 13).copied().unwrap_or_default();
            if flags & SYN_RST_URG != 0 {
                return Err(SegmentError::TcpFlags(flags));
            }
        }
        let payload_bytes = headers.end - headers.payload;
        let segment_bytes = usize::from(asked.segment_bytes);
        let count =
            payload_bytes.checked_next_multiple_of(segment_bytes).map_or(0, |whole| whole / segment_bytes);
        if !(1..=MAX_SEGMENTS).contains(&count) {
            return Err(SegmentError::Count { payload_bytes, segment_bytes: asked.segment_bytes });
        }
        Ok(Self { tunnel_bytes, headers, segment_bytes, count })
    }

    /// How many segments there are: at least one.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Bytes of headers in front of each segment's payload, the tunnel's included; at most [`MAX_HEADERS`].
    #[must_use]
    pub const fn header_bytes(&self) -> usize {
        self.tunnel_bytes + self.headers.payload
    }

    /// Length of segment `index`, headers included; 0 past the last.
    #[must_use]
    pub fn segment_len(&self, index: usize) -> usize {
        self.payload(index).map_or(0, |range| self.header_bytes() + range.len())
    }

    /// Where segment `index` has its payload, from the start of the packet; `None` past the last.
    fn payload(&self, index: usize) -> Option<Range<usize>> {
        let start = self.headers.payload + index.checked_mul(self.segment_bytes)?;
        let end = (start + self.segment_bytes).min(self.headers.end);
        (start < end).then_some(self.tunnel_bytes + start..self.tunnel_bytes + end)
    }

    /// Writes the headers of segment `index` to `into` (at least [`Cut::header_bytes`] long), checksums complete, and
    /// returns where in `packet` its payload is. `None` past the last segment, or if `packet` is not the one planned.
    pub fn write(&self, packet: &[u8], index: usize, into: &mut [u8]) -> Option<Range<usize>> {
        let range = self.payload(index)?;
        let payload = packet.get(range.clone())?;
        let into = into.get_mut(..self.header_bytes())?;
        into.copy_from_slice(packet.get(..self.header_bytes())?);
        let inner = into.get_mut(self.tunnel_bytes..)?;
        let Headers { v6, protocol, transport, payload: header_end, .. } = self.headers;
        let nth = u16::try_from(index).ok()?;

        if !v6 {
            let id = headers::word(inner, ETHERNET + 4)?.wrapping_add(nth);
            put(inner, ETHERNET + 4, id.to_be_bytes());
        }
        if !self.headers.set_ip_length(inner, header_end + payload.len()) {
            return None;
        }
        let length = u16::try_from(header_end - transport + payload.len()).ok()?;
        if protocol == TCP {
            let behind = u32::try_from(range.start - self.header_bytes()).ok()?;
            let sequence = u32::from_be_bytes(bytes(inner, transport + 4)?).wrapping_add(behind);
            put(inner, transport + 4, sequence.to_be_bytes());
            let flags = inner.get_mut(transport + 13)?;
            // CWR answers one congestion mark, FIN and PSH speak of the end (RFC 3168 §6.1.2, RFC 9293 §3.1).
            if index != 0 {
                *flags &= !CWR;
            }
            if index + 1 != self.count {
                *flags &= !(FIN | PSH);
            }
        } else {
            put(inner, transport + 4, length.to_be_bytes());
        }
        let field = transport + usize::from(self.headers.checksum_offset());
        put(inner, field, [0, 0]);
        let sum = self.headers.pseudo(inner, length).add_bytes(inner.get(transport..)?).add_bytes(payload);
        let sum = if protocol == TCP { sum.checksum() } else { sum.udp_checksum() };
        put(inner, field, sum.to_be_bytes());
        Some(range)
    }
}
