//! Directories in memory, with a bounded log of changes each: what [`DirectorySource`] is served from. Whoever owns the
//! rows (or a test) records changes here after they are durable.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dataplane::types::{CustomerIp, Vni};
use tokio::sync::watch;

use super::source::{Changes, DirectoryEntry, DirectorySource, Page, SourceError};

/// How many changed addresses of a network are remembered.
const LOG: usize = 16_384;

/// All directories.
#[derive(Debug, Default)]
pub struct DirectoryBoard {
    networks: Mutex<HashMap<Vni, Directory>>,
}

#[derive(Debug)]
struct Directory {
    version: watch::Sender<u64>,
    entries: BTreeMap<CustomerIp, DirectoryEntry>,
    /// What changed when, oldest first; complete after `floor`.
    log: VecDeque<(u64, CustomerIp)>,
    floor: u64,
}

impl Default for Directory {
    fn default() -> Self {
        Self { version: watch::Sender::new(0), entries: BTreeMap::new(), log: VecDeque::new(), floor: 0 }
    }
}

impl DirectoryBoard {
    fn networks(&self) -> MutexGuard<'_, HashMap<Vni, Directory>> {
        // Whole changes only are made under it.
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a whole directory in place of what is there, as of `version`: at the start, when the log is not known.
    /// Does nothing when `version` is older than what is there.
    pub fn load(&self, network: Vni, version: u64, entries: impl IntoIterator<Item = DirectoryEntry>) {
        let mut networks = self.networks();
        let directory = networks.entry(network).or_default();
        if version < *directory.version.borrow() {
            return;
        }
        directory.entries = entries.into_iter().map(|entry| (entry.ip, entry)).collect();
        directory.log.clear();
        directory.floor = version;
        directory.version.send_replace(version);
    }

    /// Records one durable change. Versions grow: one that is not newer than the directory's is a repetition, and is left
    /// out.
    pub fn record(&self, network: Vni, version: u64, puts: &[DirectoryEntry], removes: &[CustomerIp]) {
        let mut networks = self.networks();
        let directory = networks.entry(network).or_default();
        if version <= *directory.version.borrow() {
            return;
        }
        for ip in removes {
            directory.entries.remove(ip);
        }
        directory.entries.extend(puts.iter().map(|entry| (entry.ip, *entry)));
        let changed = removes.iter().copied().chain(puts.iter().map(|entry| entry.ip));
        directory.log.extend(changed.map(|ip| (version, ip)));
        while directory.log.len() > LOG {
            // A version goes with its last address; what is left of it until then is of no use.
            directory.floor = directory.log.pop_front().map_or(version, |(oldest, _)| oldest);
        }
        directory.version.send_replace(version);
    }

    /// Adds to the version that is there: for those who have no rows.
    pub fn change(&self, network: Vni, puts: &[DirectoryEntry], removes: &[CustomerIp]) -> u64 {
        let version = *self.watch(network).borrow() + 1;
        self.record(network, version, puts, removes);
        version
    }

    /// Forgets a network that is gone.
    pub fn forget(&self, network: Vni) {
        self.networks().remove(&network);
    }
}

#[async_trait]
impl DirectorySource for DirectoryBoard {
    fn watch(&self, network: Vni) -> watch::Receiver<u64> {
        self.networks().entry(network).or_default().version.subscribe()
    }

    async fn page(&self, network: Vni, after: Option<CustomerIp>, limit: usize) -> Result<Page, SourceError> {
        let mut networks = self.networks();
        let directory = networks.entry(network).or_default();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = directory.entries.range((from, Bound::Unbounded)).map(|(_, entry)| *entry);
        let entries: Vec<_> = rest.by_ref().take(limit).collect();
        Ok(Page { version: *directory.version.borrow(), entries, more: rest.next().is_some() })
    }

    async fn changes(&self, network: Vni, from: u64, limit: usize) -> Result<Changes, SourceError> {
        let mut networks = self.networks();
        let directory = networks.entry(network).or_default();
        let version = *directory.version.borrow();
        if from < directory.floor || from > version {
            return Ok(Changes::Compacted);
        }
        let first = directory.log.partition_point(|(version, _)| *version <= from);
        let mut changed = BTreeSet::new();
        // Up to here all is told; the version that is being gathered may not fit any more.
        let (mut to, mut gathered) = (from, BTreeSet::new());
        let mut gathering = None;
        for &(version, ip) in directory.log.range(first..) {
            if gathering != Some(version) {
                to = gathering.unwrap_or(to);
                changed.append(&mut gathered);
                gathering = Some(version);
            }
            gathered.insert(ip);
            if changed.len() + gathered.len() > limit {
                return Ok(if to == from { Changes::Compacted } else { delta(directory, to, changed) });
            }
        }
        changed.append(&mut gathered);
        Ok(delta(directory, version, changed))
    }
}

/// The changed addresses as they are now.
fn delta(directory: &Directory, to: u64, changed: BTreeSet<CustomerIp>) -> Changes {
    let (mut puts, mut removes) = (Vec::new(), Vec::new());
    for ip in changed {
        match directory.entries.get(&ip) {
            Some(entry) => puts.push(*entry),
            None => removes.push(ip),
        }
    }
    Changes::Delta { to, puts, removes }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]
    use super::*;
    use dataplane::types::{MacAddr, PhysicalIp};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn vni() -> Vni {
        Vni::new(7).unwrap()
    }

    fn ip(last: u8) -> CustomerIp {
        CustomerIp(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))
    }

    fn entry(last: u8, host: u8) -> DirectoryEntry {
        let physical_ip = PhysicalIp(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)));
        DirectoryEntry { ip: ip(last), mac: MacAddr([2, 0, 0, 0, 0, last]), physical_ip }
    }

    #[tokio::test]
    async fn a_delta_ends_between_versions_and_what_is_forgotten_is_compacted() {
        let board = DirectoryBoard::default();
        board.record(vni(), 10, &[entry(1, 1), entry(2, 1)], &[]);
        board.record(vni(), 20, &[entry(3, 1)], &[ip(1)]);
        let changes = |from, limit| board.changes(vni(), from, limit);
        let whole = Changes::Delta { to: 20, puts: vec![entry(2, 1), entry(3, 1)], removes: vec![ip(1)] };
        assert_eq!(changes(0, 10).await.unwrap(), whole);
        // Only the first version fits: address 1 is told as it is now, not as it was.
        let first = Changes::Delta { to: 10, puts: vec![entry(2, 1)], removes: vec![ip(1)] };
        assert_eq!(changes(0, 2).await.unwrap(), first);
        assert_eq!(changes(0, 1).await.unwrap(), Changes::Compacted);
        let nothing = Changes::Delta { to: 20, puts: vec![], removes: vec![] };
        assert_eq!(changes(20, 10).await.unwrap(), nothing);
        assert_eq!(changes(21, 10).await.unwrap(), Changes::Compacted, "nobody knows this version");

        // Repetitions and older versions change nothing.
        board.record(vni(), 20, &[entry(9, 9)], &[]);
        board.load(vni(), 19, []);
        assert_eq!(changes(0, 10).await.unwrap(), whole);
        board.load(vni(), 30, [entry(1, 1)]);
        assert_eq!(changes(20, 10).await.unwrap(), Changes::Compacted);
        assert_eq!(changes(30, 10).await.unwrap(), Changes::Delta { to: 30, puts: vec![], removes: vec![] });
    }

    #[tokio::test]
    async fn the_log_is_bounded() {
        let board = DirectoryBoard::default();
        for _ in 0..LOG + 10 {
            board.change(vni(), &[entry(1, 1)], &[]);
        }
        assert_eq!(board.networks()[&vni()].log.len(), LOG);
        assert_eq!(board.changes(vni(), 9, 10).await.unwrap(), Changes::Compacted);
        assert!(matches!(board.changes(vni(), 10, 10).await.unwrap(), Changes::Delta { .. }));
    }

    proptest! {
        /// Whoever follows pages and deltas, with changes in between, ends with what the directory has.
        #[test]
        fn followers_end_with_the_truth(
            steps in proptest::collection::vec((0u8..12, 1u8..5, any::<bool>(), 0u8..3), 1..80),
            limit in 1usize..6,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let board = DirectoryBoard::default();
                let mut held: BTreeMap<CustomerIp, DirectoryEntry> = BTreeMap::new();
                let mut at: Option<u64> = None;
                let mut paging: Option<(u64, Option<CustomerIp>)> = None;
                let mut steps = steps.into_iter();
                let mut quiet = 0;
                while quiet < 40 {
                    let mut pulls = 1;
                    match steps.next() {
                        Some((last, host, put, more)) => {
                            let (puts, removes) = (vec![entry(last, host)], vec![ip(last)]);
                            if put { board.change(vni(), &puts, &[]) } else { board.change(vni(), &[], &removes) };
                            pulls = more;
                        }
                        None => quiet += 1,
                    }
                    for _ in 0..pulls {
                        match at {
                            Some(version) => match board.changes(vni(), version, limit).await.unwrap() {
                                Changes::Compacted => at = None,
                                Changes::Delta { to, puts, removes } => {
                                    assert!(to >= version && puts.len() + removes.len() <= limit);
                                    held.extend(puts.iter().map(|entry| (entry.ip, *entry)));
                                    removes.iter().for_each(|ip| { held.remove(ip); });
                                    at = Some(to);
                                }
                            },
                            None => {
                                let (start, after) = paging.map_or((None, None), |(start, after)| (Some(start), after));
                                let page = board.page(vni(), after, limit).await.unwrap();
                                let last = page.entries.last().map(|entry| entry.ip);
                                // The page says everything about its range of addresses.
                                held.retain(|ip, _| after.is_some_and(|after| *ip <= after)
                                    || page.more && last.is_some_and(|last| *ip > last));
                                held.extend(page.entries.iter().map(|entry| (entry.ip, *entry)));
                                let start = start.unwrap_or(page.version);
                                (at, paging) = if page.more { (None, Some((start, last))) } else { (Some(start), None) };
                            }
                        }
                    }
                }
                assert_eq!(held, board.networks()[&vni()].entries);
            });
        }
    }
}
