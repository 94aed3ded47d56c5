//! What the roles with a runtime have in common: log, runtime, the signals that end them. And `shunt dev`, which is all of
//! them.

use std::io::{self, IsTerminal};

use dataplane::ctl::Refusal;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use crate::dev::{self, DevArgs};
use crate::model::Problem;

/// The log, on standard error; `SHUNT_LOG` filters it.
pub(super) fn log() {
    let filter = EnvFilter::try_from_env("SHUNT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // A terminal that has gone takes the log with it, not the role.
        .log_internal_errors(false)
        .init();
}

/// A runtime of as many threads as there are processors.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::failed(Refusal {
            what: format!("cannot start threads: {error}"),
            place: "process".into(),
            remedy: "raise the limits on threads and open files".into(),
        })
    })
}

/// The signals that end a role. SIGHUP does not: roles outlive the terminal that they were started in.
pub(super) struct End {
    terminate: Signal,
    interrupt: Signal,
    _hangup: Signal,
}

impl End {
    pub(super) fn listen() -> Result<Self, Problem> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                let what = format!("cannot listen for signals: {error}");
                Problem::new(what, "process", "raise the limit on open files (`ulimit -n`)")
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            _hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Until one comes.
    pub(super) async fn wait(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
    }
}

/// A whole cluster, until a signal comes.
pub(super) fn dev(args: &DevArgs) -> Result<(), Failure> {
    let refusal =
        |problem: Problem| Refusal { what: problem.what, place: problem.place, remedy: problem.remedy };
    let runtime = runtime()?;
    let mut end =
        runtime.block_on(async { End::listen() }).map_err(|problem| Failure::failed(refusal(problem)))?;
    dev::run(args, || runtime.block_on(end.wait())).map_err(|error| {
        Failure::failed(Refusal {
            what: error.to_string(),
            place: "shunt dev".into(),
            remedy: "run it as root; `make demo` installs the programs that it needs".into(),
        })
    })
}
