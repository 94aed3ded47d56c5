//! `shunt host run|join`: this host as a member of a cluster.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use dataplane::ctl::Refusal;
use serde::Serialize;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::failure::{Failure, USAGE};
use super::output::Out;
use crate::fleet::identity::JoinToken;
use crate::host::{HostFile, Role, join};
use crate::hypervisor::netns::GuestProgram;
use crate::model::{HostId, Name, Problem};

/// The longest token that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Run the agent of this host until it is told to stop
///
/// It dials the controller of the cluster that the host has joined, keeps on disk what the host should hold, and makes it so:
/// with this host's switch, its hypervisors and its metadata service. Without a controller it goes on with what it has.
/// SIGTERM and SIGINT end the agent alone: guests and the switch live on, and the next agent finds them again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Environment: SHUNT_LOG filters the log on standard error (default `info`; `debug`, `warn` …).
Example: shunt host run --config /etc/shunt/host.toml"
)]
pub(super) struct Run {
    /// The configuration, TOML; docs/reference/host.md lists its keys
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Make this host a member of a cluster, with a token that its controller has printed
///
/// The host makes its key itself; the token proves the controller to the host and lets the host in, once. An attempt that
/// was cut short may be made again with the same token.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: shunt host join --config /etc/shunt/host.toml --name host-a < token")]
pub(super) struct Join {
    /// The configuration, TOML; docs/reference/host.md lists its keys
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What the host is to be called in the cluster
    #[arg(long)]
    name: Name,
    /// A file with the token, `-` for standard input; the command line itself is no place for it, for others can read that
    #[arg(long, value_name = "FILE", default_value = "-")]
    token: PathBuf,
}

/// What `host join` prints.
#[derive(Serialize)]
struct Joined {
    host: HostId,
    name: Name,
}

/// First word that makes this program play the agent in guests made of namespaces.
const GUEST_AGENT: &str = "guest-agent";

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = HostFile::load(&self.config).map_err(misunderstood)?;
        let filter = EnvFilter::try_from_env("SHUNT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            // A terminal that has gone takes the log with it, not the agent: telling of it there would panic.
            .log_internal_errors(false)
            .init();
        let unready = |error: io::Error| {
            let what = format!("cannot start: {error}");
            failed(Problem::new(what, "process", "raise the limits on threads and open files"))
        };
        let runtime = runtime::Builder::new_multi_thread().enable_all().build().map_err(unready)?;
        runtime.block_on(async {
            // From here on a signal is an orderly end, also one that comes the moment the agent is ready.
            let mut terminate = signal(SignalKind::terminate()).map_err(unready)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(unready)?;
            let file = std::env::current_exe().map_err(unready)?;
            let guest =
                GuestProgram { file, prefix: vec![GUEST_AGENT.to_owned()], agent_options: Vec::new() };
            let role = Role::start(config, guest).await.map_err(failed)?;
            tracing::info!("the host agent is ready");
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "stopping");
            role.stop().await;
            Ok(())
        })
    }
}

impl Join {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Failure> {
        let config = HostFile::load(&self.config).map_err(misunderstood)?;
        let text = read(&self.token).map_err(|error| {
            let what = format!("cannot read the token: {error}");
            misunderstood(Problem::new(what, self.token.display().to_string(), "name a readable file"))
        })?;
        let token: JoinToken = text
            .parse()
            .map_err(|error: crate::fleet::identity::TokenError| misunderstood(error.problem()))?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            let what = format!("cannot start: {error}");
            failed(Problem::new(what, "process", "raise the limits on threads and open files"))
        })?;
        let joined = runtime.block_on(join(&config.state_dir, &token, &self.name));
        let host = joined.map_err(|error| failed(error.problem()))?;
        let Self { name, .. } = self;
        out.value(&Joined { host, name }, |joined| format!("this host is {}, {}", joined.name, joined.host))
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(LONGEST).read_to_string(&mut text)?;
    } else {
        fs::File::open(file)?.take(LONGEST).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn refusal(problem: Problem) -> Refusal {
    Refusal { what: problem.what, place: problem.place, remedy: problem.remedy }
}

fn misunderstood(problem: Problem) -> Failure {
    Failure::Told { code: USAGE, refusal: refusal(problem) }
}

fn failed(problem: Problem) -> Failure {
    Failure::failed(refusal(problem))
}
