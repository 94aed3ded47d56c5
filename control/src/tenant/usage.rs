//! Tenants' rows, and how much of their quotas is used.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::{Named, find_name, take_name};
use crate::model::{Name, Problem, Quota, Tenant, TenantId};
use crate::store::rows::{self, Row, RowError, Versioned};
use crate::store::{Draft, Key, KeyError, Store};

impl Row for Tenant {
    const KIND: &'static str = "tenant";
    const SCHEMA: u32 = 1;
}

/// What a tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Virtual machines.
    pub vms: u32,
    /// Virtual networks.
    pub networks: u32,
    /// Disks.
    pub disks: u32,
}

impl Row for Usage {
    const KIND: &'static str = "usage";
    const SCHEMA: u32 = 1;
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Virtual machines.
    Vms,
    /// Virtual networks.
    Networks,
    /// Disks.
    Disks,
}

impl Usage {
    fn of(&mut self, resource: Resource) -> (&mut u32, &'static str) {
        match resource {
            Resource::Vms => (&mut self.vms, "virtual machines"),
            Resource::Networks => (&mut self.networks, "networks"),
            Resource::Disks => (&mut self.disks, "disks"),
        }
    }
}

const fn allowed(quota: &Quota, resource: Resource) -> u32 {
    match resource {
        Resource::Vms => quota.vms,
        Resource::Networks => quota.networks,
        Resource::Disks => quota.disks,
    }
}

/// Why a tenant may not have more.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// It has all that it may.
    #[error("{0}")]
    Exhausted(Problem),
    /// There is no such tenant.
    #[error("there is no tenant {0}")]
    NoSuchTenant(TenantId),
    /// The store failed.
    #[error(transparent)]
    Row(#[from] RowError),
}

impl From<KeyError> for QuotaError {
    fn from(error: KeyError) -> Self {
        Self::Row(error.into())
    }
}

/// Where a tenant's row is.
///
/// # Errors
/// Never.
pub fn tenant_key(id: TenantId) -> Result<Key, KeyError> {
    Key::of(["tenant", &id.to_string()])
}

fn usage_key(id: TenantId) -> Result<Key, KeyError> {
    Key::of(["usage", &id.to_string()])
}

/// Makes a tenant.
///
/// # Errors
/// Never with real names; the transaction conflicts if the name is taken.
pub fn create(draft: &mut Draft, name: &Name, quota: Quota, now: Timestamp) -> Result<Tenant, KeyError> {
    let tenant = Tenant { id: TenantId::new(), name: name.clone(), quota, created_at: now };
    take_name(draft, Named::Tenant, Tenant::PLATFORM, name, tenant.id.uuid())?;
    let key = tenant_key(tenant.id)?;
    draft.require_absent(&key).put_row(&key, &tenant);
    Ok(tenant)
}

/// The tenant with this name.
///
/// # Errors
/// The store's.
pub async fn find(store: &dyn Store, name: &Name) -> Result<Option<Versioned<Tenant>>, RowError> {
    let Some(id) = find_name(store, Named::Tenant, Tenant::PLATFORM, name).await? else { return Ok(None) };
    rows::load(store, &Key::of(["tenant", &id.to_string()])?).await
}

/// What a tenant has.
///
/// # Errors
/// The store's.
pub async fn usage_of(store: &dyn Store, tenant: TenantId) -> Result<Usage, RowError> {
    Ok(rows::load::<Usage>(store, &usage_key(tenant)?).await?.map(|usage| usage.row).unwrap_or_default())
}

/// Counts one more; the platform's things are not counted.
///
/// # Errors
/// `Exhausted` when the tenant has all that it may.
pub async fn charge(
    store: &dyn Store,
    draft: &mut Draft,
    tenant: TenantId,
    resource: Resource,
) -> Result<(), QuotaError> {
    if tenant == Tenant::PLATFORM {
        return Ok(());
    }
    let owner = rows::load::<Tenant>(store, &tenant_key(tenant)?).await?;
    let owner = owner.ok_or(QuotaError::NoSuchTenant(tenant))?.row;
    change(store, draft, tenant, |usage| {
        let (used, what) = usage.of(resource);
        let most = allowed(&owner.quota, resource);
        if *used >= most {
            let what = format!("tenant {} has {used} {what} of {most} that it may have", owner.name);
            return Err(QuotaError::Exhausted(Problem::new(
                what,
                "quota",
                "delete some, or ask for a larger quota",
            )));
        }
        *used += 1;
        Ok(())
    })
    .await
}

/// Counts one less.
///
/// # Errors
/// The store's.
pub async fn refund(
    store: &dyn Store,
    draft: &mut Draft,
    tenant: TenantId,
    resource: Resource,
) -> Result<(), QuotaError> {
    if tenant == Tenant::PLATFORM {
        return Ok(());
    }
    change(store, draft, tenant, |usage| {
        let (used, _) = usage.of(resource);
        *used = used.saturating_sub(1);
        Ok(())
    })
    .await
}

async fn change(
    store: &dyn Store,
    draft: &mut Draft,
    tenant: TenantId,
    by: impl FnOnce(&mut Usage) -> Result<(), QuotaError>,
) -> Result<(), QuotaError> {
    let key = usage_key(tenant)?;
    let found = rows::load::<Usage>(store, &key).await?;
    let mut usage = found.as_ref().map(|usage| usage.row).unwrap_or_default();
    by(&mut usage)?;
    match found {
        Some(found) => draft.require(&key, found.revision),
        None => draft.require_absent(&key),
    };
    draft.put_row(&key, &usage);
    Ok(())
}
