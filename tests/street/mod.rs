//! The stage of the hostile tests: the hosts and guests of the table of attacks (tests/attacks), with witnesses.
#![allow(dead_code, reason = "each test file uses its own part of the street")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what broke by panicking"
)]

use control::lab::{Capture, Guest, Host, Process, Switch, SwitchOptions, Tool, World};
use rustix::process::Signal;
use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::attacks::{BOB, CAROL, DAVE, DIRECTORY, EVE, HOST_A, HOST_B, bytes::Mac};
use crate::scene::{self, PATIENCE, Scene, say, until};

/// Counters of a switch, by owner ("(underlay)" or a port's name), kind and name.
pub(crate) type Counts = BTreeMap<(String, &'static str, String), u64>;

/// Takes what comes to some UDP ports, so that no guest answers an attack by an ICMP error that quotes it.
const SINK: &str = r#"
my @sinks = map { socket(my $s, 2, 2, 17) or die; bind($s, pack("S n N x8", 2, $_, 0)) or die "bind: $!"; $s } @ARGV;
sleep 1000;
"#;

pub(crate) struct Street {
    pub(crate) eve: Guest,
    pub(crate) bob: Guest,
    pub(crate) others: Vec<Guest>,
    pub(crate) a: Switch,
    pub(crate) b: Switch,
    pub(crate) host_a: Host,
    _sinks: Vec<Process>,
    pub(crate) scene: Scene,
}

impl Street {
    pub(crate) fn new(encapsulation: &'static str) -> Self {
        let scene = Scene::new(&[Tool::TCPDUMP, Tool::PING]);
        let options = SwitchOptions { encapsulation, ..SwitchOptions::default() };
        let (host_a, a) = scene.switch("host-a", 1, &options);
        let (_, b) = scene.switch("host-b", 2, &options);
        let guest = |name| Guest::new(&scene.world, name).unwrap();
        let (eve, bob) = (guest("eve"), guest("bob"));
        let others = vec![guest("ben"), guest("carol"), guest("dave")];
        let files = tempfile::tempdir().unwrap();
        let directory: String = DIRECTORY
            .iter()
            .map(|(network, ip, mac, host)| format!("{{\"network\": {network}, \"ip\": \"{ip}\", \"mac\": \"{mac}\", \"physical_ip\": \"{host}\"}}\n"))
            .collect();
        for (switch, document) in [(&a, HOST_A), (&b, HOST_B)] {
            for (name, text, verb) in
                [("document", document, "apply"), ("directory", &directory, "directory import")]
            {
                let file = files.path().join(name);
                fs::write(&file, text).unwrap();
                say(switch, &format!("{verb} {}", file.display()));
            }
        }
        for (guest, last) in [(&eve, 1), (&bob, 2), (&others[0], 5), (&others[1], 3), (&others[2], 4)] {
            guest.set_address(Ipv4Addr::new(10, 0, 0, last), 24).unwrap();
        }
        let mut sinks = Vec::new();
        // The street is in order before anybody misbehaves.
        for guest in [&eve, &bob].into_iter().chain(&others) {
            sinks.push(guest.spawn("perl", &["-e", SINK, "7", "68", "4789"]).unwrap());
        }
        bob.wait_for_ping([10, 0, 0, 5].into(), PATIENCE).unwrap();
        bob.wait_for_ping([10, 0, 0, 4].into(), PATIENCE).unwrap();
        eve.wait_for_ping([10, 0, 0, 2].into(), PATIENCE).unwrap();
        Self { eve, bob, others, a, b, host_a, _sinks: sinks, scene }
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.scene.world
    }

    /// What host A has counted.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        let name = |value: &serde_json::Value| value.as_str().unwrap_or("(underlay)").to_owned();
        for drop in say(&self.a, "drops")["drops"].as_array().unwrap() {
            let key = (name(&drop["port"]), "drop", name(&drop["reason"]));
            counts.insert(key, drop["packets"].as_u64().unwrap());
        }
        let stats = say(&self.a, "stats");
        let ports = stats["ports"].as_array().unwrap().iter().map(|port| (name(&port["port"]), port));
        for (owner, traffic) in ports.chain([("(underlay)".to_owned(), &stats["underlay"])]) {
            for (trap, count) in traffic["traps"].as_object().unwrap() {
                counts.insert((owner.clone(), "trap", trap.clone()), count.as_u64().unwrap());
            }
        }
        counts
    }

    /// Waits until exactly `expected` has been counted since `before`; whatever else is counted fails.
    pub(crate) fn counted(&self, what: &str, before: &Counts, expected: &Counts) {
        let mut after = Counts::new();
        until(
            &format!(
                "{what} to be counted as {expected:?}; counted so far: {:?}",
                moves(before, &self.counts())
            ),
            || {
                after = moves(before, &self.counts());
                expected.iter().all(|(key, count)| after.get(key).is_some_and(|now| now >= count))
            },
        );
        assert_eq!(&after, expected, "{what}: exactly this is counted");
    }

    /// Both switches are alive.
    pub(crate) fn stands(&self) {
        for switch in [&self.a, &self.b] {
            let alive = switch.process().is_some_and(|process| scene::is_alive(process.pid()));
            assert!(alive, "{}", switch.log());
        }
    }
}

/// What was counted in between. Answers to the honest guests' own ARP are the street's everyday noise.
fn moves(before: &Counts, after: &Counts) -> Counts {
    let moved = after.iter().map(|(key, count)| (key.clone(), count - before.get(key).unwrap_or(&0)));
    moved
        .filter(|((owner, kind, _), count)| {
            *count > 0 && !(*kind == "trap" && owner != "eve" && owner != "(underlay)")
        })
        .collect()
}

/// Honest guests that ping each other all the while.
pub(crate) struct Honest(Vec<(String, Process)>, Instant);

impl Honest {
    /// Bob pings ben on his own host and dave on the other one.
    pub(crate) fn start(street: &Street) -> Self {
        let ping = |to: &str| {
            let process = street.bob.spawn("ping", &["-n", "-i", "0.1", to]).unwrap();
            (to.to_owned(), process)
        };
        Self(vec![ping("10.0.0.5"), ping("10.0.0.4")], Instant::now())
    }

    /// Ends the pings: at least `share` of 100 were answered.
    pub(crate) fn were_served(self, share: u32) {
        // A process has no count of its pings to show before it ends; here are some fifteen of them.
        std::thread::sleep(Duration::from_millis(1500).saturating_sub(self.1.elapsed()));
        for (to, mut process) in self.0 {
            process.signal(Signal::INT);
            process.wait(Duration::from_secs(20)).ok();
            let output = process.output();
            let summary = output
                .lines()
                .find(|line| line.contains("packets transmitted"))
                .unwrap_or_else(|| panic!("{output}"));
            let mut numbers = summary.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
            let (sent, answered) = (numbers.next().unwrap(), numbers.next().unwrap());
            assert!(sent >= 3, "bob has pinged {to} only {sent} times");
            // The last one may still have been under way.
            assert!((answered + 1) * 100 >= sent * share, "bob to {to}: {summary}");
        }
    }
}

/// Captures of what comes to guests, and of what passes on the physical network.
pub(crate) struct Witnesses(Vec<(String, Capture)>);

impl Witnesses {
    pub(crate) fn at(street: &Street, places: &[(&str, &str)]) -> Self {
        let witness = |&(netns, device): &(&str, &str)| {
            (device.to_owned(), Capture::start(street.world(), netns, device, "").unwrap())
        };
        Self(places.iter().map(witness).collect())
    }

    /// Ends the captures and tells who saw which row's mark how often.
    pub(crate) fn tell(mut self) -> BTreeMap<(String, usize), usize> {
        let mut seen = BTreeMap::new();
        for (place, capture) in &mut self.0 {
            let records = capture.stop().unwrap();
            let own = MACS.iter().find(|(name, _)| name == place).map(|(_, mac)| *mac);
            assert!(place == "carol" || !records.is_empty(), "{place} has seen not even the pings");
            let sent = |bytes: &[u8]| own.is_some_and(|own| bytes.get(6..12) == Some(&own[..]));
            let came = records.iter().filter(|record| !sent(&record.bytes));
            for row in came.filter_map(|record| row_of(&record.bytes)) {
                *seen.entry((place.clone(), row)).or_default() += 1;
            }
        }
        seen
    }
}

const MACS: [(&str, Mac); 5] =
    [("eve", EVE), ("bob", BOB), ("carol", CAROL), ("dave", DAVE), ("ben", [2, 0, 0, 0, 0, 5])];

/// The row whose mark is in these bytes.
fn row_of(bytes: &[u8]) -> Option<usize> {
    const HEAD: &[u8] = b"-attack-";
    let at = bytes.windows(HEAD.len()).position(|window| window == HEAD)? + HEAD.len();
    std::str::from_utf8(bytes.get(at..at + 4)?).ok()?.parse().ok()
}

/// A MAC address as the kernel writes it.
pub(crate) fn mac(text: &str) -> Mac {
    let octets: Vec<u8> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap()
}
