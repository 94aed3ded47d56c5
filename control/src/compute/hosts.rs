//! Hosts' rows.

use crate::model::{Host, HostId};
use crate::store::rows::{self, Row, RowError, Versioned};
use crate::store::{Draft, Key, KeyError, Prefix, Store};

impl Row for Host {
    const KIND: &'static str = "host";
    const SCHEMA: u32 = 1;
}

/// Where a host's row is.
///
/// # Errors
/// Never.
pub fn host_key(id: HostId) -> Result<Key, KeyError> {
    Key::of(["host", &id.to_string()])
}

/// A host.
///
/// # Errors
/// The store's.
pub async fn host(store: &dyn Store, id: HostId) -> Result<Option<Versioned<Host>>, RowError> {
    rows::load(store, &host_key(id)?).await
}

/// All hosts.
///
/// # Errors
/// The store's.
pub async fn all(store: &dyn Store) -> Result<Vec<Versioned<Host>>, RowError> {
    Ok(rows::list_all(store, &Prefix::of(["host"])?).await?.rows)
}

/// Writes a host's row.
///
/// # Errors
/// Never.
pub fn put_host(draft: &mut Draft, host: &Host) -> Result<(), KeyError> {
    draft.put_row(&host_key(host.id)?, host);
    Ok(())
}
