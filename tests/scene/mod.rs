//! The stage of the end-to-end tests: one world at a time, hosts on a physical network, and a switch on each that
//! has one. Every test file uses a part of it.
#![allow(dead_code, reason = "each test file uses its own part of the stage")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use control::lab::{Guest, Host, Switch, SwitchOptions, Tool, World, make_fabric, require};
use std::{
    fs::File,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Long enough for anything on a loaded machine with two cores; a test waits for conditions, never for time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
pub(crate) fn shunt() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_shunt"))
}

/// A world with a physical network, and the right to be the only one that runs.
pub(crate) struct Scene {
    pub(crate) world: Arc<World>,
    /// Released last, when the world is gone.
    _turn: File,
}

impl Scene {
    /// Waits for its turn and makes an empty world.
    ///
    /// # Panics
    /// With a sentence when this machine cannot run it (no root, a program missing).
    pub(crate) fn new(tools: &[Tool]) -> Self {
        assert!(
            is_root(),
            "this test makes network namespaces: run it as root (sudo env PATH=\"$PATH\" cargo test)"
        );
        if let Err(error) = require(tools) {
            panic!("{error}; `make test` installs what is missing");
        }
        let turn = turn();
        let world = Arc::new(World::new().unwrap_or_else(|error| panic!("{error}")));
        make_fabric(&world).expect("the physical network");
        Self { world, _turn: turn }
    }

    /// A host with the physical IP 192.0.2.`last`.
    pub(crate) fn host(&self, name: &str, last: u8) -> Host {
        Host::new(&self.world, name, [192, 0, 2, last].into()).expect("a host")
    }

    /// A host with a running switch.
    pub(crate) fn switch(&self, name: &str, last: u8, options: &SwitchOptions) -> (Host, Switch) {
        let host = self.host(name, last);
        let switch =
            Switch::new(&self.world, shunt(), &host, options).unwrap_or_else(|error| panic!("{error}"));
        (host, switch)
    }

    /// A guest whose port is made by `switch`; its address is set when `dhcp` is not wanted.
    pub(crate) fn guest(&self, switch: &Switch, name: &str, vni: u32, mac: &str, ip: &str) -> Guest {
        let guest = Guest::new(&self.world, name).expect("a guest");
        say(switch, &format!("port add {name} --network {vni} --mac {mac} --ip {ip} --netns {name}"));
        guest
    }

    /// The same with its address set by hand.
    pub(crate) fn static_guest(&self, switch: &Switch, name: &str, vni: u32, mac: &str, ip: &str) -> Guest {
        let guest = self.guest(switch, name, vni, mac, ip);
        guest.set_address(ip.parse().expect("an IPv4 address"), 24).expect("to set the address");
        guest
    }
}

/// The right to be the only one that runs: the tests of all binaries share two cores and judge traffic.
pub(crate) fn turn() -> File {
    let turn =
        File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("end-to-end.lock")).expect("lock file");
    turn.lock().expect("to get the lock of the end-to-end tests");
    turn
}

/// Runs a verb that must succeed.
pub(crate) fn say(switch: &Switch, line: &str) -> serde_json::Value {
    switch.say(line).unwrap_or_else(|failure| panic!("{failure}\nthe switch's log:\n{}", switch.log()))
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {} s in vain for {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Does a process with this id exist, zombies aside?
pub(crate) fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// The ids of all processes whose PID namespace is that of `anchor`.
pub(crate) fn inhabitants(anchor: u32) -> Vec<u32> {
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(anchor);
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| wanted.is_some() && namespace(*pid) == wanted).collect()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
