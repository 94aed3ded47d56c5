//! `shunt vswitch directory …`: entries by hand, and by the million.

use std::path::PathBuf;

use clap::Subcommand;
use dataplane::ctl::protocol::{Counted, Entries, LARGEST_PAGE};
use dataplane::ctl::{Client, ClientError, Request};
use dataplane::switch::Mapping;
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, Vni};

use super::document::read;
use super::failure::Failure;
use super::import;
use super::output::Out;
use crate::format::Format;

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
    #[command(visible_alias = "del")]
    Remove(Key),
    /// Look an entry up in the directory
    ///
    /// The packet path asks this host's own ports first: they need no entry.
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
    ///
    /// The whole file is read before anything is sent: a wrong line is named, and nothing was imported. The switch keeps what it is
    /// sent in memory, and takes it in one durable transaction at the end. So if this command, or the switch, is killed midway,
    /// the directory is as it was; if it happens during the last step, it is as it was or has all of the entries, also
    /// after a restart. Importing the same file again is harmless.
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
                let parts = import::parse(&read(&file)?, &file)?;
                let imported = import::send(&mut connect()?, parts)?;
                out.value(&imported, |Counted { entries }| match entries {
                    1 => "1 entry imported".to_owned(),
                    more => format!("{more} entries imported"),
                })
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
