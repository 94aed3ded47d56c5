//! What has to be looked after without anybody's asking: pools are filled, addresses freed, the use of machines watched,
//! what failed is cleared away. Each round looks at everything and takes no input, so that it does not matter what was
//! missed.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt;

use super::journal;
use super::journeys::requests::{FillPool, OneVm};
use super::runner::{Runner, SubmitError};
use super::step::StepError;
use crate::compute;
use crate::model::{
    JourneyKind, Operation, OperationState, Pool, PoolId, Problem, Tenant, Vm, VmFact, VmId, VmRunning,
    VmState,
};
use crate::network;
use crate::pool;
use crate::pool::forecast::{Demand, Sizer};
use crate::store::rows::{self, Versioned};
use crate::store::{Change, Draft, Key, Watch, WatchItem};

/// How often a round is made when nothing changes.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long an operation can be looked at after its end.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// At most so many machines are being made for one pool at a time.
pub const FILLING: u32 = 8;
/// What a refill is taken to last until one was seen, in seconds.
const REFILL_SECONDS: f64 = 5.0;

/// Looks after everything. One for each controller; several do no harm.
pub struct Tender {
    runner: Runner,
    pools: HashMap<PoolId, PoolWatch>,
    /// New operations since the last round; absent before the first and when some were missed.
    news: Option<Watch>,
    /// Up to where idempotency keys have been looked at.
    keys: Option<Key>,
}

struct PoolWatch {
    demand: Demand,
    sizer: Sizer,
    /// How long a refill lasts, decaying mean, in seconds.
    refill: f64,
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Machines that are being made for pools since.
    pub filling: usize,
    /// Addresses that are free again.
    pub freed: usize,
    /// Machines that were found to have failed.
    pub failed: usize,
    /// Machines that are being cleared away since.
    pub cleared: usize,
    /// Operations that were taken up again.
    pub adopted: usize,
}

impl Tender {
    /// A tender that has seen nothing yet.
    #[must_use]
    pub fn new(runner: Runner) -> Self {
        Self { runner, pools: HashMap::new(), news: None, keys: None }
    }

    /// One round.
    ///
    /// # Errors
    /// The store's; the next round looks at everything again.
    pub async fn round(&mut self) -> Result<Round, StepError> {
        let world = self.runner.world().clone();
        let machines = rows::list_all::<Vm>(world.store(), &compute::vms_prefix()?).await?.rows;
        let mut round = Round {
            adopted: self.runner.adopt().await?,
            freed: network::free_addresses(world.store()).await?,
            ..Round::default()
        };
        round.failed = self.watch_use(&machines).await?;
        round.cleared = self.clear(&machines).await?;
        self.count_demand().await?;
        round.filling = self.fill(&machines).await?;
        self.forget_old().await?;
        self.keys = self.runner.forget_keys(self.keys.take(), REMEMBERED).await?;
        Ok(round)
    }

    /// Machines that were handed over lately and do not work.
    async fn watch_use(&mut self, machines: &[Versioned<Vm>]) -> Result<usize, StepError> {
        let (world, mut failed) = (self.runner.world().clone(), 0);
        for vm in machines {
            let watched = vm.row.watched_until.is_some_and(|until| until > world.now());
            if !watched || vm.row.state != VmState::Running || vm.row.operation.is_some() {
                continue;
            }
            let Some(problem) = self.trouble(&vm.row).await? else { continue };
            let mut vm = vm.clone();
            vm.row.state = VmState::Failed;
            vm.row.failure = Some(problem);
            let mut draft = Draft::new();
            compute::save_vm(&mut draft, &vm)?;
            match world.store().commit(draft.finish()?).await {
                Ok(_) => failed += 1,
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(failed)
    }

    /// What is wrong with a machine that should work.
    async fn trouble(&mut self, vm: &Vm) -> Result<Option<Problem>, StepError> {
        let world = self.runner.world().clone();
        let Some(fact) = compute::fact_of(world.store(), vm.id).await? else { return Ok(None) };
        let problem = |what: &str| {
            Some(Problem::new(what, vm.name.as_str(), "quarantine it to look at it, or delete it"))
        };
        Ok(match &fact.row.running {
            VmRunning::Dead | VmRunning::Gone => problem("the machine has ended by itself"),
            VmRunning::Failed { problem } => Some(problem.clone()),
            VmRunning::Running | VmRunning::Pending if died_lately(&fact.row, vm, world.limits().watch) => {
                problem("the machine has ended by itself, and was started again")
            }
            VmRunning::Running | VmRunning::Pending => {
                let silence = fact.row.heard_at.map(|at| world.now().duration_since(at).unsigned_abs());
                let silent = silence.is_some_and(|silence| silence > world.limits().silence);
                if silent { problem("the guest's heartbeat has stopped") } else { None }
            }
        })
    }

    /// Machines of the platform that are no use any more: whatever failed on its way into a pool or out of it.
    async fn clear(&mut self, machines: &[Versioned<Vm>]) -> Result<usize, StepError> {
        let mut cleared = 0;
        for vm in machines.iter().map(|vm| &vm.row) {
            let useless = vm.tenant == Tenant::PLATFORM && vm.operation.is_none();
            let dead = vm.state == VmState::Pooled && self.trouble(vm).await?.is_some();
            if useless && (vm.state == VmState::Failed || dead) {
                self.submit(JourneyKind::VmDelete, &OneVm { vm: vm.id, reason: None }, Some(vm.id)).await?;
                cleared += 1;
            }
        }
        Ok(cleared)
    }

    /// Makes machines for pools that have too few, and removes some of those that have too many.
    async fn fill(&mut self, machines: &[Versioned<Vm>]) -> Result<usize, StepError> {
        let (world, now) = (self.runner.world().clone(), self.seconds());
        let open = journal::open(&world).await?;
        // Who waits for a machine comes before who may want one: in a burst the hosts' time goes to handing over.
        let waiting = open.iter().filter(|operation| operation.row.kind == JourneyKind::HandOver).count();
        let room = FILLING.saturating_sub(as_u32(waiting)).max(1);
        let mut filling = 0;
        for pool in pool::all(world.store()).await? {
            let pool = pool.row;
            let mine =
                |vm: &&Versioned<Vm>| vm.row.pool == Some(pool.id) && vm.row.tenant == Tenant::PLATFORM;
            let ready = machines.iter().filter(mine).filter(|vm| vm.row.state == VmState::Pooled).count();
            let under_way = open.iter().filter(|operation| fills(&operation.row, pool.id)).count();
            let (ready, under_way) = (as_u32(ready), as_u32(under_way));
            let watch = self.watch(pool.id, now);
            watch.demand.advance(now);
            let wanted = watch.demand.wanted(watch.refill, pool.sizing.hit_rate);
            let mut size = watch.sizer.size(now, wanted, ready, &pool.sizing);
            if pool.draining {
                size = 0;
            }
            let missing = size.saturating_sub(ready + under_way).min(room.saturating_sub(under_way));
            for _ in 0..missing {
                self.submit(JourneyKind::PoolFill, &FillPool { pool: pool.id }, None).await?;
                filling += 1;
            }
            let surplus = ready.saturating_sub(size.max(if pool.draining { 0 } else { pool.sizing.min }));
            for vm in machines
                .iter()
                .filter(mine)
                .filter(|vm| vm.row.state == VmState::Pooled)
                .take(surplus as usize)
            {
                self.submit(JourneyKind::VmDelete, &OneVm { vm: vm.row.id, reason: None }, Some(vm.row.id))
                    .await?;
            }
        }
        Ok(filling)
    }

    /// What was asked for since the last round, and how long refills lasted, for the forecasts.
    async fn count_demand(&mut self) -> Result<(), StepError> {
        let world = self.runner.world().clone();
        let mut news = match self.news.take() {
            Some(news) => news,
            None => world.store().watch(&journal::prefix()?, world.store().revision().await?),
        };
        let pools = pool::all(world.store()).await?;
        let now = self.seconds();
        while let Some(item) = news.next().now_or_never() {
            let Some(WatchItem::Changes { changes, .. }) = item else { return Ok(()) };
            for change in changes {
                let Change::Put(entry) = change else { continue };
                let operation = rows::decode::<Operation>(&entry)?.row;
                for pool in &pools {
                    self.note(&operation, &pool.row, now);
                }
            }
        }
        self.news = Some(news);
        Ok(())
    }

    fn note(&mut self, operation: &Operation, pool: &Pool, now: u64) {
        // Each operation is new once: with its first step's record and nothing remembered.
        let new = operation.steps.len() == 1 && operation.memory.is_null();
        let asks = matches!(operation.kind, JourneyKind::HandOver | JourneyKind::VmCreate);
        let combination = serde_json::to_value(&pool.combination).ok();
        if new && asks && combination.as_ref() == operation.request.get("combination") {
            self.watch(pool.id, now).demand.request(now);
        }
        if operation.state == OperationState::Done && fills(operation, pool.id) {
            let took = operation.ended_at.map(|at| at.duration_since(operation.created_at).as_secs_f64());
            let watch = self.watch(pool.id, now);
            watch.refill = 0.8 * watch.refill + 0.2 * took.unwrap_or(watch.refill).clamp(0.1, 3600.0);
        }
    }

    /// Operations that ended long ago are forgotten: their ids lie in the order of their times.
    async fn forget_old(&mut self) -> Result<(), StepError> {
        let world = self.runner.world().clone();
        let page = rows::list::<Operation>(world.store(), &journal::prefix()?, None, 40).await?;
        let mut draft = Draft::new();
        for operation in page.rows {
            let ended = operation.row.ended_at.map(|at| world.now().duration_since(at).unsigned_abs());
            if ended.is_some_and(|passed| passed > REMEMBERED) {
                draft.require(&operation.key, operation.revision).delete(&operation.key);
            }
        }
        if !draft.writes_nothing() {
            match world.store().commit(draft.finish()?).await {
                Err(error) if !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn submit<T: serde::Serialize + Sync>(
        &mut self,
        kind: JourneyKind,
        request: &T,
        vm: Option<VmId>,
    ) -> Result<(), StepError> {
        let request = serde_json::to_value(request).unwrap_or_default();
        match self.runner.submit(Tenant::PLATFORM, kind, request, vm, None).await {
            Ok(_) | Err(SubmitError::KeyReused) => Ok(()),
            Err(SubmitError::Store(error)) => Err(error),
        }
    }

    fn watch(&mut self, pool: PoolId, now: u64) -> &mut PoolWatch {
        self.pools.entry(pool).or_insert_with(|| PoolWatch {
            demand: Demand::new(now),
            sizer: Sizer::new(now),
            refill: REFILL_SECONDS,
        })
    }

    fn seconds(&self) -> u64 {
        u64::try_from(self.runner.world().now().as_second()).unwrap_or(0)
    }
}

/// True when it ended while its use was watched.
fn died_lately(fact: &VmFact, vm: &Vm, watched: Duration) -> bool {
    let since = vm.watched_until.and_then(|until| until.checked_sub(watched).ok());
    fact.died_at.is_some_and(|at| since.is_some_and(|since| at > since))
}

fn fills(operation: &Operation, pool: PoolId) -> bool {
    let of = operation.request.get("pool").and_then(|pool| pool.as_str());
    operation.kind == JourneyKind::PoolFill && of == Some(pool.to_string().as_str())
}

fn as_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
