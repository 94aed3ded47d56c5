//! Where a session gets what it sends. Both traits are pulled from: a session asks for the next part when it can send it.

use std::sync::Arc;

use async_trait::async_trait;
use dataplane::desired::NetworkConfig;
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, Vni};
use tokio::sync::watch;

use crate::model::{HostId, Inventory, Problem, VmDesired, VmFact, VmId};

/// Something behind a trait could not answer. The session ends, and the host tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {act}: {why}")]
pub struct SourceError {
    /// What was tried.
    pub act: &'static str,
    /// Why it failed.
    pub why: String,
}

/// What a host should hold, or what is new in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredChange {
    /// The document's, now.
    pub generation: u64,
    /// The generation that the change starts from; none: it is the whole document.
    pub base: Option<u64>,
    /// All networks that the host has machines in.
    pub networks: Vec<Arc<NetworkConfig>>,
    /// Machines that are new or different; all of them without a base.
    pub vms: Vec<Arc<VmDesired>>,
    /// Machines that are no longer there.
    pub removed: Vec<VmId>,
}

/// What hosts should hold.
#[async_trait]
pub trait DesiredSource: Send + Sync + 'static {
    /// The generation of a host's document, and its changes; 0 as long as it is not known what the host should hold.
    fn watch(&self, host: HostId) -> watch::Receiver<u64>;

    /// What is different from the document of generation `after`; all of it if that cannot be told. None as long as it is
    /// not known what the host should hold: the host goes on with what it has.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn changes(&self, host: HostId, after: Option<u64>) -> Result<Option<DesiredChange>, SourceError>;
}

/// Where a customer IP of a virtual network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirectoryEntry {
    /// The customer IP.
    pub ip: CustomerIp,
    /// The MAC address of the interface that has it.
    pub mac: MacAddr,
    /// Where packets for it are sent.
    pub physical_ip: PhysicalIp,
}

/// A page of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The directory's version when the page was read: all changes up to it are in the page.
    pub version: u64,
    /// In the order of addresses, IPv4 first.
    pub entries: Vec<DirectoryEntry>,
    /// True when there are more behind the last one.
    pub more: bool,
}

/// What changed in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// All addresses that changed after the version asked about, up to and with `to`.
    Delta {
        /// Up to this version.
        to: u64,
        /// As they are now, which may be later than `to`: never earlier, so that nothing goes back.
        puts: Vec<DirectoryEntry>,
        /// Gone, as of now.
        removes: Vec<CustomerIp>,
    },
    /// It is no longer known, or there is too much of it: take a snapshot.
    Compacted,
}

/// The directories of virtual networks. Versions grow, also over restarts of the controller.
#[async_trait]
pub trait DirectorySource: Send + Sync + 'static {
    /// The version of a network's directory, and its changes; 0 for a network that never had an entry.
    fn watch(&self, network: Vni) -> watch::Receiver<u64>;

    /// At most `limit` entries, beginning behind `after`.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn page(&self, network: Vni, after: Option<CustomerIp>, limit: usize) -> Result<Page, SourceError>;

    /// What changed after version `from`, at most `limit` addresses of it; whole versions only.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn changes(&self, network: Vni, from: u64, limit: usize) -> Result<Changes, SourceError>;
}

/// Who is told what hosts say.
#[async_trait]
pub trait HostSink: Send + Sync + 'static {
    /// A host has come, and this is what it has.
    ///
    /// # Errors
    /// When it cannot be kept: the session ends, and the host says it again.
    async fn hello(&self, host: HostId, inventory: Inventory) -> Result<(), SourceError>;

    /// What became of machines. After each reconnection a host tells everything anew: facts come at least once, the last
    /// one about a machine is the one that counts. A death comes in a message of its own, before what came after it.
    ///
    /// # Errors
    /// When they cannot be kept: the session ends, and the host says them again.
    async fn facts(&self, host: HostId, facts: Vec<VmFact>) -> Result<(), SourceError>;

    /// A host cannot hold what it should. Generation: of the document, if it was one.
    ///
    /// # Errors
    /// When it cannot be kept.
    async fn refused(
        &self,
        host: HostId,
        problem: Problem,
        generation: Option<u64>,
    ) -> Result<(), SourceError>;

    /// A host is no longer connected. It may come back at any time.
    async fn gone(&self, host: HostId);
}
