//! Wiring only: everything is in the library, so that `shunt` can play the agent too where no static binary is at hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    shunt_guest::main(std::env::args_os())
}
