//! Bearer tokens: 256 bits of chance, of which only a hash is kept.

use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::model::{Role, Tenant, TenantId, Token, TokenId};
use crate::store::rows::{self, Row, RowError, Versioned};
use crate::store::{CommitError, Draft, DraftError, Key, KeyError, Prefix, Store};

/// What every token begins with, so that people and scanners know one when they see it.
const MARK: &str = "shunt_";

impl Row for Token {
    const KIND: &'static str = "token";
    const SCHEMA: u32 = 1;
}

/// A token as its bearer has it. Shown once; never printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    fn new() -> Self {
        let chance = || uuid::Uuid::new_v4().simple().to_string();
        // Three, for six bits of each are fixed: 366 of chance, hashed down to 256.
        let hash = Sha256::digest(format!("{}{}{}", chance(), chance(), chance()));
        Self(format!("{MARK}{hash:x}"))
    }

    /// The text to hand to its bearer.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who asks, and what may be done for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Whose things.
    pub tenant: TenantId,
    /// What of it.
    pub role: Role,
    /// By which token.
    pub token: TokenId,
}

/// Why a token is not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Unknown, ended or no token at all; which of these is nobody's business.
    #[error("the token is not valid")]
    Invalid,
    /// Without it nobody could administer the platform any more.
    #[error("it is the only administrator's token")]
    LastOfAdministrators,
    /// The store failed.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The store failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A mistake of the program.
    #[error(transparent)]
    Draft(#[from] DraftError),
}

impl From<KeyError> for TokenError {
    fn from(error: KeyError) -> Self {
        Self::Row(error.into())
    }
}

fn key(secret: &str) -> Result<Key, KeyError> {
    Key::of(["token", &format!("{:x}", Sha256::digest(secret))])
}

/// Makes a token.
///
/// # Errors
/// The store's.
pub async fn issue(
    store: &dyn Store,
    tenant: TenantId,
    role: Role,
    note: &str,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(Secret, Token), TokenError> {
    let secret = Secret::new();
    let token =
        Token { id: TokenId::new(), tenant, role, note: note.to_owned(), created_at: now, expires_at };
    let key = key(secret.reveal())?;
    let mut draft = Draft::new();
    draft.require_absent(&key).put_row(&key, &token);
    store.commit(draft.finish()?).await?;
    Ok((secret, token))
}

/// Who bears this token.
///
/// The row is found by the token's hash, so how long that takes says nothing about the secret of any other.
///
/// # Errors
/// `Invalid`, or the store's.
pub async fn authenticate(store: &dyn Store, secret: &str, now: Timestamp) -> Result<Caller, TokenError> {
    if !secret.starts_with(MARK) || secret.len() > 128 {
        return Err(TokenError::Invalid);
    }
    let token = rows::load::<Token>(store, &key(secret)?).await?.ok_or(TokenError::Invalid)?.row;
    if token.expires_at.is_some_and(|end| end <= now) {
        return Err(TokenError::Invalid);
    }
    Ok(Caller { tenant: token.tenant, role: token.role, token: token.id })
}

/// All tokens of a tenant; all at all for the platform.
///
/// # Errors
/// The store's.
pub async fn tokens(store: &dyn Store, tenant: TenantId) -> Result<Vec<Versioned<Token>>, TokenError> {
    let mut all = rows::list_all::<Token>(store, &Prefix::of(["token"])?).await?.rows;
    all.retain(|token| tenant == Tenant::PLATFORM || token.row.tenant == tenant);
    Ok(all)
}

/// Ends a token. False: the tenant has none with this id.
///
/// # Errors
/// `LastOfAdministrators` when no administrator would be left, or the store's.
pub async fn revoke(
    store: &dyn Store,
    tenant: TenantId,
    id: TokenId,
    now: Timestamp,
) -> Result<bool, TokenError> {
    loop {
        let mut all = tokens(store, tenant).await?;
        let Some(at) = all.iter().position(|token| token.row.id == id) else { return Ok(false) };
        let token = all.swap_remove(at);
        let mut draft = Draft::new();
        draft.remove(&token);
        if token.row.role == Role::Admin {
            // In the same transaction, so that the last two cannot end each other.
            draft.unchanged(another_administrator(&all, now).ok_or(TokenError::LastOfAdministrators)?);
        }
        match store.commit(draft.finish()?).await {
            Err(error) if error.is_conflict() => {}
            done => return Ok(done.map(|_| true)?),
        }
    }
}

/// The administrator's token that is valid for longest.
fn another_administrator(tokens: &[Versioned<Token>], now: Timestamp) -> Option<&Versioned<Token>> {
    let valid = |token: &&Versioned<Token>| {
        token.row.role == Role::Admin && token.row.expires_at.is_none_or(|end| end > now)
    };
    tokens.iter().filter(valid).max_by_key(|token| token.row.expires_at.unwrap_or(Timestamp::MAX))
}
