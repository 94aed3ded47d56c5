//! From nothing to a running switch: state, sockets, directory, devices, workers, in this order.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex};

use super::bounce::Bouncer;
use super::directory::entry;
use super::{Desired, State, StateError, Switch, SwitchConfig};
use crate::clock::Clock;
use crate::desired::ConfigError;
use crate::directory::{DirectoryError, DirectoryWriter};
use crate::endpoint::{self, Endpoint};
use crate::port::open::{OpenError, Opener};
use crate::port::{Device, Interface, open_interface};
use crate::publish::Publisher;
use crate::tables::Tables;
use crate::underlay::udp::{self, Udp};
use crate::worker::{Parts, Plane, Workers};

/// Entries that wait in memory while the directory is loaded.
const LOADED_TOGETHER: usize = 4096;

/// Why a switch did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state on disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// The document on disk does not fit this switch's configuration any more.
    #[error("the saved configuration does not fit: {0}")]
    Config(#[from] ConfigError),
    /// A directory entry on disk.
    #[error("the saved directory cannot be loaded: {0}")]
    Directory(#[from] DirectoryError),
    /// The sockets between hosts.
    #[error(transparent)]
    Underlay(#[from] OpenError),
    /// Threads and descriptors.
    #[error("the workers cannot start")]
    Workers(#[source] io::Error),
}

impl StartError {
    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::State(error) => error.place(),
            Self::Config(error) => format!("saved state, {}", error.place()),
            Self::Directory(_) => "saved state, directory".into(),
            Self::Underlay(_) => "underlay.physical_ip".into(),
            Self::Workers(_) => "workers".into(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::State(error) => error.remedy(),
            Self::Config(error) => {
                format!("{}; or go back to the `[underlay]` that it was made for", error.remedy())
            }
            Self::Directory(error) => error.remedy(),
            Self::Underlay(error) => error.remedy(),
            Self::Workers(_) => {
                "raise the limits on threads and open files (`ulimit -u`, `ulimit -n`)".into()
            }
        }
    }
}

impl Switch {
    /// Starts with what the state on disk holds. When this returns, packets flow.
    ///
    /// A port whose interface cannot be opened (its namespace is gone, say) does not keep the others waiting: it is
    /// logged, shown as down, and tried again with every change.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: SwitchConfig, opener: Arc<dyn Opener>) -> Result<Arc<Self>, StartError> {
        let workers = usize::from(config.workers.count);
        // Guests choose what is looked up: the seeds are the process's own secrets.
        let secrets = RandomState::new();
        let (directory, directory_readers) = DirectoryWriter::new(secrets.hash_one("directory"), workers);
        let mut entries = Vec::with_capacity(LOADED_TOGETHER);
        let mut loaded = Ok(0);
        let (state, document) = State::open_showing(&config.state_dir, |mapping| {
            entries.push(entry(&mapping));
            if entries.len() == LOADED_TOGETHER {
                if loaded.is_ok() {
                    loaded = directory.extend(entries.iter().copied());
                }
                entries.clear();
            }
        })?;
        loaded?;
        directory.extend(entries)?;
        let underlay = udp::Config {
            local: config.underlay.physical_ips.clone(),
            port: config.underlay.encapsulation.udp_port(),
        };
        udp::probe(opener.as_ref(), &underlay)?;
        tracing::info!("{}", directory.engine().sentence());
        let underlay_config = Arc::new(config.underlay.clone());
        // One thread more that counts, and that reads the snapshot.
        let threads = workers + usize::from(config.metadata.is_some());
        let mut tables = Tables::empty(underlay_config, threads, secrets.hash_one("tables"));
        if config.metadata.is_some() {
            tables = tables.with_endpoint();
        }
        let tables = tables.succeed(&document, threads)?;

        let (taps, devices) = open_taps(opener.as_ref(), &tables);
        let bouncer = Bouncer::start().map_err(StartError::Workers)?;
        taps.keys().for_each(|name| bouncer.event(name));
        let (publisher, mut readers) = Publisher::new(Arc::new(Plane::new(tables, devices)), threads);
        let last = readers.split_off(workers).pop();
        let clock = Clock::start();
        let parts = readers
            .into_iter()
            .zip(directory_readers)
            .zip(0_u16..)
            .map(|((plane, directory), worker)| {
                let underlay = Box::new(Udp::open(opener.as_ref(), &underlay, worker)?);
                let cpu = config.workers.cpus.get(usize::from(worker)).copied();
                Ok(Parts::new(plane, directory, underlay, cpu))
            })
            .collect::<Result<Vec<_>, OpenError>>()?;
        opener.complete();
        let (endpoint, parts) = match (&config.metadata, last) {
            (Some(agent), Some(plane)) => {
                let own = endpoint::Parts { plane, cells: workers, agent: agent.clone(), clock };
                let (endpoint, lanes) = Endpoint::start(own, workers).map_err(StartError::Workers)?;
                let parts = parts.into_iter().zip(lanes).map(|(part, lane)| part.with_lane(lane));
                (Some(endpoint), parts.collect())
            }
            _ => (None, parts),
        };
        let workers = Workers::start(parts, config.workers.poll, clock).map_err(StartError::Workers)?;
        let desired = Desired {
            document: Arc::new(document),
            taps,
            last_changes: HashMap::new(),
            between: HashSet::new(),
        };
        Ok(Arc::new(Self {
            config,
            desired: Mutex::new(desired),
            publisher,
            directory,
            directory_changes: Mutex::new(()),
            state,
            opener,
            bouncer,
            workers,
            endpoint,
            clock,
        }))
    }
}

type Devices = Vec<Option<Arc<dyn Device>>>;

fn open_taps(
    opener: &dyn Opener,
    tables: &Tables,
) -> (HashMap<crate::desired::PortName, Arc<dyn Interface>>, Devices) {
    let mut taps = HashMap::new();
    let slots = tables.ports().map(|port| port.id.index() + 1).max().unwrap_or(0);
    let mut devices: Devices = vec![None; slots];
    for port in tables.ports() {
        let name = &port.config.name;
        let spec = super::change::tap_spec(tables, port);
        match open_interface(opener, &spec) {
            Ok(tap) => {
                let binding = super::change::binding(port);
                if opener.mark_of(&spec).is_some_and(|before| before != binding) {
                    // The last switch died on the way of a change: what waits was sent before it.
                    let frames: usize = (0..tap.queues()).map(|queue| tap.discard(queue)).sum();
                    tracing::info!(port = %name, frames, "threw away what the guest had sent before its last change");
                }
                opener.mark_tap(&spec, binding);
                if let Some(slot) = devices.get_mut(port.id.index()) {
                    *slot = Some(tap.clone());
                }
                taps.insert(name.clone(), tap);
            }
            Err(error) => tracing::error!(port = %name, "{error}; {}", error.remedy()),
        }
    }
    (taps, devices)
}
