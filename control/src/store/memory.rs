//! The engine without a disk, for tests: what it holds is gone with it.
//!
//! A commit is done on the caller's thread, so that tests with a stopped clock work. Never here: anything that the
//! engine with a disk does otherwise; both share the core.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch::Sender;

use super::core::{Core, LogLimits, Shared, Staged, Statistics};
use super::{CommitError, Entry, Key, Listing, Prefix, ReadError, Revision, Store, Transaction, Watch};

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    /// Held by the one transaction that is judged and applied.
    writer: Mutex<Sender<Revision>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_log(LogLimits::default())
    }

    pub(super) fn with_log(limits: LogLimits) -> Self {
        let core = Core::new(std::collections::BTreeMap::new(), Revision::ABSENT, limits);
        let (shared, head) = Shared::new(core);
        Self { shared, writer: Mutex::new(head) }
    }

    /// What it has done.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        Ok(self.shared.read().get(key))
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Listing, ReadError> {
        Ok(self.shared.read().list(prefix, after, limit))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let head = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, staged) = {
            let core = self.shared.read();
            let mut staged = Staged::new(&core);
            (staged.judge(&core, &transaction), staged)
        };
        self.shared.count(&outcome);
        if !staged.is_empty() {
            let revision = staged.revision();
            self.shared.write().apply(staged);
            self.shared.counters.commits.fetch_add(1, Ordering::Relaxed);
            head.send_replace(revision);
        }
        outcome
    }

    fn watch(&self, prefix: &Prefix, after: Revision) -> Watch {
        self.shared.watch(prefix.clone(), after)
    }

    async fn revision(&self) -> Result<Revision, ReadError> {
        Ok(self.shared.read().revision())
    }
}
