//! `shunt vswitch rule …`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use dataplane::ctl::protocol::{Changed, RuleDetail, Rules};
use dataplane::ctl::{Client, ClientError, Request};
use dataplane::desired::{
    Action, DEFAULT_PRIORITY, Direction, PortName, PortRange, RuleConfig, RuleError, RuleId, RuleProtocol,
};
use ipnet::IpNet;
use serde_json::Value;

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
    #[command(visible_alias = "del")]
    Remove {
        /// The port
        #[arg(long, value_name = "NAME")]
        port: PortName,
        /// The rule's number, as `rule list` shows it
        #[arg(value_parser = values::rule_number, allow_negative_numbers = true)]
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
    /// Where the other end is: the source of what comes in, the destination of what goes out. A prefix, or one
    /// address [default: anywhere]
    #[arg(long, value_name = "PREFIX", value_parser = values::destination)]
    remote: Option<IpNet>,
    /// Destination ports, with --protocol tcp or udp: one, or a range such as 8000-8080 [default: all]
    #[arg(long, value_name = "PORTS")]
    ports: Option<PortRange>,
    /// Type, with --protocol icmp or icmpv6 [default: all]
    #[arg(long, value_name = "TYPE", value_parser = values::icmp_type, allow_negative_numbers = true)]
    icmp_type: Option<u8>,
    /// The lowest is judged first: 0 to 65535
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_PRIORITY, value_parser = values::priority, allow_negative_numbers = true)]
    priority: u16,
    /// The rule's number [default: the port's next]
    #[arg(long, value_name = "NUMBER", value_parser = values::rule_number, allow_negative_numbers = true)]
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
    pub(super) fn run(
        self,
        connect: impl FnOnce() -> Result<Client, ClientError>,
        out: &mut Out,
    ) -> Result<(), Failure> {
        match self {
            Self::Add(add) => {
                let port = add.port.clone();
                let request = add.request()?;
                let changed: Changed = connect()?.call(&request)?;
                out.value(&changed, |changed| {
                    let rule = or_dash(changed.rule);
                    format!("port {port} has rule {rule} since generation {}", changed.generation)
                })
            }
            Self::Remove { port, id } => {
                let request = Request::RuleRemove { port: port.clone(), rule: RuleId(id) };
                let changed: Changed = connect()?.call(&request)?;
                out.value(&changed, |changed| {
                    format!("port {port} has no rule {id} since generation {}", changed.generation)
                })
            }
            Self::List { port } => {
                let rules: Rules = connect()?.call(&Request::RuleList { port })?;
                out.value(&rules, |rules| show(&rules.rules))
            }
        }
    }
}

impl Add {
    fn request(self) -> Result<Request, Failure> {
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
        // What contradicts itself is the command line's fault. The switch chooses a number where none is given.
        let numbered = RuleConfig { id: RuleId(id.unwrap_or(1)), ..rule };
        match numbered.validate() {
            Ok(()) => Ok(Request::RuleAdd { port, rule }),
            Err(error) => Err(contradiction(&error)),
        }
    }
}

fn contradiction(error: &RuleError) -> Failure {
    let (place, remedy) = match error {
        RuleError::PortsWithout(_) => {
            ("--ports", "add `--protocol tcp` or `--protocol udp`, or leave --ports out".to_owned())
        }
        RuleError::IcmpTypeWithout(_) => (
            "--icmp-type",
            "add `--protocol icmp` or `--protocol icmpv6`, or leave --icmp-type out".to_owned(),
        ),
        other => ("--remote", other.remedy()),
    };
    Failure::usage(error.to_string(), place, remedy)
}

/// The rules in a file: a JSON array, or what `rule list` prints as JSON.
pub(super) fn read_list(file: &PathBuf) -> Result<Vec<RuleConfig>, Failure> {
    let text = document::read(file)?;
    rules_of(&text).map_err(|what| {
        Failure::usage(
            format!("not a list of rules: {what}"),
            file.display().to_string(),
            "write a JSON array of rules as `shunt vswitch export` shows them, or what `shunt vswitch rule list --port NAME --output json` prints",
        )
    })
}

/// # Errors
/// What is wrong with the text.
fn rules_of(text: &str) -> Result<Vec<RuleConfig>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let listed = match value {
        Value::Object(mut fields) if fields.len() == 1 => fields.remove("rules"),
        other => Some(other),
    };
    let Some(Value::Array(listed)) = listed else { return Err("expected an array".into()) };
    let mut rules = Vec::with_capacity(listed.len());
    let mut of = None;
    for (nth, mut rule) in (1_usize..).zip(listed) {
        // Of the list, not of the rule.
        if let Some(fields) = rule.as_object_mut() {
            fields.remove("hits");
            if let Some(port) = fields.remove("port")
                && *of.get_or_insert_with(|| port.clone()) != port
            {
                return Err("it holds rules of more than one port".into());
            }
        }
        let rule =
            serde_json::from_value(rule).map_err(|error| format!("rule {nth} of the list: {error}"))?;
        rules.push(rule);
    }
    number(&mut rules);
    Ok(rules)
}

/// Rules without a number get the next ones, in their order.
fn number(rules: &mut [RuleConfig]) {
    let mut last = rules.iter().map(|rule| rule.id.0).max().unwrap_or_default();
    for rule in rules.iter_mut().filter(|rule| rule.id == RuleId::default()) {
        last = last.saturating_add(1);
        rule.id = RuleId(last);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"[{"direction": "in", "action": "deny"}, {"id": 7, "direction": "in", "action": "allow"}, {"direction": "out", "action": "deny"}]"#;

    #[test]
    fn what_is_listed_is_read_again_and_what_has_no_number_gets_one() {
        let ids =
            |text: &str| rules_of(text).map(|rules| rules.iter().map(|rule| rule.id.0).collect::<Vec<_>>());
        assert_eq!(ids(TWO), Ok(vec![8, 7, 9]));
        let listed = r#"{"rules": [{"port": "a", "id": 3, "direction": "in", "action": "deny", "hits": 5}]}"#;
        assert_eq!(ids(listed), Ok(vec![3]));
        assert_eq!(ids("[]"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_list_of_one_ports_rules_is_named() {
        for (text, what) in [
            ("{", "EOF"),
            ("{}", "expected an array"),
            (r#"{"rules": [], "more": 1}"#, "expected an array"),
            (
                r#"[{"direction": "in", "action": "deny", "colour": 1}]"#,
                "rule 1 of the list: unknown field `colour`",
            ),
            ("[1]", "rule 1 of the list"),
            (
                r#"[{"port": "a", "direction": "in", "action": "deny"}, {"port": "b", "direction": "in", "action": "deny"}]"#,
                "more than one port",
            ),
        ] {
            let said = rules_of(text).expect_err(text);
            assert!(said.contains(what), "{text}: {said}");
        }
    }
}
