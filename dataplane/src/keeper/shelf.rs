//! What a keeper keeps, and how it answers what it is asked. No sockets, no processes: requests in, answers out.
//!
//! Whoever asks may be a switch that was taken over: it gets what a switch can have to ask for and no more, and cannot
//! make the shelf grow beyond its bounds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::protocol::{Answer, Ask, Reason, TapName};
use crate::desired::PortKind;
use crate::port::open::{OpenError, OpenTap, Opener, TapSpec, UdpUse, namespace_path};
use crate::port::sys;

/// A port each, more than a host has; 64 workers with 16 receive sockets and twice 32 send sockets, and then some.
const MOST: Most = Most { taps: 16_384, sockets: 8192 };

/// How much is kept at most.
struct Most {
    taps: usize,
    sockets: usize,
}

/// The descriptors, and who may open new ones.
pub(super) struct Shelf<O> {
    opener: O,
    taps: HashMap<TapName, KeptTap>,
    sockets: Vec<KeptSocket>,
    most: Most,
}

struct KeptTap {
    open: OpenTap,
    binding: Option<u64>,
    /// The one that its spec names, when it was opened: a name may come to mean another one. None: the keeper's own.
    namespace: Option<(u64, u64)>,
    /// To the switch that is served now.
    given: bool,
}

struct KeptSocket {
    address: SocketAddr,
    purpose: UdpUse,
    socket: OwnedFd,
    given: bool,
}

/// An answer and the descriptors that go with it.
type Reply = (Answer, Vec<OwnedFd>);

impl<O: Opener> Shelf<O> {
    pub(super) fn new(opener: O) -> Self {
        Self { opener, taps: HashMap::new(), sockets: Vec::new(), most: MOST }
    }

    pub(super) fn taps(&self) -> usize {
        self.taps.len()
    }

    pub(super) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// The switch that was served has gone: the next one may have everything.
    pub(super) fn returned(&mut self) {
        self.taps.values_mut().for_each(|tap| tap.given = false);
        self.sockets.iter_mut().for_each(|socket| socket.given = false);
    }

    /// Answers a request that was checked.
    pub(super) fn answer(&mut self, ask: Ask, descriptors: Vec<OwnedFd>) -> Reply {
        match ask {
            Ask::Tap { spec } => self.tap(&spec),
            Ask::Udp { address, purpose } => self.udp(address, purpose),
            Ask::Configure { spec } => match self.taps.get(&TapName::of(&spec)) {
                // Its name may be another interface's by now.
                Some(tap) if !tap.is_named(&spec) => unknown(&spec),
                Some(tap) => match self.opener.configure_tap(tap.open.control.as_fd(), &spec) {
                    Ok(()) => done(),
                    Err(error) => refused(&error),
                },
                None => unknown(&spec),
            },
            Ask::Mark { tap, binding } => {
                if let Some(tap) = self.taps.get_mut(&tap) {
                    tap.binding = Some(binding);
                }
                done()
            }
            Ask::Close { tap } => {
                self.taps.remove(&tap);
                done()
            }
            Ask::KeepTap { spec, udp_trains, binding } => {
                self.keep_tap(spec, udp_trains, binding, descriptors)
            }
            Ask::KeepUdp { address, purpose } => self.keep_udp(address, purpose, descriptors),
            Ask::Complete {} => {
                // The interface of a port that is no more stays, without carrier: its guest's addresses are no
                // keeper's business.
                self.taps.retain(|_, tap| tap.given);
                self.sockets.retain(|socket| socket.given);
                done()
            }
            // The server's.
            Ask::Hello { .. } | Ask::Status {} | Ask::End {} => misplaced("this is answered before"),
        }
    }

    fn tap(&mut self, spec: &TapSpec) -> Reply {
        let name = TapName::of(spec);
        let namespace = namespace_of(spec);
        if !spec.kind.is_tap() && namespace.is_some() && namespace == namespace_at("/proc/self/ns/net") {
            // A switch that was taken over could else listen to the host's own network card.
            return told(
                format!("interface `{}` stands in the switch's own namespace", spec.name),
                "put it into a namespace of its own",
            );
        }
        if let Some(kept) = self.taps.get(&name) {
            if kept.given {
                return refused(&OpenError::InterfaceInUse {
                    interface: spec.name.clone(),
                    place: spec.netns.clone().unwrap_or_else(|| "the switch's own namespace".into()),
                });
            }
            // Its interface may have vanished or have another name, its namespace's name may stand for another one now, and
            // a port that was made anew may want other queues: then what is kept is of no use.
            let fits = kept.open.queues.len() == spec.queues
                && kept.is_named(spec)
                && (namespace.is_none() || namespace == kept.namespace)
                && self.opener.configure_tap(kept.open.control.as_fd(), spec).is_ok();
            if !fits {
                self.taps.remove(&name);
            }
        }
        let known = self.taps.contains_key(&name);
        if !known {
            if self.taps.len() >= self.most.taps {
                return full(self.most.taps, "TAPs");
            }
            match self.opener.open_tap(spec) {
                Ok(open) => {
                    let tap = KeptTap { open, binding: None, namespace, given: false };
                    self.taps.insert(name.clone(), tap);
                }
                Err(error) => return refused(&error),
            }
        }
        let Some(kept) = self.taps.get_mut(&name) else { return misplaced("the TAP is gone") };
        if known && spec.kind.is_tap() {
            // As a new one's, the link is up, also if whoever had it before died while holding it down.
            if let Some(queue) = kept.open.queues.first() {
                // Fails only for an interface that is vanishing at this moment.
                let _ = sys::tap_set_carrier(queue.as_fd(), true);
            }
        }
        let mut descriptors = Vec::with_capacity(1 + kept.open.queues.len());
        for own in std::iter::once(&kept.open.control).chain(&kept.open.queues) {
            match own.try_clone() {
                Ok(copy) => descriptors.push(copy),
                Err(error) => return out_of_descriptors(&error),
            }
        }
        kept.given = true;
        let queue_frames = sys::interface_queue_frames(kept.open.control.as_fd(), spec.name.as_str())
            .unwrap_or(kept.open.queue_frames);
        let answer = Answer::Tap {
            queue_frames,
            udp_trains: kept.open.udp_trains,
            existed: known || kept.open.existed,
            binding: kept.binding,
        };
        (answer, descriptors)
    }

    fn udp(&mut self, address: SocketAddr, purpose: UdpUse) -> Reply {
        if purpose == UdpUse::Probe {
            // Where only our own sockets are, nobody else's are: they were opened after such a probe.
            let ours = self
                .sockets
                .iter()
                .find(|kept| kept.address == address && kept.purpose == UdpUse::Receive && !kept.given);
            return match ours.map(|kept| kept.socket.try_clone()) {
                Some(Ok(copy)) => (Answer::Udp {}, vec![copy]),
                Some(Err(error)) => out_of_descriptors(&error),
                None => match self.opener.open_udp(address, purpose) {
                    Ok(socket) => (Answer::Udp {}, vec![socket]),
                    Err(error) => refused(&error),
                },
            };
        }
        let kept = self
            .sockets
            .iter()
            .position(|kept| kept.address == address && kept.purpose == purpose && !kept.given);
        let index = match kept {
            Some(index) => index,
            None if self.sockets.len() >= self.most.sockets => return full(self.most.sockets, "sockets"),
            None => match self.opener.open_udp(address, purpose) {
                Ok(socket) => {
                    self.sockets.push(KeptSocket { address, purpose, socket, given: false });
                    self.sockets.len() - 1
                }
                Err(error) => return refused(&error),
            },
        };
        let Some(kept) = self.sockets.get_mut(index) else { return misplaced("the socket is gone") };
        match kept.socket.try_clone() {
            Ok(copy) => {
                kept.given = true;
                (Answer::Udp {}, vec![copy])
            }
            Err(error) => out_of_descriptors(&error),
        }
    }

    fn keep_tap(
        &mut self,
        spec: TapSpec,
        udp_trains: bool,
        binding: Option<u64>,
        descriptors: Vec<OwnedFd>,
    ) -> Reply {
        let name = TapName::of(&spec);
        let mut descriptors = descriptors.into_iter();
        let Some(control) = descriptors.next() else { return misplaced("the control socket is missing") };
        let queues: Vec<OwnedFd> = descriptors.collect();
        // Later requests act through the control socket with our rights: on the interface that these are queues of, and
        // on no other one, whatever is claimed.
        let Some(stands_in) = place_of(&control, &queues, &spec) else {
            return misplaced("these are no descriptors of this TAP");
        };
        let namespace = spec.netns.as_ref().map(|_| stands_in);
        let is_full = self.taps.len() >= self.most.taps;
        match self.taps.get_mut(&name) {
            Some(kept) if kept.given => return misplaced("this TAP is kept already"),
            // Its switch did not wait for an answer, and is back.
            Some(kept)
                if kept.open.queues.len() == queues.len()
                    && kept.namespace == namespace
                    && kept.is_named(&spec) =>
            {
                kept.binding = binding;
                kept.given = true;
                return done();
            }
            Some(_) => {}
            None if is_full => return full(self.most.taps, "TAPs"),
            None => {}
        }
        let open = OpenTap { queues, control, queue_frames: 0, udp_trains, existed: true };
        self.taps.insert(name, KeptTap { open, binding, namespace, given: true });
        done()
    }

    fn keep_udp(&mut self, address: SocketAddr, purpose: UdpUse, descriptors: Vec<OwnedFd>) -> Reply {
        let Some(socket) = descriptors.into_iter().next() else { return misplaced("the socket is missing") };
        let bound = rustix::net::getsockname(&socket).ok().and_then(|name| SocketAddr::try_from(name).ok());
        let same = bound.is_some_and(|bound| {
            bound.ip() == address.ip() && (bound.port() == address.port() || address.port() == 0)
        });
        if !same || !sys::is_datagram_socket(socket.as_fd()) {
            return misplaced("this is no socket at that address");
        }
        let is_full = self.sockets.len() >= self.most.sockets;
        let known = self
            .sockets
            .iter_mut()
            .find(|kept| kept.purpose == purpose && inode(&kept.socket) == inode(&socket));
        match known {
            Some(kept) if kept.given => return misplaced("this socket is kept already"),
            // Its switch did not wait for an answer, and is back.
            Some(kept) => kept.given = true,
            None if is_full => return full(self.most.sockets, "sockets"),
            None => self.sockets.push(KeptSocket { address, purpose, socket, given: true }),
        }
        done()
    }
}

impl KeptTap {
    /// Its interface is there, and has the name that the spec says.
    fn is_named(&self, spec: &TapSpec) -> bool {
        self.open.queues.iter().all(|queue| is_queue_of(queue, spec))
    }
}

fn is_queue_of(queue: &OwnedFd, spec: &TapSpec) -> bool {
    let name = match spec.kind {
        PortKind::Tap => sys::tap_name(queue.as_fd()),
        PortKind::Netdev => sys::packet_name(queue.as_fd()),
    };
    name.is_some_and(|name| name == spec.name.as_str())
}

/// The namespace of the TAP that `queues` are of and `control` can configure; `None` when they are not of the one that
/// `spec` says, or not of the same.
fn place_of(control: &OwnedFd, queues: &[OwnedFd], spec: &TapSpec) -> Option<(u64, u64)> {
    let control = control.as_fd();
    let place = sys::is_datagram_socket(control).then(|| sys::socket_namespace(control))?.ok()?;
    let stands_in = match spec.kind {
        PortKind::Tap => sys::tap_namespace,
        PortKind::Netdev => sys::socket_namespace,
    };
    let is_there = |queue: &OwnedFd| stands_in(queue.as_fd()).is_ok_and(|there| there == place);
    (!queues.is_empty() && queues.iter().all(|queue| is_queue_of(queue, spec) && is_there(queue)))
        .then_some(place)
}

/// What two descriptors of one socket have in common.
fn inode(socket: &OwnedFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(socket).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Device and inode of the namespace that a spec names, if there is one now.
fn namespace_of(spec: &TapSpec) -> Option<(u64, u64)> {
    namespace_at(namespace_path(spec.netns.as_deref()?))
}

fn namespace_at(path: impl AsRef<Path>) -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(path.as_ref()).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

const fn done() -> Reply {
    (Answer::Done {}, Vec::new())
}

fn refused(error: &OpenError) -> Reply {
    let reason = match error {
        OpenError::AddressInUse { .. } => Reason::AddressInUse,
        _ => Reason::Other,
    };
    (Answer::Refused { reason, what: error.to_string(), remedy: error.remedy() }, Vec::new())
}

fn told(what: String, remedy: &str) -> Reply {
    (Answer::Refused { reason: Reason::Other, what, remedy: remedy.into() }, Vec::new())
}

fn misplaced(what: &str) -> Reply {
    told(format!("the keeper refuses the request: {what}"), "report this as a fault of the switch")
}

fn unknown(spec: &TapSpec) -> Reply {
    misplaced(&format!("interface `{}` is not kept", spec.name))
}

fn full(most: usize, things: &str) -> Reply {
    told(format!("the keeper keeps {most} {things} already"), "remove ports that are not needed any more")
}

fn out_of_descriptors(error: &std::io::Error) -> Reply {
    told(
        format!("the keeper cannot pass a descriptor on: {error}"),
        "raise the limit on open files (`ulimit -n`) and start the switch again after `shunt vswitch stop`",
    )
}

#[cfg(test)]
mod taps;
#[cfg(test)]
mod tests;
