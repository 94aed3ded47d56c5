//! Ethernet II header: destination, source, EtherType; 14 bytes.
//!
//! VLAN tags are recognised, never unwrapped: the switch drops tagged frames by name.

use super::{Layer, NoRoom, ParseError, room, take};
use crate::types::MacAddr;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 14;

/// What follows the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// IEEE 802.1Q customer tag.
    pub const VLAN: Self = Self(0x8100);
    /// IEEE 802.1ad service tag.
    pub const SERVICE_VLAN: Self = Self(0x88a8);

    /// True for tags: 802.1Q, 802.1ad, and the 0x9100 that stacked tags had before 802.1ad.
    #[must_use]
    #[inline]
    pub const fn is_vlan(self) -> bool {
        matches!(self, Self::VLAN | Self::SERVICE_VLAN | Self(0x9100))
    }
}

impl std::fmt::Debug for EtherType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EtherType({:#06x})", self.0)
    }
}

/// An Ethernet II header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Where to.
    pub destination: MacAddr,
    /// Where from.
    pub source: MacAddr,
    /// What follows. Values below 0x0600 are IEEE 802.3 lengths, which nothing here speaks.
    pub ethertype: EtherType,
}

impl Ethernet {
    /// Reads the header at the front of `frame`.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, ParseError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = *take::<HEADER_BYTES>(frame, 0, Layer::Ethernet)?;
        Ok(Self {
            destination: MacAddr([a, b, c, d, e, f]),
            source: MacAddr([g, h, i, j, k, l]),
            ethertype: EtherType(u16::from_be_bytes([m, n])),
        })
    }

    /// The header's bytes.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let MacAddr([a, b, c, d, e, f]) = self.destination;
        let MacAddr([g, h, i, j, k, l]) = self.source;
        let [m, n] = self.ethertype.0.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
    }

    /// Writes the header to the front of `frame`.
    ///
    /// # Errors
    /// [`NoRoom`] below 14 bytes.
    pub fn emit(&self, frame: &mut [u8]) -> Result<(), NoRoom> {
        *room(frame, 0)? = self.to_bytes();
        Ok(())
    }
}

/// Rewrites both addresses and leaves the EtherType.
///
/// # Errors
/// [`NoRoom`] below 12 bytes.
#[inline]
pub fn set_addresses(frame: &mut [u8], destination: MacAddr, source: MacAddr) -> Result<(), NoRoom> {
    let addresses: &mut [u8; 12] = room(frame, 0)?;
    let (to, from) = addresses.split_at_mut(6);
    to.copy_from_slice(&destination.0);
    from.copy_from_slice(&source.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];

    #[test]
    fn header_round_trips() {
        let header = Ethernet::parse(&HEADER).unwrap();
        assert_eq!(header.destination, MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(header.source, MacAddr([2, 0, 0, 0, 0, 2]));
        assert_eq!(header.ethertype, EtherType::IPV6);
        assert_eq!(header.to_bytes(), HEADER);
        let refused = ParseError::Truncated { layer: Layer::Ethernet, need: 14, have: 13 };
        assert_eq!(Ethernet::parse(&HEADER[..13]), Err(refused));
    }

    #[test]
    fn addresses_change_and_the_ethertype_stays() {
        let mut frame = HEADER;
        set_addresses(&mut frame, MacAddr::BROADCAST, MacAddr::ROUTER).unwrap();
        let header = Ethernet::parse(&frame).unwrap();
        assert_eq!((header.destination, header.source), (MacAddr::BROADCAST, MacAddr::ROUTER));
        assert_eq!(header.ethertype, EtherType::IPV6);
    }

    #[test]
    fn all_three_tags_are_recognised() {
        assert!([0x8100, 0x88a8, 0x9100].into_iter().all(|value| EtherType(value).is_vlan()));
        assert!(!EtherType::IPV4.is_vlan());
    }
}
