//! The documents of hosts in memory, each with what changed when: what [`DesiredSource`] is served from.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dataplane::desired::NetworkConfig;
use tokio::sync::watch;

use super::source::{DesiredChange, DesiredSource, SourceError};
use crate::model::{HostDesired, HostId, VmDesired, VmId};

/// How many removed machines of a host are remembered.
const REMOVED: usize = 1024;

/// All hosts' documents.
#[derive(Debug, Default)]
pub struct DesiredBoard {
    hosts: Mutex<HashMap<HostId, Sheet>>,
}

#[derive(Debug)]
struct Sheet {
    generation: watch::Sender<u64>,
    networks: Vec<Arc<NetworkConfig>>,
    /// Each machine, and since when it is as it is.
    vms: BTreeMap<VmId, (u64, Arc<VmDesired>)>,
    /// Machines that went, oldest first; complete after `floor`.
    removed: VecDeque<(u64, VmId)>,
    floor: u64,
}

impl Default for Sheet {
    fn default() -> Self {
        Self {
            generation: watch::Sender::new(0),
            networks: Vec::new(),
            vms: BTreeMap::new(),
            removed: VecDeque::new(),
            floor: 0,
        }
    }
}

impl DesiredBoard {
    fn hosts(&self) -> MutexGuard<'_, HashMap<HostId, Sheet>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what a host should hold; what is different from before is found here. A document that is not newer than the
    /// one that is there is left out.
    pub fn put(&self, host: HostId, document: HostDesired) {
        let mut hosts = self.hosts();
        let sheet = hosts.entry(host).or_default();
        let before = *sheet.generation.borrow();
        if document.generation <= before {
            return;
        }
        let now = document.generation;
        let mut old = std::mem::take(&mut sheet.vms);
        for vm in document.vms {
            let since = match old.remove(&vm.vm) {
                Some((since, same)) if Arc::ptr_eq(&same, &vm) || same == vm => since,
                _ => now,
            };
            sheet.vms.insert(vm.vm, (since, vm));
        }
        sheet.removed.extend(old.into_keys().map(|gone| (now, gone)));
        while sheet.removed.len() > REMOVED {
            sheet.floor = sheet.removed.pop_front().map_or(now, |(then, _)| then);
        }
        if before == 0 {
            // What was before the first document is not known here.
            sheet.floor = now;
        }
        sheet.networks = document.networks;
        sheet.generation.send_replace(now);
    }

    /// Forgets a host that is gone.
    pub fn forget(&self, host: HostId) {
        self.hosts().remove(&host);
    }
}

#[async_trait]
impl DesiredSource for DesiredBoard {
    fn watch(&self, host: HostId) -> watch::Receiver<u64> {
        self.hosts().entry(host).or_default().generation.subscribe()
    }

    async fn changes(&self, host: HostId, after: Option<u64>) -> Result<Option<DesiredChange>, SourceError> {
        let hosts = self.hosts();
        let Some(sheet) = hosts.get(&host) else { return Ok(None) };
        let generation = *sheet.generation.borrow();
        if generation == 0 {
            return Ok(None);
        }
        let base = after.filter(|after| (sheet.floor..=generation).contains(after));
        let is_new = |since: u64| base.is_none_or(|base| since > base);
        // A machine that went and came back is there.
        let gone = |vm: &VmId| !sheet.vms.contains_key(vm);
        Ok(Some(DesiredChange {
            generation,
            base,
            networks: sheet.networks.clone(),
            vms: sheet.vms.values().filter(|(since, _)| is_new(*since)).map(|(_, vm)| vm.clone()).collect(),
            removed: sheet
                .removed
                .iter()
                .filter(|(then, vm)| base.is_some_and(|base| *then > base) && gone(vm))
                .map(|(_, vm)| *vm)
                .collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]
    use super::*;
    use crate::fleet::samples::vm;

    fn document(generation: u64, vms: &[&Arc<VmDesired>]) -> HostDesired {
        HostDesired { generation, networks: vec![], vms: vms.iter().map(|vm| (*vm).clone()).collect() }
    }

    #[tokio::test]
    async fn a_change_names_what_is_different_since_then() {
        let (board, host) = (DesiredBoard::default(), HostId::new());
        assert_eq!(board.changes(host, None).await.unwrap(), None, "not known yet");
        let _ = board.watch(host);
        assert_eq!(board.changes(host, None).await.unwrap(), None, "not known yet");
        let (a, b, c) = (Arc::new(vm(1)), Arc::new(vm(1)), Arc::new(vm(1)));
        board.put(host, document(5, &[&a, &b]));
        let told = |change: Option<DesiredChange>| {
            let change = change.unwrap();
            let vms: Vec<_> = change.vms.iter().map(|vm| vm.vm).collect();
            (change.generation, change.base, vms, change.removed)
        };
        let mut both = vec![a.vm, b.vm];
        both.sort();
        assert_eq!(told(board.changes(host, None).await.unwrap()), (5, None, both.clone(), vec![]));
        // A host that knows an older document, from before a restart, or a newer one, gets it all.
        assert_eq!(told(board.changes(host, Some(4)).await.unwrap()).1, None);
        assert_eq!(told(board.changes(host, Some(6)).await.unwrap()).1, None);
        assert_eq!(told(board.changes(host, Some(5)).await.unwrap()), (5, Some(5), vec![], vec![]));

        let newer = Arc::new(VmDesired { generation: 2, ..(*a).clone() });
        board.put(host, document(6, &[&newer, &c]));
        assert_eq!(told(board.changes(host, Some(6)).await.unwrap()), (6, Some(6), vec![], vec![]));
        let mut two = vec![a.vm, c.vm];
        two.sort();
        assert_eq!(told(board.changes(host, Some(5)).await.unwrap()), (6, Some(5), two, vec![b.vm]));
        // It comes back: then it is new and not gone.
        board.put(host, document(7, &[&newer, &c, &b]));
        assert_eq!(told(board.changes(host, Some(5)).await.unwrap()).3, vec![]);
        assert_eq!(told(board.changes(host, Some(6)).await.unwrap()), (7, Some(6), vec![b.vm], vec![]));
        // An older document is not a change.
        board.put(host, document(7, &[]));
        assert_eq!(told(board.changes(host, Some(7)).await.unwrap()), (7, Some(7), vec![], vec![]));
    }

    #[tokio::test]
    async fn what_went_is_remembered_up_to_a_bound() {
        let (board, host) = (DesiredBoard::default(), HostId::new());
        let many: Vec<_> = (0..=REMOVED).map(|_| Arc::new(vm(1))).collect();
        board.put(host, document(1, &many.iter().collect::<Vec<_>>()));
        board.put(host, document(2, &many[1..].iter().collect::<Vec<_>>()));
        assert_eq!(board.changes(host, Some(1)).await.unwrap().unwrap().removed, [many[0].vm]);
        board.put(host, document(3, &[]));
        assert_eq!(board.changes(host, Some(1)).await.unwrap().unwrap().base, None, "one was forgotten");
        assert_eq!(board.changes(host, Some(2)).await.unwrap().unwrap().removed.len(), REMOVED);
    }
}
