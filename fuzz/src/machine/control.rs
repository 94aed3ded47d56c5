//! The control socket of a whole switch: the input is a row of lines, nearly right requests and garbage.
//!
//! The switch goes on from input to input, for starting one takes a while; each input begins with the same document and
//! an empty directory, but with a higher generation, which requests therefore name relative to the present one.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataplane::ctl::Server;
use dataplane::ctl::protocol::{
    BounceOrder, Changed, Counted, Entries, Moved, Networks, Ports, Refusal, Request, Response, Routes, Wait,
};
use dataplane::desired::{HostConfig, RuleId};
use dataplane::switch::{Mapping, State, StateError, Switch, SwitchConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::opener::{Pairs, WITHOUT_DEVICE};
use crate::dice::Dice;

const MOST_STEPS: usize = 10;
/// Long enough for any answer that comes at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// Beyond this a new switch begins to count anew.
const LAST_GENERATION: u64 = 1 << 40;
/// No move is waited for longer than this, in milliseconds.
const SHORT_WAIT: u64 = 2;

/// One line of answer to each line of request; what is refused is named, and has changed nothing; what is done is what
/// was asked, and nothing else; and a restart finds it.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    thread_local! {
        static DOORS: RefCell<Option<Doors>> = const { RefCell::new(None) };
    }
    DOORS.with_borrow_mut(|slot| {
        let mut dice = Dice::new(input);
        let shall_restart = dice.rarely(32);
        // Taken out, so that a broken truth leaves no broken switch behind.
        let doors = slot.take().filter(|doors| doors.switch.document().generation.0 < LAST_GENERATION);
        let doors = doors.unwrap_or_else(Doors::open);
        let mut client = Client::new(&doors);
        for _ in 0..MOST_STEPS {
            if dice.is_empty() {
                break;
            }
            client.step(&mut dice);
        }
        if shall_restart {
            doors.restart();
        } else {
            *slot = Some(doors);
        }
    });
}

/// A running switch and its socket.
struct Doors {
    switch: Arc<Switch>,
    server: Server,
    dir: TempDir,
}

impl Doors {
    fn open() -> Self {
        let dir = super::scratch();
        let place = dir.path().display();
        let text = format!(
            "state_dir = \"{place}/state\"\nsocket = \"{place}/sock\"\n\
             underlay.physical_ip = \"192.0.2.1\"\nworkers.poll = \"sleep\""
        );
        let config = SwitchConfig::parse(&text, Path::new("control.toml")).unwrap();
        let switch = Switch::start(config, Arc::new(Pairs)).expect("the switch starts");
        let server = Server::start(switch.clone()).expect("the socket opens");
        Self { switch, server, dir }
    }

    fn directory(&self) -> Vec<Mapping> {
        self.switch.directory_list(None, None, usize::MAX - 1).unwrap()
    }

    /// The same document and an empty directory for each input.
    fn reset(&self) {
        for Mapping { network, ip, .. } in self.directory() {
            assert!(self.switch.directory_remove(network, ip).unwrap());
        }
        let generation = self.switch.document().generation.0;
        let document = first_document(generation + 2);
        if !self.switch.document().same_content(&document) {
            // Without ports first: a port of the same name may have got another device meanwhile.
            let none = HostConfig {
                generation: dataplane::types::Generation(generation + 1),
                ..HostConfig::default()
            };
            self.switch.apply(none).expect("an empty document is accepted");
            self.switch.apply(document).expect("the first document is accepted");
        }
    }

    /// What was acknowledged is on disk.
    fn restart(self) {
        let (document, directory) = (self.switch.document(), self.directory());
        let Self { switch, server, dir } = self;
        drop(server);
        switch.stop();
        drop(switch);
        let mut tries = 0;
        let (state, found) = loop {
            match State::open(&dir.path().join("state")) {
                Err(StateError::Locked { .. }) if tries < 1000 => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                other => break other.expect("a stopped switch leaves a whole state"),
            }
            tries += 1;
        };
        assert_eq!(found, *document);
        assert_eq!(state.mappings(None, None, usize::MAX).unwrap(), directory);
    }
}

fn first_document(generation: u64) -> HostConfig {
    let document = json!({"generation": generation, "networks": [
        {"vni": 100, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}, {"prefix": "fd00::/64", "gateway": "fd00::1"}],
         "routes": [{"prefix": "10.9.0.0/16", "via": "10.0.0.9"}, {"prefix": "10.2.0.0/24", "via": "network:200"}]},
        {"vni": 200, "mtu": 1400, "subnets": [{"prefix": "10.2.0.0/24", "gateway": "10.2.0.1"}]}],
        "ports": [{"name": "p1", "network": 100, "mac": "02:00:00:00:00:01", "ips": ["10.0.0.5"]},
                  {"name": "p2", "network": 200, "mac": "02:00:00:00:00:02", "ips": ["10.2.0.5"]}]});
    serde_json::from_value(document).unwrap()
}

struct Client<'d> {
    doors: &'d Doors,
    lines: BufReader<UnixStream>,
    staged: Vec<Mapping>,
}

impl<'d> Client<'d> {
    fn new(doors: &'d Doors) -> Self {
        doors.reset();
        let stream = UnixStream::connect(doors.switch.config().socket.clone()).expect("the socket is there");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { doors, lines: BufReader::new(stream), staged: vec![] }
    }

    fn step(&mut self, dice: &mut Dice<'_>) {
        let mut line = match dice.byte() % 16 {
            0 => String::from_utf8_lossy(dice.bytes(255)).into_owned().into_bytes(),
            1 => dice.bytes(255).to_vec(),
            _ => {
                let mut text = self.request(dice).to_string().into_bytes();
                if dice.rarely(6) {
                    let at = usize::from(dice.word()) % text.len();
                    match dice.byte() % 3 {
                        0 => text.truncate(at),
                        1 => text[at] = dice.byte(),
                        _ => text.insert(at, dice.byte()),
                    }
                }
                text
            }
        };
        line.retain(|byte| *byte != b'\n');
        self.ask(&line);
    }

    fn ask(&mut self, line: &[u8]) {
        let text = std::str::from_utf8(line);
        if text.is_ok_and(|text| text.trim().is_empty()) {
            // Between two questions, an empty line is none.
            self.lines.get_mut().write_all(&[line, b"\n"].concat()).unwrap();
            return;
        }
        let request = text.ok().and_then(|text| serde_json::from_str::<Request>(text).ok());
        if let Some(Request::PortMove { wait: Some(_), timeout_ms: SHORT_WAIT.., .. }) = request {
            return;
        }
        let (document, directory) = (self.doors.switch.document(), self.doors.directory());
        self.lines.get_mut().write_all(&[line, b"\n"].concat()).expect("the switch listens");
        let mut answer = String::new();
        self.lines.read_line(&mut answer).expect("an answer comes in time");
        assert!(answer.ends_with('\n'), "the connection was closed: {}", String::from_utf8_lossy(line));
        let answer: Response<Value> = serde_json::from_str(&answer).expect("an answer is JSON");
        let (after, directory_after) = (self.doors.switch.document(), self.doors.directory());
        match (answer, request) {
            (Response::Error(refusal), request) => {
                check_refusal(&refusal);
                if matches!(request, Some(Request::DirectoryCommit {})) {
                    self.staged.clear();
                }
                let moved = matches!(request, Some(Request::PortMove { wait: Some(_), .. }));
                if !(moved && refusal.what.contains("in its new network since")) {
                    assert_eq!(document, after, "a refused request has changed the document");
                }
                assert_eq!(directory, directory_after, "a refused request has changed the directory");
                if text.is_err() {
                    // What is no text ends the conversation.
                    let stream = UnixStream::connect(self.doors.switch.config().socket.clone()).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    (self.lines, self.staged) = (BufReader::new(stream), vec![]);
                }
            }
            (Response::Ok(_), None) => {
                panic!("answered what cannot be read: {}", String::from_utf8_lossy(line))
            }
            (Response::Ok(value), Some(request)) => {
                let written = serde_json::to_string(&request).unwrap();
                assert_eq!(serde_json::from_str::<Request>(&written).unwrap(), request);
                let expected = expected(&document, &request);
                assert_eq!(*after, expected, "{request:?}");
                let entries = self.entries(&directory, &request);
                assert_eq!(directory_after, entries, "{request:?}");
                self.check_answer(value, &request, &after, &entries);
            }
        }
    }

    /// The directory after a request that was done.
    fn entries(&mut self, before: &[Mapping], request: &Request) -> Vec<Mapping> {
        let mut after = before.to_vec();
        let mut set = |entries: &[Mapping]| {
            for entry in entries {
                after.retain(|other| (other.network, other.ip) != (entry.network, entry.ip));
                after.push(*entry);
            }
        };
        match request {
            Request::DirectorySet { entries } => set(entries),
            Request::DirectoryStage { entries, packed } => {
                self.staged.extend(entries);
                self.staged.extend(&packed.0);
            }
            Request::DirectoryCommit {} => set(&std::mem::take(&mut self.staged)),
            Request::DirectoryRemove { network, ip } => {
                after.retain(|other| (other.network, other.ip) != (*network, *ip));
                assert_eq!(after.len() + 1, before.len(), "it was there");
            }
            _ => {}
        }
        after.sort_by_key(|entry| (entry.network, entry.ip));
        after
    }

    fn check_answer(&self, value: Value, request: &Request, document: &HostConfig, entries: &[Mapping]) {
        match request {
            Request::Export {} => assert_eq!(read::<HostConfig>(value), *document),
            Request::NetworkList {} => {
                let listed = read::<Networks>(value);
                assert_eq!(listed.generation, document.generation);
                let configs = listed.networks.iter().map(|network| &network.config);
                assert!(configs.eq(document.networks.iter().map(AsRef::as_ref)));
            }
            Request::PortList {} => {
                let listed = read::<Ports>(value).ports;
                assert!(listed.iter().map(|port| &port.config).eq(document.ports.iter().map(AsRef::as_ref)));
            }
            Request::RouteList { network } => {
                let listed = read::<Routes>(value).routes;
                let known =
                    document.networks.iter().filter(|known| network.is_none_or(|vni| vni == known.vni));
                assert_eq!(listed.len(), known.map(|network| network.routes.len()).sum::<usize>());
            }
            Request::DirectoryLookup { network, ip } => {
                let found = read::<Mapping>(value);
                assert_eq!((found.network, found.ip), (*network, *ip));
                assert!(entries.contains(&found));
            }
            Request::DirectoryList { network, after, limit } => {
                let page = read::<Entries>(value);
                let all: Vec<_> = entries
                    .iter()
                    .filter(|entry| network.is_none_or(|vni| vni == entry.network))
                    .filter(|entry| after.is_none_or(|after| (entry.network, entry.ip) > after))
                    .collect();
                let most = (*limit).clamp(1, 10_000);
                assert!(page.entries.iter().eq(all.iter().copied().take(most)));
                assert_eq!(page.more, all.len() > most);
            }
            Request::DirectorySet { .. }
            | Request::DirectoryRemove { .. }
            | Request::DirectoryStage { .. }
            | Request::DirectoryCommit {} => drop(read::<Counted>(value)),
            Request::PortMove { .. } => assert_eq!(read::<Moved>(value).generation, document.generation),
            Request::PortShow { .. } | Request::Stats {} | Request::Drops {} => assert!(value.is_object()),
            _ => {
                let told = read::<Changed>(value);
                assert_eq!(told.generation, document.generation);
                assert!(told.swap_ns <= told.settled_ns);
            }
        }
    }

    /// A request that may well be done.
    fn request(&self, dice: &mut Dice<'_>) -> Value {
        let generation = self.doors.switch.document().generation.0;
        let vni = dice.pick(&[100, 200, 300, 0, 0xff_ffff, 1 << 24]);
        let port = dice.pick(&["p1", "p2", "p3", WITHOUT_DEVICE, "-", "ä"]);
        let ip = dice.pick(&[
            "10.0.0.5",
            "10.0.0.6",
            "10.2.0.5",
            "10.2.0.6",
            "fd00::5",
            "10.0.0.1",
            "127.0.0.1",
            "x",
        ]);
        let prefix = dice.pick(&[
            "10.9.0.0/16",
            "10.2.0.0/24",
            "10.3.0.0/24",
            "0.0.0.0/0",
            "10.0.0.5/24",
            "fd00:9::/64",
        ]);
        let mac =
            dice.pick(&["02:00:00:00:00:03", "02:00:00:00:00:01", "01:00:00:00:00:01", "0e:53:48:55:4e:54"]);
        let host = dice.pick(&["192.0.2.2", "192.0.2.1", "2001:db8::2", "0.0.0.0", "224.0.0.1"]);
        let entries = |dice: &mut Dice<'_>| -> Vec<Value> {
            let last = |dice: &mut Dice<'_>| format!("10.0.0.{}", dice.byte() % 8);
            let count = dice.byte() % 4;
            let ip = |dice: &mut Dice<'_>| if dice.rarely(4) { ip.to_owned() } else { last(dice) };
            (0..count)
                .map(|_| json!({"network": vni, "ip": ip(dice), "mac": mac, "physical_ip": host}))
                .collect()
        };
        match dice.byte() % 24 {
            0 => {
                let generation = generation.saturating_add(1).saturating_sub(u64::from(dice.byte() % 3));
                let mut document = serde_json::to_value(first_document(generation)).unwrap();
                match dice.byte() % 6 {
                    0 => document["ports"] = json!([]),
                    1 => document["ports"][0]["ips"] = json!([ip]),
                    2 => document["networks"][1]["vni"] = json!(vni),
                    3 => document["ports"][1]["queues"] = json!(dice.byte() % 20),
                    4 => document = serde_json::to_value(&*self.doors.switch.document()).unwrap(),
                    _ => {}
                }
                json!({"verb": "apply", "document": document})
            }
            1 => json!({"verb": "export"}),
            2 | 3 => {
                json!({"verb": "network_add", "network": {"vni": vni, "subnets": [{"prefix": prefix, "gateway": dice.pick(&["10.3.0.1", "10.9.0.1", ip])}]}})
            }
            4 => json!({"verb": "network_remove", "network": vni}),
            5 => json!({"verb": "network_list"}),
            6 | 7 => {
                json!({"verb": "port_add", "port": {"name": port, "network": vni, "mac": mac, "ips": [ip]}})
            }
            8..=10 => {
                let mut request = json!({"verb": "port_move", "port": port, "network": vni, "ips": [ip]});
                match dice.byte() % 6 {
                    0 => request["bounce"] = json!("no"),
                    1 => {
                        request["bounce"] =
                            json!({"hold_ms": dice.pick(&[0_u64, 1, 60_000, 60_001, u64::MAX])})
                    }
                    2 => (request["wait"], request["timeout_ms"]) = (json!("lease"), json!(dice.byte() % 2)),
                    3 => (request["wait"], request["timeout_ms"]) = (json!("traffic"), json!(0)),
                    _ => {}
                }
                request
            }
            11 => json!({"verb": "port_remove", "port": port}),
            12 => json!({"verb": "port_list"}),
            13 => json!({"verb": "port_show", "port": port}),
            14 => {
                let via = dice.pick(&[
                    "drop",
                    "gateway",
                    "network:200",
                    "network:100",
                    "10.0.0.9",
                    "10.2.0.9",
                    "fd00::9",
                ]);
                json!({"verb": "route_add", "network": vni, "route": {"prefix": prefix, "via": via}})
            }
            15 => json!({"verb": "route_remove", "network": vni, "prefix": prefix}),
            16 => {
                json!({"verb": "route_list", "network": if dice.rarely(2) { json!(vni) } else { Value::Null }})
            }
            17 => json!({"verb": "directory_set", "entries": entries(dice)}),
            18 => json!({"verb": "directory_remove", "network": vni, "ip": ip}),
            19 => json!({"verb": "directory_lookup", "network": vni, "ip": ip}),
            20 => {
                let mut request =
                    json!({"verb": "directory_list", "limit": dice.pick(&[0_u64, 1, 2, 10_001, u64::MAX])});
                if dice.rarely(2) {
                    request["network"] = json!(vni);
                }
                if dice.rarely(2) {
                    request["after"] = json!([vni, ip]);
                }
                request
            }
            21 => json!({"verb": "directory_stage", "entries": entries(dice)}),
            22 => json!({"verb": "directory_commit"}),
            _ => json!({"verb": dice.pick(&["stats", "drops", "export", "reboot"])}),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the answer has its documented form")
}

fn check_refusal(refusal: &Refusal) {
    let Refusal { what, place, remedy } = refusal;
    for said in [what, place, remedy] {
        assert!(!said.trim().is_empty(), "{refusal:?}");
    }
    assert!(!what.ends_with('.') && refusal.to_string().contains(what.as_str()));
}

/// The document after a request that was done.
fn expected(before: &HostConfig, request: &Request) -> HostConfig {
    let mut after = before.clone();
    match request.clone() {
        Request::Apply { document } => return document,
        Request::NetworkAdd { network } => after.networks.push(network.into()),
        Request::NetworkRemove { network } => after.networks.retain(|other| other.vni != network),
        Request::PortAdd { port } => after.ports.push(port.into()),
        Request::PortRemove { port } => after.ports.retain(|other| other.name != port),
        Request::PortMove { port, network, ips, rules, label, bounce, wait, .. } => {
            let moved =
                after.ports.iter_mut().find(|other| other.name == port).expect("a port that is there");
            let moved = Arc::make_mut(moved);
            let stays = moved.network == network && moved.ips == ips;
            (moved.network, moved.ips) = (network, ips);
            if let Some(rules) = rules {
                moved.rules = rules;
            }
            if label.is_some() {
                moved.label = label;
            }
            assert!(!matches!(bounce, BounceOrder::HoldMs(60_001..)));
            assert!(stays || !matches!(wait, Some(Wait::Traffic)), "nobody has sent anything");
        }
        Request::RuleAdd { port, mut rule } => {
            let changed = after.ports.iter_mut().find(|other| other.name == port).unwrap();
            let rules = &mut Arc::make_mut(changed).rules;
            if rule.id == RuleId::default() {
                rule.id = RuleId(rules.iter().map(|rule| rule.id.0).max().unwrap_or(0) + 1);
            }
            rules.push(rule);
        }
        Request::RuleRemove { port, rule } => {
            let changed = after.ports.iter_mut().find(|other| other.name == port).unwrap();
            Arc::make_mut(changed).rules.retain(|other| other.id != rule);
        }
        Request::RouteAdd { network, route } => {
            let changed = after.networks.iter_mut().find(|other| other.vni == network).unwrap();
            Arc::make_mut(changed).routes.push(route);
        }
        Request::RouteRemove { network, prefix } => {
            let changed = after.networks.iter_mut().find(|other| other.vni == network).unwrap();
            Arc::make_mut(changed).routes.retain(|route| route.prefix != prefix);
        }
        _ => return after,
    }
    after.generation = after.generation.next();
    after
}
