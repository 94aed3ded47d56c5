//! A pool's machine goes to one customer, whoever asks at the same time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::cluster::{Cluster, assert_sound, limits};
use crate::model::{JourneyKind, Operation, OperationId, OperationState};
use crate::pool;
use crate::workflow::{FailPoint, Limits, Runner, World, operation_key};

const MACHINES: usize = 32;
const CLIENTS: usize = 64;
/// What the tenant of [`Cluster`] may have.
const QUOTA: usize = 40;

/// One controller's managers: all its tasks are in a runtime of its own, so that they can be killed together.
struct Managers {
    world: World,
    runner: Runner,
    runtime: Runtime,
}

impl Managers {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let patient = Limits { guest: Duration::from_secs(30), ..limits() };
        let world = World::new(Arc::clone(&cluster.store), name, patient);
        let (runner, runtime) = (Runner::new(world.clone()), Runtime::new().unwrap());
        let rounds = runner.clone();
        runtime.spawn(async move {
            loop {
                rounds.say_alive().await.unwrap();
                rounds.adopt().await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { world, runner, runtime }
    }

    /// All its tasks end where they are.
    fn kill(self) {
        self.runtime.shutdown_background();
    }

    /// True when an engine has come to the fail point.
    fn is_in_mid_claim(&self) -> bool {
        !self.world.fail_points().are_set()
    }
}

/// A client asks until it has an answer, as one does whose connection breaks: always with the same key.
async fn ask(cluster: Arc<Cluster>, managers: Arc<Mutex<Option<Managers>>>, number: usize) -> OperationId {
    let wish = serde_json::to_value(cluster.wish(&format!("web-{number}"), None)).unwrap();
    loop {
        let (wish, tenant, key) = (wish.clone(), cluster.tenant, format!("key-{number}"));
        let asked = managers.lock().unwrap().as_ref().map(|managers| {
            let runner = managers.runner.clone();
            managers.runtime.spawn(async move {
                runner.submit(tenant, JourneyKind::HandOver, wish, None, Some(&key)).await.unwrap().id
            })
        });
        match asked {
            Some(asked) => {
                if let Ok(id) = asked.await {
                    return id;
                }
            }
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn ended(cluster: &Cluster, id: OperationId) -> Operation {
    let key = operation_key(id).unwrap();
    for _ in 0..6000 {
        let row = crate::store::rows::load::<Operation>(&*cluster.store, &key).await.unwrap().unwrap().row;
        if row.state.is_final() {
            return row;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("operation {id} does not end: {:#?}", cluster.keys().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_claim_from_a_small_pool_through_two_controllers_that_die() {
    let cluster = Arc::new(Cluster::new().await);
    let pool = cluster.pool(MACHINES).await;
    let ready: BTreeSet<_> =
        pool::stock(&*cluster.store, pool).await.unwrap().iter().map(|stocked| stocked.vm).collect();
    assert_eq!(ready.len(), MACHINES);
    // One is killed between putting a claim together and committing it, the other right after.
    let both = [("a", false), ("b", true)].map(|(name, after)| {
        let managers = Managers::start(&cluster, name);
        managers.world.stop_at(FailPoint { step: "claim".to_owned(), backward: false, after });
        (name, Arc::new(Mutex::new(Some(managers))))
    });
    let ask =
        |number: usize| tokio::spawn(ask(Arc::clone(&cluster), Arc::clone(&both[number % 2].1), number));
    let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
    let mut unfinished = Vec::new();
    for (name, place) in &both {
        while !place.lock().unwrap().as_ref().unwrap().is_in_mid_claim() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        place.lock().unwrap().take().unwrap().kill();
        let open = cluster.store.list(&crate::store::Prefix::parse("open/").unwrap(), None, usize::MAX).await;
        unfinished.push(open.unwrap().entries.len());
        *place.lock().unwrap() = Some(Managers::start(&cluster, name));
    }
    assert!(
        unfinished.iter().all(|open| *open > 0),
        "they die while there is something to do: {unfinished:?}"
    );

    let mut done = Vec::new();
    let mut refused = Vec::new();
    for client in clients {
        let operation = ended(&cluster, client.await.unwrap()).await;
        match operation.state {
            OperationState::Done => done.push(operation),
            _ => refused.push(operation),
        }
    }
    let got: Vec<_> = done.iter().filter_map(|operation| operation.vm).collect();
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), QUOTA, "nobody shares a machine: {got:#?}");
    assert_eq!(
        got.iter().filter(|vm| ready.contains(vm)).count(),
        MACHINES,
        "each of the pool's went to one"
    );
    let scratch = done.iter().filter(|operation| operation.kind == JourneyKind::VmCreate).count();
    assert_eq!(scratch, QUOTA - MACHINES, "who misses gets one from scratch, as long as the quota lasts");
    assert_eq!(refused.len(), CLIENTS - QUOTA);
    for operation in &refused {
        assert_eq!(operation.state, OperationState::Undone, "{operation:#?}");
        let problem = operation.problem.as_ref().unwrap();
        assert_eq!(problem.place, "quota", "{problem}");
    }
    for (_, managers) in &both {
        managers.lock().unwrap().take().unwrap().kill();
    }
    cluster.tend().await;
    assert_sound(&cluster).await;
}

#[tokio::test]
async fn the_same_key_is_the_same_wish_and_another_one_is_refused() {
    let cluster = Cluster::new().await;
    let runner = Runner::new(cluster.world("a"));
    let submit = |name: &'static str| {
        let (runner, wish) = (runner.clone(), serde_json::to_value(cluster.wish(name, None)).unwrap());
        let tenant = cluster.tenant;
        async move { runner.submit(tenant, JourneyKind::HandOver, wish, None, Some("k")).await }
    };
    let first = submit("web-1").await.unwrap();
    assert_eq!(submit("web-1").await.unwrap().id, first.id);
    assert!(submit("web-2").await.is_err());
    runner.stop().await;
}
