//! How a switch comes to its keeper: one that runs is found at its socket, else one is started; and how both are ended.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::channel::{self, Channel};
use super::protocol::{self, Answer, Ask};

/// How long a keeper may take to answer: it opens an interface at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long an ordered end of the switch may take.
const LAST_WORDS: Duration = Duration::from_secs(20);
const LOG_NAME: &str = "keeper.log";

/// Where a keeper lives, and how long it waits for the next switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residence {
    /// The switch's `state_dir`, an absolute path.
    pub state_dir: PathBuf,
    /// How long TAPs and sockets are kept when no switch runs.
    pub keep: Duration,
}

/// Which of the two processes of a keeper this is.
#[derive(Debug)]
pub enum Seat {
    /// The one that serves.
    Serving,
    /// The one that waits for the other's end, which this tells.
    Standby(UnixStream),
}

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It cannot be started.
    #[error("cannot start the keeper, the process that opens interfaces and sockets: cannot {act}: {source}")]
    Start {
        /// `state_dir`.
        dir: PathBuf,
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It runs, and does not answer as it should.
    #[error("the keeper, the process that opens interfaces and sockets, does not answer: {source}")]
    Silent {
        /// `state_dir`.
        dir: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// It runs, and refuses to serve.
    #[error("{what}")]
    Refused {
        /// `state_dir`.
        dir: PathBuf,
        /// Its words.
        what: String,
        /// Its words.
        remedy: String,
    },
    /// It was started elsewhere.
    #[error("the keeper that runs for this state directory stands in another network namespace")]
    Elsewhere {
        /// `state_dir`.
        dir: PathBuf,
    },
    /// The state directory is not this user's.
    #[error("the state directory belongs to user {owner}, and this process runs as user {user}")]
    Foreign {
        /// `state_dir`.
        dir: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// The switch did not end when told to.
    #[error("the switch (process {process}) has not ended within 20 s")]
    Stubborn {
        /// `state_dir`.
        dir: PathBuf,
        /// Its process id.
        process: u32,
    },
}

impl KeeperError {
    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> String {
        if let Self::Foreign { dir, .. } = self {
            return dir.display().to_string();
        }
        let (Self::Start { dir, .. }
        | Self::Silent { dir, .. }
        | Self::Refused { dir, .. }
        | Self::Elsewhere { dir }
        | Self::Foreign { dir, .. }
        | Self::Stubborn { dir, .. }) = self;
        dir.join(channel::SOCKET_NAME).display().to_string()
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Start { .. } => {
                "let this user write to the state directory, mount /proc, and raise the limits on processes and open files (`ulimit -u`, `ulimit -n`)".into()
            }
            Self::Silent { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run this as the user whose switch it is; if none runs, `shunt vswitch stop` as root removes the socket"
                    .into()
            }
            Self::Silent { dir, .. } => match keeper_of(dir) {
                Some(process) => format!("look into {LOG_NAME} beside it; after `kill -9 {process}` its standby takes its place"),
                None => format!("look into {LOG_NAME} beside it, and try again"),
            },
            Self::Refused { remedy, .. } => remedy.clone(),
            Self::Elsewhere { .. } => "run the switch where it ran before, or end the keeper with `shunt vswitch stop`".into(),
            Self::Foreign { owner, .. } => {
                format!("run the switch as user {owner}, or give it a `state_dir` of its own")
            }
            Self::Stubborn { process, .. } => format!("look into the switch's log, or end it with `kill -9 {process}`"),
        }
    }
}

/// Refuses a state directory of another user before anything is written there: what one user leaves, a socket say, the
/// other could neither use nor remove. One that does not exist yet is fine.
///
/// # Errors
/// [`KeeperError::Foreign`].
pub fn check_owner(state_dir: &Path) -> Result<(), KeeperError> {
    let user = rustix::process::geteuid().as_raw();
    match std::fs::metadata(state_dir) {
        Ok(found) if found.uid() != user => {
            Err(KeeperError::Foreign { dir: state_dir.into(), owner: found.uid(), user })
        }
        // What else is wrong with it is told by whoever uses it first.
        _ => Ok(()),
    }
}

/// Starts a keeper for `home`; it answers at its socket from the moment that this returns.
pub(super) fn start(home: &Residence) -> Result<(), KeeperError> {
    let dir = &home.state_dir;
    let failed = |act| move |source| KeeperError::Start { dir: dir.clone(), act, source };
    let listener = channel::listen(dir).map_err(failed("open its socket"))?;
    let started = start_at(listener, home);
    if started.is_err() {
        // Nobody will ever answer there; the error is the one to tell.
        let _ = std::fs::remove_file(dir.join(channel::SOCKET_NAME));
    }
    started
}

fn start_at(listener: OwnedFd, home: &Residence) -> Result<(), KeeperError> {
    let dir = &home.state_dir;
    let failed = |act| move |source| KeeperError::Start { dir: dir.clone(), act, source };
    let log = dir.join(LOG_NAME);
    // Begun anew with each keeper, and a keeper says little: it cannot grow.
    let log = File::create(&log)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)).map(|()| file))
        .map_err(failed("open its log"))?;
    let spawned = command(home, listener).stdout(Stdio::null()).stderr(log).spawn();
    // It is nobody's child when this process ends, and only then has anything to be waited for.
    spawned.map(drop).map_err(failed("run this program again"))
}

/// Starts the process that takes a keeper's place; the stream's end tells it when.
pub(super) fn start_standby(home: &Residence, listener: OwnedFd) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = command(home, listener);
    let child = command.arg("--standby").stdout(OwnedFd::from(theirs)).spawn()?;
    Ok((child, ours))
}

/// This very program, also if its file was replaced meanwhile. The socket is its standard input.
fn command(home: &Residence, listener: OwnedFd) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("shunt")
        .args(["vswitch", "keeper", "--state-dir"])
        .arg(&home.state_dir)
        .args(["--keep-seconds", &home.keep.as_secs().to_string()])
        // It holds no directory of the caller's, and does nothing that the environment could change.
        .current_dir("/")
        .env_clear()
        .stdin(listener);
    command
}

/// The process that serves `dir`, as the process list has it: whoever made the socket is all that the socket tells.
fn keeper_of(dir: &Path) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read(entry.path().join("comm")).ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let serves = words.windows(2).any(|pair| pair == [b"--state-dir", dir.as_os_str().as_bytes()]);
        (name.trim_ascii() == b"shunt-keeper" && serves).then_some(process)
    })
}

/// One question to the keeper of `dir` by somebody who is not its switch; `None` when there is no keeper.
fn visit(dir: &Path, ask: &Ask) -> io::Result<Option<Answer>> {
    let channel = match Channel::connect(dir, PATIENCE) {
        Ok(channel) => channel,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    exchange(&channel, ask, &[]).map(|answered| answered.map(|(answer, _)| answer))
}

/// Asks and waits for the answer; `None` when the other end is closed instead.
pub(super) fn exchange(
    channel: &Channel,
    ask: &Ask,
    descriptors: &[std::os::fd::BorrowedFd<'_>],
) -> io::Result<Option<(Answer, Vec<OwnedFd>)>> {
    let garbled = |error: protocol::MessageError| io::Error::new(io::ErrorKind::InvalidData, error);
    let bytes = protocol::encode(ask, descriptors.len()).map_err(garbled)?;
    match channel.send(&bytes, descriptors) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
        other => other?,
    }
    let packet = match channel.receive() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    };
    let Some(packet) = packet else { return Ok(None) };
    let answer = protocol::decode(&packet.bytes, packet.descriptors.len()).map_err(garbled)?;
    Ok(Some((answer, packet.descriptors)))
}

/// What [`stop`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// The switch that was ended.
    pub switch: Option<u32>,
    /// TAPs that were kept.
    pub taps: usize,
}

/// Ends the switch of this state directory in order, if one runs, and then its keeper; `None` when there was neither.
///
/// # Errors
/// [`KeeperError`].
pub fn stop(state_dir: &Path) -> Result<Option<Stopped>, KeeperError> {
    // As its keeper was told it.
    let state_dir = &std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.into());
    let silent = |source| KeeperError::Silent { dir: state_dir.into(), source };
    let socket = state_dir.join(channel::SOCKET_NAME);
    let identity = || std::fs::symlink_metadata(&socket).ok().map(|file| (file.dev(), file.ino()));
    let found = identity();
    let Some(Answer::Status { switch, taps, .. }) = visit(state_dir, &Ask::Status {}).map_err(silent)? else {
        // A dead keeper's socket, which might keep another user out.
        if found.is_some() && identity() == found {
            // Who may not remove it is not kept out by it.
            let _ = std::fs::remove_file(&socket);
        }
        return Ok(None);
    };
    let pid = switch.and_then(|switch| Pid::from_raw(i32::try_from(switch).ok()?));
    if let (Some(pid), Some(process)) = (pid, switch) {
        let begun = Instant::now();
        let open = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        let sent = open.and_then(|pidfd| {
            rustix::process::pidfd_send_signal(&pidfd, Signal::TERM)?;
            Ok(pidfd)
        });
        match sent {
            Ok(pidfd) => {
                use std::os::fd::AsFd;
                let mut ended = false;
                while !ended && begun.elapsed() < LAST_WORDS {
                    let gone = channel::wait(&[pidfd.as_fd()], Some(LAST_WORDS)).map_err(silent)?;
                    ended = gone.first().copied().unwrap_or(false);
                }
                if !ended {
                    return Err(KeeperError::Stubborn { dir: state_dir.into(), process });
                }
            }
            // It has ended by itself.
            Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(silent(error.into())),
        }
    }
    match visit(state_dir, &Ask::End {}).map_err(silent)? {
        // It may have ended before it could say so.
        Some(Answer::Done {}) | None => Ok(Some(Stopped { switch, taps })),
        Some(Answer::Refused { what, remedy, .. }) => {
            Err(KeeperError::Refused { dir: state_dir.into(), what, remedy })
        }
        Some(_) => Err(silent(io::Error::other("it answers another question"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_come_in_is_not_told_to_kill_anybody() {
        let silent =
            |kind: io::ErrorKind| KeeperError::Silent { dir: "/nowhere".into(), source: kind.into() };
        let remedy = silent(io::ErrorKind::PermissionDenied).remedy();
        assert!(remedy.contains("as the user whose switch it is") && !remedy.contains("kill"), "{remedy}");
        let remedy = silent(io::ErrorKind::WouldBlock).remedy();
        assert!(remedy.contains(LOG_NAME) && !remedy.contains("kill"), "{remedy}");
    }
}
