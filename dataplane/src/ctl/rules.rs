//! Verbs about rules.

use std::sync::Arc;

use super::protocol::{Changed, Refusal, RuleDetail, Rules};
use super::session::{Reply, Session, ok, remove};
use crate::desired::{HostConfig, PortConfig, PortName, RuleConfig, RuleId};
use crate::switch::{Change, SwitchError};

impl Session {
    pub(super) fn add_rule(&self, port: PortName, mut rule: RuleConfig) -> Reply {
        let change = self.switch.edit(|document| {
            let rules = &mut port_mut(document, &port)?.rules;
            if rule.id == RuleId::default() {
                rule.id = next_id(rules);
            }
            if rules.iter().any(|known| known.id == rule.id) {
                return Err(SwitchError::RuleExists { port: port.clone(), rule: rule.id });
            }
            rules.push(rule);
            Ok(())
        });
        changed(port, rule.id, change)
    }

    pub(super) fn remove_rule(&self, port: PortName, rule: RuleId) -> Reply {
        let change = self.switch.edit(|document| {
            remove(&mut port_mut(document, &port)?.rules, |known| known.id == rule)
                .ok_or_else(|| SwitchError::NoSuchRule { port: port.clone(), rule })
        });
        changed(port, rule, change)
    }

    pub(super) fn rules(&self, port: Option<&PortName>) -> Reply {
        match (self.switch.rules(port), port) {
            (None, Some(port)) => Err(Refusal::from(&SwitchError::NoSuchPort(port.clone()))),
            (rules, _) => {
                let detail = |rule: crate::switch::RuleStatus| RuleDetail {
                    port: rule.port,
                    config: rule.config,
                    hits: rule.hits,
                };
                ok(&Rules { rules: rules.unwrap_or_default().into_iter().map(detail).collect() })
            }
        }
    }
}

/// One more than the highest, so that a removed rule's number is not soon another's.
fn next_id(rules: &[RuleConfig]) -> RuleId {
    let highest = rules.iter().map(|rule| rule.id.0).max().unwrap_or(0);
    // With the highest number taken, whichever is free: there are far fewer rules than numbers.
    let free = || (1..u32::MAX).find(|id| rules.iter().all(|rule| rule.id.0 != *id));
    RuleId(highest.checked_add(1).or_else(free).unwrap_or_default())
}

fn port_mut<'d>(document: &'d mut HostConfig, name: &PortName) -> Result<&'d mut PortConfig, SwitchError> {
    let found = document.ports.iter_mut().find(|port| port.name == *name);
    found.map(Arc::make_mut).ok_or_else(|| SwitchError::NoSuchPort(name.clone()))
}

fn changed(port: PortName, rule: RuleId, change: Result<Change, SwitchError>) -> Reply {
    let Change { generation, swap_ns, settled_ns } = change.map_err(|error| Refusal::from(&error))?;
    ok(&Changed { port: Some(port), network: None, rule: Some(rule), generation, swap_ns, settled_ns })
}
