//! Longest prefix match. A network with a handful of routes (nearly all of them) is scanned, which beats any tree; one
//! with many is looked up in a tree bitmap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::types::{CustomerIp, Vni};

/// Up to so many routes are scanned, longest prefix first.
const SCANNED: usize = 8;

/// What the longest matching route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// The destination is a station of this network: ask for its own address.
    OnLink,
    /// Ask for this station instead.
    Via(CustomerIp),
    /// Out through the host's uplink.
    Uplink,
    /// Into the peer network.
    Peer(Vni),
    /// Nowhere.
    Drop,
}

/// One network's routes, both families; immutable once built.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    v4: Family<PrefixMap<Ipv4Net, Hop>, u32>,
    v6: Family<PrefixMap<Ipv6Net, Hop>, u128>,
}

#[derive(Debug, Clone)]
enum Family<Map, Bits> {
    /// (mask, network, hop), longest mask first.
    Scan(Vec<(Bits, Bits, Hop)>),
    Tree(Map),
}

impl<Map, Bits> Default for Family<Map, Bits> {
    fn default() -> Self {
        Self::Scan(Vec::new())
    }
}

impl Routes {
    /// Builds from (prefix, hop) pairs; of two pairs with one prefix the later one counts.
    #[must_use]
    pub fn build(routes: impl IntoIterator<Item = (IpNet, Hop)>) -> Self {
        let mut v4 = PrefixMap::<Ipv4Net, Hop>::new();
        let mut v6 = PrefixMap::<Ipv6Net, Hop>::new();
        for (prefix, hop) in routes {
            match prefix {
                IpNet::V4(net) => drop(v4.insert(net, hop)),
                IpNet::V6(net) => drop(v6.insert(net, hop)),
            }
        }
        let v4 = if v4.len() > SCANNED {
            Family::Tree(v4)
        } else {
            scan(v4.iter().map(|(net, &hop)| (net.netmask().to_bits(), net.network().to_bits(), hop)))
        };
        let v6 = if v6.len() > SCANNED {
            Family::Tree(v6)
        } else {
            scan(v6.iter().map(|(net, &hop)| (net.netmask().to_bits(), net.network().to_bits(), hop)))
        };
        Self { v4, v6 }
    }

    /// The hop of the longest prefix that covers `destination`.
    #[must_use]
    #[inline(always)]
    pub fn lookup(&self, destination: CustomerIp) -> Option<&Hop> {
        match destination.0 {
            IpAddr::V4(ip) => self.lookup_v4(ip),
            IpAddr::V6(ip) => self.lookup_v6(ip),
        }
    }

    #[inline(always)]
    fn lookup_v4(&self, ip: Ipv4Addr) -> Option<&Hop> {
        match &self.v4 {
            Family::Scan(routes) => {
                let bits = ip.to_bits();
                routes.iter().find(|(mask, net, _)| bits & mask == *net).map(|(_, _, hop)| hop)
            }
            Family::Tree(routes) => search_v4(routes, ip),
        }
    }

    #[inline]
    fn lookup_v6(&self, ip: Ipv6Addr) -> Option<&Hop> {
        match &self.v6 {
            Family::Scan(routes) => {
                let bits = ip.to_bits();
                routes.iter().find(|(mask, net, _)| bits & mask == *net).map(|(_, _, hop)| hop)
            }
            Family::Tree(routes) => search_v6(routes, ip),
        }
    }
}

// Out of the way of the scan, which is small enough to stand where it is used.
#[inline(never)]
fn search_v4(routes: &PrefixMap<Ipv4Net, Hop>, ip: Ipv4Addr) -> Option<&Hop> {
    routes.get_lpm(&Ipv4Net::from(ip)).map(|(_, hop)| hop)
}

#[inline(never)]
fn search_v6(routes: &PrefixMap<Ipv6Net, Hop>, ip: Ipv6Addr) -> Option<&Hop> {
    routes.get_lpm(&Ipv6Net::from(ip)).map(|(_, hop)| hop)
}

/// A longer mask is a larger number, so descending order is longest first.
fn scan<Map, Bits: Ord + Copy>(routes: impl Iterator<Item = (Bits, Bits, Hop)>) -> Family<Map, Bits> {
    let mut routes: Vec<_> = routes.collect();
    routes.sort_unstable_by_key(|&(mask, net, _)| std::cmp::Reverse((mask, net)));
    Family::Scan(routes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hop(n: usize) -> Hop {
        Hop::Via(CustomerIp::from(Ipv4Addr::from_bits(u32::try_from(n).unwrap())))
    }

    #[test]
    fn the_default_route_is_the_shortest() {
        let routes = Routes::build([
            ("0.0.0.0/0".parse().unwrap(), hop(0)),
            ("10.0.0.0/8".parse().unwrap(), hop(8)),
            ("10.0.0.0/24".parse().unwrap(), Hop::OnLink),
            ("fd00::/64".parse().unwrap(), Hop::Drop),
        ]);
        let at = |text: &str| routes.lookup(text.parse().unwrap()).copied();
        assert_eq!(at("10.0.0.7"), Some(Hop::OnLink));
        assert_eq!(at("10.1.0.7"), Some(hop(8)));
        assert_eq!(at("192.0.2.1"), Some(hop(0)));
        assert_eq!(at("fd00::9"), Some(Hop::Drop));
        assert_eq!(at("fd01::9"), None);
    }

    proptest! {
        /// Scan and tree give what a look at every route gives.
        #[test]
        fn longest_prefix_wins(nets in prop::collection::vec((any::<u8>(), 0u8..=32), 0..40), probes in prop::collection::vec(any::<u32>(), 20)) {
            // Few distinct leading octets, so that prefixes nest.
            let nets: Vec<Ipv4Net> = nets.iter().map(|&(octet, length)| {
                Ipv4Net::new(Ipv4Addr::new(10, octet & 3, octet & 7, octet), length).unwrap().trunc()
            }).collect();
            let routes = Routes::build(nets.iter().enumerate().map(|(n, &net)| (IpNet::V4(net), hop(n))));
            for probe in probes {
                let ip = Ipv4Addr::from_bits(0x0a00_0000 | probe & 0x0003_07ff);
                let expected = nets.iter().enumerate().filter(|(_, net)| net.contains(&ip))
                    .max_by_key(|&(n, net)| (net.prefix_len(), n)).map(|(n, _)| hop(n));
                prop_assert_eq!(routes.lookup(CustomerIp::from(ip)).copied(), expected);
            }
        }
    }
}
