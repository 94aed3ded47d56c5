//! ICMPv6 (RFC 4443): echoes are answered in place, errors are wrapped around what they are about.
//!
//! All functions take bytes that begin at the ICMPv6 header and end with the IP packet. The checksum covers the IP
//! addresses, which is why they are asked for. Whether an error may be sent at all is
//! [`Headers::may_provoke_error`](super::flow::Headers::may_provoke_error)'s to say.

use std::net::Ipv6Addr;

use super::checksum::{self, Sum};
use super::{Layer, NoRoom, ParseError, Protocol, room, take};

/// Bytes in front of an echo's data or an error's quotation.
pub const HEADER_BYTES: usize = 8;

/// The most that an error quotes, IP header included: the whole must fit IPv6's least MTU (RFC 4443 §2.4(c)).
pub const QUOTE_BYTES: usize = 1280 - super::ipv6::HEADER_BYTES - HEADER_BYTES;

/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 129;

const DESTINATION_UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;

/// What went wrong with the quoted packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It does not fit the next hop (RFC 8201).
    PacketTooBig {
        /// What the next hop takes, in bytes of IP packet.
        mtu: u32,
    },
    /// No route leads to its destination.
    NoRoute,
    /// Policy forbids it.
    Prohibited,
    /// Nobody has its destination address.
    AddressUnreachable,
    /// Its hop limit has run out.
    HopLimitExceeded,
}

/// An ICMPv6 header with a right checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmpv6 {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes whose meaning depends on the type: identifier and sequence number of an echo.
    pub rest: [u8; 4],
}

impl Icmpv6 {
    /// Reads and verifies a whole message that travels between the given addresses.
    ///
    /// # Errors
    /// `Truncated`, `BadChecksum`.
    pub fn parse(message: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Result<Self, ParseError> {
        let [kind, code, _, _, a, b, c, d] = *take::<HEADER_BYTES>(message, 0, Layer::Icmpv6)?;
        if pseudo(message, source, destination).add_bytes(message).is_valid() {
            Ok(Self { kind, code, rest: [a, b, c, d] })
        } else {
            Err(ParseError::BadChecksum { layer: Layer::Icmpv6 })
        }
    }
}

fn pseudo(message: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Sum {
    // Longer than 4 GiB is no packet; its checksum is then as wrong as anything else about it.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    Sum::pseudo_v6(source, destination, Protocol::ICMPV6, length)
}

/// Computes and writes the checksum of a message that is otherwise complete.
///
/// # Errors
/// [`NoRoom`] below 4 bytes.
pub fn finish(message: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr) -> Result<(), NoRoom> {
    *room(message, 2)? = [0, 0];
    let sum = pseudo(message, source, destination).add_bytes(message).checksum();
    *room(message, 2)? = sum.to_be_bytes();
    Ok(())
}

/// Makes an echo reply of an echo request, in place, for addresses that are swapped (which does not change their sum).
/// The data stays. False for any other message, which is left as it was. A wrong checksum stays wrong, for the asker to
/// see. For an echo to a multicast address call [`finish`] afterwards: the source is then another.
pub fn answer_echo(message: &mut [u8]) -> bool {
    let Ok([kind @ ECHO_REQUEST, code @ 0, c0, c1, ..]) = room::<HEADER_BYTES>(message, 0) else {
        return false;
    };
    *kind = ECHO_REPLY;
    let from = u16::from_be_bytes([ECHO_REQUEST, *code]);
    let to = u16::from_be_bytes([ECHO_REPLY, *code]);
    [*c0, *c1] = checksum::update(u16::from_be_bytes([*c0, *c1]), from, to).to_be_bytes();
    true
}

/// Writes an error's header in front of the quotation that already stands at `message[8..]`: the packet that caused it,
/// from its IPv6 header, cut to [`QUOTE_BYTES`]. The checksum covers all of `message` and the addresses it travels
/// between.
///
/// # Errors
/// [`NoRoom`] below 8 bytes.
pub fn emit_error(
    message: &mut [u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    problem: Problem,
) -> Result<(), NoRoom> {
    let (kind, code, mtu) = match problem {
        Problem::NoRoute => (DESTINATION_UNREACHABLE, 0, 0),
        Problem::Prohibited => (DESTINATION_UNREACHABLE, 1, 0),
        Problem::AddressUnreachable => (DESTINATION_UNREACHABLE, 3, 0),
        Problem::PacketTooBig { mtu } => (PACKET_TOO_BIG, 0, mtu),
        Problem::HopLimitExceeded => (TIME_EXCEEDED, 0, 0),
    };
    let [a, b, c, d] = mtu.to_be_bytes();
    *room(message, 0)? = [kind, code, 0, 0, a, b, c, d];
    finish(message, source, destination)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const TO: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    #[test]
    fn each_problem_has_its_type_code_and_field() {
        for (problem, expected) in [
            (Problem::PacketTooBig { mtu: 1450 }, (2, 0, [0, 0, 0x05, 0xaa])),
            (Problem::NoRoute, (1, 0, [0; 4])),
            (Problem::Prohibited, (1, 1, [0; 4])),
            (Problem::AddressUnreachable, (1, 3, [0; 4])),
            (Problem::HopLimitExceeded, (3, 0, [0; 4])),
        ] {
            let mut message = [0x60; 48];
            emit_error(&mut message, FROM, TO, problem).unwrap();
            let parsed = Icmpv6::parse(&message, FROM, TO).unwrap();
            assert_eq!((parsed.kind, parsed.code, parsed.rest), expected);
            assert_eq!(message[8..], [0x60; 40]);
        }
        assert_eq!(emit_error(&mut [0; 7], FROM, TO, Problem::NoRoute), Err(NoRoom { need: 8, have: 7 }));
    }

    #[test]
    fn the_checksum_covers_the_addresses() {
        let mut message = [128, 0, 0, 0, 1, 2, 3, 4, 5];
        finish(&mut message, FROM, TO).unwrap();
        assert!(Icmpv6::parse(&message, FROM, TO).is_ok());
        let refused = Err(ParseError::BadChecksum { layer: Layer::Icmpv6 });
        assert_eq!(Icmpv6::parse(&message, FROM, FROM), refused);
        assert!(matches!(
            Icmpv6::parse(&message[..7], FROM, TO),
            Err(ParseError::Truncated { need: 8, have: 7, .. })
        ));
    }

    proptest! {
        #[test]
        fn an_echo_reply_is_valid_and_has_the_same_data(data in proptest::collection::vec(any::<u8>(), 4..100)) {
            let mut message = [&[ECHO_REQUEST, 0, 0, 0], &data[..]].concat();
            finish(&mut message, FROM, TO).unwrap();
            prop_assert!(answer_echo(&mut message));
            prop_assert_eq!(Icmpv6::parse(&message, TO, FROM).unwrap().kind, ECHO_REPLY);
            prop_assert_eq!(&message[4..], &data[..]);
            let before = message.clone();
            prop_assert!(!answer_echo(&mut message));
            prop_assert_eq!(message, before);
        }
    }
}
