//! Where the cluster's rows are kept: keys and values with one revision counter, compare-and-set over several keys,
//! and watches that miss nothing or say so.
//!
//! The trait [`Store`] is what an etcd client can do without change (docs/STORE.md, row by row). Two engines:
//! [`MemoryStore`] for tests, [`RedbStore`] for one machine. Every invariant of the cluster ("a pool VM is handed out
//! once") is a [`Transaction`] here, never a lock elsewhere. Never here: what a row means, which keys there are, a
//! clock ([`lease`] takes the time as an argument).

mod core;
mod draft;
mod key;
pub mod lease;
mod memory;
mod redb;
pub mod rows;
mod watch;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::core::Statistics;
pub use draft::{
    Draft, DraftError, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES, Transaction, Write,
};
pub use key::{Key, KeyError, MAX_KEY_BYTES, Prefix};
pub use memory::MemoryStore;
pub use redb::{OpenError, RedbStore};
pub use watch::{Change, Watch, WatchItem};

/// Most entries of one [`Listing`].
pub const MAX_LISTING: usize = 1000;

/// The number of a change to the whole store: grows by one with every transaction that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// What a compare requires of a key that must not be there; also the revision of an empty store.
    pub const ABSENT: Self = Self(0);

    /// The one after this one.
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A key with its value, as it stood at some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its value; cheap to clone.
    pub value: Bytes,
    /// The revision that last wrote it: what a compare names.
    pub revision: Revision,
}

/// One page of entries, all read from the same snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In the order of their keys' bytes.
    pub entries: Vec<Entry>,
    /// The store's revision at the time of reading. Who reads several pages and then watches does so after the revision
    /// of the *first*: what changed between pages is then shown again, and never missed.
    pub revision: Revision,
    /// More entries follow the last one.
    pub more: bool,
}

/// Keys, values, revisions.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry of this key, `None` where there is none. Sees every transaction that was acknowledged before.
    ///
    /// # Errors
    /// When the store cannot be reached or read.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError>;

    /// Entries below `prefix` whose keys come after `after`, at most `limit` of them and never more than
    /// [`MAX_LISTING`].
    ///
    /// # Errors
    /// When the store cannot be reached or read.
    async fn list(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Listing, ReadError>;

    /// Does all of the transaction if all its compares hold, else nothing, and says at which revision. A transaction
    /// that changes nothing (compares only, or deletes of absent keys) takes no revision: the answer is the current one.
    ///
    /// Acknowledged means durable. Dropping the future does not take the transaction back: it may happen or not.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when a compare does not hold; nothing was changed. The others say what is known.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError>;

    /// All changes below `prefix` after revision `after`: one item per revision, in order, each once. The watch never
    /// holds anybody up: one that falls too far behind is told [`WatchItem::Compacted`] and ends.
    fn watch(&self, prefix: &Prefix, after: Revision) -> Watch;

    /// The revision of the last transaction.
    ///
    /// # Errors
    /// When the store cannot be reached.
    async fn revision(&self) -> Result<Revision, ReadError>;
}

/// Why nothing could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store cannot be reached.
    #[error("cannot read the store: {detail}")]
    Unavailable {
        /// What is known about it.
        detail: String,
    },
}

/// Why a transaction was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A compare did not hold. Nothing was changed.
    #[error("`{key}` is at revision {revision}, not at the one that was required")]
    Conflict {
        /// The first key, in the order of the compares, that is not as required.
        key: Key,
        /// Where it really is; [`Revision::ABSENT`] when it is not there.
        revision: Revision,
    },
    /// The store takes no transactions. Nothing was changed.
    #[error("the store takes no transactions: {detail}")]
    Unavailable {
        /// Why.
        detail: String,
    },
    /// The store failed while it wrote: the transaction may be there or not. Read before trying again.
    #[error("the store failed while it wrote, and the outcome is unknown: {detail}")]
    Unknown {
        /// What failed.
        detail: String,
    },
}

impl CommitError {
    /// Somebody else was faster: reading again and trying again is the way on.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

#[cfg(test)]
mod tests;
