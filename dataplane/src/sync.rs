//! The only door to atomics and locks: std's in production, loom's under `--cfg dataplane_loom`.
//!
//! Everything that several threads touch is built from the names in this module, so that the loom models run the very
//! code that ships. `Arc` is not among them: snapshots are std's `Arc`s in both worlds, because they cross the crate's
//! public interface; its reference counts are trusted, not modelled.
//!
//! What the loom build replaces by something stronger, and therefore does not prove:
//! * [`Mailbox`] is one atomic pointer swap (acquire and release) in production and a mutex in loom. Both put all
//!   accesses of one mailbox into one order in which each sees the one before it, so nothing is lost there; that the
//!   swap really is one instruction is `crossbeam`'s word and a compile-time check.
//!
//! Never here: policy, tables, anything that waits longer than a few instructions.

use std::sync::Arc;

#[cfg(not(dataplane_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering, fence},
};

#[cfg(dataplane_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
#[cfg(dataplane_loom)]
pub(crate) use std::sync::PoisonError;

#[cfg(dataplane_loom)]
thread_local! {
    /// A hole opened on purpose: a model of something that needs its fences must fail without them. (All threads of a
    /// loom model run on one thread of the machine.)
    pub(crate) static FENCES_LEFT_OUT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(dataplane_loom)]
pub(crate) fn fence(ordering: Ordering) {
    if !FENCES_LEFT_OUT.get() {
        loom::sync::atomic::fence(ordering);
    }
}

/// Locks, also after a panic in another holder: every critical section of this crate leaves its data whole at each
/// step, and a switch that stops because one thread died would be the worse of the two.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room for one `Arc`, filled by one thread and emptied by another; neither ever waits.
pub(crate) struct Mailbox<T> {
    #[cfg(not(dataplane_loom))]
    letter: crossbeam_utils::atomic::AtomicCell<Option<Arc<T>>>,
    #[cfg(dataplane_loom)]
    letter: Mutex<Option<Arc<T>>>,
}

impl<T> Mailbox<T> {
    #[cfg(not(dataplane_loom))]
    const ONE_INSTRUCTION: () = assert!(
        crossbeam_utils::atomic::AtomicCell::<Option<Arc<T>>>::is_lock_free(),
        "a mailbox would lock"
    );

    pub(crate) fn empty() -> Self {
        #[cfg(not(dataplane_loom))]
        let () = Self::ONE_INSTRUCTION;
        Self { letter: None.into() }
    }

    /// Replaces what is in the box, and returns it.
    pub(crate) fn swap(&self, letter: Option<Arc<T>>) -> Option<Arc<T>> {
        #[cfg(not(dataplane_loom))]
        return self.letter.swap(letter);
        #[cfg(dataplane_loom)]
        return std::mem::replace(&mut *lock(&self.letter), letter);
    }
}
