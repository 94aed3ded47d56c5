//! Sources that never run dry, and one that has a little to say: it is served in its turn.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use serde_json::json;

use super::super::{Parts, Poll, Workers};
use super::{Nic, PAYLOAD, Queue, guest_ip, host_ip, mac, udp_frame, vxlan_arrival};
use crate::clock::Clock;
use crate::desired::{Encapsulation, HostConfig, UnderlayConfig};
use crate::directory::{DirectoryWriter, Location};
use crate::packet::{Buffer, Checksum, Offload, SegmentKind, Segmentation};
use crate::pipeline::BATCH;
use crate::port::{Device, DeviceError, Received};
use crate::publish::Publisher;
use crate::tables::Tables;
use crate::types::{CustomerIp, Mtu, Vni};
use crate::underlay::{Arrival, Counters, Outgoing, Underlay};
use crate::worker::Plane;

/// Guests: who hears everybody, who has a little to say, a guest of another host, and from here on those who never stop.
const HEARER: u8 = 1;
const MODEST: u8 = 2;
const REMOTE: u8 = 3;
const FIRST_FLOODER: u8 = 10;
/// What the modest guest has to say: so many batches.
const BATCHES: usize = 10;

fn always_readable() -> OwnedFd {
    let readable = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    rustix::io::write(&readable, &1_u64.to_ne_bytes()).unwrap();
    readable
}

/// A frame beyond the MTU is a super-packet.
fn offload(frame_bytes: usize) -> Offload {
    let train = Segmentation { kind: SegmentKind::Udp, segment_bytes: 1400, header_bytes: 42 };
    match frame_bytes {
        ..1514 => Offload::NONE,
        _ => Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, segmentation: Some(train) },
    }
}

/// The device of a guest that sends the same frame for ever.
struct Endless {
    frame: Vec<u8>,
    offload: Offload,
    readable: OwnedFd,
}

impl Device for Endless {
    fn queues(&self) -> usize {
        1
    }

    fn poll_fd(&self, _queue: usize) -> Option<BorrowedFd<'_>> {
        Some(self.readable.as_fd())
    }

    fn receive(&self, _queue: usize, into: &mut Buffer) -> Result<Option<Received>, DeviceError> {
        Ok(Some(Received { length: into.load(&self.frame).len(), offload: Ok(self.offload) }))
    }

    fn send(&self, _queue: usize, _pieces: &[IoSlice<'_>], _offload: Offload) -> Result<(), DeviceError> {
        Ok(())
    }

    fn queue_frames(&self) -> usize {
        1
    }

    fn discard(&self, _queue: usize) -> usize {
        0
    }

    fn takes_udp_trains(&self) -> bool {
        false
    }

    fn set_link(&self, _up: bool) -> io::Result<()> {
        Ok(())
    }
}

/// A network between hosts in which one datagram arrives for ever, or nothing ever.
struct EndlessWire {
    datagram: Option<Vec<u8>>,
    readable: OwnedFd,
}

impl Underlay for EndlessWire {
    fn sockets(&self) -> usize {
        1
    }

    fn poll_fd(&self, _socket: usize) -> Option<BorrowedFd<'_>> {
        self.datagram.as_ref().map(|_| self.readable.as_fd())
    }

    fn receive(&mut self, _socket: usize, into: &mut Buffer) -> Option<Arrival> {
        let (&host, datagram) = self.datagram.as_ref()?.split_first()?;
        let bytes = into.load(datagram).len();
        Some(Arrival { from: host_ip(host), bytes, segment_bytes: bytes, traffic_class: 0 })
    }

    fn send(&mut self, _batch: &mut [Outgoing<'_>]) {}

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// The last octets of the sources of all frames that the hearer got, until the modest guest's last one came.
fn heard(flooders: u8, frame_bytes: usize, floods_underlay: bool) -> Vec<u8> {
    let underlay = Arc::new(UnderlayConfig {
        physical_ips: vec![host_ip(1)],
        encapsulation: Encapsulation::Vxlan,
        mtu: Mtu::new(1600).unwrap(),
    });
    let flooding = FIRST_FLOODER..FIRST_FLOODER + flooders;
    let guests: Vec<u8> = [HEARER, MODEST].into_iter().chain(flooding.clone()).collect();
    let ports = guests.iter().map(|&guest| {
        json!({"name": format!("g{guest}"), "network": 100, "mac": mac(guest).to_string(), "ips": [guest_ip(guest)]})
    });
    let document = json!({"generation": 1,
        "networks": [{"vni": 100, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.254"}]}],
        "ports": ports.collect::<Vec<_>>()});
    let document: HostConfig = serde_json::from_value(document).unwrap();
    let tables = Tables::empty(underlay, 1, 7).succeed(&document, 1).unwrap();

    let said = Queue::new(BATCHES * BATCH);
    (0..BATCHES * BATCH).for_each(|_| assert!(said.push(udp_frame(MODEST, HEARER, b"little"))));
    let (done, last) = mpsc::channel();
    let ear = Arc::new(Ear { heard: Mutex::default(), done });
    let mut devices: Vec<Option<Arc<dyn Device>>> = Vec::new();
    for &guest in &guests {
        let (from_guest, to_guest) = (Queue::new(1), Box::new(|_: &[u8], _| {}));
        let device: Arc<dyn Device> = match guest {
            HEARER => {
                let ear = ear.clone();
                Arc::new(Nic { from_guest, to_guest: Box::new(move |frame, _| ear.hear(frame)) })
            }
            MODEST => Arc::new(Nic { from_guest: said.clone(), to_guest }),
            _ => {
                let frame = udp_frame(guest, HEARER, &vec![0; frame_bytes - PAYLOAD]);
                Arc::new(Endless { frame, offload: offload(frame_bytes), readable: always_readable() })
            }
        };
        let port = tables.port_named(&format!("g{guest}").parse().unwrap()).unwrap().id;
        devices.resize(devices.len().max(port.index() + 1), None);
        devices[port.index()] = Some(device);
    }
    let (publisher, readers) = Publisher::new(Arc::new(Plane::new(tables, devices)), 1);
    let (directory, directory_readers) = DirectoryWriter::new(1, 1);
    let location = Location { physical_ip: host_ip(2), mac: mac(REMOTE), version: 1 };
    directory.set(Vni::new(100).unwrap(), CustomerIp::from(guest_ip(REMOTE)), location).unwrap();
    let parts = readers.into_iter().zip(directory_readers).map(|(plane, directory)| {
        let datagram = floods_underlay.then(|| vxlan_arrival(2, 100, &udp_frame(REMOTE, HEARER, b"flood")));
        let wire = EndlessWire { datagram, readable: always_readable() };
        Parts::new(plane, directory, Box::new(wire), None)
    });
    let workers = Workers::start(parts.collect(), Poll::Adaptive, Clock::start()).unwrap();
    last.recv_timeout(Duration::from_secs(60)).expect("the modest guest is never heard");
    workers.stop();
    drop(publisher);
    std::mem::take(&mut ear.heard.lock().unwrap())
}

struct Ear {
    heard: Mutex<Vec<u8>>,
    done: Sender<()>,
}

impl Ear {
    fn hear(&self, frame: &[u8]) {
        let mut heard = self.heard.lock().unwrap();
        // Source MAC addresses end in the guest's number.
        heard.push(frame[11]);
        if frame[11] == MODEST && heard.iter().filter(|&&from| from == MODEST).count() == BATCHES * BATCH {
            let _ = self.done.send(());
        }
    }
}

/// How many frames of others were heard while the modest guest had something to say.
fn others_meanwhile(heard: &[u8]) -> usize {
    let last = heard.iter().rposition(|&from| from == MODEST).unwrap();
    heard[..last].iter().filter(|&&from| from != MODEST).count()
}

#[test]
fn a_port_that_never_stops_gets_one_batch_for_each_of_anothers() {
    let heard = heard(3, 100, false);
    let others = others_meanwhile(&heard);
    assert!(others <= (BATCHES + 1) * 3 * BATCH, "{others} frames of three flooders came first");
}

#[test]
fn large_frames_get_no_larger_share() {
    let bytes = 60_000;
    let heard = heard(1, bytes, false);
    let others = others_meanwhile(&heard);
    let most = (BATCHES + 1) * (1 + (512 << 10) / bytes);
    assert!(others <= most, "{others} frames of {bytes} bytes came first, {most} are a fair share");
}

/// More sources than one round looks at.
#[test]
fn nobody_is_forgotten_among_many() {
    let flooders = 150;
    let heard = heard(flooders, 100, false);
    let others = others_meanwhile(&heard);
    let most = (BATCHES + 2) * (usize::from(flooders) + 1) * BATCH;
    assert!(others <= most, "{others} frames of {flooders} flooders came first, {most} are a fair share");
}

#[test]
fn a_flood_from_the_underlay_stops_no_port() {
    let heard = heard(1, 100, true);
    // Eight receives of an underlay socket are one turn.
    let of = |guest: u8| heard.iter().filter(|&&from| from == guest).count();
    assert!(of(REMOTE) > 0 && of(MODEST) == BATCHES * BATCH);
    assert!(others_meanwhile(&heard) <= (BATCHES + 1) * (BATCH + 8));
}
