//! One connection: a guest's TCP on one side, the host agent's stream on the other, and nothing in between but the buffers of
//! both. What one side does not take stays with the other, so each feels the other's pace.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};

use crate::types::Nanos;
use crate::worker::WINDOW_BYTES;

/// What the agent may be ahead of the guest's acknowledgements.
const SEND_BYTES: usize = 16 << 10;
/// What the kernel holds for the agent, per connection, before the guest feels that it does not read.
const AGENT_BYTES: usize = 16 << 10;
/// From a guest's first segment to the third one of the handshake.
const HANDSHAKE: u64 = 5_000_000_000;
/// Without a byte in either direction. The agent holds a question back for 30 s at most.
const IDLE: u64 = 60_000_000_000;
/// From the first segment to the end, whatever happens.
const LIFE: u64 = 600_000_000_000;

/// A stream to the agent, for a connection that is about to begin.
pub(super) struct Opened {
    pub(super) stream: OwnedFd,
    /// Tells its events from others' of the same port.
    pub(super) number: u32,
}

/// Connects to the agent, without waiting.
pub(super) fn dial(agent: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::sockopt::set_socket_send_buffer_size(&stream, AGENT_BYTES)?;
    net::connect(&stream, &SocketAddrUnix::new(agent)?)?;
    Ok(stream)
}

/// A socket that waits for one guest's first segment.
pub(super) fn listener(address: SocketAddrV4) -> Option<tcp::Socket<'static>> {
    let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
    let mut socket = tcp::Socket::new(buffer(WINDOW_BYTES), buffer(SEND_BYTES));
    // Nothing is gained by waiting for more: the other end is on this machine. No timeout: the stack's own would also end
    // connections that are merely silent, and what a guest does not acknowledge ends by its idleness.
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.listen((*address.ip(), address.port())).ok()?;
    Some(socket)
}

/// A guest's connection and the agent's stream for it.
pub(super) struct Connection {
    pub(super) handle: SocketHandle,
    pub(super) peer: SocketAddrV4,
    pub(super) address: SocketAddrV4,
    pub(super) number: u32,
    stream: OwnedFd,
    /// What is still to be written before the guest's first byte.
    preamble: Vec<u8>,
    /// The stream may have something to read, or room: true until it says otherwise.
    is_readable: bool,
    is_writable: bool,
    /// The agent will say no more.
    is_ended: bool,
    /// The agent hears no more: what the guest still says is thrown away.
    is_deaf: bool,
    /// The agent knows that the guest will say no more.
    is_told: bool,
    /// It was given up: too old, too idle, or left by the agent.
    is_lost: bool,
    begun: Nanos,
    moved: Nanos,
}

impl Connection {
    pub(super) fn new(
        opened: Opened,
        handle: SocketHandle,
        (peer, address): (SocketAddrV4, SocketAddrV4),
        preamble: Vec<u8>,
        now: Nanos,
    ) -> Self {
        let Opened { stream, number } = opened;
        Self {
            handle,
            peer,
            address,
            number,
            stream,
            preamble,
            is_readable: true,
            is_writable: true,
            is_ended: false,
            is_deaf: false,
            is_told: false,
            is_lost: false,
            begun: now,
            moved: now,
        }
    }

    /// What the stream says.
    pub(super) fn hear(&mut self, flags: EventFlags) {
        let (closed, failed) = (EventFlags::HUP | EventFlags::RDHUP, EventFlags::ERR);
        self.is_readable |= flags.intersects(EventFlags::IN | closed | failed);
        self.is_writable |= flags.intersects(EventFlags::OUT | closed | failed);
    }

    /// Moves what can be moved, in both directions.
    pub(super) fn pump(&mut self, socket: &mut tcp::Socket<'_>, now: Nanos) {
        if self.deadline(socket.state()) <= now {
            self.is_lost = true;
            socket.abort();
            return;
        }
        if !matches!(socket.state(), State::Listen | State::SynReceived) {
            self.forward(socket, now);
        }
        self.bring(socket, now);
    }

    /// Guest to agent.
    fn forward(&mut self, socket: &mut tcp::Socket<'_>, now: Nanos) {
        while self.is_writable && !self.is_deaf && !self.preamble.is_empty() {
            let written = write(&self.stream, &self.preamble);
            let count = self.account(written);
            self.preamble.drain(..count);
        }
        while self.is_writable && !self.is_deaf && self.preamble.is_empty() && socket.recv_queue() > 0 {
            let taken = socket.recv(|bytes| {
                let count = self.account(write(&self.stream, bytes));
                (count, count)
            });
            if taken.is_ok_and(|count| count > 0) {
                self.moved = now;
            }
        }
        if self.is_deaf {
            while socket.recv_queue() > 0 && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
        }
        if !self.is_told && self.preamble.is_empty() && !socket.may_recv() {
            self.is_told = true;
            let _ = net::shutdown(&self.stream, Shutdown::Write);
        }
    }

    /// What an attempt to write came to, in bytes.
    fn account(&mut self, written: Result<usize, Errno>) -> usize {
        match written {
            Ok(count) => return count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => self.is_writable = false,
            Err(_) => self.is_deaf = true,
        }
        0
    }

    /// Agent to guest.
    fn bring(&mut self, socket: &mut tcp::Socket<'_>, now: Nanos) {
        while self.is_readable && !self.is_ended && socket.can_send() {
            let mut outcome = Ok(0);
            let sent = socket.send(|room| {
                outcome = rustix::io::read(&self.stream, room);
                (outcome.unwrap_or(0), ())
            });
            match outcome {
                _ if sent.is_err() => return,
                Ok(0) => {
                    self.is_ended = true;
                    socket.close();
                }
                Ok(_) => self.moved = now,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.is_readable = false,
                // It has gone without hearing all: so shall the guest find.
                Err(_) => {
                    self.is_lost = true;
                    socket.abort();
                    return;
                }
            }
        }
    }

    /// When it has to end if nothing happens.
    pub(super) fn deadline(&self, state: State) -> Nanos {
        let whole = self.begun.0.saturating_add(LIFE);
        Nanos(match state {
            State::Listen | State::SynReceived => self.begun.0.saturating_add(HANDSHAKE),
            _ => self.moved.0.saturating_add(IDLE).min(whole),
        })
    }

    /// True when nothing is left to be done for either side. The guest's last acknowledgement is not waited for any longer:
    /// should it be lost, the guest is told that there is no such connection, which it had ended anyway.
    pub(super) fn is_over(&self, socket: &tcp::Socket<'_>) -> bool {
        match socket.state() {
            // A first segment that was none.
            State::Listen => true,
            // The agent may still hear what the guest had said before it ended in good order.
            State::Closed | State::TimeWait if self.is_ended && !self.is_lost && !self.is_deaf => {
                socket.recv_queue() == 0
            }
            State::Closed | State::TimeWait => true,
            _ => false,
        }
    }
}

fn write(stream: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    net::send(stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}
