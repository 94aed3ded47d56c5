//! A connection between switch and keeper: packets with descriptors. Never here: what they mean.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::protocol::{MESSAGE_BYTES, MESSAGE_DESCRIPTORS};
use crate::port::sys;

/// The socket's name inside of `state_dir`.
pub(super) const SOCKET_NAME: &str = "keeper.sock";
/// Connections that wait for the keeper; one switch and a curious person are what is expected.
const BACKLOG: i32 = 16;

/// A connected socket.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// A received packet.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// None for a process that this PID namespace does not see.
    pub(super) process: Option<u32>,
    pub(super) uid: u32,
}

/// A path of `dir` that fits into a socket's address whatever the length of `dir`, valid as long as the descriptor is.
fn short_path(dir: &Path, name: &str) -> io::Result<(OwnedFd, PathBuf)> {
    use std::os::fd::AsRawFd;
    let at = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", at.as_raw_fd()));
    Ok((at, path))
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Listens at the socket of `dir`, replacing one that a dead keeper left. It has its name when it listens and can be
/// used by its owner only.
pub(super) fn listen(dir: &Path) -> io::Result<OwnedFd> {
    let fresh = format!(".{SOCKET_NAME}.new");
    match std::fs::remove_file(dir.join(&fresh)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = socket(SocketFlags::NONBLOCK)?;
    let (_at, path) = short_path(dir, &fresh)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
    let named = std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .and_then(|()| Ok(rustix::net::listen(&listener, BACKLOG)?))
        .and_then(|()| std::fs::rename(dir.join(&fresh), dir.join(SOCKET_NAME)));
    if named.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(dir.join(&fresh));
    }
    named.map(|()| listener)
}

/// Waits for at most `timeout` until one of `sockets` is readable or closed; says which are.
pub(super) fn wait(sockets: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> =
        sockets.iter().map(|socket| PollFd::from_borrowed_fd(*socket, PollFlags::IN)).collect();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(polled.iter().map(|polled| !polled.revents().is_empty()).collect()),
        Err(error) => Err(error.into()),
    }
}

impl Channel {
    /// Connects to the keeper of `dir`. Receiving gives up after `patience`.
    pub(super) fn connect(dir: &Path, patience: Duration) -> io::Result<Self> {
        let (_at, path) = short_path(dir, SOCKET_NAME)?;
        let connecting = socket(SocketFlags::empty())?;
        sockopt::set_socket_timeout(&connecting, sockopt::Timeout::Send, Some(patience))?;
        sockopt::set_socket_timeout(&connecting, sockopt::Timeout::Recv, Some(patience))?;
        rustix::net::connect(&connecting, &SocketAddrUnix::new(&path)?)?;
        let connected = Self(connecting);
        // What a keeper gives is read and written as if the kernel had given it.
        if connected.peer()?.uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
        }
        Ok(connected)
    }

    /// The next connection at `listener`, whose calls never wait; `None` when nobody is there.
    pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(accepted) => Ok(Some(Self(accepted))),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Two ends, for tests.
    #[cfg(test)]
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(a), Self(b)))
    }

    pub(super) fn peer(&self) -> io::Result<Peer> {
        let (process, uid) = sys::socket_peer(self.0.as_fd())?;
        Ok(Peer { process, uid })
    }

    /// True when the other end is closed.
    pub(super) fn is_closed(&self) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// A second descriptor of it, to wait for its end with [`wait_closed`].
    pub(super) fn watch(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Sends one packet.
    pub(super) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
        }
        loop {
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives one packet; `None` when the other end is closed. A packet that is longer than any message, or comes
    /// with more descriptors, is an error, and its descriptors are closed.
    pub(super) fn receive(&self) -> io::Result<Option<Packet>> {
        let mut bytes = vec![0; MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut pieces = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        bytes.truncate(received.bytes);
        Ok(Some(Packet { bytes, descriptors }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for at most `timeout` for the other end to be closed; true if it is.
pub(super) fn wait_closed(socket: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    rustix::event::poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_travel_and_the_end_is_seen() {
        let (a, b) = Channel::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        a.send(b"take this", &[writer.as_fd()]).unwrap();
        drop(writer);
        let packet = b.receive().unwrap().unwrap();
        assert_eq!((packet.bytes.as_slice(), packet.descriptors.len()), (&b"take this"[..], 1));
        rustix::io::write(&packet.descriptors[0], b"hello").unwrap();
        drop(packet);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "hello");
        assert!(!b.is_closed());
        drop(a);
        assert!(b.is_closed());
        assert!(b.receive().unwrap().is_none());
    }

    #[test]
    fn more_descriptors_than_any_message_has_are_refused_and_closed() {
        let (a, b) = Channel::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let many = vec![writer.as_fd(); MESSAGE_DESCRIPTORS + 3];
        assert!(a.send(b"x", &many).is_err(), "our own side does not even try");
        // A hostile one does.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS + 3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        rustix::net::sendmsg(&a.0, &[IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(b.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(writer);
        // End of file at once: nobody holds the other end any more.
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
        a.send(&vec![b'x'; MESSAGE_BYTES + 1], &[]).unwrap();
        assert_eq!(b.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        a.send(b"still here", &[]).unwrap();
        assert_eq!(b.receive().unwrap().unwrap().bytes, b"still here");
    }

    #[test]
    fn the_kernel_says_who_is_there() {
        let (a, _b) = Channel::pair().unwrap();
        let own = rustix::process::getuid().as_raw();
        assert_eq!(a.peer().unwrap(), Peer { process: Some(std::process::id()), uid: own });
    }
}
