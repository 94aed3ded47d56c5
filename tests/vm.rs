//! Virtual machines: QEMU's, with Debian's kernel, emulated where KVM does not work. One alone, driven through its
//! hypervisor; and a cluster whose pool is made of them.
//!
//! They take minutes and need QEMU and the image `tiny`, so they run by `make e2e-vm`, which has both, and not by `make test`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::{
    dev::{Stage, StageOptions},
    hypervisor::{Hypervisor, Stop, VmEvent, VmPower, VmSpec, qemu::Qemu},
    lab::World,
    model::VmId,
};
use dataplane::{
    desired::PortKind,
    packet::Buffer,
    port::{
        Device,
        netdev::Netdev,
        open::{Direct, TapSpec},
    },
    types::Mtu,
};
use scene::shunt;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// An emulated machine boots in five seconds on an idle host, and in a minute on a busy one.
const PATIENCE: Duration = Duration::from_secs(240);
const PORT: &str = "web-1";
const MAC: &str = "02:00:00:00:00:05";

/// Where images are; a sentence when there are none.
fn images() -> PathBuf {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/images");
    assert!(
        images.join("tiny/kernel").is_file(),
        "there is no image to boot: run images/tiny/build, or make e2e-vm"
    );
    images
}

/// Waits until `condition` holds; `otherwise` tells what there is instead.
fn until(what: &str, mut condition: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < PATIENCE,
            "waited {} s in vain for {what}: {}",
            PATIENCE.as_secs(),
            otherwise()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "boots a virtual machine: make e2e-vm"]
fn a_virtual_machine_lives_its_life() {
    images();
    // Namespaces and sockets of the hypervisor's are made in a world that vanishes.
    let world = World::new().unwrap();
    let this = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "inside_life", "--nocapture"];
    let output = world.command(None, this.to_str().unwrap(), &arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "see above");
}

fn spec() -> VmSpec {
    VmSpec {
        vm: VmId::fixed(0x5907),
        port: PORT.into(),
        hostname: "booting".into(),
        image: "tiny".parse().unwrap(),
        mac: MAC.parse().unwrap(),
        vcpus: 1,
        memory_mib: 128,
    }
}

const BASE: &str = "/run/shunt/host";

fn hypervisor() -> Qemu {
    Qemu::new(BASE.into(), images()).unwrap()
}

fn log() -> String {
    let home = Path::new(BASE).join("machines").join(spec().vm.to_string());
    let parts = ["log.1", "log"].map(|name| fs::read(home.join(name)).unwrap_or_default());
    parts.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// The switch's side of the machine's interface.
fn attach() -> Netdev {
    let spec = TapSpec {
        name: PORT.parse().unwrap(),
        kind: PortKind::Netdev,
        netns: Some(PORT.into()),
        mac: MAC.parse().unwrap(),
        mtu: Mtu::ETHERNET,
        queues: 1,
        persistent: true,
    };
    Netdev::open(&Direct, &spec).unwrap()
}

/// Waits for what the machine's DHCP client sends; everything before it is thrown away.
fn asks_for_an_address(port: &Netdev) {
    port.discard(0);
    let mut buffer = Buffer::new();
    let is_dhcp = |frame: &[u8]| {
        // From our MAC address, IPv4, UDP, from port 68 to port 67.
        frame.get(6..14) == Some(&[2, 0, 0, 0, 0, 5, 8, 0])
            && frame.get(23) == Some(&17)
            && frame.get(34..38) == Some(&[0, 68, 0, 67])
    };
    let mut next = || {
        let received = port.receive(0, &mut buffer).unwrap()?;
        Some(is_dhcp(buffer.packet(received.length, received.offload.unwrap()).frame()))
    };
    until("the machine to ask for an address", || std::iter::from_fn(&mut next).any(|is| is), log);
}

fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs inside a world, started by a_virtual_machine_lives_its_life"]
async fn inside_life() {
    let qemu = hypervisor();
    assert_eq!(qemu.state(spec().vm).await.unwrap(), VmPower::Absent);
    let missing = qemu.create(&VmSpec { image: "other".parse().unwrap(), ..spec() }).await.unwrap_err();
    assert!(missing.to_string().contains("no image other"), "{missing}");
    for _ in 0..2 {
        qemu.create(&spec()).await.unwrap();
    }
    assert_eq!(qemu.state(spec().vm).await.unwrap(), VmPower::Stopped);
    // The host's own stack is silent there.
    let shown = run(&["ip", "-n", PORT, "-d", "address", "show", "dev", PORT]);
    assert!(shown.contains("NOARP") && shown.contains("tun type tap") && !shown.contains("inet"), "{shown}");
    let port = attach();

    let begun = Instant::now();
    let running = qemu.start(spec().vm).await.unwrap();
    println!("started after {:?}", begun.elapsed());
    assert_eq!(qemu.start(spec().vm).await.unwrap(), running, "it is started once");
    asks_for_an_address(&port);
    println!("booted after {:?}: the machine asks for an address", begun.elapsed());
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(user.split_whitespace().all(|id| id.parse::<u32>().unwrap() >= 655_360), "QEMU runs as{user}");

    // Another agent finds it, and acts on it: the link goes down and comes back, which the guest's agent sees.
    drop(qemu);
    let qemu = hypervisor();
    let found = qemu.adopt().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].spec.as_ref(), found[0].running.as_ref()), (Some(&spec()), Some(&running)));
    assert_eq!(log().matches("entering released state").count(), 0);
    assert_eq!(qemu.link(spec().vm, false).await.unwrap(), Some(()));
    until("the guest to see that its link is down", || log().contains("entering released state"), log);
    port.discard(0);
    qemu.link(spec().vm, true).await.unwrap();
    asks_for_an_address(&port);

    // A death is told, and another life has another id.
    let mut events = qemu.events();
    run(&["kill", "-9", &running.pid.to_string()]);
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
    assert_eq!(event, VmEvent::Died(running.clone()));
    assert_eq!(qemu.state(spec().vm).await.unwrap(), VmPower::Stopped);
    assert!(qemu.link(spec().vm, true).await.is_err(), "there is nobody to be told");
    let again = qemu.start(spec().vm).await.unwrap();
    assert_ne!(again.boot_id, running.boot_id);
    asks_for_an_address(&port);

    // The button: the guest ends by itself. Then one that is switched off, and the end of everything.
    qemu.stop(spec().vm, Stop::Button(PATIENCE)).await.unwrap();
    assert_eq!(qemu.state(spec().vm).await.unwrap(), VmPower::Stopped);
    assert!(log().contains("reboot: Power down"), "{}", log());
    let last = qemu.start(spec().vm).await.unwrap();
    qemu.stop(spec().vm, Stop::Off).await.unwrap();
    assert!(!scene::is_alive(last.pid));
    assert!(events.try_recv().is_err(), "an end that was asked for is no news");
    for _ in 0..2 {
        qemu.destroy(spec().vm).await.unwrap();
    }
    assert_eq!(qemu.state(spec().vm).await.unwrap(), VmPower::Absent);
    assert!(qemu.adopt().await.unwrap().is_empty());
    assert!(!Path::new("/run/netns").join(PORT).exists());
    assert!(port.receive(0, &mut Buffer::new()).is_err() && port.is_gone(), "its TAP is gone");
}

/// A cluster with two pools: virtual machines, and guests of namespaces to be their peers.
struct Cluster(Stage);

impl Cluster {
    fn ok(&self, line: &str) -> Value {
        let words: Vec<&str> = line.split(' ').collect();
        self.0.cli(&words).unwrap_or_else(|error| panic!("{error}\n{}", self.logs()))
    }

    fn logs(&self) -> String {
        let find = "find /run/lab/agent -path '*machines*' -name log | while read -r log; do echo == $log; cat $log; done";
        format!("{}\n{}", self.0.logs(), self.0.world().script(None, find).unwrap_or_default())
    }

    fn stocked(&self, pool: &str, count: u64) {
        let show = || self.ok(&format!("pool show {pool}"));
        until(
            "a pool to be full",
            || show()["ready"].as_u64() == Some(count),
            || format!("{}\n{}", show(), self.logs()),
        );
    }

    fn vm(&self, name: &str) -> Value {
        self.ok(&format!("vm show {name} --tenant acme"))
    }

    /// A guest of namespaces in `network`, on another host than `host`. Which one of the pool's it is, chance decides.
    fn peer(&self, name: &str, network: &str, ip: &str, host: &str) -> Value {
        for _ in 0..20 {
            self.ok(&format!(
                "vm create {name} --image bare --network {network} --ip {ip} --wait --tenant acme"
            ));
            let vm = self.vm(name);
            if text(&vm, "host") != host {
                return vm;
            }
            self.ok(&format!("vm delete {name} --wait --tenant acme"));
            self.stocked("bare", 4);
            // Its address is free again when all hosts have forgotten it.
            std::thread::sleep(Duration::from_millis(1500));
        }
        panic!("no peer on another host than {host}: {}", self.logs());
    }

    /// Does a peer reach an address?
    fn reaches(&self, peer: &Value, ip: &str) -> bool {
        self.0.inside(text(peer, "port"), "ping", &["-n", "-q", "-c", "3", "-W", "5", ip]).is_ok()
    }

    /// Asserts that the machine at `ip` is reached, lives the life of `web`, and is what its customer wished, as its web
    /// server tells a peer. An emulated machine may take seconds for a page.
    fn tells(&self, peer: &Value, ip: &str, web: &Value) {
        let url = format!("http://{ip}/cgi-bin/who");
        let mut said = Err(String::new());
        let get = || {
            said = self
                .0
                .inside(text(peer, "port"), "timeout", &["60", "busybox", "wget", "-q", "-O", "-", &url])
                .map_err(|error| error.to_string());
            said.is_ok()
        };
        until("the machine's web server to answer", get, || self.logs());
        let said = said.unwrap();
        for part in ["web-1\nalice\n", KEY, &format!(" {ip}/24 "), &boot_id(web)] {
            assert!(said.contains(part), "no {part} in {said}");
        }
        assert!(self.reaches(peer, ip), "a ping of {ip}");
    }

    /// QEMU's processes, with when they were started.
    fn machines(&self) -> Vec<(String, String)> {
        let find = "for file in /run/lab/agent/*/state/qemu/machines/*/pid; do echo $file $(cat $file) $(cut -d ' ' -f 22 /proc/$(cat $file)/stat); done";
        let told = self.0.world().script(None, find).unwrap();
        told.lines().map(|line| line.split_once(' ').unwrap()).map(|(a, b)| (a.into(), b.into())).collect()
    }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value:#}"))
}

fn boot_id(vm: &Value) -> String {
    text(&vm["guest"], "boot_id").to_owned()
}

/// How long what was asked for took, and its longest steps.
fn times(what: &str, operation: &Value) {
    let steps = operation["steps"].as_array().cloned().unwrap_or_default();
    let steps: Vec<String> = steps
        .iter()
        .map(|step| format!("{} {:.0}", text(step, "name"), step["ms"].as_f64().unwrap_or_default()))
        .collect();
    println!("{what}: {} ms; {}; {}", operation["ms"], operation["times"], steps.join(", "));
}

/// What the customer puts into the machine: a web server that tells who and where it is.
const SCRIPT: &str = "#!/bin/sh\n\
    mkdir -p /srv/cgi-bin\n\
    printf '#!/bin/sh\\necho; hostname; id -un alice; cat /home/alice/.ssh/authorized_keys; ip -4 -o address show dev eth0; cat /proc/sys/kernel/random/boot_id\\n' > /srv/cgi-bin/who\n\
    chmod 755 /srv/cgi-bin/who\n\
    pidof httpd || httpd -h /srv\n";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice@example";

#[test]
#[ignore = "boots two virtual machines: make e2e-vm"]
fn a_virtual_machine_goes_from_the_pool_to_its_customer_and_on_while_it_runs() {
    let options = StageOptions { images: Some(images()) };
    let stage = Stage::start_with(shunt(), 2, &options).unwrap_or_else(|error| panic!("{error}"));
    let mut cluster = Cluster(stage);
    cluster.ok("tenant create acme");
    for network in ["red", "blue"] {
        cluster.ok(&format!("network create {network} --prefix 10.0.0.0/24 --tenant acme"));
    }
    let begun = Instant::now();
    cluster.ok("pool create vms --hypervisor qemu --image tiny --memory-mib 128 --min 2 --max 2");
    cluster.ok("pool create bare --image bare --min 4 --max 4");
    cluster.stocked("vms", 2);
    println!("two machines ready {:?} after the pool was asked for", begun.elapsed());
    cluster.stocked("bare", 4);
    let waiting: Vec<Value> = cluster.ok("vm list")["items"].as_array().unwrap().clone();

    // To its customer: the same running machine under another name, with the customer's user, key, address and program.
    let settings = json!({"user": {"name": "alice", "ssh_keys": [KEY]}, "script": SCRIPT});
    cluster.0.world().write("/run/lab/settings.json", &settings.to_string()).unwrap();
    let done = cluster.ok(
        "vm create web-1 --hypervisor qemu --image tiny --memory-mib 128 --network red --ip 10.0.0.5 --settings /run/lab/settings.json --wait --tenant acme",
    );
    assert_eq!(
        (text(&done, "state"), text(&done, "kind")),
        ("done", "hand_over"),
        "{done:#}\n{}",
        cluster.logs()
    );
    times("hand-over", &done);
    let web = cluster.vm("web-1");
    let before = waiting.iter().find(|vm| vm["id"] == web["id"]).expect("it was one of the pool's");
    assert_eq!((boot_id(before), &before["mac"]), (boot_id(&web), &web["mac"]), "the same life");
    assert_ne!(before["guest"]["hostname"], web["guest"]["hostname"]);
    assert_eq!(text(&web["guest"], "hostname"), "web-1");
    let peer = cluster.peer("red-peer", "red", "10.0.0.6", text(&web, "host"));
    cluster.tells(&peer, "10.0.0.5", &web);

    // The agents die, and others find the machines.
    let machines = cluster.machines();
    for place in 0..2 {
        cluster.0.kill_agent(place);
        cluster.0.start_agent(place).unwrap();
    }
    // On to another network, while it runs.
    let other = cluster.peer("blue-peer", "blue", "10.0.0.6", text(&web, "host"));
    let moved = cluster.ok("vm move web-1 --network blue --ip 10.0.0.7 --wait --tenant acme");
    assert_eq!(text(&moved, "state"), "done", "{moved:#}\n{}", cluster.logs());
    times("network change", &moved);
    cluster.tells(&other, "10.0.0.7", &web);
    for ip in ["10.0.0.5", "10.0.0.7"] {
        assert!(!cluster.reaches(&peer, ip), "its old network still reaches it at {ip}");
    }
    let after = cluster.vm("web-1");
    assert_eq!((boot_id(&after), &after["mac"], &after["host"]), (boot_id(&web), &web["mac"], &web["host"]));
    let now = cluster.machines();
    let lived: Vec<_> = machines.iter().filter(|machine| now.contains(machine)).collect();
    assert!(lived.iter().any(|(file, _)| file.contains(text(&web, "id"))), "{machines:?}, later {now:?}");

    cluster.ok("vm delete web-1 --wait --tenant acme");
    let gone = || !cluster.machines().iter().any(|(file, _)| file.contains(text(&web, "id")));
    until("nothing to be left of the machine", gone, || cluster.logs());
    cluster.0.end();
}
