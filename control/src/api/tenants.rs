//! `/v1/tenants`: made and changed by administrators; a tenant sees itself.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Admin;
use super::extract::{At, Body, IdempotencyKey, IfMatch, Params, Tagged};
use super::once::Once;
use super::{ApiError, ApiState, Caller, Page, Paging, contended};
use crate::model::{Name, Problem, Quota, Tenant};
use crate::store::rows::{self, Versioned};
use crate::store::{Draft, Store};
use crate::tenant::{self, Named, Usage};

/// A tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TenantView {
    /// Its id.
    pub id: String,
    /// Its name, unique in the cluster.
    pub name: String,
    /// How much it may have.
    pub quota: QuotaForm,
    /// How much it has; in lists left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageView>,
    /// When it was made (RFC 3339).
    pub created_at: String,
}

/// How much a tenant may have at one time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaForm {
    /// Virtual machines.
    pub vms: u32,
    /// Virtual networks.
    pub networks: u32,
    /// Disks.
    pub disks: u32,
}

/// How much a tenant has.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// Virtual machines.
    pub vms: u32,
    /// Virtual networks.
    pub networks: u32,
    /// Disks.
    pub disks: u32,
}

/// A tenant to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its name: lower-case letters, digits, hyphens.
    #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "acme")]
    pub name: Name,
    /// How much it may have [default: 100 machines, 20 networks, 200 disks].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaForm>,
}

/// What changes of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeTenant {
    /// How much it may have from now on. What it has above that stays.
    pub quota: QuotaForm,
}

impl From<Quota> for QuotaForm {
    fn from(Quota { vms, networks, disks }: Quota) -> Self {
        Self { vms, networks, disks }
    }
}

impl From<QuotaForm> for Quota {
    fn from(QuotaForm { vms, networks, disks }: QuotaForm) -> Self {
        Self { vms, networks, disks }
    }
}

impl TenantView {
    fn of(tenant: &Tenant, usage: Option<Usage>) -> Self {
        Self {
            id: tenant.id.to_string(),
            name: tenant.name.to_string(),
            quota: tenant.quota.into(),
            usage: usage.map(|Usage { vms, networks, disks }| UsageView { vms, networks, disks }),
            created_at: tenant.created_at.to_string(),
        }
    }
}

/// All tenants, for an administrator; else only the caller's own
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", params(Paging), responses((status = 200, body = Page<TenantView>)))]
pub(super) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<TenantView>>, ApiError> {
    let page = paging.of::<Tenant>(state.store(), |tenant| caller.sees(tenant.id)).await?;
    Ok(Json(page.map(|tenant| TenantView::of(&tenant.row, None))))
}

/// Make a tenant
#[utoipa::path(
    post, path = "/v1/tenants", tag = "tenants", request_body = NewTenant,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key is the same wish")),
    responses((status = 201, body = TenantView))
)]
pub(super) async fn create(
    _: Admin,
    State(state): State<ApiState>,
    IdempotencyKey(key): IdempotencyKey,
    Body(new): Body<NewTenant>,
) -> Result<impl IntoResponse, ApiError> {
    let store = state.store();
    let once = Once::new(Tenant::PLATFORM, key.as_deref(), "tenant", &new)?;
    let quota = new.quota.map_or_else(Quota::default, Quota::from);
    let made = contended!(make(&state, &once, &new.name, quota).await)?;
    let usage = tenant::usage_of(store, made.row.id).await?;
    Ok((StatusCode::CREATED, Tagged(made.revision, TenantView::of(&made.row, Some(usage)))))
}

async fn make(
    state: &ApiState,
    once: &Once,
    name: &Name,
    quota: Quota,
) -> Result<Versioned<Tenant>, ApiError> {
    let store = state.store();
    if let Some(id) = once.before(store).await? {
        return load(store, &id.to_string()).await;
    }
    if tenant::find_name(store, Named::Tenant, Tenant::PLATFORM, name).await?.is_some() {
        return Err(ApiError::taken("tenant", name.as_str()));
    }
    let mut draft = Draft::new();
    let made = tenant::create(&mut draft, name, quota, state.now())?;
    once.note(store, &mut draft, made.id.uuid(), state.now()).await?;
    let revision = draft.commit(store).await?;
    Ok(Versioned { key: tenant::tenant_key(made.id)?, row: made, revision })
}

async fn load(store: &dyn Store, id: &str) -> Result<Versioned<Tenant>, ApiError> {
    let missing = || ApiError::not_found("tenant", id);
    let key = tenant::tenant_key(id.parse().map_err(|_| missing())?)?;
    rows::load(store, &key).await?.ok_or_else(missing)
}

/// A tenant, by its id or name
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path)), responses((status = 200, body = TenantView)))]
pub(super) async fn show(
    caller: Caller,
    State(state): State<ApiState>,
    At(tenant): At<String>,
) -> Result<Tagged<TenantView>, ApiError> {
    let found = caller.tenant(state.store(), &tenant).await?;
    let usage = tenant::usage_of(state.store(), found.row.id).await?;
    Ok(Tagged(found.revision, TenantView::of(&found.row, Some(usage))))
}

/// Change a tenant's quota
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = ChangeTenant,
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that it must have")),
    responses((status = 200, body = TenantView))
)]
pub(super) async fn change(
    Admin(caller): Admin,
    State(state): State<ApiState>,
    At(tenant): At<String>,
    condition: IfMatch,
    Body(change): Body<ChangeTenant>,
) -> Result<Tagged<TenantView>, ApiError> {
    let store = state.store();
    let changed = contended!({
        async {
            let mut found = caller.tenant(store, &tenant).await?;
            condition.check("tenant", &found)?;
            let mut draft = Draft::new();
            let row = Tenant { quota: change.quota.into(), ..found.row.clone() };
            draft.replace(&found, &row);
            found.revision = draft.commit(store).await?;
            Ok::<_, ApiError>(Versioned { row, ..found })
        }
        .await
    })?;
    let usage = tenant::usage_of(store, changed.row.id).await?;
    Ok(Tagged(changed.revision, TenantView::of(&changed.row, Some(usage))))
}

/// Remove a tenant that has nothing any more; its tokens end with it
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that it must have")),
    responses((status = 204))
)]
pub(super) async fn delete(
    Admin(caller): Admin,
    State(state): State<ApiState>,
    At(name): At<String>,
    condition: IfMatch,
) -> Result<StatusCode, ApiError> {
    let store = state.store();
    let found = caller.tenant(store, &name).await?;
    condition.check("tenant", &found)?;
    tenant::remove(store, &found, state.now()).await.map_err(|error| match error {
        tenant::RemoveError::HasThings(usage) => {
            let Usage { vms, networks, disks } = usage;
            ApiError::conflict(Problem::new(
                format!(
                    "tenant {} has {vms} machines, {networks} networks and {disks} disks",
                    found.row.name
                ),
                "tenant",
                "delete them first",
            ))
        }
        tenant::RemoveError::Token(error) => error.into(),
        tenant::RemoveError::Row(error) => error.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}
