//! `virtio_net_hdr` (virtio 1.2 section 5.1.6): twelve bytes of header, then the frame behind them.

use dataplane::offload::checksum::complete;
use dataplane::offload::segment::{Cut, MAX_HEADERS};
use dataplane::offload::virtio::{LEN, decode, encode};
use dataplane::packet::{Checksum, Offload, SegmentKind, Segmentation};

/// A request is accepted exactly when the rules allow it, means what the rules say, and lies within the frame; written
/// and read again it is the same; what was accepted can be carried out or is refused, without a byte from outside.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let Some((header, frame)) = input.split_first_chunk::<LEN>() else { return };
    let decoded = decode(header, frame).ok();
    assert_eq!(decoded, by_the_book(header, frame));
    let Some(offload) = decoded else { return };
    assert_eq!(decode(&encode(offload), frame), Ok(offload), "written and read again");
    if let Checksum::Partial { start, offset } = offload.checksum {
        let at = usize::from(start) + usize::from(offset);
        let mut completed = frame.to_vec();
        complete(&mut completed, offload.checksum).expect("the field lies within the frame");
        completed[at..at + 2].copy_from_slice(&frame[at..at + 2]);
        assert_eq!(completed, frame, "nothing but the field was written");
    }
    if let Some(asked) = offload.segmentation {
        check_cut(frame, asked);
    }
}

/// The rules, one after the other.
fn by_the_book(header: &[u8; LEN], frame: &[u8]) -> Option<Offload> {
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (segment_bytes, start, offset) = (word(4), word(6), word(8));
    let (flags, kind) = (header[0], header[1]);
    let field_end = u32::from(start) + u32::from(offset) + 2;
    let checksum = match (flags & 1, flags & 2) {
        (1, _) if start >= 14 && field_end as usize <= frame.len() => Checksum::Partial { start, offset },
        (1, _) => return None,
        (_, 2) => Checksum::Verified,
        _ => Checksum::Complete,
    };
    let (kind, field) = match kind {
        0 => return Some(Offload { checksum, segmentation: None }),
        0x01 | 0x81 => (SegmentKind::TcpV4, 16),
        0x04 | 0x84 => (SegmentKind::TcpV6, 16),
        0x05 => (SegmentKind::Udp, 6),
        _ => return None,
    };
    let is_partial = matches!(checksum, Checksum::Partial { .. });
    if segment_bytes == 0 || !is_partial || offset != field {
        return None;
    }
    let transport = match kind {
        SegmentKind::Udp => 8,
        _ => u32::from(*frame.get(usize::from(start) + 12)? >> 4) * 4,
    };
    let header_bytes = u16::try_from(u32::from(start) + transport).ok()?;
    let segmentation = Some(Segmentation { kind, segment_bytes, header_bytes });
    (usize::from(header_bytes) <= frame.len()).then_some(Offload { checksum, segmentation })
}

/// Every byte of payload is in one piece, and the pieces keep to the length that was asked for.
fn check_cut(frame: &[u8], asked: Segmentation) {
    let Ok(plan) = Cut::plan(frame, 0, asked) else { return };
    let mut next = plan.header_bytes();
    assert_eq!(next, usize::from(asked.header_bytes));
    let mut headers = [0; MAX_HEADERS];
    for index in 0..plan.count() {
        let payload = plan.write(frame, index, &mut headers).expect("a planned piece");
        assert_eq!(payload.start, next);
        let is_last = index + 1 == plan.count();
        assert!(payload.len() == usize::from(asked.segment_bytes) || is_last && !payload.is_empty());
        assert!(payload.len() <= usize::from(asked.segment_bytes));
        next = payload.end;
    }
    assert_eq!(next, frame.len(), "all of the payload");
}
