//! Devices that are half of a pair of sockets: a whole switch without any privilege.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use dataplane::port::open::{OpenError, OpenTap, Opener, TapSpec, UdpUse};

/// A port of this name cannot have a device.
pub(super) const WITHOUT_DEVICE: &str = "no-device";

pub(super) struct Pairs;

impl Opener for Pairs {
    fn open_tap(&self, spec: &TapSpec) -> Result<OpenTap, OpenError> {
        if spec.name.as_str() == WITHOUT_DEVICE {
            return Err(OpenError::NoTun { interface: spec.name.clone() });
        }
        let queues = (0..spec.queues.max(1)).map(|_| {
            let queue = UnixDatagram::unbound().expect("a socket can be made");
            queue.set_nonblocking(true).expect("a socket can be made non-blocking");
            OwnedFd::from(queue)
        });
        let control = UnixDatagram::unbound().expect("a socket can be made").into();
        Ok(OpenTap { queues: queues.collect(), control, queue_frames: 8, udp_trains: true, existed: false })
    }

    fn open_udp(&self, _address: SocketAddr, _purpose: UdpUse) -> Result<OwnedFd, OpenError> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket can be bound");
        socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        Ok(socket.into())
    }
}
