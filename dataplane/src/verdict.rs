//! What becomes of a packet.

use crate::drops::DropReason;
use crate::types::{PhysicalIp, PortId};

/// The end of a packet's walk through the pipeline. Exactly one per packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To a port of this host; the packet is the frame to write.
    Deliver(PortId),
    /// To another host; the packet begins with the tunnel header.
    Underlay(Tunnel),
    /// Back to where it came from: the packet was rewritten into the answer. For a packet from the underlay the answer
    /// begins with the tunnel header again.
    Reply(Trap),
    /// To the switch's own TCP endpoint, as the guest sent it: see `endpoint`.
    Detour,
    /// A trap took it, and there is nothing to answer.
    Absorbed(Trap),
    /// Nowhere.
    Drop(DropReason),
}

impl From<DropReason> for Verdict {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// What the underlay needs to know besides the packet's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// The host to send to.
    pub to: PhysicalIp,
    /// Hash of the inner flow, from which the UDP source port is made (RFC 7348 section 5).
    pub entropy: u16,
    /// The outer traffic class: the inner's DSCP and ECN (RFC 6040 section 4.1, normal mode).
    pub traffic_class: u8,
    /// Bytes of tunnel header in front of the inner Ethernet header.
    pub header_bytes: u8,
}

/// Which of the switch's own services handled a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trap {
    /// An ARP request was answered.
    Arp,
    /// The guest asked whether its own address is taken (RFC 5227 section 2.1.1, RFC 4862 section 5.4): silence says
    /// that it is not.
    AddressProbe,
    /// An ICMP or ICMPv6 echo to the gateway was answered.
    Echo,
    /// The sender was told that its packet is too big for the path.
    TooBig,
    /// The sender was told that its packet's time to live ended.
    TimeExceeded,
    /// A neighbour solicitation was answered.
    NeighborSolicitation,
    /// A router solicitation was answered.
    RouterSolicitation,
    /// DHCPDISCOVER was answered with an offer.
    DhcpOffer,
    /// A DHCP request was acknowledged: the guest has its lease.
    DhcpAck,
    /// A DHCP request for an address of another network was refused.
    DhcpNak,
    /// A guest that has its address was told the rest of its lease (DHCPINFORM).
    DhcpInform,
    /// The guest gave its lease back.
    DhcpRelease,
    /// The guest found its address in use.
    DhcpDecline,
    /// A segment was handed to the metadata service's TCP endpoint.
    Metadata,
}

impl Trap {
    /// Every trap, in counter order.
    pub const ALL: &'static [Self] = &[
        Self::Arp,
        Self::AddressProbe,
        Self::Echo,
        Self::TooBig,
        Self::TimeExceeded,
        Self::NeighborSolicitation,
        Self::RouterSolicitation,
        Self::DhcpOffer,
        Self::DhcpAck,
        Self::DhcpNak,
        Self::DhcpInform,
        Self::DhcpRelease,
        Self::DhcpDecline,
        Self::Metadata,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The stable name: lower case, underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::AddressProbe => "address_probe",
            Self::Echo => "echo",
            Self::TooBig => "too_big",
            Self::TimeExceeded => "time_exceeded",
            Self::NeighborSolicitation => "neighbor_solicitation",
            Self::RouterSolicitation => "router_solicitation",
            Self::DhcpOffer => "dhcp_offer",
            Self::DhcpAck => "dhcp_ack",
            Self::DhcpNak => "dhcp_nak",
            Self::DhcpInform => "dhcp_inform",
            Self::DhcpRelease => "dhcp_release",
            Self::DhcpDecline => "dhcp_decline",
            Self::Metadata => "metadata",
        }
    }

    /// As an index into arrays of [`Trap::COUNT`] counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_indexes_are_dense() {
        for (index, trap) in Trap::ALL.iter().enumerate() {
            assert_eq!(trap.index(), index, "{}", trap.name());
        }
    }
}
