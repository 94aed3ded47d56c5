//! `virtio_net_hdr`, 12 bytes, little-endian (virtio 1.2 §5.1.6) ⇄ [`Offload`].
//!
//! The header comes from a guest or from its kernel and is not to be believed: what it claims is checked against the
//! frame here as far as it speaks of L4, and by [`super::segment`] as far as IP is concerned. Legacy UFO and the ECN
//! variant of UDP are refused; this switch never offers them.

use crate::packet::{Checksum, Offload, SegmentKind, Segmentation};

/// Length of the header in bytes.
pub const LEN: usize = 12;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

const ETHERNET: u16 = 14;
const TCP_FIELD: u16 = 16;
const UDP_FIELD: u16 = 6;

/// Why an offload request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A segmentation type that does not exist or was not offered.
    #[error("segmentation type {0:#04x} is unknown or was not offered")]
    UnknownType(u8),
    /// A super-packet whose pieces would be empty.
    #[error("segmentation into pieces of no bytes")]
    ZeroSegment,
    /// A super-packet must ask for its checksum (virtio 1.2 §5.1.6.2).
    #[error("segmentation without a partial checksum")]
    SegmentationWithoutChecksum,
    /// The checksum's place does not fit the frame, or is not that of the L4 protocol to be segmented.
    #[error(
        "checksum from byte {start}, field {offset} bytes behind, does not fit a frame of {frame_bytes} bytes"
    )]
    ChecksumPlace {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
        /// The frame's length.
        frame_bytes: usize,
    },
}

/// Reads the header in front of `frame`. `header_bytes` of the result is taken from the frame's L4 header, because
/// `hdr_len` is only a hint (Linux sets it to whatever was linear in its buffer).
///
/// # Errors
/// [`HeaderError`]: the frame is then to be dropped as `offload_invalid`.
pub fn decode(header: &[u8; LEN], frame: &[u8]) -> Result<Offload, HeaderError> {
    let [flags, gso_type, _, _, s0, s1, c0, c1, o0, o1, _, _] = *header;
    let checksum = if flags & NEEDS_CHECKSUM != 0 {
        let (start, offset) = (u16::from_le_bytes([c0, c1]), u16::from_le_bytes([o0, o1]));
        if start < ETHERNET || usize::from(start) + usize::from(offset) + 2 > frame.len() {
            return Err(HeaderError::ChecksumPlace { start, offset, frame_bytes: frame.len() });
        }
        Checksum::Partial { start, offset }
    } else if flags & DATA_VALID != 0 {
        Checksum::Verified
    } else {
        Checksum::Complete
    };
    let kind = match gso_type {
        GSO_NONE => return Ok(Offload { checksum, segmentation: None }),
        GSO_UDP => SegmentKind::Udp,
        _ => match gso_type & !GSO_ECN {
            GSO_TCP_V4 => SegmentKind::TcpV4,
            GSO_TCP_V6 => SegmentKind::TcpV6,
            _ => return Err(HeaderError::UnknownType(gso_type)),
        },
    };
    let segment_bytes = u16::from_le_bytes([s0, s1]);
    if segment_bytes == 0 {
        return Err(HeaderError::ZeroSegment);
    }
    let Checksum::Partial { start, offset } = checksum else {
        return Err(HeaderError::SegmentationWithoutChecksum);
    };
    let misplaced = HeaderError::ChecksumPlace { start, offset, frame_bytes: frame.len() };
    let transport_bytes = match kind {
        SegmentKind::Udp if offset == UDP_FIELD => 8,
        SegmentKind::TcpV4 | SegmentKind::TcpV6 if offset == TCP_FIELD => {
            let data_offset = frame.get(usize::from(start) + 12).ok_or(misplaced)? >> 4;
            u16::from(data_offset) * 4
        }
        _ => return Err(misplaced),
    };
    let header_bytes = start.checked_add(transport_bytes).ok_or(misplaced)?;
    if usize::from(header_bytes) > frame.len() {
        return Err(misplaced);
    }
    Ok(Offload { checksum, segmentation: Some(Segmentation { kind, segment_bytes, header_bytes }) })
}

/// The header to write in front of a frame.
#[must_use]
pub fn encode(offload: Offload) -> [u8; LEN] {
    let (flags, start, offset) = match offload.checksum {
        Checksum::Complete => (0, 0, 0),
        Checksum::Verified => (DATA_VALID, 0, 0),
        Checksum::Partial { start, offset } => (NEEDS_CHECKSUM, start, offset),
    };
    let (gso_type, header_bytes, segment_bytes) = match offload.segmentation {
        None => (GSO_NONE, 0, 0),
        Some(Segmentation { kind, segment_bytes, header_bytes }) => {
            let gso_type = match kind {
                SegmentKind::TcpV4 => GSO_TCP_V4,
                SegmentKind::TcpV6 => GSO_TCP_V6,
                SegmentKind::Udp => GSO_UDP,
            };
            (gso_type, header_bytes, segment_bytes)
        }
    };
    let [h0, h1] = header_bytes.to_le_bytes();
    let [s0, s1] = segment_bytes.to_le_bytes();
    let [c0, c1] = start.to_le_bytes();
    let [o0, o1] = offset.to_le_bytes();
    [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1, 0, 0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp_frame() -> Vec<u8> {
        let mut frame = vec![0; 3000];
        frame[34 + 12] = 8 << 4;
        frame
    }

    #[test]
    fn a_tso_header_round_trips() {
        let offload = Offload {
            checksum: Checksum::Partial { start: 34, offset: 16 },
            segmentation: Some(Segmentation {
                kind: SegmentKind::TcpV4,
                segment_bytes: 1448,
                header_bytes: 66,
            }),
        };
        let header = encode(offload);
        assert_eq!(header, [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
        assert_eq!(decode(&header, &tcp_frame()), Ok(offload));
        // hdr_len is a hint only, the ECN bit changes nothing else.
        let mut other = header;
        other[1] |= GSO_ECN;
        other[2..4].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(decode(&other, &tcp_frame()), Ok(offload));
    }

    #[test]
    fn each_lie_is_refused() {
        let good = encode(Offload {
            checksum: Checksum::Partial { start: 34, offset: 16 },
            segmentation: Some(Segmentation {
                kind: SegmentKind::TcpV4,
                segment_bytes: 1448,
                header_bytes: 66,
            }),
        });
        let with = |changes: &[(usize, u8)]| {
            let mut header = good;
            for &(at, value) in changes {
                header[at] = value;
            }
            decode(&header, &tcp_frame())
        };
        let place = |start, offset| Err(HeaderError::ChecksumPlace { start, offset, frame_bytes: 3000 });
        assert_eq!(with(&[(4, 0), (5, 0)]), Err(HeaderError::ZeroSegment));
        assert_eq!(with(&[(0, 0)]), Err(HeaderError::SegmentationWithoutChecksum));
        assert_eq!(with(&[(1, 3)]), Err(HeaderError::UnknownType(3)));
        assert_eq!(with(&[(1, GSO_UDP | GSO_ECN)]), Err(HeaderError::UnknownType(0x85)));
        assert_eq!(with(&[(1, GSO_ECN)]), Err(HeaderError::UnknownType(0x80)));
        assert_eq!(with(&[(1, GSO_UDP)]), place(34, 16));
        assert_eq!(with(&[(8, 6)]), place(34, 6));
        assert_eq!(with(&[(6, 13)]), place(13, 16));
        assert_eq!(with(&[(6, 0xff), (7, 0xff)]), place(0xffff, 16));
        // The TCP header would end behind the frame.
        assert_eq!(
            decode(&good, &tcp_frame()[..60]),
            Err(HeaderError::ChecksumPlace { start: 34, offset: 16, frame_bytes: 60 })
        );
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header in any::<[u8; LEN]>(), frame in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(offload) = decode(&header, &frame) {
                prop_assert_eq!(decode(&encode(offload), &frame), Ok(offload));
            }
        }
    }
}
