//! What goes to the endpoint of the metadata service, and what never does.

use std::sync::Arc;

use dataplane::pipeline::{DropReason, Verdict};
use dataplane::types::MacAddr;
use serde_json::json;

use super::frames::Head;
use super::rules::fragments;
use super::world::*;

const SERVICES: [&str; 2] = ["169.254.169.254", "168.63.129.16"];

/// The world with an endpoint on host A.
fn served() -> World {
    let mut world = World::vxlan();
    let tables = Arc::into_inner(std::mem::replace(&mut world.a.tables, world.b.tables.clone())).unwrap();
    world.a.tables = Arc::new(tables.with_endpoint());
    world
}

fn to(target: &str) -> Head {
    Head::of(&A1, MacAddr::ROUTER, target)
}

#[test]
fn only_segments_to_the_services_port_are_detoured() {
    let mut world = served();
    for service in SERVICES {
        for bits in ["S", "A", "FA", "R"] {
            let frame = to(service).segment((7, 80), bits);
            let outcome = world.a.send(&A1, &frame);
            assert_eq!(outcome.verdict, Verdict::Detour, "{bits} to {service}");
            assert_eq!(outcome.frame, frame, "as the guest sent it");
        }
        let [first, rest] = fragments(&to(service).tcp((7, 80), &[1; 60]), 77);
        for frame in [to(service).tcp((7, 81), b""), to(service).udp((7, 80), b""), first, rest] {
            world.a.send(&A1, &frame).is_drop(DropReason::GatewayUnserved, "a1");
        }
    }
    world.a.send(&A1, &to("10.0.0.1").tcp((7, 80), b"")).is_drop(DropReason::GatewayUnserved, "a1");
    // Successors of the tables serve as well, and no rule of the port cuts the service off.
    let mut ruled = document(2, &ON_A);
    ruled["ports"][0]["rules"] = json!([{"id": 1, "direction": "out", "action": "deny"}]);
    world.a.apply(&ruled);
    world.a.send(&A1, &to("10.0.0.9").tcp((7, 80), b"")).is_drop(DropReason::RuleDeniedOut, "a1");
    assert_eq!(world.a.send(&A1, &to(SERVICES[0]).segment((7, 80), "S")).verdict, Verdict::Detour);
}

#[test]
fn nobody_reaches_the_service_in_anothers_name() {
    let world = served();
    for service in SERVICES {
        let honest = to(service);
        let forged = Head { from: "10.0.0.9".parse().unwrap(), ..honest };
        world.a.send(&A1, &forged.segment((7, 80), "S")).is_drop(DropReason::SourceIpSpoofed, "a1");
        let nobody = Head { from: "0.0.0.0".parse().unwrap(), ..honest };
        world.a.send(&A1, &nobody.segment((7, 80), "S")).is_drop(DropReason::SourceIpSpoofed, "a1");
        let other = Head { from_mac: A6.mac, ..honest };
        world.a.send(&A1, &other.segment((7, 80), "S")).is_drop(DropReason::SourceMacSpoofed, "a1");
        // A port without an IPv4 address has none to ask from.
        let without = Head { from_mac: A4.mac, ..honest };
        world.a.send(&A4, &without.segment((7, 80), "S")).is_drop(DropReason::SourceIpSpoofed, "a4");
    }
}

#[test]
fn nothing_from_a_tunnel_reaches_the_service() {
    let world = served();
    for (service, reason) in
        [(SERVICES[0], DropReason::DestinationInvalid), (SERVICES[1], DropReason::NotLocal)]
    {
        let frame = Head::of(&B1, MacAddr::ROUTER, service).segment((7, 80), "S");
        let tunnelled = [&[8, 0, 0, 0, 0, 0, 100, 0], frame.as_slice()].concat();
        world.a.receive(HOST_B, &tunnelled).is_drop(reason, "underlay");
        // A packet in the service's own name.
        let answer = Head { from: service.parse().unwrap(), ..Head::of(&B1, A1.mac, A1.ips[0]) };
        let tunnelled = [&[8, 0, 0, 0, 0, 0, 100, 0], answer.segment((80, 7), "SA").as_slice()].concat();
        world.a.receive(HOST_B, &tunnelled).is_drop(DropReason::InnerSourceForged, "underlay");
    }
}
