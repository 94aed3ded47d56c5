//! One machine: what is there is compared with what should be, and the difference is done, in this order: its network, its
//! making, its document, its port (link down, swap, settle, hold, link up), its power. Each act may be repeated, so whatever
//! interrupts it, the next attempt goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dataplane::ctl::Request;
use dataplane::ctl::protocol::{BounceOrder, Changed, Moved, PortDetail};
use dataplane::desired::{PortConfig, PortName};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};

use super::facts::Facts;
use super::ledger::Ledger;
use super::metadata::Metadata;
use super::networks::Networks;
use super::switch::{self, Switch, SwitchFault};
use crate::hypervisor::{Hypervisor, Stop, VmPower, VmSpec};
use crate::model::{ChangeTimes, Name, Power, Problem, VmDesired, VmId, VmRunning};

/// How long a machine may take to end by its power button.
const BUTTON: Duration = Duration::from_secs(10);
/// A machine that ended sooner after its start than this is started again later and later.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// The first and the longest pause before another attempt.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A switch that is started anew is back sooner: until then its absence is nobody's failure.
const RESTART: Duration = Duration::from_secs(10);
/// Between two attempts while the switch is away.
const LOOK: Duration = Duration::from_millis(100);
/// How long a guest is watched after a change of its port.
const WATCH: Duration = Duration::from_secs(60);

/// All that machines are made with.
pub(super) struct Around {
    /// What should be.
    pub(super) ledger: Arc<Ledger>,
    /// The switch.
    pub(super) switch: Arc<Switch>,
    /// Its networks.
    pub(super) networks: Arc<Networks>,
    /// Publishes documents.
    pub(super) metadata: Arc<dyn Metadata>,
    /// What runs machines, by name.
    pub(super) hypervisors: BTreeMap<Name, Arc<dyn Hypervisor>>,
    /// What is told.
    pub(super) facts: Arc<Facts>,
    /// How many machines are worked at at once.
    pub(super) room: Semaphore,
    /// Grows when the switch was started anew: what is known of ports may be wrong.
    pub(super) switches: AtomicU64,
}

/// What should become of a machine.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// It should be like this.
    Have(Arc<VmDesired>),
    /// Nothing should be left of it.
    Leave(Remains),
}

/// What is known of a machine that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remains {
    /// Which.
    pub(super) vm: VmId,
    /// The generation that was wanted last; 0: none that this host knows of.
    pub(super) generation: u64,
    /// What ran it.
    pub(super) hypervisor: Name,
    /// Its port, if it got as far.
    pub(super) port: Option<String>,
}

impl From<&VmDesired> for Remains {
    fn from(vm: &VmDesired) -> Self {
        let VmDesired { vm, generation, hypervisor, port, .. } = vm;
        Self { vm: *vm, generation: *generation, hypervisor: hypervisor.clone(), port: Some(port.clone()) }
    }
}

impl Wish {
    /// Which machine.
    pub(super) fn vm(&self) -> VmId {
        match self {
            Self::Have(vm) => vm.vm,
            Self::Leave(remains) => remains.vm,
        }
    }

    /// Its port.
    pub(super) fn port(&self) -> Option<&String> {
        match self {
            Self::Have(vm) => Some(&vm.port),
            Self::Leave(remains) => remains.port.as_ref(),
        }
    }

    /// The generations of machine and document that it is about.
    fn generations(&self) -> (u64, u64) {
        match self {
            Self::Have(vm) => (vm.generation, vm.config.generation),
            Self::Leave(remains) => (remains.generation, 0),
        }
    }
}

/// What is known of a machine's port on the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// It must be asked.
    Nothing,
    /// It is not there.
    Absent,
    /// It is there, like this.
    Port(Box<PortConfig>),
}

/// A machine's worker.
pub(super) struct Machine {
    around: Arc<Around>,
    port: Known,
    /// The switch that the port is known of.
    switch: u64,
    /// What happened at the last start.
    started: Option<Instant>,
    short_lives: u32,
    /// The link was not looked at since the agent started.
    is_new: bool,
}

/// What is left to do after an attempt that met no obstacle.
enum Left {
    Nothing,
    /// Another attempt, later.
    Later(Duration),
    /// The machine is gone.
    End,
}

/// What an attempt met.
enum Obstacle {
    /// The switch is not there.
    SwitchAway(Problem),
    /// Anything else.
    Problem(Problem),
}

impl From<SwitchFault> for Obstacle {
    fn from(fault: SwitchFault) -> Self {
        match fault {
            SwitchFault::Away(problem) => Self::SwitchAway(problem),
            other => Self::Problem(other.problem()),
        }
    }
}

impl From<Problem> for Obstacle {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Machine {
    /// A worker for a machine whose port is known to be so.
    #[must_use]
    pub(super) fn new(around: Arc<Around>, port: Known) -> Self {
        let switch = around.switches.load(Ordering::Acquire);
        Self { around, port, switch, started: None, short_lives: 0, is_new: true }
    }

    /// Works whenever the wish changes or is said again. Ends with true when nothing of the machine should be left and
    /// nothing is; with false when nobody wishes any more.
    pub(super) async fn run(&mut self, wishes: &mut watch::Receiver<Wish>) -> bool {
        let mut failures = 0;
        let mut away: Option<Instant> = None;
        loop {
            let wish = wishes.borrow_and_update().clone();
            let vm = wish.vm();
            // Never closed.
            let around = self.around.clone();
            let room = around.room.acquire().await;
            let switch = self.around.switches.load(Ordering::Acquire);
            if switch != self.switch {
                (self.switch, self.port) = (switch, Known::Nothing);
            }
            let outcome = self.work(&wish).await;
            drop(room);
            let pause = match outcome {
                Ok(Left::End) => return true,
                Ok(Left::Nothing) => None,
                Ok(Left::Later(pause)) => Some(pause),
                Err(Obstacle::SwitchAway(_)) if away.get_or_insert_with(Instant::now).elapsed() < RESTART => {
                    self.forget().await;
                    Some(LOOK)
                }
                Err(Obstacle::SwitchAway(problem) | Obstacle::Problem(problem)) => {
                    self.forget().await;
                    tracing::warn!(%vm, %problem, "a machine is not as it should be");
                    let pause = backoff(failures);
                    failures += 1;
                    let (generation, config) = wish.generations();
                    self.around.facts.is(vm, generation, config, VmRunning::Failed { problem }, None);
                    Some(pause)
                }
            };
            if pause.is_none() {
                (failures, away) = (0, None);
            }
            let changed = match pause {
                None => wishes.changed().await,
                Some(pause) => tokio::select! {
                    changed = wishes.changed() => changed,
                    () = sleep(pause) => Ok(()),
                },
            };
            if changed.is_err() {
                return false;
            }
        }
    }

    /// Whatever an attempt met, what is on the switch may be other than we think.
    async fn forget(&mut self) {
        self.port = Known::Nothing;
        self.around.networks.forget().await;
    }

    fn tell(&self, vm: &VmDesired, running: VmRunning, times: Option<ChangeTimes>) {
        self.around.facts.is(vm.vm, vm.generation, vm.config.generation, running, times);
    }

    async fn work(&mut self, wish: &Wish) -> Result<Left, Obstacle> {
        let name = match wish {
            Wish::Have(vm) => &vm.hypervisor,
            Wish::Leave(remains) => &remains.hypervisor,
        };
        let hypervisor = self.around.hypervisors.get(name).cloned().ok_or_else(|| {
            Problem::new(
                format!("this host has no hypervisor {name}"),
                format!("vm {}", wish.vm()),
                "name it in host.toml, or put the machine on another host",
            )
        })?;
        match wish {
            Wish::Have(vm) => self.have(vm, hypervisor.as_ref()).await,
            Wish::Leave(remains) => self.leave(remains, hypervisor.as_ref()).await,
        }
    }

    async fn have(&mut self, vm: &Arc<VmDesired>, hypervisor: &dyn Hypervisor) -> Result<Left, Obstacle> {
        let told = self.around.facts.of(vm.vm);
        if told.is_none_or(|fact| fact.generation != vm.generation) {
            self.tell(vm, VmRunning::Pending, None);
        }
        self.around.networks.ensure(vm.network).await?;
        let mut state = hypervisor.state(vm.vm).await.map_err(|error| error.problem())?;
        if state == VmPower::Absent {
            hypervisor.create(&spec(vm)).await.map_err(|error| error.problem())?;
            state = VmPower::Stopped;
        }
        let is_running = matches!(state, VmPower::Running(_));
        if std::mem::take(&mut self.is_new) && is_running {
            // An agent that died in a bounce left the link down.
            hypervisor.link(vm.vm, true).await.map_err(|error| error.problem())?;
        }
        let label = switch::label(vm);
        self.around.metadata.publish(vm, &label).await?;
        let times = self.port(vm, hypervisor, is_running).await?;
        self.around.metadata.retire(&vm.port, Some(&label)).await;
        if let Some(pause) = self.power(vm, hypervisor, is_running).await? {
            return Ok(Left::Later(pause));
        }
        self.tell(vm, VmRunning::Running, times);
        if times.is_some() {
            tokio::spawn(follow(self.around.clone(), vm.clone()));
        }
        Ok(Left::Nothing)
    }

    /// The machine's port: added, or moved with what its guest needs to notice.
    async fn port(
        &mut self,
        vm: &VmDesired,
        hypervisor: &dyn Hypervisor,
        is_running: bool,
    ) -> Result<Option<ChangeTimes>, Obstacle> {
        let should = switch::port(vm, hypervisor.port_kind())?;
        let mut is = self.look(&should.name).await?;
        // What is not known to be so any more if this is interrupted.
        self.port = Known::Nothing;
        if let Known::Port(port) = &is
            && !switch::is_same_device(port, &should)
        {
            let _: Changed =
                self.around.switch.call(Request::PortRemove { port: should.name.clone() }).await?;
            is = Known::Absent;
        }
        let times = match is {
            Known::Port(is) if *is == should => None,
            Known::Port(is) => {
                let binding_changes = (is.network, &is.ips) != (should.network, &should.ips);
                let is_asked = switch::bounces(&is) != switch::bounces(&should);
                let bounces = (binding_changes || is_asked) && is_running;
                let by_hypervisor = bounces
                    && hypervisor.link(vm.vm, false).await.map_err(|error| error.problem())?.is_some();
                let hold = hypervisor.hold();
                let order = match u64::try_from(hold.as_millis()) {
                    _ if !bounces || by_hypervisor => BounceOrder::No,
                    Ok(0) | Err(_) => BounceOrder::Adaptive,
                    Ok(hold) => BounceOrder::HoldMs(hold),
                };
                let moved = self.around.switch.call::<Moved>(switch::move_to(&should, order)).await;
                if by_hypervisor {
                    // Also after a failure: a link that nobody lifts stays down for ever.
                    sleep(hold).await;
                    hypervisor.link(vm.vm, true).await.map_err(|error| error.problem())?;
                }
                let moved = moved?;
                self.around.networks.look();
                Some(ChangeTimes::from(&moved))
            }
            Known::Absent | Known::Nothing => {
                let added: Changed =
                    self.around.switch.call(Request::PortAdd { port: should.clone() }).await?;
                let (swap_ns, settled_ns) = (added.swap_ns, added.settled_ns);
                Some(ChangeTimes { swap_ns, settled_ns, ..ChangeTimes::default() })
            }
        };
        self.port = Known::Port(Box::new(should));
        Ok(times)
    }

    /// What is on the switch by this name.
    async fn look(&self, name: &PortName) -> Result<Known, SwitchFault> {
        if self.port != Known::Nothing {
            return Ok(self.port.clone());
        }
        let document = self.around.switch.export().await?;
        let port = document.port(name);
        Ok(port.map_or(Known::Absent, |port| Known::Port(Box::new(port.as_ref().clone()))))
    }

    /// Starts or stops it; a pause when it must wait before its next start.
    async fn power(
        &mut self,
        vm: &VmDesired,
        hypervisor: &dyn Hypervisor,
        is_running: bool,
    ) -> Result<Option<Duration>, Problem> {
        match (vm.power, is_running) {
            (Power::Running, true) => self.note(vm.vm, true).await?,
            (Power::Stopped, false) => self.note(vm.vm, false).await?,
            (Power::Running, false) => {
                if self.around.ledger.was_started(vm.vm) {
                    self.around.facts.died(vm.vm, vm.generation);
                    if let Some(pause) = self.before_next_start() {
                        return Ok(Some(pause));
                    }
                }
                hypervisor.start(vm.vm).await.map_err(|error| error.problem())?;
                self.started = Some(Instant::now());
                self.note(vm.vm, true).await?;
            }
            (Power::Stopped, true) => {
                // First: a machine that ends on our word has not died.
                self.note(vm.vm, false).await?;
                hypervisor.stop(vm.vm, Stop::Button(BUTTON)).await.map_err(|error| error.problem())?;
            }
        }
        Ok(None)
    }

    /// The rest of the pause that a machine which lived short lives has to keep.
    fn before_next_start(&mut self) -> Option<Duration> {
        let started = self.started?;
        let pause = if started.elapsed() < SHORT_LIFE + backoff(self.short_lives) {
            backoff(self.short_lives)
        } else {
            self.short_lives = 0;
            return None;
        };
        let due = started + pause;
        if due <= Instant::now() {
            self.short_lives += 1;
            return None;
        }
        Some(due.duration_since(Instant::now()))
    }

    async fn note(&self, vm: VmId, started: bool) -> Result<(), Problem> {
        let ledger = self.around.ledger.clone();
        if ledger.was_started(vm) == started {
            return Ok(());
        }
        let noted = tokio::task::spawn_blocking(move || ledger.started(vm, started)).await;
        match noted {
            Ok(noted) => noted.map_err(|error| error.problem()),
            Err(error) => {
                Err(Problem::new(format!("a task ended early: {error}"), "agent", "look at the agent's log"))
            }
        }
    }

    async fn leave(&mut self, remains: &Remains, hypervisor: &dyn Hypervisor) -> Result<Left, Obstacle> {
        // The port first: from here on nothing of the machine reaches any network.
        if let Some(port) = &remains.port {
            let name: PortName = port.parse().map_err(|error| {
                let remedy = "remove what is left of it by hand";
                Problem::new(format!("{error}"), format!("vm {}", remains.vm), remedy)
            })?;
            if self.look(&name).await? != Known::Absent {
                self.port = Known::Nothing;
                let request = Request::PortRemove { port: name };
                let removed: Result<Changed, SwitchFault> = self.around.switch.call(request).await;
                removed?;
            }
        }
        self.port = Known::Absent;
        hypervisor.destroy(remains.vm).await.map_err(|error| error.problem())?;
        if let Some(port) = &remains.port {
            self.around.metadata.retire(port, None).await;
        }
        self.around.facts.is(remains.vm, remains.generation, 0, VmRunning::Gone, None);
        self.around.networks.look();
        Ok(Left::End)
    }
}

/// Looks how the guest follows a change of its port, until it has or another change comes.
async fn follow(around: Arc<Around>, vm: Arc<VmDesired>) {
    let Ok(name) = vm.port.parse::<PortName>() else { return };
    let end = Instant::now() + WATCH;
    let mut pause = Duration::from_millis(5);
    while Instant::now() < end {
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
        let detail = around.switch.call::<PortDetail>(Request::PortShow { port: name.clone() }).await;
        let times = detail.ok().as_ref().and_then(switch::times);
        let is_current = around.ledger.wanted(vm.vm).is_some_and(|now| now.generation == vm.generation);
        let Some(times) = times.filter(|_| is_current) else { return };
        if times.lease_ms.is_some() || times.first_packet_ms.is_some() {
            around.facts.times(vm.vm, vm.generation, times);
        }
        if times.lease_ms.is_some() && times.first_packet_ms.is_some() {
            return;
        }
    }
}

fn spec(vm: &VmDesired) -> VmSpec {
    VmSpec {
        vm: vm.vm,
        port: vm.port.clone(),
        hostname: vm.config.hostname.clone(),
        image: vm.image.clone(),
        mac: vm.mac,
        vcpus: vm.vcpus,
        memory_mib: vm.memory_mib,
    }
}

fn backoff(failures: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << failures.min(8)).min(PAUSES.1)
}
