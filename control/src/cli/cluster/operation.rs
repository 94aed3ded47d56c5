//! `shunt operation …`.

use clap::Subcommand;

use super::client::{Client, path};
use super::timeline::{self, state};
use crate::api::OperationView;
use crate::cli::failure::Failure;
use crate::cli::output::{Out, or_dash, table};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// List operations
    List {
        /// Only those about this machine
        #[arg(long, value_name = "VM")]
        vm: Option<String>,
        /// Only those that have not ended
        #[arg(long)]
        open: bool,
    },
    /// Show an operation, and its steps in time
    Show {
        /// Its id
        operation: String,
    },
    /// Wait for an operation's end, showing each step; exit code 1 if it does not succeed
    #[command(visible_alias = "watch")]
    Wait {
        /// Its id
        operation: String,
    },
}

impl Verb {
    pub(super) fn run(self, client: &Client, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::List { vm, open } => {
                let mut query = Vec::new();
                if open {
                    query.push("open=true".to_owned());
                }
                if let Some(vm) = vm {
                    // Escaped as a part of a path is, which suits a query too.
                    query.push(format!("vm={}", path(&[&vm]).trim_start_matches("/v1/")));
                }
                let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
                let page = client.list::<OperationView>(&format!("{}{query}", path(&["operations"])))?;
                out.value(&page, |page| {
                    let rows = page.items.iter().map(|operation| {
                        vec![
                            operation.id.clone(),
                            operation.kind.to_string(),
                            state(operation.state).into(),
                            or_dash(operation.vm.as_ref()),
                            or_dash(operation.ms.map(|ms| format!("{ms:.1} ms"))),
                            operation.created_at.clone(),
                        ]
                    });
                    table(&["ID", "KIND", "STATE", "VM", "TOOK", "ASKED FOR"], &[4], rows)
                })
            }
            Self::Show { operation } => timeline::show(&client.get(&path(&["operations", &operation]))?, out),
            Self::Wait { operation } => {
                let begun: OperationView = client.get(&path(&["operations", &operation]))?;
                let ended = timeline::live(client, &begun, out.format())?;
                timeline::show(&ended, out)?;
                timeline::verdict(&ended)
            }
        }
    }
}
