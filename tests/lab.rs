//! The laboratory itself, without the switch: what it makes works, and nothing of it remains.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::{Capture, ClientKind, FABRIC, Frame, Guest, KernelPeer, Process, Tool, World};
use scene::{PATIENCE, Scene, inhabitants, is_alive, until};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::Arc,
};

/// Everything of a kind that could be left behind: namespaces, a persistent TAP, an orphan that left its parent.
fn furnish(world: &World) -> Vec<Process> {
    world.add_netns("left-over").unwrap();
    world.run(Some("left-over"), "ip", &["tuntap", "add", "mode", "tap", "name", "left-tap"]).unwrap();
    world.run(None, "ip", &["tuntap", "add", "mode", "tap", "name", "left-tap2"]).unwrap();
    world.script(Some("left-over"), "(setsid sleep 987654 </dev/null >/dev/null 2>&1 &)").unwrap();
    vec![
        world.spawn(None, "sleep", &["987654"]).unwrap(),
        world.spawn(Some("left-over"), "sleep", &["987654"]).unwrap(),
    ]
}

fn assert_nothing_remains(pids: &[u32]) {
    until("all processes of the world to be gone", || !pids.iter().any(|pid| is_alive(*pid)));
    let output = Command::new("ip").args(["-br", "link"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("left-tap"));
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("left-over"));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains("shunt-lab"), "{mounts}");
}

#[test]
fn nothing_remains_after_drop() {
    let scene = Scene::new(&[]);
    let processes = furnish(&scene.world);
    let pids = inhabitants(scene.world.anchor());
    assert!(pids.len() >= 4 && processes.iter().all(|process| pids.contains(&process.pid())), "{pids:?}");
    drop(processes);
    drop(scene);
    assert_nothing_remains(&pids);
}

#[test]
fn nothing_remains_after_the_owner_was_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_that_will_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let anchor = lines.map_while(Result::ok).find_map(|line| line.split("anchor ").nth(1)?.parse().ok());
    let pids = inhabitants(anchor.expect("the owner to make its world"));
    assert!(pids.len() >= 4, "{pids:?}");
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_nothing_remains(&pids);
}

#[test]
#[ignore = "only as the victim of the test above"]
fn owner_that_will_be_killed() {
    let world = World::new().unwrap();
    let _processes = furnish(&world);
    println!("anchor {}", world.anchor());
    loop {
        std::thread::park();
    }
}

#[test]
fn two_kernel_peers_reach_each_other_and_the_capture_shows_it() {
    let scene = Scene::new(&[Tool::TCPDUMP, Tool::ETHTOOL, Tool::BRIDGE, Tool::PING]);
    let (a, b) = (scene.host("host-a", 1), scene.host("host-b", 2));
    let (mac_a, mac_b) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b");
    let (ip_a, ip_b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let peer_a = KernelPeer::new(&scene.world, &a, 100, ("guest-a", mac_a, ip_a)).unwrap();
    let peer_b = KernelPeer::new(&scene.world, &b, 100, ("guest-b", mac_b, ip_b)).unwrap();
    peer_a.learn(ip_b, mac_b, &b).unwrap();
    peer_b.learn(ip_a, mac_a, &a).unwrap();
    let mut capture = Capture::start(&scene.world, FABRIC, &a.fabric_port(), "udp").unwrap();
    peer_a.guest().wait_for_ping(ip_b, PATIENCE).unwrap();
    until("the echo and its answer in the capture", || {
        let records = capture.so_far().unwrap();
        let inner = records.iter().filter_map(|record| Frame::parse(&record.bytes)?.inner());
        let seen: Vec<_> = inner.map(|(vni, frame)| (vni, frame.source, frame.destination)).collect();
        let (a, b) = (Some(ip_a.into()), Some(ip_b.into()));
        seen.contains(&(100, a, b)) && seen.contains(&(100, b, a))
    });
    capture.stop().unwrap();
}

/// A DHCP server of another house, on a bridge that the guest's interface is plugged into.
fn with_dhcp_server(scene: &Scene, name: &str) -> (Guest, Process) {
    let world = &scene.world;
    let guest = Guest::new(world, name).unwrap();
    world.add_netns("server").unwrap();
    let pair = ["link", "add", "s0", "netns", "server", "type", "veth", "peer", "name", name, "netns", name];
    world.run(None, "ip", &pair).unwrap();
    for command in ["address add 10.9.0.1/24 dev s0", "link set s0 up"] {
        world.run(Some("server"), "ip", &command.split(' ').collect::<Vec<_>>()).unwrap();
    }
    let conf = "start 10.9.0.7\nend 10.9.0.7\ninterface s0\nlease_file /run/lab/leases\npidfile /run/lab/udhcpd.pid\n\
        option subnet 255.255.255.0\noption router 10.9.0.1\noption lease 600\n";
    world.write("/run/lab/udhcpd.conf", conf).unwrap();
    world.write("/run/lab/leases", "").unwrap();
    let server = world.spawn(Some("server"), "busybox", &["udhcpd", "-f", "/run/lab/udhcpd.conf"]).unwrap();
    (guest, server)
}

#[test]
fn each_dhcp_client_gets_a_lease_and_leaves_the_machine_alone() {
    let before = fs::read("/etc/resolv.conf").ok();
    for kind in [ClientKind::Udhcpc, ClientKind::Dhclient, ClientKind::Dhcpcd] {
        let scene = Scene::new(&[kind.tool(), Tool { program: "busybox", package: "busybox-static" }]);
        let (mut guest, _server) = with_dhcp_server(&scene, "g1");
        guest.run("ip", &["link", "set", "g1", "up"]).unwrap();
        guest.start_dhcp(kind).unwrap();
        guest.wait_for_address(Ipv4Addr::new(10, 9, 0, 7), PATIENCE).unwrap();
        until("the script's report", || guest.events().iter().any(|event| event.address.is_some()));
        if kind != ClientKind::Dhcpcd {
            guest.watch_carrier().unwrap();
            let leases = guest.events().iter().filter(|event| event.address.is_some()).count();
            scene
                .world
                .script(Some("server"), "ip link set s0 down; usleep 10000 || sleep 0.01; ip link set s0 up")
                .unwrap();
            until("a new lease after the bounce", || {
                guest.events().iter().filter(|event| event.address.is_some()).count() > leases
            });
        }
    }
    assert_eq!(fs::read("/etc/resolv.conf").ok(), before);
}

#[test]
fn the_init_process_tells_one_life_from_another() {
    let scene = Scene::new(&[]);
    let world = Arc::clone(&scene.world);
    let one = Guest::new(&world, "one").unwrap();
    let two = Guest::new(&world, "two").unwrap();
    let life = |guest: &Guest| (guest.init().pid(), guest.init().started_at().unwrap());
    assert_eq!(life(&one), life(&one));
    assert_ne!(life(&one), life(&two));
}
