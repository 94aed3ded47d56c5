//! A TAP: the switch holds the descriptors, the guest has the interface.
//!
//! Every frame is read and written with a 12-byte vnet header in an iovec of its own, so super-packets pass whole.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::open::{OpenError, OpenTap, Opener, TapSpec};
use super::{Device, DeviceError, Interface, Received, sys};
use crate::desired::PortName;
use crate::offload::virtio;
use crate::packet::{Buffer, Offload};

/// Pieces of one frame that [`Tap::send`] can gather, the vnet header not counted. A coalesced super-packet has one
/// for its headers and one per segment.
pub const MAX_PIECES: usize = 127;

/// Bounds what a guest can make a worker throw away at one change of its network: some milliseconds.
const MOST_DISCARDED: usize = 1 << 16;

/// An open TAP. Closing it (dropping) leaves a persistent interface in place, without carrier.
#[derive(Debug)]
pub struct Tap {
    name: PortName,
    queues: Vec<OwnedFd>,
    control: OwnedFd,
    queue_frames: usize,
    udp_trains: bool,
    existed: bool,
    /// Somebody has removed the interface.
    gone: AtomicBool,
}

impl Tap {
    /// Opens it through `opener`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(opener: &dyn Opener, spec: &TapSpec) -> Result<Self, OpenError> {
        let OpenTap { queues, control, queue_frames, udp_trains, existed } = opener.open_tap(spec)?;
        Ok(Self {
            name: spec.name.clone(),
            queues,
            control,
            queue_frames,
            udp_trains,
            existed,
            gone: AtomicBool::new(false),
        })
    }

    /// The interface's name.
    #[must_use]
    pub const fn name(&self) -> &PortName {
        &self.name
    }

    fn queue(&self, queue: usize) -> Result<&OwnedFd, DeviceError> {
        self.queues.get(queue).ok_or(DeviceError::Gone)
    }
}

impl Interface for Tap {
    fn existed(&self) -> bool {
        self.existed
    }

    fn configure(&self, opener: &dyn Opener, spec: &TapSpec) -> Result<(), OpenError> {
        opener.configure_tap(self.control.as_fd(), spec)
    }

    fn set_persistent(&self, persistent: bool) -> io::Result<()> {
        self.queues.first().map_or(Ok(()), |queue| sys::tap_set_persistent(queue.as_fd(), persistent))
    }
}

fn refusal(error: Errno) -> DeviceError {
    match error {
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => DeviceError::Full,
        Errno::IO => DeviceError::Down,
        Errno::BADFD | Errno::BADF => DeviceError::Gone,
        _ => DeviceError::Refused,
    }
}

impl Device for Tap {
    fn queues(&self) -> usize {
        self.queues.len()
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    fn poll_fd(&self, queue: usize) -> Option<BorrowedFd<'_>> {
        self.queues.get(queue).map(AsFd::as_fd)
    }

    fn receive(&self, queue: usize, into: &mut Buffer) -> Result<Option<Received>, DeviceError> {
        let fd = self.queue(queue)?;
        let mut header = [0; virtio::LEN];
        let read = loop {
            let mut pieces = [IoSliceMut::new(&mut header), IoSliceMut::new(into.receive_area())];
            match rustix::io::readv(fd, &mut pieces) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                other => {
                    break other.map_err(refusal).inspect_err(|error| {
                        if matches!(error, DeviceError::Gone) {
                            self.gone.store(true, Ordering::Relaxed);
                        }
                    })?;
                }
            }
        };
        let length = read.saturating_sub(virtio::LEN);
        let frame = into.receive_area().get(..length).ok_or(DeviceError::Refused)?;
        Ok(Some(Received { length, offload: virtio::decode(&header, frame) }))
    }

    fn send(&self, queue: usize, pieces: &[IoSlice<'_>], offload: Offload) -> Result<(), DeviceError> {
        let fd = self.queue(queue % self.queues.len().max(1))?;
        let header = virtio::encode(offload);
        let mut gathered = arrayvec::ArrayVec::<IoSlice<'_>, { MAX_PIECES + 1 }>::new();
        gathered.push(IoSlice::new(&header));
        gathered.try_extend_from_slice(pieces).map_err(|_| DeviceError::Refused)?;
        loop {
            match rustix::io::writev(fd, &gathered) {
                Err(Errno::INTR) => {}
                result => return result.map(|_| ()).map_err(refusal),
            }
        }
    }

    fn queue_frames(&self) -> usize {
        self.queue_frames
    }

    fn discard(&self, queue: usize) -> usize {
        let Ok(fd) = self.queue(queue) else { return 0 };
        // A read of the header alone takes the frame off the queue and throws the rest away.
        let mut header = [0; virtio::LEN];
        let mut discarded = 0;
        // A guest that rules its interface may have made the queue longer since it was opened.
        let frames =
            sys::interface_queue_frames(self.control.as_fd(), self.name.as_str()).unwrap_or(MOST_DISCARDED);
        while discarded < frames.min(MOST_DISCARDED) {
            match rustix::io::read(fd, &mut header) {
                Ok(_) => discarded += 1,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        discarded
    }

    fn takes_udp_trains(&self) -> bool {
        self.udp_trains
    }

    fn set_link(&self, up: bool) -> io::Result<()> {
        self.queues.first().map_or(Ok(()), |queue| sys::tap_set_carrier(queue.as_fd(), up))
    }
}
