//! Faults that the atomicity tests must catch: each breaks one rule that keeps a move atomic.
//!
//! Outside of tests [`Sabotage`] is empty and does nothing; the compiler removes it.

#[cfg(test)]
pub(crate) use broken::Hole;
#[cfg(test)]
pub(super) use broken::Sabotage;
#[cfg(not(test))]
pub(super) use sound::Sabotage;

#[cfg(not(test))]
mod sound {
    use std::sync::Arc;

    use crate::pipeline::Tunnel;
    use crate::worker::Plane;

    #[derive(Default)]
    pub(in crate::worker) struct Sabotage;

    impl Sabotage {
        pub(in crate::worker) const fn keeps_queue(&self) -> bool {
            false
        }
        pub(in crate::worker) const fn before_boundary(&mut self, _: &Arc<Plane>) {}
        pub(in crate::worker) const fn before_sleep(&mut self, _: &Arc<Plane>) {}
        pub(in crate::worker) const fn stale(&mut self, _: &Arc<Plane>) -> Option<Arc<Plane>> {
            None
        }
        pub(in crate::worker) const fn tunnel(&mut self, found: Tunnel, _: &[u8]) -> Tunnel {
            found
        }
    }
}

#[cfg(test)]
mod broken {
    use std::collections::HashMap;
    use std::sync::Arc;

    use crate::pipeline::Tunnel;
    use crate::worker::Plane;

    /// A rule to break.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Hole {
        /// Keeps the frames that wait in a moved port's queue: they enter the new network.
        KeepsQueue,
        /// Handles one more batch under the old snapshot after having passed the new one.
        PassesBeforeFlush,
        /// Wakes from sleep with the snapshot that it went to sleep with.
        WakesWithOld,
        /// Remembers where a destination was first found.
        KeepsLocation,
    }

    #[derive(Default)]
    pub(in crate::worker) struct Sabotage {
        hole: Option<Hole>,
        stale: Option<Arc<Plane>>,
        found: HashMap<Vec<u8>, Tunnel>,
    }

    impl Sabotage {
        pub(in crate::worker) fn of(hole: Option<Hole>) -> Self {
            Self { hole, ..Self::default() }
        }
        pub(in crate::worker) fn keeps_queue(&self) -> bool {
            self.hole == Some(Hole::KeepsQueue)
        }
        pub(in crate::worker) fn before_boundary(&mut self, current: &Arc<Plane>) {
            if self.hole == Some(Hole::PassesBeforeFlush) {
                self.stale = Some(current.clone());
            }
        }
        pub(in crate::worker) fn before_sleep(&mut self, current: &Arc<Plane>) {
            if self.hole == Some(Hole::WakesWithOld) {
                self.stale.get_or_insert_with(|| current.clone());
            }
        }
        pub(in crate::worker) fn stale(&mut self, current: &Arc<Plane>) -> Option<Arc<Plane>> {
            let stale = self.stale.take()?;
            if !Arc::ptr_eq(&stale, current) {
                // Long enough for the change to be acknowledged meanwhile, as it well may be without this.
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Some(stale)
        }
        pub(in crate::worker) fn tunnel(&mut self, found: Tunnel, datagram: &[u8]) -> Tunnel {
            if self.hole != Some(Hole::KeepsLocation) {
                return found;
            }
            let destination = 8 + 14 + 16..8 + 14 + 20;
            *self.found.entry(datagram[destination].to_vec()).or_insert(found)
        }
    }
}
