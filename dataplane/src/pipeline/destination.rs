//! Which destinations are one station at all: the overlay floods nothing.

use super::drops::DropReason;
use crate::types::MacAddr;
use crate::wire::flow::{Headers, Network};

/// Passes unicast only.
#[inline]
pub(super) fn check(headers: &Headers) -> Result<(), DropReason> {
    let (is_multicast, is_broadcast, is_nobody) = match headers.network {
        Network::V4 { destination: ip, .. } => (
            ip.is_multicast(),
            ip.is_broadcast(),
            ip.is_unspecified() || ip.is_loopback() || ip.is_link_local(),
        ),
        Network::V6 { destination: ip, .. } => {
            (ip.is_multicast(), false, ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local())
        }
        Network::Other => return Err(DropReason::EthertypeUnsupported),
    };
    let mac = headers.destination;
    if is_multicast {
        Err(DropReason::Multicast)
    } else if is_broadcast || mac == MacAddr::BROADCAST {
        Err(DropReason::Broadcast)
    } else if !mac.is_unicast() {
        Err(DropReason::DestinationMacUnknown)
    } else if is_nobody {
        Err(DropReason::DestinationInvalid)
    } else {
        Ok(())
    }
}
