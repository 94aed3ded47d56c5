//! `shunt controller run`: configuration → store, boards, sessions, journeys → API → wait → orderly end.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use dataplane::ctl::Refusal;
use tokio::net::TcpListener;

use super::failure::{Failure, USAGE};
use super::role;
use crate::api;
use crate::controller::{Controller, ControllerConfig};
use crate::model::Problem;

/// The file with the first token, in the state directory.
const ADMIN_TOKEN: &str = "admin.token";

/// The brain of a cluster: API, managers, store
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the controller until it is told to stop
    #[command(
        long_about = "Run the controller until it is told to stop.\n\nAt its first start it makes the cluster's authority and a token with all rights, which it writes to `admin.token` in its state directory (mode 0600). It is ready when it logs so. SIGTERM and SIGINT end it in order: operations that are under way go on at the next start."
    )]
    Run(Run),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Environment: SHUNT_LOG filters the log on standard error (default `info`; `debug`, `warn` …).
Example: shunt controller run --config /etc/shunt/controller.toml"
)]
struct Run {
    /// The configuration, TOML; docs/reference/controller.md lists its keys
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn refusal(problem: Problem) -> Refusal {
    Refusal { what: problem.what, place: problem.place, remedy: problem.remedy }
}

impl Args {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Verb::Run(run) = self.verb;
        let config = ControllerConfig::load(&run.config)
            .map_err(|problem| Failure::Told { code: USAGE, refusal: refusal(problem) })?;
        role::log();
        role::runtime()?.block_on(serve(config)).map_err(|problem| Failure::failed(refusal(problem)))
    }
}

async fn serve(config: ControllerConfig) -> Result<(), Problem> {
    let mut end = role::End::listen()?;
    let listener = TcpListener::bind(config.api).await.map_err(|error| {
        let what = format!("cannot listen for requests: {error}");
        Problem::new(what, format!("api = {}", config.api), "choose another address or port")
    })?;
    let address = listener.local_addr().map_or(config.api, |address| address);
    let controller = Controller::start(&config).await?;
    first_token(&controller, &config.state_dir.join(ADMIN_TOKEN)).await?;
    tracing::info!(api = %address, hosts = controller.hosts_address(), "the controller is ready");
    api::serve(listener, api::router(controller.runner().clone(), controller.joining()), end.wait()).await;
    controller.stop().await;
    Ok(())
}

/// A token with all rights, once: whoever deletes the file gets a new one at the next start.
async fn first_token(controller: &Controller, path: &Path) -> Result<(), Problem> {
    if path.exists() {
        return Ok(());
    }
    let failed = |error: std::io::Error| {
        Problem::new(
            format!("cannot write the first token: {error}"),
            path.display().to_string(),
            "make room for it",
        )
    };
    let secret = controller.admin_token("made at the first start").await?;
    // Whole or not at all: a crash leaves no half of a token.
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    writeln!(file, "{}", secret.reveal()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}
