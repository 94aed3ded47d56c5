//! The flow: lease → configuration → (placeholder: report the early success and wait) → apply → report → heartbeats, and
//! from the start again whenever the network changes.
//!
//! Three threads: one looks at the link and has the lease renewed, whatever the others do; one holds a request to the
//! metadata service; this one decides. Never here: how a system is changed.

mod apply;

use crate::{
    config::{GuestConfig, GuestReport, Phase},
    lease::{LeaseSource, Mark},
    link::{Carrier, Change},
    linux::Tree,
    log::say,
    metadata::{Answer, Metadata, MetadataError},
    os::Os,
    state::{Applied, State},
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a request for a newer configuration is held.
const HOLD: Duration = Duration::from_secs(25);
/// While a lease is awaited, one looks for it the less often the longer it takes: the look that finds it comes late by a small
/// share of the wait, and a hundred guests that wait on one host leave it time for what they wait for.
const LEASE_POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
const LEASE_POLL_SHARE: u32 = 32;
/// A client that has not given its lease up by then will not.
const RELEASE_PATIENCE: Duration = Duration::from_millis(500);
/// A client that has been told to renew and has no lease is told again after this time, and after twice as long each further time.
const RENEW_AGAIN: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts to reach the service.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// After so much silence the lease is taken to be another network's. It is renewed at most this often.
const SILENCE: Duration = Duration::from_millis(500);
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Beginning of the metadata service's paths.
    pub metadata: String,
    /// Where that is.
    pub service: SocketAddr,
    /// The interface's directory below `/sys/class/net`.
    pub interface: PathBuf,
    /// How often the link is looked at.
    pub carrier_poll: Duration,
    /// How often life is reported.
    pub heartbeat: Duration,
    /// How long the customer's script may run.
    pub script_limit: Duration,
    /// A file that exists while there is a lease and is replaced with each new one.
    pub lease_file: Option<PathBuf>,
}

/// What wakes the flow.
enum Event {
    /// The link came back; what lease there was before it went.
    Link(Mark),
    /// A newer configuration, and which life of the network it was read in.
    Config(Result<Box<GuestConfig>, MetadataError>, u64),
}

/// Runs for ever; ends only when its threads have.
pub fn run(settings: &Settings, os: &Arc<dyn Os>, tree: &Tree) {
    let lease = LeaseSource { file: settings.lease_file.clone(), service: settings.service };
    let (events, inbox) = channel();
    let link =
        Link { settings: settings.clone(), os: Arc::clone(os), lease: lease.clone(), events: events.clone() };
    thread::spawn(move || link.watch());
    let flow =
        Flow { settings, os: os.as_ref(), tree, lease, state: State::load(tree), events, inbox, life: 0 };
    flow.run();
}

/// The thread that looks at the link.
struct Link {
    settings: Settings,
    os: Arc<dyn Os>,
    lease: LeaseSource,
    events: Sender<Event>,
}

impl Link {
    fn watch(self) {
        let mut carrier = Carrier::new(self.settings.interface.clone());
        let mut released = None;
        loop {
            match carrier.look() {
                Change::None => {}
                // A client that was started with the interface is asking already.
                Change::Found if released.is_none() => {}
                Change::Down => released = Some(self.release()),
                Change::Found | Change::Up => {
                    let mark = released.take().unwrap_or_else(|| self.release());
                    renew(&self.lease, &mark, self.os.as_ref());
                    if self.events.send(Event::Link(mark)).is_err() {
                        return;
                    }
                }
            }
            thread::sleep(self.settings.carrier_poll);
        }
    }

    fn release(&self) -> Mark {
        let mark = self.lease.mark();
        self.os.release_lease();
        mark
    }
}

/// Has a lease renewed that was released at `mark`. A client that is told both by signals may hear the second one first, if it did
/// not run in between, and would then wait for ever.
fn renew(lease: &LeaseSource, mark: &Mark, os: &dyn Os) {
    let end = Instant::now() + RELEASE_PATIENCE;
    while lease.is_still(mark) && Instant::now() < end {
        thread::sleep(LEASE_POLL.0);
    }
    os.renew_lease();
}

/// Why a wait ended.
enum Wake {
    Link(Mark),
    Config(Box<GuestConfig>),
    Broken(MetadataError),
    Time,
    Over,
}

struct Flow<'a> {
    settings: &'a Settings,
    os: &'a dyn Os,
    tree: &'a Tree,
    lease: LeaseSource,
    state: State,
    events: Sender<Event>,
    inbox: Receiver<Event>,
    /// Counts the lives of the network, so that what an abandoned thread says is not heard.
    life: u64,
}

/// How a life of the network ended.
enum End {
    Link(Mark),
    /// The service broke off; the lease may still be good.
    Broken,
    Over,
}

impl Flow<'_> {
    fn run(mut self) {
        let mut mark = None;
        let mut renewed: Option<Instant> = None;
        loop {
            match self.wait_for_lease(mark.take()) {
                Ok(()) => {}
                Err(End::Link(newer)) => {
                    mark = Some(newer);
                    continue;
                }
                Err(End::Broken | End::Over) => return,
            }
            self.life += 1;
            let begun = Instant::now();
            let metadata = Metadata::new(&self.settings.metadata);
            let end = self.live(&metadata, &mut renewed);
            metadata.shutdown();
            match end {
                End::Link(newer) => mark = Some(newer),
                // A service that breaks off at once, again and again, must not be asked in a frenzy.
                End::Broken if begun.elapsed() < RETRY.1 => {
                    if let Wake::Link(newer) = self.wait(RETRY.1 / 4) {
                        mark = Some(newer);
                    }
                }
                End::Broken => {}
                End::Over => return,
            }
        }
    }

    /// Waits for a lease newer than `mark`.
    fn wait_for_lease(&self, mut mark: Option<Mark>) -> Result<(), End> {
        let begun = Instant::now();
        let mut patience = RENEW_AGAIN;
        loop {
            if self.lease.arrived(&mut mark) {
                return Ok(());
            }
            if mark.is_some() && begun.elapsed() >= patience {
                patience *= 2;
                self.os.renew_lease();
            }
            let pause = (begun.elapsed() / LEASE_POLL_SHARE).clamp(LEASE_POLL.0, LEASE_POLL.1);
            match self.wait(pause) {
                Wake::Link(newer) => return Err(End::Link(newer)),
                Wake::Over => return Err(End::Over),
                Wake::Config(_) | Wake::Broken(_) | Wake::Time => {}
            }
        }
    }

    fn wait(&self, limit: Duration) -> Wake {
        match self.inbox.recv_timeout(limit) {
            Ok(Event::Link(mark)) => self.latest(mark),
            Ok(Event::Config(_, life)) if life != self.life => Wake::Time,
            Ok(Event::Config(Ok(config), _)) => Wake::Config(config),
            Ok(Event::Config(Err(error), _)) => Wake::Broken(error),
            Err(RecvTimeoutError::Timeout) => Wake::Time,
            Err(RecvTimeoutError::Disconnected) => Wake::Over,
        }
    }

    /// Of several bounces that came while something else was done the last one counts.
    fn latest(&self, mark: Mark) -> Wake {
        let later = self.inbox.try_iter().filter_map(|event| match event {
            Event::Link(mark) => Some(mark),
            Event::Config(..) => None,
        });
        Wake::Link(later.last().unwrap_or(mark))
    }

    /// From a lease to the next change of the network.
    fn live(&mut self, metadata: &Metadata, renewed: &mut Option<Instant>) -> End {
        let mut report = match self.first_config(metadata, renewed) {
            Ok(report) => Some(report),
            Err(end) => return end,
        };
        self.hold(metadata);
        let mut pause = RETRY.0;
        let mut beat = Instant::now() + self.settings.heartbeat;
        loop {
            if let Some(due) = &report {
                match metadata.report(due) {
                    Ok(()) => {
                        self.reported(due);
                        report = None;
                        pause = RETRY.0;
                    }
                    Err(MetadataError::Status(429)) => pause = RETRY.1,
                    Err(error @ (MetadataError::Status(400..=499) | MetadataError::Malformed { .. })) => {
                        say(format_args!("the report was not taken: {error}"));
                        report = None;
                    }
                    Err(_) => pause = (pause * 2).min(RETRY.1),
                }
            }
            let limit = if report.is_some() { pause } else { beat.saturating_duration_since(Instant::now()) };
            match self.wait(limit) {
                Wake::Link(mark) => return End::Link(mark),
                Wake::Config(config) => report = Some(self.take(&config)),
                Wake::Broken(MetadataError::Malformed { generation, problem }) => {
                    report = Some(self.refuse(generation, problem));
                    self.hold(metadata);
                }
                Wake::Broken(_) => return End::Broken,
                Wake::Time if report.is_none() => {
                    report = Some(self.report(Phase::Alive, None));
                    beat = Instant::now() + self.settings.heartbeat;
                }
                Wake::Time => {}
                Wake::Over => return End::Over,
            }
        }
    }

    /// Reads the configuration, as often as it takes, and does what it says.
    fn first_config(
        &mut self,
        metadata: &Metadata,
        renewed: &mut Option<Instant>,
    ) -> Result<GuestReport, End> {
        let mut pause = RETRY.0;
        let mut silent_since = None;
        loop {
            match metadata.config() {
                Ok(Answer::Config(config)) => return Ok(self.take(&config)),
                Err(MetadataError::Malformed { generation, problem }) => {
                    return Ok(self.refuse(generation, problem));
                }
                Err(MetadataError::Silence(_)) => {
                    let since = *silent_since.get_or_insert_with(Instant::now);
                    let may = renewed.is_none_or(|at| at.elapsed() > RENEWAL_PAUSE);
                    if may && since.elapsed() >= SILENCE {
                        // The port may have moved without a bounce: then the lease is the old network's.
                        *renewed = Some(Instant::now());
                        let mark = self.lease.mark();
                        self.os.release_lease();
                        renew(&self.lease, &mark, self.os);
                        return Err(End::Link(mark));
                    }
                }
                Ok(_) | Err(_) => silent_since = None,
            }
            match self.wait(pause) {
                Wake::Link(mark) => return Err(End::Link(mark)),
                Wake::Over => return Err(End::Over),
                Wake::Config(_) | Wake::Broken(_) | Wake::Time => pause = (pause * 2).min(RETRY.1),
            }
        }
    }

    /// Starts the thread that holds a request for a newer configuration, until something breaks.
    fn hold(&self, metadata: &Metadata) {
        let (metadata, events, life) = (metadata.clone(), self.events.clone(), self.life);
        let mut after = self.state.applied.as_ref().map_or(0, |applied| applied.generation);
        thread::spawn(move || {
            loop {
                let news = match metadata.config_after(after, HOLD) {
                    Ok(Answer::Config(config)) => {
                        // A service that does not hold requests must not be asked in a frenzy.
                        if config.generation <= after {
                            thread::sleep(RETRY.1);
                            continue;
                        }
                        after = config.generation;
                        Ok(config)
                    }
                    Ok(Answer::Unchanged) => continue,
                    Ok(Answer::Nothing) => {
                        thread::sleep(RETRY.1);
                        continue;
                    }
                    Err(error) => {
                        if matches!(error, MetadataError::Malformed { generation, .. } if generation <= Some(after))
                        {
                            thread::sleep(RETRY.1);
                        }
                        Err(error)
                    }
                };
                let last = news.is_err();
                if events.send(Event::Config(news, life)).is_err() || last {
                    return;
                }
            }
        });
    }

    /// Does what a configuration says, if that was not done before, and gives what there is to report.
    fn take(&mut self, config: &GuestConfig) -> GuestReport {
        if self.state.vm_id != config.vm_id {
            // Another VM's traces: this disk is a copy.
            self.state = State { vm_id: config.vm_id.clone(), ..State::default() };
        }
        if let Some(applied) = &self.state.applied
            && (config.generation < applied.generation
                || config.generation == applied.generation && config.partial == applied.partial)
        {
            return match applied.reported {
                true => self.report(Phase::Alive, None),
                false => self.outcome(applied),
            };
        }
        let failure = self.apply(config);
        if let Some(failure) = &failure {
            say(format_args!("generation {}: {failure}", config.generation));
        }
        let applied =
            Applied { generation: config.generation, partial: config.partial, failure, reported: false };
        let report = self.outcome(&applied);
        self.state.applied = Some(applied);
        self.save();
        report
    }

    /// Reports a document that is not understood.
    fn refuse(&mut self, generation: Option<u64>, problem: String) -> GuestReport {
        say(&problem);
        let known = self.state.applied.as_ref().map_or(0, |applied| applied.generation);
        let generation = generation.unwrap_or(known);
        if generation > known {
            let failure = Some(problem.clone());
            self.state.applied = Some(Applied { generation, partial: false, failure, reported: false });
            self.save();
        }
        GuestReport { generation, ..self.report(Phase::Failed, Some(problem)) }
    }

    fn outcome(&self, applied: &Applied) -> GuestReport {
        let phase = match (&applied.failure, applied.partial) {
            (Some(_), _) => Phase::Failed,
            (None, true) => Phase::Partial,
            (None, false) => Phase::Ready,
        };
        GuestReport { generation: applied.generation, ..self.report(phase, applied.failure.clone()) }
    }

    fn report(&self, phase: Phase, detail: Option<String>) -> GuestReport {
        GuestReport {
            generation: self.state.applied.as_ref().map_or(0, |applied| applied.generation),
            phase,
            detail,
            boot_id: self.os.boot_id().unwrap_or_default(),
            hostname: self.os.hostname(),
            addresses: self.lease.network().into_iter().collect(),
        }
        .bounded()
    }

    /// The host has taken a report.
    fn reported(&mut self, report: &GuestReport) {
        if let Some(applied) = &mut self.state.applied
            && applied.generation == report.generation
            && report.phase != Phase::Alive
            && !applied.reported
        {
            applied.reported = true;
            self.save();
        }
    }

    fn save(&self) {
        if let Err(error) = self.state.save(self.tree) {
            say(format_args!("what was done cannot be remembered: {error}"));
        }
    }
}
