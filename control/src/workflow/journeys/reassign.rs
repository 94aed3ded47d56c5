//! A network change of a running machine: other addresses are claimed, then the machine is bound to them.

use async_trait::async_trait;

use super::claim::claim;
use super::forms::{ChangeNetwork, Memory, remember, request};
use super::subject::{left_behind, machine, subject};
use crate::compute;
use crate::model::{Binding, VmState};
use crate::network;
use crate::store::Draft;
use crate::tenant::{self, Named};
use crate::workflow::{Context, Outcome, Step, StepError};

/// The new network's addresses, and the new name.
pub(super) struct Reassign;

/// The machine's rows say where it is from now on.
pub(super) struct Bind;

#[async_trait]
impl Step for Reassign {
    fn name(&self) -> &'static str {
        "claim"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let (world, store) = (context.world, context.world.store());
        let wish: ChangeNetwork = request(context.operation)?;
        let found = machine(world, wish.vm).await?;
        let (mut vm, nic) =
            found.ok_or_else(|| StepError::refused("the machine is gone", "vm", "ask for another one"))?;
        free_for(&vm.row, context.operation, &[VmState::Running, VmState::Failed])?;
        let old = nic.row.binding.clone();
        let network = wish.network.clone().unwrap_or_else(|| old.network.clone());
        if network::by_moniker(store, &network).await?.tenant != vm.row.tenant {
            return Err(network::NetworkError::NoSuchNetwork(network).into());
        }
        let mut draft = Draft::new();
        let stays = network == old.network && (wish.addresses.is_empty() || wish.addresses == old.addresses);
        let new = if stays {
            old.clone()
        } else {
            // An address that it has already may be wished for again.
            let binding = claim(world, &mut draft, &network, &wish.addresses, &nic.row).await?;
            network::hold(&mut draft, &network, vm.row.host, nic.row.id)?;
            binding
        };
        let mut memory = Memory { old: Some(old), new: Some(new), ..Memory::default() };
        if let Some(name) = wish.name.filter(|name| *name != vm.row.name) {
            if tenant::find_name(store, Named::Vm, vm.row.tenant, &name).await?.is_some() {
                let what = format!("there is a machine with the name {name} already");
                return Err(StepError::refused(what, "name", "choose another name, or delete that machine"));
            }
            tenant::take_name(&mut draft, Named::Vm, vm.row.tenant, &name, vm.row.id.uuid())?;
            memory.old_name = Some(vm.row.name.clone());
        }
        vm.row.state = VmState::Changing;
        vm.row.operation = Some(context.operation.id);
        compute::save_vm(&mut draft, &vm)?;
        context.operation.vm = Some(wish.vm);
        remember(context.operation, &memory);
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        let Ok(mut subject) = subject(context.world, context.operation).await else { return Ok(None) };
        let wish: ChangeNetwork = request(context.operation)?;
        let mut draft = Draft::new();
        if let (Some(old), Some(new)) = (&subject.memory.old, &subject.memory.new) {
            let left = left_behind(new, old);
            for ip in &left.addresses {
                network::withdraw(&mut draft, &left.network, *ip)?;
                network::release_address(&mut draft, &left.network, *ip, subject.nic.row.id)?;
            }
            if new.network != old.network {
                network::let_go(&mut draft, &new.network, subject.vm.row.host, subject.nic.row.id)?;
            }
        }
        if let (Some(_), Some(name)) = (&subject.memory.old_name, &wish.name) {
            tenant::drop_name(&mut draft, Named::Vm, subject.vm.row.tenant, name)?;
        }
        subject.vm.row.state = VmState::Running;
        subject.vm.row.operation = None;
        compute::save_vm(&mut draft, &subject.vm)?;
        Ok(Some(draft))
    }
}

/// Refuses a machine that is in another operation's hands, or in none of these states.
pub(super) fn free_for(
    vm: &crate::model::Vm,
    operation: &crate::model::Operation,
    states: &[VmState],
) -> Result<(), StepError> {
    if vm.operation.is_some_and(|other| other != operation.id) {
        return Err(StepError::refused(
            "another operation has the machine in hand",
            "vm",
            "wait for its end",
        ));
    }
    if !states.contains(&vm.state) {
        let state = serde_json::to_value(vm.state).unwrap_or_default();
        let what = format!("machine {} is {}", vm.name, state.as_str().unwrap_or("in another state"));
        return Err(StepError::refused(what, "vm", "look at `vm show`"));
    }
    Ok(())
}

#[async_trait]
impl Step for Bind {
    fn name(&self) -> &'static str {
        "bind"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let mut subject = subject(context.world, context.operation).await?;
        let new = subject.memory.new.clone();
        let new = new.ok_or_else(|| StepError::refused("nothing was claimed", "operation", "ask again"))?;
        let wish: Option<ChangeNetwork> = request(context.operation).ok();
        if let Some(name) = wish.and_then(|wish| wish.name) {
            subject.vm.row.name = name;
        }
        rebind(context, subject, new).await
    }

    async fn backward(&self, context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        let Ok(mut subject) = subject(context.world, context.operation).await else { return Ok(None) };
        let Some(old) = subject.memory.old.clone() else { return Ok(None) };
        if let Some(name) = subject.memory.old_name.clone() {
            subject.vm.row.name = name;
        }
        match rebind(context, subject, old).await? {
            Outcome::Done(draft) => Ok(Some(draft)),
            _ => Ok(None),
        }
    }
}

/// Writes another binding; host and guest have to follow.
async fn rebind(
    _context: &Context<'_>,
    mut subject: super::subject::Subject,
    binding: Binding,
) -> Result<Outcome, StepError> {
    subject.vm.row.generation += 1;
    subject.vm.row.config_generation += 1;
    subject.nic.row.binding = binding;
    let mut draft = Draft::new();
    compute::save_vm(&mut draft, &subject.vm)?;
    compute::save_nic(&mut draft, &subject.nic)?;
    Ok(Outcome::Done(draft))
}
