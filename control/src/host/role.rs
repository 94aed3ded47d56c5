//! The role `shunt host run`: configuration → switch's metadata socket → hypervisors → agent, until it is told to stop.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::agent::{Agent, Parts};
use super::config::HostFile;
use super::inventory::inventory;
use super::joining::Membership;
use super::metadata::Report;
use crate::fleet::Pace;
use crate::hypervisor::Hypervisor;
use crate::hypervisor::netns::{GuestProgram, Netns};
use crate::hypervisor::qemu::Qemu;
use crate::imds::{Imds, Limits};
use crate::model::Problem;

/// Who may connect to the metadata service: its owner, which the switch also is.
const SOCKET_MODE: u32 = 0o600;
/// Reports that wait for the agent.
const REPORTS: usize = 256;

/// A running host: its agent, and the metadata service beside it.
pub struct Role {
    agent: Agent,
    /// Ends when it is dropped.
    _imds: Imds,
}

impl Role {
    /// Starts everything that the configuration names. `guest` plays the guests of kind `netns`.
    ///
    /// # Errors
    /// The first thing that cannot be had.
    pub async fn start(config: HostFile, guest: GuestProgram) -> Result<Self, Problem> {
        // Before anything is made: whoever has not joined is told so and finds nothing afterwards.
        Membership::load(&config.state_dir, config.controllers.clone()).map_err(|error| error.problem())?;
        let (imds, mut inbox) =
            Imds::bind(&config.metadata, SOCKET_MODE, Limits::default()).map_err(|error| {
                let remedy = "let the agent's user write there, or name another path";
                Problem::new(error.to_string(), "metadata", remedy)
            })?;
        let (reports, heard) = mpsc::channel(REPORTS);
        tokio::spawn(async move {
            while let Some(received) = inbox.recv().await {
                if reports.send(Report::from(received)).await.is_err() {
                    return;
                }
            }
        });
        let mut hypervisors: Vec<Arc<dyn Hypervisor>> = Vec::new();
        if config.hypervisors.iter().any(|name| name.as_str() == "netns") {
            let netns = Netns::new(config.state_dir.join("netns"), guest).map_err(|error| error.problem())?;
            hypervisors.push(Arc::new(netns));
        }
        if config.hypervisors.iter().any(|name| name.as_str() == "qemu") {
            let qemu = Qemu::new(config.state_dir.join("qemu"), config.images.clone());
            hypervisors.push(Arc::new(qemu.map_err(|error| error.problem())?));
        }
        let parts = Parts {
            inventory: inventory(&config),
            state_dir: config.state_dir,
            controllers: config.controllers,
            switch: config.switch,
            metadata: Arc::new(imds.documents().clone()),
            reports: heard,
            hypervisors,
            pace: Pace::default(),
        };
        Ok(Self { agent: Agent::start(parts).await?, _imds: imds })
    }

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Ends in order; guests live on.
    pub async fn stop(self) {
        self.agent.stop().await;
    }
}
