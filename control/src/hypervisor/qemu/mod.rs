//! Virtual machines by QEMU: a kernel and an initial file system, booted directly; KVM where it works, else emulated.
//!
//! Everything about a machine is in one directory. Whether it lives is told by the socket of its monitor: whoever listens
//! there is the machine, so it is found again by an agent that knows nothing. A machine lives on when the host agent ends.
//! Its interface is a TAP that QEMU holds, in a namespace of its own; the switch attaches to it as a port of kind netdev.
//!
//! Rooms: `qmp` (the monitor), `probe` (which accelerator works), `home` (the directory), `namespace` (where the TAP stands),
//! `launch` (the command line).

mod home;
mod launch;
mod namespace;
mod probe;
mod qmp;

use super::{
    Found, Hypervisor, HypervisorError, Running, Stop, VmEvent, VmPower, VmSpec, kept, life::Life, path,
    require_programs,
};
use crate::model::VmId;
use async_trait::async_trait;
use dataplane::desired::PortKind;
use home::Home;
use probe::Accelerator;
use qmp::Qmp;
use serde_json::json;
use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    process::Child,
    sync::{OnceCell, broadcast},
    time::{Instant, sleep},
};

const PROGRAM: &str = "qemu-system-x86_64";
/// Programs that are needed, and their Debian packages.
const PROGRAMS: [(&str, &str); 5] = [
    (PROGRAM, "qemu-system-x86"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("dd", "coreutils"),
    ("stat", "coreutils"),
];
/// A machine that is killed is gone within this time, or hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// QEMU's monitor is there in some 100 ms; a host may be very busy.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a stock Linux guest needs its link to be down, when the link has been quiet, to notice.
const HOLD: Duration = Duration::from_millis(100);
/// Events that a receiver may lag behind.
const EVENTS: usize = 256;

/// The hypervisor of kind `qemu`.
#[derive(Debug)]
pub struct Qemu {
    base: PathBuf,
    images: PathBuf,
    accelerator: OnceCell<Accelerator>,
    events: broadcast::Sender<VmEvent>,
    machines: Mutex<HashMap<VmId, Arc<tokio::sync::Mutex<Machine>>>>,
}

/// What is known in memory, none of which is needed to find the machine again.
#[derive(Debug, Default)]
struct Machine {
    life: Option<Life>,
    /// The monitor of that life, once somebody had something to say to it.
    monitor: Option<Qmp>,
}

impl Qemu {
    /// A hypervisor that keeps its machines below `base` and finds what they boot below `images`.
    ///
    /// # Errors
    /// `MissingProgram`; `File` when `base` cannot be used.
    pub fn new(base: PathBuf, images: PathBuf) -> Result<Self, HypervisorError> {
        require_programs(&PROGRAMS)?;
        home::prepare(&base)?;
        Ok(Self {
            base,
            images,
            accelerator: OnceCell::new(),
            events: broadcast::Sender::new(EVENTS),
            machines: Mutex::default(),
        })
    }

    fn home(&self, vm: VmId) -> Home {
        Home::new(&self.base, vm)
    }

    /// One act at a time for each machine.
    fn machine(&self, vm: VmId) -> Arc<tokio::sync::Mutex<Machine>> {
        // The map is whole at every moment, also when a holder of the lock died.
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(machines.entry(vm).or_default())
    }

    /// The accelerator that works here; looked for once.
    async fn accelerator(&self) -> Accelerator {
        *self.accelerator.get_or_init(|| Accelerator::find(&self.base)).await
    }

    /// The life of a machine, from memory or by its monitor's socket.
    async fn life<'a>(
        &self,
        home: &Home,
        machine: &'a mut Machine,
    ) -> Result<Option<&'a Life>, HypervisorError> {
        if !machine.life.as_ref().is_some_and(Life::goes_on) {
            *machine = Machine::default();
            let socket = home.monitor();
            let found = qmp::find(&socket).await.map_err(HypervisorError::file("connect to", &socket))?;
            if let Some(found) = found {
                let running = Running { vm: home.vm(), boot_id: home.boot_id(), pid: found.pid };
                let process = found
                    .process
                    .try_clone()
                    .map_err(HypervisorError::file("watch the process of", &socket))?;
                machine.life = Life::watch(running, process, &self.events);
            }
        }
        Ok(machine.life.as_ref())
    }

    /// Has the monitor of a machine that runs carry out a command.
    async fn ask(
        &self,
        home: &Home,
        machine: &mut Machine,
        command: &str,
        arguments: serde_json::Value,
    ) -> Result<serde_json::Value, HypervisorError> {
        let vm = home.vm();
        let failed = |source: io::Error| HypervisorError::Monitor { vm, source };
        let Some(pid) = self.life(home, machine).await?.map(|life| life.running().pid) else {
            return Err(HypervisorError::Absent(vm));
        };
        if machine.monitor.as_ref().is_none_or(|monitor| monitor.pid() != pid) {
            let found = qmp::find(&home.monitor()).await.map_err(failed)?;
            let found = found.ok_or(HypervisorError::Absent(vm))?;
            machine.monitor = Some(found.greet().await.map_err(failed)?);
        }
        let Some(monitor) = &machine.monitor else { return Err(HypervisorError::Absent(vm)) };
        let answer = monitor.ask(command, arguments).await;
        if answer.is_err() {
            // Another attempt begins anew.
            machine.monitor = None;
        }
        answer.map_err(failed)
    }

    async fn end(&self, home: &Home, machine: &mut Machine, how: Stop) -> Result<(), HypervisorError> {
        if self.life(home, machine).await?.is_none() {
            return Ok(());
        }
        if let Stop::Button(patience) = how {
            if let Some(life) = &machine.life {
                life.expect_end();
            }
            match self.ask(home, machine, "system_powerdown", json!({})).await {
                Ok(_) => {
                    if let Some(life) = &machine.life {
                        life.ended_within(patience).await;
                    }
                }
                // What cannot be asked is switched off.
                Err(error) => tracing::warn!(vm = %home.vm(), %error, "the power button does not work"),
            }
        }
        if let Some(life) = &machine.life {
            life.expect_end();
            life.kill();
            if !life.ended_within(KILL_LIMIT).await {
                return Err(HypervisorError::Undead(home.vm()));
            }
        }
        *machine = Machine::default();
        Ok(())
    }
}

#[async_trait]
impl Hypervisor for Qemu {
    fn kind(&self) -> &'static str {
        "qemu"
    }

    fn port_kind(&self) -> PortKind {
        PortKind::Netdev
    }

    async fn create(&self, spec: &VmSpec) -> Result<(), HypervisorError> {
        kept::check(spec)?;
        let machine = self.machine(spec.vm);
        let _machine = machine.lock().await;
        let home = self.home(spec.vm);
        home.make(&self.images, &spec.image)?;
        namespace::make(&home, &spec.port).await?;
        home.keep(spec)
    }

    async fn start(&self, vm: VmId) -> Result<Running, HypervisorError> {
        let accelerator = self.accelerator().await;
        let machine = self.machine(vm);
        let mut machine = machine.lock().await;
        let home = self.home(vm);
        let spec = home.spec()?.ok_or(HypervisorError::Absent(vm))?;
        if let Some(life) = self.life(&home, &mut machine).await? {
            return Ok(life.running().clone());
        }
        // A reboot of the host leaves the directory and takes the namespace.
        namespace::make(&home, &spec.port).await?;
        home.begin_life(&uuid::Uuid::new_v4().to_string())?;
        let mut child = launch::launch(&home, &spec, accelerator)?;
        let begun = Instant::now();
        let not_started = |log: String| Err(HypervisorError::NotStarted { vm, log });
        let running = loop {
            if let Some(life) = self.life(&home, &mut machine).await? {
                let running = life.running().clone();
                // It listens before it is whole, and answers afterwards.
                match self.ask(&home, &mut machine, "query-status", json!({})).await {
                    Ok(_) => break running,
                    Err(error) => tracing::debug!(%vm, %error, "a machine does not answer yet"),
                }
            }
            if let Some(status) = ended(&mut child) {
                return not_started(format!("{PROGRAM} ended ({status}): {}", home.log_end()));
            }
            if begun.elapsed() > START_LIMIT {
                let _ = child.kill().await;
                return not_started(format!("its monitor did not appear: {}", home.log_end()));
            }
            sleep(LOOK_EVERY).await;
        };
        // It ends when the machine does, and somebody must wait for it.
        tokio::spawn(async move { child.wait().await });
        tracing::info!(%vm, accelerator = accelerator.name(), pid = running.pid, "a machine was started");
        Ok(running)
    }

    async fn stop(&self, vm: VmId, how: Stop) -> Result<(), HypervisorError> {
        let machine = self.machine(vm);
        let mut machine = machine.lock().await;
        self.end(&self.home(vm), &mut machine, how).await
    }

    async fn destroy(&self, vm: VmId) -> Result<(), HypervisorError> {
        let machine = self.machine(vm);
        let mut machine = machine.lock().await;
        let home = self.home(vm);
        self.end(&home, &mut machine, Stop::Off).await?;
        if let Some(spec) = home.spec()? {
            namespace::remove(&home, &spec.port).await?;
        }
        home.remove()?;
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).remove(&vm);
        Ok(())
    }

    async fn adopt(&self) -> Result<Vec<Found>, HypervisorError> {
        let mut found = Vec::new();
        for vm in home::all(&self.base)? {
            let machine = self.machine(vm);
            let mut machine = machine.lock().await;
            let home = self.home(vm);
            let running = self.life(&home, &mut machine).await?.map(|life| life.running().clone());
            found.push(Found { spec: home.spec()?, vm, running });
        }
        Ok(found)
    }

    async fn state(&self, vm: VmId) -> Result<VmPower, HypervisorError> {
        let machine = self.machine(vm);
        let mut machine = machine.lock().await;
        let home = self.home(vm);
        match self.life(&home, &mut machine).await? {
            Some(life) => Ok(VmPower::Running(life.running().clone())),
            None if home.spec()?.is_some() => Ok(VmPower::Stopped),
            None => Ok(VmPower::Absent),
        }
    }

    async fn link(&self, vm: VmId, up: bool) -> Result<Option<()>, HypervisorError> {
        let machine = self.machine(vm);
        let mut machine = machine.lock().await;
        let arguments = json!({"name": launch::NIC, "up": up});
        self.ask(&self.home(vm), &mut machine, "set_link", arguments).await.map(|_| Some(()))
    }

    fn hold(&self) -> Duration {
        HOLD
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.events.subscribe()
    }
}

/// The status of a process that has ended.
fn ended(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}
