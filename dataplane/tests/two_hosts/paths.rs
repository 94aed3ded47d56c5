//! The ways a packet can go, both tunnel formats, both families.

use dataplane::desired::Encapsulation;
use dataplane::packet::{Buffer, Offload};
use dataplane::pipeline::{BATCH, Context, DropReason, Verdict, Verdicts, egress};
use dataplane::types::MacAddr;

use super::frames::{Head, Seen, TTL, ping_head, set_tos, v4, v6};
use super::world::*;

#[test]
fn a_neighbour_on_another_host_gets_the_frame_as_it_was_sent() {
    for encapsulation in [Encapsulation::Vxlan, Encapsulation::Geneve] {
        let world = World::new(encapsulation);
        for family in [v4, v6] {
            let frame = ping_head(&A1, &B1, family).udp((1000, 2000), b"hello");
            let (sent, arrived) = world.pass(&A1, &frame);
            assert_eq!(sent.tunnel().header_bytes, 8);
            let header = match encapsulation {
                Encapsulation::Vxlan => [8, 0, 0, 0, 0, 0, 100, 0],
                Encapsulation::Geneve => [0, 0, 0x65, 0x58, 0, 0, 100, 0],
            };
            assert_eq!(sent.frame[..8], header);
            assert_eq!(sent.frame[8..], frame, "nothing changes but what must");
            world.is_delivered(&arrived, &B1);
            assert_eq!(arrived.frame, frame);
        }
    }
}

#[test]
fn a_stale_destination_mac_is_put_right() {
    let world = World::vxlan();
    // The guest remembers B1's address with the MAC of somebody it knew in another network.
    let frame = Head::of(&A1, MacAddr([2, 0, 0, 0, 0, 0x77]), B1.ips[0]).udp((1, 2), b"x");
    let (sent, arrived) = world.pass(&A1, &frame);
    assert_eq!(Seen::of(&sent.frame[8..]).macs(), (A1.mac, B1.mac));
    assert_eq!(Seen::of(&arrived.frame).macs(), (A1.mac, B1.mac));
    assert_eq!(Seen::of(&arrived.frame).ttl(), TTL, "switched, not routed");
}

#[test]
fn between_prefixes_the_virtual_router_routes() {
    let world = World::vxlan();
    for (to, family) in [(B2.ips[0], "v4"), (B2.ips[1], "v6")] {
        let frame = Head::of(&A1, MacAddr::ROUTER, to).tcp((1000, 80), b"GET");
        let (_, arrived) = world.pass(&A1, &frame);
        world.is_delivered(&arrived, &B2);
        let seen = Seen::of(&arrived.frame);
        assert_eq!(seen.macs(), (MacAddr::ROUTER, B2.mac), "{family}");
        assert_eq!(seen.ttl(), TTL - 1, "{family}");
        assert_eq!(seen.payload, b"GET");
    }
}

#[test]
fn ports_of_one_host_reach_each_other_without_the_underlay() {
    let world = World::vxlan();
    let frame = ping_head(&A1, &A6, v4).udp((1, 2), b"near");
    let outcome = world.a.send(&A1, &frame);
    assert_eq!(outcome.verdict, Verdict::Deliver(world.a.port("a6").id));
    assert_eq!(outcome.frame, frame);
    let routed = world.a.send(&A1, &Head::of(&A1, MacAddr::ROUTER, A2.ips[0]).udp((1, 2), b"far"));
    assert_eq!(routed.verdict, Verdict::Deliver(world.a.port("a2").id));
    let seen = Seen::of(&routed.frame);
    assert_eq!((seen.macs(), seen.ttl()), ((MacAddr::ROUTER, A2.mac), TTL - 1));
}

#[test]
fn a_peer_network_is_reached_under_its_own_vni() {
    let world = World::vxlan();
    let frame = Head::of(&A1, MacAddr::ROUTER, B3.ips[0]).udp((1, 2), b"x");
    let (sent, arrived) = world.pass(&A1, &frame);
    assert_eq!(sent.frame[4..7], [0, 0, 200]);
    world.is_delivered(&arrived, &B3);
    let local = world.a.send(&A1, &Head::of(&A1, MacAddr::ROUTER, A3.ips[0]).udp((1, 2), b"x"));
    assert_eq!(local.verdict, Verdict::Deliver(world.a.port("a3").id));
    assert_eq!(Seen::of(&local.frame).macs(), (MacAddr::ROUTER, A3.mac));
    let back = world.a.send(&A3, &Head::of(&A3, MacAddr::ROUTER, A1.ips[0]).udp((1, 2), b"x"));
    assert_eq!(back.verdict, Verdict::Deliver(world.a.port("a1").id));
}

#[test]
fn a_route_via_a_station_leads_to_its_port() {
    let mut world = World::vxlan();
    let frame = Head::of(&A1, MacAddr::ROUTER, "10.9.3.3").udp((1, 2), b"x");
    let near = world.a.send(&A1, &frame);
    assert_eq!(near.verdict, Verdict::Deliver(world.a.port("a6").id));
    assert_eq!(Seen::of(&near.frame).ips().1.to_string(), "10.9.3.3");
    // The station now lives on B; B's own routes lead an arriving packet to it.
    let mut there = ON_B.to_vec();
    there.push(A6);
    let here: Vec<_> = ON_A.into_iter().filter(|guest| guest.port != "a6").collect();
    world.a.apply(&document(2, &here));
    world.b.apply(&document(2, &there));
    world.a.know(&A6, HOST_B);
    let (sent, arrived) = world.pass(&A1, &frame);
    assert_eq!(Seen::of(&sent.frame[8..]).macs().1, A6.mac);
    world.is_delivered(&arrived, &A6);
}

#[test]
fn overlapping_networks_never_meet() {
    let world = World::vxlan();
    for (from, to) in [(&A1, &B1), (&A5, &B5)] {
        for family in [v4, v6] {
            let frame = ping_head(from, to, family).udp((1, 2), from.port.as_bytes());
            let (sent, arrived) = world.pass(from, &frame);
            assert_eq!(u32::from(sent.frame[5]) << 8 | u32::from(sent.frame[6]), to.network);
            world.is_delivered(&arrived, to);
        }
    }
}

#[test]
fn ethernet_padding_does_not_travel() {
    let world = World::vxlan();
    let frame = ping_head(&A1, &B1, v4).udp((1, 2), b"");
    let padded = [&frame[..], &[0xee; 18]].concat();
    let (sent, arrived) = world.pass(&A1, &padded);
    assert_eq!(sent.frame[8..], frame);
    assert_eq!(arrived.frame, frame);
}

#[test]
fn flows_differ_in_entropy_and_a_flow_does_not() {
    let world = World::vxlan();
    let entropy = |port, payload: &[u8]| {
        world.a.send(&A1, &ping_head(&A1, &B1, v4).udp((port, 53), payload)).tunnel().entropy
    };
    assert_eq!(entropy(1000, b"one"), entropy(1000, b"another"));
    let mut seen: Vec<_> = (1000..1100).map(|port| entropy(port, b"")).collect();
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 95, "{} of 100", seen.len());
}

#[test]
fn congestion_marks_enter_and_leave_the_tunnel() {
    let world = World::vxlan();
    for family in [v4, v6] {
        // (inner, outer on the way, inner afterwards), RFC 6040 figure 4.
        for (inner, outer, after) in
            [(0b10, 0b11, 0b11), (0b01, 0b11, 0b11), (0b10, 0b01, 0b01), (0b11, 0, 0b11)]
        {
            let dscp = 46 << 2;
            let mut frame = ping_head(&A1, &B1, family).tcp((1, 2), b"x");
            set_tos(&mut frame, dscp | inner);
            let sent = world.a.send(&A1, &frame);
            assert_eq!(sent.tunnel().traffic_class, dscp | inner, "normal mode copies");
            let arrived = world.b.receive_with(HOST_A, &sent.frame, outer, Offload::NONE);
            world.is_delivered(&arrived, &B1);
            assert_eq!(Seen::of(&arrived.frame).tos(), dscp | after);
        }
        let sent = world.a.send(&A1, &ping_head(&A1, &B1, family).tcp((1, 2), b"x"));
        let arrived = world.b.receive_with(HOST_A, &sent.frame, 0b11, Offload::NONE);
        arrived.is_drop(DropReason::TunnelEcn, "b1");
    }
}

#[test]
fn the_first_good_packet_is_noted_once() {
    let mut world = World::vxlan();
    let progress = |world: &World| world.a.port("a1").progress.first_packet_at();
    let spoofed = Head { from: "10.0.0.66".parse().unwrap(), ..ping_head(&A1, &B1, v4) }.udp((1, 2), b"");
    world.a.send(&A1, &spoofed);
    assert_eq!(progress(&world), None);
    world.a.now.0 = 5;
    world.a.send(&A1, &ping_head(&A1, &B1, v4).udp((1, 2), b""));
    world.a.now.0 = 6;
    world.a.send(&A1, &ping_head(&A1, &B1, v4).udp((1, 2), b""));
    assert_eq!(progress(&world).map(|at| at.0), Some(5));
}

#[test]
fn a_batch_gets_one_verdict_each_in_order() {
    let world = World::vxlan();
    let port = world.a.port("a1");
    let kinds = [
        ping_head(&A1, &B1, v4).udp((1, 2), b"remote"),
        ping_head(&A1, &A6, v6).udp((1, 2), b"local"),
        Head::of(&A1, MacAddr::ROUTER, "10.0.0.200").udp((1, 2), b"unknown"),
        Head::of(&A1, MacAddr::ROUTER, "10.0.0.1").echo(b"gateway"),
    ];
    let mut buffers: Vec<_> = (0..BATCH + 4).map(|_| Buffer::new()).collect();
    let mut packets: Vec<_> =
        buffers.iter_mut().enumerate().map(|(n, buffer)| buffer.load(&kinds[n % kinds.len()])).collect();
    let context =
        Context { tables: &world.a.tables, directory: &world.a.reader, now: world.a.now, worker: 0 };
    let mut verdicts = Verdicts::new();
    // A batch starts afresh, whatever the last one left.
    let (whole, short) = packets.split_at_mut(BATCH);
    for batch in [whole, short] {
        egress(&context, &port, batch, &mut verdicts);
        assert_eq!(verdicts.len(), batch.len());
        for (n, verdict) in verdicts.iter().enumerate() {
            let fits = match n % kinds.len() {
                0 => matches!(verdict, Verdict::Underlay(_)),
                1 => matches!(verdict, Verdict::Deliver(_)),
                2 => *verdict == Verdict::Drop(DropReason::DirectoryMiss),
                _ => matches!(verdict, Verdict::Reply(_)),
            };
            assert!(fits, "{n}: {verdict:?}");
        }
    }
}
