//! IPv6 neighbour discovery (RFC 4861) and the advertisements of a router (RFC 8106 for DNS).
//!
//! The switch answers solicitations and never believes advertisements: those are only written here, solicitations only
//! read. All functions take bytes that begin at the ICMPv6 header and end with the IP packet.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::flow::{Headers, Network};
use super::icmpv6::{self, Icmpv6};
use super::{Layer, NoRoom, ParseError, take};
use crate::types::MacAddr;

/// ICMPv6 type of a router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of a neighbour solicitation.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// ICMPv6 type of a redirect.
pub const REDIRECT: u8 = 137;

/// The hop limit of all of these: whoever sees another knows that a router has forwarded it (§7.1.1).
pub const HOP_LIMIT: u8 = 255;
/// Bytes of a [`NeighbourAdvertisement`].
pub const NEIGHBOUR_ADVERTISEMENT_BYTES: usize = 32;

const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;
const OPTION_PREFIX: u8 = 3;
const OPTION_MTU: u8 = 5;
const OPTION_RDNSS: u8 = 25;

/// All nodes of a link, ff02::1.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What the IPv6 header around a message says; the rules of §6.1 and §7.1 need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Where from; unspecified during duplicate address detection.
    pub source: Ipv6Addr,
    /// Where to.
    pub destination: Ipv6Addr,
    /// Must be [`HOP_LIMIT`].
    pub hop_limit: u8,
}

impl Envelope {
    /// From a parsed frame; `None` when it is not IPv6.
    #[must_use]
    pub const fn of(headers: &Headers) -> Option<Self> {
        match headers.network {
            Network::V6 { source, destination } => {
                Some(Self { source, destination, hop_limit: headers.hop_limit })
            }
            _ => None,
        }
    }

    /// What §6.1.1 and §7.1.1 ask of every message: hop limit, checksum, code, and the expected type.
    fn check(&self, message: &[u8], expected: u8) -> Result<(), ParseError> {
        if self.hop_limit != HOP_LIMIT {
            return Err(violation("the hop limit is not 255"));
        }
        let Icmpv6 { kind, code, .. } = Icmpv6::parse(message, self.source, self.destination)?;
        let unsupported = |field, found| ParseError::Unsupported {
            layer: Layer::NeighbourDiscovery,
            field,
            found: u32::from(found),
        };
        match (kind, code) {
            (kind, 0) if kind == expected => Ok(()),
            (kind, 0) => Err(unsupported("type", kind)),
            (_, code) => Err(unsupported("code", code)),
        }
    }
}

const fn violation(rule: &'static str) -> ParseError {
    ParseError::Violation { layer: Layer::NeighbourDiscovery, rule }
}

/// RFC 4291 §2.7.1: the group that a neighbour solicitation for `ip` goes to.
#[must_use]
pub const fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The source link-layer address among the options of a message, all of which are walked.
fn source_mac(options: &[u8]) -> Result<Option<MacAddr>, ParseError> {
    let mut rest = options;
    let mut found = None;
    while let [kind, length, ..] = *rest {
        if length == 0 {
            return Err(violation("an option has length zero"));
        }
        let bytes = usize::from(length) * 8;
        let (option, after) = rest.split_at_checked(bytes).ok_or(ParseError::Truncated {
            layer: Layer::NeighbourDiscovery,
            need: bytes,
            have: rest.len(),
        })?;
        if let (OPTION_SOURCE_MAC, [_, _, a, b, c, d, e, f]) = (kind, option) {
            found = Some(MacAddr([*a, *b, *c, *d, *e, *f]));
        }
        rest = after;
    }
    if rest.is_empty() { Ok(found) } else { Err(violation("an option is cut short")) }
}

/// Who has this address?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourSolicitation {
    /// The address asked for.
    pub target: Ipv6Addr,
    /// The asker's MAC address, if told. Never with an unspecified source.
    pub source_mac: Option<MacAddr>,
}

impl NeighbourSolicitation {
    /// Reads and checks a message by the rules of §7.1.1.
    ///
    /// # Errors
    /// `Truncated`, `BadChecksum`, `Unsupported` (type or code), `Violation`.
    pub fn parse(message: &[u8], envelope: &Envelope) -> Result<Self, ParseError> {
        envelope.check(message, NEIGHBOUR_SOLICITATION)?;
        let target = Ipv6Addr::from_octets(*take::<16>(message, 8, Layer::NeighbourDiscovery)?);
        let source_mac = source_mac(message.get(24..).unwrap_or_default())?;
        if target.is_multicast() {
            return Err(violation("the target is a multicast address"));
        }
        if envelope.source.is_unspecified() {
            if envelope.destination != solicited_node(envelope.destination) {
                return Err(violation("a probe goes to no solicited-node address"));
            }
            if source_mac.is_some() {
                return Err(violation("a probe has a source link-layer address"));
            }
        }
        Ok(Self { target, source_mac })
    }
}

/// The answer to a [`NeighbourSolicitation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourAdvertisement {
    /// The sender is a router.
    pub from_router: bool,
    /// Somebody asked. False in the answer to a probe, which goes to all nodes (§7.2.4).
    pub solicited: bool,
    /// Replaces what the receiver has cached.
    pub overrides: bool,
    /// The address asked for.
    pub target: Ipv6Addr,
    /// The MAC address that has it.
    pub mac: MacAddr,
}

impl NeighbourAdvertisement {
    /// The message's bytes, for sending between the given addresses.
    #[must_use]
    pub fn to_bytes(&self, source: Ipv6Addr, destination: Ipv6Addr) -> [u8; NEIGHBOUR_ADVERTISEMENT_BYTES] {
        let flags =
            u8::from(self.from_router) << 7 | u8::from(self.solicited) << 6 | u8::from(self.overrides) << 5;
        let mut message = [0; NEIGHBOUR_ADVERTISEMENT_BYTES];
        let MacAddr([a, b, c, d, e, f]) = self.mac;
        let head = [NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
        let option = [OPTION_TARGET_MAC, 1, a, b, c, d, e, f];
        let target = self.target.octets();
        let fields = head.iter().chain(&target).chain(&option);
        for (place, byte) in message.iter_mut().zip(fields) {
            *place = *byte;
        }
        // Only a message below four bytes has no room for its checksum.
        let _ = icmpv6::finish(&mut message, source, destination);
        message
    }
}

/// Is there a router?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterSolicitation {
    /// The asker's MAC address, if told.
    pub source_mac: Option<MacAddr>,
}

impl RouterSolicitation {
    /// Reads and checks a message by the rules of §6.1.1.
    ///
    /// # Errors
    /// `Truncated`, `BadChecksum`, `Unsupported` (type or code), `Violation`.
    pub fn parse(message: &[u8], envelope: &Envelope) -> Result<Self, ParseError> {
        envelope.check(message, ROUTER_SOLICITATION)?;
        let source_mac = source_mac(message.get(8..).unwrap_or_default())?;
        if envelope.source.is_unspecified() && source_mac.is_some() {
            return Err(violation("an unspecified source has a link-layer address"));
        }
        Ok(Self { source_mac })
    }
}

/// What a router says of itself and of the link (§4.2, §4.6, RFC 8106 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterAdvertisement<'a> {
    /// The hop limit that hosts should use; zero says nothing about it.
    pub hop_limit: u8,
    /// Addresses come by DHCPv6 (M).
    pub managed: bool,
    /// Other configuration comes by DHCPv6 (O).
    pub other_config: bool,
    /// How long this is a default router; zero ends it.
    pub router_lifetime_seconds: u16,
    /// The router's MAC address.
    pub mac: MacAddr,
    /// The link's MTU in bytes of IP packet.
    pub mtu: u32,
    /// The link's prefixes.
    pub prefixes: &'a [Ipv6Net],
    /// Hosts reach the prefixes' addresses directly (L).
    pub on_link: bool,
    /// Hosts may make addresses of the prefixes (A).
    pub autonomous: bool,
    /// How long the prefixes are valid.
    pub valid_seconds: u32,
    /// How long addresses of the prefixes are preferred; zero deprecates them.
    pub preferred_seconds: u32,
    /// Name servers.
    pub dns: &'a [Ipv6Addr],
    /// How long the name servers may be used; zero withdraws them.
    pub dns_lifetime_seconds: u32,
}

/// RFC 8106 §5.1: an option's length field counts eight bytes and has eight bits.
const MOST_DNS: usize = 127;

impl RouterAdvertisement<'_> {
    /// Bytes of the message.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        let dns = self.dns.len().min(MOST_DNS);
        16 + 8 + 8 + 32 * self.prefixes.len() + if dns == 0 { 0 } else { 8 + 16 * dns }
    }

    /// Writes the message to the front of `out`, for sending between the given addresses, and gives its length.
    /// Name servers beyond the 127th are not told.
    ///
    /// # Errors
    /// [`NoRoom`] below [`RouterAdvertisement::message_bytes`].
    pub fn emit(&self, out: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr) -> Result<usize, NoRoom> {
        let need = self.message_bytes();
        let have = out.len();
        let message = out.get_mut(..need).ok_or(NoRoom { need, have })?;
        let flags = u8::from(self.managed) << 7 | u8::from(self.other_config) << 6;
        let [l0, l1] = self.router_lifetime_seconds.to_be_bytes();
        let MacAddr([a, b, c, d, e, f]) = self.mac;
        let [m0, m1, m2, m3] = self.mtu.to_be_bytes();
        // Every part of the message is a row of eight bytes.
        let mut rows = message.as_chunks_mut::<8>().0.iter_mut();
        let mut put = |row: [u8; 8]| {
            if let Some(place) = rows.next() {
                *place = row;
            }
        };
        put([ROUTER_ADVERTISEMENT, 0, 0, 0, self.hop_limit, flags, l0, l1]);
        put([0; 8]); // Reachable and retransmission time: unspecified.
        put([OPTION_SOURCE_MAC, 1, a, b, c, d, e, f]);
        put([OPTION_MTU, 1, 0, 0, m0, m1, m2, m3]);
        let [v0, v1, v2, v3] = self.valid_seconds.to_be_bytes();
        let [p0, p1, p2, p3] = self.preferred_seconds.to_be_bytes();
        let prefix_flags = u8::from(self.on_link) << 7 | u8::from(self.autonomous) << 6;
        for prefix in self.prefixes {
            put([OPTION_PREFIX, 4, prefix.prefix_len(), prefix_flags, v0, v1, v2, v3]);
            put([p0, p1, p2, p3, 0, 0, 0, 0]);
            prefix.network().octets().as_chunks().0.iter().for_each(|row| put(*row));
        }
        let dns = self.dns.get(..MOST_DNS).unwrap_or(self.dns);
        if let Ok(length @ 1..) = u8::try_from(dns.len()) {
            let [t0, t1, t2, t3] = self.dns_lifetime_seconds.to_be_bytes();
            put([OPTION_RDNSS, 1 + 2 * length, 0, 0, t0, t1, t2, t3]);
            for server in dns {
                server.octets().as_chunks().0.iter().for_each(|row| put(*row));
            }
        }
        icmpv6::finish(message, source, destination)?;
        Ok(need)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);
    const GUEST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12, 0x3456);

    fn solicitation(source: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> (Vec<u8>, Envelope) {
        let mut message =
            [&[NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..], options].concat();
        let envelope = Envelope { source, destination: solicited_node(target), hop_limit: HOP_LIMIT };
        icmpv6::finish(&mut message, source, envelope.destination).unwrap();
        (message, envelope)
    }

    const SOURCE_MAC: [u8; 8] = [OPTION_SOURCE_MAC, 1, 2, 0, 0, 0, 0, 5];

    #[test]
    fn a_solicitation_tells_target_and_asker() {
        let (message, envelope) =
            solicitation(GUEST, TARGET, &[&[14, 1, 0, 0, 0, 0, 0, 0], &SOURCE_MAC[..]].concat());
        let parsed = NeighbourSolicitation { target: TARGET, source_mac: Some(MAC) };
        assert_eq!(NeighbourSolicitation::parse(&message, &envelope), Ok(parsed));
        assert_eq!(envelope.destination, "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn a_probe_has_no_source() {
        let (message, envelope) = solicitation(Ipv6Addr::UNSPECIFIED, TARGET, &[]);
        let parsed = NeighbourSolicitation { target: TARGET, source_mac: None };
        assert_eq!(NeighbourSolicitation::parse(&message, &envelope), Ok(parsed));
        let rule = |message: &[u8], envelope| match NeighbourSolicitation::parse(message, &envelope) {
            Err(ParseError::Violation { rule, .. }) => rule,
            other => panic!("{other:?}"),
        };
        let (told, envelope) = solicitation(Ipv6Addr::UNSPECIFIED, TARGET, &SOURCE_MAC);
        assert_eq!(rule(&told, envelope), "a probe has a source link-layer address");
        let mut direct = Envelope { destination: TARGET, ..envelope };
        let (mut message, _) = solicitation(Ipv6Addr::UNSPECIFIED, TARGET, &[]);
        icmpv6::finish(&mut message, direct.source, TARGET).unwrap();
        assert_eq!(rule(&message, direct), "a probe goes to no solicited-node address");
        direct.hop_limit = 254;
        assert_eq!(rule(&message, direct), "the hop limit is not 255");
        let (group, envelope) = solicitation(GUEST, ALL_NODES, &[]);
        assert_eq!(rule(&group, envelope), "the target is a multicast address");
    }

    #[test]
    fn options_are_walked_to_the_end() {
        for (options, reason) in [
            (vec![1, 0, 0, 0, 0, 0, 0, 0], "length zero"),
            (vec![1, 2, 0, 0, 0, 0, 0, 0], "8 bytes where 16"),
            (vec![14, 1, 0, 0, 0, 0, 0, 0, 1], "cut short"),
        ] {
            let (message, envelope) = solicitation(GUEST, TARGET, &options);
            let refusal = NeighbourSolicitation::parse(&message, &envelope).unwrap_err().to_string();
            assert!(refusal.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn type_code_and_checksum_are_checked() {
        let (mut message, envelope) = solicitation(GUEST, TARGET, &[]);
        assert!(matches!(
            RouterSolicitation::parse(&message, &envelope),
            Err(ParseError::Unsupported { field: "type", found: 135, .. })
        ));
        message[23] ^= 1;
        assert_eq!(
            NeighbourSolicitation::parse(&message, &envelope),
            Err(ParseError::BadChecksum { layer: Layer::Icmpv6 })
        );
        message[1] = 1;
        icmpv6::finish(&mut message, envelope.source, envelope.destination).unwrap();
        assert!(matches!(
            NeighbourSolicitation::parse(&message, &envelope),
            Err(ParseError::Unsupported { field: "code", found: 1, .. })
        ));
        let mut short = message[..20].to_vec();
        short[1] = 0;
        icmpv6::finish(&mut short, envelope.source, envelope.destination).unwrap();
        assert!(matches!(
            NeighbourSolicitation::parse(&short, &envelope),
            Err(ParseError::Truncated { need: 24, have: 20, .. })
        ));
    }

    #[test]
    fn a_router_solicitation_is_read() {
        let envelope = Envelope { source: GUEST, destination: ALL_NODES, hop_limit: HOP_LIMIT };
        let mut message = [&[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &SOURCE_MAC[..]].concat();
        icmpv6::finish(&mut message, envelope.source, envelope.destination).unwrap();
        let parsed = RouterSolicitation { source_mac: Some(MAC) };
        assert_eq!(RouterSolicitation::parse(&message, &envelope), Ok(parsed));
        let nobody = Envelope { source: Ipv6Addr::UNSPECIFIED, ..envelope };
        icmpv6::finish(&mut message, nobody.source, nobody.destination).unwrap();
        assert!(matches!(RouterSolicitation::parse(&message, &nobody), Err(ParseError::Violation { .. })));
    }

    #[test]
    fn an_advertisement_that_does_not_fit_is_refused() {
        let advertisement = RouterAdvertisement {
            hop_limit: 64,
            managed: false,
            other_config: false,
            router_lifetime_seconds: 1800,
            mac: MAC,
            mtu: 1450,
            prefixes: &[],
            on_link: true,
            autonomous: false,
            valid_seconds: 0,
            preferred_seconds: 0,
            dns: &[GUEST; 200],
            dns_lifetime_seconds: 60,
        };
        let need = 16 + 8 + 8 + 8 + 16 * 127;
        assert_eq!(advertisement.emit(&mut [0; 100], GUEST, ALL_NODES), Err(NoRoom { need, have: 100 }));
        let mut out = vec![0; need];
        assert_eq!(advertisement.emit(&mut out, GUEST, ALL_NODES), Ok(need));
        assert_eq!(out[32..34], [OPTION_RDNSS, 255]);
    }

    proptest! {
        #[test]
        fn no_options_make_it_panic(options in proptest::collection::vec(any::<u8>(), 0..100)) {
            let (message, envelope) = solicitation(GUEST, TARGET, &options);
            let _ = NeighbourSolicitation::parse(&message, &envelope);
        }
    }
}
