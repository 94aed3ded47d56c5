//! Which hosts are connected, and how far each has come. Others wait here for acknowledgements.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::types::Vni;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::HostId;

/// How far a connected host has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostStatus {
    /// The newest document that is on its disk.
    pub generation: Option<u64>,
    /// The newest version of each directory that its switch holds; none: it is subscribed and holds nothing yet.
    pub directories: BTreeMap<Vni, Option<u64>>,
}

/// All connected hosts.
#[derive(Debug, Default)]
pub struct Presence {
    hosts: Mutex<HashMap<HostId, Seat>>,
    next: AtomicU64,
    /// Moves with every change of any host.
    ticks: watch::Sender<u64>,
}

#[derive(Debug)]
struct Seat {
    number: u64,
    replaced: CancellationToken,
    status: HostStatus,
}

/// A session's place. Another session of the same host takes it over, and the first one is told.
#[derive(Debug)]
pub(super) struct Ticket {
    presence: Arc<Presence>,
    host: HostId,
    number: u64,
    pub(super) replaced: CancellationToken,
}

impl Presence {
    fn hosts(&self) -> MutexGuard<'_, HashMap<HostId, Seat>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        self.ticks.send_modify(|tick| *tick = tick.wrapping_add(1));
    }

    /// Changes whenever anything here does. It says that something changed, not what.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// How far a host has come; none when it is not connected.
    #[must_use]
    pub fn status(&self, host: HostId) -> Option<HostStatus> {
        self.hosts().get(&host).map(|seat| seat.status.clone())
    }

    /// All connected hosts.
    #[must_use]
    pub fn connected(&self) -> Vec<HostId> {
        self.hosts().keys().copied().collect()
    }

    /// Connected hosts that are subscribed to a network's directory and have not acknowledged `version` yet.
    #[must_use]
    pub fn behind(&self, network: Vni, version: u64) -> Vec<HostId> {
        let hosts = self.hosts();
        let is_behind = |seat: &Seat| {
            let held = seat.status.directories.get(&network);
            held.is_some_and(|held| held.is_none_or(|held| held < version))
        };
        hosts.iter().filter(|(_, seat)| is_behind(seat)).map(|(host, _)| *host).collect()
    }

    /// Waits until no connected subscriber of a network is behind `version`. A host that goes is not waited for: when it
    /// comes back, it gets what it missed before anything newer.
    pub async fn settled(&self, network: Vni, version: u64) {
        let mut changes = self.watch();
        while !self.behind(network, version).is_empty() {
            // The sender lives as long as we do.
            let _ = changes.changed().await;
        }
    }

    /// Waits until the host has acknowledged a document of at least this generation.
    pub async fn acknowledged(&self, host: HostId, generation: u64) {
        let mut changes = self.watch();
        let has =
            || self.status(host).and_then(|status| status.generation).is_some_and(|held| held >= generation);
        while !has() {
            let _ = changes.changed().await;
        }
    }

    /// Ends a host's session, if it has one: it was removed, or must start anew.
    pub fn dismiss(&self, host: HostId) {
        if let Some(seat) = self.hosts().get(&host) {
            seat.replaced.cancel();
        }
    }

    pub(super) fn seat(self: &Arc<Self>, host: HostId, status: HostStatus) -> Ticket {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let replaced = CancellationToken::new();
        let seat = Seat { number, replaced: replaced.clone(), status };
        if let Some(before) = self.hosts().insert(host, seat) {
            before.replaced.cancel();
        }
        self.tick();
        Ticket { presence: self.clone(), host, number, replaced }
    }
}

impl Ticket {
    pub(super) fn update(&self, change: impl FnOnce(&mut HostStatus)) {
        if let Some(seat) =
            self.presence.hosts().get_mut(&self.host).filter(|seat| seat.number == self.number)
        {
            change(&mut seat.status);
        }
        self.presence.tick();
    }

    /// True when this was the host's last session; false when another one has taken its place.
    pub(super) fn leave(&self) -> bool {
        let mut hosts = self.presence.hosts();
        let is_last = hosts.get(&self.host).is_some_and(|seat| seat.number == self.number);
        if is_last {
            hosts.remove(&self.host);
        }
        drop(hosts);
        self.presence.tick();
        is_last
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}
