//! `/v1/vms`: machines. What changes one is an operation.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use dataplane::types::CustomerIp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{At, Body, IdempotencyKey, IfMatch, Params, Tagged};
use super::operations::{OperationView, ProblemView};
use super::pools::CombinationForm;
use super::rules::{NewRule, numbered};
use super::{ApiError, ApiState, Caller, Page, Paging};
use crate::compute;
use crate::model::{
    GuestFile, GuestUser, JourneyKind, Name, Phase, Settings, TenantId, Vm, VmFact, VmId, VmState,
};
use crate::network;
use crate::store::Store;
use crate::workflow::requests::{ChangeNetwork, CreateVm, OneVm};

/// Most bytes of a machine's settings, as JSON: they are a part of a row, and guests are told all of them.
const MOST_SETTINGS_BYTES: usize = 192 << 10;
/// Most rules that a machine can be made with.
const MOST_RULES: usize = 64;

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VmView {
    /// Its id: the same in the pool and at the customer's.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// Its name, unique in its tenant.
    pub name: String,
    /// Where it stands in its life.
    #[schema(value_type = VmStateForm)]
    pub state: VmState,
    /// True while its configuration is a placeholder's.
    pub partial: bool,
    /// What it is.
    pub combination: CombinationForm,
    /// The name of the network that it is in.
    pub network: String,
    /// What the cluster calls that network.
    pub moniker: String,
    /// Its addresses there.
    pub addresses: Vec<String>,
    /// Its MAC address, for life.
    pub mac: String,
    /// The host that it runs on; for administrators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its host's address; for administrators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_ip: Option<String>,
    /// Its port at its host's switch; for administrators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Grows with every change that its host carries out.
    pub generation: u64,
    /// The rules that it has.
    pub rules: u32,
    /// What its guest said last.
    pub guest: Option<GuestView>,
    /// The operation that has it in hand.
    pub operation: Option<String>,
    /// Why it failed.
    pub failure: Option<ProblemView>,
    /// Until when its use is watched after a hand-over (RFC 3339).
    pub watched_until: Option<String>,
    /// When it was made (RFC 3339).
    pub created_at: String,
}

/// What a guest said last about its configuration.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GuestView {
    /// How far it has come.
    #[schema(value_type = PhaseForm)]
    pub phase: Phase,
    /// What went wrong, or a remark.
    pub detail: Option<String>,
    /// The name it has.
    pub hostname: Option<String>,
    /// Its kernel's boot id: the same as long as it was not rebooted.
    pub boot_id: String,
    /// When it was said (RFC 3339).
    pub at: String,
}

/// Where a machine stands in its life, for descriptions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only described")]
pub(super) enum VmStateForm {
    /// It is being made
    Creating,
    /// It waits for a customer
    Pooled,
    /// It works
    Running,
    /// A change of it is under way
    Changing,
    /// It runs where nobody can reach it
    Quarantined,
    /// It does not work
    Failed,
    /// It is being removed
    Deleting,
}

/// How far a guest has come, for descriptions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only described")]
pub(super) enum PhaseForm {
    /// It waits for its configuration
    Partial,
    /// It has applied it
    Ready,
    /// It could not
    Failed,
    /// It lives
    Alive,
}

/// A machine to be had: out of a pool where one is ready, else made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVm {
    /// Its name: lower-case letters, digits, hyphens.
    #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "web-1")]
    pub name: Name,
    /// What it is.
    pub combination: CombinationForm,
    /// The network that it is in: its name, id or moniker.
    #[schema(example = "blue")]
    pub network: String,
    /// Its addresses there; none: one is found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 2)]
    pub addresses: Vec<CustomerIp>,
    /// What shall be in it.
    #[serde(default)]
    pub settings: SettingsForm,
    /// Its rules, numbered from 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub rules: Vec<NewRule>,
}

/// What the owner of a machine wants in it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsForm {
    /// The first user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserForm>,
    /// A name of the time zone database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: Option<String>,
    /// Files to write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileForm>,
    /// What to run when all else is done, by its first line's interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
}

/// A user.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserForm {
    /// Login name.
    pub name: String,
    /// Its password as crypt(5) keeps it, such as `$6$…`; absent: none, keys only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// Public keys, in OpenSSH's form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
}

/// A file to write.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileForm {
    /// Absolute path.
    pub path: String,
    /// Permissions, octal.
    #[serde(default = "plain_mode")]
    pub mode: String,
    /// What is in it, base64.
    pub content_base64: String,
}

fn plain_mode() -> String {
    "0644".to_owned()
}

/// Another network, other addresses, another name. At least one of them.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveVm {
    /// Where to: the network's name, id or moniker; absent: it stays in its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its addresses there; none: one is found, or it keeps those that it has where it stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 2)]
    pub addresses: Vec<CustomerIp>,
    /// Its name; absent: it keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
}

/// Why something is done, in somebody's words.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 400)]
    pub reason: Option<String>,
}

impl From<SettingsForm> for Settings {
    fn from(SettingsForm { user, time_zone, files, script }: SettingsForm) -> Self {
        Self {
            user: user.map(|UserForm { name, password_hash, ssh_keys }| GuestUser {
                name,
                password_hash,
                ssh_keys,
            }),
            time_zone,
            files: files
                .into_iter()
                .map(|FileForm { path, mode, content_base64 }| GuestFile { path, mode, content_base64 })
                .collect(),
            script,
        }
    }
}

impl VmView {
    async fn of(store: &dyn Store, caller: &Caller, vm: &Vm) -> Result<Self, ApiError> {
        let nic = compute::load_nic(store, vm.nic).await?;
        let nic = nic.ok_or_else(|| ApiError::not_found("vm", &vm.id.to_string()))?.row;
        let moniker = nic.binding.network;
        let network = network::by_moniker(store, &moniker).await.ok();
        let guest = compute::fact_of(store, vm.id).await?.and_then(|fact| GuestView::of(&fact.row));
        let for_admin = |text: String| caller.is_admin().then_some(text);
        Ok(Self {
            id: vm.id.to_string(),
            tenant: vm.tenant.to_string(),
            name: vm.name.to_string(),
            state: vm.state,
            partial: vm.partial,
            combination: (&vm.combination).into(),
            network: network.map_or_else(|| moniker.to_string(), |network| network.name.to_string()),
            moniker: moniker.to_string(),
            addresses: nic.binding.addresses.iter().map(CustomerIp::to_string).collect(),
            mac: nic.mac.to_string(),
            host: for_admin(vm.host.to_string()),
            physical_ip: for_admin(nic.physical_ip.to_string()),
            port: for_admin(nic.port),
            generation: vm.generation,
            rules: u32::try_from(vm.rules.len()).unwrap_or(u32::MAX),
            guest,
            operation: vm.operation.map(|id| id.to_string()),
            failure: vm.failure.as_ref().map(Into::into),
            watched_until: vm.watched_until.map(|at| at.to_string()),
            created_at: vm.created_at.to_string(),
        })
    }
}

impl GuestView {
    fn of(fact: &VmFact) -> Option<Self> {
        let received = fact.report.as_ref()?;
        Some(Self {
            phase: received.report.phase,
            detail: received.report.detail.clone(),
            hostname: received.report.hostname.clone(),
            boot_id: received.report.boot_id.clone(),
            at: received.at.to_string(),
        })
    }
}

/// The machines
#[utoipa::path(get, path = "/v1/vms", tag = "vms", params(Paging), responses((status = 200, body = Page<VmView>)))]
pub(super) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<VmView>>, ApiError> {
    let page = paging.of::<Vm>(state.store(), |vm| caller.sees(vm.tenant)).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for vm in &page.items {
        items.push(VmView::of(state.store(), &caller, &vm.row).await?);
    }
    Ok(Json(Page { items, next: page.next }))
}

/// A machine, by its id or name
#[utoipa::path(get, path = "/v1/vms/{vm}", tag = "vms", params(("vm" = String, Path)), responses((status = 200, body = VmView)))]
pub(super) async fn show(
    caller: Caller,
    State(state): State<ApiState>,
    At(vm): At<String>,
) -> Result<Tagged<VmView>, ApiError> {
    let found = caller.vm(state.store(), &vm).await?;
    Ok(Tagged(found.revision, VmView::of(state.store(), &caller, &found.row).await?))
}

/// Ask for a machine
#[utoipa::path(
    post, path = "/v1/vms", tag = "vms", request_body = NewVm,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key is the same wish")),
    responses((status = 202, body = OperationView))
)]
pub(super) async fn create(
    caller: Caller,
    State(state): State<ApiState>,
    IdempotencyKey(key): IdempotencyKey,
    Body(new): Body<NewVm>,
) -> Result<impl IntoResponse, ApiError> {
    let (owner, store) = (caller.owner()?, state.store());
    let combination = new.combination.checked()?;
    let network = caller.network(store, &new.network).await?.row;
    if network.tenant != owner {
        return Err(ApiError::not_found("network", &new.network));
    }
    check_settings(&new.settings)?;
    check_addresses(&new.addresses)?;
    if new.rules.len() > MOST_RULES {
        let what = format!("{} rules", new.rules.len());
        return Err(ApiError::invalid("rules", what, "give up to 64, and add others later"));
    }
    let wish = CreateVm {
        name: new.name,
        combination,
        network: network.moniker,
        addresses: new.addresses,
        settings: new.settings.into(),
        rules: numbered(&caller, store, owner, &new.rules).await?,
    };
    submit(&state, owner, JourneyKind::HandOver, &wish, None, key).await
}

fn check_settings(settings: &SettingsForm) -> Result<(), ApiError> {
    let bytes = serde_json::to_vec(settings).map_err(|error| ApiError::internal(&error))?.len();
    if bytes > MOST_SETTINGS_BYTES {
        let what = format!("the settings are {bytes} bytes");
        return Err(ApiError::invalid(
            "settings",
            what,
            "send up to 196608, and have the script fetch the rest",
        ));
    }
    let field = |file: usize, name: &str| format!("settings.files[{file}].{name}");
    for (place, file) in settings.files.iter().enumerate() {
        let path = &file.path;
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") || path.contains('\0') {
            return Err(ApiError::invalid(
                field(place, "path"),
                "it is no absolute path",
                "send one without `..`",
            ));
        }
        let mode = u32::from_str_radix(&file.mode, 8);
        if !mode.is_ok_and(|mode| mode <= 0o7777) {
            return Err(ApiError::invalid(field(place, "mode"), "it is no mode", "send one such as 0644"));
        }
        use base64::Engine as _;
        if base64::engine::general_purpose::STANDARD.decode(&file.content_base64).is_err() {
            return Err(ApiError::invalid(field(place, "content_base64"), "it is no base64", "encode it"));
        }
    }
    Ok(())
}

fn check_addresses(addresses: &[CustomerIp]) -> Result<(), ApiError> {
    let of_family = |v4: bool| addresses.iter().filter(|ip| ip.0.is_ipv4() == v4).count();
    if of_family(true) > 1 || of_family(false) > 1 {
        return Err(ApiError::invalid(
            "addresses",
            "there are two of one family",
            "give one of each at most",
        ));
    }
    Ok(())
}

/// Another network, other addresses or another name for a running machine, without a reboot
#[utoipa::path(
    post, path = "/v1/vms/{vm}/network-change", tag = "vms", request_body = MoveVm,
    params(
        ("vm" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key is the same wish"),
        ("If-Match" = Option<String>, Header, description = "The ETag that the machine must have")
    ),
    responses((status = 202, body = OperationView))
)]
pub(super) async fn change_network(
    caller: Caller,
    State(state): State<ApiState>,
    At(vm): At<String>,
    condition: IfMatch,
    IdempotencyKey(key): IdempotencyKey,
    Body(change): Body<MoveVm>,
) -> Result<impl IntoResponse, ApiError> {
    let store = state.store();
    let found = caller.vm(store, &vm).await?;
    condition.check("vm", &found)?;
    let MoveVm { network, addresses, name } = change;
    if network.is_none() && addresses.is_empty() && name.is_none() {
        let remedy = "name a network, addresses or a name";
        return Err(ApiError::invalid("body", "nothing is to change", remedy));
    }
    check_addresses(&addresses)?;
    let network = match network {
        None => None,
        Some(text) => {
            let network = caller.network(store, &text).await?.row;
            // An administrator sees all; the machine's owner must have it.
            if network.tenant != found.row.tenant {
                return Err(ApiError::not_found("network", &text));
            }
            Some(network.moniker)
        }
    };
    let wish = ChangeNetwork { vm: found.row.id, network, addresses, name };
    submit(&state, found.row.tenant, JourneyKind::NetworkChange, &wish, Some(found.row.id), key).await
}

/// Cut a machine off, its memory and processes untouched
#[utoipa::path(
    post, path = "/v1/vms/{vm}/quarantine", tag = "vms", request_body = Reason,
    params(("vm" = String, Path), ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key is the same wish")),
    responses((status = 202, body = OperationView))
)]
pub(super) async fn quarantine(
    caller: Caller,
    State(state): State<ApiState>,
    At(vm): At<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(reason): Body<Reason>,
) -> Result<impl IntoResponse, ApiError> {
    one(&state, &caller, &vm, JourneyKind::Quarantine, reason.reason, key).await
}

/// Bring a machine back from quarantine
#[utoipa::path(
    post, path = "/v1/vms/{vm}/release", tag = "vms", request_body = Reason,
    params(("vm" = String, Path), ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key is the same wish")),
    responses((status = 202, body = OperationView))
)]
pub(super) async fn release(
    caller: Caller,
    State(state): State<ApiState>,
    At(vm): At<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(reason): Body<Reason>,
) -> Result<impl IntoResponse, ApiError> {
    one(&state, &caller, &vm, JourneyKind::Release, reason.reason, key).await
}

/// Delete a machine, its OS disk included
#[utoipa::path(
    delete, path = "/v1/vms/{vm}", tag = "vms",
    params(
        ("vm" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key is the same wish"),
        ("If-Match" = Option<String>, Header, description = "The ETag that it must have")
    ),
    responses((status = 202, body = OperationView))
)]
pub(super) async fn delete(
    caller: Caller,
    State(state): State<ApiState>,
    At(vm): At<String>,
    condition: IfMatch,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<impl IntoResponse, ApiError> {
    condition.check("vm", &caller.vm(state.store(), &vm).await?)?;
    one(&state, &caller, &vm, JourneyKind::VmDelete, None, key).await
}

async fn one(
    state: &ApiState,
    caller: &Caller,
    vm: &str,
    kind: JourneyKind,
    reason: Option<String>,
    key: Option<String>,
) -> Result<impl IntoResponse + use<>, ApiError> {
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > 400) {
        return Err(ApiError::invalid("reason", "the reason is too long", "send up to 400 characters"));
    }
    let found = caller.vm(state.store(), vm).await?.row;
    let wish = OneVm { vm: found.id, reason };
    submit(state, found.tenant, kind, &wish, Some(found.id), key).await
}

async fn submit<T: Serialize>(
    state: &ApiState,
    owner: TenantId,
    kind: JourneyKind,
    wish: &T,
    vm: Option<VmId>,
    key: Option<String>,
) -> Result<impl IntoResponse + use<T>, ApiError> {
    let wish = serde_json::to_value(wish).map_err(|error| ApiError::internal(&error))?;
    let operation = state.runner.submit(owner, kind, wish, vm, key.as_deref()).await?;
    let location = [(LOCATION, format!("/v1/operations/{}", operation.id))];
    Ok((StatusCode::ACCEPTED, location, Json(OperationView::of(&operation))))
}
