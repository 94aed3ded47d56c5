//! The owner of it all: the document in force, the directory, the state on disk, the devices and the workers.
//!
//! Every change takes the same walk, in [`change`]: validate and build → open devices → make durable → link down →
//! publish → settle → link up later. Changes are serialized by one lock that no worker ever touches.

mod bounce;
mod change;
mod config;
mod directory;
mod error;
mod start;
mod state;
mod status;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use bounce::{Bounce, LONG_HOLD, QUIET, SHORT_HOLD, hold_for};
pub use change::{Change, Place};
pub use config::*;
pub use error::SwitchError;

pub use start::StartError;
pub use state::*;
pub use status::{LastChange, PortStatus, RuleStatus};

use self::bounce::Bouncer;
use crate::clock::Clock;
use crate::desired::{HostConfig, PortName};
use crate::directory::DirectoryWriter;
use crate::endpoint::Endpoint;
use crate::port::Interface;
use crate::port::open::Opener;
use crate::publish::Publisher;
use crate::worker::{Plane, Workers};

/// A running switch. Share it by `Arc`; every method may be called from any thread that may block.
pub struct Switch {
    config: SwitchConfig,
    /// Held for the whole of a change.
    desired: Mutex<Desired>,
    publisher: Publisher<Plane>,
    directory: DirectoryWriter,
    /// Held while an entry goes to disk and then to the workers, so that both have the same last word.
    directory_changes: Mutex<()>,
    state: State,
    opener: Arc<dyn Opener>,
    bouncer: Bouncer,
    workers: Workers,
    /// Where guests' connections to the metadata service end, if there is one.
    endpoint: Option<Endpoint>,
    clock: Clock,
}

struct Desired {
    document: Arc<HostConfig>,
    /// The ports' open devices; a port whose interface could not be had is missing.
    taps: HashMap<PortName, Arc<dyn Interface>>,
    last_changes: HashMap<PortName, change::Record>,
    /// Ports in whose queues frames of an earlier binding may wait: a worker has not confirmed the last one.
    between: HashSet<PortName>,
}

impl Switch {
    /// What it was started with.
    #[must_use]
    pub fn config(&self) -> &SwitchConfig {
        &self.config
    }

    /// How many threads count for a port: the workers, and the endpoint.
    fn counting(&self) -> usize {
        self.workers.count() + usize::from(self.endpoint.is_some())
    }

    /// Has every thread of the packet path look at its snapshot soon.
    fn wake(&self) {
        self.workers.wake();
        if let Some(endpoint) = &self.endpoint {
            endpoint.wake();
        }
    }

    /// The document in force.
    #[must_use]
    pub fn document(&self) -> Arc<HostConfig> {
        lock(&self.desired).document.clone()
    }

    /// Ends the workers and lifts every link that is held down. Interfaces stay, so that guests keep their addresses
    /// until the switch comes back.
    pub fn stop(&self) {
        self.workers.stop();
        if let Some(endpoint) = &self.endpoint {
            endpoint.stop();
        }
    }
}

/// What a panicking thread leaves under one of these locks is whole: each is changed by single assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
