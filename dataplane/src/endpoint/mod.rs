//! The switch's own end of guests' TCP connections to the metadata service, on a thread of its own.
//!
//! Workers hand on the segments that the pipeline lets through ([`Lane`]); a small TCP stack per port ends the connections,
//! and the bytes go to the host agent over a Unix socket, behind one line that says which port they are from ([`Preamble`]).
//! So identity is the port, whatever address its guest has; and port, label and network come from one snapshot.
//!
//! The thread reads the snapshot as a worker does, between two rounds, and parks while it sleeps: a change is settled only when
//! it acts by the new one, and what it sends to guests has left by then. A connection lives as long as its port is bound and
//! labelled as when it began.
//!
//! What a guest can make the switch hold is bounded: slots in the lanes, connections per port and in all, the buffers of
//! each, its life and its idleness. Never here: HTTP, or what the bytes mean.

mod connection;
mod link;
mod preamble;
mod stack;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

pub use preamble::Preamble;

use self::connection::Opened;
use self::link::Outlet;
use self::stack::{Heard, Refuser, Stack};
use crate::bucket;
use crate::clock::Clock;
use crate::drops::DropReason;
use crate::port::Device;
use crate::publish::Reader;
use crate::tables::Port;
use crate::types::{Nanos, PortId};
use crate::worker::{Frame, Lane, Plane, Waker};

/// Connections of all ports together: 24 KiB of buffers and a descriptor each.
const MOST_CONNECTIONS: usize = 2048;
/// Frames that one round takes from each lane.
const FRAMES: usize = 64;
/// Events that one round looks at.
const EVENTS: usize = 64;
/// What the call of a worker is told by; connections are told by port and number.
const BELL: u64 = u64::MAX;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What an endpoint is made of.
pub struct Parts {
    /// The snapshot: a reader of its own.
    pub plane: Reader<Plane>,
    /// Which of the ports' counter cells it writes: none of a worker's.
    pub cells: usize,
    /// Where the host agent listens.
    pub agent: PathBuf,
    /// The switch's time.
    pub clock: Clock,
}

/// The running endpoint.
pub struct Endpoint {
    bell: Waker,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Endpoint {
    /// Starts it, and makes the lanes of so many workers.
    ///
    /// # Errors
    /// No thread or descriptor to be had.
    pub fn start(parts: Parts, workers: usize) -> io::Result<(Self, Vec<Arc<Lane>>)> {
        let bell = Waker::new()?;
        let stop = Arc::new(AtomicBool::new(false));
        let lanes: Vec<_> = (0..workers).map(|_| Lane::new(bell.clone())).collect();
        let mut service = Service::new(parts, bell.clone(), lanes.clone(), stop.clone())?;
        let thread = thread::Builder::new().name("shunt-metadata".into()).spawn(move || {
            let _last_words = LastWords;
            service.run();
        })?;
        Ok((Self { bell, stop, thread: Mutex::new(Some(thread)) }, lanes))
    }

    /// Has it look at its snapshot soon, also when it sleeps.
    pub fn wake(&self) {
        self.bell.wake();
    }

    /// Resets every connection and ends the thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the metadata endpoint had panicked");
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop();
    }
}

/// As for a worker: a switch without it would keep guests waiting for ever. What a guest sends is handled behind a guard of
/// its own ([`Service::guarded`]) and does not come here.
struct LastWords;

impl Drop for LastWords {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("the metadata endpoint panicked: the switch ends here");
            std::process::abort();
        }
    }
}

/// The endpoint's thread.
struct Service {
    plane: Reader<Plane>,
    cells: usize,
    agent: PathBuf,
    clock: Clock,
    bell: Waker,
    lanes: Vec<Arc<Lane>>,
    stop: Arc<AtomicBool>,
    epoll: OwnedFd,
    stacks: HashMap<PortId, Stack, FixedState>,
    /// The ports whose stacks have something to do before the round ends.
    busy: Vec<PortId>,
    refuser: Refuser,
    /// Frames to guests are made here.
    scratch: Vec<u8>,
    secret: RandomState,
    /// Of the last connection.
    number: u32,
}

impl Service {
    fn new(parts: Parts, bell: Waker, lanes: Vec<Arc<Lane>>, stop: Arc<AtomicBool>) -> io::Result<Self> {
        let Parts { plane, cells, agent, clock } = parts;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, bell.fd(), EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Self {
            plane,
            cells,
            agent,
            clock,
            bell,
            lanes,
            stop,
            epoll,
            stacks: HashMap::default(),
            busy: Vec::new(),
            refuser: Refuser::new(),
            scratch: Vec::new(),
            secret: RandomState::new(),
            number: 0,
        })
    }

    fn run(&mut self) {
        while !self.stop.load(Ordering::Acquire) {
            self.boundary();
            let worked = self.take_frames() | self.hear(&AT_ONCE) | self.call_due();
            self.work_off();
            if !worked {
                self.sleep();
            }
        }
        let all: Vec<_> = self.stacks.keys().copied().collect();
        all.into_iter().for_each(|id| self.end(id, true));
    }

    /// Between two rounds nothing is in hand: the moment to take a new snapshot, and to part with what it ended.
    fn boundary(&mut self) {
        if !self.plane.refresh() {
            return;
        }
        let plane = self.plane.current().clone();
        let ends: Vec<_> = self
            .stacks
            .iter_mut()
            .filter_map(|(&id, stack)| match plane.tables.port(id).zip(plane.device(id)) {
                Some((port, _)) if stack.follow(port, stack::mtu(port, &plane)) => None,
                // The guest may only be told where it still is: a packet of the old network has no place in a new one.
                Some((port, _)) => Some((id, stack.is_of_network(port))),
                None => Some((id, false)),
            })
            .collect();
        for (id, is_told) in ends {
            self.end(id, is_told);
        }
        self.plane.pass();
    }

    /// Ends a port's connections; its guest is told, or is left to find out.
    fn end(&mut self, id: PortId, is_told: bool) {
        let Some(mut stack) = self.stacks.remove(&id) else { return };
        let now = self.clock.now();
        let plane = self.plane.current();
        if is_told && let Some((port, device)) = plane.tables.port(id).zip(plane.device(id)) {
            let outlet =
                Outlet::new(port, device.as_ref(), port.counters.of_worker(self.cells), &mut self.scratch);
            guarded(id, || stack.reset(outlet, now));
        }
    }

    /// Frames of guests, from every lane; true when there were any.
    fn take_frames(&mut self) -> bool {
        let mut taken = false;
        for lane in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get(lane).cloned() else { continue };
            for _ in 0..FRAMES {
                let Some(frame) = lane.take() else { break };
                taken = true;
                self.frame(&frame);
                lane.give_back(frame);
            }
        }
        taken
    }

    fn frame(&mut self, frame: &Frame) {
        let id = frame.port();
        // A worker may be ahead of this thread: what it judged by a newer snapshot is to be handled by that one.
        if frame.epoch() > self.plane.current().tables.generation {
            self.work_off();
            self.boundary();
        }
        let plane = self.plane.current().clone();
        let Some(port) = plane.tables.port(id) else { return };
        let cells = port.counters.of_worker(self.cells);
        if port.epoch != frame.epoch() {
            return cells.dropped(DropReason::Moved, 1);
        }
        let Some(device) = plane.device(id) else {
            return cells.dropped(DropReason::PortDown, 1);
        };
        if let Err(reason) = self.judge(port, device, &plane, frame.bytes()) {
            cells.dropped(reason, 1);
        }
    }

    fn judge(
        &mut self,
        port: &Arc<Port>,
        device: &Arc<dyn Device>,
        plane: &Plane,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let (id, now) = (port.id, self.clock.now());
        let heard = Heard::parse(frame).ok_or(DropReason::TransportMalformed)?;
        let is_known = self.stacks.get(&id).is_some_and(|stack| stack.knows(&heard));
        let opened = if heard.is_syn && !is_known { self.admit(port, now)? } else { None };
        let cells = port.counters.of_worker(self.cells);
        let outlet = Outlet::new(port, device.as_ref(), cells, &mut self.scratch);
        if opened.is_none() && !self.stacks.contains_key(&id) {
            // Nobody there: the agent, or the connection that this was once part of.
            self.refuser.refuse(&heard, outlet, now);
            return Ok(());
        }
        let seed = || self.secret.hash_one(now.0);
        let stack =
            self.stacks.entry(id).or_insert_with(|| Stack::new(port, stack::mtu(port, plane), seed(), now));
        if guarded(id, || stack.receive(&heard, opened, outlet, now)).is_none() {
            self.stacks.remove(&id);
        } else if stack.mark() {
            self.busy.push(id);
        }
        Ok(())
    }

    /// A way to the agent for a guest that knocks; `None` when nobody listens.
    fn admit(&mut self, port: &Port, now: Nanos) -> Result<Option<Opened>, DropReason> {
        let held = self.stacks.get(&port.id).map_or(0, Stack::len);
        let all: usize = self.stacks.values().map(Stack::len).sum();
        if held >= stack::share(MOST_CONNECTIONS.saturating_sub(all))
            || !port.bounds.connections.take(bucket::CONNECTIONS, now)
        {
            return Err(DropReason::MetadataFull);
        }
        let stream = match connection::dial(&self.agent) {
            Ok(stream) => stream,
            // It is there, but busy, or this process has no descriptor left: the guest will ask again.
            Err(Errno::AGAIN | Errno::MFILE | Errno::NFILE) => return Err(DropReason::MetadataFull),
            Err(_) => return Ok(None),
        };
        self.number = self.number.wrapping_add(1);
        let key = EventData::new_u64(u64::from(port.id.0) << 32 | u64::from(self.number));
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, key, flags).map_err(|_| DropReason::MetadataFull)?;
        Ok(Some(Opened { stream, number: self.number }))
    }

    /// What the agent's sockets, and the workers, have to say; true when there was any of it.
    fn hear(&mut self, timeout: &Timespec) -> bool {
        let events = wait(&self.epoll, Some(timeout));
        self.heard(&events);
        !events.is_empty()
    }

    fn heard(&mut self, events: &Events) {
        for &(key, flags) in events {
            if key == BELL {
                self.bell.clear();
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "undoes the packing, half by half")]
            let (id, number) = (PortId((key >> 32) as u32), key as u32);
            if let Some(stack) = self.stacks.get_mut(&id)
                && stack.hear(number, flags)
                && stack.mark()
            {
                self.busy.push(id);
            }
        }
    }

    /// Puts the stacks to work whose time has come; true when there are any.
    fn call_due(&mut self) -> bool {
        let now = self.clock.now();
        let before = self.busy.len();
        for (&id, stack) in &mut self.stacks {
            if stack.due() <= now && stack.mark() {
                self.busy.push(id);
            }
        }
        self.busy.len() > before
    }

    /// Moves bytes in both directions for every stack that has something to do.
    fn work_off(&mut self) {
        let now = self.clock.now();
        let plane = self.plane.current().clone();
        for id in std::mem::take(&mut self.busy) {
            let Some(stack) = self.stacks.get_mut(&id) else { continue };
            let Some((port, device)) = plane.tables.port(id).zip(plane.device(id)) else { continue };
            let outlet =
                Outlet::new(port, device.as_ref(), port.counters.of_worker(self.cells), &mut self.scratch);
            let whole = guarded(id, || stack.work(outlet, now));
            if whole.is_none() || stack.len() == 0 {
                self.stacks.remove(&id);
            }
        }
    }

    /// Sleeps until somebody calls or a stack's time has come. While asleep no change waits for this thread.
    fn sleep(&mut self) {
        let now = self.clock.now();
        let due = self.stacks.values().map(Stack::due).min();
        let timeout = due.map(|due| until(due, now));
        let Some(parked) = self.plane.park() else { return };
        // What sockets say they say once (edge-triggered): it is kept until the boundary is past.
        let events = wait(&self.epoll, timeout.as_ref());
        drop(parked);
        self.boundary();
        self.heard(&events);
    }
}

/// Events of one wait: whose, and which.
type Events = ArrayVec<(u64, EventFlags), EVENTS>;

fn wait(epoll: &OwnedFd, timeout: Option<&Timespec>) -> Events {
    let mut events = [MaybeUninit::<Event>::uninit(); EVENTS];
    match epoll::wait(epoll, &mut events[..], timeout) {
        Ok((ready, _)) => ready.iter().map(|event| (event.data.u64(), event.flags)).collect(),
        // An interrupted wait found nothing; any other error would repeat for ever and is as good as nothing.
        Err(_) => Events::new(),
    }
}

/// How long it is until `due`: at least a microsecond more, so that it is past on waking.
fn until(due: Nanos, now: Nanos) -> Timespec {
    let left = due.0.saturating_sub(now.0).saturating_add(1000);
    Timespec {
        tv_sec: i64::try_from(left / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(left % 1_000_000_000).unwrap_or(0),
    }
}

/// Runs what parses a guest's bytes: should it panic after all, then `None`, and the guest has cost itself its own
/// connections and nobody else's.
fn guarded<R>(id: PortId, act: impl FnOnce() -> R) -> Option<R> {
    let done = catch_unwind(AssertUnwindSafe(act));
    if done.is_err() {
        tracing::error!(slot = id.0, "a port's metadata connections ended in a panic");
    }
    done.ok()
}
