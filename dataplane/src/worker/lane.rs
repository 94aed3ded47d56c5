//! The way of guests' segments from one worker to the TCP endpoint: a bounded queue in whose slots they are copied.
//!
//! All slots are allocated at start and go round: the worker takes an empty one, fills it and hands it on, the endpoint gives
//! it back. Neither waits for the other. A port may fill one slot and a quarter of what is free, so whoever floods gets no
//! more of the queue than others do, and some that flood leave room for one that comes later.
//!
//! Never here: what a segment means; who may speak, which the pipeline has decided.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_queue::ArrayQueue;

use super::poll::Waker;
use crate::bucket::Bounds;
use crate::tables::Port;
use crate::types::{Generation, PortId};

/// The longest frame that passes: Ethernet, IPv4 and TCP with all options, and as much as a guest was told that it may
/// send ahead.
const FRAME_BYTES: usize = 14 + 60 + 60 + WINDOW_BYTES;
/// How far a guest may send ahead on one connection: the endpoint's receive buffer.
pub const WINDOW_BYTES: usize = 8 << 10;
/// Slots of one lane: 1 MiB.
const SLOTS: usize = 128;
/// Of the free slots, a port may have one in so many.
const SHARE: usize = 4;

/// A guest's frame on its way.
pub struct Frame {
    port: PortId,
    epoch: Generation,
    bounds: Option<Arc<Bounds>>,
    length: usize,
    bytes: [u8; FRAME_BYTES],
}

impl Frame {
    fn new() -> Box<Self> {
        let (port, epoch) = (PortId(0), Generation(0));
        Box::new(Self { port, epoch, bounds: None, length: 0, bytes: [0; FRAME_BYTES] })
    }

    /// The slot of the port that sent it.
    #[must_use]
    pub const fn port(&self) -> PortId {
        self.port
    }

    /// The port's [epoch](Port::epoch) in the tables by which it was judged.
    #[must_use]
    pub const fn epoch(&self) -> Generation {
        self.epoch
    }

    /// The frame, Ethernet header included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// One worker's queue to the endpoint. The worker puts in, the endpoint takes out.
pub struct Lane {
    empty: ArrayQueue<Box<Frame>>,
    filled: ArrayQueue<Box<Frame>>,
    bell: Waker,
}

impl Lane {
    /// An empty lane whose worker wakes the endpoint by `bell`.
    #[must_use]
    pub(crate) fn new(bell: Waker) -> Arc<Self> {
        let (empty, filled) = (ArrayQueue::new(SLOTS), ArrayQueue::new(SLOTS));
        while empty.push(Frame::new()).is_ok() {}
        Arc::new(Self { empty, filled, bell })
    }

    /// Copies a frame of `port` into the queue; false when the port has its share in it already, or the frame is longer
    /// than any that keeps to its window.
    #[must_use]
    pub(crate) fn offer(&self, port: &Port, frame: &[u8]) -> bool {
        let waiting = &port.bounds.waiting;
        if frame.len() > FRAME_BYTES || waiting.load(Ordering::Relaxed) as usize > self.empty.len() / SHARE {
            return false;
        }
        let Some(mut slot) = self.empty.pop() else { return false };
        if let Some(into) = slot.bytes.get_mut(..frame.len()) {
            into.copy_from_slice(frame);
        }
        (slot.port, slot.epoch, slot.length) = (port.id, port.epoch, frame.len());
        slot.bounds = Some(port.bounds.clone());
        waiting.fetch_add(1, Ordering::Relaxed);
        // As long as there are no more slots than places this never fails.
        self.filled.push(slot).is_ok()
    }

    /// Wakes the endpoint.
    pub(crate) fn call(&self) {
        self.bell.wake();
    }

    /// The oldest frame, to be [given back](Lane::give_back).
    #[must_use]
    pub(crate) fn take(&self) -> Option<Box<Frame>> {
        self.filled.pop()
    }

    /// Makes the slot free again.
    pub(crate) fn give_back(&self, mut slot: Box<Frame>) {
        if let Some(bounds) = slot.bounds.take() {
            bounds.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        let _ = self.empty.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Tables;

    fn tables() -> Tables {
        let underlay =
            serde_json::json!({"physical_ips": ["192.0.2.1"], "encapsulation": "vxlan", "mtu": 1600});
        let port = |n: u8| serde_json::json!({"name": format!("p{n}"), "network": 100, "mac": format!("02:00:00:00:00:{n:02x}"), "ips": [format!("10.0.0.{n}")]});
        let document = serde_json::json!({"generation": 1, "networks": [{"vni": 100, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}]}],
            "ports": (2..200).map(port).collect::<Vec<_>>()});
        let tables = Tables::empty(Arc::new(serde_json::from_value(underlay).unwrap()), 1, 7);
        tables.succeed(&serde_json::from_value(document).unwrap(), 1).unwrap()
    }

    fn fill(lane: &Lane, port: &Port) -> usize {
        (0..SLOTS).filter(|_| lane.offer(port, b"frame")).count()
    }

    #[test]
    fn whoever_floods_leaves_room_for_others() {
        let (lane, tables) = (Lane::new(Waker::new().unwrap()), tables());
        let ports: Vec<_> = tables.ports().collect();
        let first = fill(&lane, ports[0]);
        assert!((16..=SLOTS / SHARE).contains(&first), "{first}");
        for flooder in &ports[1..10] {
            fill(&lane, flooder);
        }
        assert!(lane.offer(ports[10], b"frame"), "ten that flood leave room for one that does not");
        while let Some(frame) = lane.take() {
            lane.give_back(frame);
        }
        assert_eq!(fill(&lane, ports[0]), first, "what was given back is free again");
    }

    #[test]
    fn a_frame_arrives_as_it_was_sent_and_one_beyond_every_window_does_not() {
        let (lane, tables) = (Lane::new(Waker::new().unwrap()), tables());
        let port = tables.ports().next().unwrap();
        assert!(lane.offer(port, b"frame") && !lane.offer(port, &[0; FRAME_BYTES + 1]));
        let frame = lane.take().unwrap();
        assert_eq!((frame.port(), frame.epoch(), frame.bytes()), (port.id, port.epoch, b"frame".as_slice()));
        assert!(lane.take().is_none());
    }
}
