//! Who holds which network, and how far each host has followed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{NetworkError, keys};
use crate::model::{HostId, Moniker, NicId};
use crate::store::rows::{self, Row};
use crate::store::{Draft, Key, Revision, Store};

/// How far a host has followed, as its connection's keeper wrote it last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostProgress {
    /// Whether it is connected. Nobody waits for one that is not: it learns everything when it comes back, before it does
    /// anything new.
    pub attached: bool,
    /// Which controller it is connected to, or was last.
    #[serde(default)]
    pub controller: String,
    /// Up to which revision it has each network's directory.
    pub directory: BTreeMap<Moniker, Revision>,
}

impl Row for HostProgress {
    const KIND: &'static str = "progress";
    const SCHEMA: u32 = 1;
}

/// From now on `host` needs to know about `network`, because of `nic`.
///
/// # Errors
/// Never with a real moniker.
pub fn hold(draft: &mut Draft, network: &Moniker, host: HostId, nic: NicId) -> Result<(), NetworkError> {
    draft.put(&keys::holder(network, host, nic)?, "{}");
    Ok(())
}

/// Not because of `nic` any more.
///
/// # Errors
/// Never with a real moniker.
pub fn let_go(draft: &mut Draft, network: &Moniker, host: HostId, nic: NicId) -> Result<(), NetworkError> {
    draft.delete(&keys::holder(network, host, nic)?);
    Ok(())
}

/// The hosts that hold a network.
///
/// # Errors
/// The store's.
pub async fn holders(store: &dyn Store, network: &Moniker) -> Result<BTreeSet<HostId>, NetworkError> {
    let prefix = keys::holder_prefix(network)?;
    let (mut hosts, mut after): (BTreeSet<HostId>, Option<Key>) = (BTreeSet::new(), None);
    loop {
        let page = store.list(&prefix, after.as_ref(), usize::MAX).await?;
        after = page.entries.last().map(|entry| entry.key.clone());
        let named =
            page.entries.iter().filter_map(|entry| entry.key.segments().nth(2)?.parse::<HostId>().ok());
        hosts.extend(named);
        if !page.more {
            return Ok(hosts);
        }
    }
}

/// Whether a host that is not connected is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It is: what it believes matters.
    Wait,
    /// It is not: it will learn before it does anything new.
    Skip,
}

/// True when every host that holds `network`, `except` aside, has its directory up to `revision`.
///
/// # Errors
/// The store's.
pub async fn everyone_knows(
    store: &dyn Store,
    network: &Moniker,
    revision: Revision,
    except: Option<HostId>,
    absent: Absent,
) -> Result<bool, NetworkError> {
    for host in holders(store, network).await? {
        if Some(host) == except {
            continue;
        }
        let progress = rows::load::<HostProgress>(store, &keys::progress(host)?).await?;
        let behind = progress.is_some_and(|progress| {
            (progress.row.attached || absent == Absent::Wait)
                && progress.row.directory.get(network).is_none_or(|seen| *seen < revision)
        });
        if behind {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The hosts that are connected.
///
/// # Errors
/// The store's.
pub async fn attached(store: &dyn Store) -> Result<BTreeSet<HostId>, NetworkError> {
    let all = rows::list_all::<HostProgress>(store, &keys::progress_prefix()?).await?;
    let connected = all.rows.iter().filter(|progress| progress.row.attached);
    Ok(connected.filter_map(|progress| progress.key.segments().nth(1)?.parse().ok()).collect())
}

/// How far those hosts are that are or were connected to this controller.
///
/// # Errors
/// The store's.
pub async fn progress_of(
    store: &dyn Store,
    controller: &str,
) -> Result<Vec<(HostId, HostProgress)>, NetworkError> {
    let all = rows::list_all::<HostProgress>(store, &keys::progress_prefix()?).await?.rows;
    let mine = all.into_iter().filter(|progress| progress.row.controller == controller);
    Ok(mine
        .filter_map(|progress| Some((progress.key.segments().nth(1)?.parse().ok()?, progress.row)))
        .collect())
}

/// Writes down how far a host is.
///
/// # Errors
/// Never.
pub fn set_progress(draft: &mut Draft, host: HostId, progress: &HostProgress) -> Result<(), NetworkError> {
    draft.put_row(&keys::progress(host)?, progress);
    Ok(())
}
