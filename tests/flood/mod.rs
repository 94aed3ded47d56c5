//! Floods whose every packet says who sent it and when in the sender's own count, and the judge of what became of them.
//!
//! The judge needs no trust in clocks for the moved port's own packets: before a change is asked for, all packets up to
//! a number have been handed to the port, and after it is acknowledged, all packets from a number on are yet to be
//! sent. Only what lies between may be in either network, and even that in one of them only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use control::lab::{Frame, Record, World, enter_netns};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(crate) const PORT: u16 = 9000;
const MAGIC: [u8; 4] = *b"SHNT";
/// Magic, sender, then the number.
const SIZE: usize = 13;

/// The two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    Red,
    Blue,
}

impl Network {
    pub(crate) fn vni(self) -> u32 {
        match self {
            Self::Red => 100,
            Self::Blue => 200,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Red => Self::Blue,
            Self::Blue => Self::Red,
        }
    }
}

/// Who sent a packet, as its payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sender {
    /// The port that is moved; it does not know where it is.
    Mover,
    /// A guest that never leaves its network.
    Peer(Network),
}

impl Sender {
    fn byte(self) -> u8 {
        match self {
            Self::Mover => 0,
            Self::Peer(Network::Red) => 1,
            Self::Peer(Network::Blue) => 2,
        }
    }

    fn of_byte(byte: u8) -> Option<Self> {
        [Self::Mover, Self::Peer(Network::Red), Self::Peer(Network::Blue)]
            .into_iter()
            .find(|s| s.byte() == byte)
    }
}

/// How far a sender is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The number of the last packet that it has begun to send.
    started: AtomicU64,
    /// The number of the last packet that the kernel has taken.
    completed: AtomicU64,
}

impl Progress {
    pub(crate) fn started(&self) -> u64 {
        self.started.load(SeqCst)
    }

    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(SeqCst)
    }
}

/// One way of a flood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
}

/// A thread in a guest that sends numbered packets.
pub(crate) struct Flood {
    pub(crate) progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<(UdpSocket, Ipv4Addr)>>>,
    thread: Option<JoinHandle<()>>,
    sender: Sender,
}

impl Flood {
    /// Opens a socket for each way in `netns`. With a pause, packets flow until it is dropped; without, only by
    /// [`Flood::send_round`].
    pub(crate) fn new(
        world: &Arc<World>,
        netns: &str,
        sender: Sender,
        ways: &[Way],
        pause: Option<Duration>,
    ) -> Self {
        let (world, netns, ways) = (Arc::clone(world), netns.to_owned(), ways.to_vec());
        // A socket belongs to the namespace in which it was opened, whoever uses it.
        let open = thread::spawn(move || {
            enter_netns(&world, &netns).unwrap();
            let mut sockets: HashMap<Ipv4Addr, UdpSocket> = HashMap::new();
            let open = |way: Way| {
                let socket =
                    sockets.entry(way.from).or_insert_with(|| UdpSocket::bind((way.from, PORT)).unwrap());
                (socket.try_clone().unwrap(), way.to)
            };
            ways.into_iter().map(open).collect()
        });
        let mut flood = Self {
            progress: Arc::default(),
            stop: Arc::default(),
            sockets: Arc::new(Mutex::new(open.join().unwrap())),
            thread: None,
            sender,
        };
        if let Some(pause) = pause {
            let (progress, stop, sockets) =
                (Arc::clone(&flood.progress), Arc::clone(&flood.stop), Arc::clone(&flood.sockets));
            flood.thread = Some(thread::spawn(move || {
                while !stop.load(SeqCst) {
                    round(sender, &progress, &sockets);
                    thread::sleep(pause);
                }
            }));
        }
        flood
    }

    /// Sends one packet each way.
    pub(crate) fn send_round(&self) {
        round(self.sender, &self.progress, &self.sockets);
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn round(sender: Sender, progress: &Progress, sockets: &Mutex<Vec<(UdpSocket, Ipv4Addr)>>) {
    for (socket, to) in sockets.lock().unwrap().iter() {
        let number = progress.started.fetch_add(1, SeqCst) + 1;
        let mut packet = [0; SIZE];
        packet[..4].copy_from_slice(&MAGIC);
        packet[4] = sender.byte();
        packet[5..].copy_from_slice(&number.to_be_bytes());
        // A packet that the kernel refuses was never sent: that is no loss to judge.
        let _ = socket.send_to(&packet, (*to, PORT));
        progress.completed.store(number, SeqCst);
    }
}

pub(crate) fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// One change of the mover's network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// Where it goes.
    pub(crate) network: Network,
    /// The number of the mover's last packet that was handed over before the change was asked for, and when that was.
    pub(crate) completed_before: u64,
    pub(crate) asked_ns: u64,
    /// The number of its last packet begun when the change was acknowledged, and when that was.
    pub(crate) started_at_ack: u64,
    pub(crate) acknowledged_ns: u64,
}

/// A packet on an egress device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) at_ns: u64,
    /// The network that the device, or the VNI, stands for; for what reached the mover, its sender's.
    pub(crate) network: Network,
    pub(crate) sender: Sender,
    pub(crate) number: u64,
    /// The mover's address in it.
    pub(crate) movers_address: Option<Ipv4Addr>,
}

/// Every packet of the floods in a capture. `network` is that of the device, or none on the physical network, where
/// the VNI tells, and on the mover's own device, where the sender tells.
pub(crate) fn sightings(
    records: &[Record],
    network: Option<Network>,
    wanted: fn(Sender) -> bool,
) -> Vec<Sighting> {
    let mut found = Vec::new();
    for record in records {
        let Some(mut frame) = Frame::parse(&record.bytes) else { continue };
        let mut network = network;
        if let Some((vni, inner)) = frame.inner() {
            network = [Network::Red, Network::Blue].into_iter().find(|network| network.vni() == vni);
            assert!(network.is_some(), "a packet of VNI {vni}");
            frame = inner;
        }
        // A device may be given several packets of a flow as one.
        for packet in frame.payload.as_chunks::<SIZE>().0 {
            let (head, number) = packet.split_at(5);
            let Some(sender) = head.strip_prefix(&MAGIC).and_then(|sender| Sender::of_byte(*sender.first()?))
            else {
                continue;
            };
            if !wanted(sender) {
                continue;
            }
            let address = if sender == Sender::Mover { frame.source } else { frame.destination };
            let network = match (network, sender) {
                (Some(network), _) | (None, Sender::Peer(network)) => network,
                (None, Sender::Mover) => panic!("the mover's packet on its own device's egress: {frame:?}"),
            };
            found.push(Sighting {
                at_ns: record.at_ns,
                network,
                sender,
                number: u64::from_be_bytes(number.try_into().unwrap()),
                movers_address: address.and_then(|address| match address {
                    std::net::IpAddr::V4(address) => Some(address),
                    std::net::IpAddr::V6(_) => None,
                }),
            });
        }
    }
    found
}

/// What the judge found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Packets judged.
    pub(crate) judged: u64,
    /// Sent wholly in one network and seen in the other.
    pub(crate) wrong_network: Vec<Sighting>,
    /// Seen in one network while the mover was acknowledged to be in the other.
    pub(crate) after_acknowledgement: Vec<Sighting>,
    /// With the address of the other network.
    pub(crate) mixed_address: Vec<Sighting>,
    /// The mover's packet, seen in both networks.
    pub(crate) in_both: Vec<Sighting>,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.wrong_network.is_empty()
            && self.after_acknowledgement.is_empty()
            && self.mixed_address.is_empty()
            && self.in_both.is_empty()
    }

    /// Numbers, and the first example of each kind.
    pub(crate) fn summary(&self) -> String {
        let kinds = [
            ("in the wrong network", &self.wrong_network),
            ("after the acknowledgement", &self.after_acknowledgement),
            ("with a mixed address", &self.mixed_address),
            ("in both networks", &self.in_both),
        ];
        let parts = kinds.map(|(name, list)| format!("{} {name} {:?}", list.len(), list.first()));
        format!("{} packets judged: {}", self.judged, parts.join("; "))
    }
}

/// Judges sightings against the history of changes, the first of which is the state at the start.
pub(crate) fn judge(
    history: &[Change],
    addresses: impl Fn(Network) -> Ipv4Addr,
    seen: &[Sighting],
) -> Verdict {
    let mut verdict = Verdict::default();
    let mut first_seen_in: HashMap<u64, Network> = HashMap::new();
    for sighting in seen {
        verdict.judged += 1;
        if sighting.movers_address != Some(addresses(sighting.network)) {
            verdict.mixed_address.push(*sighting);
        }
        if network_at(history, sighting.at_ns).is_some_and(|network| network != sighting.network) {
            verdict.after_acknowledgement.push(*sighting);
        }
        if sighting.sender == Sender::Mover {
            if network_of(history, sighting.number).is_some_and(|network| network != sighting.network) {
                verdict.wrong_network.push(*sighting);
            }
            if *first_seen_in.entry(sighting.number).or_insert(sighting.network) != sighting.network {
                verdict.in_both.push(*sighting);
            }
        }
    }
    verdict
}

/// The network that the mover was in at that time; none while it was changing.
fn network_at(history: &[Change], at_ns: u64) -> Option<Network> {
    let next = history.partition_point(|change| change.acknowledged_ns < at_ns);
    let current = history.get(next.checked_sub(1)?)?;
    history.get(next).is_none_or(|change| at_ns < change.asked_ns).then_some(current.network)
}

/// The network in which the mover's packet of that number was sent; none when it was changing.
fn network_of(history: &[Change], number: u64) -> Option<Network> {
    let next = history.partition_point(|change| change.started_at_ack < number);
    let current = history.get(next.checked_sub(1)?)?;
    history.get(next).is_none_or(|change| number <= change.completed_before).then_some(current.network)
}
