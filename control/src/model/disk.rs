//! Disks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DiskId, Name, TenantId, VmId};

/// What a disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskKind {
    /// The one that the machine boots from; made with it, deleted with it.
    Os,
    /// The customer's own.
    Data,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its id.
    pub id: DiskId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What its tenant calls it.
    pub name: Name,
    /// What it is for.
    pub kind: DiskKind,
    /// Its size, in GiB.
    pub size_gib: u32,
    /// The machine that it is attached to.
    pub vm: Option<VmId>,
    /// When it was made.
    pub created_at: Timestamp,
}
