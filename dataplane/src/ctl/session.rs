//! One connection's questions and their answers. Every call may block: on the disk, on the workers' batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::protocol::{
    BounceOrder, ChangeDetail, Changed, ConnectionCount, Counted, DropCount, Drops, Entries, Followed,
    LARGEST_PAGE, Link, Moved, NetworkDetail, Networks, PortDetail, PortSummary, PortTraffic, Ports, Refusal,
    Request, Response, RouteDetail, Routes, Stats, Traffic, Wait,
};
use super::timestamp::rfc3339;
use crate::conntrack::Count;
use crate::desired::{HostConfig, NetworkConfig, PortName};
use crate::stats::Totals;
use crate::switch::{Bounce, Change, LastChange, Mapping, Place, PortStatus, Switch, SwitchError};
use crate::types::{Generation, Vni};

/// A guest that has not noticed after a minute will not notice.
const LONGEST_HOLD_MS: u64 = 60_000;
/// More staged entries than this are refused: they wait in memory.
const MOST_STAGED: usize = 1 << 24;

/// The server's side of a connection.
pub(super) struct Session {
    pub(super) switch: Arc<Switch>,
    /// What `directory_stage` brought, waiting for `directory_commit`. Gone with the connection.
    staged: Vec<Mapping>,
}

/// What to do with a line.
pub(super) enum Answer {
    /// Send this line.
    Line(String),
    /// Send what [`Follow::progress`] says when it has something to say, or [`Follow::overdue`] when time is up.
    Later(Follow),
}

/// A move whose caller waits for the guest.
pub(super) struct Follow {
    moved: Moved,
    wait: Wait,
    pub(super) timeout_ms: u64,
}

pub(super) type Reply = Result<String, Refusal>;

impl Session {
    pub(super) const fn new(switch: Arc<Switch>) -> Self {
        Self { switch, staged: Vec::new() }
    }

    /// Answers one line.
    pub(super) fn answer(&mut self, line: &str) -> Answer {
        let request = match serde_json::from_str::<Request>(line) {
            Ok(request) => request,
            Err(error) => {
                return Answer::Line(refused(Refusal {
                    what: format!("the request is not understood: {error}"),
                    place: "request".into(),
                    remedy: "docs/PROTOCOLS.md lists the verbs and their fields".into(),
                }));
            }
        };
        let reply = match request {
            Request::PortMove { port, bounce: BounceOrder::HoldMs(hold), .. } if hold > LONGEST_HOLD_MS => {
                Err(Refusal {
                    what: format!("a hold of {hold} ms is too long: at most {LONGEST_HOLD_MS}"),
                    place: format!("port {port}, hold_ms"),
                    remedy:
                        "a guest notices within 2 s; take the link down by other means if it shall stay down"
                            .into(),
                })
            }
            Request::PortMove { port, network, ips, rules, label, bounce, wait, timeout_ms } => {
                let bounce = match bounce {
                    BounceOrder::Adaptive => Bounce::Adaptive,
                    BounceOrder::No => Bounce::No,
                    BounceOrder::HoldMs(hold) => Bounce::Hold(std::time::Duration::from_millis(hold)),
                };
                let to = Place { network, ips, rules, label };
                match (self.switch.move_port(&port, to, bounce), wait) {
                    (Ok(change), None) => ok(&moved(port, change)),
                    // Its rules may have changed; there is nothing that its guest would have to follow.
                    (Ok(change), Some(_)) if self.stayed(&port, change) => ok(&Moved {
                        followed: Some(Followed { lease_ms: None, first_packet_ms: None }),
                        ..moved(port, change)
                    }),
                    (Ok(change), Some(wait)) => {
                        return Answer::Later(Follow { moved: moved(port, change), wait, timeout_ms });
                    }
                    (Err(error), _) => Err(Refusal::from(&error)),
                }
            }
            other => self.reply(other),
        };
        Answer::Line(reply.unwrap_or_else(refused))
    }

    fn reply(&mut self, request: Request) -> Reply {
        match request {
            Request::Apply { document } => changed(None, None, self.switch.apply(document)),
            Request::Export {} => ok(self.switch.document().as_ref()),
            Request::NetworkAdd { network } => {
                let vni = network.vni;
                let change = self.switch.edit(|document| {
                    if document.network(vni).is_some() {
                        return Err(SwitchError::NetworkExists(vni));
                    }
                    document.networks.push(Arc::new(network));
                    Ok(())
                });
                changed(None, Some(vni), change)
            }
            Request::NetworkRemove { network } => changed(
                None,
                Some(network),
                self.switch.edit(|document| {
                    let ports: Vec<String> = document
                        .ports
                        .iter()
                        .filter(|port| port.network == network)
                        .map(|port| port.name.to_string())
                        .collect();
                    if !ports.is_empty() {
                        return Err(SwitchError::NetworkInUse { network, ports });
                    }
                    remove(&mut document.networks, |config| config.vni == network)
                        .ok_or(SwitchError::NoSuchNetwork(network))
                }),
            ),
            Request::NetworkList {} => ok(&self.networks()),
            Request::PortAdd { port } => {
                let name = port.name.clone();
                let change = self.switch.edit(|document| {
                    if document.port(&port.name).is_some() {
                        return Err(SwitchError::PortExists(port.name));
                    }
                    document.ports.push(Arc::new(port));
                    Ok(())
                });
                changed(Some(name), None, change)
            }
            Request::PortRemove { port } => {
                let change = self.switch.edit(|document| {
                    remove(&mut document.ports, |config| config.name == port)
                        .ok_or_else(|| SwitchError::NoSuchPort(port.clone()))
                });
                changed(Some(port), None, change)
            }
            Request::PortList {} => {
                let document = self.switch.document();
                let ports = document.ports.iter().filter_map(|port| self.switch.port_status(&port.name));
                ok(&Ports {
                    generation: document.generation,
                    ports: ports.map(|port| summary(&port)).collect(),
                })
            }
            Request::PortShow { port } => match self.switch.port_status(&port) {
                Some(status) => ok(&detail(&status)),
                None => Err(Refusal::from(&SwitchError::NoSuchPort(port))),
            },
            Request::RouteAdd { network, route } => {
                let change = self.switch.edit(|document| {
                    let routes = &mut network_mut(document, network)?.routes;
                    if routes.iter().any(|known| known.prefix == route.prefix) {
                        return Err(SwitchError::RouteExists { network, prefix: route.prefix });
                    }
                    routes.push(route);
                    Ok(())
                });
                changed(None, Some(network), change)
            }
            Request::RouteRemove { network, prefix } => {
                let change = self.switch.edit(|document| {
                    remove(&mut network_mut(document, network)?.routes, |route| route.prefix == prefix)
                        .ok_or(SwitchError::NoSuchRoute { network, prefix })
                });
                changed(None, Some(network), change)
            }
            Request::RouteList { network } => self.routes(network),
            Request::RuleAdd { port, rule } => self.add_rule(port, rule),
            Request::RuleRemove { port, rule } => self.remove_rule(port, rule),
            Request::RuleList { port } => self.rules(port.as_ref()),
            other => self.reply_counters_and_directory(other),
        }
    }

    fn reply_counters_and_directory(&mut self, request: Request) -> Reply {
        match request {
            Request::DirectorySet { entries } => self.set(&entries),
            Request::DirectoryRemove { network, ip } => match self.switch.directory_remove(network, ip) {
                Ok(true) => ok(&Counted { entries: 1 }),
                Ok(false) => Err(no_such_entry(network, &ip.to_string())),
                Err(error) => Err(Refusal::from(&error)),
            },
            Request::DirectoryLookup { network, ip } => match self.switch.directory_lookup(network, ip) {
                Some(mapping) => ok(&mapping),
                None => Err(no_such_entry(network, &ip.to_string())),
            },
            Request::DirectoryList { network, after, limit } => {
                let limit = limit.clamp(1, LARGEST_PAGE);
                // One more than asked for tells whether there are more.
                let mut entries = self
                    .switch
                    .directory_list(network, after, limit + 1)
                    .map_err(|error| Refusal::from(&error))?;
                let more = entries.len() > limit;
                entries.truncate(limit);
                ok(&Entries { entries, more })
            }
            Request::DirectoryStage { entries, packed } => {
                if self.staged.len() + entries.len() + packed.0.len() > MOST_STAGED {
                    self.staged = Vec::new();
                    return Err(Refusal {
                        what: format!(
                            "more than {MOST_STAGED} entries were staged; all of them are forgotten"
                        ),
                        place: "directory".into(),
                        remedy: "import them in several parts".into(),
                    });
                }
                self.staged.extend(entries);
                self.staged.extend(packed.0);
                ok(&Counted { entries: self.staged.len() })
            }
            Request::DirectoryCommit {} => {
                let entries = std::mem::take(&mut self.staged);
                self.set(&entries)
            }
            Request::Stats {} => ok(&self.stats()),
            // `reply` and `answer` have taken all others.
            _ => ok(&self.drops()),
        }
    }

    /// True if the change left the port's binding as it was.
    fn stayed(&self, port: &PortName, change: Change) -> bool {
        self.switch.port_status(port).is_some_and(|status| status.epoch < change.generation)
    }

    fn set(&self, entries: &[Mapping]) -> Reply {
        self.switch.directory_set(entries).map_err(|error| Refusal::from(&error))?;
        ok(&Counted { entries: entries.len() })
    }

    fn networks(&self) -> Networks {
        let document = self.switch.document();
        let mut ports: BTreeMap<Vni, usize> = BTreeMap::new();
        for port in &document.ports {
            *ports.entry(port.network).or_default() += 1;
        }
        let underlay = &self.switch.config().underlay;
        let networks = document.networks.iter().map(|network| NetworkDetail {
            config: network.as_ref().clone(),
            guest_mtu: network.mtu.map_or_else(|| underlay.default_inner_mtu(), |mtu| mtu.bytes()),
            ports: ports.get(&network.vni).copied().unwrap_or(0),
        });
        Networks { generation: document.generation, networks: networks.collect() }
    }

    fn routes(&self, network: Option<Vni>) -> Reply {
        let document = self.switch.document();
        if let Some(network) = network
            && document.network(network).is_none()
        {
            return Err(Refusal::from(&SwitchError::NoSuchNetwork(network)));
        }
        let wanted = document.networks.iter().filter(|config| network.is_none_or(|vni| vni == config.vni));
        let routes = wanted.flat_map(|config| {
            config.routes.iter().map(|route| RouteDetail {
                network: config.vni,
                prefix: route.prefix,
                via: route.via,
            })
        });
        ok(&Routes { routes: routes.collect() })
    }

    fn stats(&self) -> Stats {
        let (ports, underlay) = self.switch.totals();
        Stats {
            generation: self.switch.document().generation,
            ports: ports
                .into_iter()
                .map(|(port, totals)| PortTraffic { port, traffic: traffic(&totals) })
                .collect(),
            underlay: traffic(&underlay),
        }
    }

    fn drops(&self) -> Drops {
        let (ports, underlay) = self.switch.totals();
        let all = ports.into_iter().map(|(port, totals)| (Some(port), totals)).chain([(None, underlay)]);
        let drops = all.flat_map(|(port, totals)| {
            totals.drops.into_iter().map(move |(reason, packets)| DropCount {
                reason: reason.name().into(),
                port: port.clone(),
                packets,
            })
        });
        Drops { drops: drops.collect() }
    }
}

impl Follow {
    /// The answer, once the guest has done what the caller waits for, or cannot do it any more.
    pub(super) fn progress(&mut self, switch: &Switch) -> Option<String> {
        let Moved { port, generation, .. } = &self.moved;
        let last = switch.port_status(port).and_then(|status| status.last_change);
        let Some(last) = last.filter(|last| last.generation == *generation) else {
            return Some(refused(Refusal {
                what: format!(
                    "port {port} was changed again before its guest had followed generation {generation}"
                ),
                place: format!("port {port}"),
                remedy: format!("`shunt vswitch port show {port}` shows its present state"),
            }));
        };
        let followed = followed(&last);
        match self.wait {
            Wait::Lease => followed.lease_ms,
            Wait::Traffic => followed.first_packet_ms,
        }?;
        self.moved.followed = Some(followed);
        Some(ok(&self.moved).unwrap_or_else(refused))
    }

    /// The answer when time is up.
    pub(super) fn overdue(&self) -> String {
        let Moved { port, generation, .. } = &self.moved;
        let missing = match self.wait {
            Wait::Lease => "asked for its new lease",
            Wait::Traffic => "sent a packet from its new address",
        };
        refused(Refusal {
            what: format!(
                "port {port} is in its new network since generation {generation}, but its guest has not {missing} within {} ms",
                self.timeout_ms
            ),
            place: format!("port {port}"),
            remedy:
                "renew the lease from inside of the guest, or move the port again with a longer --hold-ms"
                    .into(),
        })
    }
}

pub(super) fn ok(value: &impl Serialize) -> Reply {
    serde_json::to_string(&Response::Ok(value)).map_err(|error| Refusal {
        what: format!("the answer cannot be written as JSON: {error}"),
        place: "answer".into(),
        remedy: "report this as a fault of the switch".into(),
    })
}

pub(super) fn refused(refusal: Refusal) -> String {
    // Three strings: this cannot fail, and an empty line would still end the client's wait.
    serde_json::to_string(&Response::<()>::Error(refusal)).unwrap_or_default()
}

fn changed(port: Option<PortName>, network: Option<Vni>, change: Result<Change, SwitchError>) -> Reply {
    let Change { generation, swap_ns, settled_ns } = change.map_err(|error| Refusal::from(&error))?;
    ok(&Changed { port, network, rule: None, generation, swap_ns, settled_ns })
}

const fn moved(port: PortName, change: Change) -> Moved {
    let Change { generation, swap_ns, settled_ns } = change;
    Moved { port, generation, swap_ns, settled_ns, followed: None }
}

pub(super) fn remove<T>(list: &mut Vec<T>, is: impl Fn(&T) -> bool) -> Option<()> {
    let index = list.iter().position(is)?;
    list.remove(index);
    Some(())
}

fn network_mut(document: &mut HostConfig, network: Vni) -> Result<&mut NetworkConfig, SwitchError> {
    let found = document.networks.iter_mut().find(|config| config.vni == network);
    found.map(Arc::make_mut).ok_or(SwitchError::NoSuchNetwork(network))
}

fn no_such_entry(network: Vni, ip: &str) -> Refusal {
    Refusal {
        what: format!("the directory has no entry for {ip} in network {network}"),
        place: format!("network {network}, {ip}"),
        remedy: format!("`shunt vswitch directory list --network {network}` shows its entries"),
    }
}

fn summary(status: &PortStatus) -> PortSummary {
    let config = status.config.as_ref().clone();
    let link = match (status.is_missing, status.link_up) {
        (true, _) => Link::Missing,
        (false, true) => Link::Up,
        (false, false) => Link::Down,
    };
    let generation: Generation = status.epoch;
    PortSummary { config, link, generation }
}

fn detail(status: &PortStatus) -> PortDetail {
    PortDetail {
        summary: summary(status),
        last_change: status.last_change.as_ref().map(|change| ChangeDetail {
            generation: change.generation,
            at: rfc3339(change.at),
            swap_ns: change.swap_ns,
            settled_ns: change.settled_ns,
            followed: followed(change),
        }),
        connections: status.connections.map(|Count { established, half_open, over }| ConnectionCount {
            established,
            half_open,
            over,
        }),
        counters: traffic(&status.totals),
        drops: status.totals.drops.iter().map(|&(reason, packets)| (reason.name().into(), packets)).collect(),
    }
}

const fn followed(change: &LastChange) -> Followed {
    Followed { lease_ms: change.lease_ms, first_packet_ms: change.first_packet_ms }
}

fn traffic(totals: &Totals) -> Traffic {
    Traffic {
        received_packets: totals.received_packets,
        received_bytes: totals.received_bytes,
        sent_packets: totals.sent_packets,
        sent_bytes: totals.sent_bytes,
        dropped_packets: totals.drops.iter().map(|(_, packets)| packets).sum(),
        traps: totals.traps.iter().map(|&(trap, packets)| (trap.name().into(), packets)).collect(),
    }
}
