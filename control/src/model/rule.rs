//! A machine's rules, as its owner states them: the far end may be another machine.

use dataplane::desired::{Action, Direction, PortRange, RuleProtocol};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::VmId;

/// The far end that a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Anybody.
    Any,
    /// Addresses in a prefix.
    Prefix(IpNet),
    /// A machine, wherever it is: the rule follows its address.
    Vm(VmId),
}

/// One rule of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmRule {
    /// Its number, unique among the machine's.
    pub number: u32,
    /// Whose packets.
    pub direction: Direction,
    /// What becomes of them.
    pub action: Action,
    /// Of which protocol.
    #[serde(default)]
    pub protocol: RuleProtocol,
    /// To or from whom.
    pub remote: Remote,
    /// Destination ports; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// Type, of ICMP and ICMPv6; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Lower ones are asked first.
    pub priority: u16,
}
