//! `shunt network …`.

use std::net::IpAddr;

use clap::Subcommand;
use dataplane::desired::{DEFAULT_LEASE_SECONDS, DomainName};
use dataplane::types::Mtu;
use ipnet::IpNet;

use super::client::{Client, path};
use crate::api::{NetworkView, NewNetwork};
use crate::cli::failure::Failure;
use crate::cli::output::{Out, list, or_dash, table};
use crate::cli::values;
use crate::model::Name;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// List networks
    List,
    /// Show a network
    Show {
        /// Its name, id or moniker
        network: String,
    },
    /// Make a network
    #[command(after_help = "Example: shunt network create blue --prefix 10.0.0.0/24")]
    Create(Create),
    /// Remove a network that no machine is in
    Delete {
        /// Its name, id or moniker
        network: String,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Create {
    /// Its name
    name: Name,
    /// A prefix of machines' addresses, IPv4 or IPv6; repeat for more. Those of different networks may overlap
    #[arg(long = "prefix", required = true, value_name = "PREFIX", value_parser = values::prefix)]
    prefixes: Vec<IpNet>,
    /// A name server that machines are told; repeat for more
    #[arg(long = "dns", value_name = "IP")]
    dns: Vec<IpAddr>,
    /// The DNS domain that machines are told
    #[arg(long, value_name = "NAME")]
    domain: Option<DomainName>,
    /// The machines' MTU in bytes [default: what fits the hosts' network, at most 1500]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<Mtu>,
    /// How long a DHCP lease lasts, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_LEASE_SECONDS)]
    lease_seconds: u32,
}

impl Verb {
    pub(super) fn run(self, client: &Client, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::List => {
                let page = client.list::<NetworkView>(&path(&["networks"]))?;
                out.value(&page, |page| show(&page.items))
            }
            Self::Show { network } => one(&client.get(&path(&["networks", &network]))?, out),
            Self::Create(Create { name, prefixes, dns, domain, mtu, lease_seconds }) => {
                let new = NewNetwork { name, prefixes, dns, domain, mtu, lease_seconds };
                one(&client.post(&path(&["networks"]), &new)?, out)
            }
            Self::Delete { network } => {
                client.remove(&path(&["networks", &network]))?;
                super::gone("network", &network, out)
            }
        }
    }
}

fn one(network: &NetworkView, out: &mut Out) -> Result<(), Failure> {
    out.value(network, |network| show(std::slice::from_ref(network)))
}

fn show(networks: &[NetworkView]) -> String {
    let rows = networks.iter().map(|network| {
        vec![
            network.name.clone(),
            network.moniker.clone(),
            list(network.subnets.iter().map(|subnet| &subnet.prefix)),
            list(network.subnets.iter().map(|subnet| &subnet.gateway)),
            or_dash(network.mtu),
            or_dash(network.domain.as_ref()),
            network.id.clone(),
        ]
    });
    table(&["NAME", "MONIKER", "PREFIXES", "GATEWAYS", "MTU", "DOMAIN", "ID"], &[4], rows)
}
