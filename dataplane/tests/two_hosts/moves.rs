//! What makes a move atomic in the pure core: one snapshot decides everything about a batch.

use dataplane::packet::Buffer;
use dataplane::pipeline::{BATCH, Context, Verdict, Verdicts, egress};

use super::frames::{Head, Seen, ping_head, v4};
use super::world::*;
use dataplane::pipeline::DropReason;
use dataplane::types::MacAddr;

/// A1 after it moved into A5's network (A5 is gone): the same address and MAC address, another tenant.
const MOVED: Guest = Guest { network: 400, ..A1 };

fn others() -> Vec<Guest> {
    ON_A.into_iter().filter(|guest| !matches!(guest.port, "a1" | "a5")).collect()
}

fn with(guest: Guest) -> Vec<Guest> {
    others().into_iter().chain([guest]).collect()
}

/// A frame read for a port as it was in tables before: its network's slot may be another network's now.
pub(crate) fn send_of_an_earlier_port(world: &mut World) -> Outcome {
    let earlier = world.a.port("a1");
    let mut after = document(2, &with(MOVED));
    let networks = after["networks"].as_array_mut().unwrap();
    networks.retain(|network| network["vni"] != 200);
    networks[0]["vni"] = 500.into();
    networks[0]["routes"] = serde_json::json!([]);
    for port in after["ports"].as_array_mut().unwrap() {
        if port["network"] == 100 {
            port["network"] = 500.into();
        }
    }
    after["ports"].as_array_mut().unwrap().retain(|port| port["network"] != 200);
    world.a.apply(&after);
    world.a.send_as(&earlier, &ping_head(&A1, &B1, v4).udp((1, 2), b""))
}

#[test]
fn batches_before_and_after_the_swap_never_mix_networks() {
    let mut world = World::vxlan();
    let mut guests = [with(A1), with(MOVED)].into_iter().cycle();
    let mut buffers: Vec<_> = (0..BATCH).map(|_| Buffer::new()).collect();
    let frame = ping_head(&A1, &B1, v4).udp((1, 2), b"who hears?");
    let mut verdicts = Verdicts::new();
    for generation in 2..202 {
        world.a.apply(&document(generation, &guests.next().unwrap()));
        let port = world.a.port("a1");
        let context =
            Context { tables: &world.a.tables, directory: &world.a.reader, now: world.a.now, worker: 0 };
        let mut packets: Vec<_> = buffers.iter_mut().map(|buffer| buffer.load(&frame)).collect();
        egress(&context, &port, &mut packets, &mut verdicts);
        let (vni, hears) = if generation % 2 == 0 { (100, B1) } else { (400, B5) };
        for (packet, verdict) in packets.iter().zip(&verdicts) {
            assert!(matches!(verdict, Verdict::Underlay(_)), "{verdict:?}");
            assert_eq!(packet.frame()[4..7], vni_bytes(vni), "the network on the wire");
            assert_eq!(
                Seen::of(&packet.frame()[8..]).macs().1,
                hears.mac,
                "the directory's entry is that network's"
            );
        }
        let arrived = world.b.receive(HOST_A, packets[0].frame());
        world.is_delivered(&arrived, &hears);
    }
}

fn vni_bytes(value: u32) -> [u8; 3] {
    vni(value).to_be_bytes()
}

#[test]
fn after_the_move_the_old_network_neither_hears_nor_reaches_the_port() {
    let mut world = World::vxlan();
    let to_a1 = |from: &Guest, network: u32| {
        let [a, b, c] = vni_bytes(network);
        [&[8, 0, 0, 0, a, b, c, 0], &ping_head(from, &A1, v4).udp((1, 2), b"")[..]].concat()
    };
    assert!(matches!(world.a.receive(HOST_B, &to_a1(&B1, 100)).verdict, Verdict::Deliver(_)));
    world.a.apply(&document(2, &with(MOVED)));
    world.a.receive(HOST_B, &to_a1(&B1, 100)).is_drop(DropReason::NotLocal, "underlay");
    let id = world.a.port("a1").id;
    assert_eq!(world.a.receive(HOST_B, &to_a1(&B5, 400)).verdict, Verdict::Deliver(id));
    // Its old neighbour on the same host has no port there either, only the directory's stale word.
    let neighbour = world.a.send(&A6, &ping_head(&A6, &A1, v4).udp((1, 2), b""));
    neighbour.is_drop(DropReason::DirectoryStale, "a6");
    // The old gateway's address is nobody's in the new network.
    let old_gateway = world.a.send(&MOVED, &Head::of(&A1, MacAddr::ROUTER, "10.0.0.1").echo(b""));
    old_gateway.is_drop(DropReason::DirectoryMiss, "a1");
}

#[test]
fn one_changed_mapping_acts_on_the_next_packet() {
    let mut world = World::vxlan();
    let frame = ping_head(&A1, &B1, v4).udp((1, 2), b"");
    assert_eq!(world.a.send(&A1, &frame).tunnel().to, HOST_B.parse().unwrap());
    world.a.know(&B1, "192.0.2.3");
    assert_eq!(world.a.send(&A1, &frame).tunnel().to, "192.0.2.3".parse().unwrap());
}
