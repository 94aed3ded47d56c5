//! A port's rules as they are desired: which packets may pass, in which direction.
//!
//! Rules are judged from the lowest priority number to the highest, rules of one priority by id; the first that matches
//! decides, and what none matches may pass. They are stateful: a rule is asked about the packet that begins a
//! connection, and whatever belongs to an allowed connection passes in both directions. Never here: how they are
//! looked up (`crate::tables`), and connections (`crate::conntrack`).

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::wire::Protocol;

/// A rule's number within its port: how people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub u32);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One rule of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Unique among the port's rules, from 1. Zero where a new rule's id is left to the switch.
    #[serde(default)]
    pub id: RuleId,
    /// Which packets it is about, seen from the guest.
    pub direction: Direction,
    /// What becomes of them.
    pub action: Action,
    /// The transport protocol.
    #[serde(default)]
    pub protocol: RuleProtocol,
    /// Where the other end is: the source of what comes in, the destination of what goes out. Absent: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpNet>,
    /// Destination ports, of TCP and UDP. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// Type, of ICMP and ICMPv6. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// The lowest is judged first.
    #[serde(default = "default_priority")]
    pub priority: u16,
}

/// Leaves room on both sides.
pub const DEFAULT_PRIORITY: u16 = 1000;

const fn default_priority() -> u16 {
    DEFAULT_PRIORITY
}

/// Seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the guest.
    In,
    /// From the guest.
    Out,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes, and so does all that belongs to its connection.
    Allow,
    /// It is dropped.
    Deny,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// Which transport protocols a rule is about: `any`, `tcp`, `udp`, `icmp`, `icmpv6`, or IANA's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RuleProtocol {
    /// All.
    #[default]
    Any,
    /// One.
    One(Protocol),
}

impl RuleProtocol {
    const NAMED: [(&'static str, Protocol); 4] = [
        ("tcp", Protocol::TCP),
        ("udp", Protocol::UDP),
        ("icmp", Protocol::ICMPV4),
        ("icmpv6", Protocol::ICMPV6),
    ];

    /// True for protocols whose packets have ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::One(Protocol::TCP | Protocol::UDP))
    }

    /// True for ICMP and ICMPv6.
    #[must_use]
    pub const fn is_icmp(self) -> bool {
        matches!(self, Self::One(Protocol::ICMPV4 | Protocol::ICMPV6))
    }
}

/// Why a text is not part of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleTextError {
    /// Not a protocol.
    #[error("`{0}` is not a protocol: expected any, tcp, udp, icmp, icmpv6 or a number from 0 to 255")]
    Protocol(String),
    /// Not a range of ports.
    #[error("`{0}` is not a range of ports: expected one such as 443 or 8000-8080")]
    Ports(String),
}

impl FromStr for RuleProtocol {
    type Err = RuleTextError;
    fn from_str(text: &str) -> Result<Self, RuleTextError> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let named = Self::NAMED.iter().find(|(name, _)| *name == text).map(|&(_, protocol)| protocol);
        let numbered = || text.parse().map(Protocol).map_err(|_| RuleTextError::Protocol(text.into()));
        named.map_or_else(numbered, Ok).map(Self::One)
    }
}

impl fmt::Display for RuleProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad("any"),
            Self::One(protocol) => match Self::NAMED.iter().find(|(_, named)| named == protocol) {
                Some((name, _)) => f.pad(name),
                None => protocol.0.fmt(f),
            },
        }
    }
}

/// A range of ports, both ends included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// From `first` to `last`; `None` if that is nothing.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// The lowest.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }
}

impl FromStr for PortRange {
    type Err = RuleTextError;
    fn from_str(text: &str) -> Result<Self, RuleTextError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = first.parse().ok().zip(last.parse().ok());
        range
            .and_then(|(first, last)| Self::new(first, last))
            .ok_or_else(|| RuleTextError::Ports(text.into()))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            f.pad(&format!("{}-{}", self.first, self.last))
        }
    }
}

macro_rules! by_text {
    ($($type:ty),+) => {
        $(impl TryFrom<String> for $type {
            type Error = RuleTextError;
            fn try_from(text: String) -> Result<Self, RuleTextError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        })+
    };
}

by_text!(RuleProtocol, PortRange);

/// Why a rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A rule without an id.
    #[error("a rule has no id")]
    NoId,
    /// Two rules of a port with one id.
    #[error("rule {0} is there twice")]
    Duplicate(RuleId),
    /// A remote prefix with bits behind its length.
    #[error("remote prefix {0} has host bits set")]
    HostBits(IpNet),
    /// Ports of a protocol that has none.
    #[error("protocol {0} has no ports")]
    PortsWithout(RuleProtocol),
    /// An ICMP type of another protocol.
    #[error("protocol {0} has no ICMP types")]
    IcmpTypeWithout(RuleProtocol),
    /// ICMP of the one family, a remote prefix of the other.
    #[error("protocol {0} never comes from or goes to {1}")]
    Family(RuleProtocol, IpNet),
}

impl RuleError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NoId => "number the port's rules from 1".into(),
            Self::Duplicate(_) => "give it another id".into(),
            Self::HostBits(prefix) => format!("write {}", prefix.trunc()),
            Self::PortsWithout(_) => "name protocol tcp or udp, or leave the ports out".into(),
            Self::IcmpTypeWithout(_) => "name protocol icmp or icmpv6, or leave the type out".into(),
            Self::Family(..) => "name icmp with IPv4 prefixes, icmpv6 with IPv6 prefixes".into(),
        }
    }
}

impl RuleConfig {
    /// Checks what the types of its fields do not.
    ///
    /// # Errors
    /// [`RuleError`].
    pub fn validate(&self) -> Result<(), RuleError> {
        let Self { id, protocol, remote, ports, icmp_type, .. } = *self;
        if id == RuleId::default() {
            return Err(RuleError::NoId);
        }
        if let Some(prefix) = remote.filter(|prefix| *prefix != prefix.trunc()) {
            return Err(RuleError::HostBits(prefix));
        }
        if ports.is_some() && !protocol.has_ports() {
            return Err(RuleError::PortsWithout(protocol));
        }
        if icmp_type.is_some() && !protocol.is_icmp() {
            return Err(RuleError::IcmpTypeWithout(protocol));
        }
        let is_of_family = |prefix: &IpNet| match protocol {
            RuleProtocol::One(Protocol::ICMPV4) => prefix.addr().is_ipv4(),
            RuleProtocol::One(Protocol::ICMPV6) => prefix.addr().is_ipv6(),
            _ => true,
        };
        match remote.filter(|prefix| !is_of_family(prefix)) {
            Some(prefix) => Err(RuleError::Family(protocol, prefix)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_and_ranges_are_read_as_they_are_written() {
        for text in ["any", "tcp", "udp", "icmp", "icmpv6", "47", "0"] {
            assert_eq!(text.parse::<RuleProtocol>().unwrap().to_string(), text);
        }
        assert_eq!("6".parse(), Ok(RuleProtocol::One(Protocol::TCP)));
        for wrong in ["", "TCP", "256", "-1", "sctp"] {
            assert_eq!(wrong.parse::<RuleProtocol>(), Err(RuleTextError::Protocol(wrong.into())));
        }
        for text in ["443", "8000-8080", "0-65535"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        for wrong in ["", "-", "1-", "-1", "8080-8000", "65536", "1-2-3", " 1"] {
            assert_eq!(wrong.parse::<PortRange>(), Err(RuleTextError::Ports(wrong.into())));
        }
    }

    #[test]
    fn a_rule_needs_no_more_than_direction_and_action() {
        let rule: RuleConfig =
            serde_json::from_str(r#"{"id": 1, "direction": "in", "action": "deny"}"#).unwrap();
        assert_eq!((rule.priority, rule.protocol), (DEFAULT_PRIORITY, RuleProtocol::Any));
        assert_eq!(rule.validate(), Ok(()));
        let unknown = r#"{"id": 1, "direction": "in", "action": "deny", "port": 1}"#;
        assert!(serde_json::from_str::<RuleConfig>(unknown).unwrap_err().to_string().contains("`port`"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let base = RuleConfig {
            id: RuleId(1),
            direction: Direction::In,
            action: Action::Allow,
            protocol: RuleProtocol::Any,
            remote: None,
            ports: None,
            icmp_type: None,
            priority: 1,
        };
        let icmp = RuleProtocol::One(Protocol::ICMPV4);
        let remote: IpNet = "fd00::/8".parse().unwrap();
        let host_bits: IpNet = "10.0.0.1/8".parse().unwrap();
        for (rule, error) in [
            (RuleConfig { id: RuleId(0), ..base }, RuleError::NoId),
            (RuleConfig { remote: Some(host_bits), ..base }, RuleError::HostBits(host_bits)),
            (RuleConfig { ports: PortRange::new(1, 2), ..base }, RuleError::PortsWithout(RuleProtocol::Any)),
            (RuleConfig { icmp_type: Some(8), ..base }, RuleError::IcmpTypeWithout(RuleProtocol::Any)),
            (RuleConfig { protocol: icmp, remote: Some(remote), ..base }, RuleError::Family(icmp, remote)),
        ] {
            assert_eq!(rule.validate(), Err(error));
        }
    }
}
