//! Values of the command line that need more than their type's own parser.

use std::net::IpAddr;

use dataplane::desired::NextHop;
use ipnet::IpNet;

/// A prefix without host bits.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let prefix: IpNet = text
        .parse()
        .map_err(|_| format!("`{text}` is not a prefix: expected one such as 10.0.0.0/24 or fd00::/64"))?;
    let clean = prefix.trunc();
    if prefix == clean { Ok(prefix) } else { Err(format!("{prefix} has host bits set: write {clean}")) }
}

/// A prefix without host bits, or an address: that host alone.
pub(super) fn destination(text: &str) -> Result<IpNet, String> {
    text.parse::<IpAddr>().map_or_else(|_| prefix(text), |ip| Ok(ip.into()))
}

/// Where a rule stands among the others.
pub(super) fn priority(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` is not a priority: expected a number from 0 to 65535"))
}

/// How a rule is named.
pub(super) fn rule_number(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number
        .ok_or_else(|| format!("`{text}` is not a rule's number: expected one from 1, as `rule list` shows"))
}

/// A type of ICMP or ICMPv6.
pub(super) fn icmp_type(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| {
        format!(
            "`{text}` is not an ICMP type: expected a number from 0 to 255; a ping is 8 in icmp and 128 in icmpv6"
        )
    })
}

/// What a route does.
pub(super) fn next_hop(text: &str) -> Result<NextHop, String> {
    text.parse().map_err(|error| match text.split_once(':') {
        Some(("network", _)) => format!("{error}"),
        _ => format!("`{text}` is no next hop: expected an IP address, `gateway`, `drop` or `network:VNI`"),
    })
}
