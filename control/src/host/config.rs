//! `host.toml`. Every key has a row in [`KEYS`], from which the reference page is made.

use std::fs;
use std::path::{Path, PathBuf};

use dataplane::switch::Key;
use dataplane::types::PhysicalIp;
use serde::Deserialize;

use crate::model::{Name, Problem};

/// All keys, in the order of the reference page.
pub const KEYS: &[Key] = &[
    Key {
        name: "physical_ip",
        kind: "IP address",
        default: "required",
        sentence: "This host's address between hosts, the same as in vswitch.toml: where other hosts send its machines' packets.",
    },
    Key {
        name: "state_dir",
        kind: "path of a directory",
        default: "\"/var/lib/shunt/host\"",
        sentence: "Where the agent keeps its identity, its ledger and its machines over a restart. Made (mode 0700) if missing; one agent per directory.",
    },
    Key {
        name: "controllers",
        kind: "list of HOST:PORT",
        default: "[]",
        sentence: "Where controllers listen, tried in order; empty: those that the join token named.",
    },
    Key {
        name: "switch",
        kind: "path",
        default: "\"/run/shunt/vswitch.sock\"",
        sentence: "The control socket of this host's switch (`socket` in vswitch.toml).",
    },
    Key {
        name: "metadata",
        kind: "path, at most 107 bytes",
        default: "\"/run/shunt/metadata.sock\"",
        sentence: "Where the switch finds the metadata service (`metadata` in vswitch.toml).",
    },
    Key {
        name: "hypervisors",
        kind: "list of names",
        default: "[\"netns\"]",
        sentence: "What runs machines here: `netns` (guests made of namespaces), `qemu` (virtual machines). A pool names one of them.",
    },
    Key {
        name: "images",
        kind: "path of a directory",
        default: "\"/var/lib/shunt/images\"",
        sentence: "What virtual machines boot: for each image a directory of its name with the files `kernel` and `initramfs`. `images/tiny/build DIRECTORY` makes one.",
    },
];

/// A host agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// This host's address between hosts.
    pub physical_ip: PhysicalIp,
    /// Where state is kept.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Where controllers listen.
    #[serde(default)]
    pub controllers: Vec<String>,
    /// The switch's socket.
    #[serde(default = "default_switch")]
    pub switch: PathBuf,
    /// The metadata service's socket.
    #[serde(default = "default_metadata")]
    pub metadata: PathBuf,
    /// What runs machines.
    #[serde(default = "default_hypervisors")]
    pub hypervisors: Vec<Name>,
    /// What virtual machines boot.
    #[serde(default = "default_images")]
    pub images: PathBuf,
}

/// What can run machines.
const HYPERVISORS: [&str; 2] = ["netns", "qemu"];

fn default_state_dir() -> PathBuf {
    "/var/lib/shunt/host".into()
}

fn default_switch() -> PathBuf {
    dataplane::switch::DEFAULT_SOCKET.into()
}

fn default_metadata() -> PathBuf {
    "/run/shunt/metadata.sock".into()
}

fn default_images() -> PathBuf {
    "/var/lib/shunt/images".into()
}

fn default_hypervisors() -> Vec<Name> {
    "netns".parse().into_iter().collect()
}

impl HostFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing found wrong: what, where, what would be right.
    pub fn load(file: &Path) -> Result<Self, Problem> {
        let text = fs::read_to_string(file).map_err(|error| {
            let what = format!("cannot read the configuration: {error}");
            Problem::new(what, file.display().to_string(), "name a readable file with --config")
        })?;
        Self::parse(&text, file)
    }

    /// Checks the text of a file; `file` is only named in errors.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Problem> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map(|span| position(text, span.start));
            let at = at.map(|(line, column)| format!(", line {line}, column {column}")).unwrap_or_default();
            let what = error.message().trim_end().replace('\n', ", ");
            let place = format!("{}{at}", file.display());
            Problem::new(what, place, "correct the line (docs/reference/host.md lists every key)")
        })?;
        let refuse = |key: &str, what: String, remedy: &str| {
            Err(Problem::new(what, format!("{}, {key}", file.display()), remedy))
        };
        if let Err(error) = config.physical_ip.require_unicast() {
            return refuse("physical_ip", error.to_string(), "name the address that other hosts send to");
        }
        if config.state_dir.as_os_str().is_empty() {
            return refuse("state_dir", "the path is empty".into(), "name a directory");
        }
        for (key, path) in [("switch", &config.switch), ("metadata", &config.metadata)] {
            let bytes = path.as_os_str().len();
            if !(1..=107).contains(&bytes) {
                let what = format!("the path has {bytes} bytes, and a socket's can have 1 to 107");
                return refuse(key, what, "choose a shorter path");
            }
        }
        if let Some(wrong) = config.controllers.iter().find(|address| !is_address(address)) {
            return refuse(
                "controllers",
                format!("{wrong:?} is no HOST:PORT"),
                "write for example 192.0.2.10:9479",
            );
        }
        match config.hypervisors.iter().find(|name| !HYPERVISORS.contains(&name.as_str())) {
            Some(unknown) => refuse("hypervisors", format!("{unknown} is not known"), "use netns or qemu"),
            None if config.hypervisors.is_empty() => {
                refuse("hypervisors", "there is none".into(), "name at least one: netns, qemu")
            }
            None if !config.images.is_absolute() => {
                refuse("images", "the path is not absolute".into(), "name a directory from / on")
            }
            None => Ok(config),
        }
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Line and column of a byte, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]
    use super::*;

    fn parse(text: &str) -> Result<HostFile, Problem> {
        HostFile::parse(text, Path::new("host.toml"))
    }

    #[test]
    fn one_address_is_enough_and_the_rest_has_the_documented_defaults() {
        let config = parse("physical_ip = \"192.0.2.1\"").unwrap();
        let default = |name: &str| KEYS.iter().find(|key| key.name == name).unwrap().default;
        assert_eq!(default("state_dir"), format!("{:?}", config.state_dir));
        assert_eq!(default("switch"), format!("{:?}", config.switch));
        assert_eq!(default("metadata"), format!("{:?}", config.metadata));
        assert_eq!(config.hypervisors.iter().map(Name::as_str).collect::<Vec<_>>(), ["netns"]);
        assert_eq!(default("images"), format!("{:?}", config.images));
        assert!(config.controllers.is_empty());
        assert!(parse("physical_ip = \"192.0.2.1\"\nhypervisors = [\"netns\", \"qemu\"]").is_ok());
    }

    #[test]
    fn the_reference_names_every_key_and_no_other() {
        // serde lists the keys it knows when it meets one that it does not.
        let message = parse("zzz = 1").unwrap_err().what;
        let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        assert_eq!(known, KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
    }

    #[test]
    fn every_error_names_the_place_and_what_would_be_right() {
        let with = |line: &str| format!("physical_ip = \"192.0.2.1\"\n{line}");
        let long = with(&format!("switch = \"/{}\"", "s".repeat(107)));
        for (text, place, what) in [
            (String::new(), "host.toml, line 1, column 1", "missing field `physical_ip`"),
            ("physical_ip = \"0.0.0.0\"".to_owned(), "host.toml, physical_ip", "not a unicast"),
            (with("swich = \"/x\""), "line 2, column 1", "unknown field `swich`"),
            (with("state_dir = \"\""), "state_dir", "empty"),
            (with("controllers = [\"here\"]"), "controllers", "no HOST:PORT"),
            (with("controllers = [\":80\"]"), "controllers", "no HOST:PORT"),
            (with("hypervisors = [\"xen\"]"), "hypervisors", "not known"),
            (with("images = \"images\""), "images", "not absolute"),
            (with("hypervisors = []"), "hypervisors", "none"),
            (with("hypervisors = [\"-\"]"), "line 2", "not a name"),
            (long, "host.toml, switch", "108 bytes"),
        ] {
            let problem = parse(&text).expect_err(&text);
            assert!(problem.place.contains(place), "{text}: {problem}");
            assert!(problem.what.contains(what) && !problem.remedy.is_empty(), "{text}: {problem}");
        }
        assert_eq!(
            HostFile::load(Path::new("/nonexistent/host.toml")).unwrap_err().place,
            "/nonexistent/host.toml"
        );
    }
}
