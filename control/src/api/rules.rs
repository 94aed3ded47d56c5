//! `/v1/vms/{vm}/rules`: which of a machine's packets may pass.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use dataplane::desired::{
    Action, DEFAULT_PRIORITY, Direction, PortRange, RuleConfig, RuleError, RuleId, RuleProtocol,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{At, Body, IfMatch, Tagged};
use super::{ApiError, ApiState, Caller, Page, contended};
use crate::compute;
use crate::model::{Problem, Remote, TenantId, Vm, VmRule, VmState};
use crate::store::rows::Versioned;
use crate::store::{Draft, Store};

/// Most rules of one machine. A rule about another machine becomes one for each of its addresses at the switch.
const MOST: usize = 256;

/// A rule of a machine.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RuleView {
    /// Its number, unique among the machine's.
    pub number: u32,
    /// Which packets, seen from the guest.
    #[schema(value_type = DirectionForm)]
    pub direction: Direction,
    /// What becomes of them.
    #[schema(value_type = ActionForm)]
    pub action: Action,
    /// Of which protocol.
    pub protocol: String,
    /// Where the other end is; null: anywhere, or at `remote_vm`.
    pub remote: Option<String>,
    /// The machine that is the other end, wherever it is.
    pub remote_vm: Option<String>,
    /// Destination ports; null: all.
    pub ports: Option<String>,
    /// Type, of ICMP and ICMPv6; null: all.
    pub icmp_type: Option<u8>,
    /// The lowest is judged first.
    pub priority: u16,
}

/// A rule to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRule {
    /// Which packets, seen from the guest.
    #[schema(value_type = DirectionForm)]
    pub direction: Direction,
    /// What becomes of them.
    #[schema(value_type = ActionForm)]
    pub action: Action,
    /// `any`, `tcp`, `udp`, `icmp`, `icmpv6`, or a number [default: any].
    #[serde(default)]
    #[schema(value_type = String, example = "tcp")]
    pub protocol: RuleProtocol,
    /// Where the other end is: a prefix [default: anywhere].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10.0.0.0/24")]
    pub remote: Option<IpNet>,
    /// The machine that is the other end, by its id or name: the rule follows its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_vm: Option<String>,
    /// Destination ports, of TCP and UDP: one, or a range [default: all].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "8000-8080")]
    pub ports: Option<PortRange>,
    /// Type, of ICMP and ICMPv6 [default: all].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// The lowest is judged first.
    #[serde(default = "default_priority")]
    pub priority: u16,
}

const fn default_priority() -> u16 {
    DEFAULT_PRIORITY
}

/// Seen from the guest, for descriptions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only described")]
pub(super) enum DirectionForm {
    /// To the guest
    In,
    /// From the guest
    Out,
}

/// What a rule does, for descriptions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only described")]
pub(super) enum ActionForm {
    /// Let it pass
    Allow,
    /// Drop it
    Deny,
}

impl From<&VmRule> for RuleView {
    fn from(rule: &VmRule) -> Self {
        let (remote, remote_vm) = match rule.remote {
            Remote::Any => (None, None),
            Remote::Prefix(prefix) => (Some(prefix.to_string()), None),
            Remote::Vm(vm) => (None, Some(vm.to_string())),
        };
        Self {
            number: rule.number,
            direction: rule.direction,
            action: rule.action,
            protocol: rule.protocol.to_string(),
            remote,
            remote_vm,
            ports: rule.ports.map(|ports| ports.to_string()),
            icmp_type: rule.icmp_type,
            priority: rule.priority,
        }
    }
}

/// The rules, numbered from 1, of a machine that is yet to be had.
///
/// # Errors
/// When one makes no sense, or names a machine that is not the owner's.
pub(super) async fn numbered(
    caller: &Caller,
    store: &dyn Store,
    owner: TenantId,
    new: &[NewRule],
) -> Result<Vec<VmRule>, ApiError> {
    let mut rules = Vec::with_capacity(new.len());
    for (number, rule) in (1..).zip(new) {
        rules.push(checked(caller, store, owner, rule, number).await?);
    }
    Ok(rules)
}

async fn checked(
    caller: &Caller,
    store: &dyn Store,
    owner: TenantId,
    new: &NewRule,
    number: u32,
) -> Result<VmRule, ApiError> {
    let NewRule { direction, action, protocol, remote, ref remote_vm, ports, icmp_type, priority } = *new;
    let config =
        RuleConfig { id: RuleId(number), direction, action, protocol, remote, ports, icmp_type, priority };
    config.validate().map_err(|error| {
        let field = match &error {
            RuleError::PortsWithout(_) => "ports",
            RuleError::IcmpTypeWithout(_) => "icmp_type",
            RuleError::NoId | RuleError::Duplicate(_) => "number",
            RuleError::HostBits(_) | RuleError::Family(..) => "remote",
        };
        ApiError::invalid(field, error.to_string(), &error.remedy())
    })?;
    let remote = match (remote, remote_vm) {
        (None, None) => Remote::Any,
        (Some(prefix), None) => Remote::Prefix(prefix),
        (None, Some(text)) => {
            let peer = caller.vm(store, text).await?.row;
            if peer.tenant != owner {
                return Err(ApiError::not_found("vm", text));
            }
            Remote::Vm(peer.id)
        }
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "remote_vm",
                "there are two other ends",
                "name a prefix or a machine",
            ));
        }
    };
    Ok(VmRule { number, direction, action, protocol, remote, ports, icmp_type, priority })
}

/// A machine's rules, in the order in which they are judged; all on one page
#[utoipa::path(get, path = "/v1/vms/{vm}/rules", tag = "rules", params(("vm" = String, Path)), responses((status = 200, body = Page<RuleView>)))]
pub(super) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    At(vm): At<String>,
) -> Result<Tagged<Page<RuleView>>, ApiError> {
    let found = caller.vm(state.store(), &vm).await?;
    let mut rules: Vec<&VmRule> = found.row.rules.iter().collect();
    rules.sort_by_key(|rule| (rule.priority, rule.number));
    Ok(Tagged(found.revision, Page { items: rules.into_iter().map(Into::into).collect(), next: None }))
}

/// Add a rule to a machine; its host is told at once
#[utoipa::path(
    post, path = "/v1/vms/{vm}/rules", tag = "rules", request_body = NewRule,
    params(("vm" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the machine must have")),
    responses((status = 201, body = RuleView))
)]
pub(super) async fn create(
    caller: Caller,
    State(state): State<ApiState>,
    At(vm): At<String>,
    condition: IfMatch,
    Body(new): Body<NewRule>,
) -> Result<impl IntoResponse, ApiError> {
    let store = state.store();
    let rule = contended!({
        async {
            let mut found = changeable(&caller, store, &vm, &condition).await?;
            if found.row.rules.len() >= MOST {
                let what = format!("machine {} has {MOST} rules", found.row.name);
                return Err(ApiError::conflict(Problem::new(what, "rules", "delete some, or use prefixes")));
            }
            let last = found.row.rules.iter().map(|rule| rule.number).max().unwrap_or(0);
            let rule = checked(&caller, store, found.row.tenant, &new, last + 1).await?;
            let mut draft = Draft::new();
            if let Remote::Vm(peer) = rule.remote {
                compute::note_naming(&mut draft, peer, found.row.id)?;
            }
            found.row.rules.push(rule.clone());
            save(store, draft, found).await?;
            Ok::<_, ApiError>(rule)
        }
        .await
    })?;
    Ok((StatusCode::CREATED, Json(RuleView::from(&rule))))
}

/// Remove a rule of a machine
#[utoipa::path(
    delete, path = "/v1/vms/{vm}/rules/{number}", tag = "rules",
    params(("vm" = String, Path), ("number" = u32, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the machine must have")),
    responses((status = 204))
)]
pub(super) async fn delete(
    caller: Caller,
    State(state): State<ApiState>,
    At((vm, number)): At<(String, u32)>,
    condition: IfMatch,
) -> Result<StatusCode, ApiError> {
    let store = state.store();
    contended!({
        async {
            let mut found = changeable(&caller, store, &vm, &condition).await?;
            let before = found.row.rules.len();
            found.row.rules.retain(|rule| rule.number != number);
            if found.row.rules.len() == before {
                return Err(ApiError::not_found("rule", &number.to_string()));
            }
            save(store, Draft::new(), found).await
        }
        .await
    })?;
    Ok(StatusCode::NO_CONTENT)
}

async fn changeable(
    caller: &Caller,
    store: &dyn Store,
    vm: &str,
    condition: &IfMatch,
) -> Result<Versioned<Vm>, ApiError> {
    let found = caller.vm(store, vm).await?;
    condition.check("vm", &found)?;
    if found.row.state == VmState::Deleting {
        let what = format!("machine {} is being deleted", found.row.name);
        return Err(ApiError::conflict(Problem::new(what, "vm", "nothing needs to be done")));
    }
    Ok(found)
}

/// The host follows because the generation has grown.
async fn save(store: &dyn Store, mut draft: Draft, mut vm: Versioned<Vm>) -> Result<(), ApiError> {
    vm.row.generation += 1;
    compute::save_vm(&mut draft, &vm)?;
    draft.commit(store).await?;
    Ok(())
}
