//! Which station of which network a packet is for, and whether it is one of this host's own ports.

use super::drops::DropReason;
use crate::tables::{Hop, Port, Tables, Vnet};
use crate::types::CustomerIp;

/// Where a packet goes.
pub(super) enum Way<'t> {
    /// To a port of this host.
    Local(&'t Port, &'t Vnet),
    /// To a station of the network that the directory may know.
    Remote(CustomerIp, &'t Vnet),
}

/// Looks the destination up in the network's routes, and in a peer's if they lead there.
#[inline]
pub(super) fn route<'t>(
    tables: &'t Tables,
    vnet: &'t Vnet,
    destination: CustomerIp,
) -> Result<Way<'t>, DropReason> {
    let (vnet, hop) = match vnet.routes.lookup(destination).ok_or(DropReason::NoRoute)? {
        Hop::Peer(vni) => {
            let peer = tables.vnet_of(vni).ok_or(DropReason::PeerNetworkAbsent)?;
            if peer.is_gateway(destination) {
                return Err(DropReason::GatewayUnserved);
            }
            (&**peer, peer.routes.lookup(destination).ok_or(DropReason::NoRoute)?)
        }
        hop => (vnet, hop),
    };
    let station = match hop {
        Hop::OnLink => destination,
        Hop::Via(station) => station,
        Hop::Uplink => return Err(DropReason::NoUplink),
        Hop::Drop => return Err(DropReason::RouteDrop),
        // One step only: two networks that are each peers of a third don't reach each other through it, and routes
        // that point at one another can't make a loop.
        Hop::Peer(_) => return Err(DropReason::PeerTransit),
    };
    Ok(match vnet.local_port(station).and_then(|id| tables.port(id)) {
        Some(port) => Way::Local(port, vnet),
        None => Way::Remote(station, vnet),
    })
}

/// The port that a tunnel packet of the network is for: the one with the address, or the one that the network's
/// routes send such packets through.
#[inline]
pub(super) fn arrive<'t>(
    tables: &'t Tables,
    vnet: &Vnet,
    destination: CustomerIp,
) -> Result<&'t Port, DropReason> {
    let id = vnet.local_port(destination).or_else(|| match vnet.routes.lookup(destination) {
        Some(Hop::Via(station)) => vnet.local_port(station),
        _ => None,
    });
    id.and_then(|id| tables.port(id)).map(AsRef::as_ref).ok_or(DropReason::NotLocal)
}
