//! Wiring only: the command line is `control::cli`, the switch is `dataplane`.

use std::{ffi::OsString, process::ExitCode};

/// First word that makes this program play `shunt-guest` in guests made of namespaces: where there is `shunt` there is
/// its agent, of the same version. People do not use it.
const GUEST_AGENT: &str = "guest-agent";

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    if words.nth(1).is_some_and(|word| word == GUEST_AGENT) {
        return shunt_guest::main(std::iter::once(OsString::from("shunt-guest")).chain(words));
    }
    control::cli::main(std::env::args_os())
}
