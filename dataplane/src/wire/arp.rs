//! ARP for Ethernet and IPv4 (RFC 826): 28 bytes.

use std::net::Ipv4Addr;

use super::ethernet::EtherType;
use super::{Layer, NoRoom, ParseError, room, take};
use crate::types::MacAddr;

/// Bytes of a message.
pub const MESSAGE_BYTES: usize = 28;

const HARDWARE_ETHERNET: u16 = 1;

/// What an ARP message wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender does.
    Reply,
}

/// An ARP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's MAC address.
    pub sender_mac: MacAddr,
    /// The sender's IP address; 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// The target's MAC address; meaningless in a request.
    pub target_mac: MacAddr,
    /// The target's IP address.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Reads the message at the front of an Ethernet payload.
    ///
    /// # Errors
    /// `Truncated`; `Unsupported` for other hardware or protocol types and sizes, and other operations (RARP, InARP).
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        const LAYER: Layer = Layer::Arp;
        let [h0, h1, p0, p1, hardware_bytes, protocol_bytes, o0, o1] = *take::<8>(payload, 0, LAYER)?;
        let unsupported = |field, found| ParseError::Unsupported { layer: LAYER, field, found };
        let hardware = u16::from_be_bytes([h0, h1]);
        let protocol = u16::from_be_bytes([p0, p1]);
        let operation = u16::from_be_bytes([o0, o1]);
        if (hardware, hardware_bytes) != (HARDWARE_ETHERNET, 6) {
            return Err(unsupported("hardware type", u32::from(hardware)));
        }
        if (protocol, protocol_bytes) != (EtherType::IPV4.0, 4) {
            return Err(unsupported("protocol type", u32::from(protocol)));
        }
        let operation = match operation {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(unsupported("operation", u32::from(other))),
        };
        let [a, b, c, d, e, f, s0, s1, s2, s3, g, h, i, j, k, l, t0, t1, t2, t3] =
            *take::<20>(payload, 8, LAYER)?;
        Ok(Self {
            operation,
            sender_mac: MacAddr([a, b, c, d, e, f]),
            sender_ip: Ipv4Addr::new(s0, s1, s2, s3),
            target_mac: MacAddr([g, h, i, j, k, l]),
            target_ip: Ipv4Addr::new(t0, t1, t2, t3),
        })
    }

    /// RFC 5227 §1.1: a probe asks for an address without claiming one.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        matches!(self.operation, Operation::Request) && self.sender_ip.is_unspecified()
    }

    /// RFC 5227 §1.1 and §3: sender and target are the same address; said to all, expecting no answer.
    #[must_use]
    pub fn is_announcement(&self) -> bool {
        self.sender_ip == self.target_ip && !self.sender_ip.is_unspecified()
    }

    /// The answer to this request: `mac` has the target's address.
    #[must_use]
    pub const fn reply(&self, mac: MacAddr) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// The message's bytes.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; MESSAGE_BYTES] {
        let operation = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let MacAddr([a, b, c, d, e, f]) = self.sender_mac;
        let [s0, s1, s2, s3] = self.sender_ip.octets();
        let MacAddr([g, h, i, j, k, l]) = self.target_mac;
        let [t0, t1, t2, t3] = self.target_ip.octets();
        [
            0, 1, 0x08, 0x00, 6, 4, 0, operation, a, b, c, d, e, f, s0, s1, s2, s3, g, h, i, j, k, l, t0, t1,
            t2, t3,
        ]
    }

    /// Writes the message to the front of an Ethernet payload.
    ///
    /// # Errors
    /// [`NoRoom`] below 28 bytes.
    pub fn emit(&self, payload: &mut [u8]) -> Result<(), NoRoom> {
        *room(payload, 0)? = self.to_bytes();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> Arp {
        Arp {
            operation: Operation::Request,
            sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            sender_ip: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: MacAddr([0; 6]),
            target_ip: Ipv4Addr::new(10, 0, 0, 2),
        }
    }

    #[test]
    fn a_reply_swaps_the_roles() {
        let reply = request().reply(MacAddr::ROUTER);
        assert_eq!((reply.sender_mac, reply.sender_ip), (MacAddr::ROUTER, request().target_ip));
        assert_eq!((reply.target_mac, reply.target_ip), (request().sender_mac, request().sender_ip));
        assert_eq!(Arp::parse(&reply.to_bytes()), Ok(reply));
    }

    #[test]
    fn probes_and_announcements_are_told_apart() {
        let probe = Arp { sender_ip: Ipv4Addr::UNSPECIFIED, ..request() };
        assert!(probe.is_probe() && !probe.is_announcement());
        let announcement = Arp { target_ip: request().sender_ip, ..request() };
        assert!(announcement.is_announcement() && !announcement.is_probe());
        assert!(!request().is_probe() && !request().is_announcement());
    }

    #[test]
    fn other_kinds_of_arp_are_refused_by_field() {
        for (at, field) in [
            (1, "hardware type"),
            (4, "hardware type"),
            (2, "protocol type"),
            (5, "protocol type"),
            (7, "operation"),
        ] {
            let mut bytes = request().to_bytes();
            bytes[at] = 9;
            assert!(
                matches!(Arp::parse(&bytes), Err(ParseError::Unsupported { field: found, .. }) if found == field)
            );
        }
        assert!(matches!(
            Arp::parse(&request().to_bytes()[..27]),
            Err(ParseError::Truncated { layer: Layer::Arp, need: 28, have: 27 })
        ));
    }

    proptest! {
        #[test]
        fn emit_undoes_parse(mut bytes: [u8; 28], reply: bool) {
            bytes[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1 + u8::from(reply)]);
            prop_assert_eq!(Arp::parse(&bytes).unwrap().to_bytes(), bytes);
        }
    }
}
