//! Pools' rows, and the machines that are ready in each.

use crate::model::{Combination, Pool, PoolId, VmId};
use crate::store::rows::{self, Row, RowError, Versioned};
use crate::store::{Draft, Key, KeyError, Prefix, Revision, Store};

impl Row for Pool {
    const KIND: &'static str = "pool";
    const SCHEMA: u32 = 1;
}

/// Where a pool's row is.
///
/// # Errors
/// Never.
pub fn key(id: PoolId) -> Result<Key, KeyError> {
    Key::of(["pool", &id.to_string()])
}

/// All pools.
///
/// # Errors
/// Never.
pub fn prefix() -> Result<Prefix, KeyError> {
    Prefix::of(["pool"])
}

fn stock_key(pool: PoolId, vm: VmId) -> Result<Key, KeyError> {
    Key::of(["stock", &pool.to_string(), &vm.to_string()])
}

/// All machines that are ready in a pool.
///
/// # Errors
/// Never.
pub fn stock_prefix(pool: PoolId) -> Result<Prefix, KeyError> {
    Prefix::of(["stock", &pool.to_string()])
}

/// A pool.
///
/// # Errors
/// The store's.
pub async fn pool(store: &dyn Store, id: PoolId) -> Result<Option<Versioned<Pool>>, RowError> {
    rows::load(store, &key(id)?).await
}

/// All pools.
///
/// # Errors
/// The store's.
pub async fn all(store: &dyn Store) -> Result<Vec<Versioned<Pool>>, RowError> {
    Ok(rows::list_all(store, &prefix()?).await?.rows)
}

/// The pools whose machines are of this combination, and from which may be taken.
///
/// # Errors
/// The store's.
pub async fn of_combination(store: &dyn Store, combination: &Combination) -> Result<Vec<Pool>, RowError> {
    let pools = all(store).await?.into_iter().map(|pool| pool.row);
    Ok(pools.filter(|pool| pool.combination == *combination && !pool.draining).collect())
}

/// A machine that is ready, and the revision that taking it requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stocked {
    /// Where.
    pub pool: PoolId,
    /// Which.
    pub vm: VmId,
    /// Since when.
    pub revision: Revision,
}

/// The machines that are ready in a pool.
///
/// # Errors
/// The store's.
pub async fn stock(store: &dyn Store, pool: PoolId) -> Result<Vec<Stocked>, RowError> {
    let prefix = stock_prefix(pool)?;
    let (mut all, mut after): (Vec<Stocked>, Option<Key>) = (Vec::new(), None);
    loop {
        let page = store.list(&prefix, after.as_ref(), usize::MAX).await?;
        after = page.entries.last().map(|entry| entry.key.clone());
        all.extend(page.entries.iter().filter_map(|entry| {
            let vm = entry.key.segments().nth(2)?.parse().ok()?;
            Some(Stocked { pool, vm, revision: entry.revision })
        }));
        if !page.more {
            return Ok(all);
        }
    }
}

/// Takes a machine out of the stock; the transaction conflicts if somebody else does too.
///
/// # Errors
/// Never.
pub fn take(draft: &mut Draft, stocked: &Stocked) -> Result<(), KeyError> {
    let key = stock_key(stocked.pool, stocked.vm)?;
    draft.require(&key, stocked.revision).delete(&key);
    Ok(())
}

/// A machine is ready.
///
/// # Errors
/// Never.
pub fn put_in_stock(draft: &mut Draft, pool: PoolId, vm: VmId) -> Result<(), KeyError> {
    draft.put(&stock_key(pool, vm)?, "{}");
    Ok(())
}
