//! The packet that an ICMP error speaks of: its IP header and at least eight bytes of what follows (RFC 792, RFC 4443
//! section 2.4(c)).
//!
//! A quote is cut short and may have been changed on its way, so lengths and checksums are not judged. Behind IPv6
//! extension headers nothing is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Protocol, ipv4, ipv6};

/// What a quoted packet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Where it came from.
    pub source: IpAddr,
    /// Where it went.
    pub destination: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The first eight bytes of the transport header; zeros for a later fragment, which has none.
    pub transport: [u8; 8],
}

impl Quote {
    /// Reads what stands behind the eight bytes of an ICMP or ICMPv6 error's header; `None` if that is no packet.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &[u8]) -> Option<Self> {
        let &[ihl, _, _, _, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            bytes.first_chunk::<{ ipv4::HEADER_BYTES }>()?;
        let header_bytes = usize::from(ihl & 0x0f) * 4;
        let is_first = u16::from_be_bytes([f0, f1]) & 0x1fff == 0;
        let transport = bytes.get(header_bytes.max(ipv4::HEADER_BYTES)..)?.first_chunk()?;
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol: Protocol(protocol),
            transport: if is_first { *transport } else { [0; 8] },
        })
    }

    fn parse_v6(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<{ ipv6::HEADER_BYTES }>()?;
        let [_, _, _, _, _, _, next, _, addresses @ ..] = header;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        Some(Self {
            source: Ipv6Addr::from_octets(*source).into(),
            destination: Ipv6Addr::from_octets(*destination.first_chunk()?).into(),
            protocol: Protocol(*next),
            transport: *rest.first_chunk()?,
        })
    }

    /// Source and destination port, of TCP and UDP.
    #[must_use]
    pub const fn ports(&self) -> (u16, u16) {
        let [a, b, c, d, ..] = self.transport;
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_read_however_short_the_rest_is() {
        let mut packet = vec![0x46, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, 6, 0xff, 0xff, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([1, 1, 1, 0]);
        packet.extend([0, 80, 1, 2, 9, 9, 9, 9]);
        let quote = Quote::parse(&packet).unwrap();
        assert_eq!((quote.protocol, quote.ports()), (Protocol::TCP, (80, 258)));
        assert_eq!(quote.source, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(quote.destination, IpAddr::from([10, 0, 0, 2]));
        for length in 0..packet.len() {
            assert_eq!(Quote::parse(packet.get(..length).unwrap()), None, "{length}");
        }
        packet[7] = 1;
        assert_eq!(Quote::parse(&packet).unwrap().ports(), (0, 0), "a later fragment");
    }

    #[test]
    fn a_quote_of_ipv6_is_read() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        packet.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([0, 53, 4, 0, 0, 8, 0, 0]);
        let quote = Quote::parse(&packet).unwrap();
        assert_eq!((quote.protocol, quote.ports()), (Protocol::UDP, (53, 1024)));
        assert_eq!(quote.destination, "fd00::2".parse::<IpAddr>().unwrap());
        assert_eq!(Quote::parse(packet.get(..47).unwrap()), None);
    }
}
