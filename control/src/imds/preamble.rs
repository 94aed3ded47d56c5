//! The switch's line before a guest's first byte: one JSON object and a line feed.

use serde::Deserialize;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    time::timeout,
};

/// The longest line, in bytes.
const LONGEST: usize = 1024;
/// The switch writes it at once.
const LIMIT: Duration = Duration::from_secs(1);

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Preamble {
    /// The port.
    pub(super) port: String,
    /// Its label; empty when it has none.
    #[serde(default)]
    pub(super) label: String,
    /// The guest's address, for logs.
    #[serde(default)]
    pub(super) peer: String,
}

/// Reads the line and not a byte more of what the guest says.
pub(super) async fn read(stream: &mut BufReader<UnixStream>) -> io::Result<Preamble> {
    let line = timeout(LIMIT, line(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let preamble: Preamble = serde_json::from_slice(&line)?;
    let plain =
        |text: &str, longest: usize| text.len() <= longest && text.bytes().all(|b| b.is_ascii_graphic());
    let sound = !preamble.port.is_empty() && plain(&preamble.port, 64) && plain(&preamble.label, 64);
    if sound {
        Ok(preamble)
    } else {
        Err(io::Error::other("port or label is not 64 printable characters at most"))
    }
}

async fn line(stream: &mut BufReader<UnixStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let there = stream.fill_buf().await?;
        if there.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = there.iter().position(|byte| *byte == b'\n');
        let part = there.get(..end.unwrap_or(there.len())).unwrap_or_default();
        if line.len() + part.len() > LONGEST {
            return Err(io::Error::other("the line is longer than 1024 bytes"));
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        stream.consume(used);
        if end.is_some() {
            return Ok(line);
        }
    }
}
