//! What journeys have to do with: the store, the time, limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::fail_point::{FailPoint, FailPoints};
use crate::store::Store;

/// How long journeys wait for hosts and guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a machine to boot and report that it is partially provisioned.
    pub boot: Duration,
    /// For a host to carry out a change.
    pub host: Duration,
    /// For other hosts to learn where an address is, before the change goes on without them.
    pub learn: Duration,
    /// For a guest to report that it has followed, before its link is bounced once more.
    pub guest: Duration,
    /// How long the use of a machine is watched after a hand-over.
    pub watch: Duration,
    /// How long a watched machine may be silent.
    pub silence: Duration,
    /// How often a machine that fails at a hand-over is replaced by another.
    pub replacements: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(300),
            host: Duration::from_secs(30),
            learn: Duration::from_secs(2),
            guest: Duration::from_secs(30),
            watch: Duration::from_secs(600),
            silence: Duration::from_secs(45),
            replacements: 2,
        }
    }
}

/// Store, time, limits; and where to stop, in tests.
#[derive(Clone)]
pub struct World {
    store: Arc<dyn Store>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    runner: Arc<str>,
    limits: Limits,
    fail_points: FailPoints,
}

impl World {
    /// A world of this store. `runner` names this controller among others.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, runner: &str, limits: Limits) -> Self {
        Self::with_clock(store, runner, limits, Arc::new(Timestamp::now))
    }

    /// A world whose time is told by `clock`.
    #[must_use]
    pub fn with_clock(
        store: Arc<dyn Store>,
        runner: &str,
        limits: Limits,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Self {
        Self { store, clock, runner: runner.into(), limits, fail_points: FailPoints::default() }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The store, to be kept.
    #[must_use]
    pub fn shared_store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// This controller's name.
    #[must_use]
    pub fn runner(&self) -> &str {
        &self.runner
    }

    /// How long journeys wait.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// From now on engines stop there, once.
    pub fn stop_at(&self, point: FailPoint) {
        self.fail_points.stop_at(point);
    }

    /// From now on this step cannot be done, once.
    pub fn refuse_at(&self, step: &str) {
        self.fail_points.refuse_at(step);
    }

    /// Engines look for fail points among the files of this directory too.
    #[must_use]
    pub fn with_fail_points_in(mut self, directory: PathBuf) -> Self {
        self.fail_points.look_in(directory);
        self
    }

    /// What tests have set.
    pub(super) fn fail_points(&self) -> &FailPoints {
        &self.fail_points
    }
}
