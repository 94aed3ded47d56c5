//! A cluster in memory: one store, runners, and hosts that do at once what rows say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane::types::{CustomerIp, PhysicalIp};
use jiff::Timestamp;
use tokio::task::JoinHandle;

use crate::compute;
use crate::model::{
    Combination, GuestReport, Host, HostId, HostState, Inventory, JourneyKind, Moniker, Name, Operation,
    OperationId, Phase, Pool, PoolId, Problem, Quota, ReceivedReport, Settings, Sizing, Tenant, TenantId, Vm,
    VmFact, VmId, VmRunning, VmState,
};
use crate::network::{self, HostProgress, NetworkSpec};
use crate::pool;
use crate::store::rows;
use crate::store::{Draft, Key, MemoryStore, Prefix, Store};
use crate::tenant;
use crate::workflow::journeys::requests::{CreateVm, FillPool};
use crate::workflow::{Limits, Runner, World, run};

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> CustomerIp {
    CustomerIp(text.parse::<IpAddr>().unwrap())
}

pub(super) fn combination() -> Combination {
    Combination {
        hypervisor: name("netns"),
        image: name("tiny"),
        vcpus: 1,
        memory_mib: 64,
        storage: name("local"),
        ip_routing: name("ipv4"),
    }
}

/// Quick, so that a guest that is silent is found out within a test.
pub(super) fn limits() -> Limits {
    Limits {
        boot: Duration::from_secs(5),
        host: Duration::from_secs(5),
        learn: Duration::from_secs(5),
        guest: Duration::from_millis(100),
        ..Limits::default()
    }
}

/// How guests behave that do not just follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// It says that it failed, and why.
    Fails,
    /// It says nothing about its customer's configuration.
    Silent,
    /// Its host cannot carry the change out.
    HostFails,
}

pub(super) struct Cluster {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenant: TenantId,
    pub(super) red: Moniker,
    pub(super) blue: Moniker,
    pub(super) moods: Arc<Mutex<BTreeMap<VmId, Mood>>>,
    task: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Two hosts, a tenant with the networks red and blue.
    pub(super) async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let now = Timestamp::now();
        network::ensure_platform_networks(&*store, now).await.unwrap();
        let mut draft = Draft::new();
        let tenant =
            tenant::create(&mut draft, &name("acme"), Quota { vms: 40, ..Quota::default() }, now).unwrap().id;
        let mut hosts = Vec::new();
        for number in 1..=2_u8 {
            let id = HostId::new();
            let inventory = Inventory {
                physical_ip: PhysicalIp(IpAddr::from([192, 0, 2, number])),
                cpus: 4,
                memory_mib: 64 * 100,
                hypervisors: vec![name("netns")],
                version: "test".to_owned(),
            };
            let host = Host {
                id,
                name: name(&format!("host-{number}")),
                state: HostState::Ready,
                inventory,
                created_at: now,
            };
            compute::put_host(&mut draft, &host).unwrap();
            hosts.push(id);
        }
        store.commit(draft.finish().unwrap()).await.unwrap();
        let spec = |prefix: &str| NetworkSpec {
            prefixes: vec![prefix.parse().unwrap()],
            dns: Vec::new(),
            domain: None,
            mtu: None,
            lease_seconds: 3600,
        };
        let mut monikers = Vec::new();
        for (network, prefix) in [("red", "10.0.0.0/24"), ("blue", "10.0.0.0/24")] {
            let mut draft = Draft::new();
            let made = network::create(&*store, &mut draft, tenant, &name(network), &spec(prefix), now)
                .await
                .unwrap();
            store.commit(draft.finish().unwrap()).await.unwrap();
            monikers.push(made.moniker);
        }
        let moods: Arc<Mutex<BTreeMap<VmId, Mood>>> = Arc::default();
        let count = hosts.len();
        let task = tokio::spawn(hosts_at_work(Arc::clone(&store), hosts, Arc::clone(&moods)));
        while network::attached(&*store).await.unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let [red, blue] = monikers.try_into().unwrap();
        Self { store, tenant, red, blue, moods, task }
    }

    pub(super) fn world(&self, runner: &str) -> World {
        World::new(Arc::clone(&self.store), runner, limits())
    }

    pub(super) async fn pool(&self, machines: usize) -> PoolId {
        let pool = Pool {
            id: PoolId::new(),
            name: name("small"),
            combination: combination(),
            sizing: Sizing { min: 0, max: 100, hit_rate: 0.9, budget_hours: None },
            draining: false,
            created_at: Timestamp::now(),
        };
        let mut draft = Draft::new();
        draft.put_row(&pool::pool_key(pool.id).unwrap(), &pool);
        self.store.commit(draft.finish().unwrap()).await.unwrap();
        for _ in 0..machines {
            let request = serde_json::to_value(FillPool { pool: pool.id }).unwrap();
            let ended =
                self.carry_out(&self.world("a"), Tenant::PLATFORM, JourneyKind::PoolFill, request).await;
            assert_done(&ended);
        }
        pool.id
    }

    /// Submits, and carries out in this task.
    pub(super) async fn carry_out(
        &self,
        world: &World,
        tenant: TenantId,
        kind: JourneyKind,
        request: serde_json::Value,
    ) -> Operation {
        let id = self.submit(world, tenant, kind, request).await;
        run(world, id).await.unwrap()
    }

    /// An operation that nobody carries out yet.
    pub(super) async fn submit(
        &self,
        world: &World,
        tenant: TenantId,
        kind: JourneyKind,
        request: serde_json::Value,
    ) -> OperationId {
        let id = OperationId::new();
        let operation = crate::workflow::new_operation(id, tenant, kind, request, None, world);
        let mut draft = Draft::new();
        draft.put_row(&crate::workflow::operation_key(id).unwrap(), &operation);
        draft.put(&Key::of(["open", &id.to_string()]).unwrap(), "{}");
        self.store.commit(draft.finish().unwrap()).await.unwrap();
        id
    }

    pub(super) fn wish(&self, machine: &str, address: Option<&str>) -> CreateVm {
        CreateVm {
            name: name(machine),
            combination: combination(),
            network: self.red.clone(),
            addresses: address.map(ip).into_iter().collect(),
            settings: Settings { script: Some("#!/bin/sh\necho hello".to_owned()), ..Settings::default() },
            rules: Vec::new(),
        }
    }

    pub(super) async fn vm(&self, id: VmId) -> Vm {
        compute::load_vm(&*self.store, id).await.unwrap().unwrap().row
    }

    /// All keys, journals and what hosts say of their own progress aside.
    pub(super) async fn keys(&self) -> BTreeSet<String> {
        let ours = ["operation", "progress", "idempotency", "lease", "lease-term", "usage"];
        let (mut keys, mut after) = (BTreeSet::new(), None);
        loop {
            let page = self.store.list(&Prefix::all(), after.as_ref(), usize::MAX).await.unwrap();
            keys.extend(page.entries.iter().map(|entry| entry.key.to_string()));
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more {
                break;
            }
        }
        keys.retain(|key| !ours.contains(&key.split('/').next().unwrap()));
        keys
    }

    /// Frees what drains and clears what failed, until nothing changes any more.
    pub(super) async fn tend(&self) {
        let runner = Runner::new(self.world("a"));
        let mut tender = crate::workflow::tend::Tender::new(runner.clone());
        let mut quiet = 0;
        for _ in 0..400 {
            let round = tender.round().await.unwrap();
            let open = self.store.list(&Prefix::parse("open/").unwrap(), None, 1).await.unwrap();
            quiet = if round == crate::workflow::tend::Round::default() && open.entries.is_empty() {
                quiet + 1
            } else {
                0
            };
            if quiet == 3 {
                runner.stop().await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the cluster does not come to rest: {:#?}", self.keys().await);
    }
}

pub(super) fn assert_done(operation: &Operation) {
    assert_eq!(operation.state, crate::model::OperationState::Done, "{operation:#?}");
}

/// Every machine is in one stock or one owner's, every address of a machine is claimed by it alone and is in the directory.
pub(super) async fn assert_sound(cluster: &Cluster) {
    let store = &*cluster.store;
    let machines = rows::list_all::<Vm>(store, &compute::vms_prefix().unwrap()).await.unwrap().rows;
    let mut seen = BTreeSet::new();
    let mut claims = 0;
    for vm in &machines {
        let vm = &vm.row;
        let nic = compute::load_nic(store, vm.nic).await.unwrap().expect("an interface for each machine").row;
        assert_eq!(nic.tenant, vm.tenant, "machine and interface have one owner: {vm:#?}");
        assert!(vm.operation.is_none(), "{vm:#?}");
        for held in vm.before_quarantine.iter().chain([&nic.binding]) {
            for ip in &held.addresses {
                assert!(seen.insert((held.network.clone(), *ip)), "{ip} has two owners");
                let key = format!("address/{}/{ip}", held.network);
                let claim =
                    rows::load::<network::AddressClaim>(store, &Key::parse(&key).unwrap()).await.unwrap();
                assert_eq!(
                    claim.expect("a claim").row,
                    network::AddressClaim { nic: nic.id, draining: false }
                );
                claims += 1;
                let entry = network::directory_entry(store, &held.network, ip.0).await.unwrap();
                if *held == nic.binding {
                    assert_eq!(entry.expect("a directory entry").mac, nic.mac);
                } else {
                    assert_eq!(entry, None, "a machine in quarantine is not found");
                }
            }
        }
        let stocked = match vm.pool {
            Some(pool) => pool::stock(store, pool).await.unwrap().iter().any(|stocked| stocked.vm == vm.id),
            None => false,
        };
        assert_eq!(stocked, vm.state == VmState::Pooled, "{vm:#?}");
    }
    let keys = cluster.keys().await;
    let count = |kind: &str| keys.iter().filter(|key| key.split('/').next() == Some(kind)).count();
    assert_eq!(count("address"), claims, "claims without a machine: {keys:#?}");
    assert_eq!(count("nic"), machines.len());
    assert_eq!(count("mac"), machines.len());
    assert_eq!(count("on_host"), machines.len());
    assert_eq!(count("disk"), machines.len());
    assert_eq!(count("open"), 0, "{keys:#?}");
    let owned = machines.iter().filter(|vm| vm.row.tenant == cluster.tenant).count();
    let usage = tenant::usage_of(store, cluster.tenant).await.unwrap();
    assert_eq!(usage.vms as usize, owned, "the quota counts what there is");
    let names = keys.iter().filter(|key| key.starts_with(&format!("name/vm/{}/", cluster.tenant))).count();
    assert_eq!(names, owned);
    let held: BTreeSet<_> = keys.iter().filter(|key| key.starts_with("holder/")).collect();
    let holding =
        machines.iter().map(|vm| 1 + usize::from(vm.row.before_quarantine.is_some())).sum::<usize>();
    assert_eq!(held.len(), holding, "{held:#?}");
}

async fn hosts_at_work(store: Arc<dyn Store>, hosts: Vec<HostId>, moods: Arc<Mutex<BTreeMap<VmId, Mood>>>) {
    let mut watch = store.watch(&Prefix::all(), crate::store::Revision::default());
    loop {
        // What changes while hosts are at work is seen right after.
        let seen = store.revision().await.unwrap();
        for host in &hosts {
            one_host(&*store, *host, &moods).await;
        }
        let mut newest = seen;
        while newest <= seen {
            match watch.next().await {
                Some(crate::store::WatchItem::Changes { revision, .. }) => newest = revision,
                _ => watch = store.watch(&Prefix::all(), seen),
            }
        }
    }
}

async fn one_host(store: &dyn Store, host: HostId, moods: &Mutex<BTreeMap<VmId, Mood>>) {
    let revision = store.revision().await.unwrap();
    let mut progress = HostProgress { attached: true, ..HostProgress::default() };
    for network in network::all(store).await.unwrap() {
        progress.directory.insert(network.row.moniker, revision);
    }
    // Saying the same again would be news without end.
    let key = Key::of(["progress", &host.to_string()]).unwrap();
    let before = rows::load::<HostProgress>(store, &key).await.unwrap();
    let directories = store.list(&Prefix::parse("directory/").unwrap(), None, usize::MAX).await.unwrap();
    let claims = store.list(&Prefix::parse("address/").unwrap(), None, usize::MAX).await.unwrap();
    let newest = directories.entries.iter().chain(&claims.entries).map(|entry| entry.revision).max();
    let knows = before.is_some_and(|before| {
        newest.is_none_or(|newest| before.row.directory.values().all(|seen| *seen >= newest))
            && before.row.directory.len() == progress.directory.len()
    });
    let mut draft = Draft::new();
    if !knows {
        network::set_progress(&mut draft, host, &progress).unwrap();
    }
    for id in compute::on_host(store, host).await.unwrap() {
        let Some(vm) = compute::load_vm(store, id).await.unwrap() else { continue };
        let fact = compute::fact_of(store, id).await.unwrap().map(|fact| fact.row);
        if fact.as_ref().is_some_and(|fact| fact.generation >= vm.row.generation) {
            continue;
        }
        let mood = moods.lock().unwrap().get(&id).copied().filter(|_| !vm.row.partial);
        if let Some(new) = follow(&vm.row, mood, fact) {
            compute::put_fact(&mut draft, &new).unwrap();
        }
    }
    if !draft.writes_nothing() {
        store.commit(draft.finish().unwrap()).await.unwrap();
    }
}

/// What a host says after it has done what the row says.
fn follow(vm: &Vm, mood: Option<Mood>, before: Option<VmFact>) -> Option<VmFact> {
    let running = match (vm.state, mood) {
        (VmState::Deleting, _) => VmRunning::Gone,
        (_, Some(Mood::HostFails)) => {
            VmRunning::Failed { problem: Problem::new("no room", "host", "try elsewhere") }
        }
        _ => VmRunning::Running,
    };
    let phase = match mood {
        Some(Mood::Fails) => Some(Phase::Failed),
        Some(Mood::Silent) => None,
        _ if vm.partial => Some(Phase::Partial),
        _ => Some(Phase::Ready),
    };
    let report = phase.map(|phase| ReceivedReport {
        report: GuestReport {
            generation: vm.config_generation,
            phase,
            detail: (phase == Phase::Failed).then(|| "script exited with 1".to_owned()),
            boot_id: "boot".to_owned(),
            hostname: None,
            addresses: Vec::new(),
        },
        at: Timestamp::now(),
    });
    let report = report.or_else(|| before.and_then(|fact| fact.report));
    Some(VmFact {
        vm: vm.id,
        generation: vm.generation,
        running,
        times: None,
        report,
        heard_at: Some(Timestamp::now()),
        died_at: None,
    })
}
