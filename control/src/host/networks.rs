//! The switch's networks as the ledger wants them: there before the first port, gone after the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use dataplane::ctl::Request;
use dataplane::ctl::protocol::Changed;
use dataplane::desired::NetworkConfig;
use dataplane::types::{Generation, Vni};
use tokio::sync::{Mutex, Notify};

use super::ledger::Ledger;
use super::switch::{Switch, SwitchFault};
use crate::model::Problem;

/// How often a whole document is offered again when machines changed ports in the meantime.
const TRIES: usize = 20;

/// Keeps the switch's networks.
#[derive(Debug)]
pub(super) struct Networks {
    switch: Arc<Switch>,
    ledger: Arc<Ledger>,
    /// What is on the switch; none: it must be asked.
    known: Mutex<Option<BTreeMap<Vni, Arc<NetworkConfig>>>>,
    sweep: Notify,
    emptied: std::sync::Mutex<BTreeSet<Vni>>,
    emptied_news: Notify,
}

impl Networks {
    /// Nothing is asked yet.
    #[must_use]
    pub(super) fn new(switch: Arc<Switch>, ledger: Arc<Ledger>) -> Self {
        Self {
            switch,
            ledger,
            known: Mutex::new(None),
            sweep: Notify::new(),
            emptied: std::sync::Mutex::default(),
            emptied_news: Notify::new(),
        }
    }

    /// The switch may have others now.
    pub(super) async fn forget(&self) {
        *self.known.lock().await = None;
    }

    /// Networks may be without ports now: [`Networks::sweep_forever`] will look.
    pub(super) fn look(&self) {
        self.sweep.notify_one();
    }

    /// Sees that a network is on the switch as the ledger wants it.
    ///
    /// # Errors
    /// When the ledger has none such, or the switch refuses.
    pub(super) async fn ensure(&self, vni: Vni) -> Result<(), SwitchFault> {
        let Some(wanted) = self.ledger.network(vni) else {
            let what = format!("network {vni} is not wanted on this host");
            return Err(SwitchFault::Told(Problem::new(what, "ledger", "none")));
        };
        let mut known = self.known.lock().await;
        let done = self.ensure_among(&mut known, wanted).await;
        if done.is_err() {
            *known = None;
        }
        done
    }

    async fn ensure_among(
        &self,
        known: &mut Option<BTreeMap<Vni, Arc<NetworkConfig>>>,
        wanted: Arc<NetworkConfig>,
    ) -> Result<(), SwitchFault> {
        let mut there = match known.take() {
            Some(there) => there,
            None => {
                let document = self.switch.export().await?;
                document.networks.into_iter().map(|network| (network.vni, network)).collect()
            }
        };
        match there.get(&wanted.vni) {
            Some(is) if *is == wanted => {}
            Some(_) => self.replace(&wanted).await?,
            None => {
                let request = Request::NetworkAdd { network: wanted.as_ref().clone() };
                let _: Changed = self.switch.call(request).await?;
            }
        }
        there.insert(wanted.vni, wanted);
        *known = Some(there);
        Ok(())
    }

    /// A network with other content needs a whole document; machines may change ports at the same time, and then it is
    /// refused for its generation.
    async fn replace(&self, wanted: &Arc<NetworkConfig>) -> Result<(), SwitchFault> {
        let mut last = SwitchFault::Silent;
        for _ in 0..TRIES {
            let mut document = self.switch.export().await?;
            document.generation = Generation(document.generation.0 + 1);
            for network in &mut document.networks {
                if network.vni == wanted.vni {
                    *network = wanted.clone();
                }
            }
            match self.switch.call::<Changed>(Request::Apply { document }).await {
                Ok(_) => return Ok(()),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Brings networks that are there already to what the ledger wants, and removes what has no port any more, whenever
    /// somebody calls [`Networks::look`].
    pub(super) async fn sweep_forever(&self) {
        loop {
            self.sweep.notified().await;
            self.sweep().await;
        }
    }

    async fn sweep(&self) {
        let held = self.ledger.held();
        for network in held.networks.keys() {
            let there = self.known.lock().await.as_ref().is_some_and(|known| known.contains_key(network));
            if there && let Err(fault) = self.ensure(*network).await {
                tracing::warn!(%network, problem = %fault.problem(), "a network cannot be changed");
            }
        }
        for network in held.retired {
            // Held over all of it: nobody adds a port to a network that is being removed.
            let mut known = self.known.lock().await;
            if self.ledger.network(network).is_some() {
                continue;
            }
            match self.remove(network).await {
                Ok(true) => {
                    if let Some(known) = known.as_mut() {
                        known.remove(&network);
                    }
                }
                // Ports are still in it; whoever takes the last one out will have us look again.
                Ok(false) => {}
                Err(problem) => {
                    *known = None;
                    tracing::warn!(%network, %problem, "a network cannot be removed");
                }
            }
        }
    }

    async fn remove(&self, vni: Vni) -> Result<bool, Problem> {
        let failed = |fault: SwitchFault| fault.problem();
        let document = self.switch.export().await.map_err(failed)?;
        if document.ports.iter().any(|port| port.network == vni) {
            return Ok(false);
        }
        if document.networks.iter().any(|network| network.vni == vni) {
            let _: Changed =
                self.switch.call(Request::NetworkRemove { network: vni }).await.map_err(failed)?;
        }
        let ledger = self.ledger.clone();
        // From here on nobody takes what is left of the directory for a version of it.
        let noted = tokio::task::spawn_blocking(move || ledger.directory(vni, None)).await;
        noted.map_err(|error| lost(&error))?.map_err(|error| error.problem())?;
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner).insert(vni);
        self.emptied_news.notify_one();
        Ok(true)
    }

    /// Waits for networks that are off the switch and whose directories are still there.
    pub(super) async fn emptied(&self) -> Vni {
        loop {
            let first = self.emptied.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            match first {
                Some(network) => return network,
                None => self.emptied_news.notified().await,
            }
        }
    }
}

fn lost(error: &tokio::task::JoinError) -> Problem {
    Problem::new(format!("a task ended early: {error}"), "agent", "look at the agent's log")
}
