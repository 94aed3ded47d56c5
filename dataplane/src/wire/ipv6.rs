//! IPv6 header (RFC 8200): 40 bytes, then a chain of extension headers.
//!
//! All functions take bytes that begin at the IPv6 header. The chain is walked to find the transport header, within
//! bounds (RFC 8504 §5.3 allows limits); options inside the extension headers are not interpreted.

use std::net::Ipv6Addr;

use super::{Layer, NoRoom, ParseError, Protocol, room, take};

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 40;
/// Extension headers walked before a packet is refused.
pub const MAX_EXTENSIONS: usize = 8;
/// Bytes of extension headers walked before a packet is refused.
pub const MAX_EXTENSION_BYTES: usize = 512;

/// An IPv6 fixed header whose payload length fits the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6 {
    /// DSCP (upper six bits) and ECN (lower two).
    pub traffic_class: u8,
    /// 20 bits.
    pub flow_label: u32,
    /// Bytes behind the fixed header, extension headers included.
    pub payload_bytes: u16,
    /// The first header behind this one.
    pub next_header: Protocol,
    /// Hop limit.
    pub hop_limit: u8,
    /// Where from.
    pub source: Ipv6Addr,
    /// Where to.
    pub destination: Ipv6Addr,
}

impl Ipv6 {
    /// Reads the fixed header at the front of `packet`.
    ///
    /// # Errors
    /// `Truncated`, `BadVersion`, `BadLength`.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, ParseError> {
        let header = take::<HEADER_BYTES>(packet, 0, Layer::Ipv6)?;
        let ([word, [l0, l1, next_header, hop_limit], ..], _) = header.as_chunks::<4>() else {
            return Err(ParseError::Truncated { layer: Layer::Ipv6, need: HEADER_BYTES, have: packet.len() });
        };
        let word = u32::from_be_bytes(*word);
        let [version_class, ..] = word.to_be_bytes();
        if version_class >> 4 != 6 {
            return Err(ParseError::BadVersion { layer: Layer::Ipv6, found: version_class >> 4 });
        }
        let payload_bytes = u16::from_be_bytes([*l0, *l1]);
        let most = packet.len() - HEADER_BYTES;
        if usize::from(payload_bytes) > most {
            return Err(ParseError::BadLength {
                layer: Layer::Ipv6,
                claimed: usize::from(payload_bytes),
                least: 0,
                most,
            });
        }
        let [traffic_class, ..] = (word << 4).to_be_bytes();
        Ok(Self {
            traffic_class,
            flow_label: word & 0x000f_ffff,
            payload_bytes,
            next_header: Protocol(*next_header),
            hop_limit: *hop_limit,
            source: Ipv6Addr::from_octets(*take::<16>(packet, 8, Layer::Ipv6)?),
            destination: Ipv6Addr::from_octets(*take::<16>(packet, 24, Layer::Ipv6)?),
        })
    }

    /// The bytes behind the fixed header, without Ethernet's padding. `packet` is what was parsed.
    #[must_use]
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(HEADER_BYTES..HEADER_BYTES + usize::from(self.payload_bytes)).unwrap_or_default()
    }

    /// The fixed header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let word = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        let [l0, l1] = self.payload_bytes.to_be_bytes();
        let (fixed, addresses) = bytes.split_at_mut(8);
        fixed.copy_from_slice(
            [word.to_be_bytes(), [l0, l1, self.next_header.0, self.hop_limit]].as_flattened(),
        );
        addresses.copy_from_slice([self.source.octets(), self.destination.octets()].as_flattened());
        bytes
    }

    /// Writes the fixed header to the front of `packet`.
    ///
    /// # Errors
    /// [`NoRoom`] below 40 bytes.
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        *room(packet, 0)? = self.to_bytes();
        Ok(())
    }
}

/// What a fragment header says (RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Where this fragment's payload belongs, in units of eight bytes.
    pub offset: u16,
    /// Another fragment follows.
    pub more: bool,
    /// The datagram's identification.
    pub identification: u32,
}

impl Fragment {
    /// RFC 6946: offset zero and nothing to follow is a whole datagram in disguise, to be handled as such.
    #[must_use]
    pub const fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Where the chain of extension headers ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// The first header that is not an extension. Behind a fragment that is not the first: what the datagram has
    /// there according to its fragment header, which may be an extension again.
    pub protocol: Protocol,
    /// Bytes from the IPv6 header to it.
    pub offset: usize,
    /// The fragment header, where there is one.
    pub fragment: Option<Fragment>,
    /// A routing header of type 0 with segments left is in the chain: RFC 5095 forbids it.
    pub source_routed: bool,
}

/// Walks the extension headers of `packet`, which begins at the IPv6 header and ends where that header says.
///
/// # Errors
/// `Truncated` when the chain leaves the packet, `ExtensionChain` beyond [`MAX_EXTENSIONS`] or
/// [`MAX_EXTENSION_BYTES`], `Violation` for hop-by-hop options anywhere but first (RFC 8200 §4.1) and for a second
/// fragment header.
#[inline]
pub fn walk(packet: &[u8], next_header: Protocol) -> Result<Upper, ParseError> {
    const LAYER: Layer = Layer::Ipv6Extension;
    let mut upper =
        Upper { protocol: next_header, offset: HEADER_BYTES, fragment: None, source_routed: false };
    for position in 0..=MAX_EXTENSIONS {
        let is_extension = matches!(
            upper.protocol,
            Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::FRAGMENT | Protocol::DESTINATION_OPTIONS
        );
        if !is_extension {
            return Ok(upper);
        }
        if position == MAX_EXTENSIONS {
            break;
        }
        let [next, length, a, b, c, d, e, f] = *take::<8>(packet, upper.offset, LAYER)?;
        let bytes = match upper.protocol {
            Protocol::HOP_BY_HOP if position > 0 => {
                return Err(ParseError::Violation { layer: LAYER, rule: "hop-by-hop options are not first" });
            }
            Protocol::FRAGMENT => {
                if upper.fragment.is_some() {
                    return Err(ParseError::Violation {
                        layer: LAYER,
                        rule: "a fragment header comes twice",
                    });
                }
                let field = u16::from_be_bytes([a, b]);
                upper.fragment = Some(Fragment {
                    offset: field >> 3,
                    more: field & 1 != 0,
                    identification: u32::from_be_bytes([c, d, e, f]),
                });
                8
            }
            _ => 8 + usize::from(length) * 8,
        };
        upper.source_routed |= upper.protocol == Protocol::ROUTING && a == 0 && b != 0;
        upper.protocol = Protocol(next);
        upper.offset += bytes;
        if upper.offset - HEADER_BYTES > MAX_EXTENSION_BYTES {
            return Err(ParseError::ExtensionChain { limit: MAX_EXTENSION_BYTES });
        }
        if upper.offset > packet.len() {
            return Err(ParseError::Truncated { layer: LAYER, need: upper.offset, have: packet.len() });
        }
        if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(upper); // What follows is the datagram's middle, not headers.
        }
    }
    Err(ParseError::ExtensionChain { limit: MAX_EXTENSIONS })
}

/// Takes one from the hop limit; `Ok(None)` leaves the packet as it was because the limit would become zero
/// (RFC 8200 §3: such a packet is discarded, with an ICMPv6 time exceeded). Gives the new limit.
///
/// # Errors
/// [`NoRoom`] below 40 bytes.
#[inline]
pub fn decrement_hop_limit(packet: &mut [u8]) -> Result<Option<u8>, NoRoom> {
    let header: &mut [u8; HEADER_BYTES] = room(packet, 0)?;
    let [_, _, _, _, _, _, _, hop_limit, ..] = header;
    if *hop_limit <= 1 {
        return Ok(None);
    }
    *hop_limit -= 1;
    Ok(Some(*hop_limit))
}

/// Replaces DSCP and ECN.
///
/// # Errors
/// [`NoRoom`] below 40 bytes.
pub fn set_traffic_class(packet: &mut [u8], value: u8) -> Result<(), NoRoom> {
    let header: &mut [u8; HEADER_BYTES] = room(packet, 0)?;
    let [first, second, ..] = header;
    *first = *first & 0xf0 | value >> 4;
    *second = *second & 0x0f | value << 4;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let header = Ipv6 {
            traffic_class: 0,
            flow_label: 0,
            payload_bytes: u16::try_from(payload.len()).unwrap(),
            next_header: Protocol(next_header),
            hop_limit: 64,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::LOCALHOST,
        };
        [&header.to_bytes(), payload].concat()
    }

    #[test]
    fn lengths_and_version_are_checked() {
        let good = packet(59, &[1, 2, 3]);
        assert_eq!(Ipv6::parse(&good).unwrap().payload(&good), &[1, 2, 3]);
        assert!(matches!(Ipv6::parse(&good[..39]), Err(ParseError::Truncated { need: 40, have: 39, .. })));
        assert!(matches!(Ipv6::parse(&good[..42]), Err(ParseError::BadLength { claimed: 3, most: 2, .. })));
        let padded = [&good[..], &[0; 9]].concat();
        assert_eq!(Ipv6::parse(&padded).unwrap().payload(&padded), &[1, 2, 3]);
        let mut wrong = good;
        wrong[0] = 0x45;
        assert_eq!(Ipv6::parse(&wrong), Err(ParseError::BadVersion { layer: Layer::Ipv6, found: 4 }));
    }

    #[test]
    fn the_chain_is_walked_to_the_transport_header() {
        let chain = [
            [60, 0, 1, 4, 0, 0, 0, 0],  // hop-by-hop, then destination options
            [44, 0, 1, 4, 0, 0, 0, 0],  // destination options, then fragment
            [17, 0, 0, 1, 0, 0, 0, 42], // first fragment, then UDP
            [0, 1, 0, 2, 0, 8, 0, 0],
        ];
        let bytes = packet(0, chain.as_flattened());
        let fragment = Some(Fragment { offset: 0, more: true, identification: 42 });
        let found = Upper { protocol: Protocol::UDP, offset: 64, fragment, source_routed: false };
        assert_eq!(walk(&bytes, Protocol::HOP_BY_HOP), Ok(found));
    }

    #[test]
    fn a_later_fragment_ends_the_walk() {
        // Offset 1 (unit of 8 bytes); next header says destination options, which stood in the first fragment.
        let bytes = packet(44, &[60, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff]);
        let found = walk(&bytes, Protocol::FRAGMENT).unwrap();
        assert_eq!((found.protocol, found.offset), (Protocol::DESTINATION_OPTIONS, 48));
        assert_eq!(found.fragment, Some(Fragment { offset: 1, more: false, identification: 1 }));
        assert!(!found.fragment.unwrap().is_atomic());
    }

    #[test]
    fn a_bad_chain_is_refused_by_cause() {
        let late = packet(60, &[0, 0, 1, 4, 0, 0, 0, 0, 59, 0, 1, 4, 0, 0, 0, 0]);
        let rule = "hop-by-hop options are not first";
        assert_eq!(
            walk(&late, Protocol::DESTINATION_OPTIONS),
            Err(ParseError::Violation { layer: Layer::Ipv6Extension, rule })
        );
        let twice = packet(44, &[44, 0, 0, 0, 0, 0, 0, 1, 59, 0, 0, 0, 0, 0, 0, 1]);
        assert!(matches!(walk(&twice, Protocol::FRAGMENT), Err(ParseError::Violation { .. })));
        let long = packet(60, &[59, 1, 1, 4, 0, 0, 0, 0]);
        assert!(matches!(
            walk(&long, Protocol::DESTINATION_OPTIONS),
            Err(ParseError::Truncated { need: 56, have: 48, .. })
        ));
        let many = packet(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 1));
        assert_eq!(
            walk(&many, Protocol::DESTINATION_OPTIONS),
            Err(ParseError::ExtensionChain { limit: MAX_EXTENSIONS })
        );
        let mut wide = vec![59, 64];
        wide.resize(8 + 64 * 8, 0);
        assert_eq!(
            walk(&packet(60, &wide), Protocol::DESTINATION_OPTIONS),
            Err(ParseError::ExtensionChain { limit: MAX_EXTENSION_BYTES })
        );
    }

    #[test]
    fn routing_type_zero_is_seen() {
        let route = |kind, left| packet(43, &[59, 0, kind, left, 0, 0, 0, 0]);
        assert!(walk(&route(0, 1), Protocol::ROUTING).unwrap().source_routed);
        assert!(!walk(&route(0, 0), Protocol::ROUTING).unwrap().source_routed);
        assert!(!walk(&route(2, 1), Protocol::ROUTING).unwrap().source_routed);
    }

    #[test]
    fn the_last_hop_is_not_forwarded() {
        let mut bytes = packet(59, &[]);
        assert_eq!(decrement_hop_limit(&mut bytes), Ok(Some(63)));
        bytes[7] = 1;
        assert_eq!(decrement_hop_limit(&mut bytes), Ok(None));
        assert_eq!(bytes[7], 1);
    }

    proptest! {
        #[test]
        fn emit_undoes_parse(mut bytes: [u8; 40], class: u8) {
            bytes[0] = 0x60 | bytes[0] & 0x0f;
            [bytes[4], bytes[5]] = [0, 0];
            let header = Ipv6::parse(&bytes).unwrap();
            prop_assert_eq!(header.to_bytes(), bytes);
            set_traffic_class(&mut bytes, class).unwrap();
            prop_assert_eq!(Ipv6::parse(&bytes), Ok(Ipv6 { traffic_class: class, ..header }));
        }

        #[test]
        fn the_walk_is_bounded_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000), next: u8,
                                                chain in proptest::collection::vec(0_usize..4, 0..20)) {
            // Make a long chain likely: every eighth byte names an extension header of one unit.
            let mut bytes = bytes;
            for (position, kind) in chain.iter().enumerate() {
                if let Some([at, length, ..]) = bytes.get_mut(40 + position * 8..) {
                    (*at, *length) = ([60, 43, 44, 0][*kind], 0);
                }
            }
            if let Ok(upper) = walk(&bytes, Protocol(next)) {
                prop_assert!(upper.offset <= bytes.len().max(HEADER_BYTES));
                prop_assert!(upper.offset <= HEADER_BYTES + MAX_EXTENSION_BYTES);
            }
        }
    }
}
