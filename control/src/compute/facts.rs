//! What hosts say of their machines: a row for each, written by whoever has the host's connection.

use crate::model::{VmFact, VmId, VmRunning};
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

/// Adds what a host says now to what was known: a host that says nothing new of the guest knows nothing new, for its agent
/// may have been started again.
#[must_use]
pub fn merged(known: Option<&VmFact>, said: &VmFact, now: jiff::Timestamp) -> VmFact {
    let mut fact = said.clone();
    if let Some(known) = known {
        fact.report = fact.report.or_else(|| known.report.clone());
        fact.heard_at = fact.heard_at.max(known.heard_at);
        fact.died_at = fact.died_at.max(known.died_at);
        if fact.times.is_none() && known.generation == fact.generation {
            fact.times = known.times;
        }
    }
    if fact.running == VmRunning::Dead {
        fact.died_at = Some(now);
    }
    fact
}

/// Writes what is known of a machine.
///
/// # Errors
/// Never.
pub fn put_fact(draft: &mut Draft, fact: &VmFact) -> Result<(), KeyError> {
    draft.put_row(&fact_key(fact.vm)?, fact);
    Ok(())
}
