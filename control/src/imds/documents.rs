//! What is published, by port and label, and who waits for something newer.
//!
//! Written by the host agent, read by every connection; a lock is held for a look-up in a map and no longer.

use crate::model::GuestConfig;
use bytes::Bytes;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Everything that one machine may read.
#[derive(Clone, Debug)]
pub struct Document {
    generation: u64,
    config: Bytes,
    instance: Arc<serde_json::Value>,
}

impl Document {
    /// The configuration and the instance document (see [`super::instance`]).
    ///
    /// # Errors
    /// When the configuration cannot be written as JSON.
    pub fn new(config: &GuestConfig, instance: serde_json::Value) -> Result<Self, serde_json::Error> {
        let text = serde_json::to_vec(config)?;
        Ok(Self { generation: config.generation, config: text.into(), instance: Arc::new(instance) })
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn config(&self) -> Bytes {
        self.config.clone()
    }

    pub(super) fn instance(&self) -> &serde_json::Value {
        &self.instance
    }
}

/// Port and label. A port without a label has the empty one.
type Key = (String, String);
type Published = watch::Sender<Option<Document>>;

/// All documents of a host; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Documents(Arc<Mutex<HashMap<Key, Published>>>);

impl Documents {
    /// Publishes what the port reads while it has this label, in place of what it read before; wakes who waits.
    pub fn publish(&self, port: &str, label: &str, document: Document) {
        let mut all = self.lock();
        let published =
            all.entry((port.to_owned(), label.to_owned())).or_insert_with(|| watch::Sender::new(None));
        published.send_replace(Some(document));
    }

    /// Takes a document back. Who waits for a newer one learns that there is none.
    pub fn retire(&self, port: &str, label: &str) {
        // The sender's end wakes them.
        self.lock().remove(&(port.to_owned(), label.to_owned()));
    }

    /// Takes back all documents of a port but that of one label.
    pub fn retain(&self, port: &str, label: &str) {
        self.lock().retain(|(of, with), _| of != port || with == label);
    }

    /// What a port reads, to look at and to wait on.
    pub(super) fn watch(&self, port: &str, label: &str) -> Option<watch::Receiver<Option<Document>>> {
        self.lock().get(&(port.to_owned(), label.to_owned())).map(watch::Sender::subscribe)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Published>> {
        // The map is whole at every moment, also when a holder of the lock died.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
