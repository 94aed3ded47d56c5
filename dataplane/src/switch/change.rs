//! The walk of a change, from the document to the moment when no worker acts by the old one.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::bounce::Bounce;
use super::{Desired, Switch, SwitchError, lock};
use crate::desired::{ConfigError, HostConfig, Label, PortConfig, PortName, RuleConfig};
use crate::port::open::{OpenError, Opener, TapSpec};
use crate::port::{Device, Interface, open_interface};
use crate::publish::Version;
use crate::tables::{Port, Progress, Tables};
use crate::types::{CustomerIp, Generation, Mtu, Nanos, Vni};
use crate::worker::Plane;

/// A change that is durable, in force and settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The document's.
    pub generation: Generation,
    /// From the change's arrival to the new snapshot being the one that workers take: building and the write to disk
    /// included.
    pub swap_ns: u64,
    /// From the change's arrival to every worker being past the old snapshot.
    pub settled_ns: u64,
}

/// Where a port moves to, all of it in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The network.
    pub network: Vni,
    /// The guest's addresses there.
    pub ips: Vec<CustomerIp>,
    /// The port's rules there; `None`: those that it has.
    pub rules: Option<Vec<RuleConfig>>,
    /// The port's label there; `None`: the one that it has.
    pub label: Option<Label>,
}

/// A change of one port, to be told by `port show`.
pub(super) struct Record {
    pub(super) change: Change,
    pub(super) at: SystemTime,
    pub(super) received: Nanos,
    pub(super) progress: Arc<Progress>,
}

/// A worker that has not confirmed a snapshot by then is broken, not slow.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// Marks a TAP in whose queues frames of more than one binding may wait: no binding has this number.
const BETWEEN_BINDINGS: u64 = 0;
/// How long a removal waits for its interface to vanish.
const LET_GO_LIMIT: Duration = Duration::from_secs(1);

impl Switch {
    /// Puts a whole document in force.
    ///
    /// # Errors
    /// An older generation, the generation in force with other content, or what a change may meet. The very document in
    /// force is accepted again and changes nothing.
    pub fn apply(&self, document: HostConfig) -> Result<Change, SwitchError> {
        let received = self.clock.now();
        let mut desired = lock(&self.desired);
        let current = desired.document.generation;
        if document.generation < current {
            return Err(ConfigError::OlderGeneration { offered: document.generation, current }.into());
        }
        if document.generation == current {
            return if document.same_content(&desired.document) {
                let now = self.clock.now().0.saturating_sub(received.0);
                Ok(Change { generation: current, swap_ns: now, settled_ns: now })
            } else {
                Err(ConfigError::SameGenerationOtherContent(current).into())
            };
        }
        self.change(&mut desired, document, None, received)
    }

    /// Puts the document in force that `edit` makes of the present one, as the next generation.
    ///
    /// # Errors
    /// What `edit` returns, and what a change may meet.
    pub fn edit(
        &self,
        edit: impl FnOnce(&mut HostConfig) -> Result<(), SwitchError>,
    ) -> Result<Change, SwitchError> {
        let received = self.clock.now();
        let mut desired = lock(&self.desired);
        let mut document = desired.document.as_ref().clone();
        document.generation = document.generation.next();
        edit(&mut document)?;
        self.change(&mut desired, document, None, received)
    }

    /// Moves a port to another network, or to other addresses: the atomic network change.
    ///
    /// To stay in the network with the same addresses is no change of its binding: then the link is left alone, unless there is
    /// another label and a certain hold is asked for.
    ///
    /// Returns when the change is settled: from then on none of the port's packets appears in the old network. With a
    /// bounce the link is down from before the swap until the hold has passed, which this call does not wait for.
    ///
    /// # Errors
    /// [`SwitchError::NoSuchPort`], and what a change may meet.
    pub fn move_port(&self, name: &PortName, to: Place, bounce: Bounce) -> Result<Change, SwitchError> {
        let received = self.clock.now();
        let mut desired = lock(&self.desired);
        let mut document = desired.document.as_ref().clone();
        document.generation = document.generation.next();
        let port = document
            .ports
            .iter_mut()
            .find(|port| port.name == *name)
            .ok_or_else(|| SwitchError::NoSuchPort(name.clone()))?;
        let moved: &mut PortConfig = Arc::make_mut(port);
        // A guest that stays where it is has nothing to ask for.
        let stays = moved.network == to.network && moved.ips == to.ips;
        moved.network = to.network;
        moved.ips = to.ips;
        if let Some(rules) = to.rules {
            moved.rules = rules;
        }
        let is_renamed = to.label.is_some() && moved.label != to.label;
        moved.label = to.label.or_else(|| moved.label.take());
        let bounce = match bounce {
            Bounce::Hold(hold) if is_renamed => Bounce::Hold(hold),
            _ if stays => Bounce::No,
            other => other,
        };
        let moved = self.change(&mut desired, document, Some((name, bounce)), received);
        moved.map_err(|error| match error {
            SwitchError::Config(error) => error.told_of(name).into(),
            other => other,
        })
    }

    /// The one walk that every change takes.
    fn change(
        &self,
        desired: &mut Desired,
        document: HostConfig,
        bounce: Option<(&PortName, Bounce)>,
        received: Nanos,
    ) -> Result<Change, SwitchError> {
        let before = self.publisher.current();
        let tables = before.tables.succeed(&document, self.counting())?;
        let opened = self.open_devices(desired, &tables)?;
        if let Err(error) = self.state.save(&document) {
            opened.discard(self.opener.as_ref());
            return Err(error.into());
        }
        // From here on the change goes forward: it is durable.
        desired.document = Arc::new(document);
        let devices = opened.keep(&mut desired.taps);
        let hold = bounce.and_then(|(name, bounce)| self.take_down(desired, name, bounce));
        let generation = tables.generation;
        let after = Arc::new(Plane::new(tables, devices));
        let version = self.publisher.publish(after.clone());
        let swap_ns = self.since(received);
        self.wake();
        let settled = self.settle(version);
        let change = Change { generation, swap_ns, settled_ns: self.since(received) };
        self.record(desired, &after, change, received);
        let removed = self.follow(desired, &before, &after);
        let bound = bound_anew(desired, &before, &after);
        drop(before);
        self.publisher.collect();
        self.let_go(removed);
        self.mark(desired, &bound, settled);
        if let (Some(hold), Some((name, _))) = (hold, bounce)
            && let Some(tap) = desired.taps.get(name)
        {
            self.bouncer.up_after(name, tap.clone(), hold);
        }
        if settled { Ok(change) } else { Err(SwitchError::NotSettled(generation)) }
    }

    /// The devices of `tables`: kept where the port was there before, opened where it is new. A port whose interface
    /// could not be opened when the switch started is tried again, and may fail again without stopping the change.
    fn open_devices(&self, desired: &Desired, tables: &Tables) -> Result<Opened, SwitchError> {
        let mut opened = Opened { devices: Vec::new(), new: Vec::new() };
        for port in tables.ports() {
            let name = &port.config.name;
            let before = desired.document.port(name);
            if let Some(before) = before
                && let Err(error) = same_device(before, &port.config)
            {
                opened.discard(self.opener.as_ref());
                return Err(error);
            }
            let tap = match (desired.taps.get(name), before) {
                (Some(tap), _) => Some(tap.clone()),
                (None, known) => match self.open_tap(tables, port) {
                    Ok(tap) => {
                        opened.new.push((tap_spec(tables, port), tap.clone()));
                        Some(tap)
                    }
                    Err(error) if known.is_some() => {
                        tracing::warn!(port = %name, %error, "the port's interface is still not to be had");
                        None
                    }
                    Err(source) => {
                        opened.discard(self.opener.as_ref());
                        return Err(SwitchError::Open { port: name.clone(), source });
                    }
                },
            };
            opened.place(port, tap);
        }
        Ok(opened)
    }

    pub(super) fn open_tap(&self, tables: &Tables, port: &Port) -> Result<Arc<dyn Interface>, OpenError> {
        open_interface(self.opener.as_ref(), &tap_spec(tables, port))
    }

    /// A link that cannot be taken down does not stop a durable change: the guest will learn at its next renewal.
    fn take_down(&self, desired: &Desired, name: &PortName, bounce: Bounce) -> Option<Duration> {
        let tap = desired.taps.get(name)?;
        self.bouncer.down(name, tap.as_ref(), bounce).unwrap_or_else(|error| {
            tracing::warn!(port = %name, %error, "the link could not be taken down; the guest follows at its next renewal");
            None
        })
    }

    /// Waits until every worker is past `version`. Workers pass within a batch, some microseconds, so it spins first.
    pub(super) fn settle(&self, version: Version) -> bool {
        let begun = Instant::now();
        self.publisher.wait_settled(version, |asked| {
            match asked {
                0..64 => std::hint::spin_loop(),
                64..1024 => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(50)),
            }
            begun.elapsed() < SETTLE_LIMIT
        })
    }

    /// What is left to do when nobody acts by `before` any more: let interfaces follow, and take out what is gone.
    fn follow(&self, desired: &mut Desired, before: &Plane, after: &Plane) -> Vec<Arc<dyn Interface>> {
        let gone = |name: &PortName| after.tables.port_named(name).is_none();
        let mut removed = Vec::new();
        for (name, tap) in desired.taps.extract_if(|name, _| gone(name)) {
            self.bouncer.forget(&name);
            if let Err(error) = tap.set_persistent(false) {
                tracing::warn!(port = %name, %error, "the interface of a removed port could not be removed");
            }
            if let Some(port) = before.tables.port_named(&name) {
                self.opener.close_tap(&tap_spec(&before.tables, port));
            }
            removed.push(tap);
        }
        desired.last_changes.retain(|name, _| !gone(name));
        desired.between.retain(|name| !gone(name));
        for port in after.tables.ports() {
            let name = &port.config.name;
            let (Some(old), Some(tap)) = (before.tables.port_named(name), desired.taps.get(name)) else {
                continue;
            };
            let (was, is) = (tap_spec(&before.tables, old), tap_spec(&after.tables, port));
            if (was.mtu, was.mac) != (is.mtu, is.mac)
                && let Err(error) = tap.configure(self.opener.as_ref(), &is)
            {
                tracing::warn!(port = %name, %error, "the interface could not follow its port's MTU and MAC address");
            }
        }
        removed
    }

    /// Tells the opener what the frames in the queues of these ports belong to: the new binding, when every worker has
    /// thrown away what had been sent before, and one that sleeps does so on waking; until then to none, so that a switch
    /// that dies has its successor throw it away, whatever the binding is by then.
    fn mark(&self, desired: &mut Desired, bound: &[(TapSpec, u64)], settled: bool) {
        if bound.is_empty() {
            return;
        }
        let is_over = settled && self.all_are_past();
        for (spec, binding) in bound {
            self.opener.mark_tap(spec, if is_over { *binding } else { BETWEEN_BINDINGS });
            if is_over {
                desired.between.remove(&spec.name);
            } else {
                desired.between.insert(spec.name.clone());
            }
        }
    }

    /// Waits until no worker, asleep or not, holds an older snapshot.
    fn all_are_past(&self) -> bool {
        let begun = Instant::now();
        while self.publisher.collect() > 0 {
            if begun.elapsed() > LET_GO_LIMIT {
                return false;
            }
            thread::sleep(Duration::from_micros(20));
        }
        true
    }

    /// An interface vanishes with its last descriptor. Workers and old snapshots give theirs up within a batch, or on
    /// waking; until then the port is not gone, and its name not free.
    fn let_go(&self, removed: Vec<Arc<dyn Interface>>) {
        let begun = Instant::now();
        while removed.iter().any(|tap| Arc::strong_count(tap) > 1) {
            if begun.elapsed() > LET_GO_LIMIT {
                tracing::warn!("the interface of a removed port is still held by a worker");
                return;
            }
            thread::sleep(Duration::from_micros(50));
            self.publisher.collect();
        }
    }

    fn record(&self, desired: &mut Desired, after: &Plane, change: Change, received: Nanos) {
        let at = SystemTime::now();
        for port in after.tables.ports().filter(|port| port.epoch == change.generation) {
            let record = Record { change, at, received, progress: port.progress.clone() };
            desired.last_changes.insert(port.config.name.clone(), record);
        }
    }

    fn since(&self, received: Nanos) -> u64 {
        self.clock.now().0.saturating_sub(received.0)
    }
}

/// Devices for a change that may still be refused.
struct Opened {
    devices: Vec<Option<Arc<dyn Device>>>,
    new: Vec<(TapSpec, Arc<dyn Interface>)>,
}

impl Opened {
    fn place(&mut self, port: &Port, tap: Option<Arc<dyn Interface>>) {
        let slot = port.id.index();
        if self.devices.len() <= slot {
            self.devices.resize(slot + 1, None);
        }
        if let Some(device) = self.devices.get_mut(slot) {
            *device = tap.map(|tap| tap as Arc<dyn Device>);
        }
    }

    fn keep(self, taps: &mut HashMap<PortName, Arc<dyn Interface>>) -> Vec<Option<Arc<dyn Device>>> {
        taps.extend(self.new.into_iter().map(|(spec, tap)| (spec.name, tap)));
        self.devices
    }

    /// Takes back what was opened for a change that is refused after all. An interface that was there before stays.
    fn discard(self, opener: &dyn Opener) {
        for (spec, tap) in self.new {
            if !tap.existed()
                && let Err(error) = tap.set_persistent(false)
            {
                tracing::warn!(port = %spec.name, %error, "the interface of a refused port could not be removed");
            }
            opener.close_tap(&spec);
        }
    }
}

/// What the opener needs to know about a port.
pub(super) fn tap_spec(tables: &Tables, port: &Port) -> TapSpec {
    TapSpec {
        name: port.config.name.clone(),
        kind: port.config.kind,
        netns: port.config.netns.clone(),
        mac: port.mac,
        mtu: tables.vnet(port.vnet).map_or(Mtu::ETHERNET, |vnet| vnet.mtu),
        queues: usize::from(port.config.queues),
        persistent: true,
    }
}

/// The ports with a device whose binding or device is new, or whose last mark had to wait, and the binding's number.
fn bound_anew(desired: &Desired, before: &Plane, after: &Plane) -> Vec<(TapSpec, u64)> {
    let is_new = |port: &&Arc<Port>| {
        let name = &port.config.name;
        let same = before
            .tables
            .port_named(name)
            .is_some_and(|old| old.epoch == port.epoch && before.device(old.id).is_some());
        (!same || desired.between.contains(name)) && desired.taps.contains_key(name)
    };
    let ports = after.tables.ports().filter(is_new);
    ports.map(|port| (tap_spec(&after.tables, port), binding(port))).collect()
}

/// A number for what a port's frames belong to: other whenever [`Port::epoch`] becomes another, and the same in every
/// release and every run. Never [`BETWEEN_BINDINGS`].
pub(super) fn binding(port: &Port) -> u64 {
    use std::fmt::Write;
    let mut text = format!("{} {}", port.vni, port.mac);
    for ip in &port.config.ips {
        // Writing to a string cannot fail.
        let _ = write!(text, " {ip}");
    }
    // FNV-1a. Nobody gains by two bindings that meet: both are the operator's own.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.max(BETWEEN_BINDINGS + 1)
}

fn same_device(old: &PortConfig, new: &PortConfig) -> Result<(), SwitchError> {
    let field = if old.netns != new.netns {
        "netns"
    } else if old.kind != new.kind {
        "kind"
    } else if old.queues != new.queues {
        "queues"
    } else {
        return Ok(());
    };
    Err(SwitchError::DeviceFixed { port: new.name.clone(), field })
}
