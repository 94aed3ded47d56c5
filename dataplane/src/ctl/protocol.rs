//! What can be asked over the socket, and what comes back: plain data, one JSON object a line.
//!
//! Fields may be added to answers; none is renamed or removed. Unknown fields of requests are refused.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use super::packed::Packed;
use crate::desired::{
    HostConfig, Label, NetworkConfig, NextHop, PortConfig, PortName, RouteConfig, RuleConfig, RuleId,
};
use crate::keeper::KeeperError;
use crate::switch::{Mapping, StartError, StateError, SwitchError};
use crate::types::{CustomerIp, Generation, Vni};

/// The longest line either side may send, in bytes: room for a document of some 100,000 ports.
pub const LONGEST_LINE: usize = 64 << 20;
/// The largest page of `directory_list`, in entries.
pub const LARGEST_PAGE: usize = 10_000;
/// How long `port_move` waits for the guest unless told otherwise, in milliseconds.
pub const DEFAULT_WAIT_MS: u64 = 60_000;

/// One question to the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Put a whole document in force. Answer: [`Changed`].
    Apply {
        /// The document; its generation must be newer than the one in force.
        document: HostConfig,
    },
    /// The document in force. Answer: [`HostConfig`].
    Export {},
    /// Add a network. Answer: [`Changed`].
    NetworkAdd {
        /// The network.
        network: NetworkConfig,
    },
    /// Remove a network that no port is in. Answer: [`Changed`].
    NetworkRemove {
        /// Its VNI.
        network: Vni,
    },
    /// All networks. Answer: [`Networks`].
    NetworkList {},
    /// Add a port and make its device. Answer: [`Changed`].
    PortAdd {
        /// The port.
        port: PortConfig,
    },
    /// The atomic network change. Answer: [`Moved`].
    PortMove {
        /// The port.
        port: PortName,
        /// Where to.
        network: Vni,
        /// Its addresses there.
        ips: Vec<CustomerIp>,
        /// Its rules there; absent: those that it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rules: Option<Vec<RuleConfig>>,
        /// Its label there; absent: the one that it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<Label>,
        /// What the link does.
        #[serde(default)]
        bounce: BounceOrder,
        /// What the guest must have done before the answer comes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait: Option<Wait>,
        /// How long to wait for that, in milliseconds.
        #[serde(default = "default_wait_ms")]
        timeout_ms: u64,
    },
    /// Remove a port and its device. Answer: [`Changed`].
    PortRemove {
        /// The port.
        port: PortName,
    },
    /// All ports. Answer: [`Ports`].
    PortList {},
    /// One port. Answer: [`PortDetail`].
    PortShow {
        /// The port.
        port: PortName,
    },
    /// Add a route to a network. Answer: [`Changed`].
    RouteAdd {
        /// The network.
        network: Vni,
        /// The route.
        route: RouteConfig,
    },
    /// Remove a route. Answer: [`Changed`].
    RouteRemove {
        /// The network.
        network: Vni,
        /// The route's prefix.
        prefix: IpNet,
    },
    /// The routes of one network or of all. Answer: [`Routes`].
    RouteList {
        /// The network.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<Vni>,
    },
    /// Add a rule to a port. Answer: [`Changed`], with the rule's id.
    RuleAdd {
        /// The port.
        port: PortName,
        /// The rule; without an id the next free one is taken.
        rule: RuleConfig,
    },
    /// Remove a rule of a port. Answer: [`Changed`].
    RuleRemove {
        /// The port.
        port: PortName,
        /// The rule.
        rule: RuleId,
    },
    /// The rules of one port or of all. Answer: [`Rules`].
    RuleList {
        /// The port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<PortName>,
    },
    /// Add or replace directory entries, all of them or none. Answer: [`Counted`].
    DirectorySet {
        /// The entries.
        entries: Vec<Mapping>,
    },
    /// Remove a directory entry. Answer: [`Counted`].
    DirectoryRemove {
        /// The network.
        network: Vni,
        /// The address.
        ip: CustomerIp,
    },
    /// One directory entry, as the packet path sees it. Answer: [`Mapping`].
    DirectoryLookup {
        /// The network.
        network: Vni,
        /// The address.
        ip: CustomerIp,
    },
    /// A page of directory entries in the order of (network, family, address). Answer: [`Entries`].
    DirectoryList {
        /// Only this network's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<Vni>,
        /// Begin behind this entry: the last one of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<(Vni, CustomerIp)>,
        /// At most so many, and never more than [`LARGEST_PAGE`].
        #[serde(default = "largest_page")]
        limit: usize,
    },
    /// Keep entries for `directory_commit` on this connection. Answer: [`Counted`].
    DirectoryStage {
        /// The entries.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        entries: Vec<Mapping>,
        /// More of them, in the form for millions: see [`Packed`].
        #[serde(default, skip_serializing_if = "Packed::is_empty")]
        packed: Packed,
    },
    /// Add or replace everything that was staged on this connection, all of it or nothing. Answer: [`Counted`].
    DirectoryCommit {},
    /// Traffic counters. Answer: [`Stats`].
    Stats {},
    /// Drop counters. Answer: [`Drops`].
    Drops {},
}

const fn default_wait_ms() -> u64 {
    DEFAULT_WAIT_MS
}

const fn largest_page() -> usize {
    LARGEST_PAGE
}

/// What the link does during a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BounceOrder {
    /// Down for as long as the guest's kernel needs to notice.
    #[default]
    Adaptive,
    /// It stays up.
    No,
    /// Down for so many milliseconds.
    HoldMs(u64),
}

/// What the guest must have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// It was sent its new lease.
    Lease,
    /// It has sent a packet from its new address.
    Traffic,
}

/// One line of answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response<T> {
    /// It was done; here is what the request asks for.
    Ok(T),
    /// It was not done.
    Error(Refusal),
}

/// Why something was not done: what, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong, without a full stop.
    pub what: String,
    /// Where it stands: a port, a file and line, a key.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, place, remedy } = self;
        // Many sentences name their place already.
        if place.is_empty() || what.starts_with(place.as_str()) {
            write!(f, "{what}; {remedy}")
        } else {
            write!(f, "{place}: {what}; {remedy}")
        }
    }
}

macro_rules! refusals {
    ($($error:ty),+) => {
        $(impl From<&$error> for Refusal {
            fn from(error: &$error) -> Self {
                Self { what: error.to_string(), place: error.place(), remedy: error.remedy() }
            }
        })+
    };
}

refusals!(SwitchError, StartError, StateError, KeeperError);

/// A change that is durable, in force and settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The port that was asked about, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// The network that was asked about, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Vni>,
    /// The rule that was asked about, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    /// The document's, now.
    pub generation: Generation,
    /// Change received → new snapshot stored, in nanoseconds.
    pub swap_ns: u64,
    /// Change received → all workers past the old snapshot, in nanoseconds.
    pub settled_ns: u64,
}

/// A port that is in its new network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// The port.
    pub port: PortName,
    /// The document's, now.
    pub generation: Generation,
    /// Change received → new snapshot stored, in nanoseconds.
    pub swap_ns: u64,
    /// Change received → all workers past the old snapshot, in nanoseconds.
    pub settled_ns: u64,
    /// Only with `wait`: how far the guest has followed.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub followed: Option<Followed>,
}

/// How far a guest has followed a change.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Followed {
    /// Change received → lease sent, in milliseconds; null: not yet.
    // Naming the function makes the field required, so that `Moved` can tell null from absent.
    #[serde(deserialize_with = "Option::deserialize")]
    pub lease_ms: Option<f64>,
    /// Change received → first packet from the new address, in milliseconds; null: not yet.
    #[serde(deserialize_with = "Option::deserialize")]
    pub first_packet_ms: Option<f64>,
}

/// All networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {
    /// The document's.
    pub generation: Generation,
    /// In the document's order.
    pub networks: Vec<NetworkDetail>,
}

/// A network and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDetail {
    /// As desired.
    #[serde(flatten)]
    pub config: NetworkConfig,
    /// The MTU that guests are told, in bytes.
    pub guest_mtu: u16,
    /// How many ports are in it.
    pub ports: usize,
}

/// All ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The document's.
    pub generation: Generation,
    /// In the document's order.
    pub ports: Vec<PortSummary>,
}

/// A port and its link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSummary {
    /// As desired.
    #[serde(flatten)]
    pub config: PortConfig,
    /// Whether its device passes frames.
    pub link: Link,
    /// The generation in which its network, MAC or addresses last changed.
    pub generation: Generation,
}

/// A link's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// It passes frames.
    Up,
    /// A bounce holds it down.
    Down,
    /// There is no interface: it could not be had, or somebody has removed it. Remove the port and add it again.
    Missing,
}

/// Everything about one port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortDetail {
    /// As in the list.
    #[serde(flatten)]
    pub summary: PortSummary,
    /// Its last change since the switch started.
    pub last_change: Option<ChangeDetail>,
    /// What its rules are following; null without rules.
    pub connections: Option<ConnectionCount>,
    /// Its traffic.
    pub counters: Traffic,
    /// What was dropped on it, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// A port's last change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeDetail {
    /// The document's.
    pub generation: Generation,
    /// When it was received: RFC 3339, UTC.
    pub at: String,
    /// Change received → new snapshot stored, in nanoseconds.
    pub swap_ns: u64,
    /// Change received → all workers past the old snapshot, in nanoseconds.
    pub settled_ns: u64,
    /// How far the guest has followed.
    #[serde(flatten)]
    pub followed: Followed,
}

/// Routes beyond the networks' own prefixes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// In the document's order.
    pub routes: Vec<RouteDetail>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteDetail {
    /// Its network.
    pub network: Vni,
    /// Where to.
    pub prefix: IpNet,
    /// How.
    pub via: NextHop,
}

/// Rules of ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Port by port, in the order in which they are judged.
    pub rules: Vec<RuleDetail>,
}

/// One rule, and how often it has decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDetail {
    /// Its port.
    pub port: PortName,
    /// As desired.
    #[serde(flatten)]
    pub config: RuleConfig,
    /// How often it was the first that matched: once for each connection that it let begin, once for each packet that it
    /// denied.
    pub hits: u64,
}

/// How many connections a port's rules are following.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCount {
    /// Both sides have spoken.
    pub established: usize,
    /// One has.
    pub half_open: usize,
    /// Closed, and not yet forgotten.
    pub over: usize,
}

/// A page of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// In order.
    pub entries: Vec<Mapping>,
    /// True when there are more behind the last one.
    pub more: bool,
}

/// How many directory entries a request has changed, removed or staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// So many.
    pub entries: usize,
}

/// Traffic since the switch started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The document's.
    pub generation: Generation,
    /// Each port's.
    pub ports: Vec<PortTraffic>,
    /// Of packets that belong to no port.
    pub underlay: Traffic,
}

/// A port's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTraffic {
    /// The port.
    pub port: PortName,
    /// What it counts.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// Counters. Received is from the guest (or the underlay), sent is to it; a super-packet counts as one packet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// All reasons together.
    pub dropped_packets: u64,
    /// Packets that the switch's own services handled, by service.
    pub traps: BTreeMap<String, u64>,
}

/// What was dropped since the switch started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// One for each reason and port that it happened on; no totals.
    pub drops: Vec<DropCount>,
}

/// A drop counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The reason's name, see docs/reference/drops.md.
    pub reason: String,
    /// The port; null for packets that belong to no port.
    pub port: Option<PortName>,
    /// How many.
    pub packets: u64,
}
