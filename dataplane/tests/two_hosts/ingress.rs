//! What arrives from the underlay and must not reach a guest, and what must.

use std::net::IpAddr;

use dataplane::pipeline::{DropReason, Verdict};
use dataplane::types::MacAddr;

use super::frames::{Head, Seen, ping_head, v4, v6};
use super::world::*;

fn tunnelled(vni: u8, frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0, 0, 0, vni, 0], frame].concat()
}

#[test]
fn delivery_is_by_address_whatever_the_destination_mac() {
    let world = World::vxlan();
    let frame = Head::of(&B1, MacAddr([2, 9, 9, 9, 9, 9]), A1.ips[0]).udp((1, 2), b"x");
    let outcome = world.a.receive(HOST_B, &tunnelled(100, &frame));
    assert_eq!(outcome.verdict, Verdict::Deliver(world.a.port("a1").id));
    assert_eq!(Seen::of(&outcome.frame).macs(), (B1.mac, A1.mac));
}

#[test]
fn only_hosts_of_the_directory_are_heard() {
    let mut world = World::vxlan();
    let packet = tunnelled(100, &ping_head(&B1, &A1, v4).udp((1, 2), b"x"));
    world.a.receive("192.0.2.66", &packet).is_drop(DropReason::UnderlaySourceUnknown, "underlay");
    world.a.know_ip(400, "10.0.0.44", MacAddr([2, 0, 0, 0, 0, 0x44]), "192.0.2.66");
    assert!(matches!(world.a.receive("192.0.2.66", &packet).verdict, Verdict::Deliver(_)));
    world.a.writer.remove(vni(400), "10.0.0.44".parse().unwrap());
    world.a.reader.refresh();
    world.a.receive("192.0.2.66", &packet).is_drop(DropReason::UnderlaySourceUnknown, "underlay");
    assert!(matches!(world.a.receive(HOST_A, &packet).verdict, Verdict::Deliver(_)), "its own address");
}

#[test]
fn a_network_without_ports_here_is_absent() {
    let world = World::vxlan();
    let frame = ping_head(&B1, &A1, v4).udp((1, 2), b"x");
    for vni in [99, 250] {
        world.a.receive(HOST_B, &tunnelled(vni, &frame)).is_drop(DropReason::VniAbsent, "underlay");
    }
    // Configured, but nobody is in it: 300 has 44 in its last byte.
    let packet = [&[8, 0, 0, 0, 0, 1, 44, 0], &frame[..]].concat();
    world.a.receive(HOST_B, &packet).is_drop(DropReason::VniAbsent, "underlay");
}

#[test]
fn nobody_configures_a_guest_from_outside() {
    let world = World::vxlan();
    // Clients do not look at the source port.
    for from in [67, 1067] {
        let dhcp = ping_head(&B1, &A1, v4).udp((from, 68), &[2; 300]);
        world.a.receive(HOST_B, &tunnelled(100, &dhcp)).is_drop(DropReason::DhcpServerForged, "underlay");
    }
    for from in [547, 1547] {
        let dhcpv6 = ping_head(&B1, &A1, v6).udp((from, 546), &[7; 60]);
        world.a.receive(HOST_B, &tunnelled(100, &dhcpv6)).is_drop(DropReason::DhcpServerForged, "underlay");
    }
    for kind in [134, 137] {
        let head = Head { from: B1.mac.link_local().into(), ttl: 255, ..ping_head(&B1, &A1, v6) };
        let outcome = world.a.receive(HOST_B, &tunnelled(100, &head.icmpv6(kind, [0; 4], &[0; 40])));
        outcome.is_drop(DropReason::RouterAdvertisementForged, "underlay");
    }
    let broadcast =
        Head { to_mac: MacAddr::BROADCAST, to: IpAddr::from([255; 4]), ..ping_head(&B1, &A1, v4) };
    let outcome = world.a.receive(HOST_B, &tunnelled(100, &broadcast.udp((67, 9), b"x")));
    outcome.is_drop(DropReason::Broadcast, "underlay");
}

#[test]
fn a_geneve_host_does_not_take_vxlan_for_geneve() {
    let world = World::new(dataplane::desired::Encapsulation::Geneve);
    let frame = ping_head(&B1, &A1, v4).udp((1, 2), b"x");
    world.a.receive(HOST_B, &tunnelled(100, &frame)).is_drop(DropReason::TunnelMalformed, "underlay");
}
