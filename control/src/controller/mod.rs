//! The controller's role: store, authority, boards, sessions, journeys, all wired together and kept going.
//!
//! Never here: decisions. What fails and may come back is tried again; what cannot be opened at the start is an error.

mod config;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{ControllerConfig, DEFAULT_STATE_DIR, KEYS, LimitsConfig};

use crate::api::JoinTokens;
use crate::fleet::enrolment::TokenRow;
use crate::fleet::identity::{Authority, JoinToken, Secret};
use crate::fleet::{DesiredBoard, DirectoryBoard, Fleet, FleetServer, Pace, Presence};
use crate::model::{Name, Problem, Role, Tenant};
use crate::network;
use crate::reconcile::{Feeder, Hearing, StoredEnrolment, expiry, follow_progress};
use crate::store::{RedbStore, Store};
use crate::tenant;
use crate::workflow::fail_point::DIRECTORY_VARIABLE;
use crate::workflow::tend::{EVERY, Tender};
use crate::workflow::{Limits, Runner, World};

/// How long to pause before what has failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a join token can be used.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// A running controller.
pub struct Controller {
    runner: Runner,
    store: Arc<dyn Store>,
    authority: Arc<Authority>,
    enrolment: Arc<StoredEnrolment>,
    fleet: FleetServer,
    hosts: String,
    stop: CancellationToken,
    tasks: TaskTracker,
}

fn trouble(act: &str, place: impl std::fmt::Display, error: impl std::fmt::Display) -> Problem {
    Problem::new(format!("cannot {act}: {error}"), place.to_string(), "mend that, and start again")
}

impl Controller {
    /// Opens the store and serves hosts. The API is served by whoever has this.
    ///
    /// # Errors
    /// What cannot be opened, and why.
    pub async fn start(config: &ControllerConfig) -> Result<Self, Problem> {
        let place = config.state_dir.display();
        let authority =
            Authority::open(&config.state_dir, Timestamp::now()).map_err(|error| error.problem())?;
        let path = config.state_dir.join("store.redb");
        let store = RedbStore::open(&path).map_err(|error| trouble("open the store", place, error))?;
        let listener = TcpListener::bind(config.hosts)
            .await
            .map_err(|error| trouble("listen for hosts", format!("hosts = {}", config.hosts), error))?;
        Self::with(config, Arc::new(store), Arc::new(authority), listener).await
    }

    async fn with(
        config: &ControllerConfig,
        store: Arc<dyn Store>,
        authority: Arc<Authority>,
        listener: TcpListener,
    ) -> Result<Self, Problem> {
        network::ensure_platform_networks(&*store, Timestamp::now())
            .await
            .map_err(|error| trouble("write the platform's networks", "store", error))?;
        let hosts =
            listener.local_addr().map_or_else(|_| config.hosts.to_string(), |address| address.to_string());
        let mut world = World::new(Arc::clone(&store), config.name.as_str(), Limits::from(&config.limits));
        if let Some(directory) = fail_points() {
            tracing::warn!(directory = %directory.display(), "operations wait wherever a file there says so");
            world = world.with_fail_points_in(directory);
        }
        let runner = Runner::new(world);
        let (desired, directory) = (Arc::<DesiredBoard>::default(), Arc::<DirectoryBoard>::default());
        let enrolment = Arc::new(StoredEnrolment::new(Arc::clone(&store)));
        let fleet = Fleet {
            authority: Arc::clone(&authority),
            enrolment: Arc::clone(&enrolment) as Arc<_>,
            desired: Arc::clone(&desired) as Arc<_>,
            directory: Arc::clone(&directory) as Arc<_>,
            sink: Arc::new(Hearing::new(Arc::clone(&store))),
            pace: Pace::default(),
        };
        let fleet = fleet.serve(listener).map_err(|error| error.problem())?;
        let controller = Self {
            runner,
            store,
            authority,
            enrolment,
            fleet,
            hosts,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        controller.begin(desired, directory);
        Ok(controller)
    }

    fn begin(&self, desired: Arc<DesiredBoard>, directory: Arc<DirectoryBoard>) {
        let mut feeder = Feeder::new(Arc::clone(&self.store), desired, directory);
        self.keep_going(async move |stop: CancellationToken| {
            while let Some(ended) = stop.run_until_cancelled(feeder.run()).await {
                if let Err(error) = ended {
                    tracing::error!(%error, "what hosts are told is not up to date; trying again");
                }
                pause(&stop).await;
            }
        });
        let (store, presence) = (Arc::clone(&self.store), Arc::clone(self.fleet.presence()));
        let name = self.runner.world().runner().to_owned();
        self.keep_going(async move |stop: CancellationToken| {
            let following = || follow_progress(&*store, &presence, &name);
            while let Some(ended) = stop.run_until_cancelled(following()).await {
                if let Err(error) = ended {
                    tracing::error!(%error, "hosts' progress is not written down; trying again");
                }
                pause(&stop).await;
            }
        });
        let runner = self.runner.clone();
        self.keep_going(async move |stop: CancellationToken| {
            let mut tender = Tender::new(runner.clone());
            while !stop.is_cancelled() {
                if let Err(error) = runner.say_alive().await {
                    tracing::error!(%error, "cannot say that this controller lives");
                }
                if let Err(error) = tender.round().await {
                    tracing::error!(%error, "a round was not made; trying again");
                }
                stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
            }
        });
    }

    fn keep_going<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(CancellationToken) -> F) {
        self.tasks.spawn(task(self.stop.clone()));
    }

    /// Takes wishes.
    #[must_use]
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The rows.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Which hosts are connected.
    #[must_use]
    pub fn presence(&self) -> &Arc<Presence> {
        self.fleet.presence()
    }

    /// Where hosts dial.
    #[must_use]
    pub fn hosts_address(&self) -> &str {
        &self.hosts
    }

    /// Makes tokens that let hosts join.
    #[must_use]
    pub fn joining(&self) -> Arc<dyn JoinTokens> {
        Arc::new(Joining {
            authority: Arc::clone(&self.authority),
            enrolment: Arc::clone(&self.enrolment),
            hosts: self.hosts.clone(),
        })
    }

    /// A new token of the platform's, with all rights.
    ///
    /// # Errors
    /// The store's.
    pub async fn admin_token(&self, note: &str) -> Result<tenant::Secret, Problem> {
        let issued =
            tenant::issue(&*self.store, Tenant::PLATFORM, Role::Admin, note, Timestamp::now(), None).await;
        issued.map(|(secret, _)| secret).map_err(|error| trouble("keep the token", "store", error))
    }

    /// Ends it in order: engines stop between transactions, hosts are told good-bye.
    pub async fn stop(self) {
        self.stop.cancel();
        self.runner.stop().await;
        self.fleet.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

struct Joining {
    authority: Arc<Authority>,
    enrolment: Arc<StoredEnrolment>,
    hosts: String,
}

#[async_trait]
impl JoinTokens for Joining {
    async fn issue(&self, name: Option<Name>) -> Result<String, Problem> {
        let secret = Secret::new().map_err(|error| error.problem())?;
        let expires_at = expiry(Timestamp::now(), TOKEN_LIFE);
        let row = TokenRow { hash: secret.hash(), name, expires_at, used: None };
        self.enrolment.issue(&row).await.map_err(|error| trouble("keep the token", "store", error))?;
        let authority = self.authority.certificate().clone();
        let token = JoinToken { authority, secret, addresses: vec![self.hosts.clone()] };
        Ok(token.reveal())
    }
}

/// Where tests say at which steps a controller shall wait: in a build for debugging alone.
fn fail_points() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY_VARIABLE).filter(|_| cfg!(debug_assertions)).map(PathBuf::from)
}

async fn pause(stop: &CancellationToken) {
    stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
}
