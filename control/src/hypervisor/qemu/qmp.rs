//! QEMU's monitor protocol: lines of JSON over a Unix socket (docs/interop/qmp-spec in QEMU's source).
//!
//! Who listens at the socket is the machine: the kernel tells its process id. Events are read and passed over, so that they
//! do not pile up in QEMU. Whatever comes may come from a QEMU that its guest has taken over: lines are bounded, and a
//! monitor that is silent is given up.

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use std::{io, os::fd::OwnedFd, path::Path, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, LinesCodec};

/// A QEMU that emulates a processor on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest line that is read; what we ask for is answered in far less.
const LINE_BYTES: usize = 1 << 20;
/// Answers that wait; there is one question at a time.
const ANSWERS: usize = 4;

/// A connection to a machine's monitor.
#[derive(Debug)]
pub(super) struct Qmp {
    talk: Mutex<Talk>,
    pid: u32,
}

#[derive(Debug)]
struct Talk {
    mouth: OwnedWriteHalf,
    answers: mpsc::Receiver<Value>,
    asked: u64,
}

/// Whoever listens at a monitor's socket.
pub(super) struct Found {
    /// The monitor, which has not said anything yet.
    stream: UnixStream,
    /// Its process.
    pub(super) process: OwnedFd,
    /// The same, as people call it.
    pub(super) pid: u32,
}

/// Looks who listens at `socket`; `None` when nobody does: the machine does not run.
pub(super) async fn find(socket: &Path) -> io::Result<Option<Found>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let unseen = || io::Error::other("the process at the other end cannot be seen from here");
    let pid = stream.peer_cred()?.pid().and_then(Pid::from_raw).ok_or_else(unseen)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Ok(Some(Found { stream, process, pid: pid.as_raw_nonzero().get().unsigned_abs() })),
        // It ended between the two.
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl Found {
    /// Begins to talk.
    pub(super) async fn greet(self) -> io::Result<Qmp> {
        let Self { stream, pid, .. } = self;
        let (ear, mouth) = stream.into_split();
        let mut lines = FramedRead::new(ear, LinesCodec::new_with_max_length(LINE_BYTES));
        let greeting = timeout(PATIENCE, lines.next()).await.map_err(|_| silent())?;
        let greeting: Value = match greeting {
            Some(Ok(line)) => serde_json::from_str(&line)?,
            Some(Err(error)) => return Err(io::Error::other(error)),
            None => return Err(gone()),
        };
        if greeting.get("QMP").is_none() {
            return Err(io::Error::other("who listens there is no QEMU"));
        }
        let (answered, answers) = mpsc::channel(ANSWERS);
        tokio::spawn(hear(lines, answered));
        let qmp = Qmp { talk: Mutex::new(Talk { mouth, answers, asked: 0 }), pid };
        qmp.ask("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }
}

impl Qmp {
    /// Has one command carried out, and gives what it returns.
    pub(super) async fn ask(&self, command: &str, arguments: Value) -> io::Result<Value> {
        let mut talk = self.talk.lock().await;
        talk.asked += 1;
        let id = talk.asked;
        let question = json!({"execute": command, "arguments": arguments, "id": id});
        let exchange = async {
            talk.mouth.write_all(format!("{question}\n").as_bytes()).await?;
            loop {
                let answer = talk.answers.recv().await.ok_or_else(gone)?;
                // One that came too late for who had asked.
                if answer.get("id") != Some(&json!(id)) {
                    continue;
                }
                return match answer.get("error") {
                    None => Ok(answer.get("return").cloned().unwrap_or_default()),
                    Some(error) => {
                        let said = error.get("desc").and_then(Value::as_str).unwrap_or("it does not say why");
                        Err(io::Error::other(format!("{command}: {said}")))
                    }
                };
            }
        };
        timeout(PATIENCE, exchange).await.map_err(|_| silent())?
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}

/// Reads until the monitor ends. Nobody waits for events: a machine's end is told by its process.
async fn hear(mut lines: FramedRead<OwnedReadHalf, LinesCodec>, answered: mpsc::Sender<Value>) {
    while let Some(Ok(line)) = lines.next().await {
        let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(event) = value.get("event") {
            tracing::debug!(%event, "a machine's monitor tells");
        } else if answered.send(value).await.is_err() {
            return;
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "its monitor has ended")
}

fn silent() -> io::Error {
    let told = format!("its monitor has said nothing for {} s", PATIENCE.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tokio::{
        io::{AsyncBufReadExt, BufReader},
        net::UnixListener,
    };

    /// A monitor that says `lines` after the greeting, each when it has been asked once more.
    fn monitor(greeting: &'static str, lines: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (ear, mut mouth) = listener.accept().await.unwrap().0.into_split();
            let mut ear = BufReader::new(ear).lines();
            mouth.write_all(format!("{greeting}\n").as_bytes()).await.unwrap();
            for line in lines {
                ear.next_line().await.unwrap();
                mouth.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            }
            ear.next_line().await.unwrap();
        });
        (dir, path)
    }

    const GREETING: &str = r#"{"QMP":{"version":{},"capabilities":[]}}"#;

    #[tokio::test]
    async fn answers_are_told_from_events_and_from_late_ones() {
        let (_dir, path) = monitor(
            GREETING,
            &[
                r#"{"return":{},"id":1}"#,
                "{\"event\":\"RESET\",\"data\":{}}\n{\"return\":\"late\",\"id\":1}\n{\"return\":\"mine\",\"id\":2}",
                r#"{"error":{"class":"GenericError","desc":"no such device"},"id":3}"#,
            ],
        );
        let found = find(&path).await.unwrap().unwrap();
        assert_eq!(found.pid, std::process::id());
        let qmp = found.greet().await.unwrap();
        assert_eq!(qmp.ask("query-status", json!({})).await.unwrap(), "mine");
        let refused = qmp.ask("set_link", json!({"name": "x", "up": true})).await.unwrap_err();
        assert_eq!(refused.to_string(), "set_link: no such device");
        assert_eq!(qmp.pid(), std::process::id());
        assert!(qmp.ask("quit", json!({})).await.is_err(), "the monitor has ended");
    }

    #[tokio::test]
    async fn nobody_and_somebody_else_are_told_apart() {
        let (dir, path) = monitor("SSH-2.0-OpenSSH", &[]);
        assert!(find(&dir.path().join("missing")).await.unwrap().is_none());
        drop(UnixListener::bind(dir.path().join("left")).unwrap());
        assert!(find(&dir.path().join("left")).await.unwrap().is_none());
        assert!(find(&path).await.unwrap().unwrap().greet().await.is_err());
    }

    #[tokio::test]
    async fn a_line_without_end_is_given_up() {
        let long: &'static str = Box::leak("x".repeat(LINE_BYTES + 10).into_boxed_str());
        let (_dir, path) = monitor(long, &[]);
        assert!(find(&path).await.unwrap().unwrap().greet().await.is_err());
    }
}
