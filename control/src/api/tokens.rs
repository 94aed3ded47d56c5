//! `/v1/tokens`: bearer tokens of a tenant. A secret is shown once, when it is made.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{At, Body};
use super::{ApiError, ApiState, Caller, Page};
use crate::model::{Problem, Role, Tenant, Token};
use crate::tenant;

/// Most tokens of one tenant.
const MOST: usize = 100;

/// A token, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// What it can be revoked by.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// What it allows.
    #[schema(value_type = RoleForm)]
    pub role: Role,
    /// What it is for.
    pub note: String,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When it ends, if it does (RFC 3339).
    pub expires_at: Option<String>,
}

/// What a token allows, for descriptions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only described")]
pub(super) enum RoleForm {
    /// Everything, at all tenants
    Admin,
    /// Everything of one tenant
    Tenant,
    /// Look at everything of one tenant
    ReadOnly,
}

/// A token to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it allows; `admin` can only be given by an administrator who names no tenant.
    #[schema(value_type = RoleForm)]
    pub role: Role,
    /// What it is for.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub note: String,
    /// When it ends (RFC 3339); absent: when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

/// A token that was just made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IssuedToken {
    /// The secret: shown now, and never again.
    pub secret: String,
    /// What is kept of it.
    pub token: TokenView,
}

impl TokenView {
    fn of(token: &Token) -> Self {
        Self {
            id: token.id.to_string(),
            tenant: token.tenant.to_string(),
            role: token.role,
            note: token.note.clone(),
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.map(|at| at.to_string()),
        }
    }
}

/// The caller's tenant's tokens; all on one page
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, body = Page<TokenView>)))]
pub(super) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
) -> Result<Json<Page<TokenView>>, ApiError> {
    let mut all = tenant::tokens(state.store(), caller.owner().unwrap_or(Tenant::PLATFORM)).await?;
    all.sort_by_key(|token| token.row.id);
    Ok(Json(Page { items: all.iter().map(|token| TokenView::of(&token.row)).collect(), next: None }))
}

/// Make a token
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = NewToken, responses((status = 201, body = IssuedToken)))]
pub(super) async fn issue(
    caller: Caller,
    State(state): State<ApiState>,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<IssuedToken>), ApiError> {
    let owner = match new.role {
        Role::Admin if caller.owner().is_ok() => {
            return Err(ApiError::forbidden(
                "a tenant has no administrators of the platform",
                "ask for the role tenant or read_only, or, as an administrator, name no tenant",
            ));
        }
        Role::Admin => Tenant::PLATFORM,
        Role::Tenant | Role::ReadOnly => caller.owner()?,
    };
    if new.note.chars().count() > 200 || new.note.chars().any(char::is_control) {
        return Err(ApiError::invalid(
            "note",
            "the note is too long or not one line",
            "send up to 200 characters",
        ));
    }
    if new.expires_at.is_some_and(|end| end <= state.now()) {
        return Err(ApiError::invalid("expires_at", "the end is past", "send a time to come"));
    }
    let has =
        tenant::tokens(state.store(), owner).await?.iter().filter(|token| token.row.tenant == owner).count();
    if has >= MOST {
        let what = format!("there are {has} tokens already");
        return Err(ApiError::conflict(Problem::new(what, "token", "revoke some")));
    }
    let (secret, token) =
        tenant::issue(state.store(), owner, new.role, &new.note, state.now(), new.expires_at).await?;
    let issued = IssuedToken { secret: secret.reveal().to_owned(), token: TokenView::of(&token) };
    Ok((StatusCode::CREATED, Json(issued)))
}

/// End a token
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens", params(("token" = String, Path)), responses((status = 204)))]
pub(super) async fn revoke(
    caller: Caller,
    State(state): State<ApiState>,
    At(token): At<String>,
) -> Result<StatusCode, ApiError> {
    let missing = || ApiError::not_found("token", &token);
    let id = token.parse().map_err(|_| missing())?;
    let owner = caller.owner().unwrap_or(Tenant::PLATFORM);
    if tenant::revoke(state.store(), owner, id, state.now()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing())
    }
}
