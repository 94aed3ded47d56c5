//! `/v1/networks`: virtual networks.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use dataplane::desired::{DEFAULT_LEASE_SECONDS, DomainName};
use dataplane::types::Mtu;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{At, Body, IdempotencyKey, IfMatch, Params, Tagged};
use super::once::Once;
use super::{ApiError, ApiState, Caller, Page, Paging, contended};
use crate::model::{Name, Network, TenantId};
use crate::network::{self, NetworkError, NetworkSpec};
use crate::store::Draft;
use crate::store::rows::{self, Row, Versioned};
use crate::tenant::{self, Named, Resource};

/// A virtual network.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// Its name, unique in its tenant.
    pub name: String,
    /// What the cluster calls it.
    pub moniker: String,
    /// Its prefixes.
    pub subnets: Vec<SubnetView>,
    /// Name servers that machines are told.
    pub dns: Vec<String>,
    /// The DNS domain that machines are told.
    pub domain: Option<String>,
    /// The machines' MTU in bytes; null: what fits.
    pub mtu: Option<u16>,
    /// How long a DHCP lease lasts, in seconds.
    pub lease_seconds: u32,
    /// True where machines may not reach each other.
    pub isolated: bool,
    /// When it was made (RFC 3339).
    pub created_at: String,
}

/// A prefix of a network.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SubnetView {
    /// Its addresses.
    pub prefix: String,
    /// The virtual router's.
    pub gateway: String,
}

/// A network to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNetwork {
    /// Its name: lower-case letters, digits, hyphens.
    #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "blue")]
    pub name: Name,
    /// Its prefixes, /8 to /30 (IPv6: to /126); the first address of each is the virtual router's. Those of
    /// different networks may overlap.
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 8, example = json!(["10.0.0.0/24"]))]
    pub prefixes: Vec<IpNet>,
    /// Name servers that machines are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 8)]
    pub dns: Vec<IpAddr>,
    /// The DNS domain that machines are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub domain: Option<DomainName>,
    /// The machines' MTU in bytes [default: what fits the hosts' network, at most 1500].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 576, maximum = 65_521)]
    pub mtu: Option<Mtu>,
    /// How long a DHCP lease lasts, in seconds.
    #[serde(default = "lease_seconds")]
    #[schema(minimum = 30, maximum = 604_800)]
    pub lease_seconds: u32,
}

const fn lease_seconds() -> u32 {
    DEFAULT_LEASE_SECONDS
}

impl NetworkView {
    fn of(network: &Network) -> Self {
        let subnets = network.subnets.iter();
        Self {
            id: network.id.to_string(),
            tenant: network.tenant.to_string(),
            name: network.name.to_string(),
            moniker: network.moniker.to_string(),
            subnets: subnets
                .map(|subnet| SubnetView {
                    prefix: subnet.prefix.to_string(),
                    gateway: subnet.gateway.to_string(),
                })
                .collect(),
            dns: network.dns.iter().map(IpAddr::to_string).collect(),
            domain: network.domain.as_ref().map(ToString::to_string),
            mtu: network.mtu.map(Mtu::bytes),
            lease_seconds: network.lease_seconds,
            isolated: network.isolated,
            created_at: network.created_at.to_string(),
        }
    }
}

/// The networks
#[utoipa::path(get, path = "/v1/networks", tag = "networks", params(Paging), responses((status = 200, body = Page<NetworkView>)))]
pub(super) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<NetworkView>>, ApiError> {
    let page = paging.of::<Network>(state.store(), |network| caller.sees(network.tenant)).await?;
    Ok(Json(page.map(|network| NetworkView::of(&network.row))))
}

/// Make a network
#[utoipa::path(
    post, path = "/v1/networks", tag = "networks", request_body = NewNetwork,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key is the same wish")),
    responses((status = 201, body = NetworkView))
)]
pub(super) async fn create(
    caller: Caller,
    State(state): State<ApiState>,
    IdempotencyKey(key): IdempotencyKey,
    Body(new): Body<NewNetwork>,
) -> Result<impl IntoResponse, ApiError> {
    let owner = caller.owner()?;
    let once = Once::new(owner, key.as_deref(), "network", &new)?;
    let made = contended!(make(&state, owner, &once, &new).await)?;
    Ok((StatusCode::CREATED, Tagged(made.revision, NetworkView::of(&made.row))))
}

async fn make(
    state: &ApiState,
    owner: TenantId,
    once: &Once,
    new: &NewNetwork,
) -> Result<Versioned<Network>, ApiError> {
    let store = state.store();
    if let Some(id) = once.before(store).await? {
        let key = crate::store::Key::of([Network::KIND, &id.to_string()])?;
        let found = rows::load(store, &key).await?;
        return found.ok_or_else(|| ApiError::not_found("network", new.name.as_str()));
    }
    if tenant::find_name(store, Named::Network, owner, &new.name).await?.is_some() {
        return Err(ApiError::taken("network", new.name.as_str()));
    }
    let spec = NetworkSpec {
        prefixes: new.prefixes.clone(),
        dns: new.dns.clone(),
        domain: new.domain.clone(),
        mtu: new.mtu,
        lease_seconds: new.lease_seconds,
    };
    let mut draft = Draft::new();
    let made = network::create(store, &mut draft, owner, &new.name, &spec, state.now()).await;
    let row = made.map_err(|error| match error {
        NetworkError::Refused(problem) => ApiError::invalid_as(problem),
        other => other.into(),
    })?;
    tenant::take_name(&mut draft, Named::Network, owner, &row.name, row.id.uuid())?;
    tenant::charge(store, &mut draft, owner, Resource::Networks).await?;
    once.note(store, &mut draft, row.id.uuid(), state.now()).await?;
    let revision = draft.commit(store).await?;
    Ok(Versioned { key: crate::store::Key::of([Network::KIND, &row.id.to_string()])?, row, revision })
}

/// A network, by its id, name or moniker
#[utoipa::path(get, path = "/v1/networks/{network}", tag = "networks", params(("network" = String, Path)), responses((status = 200, body = NetworkView)))]
pub(super) async fn show(
    caller: Caller,
    State(state): State<ApiState>,
    At(network): At<String>,
) -> Result<Tagged<NetworkView>, ApiError> {
    let found = caller.network(state.store(), &network).await?;
    Ok(Tagged(found.revision, NetworkView::of(&found.row)))
}

/// Remove a network that no machine is in
#[utoipa::path(
    delete, path = "/v1/networks/{network}", tag = "networks",
    params(("network" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that it must have")),
    responses((status = 204))
)]
pub(super) async fn delete(
    caller: Caller,
    State(state): State<ApiState>,
    At(name): At<String>,
    condition: IfMatch,
) -> Result<StatusCode, ApiError> {
    let store = state.store();
    contended!({
        async {
            let found = caller.network(store, &name).await?;
            condition.check("network", &found)?;
            let mut draft = Draft::new();
            network::remove(store, &mut draft, &found).await?;
            tenant::drop_name(&mut draft, Named::Network, found.row.tenant, &found.row.name)?;
            tenant::refund(store, &mut draft, found.row.tenant, Resource::Networks).await?;
            draft.commit(store).await?;
            Ok::<_, ApiError>(())
        }
        .await
    })?;
    Ok(StatusCode::NO_CONTENT)
}
