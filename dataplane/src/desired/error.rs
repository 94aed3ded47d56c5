//! What can be wrong with a document: each variant names the value; [`ConfigError::place`] says where it stands and
//! [`ConfigError::remedy`] what to do.

use ipnet::IpNet;

use super::{DomainName, PortName, RuleError, RuleId};
use crate::types::{CustomerIp, Generation, MacAddr, TypeError, Vni};

/// Why a [`super::HostConfig`] is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An older document than the one in force.
    #[error("generation {offered} is older than the switch's generation {current}")]
    OlderGeneration {
        /// The refused one.
        offered: Generation,
        /// The one in force.
        current: Generation,
    },
    /// The generation in force, with other content.
    #[error("generation {0} is already in force with other content")]
    SameGenerationOtherContent(Generation),
    /// More than can be counted on from.
    #[error("generation {0} is out of range: at most {max}", max = super::validate::LAST_GENERATION)]
    GenerationOutOfRange(Generation),
    /// Two networks with one VNI.
    #[error("network {0} is there twice")]
    DuplicateNetwork(Vni),
    /// A network, or a route's peer, that does not exist.
    #[error("network {wanted} does not exist")]
    NoSuchNetwork {
        /// The missing one.
        wanted: Vni,
        /// Who names it.
        place: String,
    },
    /// A network without prefixes.
    #[error("network {0} has no prefix")]
    NoSubnet(Vni),
    /// A prefix with bits behind its length.
    #[error("prefix {prefix} has host bits set")]
    HostBits {
        /// As given.
        prefix: IpNet,
        /// Who names it.
        place: String,
    },
    /// Two prefixes of a network that share addresses.
    #[error("prefixes {0} and {1} overlap")]
    OverlappingSubnets(IpNet, IpNet, Vni),
    /// A prefix too long to hold a gateway and a guest.
    #[error("prefix {prefix} has no room for a gateway and a guest")]
    SubnetTooSmall {
        /// As given.
        prefix: IpNet,
        /// Its network.
        network: Vni,
    },
    /// A gateway outside of its prefix, or at its network or broadcast address.
    #[error("gateway {gateway} is not a host address of {prefix}")]
    GatewayOutside {
        /// The gateway.
        gateway: CustomerIp,
        /// Its prefix.
        prefix: IpNet,
        /// Its network.
        network: Vni,
    },
    /// An address that no host can have.
    #[error("{source}")]
    Address {
        /// What is wrong with it.
        source: TypeError,
        /// Who names it.
        place: String,
    },
    /// A lease too short to be renewed.
    #[error("lease of {seconds} s is too short: expected at least {min} s", min = super::validate::MIN_LEASE_SECONDS)]
    LeaseTooShort {
        /// As given.
        seconds: u32,
        /// Its network.
        network: Vni,
    },
    /// An MTU that does not fit the underlay.
    #[error("MTU {mtu} does not fit the underlay: at most {largest} bytes")]
    MtuTooLarge {
        /// As given.
        mtu: u16,
        /// What fits.
        largest: u16,
        /// Its network.
        network: Vni,
    },
    /// An IPv6 prefix on a network whose packets are too small for IPv6.
    #[error("MTU {mtu} is too small for IPv6: expected at least {min} bytes", min = super::validate::IPV6_MIN_MTU)]
    MtuTooSmallForIpv6 {
        /// In force.
        mtu: u16,
        /// Its network.
        network: Vni,
    },
    /// Two routes of a network to one prefix.
    #[error("route {prefix} is there twice")]
    DuplicateRoute {
        /// The prefix.
        prefix: IpNet,
        /// Its network.
        network: Vni,
    },
    /// A route through a station that is in none of the network's prefixes, or of the other family.
    #[error("route {prefix} goes through {via}, which is in no prefix of the network or of the other family")]
    UnreachableNextHop {
        /// The route's prefix.
        prefix: IpNet,
        /// The next hop.
        via: CustomerIp,
        /// Its network.
        network: Vni,
    },
    /// A route into its own network.
    #[error("route {prefix} leads back into its own network")]
    RouteToSelf {
        /// The route's prefix.
        prefix: IpNet,
        /// Its network.
        network: Vni,
    },
    /// Two ports with one name.
    #[error("port {0} is there twice")]
    DuplicatePort(PortName),
    /// A port without an address.
    #[error("port {0} has no address")]
    NoAddress(PortName),
    /// A port whose device would have no queue.
    #[error("port {0} has no queue")]
    NoQueue(PortName),
    /// A port of kind netdev with several queues.
    #[error("port {0} is of kind netdev and has more than one queue")]
    NetdevQueues(PortName),
    /// A port of kind netdev whose frames this machine's own stack would see too.
    #[error(
        "port {0} is of kind netdev and names no namespace: the switch's own IP stack would hear its guest, and answer"
    )]
    NetdevExposed(PortName),
    /// More of something than the switch keeps per item.
    #[error("{count} {what} are too many: at most {most}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        most: usize,
        /// Who has them.
        place: String,
    },
    /// The virtual router's own MAC address.
    #[error("MAC address {mac} is the virtual router's")]
    RouterMac {
        /// The address.
        mac: MacAddr,
        /// The port.
        port: PortName,
    },
    /// Two ports of a network with one MAC address.
    #[error("MAC address {mac} is already port {other}'s in network {network}")]
    DuplicateMac {
        /// The address.
        mac: MacAddr,
        /// The network.
        network: Vni,
        /// The refused port.
        port: PortName,
        /// The port that has it.
        other: PortName,
    },
    /// Two ports of a network with one address, or one port with it twice.
    #[error("{}", duplicate_ip(*.ip, *.network, .port, .other))]
    DuplicateIp {
        /// The address.
        ip: CustomerIp,
        /// The network.
        network: Vni,
        /// The refused port.
        port: PortName,
        /// The port that has it.
        other: PortName,
    },
    /// An address in none of the network's prefixes, or one that no guest can have there.
    #[error("address {ip} is not a guest address of network {network}")]
    IpOutside {
        /// The address.
        ip: CustomerIp,
        /// The network.
        network: Vni,
        /// The port.
        port: PortName,
    },
    /// The virtual router's own address.
    #[error("address {ip} is the gateway's in network {network}")]
    GatewayIp {
        /// The address.
        ip: CustomerIp,
        /// The network.
        network: Vni,
        /// The port.
        port: PortName,
    },
    /// A namespace that is no name and no path.
    #[error("`{netns}` is not a network namespace: expected a name without `/`, or an absolute path")]
    Namespace {
        /// As given.
        netns: String,
        /// The port.
        port: PortName,
    },
    /// A machine name that does not fit a DHCP option.
    #[error("host name {hostname} is too long: at most 64 characters")]
    Hostname {
        /// As given.
        hostname: DomainName,
        /// The port.
        port: PortName,
    },
    /// A rule.
    #[error("{source}")]
    Rule {
        /// The port.
        port: PortName,
        /// The rule.
        rule: RuleId,
        /// What is wrong with it.
        source: RuleError,
    },
}

fn duplicate_ip(ip: CustomerIp, network: Vni, port: &PortName, other: &PortName) -> String {
    if port == other {
        format!("address {ip} is named twice")
    } else {
        format!("address {ip} is already port {other}'s in network {network}")
    }
}

impl ConfigError {
    /// The same fault, told of `subject` where it is one between two ports: the one that is being changed is to blame, not
    /// the one that comes later in the document.
    #[must_use]
    pub fn told_of(mut self, subject: &PortName) -> Self {
        if let Self::DuplicateMac { port, other, .. } | Self::DuplicateIp { port, other, .. } = &mut self
            && other == subject
        {
            std::mem::swap(port, other);
        }
        self
    }

    /// Where in the document it stands.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::OlderGeneration { .. }
            | Self::SameGenerationOtherContent(_)
            | Self::GenerationOutOfRange(_) => "generation".into(),
            Self::DuplicateNetwork(vni) | Self::NoSubnet(vni) | Self::OverlappingSubnets(_, _, vni) => {
                format!("network {vni}")
            }
            Self::NoSuchNetwork { place, .. }
            | Self::HostBits { place, .. }
            | Self::Address { place, .. }
            | Self::TooMany { place, .. } => place.clone(),
            Self::SubnetTooSmall { network, .. } => format!("network {network}, prefix"),
            Self::GatewayOutside { network, .. } => format!("network {network}, gateway"),
            Self::LeaseTooShort { network, .. } => format!("network {network}, lease_seconds"),
            Self::MtuTooLarge { network, .. } | Self::MtuTooSmallForIpv6 { network, .. } => {
                format!("network {network}, mtu")
            }
            Self::DuplicateRoute { network, prefix }
            | Self::UnreachableNextHop { network, prefix, .. }
            | Self::RouteToSelf { network, prefix } => format!("network {network}, route {prefix}"),
            Self::DuplicatePort(port) => format!("port {port}"),
            Self::NoAddress(port) => format!("port {port}, ips"),
            Self::NoQueue(port) | Self::NetdevQueues(port) => format!("port {port}, queues"),
            Self::RouterMac { port, .. } | Self::DuplicateMac { port, .. } => format!("port {port}, mac"),
            Self::DuplicateIp { port, .. } | Self::IpOutside { port, .. } | Self::GatewayIp { port, .. } => {
                format!("port {port}, ips")
            }
            Self::Namespace { port, .. } | Self::NetdevExposed(port) => format!("port {port}, netns"),
            Self::Hostname { port, .. } => format!("port {port}, hostname"),
            Self::Rule { port, rule, .. } => format!("port {port}, rule {rule}"),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::OlderGeneration { current, .. } => {
                format!("export the document, change that, and apply it as generation {}", current.next())
            }
            Self::SameGenerationOtherContent(current) => format!("apply it as generation {}", current.next()),
            Self::DuplicateNetwork(_) | Self::DuplicateRoute { .. } => "leave one of them out".into(),
            Self::NoSuchNetwork { wanted, .. } => {
                format!("add it first: `shunt vswitch network add {wanted} --prefix …`")
            }
            Self::NoSubnet(_) => "give it at least one with --prefix".into(),
            Self::HostBits { prefix, .. } => format!("write {}", prefix.trunc()),
            Self::OverlappingSubnets(..) => "choose prefixes that share no address".into(),
            Self::SubnetTooSmall { .. } => "use /30 or shorter for IPv4, /126 or shorter for IPv6".into(),
            Self::GatewayOutside { prefix, .. } => format!("choose a host address inside {prefix}"),
            Self::Address { .. } => "give the address of one station".into(),
            Self::LeaseTooShort { .. } => "give --lease-seconds a larger value".into(),
            Self::MtuTooLarge { largest, .. } => {
                format!("use at most {largest}, or raise `underlay.mtu` on every host")
            }
            Self::UnreachableNextHop { .. } => {
                "route through an address inside one of the network's prefixes".into()
            }
            Self::RouteToSelf { .. } => "name another network".into(),
            Self::DuplicatePort(_) => "give one of them another name".into(),
            Self::NoAddress(_) => "give it at least one with --ip".into(),
            Self::NoQueue(_) => "give it one, or as many as workers shall read it".into(),
            Self::NetdevQueues(_) => "give it one".into(),
            Self::NetdevExposed(_) => {
                "put the interface into a namespace of its own and name that with --netns".into()
            }
            Self::TooMany { most, .. } => format!("keep to {most}"),
            Self::RouterMac { .. } | Self::DuplicateMac { .. } => "choose another MAC address".into(),
            Self::DuplicateIp { port, other, .. } if port == other => "name it once".into(),
            Self::DuplicateIp { .. } | Self::GatewayIp { .. } => "choose another address".into(),
            Self::IpOutside { .. } => "choose a host address inside one of the network's prefixes".into(),
            Self::Namespace { .. } => "name it as `ip netns` does".into(),
            Self::Hostname { .. } => "choose a shorter one".into(),
            Self::Rule { source, .. } => source.remedy(),
            Self::GenerationOutOfRange(_) => "count from the generation that `export` shows".into(),
            Self::MtuTooSmallForIpv6 { .. } => {
                "raise it, raise `underlay.mtu`, or leave the IPv6 prefix out".into()
            }
        }
    }
}
