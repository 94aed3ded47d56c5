//! The switch's side of its keeper: an [`Opener`] that asks, and a thread that notices when there is another keeper.
//!
//! The switch holds a copy of every descriptor that the keeper has, so that a keeper that dies loses nothing: its successor
//! is given copies of all of them at once. Workers never come here.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::channel::{self, Channel};
use super::launch::{self, KeeperError, PATIENCE, Residence, exchange};
use super::protocol::{Answer, Ask, Reason, SPOKEN, TapName};
use crate::port::open::{OpenError, OpenTap, Opener, TapSpec, UdpUse};

/// How long a request waits for a successor of a keeper that has died.
const SUCCESSION: Duration = Duration::from_secs(2);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often a switch without any keeper looks for one.
const LOOK_SELDOM: Duration = Duration::from_secs(1);
/// How often a new keeper is started when the one found ends at this very moment.
const STARTS: usize = 5;

/// A keeper, as its switch sees it.
pub struct Keeper {
    shared: Arc<Shared>,
    started: bool,
}

struct Shared {
    home: Residence,
    link: Mutex<Link>,
}

/// The connection, and copies of what the keeper keeps.
struct Link {
    channel: Option<Channel>,
    taps: HashMap<TapName, Held>,
    sockets: Vec<(SocketAddr, UdpUse, OwnedFd)>,
    /// Said in the log already.
    alone: bool,
}

struct Held {
    spec: TapSpec,
    /// Control socket, then queues.
    descriptors: Vec<OwnedFd>,
    udp_trains: bool,
    binding: Option<u64>,
    /// As the keeper told when the TAP was opened.
    binding_before: Option<u64>,
}

impl Keeper {
    /// The keeper of `home`: the one that runs, or a new one, which is started with this process's privileges.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn find_or_start(home: Residence) -> Result<Self, KeeperError> {
        let dir = || home.state_dir.clone();
        let silent = |source| KeeperError::Silent { dir: dir(), source };
        let mut started = false;
        for _ in 0..STARTS {
            let channel = match Channel::connect(&home.state_dir, PATIENCE) {
                Ok(channel) => channel,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
                {
                    launch::start(&home)?;
                    started = true;
                    continue;
                }
                Err(error) => return Err(silent(error)),
            };
            match hello(&channel, &home).map_err(silent)? {
                Some(Answer::Welcome { netns, .. }) => {
                    let own = rustix::fs::stat("/proc/self/ns/net").map_err(|error| silent(error.into()))?;
                    if netns != (own.st_dev, own.st_ino) {
                        return Err(KeeperError::Elsewhere { dir: dir() });
                    }
                    return Ok(Self::watched(home, channel, started));
                }
                Some(Answer::Refused { what, remedy, .. }) => {
                    return Err(KeeperError::Refused { dir: dir(), what, remedy });
                }
                Some(_) => return Err(silent(io::Error::other("it answers another question"))),
                // It was about to end, or could not begin.
                None => {}
            }
        }
        Err(silent(io::Error::other("it ends as soon as it is started")))
    }

    fn watched(home: Residence, channel: Channel, started: bool) -> Self {
        let link = Link { channel: Some(channel), taps: HashMap::new(), sockets: Vec::new(), alone: false };
        Self { shared: Arc::new(Shared { home, link: Mutex::new(link) }), started }
    }

    /// True if it was not there before.
    #[must_use]
    pub const fn was_started(&self) -> bool {
        self.started
    }

    /// From now on a keeper that dies is noticed at once, and its successor gets copies of all descriptors. To be called
    /// after the privileges were given up: it starts a thread.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn watch(&self) -> io::Result<()> {
        let shared = Arc::downgrade(&self.shared);
        std::thread::Builder::new().name("shunt-keeping".into()).spawn(move || watch(&shared)).map(drop)
    }

    /// Has the keeper close everything and go.
    pub fn end(&self) {
        let mut link = self.shared.lock();
        if let Some(channel) = link.channel.take() {
            // If it is gone already, so much the better.
            let _ = exchange(&channel, &Ask::End {}, &[]);
        }
    }

    /// Asks, in vain only if no keeper can be reached for [`SUCCESSION`], or it refuses.
    fn ask(&self, link: &mut Link, ask: &Ask) -> Result<(Answer, Vec<OwnedFd>), OpenError> {
        let until = Instant::now() + SUCCESSION;
        let mut error = io::Error::other("it has died");
        loop {
            if let Some(channel) = &link.channel {
                match exchange(channel, ask, &[]) {
                    Ok(Some((Answer::Refused { reason, what, remedy }, _))) => {
                        return Err(match (reason, ask) {
                            (Reason::AddressInUse, Ask::Udp { address, .. }) => {
                                OpenError::AddressInUse { address: *address }
                            }
                            _ => OpenError::Told { what, remedy },
                        });
                    }
                    Ok(Some(answered)) => return Ok(answered),
                    Ok(None) => {}
                    Err(failed) => error = failed,
                }
                // An answer that comes late would be taken for that of the next question.
                link.channel = None;
            }
            self.shared.reconnect(link);
            if link.channel.is_none() {
                if Instant::now() >= until {
                    return Err(OpenError::Told {
                        what: format!(
                            "the keeper, the process that opens interfaces and sockets, is not to be reached: {error}"
                        ),
                        remedy: "restart the switch: it starts another one".into(),
                    });
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    fn expect_done(&self, ask: &Ask) -> Result<(), OpenError> {
        self.ask(&mut self.shared.lock(), ask).map(drop)
    }
}

fn hello(channel: &Channel, home: &Residence) -> io::Result<Option<Answer>> {
    let keep_seconds = u32::try_from(home.keep.as_secs()).unwrap_or(u32::MAX);
    let answered = exchange(channel, &Ask::Hello { speaks: SPOKEN, keep_seconds }, &[])?;
    Ok(answered.map(|(answer, _)| answer))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Link> {
        // Each step of a change to it leaves it whole.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks once for a successor, and hands it all descriptors.
    fn reconnect(&self, link: &mut Link) {
        let Ok(channel) = Channel::connect(&self.home.state_dir, PATIENCE) else { return };
        match hello(&channel, &self.home) {
            Ok(Some(Answer::Welcome { .. })) => {}
            Ok(Some(Answer::Refused { what, .. })) => {
                tracing::warn!("a keeper is there, and refuses this switch: {what}");
                return;
            }
            Ok(_) | Err(_) => return,
        }
        let (taps, sockets) = (link.taps.len(), link.sockets.len());
        match link.hand_over(&channel) {
            Ok(()) => {
                tracing::info!(taps, sockets, "another keeper has taken over all descriptors");
                link.alone = false;
                link.channel = Some(channel);
            }
            Err(error) => {
                tracing::warn!(%error, "another keeper is there, and does not take the descriptors")
            }
        }
    }
}

impl Link {
    fn hand_over(&self, channel: &Channel) -> io::Result<()> {
        let give = |ask: Ask, descriptors: &[OwnedFd]| {
            let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match exchange(channel, &ask, &borrowed)? {
                Some((Answer::Done {}, _)) => Ok(()),
                // One that is refused (its interface was deleted, say) is no reason to lose the others.
                Some((Answer::Refused { what, .. }, _)) => {
                    tracing::warn!("a descriptor is not kept: {what}");
                    Ok(())
                }
                Some(_) => Err(io::Error::other("it answers another question")),
                None => Err(io::Error::other("it has ended")),
            }
        };
        for held in self.taps.values() {
            let ask =
                Ask::KeepTap { spec: held.spec.clone(), udp_trains: held.udp_trains, binding: held.binding };
            give(ask, &held.descriptors)?;
        }
        for (address, purpose, socket) in &self.sockets {
            give(Ask::KeepUdp { address: *address, purpose: *purpose }, std::slice::from_ref(socket))?;
        }
        Ok(())
    }
}

/// Waits for the keeper's end, again and again, for as long as its switch lives.
fn watch(shared: &Weak<Shared>) {
    let mut tried_since: Option<Instant> = None;
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let mut link = strong.lock();
        if link.channel.as_ref().is_some_and(Channel::is_closed) {
            link.channel = None;
        }
        if link.channel.is_none() {
            let since = *tried_since.get_or_insert_with(Instant::now);
            strong.reconnect(&mut link);
            if link.channel.is_none() && since.elapsed() > SUCCESSION && !link.alone {
                link.alone = true;
                tracing::error!(
                    "the keeper has died and nobody took its place: traffic goes on, but no port can be added, and the next restart will interrupt the guests' links; restart the switch to have a keeper again"
                );
            }
        }
        let watched = link.channel.as_ref().and_then(|channel| channel.watch().ok());
        let pause = if link.alone { LOOK_SELDOM } else { LOOK_EVERY };
        drop(link);
        drop(strong);
        match watched {
            Some(socket) => {
                tried_since = None;
                channel::wait_closed(socket.as_fd(), LOOK_SELDOM);
            }
            None => std::thread::sleep(pause),
        }
    }
}

fn garbled(what: &str) -> OpenError {
    OpenError::Told {
        what: format!("the keeper's answer is not understood: {what}"),
        remedy: "end it with `shunt vswitch stop` and start the switch again".into(),
    }
}

fn copy(descriptor: &OwnedFd) -> Result<OwnedFd, OpenError> {
    descriptor.try_clone().map_err(|error| OpenError::Told {
        what: format!("no descriptor to be had: {error}"),
        remedy: "raise the limit on open files (`ulimit -n`)".into(),
    })
}

impl Opener for Keeper {
    fn open_tap(&self, spec: &TapSpec) -> Result<OpenTap, OpenError> {
        let mut link = self.shared.lock();
        let (answer, descriptors) = self.ask(&mut link, &Ask::Tap { spec: spec.clone() })?;
        let Answer::Tap { queue_frames, udp_trains, existed, binding } = answer else {
            return Err(garbled("it speaks of something else than a TAP"));
        };
        if descriptors.len() != 1 + spec.queues {
            return Err(garbled("the number of descriptors is wrong"));
        }
        let mut copies = descriptors.iter().map(copy).collect::<Result<Vec<_>, _>>()?;
        let control = copies.remove(0);
        let held = Held { spec: spec.clone(), descriptors, udp_trains, binding, binding_before: binding };
        link.taps.insert(TapName::of(spec), held);
        Ok(OpenTap { queues: copies, control, queue_frames, udp_trains, existed })
    }

    fn open_udp(&self, address: SocketAddr, purpose: UdpUse) -> Result<OwnedFd, OpenError> {
        let mut link = self.shared.lock();
        let (answer, descriptors) = self.ask(&mut link, &Ask::Udp { address, purpose })?;
        let (Answer::Udp {}, Some(socket)) = (answer, descriptors.into_iter().next()) else {
            return Err(garbled("it speaks of something else than a socket"));
        };
        if purpose != UdpUse::Probe {
            let copy = copy(&socket)?;
            link.sockets.push((address, purpose, copy));
        }
        Ok(socket)
    }

    fn configure_tap(&self, _control: BorrowedFd<'_>, spec: &TapSpec) -> Result<(), OpenError> {
        let mut link = self.shared.lock();
        if let Some(held) = link.taps.get_mut(&TapName::of(spec)) {
            held.spec = spec.clone();
        }
        self.ask(&mut link, &Ask::Configure { spec: spec.clone() }).map(drop)
    }

    fn mark_of(&self, spec: &TapSpec) -> Option<u64> {
        self.shared.lock().taps.get(&TapName::of(spec))?.binding_before
    }

    fn mark_tap(&self, spec: &TapSpec, binding: u64) {
        let tap = TapName::of(spec);
        let mut link = self.shared.lock();
        match link.taps.get_mut(&tap) {
            Some(held) if held.binding != Some(binding) => held.binding = Some(binding),
            _ => return,
        }
        // In vain only without a keeper, and then there is nobody whose memory could be wrong: a successor learns it
        // with the descriptors.
        let _ = self.ask(&mut link, &Ask::Mark { tap, binding });
    }

    fn close_tap(&self, spec: &TapSpec) {
        let tap = TapName::of(spec);
        let mut link = self.shared.lock();
        if link.taps.remove(&tap).is_some() {
            let _ = self.ask(&mut link, &Ask::Close { tap });
        }
    }

    fn complete(&self) {
        if let Err(error) = self.expect_done(&Ask::Complete {}) {
            tracing::warn!(%error, "the keeper may keep what is not needed any more");
        }
    }
}
