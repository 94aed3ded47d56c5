//! The networking manager: virtual networks and their monikers, addresses, the directory, and what all of it is in a switch's
//! terms.
//!
//! This room alone knows which VNI a moniker has. Others hand it monikers and a [`Draft`]; it adds what must hold and what
//! is written, and whoever drafts commits everything together. Every promise (an address has one owner, a VNI one network)
//! is a requirement of the transaction. Never here: machines, operations, hosts' connections.

mod address;
mod directory;
mod error;
mod keys;
mod progress;
mod terms;
mod vnet;

pub use address::{AddressClaim, claim_address, free_addresses, release_address, take_over_address};
pub use directory::{DirectoryEntry, publish, published_at, withdraw};
pub use error::NetworkError;
pub use keys::{address_prefix, directory_prefix, holder_prefix, progress_prefix};
pub use progress::{
    Absent, HostProgress, attached, everyone_knows, hold, holders, let_go, progress_of, set_progress,
};
pub use terms::{VmTerms, directory_entry, network_terms, vm_terms};
pub use vnet::{
    NetworkSpec, PLACEHOLDER, QUARANTINE, Vnet, all, by_moniker, by_vni, create, ensure_platform_networks,
    remove, vnet,
};
