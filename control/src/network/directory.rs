//! The directory: where each address of a network is. A row for each; a network's version is the store's revision of its last
//! change, so that a host that has seen version N asks for what came after N, and gets it from the store's own log.

use dataplane::types::{CustomerIp, MacAddr, PhysicalIp};
use serde::{Deserialize, Serialize};

use super::{NetworkError, keys};
use crate::model::{Moniker, Nic};
use crate::store::rows::Row;
use crate::store::{Draft, Revision, Store};

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// The host.
    pub physical_ip: PhysicalIp,
    /// The station.
    pub mac: MacAddr,
}

impl Row for DirectoryEntry {
    const KIND: &'static str = "directory";
    const SCHEMA: u32 = 1;
}

/// Tells everybody in the network that `ip` is where `nic` is.
///
/// # Errors
/// Never with a real moniker.
pub fn publish(draft: &mut Draft, network: &Moniker, ip: CustomerIp, nic: &Nic) -> Result<(), NetworkError> {
    let entry = DirectoryEntry { physical_ip: nic.physical_ip, mac: nic.mac };
    draft.put_row(&keys::directory(network, ip)?, &entry);
    Ok(())
}

/// Since which revision an address is where it is.
///
/// # Errors
/// The store's.
pub async fn published_at(
    store: &dyn Store,
    network: &Moniker,
    ip: CustomerIp,
) -> Result<Option<Revision>, NetworkError> {
    Ok(store.get(&keys::directory(network, ip)?).await?.map(|entry| entry.revision))
}

/// Takes that back.
///
/// # Errors
/// Never with a real moniker.
pub fn withdraw(draft: &mut Draft, network: &Moniker, ip: CustomerIp) -> Result<(), NetworkError> {
    draft.delete(&keys::directory(network, ip)?);
    Ok(())
}
