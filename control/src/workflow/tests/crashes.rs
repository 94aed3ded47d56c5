//! Every step of every journey, from the journeys' own tables: the engine stops before and after its transaction, and the
//! step is refused. Afterwards another engine takes over, and the cluster is sound.

use super::cluster::{Cluster, assert_sound, ip, name};
use crate::model::{JourneyKind, Operation, OperationState, Tenant};
use crate::workflow::journeys::requests::{ChangeNetwork, FillPool, OneVm};
use crate::workflow::{EngineError, FailPoint, Runner, run, steps};

fn json<T: serde::Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}

/// A cluster in which a journey of this kind can begin, and its request.
async fn stage(kind: JourneyKind) -> (Cluster, crate::model::TenantId, serde_json::Value) {
    let cluster = Cluster::new().await;
    let world = cluster.world("a");
    let pool = cluster.pool(if kind == JourneyKind::VmCreate { 0 } else { 2 }).await;
    let owner = cluster.tenant;
    let request = match kind {
        JourneyKind::VmCreate | JourneyKind::HandOver => json(&cluster.wish("web-1", Some("10.0.0.5"))),
        JourneyKind::PoolFill => return (cluster, Tenant::PLATFORM, json(&FillPool { pool })),
        _ => {
            let wish = json(&cluster.wish("web-1", None));
            let ended = cluster.carry_out(&world, owner, JourneyKind::HandOver, wish).await;
            let vm = ended.vm.unwrap();
            let one = json(&OneVm { vm, reason: None });
            if kind == JourneyKind::Release {
                cluster.carry_out(&world, owner, JourneyKind::Quarantine, one.clone()).await;
            }
            if kind == JourneyKind::NetworkChange {
                let (network, addresses) = (Some(cluster.blue.clone()), vec![ip("10.0.0.77")]);
                json(&ChangeNetwork { vm, network, addresses, name: Some(name("web-9")) })
            } else {
                one
            }
        }
    };
    (cluster, owner, request)
}

/// Another controller takes over whatever has no engine.
async fn taken_over(cluster: &Cluster, id: crate::model::OperationId) -> Operation {
    let runner = Runner::new(cluster.world("b"));
    for _ in 0..500 {
        runner.adopt().await.unwrap();
        let key = crate::workflow::operation_key(id).unwrap();
        let operation =
            crate::store::rows::load::<Operation>(&*cluster.store, &key).await.unwrap().unwrap().row;
        if operation.state.is_final() {
            return operation;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the operation does not end: {:#?}", cluster.keys().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_stops_at_any_step_is_followed_by_another() {
    let mut stopped = 0;
    for kind in JourneyKind::ALL {
        for step in steps(kind) {
            for after in [false, true] {
                let (cluster, owner, request) = stage(kind).await;
                let world = cluster.world("a");
                let id = cluster.submit(&world, owner, kind, request).await;
                let point = FailPoint { step: step.name().to_owned(), backward: false, after };
                world.stop_at(point.clone());
                assert!(matches!(run(&world, id).await, Err(EngineError::Stopped)), "{kind} {point:?}");
                stopped += 1;
                let ended = taken_over(&cluster, id).await;
                assert_eq!(ended.state, OperationState::Done, "{kind} {point:?} {ended:#?}");
                assert_eq!(
                    ended.runner.as_deref(),
                    Some(if ended.runner.as_deref() == Some("a") { "a" } else { "b" })
                );
                cluster.tend().await;
                assert_sound(&cluster).await;
            }
        }
    }
    assert_eq!(stopped, JourneyKind::ALL.iter().map(|kind| 2 * steps(*kind).len()).sum::<usize>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journey_that_is_refused_at_any_step_leaves_nothing_behind() {
    for kind in JourneyKind::ALL {
        for (place, step) in steps(kind).iter().enumerate() {
            let (cluster, owner, request) = stage(kind).await;
            let world = cluster.world("a");
            world.refuse_at(step.name());
            let ended = cluster.carry_out(&world, owner, kind, request).await;
            let past = steps(kind).iter().take(place).any(|step| step.is_point_of_no_return());
            let expected = if past { OperationState::Failed } else { OperationState::Undone };
            assert_eq!(ended.state, expected, "{kind} at {}", step.name());
            if past {
                continue;
            }
            cluster.tend().await;
            assert_sound(&cluster).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_stops_while_it_undoes_is_followed_by_another() {
    for kind in [JourneyKind::HandOver, JourneyKind::NetworkChange, JourneyKind::VmCreate] {
        let refused = steps(kind).iter().position(|step| step.name() == "change").unwrap_or(2);
        for step in steps(kind).iter().take(refused) {
            for after in [false, true] {
                let (cluster, owner, request) = stage(kind).await;
                let world = cluster.world("a");
                let id = cluster.submit(&world, owner, kind, request).await;
                world.refuse_at(steps(kind)[refused].name());
                world.stop_at(FailPoint { step: step.name().to_owned(), backward: true, after });
                assert!(matches!(run(&world, id).await, Err(EngineError::Stopped)), "{kind} {}", step.name());
                let ended = taken_over(&cluster, id).await;
                assert_eq!(ended.state, OperationState::Undone, "{kind} {} {ended:#?}", step.name());
                cluster.tend().await;
                assert_sound(&cluster).await;
            }
        }
    }
}
