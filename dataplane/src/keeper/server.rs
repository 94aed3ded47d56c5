//! The keeper's process: one thread, one switch that is served, and a standby that takes over.
//!
//! It waits for nothing but its sockets: who sends half a message, or does not read, loses the connection.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use super::channel::{self, Channel, Packet, Peer, SOCKET_NAME};
use super::launch::{Residence, Seat, start_standby};
use super::privileges;
use super::protocol::{self, Answer, Ask, Reason, SPOKEN};
use super::shelf::Shelf;
use crate::port::open::Direct;

/// The switch, and people who ask for the status.
const MOST_CONNECTIONS: usize = 8;
/// A standby that cannot live is not tried more often.
const STANDBY_EVERY: Duration = Duration::from_secs(1);
/// How often a keeper without a switch looks whether its socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a new keeper waits for its first switch, however short it shall keep things later.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// Serves at `listener` until it is told to end, or was without a switch for as long as `home` says.
///
/// # Errors
/// What the kernel says.
pub fn serve(listener: OwnedFd, home: Residence, seat: Seat) -> io::Result<()> {
    // A signal to the terminal of the switch is not meant for it.
    let _ = rustix::process::setsid();
    privileges::drop_all_but_a_keepers()?;
    if let Seat::Standby(keeper) = seat {
        let _ = rustix::thread::set_name(c"shunt-standby");
        wait_for_the_end_of(keeper);
        tracing::warn!("the keeper has died: this process takes its place");
    }
    let _ = rustix::thread::set_name(c"shunt-keeper");
    tracing::info!(state_dir = %home.state_dir.display(), "the keeper is ready");
    Server::new(listener, home)?.run()
}

/// Waits for the keeper's death. One that ends in order ends its standby first.
fn wait_for_the_end_of(mut keeper: UnixStream) {
    let mut word = [0; 1];
    // Nothing is ever said, and a signal is no end.
    while keeper.read(&mut word).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
}

struct Server {
    listener: OwnedFd,
    home: Residence,
    /// Device and inode of the socket's file: another keeper's is not ours to remove.
    made: Option<(u64, u64)>,
    own_uid: u32,
    netns: (u64, u64),
    shelf: Shelf<Direct>,
    connections: Vec<Connection>,
    /// Since when no switch is served, and how long that may last.
    alone: Option<(Instant, Duration)>,
    standby: Option<Standby>,
    standby_due: Instant,
}

struct Connection {
    channel: Channel,
    peer: Peer,
    /// It has said hello.
    is_switch: bool,
}

struct Standby {
    process: Child,
    wire: UnixStream,
}

/// What becomes of a connection, and of the keeper, after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Stay,
    Hang,
    End,
}

impl Server {
    fn new(listener: OwnedFd, home: Residence) -> io::Result<Self> {
        let netns = rustix::fs::stat("/proc/self/ns/net")?;
        let now = Instant::now();
        let mut server = Self {
            listener,
            alone: Some((now, home.keep.max(FIRST_WAIT))),
            home,
            made: None,
            own_uid: rustix::process::geteuid().as_raw(),
            netns: (netns.st_dev, netns.st_ino),
            shelf: Shelf::new(Direct),
            connections: Vec::new(),
            standby: None,
            standby_due: now,
        };
        server.made = server.file();
        Ok(server)
    }

    fn path(&self) -> PathBuf {
        self.home.state_dir.join(SOCKET_NAME)
    }

    fn file(&self) -> Option<(u64, u64)> {
        fs::symlink_metadata(self.path()).ok().map(|file| (file.dev(), file.ino()))
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            self.keep_a_standby();
            let readable = self.wait()?;
            let mut readable = readable.into_iter();
            let called = readable.next().unwrap_or(false);
            if self.standby.is_some() && readable.next().unwrap_or(false) {
                self.bury_standby();
            }
            // Ends come before new connections: a new switch must not meet the ghost of the last one.
            let speaking: Vec<bool> = readable.collect();
            let mut index = 0;
            for speaks in speaking {
                match if speaks { self.hear(index) } else { Then::Stay } {
                    Then::Stay => index += 1,
                    Then::Hang => self.hang_up(index),
                    Then::End => return Ok(()),
                }
            }
            if self.is_forgotten() {
                self.end();
                return Ok(());
            }
            if called {
                self.accept();
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<bool>> {
        let now = Instant::now();
        let standby_in = self.standby.is_none().then(|| self.standby_due.saturating_duration_since(now));
        let alone_for = self.alone.map(|(since, most)| {
            let rest = most.saturating_sub(now.saturating_duration_since(since));
            rest.min(LOOK_EVERY).max(Duration::from_millis(1))
        });
        let timeout = [standby_in, alone_for].into_iter().flatten().min();
        let own = [self.listener.as_fd()].into_iter();
        let standby = self.standby.iter().map(|standby| standby.wire.as_fd());
        let connections = self.connections.iter().map(|connection| connection.channel.as_fd());
        let sockets: Vec<BorrowedFd<'_>> = own.chain(standby).chain(connections).collect();
        channel::wait(&sockets, timeout)
    }

    /// No switch for too long, or nobody can find us any more.
    fn is_forgotten(&self) -> bool {
        let Some((since, most)) = self.alone else { return false };
        if since.elapsed() >= most {
            tracing::info!("no switch came: what was kept is closed");
            return true;
        }
        let gone = self.file() != self.made;
        if gone {
            tracing::info!("the socket was removed: what was kept is closed");
        }
        gone
    }

    fn accept(&mut self) {
        loop {
            let channel = match Channel::accept(self.listener.as_fd()) {
                Ok(Some(channel)) => channel,
                Ok(None) => return,
                Err(error) => {
                    // Out of descriptors, most likely. It stays in the queue, and is tried again after a breath.
                    tracing::warn!(%error, "a connection could not be accepted");
                    std::thread::sleep(Duration::from_millis(50));
                    return;
                }
            };
            let peer = channel.peer();
            let admitted = peer.as_ref().is_ok_and(|peer| admits(peer.uid, self.own_uid));
            match peer {
                Ok(peer) if admitted => {
                    if self.connections.len() >= MOST_CONNECTIONS
                        && let Some(oldest) = self.connections.iter().position(|other| !other.is_switch)
                    {
                        self.connections.remove(oldest);
                    }
                    self.connections.push(Connection { channel, peer, is_switch: false });
                }
                _ => {
                    let answer = Answer::Refused {
                        reason: Reason::Other,
                        what: "the keeper serves its own user only".into(),
                        remedy: "run the switch as the user that its keeper runs as, once".into(),
                    };
                    // Whoever does not read it does not learn it.
                    let _ = reply(&channel, &answer, &[]);
                }
            }
        }
    }

    fn hear(&mut self, index: usize) -> Then {
        let Some(connection) = self.connections.get(index) else { return Then::Hang };
        let Packet { bytes, descriptors } = match connection.channel.receive() {
            Ok(Some(packet)) => packet,
            Ok(None) => return Then::Hang,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Then::Stay,
            Err(_) => return Then::Hang,
        };
        let asked = protocol::decode::<Ask>(&bytes, descriptors.len())
            .and_then(|ask| ask.check(descriptors.len()).map(|()| ask));
        let (answer, passed, then) = match asked {
            Ok(ask) => self.answer(index, ask, descriptors),
            Err(error) => {
                let answer = Answer::Refused {
                    reason: Reason::Other,
                    what: format!("the keeper does not understand the switch: {error}"),
                    remedy: "use the release that started the keeper, or end it with `shunt vswitch stop`"
                        .into(),
                };
                (answer, Vec::new(), Then::Hang)
            }
        };
        if then == Then::End {
            // Before the answer: who has it finds no keeper any more, and every address free.
            let asking = self.connections.swap_remove(index);
            self.end();
            // Who does not read it does not learn it.
            let _ = reply(&asking.channel, &answer, &passed);
            return Then::End;
        }
        let Some(connection) = self.connections.get(index) else { return Then::Hang };
        match reply(&connection.channel, &answer, &passed) {
            Ok(()) => then,
            Err(_) => Then::Hang,
        }
    }

    fn answer(&mut self, index: usize, ask: Ask, descriptors: Vec<OwnedFd>) -> (Answer, Vec<OwnedFd>, Then) {
        self.lay_ghosts();
        let (serves, is_switch) = (self.served(), self.connections.get(index).is_some_and(|c| c.is_switch));
        let told = |answer, then| (answer, Vec::new(), then);
        match ask {
            Ask::Hello { speaks, keep_seconds } => {
                let refused = |reason, what, remedy: &str| {
                    told(Answer::Refused { reason, what, remedy: remedy.into() }, Then::Hang)
                };
                if let Some(peer) = serves {
                    let who = peer.process.map(|pid| format!(" (process {pid})")).unwrap_or_default();
                    let what = format!("another switch{who} uses this state directory");
                    return refused(
                        Reason::Busy,
                        what,
                        "stop it first, or give this switch a `state_dir` of its own",
                    );
                }
                let Some(version) = SPOKEN.common(speaks) else {
                    let what = format!(
                        "the keeper that runs speaks versions {} to {}, and this switch {} to {}",
                        SPOKEN.oldest, SPOKEN.newest, speaks.oldest, speaks.newest
                    );
                    return refused(
                        Reason::Other,
                        what,
                        "end it with `shunt vswitch stop` and start the switch again",
                    );
                };
                if let Some(connection) = self.connections.get_mut(index) {
                    connection.is_switch = true;
                }
                self.alone = None;
                self.home.keep = Duration::from_secs(keep_seconds.into());
                told(Answer::Welcome { version, netns: self.netns }, Then::Stay)
            }
            Ask::Status {} => {
                let answer = Answer::Status {
                    build: env!("CARGO_PKG_VERSION").into(),
                    switch: serves.and_then(|peer| peer.process),
                    taps: self.shelf.taps(),
                    sockets: self.shelf.sockets(),
                };
                told(answer, Then::Stay)
            }
            Ask::End {} => told(Answer::Done {}, Then::End),
            other if is_switch => {
                let (answer, passed) = self.shelf.answer(other, descriptors);
                (answer, passed, Then::Stay)
            }
            _ => {
                let answer = Answer::Refused {
                    reason: Reason::Other,
                    what: "only a switch that has said hello may ask for that".into(),
                    remedy: "report this as a fault of the switch".into(),
                };
                told(answer, Then::Hang)
            }
        }
    }

    /// The switch that is served.
    fn served(&self) -> Option<Peer> {
        self.connections.iter().find(|connection| connection.is_switch).map(|connection| connection.peer)
    }

    fn hang_up(&mut self, index: usize) {
        if index < self.connections.len() && self.connections.remove(index).is_switch {
            self.shelf.returned();
            self.alone = Some((Instant::now(), self.home.keep));
        }
    }

    /// A switch that has ended, and whose connection was not heard of yet, is served no more.
    fn lay_ghosts(&mut self) {
        for connection in &mut self.connections {
            if connection.is_switch && connection.channel.is_closed() {
                connection.is_switch = false;
                self.shelf.returned();
                self.alone = Some((Instant::now(), self.home.keep));
            }
        }
    }

    fn keep_a_standby(&mut self) {
        let now = Instant::now();
        if self.standby.is_some() || now < self.standby_due {
            return;
        }
        self.standby_due = now + STANDBY_EVERY;
        let started = self.listener.try_clone().and_then(|listener| start_standby(&self.home, listener));
        match started {
            Ok((process, wire)) => self.standby = Some(Standby { process, wire }),
            Err(error) => tracing::warn!(%error, "there is no standby: it could not be started"),
        }
    }

    /// Makes sure that it is dead; also one that is stopped, and would not hear a word.
    fn bury_standby(&mut self) {
        if let Some(mut standby) = self.standby.take() {
            let _ = standby.process.kill();
            let _ = standby.process.wait();
        }
    }

    /// Nobody can come from now on.
    fn leave(&self) {
        if self.made.is_some() && self.file() == self.made {
            let _ = fs::remove_file(self.path());
        }
    }

    /// Nothing is kept from now on, and nobody takes our place.
    fn end(&mut self) {
        self.leave();
        self.bury_standby();
        // With them goes what is on its way in.
        self.connections.clear();
        self.shelf = Shelf::new(Direct);
    }
}

fn reply(channel: &Channel, answer: &Answer, passed: &[OwnedFd]) -> io::Result<()> {
    let bytes = protocol::encode(answer, passed.len())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let passed: Vec<BorrowedFd<'_>> = passed.iter().map(AsFd::as_fd).collect();
    channel.send(&bytes, &passed)
}

/// Whether a process of user `peer` may ask a keeper of user `own`. The socket's mode says the same; two locks are better
/// than one on a door behind which interfaces are made.
const fn admits(peer: u32, own: u32) -> bool {
    peer == own
}

#[cfg(test)]
mod tests;
