//! Who asks, and whose things they may see and change: the only place that decides tenancy.
//!
//! Every handler gets a [`Caller`] and finds rows through it; what is not the caller's is "not there". Never here: what is
//! done with the rows.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::{ApiError, ApiState};
use crate::compute;
use crate::model::{
    Disk, DiskId, Name, Network, NetworkId, Operation, OperationId, Role, Tenant, TenantId, Vm, VmId,
};
use crate::storage;
use crate::store::rows::{self, Row, Versioned};
use crate::store::{Key, Store};
use crate::tenant::{self, Named};
use crate::{network, workflow};

/// Names the tenant that an administrator acts for.
pub const TENANT_HEADER: &str = "shunt-tenant";

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    role: Role,
    /// Whose things are there; `None` for an administrator who names no tenant: everybody's.
    scope: Option<TenantId>,
}

/// An administrator of the platform.
#[derive(Debug, Clone)]
pub(super) struct Admin(pub(super) Caller);

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let secret = bearer(&parts.headers).ok_or_else(ApiError::unauthenticated)?;
        let who = tenant::authenticate(state.store(), secret, state.now()).await?;
        if who.role == Role::ReadOnly && !parts.method.is_safe() {
            return Err(ApiError::forbidden(
                "this token may only look",
                "ask with one that may change things",
            ));
        }
        let named = named_tenant(&parts.headers)?;
        let scope = match (who.role, named) {
            (Role::Admin, None) => None,
            (Role::Admin, Some(text)) => Some(tenant(state.store(), text).await?.row.id),
            (_, None) => Some(who.tenant),
            (_, Some(text)) => {
                // Its own name is no secret to it; whether others exist is.
                let own = rows::load::<Tenant>(state.store(), &tenant::tenant_key(who.tenant)?).await?;
                let is_own =
                    text == who.tenant.to_string() || own.is_some_and(|own| own.row.name.as_str() == text);
                if !is_own {
                    return Err(ApiError::forbidden(
                        "this token is not that tenant's",
                        "leave the header Shunt-Tenant out",
                    ));
                }
                Some(who.tenant)
            }
        };
        Ok(Self { role: who.role, scope })
    }
}

impl FromRequestParts<ApiState> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if caller.role != Role::Admin {
            return Err(ApiError::forbidden(
                "this is for administrators",
                "ask with an administrator's token",
            ));
        }
        Ok(Self(caller))
    }
}

impl Caller {
    /// Whether the things of this tenant are there for them.
    #[must_use]
    pub fn sees(&self, owner: TenantId) -> bool {
        self.scope.is_none_or(|scope| scope == owner)
    }

    /// Whether they administer the platform.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Who owns what they make.
    ///
    /// # Errors
    /// When an administrator does not say.
    pub fn owner(&self) -> Result<TenantId, ApiError> {
        self.scope.ok_or_else(|| {
            ApiError::invalid(
                "Shunt-Tenant",
                "an administrator has to say for which tenant",
                "name it in the header Shunt-Tenant (`--tenant NAME`)",
            )
        })
    }

    /// A machine by its id, or by its name.
    ///
    /// # Errors
    /// `not-found`, also when it is somebody else's.
    pub async fn vm(&self, store: &dyn Store, text: &str) -> Result<Versioned<Vm>, ApiError> {
        let missing = || ApiError::not_found("vm", text);
        let id: Option<VmId> = self.id(store, Named::Vm, text).await?;
        let found = compute::load_vm(store, id.ok_or_else(missing)?).await?;
        found.filter(|vm| self.sees(vm.row.tenant)).ok_or_else(missing)
    }

    /// A network by its id, or by its name, or by its moniker.
    ///
    /// # Errors
    /// `not-found`, also when it is somebody else's.
    pub async fn network(&self, store: &dyn Store, text: &str) -> Result<Versioned<Network>, ApiError> {
        let missing = || ApiError::not_found("network", text);
        let mut id: Option<NetworkId> = self.id(store, Named::Network, text).await?;
        if let (None, Ok(moniker)) = (id, text.parse()) {
            id = network::by_moniker(store, &moniker).await.ok().map(|network| network.id);
        }
        let key = Key::of([Network::KIND, &id.ok_or_else(missing)?.to_string()])?;
        let found = rows::load::<Network>(store, &key).await?;
        found.filter(|network| self.sees(network.row.tenant)).ok_or_else(missing)
    }

    /// A disk by its id, or by its name.
    ///
    /// # Errors
    /// `not-found`, also when it is somebody else's.
    pub async fn disk(&self, store: &dyn Store, text: &str) -> Result<Versioned<Disk>, ApiError> {
        let missing = || ApiError::not_found("disk", text);
        let id: Option<DiskId> = self.id(store, Named::Disk, text).await?;
        let found = rows::load::<Disk>(store, &storage::disk_key(id.ok_or_else(missing)?)?).await?;
        found.filter(|disk| self.sees(disk.row.tenant)).ok_or_else(missing)
    }

    /// An operation by its id.
    ///
    /// # Errors
    /// `not-found`, also when it is somebody else's.
    pub async fn operation(&self, store: &dyn Store, text: &str) -> Result<Versioned<Operation>, ApiError> {
        let missing = || ApiError::not_found("operation", text);
        let id: OperationId = text.parse().map_err(|_| missing())?;
        let found = rows::load::<Operation>(store, &workflow::operation_key(id)?).await?;
        found.filter(|operation| self.sees(operation.row.tenant)).ok_or_else(missing)
    }

    /// A tenant by its id or by its name: their own, or any for an administrator.
    ///
    /// # Errors
    /// `not-found`, also when it is somebody else.
    pub async fn tenant(&self, store: &dyn Store, text: &str) -> Result<Versioned<Tenant>, ApiError> {
        let found = tenant(store, text).await?;
        if self.is_admin() || self.sees(found.row.id) {
            return Ok(found);
        }
        Err(ApiError::not_found("tenant", text))
    }

    /// What the text names: an id is taken at its word, and whose it is is judged when the row is there.
    async fn id<T: FromStr>(
        &self,
        store: &dyn Store,
        kind: Named,
        text: &str,
    ) -> Result<Option<T>, ApiError> {
        if let Ok(id) = text.parse() {
            return Ok(Some(id));
        }
        let owner = self.scope.unwrap_or(Tenant::PLATFORM);
        let Ok(name) = text.parse::<Name>() else { return Ok(None) };
        Ok(tenant::find_name(store, kind, owner, &name).await?.and_then(|id| id.to_string().parse().ok()))
    }
}

/// A tenant by its id or by its name.
async fn tenant(store: &dyn Store, text: &str) -> Result<Versioned<Tenant>, ApiError> {
    let found = match (text.parse::<TenantId>(), text.parse::<Name>()) {
        (Ok(id), _) => rows::load(store, &tenant::tenant_key(id)?).await?,
        (_, Ok(name)) => tenant::find(store, &name).await?,
        _ => None,
    };
    found.ok_or_else(|| ApiError::not_found("tenant", text))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    // Two answers to the question who asks are none.
    if values.next().is_some() {
        return None;
    }
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

fn named_tenant(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    text.map(Some).ok_or_else(|| {
        ApiError::invalid("Shunt-Tenant", "the header is not one tenant's name or id", "send one")
    })
}
