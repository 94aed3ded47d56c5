//! The owner of it all: the document in force, the directory, the state on disk, the devices and the workers.

mod config;
mod state;

pub use config::*;
pub use state::*;
