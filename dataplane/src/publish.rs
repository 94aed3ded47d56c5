//! Publication of one immutable snapshot to all workers, and the epoch that tells when a change is settled.
//!
//! A [`Publisher`] replaces the snapshot; each worker owns one [`Reader`], made with the publisher. A worker's loop:
//!
//! ```
//! # use std::sync::Arc;
//! # let (publisher, mut readers) = dataplane::publish::Publisher::new(Arc::new(1), 1);
//! # let mut reader = readers.pop().expect("one reader");
//! # publisher.publish(Arc::new(2));
//! # for _ in 0..2 {
//! if reader.refresh() {
//!     let (_old, _new) = (reader.previous(), reader.current());
//!     // … drain, flush: whatever would still act by the old snapshot …
//!     reader.pass();
//! }
//! // … a batch of packets, by `reader.current()` …
//! if let Some(_parked) = reader.park() {
//!     // … sleep in epoll; being woken ends with the newest snapshot in hand …
//! }
//! # }
//! ```
//!
//! # The promises
//! 1. A reader that knows of version *v* holds the snapshot *v* or a newer one.
//! 2. Once [`Publisher::settled`]`(v)` was true, no reader acts by a snapshot older than *v*, ever, and all that it did
//!    before happened before that `true`.
//! 3. A reader never waits: not for a publisher, not for another reader. It neither locks nor retries.
//! 4. A worker never frees a snapshot: the publisher's side keeps each until it is the last to hold it.
//!
//! # Who writes, who reads, in which order
//! * `version` is written by publishers (one at a time, under `latest`'s lock) after all mailboxes were filled (release),
//!   and read by readers once per batch (acquire): who sees *v* finds *v* or newer in its mailbox, if it does not
//!   hold it already.
//! * A *mailbox* per reader is filled by publishers and emptied by its reader, each in one swap. A snapshot that the
//!   reader did not take comes back to the next publisher.
//! * A *seat* per reader is written by its reader only: the version that it has passed, or [`PARKED`]. A release, so
//!   that whoever reads it (acquire, in `settled`) has all of the reader's deeds behind it.
//! * Sleeping is Dekker's pattern. A reader writes its seat and then reads `version`; a publisher writes `version` and
//!   then reads the seats; both with a sequentially consistent fence between, so at least one sees the other. Before
//!   sleep: a reader that missed the new version is seen as parked. On waking: a reader that was seen as
//!   parked finds the new version. This needs fences; acquire and release alone let both miss each other.
//! * `latest` and `retired` are locks of the publishers' side; no reader touches them.
//!
//! The loom models in `publish/loom_models.rs` run this code (see `sync.rs` for what is replaced). They do not show:
//! more than two readers, more than three versions, the reference counts (and with them promise 4), or that a worker
//! calls [`Reader::pass`] only after its flushing; that last part is the worker's.
//!
//! Never here: clocks, sleeping, what a snapshot contains.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, Mailbox, Mutex, Ordering, fence, lock};

/// A seat's value while its reader sleeps or is gone. No version reaches it.
const PARKED: u64 = u64::MAX;

/// The number of a snapshot: 1 for the first, then one more with each [`Publisher::publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    const FIRST: Self = Self(1);

    /// The plain number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What travels: a snapshot and its number, which must not part.
struct Stamped<T> {
    version: Version,
    value: Arc<T>,
}

/// One reader's place: where it finds the next snapshot, and how far it is.
struct Seat<T> {
    passed: AtomicU64,
    mailbox: Mailbox<Stamped<T>>,
}

struct Shared<T> {
    version: CachePadded<AtomicU64>,
    seats: Box<[CachePadded<Seat<T>>]>,
    latest: Mutex<Arc<Stamped<T>>>,
    /// Replaced snapshots that somebody may still hold.
    retired: Mutex<Vec<Arc<Stamped<T>>>>,
    /// The newest version known to be settled. Settling is for ever, but a waking reader's seat is behind for a moment.
    settled: AtomicU64,
}

/// The writing end. Any thread may use it; changes are serialized.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Send + Sync> Publisher<T> {
    /// Begins with `initial` as [version](Version) 1 and makes one reader for each worker.
    ///
    /// A reader counts as awake from the start, so settlement waits for workers that have not yet begun. Drop what no
    /// worker takes.
    #[must_use]
    pub fn new(initial: Arc<T>, readers: usize) -> (Self, Vec<Reader<T>>) {
        let initial = Arc::new(Stamped { version: Version::FIRST, value: initial });
        let seat = |_| {
            CachePadded::new(Seat { passed: AtomicU64::new(Version::FIRST.0), mailbox: Mailbox::empty() })
        };
        let shared = Arc::new(Shared {
            version: CachePadded::new(AtomicU64::new(Version::FIRST.0)),
            seats: (0..readers).map(seat).collect(),
            latest: Mutex::new(initial.clone()),
            retired: Mutex::new(Vec::new()),
            settled: AtomicU64::new(Version::FIRST.0),
        });
        let readers = (0..readers)
            .map(|index| Reader { shared: shared.clone(), index, held: initial.clone(), previous: None })
            .collect();
        (Self { shared }, readers)
    }

    /// Makes `value` the snapshot that every reader takes at its next batch boundary, and returns its number.
    ///
    /// A parked reader takes it when it wakes; whoever needs it to act sooner wakes the worker. Frees replaced snapshots
    /// that nobody holds any more.
    pub fn publish(&self, value: Arc<T>) -> Version {
        let mut latest = lock(&self.shared.latest);
        let version = Version(latest.version.0.saturating_add(1));
        let stamped = Arc::new(Stamped { version, value });
        for seat in &self.shared.seats {
            drop(seat.mailbox.swap(Some(stamped.clone())));
        }
        let replaced = std::mem::replace(&mut *latest, stamped);
        // After the mailboxes: who sees this number must find the snapshot.
        self.shared.version.store(version.0, Ordering::Release);
        lock(&self.shared.retired).push(replaced);
        drop(latest);
        self.collect();
        version
    }

    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        lock(&self.shared.latest).value.clone()
    }

    /// The newest snapshot's number.
    #[must_use]
    pub fn version(&self) -> Version {
        lock(&self.shared.latest).version
    }

    /// True when every reader has passed `version` or is parked: none acts by an older snapshot any more, and the
    /// effects of all that they did by older ones are visible to the caller. Stays true.
    ///
    /// False for a version that was not published yet.
    #[must_use]
    pub fn settled(&self, version: Version) -> bool {
        if self.shared.settled.load(Ordering::Acquire) >= version.0 {
            return true;
        }
        if self.shared.version.load(Ordering::Acquire) < version.0 {
            return false;
        }
        let settled = self.lagging(version).next().is_none();
        if settled {
            // Release: a caller that takes the short way above must also have the readers' deeds behind it.
            self.shared.settled.fetch_max(version.0, Ordering::AcqRel);
            self.collect();
        }
        settled
    }

    /// The readers (by their index in [`Publisher::new`]'s list) that are awake and have not passed `version`.
    pub fn lagging(&self, version: Version) -> impl Iterator<Item = usize> + '_ {
        // Pairs with the fences in `park` and `wake`.
        fence(Ordering::SeqCst);
        let passed = self.shared.seats.iter().map(|seat| seat.passed.load(Ordering::Acquire));
        passed.enumerate().filter(move |(_, passed)| *passed < version.0).map(|(index, _)| index)
    }

    /// Asks [`Publisher::settled`] until it is true (returns true) or `pause` has enough (returns false).
    ///
    /// `pause` is called between two questions with the number of those asked: it spins, yields or sleeps as it sees
    /// fit, and answers whether to go on. It brings the clock; there is none here.
    #[must_use]
    pub fn wait_settled(&self, version: Version, mut pause: impl FnMut(u32) -> bool) -> bool {
        let mut asked = 0_u32;
        while !self.settled(version) {
            asked = asked.saturating_add(1);
            if !pause(asked) {
                return self.settled(version);
            }
        }
        true
    }

    /// Frees replaced snapshots that no reader holds, on the calling thread, and returns how many are still held.
    ///
    /// [`Publisher::publish`] and [`Publisher::settled`] do this by themselves. A parked reader keeps one.
    pub fn collect(&self) -> usize {
        let mut retired = lock(&self.shared.retired);
        // Nobody can take a new reference to a retired snapshot, so one that only this list holds stays that way.
        let (free, held) = retired.drain(..).partition(|stamped| Arc::strong_count(stamped) == 1);
        *retired = held;
        let still_held = retired.len();
        drop(retired);
        drop::<Vec<_>>(free);
        still_held
    }
}

/// The reading end: one per worker, `Send`, not `Clone`. Dropping it counts as parked for ever.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    index: usize,
    held: Arc<Stamped<T>>,
    /// The snapshot that was last passed, while a newer one is held and not passed.
    previous: Option<Arc<Stamped<T>>>,
}

impl<T> Reader<T> {
    /// To be called at a batch boundary: takes the newest snapshot if there is a newer one, and answers whether the one
    /// now held still has to be [passed](Reader::pass). Costs one load when nothing changed.
    #[must_use = "a new snapshot must be passed, or its change never settles"]
    pub fn refresh(&mut self) -> bool {
        if self.shared.version.load(Ordering::Acquire) != self.held.version.0 {
            self.take();
        }
        self.previous.is_some()
    }

    /// The snapshot to act by.
    #[must_use]
    pub fn current(&self) -> &Arc<T> {
        &self.held.value
    }

    /// The number of [`Reader::current`].
    #[must_use]
    pub fn version(&self) -> Version {
        self.held.version
    }

    /// The snapshot that was acted by until [`Reader::refresh`] said true, for working out what changed; `None` after
    /// [`Reader::pass`]. Snapshots between the two may have been skipped.
    #[must_use]
    pub fn previous(&self) -> Option<&Arc<T>> {
        self.previous.as_ref().map(|stamped| &stamped.value)
    }

    /// Declares that all effects of earlier snapshots are flushed, and that from now on only
    /// [`Reader::current`] is acted by.
    pub fn pass(&mut self) {
        // Before the store below: a publisher that sees it can then free the old one.
        self.previous = None;
        self.set_passed(self.held.version.0);
    }

    /// Declares this reader offline until the guard is dropped, so that no change waits for it; all effects of what it
    /// did must be flushed. While the guard lives the snapshot cannot be looked at; when it is dropped the newest one
    /// is taken, and [`Reader::refresh`] says whether it has to be passed.
    ///
    /// `None`, and nothing is declared, when there is a newer snapshot or one to be passed: go round the loop instead of
    /// sleeping. Costs a full fence, so only call it when about to sleep.
    pub fn park(&mut self) -> Option<Parked<'_, T>> {
        if self.previous.is_some() {
            return None;
        }
        self.set_passed(PARKED);
        // Either this reader sees the new version below, or the publisher sees it parked.
        fence(Ordering::SeqCst);
        let parked = Parked { reader: self };
        // If not to sleep, the guard's drop takes the new snapshot.
        (parked.reader.shared.version.load(Ordering::Acquire) == parked.reader.held.version.0)
            .then_some(parked)
    }

    fn wake(&mut self) {
        self.set_passed(self.held.version.0);
        // A publisher that still saw this reader parked counts on it seeing the new version below.
        fence(Ordering::SeqCst);
        let _ = self.refresh();
    }

    fn take(&mut self) {
        if let Some(newer) = self.seat().and_then(|seat| seat.mailbox.swap(None)) {
            let old = std::mem::replace(&mut self.held, newer);
            // Of several changes between two passes, only the last passed snapshot was ever acted by.
            self.previous.get_or_insert(old);
        }
    }

    fn set_passed(&self, value: u64) {
        if let Some(seat) = self.seat() {
            seat.passed.store(value, Ordering::Release);
        }
    }

    fn seat(&self) -> Option<&Seat<T>> {
        self.shared.seats.get(self.index).map(|seat| &**seat)
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.set_passed(PARKED);
    }
}

/// A reader that is asleep: see [`Reader::park`].
pub struct Parked<'a, T> {
    reader: &'a mut Reader<T>,
}

impl<T> Drop for Parked<'_, T> {
    fn drop(&mut self) {
        self.reader.wake();
    }
}

#[cfg(test)]
#[cfg(dataplane_loom)]
mod loom_models;
#[cfg(test)]
#[cfg(not(dataplane_loom))]
mod tests;
