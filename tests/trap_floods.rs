//! A guest that asks the switch without end, and a stranger who sends to its tunnel port without end: the others are
//! served, and what was too much is counted by name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what broke by panicking"
)]

mod attacks;
mod scene;
mod street;

use attacks::bytes::{ARP_REQUEST, BROADCAST, ROUTER, V4, arp, bootp, ethernet, icmp, udp, vxlan};
use attacks::{BOB, EVE, GATEWAY, ip4};
use control::lab::{ClientKind, Process};
use scene::{PATIENCE, until};
use std::time::Instant;
use street::{Counts, Honest, Street, mac};

/// What a port is answered at once, and per second.
const BURST: u64 = 256;
const PER_SECOND: u64 = 1000;
const DHCP_BURST: u64 = 64;
const DHCP_PER_SECOND: u64 = 50;

/// One of each question that the switch answers but DHCP.
fn questions() -> Vec<Vec<u8>> {
    let mark = attacks::mark(0);
    let to = |to: [u8; 4], ttl: u8, protocol: u8, payload: &[u8]| {
        ethernet(ROUTER, EVE, 0x0800, &V4 { ttl, ..V4::new(ip4(1), to, protocol) }.packet(payload))
    };
    vec![
        ethernet(BROADCAST, EVE, 0x0806, &arp(ARP_REQUEST, (EVE, ip4(1)), ([0; 6], ip4(4)), &mark)),
        ethernet(BROADCAST, EVE, 0x0806, &arp(ARP_REQUEST, (EVE, ip4(1)), ([0; 6], ip4(2)), &mark)),
        to(ip4(GATEWAY), 64, 1, &icmp(8, 0, [0, 1, 0, 1], &mark)),
        to(ip4(4), 1, 17, &udp((7, 7), &mark)),
        to(ip4(4), 64, 17, &udp((7, 7), &mark.repeat(60))),
    ]
}

fn of(counts: &Counts, kind: &'static str, name: &str) -> u64 {
    *counts.get(&("eve".to_owned(), kind, name.to_owned())).unwrap_or(&0)
}

/// How often eve was answered: by DHCP, and by all others.
fn answers(counts: &Counts) -> (u64, u64) {
    let eves = counts.iter().filter(|((owner, kind, _), _)| owner == "eve" && *kind == "trap");
    let (dhcp, others): (Vec<_>, Vec<_>) = eves.partition(|((_, _, name), _)| name.starts_with("dhcp"));
    let sum = |part: Vec<(_, &u64)>| part.into_iter().map(|(_, count)| count).sum();
    (sum(dhcp), sum(others))
}

#[test]
fn a_guest_that_floods_the_traps_starves_only_itself() {
    let street = Street::new("vxlan");
    street.eve.run("ip", &["link", "set", "eve", "mtu", "9000"]).unwrap();
    let began = Instant::now();
    let before = street.counts();
    let dhcp =
        V4::new([0; 4], [255; 4], 17).packet(&udp((68, 67), &bootp(1, EVE, &[53, 1, 1], &attacks::mark(1))));
    let _floods: Vec<Process> = [questions(), vec![ethernet(BROADCAST, EVE, 0x0800, &dhcp)]]
        .iter()
        .map(|frames| street.eve.flood(frames).unwrap())
        .collect();
    let is_flooded = |since: &Counts| {
        let now = street.counts();
        ["trap_rate_limited", "dhcp_rate_limited"]
            .iter()
            .all(|name| of(&now, "drop", name) > of(since, "drop", name) + 1000)
    };
    until("the flood to be refused", || is_flooded(&before));

    // Bob and ben ask for everything that eve asks for, and get it.
    let honest = Honest::start(&street);
    let ben = &street.others[0];
    ben.run("ip", &["address", "flush", "dev", "ben"]).unwrap();
    ben.start_dhcp(ClientKind::Udhcpc).unwrap();
    ben.wait_for_address([10, 0, 0, 5].into(), PATIENCE).unwrap();
    for _ in 0..5 {
        street.bob.run("ip", &["neighbour", "flush", "dev", "bob"]).unwrap();
        for last in [4, 5, GATEWAY] {
            assert!(street.bob.ping([10, 0, 0, last].into(), 5).unwrap(), "bob to 10.0.0.{last}");
        }
    }
    let later = street.counts();
    until("the flood to be refused to the end", || is_flooded(&later));
    honest.were_served(90);

    let after = street.counts();
    let seconds = began.elapsed().as_secs() + 1;
    let ((dhcp_before, others_before), (dhcp, others)) = (answers(&before), answers(&after));
    assert!(
        dhcp - dhcp_before <= DHCP_BURST + DHCP_PER_SECOND * seconds,
        "{dhcp} answers of DHCP in {seconds} s"
    );
    assert!(others - others_before <= BURST + PER_SECOND * seconds, "{others} answers in {seconds} s");
    let limited = after
        .keys()
        .filter(|(owner, kind, name)| *kind == "drop" && name.ends_with("rate_limited") && owner != "eve");
    assert_eq!(limited.count(), 0, "nobody else had to wait");
    street.stands();
}

#[test]
fn a_stranger_who_floods_the_tunnel_port_stops_no_talk_on_the_host() {
    let street = Street::new("vxlan");
    let mallory = street.scene.host("mallory", 66);
    let inner =
        ethernet(BOB, EVE, 0x0800, &V4::new(ip4(4), ip4(2), 17).packet(&udp((7, 7), &attacks::mark(0))));
    let outer =
        V4::new([192, 0, 2, 66], attacks::HOSTS[0], 17).packet(&udp((50_000, 4789), &vxlan(8, 100, &inner)));
    let world = street.world();
    let frame =
        ethernet(mac(&street.host_a.mac(world).unwrap()), mac(&mallory.mac(world).unwrap()), 0x0800, &outer);
    let _flood = mallory.flood(world, &[frame]).unwrap();
    let strangers = || {
        let key = ("(underlay)".to_owned(), "drop", "underlay_source_unknown".to_owned());
        *street.counts().get(&key).unwrap_or(&0)
    };
    until("the flood to be refused", || strangers() > 10_000);
    for _ in 0..20 {
        assert!(street.bob.ping([10, 0, 0, 5].into(), 5).unwrap(), "bob to ben");
    }
    let so_far = strangers();
    until("the flood to be refused to the end", || strangers() > so_far + 1000);
    street.stands();
}
