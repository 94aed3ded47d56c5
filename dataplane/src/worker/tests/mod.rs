//! A world for one switch's workers: devices and an underlay in memory, and a judge that sees every packet leave.

mod atomicity;
mod fair;
mod idle;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, eventfd};

use crate::packet::{Buffer, Offload};
use crate::port::{Device, DeviceError, Received};
use crate::types::{MacAddr, PhysicalIp};
use crate::underlay::{Arrival, Counters, Outgoing, Underlay};

/// A queue of frames with a descriptor that is readable while it holds some.
pub(super) struct Queue {
    frames: Mutex<VecDeque<Vec<u8>>>,
    readable: OwnedFd,
    capacity: usize,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        let readable = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        Arc::new(Self { frames: Mutex::default(), readable, capacity })
    }

    /// False when it is full.
    pub(super) fn push(&self, frame: Vec<u8>) -> bool {
        let mut frames = self.frames.lock().unwrap();
        if frames.len() >= self.capacity {
            return false;
        }
        frames.push_back(frame);
        if frames.len() == 1 {
            rustix::io::write(&self.readable, &1_u64.to_ne_bytes()).unwrap();
        }
        true
    }

    fn pop(&self) -> Option<Vec<u8>> {
        let mut frames = self.frames.lock().unwrap();
        let frame = frames.pop_front();
        if frame.is_some() && frames.is_empty() {
            rustix::io::read(&self.readable, &mut [0_u8; 8]).unwrap();
        }
        frame
    }
}

/// What leaves the switch somewhere.
pub(super) type Exit = dyn Fn(&[u8], Option<PhysicalIp>) + Send + Sync;

/// A port's device: the guest's frames come from a queue, the switch's go to an exit.
pub(super) struct Nic {
    pub(super) from_guest: Arc<Queue>,
    pub(super) to_guest: Box<Exit>,
}

impl Device for Nic {
    fn queues(&self) -> usize {
        1
    }

    fn poll_fd(&self, _queue: usize) -> Option<BorrowedFd<'_>> {
        Some(self.from_guest.readable.as_fd())
    }

    fn receive(&self, _queue: usize, into: &mut Buffer) -> Result<Option<Received>, DeviceError> {
        let Some(frame) = self.from_guest.pop() else { return Ok(None) };
        Ok(Some(Received { length: into.load(&frame).len(), offload: Ok(Offload::NONE) }))
    }

    fn send(&self, _queue: usize, pieces: &[IoSlice<'_>], _offload: Offload) -> Result<(), DeviceError> {
        let frame: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        (self.to_guest)(&frame, None);
        Ok(())
    }

    fn queue_frames(&self) -> usize {
        self.from_guest.capacity
    }

    fn discard(&self, _queue: usize) -> usize {
        std::iter::from_fn(|| self.from_guest.pop()).take(self.from_guest.capacity).count()
    }

    fn takes_udp_trains(&self) -> bool {
        false
    }

    fn set_link(&self, _up: bool) -> io::Result<()> {
        Ok(())
    }
}

/// The network between hosts: arrivals (first octet of the sender's host number, then the datagram) come from a queue.
pub(super) struct Wire {
    pub(super) arrivals: Arc<Queue>,
    pub(super) exit: Arc<Exit>,
}

impl Underlay for Wire {
    fn sockets(&self) -> usize {
        1
    }

    fn poll_fd(&self, _socket: usize) -> Option<BorrowedFd<'_>> {
        Some(self.arrivals.readable.as_fd())
    }

    fn receive(&mut self, _socket: usize, into: &mut Buffer) -> Option<Arrival> {
        let datagram = self.arrivals.pop()?;
        let (&host, datagram) = datagram.split_first()?;
        let bytes = into.load(datagram).len();
        Some(Arrival { from: host_ip(host), bytes, segment_bytes: bytes, traffic_class: 0 })
    }

    fn send(&mut self, batch: &mut [Outgoing<'_>]) {
        for packet in batch {
            (self.exit)(packet.packet, Some(packet.to));
        }
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// 192.0.2.0/24 is the underlay.
pub(super) fn host_ip(host: u8) -> PhysicalIp {
    Ipv4Addr::new(192, 0, 2, host).into()
}

/// 10.0.0.0/24 is every tenant's network.
pub(super) fn guest_ip(guest: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, guest)
}

pub(super) fn mac(guest: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, guest])
}

/// Where the UDP payload begins in [`udp_frame`]'s result.
pub(super) const PAYLOAD: usize = 14 + 20 + 8;

/// An Ethernet frame with a UDP packet over IPv4.
pub(super) fn udp_frame(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(8 + payload.len()).unwrap();
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0].to_vec();
    ip[2..4].copy_from_slice(&(20 + udp_length).to_be_bytes());
    ip.extend(guest_ip(from).octets());
    ip.extend(guest_ip(to).octets());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes());
    [
        &mac(to).0[..],
        &mac(from).0,
        &[8, 0],
        &ip,
        &[0x13, 0x88, 0x13, 0x89],
        &udp_length.to_be_bytes(),
        &[0, 0],
        payload,
    ]
    .concat()
}

/// The datagram that carries `frame` through a VXLAN tunnel from `host`, as [`Wire`] takes it.
pub(super) fn vxlan_arrival(host: u8, vni: u32, frame: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    [&[host, 8, 0, 0, 0, a, b, c, 0][..], frame].concat()
}
