//! `shunt disk …`.

use clap::Subcommand;

use super::client::{Client, path};
use crate::api::{AttachDisk, DiskView, NewDisk};
use crate::cli::failure::Failure;
use crate::cli::output::{Out, or_dash, table};
use crate::model::{DiskKind, Name};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// List disks
    List,
    /// Show a disk
    Show {
        /// Its name or id
        disk: String,
    },
    /// Make a disk
    Create {
        /// Its name
        name: Name,
        /// Its size
        #[arg(long, value_name = "GIB")]
        size_gib: u32,
    },
    /// Attach a disk to a machine
    Attach {
        /// Its name or id
        disk: String,
        /// The machine
        #[arg(long, value_name = "VM")]
        vm: String,
    },
    /// Detach a disk from its machine
    Detach {
        /// Its name or id
        disk: String,
    },
    /// Remove a disk that is not attached
    Delete {
        /// Its name or id
        disk: String,
    },
}

impl Verb {
    pub(super) fn run(self, client: &Client, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::List => {
                let page = client.list::<DiskView>(&path(&["disks"]))?;
                out.value(&page, |page| show(&page.items))
            }
            Self::Show { disk } => one(&client.get(&path(&["disks", &disk]))?, out),
            Self::Create { name, size_gib } => {
                one(&client.post(&path(&["disks"]), &NewDisk { name, size_gib })?, out)
            }
            Self::Attach { disk, vm } => {
                one(&client.post(&path(&["disks", &disk, "attach"]), &AttachDisk { vm })?, out)
            }
            Self::Detach { disk } => one(&client.post(&path(&["disks", &disk, "detach"]), &())?, out),
            Self::Delete { disk } => {
                client.remove(&path(&["disks", &disk]))?;
                super::gone("disk", &disk, out)
            }
        }
    }
}

fn one(disk: &DiskView, out: &mut Out) -> Result<(), Failure> {
    out.value(disk, |disk| show(std::slice::from_ref(disk)))
}

fn show(disks: &[DiskView]) -> String {
    let rows = disks.iter().map(|disk| {
        let kind = match disk.kind {
            DiskKind::Os => "os",
            DiskKind::Data => "data",
        };
        vec![
            disk.name.clone(),
            kind.into(),
            format!("{} GiB", disk.size_gib),
            or_dash(disk.vm.as_ref()),
            disk.id.clone(),
        ]
    });
    table(&["NAME", "KIND", "SIZE", "VM", "ID"], &[2], rows)
}
