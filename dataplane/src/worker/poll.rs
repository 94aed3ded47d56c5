//! What a worker sleeps on: its devices' queues, its underlay sockets, and a wake-up call.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use crate::types::PortId;

/// What became readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// One queue of a port's device.
    Port { port: PortId, queue: u16 },
    /// One of the underlay's receive sockets.
    Underlay(u16),
    /// Somebody wants this worker to look at its snapshot, or to stop.
    Wake,
}

const KIND_PORT: u64 = 0;
const KIND_UNDERLAY: u64 = 1 << 62;
const KIND_WAKE: u64 = 2 << 62;
const KINDS: u64 = 3 << 62;

impl Source {
    fn pack(self) -> EventData {
        EventData::new_u64(match self {
            Self::Port { port, queue } => KIND_PORT | u64::from(port.0) << 16 | u64::from(queue),
            Self::Underlay(socket) => KIND_UNDERLAY | u64::from(socket),
            Self::Wake => KIND_WAKE,
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "undoes `pack`, field by field")]
    fn unpack(data: EventData) -> Self {
        let bits = data.u64();
        match bits & KINDS {
            KIND_PORT => Self::Port { port: PortId((bits >> 16) as u32), queue: bits as u16 },
            KIND_UNDERLAY => Self::Underlay(bits as u16),
            _ => Self::Wake,
        }
    }
}

/// Sources that one round looks at; the rest wait for the next round, so no source starves another.
const EVENTS: usize = 64;

pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(super) fn new(waker: &Waker) -> io::Result<Self> {
        let poller = Self { epoll: epoll::create(CreateFlags::CLOEXEC)? };
        poller.add(waker.0.as_fd(), Source::Wake)?;
        Ok(poller)
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, source: Source) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, source.pack(), EventFlags::IN)?)
    }

    pub(super) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// What is readable now; waits for it as long as `timeout` says (`None`: for ever).
    pub(super) fn wait(&self, timeout: Option<&Timespec>) -> ArrayVec<Source, EVENTS> {
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS];
        match epoll::wait(&self.epoll, &mut events[..], timeout) {
            Ok((ready, _)) => ready.iter().map(|event| Source::unpack(event.data)).collect(),
            // An interrupted wait found nothing; any other error would repeat for ever and is as good as nothing.
            Err(_) => ArrayVec::new(),
        }
    }
}

/// Wakes one thread that sleeps in epoll.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    pub(crate) fn wake(&self) {
        // Fails only when the counter is full, and then the worker is awake.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_kernel() {
        for source in [
            Source::Port { port: PortId(u32::MAX), queue: u16::MAX },
            Source::Port { port: PortId(0), queue: 0 },
            Source::Underlay(3),
            Source::Wake,
        ] {
            assert_eq!(Source::unpack(source.pack()), source);
        }
    }

    #[test]
    fn a_wake_up_call_is_heard_once() {
        let waker = Waker::new().unwrap();
        let poller = Poller::new(&waker).unwrap();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(poller.wait(Some(&now)).len(), 0);
        waker.wake();
        waker.wake();
        assert_eq!(poller.wait(None).as_slice(), [Source::Wake]);
        waker.clear();
        assert_eq!(poller.wait(Some(&now)).len(), 0);
    }
}
