//! Shunt's host vswitch.
//!
//! The pure core (parsing, tables, pipeline, traps, directory) has no I/O, no clock, no lock a reader could wait for
//! and no allocation per packet; time is an argument. The feature `io` adds what touches the machine: devices, the
//! underlay, workers, state on disk and the local socket. `docs/ARCHITECTURE.md` is the map of the rooms.

mod bucket;
#[cfg(feature = "io")]
pub mod clock;
pub mod conntrack;
mod context;
#[cfg(feature = "io")]
pub mod ctl;
pub mod desired;
pub mod directory;
pub mod drops;
#[cfg(feature = "io")]
pub mod endpoint;
#[cfg(feature = "io")]
pub mod keeper;
pub mod offload;
pub mod packet;
pub mod pipeline;
pub mod port;
pub mod publish;
mod refusal;
pub mod stats;
#[cfg(feature = "io")]
pub mod switch;
mod sync;
pub mod tables;
mod trap;
pub mod types;
#[cfg(feature = "io")]
pub mod underlay;
pub mod verdict;
pub mod wire;
#[cfg(feature = "io")]
pub mod worker;
