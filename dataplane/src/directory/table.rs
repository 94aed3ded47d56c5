//! The whole table: segments, each for the hashes that begin with certain bits, and the hosts.
//!
//! This is extendible hashing. A segment that is crowded, or cluttered with what was removed, is built anew; a large one is built as
//! two, by one more bit of the hash, so however many entries there are, a change never waits for the building of
//! more than one segment (some 275,000 entries). The table itself is a short list of shared segments, so the new one that readers
//! are given costs little. Only when all host indices are used up every segment is built anew.
//!
//! Never here: what is in a segment, when one is built.

use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use super::hosts::Hosts;
use super::segment::{AtHome, Found, Segment, Start};
use super::slot::{Short, Tag};
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

    /// What it was made from.
    pub(super) fn seed(&self) -> u64 {
        self.seed
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

/// Cloning shares everything.
#[derive(Clone)]
pub(super) struct Table {
    /// 2^depth of them, the hash's first bits being the index. A segment that has fewer bits of its own stands there several times.
    segments: Box<[Segment]>,
    depth: u32,
    hosts: Arc<Hosts>,
}

impl Table {
    pub(super) fn new(buckets: usize) -> Self {
        Self { segments: [Segment::new(buckets)].into(), depth: 0, hosts: Arc::new(Hosts::new()) }
    }

    /// The same, with no host; for building anew.
    pub(super) fn without_hosts(&self) -> Self {
        Self { hosts: Arc::new(Hosts::new()), ..self.clone() }
    }

    /// How many of a hash's first bits choose the segment.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Each segment, as often as it stands there.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Puts `segment` in `count` places from `first` on.
    pub(super) fn put(&mut self, first: usize, count: usize, segment: &Segment) {
        for place in self.segments.iter_mut().skip(first).take(count) {
            place.clone_from(segment);
        }
    }

    /// Has one more bit choose: every segment stands there twice as often.
    pub(super) fn deepen(&mut self) {
        self.depth += 1;
        self.segments = self.segments.iter().flat_map(|segment| [segment.clone(), segment.clone()]).collect();
    }

    /// Where the hash's segment stands.
    #[inline]
    pub(super) fn place(&self, hash: Hash) -> usize {
        // In two steps: with a depth of zero one would shift by 64.
        (hash.0 >> 1 >> (63 - self.depth)) as usize
    }

    #[inline]
    pub(super) fn segment(&self, hash: Hash) -> Option<&Segment> {
        self.segments.get(self.place(hash))
    }

    #[inline]
    pub(super) fn prefetch(&self, hash: Hash) {
        if let Some(segment) = self.segment(hash) {
            segment.prefetch(hash);
        }
    }

    /// Where the search for a hash begins, for [`Table::look_up_at`]; its cache line is asked for.
    #[inline]
    pub(super) fn start(&self, hash: Hash) -> Option<Start<'_>> {
        let start = self.segment(hash)?.start(hash)?;
        start.prefetch();
        Some(start)
    }

    /// [`Table::look_up`], from where its search begins.
    #[inline]
    pub(super) fn look_up_at(&self, start: Start<'_>, hash: Hash, vni: u32, ip: IpAddr) -> Option<Location> {
        // The case that counts, an IPv4 entry in its home bucket, stays in registers.
        if let IpAddr::V4(ip) = ip {
            match start.at_home(vni, ip) {
                AtHome::Found(slot) => return self.location(slot.value()),
                AtHome::Absent => return None,
                AtHome::Elsewhere => {}
            }
        }
        let (is_v6, bits) = match ip {
            IpAddr::V4(ip) => (false, ip.to_bits().into()),
            IpAddr::V6(ip) => (true, ip.to_bits()),
        };
        self.search(hash, vni, is_v6, bits)
    }

    // Its arguments fit into registers.
    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address")]
    fn search(&self, hash: Hash, vni: u32, is_v6: bool, bits: u128) -> Option<Location> {
        let ip =
            if is_v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() };
        self.location(self.find(hash, Key { vni, ip })?.value)
    }

    /// Where an address is, by its hash. For readers. Not both `vni` and `ip` are zero.
    #[inline]
    pub(super) fn look_up(&self, hash: Hash, vni: u32, ip: IpAddr) -> Option<Location> {
        self.look_up_at(self.segment(hash)?.start(hash)?, hash, vni, ip)
    }

    /// Searches for `key`, whose hash is `hash`. No key is all zeros.
    pub(super) fn find(&self, hash: Hash, key: Key) -> Option<Found> {
        self.segment(hash)?.find(hash, key)
    }

    /// The location that a value stands for.
    #[inline]
    pub(super) fn location(&self, value: Short) -> Option<Location> {
        let physical_ip = self.host(value.host)?;
        Some(Location { physical_ip, mac: value.mac, version: value.version })
    }

    /// The host of an index.
    #[inline]
    pub(super) fn host(&self, index: u16) -> Option<PhysicalIp> {
        self.hosts.get(index)
    }

    /// Gives a host its index. For the writer; an index is given once in the life of the list of hosts.
    pub(super) fn put_host(&self, index: u16, host: PhysicalIp) {
        self.hosts.put(index, host);
    }
}
