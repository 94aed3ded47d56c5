//! The program that runs inside each guest: it talks over UDP to all its neighbours, answers whoever talks to it, and
//! never learns that the network under it has changed.
//!
//! A question is `?NAME`, an answer `!NAME`, the name being that of the speaker: so the log says not only which
//! address answered but which guest, though both networks use the same addresses. One line per answer:
//! `<nanoseconds since the epoch> <name>`.

use super::DemoError;
use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const PORT: u16 = 7000;
const PAUSE: Duration = Duration::from_millis(5);

/// Talks until it is killed. The first word is our name, the others are the addresses.
pub(super) fn run(words: &[String]) -> Result<(), DemoError> {
    let (name, neighbours) = words.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
    let neighbours: Vec<Ipv4Addr> = neighbours.iter().filter_map(|word| word.parse().ok()).collect();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))
        .map_err(|source| DemoError::Io { act: "cannot open the chatter's socket", source })?;
    let asking = socket
        .try_clone()
        .map_err(|source| DemoError::Io { act: "cannot share the chatter's socket", source })?;
    let question = format!("?{name}");
    thread::spawn(move || {
        loop {
            for neighbour in &neighbours {
                // Without an address, a route or a neighbour nothing can be sent: that is a guest's everyday life.
                let _ = asking.send_to(question.as_bytes(), (*neighbour, PORT));
            }
            thread::sleep(PAUSE);
        }
    });
    let answer = format!("!{name}");
    let mut buffer = [0; 64];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let message = buffer.get(..length).unwrap_or_default();
        match message.split_first() {
            Some((b'?', _)) => drop(socket.send_to(answer.as_bytes(), from)),
            Some((b'!', speaker)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                let _ = writeln!(io::stdout(), "{now} {}", String::from_utf8_lossy(speaker));
            }
            _ => {}
        }
    }
}
