//! The directories that the controller sends, put into the switch: page by page and delta by delta, in order, acknowledged
//! when the switch has them on its disk. A version never goes back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use dataplane::ctl::Request;
use dataplane::ctl::protocol::{Counted, Entries, Networks};
use dataplane::switch::Mapping;
use dataplane::types::{CustomerIp, PhysicalIp, Vni};

use super::ledger::{Ledger, LedgerError};
use super::switch::{Switch, SwitchFault};
use crate::fleet::DirectoryEntry;
use crate::model::Problem;

/// Entries of a network that is gone are removed so many at a time: updates of others go in between.
const FORGOTTEN_AT_ONCE: usize = 64;

/// What comes over the link about directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Update {
    /// A page of a snapshot.
    Page {
        /// The network.
        network: Vni,
        /// The snapshot's version.
        version: u64,
        /// In order.
        entries: Vec<DirectoryEntry>,
        /// It is the first one.
        first: bool,
        /// Another one follows.
        more: bool,
    },
    /// What changed.
    Delta {
        /// The network.
        network: Vni,
        /// After this version.
        from: u64,
        /// Up to this one.
        to: u64,
        /// New or different.
        puts: Vec<DirectoryEntry>,
        /// Gone.
        removes: Vec<CustomerIp>,
    },
}

/// Why an update is not in the switch.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryFault {
    /// It does not follow what is held: the stream must begin anew.
    #[error("network {network}: {why}")]
    OutOfOrder {
        /// The network.
        network: Vni,
        /// What does not fit.
        why: String,
    },
    /// The switch did not take it.
    #[error(transparent)]
    Switch(#[from] SwitchFault),
    /// The version could not be noted.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl DirectoryFault {
    /// What, where, and what to do about it.
    #[must_use]
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::OutOfOrder { .. } => Problem::new(
                self.to_string(),
                "directory",
                "none, if it happens once; if the controller's store was put back to an earlier state, move the host's ledger away and start its agent anew",
            ),
            Self::Switch(fault) => fault.problem(),
            Self::Ledger(error) => error.problem(),
        }
    }
}

/// The switch's directories.
pub(super) struct Directories {
    switch: Arc<Switch>,
    ledger: Arc<Ledger>,
    /// This host's own addresses. What is here is found as a port; an entry that names this host would have its switch
    /// believe forged packets of its own.
    own: HashSet<PhysicalIp>,
    /// Snapshots that are under way: version, last address of the page before.
    paging: HashMap<Vni, (u64, Option<CustomerIp>)>,
}

impl Directories {
    /// Directories of a host with these addresses.
    #[must_use]
    pub(super) fn new(
        switch: Arc<Switch>,
        ledger: Arc<Ledger>,
        own: impl IntoIterator<Item = PhysicalIp>,
    ) -> Self {
        Self { switch, ledger, own: own.into_iter().collect(), paging: HashMap::new() }
    }

    /// What the switch holds, for the greeting. A switch whose document is older than it was, or that has nothing of a
    /// network, has lost its state or got back an earlier one: then it holds nothing.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub(super) async fn held(&mut self) -> Result<BTreeMap<Vni, u64>, SwitchFault> {
        self.paging.clear();
        let now = self.switch.export().await?.generation.0;
        let mut held = BTreeMap::new();
        for (network, (version, generation)) in self.ledger.held().directories {
            let first = Request::DirectoryList { network: Some(network), after: None, limit: 1 };
            if generation <= now && !self.switch.call::<Entries>(first).await?.entries.is_empty() {
                held.insert(network, version);
            }
        }
        Ok(held)
    }

    /// Puts an update into the switch, and gives the version to acknowledge, if that makes one whole.
    ///
    /// # Errors
    /// When it does not follow, or the switch or the disk refuses.
    pub(super) async fn take(&mut self, update: Update) -> Result<Option<(Vni, u64)>, DirectoryFault> {
        match update {
            Update::Page { network, version, entries, first, more } => {
                self.page(network, version, entries, first, more).await
            }
            Update::Delta { network, from, to, puts, removes } => {
                let held = self.ledger.directory_version(network);
                if held != Some(from) || to < from {
                    let why = format!("a change from version {from} to {to} came while {held:?} is held");
                    return Err(DirectoryFault::OutOfOrder { network, why });
                }
                let (mine, others): (Vec<_>, Vec<_>) =
                    puts.into_iter().partition(|entry| self.own.contains(&entry.physical_ip));
                self.set(network, &others).await?;
                for ip in removes.into_iter().chain(mine.into_iter().map(|entry| entry.ip)) {
                    self.remove(network, ip).await?;
                }
                self.note(network, Some(to)).await?;
                Ok(Some((network, to)))
            }
        }
    }

    /// Removes some entries of a network that is off the switch; true when none are left, or when it is wanted again.
    ///
    /// # Errors
    /// When the switch or the disk refuses.
    pub(super) async fn forget_some(&mut self, network: Vni) -> Result<bool, DirectoryFault> {
        if self.ledger.network(network).is_some() {
            return Ok(true);
        }
        let request =
            Request::DirectoryList { network: Some(network), after: None, limit: FORGOTTEN_AT_ONCE };
        let page: Entries = self.switch.call(request).await?;
        for entry in &page.entries {
            self.remove(network, entry.ip).await?;
        }
        if page.more {
            return Ok(false);
        }
        let ledger = self.ledger.clone();
        let noted = tokio::task::spawn_blocking(move || ledger.network_gone(network)).await;
        noted.map_err(|_| SwitchFault::Silent)??;
        Ok(true)
    }

    async fn page(
        &mut self,
        network: Vni,
        version: u64,
        entries: Vec<DirectoryEntry>,
        first: bool,
        more: bool,
    ) -> Result<Option<(Vni, u64)>, DirectoryFault> {
        let out_of_order = |why: String| Err(DirectoryFault::OutOfOrder { network, why });
        let after = if first {
            if let Some(held) = self.ledger.directory_version(network).filter(|held| *held > version) {
                return out_of_order(format!("a snapshot of version {version} came while {held} is held"));
            }
            // Between the first page and the last one no version is held.
            self.note(network, None).await?;
            None
        } else {
            match self.paging.get(&network) {
                Some((paging, after)) if *paging == version => *after,
                _ => return out_of_order(format!("a page of version {version} came without the one before")),
            }
        };
        let last = entries.last().map(|entry| entry.ip);
        let ordered = entries.windows(2).all(|pair| matches!(pair, [a, b] if a.ip < b.ip));
        let begins = entries.first().is_none_or(|entry| after.is_none_or(|after| entry.ip > after));
        if !ordered || !begins || more && last.is_none() {
            return out_of_order("a page is not in the order of addresses".to_owned());
        }
        let is = self.between(network, after, last.filter(|_| more)).await?;
        let should: BTreeMap<CustomerIp, DirectoryEntry> = entries
            .into_iter()
            .filter(|entry| !self.own.contains(&entry.physical_ip))
            .map(|entry| (entry.ip, entry))
            .collect();
        let different: Vec<DirectoryEntry> =
            should.values().filter(|entry| is.get(&entry.ip) != Some(entry)).copied().collect();
        self.set(network, &different).await?;
        for ip in is.keys().filter(|ip| !should.contains_key(ip)) {
            self.remove(network, *ip).await?;
        }
        if more {
            self.paging.insert(network, (version, last));
            return Ok(None);
        }
        self.paging.remove(&network);
        self.note(network, Some(version)).await?;
        Ok(Some((network, version)))
    }

    /// What the switch has behind `after`, up to and with `last`, or to the end.
    async fn between(
        &self,
        network: Vni,
        after: Option<CustomerIp>,
        last: Option<CustomerIp>,
    ) -> Result<BTreeMap<CustomerIp, DirectoryEntry>, SwitchFault> {
        let mut found = BTreeMap::new();
        let mut after = after.map(|ip| (network, ip));
        loop {
            let request = Request::DirectoryList {
                network: Some(network),
                after,
                limit: dataplane::ctl::protocol::LARGEST_PAGE,
            };
            let page: Entries = self.switch.call(request).await?;
            let Some(end) = page.entries.last().map(|entry| entry.ip) else { return Ok(found) };
            for Mapping { ip, mac, physical_ip, .. } in page.entries {
                if last.is_none_or(|last| ip <= last) {
                    found.insert(ip, DirectoryEntry { ip, mac, physical_ip });
                }
            }
            if !page.more || last.is_some_and(|last| end >= last) {
                return Ok(found);
            }
            after = Some((network, end));
        }
    }

    async fn set(&self, network: Vni, entries: &[DirectoryEntry]) -> Result<(), SwitchFault> {
        if entries.is_empty() {
            return Ok(());
        }
        let mapping = |entry: &DirectoryEntry| {
            let DirectoryEntry { ip, mac, physical_ip } = *entry;
            Mapping { network, ip, mac, physical_ip }
        };
        let request = Request::DirectorySet { entries: entries.iter().map(mapping).collect() };
        let _: Counted = self.switch.call(request).await?;
        Ok(())
    }

    async fn remove(&self, network: Vni, ip: CustomerIp) -> Result<(), SwitchFault> {
        let removed: Result<Counted, _> = self.switch.call(Request::DirectoryRemove { network, ip }).await;
        let Err(error) = removed else { return Ok(()) };
        // An address that is given up may have been nowhere: what shall not be there is not there.
        let there: Result<Mapping, _> = self.switch.call(Request::DirectoryLookup { network, ip }).await;
        match there {
            Err(SwitchFault::Told(_)) => Ok(()),
            _ => Err(error),
        }
    }

    /// The switch's generation goes with the version: one that has lost its state will have a lower one.
    async fn note(&self, network: Vni, version: Option<u64>) -> Result<(), DirectoryFault> {
        let version = match version {
            Some(version) => {
                let networks: Networks = self.switch.call(Request::NetworkList {}).await?;
                Some((version, networks.generation.0))
            }
            None => None,
        };
        let ledger = self.ledger.clone();
        let noted = tokio::task::spawn_blocking(move || ledger.directory(network, version)).await;
        noted.map_err(|_| SwitchFault::Silent)??;
        Ok(())
    }
}
