//! The nouns of a cluster: ids, rows and their states, what a guest is told, what a host should hold and what it reports.
//!
//! Plain data with serde. Never here: I/O, clocks, decisions. Rows name a virtual network by its [`Moniker`] alone; only the
//! networking manager knows which VNI that is.

mod desired;
mod disk;
mod guest;
mod host;
mod ids;
mod names;
mod network;
mod operation;
mod pool;
mod problem;
mod rule;
mod tenant;
mod vm;

pub use desired::{ChangeTimes, HostDesired, Power, VmDesired, VmFact, VmRunning};
pub use disk::{Disk, DiskKind};
pub use guest::{
    GuestConfig, GuestFile, GuestNetwork, GuestReport, GuestUser, Phase, ReceivedReport, Settings,
};
pub use host::{Host, HostState, Inventory};
pub use ids::{DiskId, HostId, IdError, NetworkId, NicId, OperationId, PoolId, TenantId, TokenId, VmId};
pub use names::{Moniker, Name, NameError};
pub use network::Network;
pub use operation::{JourneyKind, Operation, OperationState, StepRecord, StepState};
pub use pool::{Combination, CombinationError, Pool, Sizing};
pub use problem::Problem;
pub use rule::{Remote, VmRule};
pub use tenant::{Quota, Role, Tenant, Token};
pub use vm::{Binding, Nic, Vm, VmState};
