//! What every PID 1 of ours does: it has the DHCP client and the agent run for as long as the guest lives.

use super::{PROGRAM, dhcp};
use crate::log::say;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::{
    fs, io,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Processes that do not end by themselves have this long.
const GRACE: Duration = Duration::from_secs(2);
/// A program that ends is started anew after this pause.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// What is kept running.
pub(super) struct Programs<'a> {
    /// The guest's interface.
    pub(super) interface: &'a str,
    /// Words between the program and its verb, where another program plays the agent.
    pub(super) prefix: &'a [String],
    /// Options for the agent.
    pub(super) agent_options: &'a [String],
}

/// The switch may make the interface after the guest. There is no limit to the wait: a machine without a card runs too.
pub(super) fn wait_for_interface(name: &str) {
    let directory = Path::new("/sys/class/net").join(name);
    let begun = Instant::now();
    while !directory.exists() {
        let patient = begun.elapsed() > Duration::from_secs(10);
        thread::sleep(Duration::from_millis(if patient { 100 } else { 2 }));
    }
}

/// Takes the interface up before anybody watches it: afterwards a change of its link is news.
pub(super) fn raise(name: &str) {
    let done = Command::new("ip").args(["link", "set", "dev", name, "up"]).env("PATH", PATH).status();
    if !done.is_ok_and(|status| status.success()) {
        say(format_args!("cannot take {name} up"));
    }
}

/// Starts the two programs, starts them again when they end, and waits for orphans.
pub(super) fn supervise(programs: &Programs<'_>) -> ! {
    let mut client = start(dhcp::command(programs.interface));
    let mut agent = start(agent(programs));
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) => {
                let ended = |child: &Option<Child>| child.as_ref().is_some_and(|child| is(child, pid));
                if ended(&client) {
                    thread::sleep(RESTART_PAUSE);
                    client = start(dhcp::command(programs.interface));
                } else if ended(&agent) {
                    thread::sleep(RESTART_PAUSE);
                    agent = start(self::agent(programs));
                }
            }
            // Neither could be started: try again, for there is nothing else to live for.
            _ => {
                thread::sleep(RESTART_PAUSE);
                client = start(dhcp::command(programs.interface));
                agent = start(self::agent(programs));
            }
        }
    }
}

fn is(child: &Child, pid: Pid) -> bool {
    i32::try_from(child.id()).is_ok_and(|id| id == pid.as_raw_nonzero().get())
}

fn start(mut command: Command) -> Option<Child> {
    // Standard output was the hypervisor's ear; from here on everything goes to the log, which is standard error.
    let log = rustix::io::dup(io::stderr()).map_or_else(|_| Stdio::null(), Stdio::from);
    match command.env_clear().env("PATH", PATH).stdin(Stdio::null()).stdout(log).spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            say(format_args!("cannot start {}: {error}", command.get_program().display()));
            None
        }
    }
}

/// Where a guest's programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn agent(programs: &Programs<'_>) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(programs.prefix).args(["run", "--interface", programs.interface]);
    command.args(["--udhcpc-pid-file", dhcp::PID_FILE, "--lease-file", dhcp::LEASE_FILE]);
    command.args(programs.agent_options);
    command
}

/// Ends all processes but this one: first they are asked.
pub(super) fn end_all() {
    let others = || {
        let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
        let pids = names.filter_map(|name| name.to_str()?.parse::<i32>().ok()).filter(|pid| *pid > 1);
        // Threads of the kernel, which a machine's PID 1 sees, have no command line and do not end.
        pids.filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty()))
            .filter_map(Pid::from_raw)
    };
    for pid in others() {
        let _ = kill_process(pid, Signal::TERM);
    }
    let end = Instant::now() + GRACE;
    while Instant::now() < end && others().next().is_some() {
        thread::sleep(Duration::from_millis(2));
    }
}
