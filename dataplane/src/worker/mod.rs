//! The threads that move packets. One loop each: look at the snapshot, take what is readable, judge it, send it.
//!
//! A worker never waits for anybody but the kernel, allocates nothing per packet, and logs nothing per packet. Every
//! effect of a batch has left before the worker takes a new snapshot: that is what "settled" rests on.

mod adopt;
mod holes;
mod lane;
mod pace;
mod plane;
mod poll;
mod turn;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::Timespec;

use self::adopt::Watched;
use self::holes::Sabotage;
pub use self::lane::{Frame, Lane, WINDOW_BYTES};
use self::pace::Pace;
pub use self::pace::Poll;
pub use self::plane::Plane;
pub(crate) use self::poll::Waker;
use self::poll::{Poller, Source};
use self::turn::{Turn, Turned};
use crate::clock::Clock;
use crate::directory::DirectoryReader;
use crate::offload::coalesce::Coalescer;
use crate::packet::Buffer;
use crate::pipeline::BATCH;
use crate::publish::Reader;
use crate::underlay::Underlay;

/// What one worker is made of.
pub struct Parts {
    plane: Reader<Plane>,
    directory: DirectoryReader,
    underlay: Box<dyn Underlay>,
    cpu: Option<usize>,
    lane: Option<Arc<Lane>>,
    /// The rule that it breaks, for the tests that must notice.
    #[cfg(test)]
    hole: Option<holes::Hole>,
}

impl Parts {
    /// The parts of a sound worker.
    #[must_use]
    pub fn new(
        plane: Reader<Plane>,
        directory: DirectoryReader,
        underlay: Box<dyn Underlay>,
        cpu: Option<usize>,
    ) -> Self {
        Self {
            plane,
            directory,
            underlay,
            cpu,
            lane: None,
            #[cfg(test)]
            hole: None,
        }
    }

    /// The same for a worker that hands segments for the metadata service on, by its own lane.
    #[must_use]
    pub fn with_lane(self, lane: Arc<Lane>) -> Self {
        Self { lane: Some(lane), ..self }
    }
}

/// The running workers.
pub struct Workers {
    wakers: Vec<Waker>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts a worker of each part.
    ///
    /// # Errors
    /// No thread or descriptor to be had.
    pub fn start(parts: Vec<Parts>, poll: Poll, clock: Clock) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = parts.len();
        let mut running = Self { wakers: Vec::new(), stop: stop.clone(), threads: Mutex::new(Vec::new()) };
        for (index, parts) in parts.into_iter().enumerate() {
            let waker = Waker::new()?;
            running.wakers.push(waker.clone());
            let cpu = parts.cpu;
            let mut worker = Worker::new(index, workers, parts, waker, poll, clock, stop.clone())?;
            let thread = thread::Builder::new().name(format!("shunt-worker-{index}")).spawn(move || {
                let _last_words = LastWords(index);
                if let Some(cpu) = cpu {
                    bind(index, cpu);
                }
                worker.run();
            })?;
            running.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(running)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.wakers.len()
    }

    /// Has every worker look at its snapshot soon, also one that sleeps.
    pub fn wake(&self) {
        self.wakers.iter().for_each(Waker::wake);
    }

    /// Ends the workers and waits for them.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A switch that has lost a worker would acknowledge changes while a share of its ports is dead: better that it ends, and
/// comes back from its state.
struct LastWords(usize);

impl Drop for LastWords {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(worker = self.0, "a worker panicked: the switch ends here");
            std::process::abort();
        }
    }
}

fn bind(worker: usize, cpu: usize) {
    let mut cpus = rustix::thread::CpuSet::new();
    if cpu < rustix::thread::CpuSet::MAX_CPU {
        cpus.set(cpu);
    }
    if let Err(error) = rustix::thread::sched_setaffinity(None, &cpus) {
        tracing::warn!(worker, cpu, %error, "the worker could not be bound to its processor");
    }
}

struct Worker {
    index: usize,
    workers: usize,
    plane: Reader<Plane>,
    directory: DirectoryReader,
    underlay: Box<dyn Underlay>,
    poller: Poller,
    waker: Waker,
    watched: Vec<Watched>,
    buffers: Vec<Buffer>,
    coalescer: Coalescer,
    lane: Option<Arc<Lane>>,
    pace: Pace,
    clock: Clock,
    stop: Arc<AtomicBool>,
    sabotage: Sabotage,
}

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

impl Worker {
    fn new(
        index: usize,
        workers: usize,
        parts: Parts,
        waker: Waker,
        poll: Poll,
        clock: Clock,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        #[cfg(test)]
        let sabotage = Sabotage::of(parts.hole);
        #[cfg(not(test))]
        let sabotage = Sabotage;
        let Parts { plane, directory, underlay, lane, .. } = parts;
        let poller = Poller::new(&waker)?;
        for socket in 0..underlay.sockets() {
            if let Some(fd) = underlay.poll_fd(socket) {
                poller.add(fd, Source::Underlay(u16::try_from(socket).unwrap_or(u16::MAX)))?;
            }
        }
        let mut watched = Vec::new();
        adopt::listen(&mut watched, &poller, (index, workers), plane.current());
        let buffers = (0..BATCH).map(|_| Buffer::new()).collect();
        let pace = Pace::new(poll);
        Ok(Self {
            index,
            workers,
            plane,
            directory,
            underlay,
            poller,
            waker,
            watched,
            buffers,
            coalescer: Coalescer::new(),
            lane,
            pace,
            clock,
            stop,
            sabotage,
        })
    }

    fn run(&mut self) {
        while !self.stop.load(Ordering::Acquire) {
            if self.round(Some(&AT_ONCE)) {
                self.pace.worked(self.clock.now());
                continue;
            }
            // A change must not have to wait for this worker's next packet.
            self.boundary();
            if self.pace.tired(self.clock.now()) {
                self.sleep();
            }
        }
    }

    /// Between two batches nothing is in hand: the moment to take a new snapshot.
    fn boundary(&mut self) {
        if self.plane.refresh() {
            let new = self.plane.current();
            adopt::listen(&mut self.watched, &self.poller, (self.index, self.workers), new);
            if let Some(old) = self.plane.previous()
                && !self.sabotage.keeps_queue()
            {
                adopt::discard_moved(&self.watched, self.index, old, new);
            }
            self.plane.pass();
        }
        self.directory.refresh();
    }

    /// Takes one batch from everything that is readable; false when nothing was.
    fn round(&mut self, timeout: Option<&Timespec>) -> bool {
        let mut worked = false;
        for source in self.poller.wait(timeout) {
            if source == Source::Wake {
                self.waker.clear();
                // A change settles also where no packet comes by.
                self.boundary();
                continue;
            }
            // A source's turn is one batch: nothing is in hand between two of them.
            self.sabotage.before_boundary(self.plane.current());
            self.boundary();
            let stale = self.sabotage.stale(self.plane.current());
            let now = self.clock.now();
            let mut turn = Turn {
                plane: stale.as_ref().unwrap_or_else(|| self.plane.current()),
                directory: &self.directory,
                underlay: self.underlay.as_mut(),
                buffers: &mut self.buffers,
                coalescer: &mut self.coalescer,
                lane: self.lane.as_deref(),
                now,
                worker: self.index,
                sabotage: &mut self.sabotage,
            };
            let turned = match source {
                Source::Port { port, queue } => turn.port(port, usize::from(queue)),
                Source::Underlay(socket) => turn.underlay(usize::from(socket)),
                Source::Wake => Turned::Read(0),
            };
            match (turned, source) {
                (Turned::Read(read), _) => worked |= read > 0,
                (Turned::Gone, Source::Port { port, queue }) => {
                    let at = |watched: &&Watched| watched.port == port && watched.queue == usize::from(queue);
                    if let Some(watched) = self.watched.iter().find(at) {
                        adopt::ignore(watched, &self.poller);
                    }
                    let name = self.plane.current().tables.port(port).map(|port| port.config.name.clone());
                    tracing::warn!(
                        port = name.as_ref().map_or("?", |name| name.as_str()),
                        "the port's interface is gone; remove the port and add it again to bring it back"
                    );
                }
                (Turned::Gone, _) => {}
            }
        }
        worked
    }

    /// Sleeps until something is readable or somebody calls. While asleep no change waits for this worker; a change
    /// that came meanwhile is found on waking, before any packet is touched.
    fn sleep(&mut self) {
        self.sabotage.before_sleep(self.plane.current());
        let Some(parked) = self.plane.park() else {
            // Not to sleep means that there is a change to pass.
            self.boundary();
            return;
        };
        // The events stay pending (level-triggered): the next round takes them under a fresh snapshot.
        self.poller.wait(None);
        drop(parked);
        self.boundary();
    }
}
