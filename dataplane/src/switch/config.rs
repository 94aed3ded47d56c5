//! `vswitch.toml`: what a switch is started with. Everything else is the document's (`desired`) or the directory's.
//!
//! Unknown keys are refused, and every error names the file, the line, and what would be right.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::desired::{Encapsulation, UnderlayConfig};
use crate::types::{Mtu, PhysicalIp, TypeError};
use crate::worker::Poll;

/// Where a switch listens, and a client asks, unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/shunt/vswitch.sock";
/// Where a switch keeps its state unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/shunt/vswitch";
/// The kernel's limit for the path of a socket, its closing zero included (unix(7)).
const SOCKET_PATH_BYTES: usize = 108;
const MOST_WORKERS: u16 = 64;
const MOST_PHYSICAL_IPS: usize = 16;

/// What a switch is started with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchConfig {
    /// The directory of `state.redb`.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// The control socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// How long TAPs and sockets are kept open for the next switch when none runs, in seconds.
    #[serde(default = "default_keep_seconds")]
    pub keep_seconds: u32,
    /// Where `/metrics` is served; absent: nowhere.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// The Unix socket at which the host agent serves metadata; absent: guests get none.
    #[serde(default)]
    pub metadata: Option<PathBuf>,
    /// This host's side of the network between hosts.
    #[serde(deserialize_with = "underlay")]
    pub underlay: UnderlayConfig,
    /// The threads that move packets.
    #[serde(default)]
    pub workers: WorkersConfig,
}

/// The threads that move packets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkersConfig {
    /// How many: 1 to 64.
    pub count: u16,
    /// The CPU that each is pinned to, in order; empty: wherever the scheduler likes.
    pub cpus: Vec<usize>,
    /// What a worker does when there is nothing to do.
    pub poll: Poll,
}

impl Default for WorkersConfig {
    fn default() -> Self {
        Self { count: 1, cpus: Vec::new(), poll: Poll::default() }
    }
}

/// One key of the file, for its reference page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// With its table, as `workers.count`.
    pub name: &'static str,
    /// Type and unit.
    pub kind: &'static str,
    /// As it would be written; `required` where there is none.
    pub default: &'static str,
    /// What it does.
    pub sentence: &'static str,
}

/// Every key, in the order of the reference page.
pub const KEYS: &[Key] = &[
    Key {
        name: "state_dir",
        kind: "path of a directory",
        default: "\"/var/lib/shunt/vswitch\"",
        sentence: "Where the document and the directory are kept over a restart. Made (mode 0700) if missing; one switch per directory.",
    },
    Key {
        name: "socket",
        kind: "path, at most 107 bytes",
        default: "\"/run/shunt/vswitch.sock\"",
        sentence: "The control socket (mode 0600). It appears when the switch is ready and goes when it stops.",
    },
    Key {
        name: "keep_seconds",
        kind: "seconds",
        default: "300",
        sentence: "How long TAPs and sockets stay open when no switch runs, so that guests see no link loss while it is restarted; 0: they close with the switch.",
    },
    Key {
        name: "metrics",
        kind: "address and port",
        default: "not served",
        sentence: "Where `/metrics` is served over HTTP.",
    },
    Key {
        name: "metadata",
        kind: "path, at most 107 bytes",
        default: "not served",
        sentence: "The Unix socket at which the host agent serves metadata. With it, guests' TCP connections to 169.254.169.254 and 168.63.129.16, port 80, end in the switch and go on there; without it such packets are dropped.",
    },
    Key {
        name: "underlay.physical_ip",
        kind: "IP address, or a list of them",
        default: "required",
        sentence: "This host's addresses between hosts: where tunnel packets are sent from and accepted; at most 16.",
    },
    Key {
        name: "underlay.encapsulation",
        kind: "\"vxlan\" or \"geneve\"",
        default: "\"vxlan\"",
        sentence: "The tunnel format: VXLAN (RFC 7348, UDP port 4789) or Geneve (RFC 8926, UDP port 6081). The same on every host.",
    },
    Key {
        name: "underlay.mtu",
        kind: "bytes, 576 to 65521",
        default: "1500",
        sentence: "The largest outer IP packet. Guests get an MTU that leaves room for the tunnel: 50 bytes less over IPv4, 70 over IPv6, and at most 1500 unless their network says otherwise.",
    },
    Key { name: "workers.count", kind: "1 to 64", default: "1", sentence: "Threads that move packets." },
    Key {
        name: "workers.cpus",
        kind: "list of CPU numbers, one per worker",
        default: "[]",
        sentence: "The CPU that each worker is pinned to; empty: not pinned.",
    },
    Key {
        name: "workers.poll",
        kind: "\"adaptive\", \"busy\" or \"sleep\"",
        default: "\"adaptive\"",
        sentence: "What a worker does without work: spin briefly and then sleep, never sleep, or sleep at once.",
    },
];

/// Why a configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("cannot read the configuration: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is no TOML, or not what the keys expect.
    #[error("{message}")]
    Parse {
        /// The file.
        file: PathBuf,
        /// Line and column, from 1.
        at: Option<(usize, usize)>,
        /// What was found and what was expected.
        message: String,
    },
    /// A value that no switch can run with.
    #[error("{message}")]
    Value {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        message: String,
        /// What would be right.
        remedy: &'static str,
    },
}

impl ConfigFileError {
    /// The file, and the line or key in it.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Read { file, .. } | Self::Parse { file, at: None, .. } => file.display().to_string(),
            Self::Parse { file, at: Some((line, column)), .. } => {
                format!("{}, line {line}, column {column}", file.display())
            }
            Self::Value { file, key, .. } => format!("{}, {key}", file.display()),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Read { .. } => "name a readable file with --config".into(),
            Self::Parse { .. } => "correct the line (docs/reference/config.md lists every key)".into(),
            Self::Value { remedy, .. } => (*remedy).into(),
        }
    }
}

impl SwitchConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn load(file: &Path) -> Result<Self, ConfigFileError> {
        let text =
            fs::read_to_string(file).map_err(|source| ConfigFileError::Read { file: file.into(), source })?;
        Self::parse(&text, file)
    }

    /// Checks the text of a file; `file` is only named in errors.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigFileError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigFileError::Parse {
            file: file.into(),
            at: error.span().map(|span| position(text, span.start)),
            message: error.message().trim_end().replace('\n', ", "),
        })?;
        config.check(file)?;
        Ok(config)
    }

    fn check(&self, file: &Path) -> Result<(), ConfigFileError> {
        let refuse =
            |key, message, remedy| Err(ConfigFileError::Value { file: file.into(), key, message, remedy });
        if self.state_dir.as_os_str().is_empty() {
            return refuse("state_dir", "the path is empty".into(), "name a directory");
        }
        let sockets = [("socket", Some(&self.socket)), ("metadata", self.metadata.as_ref())];
        for (key, path) in sockets {
            let Some(bytes) = path.map(|path| path.as_os_str().len()) else { continue };
            if !(1..SOCKET_PATH_BYTES).contains(&bytes) {
                let message = format!("the path has {bytes} bytes, and a socket's can have 1 to 107");
                return refuse(key, message, "choose a path of a fitting length");
            }
        }
        let WorkersConfig { count, cpus, .. } = &self.workers;
        if !(1..=MOST_WORKERS).contains(count) {
            return refuse("workers.count", format!("{count} workers cannot be"), "use 1 to 64");
        }
        if !cpus.is_empty() && cpus.len() != usize::from(*count) {
            let message = format!("{} CPUs for {count} workers", cpus.len());
            return refuse("workers.cpus", message, "name one CPU per worker, or none");
        }
        Ok(())
    }
}

fn default_state_dir() -> PathBuf {
    DEFAULT_STATE_DIR.into()
}

const fn default_keep_seconds() -> u32 {
    300
}

fn default_socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}

/// The `[underlay]` table as people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnderlayTable {
    #[serde(deserialize_with = "addresses")]
    physical_ip: Vec<PhysicalIp>,
    #[serde(default)]
    encapsulation: Encapsulation,
    #[serde(default = "default_mtu")]
    mtu: Mtu,
}

const fn default_mtu() -> Mtu {
    Mtu::ETHERNET
}

fn underlay<'de, D: serde::Deserializer<'de>>(from: D) -> Result<UnderlayConfig, D::Error> {
    let UnderlayTable { physical_ip, encapsulation, mtu } = UnderlayTable::deserialize(from)?;
    Ok(UnderlayConfig { physical_ips: physical_ip, encapsulation, mtu })
}

fn addresses<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<PhysicalIp>, D::Error> {
    struct Addresses;
    impl<'de> serde::de::Visitor<'de> for Addresses {
        type Value = Vec<PhysicalIp>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an IP address such as \"192.0.2.1\", or a list of them")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            own_address(text).map(|ip| vec![ip]).map_err(E::custom)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            use serde::de::Error;
            let mut addresses = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                let ip = own_address(&text).map_err(A::Error::custom)?;
                if addresses.contains(&ip) {
                    return Err(A::Error::custom(format_args!("{ip} is there twice")));
                }
                addresses.push(ip);
            }
            match addresses.len() {
                0 => Err(A::Error::custom("the list is empty: expected at least one IP address")),
                1..=MOST_PHYSICAL_IPS => Ok(addresses),
                more => Err(A::Error::custom(format_args!("{more} addresses are too many: at most 16"))),
            }
        }
    }
    from.deserialize_any(Addresses)
}

/// An address to listen at. Loopback is fine: a switch may be alone on its machine.
fn own_address(text: &str) -> Result<PhysicalIp, TypeError> {
    let ip: PhysicalIp = text.parse()?;
    if ip.0.is_loopback() { Ok(ip) } else { ip.require_unicast() }
}

/// Line and column of a byte, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SwitchConfig, ConfigFileError> {
        SwitchConfig::parse(text, Path::new("vswitch.toml"))
    }

    #[test]
    fn the_documented_example_is_understood() {
        let config = parse(
            r#"
            state_dir = "/tmp/s"
            socket = "/tmp/s/sock"
            metrics = "127.0.0.1:9477"
            [underlay]
            physical_ip = ["192.0.2.1", "2001:db8::1"]
            encapsulation = "geneve"
            mtu = 1600
            [workers]
            count = 2
            cpus = [1, 3]
            poll = "busy"
            "#,
        )
        .unwrap();
        assert_eq!(config.underlay.physical_ips.len(), 2);
        assert_eq!(config.underlay.encapsulation, Encapsulation::Geneve);
        assert_eq!((config.workers.count, config.workers.poll), (2, Poll::Busy));
    }

    #[test]
    fn one_address_is_enough_and_the_rest_has_defaults() {
        let config = parse("underlay.physical_ip = \"192.0.2.1\"").unwrap();
        assert_eq!(config.state_dir, Path::new(DEFAULT_STATE_DIR));
        assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
        assert_eq!((config.metrics, config.keep_seconds), (None, 300));
        assert_eq!(config.underlay.mtu, Mtu::ETHERNET);
        assert_eq!(config.workers, WorkersConfig::default());
        let defaults: Vec<_> = KEYS.iter().map(|key| key.default).collect();
        assert!(defaults.contains(&format!("{DEFAULT_STATE_DIR:?}").as_str()));
        assert!(defaults.contains(&format!("{DEFAULT_SOCKET:?}").as_str()));
    }

    #[test]
    fn the_reference_names_every_key_and_no_other() {
        // serde lists the keys it knows when it meets one that it does not.
        let listed = |text: &str| {
            let message = parse(text).unwrap_err().to_string();
            let names: Vec<String> = message.split('`').skip(3).step_by(2).map(Into::into).collect();
            assert!(!names.is_empty(), "{message}");
            names
        };
        let top = listed("zzz = 1");
        let mut known: Vec<String> =
            top.into_iter().filter(|name| !matches!(name.as_str(), "underlay" | "workers")).collect();
        for table in ["underlay", "workers"] {
            known.extend(listed(&format!("[{table}]\nzzz = 1")).iter().map(|name| format!("{table}.{name}")));
        }
        let documented: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(known, documented);
    }

    #[test]
    fn every_error_names_the_place_and_what_would_be_right() {
        let good = "underlay.physical_ip = \"192.0.2.1\"\n";
        let long = format!("socket = \"/{}\"\n{good}", "s".repeat(107));
        for (text, place, what) in [
            ("", "vswitch.toml, line 1, column 1", "missing field `underlay`"),
            (
                "[underlay]\nphysical_ips = \"192.0.2.1\"",
                "vswitch.toml, line 2, column 1",
                "unknown field `physical_ips`",
            ),
            (
                "sockt = \"/x\"\nunderlay.physical_ip = \"192.0.2.1\"",
                "vswitch.toml, line 1, column 1",
                "unknown field `sockt`",
            ),
            ("socket = \n", "vswitch.toml, line 1, column 10", "string values must be quoted"),
            (
                "[underlay]\nphysical_ip = \"nowhere\"",
                "vswitch.toml, line 2, column 15",
                "`nowhere` is not an IP address",
            ),
            (
                "[underlay]\nphysical_ip = \"0.0.0.0\"",
                "vswitch.toml, line 2, column 15",
                "not a unicast host address",
            ),
            ("[underlay]\nphysical_ip = []", "vswitch.toml, line 2, column 15", "the list is empty"),
            (
                "[underlay]\nphysical_ip = [\"192.0.2.1\", \"192.0.2.1\"]",
                "line 2",
                "192.0.2.1 is there twice",
            ),
            (
                "[underlay]\nphysical_ip = 7",
                "vswitch.toml, line 2, column 15",
                "expected an IP address such as",
            ),
            (
                "[underlay]\nphysical_ip = \"192.0.2.1\"\nencapsulation = \"gre\"",
                "line 3, column 17",
                "`vxlan` or `geneve`",
            ),
            (
                "[underlay]\nphysical_ip = \"192.0.2.1\"\nmtu = 500",
                "line 3, column 7",
                "MTU 500 is out of range",
            ),
            (
                "[workers]\ncount = 0\n[underlay]\nphysical_ip = \"192.0.2.1\"",
                "vswitch.toml, workers.count",
                "0 workers cannot be",
            ),
            (
                "[workers]\ncount = 65\n[underlay]\nphysical_ip = \"192.0.2.1\"",
                "vswitch.toml, workers.count",
                "65 workers cannot be",
            ),
            (
                "[workers]\ncount = 2\ncpus = [1]\n[underlay]\nphysical_ip = \"192.0.2.1\"",
                "vswitch.toml, workers.cpus",
                "1 CPUs for 2 workers",
            ),
            (
                "[workers]\npoll = \"eager\"\n[underlay]\nphysical_ip = \"192.0.2.1\"",
                "line 2, column 8",
                "`adaptive`",
            ),
            (
                "metrics = \"9477\"\nunderlay.physical_ip = \"192.0.2.1\"",
                "line 1, column 11",
                "socket address",
            ),
            (long.as_str(), "vswitch.toml, socket", "108 bytes"),
            ("metadata = \"\"\nunderlay.physical_ip = \"192.0.2.1\"", "vswitch.toml, metadata", "0 bytes"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.place().contains(place), "{text}\nplace: {}", error.place());
            assert!(error.to_string().contains(what), "{text}\nwhat: {error}");
            assert!(!error.to_string().contains('\n') && !error.remedy().is_empty(), "{text}");
        }
        let missing = SwitchConfig::load(Path::new("/nonexistent/vswitch.toml")).unwrap_err();
        assert_eq!(missing.place(), "/nonexistent/vswitch.toml");
    }
}
