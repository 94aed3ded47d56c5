//! The forms of journeys' requests and of what their steps remember.

use dataplane::types::CustomerIp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{
    Binding, ChangeTimes, Combination, Moniker, Name, NicId, Operation, PoolId, Problem, Settings, VmId,
    VmRule,
};
use crate::workflow::StepError;

/// A machine for a customer: out of a pool, or from scratch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateVm {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub combination: Combination,
    /// Where it is.
    pub network: Moniker,
    /// Its addresses; none: one is found.
    #[serde(default)]
    pub addresses: Vec<CustomerIp>,
    /// What its owner wants in it.
    #[serde(default)]
    pub settings: Settings,
    /// Its rules.
    #[serde(default)]
    pub rules: Vec<VmRule>,
}

/// A machine for a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillPool {
    /// The pool.
    pub pool: PoolId,
}

/// Another network, other addresses or another name for a running machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeNetwork {
    /// The machine.
    pub vm: VmId,
    /// Where to; absent: it stays in its network.
    #[serde(default)]
    pub network: Option<Moniker>,
    /// Its addresses there; none: one is found, or it keeps those that it has where it stays.
    #[serde(default)]
    pub addresses: Vec<CustomerIp>,
    /// Its name; absent: it keeps it.
    #[serde(default)]
    pub name: Option<Name>,
}

/// Something with one machine: quarantine, release, delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneVm {
    /// The machine.
    pub vm: VmId,
    /// Why, in somebody's words.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What the steps of a journey have found out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    /// The machine was taken out of this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
    /// Where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Binding>,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Binding>,
    /// What it was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_name: Option<Name>,
    /// What was in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_settings: Option<Settings>,
    /// It has been shown its customer's configuration: it cannot go back into a pool.
    #[serde(default)]
    pub tainted: bool,
    /// The guest did not follow in time, and its link was bounced once more.
    #[serde(default)]
    pub retried: bool,
    /// A machine that failed had the customer's name, quota and addresses; its successor takes them over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited: Option<NicId>,
    /// Why the one before failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_for: Option<Problem>,
    /// Times of the change, by its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<ChangeTimes>,
}

/// An operation's request, in the form of its journey.
///
/// # Errors
/// `Refused` when it has another form: a newer program may have written it.
pub(super) fn request<T: DeserializeOwned>(operation: &Operation) -> Result<T, StepError> {
    serde_json::from_value(operation.request.clone()).map_err(|error| {
        StepError::refused(format!("the request cannot be read: {error}"), "operation", "ask again")
    })
}

pub(super) fn recall(operation: &Operation) -> Memory {
    // What cannot be read was written by nobody but this program: nothing was remembered yet.
    serde_json::from_value(operation.memory.clone()).unwrap_or_default()
}

pub(super) fn remember(operation: &mut Operation, memory: &Memory) {
    operation.memory = serde_json::to_value(memory).unwrap_or_default();
}
