//! ICMP for IPv4 (RFC 792, RFC 1191): echoes are answered in place, errors are wrapped around what they are about.
//!
//! All functions take bytes that begin at the ICMP header and end with the IP packet. Whether an error may be sent at
//! all is [`Headers::may_provoke_error`](super::flow::Headers::may_provoke_error)'s to say.

use super::checksum::{self, Sum};
use super::{Layer, NoRoom, ParseError, room, take};

/// Bytes in front of an echo's data or an error's quotation.
pub const HEADER_BYTES: usize = 8;

/// The most that an error quotes, IP header included: RFC 1812 §4.3.2.3 wants as much as fits into a datagram of 576
/// bytes.
pub const QUOTE_BYTES: usize = 576 - super::ipv4::HEADER_BYTES - HEADER_BYTES;

/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 8;

const DESTINATION_UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;

/// What went wrong with the quoted packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It does not fit the next hop, and may not be fragmented (RFC 1191 §4).
    FragmentationNeeded {
        /// What the next hop takes, in bytes of IP packet.
        next_hop_mtu: u16,
    },
    /// No route leads to its destination.
    NetworkUnreachable,
    /// Nobody has its destination address.
    HostUnreachable,
    /// Policy forbids it (RFC 1812 §5.2.7.1).
    Prohibited,
    /// Its TTL has run out.
    TtlExceeded,
}

/// An ICMP header with a right checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmpv4 {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes whose meaning depends on the type: identifier and sequence number of an echo.
    pub rest: [u8; 4],
}

impl Icmpv4 {
    /// Reads and verifies a whole message.
    ///
    /// # Errors
    /// `Truncated`, `BadChecksum`.
    pub fn parse(message: &[u8]) -> Result<Self, ParseError> {
        let [kind, code, _, _, a, b, c, d] = *take::<HEADER_BYTES>(message, 0, Layer::Icmpv4)?;
        if Sum::ZERO.add_bytes(message).is_valid() {
            Ok(Self { kind, code, rest: [a, b, c, d] })
        } else {
            Err(ParseError::BadChecksum { layer: Layer::Icmpv4 })
        }
    }
}

/// Makes an echo reply of an echo request, in place; the data and its checksum stay. False for any other message,
/// which is left as it was. A wrong checksum stays wrong, for the asker to see.
pub fn answer_echo(message: &mut [u8]) -> bool {
    let Ok([kind @ ECHO_REQUEST, code @ 0, c0, c1, ..]) = room::<HEADER_BYTES>(message, 0) else {
        return false;
    };
    *kind = ECHO_REPLY;
    let from = u16::from_be_bytes([ECHO_REQUEST, *code]);
    let to = u16::from_be_bytes([ECHO_REPLY, *code]);
    // A reply of nothing but zeros has the checksum 0xffff, which the update, knowing only the difference, gives as its
    // twin 0. For every other reply the two verify alike.
    let sum = match checksum::update(u16::from_be_bytes([*c0, *c1]), from, to) {
        0 => 0xffff,
        sum => sum,
    };
    [*c0, *c1] = sum.to_be_bytes();
    true
}

/// Writes an error's header in front of the quotation that already stands at `message[8..]`: the packet that caused it,
/// from its IP header, cut to [`QUOTE_BYTES`]. The checksum covers all of `message`.
///
/// # Errors
/// [`NoRoom`] below 8 bytes.
pub fn emit_error(message: &mut [u8], problem: Problem) -> Result<(), NoRoom> {
    let (kind, code, mtu) = match problem {
        Problem::NetworkUnreachable => (DESTINATION_UNREACHABLE, 0, 0),
        Problem::HostUnreachable => (DESTINATION_UNREACHABLE, 1, 0),
        Problem::FragmentationNeeded { next_hop_mtu } => (DESTINATION_UNREACHABLE, 4, next_hop_mtu),
        Problem::Prohibited => (DESTINATION_UNREACHABLE, 13, 0),
        Problem::TtlExceeded => (TIME_EXCEEDED, 0, 0),
    };
    let [m0, m1] = mtu.to_be_bytes();
    *room(message, 0)? = [kind, code, 0, 0, 0, 0, m0, m1];
    let [c0, c1] = Sum::ZERO.add_bytes(message).checksum().to_be_bytes();
    *room(message, 2)? = [c0, c1];
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frag_needed_carries_the_mtu_where_rfc_1191_wants_it() {
        let mut message = [&[0; 8], &[0x45; 28][..]].concat();
        emit_error(&mut message, Problem::FragmentationNeeded { next_hop_mtu: 1450 }).unwrap();
        assert_eq!(message[..2], [3, 4]);
        assert_eq!(Icmpv4::parse(&message).unwrap().rest, [0, 0, 0x05, 0xaa]);
        assert_eq!(message[8..], [0x45; 28]);
        assert_eq!(emit_error(&mut message[..7], Problem::TtlExceeded), Err(NoRoom { need: 8, have: 7 }));
    }

    #[test]
    fn each_problem_has_its_type_and_code() {
        for (problem, type_and_code) in [
            (Problem::NetworkUnreachable, (3, 0)),
            (Problem::HostUnreachable, (3, 1)),
            (Problem::Prohibited, (3, 13)),
            (Problem::TtlExceeded, (11, 0)),
        ] {
            let mut message = [0; 36];
            emit_error(&mut message, problem).unwrap();
            let parsed = Icmpv4::parse(&message).unwrap();
            assert_eq!(((parsed.kind, parsed.code), parsed.rest), (type_and_code, [0; 4]));
        }
    }

    #[test]
    fn only_echo_requests_are_answered() {
        for mut other in [[0, 0, 1, 2, 3, 4, 5, 6], [8, 1, 1, 2, 3, 4, 5, 6], [13, 0, 1, 2, 3, 4, 5, 6]] {
            let before = other;
            assert!(!answer_echo(&mut other));
            assert_eq!(other, before);
        }
        assert!(!answer_echo(&mut [8, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn a_reply_of_zeros_has_a_right_checksum() {
        for length in [8, 9, 64] {
            let mut message = vec![0; length];
            message[..4].copy_from_slice(&[ECHO_REQUEST, 0, 0xf7, 0xff]);
            assert!(Icmpv4::parse(&message).is_ok());
            assert!(answer_echo(&mut message));
            assert!(Icmpv4::parse(&message).is_ok());
        }
    }

    proptest! {
        #[test]
        fn an_echo_reply_is_valid_and_has_the_same_data(data in proptest::collection::vec(any::<u8>(), 4..100)) {
            let mut message = [&[ECHO_REQUEST, 0, 0, 0], &data[..]].concat();
            let sum = Sum::ZERO.add_bytes(&message).checksum();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(Icmpv4::parse(&message).is_ok());
            prop_assert!(answer_echo(&mut message));
            prop_assert_eq!(Icmpv4::parse(&message).unwrap().kind, ECHO_REPLY);
            prop_assert_eq!(&message[4..], &data[..]);
            message[5] ^= 1;
            prop_assert_eq!(Icmpv4::parse(&message), Err(ParseError::BadChecksum { layer: Layer::Icmpv4 }));
        }
    }
}
