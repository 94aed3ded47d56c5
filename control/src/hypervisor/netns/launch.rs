//! Starts a guest's first process: `nsenter` into its user and network namespaces, `unshare` the rest, our program as
//! process 1. It notes who it is, says so, and goes on when it is told, by which time it is in its cgroup.

use super::{
    super::{HypervisorError, VmSpec, kept::maps_ranges, path, require_programs as require},
    GuestProgram,
    cgroup::Cgroup,
    directory::Directory,
};
use std::{fs, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// A guest is there in some 20 ms; a machine may be very busy.
const LIMIT: Duration = Duration::from_secs(20);
/// The guest's program as seen from a guest's directory.
const PROGRAM: &str = "../../program/shunt-guest";
/// Programs that are needed, and their Debian packages.
const PROGRAMS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux"), ("udhcpc", "udhcpc")];

/// Checks that everything is installed.
pub(super) fn require_programs() -> Result<(), HypervisorError> {
    require(&PROGRAMS)
}

/// Starts the guest; when this returns its note is written and it has been told to go on.
pub(super) async fn launch(
    directory: &Directory,
    spec: &VmSpec,
    program: &GuestProgram,
    cgroup: Option<&Cgroup>,
) -> Result<(), HypervisorError> {
    directory.forget_life()?;
    let log_path = directory.log();
    let log = fs::File::create(&log_path).map_err(HypervisorError::file("write", &log_path))?;
    let mut command = Command::new("nsenter");
    command
        .args(credentials())
        .args(["--user=user", &format!("--net=/run/netns/{}", spec.port), "--"])
        .args(["unshare", "--fork", "--pid", "--mount", "--uts", "--ipc", "--", PROGRAM])
        .args(&program.prefix)
        .args(["init", "--interface", &spec.port, "--hostname", &spec.hostname, "--program", PROGRAM])
        .args(program.prefix.iter().map(|word| format!("--prefix={word}")))
        .args(program.agent_options.iter().map(|word| format!("--agent-option={word}")))
        .current_dir(directory.path())
        .env_clear()
        .env("PATH", path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // Ctrl-C in a terminal is for the host agent, not for its guests, which outlive it.
        .process_group(0);
    let mut entrance = command.spawn().map_err(|error| HypervisorError::Program {
        command: "nsenter".to_owned(),
        output: error.to_string(),
    })?;
    let booted = timeout(LIMIT, handshake(&mut entrance, directory, cgroup)).await;
    // It ends when the guest does, and somebody must wait for it.
    if matches!(booted, Ok(Ok(()))) {
        tokio::spawn(async move { entrance.wait().await });
        return Ok(());
    }
    let _ = entrance.kill().await;
    let log = match booted {
        Ok(Err(reason)) => format!("{reason}{}", directory.log_end()),
        _ => format!("nothing heard within {} s; {}", LIMIT.as_secs(), directory.log_end()),
    };
    Err(HypervisorError::NotStarted { vm: spec.vm, log })
}

/// Where a guest has one user id, ours, we are its root already, and becoming it would be refused.
fn credentials() -> Option<&'static str> {
    (!maps_ranges()).then_some("--preserve-credentials")
}

async fn handshake(
    entrance: &mut Child,
    directory: &Directory,
    cgroup: Option<&Cgroup>,
) -> Result<(), &'static str> {
    let (Some(mut ear), Some(mouth)) = (entrance.stdin.take(), entrance.stdout.take()) else {
        return Err("it has no pipes; ");
    };
    let mut line = String::new();
    let heard = BufReader::new(mouth).read_line(&mut line).await;
    if heard.unwrap_or_default() == 0 {
        return Err("");
    }
    if let (Some(cgroup), Some(note)) = (cgroup, directory.note()) {
        cgroup.take(note.pid);
    }
    ear.write_all(b"go\n").await.map_err(|_| "it does not listen; ")
}

/// The command that runs `words` in all namespaces of process `pid`.
pub(super) fn inside(pid: u32, words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(credentials()).arg(format!("--target={pid}"));
    command.args(["--all", "--root", "--wd", "--"]).args(words);
    command.env_clear().env("PATH", Path::new("/usr/sbin:/usr/bin:/sbin:/bin"));
    command
}
