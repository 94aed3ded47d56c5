//! The answers that the switch gives itself: each protocol a file, each answer the packet rewritten in place.
//!
//! A trap sees packets of one port and answers to that port alone, so what a guest claims in them can deceive nobody
//! but itself; and each port is answered only so often ([`bucket`](crate::bucket)). Never here: I/O, clocks, allocation, state between
//! packets but those bounds.

#![deny(clippy::indexing_slicing)]

pub(crate) mod arp;
pub(crate) mod dhcpv4;
pub(crate) mod icmp;
pub(crate) mod nd;

use crate::bucket;
use crate::context::Context;
use crate::drops::DropReason;
use crate::tables::{METADATA, Port, Vnet, WIRESERVER};
use crate::types::{CustomerIp, MacAddr};

/// Whose question a trap answers.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) port: &'a Port,
    pub(crate) vnet: &'a Vnet,
}

impl Asker<'_> {
    /// To be asked before an answer other than DHCP's is written.
    fn may_answer(&self) -> Result<(), DropReason> {
        let is_left = self.port.bounds.answers.take(bucket::ANSWERS, self.context.now);
        if is_left { Ok(()) } else { Err(DropReason::TrapRateLimited) }
    }

    /// To be asked before an answer of DHCP is sent.
    fn may_answer_dhcp(&self) -> Result<(), DropReason> {
        let is_left = self.port.bounds.dhcp.take(bucket::DHCP, self.context.now);
        if is_left { Ok(()) } else { Err(DropReason::DhcpRateLimited) }
    }

    /// The MAC address to reach a station of the network by: its own for one that shares a prefix with the asker; the
    /// virtual router's for the router, the link-local services, and stations beyond it (proxy), whose packets must be
    /// routed. `None` when nobody has the address.
    fn resolve(&self, target: CustomerIp) -> Option<MacAddr> {
        if self.vnet.is_gateway(target) || target.0 == METADATA || target.0 == WIRESERVER {
            return Some(MacAddr::ROUTER);
        }
        let subnet = self.vnet.subnet_of(target)?;
        let tables = self.context.tables;
        let mac = match self.vnet.local_port(target).and_then(|id| tables.port(id)) {
            Some(port) => port.mac,
            None => {
                let directory = self.context.directory;
                let vni = self.vnet.vni;
                directory.lookup(directory.hash(vni, target), vni, target)?.mac
            }
        };
        let is_neighbour = self.port.config.ips.iter().any(|&ip| subnet.contains(ip));
        Some(if is_neighbour { mac } else { MacAddr::ROUTER })
    }
}

/// To be asked before a tunnel peer is answered for a port.
pub(crate) fn may_answer_peer(context: &Context<'_>, port: &Port) -> Result<(), DropReason> {
    if port.bounds.peers.take(bucket::PEERS, context.now) { Ok(()) } else { Err(DropReason::PeerRateLimited) }
}
