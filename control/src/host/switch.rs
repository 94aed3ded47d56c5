//! This host's switch, by its socket: calls that do not block the agent, and the machines' ports in the switch's words.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dataplane::ctl::protocol::{BounceOrder, Moved, PortDetail};
use dataplane::ctl::{Client, ClientError, Request};
use dataplane::desired::{HostConfig, Label, PortConfig, PortKind, PortName};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::model::{ChangeTimes, Problem, VmDesired};

/// Connections to the switch at once; it accepts 64, and people want some.
const CONNECTIONS: usize = 12;
/// A switch that does not answer a call in this time is not going to.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the switch did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SwitchFault {
    /// It said no.
    #[error("{}", .0.what)]
    Told(Problem),
    /// Nobody is there, or it went away before it answered: whether it has done what it was asked to is not known.
    #[error("{}", .0.what)]
    Away(Problem),
    /// It does not answer.
    #[error("the switch does not answer")]
    Silent,
}

impl SwitchFault {
    /// What, where, and what to do about it.
    #[must_use]
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Told(problem) | Self::Away(problem) => problem.clone(),
            Self::Silent => Problem::new(self.to_string(), "switch", "look at the switch's log"),
        }
    }
}

impl From<ClientError> for SwitchFault {
    fn from(error: ClientError) -> Self {
        let refusal = error.refusal();
        let problem = Problem::new(refusal.what, refusal.place, refusal.remedy);
        match error {
            ClientError::Connect { .. } | ClientError::Broken { .. } => Self::Away(problem),
            _ => Self::Told(problem),
        }
    }
}

/// The switch.
#[derive(Debug)]
pub(super) struct Switch {
    socket: PathBuf,
    idle: Arc<Mutex<Vec<Client>>>,
    room: Semaphore,
}

impl Switch {
    /// The switch at this socket; nothing is asked yet.
    #[must_use]
    pub(super) fn at(socket: PathBuf) -> Self {
        Self { socket, idle: Arc::default(), room: Semaphore::new(CONNECTIONS) }
    }

    /// Asks, and waits for the answer. `T` is the type that the request's documentation names.
    ///
    /// # Errors
    /// When the switch says no or does not answer.
    pub(super) async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        request: Request,
    ) -> Result<T, SwitchFault> {
        // Never closed.
        let _room = self.room.acquire().await;
        let (socket, idle) = (self.socket.clone(), self.idle.clone());
        let asked = tokio::task::spawn_blocking(move || -> Result<T, SwitchFault> {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let (mut client, is_old) = match kept {
                Some(client) => (client, true),
                None => (Client::connect(&socket)?, false),
            };
            let mut answer = client.call(&request);
            if is_old && matches!(answer, Err(ClientError::Broken { .. })) {
                // The switch was restarted since. Every request may be made twice: whoever asks looks at what is there.
                client = Client::connect(&socket)?;
                answer = client.call(&request);
            }
            if matches!(answer, Ok(_) | Err(ClientError::Refused(_))) {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
            }
            Ok(answer?)
        });
        match timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(SwitchFault::Silent),
        }
    }

    /// The document in force.
    ///
    /// # Errors
    /// As [`Switch::call`].
    pub(super) async fn export(&self) -> Result<HostConfig, SwitchFault> {
        self.call(Request::Export {}).await
    }

    /// Returns when the switch that runs now has ended.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn ended(&self) -> io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        // It never says anything unasked.
        let _ = stream.read_u8().await;
        Ok(())
    }
}

/// A machine's port as it should be.
///
/// # Errors
/// When its name cannot be a port's, or its generation no label.
pub(super) fn port(vm: &VmDesired, kind: PortKind) -> Result<PortConfig, Problem> {
    let wrong =
        |error: String| Problem::new(error, format!("vm {}", vm.vm), "delete the machine and make it anew");
    let name: PortName = vm.port.parse().map_err(|error| wrong(format!("{error}")))?;
    let label: Label = label(vm).parse().map_err(|error| wrong(format!("{error}")))?;
    Ok(PortConfig {
        name,
        network: vm.network,
        mac: vm.mac,
        ips: vm.ips.clone(),
        kind,
        netns: Some(vm.port.clone()),
        queues: 1,
        hostname: None,
        label: Some(label),
        rules: vm.rules.clone(),
    })
}

/// The label that a machine's port has: its document's generation, and how often its link was bounced for nothing else.
#[must_use]
pub(super) fn label(vm: &VmDesired) -> String {
    let generation = vm.config.generation;
    match vm.bounces {
        0 => generation.to_string(),
        bounces => format!("{generation}+{bounces}"),
    }
}

/// The second part of a [`label`].
#[must_use]
pub(super) fn bounces(port: &PortConfig) -> &str {
    port.label.as_ref().and_then(|label| label.as_str().split_once('+')).map_or("0", |(_, bounces)| bounces)
}

/// The request that makes one port another.
#[must_use]
pub(super) fn move_to(port: &PortConfig, bounce: BounceOrder) -> Request {
    Request::PortMove {
        port: port.name.clone(),
        network: port.network,
        ips: port.ips.clone(),
        rules: Some(port.rules.clone()),
        label: port.label.clone(),
        bounce,
        wait: None,
        timeout_ms: 0,
    }
}

/// True when one port can become the other by a move.
#[must_use]
pub(super) fn is_same_device(is: &PortConfig, should: &PortConfig) -> bool {
    (&is.name, is.mac, is.kind, &is.netns) == (&should.name, should.mac, should.kind, &should.netns)
}

impl From<&Moved> for ChangeTimes {
    fn from(moved: &Moved) -> Self {
        Self { swap_ns: moved.swap_ns, settled_ns: moved.settled_ns, ..Self::default() }
    }
}

/// The times of a port's last change, as far as the guest has followed.
#[must_use]
pub(super) fn times(detail: &PortDetail) -> Option<ChangeTimes> {
    detail.last_change.as_ref().map(|change| ChangeTimes {
        swap_ns: change.swap_ns,
        settled_ns: change.settled_ns,
        lease_ms: change.followed.lease_ms,
        first_packet_ms: change.followed.first_packet_ms,
    })
}
