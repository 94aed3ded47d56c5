//! Tenants, their quotas, and the tokens that callers show.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Name, TenantId, TokenId};

/// Whoever owns things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, unique in the cluster.
    pub name: Name,
    /// How much it may have.
    pub quota: Quota,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Tenant {
    /// The platform tenant: the owner of everything that nobody has asked for yet.
    pub const PLATFORM: TenantId = TenantId::fixed(0x0000_0000_0000_7000_8000_0000_0000_0001);
}

/// How much a tenant may have at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Virtual machines.
    pub vms: u32,
    /// Virtual networks.
    pub networks: u32,
    /// Disks.
    pub disks: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { vms: 100, networks: 20, disks: 200 }
    }
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, at all tenants.
    Admin,
    /// Everything of one tenant.
    Tenant,
    /// Look at everything of one tenant.
    ReadOnly,
}

/// What is kept of a bearer token. Its key in the store is the SHA-256 of the secret; the secret is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What it can be revoked by.
    pub id: TokenId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it allows.
    pub role: Role,
    /// What it is for, in somebody's words.
    pub note: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
}
