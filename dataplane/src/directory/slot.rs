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
//! only for physical hosts, and 0.0.0.0 is none. So the upper 64 bits alone tell whose slot it is, and whether it was ever used.
//!
//! Here and in `memory` is the directory's only unsafe code, for things that have no safe form of the same cost: four slots read in four
//! instructions and compared at once, a prefetch, and pages that come from the system and go back to it. Never here:
//! probing, hashing, policy.

mod memory;

#[cfg(all(target_arch = "x86_64", not(dataplane_loom)))]
use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_packs_epi32, _mm_set1_epi64x,
    _mm_setzero_si128, _mm_unpackhi_epi64, _mm_xor_si128,
};
use std::net::Ipv4Addr;

pub(super) use memory::Buckets;

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

    pub(super) fn content(self) -> Content {
        let key = (self.0 >> KEY_SHIFT) as u64;
        match (key, self.0 & GROUP_BIT != 0) {
            (0, false) => Content::Empty,
            (0, true) => Content::Tombstone,
            (_, true) => Content::Long { index: self.index() },
            (_, false) => Content::Short {
                vni: (key >> 32) as u32,
                ip: Ipv4Addr::from_bits(key as u32),
                value: self.value(),
            },
        }
    }

    /// The value of a slot that is known to hold an IPv4 entry.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each cast takes one field of the slot")]
    pub(super) fn value(self) -> Short {
        let [_, _, mac @ ..] = ((self.0 >> MAC_SHIFT) as u64).to_be_bytes();
        Short { mac: MacAddr(mac), host: (self.0 >> HOST_SHIFT) as u16, version: self.0 as u8 }
    }

    /// The place on the shelf of a slot that is known to hold an IPv6 entry.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the cast takes one field of the slot")]
    pub(super) fn index(self) -> u32 {
        (self.0 >> HOST_SHIFT) as u32
    }
}

/// Four slots in one cache line.
#[repr(align(64))]
pub(super) struct Bucket([AtomicU128; PER_BUCKET]);

/// What one look at a bucket shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Glance {
    /// One bit for each place whose slot has the tag: bit 4 × place.
    hits: u32,
    /// Whether a slot was never used, so that a search ends here.
    pub(super) ends: bool,
}

impl Glance {
    /// The next place whose slot had the tag.
    #[inline]
    pub(super) fn next_hit(&mut self) -> Option<usize> {
        let place = self.hits.trailing_zeros() as usize / 4;
        self.hits &= self.hits.wrapping_sub(1);
        (place < PER_BUCKET).then_some(place)
    }
}

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

    /// Reads each slot once, and tells which have the tag.
    #[inline]
    pub(super) fn glance(&self, tag: Tag) -> Glance {
        let (mut hits, mut ends) = (0, false);
        for (slot, hit) in self.0.iter().zip([0x1, 0x10, 0x100, 0x1000]) {
            let slot = Slot(slot.load(Ordering::Acquire));
            hits |= if slot.has(tag) { hit } else { 0 };
            ends |= slot == Slot::EMPTY;
        }
        Glance { hits, ends }
    }
}

/// The same in plain instructions, for processors on which an aligned 16-byte load is one piece. `portable_atomic` knows them
/// too, but calls its load through a pointer, four times a bucket.
#[cfg(all(target_arch = "x86_64", not(dataplane_loom)))]
impl Bucket {
    /// [`Bucket::load`]. One piece only where [`loads_are_whole`].
    #[inline]
    pub(super) fn load_whole(&self, place: usize) -> Slot {
        let Some(slot) = self.0.get(place) else { return Slot::EMPTY };
        let (low, high): (u64, u64);
        // SAFETY: the pointer is a live reference's, aligned to 16 bytes by the type, and SSE2 is part of x86-64. Others may
        // write meanwhile, but only by atomic stores, and the compiler knows nothing of this load that it could draw conclusions
        // from. No `readonly`: like an acquiring load it must stay before the reads that follow.
        unsafe {
            std::arch::asm!(
                "movdqa {whole}, xmmword ptr [{slot}]",
                "movq {low}, {whole}",
                "punpckhqdq {whole}, {whole}",
                "movq {high}, {whole}",
                slot = in(reg) std::ptr::from_ref(slot),
                whole = out(xmm_reg) _,
                low = lateout(reg) low,
                high = lateout(reg) high,
                options(nostack, preserves_flags),
            );
        }
        Slot(u128::from(high) << 64 | u128::from(low))
    }

    /// [`Bucket::glance`], without a branch.
    #[inline]
    pub(super) fn glance_whole(&self, tag: Tag) -> Glance {
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: as in `load_whole`: a live reference, aligned to 64 bytes by the type, of 64 bytes.
        unsafe {
            std::arch::asm!(
                "movdqa {a}, xmmword ptr [{bucket}]",
                "movdqa {b}, xmmword ptr [{bucket} + 16]",
                "movdqa {c}, xmmword ptr [{bucket} + 32]",
                "movdqa {d}, xmmword ptr [{bucket} + 48]",
                bucket = in(reg) std::ptr::from_ref(self),
                a = out(xmm_reg) a, b = out(xmm_reg) b, c = out(xmm_reg) c, d = out(xmm_reg) d,
                options(nostack, preserves_flags),
            );
        }
        // SAFETY: SSE2 is part of x86-64.
        unsafe { compare([a, b, c, d], tag) }
    }
}

/// Which of four slots have the tag, and whether one was never used: by their upper halves, at once.
#[cfg(all(target_arch = "x86_64", not(dataplane_loom)))]
#[inline]
#[target_feature(enable = "sse2")]
fn compare([a, b, c, d]: [__m128i; PER_BUCKET], tag: Tag) -> Glance {
    let (ab, cd) = (_mm_unpackhi_epi64(a, b), _mm_unpackhi_epi64(c, d));
    let (zero, sought) = (_mm_setzero_si128(), _mm_set1_epi64x((tag.0 >> 64) as i64));
    let counts = _mm_set1_epi64x((TAG >> 64) as i64);
    let hits = _mm_packs_epi32(
        _mm_cmpeq_epi32(_mm_and_si128(_mm_xor_si128(ab, sought), counts), zero),
        _mm_cmpeq_epi32(_mm_and_si128(_mm_xor_si128(cd, sought), counts), zero),
    );
    let ends = _mm_packs_epi32(_mm_cmpeq_epi32(ab, zero), _mm_cmpeq_epi32(cd, zero));
    // Four bits a slot, two for each half of its upper half: the lowest of the four stays if all are set.
    let (hits, ends) = (_mm_movemask_epi8(hits) as u32, _mm_movemask_epi8(ends) as u32);
    Glance { hits: hits & hits >> 2 & 0x1111, ends: ends & ends >> 2 & 0x1111 != 0 }
}

/// Elsewhere an atomic load is as plain as can be, and in a model it must be one.
#[cfg(any(not(target_arch = "x86_64"), dataplane_loom))]
impl Bucket {
    #[inline]
    pub(super) fn load_whole(&self, place: usize) -> Slot {
        self.load(place)
    }

    #[inline]
    pub(super) fn glance_whole(&self, tag: Tag) -> Glance {
        self.glance(tag)
    }
}

/// True where [`Bucket::load_whole`] reads a slot in one piece. On x86-64: "processors that enumerate support for Intel AVX
/// guarantee" it for an aligned MOVDQA (Intel's manual, volume 3, 9.1.1; AMD and Zhaoxin say the same).
fn loads_are_whole() -> bool {
    #[cfg(all(target_arch = "x86_64", not(dataplane_loom)))]
    return AtomicU128::is_lock_free() && std::arch::is_x86_feature_detected!("avx");
    #[cfg(any(not(target_arch = "x86_64"), dataplane_loom))]
    return true;
}

/// True where [`AtomicU128`] is one instruction: x86-64 with cmpxchg16b, AArch64.
#[cfg(feature = "io")]
pub(super) fn is_lock_free() -> bool {
    #[cfg(not(dataplane_loom))]
    return AtomicU128::is_lock_free();
    #[cfg(dataplane_loom)]
    return true;
}

/// Asks for the cache line that a value begins in, which is to be read soon.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing as far as the program can tell, for any address, and this one is a live
    // reference; SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
#[cfg(not(dataplane_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_one_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    /// A bucket of four slots with one key each, of which place 2 is a tombstone and place 3 was never used.
    fn bucket() -> (Buckets, [Tag; 2]) {
        let buckets = Buckets::empty(1);
        let value = Short { mac: MacAddr([0xfe, 1, 2, 3, 4, 5]), host: 6, version: 7 };
        let tags = [Tag::short(1, Ipv4Addr::new(10, 0, 0, 5)), Tag::long(0x00ff_ffff_ffff_ffff)];
        buckets[0].store(0, Slot::short(tags[0], value));
        buckets[0].store(1, Slot::long(tags[1], u32::MAX));
        buckets[0].store(2, Slot::TOMBSTONE);
        (buckets, tags)
    }

    fn hits(mut glance: Glance) -> Vec<usize> {
        std::iter::from_fn(|| glance.next_hit()).collect()
    }

    #[test]
    fn a_glance_tells_the_tag_and_the_end() {
        let (buckets, tags) = bucket();
        let bucket = &buckets[0];
        let near = Tag(tags[0].0 ^ 1 << 127);
        for (tag, places) in [(tags[0], vec![0]), (tags[1], vec![1]), (near, vec![])] {
            assert_eq!(hits(bucket.glance(tag)), places, "{tag:?}");
        }
        assert!(bucket.glance(near).ends);
        bucket.store(3, bucket.load(0));
        assert_eq!((hits(bucket.glance(tags[0])), bucket.glance(tags[0]).ends), (vec![0, 3], false));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn plain_instructions_see_what_atomics_see() {
        let (buckets, tags) = bucket();
        let bucket = &buckets[0];
        for last in [Slot::EMPTY, Slot::TOMBSTONE, bucket.load(0), bucket.load(1)] {
            bucket.store(3, last);
            assert!(Bucket::places().all(|place| bucket.load_whole(place) == bucket.load(place)));
            // Each tag, and each that differs in one bit of key or family.
            let bits = (KEY_SHIFT..128).map(|bit| 1 << bit).chain([0, GROUP_BIT]);
            for tag in bits.flat_map(|bit| tags.map(|tag| Tag(tag.0 ^ bit))) {
                assert_eq!(bucket.glance_whole(tag), bucket.glance(tag), "{tag:?}");
            }
        }
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
