//! A pool's machine goes to one customer, whoever asks at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cluster::{Cluster, assert_sound};
use crate::model::{JourneyKind, Operation, OperationState};
use crate::pool;
use crate::workflow::{FailPoint, Runner, operation_key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_claim_from_a_small_pool_through_two_controllers_that_die() {
    let cluster = Arc::new(Cluster::new().await);
    let pool = cluster.pool(16).await;
    let ready: BTreeSet<_> =
        pool::stock(&*cluster.store, pool).await.unwrap().iter().map(|stocked| stocked.vm).collect();
    let worlds = [cluster.world("a"), cluster.world("b")];
    let runners = worlds.clone().map(Runner::new);
    // Each controller loses an engine in the middle of a claim.
    for world in &worlds {
        world.stop_at(FailPoint { step: "claim".to_owned(), backward: false, after: true });
    }
    let mut wishes = Vec::new();
    for number in 0..32 {
        let (cluster, runner) = (Arc::clone(&cluster), runners[number % 2].clone());
        wishes.push(tokio::spawn(async move {
            let wish = serde_json::to_value(cluster.wish(&format!("web-{number}"), None)).unwrap();
            runner
                .submit(cluster.tenant, JourneyKind::HandOver, wish, None, Some(&format!("key-{number}")))
                .await
                .unwrap()
                .id
        }));
    }
    let mut ended = Vec::new();
    for wish in wishes {
        let id = wish.await.unwrap();
        loop {
            let key = operation_key(id).unwrap();
            let row =
                crate::store::rows::load::<Operation>(&*cluster.store, &key).await.unwrap().unwrap().row;
            if row.state.is_final() {
                ended.push(row);
                break;
            }
            for runner in &runners {
                runner.adopt().await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    let got: Vec<_> = ended.iter().filter_map(|operation| operation.vm).collect();
    assert!(ended.iter().all(|operation| operation.state == OperationState::Done), "{ended:#?}");
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), 32, "nobody shares a machine");
    assert_eq!(got.iter().filter(|vm| ready.contains(vm)).count(), 16, "each of the pool's went to one");
    for runner in &runners {
        runner.stop().await;
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
