//! `shunt host list|show|cordon|uncordon|token`: hosts, as the cluster sees them; and the way to `run` and `join`.

use clap::Subcommand;

use super::client::{Client, path};
use crate::api::{ChangeHost, HostView, JoinTokenView, NewJoinToken};
use crate::cli::failure::Failure;
use crate::cli::host::{Join, Run};
use crate::cli::output::{Out, list, table};
use crate::model::{HostState, Name};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    Run(Run),
    Join(Join),
    /// Make a token that lets one host join, within an hour; it is shown now and never again
    Token {
        /// The only name that the host can join under [default: any that is free]
        #[arg(long)]
        name: Option<Name>,
    },
    /// List the cluster's hosts
    List,
    /// Show a host
    Show {
        /// Its name or id
        host: String,
    },
    /// Let a host take no new machines
    Cordon {
        /// Its name or id
        host: String,
    },
    /// Let a host take new machines again
    Uncordon {
        /// Its name or id
        host: String,
    },
}

impl Verb {
    pub(super) fn run(self, client: &Client, out: &mut Out) -> Result<(), Failure> {
        let change = |host: &str, state| client.patch(&path(&["hosts", host]), &ChangeHost { state });
        match self {
            // The host's own affair: they were run before there was a client.
            Self::Run(_) | Self::Join(_) => Ok(()),
            Self::Token { name } => {
                let token: JoinTokenView =
                    client.post(&path(&["hosts", "tokens"]), &NewJoinToken { name })?;
                out.value(&token, |token| token.token.clone())
            }
            Self::List => {
                let page = client.list::<HostView>(&path(&["hosts"]))?;
                out.value(&page, |page| show(&page.items))
            }
            Self::Show { host } => one(&client.get(&path(&["hosts", &host]))?, out),
            Self::Cordon { host } => one(&change(&host, HostState::Cordoned)?, out),
            Self::Uncordon { host } => one(&change(&host, HostState::Ready)?, out),
        }
    }
}

fn one(host: &HostView, out: &mut Out) -> Result<(), Failure> {
    out.value(host, |host| show(std::slice::from_ref(host)))
}

fn show(hosts: &[HostView]) -> String {
    let rows = hosts.iter().map(|host| {
        let state = match host.state {
            HostState::Ready => "ready",
            HostState::Cordoned => "cordoned",
        };
        vec![
            host.name.clone(),
            state.into(),
            if host.connected { "yes" } else { "no" }.into(),
            host.physical_ip.clone(),
            host.cpus.to_string(),
            format!("{} MiB", host.memory_mib),
            host.vms.to_string(),
            list(&host.hypervisors),
            host.id.clone(),
        ]
    });
    table(
        &["NAME", "STATE", "CONNECTED", "PHYSICAL IP", "CPUS", "MEMORY", "VMS", "HYPERVISORS", "ID"],
        &[4, 5, 6],
        rows,
    )
}
