//! A segment of the table: a hash table of slots that is read while one writer changes it.
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
//! *Reading each slot twice* (all four at a glance, then the one with the tag in one piece) changes nothing of this: the second
//! reading decides. If it finds another key, the sought one was removed in between, and so was absent at a moment.
//!
//! Who writes: the holder of the writer's lock. Who reads: anybody. A slot's store releases and its load acquires, so that
//! the shelf entries (host, IPv6 key) to which a slot points are there. Loom shows this for one reader beside one change, in
//! tables of one and three buckets. Never here: locks, growth policy, reference counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Hash;
use super::shelf::Shelf;
use super::slot::{self, Bucket, Buckets, Content, Glance, PER_BUCKET, Short, Slot, Tag};
use super::table::Key;

/// An IPv6 entry: too long for a slot. Never changed: an update puts a new one and turns the slot to it.
struct Long {
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

/// A reader's look-up that was begun: the segment and the home bucket.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    segment: &'a Segment,
    bucket: &'a Bucket,
}

impl Start<'_> {
    #[inline]
    pub(super) fn prefetch(self) {
        slot::prefetch(self.bucket);
    }

    /// What the home bucket says about an IPv4 address, without a call. Not both `vni` and `ip` are zero.
    #[inline]
    pub(super) fn at_home(self, vni: u32, ip: Ipv4Addr) -> AtHome {
        if self.segment.buckets.loads_are_whole {
            let tag = Tag::short(vni, ip);
            let mut seen = self.bucket.glance_whole(tag);
            if let Some(place) = seen.next_hit() {
                let slot = self.bucket.load_whole(place);
                if slot.has(tag) {
                    return AtHome::Found(slot);
                }
            } else if seen.ends {
                return AtHome::Absent;
            }
        }
        AtHome::Elsewhere
    }
}

/// What a glance at a home bucket can say.
pub(super) enum AtHome {
    Found(Slot),
    Absent,
    /// Only a whole search can tell.
    Elsewhere,
}

/// Shared by its clones.
#[derive(Clone)]
pub(super) struct Segment {
    buckets: Buckets,
    longs: Arc<Shelf<Long>>,
}

impl Segment {
    pub(super) fn new(buckets: usize) -> Self {
        Self { buckets: Buckets::empty(buckets), longs: Arc::new(Shelf::new()) }
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.buckets.len() * PER_BUCKET
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

    /// Where the search for a hash begins.
    #[inline]
    pub(super) fn start(&self, hash: Hash) -> Option<Start<'_>> {
        Some(Start { segment: self, bucket: self.buckets.get(self.home(hash))? })
    }

    /// Searches for `key`, whose hash is `hash`. No key is all zeros.
    pub(super) fn find(&self, hash: Hash, key: Key) -> Option<Found> {
        let tag = key.tag(hash);
        // By hand, not by `path`: it is read for every packet too.
        let mut index = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = self.buckets.get(index)?;
            let mut seen = self.glance(bucket, tag);
            while let Some(place) = seen.next_hit() {
                let slot = self.load(bucket, place);
                if slot.has(tag)
                    && let Some(value) = self.value(slot, key)
                {
                    return Some(Found { bucket: index, place, value });
                }
            }
            if seen.ends {
                return None;
            }
            index = if index + 1 == self.buckets.len() { 0 } else { index + 1 };
        }
        None
    }

    #[inline]
    fn glance(&self, bucket: &Bucket, tag: Tag) -> Glance {
        if self.buckets.loads_are_whole {
            return bucket.glance_whole(tag);
        }
        bucket.glance(tag)
    }

    #[inline]
    fn load(&self, bucket: &Bucket, place: usize) -> Slot {
        if self.buckets.loads_are_whole {
            return bucket.load_whole(place);
        }
        bucket.load(place)
    }

    /// Every entry, hosts included, in the order of their homes (about).
    pub(super) fn entries(&self) -> impl Iterator<Item = (Key, Short)> + '_ {
        self.buckets
            .iter()
            .flat_map(|bucket| Bucket::places().map(|place| self.load(bucket, place)))
            .filter_map(|slot| match slot.content() {
                Content::Empty | Content::Tombstone => None,
                Content::Short { vni, ip, value } => Some((Key { vni, ip: ip.into() }, value)),
                Content::Long { index } => {
                    self.longs.get(index).map(|long| (Key { vni: long.vni, ip: long.ip.into() }, long.value))
                }
            })
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
            let place = Bucket::places().find(|place| free(self.load(bucket, *place)))?;
            Some((bucket, place))
        });
        let Some((bucket, place)) = vacancy else { return false };
        let fresh = self.load(bucket, place) == Slot::EMPTY;
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

    /// The value in a slot that has the key's tag, unless the key is another.
    #[inline]
    fn value(&self, slot: Slot, key: Key) -> Option<Short> {
        match key.ip {
            IpAddr::V4(_) => Some(slot.value()),
            IpAddr::V6(ip) => {
                let long = self.longs.get(slot.index())?;
                (long.vni == key.vni && long.ip == ip).then_some(long.value)
            }
        }
    }

    /// All buckets, from the hash's home on, each once.
    #[inline]
    fn path(&self, hash: Hash) -> impl Iterator<Item = (usize, &Bucket)> {
        let home = self.home(hash);
        let (before, after) = self.buckets.split_at(home);
        (home..).zip(after).chain((0..).zip(before))
    }

    /// The hash's share of the buckets; always a valid index. By its lower half first: the uppermost bits are the same in
    /// the whole segment.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "less than the number of buckets, a usize")]
    fn home(&self, hash: Hash) -> usize {
        ((u128::from(hash.0.rotate_left(32)) * self.buckets.len() as u128) >> 64) as usize
    }
}
