//! `shunt vswitch port …`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use dataplane::ctl::protocol::{
    BounceOrder, Changed, ConnectionCount, Link, Moved, PortDetail, PortSummary, Ports, Wait,
};
use dataplane::ctl::{Client, ClientError, Request};
use dataplane::desired::{DomainName, Label, PortConfig, PortKind, PortName};
use dataplane::types::{CustomerIp, MacAddr, Vni};

use super::failure::Failure;
use super::output::{Out, list, milliseconds, nanoseconds, or_dash, table};
use super::rule;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add a port and make its TAP device
    #[command(
        after_help = "Example: shunt vswitch port add web-1 --network 100 --mac 02:00:00:00:00:01 --ip 10.0.0.5 --netns guest1"
    )]
    Add(Add),
    /// Move a port to another network, or to other addresses, in one atomic step
    ///
    /// When the command returns, every worker is past the change: none of the port's packets appears in the old network
    /// any more. The link goes down and up so that the guest asks for its new address by itself.
    #[command(
        after_help = "Example: shunt vswitch port move web-1 --network 200 --ip 10.0.0.5 --wait traffic"
    )]
    Move(Move),
    /// Remove a port and its device
    #[command(visible_alias = "del")]
    Remove {
        /// The port
        name: PortName,
    },
    /// List the ports
    List,
    /// Show a port: its binding, its last change, its counters
    Show {
        /// The port
        name: PortName,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The port's name, which is also its interface's: at most 15 characters
    name: PortName,
    /// The virtual network it is in
    #[arg(long, value_name = "VNI")]
    network: Vni,
    /// The guest's MAC address, the only one it may send from
    #[arg(long, value_name = "MAC")]
    mac: MacAddr,
    /// The guest's addresses, the only ones it may send from; repeat, or join by commas, for more. DHCP hands out the first of each family
    #[arg(long = "ip", required = true, value_name = "IP", value_delimiter = ',')]
    ips: Vec<CustomerIp>,
    /// What the port is made of
    #[arg(long, value_enum, default_value_t = Kind::Tap)]
    kind: Kind,
    /// The network namespace that its interface stands in: a name as `ip netns` knows it, or a path [default: the
    /// switch's own]
    #[arg(long, value_name = "NETNS")]
    netns: Option<String>,
    /// Queues of the device, each read by one worker: 1 to 16
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    queues: u16,
    /// The machine name that DHCP hands out
    #[arg(long, value_name = "NAME")]
    hostname: Option<DomainName>,
    /// What the metadata service is told of the port besides its name: up to 64 printable characters without space
    #[arg(long, value_name = "LABEL")]
    label: Option<Label>,
}

/// What a port is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A TAP device that the switch makes
    Tap,
    /// An interface that is there already, such as the TAP of a hypervisor, in a namespace without addresses; its link
    /// is its maker's to raise and drop
    Netdev,
}

#[derive(Debug, clap::Args)]
pub(super) struct Move {
    /// The port
    name: PortName,
    /// The virtual network to move to; the one it is in, to change addresses only
    #[arg(long, value_name = "VNI")]
    network: Vni,
    /// The guest's addresses there; repeat, or join by commas, for more
    #[arg(long = "ip", required = true, value_name = "IP", value_delimiter = ',')]
    ips: Vec<CustomerIp>,
    /// A file with the port's rules there, which replace those that it has, in the same step: a JSON array of rules as `export`
    /// shows them, or what `rule list --port NAME --output json` prints; those without an id are numbered behind the others; `-` for
    /// standard input [default: the rules stay]
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// What the metadata service is told of the port from then on, in the same step [default: as before]
    #[arg(long, value_name = "LABEL")]
    label: Option<Label>,
    /// Leave the link up: the guest follows when it renews its lease
    #[arg(long, conflicts_with = "hold_ms")]
    no_bounce: bool,
    /// Hold the link down for so many milliseconds [default: 100, or 1200 if it has changed within the last second]
    #[arg(long, value_name = "MS")]
    hold_ms: Option<u64>,
    /// Return only when the guest was sent its new lease, or has sent its first packet from the new address
    #[arg(long, value_name = "EVENT")]
    wait: Option<Event>,
    /// How long to wait for that, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    timeout_seconds: u64,
}

/// What `--wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Event {
    /// The guest was sent its new lease
    Lease,
    /// The guest has sent a packet from its new address
    Traffic,
}

impl Verb {
    pub(super) fn run(
        self,
        connect: impl FnOnce() -> Result<Client, ClientError>,
        out: &mut Out,
    ) -> Result<(), Failure> {
        match self {
            Self::Add(add) => {
                let changed: Changed = connect()?.call(&Request::PortAdd { port: add.port() })?;
                out.value(&changed, |changed| {
                    format!(
                        "port {} is there since generation {}",
                        or_dash(changed.port.as_ref()),
                        changed.generation
                    )
                })
            }
            Self::Move(order) => {
                let network = order.network;
                let request = order.request()?;
                let moved: Moved = connect()?.call(&request)?;
                out.value(&moved, |moved| tell_move(moved, network))
            }
            Self::Remove { name } => {
                let changed: Changed = connect()?.call(&Request::PortRemove { port: name.clone() })?;
                out.value(&changed, |changed| {
                    format!("port {name} is gone since generation {}", changed.generation)
                })
            }
            Self::List => {
                let ports: Ports = connect()?.call(&Request::PortList {})?;
                out.value(&ports, |ports| show_all(&ports.ports))
            }
            Self::Show { name } => {
                let port: PortDetail = connect()?.call(&Request::PortShow { port: name })?;
                out.value(&port, show_one)
            }
        }
    }
}

impl Add {
    fn port(self) -> PortConfig {
        let Self { name, network, mac, ips, kind, netns, queues, hostname, label } = self;
        let kind = match kind {
            Kind::Tap => PortKind::Tap,
            Kind::Netdev => PortKind::Netdev,
        };
        PortConfig { name, network, mac, ips, kind, netns, queues, hostname, label, rules: Vec::new() }
    }
}

impl Move {
    fn request(self) -> Result<Request, Failure> {
        let Self { name: port, network, ips, rules, label, no_bounce, hold_ms, wait, timeout_seconds } = self;
        let bounce = match (no_bounce, hold_ms) {
            (true, _) => BounceOrder::No,
            (false, Some(hold)) => BounceOrder::HoldMs(hold),
            (false, None) => BounceOrder::Adaptive,
        };
        let wait = wait.map(|event| match event {
            Event::Lease => Wait::Lease,
            Event::Traffic => Wait::Traffic,
        });
        let timeout_ms = timeout_seconds.saturating_mul(1000);
        let rules = rules.as_ref().map(rule::read_list).transpose()?;
        Ok(Request::PortMove { port, network, ips, rules, label, bounce, wait, timeout_ms })
    }
}

fn tell_move(moved: &Moved, network: Vni) -> String {
    let Moved { port, generation, swap_ns, settled_ns, followed } = moved;
    let mut text = format!(
        "port {port} is in network {network} since generation {generation}: swapped in {}, settled in {}",
        nanoseconds(*swap_ns),
        nanoseconds(*settled_ns)
    );
    if let Some(followed) = followed {
        let lease = milliseconds(followed.lease_ms);
        let first_packet = milliseconds(followed.first_packet_ms);
        text.push_str(&format!("; new lease after {lease}, first packet after {first_packet}"));
    }
    text
}

const fn link(link: Link) -> &'static str {
    match link {
        Link::Up => "up",
        Link::Down => "down",
        Link::Missing => "missing",
    }
}

fn show_all(ports: &[PortSummary]) -> String {
    let head = ["NAME", "NETWORK", "MAC", "ADDRESSES", "LINK", "NETNS", "GENERATION"];
    let rows = ports.iter().map(|port| {
        let config = &port.config;
        vec![
            config.name.to_string(),
            config.network.to_string(),
            config.mac.to_string(),
            list(&config.ips),
            link(port.link).into(),
            or_dash(config.netns.as_ref()),
            port.generation.to_string(),
        ]
    });
    table(&head, &[1, 6], rows)
}

fn show_one(port: &PortDetail) -> String {
    let config = &port.summary.config;
    let traffic = &port.counters;
    let mut rows = vec![
        ("name", config.name.to_string()),
        ("network", config.network.to_string()),
        ("mac", config.mac.to_string()),
        ("addresses", list(&config.ips)),
        ("device", {
            let (kind, netns) = (config.kind, or_dash(config.netns.as_ref()));
            format!("{kind}, {} queue(s), netns {netns}", config.queues)
        }),
        ("hostname", or_dash(config.hostname.as_ref())),
        ("label", or_dash(config.label.as_ref())),
        ("link", link(port.summary.link).into()),
        ("generation", port.summary.generation.to_string()),
        ("rules", config.rules.len().to_string()),
    ];
    if let Some(change) = &port.last_change {
        rows.push(("last change", format!("generation {} at {}", change.generation, change.at)));
        rows.push(("  swapped in", nanoseconds(change.swap_ns)));
        rows.push(("  settled in", nanoseconds(change.settled_ns)));
        rows.push(("  new lease after", milliseconds(change.followed.lease_ms)));
        rows.push(("  first packet after", milliseconds(change.followed.first_packet_ms)));
    }
    if let Some(ConnectionCount { established, half_open, over }) = port.connections {
        rows.push(("connections", format!("{established} established, {half_open} half open, {over} over")));
    }
    rows.push((
        "received",
        format!("{} packets, {} bytes", traffic.received_packets, traffic.received_bytes),
    ));
    rows.push(("sent", format!("{} packets, {} bytes", traffic.sent_packets, traffic.sent_bytes)));
    rows.push(("dropped", format!("{} packets", traffic.dropped_packets)));
    let counted = |counts: &std::collections::BTreeMap<String, u64>| {
        list(counts.iter().map(|(name, packets)| format!("{name} {packets}")))
    };
    if !port.drops.is_empty() {
        rows.push(("  by reason", counted(&port.drops)));
    }
    if !traffic.traps.is_empty() {
        rows.push(("answered", counted(&traffic.traps)));
    }
    rows.iter().map(|(name, value)| format!("{name:<20} {value}\n")).collect()
}
