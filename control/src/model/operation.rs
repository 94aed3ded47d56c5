//! Operations: a customer's or the platform's wish, and how far it has come. The row is the journal of its journey.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{OperationId, Problem, TenantId, VmId};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JourneyKind {
    /// A machine from scratch for a customer.
    VmCreate,
    /// A partially provisioned machine for a pool.
    PoolFill,
    /// A pool's machine becomes a customer's.
    HandOver,
    /// A running machine gets another network, other addresses or another name.
    NetworkChange,
    /// A running machine is cut off from everybody, memory and processes untouched.
    Quarantine,
    /// And back.
    Release,
    /// A machine ends.
    VmDelete,
}

impl JourneyKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::VmCreate,
        Self::PoolFill,
        Self::HandOver,
        Self::NetworkChange,
        Self::Quarantine,
        Self::Release,
        Self::VmDelete,
    ];

    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VmCreate => "vm_create",
            Self::PoolFill => "pool_fill",
            Self::HandOver => "hand_over",
            Self::NetworkChange => "network_change",
            Self::Quarantine => "quarantine",
            Self::Release => "release",
            Self::VmDelete => "vm_delete",
        }
    }
}

impl fmt::Display for JourneyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It goes forward.
    Running,
    /// A step failed, and those before it are being undone.
    Undoing,
    /// All steps are done.
    Done,
    /// A step failed, and everything before it is undone.
    Undone,
    /// A step failed from which there is no way back; `problem` says what is left.
    Failed,
}

impl OperationState {
    /// True when nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Undone | Self::Failed)
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Begun.
    Running,
    /// Done.
    Done,
    /// Begun, and failed.
    Failed,
    /// Done, and undone again.
    Undone,
}

/// One step, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its name in its journey.
    pub name: String,
    /// Where it stands.
    pub state: StepState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What there is to say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// Who asked.
    pub tenant: TenantId,
    /// What it does.
    pub kind: JourneyKind,
    /// Where it stands.
    pub state: OperationState,
    /// What was asked, in the form of its journey.
    pub request: serde_json::Value,
    /// What its steps have found out and decided, in the form of its journey.
    pub memory: serde_json::Value,
    /// The steps begun so far, in order.
    pub steps: Vec<StepRecord>,
    /// Which of them is the first of the present journey: those before it belong to one that this one took the place of.
    #[serde(default)]
    pub first_step: usize,
    /// The machine it is about, once known.
    pub vm: Option<VmId>,
    /// The controller that carries it out.
    pub runner: Option<String>,
    /// How often a machine was replaced meanwhile.
    #[serde(default)]
    pub replacements: u32,
    /// Why it did not succeed.
    pub problem: Option<Problem>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}
