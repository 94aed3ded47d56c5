//! The writer's books: which slots are used, which hosts are known, when a segment is built anew.
//!
//! One writer at a time, under [`super::DirectoryWriter`]'s lock; readers see only the table. Order matters in two
//! places: a host becomes known before the first entry that names it, and is forgotten after the last.
//!
//! Never here: what readers do.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::segment::{Found, Segment};
use super::slot::{PER_BUCKET, Short};
use super::table::{HOSTS, Hasher, Key, Table};
use super::{DirectoryError, Entry, Hash, Location};
use crate::publish::Publisher;
use crate::types::{MacAddr, PhysicalIp};

const MIN_BUCKETS: usize = if cfg!(dataplane_loom) { 1 } else { 16 };
/// Buckets in 2 MiB: segments of more than one huge page consist of whole ones.
const HUGE_BUCKETS: usize = (2 << 20) / 64;
/// A segment of so many buckets, or more, is built as two: 6 MiB, some 275,000 entries when it is full.
pub(super) const SPLIT_BUCKETS: usize = 3 * HUGE_BUCKETS;
/// More bits of a hash than this never choose a segment: a table of 4096 holds a billion entries.
const MAX_DEPTH: u32 = 12;
/// Host indices are 16 bits.
const MAX_HOSTS: usize = 1 << 16;
/// Outdated IPv6 entries that are not worth a new segment.
const LONG_SLACK: u32 = if cfg!(test) { 64 } else { 4096 };

/// A host's slot needs none.
const NO_MAC: MacAddr = MacAddr([0; 6]);

/// A segment's page.
#[derive(Clone, Copy, Default)]
struct Page {
    /// How many of a hash's first bits all its keys share.
    depth: u32,
    /// Entries and hosts.
    live: usize,
    /// Slots that a search does not end at: entries, hosts, tombstones.
    used: usize,
    /// IPv6 entries and hosts.
    longs: u32,
    /// The shelf's first free index.
    next_long: u32,
}

pub(super) struct Books {
    /// What readers have, or are given next.
    table: Arc<Table>,
    hasher: Hasher,
    /// A segment's page is where it stands first in the table; the others' are not kept.
    pages: Vec<Page>,
    /// Index of each host that has one.
    hosts: HashMap<PhysicalIp, u16, SeedableRandomState>,
    /// How many entries name the host of each index. At zero it is no longer known, but its index stays its own until all are given anew.
    named: Vec<u64>,
    /// Entries, hosts not counted.
    entries: usize,
    known_hosts: usize,
    /// So many entries are about to be added.
    announced: usize,
    split_buckets: usize,
    /// Tables were published and may not all be free.
    retired: bool,
}

impl Books {
    pub(super) fn new(hasher: Hasher, split_buckets: usize) -> Self {
        let state = SeedableRandomState::with_seed(hasher.seed(), SharedSeed::global_fixed());
        Self {
            table: Arc::new(Table::new(MIN_BUCKETS)),
            hasher,
            pages: vec![Page::default()],
            hosts: HashMap::with_hasher(state),
            named: Vec::new(),
            entries: 0,
            known_hosts: 0,
            announced: 0,
            split_buckets,
            retired: false,
        }
    }

    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// How many slots there are.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.segments().map(Segment::slots).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    pub(super) fn known_hosts(&self) -> usize {
        self.known_hosts
    }

    /// Each segment once.
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        let first = |(place, _): &(usize, &Segment)| self.first_place(*place) == *place;
        self.table.segments().iter().enumerate().filter(first).map(|(_, segment)| segment)
    }

    /// All entries, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Key, Location)> {
        let entries = self.segments().flat_map(Segment::entries).filter(|(key, _)| key.vni != HOSTS);
        entries.filter_map(|(key, value)| Some((key, self.table.location(value)?)))
    }

    pub(super) fn get(&self, key: Key) -> Option<Location> {
        self.table.location(self.table.find(self.hasher.hash(key), key)?.value)
    }

    /// [`Books::set`] for each of a few entries, whose cache lines are asked for first; each one's previous location is told.
    /// For the `announced` ones that follow there is room in what must be built anew.
    pub(super) fn set_all(
        &mut self,
        entries: &[Entry],
        announced: usize,
        mut previous: impl FnMut(Option<Location>),
        publisher: &Publisher<Table>,
    ) -> Result<(), DirectoryError> {
        for entry in entries {
            self.table.prefetch(self.hasher.hash(entry.key()));
        }
        self.announced = announced;
        let done = entries.iter().try_for_each(|entry| {
            entry.check()?;
            previous(self.set(entry.key(), entry.location, publisher)?);
            Ok(())
        });
        self.announced = 0;
        done
    }

    pub(super) fn set(
        &mut self,
        key: Key,
        location: Location,
        publisher: &Publisher<Table>,
    ) -> Result<Option<Location>, DirectoryError> {
        let hash = self.hasher.hash(key);
        let mut found = self.table.find(hash, key);
        let previous = found.and_then(|found| self.table.location(found.value));
        let stays = previous.is_some_and(|previous| previous.physical_ip == location.physical_ip);
        let host = match found {
            Some(found) if stays => found.value.host,
            _ => {
                let table = Arc::as_ptr(&self.table);
                let host = self.enlist(location.physical_ip, publisher)?;
                // The segment may have been built anew for the host, or the hosts have new indices.
                if table != Arc::as_ptr(&self.table) {
                    found = self.table.find(hash, key);
                }
                host
            }
        };
        let value = Short { mac: location.mac, host, version: location.version };
        if (found.is_none() || key.ip.is_ipv6()) && self.make_room(hash, publisher) {
            found = self.table.find(hash, key);
        }
        match found {
            Some(found) => {
                self.update(hash, key, found, value);
                if !stays {
                    self.release(found.value.host, publisher);
                }
            }
            None => {
                self.insert(hash, key, value);
                self.entries += 1;
            }
        }
        Ok(previous)
    }

    pub(super) fn remove(&mut self, key: Key, publisher: &Publisher<Table>) -> Option<Location> {
        let found = self.table.find(self.hasher.hash(key), key)?;
        let previous = self.table.location(found.value);
        self.erase(key, publisher);
        self.entries -= 1;
        self.release(found.value.host, publisher);
        previous
    }

    /// Frees tables that no reader has any more.
    pub(super) fn collect(&mut self, publisher: &Publisher<Table>) {
        if self.retired {
            self.retired = publisher.collect() > 0;
        }
    }

    /// Where a segment that stands at `place` stands first.
    fn first_place(&self, place: usize) -> usize {
        // Pages in other places than the first are as old as the segment's last split: their depth is right.
        let depth = self.pages.get(place).map_or(0, |page| page.depth);
        let times = self.table.depth().saturating_sub(depth);
        place >> times << times
    }

    /// The segment of a hash, its place, and its page.
    fn page(&mut self, hash: Hash) -> Option<(&Segment, usize, &mut Page)> {
        let place = self.first_place(self.table.place(hash));
        Some((self.table.segments().get(place)?, place, self.pages.get_mut(place)?))
    }

    /// Sees to it that an entry can be put into a hash's segment; true when it was built anew.
    fn make_room(&mut self, hash: Hash, publisher: &Publisher<Table>) -> bool {
        let Some((segment, place, page)) = self.page(hash) else { return false };
        // Above 70 % searches get long.
        let crowded = (page.used + 1).saturating_mul(10) > segment.slots().saturating_mul(7);
        let littered = page.next_long > page.longs.saturating_mul(2).saturating_add(LONG_SLACK);
        if crowded || littered {
            self.renew(place, publisher);
        }
        crowded || littered
    }

    /// Builds one segment anew, as two if it is large, and publishes the table. Readers go on with the old one, which
    /// nobody changes any more, until their next batch.
    fn renew(&mut self, place: usize, publisher: &Publisher<Table>) {
        let (Some(old), Some(page)) =
            (self.table.segments().get(place).cloned(), self.pages.get(place).copied())
        else {
            return;
        };
        let expected = page.live + (self.announced >> page.depth);
        let splits = (old.slots() / PER_BUCKET).max(expected * 2 / PER_BUCKET) >= self.split_buckets
            && expected * 2 >= old.slots()
            && page.depth < MAX_DEPTH;
        let mut table = Table::clone(&self.table);
        let mut halves = vec![Page { depth: page.depth + u32::from(splits), ..Page::default() }];
        if splits {
            halves.push(halves[0]);
            if page.depth == table.depth() {
                table.deepen();
                self.pages = self.pages.iter().flat_map(|page| [*page, *page]).collect();
            }
        }
        let times = table.depth() - page.depth;
        let first = if table.depth() == self.table.depth() { place } else { place * 2 };
        let half = |hash: Hash| usize::from(splits && hash.0 << page.depth >> 63 == 1);
        for (key, _) in old.entries().filter(|_| splits) {
            halves[half(self.hasher.hash(key))].live += 1;
        }
        if !splits {
            halves[0].live = page.live;
        }
        let size = |half: &Page| buckets_for(half.live + (self.announced >> half.depth));
        let segments: Vec<_> = halves.iter().map(|half| Segment::new(size(half))).collect();
        for (key, value) in old.entries() {
            let hash = self.hasher.hash(key);
            let half = half(hash);
            let Page { used, longs, next_long, .. } = &mut halves[half];
            *used += usize::from(segments[half].insert(hash, key, value, next_long));
            *longs += u32::from(key.ip.is_ipv6());
        }
        let places = (1_usize << times) / halves.len();
        for ((segment, page), number) in segments.iter().zip(&halves).zip(0..) {
            let at = first + number * places;
            table.put(at, places, segment);
            for kept in self.pages.iter_mut().skip(at).take(places) {
                *kept = *page;
            }
        }
        self.publish(table, publisher);
    }

    fn publish(&mut self, table: Table, publisher: &Publisher<Table>) {
        self.table = Arc::new(table);
        publisher.publish(self.table.clone());
        self.retired = true;
    }

    /// One more entry names `ip`; its index.
    fn enlist(&mut self, ip: PhysicalIp, publisher: &Publisher<Table>) -> Result<u16, DirectoryError> {
        let index = match self.hosts.get(&ip) {
            Some(index) => *index,
            None => {
                if self.hosts.len() >= MAX_HOSTS {
                    if self.known_hosts >= MAX_HOSTS {
                        return Err(DirectoryError::TooManyHosts { host: ip, max: MAX_HOSTS });
                    }
                    self.renumber(publisher);
                }
                self.give_index(ip)
            }
        };
        let named = self.named.get_mut(usize::from(index));
        let first = named.is_some_and(|named| {
            *named += 1;
            *named == 1
        });
        if first {
            self.known_hosts += 1;
            let key = Key { vni: HOSTS, ip: ip.0 };
            let hash = self.hasher.hash(key);
            self.make_room(hash, publisher);
            self.insert(hash, key, Short { mac: NO_MAC, host: index, version: 0 });
        }
        Ok(index)
    }

    /// One entry less names the host of `index`.
    fn release(&mut self, index: u16, publisher: &Publisher<Table>) {
        let Some(named) = self.named.get_mut(usize::from(index)) else { return };
        *named = named.saturating_sub(1);
        if *named == 0
            && let Some(ip) = self.table.host(index)
        {
            self.known_hosts -= 1;
            self.erase(Key { vni: HOSTS, ip: ip.0 }, publisher);
        }
    }

    fn give_index(&mut self, ip: PhysicalIp) -> u16 {
        let index = u16::try_from(self.hosts.len()).unwrap_or(u16::MAX);
        self.table.put_host(index, ip);
        self.hosts.insert(ip, index);
        self.named.push(0);
        index
    }

    /// Gives the hosts that are known new indices, from 0 on. They stand in every entry, so everything is built anew: the one change
    /// that waits for all.
    fn renumber(&mut self, publisher: &Publisher<Table>) {
        let mut table = self.table.without_hosts();
        let mut new_index = vec![None; self.named.len()];
        let mut named = Vec::new();
        self.hosts.retain(|ip, index| {
            let entries = self.named.get(usize::from(*index)).copied().unwrap_or(0);
            if entries == 0 {
                return false;
            }
            let index = std::mem::replace(index, u16::try_from(named.len()).unwrap_or(u16::MAX));
            let new = u16::try_from(named.len()).unwrap_or(u16::MAX);
            table.put_host(new, *ip);
            named.push(entries);
            if let Some(slot) = new_index.get_mut(usize::from(index)) {
                *slot = Some(new);
            }
            true
        });
        let mut place = 0;
        while let (Some(old), Some(page)) = (self.table.segments().get(place), self.pages.get_mut(place)) {
            let fresh = Segment::new(buckets_for(page.live));
            let mut next = Page { depth: page.depth, live: page.live, ..Page::default() };
            for (key, value) in old.entries() {
                // Every entry's host is known, by the counts.
                let host = new_index.get(usize::from(value.host)).copied().flatten().unwrap_or(value.host);
                let value = Short { host, ..value };
                next.used +=
                    usize::from(fresh.insert(self.hasher.hash(key), key, value, &mut next.next_long));
                next.longs += u32::from(key.ip.is_ipv6());
            }
            let places = 1 << (self.table.depth() - page.depth);
            *page = next;
            table.put(place, places, &fresh);
            place += places;
        }
        self.named = named;
        self.publish(table, publisher);
    }

    fn insert(&mut self, hash: Hash, key: Key, value: Short) {
        if let Some((segment, _, page)) = self.page(hash) {
            let fresh = segment.insert(hash, key, value, &mut page.next_long);
            page.live += 1;
            page.used += usize::from(fresh);
            page.longs += u32::from(key.ip.is_ipv6());
        }
    }

    fn update(&mut self, hash: Hash, key: Key, found: Found, value: Short) {
        if let Some((segment, _, page)) = self.page(hash) {
            segment.update(hash, key, found, value, &mut page.next_long);
        }
    }

    fn erase(&mut self, key: Key, publisher: &Publisher<Table>) {
        let hash = self.hasher.hash(key);
        let Some(found) = self.table.find(hash, key) else { return };
        let Some((segment, place, page)) = self.page(hash) else { return };
        let emptied = segment.remove(found);
        page.live -= 1;
        page.used -= usize::from(emptied);
        page.longs -= u32::from(key.ip.is_ipv6());
        // Nine tenths of it are for nothing: the memory goes back.
        if segment.slots() > MIN_BUCKETS * PER_BUCKET && page.live < segment.slots() / 10 {
            self.renew(place, publisher);
        }
    }
}

/// How many buckets `live` entries get, and a few more: they fill 45 % of it, or a little more of whole huge pages.
fn buckets_for(live: usize) -> usize {
    let buckets = (live.saturating_add(3).saturating_mul(11) / 5).div_ceil(PER_BUCKET).max(MIN_BUCKETS);
    if buckets < 2 * HUGE_BUCKETS { buckets } else { buckets / HUGE_BUCKETS * HUGE_BUCKETS }
}
