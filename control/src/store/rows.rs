//! Rows with a type: JSON with a schema number, migrated when they are read, and written by transactions that compare.
//!
//! A value is one JSON object, the row's fields and `"schema": N` beside them. A row of an older schema is migrated in
//! memory and stands in the new form from its next write on ([`bring_up_to_date`] writes all of a kind at once); a row
//! of a newer schema is refused by name and left alone. Never here: which rows there are.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    CommitError, Draft, DraftError, Entry, Key, KeyError, MAX_LISTING, Prefix, ReadError, Revision, Store,
    Transaction,
};

const SCHEMA: &str = "schema";
/// Tries of [`update`] before it gives up: more than that many writers at once on one row is a mistake of design.
const TRIES: usize = 64;

/// A type that is kept in the store.
pub trait Row: Serialize + DeserializeOwned + Send + Sync {
    /// What it is called, and the first segment of its keys (`vm` for `vm/acme/3f2c`).
    const KIND: &'static str;
    /// Grows when the form changes so that an older program would misread it.
    const SCHEMA: u32;

    /// Brings the fields of schema `from` to schema `from + 1`. Called once per step, until [`Row::SCHEMA`] is reached.
    ///
    /// # Errors
    /// A sentence when `from` was never a schema of this row, or the value is not of it.
    fn migrate(from: u32, value: Value) -> Result<Value, String> {
        let _ = value;
        Err(format!("there is no migration from schema {from}"))
    }
}

/// A row as it was read, with what a compare needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// Where it is kept.
    pub key: Key,
    /// The row.
    pub row: T,
    /// The revision that wrote it.
    pub revision: Revision,
}

/// Rows of one kind, and where a watch continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot<T> {
    /// In the order of keys.
    pub rows: Vec<Versioned<T>>,
    /// Every change after this revision is either in `rows` or shown by a watch from here (maybe both).
    pub revision: Revision,
}

/// One page of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// In the order of keys.
    pub rows: Vec<Versioned<T>>,
    /// The store's revision at the time of reading.
    pub revision: Revision,
    /// More rows follow the last one.
    pub more: bool,
}

/// Why rows could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The transaction did not happen, or nobody knows.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The transaction could not be put together.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// A text is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Written by a newer program.
    #[error(
        "the row `{key}` has schema {found}, and this program knows schema {known}: start the newer version of shunt"
    )]
    NewerSchema {
        /// Which row.
        key: Key,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// No row of this kind.
    #[error("the row `{key}` is no {kind}: {detail}")]
    Unreadable {
        /// Which row.
        key: Key,
        /// The kind that it should be.
        kind: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl RowError {
    /// Somebody else was faster: reading again and trying again is the way on.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Commit(error) if error.is_conflict())
    }
}

/// The row of an entry.
///
/// # Errors
/// When the entry is not of this kind, of a newer schema, or cannot be migrated.
pub fn decode<T: Row>(entry: &Entry) -> Result<Versioned<T>, RowError> {
    let (row, _) = read(entry)?;
    Ok(Versioned { key: entry.key.clone(), row, revision: entry.revision })
}

/// The value of a row, as it is kept.
///
/// # Errors
/// When the row is no JSON object, or the key does not begin with its kind.
pub fn encode<T: Row>(key: &Key, row: &T) -> Result<Bytes, DraftError> {
    let wrong = |detail: String| DraftError::Row { key: key.clone(), detail };
    if !belongs::<T>(key) {
        return Err(wrong(format!("keys of this kind begin with `{}`", T::KIND)));
    }
    let mut value = serde_json::to_value(row).map_err(|error| wrong(error.to_string()))?;
    let Value::Object(fields) = &mut value else { return Err(wrong("it is no JSON object".into())) };
    if fields.insert(SCHEMA.into(), T::SCHEMA.into()).is_some() {
        return Err(wrong("it has a field called `schema` itself".into()));
    }
    serde_json::to_vec(&value).map(Bytes::from).map_err(|error| wrong(error.to_string()))
}

/// The row of this key, `None` where there is none.
///
/// # Errors
/// When the store cannot be read, or the row cannot.
pub async fn load<T: Row>(store: &dyn Store, key: &Key) -> Result<Option<Versioned<T>>, RowError> {
    store.get(key).await?.map(|entry| decode(&entry)).transpose()
}

/// Rows below `prefix` that come after `after`, at most `limit` and never more than [`MAX_LISTING`].
///
/// # Errors
/// When the store cannot be read, or one of the rows cannot.
pub async fn list<T: Row>(
    store: &dyn Store,
    prefix: &Prefix,
    after: Option<&Key>,
    limit: usize,
) -> Result<Page<T>, RowError> {
    let listing = store.list(prefix, after, limit).await?;
    let rows = listing.entries.iter().map(decode).collect::<Result<_, _>>()?;
    Ok(Page { rows, revision: listing.revision, more: listing.more })
}

/// All rows below `prefix`. For kinds whose number is bounded by something else.
///
/// # Errors
/// When the store cannot be read, or one of the rows cannot.
pub async fn list_all<T: Row>(store: &dyn Store, prefix: &Prefix) -> Result<Snapshot<T>, RowError> {
    let mut page = list(store, prefix, None, MAX_LISTING).await?;
    let mut snapshot = Snapshot { rows: Vec::new(), revision: page.revision };
    loop {
        snapshot.rows.append(&mut page.rows);
        let last = snapshot.rows.last().map(|last| last.key.clone());
        if !page.more || last.is_none() {
            return Ok(snapshot);
        }
        page = list(store, prefix, last.as_ref(), MAX_LISTING).await?;
    }
}

/// Reads the row, lets `change` make another of it, and writes that if nobody has in between; else does it again.
/// `None` from `change` means to leave it. Returns what stands there afterwards; `None` where there is no such row.
///
/// # Errors
/// When the store or the row cannot be read or written, or others were faster many times in a row.
pub async fn update<T: Row + Clone>(
    store: &dyn Store,
    key: &Key,
    mut change: impl FnMut(&T) -> Option<T> + Send,
) -> Result<Option<Versioned<T>>, RowError> {
    let mut tries = 0;
    loop {
        let Some(found) = load::<T>(store, key).await? else { return Ok(None) };
        let Some(row) = change(&found.row) else { return Ok(Some(found)) };
        let mut draft = Draft::new();
        draft.replace(&found, &row);
        match store.commit(draft.finish()?).await {
            Ok(revision) => return Ok(Some(Versioned { key: found.key, row, revision })),
            Err(error) if error.is_conflict() && tries < TRIES => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes all rows below `prefix` that have an older schema in their present form, and says how many there were.
///
/// # Errors
/// When the store or a row cannot be read or written.
pub async fn bring_up_to_date<T: Row>(store: &dyn Store, prefix: &Prefix) -> Result<usize, RowError> {
    let mut written = 0;
    let mut after = None;
    loop {
        let listing = store.list(prefix, after.as_ref(), MAX_LISTING).await?;
        for entry in &listing.entries {
            let (row, schema) = read::<T>(entry)?;
            if schema == T::SCHEMA {
                continue;
            }
            let mut draft = Draft::new();
            draft.require(&entry.key, entry.revision).put_row(&entry.key, &row);
            match store.commit(draft.finish()?).await {
                // Whoever was faster has written it in the present form.
                Ok(_) | Err(CommitError::Conflict { .. }) => written += 1,
                Err(error) => return Err(error.into()),
            }
        }
        after = listing.entries.last().map(|entry| entry.key.clone());
        if !listing.more || after.is_none() {
            return Ok(written);
        }
    }
}

/// Writing rows with the compares that make it safe.
impl Draft {
    /// A row that is not there yet.
    pub fn create<T: Row>(&mut self, key: &Key, row: &T) -> &mut Self {
        self.require_absent(key).put_row(key, row)
    }

    /// A row that is as it was read, and becomes another.
    pub fn replace<T: Row>(&mut self, read: &Versioned<T>, row: &T) -> &mut Self {
        self.require(&read.key, read.revision).put_row(&read.key, row)
    }

    /// A row that is as it was read, and goes.
    pub fn remove<T>(&mut self, read: &Versioned<T>) -> &mut Self {
        self.require(&read.key, read.revision).delete(&read.key)
    }

    /// A row that is not written, and must be as it was read.
    pub fn unchanged<T>(&mut self, read: &Versioned<T>) -> &mut Self {
        self.require(&read.key, read.revision)
    }

    /// A row whatever stands there: for rows that one writer owns alone.
    pub fn put_row<T: Row>(&mut self, key: &Key, row: &T) -> &mut Self {
        match encode(key, row) {
            Ok(value) => self.put(key, value),
            Err(mistake) => {
                self.wrong(mistake);
                self
            }
        }
    }

    /// [`Draft::finish`] and [`Store::commit`].
    ///
    /// # Errors
    /// When it is no transaction, or the transaction did not happen.
    pub async fn commit(self, store: &dyn Store) -> Result<Revision, RowError> {
        let transaction: Transaction = self.finish()?;
        Ok(store.commit(transaction).await?)
    }
}

fn belongs<T: Row>(key: &Key) -> bool {
    key.as_str().strip_prefix(T::KIND).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The row, and the schema that it is kept in.
fn read<T: Row>(entry: &Entry) -> Result<(T, u32), RowError> {
    let key = &entry.key;
    let unreadable = |detail: String| RowError::Unreadable { key: key.clone(), kind: T::KIND, detail };
    if !belongs::<T>(key) {
        return Err(unreadable(format!("its key does not begin with `{}`", T::KIND)));
    }
    let mut value: Value =
        serde_json::from_slice(&entry.value).map_err(|error| unreadable(error.to_string()))?;
    let schema = value.as_object_mut().and_then(|fields| fields.remove(SCHEMA));
    let schema = schema.and_then(|schema| schema.as_u64()).and_then(|schema| u32::try_from(schema).ok());
    let found = schema.ok_or_else(|| unreadable("it has no schema number".into()))?;
    if found > T::SCHEMA {
        return Err(RowError::NewerSchema { key: key.clone(), found, known: T::SCHEMA });
    }
    for from in found..T::SCHEMA {
        value = T::migrate(from, value).map_err(unreadable)?;
    }
    let row = serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))?;
    Ok((row, found))
}
