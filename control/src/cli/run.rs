//! `shunt vswitch run`: configuration → switch → doors → wait → orderly end.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use dataplane::ctl::{Refusal, Server};
use dataplane::port::open::Direct;
use dataplane::switch::{Switch, SwitchConfig, set_aside};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::failure::{Failure, USAGE};

/// Run the switch of this host until it is told to stop.
///
/// It needs root (or CAP_NET_ADMIN and CAP_SYS_ADMIN) to make TAP devices in namespaces. The control socket appears when
/// the switch is ready. SIGTERM and SIGINT end it; devices stay, so that guests keep their addresses until it comes back.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Environment: SHUNT_LOG filters the log on standard error (default `info`; `debug`, `warn` …).
Example: shunt vswitch run --config /etc/shunt/vswitch.toml"
)]
pub(super) struct Args {
    /// The configuration, TOML; docs/reference/config.md lists its keys
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Keep the saved state aside as `state.redb.discarded-…` and start empty
    #[arg(long)]
    discard_state: bool,
}

impl Args {
    pub(super) fn run(self, socket: Option<PathBuf>) -> Result<(), Failure> {
        let mut config = SwitchConfig::load(&self.config).map_err(|error| Failure::Told {
            code: USAGE,
            refusal: Refusal { what: error.to_string(), place: error.place(), remedy: error.remedy() },
        })?;
        if let Some(socket) = socket {
            config.socket = socket;
        }
        let filter = EnvFilter::try_from_env("SHUNT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .init();
        // From here on a signal is an orderly end, also one that comes the moment the socket appears.
        let mut signals = Signals::listen()?;
        if self.discard_state {
            let aside =
                set_aside(&config.state_dir).map_err(|error| Failure::failed(Refusal::from(&error)))?;
            if let Some(aside) = aside {
                tracing::warn!(kept = %aside.display(), "the saved state was set aside");
            }
        }
        let switch = Switch::start(config, Arc::new(Direct))
            .map_err(|error| Failure::failed(Refusal::from(&error)))?;
        let server = Server::start(switch.clone());
        let server = match server {
            Ok(server) => server,
            Err(error) => {
                switch.stop();
                return Err(Failure::failed(Refusal::from(&error)));
            }
        };
        tracing::info!(
            socket = %switch.config().socket.display(),
            generation = %switch.document().generation,
            ports = switch.document().ports.len(),
            "the switch is ready"
        );
        let name = signals.wait();
        tracing::info!(signal = name, "stopping");
        drop(server);
        switch.stop();
        Ok(())
    }
}

/// The signals that end the switch.
struct Signals {
    runtime: runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::failed(Refusal {
                what: format!("cannot listen for signals: {error}"),
                place: "process".into(),
                remedy: "raise the limit on open files (`ulimit -n`)".into(),
            })
        };
        let runtime = runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let (terminate, interrupt) = {
            let _entered = runtime.enter();
            (
                signal(SignalKind::terminate()).map_err(failed)?,
                signal(SignalKind::interrupt()).map_err(failed)?,
            )
        };
        Ok(Self { runtime, terminate, interrupt })
    }

    /// Waits for one of them, and names it.
    fn wait(&mut self) -> &'static str {
        let Self { runtime, terminate, interrupt } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        })
    }
}
