//! The fuzzer's bytes as a row of choices. An exhausted row gives zeros for ever, so that every input means something,
//! and the first choice of each list should be the plain one.

/// What is left of an input.
pub struct Dice<'a>(&'a [u8]);

impl<'a> Dice<'a> {
    /// From the input's first byte.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// The next two bytes.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// True for one byte in `of`.
    pub fn rarely(&mut self, of: u8) -> bool {
        self.byte() % of == of - 1
    }

    /// One of `list`.
    ///
    /// # Panics
    /// On an empty list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::from(self.byte()) % list.len()]
    }

    /// The next bytes, at most `most`: as many as the next byte says.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let wanted = usize::from(self.byte()).min(most);
        self.take(wanted)
    }

    /// The next `wanted` bytes, or what is left.
    pub fn take(&mut self, wanted: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// True when only zeros would follow.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_row_gives_zeros() {
        let mut dice = Dice::new(&[7, 1, 2, 2, 9, 8, 7]);
        assert_eq!((dice.byte(), dice.word(), dice.bytes(5)), (7, 0x0102, &[9, 8][..]));
        assert!(!dice.is_empty());
        assert_eq!((dice.rest(), dice.word(), dice.pick(&[3, 4])), (&[7][..], 0, 3));
    }
}
