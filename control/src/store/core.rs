//! What both engines share: the rows in memory, the log of the last revisions, and the judgement of transactions.
//!
//! Never here: a disk, a thread, an answer to a caller. Whoever holds a [`Core`] sees one revision whole.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch::{Receiver, Sender, channel};

use super::{
    Change, CommitError, Entry, Key, Listing, MAX_LISTING, Prefix, Revision, Transaction, Watch, WatchItem,
    Write,
};

/// How many revisions, and how many bytes of them, are kept for watchers that are behind.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogLimits {
    pub(super) revisions: usize,
    pub(super) bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { revisions: 10_000, bytes: 64 << 20 }
    }
}

/// Revisions that a watcher looks at in one go, so that no reader keeps the writer waiting for long.
const LOOK: usize = 256;

/// What the store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Transactions that were acknowledged, those that changed nothing included.
    pub transactions: u64,
    /// Transactions that were refused because a compare did not hold.
    pub conflicts: u64,
    /// Durable writes of the disk: fewer than transactions, because those that wait are written together.
    pub commits: u64,
}

/// The rows and the log of one store, at one revision.
#[derive(Debug)]
pub(super) struct Core {
    rows: BTreeMap<Key, (Revision, Bytes)>,
    revision: Revision,
    log: VecDeque<Logged>,
    log_bytes: usize,
    limits: LogLimits,
}

/// One revision's changes.
#[derive(Debug, Clone)]
struct Logged {
    changes: Arc<[Change]>,
    bytes: usize,
}

/// What a watcher finds behind its place in the log.
enum Found {
    Changes {
        revision: Revision,
        changes: Vec<Change>,
    },
    /// None up to here; `whole` when that is the end of the log.
    Nothing {
        upto: Revision,
        whole: bool,
    },
    Compacted,
}

impl Core {
    pub(super) fn new(rows: BTreeMap<Key, (Revision, Bytes)>, revision: Revision, limits: LogLimits) -> Self {
        Self { rows, revision, log: VecDeque::new(), log_bytes: 0, limits }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        let (revision, value) = self.rows.get(key)?;
        Some(Entry { key: key.clone(), value: value.clone(), revision: *revision })
    }

    pub(super) fn list(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Listing {
        let limit = limit.min(MAX_LISTING);
        let mut below = self
            .rows
            .range((prefix.start(after), Bound::Unbounded))
            .take_while(|(key, _)| prefix.has(key))
            .map(|(key, (revision, value))| Entry {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
            });
        let entries = below.by_ref().take(limit).collect();
        Listing { entries, revision: self.revision, more: below.next().is_some() }
    }

    /// Makes what was staged the present.
    pub(super) fn apply(&mut self, staged: Staged) {
        for (key, row) in staged.rows {
            match row {
                Some(row) => drop(self.rows.insert(key, row)),
                None => drop(self.rows.remove(&key)),
            }
        }
        self.revision = staged.revision;
        for changes in staged.log {
            self.log_bytes += changes.bytes;
            self.log.push_back(changes);
        }
        while self.log.len() > self.limits.revisions || self.log_bytes > self.limits.bytes {
            let Some(oldest) = self.log.pop_front() else { break };
            self.log_bytes -= oldest.bytes;
        }
    }

    fn find(&self, prefix: &Prefix, after: Revision) -> Found {
        let logged = u64::try_from(self.log.len()).unwrap_or(u64::MAX);
        // Revisions are consecutive, so the log's last entry is the present and a place in it is a difference.
        let before_log = self.revision.0.saturating_sub(logged);
        let behind = after.0.checked_sub(before_log).and_then(|place| usize::try_from(place).ok());
        let Some(behind) = behind.filter(|behind| *behind <= self.log.len()) else { return Found::Compacted };
        let mut upto = after;
        for logged in self.log.range(behind..).take(LOOK) {
            upto = upto.next();
            let changes: Vec<Change> =
                logged.changes.iter().filter(|change| prefix.has(change.key())).cloned().collect();
            if !changes.is_empty() {
                return Found::Changes { revision: upto, changes };
            }
        }
        Found::Nothing { upto, whole: upto == self.revision }
    }
}

/// Transactions that were found good, one after the other, and are not yet in force.
#[derive(Debug)]
pub(super) struct Staged {
    /// The last state of each touched key.
    rows: BTreeMap<Key, Option<(Revision, Bytes)>>,
    log: Vec<Logged>,
    revision: Revision,
}

impl Staged {
    pub(super) fn new(core: &Core) -> Self {
        Self { rows: BTreeMap::new(), log: Vec::new(), revision: core.revision }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// What the disk has to be told: the last state of each touched key, `None` for those that are gone.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Key, Option<(Revision, &Bytes)>)> {
        self.rows.iter().map(|(key, row)| (key, row.as_ref().map(|(revision, value)| (*revision, value))))
    }

    fn revision_of(&self, core: &Core, key: &Key) -> Revision {
        let row = match self.rows.get(key) {
            Some(staged) => staged.as_ref(),
            None => core.rows.get(key),
        };
        row.map_or(Revision::ABSENT, |(revision, _)| *revision)
    }

    /// Judges one more transaction by the state that those before it will have left, and stages it if it is good.
    pub(super) fn judge(&mut self, core: &Core, transaction: &Transaction) -> Result<Revision, CommitError> {
        for (key, required) in transaction.compares() {
            let revision = self.revision_of(core, key);
            if revision != *required {
                return Err(CommitError::Conflict { key: key.clone(), revision });
            }
        }
        let next = self.revision.next();
        let mut changes = Vec::with_capacity(transaction.writes().len());
        for write in transaction.writes() {
            match write {
                Write::Put(key, value) => {
                    self.rows.insert(key.clone(), Some((next, value.clone())));
                    changes.push(Change::Put(Entry {
                        key: key.clone(),
                        value: value.clone(),
                        revision: next,
                    }));
                }
                Write::Delete(key) if self.revision_of(core, key) != Revision::ABSENT => {
                    self.rows.insert(key.clone(), None);
                    changes.push(Change::Delete { key: key.clone() });
                }
                Write::Delete(_) => {}
            }
        }
        if !changes.is_empty() {
            self.revision = next;
            let bytes = changes.iter().map(Change::bytes).sum();
            self.log.push(Logged { changes: changes.into(), bytes });
        }
        Ok(self.revision)
    }
}

/// The core where readers, watchers and the one writer meet.
///
/// Readers take the lock for a look; the writer takes it to make what is already durable the present, never while it
/// waits for the disk.
#[derive(Debug)]
pub(super) struct Shared {
    core: RwLock<Core>,
    head: Receiver<Revision>,
    pub(super) counters: Counters,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) transactions: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) commits: AtomicU64,
}

impl Shared {
    /// The core, and what its writer tells watchers by. When the latter is dropped, watches end.
    pub(super) fn new(core: Core) -> (Arc<Self>, Sender<Revision>) {
        let (sender, head) = channel(core.revision);
        (Arc::new(Self { core: RwLock::new(core), head, counters: Counters::default() }), sender)
    }

    // A panic while the lock is held would be in `apply`, which has no way to panic but for want of memory.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Core> {
        self.core.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Core> {
        self.core.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn statistics(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            transactions: read(&self.counters.transactions),
            conflicts: read(&self.counters.conflicts),
            commits: read(&self.counters.commits),
        }
    }

    pub(super) fn count(&self, outcome: &Result<Revision, CommitError>) {
        let counter = match outcome {
            Ok(_) => &self.counters.transactions,
            Err(CommitError::Conflict { .. }) => &self.counters.conflicts,
            Err(_) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A watch that reads the log as it goes.
    pub(super) fn watch(self: &Arc<Self>, prefix: Prefix, after: Revision) -> Watch {
        let start = Some((self.clone(), self.head.clone(), after));
        Watch::new(stream::unfold(start, move |place| {
            let prefix = prefix.clone();
            async move {
                let (shared, mut head, mut after) = place?;
                loop {
                    // Marked as seen before the log is read: what comes later wakes us.
                    head.borrow_and_update();
                    let (found, present) = {
                        let core = shared.read();
                        (core.find(&prefix, after), core.revision)
                    };
                    match found {
                        Found::Changes { revision, changes } => {
                            let item = WatchItem::Changes { revision, changes };
                            return Some((item, Some((shared, head, revision))));
                        }
                        Found::Compacted => {
                            return Some((WatchItem::Compacted { resnapshot_from: present }, None));
                        }
                        Found::Nothing { upto, whole: false } => after = upto,
                        Found::Nothing { upto, whole: true } => {
                            after = upto;
                            head.changed().await.ok()?;
                        }
                    }
                }
            }
        }))
    }
}
