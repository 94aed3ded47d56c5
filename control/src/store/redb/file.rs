//! Making, locking, checking and reading the store file.
//!
//! A file that cannot be trusted is refused, and nothing has then been written to it (`held.rs`). Never here: writing
//! rows.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::error::{self, OpenError};
use super::held::Held;
use crate::store::{Key, MAX_VALUE_BYTES, Revision};

/// Grows when the tables below change their meaning.
const SCHEMA: u64 = 1;
/// Pages kept in memory: rows are read once, at the start.
const CACHE_BYTES: usize = 16 << 20;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Key → (revision that wrote it, value).
pub(super) const ROWS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("rows");
const META_SCHEMA: &str = "schema";
pub(super) const META_REVISION: &str = "revision";

/// An accepted file with all that is in it.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) lock: File,
    pub(super) rows: Rows,
    pub(super) revision: Revision,
}

type Rows = BTreeMap<Key, (Revision, Bytes)>;

/// Opens the file, or makes an empty one.
pub(super) fn open(file: &Path) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::Open { file: file.into(), source };
    let lock = lock(file)?;
    if !file.try_exists().map_err(failed)? {
        create(file)?;
    }
    let handle = File::options().read(true).write(true).open(file).map_err(failed)?;
    if handle.metadata().map_err(failed)?.len() == 0 {
        // The database would make a new one of it.
        return Err(OpenError::Corrupt { file: file.into(), detail: "it is empty".into() });
    }
    let held = Held::new(handle).map_err(failed)?;
    // The database verifies checksums, but promises no more than "may panic" for a file that somebody else wrote.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(held.clone())
            .map_err(|error| error::opening(file, error.into()))?;
        let (rows, revision) = load(&database, file)?;
        Ok((database, rows, revision))
    }));
    let contradiction =
        |_| OpenError::Corrupt { file: file.into(), detail: "its structure contradicts itself".into() };
    let (mut database, rows, revision) = read.map_err(contradiction)??;
    let unwritable =
        |error: &dyn std::fmt::Display| OpenError::Write { file: file.into(), detail: error.to_string() };
    held.accept().map_err(|error| unwritable(&error))?;
    // Gives back what deleted rows have left. A store without it is as good.
    if let Err(error) = database.compact() {
        tracing::warn!(%error, file = %file.display(), "the store could not be compacted");
    }
    Ok(Opened { database, lock, rows, revision })
}

fn load(database: &Database, file: &Path) -> Result<(Rows, Revision), OpenError> {
    let failed = |error: redb::Error| error::opening(file, error);
    let corrupt = |detail: String| OpenError::Corrupt { file: file.into(), detail };
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let meta = transaction.open_table(META).map_err(|error| failed(error.into()))?;
    let number = |key: &'static str| -> Result<u64, OpenError> {
        let found = meta.get(key).map_err(|error| failed(error.into()))?;
        found.map(|value| value.value()).ok_or_else(|| corrupt(format!("its {key} is missing")))
    };
    let found = number(META_SCHEMA)?;
    if found != SCHEMA {
        return Err(OpenError::Schema { file: file.into(), found, known: SCHEMA });
    }
    let last = number(META_REVISION)?;
    let table = transaction.open_table(ROWS).map_err(|error| failed(error.into()))?;
    let mut rows = Rows::new();
    for row in table.iter().map_err(|error| failed(error.into()))? {
        let (key, value) = row.map_err(|error| failed(error.into()))?;
        let (revision, value) = value.value();
        let key = Key::parse(key.value()).map_err(|error| corrupt(error.to_string()))?;
        if revision == 0 || revision > last {
            return Err(corrupt(format!("`{key}` has revision {revision}, and the last one is {last}")));
        }
        if value.len() > MAX_VALUE_BYTES {
            return Err(corrupt(format!("`{key}` has a value of {} bytes", value.len())));
        }
        rows.insert(key, (Revision(revision), Bytes::copy_from_slice(value)));
    }
    Ok((rows, Revision(last)))
}

/// Makes an empty store under another name first: a file with the store's name is always whole.
fn create(file: &Path) -> Result<(), OpenError> {
    let fresh = beside(file, "new");
    let written = (|| -> Result<(), redb::Error> {
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        let database = Builder::new().create(&fresh)?;
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_SCHEMA, SCHEMA)?;
            meta.insert(META_REVISION, 0)?;
            transaction.open_table(ROWS)?;
        }
        transaction.commit()?;
        database.close()?;
        fs::rename(&fresh, file)?;
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(())
    })();
    written.map_err(|error| match error {
        redb::Error::Io(source) => OpenError::Open { file: file.into(), source },
        other => OpenError::Write { file: file.into(), detail: other.to_string() },
    })
}

/// The lock is a file of its own, so that taking it never touches the store, and so that it can say who has it.
fn lock(file: &Path) -> Result<File, OpenError> {
    let failed = |source: io::Error| OpenError::Open { file: file.into(), source };
    let mut lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(file, "lock"))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who has it is a courtesy: without it the sentence is shorter.
            let _ = lock.take(32).read_to_string(&mut holder);
            return Err(OpenError::Locked { file: file.into(), holder: holder.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
    Ok(lock)
}

/// `store.redb` → `store.redb.new`.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
