//! The customer's script: a process group with a time limit, of whose output the end is kept.

use super::Tree;
use crate::os::{OsError, ScriptEnd};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use std::{
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How much of the output is kept, in bytes.
const KEPT: usize = 4096;
/// Where the script stands while it runs, below the root.
const DIRECTORY: &str = "/var/lib/shunt-guest";

/// Runs `script` to its end or to the end of its time.
pub(super) fn run(tree: &Tree, script: &str, generation: u64, limit: Duration) -> Result<ScriptEnd, OsError> {
    let inside = format!("{DIRECTORY}/script");
    tree.replace(&inside, script.as_bytes(), 0o700)?;
    let path = tree.outside(&inside);
    let (reader, writer) = io::pipe().map_err(|source| OsError::Call { act: "make a pipe", source })?;
    let errors = writer.try_clone().map_err(|source| OsError::Call { act: "make a pipe", source })?;
    let mut command = if script.starts_with("#!") {
        Command::new(&path)
    } else {
        let mut shell = Command::new("/bin/sh");
        shell.arg(&path);
        shell
    };
    command
        .current_dir("/")
        .env("SHUNT_GENERATION", generation.to_string())
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .process_group(0);
    let mut child = command.spawn().map_err(OsError::file("run", path.display()))?;
    // Our own copies of the writing end must not keep the pipe open.
    drop(command);
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let end = group.map(|group| follow(group, reader, limit));
    if !matches!(end, Some(Ok((_, true)))) {
        // Late, or no longer to be watched: nobody will wait for it later.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
    let status = child.wait().map_err(|source| OsError::Call { act: "wait for the script", source })?;
    match end {
        Some(Ok((_, true))) if status.success() => Ok(ScriptEnd::Well),
        Some(Ok((output, true))) => Ok(ScriptEnd::Badly { how: words(status), output }),
        Some(Ok((output, false))) => Ok(ScriptEnd::Late { output }),
        Some(Err(source)) => Err(OsError::Call { act: "watch the script", source }),
        None => Err(OsError::Unfit("the script has no process id".to_owned())),
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Reads until the process is gone. Gives the end of the output, and false when time ran out first.
fn follow(process: Pid, mut reader: io::PipeReader, limit: Duration) -> io::Result<(String, bool)> {
    let process = pidfd_open(process, PidfdFlags::empty())?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    let end = Instant::now() + limit;
    let mut tail = Tail::default();
    let mut open = true;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let ended = {
            let mut watched = [PollFd::new(&process, PollFlags::IN), PollFd::new(&reader, PollFlags::IN)];
            // A pipe that nobody holds any more would be ready for ever.
            let watched = if open { &mut watched[..] } else { &mut watched[..1] };
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            poll(watched, Some(&left))?;
            watched.first().is_some_and(|process| !process.revents().is_empty())
        };
        open = open && tail.read(&mut reader);
        if ended || left.is_zero() {
            return Ok((tail.text(), ended));
        }
    }
}

/// The last bytes of a stream.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Takes what is there; false when nothing more will come. Bounded, so that a script which never stops printing
    /// does not keep us from looking at the time.
    fn read(&mut self, reader: &mut impl Read) -> bool {
        let mut chunk = [0; KEPT];
        for _ in 0..64 {
            match reader.read(&mut chunk) {
                Ok(0) => return false,
                Ok(length) => {
                    self.0.extend_from_slice(chunk.get(..length).unwrap_or_default());
                    self.0.drain(..self.0.len().saturating_sub(KEPT));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(script: &str, limit: Duration) -> ScriptEnd {
        let dir = tempfile::tempdir().unwrap();
        run(&Tree::open(dir.path()).unwrap(), script, 7, limit).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(ended("#!/bin/sh\ntest \"$SHUNT_GENERATION\" = 7", LONG), ScriptEnd::Well);
        assert_eq!(ended("exit 0", LONG), ScriptEnd::Well);
        assert_eq!(
            ended("echo out; echo err >&2; exit 3", LONG),
            ScriptEnd::Badly { how: "status 3".into(), output: "out\nerr".into() }
        );
        assert_eq!(
            ended("kill -9 $$", LONG),
            ScriptEnd::Badly { how: "signal 9".into(), output: String::new() }
        );
        assert_eq!(
            ended("echo begun; sleep 1000", Duration::from_millis(300)),
            ScriptEnd::Late { output: "begun".into() }
        );
    }

    #[test]
    fn a_script_that_prints_for_ever_is_stopped_and_its_end_is_kept() {
        let ScriptEnd::Late { output } = ended("yes", Duration::from_millis(200)) else {
            panic!("it does not end by itself");
        };
        assert!(output.len() <= KEPT && output.starts_with('y'));
    }

    #[test]
    fn a_daemon_that_it_leaves_behind_keeps_nobody_waiting() {
        assert_eq!(ended("sleep 5 & exit 0", LONG), ScriptEnd::Well);
    }
}
