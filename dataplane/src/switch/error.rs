//! What can go wrong with a change: what, where, and what to do.

use super::state::StateError;
use crate::desired::{ConfigError, PortName, RuleId};
use crate::port::open::OpenError;
use crate::types::{Generation, Vni};

/// Why a change was refused, or did not come to its end. Unless a variant says otherwise nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The document is not one that the packet path could honour.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The change could not be made durable.
    #[error(transparent)]
    State(#[from] StateError),
    /// A port's device could not be opened.
    #[error("port {port}: {source}")]
    Open {
        /// The port.
        port: PortName,
        /// What failed.
        source: OpenError,
    },
    /// A port's link could not be taken down.
    #[error("the link of port {port} could not be taken down: {source}")]
    Link {
        /// The port.
        port: PortName,
        /// What failed.
        source: std::io::Error,
    },
    /// A port that does not exist.
    #[error("port {0} does not exist")]
    NoSuchPort(PortName),
    /// A network that does not exist.
    #[error("network {0} does not exist")]
    NoSuchNetwork(Vni),
    /// A network to be added that is there.
    #[error("network {0} already exists")]
    NetworkExists(Vni),
    /// A port to be added whose name another one has.
    #[error("port {0} already exists")]
    PortExists(PortName),
    /// A route to be added to a prefix that has one.
    #[error("network {network} already has a route to {prefix}")]
    RouteExists {
        /// The network.
        network: Vni,
        /// The prefix.
        prefix: ipnet::IpNet,
    },
    /// A rule to be added whose number another one has.
    #[error("port {port} already has a rule {rule}")]
    RuleExists {
        /// The port.
        port: PortName,
        /// The number.
        rule: RuleId,
    },
    /// A network that ports are still in.
    #[error("network {network} still has ports: {}", .ports.join(", "))]
    NetworkInUse {
        /// The network.
        network: Vni,
        /// Their names.
        ports: Vec<String>,
    },
    /// A network that routes of others still lead into.
    #[error("network {network} cannot go: network {from} has a route to {prefix} into it")]
    NetworkRoutedInto {
        /// The network.
        network: Vni,
        /// The first of the networks that have such a route.
        from: Vni,
        /// The route's prefix.
        prefix: ipnet::IpNet,
    },
    /// A rule that does not exist.
    #[error("port {port} has no rule {rule}")]
    NoSuchRule {
        /// The port.
        port: PortName,
        /// The rule.
        rule: RuleId,
    },
    /// A route that does not exist.
    #[error("network {network} has no route to {prefix}")]
    NoSuchRoute {
        /// The network.
        network: Vni,
        /// The prefix asked for.
        prefix: ipnet::IpNet,
    },
    /// A property of the device that only a new device can have.
    #[error("the {field} of port {port} cannot change while the port exists")]
    DeviceFixed {
        /// The port.
        port: PortName,
        /// The property.
        field: &'static str,
    },
    /// The directory refused an entry.
    #[error(transparent)]
    Directory(#[from] crate::directory::DirectoryError),
    /// The change is durable and in force, but a worker has not confirmed it.
    #[error("generation {0} is in force, but a worker has not confirmed it within five seconds")]
    NotSettled(Generation),
}

impl SwitchError {
    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Config(error) => error.place(),
            Self::State(error) => error.place(),
            Self::Open { port, .. }
            | Self::Link { port, .. }
            | Self::NoSuchPort(port)
            | Self::PortExists(port) => format!("port {port}"),
            Self::DeviceFixed { port, field } => format!("port {port}, {field}"),
            Self::NoSuchNetwork(network)
            | Self::NetworkExists(network)
            | Self::NetworkInUse { network, .. } => format!("network {network}"),
            Self::NoSuchRule { port, rule } | Self::RuleExists { port, rule } => {
                format!("port {port}, rule {rule}")
            }
            Self::NoSuchRoute { network, prefix }
            | Self::RouteExists { network, prefix }
            | Self::NetworkRoutedInto { from: network, prefix, .. } => {
                format!("network {network}, route {prefix}")
            }
            Self::Directory(_) => "directory".into(),
            Self::NotSettled(_) => "workers".into(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Config(error) => error.remedy(),
            Self::State(error) => error.remedy(),
            Self::Open { source, .. } => source.remedy(),
            Self::Link { .. } => "repeat with --no-bounce, and renew the guest's lease from inside".into(),
            Self::NoSuchPort(_) => "`shunt vswitch port list` shows the ports".into(),
            Self::NoSuchNetwork(_) => "`shunt vswitch network list` shows the networks".into(),
            Self::NetworkExists(_) => {
                "choose another VNI; to change this network, `export` the document, edit it and `apply` it"
                    .into()
            }
            Self::PortExists(_) => "choose another name, or change that port with `port move`".into(),
            Self::RouteExists { network, prefix } | Self::NetworkRoutedInto { from: network, prefix, .. } => {
                format!("remove it first: `shunt vswitch route remove --network {network} {prefix}`")
            }
            Self::RuleExists { .. } => "choose another number, or leave --id out".into(),
            Self::NetworkInUse { .. } => "move or remove these ports first".into(),
            Self::NoSuchRule { port, .. } => {
                format!("`shunt vswitch rule list --port {port}` shows its rules")
            }
            Self::NoSuchRoute { .. } => "`shunt vswitch route list` shows the routes".into(),
            Self::DeviceFixed { .. } => "remove the port and add it again".into(),
            Self::Directory(error) => error.remedy(),
            Self::NotSettled(_) => {
                "look for `worker` in the switch's log; ask again with `shunt vswitch port show`".into()
            }
        }
    }
}
