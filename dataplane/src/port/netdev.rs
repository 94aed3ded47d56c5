//! Somebody else's interface: a hypervisor holds it (the TAP of a virtual machine, say), the switch attaches to it.
//!
//! A packet socket with a vnet header in front of each frame, so super-packets pass whole. What the guest sends is what the
//! interface *receives*; what the switch sends goes out by the interface, to whoever holds it, and is not read back. The
//! machine's own IP stack sees the guest's frames too: the interface has to stand in a namespace without addresses, IPv6
//! and ARP. The link that the guest sees is its hypervisor's.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::open::{OpenError, OpenTap, Opener, TapSpec};
use super::sys::{self, PACKET_HEADER};
use super::tap::MAX_PIECES;
use super::{Device, DeviceError, Interface, Received};
use crate::offload::virtio;
use crate::packet::{Buffer, Offload};

/// Source and destination address, behind which a VLAN tag stands.
const ADDRESSES: usize = 12;
const TAG: usize = 4;

/// An interface that is attached to.
#[derive(Debug)]
pub struct Netdev {
    socket: OwnedFd,
    control: OwnedFd,
    queue_frames: usize,
    /// Somebody has removed the interface.
    gone: AtomicBool,
}

impl Netdev {
    /// Attaches to it through `opener`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(opener: &dyn Opener, spec: &TapSpec) -> Result<Self, OpenError> {
        let OpenTap { queues, control, queue_frames, .. } = opener.open_tap(spec)?;
        let socket = queues.into_iter().next().ok_or_else(|| OpenError::Told {
            what: format!("interface `{}` came without a descriptor", spec.name),
            remedy: "report this as a fault of the switch".into(),
        })?;
        Ok(Self { socket, control, queue_frames, gone: AtomicBool::new(false) })
    }

    fn refusal(&self, error: Errno) -> DeviceError {
        match error {
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => DeviceError::Full,
            // Also told once of an interface that was removed.
            Errno::NETDOWN if sys::packet_name(self.socket.as_fd()).is_some() => DeviceError::Down,
            Errno::NETDOWN | Errno::NXIO | Errno::NODEV | Errno::BADF => {
                self.gone.store(true, Ordering::Relaxed);
                DeviceError::Gone
            }
            _ => DeviceError::Refused,
        }
    }
}

impl Interface for Netdev {
    fn existed(&self) -> bool {
        true
    }

    fn configure(&self, opener: &dyn Opener, spec: &TapSpec) -> Result<(), OpenError> {
        opener.configure_tap(self.control.as_fd(), spec)
    }

    fn set_persistent(&self, _persistent: bool) -> io::Result<()> {
        // Its maker knows how long it is needed.
        Ok(())
    }
}

impl Device for Netdev {
    fn queues(&self) -> usize {
        1
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    fn poll_fd(&self, queue: usize) -> Option<BorrowedFd<'_>> {
        (queue == 0).then(|| self.socket.as_fd())
    }

    fn receive(&self, _queue: usize, into: &mut Buffer) -> Result<Option<Received>, DeviceError> {
        let mut short = [0; PACKET_HEADER];
        let received = sys::receive_packet(self.socket.as_fd(), &mut short, into.receive_area());
        let Some(frame) =
            received.map_err(|error| self.refusal(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?
        else {
            return Ok(None);
        };
        let length = frame.bytes.saturating_sub(PACKET_HEADER);
        if frame.truncated {
            return Err(DeviceError::Refused);
        }
        if let Some(tag) = frame.tag {
            return put_back(tag, length, into).map(Some);
        }
        let bytes = into.receive_area().get(..length).ok_or(DeviceError::Refused)?;
        Ok(Some(Received { length, offload: virtio::decode(&longer(short), bytes) }))
    }

    fn send(&self, _queue: usize, pieces: &[IoSlice<'_>], offload: Offload) -> Result<(), DeviceError> {
        let header = virtio::encode(offload);
        let mut gathered = arrayvec::ArrayVec::<IoSlice<'_>, { MAX_PIECES + 1 }>::new();
        // The longer form adds a count of buffers that is always zero here.
        gathered.push(IoSlice::new(header.first_chunk::<PACKET_HEADER>().ok_or(DeviceError::Refused)?));
        gathered.try_extend_from_slice(pieces).map_err(|_| DeviceError::Refused)?;
        loop {
            match rustix::io::writev(&self.socket, &gathered) {
                Err(Errno::INTR) => {}
                result => return result.map(|_| ()).map_err(|error| self.refusal(error)),
            }
        }
    }

    fn queue_frames(&self) -> usize {
        self.queue_frames
    }

    fn discard(&self, _queue: usize) -> usize {
        let mut header = [0; PACKET_HEADER];
        let mut discarded = 0;
        while discarded < self.queue_frames {
            match sys::receive_packet(self.socket.as_fd(), &mut header, &mut []) {
                Ok(Some(_)) => discarded += 1,
                Ok(None) | Err(_) => break,
            }
        }
        discarded
    }

    fn takes_udp_trains(&self) -> bool {
        false
    }

    fn set_link(&self, _up: bool) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the link is that of its hypervisor"))
    }
}

/// The header in the form that everything else here reads.
fn longer(short: [u8; PACKET_HEADER]) -> [u8; virtio::LEN] {
    let mut long = [0; virtio::LEN];
    for (to, from) in long.iter_mut().zip(short) {
        *to = from;
    }
    long
}

/// The kernel takes a VLAN tag off a frame before it hands it out. It goes back to its place, so that the frame is judged
/// as what the guest sent: one without a tag would pass.
fn put_back((protocol, tag): (u16, u16), length: usize, into: &mut Buffer) -> Result<Received, DeviceError> {
    let area = into.receive_area();
    if length < ADDRESSES || length + TAG > area.len() {
        return Err(DeviceError::Refused);
    }
    area.copy_within(ADDRESSES..length, ADDRESSES + TAG);
    let [p0, p1] = protocol.to_be_bytes();
    let [t0, t1] = tag.to_be_bytes();
    area.get_mut(ADDRESSES..ADDRESSES + TAG).ok_or(DeviceError::Refused)?.copy_from_slice(&[p0, p1, t0, t1]);
    // Whatever was left undone, nobody will do it.
    Ok(Received { length: length + TAG, offload: Ok(Offload::NONE) })
}
