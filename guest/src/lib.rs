//! `shunt-guest`, the optional agent for guests: it reads what the metadata service publishes, says so when that is only
//! the placeholder, waits for the network to change, has the lease renewed, applies the customer's configuration, reports.
//!
//! Rooms, in an order in which they can be read: [`config`] (what comes and what goes, with its limits), [`os`] (what is
//! done to a system, as a trait), [`linux`] (that trait for Linux), [`state`] (what survives a restart), `metadata` (HTTP),
//! `link` and `lease` (when to look again), [`agent`] (the flow), `init` (PID 1 of a guest made of namespaces, and of a virtual machine),
//! `options` (the command line).
//!
//! Never here: an async runtime, TLS, a netlink listener (the kernel merges link events for a second across namespaces), or
//! anything that must be there for a network change to work: link bounce and DHCP need no agent.

pub mod agent;
pub mod config;
mod init;
mod lease;
mod link;
pub mod linux;
mod log;
mod metadata;
mod options;
pub mod os;
pub mod state;

pub use options::main;
