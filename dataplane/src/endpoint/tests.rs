//! One stack with a port in memory: what ends a connection, and what a guest may send.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::connection::Opened;
use super::link::Outlet;
use super::stack::{self, Heard, Refuser, Stack};
use crate::packet::Buffer;
use crate::port::Device;
use crate::port::memory::{self, Memory};
use crate::tables::{Port, Tables};
use crate::types::{MacAddr, Mtu, Nanos};
use crate::wire::flow::{Headers, Transport};
use crate::wire::tcp::Flags;

const SECOND: u64 = 1_000_000_000;
const ISN: u32 = 1000;
const SYN_ACK: Flags = Flags(0x12);

fn port() -> Arc<Port> {
    let underlay = json!({"physical_ips": ["192.0.2.1"], "encapsulation": "vxlan", "mtu": 1600});
    let document = json!({"generation": 1, "networks": [{"vni": 100, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}]}],
        "ports": [{"name": "eve", "network": 100, "mac": "02:00:00:00:00:05", "ips": ["10.0.0.5"], "label": "7"}]});
    let tables = Tables::empty(Arc::new(serde_json::from_value(underlay).unwrap()), 1, 7);
    let tables = tables.succeed(&serde_json::from_value(document).unwrap(), 1).unwrap();
    tables.ports().next().map(Arc::clone).unwrap()
}

/// A guest that speaks TCP by hand, and its stack.
struct Scene {
    port: Arc<Port>,
    stack: Stack,
    device: Memory,
    guest: Memory,
    scratch: Vec<u8>,
}

/// A segment of the guest's, from its port number `from`.
fn segment(from: u16, flags: Flags, (sequence, acknowledged): (u32, u32), payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(40 + payload.len()).unwrap();
    let mut frame = [&MacAddr::ROUTER.0[..], &[2, 0, 0, 0, 0, 5, 8, 0]].concat();
    let mut ip = [
        &[0x45, 0][..],
        &total.to_be_bytes(),
        &[0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 5, 169, 254, 169, 254],
    ]
    .concat();
    let sum = crate::wire::checksum::Sum::ZERO.add_bytes(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend(from.to_be_bytes());
    frame.extend(80_u16.to_be_bytes());
    frame.extend(sequence.to_be_bytes());
    frame.extend(acknowledged.to_be_bytes());
    // A checksum that is left to a NIC.
    frame.extend([0x50, flags.0, 0x40, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

impl Scene {
    fn new() -> Self {
        let (device, guest) = memory::pair(1024);
        let (port, mtu) = (port(), Mtu::new(1500).unwrap());
        let stack = Stack::new(&port, mtu, 7, Nanos(0));
        Self { port, stack, device, guest, scratch: Vec::new() }
    }

    fn receive(&mut self, frame: &[u8], opened: Option<Opened>, now: u64) {
        let Some(heard) = Heard::parse(frame) else { return };
        let cells = self.port.counters.of_worker(0);
        let outlet = Outlet::new(&self.port, &self.device, cells, &mut self.scratch);
        self.stack.receive(&heard, opened, outlet, Nanos(now));
        self.work(now);
    }

    fn work(&mut self, now: u64) {
        let cells = self.port.counters.of_worker(0);
        let outlet = Outlet::new(&self.port, &self.device, cells, &mut self.scratch);
        self.stack.work(outlet, Nanos(now));
    }

    /// What the guest was sent: flags and sequence number of each segment.
    fn sent(&self) -> Vec<(Flags, u32)> {
        let mut buffer = Buffer::new();
        let mut sent = Vec::new();
        while let Some(received) = self.guest.receive(0, &mut buffer).unwrap() {
            let packet = buffer.packet(received.length, received.offload.unwrap());
            let headers = Headers::parse(packet.frame()).unwrap();
            let Transport::Tcp { flags, .. } = headers.transport else { panic!("{headers:?}") };
            assert_eq!((headers.source, headers.destination), (MacAddr::ROUTER, self.port.mac));
            sent.push((flags, u32::from_be_bytes(packet.frame()[38..42].try_into().unwrap())));
        }
        sent
    }

    /// Knocks; gives the agent's end and the stack's sequence number.
    fn knock(&mut self, from: u16, now: u64) -> (UnixStream, u32) {
        let (agent, stream) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let opened = Opened { stream: OwnedFd::from(stream), number: from.into() };
        self.receive(&segment(from, Flags::SYN, (ISN, 0), b""), Some(opened), now);
        let sent = self.sent();
        assert!(matches!(sent[..], [(SYN_ACK, _)]), "{sent:?}");
        (agent, sent[0].1)
    }

    fn connect(&mut self, from: u16, now: u64) -> (UnixStream, u32) {
        let (agent, theirs) = self.knock(from, now);
        self.receive(&segment(from, Flags::ACK, (ISN + 1, theirs + 1), b""), None, now);
        (agent, theirs)
    }
}

#[test]
fn a_guest_that_only_knocks_is_forgotten_and_the_agent_has_heard_nothing() {
    let mut scene = Scene::new();
    let (mut agent, _) = scene.knock(4000, 0);
    scene.work(4 * SECOND);
    assert_eq!(scene.stack.len(), 1);
    scene.work(5 * SECOND);
    assert_eq!(scene.stack.len(), 0);
    assert!(scene.sent().iter().any(|(flags, _)| flags.contains(Flags::RST)));
    assert_eq!(agent.read(&mut [0]).unwrap(), 0, "closed, without a preamble");
}

#[test]
fn an_idle_connection_ends_and_a_busy_one_ends_later() {
    let mut scene = Scene::new();
    let (agent, _) = scene.connect(4000, 0);
    let mut line = String::new();
    BufReader::new(&agent).read_line(&mut line).unwrap();
    assert!(line.starts_with(r#"{"port":"eve","label":"7","network":100,"#), "{line}");
    let (_other, isn) = scene.connect(4001, 0);
    let mut theirs = isn + 1;
    scene.sent();
    let mut busy = scene.stack.len();
    for (mine, second) in (ISN + 1..).zip((30..=600).step_by(30)) {
        scene.receive(&segment(4001, Flags::ACK, (mine, theirs), b"x"), None, second * SECOND);
        theirs = scene.sent().iter().map(|&(_, sequence)| sequence).max().unwrap_or(theirs);
        busy = scene.stack.len();
        assert_eq!(busy, if second < 60 { 2 } else { usize::from(second < 600) }, "after {second} s");
    }
    assert_eq!(busy, 0);
}

#[test]
fn a_stack_says_when_it_has_to_be_called() {
    let mut scene = Scene::new();
    assert_eq!(scene.stack.due(), Nanos(u64::MAX));
    let (_agent, _) = scene.connect(4000, SECOND);
    scene.work(SECOND);
    assert_eq!(scene.stack.due(), Nanos(61 * SECOND), "nothing but its idleness");
}

#[test]
fn what_the_agent_does_not_read_stays_with_the_guest() {
    let mut scene = Scene::new();
    let (mut agent, theirs) = scene.connect(4000, 0);
    let mut mine = ISN + 1;
    // Until the agent's socket and the window are full.
    for _ in 0..200 {
        scene.receive(&segment(4000, Flags::ACK, (mine, theirs + 1), &[7; 1000]), None, 0);
        mine += 1000;
    }
    agent.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    let _ = agent.read_to_end(&mut all);
    let taken = all.len();
    assert!((1000..128 << 10).contains(&taken), "{taken} bytes were taken for an agent that does not read");
}

#[test]
fn shares_leave_room_for_others() {
    assert_eq!((stack::share(2048), stack::share(128), stack::share(127), stack::share(7)), (16, 16, 15, 0));
    let (mut room, mut flooders) = (2048, 0);
    while stack::share(room) > 0 {
        let mut held = 0;
        while held < stack::share(room) {
            (held, room) = (held + 1, room - 1);
        }
        flooders += 1;
    }
    assert!(flooders > 100, "{flooders}");
}

#[test]
fn nobody_there_is_a_reset_and_a_reset_is_answered_by_nothing() {
    let mut scene = Scene::new();
    let mut refuser = Refuser::new();
    for (flags, answers) in [(Flags::SYN, 1), (Flags::ACK, 1), (Flags::RST, 0)] {
        let frame = segment(4000, flags, (ISN, 1), b"");
        let cells = scene.port.counters.of_worker(0);
        let outlet = Outlet::new(&scene.port, &scene.device, cells, &mut scene.scratch);
        refuser.refuse(&Heard::parse(&frame).unwrap(), outlet, Nanos(0));
        let sent = scene.sent();
        assert_eq!(sent.len(), answers, "{flags:?}");
        assert!(sent.iter().all(|(flags, _)| flags.contains(Flags::RST)));
    }
}

proptest! {
    /// Whatever a guest sends, in whatever order: nothing panics, and nothing is held beyond what was opened.
    #[test]
    fn no_segment_breaks_a_stack(
        steps in prop::collection::vec(
            (0..4_u16, any::<u8>(), any::<(u32, u32)>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)),
            1..60,
        ),
    ) {
        let mut scene = Scene::new();
        let mut agents = Vec::new();
        let mut theirs = 0;
        for (step, (from, flags, numbers, is_near, payload)) in (0_u64..).zip(steps) {
            let flags = Flags(flags);
            let numbers = if is_near { (ISN + (numbers.0 & 7), theirs + (numbers.1 & 3)) } else { numbers };
            let mut frame = segment(4000 + from, flags, numbers, &payload);
            // Options of whatever kind.
            if payload.len() > 40 {
                frame[46] = (payload[0] | 0x50) & 0xf0;
            }
            let Some(heard) = Heard::parse(&frame) else { continue };
            let opened = (heard.is_syn && !scene.stack.knows(&heard) && scene.stack.len() < 8).then(|| {
                let (mut agent, stream) = UnixStream::pair().unwrap();
                stream.set_nonblocking(true).unwrap();
                let _ = agent.write_all(&payload);
                if payload.len() % 3 != 0 {
                    agents.push(agent);
                }
                Opened { stream: OwnedFd::from(stream), number: 0 }
            });
            scene.receive(&frame, opened, step * SECOND / 4);
            theirs = scene.sent().last().map_or(theirs, |&(_, sequence)| sequence);
            prop_assert!(scene.stack.len() <= 8);
        }
    }
}
