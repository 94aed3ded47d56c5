//! What a watcher sees: the changes of one revision after the other, or that it has to read anew.
//!
//! Never here: a queue. A watch of the engines in this room is a place in their shared log, so a watcher that is slow
//! costs nobody anything, and is told so when the log has gone on without it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};

use super::{Entry, Key, Revision};

/// What a revision did to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It got a value.
    Put(Entry),
    /// It went.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Change {
    /// Whose.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key } => key,
        }
    }

    /// Bytes that it holds in memory, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(entry) => 96 + entry.key.as_str().len() + entry.value.len(),
            Self::Delete { key } => 96 + key.as_str().len(),
        }
    }
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// All that one revision did below the prefix, at least one change. In the order of keys.
    Changes {
        /// Which.
        revision: Revision,
        /// Of how many keys ever.
        changes: Vec<Change>,
    },
    /// Changes were missed: the revisions after the watcher's last are not to be had any more (or, after a backup was
    /// restored, never were). The last item: list anew, and watch after the listing's revision.
    Compacted {
        /// A listing at this revision or a later one has it all.
        resnapshot_from: Revision,
    },
}

/// A stream of [`WatchItem`]s. Ends after `Compacted`, or when the store is closed.
pub struct Watch(Pin<Box<dyn Stream<Item = WatchItem> + Send>>);

impl Watch {
    /// For engines.
    pub fn new(stream: impl Stream<Item = WatchItem> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }

    /// The next item; waits for it. `None`: there will be no more. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<WatchItem> {
        self.0.next().await
    }
}

impl Stream for Watch {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Watch")
    }
}
