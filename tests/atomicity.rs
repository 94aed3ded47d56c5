//! A port changes its network thousands of times while it floods and is flooded, on the same host and between hosts.
//! Captures on every egress device are judged afterwards: no packet with a mixed identity, none in the old network
//! after the acknowledgement.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod flood;
mod scene;

use control::lab::{Capture, FABRIC, Guest, Switch, SwitchOptions, Tool};
use dataplane::{
    ctl::{
        client::Client,
        protocol::{BounceOrder, Moved, Request},
    },
    types::Vni,
};
use flood::{Change, Flood, Network, Sender, Sighting, Verdict, Way, judge, now_ns, sightings};
use scene::{Scene, say, until};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const MOVER_MAC: &str = "02:00:00:00:00:05";
/// The neighbours at one address have one MAC in both networks: nothing but the network tells them apart.
const NEAR_MAC: &str = "02:00:00:00:00:11";
const FAR_MAC: &str = "02:00:00:00:00:10";

/// A capture, the network that its device stands for, and whose packets it is there for.
type Watch = (Capture, Option<Network>, fn(Sender) -> bool);

/// A mover with neighbours near and far in both networks.
struct Arena {
    captures: Vec<Watch>,
    addresses: [Ipv4Addr; 2],
    a: Switch,
    guests: Vec<(Guest, Sender)>,
    _b: Switch,
    scene: Scene,
}

impl Arena {
    fn new(options: &SwitchOptions, addresses: [Ipv4Addr; 2]) -> Self {
        let scene = Scene::new(&[Tool::TCPDUMP]);
        let (_, a) = scene.switch("host-a", 1, options);
        let (_, b) = scene.switch("host-b", 2, options);
        for switch in [&a, &b] {
            for vni in [100, 200] {
                say(switch, &format!("network add {vni} --prefix 10.0.0.0/24 --gateway 10.0.0.254"));
            }
        }
        let mut guests =
            vec![(scene.static_guest(&a, "mover", 100, MOVER_MAC, &addresses[0].to_string()), Sender::Mover)];
        for network in [Network::Red, Network::Blue] {
            let (vni, colour) = (network.vni(), if network == Network::Red { "red" } else { "blue" });
            for (switch, place, mac, ip) in [(&a, "near", NEAR_MAC, NEAR), (&b, "far", FAR_MAC, FAR)] {
                let guest =
                    scene.static_guest(switch, &format!("{colour}-{place}"), vni, mac, &ip.to_string());
                guests.push((guest, Sender::Peer(network)));
            }
            say(
                &a,
                &format!("directory set --network {vni} --ip {FAR} --mac {FAR_MAC} --physical-ip 192.0.2.2"),
            );
            let own = addresses[if network == Network::Red { 0 } else { 1 }];
            say(
                &b,
                &format!(
                    "directory set --network {vni} --ip {own} --mac {MOVER_MAC} --physical-ip 192.0.2.1"
                ),
            );
            say(
                &b,
                &format!(
                    "directory set --network {vni} --ip {NEAR} --mac {NEAR_MAC} --physical-ip 192.0.2.1"
                ),
            );
        }
        // Neighbours known for good: a packet that waits for ARP would be sent at a time that nobody knows.
        for (guest, sender) in &guests {
            let known: &[(Ipv4Addr, &str)] = match sender {
                Sender::Mover => &[(NEAR, NEAR_MAC), (FAR, FAR_MAC)],
                Sender::Peer(_) => &[(addresses[0], MOVER_MAC), (addresses[1], MOVER_MAC)],
            };
            for (ip, mac) in known {
                let ip = ip.to_string();
                let entry =
                    ["neighbour", "replace", &ip, "lladdr", mac, "nud", "permanent", "dev", guest.name()];
                guest.run("ip", &entry).unwrap();
            }
        }
        if addresses[0] != addresses[1] {
            let (mover, second) = (&guests[0].0, format!("{}/24", addresses[1]));
            mover.run("ip", &["address", "add", &second, "dev", "mover"]).unwrap();
        }
        let is_mover: fn(Sender) -> bool = |sender| sender == Sender::Mover;
        let is_peer: fn(Sender) -> bool = |sender| sender != Sender::Mover;
        let start = |netns: &str, device: &str| Capture::start(&scene.world, netns, device, "udp").unwrap();
        let captures = vec![
            (start("mover", "mover"), None, is_peer),
            (start("red-near", "red-near"), Some(Network::Red), is_mover),
            (start("blue-near", "blue-near"), Some(Network::Blue), is_mover),
            (start(FABRIC, "to-host-a"), None, is_mover),
        ];
        Self { captures, addresses, a, guests, _b: b, scene }
    }

    fn address(&self, network: Network) -> Ipv4Addr {
        self.addresses[if network == Network::Red { 0 } else { 1 }]
    }

    /// The mover's flood to its neighbours, and theirs to it. The mover sends from each address that it may have.
    fn floods(&self, pause: Option<Duration>) -> (Flood, Vec<Flood>) {
        let mut movers = self.addresses.to_vec();
        movers.dedup();
        let world = &self.scene.world;
        let out: Vec<Way> =
            movers.iter().flat_map(|from| [NEAR, FAR].map(|to| Way { from: *from, to })).collect();
        let mover = Flood::new(world, "mover", Sender::Mover, &out, pause);
        let peers = self.guests.iter().skip(1).map(|(guest, sender)| {
            let from = if guest.name().ends_with("near") { NEAR } else { FAR };
            let ways: Vec<Way> = movers.iter().map(|to| Way { from, to: *to }).collect();
            Flood::new(world, guest.name(), *sender, &ways, pause.map(|pause| pause * 2))
        });
        let peers = peers.collect();
        (mover, peers)
    }

    /// Where it all begins.
    fn genesis() -> Change {
        let start = Change {
            network: Network::Red,
            completed_before: 0,
            asked_ns: 0,
            started_at_ack: 0,
            acknowledged_ns: 0,
        };
        Change { acknowledged_ns: now_ns(), ..start }
    }

    fn change(&self, client: &mut Client, mover: &Flood, network: Network) -> Change {
        let request = Request::PortMove {
            port: "mover".parse().unwrap(),
            network: Vni::new(network.vni()).unwrap(),
            ips: vec![self.address(network).to_string().parse().unwrap()],
            rules: None,
            label: None,
            bounce: BounceOrder::No,
            wait: None,
            timeout_ms: 0,
        };
        let (completed_before, asked_ns) = (mover.progress.completed(), now_ns());
        let moved: Moved = client.call(&request).unwrap_or_else(|error| panic!("{error}: {}", self.a.log()));
        // In this order: what is sent between the two is then rightly taken for either.
        let acknowledged_ns = now_ns();
        let started_at_ack = mover.progress.started();
        assert!(moved.settled_ns >= moved.swap_ns);
        Change { network, completed_before, asked_ns, started_at_ack, acknowledged_ns }
    }

    fn client(&self) -> Client {
        Client::connect(&self.a.socket()).unwrap()
    }

    fn seen(&mut self) -> Vec<Sighting> {
        self.captures
            .iter_mut()
            .flat_map(|(capture, network, wanted)| {
                let _ = capture.stop();
                sightings(&capture.so_far().unwrap(), *network, *wanted)
            })
            .collect()
    }

    fn judge(&mut self, history: &[Change]) -> (Verdict, Vec<Sighting>) {
        let (seen, addresses) = (self.seen(), self.addresses);
        let own = |network| addresses[if network == Network::Red { 0 } else { 1 }];
        (judge(history, own, &seen), seen)
    }
}

/// At least `moves` changes and `packets` judged packets.
fn flooded(options: &SwitchOptions, addresses: [Ipv4Addr; 2], moves: usize, packets: u64) {
    let mut arena = Arena::new(options, addresses);
    let (mover, peers) = arena.floods(Some(Duration::from_micros(300)));
    let mut history = vec![Arena::genesis()];
    let (start, mut client) = (Instant::now(), arena.client());
    // Of the mover's packets one in so many has the right address, and so have its peers'; half of those of the peers
    // are for a network that the mover is not in.
    let ways = if addresses[0] == addresses[1] { 1 } else { 2 };
    let sent = || {
        let peers: u64 = peers.iter().map(|peer| peer.progress.started()).sum();
        mover.progress.started() / ways + peers / ways / 2
    };
    // A margin, for some are dropped on the way: those that waited when the port moved, above all.
    while history.len() <= moves || sent() < packets * 5 / 4 {
        for _ in 0..8 {
            let to = history.last().unwrap().network.other();
            history.push(arena.change(&mut client, &mover, to));
        }
        // Quick changes, and then a time for packets that are certain to be of one network.
        std::thread::sleep(Duration::from_millis(4));
    }
    let elapsed = start.elapsed();
    drop((mover, peers));
    let (verdict, seen) = arena.judge(&history);
    println!("{} moves in {:.1} s; {}", history.len() - 1, elapsed.as_secs_f64(), verdict.summary());
    assert!(verdict.is_clean(), "{}", verdict.summary());
    assert!(verdict.judged >= packets, "only {} packets were judged", verdict.judged);
    // Each way of the flood has to be among them, or the judge has looked at nothing.
    for network in [Network::Red, Network::Blue] {
        for sender in [Sender::Mover, Sender::Peer(network)] {
            let count = seen.iter().filter(|s| s.network == network && s.sender == sender).count();
            assert!(count > moves, "only {count} packets of {sender:?} in {network:?}");
        }
    }
}

const SAME: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 5)];
const DIFFERENT: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 6)];

#[test]
fn the_same_address_in_both_networks_one_worker() {
    flooded(&SwitchOptions::default(), SAME, 4500, 225_000);
}

#[test]
fn the_same_address_in_both_networks_two_workers() {
    flooded(&SwitchOptions { workers: 2, ..SwitchOptions::default() }, SAME, 4500, 225_000);
}

#[test]
fn another_address_in_each_network() {
    flooded(&SwitchOptions::default(), DIFFERENT, 1000, 50_000);
}

/// Nothing flows while the network is changed, so the workers sleep (or spin in vain, as they are told); the first packet
/// afterwards is in the new one.
fn idle(workers: u8, poll: &'static str) {
    let mut arena = Arena::new(&SwitchOptions { workers, poll, ..SwitchOptions::default() }, SAME);
    let (mover, peers) = arena.floods(None);
    let (mut history, mut client) = (vec![Arena::genesis()], arena.client());
    for _ in 0..200 {
        let to = history.last().unwrap().network.other();
        history.push(arena.change(&mut client, &mover, to));
        mover.send_round();
        for peer in &peers {
            peer.send_round();
        }
        // Not for anything to happen, but for the workers to have nothing to do.
        std::thread::sleep(Duration::from_millis(3));
    }
    let sent = mover.progress.completed();
    let arrived = |arena: &Arena| {
        let all = arena
            .captures
            .iter()
            .flat_map(|(capture, network, wanted)| sightings(&capture.so_far().unwrap(), *network, *wanted));
        u64::try_from(all.filter(|sighting| sighting.sender == Sender::Mover).count()).unwrap()
    };
    // A worker that wakes up after a change discards what the port's queue holds, for it cannot know what was put there
    // before: that is counted, and better than a stray packet.
    let discarded = |arena: &Arena| arena.a.drops("moved", Some("mover")).unwrap();
    until("every packet of the mover to arrive or to be counted", || {
        arrived(&arena) + discarded(&arena) >= sent
    });
    let (arrived, discarded) = (arrived(&arena), discarded(&arena));
    println!("{arrived} of {sent} packets of the mover arrived, {discarded} were discarded at the change");
    assert!(arrived * 2 > sent, "the first packet after a change is what this test is about");
    let (verdict, _) = arena.judge(&history);
    println!("{workers} idle workers ({poll}), {} moves; {}", history.len() - 1, verdict.summary());
    assert!(verdict.is_clean(), "{}", verdict.summary());
}

#[test]
fn one_parked_worker() {
    idle(1, "sleep");
}

#[test]
fn two_parked_workers() {
    idle(2, "sleep");
}

#[test]
fn a_worker_that_never_sleeps() {
    idle(1, "busy");
}

/// The judge itself: each kind of stray packet is caught, what is right is not.
mod the_judge {
    use super::*;

    const OLD: Ipv4Addr = DIFFERENT[0];
    const NEW: Ipv4Addr = DIFFERENT[1];

    /// Red until packet 10 and time 1000; changing until 15 and 2000; blue from then on.
    fn history() -> [Change; 2] {
        let red = Change {
            network: Network::Red,
            completed_before: 0,
            asked_ns: 0,
            started_at_ack: 0,
            acknowledged_ns: 0,
        };
        let network = Network::Blue;
        [
            red,
            Change {
                network,
                completed_before: 10,
                asked_ns: 1000,
                started_at_ack: 15,
                acknowledged_ns: 2000,
            },
        ]
    }

    fn verdict(seen: &[Sighting]) -> [usize; 4] {
        let own = |network| if network == Network::Red { OLD } else { NEW };
        let verdict = judge(&history(), own, seen);
        assert_eq!(verdict.judged, seen.len() as u64);
        assert_eq!(verdict.is_clean(), verdict.summary().matches("Some").count() == 0);
        [
            verdict.wrong_network.len(),
            verdict.after_acknowledgement.len(),
            verdict.mixed_address.len(),
            verdict.in_both.len(),
        ]
    }

    fn mover(network: Network, number: u64, at_ns: u64) -> Sighting {
        let movers_address = Some(if network == Network::Red { OLD } else { NEW });
        Sighting { at_ns, network, sender: Sender::Mover, number, movers_address }
    }

    #[test]
    fn what_is_right_is_clean() {
        use Network::{Blue, Red};
        let right = [
            mover(Red, 10, 900),
            mover(Red, 9, 1999),
            mover(Red, 12, 1500),
            mover(Blue, 13, 1500),
            mover(Blue, 16, 2100),
        ];
        assert_eq!(verdict(&right), [0; 4]);
    }

    #[test]
    fn each_kind_of_stray_packet_is_caught() {
        use Network::{Blue, Red};
        assert_eq!(
            verdict(&[mover(Blue, 10, 1500)]),
            [1, 0, 0, 0],
            "waited in the port and came out in the new one"
        );
        assert_eq!(verdict(&[mover(Red, 16, 1999)]), [1, 0, 0, 0], "sent after the acknowledgement");
        assert_eq!(verdict(&[mover(Red, 12, 2001)]), [0, 1, 0, 0], "late in the old network");
        assert_eq!(verdict(&[mover(Blue, 12, 999)]), [0, 1, 0, 0], "early in the new network");
        assert_eq!(verdict(&[Sighting { movers_address: Some(OLD), ..mover(Blue, 16, 2100) }]), [0, 0, 1, 0]);
        assert_eq!(verdict(&[mover(Red, 12, 1500), mover(Blue, 12, 1600)]), [0, 0, 0, 1]);
        let peer = Sighting { sender: Sender::Peer(Red), ..mover(Red, 99, 2500) };
        assert_eq!(verdict(&[peer]), [0, 1, 0, 0], "a peer of the old network reached the mover");
    }
}
