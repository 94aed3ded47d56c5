//! A controller's side of the link, and guests that are namespaces and nothing else: what the tests of the host agent
//! put around it.
#![allow(dead_code, reason = "each test file uses its own part of the town")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use async_trait::async_trait;
use control::fleet::enrolment::{MemoryEnrolment, TokenRow};
use control::fleet::identity::{Authority, JoinToken, Secret};
use control::fleet::{
    DesiredBoard, DirectoryBoard, DirectoryEntry, Fleet, FleetServer, HostSink, Pace, SourceError,
};
use control::host::{Agent, Metadata, Parts, Report};
use control::hypervisor::{Found, Hypervisor, HypervisorError, Running, Stop, VmEvent, VmPower, VmSpec};
use control::lab::World;
use control::model::{
    GuestConfig, HostDesired, HostId, Inventory, Power, Problem, Settings, VmDesired, VmFact, VmId, VmRunning,
};
use dataplane::desired::{NetworkConfig, Subnet};
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, Vni};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc};

use crate::scene::PATIENCE;

pub(crate) fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

pub(crate) fn network(number: u32) -> Arc<NetworkConfig> {
    Arc::new(NetworkConfig {
        vni: vni(number),
        subnets: vec![Subnet::with_first_gateway("10.0.0.0/16".parse().unwrap())],
        dns: vec![],
        domain: None,
        mtu: None,
        lease_seconds: 3600,
        routes: vec![],
    })
}

/// A machine of generation 1 with this port and these addresses in network 100.
pub(crate) fn vm(port: &str, last: u8) -> VmDesired {
    let vm = VmId::new();
    VmDesired {
        vm,
        generation: 1,
        power: Power::Running,
        hypervisor: "netns".parse().unwrap(),
        image: "netns".parse().unwrap(),
        vcpus: 1,
        memory_mib: 64,
        port: port.to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        network: vni(100),
        ips: vec![ip(last)],
        rules: vec![],
        config: GuestConfig {
            generation: 1,
            vm_id: vm,
            partial: true,
            hostname: "placeholder".to_owned(),
            settings: Settings::default(),
            network: None,
        },
        bounces: 0,
    }
}

/// The same machine elsewhere, one generation on.
pub(crate) fn moved(vm: &VmDesired, network: u32, last: u8) -> VmDesired {
    let mut moved = vm.clone();
    moved.generation += 1;
    moved.config.generation += 1;
    moved.network = vni(network);
    moved.ips = vec![ip(last)];
    moved
}

pub(crate) fn ip(last: u8) -> CustomerIp {
    CustomerIp(IpAddr::from([10, 0, 0, last]))
}

pub(crate) fn entry(last: u8, host: u8) -> DirectoryEntry {
    let physical_ip = PhysicalIp(IpAddr::from([192, 0, 2, host]));
    DirectoryEntry { ip: ip(last), mac: MacAddr([2, 0, 0, 0, 0, last]), physical_ip }
}

pub(crate) fn document(generation: u64, networks: &[u32], vms: &[&VmDesired]) -> HostDesired {
    HostDesired {
        generation,
        networks: networks.iter().map(|number| network(*number)).collect(),
        vms: vms.iter().map(|vm| Arc::new((*vm).clone())).collect(),
    }
}

/// What hosts have said.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) facts: Mutex<Vec<VmFact>>,
    pub(crate) refused: Mutex<Vec<Problem>>,
    pub(crate) inventory: Mutex<Option<Inventory>>,
}

impl Heard {
    pub(crate) fn last(&self, vm: VmId) -> Option<VmFact> {
        self.facts.lock().unwrap().iter().rev().find(|fact| fact.vm == vm).cloned()
    }
}

#[async_trait]
impl HostSink for Heard {
    async fn hello(&self, _: HostId, inventory: Inventory) -> Result<(), SourceError> {
        *self.inventory.lock().unwrap() = Some(inventory);
        Ok(())
    }
    async fn facts(&self, _: HostId, facts: Vec<VmFact>) -> Result<(), SourceError> {
        self.facts.lock().unwrap().extend(facts);
        Ok(())
    }
    async fn refused(&self, _: HostId, problem: Problem, _: Option<u64>) -> Result<(), SourceError> {
        self.refused.lock().unwrap().push(problem);
        Ok(())
    }
    async fn gone(&self, _: HostId) {}
}

/// A controller with one host.
pub(crate) struct Town {
    pub(crate) authority: Arc<Authority>,
    pub(crate) enrolment: Arc<MemoryEnrolment>,
    pub(crate) desired: Arc<DesiredBoard>,
    pub(crate) directory: Arc<DirectoryBoard>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) server: Option<FleetServer>,
    pub(crate) host: HostId,
    address: String,
    pub(crate) state: tempfile::TempDir,
    runtime: Runtime,
}

impl Town {
    /// Starts a controller, and joins a host to it whose state is in `state`.
    pub(crate) fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let now = jiff::Timestamp::now();
        let authority = Arc::new(Authority::open(&state.path().join("controller"), now).unwrap());
        let mut town = Self {
            authority,
            enrolment: Arc::default(),
            desired: Arc::default(),
            directory: Arc::default(),
            heard: Arc::default(),
            server: None,
            host: HostId::fixed(0),
            address: "127.0.0.1:0".to_owned(),
            state,
            runtime,
        };
        town.start();
        let secret = Secret::new().unwrap();
        let expires_at = now + Duration::from_secs(60);
        town.enrolment.issue(TokenRow { hash: secret.hash(), name: None, expires_at, used: None });
        let authority = town.authority.certificate().clone();
        let token = JoinToken { authority, secret, addresses: vec![town.address.clone()] };
        let name = "host-a".parse().unwrap();
        town.host = town.runtime.block_on(control::host::join(&town.host_dir(), &token, &name)).unwrap();
        town
    }

    pub(crate) fn host_dir(&self) -> std::path::PathBuf {
        self.state.path().join("host")
    }

    /// Starts the controller, at the same address as before.
    pub(crate) fn start(&mut self) {
        let fleet = Fleet {
            authority: self.authority.clone(),
            enrolment: self.enrolment.clone(),
            desired: self.desired.clone(),
            directory: self.directory.clone(),
            sink: self.heard.clone(),
            pace: Pace::default(),
        };
        let listening = self.runtime.block_on(async {
            let listener = TcpListener::bind(&self.address).await.unwrap();
            (listener.local_addr().unwrap().to_string(), fleet.serve(listener).unwrap())
        });
        self.address = listening.0;
        self.server = Some(listening.1);
    }

    /// Ends the controller.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }

    /// Waits for a fact about a machine.
    pub(crate) fn wait(&self, vm: VmId, what: &str, holds: impl Fn(&VmFact) -> bool) -> VmFact {
        let start = Instant::now();
        loop {
            let found = self.heard.last(vm);
            if let Some(fact) = found.as_ref().filter(|fact| holds(fact)) {
                return fact.clone();
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}; the last fact is {found:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the machine runs as this generation wants it.
    pub(crate) fn running(&self, vm: &VmDesired) -> VmFact {
        self.wait(vm.vm, &format!("generation {} of {}", vm.generation, vm.port), |fact| {
            fact.generation == vm.generation && fact.running == VmRunning::Running
        })
    }
}

/// What a fake does at its n-th call: everything that comes later than a crash must find it as it then was.
#[derive(Debug, Default)]
pub(crate) struct Fuse {
    /// Calls until it goes off; none: never.
    left: Mutex<Option<usize>>,
    pub(crate) has_blown: std::sync::atomic::AtomicBool,
}

impl Fuse {
    pub(crate) fn set(&self, calls: Option<usize>) {
        *self.left.lock().unwrap() = calls;
        self.has_blown.store(false, std::sync::atomic::Ordering::SeqCst);
    }

    /// Never returns when it has gone off: the agent hangs here until it is killed.
    async fn burn(&self) {
        let goes_off = {
            let mut left = self.left.lock().unwrap();
            match left.as_mut() {
                Some(0) => true,
                Some(more) => {
                    *more -= 1;
                    false
                }
                None => false,
            }
        };
        if goes_off {
            self.has_blown.store(true, std::sync::atomic::Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }
}

/// A hypervisor whose machines are namespaces of a world. It outlives agents, as real guests do.
pub(crate) struct Namespaces {
    world: Arc<World>,
    machines: Mutex<BTreeMap<VmId, (VmSpec, Option<Running>)>>,
    events: broadcast::Sender<VmEvent>,
    pub(crate) fuse: Arc<Fuse>,
    pub(crate) starts: Mutex<Vec<VmId>>,
}

impl Namespaces {
    pub(crate) fn new(world: &Arc<World>, fuse: Arc<Fuse>) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            machines: Mutex::default(),
            events: broadcast::channel(16).0,
            fuse,
            starts: Mutex::default(),
        })
    }

    /// The guest ends by itself.
    pub(crate) fn die(&self, vm: VmId) {
        let running = self.machines.lock().unwrap().get_mut(&vm).unwrap().1.take().unwrap();
        let _ = self.events.send(VmEvent::Died(running));
    }

    /// The ports of all machines that are there.
    pub(crate) fn ports(&self) -> BTreeSet<String> {
        self.machines.lock().unwrap().values().map(|(spec, _)| spec.port.clone()).collect()
    }

    pub(crate) fn boot_id(&self, vm: VmId) -> Option<String> {
        Some(self.machines.lock().unwrap().get(&vm)?.1.as_ref()?.boot_id.clone())
    }
}

#[async_trait]
impl Hypervisor for Namespaces {
    fn kind(&self) -> &'static str {
        "netns"
    }

    async fn create(&self, spec: &VmSpec) -> Result<(), HypervisorError> {
        self.fuse.burn().await;
        if self.machines.lock().unwrap().contains_key(&spec.vm) {
            return Ok(());
        }
        self.world.add_netns(&spec.port).unwrap();
        self.machines.lock().unwrap().insert(spec.vm, (spec.clone(), None));
        self.fuse.burn().await;
        Ok(())
    }

    async fn start(&self, vm: VmId) -> Result<Running, HypervisorError> {
        self.fuse.burn().await;
        let running = Running { vm, boot_id: VmId::new().to_string(), pid: 0 };
        let started = {
            let mut machines = self.machines.lock().unwrap();
            let (_, state) = machines.get_mut(&vm).ok_or(HypervisorError::Absent(vm))?;
            self.starts.lock().unwrap().push(vm);
            state.get_or_insert(running).clone()
        };
        self.fuse.burn().await;
        Ok(started)
    }

    async fn stop(&self, vm: VmId, _: Stop) -> Result<(), HypervisorError> {
        self.fuse.burn().await;
        if let Some((_, state)) = self.machines.lock().unwrap().get_mut(&vm) {
            *state = None;
        }
        Ok(())
    }

    async fn destroy(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.fuse.burn().await;
        let gone = self.machines.lock().unwrap().remove(&vm);
        if let Some((spec, _)) = gone {
            self.world.run(None, "ip", &["netns", "delete", &spec.port]).unwrap();
        }
        self.fuse.burn().await;
        Ok(())
    }

    async fn adopt(&self) -> Result<Vec<Found>, HypervisorError> {
        let machines = self.machines.lock().unwrap();
        let found = |(vm, (spec, running)): (&VmId, &(VmSpec, Option<Running>))| Found {
            spec: Some(spec.clone()),
            vm: *vm,
            running: running.clone(),
        };
        Ok(machines.iter().map(found).collect())
    }

    async fn state(&self, vm: VmId) -> Result<VmPower, HypervisorError> {
        Ok(match self.machines.lock().unwrap().get(&vm) {
            None => VmPower::Absent,
            Some((_, None)) => VmPower::Stopped,
            Some((_, Some(running))) => VmPower::Running(running.clone()),
        })
    }

    async fn link(&self, _: VmId, _: bool) -> Result<Option<()>, HypervisorError> {
        Ok(None)
    }

    fn hold(&self) -> Duration {
        Duration::from_millis(10)
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.events.subscribe()
    }
}

/// A metadata service that remembers what is published.
#[derive(Default)]
pub(crate) struct Noticeboard {
    pub(crate) published: Mutex<BTreeMap<(String, String), u64>>,
    pub(crate) fuse: Arc<Fuse>,
}

#[async_trait]
impl Metadata for Noticeboard {
    async fn publish(&self, vm: &VmDesired, label: &str) -> Result<(), Problem> {
        self.fuse.burn().await;
        let key = (vm.port.clone(), label.to_owned());
        self.published.lock().unwrap().insert(key, vm.config.generation);
        self.fuse.burn().await;
        Ok(())
    }

    async fn retire(&self, port: &str, except: Option<&str>) {
        self.published.lock().unwrap().retain(|(of, label), _| of != port || Some(label.as_str()) == except);
    }
}

/// A host agent in a runtime of its own, so that it can be killed.
pub(crate) struct HostAgent {
    agent: Option<Agent>,
    runtime: Option<Runtime>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) board: Arc<Noticeboard>,
}

impl HostAgent {
    pub(crate) fn new(town: &Town, switch: &Path, hypervisor: &Arc<Namespaces>) -> Self {
        let runtime = Runtime::new().unwrap();
        let board = Arc::new(Noticeboard { fuse: hypervisor.fuse.clone(), ..Noticeboard::default() });
        let (reports, inbox) = mpsc::channel(16);
        let parts = Parts {
            state_dir: town.host_dir(),
            controllers: vec![],
            switch: switch.to_owned(),
            metadata: board.clone(),
            reports: inbox,
            hypervisors: vec![hypervisor.clone()],
            inventory: Inventory {
                physical_ip: PhysicalIp(IpAddr::from([192, 0, 2, 1])),
                cpus: 2,
                memory_mib: 1024,
                hypervisors: vec!["netns".parse().unwrap()],
                version: "0".to_owned(),
            },
            pace: Pace::default(),
        };
        let agent = runtime.block_on(Agent::start(parts)).unwrap_or_else(|problem| panic!("{problem}"));
        Self { agent: Some(agent), runtime: Some(runtime), reports, board }
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) {
        if let (Some(agent), Some(runtime)) = (self.agent.take(), self.runtime.as_ref()) {
            runtime.block_on(agent.stop());
        }
    }
}

impl Drop for HostAgent {
    /// As a crash would: whatever a task waits for, it never gets it. What the kernel was told goes on to its end.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
        self.agent = None;
    }
}
