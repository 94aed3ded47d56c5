use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::*;
use crate::desired::Encapsulation;
use crate::types::{Generation, Nanos};

fn underlay() -> Arc<UnderlayConfig> {
    Arc::new(UnderlayConfig {
        physical_ips: vec!["192.0.2.1".parse().unwrap()],
        encapsulation: Encapsulation::Vxlan,
        mtu: Mtu::new(1600).unwrap(),
    })
}

fn document(generation: u64) -> Value {
    json!({
        "generation": generation,
        "networks": [
            {"vni": 100, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}, {"prefix": "10.0.1.0/24", "gateway": "10.0.1.1"}],
             "lease_seconds": 80, "routes": [{"prefix": "0.0.0.0/0", "via": "drop"}]},
            {"vni": 200, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}, {"prefix": "fd00::/64", "gateway": "fd00::1"}]}
        ],
        "ports": [
            {"name": "a", "network": 100, "mac": "02:00:00:00:00:01", "ips": ["10.0.0.5"]},
            {"name": "b", "network": 200, "mac": "02:00:00:00:00:02", "ips": ["10.0.0.6", "fd00::6"]}
        ]
    })
}

fn succeed(tables: &Tables, document: Value) -> Tables {
    tables.succeed(&serde_json::from_value(document).unwrap(), 1).unwrap()
}

fn named<'t>(tables: &'t Tables, name: &str) -> &'t Arc<Port> {
    tables.port_named(&name.parse().unwrap()).unwrap()
}

fn vnet(tables: &Tables, vni: u32) -> &Arc<Vnet> {
    tables.vnet_of(Vni::new(vni).unwrap()).unwrap()
}

#[test]
fn what_did_not_change_is_shared() {
    let one = succeed(&Tables::empty(underlay(), 1, 7), document(1));
    let mut moved = document(2);
    moved["ports"][0]["ips"] = json!(["10.0.0.7"]);
    let two = succeed(&one, moved);
    assert_eq!(two.generation, Generation(2));
    assert!(Arc::ptr_eq(named(&one, "b"), named(&two, "b")));
    assert!(Arc::ptr_eq(vnet(&one, 200), vnet(&two, 200)));
    assert!(!Arc::ptr_eq(vnet(&one, 100), vnet(&two, 100)));
    assert_eq!(vnet(&two, 100).local_port("10.0.0.5".parse().unwrap()), None);
    assert_eq!(vnet(&two, 100).local_port("10.0.0.7".parse().unwrap()), Some(named(&two, "a").id));
}

#[test]
fn a_move_begins_a_new_epoch_and_keeps_slot_and_counters() {
    let one = succeed(&Tables::empty(underlay(), 1, 7), document(1));
    named(&one, "a").progress.leased(Nanos(5));
    let mut moved = document(2);
    moved["ports"][0]["network"] = json!(200);
    let two = succeed(&one, moved);
    let (before, after) = (named(&one, "a"), named(&two, "a"));
    assert_eq!((before.id, before.epoch, after.epoch), (after.id, Generation(1), Generation(2)));
    assert!(Arc::ptr_eq(&before.counters, &after.counters));
    assert_eq!((before.progress.lease_at(), after.progress.lease_at()), (Some(Nanos(5)), None));
    assert_eq!(after.vni.value(), 200);
    assert!(!vnet(&two, 100).has_ports());
}

#[test]
fn a_new_name_server_reaches_the_lease_but_begins_no_epoch() {
    let one = succeed(&Tables::empty(underlay(), 1, 7), document(1));
    let mut changed = document(2);
    changed["networks"][0]["dns"] = json!(["10.0.0.53"]);
    let two = succeed(&one, changed);
    let after = named(&two, "a");
    assert_eq!(after.epoch, Generation(1));
    assert_eq!(after.lease.as_ref().unwrap().dns, [Ipv4Addr::new(10, 0, 0, 53)]);
}

#[test]
fn slots_of_the_removed_are_taken_again() {
    let one = succeed(&Tables::empty(underlay(), 1, 7), document(1));
    let mut changed = document(2);
    changed["ports"][0]["name"] = json!("c");
    changed["networks"][0]["vni"] = json!(300);
    changed["ports"][0]["network"] = json!(300);
    let two = succeed(&one, changed);
    assert_eq!(named(&two, "c").id, named(&one, "a").id);
    assert!(
        !Arc::ptr_eq(&named(&two, "c").counters, &named(&one, "a").counters),
        "a new port counts from zero"
    );
    assert!(two.vnet_of(Vni::new(100).unwrap()).is_none());
    assert_eq!(two.vnets().count(), 2);
}

#[test]
fn the_lease_says_all_that_a_guest_needs() {
    let tables = succeed(&Tables::empty(underlay(), 1, 7), document(1));
    let lease = named(&tables, "a").lease.clone().unwrap();
    let gateway = Ipv4Addr::new(10, 0, 0, 1);
    assert_eq!((lease.address, lease.prefix_len, lease.gateway), (Ipv4Addr::new(10, 0, 0, 5), 24, gateway));
    assert_eq!((lease.seconds, lease.renew_seconds, lease.rebind_seconds), (80, 40, 70));
    assert_eq!(lease.mtu.bytes(), 1500);
    let routes: Vec<(Ipv4Net, Ipv4Addr)> =
        ["0.0.0.0/0", "168.63.129.16/32", "169.254.169.254/32", "10.0.1.0/24"]
            .map(|to| (to.parse().unwrap(), gateway))
            .into();
    assert_eq!(lease.classless_routes, routes);
    assert_eq!(vnet(&tables, 100).router_advertisement, None);
    assert_eq!(
        vnet(&tables, 200).router_advertisement.as_ref().unwrap().prefixes,
        ["fd00::/64".parse().unwrap()]
    );
}

#[test]
fn own_prefixes_come_before_routes() {
    let tables = succeed(&Tables::empty(underlay(), 1, 7), document(1));
    let at = |ip: &str| vnet(&tables, 100).routes.lookup(ip.parse().unwrap()).copied();
    assert_eq!(at("10.0.1.9"), Some(Hop::OnLink));
    assert_eq!(at("192.0.2.9"), Some(Hop::Drop));
    assert_eq!(vnet(&tables, 200).routes.lookup("192.0.2.9".parse().unwrap()), None);
}

/// What differs from port to port and network to network; counters and progress are not configuration.
fn told(tables: &Tables) -> impl PartialEq + std::fmt::Debug + use<> {
    let ports: Vec<_> = tables
        .ports()
        .map(|port| {
            (port.id, port.config.clone(), port.vnet, port.vni, port.mac, port.epoch, port.lease.clone())
        })
        .collect();
    let owned: Vec<_> = tables.ports().map(|port| port.config.ips.iter().all(|&ip| port.owns(ip))).collect();
    let vnets: Vec<_> = tables
        .vnets()
        .map(|vnet| {
            (vnet.config.clone(), vnet.mtu, vnet.addresses.clone(), vnet.router_advertisement.clone())
        })
        .collect();
    (
        tables.generation,
        ports,
        owned,
        vnets,
        tables.by_name.clone(),
        tables.by_vni.clone(),
        tables.order.clone(),
    )
}

proptest::proptest! {
    /// The short cut builds what the full walk builds, and nothing that validation would refuse.
    #[test]
    fn a_change_in_place_is_a_change(edits in proptest::collection::vec((0_usize..4, 0_usize..4, 0_u8..8), 0..4), earlier in 0_usize..4) {
        let mut before = document(1);
        for (index, name) in ["c", "d"].into_iter().enumerate() {
            let ip = format!("10.0.0.{}", 7 + index);
            let mac = format!("02:00:00:00:00:0{}", 3 + index);
            let port = json!({"name": name, "network": 200, "mac": mac, "ips": [ip]});
            before["ports"].as_array_mut().unwrap().insert(earlier.min(index), port);
        }
        let one = succeed(&Tables::empty(underlay(), 1, 7), before.clone());
        let mut after = before;
        after["generation"] = json!(2);
        for (port, what, value) in edits {
            let port = &mut after["ports"][port];
            match what {
                0 => port["network"] = json!([100, 200, 300][usize::from(value % 3)]),
                // One of them is the gateway, some are other ports', one is outside.
                1 if value < 2 => port["ips"] = json!([if value == 0 { "10.0.0.5" } else { "10.0.0.1" }]),
                1 => port["ips"] = json!([format!("10.0.{}.{}", value / 7 * 9, 1 + value)]),
                2 => port["mac"] = json!(format!("02:00:00:00:00:0{value}")),
                _ => port["hostname"] = json!(format!("guest-{value}")),
            }
        }
        let config: HostConfig = serde_json::from_value(after).unwrap();
        match (one.succeed_in_place(&config, 1), config.validate(&one.underlay)) {
            (Some(two), Ok(())) => proptest::prop_assert!(told(&two) == told(&one.succeed_any(&config, 1)), "{two:?}"),
            (None, Err(_)) => {}
            (built, judged) => proptest::prop_assert!(false, "{built:?}, but {judged:?}"),
        }
    }
}

#[test]
fn a_network_that_is_there_twice_is_refused_whatever_was_before() {
    let one = succeed(&Tables::empty(underlay(), 1, 7), document(1));
    let mut doubled = document(2);
    doubled["networks"][1] = doubled["networks"][0].clone();
    let doubled: HostConfig = serde_json::from_value(doubled).unwrap();
    let vni = doubled.networks[0].vni;
    assert_eq!(one.succeed(&doubled, 1).unwrap_err(), crate::desired::ConfigError::DuplicateNetwork(vni));
}

#[test]
fn a_move_shares_what_it_does_not_touch() {
    let one = succeed(&Tables::empty(underlay(), 1, 7), document(1));
    let mut moved = document(2);
    moved["ports"][0]["ips"] = json!(["10.0.0.7"]);
    let two = one.succeed_in_place(&serde_json::from_value(moved).unwrap(), 1).unwrap();
    assert!(Arc::ptr_eq(&one.by_name, &two.by_name) && Arc::ptr_eq(&one.by_vni, &two.by_vni));
    assert!(Arc::ptr_eq(vnet(&one, 200), vnet(&two, 200)) && Arc::ptr_eq(named(&one, "b"), named(&two, "b")));
    let mut grown = document(3);
    grown["networks"][0]["lease_seconds"] = json!(90);
    assert!(one.succeed_in_place(&serde_json::from_value(grown).unwrap(), 1).is_none(), "for the full walk");
}
