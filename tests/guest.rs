//! A guest of kind netns from its making to its end: booted on a placeholder's configuration, handed over by a bounce of
//! its link, its agent and its hypervisor started anew, killed, destroyed. A real DHCP server and the real metadata
//! service are on the other side of its interface.
//!
//! The hypervisor makes named namespaces and mounts, so all of it runs inside a world of its own: each test starts this
//! very program again there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

use control::{
    hypervisor::{
        Hypervisor, Stop, VmEvent, VmPower, VmSpec,
        netns::{GuestProgram, Netns},
    },
    imds::{Document, Imds, Interface, Limits, Received, instance},
    lab::World,
    model::{GuestConfig, Phase, VmId},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UnixStream},
    sync::mpsc::Receiver,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);
const PORT: &str = "web-1";
const SOCKET: &str = "/run/metadata.sock";
const MAC: &str = "02:00:00:00:00:05";

/// Runs one of the tests below inside a world.
fn in_a_world(test: &str) {
    let world = World::new().unwrap();
    let this = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", test, "--nocapture"];
    let output = world.command(None, this.to_str().unwrap(), &arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "see above");
}

#[test]
fn a_guest_lives_its_life() {
    in_a_world("inside_life");
}

fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn spec() -> VmSpec {
    VmSpec {
        vm: VmId::fixed(0x5907),
        port: PORT.into(),
        hostname: "booting".into(),
        image: "netns".parse().unwrap(),
        mac: MAC.parse().unwrap(),
        vcpus: 1,
        memory_mib: 256,
    }
}

fn hypervisor() -> Netns {
    let program = GuestProgram {
        file: PathBuf::from(env!("CARGO_BIN_EXE_shunt")),
        prefix: vec!["guest-agent".into()],
        agent_options: vec!["--heartbeat-seconds=1".into()],
    };
    Netns::new("/run/shunt/host".into(), program).unwrap()
}

/// A network: the far end of the guest's interface, with a DHCP server that has one lease.
struct Network {
    server: Child,
}

impl Network {
    fn new(prefix: &str) -> Self {
        run(&["ip", "address", "flush", "dev", "far"]);
        run(&["ip", "address", "add", &format!("{prefix}.1/24"), "dev", "far"]);
        run(&["ip", "address", "add", "169.254.169.254/32", "dev", "far"]);
        let config = format!(
            "start {prefix}.5\nend {prefix}.5\ninterface far\nlease_file /run/udhcpd.leases\npidfile /run/udhcpd.pid\n\
             opt subnet 255.255.255.0\nopt router {prefix}.1\nopt dns {prefix}.2\nopt domain blue.example\n\
             opt lease 60\nstatic_lease {MAC} {prefix}.5\n"
        );
        fs::write("/run/udhcpd.conf", config).unwrap();
        let _ = fs::remove_file("/run/udhcpd.leases");
        fs::write("/run/udhcpd.leases", "").unwrap();
        let mut server = Command::new("busybox");
        server.args(["udhcpd", "-f", "/run/udhcpd.conf"]).stdin(Stdio::null()).stderr(Stdio::null());
        Self { server: server.spawn().unwrap() }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What the switch does for metadata: end the guest's TCP, say who it is, pass bytes.
async fn bridge(label: Arc<Mutex<String>>) {
    let listener = TcpListener::bind("0.0.0.0:80").await.unwrap();
    loop {
        let (mut guest, peer) = listener.accept().await.unwrap();
        let label = label.lock().unwrap().clone();
        tokio::spawn(async move {
            let mut service = UnixStream::connect(SOCKET).await.unwrap();
            let preamble = format!(
                "{{\"port\":\"{PORT}\",\"label\":\"{label}\",\"network\":100,\"peer\":\"{peer}\",\"address\":\"169.254.169.254:80\"}}\n"
            );
            service.write_all(preamble.as_bytes()).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut guest, &mut service).await;
        });
    }
}

fn publish(imds: &Imds, label: &str, config: &GuestConfig) {
    let interface = Interface { mac: [2, 0, 0, 0, 0, 5], addresses: Vec::new() };
    let document = Document::new(config, instance(config, &interface, "here")).unwrap();
    imds.documents().publish(PORT, label, document);
}

/// The next report that is no mere sign of life; signs of life are counted.
async fn news(reports: &mut Receiver<Received>, alive: &mut u32) -> Received {
    let told = async {
        loop {
            let received = reports.recv().await.expect("the service runs");
            if received.report.phase != Phase::Alive {
                return received;
            }
            *alive += 1;
        }
    };
    timeout(PATIENCE, told).await.expect("the guest reports something new")
}

async fn alive(reports: &mut Receiver<Received>) -> Received {
    let received = timeout(PATIENCE, reports.recv()).await.expect("the guest reports").unwrap();
    assert_eq!(received.report.phase, Phase::Alive, "something else was reported before: {received:?}");
    received
}

async fn guest(hypervisor: &Netns, words: &[&str]) -> (bool, String) {
    let output = hypervisor.command_in(spec().vm, words).await.unwrap().output().await.unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text.trim().to_owned())
}

async fn sh(hypervisor: &Netns, script: &str) -> String {
    let (well, text) = guest(hypervisor, &["sh", "-c", script]).await;
    assert!(well, "{script}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs inside a world, started by a_guest_lives_its_life"]
async fn inside_life() {
    let resolv_conf = fs::read("/etc/resolv.conf").ok();
    let netns = hypervisor();
    assert_eq!(netns.state(spec().vm).await.unwrap(), VmPower::Absent);
    for _ in 0..2 {
        netns.create(&spec()).await.unwrap();
    }
    run(&["ip", "link", "add", "far", "type", "veth", "peer", "name", PORT, "address", MAC, "netns", PORT]);
    run(&["ip", "link", "set", "far", "up"]);
    let (imds, mut reports) = Imds::bind(Path::new(SOCKET), 0o600, Limits::default()).unwrap();
    let label = Arc::new(Mutex::new("1".to_owned()));
    let mut network = Network::new("10.0.0");
    tokio::spawn(bridge(Arc::clone(&label)));

    // The placeholder.
    let full: GuestConfig =
        serde_json::from_str(include_str!("../control/tests/golden/guest_config_full.json")).unwrap();
    let mut config: GuestConfig =
        serde_json::from_str(include_str!("../control/tests/golden/guest_config_partial.json")).unwrap();
    config.vm_id = spec().vm;
    publish(&imds, "1", &config);
    let begun = Instant::now();
    let running = netns.start(spec().vm).await.unwrap();
    println!("started after {:?}", begun.elapsed());
    assert_eq!(netns.start(spec().vm).await.unwrap(), running, "it is started once");
    let mut beats = 0;
    let early = news(&mut reports, &mut beats).await;
    println!("early success after {:?}", begun.elapsed());
    assert_eq!((early.report.phase, early.report.generation, early.label.as_str()), (Phase::Partial, 1, "1"));
    assert_eq!(early.report.addresses, ["10.0.0.5/24".parse().unwrap()]);
    assert_eq!(
        (early.report.hostname.as_deref(), &early.report.boot_id),
        (Some("pool-17"), &running.boot_id)
    );
    contained(&netns).await;

    // Handing over: the network changes while the link is down, and what the port reads with it.
    let owner = GuestConfig {
        vm_id: spec().vm,
        settings: control::model::Settings {
            script: Some("#!/bin/sh\necho run >> /var/lib/runs\n".into()),
            ..full.settings.clone()
        },
        ..full.clone()
    };
    publish(&imds, "2", &owner);
    run(&["ip", "link", "set", "far", "down"]);
    drop(network);
    network = Network::new("10.1.0");
    "2".clone_into(&mut label.lock().unwrap());
    tokio::time::sleep(netns.hold()).await; // as long as a host holds a link down
    let begun = Instant::now();
    run(&["ip", "link", "set", "far", "up"]);
    let ready = news(&mut reports, &mut beats).await;
    println!("ready {:?} after the link came up", begun.elapsed());
    assert_eq!(
        (ready.report.phase, ready.report.generation, ready.label.as_str()),
        (Phase::Ready, 7, "2"),
        "{ready:?}"
    );
    assert_eq!(ready.report.addresses, ["10.1.0.5/24".parse().unwrap()]);
    assert_eq!((ready.report.hostname.as_deref(), &ready.report.boot_id), (Some("web-1"), &running.boot_id));
    assert_eq!(
        sh(&netns, "hostname; cat /etc/motd /etc/timezone /etc/resolv.conf").await,
        "web-1\nhello\nEurope/Berlin\nsearch blue.example\nnameserver 10.1.0.2"
    );
    assert_eq!(sh(&netns, "stat -c '%U %a' /home/alice/.ssh/authorized_keys").await, "alice 600");
    assert_eq!(
        sh(&netns, "ip -4 -o address show dev web-1 | grep -c inet; ip route show default").await,
        "1\ndefault via 10.1.0.1 dev web-1 onlink"
    );

    // An agent that is started anew neither runs the script nor reports once more.
    let kill = "for p in /proc/[0-9]*; do \
        if tr '\\0' ' ' < $p/cmdline | grep -q '[g]uest-agent run'; then kill -9 ${p#/proc/}; fi; done";
    sh(&netns, kill).await;
    while let Ok(received) = reports.try_recv() {
        assert_eq!(received.report.phase, Phase::Alive);
    }
    // One may have been on its way; the second is the new agent's.
    for _ in 0..2 {
        alive(&mut reports).await;
    }
    assert_eq!(sh(&netns, "cat /var/lib/runs").await, "run");

    // So with the hypervisor: the guest goes on, and is found.
    drop(netns);
    let netns = hypervisor();
    let found = netns.adopt().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].spec.as_ref(), found[0].running.as_ref()), (Some(&spec()), Some(&running)));

    // Its death is told to who adopted it, and another life has another id.
    let mut events = netns.events();
    run(&["kill", "-9", &running.pid.to_string()]);
    let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
    assert_eq!(event, VmEvent::Died(running.clone()));
    assert_eq!(netns.state(spec().vm).await.unwrap(), VmPower::Stopped);
    let again = netns.start(spec().vm).await.unwrap();
    assert_ne!(again.boot_id, running.boot_id);
    while alive(&mut reports).await.report.boot_id != again.boot_id {}
    assert_eq!(sh(&netns, "cat /var/lib/runs").await, "run");

    // The button, and the end of everything.
    netns.stop(spec().vm, Stop::Button(PATIENCE)).await.unwrap();
    assert_eq!(netns.state(spec().vm).await.unwrap(), VmPower::Stopped);
    assert!(events.try_recv().is_err(), "an end that was asked for is no news");
    netns.start(spec().vm).await.unwrap();
    netns.destroy(spec().vm).await.unwrap();
    netns.destroy(spec().vm).await.unwrap();
    assert_eq!(netns.state(spec().vm).await.unwrap(), VmPower::Absent);
    assert!(netns.adopt().await.unwrap().is_empty());
    assert!(!Path::new("/run/netns").join(PORT).exists());
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains("/run/shunt/host"));
    assert_eq!(
        fs::read("/etc/resolv.conf").ok(),
        resolv_conf,
        "a guest's DHCP client writes the guest's files"
    );
    drop(network);
}

/// What a guest's root cannot do, tried from within.
async fn contained(netns: &Netns) {
    let cannot = [
        "touch /usr/x",
        "ls /proc/1/root/../run/shunt/host",
        "cat /run/metadata.sock",
        "echo 1 > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/kernel/printk",
        "echo 1 > /sys/kernel/mm/ksm/run",
        "mknod /tmp/d b 254 0",
        "ls /sys/class/net/far",
    ];
    for act in cannot {
        let (well, said) = guest(netns, &["sh", "-c", act]).await;
        assert!(!well, "{act}: {said}");
    }
    let known = "bin dev etc home lib lib32 lib64 libx32 proc root run sbin sys tmp usr var";
    for name in sh(netns, "ls /").await.lines() {
        assert!(known.split(' ').any(|known| known == name), "{name} of the machine can be seen");
    }
    // What runs in a guest by itself has less than who is let in from outside.
    let bounding = sh(netns, "sed -n 's/^CapBnd:.//p' /proc/1/status").await;
    let bounding = u64::from_str_radix(&bounding, 16).unwrap();
    let refused = [
        ("SYS_MODULE", 16),
        ("SYS_RAWIO", 17),
        ("SYS_BOOT", 22),
        ("SYS_TIME", 25),
        ("MKNOD", 27),
        ("BPF", 39),
    ];
    for (name, bit) in refused {
        assert_eq!(bounding >> bit & 1, 0, "{name}");
    }
}
