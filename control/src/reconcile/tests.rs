//! Journeys over rows and boards: hosts here see nothing but the boards, as sessions do, and say what they did.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::types::{CustomerIp, PhysicalIp, Vni};
use jiff::Timestamp;

use super::{Feeder, Hearing};
use crate::compute;
use crate::fleet::{DesiredBoard, DesiredSource, DirectoryBoard, DirectorySource, HostSink};
use crate::model::{
    Combination, GuestReport, Host, HostId, HostState, Inventory, JourneyKind, Name, Operation,
    OperationState, Phase, Pool, PoolId, Quota, ReceivedReport, Settings, Sizing, Tenant, VmDesired, VmFact,
    VmId, VmRunning,
};
use crate::network::{self, HostProgress, NetworkSpec};
use crate::pool;
use crate::store::{Draft, MemoryStore, Revision, Store};
use crate::tenant;
use crate::workflow::requests::{CreateVm, FillPool, OneVm};
use crate::workflow::{Limits, Runner, World, operation_key};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn combination() -> Combination {
    Combination {
        hypervisor: name("netns"),
        image: name("tiny"),
        vcpus: 1,
        memory_mib: 64,
        storage: name("none"),
        ip_routing: name("ipv4"),
    }
}

/// A host that does at once what its board says, and remembers what it was told of directories.
async fn host(
    id: HostId,
    store: Arc<dyn Store>,
    desired: Arc<DesiredBoard>,
    directory: Arc<DirectoryBoard>,
    told: Arc<std::sync::Mutex<BTreeMap<VmId, Arc<VmDesired>>>>,
) {
    let hearing = Hearing::new(Arc::clone(&store));
    let mut news = desired.watch(id);
    let mut held = None;
    loop {
        if let Some(change) = desired.changes(id, held).await.unwrap() {
            held = Some(change.generation);
            let mut facts = Vec::new();
            for vm in &change.vms {
                told.lock().unwrap().insert(vm.vm, Arc::clone(vm));
                facts.push(followed(vm));
            }
            for vm in &change.removed {
                told.lock().unwrap().remove(vm);
                facts.push(VmFact {
                    vm: *vm,
                    generation: u64::MAX,
                    running: VmRunning::Gone,
                    times: None,
                    report: None,
                    heard_at: None,
                    died_at: None,
                });
            }
            hearing.facts(id, facts).await.unwrap();
            let mut progress = HostProgress { attached: true, ..HostProgress::default() };
            for network in &change.networks {
                let moniker = network::by_vni(&*store, network.vni).await.unwrap().unwrap();
                progress.directory.insert(moniker, Revision(*directory.watch(network.vni).borrow()));
            }
            let mut draft = Draft::new();
            network::set_progress(&mut draft, id, &progress).unwrap();
            store.commit(draft.finish().unwrap()).await.unwrap();
        }
        tokio::select! {
            changed = news.changed() => changed.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}

fn followed(vm: &VmDesired) -> VmFact {
    let phase = if vm.config.partial { Phase::Partial } else { Phase::Ready };
    let report = GuestReport {
        generation: vm.config.generation,
        phase,
        detail: None,
        boot_id: "boot".to_owned(),
        hostname: Some(vm.config.hostname.clone()),
        addresses: Vec::new(),
    };
    VmFact {
        vm: vm.vm,
        generation: vm.generation,
        running: VmRunning::Running,
        times: None,
        report: Some(ReceivedReport { report, at: Timestamp::now() }),
        heard_at: Some(Timestamp::now()),
        died_at: None,
    }
}

async fn entries(directory: &DirectoryBoard, vni: Vni) -> Vec<IpAddr> {
    let page = directory.page(vni, None, 100).await.unwrap();
    page.entries.iter().map(|entry| entry.ip.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rows_mean_reaches_hosts_and_what_hosts_say_reaches_rows() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let now = Timestamp::now();
    network::ensure_platform_networks(&*store, now).await.unwrap();
    let mut draft = Draft::new();
    let acme = tenant::create(&mut draft, &name("acme"), Quota::default(), now).unwrap().id;
    let id = HostId::new();
    let inventory = Inventory {
        physical_ip: PhysicalIp([192, 0, 2, 1].into()),
        cpus: 2,
        memory_mib: 4096,
        hypervisors: vec![name("netns")],
        version: String::new(),
    };
    let row = Host { id, name: name("host-1"), state: HostState::Ready, inventory, created_at: now };
    compute::put_host(&mut draft, &row).unwrap();
    network::set_progress(&mut draft, id, &HostProgress { attached: true, ..HostProgress::default() })
        .unwrap();
    let spec = NetworkSpec {
        prefixes: vec!["10.0.0.0/24".parse().unwrap()],
        dns: vec!["10.0.0.53".parse().unwrap()],
        domain: Some("acme.example".parse().unwrap()),
        mtu: None,
        lease_seconds: 600,
    };
    let red = network::create(&*store, &mut draft, acme, &name("red"), &spec, now).await.unwrap();
    let pool = Pool {
        id: PoolId::new(),
        name: name("small"),
        combination: combination(),
        sizing: Sizing { min: 0, max: 9, hit_rate: 0.9, budget_hours: None },
        draining: false,
        created_at: now,
    };
    draft.put_row(&pool::pool_key(pool.id).unwrap(), &pool);
    store.commit(draft.finish().unwrap()).await.unwrap();

    let (desired, directory) = (Arc::<DesiredBoard>::default(), Arc::<DirectoryBoard>::default());
    let mut feeder = Feeder::new(Arc::clone(&store), Arc::clone(&desired), Arc::clone(&directory));
    let feeding = tokio::spawn(async move { feeder.run().await });
    let told = Arc::default();
    let working = tokio::spawn(host(
        id,
        Arc::clone(&store),
        Arc::clone(&desired),
        Arc::clone(&directory),
        Arc::clone(&told),
    ));

    let runner = Runner::new(World::new(Arc::clone(&store), "a", Limits::default()));
    let carried_out = |tenant, kind, request| {
        let (runner, store) = (runner.clone(), Arc::clone(&store));
        async move {
            let operation = runner.submit(tenant, kind, request, None, None).await.unwrap().id;
            for _ in 0..2000 {
                let key = operation_key(operation).unwrap();
                let row = crate::store::rows::load::<Operation>(&*store, &key).await.unwrap().unwrap().row;
                if row.state.is_final() {
                    assert_eq!(row.state, OperationState::Done, "{row:#?}");
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("{kind} does not end");
        }
    };
    let filled = serde_json::to_value(FillPool { pool: pool.id }).unwrap();
    let vm = carried_out(Tenant::PLATFORM, JourneyKind::PoolFill, filled).await.vm.unwrap();
    let waiting = told.lock().unwrap()[&vm].clone();
    assert!(waiting.config.partial && waiting.config.hostname.starts_with("pool-"));
    assert_eq!(waiting.rules.len(), 2, "it reaches nobody: {waiting:#?}");

    let wish = CreateVm {
        name: name("web-1"),
        combination: combination(),
        network: red.moniker.clone(),
        addresses: vec![CustomerIp([10, 0, 0, 9].into())],
        settings: Settings { time_zone: Some("Europe/Berlin".to_owned()), ..Settings::default() },
        rules: Vec::new(),
    };
    carried_out(acme, JourneyKind::HandOver, serde_json::to_value(wish).unwrap()).await;
    let running = told.lock().unwrap()[&vm].clone();
    assert_eq!((running.mac, &running.port), (waiting.mac, &waiting.port), "for life");
    assert!(running.generation > waiting.generation && running.config.generation > waiting.config.generation);
    assert_eq!(running.config.hostname, "web-1");
    assert_eq!(running.config.settings.time_zone.as_deref(), Some("Europe/Berlin"));
    let network = running.config.network.clone().unwrap();
    assert_eq!(network.addresses, ["10.0.0.9/24".parse().unwrap()]);
    assert_eq!((network.domain.as_deref(), network.dns.len()), (Some("acme.example"), 1));
    assert!(running.rules.is_empty() && running.network != waiting.network);
    assert_eq!(entries(&directory, running.network).await, [IpAddr::from([10, 0, 0, 9])]);
    assert!(entries(&directory, waiting.network).await.is_empty(), "forgotten");

    let other = HostId::new();
    let lie = VmFact { running: VmRunning::Dead, ..followed(&running) };
    Hearing::new(Arc::clone(&store)).facts(other, vec![lie]).await.unwrap();
    let fact = compute::fact_of(&*store, vm).await.unwrap().unwrap().row;
    assert_eq!(fact.running, VmRunning::Running, "only a machine's own host speaks for it");

    let one = serde_json::to_value(OneVm { vm, reason: None }).unwrap();
    carried_out(acme, JourneyKind::VmDelete, one).await;
    assert!(told.lock().unwrap().is_empty());
    assert!(compute::fact_of(&*store, vm).await.unwrap().is_none());
    let freed = async {
        while network::free_addresses(&*store).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), freed).await.expect("addresses drain");
    feeding.abort();
    working.abort();
}
