//! `shunt dev`: a cluster on one machine, to try it. It lives in namespaces of its own and vanishes with its process.

mod gate;
mod stage;

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

pub use stage::{API, Stage, StageHost, StageOptions};

use crate::lab::LabError;

/// Arguments of `shunt dev`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Then, in another terminal, with the two lines that it prints:
  export SHUNT_SERVER=http://127.0.0.1:9480 SHUNT_TOKEN=shunt_…
  shunt tenant create acme
  shunt network create red --prefix 10.0.0.0/24 --tenant acme
  shunt pool create small --image tiny --min 4 --max 8
  shunt vm create web --image tiny --network red --tenant acme --wait
Virtual machines: `images/tiny/build`, then `shunt dev --images target/images` and
  shunt pool create vms --hypervisor qemu --image tiny --memory-mib 128 --min 2 --max 2")]
pub struct DevArgs {
    /// How many hosts
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    hosts: u8,
    /// Where the API is served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = API)]
    api: SocketAddr,
    /// Where images for virtual machines are (images/tiny/build makes one): with it, hosts run machines of kind qemu too
    #[arg(long, value_name = "DIRECTORY")]
    images: Option<PathBuf>,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Its parts do not start.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A directory that is none.
    #[error("cannot use the images at {path}: {source}")]
    Images {
        /// As given.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Its API cannot be served here.
    #[error("cannot serve the API at {address}: {source}")]
    Gate {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Starts a cluster, says how to reach it, and calls `wait`; when that returns the cluster ends.
///
/// # Errors
/// [`DevError`].
pub fn run(args: &DevArgs, wait: impl FnOnce()) -> Result<(), DevError> {
    let failed = |source| DevError::Gate { address: args.api, source };
    // Before anything is started: the port may be somebody's.
    let listener = TcpListener::bind(args.api).map_err(failed)?;
    let binary = std::env::current_exe().map_err(failed)?;
    let images = args.images.as_ref().map(|path| {
        let unfit = |source| DevError::Images { path: path.display().to_string(), source };
        path.canonicalize().map_err(unfit)
    });
    let options = StageOptions { images: images.transpose()? };
    let stage = Stage::start_with(&binary, args.hosts, &options)?;
    let address = gate::open(stage.world(), listener).map_err(failed)?;
    let mut out = io::stdout().lock();
    // A reader that has gone away is no reason to end.
    let _ = writeln!(
        out,
        "A controller and {} hosts run in namespaces of their own. Control-C ends them, and leaves nothing behind.\n\n\
         export SHUNT_SERVER=http://{address}\nexport SHUNT_TOKEN={}",
        args.hosts,
        stage.token()
    );
    let _ = out.flush();
    drop(out);
    wait();
    stage.end();
    Ok(())
}
