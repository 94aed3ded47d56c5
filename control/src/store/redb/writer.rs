//! The one thread that writes: takes what waits, judges it, makes it durable at once, answers.
//!
//! Never here: opening the file, reading it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::Database;
use tokio::sync::{mpsc, oneshot, watch};

use super::file::{META, META_REVISION, ROWS};
use crate::store::core::{Shared, Staged};
use crate::store::{CommitError, Revision, Transaction};

/// Most transactions of one durable write, and most bytes: a bound on what waits for one fsync.
const GROUP: usize = 512;
const GROUP_BYTES: usize = 8 << 20;

/// A transaction and who waits for its outcome.
pub(super) struct Request {
    pub(super) transaction: Transaction,
    pub(super) answer: oneshot::Sender<Result<Revision, CommitError>>,
}

/// The writer's belongings.
pub(super) struct Writer {
    // In this order: the file is closed before the lock is given back.
    database: Database,
    _lock: File,
    shared: Arc<Shared>,
    head: watch::Sender<Revision>,
    /// What the disk said when it failed. What is on it is not known since then, so nothing is written any more.
    broken: Option<String>,
}

impl Writer {
    pub(super) fn new(
        database: Database,
        lock: File,
        shared: Arc<Shared>,
        head: watch::Sender<Revision>,
    ) -> Self {
        Self { database, _lock: lock, shared, head, broken: None }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut bytes = first.transaction.bytes();
            let mut group = vec![first];
            while group.len() < GROUP && bytes < GROUP_BYTES {
                let Ok(request) = requests.try_recv() else { break };
                bytes += request.transaction.bytes();
                group.push(request);
            }
            self.commit(group);
        }
    }

    fn commit(&mut self, group: Vec<Request>) {
        if let Some(detail) = &self.broken {
            for request in group {
                answer(request.answer, Err(CommitError::Unavailable { detail: detail.clone() }));
            }
            return;
        }
        let (staged, outcomes) = {
            let core = self.shared.read();
            let mut staged = Staged::new(&core);
            let outcomes: Vec<_> =
                group.iter().map(|request| staged.judge(&core, &request.transaction)).collect();
            (staged, outcomes)
        };
        if !staged.is_empty() {
            if let Err(error) = self.write(&staged) {
                let detail = format!("{error}; check the disk, then start the controller anew");
                tracing::error!(%error, "the store cannot be written; it takes no transactions until it is opened anew");
                // Conflicts were judged by what was not written, so nobody gets another answer than this.
                for request in group {
                    answer(request.answer, Err(CommitError::Unknown { detail: detail.clone() }));
                }
                self.broken = Some(detail);
                return;
            }
            self.shared.counters.commits.fetch_add(1, Ordering::Relaxed);
            let revision = staged.revision();
            self.shared.write().apply(staged);
            self.head.send_replace(revision);
        }
        for (request, outcome) in group.into_iter().zip(outcomes) {
            self.shared.count(&outcome);
            answer(request.answer, outcome);
        }
    }

    fn write(&self, staged: &Staged) -> Result<(), redb::Error> {
        // The default durability: on disk when `commit` returns.
        let transaction = self.database.begin_write()?;
        {
            let mut rows = transaction.open_table(ROWS)?;
            for (key, row) in staged.rows() {
                match row {
                    Some((revision, value)) => {
                        rows.insert(key.as_str(), (revision.0, value.as_ref()))?;
                    }
                    None => {
                        rows.remove(key.as_str())?;
                    }
                }
            }
            transaction.open_table(META)?.insert(META_REVISION, staged.revision().0)?;
        }
        Ok(transaction.commit()?)
    }
}

/// A caller that has gone does not want to know.
fn answer(to: oneshot::Sender<Result<Revision, CommitError>>, outcome: Result<Revision, CommitError>) {
    let _ = to.send(outcome);
}
