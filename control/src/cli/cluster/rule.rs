//! `shunt rule …`: rules of a cluster's machines.

use clap::{Subcommand, ValueEnum};
use dataplane::desired::{Action, DEFAULT_PRIORITY, Direction, PortRange, RuleProtocol};
use ipnet::IpNet;

use super::client::{Client, path};
use crate::api::{NewRule, Page, RuleView};
use crate::cli::failure::Failure;
use crate::cli::output::{Out, or_dash, table};
use crate::cli::values;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// List a machine's rules in the order in which they are judged
    List {
        /// The machine
        #[arg(long, value_name = "VM")]
        vm: String,
    },
    /// Add a rule to a machine
    #[command(
        after_help = "Example: shunt rule add --vm web-1 --direction in --action allow --protocol tcp --ports 443"
    )]
    Add(Add),
    /// Remove a rule of a machine
    #[command(visible_alias = "del")]
    Remove {
        /// The machine
        #[arg(long, value_name = "VM")]
        vm: String,
        /// The rule's number, as `rule list` shows it
        number: u32,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Add {
    /// The machine
    #[arg(long, value_name = "VM")]
    vm: String,
    /// Which packets, seen from the guest
    #[arg(long, value_enum)]
    direction: Way,
    /// What becomes of them
    #[arg(long, value_enum)]
    action: Verdict,
    /// any, tcp, udp, icmp, icmpv6, or a number
    #[arg(long, value_name = "PROTOCOL", default_value = "any")]
    protocol: RuleProtocol,
    /// Where the other end is: a prefix, or one address [default: anywhere]
    #[arg(long, value_name = "PREFIX", value_parser = values::destination, conflicts_with = "remote_vm")]
    remote: Option<IpNet>,
    /// The machine that is the other end: the rule follows its addresses
    #[arg(long, value_name = "VM")]
    remote_vm: Option<String>,
    /// Destination ports, with --protocol tcp or udp [default: all]
    #[arg(long, value_name = "PORTS")]
    ports: Option<PortRange>,
    /// Type, with --protocol icmp or icmpv6 [default: all]
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<u8>,
    /// The lowest is judged first
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_PRIORITY)]
    priority: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// To the guest
    In,
    /// From the guest
    Out,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verdict {
    /// Let it pass, and all that belongs to its connection
    Allow,
    /// Drop it
    Deny,
}

impl Verb {
    pub(super) fn run(self, client: &Client, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::List { vm } => {
                let page: Page<RuleView> = client.get(&path(&["vms", &vm, "rules"]))?;
                out.value(&page, |page| show(&page.items))
            }
            Self::Add(add) => {
                let Add { vm, direction, action, protocol, remote, remote_vm, ports, icmp_type, priority } =
                    add;
                let direction = match direction {
                    Way::In => Direction::In,
                    Way::Out => Direction::Out,
                };
                let action = match action {
                    Verdict::Allow => Action::Allow,
                    Verdict::Deny => Action::Deny,
                };
                let new =
                    NewRule { direction, action, protocol, remote, remote_vm, ports, icmp_type, priority };
                let rule: RuleView = client.post(&path(&["vms", &vm, "rules"]), &new)?;
                out.value(&rule, |rule| show(std::slice::from_ref(rule)))
            }
            Self::Remove { vm, number } => {
                client.remove(&path(&["vms", &vm, "rules", &number.to_string()]))?;
                super::gone("rule", &number.to_string(), out)
            }
        }
    }
}

fn show(rules: &[RuleView]) -> String {
    let rows = rules.iter().map(|rule| {
        vec![
            rule.number.to_string(),
            rule.priority.to_string(),
            rule.direction.to_string(),
            rule.action.to_string(),
            rule.protocol.clone(),
            rule.remote.clone().or_else(|| rule.remote_vm.clone()).unwrap_or_else(|| "any".into()),
            or_dash(rule.ports.as_ref()),
            or_dash(rule.icmp_type),
        ]
    });
    table(
        &["NUMBER", "PRIORITY", "DIRECTION", "ACTION", "PROTOCOL", "REMOTE", "PORTS", "ICMP TYPE"],
        &[0, 1],
        rows,
    )
}
