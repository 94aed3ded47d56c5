//! The runner: takes wishes, makes operations of them, and sees that each has an engine, also after a crash.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::engine::{self, EngineError};
use super::journal;
use super::journeys;
use super::step::StepError;
use super::world::World;
use crate::model::{JourneyKind, Operation, OperationId, TenantId, VmId};
use crate::store::lease::{self, Acquired, LeaseError};
use crate::store::rows::{self, Row, Versioned};
use crate::store::{CommitError, Draft, Key, KeyError, Prefix};

/// How long a controller may be silent before others take its operations.
const LEASE: Duration = Duration::from_secs(15);
/// So many idempotency keys are looked at in one go.
const LOOKED_AT: usize = 50;
/// How many tries a wish has against others that ask for the same.
const TRIES: usize = 16;

/// Starts engines and keeps them going. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    world: World,
    running: Arc<Mutex<HashSet<OperationId>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why a wish did not become an operation.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Another wish had this idempotency key.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StepError),
}

impl From<KeyError> for SubmitError {
    fn from(error: KeyError) -> Self {
        Self::Store(error.into())
    }
}

/// Which operation a key became, and of which request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Submitted {
    operation: OperationId,
    request: String,
    at: jiff::Timestamp,
}

impl Row for Submitted {
    const KIND: &'static str = "idempotency";
    const SCHEMA: u32 = 1;
}

impl Runner {
    /// A runner for this world.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world, running: Arc::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// What its engines work in.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Makes a wish an operation and starts it. The same `key` of the same tenant gives the same operation again.
    ///
    /// # Errors
    /// `KeyReused` when the key came with another request before, or the store's.
    pub async fn submit(
        &self,
        tenant: TenantId,
        kind: JourneyKind,
        request: serde_json::Value,
        vm: Option<VmId>,
        key: Option<&str>,
    ) -> Result<Operation, SubmitError> {
        let world = &self.world;
        // Keys are the callers' words: only their hash becomes part of a name.
        let print = |text: &str| format!("{:x}", Sha256::digest(text));
        let fingerprint = print(&format!("{kind} {request}"));
        let key = key.map(|key| Key::of(["idempotency", &tenant.to_string(), &print(key)])).transpose()?;
        for _ in 0..TRIES {
            if let Some(key) = &key {
                let before = rows::load::<Submitted>(world.store(), key).await.map_err(StepError::from)?;
                if let Some(before) = before {
                    if before.row.request != fingerprint {
                        return Err(SubmitError::KeyReused);
                    }
                    if let Some(operation) = journal::load(world, before.row.operation).await? {
                        return Ok(operation.row);
                    }
                }
            }
            let id = OperationId::new();
            let mut operation = journal::new(id, tenant, kind, request.clone(), vm, world);
            if let Some(first) = journeys::steps(kind).first() {
                journal::begin(&mut operation, first.name(), world.now());
            }
            let mut draft = Draft::new();
            let row = journal::key(id)?;
            draft.require_absent(&row).put_row(&row, &operation);
            draft.put(&journal::open_key(id)?, "{}");
            if let Some(key) = &key {
                let submitted = Submitted { operation: id, request: fingerprint.clone(), at: world.now() };
                draft.require_absent(key).put_row(key, &submitted);
            }
            match world.store().commit(draft.finish().map_err(StepError::from)?).await {
                Ok(_) => {
                    self.launch(id);
                    return Ok(operation);
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(StepError::from(error).into()),
            }
        }
        let detail = "many asked for the same at once".to_owned();
        Err(StepError::from(CommitError::Unavailable { detail }).into())
    }

    /// An engine for this operation, unless it has one here.
    pub fn launch(&self, id: OperationId) {
        if !self.set().insert(id) {
            return;
        }
        let runner = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = runner.stop.cancelled() => {}
                ended = engine::run(&runner.world, id) => match ended {
                    Ok(operation) => tracing::debug!(%id, kind = %operation.kind, state = ?operation.state, "operation ended"),
                    Err(EngineError::NotMine(_) | EngineError::Stopped) => {}
                    Err(error) => tracing::error!(%id, %error, "operation interrupted; it will be taken up again"),
                },
            }
            runner.set().remove(&id);
        });
    }

    /// Takes up operations that have no engine: this controller's own from before a crash, and those of controllers that
    /// are silent. Returns how many.
    ///
    /// # Errors
    /// The store's.
    pub async fn adopt(&self) -> Result<usize, StepError> {
        let world = &self.world;
        let mut adopted = 0;
        for mut operation in journal::open(world).await? {
            if operation.row.state.is_final() || self.set().contains(&operation.row.id) {
                continue;
            }
            let mine = operation.row.runner.as_deref() == Some(world.runner());
            if !mine && !self.take_from_silent(&mut operation).await? {
                continue;
            }
            self.launch(operation.row.id);
            adopted += 1;
        }
        Ok(adopted)
    }

    /// Makes an operation of a silent controller this one's.
    async fn take_from_silent(&self, operation: &mut Versioned<Operation>) -> Result<bool, StepError> {
        let world = &self.world;
        if let Some(other) = &operation.row.runner {
            let theirs =
                lease::acquire(world.store(), &lease_name(other), world.runner(), world.now(), LEASE).await;
            if !matches!(theirs.map_err(rows_error)?, Acquired::Held(_)) {
                return Ok(false);
            }
        }
        operation.row.runner = Some(world.runner().to_owned());
        let mut draft = Draft::new();
        journal::save(&mut draft, operation)?;
        match world.store().commit(draft.finish()?).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets idempotency keys that are older than `age`: some of them, from behind `after` on. Returns where to go on.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_keys(&self, after: Option<Key>, age: Duration) -> Result<Option<Key>, StepError> {
        let (store, now) = (self.world.store(), self.world.now());
        let prefix = Prefix::of(["idempotency"])?;
        let page = rows::list::<Submitted>(store, &prefix, after.as_ref(), LOOKED_AT).await?;
        let mut draft = Draft::new();
        for row in &page.rows {
            if now.duration_since(row.row.at).unsigned_abs() > age {
                draft.require(&row.key, row.revision).delete(&row.key);
            }
        }
        if !draft.writes_nothing() {
            match store.commit(draft.finish()?).await {
                Err(error) if !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(page.rows.last().filter(|_| page.more).map(|row| row.key.clone()))
    }

    /// Says that this controller lives; to be called more often than every [`LEASE`].
    ///
    /// # Errors
    /// The store's.
    pub async fn say_alive(&self) -> Result<(), StepError> {
        let world = &self.world;
        let name = lease_name(world.runner());
        lease::acquire(world.store(), &name, world.runner(), world.now(), LEASE).await.map_err(rows_error)?;
        Ok(())
    }

    /// Stops engines between transactions and waits for them.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn set(&self) -> std::sync::MutexGuard<'_, HashSet<OperationId>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lease_name(runner: &str) -> String {
    format!("runner.{runner}")
}

fn rows_error(error: LeaseError) -> StepError {
    match error {
        LeaseError::Name(error) => error.into(),
        LeaseError::Rows(error) => error.into(),
    }
}
