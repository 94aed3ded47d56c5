//! Real workers, one port that moves back and forth between two networks in which everybody has the same addresses,
//! floods from it and to it, on this host and between hosts. A judge sees every packet at the moment it leaves.
//!
//! Each frame of the moving guest carries the phase in which it was sent. The guest's hand and the mover take turns by a
//! lock, so a frame of phase 2k was in the device's queue before move k + 1 began: it belongs to network k's and to no
//! other. Frames sent while a move was under way (odd phases) may go either way.
//!
//! Each network's rules let the moving guest speak and be spoken to on a port of their own, and everybody always tries both.

#![expect(clippy::print_stdout, reason = "numbers that a test is asked for belong to its output")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::holes::Hole;
use super::super::{Parts, Poll, Workers};
use super::{Nic, PAYLOAD, Queue, Wire, guest_ip, host_ip, mac, udp_frame, vxlan_arrival};
use crate::clock::Clock;
use crate::desired::{Encapsulation, HostConfig, UnderlayConfig};
use crate::directory::{DirectoryWriter, Location};
use crate::port::Device;
use crate::publish::{Publisher, Version};
use crate::tables::Tables;
use crate::types::{CustomerIp, Mtu, PhysicalIp, Vni};
use crate::worker::Plane;

/// The moving guest, its peers on this host (same address in both networks), and on the other two.
const MOVER: u8 = 5;
const LOCAL: u8 = 6;
const REMOTE: u8 = 7;
/// Network 0 is "red", 1 is "blue"; each has its own remote host.
const VNIS: [u32; 2] = [100, 200];
const HOSTS: [u8; 2] = [2, 3];
/// The destination port that the mover's rules allow there, in both directions.
const ALLOWED: [u16; 2] = [7000, 7001];

/// Sees everything that leaves, in the order of its lock, and knows which moves were acknowledged.
#[derive(Default)]
struct Judge {
    /// The network that the port is acknowledged to be in; `None` while a move is under way.
    acknowledged: Option<usize>,
    /// Set from the swap to the acknowledgement: the number of the move and the network before it.
    swapped: Option<(usize, usize)>,
    judged: u64,
    /// Moves during which a packet of the old network still left after the swap: those swaps fell inside of a batch.
    inside_batch: HashSet<usize>,
    violations: Vec<String>,
}

impl Judge {
    fn see(&mut self, what: &str, network: usize, phase: Option<u64>, frame: &[u8]) {
        self.judged += 1;
        let port = u16::from_be_bytes([frame[PAYLOAD - 6], frame[PAYLOAD - 5]]);
        if port != ALLOWED[network] {
            self.violations.push(format!("{what}: port {port} passed the rules of network {network}"));
        }
        if let Some(acknowledged) = self.acknowledged
            && acknowledged != network
        {
            self.violations
                .push(format!("{what}: network {network} after the move to {acknowledged} was acknowledged"));
        }
        if let Some(phase) = phase.filter(|phase| phase.is_multiple_of(2))
            && network != usize::try_from(phase / 2 % 2).unwrap()
        {
            self.violations.push(format!("{what}: a frame of phase {phase} in network {network}"));
        }
        if let Some((number, old)) = self.swapped
            && old == network
        {
            self.inside_batch.insert(number);
        }
    }
}

/// The moves' swaps. Three of four lie in wait for a worker that is in the middle of a batch: the worker's own thread
/// then publishes, between two packets that it sends.
struct Swapper {
    publisher: Publisher<Plane>,
    judge: Arc<Mutex<Judge>>,
    waiting: Mutex<Option<Swap>>,
}

struct Swap {
    number: usize,
    old: usize,
    plane: Arc<Plane>,
    answer: Sender<Version>,
}

impl Swapper {
    fn swap(&self, swap: Swap) {
        let version = self.publisher.publish(swap.plane);
        self.judge.lock().unwrap().swapped = Some((swap.number, swap.old));
        swap.answer.send(version).unwrap();
    }

    /// To be called between two packets of a batch.
    fn spring(&self) {
        let waiting = self.waiting.lock().unwrap().take();
        waiting.into_iter().for_each(|swap| self.swap(swap));
    }

    fn publish(&self, number: usize, old: usize, plane: Arc<Plane>) -> Version {
        let (answer, version) = mpsc::channel();
        *self.waiting.lock().unwrap() = Some(Swap { number, old, plane, answer });
        if number.is_multiple_of(4) {
            self.spring();
        }
        version.recv_timeout(Duration::from_millis(20)).unwrap_or_else(|_| {
            self.spring();
            version.recv().unwrap()
        })
    }
}

/// What a run is like.
struct Run {
    workers: usize,
    moves: usize,
    poll: Poll,
    /// Pause between the guest's bursts: longer than a worker looks for work, so that it sleeps.
    pause: Option<Duration>,
    hole: Option<Hole>,
}

struct Outcome {
    judged: u64,
    inside_batch: usize,
    violations: Vec<String>,
}

fn document(generation: usize, network: usize) -> HostConfig {
    let vnet = |vni: u32| json!({"vni": vni, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}]});
    let port = |name: &str, vni: u32, guest: u8| json!({"name": name, "network": vni, "mac": mac(guest), "ips": [guest_ip(guest)]});
    let rules: Vec<_> = ["in", "out"]
        .into_iter()
        .flat_map(|direction| {
            let allow = json!({"direction": direction, "action": "allow", "protocol": "udp", "ports": ALLOWED[network].to_string()});
            [allow, json!({"direction": direction, "action": "deny", "priority": 65535})]
        })
        .zip(1..)
        .map(|(mut rule, id)| {
            rule["id"] = id.into();
            rule
        })
        .collect();
    let mut mover = port("mover", VNIS[network], MOVER);
    mover["rules"] = rules.into();
    serde_json::from_value(json!({
        "generation": generation,
        "networks": [vnet(VNIS[0]), vnet(VNIS[1])],
        "ports": [mover, port("red", VNIS[0], LOCAL), port("blue", VNIS[1], LOCAL)],
    }))
    .unwrap()
}

fn phase_in(frame: &[u8]) -> Option<u64> {
    frame.get(PAYLOAD..PAYLOAD + 8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

fn to_port(port: u16, mut frame: Vec<u8>) -> Vec<u8> {
    frame[PAYLOAD - 6..PAYLOAD - 4].copy_from_slice(&port.to_be_bytes());
    frame
}

/// Judges what leaves towards other hosts: the tunnel's VNI and the host must be of one network.
fn judge_underlay(judge: &Mutex<Judge>, datagram: &[u8], to: Option<PhysicalIp>) {
    let vni = u32::from_be_bytes([0, datagram[4], datagram[5], datagram[6]]);
    let network = VNIS.iter().position(|known| *known == vni).unwrap();
    let frame = &datagram[8..];
    let mut judge = judge.lock().unwrap();
    if to != Some(host_ip(HOSTS[network])) {
        judge.violations.push(format!("VNI {vni} sent to {to:?}"));
    }
    if frame[6..12] == mac(MOVER).0 {
        judge.see("to another host", network, phase_in(frame), frame);
    }
}

fn run(run: &Run) -> Outcome {
    let judge = Arc::new(Mutex::new(Judge { acknowledged: Some(0), ..Judge::default() }));
    let queue = || Queue::new(256);
    let (mover, red, blue, arrivals) = (queue(), queue(), queue(), queue());
    let nic = |from_guest: &Arc<Queue>, see: fn(&mut Judge, &[u8])| -> Option<Arc<dyn Device>> {
        let judge = judge.clone();
        let to_guest =
            Box::new(move |frame: &[u8], _: Option<PhysicalIp>| see(&mut judge.lock().unwrap(), frame));
        Some(Arc::new(Nic { from_guest: from_guest.clone(), to_guest }))
    };
    let devices = [
        // What reaches the mover says in its payload which network it was sent in.
        nic(&mover, |judge, frame| judge.see("to the mover", usize::from(frame[PAYLOAD]), None, frame)),
        nic(&red, |judge, frame| judge.see("to a neighbour in red", 0, phase_in(frame), frame)),
        nic(&blue, |judge, frame| judge.see("to a neighbour in blue", 1, phase_in(frame), frame)),
    ];
    let underlay = Arc::new(UnderlayConfig {
        physical_ips: vec![host_ip(1)],
        encapsulation: Encapsulation::Vxlan,
        mtu: Mtu::new(1600).unwrap(),
    });
    let plane = |before: &Tables, generation: usize, network: usize| {
        let tables = before.succeed(&document(generation, network), run.workers).unwrap();
        Arc::new(Plane::new(tables, devices.to_vec()))
    };
    let first = plane(&Tables::empty(underlay, run.workers, 7), 1, 0);
    let (directory, directory_readers) = DirectoryWriter::new(1, run.workers);
    for network in 0..2 {
        let location = Location { physical_ip: host_ip(HOSTS[network]), mac: mac(REMOTE), version: 0 };
        directory
            .set(Vni::new(VNIS[network]).unwrap(), CustomerIp::from(guest_ip(REMOTE)), location)
            .unwrap();
    }
    let (publisher, readers) = Publisher::new(first, run.workers);
    let swapper = Arc::new(Swapper { publisher, judge: judge.clone(), waiting: Mutex::default() });
    let parts = readers.into_iter().zip(directory_readers).map(|(plane, directory)| {
        let swapper = swapper.clone();
        let exit = Arc::new(move |datagram: &[u8], to: Option<PhysicalIp>| {
            judge_underlay(&swapper.judge, datagram, to);
            swapper.spring();
        });
        let underlay = Box::new(Wire { arrivals: arrivals.clone(), exit });
        Parts { hole: run.hole, ..Parts::new(plane, directory, underlay, None) }
    });
    let workers = Workers::start(parts.collect(), run.poll, Clock::start()).unwrap();

    let phase = RwLock::new(0_u64);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for _ in 0..32 {
                    for to in [LOCAL, REMOTE] {
                        let phase = phase.read().unwrap();
                        for port in ALLOWED {
                            mover.push(to_port(port, udp_frame(MOVER, to, &phase.to_be_bytes())));
                        }
                    }
                }
                rest(run.pause);
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (network, neighbour) in [&red, &blue].into_iter().enumerate() {
                    let network_octet = [u8::try_from(network).unwrap()];
                    for port in ALLOWED {
                        neighbour.push(to_port(port, udp_frame(LOCAL, MOVER, &network_octet)));
                        let frame = to_port(port, udp_frame(REMOTE, MOVER, &network_octet));
                        arrivals.push(vxlan_arrival(HOSTS[network], VNIS[network], &frame));
                    }
                }
                rest(run.pause);
            }
        });
        for number in 1..=run.moves {
            let network = number % 2;
            let next = plane(&swapper.publisher.current().tables, number + 1, network);
            // Into the pause between two bursts, when there is one.
            thread::sleep(run.pause.unwrap_or_default() / 2);
            *phase.write().unwrap() += 1;
            judge.lock().unwrap().acknowledged = None;
            let version = swapper.publish(number, 1 - network, next);
            workers.wake();
            let begun = Instant::now();
            let settled = swapper.publisher.wait_settled(version, |_| {
                thread::yield_now();
                begun.elapsed() < Duration::from_secs(20)
            });
            assert!(settled, "move {number} did not settle");
            {
                let mut judge = judge.lock().unwrap();
                judge.swapped = None;
                judge.acknowledged = Some(network);
            }
            *phase.write().unwrap() += 1;
            // Let the port live in its new network for a moment, or nothing would be judged there.
            let judged = judge.lock().unwrap().judged;
            let begun = Instant::now();
            while judge.lock().unwrap().judged < judged + 48 && begun.elapsed() < Duration::from_secs(5) {
                thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    workers.stop();
    let judge = judge.lock().unwrap();
    Outcome {
        judged: judge.judged,
        inside_batch: judge.inside_batch.len(),
        violations: judge.violations.clone(),
    }
}

/// Sleeps, or at least lets others run: there may be fewer processors than threads here.
fn rest(pause: Option<Duration>) {
    match pause {
        Some(pause) => thread::sleep(pause),
        None => thread::yield_now(),
    }
}

#[test]
fn ten_thousand_moves_under_flood_mix_nothing() {
    let (mut judged, mut inside_batch, mut moves) = (0, 0, 0);
    let runs = [
        Run { workers: 1, moves: 5_500, poll: Poll::Adaptive, pause: None, hole: None },
        Run { workers: 2, moves: 4_500, poll: Poll::Adaptive, pause: None, hole: None },
        // Pauses in which the worker sleeps: moves meet it parked.
        Run {
            workers: 1,
            moves: 500,
            poll: Poll::Sleep,
            pause: Some(Duration::from_micros(300)),
            hole: None,
        },
    ];
    for case in runs {
        let outcome = run(&case);
        assert_eq!(outcome.violations.first(), None, "{} violations in all", outcome.violations.len());
        moves += case.moves;
        judged += outcome.judged;
        inside_batch += outcome.inside_batch;
    }
    println!("{moves} moves, {inside_batch} of them provably inside of a batch, {judged} packets judged");
    assert!(judged >= 500_000, "only {judged} packets were judged");
    assert!(inside_batch >= 1_000, "only {inside_batch} swaps fell provably inside of a batch");
}

/// Whether a fault shows in one move is the scheduler's whim; in ten times four hundred it must.
#[track_caller]
fn is_caught(hole: Hole, poll: Poll, pause: Option<Duration>) {
    let mut runs =
        (1..=10).map(|_| run(&Run { workers: 1, moves: 400, poll, pause, hole: Some(hole) }).violations);
    let violations = runs.find(|violations| !violations.is_empty());
    println!("{hole:?}: {:?}", violations.as_ref().map(|found| (found.len(), &found[0])));
    assert!(violations.is_some(), "the judge does not see {hole:?}");
}

#[test]
fn frames_that_waited_in_the_queue_are_caught() {
    is_caught(Hole::KeepsQueue, Poll::Adaptive, None);
}

#[test]
fn packets_in_hand_over_the_boundary_are_caught() {
    is_caught(Hole::PassesBeforeFlush, Poll::Adaptive, None);
}

#[test]
fn a_worker_that_wakes_in_the_past_is_caught() {
    is_caught(Hole::WakesWithOld, Poll::Sleep, Some(Duration::from_micros(300)));
}

#[test]
fn a_location_that_outlives_its_network_is_caught() {
    is_caught(Hole::KeepsLocation, Poll::Adaptive, None);
}
