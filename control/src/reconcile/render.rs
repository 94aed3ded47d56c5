//! A machine's rows in a host's terms.

use std::sync::Arc;

use crate::compute;
use crate::model::{Binding, GuestConfig, Power, Remote, Vm, VmDesired, VmId, VmState};
use crate::network::{self, NetworkError};
use crate::store::Store;
use crate::store::rows::RowError;

/// Why a machine cannot be told to its host.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Its network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A row.
    #[error(transparent)]
    Row(#[from] RowError),
}

/// A machine as its host should have it; `None` when its host should have nothing of it.
///
/// # Errors
/// The store's.
pub async fn machine(
    store: &dyn Store,
    id: VmId,
) -> Result<Option<(Vm, Arc<VmDesired>, crate::model::Moniker)>, RenderError> {
    let Some(vm) = compute::load_vm(store, id).await?.map(|vm| vm.row) else { return Ok(None) };
    if vm.state == VmState::Deleting {
        return Ok(None);
    }
    let Some(nic) = compute::load_nic(store, vm.nic).await?.map(|nic| nic.row) else { return Ok(None) };
    let peers = named(store, &vm).await?;
    let terms = network::vm_terms(store, &vm, &nic, &peers).await?;
    let mut settings = vm.settings.clone();
    if vm.script_generation != vm.config_generation {
        settings.script = None;
    }
    let config = GuestConfig {
        generation: vm.config_generation,
        vm_id: vm.id,
        partial: vm.partial,
        hostname: vm.name.to_string(),
        settings,
        network: Some(terms.network),
    };
    let desired = VmDesired {
        vm: vm.id,
        generation: vm.generation,
        power: Power::Running,
        hypervisor: vm.combination.hypervisor.clone(),
        image: vm.combination.image.clone(),
        vcpus: vm.combination.vcpus,
        memory_mib: vm.combination.memory_mib,
        port: nic.port,
        mac: nic.mac,
        network: terms.vni,
        ips: nic.binding.addresses,
        rules: terms.rules,
        config,
        bounces: vm.bounces,
    };
    Ok(Some((vm, Arc::new(desired), nic.binding.network)))
}

/// Where the machines are that its rules name.
async fn named(store: &dyn Store, vm: &Vm) -> Result<Vec<(VmId, Binding)>, RenderError> {
    let mut peers = Vec::new();
    for rule in &vm.rules {
        let Remote::Vm(id) = rule.remote else { continue };
        let Some(peer) = compute::load_vm(store, id).await? else { continue };
        if let Some(nic) = compute::load_nic(store, peer.row.nic).await? {
            peers.push((id, nic.row.binding));
        }
    }
    Ok(peers)
}
