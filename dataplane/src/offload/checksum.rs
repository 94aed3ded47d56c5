//! Completion of a partial L4 checksum.

use crate::packet::Checksum;
use crate::wire::checksum::Sum;

/// A checksum request that points outside of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "partial checksum from byte {start}, field {offset} bytes behind, lies outside of a frame of {frame_bytes} bytes"
)]
pub struct OutsideFrame {
    /// Where the summed bytes would begin.
    pub start: u16,
    /// Where the field would be, from `start`.
    pub offset: u16,
    /// The frame's length.
    pub frame_bytes: usize,
}

/// Where UDP has its checksum; TCP's is 16 bytes from the header's start.
const UDP_FIELD: u16 = 6;

/// Completes a partial L4 checksum in place and returns what is then true of the frame. `frame` begins with the
/// Ethernet header that `checksum` counts from. Does nothing for a complete one.
///
/// # Errors
/// [`OutsideFrame`]; the frame is then unchanged.
pub fn complete(frame: &mut [u8], checksum: Checksum) -> Result<Checksum, OutsideFrame> {
    let Checksum::Partial { start, offset } = checksum else { return Ok(checksum) };
    let outside = OutsideFrame { start, offset, frame_bytes: frame.len() };
    let summed = frame.get_mut(usize::from(start)..).ok_or(outside)?;
    let sum = Sum::ZERO.add_bytes(summed);
    // Zero means "none" in UDP; everybody else's zero is a zero, and its twin 0xffff a fault to strict readers.
    let sum = if offset == UDP_FIELD { sum.udp_checksum() } else { sum.checksum() };
    let field =
        summed.get_mut(usize::from(offset)..).and_then(<[u8]>::first_chunk_mut::<2>).ok_or(outside)?;
    *field = sum.to_be_bytes();
    Ok(Checksum::Complete)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §4.1, word by word.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    proptest! {
        #[test]
        fn completion_adds_the_rest(mut frame in proptest::collection::vec(any::<u8>(), 60..200)) {
            let expected = !by_the_book(&frame[34..]);
            let done = complete(&mut frame, Checksum::Partial { start: 34, offset: 16 });
            prop_assert_eq!(done, Ok(Checksum::Complete));
            prop_assert_eq!(u16::from_be_bytes([frame[50], frame[51]]), expected);
        }
    }

    #[test]
    fn only_udp_writes_zero_as_its_twin() {
        for (offset, written) in [(16, 0), (6, 0xffff)] {
            let mut frame = [0; 60];
            frame[34..36].fill(0xff);
            assert_eq!(complete(&mut frame, Checksum::Partial { start: 34, offset }), Ok(Checksum::Complete));
            let at = 34 + usize::from(offset);
            assert_eq!(u16::from_be_bytes([frame[at], frame[at + 1]]), written, "field at {offset}");
        }
    }

    #[test]
    fn a_request_outside_of_the_frame_is_refused() {
        let mut frame = [7; 50];
        for (start, offset) in [(51, 0), (34, 16), (40, 9), (u16::MAX, u16::MAX)] {
            assert!(complete(&mut frame, Checksum::Partial { start, offset }).is_err(), "{start}+{offset}");
        }
        assert_eq!(frame, [7; 50]);
    }
}
