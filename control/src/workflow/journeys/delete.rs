//! A machine ends: its host removes it, and then everything that it had is given back.

use async_trait::async_trait;

use super::forms::{OneVm, request};
use super::subject::{machine, subject};
use crate::compute;
use crate::model::{Tenant, VmRunning, VmState};
use crate::network;
use crate::pool::{self, Stocked};
use crate::storage;
use crate::store::Draft;
use crate::tenant::{self, Named, Resource};
use crate::workflow::{Context, Outcome, Step, StepError};

use super::claim::refused_quota;

/// Its host is told to remove it. There is no way back.
pub(super) struct Stop;

#[async_trait]
impl Step for Stop {
    fn name(&self) -> &'static str {
        "stop"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let wish: OneVm = request(context.operation)?;
        let found = machine(context.world, wish.vm).await?;
        let (mut vm, _) = found
            .ok_or_else(|| StepError::refused("the machine is gone", "vm", "nothing needs to be done"))?;
        if vm.row.operation.is_some_and(|other| other != context.operation.id) {
            return Err(StepError::refused(
                "another operation has the machine in hand",
                "vm",
                "wait for its end",
            ));
        }
        let mut draft = Draft::new();
        if let Some(pool) = vm.row.pool {
            let ready = pool::stock(context.world.store(), pool).await?;
            if let Some(stocked) = ready.into_iter().find(|stocked: &Stocked| stocked.vm == vm.row.id) {
                pool::take(&mut draft, &stocked)?;
            }
        }
        vm.row.state = VmState::Deleting;
        vm.row.operation = Some(context.operation.id);
        vm.row.generation += 1;
        vm.row.watched_until = None;
        compute::save_vm(&mut draft, &vm)?;
        context.operation.vm = Some(wish.vm);
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }

    fn is_point_of_no_return(&self) -> bool {
        true
    }
}

/// Nothing of it is left: its rows go.
pub(super) struct Gone;

#[async_trait]
impl Step for Gone {
    fn name(&self) -> &'static str {
        "gone"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let store = context.world.store();
        let subject = subject(context.world, context.operation).await?;
        let (vm, nic) = (&subject.vm.row, &subject.nic.row);
        let fact = compute::fact_of(store, vm.id).await?;
        let gone = fact.is_some_and(|fact| fact.row.running == VmRunning::Gone);
        let host = compute::host(store, vm.host).await?;
        // Of a host that was removed nobody will ever hear.
        if !gone && host.is_some() {
            let often = std::time::Duration::from_secs(60);
            return Ok(Outcome::Wait(vec![compute::fact_prefix(vm.id)?], often));
        }
        let mut draft = Draft::new();
        let held = vm.before_quarantine.iter().chain([&nic.binding]);
        for binding in held {
            for ip in &binding.addresses {
                network::withdraw(&mut draft, &binding.network, *ip)?;
                network::release_address(&mut draft, &binding.network, *ip, nic.id)?;
            }
            network::let_go(&mut draft, &binding.network, vm.host, nic.id)?;
        }
        if vm.tenant != Tenant::PLATFORM {
            tenant::drop_name(&mut draft, Named::Vm, vm.tenant, &vm.name)?;
            tenant::refund(store, &mut draft, vm.tenant, Resource::Vms).await.map_err(refused_quota)?;
        }
        storage::remove_with(store, &mut draft, vm.id).await?;
        compute::remove(&mut draft, &subject.vm, nic)?;
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }
}
