//! The machine that a journey is about.

use super::forms::{Memory, recall};
use crate::compute;
use crate::model::{Binding, Nic, Operation, Vm, VmId};
use crate::store::rows::Versioned;
use crate::workflow::{StepError, World};

/// A machine and its interface, as they are now.
pub(super) struct Subject {
    pub(super) vm: Versioned<Vm>,
    pub(super) nic: Versioned<Nic>,
    pub(super) memory: Memory,
}

/// The machine that the operation is about.
///
/// # Errors
/// `Refused` when it is gone.
pub(super) async fn subject(world: &World, operation: &Operation) -> Result<Subject, StepError> {
    let gone = || StepError::refused("the machine is gone", "vm", "ask for another one");
    let id = operation.vm.ok_or_else(gone)?;
    let (vm, nic) = machine(world, id).await?.ok_or_else(gone)?;
    Ok(Subject { vm, nic, memory: recall(operation) })
}

/// A machine and its interface, if they are there.
///
/// # Errors
/// The store's.
pub(super) async fn machine(
    world: &World,
    id: VmId,
) -> Result<Option<(Versioned<Vm>, Versioned<Nic>)>, StepError> {
    let Some(vm) = compute::load_vm(world.store(), id).await? else { return Ok(None) };
    let nic = compute::load_nic(world.store(), vm.row.nic).await?;
    Ok(nic.map(|nic| (vm, nic)))
}

/// The addresses of `old` that `new` does not have; none where nothing was.
pub(super) fn left_behind(old: &Binding, new: &Binding) -> Binding {
    let stays = old.network == new.network;
    let addresses = old.addresses.iter().filter(|ip| !(stays && new.addresses.contains(ip)));
    Binding { network: old.network.clone(), addresses: addresses.copied().collect() }
}
