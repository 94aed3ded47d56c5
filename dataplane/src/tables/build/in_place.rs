//! The successor for a document that differs from the one before in what some of its ports are: a move, above all. What
//! it costs goes by what changed, but for one look at each port to see that it did not.
//!
//! This is a short cut and no judge: anything else than such a change, and anything wrong, is left to the full walk, which
//! knows the names of all that can be wrong. The parts of the tables before are valid, so only the changed ports are
//! looked at: each by itself, within its network, and against the owners of its addresses.

use std::sync::Arc;

use super::super::{Addresses, Port, Tables, VnetIndex};
use super::same;
use crate::desired::{HostConfig, PortConfig};

/// A port's present form and the configuration that it gets.
type Changed<'t> = (&'t Arc<Port>, &'t Arc<PortConfig>);

impl Tables {
    /// `None` is no verdict on the document.
    pub(super) fn succeed_in_place(&self, config: &HostConfig, workers: usize) -> Option<Self> {
        config.validate_generation().ok()?;
        if !self.has_networks_of(config) {
            return None;
        }
        let changed = self.changed_ports(config)?;
        let addresses = self.with_addresses_of(&changed)?;
        let mut next = Self {
            generation: config.generation,
            underlay: self.underlay.clone(),
            underlay_counters: self.underlay_counters.clone(),
            has_endpoint: self.has_endpoint,
            secret: self.secret,
            own: self.own.clone(),
            ports: self.ports.clone(),
            vnets: self.vnets.clone(),
            by_vni: self.by_vni.clone(),
            by_name: self.by_name.clone(),
            order: self.order.clone(),
        };
        for (before, port) in changed {
            let vnet = *self.by_vni.get(&port.network)?;
            let network = &self.vnet(vnet)?.config;
            let built = self.succeed_port(before.id, port, network, vnet, config, workers);
            *next.ports.get_mut(before.id.index())? = Some(built);
        }
        for (index, addresses) in addresses {
            let before = self.vnet(index)?;
            let built = self.vnet_with(&before.config, Some(before), addresses);
            *next.vnets.get_mut(index.0 as usize)? = Some(built);
        }
        Some(next)
    }

    fn has_networks_of(&self, config: &HostConfig) -> bool {
        // As many, each of them one of those, and none of them twice: the same ones.
        let mut seen = vec![false; self.vnets.len()];
        self.by_vni.len() == config.networks.len()
            && config.networks.iter().all(|network| {
                let index = self.by_vni.get(&network.vni).copied();
                let is_first = index
                    .and_then(|index| seen.get_mut(index.0 as usize))
                    .is_some_and(|seen| !std::mem::replace(seen, true));
                is_first && self.vnet_of(network.vni).is_some_and(|before| same(&before.config, network))
            })
    }

    /// `None` when the document's ports are not the same ones, in the same order.
    fn changed_ports<'t>(&'t self, config: &'t HostConfig) -> Option<Vec<Changed<'t>>> {
        if config.ports.len() != self.order.len() {
            return None;
        }
        let mut changed = Vec::new();
        for (port, &id) in config.ports.iter().zip(&*self.order) {
            let before = self.port(id)?;
            if same(&before.config, port) {
                continue;
            }
            if before.config.name != port.name {
                return None;
            }
            changed.push((before, port));
        }
        Some(changed)
    }

    /// The addresses of the networks whose ports' addresses change. `None` when a changed port may not be so.
    fn with_addresses_of(&self, changed: &[Changed<'_>]) -> Option<Vec<(VnetIndex, Addresses)>> {
        let rebound = || changed.iter().filter(|(before, port)| !is_bound_so(&before.config, port));
        let mut edited = Vec::new();
        for (before, _) in rebound() {
            self.edit(&mut edited, before.vnet)?.remove(&before.config);
        }
        for (before, port) in rebound() {
            let vnet = *self.by_vni.get(&port.network)?;
            if !self.edit(&mut edited, vnet)?.insert(port, before.id) {
                return None;
            }
        }
        for (_, port) in changed {
            port.validate_within(&self.vnet_of(port.network)?.config).ok()?;
        }
        Some(edited)
    }

    fn edit<'e>(
        &self,
        edited: &'e mut Vec<(VnetIndex, Addresses)>,
        index: VnetIndex,
    ) -> Option<&'e mut Addresses> {
        let at = match edited.iter().position(|(other, _)| *other == index) {
            Some(at) => at,
            None => {
                edited.push((index, self.vnet(index)?.addresses.clone()));
                edited.len() - 1
            }
        };
        edited.get_mut(at).map(|(_, addresses)| addresses)
    }
}

fn is_bound_so(before: &PortConfig, port: &PortConfig) -> bool {
    (before.network, before.mac, &before.ips) == (port.network, port.mac, &port.ips)
}
