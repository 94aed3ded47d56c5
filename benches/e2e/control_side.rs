//! The control side: a controller, two hosts with switch and agent, guests made of namespaces, each a process of its own.
//!
//! ROUNDS (200) hand-overs in sequence; BURSTS (3) of BURST (100) at once; CHANGES (100) of a network; SCRATCH (20) machines
//! without a pool.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use control::dev::Stage;
use control::lab::{Process, enter_netns, enter_world};
use serde_json::{Value, json};

use crate::api::{Api, combination, text};
use crate::numbers::{Sample, Timelines};
use crate::scene::{shunt, take_turn};
use crate::setting;

/// Machines that wait while hand-overs are measured one by one.
const STOCK: u64 = 4;
/// Between two datagrams of a guest that wants to be heard in its new network.
const KNOCK: Duration = Duration::from_millis(2);
const ECHO: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run() {
    let _turn = take_turn();
    let stage = Stage::start(shunt(), 2).unwrap_or_else(|error| panic!("{error}"));
    thread::scope(|scope| {
        // A thread of its own, for from there nobody comes back; threads that it starts are there too.
        let inside = scope.spawn(|| {
            enter_world(stage.world()).unwrap();
            let bench = Bench { api: Api::new(stage.token()), stage: &stage };
            bench.set();
            bench.in_sequence();
            bench.network_changes();
            bench.scratch();
            bench.bursts();
        });
        if let Err(panic) = inside.join() {
            println!("{}", stage.logs());
            std::panic::resume_unwind(panic);
        }
    });
    stage.end();
}

struct Bench<'a> {
    api: Api,
    stage: &'a Stage,
}

impl Bench<'_> {
    fn set(&self) {
        self.api.post(
            "/v1/tenants",
            &json!({"name": "acme", "quota": {"vms": 1000, "networks": 20, "disks": 2000}}),
        );
        for network in ["red", "blue"] {
            self.api.post("/v1/networks", &json!({"name": network, "prefixes": ["10.0.0.0/16"]}));
        }
        self.api.post(
            "/v1/pools",
            &json!({"name": "small", "combination": combination(1), "sizing": sizing(STOCK)}),
        );
    }

    /// Waits until the pool is full and nothing is being made or removed.
    fn full(&self, size: u64) {
        let end = Instant::now() + PATIENCE;
        loop {
            let pool = self.api.get("/v1/pools/small");
            let open = self.api.get("/v1/operations?open=true");
            if pool["ready"].as_u64() == Some(size) && open["items"].as_array().is_some_and(Vec::is_empty) {
                return;
            }
            assert!(Instant::now() < end, "the pool does not fill: {pool:#}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn in_sequence(&self) {
        let rounds = setting("ROUNDS", 200);
        let (mut took, mut lines, mut spent) = (Sample::default(), Timelines::default(), Spent::default());
        let mut misses = 0;
        for round in 0..rounds {
            self.full(STOCK);
            let before = self.cpu();
            let asked = Instant::now();
            let done = self.api.machine(&wish(&format!("web-{round}"), 1, "red"));
            took.add_time(asked.elapsed());
            spent.add(&before, &self.cpu());
            misses += u64::from(text(&done, "kind") != "hand_over");
            lines.add(&done);
            self.api.remove(text(&done, "vm"));
        }
        println!("hand-over, one after another, pool of {STOCK}, {misses} misses (goal: p50 100 ms)");
        println!("  asked to the operation's end       {took}");
        lines.tell();
        spent.tell(rounds, "goal: controller 15 ms");
    }

    fn bursts(&self) {
        let (size, bursts) = (setting("BURST", 100), setting("BURSTS", 3));
        let api = &self.api;
        api.patch("/v1/pools/small", &json!({"sizing": sizing(size)}));
        let (mut all, mut totals) = (Sample::default(), Sample::default());
        let (mut lines, mut spent, mut misses) = (Timelines::default(), Spent::default(), 0);
        for burst in 0..bursts {
            self.full(size);
            let barrier = Barrier::new(usize::try_from(size).unwrap() + 1);
            // What is taken is made again only after the burst: what is measured is the handing over.
            let token = self.stage.token();
            let (before, asked, ended) = thread::scope(|scope| {
                let callers: Vec<_> = (0..size)
                    .map(|caller| {
                        let barrier = &barrier;
                        scope.spawn(move || {
                            let api = Api::new(token);
                            barrier.wait();
                            let asked = Instant::now();
                            let done = api.machine(&wish(&format!("burst-{burst}-{caller}"), 1, "red"));
                            (asked.elapsed(), done)
                        })
                    })
                    .collect();
                let before = self.cpu();
                barrier.wait();
                let asked = Instant::now();
                let ended: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
                (before, asked, ended)
            });
            totals.add_time(asked.elapsed());
            spent.add(&before, &self.cpu());
            let mut own = Sample::default();
            for (took, done) in &ended {
                own.add_time(*took);
                all.add_time(*took);
                misses += u64::from(text(done, "kind") != "hand_over");
                lines.add(done);
            }
            println!("burst {}: {own}", burst + 1);
            for (_, done) in &ended {
                api.delete(&format!("/v1/vms/{}", text(done, "vm")));
            }
        }
        println!(
            "hand-over, {size} at once on a pool of {size}, {bursts} times, {misses} misses (goal: p99 1,000 ms)"
        );
        println!("  until the last one is ready        {totals}");
        println!("  asked to the operation's end       {all}");
        lines.tell();
        spent.tell(size * bursts, "goal: controller 5 ms");
    }

    fn scratch(&self) {
        let rounds = setting("SCRATCH", 20);
        let (mut took, mut lines) = (Sample::default(), Timelines::default());
        for round in 0..rounds {
            self.full(STOCK);
            let asked = Instant::now();
            let done = self.api.machine(&wish(&format!("scratch-{round}"), 2, "red"));
            took.add_time(asked.elapsed());
            assert_eq!(text(&done, "kind"), "vm_create", "there is no pool of this combination");
            lines.add(&done);
            self.api.remove(text(&done, "vm"));
        }
        println!("from scratch, one after another");
        println!("  asked to the operation's end       {took}");
        lines.tell();
    }

    /// A machine goes to and fro between two networks; in each there is a peer that answers.
    fn network_changes(&self) {
        let rounds = setting("CHANGES", 100);
        let peers = [("red", Ipv4Addr::new(10, 0, 1, 1)), ("blue", Ipv4Addr::new(10, 0, 2, 2))];
        for (network, ip) in peers {
            let mut peer = wish(&format!("{network}-peer"), 1, network);
            peer["addresses"] = json!([ip]);
            let done = self.api.machine(&peer);
            self.echo(text(&self.vm(&done), "port"), ip);
        }
        let mover = self.api.machine(&wish("mover", 1, "red"));
        let port = text(&self.vm(&mover), "port").to_owned();
        let path = format!("/v1/vms/{}/network-change", text(&mover, "vm"));
        let (mut heard, mut took) = (Sample::default(), Sample::default());
        let (mut lines, mut spent) = (Timelines::default(), Spent::default());
        for round in 0..rounds {
            self.full(STOCK);
            let (network, ip) = peers[(usize::try_from(round).unwrap() + 1) % 2];
            // The link's quiet second, as between any two changes of one machine that a person asks for.
            thread::sleep(Duration::from_millis(1100));
            let before = self.cpu();
            thread::scope(|scope| {
                let knocker = scope.spawn(|| self.knock(&port, ip));
                // It is knocking before anything is asked for.
                thread::sleep(KNOCK * 5);
                let asked = Instant::now();
                let done = self.api.done(&self.api.post(&path, &json!({"network": network})));
                took.add_time(asked.elapsed());
                heard.add_time(knocker.join().unwrap().duration_since(asked));
                lines.add(&done);
            });
            spent.add(&before, &self.cpu());
        }
        println!(
            "network change, to and fro (a guest that knocks every {KNOCK:?} at a peer of the new network)"
        );
        println!("  asked to the peer's first answer   {heard}");
        println!("  asked to the operation's end       {took}");
        lines.tell();
        spent.tell(rounds, "");
    }

    fn vm(&self, operation: &Value) -> Value {
        self.api.get(&format!("/v1/vms/{}", text(operation, "vm")))
    }

    /// Answers in a guest for as long as the program runs.
    fn echo(&self, port: &str, ip: Ipv4Addr) {
        let (world, port) = (self.stage.world().clone(), port.to_owned());
        thread::spawn(move || {
            enter_netns(&world, &port).unwrap();
            let socket = UdpSocket::bind((ip, ECHO)).unwrap();
            let mut buffer = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
    }

    /// Sends from a guest until there is an answer, and says when that came.
    fn knock(&self, port: &str, ip: Ipv4Addr) -> Instant {
        enter_netns(self.stage.world(), port).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(KNOCK)).unwrap();
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 64];
        while Instant::now() < end {
            let sent = Instant::now();
            // Without an address, or in the other network, it does not get far.
            let _ = socket.send_to(b"knock", SocketAddrV4::new(ip, ECHO));
            if socket.recv_from(&mut buffer).is_ok() {
                return Instant::now();
            }
            thread::sleep(KNOCK.saturating_sub(sent.elapsed()));
        }
        panic!("no answer of {ip} to {port}");
    }

    /// Processor time so far, in nanoseconds, of each kind of process.
    fn cpu(&self) -> BTreeMap<&'static str, u64> {
        let of = |process: Option<&Process>| process.map_or(0, |process| cpu_ns(process.pid()));
        let hosts = self.stage.hosts();
        BTreeMap::from([
            ("controller", of(self.stage.controller())),
            ("agents", hosts.iter().map(|host| of(host.agent())).sum()),
            ("switches", hosts.iter().map(|host| of(host.switch.process())).sum()),
            ("all", machine_ns()),
        ])
    }
}

/// Processor time of what was measured.
#[derive(Default)]
struct Spent(BTreeMap<&'static str, u64>);

impl Spent {
    fn add(&mut self, before: &BTreeMap<&'static str, u64>, after: &BTreeMap<&'static str, u64>) {
        for (name, after) in after {
            *self.0.entry(name).or_default() += after.saturating_sub(before[name]);
        }
    }

    fn tell(&self, count: u64, remark: &str) {
        let each = |name: &str| self.0.get(name).copied().unwrap_or(0) as f64 / count.max(1) as f64 / 1e6;
        println!(
            "    processor time of each: controller {:.1} ms, agents {:.1}, switches {:.1}; everybody on the machine {:.0} {}",
            each("controller"),
            each("agents"),
            each("switches"),
            each("all"),
            if remark.is_empty() { String::new() } else { format!("({remark})") }
        );
    }
}

/// What all threads of a process have run.
fn cpu_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(of).sum()
}

/// What all processors together have run, user and system, in ticks of 10 ms.
fn machine_ns() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    [0, 1, 2, 5, 6].iter().filter_map(|place| fields.get(*place)).sum::<u64>() * 10_000_000
}

fn sizing(size: u64) -> Value {
    json!({"min": size, "max": size})
}

fn wish(name: &str, vcpus: u8, network: &str) -> Value {
    json!({"name": name, "combination": combination(vcpus), "network": network})
}
