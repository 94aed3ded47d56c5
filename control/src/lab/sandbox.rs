//! The private world in which everything happens.
//!
//! A `World` is one process, the anchor: PID 1 of new mount, network and PID namespaces (and a user namespace when we
//! are not root). It reads a pipe whose other end only we hold. When we end, however we end, the pipe closes, the anchor
//! ends, and the kernel kills every process of the PID namespace and with the last one removes the namespaces, their
//! interfaces (persistent TAPs too), mounts and files. Nothing has to be cleaned up, so nothing can be forgotten.
//!
//! Inside, `/run` is an empty tmpfs (so `ip netns` names are private), and `/etc/resolv.conf` is a copy that a DHCP
//! client may ruin. Never here: anything that changes the machine outside.

use super::{LabError, Process, process::first_child};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// What the anchor does before it says that the world is ready.
const GENESIS: &str = r#"
set -e
mount -t tmpfs -o mode=755 shunt-lab /run
mkdir -p /run/netns /run/shunt /run/lab/log /run/lab/guest
if [ -f /etc/resolv.conf ]; then
  cp /etc/resolv.conf /run/lab/resolv.conf
  mount --bind /run/lab/resolv.conf /etc/resolv.conf
fi
ip link set lo up
echo ready
exec cat >/dev/null
"#;

/// A private world; it ends when this value is dropped or its process ends.
#[derive(Debug)]
pub struct World {
    unshare: Child,
    /// PID 1 of the world, as seen from outside.
    anchor: u32,
    /// Closing it ends the world.
    breath: Option<ChildStdin>,
    own_user_namespace: bool,
    logs: AtomicU32,
}

impl World {
    /// Makes a new world.
    ///
    /// # Errors
    /// `NoNamespaces` when the kernel refuses; `Spawn` when util-linux or iproute2 is missing.
    pub fn new() -> Result<Self, LabError> {
        let own_user_namespace = !rustix::process::geteuid().is_root();
        let mut unshare = Command::new("unshare");
        if own_user_namespace {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare
            .args(["--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"])
            .args(["--propagation", "private", "--", "sh", "-c", GENESIS])
            .env("PATH", path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut unshare =
            unshare.spawn().map_err(|source| LabError::Spawn { command: "unshare".to_owned(), source })?;
        let breath = unshare.stdin.take();
        let mut first_line = String::new();
        if let Some(stdout) = unshare.stdout.take() {
            // Whatever goes wrong shows as a line that is not "ready".
            let _ = BufReader::new(stdout).read_line(&mut first_line);
        }
        let anchor = first_child(unshare.id());
        if let (Some(anchor), "ready") = (anchor, first_line.trim()) {
            let anchor = anchor.as_raw_nonzero().get().unsigned_abs();
            return Ok(Self { unshare, anchor, breath, own_user_namespace, logs: AtomicU32::new(0) });
        }
        drop(breath);
        let mut reason = String::new();
        if let Some(mut stderr) = unshare.stderr.take() {
            let _ = stderr.read_to_string(&mut reason);
        }
        let _ = unshare.wait();
        Err(LabError::NoNamespaces { reason: reason.trim().replace('\n', "; ") })
    }

    /// PID 1 of the world, as seen from outside.
    #[must_use]
    pub fn anchor(&self) -> u32 {
        self.anchor
    }

    /// The path by which our own process reaches `inside`, an absolute path of the world.
    #[must_use]
    pub fn outside(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        Path::new(&format!("/proc/{}/root", self.anchor)).join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Writes a file of the world.
    ///
    /// # Errors
    /// `File` when it cannot be written.
    pub fn write(&self, inside: &str, content: &str) -> Result<(), LabError> {
        let path = self.outside(inside);
        fs::write(&path, content).map_err(LabError::file("write", &path))
    }

    /// The command that runs `program` with `arguments` in the world, in its namespace `netns` when one is named.
    #[must_use]
    pub fn command(&self, netns: Option<&str>, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        // Entering a mount namespace leads to its own root, which is another than the anchor's if we live in a chroot.
        command.arg(format!("--target={}", self.anchor)).args(["--mount", "--root", "--net", "--pid"]);
        if self.own_user_namespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        // nsenter forks: whoever kills it must not leave the program behind.
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]);
        if let Some(netns) = netns {
            command.args(["ip", "netns", "exec", netns]);
        }
        command.arg(program).args(arguments).env("PATH", path()).env("LC_ALL", "C");
        command
    }

    /// Runs a program to its end and gives its standard output.
    ///
    /// # Errors
    /// `Spawn`; `Failed`, with both outputs, when it does not exit with 0.
    pub fn run(&self, netns: Option<&str>, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        let line = command_line(netns, program, arguments);
        let output = self
            .command(netns, program, arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| LabError::Spawn { command: line.clone(), source })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(LabError::Failed {
            command: line,
            status: output.status,
            output: format!("{} {}", text.trim(), errors.trim()),
        })
    }

    /// Does a program end well? (For questions such as `ping`.)
    ///
    /// # Errors
    /// `Spawn` only.
    pub fn succeeds(&self, netns: Option<&str>, program: &str, arguments: &[&str]) -> Result<bool, LabError> {
        match self.run(netns, program, arguments) {
            Ok(_) => Ok(true),
            Err(LabError::Failed { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Runs a shell script in the world.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn script(&self, netns: Option<&str>, script: &str) -> Result<String, LabError> {
        self.run(netns, "sh", &["-ec", script])
    }

    /// Starts a program that goes on; both its outputs go to a log.
    ///
    /// # Errors
    /// `Spawn`, `File`; `Failed` when it ended before it began.
    pub fn spawn(&self, netns: Option<&str>, program: &str, arguments: &[&str]) -> Result<Process, LabError> {
        let line = command_line(netns, program, arguments);
        let number = self.logs.fetch_add(1, Ordering::Relaxed);
        let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or("program");
        let log = self.outside(format!("/run/lab/log/{number}-{}-{name}", netns.unwrap_or("world")));
        let out = File::create(&log).map_err(LabError::file("create", &log))?;
        let err = out.try_clone().map_err(LabError::file("open", &log))?;
        let child = self
            .command(netns, program, arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|source| LabError::Spawn { command: line.clone(), source })?;
        Process::adopt(line, child, log)
    }

    /// Makes a named network namespace with its loopback up.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn add_netns(&self, name: &str) -> Result<(), LabError> {
        self.run(None, "ip", &["netns", "add", name])?;
        self.run(None, "ip", &["-n", name, "link", "set", "lo", "up"]).map(drop)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.breath = None;
        // Its end must not depend on a program that reads.
        if let Some(anchor) = i32::try_from(self.anchor).ok().and_then(Pid::from_raw) {
            let _ = kill_process(anchor, Signal::KILL);
        }
        // Returns when PID 1 is gone, and PID 1 goes last of all processes of its namespace.
        let _ = self.unshare.wait();
    }
}

/// `PATH` with the directories of system programs, which a user's shell may lack.
fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

fn command_line(netns: Option<&str>, program: &str, arguments: &[&str]) -> String {
    let place = netns.map(|name| format!("[{name}] ")).unwrap_or_default();
    format!("{place}{program} {}", arguments.join(" "))
}
