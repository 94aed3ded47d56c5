//! The link over real sockets: who gets in, and what a session sends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod doors;
mod streams;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::enrolment::{MemoryEnrolment, TokenRow};
use super::identity::{Authority, Credentials, HostKey, JoinToken, Secret};
use super::{DesiredBoard, DirectoryBoard, Fleet, FleetServer, HostSink, Pace, SourceError};
use crate::model::{HostId, Inventory, Name, Problem, VmFact};

/// What hosts said, in order.
#[derive(Debug, Default)]
pub(super) struct Heard {
    said: Mutex<Vec<Said>>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Hello(HostId),
    Facts(HostId, Vec<VmFact>),
    Refused(HostId, Problem, Option<u64>),
    Gone(HostId),
}

impl Heard {
    fn push(&self, said: Said) {
        let mut all = self.said.lock().unwrap();
        all.push(said);
        self.count.send_replace(all.len());
    }

    /// Waits for something to be said.
    pub(super) async fn wait(&self, what: impl Fn(&Said) -> bool) -> Said {
        let mut count = self.count.subscribe();
        loop {
            let found = self.said.lock().unwrap().iter().find(|said| what(said)).cloned();
            if let Some(found) = found {
                return found;
            }
            tokio::time::timeout(PATIENCE, count.changed()).await.expect("nobody said it").unwrap();
        }
    }
}

#[async_trait]
impl HostSink for Heard {
    async fn hello(&self, host: HostId, _: Inventory) -> Result<(), SourceError> {
        self.push(Said::Hello(host));
        Ok(())
    }
    async fn facts(&self, host: HostId, facts: Vec<VmFact>) -> Result<(), SourceError> {
        self.push(Said::Facts(host, facts));
        Ok(())
    }
    async fn refused(
        &self,
        host: HostId,
        problem: Problem,
        generation: Option<u64>,
    ) -> Result<(), SourceError> {
        self.push(Said::Refused(host, problem, generation));
        Ok(())
    }
    async fn gone(&self, host: HostId) {
        self.push(Said::Gone(host));
    }
}

/// Long enough for a busy machine; a test that works never waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A controller's side of the link.
pub(super) struct Town {
    pub(super) authority: Arc<Authority>,
    pub(super) enrolment: Arc<MemoryEnrolment>,
    pub(super) desired: Arc<DesiredBoard>,
    pub(super) directory: Arc<DirectoryBoard>,
    pub(super) heard: Arc<Heard>,
    pub(super) address: String,
    pub(super) server: FleetServer,
    _state: TempDir,
}

impl Town {
    pub(super) async fn new() -> Self {
        Self::with(Pace::default()).await
    }

    pub(super) async fn with(pace: Pace) -> Self {
        let state = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(state.path(), Timestamp::now()).unwrap());
        let (enrolment, desired) = (Arc::<MemoryEnrolment>::default(), Arc::<DesiredBoard>::default());
        let (directory, heard) = (Arc::<DirectoryBoard>::default(), Arc::<Heard>::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fleet = Fleet {
            authority: authority.clone(),
            enrolment: enrolment.clone(),
            desired: desired.clone(),
            directory: directory.clone(),
            sink: heard.clone(),
            pace,
        };
        let server = fleet.serve(listener).unwrap();
        Self { authority, enrolment, desired, directory, heard, address, server, _state: state }
    }

    /// A token that lasts so long, for a host of this name or any.
    pub(super) fn token(&self, name: Option<&str>, seconds: i64) -> JoinToken {
        let secret = Secret::new().unwrap();
        self.enrolment.issue(TokenRow {
            hash: secret.hash(),
            name: name.map(|name| name.parse().unwrap()),
            expires_at: Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap(),
            used: None,
        });
        JoinToken {
            authority: self.authority.certificate().clone(),
            secret,
            addresses: vec![self.address.clone()],
        }
    }

    /// A host that has joined.
    pub(super) async fn joined(&self, name: &str) -> Credentials {
        super::join(&self.token(None, 60), &name.parse::<Name>().unwrap(), HostKey::new().unwrap())
            .await
            .unwrap()
    }
}
