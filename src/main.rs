//! Wiring only: the command line is `control::cli`, the switch is `dataplane`.

use std::process::ExitCode;

fn main() -> ExitCode {
    control::cli::main(std::env::args_os())
}
