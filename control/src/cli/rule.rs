//! `shunt vswitch rule …`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use dataplane::ctl::protocol::{Changed, RuleDetail, Rules};
use dataplane::ctl::{Client, Request};
use dataplane::desired::{
    Action, DEFAULT_PRIORITY, Direction, PortName, PortRange, RuleConfig, RuleId, RuleProtocol,
};
use ipnet::IpNet;

use super::failure::Failure;
use super::output::{Out, or_dash, table};
use super::{document, values};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add a rule to a port
    ///
    /// The first rule that matches decides, from the lowest priority number to the highest; what no rule matches may pass.
    /// Rules are stateful: they are asked about the packet that begins a connection, and its answers pass. A connection
    /// that changed rules would not let begin any more ends with its next packet.
    #[command(after_help = "Examples:
  shunt vswitch rule add --port web-1 --direction in --action allow --protocol tcp --ports 443
  shunt vswitch rule add --port web-1 --direction in --action allow --protocol icmp --icmp-type 8 --remote 10.0.0.0/24
  shunt vswitch rule add --port web-1 --direction in --action deny --priority 65535      all the rest")]
    Add(Add),
    /// Remove a rule of a port
    Remove {
        /// The port
        #[arg(long, value_name = "NAME")]
        port: PortName,
        /// The rule's number, as `rule list` shows it
        id: u32,
    },
    /// List rules in the order in which they are judged, and how often each has decided
    List {
        /// Only this port's
        #[arg(long, value_name = "NAME")]
        port: Option<PortName>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The port
    #[arg(long, value_name = "NAME")]
    port: PortName,
    /// Which packets it is about, seen from the guest
    #[arg(long, value_enum)]
    direction: Way,
    /// What becomes of them
    #[arg(long, value_enum)]
    action: Verdict,
    /// any, tcp, udp, icmp, icmpv6, or a number
    #[arg(long, value_name = "PROTOCOL", default_value = "any")]
    protocol: RuleProtocol,
    /// Where the other end is: the source of what comes in, the destination of what goes out [default: anywhere]
    #[arg(long, value_name = "PREFIX", value_parser = values::prefix)]
    remote: Option<IpNet>,
    /// Destination ports of tcp or udp: one, or a range such as 8000-8080 [default: all]
    #[arg(long, value_name = "PORTS")]
    ports: Option<PortRange>,
    /// Type of icmp or icmpv6 [default: all]
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<u8>,
    /// The lowest is judged first: 0 to 65535
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_PRIORITY)]
    priority: u16,
    /// The rule's number [default: the port's next]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    id: Option<u32>,
}

/// Seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// To the guest
    In,
    /// From the guest
    Out,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verdict {
    /// Let it pass, and all that belongs to its connection
    Allow,
    /// Drop it
    Deny,
}

impl Verb {
    pub(super) fn run(self, client: &mut Client, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::Add(add) => {
                let port = add.port.clone();
                let changed: Changed = client.call(&add.request())?;
                out.value(&changed, |changed| {
                    let rule = or_dash(changed.rule);
                    format!("port {port} has rule {rule} since generation {}", changed.generation)
                })
            }
            Self::Remove { port, id } => {
                let request = Request::RuleRemove { port: port.clone(), rule: RuleId(id) };
                let changed: Changed = client.call(&request)?;
                out.value(&changed, |changed| {
                    format!("port {port} has no rule {id} since generation {}", changed.generation)
                })
            }
            Self::List { port } => {
                let rules: Rules = client.call(&Request::RuleList { port })?;
                out.value(&rules, |rules| show(&rules.rules))
            }
        }
    }
}

impl Add {
    fn request(self) -> Request {
        let Self { port, direction, action, protocol, remote, ports, icmp_type, priority, id } = self;
        let rule = RuleConfig {
            id: RuleId(id.unwrap_or_default()),
            direction: match direction {
                Way::In => Direction::In,
                Way::Out => Direction::Out,
            },
            action: match action {
                Verdict::Allow => Action::Allow,
                Verdict::Deny => Action::Deny,
            },
            protocol,
            remote,
            ports,
            icmp_type,
            priority,
        };
        Request::RuleAdd { port, rule }
    }
}

/// The rules in a file: a JSON array.
pub(super) fn read_list(file: &PathBuf) -> Result<Vec<RuleConfig>, Failure> {
    let text = document::read(file)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(
            format!("not a list of rules: {error}"),
            file.display().to_string(),
            "write a JSON array of rules as `shunt vswitch export` shows them",
        )
    })
}

fn show(rules: &[RuleDetail]) -> String {
    let head = ["PORT", "ID", "DIRECTION", "PRIORITY", "ACTION", "PROTOCOL", "REMOTE", "PORTS/TYPE", "HITS"];
    let rows = rules.iter().map(|rule| {
        let config = &rule.config;
        let selector = config.ports.map(|ports| ports.to_string());
        vec![
            rule.port.to_string(),
            config.id.to_string(),
            config.direction.to_string(),
            config.priority.to_string(),
            config.action.to_string(),
            config.protocol.to_string(),
            config.remote.map_or_else(|| "anywhere".into(), |remote| remote.to_string()),
            selector
                .or_else(|| config.icmp_type.map(|kind| kind.to_string()))
                .unwrap_or_else(|| "all".into()),
            rule.hits.to_string(),
        ]
    });
    table(&head, &[1, 3, 8], rows)
}
