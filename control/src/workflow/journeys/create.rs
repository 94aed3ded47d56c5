//! From scratch: a host, addresses, rows; the host makes the machine because the rows say so.

use async_trait::async_trait;

use super::claim::{bind_addresses, claim, refused_quota, settle_claims};
use super::forms::{CreateVm, FillPool, Memory, recall, remember, request};
use super::subject::subject;
use crate::compute::{self, PlacementError};
use crate::model::{
    Combination, GuestUser, Host, JourneyKind, Moniker, Name, Nic, NicId, PoolId, Settings, Tenant, Vm, VmId,
    VmRule, VmState,
};
use crate::network;
use crate::pool;
use crate::storage;
use crate::store::Draft;
use crate::tenant::{self, Named, Resource};
use crate::workflow::{Context, Outcome, Step, StepError, World};

/// The size of a new OS disk, in GiB.
const OS_DISK_GIB: u32 = 8;
/// The user of a machine that has no customer yet. It has no password, and no keys.
const PLACEHOLDER_USER: &str = "placeholder";

/// See the module.
pub(super) struct Place;

/// What is to be made.
struct Plan {
    name: Name,
    combination: Combination,
    pool: Option<PoolId>,
    settings: Settings,
    rules: Vec<VmRule>,
}

#[async_trait]
impl Step for Place {
    fn name(&self) -> &'static str {
        "place"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let (world, mut draft) = (context.world, Draft::new());
        let (vm, nic) = (VmId::new(), NicId::new());
        let memory = recall(context.operation);
        let (made, network) = if context.operation.kind == JourneyKind::PoolFill {
            let wish: FillPool = request(context.operation)?;
            let plan = placeholder(world, &wish, vm).await?;
            let host = host(world, &plan.combination).await?;
            let mut nic = interface(nic, vm, Tenant::PLATFORM, &host)?;
            let network = nic.binding.network.clone();
            nic.binding = claim(world, &mut draft, &network, &[], &nic).await?;
            (rows(context, plan, vm, &host, &nic), nic)
        } else {
            let wish: CreateVm = request(context.operation)?;
            settle_claims(context, &mut draft, &wish, &memory, vm.uuid()).await?;
            let host = host(world, &wish.combination).await?;
            let mut nic = interface(nic, vm, context.operation.tenant, &host)?;
            nic.binding = bind_addresses(world, &mut draft, &wish, context.operation, &memory, &nic).await?;
            let plan = Plan {
                name: wish.name,
                combination: wish.combination,
                pool: None,
                settings: wish.settings,
                rules: wish.rules,
            };
            (rows(context, plan, vm, &host, &nic), nic)
        };
        network::hold(&mut draft, &network.binding.network, made.host, network.id)?;
        if made.combination.storage.as_str() != "none" {
            storage::put_os_disk(&mut draft, vm, made.tenant, &made.name, OS_DISK_GIB, world.now())?;
        }
        compute::put_new(&mut draft, &made, &network)?;
        context.operation.vm = Some(vm);
        let new = Some(network.binding.clone());
        remember(context.operation, &Memory { new, inherited: None, ..memory });
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        let Ok(mut subject) = subject(context.world, context.operation).await else { return Ok(None) };
        let mut draft = Draft::new();
        let vm = &mut subject.vm.row;
        if vm.tenant != Tenant::PLATFORM {
            tenant::drop_name(&mut draft, Named::Vm, vm.tenant, &vm.name)?;
            tenant::refund(context.world.store(), &mut draft, vm.tenant, Resource::Vms)
                .await
                .map_err(refused_quota)?;
        }
        // The platform's again: somebody tends to it until nothing is left of it, addresses included.
        vm.tenant = Tenant::PLATFORM;
        vm.state = VmState::Failed;
        vm.failure = context.operation.problem.clone();
        vm.operation = None;
        compute::save_vm(&mut draft, &subject.vm)?;
        Ok(Some(draft))
    }
}

async fn placeholder(world: &World, wish: &FillPool, vm: VmId) -> Result<Plan, StepError> {
    let pool = pool::pool(world.store(), wish.pool).await?.filter(|pool| !pool.row.draining);
    let pool =
        pool.ok_or_else(|| StepError::refused("the pool is gone", "pool", "nothing needs to be done"))?.row;
    let text = format!("pool-{}", compute::new_port(vm));
    let name = text.parse().map_err(|error| StepError::refused(format!("{error}"), "name", "report this"))?;
    let user = GuestUser { name: PLACEHOLDER_USER.to_owned(), password_hash: None, ssh_keys: Vec::new() };
    let settings = Settings { user: Some(user), ..Settings::default() };
    Ok(Plan { name, combination: pool.combination, pool: Some(pool.id), settings, rules: Vec::new() })
}

async fn host(world: &World, combination: &Combination) -> Result<Host, StepError> {
    let attached = network::attached(world.store()).await?;
    compute::place(world.store(), combination, |host| attached.contains(&host)).await.map_err(|error| {
        match error {
            PlacementError::NoRoom(problem) => StepError::Refused(problem),
            PlacementError::Row(error) => StepError::Row(error),
        }
    })
}

/// An interface that is in no network yet but the placeholder's.
fn interface(id: NicId, vm: VmId, tenant: crate::model::TenantId, host: &Host) -> Result<Nic, StepError> {
    let network: Moniker = network::PLACEHOLDER
        .parse()
        .map_err(|error| StepError::refused(format!("{error}"), "network", "report this"))?;
    Ok(Nic {
        id,
        tenant,
        vm,
        mac: compute::new_mac(),
        physical_ip: host.inventory.physical_ip,
        port: compute::new_port(vm),
        binding: crate::model::Binding { network, addresses: Vec::new() },
    })
}

fn rows(context: &Context<'_>, plan: Plan, id: VmId, host: &Host, nic: &Nic) -> Vm {
    Vm {
        id,
        tenant: nic.tenant,
        name: plan.name,
        state: VmState::Creating,
        combination: plan.combination,
        host: host.id,
        pool: plan.pool,
        generation: 1,
        config_generation: 1,
        script_generation: 1,
        bounces: 0,
        partial: plan.pool.is_some(),
        settings: plan.settings,
        rules: plan.rules,
        nic: nic.id,
        operation: Some(context.operation.id),
        before_quarantine: None,
        failure: None,
        watched_until: None,
        created_at: context.world.now(),
    }
}
