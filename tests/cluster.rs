//! A whole cluster of processes: a controller, two hosts with switch and agent, guests of namespaces. A machine goes from the
//! pool to its customer and on to another network, driven by the command line alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod estate;
mod scene;

use control::dev::Stage;
use control::lab::{Tool, require};
use estate::{Estate, Machine, text};
use scene::{PATIENCE, shunt, take_turn};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;

const CURL: Tool = Tool { program: "curl", package: "curl" };

/// Says what went wrong with everybody's log.
fn ok(stage: &Stage, arguments: &[&str]) -> Value {
    stage.cli(arguments).unwrap_or_else(|error| panic!("{error}\n{}", stage.logs()))
}

/// Waits until `count` machines of the pool are ready.
fn stocked(stage: &Stage, count: u64) {
    let end = Instant::now() + PATIENCE;
    loop {
        let pool = ok(stage, &["pool", "show", "small"]);
        if pool["ready"].as_u64() == Some(count) {
            return;
        }
        assert!(Instant::now() < end, "the pool does not fill: {pool:#}\n{}", stage.logs());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// What runs in a guest, by its port: the process that is its first, and what its kernel's namespaces say.
struct Inside<'a> {
    stage: &'a Stage,
    port: String,
}

impl Inside<'_> {
    fn addresses(&self) -> String {
        self.stage.inside(&self.port, "ip", &["-4", "-o", "address", "show", "dev", &self.port]).unwrap()
    }

    fn ping(&self, to: &str) -> bool {
        self.stage.inside(&self.port, "ping", &["-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", to]).is_ok()
    }

    /// The process ids of its namespace, which is how one life is told from another.
    fn processes(&self) -> Vec<String> {
        let all = self.stage.world().run(None, "ip", &["netns", "pids", &self.port]).unwrap();
        all.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_machine_goes_from_the_pool_to_its_customer_and_on_without_a_reboot() {
    let _turn = take_turn();
    let stage = Stage::start(shunt(), 2).unwrap_or_else(|error| panic!("{error}"));
    ok(&stage, &["tenant", "create", "acme"]);
    for network in ["red", "blue"] {
        ok(&stage, &["network", "create", network, "--prefix", "10.0.0.0/24", "--tenant", "acme"]);
    }
    ok(&stage, &["pool", "create", "small", "--image", "tiny", "--min", "4", "--max", "4"]);
    stocked(&stage, 4);

    let create = |name: &str, network: &str, ip: &str| {
        let done = ok(
            &stage,
            &[
                "vm",
                "create",
                name,
                "--image",
                "tiny",
                "--network",
                network,
                "--ip",
                ip,
                "--wait",
                "--tenant",
                "acme",
            ],
        );
        assert_eq!(text(&done, "state"), "done", "{done:#}\n{}", stage.logs());
        assert_eq!(text(&done, "kind"), "hand_over", "{done:#}");
    };
    create("web-1", "red", "10.0.0.5");
    create("red-peer", "red", "10.0.0.6");
    create("blue-peer", "blue", "10.0.0.6");
    let vm = ok(&stage, &["vm", "show", "web-1", "--tenant", "acme"]);
    let web = Inside { stage: &stage, port: text(&vm, "port").to_owned() };
    assert!(web.addresses().contains("10.0.0.5/24"), "{}", web.addresses());
    assert!(web.ping("10.0.0.6"), "a peer of red\n{}", stage.logs());
    let life = web.processes();

    let moved = ok(
        &stage,
        &["vm", "move", "web-1", "--network", "blue", "--ip", "10.0.0.7", "--wait", "--tenant", "acme"],
    );
    assert_eq!(text(&moved, "state"), "done", "{moved:#}\n{}", stage.logs());
    assert!(
        web.addresses().contains("10.0.0.7/24") && !web.addresses().contains("10.0.0.5"),
        "{}",
        web.addresses()
    );
    assert!(web.ping("10.0.0.6"), "a peer of blue\n{}", stage.logs());
    let after = ok(&stage, &["vm", "show", "web-1", "--tenant", "acme"]);
    assert_eq!(after["mac"], vm["mac"], "for life");
    assert_eq!(after["host"], vm["host"]);
    assert!(web.processes().iter().any(|pid| life.contains(pid)), "the same running machine");
    stage.end();
}

/// What the metadata service tells a guest that asks with these arguments of `curl`; nothing if it does not answer.
fn told(stage: &Stage, port: &str, arguments: &[&str]) -> String {
    let ask = ["--silent", "--show-error", "--max-time", "3", "--header", "Metadata: true"];
    stage.inside(port, "curl", &[&ask, arguments].concat()).unwrap_or_default()
}

#[test]
fn guests_of_two_tenants_with_equal_addresses_read_their_own_metadata_and_nobody_elses() {
    require(&[CURL]).unwrap_or_else(|error| panic!("{error}; `make test` installs what is missing"));
    let _turn = take_turn();
    // One host: the same switch and the same agent serve them all.
    let stage = Stage::start(shunt(), 1).unwrap_or_else(|error| panic!("{error}"));
    ok(&stage, &["pool", "create", "small", "--image", "tiny", "--min", "4", "--max", "4"]);
    stocked(&stage, 4);
    let mut machines = Vec::new();
    for tenant in ["acme", "globex"] {
        ok(&stage, &["tenant", "create", tenant]);
        ok(&stage, &["network", "create", "red", "--prefix", "10.0.0.0/24", "--tenant", tenant]);
        for (name, ip) in [("web", "10.0.0.5"), ("db", "10.0.0.6")] {
            // Only globex has a machine at .6.
            if (tenant, name) == ("acme", "db") {
                continue;
            }
            let secret = format!("secret of {name} of {tenant}");
            let settings = format!("/run/lab/{tenant}-{name}.json");
            let script = format!("#!/bin/sh\n# {secret}\n");
            stage.world().write(&settings, &json!({ "script": script }).to_string()).unwrap();
            let words = ["vm", "create", name, "--image", "tiny", "--network", "red", "--ip", ip];
            let more = ["--settings", &settings, "--wait", "--tenant", tenant];
            let done = ok(&stage, &[words.as_slice(), more.as_slice()].concat());
            assert_eq!(text(&done, "kind"), "hand_over", "{done:#}");
            machines.push((secret, ok(&stage, &["vm", "show", name, "--tenant", tenant])));
        }
    }
    let config = "http://169.254.169.254/shunt/v1/config";
    let instance = "http://169.254.169.254/metadata/instance?api-version=2021-02-01";
    for (secret, machine) in &machines {
        let port = text(machine, "port");
        let own = told(&stage, port, &[config]);
        assert!(own.contains(secret) && own.contains(text(machine, "id")), "{own}\n{}", stage.logs());
        assert!(told(&stage, port, &[instance]).contains(text(machine, "id")));
        for (theirs, other) in machines.iter().filter(|(theirs, _)| theirs != secret) {
            let (id, ip) = (text(other, "id"), other["addresses"][0].as_str().unwrap());
            let by_name = [
                format!("{config}?vm={id}"),
                format!("{config}/{id}"),
                format!("{instance}&vm={id}"),
                format!("http://169.254.169.254/shunt/v1/vms/{id}/config"),
            ];
            for url in &by_name {
                let said = told(&stage, port, &[url]);
                assert!(!said.contains(theirs.as_str()) && !said.contains(id), "{url}: {said}");
            }
            for header in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Host", "X-Shunt-Port"] {
                for value in [ip, id, text(other, "port")] {
                    let said = told(&stage, port, &["--header", &format!("{header}: {value}"), config]);
                    assert!(
                        !said.contains(theirs.as_str()) && !said.contains(id),
                        "{header} {value}: {said}"
                    );
                }
            }
        }
    }
    // A guest that takes another machine's address, as its own root can, is not taken for that machine.
    let (acme, db) = (&machines[0], &machines[2]);
    let port = text(&acme.1, "port");
    stage.inside(port, "ip", &["address", "add", "10.0.0.6/24", "dev", port]).unwrap();
    let said = told(&stage, port, &["--interface", "10.0.0.6", config]);
    assert!(!said.contains(&db.0), "{said}");
    assert!(
        told(&stage, port, &["--interface", "10.0.0.5", config]).contains(&acme.0),
        "its own address serves still"
    );
    stage.end();
}

/// The processes of a guest's network namespace, as the host sees them.
fn processes(estate: &Estate, machine: &Machine) -> BTreeSet<String> {
    let all = estate.stage.world().run(None, "ip", &["netns", "pids", machine.port()]).unwrap();
    all.lines().map(str::to_owned).collect()
}

#[test]
fn a_rule_that_names_a_machine_follows_it_to_its_new_address() {
    let estate = Estate::new();
    for name in ["server", "walker"] {
        estate.done(&["vm", "create", name, "--image", "tiny", "--network", "red"]);
    }
    let rule = |words: &[&str]| {
        estate
            .ok(&[&["rule", "add", "--vm", "server", "--direction", "in", "--tenant", "acme"], words]
                .concat());
    };
    rule(&["--action", "allow", "--remote-vm", "walker", "--priority", "100"]);
    rule(&["--action", "deny", "--priority", "200"]);
    let all = estate.rest();
    let named = |name: &str| estate.machine(name);
    let (server, walker) = (named("server"), named("walker"));
    estate.until("the rules to be in force", || {
        let closed = estate.hears_nothing(&named("red-1"), &server.ip());
        if closed { Ok(()) } else { Err("a stranger reaches the server".to_owned()) }
    });
    assert!(estate.reaches(&walker, &server.ip()), "{}", estate.logs());

    let old = walker.ip();
    let used: BTreeSet<_> = all.iter().flat_map(Machine::addresses).collect();
    let new = (200..250).map(|last| format!("10.0.0.{last}")).find(|ip| !used.contains(ip)).unwrap();
    let moved = estate.done(&["vm", "move", "walker", "--ip", &new]);
    let repointed = moved["steps"].as_array().unwrap().iter().any(|step| step["name"] == "repoint");
    assert!(repointed, "{moved:#}");
    estate.rest();
    let walker = named("walker");
    assert_eq!(walker.ip(), new);
    estate.until("the rule to follow", || {
        if estate.reaches(&walker, &server.ip()) { Ok(()) } else { Err(estate.logs()) }
    });
    // Whoever gets the old address does not get the rule.
    estate.until("the old address to be free", || {
        let thief = [
            "vm",
            "create",
            "thief",
            "--image",
            "tiny",
            "--network",
            "red",
            "--ip",
            &old,
            "--tenant",
            "acme",
        ];
        let asked = estate.stage.cli(&thief).map_err(|error| error.to_string())?;
        let ended = estate.ended(text(&asked, "id"));
        if text(&ended, "state") == "done" { Ok(()) } else { Err(format!("{ended:#}")) }
    });
    estate.rest();
    let thief = named("thief");
    assert_eq!(thief.ip(), old);
    assert!(estate.reaches(&thief, &named("red-1").ip()), "it is a machine like others");
    assert!(estate.hears_nothing(&thief, &server.ip()), "{}", estate.logs());
}

#[test]
fn a_machine_in_quarantine_runs_on_and_has_no_traffic_until_it_is_released() {
    let estate = Estate::new();
    for name in ["suspect", "accomplice"] {
        estate.done(&["vm", "create", name, "--image", "tiny", "--network", "red"]);
    }
    let all = estate.rest();
    let before = estate.machine("suspect");
    estate.assert_there(&before, &all);
    let life = processes(&estate, &before);
    assert!(!life.is_empty());

    for name in ["suspect", "accomplice"] {
        estate.done(&["vm", "quarantine", name, "--reason", "drill"]);
    }
    let (cut, other) = (estate.machine("suspect"), estate.machine("accomplice"));
    assert_eq!(cut.text("state"), "quarantined");
    assert_eq!(text(&cut.0["failure"], "what"), "drill");
    let is_cut = |addresses: &BTreeSet<String>| {
        addresses.len() == 1 && !addresses.contains(&format!("{}/24", before.ip()))
    };
    estate.until("the guest to have another lease", || {
        let lease = estate.lease(&cut);
        if is_cut(&lease) { Ok(()) } else { Err(format!("{lease:?}")) }
    });
    estate.assert_nobody(
        "red",
        &before.ip(),
        &all.iter()
            .filter(|peer| !["suspect", "accomplice"].contains(&peer.name()))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let peers = all.iter().filter(|peer| peer.0["partial"] == false).map(Machine::ip);
    for ip in peers.chain([cut.ip(), other.ip()].into_iter().filter(|ip| *ip != cut.ip())) {
        assert!(estate.hears_nothing(&cut, &ip), "{ip} answers a machine in quarantine\n{}", estate.logs());
    }
    assert_eq!(processes(&estate, &cut), life, "nothing of it was ended or begun");

    for name in ["suspect", "accomplice"] {
        estate.done(&["vm", "release", name]);
    }
    let all = estate.rest();
    let after = estate.machine("suspect");
    for same in ["id", "mac", "physical_ip", "host", "moniker", "tenant"] {
        assert_eq!(after.text(same), before.text(same), "{same}");
    }
    assert_eq!(after.addresses(), before.addresses());
    assert_eq!(after.0["guest"]["boot_id"], before.0["guest"]["boot_id"], "no reboot");
    assert_eq!(processes(&estate, &after), life);
    estate.assert_there(&after, &all);
}
