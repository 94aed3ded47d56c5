//! From a change to the guest's lease in the other network, with a client that asks every 5 ms: the switch alone (no
//! controller), beside a plain Linux bridge with dnsmasq and beside OVN, in the same run, all of them in namespaces.
//!
//! Each is told by its own command line, whose start is part of the time. MOVES (40) of each. `make bench-e2e` installs what the
//! peers need; a peer that is not there, or does not come up, is left out with a sentence.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::lab::{LabError, SwitchOptions, Tool, World};

use crate::fast_client::FastClient;
use crate::numbers::Sample;
use crate::scene::{Scene, say};
use crate::setting;

/// Of each guest.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
/// Entries of the directory, in each of the two networks.
const MAPPINGS: [u32; 4] = [10, 1_000, 10_000, 100_000];
/// Ports of each of OVN's networks.
const PORTS: [u32; 2] = [4, 1_000];
/// Between two moves: switches answer a port's DHCP only so often (this one 50 times a second, and 64 times at once).
const REST: Duration = Duration::from_millis(250);

pub(crate) fn run() {
    let moves = setting("MOVES", 40);
    println!("change to lease, {moves} moves to and fro; in brackets: until the command had returned");
    // First and last, so that a machine whose load changes is noticed.
    plain_bridge(moves);
    for mappings in MAPPINGS {
        shunt_alone(moves, mappings);
    }
    for ports in PORTS {
        if let Err(why) = ovn(moves, ports) {
            println!("  OVN, {ports} ports                 left out: {why}");
        }
    }
    plain_bridge(moves);
}

/// Moves a guest to and fro, and tells how long it took: `change` does it, to network 0 or 1.
fn measure(
    name: &str,
    moves: u64,
    client: &FastClient,
    addresses: [Ipv4Addr; 2],
    mut change: impl FnMut(usize),
) {
    // Where it stands, it is served.
    client.begin();
    client.lease_of(addresses[0], Instant::now());
    let (mut lease, mut command) = (Sample::default(), Sample::default());
    for round in 0..moves {
        std::thread::sleep(REST);
        let to = usize::try_from((round + 1) % 2).unwrap();
        let begun = Instant::now();
        client.begin();
        change(to);
        command.add_time(begun.elapsed());
        lease.add_time(client.lease_of(addresses[to], begun).duration_since(begun));
    }
    println!("  {name:<34} {lease} [p50 {:.1} ms]", command.quantile(0.5));
}

fn shunt_alone(moves: u64, mappings: u32) {
    let scene = Scene::new(&[]);
    let (_, switch) = scene.switch("host-a", 1, &SwitchOptions::default());
    let mut lines = String::new();
    for network in [100, 200] {
        say(&switch, &format!("network add {network} --prefix 10.0.0.0/14 --gateway 10.0.0.1"));
        for number in 0..mappings {
            let [_, a, b, c] = number.to_be_bytes();
            // The guest is below.
            let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 1, 0)) + number);
            let _ = writeln!(
                lines,
                r#"{{"network":{network},"ip":"{ip}","mac":"02:01:00:{a:02x}:{b:02x}:{c:02x}","physical_ip":"192.0.2.2"}}"#
            );
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    say(&switch, &format!("directory import {}", file.path().display()));
    let _guest = scene.guest(&switch, "guest", 100, "02:00:00:00:00:05", "10.0.0.5");
    let client = FastClient::start(&scene.world, "guest", "guest", MAC);
    let addresses = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 6)];
    let mut inside = Sample::default();
    measure(&format!("shunt, {mappings} mappings"), moves, &client, addresses, |to| {
        let network = [100, 200][to];
        let said =
            say(&switch, &format!("port move guest --network {network} --ip {} --no-bounce", addresses[to]));
        inside.add(said["settled_ns"].as_f64().unwrap() / 1e6);
    });
    println!("    received to settled              {inside}");
}

fn plain_bridge(moves: u64) {
    if let Err(why) = installed("dnsmasq", "dnsmasq-base") {
        println!("  bridge + dnsmasq                   left out: {why}");
        return;
    }
    let scene = Scene::new(&[]);
    let world = &scene.world;
    world.script(None, include_str!("bridge.sh")).unwrap_or_else(|error| panic!("{error}"));
    let client = FastClient::start(world, "plain", "plain", MAC);
    let addresses = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 1, 5)];
    measure("bridge + dnsmasq", moves, &client, addresses, |to| {
        let bridge = ["br0", "br1"][to];
        tell(world, "ip", &["-n", "switch", "link", "set", "port", "master", bridge]);
    });
}

fn ovn(moves: u64, ports: u32) -> Result<(), String> {
    installed("ovn-northd", "ovn-central")?;
    installed("ovn-controller", "ovn-host")?;
    installed("ovs-vswitchd", "openvswitch-switch")?;
    let scene = Scene::new(&[]);
    let world = &scene.world;
    let script = format!("PORTS={ports}\n{}", include_str!("ovn.sh"));
    let begun = Instant::now();
    world.script(None, &script).map_err(|error| sentence(&error))?;
    println!("    OVN with {ports} ports was up after {:.1} s", begun.elapsed().as_secs_f64());
    let client = FastClient::start(world, "logical", "logical", MAC);
    let addresses = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 1, 0, 5)];
    let options = [0, 1].map(|n| {
        let file = world.outside(format!("/run/lab/ovn/options{n}"));
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    });
    measure(&format!("OVN, {ports} ports"), moves, &client, addresses, |to| {
        let (network, address) = (["ls0", "ls1"][to], format!("02:00:00:00:00:05 {}", addresses[to]));
        let delete =
            ["lsp-del", "guest", "--", "lsp-add", network, "guest", "--", "lsp-set-addresses", "guest"];
        let mut words = delete.to_vec();
        words.extend([&address, "--", "lsp-set-dhcpv4-options", "guest", &options[to]]);
        tell(world, "ovn-nbctl", &words);
    });
    Ok(())
}

/// A peer's command in its world, as directly as the switch's own: no shell, no more processes than it takes to get there.
fn tell(world: &Arc<World>, program: &str, words: &[&str]) {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={}", world.anchor()))
        .args(["--mount", "--net", "--root", "--", program])
        .args(words);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Is a peer's program there?
fn installed(program: &'static str, package: &'static str) -> Result<(), String> {
    let missing = LabError::MissingTool { program, package };
    if (Tool { program, package }).is_installed() { Ok(()) } else { Err(sentence(&missing)) }
}

fn sentence(error: &LabError) -> String {
    error.to_string().replace('\n', "; ")
}
