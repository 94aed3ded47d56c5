//! The truths of what touches the machine: the configuration file, the state file and the control socket.
//!
//! Files and sockets stand in a temporary directory (in memory where the machine has one); nothing else of the machine is
//! touched, and no privilege is needed. Never here: packets.

pub mod config;
pub mod control;
mod opener;
pub mod state;

use std::path::Path;

use tempfile::TempDir;

/// A directory that vanishes with its owner. On disk each of a thousand inputs a second would be worth an fsync.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a temporary directory can be made")
}
