//! A two-ended device in memory: what one end sends, the other receives. For tests and benchmarks; it allocates.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Device, DeviceError, Received};
use crate::packet::{Buffer, Offload};

#[derive(Default)]
struct Wire {
    frames: VecDeque<(Vec<u8>, Offload)>,
    link_down: bool,
}

/// One end of a pair. Has one queue.
pub struct Memory {
    incoming: Arc<Mutex<Wire>>,
    outgoing: Arc<Mutex<Wire>>,
    queue_frames: usize,
}

/// Two ends, each holding at most `queue_frames` frames that were not yet received.
#[must_use]
pub fn pair(queue_frames: usize) -> (Memory, Memory) {
    let (a, b) = (Arc::<Mutex<Wire>>::default(), Arc::<Mutex<Wire>>::default());
    (
        Memory { incoming: Arc::clone(&a), outgoing: Arc::clone(&b), queue_frames },
        Memory { incoming: b, outgoing: a, queue_frames },
    )
}

fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    // A test that panicked elsewhere leaves whole frames behind.
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// True while the other end holds the link up.
    #[must_use]
    pub fn link(&self) -> bool {
        !lock(&self.incoming).link_down
    }
}

impl Device for Memory {
    fn queues(&self) -> usize {
        1
    }

    fn poll_fd(&self, _queue: usize) -> Option<BorrowedFd<'_>> {
        None
    }

    fn receive(&self, _queue: usize, into: &mut Buffer) -> Result<Option<Received>, DeviceError> {
        let Some((frame, offload)) = lock(&self.incoming).frames.pop_front() else { return Ok(None) };
        let length = into.load(&frame).len();
        Ok(Some(Received { length, offload: Ok(offload) }))
    }

    fn send(&self, _queue: usize, pieces: &[IoSlice<'_>], offload: Offload) -> Result<(), DeviceError> {
        let mut wire = lock(&self.outgoing);
        if wire.link_down {
            return Err(DeviceError::Down);
        }
        if wire.frames.len() >= self.queue_frames {
            return Err(DeviceError::Full);
        }
        wire.frames.push_back((pieces.iter().flat_map(|piece| piece.iter().copied()).collect(), offload));
        Ok(())
    }

    fn queue_frames(&self) -> usize {
        self.queue_frames
    }

    fn discard(&self, _queue: usize) -> usize {
        lock(&self.incoming).frames.drain(..).len()
    }

    fn takes_udp_trains(&self) -> bool {
        true
    }

    fn set_link(&self, up: bool) -> io::Result<()> {
        lock(&self.outgoing).link_down = !up;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cross_in_order_and_a_full_queue_refuses() {
        let (a, b) = pair(2);
        let mut buffer = Buffer::new();
        a.send(0, &[IoSlice::new(b"one"), IoSlice::new(b"-1")], Offload::NONE).unwrap();
        a.send(0, &[IoSlice::new(b"two")], Offload::NONE).unwrap();
        assert_eq!(a.send(0, &[IoSlice::new(b"three")], Offload::NONE), Err(DeviceError::Full));
        let got = b.receive(0, &mut buffer).unwrap().unwrap();
        assert_eq!(buffer.packet(got.length, got.offload.unwrap()).frame(), b"one-1");
        assert_eq!((b.discard(0), a.discard(0)), (1, 0));
        assert_eq!(b.receive(0, &mut buffer), Ok(None));
    }

    #[test]
    fn a_dropped_link_is_seen_at_the_other_end() {
        let (a, b) = pair(1);
        a.set_link(false).unwrap();
        assert_eq!((a.link(), b.link()), (true, false));
        assert_eq!(a.send(0, &[IoSlice::new(b"x")], Offload::NONE), Err(DeviceError::Down));
        a.set_link(true).unwrap();
        assert!(b.link());
    }
}
