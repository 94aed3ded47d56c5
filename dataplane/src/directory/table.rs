//! A hash table of slots that is read while one writer changes it.
//!
//! # Why a reader never misses a key that is there
//! A key's search begins in its home bucket and goes on, bucket by bucket, until one with an empty slot.
//! * *An entry never moves.* An update overwrites its slot; a larger table is a new table.
//! * *A bucket without an empty slot never has one again.* Removal leaves a tombstone there; only in a bucket that still
//!   has an empty slot (so no search ever went past it, and no entry was ever put beyond it) it leaves an empty slot.
//! * So the search of a key that is present all the time passes the same full buckets as its insertion did, and reaches
//!   the slot, whatever else happens meanwhile.
//!
//! *Reusing a tombstone for another key* is harmless: a slot is read in one piece and names its key, so nobody takes
//! the new entry for the old one. A search for the new key may have passed the place before it was filled, but then the
//! key was absent at a moment within the search, and "absent" is a true answer. If the key was removed further on and
//! set again here during one search, that moment is the one between the two.
//!
//! Who writes: the holder of the writer's lock. Who reads: anybody. A slot's store releases and its load acquires, so that
//! the shelf entries (host, IPv6 key) to which a slot points are there. Loom shows this for one reader beside one change, in
//! tables of one and three buckets. Never here: locks, growth policy, reference counts.

use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv6Addr};

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use super::shelf::Shelf;
use super::slot::{self, Bucket, Content, Short, Slot, Tag};
use super::{Hash, Location};
use crate::types::PhysicalIp;

/// The VNI under which the table holds the physical hosts. No network has it.
pub(super) const HOSTS: u32 = 0;

/// What an entry is found by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub(super) vni: u32,
    pub(super) ip: IpAddr,
}

impl Key {
    #[inline]
    pub(super) fn tag(self, hash: Hash) -> Tag {
        match self.ip {
            IpAddr::V4(ip) => Tag::short(self.vni, ip),
            IpAddr::V6(_) => Tag::long(hash.0),
        }
    }
}

/// Keyed, because guests choose what is looked up.
#[derive(Clone)]
pub(super) struct Hasher {
    seed: u64,
    shared: SharedSeed,
    /// Leaves this many of a hash's bits, for tests with many collisions.
    #[cfg(test)]
    pub(super) bits: u64,
}

impl Hasher {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            shared: SharedSeed::from_u64(seed),
            #[cfg(test)]
            bits: u64::MAX,
        }
    }

    #[inline]
    pub(super) fn hash(&self, key: Key) -> Hash {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        match key.ip {
            IpAddr::V4(ip) => hasher.write_u64(u64::from(key.vni) << 32 | u64::from(ip.to_bits())),
            IpAddr::V6(ip) => {
                hasher.write_u32(key.vni);
                hasher.write_u128(ip.to_bits());
            }
        }
        let hash = hasher.finish();
        #[cfg(test)]
        let hash = hash & self.bits;
        Hash(hash)
    }
}

/// An IPv6 entry: too long for a slot. Never changed: an update puts a new one and turns the slot to it.
pub(super) struct Long {
    vni: u32,
    ip: Ipv6Addr,
    value: Short,
}

/// Where an entry is, and what it said when it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    bucket: usize,
    place: usize,
    pub(super) value: Short,
}

pub(super) struct Table {
    buckets: Box<[Bucket]>,
    hosts: Shelf<PhysicalIp>,
    longs: Shelf<Long>,
}

impl Table {
    pub(super) fn new(buckets: usize) -> Self {
        Self { buckets: slot::empty_buckets(buckets.max(1)), hosts: Shelf::new(), longs: Shelf::new() }
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.buckets.len() * slot::PER_BUCKET
    }

    /// Whether a search ends at the bucket.
    #[cfg(test)]
    #[cfg(dataplane_loom)]
    pub(super) fn ends_search(&self, bucket: usize) -> bool {
        Bucket::places().any(|place| self.buckets[bucket].load(place) == Slot::EMPTY)
    }

    #[inline]
    pub(super) fn prefetch(&self, hash: Hash) {
        if let Some(bucket) = self.buckets.get(self.home(hash)) {
            slot::prefetch(bucket);
        }
    }

    /// Searches for `key`, whose hash is `hash`.
    #[inline]
    pub(super) fn find(&self, hash: Hash, key: Key) -> Option<Found> {
        let tag = key.tag(hash);
        // By hand, not by `path`: a hit in the home bucket is the case that counts.
        let mut index = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = self.buckets.get(index)?;
            let mut ends_here = false;
            for place in Bucket::places() {
                let slot = bucket.load(place);
                if slot.has(tag)
                    && let Some(value) = self.value(slot, key)
                {
                    return Some(Found { bucket: index, place, value });
                }
                ends_here |= slot == Slot::EMPTY;
            }
            if ends_here {
                return None;
            }
            index = if index + 1 == self.buckets.len() { 0 } else { index + 1 };
        }
        None
    }

    /// The location that a value stands for.
    #[inline]
    pub(super) fn location(&self, value: Short) -> Option<Location> {
        let physical_ip = *self.hosts.get(u32::from(value.host))?;
        Some(Location { physical_ip, mac: value.mac, version: value.version })
    }

    /// Every entry, hosts included, in the order of their hashes (about).
    pub(super) fn entries(&self) -> impl Iterator<Item = (Key, Short)> + '_ {
        self.buckets.iter().flat_map(|bucket| Bucket::places().map(|place| bucket.load(place))).filter_map(
            |slot| match slot.content() {
                Content::Empty | Content::Tombstone => None,
                Content::Short { vni, ip, value } => Some((Key { vni, ip: ip.into() }, value)),
                Content::Long { index } => {
                    self.longs.get(index).map(|long| (Key { vni: long.vni, ip: long.ip.into() }, long.value))
                }
            },
        )
    }

    /// Gives a host its index. For the writer; an index is given once in a table's life.
    pub(super) fn put_host(&self, index: u16, host: PhysicalIp) {
        self.hosts.put(index.into(), host);
    }

    /// Overwrites an entry. For the writer; `next_long` is the shelf's first free index.
    pub(super) fn update(&self, hash: Hash, key: Key, at: Found, value: Short, next_long: &mut u32) {
        if let Some(bucket) = self.buckets.get(at.bucket) {
            bucket.store(at.place, self.slot(hash, key, value, next_long));
        }
    }

    /// Adds an entry that is not there. For the writer, who keeps some slots free. True when a slot was used that never
    /// was before.
    pub(super) fn insert(&self, hash: Hash, key: Key, value: Short, next_long: &mut u32) -> bool {
        let free = |slot: Slot| slot == Slot::EMPTY || slot == Slot::TOMBSTONE;
        // A free slot on the way is as good as the one at the end: see "reusing a tombstone" above.
        let vacancy = self.path(hash).find_map(|(_, bucket)| {
            let place = Bucket::places().find(|place| free(bucket.load(*place)))?;
            Some((bucket, place))
        });
        let Some((bucket, place)) = vacancy else { return false };
        let fresh = bucket.load(place) == Slot::EMPTY;
        bucket.store(place, self.slot(hash, key, value, next_long));
        fresh
    }

    /// Removes an entry. For the writer. True when the slot is as good as never used.
    pub(super) fn remove(&self, at: Found) -> bool {
        let Some(bucket) = self.buckets.get(at.bucket) else { return false };
        let ends_here = Bucket::places().any(|place| bucket.load(place) == Slot::EMPTY);
        bucket.store(at.place, if ends_here { Slot::EMPTY } else { Slot::TOMBSTONE });
        ends_here
    }

    /// Puts what does not fit into a slot on the shelf, and returns the slot.
    fn slot(&self, hash: Hash, key: Key, value: Short, next_long: &mut u32) -> Slot {
        let tag = key.tag(hash);
        match key.ip {
            IpAddr::V4(_) => Slot::short(tag, value),
            IpAddr::V6(ip) => {
                let index = *next_long;
                *next_long = index.saturating_add(1);
                self.longs.put(index, Long { vni: key.vni, ip, value });
                Slot::long(tag, index)
            }
        }
    }

    /// The value in a slot whose tag is the key's, unless the key is another.
    #[inline]
    fn value(&self, slot: Slot, key: Key) -> Option<Short> {
        match slot.content() {
            Content::Short { value, .. } => Some(value),
            Content::Long { index } => {
                let long = self.longs.get(index)?;
                (long.vni == key.vni && IpAddr::V6(long.ip) == key.ip).then_some(long.value)
            }
            Content::Empty | Content::Tombstone => None,
        }
    }

    /// All buckets, from the hash's home on, each once.
    #[inline]
    fn path(&self, hash: Hash) -> impl Iterator<Item = (usize, &Bucket)> {
        let home = self.home(hash);
        let (before, after) = self.buckets.split_at(home);
        (home..).zip(after).chain((0..).zip(before))
    }

    /// The hash's share of the buckets; always a valid index.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "less than the number of buckets, a usize")]
    fn home(&self, hash: Hash) -> usize {
        ((u128::from(hash.0) * self.buckets.len() as u128) >> 64) as usize
    }
}
