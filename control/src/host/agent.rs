//! The agent: one worker per machine of the ledger, one for directories, one for the link; and what wakes them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dataplane::types::PhysicalIp;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::directory::Directories;
use super::facts::Facts;
use super::ledger::{Accepted, Held, Ledger};
use super::link::{self, Errand, Link};
use super::machine::{Around, Known, Machine, Remains, Wish};
use super::metadata::{Metadata, Report};
use super::networks::Networks;
use super::switch::Switch;
use crate::fleet::Pace;
use crate::hypervisor::{Hypervisor, VmEvent};
use crate::model::{Inventory, Name, Problem, VmId};

/// Machines that are worked at at once.
const AT_ONCE: usize = 8;
/// Updates of directories that wait for the switch.
const UPDATES: usize = 4;
/// How long workers may take to finish what they are at.
const FAREWELL: Duration = Duration::from_secs(10);
/// Between two looks for a switch that is not there.
const LOOK: Duration = Duration::from_millis(200);

/// What an agent is made of.
pub struct Parts {
    /// Its directory: identity, ledger.
    pub state_dir: PathBuf,
    /// Where controllers listen; empty: those that the join token named.
    pub controllers: Vec<String>,
    /// The switch's socket.
    pub switch: PathBuf,
    /// Publishes documents.
    pub metadata: Arc<dyn Metadata>,
    /// What guests say.
    pub reports: mpsc::Receiver<Report>,
    /// What runs machines.
    pub hypervisors: Vec<Arc<dyn Hypervisor>>,
    /// What this host has.
    pub inventory: Inventory,
    /// How long the link waits.
    pub pace: Pace,
}

/// A running agent.
pub struct Agent {
    shop: Arc<Shop>,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

/// What the agent's tasks share.
pub(super) struct Shop {
    pub(super) around: Arc<Around>,
    machines: Mutex<HashMap<VmId, watch::Sender<Wish>>>,
    workers: TaskTracker,
    /// Which machine has which port.
    ports: Mutex<BTreeMap<String, VmId>>,
    /// Machines that were found and that no document has named yet.
    orphans: Mutex<Vec<Remains>>,
}

impl Agent {
    /// Opens the ledger, finds what lives, and begins to work; whether a controller or the switch answers is not waited for.
    ///
    /// # Errors
    /// When the ledger cannot be had, the host has not joined, or a hypervisor cannot tell what it has.
    pub async fn start(parts: Parts) -> Result<Self, Problem> {
        let ledger = Arc::new(Ledger::open(&parts.state_dir).map_err(|error| error.problem())?);
        let switch = Arc::new(Switch::at(parts.switch));
        let mut hypervisors = BTreeMap::new();
        for hypervisor in parts.hypervisors {
            let name: Name = hypervisor.kind().parse().map_err(|error| {
                Problem::new(format!("{error}"), "hypervisor", "this is a mistake in the program")
            })?;
            hypervisors.insert(name, hypervisor);
        }
        let around = Arc::new(Around {
            ledger: ledger.clone(),
            switch: switch.clone(),
            networks: Arc::new(Networks::new(switch.clone(), ledger.clone())),
            metadata: parts.metadata,
            hypervisors,
            facts: Arc::new(Facts::default()),
            room: Semaphore::new(AT_ONCE),
            switches: AtomicU64::new(0),
        });
        let shop = Arc::new(Shop {
            around: around.clone(),
            machines: Mutex::default(),
            workers: TaskTracker::new(),
            ports: Mutex::default(),
            orphans: Mutex::default(),
        });
        let link = Link::new(&parts.state_dir, parts.controllers, parts.inventory.clone(), parts.pace)
            .map_err(|error| error.problem())?;
        let mut agent =
            Self { shop: shop.clone(), stopping: CancellationToken::new(), tasks: JoinSet::new() };
        agent.adopt(&ledger.held()).await?;
        agent.open(link, parts.reports, parts.inventory.physical_ip);
        Ok(agent)
    }

    /// Finds guests that live, and puts a worker to each machine. What nobody wants is removed.
    async fn adopt(&mut self, held: &Held) -> Result<(), Problem> {
        for (name, hypervisor) in &self.shop.around.hypervisors {
            // Before anybody asks how they are, so that no death goes unseen in between.
            let events = hypervisor.events();
            let found = hypervisor.adopt().await.map_err(|error| error.problem())?;
            let is_known = |vm: &VmId| held.vms.contains_key(vm) || held.leaving.contains_key(vm);
            for orphan in found.into_iter().filter(|found| !is_known(&found.vm)) {
                let port = orphan.spec.map(|spec| spec.port);
                let remains = Remains { vm: orphan.vm, generation: 0, hypervisor: name.clone(), port };
                self.shop.orphans.lock().unwrap_or_else(PoisonError::into_inner).push(remains);
            }
            self.tasks.spawn(watch_guests(self.shop.clone(), events));
        }
        for vm in held.vms.values() {
            self.shop.wish(Wish::Have(vm.clone()));
        }
        for vm in held.leaving.values() {
            self.shop.wish(Wish::Leave(vm.as_ref().into()));
        }
        // An empty ledger may be one that was lost: then the first document says who is an orphan.
        if held.generation.is_some() {
            self.shop.remove_orphans();
        }
        self.shop.around.networks.look();
        Ok(())
    }

    fn open(&mut self, link: Link, reports: mpsc::Receiver<Report>, own: PhysicalIp) {
        let around = self.shop.around.clone();
        let directories = Directories::new(around.switch.clone(), around.ledger.clone(), [own]);
        let directories = Arc::new(tokio::sync::Mutex::new(directories));
        let (errands, inbox) = mpsc::channel(UPDATES);
        let session = Arc::new(Mutex::new(CancellationToken::new()));
        let stop = |task| stopped_by(self.stopping.clone(), task);
        let tasks: [std::pin::Pin<Box<dyn Future<Output = ()> + Send>>; 5] = [
            Box::pin(hear_guests(self.shop.clone(), reports)),
            Box::pin(async move { around.networks.sweep_forever().await }),
            Box::pin(watch_switch(self.shop.clone(), directories.clone(), session.clone())),
            Box::pin(link::carry(self.shop.around.clone(), directories.clone(), inbox)),
            Box::pin(link.run(self.shop.clone(), directories, errands, session)),
        ];
        for task in tasks {
            self.tasks.spawn(stop(task));
        }
    }

    /// What is told of machines.
    #[must_use]
    pub fn facts(&self) -> &Arc<Facts> {
        &self.shop.around.facts
    }

    /// What is wanted.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.shop.around.ledger
    }

    /// Ends the agent. Guests live on, and so does the switch; what a worker is at is finished first.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        self.shop.lock().clear();
        self.shop.workers.close();
        if timeout(FAREWELL, self.shop.workers.wait()).await.is_err() {
            tracing::warn!("a machine is still being worked at; the next agent goes on there");
        }
        self.tasks.shutdown().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.shop.lock().clear();
    }
}

async fn stopped_by(stopping: CancellationToken, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
    tokio::select! {
        () = stopping.cancelled() => {}
        () = task => {}
    }
}

impl Shop {
    fn lock(&self) -> MutexGuard<'_, HashMap<VmId, watch::Sender<Wish>>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A document is in the ledger: its machines are worked at.
    pub(super) fn apply(self: &Arc<Self>, accepted: Accepted) {
        for vm in accepted.changed {
            self.wish(Wish::Have(vm));
        }
        let held = self.around.ledger.held();
        for vm in accepted.leaving.iter().filter_map(|vm| held.leaving.get(vm)) {
            self.wish(Wish::Leave(vm.as_ref().into()));
        }
        self.remove_orphans();
        if accepted.networks {
            self.around.networks.look();
        }
    }

    /// Machines that were found here and that the ledger does not know are to go.
    fn remove_orphans(self: &Arc<Self>) {
        let orphans = std::mem::take(&mut *self.orphans.lock().unwrap_or_else(PoisonError::into_inner));
        for orphan in orphans {
            if self.around.ledger.wanted(orphan.vm).is_none() {
                tracing::warn!(vm = %orphan.vm, "a machine that is not in the ledger is removed");
                self.wish(Wish::Leave(orphan));
            }
        }
    }

    fn wish(self: &Arc<Self>, wish: Wish) {
        let id = wish.vm();
        if let Some(port) = wish.port() {
            self.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(port.clone(), id);
        }
        let mut machines = self.lock();
        if let Some(wishes) = machines.get(&id) {
            wishes.send_replace(wish);
            return;
        }
        let (wishes, mut inbox) = watch::channel(wish);
        machines.insert(id, wishes);
        drop(machines);
        let shop = self.clone();
        self.workers.spawn(async move {
            let mut machine = Machine::new(shop.around.clone(), Known::Nothing);
            loop {
                let is_gone = machine.run(&mut inbox).await;
                let mut machines = shop.lock();
                // A wish may have come at the last moment.
                if is_gone && inbox.has_changed().unwrap_or(false) {
                    continue;
                }
                if is_gone {
                    machines.remove(&id);
                    let mut ports = shop.ports.lock().unwrap_or_else(PoisonError::into_inner);
                    ports.retain(|_, vm| *vm != id);
                }
                return;
            }
        });
    }

    /// Has a machine looked at again.
    fn kick(&self, vm: VmId) {
        if let Some(wishes) = self.lock().get(&vm) {
            wishes.send_modify(|_| {});
        }
    }

    fn kick_all(&self) {
        for wishes in self.lock().values() {
            wishes.send_modify(|_| {});
        }
    }
}

async fn watch_guests(shop: Arc<Shop>, mut events: broadcast::Receiver<VmEvent>) {
    loop {
        match events.recv().await {
            Ok(VmEvent::Died(running)) => {
                tracing::warn!(vm = %running.vm, "a guest has died");
                shop.kick(running.vm);
            }
            // Some were missed: every machine is looked at.
            Err(broadcast::error::RecvError::Lagged(_)) => shop.kick_all(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn hear_guests(shop: Arc<Shop>, mut reports: mpsc::Receiver<Report>) {
    while let Some(report) = reports.recv().await {
        let vm = shop.ports.lock().unwrap_or_else(PoisonError::into_inner).get(&report.port).copied();
        let wanted = vm.and_then(|vm| shop.around.ledger.wanted(vm));
        if let Some(wanted) = wanted {
            shop.around.facts.heard(wanted.vm, wanted.config.generation, report);
        }
    }
}

/// A switch that was started anew may have lost what it had: every machine is looked at again, and so are directories.
async fn watch_switch(
    shop: Arc<Shop>,
    directories: Arc<tokio::sync::Mutex<Directories>>,
    session: Arc<Mutex<CancellationToken>>,
) {
    let mut was_there = false;
    loop {
        if shop.around.switch.export().await.is_err() {
            sleep(LOOK).await;
            continue;
        }
        if std::mem::replace(&mut was_there, true) {
            tracing::info!("the switch was started anew");
            shop.around.switches.fetch_add(1, Ordering::AcqRel);
            shop.around.networks.forget().await;
            let held = directories.lock().await.held().await.unwrap_or_default();
            if shop.around.ledger.held().directories.len() != held.len() {
                tracing::warn!("the switch has lost its directory; it is asked for anew");
                session.lock().unwrap_or_else(PoisonError::into_inner).cancel();
            }
        }
        shop.kick_all();
        shop.around.networks.look();
        if shop.around.switch.ended().await.is_err() {
            sleep(LOOK).await;
        }
    }
}

pub(super) type Errands = mpsc::Receiver<Errand>;
