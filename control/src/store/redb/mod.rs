//! The engine for one machine: one `redb` file, one thread that writes it, and all rows in memory for reading.
//!
//! Transactions wait in a bounded queue. The writer takes all that wait, judges them in order, writes what is good in
//! **one** durable transaction of the file, and only then answers: an fsync costs about a millisecond, and so is
//! shared by all that came while the last one was under way. Memory: every row's key and value, and some 150 bytes
//! beside them; the log of the last 10,000 revisions (at most 64 MiB). The log is not on disk, so after a restart a
//! watch from before it is told `Compacted`.
//!
//! Never here: what the rows mean, the semantics of a transaction (`core.rs`).

mod error;
mod file;
mod held;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::core::{Core, LogLimits, Shared, Statistics};
use super::{CommitError, Entry, Key, Listing, Prefix, ReadError, Revision, Store, Transaction, Watch};
pub use error::OpenError;
use writer::{Request, Writer};

/// Transactions that may wait; more wait in their callers.
const QUEUE: usize = 1024;

/// A store in one file. Dropping it finishes what waits and closes the file.
#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
    file: PathBuf,
    /// `None` only while it is being dropped.
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl RedbStore {
    /// Opens the store in this file, making an empty one where there is none. Blocks for as long as it takes to read it.
    ///
    /// # Errors
    /// When another process uses the file, or its content cannot be trusted or is of another schema. It is then left
    /// byte for byte as it is.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::with_log(path, LogLimits::default())
    }

    pub(super) fn with_log(path: &Path, limits: LogLimits) -> Result<Self, OpenError> {
        let opened = file::open(path)?;
        let (shared, head) = Shared::new(Core::new(opened.rows, opened.revision, limits));
        let (queue, requests) = mpsc::channel(QUEUE);
        let writer = Writer::new(opened.database, opened.lock, shared.clone(), head);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(requests))
            .map_err(|source| OpenError::Open { file: path.into(), source })?;
        Ok(Self { shared, file: path.into(), queue: Some(queue), thread: Some(thread) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// What it has done since it was opened.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // The writer ends with its queue. Waiting for it is what makes opening the file anew possible at once.
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        Ok(self.shared.read().get(key))
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Listing, ReadError> {
        Ok(self.shared.read().list(prefix, after, limit))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let closed = || CommitError::Unavailable { detail: "it is closed".into() };
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        let (answer, outcome) = oneshot::channel();
        queue.send(Request { transaction, answer }).await.map_err(|_| closed())?;
        // The writer answers everything that it takes, so this is its death in mid-write.
        outcome.await.unwrap_or_else(|_| Err(CommitError::Unknown { detail: "its writer died".into() }))
    }

    fn watch(&self, prefix: &Prefix, after: Revision) -> Watch {
        self.shared.watch(prefix.clone(), after)
    }

    async fn revision(&self) -> Result<Revision, ReadError> {
        Ok(self.shared.read().revision())
    }
}
