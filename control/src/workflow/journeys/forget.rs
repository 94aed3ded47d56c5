//! Break after make: the directory forgets where the machine was, and its old addresses are given up. They are free again
//! when every host has forgotten them too.

use async_trait::async_trait;

use super::forms::{recall, remember};
use super::subject::{left_behind, subject};
use crate::compute;
use crate::model::{Tenant, VmState};
use crate::network;
use crate::store::Draft;
use crate::tenant::{self, Named};
use crate::workflow::{Context, Outcome, Step, StepError};

/// See the module.
pub(super) struct Forget;

#[async_trait]
impl Step for Forget {
    fn name(&self) -> &'static str {
        "forget"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let mut subject = subject(context.world, context.operation).await?;
        let mut draft = Draft::new();
        let memory = recall(context.operation);
        let nic = &subject.nic.row;
        if let Some(old) = &memory.old {
            let left = left_behind(old, &nic.binding);
            for ip in &left.addresses {
                network::withdraw(&mut draft, &left.network, *ip)?;
                network::release_address(&mut draft, &left.network, *ip, nic.id)?;
            }
            if old.network != nic.binding.network {
                network::let_go(&mut draft, &old.network, subject.vm.row.host, nic.id)?;
            }
        }
        let vm = &mut subject.vm.row;
        if let Some(old) = memory.old_name.as_ref().filter(|old| **old != vm.name) {
            // A placeholder's name was never taken.
            if memory.pool.is_none() && vm.tenant != Tenant::PLATFORM {
                tenant::drop_name(&mut draft, Named::Vm, vm.tenant, old)?;
            }
        }
        vm.state = VmState::Running;
        vm.operation = None;
        vm.failure = None;
        vm.before_quarantine = None;
        vm.watched_until = context.watched_until();
        compute::save_vm(&mut draft, &subject.vm)?;
        // What the host has learned of the guest meanwhile belongs into the timeline.
        if let Some(fact) = compute::fact_of(context.world.store(), subject.vm.row.id).await? {
            subject.memory.times = fact.row.times.or(subject.memory.times);
            remember(context.operation, &subject.memory);
        }
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }
}
