//! The directory's changes: durable first, then visible to workers.

use super::{Mapping, Switch, SwitchError, lock};
use crate::directory::{Entry, Location};
use crate::types::{CustomerIp, Vni};

impl Switch {
    /// Adds or overwrites entries: durably all or none. When this returns every worker's next packet acts by them.
    ///
    /// # Errors
    /// An entry that cannot be, found before anything changes, or a disk that refuses.
    pub fn directory_set(&self, mappings: &[Mapping]) -> Result<(), SwitchError> {
        let _serialized = lock(&self.directory_changes);
        let mut before = Vec::with_capacity(mappings.len());
        let set = self.directory.replace(mappings.iter().map(entry), |previous| before.push(previous));
        let set = set.map_err(SwitchError::from);
        // Workers may act by an entry a moment before it is durable; nobody was told yet, so a crash in between is as if
        // the call had not been.
        let durable = set.and_then(|_| Ok(self.state.set_mappings(mappings)?));
        if durable.is_err() {
            self.restore(mappings, &before);
        }
        durable
    }

    /// Puts back what was there before a change that failed, as far as it got; later mappings first, in case one address is
    /// there twice.
    fn restore(&self, mappings: &[Mapping], before: &[Option<Location>]) {
        for (mapping, before) in mappings.iter().zip(before).rev() {
            let (network, ip) = (mapping.network, mapping.ip);
            match *before {
                // It was accepted before, so it is accepted again.
                Some(location) => drop(self.directory.set(network, ip, location)),
                None => drop(self.directory.remove(network, ip)),
            }
        }
    }

    /// Removes one entry; false when it was not there. When this returns no worker acts by it any more.
    ///
    /// # Errors
    /// A disk that refuses; a worker that does not confirm, though the entry is gone.
    pub fn directory_remove(&self, network: Vni, ip: CustomerIp) -> Result<bool, SwitchError> {
        let _serialized = lock(&self.directory_changes);
        let removed = self.state.remove_mappings(&[(network, ip)])?;
        self.directory.remove(network, ip);
        // A worker may have looked it up for the batch in hand: wait until all are past that batch. The same snapshot is
        // published again, so no change may come between.
        let unchanged = lock(&self.desired);
        let version = self.publisher.publish(self.publisher.current());
        self.workers.wake();
        if !self.settle(version) {
            return Err(SwitchError::NotSettled(unchanged.document.generation));
        }
        Ok(removed > 0)
    }

    /// Looks up one entry as a worker would.
    #[must_use]
    pub fn directory_lookup(&self, network: Vni, ip: CustomerIp) -> Option<Mapping> {
        let Location { physical_ip, mac, .. } = self.directory.get(network, ip)?;
        Some(Mapping { network, ip, mac, physical_ip })
    }

    /// Up to `limit` entries in the order of (network, address), beginning behind `after`.
    ///
    /// # Errors
    /// A disk that refuses.
    pub fn directory_list(
        &self,
        network: Option<Vni>,
        after: Option<(Vni, CustomerIp)>,
        limit: usize,
    ) -> Result<Vec<Mapping>, SwitchError> {
        Ok(self.state.mappings(network, after, limit)?)
    }
}

/// The version is not on disk and always 0: nobody sets another through the switch, and nothing acts by it.
fn location(mapping: &Mapping) -> Location {
    Location { physical_ip: mapping.physical_ip, mac: mapping.mac, version: 0 }
}

pub(super) fn entry(mapping: &Mapping) -> Entry {
    Entry { vni: mapping.network, ip: mapping.ip, location: location(mapping) }
}
