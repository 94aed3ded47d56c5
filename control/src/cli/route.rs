//! `shunt vswitch route …`.

use clap::Subcommand;
use dataplane::ctl::protocol::{Changed, Routes};
use dataplane::ctl::{Client, Request};
use dataplane::desired::{NextHop, RouteConfig};
use dataplane::types::Vni;
use ipnet::IpNet;

use super::failure::Failure;
use super::output::{Out, table};
use super::values;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add a route to a network
    #[command(after_help = "Examples:
  shunt vswitch route add --network 100 10.9.0.0/16 --via 10.0.0.9       through a guest that routes on
  shunt vswitch route add --network 100 10.1.0.0/16 --via network:200    into a peer network
  shunt vswitch route add --network 100 192.0.2.0/24 --via drop          nowhere")]
    Add {
        /// The network
        #[arg(long, value_name = "VNI")]
        network: Vni,
        /// Where to
        #[arg(value_parser = values::destination)]
        prefix: IpNet,
        /// How: an address inside of the network, `gateway`, `drop` or `network:VNI`
        #[arg(long, value_name = "NEXT-HOP", value_parser = values::next_hop)]
        via: NextHop,
    },
    /// Remove a route of a network
    #[command(visible_alias = "del")]
    Remove {
        /// The network
        #[arg(long, value_name = "VNI")]
        network: Vni,
        /// The route's prefix
        #[arg(value_parser = values::destination)]
        prefix: IpNet,
    },
    /// List the routes beyond the networks' own prefixes
    List {
        /// Only this network's
        #[arg(long, value_name = "VNI")]
        network: Option<Vni>,
    },
}

impl Verb {
    pub(super) fn run(self, client: &mut Client, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::Add { network, prefix, via } => {
                let route = RouteConfig { prefix, via };
                let changed: Changed = client.call(&Request::RouteAdd { network, route })?;
                out.value(&changed, |changed| {
                    format!(
                        "network {network} routes {prefix} via {via} since generation {}",
                        changed.generation
                    )
                })
            }
            Self::Remove { network, prefix } => {
                let changed: Changed = client.call(&Request::RouteRemove { network, prefix })?;
                out.value(&changed, |changed| {
                    format!(
                        "network {network} has no route to {prefix} since generation {}",
                        changed.generation
                    )
                })
            }
            Self::List { network } => {
                let routes: Routes = client.call(&Request::RouteList { network })?;
                out.value(&routes, |routes| {
                    let rows = routes.routes.iter().map(|route| {
                        vec![route.network.to_string(), route.prefix.to_string(), route.via.to_string()]
                    });
                    table(&["NETWORK", "PREFIX", "VIA"], &[0], rows)
                })
            }
        }
    }
}
