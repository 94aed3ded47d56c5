//! The second act: a cluster of processes. A customer asks for a machine and gets one of the pool's; later the same machine goes
//! to another network while it runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::DemoError;
use super::report::{Check, Narrator, Operation};
use crate::dev::Stage;
use crate::lab::LabError;

/// Machines that are kept ready.
const POOL: usize = 8;
/// Limit for anything that takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
const ACME: [&str; 2] = ["--tenant", "acme"];
const GLOBEX: [&str; 2] = ["--tenant", "globex"];

/// Plays it and judges.
pub(super) fn play(binary: &Path, narrator: &Narrator) -> Result<(Vec<Check>, Vec<Operation>), DemoError> {
    narrator.headline(
        "\nA controller and two hosts, two tenants whose networks all use 10.0.0.0/24, and a pool of 8 machines that\n\
         have booted and wait. Tenant acme asks for `web` in its network red; later web goes to blue.\n",
    );
    let stage = Stage::start(binary, 2)?;
    narrator.tell("the controller and two hosts are connected");
    let play = Play { stage };
    play.set(narrator)?;
    let peers = play.peers(narrator)?;
    // Peers took some of the first eight, and others took their places.
    let waiting = play.waiting()?;
    let mut checks = Vec::new();

    let asked = play.ask(
        &["vm", "create", "web", "--image", "tiny", "--network", "red", "--ip", "10.0.0.5", "--wait"],
        ACME,
    )?;
    let web = play.machine("web", ACME)?;
    narrator.tell(&format!("acme has web, {:.0} ms after it asked", number(&asked, "ms")));
    let before = waiting.get(text(&web, "id"));
    checks.push(Check {
        name: "acme's machine is one of the pool's: same boot id, MAC address and physical IP, another owner and name",
        ok: text(&asked, "kind") == "hand_over" && before.is_some_and(|before| same_life(before, &web)),
        seen: format!("boot id {}, {}, {}", boot_id(&web), text(&web, "mac"), text(&web, "physical_ip")),
    });
    checks.push(Check {
        name: "inside, name and address are the customer's, and nothing is left of the placeholder's",
        ok: play.hostname(&web)? == "web" && play.addresses(&web)? == ["10.0.0.5/24"],
        seen: format!("{} {}", play.hostname(&web)?, play.addresses(&web)?.join(" ")),
    });
    let red = [play.reaches(&web, "10.0.0.11"), play.reaches(&web, "10.0.0.12")];
    checks.push(Check {
        name: "it reaches its peers of red on both hosts",
        ok: red == [true, true] && peers.both_hosts,
        seen: "pings of 10.0.0.11 and 10.0.0.12".to_owned(),
    });
    let other = play.machine("web", GLOBEX)?;
    let told = [play.metadata(&web)?, play.metadata(&other)?];
    checks.push(Check {
        name: "globex has a machine with the same address; each reads its own configuration from the metadata service",
        ok: told[0] == text(&web, "id") && told[1] == text(&other, "id") && told[0] != told[1],
        seen: format!("{} and {}", told[0], told[1]),
    });

    let moved = play.ask(&["vm", "move", "web", "--network", "blue", "--ip", "10.0.0.6", "--wait"], ACME)?;
    let after = play.machine("web", ACME)?;
    narrator.tell(&format!("web is in blue, {:.0} ms after acme asked", number(&moved, "ms")));
    checks.push(Check {
        name: "web went to blue without a reboot, and is still acme's",
        ok: same_life(&web, &after) && text(&after, "tenant") == text(&web, "tenant"),
        seen: format!("boot id {}, {}", boot_id(&after), play.addresses(&after)?.join(" ")),
    });
    let blue = [play.reaches(&after, "10.0.0.21"), play.reaches(&after, "10.0.0.22")];
    let left = play.machine("red-1", ACME)?;
    let gone = [play.reaches(&left, "10.0.0.5"), play.reaches(&left, "10.0.0.6")];
    checks.push(Check {
        name: "its new peers answer on both hosts, and its old peer reaches it at neither address",
        ok: blue == [true, true] && gone == [false, false],
        seen: "pings of 10.0.0.21 and 10.0.0.22 of blue, of red to 10.0.0.5 and 10.0.0.6".to_owned(),
    });
    let operations = vec![operation("hand_over", &asked), operation("network_change", &moved)];
    play.stage.end();
    Ok((checks, operations))
}

struct Play {
    stage: Stage,
}

struct Peers {
    both_hosts: bool,
}

impl Play {
    fn ask(&self, words: &[&str], tenant: [&str; 2]) -> Result<Value, DemoError> {
        let mut all = words.to_vec();
        all.extend(tenant);
        self.stage.cli(&all).map_err(|error| LabError::Cli(format!("{error}\n{}", self.stage.logs())).into())
    }

    fn set(&self, narrator: &Narrator) -> Result<(), DemoError> {
        for tenant in ["acme", "globex"] {
            self.stage.cli(&["tenant", "create", tenant])?;
        }
        for (network, tenant) in [("red", ACME), ("blue", ACME), ("red", GLOBEX)] {
            self.ask(&["network", "create", network, "--prefix", "10.0.0.0/24"], tenant)?;
        }
        let size = POOL.to_string();
        self.stage.cli(&["pool", "create", "small", "--image", "tiny", "--min", &size, "--max", &size])?;
        self.full()?;
        narrator.tell("the pool has 8 machines that wait");
        Ok(())
    }

    /// Waits until the pool is full.
    fn full(&self) -> Result<(), DemoError> {
        let end = Instant::now() + PATIENCE;
        loop {
            let pool = self.stage.cli(&["pool", "show", "small"])?;
            if pool.get("ready").and_then(Value::as_u64) == Some(POOL as u64) {
                return Ok(());
            }
            if Instant::now() > end {
                let what = format!("the pool to fill: {pool}\n{}", self.stage.logs());
                return Err(LabError::TimedOut { what, seconds: PATIENCE.as_secs() }.into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The machines of the pool, by id.
    fn waiting(&self) -> Result<BTreeMap<String, Value>, DemoError> {
        let list = self.stage.cli(&["vm", "list"])?;
        let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(items.into_iter().map(|vm| (text(&vm, "id").to_owned(), vm)).collect())
    }

    /// Machines to talk to, two in each network, on different hosts.
    fn peers(&self, narrator: &Narrator) -> Result<Peers, DemoError> {
        let mut both_hosts = true;
        for (network, first) in [("red", 11), ("blue", 21)] {
            let mut hosts = Vec::new();
            for number in 0..2_u8 {
                let (name, ip) = (format!("{network}-{}", number + 1), format!("10.0.0.{}", first + number));
                hosts.push(self.peer(&name, network, &ip, &hosts)?);
            }
            both_hosts &= hosts.iter().collect::<std::collections::BTreeSet<_>>().len() == 2;
        }
        self.ask(
            &["vm", "create", "web", "--image", "tiny", "--network", "red", "--ip", "10.0.0.5", "--wait"],
            GLOBEX,
        )?;
        self.full()?;
        narrator.tell("peers stand in red and blue, on both hosts; globex has a web of its own at 10.0.0.5");
        Ok(Peers { both_hosts })
    }

    /// A machine in `network` that is on none of `hosts`. Which one of the pool's it is, chance decides: others are given
    /// back.
    fn peer(&self, name: &str, network: &str, ip: &str, hosts: &[String]) -> Result<String, DemoError> {
        for _ in 0..20 {
            self.ask(
                &["vm", "create", name, "--image", "tiny", "--network", network, "--ip", ip, "--wait"],
                ACME,
            )?;
            let host = text(&self.machine(name, ACME)?, "host").to_owned();
            if !hosts.contains(&host) {
                return Ok(host);
            }
            self.ask(&["vm", "delete", name, "--wait"], ACME)?;
            self.full()?;
            // Its address is free again when all hosts have forgotten it.
            std::thread::sleep(Duration::from_millis(1500));
        }
        Err(LabError::TimedOut { what: format!("{name} to be on another host"), seconds: 0 }.into())
    }

    fn machine(&self, name: &str, tenant: [&str; 2]) -> Result<Value, DemoError> {
        self.ask(&["vm", "show", name], tenant)
    }

    /// Runs a program in the network of a machine.
    fn inside(&self, vm: &Value, program: &str, arguments: &[&str]) -> Result<String, DemoError> {
        Ok(self.stage.inside(text(vm, "port"), program, arguments)?)
    }

    fn addresses(&self, vm: &Value) -> Result<Vec<String>, DemoError> {
        let said = self.inside(vm, "ip", &["-4", "-o", "address", "show", "dev", text(vm, "port")])?;
        let of =
            |line: &str| line.split_whitespace().skip_while(|word| *word != "inet").nth(1).map(str::to_owned);
        Ok(said.lines().filter_map(of).collect())
    }

    /// The name that the guest itself reports.
    fn hostname(&self, vm: &Value) -> Result<String, DemoError> {
        let name = vm.get("guest").map(|guest| text(guest, "hostname").to_owned());
        Ok(name.unwrap_or_default())
    }

    fn reaches(&self, vm: &Value, to: &str) -> bool {
        self.inside(vm, "ping", &["-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", to]).is_ok()
    }

    /// Which machine the metadata service takes this one for.
    fn metadata(&self, vm: &Value) -> Result<String, DemoError> {
        let said = self.inside(
            vm,
            "busybox",
            &[
                "wget",
                "-q",
                "-O",
                "-",
                "--header",
                "Metadata: true",
                "http://169.254.169.254/shunt/v1/config",
            ],
        )?;
        let config: Value = serde_json::from_str(&said).unwrap_or_default();
        Ok(text(&config, "vm_id").to_owned())
    }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, member: &str) -> f64 {
    value.get(member).and_then(Value::as_f64).unwrap_or_default()
}

fn boot_id(vm: &Value) -> &str {
    vm.get("guest").map(|guest| text(guest, "boot_id")).unwrap_or_default()
}

/// The same running machine: nothing of it was made anew.
fn same_life(before: &Value, after: &Value) -> bool {
    let same = |member| !text(before, member).is_empty() && text(before, member) == text(after, member);
    same("id")
        && same("mac")
        && same("physical_ip")
        && !boot_id(before).is_empty()
        && boot_id(before) == boot_id(after)
}

/// An operation as the controller tells it, in the demonstration's form.
fn operation(kind: &'static str, told: &Value) -> Operation {
    let time = |name: &str| told.get("times").and_then(|times| times.get(name)).and_then(Value::as_f64);
    let steps = told.get("steps").and_then(Value::as_array).cloned().unwrap_or_default();
    let ready = steps.iter().find(|step| text(step, "name") == "ready");
    Operation {
        kind,
        lease_ms: time("lease_ms"),
        first_packet_ms: time("first_packet_ms"),
        ready_ms: ready.map(|ready| number(ready, "start_ms") + number(ready, "ms")),
        steps: steps.iter().map(|step| (text(step, "name").to_owned(), number(step, "ms"))).collect(),
    }
}
