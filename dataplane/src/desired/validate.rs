//! What a document must fulfil before the packet path can be built from it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    ConfigError, HostConfig, NetworkConfig, NextHop, PortConfig, PortKind, RuleError, Subnet, UnderlayConfig,
};
use crate::types::{CustomerIp, Generation, MacAddr, Mtu, TypeError, Vni};

/// Below this a client would spend its life renewing.
pub(super) const MIN_LEASE_SECONDS: u32 = 5;
/// What every reader of JSON can hold exactly (2⁵³ − 1); also far from where counting on would stop.
pub(super) const LAST_GENERATION: Generation = Generation((1 << 53) - 1);
/// RFC 8200 section 5: a link that carries IPv6 takes packets of this size.
pub(super) const IPV6_MIN_MTU: u16 = 1280;
const MOST_SUBNETS: usize = 64;
const MOST_DNS: usize = 8;
const MOST_ROUTES: usize = 65_536;
const MOST_IPS: usize = 64;
const MOST_QUEUES: usize = 16;
/// A set of rules is looked up by bit sets of this many bits.
const MOST_RULES: usize = 1024;
/// Counters and devices are arrays indexed by port.
const MOST_PORTS: usize = 65_536;
const MOST_NETWORKS: usize = 65_536;

impl HostConfig {
    /// Checks everything that does not depend on this machine's state.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self, underlay: &UnderlayConfig) -> Result<(), ConfigError> {
        self.validate_generation()?;
        at_most("networks", self.networks.len(), MOST_NETWORKS, || "networks".into())?;
        at_most("ports", self.ports.len(), MOST_PORTS, || "ports".into())?;
        let mut networks = HashMap::with_capacity(self.networks.len());
        for network in &self.networks {
            if networks.insert(network.vni, network.as_ref()).is_some() {
                return Err(ConfigError::DuplicateNetwork(network.vni));
            }
        }
        for network in &self.networks {
            network.validate(underlay, &networks)?;
        }
        validate_ports(self, &networks)
    }

    pub(crate) fn validate_generation(&self) -> Result<(), ConfigError> {
        if self.generation > LAST_GENERATION {
            return Err(ConfigError::GenerationOutOfRange(self.generation));
        }
        Ok(())
    }
}

impl NetworkConfig {
    fn validate(&self, underlay: &UnderlayConfig, all: &HashMap<Vni, &Self>) -> Result<(), ConfigError> {
        let network = self.vni;
        let place = || format!("network {network}");
        at_most("prefixes", self.subnets.len(), MOST_SUBNETS, place)?;
        at_most("name servers", self.dns.len(), MOST_DNS, place)?;
        at_most("routes", self.routes.len(), MOST_ROUTES, place)?;
        if self.subnets.is_empty() {
            return Err(ConfigError::NoSubnet(network));
        }
        for (index, subnet) in self.subnets.iter().enumerate() {
            validate_subnet(*subnet, network)?;
            if let Some(other) =
                self.subnets.iter().take(index).find(|other| overlap(other.prefix, subnet.prefix))
            {
                return Err(ConfigError::OverlappingSubnets(other.prefix, subnet.prefix, network));
            }
        }
        for server in &self.dns {
            at(CustomerIp(*server).require_unicast(), || format!("network {network}, dns"))?;
        }
        if self.lease_seconds < MIN_LEASE_SECONDS {
            return Err(ConfigError::LeaseTooShort { seconds: self.lease_seconds, network });
        }
        let largest = underlay.largest_inner_mtu();
        if let Some(mtu) = self.mtu.filter(|mtu| mtu.bytes() > largest) {
            return Err(ConfigError::MtuTooLarge { mtu: mtu.bytes(), largest, network });
        }
        let mtu = self.mtu.map_or_else(|| underlay.default_inner_mtu(), Mtu::bytes);
        if mtu < IPV6_MIN_MTU && self.subnets.iter().any(|subnet| subnet.prefix.addr().is_ipv6()) {
            return Err(ConfigError::MtuTooSmallForIpv6 { mtu, network });
        }
        self.validate_routes(all)
    }

    fn validate_routes(&self, all: &HashMap<Vni, &Self>) -> Result<(), ConfigError> {
        let network = self.vni;
        let mut seen = HashMap::with_capacity(self.routes.len());
        for route in &self.routes {
            let prefix = route.prefix;
            let place = || format!("network {network}, route {prefix}");
            no_host_bits(prefix, place)?;
            if seen.insert(prefix, ()).is_some() {
                return Err(ConfigError::DuplicateRoute { prefix, network });
            }
            match route.via {
                NextHop::Ip(via) => {
                    let same_family = via.0.is_ipv4() == prefix.addr().is_ipv4();
                    if !same_family || !self.subnets.iter().any(|subnet| subnet.contains(via)) {
                        return Err(ConfigError::UnreachableNextHop { prefix, via, network });
                    }
                }
                NextHop::Network(peer) if peer == network => {
                    return Err(ConfigError::RouteToSelf { prefix, network });
                }
                NextHop::Network(peer) if !all.contains_key(&peer) => {
                    return Err(ConfigError::NoSuchNetwork { wanted: peer, place: place() });
                }
                NextHop::Network(_) | NextHop::Gateway | NextHop::Drop => {}
            }
        }
        Ok(())
    }
}

fn validate_subnet(subnet: Subnet, network: Vni) -> Result<(), ConfigError> {
    let Subnet { prefix, gateway } = subnet;
    no_host_bits(prefix, || format!("network {network}, prefix"))?;
    if prefix.prefix_len() + 2 > prefix.max_prefix_len() {
        return Err(ConfigError::SubnetTooSmall { prefix, network });
    }
    at(CustomerIp(prefix.network()).require_unicast(), || format!("network {network}, prefix"))?;
    if is_guest_address(gateway, prefix) {
        Ok(())
    } else {
        Err(ConfigError::GatewayOutside { gateway, prefix, network })
    }
}

fn validate_ports(config: &HostConfig, networks: &HashMap<Vni, &NetworkConfig>) -> Result<(), ConfigError> {
    let count = config.ports.len();
    let mut names = HashMap::with_capacity(count);
    let mut macs: HashMap<(Vni, MacAddr), &PortConfig> = HashMap::with_capacity(count);
    let mut ips: HashMap<(Vni, CustomerIp), &PortConfig> = HashMap::with_capacity(count);
    for port in config.ports.iter().map(AsRef::as_ref) {
        let network = port.network;
        let name = || port.name.clone();
        if names.insert(&port.name, ()).is_some() {
            return Err(ConfigError::DuplicatePort(name()));
        }
        let Some(vnet) = networks.get(&network) else {
            return Err(ConfigError::NoSuchNetwork {
                wanted: network,
                place: format!("port {}, network", port.name),
            });
        };
        port.validate_alone()?;
        if let Some(other) = macs.insert((network, port.mac), port) {
            return Err(ConfigError::DuplicateMac {
                mac: port.mac,
                network,
                port: name(),
                other: other.name.clone(),
            });
        }
        for &ip in &port.ips {
            port.validate_ip(ip, vnet)?;
            if let Some(other) = ips.insert((network, ip), port) {
                return Err(ConfigError::DuplicateIp {
                    ip,
                    network,
                    port: name(),
                    other: other.name.clone(),
                });
            }
        }
    }
    Ok(())
}

/// True for a name under /run/netns, or an absolute path.
pub(crate) fn is_namespace(netns: &str) -> bool {
    let name = !netns.contains('/') && !matches!(netns, "" | "." | "..");
    (name || netns.starts_with('/')) && !netns.contains('\0')
}

impl PortConfig {
    /// Everything that can be said without the other ports. `vnet` is its network.
    pub(crate) fn validate_within(&self, vnet: &NetworkConfig) -> Result<(), ConfigError> {
        self.validate_alone()?;
        self.ips.iter().try_for_each(|&ip| self.validate_ip(ip, vnet))
    }

    fn validate_ip(&self, ip: CustomerIp, vnet: &NetworkConfig) -> Result<(), ConfigError> {
        let (network, port) = (self.network, || self.name.clone());
        if vnet.subnets.iter().any(|subnet| subnet.gateway == ip) {
            return Err(ConfigError::GatewayIp { ip, network, port: port() });
        }
        if !vnet.subnets.iter().any(|subnet| is_guest_address(ip, subnet.prefix)) {
            return Err(ConfigError::IpOutside { ip, network, port: port() });
        }
        Ok(())
    }

    fn validate_alone(&self) -> Result<(), ConfigError> {
        let place = || format!("port {}", self.name);
        at_most("addresses", self.ips.len(), MOST_IPS, place)?;
        at_most("queues", self.queues.into(), MOST_QUEUES, place)?;
        if self.queues == 0 {
            return Err(ConfigError::NoQueue(self.name.clone()));
        }
        if self.kind == PortKind::Netdev && self.queues > 1 {
            return Err(ConfigError::NetdevQueues(self.name.clone()));
        }
        if self.ips.is_empty() {
            return Err(ConfigError::NoAddress(self.name.clone()));
        }
        at(self.mac.require_unicast(), || format!("port {}, mac", self.name))?;
        if self.mac == MacAddr::ROUTER {
            return Err(ConfigError::RouterMac { mac: self.mac, port: self.name.clone() });
        }
        if let Some(netns) = &self.netns
            && !is_namespace(netns)
        {
            return Err(ConfigError::Namespace { netns: netns.clone(), port: self.name.clone() });
        }
        if self.kind == PortKind::Netdev && self.netns.is_none() {
            return Err(ConfigError::NetdevExposed(self.name.clone()));
        }
        match &self.hostname {
            Some(hostname) if hostname.as_str().len() > 64 => {
                Err(ConfigError::Hostname { hostname: hostname.clone(), port: self.name.clone() })
            }
            _ => self.validate_rules(),
        }
    }

    fn validate_rules(&self) -> Result<(), ConfigError> {
        at_most("rules", self.rules.len(), MOST_RULES, || format!("port {}", self.name))?;
        let mut ids = HashSet::with_capacity(self.rules.len());
        for rule in &self.rules {
            let is_new = ids.insert(rule.id);
            let judged = if is_new { rule.validate() } else { Err(RuleError::Duplicate(rule.id)) };
            judged.map_err(|source| ConfigError::Rule { port: self.name.clone(), rule: rule.id, source })?;
        }
        Ok(())
    }
}

fn at_most(
    what: &'static str,
    count: usize,
    most: usize,
    place: impl Fn() -> String,
) -> Result<(), ConfigError> {
    if count <= most { Ok(()) } else { Err(ConfigError::TooMany { what, count, most, place: place() }) }
}

fn at<T>(checked: Result<T, TypeError>, place: impl Fn() -> String) -> Result<T, ConfigError> {
    checked.map_err(|source| ConfigError::Address { source, place: place() })
}

fn no_host_bits(prefix: IpNet, place: impl Fn() -> String) -> Result<(), ConfigError> {
    if prefix == prefix.trunc() { Ok(()) } else { Err(ConfigError::HostBits { prefix, place: place() }) }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// True when a station inside `prefix` may have the address: not the network's own, not the broadcast address.
fn is_guest_address(ip: CustomerIp, prefix: IpNet) -> bool {
    let edge = match ip.0 {
        IpAddr::V4(_) => ip.0 == prefix.network() || ip.0 == prefix.broadcast(),
        IpAddr::V6(_) => ip.0 == prefix.network(),
    };
    prefix.contains(&ip.0) && !edge && ip.require_unicast().is_ok()
}

#[cfg(test)]
mod tests;
