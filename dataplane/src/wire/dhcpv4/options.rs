//! The option walk: code, length, value; over one field or, when overloaded, three.

use super::super::{Layer, ParseError};
use super::code;

/// The options of a message that was parsed, as (code, value) in order. Copying it keeps one's place.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    rest: &'a [u8],
    file: &'a [u8],
    sname: &'a [u8],
}

impl<'a> Options<'a> {
    pub(super) const fn new(options: &'a [u8], file: &'a [u8], sname: &'a [u8]) -> Self {
        Self { rest: options, file, sname }
    }

    /// The next option. A field may end without END, as some clients' do.
    pub(super) fn step(&mut self) -> Result<Option<(u8, &'a [u8])>, ParseError> {
        loop {
            match *self.rest {
                [code::PAD, ref rest @ ..] => self.rest = rest,
                [] | [code::END, ..] => {
                    if self.file.is_empty() && self.sname.is_empty() {
                        self.rest = &[];
                        return Ok(None);
                    }
                    // `file` first, then `sname`.
                    let field = if self.file.is_empty() { &mut self.sname } else { &mut self.file };
                    self.rest = std::mem::take(field);
                }
                [code, length, ref rest @ ..] => {
                    let (value, rest) =
                        rest.split_at_checked(usize::from(length)).ok_or(ParseError::Truncated {
                            layer: Layer::Dhcpv4,
                            need: usize::from(length),
                            have: rest.len(),
                        })?;
                    self.rest = rest;
                    return Ok(Some((code, value)));
                }
                [_] => return Err(ParseError::Truncated { layer: Layer::Dhcpv4, need: 2, have: 1 }),
            }
        }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // Parsing walked it all without an error.
        self.step().ok().flatten()
    }
}

/// An option's value: usually one piece, or several of the same code that belong together (RFC 3396 §7).
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    code: u8,
    first: &'a [u8],
    rest: Options<'a>,
}

impl<'a> Value<'a> {
    pub(super) const fn new(code: u8, first: &'a [u8], rest: Options<'a>) -> Self {
        Self { code, first, rest }
    }

    /// A value that is at hand in one piece: for replies.
    #[must_use]
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { code: code::PAD, first: bytes, rest: Options::new(&[], &[], &[]) }
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let code = self.code;
        let more = self.rest.filter(move |(found, _)| *found == code).map(|(_, piece)| piece);
        std::iter::once(self.first).chain(more)
    }

    /// All bytes in order.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.pieces().flatten().copied()
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    /// True for a value of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq<[u8]> for Value<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        self.bytes().eq(other.iter().copied())
    }
}
