//! The Internet checksum (RFC 1071), its pseudo-headers, and updates without recomputation (RFC 1624).
//!
//! Words are summed in the machine's own byte order and swapped once at the end, which RFC 1071 §2(B) allows.
//! Never here: knowledge of where a protocol keeps its checksum.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Protocol;

/// A running one's-complement sum. Order of additions does not matter, but every piece except the last must have an
/// even length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Of IPv4's pseudo-header (RFC 9293 §3.1, RFC 768). `length` is that of the transport header and its payload.
    #[must_use]
    pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: Protocol, length: u16) -> Self {
        Self::ZERO
            .add_chunk(source.octets())
            .add_chunk(destination.octets())
            .add_word(u16::from(protocol.0))
            .add_word(length)
    }

    /// Of IPv6's pseudo-header (RFC 8200 §8.1). `protocol` is the upper layer's, not that of an extension header.
    #[must_use]
    pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: Protocol, length: u32) -> Self {
        Self::ZERO
            .add_bytes(&source.octets())
            .add_bytes(&destination.octets())
            .add_chunk(length.to_be_bytes())
            .add_word(u16::from(protocol.0))
    }

    /// Adds `bytes`; an odd last byte counts as the high half of a word.
    #[must_use]
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<32>();
        // Four lanes of 32 bits in 64: no carry is lost, and the compiler makes vectors of them.
        let mut lanes = [0_u64; 4];
        for block in blocks {
            let [a, b, c, d, e, f, g, h] = words(block);
            let [w, x, y, z] = &mut lanes;
            *w += u64::from(a) + u64::from(e);
            *x += u64::from(b) + u64::from(f);
            *y += u64::from(c) + u64::from(g);
            *z += u64::from(d) + u64::from(h);
        }
        let mut sum: u64 = lanes.iter().copied().map(halve).sum();
        let (quads, rest) = rest.as_chunks::<4>();
        sum += quads.iter().map(|quad| u64::from(u32::from_ne_bytes(*quad))).sum::<u64>();
        let tail = match *rest {
            [a, b, c] => [a, b, c, 0],
            [a, b] => [a, b, 0, 0],
            [a] => [a, 0, 0, 0],
            _ => [0; 4],
        };
        Self(halve(self.0 + sum + u64::from(u32::from_ne_bytes(tail))))
    }

    /// Adds four bytes.
    #[must_use]
    #[inline]
    pub const fn add_chunk(self, bytes: [u8; 4]) -> Self {
        Self(self.0 + u32::from_ne_bytes(bytes) as u64)
    }

    /// Adds a word given in host order.
    #[must_use]
    #[inline]
    pub const fn add_word(self, word: u16) -> Self {
        Self(self.0 + u16::from_ne_bytes(word.to_be_bytes()) as u64)
    }

    /// The folded 16-bit sum, not complemented: what a partial checksum field holds.
    #[must_use]
    #[inline]
    pub const fn fold(self) -> u16 {
        // Added to itself with its halves swapped, a number has in its upper half what both halves add up to, the carry of
        // the lower one included: the fold.
        let [_, _, _, _, a, b, c, d] = self.0.wrapping_add(self.0.rotate_left(32)).to_le_bytes();
        let sum = u32::from_le_bytes([a, b, c, d]);
        let [_, _, a, b] = sum.wrapping_add(sum.rotate_left(16)).to_le_bytes();
        let native = u16::from_le_bytes([a, b]);
        u16::from_be_bytes(native.to_ne_bytes())
    }

    /// The checksum: the complement of [`Sum::fold`].
    #[must_use]
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum as UDP sends it: zero means "none" there, so a computed zero is sent as its twin 0xffff (RFC 768).
    #[must_use]
    pub const fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// True when the summed bytes contain a correct checksum.
    #[must_use]
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

/// Folds 64 bits into 33.
#[inline]
const fn halve(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

#[inline]
fn words(block: &[u8; 32]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, quad) in words.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*quad);
    }
    words
}

/// The checksum after one summed word changed from `old` to `new`: RFC 1624 §3, equation 3. (Equation 4 would turn
/// 0x0000 into 0xffff; §4 has the example.)
#[must_use]
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = sum.to_be_bytes();
    !u16::from_be_bytes([high, low])
}

/// [`update`] for four bytes at an even offset: an IPv4 address.
#[must_use]
pub fn update_chunk(checksum: u16, old: [u8; 4], new: [u8; 4]) -> u16 {
    let ([a, b, c, d], [e, f, g, h]) = (old, new);
    let first = update(checksum, u16::from_be_bytes([a, b]), u16::from_be_bytes([e, f]));
    update(first, u16::from_be_bytes([c, d]), u16::from_be_bytes([g, h]))
}

/// [`update`] for UDP: a sender that wrote no checksum (zero) still has none, and a result of zero is sent as 0xffff.
#[must_use]
pub fn update_udp(checksum: u16, old: u16, new: u16) -> u16 {
    match (checksum, update(checksum, old, new)) {
        (0, _) => 0,
        (_, 0) => 0xffff,
        (_, sum) => sum,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §4.1, word by word: the slow oracle.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn rfc_1071_example() {
        let sum = Sum::ZERO.add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    #[test]
    fn rfc_1624_example_keeps_the_right_zero() {
        // §4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000, not 0xFFFF.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn udp_never_sends_the_zero_that_means_none() {
        assert_eq!(Sum::ZERO.add_bytes(&[0xff, 0xff]).udp_checksum(), 0xffff);
        assert_eq!(update_udp(0xdd2f, 0x5555, 0x3285), 0xffff);
        assert_eq!(update_udp(0, 0x5555, 0x3285), 0);
    }

    #[test]
    fn a_full_64k_of_ones_does_not_overflow() {
        let bytes = vec![0xff; 65_536];
        assert_eq!(Sum::ZERO.add_bytes(&bytes).fold(), 0xffff);
    }

    proptest! {
        #[test]
        fn equals_the_book(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Sum::ZERO.add_bytes(&bytes).checksum(), by_the_book(&bytes));
        }

        #[test]
        fn pieces_sum_to_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..100) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let (head, tail) = bytes.split_at(cut);
            prop_assert_eq!(Sum::ZERO.add_bytes(tail).add_bytes(head).fold(), Sum::ZERO.add_bytes(&bytes).fold());
        }

        #[test]
        fn incremental_equals_recomputed(mut words in proptest::collection::vec(any::<u16>(), 2..20),
                                         at in any::<proptest::sample::Index>(), new in any::<u16>()) {
            // A real header is never all zeros (its version is 4), which is what equation 3 needs.
            words[0] = 0x4500;
            let at = at.index(words.len() - 1) + 1;
            let sum = |words: &[u16]| words.iter().fold(Sum::ZERO, |sum, &w| sum.add_word(w)).checksum();
            let before = sum(&words);
            let old = std::mem::replace(&mut words[at], new);
            prop_assert_eq!(update(before, old, new), sum(&words));
        }
    }
}
