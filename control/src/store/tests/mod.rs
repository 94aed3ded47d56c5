//! What every engine must do ([`conformance`], [`model`]), what a file must survive ([`durable`]), and the layers above.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what broke by panicking")]

mod conformance;
mod durable;
mod layers;
mod model;

use std::path::PathBuf;
use std::sync::Arc;

use super::core::LogLimits;
use super::*;

/// How an engine is made for the suite. Another engine (etcd) is one more of these.
pub(super) trait Engine {
    /// A new empty store that keeps this many revisions for watchers.
    fn start(revisions: usize) -> Self;
    fn store(&self) -> Arc<dyn Store>;
}

pub(super) struct InMemory(Arc<MemoryStore>);

impl Engine for InMemory {
    fn start(revisions: usize) -> Self {
        Self(Arc::new(MemoryStore::with_log(LogLimits { revisions, ..LogLimits::default() })))
    }

    fn store(&self) -> Arc<dyn Store> {
        self.0.clone()
    }
}

pub(super) struct OnDisk {
    store: Arc<RedbStore>,
    _dir: tempfile::TempDir,
}

impl Engine for OnDisk {
    fn start(revisions: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { revisions, ..LogLimits::default() };
        let store = Arc::new(RedbStore::with_log(&file(&dir), limits).unwrap());
        Self { store, _dir: dir }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
}

pub(super) fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("store.redb")
}

pub(super) fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

pub(super) fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

pub(super) fn draft(fill: impl for<'a> FnOnce(&'a mut Draft) -> &'a mut Draft) -> Transaction {
    let mut draft = Draft::new();
    fill(&mut draft);
    draft.finish().unwrap()
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}
