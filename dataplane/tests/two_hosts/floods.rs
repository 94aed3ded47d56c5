//! Floods of questions to the switch itself: a port gets its share of answers, by kind, and nobody pays for another's.

use std::net::Ipv4Addr;

use dataplane::pipeline::{DropReason, Trap, Verdict};
use dataplane::types::MacAddr;

use super::frames::{Head, ping_head, solicit, v4, who_has};
use super::world::*;

const SECOND: u64 = 1_000_000_000;
/// What a port gets at once, and per second.
const BURST: usize = 256;
const PER_SECOND: usize = 1000;
const DHCP_BURST: usize = 64;
const DHCP_PER_SECOND: usize = 50;

/// How many of `tries` are answered; each other one must be dropped as `refused` and counted for `owner`.
#[track_caller]
fn answered(tries: usize, refused: DropReason, owner: &str, ask: impl Fn() -> Outcome) -> usize {
    let judge = |outcome: &Outcome| match outcome.verdict {
        Verdict::Reply(_) => true,
        _ => {
            outcome.is_drop(refused, owner);
            false
        }
    };
    (0..tries).filter(|_| judge(&ask())).count()
}

fn arp_of(world: &World, guest: &Guest) -> Outcome {
    world.a.send(guest, &who_has(guest, guest.v4(), "10.0.0.15"))
}

fn discover(guest: &Guest) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&guest.mac.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, 3, 50, 4]);
    message.extend(guest.v4().octets());
    message.push(255);
    let head = Head {
        from_mac: guest.mac,
        to_mac: MacAddr::BROADCAST,
        from: Ipv4Addr::UNSPECIFIED.into(),
        to: Ipv4Addr::BROADCAST.into(),
        ttl: 64,
    };
    head.udp((68, 67), &message)
}

#[test]
fn a_flood_of_arp_gets_its_share_and_costs_nobody_else_anything() {
    let mut world = World::vxlan();
    let flood = |world: &World| answered(2000, DropReason::TrapRateLimited, "a1", || arp_of(world, &A1));
    assert_eq!(flood(&world), BURST);
    // Another port's, and the flooder's own of other kinds.
    arp_of(&world, &A6).is_reply(Trap::Arp);
    world.a.send(&A1, &discover(&A1)).is_reply(Trap::DhcpAck);
    world.a.send(&A1, &ping_head(&A1, &B1, v4).udp((1, 2), b"traffic")).tunnel();
    // What is refused anyway keeps its name: a forger cannot hide behind a flood.
    world.a.send(&A1, &who_has(&A1, A6.v4(), "10.0.0.15")).is_drop(DropReason::ArpSpoofed, "a1");
    world.a.send(&A1, &who_has(&A1, A1.v4(), "10.0.0.200")).is_drop(DropReason::ArpUnknownTarget, "a1");
    world.a.now.0 += SECOND / 10;
    assert_eq!(flood(&world), PER_SECOND / 10);
    world.a.now.0 += 100 * SECOND;
    assert_eq!(flood(&world), BURST, "patience is not saved up");
}

#[test]
fn all_but_dhcp_is_one_share() {
    let world = World::vxlan();
    let head = Head::of(&A1, MacAddr::ROUTER, "10.0.0.1");
    let beyond = Head { ttl: 1, ..Head::of(&A1, MacAddr::ROUTER, B2.ips[0]) };
    let questions = [
        who_has(&A1, A1.v4(), "10.0.0.1"),
        solicit(&A1, A1.v6(), "fd00:0:0:a::15"),
        head.echo(b"echo"),
        beyond.udp((1, 2), b"ends here"),
        ping_head(&A1, &B1, v4).udp((1, 2), &[0; 2000]),
        ping_head(&A1, &A6, v4).udp((1, 2), &[0; 2000]),
    ];
    let mut next = questions.iter().cycle();
    let mut ask = || world.a.send(&A1, next.next().unwrap());
    for _ in 0..BURST {
        assert!(matches!(ask().verdict, Verdict::Reply(_)));
    }
    for _ in 0..BURST {
        ask().is_drop(DropReason::TrapRateLimited, "a1");
    }
}

#[test]
fn a_flood_of_dhcp_gets_its_share_and_leaves_the_rest() {
    let mut world = World::vxlan();
    let flood = |world: &World| {
        answered(500, DropReason::DhcpRateLimited, "a1", || world.a.send(&A1, &discover(&A1)))
    };
    assert_eq!(flood(&world), DHCP_BURST);
    arp_of(&world, &A1).is_reply(Trap::Arp);
    world.a.send(&A6, &discover(&A6)).is_reply(Trap::DhcpAck);
    world.a.now.0 += SECOND / 10;
    assert_eq!(flood(&world), DHCP_PER_SECOND / 10);
}

#[test]
fn a_lease_that_was_not_sent_is_not_said_to_be_had() {
    let mut world = World::vxlan();
    while matches!(world.a.send(&A1, &discover(&A1)).verdict, Verdict::Reply(_)) {}
    let moved = Guest { ips: &["10.0.0.77"], ..A1 };
    let guests: Vec<_> = ON_A.into_iter().filter(|guest| guest.port != "a1").chain([moved]).collect();
    world.a.apply(&document(2, &guests));
    // The move has not refilled the share either.
    world.a.send(&moved, &discover(&moved)).is_drop(DropReason::DhcpRateLimited, "a1");
    assert_eq!(world.a.port("a1").progress.lease_at(), None);
    world.a.now.0 += SECOND;
    world.a.send(&moved, &discover(&moved)).is_reply(Trap::DhcpAck);
    assert!(world.a.port("a1").progress.lease_at().is_some());
}

#[test]
fn a_flood_through_tunnels_costs_the_guest_none_of_its_answers() {
    let world = World::vxlan();
    let asks = |target: &Guest| {
        let question = who_has(&B1, B1.v4(), target.ips[0]);
        world.a.receive(HOST_B, &[&[8, 0, 0, 0, 0, 0, 100, 0], &question[..]].concat())
    };
    assert_eq!(answered(2000, DropReason::PeerRateLimited, "a1", || asks(&A1)), BURST);
    asks(&A6).is_reply(Trap::Arp);
    arp_of(&world, &A1).is_reply(Trap::Arp);
}
