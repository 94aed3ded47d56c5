//! What hosts say becomes rows: their inventories, what became of their machines, and how far they have followed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dataplane::types::Vni;
use jiff::Timestamp;

use super::feeder::moniker_of;
use crate::compute;
use crate::fleet::{HostSink, HostStatus, Presence, SourceError};
use crate::model::{HostId, Inventory, Moniker, Problem, VmFact};
use crate::network::{self, HostProgress, NetworkError};
use crate::store::rows::{self, RowError};
use crate::store::{CommitError, Draft, Key, Revision, Store};

/// So many facts are written together: each is a requirement and a write.
const TOGETHER: usize = 40;
/// Several acknowledgements within this time become one row.
const GATHER: Duration = Duration::from_millis(1);

/// Hears hosts.
pub struct Hearing {
    store: Arc<dyn Store>,
}

impl Hearing {
    /// One that writes into this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Writes facts, of machines that are this host's only.
    async fn write(&self, host: HostId, facts: &[VmFact]) -> Result<(), RowError> {
        loop {
            let mut draft = Draft::new();
            for fact in facts {
                let place = Key::of(["on_host", &host.to_string(), &fact.vm.to_string()])?;
                // A machine that is not, or no longer, this host's: what it says about it counts for nothing.
                let Some(place) = self.store.get(&place).await? else { continue };
                draft.require(&place.key, place.revision);
                let known = compute::fact_of(&*self.store, fact.vm).await?;
                let known = known.as_ref().map(|known| &known.row);
                compute::put_fact(&mut draft, &compute::merged(known, fact, Timestamp::now()))?;
            }
            if draft.writes_nothing() {
                return Ok(());
            }
            match self.store.commit(draft.finish()?).await {
                // Some machine went meanwhile.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

fn failed(act: &'static str) -> impl Fn(RowError) -> SourceError {
    move |error| SourceError { act, why: error.to_string() }
}

#[async_trait]
impl HostSink for Hearing {
    async fn hello(&self, host: HostId, inventory: Inventory) -> Result<(), SourceError> {
        let act = failed("keep a host's inventory");
        let key = compute::host_key(host).map_err(|error| act(error.into()))?;
        rows::update(&*self.store, &key, |row: &crate::model::Host| {
            (row.inventory != inventory)
                .then(|| crate::model::Host { inventory: inventory.clone(), ..row.clone() })
        })
        .await
        .map(drop)
        .map_err(act)
    }

    async fn facts(&self, host: HostId, facts: Vec<VmFact>) -> Result<(), SourceError> {
        let mut last: BTreeMap<_, VmFact> = BTreeMap::new();
        last.extend(facts.into_iter().map(|fact| (fact.vm, fact)));
        let last: Vec<VmFact> = last.into_values().collect();
        for some in last.chunks(TOGETHER) {
            self.write(host, some).await.map_err(failed("keep what a host says"))?;
        }
        Ok(())
    }

    async fn refused(
        &self,
        host: HostId,
        problem: Problem,
        generation: Option<u64>,
    ) -> Result<(), SourceError> {
        tracing::warn!(%host, ?generation, %problem, "a host cannot hold what it should");
        Ok(())
    }

    async fn gone(&self, host: HostId) {
        tracing::info!(%host, "a host is no longer connected");
    }
}

/// Writes down how far hosts have followed, whenever they have, until the process ends. `runner` names this controller.
///
/// # Errors
/// The store's; calling it again begins anew.
pub async fn follow_progress(
    store: &dyn Store,
    presence: &Presence,
    runner: &str,
) -> Result<(), NetworkError> {
    let mut written: HashMap<HostId, HostProgress> = HashMap::new();
    let mut monikers: HashMap<Vni, Moniker> = HashMap::new();
    // Hosts that were this controller's before it was started again are nobody's now.
    for (host, mut progress) in network::progress_of(store, runner).await? {
        if presence.status(host).is_none() {
            progress.attached = false;
            write(store, host, &progress).await?;
        }
    }
    let mut changes = presence.watch();
    loop {
        let connected = presence.connected();
        for host in &connected {
            let Some(status) = presence.status(*host) else { continue };
            let now = in_monikers(store, &mut monikers, &status, runner).await?;
            if written.get(host) != Some(&now) {
                write(store, *host, &now).await?;
                written.insert(*host, now);
            }
        }
        let left: Vec<HostId> = written.keys().filter(|host| !connected.contains(host)).copied().collect();
        for host in left {
            if let Some(mut progress) = written.remove(&host) {
                progress.attached = false;
                write(store, host, &progress).await?;
            }
        }
        if changes.changed().await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn write(store: &dyn Store, host: HostId, progress: &HostProgress) -> Result<(), NetworkError> {
    let mut draft = Draft::new();
    network::set_progress(&mut draft, host, progress)?;
    match store.commit(draft.finish()?).await {
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn in_monikers(
    store: &dyn Store,
    monikers: &mut HashMap<Vni, Moniker>,
    status: &HostStatus,
    runner: &str,
) -> Result<HostProgress, NetworkError> {
    let mut progress =
        HostProgress { attached: true, controller: runner.to_owned(), ..HostProgress::default() };
    for (vni, version) in &status.directories {
        let Some(version) = version else { continue };
        if !monikers.contains_key(vni) {
            let Some(moniker) = moniker_of(store, *vni).await? else { continue };
            monikers.insert(*vni, moniker);
        }
        if let Some(moniker) = monikers.get(vni) {
            progress.directory.insert(moniker.clone(), Revision(*version));
        }
    }
    Ok(progress)
}
