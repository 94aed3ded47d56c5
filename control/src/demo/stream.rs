//! The two ends of one TCP connection between neighbours that stay: bytes go there and come back, before, during and
//! after the change of somebody else's network.
//!
//! The connection is made once and never again: when it breaks, the sender ends. One line per piece that has come back:
//! `<nanoseconds since the epoch> <bytes so far>`.

use super::DemoError;
use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const PORT: u16 = 7001;
const PIECE_BYTES: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(5);

/// Sends to `other` and reads what comes back, or gives back what is sent here, until it is killed.
pub(super) fn run(other: Option<Ipv4Addr>) -> Result<(), DemoError> {
    match other {
        Some(other) => send(other).map_err(|source| DemoError::Io { act: "the TCP stream broke", source }),
        None => give_back().map_err(|source| DemoError::Io { act: "cannot serve the TCP stream", source }),
    }
}

fn give_back() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        // The sender says when its connection breaks.
        let _ = io::copy(&mut &stream, &mut &stream);
    }
}

fn send(other: Ipv4Addr) -> io::Result<()> {
    let mut stream = loop {
        match TcpStream::connect((other, PORT)) {
            Ok(stream) => break stream,
            // The other end may not listen yet.
            Err(_) => thread::sleep(PAUSE),
        }
    };
    stream.set_nodelay(true)?;
    let sent = [0x5a; PIECE_BYTES];
    let mut back = [0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        stream.write_all(&sent)?;
        stream.read_exact(&mut back)?;
        if back != sent {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "other bytes came back than were sent"));
        }
        bytes += PIECE_BYTES;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let _ = writeln!(io::stdout(), "{now} {bytes}");
        thread::sleep(PAUSE);
    }
}
