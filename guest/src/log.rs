//! One line to standard error per event worth a line. Never per packet, per poll or per heartbeat.

use std::{fmt::Display, io::Write};

/// Writes one line; a standard error that is gone is no reason to stop.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "shunt-guest: {line}");
}
