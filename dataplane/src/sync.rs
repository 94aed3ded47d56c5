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
//! * [`AtomicU128`] does not exist in loom. The model keeps every value ever stored in a list and makes the *index* of
//!   the newest an atomic: each load gives some stored value, stale ones included as far as its ordering
//!   allows. So orderings and staleness are modelled; that the processor loads and stores 128 bits in one piece is not:
//!   that is `portable_atomic`'s word, asked by `is_lock_free()` at start and tried by the stress test.
//! * [`Once`] is std's `OnceLock` in production, and in loom an atomic flag beside one.
//!
//! Never here: policy, tables, anything that waits longer than a few instructions.

use std::sync::Arc;

#[cfg(not(dataplane_loom))]
pub(crate) use portable_atomic::AtomicU128;
#[cfg(not(dataplane_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, OnceLock as Once, PoisonError,
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
    /// Another: 128-bit loads in two halves.
    pub(crate) static LOADS_TORN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    /// Another: stores that publish nothing but themselves.
    pub(crate) static STORES_RELAXED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
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

/// So many atomics, all zero. In production untouched memory: a page costs nothing before something is written to it.
#[cfg(not(dataplane_loom))]
pub(crate) fn zeroed(words: usize) -> Box<[AtomicU64]> {
    bytemuck::zeroed_slice_box(words)
}

#[cfg(dataplane_loom)]
pub(crate) fn zeroed(words: usize) -> Box<[AtomicU64]> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
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

/// A 128-bit atomic as loom sees it: an atomic index into the list of all values it ever had.
#[cfg(dataplane_loom)]
pub(crate) struct AtomicU128 {
    newest: AtomicU64,
    /// Std's, so that loom does not take the model's own bookkeeping for synchronization.
    values: std::sync::Mutex<Vec<u128>>,
}

#[cfg(dataplane_loom)]
impl AtomicU128 {
    pub(crate) fn new(value: u128) -> Self {
        Self { newest: AtomicU64::new(0), values: std::sync::Mutex::new(vec![value]) }
    }

    pub(crate) fn load(&self, ordering: Ordering) -> u128 {
        let value = self.value(self.newest.load(ordering));
        if !LOADS_TORN.get() {
            return value;
        }
        const LOW_HALF: u128 = u64::MAX as u128;
        value & !LOW_HALF | self.value(self.newest.load(ordering)) & LOW_HALF
    }

    pub(crate) fn store(&self, value: u128, ordering: Ordering) {
        let ordering = if STORES_RELAXED.get() { Ordering::Relaxed } else { ordering };
        let index = {
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            values.push(value);
            values.len() - 1
        };
        self.newest.store(u64::try_from(index).unwrap_or(u64::MAX), ordering);
    }

    fn value(&self, index: u64) -> u128 {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        usize::try_from(index).ok().and_then(|index| values.get(index)).copied().unwrap_or_default()
    }
}

/// A `OnceLock` whose "is set" loom can see.
#[cfg(dataplane_loom)]
pub(crate) struct Once<T> {
    is_set: AtomicU64,
    value: std::sync::OnceLock<T>,
}

#[cfg(dataplane_loom)]
impl<T> Once<T> {
    pub(crate) fn new() -> Self {
        Self { is_set: AtomicU64::new(0), value: std::sync::OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if self.is_set.load(Ordering::Acquire) == 0 { None } else { self.value.get() }
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let value = self.value.get_or_init(make);
        self.is_set.store(1, Ordering::Release);
        value
    }
}
