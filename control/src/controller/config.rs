//! `controller.toml`: what a controller is started with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane::switch::Key;
use serde::Deserialize;

use crate::model::{Name, Problem};
use crate::workflow::Limits;

/// All keys, in the order of the reference page.
pub const KEYS: &[Key] = &[
    Key {
        name: "state_dir",
        kind: "path of a directory",
        default: "\"/var/lib/shunt/controller\"",
        sentence: "Where the store, the cluster's authority and the first token (`admin.token`) are kept. Made (mode 0700) if missing; one controller per directory.",
    },
    Key {
        name: "name",
        kind: "name",
        default: "\"controller\"",
        sentence: "What this controller is called among those of one store. The same after a restart: operations that were under way are known by it.",
    },
    Key {
        name: "api",
        kind: "ADDRESS:PORT",
        default: "\"127.0.0.1:9480\"",
        sentence: "Where the API is served, over plain HTTP: put whatever ends TLS before it if it leaves the machine.",
    },
    Key {
        name: "hosts",
        kind: "ADDRESS:PORT",
        default: "\"0.0.0.0:9481\"",
        sentence: "Where hosts dial, over mutual TLS. Join tokens name this address, so give one that hosts reach.",
    },
    Key {
        name: "limits.boot_seconds",
        kind: "seconds",
        default: "300",
        sentence: "How long a new machine may take to boot and report.",
    },
    Key {
        name: "limits.host_seconds",
        kind: "seconds",
        default: "30",
        sentence: "How long a host may take to carry out a change before it is undone.",
    },
    Key {
        name: "limits.guest_seconds",
        kind: "seconds",
        default: "30",
        sentence: "How long a guest may take to report that it has followed, before its link is bounced once more.",
    },
    Key {
        name: "limits.watch_seconds",
        kind: "seconds",
        default: "600",
        sentence: "How long the use of a machine is watched after a hand-over.",
    },
    Key {
        name: "limits.replacements",
        kind: "number",
        default: "2",
        sentence: "How often a machine that fails at a hand-over is replaced by another.",
    },
];

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
        Self::parse(&text, path)
    }

    /// Checks the text of a file; `file` is only named in errors.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Problem> {
        let place = file.display().to_string();
        toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map(|span| text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1));
            let place = line.map_or(place.clone(), |line| format!("{place}:{line}"));
            Problem::new(error.message().to_owned(), place, "docs/reference/controller.md lists the keys")
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_file_and_line() {
        let wrong = "api = \"127.0.0.1:1\"\nhots = \"127.0.0.1:2\"\n";
        let problem = ControllerConfig::parse(wrong, Path::new("c.toml")).unwrap_err();
        assert_eq!(problem.place, "c.toml:2");
        assert!(problem.what.contains("hots"), "{problem}");
    }

    #[test]
    fn every_documented_default_is_the_default() {
        let empty = ControllerConfig::parse("", Path::new("c.toml")).unwrap();
        let mut text = String::new();
        for key in KEYS.iter().filter(|key| !key.name.contains('.')) {
            text.push_str(&format!("{} = {}\n", key.name, key.default));
        }
        text.push_str("[limits]\n");
        for key in KEYS {
            if let Some(name) = key.name.strip_prefix("limits.") {
                text.push_str(&format!("{name} = {}\n", key.default));
            }
        }
        assert_eq!(ControllerConfig::parse(&text, Path::new("c.toml")).unwrap(), empty, "{text}");
    }
}
