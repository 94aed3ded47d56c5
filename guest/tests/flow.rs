//! The agent's flow against a metadata service, a system and a link that are the test's: what is reported, what is done,
//! in which order, and what is not done twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use shunt_guest::{
    agent::{self, Settings},
    config::{FileConfig, GuestConfig, GuestReport, Phase, UserConfig},
    linux::Tree,
    os::{Os, OsError, ScriptEnd},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A metadata service with one document.
struct Service {
    address: SocketAddr,
    document: Arc<(Mutex<String>, Condvar)>,
    reports: Receiver<GuestReport>,
}

impl Service {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let document = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let (sender, reports) = channel();
        let shared = Arc::clone(&document);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (document, sender) = (Arc::clone(&shared), sender.clone());
                thread::spawn(move || serve(stream.unwrap(), &document, &sender));
            }
        });
        Self { address, document, reports }
    }

    fn publish(&self, document: &str) {
        document.clone_into(&mut self.document.0.lock().unwrap());
        self.document.1.notify_all();
    }

    /// The next report that is no mere sign of life.
    fn news(&self) -> GuestReport {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let report = self.reports.recv_timeout(PATIENCE).expect("the agent reports");
            if report.phase != Phase::Alive {
                return report;
            }
        }
        panic!("nothing but signs of life");
    }
}

fn generation(document: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
    value.get("generation").and_then(serde_json::Value::as_u64).unwrap_or_default()
}

fn serve(stream: TcpStream, document: &(Mutex<String>, Condvar), reports: &Sender<GuestReport>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or_default() == 0 {
                return;
            }
        }
        let lower = head.to_lowercase();
        assert!(lower.contains("metadata: true"), "{head}");
        let length = lower
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let answer = if head.starts_with("POST /shunt/v1/report ") {
            let _ = reports.send(serde_json::from_slice(&body).unwrap());
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
        } else {
            let after =
                head.split("after=").nth(1).map(|rest| rest.split('&').next().unwrap().parse().unwrap());
            let current = document.0.lock().unwrap();
            let waits = |current: &mut String| {
                current.is_empty() || after.is_some_and(|after| generation(current) <= after)
            };
            let current = document.1.wait_while(current, waits).unwrap().clone();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{current}", current.len())
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A system that writes down what is done to it. It renews a lease by writing the lease's file anew.
#[derive(Default)]
struct Diary {
    done: Mutex<Vec<String>>,
    lease: PathBuf,
    script_ends: Mutex<Option<ScriptEnd>>,
    /// A client that gives its lease up only after so long, and takes no notice of a renewal before that.
    slow: Option<Duration>,
}

impl Diary {
    fn note(&self, act: impl Into<String>) -> Result<(), OsError> {
        self.done.lock().unwrap().push(act.into());
        Ok(())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.done.lock().unwrap())
    }
}

impl Os for Diary {
    fn boot_id(&self) -> Result<String, OsError> {
        Ok("boot".into())
    }
    fn hostname(&self) -> Option<String> {
        Some("name".into())
    }
    fn set_hostname(&self, name: &str) -> Result<(), OsError> {
        self.note(format!("hostname {name}"))
    }
    fn set_user(&self, user: &UserConfig) -> Result<(), OsError> {
        self.note(format!("user {}", user.name))
    }
    fn set_time_zone(&self, zone: &str) -> Result<(), OsError> {
        if zone == "Nowhere" {
            Err(OsError::Unfit("no such zone".into()))
        } else {
            self.note(format!("zone {zone}"))
        }
    }
    fn write_file(&self, file: &FileConfig) -> Result<(), OsError> {
        self.note(format!("file {}", file.path))
    }
    fn run_script(&self, _: &str, generation: u64, _: Duration) -> Result<ScriptEnd, OsError> {
        self.note(format!("script of {generation}"))?;
        Ok(self.script_ends.lock().unwrap().clone().unwrap_or(ScriptEnd::Well))
    }
    fn release_lease(&self) {
        self.note("release").unwrap();
        let file = self.lease.clone();
        let remove = move || drop(fs::remove_file(file));
        match self.slow {
            None => remove(),
            Some(pause) => drop(thread::spawn(move || {
                thread::sleep(pause);
                remove();
            })),
        }
    }
    fn renew_lease(&self) {
        self.note("renew").unwrap();
        if !self.lease.exists() {
            lease(&self.lease);
        }
    }
}

fn lease(file: &Path) {
    let new = file.with_extension("new");
    fs::write(&new, "10.0.0.5").unwrap();
    fs::rename(new, file).unwrap();
}

struct House {
    dir: tempfile::TempDir,
    service: Service,
    diary: Arc<Diary>,
}

impl House {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(slow: Option<Duration>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let house = Self {
            service: Service::new(),
            diary: Arc::new(Diary { lease: dir.path().join("lease"), slow, ..Diary::default() }),
            dir,
        };
        house.link(2, true);
        house
    }

    fn link(&self, count: u32, up: bool) {
        let net = self.dir.path().join("net");
        fs::create_dir_all(&net).unwrap();
        // The counter last, for it is what makes the agent look; written in place, for it holds the files open.
        fs::write(net.join("carrier"), format!("{}\n", u8::from(up))).unwrap();
        fs::write(net.join("carrier_changes"), format!("{count}\n")).unwrap();
    }

    /// Starts an agent; it runs until the test ends.
    fn start(&self) {
        let settings = Settings {
            metadata: format!("http://{}", self.service.address),
            service: self.service.address,
            interface: self.dir.path().join("net"),
            carrier_poll: Duration::from_millis(2),
            heartbeat: Duration::from_millis(50),
            script_limit: PATIENCE,
            lease_file: Some(self.dir.path().join("lease")),
        };
        let os: Arc<dyn Os> = Arc::clone(&self.diary) as Arc<dyn Os>;
        let tree = Tree::open(self.dir.path()).unwrap();
        thread::spawn(move || agent::run(&settings, &os, &tree));
    }
}

const PARTIAL: &str = include_str!("../../control/tests/golden/guest_config_partial.json");
const FULL: &str = include_str!("../../control/tests/golden/guest_config_full.json");

fn full(generation: u64) -> GuestConfig {
    GuestConfig { generation, ..serde_json::from_str(FULL).unwrap() }
}

fn publish(house: &House, config: &GuestConfig) {
    house.service.publish(&serde_json::to_string(config).unwrap());
}

#[test]
fn a_placeholder_waits_and_a_bounce_makes_it_the_owners() {
    let house = House::new();
    house.service.publish(PARTIAL);
    house.start();
    assert!(house.service.reports.try_recv().is_err(), "without a lease there is nobody to talk to");
    lease(&house.diary.lease);
    let early = house.service.news();
    assert_eq!((early.generation, early.phase), (1, Phase::Partial));
    assert_eq!(house.diary.take(), ["hostname pool-17"], "nothing else of a placeholder's is applied");
    house.link(3, false);
    publish(&house, &full(7));
    house.link(4, true);
    let ready = house.service.news();
    assert_eq!((ready.generation, ready.phase, ready.detail), (7, Phase::Ready, None));
    let mut done = house.diary.take();
    // The new configuration may be heard of, and applied, before the link's return is.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !done.iter().any(|act| act == "renew") && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(2));
        done.extend(house.diary.take());
    }
    let lease_acts: Vec<_> = done.iter().filter(|act| ["release", "renew"].contains(&act.as_str())).collect();
    assert_eq!(lease_acts, ["release", "renew"]);
    let applied: Vec<_> = done.iter().filter(|act| !["release", "renew"].contains(&act.as_str())).collect();
    assert_eq!(
        applied,
        ["hostname web-1", "zone Europe/Berlin", "user alice", "file /etc/motd", "script of 7"]
    );
}

#[test]
fn a_bounce_between_two_looks_is_seen() {
    let house = House::new();
    lease(&house.diary.lease);
    publish(&house, &full(7));
    house.start();
    assert_eq!(house.service.news().phase, Phase::Ready);
    house.diary.take();
    house.link(4, true);
    // A renewed lease brings the agent back to the service, which has nothing new to say.
    while house.diary.done.lock().unwrap().len() < 2 {
        assert_eq!(house.service.reports.recv_timeout(PATIENCE).unwrap().phase, Phase::Alive);
    }
    assert_eq!(house.diary.take(), ["release", "renew"]);
}

#[test]
fn a_client_that_hears_the_release_late_is_told_to_renew_after_it() {
    let house = House::with(Some(Duration::from_millis(100)));
    lease(&house.diary.lease);
    publish(&house, &full(7));
    house.start();
    assert_eq!(house.service.news().phase, Phase::Ready);
    house.diary.take();
    // Down and up between two looks: both are told at once, and what comes first counts.
    house.link(4, true);
    while house.diary.done.lock().unwrap().len() < 2 {
        assert_eq!(house.service.reports.recv_timeout(PATIENCE).unwrap().phase, Phase::Alive);
    }
    assert_eq!(house.diary.take(), ["release", "renew"], "once is enough");
    assert!(house.diary.lease.exists(), "the renewal was not lost");
}

#[test]
fn a_new_configuration_comes_without_a_bounce_too() {
    let house = House::new();
    lease(&house.diary.lease);
    house.service.publish(PARTIAL);
    house.start();
    assert_eq!(house.service.news().phase, Phase::Partial);
    publish(&house, &full(8));
    assert_eq!(house.service.news().generation, 8);
    assert!(!house.diary.take().contains(&"renew".to_owned()));
}

#[test]
fn an_agent_that_is_started_anew_does_and_says_nothing_twice() {
    let house = House::new();
    lease(&house.diary.lease);
    publish(&house, &full(7));
    house.start();
    assert_eq!(house.service.news().phase, Phase::Ready);
    // It is remembered only after the host has taken the report; the first sign of life comes after that.
    assert_eq!(house.service.reports.recv_timeout(PATIENCE).unwrap().phase, Phase::Alive);
    house.diary.take();
    house.start();
    for _ in 0..6 {
        assert_eq!(house.service.reports.recv_timeout(PATIENCE).unwrap().phase, Phase::Alive);
    }
    assert!(house.diary.take().is_empty());
}

#[test]
fn a_script_that_was_interrupted_is_not_run_again() {
    let house = House::new();
    lease(&house.diary.lease);
    let config = full(7);
    let state = format!("{{\"vm_id\":\"{}\",\"script_started\":7}}", config.vm_id);
    fs::create_dir_all(house.dir.path().join("var/lib/shunt-guest")).unwrap();
    fs::write(house.dir.path().join("var/lib/shunt-guest/state.json"), state).unwrap();
    publish(&house, &config);
    house.start();
    let report = house.service.news();
    assert_eq!(report.phase, Phase::Failed);
    assert!(report.detail.unwrap().contains("interrupted"));
    assert!(!house.diary.take().contains(&"script of 7".to_owned()));
    // Another VM's traces on a copied disk are not believed.
    publish(&house, &GuestConfig { vm_id: "another".into(), ..config });
    house.link(4, true);
    assert_eq!(house.service.news().phase, Phase::Ready);
}

#[test]
fn all_that_fails_is_told_and_a_later_generation_may_succeed() {
    let house = House::new();
    lease(&house.diary.lease);
    *house.diary.script_ends.lock().unwrap() =
        Some(ScriptEnd::Badly { how: "status 3".into(), output: "no such package".into() });
    publish(&house, &full(7));
    house.start();
    let report = house.service.news();
    assert_eq!((report.phase, report.generation), (Phase::Failed, 7));
    assert_eq!(report.detail.unwrap(), "the script ended with status 3: no such package");
    house.diary.take();
    publish(&house, &GuestConfig { time_zone: Some("Nowhere".into()), ..full(8) });
    let report = house.service.news();
    assert_eq!((report.phase, report.detail.as_deref()), (Phase::Failed, Some("no such zone")));
    assert!(
        !house.diary.take().contains(&"script of 8".to_owned()),
        "a script may rely on what comes before it"
    );
    house.service.publish(r#"{"generation": 9, "vm_id": "v", "hostname": "a b"}"#);
    let report = house.service.news();
    assert_eq!((report.phase, report.generation), (Phase::Failed, 9));
    assert!(report.detail.unwrap().contains("`hostname`"));
    *house.diary.script_ends.lock().unwrap() = None;
    publish(&house, &full(10));
    assert_eq!(house.service.news().phase, Phase::Ready);
}
