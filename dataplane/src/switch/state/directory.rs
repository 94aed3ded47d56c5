//! The directory's rows: walked in order, and put in runs.

use std::iter::Peekable;
use std::ops::Bound;
use std::path::Path;

use redb::{CursorError, Database, ReadableDatabase};

use super::rows::{self, Block, BlockKey};
use super::{DIRECTORY, Mapping, StateError, error};
use crate::types::{CustomerIp, Vni};

/// Shows the entries of one network or of all, behind `after`, in order, until `see` has seen enough.
pub(super) fn walk(
    database: &Database,
    file: &Path,
    network: Option<Vni>,
    after: Option<(Vni, CustomerIp)>,
    mut see: impl FnMut(Mapping) -> bool,
) -> Result<(), StateError> {
    let failed = |error: redb::Error| error::reading(file, error);
    let (first, last) = rows::range(network);
    let after = after.map(|(network, ip)| rows::key(network, ip)).filter(|(key, _)| *key >= first);
    let begin = after.as_ref().map_or(&first, |(key, _)| key);
    if *begin > last {
        return Ok(());
    }
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let table = transaction.open_table(DIRECTORY).map_err(|error| failed(error.into()))?;
    let rows = table
        .range::<&BlockKey>((Bound::Included(begin), Bound::Included(&last)))
        .map_err(|error| failed(error.into()))?;
    for row in rows {
        let (key, value) = row.map_err(|error| failed(error.into()))?;
        let bad = |row| error::bad_row(file, row);
        let block = Block::parse(value.value()).map_err(bad)?;
        for mapping in block.mappings(key.value()).map_err(bad)? {
            let seen_before = after.is_some_and(|after| rows::key(mapping.network, mapping.ip) <= after);
            if !seen_before && !see(mapping) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Rows that are put one by one before a run is tried again.
const RUN_AGAIN_AFTER: usize = if cfg!(test) { 2 } else { 64 };

/// Entries of a row that goes into a run: larger ones are put faster one by one.
const FEW: usize = 16;

/// Adds or replaces entries in an open transaction.
pub(super) fn set_mappings(
    transaction: &redb::WriteTransaction,
    mappings: &[Mapping],
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(DIRECTORY)?;
    // In the rows' order each row is written once. Stable: of two mappings of one address the later one counts.
    let mut sorted: Vec<&Mapping> = mappings.iter().collect();
    sorted.sort_by_key(|mapping| (mapping.network, mapping.ip));
    let row = |mapping: &Mapping| rows::key(mapping.network, mapping.ip).0;
    let mut rows = sorted.chunk_by(|a, b| row(a) == row(b)).peekable();
    while rows.peek().is_some() {
        put_run(&mut table, &mut rows)?;
        for together in rows.by_ref().take(RUN_AGAIN_AFTER) {
            put_row(&mut table, together)?;
        }
    }
    Ok(())
}

/// Puts rows into one gap between those that are there, for as long as they fit there: one walk down the tree for all of
/// them. An import into an empty directory is one such run.
fn put_run<'a>(
    table: &mut redb::Table<'_, &BlockKey, &[u8]>,
    rows: &mut Peekable<impl Iterator<Item = &'a [&'a Mapping]>>,
) -> Result<(), redb::Error> {
    let first = rows.peek().filter(|together| together.len() <= FEW).and_then(|together| together.first());
    let Some(first) = first else { return Ok(()) };
    let (key, _) = rows::key(first.network, first.ip);
    let mut gap = table.lower_bound_mut(Bound::Included(&key))?;
    let mut bytes = Vec::new();
    while let Some(&together) = rows.peek().filter(|together| together.len() <= FEW) {
        let Some(first) = together.first() else { break };
        let mut block = Block::default();
        set_in(&mut block, together);
        block.to_bytes(&mut bytes);
        match gap.insert_before(&rows::key(first.network, first.ip).0, bytes.as_slice()) {
            Ok(()) => drop(rows.next()),
            // It is there, or behind one that is.
            Err(CursorError::UnorderedKey) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(gap.close()?)
}

/// Puts a row, whether there is one or not.
fn put_row(table: &mut redb::Table<'_, &BlockKey, &[u8]>, together: &[&Mapping]) -> Result<(), redb::Error> {
    let Some(first) = together.first() else { return Ok(()) };
    let (key, _) = rows::key(first.network, first.ip);
    let (mut block, mut bytes) = (Block::default(), Vec::new());
    set_in(&mut block, together);
    block.to_bytes(&mut bytes);
    // Nearly always there is no such row yet, and putting one tells.
    let replaced = table.insert(&key, bytes.as_slice())?.map(|row| Block::parse(row.value()));
    if let Some(replaced) = replaced {
        let mut block = replaced.map_err(redb::Error::Corrupted)?;
        set_in(&mut block, together);
        block.to_bytes(&mut bytes);
        table.insert(&key, bytes.as_slice())?;
    }
    Ok(())
}

fn set_in(block: &mut Block, mappings: &[&Mapping]) {
    for mapping in mappings {
        block.set(rows::key(mapping.network, mapping.ip).1, mapping.mac, mapping.physical_ip);
    }
}
