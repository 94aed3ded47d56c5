//! The keeper: a small process with privileges that opens TAPs and sockets for a switch that has none, and keeps
//! duplicates of the descriptors, so that a switch that is killed, restarted or upgraded gets the same ones back.
//!
//! ```text
//! shunt vswitch run ── starts, or finds at state_dir/keeper.sock ──► keeper ── starts ──► standby
//!        └── drops all capabilities, then asks: Opener = Keeper ────────┘   takes the keeper's place if it dies ─┘
//! ```
//!
//! A TAP's carrier goes down when its last descriptor closes; while the keeper lives, no death of the switch is seen by a
//! guest. When the keeper dies the switch has all descriptors still: it hands copies of them to the standby, which listens at
//! the same socket. Only if both are gone at once the next switch begins from what is on disk.
//!
//! Rooms: `protocol` (bytes), `channel` (packets with descriptors), `shelf` (what is kept, and the answers), `server` (the
//! process), `launch` (finding or starting it), `client` (the switch's side), `privileges`. Never here: packets of guests,
//! documents, anything that a worker waits for.

mod channel;
mod client;
mod launch;
mod privileges;
pub mod protocol;
mod server;
mod shelf;

pub use client::Keeper;
pub use launch::{KeeperError, Residence, Seat, Stopped, check_owner, stop};
pub use privileges::{drop_all, missing_of_a_keeper, raise_open_files};
pub use server::serve;
