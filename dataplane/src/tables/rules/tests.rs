//! The compiled rules against a plain walk through the list.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::desired::{PortKind, PortRange, RuleId};
use crate::types::{CustomerIp, Vni};

fn port(rules: Vec<RuleConfig>) -> PortConfig {
    PortConfig {
        name: "eve".parse().unwrap(),
        network: Vni::new(1).unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        ips: vec![CustomerIp::from(Ipv4Addr::new(10, 0, 0, 1))],
        kind: PortKind::Tap,
        netns: None,
        queues: 1,
        hostname: None,
        label: None,
        rules,
    }
}

fn compiled(rules: Vec<RuleConfig>) -> Arc<RuleSet> {
    RuleSet::succeed(None, false, &port(rules), Generation(1), 1).unwrap()
}

/// The meaning of a list of rules, in the most obvious words.
fn plainly(rules: &[RuleConfig], direction: Direction, subject: &Subject) -> Option<RuleConfig> {
    let mut sorted: Vec<_> = rules.iter().filter(|rule| rule.direction == direction).collect();
    sorted.sort_by_key(|rule| (rule.priority, rule.id));
    let matches = |rule: &&&RuleConfig| {
        let protocol = match rule.protocol {
            RuleProtocol::Any => true,
            RuleProtocol::One(protocol) => protocol == subject.protocol,
        };
        protocol
            && rule.remote.is_none_or(|prefix| prefix.contains(&subject.remote))
            && rule.ports.is_none_or(|ports| (ports.first()..=ports.last()).contains(&subject.selector))
            && rule.icmp_type.is_none_or(|kind| u16::from(kind) == subject.selector)
    };
    sorted.iter().find(matches).map(|rule| **rule)
}

fn prefixes() -> impl Strategy<Value = Option<IpNet>> {
    // Few bits, so that prefixes meet and nest.
    let v4 = (0_u32..8, 0_u8..=32).prop_map(|(low, bits)| {
        let ip = IpAddr::V4(Ipv4Addr::from_bits(low << 29 | low));
        Some(IpNet::new(ip, bits).unwrap().trunc())
    });
    let v6 = (0_u128..8, 0_u8..=128).prop_map(|(low, bits)| {
        let ip = IpAddr::V6(Ipv6Addr::from_bits(low << 125 | low));
        Some(IpNet::new(ip, bits).unwrap().trunc())
    });
    prop_oneof![Just(None), v4, v6]
}

fn rules() -> impl Strategy<Value = Vec<RuleConfig>> {
    let protocol = prop_oneof![
        Just(RuleProtocol::Any),
        prop::sample::select(vec![1, 6, 17, 58, 0, 255]).prop_map(|n| RuleProtocol::One(Protocol(n)))
    ];
    let selector = (0_u16..6, 0_u16..6, any::<bool>(), any::<bool>());
    let rule = (protocol, prefixes(), selector, any::<bool>(), any::<bool>(), 0_u16..4);
    prop::collection::vec(rule, 1..150).prop_map(|rules| {
        let numbered = rules.into_iter().zip(1..);
        numbered
            .map(|((protocol, remote, (a, b, narrow, top), inward, allow, priority), id)| {
                let last = if top { u16::MAX } else { a.max(b) };
                RuleConfig {
                    id: RuleId(id),
                    direction: if inward { Direction::In } else { Direction::Out },
                    action: if allow { Action::Allow } else { Action::Deny },
                    protocol,
                    remote,
                    ports: PortRange::new(a.min(b), last).filter(|_| narrow && protocol.has_ports()),
                    icmp_type: u8::try_from(a).ok().filter(|_| narrow && protocol.is_icmp()),
                    priority,
                }
            })
            .collect()
    })
}

fn subjects() -> impl Strategy<Value = Subject> {
    let v4 = (0_u32..8, 0_u32..9).prop_map(|(high, low)| IpAddr::V4(Ipv4Addr::from_bits(high << 29 | low)));
    let v6 =
        (0_u128..8, 0_u128..9).prop_map(|(high, low)| IpAddr::V6(Ipv6Addr::from_bits(high << 125 | low)));
    let selector = prop_oneof![0_u16..7, Just(u16::MAX)];
    (prop::sample::select(vec![1, 6, 17, 58, 0, 255, 47]), prop_oneof![v4, v6], selector)
        .prop_map(|(protocol, remote, selector)| Subject { protocol: Protocol(protocol), remote, selector })
}

proptest! {
    #[test]
    fn the_compiled_form_decides_as_the_list_does(
        rules in rules(),
        subjects in prop::collection::vec(subjects(), 64),
    ) {
        let compiled = compiled(rules.clone());
        for direction in [Direction::In, Direction::Out] {
            for subject in &subjects {
                let found = compiled.of(direction).first_match(subject).map(|rule| rule.config);
                prop_assert_eq!(found, plainly(&rules, direction, subject), "{:?} {:?}", direction, subject);
            }
        }
    }
}

fn rule(id: u32, action: Action, priority: u16) -> RuleConfig {
    RuleConfig {
        id: RuleId(id),
        direction: Direction::In,
        action,
        protocol: RuleProtocol::Any,
        remote: None,
        ports: None,
        icmp_type: None,
        priority,
    }
}

const ANYTHING: Subject =
    Subject { protocol: Protocol::TCP, remote: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), selector: 80 };

#[test]
fn the_lowest_priority_number_decides_and_what_no_rule_matches_may_pass() {
    let rules = compiled(vec![rule(1, Action::Deny, 20), rule(2, Action::Allow, 10)]);
    assert_eq!(rules.judge(Direction::In, &ANYTHING, 0), Action::Allow);
    assert_eq!(rules.judge(Direction::Out, &ANYTHING, 0), Action::Allow);
    let rules = compiled(vec![rule(2, Action::Allow, 10), rule(1, Action::Deny, 10)]);
    assert_eq!(rules.judge(Direction::In, &ANYTHING, 0), Action::Deny, "of one priority, the lower id");
}

#[test]
fn a_rule_counts_over_changes_of_others() {
    let kept = rule(1, Action::Allow, 10);
    let one = compiled(vec![kept]);
    assert_eq!(one.judge(Direction::In, &ANYTHING, 0), Action::Allow);
    let two = port(vec![kept, rule(2, Action::Deny, 20)]);
    let two = RuleSet::succeed(Some(&one), false, &two, Generation(2), 1).unwrap();
    assert_eq!(two.judge(Direction::In, &ANYTHING, 0), Action::Allow);
    assert_eq!(two.hits(&kept).unwrap().sum(), 2);
    assert_eq!(two.epoch, Generation(2));
}
