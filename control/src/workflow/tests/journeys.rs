//! Whole journeys, and what they leave behind.

use super::cluster::{Cluster, Mood, assert_done, assert_sound, ip, name};
use crate::compute;
use crate::model::{JourneyKind, OperationState, StepState, Tenant, VmState};
use crate::network;
use crate::pool;
use crate::workflow::journeys::requests::{ChangeNetwork, OneVm};

fn json<T: serde::Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}

#[tokio::test]
async fn a_machine_goes_from_the_pool_to_its_customer_and_through_its_life() {
    let cluster = Cluster::new().await;
    let world = cluster.world("a");
    let before = cluster.keys().await;
    let pool = cluster.pool(1).await;
    let stocked = pool::stock(&*cluster.store, pool).await.unwrap()[0].vm;
    let placeholder =
        compute::load_nic(&*cluster.store, cluster.vm(stocked).await.nic).await.unwrap().unwrap().row;

    let wish = json(&cluster.wish("web-1", Some("10.0.0.7")));
    let ended = cluster.carry_out(&world, cluster.tenant, JourneyKind::HandOver, wish).await;
    assert_done(&ended);
    assert_eq!(ended.vm, Some(stocked));
    let names: Vec<_> = ended.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["claim", "learn", "own", "change", "ready", "forget"]);
    let vm = cluster.vm(stocked).await;
    assert_eq!((vm.tenant, vm.state, vm.name.as_str()), (cluster.tenant, VmState::Running, "web-1"));
    assert!(vm.settings.script.is_some() && !vm.partial && vm.watched_until.is_some());
    let nic = compute::load_nic(&*cluster.store, vm.nic).await.unwrap().unwrap().row;
    assert_eq!((nic.mac, nic.physical_ip), (placeholder.mac, placeholder.physical_ip), "for life");
    assert_eq!(nic.binding.addresses, [ip("10.0.0.7")]);
    cluster.tend().await;
    assert_sound(&cluster).await;

    // The other network has the same addresses.
    let change = ChangeNetwork {
        vm: stocked,
        network: Some(cluster.blue.clone()),
        addresses: vec![ip("10.0.0.7")],
        name: Some(name("web-2")),
    };
    assert_done(&cluster.carry_out(&world, cluster.tenant, JourneyKind::NetworkChange, json(&change)).await);
    let vm = cluster.vm(stocked).await;
    assert_eq!((vm.tenant, vm.name.as_str()), (cluster.tenant, "web-2"), "no change of owner");
    assert_eq!(
        network::directory_entry(&*cluster.store, &cluster.red, ip("10.0.0.7").0).await.unwrap(),
        None
    );
    cluster.tend().await;
    assert_sound(&cluster).await;

    let one = json(&OneVm { vm: stocked, reason: Some("looks odd".to_owned()) });
    assert_done(&cluster.carry_out(&world, cluster.tenant, JourneyKind::Quarantine, one.clone()).await);
    assert_eq!(cluster.vm(stocked).await.state, VmState::Quarantined);
    cluster.tend().await;
    assert_sound(&cluster).await;
    assert_done(&cluster.carry_out(&world, cluster.tenant, JourneyKind::Release, one.clone()).await);
    let nic = compute::load_nic(&*cluster.store, vm.nic).await.unwrap().unwrap().row;
    assert_eq!((nic.binding.network, nic.binding.addresses), (cluster.blue.clone(), vec![ip("10.0.0.7")]));
    cluster.tend().await;
    assert_sound(&cluster).await;

    assert_done(&cluster.carry_out(&world, cluster.tenant, JourneyKind::VmDelete, one).await);
    cluster.tend().await;
    let mut after = cluster.keys().await;
    after.retain(|key| !key.starts_with("pool/"));
    assert_eq!(after, before, "nothing of it is left");
}

#[tokio::test]
async fn a_miss_is_made_from_scratch_and_a_full_quota_is_refused() {
    let cluster = Cluster::new().await;
    let world = cluster.world("a");
    for number in 0..40 {
        let wish = json(&cluster.wish(&format!("web-{number}"), None));
        let ended = cluster.carry_out(&world, cluster.tenant, JourneyKind::HandOver, wish).await;
        assert_done(&ended);
        assert_eq!(ended.kind, JourneyKind::VmCreate, "there is no pool");
    }
    let wish = json(&cluster.wish("web-40", None));
    let ended = cluster.carry_out(&world, cluster.tenant, JourneyKind::HandOver, wish).await;
    assert_eq!(ended.state, OperationState::Undone);
    assert_eq!(ended.problem.unwrap().place, "quota");
    let again = json(&cluster.wish("web-3", None));
    let ended = cluster.carry_out(&world, cluster.tenant, JourneyKind::HandOver, again).await;
    assert_eq!(ended.problem.unwrap().place, "name");
    cluster.tend().await;
    assert_sound(&cluster).await;
}

#[tokio::test]
async fn another_tenants_network_does_not_exist() {
    let cluster = Cluster::new().await;
    let world = cluster.world("a");
    cluster.pool(1).await;
    let mut draft = crate::store::Draft::new();
    let quota = crate::model::Quota::default();
    let other = crate::tenant::create(&mut draft, &name("other"), quota, world.now()).unwrap().id;
    cluster.store.commit(draft.finish().unwrap()).await.unwrap();
    let ended =
        cluster.carry_out(&world, other, JourneyKind::HandOver, json(&cluster.wish("spy", None))).await;
    assert_eq!(ended.state, OperationState::Undone);
    assert!(ended.problem.unwrap().what.contains("no network"));
    cluster.tend().await;
    assert_sound(&cluster).await;
}

#[tokio::test]
async fn a_machine_that_fails_is_replaced_and_kept_for_inspection() {
    for mood in [Mood::Fails, Mood::Silent] {
        let cluster = Cluster::new().await;
        let world = cluster.world("a");
        let pool = cluster.pool(2).await;
        let ready = pool::stock(&*cluster.store, pool).await.unwrap();
        // Whichever is taken first is the bad one: both are, and the third is made from scratch.
        for stocked in &ready {
            cluster.moods.lock().unwrap().insert(stocked.vm, mood);
        }
        let wish = json(&cluster.wish("web-1", Some("10.0.0.9")));
        let ended = cluster.carry_out(&world, cluster.tenant, JourneyKind::HandOver, wish).await;
        assert_done(&ended);
        assert_eq!((ended.kind, ended.replacements), (JourneyKind::VmCreate, 2));
        let vm = cluster.vm(ended.vm.unwrap()).await;
        let nic = compute::load_nic(&*cluster.store, vm.nic).await.unwrap().unwrap().row;
        assert_eq!(
            (vm.name.as_str(), nic.binding.addresses),
            ("web-1", vec![ip("10.0.0.9")]),
            "the wish is kept"
        );
        for stocked in &ready {
            let failed = cluster.vm(stocked.vm).await;
            assert_eq!((failed.tenant, failed.state), (Tenant::PLATFORM, VmState::Quarantined));
            assert!(failed.failure.is_some() && failed.settings.script.is_none());
            assert_eq!(
                failed.bounces,
                u32::from(mood == Mood::Silent),
                "who said that it failed is not asked again"
            );
        }
        cluster.tend().await;
        assert_sound(&cluster).await;
    }
}

#[tokio::test]
async fn a_host_that_cannot_carry_it_out_gives_everything_back() {
    let cluster = Cluster::new().await;
    let world = cluster.world("a");
    let pool = cluster.pool(1).await;
    let stocked = pool::stock(&*cluster.store, pool).await.unwrap()[0].vm;
    cluster.moods.lock().unwrap().insert(stocked, Mood::HostFails);
    let wish = json(&cluster.wish("web-1", Some("10.0.0.9")));
    let ended = cluster.carry_out(&world, cluster.tenant, JourneyKind::HandOver, wish).await;
    assert_eq!(ended.state, OperationState::Undone, "{ended:#?}");
    assert_eq!(ended.problem.as_ref().unwrap().what, "no room");
    let undone: Vec<_> = ended.steps.iter().map(|step| step.state).collect();
    assert_eq!(undone, [StepState::Undone, StepState::Undone, StepState::Undone, StepState::Failed]);
    let vm = cluster.vm(stocked).await;
    assert_eq!(
        (vm.tenant, vm.state),
        (Tenant::PLATFORM, VmState::Failed),
        "its guest may have seen too much for a pool"
    );
    cluster.tend().await;
    assert_sound(&cluster).await;
    assert!(compute::load_vm(&*cluster.store, stocked).await.unwrap().is_none(), "cleared away");
}
