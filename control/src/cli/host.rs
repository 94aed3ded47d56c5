//! `shunt host`: this host as a member of a cluster.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use dataplane::ctl::Refusal;
use serde::Serialize;
use tokio::runtime;

use super::failure::{Failure, USAGE};
use super::output::Out;
use crate::fleet::identity::JoinToken;
use crate::host::{HostFile, join};
use crate::model::{HostId, Name, Problem};

/// The longest token that is read, in bytes.
const LONGEST: u64 = 64 << 10;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Join(Join),
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

impl Verb {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::Join(args) => args.run(out),
        }
    }
}

impl Join {
    fn run(self, out: &mut Out) -> Result<(), Failure> {
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
