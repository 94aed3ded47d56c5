//! A host's side: what it should hold is in its ledger, and it makes it so, also when no controller answers.
//!
//! The agent gets documents, never rows; drives this host's switch by its socket, guests by their hypervisor, metadata by
//! the service beside it; and tells facts. Machines are worked at one by one and many at a time. Never here: decisions about
//! machines, anything about other hosts than their directory entries.

mod agent;
mod config;
mod directory;
mod facts;
mod inventory;
mod joining;
pub mod ledger;
mod link;
mod machine;
mod metadata;
mod networks;
mod role;
mod switch;

pub use agent::{Agent, Parts};
pub use config::{HostFile, KEYS};
pub use facts::{Batch, Facts};
pub use inventory::inventory;
pub use joining::{Membership, MembershipError, join};
pub use metadata::{Metadata, Report};
pub use role::Role;
