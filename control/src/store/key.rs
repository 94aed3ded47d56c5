//! Keys and prefixes: `/`-separated text of a few safe characters, checked once.
//!
//! Never here: which keys there are; that is for those who own the rows.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// The name of a row, such as `vm/acme/3f2c`: segments of ASCII letters, digits and `- _ . : @ + = , ~ %`, none
/// empty, with `/` between them. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// All keys that begin with these segments: `vm/acme/` has `vm/acme/3f2c`, and neither `vm/acme` nor `vm/acmes/1`.
/// The empty prefix has all keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>);

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Longer than [`MAX_KEY_BYTES`].
    #[error("a key of {length} bytes is too long: at most {MAX_KEY_BYTES}")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Nothing between two slashes, before the first, or behind the last.
    #[error("`{text}` has an empty segment")]
    EmptySegment {
        /// The text.
        text: String,
    },
    /// A character that keys do not have.
    #[error("`{text}` has the character {character:?}, which no key may have")]
    Character {
        /// The text.
        text: String,
        /// The first such character.
        character: char,
    },
}

impl Key {
    /// Checks a whole key.
    ///
    /// # Errors
    /// When it is empty, too long, or has an empty segment or a character that keys do not have.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The key of these segments. A segment may hold slashes itself, and then is several.
    ///
    /// # Errors
    /// As [`Key::parse`].
    pub fn of<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Result<Self, KeyError> {
        Self::parse(&join(segments))
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, from the left.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

impl Prefix {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self("".into())
    }

    /// Checks a prefix: empty, or a key with a slash behind it.
    ///
    /// # Errors
    /// When what stands before the last slash is no key, or the last slash is missing.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Ok(Self::all());
        }
        check(text.strip_suffix('/').ok_or_else(|| KeyError::EmptySegment { text: shown(text) })?)?;
        Ok(Self(text.into()))
    }

    /// The prefix of these segments.
    ///
    /// # Errors
    /// As [`Key::parse`].
    pub fn of<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Result<Self, KeyError> {
        let text = join(segments);
        check(&text)?;
        Ok(Self(format!("{text}/").into()))
    }

    /// Whether the key lies below.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        key.as_str().starts_with(&*self.0)
    }

    /// The whole text, with its last slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where a walk over sorted keys begins.
    pub(super) fn start(&self, after: Option<&Key>) -> Bound<Key> {
        match after {
            Some(after) if after.as_str() >= &*self.0 => Bound::Excluded(after.clone()),
            // Not a valid key for want of a last segment, yet a fine place in the order.
            _ => Bound::Included(Key(self.0.clone())),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn join<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> String {
    let mut text = String::new();
    for (place, segment) in segments.into_iter().enumerate() {
        if place > 0 {
            text.push('/');
        }
        text.push_str(segment.as_ref());
    }
    text
}

fn check(text: &str) -> Result<(), KeyError> {
    if text.len() > MAX_KEY_BYTES {
        return Err(KeyError::TooLong { length: text.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:@+=,~%/".contains(c);
    if let Some(character) = text.chars().find(|c| !allowed(*c)) {
        return Err(KeyError::Character { text: shown(text), character });
    }
    if text.split('/').any(str::is_empty) {
        return Err(KeyError::EmptySegment { text: shown(text) });
    }
    Ok(())
}

/// As much of a wrong text as a message should have.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked() {
        for good in ["a", "vm/acme/3f2c", "directory/100/fd00::1", "prefix/10.0.0.0/24"] {
            assert_eq!(Key::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "/", "/a", "a/", "a//b"] {
            assert_eq!(Key::parse(bad), Err(KeyError::EmptySegment { text: bad.into() }));
        }
        for bad in ["a b", "ä", "a\0", "a\n", "a*"] {
            assert!(matches!(Key::parse(bad), Err(KeyError::Character { .. })), "{bad:?}");
        }
        assert!(Key::parse(&"x".repeat(512)).is_ok());
        assert_eq!(Key::parse(&"x".repeat(513)), Err(KeyError::TooLong { length: 513 }));
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let prefix = Prefix::of(["vm", "acme"]).unwrap();
        assert_eq!(prefix, Prefix::parse("vm/acme/").unwrap());
        let has = |key: &str| prefix.has(&Key::parse(key).unwrap());
        assert!(has("vm/acme/1") && has("vm/acme/1/2"));
        assert!(!has("vm/acme") && !has("vm/acmes/1") && !has("vm/other/1"));
        assert!(Prefix::parse("vm").is_err() && Prefix::parse("/").is_err());
        assert!(Prefix::all().has(&Key::parse("x").unwrap()));
    }
}
