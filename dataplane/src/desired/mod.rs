//! The whole truth that this switch should hold: one [`HostConfig`] document with a generation.
//!
//! A document is plain data: it says nothing about how the switch is doing. Unknown fields are refused, and
//! [`HostConfig::validate`] refuses what the packet path could not honour, naming the place and the remedy. Never here:
//! I/O, clocks, the directory (which is large and changes by the entry).

mod error;
mod names;
mod rule;
mod validate;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use names::{DomainName, Label, PortName};
pub use rule::{
    Action, DEFAULT_PRIORITY, Direction, PortRange, RuleConfig, RuleError, RuleId, RuleProtocol,
    RuleTextError,
};
#[cfg(feature = "io")]
pub(crate) use validate::is_namespace;

use crate::types::{CustomerIp, Generation, MacAddr, Mtu, PhysicalIp, TypeError, Vni};

/// Everything one switch should hold, except the directory.
///
/// Parts are shared (`Arc`), so that a document that differs in one port costs one port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Grows with every change; an older document is refused.
    pub generation: Generation,
    /// The virtual networks that this host has ports in, or routes to.
    #[serde(default)]
    pub networks: Vec<Arc<NetworkConfig>>,
    /// The guests' NICs.
    #[serde(default)]
    pub ports: Vec<Arc<PortConfig>>,
}

impl HostConfig {
    /// The network with this VNI.
    #[must_use]
    pub fn network(&self, vni: Vni) -> Option<&Arc<NetworkConfig>> {
        self.networks.iter().find(|network| network.vni == vni)
    }

    /// The port with this name.
    #[must_use]
    pub fn port(&self, name: &PortName) -> Option<&Arc<PortConfig>> {
        self.ports.iter().find(|port| port.name == *name)
    }

    /// True when both documents want the same, whatever their generations.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.networks == other.networks && self.ports == other.ports
    }
}

/// A virtual network as this host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Its identifier on the wire.
    pub vni: Vni,
    /// Its prefixes, each with the virtual router's address in it.
    pub subnets: Vec<Subnet>,
    /// Name servers, both families, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// The guests' DNS domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
    /// The guests' MTU in bytes; absent: the largest that fits the underlay, at most 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// How long a DHCP lease lasts, in seconds.
    #[serde(default = "default_lease_seconds")]
    pub lease_seconds: u32,
    /// Routes beyond the network's own prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
}

/// A lease of one hour: long enough to be quiet, short enough to notice a mistake the same day.
pub const DEFAULT_LEASE_SECONDS: u32 = 3600;

const fn default_lease_seconds() -> u32 {
    DEFAULT_LEASE_SECONDS
}

/// One prefix of a virtual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// The prefix, without host bits.
    pub prefix: IpNet,
    /// The virtual router's address in it: default gateway, DHCP server identifier.
    pub gateway: CustomerIp,
}

impl Subnet {
    /// The subnet of `prefix` whose gateway is its first host address.
    #[must_use]
    pub fn with_first_gateway(prefix: IpNet) -> Self {
        let gateway = match prefix {
            // `hosts()` of an IPv6 prefix starts at the subnet-router anycast address (RFC 4291 §2.6.1): skip it.
            IpNet::V6(net) => net.hosts().nth(1).or_else(|| net.hosts().next()).map(IpAddr::V6),
            IpNet::V4(net) => net.hosts().next().map(IpAddr::V4),
        };
        Self { prefix, gateway: CustomerIp(gateway.unwrap_or_else(|| prefix.network())) }
    }

    /// True when `ip` lies in the prefix.
    #[must_use]
    pub fn contains(&self, ip: CustomerIp) -> bool {
        self.prefix.contains(&ip.0)
    }
}

/// One route of a virtual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Where to.
    pub prefix: IpNet,
    /// How.
    pub via: NextHop,
}

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NextHop {
    /// Through another station of the network, which routes on: `10.0.0.9`.
    Ip(CustomerIp),
    /// Out of the virtual network, through the host's uplink: `gateway`.
    Gateway,
    /// Nowhere: `drop`.
    Drop,
    /// Into a peer network: `network:200`.
    Network(Vni),
}

impl FromStr for NextHop {
    type Err = TypeError;
    fn from_str(text: &str) -> Result<Self, TypeError> {
        match text {
            "gateway" => Ok(Self::Gateway),
            "drop" => Ok(Self::Drop),
            _ => match text.strip_prefix("network:") {
                Some(vni) => vni.parse().map(Self::Network),
                None => text.parse().map(Self::Ip),
            },
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Gateway => f.write_str("gateway"),
            Self::Drop => f.write_str("drop"),
            Self::Network(vni) => write!(f, "network:{vni}"),
        }
    }
}

impl TryFrom<String> for NextHop {
    type Error = TypeError;
    fn try_from(text: String) -> Result<Self, TypeError> {
        text.parse()
    }
}

impl From<NextHop> for String {
    fn from(via: NextHop) -> Self {
        via.to_string()
    }
}

/// A guest's NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// What people call it, and its interface's name.
    pub name: PortName,
    /// The virtual network it is in.
    pub network: Vni,
    /// The only source MAC address it may use.
    pub mac: MacAddr,
    /// The only source addresses it may use; DHCP hands out the first of each family.
    pub ips: Vec<CustomerIp>,
    /// What kind of device it is.
    #[serde(default)]
    pub kind: PortKind,
    /// The network namespace that the device's interface stands in: a name under /run/netns or an absolute path.
    /// Absent: the switch's own; an interface of kind [`PortKind::Netdev`] has to have one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Receive queues of the device, each read by one worker.
    #[serde(default = "one_queue", skip_serializing_if = "is_one_queue")]
    pub queues: u16,
    /// The machine name handed out by DHCP (option 12).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<DomainName>,
    /// What the metadata service is told of the port besides its name: opaque to the switch, and changed in the same step as
    /// the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// Which of its packets may pass; without rules all may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleConfig>,
}

const fn one_queue() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_one_queue(queues: &u16) -> bool {
    *queues == 1
}

/// What a port is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// A TAP device that the switch makes.
    #[default]
    Tap,
    /// An interface that a hypervisor made and holds, which the switch attaches to.
    Netdev,
}

impl PortKind {
    /// Is it a device that the switch makes?
    #[must_use]
    pub const fn is_tap(&self) -> bool {
        matches!(self, Self::Tap)
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_tap() { "tap" } else { "netdev" })
    }
}

/// How tunnelled packets look between hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// RFC 7348.
    #[default]
    Vxlan,
    /// RFC 8926.
    Geneve,
}

impl Encapsulation {
    /// The destination UDP port that IANA assigned.
    #[must_use]
    pub const fn udp_port(self) -> u16 {
        match self {
            Self::Vxlan => 4789,
            Self::Geneve => 6081,
        }
    }
}

/// This host's side of the network between hosts. Set at start, never changed while running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnderlayConfig {
    /// The addresses other hosts send to; at least one.
    pub physical_ips: Vec<PhysicalIp>,
    /// The tunnel format.
    pub encapsulation: Encapsulation,
    /// The largest outer IP packet, in bytes.
    pub mtu: Mtu,
}

impl UnderlayConfig {
    /// The largest inner IP packet that fits a tunnel of this underlay, in bytes: less the outer IP and UDP headers,
    /// the tunnel header (eight bytes, both formats) and the inner Ethernet header.
    #[must_use]
    pub fn largest_inner_mtu(&self) -> u16 {
        let ip = if self.physical_ips.iter().any(|ip| ip.0.is_ipv6()) { 40 } else { 20 };
        self.mtu.bytes().saturating_sub(ip + 8 + 8 + 14)
    }

    /// The inner MTU of a network that does not choose one: the largest that fits, at most Ethernet's 1500.
    #[must_use]
    pub fn default_inner_mtu(&self) -> u16 {
        self.largest_inner_mtu().min(Mtu::ETHERNET.bytes())
    }
}
