//! The doors of a switch without ports: socket, protocol, client, metrics. Needs no privilege.

#![cfg(feature = "io")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use dataplane::ctl::protocol::{
    Changed, Counted, Drops, Entries, LONGEST_LINE, Networks, Packed, Ports, Routes, Stats,
};
use dataplane::ctl::{Client, ClientError, DoorError, Refusal, Request, Response, Server};
use dataplane::desired::HostConfig;
use dataplane::port::open::Direct;
use dataplane::switch::{Mapping, Switch, SwitchConfig};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

struct Doors {
    dir: tempfile::TempDir,
    switch: Arc<Switch>,
    server: Option<Server>,
}

impl Drop for Doors {
    fn drop(&mut self) {
        drop(self.server.take());
        self.switch.stop();
    }
}

/// Each switch has a loopback address of its own, so that tests run side by side.
fn config(dir: &Path) -> SwitchConfig {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    let [a, b] = u16::try_from(std::process::id() % 65_000).unwrap().to_be_bytes();
    let dir = dir.display();
    let text = format!(
        "state_dir = \"{dir}/state\"\nsocket = \"{dir}/sock\"\nmetrics = \"127.0.0.1:0\"\nunderlay.physical_ip = \"127.{a}.{b}.{last}\""
    );
    SwitchConfig::parse(&text, Path::new("test.toml")).unwrap()
}

impl Doors {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let switch = Switch::start(config(dir.path()), Arc::new(Direct)).unwrap();
        let server = Server::start(switch.clone()).unwrap();
        Self { dir, switch, server: Some(server) }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    /// Sends raw lines and returns as many answers.
    fn raw(&self, lines: &[&str]) -> Vec<Value> {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        for line in lines {
            writeln!(stream, "{line}").unwrap();
        }
        let answers = BufReader::new(stream).lines();
        answers.take(lines.len()).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }
}

fn request(value: Value) -> Request {
    serde_json::from_value(value).unwrap()
}

fn add_network(vni: u32) -> Request {
    request(
        json!({"verb": "network_add", "network": {"vni": vni, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}]}}),
    )
}

fn mapping(network: u32, ip: &str) -> Mapping {
    serde_json::from_value(
        json!({"network": network, "ip": ip, "mac": "02:00:00:00:00:07", "physical_ip": "192.0.2.2"}),
    )
    .unwrap()
}

#[test]
fn one_connection_asks_everything_in_order() {
    let doors = Doors::open();
    let mut client = doors.client();
    let changed: Changed = client.call(&add_network(100)).unwrap();
    assert_eq!((changed.generation.0, changed.network.map(|vni| vni.value())), (1, Some(100)));
    assert!(changed.swap_ns > 0 && changed.settled_ns >= changed.swap_ns);
    let networks: Networks = client.call(&Request::NetworkList {}).unwrap();
    assert_eq!((networks.networks.len(), networks.networks[0].ports), (1, 0));
    assert_eq!(networks.networks[0].guest_mtu, 1450);

    let add = json!({"verb": "route_add", "network": 100, "route": {"prefix": "10.9.0.0/16", "via": "drop"}});
    let _: Changed = client.call(&request(add)).unwrap();
    let routes: Routes = client.call(&Request::RouteList { network: None }).unwrap();
    assert_eq!(routes.routes.len(), 1);
    let remove = request(json!({"verb": "route_remove", "network": 100, "prefix": "10.9.0.0/16"}));
    let _: Changed = client.call(&remove).unwrap();
    assert!(matches!(client.call::<Changed>(&remove), Err(ClientError::Refused(_))));

    let ports: Ports = client.call(&Request::PortList {}).unwrap();
    assert_eq!((ports.ports.len(), ports.generation.0), (0, 3));
    let stats: Stats = client.call(&Request::Stats {}).unwrap();
    assert_eq!(stats.generation.0, 3);
    let drops: Drops = client.call(&Request::Drops {}).unwrap();
    assert_eq!(drops.drops, []);

    let mut document: HostConfig = client.call(&Request::Export {}).unwrap();
    assert_eq!(document, *doors.switch.document());
    document.generation = document.generation.next();
    document.networks.clear();
    let changed: Changed = client.call(&Request::Apply { document }).unwrap();
    assert_eq!(changed.generation.0, 4);
    assert!(doors.switch.document().networks.is_empty());
}

#[test]
fn the_directory_is_set_listed_in_pages_and_imported_whole() {
    let doors = Doors::open();
    let mut client = doors.client();
    let entries = vec![mapping(1, "10.0.0.1"), mapping(1, "fd00::1"), mapping(2, "10.0.0.1")];
    let set: Counted = client.call(&Request::DirectorySet { entries: entries.clone() }).unwrap();
    assert_eq!(set.entries, 3);
    let key = |m: &Mapping| (m.network, m.ip);
    let list = |client: &mut Client, after, limit| -> Entries {
        client.call(&Request::DirectoryList { network: None, after, limit }).unwrap()
    };
    assert_eq!(list(&mut client, None, 2), Entries { entries: entries[..2].to_vec(), more: true });
    let rest = list(&mut client, Some(key(&entries[1])), 2);
    assert_eq!(rest, Entries { entries: entries[2..].to_vec(), more: false });

    let (network, ip) = key(&entries[0]);
    let found: Mapping = client.call(&Request::DirectoryLookup { network, ip }).unwrap();
    assert_eq!(found, entries[0]);
    let _: Counted = client.call(&Request::DirectoryRemove { network, ip }).unwrap();
    assert!(client.call::<Mapping>(&Request::DirectoryLookup { network, ip }).is_err());
    assert!(client.call::<Counted>(&Request::DirectoryRemove { network, ip }).is_err());

    // What was staged belongs to the connection, and counts only once it is committed.
    let mut other = doors.client();
    for last in 1..=3 {
        let entries = vec![mapping(9, &format!("10.0.0.{last}"))];
        let staged: Counted =
            other.call(&Request::DirectoryStage { entries, packed: Packed::default() }).unwrap();
        assert_eq!(staged.entries, last);
    }
    let nothing: Counted = client.call(&Request::DirectoryCommit {}).unwrap();
    assert_eq!((nothing.entries, list(&mut client, None, 9).entries.len()), (0, 2));
    let all: Counted = other.call(&Request::DirectoryCommit {}).unwrap();
    assert_eq!((all.entries, list(&mut client, None, 9).entries.len()), (3, 5));
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    let doors = Doors::open();
    let answers = doors.raw(&[
        "hello",
        r#"{"verb":"reboot"}"#,
        r#"{"verb":"stats","colour":"red"}"#,
        r#"{"verb":"network_remove","network":0}"#,
        r#"{"verb":"network_remove","network":5}"#,
        r#"{"verb":"stats"}"#,
        r#"{"verb":"port_move","port":"web","network":5,"ips":["10.0.0.5"],"bounce":{"hold_ms":60001}}"#,
    ]);
    let what = |index: usize| answers[index]["error"]["what"].as_str().unwrap().to_owned();
    assert!(what(0).contains("expected value"), "{}", what(0));
    assert!(what(1).contains("unknown variant `reboot`"), "{}", what(1));
    assert!(what(2).contains("unknown field `colour`"), "{}", what(2));
    assert!(what(3).contains("VNI 0 is out of range"), "{}", what(3));
    assert_eq!(what(4), "network 5 does not exist");
    assert_eq!(answers[4]["error"]["where"], "network 5");
    assert!(answers[5]["ok"]["ports"].is_array());
    assert_eq!(what(6), "a hold of 60001 ms is too long: at most 60000");
    assert_eq!(answers[6]["error"]["where"], "port web, hold_ms");
}

#[test]
fn a_network_with_ports_or_routes_into_it_stays() {
    let doors = Doors::open();
    let mut client = doors.client();
    let _: Changed = client.call(&add_network(100)).unwrap();
    let _: Changed = client.call(&add_network(200)).unwrap();
    let add = json!({"verb": "route_add", "network": 100, "route": {"prefix": "10.9.0.0/16", "via": "network:200"}});
    let _: Changed = client.call(&request(add)).unwrap();
    let remove = request(json!({"verb": "network_remove", "network": 200}));
    let refusal = client.call::<Changed>(&remove).unwrap_err().refusal();
    assert_eq!(refusal.place, "network 100, route 10.9.0.0/16");
    assert_eq!(refusal.what, "network 200 cannot go: network 100 has a route to 10.9.0.0/16 into it");
    assert_eq!(refusal.remedy, "remove it first: `shunt vswitch route remove --network 100 10.9.0.0/16`");
    assert_eq!(doors.switch.document().generation.0, 3);
}

#[test]
fn lines_without_end_are_cut_off() {
    let doors = Doors::open();
    let mut stream = UnixStream::connect(doors.socket()).unwrap();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..=LONGEST_LINE / chunk.len() {
        // The server may hang up before all of it is sent.
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert!(answer.contains("the request is longer than 67108864 bytes"), "{answer}");
    let _: Stats = doors.client().call(&Request::Stats {}).unwrap();
}

#[test]
fn a_line_that_is_not_utf8_is_refused_and_the_connection_closed() {
    let doors = Doors::open();
    let mut stream = UnixStream::connect(doors.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"verb\":\"export\xae\"}\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let answer: Value = serde_json::from_str(&answers).unwrap();
    assert_eq!(answer["error"]["what"], "the request is not UTF-8");
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    let doors = Doors::open();
    let mut open: Vec<Client> = (0..64).map(|_| doors.client()).collect();
    // An answer proves that the server has seen the connection.
    for client in &mut open {
        let _: Stats = client.call(&Request::Stats {}).unwrap();
    }
    let mut answer = String::new();
    let stream = UnixStream::connect(doors.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream).read_to_string(&mut answer).unwrap();
    let refused: Response<()> = serde_json::from_str(&answer).unwrap();
    assert!(matches!(refused, Response::Error(Refusal { what, .. }) if what.starts_with("64 clients")));
    drop(open.pop());
    let served = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        doors.client().call::<Stats>(&Request::Stats {}).is_ok()
    });
    assert!(served, "the seat of a client that left is not given away again");
}

#[test]
fn the_socket_is_the_owners_and_goes_with_the_server() {
    let mut doors = Doors::open();
    let file = fs::symlink_metadata(doors.socket()).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert!(matches!(Server::start(doors.switch.clone()), Err(DoorError::Answered { .. })));
    let _: Stats = doors.client().call(&Request::Stats {}).unwrap();
    let mut client = doors.client();
    drop(doors.server.take());
    assert!(!doors.socket().exists());
    assert!(matches!(client.call::<Stats>(&Request::Stats {}), Err(ClientError::Broken { .. })));
    let refusal = Client::connect(&doors.socket()).unwrap_err().refusal();
    assert!(refusal.what.starts_with("no switch answers: No such file"), "{refusal}");
    assert!(refusal.remedy.contains("shunt vswitch run"), "{refusal}");
}

#[test]
fn a_socket_that_nobody_answers_is_replaced_and_a_file_is_not() {
    let mut doors = Doors::open();
    drop(doors.server.take());
    drop(UnixListener::bind(doors.socket()).unwrap());
    assert!(doors.socket().exists());
    doors.server = Some(Server::start(doors.switch.clone()).unwrap());
    let _: Stats = doors.client().call(&Request::Stats {}).unwrap();
    drop(doors.server.take());
    fs::write(doors.socket(), "precious").unwrap();
    let error = Server::start(doors.switch.clone()).unwrap_err();
    assert!(matches!(error, DoorError::Taken { .. }), "{error}");
    assert_eq!(fs::read(doors.socket()).unwrap(), b"precious");
}

#[test]
fn metrics_are_served_over_http() {
    let doors = Doors::open();
    let _: Changed = doors.client().call(&add_network(100)).unwrap();
    let address = doors.server.as_ref().unwrap().metrics().unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let page = get("/metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("content-type: application/openmetrics-text"), "{page}");
    assert!(page.lines().any(|line| line == "shunt_vswitch_generation 1"), "{page}");
    assert!(get("/").starts_with("HTTP/1.1 404"));
    // The address is taken now.
    let dir = tempfile::tempdir().unwrap();
    let taken = SwitchConfig { metrics: Some(address), ..config(dir.path()) };
    let second = Switch::start(taken, Arc::new(Direct)).unwrap();
    let error = Server::start(second.clone()).unwrap_err();
    second.stop();
    assert!(matches!(error, DoorError::Metrics { .. }), "{error}");
    assert!(!dir.path().join("sock").exists(), "a switch without all its doors showed its socket");
}
