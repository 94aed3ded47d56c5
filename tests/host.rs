//! The host agent between a controller's link and a real switch: documents become networks, ports and guests; crashes at
//! every step, a switch that lost its state, and a controller that is away change nothing of where it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod scene;
mod town;

use control::host::Report;
use control::lab::{Switch, SwitchOptions};
use control::model::{GuestReport, Phase, VmDesired, VmRunning};
use scene::{PATIENCE, Scene, say, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use town::{Fuse, HostAgent, Namespaces, Town, document, entry, ip, moved, vm, vni};

/// A world with one switch, a controller, and guests that outlive agents.
struct Stage {
    town: Town,
    guests: Arc<Namespaces>,
    switch: Switch,
    _scene: Scene,
}

impl Stage {
    fn new() -> Self {
        let scene = Scene::new(&[]);
        let (_, switch) = scene.switch("host-a", 1, &SwitchOptions::default());
        let guests = Namespaces::new(&scene.world, Arc::<Fuse>::default());
        Self { town: Town::new(), guests, switch, _scene: scene }
    }

    fn agent(&self) -> HostAgent {
        HostAgent::new(&self.town, &self.switch.socket(), &self.guests)
    }

    fn document(&self) -> Value {
        say(&self.switch, "export")
    }

    /// (port, network, address) of each port on the switch.
    fn ports(&self) -> BTreeSet<(String, u64, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let document = self.document();
        let ports = document["ports"].as_array().unwrap().iter();
        ports
            .map(|port| (text(&port["name"]), port["network"].as_u64().unwrap(), text(&port["ips"][0])))
            .collect()
    }

    fn networks(&self) -> BTreeSet<u64> {
        let document = self.document();
        document["networks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|network| network["vni"].as_u64().unwrap())
            .collect()
    }

    fn directory(&self, network: u32) -> BTreeSet<(String, String)> {
        let list = say(&self.switch, &format!("directory list --network {network}"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entries = list["entries"].as_array().unwrap().iter();
        entries.map(|entry| (text(&entry["ip"]), text(&entry["physical_ip"]))).collect()
    }

    /// Whether host and switch have exactly these machines by now.
    fn has(&self, vms: &[&VmDesired]) -> bool {
        let networks: BTreeSet<_> = vms.iter().map(|vm| u64::from(vm.network.value())).collect();
        let ports: BTreeSet<_> = vms.iter().map(|vm| vm.port.clone()).collect();
        let is: BTreeSet<_> = self.ports().into_iter().map(|(port, ..)| port).collect();
        is == ports && self.guests.ports() == ports && self.networks() == networks
    }

    /// Waits until host and switch have exactly these machines.
    fn settled(&self, vms: &[&VmDesired]) {
        vms.iter().for_each(|vm| drop(self.town.running(vm)));
        let should: BTreeSet<_> = vms
            .iter()
            .map(|vm| (vm.port.clone(), u64::from(vm.network.value()), vm.ips[0].to_string()))
            .collect();
        until("the ports to be those that are wanted", || self.ports() == should);
        until("the networks to be those that are wanted", || {
            self.networks() == should.iter().map(|(_, network, _)| *network).collect()
        });
        until("the guests to be those that are wanted", || {
            self.guests.ports() == should.iter().map(|(port, _, _)| port.clone()).collect()
        });
    }
}

#[test]
fn documents_become_networks_ports_and_guests_and_go_again() {
    let stage = Stage::new();
    let agent = stage.agent();
    let (host, town) = (stage.town.host, &stage.town);
    let (a, b) = (vm("vm-a", 11), vm("vm-b", 12));
    town.directory.record(vni(100), 7, &[entry(11, 1), entry(21, 2), entry(22, 3)], &[]);
    town.desired.put(host, document(1, &[100], &[&a, &b]));
    stage.settled(&[&a, &b]);
    assert_eq!(town.heard.inventory.lock().unwrap().as_ref().unwrap().memory_mib, 1024);
    let presence = town.server.as_ref().unwrap().presence().clone();
    let held = || presence.status(host).unwrap().directories.get(&vni(100)).copied().flatten();
    until("the directory to be acknowledged", || held() == Some(7));
    let others = |hosts: &[(u8, u8)]| {
        let text = |(last, host): &(u8, u8)| (format!("10.0.0.{last}"), format!("192.0.2.{host}"));
        hosts.iter().map(text).collect::<BTreeSet<_>>()
    };
    // What lives here is a port, and no entry of the directory.
    assert_eq!(stage.directory(100), others(&[(21, 2), (22, 3)]));
    let version = town.directory.change(vni(100), &[entry(21, 3), entry(23, 3)], &[ip(22)]);
    until("the change to be acknowledged", || held() == Some(version));
    assert_eq!(stage.directory(100), others(&[(21, 3), (23, 3)]));

    // One machine moves, with its document under its new label; the other is left alone.
    let boots = (stage.guests.boot_id(a.vm), stage.guests.boot_id(b.vm));
    let a2 = moved(&a, 200, 31);
    town.directory.record(vni(200), 3, &[entry(41, 2)], &[]);
    town.desired.put(host, document(2, &[100, 200], &[&a2, &b]));
    let fact = town.running(&a2);
    let times = fact.times.expect("times of the move");
    assert!(times.swap_ns > 0 && times.settled_ns >= times.swap_ns);
    stage.settled(&[&a2, &b]);
    assert_eq!((stage.guests.boot_id(a.vm), stage.guests.boot_id(b.vm)), boots, "nobody was restarted");
    // Which port was added first is chance.
    let label = |name: &str| {
        let document = stage.document();
        let port = document["ports"].as_array().unwrap().iter().find(|port| port["name"] == name);
        port.unwrap()["label"].clone()
    };
    assert_eq!(
        (label("vm-a"), label("vm-b")),
        (Value::from("2"), Value::from("1")),
        "the label changes with the network"
    );
    let published: Vec<_> = agent.board.published.lock().unwrap().clone().into_iter().collect();
    let document_of = |port: &str, label: &str, generation| ((port.to_owned(), label.to_owned()), generation);
    assert_eq!(published, [document_of("vm-a", "2", 2), document_of("vm-b", "1", 1)]);
    until("the other directory", || stage.directory(200) == others(&[(41, 2)]));

    // What the guest says travels, if it is about this generation.
    let report = |generation, phase| Report {
        port: "vm-a".to_owned(),
        label: "2".to_owned(),
        report: GuestReport {
            generation,
            phase,
            detail: None,
            boot_id: "b".to_owned(),
            hostname: None,
            addresses: vec![],
        },
        at: jiff::Timestamp::now(),
    };
    agent.reports.blocking_send(report(1, Phase::Failed)).unwrap();
    agent.reports.blocking_send(report(2, Phase::Ready)).unwrap();
    let told = town.wait(a.vm, "the report", |fact| fact.report.is_some());
    assert_eq!(told.report.unwrap().report.phase, Phase::Ready);
    assert!(told.heard_at.is_some());

    // The last machine of a network goes, and with it the network and its directory.
    town.desired.put(host, document(3, &[200], &[&a2]));
    town.wait(b.vm, "the machine to be gone", |fact| fact.running == VmRunning::Gone);
    stage.settled(&[&a2]);
    until("the directory of a network that is gone to be empty", || stage.directory(100).is_empty());
    // It comes back later: nothing of before is left, and the directory comes anew.
    town.desired.put(host, document(4, &[100, 200], &[&a2, &b]));
    stage.settled(&[&a2, &b]);
    until("the directory again", || stage.directory(100) == others(&[(21, 3), (23, 3)]));
    agent.stop();
    assert_eq!(stage.guests.ports().len(), 2, "guests outlive the agent");
    assert_eq!(stage.ports().len(), 2);
}

#[test]
fn a_guest_that_did_not_follow_sees_its_link_bounce_and_one_with_a_new_name_does_not() {
    let stage = Stage::new();
    let a = vm("vm-a", 11);
    let agent = stage.agent();
    let mut generation = 0;
    let mut put = |vm: &VmDesired| {
        generation += 1;
        stage.town.desired.put(stage.town.host, document(generation, &[100], &[vm]));
        stage.settled(&[vm]);
    };
    let changes = || {
        let file = "/sys/class/net/vm-a/carrier_changes";
        let text = stage._scene.world.run(None, "ip", &["netns", "exec", "vm-a", "cat", file]).unwrap();
        text.trim().parse::<u32>().unwrap()
    };
    put(&a);
    let at_first = changes();
    let renamed = moved(&a, 100, 11);
    put(&renamed);
    assert_eq!(stage.document()["ports"][0]["label"], "2");
    assert_eq!(changes(), at_first, "a new name is no reason");
    let mut shown = moved(&renamed, 100, 11);
    shown.bounces = 1;
    put(&shown);
    assert_eq!(stage.document()["ports"][0]["label"], "3+1");
    until("the link to go and come", || changes() == at_first + 2);
    // An agent that is started anew does not bounce it again.
    agent.stop();
    let agent = stage.agent();
    let mut renamed = moved(&shown, 100, 11);
    put(&renamed);
    assert_eq!(changes(), at_first + 2);
    renamed = moved(&renamed, 100, 11);
    renamed.bounces = 2;
    put(&renamed);
    until("the link to go and come again", || changes() == at_first + 4);
    agent.stop();
}

#[test]
fn a_dead_guest_is_told_of_and_started_again_and_a_stopped_one_is_not() {
    let stage = Stage::new();
    let agent = stage.agent();
    let (host, town) = (stage.town.host, &stage.town);
    let a = vm("vm-a", 11);
    town.desired.put(host, document(1, &[100], &[&a]));
    stage.settled(&[&a]);
    let first = stage.guests.boot_id(a.vm);
    stage.guests.die(a.vm);
    until("the guest to run again", || stage.guests.boot_id(a.vm).is_some_and(|id| Some(id) != first));
    let was_told = || {
        let facts = town.heard.facts.lock().unwrap();
        let dead = facts.iter().position(|fact| fact.running == VmRunning::Dead);
        dead.is_some_and(|dead| facts[dead..].iter().any(|fact| fact.running == VmRunning::Running))
    };
    until("its death and its return to be told", was_told);

    // It dies while nobody looks.
    agent.stop();
    stage.guests.die(a.vm);
    town.heard.facts.lock().unwrap().clear();
    let agent = stage.agent();
    until("its death and its return to be told", was_told);
    // Stopped on purpose: no death, no start.
    let mut stopped = moved(&a, 100, 11);
    stopped.power = control::model::Power::Stopped;
    town.heard.facts.lock().unwrap().clear();
    town.desired.put(host, document(2, &[100], &[&stopped]));
    stage.settled(&[&stopped]);
    assert_eq!(stage.guests.boot_id(a.vm), None);
    drop(agent);
    let starts = stage.guests.starts.lock().unwrap().len();
    let agent = stage.agent();
    town.heard.facts.lock().unwrap().clear();
    stage.settled(&[&stopped]);
    assert_eq!(stage.guests.starts.lock().unwrap().len(), starts);
    assert!(town.heard.facts.lock().unwrap().iter().all(|fact| fact.running != VmRunning::Dead));
    agent.stop();
}

#[test]
fn it_works_on_while_the_controller_is_away_and_repairs_a_switch_that_lost_its_state() {
    let mut stage = Stage::new();
    let host = stage.town.host;
    let (a, b) = (vm("vm-a", 11), vm("vm-b", 12));
    let agent = stage.agent();
    stage.town.directory.record(vni(100), 7, &[entry(21, 2)], &[]);
    stage.town.desired.put(host, document(1, &[100], &[&a, &b]));
    stage.settled(&[&a, &b]);
    until("the directory", || stage.directory(100).len() == 1);
    agent.stop();
    stage.town.stop();

    // Neither agent nor controller: the switch loses everything. An agent alone puts back what the ledger says.
    stage.switch.terminate().unwrap();
    let state = stage._scene.world.outside("/run/shunt/host-a/state/state.redb");
    let state =
        if state.exists() { state } else { find(&stage._scene.world.outside("/run"), "state.redb").unwrap() };
    std::fs::remove_file(&state).unwrap();
    stage.switch.start().unwrap();
    assert!(stage.ports().is_empty());
    let agent = stage.agent();
    until("the ports again", || stage.ports().len() == 2);
    assert!(stage.directory(100).is_empty(), "only a controller knows it");

    // The controller comes back with a change; the directory comes whole, although the ledger had a version.
    let a2 = moved(&a, 100, 13);
    stage.town.heard.facts.lock().unwrap().clear();
    stage.town.desired.put(host, document(2, &[100], &[&a2, &b]));
    stage.town.start();
    stage.settled(&[&a2, &b]);
    until("the directory again", || stage.directory(100).len() == 1);

    // The switch is killed under a running agent, and comes back empty.
    stage.switch.kill();
    std::fs::remove_file(&state).unwrap();
    stage.switch.start().unwrap();
    until("the ports once more", || stage.ports().len() == 2);
    until("the directory once more", || stage.directory(100).len() == 1);
    // A controller that goes back in time is refused, and what is there stays.
    stage.town.stop();
    stage.town.desired.forget(host);
    stage.town.desired.put(host, document(1, &[], &[]));
    stage.town.start();
    until("the refusal", || !stage.town.heard.refused.lock().unwrap().is_empty());
    assert!(stage.town.heard.refused.lock().unwrap()[0].what.contains("older"));
    assert_eq!(stage.ports().len(), 2);
    agent.stop();
}

fn find(below: &Path, name: &str) -> Option<std::path::PathBuf> {
    let mut all: Vec<_> =
        std::fs::read_dir(below).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    all.sort();
    let here = all.iter().find(|path| path.file_name().is_some_and(|file| file == name)).cloned();
    here.or_else(|| {
        all.iter().filter(|path| path.is_dir() && !path.is_symlink()).find_map(|path| find(path, name))
    })
}

/// The agent is killed at every call that it makes, in the life of one machine: made, moved, removed.
#[test]
fn a_crash_at_any_step_ends_where_no_crash_would_have() {
    let stage = Stage::new();
    let (host, town) = (stage.town.host, &stage.town);
    let stays = vm("vm-s", 9);
    town.desired.put(host, document(1, &[100], &[&stays]));
    let mut agent = Some(stage.agent());
    stage.settled(&[&stays]);
    let mut generation = 1;
    let mut crashes = 0;
    for calls in 0.. {
        let mut blown = false;
        let a = vm(&format!("vm-{calls}"), 11);
        let a2 = moved(&a, 200, 12);
        stage.guests.fuse.set(Some(calls));
        for (networks, vms) in
            [(vec![100], vec![&stays, &a]), (vec![100, 200], vec![&stays, &a2]), (vec![100], vec![&stays])]
        {
            generation += 1;
            town.desired.put(host, document(generation, &networks, &vms));
            // Either it gets through, or it hangs at the call and is killed there.
            let done = || {
                let facts = vms.iter().all(|vm| {
                    town.heard.last(vm.vm).is_some_and(|fact| {
                        fact.generation == vm.generation && fact.running == VmRunning::Running
                    })
                });
                let acknowledged = town.server.as_ref().unwrap().presence().status(host);
                facts
                    && acknowledged.is_some_and(|status| status.generation == Some(generation))
                    && stage.guests.ports().len() == vms.len()
            };
            let has_blown = || stage.guests.fuse.has_blown.load(Ordering::SeqCst);
            until("the agent to be done, or to hang", || done() || has_blown());
            if !has_blown() {
                // A call of which nobody waits for the end may still hang: then what is wanted does not come by itself.
                let end = std::time::Instant::now() + PATIENCE;
                while !stage.has(&vms) && !has_blown() {
                    assert!(std::time::Instant::now() < end, "it neither gets through nor hangs");
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
            if has_blown() {
                blown = true;
                drop(agent.take());
                stage.guests.fuse.set(None);
                agent = Some(stage.agent());
            }
            stage.settled(&vms);
        }
        if !blown {
            break;
        }
        crashes += 1;
    }
    assert!(crashes >= 6, "{crashes} crashes");
    drop(agent);
}

#[test]
fn what_nobody_wants_is_removed_at_the_start() {
    let stage = Stage::new();
    let (host, town) = (stage.town.host, &stage.town);
    let (a, b) = (vm("vm-a", 11), vm("vm-b", 12));
    let agent = stage.agent();
    town.desired.put(host, document(1, &[100], &[&a, &b]));
    stage.settled(&[&a, &b]);
    // A port that somebody made by hand is not ours.
    stage._scene.world.add_netns("by-hand").unwrap();
    say(&stage.switch, "network add 300 --prefix 10.3.0.0/24");
    say(
        &stage.switch,
        "port add by-hand --network 300 --mac 02:00:00:00:00:77 --ip 10.3.0.7 --netns by-hand",
    );
    agent.stop();
    // The ledger is lost, and the controller wants one of both.
    std::fs::remove_file(town.host_dir().join("ledger.redb")).unwrap();
    town.heard.facts.lock().unwrap().clear();
    let a2 = moved(&a, 100, 11);
    let boot = stage.guests.boot_id(a.vm);
    town.desired.put(host, document(2, &[100], &[&a2]));
    let agent = stage.agent();
    town.running(&a2);
    assert_eq!(stage.guests.boot_id(a.vm), boot, "who is still wanted is left alone");
    until("the orphan to go", || stage.guests.ports() == BTreeSet::from(["vm-a".to_owned()]));
    let ports: BTreeSet<_> = stage.ports().into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(ports, BTreeSet::from(["by-hand".to_owned(), "vm-a".to_owned()]));
    agent.stop();
}
