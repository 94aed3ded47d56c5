//! `shunt vswitch apply` and `export`: the whole document.

use std::io::{self, Read};
use std::path::PathBuf;

use dataplane::ctl::protocol::Changed;
use dataplane::ctl::{Client, ClientError, Request};
use dataplane::desired::HostConfig;

use super::failure::Failure;
use super::output::{Out, nanoseconds};

/// Put a whole configuration document in force.
///
/// The document must have a newer generation than the one in force. The very document in force is accepted again and
/// changes nothing. What differs changes in one step; everything else goes on undisturbed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: shunt vswitch export > host.json; edit it, raise its generation; shunt vswitch apply host.json"
)]
pub(super) struct Apply {
    /// A JSON document as `export` prints it; `-` for standard input
    file: PathBuf,
}

impl Apply {
    pub(super) fn run(
        self,
        connect: impl FnOnce() -> Result<Client, ClientError>,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let text = read(&self.file)?;
        let document: HostConfig = serde_json::from_str(&text).map_err(|error| {
            // serde_json puts the position behind the message; ours stands in front.
            let what = error.to_string();
            let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
            let place = format!("{}, line {}, column {}", self.file.display(), error.line(), error.column());
            Failure::usage(
                what,
                place,
                "correct the document; `shunt vswitch export` prints one that is right",
            )
        })?;
        let changed: Changed = connect()?.call(&Request::Apply { document })?;
        out.value(&changed, |Changed { generation, settled_ns, .. }| {
            format!("generation {generation} is in force, settled in {}", nanoseconds(*settled_ns))
        })
    }
}

/// Print the configuration document in force.
///
/// It is JSON in either output format, and what `apply` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Export {}

impl Export {
    pub(super) fn run(self, client: &mut Client, out: &mut Out) -> Result<(), Failure> {
        let document: HostConfig = client.call(&Request::Export {})?;
        out.json(&document)
    }
}

/// A file's text, or standard input's for `-`.
pub(super) fn read(file: &PathBuf) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::File::open(file).and_then(|mut open| open.read_to_string(&mut text)).map(drop)
    };
    match read {
        Ok(()) => Ok(text),
        Err(error) => Err(Failure::usage(
            format!("cannot read the file: {error}"),
            file.display().to_string(),
            "name a readable file, or `-` for standard input",
        )),
    }
}
