//! The Internet checksum (RFC 1071) of long payloads, and the completion of a partial one.

use crate::packet::Checksum;

/// A one's-complement sum, not yet folded. Pieces may be added in any order if all but the last have an even length.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds `bytes`; an odd last byte counts as the high half of a word.
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        // Lanes of 32 bits in 64 lose no carry, and the compiler makes vectors of this loop.
        let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum += u64::from(u32::from_ne_bytes(last));
        Self(self.0 + (sum & 0xffff_ffff) + (sum >> 32))
    }

    /// Adds a 16-bit word given in host order.
    pub(super) fn add_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(u16::from_ne_bytes(word.to_be_bytes())))
    }

    /// The 16-bit sum, not complemented: what the field of a partial checksum holds.
    pub(super) fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let [low, high, ..] = sum.to_le_bytes();
        u16::from_be_bytes(u16::from_le_bytes([low, high]).to_ne_bytes())
    }

    /// The checksum as TCP and UDP send it. Zero is sent as its twin 0xffff, because it means "none" in UDP; receivers
    /// cannot tell the two apart.
    pub(super) fn checksum(self) -> u16 {
        match !self.fold() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

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

/// Completes a partial L4 checksum in place and returns what is then true of the frame. `frame` begins with the
/// Ethernet header that `checksum` counts from. Does nothing for a complete one.
///
/// # Errors
/// [`OutsideFrame`]; the frame is then unchanged.
pub fn complete(frame: &mut [u8], checksum: Checksum) -> Result<Checksum, OutsideFrame> {
    let Checksum::Partial { start, offset } = checksum else { return Ok(checksum) };
    let outside = OutsideFrame { start, offset, frame_bytes: frame.len() };
    let summed = frame.get_mut(usize::from(start)..).ok_or(outside)?;
    let sum = Sum::default().add(summed).checksum();
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
        fn sum_equals_the_book(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Sum::default().add(&bytes).fold(), by_the_book(&bytes));
        }

        #[test]
        fn completion_adds_the_rest(mut frame in proptest::collection::vec(any::<u8>(), 60..200)) {
            let expected = match !by_the_book(&frame[34..]) {
                0 => 0xffff,
                sum => sum,
            };
            let done = complete(&mut frame, Checksum::Partial { start: 34, offset: 16 });
            prop_assert_eq!(done, Ok(Checksum::Complete));
            prop_assert_eq!(u16::from_be_bytes([frame[50], frame[51]]), expected);
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

    #[test]
    fn sixty_four_kib_of_ones_do_not_overflow() {
        assert_eq!(Sum::default().add(&vec![0xff; 65_536]).fold(), 0xffff);
    }
}
