//! What hosts say of their machines: a row for each, written by whoever has the host's connection.

use crate::model::{VmFact, VmId};
use crate::store::rows::{self, Row, RowError, Versioned};
use crate::store::{Draft, Key, KeyError, Prefix, Store};

impl Row for VmFact {
    const KIND: &'static str = "fact";
    const SCHEMA: u32 = 1;
}

/// Where a machine's fact is.
///
/// # Errors
/// Never.
pub fn fact_key(vm: VmId) -> Result<Key, KeyError> {
    Key::of(["fact", &vm.to_string(), "last"])
}

/// What is to be watched for news of one machine.
///
/// # Errors
/// Never.
pub fn fact_prefix(vm: VmId) -> Result<Prefix, KeyError> {
    Prefix::of(["fact", &vm.to_string()])
}

/// All facts.
///
/// # Errors
/// Never.
pub fn facts_prefix() -> Result<Prefix, KeyError> {
    Prefix::of(["fact"])
}

/// What was said of a machine last.
///
/// # Errors
/// The store's.
pub async fn fact_of(store: &dyn Store, vm: VmId) -> Result<Option<Versioned<VmFact>>, RowError> {
    rows::load(store, &fact_key(vm)?).await
}

/// Writes what a host says; nothing when the machine is no longer known.
///
/// # Errors
/// Never.
pub fn put_fact(draft: &mut Draft, fact: &VmFact) -> Result<(), KeyError> {
    draft.put_row(&fact_key(fact.vm)?, fact);
    Ok(())
}
