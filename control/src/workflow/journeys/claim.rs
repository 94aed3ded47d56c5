//! Hand-over, step 1: a machine of the pool, the customer's name, quota and addresses, all or nothing.

use async_trait::async_trait;

use super::forms::{CreateVm, Memory, recall, remember, request};
use super::subject::{machine, subject};
use crate::compute;
use crate::model::{Binding, CombinationError, JourneyKind, Nic, Operation, Vm, VmState};
use crate::network;
use crate::pool::{self, Stocked};
use crate::store::Draft;
use crate::store::rows::Versioned;
use crate::tenant::{self, Named, QuotaError, Resource};
use crate::workflow::{Context, Outcome, Step, StepError, World};

/// See the module.
pub(super) struct Claim;

#[async_trait]
impl Step for Claim {
    fn name(&self) -> &'static str {
        "claim"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let world = context.world;
        let wish: CreateVm = request(context.operation)?;
        let Some(stocked) = choose(world, &wish).await? else {
            return Ok(Outcome::Instead(JourneyKind::VmCreate, Draft::new()));
        };
        let mut draft = Draft::new();
        pool::take(&mut draft, &stocked)?;
        let found = machine(world, stocked.vm).await?.filter(|(vm, _)| vm.row.state == VmState::Pooled);
        let Some((mut vm, nic)) = found else {
            // A row of the stock without a machine that is ready: out with it, and look again.
            return Ok(Outcome::Again(draft));
        };
        let mut memory = recall(context.operation);
        settle_claims(context, &mut draft, &wish, &memory, vm.row.id.uuid()).await?;
        let binding = bind_addresses(world, &mut draft, &wish, context.operation, &memory, &nic.row).await?;
        network::hold(&mut draft, &wish.network, vm.row.host, nic.row.id)?;
        memory.pool = Some(stocked.pool);
        memory.old = Some(nic.row.binding.clone());
        memory.new = Some(binding);
        memory.old_name = Some(vm.row.name.clone());
        memory.old_settings = Some(vm.row.settings.clone());
        memory.inherited = None;
        vm.row.state = VmState::Changing;
        vm.row.operation = Some(context.operation.id);
        compute::save_vm(&mut draft, &vm)?;
        context.operation.vm = Some(vm.row.id);
        remember(context.operation, &memory);
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        let found = subject(context.world, context.operation).await;
        let Ok(mut subject) = found else { return Ok(None) };
        let wish: CreateVm = request(context.operation)?;
        let mut draft = Draft::new();
        give_back(context, &mut draft, &wish, &subject.memory, &subject.nic.row, &subject.vm).await?;
        subject.vm.row.operation = None;
        match subject.memory.pool {
            Some(pool) if !subject.memory.tainted => {
                subject.vm.row.state = VmState::Pooled;
                pool::put_in_stock(&mut draft, pool, subject.vm.row.id)?;
            }
            // Somebody tends to machines of the platform that are no use any more.
            _ => {
                subject.vm.row.state = VmState::Failed;
                subject.vm.row.failure = context.operation.problem.clone();
            }
        }
        compute::save_vm(&mut draft, &subject.vm)?;
        Ok(Some(draft))
    }
}

/// One of the machines that are ready, by chance: so that many who choose at once seldom choose the same.
async fn choose(world: &World, wish: &CreateVm) -> Result<Option<Stocked>, StepError> {
    let store = world.store();
    let mut ready = Vec::new();
    for pool in pool::of_combination(store, &wish.combination).await? {
        ready.extend(pool::stock(store, pool.id).await?);
    }
    if ready.is_empty() {
        return Ok(None);
    }
    let (_, chance) = uuid::Uuid::new_v4().as_u64_pair();
    let place = usize::try_from(chance % ready.len() as u64).unwrap_or(0);
    Ok(ready.get(place).copied())
}

/// Name and quota for the machine of this id, or the name only where a predecessor had both.
pub(super) async fn settle_claims(
    context: &Context<'_>,
    draft: &mut Draft,
    wish: &CreateVm,
    memory: &Memory,
    vm: uuid::Uuid,
) -> Result<(), StepError> {
    let (store, owner) = (context.world.store(), context.operation.tenant);
    wish.combination.validate().map_err(|CombinationError { field, what }| {
        StepError::refused(what, field, "ask for a combination that a host can run")
    })?;
    if memory.inherited.is_some() {
        tenant::hand_name(draft, Named::Vm, owner, &wish.name, vm)?;
        return Ok(());
    }
    if tenant::find_name(store, Named::Vm, owner, &wish.name).await?.is_some() {
        let what = format!("there is a machine with the name {} already", wish.name);
        return Err(StepError::refused(what, "name", "choose another name, or delete that machine"));
    }
    tenant::take_name(draft, Named::Vm, owner, &wish.name, vm)?;
    tenant::charge(store, draft, owner, Resource::Vms).await.map_err(refused_quota)
}

pub(super) fn refused_quota(error: QuotaError) -> StepError {
    match error {
        QuotaError::Exhausted(problem) => StepError::Refused(problem),
        QuotaError::NoSuchTenant(_) => {
            StepError::refused(error.to_string(), "tenant", "ask for one that exists")
        }
        QuotaError::Row(error) => StepError::Row(error),
    }
}

/// Addresses in the network that is wished for, and the directory's word that they are at `nic`.
pub(super) async fn bind_addresses(
    world: &World,
    draft: &mut Draft,
    wish: &CreateVm,
    operation: &Operation,
    memory: &Memory,
    nic: &Nic,
) -> Result<Binding, StepError> {
    let store = world.store();
    let known = network::by_moniker(store, &wish.network).await?;
    if known.tenant != operation.tenant {
        // Whether it exists is nobody else's business.
        return Err(network::NetworkError::NoSuchNetwork(wish.network.clone()).into());
    }
    if let (Some(_), Some(new)) = (memory.inherited, &memory.new) {
        for ip in &new.addresses {
            network::take_over_address(draft, &new.network, *ip, nic.id)?;
            network::publish(draft, &new.network, *ip, nic)?;
        }
        return Ok(new.clone());
    }
    claim(world, draft, &wish.network, &wish.addresses, nic).await
}

/// Claims addresses, or one that is found, and publishes them.
pub(super) async fn claim(
    world: &World,
    draft: &mut Draft,
    moniker: &crate::model::Moniker,
    wanted: &[dataplane::types::CustomerIp],
    nic: &Nic,
) -> Result<Binding, StepError> {
    let mut addresses = Vec::new();
    let wished: Vec<_> =
        if wanted.is_empty() { vec![None] } else { wanted.iter().copied().map(Some).collect() };
    for ip in wished {
        let ip = network::claim_address(world.store(), draft, moniker, ip, nic.id).await?;
        network::publish(draft, moniker, ip, nic)?;
        addresses.push(ip);
    }
    Ok(Binding { network: moniker.clone(), addresses })
}

/// Gives back what was claimed for the customer.
async fn give_back(
    context: &Context<'_>,
    draft: &mut Draft,
    wish: &CreateVm,
    memory: &Memory,
    nic: &Nic,
    vm: &Versioned<Vm>,
) -> Result<(), StepError> {
    if let Some(new) = &memory.new {
        for ip in &new.addresses {
            network::withdraw(draft, &new.network, *ip)?;
            network::release_address(draft, &new.network, *ip, nic.id)?;
        }
        network::let_go(draft, &new.network, vm.row.host, nic.id)?;
    }
    tenant::drop_name(draft, Named::Vm, context.operation.tenant, &wish.name)?;
    tenant::refund(context.world.store(), draft, context.operation.tenant, Resource::Vms)
        .await
        .map_err(refused_quota)
}
