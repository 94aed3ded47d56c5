//! What changes in a frame on its way: MAC addresses, time to live, congestion marks. Checksums are mended, never
//! recomputed.

use crate::drops::DropReason;
use crate::types::MacAddr;
use crate::wire::flow::{Headers, Network};
use crate::wire::{ethernet, ipv4, ipv6};

/// How a frame goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Sent to the station itself: stays as it is, but for the destination MAC address.
    Switched,
    /// Sent to the virtual router, which takes one from the time to live and puts its own address as source.
    RoutedV4,
    /// The same, with IPv6's hop limit.
    RoutedV6,
}

impl Manner {
    #[inline]
    pub(super) fn of(headers: &Headers) -> Self {
        match headers.network {
            _ if headers.destination.to_number() != MacAddr::ROUTER.to_number() => Self::Switched,
            Network::V6 { .. } => Self::RoutedV6,
            Network::V4 { .. } | Network::Other => Self::RoutedV4,
        }
    }

    #[inline]
    pub(super) const fn is_routed(self) -> bool {
        !matches!(self, Self::Switched)
    }
}

/// Turns the frame of the station `from` into one for the station `to`.
#[inline]
pub(super) fn forward(
    frame: &mut [u8],
    manner: Manner,
    from: MacAddr,
    to: MacAddr,
) -> Result<(), DropReason> {
    let source = if manner.is_routed() { MacAddr::ROUTER } else { from };
    ethernet::set_addresses(frame, to, source).map_err(|_| DropReason::EthernetTruncated)?;
    if manner.is_routed() { take_a_hop(frame, manner) } else { Ok(()) }
}

/// What the virtual router does.
fn take_a_hop(frame: &mut [u8], manner: Manner) -> Result<(), DropReason> {
    let packet = frame.get_mut(ethernet::HEADER_BYTES..).unwrap_or_default();
    let left = match manner {
        Manner::Switched => return Ok(()),
        Manner::RoutedV4 => ipv4::decrement_ttl(packet).map_err(|_| DropReason::Ipv4Malformed)?,
        Manner::RoutedV6 => ipv6::decrement_hop_limit(packet).map_err(|_| DropReason::Ipv6Malformed)?,
    };
    left.map(drop).ok_or(DropReason::TtlExceeded)
}

/// Replaces DSCP and ECN of the frame's IP header.
#[inline]
pub(super) fn set_traffic_class(frame: &mut [u8], headers: &Headers, value: u8) -> Result<(), DropReason> {
    let packet = frame.get_mut(ethernet::HEADER_BYTES..).unwrap_or_default();
    match headers.network {
        Network::V4 { .. } => ipv4::set_tos(packet, value).map_err(|_| DropReason::Ipv4Malformed),
        Network::V6 { .. } => ipv6::set_traffic_class(packet, value).map_err(|_| DropReason::Ipv6Malformed),
        Network::Other => Ok(()),
    }
}
