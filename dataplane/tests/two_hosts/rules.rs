//! Stateful rules: every field, every state, both families and directions, and what lives over a change.

use std::net::IpAddr;

use dataplane::pipeline::{DropReason, Verdict};
use dataplane::types::Nanos;
use serde_json::{Value, json};

use super::frames::{Head, ping_head, v4, v6};
use super::world::*;

type Family = fn(&Guest) -> IpAddr;
const FAMILIES: [Family; 2] = [v4, v6];

/// Puts rules on A1, whose addresses and network are `guest`'s.
pub(crate) fn set_rules(world: &mut World, generation: u64, guest: Guest, rules: &Value) {
    let others = ON_A.into_iter().filter(|other| !matches!(other.port, "a1" | "a5"));
    let guests: Vec<Guest> = others.chain([guest]).collect();
    let mut document = document(generation, &guests);
    let ports = document["ports"].as_array_mut().unwrap();
    let mut numbered = rules.as_array().unwrap().clone();
    for (rule, id) in numbered.iter_mut().zip(1..) {
        rule["id"] = id.into();
    }
    ports.iter_mut().find(|port| port["name"] == "a1").unwrap()["rules"] = numbered.into();
    world.a.apply(&document);
}

fn ruled(rules: &Value) -> World {
    let mut world = World::vxlan();
    set_rules(&mut world, 2, A1, rules);
    world
}

/// A1 sends to B1 on the other host.
#[track_caller]
fn out(world: &World, frame: &[u8]) -> bool {
    let outcome = world.a.send(&A1, frame);
    match outcome.verdict {
        Verdict::Underlay(_) => true,
        Verdict::Drop(DropReason::RuleDeniedOut) => false,
        other => panic!("{other:?}"),
    }
}

/// What B1 sends arrives for A1.
#[track_caller]
fn inward(world: &World, frame: &[u8]) -> bool {
    let outcome = arrive(world, 100, frame);
    match outcome.verdict {
        Verdict::Deliver(_) => true,
        Verdict::Drop(DropReason::RuleDeniedIn) => {
            assert_eq!(outcome.counted.as_deref(), Some("a1"), "counted where it would have gone");
            false
        }
        other => panic!("{other:?}"),
    }
}

fn arrive(world: &World, network: u32, frame: &[u8]) -> Outcome {
    let [a, b, c] = vni(network).to_be_bytes();
    world.a.receive(HOST_B, &[&[8, 0, 0, 0, a, b, c, 0], frame].concat())
}

fn there(family: Family) -> Head {
    ping_head(&A1, &B1, family)
}

fn back(family: Family) -> Head {
    ping_head(&B1, &A1, family)
}

fn after(world: &mut World, seconds: u64) {
    world.a.now = Nanos(world.a.now.0 + seconds * 1_000_000_000);
}

const DENY_IN: &str = r#"[{"direction": "in", "action": "deny", "priority": 65535}]"#;

fn deny_in() -> Value {
    serde_json::from_str(DENY_IN).unwrap()
}

#[test]
fn every_field_decides_in_both_directions_and_families() {
    // A rule that allows, in front of one that denies everything of its direction.
    let table = [
        // what the rule says, what passes, what does not
        (json!({}), "tcp 80", ""),
        (json!({"protocol": "tcp"}), "tcp 80", "udp 80"),
        (json!({"protocol": "udp"}), "udp 80", "tcp 80"),
        (json!({"protocol": "17"}), "udp 80", "tcp 80"),
        (json!({"protocol": "tcp", "ports": "80"}), "tcp 80", "tcp 81"),
        (json!({"protocol": "tcp", "ports": "80-90"}), "tcp 90", "tcp 91"),
        (json!({"protocol": "udp", "ports": "0-79"}), "udp 79", "udp 80"),
        (json!({"protocol": "ICMP"}), "ping", "udp 80"),
        (json!({"protocol": "ICMP", "icmp_type": "QUERY"}), "ping", "udp 80"),
        (json!({"protocol": "ICMP", "icmp_type": 200}), "", "ping"),
        (json!({"remote": "SAME"}), "tcp 80", ""),
        (json!({"remote": "OTHER"}), "", "tcp 80"),
        (json!({"remote": "FAMILY"}), "", "tcp 80"),
        (json!({"priority": 65535}), "tcp 80", ""),
    ];
    for family in FAMILIES {
        let is_v4 = family(&A1).is_ipv4();
        for direction in ["in", "out"] {
            for (rule, passes, fails) in &table {
                let text = rule
                    .to_string()
                    .replace("\"QUERY\"", if is_v4 { "8" } else { "128" })
                    .replace("ICMP", if is_v4 { "icmp" } else { "icmpv6" })
                    .replace("SAME", if is_v4 { "10.0.0.0/24" } else { "fd00:0:0:a::/64" })
                    .replace("OTHER", if is_v4 { "10.0.1.0/24" } else { "fd00:0:0:b::/64" })
                    .replace("FAMILY", if is_v4 { "::/0" } else { "0.0.0.0/0" });
                let mut rule: Value = serde_json::from_str(&text).unwrap();
                rule["direction"] = direction.into();
                rule["action"] = "allow".into();
                let world =
                    ruled(&json!([rule, {"direction": direction, "action": "deny", "priority": 65535}]));
                let head = if direction == "out" { there(family) } else { back(family) };
                let passed = |what: &str| {
                    let frame = match what.split_once(' ') {
                        Some(("tcp", port)) => head.segment((999, port.parse().unwrap()), "S"),
                        Some((_, port)) => head.udp((999, port.parse().unwrap()), b""),
                        None => head.ping(false, 7),
                    };
                    if direction == "out" { out(&world, &frame) } else { inward(&world, &frame) }
                };
                assert!(passes.is_empty() || passed(passes), "{direction} {rule}: {passes}");
                assert!(fails.is_empty() || !passed(fails), "{direction} {rule}: {fails}");
            }
        }
    }
}

#[test]
fn a_port_without_rules_in_a_direction_lets_everything_pass_there() {
    let world = ruled(&deny_in());
    for family in FAMILIES {
        assert!(out(&world, &there(family).segment((1, 2), "S")));
        assert!(!inward(&world, &back(family).segment((3, 4), "S")));
    }
}

#[test]
fn answers_pass_and_what_was_not_asked_for_does_not() {
    for family in FAMILIES {
        let (there, back) = (there(family), back(family));
        let world = ruled(&deny_in());
        // TCP.
        assert!(!inward(&world, &back.segment((80, 999), "SA")), "nobody has asked");
        assert!(out(&world, &there.segment((999, 80), "S")));
        assert!(!inward(&world, &back.segment((81, 999), "SA")), "another port");
        assert!(!inward(&world, &back.segment((80, 998), "SA")), "another port");
        assert!(inward(&world, &back.segment((80, 999), "SA")));
        assert!(out(&world, &there.segment((999, 80), "A")));
        assert!(inward(&world, &back.segment((80, 999), "A")));
        // UDP is not TCP.
        assert!(!inward(&world, &back.udp((80, 999), b"")));
        assert!(out(&world, &there.udp((999, 80), b"")));
        assert!(inward(&world, &back.udp((80, 999), b"")));
        // Echo.
        assert!(!inward(&world, &back.ping(true, 7)));
        assert!(out(&world, &there.ping(false, 7)));
        assert!(!inward(&world, &back.ping(true, 8)), "another identifier");
        assert!(inward(&world, &back.ping(true, 7)));
        let ports = world.a.port("a1").guard.as_ref().unwrap().connections.count(world.a.now);
        assert_eq!((ports.established, ports.half_open), (3, 0));
    }
}

#[test]
fn what_came_in_may_be_answered() {
    let rules = json!([
        {"direction": "in", "action": "allow", "protocol": "tcp", "ports": "80"},
        {"direction": "in", "action": "deny", "priority": 65535},
        {"direction": "out", "action": "deny", "priority": 65535}
    ]);
    for family in FAMILIES {
        let world = ruled(&rules);
        assert!(!out(&world, &there(family).segment((80, 999), "SA")), "nobody has asked");
        assert!(inward(&world, &back(family).segment((999, 80), "S")));
        assert!(out(&world, &there(family).segment((80, 999), "SA")));
        assert!(!out(&world, &there(family).segment((80, 998), "SA")));
        assert!(!out(&world, &there(family).segment((999, 80), "S")), "a connection of its own");
    }
}

#[test]
fn each_state_has_its_time() {
    // From the first packet of A1's flow to when B1's answer comes too late: (packets, seconds it may be silent).
    let table: [(&[&str], u64); 9] = [
        (&["> S"], 30),
        (&["> S", "< SA"], 240),
        (&["> S", "< SA", "> A"], 7440),
        (&["> S", "< SA", "> A", "> FA"], 240),
        (&["> S", "< SA", "> A", "< FA"], 240),
        (&["> S", "< SA", "> A", "> FA", "< FA"], 120),
        (&["> S", "< SA", "> A", "< R"], 10),
        (&["> A"], 300),
        (&["> A", "< A"], 7440),
    ];
    for family in FAMILIES {
        for (packets, seconds) in table {
            for (wait, passes) in [(seconds, true), (seconds + 1, false)] {
                let mut world = ruled(&deny_in());
                for packet in packets {
                    let (way, bits) = packet.split_once(' ').unwrap();
                    let passed = match way {
                        ">" => out(&world, &there(family).segment((999, 80), bits)),
                        _ => inward(&world, &back(family).segment((80, 999), bits)),
                    };
                    assert!(passed, "{packets:?} {packet}");
                }
                after(&mut world, wait);
                let answer = back(family).segment((80, 999), "A");
                assert_eq!(inward(&world, &answer), passes, "{packets:?} after {wait} s");
            }
        }
        for (answered, seconds) in [(false, 30), (true, 180)] {
            for (wait, passes) in [(seconds, true), (seconds + 1, false)] {
                let mut world = ruled(&deny_in());
                assert!(out(&world, &there(family).udp((999, 53), b"")));
                if answered {
                    assert!(inward(&world, &back(family).udp((53, 999), b"")));
                }
                after(&mut world, wait);
                let answer = back(family).udp((53, 999), b"");
                assert_eq!(inward(&world, &answer), passes, "answered {answered}, after {wait} s");
            }
        }
    }
}

#[test]
fn errors_about_a_known_connection_pass() {
    for family in FAMILIES {
        let world = ruled(&deny_in());
        let asked = there(family).udp((999, 53), b"12345678");
        // Any router on the way may say so; here it is B2.
        let (router, to) = (ping_head(&B2, &A1, family), back(family));
        let error = Head { from: router.from, ..to };
        assert!(!inward(&world, &error.unreachable(&asked)), "nobody has asked");
        assert!(out(&world, &asked));
        assert!(inward(&world, &error.unreachable(&asked)));
        assert!(!inward(&world, &error.unreachable(&there(family).udp((998, 53), b"12345678"))));
        // What another guest had sent is none of A1's.
        assert!(!inward(
            &world,
            &error.unreachable(&ping_head(&A6, &B1, family).udp((999, 53), b"12345678"))
        ));
        // An error of the other family is about nobody's flow.
        let other: Family = if family(&A1).is_ipv4() { v6 } else { v4 };
        assert!(!inward(&world, &back(other).unreachable(&asked)));
        let ping = there(family).ping(false, 7);
        assert!(out(&world, &ping));
        assert!(inward(&world, &error.unreachable(&ping)));
        // Of a connection that the rules would not let begin any more, nothing is told either.
        let mut world = ruled(&json!([{"direction": "in", "action": "deny", "priority": 9}]));
        assert!(out(&world, &asked));
        set_rules(
            &mut world,
            3,
            A1,
            &json!([{"direction": "in", "action": "deny"}, {"direction": "out", "action": "deny"}]),
        );
        assert!(!inward(&world, &error.unreachable(&asked)));
        // The guest's own errors, about what came in.
        let rules = json!([{"direction": "out", "action": "deny", "priority": 65535}]);
        let world = ruled(&rules);
        let came = back(family).udp((999, 53), b"12345678");
        assert!(!out(&world, &there(family).unreachable(&came)));
        assert!(inward(&world, &came));
        assert!(out(&world, &there(family).unreachable(&came)));
        assert!(!out(&world, &ping_head(&A1, &B2, family).unreachable(&came)), "to somebody else");
    }
}

/// Cuts an IPv4 packet in two.
pub(crate) fn fragments(whole: &[u8], identification: u16) -> [Vec<u8>; 2] {
    let split = 34 + 8 * 3;
    let piece = |bytes: &[u8], offset: u16, more: bool| {
        let mut frame = [&whole[..34], bytes].concat();
        let length = u16::try_from(frame.len() - 14).unwrap();
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[18..20].copy_from_slice(&identification.to_be_bytes());
        frame[20..22].copy_from_slice(&((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
        frame[24..26].fill(0);
        let sum = dataplane::wire::checksum::Sum::ZERO.add_bytes(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    [piece(&whole[34..split], 0, true), piece(&whole[split..], u16::try_from(split - 34).unwrap(), false)]
}

#[test]
fn later_fragments_pass_behind_their_first() {
    let rules = json!([
        {"direction": "in", "action": "allow", "protocol": "udp", "ports": "53"},
        {"direction": "in", "action": "deny", "priority": 65535}
    ]);
    let mut world = ruled(&rules);
    let [first, second] = fragments(&back(v4).udp((999, 53), &[1; 60]), 77);
    let unmatched = |world: &World, frame: &[u8]| {
        arrive(world, 100, frame).is_drop(DropReason::FragmentUnmatched, "a1");
    };
    unmatched(&world, &second);
    assert!(inward(&world, &first));
    assert!(inward(&world, &second));
    let [_, other] = fragments(&back(v4).udp((999, 53), &[1; 60]), 78);
    unmatched(&world, &other);
    // The same identification the other way is another datagram.
    let [_, outward] = fragments(&there(v4).udp((999, 53), &[1; 60]), 77);
    world.a.send(&A1, &outward).is_drop(DropReason::FragmentUnmatched, "a1");
    let [denied, rest] = fragments(&back(v4).udp((999, 54), &[1; 60]), 79);
    assert!(!inward(&world, &denied));
    unmatched(&world, &rest);
    after(&mut world, 31);
    unmatched(&world, &second);
}

#[test]
fn a_rule_change_ends_what_would_not_begin_any_more_and_nothing_else() {
    let allow = |port: &str| {
        json!([
            {"direction": "in", "action": "allow", "protocol": "tcp", "ports": port},
            {"direction": "in", "action": "deny", "priority": 65535}
        ])
    };
    for family in FAMILIES {
        let mut world = ruled(&allow("80-81"));
        for port in [80, 81] {
            assert!(inward(&world, &back(family).segment((999, port), "S")));
            assert!(out(&world, &there(family).segment((port, 999), "SA")));
            assert!(inward(&world, &back(family).segment((999, port), "A")));
        }
        // Begun by the guest: no rule of this direction speaks of it.
        assert!(out(&world, &there(family).segment((5000, 22), "S")));
        set_rules(&mut world, 3, A1, &allow("81-82"));
        assert!(!inward(&world, &back(family).segment((999, 80), "A")));
        assert!(inward(&world, &back(family).segment((999, 81), "A")));
        assert!(inward(&world, &back(family).segment((22, 5000), "SA")));
        // The guest cannot go on with it in the other direction, nor can its peer end it by a reset that nobody gets.
        assert!(!out(&world, &there(family).segment((80, 999), "A")));
        assert!(!inward(&world, &back(family).segment((999, 80), "R")));
        for _ in 0..3 {
            after(&mut world, 7000);
            assert!(!out(&world, &there(family).segment((80, 999), "A")), "as long as a side goes on");
        }
        // What may begin again may go on.
        set_rules(&mut world, 4, A1, &allow("80"));
        assert!(out(&world, &there(family).segment((80, 999), "A")));
        assert!(inward(&world, &back(family).segment((999, 80), "A")));
        assert!(!inward(&world, &back(family).segment((999, 81), "A")));
    }
}

#[test]
fn the_side_that_answers_is_denied_by_its_own_name() {
    for family in FAMILIES {
        let mut world = ruled(&json!([{"direction": "in", "action": "allow"}]));
        assert!(inward(&world, &back(family).udp((999, 53), b"")));
        set_rules(&mut world, 3, A1, &deny_in());
        let answer = world.a.send(&A1, &there(family).udp((53, 999), b""));
        answer.is_drop(DropReason::RuleDeniedOut, "a1");
        after(&mut world, 31);
        // Once it is forgotten, this is a flow of the guest's own, which no rule forbids.
        assert!(out(&world, &there(family).udp((53, 999), b"")));
    }
}

#[test]
fn a_move_takes_the_rules_along_and_leaves_the_connections_behind() {
    let mut world = ruled(&deny_in());
    for family in FAMILIES {
        assert!(out(&world, &there(family).segment((999, 80), "S")));
    }
    // Into the network of another tenant, who has B1's very addresses.
    set_rules(&mut world, 3, Guest { network: 400, ..A1 }, &deny_in());
    for family in FAMILIES {
        let answer = ping_head(&B5, &A1, family).segment((80, 999), "SA");
        arrive(&world, 400, &answer).is_drop(DropReason::RuleDeniedIn, "a1");
    }
    // And back: the old connection is gone for good.
    set_rules(&mut world, 4, A1, &deny_in());
    for family in FAMILIES {
        assert!(!inward(&world, &back(family).segment((80, 999), "SA")));
    }
}

#[test]
fn two_ports_of_one_host_are_judged_by_the_rules_of_both() {
    for family in FAMILIES {
        let world = ruled(&deny_in());
        let (from_a6, from_a1) = (ping_head(&A6, &A1, family), ping_head(&A1, &A6, family));
        let asked = world.a.send(&A6, &from_a6.udp((1, 2), b""));
        asked.is_drop(DropReason::RuleDeniedIn, "a6");
        assert!(matches!(world.a.send(&A1, &from_a1.udp((2, 1), b"")).verdict, Verdict::Deliver(_)));
        assert!(matches!(world.a.send(&A6, &from_a6.udp((1, 2), b"")).verdict, Verdict::Deliver(_)));
    }
}

#[test]
fn what_the_switch_answers_is_not_asked_of_the_rules() {
    let world =
        ruled(&json!([{"direction": "in", "action": "deny"}, {"direction": "out", "action": "deny"}]));
    let gateway = Head::of(&A1, dataplane::types::MacAddr::ROUTER, "10.0.0.1");
    world.a.send(&A1, &gateway.echo(b"")).is_reply(dataplane::pipeline::Trap::Echo);
}

#[test]
fn a_query_is_no_answer() {
    for family in FAMILIES {
        let world = ruled(&deny_in());
        assert!(!inward(&world, &back(family).ping(false, 7)), "denied");
        assert!(out(&world, &there(family).ping(false, 7)));
        assert!(inward(&world, &back(family).ping(true, 7)), "the answer");
        assert!(
            !inward(&world, &back(family).ping(false, 7)),
            "a query of the peer's own rides on the guest's"
        );
    }
}

/// An IPv6 fragment: `next` is what its fragment header says.
fn piece_v6(whole: &[u8], next: u8, offset: u16, more: bool, bytes: &[u8]) -> Vec<u8> {
    let field = (offset | u16::from(more)).to_be_bytes();
    let mut frame = [&whole[..54], &[next, 0, field[0], field[1], 0, 0, 0, 77], bytes].concat();
    frame[20] = 44;
    let length = u16::try_from(frame.len() - 54).unwrap();
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

#[test]
fn a_later_fragment_may_not_overwrite_the_ports() {
    let world = ruled(&json!([
        {"direction": "in", "action": "allow", "protocol": "udp", "ports": "53"},
        {"direction": "in", "action": "deny", "priority": 65535}
    ]));
    let allowed = back(v6).udp((999, 53), &[1; 24]);
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    // Fragmentable part: destination options (8 bytes), then UDP at offset 8.
    let first = piece_v6(&allowed, 60, 0, true, &[&options[..], &allowed[54..78]].concat());
    arrive(&world, 100, &first).is_drop(DropReason::FragmentUnmatched, "a1");
    // Overlaps bytes 8.. of it: the UDP header, with another port.
    let denied = back(v6).udp((999, 22), &[1; 24]);
    let second = piece_v6(&allowed, 17, 8, false, &denied[54..]);
    let outcome = arrive(&world, 100, &second);
    outcome.is_drop(DropReason::FragmentUnmatched, "a1");
    // With the transport right behind the fragment header both pieces pass.
    assert!(inward(&world, &piece_v6(&allowed, 17, 0, true, &allowed[54..78])));
    assert!(inward(&world, &piece_v6(&allowed, 17, 24, false, &allowed[78..])));
}

#[test]
fn peers_cannot_take_the_room_from_the_guests_own_connections() {
    let world = ruled(&json!([
        {"direction": "in", "action": "allow", "protocol": "tcp", "ports": "443"},
        {"direction": "in", "action": "deny", "priority": 65535}
    ]));
    let (mut made, mut full) = (0, 0);
    for port in 1..=60_000_u16 {
        match arrive(&world, 100, &back(v4).segment((port, 443), "S")).verdict {
            Verdict::Deliver(_) => {}
            Verdict::Drop(DropReason::ConnectionsFull) => {
                full += 1;
                continue;
            }
            other => panic!("{other:?}"),
        }
        out(&world, &there(v4).segment((443, port), "SA"));
        inward(&world, &back(v4).segment((port, 443), "A"));
        made += 1;
    }
    assert!(made > 30_000 && full > 0, "{made} made, {full} full: not filled");
    let mut lost = 0;
    for port in 1..=1000 {
        match world.a.send(&A1, &there(v4).segment((port, 80), "S")).verdict {
            Verdict::Underlay(_) => {}
            Verdict::Drop(DropReason::ConnectionsFull) => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, 0, "of 1000 connections of the guest's own");
}

#[test]
fn the_guest_may_begin_what_is_over() {
    // Guest-begun connection, reset; then the rules forbid going out and allow coming in.
    let mut world = ruled(&json!([{"direction": "out", "action": "allow"}]));
    assert!(out(&world, &there(v4).segment((443, 999), "S")));
    assert!(inward(&world, &back(v4).segment((999, 443), "RA")));
    set_rules(&mut world, 3, A1, &json!([{"direction": "out", "action": "deny"}]));
    assert!(inward(&world, &back(v4).segment((999, 443), "S")), "a new one, which the rules allow");
}
