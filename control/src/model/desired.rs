//! What a host should hold, and what it reports. Documents go to hosts with a generation; facts come back with it.

use std::sync::Arc;

use dataplane::desired::{NetworkConfig, RuleConfig};
use dataplane::types::{CustomerIp, MacAddr, Vni};
use serde::{Deserialize, Serialize};

use super::{GuestConfig, Name, Problem, ReceivedReport, VmId};

/// Everything that one host should hold, the directory aside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostDesired {
    /// Grows with every change; an older document is refused.
    pub generation: u64,
    /// The networks that its machines are in.
    pub networks: Vec<Arc<NetworkConfig>>,
    /// Its machines.
    pub vms: Vec<Arc<VmDesired>>,
}

/// Whether a machine should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// It should.
    Running,
    /// It should not, but keeps what it has.
    Stopped,
}

/// One machine as its host should have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmDesired {
    /// Which.
    pub vm: VmId,
    /// The machine's; what the host reports is about this one.
    pub generation: u64,
    /// Whether it should run.
    pub power: Power,
    /// What runs it.
    pub hypervisor: Name,
    /// What it boots.
    pub image: Name,
    /// Virtual processors.
    pub vcpus: u16,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Name of its port, its interface and its namespace: at most 15 letters.
    pub port: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// The network it is in.
    pub network: Vni,
    /// Its addresses there.
    pub ips: Vec<CustomerIp>,
    /// Its rules there.
    pub rules: Vec<RuleConfig>,
    /// What its metadata service publishes. Its generation and `bounces` make the label of the port.
    pub config: GuestConfig,
    /// Grows when its guest shall be shown once more that something has changed, though its binding is the same.
    #[serde(default)]
    pub bounces: u32,
}

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum VmRunning {
    /// Its host is still at it.
    Pending,
    /// It runs as the generation wants it.
    Running,
    /// It was running and has ended by itself.
    Dead,
    /// It is not wanted any more, and nothing of it is left.
    Gone,
    /// Its host could not do what was wanted.
    Failed {
        /// Why.
        problem: Problem,
    },
}

/// Times of a change, from the moment that the switch received it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ChangeTimes {
    /// → new snapshot stored, in nanoseconds.
    pub swap_ns: u64,
    /// → all workers past it, in nanoseconds.
    pub settled_ns: u64,
    /// → lease sent, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<f64>,
    /// → first packet from a new address, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_packet_ms: Option<f64>,
}

/// What a host knows of one of its machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmFact {
    /// Which.
    pub vm: VmId,
    /// The generation that it is about.
    pub generation: u64,
    /// How it is.
    #[serde(flatten)]
    pub running: VmRunning,
    /// Times of the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<ChangeTimes>,
    /// What the guest said last about its configuration, `alive` aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReceivedReport>,
    /// When the guest last said anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_at: Option<jiff::Timestamp>,
    /// When it ended by itself last; its host may have started it again since. Kept by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub died_at: Option<jiff::Timestamp>,
}
