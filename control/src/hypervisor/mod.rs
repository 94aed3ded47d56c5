//! What runs machines, as one trait: [`netns`] guests made of namespaces, [`qemu`] virtual machines.
//!
//! A hypervisor knows machines by id and keeps what it needs to find them again on disk: it is asked what lives, never
//! told. Never here: networks, addresses, metadata, or a decision about which machine should run.

mod error;
mod kept;
mod life;
pub mod netns;
pub mod qemu;

pub use error::HypervisorError;

use crate::model::{Name, VmId};
use async_trait::async_trait;
use dataplane::desired::PortKind;
use dataplane::types::MacAddr;
use serde::{Deserialize, Serialize};
use std::{ffi::OsString, process::Stdio, time::Duration};
use tokio::{process::Command, sync::broadcast};

/// A machine as it is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Which.
    pub vm: VmId,
    /// Name of its port, its interface on the host and the network namespace of that: at most 15 bytes.
    pub port: String,
    /// Its name until it has read its configuration.
    pub hostname: String,
    /// What it boots.
    pub image: Name,
    /// The address of its interface; all zeros in what was kept before this was.
    #[serde(default = "no_mac")]
    pub mac: MacAddr,
    /// Virtual processors.
    pub vcpus: u16,
    /// Memory, in MiB.
    pub memory_mib: u32,
}

const fn no_mac() -> MacAddr {
    MacAddr([0; 6])
}

/// A machine that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub vm: VmId,
    /// Its boot id: another one means that it was started anew.
    pub boot_id: String,
    /// The host's process that is the machine, or its first one.
    pub pid: u32,
}

/// A machine that was found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it was made as; `None` when its making was cut short: such a one can only be destroyed.
    pub spec: Option<VmSpec>,
    /// Which.
    pub vm: VmId,
    /// Its life, if it is running.
    pub running: Option<Running>,
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmPower {
    /// It was never made, or was destroyed.
    Absent,
    /// It is made and does not run.
    Stopped,
    /// It runs.
    Running(Running),
}

/// How a machine is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// By its power button; what has not ended after this time is switched off.
    Button(Duration),
    /// At once.
    Off,
}

/// Something that happened to a machine by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmEvent {
    /// It ended, and nobody here had asked for that.
    Died(Running),
}

/// Makes and runs machines. Every act may be repeated: what is already so is success.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Name of the kind, as a machine's row has it.
    fn kind(&self) -> &'static str;

    /// What its machines' ports are made of; a [`PortKind::Netdev`] is there when the machine is made.
    fn port_kind(&self) -> PortKind {
        PortKind::Tap
    }

    /// Makes a machine, not running: afterwards its port can be made.
    ///
    /// # Errors
    /// [`HypervisorError`]; what was made so far stays, and a second attempt or [`Hypervisor::destroy`] ends it.
    async fn create(&self, spec: &VmSpec) -> Result<(), HypervisorError>;

    /// Starts a machine that was made.
    ///
    /// # Errors
    /// `Absent`; otherwise the machine does not run.
    async fn start(&self, vm: VmId) -> Result<Running, HypervisorError>;

    /// Stops a machine; afterwards it does not run.
    ///
    /// # Errors
    /// When it cannot be ended.
    async fn stop(&self, vm: VmId, how: Stop) -> Result<(), HypervisorError>;

    /// Stops a machine and removes everything it had here.
    ///
    /// # Errors
    /// When something would not go; a second attempt goes on.
    async fn destroy(&self, vm: VmId) -> Result<(), HypervisorError>;

    /// Finds what there is, whoever started it, and watches over what lives. Called once, after a start of the agent.
    ///
    /// # Errors
    /// When the machines' directory cannot be read.
    async fn adopt(&self) -> Result<Vec<Found>, HypervisorError>;

    /// How a machine is at this moment.
    ///
    /// # Errors
    /// When it cannot be told.
    async fn state(&self, vm: VmId) -> Result<VmPower, HypervisorError>;

    /// Takes the link of a machine's interface down or up; `None` when that is the switch's to do.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn link(&self, vm: VmId, up: bool) -> Result<Option<()>, HypervisorError>;

    /// How long a link must be held down for a guest of this kind to notice.
    fn hold(&self) -> Duration;

    /// What happens from now on. A receiver that lags asks [`Hypervisor::state`] again.
    fn events(&self) -> broadcast::Receiver<VmEvent>;
}

/// `PATH` with the directories of system programs, which a user's shell may lack.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// Checks that programs, given with their Debian packages, are installed.
fn require_programs(programs: &[(&'static str, &'static str)]) -> Result<(), HypervisorError> {
    let path = path();
    let is_there = |program| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    match programs.iter().find(|(program, _)| !is_there(program)) {
        None => Ok(()),
        Some(&(program, package)) => Err(HypervisorError::MissingProgram { program, package }),
    }
}

/// Runs a program to its end.
async fn run(program: &str, words: &[&str]) -> Result<(), HypervisorError> {
    let failed = |output: String| HypervisorError::Program {
        command: format!("{program} {}", words.join(" ")),
        output,
    };
    let output = Command::new(program).args(words).env("PATH", path()).stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

async fn ip(words: &[&str]) -> Result<(), HypervisorError> {
    run("ip", words).await
}
