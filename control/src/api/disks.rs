//! `/v1/disks`: disks. A machine's OS disk comes and goes with it; others are made, attached and removed here.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{At, Body, IdempotencyKey, IfMatch, Params, Tagged};
use super::once::Once;
use super::{ApiError, ApiState, Caller, Page, Paging, contended};
use crate::model::{Disk, DiskId, DiskKind, Name, Problem, TenantId, VmState};
use crate::storage;
use crate::store::Draft;
use crate::store::rows::{self, Versioned};
use crate::tenant::{self, Named, Resource};

/// Largest disk, in GiB.
const LARGEST_GIB: u32 = 65_536;
/// Most disks of one machine.
const MOST_OF_VM: usize = 16;

/// A disk.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DiskView {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    #[schema(value_type = DiskKindForm)]
    pub kind: DiskKind,
    /// Its size, in GiB.
    pub size_gib: u32,
    /// The machine that it is attached to.
    pub vm: Option<String>,
    /// When it was made (RFC 3339).
    pub created_at: String,
}

/// What a disk is for, for descriptions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only described")]
pub(super) enum DiskKindForm {
    /// The one that its machine boots from
    Os,
    /// The customer's own
    Data,
}

/// A disk to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDisk {
    /// Its name: lower-case letters, digits, hyphens.
    #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "data-1")]
    pub name: Name,
    /// Its size, in GiB.
    #[schema(minimum = 1, maximum = 65_536)]
    pub size_gib: u32,
}

/// Where a disk is to be attached.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachDisk {
    /// The machine: its id or name.
    pub vm: String,
}

impl From<&Disk> for DiskView {
    fn from(disk: &Disk) -> Self {
        Self {
            id: disk.id.to_string(),
            tenant: disk.tenant.to_string(),
            name: disk.name.to_string(),
            kind: disk.kind,
            size_gib: disk.size_gib,
            vm: disk.vm.map(|vm| vm.to_string()),
            created_at: disk.created_at.to_string(),
        }
    }
}

fn tagged(disk: &Versioned<Disk>) -> Tagged<DiskView> {
    Tagged(disk.revision, (&disk.row).into())
}

/// The disks
#[utoipa::path(get, path = "/v1/disks", tag = "disks", params(Paging), responses((status = 200, body = Page<DiskView>)))]
pub(super) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<DiskView>>, ApiError> {
    let page = paging.of::<Disk>(state.store(), |disk| caller.sees(disk.tenant)).await?;
    Ok(Json(page.map(|disk| (&disk.row).into())))
}

/// Make a disk
#[utoipa::path(
    post, path = "/v1/disks", tag = "disks", request_body = NewDisk,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key is the same wish")),
    responses((status = 201, body = DiskView))
)]
pub(super) async fn create(
    caller: Caller,
    State(state): State<ApiState>,
    IdempotencyKey(key): IdempotencyKey,
    Body(new): Body<NewDisk>,
) -> Result<impl IntoResponse, ApiError> {
    let owner = caller.owner()?;
    if !(1..=LARGEST_GIB).contains(&new.size_gib) {
        let what = format!("a disk of {} GiB", new.size_gib);
        return Err(ApiError::invalid("size_gib", what, "ask for 1 to 65536"));
    }
    let once = Once::new(owner, key.as_deref(), "disk", &new)?;
    let made = contended!(make(&state, owner, &once, &new).await)?;
    Ok((StatusCode::CREATED, tagged(&made)))
}

async fn make(
    state: &ApiState,
    owner: TenantId,
    once: &Once,
    new: &NewDisk,
) -> Result<Versioned<Disk>, ApiError> {
    let store = state.store();
    if let Some(id) = once.before(store).await? {
        let missing = || ApiError::not_found("disk", new.name.as_str());
        let id: DiskId = id.to_string().parse().map_err(|_| missing())?;
        return rows::load(store, &storage::disk_key(id)?).await?.ok_or_else(missing);
    }
    if tenant::find_name(store, Named::Disk, owner, &new.name).await?.is_some() {
        return Err(ApiError::taken("disk", new.name.as_str()));
    }
    let mut draft = Draft::new();
    let row = storage::put_data_disk(&mut draft, owner, &new.name, new.size_gib, state.now())?;
    tenant::take_name(&mut draft, Named::Disk, owner, &row.name, row.id.uuid())?;
    tenant::charge(store, &mut draft, owner, Resource::Disks).await?;
    once.note(store, &mut draft, row.id.uuid(), state.now()).await?;
    let revision = draft.commit(store).await?;
    Ok(Versioned { key: storage::disk_key(row.id)?, row, revision })
}

/// A disk, by its id or name
#[utoipa::path(get, path = "/v1/disks/{disk}", tag = "disks", params(("disk" = String, Path)), responses((status = 200, body = DiskView)))]
pub(super) async fn show(
    caller: Caller,
    State(state): State<ApiState>,
    At(disk): At<String>,
) -> Result<Tagged<DiskView>, ApiError> {
    Ok(tagged(&caller.disk(state.store(), &disk).await?))
}

/// Remove a disk that is not attached
#[utoipa::path(
    delete, path = "/v1/disks/{disk}", tag = "disks",
    params(("disk" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that it must have")),
    responses((status = 204))
)]
pub(super) async fn delete(
    caller: Caller,
    State(state): State<ApiState>,
    At(disk): At<String>,
    condition: IfMatch,
) -> Result<StatusCode, ApiError> {
    let store = state.store();
    contended!({
        async {
            let found = own(&caller, &state, &disk, &condition).await?;
            if found.row.vm.is_some() {
                let what = format!("disk {} is attached", found.row.name);
                return Err(ApiError::conflict(Problem::new(what, "disk", "detach it first")));
            }
            let mut draft = Draft::new();
            draft.remove(&found);
            tenant::drop_name(&mut draft, Named::Disk, found.row.tenant, &found.row.name)?;
            tenant::refund(store, &mut draft, found.row.tenant, Resource::Disks).await?;
            draft.commit(store).await?;
            Ok::<_, ApiError>(())
        }
        .await
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// Attach a disk to a machine
#[utoipa::path(
    post, path = "/v1/disks/{disk}/attach", tag = "disks", request_body = AttachDisk,
    params(("disk" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that it must have")),
    responses((status = 200, body = DiskView))
)]
pub(super) async fn attach(
    caller: Caller,
    State(state): State<ApiState>,
    At(disk): At<String>,
    condition: IfMatch,
    Body(to): Body<AttachDisk>,
) -> Result<Tagged<DiskView>, ApiError> {
    let store = state.store();
    let attached = contended!({
        async {
            let found = own(&caller, &state, &disk, &condition).await?;
            let vm = caller.vm(store, &to.vm).await?;
            if vm.row.tenant != found.row.tenant {
                return Err(ApiError::not_found("vm", &to.vm));
            }
            if found.row.vm == Some(vm.row.id) {
                return Ok(found);
            }
            let refuse =
                |what: String, remedy: &str| Err(ApiError::conflict(Problem::new(what, "vm", remedy)));
            if found.row.vm.is_some() {
                return refuse(format!("disk {} is attached elsewhere", found.row.name), "detach it first");
            }
            if vm.row.state == VmState::Deleting {
                return refuse(format!("machine {} is being deleted", vm.row.name), "choose another one");
            }
            if storage::disks_of(store, vm.row.id).await?.len() >= MOST_OF_VM {
                return refuse(format!("machine {} has {MOST_OF_VM} disks", vm.row.name), "detach one");
            }
            let mut draft = Draft::new();
            // The machine must not go meanwhile.
            draft.unchanged(&vm);
            let row = storage::attach(&mut draft, &found, vm.row.id)?;
            let revision = draft.commit(store).await?;
            Ok::<_, ApiError>(Versioned { row, revision, ..found })
        }
        .await
    })?;
    Ok(tagged(&attached))
}

/// Detach a disk from its machine
#[utoipa::path(
    post, path = "/v1/disks/{disk}/detach", tag = "disks",
    params(("disk" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that it must have")),
    responses((status = 200, body = DiskView))
)]
pub(super) async fn detach(
    caller: Caller,
    State(state): State<ApiState>,
    At(disk): At<String>,
    condition: IfMatch,
) -> Result<Tagged<DiskView>, ApiError> {
    let store = state.store();
    let detached = contended!({
        async {
            let found = own(&caller, &state, &disk, &condition).await?;
            if found.row.vm.is_none() {
                return Ok(found);
            }
            let mut draft = Draft::new();
            let row = storage::detach(&mut draft, &found)?;
            let revision = draft.commit(store).await?;
            Ok::<_, ApiError>(Versioned { row, revision, ..found })
        }
        .await
    })?;
    Ok(tagged(&detached))
}

/// A disk that its owner may do things with by itself.
async fn own(
    caller: &Caller,
    state: &ApiState,
    disk: &str,
    condition: &IfMatch,
) -> Result<Versioned<Disk>, ApiError> {
    let found = caller.disk(state.store(), disk).await?;
    condition.check("disk", &found)?;
    if found.row.kind == DiskKind::Os {
        let what = format!("disk {} is the one that its machine boots from", found.row.name);
        return Err(ApiError::conflict(Problem::new(what, "disk", "it goes with its machine")));
    }
    Ok(found)
}
