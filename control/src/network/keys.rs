//! Where this room's rows are.

use dataplane::types::{CustomerIp, Vni};

use crate::model::{HostId, Moniker, NetworkId, NicId};
use crate::store::{Key, KeyError, Prefix};

pub(super) fn network(id: NetworkId) -> Result<Key, KeyError> {
    Key::of(["network", &id.to_string()])
}

pub(super) fn vnet(moniker: &Moniker) -> Result<Key, KeyError> {
    Key::of(["vnet", moniker.as_str()])
}

pub(super) fn vni(vni: Vni) -> Result<Key, KeyError> {
    Key::of(["vni", &vni.to_string()])
}

pub(super) fn address(moniker: &Moniker, ip: CustomerIp) -> Result<Key, KeyError> {
    Key::of(["address", moniker.as_str(), &ip.to_string()])
}

pub(super) fn directory(moniker: &Moniker, ip: CustomerIp) -> Result<Key, KeyError> {
    Key::of(["directory", moniker.as_str(), &ip.to_string()])
}

pub(super) fn holder(moniker: &Moniker, host: HostId, nic: NicId) -> Result<Key, KeyError> {
    Key::of(["holder", moniker.as_str(), &host.to_string(), &nic.to_string()])
}

pub(super) fn progress(host: HostId) -> Result<Key, KeyError> {
    Key::of(["progress", &host.to_string()])
}

/// All claims of addresses of a network.
///
/// # Errors
/// Never with a real moniker.
pub fn address_prefix(moniker: &Moniker) -> Result<Prefix, KeyError> {
    Prefix::of(["address", moniker.as_str()])
}

/// All directory entries of a network.
///
/// # Errors
/// Never with a real moniker.
pub fn directory_prefix(moniker: &Moniker) -> Result<Prefix, KeyError> {
    Prefix::of(["directory", moniker.as_str()])
}

/// Who holds a network: `…/HOST/NIC`.
///
/// # Errors
/// Never with a real moniker.
pub fn holder_prefix(moniker: &Moniker) -> Result<Prefix, KeyError> {
    Prefix::of(["holder", moniker.as_str()])
}

/// How far each host is.
///
/// # Errors
/// Never.
pub fn progress_prefix() -> Result<Prefix, KeyError> {
    Prefix::of(["progress"])
}
