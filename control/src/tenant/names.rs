//! Names: one thing of each kind under a name, within a tenant.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{Name, TenantId};
use crate::store::rows::{self, Row, RowError};
use crate::store::{Draft, Key, KeyError, Store};

/// What has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A machine.
    Vm,
    /// A network.
    Network,
    /// A disk.
    Disk,
    /// A pool; of the platform.
    Pool,
    /// A host; of the platform.
    Host,
    /// A tenant; of the platform.
    Tenant,
}

impl Named {
    const fn word(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Network => "network",
            Self::Disk => "disk",
            Self::Pool => "pool",
            Self::Host => "host",
            Self::Tenant => "tenant",
        }
    }
}

/// Who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    id: Uuid,
}

impl Row for Holder {
    const KIND: &'static str = "name";
    const SCHEMA: u32 = 1;
}

fn key(kind: Named, tenant: TenantId, name: &Name) -> Result<Key, KeyError> {
    Key::of(["name", kind.word(), &tenant.to_string(), name.as_str()])
}

/// Gives `id` this name; the transaction conflicts if somebody has it.
///
/// # Errors
/// Never with real names.
pub fn take_name(
    draft: &mut Draft,
    kind: Named,
    tenant: TenantId,
    name: &Name,
    id: Uuid,
) -> Result<(), KeyError> {
    let key = key(kind, tenant, name)?;
    draft.require_absent(&key).put_row(&key, &Holder { id });
    Ok(())
}

/// The name passes from whoever has it to `id`.
///
/// # Errors
/// Never with real names.
pub fn hand_name(
    draft: &mut Draft,
    kind: Named,
    tenant: TenantId,
    name: &Name,
    id: Uuid,
) -> Result<(), KeyError> {
    draft.put_row(&key(kind, tenant, name)?, &Holder { id });
    Ok(())
}

/// Nobody has this name any more.
///
/// # Errors
/// Never with real names.
pub fn drop_name(draft: &mut Draft, kind: Named, tenant: TenantId, name: &Name) -> Result<(), KeyError> {
    draft.delete(&key(kind, tenant, name)?);
    Ok(())
}

/// Who has this name.
///
/// # Errors
/// The store's.
pub async fn find_name(
    store: &dyn Store,
    kind: Named,
    tenant: TenantId,
    name: &Name,
) -> Result<Option<Uuid>, RowError> {
    Ok(rows::load::<Holder>(store, &key(kind, tenant, name)?).await?.map(|holder| holder.row.id))
}
