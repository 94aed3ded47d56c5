//! What tells connections of one port apart. The same key in both directions: addresses and ports are the guest's and the
//! other end's, not the source's and the destination's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::desired::Direction;
use crate::wire::Protocol;

/// Words of a key.
pub(super) const WORDS: usize = 5;

/// A connection's addresses, protocol and ports, packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u64; WORDS]);

/// The two ends of a connection, seen from the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The guest's address.
    pub local: IpAddr,
    /// The other end's.
    pub remote: IpAddr,
}

impl Ends {
    /// Of a packet that goes `direction`.
    #[must_use]
    pub const fn of(direction: Direction, source: IpAddr, destination: IpAddr) -> Self {
        match direction {
            Direction::Out => Self { local: source, remote: destination },
            Direction::In => Self { local: destination, remote: source },
        }
    }
}

/// Kinds of keys, besides the address family.
const FLOW: u64 = 0;
const PIECES_IN: u64 = 2;
const PIECES_OUT: u64 = 4;

impl Key {
    /// Of a flow over IPv4: from the packet's own words, for the way that nearly every packet takes.
    #[must_use]
    #[inline]
    pub fn flow_v4(
        protocol: Protocol,
        direction: Direction,
        (source, source_port): (Ipv4Addr, u16),
        (destination, destination_port): (Ipv4Addr, u16),
    ) -> Self {
        let (source, destination) = (u64::from(source.to_bits()), u64::from(destination.to_bits()));
        let (source_port, destination_port) = (u64::from(source_port), u64::from(destination_port));
        let (addresses, ports) = match direction {
            Direction::Out => (source << 32 | destination, source_port << 16 | destination_port),
            Direction::In => (destination << 32 | source, destination_port << 16 | source_port),
        };
        Self([ports << 32 | u64::from(protocol.0) << 8 | FLOW, addresses, 0, 0, 0])
    }

    /// Of a flow: the guest's port and the other end's; zero where the protocol has none. For ICMP queries the guest's is
    /// the identifier and the other end's the query's type.
    #[must_use]
    pub fn flow(protocol: Protocol, ends: Ends, (local_port, remote_port): (u16, u16)) -> Self {
        Self::pack(FLOW, protocol, ends, u32::from(local_port) << 16 | u32::from(remote_port))
    }

    /// Of a datagram's pieces, by the IP header's identification.
    #[must_use]
    pub fn pieces(direction: Direction, protocol: Protocol, ends: Ends, identification: u32) -> Self {
        let kind = match direction {
            Direction::In => PIECES_IN,
            Direction::Out => PIECES_OUT,
        };
        Self::pack(kind, protocol, ends, identification)
    }

    #[inline]
    fn pack(kind: u64, protocol: Protocol, ends: Ends, number: u32) -> Self {
        let first = |family: u64| u64::from(number) << 32 | u64::from(protocol.0) << 8 | kind | family;
        match (ends.local, ends.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let both = u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits());
                Self([first(0), both, 0, 0, 0])
            }
            (local, remote) => {
                let (local, remote) = (halves(local), halves(remote));
                Self([first(1), local.0, local.1, remote.0, remote.1])
            }
        }
    }

    /// The words, as they are stored.
    pub(super) const fn words(&self) -> [u64; WORDS] {
        self.0
    }

    /// True if only the first two words are not always zero.
    #[inline]
    pub(super) const fn is_v4(&self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0
    }

    /// Where to look for it. `secret` is the process's own: guests choose keys.
    #[inline]
    pub(super) fn hash(&self, secret: u64) -> u64 {
        let [a, b, c, d, e] = self.0;
        // No word meets a multiplier that its sender could know, or he could make it zero.
        let (one, two) = (secret ^ 0x9e37_79b9_7f4a_7c15, secret.rotate_left(23) ^ 0x1319_8a2e_0370_7344);
        let state = fold(a ^ one, b ^ two);
        let state = if self.is_v4() { state } else { fold(fold(state ^ c, d ^ two), e ^ one) };
        fold(state, two)
    }
}

fn halves(ip: IpAddr) -> (u64, u64) {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => Ipv6Addr::to_bits(ip),
    };
    split(bits)
}

/// The halves of a 128-bit product, folded: each bit of the result depends on all bits of both.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let (high, low) = split(u128::from(a) * u128::from(b));
    high ^ low
}

#[inline]
const fn split(value: u128) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = value.to_be_bytes();
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_directions_have_one_key_and_everything_else_tells_apart() {
        let (guest, peer) = (ip("10.0.0.1"), ip("10.0.0.2"));
        let key = |protocol, ends, ports| Key::flow(Protocol(protocol), ends, ports);
        let out = Ends::of(Direction::Out, guest, peer);
        assert_eq!(out, Ends::of(Direction::In, peer, guest));
        let (guest_v4, peer_v4) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        for (direction, source, destination) in [
            (Direction::Out, (guest_v4, 80), (peer_v4, 1000)),
            (Direction::In, (peer_v4, 1000), (guest_v4, 80)),
        ] {
            assert_eq!(Key::flow_v4(Protocol(6), direction, source, destination), key(6, out, (80, 1000)));
        }
        let (v6_guest, v6_peer) = (ip("fd00::1"), ip("fd00::2"));
        let v6 = |local, remote| Ends { local, remote };
        let keys = [
            key(6, out, (80, 1000)),
            key(17, out, (80, 1000)),
            key(6, out, (1000, 80)),
            key(6, Ends::of(Direction::In, guest, peer), (80, 1000)),
            key(6, v6(v6_guest, v6_peer), (80, 1000)),
            key(6, v6(v6_peer, v6_guest), (80, 1000)),
            key(6, v6(v6_guest, ip("fd00:0:0:1::2")), (80, 1000)),
            key(6, v6(ip("::ffff:10.0.0.1"), ip("::ffff:10.0.0.2")), (80, 1000)),
            Key::pieces(Direction::Out, Protocol(6), out, 80 << 16 | 1000),
            Key::pieces(Direction::In, Protocol(6), out, 80 << 16 | 1000),
        ];
        for (index, key) in keys.iter().enumerate() {
            for other in keys.iter().skip(index + 1) {
                assert_ne!(key, other);
                assert_ne!(key.hash(7), other.hash(7), "{key:?} {other:?}");
            }
            assert_ne!(key.hash(7), key.hash(8));
        }
    }
}
