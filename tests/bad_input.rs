//! Bad input of every kind: one clear sentence with the place and the remedy, an exit code that says whose fault it is,
//! and a running switch that does not notice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::{CliFailure, Guest, Host, Switch, SwitchOptions, Tool, World, wait_until};
use scene::{PATIENCE, Scene, say, shunt};
use std::fs;

/// A switch with one network, a port and a witness that both go on.
struct House {
    guest: Guest,
    switch: Switch,
    host: Host,
    process: u32,
    document: serde_json::Value,
    scene: Scene,
}

impl House {
    fn new() -> Self {
        let scene = Scene::new(&[Tool::PING]);
        let (host, switch) = scene.switch("host-a", 1, &SwitchOptions::default());
        say(&switch, "network add 100 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
        let guest = scene.static_guest(&switch, "g1", 100, "02:00:00:00:00:01", "10.0.0.1");
        guest.wait_for_ping([10, 0, 0, 254].into(), PATIENCE).unwrap();
        let process = switch.process().unwrap().pid();
        let document = say(&switch, "export");
        Self { guest, switch, host, process, document, scene }
    }

    /// A verb is refused: exit code, a sentence, a place and a remedy that hold the given words.
    fn refuses(&self, verb: &[&str], code: i32, words: [&str; 3]) {
        let failure = self.switch.cli(verb).expect_err("it must be refused");
        check(&failure, code, words);
        self.is_undisturbed();
    }

    fn is_undisturbed(&self) {
        assert_eq!(self.switch.process().map(control::lab::Process::pid), Some(self.process));
        assert!(scene::is_alive(self.process), "{}", self.switch.log());
        assert_eq!(say(&self.switch, "export"), self.document, "nothing of the document has changed");
        self.guest.wait_for_ping([10, 0, 0, 254].into(), PATIENCE).unwrap();
    }

    /// Starts another switch on this host; it must end with an error.
    fn second_switch_fails(&self, config: &str, prefix: &[&str]) -> CliFailure {
        self.scene.world.write("/run/lab/second.toml", config).unwrap();
        run_fails(&self.scene.world, &self.host, "/run/lab/second.toml", prefix)
    }
}

/// `shunt vswitch run --config CONFIG` on a host, under the programs of `prefix`; how it fails.
fn run_fails(world: &World, host: &Host, config: &str, prefix: &[&str]) -> CliFailure {
    let binary = shunt().display().to_string();
    let mut words = prefix.to_vec();
    words.extend([binary.as_str(), "vswitch", "run", "--config", config, "--output", "json"]);
    let (program, arguments) = words.split_first().unwrap();
    let output = world.command(Some(&host.name), program, arguments).output().unwrap();
    CliFailure {
        verb: "run".to_owned(),
        code: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Judges an error: the words are to be found in what, where and remedy, in this order.
fn check(failure: &CliFailure, code: i32, words: [&str; 3]) {
    assert_eq!(failure.code, Some(code), "{failure}");
    for (part, word) in ["what", "where", "remedy"].into_iter().zip(words) {
        let text = failure.part(part).unwrap_or_else(|| panic!("no `{part}` in {failure}"));
        assert!(!text.trim().is_empty(), "`{part}` is empty in {failure}");
        let is_there = text.to_lowercase().contains(&word.to_lowercase());
        assert!(is_there, "`{part}` says nothing of “{word}”: {failure}");
        assert!(!text.contains("panicked") && !text.contains('\n'), "one sentence, no dump: {failure}");
    }
}

/// The configuration of a second switch that would be right if nothing were wrong.
fn second(extra: &str) -> String {
    format!(
        "state_dir = \"/run/lab/second\"\nsocket = \"/run/shunt/second.sock\"\n{extra}\
         [underlay]\nphysical_ip = \"192.0.2.1\"\n"
    )
}

#[test]
fn what_the_command_line_is_told() {
    let house = House::new();
    // Usage: the command line itself is wrong.
    house.refuses(&["network", "add", "16777216", "--prefix", "10.1.0.0/24"], 2, ["16777216", "", ""]);
    house.refuses(&["network", "add", "300", "--prefix", "10.1.0.0/33"], 2, ["10.1.0.0/33", "", ""]);
    house.refuses(&["no-such-verb"], 2, ["no-such-verb", "", ""]);
    // The command line is right, and the switch refuses.
    house.refuses(&["network", "add", "300", "--prefix", "10.1.0.7/24"], 2, ["write 10.1.0.0/24", "", ""]);
    house.refuses(&["network", "add", "100", "--prefix", "10.1.0.0/24"], 1, ["already exists", "", "apply"]);
    let add = |name, mac, ip, netns| {
        ["port", "add", name, "--network", "100", "--mac", mac, "--ip", ip, "--netns", netns]
    };
    house.scene.world.add_netns("free").unwrap();
    house.refuses(&add("g2", "02:00:00:00:00:01", "10.0.0.2", "free"), 1, ["02:00:00:00:00:01", "g", ""]);
    house.refuses(&add("g2", "02:00:00:00:00:02", "10.0.0.1", "free"), 1, ["10.0.0.1", "g", ""]);
    house.refuses(
        &add("g1", "02:00:00:00:00:02", "10.0.0.2", "free"),
        1,
        ["g1 already exists", "", "port move"],
    );
    house.refuses(
        &add("g2", "02:00:00:00:00:02", "10.0.0.2,10.0.0.2", "free"),
        1,
        ["twice", "g2, ips", "once"],
    );
    house.refuses(&add("g2", "02:00:00:00:00:02", "10.9.9.9", "free"), 1, ["10.9.9.9", "", ""]);
    house.refuses(&add("g2", "02:00:00:00:00:02", "10.0.0.2", "nowhere"), 1, ["nowhere", "", "ip netns"]);
    house.refuses(&["port", "move", "g9", "--network", "100", "--ip", "10.0.0.9"], 1, ["g9", "", ""]);
    house.refuses(&["port", "move", "g1", "--network", "999", "--ip", "10.0.0.9"], 1, ["999", "", ""]);
}

#[test]
fn an_older_document_and_another_one_of_the_same_number() {
    let house = House::new();
    let apply = |document: &serde_json::Value, code, words| {
        house.scene.world.write("/run/lab/document.json", &document.to_string()).unwrap();
        let file = house.scene.world.outside("/run/lab/document.json").display().to_string();
        house.refuses(&["apply", &file], code, words);
    };
    let generation = house.document["generation"].as_u64().expect("a generation");
    let mut older = house.document.clone();
    older["generation"] = (generation - 1).into();
    apply(&older, 1, ["older", "", ""]);
    let mut other = house.document.clone();
    other["networks"] = serde_json::json!([]);
    other["ports"] = serde_json::json!([]);
    apply(&other, 1, ["content", "", ""]);
    let mut unknown = house.document.clone();
    unknown["colour"] = "blue".into();
    apply(&unknown, 2, ["colour", "document.json", ""]);
}

#[test]
fn what_the_configuration_file_says() {
    let house = House::new();
    let config = second("workres = 3\n");
    check(&house.second_switch_fails(&config, &[]), 2, ["workres", "second.toml", ""]);
    let config = second("").replace("192.0.2.1", "192.0.2.256");
    check(&house.second_switch_fails(&config, &[]), 2, ["192.0.2.256", "second.toml", ""]);
    let config = format!("{}encapsulation = \"gre\"\n", second(""));
    check(&house.second_switch_fails(&config, &[]), 2, ["gre", "second.toml", ""]);
    let failure = run_fails(&house.scene.world, &house.host, "/run/lab/absent.toml", &[]);
    check(&failure, 2, ["", "absent.toml", ""]);
    house.is_undisturbed();
}

#[test]
fn a_second_switch_on_the_same_address_or_state() {
    let house = House::new();
    check(&house.second_switch_fails(&second(""), &[]), 1, ["4789", "", ""]);
    let state_dir = "/run/lab/switch/host-a/state";
    let config = second("").replace("/run/lab/second", state_dir);
    check(&house.second_switch_fails(&config, &[]), 1, ["", state_dir, ""]);
    house.is_undisturbed();
}

#[test]
fn without_permission() {
    let house = House::new();
    let world = &house.scene.world;
    world.run(None, "mkdir", &["-m", "777", "/run/lab/second"]).unwrap();
    world.run(None, "chmod", &["777", "/run/shunt"]).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    // The binary may stand in a directory that nobody else may enter.
    let copy = "/run/lab/shunt";
    fs::copy(shunt(), world.outside(copy)).unwrap();
    let run = |config: &str| {
        world.write("/run/lab/second.toml", config).unwrap();
        let mut words = nobody.to_vec();
        words.extend([copy, "vswitch", "run", "--config", "/run/lab/second.toml", "--output", "json"]);
        let output = world.command(Some("host-a"), words[0], &words[1..]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        CliFailure { verb: "run".to_owned(), code: output.status.code(), stderr }
    };
    let config = second("").replace("/run/lab/second", "/run/lab/switch/host-a/other");
    check(&run(&config), 1, ["permission", "/run/lab/switch/host-a", ""]);
    // A person without rights asks a running switch.
    let mut words = nobody.to_vec();
    words.extend([copy, "vswitch", "--socket", "/run/shunt/host-a.sock", "--output", "json", "port", "list"]);
    let output = world.command(None, words[0], &words[1..]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let failure = CliFailure { verb: "port list".to_owned(), code: output.status.code(), stderr };
    check(&failure, 1, ["permission", "host-a.sock", ""]);
    house.is_undisturbed();
}

#[test]
fn no_switch_answers_at_the_socket() {
    let mut house = House::new();
    house.switch.terminate().unwrap();
    let failure = house.switch.cli(&["port", "list"]).expect_err("nobody is there");
    check(&failure, 1, ["", "host-a.sock", "vswitch run"]);
}

#[test]
fn a_corrupt_state_file_is_kept_and_never_overwritten() {
    let mut house = House::new();
    house.switch.kill();
    let file = house.switch.state_dir().join("state.redb");
    let size = fs::metadata(&file).expect("a state file").len();
    let garbage: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    fs::write(&file, &garbage).unwrap();
    let world = &house.scene.world;
    let failure = run_fails(world, &house.host, &house.switch.config_inside(), &[]);
    check(&failure, 1, ["corrupt", "state.redb", "--discard-state"]);
    assert!(fs::read(&file).unwrap() == garbage, "the file is as it was");

    // The remedy does what it says: the file is kept aside and the switch starts empty.
    let (config, binary) = (house.switch.config_inside(), shunt().display().to_string());
    let arguments = ["vswitch", "run", "--config", &config, "--discard-state"];
    let process = world.spawn(Some("host-a"), &binary, &arguments).unwrap();
    let socket = house.switch.socket();
    wait_until("the switch to answer", PATIENCE, || {
        Ok((socket.exists() && house.switch.cli(&["port", "list"]).is_ok()).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", process.output()));
    let kept = fs::read_dir(house.switch.state_dir()).unwrap().filter_map(Result::ok);
    assert!(
        kept.map(|entry| fs::read(entry.path()).unwrap()).any(|bytes| bytes == garbage),
        "it is kept aside"
    );
}
