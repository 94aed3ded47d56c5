//! Bytes ⇄ values: one file per protocol. No I/O, no clock, no allocation on parse, no policy.
//!
//! A `parse` takes whatever arrived and gives a plain value or the reason why not; it never panics, whatever the
//! bytes. An `emit` writes the value back, checksums included. What a value *means* (who may send it, where it goes)
//! is decided elsewhere. [`flow`] is the packet path's entrance: all headers of a frame in one pass.

#![deny(clippy::indexing_slicing)]

pub mod arp;
pub mod checksum;
pub mod dhcpv4;
pub mod ethernet;
pub mod flow;
pub mod geneve;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod quote;
pub mod tcp;
pub mod udp;
pub mod vxlan;

use std::fmt;

/// Which header an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// IEEE 802.3.
    Ethernet,
    /// RFC 826.
    Arp,
    /// RFC 791.
    Ipv4,
    /// RFC 8200, the fixed header.
    Ipv6,
    /// RFC 8200 §4, an extension header.
    Ipv6Extension,
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 792.
    Icmpv4,
    /// RFC 4443.
    Icmpv6,
    /// RFC 4861.
    NeighbourDiscovery,
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
    /// RFC 2131.
    Dhcpv4,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ethernet => "Ethernet header",
            Self::Arp => "ARP message",
            Self::Ipv4 => "IPv4 header",
            Self::Ipv6 => "IPv6 header",
            Self::Ipv6Extension => "IPv6 extension header",
            Self::Tcp => "TCP header",
            Self::Udp => "UDP header",
            Self::Icmpv4 => "ICMP message",
            Self::Icmpv6 => "ICMPv6 message",
            Self::NeighbourDiscovery => "neighbour discovery message",
            Self::Vxlan => "VXLAN header",
            Self::Geneve => "Geneve header",
            Self::Dhcpv4 => "DHCP message",
        })
    }
}

/// Why bytes are not what they should be. Every cause is a variant, so that each can be a drop reason of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer bytes than the header needs.
    #[error("{layer} cut short: {have} bytes where {need} are needed")]
    Truncated {
        /// Whose header.
        layer: Layer,
        /// Bytes needed, at least.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// A version field that names another protocol.
    #[error("{layer} has version {found}")]
    BadVersion {
        /// Whose header.
        layer: Layer,
        /// The version found.
        found: u8,
    },
    /// A length field that contradicts the protocol or the bytes at hand.
    #[error("{layer} claims a length of {claimed} bytes, possible are {least} to {most}")]
    BadLength {
        /// Whose header.
        layer: Layer,
        /// The field's value in bytes.
        claimed: usize,
        /// The smallest lawful value.
        least: usize,
        /// The largest lawful value.
        most: usize,
    },
    /// A checksum that does not fit the bytes.
    #[error("{layer} has a wrong checksum")]
    BadChecksum {
        /// Whose header.
        layer: Layer,
    },
    /// A field whose value this protocol (or this switch) has no meaning for.
    #[error("{layer}: unsupported {field} {found:#x}")]
    Unsupported {
        /// Whose header.
        layer: Layer,
        /// The field's name in the RFC.
        field: &'static str,
        /// Its value.
        found: u32,
    },
    /// A rule of the RFC that receivers must enforce.
    #[error("{layer}: {rule}")]
    Violation {
        /// Whose header.
        layer: Layer,
        /// The broken rule as a short sentence.
        rule: &'static str,
    },
    /// An 802.1Q or 802.1ad tag: a guest has no business with VLANs here.
    #[error("frame is VLAN-tagged (EtherType {ethertype:#06x})")]
    VlanTagged {
        /// The tag's EtherType.
        ethertype: u16,
    },
    /// RFC 1858 §3, RFC 3128: a first fragment too small to hold the transport header it should begin with.
    #[error("first fragment holds {have} bytes of a transport header that needs {need}")]
    TinyFragment {
        /// Bytes needed.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// RFC 1858 §4: a fragment at offset 8 exists only to overwrite TCP flags.
    #[error("fragment at offset 8 would overwrite a transport header")]
    OverlappingFragment,
    /// More extension headers, or longer ones, than anybody sends in earnest.
    #[error("IPv6 extension headers are too many or too long (more than {limit})")]
    ExtensionChain {
        /// The limit that was reached.
        limit: usize,
    },
    /// A tunnel header without a network: VXLAN's I flag is clear, or the VNI is zero.
    #[error("{layer} names no virtual network")]
    NoVni {
        /// Whose header.
        layer: Layer,
    },
    /// RFC 8926 §3.5: an option that must be understood, and is not.
    #[error("Geneve option {class:#06x}/{kind:#04x} is critical and unknown")]
    UnknownCriticalOption {
        /// Option class.
        class: u16,
        /// Option type, with the critical bit.
        kind: u8,
    },
}

/// The output buffer is too small for what was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room to write {need} bytes into {have}: provide a larger buffer")]
pub struct NoRoom {
    /// Bytes to be written.
    pub need: usize,
    /// Bytes there are.
    pub have: usize,
}

/// An IP protocol number (IPv6: also "next header").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: Self = Self(0);
    /// ICMP for IPv4.
    pub const ICMPV4: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// IPv6 routing header.
    pub const ROUTING: Self = Self(43);
    /// IPv6 fragment header.
    pub const FRAGMENT: Self = Self(44);
    /// ICMPv6.
    pub const ICMPV6: Self = Self(58);
    /// IPv6: nothing follows.
    pub const NO_NEXT: Self = Self(59);
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: Self = Self(60);
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Protocol({})", self.0)
    }
}

/// The `N` bytes of `bytes` from `at`.
#[inline]
fn take<const N: usize>(bytes: &[u8], at: usize, layer: Layer) -> Result<&[u8; N], ParseError> {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(chunk) => Ok(chunk),
        None => Err(ParseError::Truncated { layer, need: at.saturating_add(N), have: bytes.len() }),
    }
}

/// The `N` bytes of `bytes` from `at`, to be written.
#[inline]
fn room<const N: usize>(bytes: &mut [u8], at: usize) -> Result<&mut [u8; N], NoRoom> {
    let have = bytes.len();
    bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(NoRoom { need: at.saturating_add(N), have })
}
