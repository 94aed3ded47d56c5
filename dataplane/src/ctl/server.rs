//! The server of the control socket: a thread with a small runtime of its own, apart from every worker.
//!
//! The socket appears when the switch is ready, can be used by its owner only (mode 0600), and goes when the server
//! stops. Connections are bounded in number, and so are lines in length.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

use super::metrics;
use super::protocol::{LONGEST_LINE, Refusal};
use super::session::{Answer, Follow, Session, refused};
use crate::switch::Switch;

/// Each may make the switch do one thing at a time.
const MOST_CONNECTIONS: usize = 64;
/// How often a waiting move looks at what its guest has done.
const FOLLOW_EVERY: Duration = Duration::from_millis(1);
/// How long running requests may take to end when the server stops.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// Why the doors did not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Another switch answers there.
    #[error("another switch answers at this control socket")]
    Answered {
        /// The socket.
        socket: PathBuf,
    },
    /// A file that is no socket stands in the way.
    #[error("the control socket's path is taken by something that is not a socket")]
    Taken {
        /// The path.
        socket: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot open the control socket: {source}")]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The address of the metrics page cannot be had.
    #[error("cannot serve metrics at {address}: {source}")]
    Metrics {
        /// As configured.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No thread, or no descriptors for it.
    #[error("cannot start the server of the control socket: {0}")]
    Thread(#[source] io::Error),
}

impl From<&DoorError> for Refusal {
    fn from(error: &DoorError) -> Self {
        let (place, remedy) = match error {
            DoorError::Answered { socket } => {
                (socket.display().to_string(), "stop it first, or give this switch a `socket` of its own")
            }
            DoorError::Taken { socket } => {
                (socket.display().to_string(), "choose another `socket`, or remove the file")
            }
            DoorError::Socket { socket, .. } => {
                (socket.display().to_string(), "choose a `socket` in a directory that this user may write to")
            }
            DoorError::Metrics { .. } => {
                ("metrics".to_owned(), "choose another address, or stop who listens there")
            }
            DoorError::Thread(_) => (
                "control socket".to_owned(),
                "raise the limits on threads and open files (`ulimit -u`, `ulimit -n`)",
            ),
        };
        Self { what: error.to_string(), place, remedy: remedy.into() }
    }
}

/// The running server. Dropping it is stopping it.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    /// Device and inode: another switch's socket at the same path is not ours to remove.
    made: (u64, u64),
    metrics: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the doors that the switch's configuration names. Metrics first: who sees the socket finds the switch
    /// complete.
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn start(switch: Arc<Switch>) -> Result<Self, DoorError> {
        let config = switch.config();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MOST_CONNECTIONS)
            .thread_name("control-call")
            .build()
            .map_err(DoorError::Thread)?;
        let _entered = runtime.enter();
        let metrics = config.metrics.map(metrics_listener).transpose()?;
        let metrics_address = metrics.as_ref().and_then(|listener| listener.local_addr().ok());
        let socket = config.socket.clone();
        let failed = |source| DoorError::Socket { socket: socket.clone(), source };
        let listener = listen(&socket)?;
        let made = fs::symlink_metadata(&socket).map(|file| (file.dev(), file.ino())).map_err(failed)?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
        drop(_entered);

        let (stop, stopped) = oneshot::channel();
        let work = move || {
            runtime.block_on(async move {
                if let Some(listener) = metrics {
                    tokio::spawn(metrics::serve(listener, switch.clone()));
                }
                tokio::select! {
                    () = accept(listener, switch) => {}
                    // Also when the sender is gone.
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(LAST_REQUESTS);
        };
        let thread = thread::Builder::new().name("control".into()).spawn(work).map_err(DoorError::Thread)?;
        Ok(Self { socket, made, metrics: metrics_address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where `/metrics` is really served: the configuration may leave the port to the kernel.
    #[must_use]
    pub const fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.socket).is_ok_and(|file| (file.dev(), file.ino()) == self.made)
            && let Err(error) = fs::remove_file(&self.socket)
        {
            tracing::warn!(socket = %self.socket.display(), %error, "the control socket could not be removed");
        }
        if let Some(stop) = self.stop.take() {
            // It is gone if the thread ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server of the control socket had panicked");
        }
    }
}

fn metrics_listener(address: SocketAddr) -> Result<tokio::net::TcpListener, DoorError> {
    let failed = |source| DoorError::Metrics { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    tokio::net::TcpListener::from_std(listener).map_err(failed)
}

/// Listens at the path, which a killed switch may have left behind.
fn listen(socket: &Path) -> Result<UnixListener, DoorError> {
    let failed = |source| DoorError::Socket { socket: socket.into(), source };
    let dir = socket.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(failed)?;
    match fs::symlink_metadata(socket) {
        Ok(file) if !file.file_type().is_socket() => return Err(DoorError::Taken { socket: socket.into() }),
        Ok(_) => match UnixStream::connect(socket) {
            Ok(_) => return Err(DoorError::Answered { socket: socket.into() }),
            // Nobody holds the other end: it may be replaced.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(source) => return Err(failed(source)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed(source)),
    }
    // Who sees the socket must be able to connect, and nobody else may: it gets its name when it listens and is ours.
    let fresh = dir.join(format!(".{}", std::process::id()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    let named = fs::set_permissions(&fresh, Permissions::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| fs::rename(&fresh, socket));
    if named.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&fresh);
    }
    named.map_err(failed).map(|()| listener)
}

async fn accept(listener: tokio::net::UnixListener, switch: Arc<Switch>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: what is open goes on, and may end.
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let lines = Framed::new(stream, LinesCodec::new_with_max_length(LONGEST_LINE));
        match room.clone().try_acquire_owned() {
            Ok(seat) => {
                let session = Session::new(switch.clone());
                tokio::spawn(async move {
                    converse(lines, session).await;
                    drop(seat);
                });
            }
            Err(_) => {
                tokio::spawn(turn_away(lines));
            }
        }
    }
}

type Lines = Framed<tokio::net::UnixStream, LinesCodec>;

async fn turn_away(mut lines: Lines) {
    let answer = refused(Refusal {
        what: format!("{MOST_CONNECTIONS} clients are connected, and no more can be"),
        place: "control socket".into(),
        remedy: "end one of them, or use one connection for many requests".into(),
    });
    // The client may be gone, or never read: neither is worth a word.
    let _ = tokio::time::timeout(Duration::from_secs(1), lines.send(answer)).await;
}

async fn converse(mut lines: Lines, mut session: Session) {
    while let Some(line) = lines.next().await {
        let line = match line {
            Ok(line) => line,
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                let answer = refused(Refusal {
                    what: format!("the request is longer than {LONGEST_LINE} bytes"),
                    place: "request".into(),
                    remedy: "split it into smaller ones".into(),
                });
                let _ = lines.send(answer).await;
                return;
            }
            Err(LinesCodecError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                let answer = refused(Refusal {
                    what: "the request is not UTF-8".into(),
                    place: "request".into(),
                    remedy: "send JSON, one request a line; the connection is closed".into(),
                });
                let _ = lines.send(answer).await;
                return;
            }
            // The connection broke: there is no line to answer.
            Err(LinesCodecError::Io(_)) => return,
        };
        if line.trim().is_empty() {
            continue;
        }
        let asked = spawn_blocking(move || {
            let answer = session.answer(&line);
            (session, answer)
        })
        .await;
        let Ok((back, answer)) = asked else {
            tracing::error!("a control request panicked; its connection is closed");
            return;
        };
        session = back;
        let answer = match answer {
            Answer::Line(answer) => answer,
            Answer::Later(follow) => wait(follow, &session.switch).await,
        };
        if lines.send(answer).await.is_err() {
            return;
        }
    }
}

/// A caller that has gone away keeps its seat for no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

async fn wait(mut follow: Follow, switch: &Arc<Switch>) -> String {
    let deadline = Instant::now() + Duration::from_millis(follow.timeout_ms).min(LONGEST_WAIT);
    loop {
        let switch = switch.clone();
        let asked = spawn_blocking(move || {
            let answer = follow.progress(&switch);
            (follow, answer)
        })
        .await;
        let Ok((back, answer)) = asked else {
            return refused(Refusal {
                what: "waiting for the guest failed".into(),
                place: "control socket".into(),
                remedy: "look at the switch's log; `shunt vswitch port show` tells how far the guest is"
                    .into(),
            });
        };
        follow = back;
        if let Some(answer) = answer {
            return answer;
        }
        if Instant::now() >= deadline {
            return follow.overdue();
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}
