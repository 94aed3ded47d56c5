//! Hosts.

use dataplane::types::PhysicalIp;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{HostId, Name};

/// A machine that runs others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its id; its certificate says the same.
    pub id: HostId,
    /// Its name, unique in the cluster.
    pub name: Name,
    /// Whether it takes new machines.
    pub state: HostState,
    /// What it said of itself when it last came.
    pub inventory: Inventory,
    /// When it joined.
    pub created_at: Timestamp,
}

/// Whether a host takes new machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It does.
    Ready,
    /// It keeps those that it has and takes no new ones.
    Cordoned,
}

/// What a host has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Where other hosts send its machines' packets.
    pub physical_ip: PhysicalIp,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// What can run machines there.
    pub hypervisors: Vec<Name>,
    /// The program's version.
    pub version: String,
}
