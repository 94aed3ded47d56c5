//! One entry in 128 bits, and the cache lines that hold four of them.
//!
//! ```text
//!  127        72 71              24 23      8 7       0
//! ┌─────────────┬──────────────────┬─────────┬─────────┐
//! │ VNI 24 IP 32│ MAC 48           │ host 16 │ version │   an IPv4 address
//! ├─────────────┼──────────────────┼─────────┴─────────┤
//! │ keyed hash  │ 0… group bit 0…  │ index 32 at bit 8 │   an IPv6 address: the rest is on the table's shelf
//! ├─────────────┼──────────────────┼───────────────────┤
//! │ 0           │ 0… group bit 0…  │ 0                 │   a tombstone: no entry any more, but probing goes on
//! │ 0           │ 0                │ 0                 │   never used: probing ends here
//! └─────────────┴──────────────────┴───────────────────┘
//! ```
//!
//! No station's MAC has the group bit (bit 64 of the slot), so it marks what is not an IPv4 entry. No key is zero: VNI 0 exists
//! only for physical hosts, and 0.0.0.0 is none. This is the directory's only file with unsafe code, for two things that have no safe
//! form of the same cost: zeroed pages that come untouched from the system, and a prefetch. Never here: probing,
//! hashing, policy.

use std::net::Ipv4Addr;

use crate::sync::{AtomicU128, Ordering};
use crate::types::MacAddr;

/// Slots in a bucket: one cache line.
pub(super) const PER_BUCKET: usize = 4;

const KEY_SHIFT: u32 = 72;
const MAC_SHIFT: u32 = 24;
const HOST_SHIFT: u32 = 8;
const GROUP_BIT: u128 = 1 << 64;
/// What must agree for a slot to be the one sought.
const TAG: u128 = u128::MAX << KEY_SHIFT | GROUP_BIT;
/// IPv6 keys are never zero, whatever the hash.
const NOT_ZERO: u64 = 1;

/// A slot's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot(u128);

/// What a slot says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    Empty,
    Tombstone,
    Short { vni: u32, ip: Ipv4Addr, value: Short },
    Long { index: u32 },
}

/// The value of an IPv4 entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Short {
    pub(super) mac: MacAddr,
    pub(super) host: u16,
    pub(super) version: u8,
}

/// The part of a slot by which an entry is found: the key, and whether it is IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag(u128);

impl Tag {
    /// An IPv4 address: exact.
    #[inline]
    pub(super) fn short(vni: u32, ip: Ipv4Addr) -> Self {
        Self(u128::from(u64::from(vni) << 32 | u64::from(ip.to_bits())) << KEY_SHIFT)
    }

    /// An IPv6 address, by its hash: equal tags may belong to different addresses.
    #[inline]
    pub(super) fn long(hash: u64) -> Self {
        Self(u128::from(hash | NOT_ZERO) << KEY_SHIFT | GROUP_BIT)
    }
}

impl Slot {
    pub(super) const EMPTY: Self = Self(0);
    pub(super) const TOMBSTONE: Self = Self(GROUP_BIT);

    pub(super) fn short(tag: Tag, value: Short) -> Self {
        let [a, b, c, d, e, f] = value.mac.0;
        let mac = u128::from(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
        Self(tag.0 | mac << MAC_SHIFT | u128::from(value.host) << HOST_SHIFT | u128::from(value.version))
    }

    pub(super) fn long(tag: Tag, index: u32) -> Self {
        Self(tag.0 | u128::from(index) << HOST_SHIFT)
    }

    #[inline]
    pub(super) fn has(self, tag: Tag) -> bool {
        self.0 & TAG == tag.0
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each cast takes one field of the slot")]
    pub(super) fn content(self) -> Content {
        let key = (self.0 >> KEY_SHIFT) as u64;
        match (key, self.0 & GROUP_BIT != 0) {
            (0, false) => Content::Empty,
            (0, true) => Content::Tombstone,
            (_, true) => Content::Long { index: (self.0 >> HOST_SHIFT) as u32 },
            (_, false) => {
                let [_, _, mac @ ..] = ((self.0 >> MAC_SHIFT) as u64).to_be_bytes();
                let value =
                    Short { mac: MacAddr(mac), host: (self.0 >> HOST_SHIFT) as u16, version: self.0 as u8 };
                Content::Short { vni: (key >> 32) as u32, ip: Ipv4Addr::from_bits(key as u32), value }
            }
        }
    }
}

/// Four slots in one cache line.
#[repr(align(64))]
pub(super) struct Bucket([AtomicU128; PER_BUCKET]);

impl Bucket {
    /// The slots' places.
    pub(super) fn places() -> std::ops::Range<usize> {
        0..PER_BUCKET
    }

    /// Reads one slot in one piece.
    #[inline]
    pub(super) fn load(&self, place: usize) -> Slot {
        self.0.get(place).map_or(Slot::EMPTY, |slot| Slot(slot.load(Ordering::Acquire)))
    }

    /// Writes one slot in one piece; what was written before (an IPv6 entry on the shelf) is seen by whoever sees it.
    pub(super) fn store(&self, place: usize, value: Slot) {
        if let Some(slot) = self.0.get(place) {
            slot.store(value.0, Ordering::Release);
        }
    }
}

/// True where [`AtomicU128`] is one instruction: x86-64 with cmpxchg16b, AArch64.
#[cfg(feature = "io")]
pub(super) fn is_lock_free() -> bool {
    #[cfg(not(dataplane_loom))]
    return AtomicU128::is_lock_free();
    #[cfg(dataplane_loom)]
    return true;
}

/// `count` buckets of empty slots.
pub(super) fn empty_buckets(count: usize) -> Box<[Bucket]> {
    #[cfg(not(dataplane_loom))]
    {
        // SAFETY: a bucket is four `AtomicU128`, which have "the same size and bit validity as u128" (its
        // documentation), so all zeros are a valid bucket: four empty slots. `repr(align(64))` changes the layout only.
        unsafe { Box::<[Bucket]>::new_zeroed_slice(count).assume_init() }
    }
    #[cfg(dataplane_loom)]
    (0..count).map(|_| Bucket(std::array::from_fn(|_| AtomicU128::new(0)))).collect()
}

/// Asks for a bucket's cache line, to be read soon.
#[inline]
pub(super) fn prefetch(bucket: &Bucket) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing as far as the program can tell, for any address, and this one is a live
    // reference; SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(bucket).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bucket;
}

#[cfg(test)]
#[cfg(not(dataplane_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_one_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
        assert!(empty_buckets(3).iter().all(|b| Bucket::places().all(|place| b.load(place) == Slot::EMPTY)));
    }

    #[test]
    fn every_field_comes_back_at_its_extremes() {
        for (vni, ip, mac, host, version) in [
            (1, [0, 0, 0, 1], [0, 0, 0, 0, 0, 1], 0, 0),
            (0xff_ffff, [255; 4], [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff], u16::MAX, u8::MAX),
            (0, [192, 0, 2, 1], [0; 6], 7, 1),
            (0x80_0000, [0; 4], [0x80, 0, 0, 0, 0, 0], 0x8000, 0x80),
        ] {
            let (ip, value) = (Ipv4Addr::from(ip), Short { mac: MacAddr(mac), host, version });
            let tag = Tag::short(vni, ip);
            let slot = Slot::short(tag, value);
            assert_eq!(slot.content(), Content::Short { vni, ip, value });
            assert!(slot.has(tag));
        }
        for (hash, index) in [(0, 0), (u64::MAX, u32::MAX), (u64::MAX << 56, 1)] {
            let slot = Slot::long(Tag::long(hash), index);
            assert_eq!(slot.content(), Content::Long { index });
            assert!(slot.has(Tag::long(hash)));
        }
        assert_eq!(Slot::EMPTY.content(), Content::Empty);
        assert_eq!(Slot::TOMBSTONE.content(), Content::Tombstone);
    }

    #[test]
    fn the_two_families_never_have_each_others_tag() {
        let key = 0x00_0001_0a00_0005_u64;
        let short = Slot::short(
            Tag::short(1, Ipv4Addr::new(10, 0, 0, 5)),
            Short { mac: MacAddr([2, 0, 0, 0, 0, 1]), host: 1, version: 1 },
        );
        assert!(!short.has(Tag::long(key)));
        assert!(!Slot::long(Tag::long(key), 9).has(Tag::short(1, Ipv4Addr::new(10, 0, 0, 5))));
        assert!(!Slot::TOMBSTONE.has(Tag::long(0)));
    }
}
