//! The map (vnet, customer IP) → (physical IP, MAC), read for every packet and never waited for.
//!
//! Each worker owns a [`DirectoryReader`]; everybody else shares one [`DirectoryWriter`]. A look-up takes no lock, never
//! retries, never allocates and writes nothing; an entry changes in one 128-bit store, so a reader sees the old
//! or the new one and nothing between. In batches: [`begin`](DirectoryReader::begin) all, then [`end`](DirectoryReader::end)
//! all; or, where a hash has to wait, [`hash`](DirectoryReader::hash) all, [`prefetch`](DirectoryReader::prefetch) all, then
//! [`look up`](DirectoryReader::lookup) all.
//!
//! * `slot`: the 128 bits of an entry, the cache line, the memory they stand in, and the only unsafe code.
//! * `hosts`, `shelf`: what does not fit into a slot: hosts, and IPv6 entries.
//! * `segment`: the buckets, and why no reader misses what is there.
//! * `table`: segments by the first bits of a hash.
//! * `write`: the writer's books: hosts in use, room, building larger or cleaner segments.
//! * `library`: another engine, for machines without 128-bit atomics.
//!
//! **When a change acts.** An update or removal acts on the next look-up of every reader that holds the newest table. A
//! table with a segment that was built anew (growth, clean-up) reaches a reader at its next [`refresh`](DirectoryReader::refresh), and
//! with it every later change. So a worker refreshes the directory *after* the configuration snapshot, once per batch: then an
//! entry added before that snapshot was published is there. Whoever removes an entry and needs to know that nobody acts by it any
//! more waits for one batch boundary of every worker (publish the configuration again, wait until it settled).
//!
//! **How long a change waits.** For the building of one segment at most, some 275,000 entries, however many there are; but
//! when the 65,536 host indices are used up (hosts come and go, and indices with them), for all segments. An import
//! holds the lock for 64 entries at a time. `benches/directory_import.rs` prints the longest wait.
//!
//! **Memory.** 16 bytes a slot, 4 slots a cache line, filled to between 45 and 70 %: 23 to 35 bytes an IPv4 entry. An
//! IPv6 entry takes 36 to 72 more (half of the shelf may be outdated entries, and its last chunk unused). A host takes one entry, 24 bytes
//! in the list and about 40 in the writer's books. A segment that is nine tenths empty is built anew, and the old one goes back to the
//! system with the last reader that has it; a parked worker keeps it until it wakes. `benches/directory_memory.rs` measures it.
//!
//! Never here: I/O, clocks, where the seed comes from, what an entry means to a packet.

mod hosts;
#[cfg(feature = "io")]
mod library;
mod segment;
mod shelf;
#[allow(unsafe_code)]
mod slot;
mod table;
mod write;

#[cfg(test)]
#[cfg(dataplane_loom)]
mod loom_models;
// They compare the two engines.
#[cfg(test)]
#[cfg(all(feature = "io", not(dataplane_loom)))]
mod tests;

#[cfg(feature = "io")]
use std::sync::Arc;

use arrayvec::ArrayVec;

#[cfg(feature = "io")]
use self::library::Library;
use self::segment::Start;
pub(crate) use self::slot::prefetch;
use self::table::{HOSTS, Hasher, Key, Table};
use self::write::{Books, SPLIT_BUCKETS};
use crate::publish::{Publisher, Reader};
use crate::sync::{Mutex, lock};
use crate::types::{CustomerIp, MacAddr, PhysicalIp, Vni};

/// Where a customer IP is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The host that its packets are sent to.
    pub physical_ip: PhysicalIp,
    /// Its NIC's address: unicast.
    pub mac: MacAddr,
    /// Whatever the setter wants to tell entries apart by (a revision modulo 256, say). The switch does not act by it.
    pub version: u8,
}

/// One mapping, as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The network in which `ip` means something.
    pub vni: Vni,
    /// The address that guests of that network use.
    pub ip: CustomerIp,
    /// Where it is.
    pub location: Location,
}

impl Entry {
    fn key(&self) -> Key {
        key(self.vni, self.ip)
    }

    /// Refuses what cannot be a location.
    fn check(&self) -> Result<(), DirectoryError> {
        let Self { vni, ip, location: Location { physical_ip: host, mac, .. } } = *self;
        mac.require_unicast().map_err(|_| DirectoryError::MacNotUnicast { vni, ip, mac })?;
        if host.0.is_unspecified() {
            return Err(DirectoryError::HostUnspecified { vni, ip, host });
        }
        Ok(())
    }
}

/// Why an entry cannot be set. The directory is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// A group or null address can't be a station's.
    #[error(
        "cannot map {ip} in network {vni} to {mac}: not a unicast MAC address; expected an even first octet"
    )]
    MacNotUnicast {
        /// The network.
        vni: Vni,
        /// The customer IP.
        ip: CustomerIp,
        /// The refused address.
        mac: MacAddr,
    },
    /// "Any address" is nobody's.
    #[error("cannot map {ip} in network {vni} to host {host}: expected the address of a host")]
    HostUnspecified {
        /// The network.
        vni: Vni,
        /// The customer IP.
        ip: CustomerIp,
        /// The refused address.
        host: PhysicalIp,
    },
    /// Each physical IP in use takes one of 2¹⁶ numbers.
    #[error(
        "cannot add host {host}: the directory already names {max} hosts; remove the entries of one first"
    )]
    TooManyHosts {
        /// The host that was not added.
        host: PhysicalIp,
        /// How many there can be.
        max: usize,
    },
}

impl DirectoryError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::MacNotUnicast { .. } => "give the MAC address of one NIC".into(),
            Self::HostUnspecified { .. } => "give the physical IP of one host".into(),
            Self::TooManyHosts { .. } => "remove the entries of a host that is no longer used".into(),
        }
    }
}

/// What holds the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Our table of 128-bit slots.
    Slots,
    /// A library's concurrent map: slower, and works everywhere.
    #[cfg(feature = "io")]
    Library,
}

impl Engine {
    /// The best that this machine can do. The library comes with the feature `io`; without it the slots of a machine
    /// that has no 128-bit atomics are correct, but take locks.
    #[must_use]
    pub fn of_this_machine() -> Self {
        #[cfg(feature = "io")]
        if !slot::is_lock_free() {
            return Self::Library;
        }
        Self::Slots
    }

    /// A sentence for the log.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Slots => "the directory uses lock-free 128-bit slots",
            #[cfg(feature = "io")]
            Self::Library => {
                "this processor has no lock-free 128-bit atomics (cmpxchg16b): the directory falls back to a library map, \
                 and look-ups are several times slower"
            }
        }
    }
}

/// A key's hash, good for any table of the directory that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(u64);

fn key(vni: Vni, ip: CustomerIp) -> Key {
    Key { vni: vni.value(), ip: ip.0 }
}

/// So many entries of [`DirectoryWriter::extend`] are set under one lock, their cache lines asked for together.
const TOGETHER: usize = 64;

/// A look-up that was begun: what [`DirectoryReader::begin`] has worked out. The reader cannot go over to another table
/// while there is one.
#[derive(Clone, Copy)]
pub struct Begun<'a> {
    hash: Hash,
    start: Option<Start<'a>>,
}

/// The writing side: shared by reference, changes one at a time. Its methods may lock and allocate; no reader notices.
pub struct DirectoryWriter {
    side: Side,
}

enum Side {
    Slots {
        publisher: Publisher<Table>,
        books: Mutex<Box<Books>>,
    },
    #[cfg(feature = "io")]
    Library(Arc<Library>),
}

impl DirectoryWriter {
    /// Makes an empty directory with `readers` readers, on the best engine that there is.
    ///
    /// `seed` must be random and secret, new for each process: guests choose which addresses are looked up.
    #[must_use]
    pub fn new(seed: u64, readers: usize) -> (Self, Vec<DirectoryReader>) {
        Self::on(Engine::of_this_machine(), seed, readers)
    }

    /// [`DirectoryWriter::new`] on a chosen engine: for tests and benchmarks. [`Engine::Slots`] on a machine that has none
    /// is correct, but takes locks.
    #[must_use]
    pub fn on(engine: Engine, seed: u64, readers: usize) -> (Self, Vec<DirectoryReader>) {
        Self::with(engine, &Hasher::new(seed), SPLIT_BUCKETS, readers)
    }

    fn with(
        engine: Engine,
        hasher: &Hasher,
        split_buckets: usize,
        readers: usize,
    ) -> (Self, Vec<DirectoryReader>) {
        let reader = |view| DirectoryReader { view, hasher: hasher.clone() };
        match engine {
            Engine::Slots => {
                let books = Books::new(hasher.clone(), split_buckets);
                let (publisher, views) = Publisher::new(books.table().clone(), readers);
                let side = Side::Slots { publisher, books: Mutex::new(Box::new(books)) };
                (Self { side }, views.into_iter().map(View::Slots).map(reader).collect())
            }
            #[cfg(feature = "io")]
            Engine::Library => {
                let library = Arc::new(Library::new());
                let views = (0..readers).map(|_| reader(View::Library(library.clone()))).collect();
                (Self { side: Side::Library(library) }, views)
            }
        }
    }

    /// What holds the entries.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.side {
            Side::Slots { .. } => Engine::Slots,
            #[cfg(feature = "io")]
            Side::Library(_) => Engine::Library,
        }
    }

    /// Adds or overwrites one entry, in one step for every reader, and returns what it replaced.
    ///
    /// # Errors
    /// [`DirectoryError`]; nothing has changed then.
    pub fn set(
        &self,
        vni: Vni,
        ip: CustomerIp,
        location: Location,
    ) -> Result<Option<Location>, DirectoryError> {
        let entry = Entry { vni, ip, location };
        entry.check()?;
        match &self.side {
            Side::Slots { publisher, books } => {
                let mut books = lock(books);
                let previous = books.set(entry.key(), location, publisher);
                books.collect(publisher);
                previous
            }
            #[cfg(feature = "io")]
            Side::Library(library) => Ok(library.set(key(vni, ip), location)),
        }
    }

    /// [`DirectoryWriter::set`] for each of `entries`, several at a time. Returns how many there were.
    ///
    /// # Errors
    /// [`DirectoryError`] of the first refused entry. Those before it stay.
    pub fn extend(&self, entries: impl IntoIterator<Item = Entry>) -> Result<usize, DirectoryError> {
        self.replace(entries, drop)
    }

    /// [`DirectoryWriter::extend`], where `previous` is told what each entry replaced, in order.
    ///
    /// # Errors
    /// [`DirectoryError`] of the first refused entry. Those before it stay, and were told.
    pub fn replace(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        mut previous: impl FnMut(Option<Location>),
    ) -> Result<usize, DirectoryError> {
        let mut entries = entries.into_iter();
        let mut count = 0;
        loop {
            let announced = entries.size_hint().0;
            let together: ArrayVec<Entry, TOGETHER> = entries.by_ref().take(TOGETHER).collect();
            if together.is_empty() {
                return Ok(count);
            }
            match &self.side {
                Side::Slots { publisher, books } => {
                    let mut books = lock(books);
                    let done = books.set_all(&together, announced, &mut previous, publisher);
                    books.collect(publisher);
                    done?;
                }
                #[cfg(feature = "io")]
                Side::Library(library) => {
                    for entry in &together {
                        entry.check()?;
                        previous(library.set(entry.key(), entry.location));
                    }
                }
            }
            count += together.len();
        }
    }

    /// Removes one entry and returns it.
    pub fn remove(&self, vni: Vni, ip: CustomerIp) -> Option<Location> {
        match &self.side {
            Side::Slots { publisher, books } => {
                let mut books = lock(books);
                let previous = books.remove(key(vni, ip), publisher);
                books.collect(publisher);
                previous
            }
            #[cfg(feature = "io")]
            Side::Library(library) => library.remove(key(vni, ip)),
        }
    }

    /// Looks up one entry; waits for other writers.
    #[must_use]
    pub fn get(&self, vni: Vni, ip: CustomerIp) -> Option<Location> {
        match &self.side {
            Side::Slots { books, .. } => lock(books).get(key(vni, ip)),
            #[cfg(feature = "io")]
            Side::Library(library) => library.get(key(vni, ip)),
        }
    }

    /// All entries at one moment, in no order. Writers wait meanwhile, readers do not.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |(key, location): (Key, Location)| {
            Vni::new(key.vni).ok().map(|vni| Entry { vni, ip: CustomerIp(key.ip), location })
        };
        match &self.side {
            Side::Slots { books, .. } => {
                let books = lock(books);
                let mut entries = Vec::with_capacity(books.len());
                entries.extend(books.entries().filter_map(entry));
                entries
            }
            #[cfg(feature = "io")]
            Side::Library(library) => library.entries().into_iter().filter_map(entry).collect(),
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.side {
            Side::Slots { books, .. } => lock(books).len(),
            #[cfg(feature = "io")]
            Side::Library(library) => library.len(),
        }
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many physical IPs the entries name.
    #[must_use]
    pub fn known_hosts(&self) -> usize {
        match &self.side {
            Side::Slots { books, .. } => lock(books).known_hosts(),
            #[cfg(feature = "io")]
            Side::Library(library) => library.known_hosts(),
        }
    }
}

/// The reading side: one per worker, `Send`. No method waits, retries or writes to shared memory, except that
/// [`refresh`](DirectoryReader::refresh) takes a new table out of this reader's mailbox when there is one.
pub struct DirectoryReader {
    view: View,
    hasher: Hasher,
}

enum View {
    Slots(Reader<Table>),
    #[cfg(feature = "io")]
    Library(Arc<Library>),
}

impl DirectoryReader {
    /// To be called at each batch boundary, after the configuration snapshot was refreshed, and after any sleep: goes over to
    /// a table that was built anew. One load when there is none.
    pub fn refresh(&mut self) {
        match &mut self.view {
            // Locations are copied out, so nothing of the old table outlives the batch.
            View::Slots(reader) => {
                if reader.refresh() {
                    reader.pass();
                }
            }
            #[cfg(feature = "io")]
            View::Library(_) => {}
        }
    }

    /// The hash to look (vni, ip) up with.
    #[inline]
    #[must_use]
    pub fn hash(&self, vni: Vni, ip: CustomerIp) -> Hash {
        self.hasher.hash(key(vni, ip))
    }

    /// Asks for the cache line that [`DirectoryReader::lookup`] will need. Waits for nothing.
    #[inline]
    pub fn prefetch(&self, hash: Hash) {
        match &self.view {
            View::Slots(reader) => reader.current().prefetch(hash),
            #[cfg(feature = "io")]
            View::Library(_) => {}
        }
    }

    /// Where (vni, ip) is. `hash` must be [`DirectoryReader::hash`] of the two, or nothing is found.
    #[inline]
    #[must_use]
    pub fn lookup(&self, hash: Hash, vni: Vni, ip: CustomerIp) -> Option<Location> {
        match &self.view {
            View::Slots(reader) => reader.current().look_up(hash, vni.value(), ip.0),
            #[cfg(feature = "io")]
            View::Library(library) => library.get(key(vni, ip)),
        }
    }

    /// Hashes (vni, ip) and asks for its cache line, to be [ended](DirectoryReader::end) when those of the batch were all
    /// begun. Cheaper than the three steps apart, which work out the place twice.
    #[inline]
    #[must_use]
    pub fn begin(&self, vni: Vni, ip: CustomerIp) -> Begun<'_> {
        let hash = self.hash(vni, ip);
        let start = match &self.view {
            View::Slots(reader) => reader.current().start(hash),
            #[cfg(feature = "io")]
            View::Library(_) => None,
        };
        Begun { hash, start }
    }

    /// Where (vni, ip) is. `begun` must be of the two, or nothing is found.
    #[inline]
    #[must_use]
    pub fn end(&self, begun: Begun<'_>, vni: Vni, ip: CustomerIp) -> Option<Location> {
        match &self.view {
            View::Slots(reader) => reader.current().look_up_at(begun.start?, begun.hash, vni.value(), ip.0),
            #[cfg(feature = "io")]
            View::Library(library) => library.get(key(vni, ip)),
        }
    }

    /// True while at least one entry names this host: tunnel packets from others are not accepted.
    #[inline]
    #[must_use]
    pub fn is_known_host(&self, host: PhysicalIp) -> bool {
        // The table holds no key of zeros.
        if host.0.is_unspecified() {
            return false;
        }
        let key = Key { vni: HOSTS, ip: host.0 };
        match &self.view {
            View::Slots(reader) => reader.current().look_up(self.hasher.hash(key), HOSTS, host.0).is_some(),
            #[cfg(feature = "io")]
            View::Library(library) => library.knows(host),
        }
    }
}
