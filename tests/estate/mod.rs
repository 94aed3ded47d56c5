//! A cluster of processes with a tenant's machines in it, and the judge of what must be true of it whenever it is at rest,
//! whoever was killed before: rows, switches, directories, namespaces and guests tell the same.
#![allow(dead_code, reason = "each test file uses its own part of the estate")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use control::dev::Stage;
use control::model::JourneyKind;
use control::store::{Prefix, RedbStore, Store as _};
use control::workflow::FailPoint;
use serde_json::Value;

use crate::scene::{shunt, take_turn};

/// For what takes a second on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Machines that wait.
pub(crate) const POOL: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// The cluster, with the networks red and blue of tenant acme, both 10.0.0.0/24, and machines in each on both hosts.
pub(crate) struct Estate {
    pub(crate) stage: Stage,
    _turn: File,
}

/// A machine, as the API shows it.
#[derive(Clone, Debug)]
pub(crate) struct Machine(pub(crate) Value);

impl Machine {
    pub(crate) fn text(&self, member: &str) -> &str {
        text(&self.0, member)
    }

    pub(crate) fn name(&self) -> &str {
        self.text("name")
    }

    pub(crate) fn port(&self) -> &str {
        self.text("port")
    }

    pub(crate) fn addresses(&self) -> BTreeSet<String> {
        words(&self.0["addresses"])
    }

    /// Its only address.
    pub(crate) fn ip(&self) -> String {
        self.addresses().pop_first().expect("an address")
    }
}

/// A point at which the controller waits.
pub(crate) struct Hold {
    file: PathBuf,
}

impl Hold {
    /// Waits until the controller is there.
    pub(crate) fn reached(&self, estate: &Estate) {
        estate.until("the controller to be where it is held", || {
            if self.file.with_extension("reached").exists() {
                Ok(())
            } else {
                Err(self.file.display().to_string())
            }
        });
    }

    /// Lets it go on, or its successor.
    pub(crate) fn lift(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        // One that was killed there leaves it.
        let _ = fs::remove_file(self.file.with_extension("reached"));
    }
}

pub(crate) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value:#}"))
}

fn words(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn items(value: &Value, member: &str) -> Vec<Value> {
    value[member].as_array().cloned().unwrap_or_default()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, should: &T) -> Result<(), String> {
    if is == should { Ok(()) } else { Err(format!("{what}: {is:#?}\nand not {should:#?}")) }
}

impl Estate {
    pub(crate) fn new() -> Self {
        let turn = take_turn();
        let stage = Stage::start(shunt(), 2).unwrap_or_else(|error| panic!("{error}"));
        let estate = Self { stage, _turn: turn };
        estate.ok(&["tenant", "create", "acme"]);
        for network in ["red", "blue"] {
            estate.ok(&["network", "create", network, "--prefix", "10.0.0.0/24", "--tenant", "acme"]);
        }
        let size = POOL.to_string();
        estate.ok(&["pool", "create", "small", "--image", "tiny", "--min", &size, "--max", &size]);
        estate.rest();
        for network in ["red", "blue"] {
            let mut hosts = BTreeSet::new();
            for number in 1..20 {
                let name = format!("{network}-{number}");
                estate.done(&["vm", "create", &name, "--image", "tiny", "--network", network]);
                hosts.insert(estate.machine(&name).text("host").to_owned());
                if hosts.len() == 2 {
                    break;
                }
            }
        }
        estate.rest();
        estate
    }

    /// A verb that must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Value {
        self.stage.cli(arguments).unwrap_or_else(|error| panic!("{error}\n{}", self.logs()))
    }

    /// A verb of acme's; answers with the operation that it has begun.
    pub(crate) fn begin(&self, arguments: &[&str]) -> String {
        text(&self.ok(&[arguments, &["--tenant", "acme"]].concat()), "id").to_owned()
    }

    /// A verb of acme's whose operation must be done.
    pub(crate) fn done(&self, arguments: &[&str]) -> Value {
        let ended = self.ended(&self.begin(arguments));
        assert_eq!(text(&ended, "state"), "done", "{ended:#}\n{}", self.logs());
        ended
    }

    /// The operation, when it has ended.
    pub(crate) fn ended(&self, operation: &str) -> Value {
        self.until("an operation to end", || {
            let told =
                self.stage.cli(&["operation", "show", operation]).map_err(|error| error.to_string())?;
            let is_final = ["done", "undone", "failed"].contains(&text(&told, "state"));
            if is_final { Ok(told) } else { Err(format!("{told:#}")) }
        })
    }

    pub(crate) fn machine(&self, name: &str) -> Machine {
        Machine(self.ok(&["vm", "show", name, "--tenant", "acme"]))
    }

    /// The place of a host among the stage's, by its name or id.
    pub(crate) fn place(&self, host: &str) -> usize {
        let hosts = self.ok(&["host", "list"]);
        let hosts = items(&hosts, "items");
        let found = hosts.iter().find(|known| known["id"] == *host || known["name"] == *host);
        let name = text(found.unwrap_or_else(|| panic!("no host {host} in {hosts:#?}")), "name");
        self.stage.hosts().iter().position(|known| known.host.name == name).expect("a host of the stage")
    }

    /// From now on the controller waits there.
    pub(crate) fn hold(&self, kind: JourneyKind, step: &str, backward: bool, after: bool) -> Hold {
        if !cfg!(debug_assertions) {
            panic!("controllers of a release build know no fail points: run this test without --release");
        }
        let point = FailPoint { step: step.to_owned(), backward, after };
        let file = self.stage.fail_points().join(point.file(kind));
        fs::write(&file, "").expect("to write a fail point");
        Hold { file }
    }

    /// The next time that the controller comes to this step, it cannot be done.
    pub(crate) fn refuse(&self, kind: JourneyKind, step: &str) {
        let file = self.stage.fail_points().join(FailPoint::refusal_file(kind, step));
        fs::write(file, "").expect("to write a fail point");
    }

    /// Everybody's log.
    pub(crate) fn logs(&self) -> String {
        let switches = self.stage.hosts().iter();
        let switches = switches.map(|host| format!("== switch of {}\n{}", host.host.name, host.switch.log()));
        format!("{}\n{}", self.stage.logs(), switches.collect::<Vec<_>>().join("\n"))
    }

    /// Waits for something to hold.
    pub(crate) fn until<T>(&self, what: &str, mut holds: impl FnMut() -> Result<T, String>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            match holds() {
                Ok(value) => return value,
                Err(why) if Instant::now() > end => {
                    panic!("waited {} s in vain for {what}: {why}\n{}", PATIENCE.as_secs(), self.logs())
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Waits until nothing is under way any more and all tell the same; gives all machines.
    pub(crate) fn rest(&self) -> Vec<Machine> {
        self.until("the cluster to come to rest", || self.sound())
    }

    fn say(&self, arguments: &[&str]) -> Result<Value, String> {
        self.stage.cli(arguments).map_err(|error| error.to_string())
    }

    /// What must be true of a cluster at rest, or the first thing that is not.
    fn sound(&self) -> Result<Vec<Machine>, String> {
        let open = items(&self.say(&["operation", "list", "--open"])?, "items");
        same("operations under way", &open, &Vec::new())?;
        let pool = self.say(&["pool", "show", "small"])?;
        same("machines that are ready", &pool["ready"].as_u64(), &Some(POOL as u64))?;
        let machines: Vec<_> = items(&self.say(&["vm", "list"])?, "items").into_iter().map(Machine).collect();
        let hosts = items(&self.say(&["host", "list"])?, "items");
        let (mut owned, mut pooled, mut addresses) = (0, 0, BTreeSet::new());
        for machine in &machines {
            let of_pool = machine.0["partial"] == true;
            (owned, pooled) = (owned + u64::from(!of_pool), pooled + usize::from(of_pool));
            let state = if of_pool { "pooled" } else { "running" };
            same(&format!("the state of {:#}", machine.0), &machine.text("state"), &state)?;
            same("the operation that has it in hand", &machine.0["operation"], &Value::Null)?;
            same("what failed", &machine.0["failure"], &Value::Null)?;
            same("addresses of a machine", &machine.addresses().len(), &1)?;
            let address = (machine.text("moniker").to_owned(), machine.ip());
            if !addresses.insert(address) {
                return Err(format!("two machines have the address of {:#}", machine.0));
            }
        }
        same("machines of the pool", &pooled, &POOL)?;
        let acme = self.say(&["tenant", "show", "acme"])?;
        same("machines that acme is charged for", &acme["usage"]["vms"].as_u64(), &Some(owned))?;
        // One VNI for each moniker that has machines, the same at all hosts, and no other.
        let mut vnis = BTreeMap::new();
        let mut namespaces: BTreeSet<_> = machines.iter().map(|machine| machine.port().to_owned()).collect();
        for at in self.stage.hosts() {
            namespaces.extend([at.host.name.clone(), "fabric".to_owned()]);
            let found = hosts.iter().find(|host| host["name"] == *at.host.name);
            let row = found.ok_or_else(|| format!("no host {}", at.host.name))?;
            same("whether a host is connected", &row["connected"], &Value::Bool(true))?;
            let mine: BTreeMap<_, _> = machines
                .iter()
                .filter(|machine| machine.0["host"] == row["id"] || machine.0["host"] == row["name"])
                .map(|machine| (machine.port().to_owned(), machine))
                .collect();
            let ports = items(&at.switch.cli(&["port", "list"]).map_err(|error| error.to_string())?, "ports");
            let there: BTreeSet<_> = ports.iter().map(|port| text(port, "name").to_owned()).collect();
            same("ports", &there, &mine.keys().cloned().collect())?;
            for port in &ports {
                let machine = mine[text(port, "name")];
                same("a port's addresses", &words(&port["ips"]), &machine.addresses())?;
                same("a port's MAC address", &text(port, "mac"), &machine.text("mac"))?;
                same("a port's link", &text(port, "link"), &"up")?;
                let vni = port["network"].as_u64().ok_or("a port without a network")?;
                let known = vnis.entry(machine.text("moniker").to_owned()).or_insert(vni);
                same("the VNI of a moniker", &vni, known)?;
            }
        }
        same("monikers of one VNI", &vnis.values().collect::<BTreeSet<_>>().len(), &vnis.len())?;
        for at in self.stage.hosts() {
            let row = hosts.iter().find(|host| host["name"] == *at.host.name).expect("found before");
            let is_here =
                |machine: &&Machine| machine.0["host"] == row["id"] || machine.0["host"] == row["name"];
            let here: BTreeSet<_> =
                machines.iter().filter(is_here).map(|machine| vnis[machine.text("moniker")]).collect();
            let verb = |words: &[&str]| at.switch.cli(words).map_err(|error| error.to_string());
            let networks = items(&verb(&["network", "list"])?, "networks");
            let networks: BTreeSet<_> =
                networks.iter().filter_map(|network| network["vni"].as_u64()).collect();
            same(&format!("networks of {}", at.host.name), &networks, &here)?;
            let entry = |vni: u64, ip: &str, mac: &str, at: &str| format!("{vni} {ip} {mac} {at}");
            let should: BTreeSet<_> = machines
                .iter()
                .map(|machine| (vnis[machine.text("moniker")], machine))
                .filter(|(vni, machine)| here.contains(vni) && !is_here(machine))
                .map(|(vni, machine)| {
                    entry(vni, &machine.ip(), machine.text("mac"), machine.text("physical_ip"))
                })
                .collect();
            let mut is = BTreeSet::new();
            for vni in verb(&["directory", "list"])?["entries"].as_array().into_iter().flatten() {
                let network = vni["network"].as_u64().unwrap_or_default();
                is.insert(entry(network, text(vni, "ip"), text(vni, "mac"), text(vni, "physical_ip")));
            }
            same(&format!("the directory of {}", at.host.name), &is, &should)?;
        }
        let netns =
            self.stage.world().run(None, "ip", &["netns", "list"]).map_err(|error| error.to_string())?;
        let netns: BTreeSet<_> =
            netns.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        same("namespaces", &netns, &namespaces)?;
        Ok(machines)
    }

    pub(crate) fn inside(&self, machine: &Machine, program: &str, arguments: &[&str]) -> Option<String> {
        self.stage.inside(machine.port(), program, arguments).ok()
    }

    /// The addresses that a guest has given itself.
    pub(crate) fn lease(&self, machine: &Machine) -> BTreeSet<String> {
        let said = self.inside(machine, "ip", &["-4", "-o", "address", "show", "dev", machine.port()]);
        let said = said.unwrap_or_default();
        let of =
            |line: &str| line.split_whitespace().skip_while(|word| *word != "inet").nth(1).map(str::to_owned);
        said.lines().filter_map(of).collect()
    }

    pub(crate) fn reaches(&self, machine: &Machine, ip: &str) -> bool {
        self.inside(machine, "ping", &["-n", "-q", "-c", "1", "-W", "2", ip]).is_some()
    }

    /// Nobody answers a machine at this address. An answer takes a millisecond.
    pub(crate) fn hears_nothing(&self, machine: &Machine, ip: &str) -> bool {
        self.inside(machine, "ping", &["-n", "-q", "-c", "1", "-W", "0.3", ip]).is_none()
    }

    /// The guest is where its row says: it has that lease and no other, and a machine of its network on each host reaches
    /// it and is reached by it.
    pub(crate) fn assert_there(&self, machine: &Machine, all: &[Machine]) {
        let ip = machine.ip();
        let place = format!("{:#}", machine.0);
        self.until("the guest to take its lease", || {
            same(&place, &self.lease(machine), &BTreeSet::from([format!("{ip}/24")]))
        });
        let peers = all.iter().filter(|peer| {
            peer.text("moniker") == machine.text("moniker") && peer.text("id") != machine.text("id")
        });
        let mut hosts = BTreeSet::new();
        for peer in peers {
            if hosts.insert(peer.text("host")) {
                assert!(
                    self.reaches(machine, &peer.ip()),
                    "{} reaches {}\n{}",
                    place,
                    peer.ip(),
                    self.logs()
                );
                assert!(self.reaches(peer, &ip), "{} reaches {place}\n{}", peer.ip(), self.logs());
            }
        }
        assert_eq!(hosts.len(), 2, "peers on both hosts");
    }

    /// Nobody of the network `network` of acme answers at `ip`.
    pub(crate) fn assert_nobody(&self, network: &str, ip: &str, all: &[Machine]) {
        let peers = all.iter().filter(|peer| peer.text("network") == network && peer.0["partial"] == false);
        let mut hosts = BTreeSet::new();
        for peer in peers.filter(|peer| hosts.insert(peer.text("host").to_owned())) {
            assert!(self.hears_nothing(peer, ip), "{ip} still answers in {network}\n{}", self.logs());
        }
    }

    /// How many rows of each kind the controller's store holds at rest, with no address on its way to being free.
    pub(crate) fn rows_at_rest(&mut self) -> BTreeMap<String, usize> {
        let end = Instant::now() + PATIENCE;
        loop {
            self.rest();
            let rows = self.rows();
            if rows["address"] == rows["directory"] {
                return rows;
            }
            assert!(
                Instant::now() < end,
                "addresses that nobody has, and that do not become free: {rows:#?}"
            );
        }
    }

    /// What is there now, operations and what is only remembered aside. The controller is killed for it, and started again.
    fn rows(&mut self) -> BTreeMap<String, usize> {
        const REMEMBERED: [&str; 4] = ["operation", "idempotency", "lease", "lease-term"];
        self.stage.kill_controller();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut rows = runtime.block_on(async {
            let store = RedbStore::open(&self.stage.store()).unwrap();
            let (mut rows, mut after) = (BTreeMap::new(), None);
            loop {
                let page = store.list(&Prefix::all(), after.as_ref(), usize::MAX).await.unwrap();
                for entry in &page.entries {
                    let kind = entry.key.segments().next().unwrap_or_default();
                    *rows.entry(kind.to_owned()).or_default() += 1;
                }
                after = page.entries.last().map(|entry| entry.key.clone());
                if !page.more {
                    return rows;
                }
            }
        });
        drop(runtime);
        rows.retain(|kind, _| !REMEMBERED.contains(&kind.as_str()));
        self.stage.start_controller().unwrap_or_else(|error| panic!("{error}"));
        rows
    }
}
