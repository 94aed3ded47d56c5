//! The underlay that works everywhere: UDP sockets, trains out by `UDP_SEGMENT` and in by `UDP_GRO`.
//!
//! One receive socket per local address and worker (`SO_REUSEPORT`); [`SOURCE_PORTS`] send sockets per family, because
//! the source port is what routers spread load by (RFC 7348 §5). All are opened before the first packet: who opens may
//! be another process, and no packet waits for one. The outer checksum is always set: `UDP_SEGMENT` insists on it, and a
//! receiver's GRO wants it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;

use super::{Arrival, Counters, Outgoing, SendError, Underlay};
use crate::offload::checksum;
use crate::offload::segment::{Cut, MAX_HEADERS};
use crate::packet::Buffer;
use crate::port::open::{OpenError, Opener, UdpUse};
use crate::port::sys;
use crate::types::PhysicalIp;

/// Send sockets, and so source ports, per worker and address family.
pub const SOURCE_PORTS: usize = 32;
/// The range that RFC 7348 §5 names (RFC 6335's dynamic ports), of which each socket has a part.
const FIRST_SOURCE_PORT: u16 = 49_152;
const PORTS_PER_SOCKET: u16 = 512;

/// `UDP_MAX_SEGMENTS` of all kernels.
const TRAIN_DATAGRAMS: usize = 64;
/// The largest payload of UDP over IPv4.
const TRAIN_BYTES: usize = 65_507;
const TRAIN_PIECES: usize = 2 * TRAIN_DATAGRAMS;
/// Useless datagrams that one receive passes over. Anybody can send them, and as fast as they are read.
const PASSED_OVER: usize = 16;

/// What the underlay is to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This host's physical addresses; packets leave from the first of the destination's family.
    pub local: Vec<PhysicalIp>,
    /// The tunnel port: 4789 for VXLAN, 6081 for Geneve. Other hosts receive there too.
    pub port: u16,
}

/// Looks whether another switch (or a kernel tunnel) already receives at these addresses. To be called once, before
/// the workers open their sockets, which share the port among themselves and so would not notice.
///
/// # Errors
/// [`OpenError::AddressInUse`], [`OpenError::AddressAbsent`] or what else speaks against it.
pub fn probe(opener: &dyn Opener, config: &Config) -> Result<(), OpenError> {
    for local in &config.local {
        opener.open_udp((local.0, config.port).into(), UdpUse::Probe)?;
    }
    Ok(())
}

/// One worker's sockets.
pub struct Udp {
    port: u16,
    receivers: Vec<Receiver>,
    v4: Senders,
    v6: Senders,
    done: Vec<bool>,
    train: Train,
    trains_broken: bool,
    counters: Counters,
}

struct Receiver {
    socket: OwnedFd,
    lost: u32,
}

/// The send sockets of one family; empty where this host has no address of it.
struct Senders(ArrayVec<OwnedFd, SOURCE_PORTS>);

impl Senders {
    fn open(opener: &dyn Opener, local: Option<IpAddr>, worker: u16) -> Result<Self, OpenError> {
        let mut sockets = ArrayVec::new();
        for slot in 0..if local.is_some() { SOURCE_PORTS } else { 0 } {
            if let Some(local) = local {
                sockets.push(open_sender(opener, local, worker, slot)?);
            }
        }
        Ok(Self(sockets))
    }

    /// The socket for flows of this entropy.
    fn pick(&self, entropy: u16) -> Result<&OwnedFd, SendError> {
        self.0.get(usize::from(entropy) % SOURCE_PORTS).ok_or(SendError::Family)
    }
}

/// A socket at one of the ports of `slot`.
fn open_sender(opener: &dyn Opener, local: IpAddr, worker: u16, slot: usize) -> Result<OwnedFd, OpenError> {
    let first = FIRST_SOURCE_PORT + u16::try_from(slot).unwrap_or_default() * PORTS_PER_SOCKET;
    // Workers begin at different ports, so that they do not all try the same ones first.
    let mut step = 0;
    loop {
        let port = first + (worker.wrapping_mul(16).wrapping_add(step)) % PORTS_PER_SOCKET;
        step += 1;
        match opener.open_udp((local, port).into(), UdpUse::Send) {
            Err(OpenError::AddressInUse { .. }) if step < PORTS_PER_SOCKET => {}
            opened => return opened,
        }
    }
}

impl Udp {
    /// Opens the sockets of worker number `worker`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(opener: &dyn Opener, config: &Config, worker: u16) -> Result<Self, OpenError> {
        let receivers = config
            .local
            .iter()
            .map(|local| {
                let socket = opener.open_udp((local.0, config.port).into(), UdpUse::Receive)?;
                Ok(Receiver { socket, lost: 0 })
            })
            .collect::<Result<_, OpenError>>()?;
        let first = |v4: bool| config.local.iter().map(|local| local.0).find(|ip| ip.is_ipv4() == v4);
        Ok(Self {
            port: config.port,
            receivers,
            v4: Senders::open(opener, first(true), worker)?,
            v6: Senders::open(opener, first(false), worker)?,
            done: Vec::new(),
            train: Train::new(),
            trains_broken: false,
            counters: Counters::default(),
        })
    }

    /// Sends the train that was gathered, to where packet `first` goes, and empties it.
    fn depart(&mut self, batch: &mut [Outgoing<'_>], first: usize) {
        let Some(&Outgoing { to, entropy, traffic_class, .. }) = batch.get(first) else { return };
        let Self { v4, v6, train, counters, .. } = self;
        let whole = 0..train.pieces.len();
        let datagrams = train.ends.len();
        if datagrams == 0 {
            return;
        }
        let senders = if to.0.is_ipv4() { v4 } else { v6 };
        let to = SocketAddr::new(to.0, self.port);
        let segment_bytes = (datagrams > 1).then(|| u16::try_from(train.segment_bytes).unwrap_or(u16::MAX));
        let outcome = match senders.pick(entropy) {
            Err(error) => Err(error),
            Ok(_) if datagrams > 1 && self.trains_broken => Ok(None),
            Ok(socket) => match train.send(whole.clone(), batch, socket, to, segment_bytes, traffic_class) {
                Ok(()) => Ok(Some(())),
                // EIO: this link cannot compute checksums, so trains never work. EINVAL and EMSGSIZE: perhaps one
                // datagram of the train is too big for the link, and the others are not.
                Err(error) if datagrams > 1 => match error.raw_os_error() {
                    Some(code @ (libc::EIO | libc::EINVAL | libc::EMSGSIZE)) => {
                        self.trains_broken |= code == libc::EIO;
                        Ok(None)
                    }
                    _ => Err(refusal(&error)),
                },
                Err(error) => Err(refusal(&error)),
            },
        };
        match outcome {
            Ok(Some(())) => {
                counters.sends += 1;
                counters.sent_datagrams += datagrams as u64;
            }
            Ok(None) => {
                counters.broken_trains += 1;
                let mut start = 0;
                for &end in &train.ends {
                    let alone = senders.pick(entropy).and_then(|socket| {
                        train
                            .send(start..end, batch, socket, to, None, traffic_class)
                            .map_err(|error| refusal(&error))
                    });
                    match alone {
                        Ok(()) => {
                            counters.sends += 1;
                            counters.sent_datagrams += 1;
                        }
                        Err(error) => {
                            counters.refused_datagrams += 1;
                            train.refuse(start..end, batch, error);
                        }
                    }
                    start = end;
                }
            }
            Err(error) => {
                counters.refused_datagrams += datagrams as u64;
                train.refuse(whole, batch, error);
            }
        }
        train.clear();
    }

    /// Adds packet `index` to the train, sending what does not fit together.
    fn board(&mut self, batch: &mut [Outgoing<'_>], index: usize) {
        let Some(outgoing) = batch.get_mut(index) else { return };
        outgoing.result = Ok(());
        let tunnel_bytes = outgoing.tunnel_bytes;
        let Some(asked) = outgoing.offload.segmentation else {
            let frame = outgoing.packet.get_mut(tunnel_bytes..).unwrap_or_default();
            if checksum::complete(frame, outgoing.offload.checksum).is_err() {
                outgoing.result = Err(SendError::Offload);
                return;
            }
            let length = outgoing.packet.len();
            if length > TRAIN_BYTES {
                outgoing.result = Err(SendError::TooBig);
                return;
            }
            if !self.train.takes(length) {
                self.depart(batch, index);
            }
            self.train.push(length, None, index, 0..length);
            return;
        };
        let cut = match Cut::plan(outgoing.packet, tunnel_bytes, asked) {
            Ok(cut) => cut,
            Err(_) => {
                outgoing.result = Err(SendError::Offload);
                return;
            }
        };
        for nth in 0..cut.count() {
            let length = cut.segment_len(nth);
            if !self.train.takes(length) {
                self.depart(batch, index);
            }
            let Some(outgoing) = batch.get(index) else { return };
            let slot = self.train.ends.len();
            let payload =
                self.train.headers.get_mut(slot).and_then(|into| cut.write(outgoing.packet, nth, into));
            let Some(payload) = payload else { return };
            self.train.push(length, Some(cut.header_bytes()), index, payload);
        }
    }
}

fn refusal(error: &io::Error) -> SendError {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => SendError::Full,
        Some(libc::EMSGSIZE) => SendError::TooBig,
        _ => SendError::Refused,
    }
}

impl Underlay for Udp {
    fn sockets(&self) -> usize {
        self.receivers.len()
    }

    fn poll_fd(&self, socket: usize) -> Option<BorrowedFd<'_>> {
        self.receivers.get(socket).map(|receiver| receiver.socket.as_fd())
    }

    fn receive(&mut self, socket: usize, into: &mut Buffer) -> Option<Arrival> {
        let receiver = self.receivers.get_mut(socket)?;
        for _ in 0..PASSED_OVER {
            let got = match sys::receive_datagrams(receiver.socket.as_fd(), into.receive_area()) {
                Ok(got) => got?,
                Err(_) => {
                    self.counters.receive_errors += 1;
                    return None;
                }
            };
            self.counters.receives += 1;
            if let Some(lost) = got.lost {
                self.counters.lost_datagrams += u64::from(lost.wrapping_sub(receiver.lost));
                receiver.lost = lost;
            }
            match got.from {
                Some(from) if !got.truncated && got.bytes > 0 => {
                    return Some(Arrival {
                        from: PhysicalIp(from.ip()),
                        bytes: got.bytes,
                        segment_bytes: got.segment_bytes.unwrap_or(got.bytes),
                        traffic_class: got.traffic_class,
                    });
                }
                _ => self.counters.receive_errors += 1,
            }
        }
        // The socket is still readable: the next turn goes on.
        None
    }

    fn send(&mut self, batch: &mut [Outgoing<'_>]) {
        let key = |outgoing: &Outgoing<'_>| {
            (outgoing.to, usize::from(outgoing.entropy) % SOURCE_PORTS, outgoing.traffic_class)
        };
        self.done.clear();
        self.done.resize(batch.len(), false);
        for first in 0..batch.len() {
            if self.done.get(first).copied().unwrap_or(true) {
                continue;
            }
            let Some(wanted) = batch.get(first).map(key) else { break };
            for index in first..batch.len() {
                if batch.get(index).map(key) == Some(wanted) && self.done.get(index) == Some(&false) {
                    if let Some(done) = self.done.get_mut(index) {
                        *done = true;
                    }
                    self.board(batch, index);
                }
            }
            self.depart(batch, first);
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// Datagrams of one size (the last may be shorter) for one send, as pieces of the batch's packets and of the side
/// buffer that headers of cut super-packets are written to.
struct Train {
    pieces: ArrayVec<Piece, TRAIN_PIECES>,
    /// Behind which piece each datagram ends.
    ends: ArrayVec<usize, TRAIN_DATAGRAMS>,
    headers: Box<[[u8; MAX_HEADERS]]>,
    segment_bytes: usize,
    bytes: usize,
    /// A shorter datagram was the last.
    closed: bool,
}

#[derive(Clone)]
struct Piece {
    packet: usize,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Headers { slot: usize, bytes: usize },
    Packet(Range<usize>),
}

impl Train {
    fn new() -> Self {
        Self {
            pieces: ArrayVec::new(),
            ends: ArrayVec::new(),
            headers: vec![[0; MAX_HEADERS]; TRAIN_DATAGRAMS].into_boxed_slice(),
            segment_bytes: 0,
            bytes: 0,
            closed: false,
        }
    }

    fn takes(&self, length: usize) -> bool {
        self.ends.is_empty()
            || (!self.closed
                && length <= self.segment_bytes
                && self.bytes + length <= TRAIN_BYTES
                && !self.ends.is_full())
    }

    /// Adds a datagram that [`Train::takes`]: headers from the slot of its number, if it has some there, then `range`
    /// of packet `packet`.
    fn push(&mut self, length: usize, header_bytes: Option<usize>, packet: usize, range: Range<usize>) {
        if self.ends.is_empty() {
            self.segment_bytes = length;
        }
        self.closed = length < self.segment_bytes;
        self.bytes += length;
        if let Some(bytes) = header_bytes {
            self.pieces.push(Piece { packet, place: Place::Headers { slot: self.ends.len(), bytes } });
        }
        self.pieces.push(Piece { packet, place: Place::Packet(range) });
        self.ends.push(self.pieces.len());
    }

    /// Sends `pieces` as one datagram, or as a train of datagrams of `segment_bytes`.
    fn send(
        &self,
        pieces: Range<usize>,
        batch: &[Outgoing<'_>],
        socket: &OwnedFd,
        to: SocketAddr,
        segment_bytes: Option<u16>,
        traffic_class: u8,
    ) -> io::Result<()> {
        let gathered = self.gather(pieces, batch);
        sys::send_datagrams(socket.as_fd(), to, &gathered, segment_bytes, traffic_class)
    }

    fn gather<'a>(
        &'a self,
        pieces: Range<usize>,
        batch: &'a [Outgoing<'_>],
    ) -> ArrayVec<IoSlice<'a>, TRAIN_PIECES> {
        let bytes = |piece: &'a Piece| match &piece.place {
            Place::Headers { slot, bytes } => {
                self.headers.get(*slot).and_then(|headers| headers.get(..*bytes))
            }
            Place::Packet(range) => {
                batch.get(piece.packet).and_then(|outgoing| outgoing.packet.get(range.clone()))
            }
        };
        let pieces = self.pieces.get(pieces).unwrap_or_default();
        pieces.iter().map(|piece| IoSlice::new(bytes(piece).unwrap_or_default())).collect()
    }

    fn refuse(&self, pieces: Range<usize>, batch: &mut [Outgoing<'_>], error: SendError) {
        for piece in self.pieces.get(pieces).unwrap_or_default() {
            if let Some(outgoing) = batch.get_mut(piece.packet) {
                outgoing.result = Err(error);
            }
        }
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.ends.clear();
        self.bytes = 0;
        self.closed = false;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;
    use crate::port::open::Direct;

    #[test]
    fn a_flood_of_empty_datagrams_does_not_hold_the_worker() {
        let config = Config { local: vec![Ipv4Addr::LOCALHOST.into()], port: 0 };
        let mut underlay = Udp::open(&Direct, &config, 0).unwrap();
        let address = rustix::net::getsockname(underlay.poll_fd(0).unwrap()).unwrap();
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = SocketAddr::try_from(address).unwrap();
        for _ in 0..2 * PASSED_OVER {
            stranger.send_to(&[], to).unwrap();
        }
        stranger.send_to(b"a datagram", to).unwrap();
        let mut buffer = Buffer::new();
        let turns: Vec<_> =
            (0..3).map(|_| underlay.receive(0, &mut buffer).map(|arrival| arrival.bytes)).collect();
        assert_eq!(turns, [None, None, Some(10)]);
        assert_eq!(underlay.counters().receive_errors, 2 * PASSED_OVER as u64);
    }
}
