//! `shunt vswitch run`: configuration → keeper → privileges dropped → switch → doors → wait → orderly end.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dataplane::ctl::{Refusal, Server};
use dataplane::keeper::{self, Keeper, Residence};
use dataplane::switch::{Claim, Switch, SwitchConfig, set_aside};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::failure::{Failure, USAGE};

/// Run the switch of this host until it is told to stop.
///
/// It starts its keeper, a small process that makes TAP devices in namespaces and keeps them open. For that it needs root
/// (or CAP_NET_ADMIN and CAP_SYS_ADMIN, and CAP_NET_RAW for ports of kind netdev): without them it starts, warns, and cannot
/// add ports. The switch itself then gives up all privileges. The control socket appears when the switch is ready.
///
/// SIGTERM ends the switch alone: the keeper holds TAPs and sockets for the next one (`keep_seconds` in the configuration),
/// so that guests see no link loss. SIGINT (control-C) and `shunt vswitch stop` end the keeper too. SIGHUP is logged
/// and ignored: the switch outlives the terminal that it was started in. Interfaces stay in every case, so that guests keep
/// their addresses.
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
            // A terminal that has gone takes the log with it, not the switch: telling of it there would panic.
            .log_internal_errors(false)
            .init();
        // From here on a signal is an orderly end, also one that comes the moment the socket appears.
        let mut signals = Signals::listen()?;
        keeper::check_owner(&config.state_dir).map_err(|error| Failure::failed(Refusal::from(&error)))?;
        if self.discard_state {
            let aside =
                set_aside(&config.state_dir).map_err(|error| Failure::failed(Refusal::from(&error)))?;
            if let Some(aside) = aside {
                tracing::warn!(kept = %aside.display(), "the saved state was set aside");
            }
        }
        let keeper = unprivileged(&config)?;
        // A keeper that this very start has brought goes with it when it fails.
        let undo = |refusal| {
            if keeper.was_started() {
                keeper.end();
            }
            Err(Failure::failed(refusal))
        };
        let switch = match Switch::start(config, keeper.clone()) {
            Ok(switch) => switch,
            Err(error) => return undo(Refusal::from(&error)),
        };
        let server = match Server::start(switch.clone()) {
            Ok(server) => server,
            Err(error) => {
                switch.stop();
                return undo(Refusal::from(&error));
            }
        };
        tracing::info!(
            socket = %switch.config().socket.display(),
            generation = %switch.document().generation,
            ports = switch.document().ports.len(),
            "the switch is ready"
        );
        let (name, for_good) = signals.wait();
        tracing::info!(signal = name, "stopping");
        drop(server);
        switch.stop();
        if for_good {
            keeper.end();
        }
        Ok(())
    }
}

/// The last acts with privileges: a keeper is found or started. Then none are left, and only then other threads begin.
fn unprivileged(config: &SwitchConfig) -> Result<Arc<Keeper>, Failure> {
    keeper::raise_open_files();
    // Nobody starts a keeper in a directory that another switch uses.
    let claim = Claim::to(&config.state_dir).map_err(|error| Failure::failed(Refusal::from(&error)))?;
    let state_dir = std::path::absolute(&config.state_dir).unwrap_or_else(|_| config.state_dir.clone());
    let keep = Duration::from_secs(config.keep_seconds.into());
    let keeper = Keeper::find_or_start(Residence { state_dir, keep })
        .map_err(|error| Failure::failed(Refusal::from(&error)))?;
    drop(claim);
    if keeper.was_started() {
        for (capability, without) in keeper::missing_of_a_keeper().unwrap_or_default() {
            tracing::warn!(capability, "the keeper was started without it: {without}");
        }
    }
    let failed = |act: &str, error: io::Error| {
        Failure::failed(Refusal {
            what: format!("cannot {act}: {error}"),
            place: "process".into(),
            remedy: "raise the limits on threads, and let this process give up capabilities (CAP_SETPCAP)"
                .into(),
        })
    };
    keeper::drop_all().map_err(|error| failed("give up the switch's privileges", error))?;
    keeper.watch().map_err(|error| failed("start a thread", error))?;
    Ok(Arc::new(keeper))
}

/// The signals that end the switch, and one that does not.
struct Signals {
    runtime: runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
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
        let (terminate, interrupt, hangup) = {
            let _entered = runtime.enter();
            (
                signal(SignalKind::terminate()).map_err(failed)?,
                signal(SignalKind::interrupt()).map_err(failed)?,
                signal(SignalKind::hangup()).map_err(failed)?,
            )
        };
        Ok(Self { runtime, terminate, interrupt, hangup })
    }

    /// Waits for one that ends the switch, names it, and says whether the keeper is to end too: control-C comes from a person who is
    /// done, SIGTERM from whoever restarts services.
    fn wait(&mut self) -> (&'static str, bool) {
        let Self { runtime, terminate, interrupt, hangup } = self;
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return ("SIGTERM", false),
                    _ = interrupt.recv() => return ("SIGINT", true),
                    _ = hangup.recv() => tracing::info!(
                        signal = "SIGHUP",
                        "ignored: the switch outlives its terminal, and reads its configuration at its start only"
                    ),
                }
            }
        })
    }
}
