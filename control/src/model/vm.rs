//! Virtual machines and their interfaces.

use dataplane::types::{CustomerIp, MacAddr, PhysicalIp};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Combination, HostId, Moniker, Name, NicId, OperationId, PoolId, Problem, Settings, TenantId, VmId, VmRule,
};

/// Where a machine stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// It is being made.
    Creating,
    /// It is partially provisioned and waits for a customer.
    Pooled,
    /// It is its owner's and works.
    Running,
    /// A change of it is under way.
    Changing,
    /// It runs, untouched, in a network where nobody can reach it.
    Quarantined,
    /// It does not work; `failure` says why.
    Failed,
    /// It is being removed.
    Deleting,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Its id, the same in the pool and at the customer's.
    pub id: VmId,
    /// Who owns it.
    pub tenant: TenantId,
    /// What its owner calls it; also the name it gives itself, unless `settings` say otherwise.
    pub name: Name,
    /// Where it stands in its life.
    pub state: VmState,
    /// What it is.
    pub combination: Combination,
    /// Where it runs.
    pub host: HostId,
    /// The pool it was made for, if it was.
    pub pool: Option<PoolId>,
    /// Grows with every change that its host has to carry out.
    pub generation: u64,
    /// Grows with every change that its guest has to follow: another network, another name, other settings.
    pub config_generation: u64,
    /// The configuration with which its owner's script is run: later ones do not have it, or it would be run again.
    pub script_generation: u64,
    /// How often its link was bounced because its guest did not follow.
    #[serde(default)]
    pub bounces: u32,
    /// True while its configuration is a placeholder's.
    pub partial: bool,
    /// What its owner wants in it.
    pub settings: Settings,
    /// Its rules, by number.
    pub rules: Vec<VmRule>,
    /// Its interface.
    pub nic: NicId,
    /// The operation that has it in hand: no other may begin.
    pub operation: Option<OperationId>,
    /// Where it was before quarantine: what `release` brings back.
    pub before_quarantine: Option<Binding>,
    /// Why it failed.
    pub failure: Option<Problem>,
    /// Until when its use is watched after a hand-over.
    pub watched_until: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A network and addresses in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The network.
    pub network: Moniker,
    /// The addresses, at most one of each family.
    pub addresses: Vec<CustomerIp>,
}

/// A machine's interface. MAC and physical IP stay as they are for life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its id.
    pub id: NicId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Whose interface it is.
    pub vm: VmId,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its host's address.
    pub physical_ip: PhysicalIp,
    /// The switch's name for it, at most 15 letters; unique in the cluster.
    pub port: String,
    /// Where it is.
    pub binding: Binding,
}
