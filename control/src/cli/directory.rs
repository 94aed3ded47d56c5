//! `shunt vswitch directory …`: entries by hand, and by the million.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use dataplane::ctl::protocol::{Counted, Entries, LARGEST_PAGE};
use dataplane::ctl::{Client, ClientError, Request};
use dataplane::switch::Mapping;
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, TypeError, Vni};

use super::document::read;
use super::failure::Failure;
use super::output::Out;
use crate::format::Format;

/// Entries sent in one request of an import.
const BATCH: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add or replace an entry
    #[command(
        after_help = "Example: shunt vswitch directory set --network 100 --ip 10.0.0.7 --mac 02:00:00:00:00:07 --physical-ip 192.0.2.2"
    )]
    Set {
        /// The virtual network
        #[arg(long, value_name = "VNI")]
        network: Vni,
        /// The guest's address
        #[arg(long, value_name = "IP")]
        ip: CustomerIp,
        /// The guest's MAC address
        #[arg(long, value_name = "MAC")]
        mac: MacAddr,
        /// The address of the host that it is on
        #[arg(long, value_name = "IP")]
        physical_ip: PhysicalIp,
    },
    /// Remove an entry
    Remove(Key),
    /// Look an entry up as the packet path does
    Lookup(Key),
    /// List entries in the order of network and address
    List {
        /// Only this network's
        #[arg(long, value_name = "VNI")]
        network: Option<Vni>,
    },
    /// Add or replace many entries, all of them or none
    ///
    /// The file holds one JSON object a line, as in: {"network":100,"ip":"10.0.0.7","mac":"02:00:00:00:00:07",
    /// "physical_ip":"192.0.2.2"}. Empty lines are skipped; of two lines for one address the later one counts.
    Import {
        /// The file; `-` for standard input
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Key {
    /// The virtual network
    #[arg(long, value_name = "VNI")]
    network: Vni,
    /// The guest's address
    #[arg(long, value_name = "IP")]
    ip: CustomerIp,
}

impl Verb {
    pub(super) fn run(
        self,
        connect: impl FnOnce() -> Result<Client, ClientError>,
        out: &mut Out,
    ) -> Result<(), Failure> {
        match self {
            Self::Set { network, ip, mac, physical_ip } => {
                let entry = Mapping { network, ip, mac, physical_ip };
                let _: Counted = connect()?.call(&Request::DirectorySet { entries: vec![entry] })?;
                out.value(&entry, |_| format!("{ip} in network {network} is {mac} on {physical_ip}"))
            }
            Self::Remove(Key { network, ip }) => {
                let removed: Counted = connect()?.call(&Request::DirectoryRemove { network, ip })?;
                out.value(&removed, |_| format!("{ip} in network {network} is gone"))
            }
            Self::Lookup(Key { network, ip }) => {
                let entry: Mapping = connect()?.call(&Request::DirectoryLookup { network, ip })?;
                out.value(&entry, |Mapping { mac, physical_ip, .. }| {
                    format!("{ip} in network {network} is {mac} on {physical_ip}")
                })
            }
            Self::List { network } => list(&mut connect()?, network, out),
            Self::Import { file } => {
                let entries = parse(&read(&file)?, &file)?;
                let imported = import(&mut connect()?, &entries)?;
                out.value(&imported, |Counted { entries }| format!("{entries} entries are in the directory"))
            }
        }
    }
}

/// Prints page by page: a directory may be larger than what should wait in memory.
fn list(client: &mut Client, network: Option<Vni>, out: &mut Out) -> Result<(), Failure> {
    let json = out.format() == Format::Json;
    out.bytes(if json { b"{\"entries\": [" } else { TABLE_HEAD.as_bytes() })?;
    let (mut after, mut first) = (None, true);
    loop {
        let request = Request::DirectoryList { network, after, limit: LARGEST_PAGE };
        let Entries { entries, more } = client.call(&request)?;
        for entry in &entries {
            if json {
                out.bytes(if first { b"\n" } else { b",\n" })?;
                out.compact(entry)?;
            } else {
                let Mapping { network, ip, mac, physical_ip } = entry;
                let (network, ip, mac) = (network.to_string(), ip.to_string(), mac.to_string());
                out.line(&format!("{network:>8}  {ip:<39}  {mac:<17}  {physical_ip}"))?;
            }
            first = false;
        }
        after = entries.last().map(|last| (last.network, last.ip));
        if !more || after.is_none() {
            break;
        }
    }
    if json { out.line("\n]}") } else { Ok(()) }
}

const TABLE_HEAD: &str =
    " NETWORK  IP                                       MAC                PHYSICAL IP\n";

/// All entries of a file.
///
/// # Errors
/// The first line that is none.
fn parse(text: &str, file: &Path) -> Result<Vec<Mapping>, Failure> {
    let mut entries = Vec::new();
    for (number, line) in (1_usize..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let refuse = |what: String| {
            let place = format!("{}, line {number}", file.display());
            Failure::usage(what, place, "correct the line; nothing was imported")
        };
        let entry: Mapping = serde_json::from_str(line).map_err(|error| {
            let what = error.to_string();
            let what =
                what.rsplit_once(" at line 1 ").map_or(what.clone(), |(what, at)| format!("{what} at {at}"));
            refuse(what)
        })?;
        check(&entry).map_err(|error| refuse(error.to_string()))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn check(entry: &Mapping) -> Result<(), TypeError> {
    entry.ip.require_unicast()?;
    entry.physical_ip.require_unicast()?;
    entry.mac.require_unicast().map(drop)
}

fn import(client: &mut Client, entries: &[Mapping]) -> Result<Counted, Failure> {
    let mut progress = Progress::new(entries.len());
    for batch in entries.chunks(BATCH) {
        let staged: Counted = client.call(&Request::DirectoryStage { entries: batch.to_vec() })?;
        progress.tell(staged.entries);
    }
    let committed = client.call(&Request::DirectoryCommit {});
    progress.end();
    Ok(committed?)
}

/// How far an import is, for somebody who watches.
struct Progress {
    of: usize,
    shown: bool,
}

impl Progress {
    fn new(of: usize) -> Self {
        Self { of, shown: of > BATCH && io::stderr().is_terminal() }
    }

    fn tell(&mut self, sent: usize) {
        if self.shown {
            // Progress is a courtesy: a terminal that goes away must not stop the import.
            let _ = write!(io::stderr(), "\rsent {sent} of {} entries", self.of);
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = writeln!(io::stderr());
        }
    }
}
