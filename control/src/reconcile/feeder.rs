//! Keeps what hosts are told up to date: it follows the rows and puts what they mean onto the boards that sessions are
//! served from.
//!
//! Generations of documents and versions of directories are the store's revisions, so that they grow over restarts and
//! are the same at each controller. Whatever is missed is made good by reading everything anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dataplane::desired::NetworkConfig;
use dataplane::types::{CustomerIp, Vni};
use futures_util::FutureExt;
use tokio::sync::watch;

use super::render::{self, RenderError};
use crate::compute;
use crate::fleet::{DesiredBoard, DirectoryBoard, DirectoryEntry};
use crate::model::{HostDesired, HostId, Moniker, Network, Nic, VmDesired, VmId};
use crate::network::{self, AddressClaim, NetworkError};
use crate::store::rows::{self, RowError};
use crate::store::{Change, KeyError, Prefix, ReadError, Revision, Store, Watch, WatchItem};

/// At most so many revisions are taken together.
const TOGETHER: usize = 256;

/// Why the rows cannot be followed at the moment.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The store.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A machine.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A mistake of the program.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store has been closed.
    #[error("the store has been closed")]
    Closed,
}

/// Follows the rows. There is one for each controller.
pub struct Feeder {
    store: Arc<dyn Store>,
    desired: Arc<DesiredBoard>,
    directory: Arc<DirectoryBoard>,
    /// Up to which revision the boards are.
    seen: watch::Sender<Revision>,
    /// Each host's machines, and the network that each is in.
    hosts: HashMap<HostId, BTreeMap<VmId, (Moniker, Arc<VmDesired>)>>,
    /// Where each machine is.
    places: HashMap<VmId, HostId>,
    networks: HashMap<Moniker, Arc<NetworkConfig>>,
}

/// What a batch of changes asks for.
#[derive(Default)]
struct Work {
    machines: BTreeSet<VmId>,
    networks: BTreeSet<Moniker>,
    entries: BTreeMap<Moniker, BTreeMap<CustomerIp, Option<DirectoryEntry>>>,
    gone: BTreeSet<HostId>,
    revision: Revision,
}

impl Feeder {
    /// A feeder of these boards.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, desired: Arc<DesiredBoard>, directory: Arc<DirectoryBoard>) -> Self {
        Self {
            store,
            desired,
            directory,
            seen: watch::Sender::new(Revision::default()),
            hosts: HashMap::new(),
            places: HashMap::new(),
            networks: HashMap::new(),
        }
    }

    /// Up to which revision the boards are.
    #[must_use]
    pub fn seen(&self) -> watch::Receiver<Revision> {
        self.seen.subscribe()
    }

    /// Follows the rows until the store is closed or cannot be read.
    ///
    /// # Errors
    /// Why it cannot be followed; calling it again begins by reading everything.
    pub async fn run(&mut self) -> Result<(), FeedError> {
        let mut watch = self.load().await?;
        loop {
            let Some(item) = watch.next().await else { return Err(FeedError::Closed) };
            let mut work = Work::default();
            let mut compacted = !self.sort(item, &mut work).await?;
            for _ in 0..TOGETHER {
                let Some(more) = watch.next().now_or_never() else { break };
                let Some(item) = more else { return Err(FeedError::Closed) };
                compacted |= !self.sort(item, &mut work).await?;
            }
            if compacted {
                watch = self.load().await?;
            } else {
                self.act(work).await?;
            }
        }
    }

    /// Everything anew.
    async fn load(&mut self) -> Result<Watch, FeedError> {
        let revision = self.store.revision().await?;
        let watch = self.store.watch(&Prefix::all(), revision);
        let before: BTreeSet<HostId> = self.hosts.keys().copied().collect();
        (self.hosts, self.places, self.networks) = (HashMap::new(), HashMap::new(), HashMap::new());
        for network in network::all(&*self.store).await? {
            let moniker = network.row.moniker;
            let vni = self.terms(&moniker).await?.vni;
            let entries = self.entries(&moniker).await?;
            self.directory.load(vni, revision.0, entries);
        }
        let mut work = Work { revision, ..Work::default() };
        for host in compute::hosts(&*self.store).await? {
            let id = host.row.id;
            self.hosts.insert(id, BTreeMap::new());
            for vm in compute::on_host(&*self.store, id).await? {
                self.places.insert(vm, id);
                work.machines.insert(vm);
            }
        }
        work.gone = before.into_iter().filter(|host| !self.hosts.contains_key(host)).collect();
        let all: BTreeSet<HostId> = self.hosts.keys().copied().collect();
        self.act_on(work, all).await?;
        Ok(watch)
    }

    async fn entries(&self, moniker: &Moniker) -> Result<Vec<DirectoryEntry>, FeedError> {
        let prefix = network::directory_prefix(moniker)?;
        let rows = rows::list_all::<network::DirectoryEntry>(&*self.store, &prefix).await?.rows;
        let entry = |row: rows::Versioned<network::DirectoryEntry>| {
            let ip = row.key.segments().nth(2)?.parse().ok()?;
            Some(DirectoryEntry { ip: CustomerIp(ip), mac: row.row.mac, physical_ip: row.row.physical_ip })
        };
        Ok(rows.into_iter().filter_map(entry).collect())
    }

    async fn terms(&mut self, moniker: &Moniker) -> Result<Arc<NetworkConfig>, FeedError> {
        if let Some(known) = self.networks.get(moniker) {
            return Ok(Arc::clone(known));
        }
        let terms = Arc::new(network::network_terms(&*self.store, moniker).await?);
        self.networks.insert(moniker.clone(), Arc::clone(&terms));
        Ok(terms)
    }

    /// What a revision asks for; false when revisions were missed.
    async fn sort(&self, item: WatchItem, work: &mut Work) -> Result<bool, FeedError> {
        let WatchItem::Changes { revision, changes } = item else { return Ok(false) };
        work.revision = revision;
        for change in &changes {
            let mut segments = change.key().segments();
            let (kind, first, second) = (segments.next(), segments.next(), segments.next());
            match (kind, first, second) {
                (Some("vm"), Some(id), _) => work.machines.extend(id.parse::<VmId>().ok()),
                (Some("on_host"), _, Some(id)) => work.machines.extend(id.parse::<VmId>().ok()),
                (Some("nic"), ..) => {
                    if let Change::Put(entry) = change {
                        work.machines.insert(rows::decode::<Nic>(entry)?.row.vm);
                    }
                }
                (Some("network"), ..) => {
                    if let Change::Put(entry) = change {
                        work.networks.insert(rows::decode::<Network>(entry)?.row.moniker);
                    }
                }
                (Some("host"), Some(id), _) => {
                    if let (Change::Delete { .. }, Ok(id)) = (change, id.parse::<HostId>()) {
                        work.gone.insert(id);
                    }
                }
                (Some("directory" | "address"), Some(moniker), Some(ip)) => {
                    if let (Ok(moniker), Ok(ip)) = (moniker.parse::<Moniker>(), ip.parse()) {
                        note_entry(work, change, moniker, CustomerIp(ip))?;
                    }
                }
                _ => {}
            }
        }
        Ok(true)
    }

    async fn act(&mut self, work: Work) -> Result<(), FeedError> {
        self.act_on(work, BTreeSet::new()).await
    }

    /// Directories first, so that a host that is told of a machine knows its network already.
    async fn act_on(&mut self, mut work: Work, mut hosts: BTreeSet<HostId>) -> Result<(), FeedError> {
        for (moniker, entries) in std::mem::take(&mut work.entries) {
            let vni = match self.terms(&moniker).await {
                Ok(terms) => terms.vni,
                // It is gone: so is everything about it.
                Err(FeedError::Network(NetworkError::NoSuchNetwork(_))) => continue,
                Err(error) => return Err(error),
            };
            let (mut puts, mut removes) = (Vec::new(), Vec::new());
            for (ip, entry) in entries {
                match entry {
                    Some(entry) => puts.push(entry),
                    None => removes.push(ip),
                }
            }
            self.directory.record(vni, work.revision.0, &puts, &removes);
        }
        for moniker in &work.networks {
            self.networks.remove(moniker);
            let inside = |(vm, (network, _)): (&VmId, &(Moniker, _))| (network == moniker).then_some(*vm);
            work.machines.extend(self.hosts.values().flat_map(|vms| vms.iter().filter_map(inside)));
        }
        for id in std::mem::take(&mut work.machines) {
            hosts.extend(self.place(id).await?);
        }
        for host in hosts {
            self.tell(host, work.revision).await?;
        }
        for host in work.gone {
            self.hosts.remove(&host);
            self.desired.forget(host);
        }
        self.seen.send_replace(work.revision);
        Ok(())
    }

    /// Renders a machine; says whose documents are different now.
    async fn place(&mut self, id: VmId) -> Result<Vec<HostId>, FeedError> {
        let mut told = Vec::new();
        let new = render::machine(&*self.store, id).await?;
        let host = new.as_ref().map(|(vm, ..)| vm.host);
        let before = self.places.get(&id).copied();
        if let Some(before) = before.filter(|before| Some(*before) != host) {
            self.places.remove(&id);
            if self.hosts.get_mut(&before).is_some_and(|vms| vms.remove(&id).is_some()) {
                told.push(before);
            }
        }
        if let Some((vm, desired, network)) = new {
            self.places.insert(id, vm.host);
            let vms = self.hosts.entry(vm.host).or_default();
            if vms.get(&id).is_none_or(|(_, same)| *same != desired) {
                vms.insert(id, (network, desired));
                told.push(vm.host);
            }
        }
        Ok(told)
    }

    async fn tell(&mut self, host: HostId, revision: Revision) -> Result<(), FeedError> {
        let Some(vms) = self.hosts.get(&host) else { return Ok(()) };
        let monikers: BTreeSet<Moniker> = vms.values().map(|(network, _)| network.clone()).collect();
        let vms = vms.values().map(|(_, desired)| Arc::clone(desired)).collect();
        let mut networks = Vec::new();
        for moniker in monikers {
            networks.push(self.terms(&moniker).await?);
        }
        self.desired.put(host, HostDesired { generation: revision.0, networks, vms });
        Ok(())
    }
}

/// What a row says about where an address is. One that is given up is nowhere: that too has to be acknowledged before it is
/// anybody else's.
fn note_entry(work: &mut Work, change: &Change, moniker: Moniker, ip: CustomerIp) -> Result<(), FeedError> {
    let entry = match change {
        Change::Put(entry) if change.key().segments().next() == Some("directory") => {
            let row = rows::decode::<network::DirectoryEntry>(entry)?.row;
            Some(DirectoryEntry { ip, mac: row.mac, physical_ip: row.physical_ip })
        }
        Change::Put(entry) => {
            if !rows::decode::<AddressClaim>(entry)?.row.draining {
                return Ok(());
            }
            None
        }
        Change::Delete { .. } if change.key().segments().next() == Some("directory") => None,
        Change::Delete { .. } => return Ok(()),
    };
    work.entries.entry(moniker).or_default().insert(ip, entry);
    Ok(())
}

/// The network that a directory's version is about, for those who hear acknowledgements in VNIs.
pub(super) async fn moniker_of(store: &dyn Store, vni: Vni) -> Result<Option<Moniker>, NetworkError> {
    network::by_vni(store, vni).await
}
