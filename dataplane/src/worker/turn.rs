//! One batch from one source: read, judge, send. Everything that a turn resolved has left before it returns.

use std::io::IoSlice;

use arrayvec::ArrayVec;

use super::holes::Sabotage;
use crate::directory::DirectoryReader;
use crate::offload::coalesce::{Arrived, Coalescer};
use crate::packet::{Buffer, Offload, Packet};
use crate::pipeline::{self, BATCH, Context, DropReason, Outer, Trap, Tunnel, Verdict, Verdicts};
use crate::port::{Device, DeviceError, Received};
use crate::stats::Cells;
use crate::tables::Port;
use crate::types::{Nanos, PortId};
use crate::underlay::{Arrival, Outgoing, SendError, Underlay};
use crate::worker::{Lane, Plane};

/// Bytes that one turn reads from a port, give or take a frame: a sender of 64 KiB super-packets gets the same share of
/// the worker's time as one of small packets.
const QUANTUM: usize = 512 << 10;
/// Receives of one turn at an underlay socket.
const ARRIVALS: usize = 8;

/// Frames for ports that one turn at an underlay socket keeps in hand: a train has at most 64 datagrams.
const INWARD: usize = ARRIVALS * 64;
/// VXLAN's header, and Geneve's without options.
const TUNNEL_BYTES: u8 = 8;

/// What a turn works with.
pub(super) struct Turn<'a> {
    pub(super) plane: &'a Plane,
    pub(super) directory: &'a DirectoryReader,
    pub(super) underlay: &'a mut dyn Underlay,
    pub(super) buffers: &'a mut [Buffer],
    pub(super) coalescer: &'a mut Coalescer,
    pub(super) lane: Option<&'a Lane>,
    pub(super) now: Nanos,
    pub(super) worker: usize,
    pub(super) sabotage: &'a mut Sabotage,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// With so many frames or datagrams read.
    Read(usize),
    /// The device no longer exists: do not listen to it any more.
    Gone,
}

impl Turn<'_> {
    /// A batch from one queue of a port's device.
    pub(super) fn port(&mut self, id: PortId, queue: usize) -> Turned {
        let plane = self.plane;
        let (Some(port), Some(device)) = (plane.tables.port(id), plane.device(id)) else {
            return Turned::Read(0);
        };
        let cells = port.counters.of_worker(self.worker);
        let mut packets = ArrayVec::<Packet<'_>, BATCH>::new();
        let (mut frames, mut bytes, mut gone) = (0, 0, false);
        for buffer in self.buffers.iter_mut().take(BATCH) {
            if bytes >= QUANTUM {
                break;
            }
            match device.receive(queue, buffer) {
                Ok(Some(Received { length, offload })) => {
                    frames += 1;
                    bytes += length;
                    match offload {
                        Ok(offload) => packets.push(buffer.packet(length, offload)),
                        Err(_) => cells.dropped(DropReason::OffloadInvalid, 1),
                    }
                }
                Err(DeviceError::Gone) => {
                    gone = true;
                    break;
                }
                Ok(None) | Err(_) => break,
            }
        }
        count(frames, bytes, |packets, bytes| {
            cells.received_packets.add(packets);
            cells.received_bytes.add(bytes);
        });
        let mut verdicts = Verdicts::new();
        let context =
            Context { tables: &plane.tables, directory: self.directory, now: self.now, worker: self.worker };
        pipeline::egress(&context, port, &mut packets, &mut verdicts);
        let mut outgoing = ArrayVec::<Outgoing<'_>, BATCH>::new();
        let mut detoured = false;
        for (packet, verdict) in packets.iter_mut().zip(&verdicts) {
            match *verdict {
                Verdict::Deliver(to) => {
                    deliver(plane, self.worker, to, &[IoSlice::new(packet.frame())], packet.offload)
                }
                Verdict::Reply(_) => {
                    send(port, device.as_ref(), self.worker, &[IoSlice::new(packet.frame())], packet.offload)
                }
                Verdict::Underlay(tunnel) => {
                    let tunnel = self.sabotage.tunnel(tunnel, packet.frame());
                    outgoing.push(toward(tunnel, packet));
                }
                Verdict::Detour => {
                    let is_taken = self.lane.is_some_and(|lane| lane.offer(port, packet.frame()));
                    detoured |= is_taken;
                    if is_taken {
                        cells.trapped(Trap::Metadata);
                    } else {
                        cells.dropped(DropReason::MetadataFull, 1);
                    }
                }
                Verdict::Absorbed(_) | Verdict::Drop(_) => {}
            }
        }
        if let Some(lane) = self.lane.filter(|_| detoured) {
            lane.call();
        }
        self.underlay.send(&mut outgoing);
        account(&outgoing, cells, plane.tables.underlay_counters.of_worker(self.worker));
        if gone { Turned::Gone } else { Turned::Read(frames) }
    }

    /// What has arrived at one underlay socket.
    pub(super) fn underlay(&mut self, socket: usize) -> Turned {
        let plane = self.plane;
        let cells = plane.tables.underlay_counters.of_worker(self.worker);
        let context =
            Context { tables: &plane.tables, directory: self.directory, now: self.now, worker: self.worker };
        let mut arrivals = ArrayVec::<(Arrival, &mut Buffer), ARRIVALS>::new();
        for buffer in self.buffers.iter_mut().take(ARRIVALS) {
            match self.underlay.receive(socket, buffer) {
                Some(arrival) => arrivals.push((arrival, buffer)),
                None => break,
            }
        }
        let mut datagrams = 0;
        // Frames for this host's ports, of all arrivals together: the longer the batch, the more can be joined.
        let mut inward = Inward::new();
        for (arrival, buffer) in &mut arrivals {
            let outer = Outer { source: arrival.from, traffic_class: arrival.traffic_class };
            let mut train = arrival.datagrams(buffer);
            loop {
                let mut packets: ArrayVec<Packet<'_>, BATCH> =
                    train.by_ref().take(BATCH).map(whole).collect();
                if packets.is_empty() {
                    break;
                }
                datagrams += packets.len();
                count(packets.len(), packets.iter().map(Packet::len).sum(), |packets, bytes| {
                    cells.received_packets.add(packets);
                    cells.received_bytes.add(bytes);
                });
                let mut verdicts = Verdicts::new();
                pipeline::ingress(&context, &outer, &mut packets, &mut verdicts);
                if inward.remaining_capacity() < packets.len() {
                    join_and_deliver(plane, self.worker, self.coalescer, &inward);
                    inward.clear();
                }
                for (mut packet, verdict) in packets.into_iter().zip(verdicts) {
                    match verdict {
                        Verdict::Deliver(to) => inward.push((to, packet)),
                        Verdict::Reply(_) => answer(self.underlay, &outer, &mut packet, cells),
                        Verdict::Underlay(_) | Verdict::Detour | Verdict::Absorbed(_) | Verdict::Drop(_) => {}
                    }
                }
            }
        }
        join_and_deliver(plane, self.worker, self.coalescer, &inward);
        Turned::Read(datagrams)
    }
}

/// Decapsulated frames and their ports.
type Inward<'b> = ArrayVec<(PortId, Packet<'b>), INWARD>;

/// A whole datagram as a packet.
fn whole(datagram: &mut [u8]) -> Packet<'_> {
    let length = datagram.len();
    Packet::within(datagram, 0, length, Offload::NONE)
}

/// Delivers frames from other hosts, those of one flow joined into super-packets.
fn join_and_deliver(plane: &Plane, worker: usize, coalescer: &mut Coalescer, inward: &Inward<'_>) {
    let arrived: ArrayVec<Arrived<'_>, INWARD> = inward
        .iter()
        .map(|(port, packet)| Arrived {
            port: *port,
            udp_trains: plane.device(*port).is_some_and(|device| device.takes_udp_trains()),
            frame: packet.frame(),
            offload: packet.offload,
        })
        .collect();
    for joined in coalescer.join(&arrived) {
        deliver(plane, worker, joined.port, &joined.pieces, joined.offload);
    }
}

/// Sends a trap's answer back to the host that asked.
fn answer(underlay: &mut dyn Underlay, outer: &Outer, packet: &mut Packet<'_>, cells: &Cells) {
    let tunnel = Tunnel { to: outer.source, entropy: 0, traffic_class: 0, header_bytes: TUNNEL_BYTES };
    let mut outgoing = [toward(tunnel, packet)];
    underlay.send(&mut outgoing);
    account(&outgoing, cells, cells);
}

fn toward<'p>(tunnel: Tunnel, packet: &'p mut Packet<'_>) -> Outgoing<'p> {
    let offload = packet.offload;
    Outgoing {
        to: tunnel.to,
        entropy: tunnel.entropy,
        traffic_class: tunnel.traffic_class,
        tunnel_bytes: usize::from(tunnel.header_bytes),
        packet: packet.frame_mut(),
        offload,
        result: Ok(()),
    }
}

fn deliver(plane: &Plane, worker: usize, to: PortId, pieces: &[IoSlice<'_>], offload: Offload) {
    let Some(port) = plane.tables.port(to) else { return };
    match plane.device(to) {
        Some(device) => send(port, device.as_ref(), worker, pieces, offload),
        None => port.counters.of_worker(worker).dropped(DropReason::PortDown, 1),
    }
}

fn send(port: &Port, device: &dyn Device, worker: usize, pieces: &[IoSlice<'_>], offload: Offload) {
    let cells = port.counters.of_worker(worker);
    match device.send(worker, pieces, offload) {
        Ok(()) => count(1, pieces.iter().map(|piece| piece.len()).sum(), |packets, bytes| {
            cells.sent_packets.add(packets);
            cells.sent_bytes.add(bytes);
        }),
        Err(DeviceError::Down | DeviceError::Gone) => cells.dropped(DropReason::PortDown, 1),
        Err(DeviceError::Full | DeviceError::Refused) => cells.dropped(DropReason::PortSend, 1),
    }
}

/// Counts what became of a batch: sent at the underlay, refused at whoever sent it.
fn account(outgoing: &[Outgoing<'_>], sender: &Cells, underlay: &Cells) {
    for packet in outgoing {
        match packet.result {
            Ok(()) => count(1, packet.packet.len(), |packets, bytes| {
                underlay.sent_packets.add(packets);
                underlay.sent_bytes.add(bytes);
            }),
            Err(SendError::Offload) => sender.dropped(DropReason::OffloadInvalid, 1),
            Err(SendError::Family) => sender.dropped(DropReason::UnderlayFamily, 1),
            Err(SendError::TooBig | SendError::Full | SendError::Refused) => {
                sender.dropped(DropReason::UnderlaySend, 1)
            }
        }
    }
}

/// Counts as the counters are kept.
fn count(packets: usize, bytes: usize, add: impl FnOnce(u64, u64)) {
    if packets > 0 {
        add(u64::try_from(packets).unwrap_or(u64::MAX), u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}
