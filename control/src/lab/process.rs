//! One program running inside a [`World`](super::World), killed when its owner drops it.

use super::{LabError, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    time::Duration,
};

/// A running program. `nsenter` is our child, the program is the child of that, and dies with it.
#[derive(Debug)]
pub struct Process {
    command: String,
    entrance: Child,
    inner: Pid,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Waits until `entrance` (an `nsenter` that forks) has started its program.
    pub(super) fn adopt(command: String, mut entrance: Child, log: PathBuf) -> Result<Self, LabError> {
        let inner = wait_until(&format!("`{command}` to start"), Duration::from_secs(20), || {
            if let Some(pid) = first_child(entrance.id()) {
                return Ok(Some(Ok(pid)));
            }
            Ok(entrance.try_wait().ok().flatten().map(Err))
        })?;
        match inner {
            Ok(inner) => Ok(Self { command, entrance, inner, log, ended: None }),
            Err(status) => {
                let output = fs::read_to_string(&log).unwrap_or_default();
                Err(LabError::Failed { command, status, output })
            }
        }
    }

    /// The program's process id, as seen from outside the world.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.as_raw_nonzero().get().unsigned_abs()
    }

    /// When the program was started, in clock ticks since boot: with the pid it identifies one life of a process.
    #[must_use]
    pub fn started_at(&self) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // Field 22 (proc(5)); the second field may hold blanks, so count from behind its bracket.
        stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
    }

    /// Everything that the program has printed so far, both streams.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Where that is kept, seen from outside the world.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        // A program that has just ended is no error for any caller.
        let _ = kill_process(self.inner, signal);
    }

    /// Has it ended?
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.entrance.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// `TimedOut` when it is still running after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        let what = format!("the end of `{}`", self.command);
        wait_until(&what, limit, || Ok(self.ended()))
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended().is_some() {
            return;
        }
        self.signal(Signal::KILL);
        if self.wait(Duration::from_secs(2)).is_err() {
            let _ = self.entrance.kill();
            self.ended = self.entrance.wait().ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first child of process `parent`, if it has one.
pub(super) fn first_child(parent: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}
