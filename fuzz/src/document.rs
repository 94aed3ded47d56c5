//! Documents ([`HostConfig`]): two of them after each other, from any JSON, or nearly right ones.
//!
//! The first byte chooses: the rest is JSON text, or a row of choices that makes two documents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::desired::{ConfigError, Encapsulation, HostConfig, NetworkConfig, NextHop, UnderlayConfig};
use dataplane::tables::{Hop, Tables};
use dataplane::types::{CustomerIp, MacAddr, Mtu, PhysicalIp};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::dice::Dice;

/// What is read can be written and read again; it is accepted exactly when a second reading of the rules allows it, and a
/// refusal says what, where, and what to do; the tables of an accepted one say what it says, whatever came before it, and
/// keep what has not changed.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    let underlay = underlay(&mut dice);
    let tables = Tables::empty(underlay.clone().into(), 1, 7);
    if dice.byte() & 1 == 1 {
        let text = String::from_utf8_lossy(dice.rest());
        if let Some(document) = read(&text) {
            succeed(&tables, &underlay, &document);
        }
        return;
    }
    let mut tables = tables;
    for generation in 1..=3 {
        if generation > 1 && dice.is_empty() {
            return;
        }
        let value = document(&mut dice, generation);
        let Some(document) = read(&value.to_string()) else { continue };
        // The switch has refused it by then: generations never go back.
        if document.generation <= tables.generation {
            continue;
        }
        if let Some(next) = succeed(&tables, &underlay, &document) {
            check_kept(&tables, &next, &document);
            tables = next;
        }
    }
}

fn underlay(dice: &mut Dice<'_>) -> UnderlayConfig {
    let ips: &[&str] = dice.pick(&[&["192.0.2.1"][..], &["2001:db8::1", "192.0.2.1"]]);
    UnderlayConfig {
        physical_ips: ips.iter().map(|ip| ip.parse::<PhysicalIp>().unwrap()).collect(),
        encapsulation: Encapsulation::Vxlan,
        mtu: Mtu::new(dice.pick(&[1600, 1500, 576, 9000, 65_521, 1330, 1350])).unwrap(),
    }
}

fn read(text: &str) -> Option<HostConfig> {
    match serde_json::from_str::<HostConfig>(text) {
        Ok(document) => {
            let written = serde_json::to_string(&document).unwrap();
            assert_eq!(
                serde_json::from_str::<HostConfig>(&written).expect("what was written is read"),
                document
            );
            assert!(document.same_content(&document.clone()));
            Some(document)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

fn succeed(tables: &Tables, underlay: &UnderlayConfig, document: &HostConfig) -> Option<Tables> {
    let is_lawful = is_lawful(document, underlay);
    match tables.succeed(document, 1) {
        Ok(next) => {
            assert!(is_lawful, "accepted: {document:?}");
            assert_eq!(document.validate(underlay), Ok(()));
            check_tables(&next, document, underlay);
            Some(next)
        }
        Err(error) => {
            assert!(!is_lawful, "refused: {error}: {document:?}");
            check_refusal(&error, document);
            None
        }
    }
}

/// It names something that the document really holds.
fn check_refusal(error: &ConfigError, document: &HostConfig) {
    let (what, place, remedy) = (error.to_string(), error.place(), error.remedy());
    for text in [&what, &place, &remedy] {
        assert!(!text.trim().is_empty() && !text.contains('\n'), "{error:?}");
    }
    let networks = document.networks.iter().map(|network| format!("network {}", network.vni));
    let ports = document.ports.iter().map(|port| format!("port {}", port.name));
    let whole = ["generation".to_owned(), "networks".into(), "ports".into()];
    let mut places = networks.chain(ports).chain(whole);
    assert!(
        places.any(|known| place == known || place.starts_with(&format!("{known},"))),
        "where is {place}? {what}"
    );
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    let shorter = a.prefix_len().min(b.prefix_len());
    match (a, b) {
        (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_)) => {
            IpNet::new(a.addr(), shorter).unwrap().trunc() == IpNet::new(b.addr(), shorter).unwrap().trunc()
        }
        _ => false,
    }
}

fn is_station(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_broadcast() || matches!(ip.octets()[0], 127 | 224..=239))
        }
        IpAddr::V6(ip) => ip.to_bits() > 1 && ip.octets()[0] != 0xff,
    }
}

fn is_guest_of(ip: IpAddr, prefix: IpNet) -> bool {
    let is_broadcast = ip.is_ipv4() && ip == prefix.broadcast();
    prefix.contains(&ip) && ip != prefix.network() && !is_broadcast && is_station(ip)
}

/// The rules of docs/reference, one sentence a line.
fn is_lawful(document: &HostConfig, underlay: &UnderlayConfig) -> bool {
    let networks: BTreeMap<_, _> =
        document.networks.iter().map(|network| (network.vni.value(), network.as_ref())).collect();
    let names: BTreeSet<_> = document.ports.iter().map(|port| port.name.as_str()).collect();
    let macs: BTreeSet<_> = document.ports.iter().map(|port| (port.network, port.mac)).collect();
    let ips = document.ports.iter().flat_map(|port| port.ips.iter().map(|ip| (port.network, *ip)));
    let ips: Vec<_> = ips.collect();
    let distinct: BTreeSet<_> = ips.iter().collect();
    document.generation.0 < 1 << 53
        && document.networks.len() <= 65_536
        && document.ports.len() <= 65_536
        && networks.len() == document.networks.len()
        && names.len() == document.ports.len()
        && macs.len() == document.ports.len()
        && distinct.len() == ips.len()
        && networks.values().all(|network| is_lawful_network(network, &networks, underlay))
        && document.ports.iter().all(|port| {
            let Some(network) = networks.get(&port.network.value()) else { return false };
            let has_place = |ip: &CustomerIp| {
                network.subnets.iter().all(|subnet| subnet.gateway != *ip)
                    && network.subnets.iter().any(|subnet| is_guest_of(ip.0, subnet.prefix))
            };
            let is_namespace = port.netns.as_deref().is_none_or(|name| {
                let is_path = name.starts_with('/');
                let is_name = !name.contains('/') && !["", ".", ".."].contains(&name);
                (is_path || is_name) && !name.contains('\0')
            });
            (1..=64).contains(&port.ips.len())
                && port.ips.iter().all(has_place)
                && (1..=16).contains(&port.queues)
                && port.mac.0[0] & 1 == 0
                && port.mac.0 != [0; 6]
                && port.mac != MacAddr::ROUTER
                && is_namespace
                && port.hostname.as_ref().is_none_or(|name| name.as_str().len() <= 64)
        })
}

fn is_lawful_network(
    network: &NetworkConfig,
    all: &BTreeMap<u32, &NetworkConfig>,
    underlay: &UnderlayConfig,
) -> bool {
    let outer = if underlay.physical_ips.iter().any(|ip| ip.0.is_ipv6()) { 70 } else { 50 };
    let largest = underlay.mtu.bytes().saturating_sub(outer);
    let mtu = network.mtu.map_or(largest.min(1500), Mtu::bytes);
    let has_v6 = network.subnets.iter().any(|subnet| subnet.prefix.addr().is_ipv6());
    let prefixes: BTreeSet<_> = network.routes.iter().map(|route| route.prefix).collect();
    (1..=64).contains(&network.subnets.len())
        && network.dns.len() <= 8
        && network.routes.len() <= 65_536
        && network.dns.iter().all(|ip| is_station(*ip))
        && network.lease_seconds >= 5
        && mtu <= largest
        && (!has_v6 || mtu >= 1280)
        && prefixes.len() == network.routes.len()
        && network.subnets.iter().enumerate().all(|(nth, subnet)| {
            let prefix = subnet.prefix;
            prefix == prefix.trunc()
                && prefix.max_prefix_len() - prefix.prefix_len() >= 2
                && is_station(prefix.network())
                && is_guest_of(subnet.gateway.0, prefix)
                && network.subnets.iter().take(nth).all(|other| !overlap(other.prefix, prefix))
        })
        && network.routes.iter().all(|route| {
            route.prefix == route.prefix.trunc()
                && match route.via {
                    NextHop::Gateway | NextHop::Drop => true,
                    NextHop::Network(peer) => peer != network.vni && all.contains_key(&peer.value()),
                    NextHop::Ip(via) => {
                        via.0.is_ipv4() == route.prefix.addr().is_ipv4()
                            && network.subnets.iter().any(|subnet| subnet.prefix.contains(&via.0))
                    }
                }
        })
}

/// Everything that the document says can be found in the tables, and nothing else.
fn check_tables(tables: &Tables, document: &HostConfig, underlay: &UnderlayConfig) {
    assert_eq!(tables.generation, document.generation);
    assert_eq!(tables.ports().count(), document.ports.len());
    assert_eq!(tables.vnets().count(), document.networks.len());
    let slots: BTreeSet<_> = tables.ports().map(|port| port.id).collect();
    assert_eq!(slots.len(), document.ports.len(), "a slot for each");
    for network in &document.networks {
        let vnet = tables.vnet_of(network.vni).expect("every network has its tables");
        assert_eq!((&vnet.config, vnet.vni), (network, network.vni));
        assert_eq!(vnet.mtu.bytes(), network.mtu.map_or(underlay.default_inner_mtu().max(576), Mtu::bytes));
        let has_v6 = network.subnets.iter().any(|subnet| subnet.prefix.addr().is_ipv6());
        assert_eq!(vnet.router_advertisement.is_some(), has_v6);
        let mut here = 0;
        for port in document.ports.iter().filter(|port| port.network == network.vni) {
            here += 1;
            for ip in &port.ips {
                let id = vnet.local_port(*ip).expect("each address leads to its port");
                assert_eq!(tables.port(id).unwrap().config, *port);
                assert!(!vnet.is_gateway(*ip));
            }
        }
        assert_eq!(vnet.has_ports(), here > 0);
        check_routes(&vnet.routes, network);
    }
    for config in &document.ports {
        let port = tables.port_named(&config.name).expect("every port has its tables");
        assert_eq!((&port.config, port.vni, port.mac), (config, config.network, config.mac));
        assert_eq!(tables.vnet(port.vnet).unwrap().vni, config.network);
        assert!(port.epoch <= document.generation);
        assert!(config.ips.iter().all(|ip| port.owns(*ip)));
        let first_v4 = config.ips.iter().find(|ip| ip.0.is_ipv4());
        assert_eq!(port.lease.as_ref().map(|lease| CustomerIp::from(lease.address)), first_v4.copied());
        if let Some(lease) = &port.lease {
            let network = document.network(config.network).unwrap();
            let of =
                |subnet: &&dataplane::desired::Subnet| subnet.prefix.contains(&IpAddr::V4(lease.address));
            let subnet = network.subnets.iter().find(of).unwrap();
            assert_eq!(
                (subnet.gateway.0, subnet.prefix.prefix_len()),
                (lease.gateway.into(), lease.prefix_len)
            );
            assert!(lease.renew_seconds <= lease.rebind_seconds && lease.rebind_seconds < lease.seconds);
        }
    }
}

/// The longest prefix, by one look at each; a network's own before a route to the very same prefix.
fn check_routes(routes: &dataplane::tables::Routes, network: &NetworkConfig) {
    let own = network.subnets.iter().map(|subnet| (subnet.prefix, Hop::OnLink));
    let beyond = network.routes.iter().map(|route| {
        let hop = match route.via {
            NextHop::Ip(ip) => Hop::Via(ip),
            NextHop::Gateway => Hop::Uplink,
            NextHop::Drop => Hop::Drop,
            NextHop::Network(vni) => Hop::Peer(vni),
        };
        (route.prefix, hop)
    });
    let all: Vec<_> = beyond.chain(own).collect();
    let edges = all.iter().take(200).flat_map(|(prefix, _)| [prefix.network(), prefix.broadcast()]);
    let others = ["8.8.8.8", "10.0.0.5", "2001:db8::9", "::", "0.0.0.0"].map(|ip| ip.parse().unwrap());
    for ip in edges.chain(others) {
        let covering = all.iter().filter(|(prefix, _)| prefix.contains(&ip));
        let expected = covering.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, hop)| *hop);
        assert_eq!(routes.lookup(CustomerIp(ip)).copied(), expected, "{ip} in {network:?}");
    }
}

/// What has not changed keeps its slot, its counters, and its epoch.
fn check_kept(before: &Tables, after: &Tables, document: &HostConfig) {
    for port in after.ports() {
        let Some(old) = before.port_named(&port.config.name) else {
            assert_eq!(port.epoch, document.generation, "a new port");
            continue;
        };
        assert_eq!(port.id, old.id);
        assert!(std::sync::Arc::ptr_eq(&port.counters, &old.counters));
        let binding = |port: &dataplane::tables::Port| (port.vni, port.mac, port.config.ips.clone());
        if binding(port) == binding(old) {
            assert_eq!(port.epoch, old.epoch);
            assert!(std::sync::Arc::ptr_eq(&port.progress, &old.progress));
        } else {
            assert_eq!(port.epoch, document.generation, "its frames of before are not its own any more");
            assert!(!std::sync::Arc::ptr_eq(&port.progress, &old.progress));
        }
    }
}

const PREFIXES: [(&str, &str); 12] = [
    ("10.0.0.0/24", "10.0.0.1"),
    ("10.0.1.0/24", "10.0.1.1"),
    ("fd00:a::/64", "fd00:a::1"),
    ("10.0.0.0/16", "10.0.0.1"),
    ("10.2.0.0/30", "10.2.0.1"),
    ("10.2.0.0/31", "10.2.0.0"),
    ("10.0.0.5/24", "10.0.0.1"),
    ("0.0.0.0/0", "10.0.0.1"),
    ("fd00:a::/126", "fd00:a::1"),
    ("224.0.0.0/8", "224.0.0.1"),
    ("10.0.0.0/24", "10.0.0.255"),
    ("10.0.0.0/24", "10.0.1.1"),
];
const IPS: [&str; 13] = [
    "10.0.0.5",
    "10.0.0.6",
    "10.0.1.6",
    "fd00:a::5",
    "fd00:a::2",
    "10.2.0.2",
    "10.0.0.1",
    "10.0.0.255",
    "10.0.0.0",
    "fd00:a::",
    "8.8.8.8",
    "127.0.0.1",
    "::ffff:10.0.0.5",
];

fn document(dice: &mut Dice<'_>, generation: u64) -> Value {
    let generation = if dice.rarely(32) { u64::MAX >> (dice.byte() % 64) } else { generation };
    let networks: Vec<_> = (0..dice.byte() % 4).map(|nth| network(dice, u32::from(nth))).collect();
    let ports: Vec<_> = (0..dice.byte() % 6).map(|nth| port(dice, nth)).collect();
    let mut document = json!({"generation": generation, "networks": networks, "ports": ports});
    if dice.rarely(32) {
        document["zzz"] = json!(1);
    }
    document
}

const VNIS: [u32; 3] = [100, 200, 300];

fn network(dice: &mut Dice<'_>, nth: u32) -> Value {
    let vni = if dice.rarely(16) { dice.pick(&[0, 100, 0xff_ffff, 1 << 24]) } else { VNIS[nth as usize % 3] };
    let subnets = 1 + dice.byte() % 3;
    let subnets: Vec<_> = (0..subnets)
        .map(|nth| {
            let (prefix, gateway) =
                if dice.rarely(4) { dice.pick(&PREFIXES) } else { PREFIXES[usize::from(nth) % 3] };
            json!({"prefix": prefix, "gateway": gateway})
        })
        .collect();
    let mut network = json!({"vni": vni, "subnets": subnets});
    let whims = dice.byte();
    if whims & 1 != 0 {
        network["mtu"] = json!(dice.pick(&[1400, 1280, 576, 1279, 1550, 1551, 9000, 100, 65_521]));
    }
    if whims & 2 != 0 {
        network["lease_seconds"] = json!(dice.pick(&[60_u32, 5, 4, 0, u32::MAX]));
    }
    if whims & 4 != 0 {
        let count = dice.byte() % 10;
        network["dns"] = json!((0..count).map(|_| dice.pick(&IPS)).collect::<Vec<_>>());
    }
    if whims & 8 != 0 {
        let long = format!("{}.example", "a".repeat(63));
        network["domain"] = json!(dice.pick(&["red.example", &long, "a..b", ""]));
    }
    if whims & 16 != 0 {
        let routes: Vec<_> = (0..dice.byte() % 24).map(|_| route(dice)).collect();
        network["routes"] = json!(routes);
    }
    if whims & 0xe0 == 0xe0 {
        network["subnets"] = json!([]);
    }
    network
}

fn route(dice: &mut Dice<'_>) -> Value {
    let length = dice.byte() % 34;
    let prefix = match dice.byte() % 8 {
        0 => format!("fd00:{:x}::/{}", dice.byte(), dice.byte() % 130),
        1 => dice.pick(&PREFIXES).0.to_owned(),
        2 => format!("10.{}.0.1/{length}", dice.byte()),
        _ => format!("{}.{}.0.0/16", 10 + dice.byte() % 4, dice.byte()),
    };
    let via = dice.pick(&[
        "10.0.0.9",
        "drop",
        "gateway",
        "network:200",
        "network:100",
        "network:9",
        "fd00:a::9",
        "8.8.8.8",
        "zzz",
    ]);
    json!({"prefix": prefix, "via": via})
}

fn port(dice: &mut Dice<'_>, nth: u8) -> Value {
    let name = if dice.rarely(16) {
        dice.pick(&["p0", "-", "", "sixteen-bytes-xx", "ä"]).into()
    } else {
        format!("p{nth}")
    };
    let network = dice.pick(&[100, 100, 200, 300, 777]);
    let mac = match dice.byte() % 16 {
        15 => dice
            .pick(&["01:00:00:00:00:01", "00:00:00:00:00:00", "0e:53:48:55:4e:54", "02:00:00:00:00:00", "x"])
            .to_owned(),
        _ => format!("02:00:00:00:00:{nth:02x}"),
    };
    let ips: Vec<String> = match dice.byte() % 4 {
        0 => (0..dice.byte() % 4).map(|_| dice.pick(&IPS).to_owned()).collect(),
        1 => vec![format!("fd00:a::1:{nth}"), format!("10.0.1.{}", 10 + nth)],
        _ => vec![format!("10.0.0.{}", 10 + nth)],
    };
    let mut port = json!({"name": name, "network": network, "mac": mac, "ips": ips});
    let whims = dice.byte();
    if whims & 1 != 0 {
        port["queues"] = json!(dice.pick(&[1, 2, 16, 17, 0, 65_535]));
    }
    if whims & 2 != 0 {
        port["netns"] = json!(dice.pick(&["ns", "/run/netns/x", "a/b", "", "..", "a\0b"]));
    }
    if whims & 4 != 0 {
        let long = "a.".repeat(32) + "b";
        port["hostname"] = json!(dice.pick(&["guest", &long, "-"]));
    }
    port
}
