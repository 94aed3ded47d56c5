//! Hand-over, step 3: machine, interface and disks change owner, name, network and configuration in one transaction.
//!
//! The host carries it out because the rows say so. MAC address and physical IP are not touched.

use async_trait::async_trait;

use super::forms::{CreateVm, remember, request};
use super::subject::subject;
use crate::model::{Settings, Tenant, VmState};
use crate::store::Draft;
use crate::workflow::{Context, Outcome, Step, StepError};
use crate::{compute, storage};

/// See the module.
pub(super) struct Own;

#[async_trait]
impl Step for Own {
    fn name(&self) -> &'static str {
        "own"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let mut subject = subject(context.world, context.operation).await?;
        let wish: CreateVm = request(context.operation)?;
        let new = subject.memory.new.clone();
        let new = new.ok_or_else(|| StepError::refused("nothing was claimed", "operation", "ask again"))?;
        let owner = context.operation.tenant;
        let vm = &mut subject.vm.row;
        vm.tenant = owner;
        vm.name = wish.name;
        vm.settings = wish.settings;
        vm.rules = wish.rules;
        vm.partial = false;
        vm.pool = None;
        vm.generation += 1;
        vm.config_generation += 1;
        subject.nic.row.tenant = owner;
        subject.nic.row.binding = new;
        let mut draft = Draft::new();
        compute::save_vm(&mut draft, &subject.vm)?;
        compute::save_nic(&mut draft, &subject.nic)?;
        storage::change_owner(context.world.store(), &mut draft, subject.vm.row.id, owner).await?;
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        let Ok(mut subject) = subject(context.world, context.operation).await else { return Ok(None) };
        let (Some(old), Some(name)) = (subject.memory.old.clone(), subject.memory.old_name.clone()) else {
            return Ok(None);
        };
        let vm = &mut subject.vm.row;
        vm.tenant = Tenant::PLATFORM;
        vm.name = name;
        vm.settings = subject.memory.old_settings.clone().unwrap_or_default();
        vm.rules = Vec::new();
        vm.partial = true;
        vm.state = VmState::Changing;
        vm.generation += 1;
        vm.config_generation += 1;
        subject.nic.row.tenant = Tenant::PLATFORM;
        subject.nic.row.binding = old;
        // Its guest may have seen what the customer wanted in it.
        subject.memory.tainted = true;
        remember(context.operation, &subject.memory);
        let mut draft = Draft::new();
        compute::save_vm(&mut draft, &subject.vm)?;
        compute::save_nic(&mut draft, &subject.nic)?;
        storage::change_owner(context.world.store(), &mut draft, subject.vm.row.id, Tenant::PLATFORM).await?;
        Ok(Some(draft))
    }
}

/// What a machine that has lost its customer is left with.
pub(super) fn nothing() -> Settings {
    Settings::default()
}
