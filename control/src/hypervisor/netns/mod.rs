//! Guests made of namespaces: the real kernel's network stack, a real DHCP client, the real agent, up in milliseconds.
//! For development, tests and demonstrations; docs/SECURITY.md says what such a guest is kept from.
//!
//! Everything about a guest is in one directory, owned by the guest's own range of user ids; whether it lives is told by a
//! note that its first process wrote there (process id, start time, boot id of the machine), never by memory. A guest
//! lives on when the host agent ends, and ends as a whole with its first process.
//!
//! Never here: the guest's interface (the switch makes it, in the namespace that has the port's name).

mod cgroup;
mod directory;
mod launch;
mod namespace;
mod note;

use super::{Found, Hypervisor, HypervisorError, Running, Stop, VmEvent, VmPower, VmSpec, kept, life::Life};
use crate::model::VmId;
use async_trait::async_trait;
use directory::Directory;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::broadcast;

/// A guest that is killed is gone within this time, or hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Events that a receiver may lag behind.
const EVENTS: usize = 256;

/// The program that plays a guest's first process and agent.
#[derive(Clone, Debug)]
pub struct GuestProgram {
    /// `shunt-guest`, or another program that can be it.
    pub file: PathBuf,
    /// Words that make another program be it; none for `shunt-guest` itself.
    pub prefix: Vec<String>,
    /// Options for the agent's verb `run`.
    pub agent_options: Vec<String>,
}

/// The hypervisor of kind `netns`.
#[derive(Debug)]
pub struct Netns {
    base: PathBuf,
    program: GuestProgram,
    cgroups: Option<cgroup::Parent>,
    events: broadcast::Sender<VmEvent>,
    guests: Mutex<HashMap<VmId, Arc<tokio::sync::Mutex<Guest>>>>,
}

/// What is known in memory, none of which is needed to find the guest again.
#[derive(Debug, Default)]
struct Guest {
    life: Option<Life>,
}

impl Netns {
    /// A hypervisor that keeps its guests below `base`.
    ///
    /// # Errors
    /// `MissingProgram`; `File` when `base` or the program cannot be used.
    pub fn new(base: PathBuf, program: GuestProgram) -> Result<Self, HypervisorError> {
        launch::require_programs()?;
        directory::prepare(&base, &program.file)?;
        Ok(Self {
            base,
            program,
            cgroups: cgroup::Parent::find(),
            events: broadcast::Sender::new(EVENTS),
            guests: Mutex::default(),
        })
    }

    fn directory(&self, vm: VmId) -> Directory {
        Directory::new(&self.base, vm)
    }

    /// One act at a time for each guest.
    fn guest(&self, vm: VmId) -> Arc<tokio::sync::Mutex<Guest>> {
        // The map is whole at every moment, also when a holder of the lock died.
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(guests.entry(vm).or_default())
    }

    /// The life of a guest, from memory or from its note.
    fn life<'a>(&self, directory: &Directory, guest: &'a mut Guest) -> Option<&'a Life> {
        if !guest.life.as_ref().is_some_and(Life::goes_on) {
            guest.life = note::life_of(directory, &self.events);
        }
        guest.life.as_ref()
    }

    async fn end(&self, directory: &Directory, guest: &mut Guest, how: Stop) -> Result<(), HypervisorError> {
        if let Some(life) = self.life(directory, guest) {
            life.expect_end();
            if let Stop::Button(patience) = how {
                directory.press_button();
                life.ended_within(patience).await;
            }
            life.kill();
            if !life.ended_within(KILL_LIMIT).await {
                return Err(HypervisorError::Undead(directory.vm()));
            }
        }
        guest.life = None;
        directory.forget_life()
    }
}

#[async_trait]
impl Hypervisor for Netns {
    fn kind(&self) -> &'static str {
        "netns"
    }

    async fn create(&self, spec: &VmSpec) -> Result<(), HypervisorError> {
        kept::check(spec)?;
        let guest = self.guest(spec.vm);
        let _guest = guest.lock().await;
        let directory = self.directory(spec.vm);
        directory.make(spec)?;
        namespace::make(&directory, &spec.port).await
    }

    async fn start(&self, vm: VmId) -> Result<Running, HypervisorError> {
        let guest = self.guest(vm);
        let mut guest = guest.lock().await;
        let directory = self.directory(vm);
        let spec = directory.spec()?.ok_or(HypervisorError::Absent(vm))?;
        if let Some(life) = self.life(&directory, &mut guest) {
            return Ok(life.running().clone());
        }
        // A reboot of the machine leaves the directory and takes the namespaces.
        namespace::make(&directory, &spec.port).await?;
        let cgroup = self.cgroups.as_ref().and_then(|parent| parent.make(&spec));
        launch::launch(&directory, &spec, &self.program, cgroup.as_ref()).await?;
        match self.life(&directory, &mut guest) {
            Some(life) => Ok(life.running().clone()),
            None => Err(HypervisorError::NotStarted { vm, log: directory.log_end() }),
        }
    }

    async fn stop(&self, vm: VmId, how: Stop) -> Result<(), HypervisorError> {
        let guest = self.guest(vm);
        let mut guest = guest.lock().await;
        self.end(&self.directory(vm), &mut guest, how).await
    }

    async fn destroy(&self, vm: VmId) -> Result<(), HypervisorError> {
        let guest = self.guest(vm);
        let mut guest = guest.lock().await;
        let directory = self.directory(vm);
        self.end(&directory, &mut guest, Stop::Off).await?;
        namespace::remove(&directory)?;
        if let Some(parent) = &self.cgroups {
            parent.remove(vm);
        }
        directory.remove()?;
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).remove(&vm);
        Ok(())
    }

    async fn adopt(&self) -> Result<Vec<Found>, HypervisorError> {
        let mut found = Vec::new();
        for vm in directory::all(&self.base)? {
            let guest = self.guest(vm);
            let mut guest = guest.lock().await;
            let directory = self.directory(vm);
            let running = self.life(&directory, &mut guest).map(|life| life.running().clone());
            found.push(Found { spec: directory.spec()?, vm, running });
        }
        Ok(found)
    }

    async fn state(&self, vm: VmId) -> Result<VmPower, HypervisorError> {
        let guest = self.guest(vm);
        let mut guest = guest.lock().await;
        let directory = self.directory(vm);
        match self.life(&directory, &mut guest) {
            Some(life) => Ok(VmPower::Running(life.running().clone())),
            None if directory.spec()?.is_some() => Ok(VmPower::Stopped),
            None => Ok(VmPower::Absent),
        }
    }

    async fn link(&self, _vm: VmId, _up: bool) -> Result<Option<()>, HypervisorError> {
        // The interface is the switch's TAP.
        Ok(None)
    }

    fn hold(&self) -> Duration {
        // The agent polls the link's counter every 5 ms; the rest is for it to take the old lease down.
        Duration::from_millis(10)
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.events.subscribe()
    }
}

impl Netns {
    /// The command that runs a program inside of a running guest, as the guest's root.
    ///
    /// # Errors
    /// `Absent` when it does not run.
    pub async fn command_in(
        &self,
        vm: VmId,
        words: &[&str],
    ) -> Result<tokio::process::Command, HypervisorError> {
        match self.state(vm).await? {
            VmPower::Running(running) => Ok(launch::inside(running.pid, words)),
            VmPower::Absent | VmPower::Stopped => Err(HypervisorError::Absent(vm)),
        }
    }
}
