//! Values of the command line that need more than their type's own parser.

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

/// What a route does.
pub(super) fn next_hop(text: &str) -> Result<NextHop, String> {
    text.parse().map_err(|error| match text.split_once(':') {
        Some(("network", _)) => format!("{error}"),
        _ => format!("`{text}` is no next hop: expected an IP address, `gateway`, `drop` or `network:VNI`"),
    })
}
