//! Where buckets stand: zeroed memory that costs nothing until it is touched, and goes back to the system when the last
//! reader lets go of it.
//!
//! Large arrays are mappings of their own, because an allocator may keep what it is given back (glibc serves up to 32 MiB from its
//! heap once something of that size was freed, and zeroes it by hand). Mappings of whole huge pages ask for them: a
//! random look-up then needs no walk through page tables. Never here: what is in a bucket.

#[cfg(all(feature = "io", not(dataplane_loom)))]
use std::ffi::c_void;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Bucket;

/// What x86-64 and AArch64 (with 4 KiB pages) call a huge page.
#[cfg(all(feature = "io", not(dataplane_loom)))]
const HUGE_PAGE: usize = 2 << 20;
/// Smaller arrays come from the allocator.
#[cfg(all(feature = "io", not(dataplane_loom)))]
const LEAST_MAPPING: usize = 256 << 10;

/// An array of buckets, shared by its clones.
pub(in super::super) struct Buckets {
    first: NonNull<Bucket>,
    count: usize,
    /// Whether plain instructions read a slot in one piece.
    pub(in super::super) loads_are_whole: bool,
    owner: Arc<Owner>,
}

enum Owner {
    Heap(Box<[Bucket]>),
    #[cfg(all(feature = "io", not(dataplane_loom)))]
    Mapping {
        start: NonNull<c_void>,
        bytes: usize,
    },
}

// SAFETY: the pointer is to memory that `owner` keeps, and is only used as `&[Bucket]`; `Bucket` is `Send` and `Sync`.
unsafe impl Send for Buckets {}
// SAFETY: as above.
unsafe impl Sync for Buckets {}
// SAFETY: a mapping belongs to the process, not to a thread; nobody uses `start` but `drop`, which has the owner alone.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

impl Buckets {
    /// `count` buckets of empty slots; at least one.
    pub(in super::super) fn empty(count: usize) -> Self {
        let count = count.max(1);
        #[cfg(all(feature = "io", not(dataplane_loom)))]
        if let Some(buckets) = Self::mapped(count) {
            return buckets;
        }
        let owner = Arc::new(Owner::Heap(heap(count)));
        let first = match &*owner {
            Owner::Heap(buckets) => NonNull::from(&**buckets).cast(),
            #[cfg(all(feature = "io", not(dataplane_loom)))]
            Owner::Mapping { start, .. } => start.cast(),
        };
        Self::new(first, count, owner)
    }

    fn new(first: NonNull<Bucket>, count: usize, owner: Arc<Owner>) -> Self {
        Self { first, count, loads_are_whole: super::loads_are_whole(), owner }
    }

    /// A mapping of its own; `None` if it would be small, or the system refuses.
    #[cfg(all(feature = "io", not(dataplane_loom)))]
    fn mapped(count: usize) -> Option<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        let used = count.checked_mul(size_of::<Bucket>()).filter(|bytes| *bytes >= LEAST_MAPPING)?;
        let huge = used >= HUGE_PAGE;
        // Room to begin at a huge page's border: what is not touched takes addresses, not memory.
        let bytes = if huge { used.checked_add(HUGE_PAGE)? } else { used };
        // SAFETY: a new private mapping at an address of the system's choice touches nothing that exists.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let start = NonNull::new(start.ok()?)?;
        let owner = Arc::new(Owner::Mapping { start, bytes });
        let skipped = if huge { start.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE) } else { 0 };
        // SAFETY: at most HUGE_PAGE bytes into a mapping that is that much longer than `used`.
        let first = unsafe { start.byte_add(skipped) };
        if huge {
            // SAFETY: the advice is about a part of our own mapping, and changes no content. Refused: ordinary pages.
            let _ = unsafe { madvise(first.as_ptr(), used, Advice::LinuxHugepage) };
        }
        Some(Self::new(first.cast(), count, owner))
    }
}

impl Clone for Buckets {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone(), ..*self }
    }
}

impl Deref for Buckets {
    type Target = [Bucket];

    #[inline]
    fn deref(&self) -> &[Bucket] {
        // SAFETY: `first` is the start of `count` buckets that `owner` keeps for at least as long as `self`: a heap slice,
        // or pages of a mapping, which are zero at first; see `heap` for why zeros are buckets. Aligned: a box by its type,
        // a mapping by the page.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        match self {
            Self::Heap(_) => {}
            #[cfg(all(feature = "io", not(dataplane_loom)))]
            Self::Mapping { start, bytes } => {
                // SAFETY: the whole of our own mapping, and the last clone of the array is gone. It cannot fail for such a
                // range.
                let _ = unsafe { rustix::mm::munmap(start.as_ptr(), *bytes) };
            }
        }
    }
}

fn heap(count: usize) -> Box<[Bucket]> {
    #[cfg(not(dataplane_loom))]
    {
        // SAFETY: a bucket is four `AtomicU128`, which have "the same size and bit validity as u128" (its
        // documentation), so all zeros are a valid bucket: four empty slots. `repr(align(64))` changes the layout only.
        unsafe { Box::<[Bucket]>::new_zeroed_slice(count).assume_init() }
    }
    #[cfg(dataplane_loom)]
    (0..count).map(|_| Bucket(std::array::from_fn(|_| crate::sync::AtomicU128::new(0)))).collect()
}

#[cfg(test)]
#[cfg(not(dataplane_loom))]
mod tests {
    use super::*;
    use crate::directory::slot::Slot;

    #[test]
    fn small_and_large_arrays_are_empty_aligned_and_shared_by_clones() {
        // From the heap, from ordinary pages, from huge ones.
        for count in [1, 3, 4096, 5000, 32 << 10, 70_000] {
            let buckets = Buckets::empty(count);
            assert_eq!(buckets.len(), count);
            assert_eq!(buckets.as_ptr().align_offset(64), 0);
            assert!(buckets.iter().all(|b| Bucket::places().all(|place| b.load(place) == Slot::EMPTY)));
            let clone = buckets.clone();
            buckets[count - 1].store(3, Slot::TOMBSTONE);
            drop(buckets);
            assert_eq!(clone[count - 1].load(3), Slot::TOMBSTONE);
        }
        assert_eq!(Buckets::empty(0).len(), 1);
    }
}
