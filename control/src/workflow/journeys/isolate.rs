//! Quarantine and the way out of it: the machine runs on, memory and processes untouched, where nobody can reach it.

use async_trait::async_trait;

use super::claim::claim;
use super::forms::{Memory, OneVm, remember, request};
use super::reassign::free_for;
use super::subject::{machine, subject};
use crate::compute;
use crate::model::{Problem, VmState};
use crate::network;
use crate::store::Draft;
use crate::workflow::{Context, Outcome, Step, StepError};

/// Into the network where machines are cut off. Its addresses stay claimed for it, so that it can come back.
pub(super) struct Isolate;

/// It is there.
pub(super) struct Quarantined;

/// Its addresses are published again.
pub(super) struct Restore;

#[async_trait]
impl Step for Isolate {
    fn name(&self) -> &'static str {
        "isolate"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let wish: OneVm = request(context.operation)?;
        let found = machine(context.world, wish.vm).await?;
        let (mut vm, mut nic) =
            found.ok_or_else(|| StepError::refused("the machine is gone", "vm", "ask for another one"))?;
        free_for(&vm.row, context.operation, &[VmState::Running, VmState::Failed])?;
        let quarantine = network::QUARANTINE
            .parse()
            .map_err(|error| StepError::refused(format!("{error}"), "network", "report this"))?;
        let mut draft = Draft::new();
        let old = nic.row.binding.clone();
        nic.row.binding = claim(context.world, &mut draft, &quarantine, &[], &nic.row).await?;
        network::hold(&mut draft, &quarantine, vm.row.host, nic.row.id)?;
        vm.row.before_quarantine = Some(old.clone());
        vm.row.state = VmState::Changing;
        vm.row.operation = Some(context.operation.id);
        vm.row.generation += 1;
        vm.row.config_generation += 1;
        compute::save_vm(&mut draft, &vm)?;
        compute::save_nic(&mut draft, &nic)?;
        context.operation.vm = Some(wish.vm);
        let memory = Memory { old: Some(old), new: Some(nic.row.binding.clone()), ..Memory::default() };
        remember(context.operation, &memory);
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        let Ok(mut subject) = subject(context.world, context.operation).await else { return Ok(None) };
        let Some(old) = subject.memory.old.clone() else { return Ok(None) };
        let mut draft = Draft::new();
        let nic = &mut subject.nic.row;
        for ip in &nic.binding.addresses {
            network::withdraw(&mut draft, &nic.binding.network, *ip)?;
            network::release_address(&mut draft, &nic.binding.network, *ip, nic.id)?;
        }
        network::let_go(&mut draft, &nic.binding.network, subject.vm.row.host, nic.id)?;
        nic.binding = old;
        let vm = &mut subject.vm.row;
        vm.before_quarantine = None;
        vm.state = VmState::Running;
        vm.operation = None;
        vm.generation += 1;
        vm.config_generation += 1;
        compute::save_vm(&mut draft, &subject.vm)?;
        compute::save_nic(&mut draft, &subject.nic)?;
        Ok(Some(draft))
    }
}

#[async_trait]
impl Step for Quarantined {
    fn name(&self) -> &'static str {
        "quarantined"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let wish: OneVm = request(context.operation)?;
        let mut subject = subject(context.world, context.operation).await?;
        let mut draft = Draft::new();
        if let Some(old) = &subject.memory.old {
            // Nobody finds it; its addresses stay its own.
            for ip in &old.addresses {
                network::withdraw(&mut draft, &old.network, *ip)?;
            }
        }
        let vm = &mut subject.vm.row;
        vm.state = VmState::Quarantined;
        vm.operation = None;
        vm.watched_until = None;
        if let Some(reason) = wish.reason {
            vm.failure = Some(Problem::new(reason, "quarantine", "release it, or delete it"));
        }
        compute::save_vm(&mut draft, &subject.vm)?;
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }
}

#[async_trait]
impl Step for Restore {
    fn name(&self) -> &'static str {
        "restore"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let wish: OneVm = request(context.operation)?;
        let found = machine(context.world, wish.vm).await?;
        let (mut vm, nic) =
            found.ok_or_else(|| StepError::refused("the machine is gone", "vm", "ask for another one"))?;
        free_for(&vm.row, context.operation, &[VmState::Quarantined])?;
        let Some(before) = vm.row.before_quarantine.clone() else {
            let what = "the machine was never anybody's: it failed when it was handed over";
            return Err(StepError::refused(what, "vm", "delete it when it has been looked at"));
        };
        let mut draft = Draft::new();
        for ip in &before.addresses {
            network::publish(&mut draft, &before.network, *ip, &nic.row)?;
        }
        network::hold(&mut draft, &before.network, vm.row.host, nic.row.id)?;
        vm.row.state = VmState::Changing;
        vm.row.operation = Some(context.operation.id);
        compute::save_vm(&mut draft, &vm)?;
        context.operation.vm = Some(wish.vm);
        let memory = Memory { old: Some(nic.row.binding.clone()), new: Some(before), ..Memory::default() };
        remember(context.operation, &memory);
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        let Ok(mut subject) = subject(context.world, context.operation).await else { return Ok(None) };
        let mut draft = Draft::new();
        if let Some(new) = &subject.memory.new {
            for ip in &new.addresses {
                network::withdraw(&mut draft, &new.network, *ip)?;
            }
        }
        subject.vm.row.state = VmState::Quarantined;
        subject.vm.row.operation = None;
        compute::save_vm(&mut draft, &subject.vm)?;
        Ok(Some(draft))
    }
}
