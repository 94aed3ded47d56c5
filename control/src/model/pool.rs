//! Combination types and the pools of machines that are ready for them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Name, PoolId};

/// What cannot change without a reboot but a customer may choose. Machines of one combination can stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Combination {
    /// What runs it: `netns`, `qemu`.
    pub hypervisor: Name,
    /// What it boots: the name of an image. It names the OS type.
    pub image: Name,
    /// Virtual processors.
    pub vcpus: u16,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// The kind of its OS disk: `local`, `none`.
    pub storage: Name,
    /// IP families its network needs: `ipv4`, `ipv6`, `dual`.
    pub ip_routing: Name,
}

/// A combination that no host could run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct CombinationError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub what: String,
}

impl Combination {
    /// # Errors
    /// Names the first field that makes no sense.
    pub fn validate(&self) -> Result<(), CombinationError> {
        let wrong = |field, what: String| Err(CombinationError { field, what });
        if !(1..=256).contains(&self.vcpus) {
            return wrong("vcpus", format!("{} is not between 1 and 256", self.vcpus));
        }
        if !(16..=16 << 20).contains(&self.memory_mib) {
            return wrong("memory_mib", format!("{} is not between 16 and 16777216", self.memory_mib));
        }
        if !["ipv4", "ipv6", "dual"].contains(&self.ip_routing.as_str()) {
            return wrong("ip_routing", format!("{} is none of ipv4, ipv6, dual", self.ip_routing));
        }
        Ok(())
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hypervisor, image, vcpus, memory_mib, storage, ip_routing } = self;
        write!(f, "{hypervisor}.{image}.{vcpus}c.{memory_mib}m.{storage}.{ip_routing}")
    }
}

/// How large a pool is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizing {
    /// Never fewer ready machines than this, as far as the hosts have room.
    pub min: u32,
    /// Never more than this.
    pub max: u32,
    /// The share of requests that shall find a ready machine, between 0 and 1.
    pub hit_rate: f64,
    /// Idle machine-hours a day that may be spent at most; absent: no bound but `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_hours: Option<f64>,
}

/// A pool of partially provisioned machines of one combination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its id.
    pub id: PoolId,
    /// Its name, unique in the cluster.
    pub name: Name,
    /// What its machines are.
    pub combination: Combination,
    /// How many of them.
    pub sizing: Sizing,
    /// True when nobody may claim from it and nothing is made for it: it is being removed.
    #[serde(default)]
    pub draining: bool,
    /// When it was made.
    pub created_at: Timestamp,
}
