//! Transactions: what must be as it was, and what is to be written, within bounds that etcd has too.
//!
//! Never here: the rows themselves, or what comes of a transaction.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Key, Revision};

/// Most compares, and most writes, of one transaction. etcd counts both alike and stops at 128.
pub const MAX_OPERATIONS: usize = 100;
/// Longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 512 << 10;
/// Most bytes of keys and values in one transaction. etcd stops at 1.5 MiB.
pub const MAX_TRANSACTION_BYTES: usize = 1 << 20;

/// Compares and writes that happen together or not at all. Made by [`Draft::finish`], and therefore within bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    compares: Vec<(Key, Revision)>,
    writes: Vec<Write>,
}

/// What becomes of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// It gets this value.
    Put(Key, Bytes),
    /// It goes; nothing happens where it was not there.
    Delete(Key),
}

impl Transaction {
    /// Keys and the revisions that they must be at, [`Revision::ABSENT`] for those that must not be there.
    #[must_use]
    pub fn compares(&self) -> &[(Key, Revision)] {
        &self.compares
    }

    /// What is written when all compares hold. No key twice.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Bytes of all keys and values.
    pub(super) fn bytes(&self) -> usize {
        let compared = self.compares.iter().map(|(key, _)| key.as_str().len());
        compared.chain(self.writes.iter().map(Write::bytes)).sum()
    }
}

impl Write {
    /// Whose.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.as_str().len() + value.len(),
            Self::Delete(key) => key.as_str().len(),
        }
    }
}

/// A transaction that is being put together. A mistake is remembered and told by [`Draft::finish`], so that callers may
/// chain.
#[derive(Debug, Default)]
pub struct Draft {
    compares: BTreeMap<Key, Revision>,
    writes: BTreeMap<Key, Option<Bytes>>,
    mistake: Option<DraftError>,
}

impl Draft {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The key must be at this revision. Requiring the same twice is once.
    pub fn require(&mut self, key: &Key, revision: Revision) -> &mut Self {
        if self.compares.insert(key.clone(), revision).is_some_and(|before| before != revision) {
            self.wrong(DraftError::Twice { key: key.clone() });
        }
        self
    }

    /// The key must not be there.
    pub fn require_absent(&mut self, key: &Key) -> &mut Self {
        self.require(key, Revision::ABSENT)
    }

    /// Gives the key this value, whatever it had: callers nearly always want a `require` beside it.
    pub fn put(&mut self, key: &Key, value: impl Into<Bytes>) -> &mut Self {
        let value = value.into();
        if value.len() > MAX_VALUE_BYTES {
            self.wrong(DraftError::ValueTooLarge { key: key.clone(), bytes: value.len() });
        }
        self.write(key, Some(value))
    }

    /// Removes the key, if it is there.
    pub fn delete(&mut self, key: &Key) -> &mut Self {
        self.write(key, None)
    }

    /// Whether it would write nothing.
    #[must_use]
    pub fn writes_nothing(&self) -> bool {
        self.writes.is_empty()
    }

    /// The transaction.
    ///
    /// # Errors
    /// The first mistake that was made: too many operations, a key twice, too many bytes, a row that is no JSON.
    pub fn finish(self) -> Result<Transaction, DraftError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let operations = self.compares.len().max(self.writes.len());
        if operations > MAX_OPERATIONS {
            return Err(DraftError::TooMany { operations });
        }
        let write = |(key, value)| match value {
            Some(value) => Write::Put(key, value),
            None => Write::Delete(key),
        };
        let transaction = Transaction {
            compares: self.compares.into_iter().collect(),
            writes: self.writes.into_iter().map(write).collect(),
        };
        match transaction.bytes() {
            bytes if bytes > MAX_TRANSACTION_BYTES => Err(DraftError::TooLarge { bytes }),
            _ => Ok(transaction),
        }
    }

    fn write(&mut self, key: &Key, value: Option<Bytes>) -> &mut Self {
        if self.writes.insert(key.clone(), value).is_some() {
            self.wrong(DraftError::Twice { key: key.clone() });
        }
        self
    }

    /// Remembers the first mistake.
    pub(super) fn wrong(&mut self, mistake: DraftError) {
        self.mistake.get_or_insert(mistake);
    }
}

/// Why a draft is no transaction. All of these are mistakes of the program, not of a customer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// More compares or writes than [`MAX_OPERATIONS`].
    #[error("{operations} operations in one transaction: at most {MAX_OPERATIONS}")]
    TooMany {
        /// The greater of both numbers.
        operations: usize,
    },
    /// A key is written twice, or required to be at two revisions.
    #[error("`{key}` stands twice in one transaction")]
    Twice {
        /// The key.
        key: Key,
    },
    /// A value longer than [`MAX_VALUE_BYTES`].
    #[error("the value of `{key}` has {bytes} bytes: at most {MAX_VALUE_BYTES}")]
    ValueTooLarge {
        /// Whose.
        key: Key,
        /// Its length.
        bytes: usize,
    },
    /// More bytes in all than [`MAX_TRANSACTION_BYTES`].
    #[error("{bytes} bytes in one transaction: at most {MAX_TRANSACTION_BYTES}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// A row cannot be written as JSON, or does not belong under this key.
    #[error("cannot write the row `{key}`: {detail}")]
    Row {
        /// Its key.
        key: Key,
        /// Why not.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn a_draft_of_too_many_operations_is_refused() {
        let mut draft = Draft::new();
        for number in 0..100 {
            draft.require_absent(&key(&format!("a/{number}"))).put(&key(&format!("b/{number}")), "x");
        }
        let mut larger = Draft::new();
        for number in 0..101 {
            larger.delete(&key(&format!("a/{number}")));
        }
        assert!(draft.finish().is_ok());
        assert_eq!(larger.finish(), Err(DraftError::TooMany { operations: 101 }));
    }

    #[test]
    fn no_key_stands_twice() {
        let a = key("a");
        let finish = |change: for<'a> fn(&'a mut Draft, &Key) -> &'a mut Draft| {
            let mut draft = Draft::new();
            change(&mut draft, &key("a"));
            draft.finish()
        };
        let twice = Err(DraftError::Twice { key: a.clone() });
        assert_eq!(finish(|draft, a| draft.put(a, "1").put(a, "2")), twice);
        assert_eq!(finish(|draft, a| draft.put(a, "1").delete(a)), twice);
        assert_eq!(finish(|draft, a| draft.require_absent(a).require(a, Revision(4))), twice);
        let once = finish(|draft, a| draft.require(a, Revision(4)).require(a, Revision(4)).put(a, "1"));
        assert_eq!(once.unwrap().compares(), [(a, Revision(4))]);
    }

    #[test]
    fn too_many_bytes_are_refused() {
        let mut draft = Draft::new();
        draft.put(&key("a"), vec![0; MAX_VALUE_BYTES + 1]);
        assert!(matches!(draft.finish(), Err(DraftError::ValueTooLarge { .. })));
        let mut draft = Draft::new();
        draft.put(&key("a"), vec![0; MAX_VALUE_BYTES]).put(&key("b"), vec![0; MAX_VALUE_BYTES]);
        assert_eq!(draft.finish(), Err(DraftError::TooLarge { bytes: MAX_TRANSACTION_BYTES + 2 }));
    }
}
