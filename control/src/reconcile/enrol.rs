//! Join tokens and hosts, as rows: who may join, and who still belongs.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::compute;
use crate::fleet::enrolment::{Admission, Claim, Enrolment, EnrolmentError, TokenRow, Used};
use crate::fleet::identity::SecretHash;
use crate::model::{Host, HostId, HostState, Inventory, Tenant};
use crate::store::rows::{self, Row, RowError};
use crate::store::{Draft, Key, KeyError, Store};
use crate::tenant::{self, Named};

impl Row for TokenRow {
    const KIND: &'static str = "join";
    const SCHEMA: u32 = 1;
}

fn key(hash: &SecretHash) -> Result<Key, KeyError> {
    Key::of(["join", &hash.to_string()])
}

/// Hosts and join tokens in the store.
pub struct StoredEnrolment {
    store: Arc<dyn Store>,
}

impl StoredEnrolment {
    /// Those of this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Keeps a join token.
    ///
    /// # Errors
    /// The store's.
    pub async fn issue(&self, token: &TokenRow) -> Result<(), RowError> {
        let key = key(&token.hash)?;
        let mut draft = Draft::new();
        draft.require_absent(&key).put_row(&key, token);
        self.store.commit(draft.finish()?).await?;
        Ok(())
    }

    /// One try; `None`: somebody else was faster.
    async fn attempt(&self, claim: &Claim) -> Result<Result<Option<HostId>, EnrolmentError>, RowError> {
        let store = &*self.store;
        let key = key(&claim.secret)?;
        let Some(mut token) = rows::load::<TokenRow>(store, &key).await? else {
            return Ok(Err(EnrolmentError::Unknown));
        };
        match token.row.judge(claim) {
            Ok(Admission::Join) => {}
            Ok(Admission::Again(host)) => return Ok(Ok(Some(host))),
            Err(error) => return Ok(Err(error)),
        }
        let mut draft = Draft::new();
        let known = tenant::find_name(store, Named::Host, Tenant::PLATFORM, &claim.name).await?;
        let host = match known {
            Some(_) if token.row.name.is_none() => {
                return Ok(Err(EnrolmentError::NameTaken(claim.name.clone())));
            }
            Some(id) => id.to_string().parse().unwrap_or_else(|_| HostId::new()),
            None => {
                let host = new_host(claim);
                tenant::take_name(&mut draft, Named::Host, Tenant::PLATFORM, &claim.name, host.id.uuid())?;
                compute::put_host(&mut draft, &host)?;
                host.id
            }
        };
        token.row.used = Some(Used { host, name: claim.name.clone(), key: claim.key.clone() });
        draft.require(&key, token.revision).put_row(&key, &token.row);
        match store.commit(draft.finish()?).await {
            Ok(_) => Ok(Ok(Some(host))),
            Err(error) if error.is_conflict() => Ok(Ok(None)),
            Err(error) => Err(error.into()),
        }
    }
}

/// A host of which nothing is known yet: it takes machines when it has said what it has.
fn new_host(claim: &Claim) -> Host {
    Host {
        id: HostId::new(),
        name: claim.name.clone(),
        state: HostState::Ready,
        inventory: Inventory {
            physical_ip: dataplane::types::PhysicalIp(std::net::Ipv4Addr::UNSPECIFIED.into()),
            cpus: 0,
            memory_mib: 0,
            hypervisors: Vec::new(),
            version: String::new(),
        },
        created_at: claim.at,
    }
}

#[async_trait]
impl Enrolment for StoredEnrolment {
    async fn redeem(&self, claim: Claim) -> Result<HostId, EnrolmentError> {
        loop {
            let tried =
                self.attempt(&claim).await.map_err(|error| EnrolmentError::Store(error.to_string()))?;
            if let Some(host) = tried? {
                return Ok(host);
            }
        }
    }

    async fn admits(&self, host: HostId) -> Result<bool, EnrolmentError> {
        let found = compute::host(&*self.store, host).await;
        found.map(|host| host.is_some()).map_err(|error| EnrolmentError::Store(error.to_string()))
    }
}

/// When a join token that is made now ends.
#[must_use]
pub fn expiry(now: Timestamp, after: std::time::Duration) -> Timestamp {
    now.checked_add(after).unwrap_or(Timestamp::MAX)
}
