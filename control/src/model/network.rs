//! Virtual networks as customers know them.

use std::net::IpAddr;

use dataplane::desired::{DomainName, Subnet};
use dataplane::types::Mtu;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Moniker, Name, NetworkId, TenantId};

/// A virtual network. Which VNI it has on the wire is the networking manager's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What its tenant calls it.
    pub name: Name,
    /// What everybody else calls it.
    pub moniker: Moniker,
    /// Its prefixes, each with the virtual router's address.
    pub subnets: Vec<Subnet>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// The machines' DNS domain.
    pub domain: Option<DomainName>,
    /// The machines' MTU in bytes; absent: what fits the hosts' network.
    pub mtu: Option<Mtu>,
    /// How long a DHCP lease lasts, in seconds.
    pub lease_seconds: u32,
    /// True for a network whose machines may not reach each other: pools and quarantine.
    pub isolated: bool,
    /// When it was made.
    pub created_at: Timestamp,
}
