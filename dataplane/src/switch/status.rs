//! How the switch and its ports are doing.

use std::sync::Arc;
use std::time::SystemTime;

use super::change::Record;
use super::{Switch, lock};
use crate::conntrack::Count;
use crate::desired::{PortConfig, PortName, RuleConfig};
use crate::stats::Totals;
use crate::types::{Generation, Nanos};

/// A port as it is now.
#[derive(Debug, Clone)]
pub struct PortStatus {
    /// As desired.
    pub config: Arc<PortConfig>,
    /// The generation that its binding is of.
    pub epoch: Generation,
    /// False while a bounce holds the link down, and for a port whose interface could not be had.
    pub link_up: bool,
    /// True for a port whose interface could not be had, or was removed by somebody else.
    pub is_missing: bool,
    /// The last change of its binding since the switch started.
    pub last_change: Option<LastChange>,
    /// How many connections its rules are following; `None` without rules.
    pub connections: Option<Count>,
    /// Its counters.
    pub totals: Totals,
}

/// A rule as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStatus {
    /// Its port.
    pub port: PortName,
    /// As desired.
    pub config: RuleConfig,
    /// How often it was the first that matched.
    pub hits: u64,
}

/// A change of a port's binding, and how far the guest has followed it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastChange {
    /// The document's.
    pub generation: Generation,
    /// When the change arrived.
    pub at: SystemTime,
    /// See [`super::Change::swap_ns`].
    pub swap_ns: u64,
    /// See [`super::Change::settled_ns`].
    pub settled_ns: u64,
    /// Change → the guest was sent its lease.
    pub lease_ms: Option<f64>,
    /// Change → first packet from the new address.
    pub first_packet_ms: Option<f64>,
}

impl Record {
    fn tell(&self) -> LastChange {
        let since = |at: Nanos| at.0.saturating_sub(self.received.0) as f64 / 1e6;
        LastChange {
            generation: self.change.generation,
            at: self.at,
            swap_ns: self.change.swap_ns,
            settled_ns: self.change.settled_ns,
            lease_ms: self.progress.lease_at().map(since),
            first_packet_ms: self.progress.first_packet_at().map(since),
        }
    }
}

impl Switch {
    /// One port.
    #[must_use]
    pub fn port_status(&self, name: &PortName) -> Option<PortStatus> {
        let last_change = lock(&self.desired).last_changes.get(name).map(Record::tell);
        let plane = self.publisher.current();
        let port = plane.tables.port_named(name)?;
        Some(PortStatus {
            config: port.config.clone(),
            epoch: port.epoch,
            link_up: plane.device(port.id).is_some_and(|device| !device.is_gone())
                && !self.bouncer.is_down(name),
            is_missing: plane.device(port.id).is_none_or(|device| device.is_gone()),
            last_change,
            connections: port.guard.as_ref().map(|guard| guard.connections.count(self.clock.now())),
            totals: port.counters.sum(),
        })
    }

    /// The rules of one port or of all, in the order in which they are judged; `None` if the port does not exist.
    #[must_use]
    pub fn rules(&self, port: Option<&PortName>) -> Option<Vec<RuleStatus>> {
        let plane = self.publisher.current();
        if let Some(name) = port {
            plane.tables.port_named(name)?;
        }
        let wanted = plane.tables.ports().filter(|known| port.is_none_or(|name| known.config.name == *name));
        let rules = wanted.flat_map(|port| {
            let mut rules = port.config.rules.clone();
            rules.sort_by_key(|rule| (rule.direction, rule.priority, rule.id));
            rules.into_iter().map(|config| RuleStatus {
                port: port.config.name.clone(),
                config,
                hits: port
                    .guard
                    .as_ref()
                    .and_then(|guard| guard.rules.hits(&config))
                    .map_or(0, |hits| hits.sum()),
            })
        });
        Some(rules.collect())
    }

    /// The counters of each port, and of what belongs to none.
    #[must_use]
    pub fn totals(&self) -> (Vec<(PortName, Totals)>, Totals) {
        let plane = self.publisher.current();
        let ports =
            plane.tables.ports().map(|port| (port.config.name.clone(), port.counters.sum())).collect();
        (ports, plane.tables.underlay_counters.sum())
    }
}
