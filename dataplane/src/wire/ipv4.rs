//! IPv4 header (RFC 791): 20 bytes and up to 40 of options.
//!
//! All functions take bytes that begin at the IPv4 header. Fragments are judged here by the predicates of RFC 1858 and
//! RFC 3128, and never reassembled.

use std::net::Ipv4Addr;

use super::checksum::{self, Sum};
use super::{Layer, NoRoom, ParseError, Protocol, room, take};

/// Bytes of a header without options, the only kind that is emitted.
pub const HEADER_BYTES: usize = 20;

pub(super) const DONT_FRAGMENT: u16 = 0x4000;
pub(super) const MORE_FRAGMENTS: u16 = 0x2000;
pub(super) const OFFSET_MASK: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// An IPv4 header whose lengths fit the bytes at hand and whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4 {
    /// Bytes of the header with its options: 20 to 60.
    pub header_bytes: u8,
    /// DSCP (upper six bits) and ECN (lower two).
    pub tos: u8,
    /// Bytes of header and payload. What follows in the frame is Ethernet's padding.
    pub total_bytes: u16,
    /// The datagram's identification, which its fragments share.
    pub identification: u16,
    /// Routers must not fragment.
    pub dont_fragment: bool,
    /// Another fragment follows.
    pub more_fragments: bool,
    /// Where this fragment's payload belongs, in units of eight bytes.
    pub fragment_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: Protocol,
    /// Where from.
    pub source: Ipv4Addr,
    /// Where to.
    pub destination: Ipv4Addr,
    /// A loose or strict source route is among the options.
    pub source_routed: bool,
}

impl Ipv4 {
    /// Reads and checks the header at the front of `packet`: version, lengths, options, checksum.
    ///
    /// # Errors
    /// `Truncated`, `BadVersion`, `BadLength` (header or total length), `BadChecksum`, `Violation` for options that
    /// overrun the header.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, ParseError> {
        const LAYER: Layer = Layer::Ipv4;
        let fixed = take::<HEADER_BYTES>(packet, 0, LAYER)?;
        let [version_ihl, tos, l0, l1, id0, id1, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            *fixed;
        if version_ihl >> 4 != 4 {
            return Err(ParseError::BadVersion { layer: LAYER, found: version_ihl >> 4 });
        }
        let header_bytes = (version_ihl & 0x0f) * 4;
        let header_len = usize::from(header_bytes);
        if header_len < HEADER_BYTES {
            return Err(ParseError::BadLength {
                layer: LAYER,
                claimed: header_len,
                least: HEADER_BYTES,
                most: 60,
            });
        }
        let total_bytes = u16::from_be_bytes([l0, l1]);
        let total = usize::from(total_bytes);
        if total < header_len || total > packet.len() {
            return Err(ParseError::BadLength {
                layer: LAYER,
                claimed: total,
                least: header_len,
                most: packet.len(),
            });
        }
        let mut sum = fixed_sum(fixed);
        let mut source_routed = false;
        if header_len > HEADER_BYTES {
            let options = packet.get(HEADER_BYTES..header_len).unwrap_or_default();
            sum = sum.add_bytes(options);
            source_routed = has_source_route(options)?;
        }
        if !sum.is_valid() {
            return Err(ParseError::BadChecksum { layer: LAYER });
        }
        let fragment = u16::from_be_bytes([f0, f1]);
        Ok(Self {
            header_bytes,
            tos,
            total_bytes,
            identification: u16::from_be_bytes([id0, id1]),
            dont_fragment: fragment & DONT_FRAGMENT != 0,
            more_fragments: fragment & MORE_FRAGMENTS != 0,
            fragment_offset: fragment & OFFSET_MASK,
            ttl,
            protocol: Protocol(protocol),
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
            source_routed,
        })
    }

    /// The bytes behind the header, without Ethernet's padding. `packet` is what was parsed.
    #[must_use]
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(usize::from(self.header_bytes)..usize::from(self.total_bytes)).unwrap_or_default()
    }

    /// The header's bytes with the right checksum. Options are not written: `header_bytes` counts as 20.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let fragment = self.fragment_offset & OFFSET_MASK
            | if self.dont_fragment { DONT_FRAGMENT } else { 0 }
            | if self.more_fragments { MORE_FRAGMENTS } else { 0 };
        let [l0, l1] = self.total_bytes.to_be_bytes();
        let [id0, id1] = self.identification.to_be_bytes();
        let [f0, f1] = fragment.to_be_bytes();
        let [s0, s1, s2, s3] = self.source.octets();
        let [d0, d1, d2, d3] = self.destination.octets();
        let with = |[c0, c1]: [u8; 2]| {
            [
                0x45,
                self.tos,
                l0,
                l1,
                id0,
                id1,
                f0,
                f1,
                self.ttl,
                self.protocol.0,
                c0,
                c1,
                s0,
                s1,
                s2,
                s3,
                d0,
                d1,
                d2,
                d3,
            ]
        };
        with(Sum::ZERO.add_bytes(&with([0, 0])).checksum().to_be_bytes())
    }

    /// Writes the header to the front of `packet`.
    ///
    /// # Errors
    /// [`NoRoom`] below 20 bytes.
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        *room(packet, 0)? = self.to_bytes();
        Ok(())
    }

    /// True for a piece of a datagram, the first one included.
    #[must_use]
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// RFC 1858 §4 and RFC 3128 §4: a fragment at offset 1 (eight bytes) lies within the transport header that the
    /// first fragment must hold whole; its only use is to overwrite TCP flags behind a filter's back.
    #[must_use]
    #[inline]
    pub const fn overlaps_transport(&self) -> bool {
        self.fragment_offset == 1 && matches!(self.protocol, Protocol::TCP)
    }

    /// RFC 1858 §3: a first fragment that doesn't hold the whole fixed TCP header (20 bytes; RFC 3128 raises the
    /// original 16) hides its ports or flags from whoever looks.
    #[must_use]
    pub const fn is_tiny_first_fragment(&self) -> bool {
        self.more_fragments
            && self.fragment_offset == 0
            && matches!(self.protocol, Protocol::TCP)
            && (self.total_bytes as usize).saturating_sub(self.header_bytes as usize)
                < super::tcp::HEADER_BYTES
    }
}

/// Of the header without its options.
#[inline]
fn fixed_sum(fixed: &[u8; HEADER_BYTES]) -> Sum {
    let mut sum = Sum::ZERO;
    for quad in fixed.as_chunks::<4>().0 {
        sum = sum.add_chunk(*quad);
    }
    sum
}

/// True when the checksum of a header without options is right.
#[inline]
pub(super) fn is_checksum_valid(header: &[u8; HEADER_BYTES]) -> bool {
    fixed_sum(header).is_valid()
}

/// Walks the options. Each but END and NOP has a length of at least two that stays within the header (RFC 791 §3.1).
fn has_source_route(options: &[u8]) -> Result<bool, ParseError> {
    let mut rest = options;
    let mut found = false;
    loop {
        match *rest {
            [] | [OPTION_END, ..] => return Ok(found),
            [OPTION_NOP, ref after @ ..] => rest = after,
            [kind, length, ..] => {
                rest = match rest.get(usize::from(length)..) {
                    Some(after) if length >= 2 => after,
                    _ => break,
                };
                found |= matches!(kind, OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE);
            }
            [_] => break,
        }
    }
    Err(ParseError::Violation { layer: Layer::Ipv4, rule: "an option overruns the header" })
}

/// Takes one from the TTL and mends the checksum; `Ok(None)` leaves the packet as it was because the TTL would become
/// zero (RFC 1812 §5.3.1: such a packet is discarded, with an ICMP time exceeded). Gives the new TTL.
///
/// # Errors
/// [`NoRoom`] below 20 bytes.
#[inline]
pub fn decrement_ttl(packet: &mut [u8]) -> Result<Option<u8>, NoRoom> {
    let header: &mut [u8; HEADER_BYTES] = room(packet, 0)?;
    let [_, _, _, _, _, _, _, _, ttl, protocol, c0, c1, ..] = header;
    if *ttl <= 1 {
        return Ok(None);
    }
    let old = u16::from_be_bytes([*ttl, *protocol]);
    *ttl -= 1;
    let sum = checksum::update(u16::from_be_bytes([*c0, *c1]), old, u16::from_be_bytes([*ttl, *protocol]));
    [*c0, *c1] = sum.to_be_bytes();
    Ok(Some(*ttl))
}

/// Replaces DSCP and ECN and mends the checksum.
///
/// # Errors
/// [`NoRoom`] below 20 bytes.
pub fn set_tos(packet: &mut [u8], value: u8) -> Result<(), NoRoom> {
    let header: &mut [u8; HEADER_BYTES] = room(packet, 0)?;
    let [version_ihl, tos, _, _, _, _, _, _, _, _, c0, c1, ..] = header;
    let old = u16::from_be_bytes([*version_ihl, *tos]);
    *tos = value;
    let sum = checksum::update(u16::from_be_bytes([*c0, *c1]), old, u16::from_be_bytes([*version_ihl, *tos]));
    [*c0, *c1] = sum.to_be_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Ipv4 {
        Ipv4 {
            header_bytes: 20,
            tos: 0,
            total_bytes: 20,
            identification: 7,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: Protocol::UDP,
            source: Ipv4Addr::new(10, 0, 0, 1),
            destination: Ipv4Addr::new(10, 0, 0, 2),
            source_routed: false,
        }
    }

    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut bytes = sample().to_bytes().to_vec();
        bytes.extend_from_slice(options);
        bytes[0] = 0x40 | u8::try_from(bytes.len() / 4).unwrap();
        bytes[3] = u8::try_from(bytes.len()).unwrap();
        [bytes[10], bytes[11]] = [0, 0];
        [bytes[10], bytes[11]] = Sum::ZERO.add_bytes(&bytes).checksum().to_be_bytes();
        bytes
    }

    #[test]
    fn each_bad_length_has_its_reason() {
        let good = sample().to_bytes();
        assert_eq!(
            Ipv4::parse(&good[..19]),
            Err(ParseError::Truncated { layer: Layer::Ipv4, need: 20, have: 19 })
        );
        let mut bytes = good;
        bytes[0] = 0x65;
        assert_eq!(Ipv4::parse(&bytes), Err(ParseError::BadVersion { layer: Layer::Ipv4, found: 6 }));
        bytes[0] = 0x44;
        assert!(matches!(Ipv4::parse(&bytes), Err(ParseError::BadLength { claimed: 16, least: 20, .. })));
        bytes[0] = 0x46;
        assert!(matches!(Ipv4::parse(&bytes), Err(ParseError::BadLength { claimed: 20, least: 24, .. })));
        bytes[0] = 0x45;
        bytes[3] = 21;
        assert!(matches!(Ipv4::parse(&bytes), Err(ParseError::BadLength { claimed: 21, most: 20, .. })));
        bytes[3] = 20;
        bytes[8] = 63;
        assert_eq!(Ipv4::parse(&bytes), Err(ParseError::BadChecksum { layer: Layer::Ipv4 }));
    }

    #[test]
    fn ethernet_padding_is_no_payload() {
        let mut bytes = sample().to_bytes().to_vec();
        bytes.resize(46, 0xaa);
        assert_eq!(Ipv4::parse(&bytes).unwrap().payload(&bytes), b"");
    }

    #[test]
    fn source_routes_are_seen_behind_other_options() {
        let lsrr = [1, 131, 7, 4, 10, 0, 0, 9];
        assert!(Ipv4::parse(&with_options(&lsrr)).unwrap().source_routed);
        let ssrr = [148, 4, 0, 0, 137, 3, 4, 0];
        assert!(Ipv4::parse(&with_options(&ssrr)).unwrap().source_routed);
        let router_alert_then_end = [148, 4, 0, 0, 0, 131, 7, 4];
        assert!(!Ipv4::parse(&with_options(&router_alert_then_end)).unwrap().source_routed);
    }

    #[test]
    fn options_may_not_overrun_the_header() {
        for bad in [[7, 9, 4, 0], [7, 1, 4, 0], [7, 0, 4, 0], [1, 1, 1, 7]] {
            assert!(matches!(Ipv4::parse(&with_options(&bad)), Err(ParseError::Violation { .. })), "{bad:?}");
        }
    }

    #[test]
    fn ttl_one_is_not_forwarded() {
        let mut bytes = Ipv4 { ttl: 1, ..sample() }.to_bytes();
        assert_eq!(decrement_ttl(&mut bytes), Ok(None));
        assert_eq!(Ipv4::parse(&bytes).unwrap().ttl, 1);
        assert!(decrement_ttl(&mut bytes[..19]).is_err());
    }

    #[test]
    fn fragment_predicates() {
        let tcp = Ipv4 { protocol: Protocol::TCP, total_bytes: 39, ..sample() };
        assert!(Ipv4 { more_fragments: true, ..tcp }.is_tiny_first_fragment());
        assert!(!Ipv4 { more_fragments: true, total_bytes: 40, ..tcp }.is_tiny_first_fragment());
        assert!(!tcp.is_tiny_first_fragment() && !tcp.is_fragment());
        assert!(Ipv4 { fragment_offset: 1, ..tcp }.overlaps_transport());
        assert!(!Ipv4 { fragment_offset: 2, ..tcp }.overlaps_transport());
        assert!(Ipv4 { fragment_offset: 2, ..tcp }.is_fragment());
    }

    prop_compose! {
        fn any_header()(tos: u8, identification: u16, bits: u16, ttl: u8, protocol: u8,
                        source: [u8; 4], destination: [u8; 4]) -> Ipv4 {
            Ipv4 {
                header_bytes: 20,
                tos,
                total_bytes: 20,
                identification,
                dont_fragment: bits & DONT_FRAGMENT != 0,
                more_fragments: bits & MORE_FRAGMENTS != 0,
                fragment_offset: bits & OFFSET_MASK,
                ttl,
                protocol: Protocol(protocol),
                source: source.into(),
                destination: destination.into(),
                source_routed: false,
            }
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(header in any_header()) {
            prop_assert_eq!(Ipv4::parse(&header.to_bytes()), Ok(header));
        }

        #[test]
        fn edits_keep_the_checksum_right(header in any_header(), tos: u8) {
            let mut bytes = header.to_bytes();
            set_tos(&mut bytes, tos).unwrap();
            prop_assert_eq!(Ipv4::parse(&bytes), Ok(Ipv4 { tos, ..header }));
            if let Some(ttl) = decrement_ttl(&mut bytes).unwrap() {
                prop_assert_eq!(ttl, header.ttl - 1);
                prop_assert_eq!(bytes, Ipv4 { tos, ttl, ..header }.to_bytes());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Ipv4::parse(&bytes);
        }
    }
}
