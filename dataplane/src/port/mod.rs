//! A port's device: where a guest's frames come from and go to.
//!
//! One file per kind behind the trait [`Device`]: [`memory`] for tests, `tap` and `netdev` behind the feature `io`. A device
//! moves frames and the offload state that goes with them; it knows nothing about networks. Descriptors are opened by an
//! [`open::Opener`], behind which a privileged process may stand. Never here: policy, parsing, threads of the packet path.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use crate::offload::virtio::HeaderError;
use crate::packet::{Buffer, Offload};

pub mod memory;
#[cfg(feature = "io")]
pub mod netdev;
#[cfg(feature = "io")]
pub mod open;
#[cfg(feature = "io")]
pub(crate) mod sys;
#[cfg(feature = "io")]
pub mod tap;

/// One frame read into a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes of frame in the buffer's receive area.
    pub length: usize,
    /// What its sender left undone; an error means that the frame is to be dropped as `offload_invalid`.
    pub offload: Result<Offload, HeaderError>,
}

/// Why a device did not take or give a frame. None is fatal for the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Its queue is full, or the kernel is out of memory: the frame is lost.
    #[error("the device's queue is full")]
    Full,
    /// The guest's side is administratively down.
    #[error("the interface is down")]
    Down,
    /// The interface was removed under us.
    #[error("the interface no longer exists")]
    Gone,
    /// The kernel found the frame or its offload request invalid.
    #[error("the kernel refused the frame")]
    Refused,
}

/// A port's device. All methods take `&self`: any thread may send, but each queue is received from by one thread only.
pub trait Device: Send + Sync {
    /// How many receive queues it has: at least one. Each is polled and read on its own.
    fn queues(&self) -> usize;

    /// The descriptor that becomes readable when frames wait in `queue`; `None` if there is none to poll.
    fn poll_fd(&self, queue: usize) -> Option<BorrowedFd<'_>>;

    /// True once the interface was found to exist no longer.
    fn is_gone(&self) -> bool {
        false
    }

    /// Reads one frame into `into`, without waiting. `None` when no frame waits.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn receive(&self, queue: usize, into: &mut Buffer) -> Result<Option<Received>, DeviceError>;

    /// Writes one frame, gathered from `pieces`, without waiting. `queue` is a hint and may be any number.
    ///
    /// # Errors
    /// [`DeviceError`]: the frame is then lost.
    fn send(&self, queue: usize, pieces: &[IoSlice<'_>], offload: Offload) -> Result<(), DeviceError>;

    /// How many frames a receive queue can hold at most.
    fn queue_frames(&self) -> usize;

    /// Throws away what waits in `queue` now (at most [`Device::queue_frames`] frames) and returns how many those were.
    fn discard(&self, queue: usize) -> usize;

    /// True when [`Device::send`] takes UDP super-packets; if not, they must be sent one by one.
    fn takes_udp_trains(&self) -> bool;

    /// Raises or drops the link that the guest sees.
    ///
    /// # Errors
    /// What the kernel says; `Unsupported` when the link is somebody else's.
    fn set_link(&self, up: bool) -> io::Result<()>;
}

/// A device that is an interface of this machine, opened through an [`open::Opener`].
#[cfg(feature = "io")]
pub trait Interface: Device {
    /// True if the interface was there before it was opened.
    fn existed(&self) -> bool;

    /// Makes the interface what `spec` says, through `opener`: that needs privilege.
    ///
    /// # Errors
    /// [`open::OpenError`].
    fn configure(&self, opener: &dyn open::Opener, spec: &open::TapSpec) -> Result<(), open::OpenError>;

    /// Says whether an interface that is ours outlives the switch. One that does not vanishes when the last descriptor
    /// closes: that is how a port is removed, and it is safe while workers still hold the device.
    ///
    /// # Errors
    /// What the kernel says.
    fn set_persistent(&self, persistent: bool) -> io::Result<()>;
}

/// Opens the interface that `spec` speaks of through `opener`.
///
/// # Errors
/// [`open::OpenError`].
#[cfg(feature = "io")]
pub fn open_interface(
    opener: &dyn open::Opener,
    spec: &open::TapSpec,
) -> Result<std::sync::Arc<dyn Interface>, open::OpenError> {
    Ok(match spec.kind {
        crate::desired::PortKind::Tap => std::sync::Arc::new(tap::Tap::open(opener, spec)?),
        crate::desired::PortKind::Netdev => std::sync::Arc::new(netdev::Netdev::open(opener, spec)?),
    })
}
