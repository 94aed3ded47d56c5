//! `/v1/hosts`: the machines that run others. For administrators.

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Admin;
use super::extract::{At, Body, IfMatch, Params, Tagged};
use super::{ApiError, ApiState, Page, Paging, contended};
use crate::compute;
use crate::model::{Host, HostId, HostState, Name, Problem, Tenant};
use crate::network;
use crate::store::rows::Versioned;
use crate::store::{Draft, Store};
use crate::tenant::{self, Named};

/// A host.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// Its id; its certificate says the same.
    pub id: String,
    /// Its name, unique in the cluster.
    pub name: String,
    /// Whether it takes new machines.
    #[schema(value_type = HostStateForm)]
    pub state: HostState,
    /// Whether it is connected.
    pub connected: bool,
    /// Where other hosts send its machines' packets.
    pub physical_ip: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// What can run machines there.
    pub hypervisors: Vec<String>,
    /// Machines that it has.
    pub vms: u32,
    /// The program's version.
    pub version: String,
    /// When it joined (RFC 3339).
    pub created_at: String,
}

/// Whether a host takes new machines, for descriptions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only described")]
pub(super) enum HostStateForm {
    /// It does
    Ready,
    /// It keeps those that it has
    Cordoned,
}

/// What changes of a host.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeHost {
    /// Whether it takes new machines.
    #[schema(value_type = HostStateForm)]
    pub state: HostState,
}

/// A wish for a token that lets a host join.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// The only name that the host can join under; absent: any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
}

/// A token that lets a host join, once, within an hour.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenView {
    /// For `shunt host join`. It is shown here and nowhere else.
    pub token: String,
}

/// Who makes tokens that let hosts join.
#[async_trait]
pub trait JoinTokens: Send + Sync + 'static {
    /// A new one.
    ///
    /// # Errors
    /// Why there is none.
    async fn issue(&self, name: Option<Name>) -> Result<String, Problem>;
}

/// Make a token that lets a host join
#[utoipa::path(
    post, path = "/v1/hosts/tokens", tag = "hosts", request_body = NewJoinToken,
    responses((status = 201, body = JoinTokenView))
)]
pub(super) async fn token(
    _: Admin,
    State(state): State<ApiState>,
    Body(wish): Body<NewJoinToken>,
) -> Result<(StatusCode, Json<JoinTokenView>), ApiError> {
    let token =
        state.join_tokens.issue(wish.name).await.map_err(|problem| ApiError::unavailable(&problem))?;
    Ok((StatusCode::CREATED, Json(JoinTokenView { token })))
}

impl HostView {
    async fn of(store: &dyn Store, host: &Host) -> Result<Self, ApiError> {
        let connected = network::attached(store).await?.contains(&host.id);
        let vms = compute::on_host(store, host.id).await?.len();
        Ok(Self {
            id: host.id.to_string(),
            name: host.name.to_string(),
            state: host.state,
            connected,
            physical_ip: host.inventory.physical_ip.to_string(),
            cpus: host.inventory.cpus,
            memory_mib: host.inventory.memory_mib,
            hypervisors: host.inventory.hypervisors.iter().map(Name::to_string).collect(),
            vms: u32::try_from(vms).unwrap_or(u32::MAX),
            version: host.inventory.version.clone(),
            created_at: host.created_at.to_string(),
        })
    }
}

/// The hosts
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts", params(Paging), responses((status = 200, body = Page<HostView>)))]
pub(super) async fn list(
    _: Admin,
    State(state): State<ApiState>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<HostView>>, ApiError> {
    let page = paging.of::<Host>(state.store(), |_| true).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for host in &page.items {
        items.push(HostView::of(state.store(), &host.row).await?);
    }
    Ok(Json(Page { items, next: page.next }))
}

async fn find(store: &dyn Store, text: &str) -> Result<Versioned<Host>, ApiError> {
    let missing = || ApiError::not_found("host", text);
    if let Ok(id) = text.parse::<HostId>() {
        return compute::host(store, id).await?.ok_or_else(missing);
    }
    let name: Name = text.parse().map_err(|_| missing())?;
    let id = tenant::find_name(store, Named::Host, Tenant::PLATFORM, &name).await?;
    if let Some(id) = id.and_then(|id| id.to_string().parse().ok()) {
        return compute::host(store, id).await?.ok_or_else(missing);
    }
    // Hosts are few, and a host that has joined may not have an entry under its name.
    compute::hosts(store).await?.into_iter().find(|host| host.row.name == name).ok_or_else(missing)
}

/// A host, by its id or name
#[utoipa::path(get, path = "/v1/hosts/{host}", tag = "hosts", params(("host" = String, Path)), responses((status = 200, body = HostView)))]
pub(super) async fn show(
    _: Admin,
    State(state): State<ApiState>,
    At(host): At<String>,
) -> Result<Tagged<HostView>, ApiError> {
    let found = find(state.store(), &host).await?;
    Ok(Tagged(found.revision, HostView::of(state.store(), &found.row).await?))
}

/// Let a host take new machines, or not
#[utoipa::path(
    patch, path = "/v1/hosts/{host}", tag = "hosts", request_body = ChangeHost,
    params(("host" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that it must have")),
    responses((status = 200, body = HostView))
)]
pub(super) async fn change(
    _: Admin,
    State(state): State<ApiState>,
    At(host): At<String>,
    condition: IfMatch,
    Body(change): Body<ChangeHost>,
) -> Result<Tagged<HostView>, ApiError> {
    let store = state.store();
    let changed = contended!({
        async {
            let found = find(store, &host).await?;
            condition.check("host", &found)?;
            let row = Host { state: change.state, ..found.row.clone() };
            let mut draft = Draft::new();
            draft.replace(&found, &row);
            let revision = draft.commit(store).await?;
            Ok::<_, ApiError>(Versioned { row, revision, ..found })
        }
        .await
    })?;
    Ok(Tagged(changed.revision, HostView::of(store, &changed.row).await?))
}
