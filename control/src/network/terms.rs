//! Networks, machines and directory entries in a switch's terms: what hosts are told.

use std::net::IpAddr;

use dataplane::desired::{Action, Direction, NetworkConfig, RuleConfig, RuleId, RuleProtocol};
use dataplane::types::{CustomerIp, Vni};
use ipnet::IpNet;

use super::{DirectoryEntry, NetworkError, keys, vnet};
use crate::model::{Binding, GuestNetwork, Moniker, Network, Nic, Remote, Vm};
use crate::store::Store;
use crate::store::rows;

/// The priority of the rules that isolate a machine: before all of its owner's.
const ISOLATION_PRIORITY: u16 = 0;

/// A machine's interface in a switch's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmTerms {
    /// Its network on the wire.
    pub vni: Vni,
    /// Its rules.
    pub rules: Vec<RuleConfig>,
    /// What its guest is told of the network.
    pub network: GuestNetwork,
}

/// A network as switches want it.
///
/// # Errors
/// `NoSuchNetwork`, or the store's.
pub async fn network_terms(store: &dyn Store, moniker: &Moniker) -> Result<NetworkConfig, NetworkError> {
    let vni = vnet::vnet(store, moniker).await?.row.vni;
    let network = vnet::by_moniker(store, moniker).await?;
    Ok(NetworkConfig {
        vni,
        subnets: network.subnets,
        dns: network.dns,
        domain: network.domain,
        mtu: network.mtu,
        lease_seconds: network.lease_seconds,
        routes: Vec::new(),
    })
}

/// A machine's interface as switches want it. `address_of` says where a machine that rules name is now.
///
/// # Errors
/// `NoSuchNetwork`, or the store's.
pub async fn vm_terms(
    store: &dyn Store,
    vm: &Vm,
    nic: &Nic,
    peers: &[(crate::model::VmId, Binding)],
) -> Result<VmTerms, NetworkError> {
    let moniker = &nic.binding.network;
    let vni = vnet::vnet(store, moniker).await?.row.vni;
    let network = vnet::by_moniker(store, moniker).await?;
    let rules = if network.isolated { isolation() } else { rules(vm, moniker, peers) };
    Ok(VmTerms { vni, rules, network: told(&network, &nic.binding.addresses) })
}

/// The rules of a machine that reaches nobody and that nobody reaches. Its metadata service is not subject to rules.
fn isolation() -> Vec<RuleConfig> {
    let deny = |(id, direction)| RuleConfig {
        id: RuleId(id),
        direction,
        action: Action::Deny,
        protocol: RuleProtocol::Any,
        remote: None,
        ports: None,
        icmp_type: None,
        priority: ISOLATION_PRIORITY,
    };
    [(1, Direction::In), (2, Direction::Out)].map(deny).to_vec()
}

/// A machine's rules; one about another machine becomes one about each of its addresses, and none where that machine is in
/// another network, for there is no way between them.
fn rules(vm: &Vm, moniker: &Moniker, peers: &[(crate::model::VmId, Binding)]) -> Vec<RuleConfig> {
    let mut all = Vec::new();
    for rule in &vm.rules {
        let remotes: Vec<Option<IpNet>> = match rule.remote {
            Remote::Any => vec![None],
            Remote::Prefix(prefix) => vec![Some(prefix)],
            Remote::Vm(peer) => {
                let bindings =
                    peers.iter().filter(|(id, binding)| *id == peer && binding.network == *moniker);
                let addresses = bindings.flat_map(|(_, binding)| &binding.addresses);
                addresses.map(|ip| Some(IpNet::from(ip.0))).collect()
            }
        };
        for remote in remotes {
            // A rule that became several needs several ids; those are nobody's business but the switch's.
            let id = u32::try_from(all.len()).map_or(u32::MAX, |count| count + 1);
            all.push(RuleConfig {
                id: RuleId(id),
                direction: rule.direction,
                action: rule.action,
                protocol: rule.protocol,
                remote,
                ports: rule.ports,
                icmp_type: rule.icmp_type,
                priority: rule.priority,
            });
        }
    }
    all
}

fn told(network: &Network, addresses: &[CustomerIp]) -> GuestNetwork {
    let subnet_of = |ip: &CustomerIp| network.subnets.iter().find(|subnet| subnet.contains(*ip));
    let with_length = |ip: &CustomerIp| {
        let length =
            subnet_of(ip).map_or(if ip.0.is_ipv4() { 32 } else { 128 }, |subnet| subnet.prefix.prefix_len());
        IpNet::new(ip.0, length).unwrap_or_else(|_| IpNet::from(ip.0))
    };
    GuestNetwork {
        addresses: addresses.iter().map(with_length).collect(),
        gateways: addresses.iter().filter_map(subnet_of).map(|subnet| subnet.gateway).collect(),
        dns: network.dns.clone(),
        domain: network.domain.as_ref().map(ToString::to_string),
    }
}

/// Where an address of a network is.
///
/// # Errors
/// The store's.
pub async fn directory_entry(
    store: &dyn Store,
    moniker: &Moniker,
    ip: IpAddr,
) -> Result<Option<DirectoryEntry>, NetworkError> {
    let entry = rows::load::<DirectoryEntry>(store, &keys::directory(moniker, CustomerIp(ip))?).await?;
    Ok(entry.map(|entry| entry.row))
}
