//! A switch without ports on a loopback address, and the command line that asks it: needs no privilege, and any number
//! of them run side by side.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code outside of #[test] functions")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a command left behind.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap()
    }

    /// `what`, `where` and `remedy` of a failure told as JSON.
    pub(crate) fn refusal(&self) -> [String; 3] {
        let error: Value = serde_json::from_str(&self.err).unwrap_or_else(|_| panic!("{}", self.err));
        ["what", "where", "remedy"].map(|part| error["error"][part].as_str().unwrap().to_owned())
    }
}

pub(crate) fn shunt<'a>(args: impl IntoIterator<Item = &'a str>) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shunt"));
    command.args(args).env_remove("SHUNT_VSWITCH_SOCKET").stdin(Stdio::null());
    finish(&mut command)
}

pub(crate) fn finish(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A directory with a configuration, and the switch that runs with it.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) physical_ip: String,
    pub(crate) process: Option<Child>,
}

impl Host {
    pub(crate) fn new() -> Self {
        // A loopback address of its own lets tests run side by side.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let last = NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, _, a, b] = (std::process::id() % 65_000).to_be_bytes();
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
            physical_ip: format!("127.{a}.{b}.{last}"),
            process: None,
        };
        host.configure("");
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// Writes vswitch.toml; `first` are lines at its top.
    pub(crate) fn configure(&self, first: &str) {
        let (dir, ip) = (self.dir.path().display(), &self.physical_ip);
        let text = format!(
            "{first}\nstate_dir = \"{dir}/state\"\nsocket = \"{dir}/sock\"\n[underlay]\nphysical_ip = \"{ip}\"\n"
        );
        self.file("vswitch.toml", &text);
    }

    pub(crate) fn run(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shunt"));
        command.args(["vswitch", "run", "--config"]).arg(self.path("vswitch.toml")).args(more);
        command.stdin(Stdio::null()).env_remove("SHUNT_VSWITCH_SOCKET");
        command
    }

    pub(crate) fn start(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let child = self.run(&[]).stderr(log).spawn().unwrap();
        self.process = Some(child);
        self.ready();
    }

    pub(crate) fn ready(&self) {
        let begun = Instant::now();
        while !self.path("sock").exists() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(20), "the switch is not ready:\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn started() -> Self {
        let mut host = Self::new();
        host.start();
        host
    }

    /// Ends the switch by a signal and says how it exited.
    pub(crate) fn signal(&mut self, signal: rustix::process::Signal) -> Option<i32> {
        let mut child = self.process.take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap().code()
    }

    /// `shunt vswitch LINE`, without blanks in arguments.
    pub(crate) fn say(&self, line: &str) -> Said {
        let socket = self.path("sock").display().to_string();
        shunt(["vswitch"].into_iter().chain(line.split_whitespace()).chain(["--socket", socket.as_str()]))
    }

    pub(crate) fn ask(&self, line: &str) -> Value {
        self.say(&format!("{line} --output json")).json()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
