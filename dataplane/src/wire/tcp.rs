//! TCP header (RFC 9293): what a switch looks at. Never here: connection state.

use super::{Layer, ParseError, take};

/// Bytes of the header without options.
pub const HEADER_BYTES: usize = 20;

/// The control bits, RFC 9293 §3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// RFC 3168: congestion seen.
    pub const ECE: Self = Self(0x40);
    /// RFC 3168: congestion window reduced.
    pub const CWR: Self = Self(0x80);

    /// True when all bits of `other` are set.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when any bit of `other` is set.
    #[must_use]
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A TCP header whose data offset fits the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Where from.
    pub source: u16,
    /// Where to.
    pub destination: u16,
    /// Number of the first payload byte (of SYN, where set).
    pub sequence: u32,
    /// The next byte that the sender expects.
    pub acknowledgement: u32,
    /// Bytes of the header with its options: 20 to 60.
    pub header_bytes: u8,
    /// The control bits.
    pub flags: Flags,
    /// Receive window, unscaled.
    pub window: u16,
    /// The checksum as it stands.
    pub checksum: u16,
    /// The urgent pointer.
    pub urgent: u16,
}

impl Tcp {
    /// Reads the header at the front of an IP payload. The checksum is left to its receiver.
    ///
    /// # Errors
    /// `Truncated`, `BadLength` for a data offset below 5 or beyond the payload.
    #[inline]
    pub fn parse(ip_payload: &[u8]) -> Result<Self, ParseError> {
        let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, c0, c1, u0, u1] =
            *take::<HEADER_BYTES>(ip_payload, 0, Layer::Tcp)?;
        let header_bytes = (offset >> 4) * 4;
        let claimed = usize::from(header_bytes);
        if claimed < HEADER_BYTES || claimed > ip_payload.len() {
            return Err(ParseError::BadLength {
                layer: Layer::Tcp,
                claimed,
                least: HEADER_BYTES,
                most: ip_payload.len().min(60),
            });
        }
        Ok(Self {
            source: u16::from_be_bytes([s0, s1]),
            destination: u16::from_be_bytes([d0, d1]),
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
            header_bytes,
            flags: Flags(flags),
            window: u16::from_be_bytes([w0, w1]),
            checksum: u16::from_be_bytes([c0, c1]),
            urgent: u16::from_be_bytes([u0, u1]),
        })
    }

    /// The 20 fixed bytes, the checksum as it stands in the value; the four reserved bits are sent as zero.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let [s0, s1] = self.source.to_be_bytes();
        let [d0, d1] = self.destination.to_be_bytes();
        let [q0, q1, q2, q3] = self.sequence.to_be_bytes();
        let [a0, a1, a2, a3] = self.acknowledgement.to_be_bytes();
        let [w0, w1] = self.window.to_be_bytes();
        let [c0, c1] = self.checksum.to_be_bytes();
        let [u0, u1] = self.urgent.to_be_bytes();
        let offset = (self.header_bytes / 4) << 4;
        [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, self.flags.0, w0, w1, c0, c1, u0, u1]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_data_offset_stays_within_the_segment() {
        let mut bytes = [0; 24];
        for (offset, fits) in [(4, false), (5, true), (6, true), (7, false)] {
            bytes[12] = offset << 4;
            assert_eq!(Tcp::parse(&bytes).is_ok(), fits, "{offset}");
        }
        assert!(matches!(Tcp::parse(&bytes[..19]), Err(ParseError::Truncated { need: 20, have: 19, .. })));
    }

    #[test]
    fn flags_are_sets() {
        let syn_ack = Flags::SYN.union(Flags::ACK);
        assert!(syn_ack.contains(Flags::SYN) && !Flags::SYN.contains(syn_ack));
        assert!(syn_ack.intersects(Flags::ACK) && !syn_ack.intersects(Flags::RST));
    }

    proptest! {
        #[test]
        fn emit_undoes_parse(mut bytes: [u8; 20]) {
            bytes[12] = 0x50;
            prop_assert_eq!(Tcp::parse(&bytes).unwrap().to_bytes(), bytes);
        }
    }
}
