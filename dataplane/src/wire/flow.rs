//! The packet path's entrance: all headers of a frame in one pass, as a small value with offsets.
//!
//! Every length is checked here once, so that later stages may trust the offsets; every refusal has its own reason.
//! ARP and other non-IP frames pass with [`Network::Other`]. What is *not* judged here is policy: addresses, source
//! routes, who may send what. Transport checksums belong to the end hosts and are not looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ethernet::{self, EtherType, Ethernet};
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};
use super::tcp::{self, Flags, Tcp};
use super::udp::{self, Udp};
use super::{Layer, ParseError, Protocol, take};
use crate::types::MacAddr;

/// The headers of one frame. Offsets count from the Ethernet header's first byte.
// In this order: two MAC addresses side by side, as in the frame, would be written in pieces of eight and four bytes, and
// a processor that has just done so has to wait before it can read one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Headers {
    /// Ethernet destination.
    pub destination: MacAddr,
    /// What Ethernet carries.
    pub ethertype: EtherType,
    /// Ethernet source.
    pub source: MacAddr,
    /// The IP addresses, where there are any.
    pub network: Network,
    /// DSCP (upper six bits) and ECN (lower two). Zero without IP, as are all fields below.
    pub tos: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// The transport protocol: behind all IPv6 extension headers.
    pub protocol: Protocol,
    /// Whether this is a piece of a datagram.
    pub fragment: Fragment,
    /// IPv4's don't-fragment bit; always true over IPv6.
    pub dont_fragment: bool,
    /// The sender prescribes a route (IPv4 LSRR/SSRR, IPv6 routing type 0): to be dropped by whoever forwards.
    pub source_routed: bool,
    /// Ports or ICMP type.
    pub transport: Transport,
    /// Bytes of IP header, options and extension headers.
    pub network_bytes: u16,
    /// Bytes of the transport header; zero when it is none that is known, or stands in another fragment.
    pub transport_bytes: u8,
    /// Bytes from the Ethernet header to the end of the IP packet. The frame may be longer (Ethernet's padding).
    pub end: u32,
}

/// The addresses of the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Not IP.
    Other,
    /// IPv4.
    V4 {
        /// Where from.
        source: Ipv4Addr,
        /// Where to.
        destination: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Where from.
        source: Ipv6Addr,
        /// Where to.
        destination: Ipv6Addr,
    },
}

/// Which part of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// The whole.
    Whole,
    /// The first piece: has the transport header.
    First,
    /// Another piece: has no headers but IP's.
    Later,
}

/// What the transport header says, as far as the switch cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Unknown protocol, no IP, or a later fragment.
    Other,
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Control bits.
        flags: Flags,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6 (see [`Headers::protocol`]).
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

/// Ethernet's header, IPv4's without options, and the part of TCP's that is as long as UDP's.
const PLAIN_BYTES: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + udp::HEADER_BYTES;
/// Where TCP's data offset is in a frame whose IPv4 header has no options; the flags follow it.
const TCP_OFFSET_AT: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + 12;

/// Bytes of ICMP's type, code, checksum and rest of header.
const ICMP_HEADER_BYTES: u8 = 8;

impl Headers {
    /// Reads all headers of `frame`.
    ///
    /// # Errors
    /// `VlanTagged`; everything that [`Ipv4::parse`], [`Ipv6::parse`], [`ipv6::walk`], [`Tcp::parse`] and
    /// [`Udp::parse`] refuse; `TinyFragment` for a first fragment without its whole transport header;
    /// `OverlappingFragment`; `BadLength` of an IPv4 fragment that would exceed 65,535 bytes when put together.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, ParseError> {
        Self::parse_plain(frame).map_or_else(|| Self::parse_any(frame), Ok)
    }

    /// What [`Headers::parse`] gives for what nearly every frame is: untagged, IPv4 without options, whole, TCP or UDP,
    /// with nothing wrong. `None` is no verdict on the frame.
    ///
    /// Always inlined, so that a caller that goes on in a copy of its own for these frames has most of its questions
    /// answered by the compiler.
    #[must_use]
    #[inline(always)]
    pub fn parse_plain(frame: &[u8]) -> Option<Self> {
        let plain = Plain::of(frame)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *plain.ethernet;
        let [_, tos, _, _, _, _, flags, _, ttl, protocol, _, _, a, b, c, d, e, f, g, h] = *plain.ip;
        Some(Self {
            destination: MacAddr([d0, d1, d2, d3, d4, d5]),
            source: MacAddr([s0, s1, s2, s3, s4, s5]),
            ethertype: EtherType::IPV4,
            network: Network::V4 {
                source: Ipv4Addr::new(a, b, c, d),
                destination: Ipv4Addr::new(e, f, g, h),
            },
            tos,
            hop_limit: ttl,
            protocol: Protocol(protocol),
            fragment: Fragment::Whole,
            dont_fragment: u16::from_be_bytes([flags, 0]) & ipv4::DONT_FRAGMENT != 0,
            source_routed: false,
            transport: plain.transport,
            network_bytes: 20,
            transport_bytes: plain.transport_bytes,
            end: 14 + u32::from(plain.total_bytes),
        })
    }

    /// Any frame, header by header.
    #[inline(never)]
    pub(crate) fn parse_any(frame: &[u8]) -> Result<Self, ParseError> {
        let Ethernet { destination, source, ethertype } = Ethernet::parse(frame)?;
        let mut headers = Self {
            destination,
            source,
            ethertype,
            network: Network::Other,
            tos: 0,
            hop_limit: 0,
            protocol: Protocol(0),
            fragment: Fragment::Whole,
            dont_fragment: false,
            source_routed: false,
            transport: Transport::Other,
            network_bytes: 0,
            transport_bytes: 0,
            end: saturated(frame.len()),
        };
        let packet = frame.get(ethernet::HEADER_BYTES..).unwrap_or_default();
        match ethertype {
            EtherType::IPV4 => headers.read_v4(packet)?,
            EtherType::IPV6 => headers.read_v6(packet)?,
            tag if tag.is_vlan() => return Err(ParseError::VlanTagged { ethertype: tag.0 }),
            _ => {}
        }
        Ok(headers)
    }

    #[inline]
    fn read_v4(&mut self, packet: &[u8]) -> Result<(), ParseError> {
        let ip = Ipv4::parse(packet)?;
        self.network = Network::V4 { source: ip.source, destination: ip.destination };
        self.tos = ip.tos;
        self.hop_limit = ip.ttl;
        self.protocol = ip.protocol;
        self.dont_fragment = ip.dont_fragment;
        self.source_routed = ip.source_routed;
        self.network_bytes = u16::from(ip.header_bytes);
        self.end = 14 + u32::from(ip.total_bytes);
        let payload = ip.payload(packet);
        self.fragment = match (ip.fragment_offset, ip.more_fragments) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            _ if ip.overlaps_transport() => return Err(ParseError::OverlappingFragment),
            (offset, _) => return self.read_later_fragment(offset, payload.len(), Layer::Ipv4),
        };
        self.read_transport(payload)
    }

    #[inline]
    fn read_v6(&mut self, packet: &[u8]) -> Result<(), ParseError> {
        let ip = Ipv6::parse(packet)?;
        self.network = Network::V6 { source: ip.source, destination: ip.destination };
        self.tos = ip.traffic_class;
        self.hop_limit = ip.hop_limit;
        self.dont_fragment = true;
        self.end = 54 + u32::from(ip.payload_bytes);
        let within = packet.get(..ipv6::HEADER_BYTES + usize::from(ip.payload_bytes)).unwrap_or_default();
        let upper = ipv6::walk(within, ip.next_header)?;
        self.protocol = upper.protocol;
        self.source_routed = upper.source_routed;
        // The walk is bounded to a few hundred bytes.
        self.network_bytes = u16::try_from(upper.offset).unwrap_or(u16::MAX);
        let payload = within.get(upper.offset..).unwrap_or_default();
        self.fragment = match upper.fragment {
            None => Fragment::Whole,
            Some(fragment) if fragment.is_atomic() => Fragment::Whole,
            Some(fragment) if fragment.offset == 0 => Fragment::First,
            Some(fragment) if fragment.offset == 1 && upper.protocol == Protocol::TCP => {
                return Err(ParseError::OverlappingFragment);
            }
            Some(fragment) => {
                return self.read_later_fragment(fragment.offset, payload.len(), Layer::Ipv6Extension);
            }
        };
        self.read_transport(payload)
    }

    /// Refuses the "ping of death": a last piece that ends beyond the largest datagram.
    #[inline]
    fn read_later_fragment(&mut self, offset: u16, bytes: usize, layer: Layer) -> Result<(), ParseError> {
        self.fragment = Fragment::Later;
        let most = usize::from(u16::MAX);
        let claimed = usize::from(offset) * 8 + bytes;
        if claimed > most {
            return Err(ParseError::BadLength { layer, claimed, least: 0, most });
        }
        Ok(())
    }

    #[inline]
    fn read_transport(&mut self, payload: &[u8]) -> Result<(), ParseError> {
        let is_first = self.fragment == Fragment::First;
        let tiny = |need: usize| Err(ParseError::TinyFragment { need, have: payload.len() });
        (self.transport, self.transport_bytes) = match self.protocol {
            Protocol::TCP => match Tcp::parse(payload) {
                Ok(tcp) => (
                    Transport::Tcp { source: tcp.source, destination: tcp.destination, flags: tcp.flags },
                    tcp.header_bytes,
                ),
                // RFC 1858 §3, and RFC 7112 §5 for IPv6: a first fragment has all headers, or it is hiding something.
                Err(ParseError::Truncated { .. }) if is_first => return tiny(tcp::HEADER_BYTES),
                Err(ParseError::BadLength { claimed, least, .. }) if is_first && claimed >= least => {
                    return tiny(claimed);
                }
                Err(refusal) => return Err(refusal),
            },
            // A first fragment's UDP length is that of the whole datagram: only the ports can be read.
            Protocol::UDP if is_first => match payload.first_chunk() {
                Some(&[s0, s1, d0, d1, _, _, _, _]) => (
                    Transport::Udp {
                        source: u16::from_be_bytes([s0, s1]),
                        destination: u16::from_be_bytes([d0, d1]),
                    },
                    8,
                ),
                None => return tiny(udp::HEADER_BYTES),
            },
            Protocol::UDP => {
                let udp = Udp::parse(payload)?;
                (Transport::Udp { source: udp.source, destination: udp.destination }, 8)
            }
            Protocol::ICMPV4 if matches!(self.network, Network::V4 { .. }) => {
                self.icmp(payload, Layer::Icmpv4)?
            }
            Protocol::ICMPV6 if matches!(self.network, Network::V6 { .. }) => {
                self.icmp(payload, Layer::Icmpv6)?
            }
            _ => (Transport::Other, 0),
        };
        Ok(())
    }

    fn icmp(&self, payload: &[u8], layer: Layer) -> Result<(Transport, u8), ParseError> {
        match take::<8>(payload, 0, layer) {
            Ok(&[kind, code, ..]) => Ok((Transport::Icmp { kind, code }, ICMP_HEADER_BYTES)),
            Err(_) if self.fragment == Fragment::First => {
                Err(ParseError::TinyFragment { need: 8, have: payload.len() })
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Source and destination of the IP header.
    #[must_use]
    #[inline]
    pub const fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match self.network {
            Network::Other => None,
            Network::V4 { source, destination } => Some((IpAddr::V4(source), IpAddr::V4(destination))),
            Network::V6 { source, destination } => Some((IpAddr::V6(source), IpAddr::V6(destination))),
        }
    }

    /// Source and destination port, of TCP and UDP.
    #[must_use]
    #[inline]
    pub const fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp { source, destination, .. } | Transport::Udp { source, destination } => {
                Some((source, destination))
            }
            _ => None,
        }
    }

    /// Where the IP header begins: 14.
    #[must_use]
    #[inline]
    pub const fn network_offset(&self) -> usize {
        ethernet::HEADER_BYTES
    }

    /// Where the transport header begins (or a later fragment's payload).
    #[must_use]
    #[inline]
    pub const fn transport_offset(&self) -> usize {
        ethernet::HEADER_BYTES + self.network_bytes as usize
    }

    /// Where the transport's payload begins.
    #[must_use]
    #[inline]
    pub const fn payload_offset(&self) -> usize {
        self.transport_offset() + self.transport_bytes as usize
    }

    /// Bytes of the IP packet, headers included: what an MTU limits. Zero for frames that are not IP.
    #[must_use]
    #[inline]
    pub const fn ip_bytes(&self) -> usize {
        match self.network {
            Network::Other => 0,
            _ => self.end as usize - ethernet::HEADER_BYTES,
        }
    }

    /// True unless RFC 1122 §3.2.2 or RFC 4443 §2.4(e) forbid an ICMP error about this packet: never about ICMP
    /// errors, later fragments, multicast or broadcast, or a source that is not one host. (The exception for packet
    /// too big to multicast destinations is not made.)
    #[must_use]
    pub fn may_provoke_error(&self) -> bool {
        let is_error = match (self.protocol, self.transport) {
            // Informational messages only; an unknown type might be an error (RFC 1122 §3.2.2).
            (Protocol::ICMPV4, Transport::Icmp { kind, .. }) => !matches!(kind, 0 | 8 | 13..=18),
            (Protocol::ICMPV6, Transport::Icmp { kind, .. }) => kind < 128 || kind == 137,
            _ => false,
        };
        let is_host_to_host = match self.network {
            Network::Other => false,
            Network::V4 { source, destination } => {
                let is_host = |ip: Ipv4Addr| !(ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified());
                is_host(source) && is_host(destination) && !source.is_loopback()
            }
            Network::V6 { source, destination } => {
                let is_host = |ip: Ipv6Addr| !(ip.is_multicast() || ip.is_unspecified());
                is_host(source) && is_host(destination) && !source.is_loopback()
            }
        };
        is_host_to_host && !is_error && self.fragment != Fragment::Later && self.destination.is_unicast()
    }
}

/// The parts of a frame that [`Headers::parse_plain`] takes.
struct Plain<'f> {
    ethernet: &'f [u8; ethernet::HEADER_BYTES],
    ip: &'f [u8; ipv4::HEADER_BYTES],
    total_bytes: u16,
    transport: Transport,
    transport_bytes: u8,
}

impl<'f> Plain<'f> {
    #[inline(always)]
    fn of(frame: &'f [u8]) -> Option<Self> {
        let first: &[u8; PLAIN_BYTES] = frame.first_chunk()?;
        let (ethernet, rest) = first.split_first_chunk::<{ ethernet::HEADER_BYTES }>()?;
        let (ip, transport) = rest.split_first_chunk::<{ ipv4::HEADER_BYTES }>()?;
        let [.., e0, e1] = *ethernet;
        let [version_ihl, _, t0, t1, _, _, f0, f1, _, protocol, ..] = *ip;
        let is_piece = u16::from_be_bytes([f0, f1]) & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) != 0;
        if [e0, e1, version_ihl] != [0x08, 0x00, 0x45] || is_piece || !ipv4::is_checksum_valid(ip) {
            return None;
        }
        let total_bytes = u16::from_be_bytes([t0, t1]);
        let payload_bytes = usize::from(total_bytes).checked_sub(ipv4::HEADER_BYTES)?;
        if ethernet::HEADER_BYTES + usize::from(total_bytes) > frame.len() {
            return None;
        }
        let [s0, s1, d0, d1, l0, l1, ..] = *transport else { return None };
        let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        let (transport, transport_bytes, claimed, least) = match Protocol(protocol) {
            Protocol::UDP => {
                let length = usize::from(u16::from_be_bytes([l0, l1]));
                (Transport::Udp { source, destination }, 8, length, udp::HEADER_BYTES)
            }
            Protocol::TCP => {
                let &[offset, flags] = frame.get(TCP_OFFSET_AT..)?.first_chunk()?;
                let header_bytes = (offset >> 4) * 4;
                let transport = Transport::Tcp { source, destination, flags: Flags(flags) };
                (transport, header_bytes, usize::from(header_bytes), tcp::HEADER_BYTES)
            }
            _ => return None,
        };
        let fits = claimed >= least && claimed <= payload_bytes;
        fits.then_some(Self { ethernet, ip, total_bytes, transport, transport_bytes })
    }
}

/// A hash of the flow that a packet belongs to: addresses, protocol and ports. Fragments are hashed without ports, so
/// that all pieces of a datagram take one path. `seed` should be random: guests choose addresses and ports.
#[must_use]
#[inline(always)]
pub fn flow_hash(headers: &Headers, seed: u32) -> u32 {
    let ports = match (headers.fragment, headers.ports()) {
        (Fragment::Whole, Some((source, destination))) => u32::from(source) << 16 | u32::from(destination),
        _ => 0,
    };
    let low = u64::from(ports) << 8 | u64::from(headers.protocol.0);
    // The seed's upper bits lie above what the guest chooses: no choice makes this factor zero.
    let state = low ^ u64::from(seed.rotate_right(8)) << 32 ^ 0xa409_3822_299f_31d0;
    let state = match headers.network {
        Network::Other => {
            let mac = |MacAddr([a, b, c, d, e, f]): MacAddr| u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
            multiply(state ^ mac(headers.source), mac(headers.destination) ^ 0x1319_8a2e_0370_7344)
        }
        Network::V4 { source, destination } => {
            let state = multiply(state, u64::from(destination.to_bits()) ^ 0x1319_8a2e_0370_7344);
            state ^ u64::from(source.to_bits())
        }
        Network::V6 { source, destination } => {
            let (source, destination) = (halves(source), halves(destination));
            let state = multiply(state ^ source.0, source.1 ^ 0x1319_8a2e_0370_7344);
            multiply(state ^ destination.0, destination.1 ^ 0x082e_fa98_ec4e_6c89)
        }
    };
    let [a, b, c, d, ..] = multiply(state, 0x4528_21e6_38d0_1377).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The halves of a 128-bit product, folded: each bit of the result depends on all bits of both.
#[inline]
fn multiply(a: u64, b: u64) -> u64 {
    let (high, low) = split(u128::from(a) * u128::from(b));
    high ^ low
}

#[inline]
const fn halves(ip: Ipv6Addr) -> (u64, u64) {
    split(ip.to_bits())
}

#[inline]
const fn split(value: u128) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = value.to_be_bytes();
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p]))
}

/// Frames are below 64 KiB and a little; a longer slice is no frame, and its claimed end is never beyond it.
#[inline]
fn saturated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
