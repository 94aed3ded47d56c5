//! The end of a tenant that has nothing any more.

use jiff::Timestamp;

use super::names::{Named, drop_name};
use super::token::{TokenError, revoke, tokens};
use super::usage::{Usage, usage_key};
use crate::model::Tenant;
use crate::store::rows::{self, RowError, Versioned};
use crate::store::{Draft, KeyError, Store};

/// Why a tenant is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It still has things.
    #[error("the tenant still has things")]
    HasThings(Usage),
    /// A token cannot be ended.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The store failed, or somebody was faster.
    #[error(transparent)]
    Row(#[from] RowError),
}

impl From<KeyError> for RemoveError {
    fn from(error: KeyError) -> Self {
        Self::Row(error.into())
    }
}

/// Removes a tenant that nobody has changed since it was read, and ends its tokens.
///
/// Whoever gets it something at the same time counts that in its usage, which is written here too: one of both
/// conflicts. The empty usage stays behind, so that this also holds for who has read it before.
///
/// # Errors
/// `HasThings`, or the store's; after those, some of its tokens may be gone.
pub async fn remove(
    store: &dyn Store,
    tenant: &Versioned<Tenant>,
    now: Timestamp,
) -> Result<(), RemoveError> {
    let key = usage_key(tenant.row.id)?;
    let usage = rows::load::<Usage>(store, &key).await?;
    if let Some(usage) = usage.as_ref().filter(|usage| usage.row != Usage::default()) {
        return Err(RemoveError::HasThings(usage.row));
    }
    for token in tokens(store, tenant.row.id).await? {
        revoke(store, tenant.row.id, token.row.id, now).await?;
    }
    let mut draft = Draft::new();
    match &usage {
        Some(usage) => draft.replace(usage, &Usage::default()),
        None => draft.create(&key, &Usage::default()),
    };
    draft.remove(tenant);
    drop_name(&mut draft, Named::Tenant, Tenant::PLATFORM, &tenant.row.name)?;
    draft.commit(store).await?;
    Ok(())
}
