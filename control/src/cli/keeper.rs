//! `shunt vswitch stop`, and the process that `shunt vswitch run` starts beside itself.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use dataplane::ctl::Refusal;
use dataplane::keeper::{self, Residence, Seat, Stopped};
use dataplane::switch::SwitchConfig;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::failure::{Failure, USAGE};
use super::output::Out;

/// End the switch of this host and its keeper.
///
/// The switch is ended in order, if one runs; then its keeper closes the TAPs and sockets that it holds for the next one.
/// Guests lose their link. Interfaces and saved state stay.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: shunt vswitch stop --config /etc/shunt/vswitch.toml")]
pub(super) struct Stop {
    /// The configuration that the switch was started with
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// What was ended.
#[derive(Debug, Serialize)]
struct Ended {
    switch: Option<u32>,
    keeper: bool,
    taps: usize,
}

impl Stop {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Failure> {
        let config = SwitchConfig::load(&self.config).map_err(|error| Failure::Told {
            code: USAGE,
            refusal: Refusal { what: error.to_string(), place: error.place(), remedy: error.remedy() },
        })?;
        let stopped =
            keeper::stop(&config.state_dir).map_err(|error| Failure::failed(Refusal::from(&error)))?;
        let ended = match stopped {
            Some(Stopped { switch, taps }) => Ended { switch, keeper: true, taps },
            None => Ended { switch: None, keeper: false, taps: 0 },
        };
        let sentence = match (ended.keeper, ended.switch) {
            (false, _) => "neither a switch nor a keeper runs".to_owned(),
            (true, None) => format!("the keeper has ended; it had kept {} TAPs", ended.taps),
            (true, Some(process)) => format!("the switch (process {process}) and its keeper have ended"),
        };
        out.value(&ended, |_| sentence)
    }
}

/// Keep TAPs and sockets for a switch: started by `shunt vswitch run`, with the keeper's socket as standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Keep {
    /// The switch's state directory
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// How long to wait for the next switch
    #[arg(long, value_name = "N")]
    keep_seconds: u64,
    /// Wait for the end of the keeper at the other end of standard output, and take its place
    #[arg(long)]
    standby: bool,
}

impl Keep {
    pub(super) fn run(self) -> Result<(), Failure> {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("info"))
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .init();
        let failed = |error: io::Error| {
            Failure::failed(Refusal {
                what: format!("the keeper cannot go on: {error}"),
                place: self.state_dir.display().to_string(),
                remedy: "let `shunt vswitch run` start it".into(),
            })
        };
        let inherited = |fd: io::Result<std::os::fd::OwnedFd>| fd.map_err(failed);
        let listener = inherited(io::stdin().as_fd().try_clone_to_owned())?;
        let seat = if self.standby {
            Seat::Standby(UnixStream::from(inherited(io::stdout().as_fd().try_clone_to_owned())?))
        } else {
            Seat::Serving
        };
        let home =
            Residence { state_dir: self.state_dir.clone(), keep: Duration::from_secs(self.keep_seconds) };
        keeper::serve(listener, home, seat).map_err(failed)
    }
}
