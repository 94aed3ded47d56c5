//! What the switch tells a guest about its address: the DHCPv4 lease and the IPv6 router advertisement, computed once
//! per change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::desired::{DomainName, NetworkConfig, PortConfig};
use crate::types::Mtu;

/// Where the platform's metadata service answers, in every network.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Where the platform's wireserver answers, in every network; also told in option 245.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// A DHCPv4 lease: everything that an offer or acknowledgement carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Its prefix's length in bits.
    pub prefix_len: u8,
    /// The default gateway, which is also the DHCP server's identifier.
    pub gateway: Ipv4Addr,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// DNS domain.
    pub domain: Option<DomainName>,
    /// Machine name.
    pub hostname: Option<DomainName>,
    /// The inner MTU.
    pub mtu: Mtu,
    /// Option 121, default route included: clients that see it ignore option 3 (RFC 3442).
    pub classless_routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Lease time in seconds.
    pub seconds: u32,
    /// Renewal (T1) in seconds: half of the lease (RFC 2131 section 4.4.5).
    pub renew_seconds: u32,
    /// Rebinding (T2) in seconds: seven eighths of the lease.
    pub rebind_seconds: u32,
}

impl Lease {
    /// The lease of a port; `None` when it has no IPv4 address inside one of its network's prefixes.
    pub(super) fn of(port: &PortConfig, network: &NetworkConfig, mtu: Mtu) -> Option<Self> {
        let (address, prefix, gateway) = port.ips.iter().find_map(|&ip| {
            let subnet = network.subnets.iter().find(|subnet| subnet.contains(ip))?;
            match (ip.0, subnet.prefix, subnet.gateway.0) {
                (IpAddr::V4(address), IpNet::V4(prefix), IpAddr::V4(gateway)) => {
                    Some((address, prefix, gateway))
                }
                _ => None,
            }
        })?;
        let others = network.subnets.iter().filter_map(|subnet| match subnet.prefix {
            IpNet::V4(other) if other != prefix => Some((other, gateway)),
            _ => None,
        });
        let classless_routes = [Ipv4Net::default(), Ipv4Net::from(WIRESERVER), Ipv4Net::from(METADATA)]
            .into_iter()
            .map(|to| (to, gateway))
            .chain(others)
            .collect();
        Some(Self {
            address,
            prefix_len: prefix.prefix_len(),
            gateway,
            dns: network
                .dns
                .iter()
                .filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None })
                .collect(),
            domain: network.domain.clone(),
            hostname: port.hostname.clone(),
            mtu,
            classless_routes,
            seconds: network.lease_seconds,
            renew_seconds: network.lease_seconds / 2,
            // Also of the shortest lease: T2 comes before its end.
            rebind_seconds: network.lease_seconds - (network.lease_seconds / 8).max(1),
        })
    }
}

/// What a router advertisement (RFC 4861 section 4.2) of a network says. Addresses are the switch's to give: prefixes
/// are on-link, never autonomous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// On-link prefixes.
    pub prefixes: Vec<Ipv6Net>,
    /// Recursive DNS servers (RFC 8106).
    pub dns: Vec<Ipv6Addr>,
    /// The inner MTU.
    pub mtu: Mtu,
    /// How long the default route lasts, in seconds.
    pub router_lifetime_seconds: u16,
}

/// RFC 4861 section 6.2.1: no more than 9000 seconds.
const LONGEST_ROUTER_LIFETIME: u16 = 9000;

impl RouterAdvertisement {
    pub(super) fn of(network: &NetworkConfig, mtu: Mtu) -> Option<Self> {
        let prefixes: Vec<_> = network
            .subnets
            .iter()
            .filter_map(|subnet| if let IpNet::V6(prefix) = subnet.prefix { Some(prefix) } else { None })
            .collect();
        let dns = network
            .dns
            .iter()
            .filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None })
            .collect();
        let lifetime = u16::try_from(network.lease_seconds)
            .unwrap_or(LONGEST_ROUTER_LIFETIME)
            .min(LONGEST_ROUTER_LIFETIME);
        (!prefixes.is_empty()).then_some(Self { prefixes, dns, mtu, router_lifetime_seconds: lifetime })
    }
}
