//! PID 1 of a guest. Here: of one that is made of namespaces: it builds the guest's root, says that it is there, and from
//! then on starts the DHCP client and the agent, waits for whatever ends, and obeys the power button. [`machine`] is that
//! of a virtual machine; both share what they start (`supervise`) and the DHCP client (`dhcp`).
//!
//! The hypervisor has made the namespaces (user, network, mount, PID, UTS, IPC) and set the working directory to the
//! guest's own; see docs/SECURITY.md for what such a guest can and cannot do. The power button is a socket in that
//! directory, because PID 1 of a namespace ignores signals that it has no handler for.
//!
//! Never here: anything that reaches outside of the working directory, but for programs and libraries below `/usr`.

mod dhcp;
pub(crate) mod machine;
mod root;
mod supervise;

use clap::Args;
use serde::Serialize;
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    thread,
};
use supervise::{Programs, end_all, raise, supervise, wait_for_interface};
use thiserror::Error;

/// The program itself, inside of the guest.
const PROGRAM: &str = "/run/shunt/guest";
/// Name of the power button in the guest's directory.
const BUTTON: &str = "power";
/// Name of the note about the running guest in the guest's directory.
const NOTE: &str = "running.json";

#[derive(Debug, Args)]
pub(crate) struct InitOptions {
    /// The guest's interface; it is waited for.
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// Machine name until a configuration gives another one.
    #[arg(long, value_name = "NAME")]
    hostname: String,
    /// This program's file as seen from the working directory.
    #[arg(long, value_name = "FILE")]
    program: String,
    /// Words between the program and its verb, where it is another program that plays this one.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    prefix: Vec<String>,
    /// Options for the agent, as one word each.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    agent_option: Vec<String>,
}

/// Why a guest does not come up.
#[derive(Debug, Error)]
pub(crate) enum InitError {
    /// Something with a file.
    #[error("cannot {act} {path}: {source}")]
    File { act: &'static str, path: String, source: io::Error },
    /// Something with the kernel.
    #[error("cannot {act}: {source}")]
    Call { act: &'static str, source: io::Error },
    /// We are not PID 1.
    #[error("this is process {0}, not process 1 of a namespace of its own; the hypervisor starts it")]
    NotFirst(u32),
    /// Whoever started us went away before it said go.
    #[error("whoever started this guest is gone")]
    Abandoned,
}

impl InitError {
    fn file(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::File { act, path, source }
    }

    fn call(act: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Call { act, source: errno.into() }
    }
}

/// What the hypervisor is told, and finds again after a restart of its own.
#[derive(Debug, Serialize)]
struct Note {
    /// Process id in the hypervisor's namespace.
    pid: u32,
    /// When the process was started, in clock ticks since the machine's boot.
    started: u64,
    /// The machine's boot id: with the two above it names one process for ever.
    machine_boot_id: String,
    /// The guest's own boot id.
    boot_id: String,
}

/// Is process 1 until the power button is pressed.
pub(crate) fn run(options: &InitOptions) -> Result<(), InitError> {
    if std::process::id() != 1 {
        return Err(InitError::NotFirst(std::process::id()));
    }
    // The terminal of whoever started the hypervisor is none of ours.
    let _ = rustix::process::setsid();
    let note = note()?;
    let _ = fs::remove_file(BUTTON);
    let button = UnixListener::bind(BUTTON).map_err(InitError::file("listen at", BUTTON))?;
    let text = serde_json::to_string(&note).unwrap_or_default();
    write_whole(NOTE, &text)?;
    rustix::system::sethostname(options.hostname.as_bytes()).map_err(InitError::call("set the host name"))?;
    root::build(&options.program, &note.boot_id)?;
    dhcp::write_script(dhcp::IpProgram::Iproute2)?;
    root::drop_capabilities()?;
    say_booted(&text)?;
    wait_for_go()?;
    thread::spawn(move || obey(&button));
    wait_for_interface(&options.interface);
    raise(&options.interface);
    let InitOptions { interface, prefix, agent_option, .. } = options;
    supervise(&Programs { interface, prefix, agent_options: agent_option })
}

fn note() -> Result<Note, InitError> {
    // This is still the /proc of the hypervisor: it shows the process id that counts there.
    let pid = fs::read_link("/proc/self").map_err(InitError::file("read", "/proc/self"))?;
    let pid = pid.to_str().and_then(|pid| pid.parse().ok()).unwrap_or_default();
    let read = |path: &str| {
        fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(InitError::file("read", path))
    };
    let stat = read("/proc/self/stat")?;
    // Field 22 (proc(5)); the second field may hold blanks, so count from behind its bracket.
    let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse().ok());
    Ok(Note {
        pid,
        started: started.unwrap_or_default(),
        machine_boot_id: read("/proc/sys/kernel/random/boot_id")?,
        boot_id: read("/proc/sys/kernel/random/uuid")?,
    })
}

fn write_whole(path: &str, text: &str) -> Result<(), InitError> {
    let unfinished = format!("{path}.unfinished");
    fs::write(&unfinished, text)
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(InitError::file("write", path))
}

fn say_booted(note: &str) -> Result<(), InitError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{note}").and_then(|()| out.flush()).map_err(|_| InitError::Abandoned)
}

/// The hypervisor still has to put us into our cgroup; nothing may be started before.
fn wait_for_go() -> Result<(), InitError> {
    let mut line = String::new();
    match BufReader::new(io::stdin().take(16)).read_line(&mut line) {
        Ok(length) if length > 0 && line.trim() == "go" => Ok(()),
        _ => Err(InitError::Abandoned),
    }
}

/// Whoever connects presses the button.
fn obey(button: &UnixListener) {
    let _ = button.accept();
    end_all();
    // The kernel ends with us whatever is left.
    std::process::exit(0);
}
