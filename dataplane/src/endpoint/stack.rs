//! One port's TCP: an interface with the two link-local addresses, and a socket for each connection.
//!
//! A socket is made when its guest knocks and the agent has answered, so there are never sockets that wait in vain, and a
//! guest that knocks where nobody is gets a reset at once. One socket takes one connection.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use rustix::event::epoll::EventFlags;
use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::connection::{self, Connection, Opened};
use super::link::{Link, Outlet};
use super::preamble::Preamble;
use crate::tables::{METADATA, Port, WIRESERVER};
use crate::types::{Mtu, Nanos};
use crate::wire::ethernet;
use crate::wire::flow::{Headers, Transport};
use crate::wire::tcp::Flags;
use crate::worker::Plane;

/// Connections of one port.
const MOST: usize = 16;
/// Of the connections that are left for all, a port may have one in so many.
const SHARE: usize = 8;
/// Rounds of sending that one turn makes before others get theirs.
const ROUNDS: usize = 64;
/// Nothing to wait for.
const NEVER: Nanos = Nanos(u64::MAX);

/// How many connections a port may have while there is room for so many more: whoever floods leaves some for others.
pub(super) fn share(room: usize) -> usize {
    (room / SHARE).min(MOST)
}

/// The MTU of a port's network.
pub(super) fn mtu(port: &Port, plane: &Plane) -> Mtu {
    plane.tables.vnet(port.vnet).map_or(Mtu::MIN, |vnet| vnet.mtu)
}

/// A guest's segment: as much of it as has to be known here.
pub(super) struct Heard<'a> {
    ip: &'a [u8],
    peer: SocketAddrV4,
    address: SocketAddrV4,
    /// Begins a connection.
    pub(super) is_syn: bool,
}

impl<'a> Heard<'a> {
    /// `None` for what the pipeline does not let through.
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let headers = Headers::parse(frame).ok()?;
        let (IpAddr::V4(source), IpAddr::V4(target)) = headers.addresses()? else { return None };
        let Transport::Tcp { source: from, destination: to, flags } = headers.transport else { return None };
        Some(Self {
            ip: frame.get(ethernet::HEADER_BYTES..headers.end as usize)?,
            peer: SocketAddrV4::new(source, from),
            address: SocketAddrV4::new(target, to),
            is_syn: flags.contains(Flags::SYN) && !flags.intersects(Flags(0x14)),
        })
    }
}

fn interface(mtu: usize, seed: u64, now: Nanos) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut Link::shape(mtu), instant(now));
    interface.update_ip_addrs(|addresses| {
        for address in [METADATA, WIRESERVER] {
            // There is room for two.
            let _ = addresses.push(IpCidr::new(address.into(), 32));
        }
    });
    // Whoever has asked is out there, whatever its address.
    let _ = interface.routes_mut().add_default_ipv4_route(METADATA);
    interface
}

fn instant(now: Nanos) -> Instant {
    Instant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}

/// Tells guests that there is no such connection.
pub(super) struct Refuser {
    interface: Interface,
    none: SocketSet<'static>,
}

impl Refuser {
    pub(super) fn new() -> Self {
        let mtu = usize::from(Mtu::MIN.bytes());
        Self { interface: interface(mtu, 0, Nanos(0)), none: SocketSet::new(Vec::new()) }
    }

    /// Answers a segment with a reset, unless it is one.
    pub(super) fn refuse(&mut self, heard: &Heard<'_>, outlet: Outlet<'_>, now: Nanos) {
        let mut link = Link::new(Some(heard.ip), outlet, usize::from(Mtu::MIN.bytes()));
        let _ = self.interface.poll_ingress_single(instant(now), &mut link, &mut self.none);
    }
}

/// A port's connections.
pub(super) struct Stack {
    port: Arc<Port>,
    mtu: Mtu,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    /// When it has something to do though nobody speaks.
    due: Nanos,
    /// It has something to do in this round.
    is_marked: bool,
}

impl Stack {
    pub(super) fn new(port: &Arc<Port>, mtu: Mtu, seed: u64, now: Nanos) -> Self {
        Self {
            port: port.clone(),
            mtu,
            interface: interface(usize::from(mtu.bytes()), seed, now),
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            due: NEVER,
            is_marked: false,
        }
    }

    /// How many connections there are.
    pub(super) const fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) const fn due(&self) -> Nanos {
        self.due
    }

    /// Notes that it has something to do; false when that was known.
    pub(super) const fn mark(&mut self) -> bool {
        !std::mem::replace(&mut self.is_marked, true)
    }

    /// True when the segment is of one of the connections.
    pub(super) fn knows(&self, heard: &Heard<'_>) -> bool {
        self.connections.iter().any(|known| known.peer == heard.peer && known.address == heard.address)
    }

    /// Takes the port's new form; false when that is bound or labelled otherwise, and the connections have to end.
    pub(super) fn follow(&mut self, port: &Arc<Port>, mtu: Mtu) -> bool {
        let (was, is) = (&self.port, port);
        let same = was.config.name == is.config.name
            && was.epoch == is.epoch
            && was.config.label == is.config.label
            && self.mtu == mtu;
        if same {
            self.port = port.clone();
        }
        same
    }

    /// True when this guest is where it was: the network may see what is said to it.
    pub(super) fn is_of_network(&self, port: &Port) -> bool {
        let was = &self.port;
        was.config.name == port.config.name && was.vni == port.vni && was.mac == port.mac
    }

    /// What a stream says; false when it is none of this stack's any more.
    pub(super) fn hear(&mut self, number: u32, flags: EventFlags) -> bool {
        let connection = self.connections.iter_mut().find(|known| known.number == number);
        connection.map(|connection| connection.hear(flags)).is_some()
    }

    /// Takes a guest's segment, which begins a connection if there is a stream for it.
    pub(super) fn receive(
        &mut self,
        heard: &Heard<'_>,
        opened: Option<Opened>,
        outlet: Outlet<'_>,
        now: Nanos,
    ) {
        if let Some(opened) = opened
            && let Some(socket) = connection::listener(heard.address)
        {
            let handle = self.sockets.add(socket);
            let ends = (heard.peer, heard.address);
            let preamble = Preamble::of(&self.port, heard.peer, heard.address).line();
            self.connections.push(Connection::new(opened, handle, ends, preamble, now));
        }
        let mut link = Link::new(Some(heard.ip), outlet, usize::from(self.mtu.bytes()));
        let _ = self.interface.poll_ingress_single(instant(now), &mut link, &mut self.sockets);
    }

    /// Moves what can be moved, sends what is to be sent, and forgets what is over.
    pub(super) fn work(&mut self, outlet: Outlet<'_>, now: Nanos) {
        self.is_marked = false;
        for connection in &mut self.connections {
            connection.pump(self.sockets.get_mut::<tcp::Socket<'_>>(connection.handle), now);
        }
        self.send(outlet, now);
        let sockets = &mut self.sockets;
        self.connections.retain(|connection| {
            let is_over = connection.is_over(sockets.get(connection.handle));
            if is_over {
                sockets.remove(connection.handle);
            }
            !is_over
        });
        let wakes = self.interface.poll_at(instant(now), &self.sockets);
        let wakes = wakes.map_or(NEVER, |at| Nanos(u64::try_from(at.total_micros()).unwrap_or(0) * 1000));
        let deadlines = self.connections.iter().map(|connection| {
            connection.deadline(self.sockets.get::<tcp::Socket<'_>>(connection.handle).state())
        });
        self.due = deadlines.fold(wakes, Nanos::min);
    }

    /// Ends every connection; the guest is told.
    pub(super) fn reset(&mut self, outlet: Outlet<'_>, now: Nanos) {
        for connection in &self.connections {
            self.sockets.get_mut::<tcp::Socket<'_>>(connection.handle).abort();
        }
        self.send(outlet, now);
    }

    fn send(&mut self, outlet: Outlet<'_>, now: Nanos) {
        let mut link = Link::new(None, outlet, usize::from(self.mtu.bytes()));
        for _ in 0..ROUNDS {
            if self.interface.poll_egress(instant(now), &mut link, &mut self.sockets) == PollResult::None {
                break;
            }
        }
    }
}
