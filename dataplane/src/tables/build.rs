//! [`HostConfig`] + the tables before → the tables after. Pure, and cheap where nothing changed: parts whose document is
//! the same are shared, slots stay where they are, counters live on.

mod in_place;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::{
    AddressSet, Addresses, Guard, Hop, Lease, Port, Progress, RouterAdvertisement, Routes, RuleSet, Tables,
    Vnet, VnetIndex,
};
use crate::conntrack::Connections;
use crate::desired::{ConfigError, HostConfig, NetworkConfig, NextHop, PortConfig, UnderlayConfig};
use crate::stats::Counters;
use crate::types::{Generation, MacAddr, Mtu, PortId, Vni};

impl Tables {
    /// The tables of a switch that holds nothing yet, counting for so many workers. `secret` is the process's own: hashes
    /// of what guests choose are made with it.
    #[must_use]
    pub fn empty(underlay: Arc<UnderlayConfig>, workers: usize, secret: u64) -> Self {
        Self {
            has_endpoint: false,
            secret,
            generation: Generation::default(),
            own: underlay.physical_ips.iter().map(|ip| ip.0).collect(),
            underlay,
            underlay_counters: Counters::new(workers),
            ports: Vec::new(),
            vnets: Vec::new(),
            by_vni: Arc::default(),
            by_name: Arc::default(),
            order: Arc::default(),
        }
    }

    /// Builds the successor of `self` for `config`, validating it first.
    ///
    /// # Errors
    /// What [`HostConfig::validate`] finds.
    pub fn succeed(&self, config: &HostConfig, workers: usize) -> Result<Self, ConfigError> {
        if let Some(next) = self.succeed_in_place(config, workers) {
            return Ok(next);
        }
        config.validate(&self.underlay)?;
        Ok(self.succeed_any(config, workers))
    }

    /// The same for a valid document, whatever it has in common with the one before.
    fn succeed_any(&self, config: &HostConfig, workers: usize) -> Self {
        let (vnets, by_vni) = self.place_vnets(config);
        let mut next = Self {
            generation: config.generation,
            underlay: self.underlay.clone(),
            underlay_counters: self.underlay_counters.clone(),
            has_endpoint: self.has_endpoint,
            secret: self.secret,
            own: self.own.clone(),
            ports: self.ports.iter().map(|_| None).collect(),
            vnets: Vec::new(),
            by_vni: Arc::new(by_vni),
            by_name: Arc::default(),
            order: Arc::default(),
        };
        let mut by_name = HashMap::with_capacity_and_hasher(config.ports.len(), FixedState::default());
        let mut addresses: Vec<Addresses> = vnets.iter().map(|_| Addresses::default()).collect();
        for (id, port) in self.place_ports(config) {
            let Some(&vnet) = next.by_vni.get(&port.network) else { continue };
            let Some(network) = vnets.get(vnet.0 as usize).and_then(Option::as_ref) else { continue };
            if let Some(addresses) = addresses.get_mut(vnet.0 as usize) {
                // Free, in a valid document.
                let _ = addresses.insert(port, id);
            }
            by_name.insert(port.name.clone(), id);
            let built = self.succeed_port(id, port, network, vnet, config, workers);
            if next.ports.len() <= id.index() {
                next.ports.resize(id.index() + 1, None);
            }
            if let Some(slot) = next.ports.get_mut(id.index()) {
                *slot = Some(built);
            }
        }
        next.order = config.ports.iter().filter_map(|port| by_name.get(&port.name).copied()).collect();
        next.by_name = Arc::new(by_name);
        next.vnets = vnets
            .into_iter()
            .zip(addresses)
            .map(|(network, addresses)| network.map(|network| self.succeed_vnet(network, addresses)))
            .collect();
        next
    }

    /// Networks keep their slots; new ones fill gaps.
    #[expect(clippy::type_complexity, reason = "slots and the index into them, used once")]
    fn place_vnets<'c>(
        &self,
        config: &'c HostConfig,
    ) -> (Vec<Option<&'c Arc<NetworkConfig>>>, HashMap<Vni, VnetIndex, FixedState>) {
        let mut slots: Vec<Option<&Arc<NetworkConfig>>> = self.vnets.iter().map(|_| None).collect();
        let mut by_vni = HashMap::with_capacity_and_hasher(config.networks.len(), FixedState::default());
        let (known, new): (Vec<_>, Vec<_>) =
            config.networks.iter().partition(|n| self.by_vni.contains_key(&n.vni));
        for network in known {
            if let Some(&index) = self.by_vni.get(&network.vni) {
                if let Some(slot) = slots.get_mut(index.0 as usize) {
                    *slot = Some(network);
                }
                by_vni.insert(network.vni, index);
            }
        }
        for (index, network) in fill(&mut slots, new) {
            by_vni.insert(network.vni, VnetIndex(index));
        }
        (slots, by_vni)
    }

    /// Ports keep their slots; new ones fill gaps.
    fn place_ports<'c>(&self, config: &'c HostConfig) -> Vec<(PortId, &'c Arc<PortConfig>)> {
        let mut slots: Vec<Option<&Arc<PortConfig>>> = self.ports.iter().map(|_| None).collect();
        let mut placed = Vec::with_capacity(config.ports.len());
        let mut new = Vec::new();
        for port in &config.ports {
            match self.by_name.get(&port.name) {
                Some(&id) => {
                    if let Some(slot) = slots.get_mut(id.index()) {
                        *slot = Some(port);
                    }
                    placed.push((id, port));
                }
                None => new.push(port),
            }
        }
        placed.extend(fill(&mut slots, new).into_iter().map(|(index, port)| (PortId(index), port)));
        placed
    }

    fn succeed_port(
        &self,
        id: PortId,
        port: &Arc<PortConfig>,
        network: &Arc<NetworkConfig>,
        vnet: VnetIndex,
        config: &HostConfig,
        workers: usize,
    ) -> Arc<Port> {
        let before = self.port(id).filter(|before| before.config.name == port.name);
        let network_before = before.and_then(|before| self.vnet(before.vnet));
        if let (Some(before), Some(network_before)) = (before, network_before)
            && same(&before.config, port)
            && same(&network_before.config, network)
            && before.vnet == vnet
        {
            return before.clone();
        }
        // Where the binding is as it was (say, only a name server changed), the guest's frames stay valid.
        let bound = before.filter(|before| {
            before.vni == port.network && before.mac == port.mac && before.config.ips == port.ips
        });
        Arc::new(Port {
            id,
            config: port.clone(),
            vnet,
            vni: port.network,
            mac: port.mac,
            ips: port.ips.iter().map(|ip| ip.0).collect(),
            epoch: bound.map_or(config.generation, |before| before.epoch),
            lease: Lease::of(port, network, self.mtu_of(network)),
            guard: self.guard(before, bound, port, config.generation, workers),
            counters: before.map_or_else(|| Counters::new(workers), |before| before.counters.clone()),
            bounds: before.map_or_else(Arc::default, |before| before.bounds.clone()),
            progress: bound.map_or_else(|| Arc::new(Progress::default()), |before| before.progress.clone()),
        })
    }

    /// Rules follow the port; connections stay while it is bound as before.
    fn guard(
        &self,
        before: Option<&Arc<Port>>,
        bound: Option<&Arc<Port>>,
        port: &PortConfig,
        generation: Generation,
        workers: usize,
    ) -> Option<Guard> {
        let unchanged = before.is_some_and(|before| before.config.rules == port.rules);
        let rules_before = before.and_then(|before| before.guard.as_ref()).map(|guard| &guard.rules);
        let rules = RuleSet::succeed(rules_before, unchanged, port, generation, workers)?;
        let kept = bound.and_then(|bound| bound.guard.as_ref()).map(|guard| guard.connections.clone());
        let connections = kept.unwrap_or_else(|| Arc::new(Connections::new(self.secret)));
        Some(Guard { rules, connections })
    }

    fn succeed_vnet(&self, network: &Arc<NetworkConfig>, addresses: Addresses) -> Arc<Vnet> {
        let before = self.vnet_of(network.vni).filter(|before| same(&before.config, network));
        match before {
            Some(before) if before.addresses == addresses => before.clone(),
            _ => self.vnet_with(network, before, addresses),
        }
    }

    /// `before` has the same configuration.
    fn vnet_with(
        &self,
        network: &Arc<NetworkConfig>,
        before: Option<&Arc<Vnet>>,
        addresses: Addresses,
    ) -> Arc<Vnet> {
        let mtu = self.mtu_of(network);
        Arc::new(Vnet {
            config: network.clone(),
            vni: network.vni,
            mtu,
            routes: before.map_or_else(|| routes(network), |before| before.routes.clone()),
            router_advertisement: RouterAdvertisement::of(network, mtu),
            addresses,
            gateways: gateways(network),
        })
    }

    fn mtu_of(&self, network: &NetworkConfig) -> Mtu {
        network.mtu.or_else(|| Mtu::new(self.underlay.default_inner_mtu()).ok()).unwrap_or(Mtu::MIN)
    }
}

/// Same allocation, or same content.
fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn gateways(network: &NetworkConfig) -> AddressSet {
    let link_local = IpAddr::V6(MacAddr::ROUTER.link_local());
    network.subnets.iter().map(|subnet| subnet.gateway.0).chain([link_local]).collect()
}

fn routes(network: &NetworkConfig) -> Routes {
    let on_link = network.subnets.iter().map(|subnet| (subnet.prefix, Hop::OnLink));
    let beyond = network.routes.iter().map(|route| {
        let hop = match route.via {
            NextHop::Ip(ip) => Hop::Via(ip),
            NextHop::Gateway => Hop::Uplink,
            NextHop::Drop => Hop::Drop,
            NextHop::Network(vni) => Hop::Peer(vni),
        };
        (route.prefix, hop)
    });
    // A network's own prefix wins over a route to the very same prefix.
    Routes::build(beyond.chain(on_link))
}

/// Puts `new` into the gaps of `slots`, then behind them; returns the slots taken.
fn fill<T: Copy>(slots: &mut Vec<Option<T>>, new: Vec<T>) -> Vec<(u32, T)> {
    let mut placed = Vec::with_capacity(new.len());
    let mut at = 0;
    for item in new {
        while slots.get(at).is_some_and(Option::is_some) {
            at += 1;
        }
        match slots.get_mut(at) {
            Some(slot) => *slot = Some(item),
            None => slots.push(Some(item)),
        }
        // `validate` bounds both kinds of slots far below 2³².
        placed.push((u32::try_from(at).unwrap_or(u32::MAX), item));
    }
    placed
}

#[cfg(test)]
mod tests;
