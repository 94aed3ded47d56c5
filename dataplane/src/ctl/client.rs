//! A blocking client of the socket, for the command line and tests. A connection serves any number of calls.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::protocol::{LONGEST_LINE, Refusal, Request, Response};

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("no switch answers: {source}")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection broke before the answer came.
    #[error("the switch ended the connection without an answer: {source}")]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The request is longer than the switch accepts.
    #[error("the request has {bytes} bytes, and the switch accepts {LONGEST_LINE}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The answer is no answer to the request.
    #[error("the answer is not understood: {source}")]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The switch refused, or failed.
    #[error("{}", .0.what)]
    Refused(Refusal),
}

impl ClientError {
    /// With place and remedy.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (place, remedy) = match self {
            Self::Refused(refusal) => return refusal.clone(),
            Self::Connect { socket, source } => (
                socket.display().to_string(),
                match source.kind() {
                    io::ErrorKind::PermissionDenied => "run as the user whom the switch runs as".into(),
                    _ => "start one with `shunt vswitch run --config FILE`, or name its socket with --socket"
                        .to_owned(),
                },
            ),
            Self::Broken { socket, .. } => (
                socket.display().to_string(),
                "look at the switch's log, and start it again if it is gone".into(),
            ),
            Self::TooLong { .. } => ("request".into(), "split it into smaller ones".into()),
            Self::Garbled { socket, .. } => {
                (socket.display().to_string(), "use the `shunt` of the version that the switch runs".into())
            }
        };
        Refusal { what: self.to_string(), place, remedy }
    }
}

/// A connection to a switch.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket)
            .map_err(|source| ClientError::Connect { socket: socket.into(), source })?;
        Ok(Self { socket: socket.into(), stream: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer. `T` is the type that the request's documentation names.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the switch says no; the connection then goes on. After any other error, connect
    /// anew.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let garbled = |source| ClientError::Garbled { socket: self.socket.clone(), source };
        let broken = |source| ClientError::Broken { socket: self.socket.clone(), source };
        let mut line = serde_json::to_vec(request).map_err(garbled)?;
        if line.len() > LONGEST_LINE {
            return Err(ClientError::TooLong { bytes: line.len() });
        }
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(broken)?;
        line.clear();
        self.stream.read_until(b'\n', &mut line).map_err(broken)?;
        if line.last() != Some(&b'\n') {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&line).map_err(garbled)? {
            Response::Ok(value) => Ok(value),
            Response::Error(refusal) => Err(ClientError::Refused(refusal)),
        }
    }
}
