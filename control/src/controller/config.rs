//! `controller.toml`: what a controller is started with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::model::{Name, Problem};
use crate::workflow::Limits;

/// Where a controller keeps its state unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/shunt/controller";

/// What a controller is started with. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerConfig {
    /// The directory of the store and of the cluster's authority; made with mode 0700.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// This controller's name among those of one store; the same after a restart.
    #[serde(default = "default_name")]
    pub name: Name,
    /// Where the API is served.
    #[serde(default = "default_api")]
    pub api: SocketAddr,
    /// Where hosts dial.
    #[serde(default = "default_hosts")]
    pub hosts: SocketAddr,
    /// How long journeys wait.
    #[serde(default)]
    pub limits: LimitsConfig,
}

/// How long journeys wait, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// For a machine to boot and report.
    pub boot_seconds: u32,
    /// For a host to carry out a change.
    pub host_seconds: u32,
    /// For a guest to follow a change, before its link is bounced once more.
    pub guest_seconds: u32,
    /// How long the use of a machine is watched after a hand-over.
    pub watch_seconds: u32,
    /// How often a machine that fails at a hand-over is replaced.
    pub replacements: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let limits = Limits::default();
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        Self {
            boot_seconds: seconds(limits.boot),
            host_seconds: seconds(limits.host),
            guest_seconds: seconds(limits.guest),
            watch_seconds: seconds(limits.watch),
            replacements: limits.replacements,
        }
    }
}

impl From<&LimitsConfig> for Limits {
    fn from(config: &LimitsConfig) -> Self {
        let seconds = |count: u32| Duration::from_secs(count.into());
        Self {
            boot: seconds(config.boot_seconds),
            host: seconds(config.host_seconds),
            guest: seconds(config.guest_seconds),
            watch: seconds(config.watch_seconds),
            replacements: config.replacements,
            ..Self::default()
        }
    }
}

fn default_state_dir() -> PathBuf {
    DEFAULT_STATE_DIR.into()
}

fn default_name() -> Name {
    // A constant that is a name; were it none, serde would still need a value.
    "controller".parse().unwrap_or_else(|_| unreachable!("`controller` is a name"))
}

fn default_api() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9480))
}

fn default_hosts() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 9481))
}

impl ControllerConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, in which file and line, and what to do.
    pub fn load(path: &Path) -> Result<Self, Problem> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Problem::new(format!("cannot read it: {error}"), place.clone(), "name a file that can be read")
        })?;
        toml::from_str(&text).map_err(|error| {
            let line = error
                .span()
                .map(|span| text.get(..span.start).map_or(1, |before| before.lines().count().max(1)));
            let place = line.map_or(place.clone(), |line| format!("{place}:{line}"));
            Problem::new(error.message().to_owned(), place, "docs/reference/config.md lists the keys")
        })
    }
}
