//! `/v1/pools`: pools of machines that are ready for customers. For administrators.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Admin;
use super::extract::{At, Body, IdempotencyKey, IfMatch, Params, Tagged};
use super::once::Once;
use super::{ApiError, ApiState, Page, Paging, contended};
use crate::model::{Combination, CombinationError, Name, Pool, PoolId, Problem, Sizing, Tenant};
use crate::pool;
use crate::store::rows::Versioned;
use crate::store::{Draft, Store};
use crate::tenant::{self, Named};

/// A pool.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    /// Its id.
    pub id: String,
    /// Its name, unique in the cluster.
    pub name: String,
    /// What its machines are.
    pub combination: CombinationForm,
    /// How many of them.
    pub sizing: SizingForm,
    /// True while it is being emptied.
    pub draining: bool,
    /// Machines that are ready now.
    pub ready: u32,
    /// When it was made (RFC 3339).
    pub created_at: String,
}

/// What cannot change without a reboot but a customer may choose.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CombinationForm {
    /// What runs it.
    #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "netns")]
    pub hypervisor: Name,
    /// What it boots; names the OS type.
    #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "tiny")]
    pub image: Name,
    /// Virtual processors.
    #[schema(minimum = 1, maximum = 256)]
    pub vcpus: u16,
    /// Memory, in MiB.
    #[schema(minimum = 16, maximum = 16_777_216)]
    pub memory_mib: u32,
    /// The kind of its OS disk: `local` or `none`.
    #[serde(default = "local")]
    #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "local")]
    pub storage: Name,
    /// IP families that its network needs.
    #[serde(default)]
    pub ip_routing: IpRouting,
}

/// IP families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IpRouting {
    /// IPv4
    #[default]
    Ipv4,
    /// IPv6
    Ipv6,
    /// Both
    Dual,
}

impl IpRouting {
    const fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        }
    }
}

fn local() -> Name {
    fixed("local")
}

/// A name that this program chose.
fn fixed(text: &str) -> Name {
    // The names in this file are names; a wrong one shows in the first test.
    #[expect(clippy::expect_used, reason = "a constant of this file")]
    text.parse().expect("a name")
}

/// How large a pool is kept.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SizingForm {
    /// Never fewer ready machines than this.
    #[schema(maximum = 10_000)]
    pub min: u32,
    /// Never more than this.
    #[schema(maximum = 10_000)]
    pub max: u32,
    /// The share of requests that shall find a ready machine.
    #[serde(default = "hit_rate")]
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub hit_rate: f64,
    /// Idle machine-hours a day at most; absent: no bound but `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0)]
    pub budget_hours: Option<f64>,
}

const fn hit_rate() -> f64 {
    0.95
}

/// A pool to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPool {
    /// Its name: lower-case letters, digits, hyphens.
    #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "small")]
    pub name: Name,
    /// What its machines are.
    pub combination: CombinationForm,
    /// How many of them.
    pub sizing: SizingForm,
}

/// What changes of a pool; what is absent stays.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePool {
    /// How many machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizing: Option<SizingForm>,
    /// True: nobody may claim from it any more, and its machines go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
}

impl CombinationForm {
    /// # Errors
    /// Names the first field that makes no sense.
    pub(super) fn checked(&self) -> Result<Combination, ApiError> {
        let Self { hypervisor, image, vcpus, memory_mib, storage, ip_routing } = self.clone();
        let ip_routing = fixed(ip_routing.word());
        let combination = Combination { hypervisor, image, vcpus, memory_mib, storage, ip_routing };
        combination.validate().map_err(|CombinationError { field, what }| {
            ApiError::invalid(format!("combination.{field}"), what, "ask for what a host can run")
        })?;
        Ok(combination)
    }
}

impl From<&Combination> for CombinationForm {
    fn from(combination: &Combination) -> Self {
        let Combination { hypervisor, image, vcpus, memory_mib, storage, ip_routing } = combination.clone();
        let ip_routing = match ip_routing.as_str() {
            "ipv6" => IpRouting::Ipv6,
            "dual" => IpRouting::Dual,
            _ => IpRouting::Ipv4,
        };
        Self { hypervisor, image, vcpus, memory_mib, storage, ip_routing }
    }
}

impl SizingForm {
    fn checked(self) -> Result<Sizing, ApiError> {
        let Self { min, max, hit_rate, budget_hours } = self;
        let wrong = |field: &str, what: String, remedy| Err(ApiError::invalid(field, what, remedy));
        if max > 10_000 {
            return wrong("sizing.max", format!("{max} machines"), "ask for 10000 at most");
        }
        if min > max {
            return wrong("sizing.min", format!("{min} is more than max, {max}"), "ask for max at most");
        }
        if !(0.0..=1.0).contains(&hit_rate) {
            return wrong("sizing.hit_rate", format!("{hit_rate} is no share"), "ask for 0 to 1");
        }
        if budget_hours.is_some_and(|hours| !hours.is_finite() || hours < 0.0) {
            return wrong("sizing.budget_hours", "it is no number of hours".into(), "ask for 0 or more");
        }
        Ok(Sizing { min, max, hit_rate, budget_hours })
    }
}

impl PoolView {
    async fn of(store: &dyn Store, pool: &Pool) -> Result<Self, ApiError> {
        let Sizing { min, max, hit_rate, budget_hours } = pool.sizing;
        let ready = pool::stock(store, pool.id).await?.len();
        Ok(Self {
            id: pool.id.to_string(),
            name: pool.name.to_string(),
            combination: (&pool.combination).into(),
            sizing: SizingForm { min, max, hit_rate, budget_hours },
            draining: pool.draining,
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            created_at: pool.created_at.to_string(),
        })
    }
}

/// The pools
#[utoipa::path(get, path = "/v1/pools", tag = "pools", params(Paging), responses((status = 200, body = Page<PoolView>)))]
pub(super) async fn list(
    _: Admin,
    State(state): State<ApiState>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<PoolView>>, ApiError> {
    let page = paging.of::<Pool>(state.store(), |_| true).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for pool in &page.items {
        items.push(PoolView::of(state.store(), &pool.row).await?);
    }
    Ok(Json(Page { items, next: page.next }))
}

/// Make a pool
#[utoipa::path(
    post, path = "/v1/pools", tag = "pools", request_body = NewPool,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key is the same wish")),
    responses((status = 201, body = PoolView))
)]
pub(super) async fn create(
    _: Admin,
    State(state): State<ApiState>,
    IdempotencyKey(key): IdempotencyKey,
    Body(new): Body<NewPool>,
) -> Result<impl IntoResponse, ApiError> {
    let once = Once::new(Tenant::PLATFORM, key.as_deref(), "pool", &new)?;
    let made = contended!(make(&state, &once, &new).await)?;
    let view = PoolView::of(state.store(), &made.row).await?;
    Ok((StatusCode::CREATED, Tagged(made.revision, view)))
}

async fn make(state: &ApiState, once: &Once, new: &NewPool) -> Result<Versioned<Pool>, ApiError> {
    let store = state.store();
    if let Some(id) = once.before(store).await? {
        return find(store, &id.to_string()).await;
    }
    let (combination, sizing) = (new.combination.checked()?, new.sizing.checked()?);
    if tenant::find_name(store, Named::Pool, Tenant::PLATFORM, &new.name).await?.is_some() {
        return Err(ApiError::taken("pool", new.name.as_str()));
    }
    let row = Pool {
        id: PoolId::new(),
        name: new.name.clone(),
        combination,
        sizing,
        draining: false,
        created_at: state.now(),
    };
    let mut draft = Draft::new();
    tenant::take_name(&mut draft, Named::Pool, Tenant::PLATFORM, &row.name, row.id.uuid())?;
    let key = pool::pool_key(row.id)?;
    draft.create(&key, &row);
    once.note(store, &mut draft, row.id.uuid(), state.now()).await?;
    let revision = draft.commit(store).await?;
    Ok(Versioned { key, row, revision })
}

async fn find(store: &dyn Store, text: &str) -> Result<Versioned<Pool>, ApiError> {
    let missing = || ApiError::not_found("pool", text);
    let id = match (text.parse::<PoolId>(), text.parse::<Name>()) {
        (Ok(id), _) => Some(id),
        (_, Ok(name)) => {
            let id = tenant::find_name(store, Named::Pool, Tenant::PLATFORM, &name).await?;
            id.and_then(|id| id.to_string().parse().ok())
        }
        _ => None,
    };
    pool::pool(store, id.ok_or_else(missing)?).await?.ok_or_else(missing)
}

/// A pool, by its id or name
#[utoipa::path(get, path = "/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path)), responses((status = 200, body = PoolView)))]
pub(super) async fn show(
    _: Admin,
    State(state): State<ApiState>,
    At(pool): At<String>,
) -> Result<Tagged<PoolView>, ApiError> {
    let found = find(state.store(), &pool).await?;
    Ok(Tagged(found.revision, PoolView::of(state.store(), &found.row).await?))
}

/// Change a pool's size, or empty it
#[utoipa::path(
    patch, path = "/v1/pools/{pool}", tag = "pools", request_body = ChangePool,
    params(("pool" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that it must have")),
    responses((status = 200, body = PoolView))
)]
pub(super) async fn change(
    _: Admin,
    State(state): State<ApiState>,
    At(pool): At<String>,
    condition: IfMatch,
    Body(change): Body<ChangePool>,
) -> Result<Tagged<PoolView>, ApiError> {
    let store = state.store();
    let sizing = change.sizing.map(SizingForm::checked).transpose()?;
    let changed = contended!({
        async {
            let found = find(store, &pool).await?;
            condition.check("pool", &found)?;
            let mut row = found.row.clone();
            row.sizing = sizing.unwrap_or(row.sizing);
            row.draining = change.draining.unwrap_or(row.draining);
            let mut draft = Draft::new();
            draft.replace(&found, &row);
            let revision = draft.commit(store).await?;
            Ok::<_, ApiError>(Versioned { row, revision, ..found })
        }
        .await
    })?;
    Ok(Tagged(changed.revision, PoolView::of(store, &changed.row).await?))
}

/// Remove a pool that is empty; set `draining` to empty it
#[utoipa::path(
    delete, path = "/v1/pools/{pool}", tag = "pools",
    params(("pool" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that it must have")),
    responses((status = 204))
)]
pub(super) async fn delete(
    _: Admin,
    State(state): State<ApiState>,
    At(pool): At<String>,
    condition: IfMatch,
) -> Result<StatusCode, ApiError> {
    let store = state.store();
    let found = find(store, &pool).await?;
    condition.check("pool", &found)?;
    let ready = pool::stock(store, found.row.id).await?.len();
    if ready > 0 || !found.row.draining {
        let what =
            format!("pool {} has {ready} machines and is not being emptied, or not yet", found.row.name);
        let remedy = "set draining, and wait until none is ready";
        return Err(ApiError::conflict(Problem::new(what, "pool", remedy)));
    }
    let mut draft = Draft::new();
    draft.remove(&found);
    tenant::drop_name(&mut draft, Named::Pool, Tenant::PLATFORM, &found.row.name)?;
    draft.commit(store).await?;
    Ok(StatusCode::NO_CONTENT)
}
