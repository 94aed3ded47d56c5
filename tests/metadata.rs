//! Metadata: guests' own TCP, ended by the switch, and handed on to a host agent that this test plays.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::{Guest, Host, Switch, SwitchOptions, Tool, World, enter_netns};
use dataplane::endpoint::Preamble;
use scene::{PATIENCE, Scene, say, until};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const CURL: Tool = Tool { program: "curl", package: "curl" };
const METADATA: &str = "169.254.169.254:80";
const WIRESERVER: &str = "168.63.129.16:80";
/// What a large answer has.
const LARGE: usize = 10 << 20;
/// The guests' address, in both networks.
const SAME: &str = "10.0.0.5";

/// Byte number `at` of anything large.
fn byte(at: usize) -> u8 {
    u8::try_from((at * 7 + at / 251) % 256).unwrap()
}

fn large(length: usize) -> Vec<u8> {
    (0..length).map(byte).collect()
}

/// The host agent, as far as the switch can tell.
struct Agent {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    /// Connections whose guest or switch has hung up while they were held.
    hung_up: Arc<AtomicUsize>,
    /// Connections of which a preamble came.
    greeted: Arc<AtomicUsize>,
}

impl Agent {
    fn start(path: PathBuf) -> Self {
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (stop, hung_up, greeted) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let agent = Self { path, stop: stop.clone(), hung_up: hung_up.clone(), greeted: greeted.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let (hung_up, greeted) = (hung_up.clone(), greeted.clone());
                thread::spawn(move || serve(stream.unwrap(), &hung_up, &greeted));
            }
        });
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = UnixStream::connect(&self.path);
        let _ = fs::remove_file(&self.path);
    }
}

/// One request on one connection.
fn serve(stream: UnixStream, hung_up: &AtomicUsize, greeted: &AtomicUsize) -> Option<()> {
    let mut answers = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream);
    let mut preamble = String::new();
    lines.read_line(&mut preamble).ok()?;
    serde_json::from_str::<Preamble>(&preamble).ok()?;
    greeted.fetch_add(1, Ordering::AcqRel);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push(line);
    }
    let path = head.first()?.split(' ').nth(1)?.to_owned();
    let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    lines.read_exact(&mut body).ok()?;
    let answer = match path.as_str() {
        "/large" => large(LARGE),
        "/back" => body,
        // Until somebody else has enough of it.
        "/held" => {
            let _ = answers.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while lines.read(&mut [0]).is_ok_and(|read| read > 0) {}
            hung_up.fetch_add(1, Ordering::AcqRel);
            return None;
        }
        // What the guest says until it has no more to say.
        "/rest" => {
            let mut rest = Vec::new();
            lines.read_to_end(&mut rest).ok()?;
            rest
        }
        _ => preamble.into_bytes(),
    };
    write!(answers, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len())
        .ok()?;
    answers.write_all(&answer).ok()
}

fn within<T: Send + 'static>(
    world: &Arc<World>,
    netns: &str,
    act: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let (world, netns) = (Arc::clone(world), netns.to_owned());
    thread::spawn(move || {
        enter_netns(&world, &netns).unwrap();
        act()
    })
}

fn dial(to: &str) -> io::Result<TcpStream> {
    dial_within(to, PATIENCE)
}

fn dial_within(to: &str, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to.parse::<SocketAddr>().unwrap(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// Asks, in the calling thread's namespace; gives the answer's body.
fn ask(to: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    ask_within(to, path, body, PATIENCE)
}

fn ask_within(to: &str, path: &str, body: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let mut stream = dial_within(to, patience)?;
    write!(stream, "POST {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no whole answer"))?;
    Ok(answer.split_off(end + 4))
}

fn who(to: &str) -> io::Result<Preamble> {
    ask(to, "/who", b"").and_then(whose)
}

fn whose(body: Vec<u8>) -> io::Result<Preamble> {
    serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::UnexpectedEof, error))
}

/// Two guests of the same address, each in a network of its own.
struct Street {
    switch: Switch,
    _host: Host,
    eve: Guest,
    bob: Guest,
    scene: Scene,
}

impl Street {
    fn new(workers: u8) -> Self {
        let scene = Scene::new(&[CURL]);
        let options = SwitchOptions { metadata: true, workers, ..SwitchOptions::default() };
        let (host, switch) = scene.switch("host-a", 1, &options);
        for vni in [100, 200] {
            say(&switch, &format!("network add {vni} --prefix 10.0.0.0/24 --gateway 10.0.0.254"));
        }
        let guest = |name: &str, vni: u32, mac: &str| {
            let guest = Guest::new(&scene.world, name).unwrap();
            say(
                &switch,
                &format!(
                    "port add {name} --network {vni} --mac {mac} --ip {SAME} --netns {name} --label of-{name}"
                ),
            );
            guest.set_address(SAME.parse().unwrap(), 24).unwrap();
            guest.run("ip", &["route", "add", "default", "via", "10.0.0.254"]).unwrap();
            guest
        };
        let eve = guest("eve", 100, "02:00:00:00:00:01");
        let bob = guest("bob", 200, "02:00:00:00:00:02");
        Self { switch, _host: host, eve, bob, scene }
    }

    fn agent(&self) -> Agent {
        Agent::start(self.switch.agent())
    }

    fn within<T: Send + 'static>(&self, guest: &Guest, act: impl FnOnce() -> T + Send + 'static) -> T {
        within(&self.scene.world, guest.name(), act).join().unwrap()
    }

    fn who(&self, guest: &Guest) -> io::Result<Preamble> {
        self.within(guest, || who(METADATA))
    }

    /// A connection of eve's that stays open, and that the agent has heard of.
    fn held(&self) -> TcpStream {
        self.within(&self.eve, || {
            let mut stream = dial(METADATA).unwrap();
            stream.write_all(b"GET /held HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = [0; 19];
            stream.read_exact(&mut answer).unwrap();
            stream
        })
    }
}

#[test]
fn guests_of_equal_addresses_are_told_apart_by_their_ports() {
    let street = Street::new(2);
    let _agent = street.agent();
    for (guest, network, to) in
        [(&street.eve, 100, METADATA), (&street.bob, 200, METADATA), (&street.bob, 200, WIRESERVER)]
    {
        let seen = street.within(guest, move || who(to)).unwrap();
        assert_eq!((seen.port.as_str(), seen.network.value()), (guest.name(), network));
        assert_eq!(seen.label.unwrap().as_str(), format!("of-{}", guest.name()));
        assert_eq!((seen.peer.ip().to_string(), seen.address.to_string()), (SAME.into(), to.into()));
    }
    let answer =
        street.eve.run("curl", &["-sS", "--max-time", "20", "http://169.254.169.254/latest"]).unwrap();
    assert!(answer.contains("\"port\":\"eve\""), "{answer}");

    // On link instead of through the gateway, and with a rule that denies everything.
    street.eve.run("ip", &["route", "add", "169.254.169.254", "dev", "eve"]).unwrap();
    say(&street.switch, "rule add --port eve --direction out --action deny");
    say(&street.switch, "rule add --port eve --direction in --action deny");
    assert_eq!(street.who(&street.eve).unwrap().port.as_str(), "eve");

    // Nothing else is served there, and nobody else's address is.
    let shown = say(&street.switch, "port show eve");
    assert!(shown["counters"]["traps"]["metadata"].as_u64().unwrap() > 0, "{shown}");
    assert_eq!(shown["label"], "of-eve");
    let dropped = || street.switch.drops("gateway_unserved", Some("eve")).unwrap();
    let before = dropped();
    let other = street.within(&street.eve, || {
        TcpStream::connect_timeout(&"169.254.169.254:81".parse().unwrap(), Duration::from_millis(100))
    });
    assert!(other.is_err() && dropped() > before);
}

#[test]
fn bytes_arrive_as_they_were_sent_in_both_directions() {
    let street = Street::new(1);
    let agent = street.agent();
    street.within(&street.eve, || {
        let answer = ask(METADATA, "/large", b"").unwrap();
        assert!(answer == large(LARGE), "{} bytes of {LARGE}, or others", answer.len());
        let body = large(300_000);
        assert!(ask(METADATA, "/back", &body).unwrap() == body);
        // Half-closed: the guest has said all and is still answered.
        let mut stream = dial(METADATA).unwrap();
        stream.write_all(b"POST /rest HTTP/1.1\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.ends_with(&body));
    });
    // Who hangs up is gone on the other side too.
    drop(street.held());
    until("the agent to see the guest hang up", || agent.hung_up.load(Ordering::Acquire) == 1);
}

#[test]
fn label_and_network_change_in_one_step_under_a_guest_that_keeps_asking() {
    let street = Street::new(2);
    let agent = street.agent();
    street.who(&street.eve).unwrap();
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let hammers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, seen) = (stop.clone(), seen.clone());
            within(&street.scene.world, "eve", move || {
                while !stop.load(Ordering::Acquire) {
                    // A request that a move has cut is lost; which one, is the network's business. One that was begun from an
                    // address that the port no longer has is heard of no more, so nobody waits for it.
                    if let Ok(answer) =
                        ask_within(METADATA, "/who", b"", Duration::from_secs(1)).and_then(whose)
                    {
                        seen.lock().unwrap().push(answer);
                    }
                }
            })
        })
        .collect();
    let count = || seen.lock().unwrap().len();
    let network_of = |step: usize| if step.is_multiple_of(2) { 100 } else { 200 };
    for step in 0..50 {
        let ip = if step % 2 == 0 { SAME } else { "10.0.0.6" };
        // In network 200 bob has eve's address: eve gets another there, and keeps both at hand.
        if step == 0 {
            street.eve.run("ip", &["address", "add", "10.0.0.6/24", "dev", "eve"]).unwrap();
        }
        say(
            &street.switch,
            &format!(
                "port move eve --network {} --ip {SAME_OF} --label g{step} --no-bounce",
                network_of(step),
                SAME_OF = ip
            ),
        );
        street.eve.run("ip", &["route", "replace", "default", "via", "10.0.0.254", "src", ip]).unwrap();
        let before = count();
        if step % 10 == 9 {
            until("requests to be answered after the move", || count() > before + 10);
        }
        // Whoever asks after a move is acknowledged is seen as it is then.
        if step % 10 == 9 {
            let now = street.who(&street.eve).unwrap();
            assert_eq!(now.label.unwrap().as_str(), format!("g{step}"));
        }
    }
    stop.store(true, Ordering::Release);
    hammers.into_iter().for_each(|hammer| hammer.join().unwrap());
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    println!("{} requests answered during 50 moves", seen.len());
    for answer in &seen {
        let label = answer.label.as_ref().unwrap().as_str();
        let step = label.strip_prefix('g').map(|step| step.parse::<usize>().unwrap());
        let expected = step.map_or(100, network_of);
        assert_eq!(answer.network.value(), expected, "label {label} in network {}", answer.network);
        assert_eq!(answer.peer.ip().to_string(), if expected == 100 { SAME } else { "10.0.0.6" });
    }
    assert!(agent.greeted.load(Ordering::Acquire) >= seen.len());
}

#[test]
fn a_change_ends_open_connections() {
    let street = Street::new(1);
    let agent = street.agent();
    let hung_up = |count| until("the agent to see it", || agent.hung_up.load(Ordering::Acquire) == count);

    // The label alone: the guest is where it was, and told at once.
    let mut held = street.held();
    say(&street.switch, &format!("port move eve --network 100 --ip {SAME} --label new"));
    assert_eq!(held.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    hung_up(1);
    assert_eq!(street.who(&street.eve).unwrap().label.unwrap().as_str(), "new");
    assert_eq!(say(&street.switch, "port show eve")["link"], "up", "a label is no reason for a bounce");

    // Rules come and go without it.
    let mut held = street.held();
    say(&street.switch, "rule add --port eve --direction out --action deny");
    held.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(held.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    say(&street.switch, "rule remove --port eve 1");

    // Another network: the guest finds out when it next speaks.
    say(&street.switch, "port remove bob");
    say(&street.switch, &format!("port move eve --network 200 --ip {SAME} --no-bounce"));
    hung_up(2);
    held.set_read_timeout(Some(PATIENCE)).unwrap();
    // Whichever asks first is told: a late acknowledgement of the guest's may have waited for the new switch.
    let told = held.write_all(b"is anybody there?").and_then(|()| held.read(&mut [0])).unwrap_err();
    assert_eq!(told.kind(), io::ErrorKind::ConnectionReset);
    let after = street.who(&street.eve).unwrap();
    assert_eq!((after.network.value(), after.label.unwrap().as_str()), (200, "new"), "a label stays");

    // The port itself.
    let _held = street.held();
    say(&street.switch, "port remove eve");
    hung_up(3);
}

#[test]
fn a_guest_that_opens_all_it_can_costs_another_nothing() {
    let street = Street::new(1);
    let agent = street.agent();
    let stop = Arc::new(AtomicBool::new(false));
    let flood: Vec<_> = (0..3)
        .map(|_| {
            let stop = stop.clone();
            within(&street.scene.world, "eve", move || {
                let (mut kept, mut tried) = (Vec::new(), 0);
                while !stop.load(Ordering::Acquire) {
                    let to = METADATA.parse::<SocketAddr>().unwrap();
                    // Each is a connection that nobody ends, or a SYN that nobody answers.
                    kept.extend(TcpStream::connect_timeout(&to, Duration::from_millis(1)));
                    tried += 1;
                }
                (kept.len(), tried)
            })
        })
        .collect();
    until("the flood to be felt", || street.switch.drops("metadata_full", Some("eve")).unwrap() > 100);
    for _ in 0..200 {
        assert_eq!(street.who(&street.bob).unwrap().port.as_str(), "bob");
    }
    stop.store(true, Ordering::Release);
    let flood: Vec<_> = flood.into_iter().map(|flood| flood.join().unwrap()).collect();
    println!("the flood as (kept, tried): {flood:?}");
    assert_eq!(street.switch.drops("metadata_full", Some("bob")).unwrap(), 0);
    // Nothing is left of it: the guest itself is served again.
    assert_eq!(street.who(&street.eve).unwrap().port.as_str(), "eve");
    assert!(agent.greeted.load(Ordering::Acquire) > 200);
}

#[test]
fn agents_and_switches_come_and_go() {
    let mut street = Street::new(1);
    let refused = |street: &Street| {
        let error = street.who(&street.eve).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    };
    refused(&street);
    let agent = street.agent();
    assert_eq!(street.who(&street.eve).unwrap().port.as_str(), "eve");
    drop(agent);
    refused(&street);
    // A socket that nobody listens at any more.
    let path = street.switch.agent();
    drop(UnixListener::bind(&path).unwrap());
    refused(&street);
    let agent = street.agent();
    assert_eq!(street.who(&street.eve).unwrap().port.as_str(), "eve");

    let mut held = street.held();
    street.switch.terminate().unwrap();
    assert_eq!(held.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    until("the agent to see it", || agent.hung_up.load(Ordering::Acquire) == 1);
    street.switch.start().unwrap();
    assert_eq!(street.who(&street.eve).unwrap().label.unwrap().as_str(), "of-eve");

    let mut held = street.held();
    street.switch.kill();
    street.switch.start().unwrap();
    // Whichever asks first is told: a late acknowledgement of the guest's may have waited for the new switch.
    let told = held.write_all(b"is anybody there?").and_then(|()| held.read(&mut [0])).unwrap_err();
    assert_eq!(told.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(street.who(&street.bob).unwrap().label.unwrap().as_str(), "of-bob");
    assert!(Path::new(&path).exists());
}

/// Open connections that nobody uses cost no processor time.
#[test]
fn with_nothing_to_do_the_endpoint_sleeps() {
    let street = Street::new(1);
    let _agent = street.agent();
    let _held = street.held();
    let tasks = format!("/proc/{}/task", street.switch.process().unwrap().pid());
    let stat = |task: &Path| fs::read_to_string(task.join("stat")).unwrap_or_default();
    let all = fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path());
    let own: Vec<_> = all.filter(|task| stat(task).contains("(shunt-metadata)")).collect();
    assert_eq!(own.len(), 1, "one thread");
    let mut asleep = 0;
    until("the thread to be found asleep, time and again", || {
        let sleeps = stat(&own[0]).rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'));
        asleep = if sleeps { asleep + 1 } else { 0 };
        asleep == 50
    });
}
