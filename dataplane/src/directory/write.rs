//! The writer's books: which slots are used, which hosts are known, when the table is built anew.
//!
//! One writer at a time, under [`super::DirectoryWriter`]'s lock; readers see only the table. Order matters in two
//! places: a host becomes known before the first entry that names it, and is forgotten after the last.
//!
//! Never here: what readers do.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::slot::{PER_BUCKET, Short};
use super::table::{HOSTS, Hasher, Key, Table};
use super::{DirectoryError, Location};
use crate::publish::Publisher;
use crate::types::{MacAddr, PhysicalIp};

const MIN_BUCKETS: usize = if cfg!(dataplane_loom) { 1 } else { 16 };
/// Host indices are 16 bits.
const MAX_HOSTS: usize = 1 << 16;
/// Outdated IPv6 entries that are not worth a new table.
const LONG_SLACK: u32 = if cfg!(test) { 64 } else { 4096 };

/// A host's slot needs none.
const NO_MAC: MacAddr = MacAddr([0; 6]);

struct Host {
    index: u16,
    /// How many entries name it. At zero it is no longer known, but its index stays its own until the next table.
    entries: u64,
}

pub(super) struct Books {
    table: Arc<Table>,
    hasher: Hasher,
    hosts: BTreeMap<PhysicalIp, Host>,
    /// Entries in the table, hosts not counted.
    entries: usize,
    /// IPv6 entries among these, hosts included.
    longs: u32,
    known_hosts: usize,
    /// Slots that a search does not end at: entries, hosts, tombstones.
    used: usize,
    next_long: u32,
}

impl Books {
    pub(super) fn new(hasher: Hasher) -> Self {
        Self::with_room(hasher, 0)
    }

    /// A table for `slots` used slots and as many again, about: 23 to 40 bytes an entry.
    fn with_room(hasher: Hasher, slots: usize) -> Self {
        let buckets = (slots.saturating_mul(5) / 2).div_ceil(PER_BUCKET).max(MIN_BUCKETS);
        Self {
            table: Arc::new(Table::new(buckets)),
            hasher,
            hosts: BTreeMap::new(),
            entries: 0,
            longs: 0,
            known_hosts: 0,
            used: 0,
            next_long: 0,
        }
    }

    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    #[cfg(test)]
    #[cfg(not(dataplane_loom))]
    pub(super) fn slots(&self) -> usize {
        self.table.slots()
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    pub(super) fn known_hosts(&self) -> usize {
        self.known_hosts
    }

    pub(super) fn get(&self, key: Key) -> Option<Location> {
        self.table.location(self.table.find(self.hasher.hash(key), key)?.value)
    }

    pub(super) fn set(
        &mut self,
        key: Key,
        location: Location,
        publisher: &Publisher<Table>,
    ) -> Result<Option<Location>, DirectoryError> {
        self.make_room(1, location.physical_ip, publisher)?;
        let hash = self.hasher.hash(key);
        let host = self.enlist(location.physical_ip);
        let value = Short { mac: location.mac, host, version: location.version };
        if let Some(found) = self.table.find(hash, key) {
            let previous = self.table.location(found.value);
            self.table.update(hash, key, found, value, &mut self.next_long);
            if let Some(previous) = previous {
                self.release(previous.physical_ip);
            }
            Ok(previous)
        } else {
            self.insert(key, value);
            self.entries += 1;
            Ok(None)
        }
    }

    pub(super) fn remove(&mut self, key: Key, publisher: &Publisher<Table>) -> Option<Location> {
        let found = self.table.find(self.hasher.hash(key), key)?;
        let previous = self.table.location(found.value);
        self.erase(key);
        self.entries -= 1;
        if let Some(previous) = previous {
            self.release(previous.physical_ip);
        }
        if self.table.slots() > MIN_BUCKETS * PER_BUCKET && self.live() < self.table.slots() / 10 {
            self.rebuild(0, publisher);
        }
        previous
    }

    /// Sees to it that `more` entries can be added, one of them naming `host`, by building a new table if need be.
    pub(super) fn make_room(
        &mut self,
        more: usize,
        host: PhysicalIp,
        publisher: &Publisher<Table>,
    ) -> Result<(), DirectoryError> {
        let hosts_full = self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&host);
        if hosts_full && self.known_hosts >= MAX_HOSTS {
            return Err(DirectoryError::TooManyHosts { host, max: MAX_HOSTS });
        }
        // An entry and its host. Above 70 % searches get long.
        let crowded =
            (self.used.saturating_add(more) + 1).saturating_mul(10) > self.table.slots().saturating_mul(7);
        let littered = self.next_long > self.longs.saturating_mul(2).saturating_add(LONG_SLACK);
        if crowded || hosts_full || littered {
            self.rebuild(more.saturating_add(1), publisher);
        }
        Ok(())
    }

    fn live(&self) -> usize {
        self.entries + self.known_hosts
    }

    /// Builds a table of what is alive, with room for `more`, and publishes it. Readers go on with the old one, which nobody
    /// changes any more, until their next batch.
    fn rebuild(&mut self, more: usize, publisher: &Publisher<Table>) {
        let mut fresh = Self::with_room(self.hasher.clone(), self.live().saturating_add(more));
        let mut new_index = vec![None; MAX_HOSTS.min(self.hosts.len())];
        for (ip, host) in self.hosts.iter().filter(|(_, host)| host.entries > 0) {
            let index = fresh.enlist(*ip);
            if let Some(host_in_fresh) = fresh.hosts.get_mut(ip) {
                host_in_fresh.entries = host.entries;
            }
            if let Some(slot) = new_index.get_mut(usize::from(host.index)) {
                *slot = Some(index);
            }
        }
        for (key, value) in self.table.entries().filter(|(key, _)| key.vni != HOSTS) {
            // Every entry's host is known, by the counts.
            if let Some(host) = new_index.get(usize::from(value.host)).copied().flatten() {
                fresh.insert(key, Short { host, ..value });
                fresh.entries += 1;
            }
        }
        publisher.publish(fresh.table.clone());
        *self = fresh;
    }

    /// One more entry names `ip`; its index.
    fn enlist(&mut self, ip: PhysicalIp) -> u16 {
        let next = u16::try_from(self.hosts.len()).unwrap_or(u16::MAX);
        let table = &self.table;
        let host = self.hosts.entry(ip).or_insert_with(|| {
            table.put_host(next, ip);
            Host { index: next, entries: 0 }
        });
        host.entries += 1;
        let (index, first) = (host.index, host.entries == 1);
        if first {
            self.known_hosts += 1;
            self.insert(Key { vni: HOSTS, ip: ip.0 }, Short { mac: NO_MAC, host: index, version: 0 });
        }
        index
    }

    /// One entry less names `ip`.
    fn release(&mut self, ip: PhysicalIp) {
        let Some(host) = self.hosts.get_mut(&ip) else { return };
        host.entries = host.entries.saturating_sub(1);
        if host.entries == 0 {
            self.known_hosts -= 1;
            self.erase(Key { vni: HOSTS, ip: ip.0 });
        }
    }

    fn insert(&mut self, key: Key, value: Short) {
        let fresh = self.table.insert(self.hasher.hash(key), key, value, &mut self.next_long);
        self.used += usize::from(fresh);
        self.longs += u32::from(key.ip.is_ipv6());
    }

    fn erase(&mut self, key: Key) {
        if let Some(found) = self.table.find(self.hasher.hash(key), key) {
            let emptied = self.table.remove(found);
            self.used -= usize::from(emptied);
            self.longs -= u32::from(key.ip.is_ipv6());
        }
    }
}
