//! The physical hosts by index: two steps of an array, without a lock and without a search.
//!
//! One writer gives each index once; a host never moves, never changes and goes only with the whole list, so a reader may
//! hold an index as long as it holds the table. Never here: how many entries name a host.

use crate::sync::Once;
use crate::types::PhysicalIp;

/// Bits of an index that choose within a leaf. All 2¹⁶ indices take 1.5 MiB, one leaf 6 KiB.
const LEAF_BITS: u32 = if cfg!(dataplane_loom) { 1 } else { 8 };
const LEAF: usize = 1 << LEAF_BITS;
const LEAVES: usize = if cfg!(dataplane_loom) { 2 } else { 1 << (16 - LEAF_BITS) };

type Leaf = Box<[Once<PhysicalIp>; LEAF]>;

pub(super) struct Hosts {
    leaves: [Once<Leaf>; LEAVES],
}

impl Hosts {
    pub(super) fn new() -> Self {
        Self { leaves: std::array::from_fn(|_| Once::new()) }
    }

    /// The host of `index`, if it was put there before the reader learnt the index.
    #[inline]
    pub(super) fn get(&self, index: u16) -> Option<PhysicalIp> {
        let (leaf, place) = (usize::from(index >> LEAF_BITS), usize::from(index) % LEAF);
        self.leaves.get(leaf)?.get()?.get(place)?.get().copied()
    }

    /// Gives `index`, which nobody had before, to a host. For the one writer.
    pub(super) fn put(&self, index: u16, host: PhysicalIp) {
        let (leaf, place) = (usize::from(index >> LEAF_BITS), usize::from(index) % LEAF);
        let leaf = self
            .leaves
            .get(leaf)
            .map(|leaf| leaf.get_or_init(|| Box::new(std::array::from_fn(|_| Once::new()))));
        if let Some(cell) = leaf.and_then(|leaf| leaf.get(place)) {
            cell.get_or_init(|| host);
        }
    }
}

#[cfg(test)]
#[cfg(not(dataplane_loom))]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let host = |index: u16| PhysicalIp::from(Ipv4Addr::from_bits(0x0a00_0000 | u32::from(index)));
        let hosts = Hosts::new();
        for index in (0..=u16::MAX).rev().filter(|index| index % 3 > 0) {
            hosts.put(index, host(index));
        }
        for index in 0..=u16::MAX {
            assert_eq!(hosts.get(index), (index % 3 > 0).then(|| host(index)), "{index}");
        }
    }
}
