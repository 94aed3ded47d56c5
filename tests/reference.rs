//! docs/reference says what the code says: each page is made from the tables that the program itself uses.
//! (drops.md is made and compared beside its table, in dataplane/src/drops.rs.)
//!
//! `SHUNT_WRITE_DOCS=1 cargo test -p shunt --test reference` writes the pages anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code outside of #[test] functions"
)]

mod attacks;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use attacks::{End, Format, Means};
use control::clap;
use control::controller::ControllerConfig;
use control::host::HostFile;
use dataplane::ctl::Request;
use dataplane::ctl::metrics::METRICS;
use dataplane::pipeline::Trap;
use dataplane::switch::{KEYS, SwitchConfig};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Compares a page with what it should be, or writes it.
fn page(name: &str, text: &str) {
    let file = docs().join("reference").join(name);
    if std::env::var_os("SHUNT_WRITE_DOCS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == text,
        "docs/reference/{name} is not what the code says; `SHUNT_WRITE_DOCS=1 cargo test -p shunt --test reference` writes it anew"
    );
}

const MADE: &str = "<!-- Made from the code by tests/reference.rs; edit there. -->\n";

const EXAMPLE: &str = "state_dir = \"/var/lib/shunt/vswitch\"
socket = \"/run/shunt/vswitch.sock\"
keep_seconds = 300
metrics = \"127.0.0.1:9477\"
metadata = \"/run/shunt/metadata.sock\"

[underlay]
physical_ip = \"192.0.2.1\"             # or several: [\"192.0.2.1\", \"2001:db8::1\"]
encapsulation = \"vxlan\"
mtu = 1600

[workers]
count = 1
cpus = [1]
poll = \"adaptive\"
";

#[test]
fn config() {
    SwitchConfig::parse(EXAMPLE, Path::new("example")).expect("the example is right");
    let mut text = format!(
        "# `vswitch.toml`\n\n{MADE}\n`shunt vswitch run --config FILE` reads it once, at start. Unknown keys are refused; \
         errors name file, line and column. Networks, ports, routes and the directory are not in it: they are given over the \
         control socket and kept in `state_dir`.\n\n```toml\n{EXAMPLE}```\n\n| key | value | default | what it does |\n|---|---|---|---|\n"
    );
    for key in KEYS {
        writeln!(text, "| `{}` | {} | {} | {} |", key.name, key.kind, code(key.default), key.sentence)
            .unwrap();
    }
    page("config.md", &text);
}

const HOST_EXAMPLE: &str = "physical_ip = \"192.0.2.1\"
state_dir = \"/var/lib/shunt/host\"
controllers = [\"192.0.2.10:9479\"]
switch = \"/run/shunt/vswitch.sock\"
metadata = \"/run/shunt/metadata.sock\"
hypervisors = [\"netns\"]
";

#[test]
fn controller() {
    let example = "[limits]\nguest_seconds = 30\n";
    ControllerConfig::parse(example, Path::new("controller.toml")).unwrap();
    let mut text = format!(
        "# `controller.toml`\n\n{MADE}\nThe controller reads it once, at start. Every key has a default; unknown keys are refused, and errors \
         name file and line. Keys with a dot stand in a table: `[limits]`.\n\n| key | value | default | what it does |\n|---|---|---|---|\n"
    );
    for key in control::controller::KEYS {
        text.push_str(&format!("| `{}` | {} | `{}` | {} |\n", key.name, key.kind, key.default, key.sentence));
    }
    page("controller.md", &text);
}

#[test]
fn host() {
    HostFile::parse(HOST_EXAMPLE, Path::new("example")).expect("the example is right");
    let mut text = format!(
        "# `host.toml`\n\n{MADE}\nThe host agent reads it once, at start. Unknown keys are refused; errors name file, line and \
         column. What the host should hold is not in it: that comes from the controller, and is kept in `state_dir`.\n\n\
         ```toml\n{HOST_EXAMPLE}```\n\n| key | value | default | what it does |\n|---|---|---|---|\n"
    );
    for key in control::host::KEYS {
        writeln!(text, "| `{}` | {} | {} | {} |", key.name, key.kind, code(key.default), key.sentence)
            .unwrap();
    }
    page("host.md", &text);
}

/// Values as code, words as words.
fn code(default: &str) -> String {
    match default {
        "required" | "not served" => default.to_owned(),
        value => format!("`{value}`"),
    }
}

#[test]
fn metrics() {
    let mut text = format!(
        "# Metrics\n\n{MADE}\nOpenMetrics text at `/metrics` of the address that `metrics` in vswitch.toml names. Counters \
         begin at zero when the switch starts. Labels are ports, drop reasons and traps; never addresses. A super-packet \
         (TSO, USO) counts as one packet.\n\n| metric | labels | what it tells |\n|---|---|---|\n"
    );
    for metric in METRICS {
        let total = if metric.is_counter { "_total" } else { "" };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{}{total}` | {} | {} |", metric.name, labels.join(", "), metric.sentence).unwrap();
    }
    let traps: Vec<_> = Trap::ALL.iter().map(|trap| format!("`{}`", trap.name())).collect();
    write!(
        text,
        "\n`reason` is one of [the drop reasons](drops.md); `trap` is one of {}.\n",
        traps.join(", ")
    )
    .unwrap();
    page("metrics.md", &text);
}

#[test]
fn cli() {
    let mut text = format!(
        "# Command line\n\n{MADE}\nExit codes: **0** done; **1** understood, but refused or failed; **2** the command line, or a file \
         that it names, is not understood, and nothing was asked of the switch.\n\nErrors are one sentence on standard error: \
         place, what is wrong, remedy. What is wrong with the command line itself is told in a few lines, with the usage. With `--output json` they are `{{\"error\": {{\"what\", \"where\", \"remedy\"}}}}` there, and results are JSON \
         on standard output: the answers of [the control socket](../PROTOCOLS.md), whose fields are stable. Tables are for eyes and \
         may change. `--output` and `--socket` may stand before or after the verb.\n"
    );
    let mut command = control::cli::command().term_width(100);
    command.build();
    describe(&command, "shunt", &mut text);
    page("cli.md", &text);
}

fn describe(command: &clap::Command, path: &str, text: &mut String) {
    // What is the same everywhere is told where it is defined.
    let depth = path.split(' ').count();
    let command = command.clone().mut_args(|arg| {
        let told = match arg.get_id().as_str() {
            "output" | "help" | "version" => depth > 1,
            "socket" => depth > 2,
            _ => false,
        };
        arg.hide(told)
    });
    let help = command.clone().term_width(100).render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    write!(text, "\n## `{path}`\n\n```text\n{}\n```\n", lines.join("\n").trim()).unwrap();
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set()) {
        describe(verb, &format!("{path} {}", verb.get_name()), text);
    }
}

#[test]
fn attacks() {
    let mut text = format!(
        "# Attacks\n\n{MADE}\nWhat a hostile guest and a hostile neighbour of the hosts may try, and what becomes of it. Each \
         row is a test: `dataplane/tests/two_hosts/attacks.rs` sends its frames through the packet path and compares every counter \
         of every port; `tests/hostile.rs` sends them with packet sockets to real switches and looks for them in captures at every \
         other place. The rows are in `tests/attacks`; [SECURITY.md](../SECURITY.md) is the prose.\n\n\
         `name` is the [drop reason](drops.md) that counts the packet; *answered* goes to its sender alone; **reaches** is what \
         the switch does not stop, and the row's name says why. Rows with a virtio header need a guest with a ring of its own: \
         in front of a TAP the guest's kernel writes that header, and `tests/hostile.rs` shows what is left of it there. They \
         and rows marked ° are shown in the packet path only.\n\n## By a guest\n"
    );
    let mut section = "";
    for row in attacks::of_a_guest() {
        head(&mut text, &mut section, row.section);
        let mark = if let Means::Ring(why) = row.means { format!(" ° ({why})") } else { String::new() };
        writeln!(text, "| {}{mark} | {} |", row.name, end(row.end, "port")).unwrap();
    }
    text.push_str("\n## By a neighbour of the hosts\n\nTo the tunnel port, from an address that is no host's where it says so, else from a host's.\n");
    for row in attacks::of_the_underlay() {
        head(&mut text, &mut section, row.section);
        let told = end(row.end, if row.counted.is_some() { "receiving port" } else { "underlay" });
        let geneve = if row.format == Format::Geneve { " (Geneve)" } else { "" };
        writeln!(text, "| {}{geneve} | {told} |", row.name).unwrap();
    }
    page("attacks.md", &text);
}

fn head(text: &mut String, section: &mut &'static str, of: &'static str) {
    if *section != of {
        *section = of;
        write!(text, "\n### {of}\n\n| attempt | what becomes of it |\n|---|---|\n").unwrap();
    }
}

fn end(end: End, counted: &str) -> String {
    match end {
        End::Dropped(reason) => format!("`{}` at the {counted}", reason.name()),
        End::Answered(trap) => format!("*answered*: trap `{}`", trap.name()),
        End::Absorbed(trap) => format!("taken in silence: trap `{}`", trap.name()),
        End::Reaches(port) => format!("**reaches** {port}, and nobody else"),
    }
}

#[test]
fn the_protocols_page_shows_requests_that_are_understood_and_every_verb() {
    let text = fs::read_to_string(docs().join("PROTOCOLS.md")).unwrap();
    let mut shown = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("> ")) {
        serde_json::from_str::<Request>(line).unwrap_or_else(|error| panic!("{line}\n{error}"));
        let verb: serde_json::Value = serde_json::from_str(line).unwrap();
        shown.insert(verb["verb"].as_str().unwrap().to_owned());
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("< ")) {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{line}\n{error}"));
    }
    // serde lists the verbs it knows when it meets one that it does not.
    let error = serde_json::from_str::<Request>(r#"{"verb":"?"}"#).unwrap_err().to_string();
    let known: BTreeSet<_> = error.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(known.len() > 10, "{error}");
    assert_eq!(shown, known);
}
