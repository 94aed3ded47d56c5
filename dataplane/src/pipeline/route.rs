//! Which station of which network a packet is for, and whether it is one of this host's own ports.

use crate::drops::DropReason;
use crate::tables::{Hop, Port, Tables, Vnet};
use crate::types::CustomerIp;

/// Where a packet goes.
pub(super) enum Way<'t> {
    /// To a port of this host.
    Local(&'t Port, &'t Vnet),
    /// To the station that the packet names, which the directory may know.
    Remote(&'t Vnet),
    /// To another station of the network, which takes it on and which the directory may know.
    Via(CustomerIp, &'t Vnet),
}

/// Looks the destination up in the network's routes, and in a peer's if they lead there.
#[inline(always)]
pub(super) fn route<'t>(
    tables: &'t Tables,
    vnet: &'t Vnet,
    destination: CustomerIp,
) -> Result<Way<'t>, DropReason> {
    match vnet.routes.lookup(destination) {
        Some(Hop::OnLink) => Ok(on_link(tables, vnet, destination)),
        Some(hop) => beyond(tables, vnet, hop, destination),
        None => Err(DropReason::NoRoute),
    }
}

#[inline(always)]
fn on_link<'t>(tables: &'t Tables, vnet: &'t Vnet, destination: CustomerIp) -> Way<'t> {
    local(tables, vnet, destination).map_or(Way::Remote(vnet), |port| Way::Local(port, vnet))
}

#[inline(always)]
fn local<'t>(tables: &'t Tables, vnet: &Vnet, station: CustomerIp) -> Option<&'t Port> {
    vnet.local_port(station).and_then(|id| tables.port(id)).map(AsRef::as_ref)
}

/// Where a route leads that is not the network's own prefix.
#[inline(never)]
fn beyond<'t>(
    tables: &'t Tables,
    vnet: &'t Vnet,
    hop: &Hop,
    destination: CustomerIp,
) -> Result<Way<'t>, DropReason> {
    let (vnet, hop) = match *hop {
        Hop::Peer(vni) => {
            let peer = tables.vnet_of(vni).ok_or(DropReason::PeerNetworkAbsent)?;
            if peer.is_gateway(destination) {
                return Err(DropReason::GatewayUnserved);
            }
            (&**peer, peer.routes.lookup(destination).ok_or(DropReason::NoRoute)?)
        }
        _ => (vnet, hop),
    };
    let station = match *hop {
        Hop::OnLink => return Ok(on_link(tables, vnet, destination)),
        Hop::Via(station) => station,
        Hop::Uplink => return Err(DropReason::NoUplink),
        Hop::Drop => return Err(DropReason::RouteDrop),
        // One step only: two networks that are each peers of a third don't reach each other through it, and routes
        // that point at one another can't make a loop.
        Hop::Peer(_) => return Err(DropReason::PeerTransit),
    };
    Ok(local(tables, vnet, station).map_or(Way::Via(station, vnet), |port| Way::Local(port, vnet)))
}

/// The port that a tunnel packet of the network is for: the one with the address, or the one that the network's
/// routes send such packets through.
#[inline(always)]
pub(super) fn arrive<'t>(
    tables: &'t Tables,
    vnet: &Vnet,
    destination: CustomerIp,
) -> Result<&'t Port, DropReason> {
    local(tables, vnet, destination).or_else(|| behind(tables, vnet, destination)).ok_or(DropReason::NotLocal)
}

#[inline(never)]
fn behind<'t>(tables: &'t Tables, vnet: &Vnet, destination: CustomerIp) -> Option<&'t Port> {
    match *vnet.routes.lookup(destination)? {
        Hop::Via(station) => local(tables, vnet, station),
        _ => None,
    }
}
