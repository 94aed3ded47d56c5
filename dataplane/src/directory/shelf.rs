//! An append-only array that is read without locks: what a slot has no room for stands here, found by its index.
//!
//! One writer appends; a value never moves, never changes and goes only with the whole shelf, so a reader may hold an
//! index as long as it holds the table. Chunks double in size, so growth copies nothing.

use crate::sync::Once;

/// Values in the first chunk.
const FIRST: usize = if cfg!(dataplane_loom) { 1 } else { 64 };
/// Enough for 2³² values.
const CHUNKS: usize = 27;

pub(super) struct Shelf<T> {
    chunks: [Once<Box<[Once<T>]>>; CHUNKS],
}

impl<T> Shelf<T> {
    pub(super) fn new() -> Self {
        Self { chunks: std::array::from_fn(|_| Once::new()) }
    }

    /// The value at `index`, if it was put there before the reader learnt the index.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, offset) = place(index);
        self.chunks.get(chunk)?.get()?.get(offset)?.get()
    }

    /// Puts `value` at `index`, which nothing was put at before. For the one writer.
    pub(super) fn put(&self, index: u32, value: T) {
        let (chunk, offset) = place(index);
        let cells = self
            .chunks
            .get(chunk)
            .map(|c| c.get_or_init(|| (0..FIRST << chunk).map(|_| Once::new()).collect()));
        if let Some(cell) = cells.and_then(|cells| cells.get(offset)) {
            cell.get_or_init(|| value);
        }
    }
}

/// Chunk c holds the `FIRST << c` indices from `FIRST * (2^c - 1)` on.
#[inline]
fn place(index: u32) -> (usize, usize) {
    let from_one = index as usize / FIRST + 1;
    let chunk = from_one.ilog2() as usize;
    (chunk, index as usize - FIRST * ((1 << chunk) - 1))
}

#[cfg(test)]
#[cfg(not(dataplane_loom))]
mod tests {
    use super::*;

    #[test]
    fn chunks_lie_end_to_end() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), expected, "{index}");
            expected.1 += 1;
            if expected.1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(place(u32::MAX).0 < CHUNKS);
    }

    #[test]
    fn what_was_put_is_found_and_the_rest_is_not_there() {
        let shelf = Shelf::new();
        for index in 0..1000 {
            shelf.put(index, index * 3);
        }
        assert!((0..1000).all(|index| shelf.get(index) == Some(&(index * 3))));
        assert_eq!((shelf.get(1000), shelf.get(u32::MAX)), (None, None));
    }
}
