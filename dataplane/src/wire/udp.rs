//! UDP header (RFC 768): 8 bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::{Layer, NoRoom, ParseError, Protocol, room, take};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

/// A UDP header whose length fits the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// Where from.
    pub source: u16,
    /// Where to.
    pub destination: u16,
    /// Bytes of header and payload.
    pub length_bytes: u16,
    /// The checksum; zero says that the sender made none (over IPv6 that is an error, RFC 8200 §8.1).
    pub checksum: u16,
}

impl Udp {
    /// Reads the header at the front of an IP payload. Bytes behind the length are tolerated (RFC 768 does not forbid
    /// them); a length beyond the payload is not. Length zero, IPv6's jumbograms, is refused: no link here carries them.
    ///
    /// # Errors
    /// `Truncated`, `BadLength`.
    #[inline]
    pub fn parse(ip_payload: &[u8]) -> Result<Self, ParseError> {
        let [s0, s1, d0, d1, l0, l1, c0, c1] = *take::<HEADER_BYTES>(ip_payload, 0, Layer::Udp)?;
        let length_bytes = u16::from_be_bytes([l0, l1]);
        let claimed = usize::from(length_bytes);
        if claimed < HEADER_BYTES || claimed > ip_payload.len() {
            return Err(ParseError::BadLength {
                layer: Layer::Udp,
                claimed,
                least: HEADER_BYTES,
                most: ip_payload.len(),
            });
        }
        Ok(Self {
            source: u16::from_be_bytes([s0, s1]),
            destination: u16::from_be_bytes([d0, d1]),
            length_bytes,
            checksum: u16::from_be_bytes([c0, c1]),
        })
    }

    /// The datagram's payload. `ip_payload` is what was parsed.
    #[must_use]
    pub fn payload<'a>(&self, ip_payload: &'a [u8]) -> &'a [u8] {
        ip_payload.get(HEADER_BYTES..usize::from(self.length_bytes)).unwrap_or_default()
    }

    /// Verifies the checksum over header and payload. Over IPv4 a missing checksum is fine, over IPv6 it is not.
    #[must_use]
    pub fn checksum_is_valid(&self, source: IpAddr, destination: IpAddr, ip_payload: &[u8]) -> bool {
        let Some(datagram) = ip_payload.get(..usize::from(self.length_bytes)) else { return false };
        let pseudo = match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) if self.checksum == 0 => return true,
            (IpAddr::V4(from), IpAddr::V4(to)) => Sum::pseudo_v4(from, to, Protocol::UDP, self.length_bytes),
            (IpAddr::V6(from), IpAddr::V6(to)) if self.checksum != 0 => {
                Sum::pseudo_v6(from, to, Protocol::UDP, u32::from(self.length_bytes))
            }
            _ => return false,
        };
        pseudo.add_bytes(datagram).is_valid()
    }

    /// The header's bytes, the checksum as it stands in the value.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let [s0, s1] = self.source.to_be_bytes();
        let [d0, d1] = self.destination.to_be_bytes();
        let [l0, l1] = self.length_bytes.to_be_bytes();
        let [c0, c1] = self.checksum.to_be_bytes();
        [s0, s1, d0, d1, l0, l1, c0, c1]
    }
}

/// Writes a header in front of the payload that already stands at `datagram[8..]`, checksum over IPv4 included.
///
/// # Errors
/// [`NoRoom`] below 8 bytes or above 65,535.
pub fn emit_v4(
    datagram: &mut [u8],
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
) -> Result<(), NoRoom> {
    emit(datagram, source.1, destination.1, |length| {
        Sum::pseudo_v4(source.0, destination.0, Protocol::UDP, length)
    })
}

/// As [`emit_v4`], over IPv6.
///
/// # Errors
/// [`NoRoom`] below 8 bytes or above 65,535.
pub fn emit_v6(
    datagram: &mut [u8],
    source: (Ipv6Addr, u16),
    destination: (Ipv6Addr, u16),
) -> Result<(), NoRoom> {
    emit(datagram, source.1, destination.1, |length| {
        Sum::pseudo_v6(source.0, destination.0, Protocol::UDP, u32::from(length))
    })
}

fn emit(
    datagram: &mut [u8],
    source: u16,
    destination: u16,
    pseudo: impl FnOnce(u16) -> Sum,
) -> Result<(), NoRoom> {
    let have = datagram.len();
    let length_bytes = u16::try_from(have).map_err(|_| NoRoom { need: have, have: usize::from(u16::MAX) })?;
    let mut header = Udp { source, destination, length_bytes, checksum: 0 };
    *room(datagram, 0)? = header.to_bytes();
    header.checksum = pseudo(length_bytes).add_bytes(datagram).udp_checksum();
    *room(datagram, 0)? = header.to_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_checked_against_the_payload() {
        let header = |length: u8| [0, 67, 0, 68, 0, length, 0, 0, 1, 2];
        assert_eq!(Udp::parse(&header(9)).unwrap().payload(&header(9)), &[1]);
        for bad in [0, 7, 11] {
            assert!(matches!(
                Udp::parse(&header(bad)),
                Err(ParseError::BadLength { layer: Layer::Udp, least: 8, most: 10, .. })
            ));
        }
        assert!(matches!(Udp::parse(&[0; 7]), Err(ParseError::Truncated { need: 8, have: 7, .. })));
    }

    #[test]
    fn a_missing_checksum_is_fine_over_ipv4_only() {
        let datagram = [0, 1, 0, 2, 0, 8, 0, 0];
        let header = Udp::parse(&datagram).unwrap();
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        assert!(header.checksum_is_valid(v4, v4, &datagram));
        assert!(!header.checksum_is_valid(v6, v6, &datagram));
        assert!(!header.checksum_is_valid(v4, v6, &datagram));
    }

    proptest! {
        #[test]
        fn what_is_emitted_verifies(payload in proptest::collection::vec(any::<u8>(), 0..100), flip in 0_usize..108,
                                    from: [u8; 4], to: [u8; 4], from6: [u8; 16], to6: [u8; 16], ports: (u16, u16)) {
            let mut datagram = [&[0; 8], &payload[..]].concat();
            let (from, to) = (Ipv4Addr::from(from), Ipv4Addr::from(to));
            emit_v4(&mut datagram, (from, ports.0), (to, ports.1)).unwrap();
            let header = Udp::parse(&datagram).unwrap();
            prop_assert_eq!((header.source, header.destination), ports);
            prop_assert_eq!(header.payload(&datagram), &payload[..]);
            prop_assert!(header.checksum != 0);
            prop_assert!(header.checksum_is_valid(from.into(), to.into(), &datagram));

            let (from, to) = (Ipv6Addr::from(from6), Ipv6Addr::from(to6));
            emit_v6(&mut datagram, (from, ports.0), (to, ports.1)).unwrap();
            let header = Udp::parse(&datagram).unwrap();
            prop_assert!(header.checksum_is_valid(from.into(), to.into(), &datagram));
            if let Some(byte) = datagram.get_mut(flip).filter(|_| flip > 7) {
                *byte ^= 1;
                prop_assert!(!header.checksum_is_valid(from.into(), to.into(), &datagram));
            }
        }
    }
}
