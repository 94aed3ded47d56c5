//! Stateful rules with real TCP stacks: a port that denies by default with one allow, a flood of half-open connections, and
//! what the verbs say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::{Guest, Host, Switch, SwitchOptions, Tool, World, enter_netns};
use scene::{PATIENCE, Scene, say, until};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const BOB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DAVE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
/// Of the flood: each a connection of its own.
const FLOWS: u32 = 200_000;

/// Bob on the first host, whose rules are tried; dave of the same network on the second.
struct Pair {
    a: Switch,
    _b: Switch,
    host_a: Host,
    bob: Guest,
    dave: Guest,
    scene: Scene,
}

impl Pair {
    fn new() -> Self {
        let scene = Scene::new(&[Tool::PING]);
        let (host_a, a) = scene.switch("host-a", 1, &SwitchOptions::default());
        let (_, b) = scene.switch("host-b", 2, &SwitchOptions::default());
        for switch in [&a, &b] {
            say(switch, "network add 100 --prefix 10.0.0.0/8 --gateway 10.0.0.254");
        }
        let bob = scene.static_guest(&a, "bob", 100, "02:00:00:00:00:02", "10.0.0.2");
        let dave = scene.static_guest(&b, "dave", 100, "02:00:00:00:00:04", "10.0.0.4");
        say(&a, "directory set --network 100 --ip 10.0.0.4 --mac 02:00:00:00:00:04 --physical-ip 192.0.2.2");
        say(&b, "directory set --network 100 --ip 10.0.0.2 --mac 02:00:00:00:00:02 --physical-ip 192.0.2.1");
        bob.wait_for_ping(DAVE, PATIENCE).unwrap();
        Self { a, _b: b, host_a, bob, dave, scene }
    }

    /// Runs `act` with the guest's own network stack.
    fn within<T: Send + 'static>(&self, guest: &Guest, act: impl FnOnce() -> T + Send + 'static) -> T {
        within(&self.scene.world, guest.name(), act)
    }

    /// A server in the guest that echoes what it gets, on each connection.
    fn serve(&self, guest: &Guest, port: u16) {
        self.within(guest, move || {
            let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
            thread::spawn(move || {
                for connection in listener.incoming() {
                    let Ok(mut connection) = connection else { return };
                    thread::spawn(move || {
                        let mut copy = connection.try_clone().unwrap();
                        io::copy(&mut connection, &mut copy)
                    });
                }
            });
        });
    }

    fn connect(&self, guest: &Guest, to: Ipv4Addr, port: u16, limit: Duration) -> io::Result<TcpStream> {
        self.within(guest, move || TcpStream::connect_timeout(&SocketAddr::from((to, port)), limit))
    }

    fn rule(&self, arguments: &str) -> serde_json::Value {
        say(&self.a, &format!("rule add --port bob {arguments}"))
    }

    fn hits(&self, id: u64) -> u64 {
        let listed = say(&self.a, "rule list --port bob");
        let rules = listed["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["id"] == id).unwrap()["hits"].as_u64().unwrap()
    }
}

fn within<T: Send + 'static>(world: &Arc<World>, netns: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (world, netns) = (Arc::clone(world), netns.to_owned());
    let thread = thread::spawn(move || {
        enter_netns(&world, &netns).unwrap();
        act()
    });
    thread.join().unwrap()
}

/// Sends a word and waits for its echo.
fn echoes(stream: &mut TcpStream, word: &[u8]) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(word)?;
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back)?;
    assert_eq!(back, word);
    Ok(())
}

/// Long enough for three SYNs of an unanswered connection.
const SHORT: Duration = Duration::from_secs(4);

#[test]
fn tcp_through_a_port_that_denies_by_default_with_one_allow() {
    let pair = Pair::new();
    for port in [80, 81] {
        pair.serve(&pair.bob, port);
        pair.serve(&pair.dave, port);
    }
    let allow = pair.rule("--direction in --action allow --protocol tcp --ports 80 --remote 10.0.0.4/32");
    let deny = pair.rule("--direction in --action deny --priority 65535");
    assert_eq!((&allow["rule"], &deny["rule"]), (&1.into(), &2.into()));
    let mut allowed = pair.connect(&pair.dave, BOB, 80, PATIENCE).unwrap();
    echoes(&mut allowed, b"through the one allow").unwrap();
    echoes(&mut allowed, &[7; 200_000]).unwrap();
    assert!(pair.connect(&pair.dave, BOB, 81, SHORT).is_err(), "port 81 is not allowed");
    assert!(!pair.dave.ping(BOB, 1).unwrap(), "nor is a ping");
    assert!(pair.a.drops("rule_denied_in", Some("bob")).unwrap() >= 2);
    // What bob begins is answered.
    let mut own = pair.connect(&pair.bob, DAVE, 81, PATIENCE).unwrap();
    echoes(&mut own, b"answers pass").unwrap();
    assert!(pair.bob.ping(DAVE, 3).unwrap());
    assert_eq!(pair.hits(1), 1, "one connection has begun by it");
    let shown = say(&pair.a, "port show bob");
    assert!(shown["connections"]["established"].as_u64().unwrap() >= 2, "{shown}");
    // The change of a rule ends what would not begin any more, and nothing else.
    say(&pair.a, "rule remove --port bob 1");
    allowed.set_read_timeout(Some(SHORT)).unwrap();
    allowed.write_all(b"too late").unwrap();
    assert!(allowed.read(&mut [0; 8]).is_err(), "its rule is gone");
    echoes(&mut own, b"no rule speaks of this one").unwrap();
    // And back again: TCP makes good what was dropped meanwhile.
    pair.rule("--direction in --action allow --protocol tcp --ports 80 --id 7");
    allowed.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut late = [0; 8];
    allowed.read_exact(&mut late).unwrap();
    assert_eq!(&late, b"too late");
}

#[test]
fn a_flood_of_half_open_connections_leaves_the_established_alone() {
    let pair = Pair::new();
    pair.serve(&pair.bob, 80);
    pair.rule("--direction in --action allow --protocol tcp --ports 80");
    pair.rule("--direction in --action deny --priority 65535");
    let mut streams: Vec<_> = (0..20).map(|_| pair.connect(&pair.dave, BOB, 80, PATIENCE).unwrap()).collect();
    streams.iter_mut().for_each(|stream| echoes(stream, b"before").unwrap());
    let memory = resident_kib(&pair.a);
    let begun = pair.hits(1);
    let received = |pair: &Pair| say(&pair.a, "stats")["underlay"]["received_packets"].as_u64().unwrap();
    // A host that the directory knows, gone bad: it sends for guests that are not there.
    let to = (pair.host_a.physical_ip, 4789);
    let before = received(&pair);
    for first in (0..FLOWS).step_by(5_000) {
        let so_far = received(&pair);
        let numbers = first..first + 5_000;
        within(&pair.scene.world, "host-b", move || {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            for number in numbers {
                socket.send_to(&syn(number), to).unwrap();
            }
        });
        until("the switch to take the flood in", || received(&pair) >= so_far + 5_000);
        streams.iter_mut().take(2).for_each(|stream| echoes(stream, b"meanwhile").unwrap());
    }
    assert!(received(&pair) >= before + u64::from(FLOWS));
    assert_eq!(pair.hits(1) - begun, u64::from(FLOWS), "each was a connection of its own");
    streams.iter_mut().for_each(|stream| echoes(stream, b"after").unwrap());
    let mut new = pair.connect(&pair.dave, BOB, 80, PATIENCE).unwrap();
    echoes(&mut new, b"and a new one").unwrap();
    let connections = &say(&pair.a, "port show bob")["connections"];
    let (established, half_open) =
        (connections["established"].as_u64().unwrap(), connections["half_open"].as_u64().unwrap());
    assert!(established >= 21, "{connections}");
    assert!(established + half_open <= 32_768, "{connections}");
    let grown = resident_kib(&pair.a).saturating_sub(memory);
    println!("{FLOWS} flows: {half_open} half open kept, {grown} KiB more memory");
    assert!(grown < 16 << 10, "the switch has grown by {grown} KiB");
}

/// The switch's memory, in KiB.
fn resident_kib(switch: &Switch) -> u64 {
    let pid = switch.process().unwrap().pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A VXLAN datagram with a SYN for bob's port 80, from an address and a port that only it has.
fn syn(number: u32) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 1 + a, b, c, 10, 0, 0, 2];
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let tcp = [4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0];
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 4, 8, 0];
    [&[8, 0, 0, 0, 0, 0, 100, 0][..], &ethernet, &ip, &tcp].concat()
}

#[test]
fn the_verbs_say_what_is_wrong_and_change_nothing() {
    let pair = Pair::new();
    let generation = |pair: &Pair| say(&pair.a, "export")["generation"].clone();
    let before = generation(&pair);
    for (line, what, place) in [
        ("rule add --port nobody --direction in --action allow", "does not exist", "port nobody"),
        ("rule add --port bob --direction in --action allow --ports 80", "no ports", "--ports"),
        ("rule add --port bob --direction in --action allow --icmp-type 8", "no ICMP types", "--icmp-type"),
        (
            "rule add --port bob --direction in --action allow --protocol icmp --remote fd00::/8",
            "never comes from",
            "--remote",
        ),
        ("rule remove --port bob 1", "no rule 1", "port bob, rule 1"),
        ("rule list --port nobody", "does not exist", "port nobody"),
    ] {
        let failure = pair.a.say(line).unwrap_err();
        assert!(failure.part("what").unwrap().contains(what), "{line}: {failure}");
        assert_eq!(failure.part("where").unwrap(), place, "{line}");
        assert!(!failure.part("remedy").unwrap().is_empty(), "{line}");
    }
    assert_eq!(generation(&pair), before);
    // A number that another rule has.
    pair.rule("--direction out --action deny --protocol udp --ports 53 --remote 10.9.0.0/16 --id 4");
    let failure = pair.a.say("rule add --port bob --direction in --action allow --id 4").unwrap_err();
    assert_eq!(failure.part("what").unwrap(), "port bob already has a rule 4");
    assert!(failure.part("remedy").unwrap().contains("leave --id out"), "{failure}");
    let listed = say(&pair.a, "rule list");
    let expected = serde_json::json!({"rules": [{
        "port": "bob", "id": 4, "direction": "out", "action": "deny", "protocol": "udp",
        "remote": "10.9.0.0/16", "ports": "53", "priority": 1000, "hits": 0,
    }]});
    assert_eq!(listed, expected);
    // A list is taken by a move as it was printed; an address is the prefix of that host.
    pair.rule("--direction in --action allow --remote 10.9.0.5");
    let listed = say(&pair.a, "rule list --port bob");
    assert_eq!(listed["rules"][0]["remote"], "10.9.0.5/32");
    say(&pair.a, "rule del --port bob 4");
    pair.scene.world.write("/run/lab/rules.json", &listed.to_string()).unwrap();
    let file = pair.scene.world.outside("/run/lab/rules.json").display().to_string();
    say(&pair.a, &format!("port move bob --network 100 --ip 10.0.0.2 --no-bounce --rules {file}"));
    assert_eq!(say(&pair.a, "rule list --port bob"), listed);
}
