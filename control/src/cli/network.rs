//! `shunt vswitch network …`.

use std::net::IpAddr;

use clap::Subcommand;
use dataplane::ctl::protocol::{Changed, Networks};
use dataplane::ctl::{Client, ClientError, Request};
use dataplane::desired::{DEFAULT_LEASE_SECONDS, DomainName, NetworkConfig, Subnet};
use dataplane::types::{CustomerIp, Mtu, Vni};
use ipnet::IpNet;

use super::failure::Failure;
use super::output::{Out, list, nanoseconds, or_dash, table};
use super::values;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add a virtual network
    #[command(
        after_help = "Example: shunt vswitch network add 100 --prefix 10.0.0.0/24 --dns 10.0.0.53 --domain red.example"
    )]
    Add(Add),
    /// Remove a virtual network that no port is in
    #[command(visible_alias = "del")]
    Remove {
        /// Its identifier
        #[arg(value_name = "VNI")]
        network: Vni,
    },
    /// List the virtual networks
    List,
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The network's identifier on the wire, 1 to 16777215
    #[arg(value_name = "VNI")]
    network: Vni,
    /// A prefix of guests' addresses, IPv4 or IPv6; repeat for more
    #[arg(long = "prefix", required = true, value_name = "PREFIX", value_parser = values::prefix)]
    prefixes: Vec<IpNet>,
    /// The virtual router's address in one of the prefixes; repeat for more [default: each prefix's first host address]
    #[arg(long = "gateway", value_name = "IP")]
    gateways: Vec<CustomerIp>,
    /// A name server that guests are told; repeat for more
    #[arg(long = "dns", value_name = "IP")]
    dns: Vec<IpAddr>,
    /// The DNS domain that guests are told
    #[arg(long, value_name = "NAME")]
    domain: Option<DomainName>,
    /// The guests' MTU in bytes [default: what fits the underlay, at most 1500]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<Mtu>,
    /// How long a DHCP lease lasts, in seconds, at least 5
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_LEASE_SECONDS)]
    lease_seconds: u32,
}

impl Verb {
    pub(super) fn run(
        self,
        connect: impl FnOnce() -> Result<Client, ClientError>,
        out: &mut Out,
    ) -> Result<(), Failure> {
        match self {
            Self::Add(add) => {
                let network = add.network()?;
                let vni = network.vni;
                let changed: Changed = connect()?.call(&Request::NetworkAdd { network })?;
                out.value(&changed, |changed| {
                    format!("network {vni} is there since generation {}", changed.generation)
                })
            }
            Self::Remove { network } => {
                let changed: Changed = connect()?.call(&Request::NetworkRemove { network })?;
                out.value(&changed, |Changed { generation, settled_ns, .. }| {
                    format!(
                        "network {network} is gone since generation {generation}, settled in {}",
                        nanoseconds(*settled_ns)
                    )
                })
            }
            Self::List => {
                let networks: Networks = connect()?.call(&Request::NetworkList {})?;
                out.value(&networks, show)
            }
        }
    }
}

fn show(networks: &Networks) -> String {
    let head = ["VNI", "PREFIXES", "GATEWAYS", "MTU", "LEASE", "DNS", "DOMAIN", "ROUTES", "PORTS"];
    let rows = networks.networks.iter().map(|network| {
        let config = &network.config;
        vec![
            config.vni.to_string(),
            list(config.subnets.iter().map(|subnet| subnet.prefix)),
            list(config.subnets.iter().map(|subnet| subnet.gateway)),
            network.guest_mtu.to_string(),
            format!("{} s", config.lease_seconds),
            or_dash(Some(list(&config.dns)).filter(|dns| !dns.is_empty())),
            or_dash(config.domain.as_ref()),
            config.routes.len().to_string(),
            network.ports.to_string(),
        ]
    });
    table(&head, &[0, 3, 4, 7, 8], rows)
}

impl Add {
    fn network(self) -> Result<NetworkConfig, Failure> {
        let Self { network: vni, prefixes, gateways, dns, domain, mtu, lease_seconds } = self;
        let mut subnets: Vec<Subnet> = prefixes.iter().copied().map(Subnet::with_first_gateway).collect();
        let mut chosen: Vec<IpNet> = Vec::new();
        for gateway in gateways {
            let Some(subnet) = subnets.iter_mut().find(|subnet| subnet.contains(gateway)) else {
                let what = format!("gateway {gateway} is in none of the prefixes {}", list(&prefixes));
                return Err(Failure::usage(what, "--gateway", "choose a host address inside of a --prefix"));
            };
            if chosen.contains(&subnet.prefix) {
                let what = format!("prefix {} has two gateways", subnet.prefix);
                return Err(Failure::usage(what, "--gateway", "name one for each --prefix"));
            }
            chosen.push(subnet.prefix);
            subnet.gateway = gateway;
        }
        Ok(NetworkConfig { vni, subnets, dns, domain, mtu, lease_seconds, routes: Vec::new() })
    }
}
