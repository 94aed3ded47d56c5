//! The directory where the machine has no lock-free 128-bit atomics: `papaya`'s concurrent map.
//!
//! Same promises for readers except one: papaya may allocate in a thread's first look-up. Several times
//! slower than the slots. Never here: anything that the slots' side does not do as well.

use super::Location;
use super::table::Key;
use crate::sync::{Mutex, lock};
use crate::types::PhysicalIp;

type Map<K, V> = papaya::HashMap<K, V, foldhash::quality::RandomState>;

pub(super) struct Library {
    entries: Map<(u32, std::net::IpAddr), Location>,
    /// How many entries name a host; never zero.
    hosts: Map<PhysicalIp, u64>,
    /// One writer at a time, or the counts would be wrong.
    writer: Mutex<()>,
}

impl Library {
    pub(super) fn new() -> Self {
        Self { entries: Map::default(), hosts: Map::default(), writer: Mutex::new(()) }
    }

    #[inline(never)]
    pub(super) fn get(&self, key: Key) -> Option<Location> {
        self.entries.pin().get(&(key.vni, key.ip)).copied()
    }

    #[inline(never)]
    pub(super) fn knows(&self, host: PhysicalIp) -> bool {
        self.hosts.pin().contains_key(&host)
    }

    pub(super) fn set(&self, key: Key, location: Location) -> Option<Location> {
        let _writer = lock(&self.writer);
        self.hosts.pin().update_or_insert(location.physical_ip, |entries| entries + 1, 1);
        let previous = self.entries.pin().insert((key.vni, key.ip), location).copied();
        self.release(previous);
        previous
    }

    pub(super) fn remove(&self, key: Key) -> Option<Location> {
        let _writer = lock(&self.writer);
        let previous = self.entries.pin().remove(&(key.vni, key.ip)).copied();
        self.release(previous);
        previous
    }

    fn release(&self, previous: Option<Location>) {
        if let Some(host) = previous.map(|location| location.physical_ip) {
            self.hosts.pin().compute(host, |known| match known {
                Some((_, entries)) if *entries > 1 => papaya::Operation::Insert(entries - 1),
                Some(_) => papaya::Operation::Remove,
                None => papaya::Operation::Abort(()),
            });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn known_hosts(&self) -> usize {
        self.hosts.len()
    }

    pub(super) fn entries(&self) -> Vec<(Key, Location)> {
        let _writer = lock(&self.writer);
        let entries = self.entries.pin();
        entries.iter().map(|((vni, ip), location)| (Key { vni: *vni, ip: *ip }, *location)).collect()
    }
}
