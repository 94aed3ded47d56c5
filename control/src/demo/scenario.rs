//! The play: who is on stage, what happens, and what must be true afterwards.

use super::{
    DemoError,
    report::{Check, Narrator, Operation, Report},
    verdicts::{self, Suspect, answers},
};
use crate::lab::{
    Capture, ClientKind, FABRIC, Guest, Host, Process, Switch, SwitchOptions, World, make_fabric, wait_until,
};
use std::{
    env, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const RED: u32 = 100;
const BLUE: u32 = 200;
const GATEWAY: &str = "10.0.0.254";
const OLD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const NEW: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);
/// Both networks have a neighbour at each of these, one on the mover's host and one on the other.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const MOVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x05];

/// Limit for anything that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// What has to come back over TCP before the change.
const WARM_BYTES: u64 = 256 * 1024;
/// How long the networks are watched after the change.
const WATCH: Duration = Duration::from_millis(1500);

/// A guest that talks.
struct Actor {
    guest: Guest,
    chatter: Process,
    address: Ipv4Addr,
}

/// The two ends of the TCP connection between neighbours that stay.
struct Stream {
    sender: Process,
    _other: Process,
}

/// What is true of the mover as long as it is the same running machine.
type Life = (u32, Option<u64>, u32, Option<u64>, String);

struct Stage {
    // Dropped in this order: the world last.
    actors: Vec<Actor>,
    a: Switch,
    b: Switch,
    world: Arc<World>,
}

/// Plays it all and judges.
pub(super) fn play(client: ClientKind, narrator: &Narrator) -> Result<Report, DemoError> {
    narrator.headline(
        "Two hosts, two networks that both use 10.0.0.0/24, and one guest, `web`, that changes its network\n\
         while it and its neighbours talk. Everything lives in namespaces that vanish afterwards.\n\n\
         \x20 network          host-a                                 host-b\n\
         \x20 red  (VNI 100)   web 10.0.0.5, red-near 10.0.0.11       red-far 10.0.0.10\n\
         \x20 blue (VNI 200)   blue-near 10.0.0.11                    blue-far 10.0.0.10\n",
    );
    let stage = Stage::set(narrator, client)?;
    let mut checks = vec![Check {
        name: "every guest got its address from the switch by DHCP",
        ok: stage
            .actors
            .iter()
            .all(|actor| matches!(actor.guest.address(), Ok(Some(is)) if is == actor.address)),
        seen: format!("{} guests, client {}", stage.actors.len(), client.tool().program),
    }];

    let mut capture = Capture::start(&stage.world, FABRIC, "to-host-a", "udp port 4789")?;
    stage.hear("red-near", 0)?;
    stage.hear("red-far", 0)?;
    let strangers = stage.heard_from(0, "blue");
    checks.push(Check {
        name: "before: web talks to its red neighbours on both hosts and to nobody of blue",
        ok: strangers == 0,
        seen: format!("{} answers of red, {strangers} of blue", stage.heard_from(0, "red")),
    });
    narrator.tell("web talks to red-near and red-far");
    let mut stream = stage.stream()?;
    narrator.tell("red-near and red-far keep a TCP connection busy");

    let life = stage.life()?;
    let (operation, asked_ns, acknowledged_ns) = stage.change_network(narrator)?;
    let blue_pings = stage.mover().guest.ping(FAR, 3)? && stage.mover().guest.ping(NEAR, 3)?;
    let red = stage.actor("red-far")?;
    let red_pings = [red.guest.ping(OLD, 3)?, red.guest.ping(NEW, 1)?];
    let bystanders = red.guest.ping(NEAR, 3)?;
    std::thread::sleep(WATCH);

    let suspect = Suspect { mac: MOVER_MAC, old: (RED, OLD), new: (BLUE, NEW), asked_ns, acknowledged_ns };
    let seen = verdicts::sightings(&capture.stop()?, &suspect);
    checks.extend(stage.judge_after(&life, acknowledged_ns)?);
    checks.push(Check {
        name: "new neighbours answer web's pings, on both hosts",
        ok: blue_pings,
        seen: "10.0.0.10 and 10.0.0.11 of blue".to_owned(),
    });
    checks.push(Check {
        name: "the old neighbour reaches web at neither address",
        ok: red_pings == [false, false],
        seen: "pings of red-far to 10.0.0.5 and 10.0.0.6".to_owned(),
    });
    checks.push(Check {
        name: "web's old neighbours still reach each other",
        ok: bystanders,
        seen: "ping of red-far to red-near".to_owned(),
    });
    let tcp = verdicts::streamed(&stream.sender.output(), asked_ns, acknowledged_ns);
    checks.push(Check {
        name: "their TCP connection lived through the change",
        ok: tcp.before > 0 && tcp.after > 0 && stream.sender.ended().is_none(),
        seen: format!(
            "{} KiB there and back before, {} KiB after; longest pause {} ms",
            tcp.before / 1024,
            tcp.after / 1024,
            tcp.longest_pause_ns / 1_000_000
        ),
    });
    checks.push(Check {
        name: "no packet of web was in the wrong network (capture between the hosts)",
        ok: seen.late == 0 && seen.early == 0 && seen.mixed == 0 && seen.right > 0,
        seen: format!(
            "{} packets; {} in red after the acknowledgement, {} in blue before the request, {} with the other's address",
            seen.right + seen.late + seen.early + seen.mixed,
            seen.late,
            seen.early,
            seen.mixed
        ),
    });
    narrator.tell("all is judged");
    Ok(Report { checks, operations: vec![operation] })
}

impl Stage {
    /// Hosts, switches, networks and guests, all talking.
    fn set(narrator: &Narrator, client: ClientKind) -> Result<Self, DemoError> {
        let binary = own_binary()?;
        let world = Arc::new(World::new()?);
        make_fabric(&world)?;
        let switch = |name: &str, last: u8| -> Result<Switch, DemoError> {
            let host = Host::new(&world, name, IpAddr::from([192, 0, 2, last]))?;
            Ok(Switch::new(&world, &binary, &host, &SwitchOptions::default())?)
        };
        let (a, b) = (switch("host-a", 1)?, switch("host-b", 2)?);
        for switch in [&a, &b] {
            for vni in [RED, BLUE] {
                switch.say(&format!("network add {vni} --prefix 10.0.0.0/24 --gateway {GATEWAY}"))?;
            }
        }
        narrator.tell("host-a and host-b run a switch each, joined by VXLAN");

        let mut stage = Self { actors: Vec::new(), a, b, world };
        // The mover first: its neighbours' directory entries follow.
        let cast = [
            ("web", RED, OLD, true, [FAR, NEAR], MOVER_MAC[5]),
            ("red-near", RED, NEAR, true, [OLD, NEW], 0x11),
            ("blue-near", BLUE, NEAR, true, [OLD, NEW], 0x12),
            ("red-far", RED, FAR, false, [OLD, NEW], 0x13),
            ("blue-far", BLUE, FAR, false, [OLD, NEW], 0x14),
        ];
        for (name, vni, address, on_a, neighbours, mac) in cast {
            let mac = format!("02:00:00:00:00:{mac:02x}");
            let (home, other, ip) =
                if on_a { (&stage.a, &stage.b, "192.0.2.1") } else { (&stage.b, &stage.a, "192.0.2.2") };
            let mut guest = Guest::new(&stage.world, name)?;
            home.say(&format!("port add {name} --network {vni} --mac {mac} --ip {address} --netns {name}"))?;
            other.say(&format!(
                "directory set --network {vni} --ip {address} --mac {mac} --physical-ip {ip}"
            ))?;
            guest.start_dhcp(client)?;
            if !client.watches_the_link() {
                guest.watch_carrier()?;
            }
            let chatter = talk(&guest, &binary, neighbours)?;
            stage.actors.push(Actor { guest, chatter, address });
        }
        for actor in &stage.actors {
            actor.guest.wait_for_address(actor.address, PATIENCE)?;
        }
        narrator.tell("five guests have their addresses from the switches' DHCP, and talk to whom they can");
        Ok(stage)
    }

    fn mover(&self) -> &Actor {
        #[expect(clippy::indexing_slicing, reason = "the stage is set with the mover first")]
        &self.actors[0]
    }

    fn actor(&self, name: &str) -> Result<&Actor, DemoError> {
        let missing = || DemoError::Io { act: "no such actor", source: io::ErrorKind::NotFound.into() };
        self.actors.iter().find(|actor| actor.guest.name() == name).ok_or_else(missing)
    }

    /// A busy TCP connection between the red neighbours, one on each host.
    fn stream(&self) -> Result<Stream, DemoError> {
        let binary = own_binary()?.display().to_string();
        let other = self.actor("red-far")?.guest.spawn(&binary, &["demo", "--stream"])?;
        let far = FAR.to_string();
        let sender = self.actor("red-near")?.guest.spawn(&binary, &["demo", "--stream", &far])?;
        wait_until("bytes over TCP between red-near and red-far", PATIENCE, || {
            let streamed = verdicts::streamed(&sender.output(), u64::MAX, u64::MAX);
            Ok((streamed.before >= WARM_BYTES).then_some(()))
        })?;
        Ok(Stream { sender, _other: other })
    }

    /// How many answers the mover has heard since `since_ns` from guests whose name begins with `network`.
    fn heard_from(&self, since_ns: u64, network: &str) -> usize {
        let log = self.mover().chatter.output();
        answers(&log).into_iter().filter(|(at, name)| *at > since_ns && name.starts_with(network)).count()
    }

    /// Waits until the mover hears an answer of `name` later than `since_ns`; when that was.
    fn hear(&self, name: &str, since_ns: u64) -> Result<u64, DemoError> {
        Ok(wait_until(&format!("web to hear {name}"), PATIENCE, || {
            let log = self.mover().chatter.output();
            Ok(answers(&log).into_iter().find(|(at, who)| *at > since_ns && *who == name).map(|(at, _)| at))
        })?)
    }

    /// Process ids and start times of the mover's init and talking program, and its MAC.
    fn life(&self) -> Result<Life, DemoError> {
        let Actor { guest, chatter, .. } = self.mover();
        Ok((guest.init().pid(), guest.init().started_at(), chatter.pid(), chatter.started_at(), guest.mac()?))
    }

    /// Moves `web` from red to blue as a controller would: make, swap, break.
    fn change_network(&self, narrator: &Narrator) -> Result<(Operation, u64, u64), DemoError> {
        let mut operation = Operation { kind: "network_change", ..Operation::default() };
        let mac = self.mover().guest.mac()?;
        let (asked, asked_ns) = (Instant::now(), now_ns());
        self.b
            .say(&format!("directory set --network {BLUE} --ip {NEW} --mac {mac} --physical-ip 192.0.2.1"))?;
        operation
            .steps
            .push(("make: host-b's directory learns web's new address".to_owned(), ms(asked.elapsed())));
        let step = Instant::now();
        let answer = self.a.say(&format!("port move web --network {BLUE} --ip {NEW}"))?;
        let acknowledged_ns = now_ns();
        operation.steps.push(("port move, from command to acknowledgement".to_owned(), ms(step.elapsed())));
        for (name, member) in
            [("of it: built and swapped", "swap_ns"), ("of it: settled at all workers", "settled_ns")]
        {
            let missing = || DemoError::Answer { verb: "port move", member };
            let ns = answer.get(member).and_then(serde_json::Value::as_f64).ok_or_else(missing)?;
            operation.steps.push((name.to_owned(), ns / 1e6));
        }
        narrator.tell("web's port was moved from red to blue, its link bounced");
        self.mover().guest.wait_for_address(NEW, PATIENCE)?;
        narrator.tell(&format!("web has its new lease, {NEW}"));
        let near = self.hear("blue-near", acknowledged_ns)?;
        let far = self.hear("blue-far", acknowledged_ns)?;
        operation.ready_ms = Some(ms(Duration::from_nanos(near.min(far).saturating_sub(asked_ns))));
        let step = Instant::now();
        self.b.say(&format!("directory remove --network {RED} --ip {OLD}"))?;
        operation
            .steps
            .push(("break: host-b's directory forgets web's old address".to_owned(), ms(step.elapsed())));
        narrator.tell("web hears blue-near and blue-far; its old address is forgotten");
        let shown = self.a.say("port show web")?;
        let time = |name: &str| shown.get("last_change")?.get(name)?.as_f64();
        operation.lease_ms = time("lease_ms");
        operation.first_packet_ms = time("first_packet_ms");
        Ok((operation, asked_ns, acknowledged_ns))
    }

    /// What must be true of the mover afterwards, in its own eyes.
    fn judge_after(&self, before: &Life, acknowledged_ns: u64) -> Result<Vec<Check>, DemoError> {
        let after = self.life()?;
        let log = self.mover().chatter.output();
        let red_late =
            answers(&log).into_iter().filter(|(at, name)| *at > acknowledged_ns && name.starts_with("red"));
        let (red_late, blue) = (red_late.count(), self.heard_from(acknowledged_ns, "blue"));
        let (old_life, new_life) =
            ((before.0, before.1, before.2, before.3), (after.0, after.1, after.2, after.3));
        let address = self.mover().guest.address()?;
        Ok(vec![
            Check {
                name: "no reboot: the same init and the same talking program",
                ok: old_life == new_life && after.1.is_some() && after.3.is_some(),
                seen: format!("process {} and {}", after.0, after.2),
            },
            Check { name: "the same MAC", ok: before.4 == after.4, seen: after.4 },
            Check {
                name: "a new lease with the new address",
                ok: address == Some(NEW)
                    && self.mover().guest.events().iter().any(|event| event.address == Some(NEW)),
                seen: address.map(|address| address.to_string()).unwrap_or_default(),
            },
            Check {
                name: "after: web's program hears only its blue neighbours",
                ok: red_late == 0 && blue > 0,
                seen: format!("{blue} answers of blue, {red_late} of red"),
            },
        ])
    }
}

/// The demonstration's players are this program too.
pub(super) fn own_binary() -> Result<PathBuf, DemoError> {
    env::current_exe().map_err(|source| DemoError::Io { act: "cannot find the program itself", source })
}

fn talk(guest: &Guest, binary: &Path, neighbours: [Ipv4Addr; 2]) -> Result<Process, DemoError> {
    let [first, second] = neighbours.map(|address| address.to_string());
    Ok(guest.spawn(&binary.display().to_string(), &["demo", "--chatter", guest.name(), &first, &second])?)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
