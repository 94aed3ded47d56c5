//! The keeper: whoever of switch and keeper dies, guests see no link loss, and the switch needs no privilege.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod blackout;
mod scene;

use std::fs;
use std::net::Ipv4Addr;

use blackout::{Load, carrier_changes};
use control::lab::{Guest, Host, Switch, SwitchOptions, Tool};
use rustix::process::{Pid, Signal, kill_process};
use scene::{PATIENCE, Scene, inhabitants, is_alive, say, until};

const DAVE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);

/// Two hosts with a guest each, in one network.
struct Pair {
    a: Switch,
    _b: Switch,
    _host: Host,
    eve: Guest,
    dave: Guest,
    scene: Scene,
}

impl Pair {
    fn new(tools: &[Tool]) -> Self {
        let scene = Scene::new(tools);
        let (host, a) = scene.switch("host-a", 1, &SwitchOptions::default());
        let (_, b) = scene.switch("host-b", 2, &SwitchOptions::default());
        for switch in [&a, &b] {
            say(switch, "network add 100 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
        }
        let eve = scene.static_guest(&a, "eve", 100, "02:00:00:00:00:01", "10.0.0.1");
        let dave = scene.static_guest(&b, "dave", 100, "02:00:00:00:00:04", "10.0.0.4");
        say(&a, "directory set --network 100 --ip 10.0.0.4 --mac 02:00:00:00:00:04 --physical-ip 192.0.2.2");
        say(&b, "directory set --network 100 --ip 10.0.0.1 --mac 02:00:00:00:00:01 --physical-ip 192.0.2.1");
        eve.wait_for_ping(DAVE, PATIENCE).unwrap();
        Self { a, _b: b, _host: host, eve, dave, scene }
    }

    /// The processes of this name that serve the first switch's state directory.
    fn processes(&self, name: &str) -> Vec<u32> {
        processes(&self.scene, name, "host-a")
    }

    fn keeper(&self) -> u32 {
        let keepers = self.processes("shunt-keeper");
        assert_eq!(keepers.len(), 1, "{keepers:?}");
        keepers[0]
    }

    fn kill(&self, pid: u32) {
        kill(pid);
        until("a killed process to be gone", || !is_alive(pid));
    }

    /// Keeper and standby are there, and neither is one of `dead`.
    fn wait_for_succession(&self, dead: &[u32]) {
        until("another keeper and another standby", || {
            let (keepers, standbys) = (self.processes("shunt-keeper"), self.processes("shunt-standby"));
            keepers.len() == 1
                && standbys.len() == 1
                && !dead.iter().any(|pid| keepers.contains(pid) || standbys.contains(pid))
        });
    }
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

fn processes(scene: &Scene, name: &str, host: &str) -> Vec<u32> {
    let is = |pid: &u32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        read("comm").trim() == name && read("cmdline").contains(host) && is_alive(*pid)
    };
    inhabitants(scene.world.anchor()).into_iter().filter(is).collect()
}

#[test]
fn killed_or_restarted_in_order_no_guest_sees_its_link_go() {
    let mut pair = Pair::new(&[Tool::PING]);
    let keeper = pair.keeper();
    let before = [&pair.eve, &pair.dave].map(carrier_changes);
    let load = Load::start(&pair.scene.world, (&pair.eve, &pair.dave), DAVE, 2000);
    for round in 0..6 {
        if round % 2 == 0 {
            pair.a.kill();
        } else {
            pair.a.terminate().unwrap();
        }
        pair.a.start().unwrap_or_else(|error| panic!("{error}"));
        load.wait_for_progress();
    }
    let report = load.end();
    println!("{report}");
    assert!(report.tcp_alive, "the TCP connection lives on");
    assert_eq!([&pair.eve, &pair.dave].map(carrier_changes), before);
    assert_eq!(pair.keeper(), keeper, "one keeper for all of them");
    // It not only forwards: a change is still a change.
    say(&pair.a, "network add 200 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
    say(&pair.a, "port move eve --network 200 --ip 10.0.0.9 --no-bounce");
    until("the old neighbour to be out of reach", || !pair.eve.ping(DAVE, 1).unwrap());
}

/// The capability sets of a process, and whether it can gain any.
fn privileges(pid: u32) -> Vec<(String, String)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let fields = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    let told: Vec<_> = lines
        .filter(|(name, _)| fields.contains(name))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    assert_eq!(told.len(), fields.len(), "{status}");
    told
}

#[test]
fn the_switch_works_without_any_privilege() {
    let pair = Pair::new(&[Tool::PING]);
    let pid = pair.a.process().unwrap().pid();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads = 0;
    for task in tasks {
        threads += 1;
        let task = task.unwrap().file_name().into_string().unwrap().parse().unwrap();
        for (name, value) in privileges(task) {
            let bare = if name == "NoNewPrivs" { "1" } else { "0000000000000000" };
            assert_eq!(value, bare, "{name} of thread {task}");
        }
    }
    assert!(threads > 2, "workers and the control socket have threads of their own");
    // Ports come, follow their network's MTU and their own MAC, bounce, and go with their interfaces.
    let late = pair.scene.static_guest(&pair.a, "late", 100, "02:00:00:00:00:07", "10.0.0.7");
    late.wait_for_ping([10, 0, 0, 1].into(), PATIENCE).unwrap();
    say(&pair.a, "network add 200 --prefix 10.0.0.0/24 --gateway 10.0.0.254 --mtu 1300");
    let changes = carrier_changes(&late);
    say(&pair.a, "port move late --network 200 --ip 10.0.0.8 --hold-ms 50");
    until("the bounce", || carrier_changes(&late) == changes + 2);
    let mtu = || late.run("cat", &["/sys/class/net/late/mtu"]).unwrap();
    until("the interface to have its network's MTU", || mtu().trim() == "1300");
    let mut document = say(&pair.a, "export");
    document["generation"] = (document["generation"].as_u64().unwrap() + 1).into();
    let ports = document["ports"].as_array_mut().unwrap();
    ports.iter_mut().find(|port| port["name"] == "late").unwrap()["mac"] = "02:00:00:00:00:77".into();
    pair.scene.world.write("/run/lab/document.json", &document.to_string()).unwrap();
    let file = pair.scene.world.outside("/run/lab/document.json").display().to_string();
    pair.a.cli(&["apply", &file]).unwrap();
    assert_eq!(late.mac().unwrap(), "02:00:00:00:00:77");
    say(&pair.a, "port remove late");
    late.mac().unwrap_err();
    // The name is free at once, and a port of that name is another interface.
    say(&pair.a, "port add late --network 100 --mac 02:00:00:00:00:07 --ip 10.0.0.7 --netns late");
    late.mac().unwrap();
    // What cannot be had is still said with place and remedy.
    let refused = pair
        .a
        .say("port add lost --network 100 --mac 02:00:00:00:00:0a --ip 10.0.0.10 --netns nowhere")
        .unwrap_err();
    assert!(
        refused.part("what").unwrap().contains("network namespace `nowhere` does not exist"),
        "{refused}"
    );
    assert!(refused.part("remedy").unwrap().contains("ip netns add nowhere"), "{refused}");
}

/// Each worker has sockets of its own, and a port's queues are shared among those that there are.
#[test]
fn another_number_of_workers_takes_over_what_was_kept() {
    let mut pair = Pair::new(&[Tool::PING]);
    let twin = Guest::new(&pair.scene.world, "twin").unwrap();
    say(&pair.a, "port add twin --network 100 --mac 02:00:00:00:00:07 --ip 10.0.0.7 --netns twin --queues 2");
    twin.set_address([10, 0, 0, 7].into(), 24).unwrap();
    let keeper = pair.keeper();
    let before = [&pair.eve, &twin].map(carrier_changes);
    let file = pair.scene.world.outside(pair.a.config_inside());
    for (was, count) in [(1, 3), (3, 2), (2, 1)] {
        let config = fs::read_to_string(&file).unwrap();
        let changed = config.replace(&format!("count = {was}"), &format!("count = {count}"));
        assert_ne!(changed, config);
        fs::write(&file, changed).unwrap();
        pair.a.kill();
        pair.a.start().unwrap_or_else(|error| panic!("{count} workers: {error}"));
        for _ in 0..8 {
            // Other source ports, other queues: the peer's packets reach every worker's socket in time.
            assert!(
                pair.eve.ping(DAVE, 3).unwrap() && twin.ping([10, 0, 0, 1].into(), 3).unwrap(),
                "{count} workers"
            );
        }
    }
    assert_eq!([&pair.eve, &twin].map(carrier_changes), before);
    assert_eq!(pair.keeper(), keeper);
}

#[test]
fn a_keeper_that_dies_has_a_successor_that_has_everything() {
    let mut pair = Pair::new(&[Tool::PING]);
    let before = [&pair.eve, &pair.dave].map(carrier_changes);
    // Keeper, then standby, then keeper: each is replaced.
    for name in ["shunt-keeper", "shunt-standby", "shunt-keeper"] {
        until("a keeper and a standby", || {
            pair.processes("shunt-keeper").len() == 1 && pair.processes(name).len() == 1
        });
        let victim = pair.processes(name)[0];
        pair.kill(victim);
        assert!(pair.eve.ping(DAVE, 3).unwrap(), "the switch goes on");
        pair.wait_for_succession(&[victim]);
    }
    until("the switch to have handed over", || {
        pair.a.log().matches("taken over all descriptors").count() == 2
    });
    // The successor opens what is new, and the switch may die.
    let _late = pair.scene.static_guest(&pair.a, "late", 100, "02:00:00:00:00:07", "10.0.0.7");
    for _ in 0..2 {
        pair.a.kill();
        pair.a.start().unwrap_or_else(|error| panic!("{error}"));
        pair.eve.wait_for_ping(DAVE, PATIENCE).unwrap();
    }
    assert_eq!([&pair.eve, &pair.dave].map(carrier_changes), before);
}

#[test]
fn when_all_are_dead_the_switch_begins_from_disk() {
    let mut pair = Pair::new(&[Tool::PING]);
    let document = say(&pair.a, "export");
    let dead = [pair.processes("shunt-standby"), pair.processes("shunt-keeper")].concat();
    dead.iter().for_each(|pid| kill(*pid));
    pair.a.kill();
    until("all of them to be dead", || !dead.iter().any(|pid| is_alive(*pid)));
    pair.a.start().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(say(&pair.a, "export"), document);
    pair.eve.wait_for_ping(DAVE, PATIENCE).unwrap();
    pair.wait_for_succession(&dead);
}

#[test]
fn stop_ends_both_and_leaves_nobody() {
    let pair = Pair::new(&[Tool::PING]);
    let all = || [pair.processes("shunt-standby"), pair.processes("shunt-keeper")].concat();
    until("keeper and standby", || all().len() == 2);
    let config = pair.a.config_inside();
    let shunt = scene::shunt().display().to_string();
    let stop = || {
        let said = pair
            .scene
            .world
            .run(None, &shunt, &["vswitch", "stop", "--config", &config, "--output", "json"])
            .unwrap();
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    let said = stop();
    assert!(said["switch"].is_u64() && said["keeper"] == true && said["taps"] == 1, "{said}");
    until("all of them to be gone", || all().is_empty());
    assert!(!pair.a.socket().exists());
    let carrier = || pair.eve.run("cat", &["/sys/class/net/eve/carrier"]).unwrap();
    assert_eq!(carrier().trim(), "0", "the guest sees that nobody is there");
    let said = stop();
    assert!(said["switch"].is_null() && said["keeper"] == false, "{said}");
}
