//! Which documents a host takes: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dataplane::desired::PortName;

use super::{Accepted, Held};
use crate::fleet::DesiredChange;
use crate::model::{Problem, VmDesired, VmId};

/// The most machines one host takes.
const MOST_VMS: usize = 16_384;

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An older one.
    #[error("generation {offered} is older than generation {held}, which this host holds")]
    Older {
        /// What came.
        offered: u64,
        /// What is held.
        held: u64,
    },
    /// Another one of the same number.
    #[error("this host holds another document of generation {0}")]
    SameGeneration(u64),
    /// A change of a document that this host does not hold.
    #[error("it changes generation {base}, and this host holds {}", .held.map_or("none".to_owned(), |held| held.to_string()))]
    Base {
        /// What it changes.
        base: u64,
        /// What is held.
        held: Option<u64>,
    },
    /// The same about one machine.
    #[error(
        "machine {vm} of generation {offered} is older than generation {held}, which this host holds, or another of the same number"
    )]
    Vm {
        /// Which.
        vm: VmId,
        /// What came.
        offered: u64,
        /// What is held.
        held: u64,
    },
    /// A machine that no host could have.
    #[error("machine {vm}: {why}")]
    Impossible {
        /// Which.
        vm: VmId,
        /// Why.
        why: String,
    },
    /// Too many machines.
    #[error("{0} machines are more than one host takes, {MOST_VMS}")]
    TooMany(usize),
}

impl Refusal {
    /// What, where, and what to do about it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (place, remedy) = match self {
            Self::Older { .. } | Self::SameGeneration(_) => (
                "generation".to_owned(),
                "if the controller's store was put back to an earlier state, move the host's ledger away and start its agent anew",
            ),
            Self::Base { .. } => ("generation".to_owned(), "none: the host asks for the whole document"),
            Self::Vm { vm, .. } => (
                format!("vm {vm}"),
                "if the controller's store was put back to an earlier state, move the host's ledger away and start its agent anew",
            ),
            Self::Impossible { vm, .. } => (format!("vm {vm}"), "delete the machine and make it anew"),
            Self::TooMany(_) => ("vms".to_owned(), "put some on other hosts"),
        };
        Problem::new(self.to_string(), place, remedy)
    }
}

/// What is held after a change, and what it changed.
pub(super) fn judge(held: &Held, change: DesiredChange) -> Result<(Held, Accepted), Refusal> {
    let offered = change.generation;
    if let Some(now) = held.generation.filter(|now| offered < *now) {
        return Err(Refusal::Older { offered, held: now });
    }
    if let Some(base) = change.base.filter(|base| Some(*base) != held.generation) {
        return Err(Refusal::Base { base, held: held.generation });
    }
    let mut next = held.clone();
    let mut accepted = Accepted::default();
    next.generation = Some(offered);
    next.networks = change.networks.into_iter().map(|network| (network.vni, network)).collect();
    accepted.networks = next.networks != held.networks;
    next.retired.extend(held.networks.keys());
    next.retired.retain(|network| !next.networks.contains_key(network));
    let mut named = BTreeSet::new();
    for vm in change.vms {
        if !named.insert(vm.vm) {
            return Err(impossible(&vm, "it is there twice"));
        }
        let before = held.vms.get(&vm.vm);
        if before == Some(&vm) {
            continue;
        }
        if let Some(before) = before {
            if before.generation >= vm.generation {
                let (offered, held) = (vm.generation, before.generation);
                return Err(Refusal::Vm { vm: vm.vm, offered, held });
            }
            if (&before.port, before.mac, &before.hypervisor) != (&vm.port, vm.mac, &vm.hypervisor) {
                return Err(impossible(&vm, "its port, MAC address and hypervisor cannot change"));
            }
        }
        next.leaving.remove(&vm.vm);
        next.vms.insert(vm.vm, vm.clone());
        accepted.changed.push(vm);
    }
    let is_removed = |vm: &VmId| match change.base {
        Some(_) => change.removed.contains(vm),
        None => !named.contains(vm),
    };
    let leaving: Vec<VmId> = next.vms.keys().filter(|vm| is_removed(vm)).copied().collect();
    for vm in leaving {
        if let Some(was) = next.vms.remove(&vm) {
            next.leaving.insert(vm, was);
        }
        accepted.leaving.push(vm);
    }
    if held.generation == Some(offered) && next != *held {
        return Err(Refusal::SameGeneration(offered));
    }
    if next.vms.len() > MOST_VMS {
        return Err(Refusal::TooMany(next.vms.len()));
    }
    check(&next)?;
    Ok((next, accepted))
}

fn impossible(vm: &VmDesired, why: impl Into<String>) -> Refusal {
    Refusal::Impossible { vm: vm.vm, why: why.into() }
}

/// What must hold for all machines together.
fn check(next: &Held) -> Result<(), Refusal> {
    let mut ports: BTreeMap<&str, VmId> = BTreeMap::new();
    let all = next.vms.values().chain(next.leaving.values());
    for vm in all {
        if let Some(other) = ports.insert(&vm.port, vm.vm) {
            return Err(impossible(vm, format!("its port {} is that of machine {other}", vm.port)));
        }
    }
    for vm in next.vms.values().map(Arc::as_ref) {
        if let Err(error) = vm.port.parse::<PortName>() {
            return Err(impossible(vm, format!("its port: {error}")));
        }
        if !next.networks.contains_key(&vm.network) {
            return Err(impossible(vm, format!("its network {} is not in the document", vm.network)));
        }
        if vm.ips.is_empty() {
            return Err(impossible(vm, "it has no address"));
        }
    }
    Ok(())
}
