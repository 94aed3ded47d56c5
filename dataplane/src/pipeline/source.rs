//! Whom a packet that came through a tunnel may claim to be from.
//!
//! The sending host has checked its guest's address, and is trusted to; a peer that is no switch of ours (a kernel
//! bridge) has checked nothing. So nobody out there may speak as what only this switch is (the virtual router, the
//! link-local services), as a port of this host, or as no station at all. Whether any other station lives at the host
//! that sent its packet is not asked: a peer network's addresses are not in this network's directory, an entry
//! may be on its way, and who can forge a host's physical address knows what lives there.

use std::net::IpAddr;

use crate::drops::DropReason;
use crate::tables::{METADATA, Vnet, WIRESERVER};
use crate::types::CustomerIp;

/// Passes sources that may be on another host.
#[inline]
pub(super) fn check(vnet: &Vnet, source: IpAddr) -> Result<(), DropReason> {
    let ip = CustomerIp(source);
    if source == METADATA || source == WIRESERVER || vnet.is_gateway(ip) || vnet.local_port(ip).is_some() {
        return Err(DropReason::InnerSourceForged);
    }
    let is_nobody = match source {
        IpAddr::V4(ip) => {
            matches!(ip.octets(), [0 | 127 | 224..=239, ..]) || ip.is_broadcast() || ip.is_link_local()
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.to_ipv4_mapped().is_some()
        }
    };
    if is_nobody { Err(DropReason::InnerSourceInvalid) } else { Ok(()) }
}
