//! How a lease is renewed where the system does not do it by itself when the link comes back.

use crate::log::say;
use rustix::process::{Pid, Signal, kill_process};
use std::{fs, path::PathBuf, process::Command, thread};

/// What is done when the link went down and came back.
#[derive(Clone, Debug)]
pub enum Renewal {
    /// Nothing: the system's DHCP client watches the link.
    Nothing,
    /// busybox: SIGUSR2 (give the lease up) and SIGUSR1 (ask anew) to the process of this pid file. Without the first
    /// it would renew the old lease, be refused, and pause for three seconds.
    Udhcpc(PathBuf),
    /// A program with its arguments, when the link has come back.
    Command(Vec<String>),
}

impl Renewal {
    /// The link went down.
    pub(super) fn release(&self) {
        if let Self::Udhcpc(pid_file) = self {
            signal(pid_file, Signal::USR2);
        }
    }

    /// The link came back.
    pub(super) fn renew(&self) {
        match self {
            Self::Nothing => {}
            Self::Udhcpc(pid_file) => signal(pid_file, Signal::USR1),
            Self::Command(words) => {
                let Some((program, arguments)) = words.split_first() else { return };
                match Command::new(program).args(arguments).spawn() {
                    // Somebody has to wait for it, and the watch of the link cannot.
                    Ok(mut child) => drop(thread::spawn(move || child.wait())),
                    Err(error) => say(format_args!("cannot run {program}: {error}")),
                }
            }
        }
    }
}

/// Signals udhcpc and nobody else, should the number have gone to another process.
fn signal(pid_file: &PathBuf, signal: Signal) {
    // No file: no client is running, or the system has another one.
    let Ok(text) = fs::read_to_string(pid_file) else { return };
    let pid: Option<i32> = text.trim().parse().ok();
    let is_client =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "udhcpc");
    if let Some(pid) = pid.filter(is_client).and_then(Pid::from_raw)
        && let Err(error) = kill_process(pid, signal)
    {
        say(format_args!("cannot signal udhcpc: {error}"));
    }
}
