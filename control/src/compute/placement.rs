//! Placement: which host a new machine goes to. The one with the most memory left among those that can run it.

use super::{hosts, load_vm, on_host};
use crate::model::{Combination, Host, HostState, Problem};
use crate::store::Store;
use crate::store::rows::RowError;

/// Why no host is found.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// No host has room for it.
    #[error("{0}")]
    NoRoom(Problem),
    /// The store failed.
    #[error(transparent)]
    Row(#[from] RowError),
}

/// The host for a machine of this combination. `attached` says which hosts are connected.
///
/// Two placements at once may both see the last room of a host: the sum of memory is a wish, not a promise, and the host
/// refuses what it cannot run.
///
/// # Errors
/// `NoRoom` says what is missing.
pub async fn place(
    store: &dyn Store,
    combination: &Combination,
    attached: impl Fn(crate::model::HostId) -> bool,
) -> Result<Host, PlacementError> {
    let mut best: Option<(i128, usize, Host)> = None;
    let all = hosts(store).await?;
    for host in &all {
        let host = &host.row;
        let able = host.state == HostState::Ready
            && attached(host.id)
            && host.inventory.hypervisors.contains(&combination.hypervisor);
        if !able {
            continue;
        }
        let (mut used, mut count) = (0_i128, 0);
        for id in on_host(store, host.id).await? {
            if let Some(vm) = load_vm(store, id).await? {
                used += i128::from(vm.row.combination.memory_mib);
                count += 1;
            }
        }
        let left = i128::from(host.inventory.memory_mib) - used - i128::from(combination.memory_mib);
        if left >= 0 && best.as_ref().is_none_or(|(most, fewest, _)| (left, *fewest) > (*most, count)) {
            best = Some((left, count, host.clone()));
        }
    }
    best.map(|(_, _, host)| host).ok_or_else(|| {
        let what = format!(
            "none of {} hosts can run {combination} and has {} MiB left",
            all.len(),
            combination.memory_mib
        );
        PlacementError::NoRoom(Problem::new(
            what,
            "host",
            "add a host, remove machines, or ask for another combination",
        ))
    })
}
